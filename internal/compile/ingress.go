package compile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// ingress is an Ingress of one of our classes while it is compiled.
type ingress struct {
	obj *networkingv1.Ingress
	ref object.Ref

	hosts []string     // that its rules are about, each once, sorted; "" is any
	rules []*hostRule  // in the order of the object, the default backend last
	plain plainRequest // what is done with plain requests for hosts that have TLS

	tls       []*tlsName // that its TLS blocks name, each once
	anyTLS    bool       // a TLS block without hosts is about all that it serves
	wildcards []string   // that stand for one of hosts, sorted
}

// hostRule is a rule for one host of an Ingress.
type hostRule struct {
	host string // "" is any
	rule *route.Rule
	from *ingress
}

// source says that something came from a field of the Ingress.
func (g *ingress) source(field string) route.Source {
	return route.Source{Kind: g.ref.Kind, Namespace: g.ref.Namespace, Name: g.ref.Name, Field: field}
}

// ingresses compiles the Ingress objects of our classes. Each is compiled by itself; then they are put together, the older before the newer.
func (c *compiler) ingresses() {
	mine := c.ourIngresses()
	if len(mine) == 0 {
		return
	}
	for _, g := range mine {
		c.guard(g.ref, func() { c.ingress(g) })
	}
	c.reportIngressClashes(mine)
	c.serveIngresses(mine)
}

// ingress compiles what an Ingress says, without regard to others.
func (c *compiler) ingress(g *ingress) {
	spec := &g.obj.Spec
	c.ingressAnnotations(g)
	if len(spec.Rules) == 0 && spec.DefaultBackend == nil {
		c.problems.add(Error, g.ref, "spec", "NoRules", "the Ingress has neither rules nor a defaultBackend, so it serves nothing")
	}
	for i := range spec.Rules {
		c.ingressRule(g, i, &spec.Rules[i])
	}
	slices.Sort(g.hosts)
	g.hosts = slices.Compact(g.hosts)
	for _, host := range g.hosts {
		c.hostOwner(host, g.ref.Namespace)
	}
	c.defaultBackend(g)
	c.ingressTLS(g)
}

// ingressRule compiles spec.rules[i].
func (c *compiler) ingressRule(g *ingress, i int, r *networkingv1.IngressRule) {
	field := fmt.Sprintf("spec.rules[%d]", i)
	host := ""
	if r.Host != "" {
		clean, err := cleanHostname(r.Host, true)
		if err != nil {
			c.rejectRule(g, r.Host, field+".host", "InvalidHost", fmt.Sprintf("the host %v", err))
			return
		}
		host = clean
	}
	g.hosts = append(g.hosts, host)
	if r.HTTP == nil || len(r.HTTP.Paths) == 0 {
		if g.obj.Spec.DefaultBackend == nil {
			c.rejectRule(g, host, field+".http", "NoPaths", "the rule has no paths and the Ingress no defaultBackend, so nothing serves this host")
		}
		return
	}
	for j := range r.HTTP.Paths {
		c.ingressPath(g, host, i, j, &r.HTTP.Paths[j])
	}
}

// ingressPath compiles spec.rules[i].http.paths[j].
func (c *compiler) ingressPath(g *ingress, host string, i, j int, p *networkingv1.HTTPIngressPath) {
	field := fmt.Sprintf("spec.rules[%d].http.paths[%d]", i, j)
	match, ok := c.ingressMatch(g, host, field, p)
	if !ok {
		return
	}
	rule := &route.Rule{
		Match:  route.Match{Path: match},
		Order:  route.Order{Created: g.obj.CreationTimestamp.Time, Rule: i, Match: j},
		Source: g.source(field),
	}
	if match.Kind == route.Prefix && !strings.HasSuffix(match.Value, "/") {
		// /foo and /foo/ match the same requests. The longer path has priority within an Ingress (networking/v1, PathTypePrefix), wherever it stands.
		rule.Order.Rule += len(g.obj.Spec.Rules)
	}
	c.ingressBackend(g, rule, field+".backend", &p.Backend)
	g.rules = append(g.rules, &hostRule{host, rule, g})
}

