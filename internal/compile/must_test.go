package compile

import (
	"strings"
	"testing"
)

// The objects that the rows of TestMust are made of.
const (
	mustGateway = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: infra, generation: 3}
spec:
  gatewayClassName: fairlead
  listeners: [{name: http, protocol: HTTP, port: 80, allowedRoutes: {namespaces: {from: All}}}]
---`
	mustServices = `
apiVersion: v1
kind: Service
metadata: {name: v1, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: v2, namespace: shop}
spec: {ports: [{port: 80}]}
---`
)

// mustListeners is a Gateway with other listeners.
func mustListeners(listeners string) string {
	return strings.Replace(mustGateway, "[{name: http, protocol: HTTP, port: 80, allowedRoutes: {namespaces: {from: All}}}]", "["+listeners+"]", 1)
}

// mustRoute is a route on infra/gw; spec is what it has beside parentRefs.
func mustRoute(name, spec string) string {
	return mustRouteOn(name, "{name: gw, namespace: infra}", spec)
}

func mustRouteOn(name, parent, spec string) string {
	return `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: ` + name + `, namespace: shop, generation: 7}
spec: {parentRefs: [` + parent + `], ` + spec + `}
---`
}

// toV1 and toV2 send requests to a Service.
const (
	toV1 = `rules: [{backendRefs: [{name: v1, port: 80}]}]`
	toV2 = `rules: [{backendRefs: [{name: v2, port: 80}]}]`
)

// Each row is one sentence of the Go documentation of Gateway API v1 with MUST in it, or what is a rule without the word. status are lines that the status of
// the objects must contain, asks are requests and how the answer must begin.
func TestMust(t *testing.T) {
	checkMust(t, []mustRow{
		{
			// GatewayClass.Status: "Implementations MUST populate status on all GatewayClass resources which specify their controller name."
			name: "class status", in: `
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: one}
spec: {controllerName: fairlead.io/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: two}
spec: {controllerName: fairlead.io/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: foreign}
spec: {controllerName: example.com/gateway-controller}`,
			status: []string{"GatewayClass one: Accepted", "GatewayClass two: Accepted"},
			no:     []string{"GatewayClass foreign"},
		},
		{
			// GatewaySpec.Listeners: "Each Listener in a set of Listeners (for example, in a single Gateway) MUST be _distinct_, in that a traffic flow MUST be able to be
			// assigned to exactly one listener." "Practically, this means that each listener in a set MUST have a unique combination of Port, Protocol, and, if supported by
			// the protocol, Hostname." "When multiple listeners have the same value for the Protocol field, then each of the Listeners with matching Protocol values MUST
			// have different values for other fields." "The set of listeners that all share a protocol value MUST have _different_ values for _at least one_ of these fields
			// to be distinct:" "If a set of Listeners contains Listeners that are not distinct, then those Listeners are _Conflicted_, and the implementation MUST set the
			// "Conflicted" condition in the Listener Status to "True"." "The implementation MUST NOT pick one conflicting Listener as the winner." "ALL indistinct Listeners
			// must not be accepted for processing."
			name: "indistinct listeners",
			in: mustListeners(`{name: a, protocol: HTTP, port: 80, hostname: x.example.com, allowedRoutes: {namespaces: {from: All}}},
    {name: b, protocol: HTTP, port: 80, hostname: x.example.com, allowedRoutes: {namespaces: {from: All}}},
    {name: c, protocol: HTTP, port: 80, hostname: y.example.com, allowedRoutes: {namespaces: {from: All}}}`) + mustRoute("r", toV1) + mustServices,
			status: []string{
				"  listener a: ResolvedRefs routes=1 kinds=HTTPRoute,GRPCRoute; Accepted=False HostnameConflict",
				"  listener b: ResolvedRefs routes=1 kinds=HTTPRoute,GRPCRoute; Accepted=False HostnameConflict",
				"Conflicted=True HostnameConflict", "  listener c: Accepted Programmed",
			},
			asks: []string{"GET http://x.example.com/ => 404", "GET http://y.example.com/ => infra/gw/c: shop/v1:80"},
		},
		{
			// GatewaySpec.Listeners: "The implementation MUST set a "ListenersNotValid" condition on the Gateway Status when the Gateway contains Conflicted Listeners
			// whether or not they accept the Gateway."
			name:   "ListenersNotValid",
			in:     mustListeners(`{name: a, protocol: HTTP, port: 80}, {name: b, protocol: HTTP, port: 80}, {name: c, protocol: HTTP, port: 81}`),
			status: []string{"Gateway infra/gw: Programmed; Accepted=True ListenersNotValid: not valid: a, b; accepted: c"},
		},
		{
			// GatewaySpec.Listeners: "At least one distinct Listener MUST be present, or else the Gateway effectively contains _no_ Listeners, and must be rejected from
			// processing as a whole."
			name:   "no distinct listener",
			in:     mustListeners(`{name: a, protocol: HTTP, port: 80}, {name: b, protocol: HTTPS, port: 80, tls: {certificateRefs: [{name: x}]}}`),
			status: []string{"Gateway infra/gw: Accepted=False ListenersNotValid"},
		},
		{
			// GatewaySpec.Listeners: "When the Listeners are distinct based only on Hostname, inbound request hostnames MUST match from the most specific to least specific
			// Hostname values to choose the correct Listener and its associated set of Routes." "Exact matches MUST be processed before wildcard matches, and wildcard
			// matches MUST be processed before fallback (empty Hostname value) matches." "the higher the number of dots in the hostname to the right of the wildcard
			// character, the higher the precedence."
			name: "most specific listener",
			in: mustListeners(`{name: any, protocol: HTTP, port: 80, allowedRoutes: {namespaces: {from: All}}},
    {name: wide, protocol: HTTP, port: 80, hostname: "*.example.com", allowedRoutes: {namespaces: {from: All}}},
    {name: narrow, protocol: HTTP, port: 80, hostname: "*.foo.example.com", allowedRoutes: {namespaces: {from: All}}},
    {name: exact, protocol: HTTP, port: 80, hostname: "foo.example.com", allowedRoutes: {namespaces: {from: All}}}`) + mustRoute("r", toV1) + mustServices,
			asks: []string{
				"GET http://foo.example.com/ => infra/gw/exact", "GET http://bar.foo.example.com/ => infra/gw/narrow",
				"GET http://bar.example.com/ => infra/gw/wide", "GET http://example.com/ => infra/gw/any",
			},
		},
		{
			// GatewaySpec.Listeners: "If traffic to a Gateway does not match any Listener's hostname (or if the Listener does not specify a hostname and the request does
			// not match any attached Route), the request MUST be rejected." "HTTP returns a 404 status code"
			name: "no listener for the host",
			in: mustListeners(`{name: a, protocol: HTTP, port: 80, hostname: a.example.com, allowedRoutes: {namespaces: {from: All}}},
    {name: b, protocol: HTTP, port: 81, allowedRoutes: {namespaces: {from: All}}}`) + mustRoute("r", "hostnames: [a.example.com], "+toV1) + mustServices,
			asks: []string{"GET http://b.example.com/ => 404 no-route", "GET http://b.example.com:81/ => 404 no-route"},
		},
		{
			// GatewaySpec.Addresses: "If a value is set in the spec and the requested address is invalid or unavailable, the implementation MUST indicate this in an
			// associated entry in GatewayStatus.Conditions."
			name:   "unavailable address",
			in:     strings.Replace(mustGateway, "  listeners:", "  addresses: [{value: 192.0.2.1}]\n  listeners:", 1),
			status: []string{"Gateway infra/gw: Accepted; Programmed=False AddressNotUsable"},
		},
		{
			// GatewaySpecAddress.Value: "If an implementation does not support an empty value, they MUST set the "Programmed" condition in status to False with a reason of
			// "AddressNotAssigned"."
			name:   "empty address",
			in:     strings.Replace(mustGateway, "  listeners:", "  addresses: [{type: IPAddress}]\n  listeners:", 1),
			status: []string{"Gateway infra/gw: Accepted; Programmed=False AddressNotAssigned"},
		},
		{
			// Listener.Hostname: "When both listener and route specify hostnames, there MUST be an intersection between the values for a Route to be accepted."
			// RouteParentStatus.Conditions: "If the Route's ParentRef specifies an existing Gateway that supports Routes of this kind AND that Gateway's controller has
			// sufficient access, then that Gateway's controller MUST set the "Accepted" condition on the Route, to indicate whether the route has been accepted or rejected
			// by the Gateway, and why."
			name:   "hostname intersection",
			in:     mustListeners(`{name: a, protocol: HTTP, port: 80, hostname: a.example.com, allowedRoutes: {namespaces: {from: All}}}`) + mustRoute("r", "hostnames: [b.example.com], "+toV1) + mustServices,
			status: []string{"HTTPRoute shop/r on infra/gw: ResolvedRefs; Accepted=False NoMatchingListenerHostname"},
		},
		{
			// HTTPRouteSpec.Hostnames: "If both the Listener and HTTPRoute have specified hostnames, any HTTPRoute hostnames that do not match the Listener hostname MUST be
			// ignored."
			name: "ignored hostnames",
			in: mustListeners(`{name: a, protocol: HTTP, port: 80, hostname: "*.example.com", allowedRoutes: {namespaces: {from: All}}},
    {name: b, protocol: HTTP, port: 80, allowedRoutes: {kinds: [{kind: HTTPRoute}]}}`) + mustRoute("r", "hostnames: [test.example.com, test.example.net], "+toV1) + mustServices,
			status: []string{"HTTPRoute shop/r on infra/gw: Accepted ResolvedRefs"},
			asks:   []string{"GET http://test.example.com/ => infra/gw/a: shop/v1:80", "GET http://test.example.net/ => 404"},
		},
		{
			// HTTPRouteSpec.Hostnames: "Implementations MUST ignore any port value specified in the HTTP Host header while performing a match and (absent of any applicable
			// header modification configuration) MUST forward this header unmodified to the backend." What is forwarded is for proxy.TestTargetsAreForwardedAsTheyCame.
			name: "port in Host",
			in:   mustGateway + mustRoute("r", "hostnames: [a.example.com], "+toV1) + mustServices,
			asks: []string{"GET http://a.example.com:80/ => infra/gw/http: shop/v1:80"},
		},
		{
			// "precedence must be given to rules from the HTTPRoute with the largest number of: Characters in a matching non-wildcard hostname. Characters in a
			// matching hostname."
			name: "hostname precedence",
			in: mustGateway + mustRoute("a", `hostnames: ["*.com"], `+toV2) + mustRoute("b", `hostnames: ["*.example.com"], `+toV1) +
				mustRoute("c", `hostnames: [x.example.com], rules: [{matches: [{path: {value: /only}}], backendRefs: [{name: v1, port: 80}]}]`) + mustServices,
			asks: []string{
				"GET http://y.example.com/ => infra/gw/http: shop/v1:80  # HTTPRoute shop/b", "GET http://y.other.com/ => infra/gw/http: shop/v2:80",
				"GET http://x.example.com/only => infra/gw/http: shop/v1:80  # HTTPRoute shop/c", "GET http://x.example.com/ => infra/gw/http: shop/v1:80  # HTTPRoute shop/b",
			},
		},
		{
			// ProtocolType: "If an implementation does not support a specified protocol, it MUST set the "Accepted" condition to False for the affected Listener with a
			// reason of "UnsupportedProtocol"."
			name:   "unsupported protocol",
			in:     mustListeners(`{name: a, protocol: example.com/quic, port: 80}`),
			status: []string{"  listener a: ResolvedRefs routes=0 kinds=none; Accepted=False UnsupportedProtocol"},
		},
		{
			// ListenerTLSConfig.CertificateRefs: "If a ReferenceGrant does not allow this reference, the "ResolvedRefs" condition MUST be set to False for this listener
			// with the "RefNotPermitted" reason."
			name:   "certificate without grant",
			in:     mustListeners(`{name: a, protocol: HTTPS, port: 443, tls: {certificateRefs: [{name: x, namespace: vault}]}}`),
			status: []string{"ResolvedRefs=False RefNotPermitted"},
		},
		{
			// SecretObjectReference: "References to objects with invalid Group and Kind are not valid, and must be rejected by the implementation, with
			// appropriate Conditions set on the containing object."
			name:   "certificate of another kind",
			in:     mustListeners(`{name: a, protocol: HTTPS, port: 443, tls: {certificateRefs: [{group: example.com, kind: Cert, name: x}]}}`),
			status: []string{"ResolvedRefs=False InvalidCertificateRef: Cert.example.com x is not a Secret"},
		},
		{
			// AllowedRoutes.Kinds: "A RouteGroupKind MUST correspond to kinds of Routes that are compatible with the application protocol specified in the Listener's
			// Protocol field." "If an implementation does not support or recognize this resource type, it MUST set the "ResolvedRefs" condition to False for this Listener
			// with the "InvalidRouteKinds" reason." ListenerStatus.SupportedKinds: "This MUST represent the kinds supported by an implementation for that Listener
			// configuration." "If kinds are specified in Spec that are not supported, they MUST NOT appear in this list and an implementation MUST set the "ResolvedRefs"
			// condition to "False" with the "InvalidRouteKinds" reason." "If both valid and invalid Route kinds are specified, the implementation MUST reference the valid
			// Route kinds that have been specified."
			name: "route kinds",
			in: mustListeners(`{name: a, protocol: HTTP, port: 80, allowedRoutes: {kinds: [{kind: UDPRoute}, {kind: HTTPRoute}, {group: example.com, kind: Odd}]}},
    {name: b, protocol: TLS, port: 443, tls: {mode: Passthrough}}, {name: c, protocol: HTTP, port: 81, allowedRoutes: {kinds: [{kind: UDPRoute}]}}`),
			status: []string{
				"  listener a: Accepted Programmed routes=0 kinds=HTTPRoute; ResolvedRefs=False InvalidRouteKinds", "  listener b: Accepted Programmed ResolvedRefs routes=0 kinds=TLSRoute",
				"  listener c: Accepted Programmed routes=0 kinds=none; ResolvedRefs=False InvalidRouteKinds",
			},
		},
		{
			// ListenerStatus.AttachedRoutes: "Listener or Route status does not impact successful attachment, i.e. the AttachedRoutes field count MUST be set for Listeners,
			// even if the Accepted condition of an individual Listener is set to "False"." "Routes with any other value for the Accepted condition MUST NOT be included in
			// this count."
			name: "attached routes",
			in: mustListeners(`{name: a, protocol: HTTP, port: 80, hostname: "*", allowedRoutes: {namespaces: {from: All}}},
    {name: b, protocol: HTTP, port: 81, hostname: a.example.com, allowedRoutes: {namespaces: {from: All}}}`) +
				mustRoute("good", "hostnames: [a.example.com], "+toV1) + mustRoute("bad", "hostnames: [a.example.com], rules: [{filters: [{type: Unknown}]}]") + mustServices,
			status: []string{"  listener a: ResolvedRefs routes=1", "  listener b: Accepted Programmed ResolvedRefs routes=1"},
		},
		{
			// ListenerConditionOverlappingTLSConfig: "Controllers MUST detect the presence of overlapping hostnames and MAY detect the presence of overlapping
			// certificates." "This condition MUST be set on all Listeners with overlapping TLS config." "This is a negative polarity condition and MUST NOT be set when it
			// is False."
			name: "overlapping TLS",
			in: mustListeners(`{name: a, protocol: HTTPS, port: 443, hostname: foo.example.com, tls: {certificateRefs: [{name: x}]}},
    {name: b, protocol: HTTPS, port: 443, hostname: foo.example.org, tls: {certificateRefs: [{name: x}]}},
    {name: c, protocol: HTTPS, port: 443, hostname: "*.example.com", tls: {certificateRefs: [{name: x}]}}`),
			status: []string{
				"OverlappingTLSConfig=True OverlappingHostnames: its hostname overlaps with that of listener c", "that of listener a",
				"ResolvedRefs=False InvalidCertificateRef: Secret infra/x does not exist\n  listener c", // nothing more is said of b
			},
		},
		{
			// ParentReference.SectionName, ParentReference.Port: "If 1 of 2 Gateway listeners accept attachment from the referencing Route, the Route MUST be considered
			// successfully attached." "If no Gateway listeners accept attachment from this Route, the Route MUST be considered detached from the Gateway."
			name: "one listener of two",
			in: mustListeners(`{name: a, protocol: HTTP, port: 80}, {name: b, protocol: HTTP, port: 81, allowedRoutes: {namespaces: {from: All}}}`) +
				mustRoute("whole", toV1) + mustRouteOn("section", "{name: gw, namespace: infra, sectionName: a}", toV1) +
				mustRouteOn("port", "{name: gw, namespace: infra, port: 80}", toV1) + mustRouteOn("other-port", "{name: gw, namespace: infra, port: 81}", toV1) + mustServices,
			status: []string{
				"HTTPRoute shop/port on infra/gw:80: ResolvedRefs; Accepted=False NotAllowedByListeners", "HTTPRoute shop/other-port on infra/gw:81: Accepted ResolvedRefs",
				"HTTPRoute shop/whole on infra/gw: Accepted", "HTTPRoute shop/section on infra/gw/a: ResolvedRefs; Accepted=False NotAllowedByListeners",
			},
		},
		{
			// ParentReference.Port: "When both Port and SectionName are specified, the name and port of the selected listener must match both specified values."
			name:   "section and port",
			in:     mustGateway + mustRouteOn("r", "{name: gw, namespace: infra, sectionName: http, port: 81}", toV1) + mustServices,
			status: []string{"HTTPRoute shop/r on infra/gw/http:81: ResolvedRefs; Accepted=False NoMatchingParent"},
		},
		{
			// HTTPRouteRule.Matches: "Proxy or Load Balancer routing configuration generated from HTTPRoutes MUST prioritize matches based on the following criteria,
			// continuing on ties." "precedence must be given to the match having: "Exact" path match. "Prefix" path match with largest number of characters. Method match.
			// Largest number of header matches. Largest number of query param matches."
			name: "match precedence",
			in: mustGateway + mustRoute("r", `rules: [
    {matches: [{path: {value: /a}, queryParams: [{name: q, value: "1"}]}], backendRefs: [{name: v2, port: 80}]},
    {matches: [{path: {value: /a}, headers: [{name: h, value: "1"}]}], backendRefs: [{name: v1, port: 80}]}]`) + mustServices,
			asks: []string{"GET http://a.example.com/a?q=1 -H 'H: 1' => infra/gw/http: shop/v1:80"},
		},
		{
			// HTTPRouteRule.Matches: "If ties still exist across multiple Routes, matching precedence MUST be determined in order of the following criteria, continuing on
			// ties:" "The oldest Route based on creation timestamp. The Route appearing first in alphabetical order by "{namespace}/{name}"."
			name: "ties across routes",
			in:   mustGateway + mustRoute("b", toV2) + mustRoute("a", toV1) + mustServices,
			asks: []string{"GET http://a.example.com/ => infra/gw/http: shop/v1:80  # HTTPRoute shop/a"},
		},
		{
			// HTTPRouteRule.Matches: "If ties still exist within an HTTPRoute, matching precedence MUST be granted to the FIRST matching rule (in list order) with a match
			// meeting the above criteria."
			name: "ties within a route",
			in:   mustGateway + mustRoute("r", `rules: [{backendRefs: [{name: v2, port: 80}]}, {backendRefs: [{name: v1, port: 80}]}]`) + mustServices,
			asks: []string{"GET http://a.example.com/ => infra/gw/http: shop/v2:80  # HTTPRoute shop/r spec.rules[0]"},
		},
		{
			// HTTPRouteRule.Matches: "When no rules matching a request have been successfully attached to the parent a request is coming from, a HTTP 404 status code MUST
			// be returned."
			name: "no rule",
			in:   mustGateway + mustRoute("r", `rules: [{matches: [{path: {value: /a}}], backendRefs: [{name: v2, port: 80}]}]`) + mustServices,
			asks: []string{"GET http://a.example.com/b => 404 no-route"},
		},
		{
			// HTTPRouteRule.Filters: "If only a portion of Route Rules are invalid, implementations MUST set the "PartiallyInvalid" condition for the Route."
			// RouteConditionPartiallyInvalid: "When this happens, implementations MUST take one of the following approaches:" "The message for this condition MUST start
			// with the prefix "Dropped Rule" and include information about which Rules have been dropped." "In this state, the "Accepted" condition MUST be set to "True"
			// with the latest generation of the resource."
			name: "partially invalid",
			in: mustGateway + mustRoute("r", `rules: [{backendRefs: [{name: v1, port: 80}]},
    {matches: [{path: {value: /a}}], filters: [{type: RequestRedirect, requestRedirect: {}}, {type: URLRewrite, urlRewrite: {}}]}]`) + mustServices,
			status: []string{"HTTPRoute shop/r on infra/gw: Accepted ResolvedRefs; PartiallyInvalid=True IncompatibleFilters: Dropped Rule: spec.rules[1]"},
			asks:   []string{"GET http://a.example.com/a => 500 route-invalid", "GET http://a.example.com/ => infra/gw/http: shop/v1:80"},
		},
		{
			// RouteConditionPartiallyInvalid: "This condition MUST NOT be set if a Route is fully valid, fully invalid, or not accepted." "By extension, that means that
			// this condition MUST only be set when it is "True"."
			name:   "fully invalid",
			in:     mustGateway + mustRoute("r", `rules: [{filters: [{type: URLRewrite, urlRewrite: {}}, {type: RequestRedirect, requestRedirect: {}}]}]`),
			status: []string{"HTTPRoute shop/r on infra/gw: ResolvedRefs; Accepted=False IncompatibleFilters: no rule can be served: spec.rules[0].filters[1].requestRedirect: RequestRedirect and URLRewrite exclude each other\n"},
		},
		{
			// HTTPRouteRule.BackendRefs: "If *all* entries in BackendRefs are invalid, and there are also no filters specified in this route rule, *all* traffic which
			// matches this rule MUST receive a 500 status code." "When a HTTPBackendRef is invalid, 500 status codes MUST be returned for requests that would have otherwise
			// been routed to an invalid backend."
			name:   "all backends invalid",
			in:     mustGateway + mustRoute("r", `rules: [{backendRefs: [{name: nothing, port: 80}]}]`),
			status: []string{"HTTPRoute shop/r on infra/gw: Accepted; ResolvedRefs=False BackendNotFound"},
			asks:   []string{"GET http://a.example.com/ => infra/gw/http: 500 no-backend"},
		},
		{
			// HTTPRouteRule.BackendRefs: "If multiple backends are specified, and some are invalid, the proportion of requests that would otherwise have been routed to an
			// invalid backend MUST receive a 500 status code."
			name: "some backends invalid",
			in:   mustGateway + mustRoute("r", `rules: [{backendRefs: [{name: v1, port: 80, weight: 3}, {name: nothing, port: 80}]}]`) + mustServices,
			asks: []string{"GET http://a.example.com/ => infra/gw/http: 3x shop/v1:80, 1x 500 no-backend"},
		},
		{
			// HTTPBackendRef: "It refers to an unknown or unsupported kind of resource. In this case, the Reason must be set to `InvalidKind` and Message of the
			// Condition must explain which kind of resource is unknown or unsupported."
			name:   "backend of another kind",
			in:     mustGateway + mustRoute("r", `rules: [{backendRefs: [{group: example.com, kind: Lambda, name: x}]}]`),
			status: []string{`ResolvedRefs=False InvalidKind: a backend cannot be of the kind Lambda (group "example.com")`},
		},
		{
			// "It refers to a resource that does not exist. In this case, the Reason must be set to `BackendNotFound` and the Message of the Condition must explain
			// which resource does not exist."
			name:   "backend does not exist",
			in:     mustGateway + mustRoute("r", `rules: [{backendRefs: [{name: nothing, port: 80}]}]`),
			status: []string{"ResolvedRefs=False BackendNotFound: Service shop/nothing does not exist"},
		},
		{
			// "It refers a resource in another namespace when the reference has not been explicitly allowed by a ReferenceGrant. In this case, the Reason must be
			// set to `RefNotPermitted` and the Message of the Condition must explain which cross-namespace reference is not allowed."
			name:   "backend without grant",
			in:     mustGateway + mustRoute("r", `rules: [{backendRefs: [{name: v1, namespace: bank, port: 80}]}]`),
			status: []string{"ResolvedRefs=False RefNotPermitted: no ReferenceGrant in namespace bank lets HTTPRoutes of namespace shop refer to Service bank/v1"},
		},
		{
			// HTTPHeaderMatch.Name: "Name matching MUST be case-insensitive." "If multiple entries specify equivalent header names, only the first entry with an equivalent
			// name MUST be considered for a match." "Subsequent entries with an equivalent header name MUST be ignored."
			name: "header names",
			in:   mustGateway + mustRoute("r", `rules: [{matches: [{headers: [{name: Foo, value: a}, {name: foo, value: "\n"}]}], backendRefs: [{name: v1, port: 80}]}]`) + mustServices,
			asks: []string{"GET http://a.example.com/ -H 'fOO: a' => infra/gw/http: shop/v1:80"},
		},
		{
			// HTTPQueryParamMatch.Name: "If multiple entries specify equivalent query param names, only the first entry with an equivalent name MUST be considered for a
			// match." "Subsequent entries with an equivalent query param name MUST be ignored." "This must be an exact string match."
			name: "query parameter names",
			in:   mustGateway + mustRoute("r", `rules: [{matches: [{queryParams: [{name: a, value: b}, {name: a, value: c}]}], backendRefs: [{name: v1, port: 80}]}]`) + mustServices,
			asks: []string{"GET http://a.example.com/?a=b => infra/gw/http: shop/v1:80", "GET http://a.example.com/?A=b => 404"},
		},
		{
			// PathMatchType, HeaderMatchType, QueryParamMatchType, HTTPMethod, HTTPRouteFilterType, HTTPPathModifierType, Scheme, StatusCode: "Unknown values here
			// must result in the implementation setting the Accepted Condition for the Route to `status: False`, with a Reason of `UnsupportedValue`."
			name: "unknown values",
			in: mustGateway + mustServices +
				mustRoute("path", `rules: [{matches: [{path: {type: Glob, value: /}}], backendRefs: [{name: v1, port: 80}]}]`) +
				mustRoute("header", `rules: [{matches: [{headers: [{type: Glob, name: a, value: b}]}], backendRefs: [{name: v1, port: 80}]}]`) +
				mustRoute("query", `rules: [{matches: [{queryParams: [{type: Glob, name: a, value: b}]}], backendRefs: [{name: v1, port: 80}]}]`) +
				mustRoute("method", `rules: [{matches: [{method: BREW}], backendRefs: [{name: v1, port: 80}]}]`) +
				mustRoute("filter", `rules: [{filters: [{type: Brew}], backendRefs: [{name: v1, port: 80}]}]`) +
				mustRoute("modifier", `rules: [{filters: [{type: URLRewrite, urlRewrite: {path: {type: Brew}}}], backendRefs: [{name: v1, port: 80}]}]`) +
				mustRoute("scheme", `rules: [{filters: [{type: RequestRedirect, requestRedirect: {scheme: gopher}}]}]`) +
				mustRoute("status", `rules: [{filters: [{type: RequestRedirect, requestRedirect: {statusCode: 418}}]}]`),
			status: []string{
				"HTTPRoute shop/path on infra/gw: ResolvedRefs; Accepted=False UnsupportedValue", "HTTPRoute shop/header on infra/gw: ResolvedRefs; Accepted=False UnsupportedValue",
				"HTTPRoute shop/query on infra/gw: ResolvedRefs; Accepted=False UnsupportedValue", "HTTPRoute shop/method on infra/gw: ResolvedRefs; Accepted=False UnsupportedValue",
				"HTTPRoute shop/filter on infra/gw: ResolvedRefs; Accepted=False UnsupportedValue", "HTTPRoute shop/modifier on infra/gw: ResolvedRefs; Accepted=False UnsupportedValue",
				"HTTPRoute shop/scheme on infra/gw: ResolvedRefs; Accepted=False UnsupportedValue", "HTTPRoute shop/status on infra/gw: ResolvedRefs; Accepted=False UnsupportedValue",
			},
		},
		{
			// HTTPRouteFilter.Type: "If a reference to a custom filter type cannot be resolved, the filter MUST NOT be skipped." "Instead, requests that would have been
			// processed by that filter MUST receive a HTTP error response."
			name:   "custom filter",
			in:     mustGateway + mustRoute("r", `rules: [{filters: [{type: ExtensionRef, extensionRef: {group: example.com, kind: Auth, name: x}}], backendRefs: [{name: v1, port: 80}]}]`) + mustServices,
			status: []string{"ResolvedRefs=False InvalidKind"},
			asks:   []string{"GET http://a.example.com/ => 500 route-invalid"},
		},
		{
			// HTTPHeaderFilter: "Only one action for a given header name is permitted. Filters specifying multiple actions of the same or different type for any one header
			// name are invalid."
			name: "one action for a header",
			in: mustGateway + mustServices +
				mustRoute("r", `rules: [{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: "1"}], remove: [A]}}], backendRefs: [{name: v1, port: 80}]}]`),
			asks: []string{"GET http://a.example.com/ => 500 route-invalid"},
		},
		{
			// HTTPRequestRedirectFilter: "This filter MUST NOT be used on the same Route rule as a HTTPURLRewrite filter." HTTPURLRewriteFilter: "This MUST NOT be used on
			// the same Route rule as a HTTPRequestRedirect filter."
			name: "redirect with rewrite",
			in:   mustGateway + mustRoute("r", `rules: [{filters: [{type: URLRewrite, urlRewrite: {hostname: b.example.com}}, {type: RequestRedirect, requestRedirect: {hostname: b.example.com}}]}]`),
			asks: []string{"GET http://a.example.com/ => 500 route-invalid"},
		},
		{
			// HTTPRequestRedirectFilter.Port: "If no port is specified, the redirect port MUST be derived using the following rules:" "If redirect scheme is not-empty, the
			// redirect port MUST be the well-known port associated with the redirect scheme." "If redirect scheme is empty, the redirect port MUST be the Gateway Listener
			// port."
			name: "redirect port",
			in: mustListeners(`{name: a, protocol: HTTP, port: 8090, allowedRoutes: {namespaces: {from: All}}}`) + mustRoute("r", `rules: [
    {matches: [{path: {value: /a}}], filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]},
    {matches: [{path: {value: /b}}], filters: [{type: RequestRedirect, requestRedirect: {hostname: b.example.com}}]}]`),
			asks: []string{"GET http://a.example.com:8090/a => 302 https://a.example.com/a", "GET http://a.example.com:8090/b => 302 http://b.example.com:8090/b"},
		},
		{
			// HTTPPathModifier.ReplacePrefixMatch: "Using any other HTTPRouteMatch type on the same HTTPRouteRule will result in the implementation setting the
			// Accepted Condition for the Route to `status: False`."
			name:   "prefix replaced without a prefix",
			in:     mustGateway + mustRoute("r", `rules: [{matches: [{path: {type: Exact, value: /a}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]}]`),
			status: []string{"Accepted=False IncompatibleFilters"},
		},
		{
			// HTTPRouteTimeouts.BackendRequest "must be no more than the value of the Request timeout".
			name:   "timeouts",
			in:     mustGateway + mustRoute("r", `rules: [{timeouts: {request: 1s, backendRequest: 2s}, backendRefs: [{name: v1, port: 80}]}]`) + mustServices,
			status: []string{"warning: HTTPRoute shop/r spec.rules[0].timeouts.backendRequest: 2s is longer than the timeout of the whole request, 1s"},
		},
		{
			// HTTPRouteRetryStatusCode: "Implementations MUST support the following status codes as retriable:" 500, 502, 503, 504.
			name:   "codes to retry",
			in:     mustGateway + mustRoute("r", `rules: [{retry: {attempts: 3, codes: [504, 500, 503, 502]}, backendRefs: [{name: v1, port: 80}]}]`) + mustServices,
			status: []string{"HTTPRoute shop/r on infra/gw: Accepted ResolvedRefs"},
			table:  []string{"retry=3 retry-on=500,502,503,504"},
		},
		{
			// RouteParentStatus.Conditions: "A Route MUST be considered "Accepted" if at least one of the Route's rules is implemented by the Gateway."
			name:   "one rule of two",
			in:     mustGateway + mustRoute("r", `rules: [{filters: [{type: Brew}]}, {backendRefs: [{name: v1, port: 80}]}]`) + mustServices,
			status: []string{"HTTPRoute shop/r on infra/gw: Accepted ResolvedRefs; PartiallyInvalid=True UnsupportedValue"},
		},
		{
			// ReferenceGrantSpec.From: "Each entry in this list MUST be considered to be an additional place that references can be valid from, or to put this another way,
			// entries MUST be combined using OR." ReferenceGrantSpec.To: "Each entry in this list MUST be considered to be an additional place that references can be valid
			// to, or to put this another way, entries MUST be combined using OR."
			name: "grants are alternatives", in: mustGateway + `
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: g, namespace: bank}
spec:
  from: [{group: example.com, kind: Other, namespace: x}, {group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}]
  to: [{group: "", kind: Secret}, {group: "", kind: Service, name: v1}]
