package compile

import (
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// neighbour is the namespace and the name of those who must not be affected by what others write.
type neighbour string

// Where neighbours stand among the others, whom the compiler goes through in the order of age and then of names. They have no age.
const (
	firstNeighbour neighbour = "0-neighbour"
	lastNeighbour  neighbour = "zz-neighbour"
)

// neighbours are objects of every kind, with ports of their own, under the name of the first.
const neighbours = `
{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: 0-neighbour}, spec: {controllerName: fairlead.io/gateway-controller}}
---
{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: 0-neighbour}, spec: {controller: fairlead.io/ingress-controller}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: 0-neighbour, namespace: 0-neighbour, uid: neighbour-1}
spec:
  gatewayClassName: 0-neighbour
  allowedListeners: {namespaces: {from: Same}}
  listeners:
  - {name: http, protocol: HTTP, port: 9999}
  - {name: tls, protocol: TLS, port: 9998, tls: {mode: Passthrough}}
  - {name: tcp, protocol: TCP, port: 9997}
  - {name: udp, protocol: UDP, port: 9996}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: 0-neighbour, namespace: 0-neighbour}
spec:
  parentRef: {name: 0-neighbour}
  listeners:
  - {name: https, protocol: HTTPS, port: 9995, hostname: "*.neighbour.test", tls: {certificateRefs: [{name: 0-neighbour}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: 0-neighbour, namespace: 0-neighbour}
spec:
  parentRefs: [{name: 0-neighbour}, {kind: ListenerSet, name: 0-neighbour}]
  hostnames: [www.neighbour.test]
  rules:
  - matches: [{path: {value: /secure}}]
    backendRefs: [{name: secure, port: 443}]
  - matches: [{path: {value: /outside}}]
    backendRefs: [{group: gateway.networking.x-k8s.io, kind: XBackend, name: 0-neighbour}]
  - backendRefs: [{name: web, port: 80}, {name: web, namespace: 0-neighbour-2, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: 0-neighbour, namespace: 0-neighbour}
spec:
  parentRefs: [{name: 0-neighbour}]
  hostnames: [rpc.neighbour.test]
  rules: [{backendRefs: [{name: web, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: 0-neighbour, namespace: 0-neighbour}
spec: {parentRefs: [{name: 0-neighbour}], hostnames: [www.neighbour.test], rules: [{backendRefs: [{name: secure, port: 443}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: 0-neighbour, namespace: 0-neighbour}
spec: {parentRefs: [{name: 0-neighbour}], rules: [{backendRefs: [{name: web, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: UDPRoute
metadata: {name: 0-neighbour, namespace: 0-neighbour}
spec: {parentRefs: [{name: 0-neighbour}], rules: [{backendRefs: [{name: dns, port: 53}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: 0-neighbour, namespace: 0-neighbour-2}
spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: 0-neighbour}], to: [{group: "", kind: Service}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: 0-neighbour, namespace: 0-neighbour}
spec: {targetRefs: [{group: "", kind: Service, name: secure}], validation: {hostname: secure.neighbour.test, caCertificateRefs: [{group: "", kind: ConfigMap, name: 0-neighbour}]}}
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackendTrafficPolicy
metadata: {name: 0-neighbour, namespace: 0-neighbour}
spec: {targetRefs: [{group: "", kind: Service, name: web}], retryConstraint: {budget: {percent: 7}}}
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackend
metadata: {name: 0-neighbour, namespace: 0-neighbour}
spec: {type: ExternalHostname, port: {port: 443}, externalHostname: {hostname: outside.neighbour.test}, tls: {mode: ServerOnly}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: 0-neighbour, annotations: {fairlead.io/load-balancing: random}}, spec: {ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: secure, namespace: 0-neighbour}, spec: {ports: [{port: 443}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: dns, namespace: 0-neighbour}, spec: {ports: [{port: 53, protocol: UDP}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: 0-neighbour-2}, spec: {ports: [{port: 80}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web, namespace: 0-neighbour, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.9.9.9]}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: 0-neighbour, namespace: 0-neighbour}
spec:
  ingressClassName: 0-neighbour
  tls: [{hosts: [app.neighbour.test], secretName: 0-neighbour}]
  rules:
  - {host: app.neighbour.test, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}
`

// neighbourPorts are where Ingresses are served, so that no Gateway can be there before.
const (
	neighbourHTTP  = 9994
	neighbourHTTPS = 9993
)

// readNeighbours are the neighbours, read once. Nobody changes them.
var readNeighbours sync.Map

// snapshot is nobody but the neighbours.
func (n neighbour) snapshot(tb testing.TB) *object.Snapshot {
	in, ok := readNeighbours.Load(n)
	if !ok {
		in, _ = readNeighbours.LoadOrStore(n, load(tb, strings.ReplaceAll(neighbours, string(firstNeighbour), string(n))))
	}
	return in.(*object.Snapshot)
}

// key is that of most of them.
func (n neighbour) key() object.Key { return object.Key{Namespace: string(n), Name: string(n)} }

// add adds the neighbours to a snapshot. Without ports of its own an Ingress has to live with what Gateways do to the ports that it shares with them, and is
// left out.
func (n neighbour) add(tb testing.TB, in *object.Snapshot, opt Options) {
	tb.Helper()
	more := *n.snapshot(tb)
	pair, meta := graphPair(), metav1.ObjectMeta{Name: string(n), Namespace: string(n)}
	more.Secrets = map[object.Key]*corev1.Secret{object.KeyOf(&meta): {ObjectMeta: meta, Type: corev1.SecretTypeTLS, Data: pair}}
	more.ConfigMaps = map[object.Key]*corev1.ConfigMap{object.KeyOf(&meta): {ObjectMeta: meta, Data: map[string]string{"ca.crt": string(pair[corev1.TLSCertKey])}}}
	if opt.HTTPPort != neighbourHTTP {
		more.Ingresses = nil
	}
	to := reflect.ValueOf(in).Elem()
	for field, v := range reflect.ValueOf(more).Fields() {
		if v.Kind() != reflect.Map || v.Len() == 0 {
			continue
		}
		m := to.FieldByName(field.Name)
		if m.IsNil() {
			m.Set(reflect.MakeMap(m.Type()))
		}
		for _, k := range v.MapKeys() {
			m.SetMapIndex(k, v.MapIndex(k))
		}
	}
	if opt.Cluster != nil {
		n.addService(in, opt)
	}
}

// addService makes the Service that the neighbours' Gateway wishes for: at ports that none of the others had.
func (n neighbour) addService(in *object.Snapshot, opt Options) {
	for _, s := range Compile(in, opt).Infrastructure.Services {
		if s.Gateway.Name == string(n) && len(s.Ports) > 0 {
			service := made(&s)
			service.Spec.ClusterIP, service.Status.LoadBalancer.Ingress = "10.96.0.1", []corev1.LoadBalancerIngress{{IP: "10.0.0.1"}}
			set(&in.Services, s.Name, service)
		}
	}
}

// check checks that whatever concerns the neighbours is as if nobody else were there, but for the addresses and ports where they are served.
func (n neighbour) check(t *testing.T, in *object.Snapshot, opt Options, res Result) {
	t.Helper()
	alone := &object.Snapshot{Taken: taken, Nodes: in.Nodes}
	if key := opt.PublishService; in.Services[key] != nil {
		set(&alone.Services, key, in.Services[key])
	}
	n.add(t, alone, opt)
	want := Compile(alone, opt)
	same(t, "what is served for the neighbours, or wrong with them", n.lines(want), n.lines(res))
	same(t, "the status of the neighbours", n.status(want.Status), n.status(res.Status))
	same(t, "the endpoints of the neighbours", n.endpoints(alone, opt, want), n.endpoints(in, opt, res))
	lonely := n.answers(want)
	same(t, "what the neighbours answer", lonely, n.answers(res))
	if len(lonely) == 0 {
		t.Error("the neighbours are not asked for anything")
	}
}

// same checks that something is as it was.
func same(t *testing.T, what string, want, have any) {
	t.Helper()
	if !reflect.DeepEqual(want, have) { // which is far quicker than a comparison that can say what differs
		t.Errorf("%s is not as it was:\n%s", what, gocmp.Diff(want, have))
	}
}

// lines are the lines of the table and of the certificates that come from a neighbour, without where they are bound, and their problems.
func (n neighbour) lines(res Result) (out []string) {
	for _, p := range res.Problems {
		if strings.HasPrefix(p.Object.Namespace, string(n)) || p.Object.Name == string(n) {
			out = append(out, p.String())
		}
	}
	for line := range strings.Lines(tableText(res)) {
		_, source, _ := strings.Cut(line, "  # ")
		if !strings.Contains(source, string(n)) {
			continue
		}
		words := strings.Fields(line)
		if words[0] == "certificate" {
			words[1] = ""
		}
		out = append(out, strings.Join(words, " "))
	}
	slices.Sort(out)
	return out
}

// status is what is said in the status of the neighbours, without addresses.
func (n neighbour) status(s Status) Status {
	out := Status{GatewayClasses: map[string]gatewayv1.GatewayClassStatus{string(n): s.GatewayClasses[string(n)]}}
	to := reflect.ValueOf(&out).Elem()
	key := n.key()
	for field, v := range reflect.ValueOf(s).Fields() {
		if m := to.FieldByName(field.Name); m.Kind() == reflect.Map && m.IsNil() {
			m.Set(reflect.MakeMap(m.Type()))
			m.SetMapIndex(reflect.ValueOf(key), v.MapIndex(reflect.ValueOf(key)))
		}
	}
	gateway := out.Gateways[key]
	gateway.Addresses = nil
	out.Gateways[key] = gateway
	if _, ok := out.Ingresses[key]; ok {
		out.Ingresses[key] = networkingv1.IngressStatus{}
	}
	return out
}

func (n neighbour) endpoints(in *object.Snapshot, opt Options, res Result) map[route.PoolKey][]route.Endpoint {
	var keys []route.PoolKey
	for _, p := range res.Table.Pools {
		keys = append(keys, p.Key)
	}
	all := Endpoints(in, opt, keys)
	maps.DeleteFunc(all, func(key route.PoolKey, _ []route.Endpoint) bool { return !strings.HasPrefix(key.Namespace, string(n)) })
	return all
}

// answers is who gets what is asked for at each port where a neighbour is.
func (n neighbour) answers(res Result) (out []string) {
	for _, p := range res.Table.Ports {
		for _, l := range p.Listeners {
			at := string(p.Protocol) + " " + l.Name
			switch {
			case l.Source.Namespace == string(n):
				out = append(out, askAll(p, at, "www.neighbour.test", "rpc.neighbour.test", "other.neighbour.test")...)
			case l.LastResort && slices.ContainsFunc(l.Hosts, func(h *route.Host) bool { return h.Name == "app.neighbour.test" }):
				out = append(out, askAll(p, at, "app.neighbour.test")...)
			}
		}
	}
	slices.Sort(out)
	return out
}

// askAll asks a port for everything that the neighbours have under some hosts: for connections, requests and calls of gRPC.
func askAll(p *route.Port, at string, hosts ...string) (out []string) {
	_, rule := p.Connection("")
	out = append(out, at+": "+ruleText(rule))
	grpc := http.Header{"Content-Type": {"application/grpc"}}
	for _, host := range hosts {
		_, rule := p.Connection(host)
		out = append(out, at+" "+host+": "+ruleText(rule))
		for _, path := range []string{"/", "/secure", "/outside", "/service/Method"} {
			for _, r := range []*route.Request{{Host: host, Path: path, Method: "GET"}, {Host: host, Path: path, Method: "POST", Header: grpc}} {
				_, rule, _ := p.Lookup(r)
				out = append(out, at+" "+r.Method+" "+host+path+": "+ruleText(rule))
			}
		}
	}
	return out
}
