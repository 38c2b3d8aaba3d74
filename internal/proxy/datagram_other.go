//go:build !unix

package proxy

import "net"

// flowBytes is about what a flow takes in which nothing is said: here it always holds a buffer.
const flowBytes = maxDatagram + 8<<10

// answers reads what the endpoint of a flow says. Not for concurrent use.
type answers struct {
	socket net.Conn
	buf    *datagramBuffer
}

func newAnswers(c net.Conn, _ answering) (*answers, error) {
	return &answers{socket: c, buf: new(datagramBuffer)}, nil
}

// next waits for a datagram. It is good until done is called, which must be before next is again.
func (r *answers) next() ([]byte, error) {
	n, err := r.socket.Read(r.buf[:])
	return r.buf[:n], err
}

func (*answers) done() {}
