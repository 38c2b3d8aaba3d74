package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/fairlead-io/fairlead/internal/route"
)

// frames starts a backend that speaks HTTP/2 frame by frame: handle is called for each request, until it returns false.
func frames(t *testing.T, handle func(fr *http2.Framer, stream uint32, nth int) bool) (address string) {
	t.Helper()
	return raw(t, func(c net.Conn) {
		preface := make([]byte, len(http2.ClientPreface))
		if _, err := io.ReadFull(c, preface); err != nil || string(preface) != http2.ClientPreface {
			return
		}
		fr := http2.NewFramer(c, c)
		_ = fr.WriteSettings()
		for n := 0; ; {
			f, err := fr.ReadFrame()
			if err != nil {
				return
			}
			if s, ok := f.(*http2.SettingsFrame); ok && !s.IsAck() {
				_ = fr.WriteSettingsAck()
			}
			if h, ok := f.(*http2.HeadersFrame); ok {
				if n++; !handle(fr, h.StreamID, n) {
					return
				}
			}
		}
	})
}

// status200 is ":status: 200", as HPACK writes it.
var status200 = []byte{0x88}

func answer(fr *http2.Framer, stream uint32) {
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: status200, EndHeaders: true, EndStream: true})
}

func TestHTTP2Failures(t *testing.T) {
	tests := []struct {
		name   string
		handle func(fr *http2.Framer, stream uint32, nth int) bool
		want   route.Reason
	}{
		{"stream reset", func(fr *http2.Framer, s uint32, _ int) bool {
			_ = fr.WriteRSTStream(s, http2.ErrCodeInternal)
			return true
		}, route.BackendReset},
		{"connection closed", func(*http2.Framer, uint32, int) bool { return false }, route.BackendReset},
		{"no status", func(fr *http2.Framer, s uint32, _ int) bool {
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: s, EndHeaders: true, EndStream: true})
			return true
		}, route.BackendProtocol},
		{"status 99", func(fr *http2.Framer, s uint32, _ int) bool {
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: s, BlockFragment: []byte("\x08\x0299"), EndHeaders: true, EndStream: true})
			return true
		}, route.BackendProtocol},
		{"status 12345", func(fr *http2.Framer, s uint32, _ int) bool {
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: s, BlockFragment: []byte("\x08\x0512345"), EndHeaders: true, EndStream: true})
			return true
		}, route.BackendProtocol},
		{"goaway with an error", func(fr *http2.Framer, s uint32, _ int) bool {
			_ = fr.WriteGoAway(s, http2.ErrCodeInternal, []byte("bye"))
			return false
		}, route.BackendReset},
		{"body before its head", func(fr *http2.Framer, s uint32, _ int) bool { _ = fr.WriteData(s, true, []byte("x")); return true }, route.BackendProtocol},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := frames(t, tt.handle)
			s, p := newPoolOf(t, Options{}, route.H2C, b)
			r := do(p, newRequest(t, "POST", "a", "hello"))
			if r.reason() != tt.want {
				t.Errorf("err = %v, want %s", r.err, tt.want)
			}
			if st := statusOf(t, s, b); !st.Healthy || st.InFlight != 0 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// What a backend says it has not processed is sent again, with its body, whatever the method.
