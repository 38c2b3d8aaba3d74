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

// backendPool finds the pool that a route's reference to a backend for its requests names. The verdict says why there is none: it is the one of the condition
// ResolvedRefs, and code is the more precise one of the Problem.
func (c *compiler) backendPool(from object.Ref, ref *gatewayv1.BackendObjectReference) (pool *route.Pool, v verdict, code string) {
	return c.backendPoolFor(from, ref, route.HTTP)
}

// backendPoolFor is backendPool for what is carried to it: HTTP for requests, TCP for connections, UDP for datagrams. Whether the route may refer to the backend is
// decided before anybody looks whether it exists.
func (c *compiler) backendPoolFor(from object.Ref, ref *gatewayv1.BackendObjectReference, carried route.Protocol) (pool *route.Pool, v verdict, code string) {
	to := referent{string(orDefault(ref.Group, "")), string(orDefault(ref.Kind, "Service")), string(orDefault(ref.Namespace, gatewayv1.Namespace(from.Namespace))), string(ref.Name)}
	if !canBeBackend(to) {
		v = verdict{string(gatewayv1.RouteReasonInvalidKind), fmt.Sprintf("a backend cannot be of the kind %s (group %q); Services and XBackends can", to.Kind, to.Group)}
		return nil, v, v.Reason
	}
	key := object.Key{Namespace: to.Namespace, Name: to.Name}
	if !c.mayRefer(referrer{gatewayGroup, from.Kind, from.Namespace}, to) {
		v = verdict{string(gatewayv1.RouteReasonRefNotPermitted), fmt.Sprintf("no ReferenceGrant in namespace %s lets %ss of namespace %s refer to %s %s",
			to.Namespace, from.Kind, from.Namespace, to.Kind, key)}
		return nil, v, v.Reason
	}
	var err *poolError
	switch {
	case to.Kind == xbackendKind:
		pool, err = c.xbackendPool(from, key, ref.Port, carried)
	case ref.Port == nil:
		err = poolErrorf(codePortNotFound, "the port of Service %s is missing", key)
	default:
		pool, err = c.findPool(carried)(key.Namespace, key.Name, *ref.Port)
	}
	if err != nil {
		return nil, verdict{poolReason(err), err.Message}, err.Code
	}
	return pool, verdict{}, ""
}

// canBeBackend tells whether a kind is one of those that a route can send something to.
func canBeBackend(to referent) bool {
	return to.Group == corev1.GroupName && to.Kind == "Service" || to.Group == xbackendGroup && to.Kind == xbackendKind
}

// findPool returns what finds the pool of a Service for what is carried to it.
func (c *compiler) findPool(carried route.Protocol) func(ns, name string, port int32) (*route.Pool, *poolError) {
	switch carried {
	case route.TCP:
		return c.streamPool
	case route.UDP:
		return c.datagramPool
	}
	return c.httpPool
}

// poolReason is the reason of a condition for what is wrong with a backend.
func poolReason(err *poolError) string {
	switch err.Code {
	case codeServiceNotFound, codePortNotFound, codeXBackendNotFound:
		return string(gatewayv1.RouteReasonBackendNotFound)
	case codeUnsupportedProtocol:
		return string(gatewayv1.RouteReasonUnsupportedProtocol)
	}
	return err.Code
}
