package backend

import (
	"cmp"
	"slices"

	"github.com/fairlead-io/fairlead/internal/route"
)

// list is the endpoints of a pool as requests see them. It is immutable.
type list struct {
	all   []*endpoint // by hash
	turns []*endpoint // whose turn it is, in a cycle: those that are not left out, or all if all are
	out   []*endpoint // left out for failing
	near  []*endpoint // those that may be used, healthy or not: all, unless some are preferred for being near
	in    []*endpoint // those of near that are not left out, or all if all are

	// offset is added to the pool's cursor to find the place in the cycle.
	offset uint64

	policy route.Policy
	care   route.Care
	hasher hasher
	next   picker // the algorithm of the policy
	names  func() map[name]*endpoint
	// refused says why none of them may be connected to; nil when they may.
	refused error
}

// emptyList returns a list without endpoints.
func emptyList() *list {
	return &list{next: random{}, names: func() map[name]*endpoint { return nil }}
}

// maxTurns bounds the length of the cycle that weights lead to, beyond what each endpoint's one turn takes.
const maxTurns = 1 << 14

// newList makes a list of all endpoints, which are sorted by hash. The caller holds the pool's mu.
func newList(all []*endpoint, o *route.Outlier) *list {
	l := &list{all: all, near: nearest(all)}
	l.out = only(all, func(e *endpoint) bool { return e.out })
	l.in = l.near
	if len(l.out) > 0 {
		l.in = inUse(l.near, panicLimit(o))
	}
	l.turns = cycle(l.in)
	return l
}

// inUse returns the endpoints that are not left out. If they are less than limit percent of those that can be reached, the pool panics: the ones that fail are used as well, because
// the others would break down under what they had to do. If none can be reached all are. The caller holds the pool's mu.
func inUse(near []*endpoint, limit int) []*endpoint {
	healthy := only(near, func(e *endpoint) bool { return !e.out })
	reachable := only(near, func(e *endpoint) bool { return !e.out || e.sick || e.why != unreachable })
	switch {
	case len(reachable) == 0:
		return near
	case len(healthy) == 0 && limit > 0, 100*len(healthy) < limit*len(reachable):
		return reachable
	case len(healthy) == 0:
		return near
	}
	return healthy
}

// only returns the endpoints for which ok is true, in a new slice.
func only(all []*endpoint, ok func(*endpoint) bool) (out []*endpoint) {
	for _, e := range all {
		if ok(e) {
			out = append(out, e)
		}
	}
	return out
}

// nearest returns the endpoints up to the least distance at which at least half are not left out for failing. So a zone that loses most of its endpoints gets help from
// the next before the rest of them break down, and one that has none does without. The caller holds the pool's mu.
func nearest(all []*endpoint) []*endpoint {
	most := uint8(0)
	for _, e := range all {
		most = max(most, e.info.Distance)
	}
	for d := range most {
		near := only(all, func(e *endpoint) bool { return e.info.Distance <= d })
		healthy := only(near, func(e *endpoint) bool { return !e.out })
		if len(healthy) > 0 && 2*len(healthy) >= len(near) {
			return near
		}
	}
	return all
}

// follow makes the cycle go on where that of another list is, so that changes do not favour anybody. cursor is the pool's.
func (l *list) follow(old *list, cursor uint64) {
	if len(l.turns) == 0 || len(old.turns) == 0 {
		l.offset = old.offset
		return
	}
	next := old.turns[(cursor+1+old.offset)%uint64(len(old.turns))]
	at := slices.IndexFunc(l.turns, func(e *endpoint) bool { return e.hash >= next.hash })
	n := uint64(len(l.turns))
	l.offset = uint64(max(at, 0)) + n - (cursor+1)%n // #nosec G115 -- an index
}

// cycle orders turns so that each endpoint has its weight's share of them, evenly spread. Equal weights need one turn each: then any window as long as the
// cycle holds every endpoint once.
func cycle(in []*endpoint) []*endpoint {
	if !slices.ContainsFunc(in, func(e *endpoint) bool { return e.weight() != in[0].weight() }) {
		return in
	}
	type turn struct {
		at float64 // in the cycle, from 0 to 1: the middle of the endpoint's share
		e  *endpoint
	}
	var turns []turn
	for i, w := range shares(in) {
		for k := range w {
			turns = append(turns, turn{(float64(k) + 0.5) / float64(w), in[i]})
		}
	}
	slices.SortStableFunc(turns, func(a, b turn) int { return cmp.Compare(a.at, b.at) })
	out := make([]*endpoint, len(turns))
	for i, t := range turns {
		out[i] = t.e
	}
	return out
}

// shares returns how many turns each endpoint gets in a cycle: its weight, divided by the greatest common divisor, and rounded if the cycle became too long.
func shares(in []*endpoint) []int {
	ws := make([]int, len(in))
	total, div := 0, 0
	for i, e := range in {
		ws[i] = e.weight()
		total, div = total+ws[i], gcd(div, ws[i])
	}
	scale := 1 / float64(div)
	if limit := float64(maxTurns + len(in)); float64(total)*scale > limit {
		scale = limit / float64(total)
	}
	for i, w := range ws {
		ws[i] = max(1, int(float64(w)*scale+0.5))
	}
	return ws
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// merge returns the endpoints of all that are in keep, and added, sorted by hash as all is.
func merge(all []*endpoint, keep map[string]*endpoint, added []*endpoint) []*endpoint {
	byHash := func(a, b *endpoint) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.address, b.address))
	}
	slices.SortFunc(added, byHash)
	out := make([]*endpoint, 0, len(keep))
	for _, e := range all {
		if keep[e.address] != e {
			continue
		}
		for len(added) > 0 && byHash(added[0], e) < 0 {
			out, added = append(out, added[0]), added[1:]
		}
		out = append(out, e)
	}
	return append(out, added...)
}
