package backend

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// withCare is inMemory for a pool with care.
func withCare(t *testing.T, opt Options, care route.Care, addresses []string, test func(t *testing.T, n *network, s *Set, p *Pool)) {
	t.Helper()
	inMemory(t, opt, addresses, func(t *testing.T, n *network, s *Set, p *Pool) {
		s.Install([]*route.Pool{{Key: testKey, Protocol: route.HTTP, Care: care}})
		test(t, n, s, p)
	})
}

// patient answers after a delay, with a status.
func patient(status int, delay time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(delay):
			w.WriteHeader(status)
		case <-r.Context().Done():
		}
	})
}

// load sends requests one after the other and returns how many of each status came from an endpoint.
func load(t *testing.T, p *Pool, requests int, a Attempt) map[string]int {
	t.Helper()
	got := map[string]int{}
	for range requests {
		time.Sleep(time.Millisecond)
		a := a
		res, err := p.Do(newRequest(t, "GET", "a", ""), &a)
		if err != nil {
			got[fmt.Sprint(a.Endpoint, " ", (&reply{err: err}).reason())]++
			continue
		}
		_, _ = io.ReadAll(res.Body)
		_ = res.Body.Close()
		got[fmt.Sprint(a.Endpoint, " ", res.StatusCode)]++
	}
	return got
}

var fourEndpoints = []string{"a:1", "b:1", "c:1", "d:1"}

// An endpoint that fails more than the others is left out, and comes back when it answers well; the time in between doubles.
func TestFailureOutlier(t *testing.T) {
	withCare(t, Options{Backoff: 10 * time.Second, MaxBackoff: time.Minute}, route.Care{}, fourEndpoints, func(t *testing.T, n *network, s *Set, p *Pool) {
		for _, a := range fourEndpoints {
			n.set(a, patient(200, 0))
		}
		n.set("a:1", patient(500, 0))
		got := load(t, p, 2000, Attempt{})
		if bad := got["a:1 500"]; bad != sureStreak {
			t.Errorf("%d requests failed, want %d: %v", bad, sureStreak, got)
		}
		if st := statusOf(t, s, "a:1"); st.Healthy || st.Why != "it fails more than others" || st.Ejections != 1 {
			t.Errorf("status = %+v", st)
		}
		time.Sleep(15 * time.Second) // a trial fails
		if got := load(t, p, 1000, Attempt{}); got["a:1 500"] != 1 {
			t.Errorf("in trials %v", got)
		}
		if st := statusOf(t, s, "a:1"); st.Healthy || time.Until(st.RetryAt) < 15*time.Second {
			t.Errorf("status after a trial = %+v", st)
		}
		n.set("a:1", patient(200, 0))
		for _, e := range p.list.Load().all {
			e.closeIdle()
		}
		time.Sleep(25 * time.Second)
		if got := load(t, p, 400, Attempt{}); got["a:1 200"] < 90 {
			t.Errorf("after it has recovered %v", got)
		}
		if st := statusOf(t, s, "a:1"); !st.Healthy || st.Ejections != 1 {
			t.Errorf("status after recovery = %+v", st)
		}
	})
}

