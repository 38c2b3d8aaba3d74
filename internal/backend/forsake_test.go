package backend

import (
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// hung never answers and counts the requests that it has.
type hung struct{ has atomic.Int64 }

func (h *hung) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	h.has.Add(1)
	defer h.has.Add(-1)
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

// retriesOf counts the requests that are sent again, and those that are not because of the budget.
func retriesOf(opt *Options) (sent, refused *atomic.Int64) {
	sent, refused = new(atomic.Int64), new(atomic.Int64)
	opt.Hooks.Retried = func(route.PoolKey, string, error) { sent.Add(1) }
	opt.Hooks.RetryRefused = func(route.PoolKey) { refused.Add(1) }
	return sent, refused
}

// spend uses up what the budget of the pool has saved.
func spend(p *Pool) {
	for ok := true; ok; {
		ok, _ = p.mayRetry(true)
	}
}

// What becomes of a request that an endpoint has not answered when the cluster says that it is not ready any more, after 10 s.
func TestRequestsOfEndpointsThatAreGivenUp(t *testing.T) {
	unready := []route.Endpoint{{Address: "b:1"}, {Address: "a:1", Unready: true}}
	tests := []struct {
		name   string
		method string
		body   string
		policy *route.Retry
		budget route.Budget
		change []route.Endpoint
		want   string // who answered and after how many tries, or the reason
		within time.Duration
	}{
		{"a GET goes elsewhere", "GET", "", nil, route.Budget{}, unready, "b:1 200 after 2", 11 * time.Second},
		{"HEAD", "HEAD", "", nil, route.Budget{}, unready, "b:1 200 after 2", 11 * time.Second},
		{"a POST does not, it may have been done", "POST", "hello", nil, route.Budget{}, unready, "a:1 backend-timeout after 1", time.Minute},
		{"not even if a policy has requests sent again", "POST", "hello", &route.Retry{Attempts: 3}, route.Budget{}, unready, "a:1 backend-timeout after 1", time.Minute},
		{"PUT without a policy", "PUT", "hello", nil, route.Budget{}, unready, "a:1 backend-timeout after 1", time.Minute},
		{"PUT with one", "PUT", "hello", &route.Retry{Attempts: 1}, route.Budget{}, unready, "b:1 200 after 2", 11 * time.Second},
		{"a policy that has no attempts", "GET", "", &route.Retry{}, route.Budget{}, unready, "a:1 backend-timeout after 1", time.Minute},
		{"a budget that is spent", "GET", "", nil, route.Budget{Count: 1, CountInterval: 24 * time.Hour}, unready, "a:1 backend-timeout after 1", time.Minute},
		{"an endpoint that terminates finishes what it has", "GET", "", nil, route.Budget{}, []route.Endpoint{{Address: "b:1"}}, "a:1 backend-timeout after 1", time.Minute},
		{"nobody else is there", "GET", "", nil, route.Budget{}, []route.Endpoint{{Address: "a:1", Unready: true}}, "a:1 backend-timeout after 1", time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			opt := Options{}
			sent, _ := retriesOf(&opt)
			withCare(t, opt, route.Care{Budget: tt.budget}, []string{"a:1"}, func(t *testing.T, n *network, s *Set, p *Pool) {
				a := new(hung)
				n.set("a:1", a)
				n.set("b:1", echo("b:1"))
				if tt.budget != (route.Budget{}) { // what is saved to begin with
					spend(p)
				}
				time.AfterFunc(10*time.Second, func() { s.Update(map[route.PoolKey][]route.Endpoint{testKey: tt.change}) })
				r := &reply{Attempt: Attempt{Retry: tt.policy}}
				start, got := time.Now(), ""
				res, err := p.Do(newRequest(t, tt.method, "a", tt.body), &r.Attempt)
				if err == nil {
					_ = res.Body.Close()
					got = fmt.Sprintf("%s %d after %d", r.Endpoint, res.StatusCode, r.Tries)
				} else {
					r.err = err
					got = fmt.Sprintf("%s %s after %d", r.Endpoint, r.reason(), r.Tries)
				}
				if took := time.Since(start); got != tt.want || took > tt.within {
					t.Errorf("got %q in %s, want %q in %s", got, took, tt.want, tt.within)
				}
				if want := int64(r.Tries - 1); sent.Load() != want {
					t.Errorf("%d are said to be sent again, want %d", sent.Load(), want)
				}
				synctest.Wait()
				if a.has.Load() != 0 {
					t.Error("the endpoint that was given up still has the request")
				}
			})
		})
	}
}

