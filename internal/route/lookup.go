package route

import (
	"slices"
	"strings"
)

// Lookup finds the rule that serves a request, by the most specific listener, host and match. It allocates nothing and may be called concurrently.
//
// rule is nil when nothing matches; reason is then NoRoute, and l the listener that owns the request's host name, or nil if there is none.
func (p *Port) Lookup(r *Request) (l *Listener, rule *Rule, reason Reason) {
	owner := p.index.find(r.Host)
	if owner != nil && owner.Mode == Requests {
		if rule := owner.lookup(r); rule != nil {
			return owner, rule, ""
		}
	}
	last := p.lastResort
	if last == nil {
		return owner, nil, NoRoute
	}
	if rule := last.lookup(r); rule != nil {
		return last, rule, ""
	}
	if owner == nil {
		owner = last
	}
	return owner, nil, NoRoute
}

// Connection finds the rule that gets a connection as a whole, by the server name that it asks for, or a datagram; the name is then empty. It allocates nothing and
// may be called concurrently.
//
// rule is nil when the connection is not to be passed on. If l is then one with the mode Requests, its requests are to be read and looked up one by one; otherwise
// nobody wants it.
func (p *Port) Connection(name string) (l *Listener, rule *Rule) {
	owner := p.Listener(name)
	if owner == nil || owner.Mode == Requests {
		return owner, nil
	}
	if rule := owner.connection(name); rule != nil {
		return owner, rule
	}
	if last := p.lastResort; last != nil && last.index.find(name) != nil {
		return last, nil
	}
	return owner, nil
}

// connection returns the first rule of the most specific host.
func (l *Listener) connection(name string) (rule *Rule) {
	l.index.each(name, func(h *Host) bool {
		if len(h.Rules) > 0 {
			rule = h.Rules[0]
		}
		return rule == nil
	})
	return rule
}

// Listener returns the listener that owns a host name: the one with the most specific matching Hostname. The last-resort listener owns what no other does; the
// result is nil if there is none either.
func (p *Port) Listener(host string) *Listener {
	if l := p.index.find(host); l != nil {
		return l
	}
	return p.lastResort
}

// lookup asks the hosts of the listener from the most specific to the least.
func (l *Listener) lookup(r *Request) (rule *Rule) {
	l.index.each(r.Host, func(h *Host) bool {
		rule = h.index.lookup(r)
		return rule == nil
	})
	return rule
}

// names is a set of values by host name pattern: "a.example.com", "*.example.com" or "" for any. Each of them is found without looking at the others.
type names[T any] struct {
	exact    map[string]*T
	wildcard map[string]*T // by what follows "*."
	any      *T
	// depths has a bit for each number of labels that some wildcard has behind the star, so that a request whose host has a hundred labels costs no more
	// lookups than there are kinds of wildcard.
	depths   depthSet
	oneLabel bool // the star stands for exactly one label, not for one or more
}

// depthSet is a set of numbers of labels. A host name has at most 127 labels; more share the last bit.
type depthSet [2]uint64

func (s *depthSet) add(n int)      { n = min(n, 127); s[n/64] |= 1 << (n % 64) }
func (s *depthSet) has(n int) bool { n = min(n, 127); return s[n/64]&(1<<(n%64)) != 0 }

// add puts v under a pattern, unless another value is there already.
func (n *names[T]) add(pattern string, v *T) {
	suffix, wild := strings.CutPrefix(pattern, "*.")
	switch {
	case pattern == "":
		if n.any == nil {
			n.any = v
		}
	case wild:
		n.depths.add(labels(suffix))
		n.wildcard = addFirst(n.wildcard, suffix, v)
	default:
		n.exact = addFirst(n.exact, pattern, v)
	}
}

func addFirst[T any](m map[string]*T, k string, v *T) map[string]*T {
	if m == nil {
		m = map[string]*T{}
	}
	if m[k] == nil {
		m[k] = v
	}
	return m
}

// each calls yield with the values whose patterns match a host, the most specific first, until yield returns false.
func (n *names[T]) each(host string, yield func(*T) bool) {
	if v := n.exact[host]; v != nil && !yield(v) {
		return
	}
	if len(n.wildcard) > 0 && !n.eachWildcard(host, yield) {
		return
	}
	if n.any != nil {
		yield(n.any)
	}
}

func (n *names[T]) eachWildcard(host string, yield func(*T) bool) bool {
	for depth := labels(host) - 1; depth > 0; depth-- {
		host = host[strings.IndexByte(host, '.')+1:]
		if n.depths.has(depth) {
			if v := n.wildcard[host]; v != nil && !yield(v) {
				return false
			}
		}
		if n.oneLabel {
			break
		}
	}
	return true
}

