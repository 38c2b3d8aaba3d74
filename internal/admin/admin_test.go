package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/fairlead-io/fairlead/internal/telemetry"
)

// full returns options with every page.
func full() Options {
	return Options{
		Build:    "fairlead test",
		Ready:    func() (bool, string) { return true, "" },
		Gatherer: telemetry.NewMetrics("test").Gatherer(),
		Table:    func() string { return "the table" },
		Explain: func(q Question) (string, error) {
			return q.Method + " " + q.URL.String() + " " + q.Header.Get("X-A"), nil
		},
		Backends:     func() any { return []string{"<backend>"} },
		Certificates: func() any { return []string{} },
		Problems:     func() any { return map[string]int{"problems": 0} },
		Demo:         newDemo().Demo,
	}
}

// ask sends a request to the handler and returns the answer.
func ask(h http.Handler, r *http.Request) (code int, body string, header http.Header) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String(), w.Header()
}

func TestPages(t *testing.T) {
	h := New(full())
	tests := []struct {
		name, target string
		want         int
		wantType     string
		wantBody     string // a part of it
	}{
		{"index", "/", 200, "text/plain; charset=utf-8", "fairlead test\n\n/healthz "},
		{"index lists the table", "/", 200, "text/plain; charset=utf-8", "/debug/table "},
		{"health", "/healthz", 200, "text/plain; charset=utf-8", "ok\n"},
		{"ready", "/readyz", 200, "text/plain; charset=utf-8", "ok\n"},
		{"metrics", "/metrics", 200, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores", "fairlead_build_info{"},
		{"table", "/debug/table", 200, "text/plain; charset=utf-8", "the table\n"},
		{"backends", "/debug/backends", 200, "application/json", "\"<backend>\""},
		{"certificates", "/debug/certificates", 200, "application/json", "[]"},
		{"problems", "/debug/problems", 200, "application/json", "\"problems\": 0"},
		{"demo", "/demo/endpoints", 200, "application/json", "web-1"},
		{"explain", "/debug/explain?url=https://a.test/x%3Fy%3D1&method=POST&header=x-a:%20b", 200, "text/plain; charset=utf-8", "POST https://a.test/x?y=1 b\n"},
		{"explain is GET unless told", "/debug/explain?url=http://a.test", 200, "text/plain; charset=utf-8", "GET http://a.test"},
		{"explain TLS", "/debug/explain?url=tls://db.test:8443", 200, "text/plain; charset=utf-8", "GET tls://db.test:8443"},
		{"explain TLS without a name", "/debug/explain?url=tls://", 200, "text/plain; charset=utf-8", "GET tls:"},
		{"explain TCP", "/debug/explain?url=tcp://:5432", 200, "text/plain; charset=utf-8", "GET tcp://:5432"},
		{"explain UDP", "/debug/explain?url=udp://:53", 200, "text/plain; charset=utf-8", "GET udp://:53"},
		{"explain TCP without a port", "/debug/explain?url=tcp://", 400, "text/plain; charset=utf-8", `"tcp://" is not like http://host/path, tls://name:443, tcp://:5432 or udp://:53`},
		{"explain without URL", "/debug/explain", 400, "text/plain; charset=utf-8", `"" is not like http://host/path`},
		{"explain with half a URL", "/debug/explain?url=/a", 400, "text/plain; charset=utf-8", `"/a" is not like http://host/path`},
		{"explain with another scheme", "/debug/explain?url=ftp://a/", 400, "text/plain; charset=utf-8", "is not like http://host/path"},
		{"explain with a bad header", "/debug/explain?url=http://a/&header=x", 400, "text/plain; charset=utf-8", `"x" is not like Name: value`},
		{"unknown", "/debug/pprof/", 404, "text/plain; charset=utf-8", ""},
		{"below a page", "/healthz/x", 404, "text/plain; charset=utf-8", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, body, header := ask(h, httptest.NewRequest(http.MethodGet, tt.target, nil))
			if code != tt.want || header.Get("Content-Type") != tt.wantType || !strings.Contains(body, tt.wantBody) {
				t.Errorf("GET %s = %d %s\n%.300s\nwant %d %s\n%s", tt.target, code, header.Get("Content-Type"), body, tt.want, tt.wantType, tt.wantBody)
			}
			for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "same-origin"} {
				if got := header.Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestOnlyReading(t *testing.T) {
	h := New(full())
	for _, path := range []string{"/", "/healthz", "/readyz", "/metrics", "/debug/table", "/debug/backends", "/debug/certificates", "/debug/problems", "/debug/explain", "/demo/endpoints"} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions, http.MethodTrace, "BREW"} {
			code, _, header := ask(h, httptest.NewRequest(method, path, nil))
			if code != http.StatusMethodNotAllowed || header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s = %d, Allow: %s, want 405, GET, HEAD", method, path, code, header.Get("Allow"))
			}
		}
		want := http.StatusOK
		if path == "/debug/explain" {
			want = http.StatusBadRequest
		}
		if code, _, _ := ask(h, httptest.NewRequest(http.MethodHead, path, nil)); code != want {
			t.Errorf("HEAD %s = %d, want %d", path, code, want)
		}
	}
}

func TestPagesWithoutSource(t *testing.T) {
	h := New(Options{})
	for path, want := range map[string]int{
		"/": 200, "/healthz": 200, "/readyz": 200, "/metrics": 404, "/debug/table": 404, "/debug/explain": 404, "/debug/backends": 404, "/demo/endpoints": 404,
	} {
		if code, _, _ := ask(h, httptest.NewRequest(http.MethodGet, path, nil)); code != want {
			t.Errorf("GET %s = %d, want %d", path, code, want)
		}
	}
	if code, _, _ := ask(h, demoPost("/demo/endpoints/web-1/kill")); code != 404 {
		t.Errorf("POST to the demo = %d, want 404", code)
	}
	if _, body, _ := ask(h, httptest.NewRequest(http.MethodGet, "/", nil)); strings.Contains(body, "/debug") {
		t.Errorf("the index lists pages that do not exist:\n%s", body)
	}
}

func TestNotReady(t *testing.T) {
	ready, why := false, "no table was installed yet"
	h := New(Options{Ready: func() (bool, string) { return ready, why }})
	code, body, _ := ask(h, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	if code != http.StatusServiceUnavailable || body != "not ready: no table was installed yet\n" {
		t.Errorf("GET /readyz = %d %q", code, body)
	}
	if code, _, _ := ask(h, httptest.NewRequest(http.MethodGet, "/healthz", nil)); code != http.StatusOK {
		t.Errorf("GET /healthz = %d while not ready, want 200", code)
	}
	ready = true
	if code, _, _ := ask(h, httptest.NewRequest(http.MethodGet, "/readyz", nil)); code != http.StatusOK {
		t.Errorf("GET /readyz = %d, want 200", code)
	}
}

func TestOpenMetrics(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	_, body, header := ask(New(full()), r)
	if !strings.HasPrefix(header.Get("Content-Type"), "application/openmetrics-text") || !strings.HasSuffix(body, "# EOF\n") {
		t.Errorf("OpenMetrics was asked for and got %s", header.Get("Content-Type"))
	}
}

func TestScrapesAreLimited(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	h := New(Options{Gatherer: prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		entered <- struct{}{}
		<-release
		return nil, nil
	})})
	done := make(chan struct{})
	for range maxScrapes {
		go func() {
			ask(h, httptest.NewRequest(http.MethodGet, "/metrics", nil))
			done <- struct{}{}
		}()
		<-entered
	}
	if code, _, _ := ask(h, httptest.NewRequest(http.MethodGet, "/metrics", nil)); code != http.StatusServiceUnavailable {
		t.Errorf("scrape number %d = %d, want 503", maxScrapes+1, code)
	}
	close(release)
	for range maxScrapes {
		<-done
	}
}

func TestValueThatIsNoJSON(t *testing.T) {
	var log bytes.Buffer
	h := New(Options{Backends: func() any { return func() {} }, Log: slog.New(slog.NewTextHandler(&log, nil))})
	code, body, header := ask(h, httptest.NewRequest(http.MethodGet, "/debug/backends", nil))
	if code != http.StatusInternalServerError || strings.Contains(body, "func") || header.Get("Content-Type") == "application/json" {
		t.Errorf("GET = %d %s %q", code, header.Get("Content-Type"), body)
	}
	if log.Len() == 0 {
		t.Error("nothing was logged")
	}
}

func TestExplainFails(t *testing.T) {
	h := New(Options{Explain: func(Question) (string, error) { return "", errors.New("no listener on port 81") }})
	if code, body, _ := ask(h, httptest.NewRequest(http.MethodGet, "/debug/explain?url=http://a:81/", nil)); code != 400 || body != "no listener on port 81\n" {
		t.Errorf("GET = %d %q", code, body)
	}
}

func TestServerHasLimits(t *testing.T) {
	s := NewServer(http.NotFoundHandler())
	if s.ReadHeaderTimeout <= 0 || s.ReadTimeout <= 0 || s.WriteTimeout <= 0 || s.IdleTimeout <= 0 || s.MaxHeaderBytes <= 0 || s.Handler == nil {
		t.Errorf("a limit is missing: %+v", s)
	}
}

// testDemo is a demo that notes what it was asked to do.
type testDemo struct {
	*Demo
	done []string
}

func newDemo() *testDemo {
	d := &testDemo{}
	act := func(what string) func(string) error {
		return func(name string) error {
			switch name {
			case "web-1":
				d.done = append(d.done, what+" "+name)
				return nil
			case "stuck":
				return errors.New("port is taken")
			}
			return ErrNoEndpoint
		}
	}
	d.Demo = &Demo{Kill: act("kill"), Revive: act("revive"), Endpoints: func() any { return []string{"web-1"} }}
	return d
}

func demoPost(target string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, target, nil)
	r.Host = "localhost:9090"
	return r
}

