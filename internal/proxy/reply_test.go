package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/fairlead-io/fairlead/internal/route"
)

// frames is an HTTP/2 client that does what it is told.
type frames struct {
	*http2.Framer
	t testing.TB
	c net.Conn
}

// dialFrames connects and sends the settings.
func (r *rig) dialFrames(settings ...http2.Setting) *frames {
	r.t.Helper()
	c := r.dial()
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		r.t.Fatal(err)
	}
	f := &frames{http2.NewFramer(c, c), r.t, c}
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := f.WriteSettings(settings...); err != nil {
		r.t.Fatal(err)
	}
	return f
}

// get sends a GET.
func (f *frames) get(stream uint32, path string) {
	f.t.Helper()
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for _, h := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "app.test"}, {":path", path}} {
		_ = e.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
	}
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: b.Bytes(), EndStream: true, EndHeaders: true}); err != nil {
		f.t.Fatal(err)
	}
}

// until reads frames until one of them ends the stream, and says how.
func (f *frames) until(stream uint32) string {
	f.t.Helper()
	status := ""
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return status + err.Error()
		}
		if frame.Header().StreamID != stream {
			continue
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			status = frame.PseudoValue("status") + " "
		case *http2.RSTStreamFrame:
			return status + frame.ErrCode.String()
		case *http2.DataFrame:
			status += string(frame.Data())
		}
		if frame.Header().Flags.Has(http2.FlagDataEndStream) {
			return status
		}
	}
}

// An HTTP/2 client that takes nothing holds a handler and a backend for as long as one write may take, however small the response is.
func TestClientWithoutAWindow(t *testing.T) {
	for name, size := range map[string]int{"one byte": 1, "one buffer": 4 << 10, "more": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			gone := make(chan error, 1)
			addr := serveHTTP(t, func(w http.ResponseWriter, _ *http.Request) {
				_, err := w.Write(make([]byte, size))
				gone <- err
			})
			r := newRig(t, h2c, one(service("web", route.HTTP), addr), limited(func(l *Limits) { l.WriteTimeout = 100 * time.Millisecond }))
			f := r.dialFrames(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			f.get(1, "/")
			if got := f.until(1); got != "200 INTERNAL_ERROR" {
				t.Errorf("got %q", got)
			}
			if err := <-gone; err != nil && size < 1<<20 {
				t.Errorf("backend: %v", err)
			}
			// The connection is fine.
			if err := f.WriteWindowUpdate(0, 1<<20); err != nil {
				t.Error(err)
			}
			f.get(3, "/")
			if err := f.WriteWindowUpdate(3, 1<<21); err != nil {
				t.Error(err)
			}
			if got := f.until(3); len(got) != size+4 {
				t.Errorf("second request: %.50q", got)
			}
			_ = f.c.Close()
			if e := r.entries(); len(e) != 2 || size > 4<<10 && e[0]["reason"] != "client-closed" {
				t.Errorf("logged %v", e)
			}
		})
	}
}

// The time that a write may take is not the time that may pass between two.
func TestQuietStreamsAreNotStalled(t *testing.T) {
	const timeout = 50 * time.Millisecond
	addr := serveHTTP(t, func(w http.ResponseWriter, _ *http.Request) {
		for i := range 4 {
			_, _ = fmt.Fprint(w, i)
			_ = http.NewResponseController(w).Flush()
			time.Sleep(2 * timeout) // to be slow
		}
	})
	eachMode(t, func(t *testing.T, m mode) {
		r := newRig(t, m, one(service("web", route.HTTP), addr), limited(func(l *Limits) { l.WriteTimeout, l.ReadTimeout = timeout, timeout }))
		if res := r.get("/"); res.body != "0123" || res.err != nil {
			t.Errorf("got %q, %v", res.body, res.err)
		}
	})
}

