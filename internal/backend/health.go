package backend

import (
	"math/rand/v2"
	"time"
)

// complaint is what is wrong with an endpoint.
type complaint uint8

const (
	unreachable complaint = iota + 1 // no connection could be made
	resetting                        // connections break before a response
)

func (c complaint) String() string {
	switch c {
	case unreachable:
		return "no connection could be made"
	case resetting:
		return "connections break before a response"
	default:
		return ""
	}
}

// health is what is known of an endpoint from the requests that it was sent. The zero health is that of an endpoint that does well. Held: Pool.mu.
//
// Only what the endpoint did is in here: connections that could not be made, and connections that it broke before a response came. What clients did, limits of
// the proxy's own, and slow or malformed answers are not.
type health struct {
	out     bool // left out of the cycle
	why     complaint
	resets  int           // new connections that broke, in a row
	fails   int           // times it was left out, or failed again, since it last answered
	since   time.Duration // when it was left out, or last failed to come back
	retry   time.Duration // when a request may try it again
	trying  bool          // one does
	lastErr error
	lastAt  time.Time
}

// failed notes that an endpoint did something wrong with what began at start.
func (p *Pool) failed(e *endpoint, start time.Duration, why complaint, err error) {
	until, ejected := p.complain(e, start, why, err)
	if hook := p.set.opt.Hooks.Ejected; hook != nil && ejected {
		hook(p.key, e.address, p.set.epoch.Add(until), err)
	}
}

// complain notes that an endpoint did something wrong, and reports whether and until when it is left out because of that.
func (p *Pool) complain(e *endpoint, start time.Duration, why complaint, err error) (until time.Duration, ejected bool) {
	now := p.set.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.gone.Load() {
		return 0, false
	}
	e.ailing.Store(true)
	e.lastErr, e.lastAt = err, p.set.epoch.Add(now)
	if why == resetting {
		if e.resets++; !e.out && (e.resets < p.set.opt.MaxResets || p.tooFew()) {
			return 0, false
		}
	}
	if e.out && (start <= e.since || !e.trying && now < e.retry) {
		return 0, false // what began before it was left out is part of the same failure
	}
	e.fails++
	e.why, e.trying, e.since, e.retry = why, false, now, now+p.backoff(e.fails)
	if e.out {
		p.schedule(p.list.Load())
	} else {
		e.out = true
		p.rebuild(p.list.Load().all)
	}
	return e.retry, true
}

// tooFew reports whether less than half of the endpoints would be left if another were left out. Connections can be broken by requests that make an application crash,
// and whoever can send such requests must not be able to send all traffic to one endpoint. The caller holds p.mu.
func (p *Pool) tooFew() bool {
	l := p.list.Load()
	return 2*(len(l.out)+1) > len(l.all)
}

// backoff is how long an endpoint stays out that has failed n times, n at least 1.
func (p *Pool) backoff(n int) time.Duration {
	d := p.set.opt.Backoff << min(n-1, 20)
	if d <= 0 || d > p.set.opt.MaxBackoff {
		d = p.set.opt.MaxBackoff
	}
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64())) // #nosec G404 -- spreads replicas
}

// answered notes that an endpoint responded to a request that began at start.
func (p *Pool) answered(e *endpoint, start time.Duration) {
	if e.ailing.Load() {
		p.proved(e, start, true)
	}
}

// reached notes that a connection to an endpoint, begun at start, was made.
func (p *Pool) reached(e *endpoint, start time.Duration) {
	if e.ailing.Load() {
		p.proved(e, start, false)
	}
}

func (p *Pool) proved(e *endpoint, start time.Duration, answered bool) {
	if hook := p.set.opt.Hooks.Recovered; p.recover(e, start, answered) && hook != nil {
		hook(p.key, e.address)
	}
}

// recover takes an endpoint back if what happened proves that what was wrong with it is over, and reports whether it did. A connection proves it for an endpoint that could not be reached,
// but lets it keep the length of its back-off, because it may break that connection next. What began before it was left out proves nothing: servers that shut
// down answer what they have and accept nothing new.
func (p *Pool) recover(e *endpoint, start time.Duration, answered bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.out && (start <= e.since || !answered && e.why != unreachable) {
		return false
	}
	was := e.out
	e.out, e.trying = false, false
	if answered {
		e.why, e.fails, e.resets = 0, 0, 0
		e.ailing.Store(false)
	}
	if !was || e.gone.Load() {
		return false
	}
	l := p.list.Load()
	if len(l.out) == len(l.all) {
		// Whatever was wrong with all of them may be over for all of them: the first to come back should not have to do the work of the others.
		for _, other := range l.out {
			other.retry = min(other.retry, p.set.now())
		}
	}
	p.rebuild(l.all)
	return true
}

// trial lets one request through to an endpoint whose back-off has ended; nil if there is none. It is for requests that were not tried
// elsewhere before. due is what p.due was a moment ago.
func (p *Pool) trial(due int64, safe bool) *endpoint {
	now := p.set.now()
	if int64(now) < due || !p.mu.TryLock() {
		return nil
	}
	defer p.mu.Unlock()
	l := p.list.Load()
	defer p.schedule(l)
	for _, e := range l.out {
		if now < e.retry {
			continue
		}
		pause := p.backoff(max(e.fails, 1))
		// A request that can be sent again loses nothing if it meets an endpoint that breaks connections. Others wait for a while whether one comes.
		if e.why == resetting && !safe && now < e.retry+pause {
			continue
		}
		// If nothing is ever heard of this trial, there will be another after the same time.
		e.trying, e.retry = true, now+pause
		return e
	}
	return nil
}

// tryAgain notes that a trial has proved nothing, so that the next request can be one.
func (p *Pool) tryAgain(e *endpoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.out && e.trying {
		e.trying, e.retry = false, p.set.now()
		p.schedule(p.list.Load())
	}
}

// schedule sets when a request should next look for an endpoint to try again. The caller holds p.mu.
func (p *Pool) schedule(l *list) {
	due := never
	for _, e := range l.out {
		due = min(due, e.retry)
	}
	p.due.Store(int64(due))
}

func (p *Pool) hookConnected(e *endpoint, start time.Duration, err error) {
	if hook := p.set.opt.Hooks.Connected; hook != nil {
		hook(p.key, e.address, p.set.now()-start, err)
	}
}
