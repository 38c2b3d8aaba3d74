package backend

import (
	"net/http/httptrace"
	"slices"
	"time"
)

// A request that has not been answered is taken back from an endpoint that was given up in the meantime: because the cluster says that it is not ready any more, or
// because it is left out for failing. It goes to another endpoint then, if it may be repeated. What an endpoint answers slowly is worth waiting for, and one that became
// unready because it has too much to do still does it; so the request must have waited for far longer than is usual there, and the budget of the pool must allow it. If
// that is spent, the request goes on waiting.
//
// An endpoint that terminates finishes what it has, as it does when it left the pool for any other reason.
const (
	patience   = 2 * time.Second // how long a request waits in any case
	patientFor = 2               // and how many times as long as is usual
	lookPause  = time.Second     // between two looks, when patience has ended
)

// movable reports whether the request may go to another endpoint if the one that is to get it now is given up.
func (x *exchange) movable() bool {
	if x.attempt.Tries+1 >= x.pool.set.opt.MaxTries {
		return false
	}
	if p := x.policy; p != nil {
		return x.repeats < p.Attempts && isIdempotent(x.req)
	}
	return x.safe
}

// wroteRequest implements httptrace.ClientTrace.WroteRequest.
func (t *try) wroteRequest(info httptrace.WroteRequestInfo) {
	t.wrote.Store(int64(t.endpoint.pool.set.now()))
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.done || info.Err != nil {
		return
	}
	t.waited = 0
	t.step = t.nextLook()
	switch {
	case t.step <= 0:
	case t.timer == nil:
		t.timer = time.AfterFunc(t.step, t.look)
	default:
		t.timer.Reset(t.step)
	}
}

// nextLook is after what time to look again what has become of the try; 0 is never. The caller holds t.mu.
func (t *try) nextLook() (d time.Duration) {
	if t.movable {
		if d = patience; t.waited >= patience {
			d = lookPause
		}
	}
	if left := t.timeout - t.waited; t.timeout > 0 && (d == 0 || left < d) {
		d = left
	}
	return d
}

// look ends the try if it has waited for as long as it may, or should wait no longer for this endpoint.
func (t *try) look() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.done {
		return
	}
	t.waited += t.step
	switch {
	case t.timeout > 0 && t.waited >= t.timeout:
		t.cancel(errHeaderTimeout)
	case t.movable && t.forsaken():
		t.cancel(errForsaken)
	default:
		t.step = t.nextLook()
		t.timer.Reset(t.step)
	}
}

// forsaken reports whether the request should be taken back, and counts it in the budget if so. The caller holds t.mu.
func (t *try) forsaken() bool {
	e := t.endpoint
	if !e.givenUp() || t.waited < patientFor*e.usualLatency() || !t.body.complete() || !t.body.replayable() || !t.hasOther() {
		return false
	}
	ok, _ := e.pool.mayRetry(t.refused)
	t.refused = !ok
	return ok
}

// hasOther reports whether there is an endpoint that is used and that the request was not tried on.
func (t *try) hasOther() bool {
	return slices.ContainsFunc(t.endpoint.pool.list.Load().all, func(e *endpoint) bool {
		return e != t.endpoint && !e.aside.Load() && !e.gone.Load() && !slices.Contains(t.tried, e)
	})
}

// givenUp reports whether nobody expects the endpoint to answer.
func (e *endpoint) givenUp() bool { return e.unready.Load() || e.aside.Load() }
