package status

import (
	"cmp"
	"slices"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// gatewayClass notes what turns the status of a GatewayClass into want.
func (c *change) gatewayClass(o *gatewayv1.GatewayClass, want gatewayv1.GatewayClassStatus) {
	have := &o.Status
	features := want.SupportedFeatures
	if byName := func(a, b gatewayv1.SupportedFeature) int { return cmp.Compare(a.Name, b.Name) }; !slices.IsSortedFunc(features, byName) {
		features = slices.SortedFunc(slices.Values(features), byName)
	}
	if len(have.Conditions) == 0 && len(have.SupportedFeatures) == 0 {
		if len(want.Conditions)+len(features) > 0 {
			c.whole = gatewayv1.GatewayClassStatus{Conditions: Merge(nil, want.Conditions, c.now), SupportedFeatures: features}
		}
		return
	}
	c.conditions("/conditions", have.Conditions, want.Conditions, classTypes, o.Generation)
	if !slices.Equal(have.SupportedFeatures, features) {
		setList(c, "/supportedFeatures", features)
	}
}

// gateway notes what turns the status of a Gateway into want.
func (c *change) gateway(o *gatewayv1.Gateway, want gatewayv1.GatewayStatus) {
	have := &o.Status
	if len(have.Conditions) == 0 && len(have.Listeners) == 0 && len(have.Addresses) == 0 && have.AttachedListenerSets == nil {
		want.Conditions = Merge(nil, want.Conditions, c.now)
		want.Listeners = c.newListeners(want.Listeners)
		c.whole = want
		return
	}
	c.conditions("/conditions", have.Conditions, want.Conditions, gatewayTypes, o.Generation)
	c.listeners(have.Listeners, want.Listeners, o.Generation)
	if !slices.EqualFunc(have.Addresses, want.Addresses, sameAddress) {
		setList(c, "/addresses", want.Addresses)
	}
	switch sets := want.AttachedListenerSets; {
	case sets != nil && (have.AttachedListenerSets == nil || *have.AttachedListenerSets != *sets):
		c.count("/attachedListenerSets", *sets)
	case sets == nil && have.AttachedListenerSets != nil:
		c.unset("/attachedListenerSets")
	}
}

// listenerSet notes what turns the status of a ListenerSet into want.
func (c *change) listenerSet(o *gatewayv1.ListenerSet, want gatewayv1.ListenerSetStatus) {
	have := entriesOf(o.Status.Listeners)
	if len(o.Status.Conditions) == 0 && len(have) == 0 {
		fresh := gatewayv1.ListenerSetStatus{Conditions: Merge(nil, want.Conditions, c.now)}
		for _, l := range c.newListeners(entriesOf(want.Listeners)) {
			fresh.Listeners = append(fresh.Listeners, gatewayv1.ListenerEntryStatus(l))
		}
		c.whole = fresh
		return
	}
	c.conditions("/conditions", o.Status.Conditions, want.Conditions, setTypes, o.Generation)
	c.listeners(have, entriesOf(want.Listeners), o.Generation)
}

// entriesOf are the entries of a ListenerSet's status as those of a Gateway, which have the same fields.
func entriesOf(list []gatewayv1.ListenerEntryStatus) []gatewayv1.ListenerStatus {
	out := make([]gatewayv1.ListenerStatus, len(list))
	for i := range list {
		out[i] = gatewayv1.ListenerStatus(list[i])
	}
	return out
}

// setList sets a list that differs from what is there.
func setList[E any](c *change, path string, want []E) {
	if len(want) == 0 {
		c.unset(path)
		return
	}
	c.set(path, want)
}

func sameAddress(a, b gatewayv1.GatewayStatusAddress) bool {
	return a.Value == b.Value && valueOr(a.Type, gatewayv1.IPAddressType) == valueOr(b.Type, gatewayv1.IPAddressType)
}

// valueOr returns what p points to, or def if it is nil.
func valueOr[T any](p *T, def T) T {
	if p == nil {
		return def
	}
	return *p
}

const listeners = "/listeners"

// listeners notes what turns the entries of the listeners into want: those that are there are changed where they differ, what others have put into them stays.
func (c *change) listeners(have, want []gatewayv1.ListenerStatus, generation int64) {
	if len(have) == 0 {
		if len(want) > 0 {
			c.set(listeners, c.newListeners(want))
		}
		return
	}
	var gone []int
	names := make([]gatewayv1.SectionName, 0, 64) // 64 is the most listeners a Gateway can have
	for i := range have {
		j := slices.IndexFunc(want, func(w gatewayv1.ListenerStatus) bool { return w.Name == have[i].Name })
		if j < 0 {
			gone = append(gone, i)
			continue
		}
		names = append(names, have[i].Name)
		c.listener(entry(listeners, i), &have[i], &want[j], generation)
	}
	c.remove(listeners, gone)
	c.arrange(names, want)
}

// arrange adds the listeners that are not among names, which are there, and puts all into the order of want. The API does not care for the order, so that this
// alone is no reason to write.
func (c *change) arrange(names []gatewayv1.SectionName, want []gatewayv1.ListenerStatus) {
	if c.empty() && len(names) == len(want) {
		return
	}
	for i := range want {
		switch at := slices.Index(names, want[i].Name); {
		case at < 0:
			c.insert(listeners, i, c.newListener(want[i]))
			names = slices.Insert(names, i, want[i].Name)
		case at != i:
			c.move(listeners, at, i)
			names = slices.Insert(slices.Delete(names, at, at+1), i, want[i].Name)
		}
	}
}

// listener notes what turns the entry of one listener, which is at path, into want.
func (c *change) listener(path string, have, want *gatewayv1.ListenerStatus, generation int64) {
	if !slices.EqualFunc(have.SupportedKinds, want.SupportedKinds, sameKind) {
		c.set(path+"/supportedKinds", emptyNotNil(want.SupportedKinds))
	}
	if have.AttachedRoutes != want.AttachedRoutes {
		c.count(path+"/attachedRoutes", want.AttachedRoutes)
	}
	c.conditions(path+"/conditions", have.Conditions, want.Conditions, listenerTypes, generation)
}

func sameKind(a, b gatewayv1.RouteGroupKind) bool {
	return a.Kind == b.Kind && valueOr(a.Group, gatewayv1.GroupName) == valueOr(b.Group, gatewayv1.GroupName)
}

func (c *change) newListeners(want []gatewayv1.ListenerStatus) []gatewayv1.ListenerStatus {
	out := make([]gatewayv1.ListenerStatus, len(want))
	for i := range want {
		out[i] = c.newListener(want[i])
	}
	return out
}

// newListener returns the entry of a listener that has none yet.
func (c *change) newListener(want gatewayv1.ListenerStatus) gatewayv1.ListenerStatus {
	want.SupportedKinds = emptyNotNil(want.SupportedKinds)
	want.Conditions = Merge(nil, want.Conditions, c.now)
	return want
}

// emptyNotNil returns list, and for one that is nil an empty one: JSON tells them apart, and older versions of the API want a list.
func emptyNotNil[E any](list []E) []E {
	if list == nil {
		return []E{}
	}
	return list
}
