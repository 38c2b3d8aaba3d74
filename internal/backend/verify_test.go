package backend

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// authority issues certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	pair := a.issue(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	cert, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	a.cert, a.key = cert, pair.PrivateKey.(*ecdsa.PrivateKey)
	return a
}

func (a *authority) issue(template *x509.Certificate) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := template, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) pem() []byte { return pemOf("CERTIFICATE", a.cert.Raw) }

func pemOf(typ string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der})
}

func (a *authority) pair(template *x509.Certificate) *route.KeyPair {
	a.t.Helper()
	c := a.issue(template)
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		a.t.Fatal(err)
	}
	return &route.KeyPair{Namespace: "infra", Name: "client", Chain: pemOf("CERTIFICATE", c.Certificate[0]), Key: pemOf("PRIVATE KEY", key)}
}

func spiffe(t *testing.T, text string) *url.URL {
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// ask sends a request and returns the body of the response, which says which SNI the backend saw and who the client said to be.
func ask(t *testing.T, p *Pool) (string, error) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://client.example.com/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := p.Do(req, &Attempt{})
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	return string(body), err
}

func TestEndpointsAreVerified(t *testing.T) {
	ours, foreign := newAuthority(t), newAuthority(t)
	leaf := ours.issue(&x509.Certificate{
		DNSNames: []string{"a.example.com", "*.pods.example.com"}, URIs: []*url.URL{spiffe(t, "spiffe://example.com/web")},
	})
	for _, protocol := range []route.Protocol{route.HTTPS, route.WSS} {
		b := serve(t, protocol, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.TLS.ServerName+" "+r.Host) }),
			func(s *http.Server) { s.TLSConfig.Certificates = []tls.Certificate{leaf} })
		for _, tt := range []struct {
			name string
			tls  route.PoolTLS
			why  string // in the error; "" if there is none
		}{
			{"name", route.PoolTLS{ServerName: "a.example.com"}, ""},
			{"name below a wildcard of the certificate", route.PoolTLS{ServerName: "x.pods.example.com"}, ""},
			{"another name", route.PoolTLS{ServerName: "b.example.com"}, "certificate is valid for"},
			{"another authority", route.PoolTLS{ServerName: "a.example.com", Authorities: foreign.pem()}, "unknown authority"},
			{"no such authority among those of the system", route.PoolTLS{ServerName: "a.example.com", From: []string{"system"}}, "unknown authority"},
			{"one authority of two", route.PoolTLS{ServerName: "a.example.com", Authorities: append(foreign.pem(), ours.pem()...)}, ""},
			{"alternative name in place of the server name", route.PoolTLS{ServerName: "sni.example.org", Names: []string{"a.example.com"}}, ""},
			{"the server name does not count beside alternative names", route.PoolTLS{ServerName: "a.example.com", Names: []string{"b.example.com"}}, "none of the names"},
			{"wildcard", route.PoolTLS{ServerName: "sni.example.org", Names: []string{"*.example.com"}}, ""},
			{"another wildcard", route.PoolTLS{ServerName: "a.example.com", Names: []string{"*.example.org"}}, "none of the names"},
			{"URI", route.PoolTLS{ServerName: "sni.example.org", URIs: []string{"spiffe://example.com/web"}}, ""},
			{"another URI", route.PoolTLS{ServerName: "a.example.com", URIs: []string{"spiffe://example.com/we"}}, "none of the names"},
			{"one of several", route.PoolTLS{ServerName: "sni.example.org", Names: []string{"b.example.com"}, URIs: []string{"spiffe://example.com/web"}}, ""},
			{"URI of another authority", route.PoolTLS{ServerName: "sni.example.org", URIs: []string{"spiffe://example.com/web"}, Authorities: foreign.pem()}, "unknown authority"},
			{"authorities that cannot be read", route.PoolTLS{ServerName: "a.example.com", Authorities: []byte("-")}, "cannot be verified"},
			{"a demand that cannot be met", route.PoolTLS{ServerName: "a.example.com", Broken: "there is no ConfigMap shop/ca"}, "there is no ConfigMap shop/ca"},
			{"a client certificate that is none", route.PoolTLS{ServerName: "a.example.com", Client: &route.KeyPair{Name: "x"}}, "cannot be used"},
		} {
			if tt.tls.Authorities == nil && tt.tls.From == nil {
				tt.tls.Authorities = ours.pem()
			}
			t.Run(string(protocol)+"/"+tt.name, func(t *testing.T) {
				s, p := newPoolOf(t, Options{}, protocol, b.Address)
				s.Install([]*route.Pool{{Key: testKey, Protocol: protocol, TLS: &tt.tls}})
				for range 2 { // the second time a session may be resumed
					got, err := ask(t, p)
					switch {
					case tt.why == "":
						if want := tt.tls.ServerName + " client.example.com"; err != nil || got != want {
							t.Errorf("got %q, %v; want %q", got, err, want)
						}
					case err == nil || !strings.Contains(err.Error(), tt.why):
						t.Errorf("got %q, %v; want an error with %q", got, err, tt.why)
					default:
						var e *Error
						if !errors.As(err, &e) || e.Reason != route.BackendConnectFailed {
							t.Errorf("the reason of %v is not that no connection could be made", err)
						}
					}
					s.Install([]*route.Pool{{Key: testKey, Protocol: protocol, TLS: &tt.tls}})
				}
			})
		}
	}
}

