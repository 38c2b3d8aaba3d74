package status

import (
	"slices"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"
)

// verdicts is a list in a status with an entry for each object that another one is about, and in which each controller has entries of its own.
type verdicts struct {
	path    string                                    // of the list in the status
	ref     string                                    // the field of an entry that names the object
	limit   int                                       // how many the list can hold, those of all controllers together
	types   []string                                  // of the conditions in an entry
	tooMany string                                    // the code of the problem that there are more
	list    func([]gatewayv1.RouteParentStatus) []any // the entries in the form that the API has for them
}

// parents are the verdicts on a route, of any kind.
var parents = verdicts{
	path: "/parents", ref: "parentRef", limit: 32, types: parentTypes, tooMany: "TooManyParents",
	list: func(entries []gatewayv1.RouteParentStatus) []any {
		out := make([]any, len(entries))
		for i := range entries {
			out[i] = entries[i]
		}
		return out
	},
}

// ancestors are the verdicts on a policy.
var ancestors = verdicts{
	path: "/ancestors", ref: "ancestorRef", limit: 16, types: ancestorTypes, tooMany: "TooManyAncestors",
	list: func(entries []gatewayv1.RouteParentStatus) []any {
		out := make([]any, len(entries))
		for i, e := range entries {
			out[i] = gatewayv1.PolicyAncestorStatus{AncestorRef: e.ParentRef, ControllerName: e.ControllerName, Conditions: e.Conditions}
		}
		return out
	},
}

// gateways are the verdicts on a backend, by those that lead to it. The API calls them parents, and has entries for them that are written like those of routes.
var gateways = verdicts{
	path: "/parents", ref: "parentRef", limit: 32, types: ancestorTypes, tooMany: "TooManyParents", list: parents.list,
}

// route notes what turns the parents in the status of a route, which is of any kind and has the given generation, into want as far as they are the
// controller's.
func (c *change) route(controller gatewayv1.GatewayController, generation int64, have, want []gatewayv1.RouteParentStatus) {
	c.verdicts(&parents, controller, generation, have, want)
}

// policy does for the ancestors in the status of a policy what route does for parents.
func (c *change) policy(controller gatewayv1.GatewayController, generation int64, have, want []gatewayv1.PolicyAncestorStatus) {
	c.verdicts(&ancestors, controller, generation, entriesOfPolicy(have), entriesOfPolicy(want))
}

// backend does for the Gateways in the status of a backend what route does for parents.
func (c *change) backend(controller gatewayv1.GatewayController, generation int64, have, want []gatewayx.BackendAncestorStatus) {
	c.verdicts(&gateways, controller, generation, entriesOfBackend(have), entriesOfBackend(want))
}

// entriesOfBackend are the entries of a backend's status as those of a route, which have the same fields under other names.
func entriesOfBackend(list []gatewayx.BackendAncestorStatus) []gatewayv1.RouteParentStatus {
	out := make([]gatewayv1.RouteParentStatus, len(list))
	for i, a := range list {
		out[i] = gatewayv1.RouteParentStatus{ParentRef: a.AncestorRef, ControllerName: a.ControllerName, Conditions: a.Conditions}
	}
	return out
}

// entriesOfPolicy are the entries of a policy's status as those of a route, which have the same fields under other names.
func entriesOfPolicy(list []gatewayv1.PolicyAncestorStatus) []gatewayv1.RouteParentStatus {
	out := make([]gatewayv1.RouteParentStatus, len(list))
	for i, a := range list {
		out[i] = gatewayv1.RouteParentStatus{ParentRef: a.AncestorRef, ControllerName: a.ControllerName, Conditions: a.Conditions}
	}
	return out
}

// verdicts notes what turns a list of verdicts into want as far as they are the controller's. Entries of other controllers stay as and where they are; only if
// they leave no room is there none for us.
func (c *change) verdicts(in *verdicts, controller gatewayv1.GatewayController, generation int64, have, want []gatewayv1.RouteParentStatus) {
	if len(have) == 0 {
		if len(want) > 0 {
			c.whole = map[string]any{in.path[1:]: in.list(c.newEntries(controller, c.fitting(in, want, in.limit)))}
		}
		return
	}
	var gone []int
	var kept uint64 // bit j: want[j] is there; more than 64 cannot be
	for i := range have {
		if have[i].ControllerName != controller {
			continue
		}
		j := slices.IndexFunc(want, func(w gatewayv1.RouteParentStatus) bool { return c.sameParent(&w.ParentRef, &have[i].ParentRef) })
		if j < 0 || j >= 64 || kept&(1<<j) != 0 {
			gone = append(gone, i)
			continue
		}
		kept |= 1 << j
		c.verdict(in, entry(in.path, i), &have[i], &want[j], generation)
	}
	var missing []gatewayv1.RouteParentStatus
	for j := range want {
		if j >= 64 || kept&(1<<j) == 0 {
			missing = append(missing, want[j])
		}
	}
	for _, p := range in.list(c.newEntries(controller, c.fitting(in, missing, in.limit-len(have)+len(gone)))) {
		c.append(in.path, p)
	}
	c.remove(in.path, gone)
}

// fitting returns as many of the missing entries as there is room for.
func (c *change) fitting(in *verdicts, missing []gatewayv1.RouteParentStatus, room int) []gatewayv1.RouteParentStatus {
	if room = max(room, 0); len(missing) > room {
		c.complain(in.path, in.tooMany, "the status can hold %d %s, and other controllers take so many of them that %d of ours cannot be told there",
			in.limit, in.path[1:], len(missing)-room)
		return missing[:room]
	}
	return missing
}

// verdict notes what turns our entry for one object, which is at path, into want.
func (c *change) verdict(in *verdicts, path string, have, want *gatewayv1.RouteParentStatus, generation int64) {
	if !verbatim(&have.ParentRef, &want.ParentRef) {
		c.set(path+"/"+in.ref, want.ParentRef)
	}
	c.conditions(path+"/conditions", have.Conditions, want.Conditions, in.types, generation)
}

func (c *change) newEntries(controller gatewayv1.GatewayController, want []gatewayv1.RouteParentStatus) []gatewayv1.RouteParentStatus {
	out := make([]gatewayv1.RouteParentStatus, len(want))
	for i := range want {
		out[i] = gatewayv1.RouteParentStatus{
			ParentRef: want[i].ParentRef, ControllerName: controller, Conditions: Merge(nil, want[i].Conditions, c.now),
		}
	}
	return out
}

// sameParent tells whether two parentRefs mean the same.
func (c *change) sameParent(a, b *gatewayv1.ParentReference) bool {
	own := gatewayv1.Namespace(c.about.Namespace)
	return a.Name == b.Name && valueOr(a.Namespace, own) == valueOr(b.Namespace, own) &&
		valueOr(a.Group, gatewayv1.GroupName) == valueOr(b.Group, gatewayv1.GroupName) && valueOr(a.Kind, "Gateway") == valueOr(b.Kind, "Gateway") &&
		valueOr(a.SectionName, "") == valueOr(b.SectionName, "") && valueOr(a.Port, 0) == valueOr(b.Port, 0)
}

// verbatim tells whether two parentRefs are written the same way.
func verbatim(a, b *gatewayv1.ParentReference) bool {
	return a.Name == b.Name && samePointed(a.Namespace, b.Namespace) && samePointed(a.Group, b.Group) && samePointed(a.Kind, b.Kind) &&
		samePointed(a.SectionName, b.SectionName) && samePointed(a.Port, b.Port)
}

func samePointed[T comparable](a, b *T) bool {
	return a == b || a != nil && b != nil && *a == *b
}
