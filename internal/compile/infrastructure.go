package compile

import (
	"cmp"
	"crypto/sha1" //nolint:gosec // GEP-1762 says how long names become labels, and it is with SHA-1
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// ClusterOptions are the operator's choices for a cluster in which every Gateway has an address of its own: that of a Service. The zero value works but for
// Namespace and Selector.
type ClusterOptions struct {
	// Namespace is Fairlead's own. The Services that lead to its pods are there, one for each Gateway.
	Namespace string
	// Selector selects Fairlead's pods.
	Selector map[string]string
	// ServiceType is that of these Services: LoadBalancer, which is what an empty one means, NodePort or ClusterIP.
	ServiceType corev1.ServiceType
	// ExternalTrafficPolicy is that of these Services; empty means Cluster. With Local the pods see the addresses of clients.
	ExternalTrafficPolicy corev1.ServiceExternalTrafficPolicy
	// BindFrom and BindTo are the first and the last port that the listeners of Gateways are bound to in the pods. Zero means 20000 and 29999. A port outside
	// of them that a Service has is not taken for one that Fairlead gave.
	BindFrom, BindTo uint16
	// Labels and Annotations are put on the Services, unless a Gateway says something else in spec.infrastructure.
	Labels, Annotations map[string]string
	// ClusterDomain is what the names of the cluster's Services end with; empty means cluster.local.
	ClusterDomain string
}

func (o *ClusterOptions) withDefaults() *ClusterOptions {
	if o == nil {
		return nil
	}
	d := *o
	d.ServiceType = cmp.Or(d.ServiceType, corev1.ServiceTypeLoadBalancer)
	d.ExternalTrafficPolicy = cmp.Or(d.ExternalTrafficPolicy, corev1.ServiceExternalTrafficPolicyCluster)
	d.BindFrom, d.BindTo = cmp.Or(d.BindFrom, 20000), cmp.Or(d.BindTo, 29999)
	d.ClusterDomain = cmp.Or(d.ClusterDomain, "cluster.local")
	return &d
}

// Labels and annotations of the Services that Fairlead makes.
const (
	managedByLabel        = "app.kubernetes.io/managed-by"
	managedBy             = "fairlead"
	instanceLabel         = annotationPrefix + "instance"          // which of several installations
	gatewayUIDLabel       = annotationPrefix + "gateway-uid"       // for whom: owner references do not reach across namespaces
	gatewayNamespaceLabel = annotationPrefix + "gateway-namespace" // for people, who look for a Gateway's Service in Fairlead's namespace
	gatewayAnnotation     = annotationPrefix + "gateway"
)

// GenerationAnnotation of a Service says for which generation of its Gateway it was written last. Who sees an older Gateway leaves the Service alone: otherwise a
// replica that becomes the leader with an old picture would take back what the one before it did, and with it binds that are in use.
const GenerationAnnotation = annotationPrefix + "gateway-generation"

// Infrastructure is the Services that Gateways need to be reached: what should exist, and what exists without being needed. A Service that belongs to a Gateway
// which is not served at the moment is in neither list: its address should outlive a typing error. The zero value is that of a process without a cluster.
type Infrastructure struct {
	// Namespace is Fairlead's own, in which the Services are that lead to Gateways.
	Namespace string
	// Owned are labels that all Services of this installation have, and no others.
	Owned    map[string]string
	Services []Service  // by name
	Unwanted []Unwanted // by name
}

// Service is a Service that should exist. In Fairlead's own namespace it leads from the ports of a Gateway's listeners to where these are bound in the pods,
// and is the only record of that: a listener is served when the Service that lists its port is part of the snapshot, and where the Service says.
type Service struct {
	Name       object.Key
	Gateway    object.Ref
	Generation int64 // of the Gateway; to be written as GenerationAnnotation when anything else is
	// Seen is the Service of that name in the snapshot that the wish was computed from, nil if there was none. What is written must replace it and nothing
	// else: somebody with a newer snapshot may have written other ports. Not to be modified.
	Seen *corev1.Service

	Type                  corev1.ServiceType
	ExternalName          string // for type ExternalName; what follows is for the others
	Selector              map[string]string
	Ports                 []ServicePort // by Port
	LoadBalancerIP        string        // "" is any
	ExternalTrafficPolicy corev1.ServiceExternalTrafficPolicy

	Labels, Annotations map[string]string
}

// ServicePort is one port of a Service.
type ServicePort struct {
	Name        string
	Port        uint16 // of the listeners
	UDP         bool   // and not TCP
	Bind        uint16 // in the pods
	AppProtocol string
	Recorded    bool // the Service has it already
}

// Unwanted is a Service of this installation that no Gateway needs.
type Unwanted struct {
	Service *corev1.Service // as it is in the snapshot; not to be modified
	Why     string
	// Gone is the Gateway that the Service was made for, if it is unwanted because that does not exist, and the UID that it had. Whoever deletes the Service
	// should make sure of it: a Gateway may only not be seen yet, and an address that is given back may not be had again.
	Gone    object.Key
	GoneUID string
}

// String returns the infrastructure as text, sorted.
func (n Infrastructure) String() string {
	var b strings.Builder
	for i := range n.Services {
		n.Services[i].print(&b)
	}
	for _, u := range n.Unwanted {
		fmt.Fprintf(&b, "remove Service %s  # %s\n", object.KeyOf(u.Service), u.Why)
	}
	return b.String()
}

func (s *Service) print(b *strings.Builder) {
	fmt.Fprintf(b, "Service %s %s", s.Name, strings.TrimSpace(string(s.Type)+" "+s.ExternalName))
	if s.Seen == nil {
		b.WriteString(" new")
	}
	fmt.Fprintf(b, "  # %s\n", s.Gateway)
	for _, p := range s.Ports {
		state := "new"
		if p.Recorded {
			state = "recorded"
		}
		port := strconv.Itoa(int(p.Port))
		if p.UDP {
			port += "/udp"
		}
		fmt.Fprintf(b, "  port %s %s %s -> %d %s\n", port, p.Name, cmp.Or(p.AppProtocol, "-"), p.Bind, state)
	}
	if s.LoadBalancerIP != "" {
		fmt.Fprintf(b, "  address %s\n", s.LoadBalancerIP)
	}
	if s.ExternalTrafficPolicy != "" {
		fmt.Fprintf(b, "  external-traffic-policy %s\n", s.ExternalTrafficPolicy)
	}
	printPairs(b, "selector", s.Selector)
	printPairs(b, "labels", s.Labels)
	printPairs(b, "annotations", s.Annotations)
}

func printPairs(b *strings.Builder, what string, pairs map[string]string) {
	if len(pairs) == 0 {
		return
	}
	b.WriteString("  " + what)
	for _, k := range slices.Sorted(maps.Keys(pairs)) {
		v := pairs[k]
		if strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r == '"' || r == utf8.RuneError }) {
			v = strconv.Quote(v)
		}
		b.WriteString(" " + k + "=" + v)
	}
	b.WriteString("\n")
}

