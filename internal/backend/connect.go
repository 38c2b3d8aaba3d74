package backend

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// Connection is a connection to an endpoint, for whoever passes on what a client says, whatever that is: a TCP connection or, of a pool of UDP, a socket that sends
// to the endpoint and receives from it alone. It counts as in flight at the endpoint until it is closed. Close may be called again.
type Connection struct {
	net.Conn        // as the operating system made it, a *net.TCPConn or a *net.UDPConn, or a *tls.Conn over it
	Endpoint string // its address
	Tries    int    // how many endpoints were tried for it, this one among them

	at     *endpoint
	start  time.Duration
	closed atomic.Bool
}

// Close closes the connection and lets go of the endpoint.
func (c *Connection) Close() error {
	err := c.Conn.Close()
	if !c.closed.Swap(true) {
		c.at.release()
	}
	return err
}

// Gone tells whether the endpoint has left its pool.
func (c *Connection) Gone() bool { return c.at.gone.Load() }

// Answered notes that the endpoint has sent something. For TCP nobody need say so.
func (c *Connection) Answered() {
	if c.at.ailing.Load() {
		c.at.pool.proved(c.at, c.start, proof{answered: true})
	}
}

// Refused notes that nobody receives what is sent to the endpoint, which is then left out for a while. That a connection of TCP was refused is known already.
func (c *Connection) Refused(err error) { c.at.pool.failed(c.at, c.start, unreachable, err) }

// Dial connects to an endpoint of the pool. One that cannot be connected to is held to have failed and leads to another, as far as Options.MaxTries and
// Options.ConnectTimeout allow. client is the address of whom the connection is for, for pools that keep clients at an endpoint by it; the zero Addr is unknown.
//
// The protocol of the pool does not matter: nothing is sent, not even the beginning of a TLS handshake, unless endpoints of the pool have to prove who they are:
// then they do, by TLS, before anything else.
//
// A connection waits for an endpoint as a request does: while all have as many connections as they may, and while there is none, as the care of the pool says. The error is
// always an *Error, with the reason NoEndpoints, EndpointsBusy, QueueFull, QueueTimeout, BackendConnectFailed, or what the end of ctx means.
func (p *Pool) Dial(ctx context.Context, client netip.Addr) (*Connection, error) {
	return p.connection(ctx, client, false)
}

// DialAsIs is Dial without any proof: for two ends that speak TLS with each other.
func (p *Pool) DialAsIs(ctx context.Context, client netip.Addr) (*Connection, error) {
	return p.connection(ctx, client, true)
}

func (p *Pool) connection(ctx context.Context, client netip.Addr, asIs bool) (*Connection, error) {
	if why := p.list.Load().refused; why != nil && !asIs {
		return nil, &Error{Reason: route.BackendConnectFailed, Err: why}
	}
	start := p.set.now()
	w := p.connectionWish(client)
	var tried []*endpoint
	var last *Error
	for {
		e, trial, none := p.find(ctx, func() (*endpoint, bool, bool) { return p.acquire(w, tried) })
		if e == nil {
			last = cmp.Or(none, last)
			break
		}
		c, err := e.connect(ctx, asIs)
		if err == nil {
			c.Tries = len(tried) + 1
			p.settle(client, w, e)
			return c, nil
		}
		if trial && ctx.Err() != nil {
			p.tryAgain(e)
		}
		e.release()
		last = &Error{Reason: route.BackendConnectFailed, Endpoint: e.address, Err: err, endpoint: e}
		if ctx.Err() != nil {
			last.Reason = reasonOf(ctx)
		}
		tried = append(tried, e)
		w.prefer = nil
		if !p.another(ctx, start, tried) {
			break
		}
		if hook := p.set.opt.Hooks.Retried; hook != nil {
			hook(p.key, e.address, err)
		}
	}
	if last == nil {
		last = &Error{Reason: route.NoEndpoints, Err: errNoEndpoints}
	}
	return nil, last
}

// another tells whether another endpoint should be tried after those that were tried in vain.
func (p *Pool) another(ctx context.Context, start time.Duration, tried []*endpoint) bool {
	opt := &p.set.opt
	return ctx.Err() == nil && len(tried) < opt.MaxTries && len(tried) < len(p.list.Load().all) && p.set.now()-start < opt.ConnectTimeout
}

// connectionWish is wishFor for a connection, of which nothing is known but whose it is.
func (p *Pool) connectionWish(client netip.Addr) wish {
	l := p.list.Load()
	w := wish{key: rand.Uint64(), safe: true, whole: true} // #nosec G404 -- shares out load, guards nothing
	if !client.IsValid() {
		return w
	}
	if l.policy.Algorithm == route.SourceHash || l.policy.ClientIP > 0 {
		w.key = l.hasher.address(client)
	}
	if l.policy.ClientIP > 0 {
		w.prefer = p.clients.place(client, p.set.now(), l.policy.ClientIP)
	}
	return w
}

// settle notes where a client's next connections should go, if its address decides about that.
func (p *Pool) settle(client netip.Addr, w wish, e *endpoint) {
	if timeout := p.list.Load().policy.ClientIP; timeout > 0 && client.IsValid() && w.prefer != e {
		p.clients.settle(client, e, p.set.now(), timeout)
	}
}

// connect connects to the endpoint, for which the caller has acquired it.
func (e *endpoint) connect(ctx context.Context, asIs bool) (*Connection, error) {
	start, dial := e.pool.set.now(), e.pool.set.dial
	if e.pool.key.UDP {
		dial = e.pool.set.dialUDP
	}
	raw, err := dial(ctx, route.Endpoint{Address: e.address, DNS: e.dns})
	if err != nil {
		return nil, e.connected(ctx, start, err)
	}
	if e.verify != nil && !asIs {
		if raw, err = e.prove(ctx, raw); err != nil {
			return nil, e.connected(ctx, start, err)
		}
	}
	if !e.pool.key.UDP { // nothing is proved by a socket of UDP
		err = e.connected(ctx, start, nil)
	}
	return &Connection{Conn: raw, Endpoint: e.address, at: e, start: start}, err
}

// prove has the endpoint prove who it is, and returns the connection that it did so on. If it does not, raw is closed.
func (e *endpoint) prove(ctx context.Context, raw net.Conn) (net.Conn, error) {
	err := e.verify.refusal()
	if err == nil {
		c := tls.Client(raw, e.verify.config())
		if err = e.handshake(ctx, c); err == nil {
			return c, nil
		}
	}
	_ = raw.Close()
	return nil, fmt.Errorf("tls handshake: %w", err)
}
