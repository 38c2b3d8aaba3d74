package compile

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// newIngress makes an Ingress of the default class in the namespace shop. Each line is "HOST TYPE PATH SERVICE", with * for no host, or
// "HOST" for a rule without paths, "default SERVICE", "tls SECRET HOST...", "class NAME", "annotation NAME VALUE", or "age MINUTES" after the start of time.
func newIngress(name string, lines ...string) *networkingv1.Ingress {
	g := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Annotations: map[string]string{}}}
	for _, line := range lines {
		w := strings.Fields(line)
		switch w[0] {
		case "default":
			b := newBackend(w[1])
			g.Spec.DefaultBackend = &b
		case "tls":
			g.Spec.TLS = append(g.Spec.TLS, networkingv1.IngressTLS{SecretName: strings.Trim(w[1], "-"), Hosts: w[2:]})
		case "class":
			g.Spec.IngressClassName = &w[1]
		case "annotation":
			g.Annotations[w[1]] = strings.Join(w[2:], " ")
		case "age":
			minutes, err := time.ParseDuration(w[1] + "m")
			if err != nil {
				panic(err)
			}
			g.CreationTimestamp = metav1.NewTime(time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC).Add(minutes))
		default:
			g.Spec.Rules = append(g.Spec.Rules, newIngressRule(w))
		}
	}
	return g
}

func newIngressRule(w []string) networkingv1.IngressRule {
	r := networkingv1.IngressRule{Host: strings.TrimPrefix(w[0], "*")}
	if strings.HasPrefix(w[0], "*.") {
		r.Host = w[0]
	}
	if len(w) > 1 {
		typ := networkingv1.PathType(w[1])
		r.HTTP = &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{PathType: &typ, Path: w[2], Backend: newBackend(w[3])}}}
	}
	return r
}

func newBackend(service string) networkingv1.IngressBackend {
	return networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: service, Port: networkingv1.ServiceBackendPort{Number: 80}}}
}

// newShop is a cluster with our default class, the Ingresses, and a Service for each backend that they name, except for those called missing.
func newShop(all ...*networkingv1.Ingress) *object.Snapshot {
	in := &object.Snapshot{
		Taken:          taken,
		IngressClasses: map[string]*networkingv1.IngressClass{"fairlead": newClass("fairlead", IngressController, true)},
		Ingresses:      map[object.Key]*networkingv1.Ingress{},
		Services:       map[object.Key]*corev1.Service{},
		Secrets:        map[object.Key]*corev1.Secret{},
	}
	addService := func(ns string, b *networkingv1.IngressBackend) {
		if b != nil && b.Service != nil && b.Service.Name != "missing" {
			key := object.Key{Namespace: ns, Name: b.Service.Name}
			in.Services[key] = newService(key, corev1.ServicePort{Port: 80})
		}
	}
	for _, g := range all {
		in.Ingresses[object.KeyOf(g)] = g
		addService(g.Namespace, g.Spec.DefaultBackend)
		for _, r := range g.Spec.Rules {
			if r.HTTP == nil {
				continue
			}
			for _, p := range r.HTTP.Paths {
				addService(g.Namespace, &p.Backend)
			}
		}
	}
	return in
}

func newService(key object.Key, ports ...corev1.ServicePort) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}, Spec: corev1.ServiceSpec{Ports: ports}}
}

func newClass(name, controller string, byDefault bool) *networkingv1.IngressClass {
	k := &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: networkingv1.IngressClassSpec{Controller: controller}}
	if byDefault {
		k.Annotations = map[string]string{networkingv1.AnnotationIsDefaultIngressClass: "true"}
	}
	return k
}

// newSecret is a kubernetes.io/tls Secret in the namespace shop, with a certificate for the names that is valid until then.
func newSecret(tb testing.TB, name string, until time.Time, names ...string) *corev1.Secret {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: names, NotBefore: until.Add(-365 * 24 * time.Hour), NotAfter: until,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Type:       corev1.SecretTypeTLS,
		Data: map[string][]byte{
			"tls.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
			"tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
		},
	}
}

// ask says who answers a GET of an URL: the name of a Service, "404", "503", or "308" and where to.
func ask(tb testing.TB, r Result, rawURL string) string {
	tb.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		tb.Fatal(err)
	}
	bind := map[string]route.Bind{"http": {Port: 80}, "https": {Port: 443}}[u.Scheme]
	p := r.Table.Port(bind)
	if p == nil {
		return "closed"
	}
	req := &route.Request{Method: "GET"}
	if u.Host != "" {
		if req.Host, err = route.NormalizeHost(u.Host); err != nil {
			tb.Fatal(err)
		}
	}
	if req.Path, _, err = route.NormalizePath(cmp.Or(u.EscapedPath(), "/")); err != nil {
		tb.Fatal(err)
	}
	_, rule, _ := p.Lookup(req)
	switch {
	case rule == nil:
		return "404"
	case rule.Fault != nil:
		return fmt.Sprint(rule.Fault.Status)
	case len(rule.Filters) > 0:
		return rule.Filters[0].String()
	}
	return rule.Backends[0].Pool.Key.Service
}

// problemLines writes the problems with one object (or all), without what is only a note if notes is false.
func problemLines(r Result, name string, notes bool) []string {
	var out []string
	for _, p := range r.Problems {
		if (name == "" || p.Object.Name == name) && (notes || p.Severity != Note) {
			out = append(out, fmt.Sprintf("%s %s %s", p.Severity, p.Field, p.Code))
		}
	}
	return out
}

