package compile

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// ACMEOptions are what the compiler knows of the certificate authorities.
type ACMEOptions struct {
	// Issuers are those that objects may name.
	Issuers map[string]ACMEIssuer
	// Default are those for objects that name none, in order of preference. Empty: such objects get no certificate.
	Default []string
}

// ACMEIssuer is what an issuer can do.
type ACMEIssuer struct {
	// DNS says that it looks for proof in the DNS, and so can issue for wildcards.
	DNS bool
	// MultiName says that all names of a Secret go into one certificate.
	MultiName bool
}

// issuerAnnotation on an Ingress, a Gateway or a ListenerSet, and among the tls.options of a listener, names the issuers to ask for certificates, in order of
// preference and with commas between them. noIssuer means that none is asked, whatever the default is.
const (
	issuerAnnotation = annotationPrefix + "acme-issuer"
	noIssuer         = "none"
)

// maxOrderHosts is how many names a certificate may have; public authorities allow no more.
const maxOrderHosts = 100

// wish is what an object says about where its certificates should come from. The zero value wishes for nothing.
type wish struct {
	issuers []string // known ones
	field   string   // where the object says so
	asked   bool     // by the object itself, not by the configuration
}

// order is a certificate on order while it is compiled.
type order struct {
	key       object.Key // of its Secret
	hosts     []string
	issuers   []string
	multi     bool // may have more names than one
	source    route.Source
	confirmed bool // somebody who is accepted serves the names
}

// confirm notes that the names of an order are served. A nil order stays nil.
func (o *order) confirm() {
	if o != nil {
		o.confirmed = true
	}
}

// foreignIssuers are the annotations by which cert-manager is asked for certificates; where it is, Fairlead keeps out.
var foreignIssuers = []string{"cert-manager.io/cluster-issuer", "cert-manager.io/issuer", "kubernetes.io/tls-acme"}

// wish reads the annotations of an object.
func (c *compiler) wish(on object.Ref, annotations map[string]string) wish {
	text, asked := annotations[issuerAnnotation]
	field := annotationField(issuerAnnotation)
	for _, name := range foreignIssuers {
		if _, foreign := annotations[name]; foreign {
			if asked {
				c.problems.add(Warning, on, field, "ForeignIssuer", "the annotation %s asks cert-manager for the same certificates, so Fairlead orders none", name)
			}
			return wish{}
		}
	}
	return c.issuers(on, field, text, asked)
}

// issuers returns the wish that a text stands for, which is at field of an object.
func (c *compiler) issuers(on object.Ref, field, text string, asked bool) wish {
	if !asked {
		if c.opt.ACME == nil {
			return wish{}
		}
		return wish{issuers: c.opt.ACME.Default, field: field}
	}
	w := wish{field: field, asked: true}
	if strings.TrimSpace(text) == noIssuer {
		return w
	}
	for name := range strings.SplitSeq(text, ",") {
		name = strings.TrimSpace(name)
		if c.opt.ACME == nil {
			c.problems.add(Error, on, field, "UnknownIssuer", "there is no issuer %q, because ACME is not configured", name)
			return w
		}
		if _, known := c.opt.ACME.Issuers[name]; !known {
			c.problems.add(Error, on, field, "UnknownIssuer", "there is no issuer %q; those that are configured are %s", name, list(slices.Sorted(maps.Keys(c.opt.ACME.Issuers))))
			continue
		}
		if !slices.Contains(w.issuers, name) {
			w.issuers = append(w.issuers, name)
		}
	}
	return w
}

