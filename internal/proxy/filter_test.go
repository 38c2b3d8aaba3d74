package proxy

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-io/fairlead/internal/route"
)

func headerList(pairs ...string) (h []route.Header) {
	for i := 0; i < len(pairs); i += 2 {
		h = append(h, route.Header{Name: pairs[i], Value: pairs[i+1]})
	}
	return h
}

// showHeader answers with the header that it got, as JSON, with the Host among it.
func showHeader(w http.ResponseWriter, r *http.Request) {
	h := r.Header.Clone()
	h.Set("Host", r.Host)
	h.Set("Target", r.RequestURI)
	for name := range r.Trailer {
		h.Add("Announced", name)
	}
	_ = json.NewEncoder(w).Encode(h)
}

// shown is what showHeader was sent.
func (a answer) shown(t *testing.T) (h http.Header) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), &h); err != nil {
		t.Fatalf("%d %q: %v", a.StatusCode, a.body, err)
	}
	return h
}

func TestRequestHeaderFilters(t *testing.T) {
	change := func(c route.HeaderChange) route.Filter { return &route.RequestHeaders{HeaderChange: c} }
	addr := serveHTTP(t, showHeader)
	for _, test := range []struct {
		name          string
		rule, backend []route.Filter
		want          map[string][]string
	}{
		{"set replaces", []route.Filter{change(route.HeaderChange{Set: headerList("X-One", "new")})}, nil, map[string][]string{"X-One": {"new"}, "X-Two": {"2a", "2b"}}},
		{"add appends", []route.Filter{change(route.HeaderChange{Add: headerList("X-One", "more", "X-One", "and more")})}, nil, map[string][]string{"X-One": {"1", "more", "and more"}}},
		{"add makes", []route.Filter{change(route.HeaderChange{Add: headerList("X-Three", "3")})}, nil, map[string][]string{"X-Three": {"3"}}},
		{"remove", []route.Filter{change(route.HeaderChange{Remove: []string{"x-two"}})}, nil, map[string][]string{"X-One": {"1"}, "X-Two": nil}},
		{"remove, set, add in this order", []route.Filter{change(route.HeaderChange{
			Add: headerList("X-One", "added"), Set: headerList("X-One", "set"), Remove: []string{"X-One"},
		})}, nil, map[string][]string{"X-One": {"set", "added"}}},
		{
			"the backend's after the rule's",
			[]route.Filter{change(route.HeaderChange{Set: headerList("X-One", "rule")})},
			[]route.Filter{change(route.HeaderChange{Add: headerList("X-One", "backend")})},
			map[string][]string{"X-One": {"rule", "backend"}},
		},
		{"Host", []route.Filter{change(route.HeaderChange{Set: headerList("Host", "other.test")})}, nil, map[string][]string{"Host": {"other.test"}, "X-Forwarded-Host": {"app.test"}}},
		{"Host that is none", []route.Filter{change(route.HeaderChange{Set: headerList("Host", "other test")})}, nil, map[string][]string{"Host": {"app.test"}}},
		{"identity headers are the filter's to change", []route.Filter{change(route.HeaderChange{
			Remove: []string{"X-Forwarded-Port"}, Set: headerList("X-Forwarded-Proto", "https"),
		})}, nil, map[string][]string{"X-Forwarded-Port": nil, "X-Forwarded-Proto": {"https"}}},
		{"framing and connection fields are not", []route.Filter{change(route.HeaderChange{
			Set: headerList("Content-Length", "5", "Connection", "X-One", "Transfer-Encoding", "chunked", "Upgrade", "h2c", "Te", "gzip", "Trailer", "X-One"),
		})}, nil, map[string][]string{
			"X-One": {"1"}, "Content-Length": nil, "Connection": nil, "Transfer-Encoding": nil, "Upgrade": nil, "Te": nil, "Announced": nil,
		}},
		{
			"what no header may be is left out",
			[]route.Filter{change(route.HeaderChange{Set: headerList("X-One", "a\r\nX-Evil: 1", "Bad Name", "1")})},
			nil,
			map[string][]string{"X-One": {"1"}, "X-Evil": nil},
		},
		{"values may be empty", []route.Filter{change(route.HeaderChange{Set: headerList("X-One", "")})}, nil, map[string][]string{"X-One": {""}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			eachMode(t, func(t *testing.T, m mode) {
				w := one(service("web", route.HTTP), addr, test.rule...)
				w.rules[0].Backends[0].Filters = test.backend
				r := newRig(t, m, w)
				for range 2 { // filters must not keep anything of a request
					req := r.request(http.MethodGet, "/", nil)
					req.Header["X-One"], req.Header["X-Two"] = []string{"1"}, []string{"2a", "2b"}
					got := r.do(req).shown(t)
					for name, want := range test.want {
						if diff := cmp.Diff(want, got[name]); diff != "" {
							t.Errorf("%s: %s", name, diff)
						}
					}
				}
			})
		})
	}
}

