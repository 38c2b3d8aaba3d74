package backend

import (
	"cmp"
	"math/rand/v2"
	"time"
)

// complaint is what is wrong with an endpoint.
type complaint uint8

const (
	unreachable complaint = iota + 1 // no connection could be made
	resetting                        // connections break before a response
	faulty                           // it answers with errors, or not in time
	slow                             // it answers far later than others
)

func (c complaint) String() string {
	switch c {
	case unreachable:
		return "no connection could be made"
	case resetting:
		return "connections break before a response"
	case faulty:
		return "it fails more than others"
	case slow:
		return "it is slower than others"
	default:
		return ""
	}
}

// health is what is known of an endpoint from the requests that it was sent. The zero health is that of an endpoint that does well. Held: Pool.mu.
//
// Only what the endpoint did is in here: connections that could not be made or were broken, answers that are errors, came late or not at all. What clients did and limits
// of the proxy's own are not.
type health struct {
	out     bool // left out of the cycle: ejected or sick
	ejected bool // for what came of requests
	sick    bool // by the active checks
	why     complaint
	resets  int           // new connections that broke, in a row
	fails   int           // times it was left out, or failed again, since it last answered
	since   time.Duration // when it was left out, or last failed to come back
	retry   time.Duration // when a request may try it again
	trying  bool          // one does
	lastErr error
	lastAt  time.Time

	ejections int           // ever
	limit     time.Duration // that an answer must stay under to prove that the endpoint is not slow any more
	checker   *checker      // nil if there are no active checks
	checked   bool          // an active check has come out
	checks    int           // in a row that came out differently than those before
	checkErr  error         // of the last active check
}

// settle brings out up to date after a change of what it follows from.
func (e *endpoint) settle() {
	e.out = e.ejected || e.sick
	e.leftOut.Store(e.out)
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
		if e.resets++; !e.ejected && e.resets < p.set.opt.MaxResets {
			return 0, false
		}
	}
	if !e.out && why != unreachable && p.tooFew() {
		return 0, false
	}
	if e.ejected && (start <= e.since || !e.trying && now < e.retry) {
		return 0, false // what began before it was left out is part of the same failure
	}
	e.fails++
	e.why, e.trying, e.since, e.retry = why, false, now, now+p.backoff(e.fails)
	if why == slow {
		e.limit = p.slowLimit(now)
	}
	if e.ejected {
		p.schedule(p.list.Load())
	} else {
		e.ejections++
		e.ejected = true
		e.settle()
		p.rebuild(p.list.Load().all)
	}
	return e.retry, true
}

// tooFew reports whether too few of the endpoints, by default less than half, would be left if another were left out. Connections can be broken by requests that make an
// application crash, and whoever can send such requests must not be able to send all traffic to one endpoint. The caller holds p.mu.
func (p *Pool) tooFew() bool {
	l := p.list.Load()
	return len(l.out)+1 > mostOut(&p.care.Outlier, len(l.all))
}

// backoff is how long an endpoint stays out that has failed n times, n at least 1.
func (p *Pool) backoff(n int) time.Duration {
	o := &p.care.Outlier
	most := cmp.Or(o.MaxBackoff, max(p.set.opt.MaxBackoff, o.Backoff))
	d := cmp.Or(o.Backoff, p.set.opt.Backoff) << min(n-1, 20)
	if d <= 0 || d > most {
		d = most
	}
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64())) // #nosec G404 -- spreads replicas
}

// proof is what an endpoint did that shows something of its health.
type proof struct {
	answered bool          // it responded, and did not only take a connection
	bad      bool          // the response is an error
	took     time.Duration // from the request to the response; 0 if it is not known
}

// answered notes that an endpoint responded to a request that began at start.
func (p *Pool) answered(e *endpoint, start, now, took time.Duration, status int) {
	pr := proof{answered: true, bad: isBad(status), took: took}
	if e.ailing.Load() {
		p.proved(e, start, pr)
	}
	if pr.bad {
		p.bad(e, start, now, statusError(status))
	} else {
		p.good(e, now, took)
	}
}

// reached notes that a connection to an endpoint, begun at start, was made.
func (p *Pool) reached(e *endpoint, start time.Duration) {
	if e.ailing.Load() {
		p.proved(e, start, proof{})
	}
}

func (p *Pool) proved(e *endpoint, start time.Duration, pr proof) {
	if hook := p.set.opt.Hooks.Recovered; p.recover(e, start, pr) && hook != nil {
		hook(p.key, e.address)
	}
}

// refutes reports whether something that the endpoint did, begun at start, shows that what was wrong with it is over. A connection shows it for an endpoint that could not be
// reached. What began before it was left out shows nothing: servers that shut down answer what they have and accept nothing new.
func (e *endpoint) refutes(start time.Duration, pr proof) bool {
	switch {
	case !e.ejected:
		return true
	case start <= e.since:
		return false
	}
	switch e.why {
	case unreachable:
		return true
	case faulty:
		return pr.answered && !pr.bad
	case slow:
		return pr.answered && !pr.bad && pr.took > 0 && pr.took <= e.limit
	default:
		return pr.answered
	}
}

// recover takes an endpoint back if what happened shows that what was wrong with it is over, and reports whether it did. One that only took a connection keeps the length of its
// back-off, because it may break that connection next. A trial that shows the contrary makes it wait for the next, and longer.
func (p *Pool) recover(e *endpoint, start time.Duration, pr proof) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !e.refutes(start, pr) {
		if pr.answered && e.trying && start > e.since {
			e.fails++
			e.trying, e.since = false, p.set.now()
			e.retry = e.since + p.backoff(e.fails)
			p.schedule(p.list.Load())
		}
		return false
	}
	was := e.out
	if e.ejected {
		e.tally.forget()
	}
	e.ejected, e.trying = false, false
	e.settle()
	if pr.answered {
		e.why, e.fails, e.resets = 0, 0, 0
		e.ailing.Store(e.sick)
	}
	was = was && !e.out
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
		if now < e.retry || !e.ejected || e.sick {
			continue
		}
		pause := p.backoff(max(e.fails, 1))
		// A request that can be sent again loses little if it meets an endpoint that breaks connections or fails. Others wait for a while whether one comes.
		if e.why != unreachable && !safe && now < e.retry+pause {
			continue
		}
		// If nothing is heard of this trial there will be another after the same time, and after one that nothing is heard of either, after twice that.
		if e.trying {
			e.fails++
			pause = p.backoff(e.fails)
		}
		e.trying, e.retry = true, now+pause
		return e
	}
	return nil
}

// triedInVain notes that a trial was not answered, or not in time.
func (p *Pool) triedInVain(t *try, trial bool, err error) {
	if trial && t.endpoint.leftOut.Load() {
		p.failed(t.endpoint, t.start, faulty, err)
	}
}

// tryAgain notes that a trial has proved nothing, so that the next request can be one.
func (p *Pool) tryAgain(e *endpoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.ejected && e.trying {
		e.trying, e.retry = false, p.set.now()
		p.schedule(p.list.Load())
	}
}

// schedule sets when a request should next look for an endpoint to try again. The caller holds p.mu.
func (p *Pool) schedule(l *list) {
	due := never
	for _, e := range l.out {
		if e.ejected && !e.sick {
			due = min(due, e.retry)
		}
	}
	p.due.Store(int64(due))
}

func (p *Pool) hookConnected(e *endpoint, start time.Duration, err error) {
	if hook := p.set.opt.Hooks.Connected; hook != nil {
		hook(p.key, e.address, p.set.now()-start, err)
	}
}