// The sentences are those of https://kubernetes.io/docs/concepts/services-networking/ingress/ and of the API's own documentation (networking/v1).
func TestIngressDocumentation(t *testing.T) {
	type want map[string]string
	tests := []struct {
		name string
		in   []*networkingv1.Ingress
		want want
	}{
		// An optional host. If no host is specified, the rule applies to all inbound HTTP traffic through the IP address specified.
		{"no host", []*networkingv1.Ingress{newIngress("a", "* Prefix /testpath test")}, want{
			"http://foo.bar.com/testpath": "test", "http://192.0.2.1/testpath": "test", "http://[2001:db8::1]/testpath": "test", "http:/testpath": "test",
		}},
		// If a host is provided (for example, foo.bar.com), the rules apply to that host.
		{"host", []*networkingv1.Ingress{newIngress("a", "foo.bar.com Prefix / test")}, want{
			"http://foo.bar.com/": "test", "http://FOO.Bar.com./": "test", "http://foo.bar.com:8080/": "test", "http://bar.com/": "404", "http://x.foo.bar.com/": "404",
		}},
		// Both the host and path must match the content of an incoming request before the load balancer directs traffic to the referenced Service.
		{"host and path", []*networkingv1.Ingress{newIngress("a", "foo.bar.com Prefix /a test")}, want{
			"http://foo.bar.com/a": "test", "http://foo.bar.com/b": "404", "http://bar.foo.com/a": "404",
		}},
		// A backend is a combination of Service and port names as described in the Service doc. HTTP (and HTTPS) requests to the Ingress that match the host and path
		// of the rule are sent to the listed backend.
		{"http and https", []*networkingv1.Ingress{newIngress("a", "foo.bar.com Prefix / test", "tls - foo.bar.com")}, want{
			"http://foo.bar.com/": "test", "https://foo.bar.com/": "test",
		}},
		// A defaultBackend is often configured in an Ingress controller to service any requests that do not match a path in the spec.
		{"default for other paths", []*networkingv1.Ingress{newIngress("a", "foo.bar.com Prefix /a test", "default rest")}, want{
			"http://foo.bar.com/a": "test", "http://foo.bar.com/b": "rest",
		}},
		// An Ingress with no rules sends all traffic to a single default backend and .spec.defaultBackend is the backend that should handle requests in that case.
		{"no rules", []*networkingv1.Ingress{newIngress("a", "default all")}, want{"http://foo.bar.com/": "all", "http://192.0.2.1/x": "all"}},
		// If defaultBackend is not set, the handling of requests that do not match any of the rules will be up to the ingress controller.
		{"no default", []*networkingv1.Ingress{newIngress("a", "foo.bar.com Prefix /a test")}, want{"http://foo.bar.com/": "404"}},
		// If none of the hosts or paths match the HTTP request in the Ingress objects, the traffic is routed to your default backend.
		{"default for other hosts", []*networkingv1.Ingress{newIngress("a", "foo.bar.com Prefix /a test", "default rest"), newIngress("b", "bar.com Exact /x b")}, want{
			"http://other.com/": "rest", "http://bar.com/x": "b", "http://bar.com/y": "rest",
		}},
		// The rule defaults to a http catch-all. Whether that sends just traffic matching the host to the default backend or all traffic to the default backend, is
		// left to the controller fulfilling the Ingress.
		{"no paths", []*networkingv1.Ingress{newIngress("a", "foo.bar.com", "default rest"), newIngress("b", "foo.bar.com Prefix /b b", "* Prefix / any")}, want{
			"http://foo.bar.com/": "rest", "http://foo.bar.com/b": "b", "http://other.com/": "any",
		}},
		// ImplementationSpecific: With this path type, matching is up to the IngressClass. Implementations can treat this as a separate pathType or treat it
		// identically to Prefix or Exact path types.
		{"ImplementationSpecific", []*networkingv1.Ingress{newIngress("a", "* ImplementationSpecific /foo test")}, want{
			"http://a/foo": "test", "http://a/foo/": "test", "http://a/foo/bar": "test", "http://a/foobar": "404", "http://a/": "404",
		}},
		// Exact: Matches the URL path exactly and with case sensitivity.
		{"Exact", []*networkingv1.Ingress{newIngress("a", "* Exact /foo test")}, want{"http://a/foo": "test", "http://a/Foo": "404", "http://a/foo?x=1": "test"}},
		// Prefix: Matches based on a URL path prefix split by /. Matching is case sensitive and done on a path element by element basis.
		{"Prefix", []*networkingv1.Ingress{newIngress("a", "* Prefix /foo test")}, want{"http://a/foo/x": "test", "http://a/Foo/x": "404"}},
		// If the last element of the path is a substring of the last element in request path, it is not a match (for example: /foo/bar matches /foo/bar/baz, but
		// does not match /foo/barbaz).
		{"substring", []*networkingv1.Ingress{newIngress("a", "* Prefix /foo/bar test")}, want{"http://a/foo/bar/baz": "test", "http://a/foo/barbaz": "404"}},
		// /foo and /foo/ both match requests to /foo and /foo/. If both paths are present in an Ingress spec, the longest matching path (/foo/) is given priority.
		{"trailing slash has priority", []*networkingv1.Ingress{newIngress("a", "* Prefix /foo short", "* Prefix /foo/ long")}, want{
			"http://a/foo": "long", "http://a/foo/": "long",
		}},

		// Kind | Path(s) | Request path(s) | Matches?
		// Prefix | / | (all paths) | Yes
		{"table 1", []*networkingv1.Ingress{newIngress("a", "* Prefix / test")}, want{"http://a/": "test", "http://a/x/y": "test", "http://a": "test"}},
		// Exact | /foo | /foo | Yes
		// Exact | /foo | /bar | No
		// Exact | /foo | /foo/ | No
		{"table 2-4", []*networkingv1.Ingress{newIngress("a", "* Exact /foo test")}, want{"http://a/foo": "test", "http://a/bar": "404", "http://a/foo/": "404"}},
		// Exact | /foo/ | /foo | No
		{"table 5", []*networkingv1.Ingress{newIngress("a", "* Exact /foo/ test")}, want{"http://a/foo": "404", "http://a/foo/": "test"}},
		// Prefix | /foo | /foo, /foo/ | Yes
		{"table 6", []*networkingv1.Ingress{newIngress("a", "* Prefix /foo test")}, want{"http://a/foo": "test", "http://a/foo/": "test"}},
		// Prefix | /foo/ | /foo, /foo/ | Yes
		{"table 7", []*networkingv1.Ingress{newIngress("a", "* Prefix /foo/ test")}, want{"http://a/foo": "test", "http://a/foo/": "test"}},
		// Prefix | /aaa/bb | /aaa/bbb | No
		{"table 8", []*networkingv1.Ingress{newIngress("a", "* Prefix /aaa/bb test")}, want{"http://a/aaa/bbb": "404"}},
		// Prefix | /aaa/bbb | /aaa/bbb | Yes
		// Prefix | /aaa/bbb/ | /aaa/bbb | Yes, ignores trailing slash
		{"table 9-10", []*networkingv1.Ingress{newIngress("a", "a Prefix /aaa/bbb test", "b Prefix /aaa/bbb/ test")}, want{
			"http://a/aaa/bbb": "test", "http://b/aaa/bbb": "test",
		}},
		// Prefix | /aaa/bbb | /aaa/bbb/ | Yes, matches trailing slash
		// Prefix | /aaa/bbb | /aaa/bbb/ccc | Yes, matches subpath
		// Prefix | /aaa/bbb | /aaa/bbbxyz | No, does not match string prefix
		{"table 11-13", []*networkingv1.Ingress{newIngress("a", "* Prefix /aaa/bbb test")}, want{
			"http://a/aaa/bbb/": "test", "http://a/aaa/bbb/ccc": "test", "http://a/aaa/bbbxyz": "404",
		}},
		// Prefix | /, /aaa | /aaa/ccc | Yes, matches /aaa prefix
		{"table 14", []*networkingv1.Ingress{newIngress("a", "* Prefix / root", "* Prefix /aaa aaa")}, want{"http://a/aaa/ccc": "aaa"}},
		// Prefix | /, /aaa, /aaa/bbb | /aaa/bbb | Yes, matches /aaa/bbb prefix
		// Prefix | /, /aaa, /aaa/bbb | /ccc | Yes, matches / prefix
		{"table 15-16", []*networkingv1.Ingress{newIngress("a", "* Prefix / root", "* Prefix /aaa aaa", "* Prefix /aaa/bbb bbb")}, want{
			"http://a/aaa/bbb": "bbb", "http://a/ccc": "root",
		}},
		// Prefix | /aaa | /ccc | No, uses default backend
		{"table 17", []*networkingv1.Ingress{newIngress("a", "* Prefix /aaa aaa", "default rest")}, want{"http://a/ccc": "rest"}},
		// Mixed | /foo (Prefix), /foo (Exact) | /foo | Yes, prefers Exact
		{"table 18", []*networkingv1.Ingress{newIngress("a", "* Prefix /foo prefix", "* Exact /foo exact")}, want{"http://a/foo": "exact", "http://a/foo/": "prefix"}},

		// Precedence will be given first to the longest matching path.
		{"longest", []*networkingv1.Ingress{newIngress("a", "* Prefix /a a", "* Prefix /a/b/c abc", "* Prefix /a/b ab")}, want{
			"http://a/a/b/c/d": "abc", "http://a/a/b/d": "ab", "http://a/a/d": "a",
		}},
		// If two paths are still equally matched, precedence will be given to paths with an exact path type over prefix path type.
		{"exact over prefix, of any age", []*networkingv1.Ingress{newIngress("old", "age 1", "a Prefix /foo old"), newIngress("new", "age 2", "a Exact /foo new")}, want{
			"http://a/foo": "new",
		}},

		// Hosts can be precise matches (for example "foo.bar.com") or a wildcard (for example "*.foo.com"). Precise matches require that the HTTP host header
		// matches the host field. Wildcard matches require the HTTP host header is equal to the suffix of the wildcard rule.
		// Host | Host header | Match?
		// *.foo.com | bar.foo.com | Matches based on shared suffix
		// *.foo.com | baz.bar.foo.com | No match, wildcard only covers a single DNS label
		// *.foo.com | foo.com | No match, wildcard only covers a single DNS label
		{"wildcard hosts", []*networkingv1.Ingress{newIngress("a", "*.foo.com Prefix / test")}, want{
			"http://bar.foo.com/": "test", "http://baz.bar.foo.com/": "404", "http://foo.com/": "404", "http://barfoo.com/": "404",
		}},
		// The wildcard character '*' must appear by itself as the first DNS label and matches only a single label.
		{"wildcard label", []*networkingv1.Ingress{newIngress("a", "*.foo.com Prefix / one", "*.bar.foo.com Prefix / two")}, want{
			"http://x.bar.foo.com/": "two", "http://bar.foo.com/": "one",
		}},
		// The host with the most specific rule is asked first: precise before wildcard before none.
		{"specific hosts", []*networkingv1.Ingress{newIngress("a", "* Exact / any", "*.foo.com Exact / wild", "bar.foo.com Prefix / precise")}, want{
			"http://bar.foo.com/": "precise", "http://x.foo.com/": "wild", "http://foo.com/": "any", "http://x.foo.com/y": "404",
		}},

		// Name based virtual hosting: first.bar.com to service1, second.bar.com to service2, and any traffic whose request host header doesn't match
		// first.bar.com and second.bar.com to service3.
		{"name-based hosts", []*networkingv1.Ingress{newIngress("a", "first.bar.com Prefix / service1", "second.bar.com Prefix / service2", "* Prefix / service3")}, want{
			"http://first.bar.com/": "service1", "http://second.bar.com/": "service2", "http://third.bar.com/": "service3", "http://192.0.2.1/": "service3",
		}},
		// A fanout configuration routes traffic from a single IP address to more than one Service, based on the HTTP URI being requested.
		{"fanout", []*networkingv1.Ingress{newIngress("a", "foo.bar.com Prefix /foo service1", "foo.bar.com Prefix /bar service2")}, want{
			"http://foo.bar.com/foo": "service1", "http://foo.bar.com/bar": "service2", "http://foo.bar.com/": "404",
		}},

		// If the SNI host in a listener conflicts with the "Host" header field used by an IngressRule, the SNI host is used for termination and value of the "Host"
		// header is used for routing: all hosts are served on the TLS port.
		{"all hosts on the TLS port", []*networkingv1.Ingress{newIngress("a", "a.com Prefix / a", "tls - a.com"), newIngress("b", "b.com Prefix / b")}, want{
			"https://a.com/": "a", "https://b.com/": "b",
		}},
		// The Service must exist in the same namespace as the Ingress object. One that does not exist answers 503, and its rule keeps its requests.
		{"missing Service", []*networkingv1.Ingress{newIngress("a", "* Prefix /a missing", "* Prefix / root"), newIngress("z", "* Prefix /a/b b")}, want{
			"http://a/a": "503", "http://a/a/x": "503", "http://a/b": "root", "http://a/a/b": "b",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := Compile(newShop(tt.in...), Options{})
			got := want{}
			for u := range tt.want {
				got[u] = ask(t, r, u)
			}
			if diff := gocmp.Diff(tt.want, got); diff != "" {
				t.Errorf("answers (-want +got):\n%s\n%s%v", diff, r.Table, r.Problems)
			}
		})
	}
}

