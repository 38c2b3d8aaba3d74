package route

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// parsePort reads a port from lines such as
//
//	listener *.example.com
//	a.example.com prefix /v2 GET h:X-A=1 q:a=b of:ns/name age:3 rule:2 match:1 = name
//
// A line "listener last-resort" makes one for Ingress; "*" is any name. The rule's name becomes the field of its source, by which tests know it.
func parsePort(t *testing.T, text string) *Port {
	t.Helper()
	p := &Port{Bind: Bind{Port: 80}, Protocol: HTTP}
	hosts := map[string]*Host{}
	var l *Listener
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
		case words[0] == "listener":
			last := words[1] == "last-resort"
			l = &Listener{Name: "infra/gw/" + words[1], Hostname: strings.TrimPrefix(words[1], "*"), LastResort: last, OneLabelWildcards: last, Port: 80}
			if strings.HasPrefix(words[1], "*.") {
				l.Hostname = words[1]
			}
			if last {
				l.Name, l.Hostname = "ingress", ""
			}
			p.Listeners = append(p.Listeners, l)
			clear(hosts)
		default:
			h := hosts[words[0]]
			if h == nil {
				h = &Host{Name: words[0]}
				if h.Name == "*" {
					h.Name = ""
				}
				hosts[words[0]] = h
				l.Hosts = append(l.Hosts, h)
			}
			h.Rules = append(h.Rules, parseRule(t, words[1:]))
		}
	}
	return NewTable([]*Port{p}, nil, nil).Port(p.Bind)
}

func parseRule(t *testing.T, words []string) *Rule {
	t.Helper()
	r := &Rule{Source: Source{Kind: "HTTPRoute", Namespace: "ns", Name: "route"}}
	r.Match.Path.Value = words[1]
	switch words[0] {
	case "exact":
		r.Match.Path.Kind = Exact
	case "regex":
		re, err := CompileRegex(words[1])
		if err != nil {
			t.Fatal(err)
		}
		r.Match.Path.Kind, r.Match.Path.Regex = Regex, re
	case "prefix":
	case "grpc":
		r.Match.Path.Value, r.Match.GRPC = "", parseGRPC(t, words[1])
	default:
		t.Fatalf("no such kind of path: %q", words)
	}
	for _, w := range words[2:] {
		key, value, _ := strings.Cut(w, ":")
		name, v, _ := strings.Cut(value, "=")
		number, _ := strconv.Atoi(value)
		switch key {
		case "h":
			r.Match.Headers = append(r.Match.Headers, ValueMatch{Name: name, Value: v})
		case "q":
			r.Match.Query = append(r.Match.Query, ValueMatch{Name: name, Value: v})
		case "of":
			r.Source.Namespace, r.Source.Name, _ = strings.Cut(value, "/")
		case "age": // a greater age is an older object
			r.Order.Created = time.Unix(int64(1000-number), 0)
		case "rule":
			r.Order.Rule = number
		case "match":
			r.Order.Match = number
		case "default":
			r.Order.Last = true
		case "=":
			r.Source.Field = words[len(words)-1]
			return r
		default:
			r.Match.Method = w
		}
	}
	t.Fatalf("rule without a name: %q", words)
	return nil
}

// parseGRPC reads "service/method", in which * is any and what begins with ~ is an expression.
func parseGRPC(t *testing.T, text string) *GRPCMatch {
	t.Helper()
	name := func(s string) (n GRPCName) {
		expr, isExpr := strings.CutPrefix(s, "~")
		switch {
		case isExpr:
			re, err := CompileRegex(expr)
			if err != nil {
				t.Fatal(err)
			}
			return GRPCName{expr, re}
		case s != "*":
			n.Value = s
		}
		return n
	}
	service, method, _ := strings.Cut(text, "/")
	return &GRPCMatch{name(service), name(method)}
}

// parseRequest reads "GET a.example.com/path?query Name:value Name:value".
func parseRequest(text string) *Request {
	words := strings.Fields(text)
	method, target := words[0], words[1]
	target, query, _ := strings.Cut(target, "?")
	host, path, _ := strings.Cut(target, "/")
	header := http.Header{}
	for _, w := range words[2:] {
		k, v, _ := strings.Cut(w, ":")
		header.Add(k, v)
	}
	return &Request{Host: host, Path: "/" + path, Method: method, RawQuery: query, Header: header}
}

