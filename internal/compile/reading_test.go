package compile

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// reading is what the documentation of Gateway API says about a snapshot, read word by word, without indexes and without the compiler's functions. It covers
// what graphs are made of: who may attach, who may refer to what, and who gets a request.
type reading struct{ in *object.Snapshot }

// entry is a listener as its Gateway has it, from wherever it comes.
type entry struct {
	kind       string
	owner      object.Key // the Gateway or ListenerSet
	spec       gatewayv1.Listener
	conflicted bool
}

func isOurs(g *gatewayv1.Gateway) bool { return g.Spec.GatewayClassName == "ours" }

func olderThan(a, b metav1.Object) int {
	switch at, bt := a.GetCreationTimestamp(), b.GetCreationTimestamp(); {
	case at.Time.Before(bt.Time):
		return -1
	case bt.Time.Before(at.Time):
		return 1
	}
	return strings.Compare(a.GetNamespace()+"/"+a.GetName(), b.GetNamespace()+"/"+b.GetName())
}

// entriesOf are the listeners of a Gateway: "the merged list of all listeners from itself and attached ListenerSets using the following precedence: parent Gateway,
// ListenerSet ordered by creation time (oldest first), ListenerSet ordered alphabetically".
func (r reading) entriesOf(g *gatewayv1.Gateway) (out []*entry) {
	for _, l := range g.Spec.Listeners {
		out = append(out, &entry{kind: "Gateway", owner: object.KeyOf(g), spec: l})
	}
	markConflicts(nil, out)
	for _, s := range r.setsOf(g) {
		var own []*entry
		for _, l := range s.Spec.Listeners {
			own = append(own, &entry{kind: "ListenerSet", owner: object.KeyOf(s), spec: gatewayv1.Listener(l)})
		}
		markConflicts(out, own)
		out = append(out, own...)
	}
	return out
}

// markConflicts marks the listeners that are not distinct: from one with precedence, or among themselves, where "the implementation MUST NOT pick one as the winner".
func markConflicts(before, own []*entry) {
	for _, l := range own {
		for _, m := range before {
			l.conflicted = l.conflicted || l.known() && m.served() && indistinct(l, m)
		}
	}
	var lost []*entry
	for _, l := range own {
		for _, m := range own {
			if l != m && l.served() && m.served() && indistinct(l, m) {
				lost = append(lost, l)
			}
		}
	}
	for _, l := range lost {
		l.conflicted = true
	}
}

// indistinct tells whether two listeners cannot both be. "The set of listeners that all share a protocol value MUST have different values for at least one of these
// fields to be distinct: HTTP, HTTPS, TLS: Port, Hostname; TCP, UDP: Port", and "all the Listeners that share a port with the TCP Listener are not distinct". Those
// of TLS and HTTPS can be told apart by the server name alone, and those of HTTP and HTTPS not at all.
func indistinct(l, m *entry) bool {
	switch {
	case l.spec.Port != m.spec.Port || l.isUDP() != m.isUDP():
		return false
	case l.spec.Protocol == m.spec.Protocol, l.isSecure() && m.isSecure():
		return l.hostname() == m.hostname()
	}
	return true
}

// kindsOf are the kinds of routes that can attach to listeners of a protocol.
var kindsOf = map[gatewayv1.ProtocolType][]string{
	"HTTP": {"HTTPRoute", "GRPCRoute"}, "HTTPS": {"HTTPRoute", "GRPCRoute"}, "TLS": {"TLSRoute"}, "TCP": {"TCPRoute"}, "UDP": {"UDPRoute"},
}

func (l *entry) known() bool  { return kindsOf[l.spec.Protocol] != nil }
func (l *entry) served() bool { return l.known() && !l.conflicted }

func (l *entry) isUDP() bool      { return l.spec.Protocol == "UDP" }
func (l *entry) isSecure() bool   { return l.spec.Protocol == "HTTPS" || l.spec.Protocol == "TLS" }
func (l *entry) isRequests() bool { return l.spec.Protocol == "HTTP" || l.spec.Protocol == "HTTPS" }

// passesThrough tells whether TLS does not end at a listener.
func (l *entry) passesThrough() bool {
	return l.spec.TLS != nil && l.spec.TLS.Mode != nil && *l.spec.TLS.Mode == "Passthrough"
}

