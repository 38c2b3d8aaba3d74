package backend

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// crowd sends requests at the same moment and returns how often each reason came, "" for an answer.
func crowd(t *testing.T, p *Pool, requests int) map[route.Reason]int {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	got := map[route.Reason]int{}
	for range requests {
		wg.Go(func() {
			r := do(p, newRequest(t, "GET", "a", ""))
			mu.Lock()
			defer mu.Unlock()
			got[r.reason()]++
		})
	}
	wg.Wait()
	return got
}

// busyBackend takes a second for each request and remembers how many it had at a time.
type busyBackend struct{ now, most atomic.Int64 }

func (b *busyBackend) ServeHTTP(http.ResponseWriter, *http.Request) {
	n := b.now.Add(1)
	defer b.now.Add(-1)
	for most := b.most.Load(); n > most && !b.most.CompareAndSwap(most, n); most = b.most.Load() {
	}
	time.Sleep(time.Second)
}

func TestCircuitBreaking(t *testing.T) {
	tests := []struct {
		name     string
		limits   route.Limits
		requests int
		want     map[route.Reason]int
	}{
		{"no limit", route.Limits{}, 50, map[route.Reason]int{"": 50}},
		{"connections", route.Limits{Connections: 3}, 20, map[route.Reason]int{"": 6, route.EndpointsBusy: 14}},
		{"requests", route.Limits{Requests: 2, Connections: 3}, 20, map[route.Reason]int{"": 4, route.EndpointsBusy: 16}},
		{"some may wait, and have their turn", route.Limits{Connections: 3, Pending: 5, Queue: 10 * time.Second}, 20, map[route.Reason]int{"": 11, route.QueueFull: 9}},
		{"some wait in vain", route.Limits{Connections: 3, Pending: 14, Queue: 1500 * time.Millisecond}, 20, map[route.Reason]int{"": 12, route.QueueTimeout: 8}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			withCare(t, Options{}, route.Care{Limits: tt.limits}, []string{"a:1", "b:1"}, func(t *testing.T, n *network, s *Set, p *Pool) {
				a, b := new(busyBackend), new(busyBackend)
				n.set("a:1", a)
				n.set("b:1", b)
				got := crowd(t, p, tt.requests)
				for reason, count := range tt.want {
					if got[reason] != count {
						t.Errorf("got %v, want %v", got, tt.want)
					}
				}
				limit := int64(tt.limits.Connections)
				if tt.limits.Requests > 0 {
					limit = int64(tt.limits.Requests)
				}
				if most := max(a.most.Load(), b.most.Load()); limit > 0 && most != limit {
					t.Errorf("an endpoint had %d at a time, want %d", most, limit)
				}
				if n := p.queue.n.Load(); n != 0 || p.queue.waiting.Len() != 0 {
					t.Errorf("%d are still in the queue", n)
				}
				for _, a := range []string{"a:1", "b:1"} {
					if st := statusOf(t, s, a); !st.Healthy || st.InFlight != 0 {
						t.Errorf("status = %+v", st)
					}
				}
			})
		})
	}
}

// What waits is served in the order in which it came, and a client that leaves gives its place up.
func TestQueueIsInOrder(t *testing.T) {
	withCare(t, Options{}, route.Care{Limits: route.Limits{Connections: 1, Pending: 10, Queue: time.Minute}}, []string{"a:1"}, func(t *testing.T, n *network, s *Set, p *Pool) {
		var mu sync.Mutex
		var order []string
		n.set("a:1", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			mu.Lock()
			order = append(order, r.Host)
			mu.Unlock()
			time.Sleep(time.Second)
		}))
		var wg sync.WaitGroup
		for _, host := range []string{"a", "b", "c", "leaves", "d"} {
			ctx, cancel := context.WithCancel(t.Context())
			if host == "leaves" {
				time.AfterFunc(500*time.Millisecond, cancel)
			}
			wg.Go(func() {
				defer cancel()
				r := do(p, newRequest(t, "GET", host, "").WithContext(ctx))
				if want := map[bool]route.Reason{true: route.ClientClosed}[host == "leaves"]; r.reason() != want {
					t.Errorf("%s: %v", host, r.err)
				}
			})
			synctest.Wait()
		}
		if n := s.Waiting()[testKey]; n != 4 {
			t.Errorf("%d are said to wait", n)
		}
		wg.Wait()
		if n := s.Waiting()[testKey]; n != 0 {
			t.Errorf("in the end %d are said to wait", n)
		}
		if got, want := len(order), 4; got != want || order[0]+order[1]+order[2]+order[3] != "abcd" {
			t.Errorf("served %q", order)
		}
	})
}

// Endpoints that are full are no reason to ask one that is left out for failing.
func TestBusyIsNoReasonToAskWhoFails(t *testing.T) {
	withCare(t, Options{Backoff: time.Hour, MaxBackoff: time.Hour}, route.Care{Limits: route.Limits{Connections: 1}}, []string{"a:1", "b:1", "c:1"}, func(t *testing.T, n *network, _ *Set, p *Pool) {
		n.down("c:1")
		for range 3 {
			do(p, newRequest(t, "GET", "a", ""))
		}
		before := n.dialed("c:1")
		n.set("a:1", new(busyBackend))
		n.set("b:1", new(busyBackend))
		for _, e := range p.list.Load().all {
			e.closeIdle()
		}
		synctest.Wait()
		if got := crowd(t, p, 6); got[route.EndpointsBusy] != 4 || n.dialed("c:1") != before {
			t.Errorf("got %v, %d connections to the endpoint that fails", got, n.dialed("c:1")-before)
		}
	})
}

