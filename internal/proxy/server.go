package proxy

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/http2"

	"github.com/fairlead-io/fairlead/internal/route"
	"github.com/fairlead-io/fairlead/internal/telemetry"
)

// Install serves the table from now on. It opens the sockets that the table has and the proxy has not, keeps those that stay, and closes those that go; no
// connection that is in use is touched, but those of a socket that goes are told to close. A socket that cannot be opened is part of the error, which names its
// bind, while all others serve; it is tried again with the next Install, and every half second if its address is taken or not there yet. After Shutdown or
// Close the table is still installed, for what is being served, but no socket is opened.
func (p *Proxy) Install(t *route.Table) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		p.installed.Store(p.newInstalled(t))
		return errStopped
	}
	p.wanted = t.Ports
	want := make(map[route.Bind]route.Protocol, len(t.Ports))
	for _, rp := range t.Ports {
		want[rp.Bind] = rp.Protocol
	}
	// A port that speaks another protocol now has to give up its socket first.
	p.retireIf(func(n *port) bool { protocol, stays := want[n.bind]; return stays && !sameSocket(protocol, n.protocol) })
	p.closeReserved(func(b route.Bind) bool { _, stays := want[b]; return !stays })
	opened, err := p.openPorts()
	p.installed.Store(p.newInstalled(t))
	for _, n := range opened {
		n.start()
	}
	p.retireIf(func(n *port) bool { _, stays := want[n.bind]; return !stays })
	p.closeFlows(func(n *flowPort) bool { _, stays := want[n.bind]; return !stays })
	return err
}

// sameSocket tells whether a socket that was opened for one protocol can serve another. What comes by TLS is told apart connection by connection.
func sameSocket(a, b route.Protocol) bool {
	return a == b || secure(a) && secure(b)
}

func secure(p route.Protocol) bool { return p == route.HTTPS || p == route.TLS }

// retireIf retires ports and returns when their sockets are closed. p.mu must be held.
func (p *Proxy) retireIf(goes func(*port) bool) {
	var going []*port
	for _, n := range p.ports {
		if goes(n) {
			p.retire(n)
			going = append(going, n)
		}
	}
	for _, n := range going {
		<-n.accepted
	}
}

// openPorts opens the sockets that are wanted and not there. They do not accept yet. p.mu must be held.
func (p *Proxy) openPorts() (opened []opened, err error) {
	var errs []error
	again := false
	for _, rp := range p.wanted {
		if p.ports[rp.Bind] != nil || p.flowPorts[rp.Bind] != nil {
			continue
		}
		n, err := p.openAny(rp)
		if err != nil {
			errs = append(errs, fmt.Errorf("open %s: %w", rp.Bind, err))
			again = again || errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EADDRNOTAVAIL)
			continue
		}
		opened = append(opened, n)
	}
	if again && !p.retries {
		p.retries = true
		p.group.Go(p.retry)
	}
	return opened, errors.Join(errs...)
}

// opened is a socket that was opened and does not serve yet.
type opened interface {
	start()
	label() string
}

// openAny opens the socket of a port, of TCP or of UDP.
func (p *Proxy) openAny(rp *route.Port) (opened, error) {
	if rp.Bind.UDP {
		n, err := p.openFlows(rp)
		if err != nil {
			return nil, err
		}
		p.flowPorts[rp.Bind] = n
		p.noteUDP()
		return n, nil
	}
	n, err := p.openPort(rp)
	if err != nil {
		return nil, err
	}
	p.ports[rp.Bind] = n
	return n, nil
}

func (n *port) label() string { return n.name }

// retryInterval is the time between two attempts to open a socket whose address is taken.
const retryInterval = 500 * time.Millisecond

// retry opens what could not be opened, until nothing is missing.
func (p *Proxy) retry() {
	ticker := time.NewTicker(retryInterval)
	defer ticker.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-ticker.C:
		}
		if p.retryOnce() {
			return
		}
	}
}

func (p *Proxy) retryOnce() (done bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		p.retries = false
		return true
	}
	opened, err := p.openPorts()
	for _, n := range opened {
		p.opt.Log.Info("opened a socket that could not be opened before", "listener", n.label())
		n.start()
	}
	p.retries = err != nil
	return err == nil
}

// Addr is the address that the socket of a bind listens on; nil if there is none.
func (p *Proxy) Addr(b route.Bind) net.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := p.ports[b]; n != nil {
		return n.socket.Addr()
	}
	if n := p.flowPorts[b]; n != nil {
		return n.socket.LocalAddr()
	}
	return nil
}

