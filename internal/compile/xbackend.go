package compile

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

const (
	xbackendKind  = "XBackend"
	xbackendGroup = gatewayx.GroupName
)

// maxBackendAncestors is how many Gateways the status of an XBackend can hold.
const maxBackendAncestors = 32

// xbackend is an XBackend while it is compiled.
type xbackend struct {
	demander
	obj      *gatewayx.XBackend
	unusable verdict        // why nothing can be sent to it; yes if something can
	protocol route.Protocol // that is spoken to it
	tls      *route.PoolTLS // nil: in clear text

	ancestors map[object.Ref]bool // the Gateways with routes that lead to it
}

// xbackend returns the XBackend of a key; nil if there is none. It is read when a route refers to it for the first time: one that no route of ours refers to is
// somebody else's to judge.
func (c *compiler) xbackend(key object.Key) *xbackend {
	if x := c.xbackends[key]; x != nil {
		return x
	}
	obj := c.in.XBackends[key]
	if obj == nil {
		return nil
	}
	ref := object.Ref{Kind: xbackendKind, Namespace: obj.Namespace, Name: obj.Name}
	x := &xbackend{obj: obj, demander: demander{ref: ref}}
	x.unusable = verdict{codeInternal, fmt.Sprintf("%s could not be read", ref)} // unless what follows gets to its end
	set(&c.xbackends, key, x)
	c.guard(ref, func() {
		x.unusable = c.readXBackend(x)
	})
	return x
}

// readXBackend reads how an XBackend is reached.
func (c *compiler) readXBackend(x *xbackend) verdict {
	field, err := checkXBackend(x.obj, c.opt)
	if err == nil {
		field = "spec.protocol"
		x.protocol, err = xbackendProtocol(x.ref, &x.obj.Spec)
	}
	if err != nil {
		c.problems.add(Error, x.ref, field, err.Code, "%s", err.Message)
		return verdict{err.Code, err.Message}
	}
	c.readBackendTLS(x)
	if x.tls == nil {
		c.problems.add(Note, x.ref, "spec.tls", "NotEncrypted", "Fairlead does not encrypt what it sends to %s; with tls.mode ServerOnly it does, and verifies who gets it", x.obj.Spec.ExternalHostname.Hostname)
	}
	return verdict{}
}

// checkXBackend says what is wrong with where an XBackend is, and in which field.
func checkXBackend(obj *gatewayx.XBackend, opt Options) (field string, err *poolError) {
	ref, spec := object.KeyOf(obj), &obj.Spec
	invalid := func(format string, args ...any) *poolError {
		return poolErrorf(string(gatewayv1.PolicyReasonInvalid), "XBackend %s %s", ref, fmt.Sprintf(format, args...))
	}
	switch {
	case spec.Type != gatewayx.BackendTypeExternalHostname:
		return "spec.type", invalid("is of the type %q; ExternalHostname is supported", spec.Type)
	case spec.ExternalHostname == nil:
		return "spec.externalHostname", invalid("is of the type ExternalHostname and has none")
	case !validPort(int32(spec.Port.Port)):
		return "spec.port.port", invalid("has the port %d, which is not between 1 and 65535", spec.Port.Port)
	}
	const hostname = "spec.externalHostname.hostname"
	host, bad := externalHost(string(spec.ExternalHostname.Hostname))
	if bad != nil {
		return hostname, poolErrorf(string(gatewayv1.PolicyReasonInvalid), "hostname of XBackend %s %v", ref, bad)
	}
	if isInCluster(host, opt) {
		return hostname, invalid("has the hostname %s, which is inside the cluster; name the Service in backendRefs", host)
	}
	if !opt.AllowExternalName {
		return "spec.type", poolErrorf(codeExternalNameNotAllowed, "XBackend %s is of type ExternalHostname, which must be allowed in the configuration (allowExternalName)", ref)
	}
	return "", nil
}

// isInCluster tells whether a host name is one of the cluster's own.
func isInCluster(host string, opt Options) bool {
	domains := []string{"svc", "cluster.local"}
	if opt.Cluster != nil && opt.Cluster.ClusterDomain != "" {
		domains = append(domains, strings.ToLower(opt.Cluster.ClusterDomain))
	}
	return slices.ContainsFunc(domains, func(d string) bool { return host == d || strings.HasSuffix(host, "."+d) })
}

