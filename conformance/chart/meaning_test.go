package chart_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// all returns the objects of one type.
func all[T runtime.Object](docs []document) []T {
	var out []T
	for _, d := range docs {
		if o, ok := d.object.(T); ok {
			out = append(out, o)
		}
	}
	return out
}

// hooks returns the documents that exist only after the release has gone (true), or all others.
func hooks(docs []document, after bool) []document {
	return slices.DeleteFunc(slices.Clone(docs), func(d document) bool {
		o, err := meta.Accessor(d.object)
		return (err == nil && o.GetAnnotations()["helm.sh/hook"] == "post-delete") != after
	})
}

// workload returns the pods of the Deployment or DaemonSet, and what it selects them by.
func workload(t *testing.T, docs []document) (corev1.PodTemplateSpec, *metav1.LabelSelector) {
	t.Helper()
	deployments, sets := all[*appsv1.Deployment](docs), all[*appsv1.DaemonSet](docs)
	switch {
	case len(deployments) == 1 && len(sets) == 0:
		return deployments[0].Spec.Template, deployments[0].Spec.Selector
	case len(deployments) == 0 && len(sets) == 1:
		return sets[0].Spec.Template, sets[0].Spec.Selector
	}
	t.Fatalf("there are %d Deployments and %d DaemonSets, want one in all", len(deployments), len(sets))
	return corev1.PodTemplateSpec{}, nil
}

func eachScenario(t *testing.T, test func(t *testing.T, name string, docs []document)) {
	t.Helper()
	for _, name := range scenarios(t) {
		t.Run(name, func(t *testing.T) { test(t, name, documents(t, render(t, "-f", valuesFile(name)))) })
	}
}

// TestReferences follows every name from one object to another.
func TestReferences(t *testing.T) {
	eachScenario(t, func(t *testing.T, _ string, docs []document) {
		template, selector := workload(t, docs)
		pod := template.Spec
		container := pod.Containers[0]
		ports := map[string]int32{}
		for _, p := range container.Ports {
			ports[p.Name] = p.ContainerPort
		}
		selects := func(what string, s *metav1.LabelSelector) {
			t.Helper()
			sel, err := metav1.LabelSelectorAsSelector(s)
			if err != nil || sel.Empty() || !sel.Matches(labels.Set(template.Labels)) {
				t.Errorf("%s selects %v (%v), the pods have %v", what, s, err, template.Labels)
			}
		}
		selects("the workload", selector)
		for _, c := range pod.TopologySpreadConstraints {
			selects("a topology spread constraint", c.LabelSelector)
		}
		for _, b := range all[*policyv1.PodDisruptionBudget](docs) {
			selects(b.Name, b.Spec.Selector)
		}
		services := map[string]*corev1.Service{}
		for _, s := range all[*corev1.Service](docs) {
			services[s.Namespace+"/"+s.Name] = s
			selects(s.Name, &metav1.LabelSelector{MatchLabels: s.Spec.Selector})
			for _, p := range s.Spec.Ports {
				if _, ok := ports[p.TargetPort.StrVal]; p.TargetPort.Type == intstr.String && !ok {
					t.Errorf("Service %s has port %s for port %s, which the pods do not have", s.Name, p.Name, p.TargetPort.StrVal)
				}
			}
		}
		for _, p := range []*corev1.Probe{container.StartupProbe, container.ReadinessProbe, container.LivenessProbe} {
			if p == nil || p.HTTPGet == nil || ports[p.HTTPGet.Port.StrVal] == 0 {
				t.Errorf("probe %v asks no port of the pods", p)
			}
		}
		configs := all[*corev1.ConfigMap](docs)
		if len(configs) != 1 || len(pod.Volumes) != 1 || pod.Volumes[0].ConfigMap == nil || pod.Volumes[0].ConfigMap.Name != configs[0].Name {
			t.Errorf("the pods have volumes %v, want the ConfigMap and nothing else", pod.Volumes)
		}
		accounts := all[*corev1.ServiceAccount](hooks(docs, false))
		if len(accounts) != 1 || accounts[0].Name != pod.ServiceAccountName {
			t.Errorf("the pods have account %q, the chart %v", pod.ServiceAccountName, accounts)
		}
		for _, test := range all[*corev1.Pod](docs) {
			address := strings.TrimPrefix(test.Spec.Containers[0].Args[1], "http://")
			host, _, _ := strings.Cut(address, ":")
			if name, ns, _ := strings.Cut(strings.TrimSuffix(host, ".svc"), "."); services[ns+"/"+name] == nil {
				t.Errorf("helm test asks %s, and there is no such Service", address)
			}
			if labels.SelectorFromSet(selector.MatchLabels).Matches(labels.Set(test.Labels)) {
				t.Error("the pod of helm test counts as a pod of Fairlead")
			}
		}
		for _, h := range all[*autoscalingv2.HorizontalPodAutoscaler](docs) {
			deployments := all[*appsv1.Deployment](docs)
			if len(deployments) != 1 || h.Spec.ScaleTargetRef.Name != deployments[0].Name {
				t.Errorf("%s scales %v", h.Name, h.Spec.ScaleTargetRef)
			} else if deployments[0].Spec.Replicas != nil {
				t.Error("the Deployment has replicas, which the autoscaler and Helm would fight for")
			}
		}
	})
}

