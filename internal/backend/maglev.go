package backend

import (
	"cmp"
	"slices"
)

// maglev is a table in which hashes are looked up: each place names an endpoint, each endpoint has its weight's share of the places, and when one comes or goes few
// places change beside its own (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", 2016). All replicas make the same table from the same
// endpoints. It holds endpoints that are left out for failing, too: their keys go elsewhere while they are, and nobody else's do.
type maglev struct {
	members []member // by stable hash
	total   int64    // sum of the weights
	places  []uint16 // indexes of members
}

// member is an endpoint with the weight that it has in a table.
type member struct {
	*endpoint
	weight int64
}

// sizes are primes: the number of places of a table is one of them. Fifty places for each endpoint keep the shares within 2 % of each other; above 2,600 endpoints
// the largest has to do (5,000 endpoints: 4 %).
var sizes = [...]int{251, 1009, 4093, 16381, 65521, 131071}

// maxMembers is how many endpoints a table can have: the others get nothing by hash.
const maxMembers = 1 << 16

// table returns the table for the endpoints of a list: the one that there is, if it is the same. The caller holds p.mu.
func (p *Pool) table(l *list) *maglev {
	members := make([]member, len(l.near))
	for i, e := range l.near {
		members[i] = member{e, e.share.Load()}
	}
	slices.SortFunc(members, func(a, b member) int {
		return cmp.Or(cmp.Compare(a.stable, b.stable), cmp.Compare(a.address, b.address))
	})
	members = members[:min(len(members), maxMembers)]
	if p.places == nil || !slices.Equal(p.places.members, members) {
		p.places = newMaglev(members)
	}
	return p.places
}

// newMaglev makes a table for endpoints that are sorted by their stable hash.
func newMaglev(members []member) *maglev {
	m := &maglev{members: members}
	if len(members) == 0 {
		return m
	}
	for _, x := range members {
		m.total += x.weight
	}
	size := sizes[len(sizes)-1]
	for _, s := range slices.Backward(sizes[:]) {
		if s >= 50*len(members) {
			size = s
		}
	}
	m.fill(size)
	return m
}

// fill lets the endpoints take places in turn. Each has an order of preference of its own, which depends on nothing but itself.
func (m *maglev) fill(size int) {
	n := uint64(size) // #nosec G115 -- one of sizes
	m.places = make([]uint16, size)
	taken := make([]bool, size)
	next := make([]uint64, len(m.members))
	free := size
	take := func(i int) {
		x := &m.members[i]
		offset, skip := x.stable%n, mix(x.stable)%(n-1)+1
		at := (offset + next[i]*skip) % n
		for taken[at] {
			next[i]++
			if at += skip; at >= n {
				at -= n
			}
		}
		m.places[at], taken[at] = uint16(i), true // #nosec G115 -- at most maxMembers
		next[i]++
		free--
	}
	for i := range m.members[:min(len(m.members), size)] {
		take(i) // nobody is left without
	}
	for turns := m.turns(); free > 0; {
		for _, i := range turns[:min(len(turns), free)] {
			take(i)
		}
	}
}

// turns is the order in which the endpoints take places, by weight.
func (m *maglev) turns() []int {
	index := make(map[*endpoint]int, len(m.members))
	in := make([]*endpoint, len(m.members))
	for i, x := range m.members {
		index[x.endpoint], in[i] = i, x.endpoint
	}
	cycle := cycle(in)
	out := make([]int, len(cycle))
	for i, e := range cycle {
		out[i] = index[e]
	}
	return out
}

// hashed picks by hash: the same key meets the same endpoint.
type hashed struct {
	*maglev
	// busy, if not nil, is how many requests the pool has in flight: an endpoint that has far more of them than its share gets no more ("Consistent Hashing with
	// Bounded Loads", Mirrokni et al., 2016).
	busy *traffic
}

const (
	// overload is how much more than its share an endpoint may have.
	overload = 1.25
	// minBound is how many requests an endpoint may have in any case: while a pool has little to do, that keys stay where they are is worth more than evenness.
	minBound = 4
	// detours is how many other places a key is sent to, each by another hash, before order decides: so the keys of an endpoint that is out spread over all others.
	detours = 16
)

// pick implements picker.
func (h *hashed) pick(key uint64, tried []*endpoint) *endpoint {
	if len(h.places) == 0 {
		return nil
	}
	busy := int64(0)
	if h.busy != nil {
		busy = h.busy.inFlight()
	}
	n := uint64(len(h.places))
	at := key
	for range detours {
		if m := &h.members[h.places[at%n]]; h.takes(m, busy, tried) {
			return m.endpoint
		}
		at = mix(at)
	}
	// Whoever takes it, and if nobody does, whoever was not tried.
	var last *endpoint
	count := uint64(len(h.members))
	for i := range count {
		m := &h.members[(key+i)%count]
		if h.takes(m, busy, tried) {
			return m.endpoint
		}
		if last == nil && !m.aside.Load() && !slices.Contains(tried, m.endpoint) {
			last = m.endpoint
		}
	}
	return last
}

// takes reports whether an endpoint gets a request of which its key is the owner.
func (h *hashed) takes(m *member, busy int64, tried []*endpoint) bool {
	if m.aside.Load() || slices.Contains(tried, m.endpoint) {
		return false
	}
	if h.busy == nil {
		return true
	}
	has := m.inFlight.Load()
	return has < minBound || float64(has) < overload*float64(busy+1)*float64(m.weight)/float64(h.total)
}
