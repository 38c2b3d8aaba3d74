package backend

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

func TestRequestReachesBackendInEachProtocol(t *testing.T) {
	tests := []struct {
		name     string
		pool     route.Protocol
		server   route.Protocol
		want     string
		wantBody string
	}{
		{"http", route.HTTP, route.HTTP, "HTTP/1.1 GET Shop.example.com:8080 sni= body=0 ", "HTTP/1.1 POST Shop.example.com:8080 sni= body=5 hello"},
		{"ws", route.WS, route.HTTP, "HTTP/1.1 GET Shop.example.com:8080 sni= body=0 ", "HTTP/1.1 POST Shop.example.com:8080 sni= body=5 hello"},
		{"h2c", route.H2C, route.H2C, "HTTP/2.0 GET Shop.example.com:8080 sni= body=0 ", "HTTP/2.0 POST Shop.example.com:8080 sni= body=5 hello"},
		{"https", route.HTTPS, route.HTTPS, "HTTP/2.0 GET Shop.example.com:8080 sni=shop.example.com body=0 ", "HTTP/2.0 POST Shop.example.com:8080 sni=shop.example.com body=5 hello"},
		{"https without http2", route.HTTPS, route.WSS, "HTTP/1.1 GET Shop.example.com:8080 sni=shop.example.com body=0 ", "HTTP/1.1 POST Shop.example.com:8080 sni=shop.example.com body=5 hello"},
		{"wss", route.WSS, route.HTTPS, "HTTP/1.1 GET Shop.example.com:8080 sni=shop.example.com body=0 ", "HTTP/1.1 POST Shop.example.com:8080 sni=shop.example.com body=5 hello"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := serve(t, tt.server, echo("a"))
			_, p := newPoolOf(t, Options{}, tt.pool, b.Address)
			r := do(p, newRequest(t, "GET", "Shop.example.com:8080", ""))
			if r.err != nil || r.body != tt.want {
				t.Errorf("GET = %q, %v, want %q", r.body, r.err, tt.want)
			}
			if r.Endpoint != b.Address || r.Tries != 1 || r.Reused || r.Connect <= 0 || r.FirstByte < r.Connect {
				t.Errorf("attempt = %+v", r.Attempt)
			}
			r = do(p, newRequest(t, "POST", "Shop.example.com:8080", "hello"))
			if r.err != nil || r.body != tt.wantBody || !r.Reused || r.Connect != 0 {
				t.Errorf("POST = %q, %v (%+v), want %q on the same connection", r.body, r.err, r.Attempt, tt.wantBody)
			}
		})
	}
}

// gRPC cannot be spoken over HTTP/1.1, so that it is not, whatever else is spoken to the pool. What an HTTP/1.1 client calls gRPC is not.
func TestGRPCIsSpokenOverHTTP2(t *testing.T) {
	b := serve(t, route.H2C, echo("a")) // which speaks HTTP/1.1 as well
	_, p := newPoolOf(t, Options{}, route.HTTP, b.Address)
	for _, tt := range []struct {
		contentType string
		major       int
		want        string
	}{{"application/grpc", 2, "HTTP/2.0"}, {"application/grpc+proto", 2, "HTTP/2.0"}, {"application/grpc-web", 2, "HTTP/1.1"}, {"text/plain", 2, "HTTP/1.1"}, {"application/grpc", 1, "HTTP/1.1"}} {
		req := newRequest(t, "POST", "shop.example.com", "hello")
		req.Header.Set("Content-Type", tt.contentType)
		req.ProtoMajor = tt.major
		if r := do(p, req); r.err != nil || !strings.HasPrefix(r.body, tt.want+" POST") {
			t.Errorf("%s from a client of HTTP/%d = %q, %v; want %s", tt.contentType, tt.major, r.body, r.err, tt.want)
		}
	}
}

