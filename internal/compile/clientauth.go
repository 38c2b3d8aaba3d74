package compile

import (
	"cmp"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// clientDemand is what a Gateway demands of the clients of the listeners on some of its ports.
type clientDemand struct {
	clients  *route.ClientAuth
	accepted verdict // whether there is anything that clients could be held to
	resolved verdict
}

// checkClientValidation finds out what certificates the clients of an HTTPS listener must have. A listener whose clients cannot be told from others is closed: to
// serve it without would open to everybody what its author meant to close.
func (c *compiler) checkClientValidation(l *listener) {
	tls := l.gateway.obj.Spec.TLS
	if !l.terminates() || tls == nil || tls.Frontend == nil {
		return
	}
	config, field := &tls.Frontend.Default, "spec.tls.frontend.default"
	for i := range tls.Frontend.PerPort {
		if p := &tls.Frontend.PerPort[i]; p.Port == l.spec.Port {
			config, field = &p.TLS, indexed("spec.tls.frontend.perPort", i)+".tls"
		}
	}
	if config.Validation == nil {
		return
	}
	if l.protocol != route.HTTPS { // which is what Gateway API says that the field is about
		c.problems.add(Warning, l.parent.ref, l.field+".protocol", "ClientsNotValidated",
			"%s.validation of %s is for listeners of protocol HTTPS: clients of this one need no certificate", field, l.gateway.ref)
		return
	}
	d := c.clientDemand(l.gateway, config.Validation, field+".validation")
	l.clients = d.clients
	l.accepted, l.resolved = l.accepted.or(d.accepted), l.resolved.or(d.resolved)
}

// clientDemand returns what one field of a Gateway demands. It is the same for all listeners that the field is about.
func (c *compiler) clientDemand(g *gateway, v *gatewayv1.FrontendTLSValidation, field string) *clientDemand {
	if d := g.demands[field]; d != nil {
		return d
	}
	d := &clientDemand{clients: &route.ClientAuth{Source: route.Source{Kind: g.ref.Kind, Namespace: g.ref.Namespace, Name: g.ref.Name, Field: field}}}
	set(&g.demands, field, d)
	switch v.Mode {
	case gatewayv1.AllowValidOnly, "":
	case gatewayv1.AllowInsecureFallback:
		d.clients.Optional = true
	default:
		d.accepted = verdict{string(gatewayv1.ListenerReasonUnsupportedValue), fmt.Sprintf("mode %q of %s is neither AllowValidOnly nor AllowInsecureFallback", v.Mode, field)}
		c.problems.add(Error, g.ref, field+".mode", d.accepted.Reason, "%s", d.accepted.Message)
	}
	field += ".caCertificateRefs"
	c.checkLimit(g.ref, field, len(v.CACertificateRefs), 16)
	for i := range v.CACertificateRefs {
		c.addClientAuthority(g, d, &v.CACertificateRefs[i], indexed(field, i))
	}
	if len(d.clients.Authorities) == 0 {
		none := verdict{string(gatewayv1.ListenerReasonNoValidCACertificate), "no authority for the certificates of clients: " + cmp.Or(d.resolved.Message, "caCertificateRefs is empty")}
		c.problems.add(Error, g.ref, field, none.Reason, "%s; the listeners are closed rather than open to everybody", none.Message)
		d.accepted = d.accepted.or(none)
	}
	return d
}

func (c *compiler) addClientAuthority(g *gateway, d *clientDemand, ref *gatewayv1.ObjectReference, field string) {
	fail := func(reason gatewayv1.ListenerConditionReason, code, message string) {
		c.problems.add(Error, g.ref, field, code, "%s", message)
		d.resolved = d.resolved.or(verdict{string(reason), message})
	}
	if ref.Group != corev1.GroupName || ref.Kind != "ConfigMap" {
		const reason = gatewayv1.ListenerReasonInvalidCACertificateKind
		fail(reason, string(reason), fmt.Sprintf("authorities cannot be read from a %s (group %q); from ConfigMaps they can", ref.Kind, ref.Group))
		return
	}
	key := object.Key{Namespace: string(orDefault(ref.Namespace, gatewayv1.Namespace(g.ref.Namespace))), Name: string(ref.Name)}
	if !c.mayRefer(referrer{gatewayGroup, g.ref.Kind, g.ref.Namespace}, configMapReferent(key)) {
		const reason = gatewayv1.ListenerReasonRefNotPermitted
		fail(reason, string(reason), fmt.Sprintf("no ReferenceGrant in namespace %s lets %ss of namespace %s refer to ConfigMap %s", key.Namespace, g.ref.Kind, g.ref.Namespace, key))
		return
	}
	pem, err := c.readAuthorities(key)
	if err != nil {
		fail(gatewayv1.ListenerReasonInvalidCACertificateRef, err.Code, err.Message)
		return
	}
	d.clients.Authorities = append(slices.Clip(d.clients.Authorities), pem...)
	d.clients.From = append(d.clients.From, key.String())
}

// insecureFrontend is the condition of a Gateway that lets clients in whose certificates nobody verifies; nil when it does not.
func (g *gateway) insecureFrontend() *metav1.Condition {
	tls := g.obj.Spec.TLS
	if tls == nil || tls.Frontend == nil {
		return nil
	}
	fields := []string{}
	insecure := func(v *gatewayv1.FrontendTLSValidation, field string) {
		if v != nil && v.Mode == gatewayv1.AllowInsecureFallback {
			fields = append(fields, field)
		}
	}
	insecure(tls.Frontend.Default.Validation, "default")
	for _, p := range tls.Frontend.PerPort {
		insecure(p.TLS.Validation, fmt.Sprintf("port %d", p.Port))
	}
	if len(fields) == 0 {
		return nil
	}
	return &metav1.Condition{
		Type: string(gatewayv1.GatewayConditionInsecureFrontendValidationMode), Status: metav1.ConditionTrue, Reason: string(gatewayv1.GatewayReasonConfigurationChanged),
		Message: "clients are let in without a valid certificate: " + list(fields), ObservedGeneration: g.obj.Generation,
	}
}
