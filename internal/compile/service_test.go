package compile

import (
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// newCompiler is what Compile starts with.
func newCompiler(in *object.Snapshot, opt Options) *compiler {
	return &compiler{in: in, opt: opt.withDefaults(), pools: map[route.PoolKey]*route.Pool{}, tables: map[route.Bind]*route.Port{}}
}

func externalService(name string, ports ...corev1.ServicePort) *corev1.Service {
	s := newService(webKey, ports...)
	s.Spec.Type = corev1.ServiceTypeExternalName
	s.Spec.ExternalName = name
	return s
}

var webKey = object.Key{Namespace: "shop", Name: "web"}

func withService(s *corev1.Service) *object.Snapshot {
	return &object.Snapshot{Services: map[object.Key]*corev1.Service{webKey: s}}
}

func TestServicePool(t *testing.T) {
	app := func(name string) *corev1.Service {
		return newService(webKey, corev1.ServicePort{Port: 80, AppProtocol: &name})
	}
	headless := newService(webKey, corev1.ServicePort{Port: 80})
	headless.Spec.ClusterIP = corev1.ClusterIPNone
	external := Options{AllowExternalName: true}
	tests := []struct {
		name    string
		service *corev1.Service
		opt     Options
		port    int32
		want    string // the pool, or the code of the error
		says    string // part of the error's message
	}{
		{"plain", newService(webKey, corev1.ServicePort{Port: 80}), Options{}, 80, "shop/web:80 http spec.ports[0]", ""},
		{"second port", newService(webKey, corev1.ServicePort{Port: 81}, corev1.ServicePort{Port: 80, Name: "http", Protocol: "TCP"}), Options{}, 80, "shop/web:80 http spec.ports[1]", ""},
		{"headless", headless, Options{}, 80, "shop/web:80 http spec.ports[0]", ""},
		{"no Service", nil, Options{}, 80, codeServiceNotFound, "Service shop/web does not exist"},
		{"no such port", newService(webKey, corev1.ServicePort{Port: 8080, Name: "web"}, corev1.ServicePort{Port: 9090}), Options{}, 80, codePortNotFound, "Service shop/web has no port 80; it has 8080 (web), 9090"},
		{"no ports", newService(webKey), Options{}, 80, codePortNotFound, "it has none"},
		{"port zero", newService(webKey, corev1.ServicePort{}), Options{}, 0, codePortNotFound, "has no port 0"},
		{"port beyond", newService(webKey, corev1.ServicePort{Port: 65616}), Options{}, 65616, codePortNotFound, ""},
		{"negative port", newService(webKey, corev1.ServicePort{Port: -1}), Options{}, -1, codePortNotFound, ""},

		// KEP-3726, and the documentation of ServicePort.appProtocol.
		{"kubernetes.io/h2c", app("kubernetes.io/h2c"), Options{}, 80, "shop/web:80 h2c spec.ports[0]", ""},
		{"kubernetes.io/ws", app("kubernetes.io/ws"), Options{}, 80, "shop/web:80 ws spec.ports[0]", ""},
		{"kubernetes.io/wss", app("kubernetes.io/wss"), Options{}, 80, "shop/web:80 wss spec.ports[0]", ""},
		{"unknown kubernetes.io", app("kubernetes.io/h4"), Options{}, 80, codeUnsupportedProtocol, `the appProtocol "kubernetes.io/h4"; supported are`},
		{"http", app("http"), Options{}, 80, "shop/web:80 http spec.ports[0]", ""},
		{"https", app("https"), Options{}, 80, "shop/web:80 https spec.ports[0]", ""},
		{"HTTPS", app("HTTPS"), Options{}, 80, "shop/web:80 https spec.ports[0]", ""},
		{"grpc", app("grpc"), Options{}, 80, "shop/web:80 h2c spec.ports[0]", ""},
		{"empty", app(""), Options{}, 80, "shop/web:80 http spec.ports[0]", ""},
		{"another IANA name", app("postgresql"), Options{}, 80, "shop/web:80 http spec.ports[0]", ""},
		{"somebody's own", app("example.com/custom"), Options{}, 80, "shop/web:80 http spec.ports[0]", ""},

		{"UDP", newService(webKey, corev1.ServicePort{Port: 80, Protocol: corev1.ProtocolUDP}), Options{}, 80, codeUnsupportedProtocol, "port 80 of Service shop/web has the protocol UDP; TCP is needed"},
		{"SCTP", newService(webKey, corev1.ServicePort{Port: 80, Protocol: corev1.ProtocolSCTP}), Options{}, 80, codeUnsupportedProtocol, "SCTP"},
		{
			"QUIC beside TCP", newService(webKey, corev1.ServicePort{Port: 443, Protocol: corev1.ProtocolUDP}, corev1.ServicePort{Port: 443, Protocol: corev1.ProtocolTCP}),
			Options{},
			443, "shop/web:443 http spec.ports[1]", "",
		},

		{"ExternalName", externalService("Example.COM.", corev1.ServicePort{Port: 80}), external, 80, "shop/web:80 http spec.ports[0]", ""},
		{"ExternalName not allowed", externalService("example.com", corev1.ServicePort{Port: 80}), Options{}, 80, codeExternalNameNotAllowed, "must be allowed in the configuration"},
		{"ExternalName has every port if it names none", externalService("example.com"), external, 8443, "shop/web:8443 http ", ""},
		{"but no impossible one", externalService("example.com"), external, 70000, codePortNotFound, ""},
		{"ExternalName has no other port than it names", externalService("example.com", corev1.ServicePort{Port: 80}), external, 81, codePortNotFound, ""},
		{"ExternalName is an address", externalService("169.254.169.254", corev1.ServicePort{Port: 80}), external, 80, codeExternalNameNotAllowed, "is an IP address, not a name"},
		{"ExternalName is an IPv6 address", externalService("::1", corev1.ServicePort{Port: 80}), external, 80, codeExternalNameNotAllowed, "is an IP address, not a name"},
		{"ExternalName is empty", externalService("", corev1.ServicePort{Port: 80}), external, 80, codeExternalNameNotAllowed, "externalName of Service shop/web is empty"},
		{"ExternalName is no name", externalService("a/../b", corev1.ServicePort{Port: 80}), external, 80, codeExternalNameNotAllowed, "is not a host name"},
		{"ExternalName is a wildcard", externalService("*.example.com", corev1.ServicePort{Port: 80}), external, 80, codeExternalNameNotAllowed, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newCompiler(withService(tt.service), tt.opt)
			p, err := c.servicePool("shop", "web", tt.port)
			got := ""
			if err != nil {
				got = err.Code
				if !strings.Contains(err.Message, tt.says) {
					t.Errorf("message %q does not say %q", err.Message, tt.says)
				}
			} else {
				got = p.Key.String() + " " + string(p.Protocol) + " " + p.Source.Field
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if (err == nil) != (len(c.pools) == 1) {
				t.Errorf("pools = %v", c.pools)
			}
		})
	}
}

func TestServicePoolIsShared(t *testing.T) {
	c := newCompiler(withService(newService(webKey, corev1.ServicePort{Port: 80}, corev1.ServicePort{Port: 81})), Options{})
	a, _ := c.servicePool("shop", "web", 80)
	b, _ := c.servicePool("shop", "web", 80)
	other, _ := c.servicePool("shop", "web", 81)
	if a != b || a == other || len(c.pools) != 2 {
		t.Errorf("pools %p, %p and %p; want the first two to be one", a, b, other)
	}
}

// Names with hyphens must not run into each other.
func TestServicePoolsOfSimilarNames(t *testing.T) {
	in := &object.Snapshot{Services: map[object.Key]*corev1.Service{}}
	keys := []object.Key{{Namespace: "a", Name: "b-c"}, {Namespace: "a-b", Name: "c"}, {Namespace: "a", Name: "b.c"}}
	for _, k := range keys {
		in.Services[k] = &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: k.Namespace, Name: k.Name}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
	}
	c := newCompiler(in, Options{})
	seen := map[*route.Pool]bool{}
	for _, k := range keys {
		p, err := c.servicePool(k.Namespace, k.Name, 80)
		if err != nil || p.Key.Namespace != k.Namespace || p.Key.Service != k.Name {
			t.Fatalf("%v: %+v, %v", k, p, err)
		}
		seen[p] = true
	}
	if len(seen) != len(keys) {
		t.Errorf("%d pools for %d Services", len(seen), len(keys))
	}
}

