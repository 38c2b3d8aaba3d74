package proxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// serveConns starts a backend that hands each connection to f, which need not close it.
func serveConns(t testing.TB, f func(c *net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				f(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// parrot says its name, then what it hears, and after the end of that "end".
func parrot(t testing.TB, name string) string {
	return serveConns(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, name+":")
		_, _ = io.Copy(c, c)
		_, _ = io.WriteString(c, "end")
	})
}

// secureParrot is a parrot that speaks TLS, whose name is followed by the server name that it was asked for.
func secureParrot(t testing.TB, name string) string {
	return serveConns(t, func(c *net.TCPConn) {
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*anyCertificate()}})
		if s.Handshake() != nil {
			return
		}
		_, _ = io.WriteString(s, name+"/"+s.ConnectionState().ServerName+":")
		_, _ = io.Copy(s, s)
		_, _ = io.WriteString(s, "end")
		_ = s.CloseWrite()
	})
}

// closedPort is an address at which connections are refused.
func closedPort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// whole is a rule that gets connections as a whole.
func whole(backends ...route.WeightedPool) *route.Rule {
	return &route.Rule{Backends: backends, Source: route.Source{Kind: "TCPRoute", Namespace: "shop", Name: "db", Field: "spec.rules[0]"}}
}

func all(p *route.Pool) route.WeightedPool { return route.WeightedPool{Pool: p, Weight: 1} }

// at is a listener for one host.
func at(mode route.Mode, host string, rules ...*route.Rule) *route.Listener {
	return &route.Listener{Name: "infra/gw/" + host, Hostname: host, Mode: mode, Port: 443, Hosts: []*route.Host{{Name: host, Rules: rules}}}
}

// raw is a mode in which connections are passed on as they are, and secured one in which the server name decides.
var (
	raw     = mode{name: "tcp"}
	secured = mode{name: "tls", tls: true}
)

// protocolOf is the protocol of the port of a mode that newRig does not know.
func protocolOf(m mode) route.Protocol {
	if m == raw {
		return route.TCP
	}
	return route.TLS
}

// newConnRig starts a proxy whose listeners pass connections on.
func newConnRig(t *testing.T, m mode, w world, options ...rigOption) *rig {
	t.Helper()
	r := newRig(t, h1, world{}, options...)
	r.mode = m
	r.install(m, w)
	return r
}

// install serves another world on the rig's port.
func (r *rig) install(m mode, w world) {
	r.t.Helper()
	table := route.NewTable([]*route.Port{{Bind: testBind, Protocol: protocolOf(m), Listeners: w.listeners}}, w.pools(), nil)
	r.set.Install(table.Pools)
	r.set.Update(w.endpointMap())
	if err := r.p.Install(table); err != nil {
		r.t.Fatal(err)
	}
	r.addr = r.p.Addr(testBind).String()
}

// connect opens a connection; its reads and writes fail after a while.
func (r *rig) connect() *net.TCPConn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		r.t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// expectRejection opens a connection, says something and expects that to be cut off without a word.
func (r *rig) expectRejection(greeting []byte) {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err == nil {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = c.Write(greeting)
		var n int
		if n, err = c.Read(make([]byte, 1)); n != 0 {
			r.t.Errorf("%q was answered", greeting)
		}
	}
	if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
		r.t.Errorf("%q: got %v, want a reset or an end", greeting, err)
	}
}

// converse says something, ends that, and returns all that is said in return.
func converse(c interface {
	io.ReadWriter
	CloseWrite() error
}, text string,
) (string, error) {
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	if err := c.CloseWrite(); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	return string(b), err
}