// One connection must not serve another TLS server name.
func TestServerNamesHaveConnectionsOfTheirOwn(t *testing.T) {
	b := serve(t, route.HTTPS, echo("a"))
	_, p := newPoolOf(t, Options{}, route.HTTPS, b.Address)
	for host, sni := range map[string]string{"a.example.com": "a.example.com", "b.example.com": "b.example.com", "[::1]:443": "", "10.0.0.1": "", "": ""} {
		r := do(p, newRequest(t, "GET", host, ""))
		if !strings.Contains(r.body, "sni="+sni+" ") {
			t.Errorf("host %q: body = %q, %v, want server name %q", host, r.body, r.err, sni)
		}
	}
}

// Clients that make up host names must not be able to make connections pile up.
func TestManyServerNames(t *testing.T) {
	b := serve(t, route.HTTPS, echo("a"))
	s, p := newPoolOf(t, Options{MaxIdle: 5, IdleTimeout: time.Hour}, route.HTTPS, b.Address)
	most := 0
	for i := range 60 {
		if r := do(p, newRequest(t, "GET", fmt.Sprintf("h%d.example.com", i), "")); r.err != nil {
			t.Fatal(r.err)
		}
		most = max(most, statusOf(t, s, b.Address).Connections)
	}
	if most > 15 {
		t.Errorf("%d connections", most)
	}
}

func TestRequestOfCallerIsNotChanged(t *testing.T) {
	b := serve(t, route.HTTP, echo("a"))
	_, p := newPoolOf(t, Options{}, route.HTTP, b.Address)
	req := newRequest(t, "POST", "a.example.com", "hello")
	body := &closeCounter{Reader: strings.NewReader("hello")}
	req.Body = body
	before := *req
	if r := do(p, req); r.err != nil {
		t.Fatal(r.err)
	}
	if req.URL.Host != "ignored" || req.Body != before.Body || req.GetBody != nil || req.Context() != before.Context() {
		t.Errorf("request was changed: %+v", req)
	}
	if n := body.closed.Load(); n != 0 {
		t.Errorf("the body was closed %d times", n)
	}
}

type closeCounter struct {
	io.Reader
	closed atomic.Int32
}

func (c *closeCounter) Close() error { c.closed.Add(1); return nil }

func TestRefusedEndpointIsSkippedForAnyMethodWithBodyIntact(t *testing.T) {
	body := strings.Repeat("0123456789", 100_000)
	for _, protocol := range []route.Protocol{route.HTTP, route.H2C, route.HTTPS} {
		for _, method := range []string{"GET", "POST", "DELETE"} {
			t.Run(fmt.Sprint(protocol, " ", method), func(t *testing.T) {
				b := serve(t, protocol, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					got, err := io.ReadAll(r.Body)
					if err != nil || string(got) != body {
						t.Errorf("%s: body has %d bytes, error %v; want the %d that were sent", r.Method, len(got), err, len(body))
					}
				}))
				down := []string{refused(t), refused(t), refused(t)}
				s, p := newPoolOf(t, Options{Backoff: time.Hour, MaxBackoff: time.Hour}, protocol, append(down, b.Address)...)
				tries := 0
				for range 4 {
					r := do(p, newRequest(t, method, "a.example.com", body))
					if r.err != nil || r.Endpoint != b.Address {
						t.Fatalf("%s: %v (%+v)", method, r.err, r.Attempt)
					}
					tries += r.Tries
				}
				if tries != 4+len(down) {
					t.Errorf("%d tries, want one for each request and one for each endpoint that is down", tries)
				}
				for _, a := range down {
					if st := statusOf(t, s, a); st.Healthy || st.Failures != 1 || !strings.Contains(st.LastError, "connection refused") || st.Why != "no connection could be made" {
						t.Errorf("status = %+v", st)
					}
				}
			})
		}
	}
}

// What belongs to a request must not live as long as its client's connection.
func TestContextOfRequestEndsWithItsResponse(t *testing.T) {
	for _, protocol := range []route.Protocol{route.HTTP, route.H2C} {
		b := serve(t, protocol, echo("a"))
		_, p := newPoolOf(t, Options{}, protocol, b.Address)
		for _, method := range []string{"GET", "HEAD"} {
			res, err := p.Do(newRequest(t, method, "a", ""), new(Attempt))
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.ReadAll(res.Body)
			_ = res.Body.Close()
			if res.Request.Context().Err() == nil {
				t.Errorf("%s %s: the context has not ended", protocol, method)
			}
		}
	}
}

