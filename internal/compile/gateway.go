package compile

import (
	"cmp"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// gateway is a Gateway of one of our classes while it is compiled.
type gateway struct {
	parent
	obj       *gatewayv1.Gateway
	sets      []*listenerSet
	listeners []*listener // all that are served at its addresses, those of its ListenerSets after its own
	// binds are the addresses that its listeners are bound to; "" is the address that Gateways share. Empty: it has none, and nothing of it is served.
	binds     []string
	published []gatewayv1.GatewayStatusAddress
	admits    allowance                // of which namespaces ListenerSets may add listeners
	accepted  verdict                  // what speaks against the Gateway as a whole; not its listeners
	client    *clientPair              // for backends; nil: none is wished for
	demands   map[string]*clientDemand // of its clients, by the field that says so
	addressed verdict                  // whether it has the addresses that it should have

	// What follows is for a Gateway that is reached through a Service; see infrastructure.go and bindport.go.
	record              object.Key               // the Service that leads to it
	service             *corev1.Service          // as that is; nil: there is none yet
	asked               string                   // the address that it asks for; "" is any
	recorded            map[transportPort]uint16 // the ports that service lists, and what is bound for them
	ports               []ServicePort            // that service should list
	labels, annotations map[string]string        // that its Services should have
	wished              bool                     // Services are wished for
}

func newGateway(obj *gatewayv1.Gateway) *gateway {
	g := &gateway{obj: obj}
	g.parent = parent{ref: object.Ref{Kind: "Gateway", Namespace: obj.Namespace, Name: obj.Name}, generation: obj.Generation, gateway: g, since: obj.CreationTimestamp.Time}
	return g
}

// gatewayListeners compiles the listeners that stand in a Gateway.
func (c *compiler) gatewayListeners(g *gateway) {
	g.wish = c.wish(g.ref, g.obj.Annotations)
	c.listeners(&g.parent, g.obj.Spec.Listeners)
	g.listeners = append(g.listeners, g.entries...)
}

// publish adds an address to the Gateway's status.
func (g *gateway) publish(address string) {
	typ := typeOfAddress(address)
	a := gatewayv1.GatewayStatusAddress{Type: &typ, Value: address}
	known := slices.ContainsFunc(g.published, func(b gatewayv1.GatewayStatusAddress) bool { return a.Value == b.Value })
	if !known && len(g.published) < maxStatusAddresses {
		g.published = append(g.published, a)
	}
}

// own gives the Gateway an address that no other Gateway has.
func (g *gateway) own(addr fmt.Stringer) {
	g.binds = append(g.binds, addr.String())
	g.publish(addr.String())
}

// gateways compiles the objects of Gateway API. Each step below needs what the ones before it found out about all Gateways.
func (c *compiler) gateways() {
	mine := c.ourGateways(c.gatewayClasses())
	c.assignAddresses(mine)
	for _, g := range mine {
		c.guard(g.ref, func() { c.gatewayListeners(g) })
	}
	index := make(parents, len(mine))
	for _, g := range mine {
		index[g.ref] = &g.parent
		if g.isDefault() {
			c.defaults = append(c.defaults, g)
		}
	}
	c.listenerSets(index)
	c.resolveClashes(mine)
	for _, g := range mine {
		c.guard(g.ref, func() { c.openListeners(g) })
	}
	findOverlaps(mine)
	c.httpRoutes(index)
	c.grpcRoutes(index)
	c.tlsRoutes(index)
	c.tcpRoutes(index)
	c.udpRoutes(index)
	c.reportShadowed(mine)
	c.presentCertificates(mine)
	c.policyStatus(mine)
	c.xbackendStatus()
	for _, g := range mine {
		c.guard(g.ref, func() { c.gatewayStatus(g) })
		for _, s := range g.sets {
			c.guard(s.ref, func() { c.listenerSetStatus(s) })
		}
	}
	c.wishServices(mine)
}

// ourGateways returns the Gateways of our classes, oldest first.
func (c *compiler) ourGateways(classes map[string]verdict) []*gateway {
	var mine []*gateway
	for _, obj := range object.Sorted(c.in.Gateways) {
		if obj == nil {
			continue
		}
		g := newGateway(obj)
		class := string(obj.Spec.GatewayClassName)
		accepted, ours := classes[class]
		if !ours {
			c.checkClassExists(g.ref, class)
			continue
		}
		mine = append(mine, g)
		if !accepted.ok() {
			c.rejectGateway(g, "spec.gatewayClassName", gatewayv1.GatewayReasonInvalid, "GatewayClass %s is not accepted", class)
		}
		c.checkGateway(g)
	}
	slices.SortFunc(mine, func(a, b *gateway) int { return object.Older(a.obj, b.obj) })
	return mine
}

// checkClassExists reports a Gateway whose class nobody defines. One of a class that another controller defines is none of our business.
func (c *compiler) checkClassExists(gateway object.Ref, class string) {
	if c.in.GatewayClasses[class] == nil {
		c.problems.add(Error, gateway, "spec.gatewayClassName", "ClassNotFound", "GatewayClass %q does not exist, so nobody serves this Gateway", class)
	}
}

// checkGateway looks at the fields of a Gateway that concern all of its listeners.
func (c *compiler) checkGateway(g *gateway) {
	spec := &g.obj.Spec
	if infra := spec.Infrastructure; infra != nil && infra.ParametersRef != nil {
		c.rejectGateway(g, "spec.infrastructure.parametersRef", gatewayv1.GatewayReasonInvalidParameters,
			"Fairlead has no parameters of the kind %s (group %q) that parametersRef names", infra.ParametersRef.Kind, infra.ParametersRef.Group)
	}
	c.checkInfrastructure(g)
	c.checkClientCertificate(g)
	c.checkAllowedListeners(g)
	c.checkDefaultScope(g.ref, "spec.defaultScope", spec.DefaultScope)
	c.checkLimit(g.ref, "spec.listeners", len(spec.Listeners), 64)
	c.checkLimit(g.ref, "spec.addresses", len(spec.Addresses), maxStatusAddresses)
}

// unsupported reports a field that is ignored.
func (c *compiler) unsupported(ref object.Ref, field, message string) {
	c.problems.add(Warning, ref, field, "NotSupported", "%s", message)
}

// checkLimit reports a list that is longer than the API server would accept. It is served nevertheless.
func (c *compiler) checkLimit(ref object.Ref, field string, have, limit int) {
	if have > limit {
		c.problems.add(Warning, ref, field, "TooMany", "has %d entries; a cluster accepts at most %d", have, limit)
	}
}

// rejectGateway notes why a Gateway as a whole is not served; the first reason is the one in its status.
func (c *compiler) rejectGateway(g *gateway, field string, reason gatewayv1.GatewayConditionReason, format string, args ...any) {
	v := verdict{string(reason), fmt.Sprintf(format, args...)}
	c.problems.add(Error, g.ref, field, v.Reason, "%s", v.Message)
	g.accepted = g.accepted.or(v)
}

// gatewayStatus writes the status of a Gateway from what all other steps left in it.
func (c *compiler) gatewayStatus(g *gateway) {
	generation := g.obj.Generation
	accepted := g.acceptedCondition()
	programmed := g.programmed()
	status := gatewayv1.GatewayStatus{
		Addresses: g.published,
		Conditions: []metav1.Condition{
			accepted.conditionWithReason("Accepted", generation),
			programmed.condition("Programmed", "Programmed", generation),
		},
	}
	if g.isDefault() {
		status.Conditions = append(status.Conditions, g.defaultCondition())
	}
	if g.client != nil {
		status.Conditions = append(status.Conditions, g.client.resolved.condition("ResolvedRefs", "ResolvedRefs", generation))
	}
	if insecure := g.insecureFrontend(); insecure != nil {
		status.Conditions = append(status.Conditions, *insecure)
	}
	for _, l := range g.entries {
		status.Listeners = append(status.Listeners, l.status())
	}
	status.AttachedListenerSets = g.attachedSets()
	set(&c.status.Gateways, g.ref.Key(), status)
}

// acceptance is a verdict whose yes may come with a reason of its own.
type acceptance struct {
	verdict
	yes string
}

// conditionWithReason is condition, with the reason and message that a yes may have.
func (a acceptance) conditionWithReason(typ string, generation int64) metav1.Condition {
	c := a.condition(typ, cmp.Or(a.yes, typ), generation)
	c.Message = a.Message
	return c
}

// acceptedCondition says whether a Gateway is accepted: as long as one of its listeners is. When others are not, the reason and message say so even then.
func (g *gateway) acceptedCondition() acceptance {
	if !g.accepted.ok() {
		return acceptance{verdict: g.accepted}
	}
	var good, bad []string
	for _, l := range g.entries {
		if l.accepted.ok() {
			good = append(good, l.name)
		} else {
			bad = append(bad, l.name)
		}
	}
	if len(good) == 0 && slices.ContainsFunc(g.listeners, func(l *listener) bool { return l.accepted.ok() }) {
		good = append(good, "those of ListenerSets")
	}
	reason := string(gatewayv1.GatewayReasonListenersNotValid)
	switch {
	case len(g.listeners) == 0:
		return acceptance{verdict: verdict{reason, "the Gateway has no listeners"}}
	case len(good) == 0:
		return acceptance{verdict: verdict{reason, "no listener is valid: " + list(bad)}}
	case len(bad) > 0:
		return acceptance{yes: reason, verdict: verdict{Message: fmt.Sprintf("not valid: %s; accepted: %s", list(bad), list(good))}}
	}
	return acceptance{}
}

// programmed says whether a Gateway serves at least one of its listeners at the addresses that it should have.
func (g *gateway) programmed() verdict {
	switch {
	case !g.acceptedCondition().ok():
		return verdict{string(gatewayv1.GatewayReasonInvalid), "the Gateway is not accepted"}
	case !g.addressed.ok():
		return g.addressed
	case slices.ContainsFunc(g.listeners, func(l *listener) bool { return l.programmed().ok() }):
		return verdict{}
	}
	for _, l := range g.listeners {
		if l.accepted.ok() && !l.pending.ok() {
			return l.pending
		}
	}
	return verdict{string(gatewayv1.GatewayReasonInvalid), "no listener is programmed"}
}