// lookupCases hold a row for each sentence of Gateway API (HTTPRoute, HTTPRouteMatch, Listener) and of the Ingress documentation about matching and precedence.
var lookupCases = []struct {
	name string
	port string
	want map[string]string // request to rule; "" for none
}{
	{
		// "Implementations MUST ignore any port value specified in the HTTP Host header while performing a match": the port is gone with NormalizeHost.
		name: "host exact",
		port: `listener *
			a.example.com prefix / = a`,
		want: map[string]string{"GET a.example.com/": "a", "GET b.example.com/": "", "GET x.a.example.com/": "", "GET example.com/": ""},
	},
	{
		// "Hostnames that are prefixed with a wildcard label (*.) are interpreted as a suffix match. That means that a match for *.example.com would match both
		// test.example.com, and foo.test.example.com, but not example.com."
		name: "wildcard matches one or more labels and not the bare domain",
		port: `listener *
			*.example.com prefix / = w`,
		want: map[string]string{
			"GET test.example.com/": "w", "GET foo.test.example.com/": "w", "GET example.com/": "", "GET testexample.com/": "",
		},
	},
	{
		// Ingress: "*.foo.com ... baz.bar.foo.com: No match, wildcard only covers a single DNS label; foo.com: No match".
		name: "wildcard of an Ingress matches one label",
		port: `listener last-resort
			*.foo.com prefix / = w`,
		want: map[string]string{"GET bar.foo.com/": "w", "GET baz.bar.foo.com/": "", "GET foo.com/": ""},
	},
	{
		// "precedence must be given to rules from the HTTPRoute with the largest number of: Characters in a matching non-wildcard hostname. Characters in a
		// matching hostname." And this before everything that the matches say.
		name: "host specificity before path",
		port: `listener *
			*                 exact  /a/b/c GET h:X-A=1 age:9 = any
			*.com             exact  /a/b/c GET h:X-A=1 age:9 = com
			*.example.com     exact  /a/b/c GET h:X-A=1 age:9 = wild
			*.b.example.com   exact  /a/b/c GET = longer
			a.b.example.com   prefix / = exact`,
		want: map[string]string{
			"GET a.b.example.com/a/b/c X-A:1":   "exact",
			"GET x.b.example.com/a/b/c X-A:1":   "longer",
			"GET y.x.b.example.com/a/b/c X-A:1": "longer",
			"GET x.example.com/a/b/c X-A:1":     "wild",
			"GET b.example.com/a/b/c X-A:1":     "wild",
			"GET example.com/a/b/c X-A:1":       "com",
			"GET com/a/b/c X-A:1":               "any",
		},
	},
	{
		// The conformance test httproute-multiple-routes-attachment-same-hostname-intersection: what no rule of the more specific hostname matches falls to the
		// less specific one of the same listener.
		name: "fall-through inside a listener",
		port: `listener *
			a.example.com  prefix /a = exact
			*.example.com  prefix /b = wild
			*.com          prefix /c = com
			*              prefix / = any`,
		want: map[string]string{
			"GET a.example.com/a": "exact", "GET a.example.com/b": "wild", "GET a.example.com/c": "com", "GET a.example.com/d": "any", "GET x.example.com/a": "any",
		},
	},
	{
		// Listener.hostname: "Implementations MUST route a request to at most one Listener": the most specific one; "listener isolation" (GEP-1713, and the
		// conformance test gateway-http-listener-isolation).
		name: "listeners are isolated",
		port: `listener *
			* prefix /empty = empty
			listener *.example.com
			* prefix /wildcard = wildcard
			listener *.foo.example.com
			* prefix /wildcard-foo = wildcard-foo
			listener abc.foo.example.com
			* prefix /abc = abc`,
		want: map[string]string{
			"GET bar.com/empty":                     "empty",
			"GET bar.com/wildcard":                  "",
			"GET bar.example.com/wildcard":          "wildcard",
			"GET bar.example.com/empty":             "",
			"GET bar.foo.example.com/wildcard-foo":  "wildcard-foo",
			"GET bar.foo.example.com/wildcard":      "",
			"GET bar.foo.example.com/empty":         "",
			"GET abc.foo.example.com/abc":           "abc",
			"GET abc.foo.example.com/wildcard-foo":  "",
			"GET abc.foo.example.com/empty":         "",
			"GET foo.example.com/wildcard":          "wildcard",
			"GET example.com/empty":                 "empty",
			"GET x.abc.foo.example.com/abc":         "",
			"GET x.y.foo.example.com/wildcard-foo":  "wildcard-foo",
			"GET x.abc.foo.example.com/wildcard-fo": "",
		},
	},
	{
		name: "the last-resort listener is asked when the owner has no rule, or there is no owner",
		port: `listener last-resort
			shop.example.com prefix /ingress = host
			*                prefix /any = any
			listener *.example.com
			* prefix /gateway = gateway`,
		want: map[string]string{
			"GET shop.example.com/gateway": "gateway",
			"GET shop.example.com/ingress": "host",
			"GET shop.example.com/any":     "any",
			"GET other.com/any":            "any",
			"GET other.com/gateway":        "",
		},
	},
	{
		// "For example, the paths /abc, /abc/, and /abc/def would all match the prefix /abc, but the path /abcd would not." "Matching is case-sensitive and done
		// on a path element by element basis."
		name: "prefix by path element",
		port: `listener *
			* prefix /abc = p`,
		want: map[string]string{
			"GET a/abc": "p", "GET a/abc/": "p", "GET a/abc/def": "p", "GET a/abcd": "", "GET a/ABC": "", "GET a/": "", "GET a/ab": "", "GET a//abc": "",
		},
	},
	{
		// "When specified, a trailing / is ignored." The table of the Ingress documentation has /foo/ for the path /foo.
		name: "the trailing slash of a prefix is ignored",
		port: `listener *
			* prefix /foo/ = p`,
		want: map[string]string{"GET a/foo": "p", "GET a/foo/": "p", "GET a/foo/x": "p", "GET a/foox": ""},
	},
	{
		// "an exact path match on /abc will only match requests to /abc, NOT /abc/, /Abc, or /abcd."
		name: "exact",
		port: `listener *
			* exact /abc = e
			* exact /def/ = slash`,
		want: map[string]string{
			"GET a/abc": "e", "GET a/abc/": "", "GET a/Abc": "", "GET a/abcd": "", "GET a/def/": "slash", "GET a/def": "",
		},
	},
	{
		// Ingress: "Prefix /aaa/bb does not match /aaa/bbb", "/aaa/bbb/ matches /aaa/bbb", "/aaa/bbb matches /aaa/bbb/ccc", "/aaa/bbb does not match /aaa/bbbxyz",
		// "Prefix / matches all paths", "/, /aaa, /aaa/bbb for /aaa/bbb: matches /aaa/bbb", "for /ccc: matches / prefix".
		name: "the table of the Ingress documentation",
		port: `listener last-resort
			* prefix / = root
			* prefix /aaa = aaa
			* prefix /aaa/bbb = bbb
			* exact /bar = bar
			* exact /foo = foo-exact
			* prefix /foo = foo-prefix`,
		want: map[string]string{
			"GET a/aaa/bb": "aaa", "GET a/aaa/bbb": "bbb", "GET a/aaa/bbb/": "bbb", "GET a/aaa/bbb/ccc": "bbb", "GET a/aaa/bbbxyz": "aaa", "GET a/ccc": "root",
			"GET a/bar/": "root", "GET a/bar": "bar", "GET a/foo": "foo-exact", "GET a/foo/": "foo-prefix",
		},
	},
	{
		// "precedence must be given to the match having: Exact path match."
		name: "exact before everything",
		port: `listener *
			* prefix /a GET h:X-A=1 q:a=1 age:9 = prefix
			* regex  /a GET h:X-A=1 q:a=1 age:9 = regex
			* exact  /a = exact`,
		want: map[string]string{"GET a/a?a=1 X-A:1": "exact"},
	},
	{
		// "Note: The precedence of RegularExpression path matches are implementation-specific."
		name: "regex after exact and before prefix, the longer expression first",
		port: `listener *
			* prefix /a/b/c/d/e/f/g GET h:X-A=1 q:a=1 age:9 = prefix
			* regex  /a/.* GET h:X-A=1 age:9 = regex
			* regex  /a/b/.* = longer`,
		want: map[string]string{"GET a/a/b/c/d/e/f/g?a=1 X-A:1": "longer", "GET a/a/c X-A:1": "regex", "GET a/xa/c": ""},
	},
	{
		// "Prefix path match with largest number of characters."
		name: "longer prefix before method, headers, query and age",
		port: `listener *
			* prefix /    GET h:X-A=1 q:a=1 age:9 = root
			* prefix /a   GET h:X-A=1 q:a=1 age:9 = a
			* prefix /a/b = ab`,
		want: map[string]string{"GET a/a/b/c?a=1 X-A:1": "ab", "GET a/a/c?a=1 X-A:1": "a", "GET a/c?a=1 X-A:1": "root", "GET a/a/c": ""},
	},
	{
		name: "a shorter prefix serves what the longer one does not",
		port: `listener *
			* prefix /a/b/c POST = post
			* prefix /a h:X-A=1 = header
			* prefix / = root`,
		want: map[string]string{"POST a/a/b/c/d": "post", "GET a/a/b/c/d X-A:1": "header", "GET a/a/b/c/d": "root"},
	},
	{
		// The trailing slash is ignored, so it does not make a prefix longer: the older wins.
		name: "prefixes that differ in the trailing slash are equally long",
		port: `listener *
			* prefix /foo/ age:1 = young
			* prefix /foo  age:2 = old`,
		want: map[string]string{"GET a/foo/x": "old"},
	},
	{
		// "Method match."
		name: "method before headers, query and age",
		port: `listener *
			* prefix / h:X-A=1 h:X-B=1 q:a=1 age:9 = headers
			* prefix / GET = get`,
		want: map[string]string{"GET a/?a=1 X-A:1 X-B:1": "get", "POST a/?a=1 X-A:1 X-B:1": "headers"},
	},
	{
		// "Largest number of header matches."
		name: "more headers before more query parameters and age",
		port: `listener *
			* prefix / h:X-A=1 q:a=1 q:b=1 age:9 = one
			* prefix / h:X-A=1 h:X-B=1 = two`,
		want: map[string]string{"GET a/?a=1&b=1 X-A:1 X-B:1": "two", "GET a/?a=1&b=1 X-A:1": "one"},
	},
	{
		// "Largest number of query param matches."
		name: "more query parameters before age",
		port: `listener *
			* prefix / q:a=1 age:9 = one
			* prefix / q:a=1 q:b=1 = two`,
		want: map[string]string{"GET a/?a=1&b=1": "two", "GET a/?a=1": "one"},
	},
	{
		// "The oldest Route based on creation timestamp."
		name: "the older object before the alphabet and the order in the object",
		port: `listener *
			* prefix / of:a/a age:1 rule:0 = young
			* prefix / of:z/z age:2 rule:9 = old`,
		want: map[string]string{"GET a/": "old"},
	},
	{
		// "The Route appearing first in alphabetical order by {namespace}/{name}."
		name: "the alphabet before the order in the object",
		port: `listener *
			* prefix / of:b/a age:1 rule:0 = b/a
			* prefix / of:a/b age:1 rule:8 = a/b
			* prefix / of:a/c age:1 rule:0 = a/c`,
		want: map[string]string{"GET a/": "a/b"},
	},
	{
		// "If ties still exist within an HTTPRoute, matching precedence MUST be granted to the FIRST matching rule (in list order) with a match meeting the above
		// criteria."
		name: "the first rule of the object, then its first match",
		port: `listener *
			* prefix / rule:1 match:0 = second
			* prefix / rule:0 match:1 = first/1
			* prefix / rule:0 match:0 = first/0`,
		want: map[string]string{"GET a/": "first/0"},
	},
	{
		// "Each match is independent, i.e. this rule will be matched if any one of the matches is satisfied": path /foo AND version: v2, OR /v2/foo.
		name: "the example of HTTPRouteRule.matches",
		port: `listener *
			* prefix /foo h:Version=v2 match:0 = foo
			* prefix /v2/foo match:1 = v2`,
		want: map[string]string{"GET a/foo Version:v2": "foo", "GET a/foo": "", "GET a/v2/foo": "v2", "GET a/foo Version:v1": ""},
	},
	{
		// "Matches HTTP method ...": case-sensitive (RFC 9110, section 9.1).
		name: "method",
		port: `listener *
			* prefix / GET = get`,
		want: map[string]string{"GET a/": "get", "get a/": "", "HEAD a/": ""},
	},
	{
		// "Multiple match values are ANDed together, meaning, a request must match all the specified headers to select the route." "Name matching MUST be
		// case-insensitive."
		name: "all headers",
		port: `listener *
			* prefix / h:X-A=1 h:X-B=2 = both`,
		want: map[string]string{"GET a/ x-a:1 X-b:2": "both", "GET a/ X-A:1": "", "GET a/ X-A:1 X-B:1": "", "GET a/": "", "GET a/ X-A:1 X-B:3 X-B:2": "both"},
	},
	{
		// "Multiple match values are ANDed together, meaning, a request must match all the specified query parameters to select the route." "Name ... must be an
		// exact string match." "it is recommended that implementations should match against the first value of the param".
		name: "all query parameters, the first of a name",
		port: `listener *
			* prefix / q:a=1 q:b=2 = both`,
		want: map[string]string{
			"GET a/?a=1&b=2": "both", "GET a/?b=2&a=1": "both", "GET a/?a=1": "", "GET a/?A=1&b=2": "", "GET a/?a=2&a=1&b=2": "", "GET a/?a=1&b=2&a=2": "both",
			"GET a/?%61=%31&b=2": "both",
		},
	},
	{
		// "When no rules matching a request have been successfully attached to the parent a request is coming from, a HTTP 404 status code MUST be returned."
		name: "no rule",
		port: `listener *`,
		want: map[string]string{"GET a/": ""},
	},
	{
		// Ingress: "If none of the hosts or paths match the HTTP request in the Ingress objects, the traffic is routed to your default backend."
		name: "a default backend is the last of its host",
		port: `listener last-resort
			* prefix / default age:9 = default
			* prefix / age:1 = root
			* prefix /x h:X-A=1 = header
			a.com prefix / default = default-of-host
			a.com exact /a = a`,
		want: map[string]string{"GET b.com/x X-A:1": "header", "GET b.com/x": "root", "GET a.com/a": "a", "GET a.com/x": "default-of-host"},
	},
	{
		// %2F is data and no separator (RFC 3986, section 2.2).
		name: "an escaped slash divides nothing",
		port: `listener *
			* prefix /a%2Fb = escaped
			* prefix /a = a`,
		want: map[string]string{"GET h/a/b": "a", "GET h/a%2Fb": "escaped", "GET h/a%2Fb/c": "escaped", "GET h/a%2Fc": ""},
	},
	{
		// GRPCRouteRule: "If no matches are specified, the implementation MUST match every gRPC request."
		name: "a rule for gRPC takes what is gRPC and nothing else",
		port: `listener *
			* grpc */* = all
			* exact /a.S/Get = path`,
		want: map[string]string{
			"POST h/a.S/Get Content-Type:application/grpc": "all", "POST h/a.S/Get Content-Type:application/grpc+proto": "all",
			"POST h/ Content-Type:application/grpc;charset=x": "all", "POST h/a.S/Get": "path", "POST h/a.S/Get Content-Type:application/grpc-web": "path",
			"POST h/a.S/Get Content-Type:application/grpcx": "path", "POST h/x Content-Type:text/plain": "",
		},
	},
	{
		// GRPCRouteRule: "Precedence MUST be given to the rule with the largest number of: Characters in a matching service. Characters in a matching method.
		// Header matches."
		name: "of gRPC methods the service decides first",
		port: `listener *
			* grpc */* = all
			* grpc */* h:X-A=1 = all-header
			* grpc */Get = method
			* grpc */~G.* = method-regex
			* grpc ~a[.].*/* = regex
			* grpc ~a[.].*/Get = regex-method
			* grpc a.S/* = service
			* grpc a.S/* h:X-A=1 h:X-B=1 = service-headers
			* grpc a.S/~G.t = service-regex
			* grpc a.S/Get = exact
			* grpc a.S/Get h:X-A=1 = exact-header`,
		want: map[string]string{
			"POST h/a.S/Get Content-Type:application/grpc":             "exact",
			"POST h/a.S/Get Content-Type:application/grpc X-A:1 X-B:1": "exact-header",
			"POST h/a.S/Git Content-Type:application/grpc":             "service-regex",
			"POST h/a.S/get Content-Type:application/grpc":             "service",
			"POST h/a.S/Put Content-Type:application/grpc X-A:1 X-B:1": "service-headers",
			"POST h/a.T/Get Content-Type:application/grpc":             "regex-method",
			"POST h/a.T/Put Content-Type:application/grpc":             "regex",
			"POST h/b.S/Get Content-Type:application/grpc":             "method",
			"POST h/b.S/Git Content-Type:application/grpc":             "method-regex",
			"POST h/b.S/Put Content-Type:application/grpc X-A:1":       "all-header",
			"POST h/a.S/ Content-Type:application/grpc":                "all",
			"POST h/ Content-Type:application/grpc":                    "all",
		},
	},
	{
		// GRPCRouteRule: "Merging MUST not be done between GRPCRoutes and HTTPRoutes."
		name: "what is for gRPC alone comes before the rest of its host, and after a more specific host",
		port: `listener *
			* grpc a.S/Get = any-host
			h exact /a.S/Get h:X-A=1 age:9 = path
			h grpc */* = grpc
			i prefix / = prefix`,
		want: map[string]string{
			"POST h/a.S/Get Content-Type:application/grpc X-A:1": "grpc", "POST h/a.S/Get X-A:1": "path", "POST i/a.S/Get Content-Type:application/grpc": "prefix",
			"POST j/a.S/Get Content-Type:application/grpc": "any-host",
		},
	},
	{
		name: "empty path elements count",
		port: `listener *
			* prefix /a/b = ab
			* prefix /a/ = a`,
		want: map[string]string{"GET h/a//b": "a", "GET h/a/b//": "ab", "GET h//a/b": ""},
	},
}

