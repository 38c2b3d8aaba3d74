package compile

import (
	"fmt"
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// graph makes random snapshots of few objects with few names, so that they often have to do with one another.
type graph struct {
	*rand.Rand
	in *object.Snapshot
}

// What graphs are made of.
var (
	graphNamespaces = []string{"infra", "shop", "bank", "infra-shop"}
	graphNames      = []string{"a", "b", "c"}
	graphHostnames  = []gatewayv1.Hostname{"a.example.com", "b.example.com", "x.a.example.com", "*.example.com", "*.a.example.com", "B.test"}
	graphHosts      = []string{"a.example.com", "b.example.com", "x.a.example.com", "y.x.a.example.com", "example.com", "b.test", "other.org"}
	graphPaths      = []string{"/", "/a", "/a/b", "/ab"}
	graphPorts      = []gatewayv1.PortNumber{80, 80, 81, 443}
)

func newGraph(seed uint64) *object.Snapshot {
	g := graph{rand.New(rand.NewPCG(seed, 1)), &object.Snapshot{Taken: taken}}
	g.namespaces()
	g.classes()
	g.some(1, 3, func() { g.gateway() })
	g.some(0, 3, func() { g.listenerSet() })
	g.some(0, 5, func() { g.grant() })
	g.some(0, 6, func() { g.secret() })
	g.some(2, 9, func() { g.service() })
	g.some(1, 4, func() { g.httpRoute() })
	g.some(0, 2, func() { g.grpcRoute() })
	return g.in
}

// some calls f between least and most times.
func (g *graph) some(least, most int, f func()) {
	for range least + g.IntN(most-least+1) {
		f()
	}
}

func (g *graph) oneIn(n int) bool { return g.IntN(n) == 0 }

func pickOf[T any](g *graph, of []T) T { return of[g.IntN(len(of))] }

// maybe returns a pointer to a value in one of n cases.
func maybe[T any](g *graph, n int, v T) *T {
	if !g.oneIn(n) {
		return nil
	}
	return &v
}

// meta makes the metadata of a new object: some have no age, and some the same.
func (g *graph) meta() metav1.ObjectMeta {
	m := metav1.ObjectMeta{Namespace: pickOf(g, graphNamespaces), Name: pickOf(g, graphNames), Generation: int64(g.IntN(9))}
	if !g.oneIn(3) {
		m.CreationTimestamp = metav1.NewTime(taken.Add(-time.Duration(g.IntN(4)) * time.Hour))
	}
	return m
}

func (g *graph) namespaces() {
	for _, name := range graphNamespaces {
		if g.oneIn(4) {
			continue
		}
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if team := pickOf(g, []string{"", "red", "blue"}); team != "" {
			ns.Labels = map[string]string{"team": team}
		}
		set(&g.in.Namespaces, name, ns)
	}
}

func (g *graph) classes() {
	for name, controller := range map[string]string{"ours": GatewayController, "foreign": "example.com/controller"} {
		set(&g.in.GatewayClasses, name, &gatewayv1.GatewayClass{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: gatewayv1.GatewayClassSpec{ControllerName: gatewayv1.GatewayController(controller)},
		})
	}
}

func (g *graph) gateway() {
	o := &gatewayv1.Gateway{ObjectMeta: g.meta()}
	o.Spec.GatewayClassName = pickOf(g, []gatewayv1.ObjectName{"ours", "ours", "ours", "ours", "foreign", "missing"})
	o.Spec.Listeners = g.listeners()
	if !g.oneIn(3) {
		o.Spec.AllowedListeners = &gatewayv1.AllowedListeners{Namespaces: &gatewayv1.ListenerNamespaces{}}
		o.Spec.AllowedListeners.Namespaces.From, o.Spec.AllowedListeners.Namespaces.Selector = g.from(gatewayv1.NamespacesFromNone)
	}
	set(&g.in.Gateways, object.KeyOf(o), o)
}

// from chooses of which namespaces something may attach.
func (g *graph) from(more ...gatewayv1.FromNamespaces) (*gatewayv1.FromNamespaces, *metav1.LabelSelector) {
	from := pickOf(g, append(more, gatewayv1.NamespacesFromAll, gatewayv1.NamespacesFromAll, gatewayv1.NamespacesFromSame, gatewayv1.NamespacesFromSelector))
	if from != gatewayv1.NamespacesFromSelector {
		return &from, nil
	}
	switch g.IntN(5) {
	case 0:
		return &from, &metav1.LabelSelector{}
	case 1:
		return &from, &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": pickOf(g, graphNamespaces)}}
	case 2:
		operator := pickOf(g, []metav1.LabelSelectorOperator{metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist})
		return &from, &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "team", Operator: operator}}}
	case 3:
		operator := pickOf(g, []metav1.LabelSelectorOperator{metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn})
		return &from, &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "team", Operator: operator, Values: []string{"red"}}}}
	}
	return &from, &metav1.LabelSelector{MatchLabels: map[string]string{"team": pickOf(g, []string{"red", "blue"})}}
}

