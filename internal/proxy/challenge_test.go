package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"net/http"
	"testing"

	"github.com/fairlead-io/fairlead/internal/route"
)

// proofs is a Challenger that knows one host.
type proofs struct {
	host string
	cert *tls.Certificate
}

func (p proofs) HTTP(_ context.Context, host, path string) (string, bool) {
	return "token.thumb", host == p.host && path == challengePath+"token"
}

func (p proofs) Certificate(_ context.Context, name string) *tls.Certificate {
	if name == p.host {
		return p.cert
	}
	return nil
}

// A challenge is answered in the place of a redirect, which is what most plain requests get, and nothing else is.
func TestChallengesComeBeforeRoutes(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		redirect := &route.Redirect{Scheme: "https", Status: 308}
		w := one(service("a", route.HTTP), "127.0.0.1:1", redirect)
		r := newRig(t, m, w, func(o *Options) { o.Challenges = proofs{host: "app.test"} })
		for _, test := range []struct {
			method, target string
			status         int
			body, reason   string
		}{
			{"GET", challengePath + "token", 200, "token.thumb", "acme-challenge"},
			{"HEAD", challengePath + "token", 200, "", "acme-challenge"},
			{"GET", challengePath + "other", 308, "", "redirect"},
			{"POST", challengePath + "token", 308, "", "redirect"},
			{"GET", "/", 308, "", "redirect"},
		} {
			got := r.do(r.request(test.method, test.target, nil))
			if got.StatusCode != test.status || got.Header.Get(ReasonHeader) != test.reason || test.body != "" && got.body != test.body {
				t.Errorf("%s %s: got %d %q (%s), want %d %q (%s)", test.method, test.target, got.StatusCode, got.body, got.Header.Get(ReasonHeader), test.status, test.body, test.reason)
			}
		}
		other := r.request("GET", challengePath+"token", nil)
		other.Host = "b.test"
		if got := r.do(other); got.StatusCode != 308 {
			t.Errorf("another host: got %d, want 308", got.StatusCode)
		}
	})
}

// A handshake by acme-tls/1 is made for a name that is to be proved, and ends there; for any other it fails, as for a protocol that is not spoken here.
func TestTLSChallengesAreAnsweredForNamesThatAreToBeProved(t *testing.T) {
	cert := certificateFor(t, "proof.test")
	f := newFront(t, Options{Challenges: proofs{host: "a.test", cert: cert}}, func(http.ResponseWriter, *http.Request) { t.Error("a challenge became a request") })
	for _, test := range []struct {
		name   string
		protos []string
		want   bool
	}{
		{"a.test", []string{challengeProtocol}, true},
		{"A.test", []string{challengeProtocol}, true},
		{"b.test", []string{challengeProtocol}, false},
		{"", []string{challengeProtocol}, false},
	} {
		conn := tls.Client(f.dial(secureBind), &tls.Config{ServerName: test.name, InsecureSkipVerify: true, NextProtos: test.protos})
		err := conn.Handshake()
		if (err == nil) != test.want {
			t.Errorf("%q: got %v, want success %v", test.name, err, test.want)
		}
		if err == nil {
			if got := conn.ConnectionState(); got.NegotiatedProtocol != challengeProtocol || !bytes.Equal(got.PeerCertificates[0].Raw, cert.Certificate[0]) {
				t.Errorf("%q: got protocol %q and the certificate of %v", test.name, got.NegotiatedProtocol, got.PeerCertificates[0].DNSNames)
			}
			if n, err := conn.Read(make([]byte, 1)); err == nil {
				t.Errorf("%q: after the handshake came %d bytes", test.name, n)
			}
		}
		_ = conn.Close()
	}
}

// What offers other protocols beside gets what it would get without challenges: a browser is never shown a proof.
func TestABrowserIsNeverShownAProof(t *testing.T) {
	f := newFront(t, Options{Challenges: proofs{host: "a.test", cert: certificateFor(t, "proof.test")}}, ok)
	c := clientTLS("a.test", challengeProtocol, "http/1.1")
	s, err := f.shake(c)
	if err != nil || s.NegotiatedProtocol != "http/1.1" {
		t.Errorf("got protocol %q, %v", s.NegotiatedProtocol, err)
	}
}

