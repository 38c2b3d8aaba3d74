package status

import (
	"context"
	"iter"
	"reflect"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairlead-io/fairlead/internal/compile"
	"github.com/fairlead-io/fairlead/internal/object"
)

// fieldManager is who the API server notes as the one who wrote our fields.
const fieldManager = "fairlead"

// kind is one kind of object whose status is written. Objects and statuses of any are those of its type.
type kind struct {
	name  string
	first bool // it does not wait for the others, unless only counts changed
	// duties yields each object that there is something to say about, and what.
	duties func(s *object.Snapshot, want *compile.Status) iter.Seq2[metav1.Object, any]
	// compare notes in c what turns the status of an object into what is wanted.
	compare func(c *change, have metav1.Object, want any)
	get     func(ctx context.Context, key object.Key) (metav1.Object, error)
	patch   func(ctx context.Context, key object.Key, typ types.PatchType, body []byte) (metav1.Object, error)
}

// client is what a generated client can do that is needed here.
type client[O any] interface {
	Get(ctx context.Context, name string, opts metav1.GetOptions) (O, error)
	Patch(ctx context.Context, name string, typ types.PatchType, body []byte, opts metav1.PatchOptions, subresources ...string) (O, error)
}

func newKind[O metav1.Object, S any](
	name string, open func(namespace string) client[O], duties func(*object.Snapshot, *compile.Status) iter.Seq2[O, S], compare func(*change, O, S),
) *kind {
	return &kind{
		name: name,
		duties: func(s *object.Snapshot, want *compile.Status) iter.Seq2[metav1.Object, any] {
			return func(yield func(metav1.Object, any) bool) {
				for o, status := range duties(s, want) {
					if !yield(o, status) {
						return
					}
				}
			}
		},
		compare: func(c *change, have metav1.Object, want any) {
			compare(c, have.(O), want.(S)) // they come from duties, get and patch of this very kind
		},
		get: func(ctx context.Context, key object.Key) (metav1.Object, error) {
			return open(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
		},
		patch: func(ctx context.Context, key object.Key, typ types.PatchType, body []byte) (metav1.Object, error) {
			return open(key.Namespace).Patch(ctx, key.Name, typ, body, metav1.PatchOptions{FieldManager: fieldManager}, "status")
		},
	}
}

// allKinds makes the kinds in the order in which they are written: first what others hang on.
func (w *Writer) allKinds() []*kind {
	kube, gateway := w.opt.Kubernetes, w.opt.Gateway
	controller := gatewayv1.GatewayController(w.opt.GatewayController)
	kinds := []*kind{
		newKind("GatewayClass",
			func(string) client[*gatewayv1.GatewayClass] { return gateway.GatewayV1().GatewayClasses() },
			func(s *object.Snapshot, want *compile.Status) iter.Seq2[*gatewayv1.GatewayClass, gatewayv1.GatewayClassStatus] {
				return wanted(s.GatewayClasses, want.GatewayClasses)
			},
			(*change).gatewayClass),
		newKind("HTTPRoute",
			func(ns string) client[*gatewayv1.HTTPRoute] { return gateway.GatewayV1().HTTPRoutes(ns) },
			func(s *object.Snapshot, want *compile.Status) iter.Seq2[*gatewayv1.HTTPRoute, gatewayv1.HTTPRouteStatus] {
				return all(s.HTTPRoutes, want.HTTPRoutes)
			},
			func(c *change, have *gatewayv1.HTTPRoute, want gatewayv1.HTTPRouteStatus) {
				c.route(controller, have.Generation, have.Status.Parents, want.Parents)
			}),
		newKind("TLSRoute",
			func(ns string) client[*gatewayv1.TLSRoute] { return gateway.GatewayV1().TLSRoutes(ns) },
			func(s *object.Snapshot, want *compile.Status) iter.Seq2[*gatewayv1.TLSRoute, gatewayv1.TLSRouteStatus] {
				return all(s.TLSRoutes, want.TLSRoutes)
			},
			func(c *change, have *gatewayv1.TLSRoute, want gatewayv1.TLSRouteStatus) {
				c.route(controller, have.Generation, have.Status.Parents, want.Parents)
			}),
		newKind("TCPRoute",
			func(ns string) client[*gatewayv1.TCPRoute] { return gateway.GatewayV1().TCPRoutes(ns) },
			func(s *object.Snapshot, want *compile.Status) iter.Seq2[*gatewayv1.TCPRoute, gatewayv1.TCPRouteStatus] {
				return all(s.TCPRoutes, want.TCPRoutes)
			},
			func(c *change, have *gatewayv1.TCPRoute, want gatewayv1.TCPRouteStatus) {
				c.route(controller, have.Generation, have.Status.Parents, want.Parents)
			}),
		newKind("UDPRoute",
			func(ns string) client[*gatewayv1.UDPRoute] { return gateway.GatewayV1().UDPRoutes(ns) },
			func(s *object.Snapshot, want *compile.Status) iter.Seq2[*gatewayv1.UDPRoute, gatewayv1.UDPRouteStatus] {
				return all(s.UDPRoutes, want.UDPRoutes)
			},
			func(c *change, have *gatewayv1.UDPRoute, want gatewayv1.UDPRouteStatus) {
				c.route(controller, have.Generation, have.Status.Parents, want.Parents)
			}),
		newKind("BackendTLSPolicy",
			func(ns string) client[*gatewayv1.BackendTLSPolicy] { return gateway.GatewayV1().BackendTLSPolicies(ns) },
			func(s *object.Snapshot, want *compile.Status) iter.Seq2[*gatewayv1.BackendTLSPolicy, gatewayv1.PolicyStatus] {
				return all(s.BackendTLSPolicies, want.BackendTLSPolicies)
			},
			func(c *change, have *gatewayv1.BackendTLSPolicy, want gatewayv1.PolicyStatus) {
				c.policy(controller, have.Generation, have.Status.Ancestors, want.Ancestors)
			}),
		newKind("XBackendTrafficPolicy",
			func(ns string) client[*gatewayx.XBackendTrafficPolicy] {
				return gateway.ExperimentalV1alpha1().XBackendTrafficPolicies(ns)
			},
			func(s *object.Snapshot, want *compile.Status) iter.Seq2[*gatewayx.XBackendTrafficPolicy, gatewayv1.PolicyStatus] {
				return all(s.XBackendTrafficPolicies, want.XBackendTrafficPolicies)
			},
			func(c *change, have *gatewayx.XBackendTrafficPolicy, want gatewayv1.PolicyStatus) {
				c.policy(controller, have.Generation, have.Status.Ancestors, want.Ancestors)
			}),
		newKind("XBackend",
			func(ns string) client[*gatewayx.XBackend] {
				return gateway.ExperimentalV1alpha1().XBackends(ns)
			},
			func(s *object.Snapshot, want *compile.Status) iter.Seq2[*gatewayx.XBackend, gatewayx.BackendStatus] {
				return all(s.XBackends, want.XBackends)
			},
			func(c *change, have *gatewayx.XBackend, want gatewayx.BackendStatus) {
				c.backend(controller, have.Generation, have.Status.Ancestors, want.Ancestors)
			}),
		newKind("GRPCRoute",
			func(ns string) client[*gatewayv1.GRPCRoute] { return gateway.GatewayV1().GRPCRoutes(ns) },
			func(s *object.Snapshot, want *compile.Status) iter.Seq2[*gatewayv1.GRPCRoute, gatewayv1.GRPCRouteStatus] {
				return all(s.GRPCRoutes, want.GRPCRoutes)
			},
			func(c *change, have *gatewayv1.GRPCRoute, want gatewayv1.GRPCRouteStatus) {
				c.route(controller, have.Generation, have.Status.Parents, want.Parents)
			}),
		newKind("Ingress",
			func(ns string) client[*networkingv1.Ingress] { return kube.NetworkingV1().Ingresses(ns) },
			func(s *object.Snapshot, want *compile.Status) iter.Seq2[*networkingv1.Ingress, networkingv1.IngressStatus] {
				return wanted(s.Ingresses, want.Ingresses)
			},
			(*change).ingress),
		// Last, for they count the routes.
		newKind("ListenerSet",
			func(ns string) client[*gatewayv1.ListenerSet] { return gateway.GatewayV1().ListenerSets(ns) },
			func(s *object.Snapshot, want *compile.Status) iter.Seq2[*gatewayv1.ListenerSet, gatewayv1.ListenerSetStatus] {
				return wanted(s.ListenerSets, want.ListenerSets)
			},
			(*change).listenerSet),
		newKind("Gateway",
			func(ns string) client[*gatewayv1.Gateway] { return gateway.GatewayV1().Gateways(ns) },
			func(s *object.Snapshot, want *compile.Status) iter.Seq2[*gatewayv1.Gateway, gatewayv1.GatewayStatus] {
				return wanted(s.Gateways, want.Gateways)
			},
			(*change).gateway),
	}
	for _, k := range kinds {
		k.first = k.name == "GatewayClass" || k.name == "Gateway" || k.name == "ListenerSet"
	}
	return kinds
}

// wanted yields the objects that have a status in want. The status of all others is none of our business.
func wanted[K comparable, O any, S any](objects map[K]*O, want map[K]S) iter.Seq2[*O, S] {
	return func(yield func(*O, S) bool) {
		for key, status := range want {
			if o := objects[key]; o != nil && !yield(o, status) {
				return
			}
		}
	}
}

// all yields every object, those that have no status in want too: there may be something of ours in theirs that has to go.
func all[K comparable, O any, S any](objects map[K]*O, want map[K]S) iter.Seq2[*O, S] {
	return func(yield func(*O, S) bool) {
		for key, o := range objects {
			if o != nil && !yield(o, want[key]) {
				return
			}
		}
	}
}

// sameStatus tells whether two statuses of one kind are the same.
func sameStatus(a, b any) bool { return reflect.DeepEqual(a, b) }
