package compile

import (
	"cmp"
	"math"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// Endpoints returns who serves each of the pools: the ready endpoints in the EndpointSlices of the Service, or, if there is none, those that still serve while
// they terminate. They are sorted, and each occurs once. Every pool that is asked for is in the result; one that nobody serves has no endpoints there. After them come those
// that are neither ready nor terminating, marked as Unready: nothing is sent to them, and what they were sent before may be in vain.
//
// It is apart from Compile because endpoints change far more often than routes. Its cost depends on the endpoints of the pools, and on nothing else in the
// snapshot.
func Endpoints(in *object.Snapshot, opt Options, pools []route.PoolKey) map[route.PoolKey][]route.Endpoint {
	out := make(map[route.PoolKey][]route.Endpoint, len(pools))
	e := endpointSet{home: sync.OnceValue(func() site { return home(in, opt) })}
	for _, key := range pools {
		out[key] = e.pool(in, opt, key)
	}
	return out
}

// pool returns the endpoints of one pool.
func (e *endpointSet) pool(in *object.Snapshot, opt Options, key route.PoolKey) []route.Endpoint {
	ref := object.Key{Namespace: key.Namespace, Name: key.Service}
	if key.Kind == xbackendKind {
		return xbackendEndpoint(in.XBackends[ref], opt, key.Port)
	}
	service := in.Services[ref]
	if service == nil {
		return nil
	}
	if isExternalName(service) {
		return externalEndpoint(service, opt, key)
	}
	i := findPort(service, key.Port, key.UDP)
	if i < 0 || !carries(service.Spec.Ports[i].Protocol, key.UDP) {
		return nil
	}
	e.udp = key.UDP
	e.port, e.allReady, e.allowNames = service.Spec.Ports[i].Name, service.Spec.PublishNotReadyAddresses, opt.AllowExternalName
	e.ready, e.leaving, e.unready = e.ready[:0], e.leaving[:0], e.unready[:0]
	for _, slice := range in.EndpointSlices[ref] {
		e.addSlice(slice)
	}
	return e.endpoints(service)
}

// externalEndpoint returns the one endpoint of an ExternalName Service. Its port is the Service's port: an alias in the DNS translates no ports.
func externalEndpoint(service *corev1.Service, opt Options, key route.PoolKey) []route.Endpoint {
	host, err := externalHost(service.Spec.ExternalName)
	known := findPort(service, key.Port, key.UDP) >= 0 || hasEveryPort(service) && validPort(key.Port)
	if !opt.AllowExternalName || !known || err != nil {
		return nil
	}
	return []route.Endpoint{{Address: joinPort(host, key.Port), DNS: true}}
}

func joinPort(host string, port int32) string { return net.JoinHostPort(host, strconv.Itoa(int(port))) }

// endpointSet gathers the endpoints of one Service port, and then of the next.
type endpointSet struct {
	port       string // the Service port's name, by which slices know it
	udp        bool   // and not TCP
	allReady   bool   // the Service wants its endpoints published before they are ready
	allowNames bool
	home       func() site

	ready, leaving, unready []endpoint
}

// endpoint is one endpoint of a slice: addr, or name for one that is a DNS name.
type endpoint struct {
	addr       netip.Addr
	name       string
	port       uint16
	zone, node string
	target     *corev1.ObjectReference
	hints      discoveryv1.EndpointHints
	distance   uint8
}

// addSlice adds the endpoints of a slice, if it has the port.
func (e *endpointSet) addSlice(slice *discoveryv1.EndpointSlice) {
	if slice == nil {
		return
	}
	port, ok := slicePort(slice.Ports, e.port, e.udp)
	if !ok {
		return
	}
	for i := range slice.Endpoints {
		ep := &slice.Endpoints[i]
		into := e.list(&ep.Conditions)
		if into == nil {
			continue
		}
		if x, ok := e.read(slice.AddressType, ep); ok {
			x.port = port
			*into = append(*into, x)
		}
	}
}

// slicePort returns the number of the port with a name. Slices name their ports as the Service does; their numbers are those of the pods.
func slicePort(ports []discoveryv1.EndpointPort, name string, udp bool) (uint16, bool) {
	for i := range ports {
		p := &ports[i]
		number := value(p.Port)
		if value(p.Name) == name && carries(value(p.Protocol), udp) && 0 < number && number <= math.MaxUint16 {
			return uint16(number), true
		}
	}
	return 0, false
}

// value returns what p points to, or the zero value.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// list returns the list that an endpoint with these conditions belongs to, or nil. A condition that is not given means that the endpoint is ready, serves as
// far as it is ready, and does not terminate.
func (e *endpointSet) list(c *discoveryv1.EndpointConditions) *[]endpoint {
	ready := c.Ready == nil || *c.Ready
	serving := ready
	if c.Serving != nil {
		serving = *c.Serving
	}
	switch {
	case ready || e.allReady:
		return &e.ready
	case serving && value(c.Terminating):
		return &e.leaving
	case !serving && !value(c.Terminating):
		return &e.unready
	}
	return nil
}

// read returns an endpoint, unless its address can be nobody's. Addresses beyond the first have no meaning (discovery/v1, Endpoint.addresses). Addresses that
// exist but must not be dialed, such as loopback, are for whoever dials to refuse.
func (e *endpointSet) read(typ discoveryv1.AddressType, ep *discoveryv1.Endpoint) (x endpoint, ok bool) {
	if len(ep.Addresses) == 0 {
		return x, false
	}
	x.zone, x.node, x.target, x.hints = value(ep.Zone), value(ep.NodeName), ep.TargetRef, value(ep.Hints)
	if typ == discoveryv1.AddressTypeFQDN {
		name, err := externalHost(ep.Addresses[0])
		x.name = name
		return x, err == nil && e.allowNames
	}
	addr, err := netip.ParseAddr(ep.Addresses[0])
	x.addr = addr.Unmap()
	return x, err == nil && addr.Zone() == "" && !x.addr.IsUnspecified() && !x.addr.IsMulticast()
}

// endpoints returns the endpoints that are to be used.
func (e *endpointSet) endpoints(service *corev1.Service) []route.Endpoint {
	use, leaving := e.ready, false
	if len(use) == 0 {
		use, leaving = e.leaving, true
	}
	slices.SortFunc(use, compareEndpoints)
	// An endpoint that moves from one slice to another is in both for a moment.
	use = slices.CompactFunc(use, func(a, b endpoint) bool { return a.addr == b.addr && a.name == b.name && a.port == b.port })
	use = oncePerTarget(use, service.Spec.IPFamilies)
	if len(use) == 0 {
		return e.addUnready(nil)
	}
	if l, _ := localityOf(service); l != "" {
		e.home().measureDistances(l, use)
	}
	weights, _ := parseWeights(service.Annotations[weightsAnnotation]) // Compile reports what is wrong with it
	out := make([]route.Endpoint, len(use))
	for i, x := range use {
		out[i] = route.Endpoint{Address: x.address(), DNS: x.name != "", Terminating: leaving, Zone: x.zone, Node: x.node, Distance: x.distance, Weight: weigh(weights, &x)}
	}
	return e.addUnready(out)
}

// addUnready adds those that are not ready to those that are. Names are left out: the data plane knows their addresses, and not the other way round.
func (e *endpointSet) addUnready(out []route.Endpoint) []route.Endpoint {
	slices.SortFunc(e.unready, compareEndpoints)
	for i := range e.unready {
		if x := &e.unready[i]; x.name == "" {
			out = append(out, route.Endpoint{Address: x.address(), Unready: true})
		}
	}
	return out
}

func (x *endpoint) address() string {
	if x.name != "" {
		return joinPort(x.name, int32(x.port))
	}
	return netip.AddrPortFrom(x.addr, x.port).String()
}

// compareEndpoints orders endpoints by address. Of two with the same address, the one that knows its zone comes first.
func compareEndpoints(a, b endpoint) int {
	if a.name == b.name {
		if c := a.addr.Compare(b.addr); c != 0 {
			return c
		}
	}
	return cmp.Or(
		strings.Compare(a.name, b.name),
		cmp.Compare(a.port, b.port),
		strings.Compare(b.zone, a.zone),
		strings.Compare(b.node, a.node),
	)
}

// oncePerTarget leaves one address of each pod, of the Service's first address family. A Service with two families has slices for both, with every pod in each:
// a pod would count twice in all that balances load and judges health.
func oncePerTarget(all []endpoint, families []corev1.IPFamily) []endpoint {
	has := func(version int) bool {
		return slices.ContainsFunc(all, func(x endpoint) bool { return x.version() == version })
	}
	if !has(4) || !has(6) {
		return all
	}
	first := 4
	if len(families) > 0 && families[0] == corev1.IPv6Protocol {
		first = 6
	}
	known := make(map[corev1.ObjectReference]bool)
	for _, x := range all {
		if x.target != nil && x.version() == first {
			known[identity(x.target)] = true
		}
	}
	return slices.DeleteFunc(all, func(x endpoint) bool {
		return x.target != nil && x.version() == 10-first && known[identity(x.target)]
	})
}

// version is the IP version of the endpoint's address, 0 for a name.
func (x *endpoint) version() int {
	switch {
	case x.addr.Is4():
		return 4
	case x.addr.Is6():
		return 6
	}
	return 0
}

// identity is what tells one object from another.
func identity(r *corev1.ObjectReference) corev1.ObjectReference {
	return corev1.ObjectReference{Kind: r.Kind, Namespace: r.Namespace, Name: r.Name}
}
