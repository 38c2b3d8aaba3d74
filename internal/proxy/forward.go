package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/fairlead-io/fairlead/internal/backend"
	"github.com/fairlead-io/fairlead/internal/route"
)

// reverse is shared by all exchanges. What belongs to one of them is in the context of its request.
var reverse = &httputil.ReverseProxy{
	Rewrite:        rewrite,
	Transport:      transport{},
	ModifyResponse: modifyResponse,
	ErrorHandler:   handleError,
	BufferPool:     &buffers{},
	// What goes wrong is told by the access log, with the request that it happened to.
	ErrorLog: log.New(io.Discard, "", 0),
}

type exchangeKey struct{}

// exchangeOf returns the exchange that the context of a request belongs to.
func exchangeOf(ctx context.Context) *exchange { return ctx.Value(exchangeKey{}).(*exchange) }

// timeoutError is why an exchange was cancelled that took longer than its rule allows.
type timeoutError struct{ reason route.Reason }

func (e *timeoutError) Error() string { return string(e.reason) + ": the rule allows no more time" }

// Reason tells package backend that neither client nor backend has called the request off.
func (e *timeoutError) Reason() route.Reason { return e.reason }

var (
	errRequestTimeout = &timeoutError{route.RequestTimeout}
	errBackendTimeout = &timeoutError{route.BackendTimeout} // before the client's body had come
)

// forward sends the request to its backend and the response to the client.
func (x *exchange) forward() {
	if !x.openBody() {
		return
	}
	if x.upgrade = allowedUpgrade(x.in); !x.upgrade {
		delete(x.in.Header, "Upgrade")
	}
	ctx := context.WithValue(x.in.Context(), exchangeKey{}, x)
	if t := &x.rule.Timeouts; t.Request > 0 || t.Backend > 0 && x.body != nil {
		ctx, x.cancel = context.WithCancelCause(ctx)
	}
	if limit := x.rule.Timeouts.Request; limit > 0 {
		x.timer = time.AfterFunc(limit-time.Since(x.started), x.breakOff(errRequestTimeout))
	}
	x.in = x.in.WithContext(ctx)
	x.ctx = ctx
	if x.body != nil {
		x.in.Body = x.body
	}
	reverse.ServeHTTP(&x.reply, x.in)
}

// breakOff returns a function that cancels the exchange. A transport does not come back while it waits for the client's body, so that is woken up, too.
func (x *exchange) breakOff(cause error) func() {
	cancel, body := x.cancel, x.body
	return func() {
		cancel(cause)
		if body != nil {
			_ = body.Close()
		}
	}
}

// stopTimer takes the time limit off the exchange.
func (x *exchange) stopTimer() {
	if x.timer != nil {
		x.timer.Stop()
	}
}

// openBody prepares the body of the request, if it has one. It answers the request itself if the body is known to be too large.
func (x *exchange) openBody() (ok bool) {
	r, l := x.in, &x.h.proxy.opt.Limits
	if x.body != nil || r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return true
	}
	if l.BodyBytes > 0 && r.ContentLength > l.BodyBytes {
		x.answer(http.StatusRequestEntityTooLarge, route.BodyTooLarge, fmt.Sprintf("%d bytes are announced, %d allowed", r.ContentLength, l.BodyBytes))
		return false
	}
	x.body = newClientBody(x.reply.ResponseWriter, r, l)
	if x.body.http1 && x.expects() {
		x.body.before = x.reply.ask
	}
	x.waits = waitsUnseen(r)
	return true
}

// expects reports whether the client waits for a 100 before it sends the body, as far as net/http tells: of HTTP/2 it does not. See waits.
func (x *exchange) expects() bool {
	return httpguts.HeaderValuesContainsToken(x.in.Header["Expect"], "100-continue")
}

var continueValue = []string{"100-continue"}

// rewrite makes the outgoing request of an exchange.
func rewrite(pr *httputil.ProxyRequest) {
	x := exchangeOf(pr.In.Context())
	p := &x.backend.plan
	x.setTarget(pr.Out, p)
	x.requestHeader(pr.Out)
	if x.upgrade {
		upgradeHeader(pr.Out.Header)
	}
	if x.waits {
		pr.Out.Header["Expect"] = continueValue
	}
	changeRequest(pr.Out, x.granted.request)
	x.mirror(pr.Out)
	changeRequest(pr.Out, p.request)
	pr.Out.Trailer = nil
	if x.body != nil {
		pr.Out.Trailer = x.trailer()
		x.body.from, x.body.to = x.in.Trailer, pr.Out.Trailer
		pr.Out.Body = x.body // in place of httputil.ReverseProxy's wrapper, whose Close does not wake a read
	}
}

// transport hands outgoing requests to the pool that was chosen.
type transport struct{}