func TestServicePort(t *testing.T) {
	type port = networkingv1.ServiceBackendPort
	service := newService(webKey, corev1.ServicePort{Port: 8080, Name: "http"}, corev1.ServicePort{Port: 9090, Name: "metrics"})
	tests := []struct {
		name    string
		service *corev1.Service
		in      port
		want    int32
		code    string
		says    string
	}{
		// A port name or port number is required for a IngressServiceBackend.
		{"number", service, port{Number: 8080}, 8080, "", ""},
		{"name", service, port{Name: "metrics"}, 9090, "", ""},
		{"neither", service, port{}, 0, codePortNotFound, "has neither a name nor a number; Service shop/web has 8080 (http), 9090 (metrics)"},
		// This is a mutually exclusive setting with "Number".
		{"both", service, port{Name: "http", Number: 8080}, 0, codePortNotFound, "one of them is allowed, not both"},
		{"unknown name", service, port{Name: "web"}, 0, codePortNotFound, `has no port named "web"; it has 8080 (http), 9090 (metrics)`},
		{"number as a name", service, port{Name: "8080"}, 0, codePortNotFound, ""},
		{"no Service", nil, port{Number: 80}, 0, codeServiceNotFound, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newCompiler(withService(tt.service), Options{})
			got, err := c.servicePort("shop", "web", tt.in)
			if err == nil {
				err = &poolError{}
			}
			if got != tt.want || err.Code != tt.code || !strings.Contains(err.Message, tt.says) {
				t.Errorf("got %d, %+v; want %d, %s %q", got, *err, tt.want, tt.code, tt.says)
			}
		})
	}
	if diff := gocmp.Diff("none", portsOf(newService(webKey))); diff != "" {
		t.Error(diff)
	}
}