---` + strings.ReplaceAll(mustServices, "shop", "bank") + mustRoute("r", `rules: [{backendRefs: [{name: v1, namespace: bank, port: 80}, {name: v2, namespace: bank, port: 80}]}]`),
			asks: []string{"GET http://a.example.com/ => infra/gw/http: 1x bank/v1:80, 1x 500 no-backend"},
		},
		{
			// ReferenceGrant: "Implementations that support ReferenceGrant MUST NOT permit cross-namespace references which have no grant, and MUST respond to the removal
			// of a grant by revoking the access that the grant allowed." A grant that is removed is one that is not there.
			name: "no grant", in: mustGateway + strings.ReplaceAll(mustServices, "shop", "bank") + mustRoute("r", `rules: [{backendRefs: [{name: v1, namespace: bank, port: 80}]}]`),
			asks: []string{"GET http://a.example.com/ => infra/gw/http: 500 no-backend (no ReferenceGrant"},
		},
		{
			// RouteNamespaces.From: "Same: Only Routes in the same namespace may be used by this Gateway." (the default)
			name: "namespaces", in: mustListeners(`{name: a, protocol: HTTP, port: 80}`) + mustRoute("r", toV1) + mustServices,
			status: []string{"HTTPRoute shop/r on infra/gw: ResolvedRefs; Accepted=False NotAllowedByListeners: Gateway infra/gw allows routes from its own namespace only"},
		},
		{
			// HTTPHeader.Name: "Name matching MUST be case-insensitive." "If multiple entries specify equivalent header names, the first entry with an equivalent name MUST
			// be considered for a match." "Subsequent entries with an equivalent header name MUST be ignored."
			name:  "header names of filters",
			in:    mustGateway + mustServices + mustRoute("r", `rules: [{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: Foo, value: a}, {name: foo, value: b}]}}], backendRefs: [{name: v1, port: 80}]}]`),
			table: []string{"| set-request-header Foo=a ->"},
		},
		{
			// GatewaySpec.Listeners: "In this case all the Listeners that share a port with the TCP Listener are not distinct and so MUST NOT be accepted."
			name: "TCP beside HTTP", in: mustListeners(`{name: a, protocol: TCP, port: 80}, {name: b, protocol: HTTP, port: 80}, {name: c, protocol: HTTP, port: 80, hostname: c.example.com}`),
			status: []string{
				"  listener a: ResolvedRefs routes=0 kinds=TCPRoute; Accepted=False ProtocolConflict", "  listener b: ResolvedRefs routes=0 kinds=HTTPRoute,GRPCRoute; Accepted=False ProtocolConflict",
				"  listener c: ResolvedRefs routes=0 kinds=HTTPRoute,GRPCRoute; Accepted=False ProtocolConflict",
			},
			asks: []string{"GET http://c.example.com/ => no http on :80", "CONNECTION tcp://:80 => no tcp on :80"},
		},
		{
			// GatewaySpec.Listeners: "Some combinations of port, protocol, and TLS settings are considered Core support and MUST be supported by implementations based on
			// the objects they support:" HTTPRoute: HTTP on 80 and HTTPS on 443 that terminates. TLSRoute: TLS on 443 that passes through.
			name: "core listeners",
			in: mustListeners(`{name: http, protocol: HTTP, port: 80}, {name: https, protocol: HTTPS, port: 443, hostname: a.example.com, tls: {mode: Terminate, certificateRefs: [{name: x}]}}`) +
				strings.ReplaceAll(mustListeners(`{name: tls, protocol: TLS, port: 443, hostname: b.example.com, tls: {mode: Passthrough}}`), "name: gw", "name: tls"),
			status: []string{
				"  listener http: Accepted Programmed ResolvedRefs routes=0 kinds=HTTPRoute,GRPCRoute", "  listener https: Accepted routes=0 kinds=HTTPRoute,GRPCRoute",
				"  listener tls: Accepted Programmed ResolvedRefs routes=0 kinds=TLSRoute",
			},
		},
		{
			// Listener.Hostname: "Implementations MUST apply Hostname matching appropriately for each of the following protocols:" "TLS: The Listener Hostname MUST match
			// the SNI." "HTTP: The Listener Hostname MUST match the Host header of the request." "To ensure security, Section 11.1 of RFC-6066 emphasizes that server
			// implementations that rely on SNI hostname matching MUST also verify hostnames within the application protocol." "If no other Listener matches the Host, the
			// Gateway MUST return a 404."
			name: "hostnames of each protocol",
			in: mustListeners(`{name: http, protocol: HTTP, port: 80, hostname: a.example.com, allowedRoutes: {namespaces: {from: All}}},
    {name: https, protocol: HTTPS, port: 443, hostname: a.example.com, tls: {certificateRefs: [{name: x}]}, allowedRoutes: {namespaces: {from: All}}},
    {name: other, protocol: HTTPS, port: 443, hostname: b.example.com, tls: {certificateRefs: [{name: x}]}, allowedRoutes: {namespaces: {from: All}}},
    {name: tls, protocol: TLS, port: 8443, hostname: a.example.com, tls: {mode: Passthrough}, allowedRoutes: {namespaces: {from: All}}}`) +
				mustRoute("r", toV1) + mustConnectionRoute("TLSRoute", "p", "tls", "hostnames: [a.example.com], "+toV1) + mustServices,
			asks: []string{
				"GET http://a.example.com/ => infra/gw/http: shop/v1:80", "GET http://c.example.com/ => 404 no-route",
				"CONNECTION tls://a.example.com:8443 => infra/gw/tls: shop/v1:80", "CONNECTION tls://c.example.com:8443 => closed no-route",
				"GET https://a.example.com/ => infra/gw/https: shop/v1:80", "GET https://c.example.com/ => 404 no-route",
				"GET https://a.example.com/ -H 'Host: b.example.com' => 421 misdirected", "GET https://a.example.com/ -H 'Host: c.example.com' => 404 no-route",
			},
		},
		{
			// GatewaySpec.Listeners: "At least one Listener MUST be specified." The API server sees to it; what gets past it is not accepted.
			name: "no listener at all", in: mustListeners(""),
			status: []string{"Gateway infra/gw: Accepted=False"},
		},
		{
			// Listener.Name: "This name MUST be unique within a Gateway." The API server sees to it; of two that get past it the second is refused.
			name: "one name for two listeners", in: mustListeners(`{name: a, protocol: HTTP, port: 80}, {name: a, protocol: HTTP, port: 81}`),
			status: []string{`error: Gateway infra/gw spec.listeners[1].name: another listener is named "a" already; this one is not served`},
			asks:   []string{"GET http://a.example.com/ => 404", "GET http://a.example.com:81/ => no http on :81"},
		},
		{
			// Listener.AllowedRoutes: "Matching precedence MUST be determined in order of the following criteria:" "The most specific match as defined by the Route type.
			// The oldest Route based on creation timestamp. If everything else is equivalent, the Route appearing first in alphabetical order (namespace/name) should be
			// given precedence."
			name: "precedence among routes",
			in: mustGateway + mustServices + mustRoute("b", toV2) + mustRoute("c", toV1) + strings.Replace(mustRoute("d", `rules: [{matches: [{path: {value: /old}}], backendRefs: [{name: v2, port: 80}]}]`), "generation: 7", `creationTimestamp: "2024-01-01T00:00:00Z"`, 1) +
				strings.Replace(mustRoute("a", `rules: [{matches: [{path: {value: /old}}], backendRefs: [{name: v1, port: 80}]}]`), "generation: 7", `creationTimestamp: "2025-01-01T00:00:00Z"`, 1),
			asks: []string{"GET http://a.example.com/ => infra/gw/http: shop/v2:80  # HTTPRoute shop/b", "GET http://a.example.com/old => infra/gw/http: shop/v2:80  # HTTPRoute shop/d"},
		},
		{
			// GatewayBackendTLS.ClientCertificateRef: "In this case, the `ResolvedRefs` condition on the Gateway MUST be set to False with the Reason
			// `InvalidClientCertificateRef` and the Message of the Condition MUST indicate why the reference is invalid." "If a ReferenceGrant does not allow this
			// reference, the `ResolvedRefs` condition on the Gateway MUST be set to False with the Reason `RefNotPermitted`."
			name: "certificate for backends",
			in: strings.Replace(mustGateway, "  listeners:", "  tls: {backend: {clientCertificateRef: {name: nobody}}}\n  listeners:", 1) +
				strings.ReplaceAll(strings.Replace(mustListeners("{name: http, protocol: HTTP, port: 81}"), "  listeners:", "  tls: {backend: {clientCertificateRef: {name: x, namespace: vault}}}\n  listeners:", 1), "name: gw", "name: two"),
			status: []string{
				"Gateway infra/gw: Accepted Programmed; ResolvedRefs=False InvalidClientCertificateRef: Secret infra/nobody does not exist",
				"Gateway infra/two: Accepted Programmed; ResolvedRefs=False RefNotPermitted: no ReferenceGrant in namespace vault lets Gateways of namespace infra refer to Secret vault/x",
			},
		},
		{
			// FrontendTLSValidation.CACertificateRefs: "If a ReferenceGrant does not allow this reference, the `ResolvedRefs` on all matching HTTPS listeners condition MUST
			// be set with the Reason `RefNotPermitted`." "In all cases, the implementation MUST ensure that the `ResolvedRefs` condition is set to `status: False` on all
			// targeted listeners (i.e., listeners serving HTTPS on a matching port)." "The condition MUST include a Reason and Message that indicate the cause of the
			// error." "If ALL CACertificateRefs are invalid, the implementation MUST also ensure the `Accepted` condition on the listener is set to `status: False`, with
			// the Reason `NoValidCACertificate`."
			name: "authorities of clients",
			in: strings.Replace(mustListeners(`{name: a, protocol: HTTPS, port: 443, tls: {certificateRefs: [{name: x}]}}, {name: b, protocol: HTTPS, port: 8443, tls: {certificateRefs: [{name: x}]}}, {name: c, protocol: HTTP, port: 80}`),
				"  listeners:", `  tls: {frontend: {default: {validation: {caCertificateRefs: [{group: "", kind: ConfigMap, name: nobody}]}}, perPort: [{port: 8443, tls: {validation: {caCertificateRefs: [{group: "", kind: ConfigMap, name: x, namespace: vault}]}}}]}}
  listeners:`, 1),
			status: []string{
				"  listener a: routes=0 kinds=HTTPRoute,GRPCRoute; Accepted=False NoValidCACertificate: no authority for the certificates of clients: ConfigMap infra/nobody does not exist",
				"ResolvedRefs=False InvalidCACertificateRef: ConfigMap infra/nobody does not exist",
				"  listener b: routes=0 kinds=HTTPRoute,GRPCRoute; Accepted=False NoValidCACertificate: no authority for the certificates of clients: no ReferenceGrant in namespace vault lets Gateways",
				"ResolvedRefs=False RefNotPermitted: no ReferenceGrant in namespace vault lets Gateways", "  listener c: Accepted Programmed ResolvedRefs",
			},
			asks: []string{"GET https://a.example.com/ => no https on :443", "GET https://a.example.com:8443/ => no https on :8443", "GET http://a.example.com/ => 404"},
		},
		{
			// GatewayClassConditionStatusAccepted: "This condition defaults to Unknown, and MUST be set by a controller when it sees a GatewayClass using its controller
			// string." "The status of this condition MUST be set to True if the controller will support provisioning Gateways using this class." "Otherwise, this status
			// MUST be set to False." A class with parameters is not supported, because there are none.
			name: "class accepted", in: `
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: one}
spec: {controllerName: fairlead.io/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: two}
spec: {controllerName: fairlead.io/gateway-controller, parametersRef: {group: example.com, kind: Odd, name: x}}`,
			status: []string{"GatewayClass one: Accepted\n", "GatewayClass two: Accepted=False InvalidParameters"},
		},
		{
			// HTTPRouteRule.Filters: "ALL core filters MUST be supported by all implementations." Core are RequestHeaderModifier and RequestRedirect.
			name: "core filters", in: mustGateway + mustServices + mustRoute("r", `rules: [{matches: [{path: {value: /a}}], filters: [{type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: X, value: "1"}], remove: [Z]}}], backendRefs: [{name: v1, port: 80}]},
  {matches: [{path: {value: /b}}], filters: [{type: RequestRedirect, requestRedirect: {hostname: b.example.com}}]}]`),
			table: []string{"add-request-header X=1", "remove-request-header Z"},
			asks:  []string{"GET http://a.example.com/a => infra/gw/http: shop/v1:80", "GET http://a.example.com/b => 302 http://b.example.com/b"},
		},
		{
			// HTTPRouteTimeouts.Request, HTTPRouteTimeouts.BackendRequest: "Implementations that cannot completely disable the timeout MUST instead interpret the zero
			// duration as the longest possible value to which the timeout can be set." Here they are disabled.
			name: "no timeout", in: mustGateway + mustServices + mustRoute("r", `rules: [{timeouts: {request: 0s, backendRequest: 0s}, backendRefs: [{name: v1, port: 80}]}]`),
			table: []string{"shop/v1:80 timeout=none backend-timeout=none"},
		},
		{
			// HTTPBackendRef, BackendRef: "Implementations MUST set the "ResolvedRefs" condition to "False" with the "UnsupportedProtocol" reason."
			name: "backend that speaks another protocol", in: mustGateway + strings.Replace(mustServices, "{port: 80}", "{port: 80, appProtocol: kubernetes.io/h4}", 1) + mustRoute("r", toV1),
			status: []string{"HTTPRoute shop/r on infra/gw: Accepted; ResolvedRefs=False UnsupportedProtocol"},
			asks:   []string{"GET http://a.example.com/ => infra/gw/http: 500 no-backend"},
		},
		{
			// HTTPAuthConfig.Path: "Even with the validation, implementations MUST sanitize this input before using it directly." A path with dot segments, or an escape
			// that is none, would lead elsewhere on the authorization server: it is put into its normal form or refused, and a refused filter lets nothing pass.
			name: "path of an authorization server", in: mustGateway + mustServices +
				mustRoute("a", `rules: [{matches: [{path: {value: /a}}], filters: [{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {name: v2, port: 80}, http: {path: "/auth?x=1#y"}}}], backendRefs: [{name: v1, port: 80}]}]`) +
				mustRoute("b", `rules: [{matches: [{path: {value: /b}}], filters: [{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {name: v2, port: 80}, http: {path: "/%zz"}}}], backendRefs: [{name: v1, port: 80}]}]`),
			asks: []string{"GET http://a.example.com/a => 500 route-invalid", "GET http://a.example.com/b => 500 route-invalid"},
		},
		{
			// GatewayDefaultScope: ""None" is a special scope which explicitly means that the Route MUST NOT attached to any default Gateway." GatewayDefaultScopeNone:
			// "GatewayDefaultScopeNone indicates that a Gateway MUST NOT claim any Route asking for a default Gateway."
			name: "default gateways", in: strings.Replace(mustGateway, "  gatewayClassName:", "  defaultScope: None\n  gatewayClassName:", 1) + mustServices +
				strings.Replace(mustRoute("asks", toV1), "parentRefs: [{name: gw, namespace: infra}]", "useDefaultGateways: All", 1) +
				strings.ReplaceAll(strings.Replace(mustListeners("{name: http, protocol: HTTP, port: 81, allowedRoutes: {namespaces: {from: All}}}"), "  gatewayClassName:", "  defaultScope: All\n  gatewayClassName:", 1), "name: gw", "name: default") +
				strings.Replace(mustRoute("asks-not", toV2), "parentRefs: [{name: gw, namespace: infra}]", "useDefaultGateways: None", 1),
			status: []string{"HTTPRoute shop/asks on infra/default: Accepted ResolvedRefs", "listener http: Accepted Programmed ResolvedRefs routes=0 kinds"},
			asks:   []string{"GET http://a.example.com/ => 404", "GET http://a.example.com:81/ => infra/default/http: shop/v1:80"},
		},
		{
			// RouteStatus.Parents: "Implementations MUST treat each `parentRef`` in the Route separately and update its status based on the relationship with that parent."
			name: "each parent", in: mustListeners(`{name: a, protocol: HTTP, port: 80}, {name: b, protocol: HTTP, port: 81, allowedRoutes: {namespaces: {from: All}}}`) + mustServices +
				mustRouteOn("r", "{name: gw, namespace: infra, sectionName: a}, {name: gw, namespace: infra, sectionName: b}, {name: gw, namespace: infra, sectionName: c}", toV1),
			status: []string{
				"HTTPRoute shop/r on infra/gw/a: ResolvedRefs; Accepted=False NotAllowedByListeners", "HTTPRoute shop/r on infra/gw/b: Accepted ResolvedRefs",
				"HTTPRoute shop/r on infra/gw/c: ResolvedRefs; Accepted=False NoMatchingParent",
			},
		},
	})
}

// mustRow is a sentence, the objects that it is about, and what they must come to.
type mustRow struct {
	name   string
	in     string
	status []string
	asks   []string
	table  []string
	no     []string // what neither the status nor the table may contain
}

func checkMust(t *testing.T, rows []mustRow) {
	t.Helper()
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			res := Compile(load(t, row.in), Options{})
			status := statusText(res)
			for _, want := range row.status {
				if !strings.Contains(status, want) {
					t.Errorf("the status has no %q:\n%s", want, status)
				}
			}
			for _, want := range row.table {
				if table := res.Table.String(); !strings.Contains(table, want) {
					t.Errorf("the table has no %q:\n%s", want, table)
				}
			}
			for _, not := range row.no {
				if text := resultText(res); strings.Contains(text, not) {
					t.Errorf("there is %q:\n%s", not, text)
				}
			}
			for _, ask := range row.asks {
				request, want, _ := strings.Cut(ask, " => ")
				if got := answer(t, res.Table, Options{}, request); !strings.HasPrefix(got, want) {
					t.Errorf("%s: got %s, want %s", request, got, want)
				}
			}
		})
	}
}
