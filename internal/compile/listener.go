package compile

import (
	"cmp"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// listener is a listener of a Gateway while it is compiled.
type listener struct {
	parent     *parent // whose spec it stands in
	gateway    *gateway
	spec       *gatewayv1.Listener
	name       string
	field      string         // spec.listeners[i]
	hostname   string         // lower case; "" is any
	protocol   route.Protocol // "" when it is none of ours
	mode       route.Mode
	port       uint16 // that is bound
	clientPort uint16 // that clients connect to
	kinds      []gatewayv1.RouteGroupKind
	from       allowance

	accepted   verdict
	conflicted verdict // yes means that there is no conflict
	pending    verdict // why it is not bound yet, or nowhere, though it may be
	resolved   verdict
	clients    *route.ClientAuth // HTTPS; nil: nothing is demanded of clients
	pairs      []route.KeyPair   // where TLS ends; none: it presents a self-signed certificate
	order      *order            // of its certificate; nil: none is on order
	certified  []string          // the names in the certificates of pairs, in lower case
	overlap    overlap           // with other listeners of its port
	attached   int32
	open       []*openListener
}

// openListener is a listener on one of the addresses of its Gateway.
type openListener struct {
	*route.Listener
	hosts map[string]*route.Host
}

// host returns the host of a name, made if need be.
func (o *openListener) host(name string) *route.Host {
	h := o.hosts[name]
	if h == nil {
		h = &route.Host{Name: name}
		o.hosts[name] = h
		o.Hosts = append(o.Hosts, h)
	}
	return h
}

// String names a listener for people.
func (l *listener) String() string { return fmt.Sprintf("listener %s of %s", l.name, l.parent.ref) }

// toldTo names a listener for the author of another parent, who may not be meant to know which ListenerSets there are in other namespaces.
func (l *listener) toldTo(p *parent) string {
	if l.parent.added() && l.parent.ref.Namespace != p.ref.Namespace {
		return "a listener of a ListenerSet in another namespace"
	}
	return l.String()
}

// listeners compiles each listener of a parent as far as that needs no other listener.
func (c *compiler) listeners(p *parent, specs []gatewayv1.Listener) {
	names := make(map[string]bool, len(specs))
	for i := range specs {
		spec := &specs[i]
		l := &listener{parent: p, gateway: p.gateway, spec: spec, name: string(spec.Name), field: indexed("spec.listeners", i)}
		// A name that is not unique cannot have a status of its own, and one that is no name cannot have any.
		switch {
		case !validName(l.name):
			c.problems.add(Error, p.ref, l.field+".name", "InvalidName", "%q cannot be the name of a listener, which is then not served", l.name)
		case names[l.name]:
			c.problems.add(Error, p.ref, l.field+".name", "DuplicateName", "another listener is named %q already; this one is not served", l.name)
		default:
			names[l.name] = true
			p.entries = append(p.entries, l)
			c.checkListener(l)
		}
	}
}

func (c *compiler) checkListener(l *listener) {
	c.checkProtocol(l)
	c.checkPort(l)
	c.checkHostname(l)
	c.checkClientValidation(l)
	c.checkKinds(l)
	c.checkAllowedNamespaces(l)
	c.checkCertificateRefs(l)
}

// reject notes why a listener is not accepted; the first reason is the one in its status.
func (c *compiler) reject(l *listener, field string, reason gatewayv1.ListenerConditionReason, format string, args ...any) {
	v := verdict{string(reason), fmt.Sprintf(format, args...)}
	c.problems.add(Error, l.parent.ref, l.field+field, v.Reason, "%s", v.Message)
	l.accepted = l.accepted.or(v)
}

// unresolved notes why a reference of a listener does not resolve.
func (c *compiler) unresolved(l *listener, field string, reason gatewayv1.ListenerConditionReason, message string) {
	c.problems.add(Error, l.parent.ref, field, string(reason), "%s", message)
	l.resolved = l.resolved.or(verdict{string(reason), message})
}

func (c *compiler) checkProtocol(l *listener) {
	tls := l.spec.TLS
	switch l.spec.Protocol {
	case gatewayv1.HTTPProtocolType:
		l.protocol = route.HTTP
		if tls != nil {
			// Whoever wrote a certificate expects encryption: serving in clear text instead would be worse than serving nothing.
			c.reject(l, ".tls", gatewayv1.ListenerReasonUnsupportedValue, "a listener of protocol HTTP cannot have tls; for encryption the protocol is HTTPS")
		}
	case gatewayv1.HTTPSProtocolType:
		l.protocol = route.HTTPS
		if tls != nil && tls.Mode != nil && *tls.Mode != gatewayv1.TLSModeTerminate {
			c.reject(l, ".tls.mode", gatewayv1.ListenerReasonUnsupportedValue, "TLS mode %q is not supported with protocol HTTPS; Terminate is", *tls.Mode)
		}
	case gatewayv1.TLSProtocolType:
		l.protocol = route.TLS
		c.checkTLSMode(l)
	case gatewayv1.TCPProtocolType:
		l.protocol, l.mode = route.TCP, route.Raw
		c.checkRaw(l)
	case gatewayv1.UDPProtocolType:
		l.protocol, l.mode = route.UDP, route.Raw
		c.checkRaw(l)
	default:
		c.reject(l, ".protocol", gatewayv1.ListenerReasonUnsupportedProtocol, "protocol %q is not supported; HTTP, HTTPS, TLS, TCP and UDP are", l.spec.Protocol)
	}
}

// checkTLSMode finds out what a listener of protocol TLS does with TLS.
func (c *compiler) checkTLSMode(l *listener) {
	tls := l.spec.TLS
	switch {
	case tls == nil || tls.Mode == nil:
		c.reject(l, ".tls.mode", gatewayv1.ListenerReasonUnsupportedValue, "a listener of protocol TLS needs a TLS mode: Passthrough or Terminate")
	case *tls.Mode == gatewayv1.TLSModePassthrough:
		l.mode = route.Passthrough
		if len(tls.CertificateRefs) > 0 {
			c.problems.add(Warning, l.parent.ref, l.field+".tls.certificateRefs", "NotUsed", "with TLS mode Passthrough the backends present certificates; these are not used")
		}
	case *tls.Mode == gatewayv1.TLSModeTerminate:
		l.mode = route.Terminate
	default:
		c.reject(l, ".tls.mode", gatewayv1.ListenerReasonUnsupportedValue, "TLS mode %q is neither Passthrough nor Terminate", *tls.Mode)
	}
}

// checkRaw looks for fields that mean nothing where bytes are passed on unread. Serving without what they ask for would not be what their author meant.
func (c *compiler) checkRaw(l *listener) {
	if l.spec.TLS != nil {
		c.reject(l, ".tls", gatewayv1.ListenerReasonUnsupportedValue, "a listener of protocol %s cannot have tls; for that the protocol is TLS", l.spec.Protocol)
	}
	if l.spec.Hostname != nil && *l.spec.Hostname != "" {
		c.reject(l, ".hostname", gatewayv1.ListenerReasonUnsupportedValue, "a listener of protocol %s cannot have a hostname: nothing in what arrives names one", l.spec.Protocol)
	}
}

// terminates tells whether TLS ends at the listener, which needs certificates for that.
func (l *listener) terminates() bool { return l.protocol == route.HTTPS || l.mode == route.Terminate }

func (c *compiler) checkPort(l *listener) {
	if p := l.spec.Port; p < 1 || p > 65535 {
		c.reject(l, ".port", gatewayv1.ListenerReasonPortUnavailable, "port %d does not exist; ports are 1 to 65535", p)
	} else {
		l.port = uint16(p)
		if c.opt.Cluster == nil {
			l.port = c.opt.bindPort(l.port)
		}
		l.clientPort = c.opt.clientPort(uint16(p), l.port)
	}
}

func (c *compiler) checkHostname(l *listener) {
	if l.spec.Hostname == nil || *l.spec.Hostname == "" {
		return
	}
	name, err := cleanHostname(string(*l.spec.Hostname), true)
	if err != nil {
		c.reject(l, ".hostname", gatewayv1.ListenerReasonUnsupportedValue, "the hostname %v", err)
	}
	if l.mode != route.Raw {
		l.hostname = name
		c.hostOwner(name, l.parent.ref.Namespace)
	}
}

// checkKinds finds the kinds of routes that may attach to a listener.
func (c *compiler) checkKinds(l *listener) {
	l.kinds = []gatewayv1.RouteGroupKind{}
	supported := protocolKinds(l.protocol)
	allowed := l.spec.AllowedRoutes
	if allowed == nil || len(allowed.Kinds) == 0 {
		l.kinds = append(l.kinds, supported...)
		return
	}
	for i, k := range allowed.Kinds {
		group := gatewayv1.Group(gatewayGroup)
		if k.Group != nil {
			group = *k.Group
		}
		switch {
		case !hasKind(supported, group, k.Kind) && l.protocol != "":
			c.unresolved(l, fmt.Sprintf("%s.allowedRoutes.kinds[%d]", l.field, i), gatewayv1.ListenerReasonInvalidRouteKinds,
				fmt.Sprintf("routes of kind %s (group %q) cannot attach to a listener of protocol %s; %s can", k.Kind, group, l.spec.Protocol, kindNames(supported)))
		case hasKind(supported, group, k.Kind) && !hasKind(l.kinds, group, k.Kind):
			l.kinds = append(l.kinds, gatewayv1.RouteGroupKind{Group: &group, Kind: k.Kind})
		}
	}
}

// protocolKinds returns the kinds of routes that a protocol can have.
func protocolKinds(p route.Protocol) []gatewayv1.RouteGroupKind {
	group := gatewayv1.Group(gatewayGroup)
	var kinds []gatewayv1.RouteGroupKind
	for _, kind := range routeKinds[p] {
		kinds = append(kinds, gatewayv1.RouteGroupKind{Group: &group, Kind: kind})
	}
	return kinds
}

var routeKinds = map[route.Protocol][]gatewayv1.Kind{
	route.HTTP:  {"HTTPRoute", "GRPCRoute"},
	route.HTTPS: {"HTTPRoute", "GRPCRoute"},
	route.TLS:   {"TLSRoute"},
	route.TCP:   {"TCPRoute"},
	route.UDP:   {"UDPRoute"},
}

// kindNames writes kinds for a sentence, in the plural.
func kindNames(kinds []gatewayv1.RouteGroupKind) string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = string(k.Kind) + "s"
	}
	return strings.Join(names, " and ")
}