func TestRuleTimeouts(t *testing.T) {
	var entered, left atomic.Int64
	// Every request that reached the backend is taken back; one that met its timeout on the way there never does.
	takenBack := func(t *testing.T) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); entered.Load() != left.Load(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d of %d requests were not taken back from the backend", entered.Load()-left.Load(), entered.Load())
			}
		}
	}
	handler := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/begun" {
			w.WriteHeader(http.StatusOK)
			_, _ = io.WriteString(w, "begun")
			_ = http.NewResponseController(w).Flush()
		}
		if r.URL.Path != "/quick" {
			entered.Add(1)
			defer left.Add(1)
			// The proxy takes the request back: until the body was read that is an error of reading it.
			if _, err := io.Copy(io.Discard, r.Body); err == nil {
				<-r.Context().Done()
			}
		}
	}
	const short = 60 * time.Millisecond
	for _, p := range []route.Protocol{route.HTTP, route.H2C} {
		addr := serveBackend(t, p, handler)
		for _, test := range []struct {
			name     string
			timeouts route.Timeouts
			reason   route.Reason
		}{
			{"request", route.Timeouts{Request: short}, route.RequestTimeout},
			{"backend", route.Timeouts{Backend: short}, route.BackendTimeout},
			{"request before backend", route.Timeouts{Request: short, Backend: time.Hour}, route.RequestTimeout},
			{"backend before request", route.Timeouts{Request: time.Hour, Backend: short}, route.BackendTimeout},
			{"backend, no limit for the request", route.Timeouts{Request: -1, Backend: short}, route.BackendTimeout},
		} {
			t.Run(string(p)+" "+test.name, func(t *testing.T) {
				eachMode(t, func(t *testing.T, m mode) {
					w := one(service("web", p), addr)
					w.rules[0].Timeouts = test.timeouts
					generous := rule("/quick", service("web", p))
					generous.Timeouts = route.Timeouts{Request: time.Minute, Backend: time.Minute}
					w.rules = append(w.rules, generous)
					r := newRig(t, m, w)
					if res := r.get("/quick"); res.StatusCode != 200 {
						t.Errorf("quick: got %d", res.StatusCode)
					}
					if res := r.get("/stuck"); res.StatusCode != 504 || res.Header.Get(ReasonHeader) != string(test.reason) {
						t.Errorf("stuck: got %d %s", res.StatusCode, res.Header.Get(ReasonHeader))
					}
					takenBack(t)
					timedOut := 3
					res := r.get("/begun")
					for ; res.StatusCode == 504 && timedOut < 10; timedOut++ { // the machine was too busy for it to begin in time
						res = r.get("/begun")
					}
					if res.StatusCode != 200 || res.body != "begun" || res.err == nil {
						t.Errorf("begun: got %d %q, %v; want it to be broken off", res.StatusCode, res.body, res.err)
					}
					takenBack(t)
					// A client that does not send its body does not keep the transport from coming back.
					pr, pw := io.Pipe()
					defer pw.Close()
					req := r.request(http.MethodPost, "/stuck", pr)
					go func() { _, _ = io.WriteString(pw, "part of a body") }()
					if res := r.do(req); res.StatusCode != 504 || res.Header.Get(ReasonHeader) != string(test.reason) {
						t.Errorf("stuck with a body: got %d %s", res.StatusCode, res.Header.Get(ReasonHeader))
					}
					_ = pw.Close()
					takenBack(t)
					for i, e := range r.entries() {
						if want := any(string(test.reason)); i > 0 && e["reason"] != want {
							t.Errorf("request %d: logged reason %v, want %v", i, e["reason"], want)
						}
					}
					want := 0.0
					if test.reason == route.BackendTimeout {
						want = float64(timedOut)
					}
					if n := r.counter("fairlead_backend_errors_total"); n != want {
						t.Errorf("%v errors were charged to the backend, want %v", n, want)
					}
				})
			})
		}
	}
}

