package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-io/fairlead/internal/route"
)

// A response streams as it is made: each part is with the client before the backend makes the next. Were it buffered anywhere, this would hang.
func TestServerSentEventsAreFlushedAtOnce(t *testing.T) {
	for _, p := range []route.Protocol{route.HTTP, route.H2C} {
		next := make(chan struct{})
		addr := serveBackend(t, p, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			for i := range 5 {
				select {
				case <-next:
				case <-r.Context().Done():
					return
				}
				_, _ = fmt.Fprintf(w, "data: %d\n\n", i)
				_ = http.NewResponseController(w).Flush()
			}
		})
		eachMode(t, func(t *testing.T, m mode) {
			r := newRig(t, m, one(service("web", p), addr))
			res, err := r.client.Do(r.request(http.MethodGet, "/", nil)) // returns with the head, before any event
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			br := bufio.NewReader(res.Body)
			var slowest time.Duration
			for i := range 5 {
				sent := time.Now()
				next <- struct{}{}
				if line, err := br.ReadString('\n'); line != fmt.Sprintf("data: %d\n", i) {
					t.Fatalf("event %d: %q, %v", i, line, err)
				}
				_, _ = br.Discard(1)
				slowest = max(slowest, time.Since(sent))
			}
			t.Logf("slowest event took %v", slowest)
		})
	}
}

// A response of known length is not held back either.
func TestSlowResponsesAreNotHeldBack(t *testing.T) {
	next := make(chan struct{})
	addr := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "15")
		for range 3 {
			_, _ = io.WriteString(w, "hello")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-next:
			case <-r.Context().Done():
				return
			}
		}
	})
	eachMode(t, func(t *testing.T, m mode) {
		r := newRig(t, m, one(service("web", route.HTTP), addr))
		res, err := r.client.Do(r.request(http.MethodGet, "/", nil))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		buf := make([]byte, 5)
		for range 3 {
			if _, err := io.ReadFull(res.Body, buf); err != nil || string(buf) != "hello" {
				t.Fatalf("got %q, %v", buf, err)
			}
			next <- struct{}{}
		}
	})
}

// gRPC: both ends talk at the same time, and the outcome is in the trailers.
func TestBidirectionalStreamsWithTrailers(t *testing.T) {
	for _, p := range []route.Protocol{route.HTTP, route.H2C, route.HTTPS} {
		addr := serveBackend(t, p, func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			_ = rc.EnableFullDuplex()
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("X-Te", r.Header.Get("Te"))
			w.Header().Set("Trailer", "Grpc-Status, Set-Cookie, X-Fairlead-Reason")
			w.WriteHeader(http.StatusOK)
			_ = rc.Flush()
			buf := make([]byte, 64)
			for {
				n, err := r.Body.Read(buf)
				if n > 0 {
					_, _ = w.Write(buf[:n])
					_ = rc.Flush()
				}
				if err != nil {
					break
				}
			}
			h := w.Header()
			h.Set("Grpc-Status", "0")
			h.Set("Set-Cookie", "a=b")
			h.Set(ReasonHeader, "x")
			h.Set(http.TrailerPrefix+"Grpc-Message", "fine")
			h.Set(http.TrailerPrefix+"User_meta-bin", "AA")
			h.Set(http.TrailerPrefix+"Authorization", "x")
		})
		eachMode(t, func(t *testing.T, m mode) {
			r := newRig(t, m, one(service("web", p), addr))
			pr, pw := io.Pipe()
			defer pw.Close()
			req := r.request(http.MethodPost, "/pkg.Service/Method", pr)
			req.Header.Set("Content-Type", "application/grpc")
			req.Header.Set("Te", "trailers")
			type result struct {
				res *http.Response
				err error
			}
			got := make(chan result, 1)
			go func() {
				res, err := r.client.Do(req)
				got <- result{res, err}
			}()
			_, _ = io.WriteString(pw, "first")
			answer := <-got
			if answer.err != nil {
				t.Fatal(answer.err)
			}
			res := answer.res
			defer res.Body.Close()
			buf := make([]byte, 64)
			for i := range 5 {
				want := "first"
				if i > 0 {
					want = fmt.Sprintf("message %d", i)
					_, _ = io.WriteString(pw, want)
				}
				if _, err := io.ReadFull(res.Body, buf[:len(want)]); err != nil || string(buf[:len(want)]) != want {
					t.Fatalf("message %d: %q, %v", i, buf[:len(want)], err)
				}
			}
			_ = pw.Close()
			if rest, err := io.ReadAll(res.Body); len(rest) > 0 || err != nil {
				t.Errorf("rest %q, %v", rest, err)
			}
			want := http.Header{"Grpc-Status": {"0"}, "Grpc-Message": {"fine"}, "User_meta-Bin": {"AA"}}
			if diff := cmp.Diff(want, res.Trailer); diff != "" {
				t.Errorf("%s: trailers: %s", p, diff)
			}
			if res.Header.Get("X-Te") != "trailers" {
				t.Errorf("backend got TE %q", res.Header.Get("X-Te"))
			}
		})
	}
}

