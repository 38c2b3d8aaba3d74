package backend

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/fairlead-io/fairlead/internal/route"
)

// book answers for names in a test, all with what was set last, and notes when it was asked.
type book struct {
	mu    sync.Mutex
	says  *resolution // nil: that there is no such name
	asked map[string][]time.Time
}

func newBook() *book { return &book{asked: map[string][]time.Time{}} }

func (b *book) set(a resolution) { b.mu.Lock(); b.says = &a; b.mu.Unlock() }

func (b *book) ask(_ context.Context, host string) resolution {
	time.Sleep(time.Millisecond)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked[host] = append(b.asked[host], time.Now())
	if b.says != nil {
		return *b.says
	}
	return resolution{err: &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}}
}

// times is how often a name was asked for since the last call.
func (b *book) times(host string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(b.asked[host])
	delete(b.asked, host)
	return n
}

func found(ttl time.Duration, addresses ...string) resolution {
	a := resolution{ttl: ttl}
	for _, text := range addresses {
		a.addresses = append(a.addresses, netip.MustParseAddr(text))
	}
	return a
}

// withNames is inMemory for a pool with one endpoint, the name ext.example.com.
func withNames(t *testing.T, test func(t *testing.T, n *network, b *book, s *Set, p *Pool)) {
	t.Helper()
	inMemory(t, Options{}, nil, func(t *testing.T, n *network, s *Set, p *Pool) {
		b := newBook()
		s.names = newNames(b.ask, s.renew)
		test(t, n, b, s, p)
	})
}

func toName(s *Set) {
	s.Update(map[route.PoolKey][]route.Endpoint{testKey: {{Address: "ext.example.com:80", DNS: true}}})
}

func addressesOf(p *Pool) (out []string) {
	for _, e := range p.list.Load().all {
		out = append(out, e.address)
	}
	slices.Sort(out)
	return out
}

// All addresses of a name get requests, and those that stay in the answer keep what they are.
func TestAddressesOfName(t *testing.T) {
	withNames(t, func(t *testing.T, n *network, b *book, s *Set, p *Pool) {
		for _, a := range []string{"192.0.2.1:80", "192.0.2.2:80", "192.0.2.3:80", "[2001:db8::1]:80", "ext.example.com:80"} {
			n.set(a, patient(200, 0))
		}
		b.set(found(time.Minute, "192.0.2.2", "192.0.2.1", "2001:db8::1", "192.0.2.1"))
		toName(s)
		if got := addressesOf(p); !slices.Equal(got, []string{"ext.example.com:80"}) {
			t.Errorf("before the first answer %v", got)
		}
		if r := do(p, newRequest(t, "GET", "a", "")); r.err != nil || r.Endpoint != "ext.example.com:80" {
			t.Errorf("before the first answer: %+v", r)
		}
		time.Sleep(time.Second)
		want := map[string]int{"192.0.2.1:80 200": 10, "192.0.2.2:80 200": 10, "[2001:db8::1]:80 200": 10}
		if got := load(t, p, 30, Attempt{}); !maps.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		kept := p.endpoints["192.0.2.2:80"]
		if st := statusOf(t, s, "192.0.2.2:80"); st.Name != "ext.example.com" {
			t.Errorf("status = %+v", st)
		}
		b.set(found(time.Minute, "192.0.2.3", "192.0.2.2"))
		time.Sleep(time.Minute)
		if got := addressesOf(p); !slices.Equal(got, []string{"192.0.2.2:80", "192.0.2.3:80"}) || p.endpoints["192.0.2.2:80"] != kept {
			t.Errorf("after a change %v", got)
		}
		toName(s) // as each change of any endpoint does
		if got := addressesOf(p); len(got) != 2 || p.endpoints["192.0.2.2:80"] != kept {
			t.Errorf("after an update %v", got)
		}
		s.Update(map[route.PoolKey][]route.Endpoint{testKey: {{Address: "192.0.2.1:80"}}})
		b.times("ext.example.com")
		time.Sleep(10 * time.Minute)
		if n := b.times("ext.example.com"); n != 0 {
			t.Errorf("a name that nobody has was asked for %d times", n)
		}
	})
}

