package compile

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// defaultField is the field by which a route asks for default Gateways.
const defaultField = "spec.useDefaultGateways"

// checkDefaultScope reports a scope that Gateway API does not have.
func (c *compiler) checkDefaultScope(ref object.Ref, field string, scope gatewayv1.GatewayDefaultScope) {
	switch scope {
	case "", gatewayv1.GatewayDefaultScopeAll, gatewayv1.GatewayDefaultScopeNone:
	default:
		c.problems.add(Error, ref, field, "InvalidDefaultScope", "%q is neither All nor None, and means None", scope)
	}
}

// isDefault tells whether routes that ask for default Gateways attach to g.
func (g *gateway) isDefault() bool {
	return g.obj.Spec.DefaultScope == gatewayv1.GatewayDefaultScopeAll
}

// defaultCondition is the condition of a default Gateway.
func (g *gateway) defaultCondition() metav1.Condition {
	return metav1.Condition{
		Type: defaultGatewayType, Status: metav1.ConditionTrue, Reason: defaultGatewayType, ObservedGeneration: g.obj.Generation,
		Message: fmt.Sprintf("the Gateway has the default scope %s", g.obj.Spec.DefaultScope),
	}
}

// defaultGatewayType is a type of condition that GEP-3793 names and the API has no constant for.
const defaultGatewayType = "DefaultGateway"

// attachDefaults attaches a route to the default Gateways, if it asks for them, as if it named each. Those that do not take it have no part in its status, for its
// author need not know of them.
func (c *compiler) attachDefaults(r *routeHead) (out []attachment) {
	c.checkDefaultScope(r.ref, defaultField, r.scope)
	if r.scope != gatewayv1.GatewayDefaultScopeAll {
		return nil
	}
	for _, g := range c.defaults {
		p := gatewayv1.ParentReference{
			Group: new(gatewayv1.Group(gatewayGroup)), Kind: new(gatewayv1.Kind(g.ref.Kind)),
			Namespace: new(gatewayv1.Namespace(g.ref.Namespace)), Name: gatewayv1.ObjectName(g.ref.Name),
		}
		if slices.ContainsFunc(r.parents, func(q gatewayv1.ParentReference) bool { return sameParent(r.ref.Namespace, &p, &q) }) {
			continue
		}
		a, refused := c.offer(r, &p, &g.parent)
		if !a.accepted.ok() {
			c.rejected = append(c.rejected, rejection(r, r.hostnames, defaultField, a.accepted.Message))
			continue
		}
		if len(r.parents)+len(out) >= maxParents {
			c.problems.add(Warning, r.ref, defaultField, "TooMany", "a route can have %d parents; not all default Gateways are among them", maxParents)
			break
		}
		c.explainGaps(r, defaultField, a.places, refused)
		out = append(out, a)
	}
	switch {
	case len(c.defaults) == 0:
		c.turnAway(r, defaultField, Warning, string(gatewayv1.RouteReasonNoMatchingParent), "there is no default Gateway")
	case len(out) == 0:
		c.problems.add(Warning, r.ref, defaultField, string(gatewayv1.RouteReasonNoMatchingParent), "no default Gateway takes the route")
	}
	return out
}
