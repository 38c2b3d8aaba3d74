package compile

import (
	"fmt"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// maxParents is how many parents the status of a route can hold.
const maxParents = 32

// routeHead is what decides where a route attaches, whatever its kind.
type routeHead struct {
	ref       object.Ref
	parents   []gatewayv1.ParentReference
	scope     gatewayv1.GatewayDefaultScope // of the default Gateways that it asks for
	hostnames []string                      // clean; anyHostname when the route names none
}

// headOf is the head of a route. hostnames are clean.
func headOf(ref object.Ref, spec *gatewayv1.CommonRouteSpec, hostnames []string) *routeHead {
	return &routeHead{ref: ref, parents: spec.ParentRefs, scope: spec.UseDefaultGateways, hostnames: hostnames}
}

// anyHostname is the hostnames of a route that names none.
var anyHostname = []string{""}

// attachment is what one of our parents said about one parentRef of a route.
type attachment struct {
	parent   gatewayv1.ParentReference // as the route has it
	accepted verdict
	places   []place
}

// place is a listener that took a route, and the hostnames of the route that it took. They keep the form that the route gives them and are not cut down to what
// they have in common with the listener's: of two routes whose hostnames match a request, the one with the more specific hostname comes first, even where the
// listener's is more specific than both.
type place struct {
	listener  *listener
	hostnames []string
}

// attach finds the listeners that a route attaches to. Parents that are not ours are passed over: only their own controller may speak about them.
func (c *compiler) attach(r *routeHead, index parents) []attachment {
	if len(r.parents) == 0 && r.scope != gatewayv1.GatewayDefaultScopeAll {
		c.turnAway(r, "spec.parentRefs", Warning, string(gatewayv1.RouteReasonNoMatchingParent), "names no Gateway in parentRefs, so it is served nowhere")
	}
	var out []attachment
	for i := range r.parents {
		p := &r.parents[i]
		field := indexed("spec.parentRefs", i)
		switch {
		case i >= maxParents:
			c.problems.add(Error, r.ref, field, "TooMany", "a route can have %d parents, this one is ignored", maxParents)
		case slices.ContainsFunc(r.parents[:i], func(q gatewayv1.ParentReference) bool { return sameParent(r.ref.Namespace, p, &q) }):
			c.problems.add(Warning, r.ref, field, "DuplicateParent", "names %s a second time", parentName(r.ref.Namespace, *p))
		default:
			if to := c.parentOf(r, p, field, index); to != nil {
				out = append(out, c.attachTo(r, p, field, to))
			}
		}
	}
	out = append(out, c.attachDefaults(r)...)
	c.checkHostnames(r, out)
	return out
}

// parentOf returns what a parentRef names, or nil when it is not ours.
func (c *compiler) parentOf(r *routeHead, p *gatewayv1.ParentReference, field string, index parents) *parent {
	group, kind := orDefault(p.Group, gatewayGroup), orDefault(p.Kind, "Gateway")
	if group != gatewayGroup {
		return nil // somebody else's, such as the Service of a mesh
	}
	if kind != "Gateway" && kind != listenerSetKind {
		c.turnAway(r, field, Warning, "NotSupported", "parents of kind %s are not supported: the route is not attached to %s", kind, p.Name)
		return nil
	}
	key := parentKey(r.ref.Namespace, p)
	if to := index[object.Ref{Kind: string(kind), Namespace: key.Namespace, Name: key.Name}]; to != nil {
		return to
	}
	if kind == listenerSetKind {
		c.explainNoSet(r, field, key)
		return nil
	}
	if other := c.in.Gateways[key]; other != nil {
		why := fmt.Sprintf("Gateway %s is not served here: its class %s belongs to another controller or does not exist", key, other.Spec.GatewayClassName)
		c.rejected = append(c.rejected, rejection(r, r.hostnames, field, why))
		return nil
	}
	c.turnAway(r, field, Error, "ParentNotFound", "Gateway %s does not exist", key)
	return nil
}

// explainNoSet says why a route is not attached to a ListenerSet that is not ours.
func (c *compiler) explainNoSet(r *routeHead, field string, key object.Key) {
	if c.in.ListenerSets[key] == nil {
		c.turnAway(r, field, Error, "ParentNotFound", "ListenerSet %s does not exist", key)
		return
	}
	why := fmt.Sprintf("ListenerSet %s is not served here: its Gateway belongs to another controller or does not exist", key)
	c.rejected = append(c.rejected, rejection(r, r.hostnames, field, why))
}

func parentKey(namespace string, p *gatewayv1.ParentReference) object.Key {
	if p.Namespace != nil {
		namespace = string(*p.Namespace)
	}
	return object.Key{Namespace: namespace, Name: string(p.Name)}
}

// sameParent tells whether two parentRefs of a route in namespace refer to the same section and port of the same object.
func sameParent(namespace string, a, b *gatewayv1.ParentReference) bool {
	return parentKey(namespace, a) == parentKey(namespace, b) &&
		orDefault(a.Group, gatewayGroup) == orDefault(b.Group, gatewayGroup) && orDefault(a.Kind, "Gateway") == orDefault(b.Kind, "Gateway") &&
		orDefault(a.SectionName, "") == orDefault(b.SectionName, "") && orDefault(a.Port, 0) == orDefault(b.Port, 0)
}

// orDefault returns what p points to, or def if it is nil.
func orDefault[T any](p *T, def T) T {
	if p == nil {
		return def
	}
	return *p
}

// attachTo lets the listeners of a parent decide about a route, and says what becomes of it.
func (c *compiler) attachTo(r *routeHead, p *gatewayv1.ParentReference, field string, to *parent) attachment {
	a, refused := c.offer(r, p, to)
	if a.accepted.ok() {
		c.explainGaps(r, field, a.places, refused)
	} else {
		c.turnAway(r, field, Error, a.accepted.Reason, "%s", a.accepted.Message)
	}
	return a
}

// offer lets the listeners of a parent decide about a route: those that the parentRef selects, of them those that allow it, and of them those that have a
// hostname in common with it. Where the last of them drops out is the reason for the route's rejection.
func (c *compiler) offer(r *routeHead, p *gatewayv1.ParentReference, to *parent) (a attachment, refused []*listener) {
	a.parent = *p
	var selected int
	var open []*listener
	for _, l := range to.entries {
		if !selects(p, l) {
			continue
		}
		selected++
		if c.refuses(r, l) != "" {
			refused = append(refused, l)
			continue
		}
		if names := commonHostnames(l.hostname, r.hostnames); len(names) > 0 {
			a.places = append(a.places, place{l, names})
		} else {
			open = append(open, l)
		}
	}
	if len(a.places) == 0 {
		switch {
		case selected == 0:
			a.accepted = verdict{string(gatewayv1.RouteReasonNoMatchingParent), noSuchListener(p, to)}
		case len(open) == 0:
			a.accepted = verdict{string(gatewayv1.RouteReasonNotAllowedByListeners), c.refusals(r, to, refused)}
		case len(r.hostnames) == 0:
			a.accepted = verdict{string(gatewayv1.RouteReasonUnsupportedValue), "none of its hostnames is valid"}
		default:
			a.accepted = verdict{string(gatewayv1.RouteReasonNoMatchingListenerHostname), noCommonHostname(r, to, open)}
		}
	}
	return a, refused
}

// selects tells whether a parentRef means a listener.
func selects(p *gatewayv1.ParentReference, l *listener) bool {
	return (p.SectionName == nil || *p.SectionName == "" || string(*p.SectionName) == l.name) && (p.Port == nil || *p.Port == l.spec.Port)
}

// refuses says why a listener does not let a route attach; "" when it does.
func (c *compiler) refuses(r *routeHead, l *listener) string {
	if !hasKind(l.kinds, gatewayGroup, gatewayv1.Kind(r.ref.Kind)) {
		return fmt.Sprintf("allows no routes of kind %s", r.ref.Kind)
	}
	return c.refusal(l, r.ref.Namespace)
}

// commonHostnames returns the hostnames of a route that have a name in common with the hostname of a listener.
func commonHostnames(listener string, hostnames []string) []string {
	for i, h := range hostnames {
		if intersect(listener, h) {
			continue
		}
		common := slices.Clone(hostnames[:i])
		for _, h := range hostnames[i+1:] {
			if intersect(listener, h) {
				common = append(common, h)
			}
		}
		return common
	}
	return hostnames
}

func noSuchListener(p *gatewayv1.ParentReference, to *parent) string {
	if !to.admitted.ok() {
		return fmt.Sprintf("%s is not accepted: %s", to.ref, to.admitted.Message)
	}
	var want []string
	if p.SectionName != nil {
		want = append(want, fmt.Sprintf("named %q", *p.SectionName))
	}
	if p.Port != nil {
		want = append(want, fmt.Sprintf("on port %d", *p.Port))
	}
	have := make([]string, len(to.entries))
	for i, l := range to.entries {
		have[i] = fmt.Sprintf("%s on port %d", l.name, l.spec.Port)
	}
	return fmt.Sprintf("%s has no listener %s; it has %s", to.ref, strings.Join(want, " "), list(have))
}

// refusals says why none of the listeners lets a route attach.
func (c *compiler) refusals(r *routeHead, to *parent, refused []*listener) string {
	first := c.refuses(r, refused[0])
	if !slices.ContainsFunc(refused, func(l *listener) bool { return c.refuses(r, l) != first }) {
		return fmt.Sprintf("%s %s", to.ref, first)
	}
	why := make([]string, len(refused))
	for i, l := range refused {
		why[i] = fmt.Sprintf("%s %s", l, c.refuses(r, l))
	}
	return strings.Join(why, "; ")
}

func noCommonHostname(r *routeHead, to *parent, listeners []*listener) string {
	have := make([]string, len(listeners))
	for i, l := range listeners {
		have[i] = l.hostname
	}
	return fmt.Sprintf("no listener of %s that allows the route is for %s; they are for %s", to.ref, list(r.hostnames), list(have))
}

// explainGaps leaves word for Explain where a route that attached is not served nevertheless: at listeners that refuse its namespace or that serve nothing.
func (c *compiler) explainGaps(r *routeHead, field string, places []place, refused []*listener) {
	for _, l := range refused {
		if why := c.refusal(l, r.ref.Namespace); why != "" && hasKind(l.kinds, gatewayGroup, gatewayv1.Kind(r.ref.Kind)) {
			c.rejected = append(c.rejected, rejection(r, r.hostnames, field, fmt.Sprintf("%s %s", l, why)))
			break
		}
	}
	for _, p := range places {
		if why := p.listener.notServed(); why != "" {
			c.rejected = append(c.rejected, rejection(r, p.hostnames, field, why))
		}
	}
}

// checkHostnames reports the hostnames of a route that none of the listeners that took the route has.
func (c *compiler) checkHostnames(r *routeHead, attachments []attachment) {
	var taken [][]string
	for _, a := range attachments {
		for _, p := range a.places {
			if len(p.hostnames) == len(r.hostnames) {
				return
			}
			taken = append(taken, p.hostnames)
		}
	}
	if len(taken) == 0 {
		return // the whole route was turned away, which was said
	}
	missing := slices.DeleteFunc(slices.Clone(r.hostnames), func(h string) bool {
		return slices.ContainsFunc(taken, func(names []string) bool { return slices.Contains(names, h) })
	})
	if len(missing) > 0 {
		c.turnAway(&routeHead{ref: r.ref, hostnames: missing}, "spec.hostnames", Warning, string(gatewayv1.RouteReasonNoMatchingListenerHostname),
			"no listener that the route is attached to is for %s", list(missing))
	}
}

// turnAway notes that a route, or some of its hostnames, is not served.
func (c *compiler) turnAway(r *routeHead, field string, severity Severity, code, format string, args ...any) {
	why := fmt.Sprintf(format, args...)
	c.problems.add(severity, r.ref, field, code, "%s", why)
	c.rejected = append(c.rejected, rejection(r, r.hostnames, field, why))
}

func rejection(r *routeHead, hostnames []string, field, why string) route.Rejected {
	if slices.Contains(hostnames, "") {
		hostnames = nil // any
	}
	return route.Rejected{
		Hostnames: hostnames, Why: why,
		Source: route.Source{Kind: r.ref.Kind, Namespace: r.ref.Namespace, Name: r.ref.Name, Field: field},
	}
}
