package manifest

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-io/fairlead/internal/object"
)

func TestParseBackend(t *testing.T) {
	for _, tt := range []struct{ in, want, err string }{
		{"shop/web:80=127.0.0.1:3000", "shop/web:80=127.0.0.1:3000", ""},
		{"shop/web:http=[::1]:3000", "shop/web:http=[::1]:3000", ""},
		{"shop/web:0080=localhost:3000", "shop/web:80=127.0.0.1:3000", ""},
		{"shop/web:80=[::ffff:10.0.0.1]:3000", "shop/web:80=10.0.0.1:3000", ""},
		{"", "", "want NAMESPACE/SERVICE:PORT=HOST:PORT, such as shop/web:80=127.0.0.1:3000; there is no '='"},
		{"shop/web:80", "", "want NAMESPACE/SERVICE:PORT=HOST:PORT, such as shop/web:80=127.0.0.1:3000; there is no '='"},
		{"shop/web=127.0.0.1:3000", "", `"shop/web" names no port of the Service; want NAMESPACE/SERVICE:PORT`},
		{"web:80=127.0.0.1:3000", "", `"web:80" names no namespace; want NAMESPACE/SERVICE:PORT`},
		{"Shop/web:80=127.0.0.1:3000", "", `namespace: "Shop" is not a name; want lower-case letters, digits and '-', with a letter or digit at both ends`},
		{"shop/we.b:80=127.0.0.1:3000", "", `service: "we.b" is not a name; want lower-case letters, digits and '-', with a letter or digit at both ends`},
		{"/web:80=127.0.0.1:3000", "", `namespace: "" is not a name; want lower-case letters, digits and '-', with a letter or digit at both ends`},
		{"shop/web:0=127.0.0.1:3000", "", "port 0 of the Service is not between 1 and 65535"},
		{"shop/web:65536=127.0.0.1:3000", "", "port 65536 of the Service is not between 1 and 65535"},
		{"shop/web:=127.0.0.1:3000", "", `port of the Service: "" is not a name; want lower-case letters, digits and '-', with a letter or digit at both ends`},
		{"shop/web:80=127.0.0.1", "", `endpoint "127.0.0.1" has no port; want HOST:PORT`},
		{"shop/web:80=[::1]", "", `endpoint "[::1]" has no port; want HOST:PORT`},
		{"shop/web:80=127.0.0.1:0", "", `port "0" of the endpoint is not a number between 1 and 65535`},
		{"shop/web:80=127.0.0.1:http", "", `port "http" of the endpoint is not a number between 1 and 65535`},
		{"shop/web:80=127.0.0.1:65536", "", `port "65536" of the endpoint is not a number between 1 and 65535`},
		{"shop/web:80=example.com:80", "", `host "example.com" of the endpoint is neither an IP address nor localhost`},
		{"shop/web:80=:80", "", `host "" of the endpoint is neither an IP address nor localhost`},
		{"shop/web:80=::1:80", "", "an IPv6 address of an endpoint stands in brackets: [::1]:80"},
		{"shop/web:80=[127.0.0.1]:80", "", "brackets are for IPv6 addresses; want 127.0.0.1:80"},
		{"shop/web:80=[fe80::1%eth0]:80", "", "address fe80::1%eth0 of the endpoint has a zone, which an EndpointSlice cannot hold"},
		{"shop/web:80=0.0.0.0:80", "", "address 0.0.0.0 of the endpoint is not the address of one host"},
	} {
		t.Run(tt.in, func(t *testing.T) {
			got, err := ParseBackend(tt.in)
			switch {
			case tt.err == "" && err != nil:
				t.Fatal(err)
			case tt.err == "" && got.String() != tt.want:
				t.Errorf("got %v, want %s", got, tt.want)
			case tt.err != "" && (err == nil || err.Error() != "parse backend "+strconv.Quote(tt.in)+": "+tt.err):
				t.Errorf("error %v,\nwant %s", err, tt.err)
			}
			if tt.err == "" {
				if again, err := ParseBackend(got.String()); err != nil || again != got {
					t.Errorf("String() reads back as %v, %v", again, err)
				}
			}
		})
	}
}

