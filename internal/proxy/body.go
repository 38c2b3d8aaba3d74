package proxy

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"reflect"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/http2"

	"github.com/fairlead-io/fairlead/internal/route"
)

// How slowly a client may send its body: minRate bytes a second on average, once it has kept Fairlead waiting for rateGrace. Only the time that was spent
// waiting for the client counts, not the time that the backend took to accept what it sent.
const (
	minRate   = 240
	rateGrace = 10 * time.Second
)

// How much of a body that nobody wants any more is read, so that its connection can go on being used, and for how long.
const (
	maxDrain     = 256 << 10
	drainTimeout = 2 * time.Second
)

// clientBody is the body of a request on its way to the backend. It bounds how large it is and how slowly it comes, and keeps the client's mistakes apart from
// the backend's.
//
// Transports read it from goroutines of their own, which may outlive the exchange; so it is not part of the exchange, and close makes sure that nothing of the
// client's connection is touched after the handler has returned.
type clientBody struct {
	src   io.ReadCloser
	w     http.ResponseWriter // for the read deadline
	http1 bool
	size  int64         // as announced; -1 if it was not
	limit int64         // of the size; 0 is none
	idle  time.Duration // how long a read may take once the answer has begun: the exchange may then be a conversation

	// before is called before the first read, if it is not nil.
	before func()
	// from and to are the trailers of the request as it comes in and as it goes out; to has the names that may be passed on.
	from, to http.Header
	again    []byte     // was read before, and is read again; held: mu
	copy     *mirroring // nil: nobody wants one; held: mu

	watch   watchdog // for a read that takes too long
	haste   sync.Mutex
	patient bool        // the client need not hurry: the answer has begun, or the protocol is one of long silences; held: haste
	relaxed bool        // and its connection knows; held: haste
	woken   atomic.Bool // a read was broken off from this side
	count   atomic.Int64
	ended   atomic.Bool // read to the end, without an error

	mu     sync.Mutex // held while reading
	closed bool
	waited time.Duration
	err    *clientError
}

// clientError is what a client did wrong while it sent a body. Package backend knows it by its method ClientFault and does not hold it against an endpoint.
type clientError struct {
	status int
	reason route.Reason
	err    error
}

func (e *clientError) Error() string { return "read request body: " + e.err.Error() }
func (e *clientError) Unwrap() error { return e.err }

// ClientFault reports true.
func (e *clientError) ClientFault() bool { return true }

var (
	errTooSlow    = errors.New("the body came too slowly")
	errBodyClosed = errors.New("the exchange is over")
)

// newClientBody returns the body of a request, whose client may take as long for it as the limits say. Gone over by HTTP/1 it is read and answered at the same time.
func newClientBody(w http.ResponseWriter, r *http.Request, l *Limits) *clientBody {
	b := &clientBody{src: r.Body, w: w, http1: r.ProtoMajor == 1, size: r.ContentLength, limit: max(l.BodyBytes, 0), idle: max(l.TunnelIdle, 0)}
	b.watch.limit, b.watch.bark = max(l.ReadTimeout, 0), b.interrupt
	if b.http1 {
		_ = http.NewResponseController(w).EnableFullDuplex()
	}
	if isGRPC(r) {
		b.setPatient()
	}
	return b
}

// waitsUnseen reports whether an HTTP/2 client waits for a 100 before it sends the body. net/http's server takes the Expect field away and keeps what it meant where
// only the body knows of it; the body sends the 100 when it is first read. What a later version of net/http does not tell in this way is taken for no.
func waitsUnseen(r *http.Request) bool {
	if r.ProtoMajor != 2 {
		return false
	}
	v := reflect.ValueOf(r.Body)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return false
	}
	f := v.Elem().FieldByName("needsContinue")
	return f.Kind() == reflect.Bool && f.Bool()
}

// Read implements io.Reader.
func (b *clientBody) Read(p []byte) (n int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.again) > 0 && !b.closed {
		return b.reread(p)
	}
	switch {
	case b.err != nil:
		return 0, b.err
	case b.ended.Load():
		return 0, io.EOF
	case b.closed:
		return 0, errBodyClosed
	}
	if b.before != nil {
		b.before()
		b.before = nil
	}
	b.relax()
	b.watch.begin()
	n, err = b.src.Read(p)
	waited, late := b.watch.end()
	b.waited += waited
	total := b.count.Add(int64(n))
	if late && err != nil {
		err = os.ErrDeadlineExceeded
	}
	err = b.settle(total, err)
	if b.copy != nil {
		b.copy.took(p[:n], err)
	}
	return n, err
}

// unread puts back what was read, which must be everything that was.
func (b *clientBody) unread(p []byte) {
	b.mu.Lock()
	b.again = p
	b.mu.Unlock()
}

