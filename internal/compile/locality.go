package compile

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// topologyAnnotations turned hints on before there was a field. Kubernetes has two of them.
var topologyAnnotations = []string{corev1.AnnotationTopologyMode, corev1.DeprecatedAnnotationTopologyAwareHints}

// localityOf returns which endpoints a Service wants its clients to prefer. ok is false if it says something that nobody knows.
func localityOf(service *corev1.Service) (l route.Locality, ok bool) {
	if d := service.Spec.TrafficDistribution; d != nil {
		switch *d {
		case corev1.ServiceTrafficDistributionPreferSameZone, corev1.ServiceTrafficDistributionPreferClose:
			return route.SameZone, true
		case corev1.ServiceTrafficDistributionPreferSameNode:
			return route.SameNode, true
		}
		return "", false
	}
	for _, name := range topologyAnnotations {
		if strings.EqualFold(service.Annotations[name], "auto") {
			return route.ByHints, true
		}
	}
	return "", true
}

func (r *serviceReader) locality(p *route.Policy) {
	l, ok := localityOf(r.service)
	if !ok {
		r.problems.add(Warning, r.ref, "spec.trafficDistribution", "InvalidValue", "%.64q is none of %s, %s and %s, and is ignored", *r.service.Spec.TrafficDistribution,
			corev1.ServiceTrafficDistributionPreferSameZone, corev1.ServiceTrafficDistributionPreferSameNode, corev1.ServiceTrafficDistributionPreferClose)
	}
	p.Locality = l
}

// site is where this process runs.
type site struct{ node, zone string }

// home returns where this process runs. The zone of a node is found in the EndpointSlices of Fairlead's own namespace, which hold its own pods: those of other
// namespaces may be written by others, and nodes are not read.
func home(in *object.Snapshot, opt Options) site {
	p := site{opt.Node, opt.Zone}
	if p.zone != "" || p.node == "" || opt.Namespace == "" {
		return p
	}
	var own []object.Key
	for key := range in.EndpointSlices {
		if key.Namespace == opt.Namespace {
			own = append(own, key)
		}
	}
	slices.SortFunc(own, object.Key.Compare)
	for _, key := range own {
		for _, slice := range in.EndpointSlices[key] {
			if zone := zoneOf(slice, p.node); zone != "" {
				p.zone = zone
				return p
			}
		}
	}
	return p
}

// zoneOf returns the zone of a node, if an endpoint of the slice is on it.
func zoneOf(slice *discoveryv1.EndpointSlice, node string) string {
	if slice == nil {
		return ""
	}
	for i := range slice.Endpoints {
		if ep := &slice.Endpoints[i]; value(ep.NodeName) == node && value(ep.Zone) != "" {
			return *ep.Zone
		}
	}
	return ""
}

// measureDistances sets how far the endpoints are, by what the Service prefers. Hints count if every endpoint has one, as for kube-proxy: it is not known what it
// means for the rest if only some have.
func (p site) measureDistances(l route.Locality, all []endpoint) {
	if p.zone == "" && (p.node == "" || l != route.SameNode) {
		return // nobody can say what is near
	}
	zones, nodes := true, true
	for i := range all {
		zones = zones && len(all[i].hints.ForZones) > 0
		nodes = nodes && len(all[i].hints.ForNodes) > 0
	}
	for i := range all {
		x := &all[i]
		sameZone, sameNode := x.zone == p.zone, x.node == p.node
		if zones {
			sameZone = slices.ContainsFunc(x.hints.ForZones, func(z discoveryv1.ForZone) bool { return z.Name == p.zone })
		}
		if nodes {
			sameNode = slices.ContainsFunc(x.hints.ForNodes, func(n discoveryv1.ForNode) bool { return n.Name == p.node })
		}
		x.distance = distance(l, zones, p.zone != "" && sameZone, p.node != "" && sameNode)
	}
}

// distance is 0 for what is preferred.
func distance(l route.Locality, hints, sameZone, sameNode bool) uint8 {
	switch {
	case l == route.ByHints && !hints, l == route.SameNode && sameNode, l != route.SameNode && sameZone:
		return 0
	case l == route.SameNode && !sameZone:
		return 2
	}
	return 1
}
