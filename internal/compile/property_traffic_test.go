package compile

import (
	"fmt"
	"maps"
	"net/http"
	"slices"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// eachAddress calls f for every port of every Gateway that has an address, as it should.
func (p *property) eachAddress(f func(key object.Key, entries []*entry, bind route.Bind)) {
	for _, key := range slices.SortedFunc(maps.Keys(p.entries), object.Key.Compare) {
		addresses := p.res.Status.Gateways[key].Addresses
		if len(addresses) != 1 {
			p.Errorf("Gateway %s has the addresses %v", key, addresses)
			continue
		}
		for _, port := range []uint16{80, 81, 443} {
			f(key, p.entries[key], route.Bind{Address: addresses[0].Value, Port: port})
		}
	}
}

// requests compares who gets what is asked for, and the calls of gRPC.
func (p *property) requests() {
	p.eachAddress(func(key object.Key, entries []*entry, bind route.Bind) {
		ask := func(host, path string, call bool) {
			want := p.describe(p.serves(entries, p.read, gatewayv1.PortNumber(bind.Port), host, path, call))
			if got := p.ask(bind, host, path, call); got != want {
				p.Errorf("Gateway %s, %s:%d%s, call=%v: got %s, want %s", key, host, bind.Port, path, call, got, want)
			}
		}
		for _, host := range graphHosts {
			for _, path := range graphPaths {
				ask(host, path, false)
			}
			ask(host, "/a/b", true)
		}
	})
}

// connections compares who gets the connections and datagrams that nobody reads.
func (p *property) connections() {
	p.eachAddress(func(key object.Key, entries []*entry, bind route.Bind) {
		for _, name := range append([]string{""}, graphHosts...) {
			owner, best := p.connects(entries, p.read, gatewayv1.PortNumber(bind.Port), name)
			want := p.describe(best)
			if owner != nil && owner.isRequests() {
				want = "requests"
				p.noteNeighbours(entries, owner)
			}
			if got := p.connect(bind, name); got != want {
				p.Errorf("Gateway %s, a connection for %q at port %d: got %s, want %s", key, name, bind.Port, got, want)
			}
			p.notePrecedence(owner, best)
		}
		datagrams := bind
		datagrams.UDP = true
		want := p.describe(p.datagrams(entries, p.read, gatewayv1.PortNumber(bind.Port)))
		if got := p.connect(datagrams, ""); got != want {
			p.Errorf("Gateway %s, a datagram at port %d: got %s, want %s", key, bind.Port, got, want)
		}
	})
}

// noteNeighbours counts the listeners of HTTPS that share their port with one of TLS.
func (p *property) noteNeighbours(entries []*entry, l *entry) {
	p.note("listener", nil, slices.ContainsFunc(entries, func(m *entry) bool { return m.served() && m.spec.Port == l.spec.Port && m.spec.Protocol == "TLS" }), "TLS beside HTTPS")
}

// notePrecedence counts the connections that more than one route could have.
func (p *property) notePrecedence(owner *entry, best *won) {
	if best == nil {
		return
	}
	for _, r := range p.read {
		if r.route != best.route && r.isAt(owner) {
			same := slices.Contains(hostnamesOf(r.route.HTTPRoute), best.hostname)
			p.note("connection", nil, same && olderThan(best.route, r.route) < 0, "over an older one", !same, "over a more specific one")
		}
	}
}

// describe says in words who gets something.
func (p *property) describe(w *won) string {
	if w == nil {
		p.seen["got: nobody"]++
		return "nobody"
	}
	text := fmt.Sprintf("%s %s spec.rules[%d]", w.route.kind, object.KeyOf(w.route), w.rule)
	rule := &w.route.Spec.Rules[w.rule]
	for i := range rule.BackendRefs {
		text += " " + p.describeBackend(w.route, &rule.BackendRefs[i].BackendRef)
	}
	return text
}

func (p *property) describeBackend(r *anyRoute, ref *gatewayv1.BackendRef) string {
	d := p.leadsTo(r, ref)
	served := r.kind + " served"
	p.note("got", nil, d.reason != "", "fault", d.reason == "", served, d.reason == "" && d.key.Namespace != r.Namespace, served+" in another namespace",
		d.reason == "" && d.kind == "XBackend", served+" by an XBackend")
	switch {
	case d.reason != "" && (r.kind == "HTTPRoute" || r.kind == "GRPCRoute"):
		return "500"
	case d.reason != "":
		return "closed"
	case d.kind == "XBackend":
		x := p.in.XBackends[d.key]
		if x.Spec.TLS == nil {
			return "XBackend " + d.key.String()
		}
		refused, _ := p.trustOf(x)
		return fmt.Sprintf("XBackend %s XBackend %s broken=%v", d.key, d.key, len(refused) > 0)
	}
	text := "Service " + d.key.String()
	if policy := p.policyFor(d.key, d.port.Name); policy != nil && r.kind != "UDPRoute" {
		refused, _ := p.trust(&policy.Spec.Validation, policy.Namespace)
		text += fmt.Sprintf(" BackendTLSPolicy %s broken=%v", object.KeyOf(policy), len(refused) > 0)
		p.note("got", nil, true, "policy", len(refused) > 0, "broken policy")
	}
	return text
}

// ask asks the table for a request, or a call.
func (p *property) ask(bind route.Bind, host, path string, call bool) string {
	port := p.res.Table.Port(bind)
	if port == nil {
		return "nobody"
	}
	r := &route.Request{Host: host, Path: path, Method: "GET"}
	if call {
		r.Method, r.Header = "POST", http.Header{"Content-Type": {"application/grpc"}}
	}
	_, rule, _ := port.Lookup(r)
	return ruleText(rule)
}

// connect asks the table for a connection, or for a datagram.
func (p *property) connect(bind route.Bind, name string) string {
	port := p.res.Table.Port(bind)
	if port == nil {
		return "nobody"
	}
	l, rule := port.Connection(name)
	if rule == nil && l != nil && l.Mode == route.Requests {
		return "requests"
	}
	return ruleText(rule)
}

// ruleText says what describe says, of a rule of the table.
func ruleText(rule *route.Rule) string {
	if rule == nil {
		return "nobody"
	}
	s := rule.Source
	text := fmt.Sprintf("%s %s/%s %s", s.Kind, s.Namespace, s.Name, s.Field[:min(len("spec.rules[0]"), len(s.Field))])
	for _, b := range rule.Backends {
		switch {
		case b.Fault != nil && b.Fault.Status == 0:
			text += " closed"
		case b.Fault != nil:
			text += fmt.Sprint(" ", b.Fault.Status)
		default:
			text += " " + poolText(b.Pool)
		}
	}
	return text
}

func poolText(pool *route.Pool) string {
	kind := pool.Key.Kind
	if kind == "" {
		kind = "Service"
	}
	text := fmt.Sprintf("%s %s/%s", kind, pool.Key.Namespace, pool.Key.Service)
	if t := pool.TLS; t != nil {
		text += fmt.Sprintf(" %s %s/%s broken=%v", t.Source.Kind, t.Source.Namespace, t.Source.Name, t.Broken != "")
	}
	return text
}
