package backend

import (
	"errors"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Read implements io.Reader. It makes the system call itself, so that taking bytes from the socket and knowing of it are one step.
func (r *receiver) Read(p []byte) (int, error) {
	if r.raw == nil || len(p) == 0 {
		return r.readAnyhow(p)
	}
	r.p, r.n, r.err = p, 0, nil
	err := r.raw.Read(r.step)
	r.p = nil
	switch {
	case err != nil: // closed, or too late
		r.note(false, nil)
		return 0, err
	case r.err != nil:
		return 0, &net.OpError{Op: "read", Net: "tcp", Source: r.conn.LocalAddr(), Addr: r.conn.RemoteAddr(), Err: os.NewSyscallError("read", r.err)}
	case r.n == 0:
		return 0, io.EOF
	default:
		return r.n, nil
	}
}

// receive is one attempt of Read. It is false if there was nothing yet.
func (r *receiver) receive(fd uintptr) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		r.n, r.err = unix.Read(int(fd), r.p)
		if !errors.Is(r.err, unix.EINTR) {
			break
		}
	}
	r.noteLocked(errors.Is(r.err, unix.EAGAIN), r.p[:max(r.n, 0)])
	return !r.waiting
}