func TestGRPCTimeout(t *testing.T) {
	addr := serveBackend(t, route.H2C, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	w := one(service("web", route.H2C), addr)
	w.rules[0].Timeouts.Request = 20 * time.Millisecond
	r := newRig(t, h2c, w)
	req := r.request(http.MethodPost, "/a.B/C", strings.NewReader("\x00\x00\x00\x00\x00"))
	req.Header.Set("Content-Type", "application/grpc")
	if res := r.do(req); res.StatusCode != 200 || res.Header.Get("Grpc-Status") != "4" || res.Header.Get("Grpc-Message") != "Gateway Timeout: request-timeout" {
		t.Errorf("got %d %v", res.StatusCode, res.Header)
	}
}

func TestBackendsThatFail(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close() // nobody listens there now
	eachMode(t, func(t *testing.T, m mode) {
		r := newRig(t, m, one(service("web", route.HTTP), l.Addr().String()))
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			var body io.Reader
			if method == http.MethodPost {
				body = strings.NewReader("body")
			}
			if res := r.do(r.request(method, "/", body)); res.StatusCode != 502 || res.Header.Get(ReasonHeader) != string(route.BackendConnectFailed) || res.Close {
				t.Errorf("%s: got %d %s, close %v", method, res.StatusCode, res.Header.Get(ReasonHeader), res.Close)
			}
		}
		r.stop()
		if n := r.counter("fairlead_backend_errors_total", "reason", "backend-connect-failed"); n != 2 {
			t.Errorf("%v errors were counted", n)
		}
	})
}

// While Fairlead drains every answer tells its client to go.
func TestDrainingAnswers(t *testing.T) {
	addr := serveHTTP(t, showTarget)
	eachMode(t, func(t *testing.T, m mode) {
		w := one(service("web", route.HTTP), addr)
		w.rules[0].Match.Path.Value = "/a"
		r := newRig(t, m, w)
		for _, target := range []string{"/a", "/nothing"} {
			r.p.drain.Store(false)
			if res := r.get(target); res.Close {
				t.Errorf("%s: closed before draining", target)
			}
			r.p.drain.Store(true)
			before := r.counter("fairlead_connections_total")
			res := r.get(target)
			if !m.http2 && !res.Close {
				t.Errorf("%s: the connection may be used again", target)
			}
			r.get(target)
			if opened := r.counter("fairlead_connections_total") - before; opened < 1 {
				t.Errorf("%s: the next request came on the same connection", target)
			}
		}
	})
}

// Endpoints, weights and routes change all the time; nobody notices.
func TestNothingFailsWhileEverythingChanges(t *testing.T) {
	const perClient = 400
	a, b := serveHTTP(t, named("a")), serveHTTP(t, named("b"))
	pool, other := service("web", route.HTTP), service("other", route.HTTP)
	worlds := []world{
		{rules: []*route.Rule{rule("/", pool)}, endpoints: map[*route.Pool][]string{pool: {a}}},
		{rules: []*route.Rule{rule("/", pool), rule("/more", other)}, endpoints: map[*route.Pool][]string{pool: {b}, other: {a, b}}},
		{rules: []*route.Rule{rule("/", other)}, endpoints: map[*route.Pool][]string{other: {a}}},
		{rules: []*route.Rule{rule("/", other)}, endpoints: map[*route.Pool][]string{other: {b, a}, pool: nil}},
	}
	eachMode(t, func(t *testing.T, m mode) {
		r := newRig(t, m, worlds[0])
		var clients, writer sync.WaitGroup
		var failed atomic.Int64
		done := make(chan struct{})
		writer.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
					r.swap(worlds[i%len(worlds)])
				}
			}
		})
		for i := range 4 {
			clients.Go(func() {
				for range perClient {
					method, body := http.MethodGet, io.Reader(nil)
					if i%2 == 1 {
						method, body = http.MethodPost, strings.NewReader("body")
					}
					if res := r.try(r.request(method, "/more", body)); res.StatusCode != 200 || res.err != nil {
						failed.Add(1)
						t.Errorf("%s: %d %q, %v", method, res.StatusCode, res.body, res.err)
					}
				}
			})
		}
		clients.Wait()
		close(done)
		writer.Wait()
		if n := failed.Load(); n > 0 {
			t.Errorf("%d of %d requests failed", n, 4*perClient)
		}
	})
}
