package proxy

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

func TestLimitsDefaults(t *testing.T) {
	l := Limits{}.withDefaults()
	if l.HeaderBytes != 64<<10 || l.Streams != 100 || l.TunnelIdle != time.Hour || l.Connections < 1 || l.Connections > 50_000 || l.BodyBytes != 0 {
		t.Errorf("got %+v", l)
	}
	l = Limits{Streams: 7, IdleTimeout: -1}.withDefaults()
	if l.Streams != 7 || l.IdleTimeout != -1 {
		t.Errorf("got %+v", l)
	}
	if h := (&Limits{HeaderCount: -1}).head(); h.Headers < 1<<20 {
		t.Errorf("no limit is %d", h.Headers)
	}
}

// Requests that did not come through the head scanner are checked in full.
func TestCheckRequest(t *testing.T) {
	change := func(f func(*http.Request)) *http.Request {
		r := httptest.NewRequest("GET", "http://a.test/x?y", nil)
		r.RequestURI = "/x?y"
		f(r)
		return r
	}
	target := func(s string) *http.Request { return change(func(r *http.Request) { r.RequestURI = s }) }
	for _, test := range []struct {
		name   string
		r      *http.Request
		status int
		reason route.Reason
	}{
		{"fine", change(func(*http.Request) {}), 0, ""},
		{"odd query", target("/?a\\b=%zz;c"), 0, ""},
		{"options star", change(func(r *http.Request) { r.Method, r.RequestURI = "OPTIONS", "*" }), 0, ""},
		{"length", change(func(r *http.Request) { r.Header.Set("Content-Length", "3"); r.ContentLength = 3 }), 0, ""},
		{"length 0 without body", change(func(r *http.Request) { r.Header.Set("Content-Length", "0") }), 0, ""},
		{"connect", change(func(r *http.Request) { r.Method = "CONNECT" }), 405, route.MethodNotAllowed},
		{"trace", change(func(r *http.Request) { r.Method = "TRACE" }), 405, route.MethodNotAllowed},
		{"method", change(func(r *http.Request) { r.Method = "G T" }), 400, route.BadRequest},
		{"method empty", change(func(r *http.Request) { r.Method = "" }), 400, route.BadRequest},
		{"star", target("*"), 400, route.BadPath},
		{"empty", target(""), 400, route.BadPath},
		{"absolute", target("http://a.test/"), 400, route.BadPath},
		{"space", target("/a b"), 400, route.BadPath},
		{"fragment", target("/a#b"), 400, route.BadPath},
		{"backslash", target("/a\\b"), 400, route.BadPath},
		{"control", target("/a\x7f"), 400, route.BadPath},
		{"long", target("/" + strings.Repeat("a", 16<<10)), 414, route.TargetTooLong},
		{"host", change(func(r *http.Request) { r.Host = "a_b.test:x" }), 400, route.BadHost},
		{"no host", change(func(r *http.Request) { r.Host = "" }), 400, route.BadHost},
		{"same host", change(func(r *http.Request) { r.Header.Set("Host", "a.test") }), 0, ""},
		{"other host", change(func(r *http.Request) { r.Header.Set("Host", "b.test") }), 400, route.BadHost},
		{"hosts", change(func(r *http.Request) { r.Header["Host"] = []string{"a.test", "a.test"} }), 400, route.BadHost},
		{"headers", change(func(r *http.Request) { r.Header["X"] = make([]string, 129) }), 431, route.HeadersTooLarge},
		{"lengths", change(func(r *http.Request) { r.Header["Content-Length"] = []string{"3", "3"}; r.ContentLength = 3 }), 400, route.BadRequest},
		{"bad length", change(func(r *http.Request) { r.Header.Set("Content-Length", "+3") }), 400, route.BadRequest},
		{"length without body", change(func(r *http.Request) { r.Header.Set("Content-Length", "3") }), 400, route.BadRequest},
	} {
		t.Run(test.name, func(t *testing.T) {
			if status, reason := checkRequest(test.r); status != test.status || reason != test.reason {
				t.Errorf("got %d %q, want %d %q", status, reason, test.status, test.reason)
			}
		})
	}
}

// Clients decide what servers complain about, and how often; not how much of it is logged.
func TestErrorLogIsBounded(t *testing.T) {
	var b strings.Builder
	l := newErrorLog(slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug})), "x")
	for range 1000 {
		l.Print("http: TLS handshake error " + strings.Repeat("x", 10_000))
	}
	if n := strings.Count(b.String(), "\n"); n < 1 || n > 3 || b.Len() > 3000 {
		t.Errorf("%d lines, %d bytes", n, b.Len())
	}
	b.Reset()
	l = newErrorLog(slog.New(slog.NewTextHandler(&b, nil)), "x")
	l.Print("x")
	if b.Len() > 0 {
		t.Errorf("logged %q", b.String())
	}
}

func BenchmarkCheckRequest(b *testing.B) {
	r := httptest.NewRequest("GET", "http://a.test/api/v1/users?id=12345", nil)
	r.RequestURI = "/api/v1/users?id=12345"
	b.ReportAllocs()
	for b.Loop() {
		if status, _ := checkRequest(r); status != 0 {
			b.Fatal(status)
		}
	}
}