func TestDemoControl(t *testing.T) {
	tests := []struct {
		name, path string
		want       int
		wantBody   string
		wantDone   []string
	}{
		{"kill", "/demo/endpoints/web-1/kill", 200, "web-1 killed\n", []string{"kill web-1"}},
		{"revive", "/demo/endpoints/web-1/revive", 200, "web-1 revived\n", []string{"revive web-1"}},
		{"unknown endpoint", "/demo/endpoints/web-9/kill", 404, "no endpoint of that name\n", nil},
		{"failure", "/demo/endpoints/stuck/revive", 500, "port is taken\n", nil},
		{"unknown action", "/demo/endpoints/web-1/explode", 404, "404 page not found\n", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDemo()
			code, body, _ := ask(New(Options{Demo: d.Demo}), demoPost(tt.path))
			if code != tt.want || body != tt.wantBody {
				t.Errorf("POST %s = %d %q, want %d %q", tt.path, code, body, tt.want, tt.wantBody)
			}
			if diff := cmp.Diff(tt.wantDone, d.done); diff != "" {
				t.Errorf("what was done differs (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDemoControlIsForThisMachineOnly(t *testing.T) {
	tests := []struct {
		name, method, host string
		header             map[string]string
		want               int
	}{
		{"curl", "POST", "localhost:9090", nil, 200},
		{"curl by address", "POST", "127.0.0.1:9090", nil, 200},
		{"curl by IPv6 address", "POST", "[::1]:9090", nil, 200},
		{"no port", "POST", "[::1]", nil, 200},
		{"upper case", "POST", "LOCALHOST", nil, 200},
		{"own page", "POST", "localhost:9090", map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost:9090"}, 200},
		{"typed into the browser", "POST", "localhost:9090", map[string]string{"Sec-Fetch-Site": "none"}, 200},
		{"other site", "POST", "localhost:9090", map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "http://evil.test"}, 403},
		{"other port of this machine", "POST", "localhost:9090", map[string]string{"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:8080"}, 403},
		{"old browser, other site", "POST", "localhost:9090", map[string]string{"Origin": "http://evil.test"}, 403},
		{"old browser, no origin to tell", "POST", "localhost:9090", map[string]string{"Origin": "null"}, 403},
		{"DNS rebinding", "POST", "evil.test:9090", map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.test:9090"}, 403},
		{"name that begins like it", "POST", "localhost.evil.test", nil, 403},
		{"address that is not this machine", "POST", "10.0.0.1:9090", nil, 403},
		{"no host", "POST", "", nil, 403},
		{"not a POST", "GET", "localhost:9090", nil, 405},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDemo()
			r := httptest.NewRequest(tt.method, "/demo/endpoints/web-1/kill", nil)
			r.Host = tt.host
			for k, v := range tt.header {
				r.Header.Set(k, v)
			}
			code, _, _ := ask(New(Options{Demo: d.Demo}), r)
			if code != tt.want || (len(d.done) == 1) != (tt.want == 200) {
				t.Errorf("%s = %d and did %v, want %d", tt.method, code, d.done, tt.want)
			}
		})
	}
}

// The pages work over a real connection as well, with the server that New is meant for.
func TestOverTheWire(t *testing.T) {
	srv := httptest.NewUnstartedServer(nil)
	srv.Config = NewServer(New(full()))
	srv.Start()
	defer srv.Close()
	resp, err := srv.Client().Get(srv.URL + "/debug/problems")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]int
	if err := json.Unmarshal(b, &got); err != nil || got["problems"] != 0 {
		t.Errorf("%v in %q", err, b)
	}
}