func TestIngressClass(t *testing.T) {
	other := "example.com/other"
	newer := func(k *networkingv1.IngressClass) *networkingv1.IngressClass {
		k.CreationTimestamp = metav1.NewTime(taken)
		return k
	}
	withParameters := newClass("fairlead", IngressController, true)
	withParameters.Spec.Parameters = &networkingv1.IngressClassParametersReference{Kind: "Knobs"}
	tests := []struct {
		name    string
		classes []*networkingv1.IngressClass
		lines   []string
		served  bool
		want    []string
	}{
		// Implementations use ingressClassName to know whether they should be serving this Ingress, by a transitive connection (controller -> IngressClass -> Ingress).
		{"named", []*networkingv1.IngressClass{newClass("x", IngressController, false)}, []string{"class x"}, true, nil},
		{"another controller's", []*networkingv1.IngressClass{newClass("x", other, false)}, []string{"class x"}, false, nil},
		{"name alone is not enough", []*networkingv1.IngressClass{newClass("fairlead", other, true)}, []string{"class fairlead"}, false, nil},
		{"missing", nil, []string{"class fairlead"}, false, []string{"note spec.ingressClassName ClassNotFound"}},
		// Even though the annotation is officially deprecated, for backwards compatibility reasons, ingress controllers should still honor that annotation.
		{"annotation names class", []*networkingv1.IngressClass{newClass("x", IngressController, false)}, []string{"annotation kubernetes.io/ingress.class x"}, true, nil},
		{"annotation without class object", nil, []string{"annotation kubernetes.io/ingress.class fairlead"}, true, nil},
		{"annotation of another's class", []*networkingv1.IngressClass{newClass("nginx", other, false)}, []string{"annotation kubernetes.io/ingress.class nginx"}, false, nil},
		{
			"annotation beside default class",
			[]*networkingv1.IngressClass{newClass("fairlead", IngressController, true)},
			[]string{"annotation kubernetes.io/ingress.class nginx"},
			false,
			[]string{"note metadata.annotations[kubernetes.io/ingress.class] ClassNotFound"},
		},
		{
			"annotation against field",
			[]*networkingv1.IngressClass{newClass("x", IngressController, false), newClass("nginx", other, false)},
			[]string{"class x", "annotation kubernetes.io/ingress.class nginx"},
			true,
			[]string{"warning metadata.annotations[kubernetes.io/ingress.class] ClassConflict"},
		},
		{
			"field of another against annotation",
			[]*networkingv1.IngressClass{newClass("x", IngressController, false), newClass("nginx", other, false)},
			[]string{"class nginx", "annotation kubernetes.io/ingress.class x"},
			false,
			[]string{"warning metadata.annotations[kubernetes.io/ingress.class] ClassConflict"},
		},
		{"annotation like field", []*networkingv1.IngressClass{newClass("x", IngressController, false)}, []string{"class x", "annotation kubernetes.io/ingress.class x"}, true, nil},
		// When a single IngressClass resource has this annotation set to true, new Ingress resources without a class specified will be assigned this default class.
		{"default", []*networkingv1.IngressClass{newClass("x", IngressController, true)}, nil, true, nil},
		{"another's default", []*networkingv1.IngressClass{newClass("x", IngressController, false), newClass("nginx", other, true)}, nil, false, nil},
		{"no default", []*networkingv1.IngressClass{newClass("x", IngressController, false)}, nil, false, []string{"note spec.ingressClassName NoClass"}},
		{
			"newest default is ours",
			[]*networkingv1.IngressClass{newer(newClass("x", IngressController, true)), newClass("nginx", other, true)},
			nil,
			true,
			[]string{"warning metadata.annotations[ingressclass.kubernetes.io/is-default-class] SeveralDefaults"},
		},
		{
			"newest default is another's",
			[]*networkingv1.IngressClass{newClass("x", IngressController, true), newer(newClass("nginx", other, true))},
			nil,
			false,
			[]string{"warning metadata.annotations[ingressclass.kubernetes.io/is-default-class] SeveralDefaults"},
		},
		{"two foreign defaults", []*networkingv1.IngressClass{newClass("y", other, true), newClass("nginx", other, true)}, nil, false, nil},
		// IngressClass resources contain an optional parameters field.
		{"parameters", []*networkingv1.IngressClass{withParameters}, nil, true, []string{"warning spec.parameters InvalidParameters"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := newShop(newIngress("a", append(tt.lines, "a.com Prefix / test")...))
			in.IngressClasses = map[string]*networkingv1.IngressClass{}
			for _, k := range tt.classes {
				in.IngressClasses[k.Name] = k
			}
			r := Compile(in, Options{PublishAddresses: []string{"192.0.2.1"}})
			if got := ask(t, r, "http://a.com/") == "test"; got != tt.served {
				t.Errorf("served = %v, want %v", got, tt.served)
			}
			if diff := gocmp.Diff(tt.want, problemLines(r, "", true)); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			if _, ok := r.Status.Ingresses[object.Key{Namespace: "shop", Name: "a"}]; ok != tt.served {
				t.Errorf("has a status: %v, want %v", ok, tt.served)
			}
			if !tt.served && (len(r.Table.Rejected) != 1 || r.Table.Rejected[0].Hostnames[0] != "a.com") {
				t.Errorf("rejected = %+v, want the Ingress", r.Table.Rejected)
			}
		})
	}
}