// What an answer says of its lifetime counts within bounds.
func TestLifetimeOfAnswers(t *testing.T) {
	refused := resolution{err: &net.DNSError{Err: "server misbehaving", IsTemporary: true}}
	gone := resolution{err: &net.DNSError{Err: "no such host", IsNotFound: true}}
	goneFor := func(ttl time.Duration) resolution { a := gone; a.ttl = ttl; return a }
	for _, tt := range []struct {
		name        string
		answer      resolution
		least, most int // questions in ten minutes
	}{
		{"a minute", found(time.Minute, "192.0.2.1"), 10, 12},
		{"a second", found(time.Second, "192.0.2.1"), 120, 134},
		{"a day", found(24*time.Hour, "192.0.2.1"), 2, 3},
		{"nobody says", found(0, "192.0.2.1"), 20, 23},
		{"no such name", gone, 120, 134},
		{"no such name for 20 s", goneFor(20 * time.Second), 30, 34},
		{"no such name for a day", goneFor(24 * time.Hour), 20, 23},
		{"a server that fails", refused, 20, 26},
	} {
		t.Run(tt.name, func(t *testing.T) {
			withNames(t, func(t *testing.T, _ *network, b *book, s *Set, _ *Pool) {
				b.set(tt.answer)
				toName(s)
				time.Sleep(10 * time.Minute)
				if n := b.times("ext.example.com"); n < tt.least || n > tt.most {
					t.Errorf("asked %d times in ten minutes, want %d to %d", n, tt.least, tt.most)
				}
			})
		})
	}
}

// While servers fail the addresses stay; that there is no such name is believed when it was said three times.
func TestStaleAddresses(t *testing.T) {
	withNames(t, func(t *testing.T, _ *network, b *book, s *Set, p *Pool) {
		b.set(found(10*time.Second, "192.0.2.1"))
		toName(s)
		time.Sleep(time.Second)
		b.set(resolution{err: errors.New("the server fails")})
		time.Sleep(time.Hour)
		if got := addressesOf(p); !slices.Equal(got, []string{"192.0.2.1:80"}) {
			t.Errorf("while servers fail %v", got)
		}
		b.set(found(10*time.Second, "192.0.2.2"))
		time.Sleep(time.Minute)
		if got := addressesOf(p); !slices.Equal(got, []string{"192.0.2.2:80"}) {
			t.Errorf("when they are back %v", got)
		}
		b.set(resolution{ttl: 10 * time.Second, err: &net.DNSError{Err: "no such host", IsNotFound: true}})
		time.Sleep(15 * time.Second)
		if got := addressesOf(p); !slices.Equal(got, []string{"192.0.2.2:80"}) {
			t.Errorf("after one or two denials %v", got)
		}
		time.Sleep(25 * time.Second)
		if got := addressesOf(p); !slices.Equal(got, []string{"ext.example.com:80"}) {
			t.Errorf("after three %v", got)
		}
	})
}

// Close does not wait for an answer that does not come.
func TestCloseEndsLookups(t *testing.T) {
	synctest.Test(t, func(*testing.T) {
		s := New(Options{})
		s.names = newNames(func(ctx context.Context, _ string) resolution { <-ctx.Done(); return resolution{err: ctx.Err()} }, s.renew)
		s.Install([]*route.Pool{{Key: testKey}})
		toName(s)
		synctest.Wait()
		s.Close()
		toName(s)
	})
}

// zone is a DNS server for tests that says what it is made to, over UDP and TCP.
type zone struct {
	code        dnsmessage.RCode
	answers     []dnsmessage.Resource
	authorities []dnsmessage.Resource
	truncate    bool // over UDP
}

