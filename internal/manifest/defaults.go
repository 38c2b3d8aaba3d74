package manifest

import (
	"fmt"
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"
)

// check returns what an API server would refuse in the parts of an object that the snapshot itself is built from.
func check(o metav1.Object, k *kind) (field []step, message string) {
	metadata := keyStep("metadata")
	if o.GetName() == "" {
		if o.GetGenerateName() != "" {
			return []step{metadata, keyStep("generateName")}, "only an API server generates names; write metadata.name"
		}
		return []step{metadata, keyStep("name")}, "is missing"
	}
	if message := checkName(o.GetName(), 253, true); message != "" {
		return []step{metadata, keyStep("name")}, message
	}
	if k.namespaced && o.GetNamespace() != "" {
		if message := checkName(o.GetNamespace(), 63, false); message != "" {
			return []step{metadata, keyStep("namespace")}, message
		}
	}
	if slice, ok := o.(*discoveryv1.EndpointSlice); ok && slice.AddressType == "" {
		return []step{keyStep("addressType")}, "is missing; want IPv4, IPv6 or FQDN"
	}
	return nil, ""
}

// checkName checks a DNS-1123 subdomain (or label, without dots): names are used in host names, paths and metrics, and everything later may rely on this.
func checkName(name string, length int, dots bool) string {
	allowed := "lower-case letters, digits and '-'"
	if dots {
		allowed = "lower-case letters, digits, '-' and '.'"
	}
	if len(name) > length {
		return fmt.Sprintf("name of %d bytes is too long; the limit is %d", len(name), length)
	}
	labels := []string{name}
	if dots {
		labels = strings.Split(name, ".")
	}
	for _, label := range labels {
		if label == "" || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return fmt.Sprintf("%q is not a name; want %s, with a letter or digit at both ends", name, allowed)
		}
	}
	return ""
}

// setDefaults makes of o what the API server makes of it: the defaults of the API (for the Gateway API, of its CRDs) and of admission. It returns warnings.
func setDefaults(o metav1.Object, k *kind) []string { //nolint:gocyclo // one case for each kind
	if o.GetNamespace() == "" && k.namespaced {
		o.SetNamespace(metav1.NamespaceDefault)
	}
	if !k.namespaced {
		o.SetNamespace("")
	}
	if o.GetGeneration() == 0 {
		o.SetGeneration(1)
	}
	o.SetManagedFields(nil)
	switch o := o.(type) {
	case *corev1.Namespace:
		o.Labels = withLabel(o.Labels, corev1.LabelMetadataName, o.Name)
	case *corev1.Service:
		defaultService(o)
	case *corev1.Secret:
		defaultSecret(o)
	case *discoveryv1.EndpointSlice:
		return defaultEndpointSlice(o)
	case *gatewayv1.Gateway:
		defaultGateway(&o.Spec)
	case *gatewayv1.ListenerSet:
		defaultListenerSet(&o.Spec)
	case *gatewayv1.HTTPRoute:
		defaultHTTPRoute(&o.Spec)
	case *gatewayv1.GRPCRoute:
		defaultGRPCRoute(&o.Spec)
	case *gatewayv1.TLSRoute:
		defaultParents(o.Spec.ParentRefs)
		for i := range o.Spec.Rules {
			defaultBackends(o.Spec.Rules[i].BackendRefs)
		}
	case *gatewayv1.TCPRoute:
		defaultParents(o.Spec.ParentRefs)
		for i := range o.Spec.Rules {
			defaultBackends(o.Spec.Rules[i].BackendRefs)
		}
	case *gatewayx.XBackend:
		if o.Spec.TLS != nil && o.Spec.TLS.ClientCertificateRef != nil {
			defaultSecretRef(o.Spec.TLS.ClientCertificateRef)
		}
	case *gatewayv1.UDPRoute:
		defaultParents(o.Spec.ParentRefs)
		for i := range o.Spec.Rules {
			defaultBackends(o.Spec.Rules[i].BackendRefs)
		}
	case *gatewayx.XBackendTrafficPolicy:
		defaultTrafficPolicy(&o.Spec)
	}
	return nil
}

// fill sets an optional field that is not set.
func fill[T any](field **T, value T) {
	if *field == nil {
		*field = &value
	}
}

