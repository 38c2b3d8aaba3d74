package compile

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// bindPorts says who has which of the ports that the listeners of Gateways are bound to. What a Service of ours lists is taken as long as it lists it, whether
// or not a listener is behind it any more: until then somebody may still send requests there that are meant for another.
type bindPorts struct {
	from, to uint16
	taken    map[transportPort]bool
	tcp, udp uint16 // nothing below is free
}

// take returns the lowest free port, of UDP or of TCP.
func (p *bindPorts) take(udp bool) (uint16, bool) {
	next := &p.tcp
	if udp {
		next = &p.udp
	}
	for ; *next <= p.to; *next++ {
		if at := (transportPort{*next, udp}); !p.taken[at] {
			p.taken[at] = true
			return *next, true
		}
		if *next == p.to {
			break // which may be the last number there is
		}
	}
	return 0, false
}

// claim takes the ports that a Service lists, and returns those that nobody took before, by the port that leads to them.
func (p *bindPorts) claim(s *corev1.Service) map[transportPort]uint16 {
	own := make(map[transportPort]uint16, len(s.Spec.Ports))
	ports := slices.SortedFunc(slices.Values(s.Spec.Ports), func(a, b corev1.ServicePort) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
	})
	for i := range ports {
		port, bind, ok := recorded(&ports[i])
		at := transportPort{bind, port.udp}
		if !ok || bind < p.from || bind > p.to || p.taken[at] {
			continue
		}
		p.taken[at] = true
		if _, twice := own[port]; !twice {
			own[port] = bind
		}
	}
	return own
}

// recorded reads which port is bound for which from the port of a Service.
func recorded(p *corev1.ServicePort) (port transportPort, bind uint16, ok bool) {
	from, to := p.Port, p.TargetPort.IntVal
	if !isTCP(p.Protocol) && !isUDP(p.Protocol) || p.TargetPort.Type != intstr.Int ||
		from < 1 || from > math.MaxUint16 || to < 1 || to > math.MaxUint16 {
		return port, 0, false
	}
	return transportPort{uint16(from), isUDP(p.Protocol)}, uint16(to), true
}

// bindPorts reads the record: the Services in Fairlead's namespace. Where two list the same port, which only a person can bring about, the one that leads to a
// Gateway keeps it, then the older.
func (c *compiler) bindPorts(gateways []*gateway) *bindPorts {
	o := c.opt.Cluster
	p := &bindPorts{from: o.BindFrom, to: o.BindTo, taken: make(map[transportPort]bool), tcp: o.BindFrom, udp: o.BindFrom}
	p.taken[transportPort{number: c.opt.bindPort(c.opt.HTTPPort)}] = true
	p.taken[transportPort{number: c.opt.bindPort(c.opt.HTTPSPort)}] = true

	leads := make(map[*corev1.Service]*gateway, len(gateways))
	var records []*corev1.Service
	for _, g := range gateways {
		if g.service != nil {
			leads[g.service] = g
			records = append(records, g.service)
		}
	}
	slices.SortFunc(records, func(a, b *corev1.Service) int { return object.Older(a, b) })
	for _, s := range records {
		leads[s].recorded = p.claim(s)
	}
	for _, s := range c.ourServices {
		if s.Namespace == o.Namespace && leads[s] == nil {
			p.claim(s)
		}
	}
	return p
}

// assignBinds decides which port each listener of a cluster's Gateways is bound to, the older Gateway before the newer. Every port of every Gateway has its own,
// which the listeners on that port share.
func (c *compiler) assignBinds(gateways []*gateway) {
	pool := c.bindPorts(gateways)
	for _, g := range gateways {
		if !g.accepted.ok() {
			continue
		}
		ports := make(map[transportPort][]*listener)
		for _, l := range g.listeners {
			if l.port != 0 {
				ports[l.transportPort()] = append(ports[l.transportPort()], l)
			}
		}
		for _, port := range slices.SortedFunc(maps.Keys(ports), transportPort.compare) {
			c.assignBind(g, port, ports[port], pool)
		}
	}
}

// assignBind decides which port is bound for the listeners that a Gateway has on one port. Listeners that are not accepted need none, but keep the one that they
// have: once their author has mended them, they are where they were.
func (c *compiler) assignBind(g *gateway, port transportPort, listeners []*listener, pool *bindPorts) {
	i := slices.IndexFunc(listeners, func(l *listener) bool { return l.accepted.ok() })
	bind, known := g.recorded[port]
	if i < 0 && !known {
		return
	}
	var pending verdict
	if !known {
		bind, pending = c.newBind(g, port, listeners[i], pool)
	}
	for _, l := range listeners {
		l.port, l.pending = bind, pending
	}
	if bind == 0 {
		return
	}
	protocol := g.protocolBefore(port)
	if i >= 0 {
		protocol = listeners[i].protocol
	}
	if slices.ContainsFunc(listeners, func(l *listener) bool { return l.accepted.ok() && l.protocol == route.TLS }) {
		protocol = route.TLS // that some of it is HTTPS is nothing that a load balancer could make use of
	}
	g.ports = append(g.ports, ServicePort{
		Name: portName(protocol, port), Port: port.number, UDP: port.udp, Bind: bind, AppProtocol: appProtocol(protocol), Recorded: known,
	})
}

// portName is what a Service calls a port.
func portName(protocol route.Protocol, port transportPort) string {
	if protocol == "" && port.udp {
		protocol = route.UDP
	}
	return fmt.Sprintf("%s-%d", cmp.Or(protocol, "port"), port.number)
}

// appProtocol is what a Service says about a port for load balancers that look into what they pass on. There is nothing to say where that is not HTTP.
func appProtocol(protocol route.Protocol) string {
	if protocol == route.HTTP || protocol == route.HTTPS {
		return string(protocol)
	}
	return ""
}

// newBind takes a port for listeners that had none, and says what they wait for. It returns 0 if there is none.
func (c *compiler) newBind(g *gateway, port transportPort, first *listener, pool *bindPorts) (uint16, verdict) {
	reason := string(gatewayv1.ListenerReasonPending)
	bind, ok := pool.take(port.udp)
	if !ok {
		v := verdict{reason, fmt.Sprintf("all ports from %d to %d are bound for other listeners", pool.from, pool.to)}
		c.problems.add(Error, first.parent.ref, first.field, "NoBindPort", "%s; the configuration must allow more", v.Message)
		if g.service == nil {
			g.addressed = verdict{string(gatewayv1.GatewayReasonNoResources), v.Message} // it does not get a Service with an address either
		}
		return 0, v
	}
	return bind, verdict{reason, fmt.Sprintf("Service %s does not lead port %d to %d yet", g.record, port.number, bind)}
}

// protocolBefore returns what was spoken on a port that the Service of a Gateway lists, "" if nobody knows.
func (g *gateway) protocolBefore(port transportPort) route.Protocol {
	if g.service == nil {
		return ""
	}
	for _, protocol := range []route.Protocol{route.HTTP, route.HTTPS, route.TLS, route.TCP, route.UDP} {
		if slices.ContainsFunc(g.service.Spec.Ports, func(p corev1.ServicePort) bool { return p.Name == portName(protocol, port) }) {
			return protocol
		}
	}
	return ""
}
