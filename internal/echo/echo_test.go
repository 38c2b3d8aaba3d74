package echo

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/internal/leak"
)

// TestMain fails the run if a goroutine is left when all servers are closed.
func TestMain(m *testing.M) { os.Exit(leak.Run(m)) }

// start returns a listening server that is closed with the test.
func start(t testing.TB, conf *tls.Config) *Server {
	t.Helper()
	s := New("web-1")
	s.TLS = conf
	if err := s.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// mode is a way to speak to a server.
type mode struct {
	name, scheme, proto string
	tls                 bool
	protocols           func(*http.Protocols)
}

var modes = []mode{
	{"h1", "http", "HTTP/1.1", false, func(p *http.Protocols) { p.SetHTTP1(true) }},
	{"h2c", "http", "HTTP/2.0", false, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }},
	{"https", "https", "HTTP/1.1", true, func(p *http.Protocols) { p.SetHTTP1(true) }},
	{"h2", "https", "HTTP/2.0", true, func(p *http.Protocols) { p.SetHTTP2(true) }},
}

// inModes runs f against a server in each mode.
func inModes(t *testing.T, f func(t *testing.T, m mode, s *Server, c *http.Client, url string)) {
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			var conf *tls.Config
			if m.tls {
				conf = &tls.Config{Certificates: []tls.Certificate{selfSigned()}, MinVersion: tls.VersionTLS12}
			}
			s := start(t, conf)
			f(t, m, s, client(t, m), m.scheme+"://"+s.Addr())
		})
	}
}