// instance names this installation among all that may be in the cluster.
func (o Options) instance() string {
	namespace := o.Cluster.Namespace
	return strings.TrimRight(namespace[:min(len(namespace), 46)], "-") + "-" + hash(namespace, o.GatewayController)
}

// hash returns 16 letters and digits that stand for a list of texts.
func hash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d %s\n", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// hashedName returns a name that a Service can have: as much of what as fits, for people, and a hash that nobody else has.
func hashedName(what, hash string) string {
	slug := strings.ReplaceAll("gw-"+what, ".", "-")
	return strings.TrimRight(slug[:min(len(slug), 46)], "-") + "-" + hash
}

// labelOf returns what a label says about an object of this name. Most names are their own label; others are shortened as GEP-1762 wants it.
func labelOf(name string) string {
	if len(name) <= validation.LabelValueMaxLength {
		return name
	}
	rest := sha1.Sum([]byte(name[20:])) //nolint:gosec // see the import
	return name[:20] + "-" + hex.EncodeToString(rest[:])
}

// recordKey is the name of the Service that leads to a Gateway. It holds the UID: who deletes a Gateway and makes another of the same name gets another.
func (c *compiler) recordKey(g *gateway) object.Key {
	what := g.ref.Namespace + "-" + g.ref.Name
	return object.Key{
		Namespace: c.opt.Cluster.Namespace,
		Name:      hashedName(what, hash(c.infrastructure.Owned[instanceLabel], g.ref.Namespace, g.ref.Name, string(g.obj.UID))),
	}
}