// find returns the value with the most specific matching pattern, or nil.
func (n *names[T]) find(host string) (v *T) {
	n.each(host, func(x *T) bool { v = x; return false })
	return v
}

// labels is the number of labels of a host name.
func labels(host string) int { return strings.Count(host, ".") + 1 }

// pathIndex finds the rules of a host by path. What it asks, in which order, is the order of precedence: Rule.Compare sorts the rules of one path, and the paths
// are asked from exact over regular expressions to the longest and the shortest prefix. Before all of them a gRPC request is asked the rules that are for gRPC alone.
type pathIndex struct {
	exact  map[string][]*Rule
	regex  []regexRule
	prefix prefixNode // for the prefix "/"
	last   []*Rule    // default backends
	grpc   *grpcIndex // nil: no rule is for gRPC alone
}

// regexRule is a rule with the literal that every path that it matches starts with; most requests need not run the expression.
type regexRule struct {
	literal string
	rule    *Rule
}

// prefixNode is a prefix in a tree of path elements. A lookup descends along the elements of the path until there is no such child, so that its cost is bounded
// by the longest prefix that matches, however long the path is; then it climbs up again, from the longest prefix to the shortest.
type prefixNode struct {
	rules []*Rule
	up    *prefixNode // the next shorter prefix that has rules
	next  map[string]*prefixNode
}

// add puts a rule into the index. Rules must be added in the order of precedence, and then seal called.
func (x *pathIndex) add(r *Rule) {
	m := &r.Match.Path
	switch {
	case r.Order.Last:
		x.last = append(x.last, r)
	case r.Match.GRPC != nil:
		if x.grpc == nil {
			x.grpc = &grpcIndex{}
		}
		x.grpc.add(r)
	case m.Kind == Exact:
		if x.exact == nil {
			x.exact = map[string][]*Rule{}
		}
		x.exact[m.Value] = append(x.exact[m.Value], r)
	case m.Kind == Regex:
		x.regex = append(x.regex, regexRule{literalPrefix(m.Regex), r})
	default:
		n := x.prefix.at(m.key())
		n.rules = append(n.rules, r)
	}
}

// at returns the node of a prefix, made if need be.
func (n *prefixNode) at(key string) *prefixNode {
	if key == "" {
		return n
	}
	for element := range strings.SplitSeq(key[1:], "/") {
		next := n.next[element]
		if next == nil {
			next = &prefixNode{}
			if n.next == nil {
				n.next = map[string]*prefixNode{}
			}
			n.next[element] = next
		}
		n = next
	}
	return n
}

// seal sets the up pointers below n.
func (n *prefixNode) seal() {
	up := n
	if len(n.rules) == 0 {
		up = n.up
	}
	for _, c := range n.next {
		c.up = up
		c.seal()
	}
}

// deepest returns the node of the longest known prefix of a path. It may have no rules of its own.
func (n *prefixNode) deepest(path string) *prefixNode {
	for path != "" && n.next != nil {
		path = path[1:]
		end := strings.IndexByte(path, '/')
		if end < 0 {
			end = len(path)
		}
		next := n.next[path[:end]]
		if next == nil {
			break
		}
		n, path = next, path[end:]
	}
	return n
}

func (x *pathIndex) lookup(r *Request) *Rule {
	if x.grpc != nil && r.isGRPC() {
		if rule := x.grpc.lookup(r); rule != nil {
			return rule
		}
	}
	if rule := first(x.exact[r.Path], r); rule != nil {
		return rule
	}
	for i := range x.regex {
		c := &x.regex[i]
		if strings.HasPrefix(r.Path, c.literal) && c.rule.Match.Path.matches(r.Path) && c.rule.Match.matchesRest(r) {
			return c.rule
		}
	}
	for n := x.prefix.deepest(r.Path); n != nil; n = n.up {
		if rule := first(n.rules, r); rule != nil {
			return rule
		}
	}
	return x.lookupLast(r)
}

func (x *pathIndex) lookupLast(r *Request) *Rule {
	i := slices.IndexFunc(x.last, func(rule *Rule) bool { return rule.Match.matches(r) })
	if i < 0 {
		return nil
	}
	return x.last[i]
}

// first returns the first of some rules with the same path whose other conditions the request meets.
func first(rules []*Rule, r *Request) *Rule {
	for _, rule := range rules {
		if rule.Match.matchesRest(r) {
			return rule
		}
	}
	return nil
}