func client(t testing.TB, m mode) *http.Client {
	p := new(http.Protocols)
	m.protocols(p)
	tr := &http.Transport{Protocols: p, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "web.test"}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

var selfSigned = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"web.test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

// do sends a request and returns the response with its whole body.
func do(t testing.TB, c *http.Client, r *http.Request) (*http.Response, []byte) {
	t.Helper()
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, b
}

func request(t testing.TB, method, url string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAnswerDescribesTheRequest(t *testing.T) {
	inModes(t, func(t *testing.T, m mode, s *Server, c *http.Client, url string) {
		body := strings.Repeat("x", 100_000)
		r := request(t, http.MethodPost, url+"/a%2Fb/../c//?x=%zz&y=a+b&&z", io.MultiReader(strings.NewReader(body)))
		r.Host = "Shop.Example.com:81"
		r.Header["X-A"] = []string{"1", "2"}
		r.Trailer = http.Header{"X-Sum": {"abc"}}
		resp, b := do(t, c, r)
		var got Answer
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("%v in %q", err, b)
		}
		sum := sha256.Sum256([]byte(body))
		for _, v := range []struct {
			name      string
			got, want any
		}{
			{"status", resp.StatusCode, 200},
			{"content type", resp.Header.Get("Content-Type"), "application/json"},
			{"name header", resp.Header.Get("X-Echo-Name"), "web-1"},
			{"name", got.Name, "web-1"},
			{"method", got.Method, "POST"},
			{"host", got.Host, "Shop.Example.com:81"},
			{"path", got.Path, "/a%2Fb/../c//"},
			{"query", got.Query, "x=%zz&y=a+b&&z"},
			{"proto", got.Proto, m.proto},
			{"header", fmt.Sprint(got.Headers["X-A"]), "[1 2]"},
			{"trailer", got.Trailers.Get("X-Sum"), "abc"},
			{"bytes", got.BodyBytes, int64(100_000)},
			{"sum", got.BodySHA256, hex.EncodeToString(sum[:])},
			{"error", got.BodyError, ""},
			{"tls", got.TLS != nil, m.tls},
			{"served", s.Served(), int64(1)},
		} {
			if v.got != v.want {
				t.Errorf("%s is %v, want %v", v.name, v.got, v.want)
			}
		}
		if m.tls && (got.TLS.SNI != "web.test" || got.TLS.Version != "TLS 1.3") {
			t.Errorf("tls is %+v", got.TLS)
		}
	})
}

func TestStatus(t *testing.T) {
	inModes(t, func(t *testing.T, _ mode, _ *Server, c *http.Client, url string) {
		for path, want := range map[string]int{
			"/status/200": 200, "/status/204": 204, "/status/304": 304, "/status/404": 404, "/v1/status/503": 503, "/status/599": 599,
			"/status/100": 400, "/status/600": 400, "/status/x": 400, "/status/": 400, "/status": 200, "/": 200, "/status/200/x": 200,
		} {
			resp, b := do(t, c, request(t, http.MethodGet, url+path, nil))
			if resp.StatusCode != want {
				t.Errorf("GET %s = %d, want %d", path, resp.StatusCode, want)
			}
			if empty := want == 204 || want == 304; empty != (len(b) == 0) {
				t.Errorf("GET %s has a body of %d bytes", path, len(b))
			}
		}
	})
}

func TestDelay(t *testing.T) {
	s := start(t, nil)
	c, url := client(t, modes[0]), "http://"+s.Addr()
	for path, least := range map[string]time.Duration{"/delay/20ms": 20 * time.Millisecond, "/delay/0.02": 20 * time.Millisecond, "/delay/0": 0} {
		begin := time.Now()
		resp, _ := do(t, c, request(t, http.MethodGet, url+path, nil))
		if took := time.Since(begin); resp.StatusCode != 200 || took < least {
			t.Errorf("GET %s = %d after %v, want 200 after %v", path, resp.StatusCode, took, least)
		}
	}
	for _, path := range []string{"/delay/61s", "/delay/61", "/delay/-1s", "/delay/-1", "/delay/x", "/delay/NaN", "/delay/1e300"} {
		if resp, _ := do(t, c, request(t, http.MethodGet, url+path, nil)); resp.StatusCode != 400 {
			t.Errorf("GET %s = %d, want 400", path, resp.StatusCode)
		}
	}
}

func TestDelayEndsWhenTheClientLeaves(t *testing.T) {
	inModes(t, func(t *testing.T, _ mode, s *Server, c *http.Client, url string) {
		ctx, cancel := context.WithCancel(t.Context())
		r := request(t, http.MethodGet, url+"/delay/60s", nil).WithContext(ctx)
		done := make(chan error)
		go func() {
			resp, err := c.Do(r)
			if err == nil {
				_ = resp.Body.Close()
			}
			done <- err
		}()
		wait(t, "the request to arrive", func() bool { return s.Served() == 1 })
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Do() = %v", err)
		}
		wait(t, "the handler to end", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.handlers == 0
		})
	})
}

// wait waits until a condition holds.
func wait(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}

func TestBytes(t *testing.T) {
	inModes(t, func(t *testing.T, _ mode, _ *Server, c *http.Client, url string) {
		for path, want := range map[string]int{"/bytes/0": 0, "/bytes/1": 1, "/bytes/1000000": 1_000_000} {
			resp, b := do(t, c, request(t, http.MethodGet, url+path, nil))
			if len(b) != want || resp.ContentLength != int64(want) {
				t.Errorf("GET %s has %d bytes and a length of %d, want %d", path, len(b), resp.ContentLength, want)
			}
		}
		for _, path := range []string{"/bytes/-1", "/bytes/1073741825", "/bytes/x"} {
			if resp, _ := do(t, c, request(t, http.MethodGet, url+path, nil)); resp.StatusCode != 400 {
				t.Errorf("GET %s = %d, want 400", path, resp.StatusCode)
			}
		}
	})
}

