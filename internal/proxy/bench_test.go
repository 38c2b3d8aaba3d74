package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/internal/backend"
	"github.com/fairlead-io/fairlead/internal/route"
	"github.com/fairlead-io/fairlead/internal/telemetry"
)

// canned answers every request with the same response, without a network.
type canned struct{ body []byte }

func (c *canned) response(req *http.Request) *http.Response {
	return &http.Response{
		Status: "200 OK", StatusCode: 200, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req, ContentLength: int64(len(c.body)),
		Header: http.Header{
			"Content-Type": {"application/json"}, "Content-Length": {fmt.Sprint(len(c.body))}, "Date": {"Sat, 21 Nov 2026 07:00:00 GMT"}, "Server": {"backend"},
		},
		Body: io.NopCloser(bytes.NewReader(c.body)),
	}
}

func (c *canned) RoundTrip(req *http.Request) (*http.Response, error) { return c.response(req), nil }

func (*canned) Holds(string, *route.Persistence) bool { return false }

func (c *canned) Do(req *http.Request, a *backend.Attempt) (*http.Response, error) {
	a.Tries, a.Endpoint = 1, "10.0.0.1:80"
	return c.response(req), nil
}

// sink is a response writer that is used again and again.
type sink struct {
	header http.Header
	status int
}

func (s *sink) Header() http.Header              { return s.header }
func (s *sink) WriteHeader(status int)           { s.status = status }
func (s *sink) Write(p []byte) (int, error)      { return len(p), nil }
func (s *sink) FlushError() error                { return nil }
func (s *sink) SetReadDeadline(time.Time) error  { return nil }
func (s *sink) SetWriteDeadline(time.Time) error { return nil }
func (s *sink) EnableFullDuplex() error          { return nil }

func benchmarkRequest(ctx context.Context) *http.Request {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://app.test/api/v1/items?page=2", nil)
	if err != nil {
		panic(err)
	}
	req.RequestURI, req.RemoteAddr = "/api/v1/items?page=2", "203.0.113.7:4711"
	req.Header = http.Header{
		"User-Agent": {"curl/8.5.0"}, "Accept": {"*/*"}, "Accept-Encoding": {"gzip"}, "Accept-Language": {"en"}, "Cookie": {"session=abc"}, "Referer": {"http://app.test/"},
	}
	return req
}

// BenchmarkHandler is the path of a request without servers and sockets, beside the same with nothing but httputil.ReverseProxy.
func BenchmarkHandler(b *testing.B) {
	c := &canned{body: bytes.Repeat([]byte("x"), 1024)}
	serve := func(b *testing.B, h http.Handler) {
		ctx, cancel := context.WithCancel(b.Context())
		defer cancel()
		req := benchmarkRequest(ctx)
		w := &sink{header: http.Header{}}
		b.ReportAllocs()
		for b.Loop() {
			clear(w.header)
			h.ServeHTTP(w, req)
		}
		if w.status != 200 {
			b.Fatal(w.status)
		}
	}
	pool := service("web", route.HTTP)
	w := one(pool, "10.0.0.1:80")
	table := w.table(h1)
	handler := func(opt Options) http.Handler {
		opt.Backends = backend.New(backend.Options{})
		opt.Backends.Install(table.Pools)
		p, err := New(opt)
		if err != nil {
			b.Fatal(err)
		}
		p.installed.Store(p.newInstalled(table))
		for _, r := range p.installed.Load().rules {
			r.backends[0].pool = c
		}
		return newHandler(p, testBind)
	}
	b.Run("fairlead", func(b *testing.B) { serve(b, handler(Options{})) })
	b.Run("fairlead with metrics and log", func(b *testing.B) {
		accessLog := telemetry.NewAccessLog(io.Discard, telemetry.AccessLogOptions{})
		defer accessLog.Close()
		serve(b, handler(Options{Metrics: telemetry.NewMetrics("bench"), AccessLog: accessLog}))
	})
	b.Run("bare", func(b *testing.B) { serve(b, bareProxy(c, "10.0.0.1:80")) })
}

// bareProxy is as little of a proxy as there can be.
func bareProxy(t http.RoundTripper, addr string) http.Handler {
	target := &url.URL{Scheme: "http", Host: addr}
	return &httputil.ReverseProxy{
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.SetURL(target)
			pr.Out.Host = pr.In.Host
			pr.SetXForwarded()
		},
		Transport: t,
		ErrorLog:  log.New(io.Discard, "", 0),
	}
}

// BenchmarkServeHTTP is a request from a client through the proxy to a backend and back, on real sockets, with metrics and the access log; beside it nothing but
// httputil.ReverseProxy in an http.Server.
func BenchmarkServeHTTP(b *testing.B) {
	for _, size := range []int{1 << 10, 1 << 20} {
		body := bytes.Repeat([]byte("x"), size)
		addr := serveHTTP(b, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(size))
			_, _ = w.Write(body)
		})
		for _, m := range modes {
			b.Run(fmt.Sprintf("%d KiB/%s/fairlead", size>>10, m.name), func(b *testing.B) {
				r := newRig(b, m, one(service("web", route.HTTP), addr), func(o *Options) {
					o.AccessLog = telemetry.NewAccessLog(io.Discard, telemetry.AccessLogOptions{})
					b.Cleanup(func() { _ = o.AccessLog.Close() })
				})
				fetch(b, r.client, m, size)
			})
			b.Run(fmt.Sprintf("%d KiB/%s/bare", size>>10, m.name), func(b *testing.B) {
				transport := &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}
				defer transport.CloseIdleConnections()
				client := m.client(serveBare(b, m, bareProxy(transport, addr)))
				defer client.CloseIdleConnections()
				fetch(b, client, m, size)
			})
		}
	}
}

func serveBare(b *testing.B, m mode, h http.Handler) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	cert, _ := testCertificate(testBind, nil)
	s := &http.Server{Handler: h, Protocols: m.protocols(), ReadHeaderTimeout: time.Minute, TLSConfig: &tls.Config{Certificates: []tls.Certificate{*cert}}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if m.tls {
			_ = s.ServeTLS(l, "", "")
		} else {
			_ = s.Serve(l)
		}
	}()
	b.Cleanup(func() { _ = s.Close(); <-done })
	return l.Addr().String()
}

func fetch(b *testing.B, client *http.Client, m mode, size int) {
	b.Helper()
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, m.scheme()+"://app.test/", nil)
		if err != nil {
			b.Fatal(err)
		}
		res, err := client.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		if n != int64(size) || err != nil {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkInstall(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := world{endpoints: map[*route.Pool][]string{}}
			for i := range n {
				pool := service(fmt.Sprint("web", i), route.HTTP)
				w.endpoints[pool] = nil
				w.rules = append(w.rules, rule(fmt.Sprint("/", i), pool, &route.RequestHeaders{HeaderChange: route.HeaderChange{Set: headerList("X-A", "b")}}))
			}
			table := w.table(h1)
			set := backend.New(backend.Options{})
			set.Install(table.Pools)
			p, err := New(Options{Backends: set, Metrics: telemetry.NewMetrics("bench")})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				p.newInstalled(table)
			}
		})
	}
}
