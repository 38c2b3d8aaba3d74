package proxy

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// The binds of the tests. Port 0 is a free one: front.addr knows which.
var (
	plainBind  = route.Bind{Address: "127.0.0.1"}
	secureBind = route.Bind{Address: "127.0.0.2"}
)

// front is a Proxy whose requests are served by a handler of the test.
type front struct {
	*Proxy
	t        *testing.T
	requests atomic.Int64 // that reached the handler
}

// newFront starts a Proxy with one port for each protocol. Every connection is watched for reads and writes without a deadline.
func newFront(t *testing.T, opt Options, serve http.HandlerFunc) *front {
	t.Helper()
	if opt.GetCertificate == nil {
		cert := certificateFor(t, "a.test", "b.test")
		opt.GetCertificate = func(route.Bind, *tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil }
	}
	p, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	f := &front{Proxy: p, t: t}
	p.listen = watchedListen
	p.handler = func(route.Bind) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			f.requests.Add(1)
			serve(w, r)
		})
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	f.install(map[route.Bind]route.Protocol{plainBind: route.HTTP, secureBind: route.HTTPS})
	return f
}

func (f *front) install(ports map[route.Bind]route.Protocol) {
	f.t.Helper()
	if err := f.Install(tableOf(ports)); err != nil {
		f.t.Fatal(err)
	}
}

func tableOf(ports map[route.Bind]route.Protocol) *route.Table {
	var list []*route.Port
	for bind, protocol := range ports {
		list = append(list, &route.Port{Bind: bind, Protocol: protocol})
	}
	return route.NewTable(list, nil, nil)
}

func (f *front) addr(b route.Bind) string {
	f.t.Helper()
	a := f.Addr(b)
	if a == nil {
		f.t.Fatalf("no socket for %s", b)
	}
	return a.String()
}

// dial connects to a port; with TLS it speaks the protocol, which may be empty.
func (f *front) dial(b route.Bind) net.Conn {
	f.t.Helper()
	c, err := net.Dial("tcp", f.addr(b))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

func (f *front) dialTLS(protocols ...string) *tls.Conn {
	f.t.Helper()
	c := tls.Client(f.dial(secureBind), clientTLS("a.test", protocols...))
	if err := c.Handshake(); err != nil {
		f.t.Fatal(err)
	}
	return c
}

func clientTLS(name string, protocols ...string) *tls.Config {
	return &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: protocols}
}

// client is an HTTP client with connections of its own.
func (f *front) client(configure func(*http.Protocols)) *http.Client {
	protocols := new(http.Protocols)
	configure(protocols)
	t := &http.Transport{Protocols: protocols, TLSClientConfig: clientTLS("a.test")}
	f.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, Timeout: 20 * time.Second}
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatalf("send: %v", err)
	}
}

// response reads a response with its body.
func response(t *testing.T, br *bufio.Reader) (*http.Response, string) {
	t.Helper()
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatalf("read response: %v", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("read body: %v", err)
	}
	return res, string(body)
}

// closed checks that the connection was closed by the other side: nothing comes any more.
func closed(t *testing.T, r io.Reader) {
	t.Helper()
	if n, err := io.Copy(io.Discard, r); errors.Is(err, os.ErrDeadlineExceeded) || n > 0 {
		t.Errorf("the connection is open: %d bytes, %v", n, err)
	}
}

func ok(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }

// echo answers with the body of the request, and if it is malformed with 400. (net/http says so in its own words if the fault is in the trailers.)
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusRequestTimeout)
	case err != nil:
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusBadRequest)
	default:
		_, _ = w.Write(body)
	}
}

var makeKey = sync.OnceValues(func() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) })

func certificateFor(t *testing.T, names ...string) *tls.Certificate {
	t.Helper()
	key, err := makeKey()
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// unguarded counts reads and writes on accepted connections that had no deadline.
var unguarded atomic.Int64

func watchedListen(address string) (net.Listener, error) {
	l, err := listen(address)
	if err != nil {
		return nil, err
	}
	return &watchedListener{l.(*net.TCPListener)}, nil
}

type watchedListener struct{ *net.TCPListener }

func (l *watchedListener) Accept() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	return &watchedConn{TCPConn: c}, nil
}

// watchedConn is a connection that knows whether it has deadlines.
type watchedConn struct {
	*net.TCPConn
	read, write atomic.Bool
}

func (c *watchedConn) SetReadDeadline(t time.Time) error {
	c.read.Store(!t.IsZero())
	return c.TCPConn.SetReadDeadline(t)
}

func (c *watchedConn) SetWriteDeadline(t time.Time) error {
	c.write.Store(!t.IsZero())
	return c.TCPConn.SetWriteDeadline(t)
}

func (c *watchedConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *watchedConn) Read(p []byte) (int, error) {
	if !c.read.Load() {
		unguarded.Add(1)
	}
	return c.TCPConn.Read(p)
}

func (c *watchedConn) Write(p []byte) (int, error) {
	if !c.write.Load() {
		unguarded.Add(1)
	}
	return c.TCPConn.Write(p)
}

// ReadFrom and WriteTo would go past Read and Write.
func (c *watchedConn) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{c}, r)
}

func (c *watchedConn) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, struct{ io.Reader }{c}) }
