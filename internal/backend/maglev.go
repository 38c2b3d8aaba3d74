package backend

import (
	"cmp"
	"math"
	"slices"
)

// maglev is a table in which hashes are looked up: each place names an endpoint. All replicas make the same table from the same endpoints. It holds endpoints that are left
// out for failing, too: their keys go elsewhere while they are, and nobody else's do.
//
// It is filled as Maglev's is (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", 2016): each endpoint has an order of preference of all places, which
// depends on nothing but itself, and they take places in turn. There an endpoint whose next place is taken goes on to the first that is free, so that all get the same number of
// places; but who comes too late upsets the choices of those behind, and with 1,000 endpoints seven times as many places change as have to when one comes or goes. Here its turn is over.
// So a place belongs to the endpoint that likes it best, whoever else there is, and what changes is what has to. The price is that the numbers differ; maxExcess bounds by how much.
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

// places is how many places a table has, a prime: 65 for each of 1,000 endpoints. It is the same for all pools, because a table of another size has every key elsewhere.
const places = 65521

// maxExcess is how much more than its share an endpoint may have of the places, while most are left to those who like them best.
const maxExcess = 0.1

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
	m.fill()
	return m
}

// maxSeekers bounds how many seekers there are for the weights of the endpoints, beyond one for each.
const maxSeekers = 1 << 14

// seeker is on its way through an order of preference. An endpoint has as many as its weight says.
type seeker struct {
	member   int
	at, skip uint64
}

// seekers returns the seekers of all endpoints.
func (m *maglev) seekers() (out []seeker) {
	scale := min(1, maxSeekers/float64(m.total))
	for i, x := range m.members {
		h := x.stable
		for range max(1, int(float64(x.weight)*scale)) {
			h = mix(h)
			out = append(out, seeker{i, h % places, mix(h)%(places-1) + 1})
		}
	}
	return out
}

// fill lets the seekers take places in turn.
func (m *maglev) fill() {
	m.places = make([]uint16, places)
	taken := make([]bool, places)
	left := make([]int, len(m.members)) // places that each endpoint may still take
	for i, x := range m.members {
		left[i] = int(math.Ceil((1 + maxExcess) * places * float64(x.weight) / float64(m.total)))
	}
	free := places
	seekers := m.seekers()
	for free > 0 {
		for i := range seekers {
			s := &seekers[i]
			if left[s.member] > 0 && !taken[s.at] {
				m.places[s.at], taken[s.at] = uint16(s.member), true // #nosec G115 -- at most maxMembers
				left[s.member]--
				free--
			}
			if s.at += s.skip; s.at >= places {
				s.at -= places
			}
		}
	}
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
