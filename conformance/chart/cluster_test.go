package chart_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/fairlead-io/fairlead/conformance/cluster"
)

// api is the API server of the test cluster, which other tests use at the same time.
type api struct {
	c *cluster.Cluster
	t *testing.T
}

func newAPI(t *testing.T) api {
	t.Helper()
	a := api{c: &cluster.Cluster{Log: io.Discard}, t: t}
	a.c.Bin, a.c.State = binDir(t)
	if _, stderr, err := a.run("", "kubectl", "get", "--raw=/readyz"); err != nil {
		unavailable(t, "there is no cluster to ask; make cluster starts one: %v %s", err, stderr)
	}
	return a
}

// run runs a program in the cluster.
func (a api) run(stdin, name string, args ...string) (stdout, stderr string, err error) {
	return a.runIn(a.t.Context(), stdin, name, args...)
}

func (a api) runIn(ctx context.Context, stdin, name string, args ...string) (string, string, error) {
	cmd, err := a.c.Command(ctx, name, args...)
	if err != nil {
		return "", "", err
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	err = cmd.Run()
	return stdout.String(), stderr.String(), err
}

// must runs a program that has to succeed.
func (a api) must(stdin, name string, args ...string) string {
	a.t.Helper()
	stdout, stderr, err := a.run(stdin, name, args...)
	if err != nil {
		a.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr)
	}
	return stdout
}

// namespaces makes namespaces that end with the test. Fairlead's own admits nothing but restricted pods.
func (a api) namespaces() {
	a.t.Helper()
	a.remove()
	a.t.Cleanup(a.remove)
	for _, name := range []string{namespace, "ch-a", "ch-b"} {
		a.must("", "kubectl", "create", "namespace", name)
	}
	a.must("", "kubectl", "label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted", "pod-security.kubernetes.io/warn=restricted")
}

func (a api) remove() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.t.Context()), time.Minute)
	defer cancel()
	if _, stderr, err := a.runIn(ctx, "", "kubectl", "delete", "namespace", "--ignore-not-found", namespace, "ch-a", "ch-b"); err != nil {
		a.t.Errorf("delete namespaces: %v\n%s", err, stderr)
	}
}

// known leaves out the objects whose kinds this cluster has no definition for.
func (a api) known(docs []document) []document {
	a.t.Helper()
	versions := strings.Fields(a.must("", "kubectl", "api-versions"))
	return slices.DeleteFunc(docs, func(d document) bool {
		return !slices.Contains(versions, d.object.GetObjectKind().GroupVersionKind().GroupVersion().String())
	})
}

func join(docs []document) string {
	var b strings.Builder
	for _, d := range docs {
		b.WriteString("---\n" + d.text + "\n")
	}
	return b.String()
}

// TestServerAccepts asks the API server what it thinks of what is rendered, without making it.
func TestServerAccepts(t *testing.T) {
	a := newAPI(t)
	a.namespaces()
	for _, name := range []string{"fairlead", "lead"} {
		a.must("", "kubectl", "create", "serviceaccount", name, "-n", namespace) // pods are not admitted without
	}
	for _, name := range scenarios(t) {
		t.Run(name, func(t *testing.T) {
			docs := a.known(documents(t, render(t, "-f", valuesFile(name))))
			stdout, stderr, err := a.run(join(docs), "kubectl", "apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-")
			if err != nil {
				t.Fatalf("%v\n%s", err, stderr)
			}
			if got := strings.Count(stdout, "serverside-applied (server dry run)"); got != len(docs) {
				t.Errorf("%d of %d objects were accepted:\n%s", got, len(docs), stdout)
			}
			a.podSecurity(t, docs, stderr, slices.Contains([]string{"daemonset-hostport", "hostnetwork", "hostnetwork-sysctl", "everything"}, name))
		})
	}
}

// podSecurity makes a pod of the workload, to see what the admission of pods says.
func (a api) podSecurity(t *testing.T, docs []document, warnings string, needsNode bool) {
	t.Helper()
	template, _ := workload(t, docs)
	pod, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": "one", "namespace": namespace, "labels": template.Labels},
		"spec":     template.Spec,
	})
	if err != nil {
		t.Fatal(err)
	}
	_, stderr, err := a.run(string(pod), "kubectl", "create", "--dry-run=server", "-f", "-")
	if refused := err != nil && strings.Contains(stderr, `violates PodSecurity "restricted:latest"`); refused != needsNode || (err != nil && !refused) {
		t.Errorf("a pod is refused: %v, want %v: %v %s", refused, needsNode, err, stderr)
	}
	if warned := strings.Contains(warnings, "would violate PodSecurity"); warned != needsNode {
		t.Errorf("the API server warns: %v, want %v\n%s", warned, needsNode, warnings)
	}
}