func hasKind(kinds []gatewayv1.RouteGroupKind, group gatewayv1.Group, kind gatewayv1.Kind) bool {
	for _, k := range kinds {
		if k.Kind == kind && *k.Group == group {
			return true
		}
	}
	return false
}

// allowance says of which namespaces objects may attach. The zero value allows none.
type allowance struct {
	from     gatewayv1.FromNamespaces
	selector labels.Selector
}

func (c *compiler) checkAllowedNamespaces(l *listener) {
	l.from = allowance{from: gatewayv1.NamespacesFromSame}
	allowed := l.spec.AllowedRoutes
	if allowed == nil || allowed.Namespaces == nil || allowed.Namespaces.From == nil {
		return
	}
	var field, problem string
	l.from, field, problem = newAllowance(*allowed.Namespaces.From, allowed.Namespaces.Selector)
	if l.from.from == gatewayv1.NamespacesFromNone {
		field, problem = ".from", `"None" is none of All, Same and Selector`
	}
	if problem != "" {
		c.reject(l, ".allowedRoutes.namespaces"+field, gatewayv1.ListenerReasonUnsupportedValue, "%s", problem)
	}
}

// newAllowance returns what from and selector allow. Where they are not valid, that is nothing, and problem says which of the fields is wrong and why.
func newAllowance(from gatewayv1.FromNamespaces, selector *metav1.LabelSelector) (a allowance, field, problem string) {
	a.from = from
	switch from {
	case gatewayv1.NamespacesFromAll, gatewayv1.NamespacesFromSame, gatewayv1.NamespacesFromNone:
	case gatewayv1.NamespacesFromSelector:
		labels, err := metav1.LabelSelectorAsSelector(selector)
		switch {
		case err != nil:
			return a, ".selector", fmt.Sprintf("the selector is not valid: %v", err)
		case selector == nil:
			return a, ".selector", "from: Selector needs a selector"
		}
		a.selector = labels
	default:
		return a, ".from", fmt.Sprintf("%q is none of All, Same and Selector", from)
	}
	return a, "", ""
}

