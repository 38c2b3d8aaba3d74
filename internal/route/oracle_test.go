package route

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// This file holds the slow twin of the index: a linear scan, written from the text of the specifications and from nothing in the other files.

type found struct {
	listener *Listener
	host     *Host
	rule     *Rule
}

// oracleOwner is the listener whose hostname matches most specifically, of those that are not the last resort.
func oracleOwner(p *Port, host string) *Listener {
	var best *Listener
	for _, l := range p.Listeners {
		if !l.LastResort && oracleHost(l.Hostname, host, false) && (best == nil || moreSpecific(l.Hostname, best.Hostname)) {
			best = l
		}
	}
	return best
}

func oracleLast(p *Port) *Listener {
	for _, l := range p.Listeners {
		if l.LastResort {
			return l
		}
	}
	return nil
}

// oracleLookup returns the best of all rules that match, first of the owner, then of the last resort.
func oracleLookup(p *Port, r *Request) found {
	for _, l := range []*Listener{oracleOwner(p, r.Host), oracleLast(p)} {
		if l == nil {
			continue
		}
		var best found
		for _, h := range l.Hosts {
			for _, rule := range h.Rules {
				if !oracleHost(h.Name, r.Host, l.OneLabelWildcards) || !oracleMatch(rule.Match, r) {
					continue
				}
				c := found{l, h, rule}
				if best.rule == nil || oracleBefore(c, best) {
					best = c
				}
			}
		}
		if best.rule != nil {
			return best
		}
	}
	return found{}
}

// oracleHost: "Hostnames that are prefixed with a wildcard label (*.) are interpreted as a suffix match. That means that a match for *.example.com would match
// both test.example.com, and foo.test.example.com, but not example.com." Ingress: the wildcard covers a single label.
func oracleHost(pattern, host string, oneLabel bool) bool {
	if pattern == "" {
		return true
	}
	want, have := strings.Split(pattern, "."), strings.Split(host, ".")
	if want[0] != "*" {
		return slices.Equal(want, have)
	}
	want = want[1:]
	star := len(have) - len(want)
	if star < 1 || oneLabel && star != 1 {
		return false
	}
	return slices.Equal(have[star:], want)
}

// moreSpecific: "precedence must be given to rules with the largest number of characters in a matching non-wildcard hostname, characters in a matching hostname".
func moreSpecific(a, b string) bool {
	exact := func(s string) int {
		if strings.HasPrefix(s, "*") {
			return 0
		}
		return len(s)
	}
	if exact(a) != exact(b) {
		return exact(a) > exact(b)
	}
	return len(a) > len(b)
}

func oracleMatch(m Match, r *Request) bool {
	if m.GRPC != nil && !oracleGRPC(m.GRPC, r) {
		return false
	}
	if m.GRPC == nil && !oraclePath(m.Path, r.Path) || m.Method != "" && m.Method != r.Method {
		return false
	}
	for _, h := range m.Headers {
		var values []string
		if r.Header != nil {
			values = r.Header.Values(h.Name)
		}
		all := slices.Clone(values)
		if len(values) > 0 {
			all = append(all, strings.Join(values, ","), strings.Join(values, ", "))
		}
		if !slices.Contains(all, h.Value) {
			return false
		}
	}
	query, err := url.ParseQuery(r.RawQuery)
	if err != nil && len(m.Query) > 0 {
		panic("the generator makes clean queries only")
	}
	for _, q := range m.Query {
		if v, ok := query[q.Name]; !ok || v[0] != q.Value {
			return false
		}
	}
	return true
}

// oracleGRPC: "Value of the service to match against. If left empty or omitted, will match any service." The same of methods. "The implementation MUST match
// every gRPC request" without any.
func oracleGRPC(m *GRPCMatch, r *Request) bool {
	if r.Header == nil || len(r.Header.Values("Content-Type")) == 0 || !regexp.MustCompile(`^application/grpc($|[+;])`).MatchString(r.Header.Values("Content-Type")[0]) {
		return false
	}
	meets := func(n GRPCName, name string) bool {
		if n.Regex != nil {
			return n.Regex.FindString(name) == name
		}
		return n.Value == "" || n.Value == name
	}
	parts := strings.Split(r.Path, "/")
	service, method := strings.Join(parts[1:max(1, len(parts)-1)], "/"), parts[len(parts)-1]
	if service == "" || method == "" {
		return m.Service == GRPCName{} && m.Method == GRPCName{}
	}
	return meets(m.Service, service) && meets(m.Method, method)
}

