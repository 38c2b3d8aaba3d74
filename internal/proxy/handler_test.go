package proxy

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/internal/backend"
	"github.com/fairlead-io/fairlead/internal/route"
)

// showTarget answers with the request line and the host that it got.
func showTarget(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Proto", r.Proto)
	_, _ = io.Copy(io.Discard, r.Body)
	_, _ = io.WriteString(w, r.Method+" "+r.RequestURI+" "+r.Host)
}

// named answers with a name.
func named(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) }
}

func TestForwardBetweenAllProtocols(t *testing.T) {
	for p, proto := range map[route.Protocol]string{route.HTTP: "HTTP/1.1", route.H2C: "HTTP/2.0", route.HTTPS: ""} {
		t.Run(string(p), func(t *testing.T) {
			addr := serveBackend(t, p, showTarget)
			eachMode(t, func(t *testing.T, m mode) {
				r := newRig(t, m, one(service("web", p), addr))
				res := r.get("/a/b?c=d")
				if want := "GET /a/b?c=d app.test"; res.StatusCode != http.StatusOK || res.body != want {
					t.Errorf("got %d %q, want %q", res.StatusCode, res.body, want)
				}
				if proto != "" && res.Header.Get("X-Proto") != proto {
					t.Errorf("backend was spoken to in %s, want %s", res.Header.Get("X-Proto"), proto)
				}
				body := strings.Repeat("x", 100_000)
				if res := r.do(r.request(http.MethodPost, "/up", strings.NewReader(body))); res.body != "POST /up app.test" {
					t.Errorf("POST: got %d %q", res.StatusCode, res.body)
				}
				for _, e := range r.entries() {
					if e["reason"] != nil || e["status"] != 200.0 {
						t.Errorf("logged %v", e)
					}
				}
			})
		})
	}
}

func TestAnswersWithoutABackend(t *testing.T) {
	pool, empty := service("web", route.HTTP), service("empty", route.HTTP)
	fault := rule("/fault", nil)
	fault.Fault = &route.Fault{Status: 500, Reason: route.RouteInvalid, Why: "secret detail about shop/other"}
	missing := rule("/missing", pool)
	missing.Backends[0] = route.WeightedPool{
		Weight: 1, Source: source("spec.rules[2].backendRefs[0]"),
		Fault: &route.Fault{Status: 500, Reason: route.NoBackend, Why: "Service shop/other does not exist"},
	}
	weightless := rule("/weightless", pool)
	weightless.Backends[0].Weight = 0
	uninstalled := rule("/uninstalled", service("forgotten", route.HTTP))
	w := world{
		rules:     []*route.Rule{rule("/web", pool), rule("/empty", empty), fault, missing, weightless, uninstalled},
		endpoints: map[*route.Pool][]string{pool: {serveHTTP(t, showTarget)}, empty: nil},
	}
	for _, test := range []struct {
		name, target string
		status       int
		reason       route.Reason
		grpc         string
		rule         string
	}{
		{"no rule for the path", "/nothing", 404, route.NoRoute, "12", ""},
		{"no endpoints", "/empty", 503, route.NoEndpoints, "14", "spec.rules[0].matches[0]"},
		{"the rule is invalid", "/fault", 500, route.RouteInvalid, "13", "spec.rules[0].matches[0]"},
		{"the backend does not exist", "/missing", 500, route.NoBackend, "14", "spec.rules[2].backendRefs[0]"},
		{"all weights are 0", "/weightless", 500, route.NoBackend, "14", "spec.rules[0].matches[0]"},
		{"the pool is unknown", "/uninstalled", 500, route.Internal, "13", "spec.rules[0].backendRefs[0]"},
		{"path with NUL", "/web%00", 400, route.BadPath, "3", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			eachMode(t, func(t *testing.T, m mode) {
				r := newRig(t, m, w)
				res := r.get(test.target)
				if res.StatusCode != test.status || res.Header.Get(ReasonHeader) != string(test.reason) {
					t.Errorf("got %d %q, want %d %q", res.StatusCode, res.Header.Get(ReasonHeader), test.status, test.reason)
				}
				if want := fmt.Sprintf("%d %s: %s\n", test.status, http.StatusText(test.status), test.reason); res.body != want {
					t.Errorf("body %q, want %q", res.body, want)
				}
				if got, want := res.Header.Get("Retry-After"), map[int]string{503: "1"}[test.status]; got != want {
					t.Errorf("Retry-After %q, want %q", got, want)
				}
				if head := r.do(r.request(http.MethodHead, test.target, nil)); head.StatusCode != test.status || head.body != "" {
					t.Errorf("HEAD: got %d %q", head.StatusCode, head.body)
				}
				grpc := r.request(http.MethodPost, test.target, strings.NewReader("hello"))
				grpc.Header.Set("Content-Type", "application/grpc+proto")
				if res := r.do(grpc); res.StatusCode != 200 || res.Header.Get("Grpc-Status") != test.grpc || res.body != "" {
					t.Errorf("gRPC: got %d, grpc-status %q, body %q; want grpc-status %s", res.StatusCode, res.Header.Get("Grpc-Status"), res.body, test.grpc)
				}
				e := r.entries()[0]
				got := ""
				if at, ok := e["route"].(map[string]any); ok {
					got, _ = at["rule"].(string)
				}
				if e["reason"] != string(test.reason) || got != test.rule {
					t.Errorf("logged reason %v and rule %q, want %q and %q", e["reason"], got, test.reason, test.rule)
				}
			})
		})
	}
}