func TestConnectionIsPassedOn(t *testing.T) {
	p := service("db", route.HTTP)
	r := newConnRig(t, raw, world{listeners: []*route.Listener{at(route.Raw, "", whole(all(p)))}, endpoints: map[*route.Pool][]string{p: {parrot(t, "a")}}})
	got, err := converse(r.connect(), "hello")
	if got != "a:helloend" || err != nil {
		t.Fatalf("got %q, %v", got, err)
	}
	waitUntil(t, "the connection is over", func() bool { return r.p.open() == 0 })
	if n := r.counter("fairlead_passages_total", "listener", "infra/gw/", "route_kind", "TCPRoute", "reason", "none"); n != 1 {
		t.Errorf("%v connections counted", n)
	}
	if in, out := r.counter("fairlead_passage_bytes_total", "direction", "in"), r.counter("fairlead_passage_bytes_total", "direction", "out"); in != 5 || out != 10 {
		t.Errorf("%v bytes in, %v out", in, out)
	}
	if n := r.counter("fairlead_connections"); n != 0 {
		t.Errorf("%v connections are open", n)
	}
	e := r.entries()
	if len(e) != 1 {
		t.Fatalf("log: %v", e)
	}
	want := map[string]any{
		"scheme": "tcp", "bytes_in": 5.0, "bytes_out": 10.0, "listener": "infra/gw/", "backend": "shop/db:80", "peer_ip": "127.0.0.1", "endpoint": e[0]["endpoint"],
	}
	for k, v := range want {
		if e[0][k] != v || v == nil {
			t.Errorf("log: %s is %v, want %v", k, e[0][k], v)
		}
	}
	if e[0]["status"] != nil || e[0]["reason"] != nil {
		t.Errorf("log: %v", e[0])
	}
}

// waitUntil waits until something is so.
func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// "If unspecified or invalid (refers to a nonexistent resource or a Service with no endpoints), the underlying implementation MUST actively reject connection
// attempts to this backend."
func TestConnectionThatNobodyTakesIsReset(t *testing.T) {
	empty, refusing := service("empty", route.HTTP), service("refusing", route.HTTP)
	for _, tt := range []struct {
		name   string
		rules  []*route.Rule
		reason route.Reason
	}{
		{"no route", nil, route.NoRoute},
		{"a rule with a fault", []*route.Rule{{Fault: &route.Fault{Reason: route.NoBackend, Why: "no backends"}}}, route.NoBackend},
		{"a backend with a fault", []*route.Rule{whole(route.WeightedPool{Weight: 1, Fault: &route.Fault{Reason: route.NoBackend}})}, route.NoBackend},
		{"no endpoints", []*route.Rule{whole(all(empty))}, route.NoEndpoints},
		{"refused", []*route.Rule{whole(all(refusing))}, route.BackendConnectFailed},
	} {
		for _, m := range []mode{raw, secured} {
			t.Run(tt.name+" "+m.name, func(t *testing.T) {
				how := route.Raw
				if m == secured {
					how = route.Passthrough
				}
				r := newConnRig(t, m, world{
					listeners: []*route.Listener{at(how, "", tt.rules...)},
					endpoints: map[*route.Pool][]string{empty: {}, refusing: {closedPort(t), closedPort(t)}},
				})
				var greeting []byte
				if m == secured {
					greeting = helloOf(t, &tls.Config{ServerName: "a.example.com"})
				}
				r.expectRejection(greeting)
				e := r.entries()
				if len(e) != 1 || e[0]["reason"] != string(tt.reason) || e[0]["bytes_out"] != 0.0 {
					t.Errorf("log: %v", e)
				}
			})
		}
	}
}

func TestConnectionThatCannotBeMadeIsTriedElsewhere(t *testing.T) {
	p := service("db", route.HTTP)
	r := newConnRig(t, raw, world{
		listeners: []*route.Listener{at(route.Raw, "", whole(all(p)))}, endpoints: map[*route.Pool][]string{p: {closedPort(t), parrot(t, "a"), closedPort(t)}},
	})
	for range 10 {
		if got, err := converse(r.connect(), "x"); got != "a:xend" || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
	}
}

func TestConnectionsAreSharedOutByWeight(t *testing.T) {
	a, b, none := service("a", route.HTTP), service("b", route.HTTP), service("none", route.HTTP)
	r := newConnRig(t, raw, world{
		listeners: []*route.Listener{at(route.Raw, "", whole(route.WeightedPool{Pool: a, Weight: 7}, route.WeightedPool{Pool: b, Weight: 3}, route.WeightedPool{Pool: none}))},
		endpoints: map[*route.Pool][]string{a: {parrot(t, "a")}, b: {parrot(t, "b")}, none: {parrot(t, "none")}},
	})
	seen := map[string]int{}
	const many = 400
	for range many {
		got, err := converse(r.connect(), "")
		if err != nil {
			t.Fatal(err)
		}
		seen[got]++
	}
	// Five standard deviations of a binomial distribution are 46.
	if n := seen["a:end"]; n < 280-46 || n > 280+46 || seen["a:end"]+seen["b:end"] != many {
		t.Errorf("got %v", seen)
	}
}

