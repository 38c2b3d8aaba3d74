package backend

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

func client(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})
}

// visit is a request from an address that is answered; it returns by which endpoint.
func visit(p *Pool, a *Attempt) *endpoint {
	x := exchange{pool: p, attempt: a, req: &http.Request{URL: &url.URL{}}}
	x.wish = p.wishFor(x.req, a, true)
	e, _, _ := p.acquire(x.wish, nil)
	x.stay(e)
	e.release()
	return e
}

func from(a netip.Addr) *Attempt { return &Attempt{Client: a} }

var byAddress = route.Policy{Algorithm: route.SourceHash, ClientIP: time.Hour}

func TestClientsStayAtTheirEndpoint(t *testing.T) {
	const clients = 1000
	s, p, clock := policyPool(t, byAddress, ones(5)...)
	first := map[int]*endpoint{}
	for i := range clients {
		first[i] = visit(p, from(client(i)))
	}
	check := func(when string, stay func(i int) bool) {
		t.Helper()
		for i := range clients {
			if e := visit(p, from(client(i))); (e == first[i]) != stay(i) {
				t.Fatalf("%s: client %d was at %s, and now at %s", when, i, first[i].address, e.address)
			}
		}
	}
	everybody := func(int) bool { return true }
	clock.add(time.Hour - time.Second)
	s.Update(map[route.PoolKey][]route.Endpoint{testKey: weighted(ones(10)...)})
	check("others have come, and no hour has passed", everybody)
	clock.add(time.Hour - time.Second)
	check("less than an hour after their last request", everybody)

	// Another replica that has seen the new endpoints only: those that the new ones like best are elsewhere, about half.
	_, fresh, _ := policyPool(t, byAddress, ones(10)...)
	moved := 0
	for i := range clients {
		if visit(fresh, from(client(i))).address != first[i].address {
			moved++
		}
	}
	if moved < 400 || moved > 600 {
		t.Errorf("%d of %d new clients of a new replica are elsewhere, want about a half", moved, clients)
	}

	bad := first[0]
	p.failed(bad, p.set.now(), unreachable, io.EOF)
	check("one is left out", func(i int) bool { return first[i] != bad })
	settled := visit(p, from(client(0)))
	p.answered(bad, p.set.now()+1, p.set.now()+1, 0, 200)
	if e := visit(p, from(client(0))); e != settled {
		t.Error("a client went back when its endpoint recovered")
	}

	clock.add(time.Hour)
	moved = 0
	for i := range clients {
		if visit(p, from(client(i))) != first[i] {
			moved++
		}
	}
	if moved < 350 || moved > 650 {
		t.Errorf("after an hour without a request %d of %d are elsewhere, want those that new endpoints like best", moved, clients)
	}

	s.Update(map[route.PoolKey][]route.Endpoint{testKey: weighted(ones(1)...)})
	for i := range clients {
		if e := visit(p, from(client(i))); e.address != "10.0.0.0:80" {
			t.Fatalf("a client is at %s, which is gone", e.address)
		}
	}
}

// An unknown address goes anywhere, and is not remembered.
func TestClientsWithoutAnAddress(t *testing.T) {
	_, p, _ := policyPool(t, byAddress, ones(5)...)
	seen := map[*endpoint]bool{}
	for range 200 {
		seen[visit(p, from(netip.Addr{}))] = true
	}
	if len(seen) != 5 {
		t.Errorf("they met %d endpoints, want 5", len(seen))
	}
}

