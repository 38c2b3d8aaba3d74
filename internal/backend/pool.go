package backend

import (
	"math"
	"math/rand/v2"
	"net/http"
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
	keys    atomic.Pointer[keys] // replaced with the endpoints

	_      [64]byte // keeps what each request reads out of the cache line that each request writes
	cursor atomic.Uint64
	_      [64]byte

	traffic traffic
	warmDue atomic.Int64 // when the warmth of endpoints is next to be brought up to date, in time of Set.now; 0 is never
	clients clients      // where clients were last, for affinity by address

	budget    budget
	queue     queue
	judgement atomic.Int64 // when outliers are next looked for, in time of Set.now

	mu        sync.Mutex // held by whoever changes the endpoints or their health
	protocol  route.Protocol
	verify    *verification
	policy    route.Policy
	care      route.Care
	retry     atomic.Pointer[route.Retry] // for rules that say nothing
	secret    string
	given     []route.Endpoint // what update was told, if there are names among them; held: Set.mu
	places    *maglev
	endpoints map[string]*endpoint
}

// never is a time that does not come.
const never = time.Duration(math.MaxInt64)

func newPool(s *Set, from *route.Pool) *Pool {
	p := &Pool{
		set: s, key: from.Key, protocol: from.Protocol, verify: newVerification(from.TLS), policy: from.Policy, care: from.Care, secret: from.Secret,
		endpoints: map[string]*endpoint{},
	}
	p.retry.Store(from.Retry)
	p.keys.Store(p.newKeys())
	p.cursor.Store(rand.Uint64() >> 1) // #nosec G404 -- replicas begin at different places; nobody gains from guessing which
	p.budget = budget{saved: firstSaved, at: s.now()}
	p.due.Store(int64(never))
	p.list.Store(emptyList())
	return p
}

// Key returns the key of the pool.
func (p *Pool) Key() route.PoolKey { return p.key }

// update makes eps the endpoints of the pool.
func (p *Pool) update(eps []route.Endpoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.given = nil; slices.ContainsFunc(eps, func(ep route.Endpoint) bool { return ep.DNS }) {
		p.given, eps = eps, p.set.names.resolve(eps)
	}
	eps, unready := split(eps)
	old := p.endpoints
	next := make(map[string]*endpoint, len(eps))
	var added []*endpoint
	same := true
	for _, ep := range eps {
		if next[ep.Address] != nil {
			continue
		}
		e := old[ep.Address]
		if e == nil || e.dns != ep.DNS || e.host != ep.Name {
			e = newEndpoint(p, ep)
			added = append(added, e)
		} else if e.info != ep {
			e.describe(ep)
			same = false
		}
		next[ep.Address] = e
	}
	if len(added) == 0 && same && len(next) == len(old) {
		return
	}
	p.giveUp(unready, next)
	p.endpoints = next
	if len(old) > 0 { // the first endpoints of a pool cannot leave requests to others
		for _, e := range added {
			p.startWarming(e)
		}
	}
	p.replace(merge(p.list.Load().all, next, added))
}

// giveUp notes which endpoints leave the pool because they are not ready any more. The caller holds p.mu.
func (p *Pool) giveUp(unready []route.Endpoint, next map[string]*endpoint) {
	for _, ep := range unready {
		if e := p.endpoints[ep.Address]; e != nil && next[ep.Address] == nil {
			e.unready.Store(true)
		}
	}
}

// split tells the endpoints that may be used from those that are not ready.
func split(eps []route.Endpoint) (ready, unready []route.Endpoint) {
	n := slices.IndexFunc(eps, func(ep route.Endpoint) bool { return ep.Unready })
	if n < 0 {
		return eps, nil
	}
	return eps[:n], eps[n:]
}

// replace makes all the endpoints of the pool, and lets go of those that are not among them any more. The caller holds p.mu.
func (p *Pool) replace(all []*endpoint) {
	old := p.list.Load()
	p.rebuild(all)
	for _, e := range old.all {
		if p.endpoints[e.address] != e {
			e.stopChecks()
			e.leave()
		}
	}
}

