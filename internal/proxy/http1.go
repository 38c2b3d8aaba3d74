package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/fairlead-io/fairlead/internal/proxy/headscan"
	"github.com/fairlead-io/fairlead/internal/route"
	"github.com/fairlead-io/fairlead/internal/telemetry"
)

// requestConn is a connection that speaks HTTP/1, as net/http's server sees it. Everything that the client sends is scanned before the server reads it. A request
// whose head is at fault is answered here, and never heard of by anybody else. A body that is at fault is passed on up to there, and then something that net/http
// takes for a fault as well, whatever it was: so the handler gets an error from the body, and nobody an error from the connection.
//
// A read never crosses the end of a request: what the client sent early waits here until the server asks for it. So no fault of a later request can disturb an
// earlier one, and what belongs to another protocol after an upgrade is not taken for a request.
//
// The read deadlines are the work of this type and not of http.Server, whose timeouts must stay zero: it takes their place with fewer system calls, tells the
// time that a body may take from the time that a handler takes, and never lets a connection wait without a deadline. What http.Server asks for is obeyed only where
// it wants to wake up a read, and what handlers ask for only in a body.
type requestConn struct {
	net.Conn // the client's, or TLS over it
	client   *clientConn

	// Reads, of which there is one at a time.
	scan   *headscan.Scanner
	held   []byte          // read from the client, but not scanned
	fault  *headscan.Fault // still to be answered
	spoil  string          // still to be read in the place of a body that is at fault
	broken error           // what all further reads return
	headBy time.Duration   // when the head that has begun must be complete

	phase  atomic.Uint32 // of the current request
	active atomic.Bool   // the server is busy with a request
	served atomic.Bool   // there was a request
	tunnel atomic.Bool   // the connection was upgraded

	spoiled atomic.Bool // the client is still sending a body that nobody wants
}

// The phases of a request on the wire.
const (
	phaseStart = iota // nothing of it was read yet
	phaseHead
	phaseBody
)

// errRefused is what net/http reads after a request that was answered here. It goes away quietly when it sees an error of this kind.
var errRefused = &net.OpError{Op: "read", Net: "tcp", Err: errors.New("request refused")}

func newRequestConn(c *clientConn, conn net.Conn, early []byte) *requestConn {
	h := &requestConn{Conn: conn, client: c, scan: headscan.New(c.limits.head()), held: early}
	h.headBy = clock() + c.limits.ReadHeaderTimeout
	return h
}

// tlsRequestConn is how net/http learns that there is TLS.
type tlsRequestConn struct{ *requestConn }

// ConnectionState is what net/http looks for.
func (h tlsRequestConn) ConnectionState() tls.ConnectionState { return h.client.tls.ConnectionState() }

// requests returns the requestConn in a connection of net/http's server.
func requests(c net.Conn) *requestConn {
	if t, ok := c.(tlsRequestConn); ok {
		return t.requestConn
	}
	return c.(*requestConn)
}

// Read implements net.Conn.
func (h *requestConn) Read(p []byte) (int, error) {
	switch {
	case h.tunnel.Load():
		return h.readTunnel(p)
	case h.fault != nil:
		return 0, h.refuse(h.fault)
	case len(h.spoil) > 0:
		n := copy(p, h.spoil)
		h.spoil = h.spoil[n:]
		return n, nil
	case h.broken != nil:
		return 0, h.broken
	case len(p) == 0:
		return 0, nil
	case len(h.held) > 0:
		p = p[:copy(p, h.held)]
		n, err := h.pass(p)
		h.drop(n)
		return n, err
	}
	n, err := h.receive(p)
	if n == 0 {
		return 0, err
	}
	passed, err := h.pass(p[:n])
	if passed < n && h.broken == nil {
		h.held = append([]byte(nil), p[passed:n]...)
	}
	return passed, err
}

