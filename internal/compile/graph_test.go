package compile

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// graph makes random snapshots of few objects with few names, so that they often have to do with one another.
type graph struct {
	*rand.Rand
	in      *object.Snapshot
	foreign []reference
}

// reference is one from an object to another in another namespace, for which there should be a grant.
type reference struct {
	from gatewayv1.ReferenceGrantFrom
	to   referent
}

// What graphs are made of.
var (
	graphNamespaces = []string{"infra", "infra", "shop", "shop", "bank", "infra-shop"}
	graphNames      = []string{"a", "b", "c"}
	graphHostnames  = []gatewayv1.Hostname{"a.example.com", "b.example.com", "x.a.example.com", "*.example.com", "*.a.example.com", "B.test"}
	graphHosts      = []string{"a.example.com", "b.example.com", "x.a.example.com", "y.x.a.example.com", "example.com", "b.test", "other.org"}
	graphPaths      = []string{"/", "/a", "/a/b", "/ab"}
	graphPorts      = []gatewayv1.PortNumber{80, 80, 81, 443}
)

func newGraph(seed uint64) *object.Snapshot {
	g := graph{Rand: rand.New(rand.NewPCG(seed, 1)), in: &object.Snapshot{Taken: taken}}
	g.namespaces()
	g.classes()
	g.some(0, 6, func() { g.secret() })
	g.some(2, 9, func() { g.service() })
	g.some(1, 3, func() { g.gateway() })
	g.some(0, 3, func() { g.listenerSet() })
	g.some(0, 3, func() { g.xbackend() })
	g.some(0, 3, func() { g.backendTLSPolicy() })
	g.some(1, 3, func() { g.httpRoute() })
	g.some(0, 2, func() { g.grpcRoute() })
	g.some(0, 2, func() { g.tlsRoute() })
	g.some(0, 2, func() { g.tcpRoute() })
	g.some(0, 2, func() { g.udpRoute() })
	g.some(0, 2, func() { g.grant() })
	for _, r := range g.foreign {
		if g.oneIn(2) {
			g.grantFor(r)
		}
	}
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
	o.Spec.Listeners = g.listeners("Gateway", o.Namespace)
	if !g.oneIn(3) {
		o.Spec.AllowedListeners = &gatewayv1.AllowedListeners{Namespaces: &gatewayv1.ListenerNamespaces{}}
		o.Spec.AllowedListeners.Namespaces.From, o.Spec.AllowedListeners.Namespaces.Selector = g.from(gatewayv1.NamespacesFromNone)
	}
	set(&g.in.Gateways, object.KeyOf(o), o)
}

// from chooses of which namespaces something may attach.
func (g *graph) from(more ...gatewayv1.FromNamespaces) (*gatewayv1.FromNamespaces, *metav1.LabelSelector) {
	from := pickOf(g, append(more,
		gatewayv1.NamespacesFromAll, gatewayv1.NamespacesFromAll, gatewayv1.NamespacesFromAll, gatewayv1.NamespacesFromSame, gatewayv1.NamespacesFromSelector))
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

func (g *graph) listeners(kind gatewayv1.Kind, namespace string) (out []gatewayv1.Listener) {
	names := 0
	g.some(1, 4, func() {
		l := gatewayv1.Listener{Name: gatewayv1.SectionName(fmt.Sprint("l", names)), Port: pickOf(g, graphPorts)}
		names++
		g.protocol(&l, kind, namespace)
		if !g.oneIn(5) {
			l.AllowedRoutes = &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{}}
			l.AllowedRoutes.Namespaces.From, l.AllowedRoutes.Namespaces.Selector = g.from()
			kinds := pickOf(g, graphKinds)
			if !g.oneIn(3) {
				kinds = nil // those that go with the protocol
			}
			for _, k := range kinds {
				l.AllowedRoutes.Kinds = append(l.AllowedRoutes.Kinds, gatewayv1.RouteGroupKind{Kind: gatewayv1.Kind(k)})
			}
		}
		out = append(out, l)
	})
	return out
}

