package route

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// checkExplanation checks everything that an Explanation says against the oracle.
func checkExplanation(t *testing.T, table *Table, r *Request, want found) {
	t.Helper()
	p := table.Ports[0]
	e := table.Explain(p.Bind, r)
	if e.Winner != want.rule {
		t.Fatalf("Explain: winner %v, want %v", e.Winner, want.rule)
	}
	total, won := e.Omitted, 0
	for _, l := range p.Listeners {
		for _, h := range l.Hosts {
			total -= len(h.Rules)
		}
	}
	if total+len(e.Candidates) != 0 {
		t.Fatalf("Explain: %d rules are neither candidates nor counted\n%s", -total-len(e.Candidates), e)
	}
	owner, last := oracleOwner(p, r.Host), oracleLast(p)
	for _, c := range e.Candidates {
		asked := c.Listener == owner || c.Listener == last
		matches := asked && oracleHost(c.Host.Name, r.Host, c.Listener.OneLabelWildcards) && oracleMatch(c.Rule.Match, r)
		if c.Matches != matches {
			t.Fatalf("Explain: candidate %v of %s matches: %v, the oracle says %v: %s\n%s", c.Rule, c.Host.Name, c.Matches, matches, c.Why, e)
		}
		if c.Why == "" || strings.ContainsAny(c.Why, "\n\r") || strings.Contains(c.Why, "another rule comes first") || strings.Contains(c.Why, "%!") {
			t.Fatalf("Explain: candidate %v has the reason %q", c.Rule, c.Why)
		}
		if c.Matches && !c.Won && !strings.Contains(c.Why, "comes first: ") {
			t.Fatalf("Explain: candidate %v matches and lost, and the reason is %q", c.Rule, c.Why)
		}
		if !c.Won {
			continue
		}
		won++
		if c.Rule != want.rule || c.Listener != want.listener || c.Host.Name != want.host.Name {
			t.Fatalf("Explain: %v of %s won, want %v of %s", c.Rule, c.Host.Name, want.rule, want.host.Name)
		}
	}
	if (won == 1) != (want.rule != nil) || won > 1 {
		t.Fatalf("Explain: %d winners", won)
	}
}

// The words come from criteria, the order from Rule.Compare: they must be the same comparisons.
func TestCriteriaAreCompare(t *testing.T) {
	for i := range 20000 {
		c := &choices{randomBytes(rand.New(rand.NewPCG(uint64(i), 11)))}
		a, b := c.rule(c.n(3)), c.rule(c.n(3))
		got := 0
		for _, k := range criteria {
			if got = k.compare(a, b); got != 0 {
				break
			}
		}
		if want := a.Compare(b); got != want {
			t.Fatalf("criteria say %d, Compare says %d:\n%+v\n%+v", got, want, a, b)
		}
		if got != -b.Compare(a) {
			t.Fatalf("Compare is not antisymmetric:\n%+v\n%+v", a, b)
		}
	}
}

