package backend

import (
	"slices"
	"sync/atomic"
)

// picker is an algorithm of load balancing, for the endpoints of one list. It is made with the list and immutable, but for counters that all requests share.
type picker interface {
	// pick returns the endpoint for a request, one that is not among tried; nil if there is none. key stands for what the request has in common with those that
	// should meet the same endpoint; it is random if there is nothing.
	pick(key uint64, tried []*endpoint) *endpoint
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
		if e := r.turns[(r.cursor.Add(1)+r.offset)%n]; !slices.Contains(tried, e) {
			return e
		}
	}
	return nil
}
