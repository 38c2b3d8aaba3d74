package compile

import (
	"github.com/fairlead-io/fairlead/internal/object"
)

// parent is an object with listeners, to which routes attach, while it is compiled. What its listeners say is relative to it: the namespace that Same means and
// that of Secrets, and who asks for grants.
type parent struct {
	ref        object.Ref
	generation int64
	gateway    *gateway    // at whose addresses the listeners are served
	entries    []*listener // that stand in it
}

// parents are those that are ours.
type parents map[object.Ref]*parent