// localKey is the name of the Service in the Gateway's own namespace: as GEP-1762 wants it, unless that cannot be or somebody else has it.
func (c *compiler) localKey(g *gateway, wanted map[object.Key]bool) (key object.Key, ok bool) {
	for _, name := range []string{
		g.ref.Name + "-" + string(g.obj.Spec.GatewayClassName),
		hashedName(g.ref.Name, hash(c.infrastructure.Owned[instanceLabel], g.ref.Namespace, g.ref.Name)),
	} {
		key = object.Key{Namespace: g.ref.Namespace, Name: name}
		have := c.in.Services[key]
		if len(validation.IsDNS1035Label(name)) == 0 && !wanted[key] && (have == nil || c.ours(have)) {
			return key, true
		}
	}
	c.problems.add(Warning, g.ref, "metadata.name", "NameTaken", "there is a Service %s, which is not Fairlead's, so that the Gateway gets no name in the cluster's DNS", key)
	return key, false
}

// ours tells whether a Service was made by this installation.
func (c *compiler) ours(s *corev1.Service) bool {
	return s.Labels[instanceLabel] == c.infrastructure.Owned[instanceLabel] && s.Labels[managedByLabel] == managedBy
}

// findServices looks what there is of earlier wishes.
func (c *compiler) findServices(gateways []*gateway) {
	c.infrastructure.Namespace = c.opt.Cluster.Namespace
	c.infrastructure.Owned = map[string]string{managedByLabel: managedBy, instanceLabel: c.opt.instance()}
	for _, s := range c.in.Services {
		if s != nil && c.ours(s) {
			c.ourServices = append(c.ourServices, s)
		}
	}
	slices.SortFunc(c.ourServices, compareServices)
	for _, g := range gateways {
		g.record = c.recordKey(g)
		g.service = c.in.Services[g.record]
	}
}

func compareServices(a, b *corev1.Service) int { return object.KeyOf(a).Compare(object.KeyOf(b)) }

// serviceAddresses are the addresses at which a Service of a type can be reached; none for types whose addresses are those of nodes.
func serviceAddresses(s *corev1.Service, typ corev1.ServiceType) (addresses []string) {
	switch typ {
	case corev1.ServiceTypeClusterIP:
		for _, ip := range s.Spec.ClusterIPs {
			if ip != corev1.ClusterIPNone {
				addresses = append(addresses, ip)
			}
		}
		if len(addresses) == 0 && s.Spec.ClusterIP != "" && s.Spec.ClusterIP != corev1.ClusterIPNone {
			addresses = append(addresses, s.Spec.ClusterIP)
		}
	case corev1.ServiceTypeLoadBalancer:
		for _, at := range s.Status.LoadBalancer.Ingress {
			if a := cmp.Or(at.IP, at.Hostname); a != "" {
				addresses = append(addresses, a)
			}
		}
	}
	return addresses
}

// clusterAddresses decides which addresses each Gateway has that is reached through a Service.
func (c *compiler) clusterAddresses(gateways []*gateway) {
	c.findServices(gateways)
	for _, g := range gateways {
		if c.opt.Cluster.ServiceType == corev1.ServiceTypeNodePort {
			c.nodePortGateway(g)
		} else {
			c.askFor(g)
			c.publishAddresses(g)
		}
		g.binds = []string{""} // all of them; it is the port that tells Gateways apart
	}
}

// nodePortGateway gives a Gateway whose Service has no address of its own those that are published, or those of nodes.
func (c *compiler) nodePortGateway(g *gateway) {
	pool := addressPool{shared: c.opt.PublishAddresses}
	if nodes := len(pool.shared) == 0 && c.opt.PublishNodes; nodes && g.service == nil {
		g.addressed = g.addressed.or(verdict{string(gatewayv1.GatewayReasonAddressNotAssigned), fmt.Sprintf("Service %s does not exist yet", g.record)})
		return
	} else if nodes {
		pool.shared = c.addresses(g.service, corev1.ServiceTypeNodePort)
	}
	if wishes := g.obj.Spec.Addresses; len(wishes) > 0 {
		c.fulfil(g, wishes, &pool)
		return
	}
	c.assignAny(g, &pool)
	switch {
	case len(g.published) > 0:
	case c.opt.PublishNodes:
		c.unaddressed(g, "spec", gatewayv1.GatewayReasonAddressNotAssigned, "no node has an address at which Service %s can be reached", g.record)
	default:
		c.unaddressed(g, "spec", gatewayv1.GatewayReasonAddressNotAssigned,
			"Services of type NodePort have no address of their own, and the configuration does not say which addresses to publish")
	}
}

