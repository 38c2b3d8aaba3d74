package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// network is a network in memory, for tests in which time must not pass by itself.
type network struct {
	mu    sync.Mutex
	up    map[string]http.Handler // nil: accepts connections and breaks them
	wg    sync.WaitGroup
	dials map[string]int
}

func (n *network) set(address string, h http.Handler) { n.mu.Lock(); n.up[address] = h; n.mu.Unlock() }

// dialed is how many connections to an address were made, or refused.
func (n *network) dialed(address string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials[address]
}

func (n *network) down(address string) { n.mu.Lock(); delete(n.up, address); n.mu.Unlock() }

func (n *network) dial(_ context.Context, ep route.Endpoint) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dials[ep.Address]++
	h, ok := n.up[ep.Address]
	if !ok {
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	near, far := net.Pipe()
	n.wg.Go(func() {
		if h == nil {
			readHead(far)
			_ = far.Close()
			return
		}
		srv := &http.Server{Handler: h, Protocols: new(http.Protocols)}
		srv.Protocols.SetHTTP1(true)
		srv.Protocols.SetUnencryptedHTTP2(true)
		_ = srv.Serve(&oneConn{c: far, done: make(chan struct{})})
	})
	return near, nil
}

// oneConn is a listener with one connection, which ends when that is closed.
type oneConn struct {
	net.Conn
	c    net.Conn
	once sync.Once
	done chan struct{}
}

func (l *oneConn) Accept() (c net.Conn, err error) {
	l.once.Do(func() { c = &watched{l.c, l} })
	if c == nil {
		<-l.done
		return nil, net.ErrClosed
	}
	return c, nil
}
func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return l.c.LocalAddr() }

type watched struct {
	net.Conn
	l *oneConn
}

func (w *watched) Close() error {
	defer func() { _ = recover() }() // closed before
	err := w.Conn.Close()
	close(w.l.done)
	return err
}

// inMemory runs a test in a bubble, with a pool of the given endpoints on a network in memory, all of them up.
func inMemory(t *testing.T, opt Options, addresses []string, test func(t *testing.T, n *network, s *Set, p *Pool)) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{up: map[string]http.Handler{}, dials: map[string]int{}}
		for _, a := range addresses {
			n.set(a, echo(a))
		}
		s := New(opt)
		s.dial = n.dial
		s.Install([]*route.Pool{{Key: testKey, Protocol: route.HTTP}})
		setEndpoints(s, addresses...)
		test(t, n, s, s.Pool(testKey))
		s.Close()
		n.wg.Wait()
	})
}

// served sends requests and returns how many each endpoint answered.
func served(t testing.TB, p *Pool, requests int) map[string]int {
	t.Helper()
	got := map[string]int{}
	for range requests {
		got[get(t, p).Endpoint]++
	}
	return got
}

func TestEndpointComesBackAfterBackoff(t *testing.T) {
	inMemory(t, Options{}, []string{"a:1", "b:1", "c:1"}, func(t *testing.T, n *network, s *Set, p *Pool) {
		n.down("a:1")
		if got := served(t, p, 30); got["a:1"] != 0 || got["b:1"] != 15 || got["c:1"] != 15 || n.dials["a:1"] != 1 {
			t.Errorf("with a down: %v, %d dials of a; want none, the others sharing alike, and 1 dial", got, n.dials["a:1"])
		}
		// Each time it fails again the pause doubles, up to 30 s.
		for i, pause := range []float64{1, 2, 4, 8, 16, 30, 30} {
			st := statusOf(t, s, "a:1")
			d := time.Until(st.RetryAt)
			if st.Healthy || st.Failures != i+1 || d < time.Duration(pause*0.89*float64(time.Second)) || d > time.Duration(pause*1.11*float64(time.Second)) {
				t.Fatalf("failure %d: %+v, back in %v, want about %v s", i+1, st, d, pause)
			}
			time.Sleep(d - time.Millisecond)
			served(t, p, 5)
			if n.dials["a:1"] != i+1 {
				t.Fatalf("tried before its time")
			}
			time.Sleep(time.Millisecond)
			served(t, p, 5)
			if n.dials["a:1"] != i+2 {
				t.Fatalf("%d dials after the pause, want exactly one more", n.dials["a:1"]-i-1)
			}
		}
		// Back up: the next trial brings it back, and forgets what was.
		n.set("a:1", echo("a:1"))
		time.Sleep(time.Until(statusOf(t, s, "a:1").RetryAt))
		if got := served(t, p, 31); got["a:1"] < 10 || got["a:1"] > 12 {
			t.Errorf("after it came back: %v, want a third each", got)
		}
		if st := statusOf(t, s, "a:1"); !st.Healthy || st.Failures != 0 || st.Why != "" || !st.RetryAt.IsZero() || st.LastError == "" {
			t.Errorf("status = %+v", st)
		}
		n.down("a:1")
		p.list.Load().all[0].closeIdle()
		time.Sleep(5 * time.Second) // its idle connections end
		served(t, p, 3)
		if d := time.Until(statusOf(t, s, "a:1").RetryAt); d > 1200*time.Millisecond {
			t.Errorf("the next failure costs %v, want about 1 s", d)
		}
	})
}