// graphKinds are kinds that listeners allow, whether they go with their protocol or not.
var graphKinds = [][]string{
	{"HTTPRoute"},
	{"HTTPRoute", "Odd"},
	{"GRPCRoute"},
	{"GRPCRoute", "HTTPRoute"},
	{"Odd"},
	{"TLSRoute"},
	{"TCPRoute"},
	{"UDPRoute"},
	{"TCPRoute", "TLSRoute", "UDPRoute"},
}

// protocol chooses what a listener speaks, mostly what one expects at its port, and what goes with that.
func (g *graph) protocol(l *gatewayv1.Listener, kind gatewayv1.Kind, namespace string) {
	l.Protocol = pickOf(g, map[gatewayv1.PortNumber][]gatewayv1.ProtocolType{
		80: {gatewayv1.HTTPProtocolType}, 81: {gatewayv1.TCPProtocolType, gatewayv1.UDPProtocolType}, 443: {gatewayv1.HTTPSProtocolType, gatewayv1.TLSProtocolType},
	}[l.Port])
	if g.oneIn(6) {
		l.Protocol = pickOf(g, []gatewayv1.ProtocolType{"HTTP", "HTTPS", "TLS", "TCP", "UDP", "example.com/odd"})
	}
	if l.Protocol != gatewayv1.TCPProtocolType && l.Protocol != gatewayv1.UDPProtocolType {
		l.Hostname = maybe(g, 2, pickOf(g, graphHostnames))
	}
	switch {
	case l.Protocol == gatewayv1.TLSProtocolType && g.oneIn(2):
		l.TLS = &gatewayv1.ListenerTLSConfig{Mode: new(gatewayv1.TLSModePassthrough)}
	case l.Protocol == gatewayv1.TLSProtocolType, l.Protocol == gatewayv1.HTTPSProtocolType:
		l.TLS = &gatewayv1.ListenerTLSConfig{Mode: new(gatewayv1.TLSModeTerminate)}
		g.some(1, 2, func() {
			l.TLS.CertificateRefs = append(l.TLS.CertificateRefs, g.secretRef(gatewayGroup, kind, namespace))
		})
	}
}

// secretRef names a Secret for an object of a kind in a namespace, mostly one that there is.
func (g *graph) secretRef(group gatewayv1.Group, kind gatewayv1.Kind, namespace string) (ref gatewayv1.SecretObjectReference) {
	ref.Name = gatewayv1.ObjectName(pickOf(g, graphNames))
	to := namespace
	if all := object.Sorted(g.in.Secrets); len(all) > 0 && !g.oneIn(3) {
		secret := pickOf(g, all)
		ref.Name, to = gatewayv1.ObjectName(secret.Name), secret.Namespace
		ref.Namespace = new(gatewayv1.Namespace(to))
	}
	g.refer(gatewayv1.ReferenceGrantFrom{Group: group, Kind: kind, Namespace: gatewayv1.Namespace(namespace)}, referent{"", "Secret", to, string(ref.Name)})
	return ref
}

// refer notes a reference, if it is one that needs a grant.
func (g *graph) refer(from gatewayv1.ReferenceGrantFrom, to referent) {
	if string(from.Namespace) != to.Namespace {
		g.foreign = append(g.foreign, reference{from, to})
	}
}

func (g *graph) listenerSet() {
	o := &gatewayv1.ListenerSet{ObjectMeta: g.meta()}
	o.Spec.ParentRef.Name = gatewayv1.ObjectName(pickOf(g, graphNames))
	if len(g.in.Gateways) > 0 && !g.oneIn(4) {
		to := pickOf(g, object.Sorted(g.in.Gateways))
		o.Spec.ParentRef.Name, o.Spec.ParentRef.Namespace = gatewayv1.ObjectName(to.Name), new(gatewayv1.Namespace(to.Namespace))
	}
	for _, l := range g.listeners("ListenerSet", o.Namespace) {
		o.Spec.Listeners = append(o.Spec.Listeners, gatewayv1.ListenerEntry(l))
	}
	set(&g.in.ListenerSets, object.KeyOf(o), o)
}

