package backend

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// How long to wait before a request is sent again by its policy: defaultPause if that does not say, twice as long each time, up to maxPauses times as long.
const (
	defaultPause = 10 * time.Millisecond
	maxPauses    = 10
)

// isSafe reports whether a request without a body asks for nothing to be changed, so that sending it twice costs nothing but work.
func isSafe(req *http.Request) bool {
	return req.Method == http.MethodGet || req.Method == http.MethodHead || req.Method == http.MethodOptions
}

// isIdempotent reports whether it makes no difference whether a request is received once or twice (RFC 9110, section 9.2.2), by its method or because its
// client has numbered it.
func isIdempotent(req *http.Request) bool {
	switch req.Method {
	case http.MethodPut, http.MethodDelete, http.MethodTrace:
		return true
	}
	return isSafe(req) || len(req.Header["Idempotency-Key"]) > 0
}

// again decides whether the request is sent again after a try that came to err.
//
// What reached nobody goes to another endpoint, whatever the policy. A safe request that an idle connection took with it is repeated once in any case, and one
// that a fresh connection took with it unless there is a policy: that decides then.
func (x *exchange) again(err *Error) bool {
	if x.req.Context().Err() != nil || !x.body.replayable() {
		return false
	}
	x.pause = 0
	switch {
	case err.retry == moved:
		x.repeats += min(1, x.attempts()) // of a policy it is one, too
	case err.retry == unsent && x.mayGoElsewhere(err):
	case x.mayResend(err):
		x.resent = true
	case x.mayRepeat(err):
		x.repeats++
		x.pause = x.backoff()
	default:
		return false
	}
	x.last = err
	if !err.stale {
		x.tried = append(x.tried, err.endpoint)
	}
	if hook := x.pool.set.opt.Hooks.Retried; hook != nil {
		hook(x.pool.key, err.Endpoint, err.Err)
	}
	return true
}

// hasOther reports whether there is an endpoint that the request was not tried on, or a reason to ask the same one again.
func (x *exchange) hasOther(err *Error) bool {
	return err.stale || len(x.tried)+1 < len(x.pool.list.Load().all)
}

// mayGoElsewhere decides about a request that nothing was sent of.
func (x *exchange) mayGoElsewhere(err *Error) bool {
	opt := &x.pool.set.opt
	return x.attempt.Tries < opt.MaxTries && x.hasOther(err) && x.pool.set.now()-x.start < opt.ConnectTimeout
}

// mayResend decides about a request that may have been received but was not answered, where the policy has no say.
func (x *exchange) mayResend(err *Error) bool {
	opt := &x.pool.set.opt
	if err.retry != broken || !x.safe || x.resent || x.policy != nil && !err.stale {
		return false
	}
	return x.attempt.Tries < opt.MaxTries && x.hasOther(err) && x.withinBudget()
}

// mayRepeat decides by the policy. Unlike the other two it may choose an endpoint again, if there is no other.
func (x *exchange) mayRepeat(err *Error) bool {
	p := x.policy
	if p == nil || x.repeats >= p.Attempts {
		return false
	}
	switch err.retry {
	case unsent, answered:
	case broken, late:
		if !isIdempotent(x.req) {
			return false
		}
	default:
		return false
	}
	return x.withinBudget()
}

// attempts is how often the policy has a request sent again at most.
func (x *exchange) attempts() int {
	if x.policy == nil {
		return 0
	}
	return x.policy.Attempts
}

func (x *exchange) withinBudget() bool {
	ok, strict := x.pool.mayRetry(false)
	x.broke = !ok && strict
	return ok
}

// mayRetry reports whether the budget allows another request to be sent again, which is counted then, and whether one that is refused must not be answered in any other way.
// known says that this request was refused before.
func (p *Pool) mayRetry(known bool) (ok, strict bool) {
	terms := p.list.Load().care.Budget
	ok = p.budget.take(p.set.now(), p.traffic.begun(), p.set.opt.RetryPercent, terms)
	if hook := p.set.opt.Hooks.RetryRefused; !ok && !known && hook != nil {
		hook(p.key)
	}
	return ok, terms.Strict
}

// backoff is how long to wait before the next try.
func (x *exchange) backoff() time.Duration {
	base := x.policy.Backoff
	if base <= 0 {
		base = defaultPause
	}
	d := min(base<<min(x.repeats-1, 8), maxPauses*base)
	return d + rand.N(d/4+1) // #nosec G404 -- spreads what failed together
}

// wait waits until it is time for the next try, and reports whether the request is still wanted then.
func (x *exchange) wait() bool {
	if x.pause <= 0 {
		return true
	}
	timer := time.NewTimer(x.pause)
	defer timer.Stop()
	ctx := x.req.Context()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		x.last = &Error{Reason: reasonOf(ctx), Endpoint: x.last.Endpoint, Err: context.Cause(ctx)}
		return false
	}
}

// acquire picks the next endpoint. When all were tried and the policy wants another try, the one that it was not tried on last is next.
func (x *exchange) acquire() (e *endpoint, trial, busy bool) {
	e, trial, busy = x.pool.acquire(x.wish, x.tried)
	if e != nil || busy || x.repeats == 0 || len(x.tried) == 0 {
		return e, trial, busy
	}
	x.tried = slices.Clone(x.tried[len(x.tried)-1:])
	if len(x.pool.list.Load().all) < 2 {
		x.tried = nil
	}
	return x.pool.acquire(x.wish, x.tried)
}

// statusError says that a response had a status after which its request is sent again.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("it answered %d", int(e)) }

// refused returns why the policy wants the request sent again after a response; nil if it does not. The response is still whole.
func (x *exchange) refused(e *endpoint, res *http.Response) *Error {
	if !x.policy.Covers(res.StatusCode) {
		return nil
	}
	return &Error{Reason: route.BackendProtocol, Endpoint: e.address, Err: statusError(res.StatusCode), endpoint: e, retry: answered}
}

// What a response that nobody will see may cost, so that its connection can be used again.
const (
	maxDiscard  = 16 << 10
	discardTime = 50 * time.Millisecond
)

// discard ends a try with a response that nobody will see, after reading what is left of it, if it is little and comes at once. res may be nil.
func (t *try) discard(res *http.Response) {
	if res == nil {
		return
	}
	if res.StatusCode != http.StatusSwitchingProtocols && res.ContentLength <= maxDiscard {
		timer := time.AfterFunc(discardTime, func() { t.cancel(errTryOver) })
		_, _ = io.CopyN(io.Discard, res.Body, maxDiscard+1)
		timer.Stop()
	}
	_ = res.Body.Close()
	t.finish()
}