// informationals returns a context that collects the 1xx responses to a request.
func informationals(ctx context.Context, got *[]string) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		*got = append(*got, fmt.Sprint(code, " ", h.Get("Link"), h.Get("X-Fairlead-Reason"), h.Get("Keep-Alive")))
		return nil
	}})
}

func TestInformationalResponses(t *testing.T) {
	repeat := func(s string, n int) []string { return slices.Repeat([]string{s}, n) }
	for _, test := range []struct {
		name   string
		raw    string
		want   []string // nil with a 502: how many were passed on before is a matter of luck
		status int
	}{
		{"early hints", "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nKeep-Alive: 5\r\nX-Fairlead-Reason: x\r\n\r\n", []string{"103 </a.css>"}, 200},
		{"processing", "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n", []string{"102 ", "103 a"}, 200},
		{"a 100 that nobody waits for", "HTTP/1.1 100 Continue\r\n\r\n", nil, 200},
		{"16 are passed on", strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 16), repeat("102 ", 16), 200},
		{"17 are too many", strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 17), nil, 502},
		{"200 are too many", strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 200), nil, 502},
	} {
		t.Run(test.name, func(t *testing.T) {
			addr := serveRaw(t, func(c net.Conn, _ *bufio.Reader) {
				_, _ = io.WriteString(c, test.raw+"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			})
			eachMode(t, func(t *testing.T, m mode) {
				r := newRig(t, m, one(service("web", route.HTTP), addr))
				var got []string
				req := r.request(http.MethodGet, "/", nil)
				res := r.do(req.WithContext(informationals(req.Context(), &got)))
				if test.status == http.StatusBadGateway {
					if res.Header.Get(ReasonHeader) != string(route.BackendProtocol) || len(got) > 16 {
						t.Errorf("reason %q, %d informational responses", res.Header.Get(ReasonHeader), len(got))
					}
					got = nil
				}
				if diff := cmp.Diff(test.want, got); diff != "" || res.StatusCode != test.status {
					t.Errorf("status %d, want %d; informational: %s", res.StatusCode, test.status, diff)
				}
				if res.Header.Get("Link") != "" {
					t.Errorf("final header %v", res.Header)
				}
			})
		})
	}
	t.Run("HTTP/1.0 clients get none", func(t *testing.T) {
		addr := serveRaw(t, func(c net.Conn, _ *bufio.Reader) {
			_, _ = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		})
		r := newRig(t, h1, one(service("web", route.HTTP), addr))
		if res, _ := sendRaw(t, r.dial(), "GET / HTTP/1.0\r\nHost: app.test\r\n\r\n"); res.StatusCode != 200 {
			t.Errorf("got %d", res.StatusCode)
		}
	})
}

// RFC 9110, section 10.1.1, end to end: the client sends its body when the backend asks for it, and never if the backend refuses.
func TestExpectContinue(t *testing.T) {
	accept := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/refuse" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		b, _ := io.ReadAll(r.Body)
		_, _ = w.Write(b)
	}
	addr := serveHTTP(t, accept)
	r := newRig(t, h1, one(service("web", route.HTTP), addr))
	const head = " HTTP/1.1\r\nHost: app.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
	t.Run("accepted", func(t *testing.T) {
		c := r.dial()
		res, br := sendRaw(t, c, "POST /accept"+head)
		if res.StatusCode != http.StatusContinue {
			t.Fatalf("got %d, want 100", res.StatusCode)
		}
		_, _ = io.WriteString(c, "body")
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(res.Body); res.StatusCode != 200 || string(b) != "body" {
			t.Errorf("got %d %q", res.StatusCode, b)
		}
	})
	t.Run("refused", func(t *testing.T) {
		c := r.dial()
		res, br := sendRaw(t, c, "POST /refuse"+head)
		if res.StatusCode != http.StatusForbidden || !res.Close {
			t.Errorf("got %d, close %v; want 403 and a closed connection", res.StatusCode, res.Close)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		if _, err := br.ReadByte(); !errors.Is(err, io.EOF) {
			t.Errorf("after the response: %v, want EOF", err)
		}
	})
	t.Run("by clients that only support it", func(t *testing.T) {
		over2 := serveBackend(t, route.H2C, accept)
		eachMode(t, func(t *testing.T, m mode) {
			r := newRig(t, m, one(service("web", route.H2C), over2))
			r.client.Transport.(*http.Transport).ExpectContinueTimeout = 10 * time.Second
			req := r.request(http.MethodPost, "/accept", strings.NewReader("body"))
			req.Header.Set("Expect", "100-continue")
			if res := r.do(req); res.body != "body" {
				t.Errorf("got %d %q", res.StatusCode, res.body)
			}
			req = r.request(http.MethodPost, "/refuse", strings.NewReader("body"))
			req.Header.Set("Expect", "100-continue")
			if res := r.do(req); res.StatusCode != 403 {
				t.Errorf("got %d %q", res.StatusCode, res.body)
			}
		})
	})
	t.Run("by clients of HTTP/2 to the end", func(t *testing.T) {
		for _, p := range []route.Protocol{route.HTTP, route.H2C} {
			asked := make(chan bool, 1)
			addr := serveBackend(t, p, func(w http.ResponseWriter, r *http.Request) { accept(w, r) })
			for _, m := range []mode{h2, h2c} {
				r := newRig(t, m, one(service("web", p), addr))
				r.client.Transport.(*http.Transport).ExpectContinueTimeout = time.Minute
				for path, want := range map[string]bool{"/accept": true, "/refuse": false} {
					req := r.request(http.MethodPost, path, strings.NewReader("body"))
					req.Header.Set("Expect", "100-continue")
					trace := &httptrace.ClientTrace{Got100Continue: func() { asked <- true }}
					res := r.do(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
					if got := len(asked) > 0; got != want || (res.StatusCode == 200) != want {
						t.Errorf("%s, %v %s: got %d %q; asked for the body: %v", p, m.name, path, res.StatusCode, res.body, got)
					}
					for len(asked) > 0 {
						<-asked
					}
				}
			}
		}
	})
	t.Run("when Fairlead answers", func(t *testing.T) {
		w := one(service("web", route.HTTP), addr)
		w.rules[0].Match.Path.Value = "/only"
		r := newRig(t, h1, w)
		if res, _ := sendRaw(t, r.dial(), "POST /other"+head); res.StatusCode != 404 || !res.Close {
			t.Errorf("got %d, close %v; want 404 and a closed connection", res.StatusCode, res.Close)
		}
	})
}

// A client that leaves takes its request to the backend with it. Nobody is to blame for that.
func TestClientThatLeavesCancelsItsRequest(t *testing.T) {
	for _, p := range []route.Protocol{route.HTTP, route.H2C} {
		arrived, gone := make(chan struct{}, 1), make(chan struct{}, 1)
		addr := serveBackend(t, p, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/begun" {
				w.WriteHeader(http.StatusOK)
				_ = http.NewResponseController(w).Flush()
			}
			arrived <- struct{}{}
			<-r.Context().Done()
			gone <- struct{}{}
		})
		eachMode(t, func(t *testing.T, m mode) {
			for _, target := range []string{"/waiting", "/begun"} {
				r := newRig(t, m, one(service("web", p), addr))
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() {
					defer close(done)
					if res, err := r.client.Do(r.request(http.MethodGet, target, nil).WithContext(ctx)); err == nil {
						_, _ = io.Copy(io.Discard, res.Body)
						_ = res.Body.Close()
					}
				}()
				<-arrived
				cancel()
				<-done
				<-gone
				e := r.entries()
				if len(e) != 1 || e[0]["reason"] != "client-closed" || target == "/waiting" && e[0]["status"] != 499.0 {
					t.Errorf("%s, %s: logged %v", p, target, e)
				}
				if n := r.counter("fairlead_backend_errors_total"); n != 0 {
					t.Errorf("%s, %s: %v errors were charged to the backend", p, target, n)
				}
			}
		})
	}
}

// A backend that answers before it has read the request is heard, and the rest of the request is never taken for the next one.
func TestEarlyResponse(t *testing.T) {
	addr := serveRaw(t, func(c net.Conn, r *bufio.Reader) {
		_, _ = io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlong")
		_, _ = io.Copy(io.Discard, r) // until the proxy closes
	})
	for name, head := range map[string]string{
		"length": "Content-Length: 1000000\r\n\r\n" + strings.Repeat("GET /smuggled HTTP/1.1\r\nHost: app.test\r\n\r\n", 10),
		"chunks": "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, h1, one(service("web", route.HTTP), addr))
			c := r.dial()
			res, br := sendRaw(t, c, "POST / HTTP/1.1\r\nHost: app.test\r\n"+head)
			b, err := io.ReadAll(res.Body)
			if res.StatusCode != 413 || string(b) != "long" || err != nil || !res.Close {
				t.Errorf("got %d %q, close %v, %v", res.StatusCode, b, res.Close, err)
			}
			if rest, _ := io.ReadAll(br); len(rest) > 0 {
				t.Errorf("then came %q", rest)
			}
			if e := r.entries(); len(e) != 1 {
				t.Errorf("%d requests were logged, want 1: %v", len(e), e)
			}
		})
	}
}

// Large bodies pass in both directions at once without being held.
func TestLargeBodiesBothWays(t *testing.T) {
	const size = 8 << 20
	addr := serveBackend(t, route.H2C, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	eachMode(t, func(t *testing.T, m mode) {
		r := newRig(t, m, one(service("web", route.H2C), addr))
		res, err := r.client.Do(r.request(http.MethodPost, "/", io.LimitReader(endless{}, size)))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if n, err := io.Copy(io.Discard, res.Body); n != size || err != nil {
			t.Errorf("got %d bytes and %v, want %d", n, err, size)
		}
		_ = res.Body.Close()
		e := r.entries()[0]
		if e["bytes_in"] != float64(size) || e["bytes_out"] != float64(size) {
			t.Errorf("logged %v", e)
		}
	})
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
