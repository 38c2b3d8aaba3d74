package proxy

import "sync"

// maxDatagram is the length of the longest datagram that there can be.
const maxDatagram = 64 << 10

// maxAnswering is how many flows of a port may hold a buffer at once. They do so from when an answer is there until the socket of the port has taken it, which is
// for long only when that is congested; then the others wait, and what waits for them is the kernel's to keep or to drop.
const maxAnswering = 64

// maxEarlyBytes is how much of a port's flows waits in all until they have sockets. What is more than that is dropped.
const maxEarlyBytes = 4 << 20

var datagramBuffers = sync.Pool{New: func() any { return new(datagramBuffer) }}

// datagramBuffer holds any datagram.
type datagramBuffer = [maxDatagram]byte

// answering counts the buffers that are in use for the answers of a port.
type answering chan struct{}

// take returns a buffer, when there is one.
func (a answering) take() *datagramBuffer {
	a <- struct{}{}
	return datagramBuffers.Get().(*datagramBuffer)
}

// tryTake returns a buffer; nil if there is none now.
func (a answering) tryTake() *datagramBuffer {
	select {
	case a <- struct{}{}:
		return datagramBuffers.Get().(*datagramBuffer)
	default:
		return nil
	}
}

// give takes a buffer back, or nothing.
func (a answering) give(b *datagramBuffer) {
	if b != nil {
		datagramBuffers.Put(b)
		<-a
	}
}
