package provision

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/compile"
	"github.com/fairlead-io/fairlead/internal/object"
)

// real is a real Kubernetes with something that gives addresses of 10.100.1.0/24 to Services. Gateways are only in the picture that is compiled.
type real struct {
	*testing.T
	kube     kubernetes.Interface
	writer   *Writer
	opt      compile.Options
	gateways map[object.Key]*gatewayv1.Gateway
	infra    string
	wrote    int
}

// newReal connects to the cluster that KUBECONFIG leads to, if FAIRLEAD_TEST_CLUSTER is set. Tests use namespaces of their own there and remove them.
func newReal(t *testing.T) *real {
	t.Helper()
	if os.Getenv("FAIRLEAD_TEST_CLUSTER") == "" {
		t.Skip("FAIRLEAD_TEST_CLUSTER is not set")
	}
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	suffix := fmt.Sprintf("%x", time.Now().UnixNano())
	r := &real{T: t, kube: kube, infra: "pv-infra-" + suffix, gateways: map[object.Key]*gatewayv1.Gateway{}}
	own := "pv-own-" + suffix
	r.opt = compile.Options{Cluster: &compile.ClusterOptions{Namespace: own, Selector: map[string]string{"app": "fairlead"}}}
	for _, name := range []string{own, r.infra} {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if _, err := kube.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := kube.CoreV1().Namespaces().Delete(context.WithoutCancel(t.Context()), name, metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	r.writer = New(Options{Kubernetes: kube, Hooks: Hooks{Tried: func(Verb, Result) { r.wrote++ }}, Workers: 1})
	return r
}

// gateway puts a Gateway into the picture, or changes it.
func (r *real) gateway(name string, ports ...int32) *gatewayv1.Gateway {
	key := object.Key{Namespace: r.infra, Name: name}
	g := &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: r.infra, UID: types.UID(fmt.Sprintf("%x-uid", len(name)+len(r.gateways))), Generation: 1}}
	if have := r.gateways[key]; have != nil {
		g.UID, g.Generation = have.UID, have.Generation+1
	}
	g.Spec.GatewayClassName = "fairlead"
	for _, p := range ports {
		g.Spec.Listeners = append(g.Spec.Listeners, gatewayv1.Listener{Name: gatewayv1.SectionName(fmt.Sprintf("l%d", p)), Port: p, Protocol: gatewayv1.HTTPProtocolType})
	}
	r.gateways[key] = g
	return g
}

func (r *real) compile() compile.Result {
	r.Helper()
	in := &object.Snapshot{
		GatewayClasses: map[string]*gatewayv1.GatewayClass{"fairlead": {
			ObjectMeta: metav1.ObjectMeta{Name: "fairlead"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: compile.GatewayController},
		}},
		Gateways: r.gateways, Services: map[object.Key]*corev1.Service{},
	}
	for _, ns := range []string{r.opt.Cluster.Namespace, r.infra} {
		list, err := r.kube.CoreV1().Services(ns).List(r.Context(), metav1.ListOptions{})
		if err != nil {
			r.Fatal(err)
		}
		for i := range list.Items {
			in.Services[object.KeyOf(&list.Items[i])] = &list.Items[i]
		}
	}
	return compile.Compile(in, r.opt)
}

// settle applies what is wanted, and checks that there is nothing more to write then.
func (r *real) settle() {
	r.Helper()
	if err := r.writer.Apply(r.Context(), r.compile().Infrastructure); err != nil {
		r.Error(err)
	}
	for range 3 { // a Service that is only on its way out is still seen
		r.wrote = 0
		if err := r.writer.Apply(r.Context(), r.compile().Infrastructure); err != nil {
			r.Error(err)
		}
		if r.wrote == 0 {
			return
		}
	}
	r.Errorf("there is always more to write:\n%s", r.compile().Infrastructure)
}

