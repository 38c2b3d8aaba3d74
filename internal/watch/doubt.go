package watch

import (
	"log/slog"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// enough is how many routes, or endpoints, have to be at stake before a list is doubted.
const enough = 10

// doubt is a list that is not believed yet, kept up to date, and until when. The zero value is no doubt.
type doubt struct {
	items map[object.Key]metav1.Object
	until time.Time
}

// judge decides whether a list can be believed. If not, it keeps the list and returns what tells the operator. c.mu is held.
func (s *source) judge(items map[object.Key]metav1.Object) (note func()) {
	if s.c.opt.Hold < 0 || !s.synced {
		return nil
	}
	before, after := s.weigh(items)
	again := s.doubt.items != nil
	if again && after >= before || !again && !s.suspicious(before, after) {
		return nil
	}
	if s.doubt.items = items; again {
		return func() {}
	}
	s.doubt.until = s.c.opt.Now().Add(s.c.opt.Hold)
	attrs := []any{slog.String("kind", s.kind.name), slog.Int("before", before), slog.Int("listed", after), slog.Duration("hold", s.c.opt.Hold)}
	if s.namespace != "" {
		attrs = append(attrs, slog.String("namespace", s.namespace))
	}
	return func() {
		s.c.log.Error("the API server lists less than half of what was there; it is not believed for now, what was there keeps serving", attrs...)
	}
}

// suspicious reports whether so much less than before is more likely an accident of the API server than what somebody wants.
func (s *source) suspicious(before, after int) bool {
	lost := before - after
	switch {
	case lost*2 <= before:
		return false
	case s.kind.role != support && lost >= enough:
		return true
	case s.kind.role == support:
		return s.c.routes() >= enough
	}
	return after == 0 && s.c.routes() >= enough
}

// weigh says how much there is of this kind and how much is listed: objects, or the endpoints of Services that there are.
func (s *source) weigh(items map[object.Key]metav1.Object) (before, after int) {
	for o := range s.all() {
		before += s.weight(o)
	}
	for _, o := range items {
		after += s.weight(o)
	}
	return before, after
}

func (s *source) weight(o metav1.Object) int {
	slice, ok := o.(*discoveryv1.EndpointSlice)
	if !ok {
		return 1
	}
	if !s.c.services.has(serviceOf(slice)) {
		return 0
	}
	return len(slice.Endpoints)
}

// routes counts the routes of all kinds. c.mu is held.
func (c *Cluster) routes() int {
	n := 0
	for _, k := range c.kinds {
		if k.role != routes {
			continue
		}
		for range k.shelf.all() {
			n++
		}
	}
	return n
}

// resolve believes a list whose time has come, or that has all of what was lost again. It returns what tells the operator. c.mu is held.
func (s *source) resolve(now time.Time) (note func()) {
	if s.doubt.items == nil {
		return nil
	}
	before, after := s.weigh(s.doubt.items)
	due := !now.Before(s.doubt.until)
	if !due && after < before {
		return nil
	}
	s.accept(s.doubt.items)
	return func() {
		s.c.log.Warn("the list of the API server is believed now", "kind", s.kind.name, "before", before, "listed", after)
	}
}
