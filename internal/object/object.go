// Package object holds Snapshot, the one read-only picture of the cluster that the compiler works from. Every source (a folder of YAML, the API server)
// produces a Snapshot and nothing else, so that what is compiled never depends on where it came from.
package object

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"
)

// Key names a namespaced object. It is a struct and never a joined string, so that two different objects cannot have the same key.
type Key struct{ Namespace, Name string }

// String returns namespace/name, for people.
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Name
	}
	return k.Namespace + "/" + k.Name
}

// Compare orders keys by namespace, then name.
func (k Key) Compare(o Key) int {
	return cmp.Or(cmp.Compare(k.Namespace, o.Namespace), cmp.Compare(k.Name, o.Name))
}

// KeyOf returns the key of an object.
func KeyOf(o metav1.Object) Key { return Key{o.GetNamespace(), o.GetName()} }

// Ref names any object: its kind and its key. Namespace is empty for cluster-scoped kinds.
type Ref struct{ Kind, Namespace, Name string }

// Key returns the namespace and name of r.
func (r Ref) Key() Key { return Key{r.Namespace, r.Name} }

// String returns "Kind namespace/name", for people.
func (r Ref) String() string { return r.Kind + " " + r.Key().String() }

// Compare orders refs by kind, namespace and name.
func (r Ref) Compare(o Ref) int {
	return cmp.Or(cmp.Compare(r.Kind, o.Kind), r.Key().Compare(o.Key()))
}

// Snapshot is one picture of everything that Fairlead reads, taken at one moment. The maps and the objects in them are shared and must never be modified
// after the snapshot was handed out; a source that changes one object makes a new Snapshot with new maps and may share the unchanged objects.
//
// The zero value is an empty cluster. A nil map is an empty one. Safe for concurrent reading.
type Snapshot struct {
	// Taken is when the picture was taken. It is the compiler's only clock: certificates are expired or not at this moment.
	Taken time.Time

	Namespaces     map[string]*corev1.Namespace
	Services       map[Key]*corev1.Service
	Secrets        map[Key]*corev1.Secret
	ConfigMaps     map[Key]*corev1.ConfigMap
	Nodes          map[string]*corev1.Node // only those of a cluster whose addresses are shown in statuses
	IngressClasses map[string]*networkingv1.IngressClass
	Ingresses      map[Key]*networkingv1.Ingress

	GatewayClasses  map[string]*gatewayv1.GatewayClass
	Gateways        map[Key]*gatewayv1.Gateway
	ListenerSets    map[Key]*gatewayv1.ListenerSet
	HTTPRoutes      map[Key]*gatewayv1.HTTPRoute
	GRPCRoutes      map[Key]*gatewayv1.GRPCRoute
	TLSRoutes       map[Key]*gatewayv1.TLSRoute
	TCPRoutes       map[Key]*gatewayv1.TCPRoute
	UDPRoutes       map[Key]*gatewayv1.UDPRoute
	ReferenceGrants map[Key]*gatewayv1.ReferenceGrant

	BackendTLSPolicies      map[Key]*gatewayv1.BackendTLSPolicy
	XBackendTrafficPolicies map[Key]*gatewayx.XBackendTrafficPolicy
	XBackends               map[Key]*gatewayx.XBackend

	// Definitions are those of the kinds of the Gateway API that the cluster has, by name (httproutes.gateway.networking.k8s.io). There are none in a folder, nor
	// where Fairlead may not read them.
	Definitions map[string]*Definition

	// EndpointSlices holds the slices of each Service, by the Service's key (the label kubernetes.io/service-name), sorted by name.
	EndpointSlices map[Key][]*discoveryv1.EndpointSlice

	// Origins says where an object was read from, as file:line. It is empty for objects from an API server.
	Origins map[Ref]string
}

// Definition is what a cluster says of a kind itself.
type Definition struct {
	Version string // of the Gateway API that the definition is from, as v1.6.3; "" when it does not say
}

// Sorted returns the values of m ordered by key, so that whoever walks a map of the snapshot walks it the same way each time.
func Sorted[V any](m map[Key]V) []V {
	keys := make([]Key, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, Key.Compare)
	out := make([]V, len(keys))
	for i, k := range keys {
		out[i] = m[k]
	}
	return out
}

// Older orders objects the way Gateway API resolves conflicts: the older creation time first, then the alphabetical order of "{namespace}/{name}".
// An object without a creation time (from a folder) counts as older than any with one, and such objects are ordered by name.
func Older(a, b metav1.Object) int {
	at, bt := a.GetCreationTimestamp().Time, b.GetCreationTimestamp().Time
	return cmp.Or(at.Compare(bt), Alphabetical(KeyOf(a), KeyOf(b)))
}

// Alphabetical orders keys by the text "{namespace}/{name}", in which shop-canary/x comes before shop/x, because "-" comes before "/".
func Alphabetical(a, b Key) int {
	if a.Namespace == b.Namespace {
		return cmp.Compare(a.Name, b.Name)
	}
	return cmp.Compare(a.Namespace+"/", b.Namespace+"/")
}

// SameRoutes reports whether s and t hold the very same objects (by identity) of every kind that a table is compiled from, so that they differ in
// EndpointSlices at most and a table compiled from one is the table of the other. A rolling deploy changes nothing else.
func (s *Snapshot) SameRoutes(t *Snapshot) bool { //nolint:gocyclo // one comparison for each kind
	return s != nil && t != nil &&
		sameObjects(s.Namespaces, t.Namespaces) && sameObjects(s.Nodes, t.Nodes) && sameObjects(s.Services, t.Services) && sameObjects(s.Secrets, t.Secrets) &&
		sameObjects(s.ConfigMaps, t.ConfigMaps) && sameObjects(s.IngressClasses, t.IngressClasses) && sameObjects(s.Ingresses, t.Ingresses) &&
		sameObjects(s.GatewayClasses, t.GatewayClasses) && sameObjects(s.Gateways, t.Gateways) && sameObjects(s.HTTPRoutes, t.HTTPRoutes) &&
		sameObjects(s.GRPCRoutes, t.GRPCRoutes) && sameObjects(s.ReferenceGrants, t.ReferenceGrants) && sameObjects(s.ListenerSets, t.ListenerSets) &&
		sameObjects(s.BackendTLSPolicies, t.BackendTLSPolicies) && sameObjects(s.XBackendTrafficPolicies, t.XBackendTrafficPolicies) &&
		sameObjects(s.XBackends, t.XBackends) && sameObjects(s.Definitions, t.Definitions) &&
		sameObjects(s.TLSRoutes, t.TLSRoutes) && sameObjects(s.TCPRoutes, t.TCPRoutes) && sameObjects(s.UDPRoutes, t.UDPRoutes)
}

// sameObjects reports whether two maps hold the very same objects. A source shares the map of a kind in which nothing changed, and that takes no look inside.
func sameObjects[K comparable, V any](a, b map[K]*V) bool {
	return reflect.ValueOf(a).UnsafePointer() == reflect.ValueOf(b).UnsafePointer() || maps.Equal(a, b)
}

// IssuerLabel is the label of a Secret that Fairlead made for a certificate that it was issued; its value is the name of the issuer. A Secret without it is
// somebody else's, and is never written.
const IssuerLabel = "fairlead.io/acme-issuer"