// TestServerGrants asks the API server what Fairlead's account may do, and checks that the policy keeps it from other people's Services.
func TestServerGrants(t *testing.T) {
	a := newAPI(t)
	a.namespaces()
	granted := slices.DeleteFunc(hooks(documents(t, render(t)), false), func(d document) bool {
		return !slices.Contains([]string{
			"ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding",
		}, d.object.GetObjectKind().GroupVersionKind().Kind)
	})
	a.must(join(granted), "kubectl", "apply", "--server-side", "-f", "-")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if _, stderr, err := a.runIn(ctx, join(granted), "kubectl", "delete", "--ignore-not-found", "-f", "-"); err != nil {
			t.Errorf("delete what was granted: %v\n%s", err, stderr)
		}
	})
	a.must(objects, "kubectl", "apply", "--server-side", "-f", "-")
	a.awaitGuard(t)
	for _, tt := range grants {
		t.Run(tt.name, func(t *testing.T) {
			args := slices.Concat(strings.Fields(tt.do), []string{"--dry-run=server"})
			if !slices.Contains([]string{"create", "patch", "delete"}, strings.Fields(tt.do)[0]) {
				args = strings.Fields(tt.do)
			}
			if !tt.admin {
				args = append(args, "--as=system:serviceaccount:"+namespace+":fairlead")
			}
			stdout, stderr, err := a.run(tt.stdin, "kubectl", args...)
			if tt.refused == "" && err != nil {
				t.Errorf("kubectl %s: %v\n%s", tt.do, err, stderr)
			}
			if tt.refused != "" && (err == nil || !strings.Contains(stdout+stderr, tt.refused)) {
				t.Errorf("kubectl %s: %v, want a refusal with %q\n%s%s", tt.do, err, tt.refused, stdout, stderr)
			}
		})
	}
}

// awaitGuard waits until the API server has begun to obey the policy, which takes a moment.
func (a api) awaitGuard(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		_, stderr, err := a.run("", "kubectl", "delete", "service", "theirs", "-n", "ch-a", "--dry-run=server", "--as=system:serviceaccount:"+namespace+":fairlead")
		if err != nil && strings.Contains(stderr, "ValidatingAdmissionPolicy") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the policy is not obeyed: %v\n%s", err, stderr)
		}
	}
}

// objects belong to others.
const objects = `
apiVersion: v1
kind: Service
metadata: {name: theirs, namespace: ch-a}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: ours, namespace: ch-a, labels: {gateway.networking.k8s.io/gateway-name: web}}
spec: {type: ExternalName, externalName: a.example.com}
---
apiVersion: v1
kind: Secret
metadata: {name: pair, namespace: ch-a}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: ch-a}
spec: {defaultBackend: {service: {name: theirs, port: {number: 80}}}}
`

func service(ns, labels, spec string) string {
	return fmt.Sprintf("{apiVersion: v1, kind: Service, metadata: {name: new, namespace: %s, labels: {%s}}, spec: {%s}}", ns, labels, spec)
}

const (
	gatewayName = "gateway.networking.k8s.io/gateway-name: web"
	external    = "type: ExternalName, externalName: a.example.com"
	balancer    = "type: LoadBalancer, ports: [{port: 80}]"
	writes      = "Fairlead writes no other Services in this namespace"
	changes     = "Fairlead changes no other Services in this namespace"
	forbidden   = "is forbidden: User"
)

