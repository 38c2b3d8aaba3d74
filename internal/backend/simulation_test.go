package backend

import (
	"cmp"
	"container/heap"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

var update = flag.Bool("update", false, "rewrite the figures in docs/balancing.md")

// policies are all algorithms, in the order of the documentation.
var policies = []route.Policy{
	{},
	{Algorithm: route.Random},
	{Algorithm: route.LeastConnections},
	{Algorithm: route.ShortestExpectedDelay},
	{Algorithm: route.NeverQueue},
	{Algorithm: route.PowerOfTwoChoices},
	{Algorithm: route.PeakEWMA},
	{Algorithm: route.SourceHash},
	{Algorithm: route.DestinationHash},
	{Algorithm: route.ConsistentHash, HashKey: route.HashKey{Kind: route.HashPath}},
}

func nameOf(p route.Policy) string { return string(cmp.Or(p.Algorithm, route.RoundRobin)) }

// policyPool makes a pool with a policy and endpoints of the given weights, and a clock that stands still until it is moved.
func policyPool(tb testing.TB, policy route.Policy, weights ...int32) (*Set, *Pool, *clock) {
	tb.Helper()
	clock := newClock()
	s := New(Options{Now: clock.now})
	tb.Cleanup(s.Close)
	s.Install([]*route.Pool{{Key: testKey, Protocol: route.HTTP, Policy: policy, Secret: "6f0f0f6a"}})
	s.Update(map[route.PoolKey][]route.Endpoint{testKey: weighted(weights...)})
	return s, s.Pool(testKey), clock
}

func weighted(weights ...int32) []route.Endpoint {
	eps := manyEndpoints(len(weights))
	for i, w := range weights {
		eps[i].Weight = w
	}
	return eps
}

func ones(n int) []int32 { return slices.Repeat([]int32{1}, n) }

// workload is a stream of requests to endpoints that each serve four at a time, the others waiting in line. They come at random, and take a random time.
type workload struct {
	policy    route.Policy
	endpoints int
	clients   int     // Fairleads, which do not know of each other's requests
	load      float64 // share of what all endpoints together could do if none was slow
	slow      float64 // how many times as long the first endpoint takes
	requests  int
}

const (
	workers = 4
	service = 10 * time.Millisecond // that a request takes on average
)

// outcome is what came of it.
type outcome struct {
	counts   []int // by endpoint
	times    []time.Duration
	slowUsed float64 // share of the requests that the first endpoint got
}

func (o *outcome) quantile(q float64) time.Duration { return o.times[int(q*float64(len(o.times)-1))] }

// event is the arrival of a request, or its end.
type event struct {
	at       time.Duration
	endpoint *endpoint // nil: an arrival
	server   int
	begun    time.Duration
}

type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at < e[j].at }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }
func (e *events) Pop() (x any)      { n := len(*e) - 1; x, *e = (*e)[n], (*e)[:n]; return x }

