package watch

import (
	"cmp"
	"iter"
	"maps"
	"reflect"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// shelf holds the objects of one kind.
type shelf interface {
	// put adds or replaces an object and reports whether the picture is another one now.
	put(metav1.Object) bool
	// drop removes an object and reports whether it was there.
	drop(object.Key) bool
	// all are the objects that were put, in no order. The shelf must not be changed meanwhile.
	all() iter.Seq[metav1.Object]
	// fill hands the objects out.
	fill(to *object.Snapshot)
	// keep hands out what an earlier snapshot has.
	keep(to, from *object.Snapshot)
}

// lending is a map that is handed out without a copy. Whoever has it keeps it unchanged: the next change is made to a copy.
type lending[K comparable, V any] struct {
	m    map[K]V
	lent bool
}

func (l *lending[K, V]) own() map[K]V {
	if l.lent {
		l.m, l.lent = maps.Clone(l.m), false
	}
	if l.m == nil {
		l.m = map[K]V{}
	}
	return l.m
}

func (l *lending[K, V]) lend() map[K]V {
	if l.m == nil {
		l.m = map[K]V{}
	}
	l.lent = true
	return l.m
}

// plain is the shelf of a kind that the snapshot has as a map of objects.
type plain[K comparable, T metav1.Object] struct {
	items lending[K, T]
	key   func(object.Key) K
	field func(*object.Snapshot) *map[K]T
	// quiet says that an object with another resourceVersion and nothing else is no other object. It must not be so for kinds that Fairlead writes, because
	// whoever writes an object has to know its version.
	quiet bool
}

func namespaced[T metav1.Object](quiet bool, field func(*object.Snapshot) *map[object.Key]T) *plain[object.Key, T] {
	return &plain[object.Key, T]{key: func(k object.Key) object.Key { return k }, field: field, quiet: quiet}
}

func global[T metav1.Object](quiet bool, field func(*object.Snapshot) *map[string]T) *plain[string, T] {
	return &plain[string, T]{key: func(k object.Key) string { return k.Name }, field: field, quiet: quiet}
}

func (p *plain[K, T]) put(obj metav1.Object) bool {
	next, ok := obj.(T)
	if !ok {
		return false
	}
	k := p.key(object.KeyOf(next))
	if old, ok := p.items.m[k]; ok && (sameVersion(old, next) || p.quiet && sameContent(old, next)) {
		return false
	}
	p.items.own()[k] = next
	return true
}

func (p *plain[K, T]) has(key object.Key) bool {
	_, ok := p.items.m[p.key(key)]
	return ok
}

func (p *plain[K, T]) drop(key object.Key) bool {
	if !p.has(key) {
		return false
	}
	delete(p.items.own(), p.key(key))
	return true
}

func (p *plain[K, T]) all() iter.Seq[metav1.Object] { return objects(p.items.m) }

func objects[K comparable, T metav1.Object](m map[K]T) iter.Seq[metav1.Object] {
	return func(yield func(metav1.Object) bool) {
		for _, obj := range m {
			if !yield(obj) {
				return
			}
		}
	}
}

func (p *plain[K, T]) fill(to *object.Snapshot)       { *p.field(to) = p.items.lend() }
func (p *plain[K, T]) keep(to, from *object.Snapshot) { *p.field(to) = *p.field(from) }

// sameVersion reports whether two objects are the same state of the same object.
func sameVersion(a, b metav1.Object) bool {
	return a.GetResourceVersion() != "" && a.GetResourceVersion() == b.GetResourceVersion() && a.GetUID() == b.GetUID()
}

// sameContent reports whether b has nothing that a does not have, but for the version. It leaves b as it was.
func sameContent(a, b metav1.Object) bool {
	version := b.GetResourceVersion()
	b.SetResourceVersion(a.GetResourceVersion())
	defer b.SetResourceVersion(version)
	return reflect.DeepEqual(a, b)
}

// layered is a plain shelf with objects from another source beneath: what is missing on the shelf is looked for there.
type layered[T metav1.Object] struct {
	*plain[object.Key, T]
	beneath map[object.Key]T
	merged  map[object.Key]T // nil if it has to be made
}

func (l *layered[T]) put(obj metav1.Object) bool {
	changed := l.plain.put(obj)
	if changed {
		l.merged = nil
	}
	return changed
}

func (l *layered[T]) drop(key object.Key) bool {
	dropped := l.plain.drop(key)
	if dropped {
		l.merged = nil
	}
	return dropped
}

// lay replaces what is beneath. It takes ownership of the map.
func (l *layered[T]) lay(beneath map[object.Key]T) { l.beneath, l.merged = beneath, nil }

func (l *layered[T]) fill(to *object.Snapshot) {
	if len(l.beneath) == 0 {
		l.plain.fill(to)
		return
	}
	if l.merged == nil {
		l.merged = maps.Clone(l.beneath)
		maps.Copy(l.merged, l.items.m)
	}
	*l.field(to) = l.merged
}

// sliceShelf is the shelf of EndpointSlices, which the snapshot has by Service.
type sliceShelf struct {
	items     map[object.Key]*discoveryv1.EndpointSlice
	byService lending[object.Key, []*discoveryv1.EndpointSlice]
}

func (s *sliceShelf) put(obj metav1.Object) bool {
	next, ok := obj.(*discoveryv1.EndpointSlice)
	if !ok {
		return false
	}
	key := object.KeyOf(next)
	old, known := s.items[key]
	if known && (sameVersion(old, next) || sameContent(old, next)) {
		return false
	}
	if s.items == nil {
		s.items = map[object.Key]*discoveryv1.EndpointSlice{}
	}
	s.items[key] = next
	if known && serviceOf(old) != serviceOf(next) {
		s.setService(old, nil)
	}
	s.setService(next, next)
	return true
}

func (s *sliceShelf) drop(key object.Key) bool {
	old, ok := s.items[key]
	if ok {
		delete(s.items, key)
		s.setService(old, nil)
	}
	return ok
}

// setService makes a new list of the Service that slice belongs to, with next, if it is not nil, in the place of the slice of that name.
func (s *sliceShelf) setService(slice, next *discoveryv1.EndpointSlice) {
	service := serviceOf(slice)
	if service.Name == "" {
		return // belongs to no Service; nobody will ask for it
	}
	old := s.byService.m[service]
	at, found := slices.BinarySearchFunc(old, slice.Name, func(x *discoveryv1.EndpointSlice, name string) int { return cmp.Compare(x.Name, name) })
	after := at
	if found {
		after++
	}
	list := make([]*discoveryv1.EndpointSlice, 0, len(old)+1)
	list = append(list, old[:at]...)
	if next != nil {
		list = append(list, next)
	}
	list = append(list, old[after:]...)
	if len(list) == 0 {
		delete(s.byService.own(), service)
		return
	}
	s.byService.own()[service] = list
}

func serviceOf(s *discoveryv1.EndpointSlice) object.Key {
	return object.Key{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}
}

func (s *sliceShelf) all() iter.Seq[metav1.Object]   { return objects(s.items) }
func (s *sliceShelf) fill(to *object.Snapshot)       { to.EndpointSlices = s.byService.lend() }
func (s *sliceShelf) keep(to, from *object.Snapshot) { to.EndpointSlices = from.EndpointSlices }