// hostname is that of a listener. "This field is ignored for protocols that don't require hostname based matching."
func (l *entry) hostname() string {
	if l.spec.Hostname == nil || l.spec.Protocol == "TCP" || l.isUDP() {
		return ""
	}
	return strings.ToLower(string(*l.spec.Hostname))
}

// setsOf are the ListenerSets that are attached to a Gateway, in the order of precedence.
func (r reading) setsOf(g *gatewayv1.Gateway) (out []*gatewayv1.ListenerSet) {
	for _, s := range r.in.ListenerSets {
		if r.gatewayOf(s) == g && r.admitsSet(g, s) {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b *gatewayv1.ListenerSet) int { return olderThan(a, b) })
	return out
}

func (r reading) gatewayOf(s *gatewayv1.ListenerSet) *gatewayv1.Gateway {
	namespace := s.Namespace
	if p := s.Spec.ParentRef.Namespace; p != nil {
		namespace = string(*p)
	}
	g := r.in.Gateways[object.Key{Namespace: namespace, Name: string(s.Spec.ParentRef.Name)}]
	if g == nil || !isOurs(g) {
		return nil
	}
	return g
}

// admitsSet reads AllowedListeners: "If not specified, the default is None", that is no ListenerSet.
func (r reading) admitsSet(g *gatewayv1.Gateway, s *gatewayv1.ListenerSet) bool {
	a := g.Spec.AllowedListeners
	return a != nil && r.from(*a.Namespaces.From, a.Namespaces.Selector, g.Namespace, s.Namespace)
}

// from reads FromNamespaces.
func (r reading) from(from gatewayv1.FromNamespaces, selector *metav1.LabelSelector, own, other string) bool {
	switch from {
	case "All":
		return true
	case "Same":
		return own == other
	case "Selector":
		return r.selected(selector, other)
	}
	return false
}

