//go:build unix

package proxy

import (
	"errors"
	"net"
	"syscall"
)

// flowBytes is what a flow takes in which nothing is said: 5.5 KiB were measured, to which the kernel adds what it keeps of a socket.
const flowBytes = 8 << 10

// answers reads what the endpoint of a flow says. It waits without a buffer, and has one only from when there is something to read until that has been passed on.
// Not for concurrent use.
type answers struct {
	answering answering
	socket    syscall.RawConn
	try       func(fd uintptr) (done bool) // read: made once, so that a datagram allocates nothing

	buf  *datagramBuffer
	n    int
	err  error
	full bool // there was no buffer
}

func newAnswers(c net.Conn, a answering) (*answers, error) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return nil, errors.New("the socket is not one of the system's")
	}
	socket, err := s.SyscallConn()
	if err != nil {
		return nil, err
	}
	r := &answers{answering: a, socket: socket}
	r.try = r.read
	return r, nil
}

// next waits for a datagram. It is good until done is called, which must be before next is again.
func (r *answers) next() ([]byte, error) {
	for {
		r.full = false
		if err := r.socket.Read(r.try); err != nil {
			r.done()
			return nil, err
		}
		if !r.full {
			return r.buf[:r.n], r.err
		}
		r.buf = r.answering.take()
	}
}

// done gives the buffer back.
func (r *answers) done() {
	r.answering.give(r.buf)
	r.buf = nil
}

// read reads from the socket if there is anything, and a buffer for it. If it returns false it is called again when there is.
func (r *answers) read(fd uintptr) (done bool) {
	if r.buf == nil {
		if r.buf = r.answering.tryTake(); r.buf == nil {
			r.full = true
			return true
		}
	}
	for {
		n, err := syscall.Read(int(fd), r.buf[:])
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			r.done()
			return false
		}
		r.n, r.err = max(n, 0), err
		return true
	}
}