// refusal says why a listener lets no routes of a namespace attach, in words that follow the listener's name; "" when it does let them.
func (c *compiler) refusal(l *listener, namespace string) string {
	return c.excludes(l.from, "routes", l.parent.ref.Namespace, namespace)
}

// excludes says why an allowance of an object in the namespace own does not extend to another namespace, in words that follow the object's name; "" when it does.
func (c *compiler) excludes(a allowance, what, own, namespace string) string {
	switch {
	case a.from == gatewayv1.NamespacesFromAll:
		return ""
	case a.from == gatewayv1.NamespacesFromSame:
		if namespace == own {
			return ""
		}
		return fmt.Sprintf("allows %s from its own namespace only", what)
	case a.from == gatewayv1.NamespacesFromSelector && a.selector != nil:
		if a.selector.Matches(c.namespaceLabels(namespace)) {
			return ""
		}
		return fmt.Sprintf("allows %s only from namespaces labelled %s, which %s is not", what, a.selector, namespace)
	}
	return fmt.Sprintf("allows %s from no namespace", what)
}

// namespaceLabels are the labels of a namespace, among them the one that every namespace of a cluster has. A namespace without an object has only that.
type namespaceLabels struct {
	name   string
	labels map[string]string
}

func (c *compiler) namespaceLabels(name string) namespaceLabels {
	n := namespaceLabels{name: name}
	if obj := c.in.Namespaces[name]; obj != nil {
		n.labels = obj.Labels
	}
	return n
}