// selected reads LabelSelector: "matchLabels and matchExpressions are ANDed. An empty label selector matches all objects."
func (r reading) selected(s *metav1.LabelSelector, namespace string) bool {
	labels := map[string]string{"kubernetes.io/metadata.name": namespace}
	if ns := r.in.Namespaces[namespace]; ns != nil {
		maps.Copy(labels, ns.Labels)
	}
	for k, v := range s.MatchLabels {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	for _, e := range s.MatchExpressions {
		have, ok := labels[e.Key]
		in := ok && slices.Contains(e.Values, have)
		if want := map[metav1.LabelSelectorOperator]bool{"Exists": ok, "DoesNotExist": !ok, "In": in, "NotIn": !in}[e.Operator]; !want {
			return false
		}
	}
	return true
}

// allows reads AllowedRoutes of a listener for a kind of route.
func (r reading) allows(l *entry, kind, namespace string) bool {
	kinds, _ := l.kinds()
	if !slices.Contains(kinds, kind) {
		return false
	}
	a := l.spec.AllowedRoutes
	if a == nil {
		return l.owner.Namespace == namespace
	}
	return r.from(*a.Namespaces.From, a.Namespaces.Selector, l.owner.Namespace, namespace)
}

// kinds reads the kinds of AllowedRoutes: "When unspecified or empty, the kinds of Routes selected are determined using the Listener protocol", and "if kinds are
// specified in Spec that are not supported, they MUST NOT appear in this list".
func (l *entry) kinds() (kinds []string, invalid bool) {
	supported := kindsOf[l.spec.Protocol]
	if l.spec.AllowedRoutes == nil || len(l.spec.AllowedRoutes.Kinds) == 0 {
		return supported, false
	}
	for _, k := range l.spec.AllowedRoutes.Kinds {
		if slices.Contains(supported, string(k.Kind)) {
			kinds = append(kinds, string(k.Kind))
		} else {
			invalid = true
		}
	}
	return kinds, invalid
}

// hostnamesOf are those of a route; "" is any.
func hostnamesOf(route *gatewayv1.HTTPRoute) []string {
	if len(route.Spec.Hostnames) == 0 {
		return []string{""}
	}
	var out []string
	for _, h := range route.Spec.Hostnames {
		out = append(out, strings.ToLower(string(h)))
	}
	return out
}

// stands tells whether a pattern stands for a host: "test.example.com and foo.test.example.com, but not example.com" for "*.example.com".
func stands(pattern, host string) bool {
	if pattern == "" || pattern == host {
		return true
	}
	return strings.HasPrefix(pattern, "*.") && strings.HasSuffix(host, pattern[1:]) && len(host) > len(pattern[1:])
}

// common tells whether two hostnames intersect: one of them stands for the other, with a label in place of its star.
func common(a, b string) bool {
	return stands(a, strings.Replace(b, "*", "star", 1)) || stands(b, strings.Replace(a, "*", "star", 1))
}

// parent is what the owner of a parentRef has to say about the route.
type parentReading struct {
	ref    gatewayv1.ParentReference
	reason string // "" is accepted
	taken  []*entry
}

// parentsOf reads the parentRefs of a route: what those that are ours say. entries are the listeners of all of our Gateways.
func (r reading) parentsOf(route *anyRoute, entries []*entry) (out []parentReading) {
	for i, p := range route.Spec.ParentRefs {
		kind, key := "Gateway", object.Key{Namespace: route.Namespace, Name: string(p.Name)}
		if p.Kind != nil {
			kind = string(*p.Kind)
		}
		if p.Namespace != nil {
			key.Namespace = string(*p.Namespace)
		}
		if r.isParent(kind, key) && !slices.ContainsFunc(route.Spec.ParentRefs[:i], func(q gatewayv1.ParentReference) bool { return alike(p, q, route.Namespace) }) {
			reading := r.attachment(route, p, kind, key, entries)
			out = append(out, reading)
		}
	}
	return out
}

// isParent tells whether an object is one of our Gateways, or a ListenerSet that names one.
func (r reading) isParent(kind string, key object.Key) bool {
	if kind == "ListenerSet" {
		s := r.in.ListenerSets[key]
		return s != nil && r.gatewayOf(s) != nil
	}
	g := r.in.Gateways[key]
	return g != nil && isOurs(g)
}

// alike tells whether two parentRefs mean the same.
func alike(p, q gatewayv1.ParentReference, namespace string) bool {
	value := func(p gatewayv1.ParentReference) (out [5]string) {
		out = [5]string{"Gateway", namespace, string(p.Name), "", ""}
		if p.Kind != nil {
			out[0] = string(*p.Kind)
		}
		if p.Namespace != nil {
			out[1] = string(*p.Namespace)
		}
		if p.SectionName != nil {
			out[3] = string(*p.SectionName)
		}
		if p.Port != nil {
			out[4] = fmt.Sprint(*p.Port)
		}
		return out
	}
	return value(p) == value(q)
}

func (r reading) attachment(route *anyRoute, p gatewayv1.ParentReference, kind string, key object.Key, entries []*entry) parentReading {
	out := parentReading{ref: p, reason: "NoMatchingParent"}
	for _, l := range entries {
		if l.kind != kind || l.owner != key || p.SectionName != nil && *p.SectionName != l.spec.Name || p.Port != nil && *p.Port != l.spec.Port {
			continue
		}
		if out.reason == "NoMatchingParent" {
			out.reason = "NotAllowedByListeners"
		}
		if !r.allows(l, route.kind, route.Namespace) {
			continue
		}
		if out.reason != "" {
			out.reason = "NoMatchingListenerHostname"
		}
		if slices.ContainsFunc(hostnamesOf(route.HTTPRoute), func(h string) bool { return common(l.hostname(), h) }) {
			out.reason, out.taken = "", append(out.taken, l)
		}
	}
	return out
}

// certificatesOf reads the certificateRefs of a listener: the Secrets that can be used, and what is wrong with the others.
func (r reading) certificatesOf(l *entry) (usable, reasons []string) {
	if l.spec.TLS == nil || l.passesThrough() {
		return nil, nil
	}
	for _, ref := range l.spec.TLS.CertificateRefs {
		key := secretOf(l, ref)
		s := r.in.Secrets[key]
		switch {
		case !allowedSlowly(r.in, referrer{gatewayGroup, l.kind, l.owner.Namespace}, referent{"", "Secret", key.Namespace, key.Name}):
			reasons = append(reasons, "RefNotPermitted")
		case !isPair(s):
			reasons = append(reasons, "InvalidCertificateRef")
		default:
			usable = append(usable, key.String())
		}
	}
	return usable, reasons
}

// isPair tells whether a Secret holds a certificate and its key, as the graphs have it.
func isPair(s *corev1.Secret) bool {
	return s != nil && s.Type == corev1.SecretTypeTLS && s.Data[corev1.TLSPrivateKeyKey] != nil
}

func secretOf(l *entry, ref gatewayv1.SecretObjectReference) object.Key {
	if ref.Namespace != nil {
		return object.Key{Namespace: string(*ref.Namespace), Name: string(ref.Name)}
	}
	return object.Key{Namespace: l.owner.Namespace, Name: string(ref.Name)}
}

// won is a rule that matches a request, and what decides between those that do.
type won struct {
	route    *anyRoute
	rule     int
	match    int
	hostname string
	exact    bool
	length   int
}

// serves finds out who gets a request at a Gateway, or a call of gRPC; nil is nobody. An HTTPRoute gets calls too, for they are requests.
func (r reading) serves(entries []*entry, routes []routeReading, port gatewayv1.PortNumber, host, path string, call bool) *won {
	owner := ownerOf(entries, port, host)
	if owner == nil || !owner.isRequests() {
		return nil
	}
	var best *won
	for _, read := range routes {
		if read.route.kind != "HTTPRoute" && (read.route.kind != "GRPCRoute" || !call) || !read.isAt(owner) {
			continue
		}
		for _, w := range matching(read.route, owner, host, path) {
			if best == nil || w.before(best) {
				best = w
			}
		}
	}
	return best
}

// ownerOf finds the listener of a request: "Exact matches MUST be processed before wildcard matches, and wildcard matches MUST be processed before fallback (empty
// Hostname value) matches", the longer wildcard first.
func ownerOf(entries []*entry, port gatewayv1.PortNumber, host string) (owner *entry) {
	for _, l := range entries {
		if l.served() && !l.isUDP() && l.spec.Port == port && stands(l.hostname(), host) && (owner == nil || narrower(l.hostname(), owner.hostname())) {
			owner = l
		}
	}
	return owner
}

func narrower(a, b string) bool {
	rank := func(name string) int {
		switch {
		case name == "":
			return 0
		case strings.HasPrefix(name, "*"):
			return len(name)
		}
		return 1000
	}
	return rank(a) > rank(b)
}

// anyRoute is a route of any kind, in the words of an HTTPRoute.
type anyRoute struct {
	kind string
	*gatewayv1.HTTPRoute
}

// routeReading is a route, and what its parents say about it.
type routeReading struct {
	route   *anyRoute
	parents []parentReading
}

func (r routeReading) isAt(l *entry) bool {
	return slices.ContainsFunc(r.parents, func(p parentReading) bool { return slices.Contains(p.taken, l) })
}

// matching are the matches of a route that a request meets. A rule without matches has the prefix "/".
func matching(route *anyRoute, owner *entry, host, path string) (out []*won) {
	for _, name := range hostnamesOf(route.HTTPRoute) {
		if !stands(name, host) || !common(name, owner.hostname()) {
			continue
		}
		for i, rule := range route.Spec.Rules {
			if len(rule.Matches) == 0 {
				out = append(out, &won{route, i, 0, name, false, 1})
			}
			for j, m := range rule.Matches {
				exact, value := *m.Path.Type == "Exact", *m.Path.Value
				if exact && path == value || !exact && (value == "/" || path == value || strings.HasPrefix(path, value+"/")) {
					out = append(out, &won{route, i, j, name, exact, len(value)})
				}
			}
		}
	}
	return out
}

// before reads the precedence of HTTPRouteRule: the most specific hostname, "Exact" path match, "Prefix" path match with largest number of characters, the oldest Route,
// the Route appearing first in alphabetical order, the first matching rule in list order.
func (w *won) before(v *won) bool {
	switch {
	case w.hostname != v.hostname:
		return narrower(w.hostname, v.hostname)
	case w.route.kind != v.route.kind:
		return w.route.kind == "GRPCRoute" // by decision 0010: the specification leaves open who gets what of a shared hostname
	case w.exact != v.exact:
		return w.exact
	case w.length != v.length:
		return w.length > v.length
	case w.route != v.route:
		return olderThan(w.route, v.route) < 0
	case w.rule != v.rule:
		return w.rule < v.rule
	}
	return w.match < v.match
}