func TestResponseHeaderFilters(t *testing.T) {
	addr := serveHTTP(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["X-One"], w.Header()["X-Two"] = []string{"1"}, []string{"2"}
		w.Header().Set("Server", "backend")
		w.Header().Set(ReasonHeader, "spoofed")
		_, _ = w.Write([]byte("hello"))
	})
	eachMode(t, func(t *testing.T, m mode) {
		w := one(service("web", route.HTTP), addr, &route.ResponseHeaders{HeaderChange: route.HeaderChange{
			Remove: []string{"Server"}, Set: headerList("X-Two", "two", "Content-Length", "3", "Connection", "close"), Add: headerList("X-One", "one"),
		}})
		w.rules[0].Backends[0].Filters = []route.Filter{&route.ResponseHeaders{HeaderChange: route.HeaderChange{Add: headerList("X-One", "more")}}}
		r := newRig(t, m, w)
		for range 2 {
			res := r.get("/")
			got := map[string][]string{}
			for _, name := range []string{"X-One", "X-Two", "Server", ReasonHeader, "Content-Length"} {
				got[name] = res.Header[name]
			}
			want := map[string][]string{"X-One": {"1", "one", "more"}, "X-Two": {"two"}, "Server": nil, ReasonHeader: nil, "Content-Length": {"5"}}
			if diff := cmp.Diff(want, got); diff != "" || res.Close || res.body != "hello" {
				t.Errorf("body %q, close %v: %s", res.body, res.Close, diff)
			}
		}
	})
}

func TestRewrites(t *testing.T) {
	addr := serveHTTP(t, showTarget)
	full := func(s string) *route.PathChange { return &route.PathChange{Full: &s} }
	prefix := func(s string) *route.PathChange { return &route.PathChange{Prefix: &s} }
	for _, test := range []struct {
		name                   string
		match                  string
		filters                []route.Filter
		backend                []route.Filter
		target, path, wantHost string
	}{
		{"full path keeps the query", "/", []route.Filter{&route.Rewrite{Path: full("/one")}}, nil, "/a/b?q=%zz;", "/one?q=%zz;", "app.test"},
		{"prefix", "/strip", []route.Filter{&route.Rewrite{Path: prefix("/to")}}, nil, "/strip/three", "/to/three", "app.test"},
		{"prefix by nothing", "/strip", []route.Filter{&route.Rewrite{Path: prefix("/")}}, nil, "/strip/three", "/three", "app.test"},
		{"prefix by nothing, nothing left", "/strip", []route.Filter{&route.Rewrite{Path: prefix("/")}}, nil, "/strip", "/", "app.test"},
		{"the rest keeps its escapes", "/strip", []route.Filter{&route.Rewrite{Path: prefix("/to")}}, nil, "/strip/%61%2f%2Fb", "/to/%61%2f%2Fb", "app.test"},
		{"no other host can come of it", "/strip", []route.Filter{&route.Rewrite{Path: prefix("/")}}, nil, "/strip//evil.test/x", "/evil.test/x", "app.test"},
		{"host", "/", []route.Filter{&route.Rewrite{Hostname: "other.test"}}, nil, "/a", "/a", "other.test"},
		{
			"the backend's rewrite counts", "/strip",
			[]route.Filter{&route.Rewrite{Hostname: "rule.test", Path: prefix("/rule")}},
			[]route.Filter{&route.Rewrite{Path: prefix("/backend")}},
			"/strip/x", "/backend/x", "rule.test",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			eachMode(t, func(t *testing.T, m mode) {
				w := one(service("web", route.HTTP), addr, test.filters...)
				w.rules[0].Match.Path.Value = test.match
				w.rules[0].Backends[0].Filters = test.backend
				r := newRig(t, m, w)
				req := r.request(http.MethodGet, "/", nil)
				path, query, _ := strings.Cut(test.target, "?")
				req.URL.Opaque, req.URL.RawQuery = path, query
				if res, want := r.do(req), "GET "+test.path+" "+test.wantHost; res.body != want {
					t.Errorf("backend got %q, want %q", res.body, want)
				}
			})
		})
	}
}