// rebuild publishes a new list, after a change of the endpoints or of their health. The caller holds p.mu.
func (p *Pool) rebuild(all []*endpoint) {
	p.watchOver(all)
	l := newList(all, &p.care.Outlier)
	l.follow(p.list.Load(), p.cursor.Load())
	l.policy, l.care, l.hasher, l.next = p.policy, p.care, p.keys.Load().hasher, p.newPicker(l)
	l.names = sync.OnceValue(func() map[name]*endpoint { return p.names(l.all) })
	p.setAside(l)
	l.refused = p.verify.refusal()
	p.list.Store(l)
	p.schedule(l)
	p.queue.all()
	if hook := p.set.opt.Hooks.Endpoints; hook != nil {
		hook(p.key, len(l.all), len(l.all)-len(l.out))
	}
}

// setAside tells the endpoints whether they are left out: not if the list has them in use all the same. The caller holds p.mu.
func (p *Pool) setAside(l *list) {
	for _, e := range l.all {
		e.used = false
	}
	for _, e := range l.in {
		e.used = true
	}
	for _, e := range l.all {
		if was := e.aside.Swap(e.out && !e.used); was && !e.out {
			p.startWarming(e)
		}
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

// revive makes a retired pool an ordinary one again and sees to what the table says of it.
func (p *Pool) revive(want *route.Pool) {
	p.retired.Store(false)
	p.retry.Store(want.Retry)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.protocol == want.Protocol && p.secret == want.Secret && p.verify.is(want.TLS) {
		if p.policy != want.Policy || p.care != want.Care {
			p.policy, p.care = want.Policy, want.Care
			p.rebuild(p.list.Load().all)
		}
		return
	}
	p.protocol, p.policy, p.care, p.secret, p.verify = want.Protocol, want.Policy, want.Care, want.Secret, newVerification(want.TLS)
	p.keys.Store(p.newKeys())
	all := slices.Clone(p.list.Load().all)
	for i, e := range all {
		all[i] = newEndpoint(p, e.info)
		p.endpoints[e.address] = all[i]
	}
	p.replace(all)
}

// dissolve ends the pool: its connections are closed as soon as they are idle. Whoever still has it gets a connection for each request.
func (p *Pool) dissolve() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.list.Load().all {
		e.stopChecks()
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

// wish is what a request wants of the choice of its endpoint.
type wish struct {
	key    uint64    // see picker
	prefer *endpoint // of its session; nil if it has none
	safe   bool      // it could be sent again
	whole  bool      // it is a connection, whatever goes over it
}

// wishFor returns what a request wants.
func (p *Pool) wishFor(req *http.Request, a *Attempt, safe bool) wish {
	l := p.list.Load()
	w := wish{key: l.key(req, a.Client), safe: safe}
	if a.Persistence != nil && a.Session != "" {
		w.prefer = p.session(a.Session, a.Persistence, p.set.opt.Now())
	}
	if w.prefer == nil && l.policy.ClientIP > 0 && a.Client.IsValid() {
		w.prefer = p.clients.place(a.Client, p.set.now(), l.policy.ClientIP)
	}
	return w
}

// acquire picks an endpoint that the request has not tried yet and counts the request as in flight there; nil if there is none. busy says that some were passed over because
// they have as many requests as they may. Every endpoint that it returns must be released.
func (p *Pool) acquire(w wish, tried []*endpoint) (e *endpoint, trial, busy bool) {
	for {
		l := p.list.Load()
		e, trial = p.pick(l, w, tried)
		if e == nil || busy && e.aside.Load() { // what is too much for the others is no reason to ask one that fails
			return nil, false, busy
		}
		switch e.enter(e.room(&l.care.Limits, w.whole)) {
		case entered:
			return e, trial, busy
		case isFull:
			if trial {
				p.tryAgain(e)
			}
			busy, tried = true, append(slices.Clip(tried), e)
			continue
		}
		w.prefer = nil
		if p.list.Load() == l {
			return e.lastOnce(), false, busy
		}
	}
}

// pick chooses an endpoint of the list.
func (p *Pool) pick(l *list, w wish, tried []*endpoint) (e *endpoint, trial bool) {
	if e := w.prefer; e != nil && !e.aside.Load() && !e.gone.Load() && !slices.Contains(tried, e) {
		return e, false
	}
	if due := p.due.Load(); due != int64(never) && len(tried) == 0 {
		if e := p.trial(due, w.safe); e != nil {
			return e, true
		}
	}
	if due := p.warmDue.Load(); due != 0 {
		p.warm(due)
	}
	if e := l.next.pick(w.key, tried); e != nil {
		return e, false
	}
	for _, e := range l.all { // those that are far, or left out for failing
		if !slices.Contains(tried, e) {
			return e, false
		}
	}
	return nil, false
}
