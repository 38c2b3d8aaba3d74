package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var soakRequests = flag.Int64("soak.requests", 20_000, "how many requests TestSoak sends")

// TestSoak sends requests at full speed from several connections while a writer changes endpoints, Services and routes ten times a second. No change takes the
// address away that is asked for, so no request may fail. Endpoints that leave are really stopped half a second later.
func TestSoak(t *testing.T) {
	s := startSoak(t)
	begun := time.Now()
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() { s.write(t, done) })
	var load sync.WaitGroup
	for i := range 6 {
		load.Go(func() { s.load(i, s.http1()) })
	}
	for i := range 2 {
		load.Go(func() { s.load(6+i, s.http2()) })
	}
	load.Wait()
	close(done)
	wg.Wait()
	took := time.Since(begun)
	t.Logf("%d requests in %.1f s (%.0f/s), %d changes, %d failed", s.sent.Load(), took.Seconds(), float64(s.sent.Load())/took.Seconds(), s.changes, s.failed.Load())
	if n := s.failed.Load(); n > 0 {
		t.Errorf("%d of %d requests failed; the first: %s", n, s.sent.Load(), *s.first.Load())
	}
	if s.changes < int(took.Seconds()*5) {
		t.Errorf("the writer made only %d changes in %v", s.changes, took)
	}
}

// soak is the folder that changes and the load on it.
type soak struct {
	dir, address string
	live         []*soakBackend
	changes      int

	sent, failed atomic.Int64
	first        atomic.Pointer[string]
}

// soakBackend is an endpoint: an HTTP server that can be stopped for good.
type soakBackend struct {
	addr string
	srv  *http.Server
}

func newSoakBackend(t *testing.T) *soakBackend {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &soakBackend{addr: ln.Addr().String(), srv: &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "hello\n")
	})}}
	go func() { _ = b.srv.Serve(ln) }()
	t.Cleanup(func() { _ = b.srv.Close() })
	return b
}

func startSoak(t *testing.T) *soak {
	t.Helper()
	s := &soak{dir: t.TempDir()}
	for range 3 {
		s.live = append(s.live, newSoakBackend(t))
	}
	s.file(t, "services.yaml", soakServices)
	s.file(t, "routes.yaml", fmt.Sprintf(soakRoutes, 0))
	s.endpoints(t)
	s.address = serveFolder(t, s.dir).http
	return s
}

const soakServices = `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: soak}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: soak}
spec: {gatewayClassName: fairlead, listeners: [{name: http, protocol: HTTP, port: 80}]}
`

const soakRoutes = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: soak}
spec:
  parentRefs: [{name: gw}]
  hostnames: [soak.example.com]
  rules:
    - backendRefs: [{name: web, port: 80}]
      filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-Generation, value: "%d"}]}}]
`

const soakNoise = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: noise, namespace: soak}
spec:
  parentRefs: [{name: gw}]
  hostnames: [noise.example.com]
  rules: [{matches: [{path: {value: /%d}}], backendRefs: [{name: web, port: 80}]}]
---
apiVersion: v1
kind: Service
metadata: {name: noise-%d, namespace: soak}
spec: {ports: [{port: 80}]}
`

// file replaces a file as editors do, by renaming.
func (s *soak) file(t *testing.T, name, text string) {
	tmp := filepath.Join(s.dir, "."+name)
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		t.Error(err)
	}
	if err := os.Rename(tmp, filepath.Join(s.dir, name)); err != nil {
		t.Error(err)
	}
}

func (s *soak) endpoints(t *testing.T) {
	var text strings.Builder
	for i, b := range s.live {
		host, port, _ := net.SplitHostPort(b.addr)
		fmt.Fprintf(&text, "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web-%d, namespace: soak, labels: {kubernetes.io/service-name: web}}\n"+
			"addressType: IPv4\nports: [{name: http, port: %s}]\nendpoints: [{addresses: [%s]}]\n", i, port, host)
	}
	s.file(t, "slices.yaml", text.String())
}

// write changes something ten times a second until done is closed.
func (s *soak) write(t *testing.T, done <-chan struct{}) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var leaving sync.WaitGroup
	defer leaving.Wait()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		s.changes++
		switch s.changes % 4 {
		case 0, 2: // a rolling update: one endpoint comes, the oldest leaves
			old := s.live[0]
			s.live = append(s.live[1:len(s.live):len(s.live)], newSoakBackend(t))
			s.endpoints(t)
			leaving.Go(func() { time.Sleep(500 * time.Millisecond); _ = old.srv.Shutdown(context.Background()) })
		case 1: // the route that is asked for changes
			s.file(t, "routes.yaml", fmt.Sprintf(soakRoutes, s.changes))
		case 3: // other objects come and go
			n := rand.IntN(10)
			s.file(t, "noise.yaml", fmt.Sprintf(soakNoise, n, n))
		}
	}
}

// fail counts a failed request and keeps the first for the report.
func (s *soak) fail(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.first.CompareAndSwap(nil, &text)
	s.failed.Add(1)
}

// load sends requests one after another until all are sent; every tenth is a POST.
func (s *soak) load(worker int, do func(method string) error) {
	for {
		n := s.sent.Add(1)
		if n > *soakRequests {
			s.sent.Add(-1)
			return
		}
		method := http.MethodGet
		if n%10 == 0 {
			method = http.MethodPost
		}
		if err := do(method); err != nil {
			s.fail("worker %d, request %d %s: %v", worker, n, method, err)
		}
	}
}

// http1 returns a client with one keep-alive connection, which it only replaces when the answer said so.
func (s *soak) http1() func(string) error {
	requests := map[string][]byte{
		http.MethodGet:  []byte("GET /a HTTP/1.1\r\nHost: soak.example.com\r\n\r\n"),
		http.MethodPost: []byte("POST /a HTTP/1.1\r\nHost: soak.example.com\r\nContent-Length: 4\r\n\r\nbody"),
	}
	var conn net.Conn
	var buf *bufio.Reader
	return func(method string) (err error) {
		if conn == nil {
			if conn, err = net.Dial("tcp", s.address); err != nil {
				return err
			}
			buf = bufio.NewReader(conn)
		}
		if _, err = conn.Write(requests[method]); err != nil {
			return err
		}
		res, err := http.ReadResponse(buf, nil)
		if err != nil {
			_ = conn.Close()
			conn = nil
			return err
		}
		if _, err = io.Copy(io.Discard, res.Body); err == nil && res.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s %s", res.Status, res.Header.Get("X-Fairlead-Reason"))
		}
		if res.Close || err != nil {
			_ = conn.Close()
			conn = nil
		}
		return err
	}
}

// http2 returns a client that speaks HTTP/2 with prior knowledge.
func (s *soak) http2() func(string) error {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: protocols}
	return func(method string) error {
		var body io.Reader
		if method == http.MethodPost {
			body = strings.NewReader("body")
		}
		req, err := http.NewRequest(method, "http://"+s.address+"/a", body)
		if err != nil {
			return err
		}
		req.Host = "soak.example.com"
		res, err := tr.RoundTrip(req)
		if err != nil {
			return err
		}
		defer func() { _ = res.Body.Close() }()
		if _, err = io.Copy(io.Discard, res.Body); err == nil && res.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s %s", res.Status, res.Header.Get("X-Fairlead-Reason"))
		}
		return err
	}
}