// reread reads what was put back.
func (b *clientBody) reread(p []byte) (n int, err error) {
	n = copy(p, b.again)
	if b.again = b.again[n:]; len(b.again) == 0 && b.ended.Load() {
		err = io.EOF
	}
	if b.copy != nil {
		b.copy.took(p[:n], err)
	}
	return n, err
}

// settle says what a read means that ended with err and brought the total to what it is.
func (b *clientBody) settle(total int64, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		err = b.check(total, err)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF):
		for name := range b.to {
			b.to[name] = b.from[name]
		}
		b.ended.Store(true)
		return err
	case b.woken.Load():
		return errBodyClosed
	}
	b.err = bodyError(err)
	return b.err
}

// check holds what has come so far against the limits.
func (b *clientBody) check(total int64, err error) error {
	if b.limit > 0 && total > b.limit {
		return &http.MaxBytesError{Limit: b.limit}
	}
	if over := b.waited - rateGrace; err == nil && over > 0 && !b.isPatient() && float64(total) < minRate*over.Seconds() {
		return errTooSlow
	}
	return err
}

// Close implements io.Closer. Transports call it when they have read the body, which means nothing; when a try has failed, after which another may follow; and to have
// a read come back that they wait for, which is then broken off. The body itself ends with the exchange, not before.
func (b *clientBody) Close() error {
	if b.mu.TryLock() {
		b.mu.Unlock()
		return nil
	}
	b.woken.Store(true)
	b.interrupt()
	return nil
}

// interrupt breaks off the read that is under way.
func (b *clientBody) interrupt() {
	if b.http1 {
		b.deadline(time.Unix(1, 0))
	} else {
		_ = b.src.Close()
	}
}

func (b *clientBody) deadline(t time.Time) { _ = http.NewResponseController(b.w).SetReadDeadline(t) }

// setPatient gives the client the time of a conversation from now on, a read that is waiting included.
func (b *clientBody) setPatient() {
	if b.ended.Load() {
		return
	}
	b.haste.Lock()
	defer b.haste.Unlock()
	if b.patient {
		return
	}
	b.patient = true
	b.watch.set(b.idle)
	if b.http1 {
		b.deadline(time.Now().Add(cmp.Or(b.idle, always))) // moves that of a read that waits already
	}
}

// always is longer than anybody waits.
const always = 365 * 24 * time.Hour

// relax tells an HTTP/1 connection, which has a timeout of its own for bodies, that there is none any more.
func (b *clientBody) relax() {
	b.haste.Lock()
	defer b.haste.Unlock()
	if b.http1 && b.patient && !b.relaxed {
		b.relaxed = true
		b.deadline(time.Time{})
	}
}

func (b *clientBody) isPatient() bool {
	b.haste.Lock()
	defer b.haste.Unlock()
	return b.patient
}

// close ends all reading by the transport and returns when no read is under way any more. A client that is sending gets a moment to finish what is being read,
// because an HTTP/1 connection on which a read was broken off cannot be used again.
func (b *clientBody) close() {
	wait := time.Duration(0)
	if b.http1 {
		wait = brokenWait
	}
	b.takeOver(wait)
	defer b.mu.Unlock()
	b.closed = true
	if b.copy != nil {
		b.copy.abandon()
	}
	b.watch.stop()
	b.haste.Lock()
	defer b.haste.Unlock()
	b.patient, b.relaxed = true, true // no more changes
	if b.http1 && !b.ended.Load() {
		b.deadline(time.Now().Add(drainTimeout)) // net/http looks for the end of the body on its own
	}
}

// brokenWait is how long a read may take to come back of its own accord when there is reason to think that it will.
const brokenWait = 250 * time.Millisecond

// takeOver takes b.mu, from a read that is under way if need be, which has wait before it is broken off.
func (b *clientBody) takeOver(wait time.Duration) {
	if b.mu.TryLock() {
		return
	}
	fired := make(chan struct{})
	timer := time.AfterFunc(wait, func() {
		defer close(fired)
		b.woken.Store(true)
		b.interrupt()
	})
	b.mu.Lock()
	if !timer.Stop() {
		<-fired
	}
}

// drain closes the body and reads the rest of it, within reason. It reports whether the connection is at the end of the request then.
func (b *clientBody) drain() bool {
	b.close()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended.Load() || !b.http1 {
		return true
	}
	if b.err != nil || b.before != nil || b.woken.Load() || b.size-b.count.Load() > maxDrain {
		return false
	}
	n, err := io.CopyN(io.Discard, b.src, maxDrain)
	b.count.Add(n)
	b.ended.Store(errors.Is(err, io.EOF))
	return b.ended.Load()
}