// An endpoint that swallows packets costs those who meet it first one dial timeout, and nobody an error.
func TestBlackHole(t *testing.T) {
	inMemory(t, Options{}, []string{"a:1", "b:1", "c:1", "d:1"}, func(t *testing.T, n *network, s *Set, p *Pool) {
		s.dial = func(ctx context.Context, ep route.Endpoint) (net.Conn, error) {
			if ep.Address == "a:1" {
				time.Sleep(2 * time.Second)
				return nil, &net.OpError{Op: "dial", Err: syscall.ETIMEDOUT}
			}
			return n.dial(ctx, ep)
		}
		var wg sync.WaitGroup
		var slow atomic.Int32
		start := time.Now()
		for i := range 4000 { // 1,000 a second
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				begun := time.Now()
				r := do(p, newRequest(t, []string{"GET", "POST"}[i%2], "a", strings.Repeat("hello", i%2)))
				d := time.Since(begun)
				if r.err != nil || d > 2*time.Second {
					t.Errorf("%v after %v", r.err, d)
				}
				if d > time.Second {
					slow.Add(1)
					if at := begun.Sub(start); at > 2010*time.Millisecond && at < 2890*time.Millisecond {
						t.Errorf("a request that began after %v waited for it", at)
					}
				}
			})
		}
		wg.Wait()
		if n := slow.Load(); n < 490 || n > 510 { // a quarter of 2 s, then one trial
			t.Errorf("%d slow requests", n)
		}
	})
}

// While one request tries an endpoint whose back-off has ended, the others do not.
func TestOneTrialAtATime(t *testing.T) {
	inMemory(t, Options{}, []string{"a:1", "b:1"}, func(t *testing.T, n *network, s *Set, p *Pool) {
		n.down("a:1")
		served(t, p, 2)
		wait := make(chan struct{})
		n.set("a:1", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-wait }))
		p.list.Load().out[0].why = resetting // so that the connection alone proves nothing
		time.Sleep(1200 * time.Millisecond)
		var wg sync.WaitGroup
		var here atomic.Int32
		for range 10 {
			wg.Go(func() {
				if get(t, p).Endpoint == "a:1" {
					here.Add(1)
				}
			})
		}
		synctest.Wait()
		if st := statusOf(t, s, "a:1"); st.InFlight != 1 || st.Healthy {
			t.Errorf("while it is tried: %+v", st)
		}
		close(wait)
		wg.Wait()
		if here.Load() != 1 || !statusOf(t, s, "a:1").Healthy {
			t.Errorf("%d requests tried it, %+v", here.Load(), statusOf(t, s, "a:1"))
		}
	})
}