// oracleBeforeGRPC reports whether a is asked before b; equal says that neither is. "Precedence MUST be given to the rule with the largest number of characters in a
// matching service, characters in a matching method". Names come before expressions.
func oracleBeforeGRPC(a, b *GRPCMatch) (before, equal bool) {
	if a == nil || b == nil {
		return a != nil, (a == nil) == (b == nil)
	}
	for _, pair := range [][2]GRPCName{{a.Service, b.Service}, {a.Method, b.Method}} {
		x, y := pair[0], pair[1]
		if named, other := x.Regex == nil && x.Value != "", y.Regex == nil && y.Value != ""; named != other {
			return named, false
		}
		if some, other := x != (GRPCName{}), y != (GRPCName{}); some != other {
			return some, false
		}
		if len(x.Value) != len(y.Value) {
			return len(x.Value) > len(y.Value), false
		}
	}
	return false, true
}

// oraclePath: "Matches based on a URL path prefix split by /. Matching is case-sensitive and done on a path element by element basis. When specified, a trailing
// / is ignored."
func oraclePath(m PathMatch, path string) bool {
	switch m.Kind {
	case Exact:
		return m.Value == path
	case Regex:
		return m.Regex.FindString(path) == path
	}
	value := strings.TrimSuffix(m.Value, "/")
	if value == "" {
		return true
	}
	want, have := strings.Split(value, "/"), strings.Split(path, "/")
	return len(have) >= len(want) && slices.Equal(have[:len(want)], want)
}

// oracleBefore reports whether a is asked before b, criterion by criterion.
func oracleBefore(a, b found) bool {
	if a.host.Name != b.host.Name {
		return moreSpecific(a.host.Name, b.host.Name)
	}
	x, y := a.rule, b.rule
	if x.Order.Last != y.Order.Last {
		return y.Order.Last
	}
	if before, equal := oracleBeforeGRPC(x.Match.GRPC, y.Match.GRPC); !equal {
		return before
	}
	kinds := []PathKind{Exact, Regex, Prefix}
	if i, j := slices.Index(kinds, x.Match.Path.Kind), slices.Index(kinds, y.Match.Path.Kind); i != j {
		return i < j
	}
	characters := func(m PathMatch) int {
		switch m.Kind {
		case Exact:
			return 0
		case Regex:
			return len(m.Value)
		}
		if strings.HasSuffix(m.Value, "/") {
			return len(m.Value) - 1
		}
		return len(m.Value)
	}
	if i, j := characters(x.Match.Path), characters(y.Match.Path); i != j {
		return i > j
	}
	if i, j := x.Match.Method != "", y.Match.Method != ""; i != j {
		return i
	}
	if i, j := len(x.Match.Headers), len(y.Match.Headers); i != j {
		return i > j
	}
	if i, j := len(x.Match.Query), len(y.Match.Query); i != j {
		return i > j
	}
	if !x.Order.Created.Equal(y.Order.Created) {
		return x.Order.Created.Before(y.Order.Created)
	}
	if i, j := x.Source.Namespace, y.Source.Namespace; i != j {
		return i < j
	}
	if i, j := x.Source.Name, y.Source.Name; i != j {
		return i < j
	}
	if x.Order.Rule != y.Order.Rule {
		return x.Order.Rule < y.Order.Rule
	}
	return x.Order.Match < y.Order.Match
}

// choices turns bytes into decisions, so that a fuzzer can steer what is generated.
type choices struct{ data []byte }