func (g *graph) listeners() (out []gatewayv1.Listener) {
	names := 0
	g.some(1, 4, func() {
		l := gatewayv1.Listener{Name: gatewayv1.SectionName(fmt.Sprint("l", names)), Port: pickOf(g, graphPorts), Protocol: gatewayv1.HTTPProtocolType}
		names++
		l.Hostname = maybe(g, 2, pickOf(g, graphHostnames))
		switch {
		case l.Port == 443 || g.oneIn(12):
			l.Protocol = gatewayv1.HTTPSProtocolType
			l.TLS = &gatewayv1.ListenerTLSConfig{}
			g.some(1, 2, func() { l.TLS.CertificateRefs = append(l.TLS.CertificateRefs, g.secretRef()) })
		case g.oneIn(15):
			l.Protocol = "example.com/odd"
		}
		if !g.oneIn(5) {
			l.AllowedRoutes = &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{}}
			l.AllowedRoutes.Namespaces.From, l.AllowedRoutes.Namespaces.Selector = g.from()
			for _, k := range pickOf(g, [][]string{nil, nil, nil, {"HTTPRoute"}, {"HTTPRoute", "Odd"}, {"GRPCRoute"}, {"GRPCRoute", "HTTPRoute"}, {"Odd"}}) {
				l.AllowedRoutes.Kinds = append(l.AllowedRoutes.Kinds, gatewayv1.RouteGroupKind{Kind: gatewayv1.Kind(k)})
			}
		}
		out = append(out, l)
	})
	return out
}

func (g *graph) secretRef() gatewayv1.SecretObjectReference {
	return gatewayv1.SecretObjectReference{
		Name: gatewayv1.ObjectName(pickOf(g, graphNames)), Namespace: maybe(g, 2, gatewayv1.Namespace(pickOf(g, graphNamespaces))),
	}
}

func (g *graph) listenerSet() {
	o := &gatewayv1.ListenerSet{ObjectMeta: g.meta()}
	o.Spec.ParentRef.Name = gatewayv1.ObjectName(pickOf(g, graphNames))
	if len(g.in.Gateways) > 0 && !g.oneIn(4) {
		to := pickOf(g, object.Sorted(g.in.Gateways))
		o.Spec.ParentRef.Name, o.Spec.ParentRef.Namespace = gatewayv1.ObjectName(to.Name), new(gatewayv1.Namespace(to.Namespace))
	}
	for _, l := range g.listeners() {
		o.Spec.Listeners = append(o.Spec.Listeners, gatewayv1.ListenerEntry(l))
	}
	set(&g.in.ListenerSets, object.KeyOf(o), o)
}

func (g *graph) grant() {
	o := &gatewayv1.ReferenceGrant{ObjectMeta: g.meta()}
	g.some(1, 3, func() {
		kind := pickOf(g, []gatewayv1.Kind{"Gateway", "HTTPRoute", "HTTPRoute", "GRPCRoute", "ListenerSet", "Odd"})
		o.Spec.From = append(o.Spec.From, gatewayv1.ReferenceGrantFrom{Group: gatewayGroup, Kind: kind, Namespace: gatewayv1.Namespace(pickOf(g, graphNamespaces))})
	})
	g.some(1, 2, func() {
		to := gatewayv1.ReferenceGrantTo{Kind: pickOf(g, []gatewayv1.Kind{"Secret", "Service", "Service"}), Name: maybe(g, 2, gatewayv1.ObjectName(pickOf(g, graphNames)))}
		o.Spec.To = append(o.Spec.To, to)
	})
	set(&g.in.ReferenceGrants, object.KeyOf(o), o)
}

