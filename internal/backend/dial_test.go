package backend

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/fairlead-io/fairlead/internal/route"
)

func TestWhichAddressesAreRefused(t *testing.T) {
	tests := []struct {
		address string
		want    string // with loopback allowed; "loopback" means allowed there
	}{
		{"10.0.0.1", ""},
		{"192.168.1.1", ""},
		{"8.8.8.8", ""},
		{"2001:db8::1", ""},
		{"fd00::1", ""},
		{"100.100.100.201", ""},
		{"64:ff9b::a00:1", ""}, // 10.0.0.1
		{"127.0.0.1", "loopback"},
		{"127.8.9.10", "loopback"},
		{"::1", "loopback"},
		{"::ffff:127.0.0.1", "loopback"},
		{"64:ff9b::7f00:1", "loopback"},
		{"169.254.1.1", "link-local"},
		{"fe80::1", "link-local"},
		{"fe80::1%eth0", "link-local"},
		{"::ffff:169.254.1.1", "link-local"},
		{"169.254.169.254", "a cloud's metadata service"},
		{"::ffff:169.254.169.254", "a cloud's metadata service"},
		{"64:ff9b::a9fe:a9fe", "a cloud's metadata service"},
		{"fd00:ec2::254", "a cloud's metadata service"},
		{"100.100.100.200", "a cloud's metadata service"},
		{"0.0.0.0", "unspecified"},
		{"0.1.2.3", "unspecified"},
		{"::", "unspecified"},
		{"::ffff:0.0.0.0", "unspecified"},
		{"224.0.0.1", "a multicast address"},
		{"ff02::1", "a multicast address"},
	}
	for _, tt := range tests {
		a := netip.MustParseAddr(tt.address)
		want := tt.want
		if want != "" {
			want = fmt.Sprintf("address %s is not allowed: it is %s", a, want)
		}
		if got := text(refuse(a, false)); got != want {
			t.Errorf("%s: %q, want %q", a, got, want)
		}
		if tt.want == "loopback" {
			want = ""
		}
		if got := text(refuse(a, true)); got != want {
			t.Errorf("%s with loopback allowed: %q, want %q", a, got, want)
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestLoopbackEndpointIsRefusedInCluster(t *testing.T) {
	b := serve(t, route.HTTP, echo("a"))
	s := New(Options{})
	defer s.Close()
	s.Install([]*route.Pool{{Key: testKey, Protocol: route.HTTP}})
	for _, address := range []string{b.Address, strings.Replace(b.Address, "127.0.0.1", "[::ffff:127.0.0.1]", 1), strings.Replace(b.Address, "127.0.0.1", "localhost", 1)} {
		setEndpoints(s, address)
		r := do(s.Pool(testKey), newRequest(t, "GET", "a", ""))
		if r.reason() != route.BackendConnectFailed || !strings.Contains(r.err.Error(), "is not allowed: it is loopback") && !strings.Contains(r.err.Error(), "is not an address and port") {
			t.Errorf("%s: %v", address, r.err)
		}
	}
}

func TestOwnAddressesAreRefused(t *testing.T) {
	b := serve(t, route.HTTP, echo("a"))
	ap := netip.MustParseAddrPort(b.Address)
	tests := []struct {
		own  netip.AddrPort
		want bool
	}{
		{ap, true},
		{netip.AddrPortFrom(netip.AddrFrom16(ap.Addr().As16()), ap.Port()), true},
		{netip.AddrPortFrom(netip.IPv4Unspecified(), ap.Port()), true},
		{netip.AddrPortFrom(netip.IPv6Unspecified(), ap.Port()), true},
		{netip.AddrPortFrom(netip.Addr{}, ap.Port()), true},
		{netip.AddrPortFrom(ap.Addr(), ap.Port()+1), false},
		{netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), ap.Port()), false},
	}
	for _, tt := range tests {
		_, p := newPoolOf(t, Options{OwnAddresses: func() []netip.AddrPort { return []netip.AddrPort{tt.own} }}, route.HTTP, b.Address)
		r := do(p, newRequest(t, "GET", "a", ""))
		if refused := r.err != nil && strings.Contains(r.err.Error(), "an address of Fairlead itself"); refused != tt.want {
			t.Errorf("own address %s: %v", tt.own, r.err)
		}
	}
}

func TestOutsideIsNotInside(t *testing.T) {
	b := serve(t, route.HTTP, echo("a"))
	s := New(Options{AllowLoopback: true, OwnAddresses: func() []netip.AddrPort { return []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:80")} }})
	defer s.Close()
	_, port, _ := net.SplitHostPort(b.Address)
	for address, want := range map[string]string{
		b.Address: "loopback", "localhost:" + port: "loopback", "[::ffff:127.0.0.1]:" + port: "loopback", "169.254.169.254:80": "a cloud's metadata service",
		"[fd00:ec2::254]:80": "a cloud's metadata service", "169.254.0.1:80": "link-local", "0.0.0.0:80": "unspecified", "224.0.0.1:80": "a multicast address",
		"192.0.2.1:80": "an address of Fairlead itself",
	} {
		if c, err := s.DialOutside(t.Context(), "tcp", address); err == nil || !strings.HasSuffix(err.Error(), "is not allowed: it is "+want) {
			t.Errorf("%s: got %v, %v; want that it is %s", address, c, err, want)
		}
	}
}

func TestAddressOfThisMachine(t *testing.T) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		ip, _ := netip.AddrFromSlice(a.(*net.IPNet).IP)
		if !isOfThisMachine(ip.Unmap()) {
			t.Errorf("%s is not", ip)
		}
	}
	if isOfThisMachine(netip.MustParseAddr("192.0.2.1")) {
		t.Error("192.0.2.1 is")
	}
}

// nameServer is a DNS server for tests, which answers with what is set.
type nameServer struct {
	mu      sync.Mutex
	answers []netip.Addr
	asked   []string
}

func (n *nameServer) set(addrs ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answers = nil
	for _, a := range addrs {
		n.answers = append(n.answers, netip.MustParseAddr(a))
	}
}

func (n *nameServer) answer(query []byte) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	n.asked = append(n.asked, q.Name.String())
	m.Response, m.Additionals = true, nil
	for _, a := range n.answers {
		h := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1}
		switch {
		case q.Type == dnsmessage.TypeA && a.Is4():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a.As4()}})
		case q.Type == dnsmessage.TypeAAAA && a.Is6():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	if len(n.answers) == 0 {
		m.RCode = dnsmessage.RCodeNameError
	}
	out, err := m.Pack()
	if err != nil {
		return nil
	}
	return out
}

