package proxy

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

const webSocketHead = "GET /ws?a=1 HTTP/1.1\r\nHost: app.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nOrigin: http://app.test\r\n\r\n"

// serveUpgrades starts a backend that grants upgrades to WebSocket and serves them with f. What it was asked is in the header Asked of the answer.
func serveUpgrades(t *testing.T, f func(c net.Conn, r *bufio.Reader)) string {
	return serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Asked", fmt.Sprint(r.Method, " ", r.RequestURI, " ", r.Header["Upgrade"], r.Header["Connection"], r.Header["X-Forwarded-For"], r.Header["Http2-Settings"]))
		if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(http.StatusUpgradeRequired)
			return
		}
		c, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: yes\r\n"+
			"Asked: "+w.Header().Get("Asked")+"\r\nX-Fairlead-Reason: x\r\nKeep-Alive: 5\r\n\r\n")
		f(c, buffered.Reader)
	})
}

// echoUntilEOF sends back what comes, and after the end of it goodbye.
func echoUntilEOF(c net.Conn, r *bufio.Reader) {
	_, _ = io.Copy(c, r)
	_, _ = io.WriteString(c, "goodbye")
}

func TestWebSocket(t *testing.T) {
	addr := serveUpgrades(t, echoUntilEOF)
	for _, p := range []route.Protocol{route.HTTP, route.WS} {
		for _, m := range []mode{h1, h1s} {
			t.Run(string(p)+" "+m.name, func(t *testing.T) {
				w := one(service("web", p), addr, &route.ResponseHeaders{HeaderChange: route.HeaderChange{Set: headerList("X-Added", "1")}})
				r := newRig(t, m, w)
				c := r.dial()
				// The first bytes for the new protocol come together with the request.
				res, br := sendRaw(t, c, webSocketHead+"early ")
				h := res.Header
				if res.StatusCode != 101 || h.Get("Upgrade") != "websocket" || h.Get("Connection") != "Upgrade" || h.Get("X-Added") != "1" || h.Get(ReasonHeader) != "" {
					t.Fatalf("got %d %v", res.StatusCode, h)
				}
				if want := "GET /ws?a=1 [websocket] [Upgrade] [127.0.0.1] []"; h.Get("Asked") != want {
					t.Errorf("backend was asked %q, want %q", h.Get("Asked"), want)
				}
				buf := make([]byte, 64)
				for i, text := range []string{"early ", "message 1", "message 2"} {
					if i > 0 {
						_, _ = io.WriteString(c, text)
					}
					if _, err := io.ReadFull(br, buf[:len(text)]); err != nil || string(buf[:len(text)]) != text {
						t.Fatalf("got %q, %v; want %q", buf[:len(text)], err, text)
					}
				}
				// Half-close: the backend sees the end and can still answer.
				if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
					t.Fatal(err)
				}
				if rest, err := io.ReadAll(br); string(rest) != "goodbye" || err != nil {
					t.Errorf("after the end: %q, %v", rest, err)
				}
				_ = c.Close()
				e := r.entries()
				if len(e) != 1 || e[0]["status"] != 101.0 || e[0]["bytes_in"] != 24.0 || e[0]["bytes_out"] != 31.0 || e[0]["reason"] != nil {
					t.Errorf("logged %v", e)
				}
				if n := r.counter("fairlead_requests_total", "code", "101"); n != 1 {
					t.Errorf("counted %v", n)
				}
				if n := r.counter("fairlead_connections"); n != 0 {
					t.Errorf("%v connections are open", n)
				}
			})
		}
	}
}

func TestWebSocketBackendEndsFirst(t *testing.T) {
	addr := serveUpgrades(t, func(c net.Conn, r *bufio.Reader) {
		_, _ = io.WriteString(c, "hello")
		_ = c.(*net.TCPConn).CloseWrite()
		line, _ := r.ReadString('\n') // still reads
		if line != "last words\n" {
			t.Errorf("backend got %q", line)
		}
	})
	r := newRig(t, h1, one(service("web", route.HTTP), addr))
	c := r.dial()
	_, br := sendRaw(t, c, webSocketHead)
	if b, err := io.ReadAll(br); string(b) != "hello" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	if _, err := io.WriteString(c, "last words\n"); err != nil {
		t.Error(err)
	}
	r.entries() // waits for the end of the connection
}