func (g *graph) secret() {
	o := &corev1.Secret{ObjectMeta: g.meta(), Type: corev1.SecretTypeTLS, Data: graphPair()}
	switch g.IntN(6) {
	case 0:
		o.Type = corev1.SecretTypeOpaque
	case 1:
		o.Data = map[string][]byte{corev1.TLSCertKey: o.Data[corev1.TLSCertKey]}
	}
	set(&g.in.Secrets, object.KeyOf(o), o)
}

func (g *graph) service() {
	o := &corev1.Service{ObjectMeta: g.meta()}
	o.Spec.Ports = []corev1.ServicePort{{Port: pickOf(g, []int32{80, 80, 81})}}
	set(&g.in.Services, object.KeyOf(o), o)
}

func (g *graph) httpRoute() {
	o := &gatewayv1.HTTPRoute{ObjectMeta: g.meta()}
	g.some(1, 3, func() { o.Spec.ParentRefs = append(o.Spec.ParentRefs, g.parentRef()) })
	g.some(0, 2, func() { o.Spec.Hostnames = append(o.Spec.Hostnames, pickOf(g, graphHostnames)) })
	g.some(1, 2, func() {
		var rule gatewayv1.HTTPRouteRule
		g.some(0, 2, func() {
			kind := pickOf(g, []gatewayv1.PathMatchType{gatewayv1.PathMatchPathPrefix, gatewayv1.PathMatchPathPrefix, gatewayv1.PathMatchExact})
			rule.Matches = append(rule.Matches, gatewayv1.HTTPRouteMatch{Path: &gatewayv1.HTTPPathMatch{Type: &kind, Value: new(pickOf(g, graphPaths))}})
		})
		g.some(1, 2, func() { rule.BackendRefs = append(rule.BackendRefs, g.backendRef()) })
		o.Spec.Rules = append(o.Spec.Rules, rule)
	})
	set(&g.in.HTTPRoutes, object.KeyOf(o), o)
}

func (g *graph) grpcRoute() {
	o := &gatewayv1.GRPCRoute{ObjectMeta: g.meta()}
	g.some(1, 2, func() { o.Spec.ParentRefs = append(o.Spec.ParentRefs, g.parentRef()) })
	g.some(0, 2, func() { o.Spec.Hostnames = append(o.Spec.Hostnames, pickOf(g, graphHostnames)) })
	var rule gatewayv1.GRPCRouteRule
	g.some(1, 2, func() {
		rule.BackendRefs = append(rule.BackendRefs, gatewayv1.GRPCBackendRef{BackendRef: g.backendRef().BackendRef})
	})
	o.Spec.Rules = append(o.Spec.Rules, rule)
	set(&g.in.GRPCRoutes, object.KeyOf(o), o)
}

// parentRef names a Gateway or a ListenerSet: mostly one that there is, and sometimes a part of it.
func (g *graph) parentRef() (p gatewayv1.ParentReference) {
	p.Name, p.Namespace = gatewayv1.ObjectName(pickOf(g, graphNames)), maybe(g, 2, gatewayv1.Namespace(pickOf(g, graphNamespaces)))
	var to metav1.Object
	switch sets := object.Sorted(g.in.ListenerSets); {
	case len(sets) > 0 && g.oneIn(3):
		p.Kind = new(gatewayv1.Kind("ListenerSet"))
		to = pickOf(g, sets)
	case len(g.in.Gateways) > 0:
		to = pickOf(g, object.Sorted(g.in.Gateways))
	}
	if to != nil && !g.oneIn(6) {
		p.Name, p.Namespace = gatewayv1.ObjectName(to.GetName()), new(gatewayv1.Namespace(to.GetNamespace()))
	}
	p.SectionName = maybe(g, 4, gatewayv1.SectionName(fmt.Sprint("l", g.IntN(4))))
	p.Port = maybe(g, 8, pickOf(g, graphPorts))
	return p
}

func (g *graph) backendRef() (b gatewayv1.HTTPBackendRef) {
	b.Name, b.Port = gatewayv1.ObjectName(pickOf(g, graphNames)), new(int32(80))
	if services := object.Sorted(g.in.Services); len(services) > 0 && !g.oneIn(3) {
		to := pickOf(g, services)
		b.Name, b.Namespace = gatewayv1.ObjectName(to.Name), maybe(g, 2, gatewayv1.Namespace(to.Namespace))
	}
	if g.oneIn(8) {
		b.Kind = new(gatewayv1.Kind("Secret"))
	}
	return b
}
