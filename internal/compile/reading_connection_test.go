package compile

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// everyRoute are the routes of a snapshot, all in the words of HTTPRoutes: as far as attachment and backends go, the kinds have the same.
func (r reading) everyRoute() (out []*anyRoute) {
	add := func(kind string, meta metav1.ObjectMeta, parents gatewayv1.CommonRouteSpec, hostnames []gatewayv1.Hostname, backends []gatewayv1.BackendRef) {
		h := &gatewayv1.HTTPRoute{ObjectMeta: meta}
		h.Spec.CommonRouteSpec, h.Spec.Hostnames = parents, hostnames
		h.Spec.Rules = make([]gatewayv1.HTTPRouteRule, 1)
		for _, b := range backends {
			h.Spec.Rules[0].BackendRefs = append(h.Spec.Rules[0].BackendRefs, gatewayv1.HTTPBackendRef{BackendRef: b})
		}
		out = append(out, &anyRoute{kind, h})
	}
	for _, o := range object.Sorted(r.in.HTTPRoutes) {
		out = append(out, &anyRoute{"HTTPRoute", o})
	}
	for _, o := range object.Sorted(r.in.GRPCRoutes) {
		var backends []gatewayv1.BackendRef
		for _, b := range o.Spec.Rules[0].BackendRefs {
			backends = append(backends, b.BackendRef)
		}
		add("GRPCRoute", o.ObjectMeta, o.Spec.CommonRouteSpec, o.Spec.Hostnames, backends)
	}
	for _, o := range object.Sorted(r.in.TLSRoutes) {
		add("TLSRoute", o.ObjectMeta, o.Spec.CommonRouteSpec, o.Spec.Hostnames, o.Spec.Rules[0].BackendRefs)
	}
	for _, o := range object.Sorted(r.in.TCPRoutes) {
		add("TCPRoute", o.ObjectMeta, o.Spec.CommonRouteSpec, nil, o.Spec.Rules[0].BackendRefs)
	}
	for _, o := range object.Sorted(r.in.UDPRoutes) {
		add("UDPRoute", o.ObjectMeta, o.Spec.CommonRouteSpec, nil, o.Spec.Rules[0].BackendRefs)
	}
	return out
}

// connects finds out who gets a connection that asks for a server name, or that asks for none: owner is the listener that it belongs to, and nil if there is none.
func (r reading) connects(entries []*entry, routes []routeReading, port gatewayv1.PortNumber, name string) (owner *entry, best *won) {
	owner = ownerOf(entries, port, name)
	if owner == nil || owner.isRequests() {
		return owner, nil
	}
	return owner, oldestOf(owner, routes, name)
}

// datagrams finds out who gets what arrives at a port of UDP.
func (r reading) datagrams(entries []*entry, routes []routeReading, port gatewayv1.PortNumber) *won {
	for _, l := range entries {
		if l.served() && l.isUDP() && l.spec.Port == port {
			return oldestOf(l, routes, "")
		}
	}
	return nil
}

// oldestOf reads AllowedRoutes: "The most specific match as defined by the Route type. The oldest Route based on creation timestamp. If everything else is equivalent, the
// Route appearing first in alphabetical order (namespace/name) should be given precedence." What is specific is the hostname, where there is one.
func oldestOf(owner *entry, routes []routeReading, name string) (best *won) {
	for _, read := range routes {
		if !read.isAt(owner) {
			continue
		}
		for _, h := range hostnamesOf(read.route.HTTPRoute) {
			if w := (&won{route: read.route, hostname: h}); stands(h, name) && common(h, owner.hostname()) && (best == nil || w.before(best)) {
				best = w
			}
		}
	}
	return best
}
