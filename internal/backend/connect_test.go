package backend

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// greeter says its name to whoever connects.
func greeter(t testing.TB, name string) string {
	return raw(t, func(c net.Conn) { _, _ = io.WriteString(c, name) })
}

// dialed connects to an endpoint of the pool and returns what that says.
func dialed(t testing.TB, p *Pool, sealed bool) (text string, c *Connection, err error) {
	t.Helper()
	dial := p.Dial
	if sealed {
		dial = p.DialAsIs
	}
	c, err = dial(t.Context(), netip.Addr{})
	if err != nil {
		return "", nil, err
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	b, err := io.ReadAll(c)
	return string(b), c, err
}

func TestDialTakesTurnsAndCounts(t *testing.T) {
	s, p := newPoolOf(t, Options{}, route.HTTP, greeter(t, "a"), greeter(t, "b"))
	seen := map[string]int{}
	for range 10 {
		text, c, err := dialed(t, p, true)
		if err != nil {
			t.Fatal(err)
		}
		seen[text]++
		if n := statusOf(t, s, c.Endpoint).InFlight; n != 1 {
			t.Errorf("%d in flight while the connection is open", n)
		}
		_ = c.Close()
		_ = c.Close()
		if n := statusOf(t, s, c.Endpoint).InFlight; n != 0 {
			t.Errorf("%d in flight after it was closed twice", n)
		}
	}
	if seen["a"] != 5 || seen["b"] != 5 {
		t.Errorf("got %v", seen)
	}
}

func TestDialGoesOnToAnotherEndpoint(t *testing.T) {
	dead := refused(t)
	s, p := newPoolOf(t, Options{}, route.HTTP, dead, greeter(t, "a"))
	for range 4 {
		if text, _, err := dialed(t, p, true); text != "a" || err != nil {
			t.Fatalf("got %q, %v", text, err)
		}
	}
	if statusOf(t, s, dead).Healthy {
		t.Error("the endpoint that refuses is not left out")
	}
}

func TestDialSaysWhyNot(t *testing.T) {
	reasonOf := func(p *Pool, ctx context.Context) route.Reason {
		_, err := p.Dial(ctx, netip.Addr{})
		var e *Error
		if !errors.As(err, &e) {
			t.Fatalf("got %v", err)
		}
		return e.Reason
	}
	_, empty := newPoolOf(t, Options{}, route.HTTP)
	if r := reasonOf(empty, t.Context()); r != route.NoEndpoints {
		t.Errorf("without endpoints: %s", r)
	}
	_, dead := newPoolOf(t, Options{}, route.HTTP, refused(t), refused(t))
	if r := reasonOf(dead, t.Context()); r != route.BackendConnectFailed {
		t.Errorf("with endpoints that refuse: %s", r)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	_, alive := newPoolOf(t, Options{}, route.HTTP, greeter(t, "a"))
	if r := reasonOf(alive, over); r != route.ClientClosed {
		t.Errorf("called off: %s", r)
	}
	if n := alive.inFlight() + dead.inFlight(); n != 0 {
		t.Errorf("%d in flight", n)
	}
}

// Where endpoints have to prove who they are nothing is sent to one that has not, and nothing unencrypted.
func TestDialVerifiesEndpoints(t *testing.T) {
	ours, foreign := newAuthority(t), newAuthority(t)
	leaf := ours.issue(&x509.Certificate{DNSNames: []string{"a.example.com"}})
	secure := raw(t, func(c net.Conn) {
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{leaf}})
		if s.Handshake() == nil {
			_, _ = io.WriteString(s, "for "+s.ConnectionState().ServerName)
			_ = s.CloseWrite()
		}
	})
	for _, tt := range []struct {
		name string
		tls  route.PoolTLS
		want string
	}{
		{"proved", route.PoolTLS{ServerName: "a.example.com", Authorities: ours.pem()}, ""},
		{"another name", route.PoolTLS{ServerName: "b.example.com", Authorities: ours.pem()}, "certificate is valid for"},
		{"another authority", route.PoolTLS{ServerName: "a.example.com", Authorities: foreign.pem()}, "unknown authority"},
		{"a policy that is broken", route.PoolTLS{ServerName: "a.example.com", Broken: "no ConfigMap"}, "cannot be verified"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := New(Options{AllowLoopback: true})
			defer s.Close()
			s.Install([]*route.Pool{{Key: testKey, Protocol: route.HTTPS, TLS: &tt.tls}})
			setEndpoints(s, secure)
			text, _, err := dialed(t, s.Pool(testKey), false)
			if tt.want == "" && (err != nil || text != "for a.example.com") {
				t.Errorf("got %q, %v", text, err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %q, %v, want an error with %q", text, err, tt.want)
			}
			c, err := s.Pool(testKey).DialAsIs(t.Context(), netip.Addr{})
			if err != nil {
				t.Fatalf("sealed: %v", err)
			}
			if _, ok := c.Conn.(*net.TCPConn); !ok {
				t.Errorf("sealed: got a %T", c.Conn)
			}
			_ = c.Close()
		})
	}
}

func TestDialDatagrams(t *testing.T) {
	own, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	address := own.LocalAddr().String()
	for _, ours := range []bool{false, true} {
		opt := Options{AllowLoopback: true}
		if ours {
			opt.OwnUDP = func() []netip.AddrPort { return []netip.AddrPort{netip.MustParseAddrPort(address)} }
		}
		s := New(opt)
		defer s.Close()
		key := testKey
		key.UDP = true
		s.Install([]*route.Pool{{Key: key, Protocol: route.UDP}})
		s.Update(map[route.PoolKey][]route.Endpoint{key: {{Address: address}}})
		c, err := s.Pool(key).Dial(t.Context(), netip.Addr{})
		if ours {
			if err == nil || !strings.Contains(err.Error(), "an address of Fairlead itself") {
				t.Errorf("got %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := c.Conn.(*net.UDPConn); !ok || c.Gone() {
			t.Errorf("got a %T, gone %v", c.Conn, c.Gone())
		}
		s.Update(map[route.PoolKey][]route.Endpoint{key: {}})
		if !c.Gone() {
			t.Error("the endpoint is not gone")
		}
		_ = c.Close()
	}
}
