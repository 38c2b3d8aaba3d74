package manifest

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-io/fairlead/internal/object"
)

// crdSchemas returns the schema of each version of a CRD of the Gateway API module. The experimental channel has every field that the Go types have.
func crdSchemas(t *testing.T, group, plural string) map[string]map[string]any {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api").Output()
	if err != nil {
		t.Skipf("the CRDs are in the module cache, and go list did not tell where that is: %v", err)
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "config", "crd", "experimental")
	text, err := os.ReadFile(filepath.Join(dir, group+"_"+plural+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var crd struct {
		Spec struct {
			Versions []struct {
				Name   string
				Served bool
				Schema struct{ OpenAPIV3Schema map[string]any }
			}
		}
	}
	if err := yaml.Unmarshal(text, &crd); err != nil {
		t.Fatal(err)
	}
	schemas := map[string]map[string]any{}
	for _, v := range crd.Spec.Versions {
		if v.Served && (group != groupOf(gatewayVersion) || !strings.Contains(v.Name, "alpha")) { // what is on its way out is not read
			schemas[v.Name] = v.Schema.OpenAPIV3Schema
		}
	}
	return schemas
}

func child(schema map[string]any, key string) map[string]any {
	c, _ := schema[key].(map[string]any)
	return c
}

// crdDefault does to a value what an API server does with the defaults of a schema: a field that is missing gets its default, whose own fields get theirs.
func crdDefault(schema map[string]any, value any) any {
	switch value := value.(type) {
	case map[string]any:
		for name := range child(schema, "properties") {
			property := child(child(schema, "properties"), name)
			if d, ok := property["default"]; ok && value[name] == nil {
				value[name] = clone(d)
			}
			if v, ok := value[name]; ok {
				value[name] = crdDefault(property, v)
			}
		}
	case []any:
		for i := range value {
			value[i] = crdDefault(child(schema, "items"), value[i])
		}
	}
	return value
}

func clone(value any) any {
	text, _ := json.Marshal(value)
	var out any
	_ = json.Unmarshal(text, &out)
	return out
}

// skeleton makes a value that has every object and list of a schema, and nothing else, so that every default there is has a place to go.
func skeleton(schema map[string]any) any {
	switch schema["type"] {
	case "object":
		out := map[string]any{}
		for name := range child(schema, "properties") {
			if v := skeleton(child(child(schema, "properties"), name)); v != nil {
				out[name] = v
			}
		}
		return out
	case "array":
		if v := skeleton(child(schema, "items")); v != nil {
			return []any{v}
		}
	}
	return nil
}

// connectionSpecs are specs of the routes that have nothing to match requests by.
var connectionSpecs = []string{
	`{}`, `{rules: []}`, `{rules: [{}]}`, `{rules: [{backendRefs: [{name: a}, {name: b, port: 80, weight: 0}, {name: c, weight: 5, group: g, kind: k, namespace: ns}]}]}`,
	`{parentRefs: [{name: a}, {name: b, group: "", kind: Service, namespace: c, sectionName: d, port: 80}], rules: [{name: x, backendRefs: [{name: a}]}]}`,
}

// The CRDs say what their defaults are. Both ways of reading them must come to the same object.
func TestDefaultsAreThoseOfTheCRDs(t *testing.T) {
	for _, tt := range []struct {
		plural, kind string
		texts        []string // specs, beside the skeleton
	}{
		{"gatewayclasses", kindGatewayClass, []string{`controllerName: x.io/y`}},
		{"referencegrants", kindReferenceGrant, []string{`{from: [{group: a, kind: b, namespace: c}], to: [{group: "", kind: Service}]}`}},
		{"gateways", kindGateway, []string{
			`{gatewayClassName: a, listeners: [{name: a, port: 80, protocol: HTTP}, {name: b, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: a}, {group: g, kind: k, name: b, namespace: c}]}}]}`,
			`{gatewayClassName: a, listeners: [{name: a, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: HTTPRoute}, {group: "", kind: X}]}}]}`,
			`{gatewayClassName: a, listeners: [{name: a, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {a: b}}}}}]}`,
			`{gatewayClassName: a, listeners: [{name: a, port: 80, protocol: TLS, allowedRoutes: {namespaces: {selector: {matchLabels: {a: b}}}}, tls: {mode: Passthrough}}]}`,
			`{gatewayClassName: a, addresses: [{value: 127.0.0.1}, {type: Hostname, value: a.b}], listeners: []}`,
			`{gatewayClassName: a, listeners: [], allowedListeners: {namespaces: {from: All}}}`,
			`{gatewayClassName: a, listeners: null, allowedListeners: {}}`,
		}},
		{"listenersets", kindListenerSet, []string{
			`{parentRef: {name: a}, listeners: [{name: a, port: 80, protocol: HTTP}, {name: b, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: a}, {group: g, kind: k, name: b, namespace: c}]}}]}`,
			`{parentRef: {group: "", kind: X, name: a, namespace: b}, listeners: [{name: a, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: HTTPRoute}], namespaces: {from: All}}}]}`,
		}},
		{"backendtlspolicies", kindBackendTLS, []string{
			`{targetRefs: [{group: "", kind: Service, name: a, sectionName: b}], validation: {hostname: a.b, caCertificateRefs: [{group: "", kind: ConfigMap, name: a}]}}`,
			`{targetRefs: [{group: "", kind: Service, name: a}], validation: {hostname: a.b, wellKnownCACertificates: System, subjectAltNames: [{type: URI, uri: "a://b"}]}}`,
		}},
		{"xbackendtrafficpolicies", kindTrafficPolicy, []string{
			`{targetRefs: [{group: "", kind: Service, name: a}]}`, `{targetRefs: [], retryConstraint: {}}`, `{targetRefs: [], retryConstraint: {budget: {}}}`,
			`{targetRefs: [], retryConstraint: {budget: {percent: 0}, minRetryRate: {}}}`, `{targetRefs: [], retryConstraint: {budget: {interval: 5s}, minRetryRate: {count: 3}}}`,
			`{targetRefs: [], sessionPersistence: {}}`, `{targetRefs: [], sessionPersistence: {cookieConfig: {}}}`,
		}},
		{"httproutes", kindHTTPRoute, []string{
			`{}`, `{rules: []}`, `{rules: [{}]}`, `{rules: null}`, `{rules: [{matches: null}]}`, `{rules: [{matches: []}]}`,
			`{rules: [{matches: [{}]}]}`, `{rules: [{matches: [{path: {}}]}]}`, `{rules: [{matches: [{path: {value: /a}}]}]}`, `{rules: [{matches: [{path: {type: Exact}}]}]}`,
			`{rules: [{matches: [{method: GET, headers: [{name: a, value: b}, {type: RegularExpression, name: a, value: b}], queryParams: [{name: a, value: b}]}]}]}`,
			`{rules: [{backendRefs: [{name: a}, {name: b, port: 80, weight: 0}, {name: c, weight: 5, group: g, kind: k, namespace: ns}]}]}`,
			`{rules: [{backendRefs: [{name: a, filters: [{type: RequestRedirect, requestRedirect: {}}, {type: RequestMirror, requestMirror: {backendRef: {name: b}, fraction: {numerator: 1}}}]}]}]}`,
			`{rules: [{filters: [{type: RequestRedirect, requestRedirect: {statusCode: 301}}, {type: CORS, cors: {}}, {type: ExternalAuth, externalAuth: {protocol: GRPC, backendRef: {name: a}}}]}]}`,
			`{rules: [{sessionPersistence: {}}, {sessionPersistence: {type: Header}}, {sessionPersistence: {cookieConfig: {lifetimeType: Permanent}}}]}`,
			`{parentRefs: [{name: a}, {name: b, group: "", kind: Service, namespace: c, sectionName: d, port: 80}], hostnames: [a.b]}`,
		}},
		{"tlsroutes", kindTLSRoute, append([]string{`{hostnames: [a.b, "*.c.d"]}`}, connectionSpecs...)},
		{"tcproutes", kindTCPRoute, connectionSpecs},
		{"udproutes", kindUDPRoute, connectionSpecs},
		{"xbackends", kindXBackend, []string{
			`{type: ExternalHostname, port: {port: 443}, externalHostname: {hostname: a.b}}`,
			`{type: ExternalHostname, port: {port: 443}, externalHostname: {hostname: a.b}, tls: {mode: ServerOnly}}`,
			`{type: ExternalHostname, port: {port: 443}, externalHostname: {hostname: a.b}, tls: {mode: ClientAndServer, clientCertificateRef: {name: a}}}`,
		}},
	} {
		t.Run(tt.kind, func(t *testing.T) {
			schemas := crdSchemas(t, groupOf(kindOf(tt.kind).versions[0]), tt.plural)
			for _, name := range kindOf(tt.kind).versions {
				_, version, _ := strings.Cut(name, "/")
				schema, served := schemas[version]
				if !served {
					t.Fatalf("%s is not served", name)
				}
				spec := child(child(schema, "properties"), "spec")
				values := []any{skeleton(spec)}
				for _, text := range tt.texts {
					var v any
					if err := yaml.Unmarshal([]byte(text), &v); err != nil {
						t.Fatal(err)
					}
					values = append(values, v)
				}
				for _, v := range values {
					compareDefaults(t, tt.kind, name, spec, v)
				}
			}
		})
	}
}

func compareDefaults(t *testing.T, kind, version string, schema map[string]any, spec any) {
	t.Helper()
	text, err := json.Marshal(map[string]any{
		"apiVersion": version, "kind": kind, "metadata": map[string]any{"name": "x", "namespace": "default", "generation": 1}, "spec": spec,
	})
	if err != nil {
		t.Fatal(err)
	}
	snap, issues := Load(folderOf(map[string]string{"a.json": string(text)}), Options{})
	if len(issues) > 0 {
		t.Errorf("%s %s:\n%s\nissues: %q", kind, version, text, texts(issues))
		return
	}
	defaulted, err := json.Marshal(map[string]any{"spec": crdDefault(schema, clone(spec))})
	if err != nil {
		t.Fatal(err)
	}
	key := object.Key{Namespace: "default", Name: "x"}
	var got, want any
	switch kind {
	case kindGatewayClass:
		got, want = snap.GatewayClasses["x"].Spec, into[gatewayv1.GatewayClass](t, defaulted).Spec
	case kindGateway:
		got, want = snap.Gateways[key].Spec, into[gatewayv1.Gateway](t, defaulted).Spec
	case kindBackendTLS:
		got, want = snap.BackendTLSPolicies[key].Spec, into[gatewayv1.BackendTLSPolicy](t, defaulted).Spec
	case kindXBackend:
		got, want = snap.XBackends[key].Spec, into[gatewayx.XBackend](t, defaulted).Spec
	case kindListenerSet:
		got, want = snap.ListenerSets[key].Spec, into[gatewayv1.ListenerSet](t, defaulted).Spec
	case kindHTTPRoute:
		got, want = snap.HTTPRoutes[key].Spec, into[gatewayv1.HTTPRoute](t, defaulted).Spec
	case kindTLSRoute:
		got, want = snap.TLSRoutes[key].Spec, into[gatewayv1.TLSRoute](t, defaulted).Spec
	case kindTCPRoute:
		got, want = snap.TCPRoutes[key].Spec, into[gatewayv1.TCPRoute](t, defaulted).Spec
	case kindUDPRoute:
		got, want = snap.UDPRoutes[key].Spec, into[gatewayv1.UDPRoute](t, defaulted).Spec
	case kindReferenceGrant:
		got, want = snap.ReferenceGrants[key].Spec, into[gatewayv1.ReferenceGrant](t, defaulted).Spec
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s %s:\n%s\n(-CRD +got):\n%s", kind, version, text, diff)
	}
}

func into[T any](t *testing.T, text []byte) T {
	t.Helper()
	var out T
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// The defaults of the built-in kinds stand in the API server's code; here they are written down.
func TestDefaultsOfBuiltInKinds(t *testing.T) {
	for _, tt := range []struct {
		name, in, want string // want: the whole object
	}{
		{
			"a Service",
			"apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{port: 80}, {name: b, port: 81, targetPort: web, protocol: UDP}, {name: c, port: 82, targetPort: 8082}]}",
			`{apiVersion: v1, kind: Service, metadata: {name: x, namespace: default, generation: 1}, spec: {type: ClusterIP, sessionAffinity: None, internalTrafficPolicy: Cluster,
			  ports: [{port: 80, protocol: TCP, targetPort: 80}, {name: b, port: 81, targetPort: web, protocol: UDP}, {name: c, port: 82, protocol: TCP, targetPort: 8082}]}}`,
		},
		{
			"a Service of type LoadBalancer with affinity, whose status is dropped",
			"apiVersion: v1\nkind: Service\nmetadata: {name: x, namespace: ns}\nspec: {type: LoadBalancer, sessionAffinity: ClientIP}\nstatus: {loadBalancer: {ingress: [{ip: 10.0.0.1}]}}",
			`{apiVersion: v1, kind: Service, metadata: {name: x, namespace: ns, generation: 1}, spec: {type: LoadBalancer, sessionAffinity: ClientIP,
			  sessionAffinityConfig: {clientIP: {timeoutSeconds: 10800}}, internalTrafficPolicy: Cluster, externalTrafficPolicy: Cluster, allocateLoadBalancerNodePorts: true}}`,
		},
		{
			"a Service of type ExternalName",
			"apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {type: ExternalName, externalName: a.b}",
			`{apiVersion: v1, kind: Service, metadata: {name: x, namespace: default, generation: 1}, spec: {type: ExternalName, externalName: a.b, sessionAffinity: None}}`,
		},
		{
			"a Secret, with plain text that wins",
			"apiVersion: v1\nkind: Secret\nmetadata: {name: x}\ndata:\n  a: YQ==\n  b: |\n    Yg==\nstringData: {a: plain, c: d}",
			`{apiVersion: v1, kind: Secret, metadata: {name: x, namespace: default, generation: 1}, type: Opaque, data: {a: cGxhaW4=, b: Yg==, c: ZA==}}`,
		},
		{
			"a Secret of a type",
			"apiVersion: v1\nkind: Secret\nmetadata: {name: x}\ntype: kubernetes.io/tls",
			`{apiVersion: v1, kind: Secret, metadata: {name: x, namespace: default, generation: 1}, type: kubernetes.io/tls}`,
		},
		{
			"a ConfigMap from a cluster",
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, generation: 7, uid: u, resourceVersion: '5', creationTimestamp: 2026-01-31T12:00:00Z, managedFields: [{manager: m, fieldsV1: {'f:data': {}}}]}",
			`{apiVersion: v1, kind: ConfigMap, metadata: {name: x, namespace: default, generation: 7, uid: u, resourceVersion: '5', creationTimestamp: 2026-01-31T12:00:00Z}}`,
		},
		{
			"an Ingress stays as it is",
			"apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: x}\nspec: {rules: [{http: {paths: [{backend: {service: {name: a, port: {name: b}}}}]}}]}",
			`{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: x, namespace: default, generation: 1}, spec: {rules: [{http: {paths: [{backend: {service: {name: a, port: {name: b}}}}]}}]}}`,
		},
		{
			"an IngressClass has no namespace",
			"apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: x, namespace: ns}\nspec: {controller: a.b/c}",
			`{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: x, generation: 1}, spec: {controller: a.b/c}}`,
		},
		{
			"a Namespace",
			"apiVersion: v1\nkind: Namespace\nmetadata: {name: x, labels: {a: b}}",
			`{apiVersion: v1, kind: Namespace, metadata: {name: x, generation: 1, labels: {a: b, kubernetes.io/metadata.name: x}}}`,
		},
		{
			"an EndpointSlice",
			"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: x, labels: {kubernetes.io/service-name: s}}\naddressType: IPv4\nendpoints: [{addresses: [127.0.0.1]}]\nports: [{port: 80}]",
			`{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: x, namespace: default, generation: 1, labels: {kubernetes.io/service-name: s}},
			  addressType: IPv4, endpoints: [{addresses: [127.0.0.1]}], ports: [{name: '', port: 80, protocol: TCP}]}`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			doc := chunk{text: []byte(tt.in)}.read()
			if len(doc.issues) > 0 || len(doc.objects) != 1 {
				t.Fatalf("objects %d, issues %q", len(doc.objects), texts(doc.issues))
			}
			want := kindOf(doc.objects[0].ref.Kind).make()
			if err := yaml.UnmarshalStrict([]byte(tt.want), want); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, doc.objects[0].object); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestCreationTimestampIsThatOfTheFile(t *testing.T) {
	snap, _ := loadText("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\n  creationTimestamp: 2026-01-31T12:00:00Z\n---\n" + "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: z\n  creationTimestamp: null\n")
	if got := snap.ConfigMaps[object.Key{Namespace: "default", Name: "x"}].CreationTimestamp.UTC().Format("2006-01-02T15:04"); got != "2026-01-31T12:00" {
		t.Errorf("creationTimestamp = %s", got)
	}
	if z := snap.ConfigMaps[object.Key{Namespace: "default", Name: "z"}]; !z.CreationTimestamp.IsZero() {
		t.Errorf("creationTimestamp = %v, want none", z.CreationTimestamp)
	}
}

func TestMergedKeysGiveWayToOwnKeys(t *testing.T) {
	snap, issues := loadText("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\n  labels: &l\n    app: x\n    tier: web\n  annotations:\n    tier: db\n    <<: *l\n    zone: a\n")
	if len(issues) > 0 {
		t.Fatalf("issues: %q", texts(issues))
	}
	want := map[string]string{"app": "x", "tier": "db", "zone": "a"}
	if diff := cmp.Diff(want, snap.ConfigMaps[object.Key{Namespace: "default", Name: "x"}].Annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
}

func TestSlicesBelongToTheirServices(t *testing.T) {
	slice := func(namespace, name, service string) string {
		return "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {namespace: " + namespace + ", name: " + name + ", labels: {kubernetes.io/service-name: " + service + "}}\naddressType: IPv4\n---\n"
	}
	snap, issues := loadText(slice("ns", "c", "web") + slice("ns", "a", "web") + slice("ns", "b", "db") + slice("m", "a", "web"))
	if len(issues) > 0 {
		t.Fatalf("issues: %q", texts(issues))
	}
	got := map[object.Key][]string{}
	for key, list := range snap.EndpointSlices {
		for _, s := range list {
			got[key] = append(got[key], s.Name)
		}
	}
	want := map[object.Key][]string{{Namespace: "ns", Name: "web"}: {"a", "c"}, {Namespace: "ns", Name: "db"}: {"b"}, {Namespace: "m", Name: "web"}: {"a"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

var (
	_ metav1.Object = (*corev1.Service)(nil)
	_ metav1.Object = (*discoveryv1.EndpointSlice)(nil)
)