// orderForIngress orders the certificates of a TLS block whose Secret is named block, and returns the Secret of each host for which one is on order.
func (c *compiler) orderForIngress(g *ingress, w wish, field string, block object.Key, hosts []string) map[string]object.Key {
	if len(w.issuers) == 0 {
		return nil
	}
	if block.Name == "" {
		if w.asked {
			c.problems.add(Error, g.ref, field+".secretName", "NoSecretName", "a certificate needs a Secret to be kept in: name one, which Fairlead makes")
		}
		return nil
	}
	source := route.Source{Kind: g.ref.Kind, Namespace: g.ref.Namespace, Name: g.ref.Name, Field: field}
	out := make(map[string]object.Key, len(hosts))
	for _, host := range hosts {
		if !c.mayOrder(g.ref, w, field, host, g.hasHost(host) || g.hasHost(oneLabelWildcard(host))) || !c.ownsHost(g.ref, w, field, host) {
			continue
		}
		if o := c.order(g.ref, w, field+".secretName", block, host, source); o != nil {
			o.confirm()
			out[host] = o.key
		}
	}
	return out
}

// mayOrder tells whether a certificate for a host can be ordered, and says why not to those who asked for one themselves.
func (c *compiler) mayOrder(on object.Ref, w wish, field, host string, served bool) bool {
	code, why := "", ""
	switch {
	case host == "":
		code, why = "NoHostname", "a certificate is for names, and none is given here"
	case !served:
		code, why = "NotServed", fmt.Sprintf("no certificate is ordered for %s, because this object does not serve it", host)
	case !strings.Contains(host, "."):
		code, why = "NotPublic", fmt.Sprintf("no certificate is ordered for %s, because no authority issues one for a name without a dot", host)
	case strings.HasPrefix(host, "*") && !slices.ContainsFunc(w.issuers, func(name string) bool { return c.opt.ACME.Issuers[name].DNS }):
		code, why = "WildcardNeedsDNS", fmt.Sprintf("a certificate for %s needs an issuer with DNS-01, which %s has not", host, list(w.issuers))
	default:
		return true
	}
	if w.asked {
		c.problems.add(Error, on, field, code, "%s", why)
	}
	return false
}

// hostOwner notes that objects of a namespace serve a host, and returns the namespace whose objects did so first.
func (c *compiler) hostOwner(host, namespace string) (first string) {
	if c.hostOwners[host] == "" {
		set(&c.hostOwners, host, namespace)
	}
	return c.hostOwners[host]
}

// ownsHost tells whether no other namespace serves a host since before the object does, and says so to those who asked for a certificate for it. Whoever gets the
// certificate of a host can pass for it, so that serving some path of it is not enough.
func (c *compiler) ownsHost(on object.Ref, w wish, field, host string) bool {
	first := c.hostOwner(host, on.Namespace)
	if first == on.Namespace {
		return true
	}
	if w.asked {
		c.problems.add(Error, on, field, "ForeignHost", "no certificate is ordered for %s, because objects of another namespace served it first", host)
	}
	return false
}

// order returns the order of a certificate for host that goes to a Secret, or to one beside it if that is for another name. It returns nil if the Secret is not
// Fairlead's: a user's own certificate wins.
func (c *compiler) order(on object.Ref, w wish, field string, secret object.Key, host string, source route.Source) *order {
	issuers, multi := c.issuersFor(w, host)
	if !c.isOurs(secret) {
		if w.asked {
			c.problems.add(Warning, on, field, "SecretNotOurs", "Secret %s is not one that Fairlead made, so it is used as it is, and no certificate is ordered", secret)
		}
		return nil
	}
	first := c.orders[secret]
	switch {
	case first == nil:
		return c.newOrder(order{key: secret, hosts: []string{host}, issuers: issuers, multi: multi, source: source})
	case slices.Contains(first.hosts, host):
		return first
	case multi && first.multi && slices.Equal(first.issuers, issuers) && len(first.hosts) < maxOrderHosts:
		first.hosts = append(first.hosts, host)
		return first
	}
	beside := object.Key{Namespace: secret.Namespace, Name: besideName(secret.Name, host)}
	if !c.isOurs(beside) {
		c.problems.add(Error, on, field, "SecretNotOurs", "the certificate for %s would go to Secret %s, which is not one that Fairlead made", host, beside)
		return nil
	}
	if o := c.orders[beside]; o != nil {
		return o
	}
	return c.newOrder(order{key: beside, hosts: []string{host}, issuers: issuers, source: source})
}

func (c *compiler) newOrder(o order) *order {
	set(&c.orders, o.key, &o)
	return &o
}

