package backend

import (
	"math/rand/v2"
	"slices"
	"sync/atomic"

	"github.com/fairlead-io/fairlead/internal/route"
)

// picker is an algorithm of load balancing, for the endpoints of one list. It is made with the list and immutable, but for counters that all requests share.
type picker interface {
	// pick returns the endpoint for a request, one that is not among tried; nil if there is none. key stands for what the request has in common with those that
	// should meet the same endpoint; it is random if there is nothing.
	pick(key uint64, tried []*endpoint) *endpoint
}

// newPicker makes the picker that the policy asks for. The caller holds p.mu.
func (p *Pool) newPicker(l *list) picker {
	switch p.policy.Algorithm {
	case route.Random:
		return random{l.turns}
	case route.LeastConnections:
		return &least{members: l.in, turns: l.turns, cursor: &p.cursor}
	case route.ShortestExpectedDelay:
		return &least{members: l.in, turns: l.turns, cursor: &p.cursor, own: 1}
	case route.NeverQueue:
		return &least{members: l.in, turns: l.turns, cursor: &p.cursor, own: 1, idleFirst: true}
	case route.PowerOfTwoChoices:
		return twoChoices{random: random{l.turns}, cost: busyness}
	case route.PeakEWMA:
		return twoChoices{random: random{l.turns}, cost: p.set.delayOf(l.in)}
	case route.SourceHash, route.DestinationHash:
		return &hashed{maglev: p.table(l)}
	case route.ConsistentHash:
		return &hashed{maglev: p.table(l), busy: &p.traffic}
	default:
		return &roundRobin{l.turns, &p.cursor, l.offset}
	}
}

// eligible reports whether an endpoint may be picked in the first place: it was not tried, and slow start lets it have this request.
func (e *endpoint) eligible(tried []*endpoint) bool {
	return !e.cold() && !slices.Contains(tried, e)
}

// firstUntried returns the first endpoint from a place in a cycle on that was not tried; nil if all were.
func firstUntried(cycle []*endpoint, from uint64, tried []*endpoint) *endpoint {
	n := uint64(len(cycle))
	for i := range n {
		if e := cycle[(from+i)%n]; !slices.Contains(tried, e) {
			return e
		}
	}
	return nil
}

// roundRobin gives each endpoint its turn, in a cycle that is as long as the sum of the weights.
type roundRobin struct {
	turns  []*endpoint
	cursor *atomic.Uint64 // of the pool: it outlives the list
	offset uint64         // is added to the cursor to find the place in the cycle
}

// pick implements picker.
func (r *roundRobin) pick(_ uint64, tried []*endpoint) *endpoint {
	n := uint64(len(r.turns))
	for range n {
		if e := r.turns[(r.cursor.Add(1)+r.offset)%n]; e.eligible(tried) {
			return e
		}
	}
	return firstUntried(r.turns, r.cursor.Load()+r.offset, tried)
}

// random picks by chance, in proportion to the weights. It writes nothing, so that it costs the same however many requests are under way.
type random struct {
	turns []*endpoint
}

// chances is how often chance decides before order does, when what it hits is not eligible.
const chances = 8

// pick implements picker.
func (r random) pick(_ uint64, tried []*endpoint) *endpoint {
	n := uint64(len(r.turns))
	if n == 0 {
		return nil
	}
	for range chances {
		if e := r.turns[rand.Uint64N(n)]; e.eligible(tried) { // #nosec G404 -- shares out load, guards nothing
			return e
		}
	}
	return firstUntried(r.turns, rand.Uint64N(n), tried) // #nosec G404 -- as above
}

// twoChoices takes two endpoints by chance and picks the one that costs less. That keeps the longest queue almost as short as looking at all of them would, without
// that replicas that see the same endpoint idle all choose it.
type twoChoices struct {
	random
	cost func(e *endpoint) float64
}

// pick implements picker.
func (t twoChoices) pick(key uint64, tried []*endpoint) *endpoint {
	a := t.random.pick(key, tried)
	if a == nil || len(t.turns) == 1 {
		return a
	}
	for range chances {
		b := t.turns[rand.Uint64N(uint64(len(t.turns)))] // #nosec G404 -- shares out load, guards nothing
		if b == a || !b.eligible(tried) {
			continue
		}
		if t.cost(b) < t.cost(a) {
			return b
		}
		return a
	}
	return a
}

// busyness is the number of requests at an endpoint for each unit of its weight.
func busyness(e *endpoint) float64 {
	return float64(e.inFlight.Load()) / float64(e.share.Load())
}