// Whoever has very many addresses makes a pool remember nothing new, and no more than its bound.
func TestClientsAreBounded(t *testing.T) {
	_, p, clock := policyPool(t, byAddress, ones(5)...)
	flood := func() {
		for i := range uint64(200000) {
			b := [16]byte{0: 0x20, 1: 1, 8: byte(i >> 16), 9: byte(i >> 8), 10: byte(i)}
			visit(p, from(netip.AddrFrom16(b)))
		}
	}
	count := func() (n int) {
		for i := range p.clients.shards {
			n += len(p.clients.shards[i].seen)
		}
		return n
	}
	flood()
	if n := count(); n != 16*maxClients {
		t.Errorf("%d addresses are remembered, want %d", n, 16*maxClients)
	}
	a := visit(p, from(client(1)))
	if b := visit(p, from(client(1))); a != b {
		t.Error("a client that is not remembered does not stay")
	}
	clock.add(2 * time.Hour)
	for i := range 5000 {
		visit(p, from(client(i)))
	}
	if n := count(); n > 16*maxClients {
		t.Errorf("%d addresses are remembered", n)
	}
	if p.clients.place(client(4999), p.set.now(), time.Hour) == nil {
		t.Error("a new client is not remembered, although others have timed out")
	}
}

func sessionOf(p *route.Persistence, token string) *Attempt {
	return &Attempt{Persistence: p, Session: token}
}

// A session goes on for as long as its endpoint may be used; what the token holds is nobody's business.
func TestSessions(t *testing.T) {
	keep := &route.Persistence{Name: "s"}
	s, p, _ := policyPool(t, route.Policy{}, ones(5)...)
	a := sessionOf(keep, "")
	first := visit(p, a)
	token := a.NewSession
	if len(token) != 22 || strings.Contains(token, "10.0") {
		t.Errorf("the token is %q", token)
	}
	for range 20 {
		a := sessionOf(keep, token)
		if e := visit(p, a); e != first || a.NewSession != "" {
			t.Fatalf("at %s with a new session %q, want %s", e.address, a.NewSession, first.address)
		}
	}
	if !p.Holds(token, keep) {
		t.Error("the pool does not know its session")
	}
	// Slow start, policy and more endpoints change nothing.
	s.Install([]*route.Pool{{Key: testKey, Protocol: route.HTTP, Policy: route.Policy{Algorithm: route.PeakEWMA, SlowStart: time.Hour}, Secret: "6f0f0f6a"}})
	s.Update(map[route.PoolKey][]route.Endpoint{testKey: weighted(ones(9)...)})
	if e := visit(p, sessionOf(keep, token)); e != first {
		t.Errorf("with another policy at %s, want %s", e.address, first.address)
	}
	// Nor does another Fairlead with the same secret.
	_, other, _ := policyPool(t, route.Policy{}, ones(7)...)
	if e := visit(other, sessionOf(keep, token)); e.address != first.address {
		t.Errorf("with another replica at %s, want %s", e.address, first.address)
	}

	// Left out for failing: the session moves, and stays.
	p.failed(first, p.set.now(), unreachable, io.EOF)
	if p.Holds(token, keep) {
		t.Error("an endpoint that is left out holds its sessions")
	}
	a = sessionOf(keep, token)
	second := visit(p, a)
	if second == first || a.NewSession == "" || a.NewSession == token {
		t.Errorf("at %s with a new session %q", second.address, a.NewSession)
	}
	p.answered(first, p.set.now()+1, p.set.now()+1, 0, 200)
	if e := visit(p, sessionOf(keep, a.NewSession)); e != second {
		t.Errorf("after it recovered at %s, want %s", e.address, second.address)
	}

	// The Service is another one: it knows nothing of sessions with the one before.
	s.Install([]*route.Pool{{Key: testKey, Protocol: route.HTTP, Secret: "another"}})
	if p := s.Pool(testKey); p.Holds(a.NewSession, keep) {
		t.Error("another Service took a session over")
	}
}

// If all endpoints are left out they are all used, and sessions stay where they are.
func TestSessionsWhenAllAreLeftOut(t *testing.T) {
	keep := &route.Persistence{Name: "s"}
	_, p, _ := policyPool(t, route.Policy{}, ones(3)...)
	a := sessionOf(keep, "")
	first := visit(p, a)
	for _, e := range p.list.Load().all {
		p.failed(e, p.set.now(), unreachable, io.EOF)
	}
	if e := visit(p, sessionOf(keep, a.NewSession)); e != first {
		t.Errorf("at %s, want %s", e.address, first.address)
	}
}

