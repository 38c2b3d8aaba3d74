package proxy

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"

	"github.com/fairlead-io/fairlead/internal/backend"
	"github.com/fairlead-io/fairlead/internal/route"
	"github.com/fairlead-io/fairlead/internal/telemetry"
)

// statusClientClosed is what the log says of a request whose client left before there was an answer. It is never sent.
const statusClientClosed = 499

// ReasonHeader is the header of the answers that Fairlead gives itself. It holds the reason code and nothing else.
const ReasonHeader = "X-Fairlead-Reason"

// answer answers the request in place of a backend. The client learns the status and the code of the reason; the detail, which may name objects, goes to the log.
func (x *exchange) answer(status int, reason route.Reason, detail string) {
	x.entry.Reason, x.entry.Detail = reason, detail
	x.settleBody()
	h := x.reply.Header()
	h[ReasonHeader] = []string{string(reason)}
	x.corsHeader(h, x.cors())
	if isGRPC(x.in) && status >= http.StatusBadRequest {
		answerGRPC(h, status, reason)
		x.reply.WriteHeader(http.StatusOK)
		return
	}
	if status == http.StatusServiceUnavailable {
		h["Retry-After"] = []string{"1"}
	}
	if x.in.ProtoMajor == 1 && (reason == route.MethodNotAllowed || status == http.StatusRequestTimeout) {
		h["Connection"] = closeValue
	}
	h["Content-Type"] = []string{"text/plain; charset=utf-8"}
	h["X-Content-Type-Options"] = []string{"nosniff"}
	text := strconv.Itoa(status) + " " + http.StatusText(status) + ": " + string(reason) + "\n"
	h["Content-Length"] = []string{strconv.Itoa(len(text))}
	x.reply.WriteHeader(status)
	if x.in.Method != http.MethodHead {
		_, _ = x.reply.Write([]byte(text)) // a failure is kept in the reply
	}
}

// settleBody brings an HTTP/1 connection to the end of the request, if that is not far away, so that it need not be closed. Without a clientBody net/http does it, and
// only has to be told when to stop.
func (x *exchange) settleBody() {
	switch {
	case x.body != nil:
		x.body.drain()
	case x.in.ProtoMajor == 1 && x.in.ContentLength != 0:
		_ = http.NewResponseController(x.reply.ResponseWriter).SetReadDeadline(time.Now().Add(drainTimeout))
	}
}

// isGRPC reports whether a request speaks gRPC, whose clients do not look at the HTTP status first.
func isGRPC(r *http.Request) bool {
	return route.IsGRPC(r.Header["Content-Type"])
}

// answerGRPC makes the header of a response without messages ("Trailers-Only" in the gRPC protocol).
func answerGRPC(h http.Header, status int, reason route.Reason) {
	h["Content-Type"] = []string{"application/grpc"}
	h["Grpc-Status"] = []string{strconv.Itoa(grpcStatus(status, reason))}
	h["Grpc-Message"] = []string{http.StatusText(status) + ": " + string(reason)}
}

// grpcStatus is the gRPC status code for an HTTP status, as far as Fairlead answers with it. A backend that does not exist is one that is not available: so Gateway
// API wants it (GRPCRouteRule.backendRefs), and so it may become one.
func grpcStatus(status int, reason route.Reason) int {
	const (
		invalidArgument   = 3
		deadlineExceeded  = 4
		resourceExhausted = 8
		unimplemented     = 12
		internal          = 13
		permissionDenied  = 7
		unavailable       = 14
		unauthenticated   = 16
	)
	if reason == route.NoBackend {
		return unavailable
	}
	switch status {
	case http.StatusBadRequest, http.StatusRequestURITooLong:
		return invalidArgument
	case http.StatusUnauthorized:
		return unauthenticated
	case http.StatusForbidden:
		return permissionDenied
	case http.StatusTooManyRequests:
		return resourceExhausted
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return deadlineExceeded
	case http.StatusRequestEntityTooLarge, http.StatusRequestHeaderFieldsTooLarge:
		return resourceExhausted
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return unimplemented
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusMisdirectedRequest:
		return unavailable
	}
	return internal
}

// fail answers a request whose backend could not. If nobody is there any more to be answered, it breaks the exchange off.
func (x *exchange) fail(f *failure) {
	if f.status == statusClientClosed {
		x.blame(f)
		panic(http.ErrAbortHandler)
	}
	x.answer(f.status, f.reason, f.Error())
}