func TestLookup(t *testing.T) {
	for _, c := range lookupCases {
		t.Run(c.name, func(t *testing.T) {
			p := parsePort(t, c.port)
			for request, want := range c.want {
				r := parseRequest(request)
				_, rule, reason := p.Lookup(r)
				if got := fieldOf(rule); got != want {
					t.Errorf("%s: got %q, want %q", request, got, want)
				}
				if (reason == NoRoute) != (rule == nil) || rule != nil && reason != "" {
					t.Errorf("%s: reason %q for rule %v", request, reason, rule)
				}
				if o := oracleLookup(p, r); o.rule != rule {
					t.Errorf("%s: the oracle says %q, want %q", request, fieldOf(o.rule), want)
				}
			}
		})
	}
}

func fieldOf(r *Rule) string {
	if r == nil {
		return ""
	}
	return r.Source.Field
}

func TestLookupListener(t *testing.T) {
	p := parsePort(t, `
		listener last-resort
		* prefix /ingress = ingress
		listener *.example.com
		* prefix /a = a`)
	for _, c := range []struct{ name, request, want string }{
		{"owner and rule", "GET x.example.com/a", "infra/gw/*.example.com"},
		{"owner without a rule", "GET x.example.com/b", "infra/gw/*.example.com"},
		{"rule of the last resort", "GET x.example.com/ingress", "ingress"},
		{"no owner", "GET example.com/b", "ingress"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if l, _, _ := p.Lookup(parseRequest(c.request)); l.Name != c.want {
				t.Errorf("got %s, want %s", l.Name, c.want)
			}
		})
	}
	if l := p.Listener("x.example.com"); l.Name != "infra/gw/*.example.com" {
		t.Errorf("Listener: got %s", l.Name)
	}
	if l := p.Listener("example.com"); l.Name != "ingress" {
		t.Errorf("Listener: got %s", l.Name)
	}
	alone := parsePort(t, "listener a.example.com")
	if l := alone.Listener("b.example.com"); l != nil {
		t.Errorf("Listener: got %s for a host of nobody", l.Name)
	}
	if l, rule, reason := alone.Lookup(parseRequest("GET b.example.com/")); l != nil || rule != nil || reason != NoRoute {
		t.Errorf("Lookup: got %v, %v, %v for a host of nobody", l, rule, reason)
	}
}