// fillZero sets a field that is zero.
func fillZero[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// withLabel returns labels with one more; the map that it was given is not changed.
func withLabel(labels map[string]string, key, value string) map[string]string {
	out := make(map[string]string, len(labels)+1)
	maps.Copy(out, labels)
	out[key] = value
	return out
}

func defaultService(s *corev1.Service) {
	fillZero(&s.Spec.SessionAffinity, corev1.ServiceAffinityNone)
	fillZero(&s.Spec.Type, corev1.ServiceTypeClusterIP)
	if s.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		fill(&s.Spec.SessionAffinityConfig, corev1.SessionAffinityConfig{})
		fill(&s.Spec.SessionAffinityConfig.ClientIP, corev1.ClientIPConfig{})
		fill(&s.Spec.SessionAffinityConfig.ClientIP.TimeoutSeconds, corev1.DefaultClientIPServiceAffinitySeconds)
	}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		fillZero(&p.Protocol, corev1.ProtocolTCP)
		if p.TargetPort == intstr.FromInt32(0) || p.TargetPort == intstr.FromString("") {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
	if s.Spec.Type == corev1.ServiceTypeNodePort || s.Spec.Type == corev1.ServiceTypeLoadBalancer {
		fillZero(&s.Spec.ExternalTrafficPolicy, corev1.ServiceExternalTrafficPolicyCluster)
	}
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer {
		fill(&s.Spec.AllocateLoadBalancerNodePorts, true)
	}
	if s.Spec.Type != corev1.ServiceTypeExternalName {
		fill(&s.Spec.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster)
	}
}

func defaultSecret(s *corev1.Secret) {
	fillZero(&s.Type, corev1.SecretTypeOpaque)
	for key, value := range s.StringData {
		if s.Data == nil {
			s.Data = make(map[string][]byte, len(s.StringData))
		}
		s.Data[key] = []byte(value)
	}
	s.StringData = nil
}

func defaultEndpointSlice(s *discoveryv1.EndpointSlice) []string {
	for i := range s.Ports {
		fill(&s.Ports[i].Name, "")
		fill(&s.Ports[i].Protocol, corev1.ProtocolTCP)
	}
	if s.Labels[discoveryv1.LabelServiceName] == "" {
		return []string{"label " + discoveryv1.LabelServiceName + " is missing: the slice belongs to no Service and is not used"}
	}
	return nil
}

func defaultGateway(g *gatewayv1.GatewaySpec) {
	for i := range g.Addresses {
		fill(&g.Addresses[i].Type, gatewayv1.IPAddressType)
	}
	for i := range g.Listeners {
		defaultListener(&g.Listeners[i])
	}
	if g.AllowedListeners != nil {
		fill(&g.AllowedListeners.Namespaces, gatewayv1.ListenerNamespaces{})
		fill(&g.AllowedListeners.Namespaces.From, gatewayv1.NamespacesFromNone)
	}
	if g.TLS == nil {
		return
	}
	if g.TLS.Backend != nil && g.TLS.Backend.ClientCertificateRef != nil {
		defaultSecretRef(g.TLS.Backend.ClientCertificateRef)
	}
	if front := g.TLS.Frontend; front != nil {
		defaultValidation(front.Default.Validation)
		for i := range front.PerPort {
			defaultValidation(front.PerPort[i].TLS.Validation)
		}
	}
}

func defaultListenerSet(s *gatewayv1.ListenerSetSpec) {
	fill(&s.ParentRef.Group, gatewayv1.GroupName)
	fill(&s.ParentRef.Kind, kindGateway)
	for i := range s.Listeners {
		defaultListener((*gatewayv1.Listener)(&s.Listeners[i]))
	}
}

func defaultListener(l *gatewayv1.Listener) {
	fill(&l.AllowedRoutes, gatewayv1.AllowedRoutes{})
	fill(&l.AllowedRoutes.Namespaces, gatewayv1.RouteNamespaces{})
	fill(&l.AllowedRoutes.Namespaces.From, gatewayv1.NamespacesFromSame)
	for i := range l.AllowedRoutes.Kinds {
		fill(&l.AllowedRoutes.Kinds[i].Group, gatewayv1.GroupName)
	}
	if l.TLS != nil {
		fill(&l.TLS.Mode, gatewayv1.TLSModeTerminate)
		for i := range l.TLS.CertificateRefs {
			defaultSecretRef(&l.TLS.CertificateRefs[i])
		}
	}
}

func defaultSecretRef(r *gatewayv1.SecretObjectReference) {
	fill(&r.Group, "")
	fill(&r.Kind, kindSecret)
}

func defaultValidation(v *gatewayv1.FrontendTLSValidation) {
	if v != nil {
		fillZero(&v.Mode, gatewayv1.AllowValidOnly)
	}
}

func defaultParents(refs []gatewayv1.ParentReference) {
	for i := range refs {
		fill(&refs[i].Group, gatewayv1.GroupName)
		fill(&refs[i].Kind, kindGateway)
	}
}

// defaultBackends is for routes whose backends have no filters.
func defaultBackends(refs []gatewayv1.BackendRef) {
	for i := range refs {
		defaultBackendRef(&refs[i].BackendObjectReference)
		fill(&refs[i].Weight, 1)
	}
}

func defaultHTTPRoute(r *gatewayv1.HTTPRouteSpec) {
	defaultParents(r.ParentRefs)
	if r.Rules == nil {
		r.Rules = []gatewayv1.HTTPRouteRule{{}}
	}
	for i := range r.Rules {
		defaultRule(&r.Rules[i])
	}
}

func defaultRule(r *gatewayv1.HTTPRouteRule) {
	if r.Matches == nil {
		r.Matches = []gatewayv1.HTTPRouteMatch{{}}
	}
	for i := range r.Matches {
		defaultMatch(&r.Matches[i])
	}
	for i := range r.Filters {
		defaultFilter(&r.Filters[i])
	}
	for i := range r.BackendRefs {
		b := &r.BackendRefs[i]
		defaultBackendRef(&b.BackendObjectReference)
		fill(&b.Weight, 1)
		for j := range b.Filters {
			defaultFilter(&b.Filters[j])
		}
	}
	defaultPersistence(r.SessionPersistence)
}

func defaultTrafficPolicy(p *gatewayx.BackendTrafficPolicySpec) {
	defaultPersistence(p.SessionPersistence)
	if r := p.RetryConstraint; r != nil {
		fill(&r.Budget, gatewayx.BudgetDetails{})
		fill(&r.Budget.Percent, 20)
		fill(&r.Budget.Interval, "10s")
		fill(&r.MinRetryRate, gatewayx.RequestRate{Count: new(10), Interval: new(gatewayx.Duration("1s"))})
	}
}

func defaultPersistence(s *gatewayv1.SessionPersistence) {
	if s == nil {
		return
	}
	fill(&s.Type, gatewayv1.CookieBasedSessionPersistence)
	if s.CookieConfig != nil {
		fill(&s.CookieConfig.LifetimeType, gatewayv1.SessionCookieLifetimeType)
	}
}

func defaultMatch(m *gatewayv1.HTTPRouteMatch) {
	fill(&m.Path, gatewayv1.HTTPPathMatch{})
	fill(&m.Path.Type, gatewayv1.PathMatchPathPrefix)
	fill(&m.Path.Value, "/")
	for i := range m.Headers {
		fill(&m.Headers[i].Type, gatewayv1.HeaderMatchExact)
	}
	for i := range m.QueryParams {
		fill(&m.QueryParams[i].Type, gatewayv1.QueryParamMatchExact)
	}
}

func defaultFilter(f *gatewayv1.HTTPRouteFilter) {
	if f.RequestRedirect != nil {
		fill(&f.RequestRedirect.StatusCode, 302)
	}
	defaultMirror(f.RequestMirror)
	if f.CORS != nil {
		fillZero(&f.CORS.MaxAge, 5)
	}
	if f.ExternalAuth != nil {
		defaultBackendRef(&f.ExternalAuth.BackendRef)
	}
}

func defaultBackendRef(r *gatewayv1.BackendObjectReference) {
	fill(&r.Group, "")
	fill(&r.Kind, kindService)
}

func defaultMirror(m *gatewayv1.HTTPRequestMirrorFilter) {
	if m == nil {
		return
	}
	defaultBackendRef(&m.BackendRef)
	if m.Fraction != nil {
		fill(&m.Fraction.Denominator, 100)
	}
}

// defaultGRPCRoute leaves out the rules: the CRD has no default for them.
func defaultGRPCRoute(r *gatewayv1.GRPCRouteSpec) {
	defaultParents(r.ParentRefs)
	for i := range r.Rules {
		rule := &r.Rules[i]
		for j := range rule.Matches {
			defaultGRPCMatch(&rule.Matches[j])
		}
		defaultGRPCFilters(rule.Filters)
		for j := range rule.BackendRefs {
			b := &rule.BackendRefs[j]
			defaultBackendRef(&b.BackendObjectReference)
			fill(&b.Weight, 1)
			defaultGRPCFilters(b.Filters)
		}
		defaultPersistence(rule.SessionPersistence)
	}
}

func defaultGRPCMatch(m *gatewayv1.GRPCRouteMatch) {
	if m.Method != nil {
		fill(&m.Method.Type, gatewayv1.GRPCMethodMatchExact)
	}
	for i := range m.Headers {
		fill(&m.Headers[i].Type, gatewayv1.GRPCHeaderMatchExact)
	}
}

func defaultGRPCFilters(filters []gatewayv1.GRPCRouteFilter) {
	for i := range filters {
		defaultMirror(filters[i].RequestMirror)
	}
}
