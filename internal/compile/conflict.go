package compile

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/route"
)

// resolveClashes finds listeners that ask for the same: a request must belong to one listener only. Inside a Gateway nobody wins, because its author has to
// say what is meant; so it is inside a ListenerSet. Between a Gateway and its ListenerSets, and between Gateways that share an address, the one that comes first
// wins, because it served first and must not be robbed by a newer one.
func (c *compiler) resolveClashes(gateways []*gateway) {
	taken := make(map[*gateway]claims)
	for _, p := range inPrecedence(gateways) {
		var among *gateway // all of them
		if c.opt.Cluster != nil {
			among = p.gateway // for every Gateway has ports of its own
		}
		if taken[among] == nil {
			taken[among] = make(claims)
		}
		c.claimAll(taken[among], p)
	}
	if c.opt.Cluster != nil {
		c.assignBinds(gateways)
	}
}

// claimAll takes for the listeners of a parent what they ask for. What a ListenerSet cannot have anyway does not make its other listeners clash.
func (c *compiler) claimAll(taken claims, p *parent) {
	accepted := p.gateway.accepted.ok()
	if p.added() && accepted {
		for _, l := range p.entries {
			c.yield(taken, l)
		}
	}
	c.clashesWithin(p)
	if accepted {
		for _, l := range p.entries {
			c.claim(taken, l)
		}
	}
}

// clashesWithin finds the clashes between the listeners of one parent.
func (c *compiler) clashesWithin(p *parent) {
	ports := make(map[transportPort][]*listener)
	for _, l := range p.entries {
		if l.accepted.ok() {
			ports[l.transportPort()] = append(ports[l.transportPort()], l)
		}
	}
	for _, port := range slices.SortedFunc(maps.Keys(ports), transportPort.compare) {
		if same := ports[port]; len(same) > 1 {
			c.clashesOnPort(same)
		}
	}
}

// clashesOnPort finds the clashes between listeners that one parent has on one port.
func (c *compiler) clashesOnPort(same []*listener) {
	hostnames := make(map[string][]*listener)
	for _, l := range same {
		if !sharePort(l.protocol, same[0].protocol) {
			c.clashAll(same, gatewayv1.ListenerReasonProtocolConflict, "a port can speak one protocol only")
			return
		}
		hostnames[l.hostname] = append(hostnames[l.hostname], l)
	}
	for _, name := range slices.Sorted(maps.Keys(hostnames)) {
		if rivals := hostnames[name]; len(rivals) > 1 {
			c.clashAll(rivals, gatewayv1.ListenerReasonHostnameConflict, sameClaim(rivals[0]))
		}
	}
}

// sameClaim says what makes it impossible to tell two listeners of a port apart.
func sameClaim(l *listener) string {
	if l.mode == route.Raw {
		return "they have the same port"
	}
	return "they have the same port and hostname"
}

// transportPort is a port number of TCP or of UDP, which have nothing to do with each other.
type transportPort struct {
	number uint16
	udp    bool
}

func (p transportPort) compare(q transportPort) int {
	return route.Bind{Port: p.number, UDP: p.udp}.Compare(route.Bind{Port: q.number, UDP: q.udp})
}

// transportPort is the port of a listener; where it is bound, once that is known.
func (l *listener) transportPort() transportPort {
	return transportPort{l.port, l.protocol == route.UDP}
}

func (c *compiler) clashAll(rivals []*listener, reason gatewayv1.ListenerConditionReason, why string) {
	names := make([]string, len(rivals))
	for i, l := range rivals {
		names[i] = fmt.Sprintf("%s (%s)", l.name, l.wants())
	}
	for _, l := range rivals {
		c.clash(l, reason, "the listeners %s clash: %s; none of them is served", list(names), why)
	}
}

// clash notes that a listener lost what it asked for.
func (c *compiler) clash(l *listener, reason gatewayv1.ListenerConditionReason, format string, args ...any) {
	l.conflicted = verdict{string(reason), fmt.Sprintf(format, args...)}
	l.accepted = verdict{string(reason), "it clashes with another listener"}
	c.problems.add(Error, l.parent.ref, l.field, string(reason), "%s", l.conflicted.Message)
}

// wants says what a listener asks for.
func (l *listener) wants() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s on port %d", l.spec.Protocol, l.spec.Port)
	if int32(l.port) != l.spec.Port {
		fmt.Fprintf(&b, ", here %d,", l.port)
	}
	if l.hostname != "" {
		fmt.Fprintf(&b, " for %s", l.hostname)
	}
	return strings.TrimSuffix(b.String(), ",")
}

// claims are what was taken so far.
type claims map[route.Bind]*claim

// claim is what was taken so far of one bind.
type claim struct {
	first     *listener // which decided the protocol
	hostnames map[string]*listener
}

// yield turns a listener down that asks for what another has.
func (c *compiler) yield(taken claims, l *listener) {
	for _, address := range l.gateway.binds {
		held := taken[l.bind(address)]
		if held == nil || !l.accepted.ok() {
			continue
		}
		if winner := held.first; !sharePort(winner.protocol, l.protocol) {
			c.clash(l, gatewayv1.ListenerReasonProtocolConflict, "%s is taken by %s, which comes first and speaks %s", l.wants(), winner.toldTo(l.parent), winner.spec.Protocol)
		} else if winner := held.hostnames[l.hostname]; winner != nil {
			c.clash(l, gatewayv1.ListenerReasonHostnameConflict, "%s is taken by %s, which comes first", l.wants(), winner.toldTo(l.parent))
		}
	}
}

// claim takes for a listener what it asks for, unless another has it.
func (c *compiler) claim(taken claims, l *listener) {
	c.yield(taken, l)
	if !l.accepted.ok() {
		return
	}
	for _, address := range l.gateway.binds {
		bind := l.bind(address)
		if taken[bind] == nil {
			taken[bind] = &claim{first: l, hostnames: make(map[string]*listener)}
		}
		taken[bind].hostnames[l.hostname] = l
	}
}