// listen opens a socket. Dead peers are noticed within a minute. Multipath TCP, which Go offers on listeners of its own accord, is left out: it has nothing to give
// to a proxy and takes its own way through the kernel.
func listen(address string) (net.Listener, error) {
	c := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 3}}
	c.SetMultipathTCP(false)
	return c.Listen(context.Background(), "tcp", address)
}

// port is one listening socket and the connections that it accepted.
type port struct {
	proxy    *Proxy
	bind     route.Bind
	name     string // of the bind, for metrics and logs
	protocol route.Protocol
	socket   net.Listener
	handler  http.Handler
	metrics  *telemetry.ListenerMetrics
	tls      *tls.Config // nil without TLS
	plain    *tls.Config // for connections that are passed on decrypted; nil without TLS

	http1, http2 *http.Server
	feed1, feed2 *feed // of their connections

	leaving  atomic.Bool   // accepts no more; connections are told to close
	accepted chan struct{} // closed when nothing is accepted any more and the socket is closed

	mu    sync.Mutex
	conns map[*clientConn]struct{}
	gone  chan struct{} // gets a value when a connection is gone, unless there is one
}

func (p *Proxy) openPort(rp *route.Port) (*port, error) {
	if secure(rp.Protocol) && p.opt.GetCertificate == nil {
		return nil, errors.New("there are no certificates for a port of TLS")
	}
	ln, err := p.openSocket(rp.Bind)
	if err != nil {
		return nil, err
	}
	n := &port{
		proxy: p, bind: rp.Bind, name: rp.Bind.String(), protocol: rp.Protocol, socket: ln,
		handler: p.handler(rp.Bind), metrics: p.opt.Metrics.Listener(rp.Bind.String()),
		accepted: make(chan struct{}), conns: map[*clientConn]struct{}{}, gone: make(chan struct{}, 1),
	}
	if secure(rp.Protocol) {
		n.tls, n.plain = n.tlsConfig(http2.NextProtoTLS, "http/1.1"), n.tlsConfig()
	}
	n.http1, n.feed1 = n.newHTTP1(), newFeed(ln.Addr())
	n.http2, n.feed2 = n.newHTTP2(), newFeed(ln.Addr())
	return n, nil
}

// openSocket returns the socket of a bind: the reserved one, if there is one.
func (p *Proxy) openSocket(b route.Bind) (net.Listener, error) {
	if ln := p.reserved[b]; ln != nil {
		delete(p.reserved, b)
		return ln, nil
	}
	return p.listen(p.addressOf(b))
}

// addressOf is where the socket of a bind is opened.
func (p *Proxy) addressOf(b route.Bind) string {
	return net.JoinHostPort(cmp.Or(b.Address, p.opt.BindAddress), strconv.Itoa(int(b.Port)))
}

// newHTTP1 makes the server for HTTP/1. It has no timeouts of its own: see requestConn.
func (n *port) newHTTP1() *http.Server {
	only := new(http.Protocols)
	only.SetHTTP1(true)
	return &http.Server{ //nolint:gosec // requestConn sets the deadlines
		Handler:   http.HandlerFunc(n.serveHTTP),
		Protocols: only,
		// The head scanner counts exactly; net/http must only not stop before it.
		MaxHeaderBytes: unlimited(n.proxy.opt.Limits.HeaderBytes),
		ErrorLog:       newErrorLog(n.proxy.opt.Log, n.name),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, requests(c).client)
		},
		ConnState:                    func(c net.Conn, s http.ConnState) { requests(c).setState(s) },
		DisableGeneralOptionsHandler: true, // serveHTTP does it
	}
}

// start begins to accept.
func (n *port) start() {
	n.proxy.group.Go(n.accept)
	n.proxy.group.Go(func() { _ = n.http1.Serve(n.feed1) })
	n.proxy.group.Go(func() { _ = n.http2.Serve(n.feed2) })
}

// serveHTTP is the handler of the servers.
func (n *port) serveHTTP(w http.ResponseWriter, r *http.Request) {
	c := connFrom(r.Context())
	c.enter()
	defer c.leave()
	if c.tls != nil && r.TLS == nil {
		r.TLS = c.state
	}
	if n.leaving.Load() {
		w.Header().Set("Connection", "close")
	}
	if r.RequestURI == "*" && r.Method == http.MethodOptions {
		w.Header().Set("Content-Length", "0")
		c.streamDone(false)
		return
	}
	n.handler.ServeHTTP(w, r)
}

// accept takes connections from the socket until the port is retired.
func (n *port) accept() {
	defer close(n.accepted)
	defer n.socket.Close()
	delay := time.Duration(0)
	for {
		c, err := n.socket.Accept()
		if err == nil {
			delay = 0
			n.admit(c)
			continue
		}
		if n.leaving.Load() {
			n.acceptRest()
			return
		}
		// Whatever it is (usually that there are no more file descriptors), it may pass.
		delay = min(max(2*delay, 5*time.Millisecond), time.Second)
		n.proxy.opt.Log.Warn("accept: trying again", "listener", n.name, "error", err, "after", delay)
		select {
		case <-n.proxy.ctx.Done():
			return
		case <-time.After(delay):
		}
	}
}

