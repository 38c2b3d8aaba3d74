package compile

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// destination is what a backendRef leads to, or why it leads nowhere.
type destination struct {
	kind   string
	key    object.Key
	port   *corev1.ServicePort // of a Service
	reason string              // "" is none
}

// permitted tells whether a route may know of what it refers to.
func (d destination) permitted() bool {
	return d.reason != "InvalidKind" && d.reason != "RefNotPermitted"
}

// leadsTo reads a backendRef.
func (r reading) leadsTo(route *anyRoute, b *gatewayv1.BackendRef) (d destination) {
	d = destination{kind: "Service", key: object.Key{Namespace: route.Namespace, Name: string(b.Name)}}
	if b.Namespace != nil {
		d.key.Namespace = string(*b.Namespace)
	}
	group := ""
	if b.Kind != nil {
		d.kind = string(*b.Kind)
	}
	if b.Group != nil {
		group = string(*b.Group)
	}
	switch {
	case d.kind != "Service" && d.kind != "XBackend":
		d.reason = "InvalidKind"
	case !allowedSlowly(r.in, referrer{gatewayGroup, route.kind, route.Namespace}, referent{group, d.kind, d.key.Namespace, d.key.Name}):
		d.reason = "RefNotPermitted"
	case d.kind == "XBackend":
		d.reason = r.whyNotXBackend(route.kind, r.in.XBackends[d.key], b.Port)
	default:
		d.port, d.reason = portFor(route.kind, r.in.Services[d.key], *b.Port)
	}
	return d
}

// portFor finds the port of a Service that takes what a kind of route gets: datagrams, or else a stream.
func portFor(kind string, s *corev1.Service, number int32) (*corev1.ServicePort, string) {
	reason := "BackendNotFound"
	if s == nil {
		return nil, reason
	}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if p.Port != number {
			continue
		}
		if (p.Protocol == corev1.ProtocolUDP) == (kind == "UDPRoute") {
			return p, ""
		}
		reason = "UnsupportedProtocol"
	}
	return nil, reason
}

// whyNotXBackend tells why a kind of route cannot send anything to an XBackend: "hostnames ending with those trust domains (e.g. .cluster.local) are not allowed", the
// port is that of the XBackend, and its protocol is what the implementation "uses when connecting to this backend".
func (r reading) whyNotXBackend(kind string, x *gatewayx.XBackend, port *gatewayv1.PortNumber) string {
	switch {
	case x == nil:
		return "BackendNotFound"
	case isInside(x):
		return "Invalid"
	case port != nil && *port != int32(x.Spec.Port.Port):
		return "BackendNotFound"
	case kind == "UDPRoute":
		return "UnsupportedProtocol"
	case x.Spec.Protocol != nil && *x.Spec.Protocol == "TCP" && (kind == "HTTPRoute" || kind == "GRPCRoute"):
		return "UnsupportedProtocol"
	}
	return ""
}

func isInside(x *gatewayx.XBackend) bool {
	return strings.HasSuffix(string(x.Spec.ExternalHostname.Hostname), ".cluster.local")
}

// policyFor reads TargetRefs of BackendTLSPolicy for a port of a Service: one for the port is more specific than one for the whole Service, and of those for the same
// the older takes precedence. Policies of other namespaces cannot name the Service.
func (r reading) policyFor(service object.Key, port string) *gatewayv1.BackendTLSPolicy {
	for _, section := range []string{port, ""} {
		if all := r.policiesFor(service, section); len(all) > 0 {
			return all[0]
		}
	}
	return nil
}

// policiesFor are the policies that select a target, in the order of precedence.
func (r reading) policiesFor(service object.Key, section string) (out []*gatewayv1.BackendTLSPolicy) {
	for _, p := range r.in.BackendTLSPolicies {
		if p.Namespace == service.Namespace && slices.ContainsFunc(p.Spec.TargetRefs, func(t gatewayv1.LocalPolicyTargetReferenceWithSectionName) bool {
			return string(t.Name) == service.Name && sectionOf(t) == section
		}) {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *gatewayv1.BackendTLSPolicy) int { return olderThan(a, b) })
	return out
}

func sectionOf(t gatewayv1.LocalPolicyTargetReferenceWithSectionName) string {
	if t.SectionName == nil {
		return ""
	}
	return string(*t.SectionName)
}

// conflictOf tells whether a policy does not take precedence for one of its targets: "the implementation MUST ensure the Accepted Condition is set to status: False, with
// Reason Conflicted".
func (r reading) conflictOf(p *gatewayv1.BackendTLSPolicy) []string {
	for _, t := range p.Spec.TargetRefs {
		if r.policiesFor(object.Key{Namespace: p.Namespace, Name: string(t.Name)}, sectionOf(t))[0] != p {
			return []string{"Conflicted"}
		}
	}
	return nil
}

// trust reads BackendTLSPolicyValidation of an object in a namespace: why the object is not accepted, and which of its references do not resolve.
func (r reading) trust(v *gatewayv1.BackendTLSPolicyValidation, namespace string) (refused, unresolved []string) {
	if v.WellKnownCACertificates != nil {
		if *v.WellKnownCACertificates != "System" {
			refused = append(refused, "Invalid")
		}
		return refused, nil
	}
	for _, ref := range v.CACertificateRefs {
		m := r.in.ConfigMaps[object.Key{Namespace: namespace, Name: string(ref.Name)}]
		switch {
		case ref.Kind != "ConfigMap":
			unresolved = append(unresolved, "InvalidKind")
		case m == nil || !strings.Contains(m.Data["ca.crt"], "BEGIN CERTIFICATE"):
			unresolved = append(unresolved, "InvalidCACertificateRef")
		}
	}
	if len(unresolved) == len(v.CACertificateRefs) {
		refused = append(refused, "NoValidCACertificate")
	}
	return refused, unresolved
}

// trustOf reads the TLS of an XBackend, with the certificate that is presented to it.
func (r reading) trustOf(x *gatewayx.XBackend) (refused, unresolved []string) {
	if isInside(x) {
		return []string{"Invalid"}, nil
	}
	if x.Spec.TLS == nil {
		return nil, nil
	}
	refused, unresolved = r.trust(&x.Spec.TLS.Validation, x.Namespace)
	if key, ok := r.presentedTo(x); ok {
		reason := ""
		switch {
		case !r.mayPresent(x, key):
			reason = "RefNotPermitted"
		case !isPair(r.in.Secrets[key]):
			reason = "InvalidClientCertificateRef"
		default:
			return refused, unresolved
		}
		refused, unresolved = append(refused, reason), append(unresolved, reason)
	}
	return refused, unresolved
}

// presentedTo is the Secret with the certificate that is presented to an XBackend, if there should be one.
func (r reading) presentedTo(x *gatewayx.XBackend) (key object.Key, ok bool) {
	if x.Spec.TLS == nil || x.Spec.TLS.ClientCertificateRef == nil {
		return key, false
	}
	ref := x.Spec.TLS.ClientCertificateRef
	key = object.Key{Namespace: x.Namespace, Name: string(ref.Name)}
	if ref.Namespace != nil {
		key.Namespace = string(*ref.Namespace)
	}
	return key, true
}

func (r reading) mayPresent(x *gatewayx.XBackend, key object.Key) bool {
	return allowedSlowly(r.in, referrer{gatewayx.GroupName, "XBackend", x.Namespace}, referent{"", "Secret", key.Namespace, key.Name})
}
