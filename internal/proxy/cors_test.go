package proxy

import (
	"net/http"
	"strings"
	"testing"

	"github.com/fairlead-io/fairlead/internal/route"
)

func origins(t *testing.T, texts ...string) (out []route.Origin) {
	t.Helper()
	for _, text := range texts {
		o, ok := route.ParseOrigin(text)
		if !ok && text != "*" {
			t.Fatalf("%q is not an origin", text)
		}
		out = append(out, o)
	}
	return out
}

// Each row is a request to a rule whose backend says itself that everything is allowed to everybody, which must not count.
func TestCORS(t *testing.T) {
	addr := serveHTTP(t, func(w http.ResponseWriter, _ *http.Request) {
		for name, value := range map[string]string{
			allowOrigin: "*", allowCredentials: "true", allowMethods: "*", allowHeaders: "*", exposeHeaders: "*", maxAge: "86400", "Vary": "Accept", "X-From": "backend",
		} {
			w.Header().Set(name, value)
		}
	})
	pool := service("web", route.HTTP)
	several := &route.CORS{
		Origins: origins(t, "https://www.foo.com", "https://*.bar.com"), Credentials: true, Methods: []string{"GET", "OPTIONS"},
		Headers: []string{"x-header-1", "x-header-2"}, Expose: []string{"x-header-3", "x-header-4"}, MaxAge: 3600,
	}
	open := &route.CORS{Origins: origins(t, "*"), Methods: []string{"*"}, Headers: []string{"*"}, Expose: []string{"*"}, MaxAge: 5}
	openWithCredentials := &route.CORS{Origins: origins(t, "*"), Methods: []string{"*"}, Headers: []string{"*"}, Credentials: true, MaxAge: 5}
	atBackend := rule("/backend", pool)
	atBackend.Backends[0].Filters = []route.Filter{several}
	w := world{
		rules: []*route.Rule{
			rule("/several", pool, several), rule("/open", pool, open), rule("/credentials", pool, openWithCredentials), atBackend,
			rule("/none", pool, &route.CORS{MaxAge: 5}), rule("/gone", service("gone", route.HTTP), several),
			rule("/moved", pool, several, &route.Redirect{Hostname: "other.example.com", Status: 302}),
		},
		endpoints: map[*route.Pool][]string{pool: {addr}},
	}
	const ask = "OPTIONS"
	tests := []struct {
		name, method, path, origin, wants, headers string
		status                                     int
		want                                       string // "name: value" lines; absent headers are not there
	}{
		{
			"preflight", ask, "/several", "https://www.foo.com", "GET", "x-header-1, x-header-2", 204,
			"Origin: https://www.foo.com\nCredentials: true\nMethods: GET, OPTIONS\nHeaders: x-header-1, x-header-2\nExpose: x-header-3, x-header-4\nMax-Age: 3600",
		},
		{
			"preflight from a subdomain", ask, "/several", "https://xpto.www.bar.com", "GET", "", 204,
			"Origin: https://xpto.www.bar.com\nCredentials: true\nMethods: GET, OPTIONS\nHeaders: x-header-1, x-header-2\nExpose: x-header-3, x-header-4\nMax-Age: 3600",
		},
		{"preflight from elsewhere", ask, "/several", "https://foobar.com", "GET", "", 403, ""},
		{"preflight where nobody may", ask, "/none", "https://foobar.com", "GET", "", 403, ""},
		{
			"preflight at the backend's filter", ask, "/backend", "https://www.foo.com", "GET", "", 204,
			"Origin: https://www.foo.com\nCredentials: true\nMethods: GET, OPTIONS\nHeaders: x-header-1, x-header-2\nExpose: x-header-3, x-header-4\nMax-Age: 3600",
		},
		{"open preflight", ask, "/open", "https://foobar.com:12345", "PUT", "x-a", 204, "Origin: *\nMethods: PUT\nHeaders: x-a\nExpose: *\nMax-Age: 5"},
		{"open preflight without headers", ask, "/open", "null", "PUT", "", 204, "Origin: *\nMethods: PUT\nExpose: *\nMax-Age: 5"},
		{
			"preflight with credentials", ask, "/credentials", "https://other.foo.com", "PUT", "x-header-1, x-header-2", 204,
			"Origin: https://other.foo.com\nCredentials: true\nMethods: PUT\nHeaders: x-header-1, x-header-2\nMax-Age: 5",
		},
		{"credentials for null", ask, "/credentials", "null", "PUT", "", 403, ""},
		{"preflight with headers that are none", ask, "/open", "https://a.com", "PUT", "x a\tb", 204, "Origin: *\nMethods: PUT\nExpose: *\nMax-Age: 5"},
		{"request", "GET", "/several", "https://www.foo.com", "", "", 200, "Origin: https://www.foo.com\nCredentials: true\nExpose: x-header-3, x-header-4"},
		{"request from elsewhere", "GET", "/several", "https://foobar.com", "", "", 200, ""},
		{"request from nowhere", "GET", "/several", "", "", "", 200, ""},
		{"open request", "PUT", "/open", "https://foobar.com:12345", "", "", 200, "Origin: *\nExpose: *"},
		{"OPTIONS that is no preflight", ask, "/several", "https://www.foo.com", "", "", 200, "Origin: https://www.foo.com\nCredentials: true\nExpose: x-header-3, x-header-4"},
		{"an answer of our own", "GET", "/gone", "https://www.foo.com", "", "", 500, "Origin: https://www.foo.com\nCredentials: true\nExpose: x-header-3, x-header-4"},
		{"a redirect", "GET", "/moved", "https://www.foo.com", "", "", 302, "Origin: https://www.foo.com\nCredentials: true\nExpose: x-header-3, x-header-4"},
	}
	eachMode(t, func(t *testing.T, m mode) {
		r := newRig(t, m, w)
		for _, test := range tests {
			req := r.request(test.method, test.path, nil)
			for name, value := range map[string]string{"Origin": test.origin, requestMethod: test.wants, requestHeaders: test.headers} {
				if value != "" {
					req.Header.Set(name, value)
				}
			}
			res, err := r.client.Transport.RoundTrip(req)
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
				continue
			}
			_ = res.Body.Close()
			var got []string
			for _, name := range []string{allowOrigin, allowCredentials, allowMethods, allowHeaders, exposeHeaders, maxAge} {
				for _, value := range res.Header[name] {
					got = append(got, strings.TrimPrefix(strings.TrimPrefix(name, "Access-Control-"), "Allow-")+": "+value)
				}
			}
			text := strings.ReplaceAll(strings.Join(got, "\n"), "Expose-Headers", "Expose")
			if res.StatusCode != test.status || text != test.want {
				t.Errorf("%s: got %d\n%s\nwant %d\n%s", test.name, res.StatusCode, text, test.status, test.want)
			}
			preflight := test.method == ask && test.wants != ""
			if (res.Header.Get("X-From") == "backend") != (res.StatusCode == 200) || preflight && res.StatusCode == 200 {
				t.Errorf("%s: the backend answered", test.name)
			}
			vary := strings.Join(res.Header["Vary"], ", ")
			if strings.Contains(vary, "Origin") == (test.path == "/open") {
				t.Errorf("%s: Vary %q", test.name, vary)
			}
		}
	})
}
