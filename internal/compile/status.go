package compile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// Status is what Fairlead has to say in the status of each object that it is responsible for. Conditions carry ObservedGeneration, and no
// LastTransitionTime: whoever writes them merges them with what is there and owns the time. Parents of routes hold our entries only.
type Status struct {
	GatewayClasses map[string]gatewayv1.GatewayClassStatus
	Gateways       map[object.Key]gatewayv1.GatewayStatus
	ListenerSets   map[object.Key]gatewayv1.ListenerSetStatus
	HTTPRoutes     map[object.Key]gatewayv1.HTTPRouteStatus
	// BackendTLSPolicies hold our ancestors only, as routes hold our parents.
	BackendTLSPolicies map[object.Key]gatewayv1.PolicyStatus
	// XBackendTrafficPolicies hold our ancestors only, too.
	XBackendTrafficPolicies map[object.Key]gatewayv1.PolicyStatus
	GRPCRoutes              map[object.Key]gatewayv1.GRPCRouteStatus
	TLSRoutes               map[object.Key]gatewayv1.TLSRouteStatus
	TCPRoutes               map[object.Key]gatewayv1.TCPRouteStatus
	UDPRoutes               map[object.Key]gatewayv1.UDPRouteStatus
	Ingresses               map[object.Key]networkingv1.IngressStatus
	// XBackends hold our ancestors only.
	XBackends map[object.Key]gatewayx.BackendStatus
}

// set puts a value into a map that may not exist yet.
func set[K comparable, V any](m *map[K]V, key K, value V) {
	if *m == nil {
		*m = make(map[K]V)
	}
	(*m)[key] = value
}

// String returns the status of all objects as text, sorted, one line for each object, listener and parent. A condition that is as it should be is one word;
// any other comes with its status, reason and message.
func (s Status) String() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(s.GatewayClasses)) {
		writeLine(&b, classRef(name).String(), s.GatewayClasses[name].Conditions)
	}
	for _, key := range sortedKeys(s.Gateways) {
		writeGateway(&b, key, s.Gateways[key])
	}
	for _, key := range sortedKeys(s.ListenerSets) {
		writeLine(&b, listenerSetKind+" "+key.String(), s.ListenerSets[key].Conditions)
		for _, l := range s.ListenerSets[key].Listeners {
			writeListener(&b, gatewayv1.ListenerStatus(l))
		}
	}
	for _, key := range sortedKeys(s.HTTPRoutes) {
		writeParents(&b, "HTTPRoute", key, s.HTTPRoutes[key].RouteStatus)
	}
	for _, key := range sortedKeys(s.GRPCRoutes) {
		writeParents(&b, "GRPCRoute", key, s.GRPCRoutes[key].RouteStatus)
	}
	for _, key := range sortedKeys(s.TLSRoutes) {
		writeParents(&b, "TLSRoute", key, s.TLSRoutes[key].RouteStatus)
	}
	for _, key := range sortedKeys(s.TCPRoutes) {
		writeParents(&b, "TCPRoute", key, s.TCPRoutes[key].RouteStatus)
	}
	for _, key := range sortedKeys(s.UDPRoutes) {
		writeParents(&b, "UDPRoute", key, s.UDPRoutes[key].RouteStatus)
	}
	writeAncestors(&b, backendTLSKind, s.BackendTLSPolicies)
	writeAncestors(&b, trafficKind, s.XBackendTrafficPolicies)
	for _, key := range sortedKeys(s.XBackends) {
		for _, a := range s.XBackends[key].Ancestors {
			writeLine(&b, fmt.Sprintf("%s %s for %s", xbackendKind, key, parentName(key.Namespace, a.AncestorRef)), a.Conditions)
		}
	}
	for _, key := range sortedKeys(s.Ingresses) {
		fmt.Fprintf(&b, "Ingress %s:%s\n", key, ingressAddresses(s.Ingresses[key]))
	}
	return b.String()
}

