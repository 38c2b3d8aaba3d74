package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// passage passes on what two ends of a connection say to each other, whatever it is. The end of one direction is passed on as that and leaves the other as it is. If
// anything goes wrong both connections are reset, so that nobody takes a part for the whole.
type passage struct {
	client, backend net.Conn
	hang            func()        // resets the client's connection
	idle            time.Duration // without a byte in either direction; not positive: no limit
	writeTimeout    time.Duration // for the backend to take something; not positive: no limit

	in, out atomic.Int64 // bytes from the client and to it
	active  atomic.Int64 // when the last of them passed: clock()

	mu     sync.Mutex
	over   bool // it was cut off, or both directions have ended
	reason route.Reason
	err    error // what cut it off
}

// run passes on everything until both directions have ended or the passage is cut off. It closes the backend's connection; the client's belongs to the caller.
func (p *passage) run() {
	p.active.Store(int64(clock()))
	var wg sync.WaitGroup
	wg.Go(func() { p.pass(p.client, p.backend, &p.out, backendSide) })
	p.pass(p.backend, p.client, &p.in, clientSide)
	wg.Wait()
	p.mu.Lock()
	p.over = true
	p.mu.Unlock()
	_ = p.backend.Close()
}

// side is an end of a passage.
type side struct {
	name   string
	reason route.Reason // when it breaks the connection
}

var (
	clientSide  = side{"client", route.ClientClosed}
	backendSide = side{"backend", route.BackendReset}
)

// pass copies from src to dst.
func (p *passage) pass(dst, src net.Conn, count *atomic.Int64, from side) {
	defer p.rescue()
	l := lane{passage: p, dst: dst, src: src, small: make([]byte, smallBuffer)}
	for {
		n, err := l.move()
		if n > 0 {
			count.Add(n)
			p.active.Store(int64(clock()))
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			if !closeWrite(dst) {
				p.cut(from.reason, errors.New("the other end takes no more"))
			}
			return
		case isTimeout(err) && !p.quiet():
		case isTimeout(err):
			p.cut(route.IdleTimeout, fmt.Errorf("nothing was sent in %s", p.idle))
			return
		default:
			p.cut(from.reason, fmt.Errorf("read from %s: %w", from.name, err))
			return
		}
	}
}

// rescue keeps a panic to the connection that it happened in.
func (p *passage) rescue() {
	if v := recover(); v != nil {
		p.cut(route.Internal, fmt.Errorf("panic: %v", v))
	}
}

// lane is one direction of a passage. Most connections are quiet most of the time, so that one that waits holds a small buffer only. When there is more to copy it
// takes a large one, for one read; and while there is much more the kernel copies from socket to socket, which takes two pipes of four file descriptors.
type lane struct {
	*passage
	dst, src net.Conn
	small    []byte
	much     int // how much there is to copy: one of the following
}

const (
	muchLittle = iota
	muchMore
	muchBulk
)

const (
	smallBuffer = 2 << 10
	bulkStep    = time.Second
	bulkBytes   = 256 << 10 // in a step
)

// move copies something, or waits for a part of the idle time in vain, which is an error of isTimeout.
func (l *lane) move() (n int64, err error) {
	switch l.much {
	case muchBulk:
		if to, from := sockets(l.dst, l.src); to != nil {
			return l.splice(to, from)
		}
		fallthrough
	case muchMore:
		buf := pipeBuffers.Get()
		defer pipeBuffers.Put(buf)
		return l.copy(buf, muchBulk)
	default:
		return l.copy(l.small, muchMore)
	}
}

// copy reads once and writes what it has read. A buffer that is full is a sign of more.
func (l *lane) copy(buf []byte, more int) (int64, error) {
	step := l.idle / 4
	if l.idle <= 0 {
		step = forever
	}
	_ = l.src.SetReadDeadline(time.Now().Add(max(step, time.Millisecond)))
	n, err := l.src.Read(buf)
	if l.much = muchLittle; n == len(buf) {
		l.much = more
	}
	if n == 0 {
		return 0, err
	}
	sent, werr := l.write(l.dst, buf[:n])
	if werr != nil {
		return int64(sent), &writeError{werr}
	}
	return int64(sent), err
}

// splice has the kernel copy for a while.
func (l *lane) splice(to, from *net.TCPConn) (int64, error) {
	_ = l.src.SetReadDeadline(time.Now().Add(bulkStep))
	if w, ok := l.dst.(*wholeConn); ok { // for writes of the kernel's there is limitWrites
		w.disarmWrite()
	} else {
		_ = to.SetWriteDeadline(time.Time{})
	}
	n, err := to.ReadFrom(from)
	if n < bulkBytes {
		l.much = muchLittle
	}
	if err == nil {
		err = io.EOF
	}
	return n, err
}

// writeError keeps a write that timed out from being taken for a read that did.
type writeError struct{ err error }

func (e *writeError) Error() string { return e.err.Error() }

// sockets returns both ends if the kernel can copy between them.
func sockets(dst, src net.Conn) (to, from *net.TCPConn) {
	if runtime.GOOS != "linux" {
		return nil, nil
	}
	to, from = socketOf(dst), socketOf(src)
	if to == nil || from == nil {
		return nil, nil
	}
	return to, from
}

func socketOf(c net.Conn) *net.TCPConn {
	if w, ok := c.(*wholeConn); ok {
		if len(w.early) > 0 {
			return nil
		}
		c = w.Conn
	}
	t, _ := c.(*net.TCPConn)
	return t
}

// write writes to one of the ends. The client's connection minds its time itself, but for what the kernel writes.
func (p *passage) write(dst net.Conn, b []byte) (int, error) {
	if dst == p.backend && p.writeTimeout > 0 {
		_ = dst.SetWriteDeadline(time.Now().Add(p.writeTimeout))
	}
	return dst.Write(b)
}

// quiet tells whether nothing has passed for as long as that is allowed. It is called once in a part of that time, for which there is some slack.
func (p *passage) quiet() bool {
	return p.idle > 0 && clock()-time.Duration(p.active.Load()) >= p.idle-p.idle/8
}

// below returns the connection that TLS goes over: what is reset must not be said to have ended.
func below(c net.Conn) net.Conn {
	if t, ok := c.(*tls.Conn); ok {
		return t.NetConn()
	}
	return c
}

// cut ends both directions at once. The first reason is the one that counts.
func (p *passage) cut(reason route.Reason, err error) {
	p.mu.Lock()
	first := !p.over
	if first {
		p.over, p.reason, p.err = true, reason, err
	}
	p.mu.Unlock()
	if first {
		p.hang()
		reset(below(p.backend))
	}
}