func TestRedirects(t *testing.T) {
	full := func(s string) *route.PathChange { return &route.PathChange{Full: &s} }
	prefix := func(s string) *route.PathChange { return &route.PathChange{Prefix: &s} }
	for _, test := range []struct {
		name   string
		mode   mode
		port   uint16 // of the listener
		filter route.Redirect
		target string
		status int
		want   string
	}{
		{"nothing set keeps scheme and listener port", h1, 8080, route.Redirect{}, "/a", 302, "http://app.test:8080/a"},
		{"listener on port 80", h1, 80, route.Redirect{}, "/a", 302, "http://app.test/a"},
		{"HTTPS listener on port 443", h2, 443, route.Redirect{}, "/a", 302, "https://app.test/a"},
		{"HTTPS listener on port 8443", h1s, 8443, route.Redirect{}, "/a", 302, "https://app.test:8443/a"},
		{"HTTP listener on port 443", h2c, 443, route.Redirect{}, "/a", 302, "http://app.test:443/a"},
		{"scheme https drops the port", h1, 8080, route.Redirect{Scheme: "https"}, "/a", 302, "https://app.test/a"},
		{"scheme http drops the port", h1, 8080, route.Redirect{Scheme: "http"}, "/a", 302, "http://app.test/a"},
		{"scheme http on HTTPS", h2, 443, route.Redirect{Scheme: "http"}, "/a", 302, "http://app.test/a"},
		{"scheme and port", h1, 8080, route.Redirect{Scheme: "https", Port: 8443}, "/a", 302, "https://app.test:8443/a"},
		{"scheme and its own port", h1, 8080, route.Redirect{Scheme: "https", Port: 443}, "/a", 302, "https://app.test/a"},
		{"scheme and another's port", h1, 8080, route.Redirect{Scheme: "https", Port: 80}, "/a", 302, "https://app.test:80/a"},
		{"port alone", h1, 8080, route.Redirect{Port: 8083}, "/a", 302, "http://app.test:8083/a"},
		{"port 80 alone", h1, 8080, route.Redirect{Port: 80}, "/a", 302, "http://app.test/a"},
		{"host", h1, 80, route.Redirect{Hostname: "other.test"}, "/a?b=c", 302, "http://other.test/a?b=c"},
		{"host keeps the listener port", h1, 8080, route.Redirect{Hostname: "other.test", Status: 301}, "/a", 301, "http://other.test:8080/a"},
		{"303", h1, 80, route.Redirect{Status: 303}, "/", 303, "http://app.test/"},
		{"307", h1, 80, route.Redirect{Status: 307}, "/", 307, "http://app.test/"},
		{"308", h1, 80, route.Redirect{Status: 308}, "/", 308, "http://app.test/"},
		{"full path", h1, 80, route.Redirect{Path: full("/one/two")}, "/x/y?z", 302, "http://app.test/one/two?z"},
		{"prefix", h1, 80, route.Redirect{Path: prefix("/to")}, "/x/y", 302, "http://app.test/to/y"},
		{"prefix by nothing is not scheme-relative", h1, 80, route.Redirect{Path: prefix("/")}, "/x//evil.test", 302, "http://app.test/evil.test"},
		{"double slashes stay behind the host", h1, 80, route.Redirect{}, "/x//evil.test/..", 302, "http://app.test/x//"},
		{"what must not stand in a Location is escaped", h1, 80, route.Redirect{}, `/x"<€?q="{}`, 302, "http://app.test/x%22%3C%E2%82%AC?q=%22%7B%7D"},
		{"escapes stay", h1, 80, route.Redirect{}, "/x%0d%0aSet-Cookie:%20a?%0d%0a", 302, "http://app.test/x%0d%0aSet-Cookie:%20a?%0d%0a"},
		{"everything", h2, 443, route.Redirect{Scheme: "http", Hostname: "a.b", Port: 81, Path: prefix("/p"), Status: 307}, "/x/1?2", 307, "http://a.b:81/p/1?2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			pool := service("web", route.HTTP)
			redirect := rule("/", nil, &test.filter, &route.ResponseHeaders{HeaderChange: route.HeaderChange{Set: headerList("X-Added", "1")}})
			if test.filter.Path != nil && test.filter.Path.Prefix != nil {
				redirect.Match.Path.Value = "/x"
			}
			w := world{listeners: []*route.Listener{{Name: "l", Port: test.port, Hosts: []*route.Host{{Rules: []*route.Rule{redirect}}}}}, endpoints: map[*route.Pool][]string{pool: nil}}
			r := newRig(t, test.mode, w)
			req := r.request(http.MethodGet, "/", nil)
			path, query, _ := strings.Cut(test.target, "?")
			req.URL.Opaque, req.URL.RawQuery = path, query
			res := r.do(req)
			if res.StatusCode != test.status || res.Header.Get("Location") != test.want {
				t.Errorf("got %d %q, want %d %q", res.StatusCode, res.Header.Get("Location"), test.status, test.want)
			}
			if res.Header.Get(ReasonHeader) != "redirect" || res.Header.Get("X-Added") != "1" {
				t.Errorf("header %v", res.Header)
			}
			if u, err := url.Parse(res.Header.Get("Location")); err != nil || !u.IsAbs() || u.Hostname() == "evil.test" {
				t.Errorf("Location %v: %v", u, err)
			}
		})
	}
}

