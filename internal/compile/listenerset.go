package compile

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
)

const listenerSetKind = "ListenerSet"

// listenerSet is a ListenerSet that names one of our Gateways while it is compiled.
type listenerSet struct {
	parent
	obj *gatewayv1.ListenerSet
}

// checkAllowedListeners finds out whose ListenerSets may add listeners to a Gateway: nobody's, unless it says so.
func (c *compiler) checkAllowedListeners(g *gateway) {
	allowed := g.obj.Spec.AllowedListeners
	if allowed == nil || allowed.Namespaces == nil || allowed.Namespaces.From == nil {
		return
	}
	var field, problem string
	g.admits, field, problem = newAllowance(*allowed.Namespaces.From, allowed.Namespaces.Selector)
	if problem != "" {
		c.problems.add(Error, g.ref, "spec.allowedListeners.namespaces"+field, "InvalidAllowedListeners", "%s; no ListenerSet is allowed", problem)
	}
}

// listenerSets adds the listeners of every ListenerSet to the Gateway that it names, if that is ours and lets it, in the order of precedence: the older first.
func (c *compiler) listenerSets(index parents) {
	sets := object.Sorted(c.in.ListenerSets)
	sets = slices.DeleteFunc(sets, func(o *gatewayv1.ListenerSet) bool { return o == nil })
	slices.SortFunc(sets, func(a, b *gatewayv1.ListenerSet) int { return object.Older(a, b) })
	for _, obj := range sets {
		ref := object.Ref{Kind: listenerSetKind, Namespace: obj.Namespace, Name: obj.Name}
		c.guard(ref, func() { c.listenerSet(obj, ref, index) })
	}
}

func (c *compiler) listenerSet(obj *gatewayv1.ListenerSet, ref object.Ref, index parents) {
	g := c.gatewayOfSet(obj, ref, index)
	if g == nil {
		return
	}
	s := &listenerSet{obj: obj, parent: parent{ref: ref, generation: obj.Generation, gateway: g, since: g.since}}
	if t := obj.CreationTimestamp.Time; t.After(s.since) {
		s.since = t
	}
	s.wish = c.wish(ref, obj.Annotations)
	g.sets = append(g.sets, s)
	index[ref] = &s.parent
	if why := c.excludes(g.admits, "ListenerSets", g.ref.Namespace, ref.Namespace); why != "" {
		s.admitted = verdict{string(gatewayv1.ListenerSetReasonNotAllowed), fmt.Sprintf("%s %s", g.ref, why)}
		c.problems.add(Error, ref, "spec.parentRef", s.admitted.Reason, "%s", s.admitted.Message)
		return
	}
	c.checkLimit(ref, "spec.listeners", len(obj.Spec.Listeners), 64)
	specs := make([]gatewayv1.Listener, len(obj.Spec.Listeners))
	for i := range specs {
		specs[i] = gatewayv1.Listener(obj.Spec.Listeners[i])
	}
	c.listeners(&s.parent, specs)
	g.listeners = append(g.listeners, s.entries...)
}

// gatewayOfSet returns the Gateway that a ListenerSet names, or nil when that is not ours.
func (c *compiler) gatewayOfSet(obj *gatewayv1.ListenerSet, ref object.Ref, index parents) *gateway {
	p := &obj.Spec.ParentRef
	if group, kind := orDefault(p.Group, gatewayGroup), orDefault(p.Kind, "Gateway"); group != gatewayGroup || kind != "Gateway" {
		c.problems.add(Warning, ref, "spec.parentRef", "NotSupported", "a ListenerSet cannot be part of a %s (group %q), but of a Gateway", kind, group)
		return nil
	}
	key := object.Key{Namespace: string(orDefault(p.Namespace, gatewayv1.Namespace(ref.Namespace))), Name: string(p.Name)}
	if to := index[object.Ref{Kind: "Gateway", Namespace: key.Namespace, Name: key.Name}]; to != nil {
		return to.gateway
	}
	if c.in.Gateways[key] == nil {
		c.problems.add(Error, ref, "spec.parentRef", "ParentNotFound", "Gateway %s does not exist", key)
	}
	return nil
}

// attachedSets is how many ListenerSets are part of a Gateway; nil when it is not meant to have any.
func (g *gateway) attachedSets() *int32 {
	if len(g.sets) == 0 && (g.admits.from == "" || g.admits.from == gatewayv1.NamespacesFromNone) {
		return nil
	}
	n := int32(0)
	for _, s := range g.sets {
		if s.accepted().ok() {
			n++
		}
	}
	return &n
}

// valid tells whether a listener of a ListenerSet counts as one that is valid: if it is accepted, and has a certificate if it needs one.
func (l *listener) valid() bool { return l.accepted.ok() && l.presentable() }

// accepted says whether a ListenerSet is accepted: as long as one of its listeners is valid. When others are not, the reason and message say so even then.
func (s *listenerSet) accepted() acceptance {
	switch {
	case !s.admitted.ok():
		return acceptance{verdict: s.admitted}
	case !s.gateway.accepted.ok():
		return acceptance{verdict: verdict{string(gatewayv1.ListenerSetReasonParentNotAccepted), fmt.Sprintf("%s is not accepted", s.gateway.ref)}}
	}
	var good, bad []string
	for _, l := range s.entries {
		if l.valid() {
			good = append(good, l.name)
		} else {
			bad = append(bad, l.name)
		}
	}
	reason := string(gatewayv1.ListenerSetReasonListenersNotValid)
	switch {
	case len(s.entries) == 0:
		return acceptance{verdict: verdict{reason, "the ListenerSet has no listeners"}}
	case len(good) == 0:
		return acceptance{verdict: verdict{reason, "no listener is valid: " + list(bad)}}
	case len(bad) > 0:
		return acceptance{yes: reason, verdict: verdict{Message: fmt.Sprintf("not valid: %s; accepted: %s", list(bad), list(good))}}
	}
	return acceptance{}
}

// programmed says whether a ListenerSet serves at least one of its listeners.
func (s *listenerSet) programmed() verdict {
	accepted := s.accepted()
	switch {
	case !s.gateway.accepted.ok() && s.admitted.ok():
		return verdict{string(parentNotProgrammed), accepted.Message}
	case !accepted.ok():
		return accepted.verdict
	case !s.gateway.addressed.ok():
		return verdict{string(parentNotProgrammed), s.gateway.addressed.Message}
	}
	why := verdict{string(gatewayv1.ListenerSetReasonListenersNotValid), "no listener is programmed"}
	for _, l := range slices.Backward(s.entries) {
		switch {
		case l.programmed().ok():
			return verdict{}
		case l.valid() && !l.pending.ok():
			why = l.pending
		}
	}
	return why
}

// parentNotProgrammed is a reason that the API names and has no constant for.
const parentNotProgrammed gatewayv1.ListenerSetConditionReason = "ParentNotProgrammed"

// listenerSetStatus writes the status of a ListenerSet.
func (c *compiler) listenerSetStatus(s *listenerSet) {
	accepted := s.accepted()
	status := gatewayv1.ListenerSetStatus{Conditions: []metav1.Condition{
		accepted.conditionWithReason("Accepted", s.generation),
		s.programmed().condition("Programmed", "Programmed", s.generation),
	}}
	for _, l := range s.entries {
		status.Listeners = append(status.Listeners, gatewayv1.ListenerEntryStatus(l.status()))
	}
	set(&c.status.ListenerSets, s.ref.Key(), status)
}
