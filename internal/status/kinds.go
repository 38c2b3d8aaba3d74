package status

import (
	networkingv1 "k8s.io/api/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairlead-io/fairlead/internal/compile"
	"github.com/fairlead-io/fairlead/internal/object"
)

// Short names, so that the list of kinds can be read.
type (
	snapshot  = *object.Snapshot
	wishes    = *compile.Status
	by[V any] = map[object.Key]V
)

// routeStatus is the status of every kind of route.
type routeStatus interface {
	~struct {
		gatewayv1.RouteStatus `json:",inline"`
	}
}

func parentsIn[S routeStatus](s S) []gatewayv1.RouteParentStatus {
	return struct {
		gatewayv1.RouteStatus `json:",inline"`
	}(s).Parents
}

// newRoute is newKind for a kind of route.
func newRoute[O stored, S routeStatus, C client[O]](
	w *Writer, name string, open func(namespace string) C, pick func(snapshot, wishes) (by[O], by[S]), status func(O) S,
) *kind {
	controller := gatewayv1.GatewayController(w.opt.GatewayController)
	return newKind(name, open, pick, all, func(c *change, have O, want S) {
		c.route(controller, have.GetGeneration(), parentsIn(status(have)), parentsIn(want))
	})
}

// newPolicy is newKind for a kind of policy.
func newPolicy[O stored, C client[O]](
	w *Writer, name string, open func(namespace string) C, pick func(snapshot, wishes) (by[O], by[gatewayv1.PolicyStatus]),
	status func(O) gatewayv1.PolicyStatus,
) *kind {
	controller := gatewayv1.GatewayController(w.opt.GatewayController)
	return newKind(name, open, pick, all, func(c *change, have O, want gatewayv1.PolicyStatus) {
		c.policy(controller, have.GetGeneration(), status(have).Ancestors, want.Ancestors)
	})
}

// allKinds makes the kinds in the order in which they are written: first what others hang on.
func (w *Writer) allKinds() []*kind {
	api, experimental := w.opt.Gateway.GatewayV1(), w.opt.Gateway.ExperimentalV1alpha1()
	kinds := []*kind{
		newKind("GatewayClass", func(string) client[*gatewayv1.GatewayClass] { return api.GatewayClasses() },
			func(s snapshot, want wishes) (map[string]*gatewayv1.GatewayClass, map[string]gatewayv1.GatewayClassStatus) {
				return s.GatewayClasses, want.GatewayClasses
			},
			wanted, (*change).gatewayClass),
		newRoute(w, "HTTPRoute", api.HTTPRoutes,
			func(s snapshot, want wishes) (by[*gatewayv1.HTTPRoute], by[gatewayv1.HTTPRouteStatus]) {
				return s.HTTPRoutes, want.HTTPRoutes
			},
			func(o *gatewayv1.HTTPRoute) gatewayv1.HTTPRouteStatus { return o.Status }),
		newRoute(w, "TLSRoute", api.TLSRoutes,
			func(s snapshot, want wishes) (by[*gatewayv1.TLSRoute], by[gatewayv1.TLSRouteStatus]) {
				return s.TLSRoutes, want.TLSRoutes
			},
			func(o *gatewayv1.TLSRoute) gatewayv1.TLSRouteStatus { return o.Status }),
		newRoute(w, "TCPRoute", api.TCPRoutes,
			func(s snapshot, want wishes) (by[*gatewayv1.TCPRoute], by[gatewayv1.TCPRouteStatus]) {
				return s.TCPRoutes, want.TCPRoutes
			},
			func(o *gatewayv1.TCPRoute) gatewayv1.TCPRouteStatus { return o.Status }),
		newRoute(w, "UDPRoute", api.UDPRoutes,
			func(s snapshot, want wishes) (by[*gatewayv1.UDPRoute], by[gatewayv1.UDPRouteStatus]) {
				return s.UDPRoutes, want.UDPRoutes
			},
			func(o *gatewayv1.UDPRoute) gatewayv1.UDPRouteStatus { return o.Status }),
		newPolicy(w, "BackendTLSPolicy", api.BackendTLSPolicies,
			func(s snapshot, want wishes) (by[*gatewayv1.BackendTLSPolicy], by[gatewayv1.PolicyStatus]) {
				return s.BackendTLSPolicies, want.BackendTLSPolicies
			},
			func(o *gatewayv1.BackendTLSPolicy) gatewayv1.PolicyStatus { return o.Status }),
		newPolicy(w, "XBackendTrafficPolicy", experimental.XBackendTrafficPolicies,
			func(s snapshot, want wishes) (by[*gatewayx.XBackendTrafficPolicy], by[gatewayv1.PolicyStatus]) {
				return s.XBackendTrafficPolicies, want.XBackendTrafficPolicies
			},
			func(o *gatewayx.XBackendTrafficPolicy) gatewayv1.PolicyStatus { return o.Status }),
		newKind("XBackend", experimental.XBackends,
			func(s snapshot, want wishes) (by[*gatewayx.XBackend], by[gatewayx.BackendStatus]) {
				return s.XBackends, want.XBackends
			},
			all, func(c *change, have *gatewayx.XBackend, want gatewayx.BackendStatus) {
				c.backend(gatewayv1.GatewayController(w.opt.GatewayController), have.Generation, have.Status.Ancestors, want.Ancestors)
			}),
		newRoute(w, "GRPCRoute", api.GRPCRoutes,
			func(s snapshot, want wishes) (by[*gatewayv1.GRPCRoute], by[gatewayv1.GRPCRouteStatus]) {
				return s.GRPCRoutes, want.GRPCRoutes
			},
			func(o *gatewayv1.GRPCRoute) gatewayv1.GRPCRouteStatus { return o.Status }),
		newKind("Ingress", w.opt.Kubernetes.NetworkingV1().Ingresses,
			func(s snapshot, want wishes) (by[*networkingv1.Ingress], by[networkingv1.IngressStatus]) {
				return s.Ingresses, want.Ingresses
			},
			wanted, (*change).ingress),
		// Last, for they count the routes.
		newKind("ListenerSet", api.ListenerSets,
			func(s snapshot, want wishes) (by[*gatewayv1.ListenerSet], by[gatewayv1.ListenerSetStatus]) {
				return s.ListenerSets, want.ListenerSets
			},
			wanted, (*change).listenerSet),
		newKind("Gateway", api.Gateways,
			func(s snapshot, want wishes) (by[*gatewayv1.Gateway], by[gatewayv1.GatewayStatus]) {
				return s.Gateways, want.Gateways
			},
			wanted, (*change).gateway),
	}
	for _, k := range kinds {
		k.first = k.name == "GatewayClass" || k.name == "Gateway" || k.name == "ListenerSet"
	}
	return kinds
}