// A trial that the client ends proves nothing: the next request is one again.
func TestTrialThatClientAborts(t *testing.T) {
	inMemory(t, Options{}, []string{"a:1", "b:1"}, func(t *testing.T, n *network, s *Set, p *Pool) {
		n.down("a:1")
		served(t, p, 2)
		time.Sleep(1200 * time.Millisecond)
		n.set("a:1", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
		p.list.Load().out[0].why = resetting
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Millisecond, cancel)
		if r := do(p, newRequest(t, "GET", "a", "").WithContext(ctx)); r.Endpoint != "a:1" || r.reason() != route.ClientClosed {
			t.Fatalf("%+v", r)
		}
		if st := statusOf(t, s, "a:1"); st.Healthy || st.Failures != 1 {
			t.Errorf("%+v", st)
		}
		n.set("a:1", echo("a:1"))
		if r := get(t, p); r.Endpoint != "a:1" {
			t.Errorf("the next request went to %s", r.Endpoint)
		}
	})
}

func TestAllUnhealthyAllUsed(t *testing.T) {
	addresses := []string{"a:1", "b:1", "c:1"}
	inMemory(t, Options{}, addresses, func(t *testing.T, n *network, s *Set, p *Pool) {
		for _, a := range addresses {
			n.down(a)
		}
		if r := do(p, newRequest(t, "GET", "a", "")); r.reason() != route.BackendConnectFailed || r.Tries != 3 {
			t.Fatalf("%+v", r)
		}
		for range 5 {
			if r := do(p, newRequest(t, "GET", "a", "")); r.reason() != route.BackendConnectFailed || r.Tries != 3 {
				t.Fatalf("%v after %d tries, want all 3", r.err, r.Tries)
			}
		}
		time.Sleep(time.Millisecond)
		for _, a := range addresses {
			if st := statusOf(t, s, a); st.Failures != 1 {
				t.Errorf("failures within one back-off count once: %+v", st)
			}
			n.set(a, echo(a))
		}
		if got := served(t, p, 9); got["a:1"] < 2 || got["b:1"] < 2 || got["c:1"] < 2 {
			t.Errorf("as soon as they are back: %v, want all to share", got)
		}
	})
}

// After a breakdown of all, many are due for a trial at the same time. A request must not use up its tries on them while there is one that works.
func TestTrialsDoNotUseUpTries(t *testing.T) {
	var addresses []string
	for i := range 8 {
		addresses = append(addresses, fmt.Sprintf("%d:1", i))
	}
	inMemory(t, Options{MaxTries: 3}, addresses, func(t *testing.T, n *network, s *Set, p *Pool) {
		for _, a := range addresses {
			n.down(a)
		}
		for range 10 {
			do(p, newRequest(t, "GET", "a", ""))
		}
		if l := p.list.Load(); len(l.out) != 8 || len(l.turns) != 8 {
			t.Fatalf("%d are out and %d are used, want all", len(l.out), len(l.turns))
		}
		n.set("7:1", echo("7:1"))
		time.Sleep(time.Millisecond)
		for statusOf(t, s, "7:1").Healthy == false {
			do(p, newRequest(t, "GET", "a", ""))
		}
		for range 20 {
			if r := get(t, p); r.Endpoint != "7:1" || r.Tries > 2 {
				t.Errorf("%+v", r.Attempt)
			}
		}
	})
}

// Breaking connections counts, after a few in a row; and requests that may be repeated are, elsewhere.
func TestResettingEndpoint(t *testing.T) {
	addresses := []string{"a:1", "b:1", "c:1", "d:1"}
	inMemory(t, Options{}, addresses, func(t *testing.T, n *network, s *Set, p *Pool) {
		n.set("a:1", nil)
		retries := 0
		for range 40 {
			r := get(t, p)
			retries += r.Tries - 1
		}
		if st := statusOf(t, s, "a:1"); st.Healthy || retries != 3 || st.Why != "connections break before a response" || !strings.Contains(st.LastError, "EOF") {
			t.Errorf("%d retries, %+v, want 3", retries, st)
		}
		// A POST does not try it, while a GET may come that can.
		time.Sleep(1200 * time.Millisecond)
		for range 5 {
			if r := do(p, newRequest(t, "POST", "a", "hello")); r.err != nil || r.Tries != 1 {
				t.Errorf("%+v", r)
			}
		}
		if r := get(t, p); r.Tries != 2 {
			t.Errorf("GET: %+v, want it to try a:1 first", r.Attempt)
		}
		if st := statusOf(t, s, "a:1"); st.Failures < 2 || time.Until(st.RetryAt) < 1800*time.Millisecond {
			t.Errorf("%+v, back in %v", st, time.Until(st.RetryAt))
		}
		// A POST is not repeated.
		n.set("b:1", nil)
		time.Sleep(5 * time.Second)
		failed := 0
		for range 12 {
			if r := do(p, newRequest(t, "POST", "a", "hello")); r.err != nil {
				if failed++; r.reason() != route.BackendReset || r.Tries != 1 {
					t.Errorf("%+v", r)
				}
			}
		}
		if failed < 3 || failed > 4 { // b three times, a once as a trial
			t.Errorf("%d of 12 POSTs failed", failed)
		}
	})
}

