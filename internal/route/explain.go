package route

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Explanation says what a table does with a request and why.
type Explanation struct {
	Bind    Bind
	Request Request
	// Connection says that it is about a connection, or a datagram, as a whole. Of the request only the host counts: the server name.
	Connection bool
	Port       *Port // nil if nothing is served on the bind
	// Listener and Winner are what Lookup returns: the listener that serves the request, or owns its host name, and the rule. Both may be nil.
	Listener *Listener
	Winner   *Rule
	// Candidates are the rules that could be meant: first those of the hosts that match the request, in the order in which they are asked; then those of other
	// hosts and listeners, the most similar first, and at most 20 of these.
	Candidates []Candidate
	// Omitted is the number of rules of other hosts and listeners that are not among the candidates.
	Omitted int
	// Rejected are the routes for the request's host that are not part of the table.
	Rejected []Rejected
}

// Candidate is a rule that won or lost a request.
type Candidate struct {
	Listener *Listener
	Host     *Host
	Rule     *Rule
	Won      bool
	// Matches says that the request meets all conditions of the rule, its host included. If it lost, then to a rule that comes first.
	Matches bool
	Why     string // in words, one line

	elsewhere bool // a rule of a host that was not asked
	near      int  // how similar the request is to what the rule asks for; more is nearer
}

// maxElsewhere is how many rules of other hosts an Explanation holds, and maxShown how many rules of the matching hosts its text shows.
const (
	maxElsewhere = 20
	maxShown     = 50
)

// Explain says what the table does with a request that arrives on a bind, and for every rule that could be meant why it lost. It agrees with Port.Lookup.
func (t *Table) Explain(b Bind, r *Request) Explanation {
	e := Explanation{Bind: b, Request: *r, Port: t.Port(b), Rejected: t.rejectedFor(r.Host)}
	if e.Port == nil {
		return e
	}
	// Whoever asks for a host over TLS names it in the handshake too, and that may be all that is looked at.
	if l, _ := e.Port.Connection(r.Host); l != nil && l.Mode != Requests {
		return t.ExplainConnection(b, r.Host)
	}
	e.Listener, e.Winner, _ = e.Port.Lookup(r)
	x := explainer{Explanation: &e, owner: e.Port.index.find(r.Host)}
	x.run()
	return e
}

// ExplainConnection says what the table does with a connection that asks for a server name, or with a datagram, whose name is empty. It agrees with
// Port.Connection.
func (t *Table) ExplainConnection(b Bind, name string) Explanation {
	e := Explanation{Bind: b, Request: Request{Host: name, Path: "/"}, Connection: true, Port: t.Port(b), Rejected: t.rejectedFor(name)}
	if e.Port == nil {
		return e
	}
	e.Listener, e.Winner = e.Port.Connection(name)
	x := explainer{Explanation: &e, owner: e.Port.index.find(name)}
	x.run()
	return e
}

// rejectedFor returns what did not become part of the table and names a host.
func (t *Table) rejectedFor(host string) (out []Rejected) {
	for _, x := range t.Rejected {
		if len(x.Hostnames) == 0 || slices.ContainsFunc(x.Hostnames, func(h string) bool { return nameMatches(h, host, false) }) {
			out = append(out, x)
		}
	}
	return out
}

// explainer is one run of Explain.
type explainer struct {
	*Explanation
	owner  *Listener
	won    *Candidate // a copy of the winner, once it was met
	others []Candidate
}

func (x *explainer) run() {
	if x.asks(x.owner) {
		x.asked(x.owner)
	}
	if x.asks(x.Port.lastResort) {
		x.asked(x.Port.lastResort)
	}
	for _, l := range x.Port.Listeners {
		x.notAsked(l)
	}
	slices.SortStableFunc(x.others, func(a, b Candidate) int { return cmp.Compare(b.near, a.near) })
	n := min(len(x.others), maxElsewhere)
	x.Candidates = append(x.Candidates, x.others[:n]...)
	x.Omitted = len(x.others) - n
}

// asks tells whether Lookup, or Connection, asks a listener.
func (x *explainer) asks(l *Listener) bool {
	return l != nil && (l == x.owner || l == x.Port.lastResort) && x.fits(l)
}

// fits tells whether a listener is for what is asked about: requests, or connections as a whole.
func (x *explainer) fits(l *Listener) bool { return (l.Mode != Requests) == x.Connection }