// ingressMatch compiles the path and pathType of a path.
func (c *compiler) ingressMatch(g *ingress, host, field string, p *networkingv1.HTTPIngressPath) (m route.PathMatch, ok bool) {
	kind, typ := route.Prefix, value(p.PathType)
	path := p.Path
	switch typ {
	case networkingv1.PathTypeExact:
		kind = route.Exact
	case networkingv1.PathTypePrefix:
	case networkingv1.PathTypeImplementationSpecific:
		path = cmp.Or(path, "/")
	case "":
		path = cmp.Or(path, "/")
		c.problems.add(Warning, g.ref, field+".pathType", "NoPathType", "pathType is missing, which a cluster refuses; it is taken as Prefix")
	default:
		c.rejectRule(g, host, field+".pathType", "InvalidPathType",
			fmt.Sprintf("pathType %q is none of Exact, Prefix and ImplementationSpecific", typ))
		return m, false
	}
	clean, changed, err := route.NormalizePath(path)
	switch {
	case path == "":
		c.rejectRule(g, host, field+".path", "InvalidPath", fmt.Sprintf("the path is missing, which pathType %s needs", typ))
		return m, false
	case err != nil:
		c.rejectRule(g, host, field+".path", "InvalidPath", fmt.Sprintf("the path %q cannot be matched: %v", path, err))
		return m, false
	case changed:
		c.problems.add(Warning, g.ref, field+".path", "InvalidPath", "the path %q has dot segments, which no request has; it is taken as %s", path, clean)
	case kind == route.Prefix && looksLikeRegex(path):
		severity := Note
		if typ == networkingv1.PathTypeImplementationSpecific {
			severity = Warning // other controllers have patterns there; what Prefix means is the same everywhere
		}
		c.problems.add(severity, g.ref, field+".path", "PathTakenLiterally",
			"the path %q looks like a pattern, but is taken as a prefix, to the letter: Fairlead has no patterns in Ingress paths", path)
	}
	return route.PathMatch{Kind: kind, Value: clean}, true
}

// looksLikeRegex tells whether a path was probably meant as a pattern, as other controllers understand it.
func looksLikeRegex(path string) bool {
	return strings.ContainsAny(path, `*()[]{}^|`) || strings.HasSuffix(path, "$")
}

// ingressBackend says where the requests of a rule go. A rule whose backend cannot be used still wins its requests, and answers them with 503.
func (c *compiler) ingressBackend(g *ingress, rule *route.Rule, field string, b *networkingv1.IngressBackend) {
	pool, field, err := c.ingressPool(g, field, b)
	if err != nil {
		c.problems.add(Error, g.ref, field, err.Code, "%s; requests are answered with 503", err.Message)
		rule.Fault = &route.Fault{Status: 503, Reason: route.NoBackend, Why: err.Message}
		return
	}
	rule.Backends = []route.WeightedPool{{Pool: pool, Weight: 1, Source: g.source(field)}}
}

// ingressPool returns the pool of a backend, or what is wrong with it and in which field.
func (c *compiler) ingressPool(g *ingress, field string, b *networkingv1.IngressBackend) (*route.Pool, string, *poolError) {
	switch {
	case b.Resource != nil:
		return nil, field + ".resource", poolErrorf("ResourceBackend", "resource backends (here: %s %s) are not supported; name a Service", b.Resource.Kind, b.Resource.Name)
	case b.Service == nil || b.Service.Name == "":
		return nil, field, poolErrorf("NoBackend", "the backend names no Service")
	}
	field += ".service"
	port, err := c.servicePort(g.ref.Namespace, b.Service.Name, b.Service.Port)
	if err == nil {
		var pool *route.Pool
		if pool, err = c.httpPool(g.ref.Namespace, b.Service.Name, port); err == nil {
			return pool, field, nil
		}
	}
	if err.Code == codePortNotFound {
		field += ".port"
	}
	return nil, field, err
}

// defaultBackend compiles spec.defaultBackend. It gets what no rule matches: of the hosts that the Ingress has rules for, and of all hosts that nobody serves.
func (c *compiler) defaultBackend(g *ingress) {
	const field = "spec.defaultBackend"
	b := g.obj.Spec.DefaultBackend
	if b == nil {
		return
	}
	rule := &route.Rule{
		Order:  route.Order{Created: g.obj.CreationTimestamp.Time, Last: true},
		Source: g.source(field),
	}
	c.ingressBackend(g, rule, field, b)
	for _, host := range g.hosts {
		if host != "" && g.hasHost("") && g.hasPaths(host) {
			continue // what its rules for the host do not match, its rules for all hosts may; the default comes after those
		}
		g.rules = append(g.rules, &hostRule{host, rule, g})
	}
	if !g.hasHost("") {
		g.rules = append(g.rules, &hostRule{"", rule, g})
	}
}

// hasPaths reports whether some rule of the Ingress for a host has paths.
func (g *ingress) hasPaths(host string) bool {
	return slices.ContainsFunc(g.obj.Spec.Rules, func(r networkingv1.IngressRule) bool {
		return strings.EqualFold(r.Host, host) && r.HTTP != nil && len(r.HTTP.Paths) > 0
	})
}

// rejectRule reports a rule or path that cannot be part of the table.
func (c *compiler) rejectRule(g *ingress, host, field, code, why string) {
	c.problems.add(Error, g.ref, field, code, "%s", why)
	r := route.Rejected{Why: why, Source: g.source(field)}
	if host != "" {
		r.Hostnames = []string{strings.ToLower(host)}
	}
	c.rejected = append(c.rejected, r)
}