func TestNoConnectionAtAll(t *testing.T) {
	a, b := refused(t), refused(t)
	_, p := newPoolOf(t, Options{}, route.HTTP, a, b)
	r := do(p, newRequest(t, "POST", "a.example.com", "hello"))
	if r.reason() != route.BackendConnectFailed || r.Tries != 2 {
		t.Errorf("err = %v after %d tries, want %s after 2", r.err, r.Tries, route.BackendConnectFailed)
	}
	if want := "connect to " + r.Endpoint + ": connect: connection refused"; !strings.Contains(r.err.Error(), want) {
		t.Errorf("err = %q, want it to contain %q", r.err, want)
	}
}

func TestTriesAreBounded(t *testing.T) {
	var down []string
	for range 10 {
		down = append(down, refused(t))
	}
	_, p := newPoolOf(t, Options{MaxTries: 4}, route.HTTP, down...)
	if r := do(p, newRequest(t, "GET", "a", "")); r.reason() != route.BackendConnectFailed || r.Tries != 4 {
		t.Errorf("%v after %d tries, want 4", r.err, r.Tries)
	}
	clock := newClock()
	_, p = newPoolOf(t, Options{MaxTries: 8, ConnectTimeout: 5 * time.Second, Now: clock.now, Hooks: Hooks{
		Connected: func(route.PoolKey, string, time.Duration, error) { clock.add(2 * time.Second) },
	}}, route.HTTP, down...)
	if r := do(p, newRequest(t, "GET", "a", "")); r.reason() != route.BackendConnectFailed || r.Tries != 3 {
		t.Errorf("%v after %d tries of 2 s, want 3", r.err, r.Tries)
	}
}

func TestPoolWithoutEndpoints(t *testing.T) {
	s, p := newPoolOf(t, Options{}, route.HTTP)
	r := do(p, newRequest(t, "POST", "a", "hello"))
	if r.reason() != route.NoEndpoints || r.Tries != 0 || r.err.Error() != "no-endpoints: the pool has no endpoints" {
		t.Errorf("err = %v", r.err)
	}
	s.Close()
	if r := do(p, newRequest(t, "GET", "a", "")); r.reason() != route.NoEndpoints {
		t.Errorf("after Close: err = %v", r.err)
	}
	if s.Pool(route.PoolKey{Service: "x"}) != nil {
		t.Error("a pool that was not installed exists")
	}
}

// A backend's answers that are not valid HTTP, or over a limit.
func TestInvalidResponses(t *testing.T) {
	tests := []struct {
		name, answer string
		want         route.Reason
	}{
		{"status 099", "HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n", route.BackendProtocol},
		{"status 000", "HTTP/1.1 000 Low\r\nContent-Length: 0\r\n\r\n", route.BackendProtocol},
		{"status 1000", "HTTP/1.1 1000 High\r\nContent-Length: 0\r\n\r\n", route.BackendProtocol},
		{"status abc", "HTTP/1.1 abc What\r\nContent-Length: 0\r\n\r\n", route.BackendProtocol},
		{"257 fields", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 256) + "Content-Length: 0\r\n\r\n", route.BackendProtocol},
		{"256 fields", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 255) + "Content-Length: 0\r\n\r\n", ""},
		{"300 KB of header", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: "+strings.Repeat("y", 30_000)+"\r\n", 10) + "Content-Length: 0\r\n\r\n", route.BackendProtocol},
		{"17 times 103", strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n", 17) + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", route.BackendProtocol},
		{"16 times 103", strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n", 16) + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""},
		{"not HTTP", "SSH-2.0-OpenSSH_9.2\r\nwhatever\r\n\r\n", route.BackendProtocol},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", route.BackendProtocol},
		{"cut in the head", "HTTP/1.1 200 OK\r\nA: b\r\n", route.BackendReset},
		{"nothing", "", route.BackendReset},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := raw(t, func(c net.Conn) {
				if readHead(c) {
					_, _ = io.WriteString(c, tt.answer)
				}
			})
			s, p := newPoolOf(t, Options{}, route.HTTP, b)
			r := do(p, newRequest(t, "GET", "a.example.com", ""))
			if r.reason() != tt.want || r.Tries != 1 {
				t.Errorf("err = %v after %d tries, want reason %q", r.err, r.Tries, tt.want)
			}
			if st := statusOf(t, s, b); !st.Healthy {
				t.Errorf("ejected: %+v", st)
			}
			eventually(t, "connection is closed, nothing is in flight", func() bool {
				st := statusOf(t, s, b)
				return st.InFlight == 0 && (tt.want == "" || st.Connections == 0)
			})
		})
	}
}

