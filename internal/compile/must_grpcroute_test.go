package compile

import (
	"strings"
	"testing"
)

// mustRPC is a GRPCRoute on infra/gw; spec is what it has beside parentRefs.
func mustRPC(name, spec string) string {
	return strings.Replace(mustRoute(name, spec), "kind: HTTPRoute", "kind: GRPCRoute", 1)
}

// rpc is a request of gRPC, and the beginning of its answer.
func rpc(host, path, rest string) string {
	headers, answer, _ := strings.Cut(rest, "=>")
	return "POST http://" + host + path + " -H 'Content-Type: application/grpc'" + strings.TrimRight(headers, " ") + " =>" + answer
}

// Each row is a sentence of the Go documentation of GRPCRoute; see TestMust.
func TestMustOfGRPCRoutes(t *testing.T) {
	backend := func(names ...string) string {
		return "backendRefs: [{name: " + strings.Join(names, ", port: 80}, {name: ") + ", port: 80}]"
	}
	v1, v2 := backend("v1"), backend("v2")
	checkMust(t, []mustRow{
		{
			// GRPCRouteSpec.Hostnames: "The wildcard label MUST appear by itself as the first label." What is no hostname is ignored.
			name: "wildcards", in: mustGateway + mustRPC("r", `hostnames: ["a.*.example.com", b.example.com], rules: [{`+v1+`}]`) + mustServices,
			asks: []string{rpc("b.example.com", "/s/m", "=> infra/gw/http: shop/v1:80"), rpc("a.x.example.com", "/s/m", "=> 404")},
		},
		{
			// "If a hostname is specified by both the Listener and GRPCRoute, there MUST be at least one intersecting hostname for the GRPCRoute to be attached to the
			// Listener."
			name: "no intersection", in: mustListeners(`{name: http, protocol: HTTP, port: 80, hostname: a.example.com, allowedRoutes: {namespaces: {from: All}}}`) +
				mustRPC("r", `hostnames: [b.example.com], rules: [{`+v1+`}]`) + mustServices,
			status: []string{"GRPCRoute shop/r on infra/gw: ResolvedRefs; Accepted=False NoMatchingListenerHostname"},
		},
		{
			// "If both the Listener and GRPCRoute have specified hostnames, any GRPCRoute hostnames that do not match the Listener hostname MUST be ignored."
			name: "hostnames that do not match", in: mustListeners(`{name: http, protocol: HTTP, port: 80, hostname: "*.example.com", allowedRoutes: {namespaces: {from: All}}}`) +
				mustRPC("r", `hostnames: [b.example.com, b.test], rules: [{`+v1+`}]`) + mustServices,
			asks: []string{rpc("b.example.com", "/s/m", "=> infra/gw/http: shop/v1:80"), rpc("b.test", "/s/m", "=> 404")},
		},
		{
			// GRPCRouteSpec.Hostnames: "precedence MUST be given to rules from the GRPCRoute with the largest number of: Characters in a matching non-wildcard hostname.
			// Characters in a matching hostname."
			name: "longer hostnames", in: mustGateway + mustRPC("a", `hostnames: ["*.com"], rules: [{`+v1+`}]`) + mustRPC("b", `hostnames: ["*.example.com"], rules: [{`+v2+`}]`) +
				mustRPC("c", `hostnames: [x.example.com], rules: [{`+backend("v1", "v2")+`}]`) + mustServices,
			asks: []string{
				rpc("y.test.com", "/s/m", "=> infra/gw/http: shop/v1:80"), rpc("y.example.com", "/s/m", "=> infra/gw/http: shop/v2:80"), rpc("x.example.com", "/s/m", "=> infra/gw/http: 1x shop/v1:80, 1x shop/v2:80"),
			},
		},
		{
			// GRPCRouteRule.Matches: "Precedence MUST be given to the rule with the largest number of: Characters in a matching service. Characters in a matching method.
			// Header matches."
			name: "precedence", in: mustGateway + mustRPC("r", `rules: [{matches: [{method: {method: m}}], `+v1+`}, {matches: [{method: {service: s}}], `+v2+`},
  {matches: [{method: {service: s}, headers: [{name: h, value: "1"}]}], `+backend("v1", "v2")+`}]`) + mustServices,
			asks: []string{
				rpc("a.test", "/s/m", "=> infra/gw/http: shop/v2:80"), rpc("a.test", "/t/m", "=> infra/gw/http: shop/v1:80"),
				rpc("a.test", "/s/m", " -H 'H: 1' => infra/gw/http: 1x shop/v1:80, 1x shop/v2:80"),
			},
		},
		{
			// "If ties still exist across multiple Routes, matching precedence MUST be determined in order of [...] The Route appearing first in alphabetical order"
			// "matching precedence MUST be granted to the first matching rule meeting the above criteria."
			name: "ties", in: mustGateway + mustRPC("b", `rules: [{`+v1+`}]`) + mustRPC("a", `rules: [{`+v2+`}, {`+v1+`}]`) + mustServices,
			asks: []string{rpc("a.test", "/s/m", "=> infra/gw/http: shop/v2:80")},
		},
		{
			// GRPCRouteMatch.Headers: "a request MUST match all the specified headers to select the route." GRPCHeaderMatch.Name: "only the first entry with an equivalent name
			// MUST be considered for a match. Subsequent entries with an equivalent header name MUST be ignored."
			name: "headers", in: mustGateway + mustRPC("r", `rules: [{matches: [{headers: [{name: a, value: "1"}, {name: b, value: "2"}, {name: A, value: "3"}]}], `+v1+`}]`) + mustServices,
			asks: []string{
				rpc("a.test", "/s/m", " -H 'A: 1' -H 'B: 2' => infra/gw/http: shop/v1:80"), rpc("a.test", "/s/m", " -H 'A: 1' => 404"), rpc("a.test", "/s/m", " -H 'B: 2' => 404"),
			},
		},
		{
			// GRPCMethodMatch: "At least one of Service and Method MUST be a non-empty string."
			name: "neither service nor method", in: mustGateway + mustRPC("r", `rules: [{matches: [{method: {}}], `+v1+`}]`) + mustServices,
			status: []string{"GRPCRoute shop/r on infra/gw: ResolvedRefs; Accepted=False UnsupportedValue"}, asks: []string{rpc("a.test", "/s/m", "=> 404")},
		},
		{
			// GRPCMethodMatchType: "Exact methods MUST be syntactically valid: Must not contain `/` character"
			name: "a slash", in: mustGateway + mustRPC("r", `rules: [{matches: [{method: {service: s/t}}], `+v1+`}]`) + mustServices,
			status: []string{"GRPCRoute shop/r on infra/gw: ResolvedRefs; Accepted=False UnsupportedValue"},
		},
		{
			// GRPCMethodMatchType, GRPCHeaderMatchType, GRPCRouteFilterType: "implementations MUST ensure that unknown values will not cause a crash. Unknown values here MUST
			// result in the implementation setting the Accepted Condition for the Route to `status: False`, with a Reason of `UnsupportedValue`."
			name: "unknown values", in: mustGateway + mustRPC("a", `rules: [{matches: [{method: {service: s, type: Odd}}], `+v1+`}]`) +
				mustRPC("b", `rules: [{matches: [{headers: [{name: a, value: b, type: Odd}]}], `+v1+`}]`) + mustRPC("c", `rules: [{filters: [{type: Odd}], `+v1+`}]`) + mustServices,
			status: []string{
				"GRPCRoute shop/a on infra/gw: ResolvedRefs; Accepted=False UnsupportedValue", "GRPCRoute shop/b on infra/gw: ResolvedRefs; Accepted=False UnsupportedValue",
				"GRPCRoute shop/c on infra/gw: ResolvedRefs; Accepted=False UnsupportedValue",
			},
		},
		{
			// GRPCRouteRule.BackendRefs: "If *all* entries in BackendRefs are invalid, and there are also no filters specified in this route rule, *all* traffic which matches
			// this rule MUST receive an `UNAVAILABLE` status." GRPCBackendRef: "It refers to a resource that does not exist. In this case, the Reason MUST be set to
			// `BackendNotFound` and the Message of the Condition MUST explain which resource does not exist."
			name: "all invalid", in: mustGateway + mustRPC("r", `rules: [{`+backend("nobody")+`}]`),
			status: []string{"GRPCRoute shop/r on infra/gw: Accepted; ResolvedRefs=False BackendNotFound: Service shop/nobody does not exist"},
			asks:   []string{rpc("a.test", "/s/m", "=> infra/gw/http: 500 no-backend")},
		},
		{
			// "When a GRPCBackendRef is invalid, `UNAVAILABLE` statuses MUST be returned for requests that would have otherwise been routed to an invalid backend."
			// "It refers to an unknown or unsupported kind of resource. In this case, the Reason MUST be set to `InvalidKind` and Message of the Condition MUST explain which
			// kind of resource is unknown or unsupported."
			name: "half invalid", in: mustGateway + mustRPC("r", `rules: [{backendRefs: [{name: v1, port: 80}, {kind: Secret, name: v2}]}]`) + mustServices,
			status: []string{"GRPCRoute shop/r on infra/gw: Accepted; ResolvedRefs=False InvalidKind", "of the kind Secret"},
			asks:   []string{rpc("a.test", "/s/m", "=> infra/gw/http: 1x shop/v1:80, 1x 500 no-backend")},
		},
		{
			// "It refers a resource in another namespace when the reference has not been explicitly allowed by a ReferenceGrant. In this case, the Reason MUST be set to
			// `RefNotPermitted` and the Message of the Condition MUST explain which cross-namespace reference is not allowed." A grant for HTTPRoutes is none for GRPCRoutes.
			name: "no grant", in: mustGateway + mustRPC("r", `rules: [{backendRefs: [{name: v1, namespace: bank, port: 80}]}]`) + strings.ReplaceAll(mustServices, "shop", "bank") + `
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: g, namespace: bank}
spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}], to: [{group: "", kind: Service}]}`,
			status: []string{"ResolvedRefs=False RefNotPermitted: no ReferenceGrant in namespace bank lets GRPCRoutes of namespace shop refer to Service bank/v1"},
		},
		{
			// GRPCRouteFilter.Type: "If a reference to a custom filter type cannot be resolved, the filter MUST NOT be skipped. Instead, requests that would have been
			// processed by that filter MUST receive a HTTP error response."
			name: "custom filters", in: mustGateway + mustRPC("r", `rules: [{filters: [{type: ExtensionRef, extensionRef: {group: example.com, kind: Odd, name: x}}], `+v1+`}]`) + mustServices,
			asks: []string{rpc("a.test", "/s/m", "=> 500 route-invalid")},
		},
	})
}
