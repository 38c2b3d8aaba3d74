package proxy

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// A rule's retries and timeouts work together as Gateway API has it: backendRequest limits each try, request all of them.
func TestRuleRetries(t *testing.T) {
	var mu sync.Mutex
	asked := map[string]int{}
	times := func(id string) int { mu.Lock(); defer mu.Unlock(); asked[id]++; return asked[id] }
	// The path says what to do with the first requests of an X-Id, and the header how many: to fail them, to sit on them, to break the connection.
	handler := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		if times(r.Header.Get("X-Id")) > len(r.Header.Get("X-Times")) {
			_, _ = io.WriteString(w, "done "+string(body))
			return
		}
		switch r.URL.Path {
		case "/fail":
			w.WriteHeader(500)
		case "/sit", "/all", "/pool":
			<-r.Context().Done()
		case "/reset":
			panic(http.ErrAbortHandler)
		}
	}
	const short = 150 * time.Millisecond
	rules := map[string]route.Rule{
		"/fail":  {Retry: &route.Retry{Attempts: 2, Codes: []int{500}}},
		"/reset": {Retry: &route.Retry{Attempts: 2}},
		"/pool":  {Retry: &route.Retry{Attempts: 2}, Timeouts: route.Timeouts{Request: time.Minute}}, // and what the pool says
		"/sit":   {Retry: &route.Retry{Attempts: 2}, Timeouts: route.Timeouts{Backend: short}},
		"/all":   {Retry: &route.Retry{Attempts: 50}, Timeouts: route.Timeouts{Backend: short, Request: 3 * short}},
	}
	for _, p := range []route.Protocol{route.HTTP, route.H2C} {
		addr := serveBackend(t, p, handler)
		t.Run(string(p), func(t *testing.T) {
			eachMode(t, func(t *testing.T, m mode) {
				pool := service("web", p)
				pool.Care.Response = 4 * short
				w := one(pool, addr)
				w.rules = nil
				for path, r := range rules {
					to := rule(path, pool)
					to.Retry, to.Timeouts = r.Retry, r.Timeouts
					w.rules = append(w.rules, to)
				}
				r := newRig(t, m, w)
				for _, test := range []struct {
					method, path, times string
					status              int
					reason              string
				}{
					{"GET", "/fail", "xx", 200, ""},
					{"GET", "/fail", "xxx", 500, ""},
					{"POST", "/fail", "xx", 200, ""},
					{"GET", "/reset", "xx", 200, ""},
					{"PUT", "/reset", "xx", 200, ""},
					{"GET", "/pool", "x", 200, ""},
					{"GET", "/sit", "xx", 200, ""},
					{"GET", "/sit", "xxx", 504, "backend-timeout"},
					{"GET", "/all", strings.Repeat("x", 50), 504, "request-timeout"},
				} {
					start := time.Now()
					res := tryRule(r, test.method, test.path, test.times, "")
					for i := 0; i < 5 && test.status == 200 && res.StatusCode == 504; i++ { // the machine was too busy for it to answer in time
						res = tryRule(r, test.method, test.path, test.times, strings.Repeat("again", i+1))
					}
					want := "done "
					if test.method != "GET" {
						want = "done hello"
					}
					if res.StatusCode != test.status || res.Header.Get(ReasonHeader) != test.reason || res.StatusCode == 200 && res.body != want {
						t.Errorf("%s %s %s: got %d %s %q", test.method, test.path, test.times, res.StatusCode, res.Header.Get(ReasonHeader), res.body)
					}
					if d := time.Since(start); test.path == "/all" && d < 3*short {
						t.Errorf("timed out after %s, want %s", d, 3*short)
					}
				}
				retries := 0.0
				for _, e := range r.entries() {
					n, _ := e["retries"].(float64)
					retries += n
				}
				if counted := r.counter("fairlead_backend_retries_total"); counted != retries || counted < 15 {
					t.Errorf("%v retries were counted, and %v logged", counted, retries)
				}
			})
		})
	}
}

// tryRule sends a request that the backend of TestRuleRetries has not seen before.
func tryRule(r *rig, method, path, times, id string) answer {
	r.t.Helper()
	var body io.Reader
	if method != "GET" {
		body = strings.NewReader("hello")
	}
	req := r.request(method, path, body)
	req.Header.Set("X-Id", r.t.Name()+method+path+times+id)
	req.Header.Set("X-Times", times)
	return r.do(req)
}
