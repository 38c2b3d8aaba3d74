package telemetry

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// Entry is one request as the access log tells it, or a connection or flow of datagrams that was passed on as a whole: the byte counts are then all that passed, and
// there is no status. Empty fields are left out of the line, except the status of a request, the byte counts and the duration.
type Entry struct {
	Passage   bool      // a connection or flow, not a request
	Time      time.Time // when the head of the request had been read
	RequestID string
	ClientIP  string // whom the request is from, as far as proxies on the way are trusted
	PeerIP    string // the other end of the connection
	Method    string
	Scheme    string
	Host      string
	Path      string
	Query     string // without the question mark
	Proto     string // HTTP/1.1, HTTP/2.0

	Status   int
	BytesIn  int64 // body
	BytesOut int64 // body

	Duration        time.Duration // to the last byte of the response
	BackendDuration time.Duration // the part of Duration that was spent on the backend
	FirstByte       time.Duration // from sending the request to the head of the backend's response

	RouteKind, RouteNamespace, RouteName string
	Rule                                 string // the field of the route, such as spec.rules[0].matches[1]
	Listener                             string
	Backend                              string // the pool: namespace/service:port
	Endpoint                             string
	Retries                              int

	TLSVersion, TLSCipher uint16 // as in crypto/tls; 0 is a connection without TLS
	SNI                   string

	UserAgent, Referer string

	Reason route.Reason // why Fairlead answered itself
	Detail string       // more about it, for the operator
}

// AccessLogOptions say what is written. The zero value writes everything.
type AccessLogOptions struct {
	// Disabled writes nothing at all.
	Disabled bool
	// RedactQuery hides the values of query parameters, in the query and in the referer, and leaves their names.
	RedactQuery bool
	// MaxValueBytes is where a longer value is cut. Zero means 2 KiB.
	MaxValueBytes int
	// BufferBytes is how much may wait to be written, at most. What comes beyond it is dropped and counted. Zero means 4 MiB.
	BufferBytes int
	// FlushInterval is how long an entry may wait. Zero means 100 ms.
	FlushInterval time.Duration
	// CloseTimeout is how long Close waits for a writer that is stuck. Zero means 5 s.
	CloseTimeout time.Duration
	// Metrics counts what is dropped and the writes that fail. It may be nil.
	Metrics *Metrics
}

func (o AccessLogOptions) withDefaults() AccessLogOptions {
	if o.MaxValueBytes <= 0 {
		o.MaxValueBytes = 2 << 10
	}
	if o.BufferBytes <= 0 {
		o.BufferBytes = 4 << 20
	}
	if o.FlushInterval <= 0 {
		o.FlushInterval = 100 * time.Millisecond
	}
	if o.CloseTimeout <= 0 {
		o.CloseTimeout = 5 * time.Second
	}
	return o
}

// AccessLog writes one line of JSON for each request. Write never waits for the writer: lines are collected in one buffer while the other is being written, and
// when both are full, what comes is dropped and counted. A nil *AccessLog writes nothing. Safe for concurrent use.
type AccessLog struct {
	opt  AccessLogOptions
	w    io.Writer // used by run only
	pool sync.Pool // *[]byte, scratch space for one line

	wake chan struct{} // the buffer is no longer empty
	full chan struct{} // the buffer should be written without delay
	stop chan struct{} // closed by Close
	done chan struct{} // closed when run has ended

	mu     sync.Mutex
	buf    []byte // what waits
	closed bool
}

// flushBytes is how much collects before it is written without waiting for the interval.
const flushBytes = 64 << 10

// ErrLogStuck is what Close returns if the writer did not return in time.
var ErrLogStuck = errors.New("close access log: the writer does not return")

// NewAccessLog returns a log that writes to w, from a goroutine that Close ends. It returns nil, which is valid, if opt disables the log.
func NewAccessLog(w io.Writer, opt AccessLogOptions) *AccessLog {
	if opt.Disabled {
		return nil
	}
	l := &AccessLog{
		opt:  opt.withDefaults(),
		w:    w,
		wake: make(chan struct{}, 1),
		full: make(chan struct{}, 1),
		stop: make(chan struct{}),
		done: make(chan struct{}),
	}
	l.pool.New = func() any { b := make([]byte, 0, 1024); return &b }
	go l.run()
	return l
}

// Write appends e to the log. It keeps nothing of e. After Close it drops the entry.
func (l *AccessLog) Write(e *Entry) {
	if l == nil {
		return
	}
	line := l.pool.Get().(*[]byte)
	*line = l.appendEntry((*line)[:0], e)
	if !l.enqueue(*line) {
		l.opt.Metrics.logDrop()
	}
	if cap(*line) <= maxScratch {
		l.pool.Put(line)
	}
}

// maxScratch keeps an unusually long line from holding on to its memory.
const maxScratch = 16 << 10

func (l *AccessLog) enqueue(line []byte) bool {
	l.mu.Lock()
	before := len(l.buf)
	fits := !l.closed && before+len(line) <= l.opt.BufferBytes/2
	if fits {
		l.buf = append(l.buf, line...)
	}
	l.mu.Unlock()
	if !fits {
		return false
	}
	if before == 0 {
		signal(l.wake)
	}
	if threshold := min(flushBytes, l.opt.BufferBytes/4); before < threshold && before+len(line) >= threshold {
		signal(l.full)
	}
	return true
}

// signal says something on a channel with room for one, unless it was said already.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Close writes what waits and ends the log. It returns ErrLogStuck if the writer does not return in time. Calling it again does no harm.
func (l *AccessLog) Close() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.stop)
	}
	l.mu.Unlock()
	timeout := time.NewTimer(l.opt.CloseTimeout)
	defer timeout.Stop()
	select {
	case <-l.done:
		return nil
	case <-timeout.C:
		return ErrLogStuck
	}
}

// run writes the buffer out whenever it has waited for the interval, or is filling up, until Close.
func (l *AccessLog) run() {
	defer close(l.done)
	timer := time.NewTimer(l.opt.FlushInterval)
	defer timer.Stop()
	out := writer{w: l.w, failed: l.opt.Metrics.logFailed}
	var spare []byte
	for {
		select {
		case <-l.wake:
		case <-l.stop:
			out.write(l.swap(nil))
			return
		}
		timer.Reset(l.opt.FlushInterval)
		select {
		case <-timer.C:
		case <-l.full:
		case <-l.stop:
		}
		spare = out.write(l.swap(spare))
	}
}

// swap takes what waits and leaves the empty buffer in its place.
func (l *AccessLog) swap(empty []byte) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	waiting := l.buf
	l.buf = empty[:0]
	return waiting
}

// writer writes whole lines, even after a write that was cut short.
type writer struct {
	w      io.Writer
	failed func()
	torn   bool // the last write ended inside a line
}

// write writes b and returns it.
func (o *writer) write(b []byte) []byte {
	if len(b) == 0 {
		return b
	}
	if o.torn {
		if _, err := o.w.Write([]byte{'\n'}); err != nil {
			o.failed()
			return b
		}
		o.torn = false
	}
	n, err := o.w.Write(b)
	if err != nil {
		o.failed()
		o.torn = n > 0 && n < len(b) && b[n-1] != '\n'
	}
	return b
}

func (m *Metrics) logDrop() {
	if m != nil {
		m.logDropped.Inc()
	}
}

func (m *Metrics) logFailed() {
	if m != nil {
		m.logErrors.Inc()
	}
}