// An endpoint that turns bad is found about as soon as one that always was: what it did before does not excuse it. With few requests it takes as many answers.
func TestFailureOutlierAfterGoodAnswers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		pause  time.Duration // between the requests to one endpoint
		bad    http.Handler
		within time.Duration
	}{
		{"errors", 20 * time.Millisecond, patient(500, 0), 1500 * time.Millisecond},
		{"hangs", 20 * time.Millisecond, patient(200, time.Hour), 2500 * time.Millisecond}, // a try takes 1 s
		{"errors now and then", 400 * time.Millisecond, patient(500, 0), 6 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			withCare(t, Options{Backoff: time.Hour}, route.Care{}, fourEndpoints, func(t *testing.T, n *network, s *Set, p *Pool) {
				ask := func() {
					a := Attempt{TryTimeout: time.Second}
					if res, err := p.Do(newRequest(t, "GET", "a", ""), &a); err == nil {
						_ = res.Body.Close()
					}
				}
				for range 4 * int(30*time.Second/tt.pause) {
					go ask()
					time.Sleep(tt.pause / 4)
				}
				n.set("a:1", tt.bad)
				for _, e := range p.list.Load().all {
					e.closeIdle()
				}
				turned := time.Now()
				for statusOf(t, s, "a:1").Healthy && time.Since(turned) < time.Minute {
					go ask()
					time.Sleep(tt.pause / 4)
				}
				if d := time.Since(turned); d > tt.within {
					t.Errorf("found after %s", d)
				}
				time.Sleep(2 * time.Second) // the last ones
			})
		})
	}
}

// One that answers well now and then is found by the share of its failures.
func TestFailureOutlierThatIsNotAlwaysBad(t *testing.T) {
	withCare(t, Options{Backoff: time.Hour}, route.Care{}, fourEndpoints, func(t *testing.T, n *network, s *Set, p *Pool) {
		for _, a := range fourEndpoints {
			n.set(a, patient(200, 0))
		}
		var asked atomic.Int64
		n.set("a:1", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if asked.Add(1)%4 > 0 {
				w.WriteHeader(500)
			}
		}))
		got := load(t, p, 2000, Attempt{})
		if bad := got["a:1 500"]; bad < fewAnswers*3/4 || bad > 150 {
			t.Errorf("%d requests failed, want about those of %s: %v", bad, judgePause, got)
		}
		if st := statusOf(t, s, "a:1"); st.Healthy || !strings.HasSuffix(st.LastError, "answers were bad") {
			t.Errorf("status = %+v", st)
		}
	})
}

// Failures in a row that are old, or that others have as well, are no streak.
func TestStreakOfLate(t *testing.T) {
	for _, tt := range []struct {
		name  string
		pause time.Duration // between the requests
		other http.Handler
	}{
		{"long ago", time.Second, patient(200, 0)},
		{"everywhere", time.Millisecond, patient(500, 0)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			withCare(t, Options{}, route.Care{}, fourEndpoints, func(t *testing.T, n *network, s *Set, p *Pool) {
				for _, a := range fourEndpoints {
					n.set(a, tt.other)
				}
				n.set("a:1", patient(500, 0))
				for range 200 {
					load(t, p, 1, Attempt{})
					time.Sleep(tt.pause)
				}
				if st := statusOf(t, s, "a:1"); !st.Healthy || st.Ejections > 0 {
					t.Errorf("status = %+v", st)
				}
			})
		})
	}
}

// What all endpoints answer says more about the requests. A client that can cause errors must not get any endpoint left out.
func TestFailuresOfAllAreNoOutlier(t *testing.T) {
	for name, care := range map[string]route.Care{"by default": {}, "low limit": {Outlier: route.Outlier{FailurePercent: 10}}} {
		t.Run(name, func(t *testing.T) {
			withCare(t, Options{}, care, fourEndpoints, func(t *testing.T, n *network, s *Set, p *Pool) {
				var i atomic.Int64
				for _, a := range fourEndpoints {
					n.set(a, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
						if i.Add(1)%3 > 0 {
							w.WriteHeader(500)
						}
					}))
				}
				load(t, p, 3000, Attempt{})
				for _, a := range fourEndpoints {
					if st := statusOf(t, s, a); !st.Healthy || st.Ejections > 0 {
						t.Errorf("status = %+v", st)
					}
				}
			})
		})
	}
}

