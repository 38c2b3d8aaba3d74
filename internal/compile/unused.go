package compile

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// httpPool is servicePool for whoever speaks HTTP to it.
func (c *compiler) httpPool(ns, name string, port int32) (*route.Pool, *poolError) {
	p, err := c.servicePool(ns, name, port)
	if err == nil && !c.noted[p.Key] {
		set(&c.noted, p.Key, true)
		c.noteUnused(p, c.in.Services[object.Key{Namespace: ns, Name: name}])
	}
	return p, err
}

// noteUnused tells the author of a Service what it says of the port of a pool in vain.
func (c *compiler) noteUnused(p *route.Pool, service *corev1.Service) {
	ref := object.Ref{Kind: "Service", Namespace: service.Namespace, Name: service.Name}
	if policy := service.Spec.InternalTrafficPolicy; policy != nil && *policy == corev1.ServiceInternalTrafficPolicyLocal {
		c.problems.add(Note, ref, "spec.internalTrafficPolicy", "NotUsed",
			"%s is about connections to the Service's own address; Fairlead connects to the endpoints, on whatever node they are (spec.trafficDistribution prefers near ones)", *policy)
	}
	i := findPort(service, p.Key.Port, false)
	if i < 0 || p.Protocol != route.HTTP {
		return
	}
	if name := service.Spec.Ports[i].AppProtocol; name != nil && !meansHTTP(*name) {
		c.problems.add(Note, ref, indexed("spec.ports", i)+".appProtocol", "NotUsed",
			"Fairlead does not know %.64q and speaks HTTP/1.1 to the endpoints; supported are %s", *name, appProtocols)
	}
}

// forConnections are the annotations about health that mean something for connections that are passed on as a whole. For datagrams none does.
var forConnections = []string{
	"health-check", "health-check-host", "health-check-port", "health-check-interval", "health-check-timeout", "health-check-healthy", "health-check-unhealthy",
	"eject-time", "eject-time-max", "panic-percent", "max-connections", "max-requests", "max-pending", "queue-timeout", "hold",
}

// noteRequestsOnly tells the author of a Service, or of an XBackend, what it says of requests in vain where a route passes on connections or datagrams.
func (c *compiler) noteRequestsOnly(key route.PoolKey, carried route.Protocol) {
	at := object.Key{Namespace: key.Namespace, Name: key.Service}
	ref := object.Ref{Kind: "Service", Namespace: key.Namespace, Name: key.Service}
	var annotations map[string]string
	if key.Kind == xbackendKind {
		ref.Kind, annotations = key.Kind, c.in.XBackends[at].Annotations
	} else {
		annotations = c.in.Services[at].Annotations
	}
	for _, a := range careAnnotations {
		if _, ok := annotations[annotationPrefix+a.name]; !ok {
			continue
		}
		field := annotationField(annotationPrefix + a.name)
		switch {
		case carried == route.UDP:
			c.problems.add(Note, ref, field, "NotUsed", "it is about requests and connections; the datagrams of UDPRoutes take no notice of it")
		case !slices.Contains(forConnections, a.name):
			c.problems.add(Note, ref, field, "NotUsed", "it is about requests; connections that TCPRoutes and TLSRoutes pass on as a whole take no notice of it")
		}
	}
}

// meansHTTP tells whether an appProtocol is a name of HTTP/1.1, in clear text.
func meansHTTP(name string) bool {
	switch strings.ToLower(name) {
	case "", "http", "http1", "http/1.1", "ws", "tcp":
		return true
	}
	return false
}
