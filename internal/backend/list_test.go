package backend

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/fairlead-io/fairlead/internal/route"
)

// manyEndpoints returns n endpoints 10.x.y.z:80.
func manyEndpoints(n int) []route.Endpoint {
	eps := make([]route.Endpoint, n)
	for i := range eps {
		eps[i] = route.Endpoint{Address: fmt.Sprintf("10.%d.%d.%d:80", i>>16, i>>8&255, i&255)}
	}
	return eps
}

func poolOfMany(tb testing.TB, n int) *Pool {
	tb.Helper()
	s, p := newPoolOf(tb, Options{}, route.HTTP)
	s.Update(map[route.PoolKey][]route.Endpoint{testKey: manyEndpoints(n)})
	return p
}

func pickOne(p *Pool) *endpoint {
	e, _ := p.pick(p.list.Load(), wish{}, nil)
	return e
}

// With equal weights, each window of N picks holds each of the N endpoints once.
func TestEachWindowHoldsEachEndpointOnce(t *testing.T) {
	for _, n := range []int{1, 2, 3, 7, 100} {
		p := poolOfMany(t, n)
		picks := make([]*endpoint, 5*n)
		for i := range picks {
			picks[i] = pickOne(p)
		}
		for at := range len(picks) - n + 1 {
			seen := map[*endpoint]bool{}
			for _, e := range picks[at : at+n] {
				seen[e] = true
			}
			if len(seen) != n {
				t.Fatalf("%d endpoints: %d different ones in the picks from %d", n, len(seen), at)
			}
		}
	}
}

func TestConcurrentPicksShareAlike(t *testing.T) {
	const goroutines, rounds, n = 8, 1000, 7
	p := poolOfMany(t, n)
	counts := make([]map[string]int, goroutines)
	var wg sync.WaitGroup
	for g := range goroutines {
		counts[g] = map[string]int{}
		wg.Go(func() {
			for range rounds * n {
				counts[g][pickOne(p).address]++
			}
		})
	}
	wg.Wait()
	for _, ep := range manyEndpoints(n) {
		total := 0
		for _, c := range counts {
			total += c[ep.Address]
		}
		if total != goroutines*rounds {
			t.Errorf("%s got %d requests, want exactly %d", ep.Address, total, goroutines*rounds)
		}
	}
}

// Replicas must not begin at the same endpoint, nor follow each other in the same order.
func TestReplicasBeginAtDifferentPlaces(t *testing.T) {
	first := map[string]int{}
	for range 300 {
		first[pickOne(poolOfMany(t, 3)).address]++
	}
	for _, ep := range manyEndpoints(3) {
		if n := first[ep.Address]; n < 50 {
			t.Errorf("%s was first %d times of 300", ep.Address, n)
		}
	}
}

func TestWeightsAreSharesEvenlySpread(t *testing.T) {
	for _, weights := range [][]int32{{1, 2}, {5, 1, 1}, {10, 20, 70}, {1, 0, 3}, {100, 1}, {7, 7, 7}, {1, 1_000_000}} {
		t.Run(fmt.Sprint(weights), func(t *testing.T) {
			s, p := newPoolOf(t, Options{}, route.HTTP)
			eps, total := manyEndpoints(len(weights)), 0.0
			for i := range eps {
				eps[i].Weight = weights[i]
				total += float64(max(weights[i], 1))
			}
			s.Update(map[route.PoolKey][]route.Endpoint{testKey: eps})
			turns := p.list.Load().turns
			if len(turns) > maxTurns+2*len(eps) {
				t.Fatalf("the cycle has %d turns", len(turns))
			}
			for i, ep := range eps {
				share := float64(max(weights[i], 1)) / total
				got := 0.0
				for k := range 2 * len(turns) { // in each window from the beginning, no more than 1 off the share
					if turns[k%len(turns)].address == ep.Address {
						got++
					}
					if want := share * float64(k+1); math.Abs(got-want) > 1.0001 && total < maxTurns {
						t.Fatalf("%v of the first %d picks are for the endpoint of weight %d, want %.1f", got, k+1, weights[i], want)
					}
				}
				if got == 0 {
					t.Errorf("the endpoint of weight %d gets nothing", weights[i])
				}
			}
		})
	}
}