// How long a socket that is about to be closed waits for connections that are in its queue: one by one, and in all. The kernel resets those that are left.
const (
	acceptWait = 10 * time.Millisecond
	acceptMost = 100 * time.Millisecond
)

// acceptRest accepts what waits in the socket.
func (n *port) acceptRest() {
	d, ok := n.socket.(interface{ SetDeadline(t time.Time) error })
	for end := clock() + acceptMost; ok && clock() < end; {
		if d.SetDeadline(time.Now().Add(acceptWait)) != nil {
			return
		}
		c, err := n.socket.Accept()
		if err != nil {
			return
		}
		n.admit(c)
	}
}

// admit takes a connection in, or turns it away at once if there are too many.
func (n *port) admit(nc net.Conn) {
	p := n.proxy
	from := peerOf(nc)
	if !p.limiter.acquire(from.Addr()) {
		n.metrics.Unmatched(route.Overloaded)
		reset(nc)
		return
	}
	c := &clientConn{
		socket: socket{Conn: nc, writeTimeout: p.opt.Limits.WriteTimeout},
		port:   n, limits: &p.opt.Limits, from: from,
	}
	c.refs.Store(1)
	n.metrics.Opened()
	if n.protocol == route.TCP {
		c.setPassing()
	}
	n.mu.Lock()
	n.conns[c] = struct{}{}
	n.mu.Unlock()
	if n.leaving.Load() {
		c.leaving.Store(true)
	}
	p.group.Go(c.serve)
}

// forget drops a connection that is closed and whose last request has ended.
func (n *port) forget(c *clientConn) {
	n.mu.Lock()
	delete(n.conns, c)
	n.mu.Unlock()
	wake(n.proxy.gone)
	wake(n.gone)
}

// serve finds out what the client speaks and hands the connection to the server for it.
func (c *clientConn) serve() {
	switch {
	case c.port.protocol == route.TCP:
		c.serveTCP()
	case c.port.tls == nil:
		c.servePlain()
	default:
		c.serveSecure()
	}
}

// servePlain tells HTTP/2 with prior knowledge from HTTP/1, and both from TLS.
func (c *clientConn) servePlain() {
	buf := make([]byte, 2<<10)
	got := 0
	for {
		c.armFirst()
		m, err := c.Conn.Read(buf[got:])
		got += m
		switch {
		case isTimeout(err) && c.timedOut() == waitPoked: // to be told that it is leaving
		case err != nil:
			_ = c.Close()
			return
		case buf[0] == tlsHandshake:
			c.port.metrics.Unmatched(route.BadRequest)
			_ = c.Close()
			return
		case bytes.HasPrefix(buf[:got], []byte(http2.ClientPreface)):
			c.serveHTTP2(c, buf[:got])
			return
		case !bytes.HasPrefix([]byte(http2.ClientPreface), buf[:got]):
			c.serveHTTP1(c, buf[:got])
			return
		}
	}
}

// tlsHandshake is the first byte of each TLS connection.
const tlsHandshake = 0x16

// armFirst sets the deadline of a connection that has not said anything yet.
func (c *clientConn) armFirst() {
	switch d := c.limits.ReadHeaderTimeout; {
	case c.leaving.Load():
		c.armRead(lastChance)
	case d > 0:
		c.armRead(d)
	default:
		c.armRead(forever)
	}
}

// serveHTTP1 hands the connection to the HTTP/1 server. early is what the client has sent already.
func (c *clientConn) serveHTTP1(conn net.Conn, early []byte) {
	h := newRequestConn(c, conn, early)
	c.http1.Store(h)
	var served net.Conn = h
	if c.tls != nil {
		served = tlsRequestConn{h}
	}
	if !c.port.feed1.put(served) {
		_ = h.Close()
	}
}

// feed is a net.Listener of connections that were accepted elsewhere.
type feed struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newFeed(addr net.Addr) *feed {
	return &feed{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

func (f *feed) put(c net.Conn) (ok bool) {
	select {
	case f.conns <- c:
		return true
	case <-f.done:
		return false
	}
}

// Accept implements net.Listener.
func (f *feed) Accept() (net.Conn, error) {
	select {
	case c := <-f.conns:
		return c, nil
	case <-f.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (f *feed) Close() error {
	f.once.Do(func() { close(f.done) })
	return nil
}

// Addr implements net.Listener.
func (f *feed) Addr() net.Addr { return f.addr }
