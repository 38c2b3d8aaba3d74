package object

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// "The oldest Route based on creation timestamp. … The Route appearing first in alphabetical order by "{namespace}/{name}"."
func TestOlder(t *testing.T) {
	service := func(namespace, name string, age int) *corev1.Service {
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
		if age > 0 {
			s.CreationTimestamp = metav1.NewTime(time.Date(2026, 1, 1, 0, 0, -age, 0, time.UTC))
		}
		return s
	}
	want := []*corev1.Service{
		service("a", "folder", 0), service("z", "old", 2), service("shop-canary", "x", 1), service("shop", "a", 1), service("shop", "b", 1),
	}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, func(a, b *corev1.Service) int { return Older(a, b) })
	if !slices.Equal(got, want) {
		for _, s := range got {
			t.Log(KeyOf(s))
		}
		t.Error("wrong order")
	}
}

func TestSorted(t *testing.T) {
	m := map[Key]int{{"b", "a"}: 2, {"a", "b"}: 1, {"a", "a"}: 0}
	if got := Sorted(m); !slices.Equal(got, []int{0, 1, 2}) {
		t.Errorf("got %v", got)
	}
}

func TestSameRoutes(t *testing.T) {
	svc := &corev1.Service{}
	a := &Snapshot{Services: map[Key]*corev1.Service{{"a", "a"}: svc}}
	b := &Snapshot{Services: map[Key]*corev1.Service{{"a", "a"}: svc}, EndpointSlices: map[Key][]*discoveryv1.EndpointSlice{{"a", "a"}: {{}}}}
	if !a.SameRoutes(b) {
		t.Error("snapshots that differ in endpoints only have the same routes")
	}
	b.Services = map[Key]*corev1.Service{{"a", "a"}: svc.DeepCopy()}
	if a.SameRoutes(b) || (*Snapshot)(nil).SameRoutes(b) {
		t.Error("another Service object is another snapshot")
	}
}