// Connections that were made before a demand was made are not used after it, nor is one endpoint of the pool forgotten.
func TestADemandHoldsAtOnce(t *testing.T) {
	ours := newAuthority(t)
	var conns atomic.Int32
	leaf := ours.issue(&x509.Certificate{DNSNames: []string{"a.example.com"}})
	b := serve(t, route.HTTPS, echo("a"), func(s *http.Server) {
		s.TLSConfig.Certificates = []tls.Certificate{leaf}
		s.TLSConfig.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { conns.Add(1); return nil, nil }
	})
	plain := &route.Pool{Key: testKey, Protocol: route.HTTPS}
	strict := &route.Pool{Key: testKey, Protocol: route.HTTPS, TLS: &route.PoolTLS{ServerName: "a.example.com", Authorities: ours.pem()}}
	same := &route.Pool{Key: testKey, Protocol: route.HTTPS, TLS: &route.PoolTLS{ServerName: "a.example.com", Authorities: bytes.Clone(ours.pem())}}
	broken := &route.Pool{Key: testKey, Protocol: route.HTTPS, TLS: &route.PoolTLS{ServerName: "a.example.com", Broken: "no authority"}}
	s, p := newPoolOf(t, Options{IdleTimeout: time.Hour}, route.HTTPS, b.Address)
	for i, step := range []struct {
		install []*route.Pool
		conns   int32
		ok      bool
	}{
		{[]*route.Pool{plain}, 1, true},
		{[]*route.Pool{plain}, 1, true},
		{[]*route.Pool{strict, plain}, 2, true}, // the second is of the table before
		{[]*route.Pool{same}, 2, true},
		{[]*route.Pool{broken, same}, 2, false},
		{[]*route.Pool{strict}, 3, true},
	} {
		s.Install(step.install)
		_, err := ask(t, p)
		if (err == nil) != step.ok || conns.Load() != step.conns {
			t.Errorf("step %d: %v, %d connections; want %d", i, err, conns.Load(), step.conns)
		}
	}
}

func TestClientCertificate(t *testing.T) {
	ours := newAuthority(t)
	pool := x509.NewCertPool()
	pool.AddCert(ours.cert)
	leaf := ours.issue(&x509.Certificate{DNSNames: []string{"a.example.com"}})
	b := serve(t, route.HTTPS, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, strings.Join(r.TLS.PeerCertificates[0].DNSNames, ","))
	}), func(s *http.Server) {
		s.TLSConfig.Certificates, s.TLSConfig.ClientCAs, s.TLSConfig.ClientAuth = []tls.Certificate{leaf}, pool, tls.RequireAndVerifyClientCert
	})
	client := ours.pair(&x509.Certificate{DNSNames: []string{"gateway"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	s, p := newPoolOf(t, Options{}, route.HTTPS, b.Address)
	with := &route.PoolTLS{ServerName: "a.example.com", Authorities: ours.pem(), Client: client}
	s.Install([]*route.Pool{{Key: testKey, Protocol: route.HTTPS, TLS: with}})
	if got, err := ask(t, p); got != "gateway" {
		t.Errorf("the client is %q, %v", got, err)
	}
	without := *with
	without.Client = nil
	s.Install([]*route.Pool{{Key: testKey, Protocol: route.HTTPS, TLS: &without}})
	if got, err := ask(t, p); err == nil {
		t.Errorf("a client without a certificate is %q", got)
	}
}

// Connections that are passed on as a whole are made with the same proof, unless the two ends speak TLS with each other.
func TestDialedEndpointsAreVerified(t *testing.T) {
	ours := newAuthority(t)
	leaf := ours.issue(&x509.Certificate{DNSNames: []string{"a.example.com"}})
	ln := listen(t)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer func() { _ = ln.Close() }()
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = c.Close() }()
				s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{leaf}})
				if s.Handshake() == nil {
					_, _ = io.WriteString(s, "sni="+s.ConnectionState().ServerName)
					_ = s.Close()
				}
			})
		}
	})
	s, p := newPoolOf(t, Options{}, route.HTTPS, ln.Addr().String())
	demand := func(name, broken string) {
		s.Install([]*route.Pool{{Key: testKey, Protocol: route.HTTPS, TLS: &route.PoolTLS{ServerName: name, Authorities: ours.pem(), Broken: broken}}})
	}
	demand("a.example.com", "")
	c, err := p.Dial(t.Context(), netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(c)
	if string(said) != "sni=a.example.com" {
		t.Errorf("the endpoint said %q, %v", said, err)
	}
	_ = c.Close()
	for _, broken := range []string{"", "no authority"} {
		demand("b.example.com", broken)
		if c, err := p.Dial(t.Context(), netip.Addr{}); err == nil {
			t.Errorf("connected to an endpoint that has not proved to be another")
			_ = c.Close()
		}
		raw, err := p.DialAsIs(t.Context(), netip.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := raw.Conn.(*tls.Conn); ok {
			t.Error("TLS was begun between two ends that speak it with each other")
		}
		_ = raw.Close()
	}
}