func TestSessionLifetime(t *testing.T) {
	keep := &route.Persistence{Name: "s", Lifetime: time.Minute}
	_, p, clock := policyPool(t, route.Policy{}, ones(5)...)
	a := sessionOf(keep, "")
	first := visit(p, a)
	if len(a.NewSession) != 38 {
		t.Errorf("the token is %q", a.NewSession)
	}
	clock.add(58 * time.Second)
	b := sessionOf(keep, a.NewSession)
	if e := visit(p, b); e != first || b.NewSession != "" {
		t.Error("the session ended before its time")
	}
	clock.add(2 * time.Second)
	b = sessionOf(keep, a.NewSession)
	if visit(p, b); b.NewSession == "" || b.NewSession == a.NewSession {
		t.Errorf("after its time the session went on: %q", b.NewSession)
	}
	// From a clock that goes a little faster, and from one that is nonsense.
	clock.add(-30 * time.Second)
	if !p.Holds(b.NewSession, keep) {
		t.Error("a session that began half a minute from now does not hold")
	}
	clock.add(-time.Minute)
	if p.Holds(b.NewSession, keep) {
		t.Error("a session that begins in the future holds")
	}
}

// Nobody who has not seen a token can make one, nor one that lasts longer.
func TestTokensThatWereMadeUp(t *testing.T) {
	keep := &route.Persistence{Name: "s", Lifetime: time.Hour}
	_, p, _ := policyPool(t, route.Policy{}, ones(5)...)
	a := sessionOf(keep, "")
	visit(p, a)
	token := a.NewSession
	for i := range token {
		changed := []byte(token)
		if changed[i] = 'A'; token[i] == 'A' {
			changed[i] = 'B'
		}
		if i == len(token)-1 {
			continue // some of its bits stand for nothing
		}
		if p.Holds(string(changed), keep) {
			t.Errorf("with another character at %d it holds", i)
		}
	}
	for _, made := range []string{"", "x", "====", token + token, token[:22], strings.Repeat("A", 38), strings.Repeat("\x00", 38), strings.Repeat("A", 1<<20)} {
		if p.Holds(made, keep) {
			t.Errorf("%.50q holds", made)
		}
	}
}

// Without a secret and a key addresses stay secret, and tokens are worth nothing to another process. With a key they are.
func TestSessionKeys(t *testing.T) {
	token := func(opt Options) string {
		s := New(opt)
		t.Cleanup(s.Close)
		s.Install([]*route.Pool{{Key: testKey, Protocol: route.HTTP}})
		s.Update(map[route.PoolKey][]route.Endpoint{testKey: weighted(1)})
		a := sessionOf(&route.Persistence{Name: "s"}, "")
		visit(s.Pool(testKey), a)
		return a.NewSession
	}
	if a, b := token(Options{}), token(Options{}); a == b {
		t.Error("two processes without a key call an endpoint the same")
	}
	key := []byte("0123456789abcdef0123456789abcdef")
	if a, b := token(Options{SessionKey: key}), token(Options{SessionKey: key}); a != b || a == token(Options{SessionKey: key[1:]}) {
		t.Error("tokens do not depend on the key alone")
	}
}

