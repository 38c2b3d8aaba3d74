package backend

import (
	"context"
	"crypto/tls"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// endpoint is one endpoint of one pool, with its connections. When it has left its pool it never comes back: an endpoint that is added again at the same address
// is a new one, because in all likelihood there is a new process behind it.
type endpoint struct {
	pool     *Pool
	address  string
	dns      bool
	host     string // the name that address was resolved from; "" if it was not
	protocol route.Protocol
	verify   *verification
	hash     uint64 // another in each process
	stable   uint64 // the same in all replicas
	name     name   // see Pool.nameOf
	named    sync.Once

	// What picking reads.
	share     atomic.Int64  // weight
	warmth    atomic.Uint32 // percent of its share that it gets during slow start; 0 is all
	aside     atomic.Bool   // left out for failing, while others are not
	far       atomic.Bool   // others are preferred for being near
	latency   atomic.Uint64 // see observe
	latencyAt atomic.Int64

	inFlight atomic.Int64
	tally    tally
	leftOut  atomic.Bool // health.out
	gone     atomic.Bool // no new requests; connections are closed when nothing is in flight
	unready  atomic.Bool // it has gone because it is not ready any more
	ailing   atomic.Bool // health is not the zero health

	info     route.Endpoint // held: pool.mu
	health                  // held: pool.mu
	warmFrom time.Duration  // held: pool.mu
	used     bool           // by the list that is being made; held: pool.mu

	mu       sync.Mutex
	conns    map[*conn]struct{}
	main     atomic.Pointer[http.Transport] // written with mu held
	upgrades atomic.Pointer[http.Transport] // HTTP/1.1 only, for requests that HTTP/2 cannot carry; written with mu held
	calls    atomic.Pointer[http.Transport] // HTTP/2 with prior knowledge, for gRPC where main speaks HTTP/1.1; written with mu held
}

// newEndpoint makes an endpoint that is spoken to as its pool says. The caller holds pool.mu.
func newEndpoint(p *Pool, info route.Endpoint) *endpoint {
	e := &endpoint{
		pool: p, address: info.Address, dns: info.DNS, host: info.Name, protocol: p.protocol, verify: p.verify,
		hash: maphash.String(p.set.seed, info.Address), stable: p.keys.Load().hasher.text(info.Address),
	}
	e.describe(info)
	return e
}

// describe takes over what is said of the endpoint. The caller holds pool.mu.
func (e *endpoint) describe(info route.Endpoint) {
	e.info = info
	e.share.Store(int64(e.weight()))
	e.far.Store(info.Distance > 0)
}

// weight is the endpoint's share beside the others of its pool. The caller holds pool.mu.
func (e *endpoint) weight() int { return int(max(e.info.Weight, 1)) }

// entrance is what came of asking an endpoint to take a request.
type entrance uint8

const (
	entered entrance = iota
	isFull           // it has as many as it may
	hasGone          // it has left its pool
)

// enter counts a request as in flight, unless there are most already; 0 is no limit.
func (e *endpoint) enter(most int64) entrance {
	if most <= 0 {
		e.inFlight.Add(1)
	} else {
		for {
			n := e.inFlight.Load()
			if n >= most {
				return isFull
			}
			if e.inFlight.CompareAndSwap(n, n+1) {
				break
			}
		}
	}
	e.pool.traffic.begin(e.hash)
	// Either this sees that the endpoint has gone, or leave sees the request.
	if !e.gone.Load() {
		return entered
	}
	e.release()
	return hasGone
}

// release ends what enter began.
func (e *endpoint) release() {
	e.pool.traffic.end(e.hash)
	left := e.inFlight.Add(-1)
	e.pool.queue.next()
	if left > 0 {
		return
	}
	switch {
	case e.gone.Load():
		e.closeAll()
	case e.pool.retired.Load():
		e.pool.set.reap(e.pool)
	}
}

// leave lets go of the endpoint: connections that are idle are closed now, others when nothing is in flight any more.
func (e *endpoint) leave() {
	e.gone.Store(true)
	e.closeIdle()
	if e.inFlight.Load() == 0 {
		e.closeAll()
	}
}

// lastOnce returns an endpoint that serves one request in place of one that has gone, and closes its connection after it.
func (e *endpoint) lastOnce() *endpoint {
	again := &endpoint{pool: e.pool, address: e.address, dns: e.dns, host: e.host, protocol: e.protocol, verify: e.verify, hash: e.hash}
	again.inFlight.Add(1)
	e.pool.traffic.begin(again.hash)
	again.gone.Store(true)
	return again
}

func (e *endpoint) closeIdle() {
	for _, p := range []*atomic.Pointer[http.Transport]{&e.main, &e.upgrades, &e.calls} {
		if t := p.Load(); t != nil {
			t.CloseIdleConnections()
		}
	}
}

// closeAll closes the connections of an endpoint that has gone and has nothing in flight.
func (e *endpoint) closeAll() {
	e.closeIdle()
	// A transport may take a moment to notice that a connection has become idle: what it has not closed is closed here.
	e.mu.Lock()
	var left []*conn
	for c := range e.conns {
		left = append(left, c)
	}
	e.mu.Unlock()
	for _, c := range left {
		_ = c.Close()
	}
}

// speaks returns the transport for a request.
func (e *endpoint) speaks(req *http.Request) *http.Transport {
	if len(req.Header["Upgrade"]) > 0 && (e.protocol == route.HTTPS || e.protocol == route.H2C) {
		return e.lazy(&e.upgrades, http1)
	}
	// gRPC is HTTP/2 and nothing else, so that a Service need not say it.
	if e.protocol == route.HTTP && req.ProtoMajor == 2 && route.IsGRPC(req.Header["Content-Type"]) {
		return e.lazy(&e.calls, http2Only)
	}
	return e.lazy(&e.main, asProtocol)
}

// wire is what a transport speaks.
type wire int

const (
	asProtocol wire = iota // what the protocol of the endpoint says
	http1
	http2Only // in clear text
)

// lazy makes the transport when it is first wanted: most of a large pool's endpoints may never be asked by this replica.
func (e *endpoint) lazy(p *atomic.Pointer[http.Transport], w wire) *http.Transport {
	if t := p.Load(); t != nil {
		return t
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if t := p.Load(); t != nil {
		return t
	}
	t := e.newTransport(w)
	p.Store(t)
	return t
}

// streamBuffer is how much of an HTTP/2 response may wait in memory for a client that reads slowly. http.Transport's own default of 4 MiB is too much when there
// are thousands of them.
const streamBuffer = 256 << 10

// newTransport makes a transport that connects to this endpoint, whatever the address in a request's URL: that only keeps connections made for one TLS server
// name from being used for another.
func (e *endpoint) newTransport(w wire) *http.Transport {
	opt := &e.pool.set.opt
	h2c := w == http2Only || w == asProtocol && e.protocol == route.H2C
	t := &http.Transport{
		DialContext:            e.dialPlain(!h2c),
		DisableCompression:     true,
		MaxIdleConns:           opt.MaxIdle,
		MaxIdleConnsPerHost:    opt.MaxIdle,
		IdleConnTimeout:        opt.IdleTimeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: opt.HeaderBytes,
		Protocols:              new(http.Protocols),
		HTTP2:                  &http.HTTP2Config{MaxReceiveBufferPerStream: streamBuffer},
	}
	switch {
	case h2c:
		t.Protocols.SetUnencryptedHTTP2(true)
	case w == asProtocol && e.protocol == route.HTTPS:
		t.Protocols.SetHTTP2(true)
		t.DialTLSContext = e.dialTLS("h2", "http/1.1")
		fallthrough
	default:
		t.Protocols.SetHTTP1(true)
	}
	if t.DialTLSContext == nil && e.secure() {
		t.DialTLSContext = e.dialTLS("http/1.1")
	}
	return t
}

// secure reports whether the endpoint is spoken to over TLS.
func (e *endpoint) secure() bool {
	return e.protocol == route.HTTPS || e.protocol == route.WSS || e.verify != nil
}

// conn is a connection to an endpoint, which knows of it until it is closed.
type conn struct {
	net.Conn
	endpoint *endpoint
	took     time.Duration // to connect
	made     time.Duration // when it was
	wear     float64       // times the lifetime that the pool allows: not all connections should end at once
	uses     atomic.Int64  // requests that it has carried
	renewed  atomic.Bool   // other requests go over others
	// exclusive says that it carries one request at a time: HTTP/1.1.
	exclusive bool
	receiver  *receiver
	options   options
	sent      atomic.Int64 // bytes written
	closed    atomic.Bool
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.receiver.Read(p)
	if c.receiver.records == nil {
		c.options.pass(p[:n])
	}
	return n, err
}

// secureConn is HTTP/1.1 over TLS over a conn.
type secureConn struct {
	*tls.Conn
	base *conn
}

func (c *secureConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.base.options.pass(p[:n])
	return n, err
}

// baseOf returns the conn below what http.Transport was given; nil if there is none.
func baseOf(c net.Conn) *conn {
	switch over := c.(type) {
	case *secureConn:
		return over.base
	case *tls.Conn:
		c = over.NetConn()
	}
	base, _ := c.(*conn)
	return base
}

// Write counts what is written, so that a request can be known not to have been sent at all.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.sent.Add(int64(n))
	return n, err
}

// worn reports whether a connection has carried as many requests as it may or is as old as it may become.
func (e *endpoint) worn(c *conn) bool {
	l := &e.pool.list.Load().care.Limits
	if l.Uses > 0 && c.uses.Load() > int64(l.Uses) {
		return true
	}
	return l.Lifetime > 0 && e.pool.set.now()-c.made > time.Duration(float64(l.Lifetime)*c.wear)
}

// renew has further requests use new connections, in place of a worn one and those that were made by the same transport. Those that there are finish what they carry, and are closed when they have been idle.
func (e *endpoint) renew(worn *conn) {
	if worn.renewed.Swap(true) {
		return
	}
	e.mu.Lock()
	old := e.main.Swap(nil)
	e.mu.Unlock()
	if old != nil {
		old.CloseIdleConnections()
	}
}

// CloseWrite tells the endpoint that nothing more will come, while the other direction goes on.
func (c *conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return fmt.Errorf("close connection for writing: %w", http.ErrNotSupported)
}

func (c *conn) Close() error {
	if !c.closed.Swap(true) {
		c.endpoint.mu.Lock()
		delete(c.endpoint.conns, c)
		c.endpoint.mu.Unlock()
		c.receiver.close()
	}
	return c.Conn.Close()
}

// dialPlain returns a function that connects to the endpoint without TLS. exclusive is for conn.
func (e *endpoint) dialPlain(exclusive bool) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		start := e.pool.set.now()
		c, err := e.dial(ctx)
		if err != nil {
			return nil, e.connected(ctx, start, err)
		}
		c.exclusive, c.took = exclusive, e.pool.set.now()-start
		return c, e.connected(ctx, start, nil)
	}
}