// endpoints are the endpoints of each Service: namespace/service: port name of the slice=address:port.
func endpoints(s *object.Snapshot) []string {
	var out []string
	for _, key := range slices.SortedFunc(maps.Keys(s.EndpointSlices), object.Key.Compare) {
		for _, slice := range s.EndpointSlices[key] {
			for _, e := range slice.Endpoints {
				for _, p := range slice.Ports {
					out = append(out, key.String()+": "+*p.Name+"="+e.Addresses[0]+":"+strconv.Itoa(int(*p.Port))+" "+string(slice.AddressType))
				}
			}
		}
	}
	return out
}

// ports are the ports of each Service.
func ports(s *object.Snapshot) []string {
	var out []string
	for _, service := range object.Sorted(s.Services) {
		out = append(out, object.KeyOf(service).String()+": "+portNames(service))
	}
	return out
}

func TestBackendsGiveServicesTheirEndpoints(t *testing.T) {
	web := "apiVersion: v1\nkind: Service\nmetadata: {namespace: shop, name: web}\nspec: {ports: [{name: http, port: 80, appProtocol: kubernetes.io/h2c}, {name: admin, port: 8080}]}\n"
	slice := "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {namespace: shop, name: web-1, labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\nports: [{name: http, port: 9}]\nendpoints: [{addresses: [10.0.0.1]}]\n"
	external := "apiVersion: v1\nkind: Service\nmetadata: {namespace: shop, name: web}\nspec: {type: ExternalName, externalName: a.b}\n"
	for _, tt := range []struct {
		name, in   string
		flags      []string
		ports      []string
		endpoints  []string
		issues     []string
		namespaces []string
	}{
		{
			"no Service: it is implied, with one port", "",
			[]string{"shop/web:80=127.0.0.1:3000", "shop/web:80=[::1]:3001", "shop/web:80=127.0.0.1:3000"},
			[]string{"shop/web: 80"},
			[]string{"shop/web: =127.0.0.1:3000 IPv4", "shop/web: =::1:3001 IPv6"},
			nil,
			[]string{"shop"},
		},
		{
			"no Service, several ports", "",
			[]string{"shop/web:80=127.0.0.1:3000", "shop/web:admin=127.0.0.1:3001", "shop/web:3001=127.0.0.1:3002", "shop/api:http=127.0.0.1:4000"},
			[]string{"shop/api: 4000 (http)", "shop/web: 80 (port-80), 3002 (admin), 3001 (port-3001)"},
			[]string{"shop/api: http=127.0.0.1:4000 IPv4", "shop/web: port-80=127.0.0.1:3000 IPv4", "shop/web: admin=127.0.0.1:3001 IPv4", "shop/web: port-3001=127.0.0.1:3002 IPv4"},
			nil,
			[]string{"shop"},
		},
		{
			"a Service, its port by number and by name", web,
			[]string{"shop/web:80=127.0.0.1:3000", "shop/web:admin=127.0.0.1:3001", "shop/web:http=127.0.0.1:3000"},
			[]string{"shop/web: 80 (http), 8080 (admin)"},
			[]string{"shop/web: http=127.0.0.1:3000 IPv4", "shop/web: admin=127.0.0.1:3001 IPv4"},
			nil,
			[]string{"shop"},
		},
		{
			"a port that the Service does not have", web,
			[]string{"shop/web:81=127.0.0.1:3000", "shop/web:80=127.0.0.1:3001"},
			[]string{"shop/web: 80 (http), 8080 (admin)"},
			[]string{"shop/web: http=127.0.0.1:3001 IPv4"},
			[]string{"!--backend:1: Service shop/web: the Service has no port 81; it has 80 (http), 8080 (admin)"},
			[]string{"shop"},
		},
		{
			"a Service that has a slice", web + "---\n" + slice,
			[]string{"shop/web:80=127.0.0.1:3000", "shop/web:admin=127.0.0.1:3000"},
			[]string{"shop/web: 80 (http), 8080 (admin)"},
			[]string{"shop/web: http=10.0.0.1:9 IPv4"},
			[]string{
				"--backend:1: Service shop/web: the Service has an EndpointSlice (a.yaml:6), so the flag has no effect",
				"--backend:2: Service shop/web: the Service has an EndpointSlice (a.yaml:6), so the flag has no effect",
			},
			[]string{"shop"},
		},
		{
			"a Service of another kind", external,
			[]string{"shop/web:80=127.0.0.1:3000"},
			[]string{"shop/web: none"},
			nil,
			[]string{"--backend:1: Service shop/web: the Service is of type ExternalName, so the flag has no effect"},
			[]string{"shop"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var opt Options
			for _, f := range tt.flags {
				b, err := ParseBackend(f)
				if err != nil {
					t.Fatal(err)
				}
				opt.Backends = append(opt.Backends, b)
			}
			snap, issues := Load(folderOf(map[string]string{"a.yaml": tt.in}), opt)
			for _, c := range []struct{ what, diff string }{
				{"ports", cmp.Diff(tt.ports, ports(snap))},
				{"endpoints", cmp.Diff(tt.endpoints, endpoints(snap))},
				{"issues", cmp.Diff(tt.issues, texts(issues))},
				{"namespaces", cmp.Diff(tt.namespaces, slices.Sorted(maps.Keys(snap.Namespaces)))},
			} {
				if c.diff != "" {
					t.Errorf("%s (-want +got):\n%s", c.what, c.diff)
				}
			}
		})
	}
}