// TestMuchIsPassedOn sends more than fits into any buffer, both ways at once, through the kernel where it can and through the process.
func TestMuchIsPassedOn(t *testing.T) {
	const size = 24 << 20
	data := make([]byte, size)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(data)
	p := service("db", route.HTTP)
	for name, listener := range map[string]func(string) (net.Listener, error){"kernel": listen, "process": watchedListen} {
		t.Run(name, func(t *testing.T) {
			r := newConnRig(t, raw, world{
				listeners: []*route.Listener{at(route.Raw, "", whole(all(p)))},
				endpoints: map[*route.Pool][]string{p: {serveConns(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })}},
			}, func(o *Options) { o.BindAddress = "" })
			r.p.listen = listener
			other := route.Bind{Address: "127.0.0.2"}
			if err := r.p.Install(route.NewTable([]*route.Port{{Bind: other, Protocol: route.TCP, Listeners: []*route.Listener{at(route.Raw, "", whole(all(p)))}}}, []*route.Pool{p}, nil)); err != nil {
				t.Fatal(err)
			}
			r.addr = r.p.Addr(other).String()
			c := r.connect()
			var wg sync.WaitGroup
			wg.Go(func() {
				_, _ = c.Write(data)
				_ = c.CloseWrite()
			})
			h := sha256.New()
			n, err := io.Copy(h, c)
			wg.Wait()
			if n != size || err != nil || !bytes.Equal(h.Sum(nil), sum(data)) {
				t.Errorf("%d bytes of %d came back, %v", n, size, err)
			}
		})
	}
}

func sum(b []byte) []byte { s := sha256.Sum256(b); return s[:] }

// An end that breaks off is not to be taken for one that has said everything.
func TestResetIsPassedOn(t *testing.T) {
	p := service("db", route.HTTP)
	r := newConnRig(t, raw, world{listeners: []*route.Listener{at(route.Raw, "", whole(all(p)))}, endpoints: map[*route.Pool][]string{p: {serveConns(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "half")
		_, _ = c.Read(make([]byte, 1))
		_ = c.SetLinger(0)
	})}}})
	c := r.connect()
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	_, _ = c.Write([]byte("x"))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
	if e := r.entries(); len(e) != 1 || e[0]["reason"] != string(route.BackendReset) {
		t.Errorf("log: %v", e)
	}
}

