package watch

import (
	"unique"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// trim removes from an object, which must be the caller's own, what nobody reads, so that it is not kept. Once is as good as twice. It returns the object, or
// for a kind that has had another version the same in the one that is kept.
//
// Whoever starts reading something that is removed here removes the line.
func trim(obj any) (any, error) {
	if o, ok := obj.(*gatewayv1beta1.ReferenceGrant); ok {
		obj = (*gatewayv1.ReferenceGrant)(o)
	}
	if o, ok := obj.(metav1.Object); ok {
		trimMeta(o)
	}
	if o, ok := obj.(runtime.Object); ok {
		o.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{}) // lists come without it
	}
	switch o := obj.(type) {
	case *corev1.Namespace:
		o.Annotations, o.Spec, o.Status = nil, corev1.NamespaceSpec{}, corev1.NamespaceStatus{}
		dropOwners(o)
	case *corev1.Node:
		trimNode(o)
	case *corev1.Service:
		o.Status.Conditions = nil
	case *corev1.Secret:
		trimSecret(o)
	case *corev1.ConfigMap:
		trimConfigMap(o)
	case *discoveryv1.EndpointSlice:
		trimSlice(o)
	case *networkingv1.IngressClass:
		dropOwners(o)
	case *gatewayv1.ReferenceGrant:
		o.Annotations, o.Labels = nil, nil
		dropOwners(o)
	}
	return obj, nil
}

// trimMeta trims what every object has. kubectl's annotation is a copy of the whole object.
func trimMeta(o metav1.Object) {
	o.SetManagedFields(nil)
	o.SetGenerateName("")
	o.SetNamespace(intern(o.GetNamespace()))
	if a := o.GetAnnotations(); a[corev1.LastAppliedConfigAnnotation] != "" {
		delete(a, corev1.LastAppliedConfigAnnotation)
		if len(a) == 0 {
			o.SetAnnotations(nil)
		}
	}
}

func dropOwners(o metav1.Object) {
	o.SetOwnerReferences(nil)
	o.SetFinalizers(nil)
}

// trimNode keeps the addresses of a node, whether it is ready, and whether it is excluded from being led to. A node changes every few minutes otherwise, and is large.
func trimNode(n *corev1.Node) {
	_, excluded := n.Labels[corev1.LabelNodeExcludeBalancers]
	n.Annotations, n.Labels, n.Spec = nil, nil, corev1.NodeSpec{}
	if excluded {
		n.Labels = map[string]string{corev1.LabelNodeExcludeBalancers: ""}
	}
	dropOwners(n)
	status := corev1.NodeStatus{Addresses: n.Status.Addresses}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			status.Conditions = []corev1.NodeCondition{{Type: c.Type, Status: c.Status}}
		}
	}
	n.Status = status
}

// trimSecret keeps a certificate, its key, the authorities in a Secret, and who issued it to Fairlead. Whatever else is secret stays secret.
func trimSecret(s *corev1.Secret) {
	issuer, issued := s.Labels[object.IssuerLabel]
	s.Annotations, s.Labels, s.StringData, s.Immutable = nil, nil, nil, nil
	if issued {
		s.Labels = map[string]string{object.IssuerLabel: intern(issuer)}
	}
	dropOwners(s)
	if s.Type != corev1.SecretTypeTLS {
		s.Data = nil
		return
	}
	for name := range s.Data {
		switch name {
		case corev1.TLSCertKey, corev1.TLSPrivateKeyKey, corev1.ServiceAccountRootCAKey:
		default:
			delete(s.Data, name)
		}
	}
}

// trimConfigMap keeps the authorities in a ConfigMap.
func trimConfigMap(m *corev1.ConfigMap) {
	m.Annotations, m.Labels, m.BinaryData = nil, nil, nil
	dropOwners(m)
	for name := range m.Data {
		if name != corev1.ServiceAccountRootCAKey {
			delete(m.Data, name)
		}
	}
}

// The values that conditions of endpoints point to. There are three of them for every endpoint.
var yes, no = true, false

func shared(b *bool) *bool {
	switch {
	case b == nil:
		return nil
	case *b:
		return &yes
	}
	return &no
}

func trimSlice(s *discoveryv1.EndpointSlice) {
	s.Annotations, s.Generation = nil, 0 // among the annotations is one that changes with every change of a pod
	dropOwners(s)
	switch service, ok := s.Labels[discoveryv1.LabelServiceName]; {
	case !ok:
		s.Labels = nil
	case len(s.Labels) > 1:
		s.Labels = map[string]string{discoveryv1.LabelServiceName: service}
	}
	for i := range s.Endpoints {
		trimEndpoint(&s.Endpoints[i])
	}
}

func trimEndpoint(e *discoveryv1.Endpoint) {
	if len(e.Addresses) > 1 {
		e.Addresses = e.Addresses[:1:1] // the others have no meaning
	}
	c := &e.Conditions
	c.Ready, c.Serving, c.Terminating = shared(c.Ready), shared(c.Serving), shared(c.Terminating)
	e.Hostname, e.DeprecatedTopology, e.Hints = nil, nil, trimHints(e.Hints)
	e.NodeName, e.Zone = internAt(e.NodeName), internAt(e.Zone)
	if t := e.TargetRef; t != nil {
		e.TargetRef = &corev1.ObjectReference{Kind: intern(t.Kind), Namespace: intern(t.Namespace), Name: t.Name}
	}
}

// trimHints keeps for whom an endpoint is meant. Few Services have that, and an EndpointSlice of others may say it with empty lists.
func trimHints(h *discoveryv1.EndpointHints) *discoveryv1.EndpointHints {
	if h == nil || len(h.ForZones)+len(h.ForNodes) == 0 {
		return nil
	}
	for i := range h.ForZones {
		h.ForZones[i].Name = intern(h.ForZones[i].Name)
	}
	for i := range h.ForNodes {
		h.ForNodes[i].Name = intern(h.ForNodes[i].Name)
	}
	return h
}

// intern returns the one copy of a string that many objects have.
func intern(s string) string { return unique.Make(s).Value() }

func internAt(s *string) *string {
	if s != nil {
		*s = intern(*s)
	}
	return s
}
