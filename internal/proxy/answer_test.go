package proxy

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/net/http2"

	"github.com/fairlead-io/fairlead/internal/route"
)

func TestAccessLog(t *testing.T) {
	addr := serveHTTP(t, showTarget)
	r := newRig(t, h2, one(service("web", route.HTTP), addr), trusting("127.0.0.1/32"))
	req := r.request(http.MethodPost, "/a/%2e/b?q=1", strings.NewReader("body"))
	req.URL.Opaque = "/a/%2e/b"
	req.Header = http.Header{"User-Agent": {"tester"}, "Referer": {"http://from.test/"}, "X-Request-Id": {"id-1"}, "X-Forwarded-For": {"203.0.113.7"}}
	if res := r.do(req); res.body != "POST /a/b?q=1 app.test" {
		t.Errorf("got %q", res.body)
	}
	e := r.entries()[0]
	want := map[string]any{
		"request_id": "id-1", "client_ip": "203.0.113.7", "peer_ip": "127.0.0.1", "method": "POST", "scheme": "https", "host": "app.test", "path": "/a/%2e/b",
		"query": "q=1", "proto": "HTTP/2.0", "status": 200.0, "bytes_in": 4.0, "bytes_out": 22.0, "listener": "infra/gw/web", "endpoint": addr,
		"user_agent": "tester", "referer": "http://from.test/", "backend": "shop/web:80",
		"route": map[string]any{"kind": "HTTPRoute", "namespace": "shop", "name": "web", "rule": "spec.rules[0].matches[0]"},
	}
	ignored := cmpopts.IgnoreMapEntries(func(k string, _ any) bool {
		return k == "ts" || k == "tls" || strings.HasSuffix(k, "_ms")
	})
	if diff := cmp.Diff(want, e, ignored); diff != "" {
		t.Error(diff)
	}
	for _, key := range []string{"ts", "tls", "duration_ms", "backend_ms", "ttfb_ms"} {
		if e[key] == nil {
			t.Errorf("no %s in %v", key, e)
		}
	}
}

// Requests that clients call off are told to the connection, which closes when there are too many of them.
func TestAbandonedRequestsAreCounted(t *testing.T) {
	arrived := make(chan struct{})
	addr := serveBackend(t, route.H2C, func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
	})
	r := newRig(t, h2c, one(service("web", route.H2C), addr), limited(func(l *Limits) { l.Resets = 4 }))
	f := r.dialFrames()
	const resets = 5 // one more than allowed
	for i := range uint32(resets) {
		f.get(2*i+1, "/")
		<-arrived
		if err := f.WriteRSTStream(2*i+1, http2.ErrCodeCancel); err != nil {
			t.Fatal(err)
		}
	}
	for {
		if _, err := f.ReadFrame(); err != nil {
			break // a connection that is kept would run into the deadline of the test
		}
	}
	entries := r.entries()
	if len(entries) != resets {
		t.Errorf("%d requests were logged, want %d", len(entries), resets)
	}
	for _, e := range entries {
		if e["reason"] != "client-closed" || e["status"] != 499.0 {
			t.Errorf("logged %v", e)
		}
	}
}

// A request that is refused does not cost its client the connection, if the rest of it has come or comes soon.
func TestConnectionsSurviveRefusals(t *testing.T) {
	w := one(service("web", route.HTTP), serveHTTP(t, showTarget))
	w.rules[0].Match.Path.Value = "/only"
	w.endpoints[service("empty", route.HTTP)] = nil
	for pool := range w.endpoints {
		if pool.Key.Service == "empty" {
			w.rules = append(w.rules, rule("/empty", pool))
		}
	}
	eachMode(t, func(t *testing.T, m mode) {
		r := newRig(t, m, w)
		for _, target := range []string{"/other", "/empty"} {
			for _, body := range []io.Reader{nil, strings.NewReader("short"), io.LimitReader(endless{}, 100_000)} {
				if res := r.do(r.request(http.MethodPost, target, body)); res.Close || res.StatusCode < 400 {
					t.Errorf("%s: got %d, close %v", target, res.StatusCode, res.Close)
				}
			}
		}
		if n := r.counter("fairlead_connections_total"); n != 1 {
			t.Errorf("%v connections were made", n)
		}
	})
}

// A status of gRPC without messages ends with its head, whoever gives it, also while the client has not said all: in a head that something may follow clients see no status.
func TestStatusOfGRPCEndsWithItsHead(t *testing.T) {
	refusing := serveBackend(t, route.H2C, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Grpc-Status", "12")
	})
	pool, nobody := service("refuses", route.H2C), service("nobody", route.H2C)
	l := &route.Listener{Name: "l", Hosts: []*route.Host{{Rules: []*route.Rule{rule("/refuses", pool), rule("/nobody", nobody)}}}}
	r := newRig(t, h2, world{listeners: []*route.Listener{l}, endpoints: map[*route.Pool][]string{pool: {refusing}, nobody: nil}})
	for path, want := range map[string]string{"/refuses": "12", "/nobody": "14", "/other": "12"} {
		for range 20 {
			body, more := io.Pipe()
			req := r.request(http.MethodPost, path, body)
			req.Header.Set("Content-Type", "application/grpc")
			req.Header.Set("Te", "trailers")
			res, err := r.client.Do(req)
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			if got := res.Header.Get("Grpc-Status"); got != want || res.ContentLength != 0 { // -1 if something might follow
				t.Errorf("%s: got status %q and a body of %d bytes, want %s and none", path, got, res.ContentLength, want)
			}
			_ = res.Body.Close()
			_ = more.Close()
		}
	}
}
