package route

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTableString(t *testing.T) {
	web := &Pool{Key: PoolKey{Namespace: "shop", Service: "web", Port: 80}, Protocol: HTTP, Source: Source{Kind: "Service", Namespace: "shop", Name: "web"}}
	canary := &Pool{Key: PoolKey{Namespace: "shop", Service: "canary", Port: 80}, Protocol: H2C, Source: Source{Kind: "Service", Namespace: "shop", Name: "canary"}}
	rule := func(kind, name, field string, m Match) *Rule {
		return &Rule{Match: m, Source: Source{kind, "shop", name, field}}
	}
	regex, err := CompileRegex(`/v\d+/.*`)
	if err != nil {
		t.Fatal(err)
	}

	split := rule("HTTPRoute", "api", "spec.rules[0].matches[0]", Match{
		Path: PathMatch{Value: "/v2"}, Method: "GET",
		Headers: []ValueMatch{{Name: "X-Canary", Value: "1"}}, Query: []ValueMatch{{Name: "a", Value: "b"}},
	})
	split.Filters = []Filter{
		&RequestHeaders{HeaderChange{Set: []Header{{"X-A", "1"}}, Remove: []string{"X-Old"}}}, &Rewrite{Hostname: "b.example.com", Path: &PathChange{Prefix: new("/")}},
	}
	split.Backends = []WeightedPool{{Pool: web, Weight: 9}, {Pool: canary, Weight: 1, Filters: []Filter{&ResponseHeaders{HeaderChange{Add: []Header{{"X-C", "a b"}}}}}}}
	split.Timeouts = Timeouts{Request: 5 * time.Second, Backend: -1}

	redirect := rule("HTTPRoute", "api", "spec.rules[1].matches[0]", Match{Path: PathMatch{Kind: Exact, Value: "/old"}})
	redirect.Filters = []Filter{&Redirect{Scheme: "https", Hostname: "c.example.com", Port: 8443, Path: &PathChange{Full: new("/new")}, Status: 301}}

	broken := rule("HTTPRoute", "api", "spec.rules[2].matches[0]", Match{Path: PathMatch{Kind: Regex, Value: `/v\d+/.*`, Regex: regex}})
	broken.Fault = &Fault{500, RouteInvalid, "backendRefs is empty"}

	thirds := rule("HTTPRoute", "api", "spec.rules[3].matches[0]", Match{})
	thirds.Backends = []WeightedPool{{Pool: web, Weight: 1}, {Fault: &Fault{500, NoBackend, ""}, Weight: 2}, {Pool: canary}}

	plain := rule("Ingress", "site", "spec.rules[0].http.paths[0]", Match{Path: PathMatch{Value: "/"}})
	plain.Backends = []WeightedPool{{Pool: web, Weight: 1}}
	last := rule("Ingress", "site", "spec.defaultBackend", Match{})
	last.Order.Last = true
	last.Fault = &Fault{503, NoBackend, ""}

	gateway := &Listener{Name: "infra/gw/http", Hostname: "*.example.com", Port: 80, Source: Source{"Gateway", "infra", "gw", "spec.listeners[0]"}}
	gateway.Hosts = []*Host{{Name: "*.example.com", Rules: []*Rule{thirds}}, {Name: "api.example.com", Rules: []*Rule{split, redirect, broken}}}
	ingress := &Listener{Name: "ingress", LastResort: true, OneLabelWildcards: true, Port: 80}
	ingress.Hosts = []*Host{{Name: "site.example.com", Rules: []*Rule{plain}}, {Rules: []*Rule{last}}}
	empty := &Listener{Name: "infra/gw/tls", Source: Source{"Gateway", "infra", "gw", "spec.listeners[1]"}}

	ports := []*Port{
		{Bind: Bind{Address: "127.0.0.2", Port: 8443}, Protocol: HTTPS, Listeners: []*Listener{empty}},
		{Bind: Bind{Address: "", Port: 8080}, Protocol: HTTP, Listeners: []*Listener{ingress, gateway}},
	}
	rejected := []Rejected{
		{nil, "Gateway infra/gw allows routes from its own namespace only", Source{"HTTPRoute", "other", "all", "spec.parentRefs[0]"}},
		{[]string{"a.example.com", "*.b.example.com"}, "no listener is named x", Source{"HTTPRoute", "other", "a", "spec.parentRefs[0]"}},
	}
	got := NewTable(ports, []*Pool{web, canary}, rejected).String()
	want := `port :8080 http
  listener infra/gw/http *.example.com port=80  # Gateway infra/gw spec.listeners[0]
    api.example.com  exact /old        | redirect 301 scheme=https host=c.example.com port=8443 path=/new  # HTTPRoute shop/api spec.rules[1].matches[0]
    api.example.com  regex ` + "`" + `/v\d+/.*` + "`" + `  -> 500 route-invalid                                                # HTTPRoute shop/api spec.rules[2].matches[0]
    api.example.com  prefix /v2        GET header:X-Canary=1 query:a=b | remove-request-header X-Old set-request-header X-A=1 | rewrite host=b.example.com prefix=/ -> shop/web:80 (90%), shop/canary:80 (10%) [add-response-header X-C="a b"] timeout=5s backend-timeout=none  # HTTPRoute shop/api spec.rules[0].matches[0]
    *.example.com    prefix /          -> shop/web:80 (1/3), 500 no-backend (2/3), shop/canary:80 (0%)     # HTTPRoute shop/api spec.rules[3].matches[0]
  listener ingress * port=80 one-label-wildcards last-resort
    site.example.com  prefix /  -> shop/web:80             # Ingress shop/site spec.rules[0].http.paths[0]
    *                 prefix /  default -> 503 no-backend  # Ingress shop/site spec.defaultBackend

port 127.0.0.2:8443 https
  listener infra/gw/tls *  # Gateway infra/gw spec.listeners[1]

pool shop/canary:80  h2c   # Service shop/canary
pool shop/web:80     http  # Service shop/web

rejected a.example.com,*.b.example.com  no listener is named x                                      # HTTPRoute other/a spec.parentRefs[0]
rejected *                              Gateway infra/gw allows routes from its own namespace only  # HTTPRoute other/all spec.parentRefs[0]
`
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); diff != "" {
		t.Error(diff)
	}
	if got := NewTable(nil, nil, nil).String(); got != "" {
		t.Errorf("an empty table prints as %q", got)
	}
}