// askFor finds the address that a Gateway asks for. A Service can ask for one only.
func (c *compiler) askFor(g *gateway) {
	for i, wish := range g.obj.Spec.Addresses {
		field := indexed("spec.addresses", i)
		addr, err := netip.ParseAddr(wish.Value)
		switch typ := addressType(wish); {
		case typ != gatewayv1.IPAddressType:
			c.rejectGateway(g, field+".type", gatewayv1.GatewayReasonUnsupportedAddress, "address type %q is not supported here; IPAddress is", typ)
		case wish.Value == "":
		case err != nil || !addr.IsGlobalUnicast() || addr.Zone() != "":
			c.unaddressed(g, field, gatewayv1.GatewayReasonAddressNotUsable, "%q is not an IP address that a Gateway could have", wish.Value)
		case g.asked != "" && !sameAddress(g.asked, wish.Value):
			c.unaddressed(g, field, gatewayv1.GatewayReasonAddressNotUsable, "a Gateway can have one address of its choice here, and asks for %s too", g.asked)
		default:
			g.asked = wish.Value
		}
	}
}

// publishAddresses publishes the addresses that the Service of a Gateway has, and says what is missing. What is only a matter of time is no problem.
func (c *compiler) publishAddresses(g *gateway) {
	var have []string
	if g.service != nil {
		have = c.addresses(g.service, c.opt.Cluster.ServiceType)
	}
	for _, a := range have {
		g.publish(a)
	}
	switch notAssigned := string(gatewayv1.GatewayReasonAddressNotAssigned); {
	case g.asked != "":
		c.checkAsked(g, have)
	case g.service == nil:
		g.addressed = g.addressed.or(verdict{notAssigned, fmt.Sprintf("Service %s does not exist yet", g.record)})
	case len(have) == 0:
		v := verdict{notAssigned, fmt.Sprintf("Service %s has no address yet", g.record)}
		if g.accepted.ok() {
			c.problems.add(Note, g.ref, "spec", v.Reason, "%s; something in the cluster must give addresses to Services of type %s", v.Message, c.opt.Cluster.ServiceType)
		}
		g.addressed = g.addressed.or(v)
	}
}

// checkAsked looks whether a Gateway has the address that it asks for among those that its Service has.
func (c *compiler) checkAsked(g *gateway, have []string) {
	balanced := c.opt.Cluster.ServiceType == corev1.ServiceTypeLoadBalancer
	const notUsable = gatewayv1.GatewayReasonAddressNotUsable
	switch {
	case slices.ContainsFunc(have, func(a string) bool { return sameAddress(a, g.asked) }):
	case g.service == nil || balanced && g.service.Spec.LoadBalancerIP != g.asked:
		g.addressed = g.addressed.or(verdict{string(notUsable), fmt.Sprintf("Service %s does not ask for %s yet", g.record, g.asked)})
	case len(have) == 0:
		c.unaddressed(g, "spec.addresses", notUsable,
			"the load balancer has not given %s to Service %s: the address may not be its to give, or may be taken", g.asked, g.record)
	default:
		c.unaddressed(g, "spec.addresses", notUsable, "%s is not an address of Service %s, which has %s", g.asked, g.record, list(have))
	}
}

// clientPort is the port that clients of a Gateway connect to: in a cluster that of the Service, or of the node, which leads to the one that is bound.
func (o Options) clientPort(port, bound uint16) uint16 {
	if o.Cluster != nil {
		return port
	}
	return o.hostPort(port, bound)
}

// ingressPort is the port that clients of Ingresses connect to. Ports of nodes may lead to these even where Gateways have Services.
func (o Options) ingressPort(port, bound uint16) uint16 {
	return o.hostPort(port, o.clientPort(port, bound))
}

