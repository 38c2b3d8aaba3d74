package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// script is a backend that answers the requests of one after the other: with a status, after a delay if the words are "200 in 1s", or not at all if they are
// "reset". The last one answers all that follow.
type script struct {
	mu    sync.Mutex
	words []string
	asked []string // the bodies of the requests so far
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	words := s.words[min(len(s.asked), len(s.words)-1)]
	s.asked = append(s.asked, string(body))
	s.mu.Unlock()
	if words == "reset" {
		panic(http.ErrAbortHandler)
	}
	status, delay := 0, "0s"
	_, _ = fmt.Sscanf(words, "%d in %s", &status, &delay)
	d, err := time.ParseDuration(delay)
	if err != nil {
		panic(err)
	}
	select {
	case <-time.After(d):
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, "answer %d", len(s.asked))
	case <-r.Context().Done():
	}
}

func (s *script) count() int { s.mu.Lock(); defer s.mu.Unlock(); return len(s.asked) }

func TestRetryPolicy(t *testing.T) {
	policy := func(attempts int, codes ...int) *route.Retry { return &route.Retry{Attempts: attempts, Codes: codes} }
	tests := []struct {
		name   string
		method string
		body   string
		retry  *route.Retry
		limit  time.Duration // of each try
		script []string
		want   string // the status, or the reason
		asked  int
	}{
		{"a code that is listed", "GET", "", policy(3, 500, 503), 0, []string{"500", "503", "200"}, "200 answer 3", 3},
		{"attempts are beyond the first try, and the last answer is returned", "GET", "", policy(3, 500), 0, []string{"500"}, "500 answer 4", 4},
		{"a code that is not listed", "GET", "", policy(3, 500), 0, []string{"503", "200"}, "503 answer 1", 1},
		{"no attempts", "GET", "", policy(0, 500), 0, []string{"500", "200"}, "500 answer 1", 1},
		{"no policy", "GET", "", nil, 0, []string{"500", "200"}, "500 answer 1", 1},
		{"a code, of any method, with the body", "POST", "hello", policy(1, 503), 0, []string{"503", "200"}, "200 answer 2", 2},
		{"a body that is too long to be kept", "POST", strings.Repeat("x", maxReplay+1), policy(1, 503), 0, []string{"503", "200"}, "503 answer 1", 1},
		{"a reset", "GET", "", policy(2), 0, []string{"reset", "reset", "200"}, "200 answer 3", 3},
		{"a reset, without attempts", "GET", "", policy(0), 0, []string{"reset", "200"}, "backend-reset", 1},
		{"a reset of a request that may be repeated", "PUT", "hello", policy(1), 0, []string{"reset", "200"}, "200 answer 2", 2},
		{"a reset of one that may not", "POST", "hello", policy(2), 0, []string{"reset", "200"}, "backend-reset", 1},
		{"a try that takes too long", "GET", "", policy(2), time.Second, []string{"200 in 1h", "200 in 1h", "200"}, "200 answer 3", 3},
		{"every try takes too long", "GET", "", policy(2), time.Second, []string{"200 in 1h"}, "backend-timeout", 3},
		{"a try that takes too long, of a request that may not be repeated", "POST", "hello", policy(2), time.Second, []string{"200 in 1h"}, "backend-timeout", 1},
		{"first one and then the other", "GET", "", policy(2, 503), time.Second, []string{"200 in 1h", "503", "200"}, "200 answer 3", 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inMemory(t, Options{MaxResets: 100}, []string{"a:1"}, func(t *testing.T, n *network, _ *Set, p *Pool) {
				s := &script{words: tt.script}
				n.set("a:1", s)
				a := &Attempt{Retry: tt.retry, TryTimeout: tt.limit}
				got := ""
				res, err := p.Do(newRequest(t, tt.method, "a", tt.body), a)
				if err == nil {
					body, _ := io.ReadAll(res.Body)
					_ = res.Body.Close()
					got = fmt.Sprint(res.StatusCode, " ", string(body))
				} else {
					got = string((&reply{err: err}).reason())
				}
				if got != tt.want || s.count() != tt.asked || a.Tries != tt.asked {
					t.Errorf("got %q after asking %d times (%d tries), want %q after %d", got, s.count(), a.Tries, tt.want, tt.asked)
				}
				for i, body := range s.asked {
					if body != tt.body {
						t.Errorf("the body of request %d has %d bytes", i, len(body))
					}
				}
			})
		})
	}
}

func TestRetryGoesElsewhere(t *testing.T) {
	inMemory(t, Options{}, []string{"a:1", "b:1", "c:1"}, func(t *testing.T, n *network, _ *Set, p *Pool) {
		bad := &script{words: []string{"503"}}
		n.set("a:1", bad)
		n.set("b:1", bad)
		for range 9 {
			r := &reply{Attempt: Attempt{Retry: &route.Retry{Attempts: 2, Codes: []int{503}}}}
			res, err := p.Do(newRequest(t, "GET", "a", ""), &r.Attempt)
			if err != nil || res.StatusCode != 200 || r.Endpoint != "c:1" || r.Tries > 3 {
				t.Fatalf("%v, %v from %s after %d tries", res, err, r.Endpoint, r.Tries)
			}
			_ = res.Body.Close()
		}
	})
}

