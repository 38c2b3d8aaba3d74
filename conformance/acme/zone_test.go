package acme

import (
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// zone is the DNS of example.com: every name of it has the address 127.0.0.1, and TXT records come and go by signed updates (RFC 2136).
type zone struct {
	mu      sync.Mutex
	txt     map[string][]string
	updates int
}

// serveZone serves the zone in the place of the authority's own DNS.
func serveZone(t *testing.T, a *authority) *zone {
	t.Helper()
	z := &zone{txt: map[string][]string{}}
	keys := map[string]string{"fairlead.": "c2VjcmV0"}
	accept := func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }
	ln, err := net.Listen("tcp", a.address(a.dns))
	if err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp", a.address(a.dns))
	if err != nil {
		t.Fatal(err)
	}
	for _, srv := range []*dns.Server{{Listener: ln}, {PacketConn: pc}} {
		srv.Handler, srv.TsigSecret, srv.MsgAcceptFunc = z, keys, accept
		go func() { _ = srv.ActivateAndServe() }()
		t.Cleanup(func() { _ = srv.Shutdown() })
	}
	return z
}

func (z *zone) ServeDNS(w dns.ResponseWriter, m *dns.Msg) {
	answer := new(dns.Msg)
	answer.SetReply(m)
	answer.Authoritative = true
	z.mu.Lock()
	defer z.mu.Unlock()
	if m.Opcode == dns.OpcodeUpdate {
		z.update(w, m, answer)
	} else {
		z.answer(m, answer)
	}
	_ = w.WriteMsg(answer)
}

func (z *zone) update(w dns.ResponseWriter, m, answer *dns.Msg) {
	tsig := m.IsTsig()
	if tsig == nil || w.TsigStatus() != nil {
		answer.Rcode = dns.RcodeNotAuth
		return
	}
	z.updates++
	for _, rr := range m.Ns {
		name, value := strings.ToLower(rr.Header().Name), rr.(*dns.TXT).Txt[0]
		if rr.Header().Class == dns.ClassNONE {
			z.txt[name] = slices.DeleteFunc(z.txt[name], func(s string) bool { return s == value })
		} else {
			z.txt[name] = append(z.txt[name], value)
		}
	}
	answer.SetTsig(tsig.Hdr.Name, tsig.Algorithm, 300, time.Now().Unix())
}

func (z *zone) answer(m, answer *dns.Msg) {
	q := m.Question[0]
	name := strings.ToLower(q.Name)
	head := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: 1}
	soa := &dns.SOA{Hdr: dns.RR_Header{Name: "example.com.", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 1}, Ns: "ns.example.com.", Mbox: "ops.example.com.", Serial: 1, Minttl: 1}
	switch {
	case !dns.IsSubDomain("example.com.", name):
		answer.Rcode = dns.RcodeNameError
	case q.Qtype == dns.TypeA:
		answer.Answer = append(answer.Answer, &dns.A{Hdr: head, A: net.IPv4(127, 0, 0, 1)})
	case q.Qtype == dns.TypeSOA && name == "example.com.":
		answer.Answer = append(answer.Answer, soa)
	case q.Qtype == dns.TypeNS && name == "example.com.":
		answer.Answer = append(answer.Answer, &dns.NS{Hdr: head, Ns: "ns.example.com."})
	case q.Qtype == dns.TypeTXT && len(z.txt[name]) > 0:
		for _, v := range z.txt[name] {
			answer.Answer = append(answer.Answer, &dns.TXT{Hdr: head, Txt: []string{v}})
		}
	default:
		answer.Ns = append(answer.Ns, soa)
	}
}
