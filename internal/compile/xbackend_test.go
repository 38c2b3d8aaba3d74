package compile

import (
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// mustXBackend is an XBackend shop/x with the rest of its spec, and mustToXBackend what leads there.
func mustXBackend(host, rest string) string {
	return `
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackend
metadata: {name: x, namespace: shop, uid: u}
spec: {type: ExternalHostname, port: {port: 443}, externalHostname: {hostname: ` + host + `}` + rest + `}
---`
}

var mustToXBackend = mustGateway + mustRoute("r", "rules: [{backendRefs: [{group: gateway.networking.x-k8s.io, kind: XBackend, name: x}]}]")

// A pool has what the operator says of those whose owners say nothing, as that of a Service has, and its endpoint is the name.
func TestXBackendHasTheDefaultsOfTheOperator(t *testing.T) {
	opt := Options{
		AllowExternalName: true, Balancing: route.Policy{Algorithm: route.LeastConnections},
		Care: route.Care{Limits: route.Limits{Requests: 7}}, Retry: &route.Retry{Attempts: 2, Backoff: time.Second},
	}
	in := load(t, mustToXBackend+mustXBackend("API.example.net", ""))
	res := Compile(in, opt)
	if len(res.Table.Pools) != 1 {
		t.Fatalf("the table is\n%s", res.Table)
	}
	p := res.Table.Pools[0]
	want := route.PoolKey{Kind: "XBackend", Namespace: "shop", Service: "x", Port: 443}
	if p.Key != want || p.Policy.Algorithm != route.LeastConnections || p.Care.Limits.Requests != 7 || p.Retry == nil || p.Retry.Attempts != 2 || p.Secret != "u" {
		t.Errorf("the pool is %+v", p)
	}
	got := Endpoints(in, opt, []route.PoolKey{want})[want]
	if diff := gocmp.Diff([]route.Endpoint{{Address: "api.example.net:443", DNS: true}}, got); diff != "" {
		t.Errorf("endpoints (-want +got):\n%s", diff)
	}
	opt.AllowExternalName = false
	if got := Endpoints(in, opt, []route.PoolKey{want})[want]; len(got) > 0 {
		t.Errorf("it has endpoints without leave: %v", got)
	}
}

// "Implementations that are aware of custom trust domains being used for Service FQDNs MUST also enforce that hostnames ending with those trust domains (e.g.
// .cluster.local) are not allowed." What is inside the cluster is for Services, and for ReferenceGrants, to open.
func TestXBackendIsOutsideOfTheCluster(t *testing.T) {
	for _, test := range []struct {
		host string
		ok   bool
	}{
		{"api.example.net", true},
		{"svc.example.net", true},
		{"corp.internal.example.net", true},
		{"xcluster.local", true},
		{"kubernetes.default.svc", false},
		{"svc", false},
		{"kubernetes.default.svc.cluster.local", false},
		{"a.cluster.LOCAL", false},
		{"web.shop.svc.corp.internal", false},
		{"10.0.0.1", false},
		{"\"::1\"", false},
		{"\"*.example.net\"", false},
		{"\"\"", false},
	} {
		in := load(t, mustToXBackend+mustXBackend(test.host, ""))
		opt := Options{AllowExternalName: true, Cluster: &ClusterOptions{ClusterDomain: "corp.internal"}}
		key := route.PoolKey{Kind: "XBackend", Namespace: "shop", Service: "x", Port: 443}
		status := Compile(in, opt).Status.XBackends[object.Key{Namespace: "shop", Name: "x"}]
		if n := len(Endpoints(in, opt, []route.PoolKey{key})[key]); n == 1 != test.ok {
			t.Errorf("%s has %d endpoints", test.host, n)
		}
		if len(status.Ancestors) != 1 || string(status.Ancestors[0].Conditions[0].Status) != map[bool]string{true: "True", false: "False"}[test.ok] {
			t.Errorf("%s: the status is %+v", test.host, status)
		}
	}
}

// A BackendTLSPolicy about a Service is not about the XBackend of its name, nor the other way round.
func TestXBackendIsNoService(t *testing.T) {
	in := load(t, strings.ReplaceAll(mustToXBackend, "name: x}", "name: v1}")+strings.ReplaceAll(mustXBackend("api.example.net", ""), "name: x", "name: v1")+mustServices+
		mustPolicy("p", "2025-01-01T00:00:00Z", "wellKnownCACertificates: System, hostname: v1.test"))
	res := Compile(in, Options{AllowExternalName: true})
	if text := res.Table.String(); !strings.Contains(text, "pool XBackend/shop/v1:443  http  #") {
		t.Errorf("the table is\n%s", text)
	}
	if len(res.Status.BackendTLSPolicies) > 0 {
		t.Errorf("the policy has the status %+v", res.Status.BackendTLSPolicies)
	}
}

// An XBackend that nobody of ours refers to is not ours to judge.
func TestXBackendOfOthersIsLeftAlone(t *testing.T) {
	res := Compile(load(t, mustGateway+mustServices+mustXBackend("10.0.0.1", ", protocol: MCP")), Options{})
	if len(res.Status.XBackends) > 0 || slices.ContainsFunc(res.Problems, func(p Problem) bool { return p.Object.Kind == xbackendKind }) {
		t.Errorf("%s%v", res.Status, res.Problems)
	}
}