// simulate runs a workload to its end. The requests are the same each time; what chance decides in the algorithms is not.
func simulate(tb testing.TB, w workload) *outcome {
	tb.Helper()
	rng := rand.New(rand.NewPCG(7, 11))
	var pools []*Pool
	var clocks []*clock
	for range w.clients {
		_, p, c := policyPool(tb, w.policy, ones(w.endpoints)...)
		pools, clocks = append(pools, p), append(clocks, c)
	}
	index := map[string]int{}
	for i, ep := range manyEndpoints(w.endpoints) {
		index[ep.Address] = i
	}
	out := &outcome{counts: make([]int, w.endpoints)}
	free := make([][workers]time.Duration, w.endpoints) // when each worker of each endpoint is done
	gap := float64(service) / (w.load * workers * float64(w.endpoints))
	queue := events{{at: 0}}
	now := time.Duration(0)
	for arrived := 0; len(queue) > 0; {
		e := heap.Pop(&queue).(event)
		for _, c := range clocks {
			c.add(e.at - now)
		}
		now = e.at
		if e.endpoint != nil {
			e.endpoint.observe(e.endpoint.pool.set.now(), now-e.begun)
			e.endpoint.release()
			continue
		}
		if arrived++; arrived < w.requests {
			heap.Push(&queue, event{at: now + time.Duration(rng.ExpFloat64()*gap)})
		}
		p := pools[rng.IntN(len(pools))]
		chosen, _, _ := p.acquire(wish{key: mix(rng.Uint64N(10000))}, nil)
		i := index[chosen.address]
		took := time.Duration(rng.ExpFloat64() * float64(service))
		if i == 0 && w.slow > 0 {
			took = time.Duration(float64(took) * w.slow)
		}
		worker := 0
		for k := range free[i] {
			if free[i][k] < free[i][worker] {
				worker = k
			}
		}
		done := max(now, free[i][worker]) + took
		free[i][worker] = done
		out.counts[i]++
		out.times = append(out.times, done-now)
		heap.Push(&queue, event{at: done, endpoint: chosen, server: i, begun: now})
	}
	slices.Sort(out.times)
	out.slowUsed = float64(out.counts[0]) / float64(w.requests)
	return out
}

// What each algorithm makes of ten endpoints of which one is ten times as slow as the others. The figures are those of docs/balancing.md: -update writes them there.
func TestSimulation(t *testing.T) {
	const requests = 40000
	bounds := map[route.Algorithm]struct {
		slowShare float64       // of the requests that the slow endpoint gets, at most
		p99       time.Duration // at most
	}{
		"": {0.101, math.MaxInt64}, route.Random: {0.12, math.MaxInt64}, route.SourceHash: {0.12, math.MaxInt64}, route.DestinationHash: {0.12, math.MaxInt64},
		route.LeastConnections: {0.035, 300 * time.Millisecond}, route.ShortestExpectedDelay: {0.035, 300 * time.Millisecond}, route.NeverQueue: {0.035, 300 * time.Millisecond},
		route.PowerOfTwoChoices: {0.05, 400 * time.Millisecond}, route.PeakEWMA: {0.03, 300 * time.Millisecond}, route.ConsistentHash: {0.06, time.Second},
	}
	var table strings.Builder
	table.WriteString("| algorithm | p50 | p99 | one slow: its share | p50 | p99 | 4 replicas: p99 | one fails at once: its share |\n|---|---|---|---|---|---|---|---|\n")
	for _, policy := range policies {
		w := workload{policy: policy, endpoints: 10, clients: 1, load: 0.6, requests: requests}
		same := simulate(t, w)
		w.slow = 10
		slow := simulate(t, w)
		w.clients = 4
		replicas := simulate(t, w)
		w.clients, w.slow = 1, 0.01
		failing := simulate(t, w)
		fmt.Fprintf(&table, "| `%s` | %s | %s | %.1f %% | %s | %s | %s | %.0f %% |\n", nameOf(policy), ms(same.quantile(.5)), ms(same.quantile(.99)),
			100*slow.slowUsed, ms(slow.quantile(.5)), ms(slow.quantile(.99)), ms(replicas.quantile(.99)), 100*failing.slowUsed)
		bound := bounds[policy.Algorithm]
		if slow.slowUsed > bound.slowShare || slow.quantile(.99) > bound.p99 {
			t.Errorf("%s sends %.1f %% to an endpoint that is ten times as slow, and its p99 is %v; want at most %.1f %% and %v",
				nameOf(policy), 100*slow.slowUsed, slow.quantile(.99), 100*bound.slowShare, bound.p99)
		}
		// Nobody is left out, and nobody gets far more than a tenth, as long as all are the same.
		for i, n := range same.counts {
			if n < requests/14 || n > requests/7 {
				t.Errorf("%s: endpoint %d got %d of %d requests", nameOf(policy), i, n, requests)
			}
		}
	}
	t.Logf("\n%s", table.String())
	if *update {
		writeFigures(t, "simulation", table.String())
	}
}