// eventually waits for the status of a Gateway to say something.
func (r *real) eventually(name, want string) {
	r.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		got := r.compile().Status.String()
		for line := range strings.Lines(got) {
			if strings.HasPrefix(line, "Gateway "+r.infra+"/"+name+":") && strings.Contains(line, want) {
				return
			}
		}
		if time.Now().After(deadline) {
			r.Fatalf("want %q, got\n%s", want, got)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// record returns the Service that leads to a Gateway.
func (r *real) record(name string) *corev1.Service {
	r.Helper()
	list, err := r.kube.CoreV1().Services(r.opt.Cluster.Namespace).List(r.Context(), metav1.ListOptions{LabelSelector: gatewayv1.GatewayNameLabelKey + "=" + name})
	if err != nil || len(list.Items) != 1 {
		r.Fatalf("%d Services lead to Gateway %s: %v", len(list.Items), name, err)
	}
	return &list.Items[0]
}

// patch edits a Service as somebody else might.
func (r *real) patch(key object.Key, patch string) {
	r.Helper()
	if _, err := r.kube.CoreV1().Services(key.Namespace).Patch(r.Context(), key.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		r.Error(err)
	}
}

func TestClusterGivesAddresses(t *testing.T) {
	r := newReal(t)
	g := r.gateway("gw", 80, 8080)
	g.Spec.Infrastructure = &gatewayv1.GatewayInfrastructure{Labels: map[gatewayv1.LabelKey]gatewayv1.LabelValue{"team": "edge"}}
	r.settle()
	r.eventually("gw", "Accepted Programmed addresses=10.100.1.")
	if got := r.record("gw").Labels["team"]; got != "edge" {
		t.Errorf("label team=%s", got)
	}

	g = r.gateway("gw", 80, 8080)
	g.Spec.Addresses = []gatewayv1.GatewaySpecAddress{{Value: "192.0.2.1"}}
	r.settle()
	r.eventually("gw", "Programmed=False AddressNotUsable: the load balancer has not given 192.0.2.1")

	g = r.gateway("gw", 80, 8080)
	g.Spec.Addresses = []gatewayv1.GatewaySpecAddress{{Value: "10.100.1.77"}}
	r.settle()
	r.eventually("gw", "Accepted Programmed addresses=10.100.1.77")
	if _, ok := r.record("gw").Labels["team"]; ok {
		t.Error("the label of spec.infrastructure is still there")
	}

	r.gateway("gw", 80, 8080)
	r.settle()
	if got := r.record("gw").Spec.LoadBalancerIP; got != "" {
		t.Errorf("the Service still asks for %s", got)
	}
}

func TestClusterKeepsNodePorts(t *testing.T) {
	r := newReal(t)
	r.gateway("gw", 80, 8080)
	r.settle()
	before := r.record("gw")
	r.gateway("gw", 8080, 81)
	r.settle()
	r.gateway("gw", 8080, 82, 80)
	r.settle()
	after := r.record("gw")
	port := func(s *corev1.Service, number int32) corev1.ServicePort {
		i := slices.IndexFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return p.Port == number })
		if i < 0 {
			t.Fatalf("Service %s has no port %d: %+v", s.Name, number, s.Spec.Ports)
		}
		return s.Spec.Ports[i]
	}
	if was, is := port(before, 8080), port(after, 8080); was.NodePort != is.NodePort || was.TargetPort != is.TargetPort {
		t.Errorf("port 8080 was %+v and is %+v", was, is)
	}
	if len(after.Spec.Ports) != 3 || after.Spec.ClusterIP != before.Spec.ClusterIP {
		t.Errorf("spec: %+v", after.Spec)
	}
}

func TestClusterChangesTypes(t *testing.T) {
	r := newReal(t)
	r.gateway("gw", 80, 443)
	for _, typ := range []corev1.ServiceType{"LoadBalancer", "ClusterIP", "NodePort", "LoadBalancer", "NodePort", "ClusterIP", "LoadBalancer"} {
		for _, policy := range []corev1.ServiceExternalTrafficPolicy{"Local", "Cluster", "Local"} {
			r.opt.Cluster.ServiceType, r.opt.Cluster.ExternalTrafficPolicy = typ, policy
			r.settle()
			s := r.record("gw")
			if s.Spec.Type != typ || typ != "ClusterIP" && s.Spec.ExternalTrafficPolicy != policy {
				t.Errorf("type %s, policy %s; want %s, %s", s.Spec.Type, s.Spec.ExternalTrafficPolicy, typ, policy)
			}
		}
	}
}