// dial makes a TCP connection to the endpoint.
func (e *endpoint) dial(ctx context.Context) (*conn, error) {
	raw, err := e.pool.set.dial(ctx, route.Endpoint{Address: e.address, DNS: e.dns})
	if err != nil {
		return nil, err
	}
	return e.track(raw)
}

// track makes the endpoint know of a new connection.
func (e *endpoint) track(raw net.Conn) (*conn, error) {
	c := &conn{Conn: raw, endpoint: e, receiver: newReceiver(raw), made: e.pool.set.now(), wear: 0.9 + 0.2*rand.Float64()} // #nosec G404 -- spreads the ends
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.gone.Load() && e.inFlight.Load() == 0 {
		_ = raw.Close()
		return nil, errGone
	}
	if e.conns == nil {
		e.conns = map[*conn]struct{}{}
	}
	e.conns[c] = struct{}{}
	return c, nil
}

// dialTLS returns a function that connects to the endpoint with TLS and offers the given protocols.
func (e *endpoint) dialTLS(protocols ...string) func(context.Context, string, string) (net.Conn, error) {
	config := e.verify.config()
	config.NextProtos = protocols
	return func(ctx context.Context, _, addr string) (net.Conn, error) {
		if err := e.verify.refusal(); err != nil {
			return nil, &connectError{e.address, err}
		}
		start := e.pool.set.now()
		base, err := e.dial(ctx)
		if err != nil {
			return nil, e.connected(ctx, start, err)
		}
		base.receiver.records = &records{}
		e.boundNames()
		config := config.Clone()
		if config.ServerName == "" {
			config.ServerName, _, _ = net.SplitHostPort(addr)
		}
		c := tls.Client(base, config)
		if err := e.handshake(ctx, c); err != nil {
			_ = base.Close()
			return nil, e.connected(ctx, start, fmt.Errorf("tls handshake: %w", err))
		}
		base.took = e.pool.set.now() - start
		base.exclusive = c.ConnectionState().NegotiatedProtocol != "h2"
		if base.exclusive {
			return &secureConn{c, base}, e.connected(ctx, start, nil)
		}
		return c, e.connected(ctx, start, nil)
	}
}