func (n namespaceLabels) Has(label string) bool { _, ok := n.Lookup(label); return ok }
func (n namespaceLabels) Get(label string) string {
	value, _ := n.Lookup(label)
	return value
}

func (n namespaceLabels) Lookup(label string) (string, bool) {
	if label == "kubernetes.io/metadata.name" {
		return n.name, true
	}
	value, ok := n.labels[label]
	return value, ok
}

// checkCertificateRefs finds the certificates that a listener at which TLS ends names and may use.
func (c *compiler) checkCertificateRefs(l *listener) {
	if !l.terminates() {
		return
	}
	field := l.field + ".tls.certificateRefs"
	tls := l.spec.TLS
	if tls != nil && orDefault(tls.Mode, gatewayv1.TLSModeTerminate) != gatewayv1.TLSModeTerminate {
		return // the listener is refused for that
	}
	if tls == nil || len(tls.CertificateRefs) == 0 {
		c.unresolved(l, field, gatewayv1.ListenerReasonInvalidCertificateRef, fmt.Sprintf("a listener of protocol %s needs a certificate", l.spec.Protocol))
		return
	}
	c.checkLimit(l.parent.ref, field, len(tls.CertificateRefs), 64)
	for option := range tls.Options {
		if option != issuerAnnotation {
			c.unsupported(l.parent.ref, l.field+".tls.options", fmt.Sprintf("the option %s is not known and ignored", option))
		}
	}
	c.orderForListener(l, field)
	for i := range tls.CertificateRefs {
		c.addCertificate(l, &tls.CertificateRefs[i], indexed(field, i))
	}
	if len(l.pairs) == 0 && l.order == nil {
		c.problems.add(Error, l.parent.ref, field, codeSelfSigned, "none of the certificates can be used: a self-signed one is presented")
	}
}

func (c *compiler) addCertificate(l *listener, ref *gatewayv1.SecretObjectReference, field string) {
	if ref.Group != nil && *ref.Group != corev1.GroupName || ref.Kind != nil && *ref.Kind != "Secret" {
		c.unresolved(l, field, gatewayv1.ListenerReasonInvalidCertificateRef, fmt.Sprintf("%s is not a Secret of the core API group", refName(ref)))
		return
	}
	own := l.parent.ref
	secret := object.Key{Namespace: own.Namespace, Name: string(ref.Name)}
	if ref.Namespace != nil {
		secret.Namespace = string(*ref.Namespace)
	}
	if !c.mayRefer(referrer{gatewayGroup, own.Kind, own.Namespace}, secretReferent(secret)) {
		c.unresolved(l, field, gatewayv1.ListenerReasonRefNotPermitted,
			fmt.Sprintf("no ReferenceGrant in namespace %s lets %ss of namespace %s refer to Secret %s", secret.Namespace, own.Kind, own.Namespace, secret))
		return
	}
	if l.order != nil && ref == &l.spec.TLS.CertificateRefs[0] {
		secret = l.order.key
	}
	pair, leaf, err := c.readPair(secret)
	if err != nil && l.order != nil && l.order.key == secret {
		c.issuedPair(own, field, secret, l.hostname)
		l.resolved = l.resolved.or(verdict{string(gatewayv1.ListenerReasonInvalidCertificateRef), err.Message + "; a certificate is on order"})
		return
	}
	if err != nil {
		c.problems.add(Error, own, field, err.Code, "%s", err.Message)
		l.resolved = l.resolved.or(verdict{string(gatewayv1.ListenerReasonInvalidCertificateRef), err.Message})
		return
	}
	l.pairs = append(l.pairs, pair)
	for _, name := range leaf.DNSNames {
		l.certified = append(l.certified, strings.ToLower(name))
	}
	c.checkCertificate(own, field, secret, leaf, l.hostname)
}

func refName(ref *gatewayv1.SecretObjectReference) string {
	kind := gatewayv1.Kind("Secret")
	if ref.Kind != nil {
		kind = *ref.Kind
	}
	if ref.Group != nil && *ref.Group != "" {
		return fmt.Sprintf("%s.%s %s", kind, *ref.Group, ref.Name)
	}
	return fmt.Sprintf("%s %s", kind, ref.Name)
}