// hostPort is the port of nodes that leads to a port, or else otherwise.
func (o Options) hostPort(port, otherwise uint16) uint16 {
	if host, ok := o.HostPorts[port]; ok {
		return host
	}
	return otherwise
}

// servedPort is the port that clients reach the port p of a listener on, as far as the port map decides it.
func (o Options) servedPort(p uint16) uint16 { return o.clientPort(p, o.bindPort(p)) }

// wishServices says which Services the Gateways of a cluster need, and which of ours nobody needs.
func (c *compiler) wishServices(gateways []*gateway) {
	if c.opt.Cluster == nil {
		return
	}
	wanted := make(map[object.Key]bool)
	wish := func(g *gateway, s Service) {
		wanted[s.Name] = true
		s.Gateway, s.Generation, s.Seen = g.ref, g.obj.Generation, c.in.Services[s.Name]
		if written := writtenFor(s.Seen); written > s.Generation {
			c.problems.add(Note, g.ref, "metadata.generation", "OldGateway", "Service %s was written for generation %d and is left as it is", s.Name, written)
			return
		}
		c.describe(g, &s)
		c.infrastructure.Services = append(c.infrastructure.Services, s)
	}
	for _, g := range gateways {
		if !g.accepted.ok() || len(g.ports) == 0 {
			continue
		}
		g.wished = true
		record := c.recordService(g)
		wish(g, record)
		if key, ok := c.localKey(g, wanted); ok {
			wish(g, c.localService(key, record.Name))
		}
	}
	slices.SortFunc(c.infrastructure.Services, func(a, b Service) int { return a.Name.Compare(b.Name) })
	c.findUnwanted(gateways, wanted)
}

// writtenFor is the generation of its Gateway that a Service was written for.
func writtenFor(s *corev1.Service) int64 {
	if s == nil {
		return 0
	}
	n, err := strconv.ParseInt(s.Annotations[GenerationAnnotation], 10, 64)
	if err != nil {
		return 0 // nobody said, or it was edited
	}
	return n
}

// recordService is the Service in Fairlead's namespace that leads to a Gateway.
func (c *compiler) recordService(g *gateway) Service {
	o := c.opt.Cluster
	s := Service{
		Name: g.record, Type: o.ServiceType, Selector: o.Selector, Ports: g.ports,
		Labels: maps.Clone(o.Labels), Annotations: maps.Clone(o.Annotations),
	}
	switch o.ServiceType {
	case corev1.ServiceTypeLoadBalancer:
		s.LoadBalancerIP, s.ExternalTrafficPolicy = g.asked, o.ExternalTrafficPolicy
	case corev1.ServiceTypeNodePort:
		s.ExternalTrafficPolicy = o.ExternalTrafficPolicy
	}
	return s
}

// localService is the Service that gives a Gateway a name in the DNS of its own namespace, which stands for that of the Service that leads to it.
func (c *compiler) localService(key, record object.Key) Service {
	return Service{
		Name: key, Type: corev1.ServiceTypeExternalName,
		ExternalName: record.Name + "." + record.Namespace + ".svc." + c.opt.Cluster.ClusterDomain,
		Labels:       maps.Clone(c.opt.Cluster.Labels),
	}
}

// describe labels a Service: with what its Gateway wants in spec.infrastructure, and with what tells whose it is, which nobody can overrule.
func (c *compiler) describe(g *gateway, s *Service) {
	for k, v := range g.labels {
		set(&s.Labels, k, v)
	}
	for k, v := range g.annotations {
		set(&s.Annotations, k, v)
	}
	for k, v := range c.infrastructure.Owned {
		set(&s.Labels, k, v)
	}
	set(&s.Labels, gatewayUIDLabel, uidLabel(g.obj))
	set(&s.Labels, gatewayNamespaceLabel, labelOf(g.ref.Namespace))
	set(&s.Labels, gatewayv1.GatewayNameLabelKey, labelOf(g.ref.Name))
	set(&s.Labels, gatewayv1.GatewayClassNameLabelKey, labelOf(string(g.obj.Spec.GatewayClassName)))
	set(&s.Annotations, gatewayAnnotation, g.ref.Key().String())
}