// TestArguments holds what the program is told against the objects that it is told about.
func TestArguments(t *testing.T) {
	eachScenario(t, func(t *testing.T, _ string, docs []document) {
		template, _ := workload(t, docs)
		container := template.Spec.Containers[0]
		flags := map[string]string{}
		for _, arg := range container.Args[1:] {
			name, value, _ := strings.Cut(arg, "=")
			flags[name] = value
		}
		selector, err := labels.Parse(flags["--pod-selector"])
		if err != nil || selector.Empty() || !selector.Matches(labels.Set(template.Labels)) {
			t.Errorf("--pod-selector %q (%v) does not select the pods, which have %v", flags["--pod-selector"], err, template.Labels)
		}
		var want []string
		ports := map[string]int32{}
		for _, p := range container.Ports {
			ports[p.Name] = p.ContainerPort
		}
		for pair := range strings.SplitSeq(flags["--port-map"], ",") {
			_, to, _ := strings.Cut(pair, ":")
			want = append(want, to)
		}
		if got := []string{fmt.Sprint(ports["http"]), fmt.Sprint(ports["https"])}; !slices.Equal(got, want) {
			t.Errorf("the container has ports %v, --port-map is %s", got, flags["--port-map"])
		}
		if !strings.HasSuffix(flags["--admin-address"], fmt.Sprintf(":%d", ports["admin"])) {
			t.Errorf("the container has admin port %d, --admin-address is %s", ports["admin"], flags["--admin-address"])
		}
		mount := container.VolumeMounts[0]
		config := all[*corev1.ConfigMap](docs)[0]
		if _, ok := config.Data[strings.TrimPrefix(flags["--config"], mount.MountPath+"/")]; !ok {
			t.Errorf("--config is %s; %s has %v", flags["--config"], mount.MountPath, slices.Collect(maps.Keys(config.Data)))
		}
	})
}