// Everything that is not an allowed upgrade goes on as a plain request.
func TestOtherUpgradesAreNotGranted(t *testing.T) {
	addr := serveUpgrades(t, func(net.Conn, *bufio.Reader) {
		t.Error("a connection was upgraded")
	})
	const rest = " HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\n"
	for name, head := range map[string]string{
		"h2c":              "GET /" + rest + "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
		"h2c with listing": "GET / HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
		"TLS":              "GET /" + rest + "Upgrade: TLS/1.0\r\n\r\n",
		"unknown":          "GET /" + rest + "Upgrade: foo/1\r\n\r\n",
		"POST":             "POST /" + rest + "Upgrade: websocket\r\nContent-Length: 4\r\n\r\nbody",
		"POST, no body":    "POST /" + rest + "Upgrade: websocket\r\nContent-Length: 0\r\n\r\n",
		"GET with a body":  "GET /" + rest + "Upgrade: websocket\r\nContent-Length: 4\r\n\r\nbody",
		"HEAD":             "HEAD /" + rest + "Upgrade: websocket\r\n\r\n",
		"HTTP/1.0":         "GET / HTTP/1.0\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"not asked for":    "GET / HTTP/1.1\r\nHost: app.test\r\nUpgrade: websocket\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, h1, one(service("web", route.HTTP), addr))
			res, _ := sendRaw(t, r.dial(), head)
			if res.StatusCode != http.StatusUpgradeRequired || !strings.HasSuffix(res.Header.Get("Asked"), " [] [] [127.0.0.1] []") {
				t.Errorf("got %d, backend was asked %q", res.StatusCode, res.Header.Get("Asked"))
			}
		})
	}
}

// Without a 101 there is no tunnel, and a backend cannot make one of its own accord.
func TestSwitchesThatNobodyAskedFor(t *testing.T) {
	for name, test := range map[string]struct{ head, answer string }{
		"not asked":        {"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"},
		"another protocol": {webSocketHead, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"},
		"no protocol":      {webSocketHead, "HTTP/1.1 101 Switching Protocols\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			addr := serveRaw(t, func(c net.Conn, r *bufio.Reader) {
				_, _ = io.WriteString(c, test.answer)
				if rest, _ := io.ReadAll(r); len(rest) > 0 {
					t.Errorf("backend then got %q", rest)
				}
			})
			r := newRig(t, h1, one(service("web", route.HTTP), addr))
			res, _ := sendRaw(t, r.dial(), test.head)
			if res.StatusCode != http.StatusBadGateway || res.Header.Get(ReasonHeader) != string(route.BackendProtocol) {
				t.Errorf("got %d %q", res.StatusCode, res.Header.Get(ReasonHeader))
			}
		})
	}
	t.Run("a second request after a refusal is a request", func(t *testing.T) {
		r := newRig(t, h1, one(service("web", route.HTTP), serveUpgrades(t, echoUntilEOF)))
		c := r.dial()
		res, br := sendRaw(t, c, strings.Replace(webSocketHead, "WebSocket", "other", 1))
		_ = res.Body.Close()
		_, _ = io.WriteString(c, "GET /second HTTP/1.1\r\nHost: app.test\r\n\r\n")
		res, err := http.ReadResponse(br, nil)
		if err != nil || !strings.HasPrefix(res.Header.Get("Asked"), "GET /second []") {
			t.Errorf("got %v, %v", res, err)
		}
	})
}