func TestExplainReasons(t *testing.T) {
	port := `
		listener *.example.com
		a.example.com prefix /a/b                     = winner
		a.example.com prefix /a                       = shorter
		a.example.com prefix /a/b          rule:1     = later
		a.example.com prefix /a/b of:ns/z             = alphabet
		a.example.com prefix /a/b/c                   = deeper
		a.example.com prefix /a/                      = slash
		a.example.com prefix /a/bc                    = element
		a.example.com prefix /a/b POST                = method
		a.example.com prefix /a/b h:X-Canary=1        = header
		a.example.com prefix /a/b h:X-Missing=1       = missing
		a.example.com prefix /a/b h:Host=b            = host
		a.example.com prefix /a/b q:a=1               = query
		a.example.com prefix /a/b q:b=1               = noquery
		a.example.com prefix /a/b q:bad=1             = badquery
		a.example.com exact /a/bx/                    = exactslash
		a.example.com exact /A/BX                     = exactcase
		a.example.com exact /nope                     = exact
		a.example.com regex /x.*                      = regex
		a.example.com prefix / default                = default
		*.example.com exact /a/bx                     = wild
		*.b.example.com prefix /                      = otherwild
		b.example.com prefix /                        = other
		listener *
		* prefix /a/b                                 = isolated
		listener c.example.com
		c.example.com prefix /                        = sibling
		* prefix /                                    = sibling-any
		listener last-resort
		a.example.com prefix /                        = ingress
		*.com prefix /                                = onelabel
		*.a.example.com prefix /                      = bare`
	r := parseRequest("GET a.example.com/a/bx?a=2&bad=%zz X-Canary:2 X-Canary:3")
	// A prefix for the path itself, so that /a/b is not a candidate by element.
	for _, c := range []struct{ name, request, rule, want string }{
		{"path element", "", "winner", "prefix /a/b is not an element-wise prefix of /a/bx"},
		{"path", "", "deeper", "prefix /a/b/c is not a prefix of /a/bx"},
		{"exact slash", "", "exactslash", "exact /a/bx/ is not /a/bx: an exact match counts the trailing slash"},
		{"exact case", "", "exactcase", "exact /A/BX is not /a/bx: upper and lower case differ"},
		{"exact", "", "exact", "exact /nope is not /a/bx"},
		{"regex", "", "regex", "regex `/x.*` does not match the whole of /a/bx"},
		{"method", "GET a.example.com/a/b", "method", "method GET is not POST"},
		{"header missing", "GET a.example.com/a/b", "header", "header X-Canary missing"},
		{"header differs", "GET a.example.com/a/b X-Canary:2", "header", `header X-Canary is "2", not "1"`},
		{"headers differ", "GET a.example.com/a/b X-Canary:2 X-Canary:3", "header", `header X-Canary is "2" and "3", not "1"`},
		{"host header", "GET a.example.com/a/b", "host", `header Host is "a.example.com", not "b"`},
		{"query differs", "GET a.example.com/a/b?a=2&a=1", "query", `query parameter a is "2", not "1"`},
		{"query missing", "GET a.example.com/a/b?a=2", "noquery", "query parameter b missing"},
		{"query malformed", "GET a.example.com/a/b?bad=%zz", "badquery", `query parameter bad is "%zz", which cannot be decoded`},
		{"won", "GET a.example.com/a/b", "winner", "first of all that match"},
		{"longer", "GET a.example.com/a/b", "shorter", "HTTPRoute ns/route winner comes first: longer prefix (/a/b over /a)"},
		{"rule order", "GET a.example.com/a/b", "later", "HTTPRoute ns/route winner comes first: earlier rule of the same HTTPRoute"},
		{"alphabet", "GET a.example.com/a/b", "alphabet", "HTTPRoute ns/route winner comes first: ns/route is before ns/z in the alphabet"},
		{"default", "GET a.example.com/a/b", "default", "HTTPRoute ns/route winner comes first: a default backend is asked last"},
		{"less specific host", "GET a.example.com/a/bx", "wild", "first of all that match"},
		{
			"last resort", "GET a.example.com/a/b", "ingress",
			"HTTPRoute ns/route winner comes first: listener ingress (*) is asked only when no rule of listener infra/gw/*.example.com (*.example.com) matches",
		},
		{"other wildcard", "", "otherwild", "host a.example.com does not match *.b.example.com"},
		{"other host", "", "other", "host a.example.com does not match b.example.com"},
		{
			"isolation", "", "isolated",
			"listener infra/gw/*.example.com (*.example.com) owns this host, and its requests go to no other listener",
		},
		{"sibling", "", "sibling", "host a.example.com does not match c.example.com"},
		{"sibling for any", "", "sibling-any", "listener infra/gw/c.example.com (c.example.com) is for other hosts: host a.example.com does not match c.example.com"},
		{"one label", "", "onelabel", "host a.example.com does not match *.com: the star stands for one label"},
		{"bare domain", "", "bare", "host a.example.com does not match *.a.example.com: the star stands for at least one label"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := port
			if c.rule == "wild" { // nothing of the exact host may match
				text = strings.Replace(port, "a.example.com prefix /a                       = shorter", "", 1)
				text = strings.Replace(text, "a.example.com prefix /a/                      = slash", "", 1)
				text = strings.Replace(text, "a.example.com prefix / default                = default", "", 1)
			}
			p := parsePort(t, text)
			table := &Table{Ports: []*Port{p}, ports: map[Bind]*Port{p.Bind: p}}
			request := r
			if c.request != "" {
				request = parseRequest(c.request)
			}
			e := table.Explain(p.Bind, request)
			for _, k := range e.Candidates {
				if k.Rule.Source.Field != c.rule {
					continue
				}
				if k.Why != c.want {
					t.Errorf("got  %s\nwant %s", k.Why, c.want)
				}
				return
			}
			t.Errorf("rule %s is no candidate:\n%s", c.rule, e)
		})
	}
}