// RoundTrip implements http.RoundTripper.
func (transport) RoundTrip(out *http.Request) (*http.Response, error) {
	x := exchangeOf(out.Context())
	if trace := httptrace.ContextClientTrace(out.Context()); trace != nil {
		trace.Got1xxResponse = nil // set by httputil.ReverseProxy, which has no limits and no lock
	}
	x.attempt.Informational = x.reply.informational
	x.attempt.Client, x.attempt.Persistence, x.attempt.Session = x.client, x.backend.keeps, x.session(x.backend.keeps)
	t := &x.rule.Timeouts
	if t.Request != 0 || t.Backend != 0 {
		x.attempt.HeaderTimeout = -1 // the rule's own limits hold instead
	}
	x.attempt.TryTimeout = t.Backend
	if t.Backend > 0 && x.body != nil {
		x.attempt.Interrupt = x.breakOff(errBackendTimeout)
	}
	x.attempt.Retry = x.rule.Retry
	x.sent = time.Now()
	res, err := x.backend.pool.Do(out, &x.attempt)
	x.reply.settle()
	return res, err
}

// failure is an error that says itself how the client is answered.
type failure struct {
	status int
	reason route.Reason
	err    error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// modifyResponse checks the head of a backend's response and prepares it for the client. A 101 it serves to the end: httputil.ReverseProxy forgets what the client
// sent early, never gives up, and cannot be drained.
func modifyResponse(res *http.Response) error {
	x := exchangeOf(res.Request.Context())
	x.backendStatus = res.StatusCode
	if err := checkResponse(res); err != nil {
		return &failure{http.StatusBadGateway, route.BackendProtocol, err}
	}
	h := res.Header
	for name := range h {
		if forbiddenHeader(name) {
			delete(h, name)
		}
	}
	change(h, x.granted.response)
	x.corsHeader(h, x.backend.plan.cors)
	change(h, x.backend.plan.response)
	x.tellSession(h)
	if _, ok := h["Content-Type"]; !ok {
		x.reply.Header()["Content-Type"] = nil // or net/http guesses one from the body
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		return x.serveUpgraded(res)
	}
	if res.StatusCode == http.StatusNoContent {
		delete(h, "Content-Length") // RFC 9110, section 8.6: there must be none, and HTTP/2 clients take it at its word
	}
	scrubTrailer(res.Trailer)
	x.response = replyBody{ReadCloser: res.Body, res: res}
	if res.ContentLength > 0 { // httputil.ReverseProxy flushes only what is of unknown length
		x.response.flush = x.reply.FlushError
	}
	res.Body = &x.response
	return nil
}

// checkResponse refuses a status that net/http's server cannot send. Package backend has seen to everything else.
func checkResponse(res *http.Response) error {
	if s := res.StatusCode; s < http.StatusOK && s != http.StatusSwitchingProtocols || s > 999 {
		return fmt.Errorf("check response: status %d", s)
	}
	return nil
}

// handleError answers a request whose backend did not.
func handleError(_ http.ResponseWriter, out *http.Request, err error) {
	x := exchangeOf(out.Context())
	if errors.Is(err, errPipeDone) {
		return
	}
	x.fail(x.diagnose(err))
}

// diagnose says what an error that ended an exchange means: whose fault it was, and what the client is told if it can still be told anything. The error of
// a backend comes last, because whatever went wrong before has usually made the transport give up, too.
func (x *exchange) diagnose(err error) *failure {
	if fault := x.body.fault(x.ctx.Err() != nil); fault != nil {
		return &failure{fault.status, fault.reason, fault}
	}
	if x.reply.stalled() {
		return &failure{statusClientClosed, route.ClientClosed, fmt.Errorf("write response: %w", x.reply.err)}
	}
	if x.ctx.Err() != nil {
		cause := context.Cause(x.ctx)
		if late, ok := errors.AsType[*timeoutError](cause); ok {
			return &failure{http.StatusGatewayTimeout, late.reason, late}
		}
		return &failure{statusClientClosed, route.ClientClosed, cause}
	}
	if x.reply.err != nil {
		return &failure{statusClientClosed, route.ClientClosed, fmt.Errorf("write response: %w", x.reply.err)}
	}
	if own, ok := errors.AsType[*failure](err); ok {
		return own
	}
	return backendFailure(err)
}

// backendFailure says what an error from package backend means.
func backendFailure(err error) *failure {
	f := &failure{http.StatusBadGateway, route.BackendReset, err}
	if e, ok := errors.AsType[*backend.Error](err); ok {
		f.reason = e.Reason
	}
	switch f.reason {
	case route.NoEndpoints, route.Overloaded, route.EndpointsBusy, route.QueueFull, route.QueueTimeout, route.RetryBudget:
		f.status = http.StatusServiceUnavailable
	case route.BackendTimeout:
		f.status = http.StatusGatewayTimeout
	case route.ClientClosed:
		f.status = statusClientClosed
	case route.BadBody:
		f.status = http.StatusBadRequest
	case route.Internal:
		f.status = http.StatusInternalServerError
	}
	return f
}