// pass scans what was read and returns how much of it the server may have.
func (h *requestConn) pass(p []byte) (int, error) {
	start, background := h.scan.AtStart(), h.background()
	n, fault := h.scan.Scan(p)
	h.notePhase(start)
	switch {
	case fault == nil:
		return n, nil
	case background:
		// The server only waits for the client to leave while it serves a request. That request is in order. One byte of the next tells it enough.
		h.fault = fault
		return 1, nil
	case !fault.InBody:
		return 0, h.refuse(fault)
	}
	h.broken, h.spoil = fault, h.scan.Spoil()
	h.spoiled.Store(true)
	more := copy(p[n:], h.spoil)
	h.spoil = h.spoil[more:]
	return n + more, nil
}

func (h *requestConn) notePhase(start bool) {
	switch {
	case h.scan.AtStart():
		h.phase.Store(phaseStart)
	case h.scan.InBody():
		h.phase.Store(phaseBody)
	default:
		if start && h.served.Load() {
			h.headBy = clock() + h.client.limits.ReadHeaderTimeout
		}
		h.phase.Store(phaseHead)
	}
}

// background reports whether a read that begins now is the one by which net/http learns that a client leaves while its request is served.
func (h *requestConn) background() bool { return h.active.Load() && h.phase.Load() == phaseStart }

// receive reads from the client, for as long as it may take.
func (h *requestConn) receive(p []byte) (int, error) {
	for {
		last := h.arm()
		n, err := h.Conn.Read(p)
		if n > 0 || !isTimeout(err) {
			return n, err
		}
		why := h.client.timedOut()
		switch {
		case why == waitAborted:
			return 0, err
		case why == waitPoked || !last:
		case h.phase.Load() == phaseHead:
			return 0, h.refuse(faultSlowHead)
		default:
			return 0, err
		}
	}
}

var faultSlowHead = &headscan.Fault{Status: http.StatusRequestTimeout, Reason: route.RequestTimeout, Why: "request line and headers did not come in time"}

// arm sets the deadline of the next read. last says that the connection has waited long enough when it passes.
func (h *requestConn) arm() (last bool) {
	c := h.client
	switch h.phase.Load() {
	case phaseHead:
		return h.armUntil(h.headBy, c.limits.ReadHeaderTimeout)
	case phaseBody:
		asked := c.askedRead()
		if asked == noDeadline {
			return h.armFor(0)
		}
		if asked > 0 {
			c.armReadAt(asked)
			return true
		}
		return h.armFor(c.limits.ReadTimeout)
	}
	switch {
	case h.active.Load():
		return h.armFor(0) // how long the handler may take is not decided here
	case !h.served.Load() && c.leaving.Load():
		return h.armFor(lastChance)
	case !h.served.Load():
		return h.armUntil(h.headBy, c.limits.ReadHeaderTimeout)
	case c.leaving.Load():
		return h.armFor(time.Millisecond) // to see what the client has sent already
	case c.port.proxy.limiter.crowded():
		return h.armFor(crowdedIdle)
	}
	return h.armFor(c.limits.IdleTimeout)
}

// crowdedIdle is how long connections may be idle when there is hardly room for others.
const crowdedIdle = 2 * time.Second

// armFor sets a deadline d from now. One that is not positive is none: the read then wakes up from time to time all the same.
func (h *requestConn) armFor(d time.Duration) (last bool) {
	if d <= 0 {
		h.client.armRead(forever)
		return false
	}
	h.client.armRead(d)
	return true
}

// armUntil sets the deadline at, unless the limit that it was made from is none.
func (h *requestConn) armUntil(at, limit time.Duration) (last bool) {
	if limit <= 0 {
		return h.armFor(0)
	}
	h.client.armReadAt(at)
	return true
}

// setState follows what net/http does with the connection.
func (h *requestConn) setState(s http.ConnState) {
	switch s {
	case http.StateActive:
		h.served.Store(true)
		h.active.Store(true)
	case http.StateIdle:
		h.active.Store(false)
		h.client.askRead(time.Time{}, false)
		h.headBy = clock() + h.client.limits.ReadHeaderTimeout // of a head that began to come while the server was busy
	case http.StateHijacked:
		h.client.setMode(modeTunnel, h.client.limits.TunnelIdle)
		h.tunnel.Store(true)
		h.client.tunnel.Store(true)
		h.client.port.metrics.Upgraded(1)
	}
}