// blame notes why an exchange failed.
func (x *exchange) blame(f *failure) { x.entry.Reason, x.entry.Detail = f.reason, f.Error() }

// brokenOff is the error for which httputil.ReverseProxy broke a response off.
func (x *exchange) brokenOff() error {
	f := &failure{http.StatusBadGateway, route.BackendProtocol, x.response.err}
	own, ok := errors.AsType[*backend.Error](f.err)
	switch _, reset := errors.AsType[http2.StreamError](f.err); {
	case f.err == nil:
		f.reason, f.err = route.Internal, errors.New("the response was broken off")
	case ok:
		f.reason = own.Reason
	case reset || isGone(f.err):
		f.reason = route.BackendReset
	}
	return f
}

// answerAfterPanic answers a request that Fairlead itself failed. It reports whether not even that worked.
func (x *exchange) answerAfterPanic() (failed bool) {
	defer func() {
		if recover() != nil {
			failed = true
		}
	}()
	x.reply.settle()
	x.answer(http.StatusInternalServerError, route.Internal, x.entry.Detail)
	return false
}

// account tells the metrics and the access log what became of the exchange. It is called once for each.
func (x *exchange) account() {
	d := time.Since(x.started)
	status := x.reply.status
	if status == 0 {
		status = statusClientClosed
	}
	in := x.bytesIn()
	m := x.h.proxy.opt.Metrics
	if x.rule == nil {
		name := x.h.name
		if x.listener != nil {
			name = x.listener.Name
		}
		m.Unmatched(name, x.entry.Reason)
	} else {
		c := x.rule.metrics(m)
		c.Done(status, x.in.Method, x.in.Proto, d, in, x.reply.bytes)
		c.Answered(x.entry.Reason)
	}
	x.accountBackend()
	if x.h.proxy.opt.AccessLog != nil {
		x.log(status, d, in)
	}
}

func (x *exchange) bytesIn() int64 {
	if x.body == nil {
		return x.upgradedIn
	}
	return x.body.count.Load()
}

// accountBackend counts what the backend did: a response, or an error that was its own.
func (x *exchange) accountBackend() {
	if x.sent.IsZero() {
		return
	}
	c := x.backend.metrics(x.h.proxy.opt.Metrics, x.rule)
	c.Retried(x.attempt.Tries - 1)
	if x.attempt.Far {
		c.Spilled()
	}
	if x.backendStatus != 0 {
		c.Done(x.backendStatus, x.attempt.FirstByte)
	}
	switch r := x.entry.Reason; r {
	case route.NoEndpoints, route.BackendConnectFailed, route.BackendReset, route.BackendProtocol, route.BackendTimeout:
		c.Error(r)
	}
}

// log writes the line of the access log.
func (x *exchange) log(status int, d time.Duration, in int64) {
	e, r := &x.entry, x.in
	e.Time, e.Duration, e.Status, e.BytesIn, e.BytesOut = x.started, d, status, in, x.reply.bytes
	e.Method, e.Scheme, e.Host, e.Path, e.Query, e.Proto = r.Method, x.scheme, r.Host, rawPath(r), r.URL.RawQuery, r.Proto
	e.UserAgent, e.Referer = r.UserAgent(), r.Referer()
	if x.listener != nil {
		e.Listener = x.listener.Name
	}
	if r.TLS != nil {
		e.TLSVersion, e.TLSCipher, e.SNI = r.TLS.Version, r.TLS.CipherSuite, r.TLS.ServerName
	}
	if x.underscores > 0 {
		e.Detail = strings.TrimPrefix(e.Detail+"; dropped headers with an underscore: "+strconv.Itoa(x.underscores), "; ")
	}
	x.logRoute(e)
	x.h.proxy.opt.AccessLog.Write(e)
}

// logRoute says which rule and which backend served the request, or should have; for a fault, the field that has it.
func (x *exchange) logRoute(e *telemetry.Entry) {
	if x.rule == nil {
		return
	}
	s := &x.rule.Source
	e.RouteKind, e.RouteNamespace, e.RouteName, e.Rule = s.Kind, s.Namespace, s.Name, s.Field
	if x.fault != nil {
		e.Rule = x.fault.Field
	}
	if x.backend != nil {
		e.Backend = x.backend.name
	}
	if !x.sent.IsZero() {
		e.BackendDuration, e.FirstByte = time.Since(x.sent), x.attempt.FirstByte
		e.Endpoint, e.Retries = x.attempt.Endpoint, max(x.attempt.Tries-1, 0)
	}
}