// Behind a proxy that takes the TLS off, a redirect to https must not send clients in circles.
func TestRedirectToHTTPSBehindATrustedProxy(t *testing.T) {
	addr := serveHTTP(t, showTarget)
	for _, test := range []struct {
		name    string
		options []rigOption
		proto   string
		want    int
	}{
		{"client came by TLS", []rigOption{trusting("127.0.0.0/8")}, "https", 200},
		{"client came without", []rigOption{trusting("127.0.0.0/8")}, "http", 302},
		{"client says so itself", nil, "https", 302},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, port := range []uint16{0, 8443} {
				r := newRig(t, h1, one(service("web", route.HTTP), addr, &route.Redirect{Scheme: "https", Port: port}), test.options...)
				req := r.request(http.MethodGet, "/", nil)
				req.Header.Set("X-Forwarded-Proto", test.proto)
				if res := r.do(req); res.StatusCode != test.want {
					t.Errorf("port %d: got %d, want %d", port, res.StatusCode, test.want)
				}
			}
		})
	}
}

func FuzzLocation(f *testing.F) {
	for _, s := range []string{"/", "//evil.test", "/x//evil.test", "/\\evil.test", "/x/..//evil.test", "/x\r\nSet-Cookie: a", "/x?q=\"#<>", "/%0d%0a", "/x/@evil.test"} {
		f.Add(s, "/")
	}
	f.Fuzz(func(t *testing.T, target, replacement string) {
		path, query, _ := strings.Cut(target, "?")
		normal, changed, err := route.NormalizePath(path)
		if err != nil || strings.ContainsAny(query, "\r\n\x00") {
			return
		}
		if changed {
			path = normal
		}
		x := &exchange{
			in: &http.Request{URL: &url.URL{RawQuery: query}}, path: path, scheme: "http", request: route.Request{Host: "app.test", Path: normal},
			rule: &boundRule{Rule: &route.Rule{Match: route.Match{Path: route.PathMatch{Value: "/x"}}}, listener: &route.Listener{Port: 8080}},
		}
		for _, d := range []*route.Redirect{{}, {Path: &route.PathChange{Prefix: &replacement}}, {Path: &route.PathChange{Full: &replacement}}} {
			got := x.location(d)
			u, err := url.Parse(got)
			if err != nil || u.Scheme != "http" || u.Host != "app.test:8080" || u.User != nil || u.Fragment != "" && !strings.Contains(target, "#") {
				t.Errorf("%q with %v becomes %q: %v", target, d, got, err)
			}
			if strings.ContainsFunc(got, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '\\' || r == '"' }) {
				t.Errorf("%q becomes %q", target, got)
			}
		}
	})
}