// What passes is neither lost nor changed, in both directions at once.
func TestWebSocketCarriesMuch(t *testing.T) {
	const size = 16 << 20
	addr := serveUpgrades(t, func(c net.Conn, r *bufio.Reader) { _, _ = io.Copy(c, r) })
	r := newRig(t, h1s, one(service("web", route.HTTP), addr))
	c := r.dial()
	_, br := sendRaw(t, c, webSocketHead)
	sent, got := sha256.New(), sha256.New()
	failed := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.MultiWriter(c, sent), io.LimitReader(&counting{}, size))
		failed <- errors.Join(err, c.(interface{ CloseWrite() error }).CloseWrite())
	}()
	n, err := io.Copy(got, br)
	if err := errors.Join(err, <-failed); err != nil || n != size {
		t.Fatalf("got %d bytes, %v", n, err)
	}
	if string(sent.Sum(nil)) != string(got.Sum(nil)) {
		t.Error("what came back is not what was sent")
	}
}

// counting is an endless sequence of bytes that does not repeat soon.
type counting struct{ n uint64 }

func (c *counting) Read(p []byte) (int, error) {
	for i := range p {
		c.n = c.n*6364136223846793005 + 1442695040888963407
		p[i] = byte(c.n >> 56)
	}
	return len(p), nil
}

// An upgraded connection outlives the rule's timeouts, and ends when nothing passes for TunnelIdle.
func TestWebSocketTimeouts(t *testing.T) {
	backendSaw := make(chan error, 1)
	addr := serveUpgrades(t, func(c net.Conn, r *bufio.Reader) {
		for {
			b, err := r.ReadByte()
			if err != nil {
				backendSaw <- err
				return
			}
			_, _ = c.Write([]byte{b})
		}
	})
	w := one(service("web", route.HTTP), addr)
	w.rules[0].Timeouts = route.Timeouts{Request: 300 * time.Millisecond, Backend: 300 * time.Millisecond}
	r := newRig(t, h1, w, limited(func(l *Limits) { l.TunnelIdle = time.Second }))
	c := r.dial()
	_, br := sendRaw(t, c, webSocketHead)
	begun := time.Now()
	for time.Since(begun) < 700*time.Millisecond { // as long as something passes
		_, _ = c.Write([]byte{'x'})
		if _, err := br.ReadByte(); err != nil {
			t.Fatalf("after %v: %v", time.Since(begun), err)
		}
	}
	if _, err := br.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("idle connection: %v", err)
	}
	if err := <-backendSaw; err == nil {
		t.Error("the backend's end is open")
	}
}

// Proxy.Close ends upgraded connections with an end of stream in both directions.
func TestWebSocketGoodbye(t *testing.T) {
	backendSaw := make(chan error, 1)
	addr := serveUpgrades(t, func(c net.Conn, r *bufio.Reader) {
		_, _ = io.WriteString(c, "hello")
		_, err := r.ReadByte()
		backendSaw <- err
	})
	r := newRig(t, h1, one(service("web", route.HTTP), addr))
	c := r.dial()
	_, br := sendRaw(t, c, webSocketHead)
	if _, err := br.Peek(5); err != nil {
		t.Fatal(err)
	}
	go r.stop()
	if b, err := io.ReadAll(br); string(b) != "hello" || err != nil {
		t.Errorf("client got %q, %v; want a clean end", b, err)
	}
	if err := <-backendSaw; !errors.Is(err, io.EOF) {
		t.Errorf("backend got %v, want EOF", err)
	}
	r.stop()
}

// A backend with TLS that would rather speak HTTP/2 is spoken to in HTTP/1.1 for an upgrade.
func TestWebSocketOverTLSBackend(t *testing.T) {
	addr := serveBackend(t, route.HTTPS, func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			w.WriteHeader(http.StatusHTTPVersionNotSupported)
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.CopyN(c, c, 4)
	})
	for _, p := range []route.Protocol{route.HTTPS, route.WSS} {
		r := newRig(t, h1s, one(service("web", p), addr))
		c := r.dial()
		res, br := sendRaw(t, c, webSocketHead)
		_, _ = io.WriteString(c, "ping")
		if b, err := io.ReadAll(br); res.StatusCode != 101 || string(b) != "ping" || err != nil {
			t.Errorf("%s: %d %q, %v", p, res.StatusCode, b, err)
		}
	}
}
