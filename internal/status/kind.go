package status

import (
	"context"
	"iter"
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairlead-io/fairlead/internal/compile"
	"github.com/fairlead-io/fairlead/internal/object"
)

// fieldManager is who the API server notes as the one who wrote our fields.
const fieldManager = "fairlead"

// kind is one kind of object whose status is written. Objects and statuses of any are those of its type.
type kind struct {
	name  string
	first bool // it does not wait for the others, unless only counts changed
	// duties yields each object that there is something to say about, and what.
	duties func(s *object.Snapshot, want *compile.Status) iter.Seq2[metav1.Object, any]
	// compare notes in c what turns the status of an object into what is wanted.
	compare func(c *change, have metav1.Object, want any)
	get     func(ctx context.Context, key object.Key) (metav1.Object, error)
	patch   func(ctx context.Context, key object.Key, typ types.PatchType, body []byte) (metav1.Object, error)
}

// client is what a generated client can do that is needed here.
type client[O any] interface {
	Get(ctx context.Context, name string, opts metav1.GetOptions) (O, error)
	Patch(ctx context.Context, name string, typ types.PatchType, body []byte, opts metav1.PatchOptions, subresources ...string) (O, error)
}

// stored is an object that has a status.
type stored interface {
	comparable
	metav1.Object
}

// newKind makes a kind of its client, its objects and their statuses among all that there are, which of them to look at, and how to compare.
func newKind[K comparable, O stored, S any, C client[O]](
	name string, open func(namespace string) C, pick func(*object.Snapshot, *compile.Status) (map[K]O, map[K]S),
	which func(map[K]O, map[K]S) iter.Seq2[metav1.Object, any], compare func(*change, O, S),
) *kind {
	return &kind{
		name: name,
		duties: func(s *object.Snapshot, want *compile.Status) iter.Seq2[metav1.Object, any] {
			return which(pick(s, want))
		},
		compare: func(c *change, have metav1.Object, want any) {
			compare(c, have.(O), want.(S)) // they come from duties, get and patch of this very kind
		},
		get: func(ctx context.Context, key object.Key) (metav1.Object, error) {
			return open(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
		},
		patch: func(ctx context.Context, key object.Key, typ types.PatchType, body []byte) (metav1.Object, error) {
			return open(key.Namespace).Patch(ctx, key.Name, typ, body, metav1.PatchOptions{FieldManager: fieldManager}, "status")
		},
	}
}

// wanted yields the objects that have a status in want. The status of all others is none of our business.
func wanted[K comparable, O stored, S any](objects map[K]O, want map[K]S) iter.Seq2[metav1.Object, any] {
	return func(yield func(metav1.Object, any) bool) {
		var none O
		for key, status := range want {
			if o := objects[key]; o != none && !yield(o, status) {
				return
			}
		}
	}
}

// all yields every object, those that have no status in want too: there may be something of ours in theirs that has to go.
func all[K comparable, O stored, S any](objects map[K]O, want map[K]S) iter.Seq2[metav1.Object, any] {
	return func(yield func(metav1.Object, any) bool) {
		var none O
		for key, o := range objects {
			if o != none && !yield(o, want[key]) {
				return
			}
		}
	}
}

// sameStatus tells whether two statuses of one kind are the same.
func sameStatus(a, b any) bool { return reflect.DeepEqual(a, b) }
