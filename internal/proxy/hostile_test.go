package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/fairlead-io/fairlead/internal/route"
)

// hostile are the ways of backends to answer wrongly. cut says that the response is broken off: the client may get the head of it or nothing, but no end.
var hostile = []struct {
	name, raw string
	status    int
	cut       bool
	body      string
}{
	{name: "status 099", raw: "HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "status 000", raw: "HTTP/1.1 000 Odd\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "status 1000", raw: "HTTP/1.1 1000 Odd\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "status -1", raw: "HTTP/1.1 -1 Odd\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "status abc", raw: "HTTP/1.1 abc Odd\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "status 101 unasked", raw: "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nevil", status: 502},
	{name: "status 999", raw: "HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\nok", status: 999, body: "ok"},
	{name: "no reason phrase", raw: "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", status: 200, body: "ok"},
	{name: "HTTP/0.9", raw: "<html>hello</html>\n", status: 502},
	{name: "HTTP/3.0", raw: "HTTP/3.0 abc\r\n\r\n", status: 502},
	{name: "TLS alert", raw: "\x15\x03\x01\x00\x02\x02\x28", status: 502},
	{name: "SSH", raw: "SSH-2.0-OpenSSH_9.9\r\n", status: 502},
	{name: "nothing", raw: "", status: 502},
	{name: "half a head", raw: "HTTP/1.1 200 OK\r\nContent-Le", status: 502},
	{name: "length and chunks", raw: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", status: 200, body: "hello"},
	{name: "two lengths", raw: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nhello", status: 502},
	{name: "negative length", raw: "HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nhello", status: 502},
	{name: "length with a plus", raw: "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello", status: 502},
	{name: "length list", raw: "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello", status: 502},
	{name: "huge length", raw: "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhello", status: 502},
	{name: "other transfer coding", raw: "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello", status: 502},
	{name: "two transfer codings", raw: "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", status: 502},
	{name: "bare CR in a value", raw: "HTTP/1.1 200 OK\r\nX-A: a\rb\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "NUL in a value", raw: "HTTP/1.1 200 OK\r\nX-A: a\x00b\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "space in a name", raw: "HTTP/1.1 200 OK\r\nX A: b\r\nContent-Length: 2\r\n\r\nok", status: 200, body: "ok"},
	{name: "no colon", raw: "HTTP/1.1 200 OK\r\nXA\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "head of 9 MB", raw: "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", 9<<20) + "\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "100,000 fields", raw: "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 100_000) + "Content-Length: 0\r\n\r\n", status: 502},
	{name: "300 fields", raw: "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 300) + "Content-Length: 0\r\n\r\n", status: 502},
	{name: "endless status line", raw: "HTTP/1.1 200 " + strings.Repeat("O", 1<<20), status: 502},
	{name: "short body", raw: "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", status: 200, cut: true},
	{name: "short large body", raw: "HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n" + strings.Repeat("x", 100_000), status: 200, cut: true},
	{name: "chunks without an end", raw: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", status: 200, cut: true},
	{name: "half a chunk", raw: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\nhello", status: 200, cut: true},
	{name: "bad chunk size", raw: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n", status: 200, cut: true},
	{name: "chunk overflow", raw: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello", status: 200, cut: true},
	{name: "bad trailer", raw: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nbad trailer\r\n\r\n", status: 200, cut: true},
	{name: "extra bytes", raw: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", status: 200, body: "hello"},
	{name: "204 with a body", raw: "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", status: 204},
	{name: "304 with a body", raw: "HTTP/1.1 304 Not Modified\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", status: 304},
	{name: "until close", raw: "HTTP/1.0 200 OK\r\n\r\nhello", status: 200, body: "hello"},
}

func TestHostileBackends(t *testing.T) {
	for _, test := range hostile {
		t.Run(test.name, func(t *testing.T) {
			var good atomic.Bool
			addr := serveRaw(t, func(c net.Conn, _ *bufio.Reader) {
				if good.Load() {
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
					return
				}
				_, _ = io.WriteString(c, test.raw)
			})
			eachMode(t, func(t *testing.T, m mode) {
				good.Store(false)
				r := newRig(t, m, one(service("web", route.HTTP), addr))
				res := r.try(r.request(http.MethodGet, "/", nil))
				if (res.err != nil) != test.cut || res.StatusCode != test.status && !test.cut {
					t.Errorf("got %d %.50q, %v", res.StatusCode, res.body, res.err)
				}
				if test.status == 502 {
					if reason := res.Header.Get(ReasonHeader); reason != string(route.BackendProtocol) && reason != string(route.BackendReset) {
						t.Errorf("reason %q", reason)
					}
				} else if !test.cut && res.body != test.body {
					t.Errorf("body %q, want %q", res.body, test.body)
				}
				for _, name := range []string{"X-A", "X A", "A", "Transfer-Encoding", "Upgrade"} {
					if res.Header[name] != nil {
						t.Errorf("client got %s: %.50q", name, res.Header[name])
					}
				}
				// Whoever comes next is not concerned.
				good.Store(true)
				for range 2 {
					if next := r.get("/"); next.body != "good" || next.err != nil {
						t.Errorf("next: %d %q, %v", next.StatusCode, next.body, next.err)
					}
				}
				for i, e := range r.entries() {
					if failed := i == 0 && (test.cut || test.status == 502); failed != (e["reason"] != nil) {
						t.Errorf("request %d: logged %v", i, e)
					}
				}
			})
		})
	}
}

func TestHeadWithABody(t *testing.T) {
	addr := serveRaw(t, func(c net.Conn, r *bufio.Reader) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
		_ = readHead(r)
	})
	eachMode(t, func(t *testing.T, m mode) {
		r := newRig(t, m, one(service("web", route.HTTP), addr))
		for range 3 {
			if res := r.do(r.request(http.MethodHead, "/", nil)); res.StatusCode != 200 || res.ContentLength != 44 || res.body != "" {
				t.Errorf("got %d, length %d, %q", res.StatusCode, res.ContentLength, res.body)
			}
		}
	})
}

// Fields that a backend says are for its connection only do not leave it, whether it goes on or not.
func TestConnectionOptionsOfResponses(t *testing.T) {
	for name, head := range map[string]string{
		"open":      "Connection: X-Hop\r\nX-Hop: 1\r\n",
		"close":     "Connection: X-Hop, close\r\nX-Hop: 1\r\n",
		"two lines": "X-Hop: 1\r\nconnection:close\r\nCONNECTION: x-hop\r\n",
		"folded":    "Connection: close,\r\n x-hop\r\nX-Hop: 1\r\n",
	} {
		addr := serveRaw(t, func(c net.Conn, _ *bufio.Reader) {
			_, _ = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nConnection: X-Kept\r\n\r\nHTTP/1.1 200 OK\r\nX-Kept: 1\r\nContent-Length: 2\r\n"+head+"\r\nok")
		})
		t.Run(name, func(t *testing.T) {
			eachMode(t, func(t *testing.T, m mode) {
				r := newRig(t, m, one(service("web", route.HTTP), addr))
				if a := r.get("/"); a.body != "ok" || a.Header["X-Hop"] != nil || a.Header["X-Kept"] == nil {
					t.Errorf("got %q, %v", a.body, a.Header)
				}
			})
		})
	}
}

func TestTrailersOfResponses(t *testing.T) {
	addr := serveRaw(t, func(c net.Conn, _ *bufio.Reader) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Declared\r\n\r\n5\r\nhello\r\n0\r\n"+
			"X-Declared: 1\r\nX-Undeclared: 2\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a=b\r\nAuthorization: x\r\nConnection: close\r\n"+
			"Host: evil\r\nX-Fairlead-Reason: x\r\nLocation: http://evil\r\nContent-Type: text/html\r\n\r\n")
	})
	eachMode(t, func(t *testing.T, m mode) {
		r := newRig(t, m, one(service("web", route.HTTP), addr))
		res := r.get("/")
		if got := fmt.Sprint(res.Trailer); res.err != nil || got != "map[X-Declared:[1] X-Undeclared:[2]]" {
			t.Errorf("got %s, %v", got, res.err)
		}
	})
}

// malformedBodies are bodies in chunks that are none.
var malformedBodies = []string{
	"5\r\nhello\r\nzz\r\n", "0x5\r\nhello\r\n0\r\n\r\n", "-1\r\nhello\r\n", "5\r\nhelloX\r\n0\r\n\r\n", "5\nhello\r\n0\r\n\r\n", " 5\r\nhello\r\n0\r\n\r\n",
	"fffffffffffffffff\r\nhello", "5;a\rb\r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n0\r\nbad trailer\r\n\r\n", "\r\nhello\r\n0\r\n\r\n",
}

// A client's malformed body is the client's fault: 400, a closed connection, and nothing against the backend.
func TestMalformedBodies(t *testing.T) {
	requests := make(chan string, 100)
	for _, p := range []route.Protocol{route.HTTP, route.H2C} {
		addr := serveBackend(t, p, func(_ http.ResponseWriter, r *http.Request) {
			_, err := io.Copy(io.Discard, r.Body)
			requests <- fmt.Sprint(r.RequestURI, " ", err == nil)
		})
		pool := service("web", p)
		for _, m := range []mode{h1, h1s} {
			r := newRig(t, m, one(pool, addr))
			for _, body := range malformedBodies {
				c := r.dial()
				res, br := sendRaw(t, c, "POST /bad HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n"+body+"GET /smuggled HTTP/1.1\r\nHost: app.test\r\n\r\n")
				if res.StatusCode != http.StatusBadRequest || res.Header.Get(ReasonHeader) != string(route.BadBody) || !res.Close {
					t.Errorf("%q: got %d %q, close %v", body, res.StatusCode, res.Header.Get(ReasonHeader), res.Close)
				}
				_, _ = io.Copy(io.Discard, res.Body)
				if rest, err := io.ReadAll(br); len(rest) > 0 {
					t.Errorf("%q: then came %q, %v", body, rest, err)
				}
			}
			for _, s := range r.set.Status() {
				for _, e := range s.Endpoints {
					if !e.Healthy || e.Failures > 0 {
						t.Errorf("endpoint %+v", e)
					}
				}
			}
			if res := r.get("/good"); res.StatusCode != 200 {
				t.Errorf("then got %d", res.StatusCode)
			}
			r.stop()
			if n := r.counter("fairlead_backend_errors_total"); n != 0 {
				t.Errorf("%v errors were charged to the backend", n)
			}
		}
	}
	close(requests)
	for got := range requests {
		if got != "/bad false" && got != "/good true" {
			t.Errorf("backend got %q", got)
		}
	}
}

// A type that the backend did not name is not guessed from the body.
func TestContentTypeIsNotInvented(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		addr := serveRaw(t, func(c net.Conn, _ *bufio.Reader) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>")
		})
		r := newRig(t, m, one(service("web", route.HTTP), addr))
		if a := r.get("/"); a.body != "<html>" || a.Header["Content-Type"] != nil {
			t.Errorf("got %q with the type %q", a.body, a.Header["Content-Type"])
		}
	})
}