func TestInformationalResponsesComeInOrderAndBeforeTheResponse(t *testing.T) {
	for _, protocol := range []route.Protocol{route.HTTP, route.H2C} {
		t.Run(string(protocol), func(t *testing.T) {
			b := serve(t, protocol, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				for i := range 10 {
					w.Header().Set("N", fmt.Sprint(i))
					w.WriteHeader(http.StatusEarlyHints)
				}
				w.WriteHeader(http.StatusNoContent)
			}))
			_, p := newPoolOf(t, Options{}, protocol, b.Address)
			got := ""
			a := &Attempt{Informational: func(code int, h http.Header) error {
				got += fmt.Sprint(code, ":", h.Get("N"), " ")
				return nil
			}}
			res, err := p.Do(newRequest(t, "GET", "a", ""), a)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if want := "103:0 103:1 103:2 103:3 103:4 103:5 103:6 103:7 103:8 103:9 "; got != want || res.StatusCode != 204 {
				t.Errorf("got %q, then %d; want %q, then 204", got, res.StatusCode, want)
			}
		})
	}
}

func TestErrorOfInformationalEndsTheRequest(t *testing.T) {
	b := serve(t, route.H2C, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		<-r.Context().Done()
	}))
	s, p := newPoolOf(t, Options{}, route.H2C, b.Address)
	broken := errors.New("client is gone")
	_, err := p.Do(newRequest(t, "GET", "a", ""), &Attempt{Informational: func(int, http.Header) error { return broken }})
	if e := (*Error)(nil); !errors.As(err, &e) || e.Reason != route.ClientClosed || !errors.Is(err, broken) {
		t.Errorf("err = %v", err)
	}
	if st := statusOf(t, s, b.Address); st.Failures != 0 {
		t.Errorf("held against the backend: %+v", st)
	}
}

// A client that takes its time over a 103 must not stop the others on the same HTTP/2 connection.
func TestSlowInformationalDoesNotStopOtherStreams(t *testing.T) {
	b := serve(t, route.H2C, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "GET" {
			w.WriteHeader(http.StatusEarlyHints)
		}
	}))
	_, p := newPoolOf(t, Options{}, route.H2C, b.Address)
	if r := do(p, newRequest(t, "DELETE", "a", "")); r.err != nil {
		t.Fatal(r.err)
	}
	stuck, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		res, err := p.Do(newRequest(t, "GET", "a", ""), &Attempt{Informational: func(int, http.Header) error {
			close(stuck)
			<-release
			return nil
		}})
		if err != nil {
			t.Error(err)
			return
		}
		_ = res.Body.Close()
	})
	<-stuck
	for range 10 {
		if r := do(p, newRequest(t, "DELETE", "a", "")); r.err != nil || !r.Reused {
			t.Errorf("%+v", r)
		}
	}
	close(release)
	wg.Wait()
}

func TestHeaderTimeout(t *testing.T) {
	for _, protocol := range []route.Protocol{route.HTTP, route.H2C} {
		t.Run(string(protocol), func(t *testing.T) {
			b := serve(t, protocol, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				<-r.Context().Done()
			}))
			s, p := newPoolOf(t, Options{HeaderTimeout: 20 * time.Millisecond}, protocol, b.Address)
			start := time.Now()
			r := do(p, newRequest(t, "POST", "a", "hello"))
			if d := time.Since(start); r.reason() != route.BackendTimeout || d < 20*time.Millisecond {
				t.Errorf("err = %v after %v", r.err, d)
			}
			if st := statusOf(t, s, b.Address); !st.Healthy || st.Failures != 0 {
				t.Errorf("a timeout was held against the backend: %+v", st)
			}
			// A deadline counts in its place, be it longer.
			start = time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Millisecond)
			defer cancel()
			r = do(p, newRequest(t, "GET", "a", "").WithContext(ctx))
			if d := time.Since(start); r.reason() != route.BackendTimeout || d < 60*time.Millisecond {
				t.Errorf("err = %v after %v, want %s after 60 ms", r.err, d, route.BackendTimeout)
			}
		})
	}
}