// A pool that was scaled to zero answers at once, or holds requests until it has an endpoint, for a bounded time and in bounded numbers.
func TestHold(t *testing.T) {
	for _, tt := range []struct {
		name    string
		care    route.Care
		after   time.Duration // when an endpoint appears
		want    map[route.Reason]int
		atLeast time.Duration
	}{
		{"at once", route.Care{}, time.Second, map[route.Reason]int{route.NoEndpoints: 10}, 0},
		{"until there is one", route.Care{Hold: 10 * time.Second}, 3 * time.Second, map[route.Reason]int{"": 10}, 3 * time.Second},
		{"in vain", route.Care{Hold: 2 * time.Second}, 3 * time.Second, map[route.Reason]int{route.NoEndpoints: 10}, 2 * time.Second},
		{"too many", route.Care{Hold: 10 * time.Second, Limits: route.Limits{Pending: 4}}, 3 * time.Second, map[route.Reason]int{"": 4, route.QueueFull: 6}, 3 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			withCare(t, Options{}, tt.care, []string{"a:1"}, func(t *testing.T, _ *network, s *Set, p *Pool) {
				setEndpoints(s)
				start := time.Now()
				timer := time.AfterFunc(tt.after, func() { setEndpoints(s, "a:1") })
				defer timer.Stop()
				got := crowd(t, p, 10)
				for reason, count := range tt.want {
					if got[reason] != count {
						t.Errorf("got %v, want %v", got, tt.want)
					}
				}
				if d := time.Since(start); d < tt.atLeast || d > tt.atLeast+time.Second {
					t.Errorf("it took %s", d)
				}
			})
		})
	}
}

// Those that are held when the process ends are let go.
func TestHoldEndsWithSet(t *testing.T) {
	withCare(t, Options{}, route.Care{Hold: time.Hour}, nil, func(t *testing.T, _ *network, s *Set, p *Pool) {
		time.AfterFunc(time.Second, s.Close)
		if got := crowd(t, p, 3); got[route.NoEndpoints] != 3 {
			t.Errorf("got %v", got)
		}
	})
}

func TestConnectionsWear(t *testing.T) {
	for _, tt := range []struct {
		name   string
		limits route.Limits
		pause  time.Duration
		dials  int // for 20 requests
	}{
		{"not at all", route.Limits{}, time.Second, 1},
		{"by use", route.Limits{Uses: 5}, time.Second, 4},
		{"by age", route.Limits{Lifetime: 10 * time.Second}, 2 * time.Second, 4},
	} {
		for _, protocol := range []route.Protocol{route.HTTP, route.H2C} {
			t.Run(tt.name+" "+string(protocol), func(t *testing.T) {
				withCare(t, Options{IdleTimeout: time.Hour}, route.Care{Limits: tt.limits}, []string{"a:1"}, func(t *testing.T, n *network, s *Set, p *Pool) {
					s.Install([]*route.Pool{{Key: testKey, Protocol: protocol, Care: route.Care{Limits: tt.limits}}})
					for range 20 {
						r := do(p, newRequest(t, "POST", "a", "hello"))
						if r.err != nil || r.Tries != 1 {
							t.Fatalf("%v after %d tries", r.err, r.Tries)
						}
						time.Sleep(tt.pause)
					}
					if d := n.dialed("a:1"); d < tt.dials-int(tt.limits.Lifetime/(10*time.Second)) || d > tt.dials+1 {
						t.Errorf("%d connections, want %d", d, tt.dials)
					}
					setEndpoints(s)
					synctest.Wait()
				})
			})
		}
	}
}

func TestBudgetOfPool(t *testing.T) {
	terms := route.Budget{Percent: 10, Interval: 10 * time.Second, Count: 2, CountInterval: time.Second, Strict: true}
	var refused atomic.Int64
	opt := Options{Hooks: Hooks{RetryRefused: func(route.PoolKey) { refused.Add(1) }}}
	withCare(t, opt, route.Care{Budget: terms}, []string{"a:1", "b:1"}, func(t *testing.T, n *network, _ *Set, p *Pool) {
		n.set("a:1", patient(503, 0))
		n.set("b:1", patient(503, 0))
		counts := map[string]int{}
		for range 1000 { // in 10 s
			a := &Attempt{Retry: &route.Retry{Attempts: 1, Codes: []int{503}, Backoff: 1}}
			res, err := p.Do(newRequest(t, "GET", "a", ""), a)
			if err != nil {
				counts[string((&reply{err: err}).reason())]++
			} else {
				counts["503"]++
				_ = res.Body.Close()
			}
			time.Sleep(10 * time.Millisecond)
		}
		// 100 of 1000 and 2 a second; what is sent again counts among what is sent.
		if n := counts["503"]; n < 110 || n > 145 || counts["retry-budget"] != 1000-n || int(refused.Load()) != 1000-n {
			t.Errorf("got %v, and the hook was told of %d", counts, refused.Load())
		}
	})
}