func TestKeysOfRequests(t *testing.T) {
	request := func(f func(*http.Request)) *http.Request {
		r := &http.Request{Host: "a.example.com", URL: &url.URL{Opaque: "/x", RawQuery: "user=a%20b&x=y"}, Header: http.Header{"X-User": {"u"}, "Cookie": {"a=1; user=c"}}}
		f(r)
		return r
	}
	same := func(*http.Request) {}
	tests := []struct {
		policy route.Policy
		change func(*http.Request) // that makes another key of it
		keep   func(*http.Request) // that does not
	}{
		{route.Policy{Algorithm: route.DestinationHash}, func(r *http.Request) { r.Host = "b.example.com" }, func(r *http.Request) { r.URL.RawQuery = "" }},
		{route.Policy{Algorithm: route.DestinationHash}, func(r *http.Request) { r.URL.Opaque = "/y" }, func(r *http.Request) { r.Header = nil }},
		{hashOf(route.HashHeader, "X-User"), func(r *http.Request) { r.Header["X-User"] = []string{"v"} }, func(r *http.Request) { r.URL.Opaque = "/y" }},
		{hashOf(route.HashHeader, "Host"), func(r *http.Request) { r.Host = "b" }, func(r *http.Request) { r.URL.Opaque = "/y" }},
		{hashOf(route.HashCookie, "user"), func(r *http.Request) { r.Header["Cookie"] = []string{"user=d"} }, func(r *http.Request) { r.Header["Cookie"] = []string{`b=2`, `user="c"`} }},
		{hashOf(route.HashQuery, "user"), func(r *http.Request) { r.URL.RawQuery = "user=ab" }, func(r *http.Request) { r.URL.RawQuery = "user=a+b&user=c" }},
		{hashOf(route.HashPath, ""), func(r *http.Request) { r.URL.Opaque = "/y" }, func(r *http.Request) { r.Host = "b" }},
	}
	for _, tt := range tests {
		l := &list{policy: tt.policy}
		key := l.key(request(same), netip.Addr{})
		if l.key(request(same), netip.Addr{}) != key || l.key(request(tt.keep), netip.Addr{}) != key || l.key(request(tt.change), netip.Addr{}) == key {
			t.Errorf("%v: the key is of something else", tt.policy)
		}
	}
	for _, k := range []route.HashKind{route.HashHeader, route.HashCookie, route.HashQuery} {
		l := &list{policy: hashOf(k, "None")}
		if a, b := l.key(request(same), netip.Addr{}), l.key(request(same), netip.Addr{}); a == b {
			t.Errorf("%s: a request without the key goes to the same endpoint as all others without it", k)
		}
	}
}

func hashOf(k route.HashKind, name string) route.Policy {
	return route.Policy{Algorithm: route.ConsistentHash, HashKey: route.HashKey{Kind: k, Name: name}}
}

// A new endpoint gets a tenth of its share at first, and the whole of it after the window.
func TestSlowStart(t *testing.T) {
	const n = 20000
	for _, policy := range policies[:7] {
		policy.SlowStart = 100 * time.Second
		t.Run(nameOf(policy), func(t *testing.T) {
			s, p, clock := policyPool(t, policy, ones(4)...)
			if got := picks(p, 4000); len(got) != 4 {
				t.Fatalf("the first endpoints of a pool: %v", got)
			}
			s.Update(map[route.PoolKey][]route.Endpoint{testKey: weighted(ones(5)...)})
			for _, step := range []struct {
				after time.Duration
				part  float64 // of its share
			}{{0, 0.1}, {5 * time.Second, 0.1}, {25 * time.Second, 0.3}, {20 * time.Second, 0.5}, {50 * time.Second, 1}, {time.Hour, 1}} {
				clock.add(step.after)
				visit(p, &Attempt{}) // brings it up to date
				if got, want := float64(picks(p, n)["10.0.0.4:80"])/n, step.part/(4+step.part); got < 0.8*want-0.003 || got > 1.25*want+0.003 {
					t.Errorf("with %.0f %% of its share it got %.1f %% of the requests, want %.1f %%", 100*step.part, 100*got, 100*want)
				}
			}
			if p.warmDue.Load() != 0 {
				t.Error("picking goes on looking at the clock")
			}
			// One that comes back begins anew.
			e := p.endpoints["10.0.0.4:80"]
			p.failed(e, p.set.now(), unreachable, io.EOF)
			p.answered(e, p.set.now()+1, p.set.now()+1, 0, 200)
			if got := float64(picks(p, n)[e.address]) / n; got > 0.04 {
				t.Errorf("after it recovered it got %.1f %%, want 2.4 %%", 100*got)
			}
		})
	}
}