// xbackendEndpoint returns the one endpoint of an XBackend, if it may be one.
func xbackendEndpoint(obj *gatewayx.XBackend, opt Options, port int32) []route.Endpoint {
	if obj == nil || int32(obj.Spec.Port.Port) != port {
		return nil
	}
	if _, err := checkXBackend(obj, opt); err != nil {
		return nil
	}
	host, _ := externalHost(string(obj.Spec.ExternalHostname.Hostname))
	return []route.Endpoint{{Address: joinPort(host, port), DNS: true}}
}

// hasTLS tells whether an XBackend is spoken to over TLS, or is not spoken to because what it says of that is wrong.
func hasTLS(spec *gatewayx.BackendSpec) bool {
	return spec.TLS != nil && (spec.TLS.Mode != gatewayx.BackendTLSModeNone || spec.TLS.ClientCertificateRef != nil)
}

// xbackendProtocol returns what is spoken to an XBackend. TCP is for connections alone.
func xbackendProtocol(ref object.Ref, spec *gatewayx.BackendSpec) (route.Protocol, *poolError) {
	choose := func(plain, encrypted route.Protocol) (route.Protocol, *poolError) {
		if hasTLS(spec) {
			return encrypted, nil
		}
		return plain, nil
	}
	switch name := orDefault(spec.Protocol, gatewayx.BackendProtocolHTTP); name {
	case gatewayx.BackendProtocolHTTP:
		return choose(route.HTTP, route.HTTPS)
	case gatewayx.BackendProtocolHTTP11:
		return choose(route.WS, route.WSS) // which are HTTP/1.1 and nothing else
	case gatewayx.BackendProtocolHTTP2, gatewayx.BackendProtocolGRPC:
		return choose(route.H2C, route.HTTPS)
	case gatewayx.BackendProtocolTCP:
		return route.TCP, nil
	case gatewayx.BackendProtocolH2C:
		if !hasTLS(spec) {
			return route.H2C, nil
		}
		return "", poolErrorf(codeUnsupportedProtocol, "%s has the protocol H2C, which is HTTP/2 without TLS, and tls is set; HTTP2 is HTTP/2 with it", ref)
	default:
		return "", poolErrorf(codeUnsupportedProtocol, "%s has the protocol %.64q; supported are HTTP, HTTP11, HTTP2, H2C, GRPC and TCP", ref, name)
	}
}

// readBackendTLS reads who an XBackend has to be, and who Fairlead is to it. A demand that cannot be met closes the way.
func (c *compiler) readBackendTLS(x *xbackend) {
	if !hasTLS(&x.obj.Spec) {
		return
	}
	spec := x.obj.Spec.TLS
	mutual := spec.Mode == gatewayx.BackendTLSModeClientAndServer
	switch {
	case !mutual && spec.Mode != gatewayx.BackendTLSModeServerOnly && spec.Mode != gatewayx.BackendTLSModeNone:
		c.invalidDemand(&x.demander, "spec.tls.mode", gatewayv1.PolicyReasonInvalid, "the mode %.64q is none of None, ServerOnly and ClientAndServer", spec.Mode)
	case mutual != (spec.ClientCertificateRef != nil):
		c.invalidDemand(&x.demander, "spec.tls.clientCertificateRef", gatewayv1.PolicyReasonInvalid, "clientCertificateRef is for the mode ClientAndServer, which needs it, and no other")
	}
	x.tls = c.readDemand(&x.demander, validationOf(&x.obj.Spec), "spec.tls.validation")
	if mutual && spec.ClientCertificateRef != nil {
		c.presentToXBackend(x)
	}
}

// validationOf returns what an XBackend has to prove: as it says, or by default that it has the name that it is reached by, to the authorities of the system.
func validationOf(spec *gatewayx.BackendSpec) *gatewayv1.BackendTLSPolicyValidation {
	v := &spec.TLS.Validation
	if v.Hostname != "" || v.WellKnownCACertificates != nil || len(v.CACertificateRefs) > 0 || len(v.SubjectAltNames) > 0 {
		return v
	}
	return &gatewayv1.BackendTLSPolicyValidation{
		Hostname:                gatewayv1.PreciseHostname(strings.TrimSuffix(string(spec.ExternalHostname.Hostname), ".")),
		WellKnownCACertificates: new(gatewayv1.WellKnownCACertificatesSystem),
	}
}