// When endpoints change, the cycle goes on where it was: nobody is served twice or left out because others came or went.
func TestCycleGoesOnAfterChanges(t *testing.T) {
	s, p := newPoolOf(t, Options{}, route.HTTP)
	eps := manyEndpoints(1000)
	s.Update(map[route.PoolKey][]route.Endpoint{testKey: eps})
	counts := map[string]int{}
	rng := rand.New(rand.NewPCG(1, 2))
	present := slices.Clone(eps)
	for range 1000 { // 200 picks between two changes, 200 rounds in all
		for range 200 {
			counts[pickOne(p).address]++
		}
		if len(present) == len(eps) {
			i := rng.IntN(len(present))
			present = slices.Delete(slices.Clone(eps), i, i+1)
		} else {
			present = eps
		}
		s.Update(map[route.PoolKey][]route.Endpoint{testKey: present})
	}
	for _, ep := range eps {
		if n := counts[ep.Address]; n < 190 || n > 210 {
			t.Errorf("%s got %d of 200,000 requests, want 200 and not 5%% off", ep.Address, n)
		}
	}
}

func TestNextIsNextAfterChanges(t *testing.T) {
	s, p := newPoolOf(t, Options{}, route.HTTP)
	rng := rand.New(rand.NewPCG(5, 6))
	all := manyEndpoints(20)
	s.Update(map[route.PoolKey][]route.Endpoint{testKey: all})
	for range 300 {
		for range rng.IntN(25) {
			pickOne(p)
		}
		l := p.list.Load()
		next := l.turns[(p.cursor.Load()+1+l.offset)%uint64(len(l.turns))]
		rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		some := slices.Clone(all[:10+rng.IntN(10)])
		if !slices.ContainsFunc(some, func(ep route.Endpoint) bool { return ep.Address == next.address }) {
			some = append(some, next.info)
		}
		s.Update(map[route.PoolKey][]route.Endpoint{testKey: some})
		if got := pickOne(p); got != next {
			t.Fatalf("next was %s, want %s", got.address, next.address)
		}
	}
}

func TestEndpointsThatAreTwiceInTheListCountOnce(t *testing.T) {
	s, p := newPoolOf(t, Options{}, route.HTTP, "10.0.0.1:80", "10.0.0.2:80", "10.0.0.1:80")
	if l := p.list.Load(); len(l.all) != 2 || len(s.Status()[0].Endpoints) != 2 {
		t.Errorf("%d endpoints", len(l.all))
	}
}

// The list after any number of changes is what it would be if it had been made at once.
func TestUpdatesLeadToTheSameListAsOne(t *testing.T) {
	s, p := newPoolOf(t, Options{}, route.HTTP)
	rng := rand.New(rand.NewPCG(3, 4))
	all := manyEndpoints(40)
	for range 500 {
		rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		some := slices.Clone(all[:rng.IntN(len(all))])
		for i := range some {
			some[i].Terminating = rng.IntN(4) == 0
		}
		before := p.list.Load()
		s.Update(map[route.PoolKey][]route.Endpoint{testKey: some})
		got := p.list.Load()
		if len(got.all) != len(some) || !slices.IsSortedFunc(got.all, func(a, b *endpoint) int { return int(min(max(float64(a.hash)-float64(b.hash), -1), 1)) }) {
			t.Fatalf("%d endpoints of %d, or out of order", len(got.all), len(some))
		}
		for _, ep := range some {
			i := slices.IndexFunc(got.all, func(e *endpoint) bool { return e.address == ep.Address })
			if i < 0 || got.all[i].info != ep {
				t.Fatalf("%+v is missing or wrong", ep)
			}
			if j := slices.IndexFunc(before.all, func(e *endpoint) bool { return e.address == ep.Address }); j >= 0 && before.all[j] != got.all[i] {
				t.Fatalf("%s lost its state", ep.Address)
			}
		}
	}
	last := p.list.Load()
	s.Update(map[route.PoolKey][]route.Endpoint{testKey: infos(last.all)})
	if p.list.Load() != last {
		t.Error("an update that changes nothing made a new list")
	}
}

func infos(es []*endpoint) (out []route.Endpoint) {
	for _, e := range es {
		out = append(out, e.info)
	}
	return out
}

func TestPickAllocatesNothing(t *testing.T) {
	p := poolOfMany(t, 5)
	if n := testing.AllocsPerRun(1000, func() {
		e, _, _ := p.acquire(wish{safe: true}, nil)
		e.release()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