// boundNames closes idle connections if there are very many of them. Connections are kept by server name, and clients choose the name where a route takes any host:
// without a bound they could make each of their requests leave another connection open. (http.Transport's own bounds leave HTTP/2 connections out.)
func (e *endpoint) boundNames() {
	e.mu.Lock()
	n := len(e.conns)
	e.mu.Unlock()
	if n > 2*e.pool.set.opt.MaxIdle {
		e.closeIdle()
	}
}

func (e *endpoint) handshake(ctx context.Context, c *tls.Conn) error {
	ctx, cancel := context.WithTimeoutCause(ctx, e.pool.set.opt.TLSTimeout, errTLSTimeout)
	defer cancel()
	err := c.HandshakeContext(ctx)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// connected notes how an attempt to connect has ended and returns its error as a *connectError. One that was called off says nothing about the endpoint.
func (e *endpoint) connected(ctx context.Context, start time.Duration, err error) error {
	if err == nil {
		e.pool.hookConnected(e, start, nil)
		e.pool.reached(e, start)
		return nil
	}
	err = &connectError{e.address, err}
	if ctx.Err() != nil || e.gone.Load() {
		return err
	}
	e.pool.hookConnected(e, start, err)
	if !isLocal(err) {
		e.pool.failed(e, start, unreachable, err)
	}
	return err
}