// n returns a number below n; 0 once the bytes are used up.
func (c *choices) n(n int) int {
	if len(c.data) == 0 {
		return 0
	}
	v := int(c.data[0]) % n
	c.data = c.data[1:]
	return v
}

func (c *choices) of(words ...string) string { return words[c.n(len(words))] }

// rest says whether there are decisions left.
func (c *choices) rest() bool { return len(c.data) > 0 }

var (
	testHosts = []string{"", "a", "a.b", "c.a.b", "d.c.a.b", "x.b", "*.b", "*.a.b", "*.c.a.b", "*.a"}
	testPaths = []string{
		"/", "/a", "/a/", "/a/b", "/a/b/", "/a/b/c", "/ab", "/b", "//", "/a//", "/a//b", "/A", "/a/b/c/d", "/%2F", "/a%2Fb", "/a/b/c/d/",
	}
	testRegexes = []string{"/a/.*", "/.*", "/a|/b", "(?i)/A", "/[ab]+", "/a/b(/.*)?", ""}
	testQueries = []string{"", "a=1", "a=2&a=1", "b=x%20y", "b=x+y&a=1", "%61=1", "a&b=", "&&a=1&", "A=1", "a=1=1", "=&a=%31"}
)

func (c *choices) rule(id int) *Rule {
	r := &Rule{Source: Source{"HTTPRoute", c.of("m", "n"), c.of("q", "r"), "spec.rules[" + string(rune('a'+id%26)) + "]"}}
	switch kind := c.n(8); kind {
	case 0:
		r.Match.Path = PathMatch{Kind: Exact, Value: c.of(testPaths...)}
	case 1:
		expr := c.of(testRegexes...)
		re, err := CompileRegex(expr)
		if err != nil {
			panic(err)
		}
		r.Match.Path = PathMatch{Kind: Regex, Value: expr, Regex: re}
	case 2: // the zero match
	case 3:
		r.Match.GRPC = &GRPCMatch{c.grpcName("a", "a/b", "c", "longer"), c.grpcName("a", "b", "c")}
	default:
		r.Match.Path = PathMatch{Kind: Prefix, Value: c.of(testPaths...)}
	}
	switch c.n(6) {
	case 0:
		r.Match.Method = c.of("GET", "POST", "get")
	case 1:
		r.Match.Headers = c.values("X-A", "X-B", "1", "2", "1, 2", "1,2")
	case 2:
		r.Match.Query = c.values("a", "b", "1", "x y")
	case 3:
		r.Match.Headers = c.values("X-A", "X-B", "1", "2", "1, 2", "1,2")
		r.Match.Query = c.values("a", "b", "1", "2", "x y", "1=1")
		r.Match.Method = "GET"
	}
	r.Order = Order{Rule: id, Match: c.n(2), Last: c.n(10) == 1}
	if c.n(2) == 1 {
		r.Order.Created = time.Unix(int64(c.n(3)), 0)
	}
	return r
}

// grpcName makes a condition on the name of a service or a method.
func (c *choices) grpcName(names ...string) GRPCName {
	switch c.n(4) {
	case 0:
		return GRPCName{}
	case 1:
		expr := c.of("[abc]", "b|c", "a(/b)?", ".*")
		re, err := CompileRegex(expr)
		if err != nil {
			panic(err)
		}
		return GRPCName{expr, re}
	}
	return GRPCName{Value: c.of(names...)}
}

// values makes one or two conditions on two names.
func (c *choices) values(first, second string, values ...string) []ValueMatch {
	v := []ValueMatch{{Name: first, Value: c.of(values...)}}
	if c.n(2) == 1 {
		v = append(v, ValueMatch{Name: second, Value: c.of(values...)})
	}
	return v
}