var grants = []struct {
	name    string
	do      string
	stdin   string
	admin   bool
	refused string // in the words of the API server; nothing if it is allowed
}{
	{name: "a name for a Gateway", do: "create -f -", stdin: service("ch-a", gatewayName, external)},
	{name: "a name without the Gateway's label", do: "create -f -", stdin: service("ch-a", "", external), refused: writes},
	{name: "a load balancer in a namespace of others", do: "create -f -", stdin: service("ch-a", gatewayName, balancer), refused: writes},
	{name: "a load balancer in its own namespace", do: "create -f -", stdin: service(namespace, gatewayName, balancer)},
	{name: "its own name, changed", do: `patch service ours -n ch-a --type=merge -p {"spec":{"externalName":"b.example.com"}}`},
	{name: "its own name, turned into another type", do: `patch service ours -n ch-a --type=merge -p {"spec":{"type":"ClusterIP","ports":[{"port":80}]}}`, refused: writes},
	{name: "a Service, replaced", do: "auth can-i update services -n ch-a", refused: "no"},
	{name: "its own name, deleted", do: "delete service ours -n ch-a"},
	{name: "a Service of others, redirected", do: `patch service theirs -n ch-a --type=merge -p {"spec":{"selector":{"app":"mine"}}}`, refused: writes},
	{
		name: "a Service of others, taken over", refused: changes,
		do: `patch service theirs -n ch-a --type=merge -p {"metadata":{"labels":{"gateway.networking.k8s.io/gateway-name":"web"}},"spec":{"type":"ExternalName","externalName":"x.example.com","clusterIP":null,"clusterIPs":null}}`,
	},
	{name: "a Service of others, deleted", do: "delete service theirs -n ch-a", refused: changes},
	{name: "the policy is about Fairlead only", do: "delete service theirs -n ch-a", admin: true},
	{name: "certificates", do: "get secrets -A"},
	{name: "a Secret, written", do: `patch secret pair -n ch-a --type=merge -p {"stringData":{"a":"b"}}`, refused: forbidden},
	{name: "pods", do: "get pods -n " + namespace, refused: forbidden},
	{name: "configuration of others", do: "get configmaps -n ch-a", refused: forbidden},
	{name: "an Ingress, written", do: `patch ingress web -n ch-a --type=merge -p {"spec":{"ingressClassName":"x"}}`, refused: forbidden},
	{name: "the status of an Ingress", do: "auth can-i patch ingresses --subresource=status -n ch-a"},
	{name: "routes", do: "get ingresses,ingressclasses,services,endpointslices,namespaces -A"},
	{name: "a lease in its own namespace", do: "create -f -", stdin: "{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: new, namespace: " + namespace + "}}"},
	{name: "a lease of others", do: "create -f -", stdin: "{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: new, namespace: ch-a}}", refused: forbidden},
	{
		name: "an event", do: "create -f -",
		stdin: "{apiVersion: events.k8s.io/v1, kind: Event, metadata: {name: new, namespace: ch-a}, eventTime: 2026-01-01T00:00:00.000000Z, type: Warning, reason: Rejected, " +
			"action: Compile, reportingController: fairlead.io/ingress-controller, reportingInstance: x, regarding: {apiVersion: networking.k8s.io/v1, kind: Ingress, name: web, namespace: ch-a}}",
	},
	{name: "more rights", do: "create clusterrolebinding x --clusterrole=cluster-admin --user=x", refused: forbidden},
}

// TestInstall installs, upgrades and removes the chart with Helm, without pods: what is left behind has to be nothing.
func TestInstall(t *testing.T) {
	a := newAPI(t)
	a.namespaces()
	const name = "ch-release"
	chart := absolute(t, chartDir)
	everything := absolute(t, valuesFile("everything"))
	install := []string{"-n", namespace, "--wait", "--timeout=60s", "--set=replicas=0,cleanup.enabled=false,ingressClass.name=ch-release,gatewayClass.name=ch-release"}
	a.must("", "helm", slices.Concat([]string{"install", name, chart}, install)...)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if _, stderr, err := a.runIn(ctx, "", "helm", "uninstall", name, "-n", namespace, "--ignore-not-found"); err != nil {
			t.Errorf("helm uninstall: %v\n%s", err, stderr)
		}
	})
	if got := a.leftovers(name); len(got) < 10 {
		t.Errorf("helm install made only %v", got)
	}
	// Every field changes, some of them to be taken away again, and the Deployment becomes a DaemonSet and back.
	upgrade := slices.Concat([]string{"upgrade", name, chart}, install)
	a.must("", "helm", slices.Concat(upgrade, []string{
		"-f", everything, "--set=gatewayClass.create=auto,metrics.serviceMonitor.enabled=false,service.clusterIP=null,service.loadBalancerClass=null,fullnameOverride=,nameOverride=",
	})...)
	a.must("", "helm", slices.Concat(upgrade, []string{"--set=kind=DaemonSet", "--set-string=nodeSelector.ch-nowhere=true"})...)
	a.must("", "helm", upgrade...)
	if got := a.must("", "kubectl", "get", "service", name+"-fairlead", "-n", namespace, "-o", "jsonpath={.spec.externalTrafficPolicy} {.spec.ports[0].port} {.spec.externalIPs}"); got != "Cluster 80 " {
		t.Errorf("after an upgrade back to the defaults the Service is %q", got)
	}
	a.must("", "helm", "uninstall", name, "-n", namespace, "--wait")
	if got := a.leftovers(name); len(got) > 0 {
		t.Errorf("helm uninstall leaves %v", got)
	}
}

// leftovers lists everything in the cluster that belongs to a release.
func (a api) leftovers(name string) []string {
	a.t.Helper()
	kinds := strings.Fields(a.must("", "kubectl", "api-resources", "--verbs=list,delete", "-o", "name"))
	text := a.must("", "kubectl", "get", strings.Join(kinds, ","), "-A", "-l", "app.kubernetes.io/instance="+name, "-o", "yaml", "--ignore-not-found")
	var list unstructured.UnstructuredList
	if err := yaml.Unmarshal([]byte(text), &list); err != nil {
		a.t.Fatal(err)
	}
	var out []string
	for _, o := range list.Items {
		out = append(out, o.GetKind()+" "+o.GetNamespace()+"/"+o.GetName())
	}
	return out
}
