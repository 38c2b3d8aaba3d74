package compile

import (
	"slices"
	"time"

	"github.com/fairlead-io/fairlead/internal/object"
)

// parent is an object with listeners, to which routes attach, while it is compiled. What its listeners say is relative to it: the namespace that Same means and
// that of Secrets, and who asks for grants.
type parent struct {
	ref        object.Ref
	generation int64
	gateway    *gateway    // at whose addresses the listeners are served
	since      time.Time   // it asks for what its listeners need
	admitted   verdict     // whether its Gateway lets it add listeners
	entries    []*listener // that stand in it; none when it is not admitted
	wish       wish        // where its annotations say that certificates should come from
}

// added tells whether the listeners do not stand in the Gateway itself.
func (p *parent) added() bool { return p.ref != p.gateway.ref }

// inPrecedence returns the parents in the order in which they get what their listeners ask for: the older comes first, a Gateway before what is added to it.
// Whatever is added to a Gateway has asked for nothing as long as that did not exist.
func inPrecedence(gateways []*gateway) []*parent {
	var out []*parent
	for _, g := range gateways {
		out = append(out, &g.parent)
		for _, s := range g.sets {
			out = append(out, &s.parent)
		}
	}
	slices.SortStableFunc(out, func(a, b *parent) int { return a.since.Compare(b.since) })
	return out
}

// parents are those that are ours.
type parents map[object.Ref]*parent
