package manifest

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"
)

// kind is one kind of object that is read.
type kind struct {
	name       string
	versions   []string // the values of apiVersion that are read, the preferred one first
	namespaced bool
	make       func() metav1.Object
}

const (
	coreVersion      = "v1"
	networkVersion   = "networking.k8s.io/v1"
	discoveryVersion = "discovery.k8s.io/v1"
	gatewayVersion   = "gateway.networking.k8s.io/v1"
	gatewayX         = "gateway.networking.x-k8s.io/v1alpha1"
	gatewayBeta      = "gateway.networking.k8s.io/v1beta1" // served by the CRDs beside v1, with the same schema
)

// The names of the kinds, as they stand in object.Ref.
const (
	kindNamespace      = "Namespace"
	kindService        = "Service"
	kindSecret         = "Secret"
	kindConfigMap      = "ConfigMap"
	kindIngressClass   = "IngressClass"
	kindIngress        = "Ingress"
	kindEndpointSlice  = "EndpointSlice"
	kindGatewayClass   = "GatewayClass"
	kindGateway        = "Gateway"
	kindListenerSet    = "ListenerSet"
	kindHTTPRoute      = "HTTPRoute"
	kindGRPCRoute      = "GRPCRoute"
	kindTLSRoute       = "TLSRoute"
	kindTCPRoute       = "TCPRoute"
	kindUDPRoute       = "UDPRoute"
	kindReferenceGrant = "ReferenceGrant"
	kindBackendTLS     = "BackendTLSPolicy"
	kindTrafficPolicy  = "XBackendTrafficPolicy"
	kindXBackend       = "XBackend"
)

var kinds = []*kind{
	{kindNamespace, []string{coreVersion}, false, func() metav1.Object { return &corev1.Namespace{} }},
	{kindService, []string{coreVersion}, true, func() metav1.Object { return &corev1.Service{} }},
	{kindSecret, []string{coreVersion}, true, func() metav1.Object { return &corev1.Secret{} }},
	{kindConfigMap, []string{coreVersion}, true, func() metav1.Object { return &corev1.ConfigMap{} }},
	{kindIngressClass, []string{networkVersion}, false, func() metav1.Object { return &networkingv1.IngressClass{} }},
	{kindIngress, []string{networkVersion}, true, func() metav1.Object { return &networkingv1.Ingress{} }},
	{kindEndpointSlice, []string{discoveryVersion}, true, func() metav1.Object { return &discoveryv1.EndpointSlice{} }},
	{kindGatewayClass, []string{gatewayVersion, gatewayBeta}, false, func() metav1.Object { return &gatewayv1.GatewayClass{} }},
	{kindGateway, []string{gatewayVersion, gatewayBeta}, true, func() metav1.Object { return &gatewayv1.Gateway{} }},
	{kindListenerSet, []string{gatewayVersion}, true, func() metav1.Object { return &gatewayv1.ListenerSet{} }},
	{kindHTTPRoute, []string{gatewayVersion, gatewayBeta}, true, func() metav1.Object { return &gatewayv1.HTTPRoute{} }},
	{kindGRPCRoute, []string{gatewayVersion}, true, func() metav1.Object { return &gatewayv1.GRPCRoute{} }},
	{kindTLSRoute, []string{gatewayVersion}, true, func() metav1.Object { return &gatewayv1.TLSRoute{} }},
	{kindTCPRoute, []string{gatewayVersion}, true, func() metav1.Object { return &gatewayv1.TCPRoute{} }},
	{kindUDPRoute, []string{gatewayVersion}, true, func() metav1.Object { return &gatewayv1.UDPRoute{} }},
	{kindReferenceGrant, []string{gatewayVersion, gatewayBeta}, true, func() metav1.Object { return &gatewayv1.ReferenceGrant{} }},
	{kindBackendTLS, []string{gatewayVersion}, true, func() metav1.Object { return &gatewayv1.BackendTLSPolicy{} }},
	{kindTrafficPolicy, []string{gatewayX}, true, func() metav1.Object { return &gatewayx.XBackendTrafficPolicy{} }},
	{kindXBackend, []string{gatewayX}, true, func() metav1.Object { return &gatewayx.XBackend{} }},
}

// silent are kinds of the groups read here that Fairlead has no use for. A folder may hold them; nothing is said about them.
var silent = []string{
	"Binding", "ComponentStatus", "Event", "LimitRange", "Node", "PersistentVolume", "PersistentVolumeClaim", "Pod", "PodTemplate", "ReplicationController",
	"ResourceQuota", "ServiceAccount", "Status", "NetworkPolicy", "IPAddress", "ServiceCIDR", "XMesh",
}

// unserved are kinds that ask for something to be served which is not, so that their author is told. The value says what to do.
var unserved = map[string]string{
	"Endpoints":    "write an EndpointSlice",
	"XListenerSet": "write a ListenerSet of " + gatewayVersion,
}

// groups are the API groups of the kinds, and those where older versions of them lived.
var groups = []string{"", "networking.k8s.io", "discovery.k8s.io", "gateway.networking.k8s.io", "gateway.networking.x-k8s.io"}

var oldGroups = []string{"extensions", "networking.x-k8s.io"}

func groupOf(apiVersion string) string {
	group, _, ok := strings.Cut(apiVersion, "/")
	if !ok {
		return ""
	}
	return group
}

// classify finds the kind for what a document says. A nil kind is not read; the message, if there is one, says why that is probably not what was meant.
func classify(apiVersion, name string) (k *kind, message string, fatal bool) {
	group := groupOf(apiVersion)
	ours := slices.Contains(groups, group)
	for _, k := range kinds {
		switch {
		case k.name != name:
		case slices.Contains(k.versions, apiVersion):
			return k, "", false
		case ours || slices.Contains(oldGroups, group) || nearest(group, groups[1:]) != "":
			return nil, fmt.Sprintf("%s is read from apiVersion %s, not %s", name, k.versions[0], apiVersion), true
		}
	}
	switch what, ok := unserved[name]; {
	case !ours || slices.Contains(silent, name):
		return nil, "", false
	case ok:
		return nil, fmt.Sprintf("%s is not served: %s", name, what), false
	}
	return unknownKind(apiVersion, name)
}

// unknownKind is a kind that its group does not have: a slip, or a name that is not written to its end.
func unknownKind(apiVersion, name string) (*kind, string, bool) {
	message := fmt.Sprintf("unknown kind %s in apiVersion %s", name, apiVersion)
	var names []string
	for _, k := range kinds {
		names = append(names, k.name)
	}
	if near := nearest(name, names); near != "" {
		message += "; did you mean " + near + "?"
	}
	return nil, message, true
}

// kindOf returns the kind of a name that is in kinds.
func kindOf(name string) *kind {
	return kinds[slices.IndexFunc(kinds, func(k *kind) bool { return k.name == name })]
}

// itemKind returns the kind of the items of a list such as IngressList, or nothing for the kind List, whose items say it themselves. Other groups may have
// kinds whose names end like that.
func itemKind(apiVersion, name string) (item string, isList bool) {
	if !slices.Contains(groups, groupOf(apiVersion)) {
		return "", false
	}
	return strings.CutSuffix(name, "List")
}