// port makes a port with up to three listeners and their rules, and no two listeners or rules of one rank.
func (c *choices) port() *Port {
	p := &Port{Bind: Bind{Port: 80}, Protocol: HTTP}
	hostnames := slices.Clone(testHosts)
	for range 1 + c.n(3) {
		i := c.n(len(hostnames))
		l := &Listener{Name: "infra/gw/" + hostnames[i], Hostname: hostnames[i], Port: 80, OneLabelWildcards: c.n(4) == 1}
		hostnames = slices.Delete(hostnames, i, i+1)
		p.Listeners = append(p.Listeners, l)
	}
	if c.n(2) == 1 {
		p.Listeners = append(p.Listeners, &Listener{Name: "ingress", LastResort: true, OneLabelWildcards: true})
	}
	id := 0
	for c.rest() && id < 60 {
		l := p.Listeners[c.n(len(p.Listeners))]
		h := &Host{Name: c.of(testHosts...)}
		for range 1 + c.n(4) {
			h.Rules = append(h.Rules, c.rule(id))
			id++
		}
		l.Hosts = append(l.Hosts, h)
		if c.n(4) == 1 { // the same rules for another host of the route
			l.Hosts = append(l.Hosts, &Host{Name: c.of(testHosts...), Rules: slices.Clone(h.Rules)})
		}
	}
	return p
}

func (c *choices) request() *Request {
	r := &Request{
		Host:     c.of("a", "a.b", "c.a.b", "d.c.a.b", "e.d.c.a.b", "x.b", "y.x.b", "b", "other.example.com", "[::1]", "1.2.3.4"),
		Path:     c.of(testPaths...),
		Method:   c.of("GET", "POST", "get"),
		RawQuery: c.of(testQueries...),
	}
	switch c.n(8) {
	case 5:
		r.Header = http.Header{"X-A": {"1"}, "Content-Type": {"application/grpc"}}
	case 6:
		r.Header = http.Header{"X-B": {"2"}, "Content-Type": {"application/grpc+proto"}}
	case 7:
		r.Header = http.Header{"Content-Type": {"application/grpc;x=y", "text/plain"}}
	case 0:
		r.Header = http.Header{"X-A": {"1"}, "X-B": {"2"}}
	case 1:
		r.Header = http.Header{"X-A": {"1", "2"}, "X-B": {"", "1"}}
	case 2:
		r.Header = http.Header{"X-B": {"1, 2"}}
	case 3:
		r.Header = http.Header{"X-A": {}}
	}
	return r
}

// clone copies a port before NewTable took it, in another order.
func clonePort(p *Port, shuffle func(n int, swap func(i, j int))) *Port {
	q := &Port{Bind: p.Bind, Protocol: p.Protocol}
	for _, l := range p.Listeners {
		m := &Listener{Name: l.Name, Hostname: l.Hostname, LastResort: l.LastResort, OneLabelWildcards: l.OneLabelWildcards, Port: l.Port, Source: l.Source}
		for _, h := range l.Hosts {
			g := &Host{Name: h.Name, Rules: slices.Clone(h.Rules)}
			shuffle(len(g.Rules), func(i, j int) { g.Rules[i], g.Rules[j] = g.Rules[j], g.Rules[i] })
			m.Hosts = append(m.Hosts, g)
		}
		shuffle(len(m.Hosts), func(i, j int) { m.Hosts[i], m.Hosts[j] = m.Hosts[j], m.Hosts[i] })
		q.Listeners = append(q.Listeners, m)
	}
	shuffle(len(q.Listeners), func(i, j int) { q.Listeners[i], q.Listeners[j] = q.Listeners[j], q.Listeners[i] })
	return q
}

func TestOracleItself(t *testing.T) {
	// The examples of the specifications, so that the oracle is not merely the index again.
	for _, c := range []struct {
		pattern, host string
		oneLabel      bool
		want          bool
	}{
		{"*.example.com", "test.example.com", false, true},
		{"*.example.com", "foo.test.example.com", false, true},
		{"*.example.com", "example.com", false, false},
		{"*.foo.com", "bar.foo.com", true, true},
		{"*.foo.com", "baz.bar.foo.com", true, false},
		{"*.foo.com", "foo.com", true, false},
	} {
		if got := oracleHost(c.pattern, c.host, c.oneLabel); got != c.want {
			t.Errorf("oracleHost(%q, %q, %v) = %v", c.pattern, c.host, c.oneLabel, got)
		}
	}
}
