package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// recorder is a backend that tells of the requests that it gets.
func recorder(t *testing.T) (addr string, got <-chan string) {
	t.Helper()
	seen := make(chan string, 1000)
	return serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		seen <- fmt.Sprintf("%s %s %s a=%s b=%s c=%s %d %.20q %v", r.Method, r.Host, r.RequestURI, r.Header.Get("X-A"), r.Header.Get("X-B"), r.Header.Get("X-C"), len(body), body, err)
		_, _ = io.WriteString(w, "answer of the mirror")
	}), seen
}

func next(t *testing.T, got <-chan string) string {
	t.Helper()
	select {
	case s := <-got:
		return s
	case <-time.After(20 * time.Second):
		t.Fatal("no copy came")
		return ""
	}
}

func TestMirror(t *testing.T) {
	mirror, got := recorder(t)
	second, gotSecond := recorder(t)
	web, first, other, dead := service("web", route.HTTP), service("mirror", route.HTTP), service("second", route.HTTP), service("dead", route.HTTP)
	all := func(p *route.Pool) *route.Mirror { return &route.Mirror{Pool: p, Numerator: 100, Denominator: 100} }
	set := func(name, value string) route.Filter {
		return &route.RequestHeaders{HeaderChange: route.HeaderChange{Set: headerList(name, value)}}
	}
	backends := rule("/backend", web, all(first), set("X-A", "rule"))
	backends.Backends[0].Filters = []route.Filter{set("X-B", "backend"), all(other), &route.Rewrite{Hostname: "web.internal"}}
	w := world{
		rules: []*route.Rule{
			rule("/one", web, all(first)), rule("/two", web, all(first), all(other), &route.Rewrite{Path: &route.PathChange{Prefix: new("/new")}}), backends,
			rule("/none", web, &route.Mirror{Pool: first, Numerator: 0, Denominator: 100}), rule("/dead", web, all(dead), all(first)),
			rule("/pools", first), rule("/pools", other), rule("/pools", dead),
		},
		endpoints: map[*route.Pool][]string{
			web:   {serveHTTP(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })},
			first: {mirror}, other: {second}, dead: {"127.0.0.9:1"},
		},
	}
	eachMode(t, func(t *testing.T, m mode) {
		r := newRig(t, m, w)
		host := r.request("GET", "/", nil).Host
		send := func(method, target, body string) {
			t.Helper()
			var b io.Reader
			if body != "" {
				b = strings.NewReader(body)
			}
			req := r.request(method, target, b)
			req.Header.Set("X-C", "client")
			if res := r.do(req); res.StatusCode != 200 || res.body != body {
				t.Errorf("%s %s: got %d %.40q", method, target, res.StatusCode, res.body)
			}
		}
		want := func(got <-chan string, text string) {
			t.Helper()
			if s := next(t, got); s != text {
				t.Errorf("the mirror got %s, want %s", s, text)
			}
		}
		send("GET", "/one//a%2Fb/;x?q=%41&&r", "")
		want(got, "GET "+host+" /one//a%2Fb/;x?q=%41&&r a= b= c=client 0 \"\" <nil>")
		send("POST", "/two/x", "hello")
		want(got, "POST "+host+" /new/x a= b= c=client 5 \"hello\" <nil>")
		want(gotSecond, "POST "+host+" /new/x a= b= c=client 5 \"hello\" <nil>")
		// What the backend's own filters do is for the backend.
		send("PUT", "/backend", "x")
		want(got, "PUT "+host+" /backend a=rule b= c=client 1 \"x\" <nil>")
		want(gotSecond, "PUT web.internal /backend a=rule b=backend c=client 1 \"x\" <nil>")
		send("GET", "/none", "")
		send("GET", "/dead", "") // neither the client nor the other mirror feels it
		want(got, "GET "+host+" /dead a= b= c=client 0 \"\" <nil>")
		// A body that is too large for a copy is passed on nevertheless.
		send("POST", "/one", strings.Repeat("x", maxMirrorBody+1))
		send("POST", "/one", strings.Repeat("x", maxMirrorBody))
		if s := next(t, got); !strings.Contains(s, fmt.Sprint(" ", maxMirrorBody, " ")) {
			t.Errorf("the mirror got %s", s)
		}
		r.stop()
		if sent, failed, dropped := r.counter("fairlead_mirrored_requests_total", "result", "sent"), r.counter("fairlead_mirrored_requests_total", "result", "failed"),
			r.counter("fairlead_mirrored_requests_total", "result", "dropped"); sent < 1 || failed < 1 || dropped != 1 || sent+failed+dropped != 9 {
			t.Errorf("%v copies were sent, %v failed, %v dropped", sent, failed, dropped)
		}
		if r.p.mirrors.held != 0 || r.p.mirrors.running != 0 {
			t.Errorf("%d bytes are held and %d copies on their way at the end", r.p.mirrors.held, r.p.mirrors.running)
		}
	})
}

// A mirror that takes everything and answers nothing costs the client nothing, and Fairlead no more than its limits.
func TestMirrorThatHangs(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	web, hung := service("web", route.HTTP), service("hung", route.HTTP)
	w := world{
		rules: []*route.Rule{rule("/web", web, &route.Mirror{Pool: hung, Numerator: 1, Denominator: 1}), rule("/hung", hung)},
		endpoints: map[*route.Pool][]string{
			web: {serveHTTP(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })}, hung: {l.Addr().String()},
		},
	}
	r := newRig(t, h1, w)
	body := bytes.Repeat([]byte("x"), maxMirrorBody)
	for range maxMirrors/8 + 80 {
		if res := r.do(r.request("POST", "/web", bytes.NewReader(body))); res.StatusCode != 200 || len(res.body) != len(body) {
			t.Fatalf("got %d with %d bytes", res.StatusCode, len(res.body))
		}
	}
	r.p.mirrors.mu.Lock()
	held, running := r.p.mirrors.held, r.p.mirrors.running
	r.p.mirrors.mu.Unlock()
	if held > maxMirrorBytes || running > maxMirrors {
		t.Errorf("%d bytes are held and %d copies on their way", held, running)
	}
	r.stop()
	if r.p.mirrors.held != 0 || r.p.mirrors.running != 0 {
		t.Errorf("%d bytes are held and %d copies on their way at the end", r.p.mirrors.held, r.p.mirrors.running)
	}
}

func TestMirrorLimits(t *testing.T) {
	var m mirrors
	if !m.hold(maxMirrorBytes) || m.hold(1) {
		t.Error("more memory is held than allowed, or less")
	}
	m.release(1)
	if !m.hold(1) {
		t.Error("what was released cannot be held")
	}
	for range maxMirrors {
		if !m.begin() {
			t.Fatal("fewer copies are on their way than allowed")
		}
	}
	if m.begin() {
		t.Error("more copies are on their way than allowed")
	}
	for range maxMirrors {
		m.end()
	}
	m.close()
	if m.begin() {
		t.Error("a copy began after the end")
	}
}

func TestMirrorDraws(t *testing.T) {
	m := boundMirror{&route.Mirror{Numerator: 25, Denominator: 100}, new(backendStub)}
	n := 0
	for range 10000 {
		if m.drawn() {
			n++
		}
	}
	if n < 2200 || n > 2800 { // six standard deviations
		t.Errorf("%d of 10000 were drawn, want 2500", n)
	}
}

type backendStub struct{ roundTripper }
