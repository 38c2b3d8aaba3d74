package compile

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fairlead-io/fairlead/internal/object"
)

// What a policy trusts is read anew in each picture: what follows from a ConfigMap comes and goes with it, for the policy as for the requests.
func TestPolicyFollowsItsConfigMap(t *testing.T) {
	const system = `caCertificateRefs: [{group: "", kind: ConfigMap, name: ca}], hostname: v1.test`
	objects := mustGateway + mustRoute("r", toV1) + mustServices + mustPolicy("p", "2025-01-01T00:00:00Z", system)
	configMap := func(data string) string {
		return "\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: ca, namespace: shop}\ndata:\n" + data
	}
	authority := "  ca.crt: |\n    " + strings.ReplaceAll(strings.TrimSpace(authorityOfATest(t)), "\n", "\n    ")
	accepted, refused := "BackendTLSPolicy shop/p for infra/gw: Accepted ResolvedRefs\n", "BackendTLSPolicy shop/p for infra/gw: Accepted=False NoValidCACertificate"
	served, closed := "infra/gw/http: shop/v1:80", "502 backend-connect-failed"
	for _, step := range []struct{ name, configMap, status, answer string }{
		{"not there yet", "", refused, closed},
		{"created", configMap(authority), accepted, served},
		{"emptied", configMap("  ca.crt: ''"), refused, closed},
		{"without the key", configMap("  other: x"), refused, closed},
		{"restored", configMap(authority), accepted, served},
		{"deleted", "", refused, closed},
	} {
		t.Run(step.name, func(t *testing.T) {
			res := Compile(load(t, objects+step.configMap), Options{})
			if status := res.Status.String(); !strings.Contains(status, step.status) {
				t.Errorf("the status has no %q:\n%s", step.status, status)
			}
			if got := answer(t, res.Table, Options{}, "GET http://a.example.com/"); !strings.HasPrefix(got, step.answer) {
				t.Errorf("got %s, want %s", got, step.answer)
			}
		})
	}
}

// authorityOfATest is a certificate in PEM, from a golden directory.
func authorityOfATest(t *testing.T) string {
	t.Helper()
	in := load(t, readFile(t, "testdata/a-backend-tls-policy-says-who-the-endpoints-must-be/in.yaml"))
	text := in.ConfigMaps[object.Key{Namespace: "shop", Name: "ca"}].Data["ca.crt"]
	if text == "" {
		t.Fatal("the directory has no ConfigMap shop/ca")
	}
	return text
}

// The status of a policy has room for sixteen Gateways. For the others it is in force all the same, and its author is told.
func TestPolicyHasSixteenAncestorsAtMost(t *testing.T) {
	var objects strings.Builder
	objects.WriteString(mustServices + mustPolicy("p", "2025-01-01T00:00:00Z", "wellKnownCACertificates: System, hostname: v1.test"))
	for i := range maxAncestors + 1 {
		name := fmt.Sprintf("gw-%02d", i)
		listener := fmt.Sprintf("{name: http, protocol: HTTP, port: %d, allowedRoutes: {namespaces: {from: All}}}", 8000+i)
		objects.WriteString(strings.ReplaceAll(mustListeners(listener), "name: gw", "name: "+name))
		objects.WriteString(mustRouteOn("r-"+name, "{name: "+name+", namespace: infra}", toV1))
	}
	res := Compile(load(t, objects.String()), Options{})
	ancestors := res.Status.BackendTLSPolicies[object.Key{Namespace: "shop", Name: "p"}].Ancestors
	if len(ancestors) != maxAncestors {
		t.Errorf("the status has %d ancestors, want %d", len(ancestors), maxAncestors)
	}
	if got := string(ancestors[0].AncestorRef.Name) + " " + string(ancestors[len(ancestors)-1].AncestorRef.Name); got != "gw-00 gw-15" {
		t.Errorf("the first and the last are %s: they must not take turns", got)
	}
	if text := statusText(res); !strings.Contains(text, "warning: BackendTLSPolicy shop/p status.ancestors: 17 Gateways lead to what the policy is about; the status can hold 16 (TooMany)") {
		t.Errorf("nobody is told:\n%s", text)
	}
	if table := res.Table.String(); !strings.Contains(table, "pool shop/v1:80  https verify v1.test") {
		t.Errorf("the policy is not in force:\n%s", table)
	}
}
