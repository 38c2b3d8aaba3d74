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

// demander is an object that demands something of backends, and what is said of it.
type demander struct {
	ref object.Ref

	accepted verdict
	resolved verdict // of what it refers to
}

func (d *demander) source() route.Source {
	return route.Source{Kind: d.ref.Kind, Namespace: d.ref.Namespace, Name: d.ref.Name}
}

// invalidDemand notes what an object demands and nobody can do.
func (c *compiler) invalidDemand(d *demander, field string, reason gatewayv1.PolicyConditionReason, format string, args ...any) {
	v := verdict{string(reason), fmt.Sprintf(format, args...)}
	c.problems.add(Error, d.ref, field, v.Reason, "%s", v.Message)
	d.accepted = d.accepted.or(v)
}

// readDemand reads what endpoints have to prove, which stands in the field at. What is not valid is broken.
func (c *compiler) readDemand(d *demander, v *gatewayv1.BackendTLSPolicyValidation, at string) *route.PoolTLS {
	t := &route.PoolTLS{Source: d.source()}
	name, err := cleanHostname(string(v.Hostname), false)
	if err != nil {
		c.invalidDemand(d, at+".hostname", gatewayv1.PolicyReasonInvalid, "the hostname %v", err)
	}
	t.ServerName = name
	c.readTrust(d, t, v, at)
	for i := range v.SubjectAltNames {
		c.readAltName(d, t, &v.SubjectAltNames[i], indexed(at+".subjectAltNames", i))
	}
	c.checkLimit(d.ref, at+".subjectAltNames", len(v.SubjectAltNames), 5)
	if !d.accepted.ok() {
		t.Broken = fmt.Sprintf("%s is not valid: %s", d.ref, d.accepted.Message)
	}
	return t
}

// readTrust finds the authorities that an object trusts.
func (c *compiler) readTrust(d *demander, t *route.PoolTLS, v *gatewayv1.BackendTLSPolicyValidation, at string) {
	field := at + ".caCertificateRefs"
	known := string(orDefault(v.WellKnownCACertificates, ""))
	switch {
	case known != "" && len(v.CACertificateRefs) > 0:
		c.invalidDemand(d, field, gatewayv1.PolicyReasonInvalid, "caCertificateRefs and wellKnownCACertificates exclude each other")
		return
	case known == string(gatewayv1.WellKnownCACertificatesSystem):
		t.From = []string{"system"}
		return
	case known != "":
		c.invalidDemand(d, at+".wellKnownCACertificates", gatewayv1.PolicyReasonInvalid, "%q is not supported; System is", known)
		return
	}
	c.checkLimit(d.ref, field, len(v.CACertificateRefs), 16)
	for i := range v.CACertificateRefs {
		c.addAuthority(d, t, &v.CACertificateRefs[i], indexed(field, i))
	}
	if len(t.Authorities) == 0 {
		c.invalidDemand(d, field, gatewayv1.BackendTLSPolicyReasonNoValidCACertificate, "no authority to trust: %s",
			cmp.Or(d.resolved.Message, "neither caCertificateRefs nor wellKnownCACertificates are set"))
	}
}

func (c *compiler) addAuthority(d *demander, t *route.PoolTLS, ref *gatewayv1.LocalObjectReference, field string) {
	if ref.Group != corev1.GroupName || ref.Kind != "ConfigMap" {
		v := verdict{string(gatewayv1.BackendTLSPolicyReasonInvalidKind), fmt.Sprintf("authorities cannot be read from a %s (group %q); from ConfigMaps they can", ref.Kind, ref.Group)}
		c.problems.add(Error, d.ref, field, v.Reason, "%s", v.Message)
		d.resolved = d.resolved.or(v)
		return
	}
	key := object.Key{Namespace: d.ref.Namespace, Name: string(ref.Name)}
	pem, err := c.readAuthorities(key)
	if err != nil {
		c.problems.add(Error, d.ref, field, err.Code, "%s", err.Message)
		d.resolved = d.resolved.or(verdict{string(gatewayv1.BackendTLSPolicyReasonInvalidCACertificateRef), err.Message})
		return
	}
	t.Authorities = append(slices.Clip(t.Authorities), pem...)
	t.From = append(t.From, key.String())
}

func (c *compiler) readAltName(d *demander, t *route.PoolTLS, san *gatewayv1.SubjectAltName, field string) {
	switch san.Type {
	case gatewayv1.HostnameSubjectAltNameType:
		name, err := cleanHostname(string(san.Hostname), true)
		if err != nil {
			c.invalidDemand(d, field+".hostname", gatewayv1.PolicyReasonInvalid, "the hostname %v", err)
			return
		}
		t.Names = append(t.Names, name)
	case gatewayv1.URISubjectAltNameType:
		u, err := url.Parse(string(san.URI))
		if err != nil || u.Scheme == "" {
			c.invalidDemand(d, field+".uri", gatewayv1.PolicyReasonInvalid, "%.64q is not a URI such as spiffe://example.com/name", san.URI)
			return
		}
		t.URIs = append(t.URIs, u.String())
	default:
		c.invalidDemand(d, field+".type", gatewayv1.PolicyReasonInvalid, "%q is neither Hostname nor URI", san.Type)
	}
}
