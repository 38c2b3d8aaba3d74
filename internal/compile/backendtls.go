package compile

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

const backendTLSKind = "BackendTLSPolicy"

// maxAncestors is how many Gateways the status of a policy can hold.
const maxAncestors = 16

// backendPolicy is a BackendTLSPolicy while it is compiled.
type backendPolicy struct {
	obj *gatewayv1.BackendTLSPolicy
	ref object.Ref
	tls *route.PoolTLS

	accepted  verdict
	conflict  verdict // with an older policy, about one of the targets
	resolved  verdict
	ancestors map[object.Ref]bool // the Gateways with routes that lead to what it is about
}

// policyTarget is a Service, or one port of it, that policies are about.
type policyTarget struct {
	service object.Key
	port    string // its name; "" for the whole Service
}

// String names the target for people.
func (t policyTarget) String() string {
	if t.port == "" {
		return "Service " + t.service.String()
	}
	return fmt.Sprintf("port %s of Service %s", t.port, t.service)
}

// backendPolicies finds out which policy is in force for each Service, or port of one: the oldest.
func (c *compiler) backendPolicies() {
	all := slices.DeleteFunc(object.Sorted(c.in.BackendTLSPolicies), func(o *gatewayv1.BackendTLSPolicy) bool { return o == nil })
	slices.SortFunc(all, func(a, b *gatewayv1.BackendTLSPolicy) int { return object.Older(a, b) })
	for _, obj := range all {
		p := &backendPolicy{obj: obj, ref: object.Ref{Kind: backendTLSKind, Namespace: obj.Namespace, Name: obj.Name}}
		p.tls = &route.PoolTLS{Broken: "internal error", Source: p.source()} // unless what follows gets to its end
		c.guard(p.ref, func() { c.readPolicy(p) })
		for i := range obj.Spec.TargetRefs {
			c.guard(p.ref, func() { c.target(p, i) })
		}
	}
}

func (p *backendPolicy) source() route.Source {
	return route.Source{Kind: p.ref.Kind, Namespace: p.ref.Namespace, Name: p.ref.Name}
}

// target puts a policy in force for one of its targets, unless an older one is.
func (c *compiler) target(p *backendPolicy, i int) {
	ref, field := &p.obj.Spec.TargetRefs[i], indexed("spec.targetRefs", i)
	if ref.Group != corev1.GroupName || ref.Kind != "Service" {
		c.problems.add(Error, p.ref, field, string(gatewayv1.PolicyReasonTargetNotFound), "a policy cannot be about a %s (group %q); Services are supported", ref.Kind, ref.Group)
		return
	}
	t := policyTarget{object.Key{Namespace: p.ref.Namespace, Name: string(ref.Name)}, string(orDefault(ref.SectionName, ""))}
	switch service := c.in.Services[t.service]; {
	case service == nil:
		c.problems.add(Warning, p.ref, field, string(gatewayv1.PolicyReasonTargetNotFound), "Service %s does not exist", t.service)
	case t.port != "" && !slices.ContainsFunc(service.Spec.Ports, func(s corev1.ServicePort) bool { return s.Name == t.port }):
		c.problems.add(Warning, p.ref, field+".sectionName", string(gatewayv1.PolicyReasonTargetNotFound), "Service %s has no port named %q; it has %s",
			t.service, t.port, portsOf(service))
	}
	if older := c.policies[t]; len(older) > 0 && older[0] != p {
		v := verdict{string(gatewayv1.PolicyReasonConflicted), fmt.Sprintf("%s comes first and is about the same, %s", older[0].ref, t)}
		c.problems.add(Error, p.ref, field, v.Reason, "%s", v.Message)
		p.conflict = p.conflict.or(v)
	}
	set(&c.policies, t, append(c.policies[t], p))
}

// invalid notes why a policy demands something that no endpoint can be held to.
func (c *compiler) invalidPolicy(p *backendPolicy, field string, reason gatewayv1.PolicyConditionReason, format string, args ...any) {
	v := verdict{string(reason), fmt.Sprintf(format, args...)}
	c.problems.add(Error, p.ref, field, v.Reason, "%s", v.Message)
	p.accepted = p.accepted.or(v)
}