// A connection alone does not bring back an endpoint that breaks connections, and does not make its back-off short again if it could not be reached.
func TestConnectionIsNoAnswer(t *testing.T) {
	inMemory(t, Options{RetryPercent: -1, MaxResets: 1}, []string{"a:1", "b:1", "c:1"}, func(t *testing.T, n *network, s *Set, p *Pool) {
		n.down("a:1")
		served(t, p, 3)
		n.set("a:1", nil)
		for i := range 4 {
			time.Sleep(time.Until(statusOf(t, s, "a:1").RetryAt) + time.Minute)
			do(p, newRequest(t, "GET", "a", ""))
			if st := statusOf(t, s, "a:1"); st.Healthy || st.Failures != i+2 {
				t.Errorf("trial %d: %+v", i, st)
			}
		}
	})
}

// A request that crashes the application, sent again and again, must not lead all traffic to a few endpoints.
func TestPoisonousRequestsEjectHalfAtMost(t *testing.T) {
	var addresses []string
	for i := range 10 {
		addresses = append(addresses, fmt.Sprintf("%d:1", i))
	}
	inMemory(t, Options{}, addresses, func(t *testing.T, n *network, _ *Set, p *Pool) {
		crash := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		for _, a := range addresses {
			n.set(a, crash)
		}
		for range 200 {
			do(p, newRequest(t, "GET", "a", ""))
		}
		if l := p.list.Load(); len(l.out) != 5 || len(l.turns) != 5 {
			t.Errorf("%d of 10 are out, want 5", len(l.out))
		}
	})
}

func TestRetriesAreBudgeted(t *testing.T) {
	s := New(Options{})
	defer s.Close()
	b := budget{saved: firstSaved, requests: 1 << 40}
	take := func(now time.Duration, requests uint64, tries int) (n int) {
		for range tries {
			if b.take(now, 1<<40+requests, 20, route.Budget{}) {
				n++
			}
		}
		return n
	}
	if n := take(0, 0, 200); n != firstSaved {
		t.Errorf("at first %d, want %d", n, firstSaved)
	}
	if n := take(0, 100, 100); n != 20 {
		t.Errorf("of 100 requests %d, want 20", n)
	}
	if n := take(5*time.Second, 100, 100); n != 50 {
		t.Errorf("in 5 s without requests %d, want 50", n)
	}
	if n := take(time.Hour, 1_000_000, 5000); n != maxSaved {
		t.Errorf("after a long time %d, want %d", n, maxSaved)
	}
	if b.take(time.Hour, 1<<41, -1, route.Budget{}) {
		t.Error("0 percent allow a retry")
	}
}

// What happened before an endpoint was left out proves nothing about it now: a server that shuts down answers what it has and accepts nothing new.
func TestOldAnswersDoNotBringBack(t *testing.T) {
	inMemory(t, Options{}, []string{"a:1", "b:1"}, func(t *testing.T, n *network, s *Set, p *Pool) {
		wait := make(chan struct{})
		n.set("a:1", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-wait }))
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { get(t, p) })
		}
		synctest.Wait()
		n.down("a:1")
		served(t, p, 4)
		time.Sleep(time.Millisecond)
		close(wait)
		wg.Wait()
		if st := statusOf(t, s, "a:1"); st.Healthy {
			t.Errorf("%+v", st)
		}
	})
}

