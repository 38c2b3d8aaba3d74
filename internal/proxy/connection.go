package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/fairlead-io/fairlead/internal/backend"
	"github.com/fairlead-io/fairlead/internal/route"
	"github.com/fairlead-io/fairlead/internal/telemetry"
)

// connector is what the proxy wants of a *backend.Pool beside requests.
type connector interface {
	Dial(ctx context.Context, client netip.Addr) (*backend.Connection, error)
	DialAsIs(ctx context.Context, client netip.Addr) (*backend.Connection, error)
}

// crossing is one connection, or flow of datagrams, on its way through the table: to a backend as a whole, or to an end before that.
type crossing struct {
	proxy    *Proxy
	metrics  *telemetry.ListenerMetrics // of the port
	scheme   string
	from     netip.AddrPort
	name     string // the server name
	started  time.Time
	listener *route.Listener
	rule     *boundRule
	backend  *boundBackend
	fault    *route.Source // the field that is at fault
	to       *backend.Connection
	state    *tls.ConnectionState // nil unless TLS ended here

	reason  route.Reason
	detail  string
	in, out int64
}

// failed notes why a crossing has ended before its end.
func (x *crossing) failed(reason route.Reason, detail string) {
	x.reason, x.detail = reason, detail
}

// choose picks the backend. If none can take the connection, that is noted, and the result is false.
func (x *crossing) choose() (ok bool) {
	if f := x.rule.Fault; f != nil {
		x.failed(f.Reason, f.Why)
		return false
	}
	b := x.rule.pick()
	if b == nil {
		x.failed(route.NoBackend, "no backend of the rule has a weight")
		return false
	}
	x.backend = b
	if f := b.Fault; f != nil {
		x.fault = &b.Source
		x.failed(f.Reason, f.Why)
		return false
	}
	return true
}

// connect connects to the backend that was chosen.
func (x *crossing) connect() (ok bool) {
	pool, ok := x.backend.pool.(connector)
	if !ok {
		x.fault = &x.backend.Source
		x.failed(route.Internal, "the pool "+x.backend.name+" is not installed")
		return false
	}
	dial := pool.Dial
	if x.listener.Mode == route.Passthrough {
		dial = pool.DialAsIs
	}
	var err error
	if x.to, err = dial(x.proxy.ctx, x.from.Addr()); err == nil {
		return true
	}
	x.failed(route.BackendConnectFailed, err.Error())
	if e, ok := errors.AsType[*backend.Error](err); ok {
		x.reason = e.Reason
	}
	x.backend.metrics(x.proxy.opt.Metrics, x.rule).Error(x.reason)
	return false
}

// account counts the crossing, at its end, and writes its line of the access log.
func (x *crossing) account() {
	m := x.proxy.opt.Metrics
	switch {
	case x.rule != nil:
		x.rule.metrics(m).Passed(x.reason, x.in, x.out)
	case x.listener != nil:
		m.Unmatched(x.listener.Name, x.reason)
	default:
		x.metrics.Unmatched(x.reason)
	}
	if x.proxy.opt.AccessLog != nil {
		x.log()
	}
}

func (x *crossing) log() {
	e := telemetry.Entry{
		Passage: true, Time: x.started, Duration: time.Since(x.started), Scheme: x.scheme, Host: x.name, BytesIn: x.in, BytesOut: x.out,
		Reason: x.reason, Detail: x.detail,
	}
	if x.from.IsValid() {
		e.PeerIP, e.ClientIP = x.from.Addr().String(), x.from.Addr().String()
	}
	if x.listener != nil {
		e.Listener = x.listener.Name
	}
	if x.state != nil {
		e.TLSVersion, e.TLSCipher, e.SNI = x.state.Version, x.state.CipherSuite, x.state.ServerName
	}
	if x.rule != nil {
		s := &x.rule.Source
		e.RouteKind, e.RouteNamespace, e.RouteName, e.Rule = s.Kind, s.Namespace, s.Name, s.Field
	}
	if x.fault != nil {
		e.Rule = x.fault.Field
	}
	if x.backend != nil {
		e.Backend = x.backend.name
	}
	if x.to != nil {
		e.Endpoint, e.Retries = x.to.Endpoint, x.to.Tries-1
	}
	x.proxy.opt.AccessLog.Write(&e)
}

// port returns the port of the table on a bind; nil if there is none, or no table.
func (in *installed) port(b route.Bind) *route.Port {
	if in == nil {
		return nil
	}
	return in.table.Port(b)
}

// cross makes a crossing for the connection.
func (c *clientConn) cross(scheme, name string) *crossing {
	return &crossing{proxy: c.port.proxy, metrics: c.port.metrics, scheme: scheme, from: c.from, name: name, started: time.Now()}
}

// serveTCP passes the connection on.
func (c *clientConn) serveTCP() {
	in := c.port.proxy.installed.Load()
	x := c.cross("tcp", "")
	if rp := in.port(c.bind()); rp != nil {
		x.find(in, rp)
	}
	c.serveCrossing(x)
}

