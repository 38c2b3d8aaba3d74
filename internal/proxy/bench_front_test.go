package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// kilobyte is a GET with a head of 1 KiB, as browsers send it.
var kilobyte = func() string {
	head := "GET /api/v1/users?id=12345&sort=name HTTP/1.1\r\nHost: shop.example.com\r\n" +
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n" +
		"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n" +
		"Accept-Encoding: gzip, deflate, br, zstd\r\nCookie: session="
	return head + strings.Repeat("x", 1024-len(head)-4) + "\r\n\r\n"
}()

// BenchmarkHTTP1 is one request after the other on one connection: to the front, and to a plain http.Server with the timeouts that it takes to be safe.
func BenchmarkHTTP1(b *testing.B) {
	serve := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	b.Run("front", func(b *testing.B) {
		p, err := New(Options{})
		if err != nil {
			b.Fatal(err)
		}
		defer p.Close()
		p.handler = func(route.Bind) http.Handler { return serve }
		if err := p.Install(tableOf(map[route.Bind]route.Protocol{plainBind: route.HTTP})); err != nil {
			b.Fatal(err)
		}
		roundTrips(b, p.Addr(plainBind).String())
	})
	b.Run("net-http", func(b *testing.B) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		s := &http.Server{Handler: serve, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10}
		defer s.Close()
		go func() { _ = s.Serve(l) }()
		roundTrips(b, l.Addr().String())
	})
}

func roundTrips(b *testing.B, address string) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	br := bufio.NewReader(c)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := io.WriteString(c, kilobyte); err != nil {
			b.Fatal(err)
		}
		length := 0
		for {
			line, err := br.ReadSlice('\n')
			if err != nil {
				b.Fatal(err)
			}
			if len(line) == 2 {
				break
			}
			if strings.HasPrefix(string(line), "Content-Length:") {
				length = 2
			}
		}
		if _, err := br.Discard(length); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkConnections is a connection with one request.
func BenchmarkConnections(b *testing.B) {
	p, err := New(Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	p.handler = func(route.Bind) http.Handler { return http.HandlerFunc(ok) }
	if err := p.Install(tableOf(map[route.Bind]route.Protocol{plainBind: route.HTTP})); err != nil {
		b.Fatal(err)
	}
	address := p.Addr(plainBind).String()
	b.ReportAllocs()
	for b.Loop() {
		c, err := net.Dial("tcp", address)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
		if _, err := io.Copy(io.Discard, c); err != nil {
			b.Fatal(err)
		}
		_ = c.Close()
	}
}

// BenchmarkHTTP2 is 50 clients that share a connection without TLS.
func BenchmarkHTTP2(b *testing.B) {
	p, err := New(Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	p.handler = func(route.Bind) http.Handler { return http.HandlerFunc(ok) }
	if err := p.Install(tableOf(map[route.Bind]route.Protocol{plainBind: route.HTTP})); err != nil {
		b.Fatal(err)
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	t := &http.Transport{Protocols: protocols}
	defer t.CloseIdleConnections()
	url := "http://" + p.Addr(plainBind).String()
	b.SetParallelism(25)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r, _ := http.NewRequestWithContext(b.Context(), http.MethodGet, url, nil)
			res, err := t.RoundTrip(r)
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
	})
}
