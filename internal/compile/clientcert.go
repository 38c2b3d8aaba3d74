package compile

import (
	"fmt"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// clientPair is a certificate that is presented to backends.
type clientPair struct {
	pair     route.KeyPair
	resolved verdict
}

// checkClientCertificate finds the certificate that a Gateway presents to backends. One that cannot be used is not presented, and backends that insist on it will
// say so.
func (c *compiler) checkClientCertificate(g *gateway) {
	tls := g.obj.Spec.TLS
	if tls == nil || tls.Backend == nil || tls.Backend.ClientCertificateRef == nil {
		return
	}
	from := referrer{gatewayGroup, g.ref.Kind, g.ref.Namespace}
	g.client = c.readClientPair(g.ref, from, tls.Backend.ClientCertificateRef, "spec.tls.backend.clientCertificateRef")
}

// readClientPair finds a certificate that an object wants to present to backends.
func (c *compiler) readClientPair(by object.Ref, from referrer, ref *gatewayv1.SecretObjectReference, field string) *clientPair {
	fail := func(reason gatewayv1.GatewayConditionReason, code, message string) *clientPair {
		c.problems.add(Error, by, field, code, "%s", message)
		return &clientPair{resolved: verdict{string(reason), message}}
	}
	if orDefault(ref.Group, "") != "" || orDefault(ref.Kind, "Secret") != "Secret" {
		const reason = gatewayv1.GatewayReasonInvalidClientCertificateRef
		return fail(reason, string(reason), fmt.Sprintf("%s is not a Secret of the core API group", refName(ref)))
	}
	secret := object.Key{Namespace: string(orDefault(ref.Namespace, gatewayv1.Namespace(by.Namespace))), Name: string(ref.Name)}
	if !c.mayRefer(from, secretReferent(secret)) {
		const reason = gatewayv1.GatewayReasonRefNotPermitted
		return fail(reason, string(reason), fmt.Sprintf("no ReferenceGrant in namespace %s lets %ss of namespace %s refer to Secret %s", secret.Namespace, by.Kind, by.Namespace, secret))
	}
	pair, leaf, err := c.readPair(secret)
	if err != nil {
		return fail(gatewayv1.GatewayReasonInvalidClientCertificateRef, err.Code, err.Message)
	}
	if now := c.in.Taken; !now.IsZero() && now.After(leaf.NotAfter) {
		c.problems.add(Error, by, field, codeCertificateExpired, "the certificate in Secret %s expired on %s; backends will refuse it", secret, leaf.NotAfter.UTC().Format(time.DateOnly))
	}
	return &clientPair{pair: pair}
}

// presentCertificates makes the rules of each Gateway that has a certificate for backends lead to pools of its own, which present it.
func (c *compiler) presentCertificates(gateways []*gateway) {
	for _, g := range gateways {
		if g.client == nil || !g.client.resolved.ok() {
			continue
		}
		for _, l := range g.listeners {
			for _, o := range l.open {
				replacePools(o.Listener, func(p *route.Pool) *route.Pool { return c.presenting(p, g) })
			}
		}
	}
}

// presenting returns the pool that a Gateway has in place of another: the same if the endpoints of that do not have to prove who they are, because then nobody
// should prove anything to them either. An XBackend says itself what is presented to it.
func (c *compiler) presenting(p *route.Pool, g *gateway) *route.Pool {
	if p.TLS == nil || p.Key.Variant != "" || p.Key.Kind != "" {
		return p
	}
	key := p.Key
	key.Variant = g.ref.Key().String()
	own := c.pools[key]
	if own == nil {
		copied, tls := *p, *p.TLS
		tls.Client = &g.client.pair
		own = &copied
		own.Key, own.TLS = key, &tls
		c.pools[key] = own
	}
	return own
}