// asked adds the rules of a listener that Lookup asks, in the order in which it does.
func (x *explainer) asked(l *Listener) {
	l.index.each(x.Request.Host, func(h *Host) bool {
		for _, r := range h.Rules {
			x.Candidates = append(x.Candidates, x.judge(Candidate{Listener: l, Host: h, Rule: r}))
		}
		return true
	})
}

// judge says why a rule that was asked won or lost.
func (x *explainer) judge(c Candidate) Candidate {
	if c.Why, c.near = c.Rule.Match.mismatch(&x.Request); c.Why != "" {
		return c
	}
	c.Matches = true
	if x.won == nil && c.Rule == x.Winner {
		c.Won, c.Why = true, "first of all that match"
		x.won = &c
		return c
	}
	c.Why = x.beaten(c)
	return c
}

// beaten says what decided between the winner and a rule that matches too and comes later.
func (x *explainer) beaten(c Candidate) string {
	w := x.won
	switch {
	case w == nil: // cannot be: the first that matches wins
		return "another rule comes first"
	case w.Listener != c.Listener:
		return fmt.Sprintf("%s comes first: %s is asked only when no rule of %s matches", w.Rule.Source, c.Listener.title(), w.Listener.title())
	case w.Host != c.Host:
		return fmt.Sprintf("%s comes first: host %s is more specific than %s", w.Rule.Source, nameText(w.Host.Name), nameText(c.Host.Name))
	default:
		return fmt.Sprintf("%s comes first: %s", w.Rule.Source, w.Rule.precedes(c.Rule))
	}
}

// notAsked adds the rules of a listener that the request never sees, for their host or because another listener owns the request's host.
func (x *explainer) notAsked(l *Listener) {
	asked := x.asks(l)
	host := x.Request.Host
	for _, h := range l.Hosts {
		matches := nameMatches(h.Name, host, l.OneLabelWildcards)
		var why string
		switch {
		case asked && matches:
			continue
		case asked || !nameMatches(l.Hostname, host, false) && l.Hostname == h.Name:
			why = hostMismatch(h.Name, host, l.OneLabelWildcards)
		case !nameMatches(l.Hostname, host, false):
			why = l.title() + " is for other hosts: " + hostMismatch(l.Hostname, host, false)
		case !x.fits(l) && x.Connection:
			why = l.title() + " reads requests from connections and does not pass them on"
		case !x.fits(l):
			why = l.title() + " passes connections on and does not read requests from them"
		case x.owner != nil:
			why = fmt.Sprintf("%s owns this host, and its %s go to no other listener", x.owner.title(), x.traffic())
		default:
			why = "another listener owns this host"
		}
		for _, r := range h.Rules {
			x.others = append(x.others, x.similar(Candidate{Listener: l, Host: h, Rule: r, Why: why, elsewhere: true}, matches))
		}
	}
}

// similar says how near a rule of another host or listener is to the request.
func (x *explainer) similar(c Candidate, hostMatches bool) Candidate {
	_, c.near = c.Rule.Match.mismatch(&x.Request)
	shared := sharedLabels(c.Host.Name, x.Request.Host)
	if hostMatches {
		shared = 100
	}
	c.near += 10 * shared
	return c
}

// sharedLabels is how many labels two names have in common at their end.
func sharedLabels(a, b string) (n int) {
	for a != "" && b != "" {
		i, j := strings.LastIndexByte(a, '.')+1, strings.LastIndexByte(b, '.')+1
		if a[i:] != b[j:] {
			break
		}
		n++
		a, b = a[:max(0, i-1)], b[:max(0, j-1)]
	}
	return n
}

// nameMatches reports whether a host name pattern matches a host.
func nameMatches(pattern, host string, oneLabel bool) bool {
	suffix, wild := strings.CutPrefix(pattern, "*")
	if !wild {
		return pattern == "" || pattern == host
	}
	star, ok := strings.CutSuffix(host, suffix)
	return ok && star != "" && (!oneLabel || !strings.Contains(star, "."))
}

// hostMismatch says why a pattern does not match a host.
func hostMismatch(pattern, host string, oneLabel bool) string {
	why := fmt.Sprintf("host %s does not match %s", word(host, "[]"), nameText(pattern))
	switch {
	case oneLabel && nameMatches(pattern, host, false):
		return why + ": the star stands for one label"
	case pattern == "*."+host:
		return why + ": the star stands for at least one label"
	default:
		return why
	}
}