// resolver starts a name server and returns a resolver that asks it.
func (n *nameServer) resolver(t *testing.T) *net.Resolver {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			k, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(n.answer(buf[:k]), from)
		}
	}()
	t.Cleanup(func() { _ = pc.Close(); <-done })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
}

// dryDialer returns a dialer that goes as far as asking whether an address is allowed, and the addresses that were.
func dryDialer(opt Options) (d *dialer, allowed func() []string) {
	d = newDialer(opt.withDefaults())
	var mu sync.Mutex
	var got []string
	for _, nd := range []*net.Dialer{&d.named, &d.numeric} {
		control := nd.ControlContext
		nd.ControlContext = func(ctx context.Context, network, address string, c syscall.RawConn) error {
			if err := control(ctx, network, address, c); err != nil {
				return err
			}
			mu.Lock()
			got = append(got, address)
			mu.Unlock()
			return errDry
		}
	}
	return d, func() []string {
		mu.Lock()
		defer mu.Unlock()
		defer func() { got = nil }()
		slices.Sort(got)
		return got
	}
}

var errDry = errors.New("allowed, but this is a test")

func TestNamesAreResolvedAndCheckedForEachConnection(t *testing.T) {
	ns := &nameServer{}
	d, allowed := dryDialer(Options{Resolver: ns.resolver(t), AllowLoopback: true})
	dial := func() error {
		c, err := d.dial(t.Context(), route.Endpoint{Address: "shop.example.com:80", DNS: true})
		if c != nil {
			_ = c.Close()
		}
		return err
	}
	tests := []struct {
		name    string
		answers []string
		allowed []string
		err     string
	}{
		{"a good name", []string{"192.0.2.1"}, []string{"192.0.2.1:80"}, "this is a test"},
		{"it turns into loopback", []string{"127.0.0.1"}, nil, "address 127.0.0.1 is not allowed: it is loopback"},
		{"and into the metadata service", []string{"169.254.169.254"}, nil, "a cloud's metadata service"},
		{"IPv6 loopback", []string{"::1"}, nil, "address ::1 is not allowed: it is loopback"},
		{"IPv4 in IPv6", []string{"::ffff:127.0.0.1"}, nil, "not allowed"},
		{"all interfaces", []string{"0.0.0.0"}, nil, "unspecified"},
		{"one good among bad", []string{"127.0.0.1", "192.0.2.7", "169.254.169.254"}, []string{"192.0.2.7:80"}, ""},
		{"gone", nil, nil, "no such host"},
		{"back", []string{"192.0.2.1", "2001:db8::1"}, []string{"192.0.2.1:80", "[2001:db8::1]:80"}, "this is a test"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ns.set(tt.answers...)
			err := dial()
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("err = %v, want %q in it", err, tt.err)
			}
			if got := allowed(); !slices.Equal(got, tt.allowed) {
				t.Errorf("connects to %v, want %v", got, tt.allowed)
			}
		})
	}
	ns.mu.Lock()
	defer ns.mu.Unlock()
	for _, name := range ns.asked {
		if name != "shop.example.com." {
			t.Errorf("asked for %q: the name must be taken as absolute", name)
		}
	}
}

