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
			// GRPCRouteSpec.Hostnames: "If a hostname is specified by both the Listener and GRPCRoute, there MUST be at least one intersecting hostname for the GRPCRoute to
			// be attached to the Listener." "If both the Listener and GRPCRoute have specified hostnames, and none match with the criteria above, then the GRPCRoute MUST
			// NOT be accepted by the implementation." "The implementation MUST raise an 'Accepted' Condition with a status of `False` in the corresponding
			// RouteParentStatus."
			name: "no intersection", in: mustListeners(`{name: http, protocol: HTTP, port: 80, hostname: a.example.com, allowedRoutes: {namespaces: {from: All}}}`) +
				mustRPC("r", `hostnames: [b.example.com], rules: [{`+v1+`}]`) + mustServices,
			status: []string{"GRPCRoute shop/r on infra/gw: ResolvedRefs; Accepted=False NoMatchingListenerHostname"},
		},
		{
			// GRPCRouteSpec.Hostnames: "If both the Listener and GRPCRoute have specified hostnames, any GRPCRoute hostnames that do not match the Listener hostname MUST be
			// ignored." "For example, if a Listener specified `*.example.com`, and the GRPCRoute specified `test.example.com` and `test.example.net`, `test.example.net`
			// MUST NOT be considered for a match."
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
			// GRPCRouteRule.Matches: "Proxy or Load Balancer routing configuration generated from GRPCRoutes MUST prioritize rules based on the following criteria,
			// continuing on ties." "Precedence MUST be given to the rule with the largest number of:" "Characters in a matching service. Characters in a matching method.
			// Header matches."
			name: "precedence", in: mustGateway + mustRPC("r", `rules: [{matches: [{method: {method: m}}], `+v1+`}, {matches: [{method: {service: s}}], `+v2+`},
  {matches: [{method: {service: s}, headers: [{name: h, value: "1"}]}], `+backend("v1", "v2")+`}]`) + mustServices,
			asks: []string{
				rpc("a.test", "/s/m", "=> infra/gw/http: shop/v2:80"), rpc("a.test", "/t/m", "=> infra/gw/http: shop/v1:80"),
				rpc("a.test", "/s/m", " -H 'H: 1' => infra/gw/http: 1x shop/v1:80, 1x shop/v2:80"),
			},
		},
		{
			// GRPCRouteRule.Matches: "If ties still exist across multiple Routes, matching precedence MUST be determined in order of the following criteria, continuing on
			// ties:" "If ties still exist within the Route that has been given precedence, matching precedence MUST be granted to the first matching rule meeting the above
			// criteria." "The Route appearing first in alphabetical order"
			name: "ties", in: mustGateway + mustRPC("b", `rules: [{`+v1+`}]`) + mustRPC("a", `rules: [{`+v2+`}, {`+v1+`}]`) + mustServices,
			asks: []string{rpc("a.test", "/s/m", "=> infra/gw/http: shop/v2:80")},
		},
		{
			// GRPCRouteMatch.Headers: "Multiple match values are ANDed together, meaning, a request MUST match all the specified headers to select the route."
			// GRPCHeaderMatch.Name: "If multiple entries specify equivalent header names, only the first entry with an equivalent name MUST be considered for a match."
			// "Subsequent entries with an equivalent header name MUST be ignored."
			name: "headers", in: mustGateway + mustRPC("r", `rules: [{matches: [{headers: [{name: a, value: "1"}, {name: b, value: "2"}, {name: A, value: "3"}]}], `+v1+`}]`) + mustServices,
			asks: []string{
				rpc("a.test", "/s/m", " -H 'A: 1' -H 'B: 2' => infra/gw/http: shop/v1:80"), rpc("a.test", "/s/m", " -H 'A: 1' => 404"), rpc("a.test", "/s/m", " -H 'B: 2' => 404"),
			},
		},
		{
			// GRPCMethodMatch, GRPCMethodMatch.Service, GRPCMethodMatch.Method: "At least one of Service and Method MUST be a non-empty string."
			name: "neither service nor method", in: mustGateway + mustRPC("r", `rules: [{matches: [{method: {}}], `+v1+`}]`) + mustServices,
			status: []string{"GRPCRoute shop/r on infra/gw: ResolvedRefs; Accepted=False UnsupportedValue"}, asks: []string{rpc("a.test", "/s/m", "=> 404")},
		},
		{
			// GRPCMethodMatchType: "Exact methods MUST be syntactically valid:" "Must not contain `/` character"
			name: "a slash", in: mustGateway + mustRPC("r", `rules: [{matches: [{method: {service: s/t}}], `+v1+`}]`) + mustServices,
			status: []string{"GRPCRoute shop/r on infra/gw: ResolvedRefs; Accepted=False UnsupportedValue"},
		},
		{
			// GRPCHeaderMatchType: "Note that new values may be added to this enum in future releases of the API, implementations MUST ensure that unknown values will not
			// cause a crash." "Unknown values here MUST result in the implementation setting the Accepted Condition for the Route to `status: False`, with a Reason of
			// `UnsupportedValue`." GRPCMethodMatchType and GRPCRouteFilterType say the same.
			name: "unknown values", in: mustGateway + mustRPC("a", `rules: [{matches: [{method: {service: s, type: Odd}}], `+v1+`}]`) +
				mustRPC("b", `rules: [{matches: [{headers: [{name: a, value: b, type: Odd}]}], `+v1+`}]`) + mustRPC("c", `rules: [{filters: [{type: Odd}], `+v1+`}]`) + mustServices,
			status: []string{
				"GRPCRoute shop/a on infra/gw: ResolvedRefs; Accepted=False UnsupportedValue", "GRPCRoute shop/b on infra/gw: ResolvedRefs; Accepted=False UnsupportedValue",
				"GRPCRoute shop/c on infra/gw: ResolvedRefs; Accepted=False UnsupportedValue",
			},
		},
		{
			// GRPCRouteRule.BackendRefs: "If *all* entries in BackendRefs are invalid, and there are also no filters specified in this route rule, *all* traffic which
			// matches this rule MUST receive an `UNAVAILABLE` status." GRPCBackendRef: "It refers to a resource that does not exist. In this case, the Reason must be set to
			// `BackendNotFound` and the Message of the Condition must explain which resource does not exist."
			name: "all invalid", in: mustGateway + mustRPC("r", `rules: [{`+backend("nobody")+`}]`),
			status: []string{"GRPCRoute shop/r on infra/gw: Accepted; ResolvedRefs=False BackendNotFound: Service shop/nobody does not exist"},
			asks:   []string{rpc("a.test", "/s/m", "=> infra/gw/http: 500 no-backend")},
		},
		{
			// GRPCRouteRule.BackendRefs: "When a GRPCBackendRef is invalid, `UNAVAILABLE` statuses MUST be returned for requests that would have otherwise been routed to an
			// invalid backend." "If multiple backends are specified, and some are invalid, the proportion of requests that would otherwise have been routed to an invalid
			// backend MUST receive an `UNAVAILABLE` status." "For example, if two backends are specified with equal weights, and one is invalid, 50 percent of traffic MUST
			// receive an `UNAVAILABLE` status." "It refers to an unknown or unsupported kind of resource. In this case, the Reason must be set to `InvalidKind` and Message
			// of the Condition must explain which kind of resource is unknown or unsupported."
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
			// GRPCRouteFilter.Type: "If a reference to a custom filter type cannot be resolved, the filter MUST NOT be skipped." "Instead, requests that would have been
			// processed by that filter MUST receive a HTTP error response."
			name: "custom filters", in: mustGateway + mustRPC("r", `rules: [{filters: [{type: ExtensionRef, extensionRef: {group: example.com, kind: Odd, name: x}}], `+v1+`}]`) + mustServices,
			asks: []string{rpc("a.test", "/s/m", "=> 500 route-invalid")},
		},
		{
			// GRPCRouteRule.Matches: "For a request to match against this rule, it MUST satisfy EITHER of the two conditions:"
			name: "one of two matches", in: mustGateway + mustRPC("r", `rules: [{matches: [{method: {service: s, method: m}, headers: [{name: a, value: "1"}]}, {method: {service: t}}], `+v1+`}]`) + mustServices,
			asks: []string{
				rpc("a.test", "/s/m", " -H 'A: 1' => infra/gw/http: shop/v1:80"), rpc("a.test", "/s/m", "=> 404"), rpc("a.test", "/t/x", "=> infra/gw/http: shop/v1:80"), rpc("a.test", "/u/x", "=> 404"),
			},
		},
		{
			// GRPCRouteRule.Matches: "If no matches are specified, the implementation MUST match every gRPC request." "Merging MUST not be done between GRPCRoutes and
			// HTTPRoutes." And nothing but gRPC: what an HTTPRoute of the same hostname has stays its own.
			name: "no matches", in: mustGateway + mustRPC("r", `rules: [{`+v1+`}]`) + mustRoute("h", toV2) + mustServices,
			asks: []string{rpc("a.test", "/s/m", "=> infra/gw/http: shop/v1:80  # GRPCRoute shop/r"), "GET http://a.test/s/m => infra/gw/http: shop/v2:80  # HTTPRoute shop/h"},
		},
		{
			// GRPCRouteRule.Filters: "ALL core filters MUST be supported by all implementations that support GRPCRoute." GRPCRouteFilter.Type: "All implementations
			// supporting GRPCRoute MUST support core filters." RequestHeaderModifier is the core filter.
			name: "core filters", in: mustGateway + mustRPC("r", `rules: [{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X, value: "1"}]}}], `+v1+`}]`) + mustServices,
			table: []string{"| set-request-header X=1 -> shop/v1:80"},
		},
		{
			// GRPCBackendRef.Filters: "Filters defined at this level MUST be executed if and only if the request is being forwarded to the backend defined here."
			name: "filters of a backend", in: mustGateway + mustServices +
				mustRPC("r", `rules: [{backendRefs: [{name: v1, port: 80, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X, value: "1"}]}}]}, {name: v2, port: 80}]}]`),
			table: []string{"-> shop/v1:80 (50%) [set-request-header X=1], shop/v2:80 (50%)"},
		},
		{
			// GRPCBackendRef: "Implementations MUST set the "ResolvedRefs" condition to "False" with the "UnsupportedProtocol" reason."
			name: "backend that speaks another protocol", in: mustGateway + strings.Replace(mustServices, "{port: 80}", "{port: 80, appProtocol: kubernetes.io/h4}", 1) + mustRPC("r", `rules: [{`+v1+`}]`),
			status: []string{"GRPCRoute shop/r on infra/gw: Accepted; ResolvedRefs=False UnsupportedProtocol"},
			asks:   []string{rpc("a.test", "/s/m", "=> infra/gw/http: 500 no-backend")},
		},
	})
}
