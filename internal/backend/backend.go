// Package backend decides which endpoint of a pool gets the next request, and keeps the connections to it. What must survive a new routing table lives here,
// by pool key: the balancer's cursor, the health of endpoints, requests in flight, idle connections.
//
// A request takes an immutable list of endpoints from its pool and writes nothing but counters, so that neither changes of the endpoints nor ejections ever
// make it wait.
package backend

import (
	"context"
	"crypto/rand"
	"hash/maphash"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// Options are the choices for all pools of a Set. The zero value is safe: each zero field means the default that its comment names.
type Options struct {
	// AllowLoopback lets endpoints be loopback addresses. It is for a folder of YAML on somebody's machine; in a cluster nobody may reach the proxy's own
	// loopback through it. It never applies to DNS endpoints.
	AllowLoopback bool
	// OwnAddresses returns the addresses on which this process listens, which are never connected to. An unspecified IP stands for every address of the
	// machine. Nil means none. Called for each new connection, concurrently.
	OwnAddresses func() []netip.AddrPort
	// OwnUDP is OwnAddresses for UDP.
	OwnUDP func() []netip.AddrPort
	// Resolver resolves the names of DNS endpoints. Nil means that of the system.
	Resolver *net.Resolver

	// MaxTries is the largest number of endpoints that are tried for one request. Zero means 5.
	MaxTries int
	// ConnectTimeout is how long one request may have been going when another connection is begun for it because the last could not be made. Zero means 5 s.
	ConnectTimeout time.Duration
	DialTimeout    time.Duration // name resolution and TCP handshake of one connection, 2 s
	TLSTimeout     time.Duration // TLS handshake, 5 s
	// HeaderTimeout bounds the time from the last byte of the request to the head of the response, if neither the Attempt nor a deadline of the request's
	// context says otherwise. Zero means 60 s, negative no limit.
	HeaderTimeout time.Duration
	// IdleTimeout is how long a connection is kept without use. It should be shorter than that of the backends, or requests meet connections that the
	// backend is about to close; common servers close after 5 s. Zero means 4 s.
	IdleTimeout   time.Duration
	MaxIdle       int   // idle connections kept for each endpoint, 256
	HeaderBytes   int64 // head of a response, 256 KiB
	HeaderCount   int   // header fields of a response, 256
	Informational int   // 1xx answers before a response, 16

	// Backoff is how long an endpoint is left out when a connection to it could not be made; it doubles each time it fails again, up to MaxBackoff, and is
	// spread by a fifth so that replicas do not come back together. Zero means 1 s and 30 s.
	Backoff, MaxBackoff time.Duration
	// MaxResets is how many new connections to an endpoint may break in a row before they bring a response until it is left out, too. One is not enough: a
	// request that makes the application crash says more about the request. Zero means 3.
	MaxResets int
	// RetryPercent is how many requests of a pool may be sent again, in percent of all, because an endpoint broke the connection before it answered. Only
	// requests that may safely be repeated ever are. It does not limit what is tried again because no connection could be made. Zero means 20, negative none.
	RetryPercent int

	// ReplayMemory bounds what all requests together hold of their bodies to be able to send them again, beyond 4 KiB of each, in bytes. When it is used up a body that has
	// more is not sent again. Zero means 64 MiB, negative none.
	ReplayMemory int64

	// SessionKey is what the names of endpoints in sessions are made with. Replicas must have the same one. Empty: the secret of each pool, or where there is none something
	// random, so that sessions end with the process.
	SessionKey []byte

	Hooks Hooks
	// Now is the clock of health decisions. Nil means time.Now.
	Now func() time.Time
}

// withDefaults fills what is zero.
func (o Options) withDefaults() Options {
	orDefault(&o.MaxTries, 5)
	orDefault(&o.ConnectTimeout, 5*time.Second)
	orDefault(&o.DialTimeout, 2*time.Second)
	orDefault(&o.TLSTimeout, 5*time.Second)
	orDefault(&o.HeaderTimeout, time.Minute)
	orDefault(&o.IdleTimeout, 4*time.Second)
	orDefault(&o.MaxIdle, 256)
	orDefault(&o.HeaderBytes, 256<<10)
	orDefault(&o.HeaderCount, 256)
	orDefault(&o.Informational, 16)
	orDefault(&o.Backoff, time.Second)
	orDefault(&o.MaxBackoff, 30*time.Second)
	orDefault(&o.MaxResets, 3)
	orDefault(&o.RetryPercent, 20)
	orDefault(&o.ReplayMemory, 64<<20)
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Hooks are told what happens to endpoints and connections. Nil functions are not called. They are called concurrently, sometimes with locks held: they must
// return quickly and must not call the Set.
type Hooks struct {
	// Connected is told of each attempt to connect to an endpoint, TLS handshake included; err is nil if it succeeded.
	Connected func(key route.PoolKey, endpoint string, took time.Duration, err error)
	// Ejected is told that an endpoint is left out for failing, or still is, until a request is let through at the given time.
	Ejected func(key route.PoolKey, endpoint string, until time.Time, err error)
	// Recovered is told that an endpoint that was left out is used again.
	Recovered func(key route.PoolKey, endpoint string)
	// Retried is told that a request is sent again, because the named endpoint failed.
	Retried func(key route.PoolKey, endpoint string, err error)
	// Checked is told of each active check of an endpoint; err is nil if it is well.
	Checked func(key route.PoolKey, endpoint string, err error)
	// RetryRefused is told that a request is not sent again because the budget is spent.
	RetryRefused func(key route.PoolKey)
	// Endpoints is told how many endpoints a pool has and how many of them are not left out, after each change of either.
	Endpoints func(key route.PoolKey, total, healthy int)
}

// Set is all pools. Make one with New. Its methods may be called concurrently.
type Set struct {
	opt    Options
	seed   maphash.Seed // of the order of endpoints, so that each replica has its own
	random []byte       // in place of a key for sessions
	epoch  time.Time    // what times of health decisions are counted from, to be a number and free of jumps of the wall clock
	dial   func(ctx context.Context, ep route.Endpoint) (net.Conn, error)
	names  *names  // of DNS endpoints
	bodies reserve // of requests
	// dialUDP makes a socket that sends to an endpoint and receives from it alone.
	dialUDP func(ctx context.Context, ep route.Endpoint) (net.Conn, error)
	outside func(ctx context.Context, network, address string) (net.Conn, error) // DialOutside

	mu     sync.Mutex // before Pool.mu, which is before endpoint.mu
	pools  map[route.PoolKey]*Pool
	closed bool
	checks sync.WaitGroup // active checks
}

// New makes a Set without pools.
func New(opt Options) *Set {
	opt = opt.withDefaults()
	s := &Set{opt: opt, seed: maphash.MakeSeed(), random: make([]byte, 32), epoch: opt.Now(), pools: map[route.PoolKey]*Pool{}}
	_, _ = rand.Read(s.random) // never fails
	s.bodies.left.Store(opt.ReplayMemory)
	s.names = newNames(lookup(opt.Resolver), s.renew)
	d := newDialer(opt)
	s.dial, s.dialUDP, s.outside = d.dial, d.dialUDP, d.named.DialContext
	return s
}

// Install makes the pools of a table the pools of the set. A pool that the set has keeps its endpoints, their health and their connections; if its protocol or
// what it demands of TLS has changed, it begins anew with the same endpoints. Of two pools with the same key the first counts. A new pool has no endpoints until Update.
//
// A pool that is not named any more is retired: its requests finish, then its connections are closed. Whoever still holds it, because of an older table, can go
// on using it. A retired pool that is named again before its last request has ended has kept its state.
func (s *Set) Install(pools []*route.Pool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	named := make(map[route.PoolKey]bool, len(pools))
	for _, want := range pools {
		if named[want.Key] {
			continue
		}
		named[want.Key] = true
		if p := s.pools[want.Key]; p != nil {
			p.revive(want)
			continue
		}
		s.pools[want.Key] = newPool(s, want)
	}
	for key, p := range s.pools {
		if !named[key] {
			p.retire()
			s.reapLocked(p)
		}
	}
	s.resolveNames()
}

// reap drops a retired pool unless it is in use.
func (s *Set) reap(p *Pool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reapLocked(p)
	if p.given != nil {
		s.resolveNames()
	}
}

func (s *Set) reapLocked(p *Pool) {
	if s.pools[p.key] == p && p.retired.Load() && p.inFlight() == 0 {
		delete(s.pools, p.key)
		p.dissolve()
	}
}

// Update changes the endpoints of the pools that the map names; an empty list takes all endpoints from a pool. Other pools stay as they are, and pools that the
// set does not have are ignored. An endpoint is the same as before if its address is: it keeps its health and connections. One that left gets no more requests;
// those in flight finish, and its connections are closed as soon as they are idle.
func (s *Set) Update(endpoints map[route.PoolKey][]route.Endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, eps := range endpoints {
		if p := s.pools[key]; p != nil {
			p.update(eps)
		}
	}
	s.resolveNames()
}

// Pool returns the pool of a key; nil if the set has none. The result stays valid (see Install), so that a table's rules may hold it.
func (s *Set) Pool(key route.PoolKey) *Pool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pools[key]
}

// Waiting is how many requests wait in each pool that a table names.
func (s *Set) Waiting() map[route.PoolKey]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[route.PoolKey]int, len(s.pools))
	for key, p := range s.pools {
		if !p.retired.Load() {
			out[key] = int(p.queue.n.Load())
		}
	}
	return out
}

// Close retires all pools and refuses further requests with NoEndpoints. Requests in flight finish; idle connections are closed at once.
func (s *Set) Close() {
	s.close()
	s.checks.Wait()
	s.names.owner.Wait()
}

func (s *Set) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.names.stop()
	for _, p := range s.pools {
		p.dissolve()
		p.list.Store(emptyList())
		p.queue.all()
	}
	clear(s.pools)
}

// now is the time since the set was made.
func (s *Set) now() time.Duration { return s.opt.Now().Sub(s.epoch) }