// A protocol of the Service's port holds for the endpoints of the flag too.
func TestBackendsKeepTheProtocolOfThePort(t *testing.T) {
	b, err := ParseBackend("shop/web:http=127.0.0.1:3000")
	if err != nil {
		t.Fatal(err)
	}
	snap, _ := Load(folderOf(map[string]string{"a.yaml": "apiVersion: v1\nkind: Service\nmetadata: {namespace: shop, name: web}\nspec: {ports: [{name: http, port: 80, appProtocol: kubernetes.io/h2c}]}\n"}), Options{Backends: []Backend{b}})
	port := snap.EndpointSlices[b.Service][0].Ports[0]
	if port.AppProtocol == nil || *port.AppProtocol != "kubernetes.io/h2c" || *port.Protocol != "TCP" {
		t.Errorf("port = %+v", port)
	}
}

// A folder of ten lines and a flag are enough to serve something.
func TestTenLinesWork(t *testing.T) {
	for _, tt := range []struct{ name, in string }{
		{"an Ingress", `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop, namespace: shop}
spec:
  rules:
  - http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}
`},
		{"a Gateway and a route", `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: shop}
spec: {gatewayClassName: fairlead, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, namespace: shop}
spec: {parentRefs: [{name: gw}], rules: [{backendRefs: [{name: web, port: 80}]}]}
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if n := strings.Count(strings.TrimSpace(tt.in), "\n"); n > 9 {
				t.Fatalf("%d lines", n+1)
			}
			b, err := ParseBackend("shop/web:80=127.0.0.1:3000")
			if err != nil {
				t.Fatal(err)
			}
			snap, issues := Load(folderOf(map[string]string{"a.yaml": tt.in}), Options{Backends: []Backend{b}})
			if len(issues) > 0 {
				t.Errorf("issues: %q", texts(issues))
			}
			if len(snap.Ingresses)+len(snap.HTTPRoutes) != 1 || snap.GatewayClasses["fairlead"] == nil || snap.IngressClasses["fairlead"] == nil || snap.Namespaces["shop"] == nil {
				t.Errorf("snapshot = %+v", snap)
			}
			if diff := cmp.Diff([]string{"shop/web: =127.0.0.1:3000 IPv4"}, endpoints(snap)); diff != "" {
				t.Errorf("endpoints (-want +got):\n%s", diff)
			}
		})
	}
}
