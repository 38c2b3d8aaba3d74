package compile

import (
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// podNodes are the nodes on which the endpoints of a Service are: those that are ready, or all of them if none is, since the first one to start must not take back
// what the one before it has shown.
func (c *compiler) podNodes(service object.Key) map[string]bool {
	ready, every := map[string]bool{}, map[string]bool{}
	for _, slice := range c.in.EndpointSlices[service] {
		if slice == nil {
			continue
		}
		for i := range slice.Endpoints {
			e := &slice.Endpoints[i]
			if name := value(e.NodeName); name != "" {
				every[name] = true
				if e.Conditions.Ready == nil || *e.Conditions.Ready {
					ready[name] = true
				}
			}
		}
	}
	if len(ready) == 0 {
		return every
	}
	return ready
}

// readyNodes are the nodes that lead to Services of type NodePort: those that are ready and that nobody has excluded, or, if none is ready, all others.
func (c *compiler) readyNodes() map[string]bool {
	ready, every := map[string]bool{}, map[string]bool{}
	for name, n := range c.in.Nodes {
		if n == nil || excluded(n) {
			continue
		}
		every[name] = true
		if slices.ContainsFunc(n.Status.Conditions, func(x corev1.NodeCondition) bool {
			return x.Type == corev1.NodeReady && x.Status == corev1.ConditionTrue
		}) {
			ready[name] = true
		}
	}
	if len(ready) == 0 {
		return every
	}
	return ready
}

// excluded reports whether nobody from outside of the cluster is to be led to a node.
func excluded(n *corev1.Node) bool {
	_, yes := n.Labels[corev1.LabelNodeExcludeBalancers]
	return yes
}

// nodePortNodes are the nodes on whose ports a Service of type NodePort can be reached.
func (c *compiler) nodePortNodes(s *corev1.Service) map[string]bool {
	if s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		return c.podNodes(object.KeyOf(s))
	}
	return c.readyNodes()
}

// maxNodeAddresses is how many addresses of nodes are shown. A status has to hold them, and so has every object.
const maxNodeAddresses = maxStatusAddresses

// addressesOf are the addresses of nodes, in the order of the names of these: of each the external ones, or the internal ones if it has no other. Only those of the
// families are taken; none means all.
func (c *compiler) addressesOf(nodes map[string]bool, families []corev1.IPFamily) (out []string) {
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		n := c.in.Nodes[name]
		if n == nil {
			continue
		}
		own := nodeAddresses(n, corev1.NodeExternalIP, families)
		if len(own) == 0 {
			own = nodeAddresses(n, corev1.NodeInternalIP, families)
		}
		for _, a := range own {
			if !slices.Contains(out, a) && len(out) < maxNodeAddresses {
				out = append(out, a)
			}
		}
	}
	return out
}

func nodeAddresses(n *corev1.Node, typ corev1.NodeAddressType, families []corev1.IPFamily) (out []string) {
	for _, a := range n.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); a.Type == typ && err == nil && (len(families) == 0 || slices.Contains(families, familyOf(ip))) {
			out = append(out, a.Address)
		}
	}
	return out
}

func familyOf(ip netip.Addr) corev1.IPFamily {
	if ip.Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

// addresses are those at which a Service of a type can be reached.
func (c *compiler) addresses(s *corev1.Service, typ corev1.ServiceType) []string {
	if typ == corev1.ServiceTypeNodePort && c.opt.PublishNodes {
		return c.addressesOf(c.nodePortNodes(s), s.Spec.IPFamilies)
	}
	return serviceAddresses(s, typ)
}

// sharedAddresses are those of Ingresses, and of all Gateways where these have none of their own.
func (c *compiler) sharedAddresses() []string {
	if len(c.opt.PublishAddresses) > 0 {
		return c.opt.PublishAddresses
	}
	if s := c.in.Services[c.opt.PublishService]; s != nil {
		return c.addresses(s, s.Spec.Type)
	}
	if c.opt.HostService != (object.Key{}) {
		return c.addressesOf(c.podNodes(c.opt.HostService), nil)
	}
	return nil
}

// SameAddresses reports whether two snapshots that have the same routes must show the same addresses. Those of nodes depend on where Fairlead's own pods are ready,
// which only EndpointSlices tell.
func SameAddresses(a, b *object.Snapshot, opt Options) bool {
	if !opt.PublishNodes && opt.HostService == (object.Key{}) {
		return true
	}
	same := func(key object.Key) bool { return slices.Equal(a.EndpointSlices[key], b.EndpointSlices[key]) }
	for key := range a.Services {
		if key.Namespace == opt.Namespace && !same(key) {
			return false
		}
	}
	return same(opt.PublishService) && same(opt.HostService)
}
