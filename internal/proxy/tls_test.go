package proxy

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// shake makes a handshake with the port and reads enough to have got the session tickets.
func (f *front) shake(c *tls.Config) (tls.ConnectionState, error) {
	f.t.Helper()
	conn := tls.Client(f.dial(secureBind), c)
	defer conn.Close()
	if err := conn.Handshake(); err != nil {
		return tls.ConnectionState{}, err
	}
	if conn.ConnectionState().NegotiatedProtocol != "h2" {
		send(f.t, conn, "GET / HTTP/1.1\r\n"+hostLine+"\r\n")
		response(f.t, bufio.NewReader(conn))
	}
	return conn.ConnectionState(), nil
}

func TestTLSPosture(t *testing.T) {
	f := newFront(t, Options{}, ok)
	for _, test := range []struct {
		name      string
		configure func(*tls.Config)
		want      string // version and protocol; empty for refused
	}{
		{"newest", func(*tls.Config) {}, "TLS 1.3 "},
		{"h2", func(c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} }, "TLS 1.3 h2"},
		{"h1 only", func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }, "TLS 1.3 http/1.1"},
		{"1.2", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, "TLS 1.2 "},
		{"1.1", func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, ""},
		{"CBC", func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
		}, ""},
		{"no common protocol", func(c *tls.Config) { c.NextProtos = []string{"spdy/3"} }, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := clientTLS("a.test")
			test.configure(c)
			s, err := f.shake(c)
			got := ""
			if err == nil {
				got = tls.VersionName(s.Version) + " " + s.NegotiatedProtocol
			}
			if got != test.want {
				t.Errorf("got %q (%v), want %q", got, err, test.want)
			}
		})
	}
}

func TestServerName(t *testing.T) {
	cert := certificateFor(t, "a.test")
	var mu sync.Mutex
	var asked []string
	f := newFront(t, Options{GetCertificate: func(b route.Bind, h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, b.String()+" "+h.ServerName)
		if err := h.SupportsCertificate(cert); h.ServerName == "a.test" && err != nil {
			t.Errorf("the hello does not support its certificate: %v", err)
		}
		return cert, nil
	}}, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, connFrom(r.Context()).sni()) })
	for _, name := range []string{"a.test", "A.Test", ""} {
		c := tls.Client(f.dial(secureBind), &tls.Config{ServerName: name, InsecureSkipVerify: true})
		send(t, c, "GET / HTTP/1.1\r\n"+hostLine+"\r\n")
		if _, body := response(t, bufio.NewReader(c)); body != strings.ToLower(name) {
			t.Errorf("%q: the handler saw %q", name, body)
		}
	}
	want := fmt.Sprintf("[%[1]s a.test %[1]s a.test %[1]s ]", secureBind)
	if got := fmt.Sprint(asked); got != want {
		t.Errorf("asked for certificates %v, want %v", got, want)
	}
}

// A session is resumed under the name that it was made for, and under no other.
func TestResumption(t *testing.T) {
	f := newFront(t, Options{}, ok)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			cache := &oneSession{}
			shake := func(name string) bool {
				t.Helper()
				c := clientTLS(name)
				c.MaxVersion, c.ClientSessionCache = version, cache
				s, err := f.shake(c)
				if err != nil {
					t.Fatal(err)
				}
				return s.DidResume
			}
			for _, test := range []struct {
				name string
				want bool
			}{{"a.test", false}, {"a.test", true}, {"A.test", true}, {"b.test", false}, {"b.test", true}, {"a.test", false}} {
				if got := shake(test.name); got != test.want {
					t.Errorf("%s: resumed %v, want %v", test.name, got, test.want)
				}
			}
		})
	}
}

// oneSession is a session cache that offers what it has to everybody.
type oneSession struct{ session *tls.ClientSessionState }

func (c *oneSession) Get(string) (*tls.ClientSessionState, bool) { return c.session, c.session != nil }
func (c *oneSession) Put(_ string, s *tls.ClientSessionState)    { c.session = s }

// Ports do not share sessions.
func TestResumptionAcrossPorts(t *testing.T) {
	f := newFront(t, Options{}, ok)
	other := route.Bind{Address: "127.0.0.3"}
	f.install(map[route.Bind]route.Protocol{secureBind: route.HTTPS, other: route.HTTPS})
	c := clientTLS("a.test")
	c.ClientSessionCache = &oneSession{}
	if _, err := f.shake(c); err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(f.dial(other), c)
	if err := conn.Handshake(); err != nil || conn.ConnectionState().DidResume {
		t.Errorf("resumed %v, %v", conn.ConnectionState().DidResume, err)
	}
}

func TestNoCertificate(t *testing.T) {
	f := newFront(t, Options{GetCertificate: func(route.Bind, *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return nil, fmt.Errorf("none")
	}}, ok)
	if _, err := f.shake(clientTLS("a.test")); err == nil {
		t.Error("the handshake succeeded")
	}
	f.hello()
}

// Certificates change without a connection being touched.
func TestCertificateChange(t *testing.T) {
	certs := []*tls.Certificate{certificateFor(t, "one.test"), certificateFor(t, "two.test")}
	current := make(chan *tls.Certificate, 1)
	current <- certs[0]
	f := newFront(t, Options{GetCertificate: func(route.Bind, *tls.ClientHelloInfo) (*tls.Certificate, error) {
		c := <-current
		current <- c
		return c, nil
	}}, ok)
	first := f.dialTLS("http/1.1")
	<-current
	current <- certs[1]
	second := f.dialTLS("http/1.1")
	for i, c := range []*tls.Conn{first, second} {
		send(t, c, "GET / HTTP/1.1\r\n"+hostLine+"\r\n")
		response(t, bufio.NewReader(c))
		want := []string{"one.test", "two.test"}[i]
		if got := c.ConnectionState().PeerCertificates[0].Subject.CommonName; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// The client learns by close_notify that an answer is complete.
func TestTLSCloseNotify(t *testing.T) {
	f := newFront(t, Options{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		_, _ = io.WriteString(w, "ok")
	})
	c := f.dialTLS("http/1.1")
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	send(t, c, "GET / HTTP/1.0\r\n"+hostLine+"\r\n")
	if _, err := io.ReadAll(c); err != nil {
		t.Error(err)
	}
}