func TestStream(t *testing.T) {
	inModes(t, func(t *testing.T, _ mode, _ *Server, c *http.Client, url string) {
		resp, err := c.Do(request(t, http.MethodGet, url+"/stream?n=3&interval=50ms", nil))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
			t.Errorf("content type is %s", got)
		}
		begin := time.Now()
		lines := bufio.NewScanner(resp.Body)
		var text strings.Builder
		for lines.Scan() {
			if lines.Text() == "id: 1" && time.Since(begin) > 5*time.Second {
				t.Error("the first event was not sent at once")
			}
			text.WriteString(lines.Text() + "\n")
		}
		if want := "id: 1\ndata: web-1 1\n\nid: 2\ndata: web-1 2\n\nid: 3\ndata: web-1 3\n\n"; text.String() != want {
			t.Errorf("events are %q, want %q", text.String(), want)
		}
		if took := time.Since(begin); took < 90*time.Millisecond {
			t.Errorf("three events took %v, want two intervals of 50 ms", took)
		}
		for _, path := range []string{"/stream?n=-1", "/stream?n=1000000", "/stream?interval=1h", "/stream?n=x"} {
			if resp, _ := do(t, c, request(t, http.MethodGet, url+path, nil)); resp.StatusCode != 400 {
				t.Errorf("GET %s = %d, want 400", path, resp.StatusCode)
			}
		}
	})
}

// The body comes back while the rest of it has not been sent yet.
func TestReflect(t *testing.T) {
	inModes(t, func(t *testing.T, _ mode, _ *Server, c *http.Client, url string) {
		body, in := io.Pipe()
		resp, err := c.Do(request(t, http.MethodPost, url+"/reflect", body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		for _, word := range []string{"one", "two", "three"} {
			if _, err := io.WriteString(in, word); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(word))
			if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != word {
				t.Fatalf("got %q, %v, want %q", got, err, word)
			}
		}
		_ = in.Close()
		if b, err := io.ReadAll(resp.Body); err != nil || len(b) != 0 {
			t.Errorf("the rest is %q, %v", b, err)
		}
	})
}

func TestHints(t *testing.T) {
	inModes(t, func(t *testing.T, _ mode, _ *Server, c *http.Client, url string) {
		var hints []string
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hints = append(hints, fmt.Sprint(code, " ", h.Get("Link")))
			return nil
		}})
		resp, _ := do(t, c, request(t, http.MethodGet, url+"/hints", nil).WithContext(ctx))
		if got := strings.Join(hints, "; "); got != "103 </style.css>; rel=preload; as=style" || resp.StatusCode != 200 {
			t.Errorf("got %q before %d", got, resp.StatusCode)
		}
	})
}

// message frames a gRPC message.
func message(text string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(text))), text...)
}

func TestGRPC(t *testing.T) {
	for _, m := range modes[1:] {
		if m.proto != "HTTP/2.0" {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			s := start(t, map[bool]*tls.Config{true: {Certificates: []tls.Certificate{selfSigned()}}}[m.tls])
			c, url := client(t, m), m.scheme+"://"+s.Addr()+"/pkg.Service/Method"
			call := func(body io.Reader) *http.Request {
				r := request(t, http.MethodPost, url, body)
				r.Header.Set("Content-Type", "application/grpc+proto")
				r.Header.Set("TE", "trailers")
				return r
			}
			for _, tt := range []struct{ name, in, want, status string }{
				{"unary", string(message("hello")), string(message("hello")), "0"},
				{
					"several messages", string(message("a")) + string(message("")) + string(message(strings.Repeat("b", 100_000))),
					string(message("a")) + string(message("")) + string(message(strings.Repeat("b", 100_000))), "0",
				},
				{"none", "", "", "0"},
				{"cut in the length", "\x00\x00", "", "13"},
				{"cut in the message", string(message("hello")[:8]), string(message("hello")[:8]), "13"},
			} {
				t.Run(tt.name, func(t *testing.T) {
					resp, b := do(t, c, call(strings.NewReader(tt.in)))
					if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/grpc+proto" {
						t.Errorf("got %d %s", resp.StatusCode, resp.Header.Get("Content-Type"))
					}
					if string(b) != tt.want {
						t.Errorf("got %d bytes back, want %d", len(b), len(tt.want))
					}
					if got := resp.Trailer.Get("Grpc-Status"); got != tt.status {
						t.Errorf("grpc-status is %q, want %q", got, tt.status)
					}
				})
			}
			t.Run("both directions at once", func(t *testing.T) {
				body, in := io.Pipe()
				resp, err := c.Do(call(body))
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				for i := range 3 {
					sent := message(fmt.Sprint("message ", i))
					if _, err := in.Write(sent); err != nil {
						t.Fatal(err)
					}
					got := make([]byte, len(sent))
					if _, err := io.ReadFull(resp.Body, got); err != nil || !bytes.Equal(got, sent) {
						t.Fatalf("got %q, %v, want %q", got, err, sent)
					}
				}
				_ = in.Close()
				if _, err := io.ReadAll(resp.Body); err != nil || resp.Trailer.Get("Grpc-Status") != "0" {
					t.Errorf("it ended with %v and status %q", err, resp.Trailer.Get("Grpc-Status"))
				}
			})
			t.Run("not gRPC", func(t *testing.T) {
				r := call(strings.NewReader("x"))
				r.Header.Set("Content-Type", "application/grpc-web")
				if resp, _ := do(t, c, r); resp.Header.Get("Content-Type") != "application/json" {
					t.Errorf("gRPC-Web got %s", resp.Header.Get("Content-Type"))
				}
			})
		})
	}
	t.Run("h1", func(t *testing.T) {
		s := start(t, nil)
		r := request(t, http.MethodPost, "http://"+s.Addr()+"/a/b", nil)
		r.Header.Set("Content-Type", "application/grpc")
		if resp, _ := do(t, client(t, modes[0]), r); resp.StatusCode != http.StatusHTTPVersionNotSupported {
			t.Errorf("gRPC over HTTP/1.1 = %d, want 505", resp.StatusCode)
		}
	})
}

