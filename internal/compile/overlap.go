package compile

import (
	"strings"

	"github.com/fairlead-io/fairlead/internal/route"
)

// findOverlaps finds HTTPS listeners of one bind with hostnames that some name matches both of. That is allowed, the more specific one gets the request, but
// clients that reuse a connection for another name may meet the wrong listener (GEP-3567), so that their status says so.
func findOverlaps(gateways []*gateway) {
	binds := make(map[route.Bind]map[string]*listener)
	var order []*listener
	for _, g := range gateways {
		for _, l := range g.listeners {
			if l.protocol != route.HTTPS || len(l.open) == 0 {
				continue
			}
			order = append(order, l)
			for _, address := range g.binds {
				bind := route.Bind{Address: address, Port: l.port}
				if binds[bind] == nil {
					binds[bind] = make(map[string]*listener)
				}
				binds[bind][l.hostname] = l
			}
		}
	}
	for _, l := range order {
		for _, address := range l.gateway.binds {
			l.markOverlaps(binds[route.Bind{Address: address, Port: l.port}])
		}
	}
}

// markOverlaps marks l and each listener with a wider hostname that l's is part of.
func (l *listener) markOverlaps(hostnames map[string]*listener) {
	for name := range wider(l.hostname) {
		if other := hostnames[name]; other != nil {
			if l.overlap == "" {
				l.overlap = other.toldTo(l.parent)
			}
			if other.overlap == "" {
				other.overlap = l.toldTo(other.parent)
			}
		}
	}
}

// wider yields the wildcards that stand for hostname and more, and then the empty hostname, which stands for all.
func wider(hostname string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		if hostname == "" {
			return
		}
		rest := strings.TrimPrefix(hostname, "*")
		rest = strings.TrimPrefix(rest, ".")
		for {
			dot := strings.IndexByte(rest, '.')
			if dot < 0 {
				break
			}
			if !yield("*" + rest[dot:]) {
				return
			}
			rest = rest[dot+1:]
		}
		yield("")
	}
}