func TestClusterPutsRightWhatSomebodyEdited(t *testing.T) {
	r := newReal(t)
	r.gateway("gw", 80, 443)
	r.settle()
	before := r.record("gw")
	key, local := object.KeyOf(before), object.Key{Namespace: r.infra, Name: "gw-fairlead"}
	for _, edit := range []string{
		`{"spec":{"type":"ExternalName","externalName":"example.com","clusterIP":null,"clusterIPs":null}}`,
		`{"spec":{"ports":[{"port":9999,"targetPort":22}]}}`,
		`{"spec":{"ports":[{"name":"http-80","port":80,"targetPort":"http"},{"name":"u","port":80,"protocol":"UDP"}]}}`,
		`{"spec":{"selector":{"app":null,"x":"y"}},"metadata":{"labels":null,"annotations":null}}`,
		`{"spec":{"type":"ClusterIP"}}`,
	} {
		r.patch(key, edit)
		r.settle()
		s := r.record("gw")
		if s.Spec.Type != before.Spec.Type || len(s.Spec.Ports) != 2 || s.Spec.Ports[0].TargetPort != before.Spec.Ports[0].TargetPort || len(s.Spec.Selector) != 1 {
			t.Errorf("after %s: %+v", edit, s.Spec)
		}
	}
	for _, edit := range []string{
		`{"spec":{"type":"ClusterIP","externalName":null,"ports":[{"port":80}]}}`,
		`{"spec":{"externalName":"example.com","selector":{"a":"b"}}}`,
	} {
		r.patch(local, edit)
		r.settle()
		s, err := r.kube.CoreV1().Services(local.Namespace).Get(t.Context(), local.Name, metav1.GetOptions{})
		if err != nil || s.Spec.Type != "ExternalName" || s.Spec.ExternalName != key.Name+"."+key.Namespace+".svc.cluster.local" {
			t.Errorf("after %s: %+v, %v", edit, s.Spec, err)
		}
	}
}

func TestClusterTakesLongNames(t *testing.T) {
	r := newReal(t)
	name := strings.Repeat("0123456789.", 22) + "0123456.gw"
	if len(name) > 253 {
		t.Fatal(len(name))
	}
	r.gateway(name, 80)
	r.gateway("0-digit", 80)
	r.settle()
	r.eventually(name, "Accepted Programmed addresses=10.100.1.")
	r.eventually("0-digit", "Accepted Programmed addresses=10.100.1.")
}

func TestClusterDeletes(t *testing.T) {
	r := newReal(t)
	r.gateway("a", 80)
	r.gateway("b", 80)
	r.settle()
	r.eventually("a", "Accepted Programmed addresses=10.100.1.")
	delete(r.gateways, object.Key{Namespace: r.infra, Name: "a"})
	r.settle()
	r.record("b")
	_, err := r.kube.CoreV1().Services(r.infra).Get(t.Context(), "a-fairlead", metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("the name of a Gateway that is gone: %v", err)
	}
	if err := r.writer.RemoveAll(t.Context(), r.compile().Infrastructure.Owned); err != nil {
		t.Error(err)
	}
	for _, ns := range []string{r.infra, r.opt.Cluster.Namespace} {
		if list, err := r.kube.CoreV1().Services(ns).List(t.Context(), metav1.ListOptions{}); err != nil || len(list.Items) > 0 {
			t.Errorf("%d Services are left in %s, %v", len(list.Items), ns, err)
		}
	}
}

// What a Service is refused for is the matter of that Service.
func TestClusterRefusesWithQuota(t *testing.T) {
	r := newReal(t)
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "none"}}
	quota.Spec.Hard = corev1.ResourceList{"count/services": {}}
	if _, err := r.kube.CoreV1().ResourceQuotas(r.infra).Create(t.Context(), quota, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.gateway("gw", 80)
	var err error
	for range 100 { // the quota takes a moment
		if err = r.writer.Apply(t.Context(), r.compile().Infrastructure); err != nil {
			break
		}
		_ = r.kube.CoreV1().Services(r.infra).Delete(t.Context(), "gw-fairlead", metav1.DeleteOptions{})
		r.writer = New(Options{Kubernetes: r.kube})
		time.Sleep(100 * time.Millisecond)
	}
	if err == nil || !strings.Contains(err.Error(), "create Service "+r.infra+"/gw-fairlead: ") || !strings.Contains(err.Error(), "quota") {
		t.Errorf("error %v", err)
	}
	r.eventually("gw", "Accepted Programmed addresses=10.100.1.")
}

func TestClusterTakesManyAtATime(t *testing.T) {
	r := newReal(t)
	const n = 100
	for i := range n {
		g := r.gateway(fmt.Sprintf("gw-%d", i), 80)
		g.UID = types.UID(fmt.Sprintf("uid-%d", i))
	}
	r.writer = New(Options{Kubernetes: r.kube})
	begin := time.Now()
	if err := r.writer.Apply(t.Context(), r.compile().Infrastructure); err != nil {
		t.Error(err)
	}
	t.Logf("%d Gateways have their Services after %v", n, time.Since(begin))
	if got := len(r.compile().Table.Ports); got != n {
		t.Errorf("%d binds are served, want %d", got, n)
	}
}