func TestExplainPrecedence(t *testing.T) {
	for _, c := range []struct{ name, first, second, request, want string }{
		{"exact before prefix", "exact /a", "prefix /a", "GET h/a", "exact before prefix"},
		{"exact before regex", "exact /a", "regex /a", "GET h/a", "exact before regex"},
		{"regex before prefix", "regex /a", "prefix /a", "GET h/a", "regex before prefix"},
		{"longer expression", "regex /a+", "regex /a", "GET h/a", "longer expression (`/a+` over `/a`)"},
		{"longer prefix", "prefix /a", "prefix /", "GET h/a", "longer prefix (/a over /)"},
		{"method", "prefix /a GET", "prefix /a", "GET h/a", "a method match before none"},
		{"headers", "prefix /a h:A=1 h:B=1", "prefix /a h:A=1", "GET h/a A:1 B:1", "more headers (2 over 1)"},
		{"query", "prefix /a q:a=1", "prefix /a", "GET h/a?a=1", "more query parameters (1 over 0)"},
		{"age", "prefix / age:10", "prefix / age:1", "GET h/", "older HTTPRoute (1970-01-01T00:16:30Z before 1970-01-01T00:16:39Z)"},
		{"no age", "prefix /", "prefix / age:1", "GET h/", "older HTTPRoute (without a creation time, which counts as oldest)"},
		{"match", "prefix /", "prefix / match:1", "GET h/", "earlier match of the same rule"},
		{"nothing", "prefix /", "prefix /", "GET h/", "equal in everything that decides"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := parsePort(t, "listener *\n* "+c.second+" = second\n* "+c.first+" = first")
			table := &Table{Ports: []*Port{p}, ports: map[Bind]*Port{p.Bind: p}}
			e := table.Explain(p.Bind, parseRequest(c.request))
			if len(e.Candidates) != 2 || !e.Candidates[0].Won || e.Winner.Source.Field != "first" {
				t.Fatalf("want the first of two to win:\n%s", e)
			}
			if got, want := e.Candidates[1].Why, "HTTPRoute ns/route first comes first: "+c.want; got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

func TestExplainText(t *testing.T) {
	p := parsePort(t, `
		listener *.example.com
		api.example.com prefix /v2 of:shop/api = spec.rules[0].matches[0]
		api.example.com prefix /   of:shop/api = spec.rules[1].matches[0]
		www.example.com prefix /   of:shop/www = spec.rules[0].matches[0]`)
	p.Listeners[0].Hosts[0].Rules[1].Fault = &Fault{500, NoBackend, "Service shop/api does not exist"}
	rejected := []Rejected{
		{[]string{"*.example.com"}, "Gateway infra/gw allows routes from its own namespace only", Source{"HTTPRoute", "other", "r", "spec.parentRefs[0]"}},
		{[]string{"other.com"}, "no", Source{"HTTPRoute", "other", "s", ""}},
		{nil, "no listener of that name", Source{"HTTPRoute", "other", "t", ""}},
	}
	table := &Table{Ports: []*Port{p}, ports: map[Bind]*Port{p.Bind: p}, Rejected: rejected}
	for _, c := range []struct {
		name    string
		bind    Bind
		request string
		want    string
	}{
		{"served", p.Bind, "GET api.example.com/v2/x?a=b", `GET http://api.example.com/v2/x?a=b on :80
  served by HTTPRoute shop/api spec.rules[0].matches[0]
  listener infra/gw/*.example.com (*.example.com), host api.example.com: prefix /v2 -> none
lost:
  HTTPRoute shop/api spec.rules[1].matches[0] (api.example.com prefix /): HTTPRoute shop/api spec.rules[0].matches[0] comes first: longer prefix (/v2 over /)
  HTTPRoute shop/www spec.rules[0].matches[0] (www.example.com prefix /): host api.example.com does not match www.example.com
not in the table:
  HTTPRoute other/r spec.parentRefs[0] (*.example.com): Gateway infra/gw allows routes from its own namespace only
  HTTPRoute other/t (*): no listener of that name
`},
		{"fault", p.Bind, "GET api.example.com/v3", `GET http://api.example.com/v3 on :80
  500 no-backend by HTTPRoute shop/api spec.rules[1].matches[0]: Service shop/api does not exist
  listener infra/gw/*.example.com (*.example.com), host api.example.com: prefix / -> 500 no-backend
lost:
  HTTPRoute shop/api spec.rules[0].matches[0] (api.example.com prefix /v2): prefix /v2 is not a prefix of /v3
  HTTPRoute shop/www spec.rules[0].matches[0] (www.example.com prefix /): host api.example.com does not match www.example.com
not in the table:
  HTTPRoute other/r spec.parentRefs[0] (*.example.com): Gateway infra/gw allows routes from its own namespace only
  HTTPRoute other/t (*): no listener of that name
`},
		{"no listener", p.Bind, "GET other.org/", `GET http://other.org/ on :80
  404 no-route: no listener is for host other.org
lost:
  HTTPRoute shop/api spec.rules[1].matches[0] (api.example.com prefix /): listener infra/gw/*.example.com (*.example.com) is for other hosts: ` +
			`host other.org does not match *.example.com
  HTTPRoute shop/www spec.rules[0].matches[0] (www.example.com prefix /): listener infra/gw/*.example.com (*.example.com) is for other hosts: ` +
			`host other.org does not match *.example.com
  HTTPRoute shop/api spec.rules[0].matches[0] (api.example.com prefix /v2): listener infra/gw/*.example.com (*.example.com) is for other hosts: ` +
			`host other.org does not match *.example.com
not in the table:
  HTTPRoute other/t (*): no listener of that name
`},
		{"no port", Bind{Address: "", Port: 81}, "GET a.com/", `GET a.com/ on :81
  nothing is served here
not in the table:
  HTTPRoute other/t (*): no listener of that name
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := table.Explain(c.bind, parseRequest(c.request)).String(); got != c.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
			}
		})
	}
}

func TestExplainConnectionText(t *testing.T) {
	pool := func(name string) WeightedPool {
		return WeightedPool{Pool: &Pool{Key: PoolKey{Namespace: "shop", Service: name, Port: 53}}, Weight: 1}
	}
	rule := func(kind, name string, day int, backends ...WeightedPool) *Rule {
		return &Rule{Backends: backends, Order: Order{Created: time.Date(2025, 1, day, 0, 0, 0, 0, time.UTC)}, Source: Source{kind, "shop", name, "spec.rules[0]"}}
	}
	faulty := rule("TLSRoute", "ghost", 1)
	faulty.Fault = &Fault{0, NoBackend, "Service shop/ghost does not exist"}
	table := NewTable([]*Port{
		{Bind: Bind{Port: 443}, Protocol: TLS, Listeners: []*Listener{
			{Name: "infra/gw/pass", Hostname: "*.example.com", Mode: Passthrough, Port: 443, Hosts: []*Host{
				{Name: "db.example.com", Rules: []*Rule{rule("TLSRoute", "db", 2, pool("db")), rule("TLSRoute", "late", 3, pool("late"))}},
				{Name: "ghost.example.com", Rules: []*Rule{faulty}},
				{Name: "*.com", Rules: []*Rule{rule("TLSRoute", "wide", 1, pool("wide"))}},
			}},
			{Name: "infra/gw/web", Hostname: "web.example.com", Port: 443},
			{Name: "infra/gw/end", Hostname: "end.example.com", Mode: Terminate, Port: 443},
		}},
		{Bind: Bind{Port: 5432}, Protocol: TCP, Listeners: []*Listener{{Name: "infra/gw/tcp", Mode: Raw, Port: 5432, Hosts: []*Host{
			{Rules: []*Rule{rule("TCPRoute", "a", 1, pool("a")), rule("TCPRoute", "b", 2, pool("b"))}},
		}}}},
		{Bind: Bind{Port: 5432, UDP: true}, Protocol: UDP, Listeners: []*Listener{{Name: "infra/gw/udp", Mode: Raw, Port: 5432}}},
	}, nil, []Rejected{{[]string{"end.example.com"}, "Gateway infra/gw allows routes from its own namespace only", Source{"TLSRoute", "other", "r", "spec.parentRefs[0]"}}})
	for _, tt := range []struct {
		name   string
		bind   Bind
		server string
		want   string
	}{
		{"the oldest route of a name", Bind{Port: 443}, "db.example.com", `tls connection for db.example.com on :443
  passed on by TLSRoute shop/db spec.rules[0]
  listener infra/gw/pass (*.example.com), host db.example.com: -> shop/db:53
lost:
  TLSRoute shop/late spec.rules[0] (db.example.com): TLSRoute shop/db spec.rules[0] comes first: older TLSRoute (2025-01-02T00:00:00Z before 2025-01-03T00:00:00Z)
  TLSRoute shop/wide spec.rules[0] (*.com): TLSRoute shop/db spec.rules[0] comes first: host db.example.com is more specific than *.com
  TLSRoute shop/ghost spec.rules[0] (ghost.example.com): host db.example.com does not match ghost.example.com
`},
		{"a fault", Bind{Port: 443}, "ghost.example.com", `tls connection for ghost.example.com on :443
  closed no-backend by TLSRoute shop/ghost spec.rules[0]: Service shop/ghost does not exist
  listener infra/gw/pass (*.example.com), host ghost.example.com: -> closed no-backend
lost:
  TLSRoute shop/wide spec.rules[0] (*.com): TLSRoute shop/ghost spec.rules[0] comes first: host ghost.example.com is more specific than *.com
  TLSRoute shop/db spec.rules[0] (db.example.com): host ghost.example.com does not match db.example.com
  TLSRoute shop/late spec.rules[0] (db.example.com): host ghost.example.com does not match db.example.com
`},
		{"requests", Bind{Port: 443}, "web.example.com", `tls connection for web.example.com on :443
  its requests are read and routed one by one: listener infra/gw/web (web.example.com)
lost:
  TLSRoute shop/wide spec.rules[0] (*.com): listener infra/gw/web (web.example.com) owns this host, and its connections go to no other listener
  TLSRoute shop/db spec.rules[0] (db.example.com): listener infra/gw/web (web.example.com) owns this host, and its connections go to no other listener
  TLSRoute shop/late spec.rules[0] (db.example.com): listener infra/gw/web (web.example.com) owns this host, and its connections go to no other listener
  TLSRoute shop/ghost spec.rules[0] (ghost.example.com): listener infra/gw/web (web.example.com) owns this host, and its connections go to no other listener
`},
		{"a listener without a route", Bind{Port: 443}, "end.example.com", `tls connection for end.example.com on :443
  closed no-route: no rule of listener infra/gw/end (end.example.com) is for it
lost:
  TLSRoute shop/wide spec.rules[0] (*.com): listener infra/gw/end (end.example.com) owns this host, and its connections go to no other listener
  TLSRoute shop/db spec.rules[0] (db.example.com): listener infra/gw/end (end.example.com) owns this host, and its connections go to no other listener
  TLSRoute shop/late spec.rules[0] (db.example.com): listener infra/gw/end (end.example.com) owns this host, and its connections go to no other listener
  TLSRoute shop/ghost spec.rules[0] (ghost.example.com): listener infra/gw/end (end.example.com) owns this host, and its connections go to no other listener
not in the table:
  TLSRoute other/r spec.parentRefs[0] (end.example.com): Gateway infra/gw allows routes from its own namespace only
`},
		{"no listener", Bind{Port: 443}, "a.example.org", `tls connection for a.example.org on :443
  closed no-route: no listener is for this name
lost:
  TLSRoute shop/db spec.rules[0] (db.example.com): listener infra/gw/pass (*.example.com) is for other hosts: host a.example.org does not match *.example.com
  TLSRoute shop/late spec.rules[0] (db.example.com): listener infra/gw/pass (*.example.com) is for other hosts: host a.example.org does not match *.example.com
  TLSRoute shop/ghost spec.rules[0] (ghost.example.com): listener infra/gw/pass (*.example.com) is for other hosts: host a.example.org does not match *.example.com
  TLSRoute shop/wide spec.rules[0] (*.com): listener infra/gw/pass (*.example.com) is for other hosts: host a.example.org does not match *.example.com
`},
		{"no server name", Bind{Port: 443}, "", `tls connection without a server name on :443
  closed no-route: no listener is for connections without a server name
lost:
  TLSRoute shop/db spec.rules[0] (db.example.com): listener infra/gw/pass (*.example.com) is for other hosts: host "" does not match *.example.com
  TLSRoute shop/late spec.rules[0] (db.example.com): listener infra/gw/pass (*.example.com) is for other hosts: host "" does not match *.example.com
  TLSRoute shop/ghost spec.rules[0] (ghost.example.com): listener infra/gw/pass (*.example.com) is for other hosts: host "" does not match *.example.com
  TLSRoute shop/wide spec.rules[0] (*.com): listener infra/gw/pass (*.example.com) is for other hosts: host "" does not match *.example.com
`},
		{"TCP", Bind{Port: 5432}, "", `tcp connection on :5432
  passed on by TCPRoute shop/a spec.rules[0]
  listener infra/gw/tcp (*), host *: -> shop/a:53
lost:
  TCPRoute shop/b spec.rules[0] (*): TCPRoute shop/a spec.rules[0] comes first: older TCPRoute (2025-01-01T00:00:00Z before 2025-01-02T00:00:00Z)
`},
		{"UDP", Bind{Port: 5432, UDP: true}, "", `udp datagram on :5432/udp
  closed no-route: no rule of listener infra/gw/udp (*) is for it
`},
		{"no port", Bind{Port: 53, UDP: true}, "", `udp datagram on :53/udp
  nothing is served here
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := table.ExplainConnection(tt.bind, tt.server).String(); got != tt.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, tt.want)
			}
		})
	}
}

