package backend

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

func checkOf(kind route.CheckKind, path string) route.Care {
	return route.Care{Check: route.Check{Kind: kind, Path: path, Interval: 10 * time.Second, Timeout: time.Second, Healthy: 2, Unhealthy: 3}}
}

// An endpoint that fails its checks gets no requests, whatever it answers to them, until it passes them again.
func TestActiveCheck(t *testing.T) {
	var told, toldBad atomic.Int64
	opt := Options{Hooks: Hooks{Checked: func(_ route.PoolKey, endpoint string, err error) {
		if endpoint == "a:1" {
			told.Add(1)
			if err != nil {
				toldBad.Add(1)
			}
		}
	}}}
	withCare(t, opt, checkOf(route.CheckHTTP, "/healthz?deep=1"), fourEndpoints, func(t *testing.T, n *network, s *Set, p *Pool) {
		var well atomic.Bool
		var checks atomic.Int64
		well.Store(true)
		n.set("a:1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("User-Agent") != "fairlead-check" {
				return
			}
			if checks.Add(1); r.URL.String() != "/healthz?deep=1" || r.Host != "a:1" || !well.Load() {
				w.WriteHeader(503)
			}
		}))
		time.Sleep(time.Minute)
		if st := statusOf(t, s, "a:1"); !st.Healthy || st.Check != "passes" || checks.Load() < 5 || checks.Load() > 7 {
			t.Fatalf("after %d checks: %+v", checks.Load(), st)
		}
		well.Store(false)
		time.Sleep(12 * time.Second)
		if st := statusOf(t, s, "a:1"); !st.Healthy || st.Check != "active check: it answered 503" {
			t.Errorf("after a check that has failed: %+v", st)
		}
		time.Sleep(25 * time.Second)
		if st := statusOf(t, s, "a:1"); st.Healthy || st.Why != "the active check fails" {
			t.Errorf("after checks that have failed: %+v", st)
		}
		if n, bad := told.Load(), toldBad.Load(); n != checks.Load() || bad < 3 || bad > 4 {
			t.Errorf("the hook was told of %d checks, %d of them bad; there were %d", n, bad, checks.Load())
		}
		if got := load(t, p, 100, Attempt{}); got["a:1 200"] != 0 {
			t.Errorf("got %v", got)
		}
		well.Store(true)
		time.Sleep(8 * time.Second)
		if statusOf(t, s, "a:1").Healthy {
			t.Error("one check has brought it back")
		}
		time.Sleep(16 * time.Second)
		if got := load(t, p, 100, Attempt{}); got["a:1 200"] != 25 {
			t.Errorf("got %v", got)
		}
	})
}

// Checks end with the endpoint and with the annotation, and what they have found is forgotten.
func TestActiveChecksEnd(t *testing.T) {
	withCare(t, Options{}, checkOf(route.CheckTCP, ""), []string{"a:1", "b:1"}, func(t *testing.T, n *network, s *Set, _ *Pool) {
		n.down("a:1")
		n.down("b:1")
		time.Sleep(time.Minute)
		if statusOf(t, s, "a:1").Healthy {
			t.Fatal("the check does not fail")
		}
		setEndpoints(s, "a:1")
		before := n.dialed("b:1")
		time.Sleep(time.Minute)
		if n.dialed("b:1") != before || n.dialed("a:1") < 10 {
			t.Errorf("%d checks of an endpoint that left, %d of the other", n.dialed("b:1")-before, n.dialed("a:1"))
		}
		s.Install([]*route.Pool{{Key: testKey, Protocol: route.HTTP}})
		before = n.dialed("a:1")
		time.Sleep(time.Minute)
		if st := statusOf(t, s, "a:1"); !st.Healthy || st.Check != "" || n.dialed("a:1") != before {
			t.Errorf("without checks: %+v, %d checks", st, n.dialed("a:1")-before)
		}
	})
}

func TestKindsOfCheck(t *testing.T) {
	answer := func(frame, status string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if r.ProtoMajor != 2 || r.URL.Path != "/grpc.health.v1.Health/Check" || string(body) != "\x00\x00\x00\x00\x06\x0a\x04shop" || r.Header.Get("Content-Type") != "application/grpc" {
				w.WriteHeader(400)
				return
			}
			w.Header().Set("Trailer", "Grpc-Status")
			w.Header().Set("Content-Type", "application/grpc")
			_, _ = io.WriteString(w, frame)
			w.Header().Set("Grpc-Status", status)
		})
	}
	status := func(code int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
	}
	tests := []struct {
		kind    route.CheckKind
		path    string
		handler http.Handler
		want    string // "" is well
	}{
		{route.CheckHTTP, "/", status(204), ""},
		{route.CheckHTTP, "/", status(302), ""},
		{route.CheckHTTP, "/", status(404), "it answered 404"},
		{route.CheckHTTP, "/", nil, "ask: EOF"},
		{route.CheckTCP, "", nil, ""},
		{route.CheckGRPC, "shop", answer("\x00\x00\x00\x00\x02\x08\x01", "0"), ""},
		{route.CheckGRPC, "shop", answer("\x00\x00\x00\x00\x02\x08\x02", "0"), "it answered NOT_SERVING"},
		{route.CheckGRPC, "shop", answer("\x00\x00\x00\x00\x00", "0"), "it answered UNKNOWN"},
		{route.CheckGRPC, "shop", answer("\x00\x00\x00\x00\x02\x08\x09", "0"), "it answered with the status 9"},
		{route.CheckGRPC, "shop", answer("", "5"), `it answered with the gRPC status "5"`},
		{route.CheckGRPC, "shop", answer("hello", "0"), "the answer is not a gRPC message"},
		{route.CheckGRPC, "shop", answer("\x00\x00\x00\x00\x02\x10\x01", "0"), "the answer is not a HealthCheckResponse"},
		{route.CheckGRPC, "other", answer("", "0"), "it answered 400"},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.kind, " ", tt.want), func(t *testing.T) {
			care := checkOf(tt.kind, tt.path)
			withCare(t, Options{}, care, []string{"a:1"}, func(t *testing.T, n *network, _ *Set, p *Pool) {
				n.set("a:1", tt.handler)
				c := &checker{check: care.Check}
				err := c.ask(t.Context(), p.list.Load().all[0])
				if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.HasSuffix(err.Error(), tt.want)) {
					t.Errorf("got %v, want %q", err, tt.want)
				}
				synctest.Wait()
			})
		})
	}
}

// A check that takes too long fails.
func TestCheckTimeout(t *testing.T) {
	withCare(t, Options{}, checkOf(route.CheckHTTP, "/"), []string{"a:1", "b:1"}, func(t *testing.T, n *network, s *Set, _ *Pool) {
		n.set("a:1", patient(200, time.Hour))
		time.Sleep(time.Minute)
		if st := statusOf(t, s, "a:1"); st.Healthy || st.Check != "active check: not finished within 1s" {
			t.Errorf("status = %+v", st)
		}
	})
}

// A check over TLS speaks what the pool speaks.
func TestCheckOverTLS(t *testing.T) {
	for _, kind := range []route.CheckKind{route.CheckHTTP, route.CheckTCP} {
		for _, protocol := range []route.Protocol{route.HTTPS, route.WSS} {
			b := serve(t, protocol, echo("a"))
			_, p := newPoolOf(t, Options{}, protocol, b.Address)
			care := checkOf(kind, "/")
			if err := (&checker{check: care.Check}).ask(t.Context(), p.list.Load().all[0]); err != nil {
				t.Errorf("%s %s: %v", kind, protocol, err)
			}
		}
	}
}