// wantedHosts are the hosts that an Ingress has rules for, as they are written; none if it has a rule for all.
func (g *ingress) wantedHosts() []string {
	var hosts []string
	for i := range g.obj.Spec.Rules {
		host := g.obj.Spec.Rules[i].Host
		if host == "" {
			return nil
		}
		hosts = append(hosts, strings.ToLower(host))
	}
	if g.obj.Spec.DefaultBackend != nil {
		return nil
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// clashKey is what two rules must not have in common, because then one of them is never asked.
type clashKey struct {
	host string
	kind route.PathKind
	path string
	last bool
}

func (r *hostRule) clashKey() clashKey {
	m := r.rule.Match.Path
	k := clashKey{host: r.host, kind: m.Kind, path: m.Value, last: r.rule.Order.Last}
	if m.Kind == route.Prefix {
		k.path = strings.TrimSuffix(k.path, "/")
	}
	return k
}

// reportIngressClashes tells whose rules can never win a request because another has the same host and path: the older Ingress wins, and in one Ingress the
// first. The rules stay in the table, where they show as the losers.
func (c *compiler) reportIngressClashes(mine []*ingress) {
	winners := make(map[clashKey]*hostRule)
	for _, g := range mine {
		for _, r := range g.rules {
			key := r.clashKey()
			winner, loser := winners[key], r
			if winner == nil {
				winners[key] = r
				continue
			}
			if r.rule.Compare(winner.rule) < 0 {
				winners[key], winner, loser = r, r, winner
			}
			c.reportClash(winner, loser)
		}
	}
}

func (c *compiler) reportClash(winner, loser *hostRule) {
	last := loser.rule.Order.Last
	severity, what := Warning, fmt.Sprintf("%s of %s", loser.rule.Match.Path, hostText(loser.host))
	if last {
		what = "what no rule for " + hostText(loser.host) + " matches"
	}
	if sameBackend(winner.rule, loser.rule) || last && loser.host == "" && len(loser.from.hosts) > 0 {
		severity = Note // nothing changes, or only for hosts that its author hardly has in mind
	}
	c.problems.add(severity, loser.from.ref, loser.rule.Source.Field, "RuleConflict", "%s goes to %s, which comes first; nothing is left for this backend",
		what, winner.rule.Source)
}

func sameBackend(a, b *route.Rule) bool {
	return len(a.Backends) == 1 && len(b.Backends) == 1 && a.Backends[0].Pool == b.Backends[0].Pool
}

// hostText writes a host for people.
func hostText(host string) string {
	if host == "" {
		return "any host"
	}
	return host
}

// serveIngresses puts the Ingresses into the table: all of them on the HTTP port, and if one has TLS all of them on the HTTPS port too.
func (c *compiler) serveIngresses(mine []*ingress) {
	byHost := make(map[string][]*hostRule)
	for _, g := range mine {
		for _, r := range g.rules {
			byHost[r.host] = append(byHost[r.host], r)
		}
	}
	secure := slices.DeleteFunc(slices.Clone(mine), func(g *ingress) bool { return len(g.tls) == 0 })
	https := c.ingressListener(c.opt.HTTPSPort, route.HTTPS, secure)
	var redirects redirects
	if https != nil {
		redirects = redirectsTo(https.Port, c.ingressCertificates(route.Bind{Port: c.opt.bindPort(c.opt.HTTPSPort)}, secure))
		addHosts(https, byHost, func(_ string, rules []*hostRule) []*route.Rule { return plainRules(rules) })
	}
	http := c.ingressListener(c.opt.HTTPPort, route.HTTP, mine)
	if http != nil {
		addHosts(http, byHost, redirects.rules)
	}
	c.reportRedirects(mine, &redirects)
	for _, g := range mine {
		set(&c.status.Ingresses, g.ref.Key(), c.ingressStatus(http != nil || https != nil))
	}
}

// ingressListener returns the listener on a port where Ingresses are served; nil if there are none, or if they cannot be served there.
func (c *compiler) ingressListener(number uint16, protocol route.Protocol, served []*ingress) *route.Listener {
	if len(served) == 0 {
		return nil
	}
	bound := c.opt.bindPort(number)
	port := c.port(route.Bind{Port: bound}, protocol)
	if port == nil {
		for _, g := range served {
			c.problems.add(Error, g.ref, "", "PortInUse", "port %d is where Ingresses are served over %s, but it is in use for another protocol", bound, protocol)
		}
		return nil
	}
	l := &route.Listener{Name: "ingress", LastResort: true, OneLabelWildcards: true, Port: c.opt.ingressPort(number, bound), Source: route.Source{Kind: "Ingress", Name: "*"}}
	port.Listeners = append(port.Listeners, l)
	return l
}

// addHosts fills a listener.
func addHosts(l *route.Listener, byHost map[string][]*hostRule, rules func(host string, all []*hostRule) []*route.Rule) {
	for _, host := range slices.Sorted(maps.Keys(byHost)) {
		l.Hosts = append(l.Hosts, &route.Host{Name: host, Rules: rules(host, byHost[host])})
	}
}

func plainRules(rules []*hostRule) []*route.Rule {
	out := make([]*route.Rule, len(rules))
	for i, r := range rules {
		out[i] = r.rule
	}
	return out
}

// ingressStatus is the status of an Ingress: the addresses at which it is served, if it is.
func (c *compiler) ingressStatus(served bool) (s networkingv1.IngressStatus) {
	if !served {
		return s
	}
	for _, a := range c.sharedAddresses() {
		s.LoadBalancer.Ingress = append(s.LoadBalancer.Ingress, ingressAt(a))
	}
	return s
}