func TestTablePort(t *testing.T) {
	table := NewTable([]*Port{{Bind: Bind{Address: "", Port: 80}}, {Bind: Bind{Address: "127.0.0.2", Port: 80}}}, nil, nil)
	if table.Port(Bind{Address: "", Port: 80}) != table.Ports[0] || table.Port(Bind{Address: "127.0.0.2", Port: 80}) != table.Ports[1] {
		t.Error("a port is not found by its bind")
	}
	if table.Port(Bind{Address: "", Port: 81}) != nil || NewTable(nil, nil, nil).Port(Bind{}) != nil {
		t.Error("a port that does not exist is found")
	}
}

// Hosts of one name are joined, equal pools kept once, and clashes between listeners decided by order.
func TestNewTableJoins(t *testing.T) {
	h := func(value string) *Host {
		return &Host{Name: "a", Rules: []*Rule{{Match: Match{Path: PathMatch{Value: value}}}}}
	}
	l := &Listener{Name: "b", Hosts: []*Host{h("/a"), {Name: "b"}, h("/b")}}
	p := &Port{Listeners: []*Listener{{Name: "c"}, l, {Name: "a"}, {Name: "z", LastResort: true}, {Name: "y", LastResort: true}}}
	pools := []*Pool{{Key: PoolKey{Namespace: "ns", Service: "b", Port: 80}}, {Key: PoolKey{Namespace: "ns", Service: "a", Port: 80}}, {Key: PoolKey{Namespace: "ns", Service: "b", Port: 80}}}
	table := NewTable([]*Port{p}, pools, nil)
	if len(l.Hosts) != 2 || len(l.Hosts[0].Rules) != 2 {
		t.Errorf("hosts of one name are not joined: %v", l.Hosts)
	}
	if len(table.Pools) != 2 || table.Pools[0].Key.Service != "a" {
		t.Errorf("pools are not distinct and sorted: %v", table.Pools)
	}
	if got := p.Listener("x").Name; got != "a" {
		t.Errorf("of listeners with one hostname %s is asked, not the first", got)
	}
	if p.lastResort.Name != "y" {
		t.Errorf("of last-resort listeners %s is asked, not the first", p.lastResort.Name)
	}
}