// TestRestricted checks the Pod Security Standard "restricted" for pods that need nothing of the node. The API server's own opinion is asked in TestPodSecurity.
func TestRestricted(t *testing.T) {
	eachScenario(t, func(t *testing.T, name string, docs []document) {
		template, _ := workload(t, docs)
		pods := []corev1.PodSpec{template.Spec}
		for _, p := range all[*corev1.Pod](docs) {
			pods = append(pods, p.Spec)
		}
		for _, pod := range pods {
			container := pod.Containers[0]
			for ok, what := range map[*bool]string{
				container.SecurityContext.AllowPrivilegeEscalation: "privilege escalation",
				container.SecurityContext.Privileged:               "privilege",
			} {
				if ok != nil && *ok {
					t.Errorf("container %s has %s", container.Name, what)
				}
			}
			if container.SecurityContext.AllowPrivilegeEscalation == nil || !*container.SecurityContext.ReadOnlyRootFilesystem {
				t.Errorf("container %s: %+v", container.Name, container.SecurityContext)
			}
			if c := container.SecurityContext.Capabilities; !slices.Equal(c.Drop, []corev1.Capability{"ALL"}) || (len(c.Add) > 0 && name != "hostnetwork") {
				t.Errorf("container %s has capabilities %+v", container.Name, c)
			}
			if c := pod.SecurityContext; !*c.RunAsNonRoot || *c.RunAsUser == 0 || c.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
				t.Errorf("pod runs as %+v", c)
			}
			if user := container.SecurityContext.RunAsUser; user != nil && name != "hostnetwork" {
				t.Errorf("container %s runs as user %d", container.Name, *user)
			}
			if pod.HostNetwork != strings.HasPrefix(name, "hostnetwork") && container.Name == "fairlead" {
				t.Errorf("host network is %v", pod.HostNetwork)
			}
		}
	})
}

// TestDrain checks that Kubernetes waits as long as the program takes to stop.
func TestDrain(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		want time.Duration
	}{
		{"defaults", nil, 45 * time.Second},
		{"delay", []string{"--set", "config.drain.delay=20s"}, 55 * time.Second},
		{"grace of mixed units", []string{"--set", "config.drain.grace=1h2m3s"}, 3738 * time.Second},
		{"fractions are rounded up", []string{"--set", "config.drain.delay=1.5s,config.drain.grace=250ms"}, 7 * time.Second},
		{"none", []string{"--set", "config.drain.delay=0s,config.drain.grace=0s"}, 5 * time.Second},
		{"none, without unit", []string{"--set-string", "config.drain.delay=0,config.drain.grace=0"}, 5 * time.Second},
		{"more than needed", []string{"--set", "terminationGracePeriodSeconds=300"}, 300 * time.Second},
		{"just enough", []string{"--set", "terminationGracePeriodSeconds=40"}, 40 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			template, _ := workload(t, documents(t, render(t, tt.args...)))
			if got := time.Duration(*template.Spec.TerminationGracePeriodSeconds) * time.Second; got != tt.want {
				t.Errorf("terminationGracePeriodSeconds is %s, want %s", got, tt.want)
			}
		})
	}
}

func TestMemoryLimit(t *testing.T) {
	for _, tt := range []struct{ limit, want string }{
		{"512Mi", "483183820"},
		{"1Gi", "966367641"},
		{"1.5Gi", "1449551462"},
		{"500M", "450000000"},
		{"2G", "1800000000"},
		{"1000000k", "900000000"},
		{"1073741824", "966367641"}, // a number
		{"null", ""},
	} {
		t.Run(tt.limit, func(t *testing.T) {
			template, _ := workload(t, documents(t, render(t, "--set", "resources.limits.memory="+tt.limit)))
			got := ""
			for _, e := range template.Spec.Containers[0].Env {
				if e.Name == "GOMEMLIMIT" {
					got = e.Value
				}
			}
			if got != tt.want {
				t.Errorf("GOMEMLIMIT is %q with a limit of %s, want %q", got, tt.limit, tt.want)
			}
		})
	}
}

// TestRollout checks that an update never needs two pods on one node for the same port, and otherwise never has fewer pods than before.
func TestRollout(t *testing.T) {
	eachScenario(t, func(t *testing.T, name string, docs []document) {
		template, _ := workload(t, docs)
		var surge, unavailable *intstr.IntOrString
		for _, d := range all[*appsv1.Deployment](docs) {
			surge, unavailable = d.Spec.Strategy.RollingUpdate.MaxSurge, d.Spec.Strategy.RollingUpdate.MaxUnavailable
		}
		for _, d := range all[*appsv1.DaemonSet](docs) {
			surge, unavailable = d.Spec.UpdateStrategy.RollingUpdate.MaxSurge, d.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable
		}
		host := template.Spec.HostNetwork || slices.ContainsFunc(template.Spec.Containers[0].Ports, func(p corev1.ContainerPort) bool { return p.HostPort != 0 })
		if name == "everything" {
			return // says itself how it is updated
		}
		if want := map[bool]string{true: "0 1", false: "1 0"}[host]; surge.String()+" "+unavailable.String() != want {
			t.Errorf("maxSurge and maxUnavailable are %v and %v, want %s", surge, unavailable, want)
		}
	})
}

