package backend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// try is one request on its way to one endpoint and back. It outlives Do: it ends when the response's body is closed.
type try struct {
	endpoint *endpoint
	body     *source
	start    time.Duration
	ctx      context.Context // of the try
	cancel   context.CancelCauseFunc
	url      url.URL
	trace    httptrace.ClientTrace
	reply    responseBody
	finished atomic.Bool
	wrote    atomic.Int64 // when the request was written, in time of Set.now; 0 before

	// Written before http.Transport.RoundTrip returns, by the goroutine that called it.
	safe    bool  // may be sent twice
	got     bool  // a connection
	conn    *conn // nil if it is not known
	sent    int64 // on conn before
	reused  bool
	severed bool // conn was found to be closed or to have brought something unasked, before anything was sent on it

	movable bool        // see exchange.movable
	tried   []*endpoint // before, to no avail

	mu      sync.Mutex
	done    bool          // RoundTrip has returned
	timeout time.Duration // from the end of the request to the head of the response; not positive is none
	timer   *time.Timer   // of look
	step    time.Duration // that timer was set to
	waited  time.Duration // since the request was written, when timer was set
	refused bool          // the budget did not let the request go elsewhere
	limit   *time.Timer   // of the whole try; nil is none
	torn    bool          // reading the request's body was broken off
	relay
}

// relay passes 1xx responses on. It has its own goroutine, because on HTTP/2 connections they are announced by the one that reads for all requests.
type relay struct {
	to      func(int, http.Header) error
	seen    int
	queue   []informational // held: try.mu
	running sync.WaitGroup
	active  bool  // held: try.mu
	err     error // of to; held: try.mu
}

type informational struct {
	code   int
	header http.Header
}

// headerTimeout returns the limit on the time to the head of the response; 0 is none.
func (x *exchange) headerTimeout() time.Duration {
	d := x.attempt.HeaderTimeout
	if own := x.pool.list.Load().care.Response; own > 0 && x.attempt.TryTimeout == 0 && (d <= 0 || own < d) {
		return own
	}
	if d == 0 {
		if _, ok := x.req.Context().Deadline(); !ok {
			d = x.pool.set.opt.HeaderTimeout
		}
	}
	return max(d, 0)
}

func newTry(x *exchange, e *endpoint) *try {
	t := &try{endpoint: e, body: x.body, start: x.pool.set.now(), safe: x.safe, timeout: x.headerTimeout(), relay: relay{to: x.attempt.Informational}}
	t.movable, t.tried = x.movable(), slices.Clip(x.tried)
	t.trace.GotConn = t.gotConn
	t.trace.Got1xxResponse = t.got1xx
	t.trace.WroteRequest = t.wroteRequest
	t.ctx, t.cancel = context.WithCancelCause(x.req.Context())
	if d := x.attempt.TryTimeout; d > 0 {
		interrupt := x.attempt.Interrupt
		t.mu.Lock()
		t.limit = time.AfterFunc(d, func() { t.expire(interrupt) })
		t.mu.Unlock()
	}
	return t
}

// expire ends the try because it has taken too long.
func (t *try) expire(interrupt func()) {
	t.mu.Lock()
	t.torn = !t.body.complete()
	torn := t.torn
	t.mu.Unlock()
	t.cancel(errTryTimeout)
	if torn && interrupt != nil {
		interrupt()
	}
}

// late is the error of a try that has taken too long.
func (t *try) late() *Error {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := &Error{Reason: route.BackendTimeout, Endpoint: t.endpoint.address, Err: errTryTimeout}
	if !t.torn {
		f.retry = late
	}
	return f
}

// unlimited takes the time limit off the try.
func (t *try) unlimited() {
	if t.limit != nil {
		t.limit.Stop()
	}
}

// request makes the request that goes to the endpoint.
func (t *try) request(x *exchange) (*http.Request, error) {
	req := x.req.WithContext(httptrace.WithClientTrace(t.ctx, &t.trace))
	t.url = *x.req.URL
	t.url.Scheme, t.url.Host = t.endpoint.target(req.Host)
	req.URL = &t.url
	if x.body == nil {
		return req, nil
	}
	body, err := x.body.open()
	if err != nil {
		return nil, err
	}
	req.Body, req.GetBody = body, x.body.open
	return req, nil
}

// target is the scheme and host of the URL of requests for a host. Transports connect to their endpoint whatever it says; over TLS it becomes the server name.
func (e *endpoint) target(host string) (scheme, to string) {
	if !e.secure() {
		return "http", e.address
	}
	if e.verify != nil {
		return "https", e.verify.ServerName // whatever the client calls it, so that all requests can share connections
	}
	name, err := route.NormalizeHost(host)
	if err != nil {
		name = cmp.Or(e.host, e.address)
	}
	return "https", name
}

