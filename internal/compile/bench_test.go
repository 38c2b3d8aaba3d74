package compile

import (
	"fmt"
	"runtime"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// manyRoutes is a cluster with n HTTPRoutes, each with a hostname, two rules and two Services of its own, all on one Gateway.
func manyRoutes(n int) *object.Snapshot {
	in := &object.Snapshot{
		Taken: taken,
		GatewayClasses: map[string]*gatewayv1.GatewayClass{"fairlead": {
			ObjectMeta: metav1.ObjectMeta{Name: "fairlead"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: GatewayController},
		}},
		Gateways:   map[object.Key]*gatewayv1.Gateway{},
		HTTPRoutes: map[object.Key]*gatewayv1.HTTPRoute{},
		Services:   map[object.Key]*corev1.Service{},
	}
	all := gatewayv1.NamespacesFromAll
	gateway := &gatewayv1.Gateway{
		ObjectMeta: metav1.ObjectMeta{Name: "gw", Namespace: "infra"},
		Spec: gatewayv1.GatewaySpec{GatewayClassName: "fairlead", Listeners: []gatewayv1.Listener{{
			Name: "http", Protocol: gatewayv1.HTTPProtocolType, Port: 80,
			AllowedRoutes: &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{From: &all}},
		}}},
	}
	in.Gateways[object.KeyOf(gateway)] = gateway
	infra := gatewayv1.Namespace("infra")
	for i := range n {
		ns, name := fmt.Sprintf("team-%d", i%100), fmt.Sprintf("route-%d", i)
		r := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns, Generation: 1}}
		r.Spec.ParentRefs = []gatewayv1.ParentReference{{Name: "gw", Namespace: &infra}}
		r.Spec.Hostnames = []gatewayv1.Hostname{gatewayv1.Hostname(name + ".example.com")}
		for j, path := range []string{"/api", "/"} {
			service := &corev1.Service{
				ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", name, j), Namespace: ns},
				Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
			}
			in.Services[object.KeyOf(service)] = service
			rule := gatewayv1.HTTPRouteRule{
				Matches:     []gatewayv1.HTTPRouteMatch{{Path: &gatewayv1.HTTPPathMatch{Type: new(gatewayv1.PathMatchPathPrefix), Value: &path}}},
				BackendRefs: []gatewayv1.HTTPBackendRef{{}},
			}
			rule.BackendRefs[0].Name, rule.BackendRefs[0].Port = gatewayv1.ObjectName(service.Name), new(int32(80))
			r.Spec.Rules = append(r.Spec.Rules, rule)
		}
		in.HTTPRoutes[object.KeyOf(r)] = r
	}
	return in
}

// Every route of the benchmark must be served, or it would measure something else.
func TestManyRoutesAreServed(t *testing.T) {
	res := Compile(manyRoutes(1000), Options{})
	if len(res.Problems) > 0 {
		t.Fatal(res.Problems[0])
	}
	if got := len(res.Table.Ports[0].Listeners[0].Hosts); got != 1000 {
		t.Errorf("%d hosts, want 1000", got)
	}
	if got := res.Status.Gateways[object.Key{Namespace: "infra", Name: "gw"}].Listeners[0].AttachedRoutes; got != 1000 {
		t.Errorf("%d attached routes, want 1000", got)
	}
}

func BenchmarkCompile(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			in := manyRoutes(n)
			b.ReportAllocs()
			for b.Loop() {
				Compile(in, Options{})
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/route")
			b.ReportMetric(held(in)/float64(n), "B/route")
		})
	}
}

// held is how much memory a table takes.
func held(in *object.Snapshot) float64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&before)
	table := Compile(in, Options{}).Table
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(table)
	runtime.KeepAlive(in)
	return float64(after.HeapAlloc) - float64(before.HeapAlloc)
}