func TestConfigRollsPods(t *testing.T) {
	checksum := func(args ...string) string {
		template, _ := workload(t, documents(t, render(t, args...)))
		return template.Annotations["checksum/config"]
	}
	if a, b := checksum(), checksum("--set", "config.allowExternalName=true"); a == b || a == "" {
		t.Errorf("the pods have checksum %q before and %q after a change of the configuration", a, b)
	}
	config := all[*corev1.ConfigMap](documents(t, render(t, "--set", "config.limits.bodyBytes=123456789012")))[0]
	var got struct{ Limits struct{ BodyBytes int64 } }
	if err := yaml.UnmarshalStrict([]byte(config.Data["config.yaml"]), &got); err != nil || got.Limits.BodyBytes != 123456789012 {
		t.Errorf("config.yaml is %q (%v)", config.Data["config.yaml"], err)
	}
}

func TestGatewayClass(t *testing.T) {
	for _, tt := range []struct {
		name  string
		known bool
		args  []string
		want  bool
	}{
		{"known", true, nil, true},
		{"unknown", false, nil, false},
		{"unknown, wanted all the same", false, []string{"--set", "gatewayClass.create=true"}, true},
		{"known, not wanted", true, []string{"--set", "gatewayClass.create=false"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := []string{"template", release, chartDir, "-n", namespace}
			if tt.known {
				args = append(args, "-a", gatewayAPI)
			}
			out, err := helm(t, append(args, tt.args...)...)
			if err != nil {
				t.Fatal(err)
			}
			got := slices.ContainsFunc(documents(t, out), func(d document) bool { return d.name == "GatewayClass fairlead" })
			if got != tt.want {
				t.Errorf("GatewayClass is rendered: %v, want %v", got, tt.want)
			}
		})
	}
}

func TestDisruptionBudget(t *testing.T) {
	for _, tt := range []struct {
		set  string
		want bool
	}{
		{"replicas=2", true},
		{"replicas=1", false},
		{"replicas=null", true},
		{"kind=DaemonSet", false},
		{"kind=DaemonSet,podDisruptionBudget.enabled=true", true},
		{"podDisruptionBudget.enabled=false", false},
		{"replicas=1,podDisruptionBudget.enabled=true", true},
		{"autoscaling.enabled=true,replicas=1", true},
		{"autoscaling.enabled=true,autoscaling.minReplicas=1", false},
	} {
		t.Run(tt.set, func(t *testing.T) {
			if got := len(all[*policyv1.PodDisruptionBudget](documents(t, render(t, "--set", tt.set)))); got > 1 || (got == 1) != tt.want {
				t.Errorf("%d PodDisruptionBudgets, want some: %v", got, tt.want)
			}
		})
	}
}