// A literal address in place of a name is checked as the answer to a name would be.
func TestAddressInPlaceOfName(t *testing.T) {
	d, allowed := dryDialer(Options{AllowLoopback: true})
	for _, address := range []string{"127.0.0.1:80", "[::1]:80", "169.254.169.254:80", "nonsense"} {
		if _, err := d.dial(t.Context(), route.Endpoint{Address: address, DNS: true}); err == nil || errors.Is(err, errDry) {
			t.Errorf("%s: %v", address, err)
		}
	}
	if got := allowed(); got != nil {
		t.Errorf("connects to %v", got)
	}
}

func TestRequestToName(t *testing.T) {
	b := serve(t, route.HTTP, echo("a"))
	_, port, _ := net.SplitHostPort(b.Address)
	ns := &nameServer{}
	ns.set("127.0.0.1")
	s := New(Options{Resolver: ns.resolver(t)})
	defer s.Close()
	s.Install([]*route.Pool{{Key: testKey, Protocol: route.HTTP}})
	s.Update(map[route.PoolKey][]route.Endpoint{testKey: {{Address: "shop.example.com:" + port, DNS: true}}})
	p := s.Pool(testKey)
	// Whether it is resolved for this one connection or for the pool, which is done meanwhile: the address is checked.
	for address := "shop.example.com:" + port; ; {
		r := do(p, newRequest(t, "GET", "a", ""))
		if r.reason() != route.BackendConnectFailed || !strings.Contains(r.err.Error(), ": address 127.0.0.1 is not allowed: it is loopback") {
			t.Errorf("%s: err = %v", address, r.err)
		}
		if address == "127.0.0.1:"+port {
			break
		}
		address = addressesOf(p)[0]
	}
	// The same with the check out of the way, for there is nothing but loopback to connect to in a test.
	d := newDialer(s.opt)
	d.named.ControlContext = nil
	s.dial = d.dial
	if r := do(p, newRequest(t, "GET", "a", "")); r.err != nil || r.Endpoint != "127.0.0.1:"+port {
		t.Errorf("%+v", r)
	}
}

func TestDialIsBounded(t *testing.T) {
	d := newDialer(Options{DialTimeout: 20 * time.Millisecond, Resolver: &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}}.withDefaults())
	start := time.Now()
	_, err := d.dial(t.Context(), route.Endpoint{Address: "slow.example.com:80", DNS: true})
	if took := time.Since(start); err == nil || took > time.Second {
		t.Errorf("err = %v after %v", err, took)
	}
}

// A backend that accepts connections and never answers the TLS handshake could not be connected to.
func TestHandshakeIsBounded(t *testing.T) {
	silent := raw(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1))
		_, _ = c.Read(make([]byte, 1<<20))
		_, _ = c.Read(make([]byte, 1))
	})
	b := serve(t, route.HTTPS, echo("a"))
	s, p := newPoolOf(t, Options{TLSTimeout: 20 * time.Millisecond}, route.HTTPS, silent)
	r := do(p, newRequest(t, "POST", "a", "hello"))
	if r.reason() != route.BackendConnectFailed || !strings.Contains(r.err.Error(), "tls handshake: not finished in time") {
		t.Errorf("err = %v", r.err)
	}
	if st := statusOf(t, s, silent); st.Healthy || st.Connections != 0 {
		t.Errorf("%+v", st)
	}
	plain := serve(t, route.HTTP, echo("b"))
	s.opt.TLSTimeout = 5 * time.Second
	setEndpoints(s, silent, plain.Address, b.Address)
	for range 3 {
		if r := do(p, newRequest(t, "POST", "a", "hello")); r.err != nil || r.Endpoint != b.Address {
			t.Errorf("%v %+v", r.err, r.Attempt)
		}
	}
	if st := statusOf(t, s, plain.Address); st.Healthy || !strings.Contains(st.LastError, "tls handshake: ") {
		t.Errorf("%+v", st)
	}
}
