package compile

import (
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// neighbour is who must not be affected: the oldest Gateway, with a port of its own, and a route.
const neighbour = "0-neighbour"

func addNeighbour(in *object.Snapshot) {
	set(&in.GatewayClasses, neighbour, &gatewayv1.GatewayClass{
		ObjectMeta: metav1.ObjectMeta{Name: neighbour}, Spec: gatewayv1.GatewayClassSpec{ControllerName: GatewayController},
	})
	meta := metav1.ObjectMeta{Name: neighbour, Namespace: neighbour}
	key := object.Key{Namespace: neighbour, Name: neighbour}
	set(&in.Gateways, key, &gatewayv1.Gateway{ObjectMeta: meta, Spec: gatewayv1.GatewaySpec{
		GatewayClassName: neighbour,
		Listeners:        []gatewayv1.Listener{{Name: "http", Protocol: gatewayv1.HTTPProtocolType, Port: 9999}},
	}})
	r := &gatewayv1.HTTPRoute{ObjectMeta: meta}
	r.Spec.ParentRefs = []gatewayv1.ParentReference{{Name: neighbour}}
	r.Spec.Rules = make([]gatewayv1.HTTPRouteRule, 1)
	r.Spec.Rules[0].BackendRefs = make([]gatewayv1.HTTPBackendRef, 1)
	r.Spec.Rules[0].BackendRefs[0].Name, r.Spec.Rules[0].BackendRefs[0].Port = neighbour, new(int32(80))
	set(&in.HTTPRoutes, key, r)
	set(&in.Services, key, &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}})
}

// addNeighbourService makes the Service that the neighbour wishes for, and returns where it is bound then: at a port that none of the others had.
func addNeighbourService(in *object.Snapshot, opt Options) uint16 {
	for _, s := range Compile(in, opt).Infrastructure.Services {
		if s.Gateway.Name == neighbour && len(s.Ports) > 0 {
			service := made(&s)
			service.Spec.ClusterIP, service.Status.LoadBalancer.Ingress = "10.96.0.1", []corev1.LoadBalancerIngress{{IP: "10.0.0.1"}}
			set(&in.Services, s.Name, service)
			return s.Ports[0].Bind
		}
	}
	return 0
}

func checkNeighbour(t *testing.T, res Result, bind route.Bind) {
	t.Helper()
	checkNeighbourStatus(t, res)
	p := res.Table.Port(bind)
	if p == nil {
		t.Fatalf("nothing is served on %s:\n%s", bind, res.Table)
	}
	_, rule, _ := p.Lookup(&route.Request{Host: "neighbour.test", Path: "/", Method: "GET"})
	if rule == nil || rule.Source.Namespace != neighbour || rule.Fault != nil || rule.Backends[0].Fault != nil {
		t.Fatalf("the neighbour is not served as it was: %v\n%s", rule, res.Table)
	}
	for _, p := range res.Problems {
		if p.Object.Namespace == neighbour {
			t.Errorf("the neighbour has a problem: %s", p)
		}
	}
}

// checkNeighbourStatus checks that the status of the neighbour is what it is without anybody else, but for the address.
func checkNeighbourStatus(t *testing.T, res Result) {
	t.Helper()
	alone := &object.Snapshot{Taken: taken}
	addNeighbour(alone)
	key, want := object.Key{Namespace: neighbour, Name: neighbour}, Compile(alone, Options{}).Status
	have, lonely := res.Status.Gateways[key], want.Gateways[key]
	have.Addresses, lonely.Addresses = nil, nil
	if diff := gocmp.Diff(lonely, have); diff != "" {
		t.Errorf("the neighbour's Gateway has another status:\n%s", diff)
	}
	if diff := gocmp.Diff(want.HTTPRoutes[key], res.Status.HTTPRoutes[key]); diff != "" {
		t.Errorf("the neighbour's route has another status:\n%s", diff)
	}
}