// Hosts may have more labels than anybody has wildcards for, and as many as fit into a name.
func TestLookupDeepHosts(t *testing.T) {
	deep := strings.Repeat("a.", 125) + "a"
	p := parsePort(t, "listener *\n*."+deep+" prefix / = deep\n*.a prefix / = shallow\n*.a.a.a prefix / = three")
	for host, want := range map[string]string{"b." + deep: "deep", deep: "three", "b.b.a": "shallow", "a.a.a": "shallow", "a.a.a.a": "three", "a": ""} {
		if _, rule, _ := p.Lookup(&Request{Host: host, Path: "/"}); fieldOf(rule) != want {
			t.Errorf("%s: got %q, want %q", host, fieldOf(rule), want)
		}
	}
}

// A regular expression that could not be compiled matches nothing, and is no danger.
func TestLookupBrokenRegex(t *testing.T) {
	h := &Host{Rules: []*Rule{{Match: Match{Path: PathMatch{Kind: Regex, Value: "("}}}}}
	p := oneListener(&Listener{Hosts: []*Host{h}}).Port(Bind{Port: 80})
	if _, rule, _ := p.Lookup(&Request{Host: "a", Path: "/("}); rule != nil {
		t.Errorf("got %v", rule)
	}
}

func TestLookupAllocates(t *testing.T) {
	p := parsePort(t, `
		listener last-resort
		* prefix / = ingress
		listener *.example.com
		*.b.example.com prefix /a/b GET h:X-A=1 q:a=1 q:b=x = all
		*.b.example.com regex /a/b/.* h:X-A=9 = regex
		a.b.example.com exact /a/b/c h:X-A=2 = exact
		a.b.example.com grpc ~S.*/Get h:X-A=2 = grpc`)
	for _, request := range []string{
		"GET a.b.example.com/a/b/c?b=%78&a=1 X-A:1", "GET a.b.example.com/a/b/c?a=1 X-A:2", "GET other.com/x", "GET a.b.example.com/a/b/c X-A:9",
		"GET a.b.example.com/a/b/c X-A:2 X-A:3", "POST a.b.example.com/Shop/Get X-A:2 Content-Type:application/grpc",
	} {
		r := parseRequest(request)
		if n := testing.AllocsPerRun(100, func() { p.Lookup(r) }); n != 0 {
			t.Errorf("%s: %v allocations", request, n)
		}
	}
}

