package backend

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/internal/leak"
	"github.com/fairlead-io/fairlead/internal/route"
)

// TestMain fails the run if a test leaves a goroutine behind.
func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // net/http reports what backends send unasked
	os.Exit(leak.Run(m))
}

var testKey = route.PoolKey{Namespace: "shop", Service: "web", Port: 80}

// newPoolOf makes a set with one pool of the given endpoints.
func newPoolOf(t testing.TB, opt Options, protocol route.Protocol, addresses ...string) (*Set, *Pool) {
	t.Helper()
	opt.AllowLoopback = true
	s := New(opt)
	t.Cleanup(s.Close)
	s.Install([]*route.Pool{{Key: testKey, Protocol: protocol}})
	setEndpoints(s, addresses...)
	return s, s.Pool(testKey)
}

func setEndpoints(s *Set, addresses ...string) {
	eps := make([]route.Endpoint, len(addresses))
	for i, a := range addresses {
		eps[i] = route.Endpoint{Address: a}
	}
	s.Update(map[route.PoolKey][]route.Endpoint{testKey: eps})
}

// statusOf returns how an endpoint of the only pool is.
func statusOf(t testing.TB, s *Set, address string) EndpointStatus {
	t.Helper()
	for _, p := range s.Status() {
		for _, e := range p.Endpoints {
			if e.Address == address {
				return e
			}
		}
	}
	t.Fatalf("no endpoint %s in %v", address, s.Status())
	return EndpointStatus{}
}

// newRequest makes a request as the proxy would send it.
func newRequest(t testing.TB, method, host, body string) *http.Request {
	t.Helper()
	var r io.Reader
	if body != "" {
		r = io.MultiReader(strings.NewReader(body)) // a reader that net/http knows no way to rewind
	}
	req, err := http.NewRequestWithContext(context.Background(), method, "http://ignored/path?q=1", r)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	if body != "" {
		req.ContentLength = int64(len(body))
	}
	return req
}

// reply is what came of a request.
type reply struct {
	status int
	body   string
	header http.Header
	Attempt
	err error
}

func (r *reply) reason() route.Reason {
	if e := (*Error)(nil); errors.As(r.err, &e) {
		return e.Reason
	}
	return ""
}

// do sends a request and reads the response.
func do(p *Pool, req *http.Request) *reply {
	r := &reply{}
	res, err := p.Do(req, &r.Attempt)
	if err != nil {
		r.err = err
		return r
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	r.status, r.body, r.header, r.err = res.StatusCode, string(b), res.Header, err
	return r
}

// get sends a GET request, which must be answered.
func get(t testing.TB, p *Pool) *reply {
	t.Helper()
	r := do(p, newRequest(t, "GET", "shop.example.com", ""))
	if r.err != nil {
		t.Fatalf("GET: %v", r.err)
	}
	return r
}

// server is a backend on a loopback port.
type server struct {
	*http.Server
	Address string
	ln      net.Listener
	done    chan struct{}
}

// serve starts a backend that speaks a protocol. HTTPS offers HTTP/2 and HTTP/1.1.
func serve(t testing.TB, protocol route.Protocol, h http.Handler, change ...func(*http.Server)) *server {
	t.Helper()
	return serveOn(t, listen(t), protocol, h, change...)
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

func serveOn(t testing.TB, ln net.Listener, protocol route.Protocol, h http.Handler, change ...func(*http.Server)) *server {
	t.Helper()
	s := &server{Server: &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0), Protocols: new(http.Protocols)}, Address: ln.Addr().String(), ln: ln}
	s.Protocols.SetHTTP1(true)
	switch protocol {
	case route.H2C:
		s.Protocols.SetUnencryptedHTTP2(true)
	case route.HTTPS:
		s.Protocols.SetHTTP2(true)
		s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate()}, NextProtos: []string{"h2", "http/1.1"}}
	case route.WSS:
		s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate()}}
	}
	for _, c := range change {
		c(s.Server)
	}
	s.done = make(chan struct{})
	secure := s.TLSConfig != nil
	go func() {
		defer close(s.done)
		if secure {
			_ = s.ServeTLS(ln, "", "")
		} else {
			_ = s.Serve(ln)
		}
	}()
	t.Cleanup(s.stop)
	return s
}

// stop closes the server and all its connections.
func (s *server) stop() {
	_ = s.Close()
	<-s.done
}

var certificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"pod.local"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

// echo answers with what it was asked, and with the server's name.
func echo(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		sni := ""
		if r.TLS != nil {
			sni = r.TLS.ServerName
		}
		w.Header().Set("Name", name)
		fmt.Fprintf(w, "%s %s %s sni=%s body=%d %s", r.Proto, r.Method, r.Host, sni, len(body), body[:min(len(body), 20)])
	})
}

// refused returns an address at which nothing listens.
func refused(t testing.TB) (address string) {
	t.Helper()
	ln := listen(t)
	_ = ln.Close()
	return ln.Addr().String()
}

// raw starts a backend that handles connections, rather than requests. Connections are closed when handle returns, and at the end of the test.
func raw(t testing.TB, handle func(c net.Conn)) (address string) {
	t.Helper()
	ln := listen(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	conns := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[c] = true
			mu.Unlock()
			wg.Go(func() {
				defer func() { mu.Lock(); delete(conns, c); mu.Unlock(); _ = c.Close() }()
				handle(c)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return ln.Addr().String()
}

// readHead reads from a connection up to the empty line, and says whether it came.
func readHead(c net.Conn) bool {
	var head []byte
	b := make([]byte, 4096)
	for !bytes.Contains(head, []byte("\r\n\r\n")) {
		n, err := c.Read(b)
		head = append(head, b[:n]...)
		if err != nil {
			return false
		}
	}
	return true
}

// eventually waits until something becomes true that other goroutines are about to do.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("not within 5 s: %s", what)
		}
	}
}