func uidLabel(g *gatewayv1.Gateway) string { return labelOf(string(g.UID)) }

// checkInfrastructure reads the labels and annotations of spec.infrastructure. In a cluster without Services of Gateways there is nothing to put them on.
func (c *compiler) checkInfrastructure(g *gateway) {
	infra := g.obj.Spec.Infrastructure
	if infra == nil || c.opt.Cluster == nil {
		return
	}
	for _, k := range slices.Sorted(maps.Keys(infra.Labels)) {
		field, v := "spec.infrastructure.labels["+string(k)+"]", string(infra.Labels[k])
		if bad := validation.IsValidLabelValue(v); len(bad) > 0 {
			c.problems.add(Error, g.ref, field, "InvalidLabel", "%q cannot be the value of a label: %s", v, bad[0])
		} else if c.checkMetadataKey(g, field, string(k)) {
			set(&g.labels, string(k), v)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(infra.Annotations)) {
		if c.checkMetadataKey(g, "spec.infrastructure.annotations["+string(k)+"]", string(k)) {
			set(&g.annotations, string(k), string(infra.Annotations[k]))
		}
	}
}

// checkMetadataKey tells whether a Gateway may have a label or annotation of a name put on its Services: not if it decides whose they are.
func (c *compiler) checkMetadataKey(g *gateway, field, key string) bool {
	prefix, _, _ := strings.Cut(key, "/")
	switch bad := validation.IsQualifiedName(strings.ToLower(key)); {
	case len(bad) > 0:
		c.problems.add(Error, g.ref, field, "InvalidLabel", "%q cannot be the name of a label or annotation: %s", key, bad[0])
	case key == managedByLabel, prefix+"/" == annotationPrefix, prefix == gatewayGroup:
		c.problems.add(Warning, g.ref, field, "ReservedLabel", "%s is for Fairlead to set and ignored here", key)
	default:
		return true
	}
	return false
}

// findUnwanted finds the Services of ours that no Gateway needs. Whose Gateway exists and belongs to nobody else keeps them, even while it is not served.
func (c *compiler) findUnwanted(gateways []*gateway, wanted map[object.Key]bool) {
	var owners map[string]owner
	for _, s := range c.ourServices {
		if wanted[object.KeyOf(s)] {
			continue
		}
		if owners == nil {
			owners = c.owners(gateways)
		}
		uid := s.Labels[gatewayUIDLabel]
		u := Unwanted{Service: s, Why: "its Gateway is gone", GoneUID: uid}
		if o, exists := owners[uid]; exists {
			u.Why, u.GoneUID = o.why, ""
			if o.generation < writtenFor(s) {
				continue // what is seen of the Gateway is older than the Service
			}
		} else {
			u.Gone.Namespace, u.Gone.Name, _ = strings.Cut(s.Annotations[gatewayAnnotation], "/")
		}
		if u.Why != "" {
			c.infrastructure.Unwanted = append(c.infrastructure.Unwanted, u)
		}
	}
}

// owner is a Gateway that exists.
type owner struct {
	generation int64
	why        string // why Services of it that are not wished for are unwanted; "" if they are not
}

// owners are all Gateways, by the UID as it is in labels.
func (c *compiler) owners(gateways []*gateway) map[string]owner {
	out := make(map[string]owner, len(c.in.Gateways))
	for _, g := range c.in.Gateways {
		switch {
		case g == nil:
		case c.in.GatewayClasses[string(g.Spec.GatewayClassName)] == nil:
			out[uidLabel(g)] = owner{g.Generation, ""}
		default:
			out[uidLabel(g)] = owner{g.Generation, "its Gateway is of a class that belongs to another controller"}
		}
	}
	for _, g := range gateways {
		o := owner{g.obj.Generation, ""}
		if g.wished {
			o.why = "its Gateway has another Service of this kind"
		}
		out[uidLabel(g.obj)] = o
	}
	return out
}

// ingressAt writes an address as the status of an Ingress has it.
func ingressAt(address string) networkingv1.IngressLoadBalancerIngress {
	if _, err := netip.ParseAddr(address); err == nil {
		return networkingv1.IngressLoadBalancerIngress{IP: address}
	}
	return networkingv1.IngressLoadBalancerIngress{Hostname: address}
}