func TestIngressProblems(t *testing.T) {
	edit := func(f func(*networkingv1.Ingress), lines ...string) *networkingv1.Ingress {
		g := newIngress("a", lines...)
		f(g)
		return g
	}
	backend := func(f func(*networkingv1.IngressBackend)) *networkingv1.Ingress {
		return edit(func(g *networkingv1.Ingress) { f(&g.Spec.Rules[0].HTTP.Paths[0].Backend) }, "a.com Prefix / test")
	}
	long := strings.Repeat("a", 64)
	tests := []struct {
		name string
		in   *networkingv1.Ingress
		want []string
		asks map[string]string
	}{
		{"nothing wrong", newIngress("a", "a.com Prefix / test"), nil, map[string]string{"http://a.com/": "test"}},
		{"empty", newIngress("a"), []string{"error spec NoRules"}, map[string]string{"http://a.com/": "404"}},
		{"host is an address", newIngress("a", "192.0.2.1 Prefix / test"), []string{"error spec.rules[0].host InvalidHost"}, map[string]string{"http://192.0.2.1/": "404"}},
		{"host has a port", newIngress("a", "a.com:80 Prefix / test"), []string{"error spec.rules[0].host InvalidHost"}, map[string]string{"http://a.com/": "404"}},
		{"host ends in a dot", newIngress("a", "a.com. Prefix / test"), []string{"error spec.rules[0].host InvalidHost"}, nil},
		{"host has an underscore", newIngress("a", "a_b.com Prefix / test"), []string{"error spec.rules[0].host InvalidHost"}, nil},
		{"label too long", newIngress("a", long+".com Prefix / test"), []string{"error spec.rules[0].host InvalidHost"}, nil},
		{"name too long", newIngress("a", strings.Repeat("a.", 130)+"com Prefix / test"), []string{"error spec.rules[0].host InvalidHost"}, nil},
		{"star inside", newIngress("a", "a.*.com Prefix / test"), []string{"error spec.rules[0].host InvalidHost"}, nil},
		{"star in a label", newIngress("a", "a*.com Prefix / test"), []string{"error spec.rules[0].host InvalidHost"}, nil},
		{"wildcard of an address", newIngress("a", "*.192.0.2.1 Prefix / test"), []string{"error spec.rules[0].host InvalidHost"}, nil},
		{
			"star alone", edit(func(g *networkingv1.Ingress) { g.Spec.Rules[0].Host = "*" }, "* Prefix / test"),
			[]string{"error spec.rules[0].host InvalidHost"},
			map[string]string{"http://a.com/": "404"},
		},
		{"upper case is as good", newIngress("a", "A.Com Prefix / test"), nil, map[string]string{"http://a.com/": "test"}},
		{
			"one bad host of two", newIngress("a", "a_b.com Prefix / test", "b.com Prefix / test"),
			[]string{"error spec.rules[0].host InvalidHost"},
			map[string]string{"http://b.com/": "test"},
		},
		{"relative path", newIngress("a", "a.com Prefix foo test", "a.com Exact bar test"), []string{
			"error spec.rules[0].http.paths[0].path InvalidPath", "error spec.rules[1].http.paths[0].path InvalidPath",
		}, map[string]string{"http://a.com/foo": "404"}},
		{"relative ImplementationSpecific path", newIngress("a", "a.com ImplementationSpecific *.jsp test"), []string{"error spec.rules[0].http.paths[0].path InvalidPath"}, nil},
		{"path with a query", newIngress("a", "a.com Prefix /a?b test"), []string{"error spec.rules[0].http.paths[0].path InvalidPath"}, nil},
		{"path with a bad escape", newIngress("a", "a.com Exact /%zz test"), []string{"error spec.rules[0].http.paths[0].path InvalidPath"}, nil},
		{
			"path with dots", newIngress("a", "a.com Prefix /a/../b test"),
			[]string{"warning spec.rules[0].http.paths[0].path InvalidPath"},
			map[string]string{"http://a.com/b": "test", "http://a.com/a": "404"},
		},
		{
			"escapes are normalised", newIngress("a", "a.com Exact /%7euser/%C3%A4%2fb test"), nil,
			map[string]string{"http://a.com/~user/%c3%a4%2Fb": "test", "http://a.com/~user/%c3%a4/b": "404"},
		},
		{
			"path like a regular expression", newIngress("a", "a.com ImplementationSpecific /api(/|$)(.*) test"),
			[]string{"warning spec.rules[0].http.paths[0].path PathTakenLiterally"},
			map[string]string{"http://a.com/api/x": "404"},
		},
		{
			"path like a glob", newIngress("a", "a.com ImplementationSpecific /api/* test"),
			[]string{"warning spec.rules[0].http.paths[0].path PathTakenLiterally"},
			map[string]string{"http://a.com/api/x": "404", "http://a.com/api/*/x": "test"},
		},
		{"parentheses in a prefix", newIngress("a", "a.com Prefix /Users(1) test"), nil, map[string]string{"http://a.com/Users(1)/x": "test"}},
		{"star in an exact path", newIngress("a", "a.com Exact /api/* test"), nil, map[string]string{"http://a.com/api/*": "test"}},
		{
			"no path", edit(func(g *networkingv1.Ingress) { g.Spec.Rules[0].HTTP.Paths[0].Path = "" }, "a.com Exact / test"),
			[]string{"error spec.rules[0].http.paths[0].path InvalidPath"},
			map[string]string{"http://a.com/": "404"},
		},
		{
			"no path, ImplementationSpecific",
			edit(func(g *networkingv1.Ingress) { g.Spec.Rules[0].HTTP.Paths[0].Path = "" }, "a.com ImplementationSpecific / test"),
			nil,
			map[string]string{"http://a.com/x": "test"},
		},
		{
			"no pathType", edit(func(g *networkingv1.Ingress) { g.Spec.Rules[0].HTTP.Paths[0].PathType = nil }, "a.com Exact /a test"),
			[]string{"warning spec.rules[0].http.paths[0].pathType NoPathType"},
			map[string]string{"http://a.com/a/b": "test"},
		},
		{"unknown pathType", newIngress("a", "a.com Regex / test"), []string{"error spec.rules[0].http.paths[0].pathType InvalidPathType"}, map[string]string{"http://a.com/": "404"}},
		{"rule without paths and default", newIngress("a", "a.com"), []string{"error spec.rules[0].http NoPaths"}, map[string]string{"http://a.com/": "404"}},
		{
			"empty list of paths", edit(func(g *networkingv1.Ingress) { g.Spec.Rules[0].HTTP.Paths = nil }, "a.com Prefix / x", "default test"), nil,
			map[string]string{"http://a.com/": "test"},
		},
		{
			"no backend", backend(func(b *networkingv1.IngressBackend) { *b = networkingv1.IngressBackend{} }),
			[]string{"error spec.rules[0].http.paths[0].backend NoBackend"},
			map[string]string{"http://a.com/": "503"},
		},
		{
			"no service name", backend(func(b *networkingv1.IngressBackend) { b.Service.Name = "" }),
			[]string{"error spec.rules[0].http.paths[0].backend NoBackend"},
			map[string]string{"http://a.com/": "503"},
		},
		{
			"resource backend", backend(func(b *networkingv1.IngressBackend) {
				*b = networkingv1.IngressBackend{Resource: &corev1.TypedLocalObjectReference{Kind: "Bucket", Name: "icons"}}
			}),
			[]string{"error spec.rules[0].http.paths[0].backend.resource ResourceBackend"},
			map[string]string{"http://a.com/": "503"},
		},
		{
			"resource and service", backend(func(b *networkingv1.IngressBackend) {
				b.Resource = &corev1.TypedLocalObjectReference{Kind: "Bucket", Name: "icons"}
			}),
			[]string{"error spec.rules[0].http.paths[0].backend.resource ResourceBackend"},
			map[string]string{"http://a.com/": "503"},
		},
		{"missing service", newIngress("a", "a.com Prefix / missing"), []string{"error spec.rules[0].http.paths[0].backend.service ServiceNotFound"}, map[string]string{"http://a.com/": "503"}},
		{"missing default", newIngress("a", "a.com Prefix /a test", "default missing"), []string{"error spec.defaultBackend.service ServiceNotFound"}, map[string]string{
			"http://a.com/": "503", "http://b.com/": "503", "http://a.com/a": "test",
		}},
		{
			"missing port", backend(func(b *networkingv1.IngressBackend) { b.Service.Port.Number = 81 }),
			[]string{"error spec.rules[0].http.paths[0].backend.service.port PortNotFound"},
			map[string]string{"http://a.com/": "503"},
		},
		{
			"missing port name", backend(func(b *networkingv1.IngressBackend) { b.Service.Port = networkingv1.ServiceBackendPort{Name: "web"} }),
			[]string{"error spec.rules[0].http.paths[0].backend.service.port PortNotFound"},
			map[string]string{"http://a.com/": "503"},
		},
		{
			"port by name and number", backend(func(b *networkingv1.IngressBackend) { b.Service.Port.Name = "web" }),
			[]string{"error spec.rules[0].http.paths[0].backend.service.port PortNotFound"},
			map[string]string{"http://a.com/": "503"},
		},
		{
			"no port", backend(func(b *networkingv1.IngressBackend) { b.Service.Port.Number = 0 }),
			[]string{"error spec.rules[0].http.paths[0].backend.service.port PortNotFound"},
			map[string]string{"http://a.com/": "503"},
		},
		{"unknown annotation", newIngress("a", "a.com Prefix / test", "annotation fairlead.io/ssl-redirct true"), []string{
			"warning metadata.annotations[fairlead.io/ssl-redirct] UnknownAnnotation",
		}, map[string]string{"http://a.com/": "test"}},
		{"somebody else's annotation", newIngress("a", "a.com Prefix / test", "annotation nginx.org/fairlead.io/x true"), nil, nil},
		{"bad annotation", newIngress("a", "a.com Prefix / test", "annotation fairlead.io/ssl-redirect yes", "tls - a.com"), []string{
			"warning metadata.annotations[fairlead.io/ssl-redirect] InvalidAnnotation", "warning spec.tls[0].secretName NoSecret",
		}, map[string]string{"http://a.com/": "test"}},
		{"redirect without TLS", newIngress("a", "a.com Prefix / test", "annotation fairlead.io/ssl-redirect true"), []string{
			"warning metadata.annotations[fairlead.io/ssl-redirect] NothingRedirected",
		}, map[string]string{"http://a.com/": "test"}},
		{"same path twice", newIngress("a", "a.com Prefix /a first", "a.com Prefix /a second"), []string{
			"warning spec.rules[1].http.paths[0] RuleConflict",
		}, map[string]string{"http://a.com/a": "first"}},
		{"same path with a slash", newIngress("a", "a.com Prefix /a first", "a.com Prefix /a/ second"), []string{
			"warning spec.rules[0].http.paths[0] RuleConflict",
		}, map[string]string{"http://a.com/a": "second"}},
		{"exact paths differ by a slash", newIngress("a", "a.com Exact /a first", "a.com Exact /a/ second"), nil, map[string]string{
			"http://a.com/a": "first", "http://a.com/a/": "second",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := newShop(tt.in)
			in.Services[object.Key{Namespace: "shop", Name: "test"}] = newService(object.Key{Namespace: "shop", Name: "test"}, corev1.ServicePort{Port: 80})
			r := Compile(in, Options{})
			if diff := gocmp.Diff(tt.want, problemLines(r, "a", false)); diff != "" {
				t.Errorf("problems (-want +got):\n%s%v", diff, r.Problems)
			}
			for u, want := range tt.asks {
				if got := ask(t, r, u); got != want {
					t.Errorf("%s: %s, want %s", u, got, want)
				}
			}
		})
	}
}