func TestHeaderTimeoutOfAttemptAndNone(t *testing.T) {
	x := &exchange{pool: newPool(New(Options{}), &route.Pool{}), req: newRequest(t, "GET", "a", ""), attempt: &Attempt{}}
	if got := x.headerTimeout(); got != time.Minute {
		t.Errorf("default = %v", got)
	}
	x.attempt.HeaderTimeout = -1
	if got := x.headerTimeout(); got != 0 {
		t.Errorf("without limit = %v", got)
	}
	x.attempt.HeaderTimeout = time.Hour
	if got := x.headerTimeout(); got != time.Hour {
		t.Errorf("own = %v", got)
	}
}

// The limit begins when the request has been sent: a slow upload is no slow answer.
func TestSlowUploadIsNoHeaderTimeout(t *testing.T) {
	b := serve(t, route.HTTP, echo("a"))
	_, p := newPoolOf(t, Options{HeaderTimeout: 300 * time.Millisecond}, route.HTTP, b.Address)
	pr, pw := io.Pipe()
	req := newRequest(t, "POST", "a", "x")
	req.Body, req.ContentLength = pr, -1
	go func() {
		for range 8 {
			time.Sleep(50 * time.Millisecond) // the client's own pace
			_, _ = io.WriteString(pw, "x")
		}
		_ = pw.Close()
	}()
	if r := do(p, req); r.err != nil || !strings.Contains(r.body, "body=8") {
		t.Errorf("%q, %v", r.body, r.err)
	}
}

func TestWhoseFaultItIs(t *testing.T) {
	answer := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	marked, denied, plain := &bodyError{true}, &bodyError{false}, errors.New("connection reset by client")
	tests := []struct {
		name   string
		body   io.Reader
		length int64
		cancel error // cause
		want   route.Reason
		wantIs error
	}{
		{"malformed body", failing("abc", marked), -1, nil, route.BadBody, marked},
		{"malformed body after much", failing(strings.Repeat("x", 1<<20), marked), -1, nil, route.BadBody, marked},
		{"body error of our own", failing("abc", denied), -1, nil, route.Internal, denied},
		{"body error of anybody", failing("abc", plain), -1, nil, route.BadBody, plain},
		{"body too short", strings.NewReader("abc"), 10, nil, route.BadBody, io.ErrUnexpectedEOF},
		{"client left", nil, 0, context.Canceled, route.ClientClosed, context.Canceled},
		{"cause says more", nil, 0, reasonError{route.RequestTimeout}, route.RequestTimeout, reasonError{route.RequestTimeout}},
	}
	for _, protocol := range []route.Protocol{route.HTTP, route.H2C, route.HTTPS} {
		b := serve(t, protocol, answer)
		s, p := newPoolOf(t, Options{}, protocol, b.Address)
		for _, tt := range tests {
			t.Run(string(protocol)+" "+tt.name, func(t *testing.T) {
				req := newRequest(t, "POST", "a.example.com", "")
				if tt.body != nil {
					if s, ok := tt.body.(*strings.Reader); ok {
						_, _ = s.Seek(0, io.SeekStart)
					}
					if f, ok := tt.body.(*failingReader); ok {
						f.pos = 0
					}
					req.Body, req.ContentLength = io.NopCloser(tt.body), tt.length
				}
				ctx, cancel := context.WithCancelCause(t.Context())
				if tt.cancel != nil {
					time.AfterFunc(5*time.Millisecond, func() { cancel(tt.cancel) })
				}
				defer cancel(nil)
				r := do(p, req.WithContext(ctx))
				if r.reason() != tt.want || !errors.Is(r.err, tt.wantIs) {
					t.Errorf("err = %v, want %s: %v", r.err, tt.want, tt.wantIs)
				}
			})
		}
		if st := statusOf(t, s, b.Address); st.Failures != 0 || !st.Healthy || st.InFlight != 0 {
			t.Errorf("%s: held against the backend: %+v", protocol, st)
		}
	}
}

