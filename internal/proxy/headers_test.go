package proxy

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-io/fairlead/internal/route"
)

// spoofable are headers by which a client could pretend to be another, or to have asked for something else.
var spoofable = []string{
	"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Server", "X-Forwarded-Ssl",
	"X-Forwarded-Client-Cert", "X-Forwarded-User", "X-Real-IP", "True-Client-IP", "X-Client-IP", "CF-Connecting-IP", "X-Original-URL", "X-Rewrite-URL",
	"X-Original-Forwarded-For", "X-Envoy-External-Address", "X-HTTP-Method-Override", "Client-IP", "Front-End-Https", "X-Request-ID", "Ssl-Client-Verify",
	"Client-Cert", "Client-Cert-Chain", "X-Client-Cert", "X-SSL-Client-Cert", "X-SSL-Cert", "X-Forwarded-Tls-Client-Cert", "X-Amzn-Mtls-Clientcert-Leaf", "X-ARR-ClientCert",
}

// spellings are ways to write a name that some server takes for the same.
var spellings = map[string]func(string) string{
	"as is":      func(s string) string { return s },
	"lower":      strings.ToLower,
	"upper":      strings.ToUpper,
	"underscore": func(s string) string { return strings.ReplaceAll(s, "-", "_") },
	"mixed":      func(s string) string { return strings.Replace(strings.ToLower(s), "-", "_", 1) },
	"dots":       func(s string) string { return strings.ReplaceAll(s, "-", ".") },
}

// leaked returns the values in a header that hold a word.
func leaked(h http.Header, word string) (found []string) {
	for name, values := range h {
		for _, v := range values {
			if strings.Contains(v, word) || strings.Contains(name, word) {
				found = append(found, name+": "+v)
			}
		}
	}
	slices.Sort(found)
	return found
}

func TestClientsCannotSpoofIdentity(t *testing.T) {
	addr := serveHTTP(t, showHeader)
	r := newRig(t, h1, one(service("web", route.HTTP), addr))
	want := http.Header{"X-Forwarded-For": {"127.0.0.1"}, "X-Forwarded-Host": {"app.test"}, "X-Forwarded-Proto": {"http"}, "X-Forwarded-Port": {"8080"}}
	for _, name := range spoofable {
		for how, spell := range spellings {
			for wrapped, head := range map[string]string{
				"alone":             "%s: spoofed\r\n",
				"twice":             "%[1]s: spoofed\r\n%[1]s: spoofed again\r\n",
				"in Connection":     "%[1]s: spoofed\r\nConnection: %[1]s, keep-alive\r\n",
				"our name listed":   "%[1]s: spoofed\r\nConnection: x-forwarded-for, X-FORWARDED-PROTO, x-request-id\r\n",
				"in lower case too": "%[1]s: spoofed\r\nconnection: X-Forwarded-For,x-forwarded-host\r\n",
			} {
				head = fmt.Sprintf(head, spell(name))
				head, _, _ = strings.Cut(head, "%!(EXTRA")
				res, _ := sendRaw(t, r.dial(), "GET / HTTP/1.1\r\nHost: app.test\r\n"+head+"\r\n")
				got := decodeHeader(t, res)
				if found := leaked(got, "spoofed"); found != nil {
					t.Errorf("%s, %s, %s: backend got %q", name, how, wrapped, found)
				}
				for name, value := range want {
					if diff := cmp.Diff(value, got[name]); diff != "" {
						t.Errorf("%s, %s, %s: %s: %s", name, how, wrapped, name, diff)
					}
				}
				if id := got["X-Request-Id"]; len(id) != 1 || len(id[0]) != 32 {
					t.Errorf("%s, %s, %s: X-Request-Id %q", name, how, wrapped, id)
				}
				_ = res.Body.Close()
			}
		}
	}
}

func decodeHeader(t *testing.T, res *http.Response) (h http.Header) {
	t.Helper()
	if err := json.NewDecoder(res.Body).Decode(&h); err != nil {
		t.Fatalf("status %d: %v", res.StatusCode, err)
	}
	return h
}

func TestClientsCannotSpoofIdentityOnHTTP2(t *testing.T) {
	for _, p := range []route.Protocol{route.HTTP, route.H2C} {
		r := newRig(t, h2, one(service("web", p), serveBackend(t, p, showHeader)))
		for how, spell := range spellings {
			req := r.request(http.MethodGet, "/", nil)
			for _, name := range spoofable {
				req.Header[spell(name)] = []string{"spoofed"}
			}
			got := r.do(req).shown(t)
			if found := leaked(got, "spoofed"); found != nil {
				t.Errorf("%s, %s: backend got %q", p, how, found)
			}
			if got.Get("X-Forwarded-Proto") != "https" {
				t.Errorf("%s, %s: X-Forwarded-Proto %q", p, how, got["X-Forwarded-Proto"])
			}
		}
	}
}