// Where clients are tied to endpoints, one of them could have its endpoint left out; so that is not done unasked.
func TestFailureOutlierNeedsFreeChoice(t *testing.T) {
	for _, tt := range []struct {
		policy route.Policy
		care   route.Care
		out    bool
	}{
		{route.Policy{Algorithm: route.DestinationHash}, route.Care{}, false},
		{route.Policy{Algorithm: route.LeastConnections}, route.Care{}, true},
		{route.Policy{Persistence: route.Persistence{Name: "a"}}, route.Care{}, false},
		{route.Policy{Persistence: route.Persistence{Name: "a"}}, route.Care{Outlier: route.Outlier{FailurePercent: 50}}, true},
		{route.Policy{}, route.Care{Outlier: route.Outlier{FailurePercent: -1}}, false},
	} {
		inMemory(t, Options{Backoff: time.Hour, MaxBackoff: time.Hour}, fourEndpoints, func(t *testing.T, n *network, s *Set, p *Pool) {
			s.Install([]*route.Pool{{Key: testKey, Protocol: route.HTTP, Policy: tt.policy, Care: tt.care}})
			n.set("a:1", patient(500, 0))
			for i := range 2000 {
				req := newRequest(t, "GET", fmt.Sprint("host", i), "")
				do(p, req)
				time.Sleep(time.Millisecond)
			}
			if st := statusOf(t, s, "a:1"); st.Healthy == tt.out {
				t.Errorf("%s: %+v", tt.policy, st)
			}
		})
	}
}

func TestConsecutiveFailures(t *testing.T) {
	withCare(t, Options{Backoff: time.Hour}, route.Care{Outlier: route.Outlier{Consecutive: 3, FailurePercent: -1}}, fourEndpoints, func(t *testing.T, n *network, s *Set, p *Pool) {
		n.set("a:1", patient(503, 0))
		n.set("b:1", &script{words: []string{"503", "503", "200", "503", "503", "200"}})
		got := load(t, p, 200, Attempt{})
		if got["a:1 503"] != 3 || got["b:1 503"] != 4 {
			t.Errorf("got %v", got)
		}
		if st := statusOf(t, s, "a:1"); st.Healthy || st.LastError != "3 bad answers in a row; the last: it answered 503" {
			t.Errorf("status = %+v", st)
		}
	})
}

// Half of the endpoints may be left out for how they answer, or as many as is said.
func TestMostEjected(t *testing.T) {
	for percent, want := range map[int]int{0: 2, 25: 1, 80: 3, 10: 0} {
		withCare(t, Options{Backoff: time.Hour}, route.Care{Outlier: route.Outlier{Consecutive: 2, FailurePercent: -1, MaxPercent: percent, Panic: -1}}, fourEndpoints, func(t *testing.T, n *network, _ *Set, p *Pool) {
			for _, a := range fourEndpoints {
				n.set(a, patient(502, 0))
			}
			load(t, p, 200, Attempt{})
			if l := p.list.Load(); len(l.out) != want {
				t.Errorf("%d %%: %d are left out, want %d", percent, len(l.out), want)
			}
		})
	}
}

// When too few are left the others are used as well, but not those that cannot be reached.
func TestPanic(t *testing.T) {
	five := append([]string{"e:1"}, fourEndpoints...)
	withCare(t, Options{Backoff: time.Hour}, route.Care{Outlier: route.Outlier{Consecutive: 2, FailurePercent: -1, MaxPercent: 100}}, five, func(t *testing.T, n *network, _ *Set, p *Pool) {
		n.down("e:1")
		for _, a := range []string{"a:1", "b:1", "c:1"} {
			n.set(a, patient(502, 0))
		}
		got := load(t, p, 400, Attempt{})
		if l := p.list.Load(); len(l.out) != 4 || len(l.in) != 4 || got["e:1 backend-connect-failed"] != 0 || got["a:1 502"] < 50 {
			t.Errorf("%d are left out, %d in use: %v", len(l.out), len(l.in), got)
		}
	})
}