// setPassing notes that the connection is passed on as a whole.
func (c *clientConn) setPassing() {
	if !c.passing.Swap(true) {
		c.port.metrics.Passing(1)
	}
}

// wholeConn is a connection that is passed on as it is.
type wholeConn struct{ *clientConn }

// CloseWrite sends the client a FIN.
func (c *wholeConn) CloseWrite() error {
	c.closeWrite()
	return nil
}

// find looks up the rule.
func (x *crossing) find(in *installed, rp *route.Port) {
	var rule *route.Rule
	if x.listener, rule = rp.Connection(x.name); rule != nil {
		x.rule = in.rules[ruleKey{x.listener, rule}]
	}
}

// serveSecure finds out what becomes of a TLS connection, by the server name that it asks for.
func (c *clientConn) serveSecure() {
	in := c.port.proxy.installed.Load()
	rp := in.port(c.bind())
	if rp == nil || rp.Protocol != route.TLS {
		c.serveTLS()
		return
	}
	name, err := c.readHello()
	if err != nil {
		c.helloFailed(err)
		return
	}
	x := c.cross("tls", name)
	x.find(in, rp)
	if x.rule == nil && x.listener != nil && x.listener.Mode == route.Requests || c.challenged(x.listener, name) {
		c.serveTLS()
		return
	}
	c.serveCrossing(x)
}

// readHello reads until the server name is known. What it has read is read again.
func (c *clientConn) readHello() (name string, err error) {
	if d := c.limits.HandshakeTimeout; d > 0 {
		c.armReadAt(clock() + d)
	} else {
		c.armRead(forever)
	}
	buf := make([]byte, 2<<10)
	got := 0
	for {
		n, err := c.Conn.Read(buf[got:])
		if got += n; n > 0 {
			name, done, herr := parseHello(buf[:got])
			if done || herr != nil {
				c.early = buf[:got]
				return name, herr
			}
		}
		switch {
		case err != nil:
			return "", err
		case got == maxHello:
			return "", helloErrorf("it has more than %d bytes", maxHello)
		case got == len(buf):
			buf = append(buf, make([]byte, min(len(buf), maxHello-len(buf)))...)
		}
	}
}

// helloFailed closes a connection on which no ClientHello came. Nobody is told anything: an alert would be an answer in a name that is not known.
func (c *clientConn) helloFailed(err error) {
	reason := route.ClientClosed
	switch {
	case isTimeout(err):
		reason = route.RequestTimeout
	case errors.Is(err, errNoTLS):
		reason = route.BadRequest
	default:
		if _, ok := errors.AsType[*helloError](err); ok {
			reason = route.BadRequest
		}
	}
	c.port.metrics.Handshake(0, false, false)
	c.port.metrics.Unmatched(reason)
	c.port.proxy.opt.Log.Debug("no ClientHello", "listener", c.port.name, "peer", c.from, "error", err)
	c.kill()
}

// serveCrossing passes the connection on, and closes it. One that nobody takes is reset, before anything was sent to it.
func (c *clientConn) serveCrossing(x *crossing) {
	c.setPassing()
	defer func() {
		x.account()
		if x.reason != "" {
			c.kill()
			return
		}
		_ = c.Close()
	}()
	switch {
	case x.rule == nil:
		x.failed(route.NoRoute, "")
	case !x.choose():
	case x.listener.Mode == route.Terminate:
		c.passDecrypted(x)
	case x.connect():
		limitWrites(c.Conn, c.limits.WriteTimeout)
		c.pass(x, &wholeConn{c})
	}
}

// passDecrypted ends TLS before it passes the connection on.
func (c *clientConn) passDecrypted(x *crossing) {
	t := tls.Server(c, c.port.plain)
	if err := c.handshake(t); err != nil {
		c.port.metrics.Handshake(0, false, false)
		x.failed(route.ClientClosed, "TLS handshake: "+err.Error())
		return
	}
	s := t.ConnectionState()
	x.state = &s
	c.port.metrics.Handshake(s.Version, true, s.DidResume)
	switch {
	case s.NegotiatedProtocol != "": // by a certificate authority, whose challenge has come up since the ClientHello was read
	case normalName(s.ServerName) != x.name: // crypto/tls and parseHello must not disagree about whom this is for
		x.failed(route.Misdirected, fmt.Sprintf("the handshake is for %q", s.ServerName))
	case x.connect():
		c.pass(x, t)
	}
}

// pass passes on what client, which is the connection or TLS over it, and the backend say.
func (c *clientConn) pass(x *crossing, client net.Conn) {
	p := &passage{
		client: client, backend: x.to.Conn, hang: c.kill,
		idle: c.limits.TunnelIdle, writeTimeout: c.limits.WriteTimeout,
	}
	done := c.port.proxy.trackTunnel(func() { p.cut(route.Stopping, errors.New("the time to drain is over")) })
	p.run()
	done()
	_ = x.to.Close()
	x.in, x.out = p.in.Load(), p.out.Load()
	if p.err != nil {
		x.failed(p.reason, p.err.Error())
	}
}