func TestUnmatchedRequestsAreCounted(t *testing.T) {
	pool := service("web", route.HTTP)
	r := newRig(t, h1, world{rules: []*route.Rule{rule("/web", pool)}, endpoints: map[*route.Pool][]string{pool: {serveHTTP(t, showTarget)}}})
	r.get("/web")
	r.get("/other")
	r.get("/other")
	r.stop()
	if n := r.counter("fairlead_unmatched_requests_total", "listener", "infra/gw/web", "reason", "no-route"); n != 2 {
		t.Errorf("%v unmatched, want 2", n)
	}
	if n := r.counter("fairlead_requests_total", "route_name", "web", "code", "200", "listener", "infra/gw/web"); n != 1 {
		t.Errorf("%v requests, want 1", n)
	}
	if n := r.counter("fairlead_backend_requests_total", "backend_service", "web", "code", "200"); n != 1 {
		t.Errorf("%v backend requests, want 1", n)
	}
	if n := r.counter("fairlead_requests_in_flight"); n != 0 {
		t.Errorf("%v in flight, want 0", n)
	}
}

// What a client wrote reaches the backend byte for byte, unless it would mean something else there.
func TestTargetsAreForwardedAsTheyCame(t *testing.T) {
	addr := serveHTTP(t, showTarget)
	for _, test := range []struct{ name, in, want string }{
		{"plain", "/a/b", "/a/b"},
		{"root", "/", "/"},
		{"escapes keep their case", "/%e2%82%ac%2f", "/%e2%82%ac%2f"},
		{"escapes of unreserved characters stay", "/%61%7E", "/%61%7E"},
		{"characters that should be escaped", `/a|b"c^d`, `/a|b"c^d`},
		{"raw UTF-8", "/€", "/€"},
		{"double slash inside", "/a//b", "/a//b"},
		{"double slash first", "//a.test/b", "//a.test/b"},
		{"double slash first, with escapes", "//a%2Fb%2F..%2Fc", "//a%2Fb%2F..%2Fc"},
		{"double slash first, with characters to be escaped", `//a%2fb"|`, `//a%2Fb%22%7C`},
		{"semicolons and sub-delims", "/a;b=1/..;/c!$&'()*+,:@=", "/a;b=1/..;/c!$&'()*+,:@="},
		{"dot segments are resolved", "/a/./b/../c", "/a/c"},
		{"escaped dot segments are resolved", "/a/%2e%2E/c", "/c"},
		{"dot segments above the root", "/../../etc", "/etc"},
		{"query with semicolons", "/a?x=1;y=2", "/a?x=1;y=2"},
		{"query with bad escapes", "/a?a=%zz&b=2&c=%", "/a?a=%zz&b=2&c=%"},
		{"query with duplicates and empty names", "/a?a=1&a=2&&=&b", "/a?a=1&a=2&&=&b"},
		{"query with question marks and slashes", "/a?b?c=/../d", "/a?b?c=/../d"},
		{"query with raw UTF-8 and brackets", "/a?€[0]={\"x\"}", "/a?€[0]={\"x\"}"},
		{"empty query", "/a?", "/a?"},
		{"many parameters", "/a?" + strings.Repeat("a&", 7000), "/a?" + strings.Repeat("a&", 7000)},
		{"absolute form", "http://app.test/a%2Fb?c", "/a%2Fb?c"},
		{"absolute form without a path", "http://app.test", "/"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, h1, one(service("web", route.HTTP), addr))
			res, _ := sendRaw(t, r.dial(), "GET "+test.in+" HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n")
			b, _ := io.ReadAll(res.Body)
			if want := "GET " + test.want + " app.test"; string(b) != want {
				t.Errorf("%d: backend got %.200q, want %.200q", res.StatusCode, b, want)
			}
		})
	}
}

