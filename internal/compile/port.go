package compile

import (
	"cmp"
	"iter"
	"maps"
	"slices"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// port returns the table's port for a bind, made if need be. It returns nil when the bind is already in use for another protocol. HTTPS and TLS share a port: what
// a connection asks for tells them apart.
func (c *compiler) port(b route.Bind, protocol route.Protocol) *route.Port {
	p, ok := c.tables[b]
	if !ok {
		p = &route.Port{Bind: b, Protocol: protocol}
		c.tables[b] = p
	}
	if !sharePort(p.Protocol, protocol) {
		return nil
	}
	if protocol == route.TLS {
		p.Protocol = route.TLS
	}
	return p
}

// sharePort tells whether listeners of two protocols can have one port.
func sharePort(a, b route.Protocol) bool {
	secure := func(p route.Protocol) bool { return p == route.HTTPS || p == route.TLS }
	return a == b || secure(a) && secure(b)
}

// result assembles what the other files left behind. Everything in it is sorted, so that neither the order of maps nor that of objects shows.
func (c *compiler) result() Result {
	ports := make([]*route.Port, 0, len(c.tables))
	for _, p := range c.tables {
		ports = append(ports, p)
	}
	slices.SortStableFunc(c.certs, func(a, b route.Certificate) int {
		return cmp.Or(a.Bind.Compare(b.Bind), cmp.Compare(a.Hostname, b.Hostname), a.Source.Compare(b.Source))
	})
	return Result{
		Table:        route.NewTable(ports, usedPools(ports), c.rejected),
		Certificates: c.certs,
		Orders:       c.confirmedOrders(),
		Status:       c.status,
		Problems:     c.problems.sorted(),

		Infrastructure: c.infrastructure,
		ConfigMaps:     c.readConfigMaps(),
		Secrets:        slices.SortedFunc(maps.Keys(c.pairs), object.Key.Compare),
	}
}

// usedPools returns the pools that rules name. A route that is served nowhere may have named others, whose endpoints nobody needs to know.
func usedPools(ports []*route.Port) []*route.Pool {
	used := make(map[*route.Pool]bool)
	for _, p := range ports {
		for _, l := range p.Listeners {
			for pool := range poolsOf(l) {
				used[pool] = true
			}
		}
	}
	return slices.Collect(maps.Keys(used))
}

// replacePools puts other pools in the place of those that the rules of a listener name. The rules are the listener's own, but what they hold may not be.
func replacePools(l *route.Listener, replace func(*route.Pool) *route.Pool) {
	done := make(map[*route.Rule]bool) // rules of a listener may be in several of its hosts
	for _, h := range l.Hosts {
		for _, r := range h.Rules {
			if done[r] {
				continue
			}
			done[r] = true
			r.Filters = replaceFilterPools(r.Filters, replace)
			r.Backends = slices.Clone(r.Backends)
			for i := range r.Backends {
				b := &r.Backends[i]
				if b.Pool != nil {
					b.Pool = replace(b.Pool)
				}
				b.Filters = replaceFilterPools(b.Filters, replace)
			}
		}
	}
}

// replaceFilterPools returns filters that send to other pools in the place of those that they sent to.
func replaceFilterPools(filters []route.Filter, replace func(*route.Pool) *route.Pool) []route.Filter {
	out := slices.Clone(filters)
	for i, f := range out {
		switch f := f.(type) {
		case *route.Mirror:
			other := *f
			other.Pool = replace(f.Pool)
			out[i] = &other
		case *route.ExternalAuth:
			if f.Pool != nil {
				other := *f
				other.Pool = replace(f.Pool)
				out[i] = &other
			}
		}
	}
	return out
}

// poolsOf yields the pools that the rules of a listener name, each once for every rule.
func poolsOf(l *route.Listener) iter.Seq[*route.Pool] {
	return func(yield func(*route.Pool) bool) {
		for _, h := range l.Hosts {
			for _, r := range h.Rules {
				if !eachFilterPool(r.Filters, yield) {
					return
				}
				for i := range r.Backends {
					b := &r.Backends[i]
					if b.Pool != nil && !yield(b.Pool) || !eachFilterPool(b.Filters, yield) {
						return
					}
				}
			}
		}
	}
}

// eachFilterPool yields the pools that filters send something to.
func eachFilterPool(filters []route.Filter, yield func(*route.Pool) bool) bool {
	for _, f := range filters {
		var pool *route.Pool
		switch f := f.(type) {
		case *route.Mirror:
			pool = f.Pool
		case *route.ExternalAuth:
			pool = f.Pool
		}
		if pool != nil && !yield(pool) {
			return false
		}
	}
	return true
}
