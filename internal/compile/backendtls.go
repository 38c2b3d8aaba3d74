package compile

import (
	"fmt"

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
	p.tls = c.readDemand(&p.demander, &spec.Validation, "spec.validation")
	for option := range spec.Options {
		c.unsupported(p.ref, "spec.options", fmt.Sprintf("the option %s is not known and ignored", option))
	}
	c.checkLimit(p.ref, "spec.targetRefs", len(spec.TargetRefs), 16)
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