// presentToXBackend finds the certificate that is presented to an XBackend.
func (c *compiler) presentToXBackend(x *xbackend) {
	const field = "spec.tls.clientCertificateRef"
	client := c.readClientPair(x.ref, referrer{xbackendGroup, xbackendKind, x.ref.Namespace}, x.obj.Spec.TLS.ClientCertificateRef, field)
	if client.resolved.ok() {
		x.tls.Client = &client.pair
		return
	}
	x.resolved = x.resolved.or(client.resolved)
	x.accepted = x.accepted.or(client.resolved)
	if x.tls.Broken == "" {
		x.tls.Broken = fmt.Sprintf("%s is not valid: %s", x.ref, client.resolved.Message)
	}
}

// xbackendPool returns the pool of an XBackend for a route, which may refer to it. A port in the reference has to be the one that the XBackend has.
func (c *compiler) xbackendPool(from object.Ref, key object.Key, port *gatewayv1.PortNumber, carried route.Protocol) (*route.Pool, *poolError) {
	x := c.xbackend(key)
	if x == nil {
		return nil, poolErrorf(codeXBackendNotFound, "%s %s does not exist", xbackendKind, key)
	}
	if !slices.Contains(c.referred[from], x) {
		set(&c.referred, from, append(c.referred[from], x))
	}
	has := int32(x.obj.Spec.Port.Port)
	switch {
	case !x.unusable.ok():
		return nil, poolErrorf(x.unusable.Reason, "%s", x.unusable.Message)
	case port != nil && *port != has:
		return nil, poolErrorf(codePortNotFound, "%s has the port %d, not %d", x.ref, has, *port)
	case carried == route.UDP:
		return nil, poolErrorf(codeUnsupportedProtocol, "%s is reached by TCP, which carries no datagrams", x.ref)
	case carried == route.HTTP && x.protocol == route.TCP:
		return nil, poolErrorf(codeUnsupportedProtocol, "%s has the protocol TCP, which is for connections and not for requests", x.ref)
	}
	return c.newXBackendPool(x), nil
}

// newXBackendPool returns the pool of an XBackend that can be used. What annotations say of balancing and health they say as on a Service.
func (c *compiler) newXBackendPool(x *xbackend) *route.Pool {
	key := route.PoolKey{Kind: xbackendKind, Namespace: x.ref.Namespace, Service: x.ref.Name, Port: int32(x.obj.Spec.Port.Port)}
	if p := c.pools[key]; p != nil {
		return p
	}
	r := c.reader(key, &corev1.Service{ObjectMeta: x.obj.ObjectMeta})
	p := &route.Pool{Key: key, Protocol: x.protocol, TLS: x.tls, Policy: r.policy(), Secret: string(x.obj.UID), Source: x.source()}
	p.Source.Field = "spec"
	p.Care, p.Retry = r.readCare()
	c.pools[key] = p
	return p
}

// leadTo notes which Gateways a route brings to the XBackends that it refers to.
func (c *compiler) leadTo(from object.Ref, attachments []attachment) {
	for _, x := range c.referred[from] {
		for _, a := range attachments {
			for _, p := range a.places {
				set(&x.ancestors, p.listener.gateway.ref, true)
			}
		}
	}
}

// xbackendStatus writes the status of the XBackends that our Gateways lead to.
func (c *compiler) xbackendStatus() {
	for key, x := range c.xbackends {
		if len(x.ancestors) > 0 {
			set(&c.status.XBackends, key, c.xbackendAncestors(x))
		}
	}
}

func (c *compiler) xbackendAncestors(x *xbackend) (status gatewayx.BackendStatus) {
	gateways := sortedRefs(x.ancestors)
	if len(gateways) > maxBackendAncestors {
		c.problems.add(Warning, x.ref, "status.parents", "TooMany", "%d Gateways lead to it; the status can hold %d", len(gateways), maxBackendAncestors)
		gateways = gateways[:maxBackendAncestors]
	}
	accepted := x.unusable.or(x.accepted)
	for _, ref := range gateways {
		status.Ancestors = append(status.Ancestors, gatewayx.BackendAncestorStatus{
			AncestorRef:    ancestorRef(ref),
			ControllerName: gatewayv1.GatewayController(c.opt.GatewayController),
			Conditions: []metav1.Condition{
				accepted.condition("Accepted", "Accepted", x.obj.Generation),
				x.resolved.condition("ResolvedRefs", "ResolvedRefs", x.obj.Generation),
			},
		})
	}
	return status
}
