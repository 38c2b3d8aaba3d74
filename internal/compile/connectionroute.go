package compile

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// tlsRoutes compiles every TLSRoute that names one of our Gateways.
func (c *compiler) tlsRoutes(index parents) {
	eachRoute(c, "TLSRoute", c.in.TLSRoutes, func(obj *gatewayv1.TLSRoute, ref object.Ref) {
		rules := refsOfRules(obj.Spec.Rules, func(r *gatewayv1.TLSRouteRule) backendRefs { return r.BackendRefs })
		if status := c.connectionRoute(headOf(ref, &obj.Spec.CommonRouteSpec, c.serverNames(ref, obj.Spec.Hostnames)), index, obj, rules, route.TCP); status != nil {
			set(&c.status.TLSRoutes, ref.Key(), gatewayv1.TLSRouteStatus{RouteStatus: *status})
		}
	})
}

// tcpRoutes compiles every TCPRoute that names one of our Gateways.
func (c *compiler) tcpRoutes(index parents) {
	eachRoute(c, "TCPRoute", c.in.TCPRoutes, func(obj *gatewayv1.TCPRoute, ref object.Ref) {
		rules := refsOfRules(obj.Spec.Rules, func(r *gatewayv1.TCPRouteRule) backendRefs { return r.BackendRefs })
		if status := c.connectionRoute(headOf(ref, &obj.Spec.CommonRouteSpec, anyHostname), index, obj, rules, route.TCP); status != nil {
			set(&c.status.TCPRoutes, ref.Key(), gatewayv1.TCPRouteStatus{RouteStatus: *status})
		}
	})
}

// udpRoutes compiles every UDPRoute that names one of our Gateways.
func (c *compiler) udpRoutes(index parents) {
	eachRoute(c, "UDPRoute", c.in.UDPRoutes, func(obj *gatewayv1.UDPRoute, ref object.Ref) {
		rules := refsOfRules(obj.Spec.Rules, func(r *gatewayv1.UDPRouteRule) backendRefs { return r.BackendRefs })
		if status := c.connectionRoute(headOf(ref, &obj.Spec.CommonRouteSpec, anyHostname), index, obj, rules, route.UDP); status != nil {
			set(&c.status.UDPRoutes, ref.Key(), gatewayv1.UDPRouteStatus{RouteStatus: *status})
		}
	})
}

// backendRefs are the backends of one rule.
type backendRefs []gatewayv1.BackendRef

// refsOfRules returns the backends of each rule, which is all that there is in rules of these kinds.
func refsOfRules[R any](rules []R, backends func(*R) backendRefs) []backendRefs {
	out := make([]backendRefs, len(rules))
	for i := range rules {
		out[i] = backends(&rules[i])
	}
	return out
}

// serverNames returns the hostnames of a TLSRoute, which must have some: a route without them gets no connection, rather than all.
func (c *compiler) serverNames(ref object.Ref, in []gatewayv1.Hostname) []string {
	if len(in) == 0 {
		c.problems.add(Error, ref, "spec.hostnames", "InvalidHostname", "a TLSRoute needs hostnames: the server names of its connections")
		return nil
	}
	return c.routeHostnames(ref, in)
}

// connectionRoute is a route that gets whole connections, or datagrams, while it is compiled.
type connectionRoute struct {
	*compiler
	routeBody
	created metav1.Time
	carried route.Protocol // TCP or UDP
}

// connectionRoute compiles a route and puts it where it attaches. The status is nil if none of its parents is ours.
func (c *compiler) connectionRoute(head *routeHead, index parents, obj metav1.Object, rules []backendRefs, carried route.Protocol) *gatewayv1.RouteStatus {
	attachments := c.attach(head, index)
	if len(attachments) == 0 {
		return nil
	}
	r := &connectionRoute{compiler: c, routeBody: routeBody{ref: head.ref}, created: obj.GetCreationTimestamp(), carried: carried}
	r.compile(rules)
	r.place(attachments)
	status := c.routeStatus(&r.routeBody, obj.GetGeneration(), attachments)
	return &status
}