// Endpoints that are near serve alone while at least half of them can.
func TestLocality(t *testing.T) {
	eps := weighted(ones(10)...)
	for i := range eps {
		eps[i].Distance = []uint8{0, 0, 0, 0, 1, 1, 1, 2, 2, 2}[i]
	}
	for _, policy := range policies {
		s, p, _ := policyPool(t, policy)
		s.Update(map[route.PoolKey][]route.Endpoint{testKey: eps})
		check := func(when string, want int) {
			t.Helper()
			if got := picks(p, 3000); len(got) != want {
				t.Errorf("%s: %s: %d endpoints are used, want %d: %v", nameOf(policy), when, len(got), want, got)
			}
		}
		fail := func(addresses ...int) {
			for _, i := range addresses {
				p.failed(p.endpoints[eps[i].Address], p.set.now(), unreachable, io.EOF)
			}
		}
		check("all near ones can", 4)
		fail(0, 1)
		check("half of them can", 2)
		fail(2)
		check("a quarter of them can: the next join in", 4)
		fail(4, 5, 6, 3)
		check("none of the near ones can", 3)
		fail(7, 8, 9)
		if got := picks(p, 3000); len(got) < 4 {
			t.Errorf("%s: when all are left out only %d are used", nameOf(policy), len(got))
		}
		s.Update(map[route.PoolKey][]route.Endpoint{testKey: eps[4:]})
		a := &Attempt{}
		if e := visit(p, a); !a.Far || !e.far.Load() {
			t.Errorf("%s: without near endpoints a request was not counted as far", nameOf(policy))
		}
	}
}

// When too few endpoints are left, those that are left out are used as well, with every algorithm.
func TestEndpointsThatAreUsedAllTheSame(t *testing.T) {
	for _, policy := range policies {
		_, p, _ := policyPool(t, policy, ones(4)...)
		p.mu.Lock()
		for _, e := range p.list.Load().all[:3] {
			e.out, e.why = true, resetting
		}
		p.rebuild(p.list.Load().all)
		p.mu.Unlock()
		if got := picks(p, 2000); len(got) != 4 {
			t.Errorf("%s: with three of four left out %v are used, want all", nameOf(policy), got)
		}
	}
}

// A request that was tried at all near endpoints goes to one that is far.
func TestFarIsBetterThanNowhere(t *testing.T) {
	eps := weighted(ones(3)...)
	eps[2].Distance = 1
	for _, policy := range policies {
		s, p, _ := policyPool(t, policy)
		s.Update(map[route.PoolKey][]route.Endpoint{testKey: eps})
		var tried []*endpoint
		for range 3 {
			e, _, _ := p.acquire(wish{key: 1}, tried)
			if e == nil {
				t.Fatalf("%s: nobody was left after %d", nameOf(policy), len(tried))
			}
			tried = append(tried, e)
		}
		if tried[2].address != eps[2].Address {
			t.Errorf("%s: the far one came before a near one", nameOf(policy))
		}
		if e, _, _ := p.acquire(wish{key: 1}, tried); e != nil {
			t.Errorf("%s: %s was picked again", nameOf(policy), e.address)
		}
	}
}

