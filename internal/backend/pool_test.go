package backend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// Endpoints come and go under load, and no request fails for it.
func TestEndpointsChangeUnderLoad(t *testing.T) {
	for _, protocol := range []route.Protocol{route.HTTP, route.H2C, route.HTTPS} {
		t.Run(string(protocol), func(t *testing.T) {
			var addresses []string
			for i := range 4 {
				addresses = append(addresses, serve(t, protocol, echo(fmt.Sprint(i))).Address)
			}
			s, p := newPoolOf(t, Options{}, protocol, addresses...)
			var stop atomic.Bool
			var sent atomic.Int64
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Go(func() {
					for !stop.Load() {
						r := do(p, newRequest(t, []string{"GET", "POST"}[i%2], "a.example.com", strings.Repeat("hello", i%2)))
						if r.err != nil || r.status != 200 {
							t.Errorf("%v %+v", r.err, r)
							return
						}
						sent.Add(1)
					}
				})
			}
			pool := []*route.Pool{{Key: testKey, Protocol: protocol}}
			for i := range 200 {
				for before := sent.Load(); sent.Load() < before+5 && !t.Failed(); {
					time.Sleep(100 * time.Microsecond)
				}
				switch i % 4 {
				case 3: // the pool is retired and comes back, perhaps as another one
					s.Install(nil)
					s.Install(pool)
					if again := s.Pool(testKey); again != p && len(again.list.Load().all) != 0 {
						t.Error("a new pool has endpoints")
					}
					s.mu.Lock()
					s.pools[testKey] = p // as a table would that still holds it
					s.mu.Unlock()
					p.retired.Store(false)
				default:
					setEndpoints(s, addresses[i%4], addresses[(i+1)%4])
				}
			}
			stop.Store(true)
			wg.Wait()
			setEndpoints(s)
		})
	}
}

// The idle connections of an endpoint that leaves are closed at once; those in use when their requests end.
func TestConnectionsOfEndpointThatLeft(t *testing.T) {
	for _, protocol := range []route.Protocol{route.HTTP, route.H2C, route.HTTPS, route.WSS} {
		t.Run(string(protocol), func(t *testing.T) {
			var open atomic.Int64
			begun, finish := make(chan struct{}), make(chan struct{})
			b := serve(t, protocol, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == "GET" {
					w.WriteHeader(200)
					_ = http.NewResponseController(w).Flush()
					begun <- struct{}{}
					<-finish
					_, _ = io.WriteString(w, "done")
				}
			}), func(s *http.Server) {
				s.ConnState = func(_ net.Conn, st http.ConnState) {
					switch st {
					case http.StateNew:
						open.Add(1)
					case http.StateClosed:
						open.Add(-1)
					}
				}
			})
			s, p := newPoolOf(t, Options{IdleTimeout: time.Hour}, protocol, b.Address)
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() {
					if r := do(p, newRequest(t, "GET", "a", "")); r.err != nil || r.body != "done" {
						t.Errorf("request that was in flight: %q, %v", r.body, r.err)
					}
				})
			}
			for range 3 {
				<-begun
			}
			e := p.list.Load().all[0]
			for range 3 { // leaves something idle
				do(p, newRequest(t, "DELETE", "a", ""))
			}
			setEndpoints(s)
			if r := do(p, newRequest(t, "DELETE", "a", "")); r.reason() != route.NoEndpoints {
				t.Errorf("after it left: %+v", r)
			}
			busy := int64(3)
			if protocol == route.H2C || protocol == route.HTTPS {
				busy = 1
			}
			eventually(t, "only connections in use are open", func() bool { return open.Load() <= busy })
			for range 3 {
				finish <- struct{}{}
			}
			wg.Wait()
			eventually(t, "all connections are closed", func() bool {
				e.mu.Lock()
				defer e.mu.Unlock()
				return open.Load() == 0 && len(e.conns) == 0
			})
		})
	}
}