// issuersFor returns the issuers of a wish that can issue for host, and whether their certificates may have more names.
func (c *compiler) issuersFor(w wish, host string) (names []string, multi bool) {
	multi = true
	for _, name := range w.issuers {
		issuer := c.opt.ACME.Issuers[name]
		if strings.HasPrefix(host, "*") && !issuer.DNS {
			continue
		}
		names = append(names, name)
		multi = multi && issuer.MultiName
	}
	return names, multi
}

// isOurs tells whether Fairlead may write a Secret: there is none, or one that Fairlead made.
func (c *compiler) isOurs(key object.Key) bool {
	s := c.in.Secrets[key]
	return s == nil || s.Labels[object.IssuerLabel] != ""
}

// besideName is the name of the Secret for a further host of the Secret name.
func besideName(name, host string) string {
	const most = 253
	sum := sha256.Sum256([]byte(host))
	suffix := "-" + hex.EncodeToString(sum[:5])
	return strings.TrimRight(name[:min(len(name), most-len(suffix))], ".-") + suffix
}

// issuedPair is a certificate, and the Secret that it is in. leaf is nil if there is none.
type issuedPair struct {
	secret object.Key
	pair   route.KeyPair
	leaf   *x509.Certificate
}

// issuedPair returns the certificate of a Secret that is on order.
func (c *compiler) issuedPair(on object.Ref, field string, secret object.Key, host string) issuedPair {
	pair, leaf, err := c.readPair(secret)
	if err != nil {
		c.problems.add(Note, on, field, CodeOrdered, "the certificate for %s is on order, and will be in Secret %s; until then a self-signed one is presented", host, secret)
	}
	return issuedPair{secret: secret, pair: pair, leaf: leaf}
}

// orderForListener orders the certificate of a listener, which goes to the first Secret that it names.
func (c *compiler) orderForListener(l *listener, field string) {
	w := l.parent.wish
	if text, ok := l.spec.TLS.Options[issuerAnnotation]; ok {
		w = c.issuers(l.parent.ref, fmt.Sprintf("%s.tls.options[%s]", l.field, issuerAnnotation), string(text), true)
	}
	if len(w.issuers) == 0 {
		return
	}
	ref := &l.spec.TLS.CertificateRefs[0]
	own := l.parent.ref
	if !isLocalSecret(ref, own.Namespace) {
		if w.asked {
			c.problems.add(Error, own, indexed(field, 0), "SecretNotLocal", "a certificate is ordered for a Secret in the object's own namespace only")
		}
		return
	}
	if !c.mayOrder(own, w, l.field+".hostname", l.hostname, true) || !c.ownsHost(own, w, l.field+".hostname", l.hostname) {
		return
	}
	source := route.Source{Kind: own.Kind, Namespace: own.Namespace, Name: own.Name, Field: l.field}
	l.order = c.order(own, w, indexed(field, 0), object.Key{Namespace: own.Namespace, Name: string(ref.Name)}, l.hostname, source)
}

// isLocalSecret tells whether ref names a Secret in a namespace.
func isLocalSecret(ref *gatewayv1.SecretObjectReference, namespace string) bool {
	return orDefault(ref.Group, "") == "" && orDefault(ref.Kind, "Secret") == "Secret" && string(orDefault(ref.Namespace, gatewayv1.Namespace(namespace))) == namespace
}

// confirmedOrders returns the orders of those who are served, by Secret.
func (c *compiler) confirmedOrders() []route.CertificateOrder {
	var out []route.CertificateOrder
	for _, o := range object.Sorted(c.orders) {
		if !o.confirmed {
			continue
		}
		r := route.CertificateOrder{Namespace: o.key.Namespace, Name: o.key.Name, Hosts: o.hosts, Issuers: o.issuers, Source: o.source}
		if pair, _, err := c.readPair(o.key); err == nil {
			r.Chain, r.Issuer = pair.Chain, c.in.Secrets[o.key].Labels[object.IssuerLabel]
		}
		out = append(out, r)
	}
	return out
}