// readPolicy reads what a policy demands.
func (c *compiler) readPolicy(p *backendPolicy) {
	spec := &p.obj.Spec
	t := &route.PoolTLS{Source: p.source()}
	name, err := cleanHostname(string(spec.Validation.Hostname), false)
	if err != nil {
		c.invalidPolicy(p, "spec.validation.hostname", gatewayv1.PolicyReasonInvalid, "the hostname %v", err)
	}
	t.ServerName = name
	c.readTrust(p, t)
	for i := range spec.Validation.SubjectAltNames {
		c.readAltName(p, t, i)
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
func (c *compiler) readTrust(p *backendPolicy, t *route.PoolTLS) {
	v, field := &p.obj.Spec.Validation, "spec.validation.caCertificateRefs"
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

func (c *compiler) addAuthority(p *backendPolicy, t *route.PoolTLS, ref *gatewayv1.LocalObjectReference, field string) {
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

func (c *compiler) readAltName(p *backendPolicy, t *route.PoolTLS, i int) {
	san, field := &p.obj.Spec.Validation.SubjectAltNames[i], indexed("spec.validation.subjectAltNames", i)
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
	policy := c.policyFor(service, port)
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

// policyFor returns the policy that is in force for a port of a Service; nil if there is none. One for the port goes before one for the Service.
func (c *compiler) policyFor(service object.Key, port string) *backendPolicy {
	for _, t := range []policyTarget{{service, port}, {service, ""}} {
		if all := c.policies[t]; len(all) > 0 {
			return all[0]
		}
	}
	return nil
}

// policyStatus writes the status of the policies, as seen by each Gateway with a route that leads to what the policy is about.
func (c *compiler) policyStatus(gateways []*gateway) {
	if len(c.policies) == 0 {
		return
	}
	for _, g := range gateways {
		for _, l := range g.listeners {
			for _, o := range l.open {
				for pool := range poolsOf(o.Listener) {
					c.addAncestor(pool, g)
				}
			}
		}
	}
	for _, all := range c.policies {
		for _, p := range all {
			if len(p.ancestors) > 0 {
				set(&c.status.BackendTLSPolicies, p.ref.Key(), c.ancestorStatus(p))
			}
		}
	}
}

// addAncestor notes that a Gateway leads to a pool, for all policies about it.
func (c *compiler) addAncestor(pool *route.Pool, g *gateway) {
	service := object.Key{Namespace: pool.Key.Namespace, Name: pool.Key.Service}
	about := []policyTarget{{service, ""}}
	if name := nameOfPort(c.in.Services[service], pool.Key.Port); name != "" {
		about = append(about, policyTarget{service, name})
	}
	for _, t := range about {
		for _, p := range c.policies[t] {
			set(&p.ancestors, g.ref, true)
		}
	}
}

func (c *compiler) ancestorStatus(p *backendPolicy) (status gatewayv1.PolicyStatus) {
	gateways := make([]object.Ref, 0, len(p.ancestors))
	for ref := range p.ancestors {
		gateways = append(gateways, ref)
	}
	slices.SortFunc(gateways, object.Ref.Compare)
	if len(gateways) > maxAncestors {
		c.problems.add(Warning, p.ref, "status.ancestors", "TooMany", "%d Gateways lead to what the policy is about; the status can hold %d", len(gateways), maxAncestors)
		gateways = gateways[:maxAncestors]
	}
	accepted := p.conflict.or(p.accepted)
	for _, ref := range gateways {
		status.Ancestors = append(status.Ancestors, gatewayv1.PolicyAncestorStatus{
			AncestorRef:    ancestorRef(ref),
			ControllerName: gatewayv1.GatewayController(c.opt.GatewayController),
			Conditions: []metav1.Condition{
				accepted.condition("Accepted", "Accepted", p.obj.Generation),
				p.resolved.condition("ResolvedRefs", "ResolvedRefs", p.obj.Generation),
			},
		})
	}
	return status
}

func ancestorRef(ref object.Ref) gatewayv1.ParentReference {
	return gatewayv1.ParentReference{
		Group: new(gatewayv1.Group(gatewayGroup)), Kind: new(gatewayv1.Kind(ref.Kind)),
		Namespace: new(gatewayv1.Namespace(ref.Namespace)), Name: gatewayv1.ObjectName(ref.Name),
	}
}