// title names the listener with its pattern.
func (l *Listener) title() string {
	return fmt.Sprintf("listener %s (%s)", word(l.Name, ""), nameText(l.Hostname))
}

// Degrees of similarity between a request and the conditions of a rule.
const (
	nearNothing = iota
	nearPath    // the path matches
	nearAll     // everything matches
)

// mismatch says which condition a request does not meet, the first in the order path, method, headers, query; "" if it meets all.
func (m *Match) mismatch(r *Request) (why string, near int) {
	if m.GRPC != nil {
		if why := m.GRPC.mismatch(r); why != "" {
			return why, nearNothing
		}
	} else if !m.Path.matches(r.Path) {
		return m.Path.mismatch(r.Path), nearNothing
	}
	if m.Method != "" && m.Method != r.Method {
		return fmt.Sprintf("method %s is not %s", methodText(r.Method), methodText(m.Method)), nearPath
	}
	for i := range m.Headers {
		if h := &m.Headers[i]; !h.matchesHeader(r) {
			return h.headerMismatch(r), nearPath
		}
	}
	for i := range m.Query {
		if q := &m.Query[i]; !q.matchesQuery(r.RawQuery) {
			return q.queryMismatch(r.RawQuery), nearPath
		}
	}
	return "", nearAll
}

func (m PathMatch) mismatch(path string) string {
	shown := shorten(word(path, pathMarks))
	switch {
	case m.Kind == Regex && m.Regex == nil:
		return m.String() + " is not a valid expression"
	case m.Kind == Regex && len(path) > maxRegexValue:
		return fmt.Sprintf("%s is not tried on a path longer than %d bytes", m, maxRegexValue)
	case m.Kind == Regex:
		return fmt.Sprintf("%s does not match the whole of %s", m, shown)
	case m.Kind == Exact && strings.TrimSuffix(path, "/") == m.key():
		return fmt.Sprintf("%s is not %s: an exact match counts the trailing slash", m, shown)
	case m.Kind == Exact && strings.EqualFold(path, m.Value):
		return fmt.Sprintf("%s is not %s: upper and lower case differ", m, shown)
	case m.Kind == Exact:
		return fmt.Sprintf("%s is not %s", m, shown)
	case strings.HasPrefix(path, m.key()):
		return fmt.Sprintf("%s is not an element-wise prefix of %s", m, shown)
	default:
		return fmt.Sprintf("%s is not a prefix of %s", m, shown)
	}
}

func (m *ValueMatch) headerMismatch(r *Request) string {
	name := word(m.Name, "")
	values := []string{r.Host}
	if m.Name != "Host" {
		values = r.header(m.Name)
	}
	if len(values) == 0 {
		return "header " + name + " missing"
	}
	return "header " + name + " is " + quoteList(values) + m.wanted()
}

func (m *ValueMatch) queryMismatch(query string) string {
	name := word(m.Name, "")
	raw, ok := firstQueryValue(query, m.Name)
	if !ok {
		return "query parameter " + name + " missing"
	}
	value, ok := formDecode(raw)
	if !ok {
		return fmt.Sprintf("query parameter %s is %s, which cannot be decoded", name, quoteList([]string{raw}))
	}
	return "query parameter " + name + " is " + quoteList([]string{value}) + m.wanted()
}

// wanted ends a sentence with what the condition asks for.
func (m *ValueMatch) wanted() string {
	if m.Regex != nil {
		return ", which does not match " + quoteRaw(m.Value)
	}
	return fmt.Sprintf(", not %+q", m.Value)
}

func quoteList(values []string) string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = fmt.Sprintf("%+q", v)
	}
	return shorten(strings.Join(texts, " and "))
}