// An endpoint that is ten times slower is left out if that is asked for, and stays out until it is not slow any more.
func TestLatencyOutlier(t *testing.T) {
	for _, times := range []int{0, 5} {
		withCare(t, Options{Backoff: 10 * time.Second, MaxBackoff: 10 * time.Second}, route.Care{Outlier: route.Outlier{Latency: times}}, fourEndpoints, func(t *testing.T, n *network, s *Set, p *Pool) {
			for _, a := range fourEndpoints {
				n.set(a, patient(200, 10*time.Millisecond))
			}
			n.set("a:1", patient(200, 100*time.Millisecond))
			load(t, p, 200, Attempt{})
			st := statusOf(t, s, "a:1")
			if out := times > 0; st.Healthy == out || out && st.LastError != "it takes 100ms to answer, others 10ms" {
				t.Errorf("%d times: %+v", times, st)
			}
			if times == 0 {
				return
			}
			time.Sleep(15 * time.Second)
			load(t, p, 20, Attempt{})
			if statusOf(t, s, "a:1").Healthy {
				t.Error("a slow answer has brought it back")
			}
			n.set("a:1", patient(200, 10*time.Millisecond))
			for _, e := range p.list.Load().all {
				e.closeIdle()
			}
			synctest.Wait()
			time.Sleep(15 * time.Second)
			load(t, p, 20, Attempt{})
			if st := statusOf(t, s, "a:1"); !st.Healthy {
				t.Errorf("after it has recovered %+v", st)
			}
		})
	}
}

// An endpoint that hangs is found by the time that a try, or the whole request, may take.
func TestHangingOutlier(t *testing.T) {
	withCare(t, Options{Backoff: time.Hour}, route.Care{}, fourEndpoints, func(t *testing.T, n *network, s *Set, p *Pool) {
		n.set("a:1", patient(200, time.Hour))
		got := load(t, p, 400, Attempt{TryTimeout: 100 * time.Millisecond})
		if bad := got["a:1 backend-timeout"]; bad != sureStreak || statusOf(t, s, "a:1").Healthy {
			t.Errorf("got %v", got)
		}
	})
}

// An endpoint that hangs is tried less and less often, as one that fails is: each trial costs a client the time that a try may take.
func TestHangingEndpointIsTriedLessAndLess(t *testing.T) {
	for _, tt := range []struct {
		name    string
		timeout time.Duration // of a try
		request func(*testing.T) *http.Request
	}{
		{"late", time.Second, func(t *testing.T) *http.Request { return newRequest(t, "POST", "a", "x") }},
		{"late, safe", time.Second, func(t *testing.T) *http.Request { return newRequest(t, "GET", "a", "") }},
		{"never heard of", time.Hour, func(t *testing.T) *http.Request { return newRequest(t, "POST", "a", "x") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			withCare(t, Options{}, route.Care{}, fourEndpoints, func(t *testing.T, n *network, _ *Set, p *Pool) {
				for _, a := range fourEndpoints {
					n.set(a, patient(200, 0))
				}
				n.set("a:1", patient(500, 0))
				var lost, asked atomic.Int64
				ctx, cancel := context.WithCancel(t.Context())
				ask := func() {
					a := Attempt{TryTimeout: tt.timeout}
					res, err := p.Do(tt.request(t).WithContext(ctx), &a)
					if a.Endpoint == "a:1" {
						asked.Add(1)
					}
					if err != nil {
						lost.Add(1)
						return
					}
					_ = res.Body.Close()
				}
				load(t, p, 100, Attempt{})
				n.set("a:1", patient(200, time.Hour))
				for _, e := range p.list.Load().all {
					e.closeIdle()
				}
				var wg sync.WaitGroup
				for range 4000 { // 20 s
					wg.Go(ask)
					time.Sleep(5 * time.Millisecond)
				}
				cancel()
				wg.Wait()
				// After 1, 2, 4, 8 s or a little more, and twice as long where no request is safe.
				if n := max(lost.Load(), asked.Load()); n < 2 || n > 6 {
					t.Errorf("%d requests went there in 20 s, %d were lost", asked.Load(), lost.Load())
				}
			})
		})
	}
}