func writeParents(b *strings.Builder, kind string, key object.Key, s gatewayv1.RouteStatus) {
	for _, p := range s.Parents {
		writeLine(b, fmt.Sprintf("%s %s on %s", kind, key, parentName(key.Namespace, p.ParentRef)), p.Conditions)
	}
}

func writeAncestors(b *strings.Builder, kind string, policies map[object.Key]gatewayv1.PolicyStatus) {
	for _, key := range sortedKeys(policies) {
		for _, a := range policies[key].Ancestors {
			writeLine(b, fmt.Sprintf("%s %s for %s", kind, key, parentName(key.Namespace, a.AncestorRef)), a.Conditions)
		}
	}
}

func sortedKeys[V any](m map[object.Key]V) []object.Key {
	return slices.SortedFunc(maps.Keys(m), object.Key.Compare)
}

func writeGateway(b *strings.Builder, key object.Key, s gatewayv1.GatewayStatus) {
	addresses := make([]string, len(s.Addresses))
	for i, a := range s.Addresses {
		addresses[i] = a.Value
	}
	var more []string
	if len(addresses) > 0 {
		more = append(more, "addresses="+strings.Join(addresses, ","))
	}
	if s.AttachedListenerSets != nil {
		more = append(more, fmt.Sprintf("sets=%d", *s.AttachedListenerSets))
	}
	writeLine(b, "Gateway "+key.String(), s.Conditions, more...)
	for _, l := range s.Listeners {
		writeListener(b, l)
	}
}

func writeListener(b *strings.Builder, l gatewayv1.ListenerStatus) {
	kinds := make([]string, len(l.SupportedKinds))
	for i, k := range l.SupportedKinds {
		kinds[i] = string(k.Kind)
	}
	writeLine(b, "  listener "+string(l.Name), l.Conditions,
		fmt.Sprintf("routes=%d", l.AttachedRoutes), "kinds="+cmp.Or(strings.Join(kinds, ","), "none"))
}

// writeLine writes what a line is about, the conditions that are as they should be, what else there is to say, and the other conditions.
func writeLine(b *strings.Builder, what string, conditions []metav1.Condition, more ...string) {
	var short, long []string
	for _, c := range conditions {
		switch {
		case !usual(c):
			long = append(long, strings.TrimSuffix(fmt.Sprintf("%s=%s %s: %s", c.Type, c.Status, c.Reason, c.Message), ": "))
		case c.Status == metav1.ConditionTrue:
			short = append(short, c.Type)
		}
	}
	if words := strings.Join(append(short, more...), " "); words != "" {
		long = slices.Insert(long, 0, words)
	}
	b.WriteString(what + ": " + strings.Join(long, "; ") + "\n")
}

// usual tells whether a condition is as it should be.
func usual(c metav1.Condition) bool {
	return c.Status == metav1.ConditionTrue && c.Reason == c.Type || c.Reason == string(gatewayv1.ListenerReasonNoConflicts)
}

// parentName writes a parentRef for people.
func parentName(namespace string, p gatewayv1.ParentReference) string {
	if p.Namespace != nil {
		namespace = string(*p.Namespace)
	}
	name := object.Key{Namespace: namespace, Name: string(p.Name)}.String()
	if p.SectionName != nil {
		name += "/" + string(*p.SectionName)
	}
	if p.Port != nil {
		name += fmt.Sprintf(":%d", *p.Port)
	}
	if kind := orDefault(p.Kind, "Gateway"); kind != "Gateway" {
		name = string(kind) + " " + name
	}
	return name
}

func ingressAddresses(s networkingv1.IngressStatus) string {
	if len(s.LoadBalancer.Ingress) == 0 {
		return " no address published"
	}
	var b strings.Builder
	for _, a := range s.LoadBalancer.Ingress {
		b.WriteString(" " + a.IP + a.Hostname)
	}
	return b.String()
}