// shorten keeps what a request brings along from filling the screen. s is ASCII.
func shorten(s string) string {
	const most = 200
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// criteria are the comparisons of Rule.Compare with the words for each. A test compares the two.
var criteria = []struct {
	compare func(w, l *Rule) int
	why     func(w, l *Rule) string
}{
	{
		func(w, l *Rule) int { return compareBool(w.Order.Last, l.Order.Last) },
		func(_, _ *Rule) string { return "a default backend is asked last" },
	},
	{
		func(w, l *Rule) int { return compareBool(w.Match.GRPC == nil, l.Match.GRPC == nil) },
		func(_, _ *Rule) string { return "what is for gRPC alone before the rest" },
	},
	{
		func(w, l *Rule) int { return w.Match.GRPC.Compare(l.Match.GRPC) },
		func(w, l *Rule) string {
			return fmt.Sprintf("more specific method (%s over %s)", w.Match.GRPC, l.Match.GRPC)
		},
	},
	{
		func(w, l *Rule) int { return cmp.Compare(w.Match.Path.Kind.rank(), l.Match.Path.Kind.rank()) },
		func(w, l *Rule) string {
			return fmt.Sprintf("%s before %s", w.Match.Path.Kind, l.Match.Path.Kind)
		},
	},
	{
		func(w, l *Rule) int { return cmp.Compare(l.Match.Path.length(), w.Match.Path.length()) },
		func(w, l *Rule) string {
			if w.Match.Path.Kind == Regex {
				return fmt.Sprintf("longer expression (%s over %s)", w.Match.Path.text(), l.Match.Path.text())
			}
			return fmt.Sprintf("longer prefix (%s over %s)", w.Match.Path.text(), l.Match.Path.text())
		},
	},
	{
		func(w, l *Rule) int { return compareBool(l.Match.Method != "", w.Match.Method != "") },
		func(_, _ *Rule) string { return "a method match before none" },
	},
	{
		func(w, l *Rule) int { return cmp.Compare(len(l.Match.Headers), len(w.Match.Headers)) },
		func(w, l *Rule) string {
			return fmt.Sprintf("more headers (%d over %d)", len(w.Match.Headers), len(l.Match.Headers))
		},
	},
	{
		func(w, l *Rule) int { return cmp.Compare(len(l.Match.Query), len(w.Match.Query)) },
		func(w, l *Rule) string {
			return fmt.Sprintf("more query parameters (%d over %d)", len(w.Match.Query), len(l.Match.Query))
		},
	},
	{
		func(w, l *Rule) int { return w.Order.Created.Compare(l.Order.Created) },
		func(w, l *Rule) string { return "older " + w.kindText() + " " + w.ages(l) },
	},
	{
		func(w, l *Rule) int { return w.Source.compareObject(l.Source) },
		func(w, l *Rule) string {
			return fmt.Sprintf("%s is before %s in the alphabet", w.Source.object(), l.Source.object())
		},
	},
	{
		func(w, l *Rule) int { return cmp.Compare(w.Order.Rule, l.Order.Rule) },
		func(w, _ *Rule) string { return "earlier rule of the same " + w.kindText() },
	},
	{
		func(w, l *Rule) int { return cmp.Compare(w.Order.Match, l.Order.Match) },
		func(_, _ *Rule) string { return "earlier match of the same rule" },
	},
}

// precedes says which criterion puts w before l.
func (r *Rule) precedes(l *Rule) string {
	for _, c := range criteria {
		if c.compare(r, l) != 0 {
			return c.why(r, l)
		}
	}
	return "equal in everything that decides"
}

func (r *Rule) kindText() string { return word(cmp.Or(r.Source.Kind, "object"), "") }

// ages are the creation times of two objects, r's the older.
func (r *Rule) ages(l *Rule) string {
	const layout = "2006-01-02T15:04:05Z07:00"
	if r.Order.Created.IsZero() {
		return "(without a creation time, which counts as oldest)"
	}
	return fmt.Sprintf("(%s before %s)", r.Order.Created.UTC().Format(layout), l.Order.Created.UTC().Format(layout))
}

// String returns the explanation for people: what happens, then every candidate that lost and why, then the routes that are not part of the table.
func (e Explanation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s on %s\n  %s\n", e.request(), e.Bind, e.verdict())
	if w := slices.IndexFunc(e.Candidates, func(c Candidate) bool { return c.Won }); w >= 0 {
		c := e.Candidates[w]
		fmt.Fprintf(&b, "  %s, host %s: %s\n", c.Listener.title(), nameText(c.Host.Name), c.ruleText())
	}
	lost, hidden := e.lost()
	if len(lost) > 0 {
		b.WriteString("lost:\n")
	}
	for _, c := range lost {
		fmt.Fprintf(&b, "  %s (%s): %s\n", c.Rule.Source, c.matchText(), c.Why)
	}
	if hidden > 0 {
		fmt.Fprintf(&b, "  and %d more rules of this host\n", hidden)
	}
	if e.Omitted > 0 {
		fmt.Fprintf(&b, "  and %d more rules of other hosts\n", e.Omitted)
	}
	if len(e.Rejected) > 0 {
		b.WriteString("not in the table:\n")
	}
	for _, r := range e.Rejected {
		fmt.Fprintf(&b, "  %s (%s): %s\n", r.Source, namesText(r.Hostnames), printable(r.Why))
	}
	return b.String()
}

// ruleText is the rule, and matchText what it asks for. Rules for whole connections ask for a name alone.
func (c *Candidate) ruleText() string {
	if c.Listener.Mode != Requests {
		return c.Rule.action()
	}
	return c.Rule.String()
}

func (c *Candidate) matchText() string {
	if c.Listener.Mode != Requests {
		return nameText(c.Host.Name)
	}
	return nameText(c.Host.Name) + " " + c.Rule.Match.String()
}

// traffic is the kind of thing that is asked about.
func (e *Explanation) traffic() string {
	if e.Connection {
		return "connections"
	}
	return "requests"
}

// connection is what a connection is asked about, on one line.
func (e *Explanation) connection() string {
	switch {
	case e.Port != nil && e.Port.Protocol == TCP:
		return "tcp connection"
	case e.Bind.UDP:
		return "udp datagram"
	case e.Request.Host == "":
		return "tls connection without a server name"
	default:
		return "tls connection for " + shorten(word(e.Request.Host, "[]"))
	}
}

// request is the request on one line.
func (e *Explanation) request() string {
	if e.Connection {
		return e.connection()
	}
	query := ""
	if e.Request.RawQuery != "" {
		query = "?" + e.Request.RawQuery
	}
	scheme := ""
	if e.Port != nil {
		scheme = string(e.Port.Protocol) + "://"
	}
	return joinWords(printable(e.Request.Method), shorten(word(scheme+e.Request.Host+e.Request.Path+query, pathMarks+"[]")))
}

// verdict says what happens to the request.
func (e *Explanation) verdict() string {
	switch {
	case e.Port == nil:
		return "nothing is served here"
	case e.Connection:
		return e.passage()
	case e.Winner != nil && e.Winner.Fault != nil:
		return fmt.Sprintf("%s by %s: %s", e.Winner.Fault, e.Winner.Source, printable(e.Winner.Fault.Why))
	case e.Winner != nil:
		return "served by " + e.Winner.Source.String()
	case e.Listener != nil:
		return fmt.Sprintf("404 %s: no rule of %s matches", NoRoute, e.Listener.title())
	default:
		return fmt.Sprintf("404 %s: no listener is for host %s", NoRoute, word(e.Request.Host, "[]"))
	}
}

// passage says what happens to a connection.
func (e *Explanation) passage() string {
	switch {
	case e.Winner != nil && e.Winner.Fault != nil:
		return fmt.Sprintf("%s by %s: %s", e.Winner.Fault, e.Winner.Source, printable(e.Winner.Fault.Why))
	case e.Winner != nil:
		return "passed on by " + e.Winner.Source.String()
	case e.Listener == nil && e.Request.Host == "":
		return fmt.Sprintf("closed %s: no listener is for connections without a server name", NoRoute)
	case e.Listener == nil:
		return fmt.Sprintf("closed %s: no listener is for this name", NoRoute)
	case e.Listener.Mode == Requests:
		return "its requests are read and routed one by one: " + e.Listener.title()
	default:
		return fmt.Sprintf("closed %s: no rule of %s is for it", NoRoute, e.Listener.title())
	}
}

// lost returns the candidates that lost, without those of the request's own hosts that are too many to read, and how many these are.
func (e *Explanation) lost() (show []Candidate, hidden int) {
	var here, elsewhere []Candidate
	for _, c := range e.Candidates {
		switch {
		case c.Won:
		case c.elsewhere:
			elsewhere = append(elsewhere, c)
		default:
			here = append(here, c)
		}
	}
	if hidden = len(here) - maxShown; hidden > 0 {
		slices.SortStableFunc(here, func(a, b Candidate) int { return cmp.Compare(b.near, a.near) })
		here = here[:maxShown]
	}
	return append(here, elsewhere...), max(0, hidden)
}