// readTunnel reads what belongs to the protocol that the connection was upgraded to.
func (h *requestConn) readTunnel(p []byte) (int, error) {
	if len(h.held) > 0 {
		n := copy(p, h.held)
		h.drop(n)
		return n, nil
	}
	return h.Conn.Read(p)
}

// drop forgets n of the bytes that are held; with the last also where they were held.
func (h *requestConn) drop(n int) {
	if n < len(h.held) {
		h.held = h.held[n:]
	} else {
		h.held = nil
	}
}

// SetReadDeadline implements net.Conn. See requestConn for who is listened to.
func (h *requestConn) SetReadDeadline(t time.Time) error {
	h.client.askRead(t, h.active.Load() && h.phase.Load() == phaseBody)
	return nil
}

// SetDeadline implements net.Conn.
func (h *requestConn) SetDeadline(t time.Time) error {
	_ = h.SetReadDeadline(t)
	return h.client.SetWriteDeadline(t)
}

// SetWriteDeadline implements net.Conn.
func (h *requestConn) SetWriteDeadline(t time.Time) error { return h.client.SetWriteDeadline(t) }

// CloseWrite tells the client that there is nothing more to come.
func (h *requestConn) CloseWrite() error {
	if t := h.client.tls; t != nil {
		return t.CloseWrite() // the client answers it with its own
	}
	h.client.closeWrite()
	return nil
}

// Close implements net.Conn.
func (h *requestConn) Close() error {
	if h.spoiled.Swap(false) {
		h.part()
	}
	return h.Conn.Close()
}

// part says goodbye to a client that may still be sending.
func (h *requestConn) part() {
	_ = h.SetWriteDeadline(time.Now().Add(refusalTime))
	_ = h.CloseWrite()
	h.client.closeWrite()
	h.client.linger()
}

// refuse answers a request that nobody else may see, and makes sure that nothing more is read.
func (h *requestConn) refuse(f *headscan.Fault) error {
	h.fault, h.broken, h.held = nil, errRefused, nil
	c := h.client
	c.port.refused(c, f)
	_ = h.SetWriteDeadline(time.Now().Add(refusalTime))
	if _, err := h.Write(refusal(f)); err == nil {
		h.part()
	}
	return h.broken
}

// How long a client that was refused may take to read the answer, and how much of what it is still sending is read to that end: closing a connection on which
// something is unread destroys the answer on its way.
const (
	refusalTime  = time.Second
	refusalBytes = 256 << 10
)

// linger waits for the client to close the connection.
func (c *clientConn) linger() {
	c.askRead(time.Time{}, false)
	c.armReadAt(clock() + refusalTime)
	_, _ = io.CopyN(io.Discard, c.Conn, refusalBytes)
}

// refusal is the answer to a request that was refused.
func refusal(f *headscan.Fault) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Length: 0\r\nDate: %s\r\n%s: %s\r\n\r\n",
		f.Status, http.StatusText(f.Status), time.Now().UTC().Format(http.TimeFormat), ReasonHeader, f.Reason)
}

// refused counts and logs a request that was refused before it reached the handler.
func (p *port) refused(c *clientConn, f *headscan.Fault) {
	p.metrics.Unmatched(f.Reason)
	log := p.proxy.opt.AccessLog
	if log == nil {
		return
	}
	e := telemetry.Entry{
		Time: time.Now(), ClientIP: c.from.Addr().String(), PeerIP: c.from.Addr().String(), Scheme: string(p.protocol), Proto: "HTTP/1.1",
		Status: f.Status, Listener: p.name, SNI: c.name, Reason: f.Reason, Detail: f.Why,
	}
	if c.tls != nil {
		s := c.tls.ConnectionState()
		e.TLSVersion, e.TLSCipher = s.Version, s.CipherSuite
	}
	log.Write(&e)
}
