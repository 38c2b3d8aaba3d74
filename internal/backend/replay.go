package backend

import (
	"cmp"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
)

// maxReplay is how much of a request's body is kept, where the pool says nothing, until the request is known to have been sent, so that it can be sent on another connection
// if it was not.
const maxReplay = 64 << 10

// firstLog is how large a log is to begin with, and largestLog how large one may be that is kept for another request.
const (
	firstLog   = 4 << 10
	largestLog = 2 * maxReplay
)

// reserve is how much more the bodies of all requests may hold, beyond the beginning of their logs. It may be negative for a moment.
type reserve struct{ left atomic.Int64 }

// take takes n bytes, if there are as many or it is by force.
func (m *reserve) take(n int64, force bool) bool {
	if m.left.Add(-n) >= 0 || force {
		return true
	}
	m.left.Add(n)
	return false
}

var (
	errBodyOver   = errors.New("read request body: the request has ended")
	errBodyPassed = errors.New("send request again: too much of its body was read")
	errBodyLong   = errors.New("read request body: longer than its Content-Length")
)

// source is the body of a request, which can be handed to several connections, one after the other. It never closes the body and survives being closed
// by http.Transport, which does that even if it could not connect.
type source struct {
	body   io.Reader
	length int64 // as declared; -1 if it is not
	limit  int   // how much is kept
	memory *reserve
	over   atomic.Bool

	reading sync.Mutex // held while body is read, by the one reader or by one that is too late

	mu     sync.Mutex // held for moments only
	log    *[]byte    // what was read, from the beginning; nil when it is not kept any more
	held   int64      // of memory
	count  int64      // bytes read
	err    error      // that body returned, io.EOF included
	reader *attemptBody
}

// attemptBody is a source as one connection reads it.
type attemptBody struct {
	src    *source
	pos    int // of what was read before
	closed atomic.Bool
}

var logs = sync.Pool{New: func() any { b := make([]byte, 0, firstLog); return &b }}

// newSource returns the source of a request's body; nil if it has none. At most limit bytes of it are kept; zero means maxReplay.
func newSource(req *http.Request, limit int, m *reserve) *source {
	if req.Body == nil || req.Body == http.NoBody {
		return nil
	}
	s := &source{body: req.Body, length: req.ContentLength, limit: cmp.Or(limit, maxReplay), memory: m, log: logs.Get().(*[]byte)}
	if s.held = int64(cap(*s.log) - firstLog); s.held != 0 {
		m.take(s.held, true)
	}
	return s
}

// open returns the body from its beginning, for another try. Earlier tries then read nothing more.
func (s *source) open() (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.log == nil {
		return nil, errBodyPassed
	}
	if s.reader != nil {
		s.reader.closed.Store(true)
	}
	s.reader = &attemptBody{src: s}
	return s.reader, nil
}

// replayable reports whether open would succeed.
func (s *source) replayable() bool {
	if s == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log != nil
}

// complete reports whether the body was read to its end.
func (s *source) complete() bool {
	if s == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Is(s.err, io.EOF) || s.length >= 0 && s.count >= s.length
}

// sent says that open will not be called any more.
func (s *source) sent() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.log != nil && (s.reader == nil || s.reader.pos == len(*s.log)) {
		s.forget()
	}
}

// end makes all further reading fail: the server may take the body back.
func (s *source) end() {
	if s == nil {
		return
	}
	s.over.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.log != nil {
		s.forget()
	}
}

// forget gives the log back. The caller holds mu.
func (s *source) forget() {
	s.memory.left.Add(s.held)
	if s.held = 0; cap(*s.log) <= largestLog {
		*s.log = (*s.log)[:0]
		logs.Put(s.log)
	}
	s.log = nil
}

// fault returns the error that reading the body ended with, if it is the sender's.
func (s *source) fault() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil && !errors.Is(s.err, io.EOF):
		return s.err
	case s.length > 0 && s.count > s.length:
		return errBodyLong
	default:
		return nil
	}
}

// Read implements io.Reader.
func (b *attemptBody) Read(p []byte) (int, error) {
	b.src.reading.Lock()
	defer b.src.reading.Unlock()
	if b.closed.Load() || b.src.over.Load() {
		return 0, errBodyOver
	}
	if n, err := b.replay(p); n > 0 || err != nil {
		return n, err
	}
	n, err := b.src.body.Read(p)
	return n, b.src.record(b, p[:n], err)
}

// replay reads what was read before.
func (b *attemptBody) replay(p []byte) (int, error) {
	s := b.src
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.log == nil {
		return 0, s.err
	}
	n := copy(p, (*s.log)[b.pos:])
	b.pos += n
	if n == 0 {
		return 0, s.err
	}
	return n, nil
}

// record keeps what b has read, and returns the error that b should. What comes too late for b is kept in any case, for the reader that came after it. A body
// that ends early is an error: HTTP/2 backends would be told that it was complete.
func (s *source) record(b *attemptBody, p []byte, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count += int64(len(p))
	if errors.Is(err, io.EOF) && s.count < s.length {
		err = io.ErrUnexpectedEOF
	}
	s.err = err
	late := b.closed.Load()
	switch {
	case s.log == nil:
	case !late && len(*s.log)+len(p) > s.limit, !s.grow(len(p), late):
		s.forget()
	default:
		*s.log = append(*s.log, p...)
		b.pos += len(p)
	}
	return err
}

// grow makes room for n more bytes, if there is memory for them or it is by force. The caller holds mu.
func (s *source) grow(n int, force bool) bool {
	have, need := cap(*s.log), len(*s.log)+n
	if need <= have {
		return true
	}
	want := max(need, min(2*have, s.limit))
	if !s.memory.take(int64(want-have), force) {
		return false
	}
	s.held += int64(want - have)
	*s.log = append(make([]byte, 0, want), *s.log...)
	return true
}

// Close implements io.Closer.
func (b *attemptBody) Close() error {
	b.closed.Store(true)
	return nil
}
