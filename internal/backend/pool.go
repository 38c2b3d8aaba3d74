package backend

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// Pool is a set of endpoints that serve the same thing. Its methods may be called concurrently.
type Pool struct {
	set     *Set
	key     route.PoolKey
	list    atomic.Pointer[list]
	due     atomic.Int64 // when the next endpoint that is left out gets a trial: at or before that, in time of Set.now
	retired atomic.Bool

	_      [64]byte // keeps what each request reads out of the cache line that each request writes
	cursor atomic.Uint64
	_      [64]byte

	budget budget

	mu        sync.Mutex // held by whoever changes the endpoints or their health
	protocol  route.Protocol
	endpoints map[string]*endpoint
}

// never is a time that does not come.
const never = time.Duration(math.MaxInt64)

func newPool(s *Set, from *route.Pool) *Pool {
	p := &Pool{set: s, key: from.Key, protocol: from.Protocol, endpoints: map[string]*endpoint{}}
	p.cursor.Store(rand.Uint64() >> 1) // #nosec G404 -- replicas begin at different places; nobody gains from guessing which
	p.budget = budget{saved: firstSaved, requests: p.cursor.Load(), at: s.now()}
	p.due.Store(int64(never))
	p.list.Store(&list{next: &roundRobin{cursor: &p.cursor}})
	return p
}

// Key returns the key of the pool.
func (p *Pool) Key() route.PoolKey { return p.key }

// update makes eps the endpoints of the pool.
func (p *Pool) update(eps []route.Endpoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.endpoints
	next := make(map[string]*endpoint, len(eps))
	var added []*endpoint
	same := true
	for _, ep := range eps {
		if next[ep.Address] != nil {
			continue
		}
		e := old[ep.Address]
		if e == nil || e.dns != ep.DNS {
			e = newEndpoint(p, ep, p.protocol)
			added = append(added, e)
		} else if e.info != ep {
			e.info, same = ep, false
		}
		next[ep.Address] = e
	}
	if len(added) == 0 && same && len(next) == len(old) {
		return
	}
	p.endpoints = next
	p.replace(merge(p.list.Load().all, next, added))
}

// replace makes all the endpoints of the pool, and lets go of those that are not among them any more. The caller holds p.mu.
func (p *Pool) replace(all []*endpoint) {
	old := p.list.Load()
	p.rebuild(all)
	for _, e := range old.all {
		if p.endpoints[e.address] != e {
			e.leave()
		}
	}
}

// rebuild publishes a new list, after a change of the endpoints or of their health. The caller holds p.mu.
func (p *Pool) rebuild(all []*endpoint) {
	l := newList(all)
	l.follow(p.list.Load(), p.cursor.Load())
	l.next = &roundRobin{l.turns, &p.cursor, l.offset}
	p.list.Store(l)
	p.schedule(l)
	if hook := p.set.opt.Hooks.Endpoints; hook != nil {
		hook(p.key, len(l.all), len(l.all)-len(l.out))
	}
}

// retire closes what is idle. The pool goes on serving whoever still has it.
func (p *Pool) retire() {
	if p.retired.Swap(true) {
		return
	}
	for _, e := range p.list.Load().all {
		e.closeIdle()
	}
}

// revive makes a retired pool an ordinary one again and sees to its protocol.
func (p *Pool) revive(protocol route.Protocol) {
	p.retired.Store(false)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.protocol == protocol {
		return
	}
	p.protocol = protocol
	all := slices.Clone(p.list.Load().all)
	for i, e := range all {
		all[i] = newEndpoint(p, e.info, protocol)
		p.endpoints[e.address] = all[i]
	}
	p.replace(all)
}

// dissolve ends the pool: its connections are closed as soon as they are idle. Whoever still has it gets a connection for each request.
func (p *Pool) dissolve() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.list.Load().all {
		e.leave()
	}
}

// inFlight is the number of requests that the present endpoints are serving.
func (p *Pool) inFlight() int64 {
	n := int64(0)
	for _, e := range p.list.Load().all {
		n += e.inFlight.Load()
	}
	return n
}

// acquire picks an endpoint that the request has not tried yet and counts the request as in flight there; nil if there is none. Every endpoint that it returns
// must be released.
func (p *Pool) acquire(tried []*endpoint, safe bool) (e *endpoint, trial bool) {
	for {
		l := p.list.Load()
		e, trial = p.pick(l, tried, safe)
		if e == nil || e.enter() {
			return e, trial
		}
		if p.list.Load() == l {
			return e.lastOnce(), false
		}
	}
}

// pick chooses an endpoint of the list. safe says that the request could be sent again.
func (p *Pool) pick(l *list, tried []*endpoint, safe bool) (e *endpoint, trial bool) {
	if due := p.due.Load(); due != int64(never) && len(tried) == 0 {
		if e := p.trial(due, safe); e != nil {
			return e, true
		}
	}
	if e := l.next.pick(0, tried); e != nil {
		return e, false
	}
	for _, e := range l.out {
		if !slices.Contains(tried, e) {
			return e, false
		}
	}
	return nil, false
}