// Picking allocates nothing with any algorithm, and meets every state of a pool.
func TestPickingAllocatesNothing(t *testing.T) {
	req := &http.Request{Host: "a.example.com", URL: &url.URL{Opaque: "/x"}, Header: http.Header{"Cookie": {"a=b; s=c"}}}
	for _, policy := range append(policies, hashOf(route.HashCookie, "s"), byAddress) {
		for _, n := range []int{1, 5, 100} {
			_, p, _ := policyPool(t, policy, ones(n)...)
			a := &Attempt{Client: client(1)}
			if got := testing.AllocsPerRun(200, func() {
				e, _, _ := p.acquire(p.wishFor(req, a, true), nil)
				e.release()
			}); got != 0 {
				t.Errorf("%s with %d endpoints: %v allocations", nameOf(policy), n, got)
			}
		}
	}
}

// Policies, endpoints and health change under load; what matters is what the race detector says, and that somebody is always picked.
func TestPoliciesChangeUnderLoad(t *testing.T) {
	s, p, _ := policyPool(t, route.Policy{}, ones(8)...)
	keep := &route.Persistence{Name: "s"}
	var stop atomic.Bool
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			token := ""
			for k := i; !stop.Load(); k++ {
				a := &Attempt{Client: client(k % 100), Persistence: keep, Session: token}
				x := exchange{pool: p, attempt: a, req: &http.Request{Host: fmt.Sprint(k), URL: &url.URL{Opaque: "/"}}}
				x.wish = p.wishFor(x.req, a, true)
				e, _, _ := p.acquire(x.wish, nil)
				if e == nil {
					t.Error("nobody was picked")
					return
				}
				e.observe(p.set.now(), time.Duration(k%1000))
				x.stay(e)
				if k%7 == 0 {
					p.failed(e, p.set.now(), unreachable, io.EOF)
				} else {
					p.answered(e, p.set.now()+1, p.set.now()+1, 0, 200)
				}
				if token = a.NewSession; k%3 == 0 {
					token = ""
				}
				e.release()
			}
		})
	}
	for i := range 200 {
		policy := append(policies, byAddress)[i%11]
		if !policy.Algorithm.Hashes() {
			policy.SlowStart = time.Duration(i%3) * time.Second
		}
		s.Install([]*route.Pool{{Key: testKey, Protocol: route.HTTP, Policy: policy, Secret: fmt.Sprint(i % 40 / 39)}})
		eps := weighted(ones(4 + i%5)...)
		for k := range eps {
			eps[k].Distance, eps[k].Weight = uint8(i%2*k%3), int32(1+k*i%3)
		}
		s.Update(map[route.PoolKey][]route.Endpoint{testKey: eps})
		_ = s.Status()
		time.Sleep(200 * time.Microsecond)
	}
	stop.Store(true)
	wg.Wait()
	if n := p.traffic.inFlight(); n != 0 {
		t.Errorf("%d requests are in flight when all have ended", n)
	}
}

// What was slow is asked again after a while, and what becomes slow is known at once.
func TestLatencies(t *testing.T) {
	e := &endpoint{}
	near := func(got float64, want time.Duration) bool {
		return got > 0.99*float64(want) && got < 1.01*float64(want)
	}
	at := time.Hour
	e.observe(at, 10*time.Millisecond)
	if got := e.expectedLatency(at); !near(got, 10*time.Millisecond) {
		t.Errorf("after one answer: %v", time.Duration(got))
	}
	e.observe(at, 100*time.Millisecond)
	if got := e.expectedLatency(at); !near(got, 100*time.Millisecond) {
		t.Errorf("after a slow one: %v", time.Duration(got))
	}
	e.observe(at, 10*time.Millisecond)
	if got := e.expectedLatency(at); !near(got, 100*time.Millisecond) {
		t.Errorf("after a fast one at the same moment: %v", time.Duration(got))
	}
	e.observe(at+memory, 10*time.Millisecond)
	if got := e.expectedLatency(at + memory); !near(got, 43109*time.Microsecond) { // 100/e + 10(1-1/e)
		t.Errorf("after a fast one later: %v", time.Duration(got))
	}
	if got := e.expectedLatency(at + 11*memory); got > float64(10*time.Microsecond) {
		t.Errorf("after a long time: %v", time.Duration(got))
	}
}