func TestIngressesShareAHost(t *testing.T) {
	old := newIngress("old", "age 1", "a.com Prefix /x old", "a.com Prefix /y y", "default rest")
	young := newIngress("a-young", "age 2", "a.com Prefix /x young", "a.com Exact /x exact", "a.com Prefix /z z", "default other")
	r := Compile(newShop(young, old), Options{})
	for u, want := range map[string]string{
		"http://a.com/x": "exact", "http://a.com/x/1": "old", "http://a.com/y": "y", "http://a.com/z": "z", "http://a.com/": "rest", "http://b.com/": "rest",
	} {
		if got := ask(t, r, u); got != want {
			t.Errorf("%s: %s, want %s", u, got, want)
		}
	}
	var got []string
	for _, p := range r.Problems {
		got = append(got, p.String())
	}
	want := []string{
		"note: Ingress shop/a-young spec.defaultBackend: what no rule for any host matches goes to Ingress shop/old spec.defaultBackend, which comes first;" +
			" nothing is left for this backend (RuleConflict)",
		"warning: Ingress shop/a-young spec.defaultBackend: what no rule for a.com matches goes to Ingress shop/old spec.defaultBackend, which comes first;" +
			" nothing is left for this backend (RuleConflict)",
		"warning: Ingress shop/a-young spec.rules[0].http.paths[0]: prefix /x of a.com goes to Ingress shop/old spec.rules[0].http.paths[0], which comes first;" +
			" nothing is left for this backend (RuleConflict)",
	}
	slices.Sort(got)
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

func TestIngressRedirect(t *testing.T) {
	const to = "redirect 308 scheme=https"
	tests := []struct {
		name string
		opt  Options
		in   []*networkingv1.Ingress
		want map[string]string
	}{
		{"off", Options{}, []*networkingv1.Ingress{newIngress("a", "a.com Prefix / test", "tls - a.com")}, map[string]string{
			"http://a.com/": "test", "https://a.com/": "test",
		}},
		{"annotation", Options{}, []*networkingv1.Ingress{newIngress("a", "a.com Prefix / test", "b.com Prefix / b", "tls - a.com", "annotation fairlead.io/ssl-redirect true")}, map[string]string{
			"http://a.com/": to, "http://a.com/x": to, "https://a.com/": "test", "http://b.com/": "b",
			"http://a.com/.well-known/acme-challenge/token": "test", "http://a.com/.well-known/acme-challenger": to, "http://a.com/.well-known": to,
		}},
		{"configuration", Options{RedirectHTTPS: true}, []*networkingv1.Ingress{newIngress("a", "a.com Prefix / test", "b.com Prefix / b", "tls - a.com")}, map[string]string{
			"http://a.com/": to, "http://b.com/": "b",
		}},
		{"configuration against annotation", Options{RedirectHTTPS: true}, []*networkingv1.Ingress{
			newIngress("a", "a.com Prefix / test", "tls - a.com", "annotation fairlead.io/ssl-redirect false"),
		}, map[string]string{"http://a.com/": "test"}},
		{"several Ingresses of a host", Options{RedirectHTTPS: true}, []*networkingv1.Ingress{
			newIngress("a", "a.com Prefix / test", "tls - a.com"),
			newIngress("b", "a.com Prefix /b b"),
			newIngress("c", "a.com Prefix /c c", "annotation fairlead.io/ssl-redirect false"),
		}, map[string]string{"http://a.com/b": to, "http://a.com/c": "c", "http://a.com/d": to}},
		// What cert-manager does: an Ingress of its own for the challenge of a host that another Ingress serves.
		{"solver of cert-manager", Options{RedirectHTTPS: true}, []*networkingv1.Ingress{
			newIngress("a", "age 1", "a.com Prefix / test", "tls - a.com"),
			newIngress("cm-acme-http-solver-x", "age 2", "a.com Exact /.well-known/acme-challenge/token solver"),
		}, map[string]string{
			"http://a.com/.well-known/acme-challenge/token": "solver", "http://a.com/.well-known/acme-challenge/other": "test", "https://a.com/.well-known/acme-challenge/token": "solver",
		}},
		{"challenges go to the most specific rule", Options{RedirectHTTPS: true}, []*networkingv1.Ingress{
			newIngress("a", "a.com Prefix / test", "a.com Prefix /.well-known wk", "default rest", "tls - a.com"),
		}, map[string]string{"http://a.com/.well-known/acme-challenge/token": "wk", "http://a.com/.well-known/other": to}},
		{"challenges go to the oldest", Options{RedirectHTTPS: true}, []*networkingv1.Ingress{
			newIngress("z", "age 1", "a.com Prefix / old", "tls - a.com"), newIngress("a", "age 2", "a.com Prefix / young"),
		}, map[string]string{"http://a.com/.well-known/acme-challenge/token": "old"}},
		{"challenges go to the default backend", Options{RedirectHTTPS: true}, []*networkingv1.Ingress{
			newIngress("a", "a.com Prefix /app test", "default rest", "tls - a.com"),
		}, map[string]string{"http://a.com/.well-known/acme-challenge/token": "rest", "http://a.com/x": to, "http://other.com/x": "rest"}},
		{"challenges of a rule of their own", Options{RedirectHTTPS: true}, []*networkingv1.Ingress{
			newIngress("a", "a.com Prefix / test", "a.com Prefix /.well-known/acme-challenge own", "a.com Prefix /.well-known/acme-challenge/deep deep", "tls - a.com"),
		}, map[string]string{"http://a.com/.well-known/acme-challenge/token": "own", "http://a.com/.well-known/acme-challenge/deep/x": "deep"}},
		{"wildcard TLS covers one label", Options{RedirectHTTPS: true}, []*networkingv1.Ingress{
			newIngress("a", "x.a.com Prefix / x", "x.y.a.com Prefix / xy", "*.a.com Prefix / wild", "a.com Prefix / a", "tls - *.a.com"),
		}, map[string]string{"http://x.a.com/": to, "http://z.a.com/": to, "http://x.y.a.com/": "xy", "http://a.com/": "a"}},
		{"TLS without hosts is about its own Ingress", Options{RedirectHTTPS: true}, []*networkingv1.Ingress{
			newIngress("a", "a.com Prefix / a", "* Prefix /any any", "tls -"), newIngress("b", "b.com Prefix / b", "localhost Prefix / l", "*.b.com Prefix / w"),
		}, map[string]string{"http://a.com/": to, "http://x.com/any": to, "http://b.com/": "b", "http://localhost/": "l", "http://x.b.com/": "w"}},
		{"missing Service", Options{RedirectHTTPS: true}, []*networkingv1.Ingress{newIngress("a", "a.com Prefix / missing", "tls - a.com")}, map[string]string{
			"http://a.com/": to, "https://a.com/": "503", "http://a.com/.well-known/acme-challenge/x": "503",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := Compile(newShop(tt.in...), tt.opt)
			for u, want := range tt.want {
				if got := ask(t, r, u); got != want {
					t.Errorf("%s: %s, want %s\n%s", u, got, want, r.Table)
				}
			}
		})
	}
}

func TestIngressPorts(t *testing.T) {
	in := newShop(newIngress("a", "a.com Prefix / a", "tls - a.com"), newIngress("b", "b.com Prefix / b"))
	opt := Options{RedirectHTTPS: true, PortMap: map[uint16]uint16{80: 8080, 443: 8443}}
	r := Compile(in, opt)
	for port, protocol := range map[uint16]route.Protocol{8080: route.HTTP, 8443: route.HTTPS} {
		p := r.Table.Port(route.Bind{Port: port})
		if p == nil || p.Protocol != protocol || len(p.Listeners) != 1 {
			t.Fatalf("port %d: %+v", port, p)
		}
		l := p.Listeners[0]
		if l.Name != "ingress" || !l.LastResort || !l.OneLabelWildcards || l.Port != port || l.Hostname != "" {
			t.Errorf("listener on %d: %+v", port, l)
		}
	}
	_, rule, _ := r.Table.Port(route.Bind{Port: 8080}).Lookup(&route.Request{Host: "a.com", Path: "/"})
	if got, want := rule.Filters[0].String(), "redirect 308 scheme=https port=8443"; got != want {
		t.Errorf("redirect %q, want %q", got, want)
	}

	// Without TLS there is no HTTPS port, and without Ingresses no port at all.
	if r := Compile(newShop(newIngress("b", "b.com Prefix / b")), Options{}); len(r.Table.Ports) != 1 || len(r.Certificates) != 0 {
		t.Errorf("ports = %v", r.Table)
	}
	if r := Compile(newShop(), Options{}); len(r.Table.Ports) != 0 {
		t.Errorf("ports = %v", r.Table)
	}
	// Both on one port cannot be.
	r = Compile(in, Options{HTTPPort: 9000, HTTPSPort: 9000, RedirectHTTPS: true})
	if diff := gocmp.Diff([]string{"error  PortInUse", "warning spec.tls[0].secretName NoSecret", "error  PortInUse"}, problemLines(r, "", true)); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

func TestIngressStatus(t *testing.T) {
	r := Compile(newShop(newIngress("a", "a.com Prefix / a")), Options{PublishAddresses: []string{"192.0.2.1", "2001:db8::1", "lb.example.com"}})
	want := []networkingv1.IngressLoadBalancerIngress{{IP: "192.0.2.1"}, {IP: "2001:db8::1"}, {Hostname: "lb.example.com"}}
	if diff := gocmp.Diff(want, r.Status.Ingresses[object.Key{Namespace: "shop", Name: "a"}].LoadBalancer.Ingress); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

// certificates writes who has which name: HOST: SECRETS.
func certificates(r Result) []string {
	var out []string
	for _, c := range r.Certificates {
		line := c.Bind.String() + " " + cmp.Or(c.Hostname, "*") + ":"
		for _, p := range c.Pairs {
			line += " " + p.Namespace + "/" + p.Name
		}
		out = append(out, line)
	}
	return out
}

func TestIngressTLS(t *testing.T) {
	later := taken.Add(90 * 24 * time.Hour)
	secrets := []*corev1.Secret{
		newSecret(t, "a", later, "a.com"), newSecret(t, "a2", later, "a.com"), newSecret(t, "wild", later, "*.a.com"), newSecret(t, "both", later, "a.com", "b.com"),
		newSecret(t, "old", taken.Add(-time.Hour), "a.com"), newSecret(t, "opaque", later, "a.com"), newSecret(t, "mixed", later, "a.com"),
	}
	secrets[5].Type = corev1.SecretTypeOpaque
	secrets[6].Data["tls.key"] = secrets[0].Data["tls.key"]
	foreign := newSecret(t, "foreign", later, "a.com")
	foreign.Namespace = "bank"
	secrets = append(secrets, foreign)
	young := func(lines ...string) *networkingv1.Ingress { return newIngress("young", append(lines, "age 9")...) }
	tests := []struct {
		name     string
		in       []*networkingv1.Ingress
		want     []string
		problems []string
	}{
		{"none", []*networkingv1.Ingress{newIngress("a", "a.com Prefix / x")}, nil, nil},
		{"one", []*networkingv1.Ingress{newIngress("a", "a.com Prefix / x", "tls a a.com")}, []string{":443 a.com: shop/a"}, nil},
		{"wildcard", []*networkingv1.Ingress{newIngress("a", "x.a.com Prefix / x", "tls wild *.a.com")}, []string{":443 *.a.com: shop/wild"}, nil},
		{"two hosts", []*networkingv1.Ingress{newIngress("a", "a.com Prefix / x", "b.com Prefix / x", "tls both a.com b.com")}, []string{":443 a.com: shop/both", ":443 b.com: shop/both"}, nil},
		// Defaults to the wildcard host setting for the loadbalancer controller fulfilling this Ingress, if left unspecified.
		{"no hosts", []*networkingv1.Ingress{newIngress("a", "a.com Prefix / x", "tls a")}, []string{":443 *: shop/a"}, nil},
		{"two pairs", []*networkingv1.Ingress{newIngress("a", "a.com Prefix / x", "tls a a.com", "tls a2 a.com", "tls a a.com")}, []string{":443 a.com: shop/a shop/a2"}, nil},
		// The TLS secret must contain keys named tls.crt and tls.key that contain the certificate and private key to use for TLS.
		{"missing Secret", []*networkingv1.Ingress{newIngress("a", "a.com Prefix / x", "tls nowhere a.com")}, []string{":443 a.com:"}, []string{"error spec.tls[0].secretName SecretNotFound"}},
		{"wrong type", []*networkingv1.Ingress{newIngress("a", "a.com Prefix / x", "tls opaque a.com")}, []string{":443 a.com:"}, []string{"error spec.tls[0].secretName WrongSecretType"}},
		{"wrong key", []*networkingv1.Ingress{newIngress("a", "a.com Prefix / x", "tls mixed a.com")}, []string{":443 a.com:"}, []string{"error spec.tls[0].secretName InvalidPair"}},
		{"of another namespace", []*networkingv1.Ingress{newIngress("a", "a.com Prefix / x", "tls foreign a.com", "tls bank/foreign a.com")}, []string{":443 a.com:"}, []string{
			"error spec.tls[0].secretName SecretNotFound", "error spec.tls[1].secretName SecretNotFound",
		}},
		{"expired", []*networkingv1.Ingress{newIngress("a", "a.com Prefix / x", "tls old a.com")}, []string{":443 a.com: shop/old"}, []string{"error spec.tls[0].secretName CertificateExpired"}},
		// The values in this list must match the name/s used in the tlsSecret.
		{"other name", []*networkingv1.Ingress{newIngress("a", "b.com Prefix / x", "tls a b.com")}, []string{":443 b.com: shop/a"}, []string{"warning spec.tls[0].secretName CertificateHostMismatch"}},
		// Hosts in the tls section need to explicitly match the host in the rules section.
		{"no rule", []*networkingv1.Ingress{newIngress("a", "b.com Prefix / x", "tls a a.com")}, []string{":443 a.com: shop/a"}, []string{"note spec.tls[0].hosts[0] HostWithoutRule"}},
		{"wildcard rule", []*networkingv1.Ingress{newIngress("a", "*.com Prefix / x", "tls a a.com")}, []string{":443 a.com: shop/a"}, nil},
		{"any rule", []*networkingv1.Ingress{newIngress("a", "* Prefix / x", "tls a a.com")}, []string{":443 a.com: shop/a"}, nil},
		{"default backend", []*networkingv1.Ingress{newIngress("a", "default x", "tls a a.com")}, []string{":443 a.com: shop/a"}, nil},
		{"sibling of a rule", []*networkingv1.Ingress{newIngress("a", "b.com Prefix / x", "tls a a.com")}, []string{":443 a.com: shop/a"}, []string{"note spec.tls[0].hosts[0] HostWithoutRule"}},
		{"invalid host", []*networkingv1.Ingress{newIngress("a", "a.com Prefix / x", "tls a a_b.com")}, nil, []string{"error spec.tls[0].hosts[0] InvalidHost"}},
		// Field is left optional to allow TLS routing based on SNI hostname alone.
		{"no Secret", []*networkingv1.Ingress{newIngress("a", "a.com Prefix / x", "tls - a.com")}, nil, []string{"warning spec.tls[0].secretName NoSecret"}},
		{"no Secret after a Secret", []*networkingv1.Ingress{newIngress("a", "a.com Prefix / x", "tls - a.com", "tls a a.com")}, []string{":443 a.com: shop/a"}, []string{"warning spec.tls[0].secretName NoSecret"}},
		{"no Secret beside another's", []*networkingv1.Ingress{newIngress("a", "a.com Prefix / x", "tls - a.com"), young("a.com Prefix /y y", "tls a a.com")}, []string{":443 a.com: shop/a"}, []string{
			"warning spec.tls[0].secretName NoSecret",
		}},
		{"oldest wins", []*networkingv1.Ingress{young("a.com Prefix /y y", "tls a2 a.com"), newIngress("a", "a.com Prefix / x", "tls a a.com")}, []string{":443 a.com: shop/a"}, []string{
			"warning spec.tls[0] CertificateConflict",
		}},
		{"same Secret", []*networkingv1.Ingress{young("a.com Prefix /y y", "tls a a.com"), newIngress("a", "a.com Prefix / x", "tls a a.com")}, []string{":443 a.com: shop/a"}, nil},
		{"usable before broken", []*networkingv1.Ingress{young("a.com Prefix /y y", "tls a a.com"), newIngress("a", "a.com Prefix / x", "tls nowhere a.com")}, []string{":443 a.com: shop/a"}, []string{
			"error spec.tls[0].secretName SecretNotFound",
		}},
		{"who has rules wins", []*networkingv1.Ingress{young("a.com Prefix /y y", "tls a a.com"), newIngress("a", "b.com Prefix / x", "tls a2 a.com")}, []string{":443 a.com: shop/a"}, []string{
			"warning spec.tls[0] CertificateConflict", "note spec.tls[0].hosts[0] HostWithoutRule",
		}},
		{"who has rules wins even if broken", []*networkingv1.Ingress{young("a.com Prefix /y y", "tls nowhere a.com"), newIngress("a", "b.com Prefix / x", "tls a2 a.com")}, []string{":443 a.com:"}, []string{
			"warning spec.tls[0] CertificateConflict", "note spec.tls[0].hosts[0] HostWithoutRule", "error spec.tls[0].secretName SecretNotFound",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := newShop(tt.in...)
			for _, s := range secrets {
				in.Secrets[object.KeyOf(s)] = s
			}
			r := Compile(in, Options{})
			if diff := gocmp.Diff(tt.want, certificates(r)); diff != "" {
				t.Errorf("certificates (-want +got):\n%s", diff)
			}
			if diff := gocmp.Diff(tt.problems, problemLines(r, "", true)); diff != "" {
				t.Errorf("problems (-want +got):\n%s%v", diff, r.Problems)
			}
		})
	}
}

// choices makes decisions from the bytes of a fuzzer; when they run out, it always takes the first choice.
type choices struct{ data []byte }

func (c *choices) n(n int) int {
	if len(c.data) == 0 || n < 2 {
		return 0
	}
	b := c.data[0]
	c.data = c.data[1:]
	return int(b) % n
}

func (c *choices) text() string {
	words := []string{
		"", "a.com", "*.a.com", "*", "A.COM", "a..com", ".", "192.0.2.1", "[::1]", "a.com:80", strings.Repeat("a", 300), "\x00", "é.com", "/", "/a", "/a/", "//", "/../..", "/%zz", "/%2f",
		"/.well-known/acme-challenge/x", "/(.*)", "a b", "test", "web", "missing", "shop/test", "nginx", "fairlead", "true", "bad", "broken", "nopair",
	}
	if i := c.n(len(words) + 1); i < len(words) {
		return words[i]
	}
	n := min(c.n(20), len(c.data))
	s := string(c.data[:n])
	c.data = c.data[n:]
	return s
}

func (c *choices) ingress() *networkingv1.Ingress {
	g := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "fuzz"}}
	if c.n(2) == 1 {
		g.CreationTimestamp = metav1.NewTime(taken.Add(-time.Duration(c.n(1000)) * time.Hour))
	}
	for range c.n(3) {
		name := []string{"fairlead.io/ssl-redirect", "kubernetes.io/ingress.class", "fairlead.io/" + c.text(), ""}[c.n(4)]
		if g.Annotations == nil {
			g.Annotations = map[string]string{}
		}
		g.Annotations[name] = c.text()
	}
	if c.n(4) == 1 {
		class := c.text()
		g.Spec.IngressClassName = &class
	}
	if c.n(2) == 1 {
		b := c.backend()
		g.Spec.DefaultBackend = &b
	}
	for range c.n(4) {
		g.Spec.TLS = append(g.Spec.TLS, networkingv1.IngressTLS{SecretName: c.text()})
		for range c.n(3) {
			t := &g.Spec.TLS[len(g.Spec.TLS)-1]
			t.Hosts = append(t.Hosts, c.text())
		}
	}
	for range c.n(5) {
		r := networkingv1.IngressRule{Host: c.text()}
		if c.n(5) > 0 {
			r.HTTP = &networkingv1.HTTPIngressRuleValue{}
			for range c.n(4) {
				r.HTTP.Paths = append(r.HTTP.Paths, c.path())
			}
		}
		g.Spec.Rules = append(g.Spec.Rules, r)
	}
	return g
}

func (c *choices) path() networkingv1.HTTPIngressPath {
	p := networkingv1.HTTPIngressPath{Path: c.text(), Backend: c.backend()}
	if typ := networkingv1.PathType([]string{"Prefix", "Exact", "ImplementationSpecific", "", c.text()}[c.n(5)]); c.n(6) > 0 {
		p.PathType = &typ
	}
	return p
}

func (c *choices) backend() (b networkingv1.IngressBackend) {
	if c.n(8) > 0 {
		b.Service = &networkingv1.IngressServiceBackend{Name: c.text(), Port: networkingv1.ServiceBackendPort{Name: []string{"", "http", c.text()}[c.n(3)], Number: []int32{80, 0, -1, 81, 1 << 30}[c.n(5)]}}
	}
	if c.n(8) == 1 {
		b.Resource = &corev1.TypedLocalObjectReference{Kind: c.text(), Name: c.text()}
	}
	return b
}

// Whatever an Ingress holds, it is compiled without panic, the same way each time, and changes nothing for an Ingress that is about another host.
func FuzzIngress(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 9, 2, 0, 29, 2, 33, 3, 'a', 'b', 'c', 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
	f.Add([]byte("\x00\x01\x00\x1d\x00\x01\x01\x17\x00\x00\x00\x01\x18\x01\x01\x04\x01\x03\x0f\x01\x17\x00\x00\x00\x00\x05\x02\x04\x02\x14\x01\x18\x00\x01\x00\x01\x05"))
	for i := range 40 {
		seed := make([]byte, 200)
		for j := range seed {
			seed[j] = byte(i*j*31 + j*j*7 + i)
		}
		f.Add(seed)
	}
	pair := newSecret(f, "test", taken.Add(time.Hour), "a.com")
	broken := newSecret(f, "broken", taken.Add(time.Hour), "a.com")
	broken.Data["tls.key"] = []byte("nonsense")
	victim := newIngress("victim", "age 500000", "victim.example Prefix / test", "victim.example Exact /x web", "tls test victim.example", "annotation fairlead.io/ssl-redirect true")
	victim.Namespace = "bank"
	bank := pair.DeepCopy()
	bank.Namespace = "bank"
	world := func(all ...*networkingv1.Ingress) *object.Snapshot {
		in := newShop(all...)
		for _, s := range []*corev1.Secret{pair, broken, bank, {ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "nopair"}, Type: corev1.SecretTypeTLS}} {
			in.Secrets[object.KeyOf(s)] = s
		}
		in.Services[object.Key{Namespace: "shop", Name: "web"}] = newService(object.Key{Namespace: "shop", Name: "web"}, corev1.ServicePort{Port: 80, Name: "http"})
		return in
	}
	want := linesAbout(Compile(world(victim), Options{}), "bank/victim")
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &choices{data}
		opt := Options{RedirectHTTPS: c.n(2) == 1, AllowExternalName: c.n(2) == 1}
		g := c.ingress()
		before := g.DeepCopy()
		in := world(g, victim)
		r := Compile(in, opt)
		for _, p := range r.Problems {
			if p.Code == codeInternal {
				t.Errorf("panic: %s", p)
			}
		}
		if diff := gocmp.Diff(want, linesAbout(r, "bank/victim")); diff != "" {
			t.Errorf("another Ingress changed (-want +got):\n%s\n%s", diff, r.Table)
		}
		for u, want := range map[string]string{"http://victim.example/": "redirect 308 scheme=https", "https://victim.example/": "test", "https://victim.example/x": "web"} {
			if got := ask(t, r, u); got != want {
				t.Errorf("%s: %s, want %s", u, got, want)
			}
		}
		if a, b := resultText(r), resultText(Compile(in, opt)); a != b {
			t.Errorf("compiled again it is different:\n%s", gocmp.Diff(a, b))
		}
		if diff := gocmp.Diff(before, g); diff != "" {
			t.Errorf("the Ingress was modified:\n%s", diff)
		}
	})
}

// linesAbout are the lines of a result's text that name an object.
func linesAbout(r Result, name string) (lines []string) {
	for line := range strings.Lines(resultText(r)) {
		if strings.Contains(line, "Ingress "+name) {
			lines = append(lines, strings.Join(strings.Fields(line), " ")) // the table is aligned
		}
	}
	return lines
}

func BenchmarkCompileIngresses(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			all := make([]*networkingv1.Ingress, n)
			for i := range all {
				all[i] = newIngress(fmt.Sprintf("i%d", i), fmt.Sprintf("h%d.example.com Prefix / s%d", i, i), fmt.Sprintf("h%d.example.com Prefix /api s%d", i, i))
			}
			in := newShop(all...)
			b.ReportAllocs()
			for b.Loop() {
				if r := Compile(in, Options{}); len(r.Problems) > 0 {
					b.Fatal(r.Problems)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(2*n), "ns/rule")
		})
	}
}
