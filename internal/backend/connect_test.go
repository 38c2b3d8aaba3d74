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
	"sync"
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

// dialCrowd makes connections at the same moment, closes each that was made after a second, and returns how often each reason came, "" for a connection.
func dialCrowd(t *testing.T, p *Pool, connections int) map[route.Reason]int {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	got := map[route.Reason]int{}
	for range connections {
		wg.Go(func() {
			r := &reply{}
			c, err := p.Dial(t.Context(), netip.Addr{})
			if r.err = err; err == nil {
				time.Sleep(time.Second)
				_ = c.Close()
			}
			mu.Lock()
			defer mu.Unlock()
			got[r.reason()]++
		})
	}
	wg.Wait()
	return got
}

// Connections that are passed on wait for room, and for an endpoint, as requests do.
func TestDialWaits(t *testing.T) {
	for _, tt := range []struct {
		name  string
		care  route.Care
		after time.Duration // when the pool has endpoints
		want  map[route.Reason]int
	}{
		{"no limit", route.Care{}, 0, map[route.Reason]int{"": 20}},
		{"as many as may be", route.Care{Limits: route.Limits{Connections: 3}}, 0, map[route.Reason]int{"": 6, route.EndpointsBusy: 14}},
		{"some wait, and have their turn", route.Care{Limits: route.Limits{Connections: 3, Pending: 5, Queue: 10 * time.Second}}, 0, map[route.Reason]int{"": 11, route.QueueFull: 9}},
		{"some wait in vain", route.Care{Limits: route.Limits{Connections: 3, Pending: 14, Queue: 1500 * time.Millisecond}}, 0, map[route.Reason]int{"": 12, route.QueueTimeout: 8}},
		{"no endpoints", route.Care{}, time.Second, map[route.Reason]int{route.NoEndpoints: 20}},
		{"held until there are", route.Care{Hold: 10 * time.Second}, 3 * time.Second, map[route.Reason]int{"": 20}},
		{"held in vain", route.Care{Hold: 2 * time.Second}, 3 * time.Second, map[route.Reason]int{route.NoEndpoints: 20}},
		{"too many to be held", route.Care{Hold: 10 * time.Second, Limits: route.Limits{Pending: 4}}, 3 * time.Second, map[route.Reason]int{"": 4, route.QueueFull: 16}},
	} {
		for _, protocol := range []route.Protocol{route.TCP, route.H2C} {
			t.Run(tt.name+" "+string(protocol), func(t *testing.T) {
				inMemory(t, Options{}, []string{"a:1", "b:1"}, func(t *testing.T, _ *network, s *Set, p *Pool) {
					s.Install([]*route.Pool{{Key: testKey, Protocol: protocol, Care: tt.care}})
					if tt.after > 0 {
						setEndpoints(s)
						timer := time.AfterFunc(tt.after, func() { setEndpoints(s, "a:1", "b:1") })
						defer timer.Stop()
					}
					got := dialCrowd(t, p, 20)
					for reason, count := range tt.want {
						if got[reason] != count {
							t.Errorf("got %v, want %v", got, tt.want)
						}
					}
					if n := p.queue.n.Load(); n != 0 || p.inFlight() != 0 {
						t.Errorf("in the end %d wait and %d are in flight", n, p.inFlight())
					}
				})
			})
		}
	}
}

// A connection that waits is let go when the process stops.
func TestDialWaitsNoLongerThanItsContext(t *testing.T) {
	withCare(t, Options{}, route.Care{Hold: time.Hour}, nil, func(t *testing.T, _ *network, _ *Set, p *Pool) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		r := &reply{}
		if _, r.err = p.Dial(ctx, netip.Addr{}); r.reason() != route.BackendTimeout || time.Since(start) != time.Second {
			t.Errorf("got %v after %s", r.err, time.Since(start))
		}
	})
}