func TestTargetsAreForwardedAsTheyCameOnHTTP2(t *testing.T) {
	for _, p := range []route.Protocol{route.HTTP, route.H2C} {
		r := newRig(t, h2, one(service("web", p), serveBackend(t, p, showTarget)))
		for in, want := range map[string]string{
			"/%61|b": "/%61|b", "/a/../b": "/b", "/€?x=1;y=2&%zz": "/€?x=1;y=2&%zz", "/a//b": "/a//b",
		} {
			req := r.request(http.MethodGet, "/", nil)
			req.URL.Opaque, req.URL.RawQuery, _ = strings.Cut(in, "?")
			if !strings.Contains(in, "?") {
				req.URL.Opaque, req.URL.RawQuery = in, ""
			}
			if _, query, ok := strings.Cut(in, "?"); ok {
				req.URL.RawQuery = query
			}
			if res := r.do(req); res.body != "GET "+want+" app.test" {
				t.Errorf("%s: %d: backend got %q, want %q", p, res.StatusCode, res.body, want)
			}
		}
	}
}

func TestQueryThatWasMatchedOnMustBeReadable(t *testing.T) {
	pool := service("web", route.HTTP)
	matched := rule("/", pool)
	matched.Match.Query = []route.ValueMatch{{Name: "a", Value: "1"}}
	w := world{rules: []*route.Rule{matched}, endpoints: map[*route.Pool][]string{pool: {serveHTTP(t, showTarget)}}}
	r := newRig(t, h1, w)
	for query, want := range map[string]int{"a=1": 200, "a=1&b=%20": 200, "a=1&b=%zz": 400, "a=1&b=1;c=2": 400, "a=1&%": 400, "a=1&%4": 400} {
		res, _ := sendRaw(t, r.dial(), "GET /?"+query+" HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n")
		if res.StatusCode != want {
			t.Errorf("?%s: got %d, want %d", query, res.StatusCode, want)
		}
	}
}

func TestHostsThatAreNone(t *testing.T) {
	r := newRig(t, h1, one(service("web", route.HTTP), serveHTTP(t, showTarget)))
	for host, want := range map[string]int{
		"app.test": 200, "APP.test.:8080": 200, "[::1]:80": 200, "": 400, "a,b": 400, "a:abc": 400, "a:0": 400, "a:80@evil": 400, "a/b": 400, "[::1%25eth0]": 400,
	} {
		res, _ := sendRaw(t, r.dial(), "GET / HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
		if res.StatusCode != want {
			t.Errorf("%q: got %d, want %d", host, res.StatusCode, want)
		}
	}
}

// Gateway API, GatewayClass conformance: HTTPRouteHTTPSListenerDetectMisdirectedRequests, and the text at Listener.hostname.
func TestMisdirectedRequests(t *testing.T) {
	addr := serveHTTP(t, showTarget)
	pool, ingress := service("web", route.HTTP), service("ingress", route.HTTP)
	listener := func(hostname string) *route.Listener {
		return &route.Listener{Name: "infra/gw/" + hostname, Hostname: hostname, Port: 443, Hosts: []*route.Host{{Name: hostname, Rules: []*route.Rule{rule("/", pool)}}}}
	}
	exact, wild, deeper := listener("second.example.org"), listener("*.example.org"), listener("*.wild.example.org")
	last := &route.Listener{Name: "ingress", LastResort: true, Port: 443, Hosts: []*route.Host{{Name: "ingress.test", Rules: []*route.Rule{rule("/", ingress)}}}}
	endpoints := map[*route.Pool][]string{pool: {addr}, ingress: {addr}}
	gateways := world{listeners: []*route.Listener{exact, wild, deeper}, endpoints: endpoints}
	withAny := world{listeners: []*route.Listener{
		exact, wild, deeper, {Name: "infra/gw/any", Port: 443, Hosts: []*route.Host{{Name: "third.test", Rules: []*route.Rule{rule("/", pool)}}}},
	}, endpoints: endpoints}
	withIngress := world{listeners: []*route.Listener{exact, wild, deeper, last}, endpoints: endpoints}
	for _, test := range []struct {
		name      string
		w         world
		sni, host string
		want      int
	}{
		{"same", gateways, "second.example.org", "second.example.org", 200},
		{"case, dot and port do not matter", gateways, "SECOND.example.org", "Second.Example.ORG.:443", 200},
		{"same wildcard listener", gateways, "a.example.org", "b.example.org", 200},
		{"other listener owns the host: exact", gateways, "a.example.org", "second.example.org", 421},
		{"other listener owns the host: wildcard", gateways, "second.example.org", "a.example.org", 421},
		{"other listener owns the host: longer wildcard", gateways, "a.example.org", "a.wild.example.org", 421},
		{"nobody owns the host", gateways, "second.example.org", "nobody.test", 404},
		{"no name, host owned", gateways, "", "second.example.org", 421},
		{"hostname-less listener, host owned by another", withAny, "third.test", "second.example.org", 421},
		{"hostname-less listener, same", withAny, "third.test", "third.test", 200},
		{"hostname-less listener without a route for the host", withAny, "third.test", "fourth.test", 404},
		{"hostname-less listener owns what no other does", withAny, "second.example.org", "third.test", 421},
		{"ingress", withIngress, "ingress.test", "ingress.test", 200},
		{"ingress without a name", withIngress, "", "ingress.test", 200},
		{"ingress host on another's connection", withIngress, "second.example.org", "ingress.test", 421},
		{"unknown host on another's connection", withIngress, "second.example.org", "nobody.test", 404},
		{"another's host on an ingress connection", withIngress, "ingress.test", "second.example.org", 421},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, m := range []mode{h1s, h2} {
				r := newRig(t, m, test.w)
				config := r.client.Transport.(*http.Transport).TLSClientConfig
				config.ServerName = test.sni
				if test.sni == "" {
					config.ServerName = "192.0.2.1" // an address is not sent as a name
				}
				req := r.request(http.MethodGet, "/", nil)
				req.Host = test.host
				if res := r.do(req); res.StatusCode != test.want {
					t.Errorf("%s: got %d %s, want %d", m.name, res.StatusCode, res.Header.Get(ReasonHeader), test.want)
				}
			}
		})
	}
}

