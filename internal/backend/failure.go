package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/fairlead-io/fairlead/internal/route"
)

// Error is why Do has no response.
//
// Who is to blame decides the reason. If the request's context has ended: the reason of context.Cause if that has a method Reason() route.Reason; else
// BackendTimeout for a deadline and ClientClosed for a cancellation. If reading the request's body failed: BadBody, unless the body's error has a method
// ClientFault() bool that denies it (found by errors.As), which makes it Internal; a body's error that affirms it goes before the context. If
// Attempt.Informational failed: the reason of its error, or ClientClosed. Otherwise NoEndpoints, BackendConnectFailed, BackendReset, BackendProtocol,
// BackendTimeout, or Internal for a request that cannot be sent at all. Only BackendConnectFailed and BackendReset are held against an endpoint.
type Error struct {
	Reason   route.Reason
	Endpoint string // the address of the endpoint tried last; empty if there was none
	Err      error

	endpoint *endpoint
	retry    retry
	stale    bool // it was a connection that broke, and one that had been used before: the endpoint may still take new ones
}

// retry says whether a request that failed can be sent again.
type retry uint8

const (
	no       retry = iota
	unsent         // nothing of it was sent
	broken         // it may have been received, but there was no answer
	late           // it was received, as far as is known, but there was no answer in time
	moved          // the same, and its endpoint was given up; the budget allows that it goes to another
	answered       // there was an answer, which is as good as none
)

// Error implements error.
func (e *Error) Error() string {
	if e.Endpoint == "" {
		return string(e.Reason) + ": " + e.Err.Error()
	}
	return fmt.Sprintf("%s: endpoint %s: %v", e.Reason, e.Endpoint, e.Err)
}

// Unwrap returns what went wrong.
func (e *Error) Unwrap() error { return e.Err }

var (
	errNoEndpoints       = errors.New("the pool has no endpoints")
	errGone              = errors.New("the endpoint has left its pool")
	errTLSTimeout        = errors.New("not finished in time")
	errHeaderTimeout     = errors.New("no response in time")
	errTryTimeout        = errors.New("no more time for this try")
	errForsaken          = errors.New("the endpoint was given up before it answered")
	errManyInformational = errors.New("too many 1xx responses")
	errBroke             = errors.New("as many requests of the pool were sent again as its budget allows")
	errTryOver           = errors.New("the request is over")
)

// connectError says that a connection to an endpoint could not be made.
type connectError struct {
	endpoint string
	err      error
}

func (e *connectError) Error() string {
	err := e.err
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		err = op.Err // the rest of it is known
	}
	return fmt.Sprintf("connect to %s: %v", e.endpoint, err)
}

func (e *connectError) Unwrap() error { return e.err }

// protocolError says that a response is not one that may be passed on.
type protocolError struct{ what string }

func (e *protocolError) Error() string { return "check response: " + e.what }

// informationalError is an error of Attempt.Informational.
type informationalError struct{ err error }

func (e *informationalError) Error() string { return "pass on 1xx response: " + e.err.Error() }
func (e *informationalError) Unwrap() error { return e.err }

// diagnose says who is to blame for a try that failed.
func (x *exchange) diagnose(t *try, err error) *Error {
	ctx := x.req.Context()
	fault := x.body.fault()
	blamed, known := clientFault(fault)
	switch {
	case fault != nil && known && blamed:
		return &Error{Reason: route.BadBody, Err: fault}
	case ctx.Err() != nil:
		return &Error{Reason: reasonOf(ctx), Err: context.Cause(ctx)}
	case errors.Is(context.Cause(t.ctx), errTryTimeout):
		return t.late()
	case fault != nil && known:
		return &Error{Reason: route.Internal, Err: fault}
	case fault != nil:
		return &Error{Reason: route.BadBody, Err: fault}
	}
	if t.ctx.Err() != nil {
		err = context.Cause(t.ctx)
	}
	return backendFailure(t, err)
}

// clientFault returns what a body's error says of itself.
func clientFault(err error) (blamed, known bool) {
	var f interface{ ClientFault() bool }
	if errors.As(err, &f) {
		return f.ClientFault(), true
	}
	return false, false
}

// reasonOf returns the reason for a request whose context has ended.
func reasonOf(ctx context.Context) route.Reason {
	var r interface{ Reason() route.Reason }
	cause := context.Cause(ctx)
	switch {
	case errors.As(cause, &r):
		return r.Reason()
	case errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(cause, context.DeadlineExceeded):
		return route.BackendTimeout
	default:
		return route.ClientClosed
	}
}

// backendFailure says what an error of http.Transport means that no client has caused.
func backendFailure(t *try, err error) *Error {
	var (
		connect *connectError
		inform  *informationalError
		r       interface{ Reason() route.Reason }
	)
	f := &Error{Reason: route.BackendProtocol, Err: err}
	switch {
	case isLocal(err) && !t.got:
		f.Reason, f.retry = route.Overloaded, unsent // this machine has run out of something
	case errors.As(err, &connect), !t.got && isBroken(err), isNotEstablished(err):
		f.Reason, f.retry = route.BackendConnectFailed, unsent
	case errors.As(err, &inform):
		f.Reason = route.ClientClosed
		if errors.As(err, &r) {
			f.Reason = r.Reason()
		}
	case errors.Is(err, errHeaderTimeout):
		f.Reason, f.retry = route.BackendTimeout, late
	case errors.Is(err, errForsaken):
		f.Reason, f.retry = route.BackendTimeout, moved
	case t.severed, isBroken(err):
		f.Reason, f.retry, f.stale = route.BackendReset, broken, t.reused && !isStreamReset(err)
		if t.unsent() {
			f.retry = unsent
		}
	case !t.got:
		f.Reason = route.Internal // http.Transport did not even try
	}
	return f
}

// streamError is what the HTTP/2 client of net/http lets errors.As make of its own type of that name: it has the same fields.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (e streamError) Error() string {
	return fmt.Sprintf("stream %d: error code %d", e.StreamID, e.Code)
}

// isStreamReset reports whether an endpoint has reset an HTTP/2 stream, and not its connection.
func isStreamReset(err error) bool {
	var s streamError
	return errors.As(err, &s) && s.Cause != nil && s.Cause.Error() == "received from peer"
}

// isBroken reports whether a connection or stream was ended by the other side, or by the network.
func isBroken(err error) bool {
	var op *net.OpError
	if errors.As(err, &op) || isStreamReset(err) {
		return true
	}
	for _, e := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE, syscall.ETIMEDOUT} {
		if errors.Is(err, e) {
			return true
		}
	}
	return isText(err,
		"http: server closed idle connection", "http2: server sent GOAWAY", "http2: client connection lost", "http2: client conn is closed",
		"http2: client conn not usable", "http2: client connection force closed", "http2: Transport received Server's graceful shutdown GOAWAY")
}

// isNotEstablished reports whether an HTTP/2 connection ended before it could carry a request.
func isNotEstablished(err error) bool {
	return isText(err, "http2: client conn could not be established")
}

// isText reports whether an error is one of those that net/http gives no other way to tell. They are never wrapped.
func isText(err error, texts ...string) bool {
	have := err.Error()
	for _, t := range texts {
		if strings.HasPrefix(have, t) {
			return true
		}
	}
	return false
}