// rights lists what the account of a rendered chart may do, as "scope group/resource verb", sorted. The scope is a namespace, or * for all; a resource of which
// only some names are meant ends with them in brackets.
func rights(t *testing.T, docs []document) []string {
	t.Helper()
	bound := map[string]bool{}
	for _, b := range all[*rbacv1.ClusterRoleBinding](docs) {
		bound["* "+b.RoleRef.Name] = b.RoleRef.Kind == "ClusterRole"
	}
	for _, b := range all[*rbacv1.RoleBinding](docs) {
		bound[b.Namespace+" "+b.RoleRef.Name] = b.RoleRef.Kind == "Role"
	}
	set := map[string]bool{}
	add := func(scope, name string, rules []rbacv1.PolicyRule) {
		if !bound[scope+" "+name] {
			t.Errorf("role %s %s is not bound", scope, name)
		}
		delete(bound, scope+" "+name)
		for _, r := range rules {
			for _, group := range r.APIGroups {
				for _, resource := range r.Resources {
					if len(r.ResourceNames) > 0 {
						resource += "[" + strings.Join(r.ResourceNames, "+") + "]"
					}
					for _, verb := range r.Verbs {
						set[fmt.Sprintf("%s %s/%s %s", scope, group, resource, verb)] = true
					}
				}
			}
		}
	}
	for _, r := range all[*rbacv1.ClusterRole](docs) {
		add("*", r.Name, r.Rules)
	}
	for _, r := range all[*rbacv1.Role](docs) {
		add(r.Namespace, r.Name, r.Rules)
	}
	if len(bound) > 0 {
		t.Errorf("bindings without roles: %v", bound)
	}
	return slices.Sorted(maps.Keys(set))
}

// grant writes rights as rights does, for a comma-separated list of verbs each.
func grant(scope string, grants ...string) []string {
	var out []string
	for _, g := range grants {
		resource, verbs, _ := strings.Cut(g, " ")
		for v := range strings.SplitSeq(verbs, ",") {
			out = append(out, scope+" "+resource+" "+v)
		}
	}
	return out
}

const (
	following  = " list,watch"
	reading    = " get,list,watch"
	publishing = " get,list,watch,create,patch,delete"
)

var (
	clusterRights = []string{
		"/namespaces" + following, "networking.k8s.io/ingressclasses" + following, "gateway.networking.k8s.io/gatewayclasses" + reading,
		"gateway.networking.k8s.io/gatewayclasses/status patch",
		"apiextensions.k8s.io/customresourcedefinitions[gatewayclasses.gateway.networking.k8s.io+gateways.gateway.networking.k8s.io+listenersets.gateway.networking.k8s.io+" +
			"httproutes.gateway.networking.k8s.io+grpcroutes.gateway.networking.k8s.io+tlsroutes.gateway.networking.k8s.io+tcproutes.gateway.networking.k8s.io+" +
			"udproutes.gateway.networking.k8s.io+backendtlspolicies.gateway.networking.k8s.io+referencegrants.gateway.networking.k8s.io+" +
			"xbackends.gateway.networking.x-k8s.io+xbackendtrafficpolicies.gateway.networking.x-k8s.io] get",
	}
	servedRights = []string{
		"discovery.k8s.io/endpointslices" + following, "networking.k8s.io/ingresses" + reading, "gateway.networking.k8s.io/gateways" + reading,
		"gateway.networking.k8s.io/listenersets" + reading, "gateway.networking.k8s.io/backendtlspolicies" + reading, "gateway.networking.k8s.io/httproutes" + reading, "gateway.networking.k8s.io/grpcroutes" + reading,
		"gateway.networking.k8s.io/tlsroutes" + reading, "gateway.networking.k8s.io/tcproutes" + reading, "gateway.networking.k8s.io/udproutes" + reading,
		"gateway.networking.x-k8s.io/xbackends" + reading, "gateway.networking.x-k8s.io/xbackends/status patch",
		"gateway.networking.k8s.io/referencegrants" + following, "networking.k8s.io/ingresses/status patch",
		"gateway.networking.k8s.io/gateways/status patch", "gateway.networking.k8s.io/listenersets/status patch", "gateway.networking.k8s.io/backendtlspolicies/status patch", "gateway.networking.k8s.io/httproutes/status patch", "gateway.networking.k8s.io/grpcroutes/status patch",
		"gateway.networking.k8s.io/tlsroutes/status patch", "gateway.networking.k8s.io/tcproutes/status patch", "gateway.networking.k8s.io/udproutes/status patch", "/configmaps get", "events.k8s.io/events create",
		"gateway.networking.x-k8s.io/xbackendtrafficpolicies" + reading, "gateway.networking.x-k8s.io/xbackendtrafficpolicies/status patch",
	}
	orders      = "config.acme.issuers[0].name=a,config.acme.issuers[0].directory=https://ca.example/dir,config.acme.issuers[0].email=a@b.example,config.acme.issuers[0].acceptTerms=true"
	leaseRights = []string{"coordination.k8s.io/leases get,create,update"}
)