func TestWeights(t *testing.T) {
	pools := []*route.Pool{service("a", route.HTTP), service("b", route.HTTP), service("none", route.HTTP)}
	w := world{endpoints: map[*route.Pool][]string{}}
	split := rule("/", nil)
	for i, weight := range []int32{70, 30, 0} {
		name := pools[i].Key.Service
		w.endpoints[pools[i]] = []string{serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, name+r.Header.Get("X-For"))
		})}
		split.Backends = append(split.Backends, route.WeightedPool{Pool: pools[i], Weight: weight, Filters: []route.Filter{
			&route.RequestHeaders{HeaderChange: route.HeaderChange{Set: []route.Header{{Name: "X-For", Value: name}}}},
		}})
	}
	w.rules = []*route.Rule{split}
	r := newRig(t, h1, w)
	got := map[string]int{}
	const n = 2000
	for range n {
		got[r.get("/").body]++
	}
	// Seven standard deviations: one run in a hundred thousand million fails by chance.
	if off := math.Abs(float64(got["aa"])-0.7*n) / math.Sqrt(n*0.7*0.3); off > 7 || got["aa"]+got["bb"] != n {
		t.Errorf("got %v, want 70 %% aa and 30 %% bb", got)
	}
}

// A request keeps the table that it began with.
func TestTableChangesDuringARequest(t *testing.T) {
	arrived, proceed := make(chan struct{}), make(chan struct{})
	old, other := service("old", route.HTTP), service("new", route.HTTP)
	oldAddr := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(arrived)
			<-proceed
		}
		_, _ = io.WriteString(w, "old")
	})
	newAddr := serveHTTP(t, named("new"))
	r := newRig(t, h2, world{rules: []*route.Rule{rule("/", old)}, endpoints: map[*route.Pool][]string{old: {oldAddr}, other: {newAddr}}})
	result := make(chan string)
	go func() { result <- r.get("/slow").body }()
	<-arrived
	next := world{rules: []*route.Rule{rule("/", other)}, endpoints: map[*route.Pool][]string{other: {newAddr}}}
	r.swap(next)
	if got := r.get("/").body; got != "new" {
		t.Errorf("after the change: got %q, want new", got)
	}
	close(proceed)
	if got := <-result; got != "old" {
		t.Errorf("the request that was under way: got %q, want old", got)
	}
}