// openListeners puts the listeners of a Gateway into the table, and their certificates beside it. A listener whose certificates are all broken is open too: it
// presents a self-signed one, so that whoever connects learns that the name is served here, and what is wrong can be seen in a browser.
func (c *compiler) openListeners(g *gateway) {
	if !g.accepted.ok() {
		return
	}
	for _, l := range g.listeners {
		if !l.accepted.ok() || !l.pending.ok() {
			continue
		}
		for _, address := range g.binds {
			c.openListener(l, l.bind(address))
		}
	}
}

// bind is where the listener is bound on an address.
func (l *listener) bind(address string) route.Bind {
	return route.Bind{Address: address, Port: l.port, UDP: l.protocol == route.UDP}
}

func (c *compiler) openListener(l *listener, bind route.Bind) {
	port := c.port(bind, l.protocol)
	source := route.Source{Kind: l.parent.ref.Kind, Namespace: l.parent.ref.Namespace, Name: l.parent.ref.Name, Field: l.field}
	o := &openListener{
		Listener: &route.Listener{Name: l.tableName(), Hostname: l.hostname, Mode: l.mode, Port: l.clientPort, Clients: l.clients, Source: source},
		hosts:    make(map[string]*route.Host),
	}
	port.Listeners = append(port.Listeners, o.Listener)
	l.open = append(l.open, o)
	if l.terminates() {
		l.order.confirm()
		c.certs = append(c.certs, route.Certificate{Bind: bind, Hostname: l.hostname, Pairs: l.pairs, Source: source})
	}
}

// tableName names a listener for metrics and logs.
func (l *listener) tableName() string {
	name := l.parent.ref.Key().String() + "/" + l.name
	if l.parent.added() {
		return "listenerset/" + name // there may be a Gateway of the same name
	}
	return name
}

// presentable tells whether a listener that needs a certificate has one.
func (l *listener) presentable() bool { return !l.terminates() || len(l.pairs) > 0 }

// programmed says whether a listener serves what it should.
func (l *listener) programmed() verdict {
	invalid := string(gatewayv1.ListenerReasonInvalid)
	switch {
	case !l.gateway.accepted.ok():
		return verdict{invalid, "the Gateway is not accepted"}
	case !l.conflicted.ok():
		return verdict{l.conflicted.Reason, "the listener is not accepted"}
	case !l.accepted.ok():
		return verdict{invalid, "the listener is not accepted"}
	case len(l.gateway.binds) == 0:
		return verdict{string(gatewayv1.ListenerReasonPending), "the Gateway has no address"}
	case !l.pending.ok():
		return l.pending
	case !l.presentable():
		return verdict{invalid, "none of its certificates can be used: a self-signed one is presented"}
	}
	return verdict{}
}

// notServed says why a listener serves no requests at all; "" when it does.
func (l *listener) notServed() string {
	switch {
	case !l.gateway.accepted.ok():
		return fmt.Sprintf("%s is not accepted: %s", l.gateway.ref, l.gateway.accepted.Message)
	case !l.accepted.ok():
		return fmt.Sprintf("%s is not accepted: %s", l, cmp.Or(l.conflicted, l.accepted).Message)
	case len(l.gateway.binds) == 0:
		return fmt.Sprintf("%s has no address: %s", l.gateway.ref, l.gateway.addressed.Message)
	case !l.pending.ok():
		return fmt.Sprintf("%s is not bound: %s", l, l.pending.Message)
	}
	return ""
}

// status returns the status of a listener.
func (l *listener) status() gatewayv1.ListenerStatus {
	generation := l.parent.generation
	conflicted := l.conflicted.condition("Conflicted", string(gatewayv1.ListenerReasonNoConflicts), generation)
	conflicted.Status = opposite(conflicted.Status)
	s := gatewayv1.ListenerStatus{
		Name:           gatewayv1.SectionName(l.name),
		SupportedKinds: l.kinds,
		AttachedRoutes: l.attached,
		Conditions: []metav1.Condition{
			l.accepted.condition("Accepted", "Accepted", generation),
			l.programmed().condition("Programmed", "Programmed", generation),
			l.resolved.condition("ResolvedRefs", "ResolvedRefs", generation),
			conflicted,
		},
	}
	if overlapping := l.overlap.condition(generation); overlapping != nil {
		s.Conditions = append(s.Conditions, *overlapping)
	}
	return s
}