// TestRights is the whole list of what Fairlead may do.
func TestRights(t *testing.T) {
	const secrets, services, readServices, nodes = "/secrets" + reading, "/services" + publishing, "/services" + following, "/nodes" + following
	for _, tt := range []struct {
		name string
		args []string
		want [][]string
	}{
		{"everywhere", nil, [][]string{
			grant("*", clusterRights...), grant("*", servedRights...), grant("*", services, secrets), grant(namespace, leaseRights...),
		}},
		{"Secrets of two namespaces", []string{"--set", "secretNamespaces={a,b}"}, [][]string{
			grant("*", clusterRights...), grant("*", servedRights...), grant("*", services), grant("a", secrets), grant("b", secrets), grant(namespace, leaseRights...),
		}},
		{"without Services for Gateways", []string{"--set", "gateway.addresses=host,hostNetwork=true"}, [][]string{
			grant("*", clusterRights...), grant("*", servedRights...), grant("*", readServices, secrets), grant(namespace, leaseRights...),
		}},
		{"nobody to agree with", []string{"--set", "leaderElection=false,replicas=1"}, [][]string{
			grant("*", clusterRights...), grant("*", servedRights...), grant("*", services, secrets),
		}},
		{"two namespaces", []string{"--set", "watchNamespaces={a,b}"}, [][]string{
			grant("*", clusterRights...), grant("a", servedRights...), grant("b", servedRights...), grant("a", services, secrets), grant("b", services, secrets),
			grant(namespace, leaseRights...), grant(namespace, services),
		}},
		{"two namespaces, Secrets of one", []string{"--set", "watchNamespaces={a,b},secretNamespaces={b}"}, [][]string{
			grant("*", clusterRights...), grant("a", servedRights...), grant("b", servedRights...), grant("a", services), grant("b", services), grant("b", secrets),
			grant(namespace, leaseRights...), grant(namespace, services),
		}},
		{"its own namespace", []string{"--set", "watchNamespaces={" + namespace + "}"}, [][]string{
			grant("*", clusterRights...), grant(namespace, servedRights...), grant(namespace, services, secrets), grant(namespace, leaseRights...),
		}},
		{"nothing of the whole cluster", []string{"--set", "watchNamespaces={a},rbac.clusterScope=false,ingressClass.create=false"}, [][]string{
			grant("a", servedRights...), grant("a", services, secrets), grant(namespace, leaseRights...), grant(namespace, services),
		}},
		{"a namespace on the addresses of the nodes", []string{"--set", "watchNamespaces={a},gateway.addresses=host,hostNetwork=true"}, [][]string{
			grant("*", clusterRights...), grant("a", servedRights...), grant("a", readServices, secrets), grant(namespace, leaseRights...), grant(namespace, readServices),
		}},
		{"nodes, whose ports lead to Services", []string{"--set", "service.type=NodePort"}, [][]string{
			grant("*", clusterRights...), grant("*", nodes), grant("*", servedRights...), grant("*", services, secrets), grant(namespace, leaseRights...),
		}},
		{"nodes that are not to be read", []string{"--set", "service.type=NodePort,publishNodes=false"}, [][]string{
			grant("*", clusterRights...), grant("*", servedRights...), grant("*", services, secrets), grant(namespace, leaseRights...),
		}},
		{"nodes whose addresses are known", []string{"--set", "service.type=NodePort,config.publishAddresses={192.0.2.1}"}, [][]string{
			grant("*", clusterRights...), grant("*", servedRights...), grant("*", services, secrets), grant(namespace, leaseRights...),
		}},
		{"nodes, whose ports are taken, for a namespace", []string{"--set", "watchNamespaces={a},gateway.addresses=host,hostNetwork=true,service.enabled=false"}, [][]string{
			grant("*", clusterRights...), grant("*", nodes), grant("a", servedRights...), grant("a", readServices, secrets), grant(namespace, leaseRights...),
			grant(namespace, readServices, "discovery.k8s.io/endpointslices"+following),
		}},
		{"nodes of a Service that somebody else made", []string{"--set", "publishService=edge/front,publishNodes=true"}, [][]string{
			grant("*", clusterRights...), grant("*", nodes), grant("*", servedRights...), grant("*", services, secrets), grant(namespace, leaseRights...),
		}},
		{"certificates on order", []string{"--set", "watchNamespaces={a}", "--set", orders}, [][]string{
			grant("*", clusterRights...), grant("a", servedRights...), grant("a", services, secrets, "/secrets create,update"), grant(namespace, services),
			grant(namespace, "coordination.k8s.io/leases get,create,update,delete", secrets, "/secrets create,update,delete"),
		}},
		{"none", []string{"--set", "rbac.create=false"}, nil},
		{"none, with node ports", []string{"--set", "rbac.create=false,service.type=NodePort"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := slices.Concat(tt.want...)
			slices.Sort(want)
			want = slices.Compact(want)
			got := rights(t, hooks(documents(t, render(t, tt.args...)), false))
			for _, r := range got {
				if !slices.Contains(want, r) {
					t.Errorf("unexpected right: %s", r)
				}
			}
			for _, r := range want {
				if !slices.Contains(got, r) {
					t.Errorf("missing right: %s", r)
				}
			}
		})
	}
}