// An address that comes back has a new process behind it, in all likelihood.
func TestAddressThatComesBackIsNew(t *testing.T) {
	s, p := newPoolOf(t, Options{}, route.HTTP, "127.0.0.1:1", "127.0.0.1:2")
	e := p.endpoints["127.0.0.1:1"]
	p.failed(e, p.set.now(), unreachable, io.EOF)
	setEndpoints(s, "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")
	if st := statusOf(t, s, "127.0.0.1:1"); st.Healthy {
		t.Error("it was there all the time and lost its health")
	}
	setEndpoints(s, "127.0.0.1:2")
	setEndpoints(s, "127.0.0.1:1", "127.0.0.1:2")
	if st := statusOf(t, s, "127.0.0.1:1"); !st.Healthy || p.endpoints["127.0.0.1:1"] == e {
		t.Errorf("%+v", st)
	}
	// What is still said about the old one changes nothing.
	p.failed(e, p.set.now(), unreachable, io.EOF)
	if st := statusOf(t, s, "127.0.0.1:1"); !st.Healthy {
		t.Errorf("%+v", st)
	}
}

// An endpoint that goes between being picked and being used is not used, if there is another list by then; and for once, if there is not.
func TestEndpointGoesWhileItIsPicked(t *testing.T) {
	s, p := newPoolOf(t, Options{}, route.HTTP, "127.0.0.1:1")
	e := p.endpoints["127.0.0.1:1"]
	e.leave()
	if e.enter(0) == entered || e.inFlight.Load() != 0 {
		t.Errorf("entered an endpoint that has gone; %d in flight", e.inFlight.Load())
	}
	got, _, _ := p.acquire(wish{}, nil)
	if got == nil || got == e || got.address != e.address || got.inFlight.Load() != 1 || !got.gone.Load() {
		t.Errorf("%+v", got)
	}
	got.release()
	setEndpoints(s, "127.0.0.1:2")
	if got, _, _ := p.acquire(wish{}, nil); got.address != "127.0.0.1:2" {
		t.Errorf("%+v", got)
	}
}

// A connection that is made after everybody has left is closed, and a dial that is called off says nothing about the endpoint.
func TestLateConnections(t *testing.T) {
	b := serve(t, route.HTTP, echo("a"))
	s, p := newPoolOf(t, Options{}, route.HTTP, b.Address)
	e := p.endpoints[b.Address]
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dial := e.dialPlain(true)
	if _, err := dial(ctx, "", ""); err == nil {
		t.Error("connected with a context that has ended")
	}
	if st := statusOf(t, s, b.Address); !st.Healthy || st.Failures != 0 {
		t.Errorf("%+v", st)
	}
	c, err := dial(t.Context(), "", "") // of which no transport knows
	if err != nil {
		t.Fatal(err)
	}
	e.leave()
	if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a connection to an endpoint that has left is open: %v", err)
	}
	if _, err := dial(t.Context(), "", ""); !errors.Is(err, errGone) {
		t.Errorf("err = %v", err)
	}
	if len(e.conns) != 0 {
		t.Errorf("%d connections", len(e.conns))
	}
}

