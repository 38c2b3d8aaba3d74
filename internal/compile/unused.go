package compile

import (
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

// meansHTTP tells whether an appProtocol is a name of HTTP/1.1, in clear text.
func meansHTTP(name string) bool {
	switch strings.ToLower(name) {
	case "", "http", "http1", "http/1.1", "ws", "tcp":
		return true
	}
	return false
}
