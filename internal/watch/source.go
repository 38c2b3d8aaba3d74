package watch

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"

	"github.com/fairlead-io/fairlead/internal/object"
)

// source is where the objects of one kind, in one namespace or in all, come from. It is the store that a reflector keeps up to date.
type source struct {
	c         *Cluster
	kind      *kind
	namespace string // "" for all

	// The rest is guarded by Cluster.mu.
	synced   bool // all that there is is on the shelf
	degraded bool // synced, because it may not be read
	doubt    doubt
	health   health
}

// run watches until ctx ends.
func (s *source) run(ctx context.Context, version string) {
	api := &session{source: s, client: s.kind.open(s.namespace, version)}
	reflector := cache.NewReflectorWithOptions(
		&cache.ListWatch{ListWithContextFunc: api.listAll, WatchFuncWithContext: api.watchAll}, api.client.example, s,
		cache.ReflectorOptions{
			Name:            "fairlead",
			TypeDescription: s.kind.name,
			// The longest wait is how much later than an API server that comes back its changes do; it is not so short that thousands who wait are a burden.
			Backoff: &wait.Backoff{Duration: 250 * time.Millisecond, Factor: 2, Steps: 10, Cap: 5 * time.Second, Jitter: 0.5},
		},
	)
	reflector.RunWithContext(ctx)
}

// Transformer trims objects before the reflector keeps them, too.
func (s *source) Transformer() cache.TransformFunc { return trim }

// Add is called for an object that is new.
func (s *source) Add(obj any) error { return s.event(Add, obj, s.put) }

// Update is called for an object that has changed.
func (s *source) Update(obj any) error { return s.event(Update, obj, s.put) }

// Delete is called for an object that is gone.
func (s *source) Delete(obj any) error { return s.event(Delete, obj, s.drop) }

// Resync has nothing to do.
func (s *source) Resync() error { return nil }

func (s *source) event(what Event, obj any, apply func(metav1.Object) bool) error {
	o, err := trimmed(obj)
	if err != nil {
		return err
	}
	s.c.opt.Hooks.Event(s.kind.name, what)
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if apply(o) {
		s.c.changed(s.kind)
	}
	return nil
}

func (s *source) put(o metav1.Object) bool {
	if s.doubt.items != nil {
		s.doubt.items[object.KeyOf(o)] = o
	}
	return s.kind.shelf.put(o)
}

func (s *source) drop(o metav1.Object) bool {
	key := object.KeyOf(o)
	delete(s.doubt.items, key)
	s.c.missed(s.kind)
	return s.kind.shelf.drop(key)
}

// Replace is called with everything that there is, after a list.
func (s *source) Replace(list []any, _ string) error {
	items := make(map[object.Key]metav1.Object, len(list))
	for _, obj := range list {
		o, err := trimmed(obj)
		if err != nil {
			return err
		}
		items[object.KeyOf(o)] = o
	}
	s.replace(items)
	return nil
}

// replace takes items for all that there is, unless that is hard to believe.
func (s *source) replace(items map[object.Key]metav1.Object) {
	s.c.opt.Hooks.Event(s.kind.name, List)
	s.c.mu.Lock()
	note := s.judge(items)
	s.returned()
	if note == nil {
		s.accept(items)
	}
	s.healthy()
	s.c.mu.Unlock()
	if note != nil {
		note()
	}
}

// accept makes the shelf hold items, and nothing else of this source. c.mu is held.
func (s *source) accept(items map[object.Key]metav1.Object) {
	changed := false
	var gone []object.Key
	for o := range s.all() {
		if key := object.KeyOf(o); items[key] == nil {
			gone = append(gone, key)
		}
	}
	for _, key := range gone {
		changed = s.kind.shelf.drop(key) || changed
	}
	for _, o := range items {
		changed = s.kind.shelf.put(o) || changed
	}
	s.doubt = doubt{}
	s.complete(false)
	if len(gone) > 0 {
		s.c.missed(s.kind)
	}
	if changed {
		s.c.changed(s.kind)
	}
}

// all are the objects on the shelf that are this source's. c.mu is held.
func (s *source) all() func(func(metav1.Object) bool) {
	return func(yield func(metav1.Object) bool) {
		for o := range s.kind.shelf.all() {
			if (s.namespace == "" || o.GetNamespace() == s.namespace) && !yield(o) {
				return
			}
		}
	}
}

// complete notes that all there is, or may be read, is on the shelf. c.mu is held.
func (s *source) complete(degraded bool) {
	s.degraded = degraded
	if !s.synced {
		s.synced = true
		s.c.check()
	}
}

// degrade does without a kind that may not be read. c.mu is held.
func (s *source) degrade() {
	if s.kind.name == "namespaces" {
		// Everybody who may watch a namespace knows its name, and that the API server labels it with that.
		for _, name := range s.c.opt.Namespaces {
			s.kind.shelf.put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelMetadataName: name}}})
		}
	}
	s.complete(true)
}

// trimmed is trim for an object that must be one.
func trimmed(obj any) (metav1.Object, error) {
	out, err := trim(obj)
	if err != nil {
		return nil, err
	}
	o, ok := out.(metav1.Object)
	if !ok {
		return nil, fmt.Errorf("store object: %T is none", obj)
	}
	return o, nil
}