// A listener that ends TLS for TLSRoutes answers challenges whatever its rules are, and if it has none. TLS that is passed through is its backend's to answer.
func TestTLSChallengesAreAnsweredWhereTLSEndsForConnections(t *testing.T) {
	cert := certificateFor(t, "proof.test")
	pool := service("pool", route.HTTP)
	faulty := whole()
	faulty.Fault = &route.Fault{Reason: route.NoBackend, Why: "there is none"}
	listeners := map[string]*route.Listener{
		"no route":          {Name: "infra/gw/a", Hostname: "a.test", Mode: route.Terminate, Port: 443},
		"for another name":  {Name: "infra/gw/a", Hostname: "*.test", Mode: route.Terminate, Port: 443, Hosts: []*route.Host{{Name: "b.test", Rules: []*route.Rule{whole(all(pool))}}}},
		"nobody to take it": at(route.Terminate, "a.test", faulty),
		"a route":           at(route.Terminate, "a.test", whole(all(pool))),
		"for any name":      at(route.Terminate, "", whole(all(pool))),
		"a web site":        {Name: "infra/gw/a", Hostname: "a.test", Port: 443},
	}
	for name, l := range listeners {
		t.Run(name, func(t *testing.T) {
			w := world{listeners: []*route.Listener{l}, endpoints: map[*route.Pool][]string{pool: {parrot(t, "backend")}}}
			r := newConnRig(t, secured, w, func(o *Options) { o.Challenges = proofs{host: "a.test", cert: cert} })
			for _, most := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				c := tls.Client(r.connect(), &tls.Config{ServerName: "a.test", InsecureSkipVerify: true, MaxVersion: most, NextProtos: []string{challengeProtocol}})
				if err := c.Handshake(); err != nil {
					t.Fatal(err)
				}
				if got := c.ConnectionState(); got.NegotiatedProtocol != challengeProtocol || !bytes.Equal(got.PeerCertificates[0].Raw, cert.Certificate[0]) {
					t.Errorf("got protocol %q and the certificate of %v", got.NegotiatedProtocol, got.PeerCertificates[0].DNSNames)
				}
				if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
					t.Errorf("after the handshake came %d bytes, %v", n, err)
				}
			}
			waitUntil(t, "the connections are over", func() bool { return r.p.open() == 0 })
		})
	}
}

// What is no challenge is served or rejected as without challenges: another name, other protocols, and TLS that does not end here.
func TestConnectionsThatAreNoChallenges(t *testing.T) {
	pass := service("pass", route.HTTP)
	w := world{
		listeners: []*route.Listener{
			{Name: "infra/gw/a", Hostname: "*.test", Mode: route.Terminate, Port: 443},
			at(route.Passthrough, "pass.example.com", whole(all(pass))),
		},
		endpoints: map[*route.Pool][]string{pass: {secureParrot(t, "pass")}},
	}
	r := newConnRig(t, secured, w, func(o *Options) { o.Challenges = everyProof{certificateFor(t, "proof.test")} })
	r.expectRejection(helloOf(t, &tls.Config{ServerName: "a.test", NextProtos: []string{challengeProtocol, "h2"}}))
	r.expectRejection(helloOf(t, &tls.Config{ServerName: "a.test"}))
	r.expectRejection(helloOf(t, &tls.Config{ServerName: "unproved.test", NextProtos: []string{challengeProtocol}}))
	r.expectRejection(helloOf(t, &tls.Config{ServerName: "a.example.org", NextProtos: []string{challengeProtocol}}))
	c := tls.Client(r.connect(), &tls.Config{ServerName: "pass.example.com", InsecureSkipVerify: true, NextProtos: []string{challengeProtocol}})
	if got, err := converse(c, "hi"); got != "pass/pass.example.com:hiend" || err != nil {
		t.Errorf("passed through: got %q, %v", got, err)
	}
}

// everyProof is a Challenger that knows all names but one.
type everyProof struct{ cert *tls.Certificate }

func (p everyProof) HTTP(context.Context, string, string) (string, bool) { return "", false }

func (p everyProof) Certificate(_ context.Context, name string) *tls.Certificate {
	if name == "unproved.test" {
		return nil
	}
	return p.cert
}