func TestKillAndRevive(t *testing.T) {
	inModes(t, func(t *testing.T, _ mode, s *Server, c *http.Client, url string) {
		addr := s.Addr()
		do(t, c, request(t, http.MethodGet, url, nil)) // leaves a connection open
		running := make(chan error)
		go func() {
			resp, err := c.Do(request(t, http.MethodGet, url+"/delay/60s", nil))
			if err == nil {
				_ = resp.Body.Close()
			}
			running <- err
		}()
		wait(t, "the request to arrive", func() bool { return s.Served() == 2 })
		s.Kill()
		if err := <-running; err == nil {
			t.Error("a request that was running got an answer")
		}
		if s.Alive() || s.Addr() != addr {
			t.Errorf("after Kill: alive %t, address %s", s.Alive(), s.Addr())
		}
		if _, err := net.Dial("tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("connecting to a killed server: %v, want connection refused", err)
		}
		s.Kill() // does nothing
		if err := s.Revive(); err != nil {
			t.Fatal(err)
		}
		if resp, _ := do(t, c, request(t, http.MethodGet, url, nil)); resp.StatusCode != 200 || !s.Alive() || s.Addr() != addr {
			t.Errorf("after Revive: %d, alive %t, address %s", resp.StatusCode, s.Alive(), s.Addr())
		}
		if err := s.Revive(); err == nil {
			t.Error("reviving a server that is alive gave no error")
		}
	})
}

func TestListenFails(t *testing.T) {
	s := start(t, nil)
	other := New("web-2")
	if err := other.Listen(s.Addr()); err == nil {
		t.Error("two servers listen on one port")
	}
	if err := New("web-3").Revive(); err == nil {
		t.Error("reviving a server that never listened gave no error")
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
}

func TestServersInParallel(t *testing.T) {
	s := start(t, nil)
	c := client(t, modes[0])
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if resp, err := c.Do(request(t, http.MethodGet, "http://"+s.Addr(), nil)); err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
			}
		})
	}
	for range 20 {
		s.Kill()
		if err := s.Revive(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
}

func BenchmarkAnswer(b *testing.B) {
	s := start(b, nil)
	c := client(b, modes[0])
	url := "http://" + s.Addr() + "/a?b=c"
	b.ReportAllocs()
	for b.Loop() {
		do(b, c, request(b, http.MethodGet, url, nil))
	}
}