func TestHTTP2RequestsThatWereNotProcessedAreSentAgain(t *testing.T) {
	t.Run("refused stream", func(t *testing.T) {
		var n atomic.Int32
		b := frames(t, func(fr *http2.Framer, s uint32, _ int) bool {
			if n.Add(1) == 1 {
				_ = fr.WriteRSTStream(s, http2.ErrCodeRefusedStream)
			} else {
				answer(fr, s)
			}
			return true
		})
		_, p := newPoolOf(t, Options{}, route.H2C, b)
		if r := do(p, newRequest(t, "POST", "a", "hello")); r.err != nil || n.Load() != 2 {
			t.Errorf("%v after %d requests", r.err, n.Load())
		}
	})
	t.Run("goaway", func(t *testing.T) {
		var n atomic.Int32
		b := frames(t, func(fr *http2.Framer, s uint32, nth int) bool {
			switch n.Add(1); {
			case nth == 2 && n.Load() == 2:
				_ = fr.WriteGoAway(1, http2.ErrCodeNo, nil)
				return false
			default:
				answer(fr, s)
			}
			return true
		})
		s, p := newPoolOf(t, Options{}, route.H2C, b)
		for range 2 {
			if r := do(p, newRequest(t, "POST", "a", "hello")); r.err != nil {
				t.Error(r.err)
			}
		}
		if n.Load() != 3 {
			t.Errorf("%d requests, want 3", n.Load())
		}
		if st := statusOf(t, s, b); !st.Healthy || st.Failures != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// An HTTP/2 connection that dies is no reason to fail a GET, even if there is no other endpoint.
func TestHTTP2ConnectionDies(t *testing.T) {
	b := frames(t, func(fr *http2.Framer, s uint32, nth int) bool {
		if nth == 2 {
			return false
		}
		answer(fr, s)
		return true
	})
	s, p := newPoolOf(t, Options{}, route.H2C, b)
	for i := range 6 {
		if r := do(p, newRequest(t, "GET", "a", "")); r.err != nil || r.Tries != min(1+i, 2) {
			t.Errorf("GET %d: %v after %d tries", i, r.err, r.Tries)
		}
	}
	if st := statusOf(t, s, b); !st.Healthy {
		t.Errorf("%+v", st)
	}
}

func TestStreamResetsEject(t *testing.T) {
	bad := frames(t, func(fr *http2.Framer, s uint32, _ int) bool {
		_ = fr.WriteRSTStream(s, http2.ErrCodeInternal)
		return true
	})
	good := serve(t, route.H2C, echo("a"))
	s, p := newPoolOf(t, Options{}, route.H2C, bad, good.Address)
	for range 10 {
		if r := do(p, newRequest(t, "GET", "a", "")); r.err != nil || r.Endpoint != good.Address {
			t.Errorf("%v %+v", r.err, r.Attempt)
		}
	}
	if st := statusOf(t, s, bad); st.Healthy || !strings.Contains(st.LastError, "INTERNAL_ERROR") {
		t.Errorf("%+v", st)
	}
}

// A Service that says h2c and means HTTP/1.1 gets an error, whichever is seen first of what its backend does: answer nonsense, or hang up
// before or after the request was written.
func TestBackendSpeaksAnotherProtocol(t *testing.T) {
	b := serve(t, route.HTTP, echo("a"))
	_, p := newPoolOf(t, Options{}, route.H2C, b.Address)
	r := do(p, newRequest(t, "POST", "a", "hello"))
	if !slices.Contains([]route.Reason{route.BackendProtocol, route.BackendReset, route.BackendConnectFailed}, r.reason()) {
		t.Errorf("err = %v", r.err)
	}
	b = serve(t, route.HTTPS, echo("a"))
	_, p = newPoolOf(t, Options{}, route.HTTP, b.Address)
	// To HTTP over a TLS port Go servers answer 400 in plain HTTP.
	if r := do(p, newRequest(t, "POST", "a", "hello")); r.status != http.StatusBadRequest {
		t.Errorf("%d, %v", r.status, r.err)
	}
}

// Backends that shut down in the way servers do, one after the other, under load.
func TestRollingShutdown(t *testing.T) {
	for _, protocol := range []route.Protocol{route.HTTP, route.H2C, route.HTTPS} {
		t.Run(string(protocol), func(t *testing.T) {
			servers := []*server{serve(t, protocol, echo("0")), serve(t, protocol, echo("1")), serve(t, protocol, echo("2"))}
			addresses := func() (out []string) {
				for _, s := range servers {
					out = append(out, s.Address)
				}
				return out
			}
			s, p := newPoolOf(t, Options{}, protocol, addresses()...)
			var stop atomic.Bool
			var sent atomic.Int64
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					for !stop.Load() {
						method, body := "GET", ""
						if protocol != route.HTTP { // HTTP/1.1 has no way to tell that a POST was not read
							method, body = "POST", "hello"
						}
						if r := do(p, newRequest(t, method, "a.example.com", body)); r.err != nil {
							t.Errorf("%v %+v", r.err, r.Attempt)
							return
						}
						sent.Add(1)
					}
				})
			}
			for i := range 6 {
				for before := sent.Load(); sent.Load() < before+50 && !t.Failed(); {
					time.Sleep(time.Millisecond)
				}
				old := servers[i%3]
				servers[i%3] = serve(t, protocol, echo(fmt.Sprint(i)))
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				var down sync.WaitGroup
				down.Go(func() {
					if err := old.Shutdown(ctx); err != nil {
						t.Error(err)
					}
				})
				time.Sleep(5 * time.Millisecond) // the change arrives late
				setEndpoints(s, addresses()...)
				down.Wait()
				cancel()
			}
			stop.Store(true)
			wg.Wait()
		})
	}
}

func TestErrorText(t *testing.T) {
	err := error(&Error{Reason: route.BackendReset, Endpoint: "10.0.0.1:80", Err: io.EOF})
	if err.Error() != "backend-reset: endpoint 10.0.0.1:80: EOF" || !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}
