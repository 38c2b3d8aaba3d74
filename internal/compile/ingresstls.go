package compile

import (
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// annotationPrefix is what the names of Fairlead's own annotations begin with.
const annotationPrefix = "fairlead.io/"

// redirectAnnotation on an Ingress says whether plain requests for its hosts that have TLS are redirected to HTTPS.
const redirectAnnotation = annotationPrefix + "ssl-redirect"

// ingressAnnotations are the names of all annotations that Fairlead knows on an Ingress, sorted.
var ingressAnnotations = []string{issuerAnnotation, redirectAnnotation}

// acmePath is where a certificate authority looks whether who asks for a certificate has the host (RFC 8555, section 8.3). It asks there over plain HTTP.
const acmePath = "/.well-known/acme-challenge"

// plainRequest says what is done with plain requests for the hosts of an Ingress that have TLS.
type plainRequest struct {
	redirect bool
	asked    bool // by the Ingress itself, not by the configuration
}

// ingressAnnotations reads the annotations that are ours.
func (c *compiler) ingressAnnotations(g *ingress) {
	g.plain.redirect = c.opt.RedirectHTTPS
	for _, name := range slices.Sorted(maps.Keys(g.obj.Annotations)) {
		if !strings.HasPrefix(name, annotationPrefix) {
			continue
		}
		field, text := annotationField(name), g.obj.Annotations[name]
		switch {
		case name == issuerAnnotation: // wish reads it
		case !slices.Contains(ingressAnnotations, name):
			c.problems.add(Warning, g.ref, field, "UnknownAnnotation", "Fairlead does not know this annotation and ignores it; on an Ingress it knows %s", list(ingressAnnotations))
		case text == "true", text == "false":
			g.plain = plainRequest{redirect: text == "true", asked: text == "true"}
		default:
			c.problems.add(Warning, g.ref, field, "InvalidAnnotation", `the value %q is neither "true" nor "false", and is ignored`, text)
		}
	}
}

// tlsName is a host name for which an Ingress has a TLS block.
type tlsName struct {
	host   string // "" is any
	from   *ingress
	field  string // the first block that names it
	named  bool   // a Secret is named for it
	routed bool   // the Ingress serves the host too
	pairs  []route.KeyPair
}

// ingressTLS compiles spec.tls.
func (c *compiler) ingressTLS(g *ingress) {
	if len(g.obj.Spec.TLS) == 0 {
		return
	}
	for _, host := range g.hosts {
		g.wildcards = append(g.wildcards, oneLabelWildcard(host))
	}
	slices.Sort(g.wildcards)
	names, wish := make(map[string]*tlsName), c.wish(g.ref, g.obj.Annotations)
	for i := range g.obj.Spec.TLS {
		c.ingressTLSBlock(g, &g.obj.Spec.TLS[i], fmt.Sprintf("spec.tls[%d]", i), wish, names)
	}
}

// ingressTLSBlock compiles one TLS block. names are those of the blocks before it.
func (c *compiler) ingressTLSBlock(g *ingress, t *networkingv1.IngressTLS, field string, wish wish, names map[string]*tlsName) {
	hosts := c.tlsHosts(g, field, t)
	if len(hosts) == 0 {
		return
	}
	block := object.Key{Namespace: g.ref.Namespace, Name: t.SecretName}
	ordered := c.orderForIngress(g, wish, field, block, hosts)
	var named issuedPair
	if slices.ContainsFunc(hosts, func(host string) bool { return ordered[host].Name == "" }) {
		named.secret = block
		named.pair, named.leaf = c.ingressPair(g, field, block)
	}
	for _, host := range hosts {
		n := names[host]
		if n == nil {
			n = &tlsName{host: host, from: g, field: field, routed: g.routes(host)}
			names[host] = n
			g.tls = append(g.tls, n)
		}
		g.anyTLS = g.anyTLS || host == ""
		n.named = n.named || t.SecretName != ""
		p := named
		if secret := ordered[host]; secret.Name != "" {
			p = c.issuedPair(g.ref, field+".secretName", secret, host)
		}
		if p.leaf != nil {
			n.add(p.pair)
			c.checkCertificate(g.ref, field+".secretName", p.secret, p.leaf, host)
		}
	}
}

// tlsHosts returns the hosts of a TLS block. A block that names none is about every host.
func (c *compiler) tlsHosts(g *ingress, field string, t *networkingv1.IngressTLS) (hosts []string) {
	if len(t.Hosts) == 0 {
		return []string{""}
	}
	for i, host := range t.Hosts {
		field := fmt.Sprintf("%s.hosts[%d]", field, i)
		clean, err := cleanHostname(host, true)
		if err != nil {
			c.problems.add(Error, g.ref, field, "InvalidHost", "the host %v", err)
			continue
		}
		if !g.routes(clean) {
			c.problems.add(Note, g.ref, field, "HostWithoutRule", "no rule of this Ingress is for %s; the hosts of TLS blocks should be those of rules", clean)
		}
		hosts = append(hosts, clean)
	}
	return hosts
}

// ingressPair returns the certificate in the Secret of a TLS block. leaf is nil if there is none that could be used.
func (c *compiler) ingressPair(g *ingress, field string, secret object.Key) (route.KeyPair, *x509.Certificate) {
	if secret.Name == "" {
		c.problems.add(Warning, g.ref, field+".secretName", "NoSecret",
			"the TLS block names no Secret; its hosts get the certificate of a wider name that covers them, or else a self-signed one")
		return route.KeyPair{}, nil
	}
	pair, leaf, err := c.readPair(secret)
	if err != nil {
		c.problems.add(Error, g.ref, field+".secretName", err.Code, "%s; a self-signed certificate takes its place, unless another Ingress has one for the host", err.Message)
		return route.KeyPair{}, nil
	}
	return pair, leaf
}

// routes tells whether the Ingress has something to serve for a host that a TLS block names: a rule for it, or for part of it where it is a wildcard.
func (g *ingress) routes(host string) bool {
	return host == "" || g.obj.Spec.DefaultBackend != nil || g.hasHost("") || g.hasHost(host) || g.hasHost(oneLabelWildcard(host)) || contains(g.wildcards, host)
}

func (g *ingress) hasHost(host string) bool { return contains(g.hosts, host) }

// contains tells whether a sorted list has a string.
func contains(sorted []string, s string) bool {
	_, ok := slices.BinarySearch(sorted, s)
	return ok
}

// oneLabelWildcard returns the wildcard that stands for a host, as Ingress has it: the star in place of the first label. "" for what has none.
func oneLabelWildcard(host string) string {
	if i := strings.IndexByte(host, '.'); i > 0 && !strings.HasPrefix(host, "*") {
		return "*" + host[i:]
	}
	return ""
}

func (n *tlsName) add(pair route.KeyPair) {
	if !n.has(pair) {
		n.pairs = append(n.pairs, pair)
	}
}

func (n *tlsName) has(pair route.KeyPair) bool {
	return slices.ContainsFunc(n.pairs, func(p route.KeyPair) bool { return p.Namespace == pair.Namespace && p.Name == pair.Name })
}

// beats tells whether n has the better claim to its host than an older Ingress: who serves the host has it before who only has a certificate for it, so that
// nobody can put a certificate of theirs on a foreign host; and one that can be used before one that cannot.
func (n *tlsName) beats(older *tlsName) bool {
	if n.routed != older.routed {
		return n.routed
	}
	return len(n.pairs) > 0 && len(older.pairs) == 0
}

// ingressCertificates decides which certificates are presented on the HTTPS port of the Ingresses, and returns the names that have TLS. A TLS block without
// hosts gives none of them to other Ingresses.
func (c *compiler) ingressCertificates(bind route.Bind, mine []*ingress) (secured map[string]bool) {
	secured = make(map[string]bool)
	winners := make(map[string]*tlsName)
	for _, g := range mine {
		for _, n := range g.tls {
			secured[n.host] = n.host != ""
			if w := winners[n.host]; n.named && (w == nil || n.beats(w)) {
				winners[n.host] = n
			}
		}
	}
	c.yieldToGateways(bind, winners)
	for _, g := range mine {
		for _, n := range g.tls {
			c.reportLostCertificate(n, winners[n.host])
		}
	}
	for _, host := range slices.Sorted(maps.Keys(winners)) {
		n := winners[host]
		c.certs = append(c.certs, route.Certificate{Bind: bind, Hostname: host, Pairs: n.pairs, Source: n.from.source(n.field)})
	}
	return secured
}

// yieldToGateways removes the names for which a listener of a Gateway has a certificate already. It owns the host.
func (c *compiler) yieldToGateways(bind route.Bind, winners map[string]*tlsName) {
	for i := range c.certs {
		cert := &c.certs[i]
		if n := winners[cert.Hostname]; n != nil && cert.Bind == bind && len(cert.Pairs) > 0 {
			c.problems.add(Warning, n.from.ref, n.field, "CertificateConflict", "the certificate for %s is that of %s, whose listener has the same hostname and port",
				hostText(n.host), cert.Source)
			delete(winners, cert.Hostname)
		}
	}
}

// reportLostCertificate tells whose certificate is not presented because another Ingress has one for the same host.
func (c *compiler) reportLostCertificate(n, winner *tlsName) {
	if winner == nil || n == winner || !slices.ContainsFunc(n.pairs, func(p route.KeyPair) bool { return !winner.has(p) }) {
		return
	}
	why := "comes first"
	if n.routed != winner.routed {
		why = "has rules for the host"
	}
	c.problems.add(Warning, n.from.ref, n.field, "CertificateConflict", "the certificate for %s is that of %s, which %s",
		hostText(n.host), winner.from.source(winner.field), why)
}

// redirects makes rules on the HTTP port redirect to HTTPS. They keep their backends, for requests that a trusted proxy has taken the TLS off: those have
// been where a redirect would send them. The zero value redirects none.
type redirects struct {
	filter  *route.Redirect
	secured map[string]bool // names that have TLS
	used    map[*ingress]bool
}

func redirectsTo(port uint16, secured map[string]bool) redirects {
	r := redirects{filter: &route.Redirect{Scheme: "https", Status: 308}, secured: secured, used: make(map[*ingress]bool)}
	if port != 443 {
		r.filter.Port = port
	}
	return r
}

// covers tells whether plain requests that a rule wins are to be redirected.
func (r *redirects) covers(h *hostRule) bool {
	return r.filter != nil && h.from.plain.redirect && !isUnder(h.rule.Match.Path.Value, acmePath) &&
		(r.secured[h.host] || r.secured[oneLabelWildcard(h.host)] || h.from.anyTLS)
}

// isUnder tells whether path is dir or in it, by path element.
func isUnder(path, dir string) bool {
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(dir, "/"))
	return ok && (rest == "" || rest[0] == '/')
}