func (z *zone) reply(query []byte, udp bool) []byte {
	var m dnsmessage.Message
	if m.Unpack(query) != nil || len(m.Questions) != 1 {
		return nil
	}
	m.Response, m.RecursionAvailable, m.Additionals, m.RCode, m.Authorities = true, true, nil, z.code, z.authorities
	if m.Truncated = udp && z.truncate; !m.Truncated {
		for _, a := range z.answers {
			if a.Header.Type == m.Questions[0].Type || a.Header.Type == dnsmessage.TypeCNAME {
				m.Answers = append(m.Answers, a)
			}
		}
	}
	out, _ := m.Pack()
	return out
}

// serve serves the zone and returns a resolver that asks it.
func (z *zone) serve(t *testing.T) *net.Resolver {
	t.Helper()
	var servers sync.WaitGroup
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	servers.Go(func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := udp.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo(z.reply(buf[:n], true), from)
		}
	})
	servers.Go(func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			servers.Go(func() { z.serveStream(c) })
		}
	})
	t.Cleanup(func() { _, _ = tcp.Close(), udp.Close(); servers.Wait() })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		address := udp.LocalAddr().String()
		if strings.HasPrefix(network, "tcp") {
			address = tcp.Addr().String()
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}}
}

func (z *zone) serveStream(c net.Conn) {
	defer c.Close()
	size := make([]byte, 2)
	if _, err := io.ReadFull(c, size); err != nil {
		return
	}
	query := make([]byte, binary.BigEndian.Uint16(size))
	if _, err := io.ReadFull(c, query); err != nil {
		return
	}
	reply := z.reply(query, false)
	_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)) // #nosec G115 -- a small message
}

func TestLookup(t *testing.T) {
	record := func(name string, typ dnsmessage.Type, ttl uint32, body dnsmessage.ResourceBody) dnsmessage.Resource {
		return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name), Type: typ, Class: dnsmessage.ClassINET, TTL: ttl}, Body: body}
	}
	alias := record("ext.example.com.", dnsmessage.TypeCNAME, 40, &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName("www.example.net.")})
	one := record("www.example.net.", dnsmessage.TypeA, 60, &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}})
	two := record("www.example.net.", dnsmessage.TypeA, 300, &dnsmessage.AResource{A: [4]byte{127, 0, 0, 2}})
	soa := func(ttl, least uint32) []dnsmessage.Resource {
		name := dnsmessage.MustNewName("example.com.")
		return []dnsmessage.Resource{record("example.com.", dnsmessage.TypeSOA, ttl, &dnsmessage.SOAResource{NS: name, MBox: name, MinTTL: least})}
	}
	for _, tt := range []struct {
		name   string
		zone   zone
		want   string
		ttl    time.Duration
		denied bool
	}{
		{"the shortest lifetime of an alias and its addresses", zone{answers: []dnsmessage.Resource{alias, one, two}, authorities: soa(3, 3)}, "127.0.0.1 127.0.0.2", 40 * time.Second, false},
		{"an answer that is too long for UDP", zone{answers: []dnsmessage.Resource{alias, one, two}, truncate: true}, "127.0.0.1 127.0.0.2", 40 * time.Second, false},
		{"no such name", zone{code: dnsmessage.RCodeNameError, authorities: soa(900, 20)}, "", 20 * time.Second, true},
		{"a name without addresses", zone{authorities: soa(7, 60)}, "", 7 * time.Second, true},
		{"a server that fails", zone{code: dnsmessage.RCodeServerFailure}, "", 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := lookup(tt.zone.serve(t))(t.Context(), "ext.example.com")
			var got []string
			for _, address := range a.addresses {
				got = append(got, address.String())
			}
			slices.Sort(got)
			if s := strings.Join(got, " "); s != tt.want || a.ttl != tt.ttl || (a.err == nil) != (tt.want != "") || a.denied() != tt.denied {
				t.Errorf("got %q for %s, err %v; want %q for %s", s, a.ttl, a.err, tt.want, tt.ttl)
			}
		})
	}
}