type bodyError struct{ client bool }

func (e *bodyError) Error() string     { return "malformed chunk" }
func (e *bodyError) ClientFault() bool { return e.client }

type reasonError struct{ reason route.Reason }

func (e reasonError) Error() string        { return string(e.reason) }
func (e reasonError) Reason() route.Reason { return e.reason }

// failing returns a reader that fails behind a text.
func failing(text string, err error) *failingReader { return &failingReader{text: text, err: err} }

type failingReader struct {
	text string
	pos  int
	err  error
}

func (f *failingReader) Read(p []byte) (int, error) {
	n := copy(p, f.text[f.pos:])
	if f.pos += n; n == 0 {
		return 0, f.err
	}
	return n, nil
}

// A client that leaves cancels its request at the backend.
func TestBackendIsToldThatClientLeft(t *testing.T) {
	for _, protocol := range []route.Protocol{route.HTTP, route.H2C, route.HTTPS} {
		t.Run(string(protocol), func(t *testing.T) {
			begun, ended := make(chan struct{}, 1), make(chan struct{}, 1)
			b := serve(t, protocol, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == "GET" {
					w.WriteHeader(200)
					_ = http.NewResponseController(w).Flush()
				}
				begun <- struct{}{}
				<-r.Context().Done()
				ended <- struct{}{}
			}))
			s, p := newPoolOf(t, Options{}, protocol, b.Address)
			for _, method := range []string{"GET", "DELETE"} { // after the response's head, and before
				ctx, cancel := context.WithCancel(t.Context())
				go func() { <-begun; cancel() }()
				r := do(p, newRequest(t, method, "a", "").WithContext(ctx))
				if !errors.Is(r.err, context.Canceled) {
					t.Errorf("%s: err = %v", method, r.err)
				}
				<-ended
			}
			if st := statusOf(t, s, b.Address); st.Failures != 0 || st.InFlight != 0 {
				t.Errorf("%+v", st)
			}
		})
	}
}

func TestUpgrade(t *testing.T) {
	shout := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "shout" || r.ProtoMajor != 1 {
			http.Error(w, "no upgrade in "+r.Proto, http.StatusBadRequest)
			return
		}
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = c.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\nHELLO\n"))
		line, err := rw.ReadString('\n')
		if err != nil {
			t.Error(err)
		}
		_, _ = io.WriteString(c, strings.ToUpper(line))
		if rest, err := io.ReadAll(rw); len(rest) > 0 || err != nil {
			t.Errorf("after CloseWrite the backend read %q, %v", rest, err)
		}
		_, _ = io.WriteString(c, "BYE\n")
	})
	for pool, server := range map[route.Protocol]route.Protocol{route.HTTP: route.HTTP, route.WS: route.HTTP, route.HTTPS: route.HTTPS, route.WSS: route.WSS, route.H2C: route.H2C} {
		t.Run(string(pool), func(t *testing.T) {
			b := serve(t, server, shout)
			s, p := newPoolOf(t, Options{}, pool, b.Address)
			do(p, newRequest(t, "GET", "a.example.com", "")) // may leave a connection in HTTP/2
			req := newRequest(t, "GET", "a.example.com", "")
			req.Header.Set("Connection", "Upgrade")
			req.Header.Set("Upgrade", "shout")
			ctx, cancel := context.WithCancel(t.Context())
			res, err := p.Do(req.WithContext(ctx), new(Attempt))
			if err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != http.StatusSwitchingProtocols {
				b, _ := io.ReadAll(res.Body)
				t.Fatalf("status %d: %s", res.StatusCode, b)
			}
			cancel() // has no effect any more
			rwc, ok := res.Body.(io.ReadWriteCloser)
			if !ok {
				t.Fatalf("the body is a %T", res.Body)
			}
			if st := statusOf(t, s, b.Address); st.InFlight != 1 {
				t.Errorf("in flight: %d, want 1", st.InFlight)
			}
			_, _ = io.WriteString(rwc, "how are you\n")
			if err := rwc.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Errorf("CloseWrite: %v", err)
			}
			text, err := io.ReadAll(rwc)
			if string(text) != "HELLO\nHOW ARE YOU\nBYE\n" || err != nil {
				t.Errorf("read %q, %v", text, err)
			}
			_ = rwc.Close()
			if st := statusOf(t, s, b.Address); st.InFlight != 0 {
				t.Errorf("in flight: %d, want 0", st.InFlight)
			}
		})
	}
}