// fault returns what the client did wrong, nil if nothing is known. over says that the context of the request has ended: net/http ends it when it cannot read from a
// connection, a moment before the read that has failed returns.
func (b *clientBody) fault(over bool) *clientError {
	switch {
	case b == nil:
		return nil
	case over:
		b.takeOver(brokenWait)
	case !b.mu.TryLock():
		return nil // being read, so nothing has gone wrong so far
	}
	defer b.mu.Unlock()
	return b.err
}

// bodyError says what an error of reading a body means: too large, too slow, gone away, and in every other case malformed.
func bodyError(err error) *clientError {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return &clientError{http.StatusRequestEntityTooLarge, route.BodyTooLarge, err}
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, errTooSlow):
		return &clientError{http.StatusRequestTimeout, route.RequestTimeout, err}
	case isGone(err):
		return &clientError{statusClientClosed, route.ClientClosed, err}
	}
	return &clientError{http.StatusBadRequest, route.BadBody, err}
}

// isGone reports whether an error of reading from a client, or of writing to it, means that it has gone away or given up. Some that say so have no name.
func isGone(err error) bool {
	for _, gone := range [...]error{io.ErrUnexpectedEOF, net.ErrClosed, context.Canceled, syscall.ECONNRESET, syscall.EPIPE, http.ErrBodyReadAfterClose} {
		if errors.Is(err, gone) {
			return true
		}
	}
	if stream, ok := errors.AsType[http2.StreamError](err); ok {
		return stream.Code == http2.ErrCodeCancel || stream.Code == http2.ErrCodeNo
	}
	switch err.Error() {
	case "client disconnected", "http2: stream closed", "http: unexpected EOF reading trailer":
		return true
	}
	return false
}

// watchdog breaks off a read or a write that takes too long. It costs no more than a timer that hardly ever fires: deadlines would have to be moved for each
// read and write, and on HTTP/2 they end a stream even if nothing waits for it. The zero value with a limit and a bark is ready; a limit of 0 is none.
type watchdog struct {
	bark func() // must not call back

	mu    sync.Mutex
	limit time.Duration
	since time.Duration // when the wait began, by clock
	waits bool
	late  bool // has barked
	over  bool
	armed bool
	timer *time.Timer
}

// begin says that a wait begins.
func (d *watchdog) begin() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waits, d.since = true, clock()
	d.arm(d.limit)
}

// end says that it has ended, and returns how long it took and whether the dog has barked.
func (d *watchdog) end() (took time.Duration, late bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waits = false
	return clock() - d.since, d.late
}

// set changes the limit, also of a wait that has begun.
func (d *watchdog) set(limit time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.limit = limit
}

// stop ends the watch: there is no bark after it.
func (d *watchdog) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over = true
	if d.timer != nil {
		d.timer.Stop()
	}
}

// arm makes sure that check is called after wait, or before.
func (d *watchdog) arm(wait time.Duration) {
	switch {
	case d.armed || d.over || d.limit <= 0:
		return
	case d.timer == nil:
		d.timer = time.AfterFunc(wait, d.check)
	default:
		d.timer.Reset(wait)
	}
	d.armed = true
}

func (d *watchdog) check() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.armed = false
	if d.over || !d.waits {
		return
	}
	if left := d.since + d.limit - clock(); left > 0 || d.limit <= 0 {
		d.arm(left)
		return
	}
	d.late = true
	d.bark()
}

// replyBody is the body of a backend's response on its way to the client.
type replyBody struct {
	io.ReadCloser
	res   *http.Response
	flush func() error // nil if somebody else does it
	short bool         // the last read brought less than there was room for
	err   error        // of the backend
}

// Read implements io.Reader. Trailers appear in the response with the end of its body. A read that follows a short one will probably have to wait, so what has come
// so far is sent to the client before; that makes no difference to a response that comes in one piece, because its end comes with the last byte.
func (b *replyBody) Read(p []byte) (n int, err error) {
	if b.short && b.flush != nil {
		_ = b.flush() // a failure shows at the next write
	}
	n, err = b.ReadCloser.Read(p)
	b.short = n < len(p)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		scrubTrailer(b.res.Trailer)
	default:
		b.err = err
	}
	return n, err
}

// Close implements io.Closer. It can make trailers appear, too.
func (b *replyBody) Close() error {
	err := b.ReadCloser.Close()
	scrubTrailer(b.res.Trailer)
	return err
}

// buffers are for copying bodies. They are kept as pointers to arrays, which fit into an interface as they are.
type buffers struct{ pool sync.Pool }

const bufferSize = 32 << 10

// Get implements httputil.BufferPool.
func (b *buffers) Get() []byte {
	if buf, ok := b.pool.Get().(*[bufferSize]byte); ok {
		return buf[:]
	}
	return make([]byte, bufferSize)
}

// Put implements httputil.BufferPool.
func (b *buffers) Put(buf []byte) { b.pool.Put((*[bufferSize]byte)(buf)) }
