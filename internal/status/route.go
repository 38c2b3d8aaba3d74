package status

import (
	"slices"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// maxParents is how many parents the status of a route can hold, those of all controllers together.
const maxParents = 32

const parents = "/parents"

// route notes what turns the parents in the status of a route, which is of any kind and has the given generation, into want as far as they are the
// controller's. Entries of other controllers stay as and where they are; only if they leave no room is there none for us.
func (c *change) route(controller gatewayv1.GatewayController, generation int64, have, want []gatewayv1.RouteParentStatus) {
	if len(have) == 0 {
		if len(want) > 0 {
			c.whole = gatewayv1.RouteStatus{Parents: c.newParents(controller, c.fitting(want, maxParents))}
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
		c.parent(entry(parents, i), &have[i], &want[j], generation)
	}
	var missing []gatewayv1.RouteParentStatus
	for j := range want {
		if j >= 64 || kept&(1<<j) == 0 {
			missing = append(missing, want[j])
		}
	}
	for _, p := range c.newParents(controller, c.fitting(missing, maxParents-len(have)+len(gone))) {
		c.append(parents, p)
	}
	c.remove(parents, gone)
}

// fitting returns as many of the missing parents as there is room for.
func (c *change) fitting(missing []gatewayv1.RouteParentStatus, room int) []gatewayv1.RouteParentStatus {
	if room = max(room, 0); len(missing) > room {
		c.complain(parents, "TooManyParents", "the status can hold %d parents, and other controllers take so many of them that %d of ours cannot be told there",
			maxParents, len(missing)-room)
		return missing[:room]
	}
	return missing
}

// parent notes what turns our entry for one parent, which is at path, into want.
func (c *change) parent(path string, have, want *gatewayv1.RouteParentStatus, generation int64) {
	if !verbatim(&have.ParentRef, &want.ParentRef) {
		c.set(path+"/parentRef", want.ParentRef)
	}
	c.conditions(path+"/conditions", have.Conditions, want.Conditions, parentTypes, generation)
}

func (c *change) newParents(controller gatewayv1.GatewayController, want []gatewayv1.RouteParentStatus) []gatewayv1.RouteParentStatus {
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