// TestCleanup is the list of what the Job may do that cleans up, which nobody else may.
func TestCleanup(t *testing.T) {
	served := []string{
		"networking.k8s.io/ingresses get,list", "networking.k8s.io/ingresses/status patch", "/services get,list,delete",
	}
	for _, kind := range []string{"httproutes", "grpcroutes", "tlsroutes", "tcproutes", "udproutes", "backendtlspolicies"} {
		served = append(served, "gateway.networking.k8s.io/"+kind+" get,list", "gateway.networking.k8s.io/"+kind+"/status patch")
	}
	served = append(served, "gateway.networking.x-k8s.io/xbackendtrafficpolicies get,list", "gateway.networking.x-k8s.io/xbackendtrafficpolicies/status patch")
	served = append(served, "gateway.networking.x-k8s.io/xbackends get,list", "gateway.networking.x-k8s.io/xbackends/status patch")
	const lease = "coordination.k8s.io/leases list,delete"
	for _, tt := range []struct {
		name string
		args []string
		want [][]string
	}{
		{"everywhere", nil, [][]string{grant("*", served...), grant(namespace, lease)}},
		{"two namespaces", []string{"--set", "watchNamespaces={a,b}"}, [][]string{
			grant("a", served...), grant("b", served...), grant(namespace, lease, "/services get,list,delete"),
		}},
		{"not wanted", []string{"--set", "cleanup.enabled=false"}, nil},
		{"no rights to give", []string{"--set", "rbac.create=false"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			docs := hooks(documents(t, render(t, tt.args...)), true)
			want := slices.Sorted(slices.Values(slices.Concat(tt.want...)))
			if got := rights(t, docs); !slices.Equal(got, want) {
				t.Errorf("the Job may\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			for _, job := range all[*batchv1.Job](docs) {
				if account := job.Spec.Template.Spec.ServiceAccountName; !slices.ContainsFunc(all[*corev1.ServiceAccount](docs), func(a *corev1.ServiceAccount) bool { return a.Name == account }) {
					t.Errorf("the Job has the account %s, which does not exist", account)
				}
			}
			if n := len(all[*batchv1.Job](docs)); (n == 1) != (tt.want != nil) {
				t.Errorf("there are %d Jobs", n)
			}
		})
	}
}

func TestConfinedInstallationHasNothingOfTheCluster(t *testing.T) {
	for _, d := range documents(t, render(t, "-f", valuesFile("confined"))) {
		o, err := meta.Accessor(d.object)
		if err != nil {
			t.Fatal(err)
		}
		if o.GetNamespace() == "" {
			t.Errorf("%s belongs to the whole cluster", d.name)
		}
	}
}

func TestLabels(t *testing.T) {
	eachScenario(t, func(t *testing.T, name string, docs []document) {
		for _, d := range docs {
			o, err := meta.Accessor(d.object)
			if err != nil {
				t.Fatal(err)
			}
			l := o.GetLabels()
			if l["app.kubernetes.io/instance"] != release || l["app.kubernetes.io/managed-by"] != "Helm" || l["helm.sh/chart"] == "" || l["app.kubernetes.io/version"] == "" {
				t.Errorf("%s has labels %v", d.name, l)
			}
			if name == "everything" && l["team"] != "edge" {
				t.Errorf("%s lacks the common label", d.name)
			}
		}
	})
}

// TestNames checks that names stay within what Kubernetes allows, whatever the release is called.
func TestNames(t *testing.T) {
	for _, name := range []string{
		strings.Repeat("a", 53), // the longest that Helm allows
		strings.Repeat("a", 49) + "-bc",
		"123", "a.b", "1.5", "fairlead", "my-fairlead-2",
	} {
		out, err := helm(t, "template", name, chartDir, "-n", namespace)
		if err != nil {
			t.Fatal(err)
		}
		docs := documents(t, out)
		for _, d := range docs {
			o, err := meta.Accessor(d.object)
			if err != nil {
				t.Fatal(err)
			}
			if _, isService := d.object.(*corev1.Service); !isService {
				continue
			}
			if problems := validation.IsDNS1035Label(o.GetName()); problems != nil {
				t.Errorf("release %s: %s: %v", name, d.name, problems)
			}
		}
		template, _ := workload(t, docs)
		if got := template.Labels["app.kubernetes.io/instance"]; got != name {
			t.Errorf("release %s: the pods have instance %q", name, got)
		}
	}
}

func TestServiceGuard(t *testing.T) {
	for _, tt := range []struct {
		set  string
		want int
	}{
		{"rbac.serviceGuard=true", 1},
		{"rbac.serviceGuard=false", 0},
		{"rbac.create=false", 0},
		{"gateway.addresses=host,hostNetwork=true", 0},
		{"watchNamespaces={a},rbac.clusterScope=false,ingressClass.create=false", 0},
	} {
		t.Run(tt.set, func(t *testing.T) {
			docs := documents(t, render(t, "--set", tt.set))
			policies, bindings := all[*admissionv1.ValidatingAdmissionPolicy](docs), all[*admissionv1.ValidatingAdmissionPolicyBinding](docs)
			if len(policies) != tt.want || len(bindings) != tt.want {
				t.Fatalf("%d policies and %d bindings, want %d", len(policies), len(bindings), tt.want)
			}
			if tt.want == 1 && bindings[0].Spec.PolicyName != policies[0].Name {
				t.Errorf("the binding is for %s", bindings[0].Spec.PolicyName)
			}
		})
	}
}

// TestDockerfile holds the image against what the chart expects of it.
func TestDockerfile(t *testing.T) {
	data, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	_, version, _ := strings.Cut(string(mod), "\ngo ")
	version, _, _ = strings.Cut(version, "\n")
	docs := documents(t, render(t))
	template, _ := workload(t, docs)
	user := *template.Spec.SecurityContext.RunAsUser
	lines := strings.Split(string(data), "\n")
	for _, want := range []string{
		fmt.Sprintf("FROM --platform=$BUILDPLATFORM golang:%s AS build", strings.TrimSuffix(version, ".0")),
		"FROM scratch",
		fmt.Sprintf("USER %d:%d", user, *template.Spec.SecurityContext.RunAsGroup),
		`ENTRYPOINT ["/fairlead"]`,
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("the Dockerfile lacks the line %s", want)
		}
	}
	for _, c := range template.Spec.Containers {
		if len(c.Command) > 0 {
			t.Errorf("the container has command %s, which replaces that of the image", c.Command)
		}
	}
}