func TestRetiredPool(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	b := serve(t, route.HTTP, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == "GET" {
			begun <- struct{}{}
			<-finish
		}
	}))
	pools := []*route.Pool{{Key: testKey, Protocol: route.HTTP}}
	down := refused(t)
	s, p := newPoolOf(t, Options{}, route.HTTP, b.Address, down)
	for statusOf(t, s, down).Healthy {
		do(p, newRequest(t, "DELETE", "a", ""))
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if r := do(p, newRequest(t, "GET", "a", "")); r.err != nil {
			t.Error(r.err)
		}
	})
	<-begun

	s.Install(nil)
	if st := s.Status(); len(st) != 1 || !st[0].Retired {
		t.Errorf("with a request in flight: %+v", st)
	}
	if r := do(p, newRequest(t, "DELETE", "a", "")); r.err != nil {
		t.Errorf("a request with an older table: %v", r.err)
	}
	s.Install(pools)
	if s.Pool(testKey) != p || s.Status()[0].Retired || statusOf(t, s, down).Healthy {
		t.Error("the pool came back and lost its state")
	}

	s.Install(nil)
	finish <- struct{}{}
	wg.Wait()
	eventually(t, "the pool is dropped", func() bool { return len(s.Status()) == 0 })
	if s.Pool(testKey) != nil {
		t.Error("it is still there")
	}
	e := p.endpoints[b.Address]
	eventually(t, "its connections are closed", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return len(e.conns) == 0
	})
	// Whoever still holds it is served, without leaving connections behind.
	for range 3 {
		if r := do(p, newRequest(t, "DELETE", "a", "")); r.err != nil || r.Reused {
			t.Errorf("%+v", r)
		}
	}
	s.Install(pools)
	if again := s.Pool(testKey); again == nil || again == p || len(again.list.Load().all) != 0 {
		t.Error("a pool that was dropped came back")
	}
}

func TestUnusedPoolIsDroppedAtOnce(t *testing.T) {
	b := serve(t, route.HTTP, echo("a"))
	s, p := newPoolOf(t, Options{}, route.HTTP, b.Address)
	get(t, p)
	s.Install(nil)
	if len(s.Status()) != 0 {
		t.Errorf("%+v", s.Status())
	}
}

func TestPoolChangesItsProtocol(t *testing.T) {
	b := serve(t, route.H2C, echo("a"))
	s, p := newPoolOf(t, Options{}, route.HTTP, b.Address)
	if r := get(t, p); !strings.HasPrefix(r.body, "HTTP/1.1 ") {
		t.Error(r.body)
	}
	s.Install([]*route.Pool{{Key: testKey, Protocol: route.H2C}})
	if r := get(t, p); !strings.HasPrefix(r.body, "HTTP/2.0 ") || r.Reused || s.Pool(testKey) != p || s.Status()[0].Protocol != route.H2C {
		t.Error(r.body)
	}
}

func TestUpdateOfUnknownPoolIsIgnored(t *testing.T) {
	s, _ := newPoolOf(t, Options{}, route.HTTP, "127.0.0.1:1")
	s.Update(map[route.PoolKey][]route.Endpoint{{Service: "other"}: {{Address: "127.0.0.1:2"}}})
	if st := s.Status(); len(st) != 1 || len(st[0].Endpoints) != 1 {
		t.Errorf("%+v", st)
	}
	s.Close()
	s.Install([]*route.Pool{{Key: testKey}})
	if s.Pool(testKey) != nil {
		t.Error("a closed set takes pools")
	}
}

// A backend closes idle connections after a while; requests meet that moment again and again.
func TestKeepAliveRace(t *testing.T) {
	const idle = 2 * time.Millisecond
	b := serve(t, route.HTTP, echo("a"), func(s *http.Server) { s.IdleTimeout = idle })
	s, p := newPoolOf(t, Options{}, route.HTTP, b.Address)
	posts := 0
	for i := range 200 {
		if r := do(p, newRequest(t, "GET", "a", "")); r.err != nil {
			t.Fatalf("GET %d: %v", i, r.err)
		}
		time.Sleep(idle)
		if r := do(p, newRequest(t, "POST", "a", "hello")); r.err != nil {
			posts++ // it had been sent: nobody can know whether it was served
			if r.reason() != route.BackendReset {
				t.Errorf("POST: %v", r.err)
			}
		}
		time.Sleep(idle)
	}
	t.Logf("%d of 200 POSTs failed", posts)
	if st := statusOf(t, s, b.Address); !st.Healthy || st.Failures != 0 {
		t.Errorf("the race was held against the backend: %+v", st)
	}
}