// checkTable compares a table that was generated from data with the oracle, in everything that it says about a few requests.
func checkTable(t *testing.T, data []byte) {
	t.Helper()
	c := &choices{data}
	requests := make([]*Request, 4)
	for i := range requests {
		requests[i] = c.request()
	}
	p := c.port()
	r := rand.New(rand.NewPCG(1, uint64(len(data))))
	shuffled := clonePort(p, r.Shuffle)
	table := NewTable([]*Port{p}, nil, nil)
	if got, want := NewTable([]*Port{shuffled}, nil, nil).String(), table.String(); got != want {
		t.Fatalf("shuffled input has another text:\n%s\nnot\n%s", got, want)
	}
	for _, r := range requests {
		want := oracleLookup(p, r)
		l, rule, reason := p.Lookup(r)
		if rule != want.rule || rule != nil && l != want.listener || (reason == NoRoute) != (rule == nil) {
			t.Fatalf("%+v:\ngot  %v %v %v\nwant %v %v\n%s", r, l, rule, reason, want.listener, want.rule, table)
		}
		if _, again, _ := shuffled.Lookup(r); again != rule {
			t.Fatalf("%+v: shuffled input finds %v, not %v\n%s", r, again, rule, table)
		}
		owner := oracleOwner(p, r.Host)
		if owner == nil {
			owner = oracleLast(p)
		}
		if got := p.Listener(r.Host); got != owner {
			t.Fatalf("Listener(%q) = %v, want %v", r.Host, got, owner)
		}
		checkExplanation(t, table, r, want)
	}
}

