package status

import (
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
)

// ingress notes what turns the status of an Ingress into want. It has nothing but the addresses, and those are the controller's alone.
func (c *change) ingress(o *networkingv1.Ingress, want networkingv1.IngressStatus) {
	addresses := want.LoadBalancer.Ingress
	if slices.EqualFunc(o.Status.LoadBalancer.Ingress, addresses, sameIngressAddress) {
		return
	}
	// A merge patch, in which null removes the list, since it is the only thing in the status.
	c.whole = map[string]any{"loadBalancer": map[string]any{"ingress": addresses}}
}

func sameIngressAddress(a, b networkingv1.IngressLoadBalancerIngress) bool {
	return a.IP == b.IP && a.Hostname == b.Hostname && slices.EqualFunc(a.Ports, b.Ports, func(p, q networkingv1.IngressPortStatus) bool {
		return p.Port == q.Port && p.Protocol == q.Protocol && samePointed(p.Error, q.Error)
	})
}