func ms(d time.Duration) string {
	if d > 10*time.Second {
		return "> 10 s"
	}
	return fmt.Sprintf("%d ms", d.Round(time.Millisecond)/time.Millisecond)
}

// writeFigures replaces what stands between two comments in docs/balancing.md.
func writeFigures(t *testing.T, name, text string) {
	t.Helper()
	const file = "../../docs/balancing.md"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- "+name+" -->\n", "<!-- end -->"
	before, rest, ok := strings.Cut(string(data), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for %s", file, name)
	}
	if err := os.WriteFile(file, []byte(before+begin+"\n"+text+"\n"+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// picks is how often each endpoint is picked when nothing is in flight.
func picks(p *Pool, n int) map[string]int {
	got := map[string]int{}
	rng := rand.New(rand.NewPCG(1, 2))
	for range n {
		e, _, _ := p.acquire(wish{key: rng.Uint64()}, nil)
		got[e.address]++
		e.release()
	}
	return got
}

// chiSquared is how far counts are from what is expected of the weights.
func chiSquared(got map[string]int, eps []route.Endpoint) (x float64) {
	n, total := 0, 0.0
	for _, ep := range eps {
		n += got[ep.Address]
		total += float64(ep.Weight)
	}
	for _, ep := range eps {
		want := float64(n) * float64(ep.Weight) / total
		d := float64(got[ep.Address]) - want
		x += d * d / want
	}
	return x
}

// Without anything in flight the shares are those of the weights: to the request where the algorithm goes in turn, and as chance has it where that decides.
func TestSharesAreThoseOfTheWeights(t *testing.T) {
	const n = 20000 // 1,000 times the sum of the weights
	weights := []int32{1, 2, 3, 4, 4, 6}
	for _, policy := range policies {
		t.Run(nameOf(policy), func(t *testing.T) {
			_, p, _ := policyPool(t, policy, weights...)
			got := picks(p, n)
			switch {
			case policy.Algorithm == "", policy.Algorithm == route.LeastConnections:
				for i, ep := range weighted(weights...) {
					if want := n / 20 * int(weights[i]); got[ep.Address] != want {
						t.Errorf("weight %d: %d of %d, want exactly %d", weights[i], got[ep.Address], n, want)
					}
				}
			case policy.Algorithm == route.ShortestExpectedDelay:
				// An idle endpoint of weight 6 is expected to answer first, always: that is what it is for.
				if got["10.0.0.5:80"] != n {
					t.Errorf("got %v, want all at the endpoint of weight 6", got)
				}
			case policy.Algorithm == route.NeverQueue:
				if got["10.0.0.5:80"] != n {
					t.Errorf("got %v, want all at the endpoint of weight 6", got)
				}
			case policy.Algorithm.Hashes():
				// Each endpoint has about its share of the places of the table.
				places := map[string]int{}
				table := p.list.Load().next.(*hashed).maglev
				for _, i := range table.places {
					places[table.members[i].address]++
				}
				for i, ep := range weighted(weights...) {
					want := float64(len(table.places)) * float64(weights[i]) / 20
					if got := float64(places[ep.Address]); got > 1.1*want+1 || got < 0.9*want {
						t.Errorf("weight %d has %d places of %d, want %.1f", weights[i], places[ep.Address], len(table.places), want)
					}
				}
			default:
				// Five degrees of freedom: more than 45 happens once in 10^8 runs.
				if x := chiSquared(got, weighted(weights...)); x > 45 {
					t.Errorf("chi-squared is %.1f for %v", x, got)
				}
			}
		})
	}
}

// The shares of an algorithm that hashes are as even as docs/balancing.md says.
func TestSharesOfPlaces(t *testing.T) {
	for n, least := range map[int]float64{3: 0.9, 10: 0.9, 100: 0.9, 1000: 0.7} {
		_, p, _ := policyPool(t, route.Policy{Algorithm: route.SourceHash}, ones(n)...)
		has := make([]float64, n)
		for _, i := range p.places.places {
			has[i] += float64(n) / places
		}
		if lo, hi := slices.Min(has), slices.Max(has); lo < least || hi > 1.1+float64(n)/places {
			t.Errorf("%d endpoints have between %.2f and %.2f of the mean, want %.2f to 1.10", n, lo, hi, least)
		}
	}
}

// With many requests in flight the shares of the algorithms that count them are those of the weights as well.
func TestSharesInFlightAreThoseOfTheWeights(t *testing.T) {
	weights := []int32{1, 2, 3, 4}
	for _, a := range []route.Algorithm{route.LeastConnections, route.ShortestExpectedDelay, route.NeverQueue} {
		_, p, _ := policyPool(t, route.Policy{Algorithm: a}, weights...)
		for range 1000 {
			p.acquire(wish{}, nil)
		}
		for _, e := range p.list.Load().all {
			if got, want := e.inFlight.Load(), 100*e.share.Load(); got < want-1 || got > want+1 {
				t.Errorf("%s: the endpoint of weight %d has %d in flight, want %d", a, e.share.Load(), got, want)
			}
		}
	}
}

// Never queue means that one that has nothing to do comes before a stronger one that has something.
func TestNeverQueue(t *testing.T) {
	_, p, _ := policyPool(t, route.Policy{Algorithm: route.NeverQueue}, 1, 1, 100)
	seen := map[*endpoint]bool{}
	for range 3 {
		e, _, _ := p.acquire(wish{}, nil)
		seen[e] = true
	}
	if len(seen) != 3 {
		t.Errorf("three requests went to %d endpoints", len(seen))
	}
	if e, _, _ := p.acquire(wish{}, nil); e.share.Load() != 100 {
		t.Errorf("a fourth went to the endpoint of weight %d, want that of 100", e.share.Load())
	}
}

// In a large pool not all endpoints are compared, and still none has much more to do than another.
func TestLeastOfALargePool(t *testing.T) {
	for _, a := range []route.Algorithm{route.LeastConnections, route.PowerOfTwoChoices} {
		_, p, _ := policyPool(t, route.Policy{Algorithm: a}, ones(1000)...)
		for range 10000 {
			p.acquire(wish{}, nil)
		}
		most := int64(0)
		for _, e := range p.list.Load().all {
			most = max(most, e.inFlight.Load())
		}
		if bound := map[route.Algorithm]int64{route.LeastConnections: 12, route.PowerOfTwoChoices: 15}[a]; most > bound {
			t.Errorf("%s: one of 1,000 endpoints has %d of 10,000 requests, want at most %d", a, most, bound)
		}
	}
}

// movement is the share of the keys whose endpoint is another with b than with a, and how many of those had an endpoint that is still there and not the new one.
func movement(a, b *Pool, had, has string) (moved, needless float64) {
	const keys = 50000
	for k := range uint64(keys) {
		x, _, _ := a.acquire(wish{key: mix(k)}, nil)
		x.release()
		y, _, _ := b.acquire(wish{key: mix(k)}, nil)
		y.release()
		if x.address == y.address {
			continue
		}
		moved++
		if x.address != had && y.address != has {
			needless++
		}
	}
	return moved / keys, needless / keys
}

// When one of n endpoints comes or goes about one n-th of the keys moves. The figures are those of docs/balancing.md.
func TestKeysThatMove(t *testing.T) {
	var table strings.Builder
	table.WriteString("| endpoints | one comes: keys that move | of these, needlessly | one goes: keys that move | of these, needlessly |\n|---|---|---|---|---|\n")
	for _, n := range []int{3, 10, 100, 1000, 5000} {
		_, with, _ := policyPool(t, route.Policy{Algorithm: route.SourceHash}, ones(n+1)...)
		_, without, _ := policyPool(t, route.Policy{Algorithm: route.SourceHash}, ones(n)...)
		last := manyEndpoints(n + 1)[n].Address
		comes, needless := movement(without, with, "", last)
		goes, alsoNeedless := movement(with, without, last, "")
		fmt.Fprintf(&table, "| %d | %.2f %% (1/%d: %.2f %%) | %.2f %% | %.2f %% | %.2f %% |\n", n, 100*comes, n+1, 100/float64(n+1), 100*needless, 100*goes, 100*alsoNeedless)
		// No more than the share that an endpoint can have, and little beside that.
		if least := 1 / float64(n+1); comes > 1.4*least+1e-4 || goes > 1.4*least+1e-4 || needless > 0.1*least+1e-4 || alsoNeedless > 0.1*least+1e-4 {
			t.Errorf("%d endpoints: %.4f of the keys move when one comes and %.4f when one goes, %.4f of them needlessly; want about %.4f", n, comes, goes, needless, least)
		}
	}
	t.Logf("\n%s", table.String())
	if *update {
		writeFigures(t, "movement", table.String())
	}
}

// While an endpoint is left out, its keys spread over all others, and nobody else's move.
func TestKeysOfAnEndpointThatIsLeftOut(t *testing.T) {
	const keys = 50000
	for _, policy := range policies[7:] {
		_, p, _ := policyPool(t, policy, ones(10)...)
		before := make([]*endpoint, keys)
		for k := range before {
			before[k], _, _ = p.acquire(wish{key: mix(uint64(k))}, nil)
			before[k].release()
		}
		bad := p.list.Load().all[3]
		p.failed(bad, p.set.now(), unreachable, os.ErrClosed)
		heirs := map[*endpoint]int{}
		for k, was := range before {
			e, _, _ := p.acquire(wish{key: mix(uint64(k))}, nil)
			e.release()
			switch {
			case was == bad && e == bad:
				t.Fatal("a key met an endpoint that is left out")
			case was == bad:
				heirs[e]++
			case e != was:
				t.Fatalf("%s: key %d went to %s, which is not left out, and then to %s", nameOf(policy), k, was.address, e.address)
			}
		}
		for e, n := range heirs {
			if n < 350 || n > 800 { // a ninth of 5,000
				t.Errorf("%s: %s got %d of the keys of the one that is left out", nameOf(policy), e.address, n)
			}
		}
		if len(heirs) != 9 {
			t.Errorf("%d endpoints got keys, want 9", len(heirs))
		}
	}
}

// All replicas send a key to the same endpoint, whatever order they heard of the endpoints in.
func TestReplicasAgreeOnKeys(t *testing.T) {
	for _, policy := range policies[7:] {
		_, a, _ := policyPool(t, policy, ones(50)...)
		s, b, _ := policyPool(t, policy)
		eps := weighted(ones(50)...)
		for i := range eps {
			s.Update(map[route.PoolKey][]route.Endpoint{testKey: append(slices.Clone(eps[50-i:]), eps[:i+1]...)})
		}
		s.Update(map[route.PoolKey][]route.Endpoint{testKey: eps})
		if moved, _ := movement(a, b, "", ""); moved != 0 {
			t.Errorf("%s: two replicas send %.1f %% of the keys elsewhere", nameOf(policy), 100*moved)
		}
	}
}

// A key that everybody asks for does not break down its endpoint.
func TestBoundedLoads(t *testing.T) {
	_, p, _ := policyPool(t, policies[9], ones(10)...)
	for n := int64(1); n <= 1000; n++ {
		p.acquire(wish{key: 4711}, nil)
		bound := max(minBound, int64(math.Ceil(overload*float64(n)/10)))
		for _, e := range p.list.Load().all {
			if has := e.inFlight.Load(); has > bound {
				t.Fatalf("%d in flight in all and %d at one of 10 endpoints, want at most %d", n, has, bound)
			}
		}
	}
	first, _, _ := p.acquire(wish{key: 1}, nil)
	if again, _, _ := p.acquire(wish{key: 1}, nil); again == nil || first == nil {
		t.Error("nobody takes a request")
	}
}