// A big table has a short explanation, with the likely rules in it.
func TestExplainIsShort(t *testing.T) {
	hosts := hostsTable(10000)
	e := hosts.Explain(Bind{Port: 80}, parseRequest("GET host-77.example.com/"))
	if e.Winner == nil || len(e.Candidates) != 1+maxElsewhere || e.Omitted != 10000-1-maxElsewhere {
		t.Errorf("%d candidates, %d omitted", len(e.Candidates), e.Omitted)
	}
	paths := pathsTable(10000)
	e = paths.Explain(Bind{Port: 80}, parseRequest("GET a.example.com/api/v0/service-7/things/9"))
	if e.Winner == nil || len(e.Candidates) != 10000 {
		t.Errorf("%d candidates", len(e.Candidates))
	}
	if lines := strings.Count(e.String(), "\n"); lines != 3+1+maxShown+1 {
		t.Errorf("%d lines:\n%s", lines, e)
	}
	if !strings.HasSuffix(e.String(), "  and 9949 more rules of this host\n") {
		t.Errorf("the rest is not counted:\n%s", e)
	}
}

// Whatever a client sends, the text has the lines that it should have.
func TestExplainQuotes(t *testing.T) {
	p := parsePort(t, "listener *\n* prefix /a h:X=1 = r")
	table := &Table{Ports: []*Port{p}, ports: map[Bind]*Port{p.Bind: p}}
	r := &Request{Host: "a\nb", Path: "/a\x1b[31m", Method: "G\nET", RawQuery: "\r\n", Header: nil}
	text := table.Explain(p.Bind, r).String()
	if strings.Count(text, "\n") != 4 || strings.ContainsAny(text, "\r\x1b") {
		t.Errorf("got %q", text)
	}
}