// Both directions of a request are open at the same time.
func TestFullDuplex(t *testing.T) {
	for _, protocol := range []route.Protocol{route.HTTP, route.H2C, route.HTTPS} {
		t.Run(string(protocol), func(t *testing.T) {
			b := serve(t, protocol, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				rc := http.NewResponseController(w)
				_ = rc.EnableFullDuplex()
				_ = rc.Flush()
				for in := bufio.NewScanner(r.Body); in.Scan(); _ = rc.Flush() {
					fmt.Fprintln(w, strings.ToUpper(in.Text()))
				}
			}))
			_, p := newPoolOf(t, Options{}, protocol, b.Address)
			pr, pw := io.Pipe()
			req := newRequest(t, "POST", "a", "x")
			req.Body, req.ContentLength = pr, -1
			res, err := p.Do(req, new(Attempt))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			in := bufio.NewScanner(res.Body)
			for i := range 5 {
				fmt.Fprintf(pw, "line %d\n", i)
				if want := fmt.Sprintf("LINE %d", i); !in.Scan() || in.Text() != want {
					t.Fatalf("got %q, %v, want %q", in.Text(), in.Err(), want)
				}
			}
			_ = pw.Close()
			if in.Scan() || in.Err() != nil {
				t.Errorf("after the end: %q, %v", in.Text(), in.Err())
			}
		})
	}
}

func TestTrailersBothWays(t *testing.T) {
	for _, protocol := range []route.Protocol{route.HTTP, route.H2C} {
		b := serve(t, protocol, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "Got")
			_, _ = io.Copy(w, r.Body)
			w.Header().Set("Got", r.Trailer.Get("Checksum"))
		}))
		_, p := newPoolOf(t, Options{}, protocol, b.Address)
		req := newRequest(t, "POST", "a", "hello")
		req.ContentLength = -1
		req.Trailer = http.Header{"Checksum": {"abc"}}
		res, err := p.Do(req, new(Attempt))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if string(body) != "hello" || err != nil || res.Trailer.Get("Got") != "abc" {
			t.Errorf("%s: body %q, %v, trailer %v", protocol, body, err, res.Trailer)
		}
	}
}

// When a backend refuses further streams on an HTTP/2 connection, there must be more connections.
func TestSeveralConnectionsWhenStreamsRunOut(t *testing.T) {
	for _, protocol := range []route.Protocol{route.H2C, route.HTTPS} {
		t.Run(string(protocol), func(t *testing.T) { testStreamsRunOut(t, protocol) })
	}
}

func testStreamsRunOut(t *testing.T, protocol route.Protocol) {
	const streams, requests = 100, 250
	var arrived sync.WaitGroup
	arrived.Add(requests)
	b := serve(t, protocol, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("it came by %s", r.Proto)
		}
		arrived.Done()
		arrived.Wait() // all at the same time
	}), func(s *http.Server) { s.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: streams} })
	s, p := newPoolOf(t, Options{}, protocol, b.Address)
	var wg sync.WaitGroup
	for range requests {
		wg.Go(func() {
			if r := do(p, newRequest(t, "POST", "a", "hello")); r.err != nil {
				t.Error(r.err)
			}
		})
	}
	wg.Wait()
	if n := statusOf(t, s, b.Address).Connections; n < requests/streams {
		t.Errorf("%d connections", n)
	}
}
