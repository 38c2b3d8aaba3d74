package compile

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// The codes of a poolError.
const (
	codeXBackendNotFound       = "XBackendNotFound"
	codeServiceNotFound        = "ServiceNotFound"
	codePortNotFound           = "PortNotFound"
	codeExternalNameNotAllowed = "ExternalNameNotAllowed"
	codeUnsupportedProtocol    = "UnsupportedProtocol"
)

// poolError says why a port of a Service, or what is in its place, cannot be a backend. Code is one of the codes above; Message names the object.
type poolError struct{ Code, Message string }

func poolErrorf(code, format string, args ...any) *poolError {
	return &poolError{code, fmt.Sprintf(format, args...)}
}

// servicePool returns the pool of a Service's port. Whoever names the same port gets the same pool. It does not ask whether somebody in another namespace may
// refer to the Service: see mayRefer.
func (c *compiler) servicePool(ns, name string, port int32) (*route.Pool, *poolError) {
	key := route.PoolKey{Namespace: ns, Service: name, Port: port}
	if p, ok := c.pools[key]; ok && p.Protocol != route.TCP {
		return p, nil
	}
	service := c.in.Services[object.Key{Namespace: ns, Name: name}]
	p, err := newPool(key, service, c.opt.AllowExternalName)
	if err == nil {
		r := c.reader(key, service)
		p.Policy, p.Secret = r.policy(), string(service.UID)
		p.Care, p.Retry = r.readCare()
		r.constrain(p)
		c.secure(p, nameOfPort(service, port))
		c.pools[key] = p
	}
	return p, err
}

// streamPool is servicePool for whoever passes connections on, and need not know what is spoken on them.
func (c *compiler) streamPool(ns, name string, port int32) (*route.Pool, *poolError) {
	pool, err := c.servicePool(ns, name, port)
	if err == nil || err.Code != codeUnsupportedProtocol {
		return pool, err
	}
	service := c.in.Services[object.Key{Namespace: ns, Name: name}]
	i := findPort(service, port, false)
	if !isTCP(service.Spec.Ports[i].Protocol) {
		return nil, err
	}
	key := route.PoolKey{Namespace: ns, Service: name, Port: port}
	if c.pools[key] == nil {
		r := c.reader(key, service)
		p := &route.Pool{Key: key, Protocol: route.TCP, Policy: r.policy(), Source: portSource(key, i)}
		p.Care, _ = r.readCare()
		c.secure(p, nameOfPort(service, port))
		c.pools[key] = p
	}
	return c.pools[key], nil
}

// datagramPool is servicePool for ports of UDP.
func (c *compiler) datagramPool(ns, name string, port int32) (*route.Pool, *poolError) {
	key := route.PoolKey{Namespace: ns, Service: name, Port: port, UDP: true}
	if p, ok := c.pools[key]; ok {
		return p, nil
	}
	service := c.in.Services[object.Key{Namespace: ns, Name: name}]
	p, err := newPool(key, service, c.opt.AllowExternalName)
	if err == nil {
		p.Policy = c.reader(key, service).policy()
		c.pools[key] = p
	}
	return p, err
}

// nameOfPort returns the name of the port of a Service that has a number; "" if it has none.
func nameOfPort(service *corev1.Service, port int32) string {
	if i := findPort(service, port, false); i >= 0 {
		return service.Spec.Ports[i].Name
	}
	return ""
}

func portSource(key route.PoolKey, i int) route.Source {
	return route.Source{Kind: "Service", Namespace: key.Namespace, Name: key.Service, Field: indexed("spec.ports", i)}
}

func newPool(key route.PoolKey, service *corev1.Service, allowExternalName bool) (*route.Pool, *poolError) {
	ref := object.Key{Namespace: key.Namespace, Name: key.Service}
	if service == nil {
		return nil, poolErrorf(codeServiceNotFound, "Service %s does not exist", ref)
	}
	if isExternalName(service) {
		if err := checkExternalName(ref, service, allowExternalName); err != nil {
			return nil, err
		}
	}
	p := &route.Pool{Key: key, Protocol: plainProtocol(key.UDP), Source: route.Source{Kind: "Service", Namespace: ref.Namespace, Name: ref.Name}}
	i := findPort(service, key.Port, key.UDP)
	if i < 0 {
		if hasEveryPort(service) && validPort(key.Port) {
			return p, nil
		}
		return nil, poolErrorf(codePortNotFound, "Service %s has no port %d; it has %s", ref, key.Port, portsOf(service))
	}
	protocol, err := backendProtocol(ref, &service.Spec.Ports[i], key.UDP)
	if err != nil {
		return nil, err
	}
	p.Protocol, p.Source = protocol, portSource(key, i)
	return p, nil
}

// plainProtocol is what is spoken where nobody says more than the transport.
func plainProtocol(udp bool) route.Protocol {
	if udp {
		return route.UDP
	}
	return route.HTTP
}