func TestTrustedProxiesAreBelieved(t *testing.T) {
	addr := serveHTTP(t, showHeader)
	r := newRig(t, h1, one(service("web", route.HTTP), addr), trusting("127.0.0.0/8", "10.0.0.0/8"))
	res, _ := sendRaw(t, r.dial(), "GET / HTTP/1.1\r\nHost: app.test\r\n"+
		"X-Forwarded-For: 6.6.6.6, 203.0.113.7\r\nX-Forwarded-For: 10.1.2.3\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.test\r\nX-Forwarded-Port: 443\r\n"+
		"X-Forwarded-Prefix: /p\r\nForwarded: for=1.2.3.4\r\nX-Real-IP: 203.0.113.7\r\nX-Request-Id: abc-123\r\nX_Forwarded_For: 1.1.1.1\r\nClient-Cert: :Zm9v:\r\nX-Fairlead-Reason: x\r\nProxy: evil\r\n\r\n")
	got := decodeHeader(t, res)
	want := map[string][]string{
		"X-Forwarded-For": {"6.6.6.6, 203.0.113.7, 10.1.2.3, 127.0.0.1"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"shop.test"},
		"X-Forwarded-Port": {"443"}, "X-Forwarded-Prefix": {"/p"}, "Forwarded": {"for=1.2.3.4"}, "X-Real-Ip": {"203.0.113.7"}, "X-Request-Id": {"abc-123"}, "Client-Cert": {":Zm9v:"},
		"X_forwarded_for": nil, "X-Fairlead-Reason": nil, "Proxy": nil, "Host": {"app.test"},
	}
	for name, value := range want {
		if diff := cmp.Diff(value, got[name]); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	e := r.entries()[0]
	if e["client_ip"] != "203.0.113.7" || e["peer_ip"] != "127.0.0.1" || e["request_id"] != "abc-123" || e["scheme"] != "https" {
		t.Errorf("logged %v", e)
	}
}

func TestTrustedProxiesThatSayNothing(t *testing.T) {
	r := newRig(t, h1s, one(service("web", route.HTTP), serveHTTP(t, showHeader)), trusting("127.0.0.1/32"))
	got := r.get("/").shown(t)
	for name, value := range map[string]string{
		"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "app.test", "X-Forwarded-Port": "8080",
	} {
		if diff := cmp.Diff([]string{value}, got[name]); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestClientOf(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for _, test := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"nothing said", nil, "10.0.0.1"},
		{"one hop", []string{"203.0.113.7"}, "203.0.113.7"},
		{"the rightmost that is not trusted", []string{"6.6.6.6, 203.0.113.7, 10.9.9.9"}, "203.0.113.7"},
		{"over several lines", []string{"6.6.6.6", "203.0.113.7", "10.9.9.9 , 10.8.8.8"}, "203.0.113.7"},
		{"all trusted", []string{"10.3.3.3, 10.2.2.2"}, "10.3.3.3"},
		{"ports and brackets", []string{"203.0.113.7:4711,10.2.2.2:80,[fd00::1]:443,[fd00::2]"}, "203.0.113.7"},
		{"IPv6", []string{"2001:db8::1"}, "2001:db8::1"},
		{"IPv4 in IPv6", []string{"203.0.113.7, ::ffff:10.1.1.1"}, "203.0.113.7"},
		{"what is no address ends it", []string{"203.0.113.7, unknown, 10.2.2.2"}, "10.2.2.2"},
		{"nothing between commas", []string{"203.0.113.7,,10.2.2.2"}, "10.2.2.2"},
		{"rubbish alone", []string{"_hidden"}, "10.0.0.1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := clientOf(trusted, test.lines, netip.MustParseAddr("10.0.0.1")); got.String() != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestRequestIDs(t *testing.T) {
	r := newRig(t, h2c, one(service("web", route.HTTP), serveHTTP(t, showHeader)), trusting("127.0.0.1/32"))
	for sent, kept := range map[string]bool{
		"abc": true, "0af7651916cd43dd8448eb211c80319c": true, strings.Repeat("a", 128): true,
		"": false, strings.Repeat("a", 129): false, "a b": false, `a"b`: false, "a,b": false, "é": false,
	} {
		req := r.request(http.MethodGet, "/", nil)
		req.Header.Set("X-Request-Id", sent)
		got := r.do(req).shown(t).Get("X-Request-Id")
		if kept != (got == sent) || got == "" {
			t.Errorf("%q: backend got %q", sent, got)
		}
	}
	seen := map[string]bool{}
	for range 100 {
		seen[r.get("/").shown(t).Get("X-Request-Id")] = true
	}
	if len(seen) != 100 {
		t.Errorf("%d different ids for 100 requests", len(seen))
	}
}

func TestUnderscoresAreDroppedAndCounted(t *testing.T) {
	r := newRig(t, h1, one(service("web", route.HTTP), serveHTTP(t, showHeader)))
	req := r.request(http.MethodGet, "/", nil)
	req.Header["my_header"], req.Header["Content_Length"], req.Header["X.Y"] = []string{"1"}, []string{"100"}, []string{"dots are fine"}
	got := r.do(req).shown(t)
	if got["My_header"] != nil || got["Content_length"] != nil || got.Get("X.Y") == "" {
		t.Errorf("backend got %v", got)
	}
	if e := r.entries()[0]; e["detail"] != "dropped headers with an underscore: 2" {
		t.Errorf("logged %v", e)
	}
}

// RFC 9110, section 7.6.1: what is for one connection only is not passed on, in either direction.
func TestHopByHopHeaders(t *testing.T) {
	addr := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h["Connection"], h["X-Secret"], h["Keep-Alive"], h["Proxy-Authenticate"] = []string{"X-Secret"}, []string{"1"}, []string{"timeout=5"}, []string{"Basic"}
		showHeader(w, r)
	})
	r := newRig(t, h1, one(service("web", route.HTTP), addr))
	res, _ := sendRaw(t, r.dial(), "GET / HTTP/1.1\r\nHost: app.test\r\nConnection: X-Mine, keep-alive\r\nX-Mine: 1\r\nX-Other: 1\r\n"+
		"Keep-Alive: timeout=5\r\nProxy-Authorization: x\r\nProxy-Connection: close\r\nTE: gzip\r\nHTTP2-Settings: AAAA\r\n\r\n")
	got := decodeHeader(t, res)
	for _, name := range []string{"Connection", "X-Mine", "Keep-Alive", "Proxy-Authorization", "Proxy-Connection", "Te", "Http2-Settings"} {
		if got[name] != nil {
			t.Errorf("backend got %s: %q", name, got[name])
		}
	}
	if got.Get("X-Other") != "1" {
		t.Error("backend did not get X-Other")
	}
	for _, name := range []string{"X-Secret", "Keep-Alive", "Proxy-Authenticate"} {
		if res.Header[name] != nil {
			t.Errorf("client got %s: %q", name, res.Header[name])
		}
	}
}

func TestRequestTrailers(t *testing.T) {
	type seen struct{ announced, got http.Header }
	for _, p := range []route.Protocol{route.HTTP, route.H2C} {
		saw := make(chan seen, 1)
		addr := serveBackend(t, p, func(_ http.ResponseWriter, r *http.Request) {
			s := seen{announced: r.Trailer.Clone()}
			_, _ = io.Copy(io.Discard, r.Body)
			s.got = r.Trailer
			saw <- s
		})
		eachMode(t, func(t *testing.T, m mode) {
			r := newRig(t, m, one(service("web", p), addr))
			for _, te := range []string{"trailers", ""} {
				pr, pw := io.Pipe()
				req := r.request(http.MethodPost, "/", pr)
				req.Trailer = http.Header{}
				for _, name := range []string{"X-Checksum", "X-Forwarded-For", "X-Real-Ip", "Cookie", "X_a"} {
					req.Trailer[name] = nil
				}
				if !m.http2 { // net/http's HTTP/2 server resets streams with these
					req.Trailer["Authorization"], req.Trailer["Content-Type"] = nil, nil
				}
				if te != "" {
					req.Header.Set("Te", te)
				}
				go func() {
					_, _ = io.WriteString(pw, "body")
					for name := range req.Trailer {
						req.Trailer[name] = []string{"spoofed"}
					}
					req.Trailer["X-Checksum"] = []string{"42"}
					_ = pw.Close()
				}()
				if res := r.do(req); res.StatusCode != 200 {
					t.Fatalf("got %d", res.StatusCode)
				}
				got := <-saw
				want := http.Header{"X-Checksum": {"42"}}
				if te == "" {
					want = nil
				}
				if diff := cmp.Diff(want, got.got); diff != "" {
					t.Errorf("%s, TE %q: %s", p, te, diff)
				}
				if len(got.announced) != len(want) {
					t.Errorf("%s, TE %q: announced %v", p, te, got.announced)
				}
			}
		})
	}
}

func TestFold(t *testing.T) {
	for in, want := range map[string]string{"X.Forwarded.For": "X-Forwarded-For", "x!real~ip": "X-Real-Ip", "Proxy": "Proxy"} {
		if got := fold(in); got != want {
			t.Errorf("fold(%q) = %q, want %q", in, got, want)
		}
	}
}