func TestConnectionWithoutTrafficEnds(t *testing.T) {
	p := service("db", route.HTTP)
	r := newConnRig(t, raw, world{listeners: []*route.Listener{at(route.Raw, "", whole(all(p)))}, endpoints: map[*route.Pool][]string{p: {parrot(t, "a")}}},
		limited(func(l *Limits) { l.TunnelIdle = 200 * time.Millisecond }))
	c := r.connect()
	if _, err := io.ReadFull(c, make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
	if e := r.entries(); len(e) != 1 || e[0]["reason"] != string(route.IdleTimeout) {
		t.Errorf("log: %v", e)
	}
}

// "A changed table never touches a connection that is in use", not even one whose listener is gone.
func TestConnectionOutlivesItsRoute(t *testing.T) {
	p := service("db", route.HTTP)
	w := world{listeners: []*route.Listener{at(route.Raw, "", whole(all(p)))}, endpoints: map[*route.Pool][]string{p: {parrot(t, "a")}}}
	r := newConnRig(t, raw, w)
	c := r.connect()
	if _, err := io.ReadFull(c, make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	if err := r.p.Install(route.NewTable(nil, nil, nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := net.DialTimeout("tcp", r.addr, time.Second); err == nil {
		t.Error("the socket is still open")
	}
	if got, err := converse(c, "hello"); got != "helloend" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestConnectionHasTheTimeToDrain(t *testing.T) {
	p := service("db", route.HTTP)
	w := world{listeners: []*route.Listener{at(route.Raw, "", whole(all(p)))}, endpoints: map[*route.Pool][]string{p: {parrot(t, "a")}}}
	for _, ends := range []bool{true, false} {
		t.Run(fmt.Sprint(ends), func(t *testing.T) {
			r := newConnRig(t, raw, w, func(o *Options) {
				if o.DrainGrace = 300 * time.Millisecond; ends {
					o.DrainGrace = time.Minute
				}
			})
			c := r.connect()
			if _, err := io.ReadFull(c, make([]byte, 2)); err != nil {
				t.Fatal(err)
			}
			down := make(chan error, 1)
			go func() { down <- r.p.Shutdown(context.Background()) }()
			waitUntil(t, "the proxy stops", func() bool { return r.p.Addr(testBind) == nil })
			if ends {
				if got, err := converse(c, "hello"); got != "helloend" || err != nil {
					t.Errorf("got %q, %v", got, err)
				}
			} else if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("got %v, want a reset", err)
			}
			if err := <-down; err != nil {
				t.Error(err)
			}
			reason := any(nil)
			if !ends {
				reason = string(route.Stopping)
			}
			if e := r.entries(); len(e) != 1 || e[0]["reason"] != reason {
				t.Errorf("log: %v", e)
			}
		})
	}
}

// mixed is a port on which the server name decides about everything.
func mixed(t *testing.T) world {
	pass, end, web := service("pass", route.HTTP), service("end", route.HTTP), service("web", route.HTTP)
	wild := at(route.Passthrough, "*.example.com", whole(all(pass)))
	return world{
		listeners: []*route.Listener{
			wild, at(route.Terminate, "end.example.com", whole(all(end))),
			{Name: "infra/gw/web", Hostname: "app.test", Port: 443, Hosts: []*route.Host{{Name: "app.test", Rules: []*route.Rule{rule("/", web)}}}},
		},
		endpoints: map[*route.Pool][]string{
			pass: {secureParrot(t, "pass")}, end: {parrot(t, "end")},
			web: {serveHTTP(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "web") })},
		},
	}
}

func TestServerNameDecides(t *testing.T) {
	r := newConnRig(t, secured, mixed(t))
	for _, tt := range []struct {
		name string
		want string
	}{
		{"a.example.com", "pass/a.example.com:hiend"},
		{"A.Deep.Example.com", "pass/A.Deep.Example.com:hiend"},
		{"end.example.com", "end:hiend"},
	} {
		for _, most := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			c := tls.Client(r.connect(), &tls.Config{ServerName: tt.name, InsecureSkipVerify: true, MaxVersion: most, NextProtos: []string{"h2", "other"}})
			got, err := converse(c, "hi")
			if got != tt.want || err != nil {
				t.Errorf("%s: got %q, %v", tt.name, got, err)
			}
			if p := c.ConnectionState().NegotiatedProtocol; p != "" {
				t.Errorf("%s: agreed on %q", tt.name, p)
			}
		}
	}
	for _, m := range []mode{h1s, h2} {
		client := m.client(r.addr)
		res, err := client.Get("https://app.test/")
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if string(b) != "web" {
			t.Errorf("%s: got %q", m.name, b)
		}
		// The certificate may be for another name too, and the connection be used for that. It was made for this listener.
		for host, want := range map[string]int{"a.example.com": http.StatusMisdirectedRequest, "end.example.com": http.StatusMisdirectedRequest, "other.org": http.StatusNotFound} {
			req, _ := http.NewRequest(http.MethodGet, "https://app.test/", nil)
			req.Host = host
			res, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != want {
				t.Errorf("%s, Host %s: got %d, want %d", m.name, host, res.StatusCode, want)
			}
		}
		client.CloseIdleConnections()
	}
}

// A rejected client sees its connection end. An alert would be the word of somebody who is not there.
func TestUnknownServerNameGetsNoAlert(t *testing.T) {
	r := newConnRig(t, secured, mixed(t))
	for _, config := range []*tls.Config{{ServerName: "other.org"}, {ServerName: "example.com"}, {}} {
		r.expectRejection(helloOf(t, config))
	}
	for _, garbage := range []string{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\x16\x03\x01\x00\x00", "\x16\x03\x01\x00\x01\x01\x15\x03\x01\x00\x02\x01\x00"} {
		r.expectRejection([]byte(garbage))
	}
	waitUntil(t, "all connections are over", func() bool { return r.p.open() == 0 })
	if n := r.counter("fairlead_connections"); n != 0 {
		t.Errorf("%v connections are open", n)
	}
}

// However the ClientHello is cut into records and packets, the backend gets it as it is.
func TestHelloInPieces(t *testing.T) {
	r := newConnRig(t, secured, mixed(t))
	for _, size := range []int{1, 100} {
		c := tls.Client(&choppy{TCPConn: r.connect(), size: size}, &tls.Config{ServerName: "a.example.com", InsecureSkipVerify: true})
		if got, err := converse(c, "hi"); got != "pass/a.example.com:hiend" || err != nil {
			t.Errorf("records of %d bytes: got %q, %v", size, got, err)
		}
	}
}

// choppy is a connection on which the first message is spread over records of a size, and packets of another.
type choppy struct {
	*net.TCPConn
	size int
}

func (c *choppy) Write(b []byte) (int, error) {
	if c.size == 0 {
		return c.TCPConn.Write(b)
	}
	out := inRecords(b, c.size)
	c.size = 0
	for len(out) > 0 {
		n := min(len(out), 333)
		if _, err := c.TCPConn.Write(out[:n]); err != nil {
			return 0, err
		}
		out = out[n:]
	}
	return len(b), nil
}

func TestHelloHasAShareOfTime(t *testing.T) {
	r := newConnRig(t, secured, mixed(t), limited(func(l *Limits) { l.HandshakeTimeout = 100 * time.Millisecond }))
	c := r.connect()
	_, _ = c.Write([]byte{22, 3})
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || isTimeout(err) {
		t.Errorf("read %d bytes, %v", n, err)
	}
	waitUntil(t, "it is counted", func() bool { return r.counter("fairlead_unmatched_requests_total", "reason", "request-timeout") == 1 })
}

// A session of one server name is none for another, and one of a listener that ends TLS for requests is none where connections are passed on.
func TestTicketsStayWithTheirServerName(t *testing.T) {
	r := newConnRig(t, secured, mixed(t))
	cache := &oneSession{}
	resumed := func(name string, protocols ...string) bool {
		c := tls.Client(r.connect(), &tls.Config{ServerName: name, InsecureSkipVerify: true, ClientSessionCache: cache, NextProtos: protocols})
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		if name == "app.test" {
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n")
		} else {
			_ = c.CloseWrite()
		}
		_, _ = io.ReadAll(c)
		return c.ConnectionState().DidResume
	}
	for _, name := range []string{"app.test", "end.example.com"} {
		if resumed(name, "http/1.1") {
			t.Errorf("%s took a session of another name", name)
		}
		if !resumed(name, "http/1.1") {
			t.Errorf("%s did not take its own session", name)
		}
	}
}

// Listeners of HTTPS and of TLS come and go on a port without anybody noticing who has nothing to do with them.
func TestPortOfHTTPSBecomesOneOfTLS(t *testing.T) {
	w := mixed(t)
	https := world{listeners: []*route.Listener{w.listeners[2]}, endpoints: w.endpoints}
	r := newRig(t, h1s, https)
	c := r.dial()
	if res, _ := sendRaw(t, c, "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n"); res.StatusCode != http.StatusOK {
		t.Fatal(res.Status)
	}
	addr := r.addr
	for range 2 {
		r.install(secured, mixed(t))
		if r.addr != addr {
			t.Fatal("the socket was opened anew")
		}
		if got, err := converse(tls.Client(r.connect(), &tls.Config{ServerName: "end.example.com", InsecureSkipVerify: true}), "hi"); got != "end:hiend" || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
		r.swap(world{listeners: []*route.Listener{mixed(t).listeners[2]}, endpoints: w.endpoints})
	}
	if res, _ := sendRaw(t, c, "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n"); res.StatusCode >= 500 {
		t.Error(res.Status)
	}
}

// Where a policy says who the backends must be, what TLS was taken off is encrypted anew, and sent to nobody else.
func TestDecryptedConnectionIsEncryptedAnew(t *testing.T) {
	for _, name := range []string{"app.test", "other.test"} {
		p := service("db", route.HTTPS)
		p.TLS = &route.PoolTLS{ServerName: name, Authorities: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: anyCertificate().Certificate[0]})}
		r := newConnRig(t, secured, world{
			listeners: []*route.Listener{at(route.Terminate, "end.example.com", whole(all(p)))}, endpoints: map[*route.Pool][]string{p: {secureParrot(t, "a")}},
		})
		got, err := converse(tls.Client(r.connect(), &tls.Config{ServerName: "end.example.com", InsecureSkipVerify: true}), "hi")
		if name == "app.test" && (got != "a/app.test:hiend" || err != nil) || name != "app.test" && got != "" {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
}