// A connection that was closed before anything was written to it leads to another, whatever the method, and the body is not lost.
func TestNothingWrittenIsSentAgain(t *testing.T) {
	b := serve(t, route.HTTP, echo("a"))
	s, p := newPoolOf(t, Options{}, route.HTTP, b.Address)
	for i := range 50 {
		get(t, p)
		e := p.endpoints[b.Address]
		e.mu.Lock()
		for c := range e.conns {
			_ = c.Conn.Close() // whoever writes to it next fails
		}
		e.mu.Unlock()
		if r := do(p, newRequest(t, "POST", "a", "hello")); r.err != nil || !strings.HasSuffix(r.body, "body=5 hello") {
			t.Fatalf("POST %d: %q, %v", i, r.body, r.err)
		}
	}
	if st := statusOf(t, s, b.Address); st.Failures != 0 {
		t.Errorf("%+v", st)
	}
}

func TestStatusAsJSON(t *testing.T) {
	clock := newClock()
	s := New(Options{Now: clock.now})
	defer s.Close()
	s.Install([]*route.Pool{{Key: route.PoolKey{Namespace: "b", Service: "x", Port: 1}}, {Key: testKey, Protocol: route.H2C}, {Key: route.PoolKey{Namespace: "shop", Service: "api", Port: 1}}})
	s.Update(map[route.PoolKey][]route.Endpoint{testKey: {{Address: "10.0.0.2:80", Terminating: true}, {Address: "10.0.0.1:80"}}})
	p := s.Pool(testKey)
	clock.add(time.Second)
	p.failed(p.endpoints["10.0.0.1:80"], p.set.now(), unreachable, &connectError{"10.0.0.1:80", io.EOF})
	p.endpoints["10.0.0.1:80"].retry = 2 * time.Second // without jitter
	st := s.Status()
	if len(st) != 3 || st[0].Key.Namespace != "b" || st[1].Key.Service != "api" {
		t.Errorf("order: %+v", st)
	}
	got, err := json.Marshal(st[2])
	if err != nil {
		t.Fatal(err)
	}
	at := func(d time.Duration) string {
		b, _ := clock.now().Add(d - time.Second).MarshalText()
		return string(b)
	}
	want := `{"key":"shop/web:80","protocol":"h2c","algorithm":"round-robin","endpoints":[` +
		`{"address":"10.0.0.1:80","healthy":false,"why":"no connection could be made","retryAt":"` + at(2*time.Second) + `","weight":1,"inFlight":0,"connections":0,"answers":0,"bad":0,"failures":1,"ejections":1,` +
		`"lastError":"connect to 10.0.0.1:80: EOF","lastErrorAt":"` + at(time.Second) + `"},` +
		`{"address":"10.0.0.2:80","healthy":true,"weight":1,"inFlight":0,"connections":0,"answers":0,"bad":0,"failures":0,"ejections":0,"terminating":true}]}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// Install, Update, Status, Close and requests at the same time; what matters is what the race detector says.
func TestEverythingAtOnce(t *testing.T) {
	b := serve(t, route.HTTP, echo("a"))
	c := serve(t, route.HTTP, echo("b"))
	addresses := []string{b.Address, c.Address, refused(t)}
	s, _ := newPoolOf(t, Options{}, route.HTTP, addresses...)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for range 200 {
				p := s.Pool(testKey)
				if p == nil {
					continue
				}
				if r := do(p, newRequest(t, "POST", "a", "hello")); r.err != nil && r.reason() != route.NoEndpoints {
					t.Error(r.err)
				}
			}
		})
	}
	wg.Go(func() {
		for i := range 300 {
			s.Install([]*route.Pool{{Key: testKey, Protocol: route.HTTP}}[:i%3%2])
			setEndpoints(s, slices.Concat(addresses[i%2:], addresses[:i%2])...)
			_ = s.Status()
		}
		s.Install([]*route.Pool{{Key: testKey, Protocol: route.HTTP}})
		setEndpoints(s, addresses...)
	})
	wg.Wait()
	s.Close()
}
