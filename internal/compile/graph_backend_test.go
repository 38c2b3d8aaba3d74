package compile

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// service has one or two ports, often of the same number.
func (g *graph) service() {
	o := &corev1.Service{ObjectMeta: g.meta()}
	all := []corev1.ServicePort{{Name: "web", Port: 80}, {Name: "dns", Port: 80, Protocol: corev1.ProtocolUDP}, {Name: "alt", Port: 81, Protocol: corev1.ProtocolTCP}}
	first := pickOf(g, []int{0, 0, 0, 1, 2})
	o.Spec.Ports = append(o.Spec.Ports, all[first])
	if second := g.IntN(3); second != first && g.oneIn(2) {
		o.Spec.Ports = append(o.Spec.Ports, all[second])
	}
	set(&g.in.Services, object.KeyOf(o), o)
}

func (g *graph) xbackend() {
	o := &gatewayx.XBackend{ObjectMeta: g.meta()}
	o.Spec.Type, o.Spec.Port.Port = gatewayx.BackendTypeExternalHostname, 443
	hostname := pickOf(g, []gatewayv1.PreciseHostname{"api.example.net", "api.example.net", "api.example.net", "a.shop.svc.cluster.local"})
	o.Spec.ExternalHostname = &gatewayx.ExternalHostnameBackend{Hostname: hostname}
	o.Spec.Protocol = maybe(g, 3, pickOf(g, []gatewayx.BackendProtocol{gatewayx.BackendProtocolTCP, gatewayx.BackendProtocolHTTP2}))
	if g.oneIn(2) {
		o.Spec.TLS = &gatewayx.BackendTLS{Mode: gatewayx.BackendTLSModeServerOnly, Validation: g.validation(o.Namespace)}
		if g.oneIn(3) {
			o.Spec.TLS.Mode, o.Spec.TLS.ClientCertificateRef = gatewayx.BackendTLSModeClientAndServer, new(g.secretRef(gatewayx.GroupName, "XBackend", o.Namespace))
		}
	}
	set(&g.in.XBackends, object.KeyOf(o), o)
}

// validation trusts what there may be, in ConfigMaps of the object's own namespace, or well known authorities.
func (g *graph) validation(namespace string) gatewayv1.BackendTLSPolicyValidation {
	v := gatewayv1.BackendTLSPolicyValidation{Hostname: "backend.test"}
	if g.oneIn(3) {
		v.WellKnownCACertificates = new(pickOf(g, []gatewayv1.WellKnownCACertificatesType{"System", "System", "example.com/odd"}))
		return v
	}
	g.some(1, 2, func() {
		kind := pickOf(g, []gatewayv1.Kind{"ConfigMap", "ConfigMap", "ConfigMap", "ConfigMap", "Secret"})
		ref := gatewayv1.LocalObjectReference{Kind: kind, Name: gatewayv1.ObjectName(pickOf(g, graphNames))}
		if kind == "ConfigMap" && g.oneIn(2) {
			g.configMap(namespace, string(ref.Name))
		}
		v.CACertificateRefs = append(v.CACertificateRefs, ref)
	})
	return v
}

// configMap holds an authority, mostly.
func (g *graph) configMap(namespace, name string) {
	o := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: map[string]string{"ca.crt": string(graphPair()[corev1.TLSCertKey])}}
	switch g.IntN(6) {
	case 0:
		o.Data = map[string]string{"other.crt": o.Data["ca.crt"]}
	case 1:
		o.Data["ca.crt"] = "no certificate"
	}
	set(&g.in.ConfigMaps, object.KeyOf(o), o)
}

// backendTLSPolicy is about one or two Services, mostly of its own namespace, or about one of their ports.
func (g *graph) backendTLSPolicy() {
	o := &gatewayv1.BackendTLSPolicy{ObjectMeta: g.meta()}
	names := []string{pickOf(g, graphNames)}
	if services := object.Sorted(g.in.Services); len(services) > 0 && !g.oneIn(4) {
		to := pickOf(g, services)
		o.Namespace, names[0] = to.Namespace, to.Name
	}
	if more := pickOf(g, graphNames); more != names[0] && g.oneIn(2) {
		names = append(names, more)
	}
	o.Spec.Validation = g.validation(o.Namespace)
	for _, name := range names {
		var t gatewayv1.LocalPolicyTargetReferenceWithSectionName
		t.Kind, t.Name = "Service", gatewayv1.ObjectName(name)
		t.SectionName = maybe(g, 3, pickOf(g, []gatewayv1.SectionName{"web", "web", "dns", "alt", "odd"}))
		o.Spec.TargetRefs = append(o.Spec.TargetRefs, t)
	}
	set(&g.in.BackendTLSPolicies, object.KeyOf(o), o)
}

// backendRef names a Service or an XBackend for a route, mostly one that there is and that can take what it gets.
func (g *graph) backendRef(kind gatewayv1.Kind, namespace string) (b gatewayv1.BackendRef) {
	to := referent{"", "Service", namespace, pickOf(g, graphNames)}
	b.Port = new(pickOf(g, []int32{80, 80, 80, 81}))
	services := slices.DeleteFunc(object.Sorted(g.in.Services), func(s *corev1.Service) bool {
		return !g.oneIn(6) && !slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return (p.Protocol == corev1.ProtocolUDP) == (kind == "UDPRoute") })
	})
	backends := object.Sorted(g.in.XBackends)
	switch {
	case g.oneIn(16):
		to.Kind = "Secret"
	case len(backends) > 0 && g.oneIn(4):
		o := pickOf(g, backends)
		to, b.Port = referent{gatewayx.GroupName, "XBackend", o.Namespace, o.Name}, maybe(g, 8, pickOf(g, graphPorts))
	case g.oneIn(15):
		to.Group, to.Kind, b.Port = gatewayx.GroupName, "XBackend", nil
	case len(services) > 0 && !g.oneIn(6):
		o := pickOf(g, services)
		to.Namespace, to.Name, b.Port = o.Namespace, o.Name, new(pickOf(g, o.Spec.Ports).Port)
	}
	b.Group, b.Kind, b.Name = new(gatewayv1.Group(to.Group)), new(gatewayv1.Kind(to.Kind)), gatewayv1.ObjectName(to.Name)
	if to.Namespace != namespace || g.oneIn(2) {
		b.Namespace = new(gatewayv1.Namespace(to.Namespace))
	}
	g.refer(gatewayv1.ReferenceGrantFrom{Group: gatewayGroup, Kind: kind, Namespace: gatewayv1.Namespace(namespace)}, to)
	return b
}