// gotConn implements httptrace.ClientTrace.GotConn. Nothing of the request was written yet, and http.Transport does not expect a response to it yet: this is the
// moment to make sure that the backend has not closed the connection, and has not said anything that would be taken for the response.
func (t *try) gotConn(info httptrace.GotConnInfo) {
	t.got, t.reused, t.severed = true, info.Reused, false
	if t.conn = baseOf(info.Conn); t.conn == nil {
		return
	}
	t.sent = t.conn.sent.Load()
	t.conn.uses.Add(1)
	worn := t.reused && t.endpoint.worn(t.conn)
	switch {
	case !t.conn.exclusive && worn:
		t.endpoint.renew(t.conn) // this request goes over it all the same, others will not
	case !t.conn.exclusive:
	case !worn && t.conn.receiver.quiet(&t.conn.options):
	default:
		t.severed = true
		_ = t.conn.Close() // writing to it fails, and http.Transport takes another
	}
}

// unsent reports whether nothing of the request was written to the connection.
func (t *try) unsent() bool {
	c := t.conn
	return t.severed || c != nil && c.exclusive && !t.endpoint.secure() && c.sent.Load() == t.sent
}

// got1xx implements httptrace.ClientTrace.Got1xxResponse.
func (t *try) got1xx(code int, header textproto.MIMEHeader) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.done {
		return errTryOver
	}
	if t.seen++; t.seen > t.endpoint.pool.set.opt.Informational {
		t.cancel(errManyInformational)
		return errManyInformational
	}
	if t.to == nil {
		return nil
	}
	t.queue = append(t.queue, informational{code, http.Header(header)})
	if !t.active {
		t.active = true
		t.running.Go(t.pass)
	}
	return nil
}

// pass hands on what is in the queue.
func (t *try) pass() {
	for {
		t.mu.Lock()
		if len(t.queue) == 0 || t.err != nil {
			t.active = false
			t.mu.Unlock()
			return
		}
		next := t.queue[0]
		t.queue = t.queue[1:]
		t.mu.Unlock()
		if err := t.to(next.code, next.header); err != nil {
			t.mu.Lock()
			t.err = &informationalError{err}
			t.mu.Unlock()
			t.cancel(t.err)
		}
	}
}

// settle ends what may happen only until RoundTrip has returned. What has come before the response is still passed on before it.
func (t *try) settle(ok bool) {
	t.mu.Lock()
	t.done = true
	if t.timer != nil {
		t.timer.Stop()
	}
	if !ok {
		t.queue = nil
	}
	t.mu.Unlock()
	t.running.Wait()
}

// check refuses responses that nobody should be bothered with, and closes their bodies. Fields that were for this connection only it removes.
func (t *try) check(res *http.Response) error {
	if t.conn != nil && t.conn.exclusive && res.Close && res.StatusCode != http.StatusSwitchingProtocols {
		t.conn.options.remove(res.Header)
	}
	err := t.err
	fields := 0
	for _, values := range res.Header {
		fields += len(values)
	}
	switch limit := t.endpoint.pool.set.opt.HeaderCount; {
	case err != nil:
	case errors.Is(context.Cause(t.ctx), errHeaderTimeout), errors.Is(context.Cause(t.ctx), errTryTimeout), errors.Is(context.Cause(t.ctx), errForsaken): // at the same moment
		err = context.Cause(t.ctx)
	case res.StatusCode < 100 || res.StatusCode > 999:
		err = &protocolError{fmt.Sprintf("status %d is not between 100 and 999", res.StatusCode)}
	case fields > limit:
		err = &protocolError{fmt.Sprintf("%d header fields, at most %d are allowed", fields, limit)}
	default:
		return nil
	}
	t.cancel(err)
	_ = res.Body.Close()
	return err
}

// open makes the response's body end the try when it is closed.
func (t *try) open(res *http.Response) {
	if res.Body == http.NoBody {
		t.body.end()
		t.finish()
		return
	}
	t.reply = responseBody{res.Body, t}
	if rw, ok := res.Body.(io.ReadWriteCloser); ok && res.StatusCode == http.StatusSwitchingProtocols {
		t.unlimited()
		res.Body = &tunnel{&t.reply, rw}
		return
	}
	res.Body = &t.reply
}

// finish ends the try. Calling it again has no effect.
func (t *try) finish() {
	if t.finished.Swap(true) {
		return
	}
	t.unlimited()
	t.cancel(errTryOver)
	t.endpoint.release()
}

// responseBody is the body of a response, which ends the try when it is closed.
type responseBody struct {
	io.ReadCloser
	try *try
}

// Read implements io.Reader.
func (b *responseBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && errors.Is(context.Cause(b.try.ctx), errTryTimeout) {
		err = b.try.late()
	}
	return n, err
}

// Close ends the try.
func (b *responseBody) Close() error {
	err := b.ReadCloser.Close()
	b.try.body.end()
	b.try.finish()
	return err
}

// tunnel is the body of a 101 response.
type tunnel struct {
	*responseBody
	conn io.ReadWriteCloser
}

func (t *tunnel) Write(p []byte) (int, error) { return t.conn.Write(p) }

// CloseWrite tells the endpoint that nothing more will come, while the other direction goes on.
func (t *tunnel) CloseWrite() error {
	if w, ok := t.conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return fmt.Errorf("close tunnel for writing: %w", errors.ErrUnsupported)
}
