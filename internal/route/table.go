package route

import (
	"cmp"
	"slices"
	"strings"
)

// NewTable makes a table: it sorts everything into the order in which Lookup asks and String prints, joins hosts of one listener that have the same name, and
// builds the indexes. The order of the arguments does not matter.
//
// It takes ownership of the ports, their listeners and hosts, and of the slices; those must not be part of another table. Rules and pools are only read, and may
// be shared by several hosts and several tables.
//
// Of two ports with the same Bind, two listeners of a port with the same Hostname, or two last-resort listeners, the first in the order is asked and the others
// never are: the compiler has decided such clashes before.
func NewTable(ports []*Port, pools []*Pool, rejected []Rejected) *Table {
	slices.SortFunc(ports, func(a, b *Port) int {
		return cmp.Or(a.Bind.Compare(b.Bind), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(len(a.Listeners), len(b.Listeners)))
	})
	slices.SortFunc(pools, func(a, b *Pool) int { return cmp.Or(a.Key.Compare(b.Key), cmp.Compare(a.Protocol, b.Protocol)) })
	pools = slices.CompactFunc(pools, func(a, b *Pool) bool { return a.Key == b.Key })
	slices.SortFunc(rejected, func(a, b Rejected) int {
		return cmp.Or(a.Source.Compare(b.Source), slices.Compare(a.Hostnames, b.Hostnames), cmp.Compare(a.Why, b.Why))
	})
	t := &Table{Ports: ports, Pools: pools, Rejected: rejected, ports: make(map[Bind]*Port, len(ports))}
	for _, p := range ports {
		p.build()
		if t.ports[p.Bind] == nil {
			t.ports[p.Bind] = p
		}
	}
	return t
}

// Port returns the port of a bind, or nil if nothing is served there.
func (t *Table) Port(b Bind) *Port { return t.ports[b] }

func (p *Port) build() {
	slices.SortFunc(p.Listeners, func(a, b *Listener) int {
		return cmp.Or(
			compareBool(a.LastResort, b.LastResort),
			compareNames(a.Hostname, b.Hostname),
			cmp.Compare(a.Name, b.Name),
			a.Source.Compare(b.Source),
		)
	})
	for _, l := range p.Listeners {
		l.build()
		switch {
		case !l.LastResort:
			p.index.add(l.Hostname, l)
		case p.lastResort == nil:
			p.lastResort = l
		}
	}
}

func (l *Listener) build() {
	slices.SortStableFunc(l.Hosts, func(a, b *Host) int { return compareNames(a.Name, b.Name) })
	l.Hosts = joinHosts(l.Hosts)
	l.index.oneLabel = l.OneLabelWildcards
	for _, h := range l.Hosts {
		h.build()
		l.index.add(h.Name, h)
	}
}

// joinHosts joins neighbours with the same name.
func joinHosts(hosts []*Host) []*Host {
	joined := hosts[:0]
	for _, h := range hosts {
		if n := len(joined); n > 0 && joined[n-1].Name == h.Name {
			joined[n-1].Rules = slices.Concat(joined[n-1].Rules, h.Rules)
			continue
		}
		joined = append(joined, h)
	}
	clear(hosts[len(joined):])
	return joined
}

func (h *Host) build() {
	slices.SortFunc(h.Rules, compareRules)
	for _, r := range h.Rules {
		h.index.add(r)
	}
	h.index.prefix.seal()
}

// compareRules is Rule.Compare, and where two rules are equal in everything that it looks at, an arbitrary but fixed order.
func compareRules(a, b *Rule) int {
	if c := a.Compare(b); c != 0 || a == b {
		return c
	}
	if c := a.Source.Compare(b.Source); c != 0 {
		return c
	}
	return strings.Compare(a.String(), b.String())
}

// compareNames orders host name patterns by specificity: exact names, then wildcards, the longer first, then any; alphabetically among equals.
func compareNames(a, b string) int {
	return cmp.Or(
		cmp.Compare(nameRank(a), nameRank(b)),
		cmp.Compare(nameLength(b), nameLength(a)),
		cmp.Compare(a, b),
	)
}

func nameRank(name string) int {
	switch {
	case name == "":
		return 2
	case strings.HasPrefix(name, "*."):
		return 1
	default:
		return 0
	}
}

// nameLength is what makes a wildcard more specific than another; exact names are all alike.
func nameLength(name string) int {
	if nameRank(name) == 1 {
		return len(name)
	}
	return 0
}
