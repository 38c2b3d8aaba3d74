package proxy

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

func TestBodySizeLimit(t *testing.T) {
	var requests atomic.Int64
	addr := serveHTTP(t, func(_ http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			requests.Add(1)
		}
	})
	limit := limited(func(l *Limits) { l.BodyBytes = 100_000 })
	eachMode(t, func(t *testing.T, m mode) {
		for name, test := range map[string]struct {
			size      int64
			announced bool
			want      int
		}{
			"announced":           {100_001, true, 413},
			"not announced":       {100_001, false, 413},
			"far too much":        {5_000_000, false, 413},
			"just right":          {100_000, true, 200},
			"right, in chunks":    {100_000, false, 200},
			"none":                {0, true, 200},
			"empty, in chunks":    {0, false, 200},
			"announced, far more": {1 << 40, true, 413},
		} {
			requests.Store(0)
			r := newRig(t, m, one(service("web", route.HTTP), addr), limit)
			req := r.request(http.MethodPost, "/", io.LimitReader(endless{}, min(test.size, 5_000_000)))
			if test.announced {
				req.ContentLength = test.size
			}
			res := r.do(req)
			if res.StatusCode != test.want || test.want == 413 && res.Header.Get(ReasonHeader) != string(route.BodyTooLarge) {
				t.Errorf("%s: got %d %s", name, res.StatusCode, res.Header.Get(ReasonHeader))
			}
			if got, want := requests.Load(), map[int]int64{200: 1}[test.want]; got != want {
				t.Errorf("%s: backend got %d whole requests, want %d", name, got, want)
			}
			r.stop()
			if n := r.counter("fairlead_backend_errors_total"); n != 0 {
				t.Errorf("%s: %v errors were charged to the backend", name, n)
			}
		}
	})
}

// A client that stops in the middle of its body is told so. One that has all day, because the answer has begun or because it speaks gRPC, may wait.
func TestBodyThatDoesNotCome(t *testing.T) {
	addr := serveBackend(t, route.H2C, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/answer" {
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
		}
		b, _ := io.ReadAll(r.Body)
		_, _ = w.Write(b)
	})
	const timeout = 100 * time.Millisecond
	eachMode(t, func(t *testing.T, m mode) {
		r := newRig(t, m, one(service("web", route.H2C), addr), limited(func(l *Limits) { l.ReadTimeout = timeout }))
		for _, test := range []struct{ name, target, contentType, want string }{
			{"silent", "/", "", "408"},
			{"answered", "/answer", "", "200 beginend"},
			{"gRPC", "/", "application/grpc", "200 beginend"},
		} {
			pr, pw := io.Pipe()
			req := r.request(http.MethodPost, test.target, pr)
			req.Header.Set("Content-Type", test.contentType)
			go func() {
				_, _ = io.WriteString(pw, "begin")
				if test.want != "408" {
					time.Sleep(2 * timeout) // not to wait for something, but to be slow
					_, _ = io.WriteString(pw, "end")
					_ = pw.Close()
				}
			}()
			stop := time.AfterFunc(5*time.Second, func() { _ = pw.Close() })
			res := r.try(req)
			stop.Stop()
			if res.StatusCode == 0 {
				t.Fatalf("%s: %v, %v", test.name, res.err, r.entries())
			}
			_ = pw.Close()
			if got := strings.TrimSpace(res.Status[:3] + " " + res.body); test.want == "408" && (res.StatusCode != 408 ||
				res.Header.Get(ReasonHeader) != string(route.RequestTimeout)) || test.want != "408" && got != test.want {
				t.Errorf("%s: got %s %s", test.name, got, res.Header.Get(ReasonHeader))
			}
		}
		r.stop()
		if n := r.counter("fairlead_backend_errors_total"); n != 0 {
			t.Errorf("%v errors were charged to the backend", n)
		}
		if n := r.counter("fairlead_connections_total"); m.http2 && n != 1 {
			t.Errorf("%v connections were made; one stream must not end the others", n)
		}
	})
}

// trickle is a body of single bytes, each of which takes a while.
type trickle struct {
	every time.Duration
	left  int
}

func (s *trickle) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	time.Sleep(s.every)
	s.left--
	p[0] = 'x'
	return 1, nil
}

func (s *trickle) Close() error { return nil }

func TestBodyMinimumRate(t *testing.T) {
	for _, test := range []struct {
		name    string
		every   time.Duration
		grpc    bool
		patient bool
		want    error
		after   time.Duration
	}{
		{name: "slow", every: time.Second, want: errTooSlow, after: 11 * time.Second},
		{name: "fast enough", every: 4 * time.Millisecond},
		{name: "just too slow", every: 5 * time.Millisecond, want: errTooSlow, after: 61 * time.Second},
		{name: "gRPC", every: time.Second, grpc: true},
		{name: "answered", every: time.Second, patient: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				req := httptest.NewRequest(http.MethodPost, "/", &trickle{every: test.every, left: 15_000})
				if test.grpc {
					req.Header.Set("Content-Type", "application/grpc")
				}
				l := Limits{}.withDefaults()
				b := newClientBody(httptest.NewRecorder(), req, &l)
				defer b.close()
				if test.patient {
					b.setPatient()
				}
				begun := time.Now()
				_, err := io.Copy(io.Discard, b)
				if !errors.Is(err, test.want) || test.want != nil && (err == nil || time.Since(begun) > test.after) {
					t.Errorf("after %v: %v, want %v", time.Since(begun), err, test.want)
				}
			})
		})
	}
}