func randomBytes(r *rand.Rand) []byte {
	data := make([]byte, r.IntN(600))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	return data
}

func TestLookupAgreesWithOracle(t *testing.T) {
	for i := range 3000 {
		checkTable(t, randomBytes(rand.New(rand.NewPCG(uint64(i), 7))))
	}
}

func FuzzLookup(f *testing.F) {
	f.Add([]byte{})
	for i := range 8 {
		f.Add(randomBytes(rand.New(rand.NewPCG(uint64(i), 3))))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < 2000 {
			checkTable(t, data)
		}
	})
}

// The generator must reach what it is for, or the comparison above shows nothing.
func TestGeneratorReachesEverything(t *testing.T) {
	seen := map[string]int{}
	for i := range 4000 {
		c := &choices{randomBytes(rand.New(rand.NewPCG(uint64(i), 7)))}
		r := c.request()
		p := NewTable([]*Port{c.port()}, nil, nil).Ports[0]
		l, rule, _ := p.Lookup(r)
		if rule == nil {
			seen["no rule"]++
		} else {
			kind, _, _ := strings.Cut(rule.Match.String(), " ")
			seen[kind]++
			seen["method "+strconv.FormatBool(rule.Match.Method != "")]++
			seen[fmt.Sprint("headers ", len(rule.Match.Headers))]++
			seen[fmt.Sprint("query ", len(rule.Match.Query))]++
			seen[fmt.Sprint("default ", rule.Order.Last)]++
			seen[fmt.Sprint("last resort ", l.LastResort)]++
			host := slices.IndexFunc(l.Hosts, func(h *Host) bool { return slices.Contains(h.Rules, rule) })
			seen["host "+l.Hosts[host].Name]++
		}
	}
	for _, what := range []string{
		"no rule", "exact", "regex", "prefix", "grpc", "method true", "headers 1", "headers 2", "query 1", "query 2", "default true", "last resort true", "host ", "host *.a.b", "host c.a.b",
	} {
		if seen[what] < 3 {
			t.Errorf("%s: seen %d times only", what, seen[what])
		}
	}
}