// An endpoint is given up, too, when it is left out for failing.
func TestRequestsOfEndpointsThatAreLeftOut(t *testing.T) {
	withCare(t, Options{}, route.Care{}, []string{"a:1", "b:1"}, func(t *testing.T, n *network, _ *Set, p *Pool) {
		n.set("a:1", new(hung))
		time.AfterFunc(5*time.Second, func() {
			p.mu.Lock()
			a := p.endpoints["a:1"]
			p.mu.Unlock()
			p.failed(a, p.set.now(), unreachable, errTLSTimeout)
		})
		start := time.Now()
		if got := crowd(t, p, 20); got[""] != 20 || time.Since(start) > 6*time.Second {
			t.Errorf("got %v after %s", got, time.Since(start))
		}
	})
}

// An endpoint that is slow, and unready because of that, is given the time that it takes.
func TestSlowEndpointsAreNotGivenUp(t *testing.T) {
	opt := Options{}
	sent, _ := retriesOf(&opt)
	withCare(t, opt, route.Care{}, []string{"a:1"}, func(t *testing.T, n *network, s *Set, p *Pool) {
		n.set("a:1", patient(200, 4*time.Second))
		n.set("b:1", echo("b:1"))
		time.Sleep(time.Second)
		get(t, p) // so that it is known what is usual
		n.set("a:1", patient(200, 7*time.Second))
		time.AfterFunc(time.Second, func() {
			s.Update(map[route.PoolKey][]route.Endpoint{testKey: {{Address: "b:1"}, {Address: "a:1", Unready: true}}})
		})
		p.list.Load().all[0].closeIdle() // a connection has the handler that it began with
		if r := get(t, p); r.Endpoint != "a:1" || r.Tries != 1 || sent.Load() != 0 {
			t.Errorf("answered by %s after %d tries and %s", r.Endpoint, r.Tries, r.FirstByte)
		}
	})
}

// A pool that breaks down is not asked even more: beyond the budget requests go on waiting, and are answered if the endpoint comes to it.
func TestGivenUpWithinTheBudget(t *testing.T) {
	opt := Options{RetryPercent: 20}
	sent, refused := retriesOf(&opt)
	budget := route.Budget{Percent: 20, Interval: 10 * time.Second, Count: 10, CountInterval: time.Hour}
	withCare(t, opt, route.Care{Budget: budget}, []string{"a:1"}, func(t *testing.T, n *network, s *Set, p *Pool) {
		n.set("a:1", patient(200, 30*time.Second))
		n.set("b:1", echo("b:1"))
		spend(p)
		time.AfterFunc(5*time.Second, func() {
			s.Update(map[route.PoolKey][]route.Endpoint{testKey: {{Address: "b:1"}, {Address: "a:1", Unready: true}}})
		})
		if got := crowd(t, p, 100); got[""] != 100 {
			t.Errorf("got %v", got)
		}
		if n := sent.Load(); n < 10 || n > 30 {
			t.Errorf("%d of 100 were sent again, the budget is 20%%", n)
		}
		if n := refused.Load(); n < 100-sent.Load() || n > 100 {
			t.Errorf("%d are said to be refused, want those that were not sent again, each once", n)
		}
	})
}

// The pool says how long each try may take, where the rule does not.
func TestResponseTimeoutOfPool(t *testing.T) {
	tests := []struct {
		name    string
		attempt Attempt
		tries   int
		took    time.Duration
		reason  route.Reason
	}{
		{"each try has its time, and others follow", Attempt{Retry: &route.Retry{Attempts: 2}}, 2, 3 * time.Second, ""},
		{"without retries that is the end", Attempt{}, 1, 3 * time.Second, route.BackendTimeout},
		{"a rule that limits the request does not matter", Attempt{HeaderTimeout: -1}, 1, 3 * time.Second, route.BackendTimeout},
		{"a rule that limits the try comes before", Attempt{HeaderTimeout: -1, TryTimeout: 7 * time.Second}, 1, 7 * time.Second, route.BackendTimeout},
		{"a rule that says there is no limit, too", Attempt{HeaderTimeout: time.Hour, TryTimeout: -1}, 1, time.Hour, route.BackendTimeout},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			withCare(t, Options{}, route.Care{Response: 3 * time.Second}, []string{"a:1"}, func(t *testing.T, n *network, s *Set, p *Pool) {
				n.set("a:1", new(hung))
				if tt.tries > 1 {
					time.AfterFunc(time.Second, func() { setEndpoints(s, "a:1", "b:1") })
					n.set("b:1", echo("b:1"))
				}
				start := time.Now()
				r := &reply{Attempt: tt.attempt}
				res, err := p.Do(newRequest(t, "GET", "a", ""), &r.Attempt)
				if err == nil {
					_ = res.Body.Close()
				}
				r.err = err
				if took := time.Since(start).Round(time.Second); took != tt.took || r.Tries != tt.tries || r.reason() != tt.reason {
					t.Errorf("%v after %s and %d tries", err, took, r.Tries)
				}
			})
		})
	}
}
