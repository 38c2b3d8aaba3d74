package compile

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
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
		p.secrecy()
		if t.Failed() {
			t.Fatalf("graph %d:\n%s", seed, resultText(p.res))
		}
	}
	for _, want := range []string{
		"route: accepted", "route: accepted GRPCRoute", "route: NoMatchingParent", "route: NotAllowedByListeners", "route: NoMatchingListenerHostname", "route: RefNotPermitted", "route: BackendNotFound",
		"route: InvalidKind", "listener: conflicted", "listener: RefNotPermitted", "listener: InvalidCertificateRef", "listener: InvalidRouteKinds", "listener: usable certificate",
		"set: attached", "set: refused", "request: nobody", "request: 500", "request: served", "request: served in another namespace", "secrecy: Secret", "secrecy: Service",
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
	return parseOptions(t, "# options: gateway-addresses=127.0.1.0/24\n")
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
	for _, r := range object.Sorted(in.HTTPRoutes) {
		p.addRoute("HTTPRoute", r)
	}
	for _, r := range object.Sorted(in.GRPCRoutes) {
		p.addRoute("GRPCRoute", inWordsOfHTTP(r))
	}
	return p
}

func (p *property) addRoute(kind string, r *gatewayv1.HTTPRoute) {
	of := &anyRoute{kind, r}
	p.read = append(p.read, routeReading{of, p.parentsOf(of, p.all)})
}

// routeStatus is what the parents of a route said.
func (p *property) routeStatus(r *anyRoute) []gatewayv1.RouteParentStatus {
	if r.kind == "GRPCRoute" {
		return p.res.Status.GRPCRoutes[object.KeyOf(r)].Parents
	}
	return p.res.Status.HTTPRoutes[object.KeyOf(r)].Parents
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
		if a := l.spec.AllowedRoutes; a != nil && l.known() && slices.ContainsFunc(a.Kinds, func(k gatewayv1.RouteGroupKind) bool { return k.Kind == "Odd" }) {
			reasons = append(reasons, "InvalidRouteKinds")
		}
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
		p.note("listener", reasons, l.conflicted, "conflicted", len(usable) > 0, "usable certificate")
	}
	p.sets()
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
				if _, reason := p.leadsTo(r.route, &rule.BackendRefs[i]); reason != "" {
					reasons = append(reasons, reason)
				}
			}
		}
		for i, want := range r.parents {
			what := fmt.Sprintf("%s %s, parent %d", r.route.kind, key, i)
			p.check(what, have[i].Conditions, "Accepted", want.reason == "", want.reason)
			p.check(what, have[i].Conditions, "ResolvedRefs", len(reasons) == 0, reasons...)
			p.note("route", append(reasons, want.reason), want.reason == "", "accepted", want.reason == "" && r.route.kind == "GRPCRoute", "accepted GRPCRoute")
		}
	}
}

// requests compares who gets what is asked for.
func (p *property) requests() {
	for key, entries := range p.entries {
		addresses := p.res.Status.Gateways[key].Addresses
		if len(addresses) != 1 {
			p.Errorf("Gateway %s has the addresses %v", key, addresses)
			continue
		}
		for _, port := range []uint16{80, 81, 443} {
			for _, host := range graphHosts {
				for _, path := range graphPaths {
					want := p.describe(p.serves(entries, p.read, gatewayv1.PortNumber(port), host, path))
					if got := p.ask(route.Bind{Address: addresses[0].Value, Port: port}, host, path); got != want {
						p.Errorf("Gateway %s, %s:%d%s: got %s, want %s", key, host, port, path, got, want)
					}
				}
			}
		}
	}
}

// describe says in words who gets a request.
func (p *property) describe(w *won) string {
	if w == nil {
		p.seen["request: nobody"]++
		return "nobody"
	}
	text := fmt.Sprintf("%s spec.rules[%d]", object.KeyOf(w.route), w.rule)
	rule := &w.route.Spec.Rules[w.rule]
	for i := range rule.BackendRefs {
		service, reason := p.leadsTo(w.route, &rule.BackendRefs[i])
		if reason != "" {
			text += " 500"
			p.seen["request: 500"]++
			continue
		}
		text += " " + service.String()
		p.note("request", nil, true, "served", service.Namespace != w.route.Namespace, "served in another namespace")
	}
	return text
}

// ask asks the table.
func (p *property) ask(bind route.Bind, host, path string) string {
	port := p.res.Table.Port(bind)
	if port == nil {
		return "nobody"
	}
	_, rule, _ := port.Lookup(&route.Request{Host: host, Path: path, Method: "GET"})
	if rule == nil {
		return "nobody"
	}
	field := rule.Source.Field
	text := fmt.Sprintf("%s/%s %s", rule.Source.Namespace, rule.Source.Name, field[:min(len("spec.rules[0]"), len(field))])
	for _, b := range rule.Backends {
		if b.Fault != nil {
			text += fmt.Sprint(" ", b.Fault.Status)
			continue
		}
		text += " " + b.Pool.Key.Namespace + "/" + b.Pool.Key.Service
	}
	return text
}

// secrecy takes away the Secrets and Services that nobody may refer to, one after the other: no result may tell that they were there.
func (p *property) secrecy() {
	text := resultText(p.res)
	without := func(what string, in object.Snapshot) {
		if got := resultText(Compile(&in, graphOptions(p.T))); got != text {
			p.Errorf("without %s, which nobody may refer to, the result is another:\n%s", what, got)
		}
		p.seen["secrecy: "+strings.TrimSpace(what[:len("Service")])]++
	}
	for key := range p.in.Secrets {
		if !p.isReferredTo("Secret", key) {
			in := *p.in
			in.Secrets = maps.Clone(in.Secrets)
			delete(in.Secrets, key)
			without("Secret  "+key.String(), in)
		}
	}
	for key := range p.in.Services {
		if !p.isReferredTo("Service", key) {
			in := *p.in
			in.Services = maps.Clone(in.Services)
			delete(in.Services, key)
			without("Service "+key.String(), in)
		}
	}
}

// isReferredTo tells whether an object is referred to by somebody who may.
func (p *property) isReferredTo(kind string, key object.Key) bool {
	if kind == "Secret" {
		return slices.ContainsFunc(p.all, func(l *entry) bool {
			return l.spec.TLS != nil && slices.ContainsFunc(l.spec.TLS.CertificateRefs, func(ref gatewayv1.SecretObjectReference) bool {
				return secretOf(l, ref) == key && allowedSlowly(p.in, referrer{gatewayGroup, l.kind, l.owner.Namespace}, referent{"", kind, key.Namespace, key.Name})
			})
		})
	}
	for _, r := range p.read {
		for _, rule := range r.route.Spec.Rules {
			for i := range rule.BackendRefs {
				if service, reason := p.leadsTo(r.route, &rule.BackendRefs[i]); service == key && reason != "RefNotPermitted" && reason != "InvalidKind" {
					return true
				}
			}
		}
	}
	return false
}