// blocked is a body whose reads wait until it is closed.
type blocked struct{ closed chan struct{} }

func (b *blocked) Read([]byte) (int, error) { <-b.closed; return 0, errors.New("closed") }
func (b *blocked) Close() error             { close(b.closed); return nil }

func TestBodyReadTimeout(t *testing.T) {
	for _, test := range []struct {
		name    string
		limits  Limits
		patient bool
		want    time.Duration
	}{
		{"default", Limits{}, false, time.Minute},
		{"shorter", Limits{ReadTimeout: time.Second}, false, time.Second},
		{"in a conversation", Limits{}, true, time.Hour},
		{"in a short conversation", Limits{TunnelIdle: 2 * time.Minute}, true, 2 * time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				req := httptest.NewRequest(http.MethodPost, "/", &blocked{make(chan struct{})})
				req.ProtoMajor = 2
				l := test.limits.withDefaults()
				b := newClientBody(httptest.NewRecorder(), req, &l)
				if test.patient {
					// While the read is waiting already.
					time.AfterFunc(30*time.Second, b.setPatient)
				}
				begun := time.Now()
				_, err := b.Read(make([]byte, 10))
				if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) != test.want {
					t.Errorf("after %v: %v, want a timeout after %v", time.Since(begun), err, test.want)
				}
				if f := b.fault(false); f == nil || f.status != http.StatusRequestTimeout {
					t.Errorf("fault %v", f)
				}
				b.close()
			})
		})
	}
}

// Whoever waits for a transport can have the read come back that it waits for, and what the client did is then no fault of it.
func TestBodyIsWokenUp(t *testing.T) {
	for name, wake := range map[string]func(*clientBody){
		"by Close": func(b *clientBody) { _ = b.Close() },
		"by close": func(b *clientBody) { b.close() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				req := httptest.NewRequest(http.MethodPost, "/", &blocked{make(chan struct{})})
				req.ProtoMajor = 2
				l := Limits{}.withDefaults()
				b := newClientBody(httptest.NewRecorder(), req, &l)
				done := make(chan error)
				go func() {
					_, err := b.Read(make([]byte, 10))
					done <- err
				}()
				synctest.Wait()
				wake(b)
				if err := <-done; !errors.Is(err, errBodyClosed) {
					t.Errorf("got %v", err)
				}
				if f := b.fault(false); f != nil {
					t.Errorf("fault %v", f)
				}
				if _, err := b.Read(make([]byte, 10)); err == nil {
					t.Error("it can be read again")
				}
				b.close()
			})
		})
	}
	t.Run("not by a Close between two reads", func(t *testing.T) {
		l := Limits{}.withDefaults()
		b := newClientBody(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", strings.NewReader("body")), &l)
		_ = b.Close()
		if got, err := io.ReadAll(b); string(got) != "body" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		b.close()
		if !b.ended.Load() {
			t.Error("not at its end")
		}
	})
}

func TestWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var barks []time.Duration
		begun := time.Now()
		d := &watchdog{limit: time.Minute}
		d.bark = func() { barks = append(barks, time.Since(begun)) }
		for range 100 { // never longer than a minute, and always again
			d.begin()
			time.Sleep(59 * time.Second)
			if took, late := d.end(); late || took != 59*time.Second {
				t.Fatalf("took %v, late %v", took, late)
			}
			time.Sleep(time.Second)
		}
		if len(barks) > 0 {
			t.Fatalf("barked at %v", barks)
		}
		time.Sleep(time.Hour)
		begun = time.Now()
		d.begin()
		time.Sleep(2 * time.Minute)
		if _, late := d.end(); !late || len(barks) != 1 || barks[0] != time.Minute {
			t.Errorf("late %v, barked at %v", late, barks)
		}
		d.stop()
	})
}

func TestBodyError(t *testing.T) {
	for _, test := range []struct {
		err  error
		want route.Reason
	}{
		{&http.MaxBytesError{Limit: 1}, route.BodyTooLarge},
		{os.ErrDeadlineExceeded, route.RequestTimeout},
		{errTooSlow, route.RequestTimeout},
		{io.ErrUnexpectedEOF, route.ClientClosed},
		{errors.New("client disconnected"), route.ClientClosed},
		{errors.New("http: unexpected EOF reading trailer"), route.ClientClosed},
		{errors.New("malformed chunked encoding"), route.BadBody},
		{errors.New("request declared a Content-Length of 5 but only wrote 3 bytes"), route.BadBody},
		{errors.New("stream error: stream ID 1; PROTOCOL_ERROR"), route.BadBody},
	} {
		if got := bodyError(test.err); got.reason != test.want || !got.ClientFault() || !errors.Is(got, test.err) {
			t.Errorf("%v: got %v, want %v", test.err, got.reason, test.want)
		}
	}
}
