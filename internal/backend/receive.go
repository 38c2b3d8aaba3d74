package backend

import (
	"encoding/binary"
	"net"
	"sync"
	"syscall"
)

// receiver reads from the socket of a connection and knows at any moment whether everything that has come was handed on. The zero value with conn set is ready
// for a connection that has no file descriptor. One goroutine at a time may call Read.
type receiver struct {
	conn net.Conn
	raw  syscall.RawConn // nil if there is none
	step func(fd uintptr) bool

	// Of the Read under way.
	p   []byte
	n   int
	err error

	mu      sync.Mutex
	changed sync.Cond // waiting or closed has become true
	waiting bool      // a Read has found nothing more, and waits
	closed  bool
	records *records // of TLS; nil without it
}

func newReceiver(c net.Conn) *receiver {
	r := &receiver{conn: c}
	r.changed.L = &r.mu
	r.step = r.receive
	if s, ok := c.(syscall.Conn); ok {
		r.raw, _ = s.SyscallConn() // without it, less is known
	}
	return r
}

// quiet waits until a Read has handed on everything that had come, another waits for more, and still nothing has. Then it begins the head, unless that is nil:
// whatever comes from then on belongs to it. It returns false if the connection was closed instead, or if the beginning of a TLS record came without its end.
//
// A goroutine of http.Transport reads from a connection as soon as a response has ended, and closes it if anything comes before the next request. Because of its
// buffer it only gets to wait for the socket if nothing has. But it offers the connection to the next request first, and takes for the answer of that what
// it finds then. A request that waits for quiet cannot be answered with what came before it, wherever that was: in the socket, in the buffer, or in between. (What
// is still on the network at that moment cannot be told from an answer.)
func (r *receiver) quiet(head *options) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.closed && (!r.waiting || r.raw != nil && hungUp(r.raw)) {
		r.changed.Wait()
	}
	if r.closed || !r.records.whole() {
		return false
	}
	if head != nil {
		head.begin()
	}
	return true
}

// close ends the waiting for quiet.
func (r *receiver) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.changed.Broadcast()
}

// note says what a Read is about.
func (r *receiver) note(waiting bool, came []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.noteLocked(waiting, came)
}

func (r *receiver) noteLocked(waiting bool, came []byte) {
	r.waiting = waiting
	r.records.pass(came)
	if waiting {
		r.changed.Broadcast()
	}
}

// readAnyhow reads without a file descriptor: what comes while the reader is being woken is not known.
func (r *receiver) readAnyhow(p []byte) (int, error) {
	r.note(true, nil)
	n, err := r.conn.Read(p)
	r.note(false, p[:max(n, 0)])
	return n, err
}

// records follows the records of a TLS connection, which come in pieces of any size. A nil *records follows nothing.
type records struct {
	head [5]byte
	have int // bytes of the head
	left int // bytes of the record after it
}

func (t *records) pass(p []byte) {
	for t != nil && len(p) > 0 {
		if t.left > 0 {
			n := min(t.left, len(p))
			t.left -= n
			p = p[n:]
			continue
		}
		n := copy(t.head[t.have:], p)
		t.have += n
		p = p[n:]
		if t.have == len(t.head) {
			t.have, t.left = 0, int(binary.BigEndian.Uint16(t.head[3:]))
		}
	}
}

// whole reports whether no record has begun that has not ended.
func (t *records) whole() bool { return t == nil || t.have == 0 && t.left == 0 }