// compile compiles the rules. There is nothing by which a second one could get anything that the first does not.
func (r *connectionRoute) compile(rules []backendRefs) {
	if len(rules) == 0 {
		r.flawed("spec.rules", "the route needs a rule")
		r.add(0, nil, closed(route.RouteInvalid, "the route has no rule"))
		return
	}
	if len(rules) > 1 {
		r.problems.add(Warning, r.ref, "spec.rules[1]", "TooMany", "the first rule gets everything and this one nothing; a cluster accepts one rule only")
	}
	for i, refs := range rules {
		r.rule(i, refs)
	}
}

// flawed notes that a part of the route cannot be served.
func (r *connectionRoute) flawed(field, message string) {
	v := verdict{string(gatewayv1.RouteReasonUnsupportedValue), message}
	r.problems.add(Error, r.ref, field, v.Reason, "%s", message)
	r.flaws = append(r.flaws, flaw{field, v})
}

func (r *connectionRoute) rule(i int, refs backendRefs) {
	r.checkLimit(r.ref, ruleField(i)+".backendRefs", len(refs), 16)
	backends := make([]route.WeightedPool, len(refs))
	var fault *route.Fault
	for j := range refs {
		backends[j] = r.backend(&refs[j], backendField(i, j))
		if wrong := backends[j].Fault; wrong != nil && wrong.Reason == route.RouteInvalid && fault == nil {
			fault = wrong
		}
	}
	if fault != nil {
		r.add(i, nil, fault)
		return
	}
	r.sound++
	if fault = noBackend(backends); fault != nil {
		fault.Status = 0
	}
	r.add(i, backends, fault)
}

// add adds a rule to those that are served, one with a fault among them: it keeps its connections from falling to a rule that was not meant for them.
func (r *connectionRoute) add(i int, backends []route.WeightedPool, fault *route.Fault) {
	r.rules = append(r.rules, &route.Rule{
		Order: route.Order{Created: r.created.Time, Rule: i}, Backends: backends, Fault: fault, Source: r.source(ruleField(i)),
	})
}

// backend compiles a backend. One that leads nowhere keeps its share of the connections, which are closed.
func (r *connectionRoute) backend(ref *gatewayv1.BackendRef, field string) route.WeightedPool {
	out := route.WeightedPool{Weight: orDefault(ref.Weight, 1), Source: r.source(field)}
	if out.Weight < 0 || out.Weight > maxWeight {
		message := fmt.Sprintf("weight %d is not between 0 and %d", out.Weight, maxWeight)
		r.flawed(field+".weight", message)
		out.Weight, out.Fault = 0, closed(route.RouteInvalid, field+".weight: "+message)
		return out
	}
	pool, v, code := r.backendPoolFor(r.ref, &ref.BackendObjectReference, r.carried)
	out.Pool = pool
	if !v.ok() {
		r.problems.add(Error, r.ref, field, code, "%s", v.Message)
		r.leadsNowhere(v)
		out.Fault = closed(route.NoBackend, v.Message)
		return out
	}
	r.noteRequestsOnly(pool.Key, r.carried)
	return out
}

// closed is what becomes of a connection that nobody can take.
func closed(reason route.Reason, why string) *route.Fault {
	return &route.Fault{Reason: reason, Why: why}
}

// reportShadowed tells the authors of routes that are accepted and get nothing, because an older route has all connections of a listener or of a server name.
func (c *compiler) reportShadowed(gateways []*gateway) {
	for _, p := range inPrecedence(gateways) {
		for _, l := range p.entries {
			if l.mode == route.Requests || len(l.open) == 0 {
				continue
			}
			for _, h := range l.open[0].Hosts {
				c.shadowed(l, h)
			}
		}
	}
}

func (c *compiler) shadowed(l *listener, h *route.Host) {
	if len(h.Rules) < 2 {
		return
	}
	first := slices.MinFunc(h.Rules, (*route.Rule).Compare)
	what := "all connections"
	if h.Name != "" {
		what += " for " + h.Name
	}
	for _, r := range h.Rules {
		if r.Source.Kind == first.Source.Kind && r.Source.Namespace == first.Source.Namespace && r.Source.Name == first.Source.Name {
			continue
		}
		ref := object.Ref{Kind: r.Source.Kind, Namespace: r.Source.Namespace, Name: r.Source.Name}
		c.problems.add(Warning, ref, r.Source.Field, "Shadowed", "gets nothing at %s: another %s is older and has %s", l, r.Source.Kind, what)
	}
}