func TestPanicIsAnAnswer(t *testing.T) {
	r := newRig(t, h1, one(service("web", route.HTTP), serveHTTP(t, showTarget)))
	in := r.p.installed.Load()
	for _, b := range in.rules {
		b.backends[0].pool = panicker{}
	}
	res := r.get("/")
	if res.StatusCode != 500 || res.Header.Get(ReasonHeader) != string(route.Internal) {
		t.Errorf("got %d %q, want 500 internal-error", res.StatusCode, res.Header.Get(ReasonHeader))
	}
	if strings.Contains(res.body, "boom") {
		t.Errorf("the client was told %q", res.body)
	}
	if e := r.entries(); len(e) != 1 || e[0]["detail"] != "boom" {
		t.Errorf("logged %v", e)
	}
}

type panicker struct{}

func (panicker) Holds(string, *route.Persistence) bool { return false }

func (panicker) Do(*http.Request, *backend.Attempt) (*http.Response, error) { panic("boom") }

func TestRawPath(t *testing.T) {
	for in, want := range map[string]string{
		"/a?b": "/a", "/a%2F?": "/a%2F", "http://a.test": "/", "http://a.test?q": "/", "http://a.test/b?c://d/e": "/b", "https://a.test//b": "//b", "*": "*", "/a://b": "/a://b",
	} {
		if got := rawPath(&http.Request{RequestURI: in}); got != want {
			t.Errorf("rawPath(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzSetPath(f *testing.F) {
	for _, s := range []string{"/", "//", "/a|b", "//a%2f..%2fb\"", "/%2e%2e/", "///", "//€", "/a;b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		normal, changed, err := route.NormalizePath(raw)
		if err != nil {
			return
		}
		path := raw
		if changed {
			path = normal
		}
		u := &url.URL{Scheme: "http", Host: "10.0.0.1:80", Path: "/other"}
		setPath(u, path, normal)
		got := u.RequestURI()
		again, _, err := route.NormalizePath(got)
		if err != nil || again != normal {
			t.Errorf("%q goes out as %q, which is %q and not %q: %v", raw, got, again, normal, err)
		}
		if !strings.HasPrefix(path, "//") && got != path {
			t.Errorf("%q goes out as %q", path, got)
		}
	})
}

// Each way in which a backend fails to answer has a status and a reason of its own, and a client that is refused for now is told to come back.
func TestWhatBackendFailuresAreToClients(t *testing.T) {
	want := map[route.Reason]int{
		route.NoEndpoints: 503, route.EndpointsBusy: 503, route.QueueFull: 503, route.QueueTimeout: 503, route.RetryBudget: 503, route.Overloaded: 503,
		route.BackendConnectFailed: 502, route.BackendReset: 502, route.BackendProtocol: 502, route.BackendTimeout: 504,
		route.ClientClosed: statusClientClosed, route.BadBody: 400, route.Internal: 500,
	}
	for reason, status := range want {
		f := backendFailure(fmt.Errorf("wrapped: %w", &backend.Error{Reason: reason, Err: io.EOF}))
		if f.status != status || f.reason != reason {
			t.Errorf("%s: got %d %s, want %d", reason, f.status, f.reason, status)
		}
	}
	if f := backendFailure(io.EOF); f.status != 502 || f.reason != route.BackendReset {
		t.Errorf("an error that nobody knows: %d %s", f.status, f.reason)
	}
}

// The reasons of circuit breaking reach clients, with the time after which to come back.
func TestCircuitBreakingIsTold(t *testing.T) {
	held := make(chan struct{}, 10)
	slow := serveHTTP(t, func(_ http.ResponseWriter, r *http.Request) {
		held <- struct{}{}
		<-r.Context().Done()
	})
	for reason, limits := range map[route.Reason]route.Limits{
		route.EndpointsBusy: {Requests: 1},
		route.QueueTimeout:  {Requests: 1, Pending: 1, Queue: 10 * time.Millisecond},
	} {
		t.Run(string(reason), func(t *testing.T) {
			pool := service("web", route.HTTP)
			pool.Care.Limits = limits
			eachMode(t, func(t *testing.T, m mode) {
				r := newRig(t, m, one(pool, slow))
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				defer wg.Wait()
				defer cancel()
				wg.Go(func() { // has the endpoint to itself, until it is called off
					res, err := r.client.Do(r.request(http.MethodGet, "/", nil).WithContext(ctx))
					if err == nil {
						_ = res.Body.Close()
					}
				})
				<-held
				res := r.get("/")
				if res.StatusCode != 503 || res.Header.Get(ReasonHeader) != string(reason) || res.Header.Get("Retry-After") == "" {
					t.Errorf("got %d %q, Retry-After %q", res.StatusCode, res.Header.Get(ReasonHeader), res.Header.Get("Retry-After"))
				}
			})
		})
	}
}