func TestRetryBackoff(t *testing.T) {
	inMemory(t, Options{}, []string{"a:1"}, func(t *testing.T, n *network, _ *Set, p *Pool) {
		s := &script{words: []string{"503"}}
		n.set("a:1", s)
		start := time.Now()
		a := &Attempt{Retry: &route.Retry{Attempts: 3, Codes: []int{503}, Backoff: 100 * time.Millisecond}}
		res, err := p.Do(newRequest(t, "GET", "a", ""), a)
		if err != nil || res.StatusCode != 503 {
			t.Fatal(res, err)
		}
		_ = res.Body.Close()
		if d := time.Since(start); d < 700*time.Millisecond || d > 875*time.Millisecond {
			t.Errorf("it took %s, want 100, 200 and 400 ms and at most a quarter more", d)
		}

		// The end of the request ends the pause.
		ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("enough"))
		defer cancel()
		a = &Attempt{Retry: &route.Retry{Attempts: 3, Codes: []int{503}, Backoff: time.Hour}}
		_, err = p.Do(newRequest(t, "GET", "a", "").WithContext(ctx), a)
		if r := (&reply{err: err}).reason(); r != route.BackendTimeout || !strings.Contains(err.Error(), "enough") || a.Tries != 1 {
			t.Errorf("%v after %d tries", err, a.Tries)
		}
	})
}

// A try that takes too long after its response has begun cannot be helped any more.
func TestTryTimeoutOfResponse(t *testing.T) {
	inMemory(t, Options{}, []string{"a:1"}, func(t *testing.T, n *network, _ *Set, p *Pool) {
		n.set("a:1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "begun")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}))
		res, err := p.Do(newRequest(t, "GET", "a", ""), &Attempt{TryTimeout: time.Second, Retry: &route.Retry{Attempts: 2}})
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if r := (&reply{err: err}).reason(); string(body) != "begun" || r != route.BackendTimeout {
			t.Errorf("read %q, %v", body, err)
		}
	})
}

// A client that is slow to send its body does not have it sent again, and is woken up.
func TestTryTimeoutWhileBodyIsRead(t *testing.T) {
	inMemory(t, Options{}, []string{"a:1"}, func(t *testing.T, _ *network, _ *Set, p *Pool) {
		r, w := io.Pipe()
		req := newRequest(t, "PUT", "a", "")
		req.Body, req.ContentLength = r, 10
		go func() { _, _ = io.WriteString(w, "part") }()
		a := &Attempt{TryTimeout: time.Second, Retry: &route.Retry{Attempts: 2}, Interrupt: func() { _ = w.CloseWithError(errors.New("woken")) }}
		_, err := p.Do(req, a)
		if got := (&reply{err: err}).reason(); got != route.BackendTimeout || a.Tries != 1 {
			t.Errorf("%v after %d tries", err, a.Tries)
		}
		synctest.Wait()
	})
}

// A response that is passed over leaves its connection for others if it is short, and costs no time if it does not end.
func TestResponsesPassedOver(t *testing.T) {
	inMemory(t, Options{}, []string{"a:1"}, func(t *testing.T, n *network, _ *Set, p *Pool) {
		n.set("a:1", &script{words: []string{"503", "503", "200"}})
		a := &Attempt{Retry: &route.Retry{Attempts: 2, Codes: []int{503}}}
		res, err := p.Do(newRequest(t, "GET", "a", ""), a)
		if err != nil || res.StatusCode != 200 || !a.Reused || n.dialed("a:1") != 1 {
			t.Errorf("%v, %v: %d connections for %d tries", res, err, n.dialed("a:1"), a.Tries)
		}
		_ = res.Body.Close()

		tries := 0
		n.set("a:1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if tries++; tries == 1 {
				w.WriteHeader(503)
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			}
		}))
		p.list.Load().all[0].closeIdle()
		synctest.Wait()
		start := time.Now()
		if res, err = p.Do(newRequest(t, "GET", "a", ""), &Attempt{Retry: a.Retry}); err != nil || res.StatusCode != 200 || time.Since(start) > 200*time.Millisecond {
			t.Fatalf("%v, %v after %s", res, err, time.Since(start))
		}
		_ = res.Body.Close()
	})
}

func TestRetriesOfPolicyAreBudgeted(t *testing.T) {
	inMemory(t, Options{}, []string{"a:1", "b:1"}, func(t *testing.T, n *network, _ *Set, p *Pool) {
		bad := &script{words: []string{"503"}}
		n.set("a:1", bad)
		n.set("b:1", bad)
		const requests = 1000
		tries := 0
		for range requests {
			a := &Attempt{Retry: &route.Retry{Attempts: 5, Codes: []int{503}, Backoff: 1}}
			res, err := p.Do(newRequest(t, "GET", "a", ""), a)
			if err != nil || res.StatusCode != 503 {
				t.Fatal(res, err)
			}
			_ = res.Body.Close()
			tries += a.Tries
		}
		// The budget counts what is sent again among what is sent.
		if again, most := tries-requests, firstSaved+tries/5+1; again > most || again < most*9/10 {
			t.Errorf("%d of %d requests were sent again, want about %d", again, requests, most)
		}
	})
}

func TestRetryOfConnectionsToTheOnlyEndpoint(t *testing.T) {
	inMemory(t, Options{Backoff: time.Hour}, []string{"a:1"}, func(t *testing.T, n *network, _ *Set, p *Pool) {
		n.down("a:1")
		time.AfterFunc(time.Second, func() { n.set("a:1", echo("a")) })
		a := &Attempt{Retry: &route.Retry{Attempts: 5, Backoff: 300 * time.Millisecond}}
		res, err := p.Do(newRequest(t, "POST", "a", "hello"), a)
		if err != nil || a.Tries != 4 && a.Tries != 3 {
			t.Fatalf("%v, %v after %d tries", res, err, a.Tries)
		}
		_ = res.Body.Close()
	})
}