// Only what the backend did counts.
func TestClientsEjectNobody(t *testing.T) {
	const requests = 10_000
	hang := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.Method == "GET" {
			<-r.Context().Done()
		}
	})
	inMemory(t, Options{}, []string{"a:1", "b:1", "c:1"}, func(t *testing.T, n *network, s *Set, p *Pool) {
		for _, a := range []string{"a:1", "b:1", "c:1"} {
			n.set(a, hang)
		}
		ejected := 0
		s.opt.Hooks.Ejected = func(route.PoolKey, string, time.Time, error) { ejected++ }
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				for range requests / 10 {
					ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
					req := newRequest(t, []string{"POST", "GET"}[i%2], "a", "")
					if req.Method == "POST" {
						req.Body, req.ContentLength = io.NopCloser(failing("5\r\nhel", &bodyError{true})), -1
					}
					r := do(p, req.WithContext(ctx))
					if want := map[string]route.Reason{"POST": route.BadBody, "GET": route.BackendTimeout}[req.Method]; r.reason() != want {
						t.Errorf("%s: %v, want %s", req.Method, r.err, want)
					}
					cancel()
				}
			})
		}
		wg.Wait()
		for _, st := range s.Status()[0].Endpoints {
			if ejected != 0 || !st.Healthy || st.Failures != 0 || st.InFlight != 0 {
				t.Errorf("%d ejections, %+v", ejected, st)
			}
		}
	})
}

// Neither do limits of this machine.
func TestLocalShortageEjectsNobody(t *testing.T) {
	for _, shortage := range []error{syscall.EMFILE, syscall.EADDRNOTAVAIL} {
		s, p := newPoolOf(t, Options{}, route.HTTP, "a:1", "b:1")
		s.dial = func(context.Context, route.Endpoint) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Err: shortage}
		}
		if r := do(p, newRequest(t, "GET", "a", "")); r.reason() != route.Overloaded || r.Tries != 2 || !errors.Is(r.err, shortage) {
			t.Errorf("%+v", r)
		}
		for _, st := range s.Status()[0].Endpoints {
			if !st.Healthy || st.Failures != 0 {
				t.Errorf("%v: %+v", shortage, st)
			}
		}
	}
}

func TestHooksAreTold(t *testing.T) {
	var mu sync.Mutex
	var got []string
	note := func(format string, args ...any) {
		mu.Lock()
		got = append(got, fmt.Sprintf(format, args...))
		mu.Unlock()
	}
	hooks := Hooks{
		Connected: func(key route.PoolKey, endpoint string, _ time.Duration, err error) {
			note("connected %s %s %v", key, endpoint, err == nil)
		},
		Ejected:   func(key route.PoolKey, endpoint string, _ time.Time, _ error) { note("ejected %s %s", key, endpoint) },
		Recovered: func(key route.PoolKey, endpoint string) { note("recovered %s %s", key, endpoint) },
		Retried:   func(key route.PoolKey, endpoint string, _ error) { note("retried %s %s", key, endpoint) },
		Endpoints: func(key route.PoolKey, total, healthy int) { note("endpoints %s %d %d", key, total, healthy) },
	}
	inMemory(t, Options{Hooks: hooks}, []string{"a:1", "b:1"}, func(t *testing.T, n *network, _ *Set, p *Pool) {
		n.down("a:1")
		served(t, p, 2)
		n.set("a:1", echo("a"))
		time.Sleep(1200 * time.Millisecond)
		served(t, p, 1)
		slices.Sort(got)
		want := []string{
			"connected shop/web:80 a:1 false", "connected shop/web:80 a:1 true", "connected shop/web:80 b:1 true", "ejected shop/web:80 a:1",
			"endpoints shop/web:80 2 1", "endpoints shop/web:80 2 2", "endpoints shop/web:80 2 2", "recovered shop/web:80 a:1", "retried shop/web:80 a:1",
		}
		if !slices.Equal(got, want) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	})
}