// rules returns the rules of a host on the HTTP port. When what serves the host's ACME challenges redirects, it remains as it was for those.
func (r *redirects) rules(_ string, all []*hostRule) []*route.Rule {
	out := plainRules(all)
	var challenges *hostRule
	for i, h := range all {
		if m := h.rule.Match.Path; m.Kind == route.Prefix && isUnder(acmePath, m.Value) && (challenges == nil || h.rule.Compare(challenges.rule) < 0) {
			challenges = h
		}
		if r.covers(h) {
			r.used[h.from] = true
			out[i] = r.redirected(h.rule)
		}
	}
	if challenges != nil && r.covers(challenges) {
		keep := *challenges.rule
		keep.Match.Path = route.PathMatch{Kind: route.Prefix, Value: acmePath}
		out = append(out, &keep)
	}
	return out
}

// redirected returns a rule that redirects before anything else. What would answer in place of a backend comes after it, too.
func (r *redirects) redirected(rule *route.Rule) *route.Rule {
	out := *rule
	out.Filters = append([]route.Filter{r.filter}, rule.Filters...)
	if rule.Fault != nil {
		out.Fault, out.Backends = nil, []route.WeightedPool{{Weight: 1, Fault: rule.Fault, Source: rule.Source}}
	}
	return &out
}

// reportRedirects tells who asked for redirects in vain.
func (c *compiler) reportRedirects(mine []*ingress, r *redirects) {
	for _, g := range mine {
		if g.plain.asked && !r.used[g] {
			c.problems.add(Warning, g.ref, annotationField(redirectAnnotation), "NothingRedirected", "nothing is redirected, because no rule of this Ingress is for a host that is served with TLS")
		}
	}
}