// servicePort returns the number of the Service port that an Ingress refers to by name or by number. Whether the Service has a port of that number is for
// servicePool to say.
func (c *compiler) servicePort(ns, name string, port networkingv1.ServiceBackendPort) (int32, *poolError) {
	ref := object.Key{Namespace: ns, Name: name}
	service := c.in.Services[ref]
	switch {
	case service == nil:
		return 0, poolErrorf(codeServiceNotFound, "Service %s does not exist", ref)
	case port.Name != "" && port.Number != 0:
		return 0, poolErrorf(codePortNotFound, "the port has the name %q and the number %d; one of them is allowed, not both", port.Name, port.Number)
	case port.Name == "" && port.Number == 0:
		return 0, poolErrorf(codePortNotFound, "the port has neither a name nor a number; Service %s has %s", ref, portsOf(service))
	case port.Name == "":
		return port.Number, nil
	}
	for i := range service.Spec.Ports {
		if p := &service.Spec.Ports[i]; p.Name == port.Name {
			return p.Port, nil
		}
	}
	return 0, poolErrorf(codePortNotFound, "Service %s has no port named %q; it has %s", ref, port.Name, portsOf(service))
}

// findPort returns the index of the port of a Service that has a number, or -1. A number can occur once for each transport protocol: the one that is asked for is
// meant, if it does.
func findPort(service *corev1.Service, number int32, udp bool) int {
	found := -1
	for i := range service.Spec.Ports {
		p := &service.Spec.Ports[i]
		if p.Port != number || !validPort(number) {
			continue
		}
		if carries(p.Protocol, udp) {
			return i
		}
		found = i
	}
	return found
}

func isTCP(p corev1.Protocol) bool { return p == "" || p == corev1.ProtocolTCP }

func isUDP(p corev1.Protocol) bool { return p == corev1.ProtocolUDP }

// carries tells whether a port of a protocol is one of UDP, or one of TCP.
func carries(p corev1.Protocol, udp bool) bool {
	if udp {
		return isUDP(p)
	}
	return isTCP(p)
}

func validPort(p int32) bool { return 0 < p && p < 1<<16 }

func isExternalName(service *corev1.Service) bool {
	return service.Spec.Type == corev1.ServiceTypeExternalName
}

// hasEveryPort tells whether a Service has whatever port is asked for: one of type ExternalName without ports is an alias in the DNS and no more.
func hasEveryPort(service *corev1.Service) bool {
	return isExternalName(service) && len(service.Spec.Ports) == 0
}

// portsOf lists the ports of a Service for people.
func portsOf(service *corev1.Service) string {
	names := make([]string, len(service.Spec.Ports))
	for i := range service.Spec.Ports {
		p := &service.Spec.Ports[i]
		names[i] = strconv.Itoa(int(p.Port))
		if p.Name != "" {
			names[i] += " (" + p.Name + ")"
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return list(names)
}

// checkExternalName tells whether the name that an ExternalName Service stands for may be a backend. Kubernetes takes an IP address there for a name made of
// digits, which no resolver finds; here it must not become a way to any address that the author likes.
func checkExternalName(ref object.Key, service *corev1.Service, allow bool) *poolError {
	if !allow {
		return poolErrorf(codeExternalNameNotAllowed, "Service %s is of type ExternalName, which must be allowed in the configuration (allowExternalName)", ref)
	}
	if _, err := externalHost(service.Spec.ExternalName); err != nil {
		return poolErrorf(codeExternalNameNotAllowed, "externalName of Service %s %v", ref, err)
	}
	return nil
}

// externalHost returns a name outside of the cluster as it is to be resolved: in lower case and without the dot at its end.
func externalHost(name string) (string, error) {
	return cleanHostname(strings.TrimSuffix(name, "."), false)
}

// appProtocols are the names of an appProtocol that Fairlead understands, for people.
const appProtocols = "kubernetes.io/h2c, kubernetes.io/ws, kubernetes.io/wss, http, https and grpc"

// backendProtocol returns what is spoken to the endpoints of a Service port, by its appProtocol: the names that Kubernetes defines (KEP-3726), https, and grpc
// and h2c, which are HTTP/2. Other names that Kubernetes does not reserve are hints for others, and mean HTTP here.
func backendProtocol(service object.Key, port *corev1.ServicePort, udp bool) (route.Protocol, *poolError) {
	if !carries(port.Protocol, udp) {
		need := corev1.ProtocolTCP
		if udp {
			need = corev1.ProtocolUDP
		}
		return "", poolErrorf(codeUnsupportedProtocol, "port %d of Service %s has the protocol %s; %s is needed", port.Port, service, cmp.Or(port.Protocol, corev1.ProtocolTCP), need)
	}
	if udp {
		return route.UDP, nil
	}
	if port.AppProtocol == nil {
		return route.HTTP, nil
	}
	switch name := strings.ToLower(*port.AppProtocol); name {
	case "kubernetes.io/h2c", "h2c", "grpc":
		return route.H2C, nil
	case "kubernetes.io/ws":
		return route.WS, nil
	case "kubernetes.io/wss":
		return route.WSS, nil
	case "https":
		return route.HTTPS, nil
	default:
		if !strings.HasPrefix(name, "kubernetes.io/") {
			return route.HTTP, nil
		}
		return "", poolErrorf(codeUnsupportedProtocol, "port %d of Service %s has the appProtocol %q; supported are %s",
			port.Port, service, *port.AppProtocol, appProtocols)
	}
}
