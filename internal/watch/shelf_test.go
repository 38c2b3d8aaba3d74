package watch

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// naive are EndpointSlices in a map, grouped each time that somebody asks: the obviously right twin of sliceShelf.
type naive map[object.Key]*discoveryv1.EndpointSlice

func (n naive) text() []string {
	groups := map[object.Key][]string{}
	for _, s := range n {
		if service := serviceOf(s); service.Name != "" {
			groups[service] = append(groups[service], s.Name+" "+s.Endpoints[0].Addresses[0])
		}
	}
	return groupText(groups)
}

func groupText(groups map[object.Key][]string) []string {
	var out []string
	for k, list := range groups {
		slices.Sort(list)
		out = append(out, fmt.Sprint(k, list))
	}
	slices.Sort(out)
	return out
}

func snapshotGroups(s *object.Snapshot) []string {
	groups := map[object.Key][]string{}
	for k, list := range s.EndpointSlices {
		if !slices.IsSortedFunc(list, func(a, b *discoveryv1.EndpointSlice) int { return cmpName(a.Name, b.Name) }) {
			return []string{"not sorted: " + k.String()}
		}
		for _, x := range list {
			groups[k] = append(groups[k], x.Name+" "+x.Endpoints[0].Addresses[0])
		}
		if len(list) == 0 {
			return []string{"a Service without slices: " + k.String()}
		}
	}
	return groupText(groups)
}

func cmpName(a, b string) int {
	if a < b {
		return -1
	}
	return 1
}

func FuzzSliceShelf(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 17, 34, 255, 128, 64})
	f.Fuzz(func(t *testing.T, ops []byte) {
		shelf, twin := &sliceShelf{}, naive{}
		var old *object.Snapshot
		var oldText []string
		for i, op := range ops {
			key := object.Key{Namespace: string('a' + rune(op&1)), Name: "s" + strconv.Itoa(int(op>>1&7))}
			if op>>4 == 0 {
				_, there := twin[key]
				delete(twin, key)
				if shelf.drop(key) != there {
					t.Fatal("drop does not know what was there")
				}
			} else {
				s := endpointSlice(key.Namespace, key.Name, []string{"", "x", "y", "z"}[op>>4&3], "10.0.0."+strconv.Itoa(int(op>>6)))
				s.ResourceVersion = strconv.Itoa(i)
				twin[key] = s
				shelf.put(s)
			}
			snap := &object.Snapshot{}
			if op%3 == 0 {
				continue // changes between two snapshots
			}
			shelf.fill(snap)
			if diff := cmp.Diff(twin.text(), snapshotGroups(snap)); diff != "" {
				t.Fatalf("after %d: %s", i, diff)
			}
			if old != nil && !slices.Equal(oldText, snapshotGroups(old)) {
				t.Fatal("a snapshot that was handed out has changed")
			}
			old, oldText = snap, snapshotGroups(snap)
		}
		if n := len(slices.Collect(shelf.all())); n != len(twin) {
			t.Fatalf("%d slices, want %d", n, len(twin))
		}
	})
}

func TestShelfSharesWhatDoesNotChange(t *testing.T) {
	p := namespaced(false, func(s *object.Snapshot) *map[object.Key]*corev1.Service { return &s.Services })
	fill := func() map[object.Key]*corev1.Service {
		s := &object.Snapshot{}
		p.fill(s)
		return s.Services
	}
	if got := fill(); got == nil || len(got) != 0 {
		t.Error("an empty shelf")
	}
	one := service("a", "one")
	one.ResourceVersion = "1"
	if !p.put(one) || p.put(one.DeepCopy()) {
		t.Error("put has to tell a new version from the same")
	}
	first := fill()
	if !sameMap(first, fill()) {
		t.Error("nothing changed, but it was copied")
	}
	two := service("a", "two")
	p.put(two)
	second := fill()
	if len(first) != 1 || len(second) != 2 || second[object.KeyOf(one)] != one {
		t.Errorf("first %v, second %v", first, second)
	}
	if p.drop(object.Key{Namespace: "a", Name: "three"}) || !sameMap(second, fill()) {
		t.Error("nothing was dropped, but something changed")
	}
	if p.put(&corev1.Secret{}) {
		t.Error("an object of another kind was put")
	}
}

// sameMap reports whether two maps are one.
func sameMap[K comparable, V any](a, b map[K]V) bool {
	return fmt.Sprintf("%p", a) == fmt.Sprintf("%p", b)
}

func TestLayers(t *testing.T) {
	l := &layered[*corev1.Secret]{plain: namespaced(true, func(s *object.Snapshot) *map[object.Key]*corev1.Secret { return &s.Secrets })}
	fill := func() map[object.Key]*corev1.Secret {
		s := &object.Snapshot{}
		l.fill(s)
		return s.Secrets
	}
	above, beneath, below := secret("a", "x", "above"), secret("a", "x", "beneath"), secret("a", "y", "beneath")
	l.put(above)
	l.lay(map[object.Key]*corev1.Secret{object.KeyOf(beneath): beneath, object.KeyOf(below): below})
	first := fill()
	if len(first) != 2 || first[object.KeyOf(above)] != above || !sameMap(first, fill()) {
		t.Errorf("got %v", first)
	}
	l.drop(object.KeyOf(above))
	if got := fill(); got[object.KeyOf(above)] != beneath || first[object.KeyOf(above)] != above {
		t.Errorf("got %v", got)
	}
	l.lay(nil)
	if got := fill(); len(got) != 0 || len(slices.Collect(maps.Keys(first))) != 2 {
		t.Errorf("got %v", got)
	}
}
