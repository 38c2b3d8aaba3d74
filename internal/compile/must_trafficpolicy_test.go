package compile

import "testing"

// mustTraffic is an XBackendTrafficPolicy for Service shop/v1.
func mustTraffic(name, created, constraint string) string {
	return `
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackendTrafficPolicy
metadata: {name: ` + name + `, namespace: shop, generation: 4, creationTimestamp: "` + created + `"}
spec: {targetRefs: [{group: "", kind: Service, name: v1}], retryConstraint: {` + constraint + `}}
---`
}

// Each row is a sentence of the Go documentation of XBackendTrafficPolicy, or of policies in general; see TestMust.
func TestMustOfXBackendTrafficPolicies(t *testing.T) {
	const before, after = "2025-01-01T00:00:00Z", "2025-01-02T00:00:00Z"
	toV1 := mustGateway + mustRoute("r", toV1) + mustServices
	checkMust(t, []mustRow{
		{
			// BackendTrafficPolicySpec.RetryConstraint: "After the retry budget has been exceeded, additional retries to the backend MUST return a 503 response to the
			// client." How is for package backend to say, of pools whose budget is strict; by default of 20 percent, 10s, and 10 a second.
			name: "over the budget", in: toV1 + mustTraffic("p", before, ""),
			table:  []string{"pool shop/v1:80  http retry-budget=20%/10s+10/1s strict"},
			status: []string{"XBackendTrafficPolicy shop/p for infra/gw: Accepted"},
		},
		{
			// GEP-713: "the older policy by creation timestamp takes precedence".
			name: "the older", in: toV1 + mustTraffic("a", after, "budget: {percent: 1}") + mustTraffic("b", before, "budget: {percent: 2}"),
			table:  []string{"retry-budget=2%"},
			status: []string{"XBackendTrafficPolicy shop/a for infra/gw: Accepted=False Conflicted", "XBackendTrafficPolicy shop/b for infra/gw: Accepted"},
		},
	})
}
