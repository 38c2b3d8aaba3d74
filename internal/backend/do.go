package backend

import (
	"cmp"
	"errors"
	"net/http"
	"net/netip"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// Attempt is what Do is told about one request beside the request itself, and what it tells about it. The zero value is ready. One Attempt serves one call of Do;
// it may be read when Do has returned.
type Attempt struct {
	// HeaderTimeout, if not zero, replaces Options.HeaderTimeout; negative is no limit. If it is zero and the context has a deadline, only that counts. What the pool says of
	// it (route.Care.Response) counts beside it, unless TryTimeout is not zero.
	HeaderTimeout time.Duration
	// TryTimeout limits each try, from picking an endpoint to the end of the response. It does not limit what follows a 101 response. Not positive is no limit. The error,
	// also of reading the response's body, is an *Error with the reason BackendTimeout.
	TryTimeout time.Duration
	// Interrupt, if not nil, is called when TryTimeout has ended a try before the request's body was at its end. It must make a Read of the body that is under
	// way return, and may end the request's context; there is no other try after that.
	Interrupt func()
	// Retry says when the request is sent again beyond what Do does of its own accord. Nil leaves it to the pool.
	Retry *route.Retry
	// Informational, if not nil, is given each 1xx response (except 101) as it arrives: one after the other, from another goroutine, but never after Do has
	// returned. An error from it ends the request. The header is the callee's. It costs less than httptrace, and a slow client that it waits for does not stop
	// the other requests on the same HTTP/2 connection.
	Informational func(code int, header http.Header) error
	// Client is the address of the client, for pools that keep clients at an endpoint by it or hash it. The zero Addr is an unknown one.
	Client netip.Addr
	// Persistence, if not nil, keeps the client at an endpoint by a session. Session is what the client said of it; "" if it has none.
	Persistence *route.Persistence
	Session     string

	NewSession string        // what the client is to say of its session from now on; "" if what it said holds
	Far        bool          // the endpoint is not one of those that are preferred for being near
	Endpoint   string        // the address of the endpoint tried last; empty if there was none
	Tries      int           // how often an endpoint was tried
	Reused     bool          // the connection had served other requests before
	Connect    time.Duration // that connecting to the endpoint tried last took; 0 if the connection was there already
	FirstByte  time.Duration // from the call of Do to the head of the response
}

// Do sends a request to an endpoint of the pool and returns its response. The scheme and host of req.URL are ignored; req.Host is what is sent as Host. req is
// not changed and, unlike with a http.RoundTripper, its body is never closed: it belongs to the server that reads it. The body is not read any more after the
// response's body was closed, except that a Read may still be under way then.
//
// A connection that cannot be made leads to another endpoint, whatever the method. So does a connection that turns out to be closed before anything was sent on
// it. One that breaks later does so for GET, HEAD and OPTIONS requests without a body, once and within Options.RetryPercent.
//
// A request that may be repeated, and was not answered, is taken back from an endpoint that is given up in the meantime, and goes to another.
//
// Attempt.Retry has the request sent again after a response with one of its codes, and, if the method is idempotent, after a connection that broke and a try that
// took too long; to an endpoint that it was not tried on if there is one, within the budget of the pool, and as long as the body that was read so far is short
// enough to be kept. If that is of no use, or not allowed, the last response is returned.
//
// The caller must close the response's body; the request counts as in flight until then. The body of a 101 response is an io.ReadWriteCloser with CloseWrite.
// A request whose context ends is cancelled at the backend; after a 101 that has no effect any more.
//
// The error is always an *Error. If the connection to the backend breaks while the client sends its body slowly, Do may return only after the next Read of the
// body has.
func (p *Pool) Do(req *http.Request, a *Attempt) (*http.Response, error) {
	x := exchange{pool: p, req: req, attempt: a, start: p.set.now()}
	if why := p.list.Load().refused; why != nil {
		return nil, x.giveUp(&Error{Reason: route.BackendConnectFailed, Err: why})
	}
	x.body = newSource(req, p.list.Load().care.Replay, &p.set.bodies)
	x.safe = x.body == nil && isSafe(req)
	x.policy = cmp.Or(a.Retry, p.retry.Load())
	x.wish = p.wishFor(req, a, x.safe)
	for {
		e, trial, err := x.find()
		if e == nil {
			return nil, x.giveUp(cmp.Or(err, x.last))
		}
		t := newTry(&x, e)
		var res *http.Response
		res, err = x.try(t, trial)
		switch {
		case err != nil && x.again(err):
			t.discard(res)
			if !x.wait() {
				return nil, x.giveUp(x.last)
			}
		case x.broke:
			t.discard(res)
			return nil, x.giveUp(&Error{Reason: route.RetryBudget, Endpoint: e.address, Err: errBroke})
		case res == nil:
			return nil, x.giveUp(err)
		default:
			x.body.sent()
			t.open(res)
			return res, nil
		}
	}
}

// exchange is one call of Do.
type exchange struct {
	pool    *Pool
	req     *http.Request
	attempt *Attempt
	start   time.Duration
	body    *source
	safe    bool         // may be sent twice, whatever the policy
	policy  *route.Retry // nil if there is none
	wish    wish
	tried   []*endpoint   // to no avail
	last    *Error        // of them
	resent  bool          // was sent again after it had been sent
	repeats int           // how often the policy had it sent again
	pause   time.Duration // before the next try
	broke   bool          // the budget does not allow another, and says that this is the end
}

// giveUp ends the exchange with the error of the last try, if there was one.
func (x *exchange) giveUp(last *Error) error {
	x.body.sent()
	x.body.end()
	if last == nil || last.retry == answered {
		return &Error{Reason: route.NoEndpoints, Err: errNoEndpoints}
	}
	return last
}

// try sends the request to an endpoint, which was acquired. The error may come with a response: one that the request should be sent again after.
func (x *exchange) try(t *try, trial bool) (*http.Response, *Error) {
	e := t.endpoint
	x.attempt.Endpoint = e.address
	x.attempt.Tries++
	x.attempt.Reused, x.attempt.Connect = false, 0
	req, err := t.request(x)
	if err != nil {
		t.settle(false)
		t.finish()
		return nil, &Error{Reason: route.Internal, Endpoint: e.address, Err: err}
	}
	res, err := e.speaks(req).RoundTrip(req)
	t.settle(err == nil)
	if err == nil {
		err = t.check(res)
	}
	if t.conn != nil && !t.reused {
		x.attempt.Connect = t.conn.took
	}
	x.attempt.Reused = t.reused
	if err != nil {
		return nil, x.failure(t, trial, err)
	}
	now := x.pool.set.now()
	x.attempt.FirstByte = now - x.start
	took := time.Duration(0)
	if wrote := t.wrote.Load(); wrote != 0 { // else the client was slower than the endpoint
		took = now - time.Duration(wrote)
		e.observe(now, took)
	}
	x.pool.answered(e, t.start, now, took, res.StatusCode)
	if err := x.refused(e, res); err != nil {
		return res, err
	}
	x.stay(e)
	return res, nil
}

// stay notes that the client's next requests should go to the endpoint that has answered it.
func (x *exchange) stay(e *endpoint) {
	a := x.attempt
	a.Far = e.far.Load()
	a.NewSession = ""
	if a.Persistence != nil && x.wish.prefer != e {
		a.NewSession = x.pool.token(e, a.Persistence, x.pool.set.opt.Now())
	}
	if timeout := x.pool.list.Load().policy.ClientIP; timeout > 0 && a.Client.IsValid() && x.wish.prefer != e {
		x.pool.clients.settle(a.Client, e, x.pool.set.now(), timeout)
	}
}

// keptWaiting reports whether the endpoint had the whole time of the request and did not answer in it.
func (x *exchange) keptWaiting(t *try) bool {
	if x.attempt.Tries > 1 || t.wrote.Load() == 0 {
		return false
	}
	r := reasonOf(x.req.Context())
	return x.req.Context().Err() != nil && (r == route.RequestTimeout || r == route.BackendTimeout)
}

// failure says why a try has failed, holds it against the endpoint if that is to blame, and lets go of it.
func (x *exchange) failure(t *try, trial bool, err error) *Error {
	defer t.finish()
	f := x.diagnose(t, err)
	f.Endpoint, f.endpoint = t.endpoint.address, t.endpoint
	var connect *connectError
	switch {
	case f.Reason == route.BackendConnectFailed && !errors.As(err, &connect):
		x.pool.failed(t.endpoint, t.start, unreachable, f.Err)
	case f.Reason == route.BackendReset && !f.stale:
		x.pool.failed(t.endpoint, t.start, resetting, f.Err)
		x.pool.bad(t.endpoint, t.start, x.pool.set.now(), f.Err)
	case f.retry == late, f.Reason == route.BackendProtocol, x.keptWaiting(t):
		x.pool.bad(t.endpoint, t.start, x.pool.set.now(), f.Err)
		x.pool.triedInVain(t, trial, f.Err)
	case f.retry == moved:
		x.pool.triedInVain(t, trial, f.Err)
	}
	if trial {
		x.pool.tryAgain(t.endpoint)
	}
	return f
}