func TestStrings(t *testing.T) {
	for _, c := range []struct{ name, got, want string }{
		{"bind", Bind{Address: "", Port: 8080}.String(), ":8080"},
		{"bind with an address", Bind{Address: "127.0.0.2", Port: 80}.String(), "127.0.0.2:80"},
		{"bind with an IPv6 address", Bind{Address: "::1", Port: 80}.String(), "[::1]:80"},
		{"pool", PoolKey{Namespace: "ns", Service: "svc", Port: 80}.String(), "ns/svc:80"},
		{"bind of UDP", Bind{Port: 53, UDP: true}.String(), ":53/udp"},
		{"pool of another kind", PoolKey{Kind: "XBackend", Namespace: "ns", Service: "svc", Port: 80, Variant: "infra/gw"}.String(), "XBackend/ns/svc:80@infra/gw"},
		{"pool of UDP", PoolKey{Namespace: "ns", Service: "svc", Port: 53, UDP: true}.String(), "ns/svc:53/udp"},
		{"fault without a status", (&Fault{Reason: NoBackend}).String(), "closed no-backend"},
		{"variant of a pool", PoolKey{Namespace: "ns", Service: "svc", Port: 80, Variant: "infra/gw"}.String(), "ns/svc:80@infra/gw"},
		{"source", Source{"HTTPRoute", "ns", "r", "spec.rules[0]"}.String(), "HTTPRoute ns/r spec.rules[0]"},
		{"source without a field", Source{Kind: "Service", Namespace: "ns", Name: "s"}.String(), "Service ns/s"},
		{"source without a namespace", Source{Kind: "GatewayClass", Name: "c"}.String(), "GatewayClass c"},
		{"no source", Source{}.String(), ""},
		{"zero match", Match{}.String(), "prefix /"},
		{"zero rule", (&Rule{}).String(), "prefix / -> none"},
		{"no change of headers", (&RequestHeaders{}).String(), "keep-request-header"},
		{"no change of the path", (&Rewrite{Path: &PathChange{}}).String(), "rewrite"},
		{"empty prefix", (&PathChange{Prefix: new("")}).String(), `prefix=""`},
		{"any gRPC method", Match{GRPC: &GRPCMatch{}}.String(), "grpc */*"},
		{"gRPC method", Match{GRPC: &GRPCMatch{GRPCName{Value: "a.S"}, GRPCName{"Get|Put", regexp.MustCompile("x")}}, Headers: []ValueMatch{{Name: "A", Value: "1"}}}.String(), "grpc a.S/~`Get|Put` header:A=1"},
		{"lower-case method", Match{Method: "get"}.String(), `prefix / "get"`},
		{"no pool and no fault", (&Rule{Backends: []WeightedPool{{Weight: 1}}}).String(), "prefix / -> none"},
		{"weight 0", (&Rule{Backends: []WeightedPool{{}}}).String(), "prefix / -> none (0%)"},
		{"sub-delims", PathMatch{Value: "/a'(b),c=d"}.String(), "prefix /a'(b),c=d"},
		{"header value", ValueMatch{Name: "X-A", Value: "a=b"}.String(), "X-A=a=b"},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, c.got, c.want)
		}
	}
}