// grant is for anybody.
func (g *graph) grant() {
	group := func(kind gatewayv1.Kind, other gatewayv1.Group) gatewayv1.Group {
		if kind == "XBackend" {
			return gatewayx.GroupName
		}
		return other
	}
	o := &gatewayv1.ReferenceGrant{ObjectMeta: g.meta()}
	g.some(1, 3, func() {
		kind := pickOf(g, []gatewayv1.Kind{"Gateway", "HTTPRoute", "HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute", "ListenerSet", "XBackend", "Odd"})
		from := gatewayv1.ReferenceGrantFrom{Group: group(kind, gatewayGroup), Kind: kind, Namespace: gatewayv1.Namespace(pickOf(g, graphNamespaces))}
		o.Spec.From = append(o.Spec.From, from)
	})
	g.some(1, 2, func() {
		kind := pickOf(g, []gatewayv1.Kind{"Secret", "Service", "Service", "XBackend"})
		o.Spec.To = append(o.Spec.To, gatewayv1.ReferenceGrantTo{Group: group(kind, ""), Kind: kind, Name: maybe(g, 2, gatewayv1.ObjectName(pickOf(g, graphNames)))})
	})
	set(&g.in.ReferenceGrants, object.KeyOf(o), o)
}

// grantFor is for who refers to something, or misses that in one thing.
func (g *graph) grantFor(r reference) {
	o := &gatewayv1.ReferenceGrant{ObjectMeta: g.meta()}
	o.Namespace, o.Name = r.to.Namespace, fmt.Sprint("for-", len(g.in.ReferenceGrants))
	from, to := r.from, gatewayv1.ReferenceGrantTo{Group: gatewayv1.Group(r.to.Group), Kind: gatewayv1.Kind(r.to.Kind), Name: maybe(g, 2, gatewayv1.ObjectName(r.to.Name))}
	switch g.IntN(12) {
	case 0:
		from.Kind = pickOf(g, []gatewayv1.Kind{"HTTPRoute", "TCPRoute", "Gateway"})
	case 1:
		from.Namespace = gatewayv1.Namespace(pickOf(g, graphNamespaces))
	case 2:
		from.Group = "example.com"
	case 3:
		to.Group = pickOf(g, []gatewayv1.Group{"", gatewayx.GroupName})
	case 4:
		to.Name = new(gatewayv1.ObjectName(pickOf(g, graphNames)))
	case 5:
		o.Namespace = pickOf(g, graphNamespaces)
	}
	o.Spec.From, o.Spec.To = []gatewayv1.ReferenceGrantFrom{from}, []gatewayv1.ReferenceGrantTo{to}
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

func (g *graph) httpRoute() {
	o := &gatewayv1.HTTPRoute{ObjectMeta: g.meta()}
	g.some(1, 3, func() { o.Spec.ParentRefs = append(o.Spec.ParentRefs, g.parentRef("HTTP", "HTTPS")) })
	g.some(0, 2, func() { o.Spec.Hostnames = append(o.Spec.Hostnames, pickOf(g, graphHostnames)) })
	g.some(1, 2, func() {
		var rule gatewayv1.HTTPRouteRule
		g.some(0, 2, func() {
			kind := pickOf(g, []gatewayv1.PathMatchType{gatewayv1.PathMatchPathPrefix, gatewayv1.PathMatchPathPrefix, gatewayv1.PathMatchExact})
			rule.Matches = append(rule.Matches, gatewayv1.HTTPRouteMatch{Path: &gatewayv1.HTTPPathMatch{Type: &kind, Value: new(pickOf(g, graphPaths))}})
		})
		g.some(1, 2, func() {
			rule.BackendRefs = append(rule.BackendRefs, gatewayv1.HTTPBackendRef{BackendRef: g.backendRef("HTTPRoute", o.Namespace)})
		})
		o.Spec.Rules = append(o.Spec.Rules, rule)
	})
	set(&g.in.HTTPRoutes, object.KeyOf(o), o)
}

func (g *graph) grpcRoute() {
	o := &gatewayv1.GRPCRoute{ObjectMeta: g.meta()}
	g.some(1, 2, func() { o.Spec.ParentRefs = append(o.Spec.ParentRefs, g.parentRef("HTTP", "HTTPS")) })
	g.some(0, 2, func() { o.Spec.Hostnames = append(o.Spec.Hostnames, pickOf(g, graphHostnames)) })
	var rule gatewayv1.GRPCRouteRule
	g.some(1, 2, func() {
		rule.BackendRefs = append(rule.BackendRefs, gatewayv1.GRPCBackendRef{BackendRef: g.backendRef("GRPCRoute", o.Namespace)})
	})
	o.Spec.Rules = append(o.Spec.Rules, rule)
	set(&g.in.GRPCRoutes, object.KeyOf(o), o)
}

// tlsRoute has hostnames, as it must.
func (g *graph) tlsRoute() {
	o := &gatewayv1.TLSRoute{ObjectMeta: g.meta()}
	g.some(1, 2, func() { o.Spec.ParentRefs = append(o.Spec.ParentRefs, g.parentRef("TLS")) })
	g.some(1, 2, func() { o.Spec.Hostnames = append(o.Spec.Hostnames, pickOf(g, graphHostnames)) })
	o.Spec.Rules = []gatewayv1.TLSRouteRule{{BackendRefs: g.backendRefs("TLSRoute", o.Namespace)}}
	set(&g.in.TLSRoutes, object.KeyOf(o), o)
}

func (g *graph) tcpRoute() {
	o := &gatewayv1.TCPRoute{ObjectMeta: g.meta()}
	g.some(1, 2, func() { o.Spec.ParentRefs = append(o.Spec.ParentRefs, g.parentRef("TCP")) })
	o.Spec.Rules = []gatewayv1.TCPRouteRule{{BackendRefs: g.backendRefs("TCPRoute", o.Namespace)}}
	set(&g.in.TCPRoutes, object.KeyOf(o), o)
}

func (g *graph) udpRoute() {
	o := &gatewayv1.UDPRoute{ObjectMeta: g.meta()}
	g.some(1, 2, func() { o.Spec.ParentRefs = append(o.Spec.ParentRefs, g.parentRef("UDP")) })
	o.Spec.Rules = []gatewayv1.UDPRouteRule{{BackendRefs: g.backendRefs("UDPRoute", o.Namespace)}}
	set(&g.in.UDPRoutes, object.KeyOf(o), o)
}

func (g *graph) backendRefs(kind gatewayv1.Kind, namespace string) (out []gatewayv1.BackendRef) {
	g.some(1, 2, func() { out = append(out, g.backendRef(kind, namespace)) })
	return out
}

// parentRef names a Gateway or a ListenerSet: mostly one that there is and that has a listener of one of the protocols, and sometimes a part of it.
func (g *graph) parentRef(protocols ...gatewayv1.ProtocolType) (p gatewayv1.ParentReference) {
	p.Name, p.Namespace = gatewayv1.ObjectName(pickOf(g, graphNames)), maybe(g, 2, gatewayv1.Namespace(pickOf(g, graphNamespaces)))
	var fitting []gatewayv1.ParentReference
	add := func(kind gatewayv1.Kind, o metav1.Object, l *gatewayv1.Listener) {
		if slices.Contains(protocols, l.Protocol) || g.oneIn(12) {
			ref := gatewayv1.ParentReference{Kind: &kind, Namespace: new(gatewayv1.Namespace(o.GetNamespace())), Name: gatewayv1.ObjectName(o.GetName())}
			ref.SectionName, ref.Port = maybe(g, 5, l.Name), maybe(g, 8, l.Port)
			fitting = append(fitting, ref)
		}
	}
	for _, o := range object.Sorted(g.in.Gateways) {
		for i := range o.Spec.Listeners {
			add("Gateway", o, &o.Spec.Listeners[i])
		}
	}
	for _, o := range object.Sorted(g.in.ListenerSets) {
		for i := range o.Spec.Listeners {
			add("ListenerSet", o, (*gatewayv1.Listener)(&o.Spec.Listeners[i]))
		}
	}
	if len(fitting) > 0 && !g.oneIn(6) {
		p = pickOf(g, fitting)
	}
	if g.oneIn(12) {
		p.SectionName = new(gatewayv1.SectionName(fmt.Sprint("l", g.IntN(4))))
	}
	if g.oneIn(12) {
		p.Port = new(pickOf(g, graphPorts))
	}
	return p
}
