package compile

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// maxWeight is the largest weight that a backend can have.
const maxWeight = 1_000_000

// backendPool finds the pool that a route's reference to a backend names. The verdict says why there is none: it is the one of the condition ResolvedRefs, and
// code is the more precise one of the Problem. Whether the route may refer to the Service is decided before anybody looks whether it exists.
func (c *compiler) backendPool(from object.Ref, ref *gatewayv1.BackendObjectReference) (pool *route.Pool, v verdict, code string) {
	return c.backendPoolBy(from, ref, c.httpPool)
}

// poolFinder is servicePool, or one like it for something else than HTTP.
type poolFinder func(ns, name string, port int32) (*route.Pool, *poolError)

// backendPoolBy is backendPool for the pools that find finds.
func (c *compiler) backendPoolBy(from object.Ref, ref *gatewayv1.BackendObjectReference, find poolFinder) (pool *route.Pool, v verdict, code string) {
	if group, kind := orDefault(ref.Group, ""), orDefault(ref.Kind, "Service"); group != corev1.GroupName || kind != "Service" {
		v = verdict{string(gatewayv1.RouteReasonInvalidKind), fmt.Sprintf("a backend cannot be of the kind %s (group %q); Services can", kind, group)}
		return nil, v, v.Reason
	}
	service := object.Key{Namespace: from.Namespace, Name: string(ref.Name)}
	if ref.Namespace != nil {
		service.Namespace = string(*ref.Namespace)
	}
	if !c.mayRefer(referrer{gatewayGroup, from.Kind, from.Namespace}, serviceReferent(service)) {
		v = verdict{string(gatewayv1.RouteReasonRefNotPermitted), fmt.Sprintf("no ReferenceGrant in namespace %s lets %ss of namespace %s refer to Service %s",
			service.Namespace, from.Kind, from.Namespace, service)}
		return nil, v, v.Reason
	}
	if ref.Port == nil {
		return nil, verdict{string(gatewayv1.RouteReasonBackendNotFound), fmt.Sprintf("the port of Service %s is missing", service)}, codePortNotFound
	}
	pool, err := find(service.Namespace, service.Name, *ref.Port)
	if err != nil {
		return nil, verdict{poolReason(err), err.Message}, err.Code
	}
	return pool, verdict{}, ""
}

// poolReason is the reason of a condition for what is wrong with a Service.
func poolReason(err *poolError) string {
	switch err.Code {
	case codeServiceNotFound, codePortNotFound:
		return string(gatewayv1.RouteReasonBackendNotFound)
	case codeUnsupportedProtocol:
		return string(gatewayv1.RouteReasonUnsupportedProtocol)
	}
	return err.Code
}