// Whatever a user writes, the words of a line stay apart, and a line stays a line.
func FuzzRuleString(f *testing.F) {
	for _, s := range []string{"a b", "a\nb", "|", "->", "# x", `"`, "`", "", "default", "\u2028", "\xff", "a,b", "GET", "header:X=1", "\x1b[31m", `\`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		rule := &Rule{
			Match:    Match{Path: PathMatch{Value: s}, Method: "M" + s, Headers: []ValueMatch{{Name: s, Value: s}}, Query: []ValueMatch{{Name: s, Value: s}}},
			Filters:  []Filter{&Rewrite{Hostname: "h" + s, Path: &PathChange{Full: &s}}, &ResponseHeaders{HeaderChange{Remove: []string{s}, Add: []Header{{s, s}}}}},
			Backends: []WeightedPool{{Pool: &Pool{Key: PoolKey{Namespace: s, Service: s, Port: 1}}}, {Fault: &Fault{500, Reason(s), s}}},
			Source:   Source{"HTTPRoute", s, s, s},
		}
		table := oneListener(&Listener{Name: s, Hostname: "*." + s, Hosts: []*Host{{Name: "a" + s, Rules: []*Rule{rule}}}, Source: Source{"Gateway", "n", "g", s}})
		text := table.String()
		if lines := strings.Split(text, "\n"); len(lines) != 4 || lines[3] != "" {
			t.Fatalf("want three lines:\n%q", lines)
		}
		for _, r := range text {
			if r != '\n' && !strconv.IsPrint(r) {
				t.Fatalf("%q has the unprintable character %q", text, r)
			}
		}
		line := strings.Split(text, "\n")[2]
		words := splitWords(t, line)
		// host, kind, path, method, header, query, |, rewrite, host, path, |, remove, name, add, pair, ->, pool, share, fault: status, reason, share, #
		shape := []string{"", "prefix", "", "", "header:", "query:", "|", "rewrite", "host=", "path=", "|", "remove-response-header", "", "add-response-header", "", "->", "", "(0%),", "500", "", "(0%)", "#"}
		if s == "" {
			shape[2] = "/"
		}
		for i, want := range shape {
			if i >= len(words) || !strings.HasPrefix(words[i], want) {
				t.Fatalf("word %d of %s should begin with %q:\n%q", i, line, want, words)
			}
		}
	})
}

// splitWords splits a line at spaces that are not quoted.
func splitWords(t *testing.T, line string) []string {
	t.Helper()
	var words []string
	for {
		line = strings.TrimLeft(line, " ")
		if line == "" {
			return words
		}
		end := 0
		for end < len(line) && line[end] != ' ' {
			if line[end] != '"' {
				end++
				continue
			}
			quoted, err := strconv.QuotedPrefix(line[end:])
			if err != nil {
				return append(words, line) // the source is prose
			}
			end += len(quoted)
		}
		words = append(words, line[:end])
		line = line[end:]
	}
}
