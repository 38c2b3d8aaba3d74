package compile

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"flag"
	"fmt"
	"slices"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
)

var graphs = flag.Uint64("graphs", 0, "how many random graphs TestGraphsAgreeWithTheSpecification compiles; 0 is 10,000, fewer with -race or -short")

func howManyGraphs() uint64 {
	switch {
	case *graphs > 0:
		return *graphs
	case testing.Short():
		return 500
	case underRace:
		return 1000
	}
	return 10_000
}

var graphPair = sync.OnceValue(func() map[string][]byte {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	return map[string][]byte{
		corev1.TLSCertKey: selfSigned(key, "a.example.com"), corev1.TLSPrivateKeyKey: encode("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key))),
	}
})

// Random graphs of namespaces, grants, Gateways, ListenerSets and routes compile to what the specification says, read slowly: who attaches where, who may refer
// to what, who gets a request. And nobody's result says anything of an object that they may not refer to.
func TestGraphsAgreeWithTheSpecification(t *testing.T) {
	seen := map[string]int{}
	for seed := range howManyGraphs() {
		p := newProperty(t, seed, seen)
		p.listeners()
		p.routes()
		p.requests()
		p.connections()
		p.policies()
		p.xbackends()
		p.secrecy()
		if t.Failed() {
			t.Fatalf("graph %d:\n%s", seed, resultText(p.res))
		}
	}
	for _, want := range []string{
		"route: NoMatchingParent", "route: NotAllowedByListeners", "route: NoMatchingListenerHostname", "route: RefNotPermitted", "route: BackendNotFound", "route: InvalidKind",
		"route: UnsupportedProtocol", "route: Invalid",
		"route: accepted HTTPRoute", "route: accepted GRPCRoute", "route: accepted TLSRoute", "route: accepted TCPRoute", "route: accepted UDPRoute",
		"listener: conflicted", "listener: conflicted TLS", "listener: conflicted TCP", "listener: conflicted UDP", "listener: TLS beside HTTPS",
		"listener: RefNotPermitted", "listener: InvalidCertificateRef", "listener: InvalidRouteKinds", "listener: usable certificate", "set: attached", "set: refused",
		"got: nobody", "got: fault",
		"got: HTTPRoute served", "got: GRPCRoute served", "got: GRPCRoute served in another namespace", "got: TLSRoute served", "got: TCPRoute served", "got: UDPRoute served", "got: HTTPRoute served in another namespace",
		"got: TLSRoute served in another namespace", "got: TCPRoute served in another namespace", "got: UDPRoute served in another namespace",
		"got: HTTPRoute served by an XBackend", "got: TLSRoute served by an XBackend", "got: TCPRoute served by an XBackend", "got: policy", "got: broken policy",
		"connection: over an older one", "connection: over a more specific one",
		"policy: Conflicted", "policy: Invalid", "policy: NoValidCACertificate", "policy: InvalidKind", "policy: InvalidCACertificateRef", "policy: accepted", "policy: of one port",
		"XBackend: accepted", "XBackend: Invalid", "XBackend: NoValidCACertificate", "XBackend: RefNotPermitted", "XBackend: InvalidClientCertificateRef",
		"secrecy: Secret", "secrecy: Service", "secrecy: XBackend", "secrecy: ConfigMap",
	} {
		if seen[want] == 0 {
			t.Errorf("no graph had this: %s", want)
		}
	}
	t.Log(seen)
}

// property is one graph, what it compiles to, and what it should.
type property struct {
	*testing.T
	reading
	res     Result
	seen    map[string]int
	entries map[object.Key][]*entry // by Gateway
	all     []*entry
	read    []routeReading
}

// graphOptions give each Gateway an address of its own: what happens when they share one is for us to say, not for the specification.
func graphOptions(t *testing.T) Options {
	return parseOptions(t, "# options: gateway-addresses=127.0.1.0/24 external-name\n")
}

func newProperty(t *testing.T, seed uint64, seen map[string]int) *property {
	in := newGraph(seed)
	p := &property{T: t, reading: reading{in}, res: Compile(in, graphOptions(t)), seen: seen, entries: map[object.Key][]*entry{}}
	for _, g := range object.Sorted(in.Gateways) {
		if isOurs(g) {
			p.entries[object.KeyOf(g)] = p.entriesOf(g)
			p.all = append(p.all, p.entries[object.KeyOf(g)]...)
		}
	}
	for _, r := range p.everyRoute() {
		p.read = append(p.read, routeReading{r, p.parentsOf(r, p.all)})
	}
	return p
}

// routeStatus is what the parents of a route said.
func (p *property) routeStatus(r *anyRoute) []gatewayv1.RouteParentStatus {
	switch key, s := object.KeyOf(r), &p.res.Status; r.kind {
	case "GRPCRoute":
		return s.GRPCRoutes[key].Parents
	case "TLSRoute":
		return s.TLSRoutes[key].Parents
	case "TCPRoute":
		return s.TCPRoutes[key].Parents
	case "UDPRoute":
		return s.UDPRoutes[key].Parents
	default:
		return s.HTTPRoutes[key].Parents
	}
}

// check is for conditions: ok is what the specification says, and if not, with one of which reasons.
func (p *property) check(what string, conditions []metav1.Condition, typ string, ok bool, reasons ...string) {
	p.Helper()
	for _, c := range conditions {
		if c.Type == typ {
			if (c.Status == metav1.ConditionTrue) != ok || !ok && !slices.Contains(reasons, c.Reason) {
				p.Errorf("%s: %s=%s %s, want %v %v", what, typ, c.Status, c.Reason, ok, reasons)
			}
			return
		}
	}
	p.Errorf("%s has no condition %s", what, typ)
}

// listeners compares the status of every Gateway, ListenerSet and listener.
func (p *property) listeners() {
	if len(p.res.Status.Gateways) != len(p.entries) {
		p.Errorf("%d Gateways have a status, want %d", len(p.res.Status.Gateways), len(p.entries))
	}
	for _, l := range p.all {
		what := fmt.Sprintf("%s %s, listener %s", l.kind, l.owner, l.spec.Name)
		status := p.listenerStatus(l)
		if status == nil {
			p.Errorf("%s has no status", what)
			continue
		}
		usable, reasons := p.certificatesOf(l)
		kinds, invalid := l.kinds()
		if invalid && l.known() {
			reasons = append(reasons, "InvalidRouteKinds")
		}
		p.kinds(what, status.SupportedKinds, kinds)
		p.check(what, status.Conditions, "Accepted", l.served(), "UnsupportedProtocol", "HostnameConflict", "ProtocolConflict")
		p.check(what, status.Conditions, "Conflicted", l.conflicted, "NoConflicts")
		p.check(what, status.Conditions, "ResolvedRefs", len(reasons) == 0, reasons...)
		attached := int32(0)
		for _, r := range p.read {
			if r.isAt(l) {
				attached++
			}
		}
		if status.AttachedRoutes != attached {
			p.Errorf("%s: %d routes are attached, want %d", what, status.AttachedRoutes, attached)
		}
		p.certificates(what, l, usable)
		p.note("listener", reasons, l.conflicted, "conflicted", l.conflicted, "conflicted "+string(l.spec.Protocol), len(usable) > 0, "usable certificate")
	}
	p.sets()
}

func (p *property) kinds(what string, have []gatewayv1.RouteGroupKind, want []string) {
	var names []string
	for _, k := range have {
		names = append(names, string(k.Kind))
	}
	if !slices.Equal(names, want) {
		p.Errorf("%s supports %v, want %v", what, names, want)
	}
}

// note counts what graphs come to: reasons, and pairs of a condition and a word for it.
func (p *property) note(what string, reasons []string, pairs ...any) {
	for _, r := range reasons {
		p.seen[what+": "+r]++
	}
	for pair := range slices.Chunk(pairs, 2) {
		if pair[0].(bool) {
			p.seen[what+": "+pair[1].(string)]++
		}
	}
}

func (p *property) listenerStatus(l *entry) *gatewayv1.ListenerStatus {
	var all []gatewayv1.ListenerStatus
	if l.kind == "Gateway" {
		all = p.res.Status.Gateways[l.owner].Listeners
	} else {
		for _, s := range p.res.Status.ListenerSets[l.owner].Listeners {
			all = append(all, gatewayv1.ListenerStatus(s))
		}
	}
	for i := range all {
		if all[i].Name == l.spec.Name {
			return &all[i]
		}
	}
	return nil
}

// certificates compares what a listener presents.
func (p *property) certificates(what string, l *entry, usable []string) {
	var have []string
	for _, c := range p.res.Certificates {
		if c.Source.Kind != l.kind || c.Source.Namespace != l.owner.Namespace || c.Source.Name != l.owner.Name || c.Source.Field != p.fieldOf(l) {
			continue
		}
		for _, pair := range c.Pairs {
			have = append(have, pair.Namespace+"/"+pair.Name)
		}
	}
	if !l.served() {
		usable = nil
	}
	if !slices.Equal(have, usable) {
		p.Errorf("%s presents %v, want %v", what, have, usable)
	}
}

// fieldOf is the place of a listener in its object: they are named in that order.
func (p *property) fieldOf(l *entry) string { return "spec.listeners[" + string(l.spec.Name)[1:] + "]" }

// sets compares which ListenerSets are part of their Gateways.
func (p *property) sets() {
	for key, s := range p.in.ListenerSets {
		status, have := p.res.Status.ListenerSets[key]
		g := p.gatewayOf(s)
		if have != (g != nil) {
			p.Errorf("ListenerSet %s has a status: %v, want %v", key, have, g != nil)
		}
		if g == nil {
			continue
		}
		if admitted := p.admitsSet(g, s); !admitted {
			p.check("ListenerSet "+key.String(), status.Conditions, "Accepted", false, "NotAllowed")
			p.seen["set: refused"]++
		} else {
			p.seen["set: attached"]++
		}
	}
}

// routes compares what the parents of every route say.
func (p *property) routes() {
	for _, r := range p.read {
		key := object.KeyOf(r.route)
		have := p.routeStatus(r.route)
		if len(have) != len(r.parents) {
			p.Errorf("%s %s: %d parents speak, want %d", r.route.kind, key, len(have), len(r.parents))
			continue
		}
		var reasons []string
		for _, rule := range r.route.Spec.Rules {
			for i := range rule.BackendRefs {
				if d := p.leadsTo(r.route, &rule.BackendRefs[i].BackendRef); d.reason != "" {
					reasons = append(reasons, d.reason)
				}
			}
		}
		for i, want := range r.parents {
			what := fmt.Sprintf("%s %s, parent %d", r.route.kind, key, i)
			p.check(what, have[i].Conditions, "Accepted", want.reason == "", want.reason)
			p.check(what, have[i].Conditions, "ResolvedRefs", len(reasons) == 0, reasons...)
			p.note("route", append(reasons, want.reason), want.reason == "", "accepted "+r.route.kind)
		}
	}
}
