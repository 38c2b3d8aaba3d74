package route

import "cmp"

// rank orders the kinds of path match: Exact before Regex before Prefix. Gateway API leaves the place of regular expressions open; here they come before
// prefixes, because a prefix "/" that was meant as the rest would otherwise have to be weighed against their length.
func (k PathKind) rank() int {
	switch k {
	case Exact:
		return 0
	case Regex:
		return 1
	default:
		return 2
	}
}

// length is the number of characters that count for precedence. The trailing slash of a prefix means nothing, so it does not count either; and all exact
// matches are alike, because two different ones never match the same path.
func (m PathMatch) length() int {
	switch m.Kind {
	case Exact:
		return 0
	case Regex:
		return len(m.Value)
	default:
		return len(m.key())
	}
}

// Compare orders matches by precedence, as Gateway API has it (HTTPRouteRule.matches): it is negative when m is asked before n. Exact paths come first, then
// regular expressions, then prefixes; longer prefixes (and expressions) before shorter ones; then a method before none; then more headers; then more query
// parameters. Zero means that the specification falls back to the routes' age and name: see Rule.Compare.
//
// What is for gRPC alone comes before the rest, and among its like the name of the service decides first: see GRPCMatch.Compare.
func (m Match) Compare(n Match) int {
	return cmp.Or(
		m.GRPC.Compare(n.GRPC),
		cmp.Compare(m.Path.Kind.rank(), n.Path.Kind.rank()),
		cmp.Compare(n.Path.length(), m.Path.length()),
		compareBool(n.Method != "", m.Method != ""),
		cmp.Compare(len(n.Headers), len(m.Headers)),
		cmp.Compare(len(n.Query), len(m.Query)),
	)
}

// Compare orders the rules of one host by precedence: it is negative when r is asked before q. Default backends (Order.Last) come after everything else; then
// Match.Compare decides; then the older object, the alphabetical order of namespace and name, and the place in the object.
func (r *Rule) Compare(q *Rule) int {
	return cmp.Or(
		compareBool(r.Order.Last, q.Order.Last),
		r.Match.Compare(q.Match),
		r.Order.Created.Compare(q.Order.Created),
		r.Source.compareObject(q.Source),
		cmp.Compare(r.Order.Rule, q.Order.Rule),
		cmp.Compare(r.Order.Match, q.Order.Match),
	)
}

// Compare orders sources by kind, namespace, name and field.
func (s Source) Compare(o Source) int {
	return cmp.Or(
		cmp.Compare(s.Kind, o.Kind),
		cmp.Compare(s.Namespace, o.Namespace),
		cmp.Compare(s.Name, o.Name),
		cmp.Compare(s.Field, o.Field),
	)
}

// compareObject orders the objects of two sources by the text "{namespace}/{name}", as Gateway API says, in which shop-canary/x comes before shop/x, because "-"
// comes before "/".
func (s Source) compareObject(o Source) int {
	if s.Namespace == o.Namespace {
		return cmp.Compare(s.Name, o.Name)
	}
	return cmp.Compare(s.Namespace+"/", o.Namespace+"/")
}

// Compare orders binds by address, then port; the default address comes first.
func (b Bind) Compare(o Bind) int {
	return cmp.Or(cmp.Compare(b.Address, o.Address), cmp.Compare(b.Port, o.Port), compareBool(b.UDP, o.UDP))
}

// Compare orders pools by kind, namespace, Service, port and variant. Those of Services come first.
func (k PoolKey) Compare(o PoolKey) int {
	return cmp.Or(
		cmp.Compare(k.Kind, o.Kind),
		cmp.Compare(k.Namespace, o.Namespace),
		cmp.Compare(k.Service, o.Service),
		cmp.Compare(k.Port, o.Port),
		cmp.Compare(k.Variant, o.Variant),
		compareBool(k.UDP, o.UDP),
	)
}

// compareBool orders false before true.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}
