package proxy

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// clientConn is a client's connection, from accept to close. It is in the context of each of its requests: see connFrom.
type clientConn struct {
	socket
	port   *port
	limits *Limits
	from   netip.AddrPort
	tls    *tls.Conn // nil without TLS
	state  *tls.ConnectionState
	name   string            // of the server, as the handshake asked for it
	early  []byte            // what was read to find out what the client wants, and is read again; belongs to whoever reads
	shown  *route.ClientAuth // the demand that the client's certificate met in the handshake; nil if there was none

	// refs counts whoever still uses the connection: the socket as long as it is open, and each request. At 0 the port forgets it.
	refs    atomic.Int64
	closed  atomic.Bool
	leaving atomic.Bool // it should go as soon as it is not in use
	http1   atomic.Pointer[requestConn]
	tunnel  atomic.Bool
	passing atomic.Bool // it is passed on as a whole
	resets  resetGuard
}

type connKey struct{}

// connFrom returns the connection that a request came on; nil for a request that came on none (a test's).
func connFrom(ctx context.Context) *clientConn {
	c, _ := ctx.Value(connKey{}).(*clientConn)
	return c
}

// bind is the bind of the port that accepted the connection.
func (c *clientConn) bind() route.Bind { return c.port.bind }

// peer is the address of whoever made the connection; the zero AddrPort if it has none.
func (c *clientConn) peer() netip.AddrPort { return c.from }

// sni is the server name of the TLS handshake, lower-case and without a trailing dot. Empty without TLS, and when the client named none.
func (c *clientConn) sni() string { return c.name }

// streamDone is to be called when a request has ended. abandoned says that it ended before its answer was complete: the client cancelled it, or its
// connection broke the rules. A connection with too many of those is closed: see Limits.Resets.
func (c *clientConn) streamDone(abandoned bool) {
	if c.resets.done(abandoned, c.limits.Resets) {
		c.port.proxy.opt.Log.Debug("close connection: too many abandoned requests", "peer", c.from, "listener", c.port.name)
		c.kill()
	}
}

// enter and leave enclose each request.
func (c *clientConn) enter() { c.refs.Add(1) }

func (c *clientConn) leave() {
	if c.refs.Add(-1) == 0 {
		c.port.forget(c)
	}
}

// Read implements net.Conn.
func (c *clientConn) Read(p []byte) (int, error) {
	if len(c.early) == 0 {
		return c.socket.Read(p)
	}
	n := copy(p, c.early)
	c.early = c.early[n:]
	return n, nil
}

// Close implements net.Conn. It may be called again, also from within itself: by the server that closes with its last connection.
func (c *clientConn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	err := c.Conn.Close()
	if c.tunnel.Load() {
		c.port.metrics.Upgraded(-1)
	}
	if c.passing.Load() {
		c.port.metrics.Passing(-1)
	}
	c.port.metrics.Closed()
	c.port.proxy.limiter.release(c.from.Addr())
	c.leave()
	return err
}

// kill ends the connection without ceremony.
func (c *clientConn) kill() {
	if t, ok := c.Conn.(interface{ SetLinger(sec int) error }); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

// goodbye asks the connection to end as soon as it is not in use. One that has not sent anything yet gets a second to do so.
func (c *clientConn) goodbye() {
	if c.leaving.Swap(true) || c.passing.Load() { // which ends when both ends are done
		return
	}
	if c.port.tls == nil || c.http1.Load() != nil { // a handshake would not survive it
		c.poke()
	}
}

// lastChance is how long a connection may still take to begin its first request when it is asked to go.
const lastChance = time.Second

// peerOf is the address of the other end of a connection.
func peerOf(c net.Conn) netip.AddrPort {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		p := a.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	}
	return netip.AddrPort{}
}

// resetGuard tells clients that keep the proxy busy with requests whose answers they do not want (CVE-2023-44487 and its kin) from those that cancel one now
// and then, or many at once when a backend is slow: a client may abandon some requests in each resetWindow, and one more for each ten that it completed, which it
// may save up.
type resetGuard struct {
	completed atomic.Int64 // since the last one that was abandoned
	mu        sync.Mutex
	begun     bool
	allowed   int64 // tenths
	at        time.Duration
}

const (
	resetWindow  = 30 * time.Second
	resetSavings = 5 // times what is allowed in a window
)

// done counts the end of a request and reports whether the client has gone too far. most is how many it may abandon in a window; negative is any number.
func (g *resetGuard) done(abandoned bool, most int) (tooMany bool) {
	if !abandoned {
		g.completed.Add(1)
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	now, full := clock(), int64(most)*10
	if !g.begun {
		g.begun, g.allowed = true, full
	} else if g.allowed < full {
		passed := min(now-g.at, resetWindow)
		g.allowed = min(g.allowed+full*int64(passed)/int64(resetWindow), full)
	}
	g.at = now
	g.allowed = min(g.allowed+g.completed.Swap(0), full*resetSavings) - 10
	return most >= 0 && g.allowed < 0
}
