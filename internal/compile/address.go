package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// maxStatusAddresses is how many addresses the status of a Gateway can hold.
const maxStatusAddresses = 16

// assignAddresses decides which addresses each Gateway has. The Gateways come oldest first, and the older has its wish fulfilled first.
func (c *compiler) assignAddresses(gateways []*gateway) {
	if c.opt.Cluster != nil {
		c.clusterAddresses(gateways)
		return
	}
	pool := addressPool{prefix: c.opt.GatewayAddresses.Masked(), owner: make(map[netip.Addr]object.Ref), shared: c.sharedAddresses()}
	for _, g := range gateways {
		if wishes := g.obj.Spec.Addresses; len(wishes) > 0 {
			c.fulfil(g, wishes, &pool)
		} else {
			c.assignAny(g, &pool)
		}
	}
}

// assignAny gives addresses to a Gateway that asks for none in particular.
func (c *compiler) assignAny(g *gateway, pool *addressPool) {
	if !pool.prefix.IsValid() {
		g.binds = []string{""}
		for _, a := range pool.shared {
			g.publish(a)
		}
		return
	}
	if addr, ok := pool.take(g.ref); ok {
		g.own(addr)
		return
	}
	c.unaddressed(g, "spec", gatewayv1.GatewayReasonAddressNotAssigned,
		"all addresses of %s are taken by older Gateways; a larger range is needed", pool.prefix)
}

// fulfil gives a Gateway the addresses that its spec asks for, as far as possible.
func (c *compiler) fulfil(g *gateway, wishes []gatewayv1.GatewaySpecAddress, pool *addressPool) {
	for i, wish := range wishes {
		field := fmt.Sprintf("spec.addresses[%d]", i)
		typ := addressType(wish)
		switch {
		case typ != gatewayv1.IPAddressType && typ != gatewayv1.HostnameAddressType:
			c.rejectGateway(g, field+".type", gatewayv1.GatewayReasonUnsupportedAddress,
				"address type %q is not supported; IPAddress and Hostname are", typ)
		case pool.prefix.IsValid():
			c.fulfilOwn(g, field, typ, wish.Value, pool)
		default:
			c.fulfilShared(g, field, typ, wish.Value, pool)
		}
	}
}

func addressType(a gatewayv1.GatewaySpecAddress) gatewayv1.AddressType {
	if a.Type == nil {
		return gatewayv1.IPAddressType
	}
	return *a.Type
}

// fulfilOwn handles one wish where each Gateway has addresses of its own.
func (c *compiler) fulfilOwn(g *gateway, field string, typ gatewayv1.AddressType, value string, pool *addressPool) {
	if typ == gatewayv1.HostnameAddressType {
		reason := gatewayv1.GatewayReasonAddressNotUsable
		if value == "" {
			reason = gatewayv1.GatewayReasonAddressNotAssigned
		}
		c.unaddressed(g, field, reason, "Gateways have addresses from %s here, and no host names", pool.prefix)
		return
	}
	if value == "" {
		c.assignAny(g, pool)
		return
	}
	addr, err := netip.ParseAddr(value)
	switch {
	case err != nil:
		c.unaddressed(g, field, gatewayv1.GatewayReasonAddressNotUsable, "%q is not an IP address", value)
	case !pool.usable(addr):
		c.unaddressed(g, field, gatewayv1.GatewayReasonAddressNotUsable, "%s is not an address that Gateways may have here; those are in %s", value, pool.prefix)
	case pool.owner[addr] != object.Ref{} && pool.owner[addr] != g.ref:
		c.unaddressed(g, field, gatewayv1.GatewayReasonAddressNotUsable, "%s is taken by the older %s", value, pool.owner[addr])
	case pool.owner[addr] == object.Ref{}:
		pool.owner[addr] = g.ref
		g.own(addr)
	}
}

// fulfilShared handles one wish where all Gateways share the addresses that are published.
func (c *compiler) fulfilShared(g *gateway, field string, typ gatewayv1.AddressType, value string, pool *addressPool) {
	have := slices.DeleteFunc(slices.Clone(pool.shared), func(a string) bool { return typeOfAddress(a) != typ })
	i := slices.IndexFunc(have, func(a string) bool { return value == "" || sameAddress(a, value) })
	switch {
	case i >= 0:
		g.binds = []string{""}
		g.publish(have[i])
	case value == "":
		c.unaddressed(g, field, gatewayv1.GatewayReasonAddressNotAssigned, "no address of type %s is published here", typ)
	case len(have) == 0:
		c.unaddressed(g, field, gatewayv1.GatewayReasonAddressNotUsable, "%s is not an address of this Gateway: no address of type %s is published here", value, typ)
	default:
		c.unaddressed(g, field, gatewayv1.GatewayReasonAddressNotUsable, "%s is not an address of this Gateway, which has %s", value, list(have))
	}
}

// unaddressed notes why an address is missing. What else the Gateway has got it keeps.
func (c *compiler) unaddressed(g *gateway, field string, reason gatewayv1.GatewayConditionReason, format string, args ...any) {
	v := verdict{string(reason), fmt.Sprintf(format, args...)}
	c.problems.add(Error, g.ref, field, v.Reason, "%s", v.Message)
	g.addressed = g.addressed.or(v)
}

func typeOfAddress(a string) gatewayv1.AddressType {
	if _, err := netip.ParseAddr(a); err == nil {
		return gatewayv1.IPAddressType
	}
	return gatewayv1.HostnameAddressType
}

// sameAddress compares host names without regard to case, and IP addresses as numbers.
func sameAddress(a, b string) bool {
	x, err1 := netip.ParseAddr(a)
	y, err2 := netip.ParseAddr(b)
	return strings.EqualFold(a, b) || err1 == nil && err2 == nil && x == y
}

// addressPool hands out the addresses of a range, the lowest first.
type addressPool struct {
	prefix netip.Prefix // invalid: there is no range, Gateways share
	shared []string     // what they share then
	owner  map[netip.Addr]object.Ref
	next   netip.Addr // nothing below is free
}

// take returns the lowest free address.
func (p *addressPool) take(by object.Ref) (netip.Addr, bool) {
	if !p.next.IsValid() {
		p.next = p.prefix.Addr()
	}
	for ; p.prefix.Contains(p.next); p.next = p.next.Next() {
		if _, taken := p.owner[p.next]; !taken && p.usable(p.next) {
			p.owner[p.next] = by
			return p.next, true
		}
	}
	return netip.Addr{}, false
}

// usable tells whether an address of the range can be a host's: the first names the network (or in IPv6 its routers) and the last is for broadcast in IPv4,
// unless the range is so small that it has hosts only.
func (p *addressPool) usable(a netip.Addr) bool {
	if !p.prefix.Contains(a) {
		return false
	}
	if a.BitLen()-p.prefix.Bits() < 2 {
		return true
	}
	first := a == p.prefix.Addr()
	last := a.Is4() && !p.prefix.Contains(a.Next())
	return !first && !last
}
