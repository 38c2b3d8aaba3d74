package compile

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

const backendTLSKind = "BackendTLSPolicy"

// backendTLSPolicies finds out which policy is in force for each Service, or port of one: the oldest.
func (c *compiler) backendTLSPolicies() {
	for _, obj := range oldest(c.in.BackendTLSPolicies) {
		p := c.newPolicy(backendTLSKind, obj)
		p.tls = &route.PoolTLS{Broken: "internal error", Source: p.source()} // unless what follows gets to its end
		c.guard(p.ref, func() { c.readTLSPolicy(p, &obj.Spec) })
		for i := range obj.Spec.TargetRefs {
			t := &obj.Spec.TargetRefs[i]
			c.guard(p.ref, func() {
				c.target(p, &t.LocalPolicyTargetReference, string(orDefault(t.SectionName, "")), indexed("spec.targetRefs", i))
			})
		}
	}
}

// readTLSPolicy reads what a policy demands.
func (c *compiler) readTLSPolicy(p *policy, spec *gatewayv1.BackendTLSPolicySpec) {
	t := &route.PoolTLS{Source: p.source()}
	name, err := cleanHostname(string(spec.Validation.Hostname), false)
	if err != nil {
		c.invalidPolicy(p, "spec.validation.hostname", gatewayv1.PolicyReasonInvalid, "the hostname %v", err)
	}
	t.ServerName = name
	c.readTrust(p, t, &spec.Validation)
	for i := range spec.Validation.SubjectAltNames {
		c.readAltName(p, t, &spec.Validation.SubjectAltNames[i], indexed("spec.validation.subjectAltNames", i))
	}
	for option := range spec.Options {
		c.unsupported(p.ref, "spec.options", fmt.Sprintf("the option %s is not known and ignored", option))
	}
	c.checkLimit(p.ref, "spec.targetRefs", len(spec.TargetRefs), 16)
	c.checkLimit(p.ref, "spec.validation.subjectAltNames", len(spec.Validation.SubjectAltNames), 5)
	if !p.accepted.ok() {
		t.Broken = fmt.Sprintf("%s is not valid: %s", p.ref, p.accepted.Message)
	}
	p.tls = t
}

// readTrust finds the authorities that a policy trusts.
func (c *compiler) readTrust(p *policy, t *route.PoolTLS, v *gatewayv1.BackendTLSPolicyValidation) {
	const field = "spec.validation.caCertificateRefs"
	known := string(orDefault(v.WellKnownCACertificates, ""))
	switch {
	case known != "" && len(v.CACertificateRefs) > 0:
		c.invalidPolicy(p, field, gatewayv1.PolicyReasonInvalid, "caCertificateRefs and wellKnownCACertificates exclude each other")
		return
	case known == string(gatewayv1.WellKnownCACertificatesSystem):
		t.From = []string{"system"}
		return
	case known != "":
		c.invalidPolicy(p, "spec.validation.wellKnownCACertificates", gatewayv1.PolicyReasonInvalid, "%q is not supported; System is", known)
		return
	}
	c.checkLimit(p.ref, field, len(v.CACertificateRefs), 16)
	for i := range v.CACertificateRefs {
		c.addAuthority(p, t, &v.CACertificateRefs[i], indexed(field, i))
	}
	if len(t.Authorities) == 0 {
		c.invalidPolicy(p, field, gatewayv1.BackendTLSPolicyReasonNoValidCACertificate, "no authority to trust: %s",
			cmp.Or(p.resolved.Message, "neither caCertificateRefs nor wellKnownCACertificates are set"))
	}
}

func (c *compiler) addAuthority(p *policy, t *route.PoolTLS, ref *gatewayv1.LocalObjectReference, field string) {
	if ref.Group != corev1.GroupName || ref.Kind != "ConfigMap" {
		v := verdict{string(gatewayv1.BackendTLSPolicyReasonInvalidKind), fmt.Sprintf("authorities cannot be read from a %s (group %q); from ConfigMaps they can", ref.Kind, ref.Group)}
		c.problems.add(Error, p.ref, field, v.Reason, "%s", v.Message)
		p.resolved = p.resolved.or(v)
		return
	}
	key := object.Key{Namespace: p.ref.Namespace, Name: string(ref.Name)}
	pem, err := c.readAuthorities(key)
	if err != nil {
		c.problems.add(Error, p.ref, field, err.Code, "%s", err.Message)
		p.resolved = p.resolved.or(verdict{string(gatewayv1.BackendTLSPolicyReasonInvalidCACertificateRef), err.Message})
		return
	}
	t.Authorities = append(slices.Clip(t.Authorities), pem...)
	t.From = append(t.From, key.String())
}

func (c *compiler) readAltName(p *policy, t *route.PoolTLS, san *gatewayv1.SubjectAltName, field string) {
	switch san.Type {
	case gatewayv1.HostnameSubjectAltNameType:
		name, err := cleanHostname(string(san.Hostname), true)
		if err != nil {
			c.invalidPolicy(p, field+".hostname", gatewayv1.PolicyReasonInvalid, "the hostname %v", err)
			return
		}
		t.Names = append(t.Names, name)
	case gatewayv1.URISubjectAltNameType:
		u, err := url.Parse(string(san.URI))
		if err != nil || u.Scheme == "" {
			c.invalidPolicy(p, field+".uri", gatewayv1.PolicyReasonInvalid, "%.64q is not a URI such as spiffe://example.com/name", san.URI)
			return
		}
		t.URIs = append(t.URIs, u.String())
	default:
		c.invalidPolicy(p, field+".type", gatewayv1.PolicyReasonInvalid, "%q is neither Hostname nor URI", san.Type)
	}
}

// secure makes a pool one whose endpoints have to prove who they are, if there is a policy for it. port is the name of the Service's port. Encryption is part of
// the demand, whatever the Service says about the protocol.
func (c *compiler) secure(p *route.Pool, port string) {
	service := object.Key{Namespace: p.Key.Namespace, Name: p.Key.Service}
	policy := c.policyFor(backendTLSKind, service, port)
	if policy == nil {
		return
	}
	p.TLS = policy.tls
	switch p.Protocol {
	case route.HTTP, route.H2C:
		p.Protocol = route.HTTPS
	case route.WS:
		p.Protocol = route.WSS
	}
}
