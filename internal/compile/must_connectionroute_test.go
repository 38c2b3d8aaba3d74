package compile

import (
	"strings"
	"testing"
)

// mustConnectionGateway has a listener for each kind of route that gets connections, and one for requests. Two listeners have hostnames.
const mustConnectionGateway = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: infra, generation: 3}
spec:
  gatewayClassName: fairlead
  listeners:
  - {name: tls, protocol: TLS, port: 443, hostname: "*.example.com", tls: {mode: Passthrough}, allowedRoutes: {namespaces: {from: All}}}
  - {name: tcp, protocol: TCP, port: 5432, allowedRoutes: {namespaces: {from: All}}}
  - {name: udp, protocol: UDP, port: 53, allowedRoutes: {namespaces: {from: All}}}
  - {name: http, protocol: HTTP, port: 80, allowedRoutes: {namespaces: {from: All}}}
---
apiVersion: v1
kind: Service
metadata: {name: dns, namespace: shop}
spec: {ports: [{port: 53, protocol: UDP}]}
---`

// mustConnectionRoute is a route of a kind on a listener of that Gateway, the one with that name; spec is what it has beside parentRefs.
func mustConnectionRoute(kind, name, listener, spec string) string {
	route := mustRouteOn(name, "{name: gw, namespace: infra, sectionName: "+listener+"}", spec)
	return strings.Replace(route, "kind: HTTPRoute", "kind: "+kind, 1)
}

// Each row is a sentence of the Go documentation of TLSRoute, TCPRoute or UDPRoute; see TestMust.
func TestMustOfConnectionRoutes(t *testing.T) {
	const toDNS = `rules: [{backendRefs: [{name: dns, port: 53}]}]`
	checkMust(t, []mustRow{
		{
			// TLSRouteSpec.Hostnames: "A Listener with `*.example.com` as the hostname matches TLSRoutes that have specified at least one hostname that matches the
			// Listener hostname. For example, `test.example.com` and `*.example.com` would both match."
			name: "hostnames that a listener has", in: mustConnectionGateway + mustServices +
				mustConnectionRoute("TLSRoute", "a", "tls", `hostnames: [test.example.com], `+toV1) + mustConnectionRoute("TLSRoute", "b", "tls", `hostnames: ["*.example.com"], `+toV2),
			status: []string{"TLSRoute shop/a on infra/gw/tls: Accepted ResolvedRefs", "TLSRoute shop/b on infra/gw/tls: Accepted ResolvedRefs", "listener tls: Accepted Programmed ResolvedRefs routes=2"},
			asks:   []string{"CONNECTION tls://test.example.com => infra/gw/tls: shop/v1:80", "CONNECTION tls://other.example.com => infra/gw/tls: shop/v2:80"},
		},
		{
			// "On the other hand, `example.com` and `test.example.net` would not match."
			// "If the TLSRoute does not match any Listener on its parent, the implementation must raise an 'Accepted' Condition with a status of `False`"
			name:   "hostnames that it does not have",
			in:     mustConnectionGateway + mustServices + mustConnectionRoute("TLSRoute", "a", "tls", `hostnames: [example.com, test.example.net], `+toV1),
			status: []string{"TLSRoute shop/a on infra/gw/tls: ResolvedRefs; Accepted=False NoMatchingListenerHostname", "listener tls: Accepted Programmed ResolvedRefs routes=0"},
			asks:   []string{"CONNECTION tls://example.com => closed no-route", "CONNECTION tls://test.example.net => closed no-route"},
		},
		{
			// TLSRouteSpec.Hostnames: "If both the Listener and TLSRoute have specified hostnames, any TLSRoute hostnames that do not match any Listener hostname MUST be
			// ignored."
			name:   "a hostname that it does not have, beside one that it has",
			in:     mustConnectionGateway + mustServices + mustConnectionRoute("TLSRoute", "a", "tls", `hostnames: [test.example.com, test.example.net], `+toV1),
			status: []string{"TLSRoute shop/a on infra/gw/tls: Accepted ResolvedRefs"},
			asks:   []string{"CONNECTION tls://test.example.com => infra/gw/tls: shop/v1:80", "CONNECTION tls://test.example.net => closed no-route"},
		},
		{
			// "A hostname may be prefixed with a wildcard label (`*.`). The wildcard label must appear by itself as the first label."
			// "IPs are not allowed in SNI hostnames per RFC 6066."
			name:   "hostnames that are none",
			in:     mustConnectionGateway + mustServices + mustConnectionRoute("TLSRoute", "a", "tls", `hostnames: ["a*.example.com", "a.*.example.com", "192.0.2.1"], `+toV1),
			status: []string{"TLSRoute shop/a on infra/gw/tls: ResolvedRefs; Accepted=False UnsupportedValue", "spec.hostnames[0]", "spec.hostnames[1]", "spec.hostnames[2]"},
			asks:   []string{"CONNECTION tls://ab.example.com => closed no-route"},
		},
		{
			// TLSRouteSpec: "A TLSRoute MUST be attached to a Listener of protocol TLS." TLSRouteSpec.Hostnames: "A Listener MUST be have protocol set to TLS when a
			// TLSRoute attaches to it." What reason is given, must-elsewhere.txt says.
			name:   "TLSRoute on a listener of HTTP",
			in:     mustConnectionGateway + mustServices + mustConnectionRoute("TLSRoute", "a", "http", `hostnames: [test.example.com], `+toV1),
			status: []string{"TLSRoute shop/a on infra/gw/http: ResolvedRefs; Accepted=False NotAllowedByListeners", "listener http: Accepted Programmed ResolvedRefs routes=0"},
		},
		{
			name: "TCPRoute and UDPRoute on listeners of the other", in: mustConnectionGateway + mustServices +
				mustConnectionRoute("TCPRoute", "a", "udp", toV1) + mustConnectionRoute("UDPRoute", "b", "tcp", toDNS),
			status: []string{"TCPRoute shop/a on infra/gw/udp: ResolvedRefs; Accepted=False NotAllowedByListeners", "UDPRoute shop/b on infra/gw/tcp: ResolvedRefs; Accepted=False NotAllowedByListeners"},
			asks:   []string{"CONNECTION tcp://:5432 => closed no-route", "CONNECTION udp://:53 => closed no-route"},
		},
		{
			// TLSRouteRule.BackendRefs: "If unspecified or invalid (refers to a nonexistent resource [...]), the underlying implementation must actively reject
			// request attempts to this backend, by rejecting the connection."
			name: "TLSRoute without a backend", in: mustConnectionGateway +
				mustConnectionRoute("TLSRoute", "a", "tls", `hostnames: [a.example.com], rules: [{}]`) +
				mustConnectionRoute("TLSRoute", "b", "tls", `hostnames: [b.example.com], `+toV1),
			status: []string{"TLSRoute shop/b on infra/gw/tls: Accepted; ResolvedRefs=False BackendNotFound"},
			asks:   []string{"CONNECTION tls://a.example.com => closed no-backend", "CONNECTION tls://b.example.com => infra/gw/tls: closed no-backend"},
		},
		{
			// TCPRouteRule.BackendRefs: "If unspecified or invalid (refers to a nonexistent resource or a Service with no endpoints), the underlying implementation MUST
			// actively reject connection attempts to this backend."
			name:   "TCPRoute to a Service that does not exist",
			in:     mustConnectionGateway + mustConnectionRoute("TCPRoute", "a", "tcp", toV1),
			status: []string{"TCPRoute shop/a on infra/gw/tcp: Accepted; ResolvedRefs=False BackendNotFound"},
			asks:   []string{"CONNECTION tcp://:5432 => infra/gw/tcp: closed no-backend"},
		},
		{
			// UDPRouteRule.BackendRefs: "If unspecified or invalid (refers to a nonexistent resource or a Service with no endpoints), the underlying implementation MUST
			// actively reject connection attempts to this backend."
			name:   "UDPRoute to a port that is not one of UDP",
			in:     mustConnectionGateway + mustServices + mustConnectionRoute("UDPRoute", "a", "udp", toV1),
			status: []string{"UDPRoute shop/a on infra/gw/udp: Accepted; ResolvedRefs=False"},
			asks:   []string{"CONNECTION udp://:53 => infra/gw/udp: closed no-backend"},
		},
		{
			// "Connection rejections must respect weight; if an invalid backend is requested to have 80% of connections, then 80% of connections must be rejected
			// instead."
			name: "a share that is rejected", in: mustConnectionGateway + mustServices +
				mustConnectionRoute("TCPRoute", "a", "tcp", `rules: [{backendRefs: [{name: v1, port: 80, weight: 20}, {name: ghost, port: 80, weight: 80}]}]`) +
				mustConnectionRoute("UDPRoute", "b", "udp", `rules: [{backendRefs: [{name: dns, port: 53, weight: 20}, {name: ghost, port: 53, weight: 80}]}]`),
			asks: []string{"CONNECTION tcp://:5432 => infra/gw/tcp: 20x shop/v1:80, 80x closed no-backend", "CONNECTION udp://:53 => infra/gw/udp: 20x shop/dns:53/udp, 80x closed no-backend"},
		},
		{
			// BackendRef: "when a namespace different than the local namespace is specified, a ReferenceGrant object is required in the referent namespace"
			name: "a backend of another namespace", in: mustConnectionGateway + strings.ReplaceAll(mustServices, "shop", "bank") +
				mustConnectionRoute("TCPRoute", "a", "tcp", `rules: [{backendRefs: [{name: v1, namespace: bank, port: 80}]}]`),
			status: []string{"TCPRoute shop/a on infra/gw/tcp: Accepted; ResolvedRefs=False RefNotPermitted"},
			asks:   []string{"CONNECTION tcp://:5432 => infra/gw/tcp: closed no-backend"},
		},
		{
			// TLSRouteRule.Name, TCPRouteRule.Name, UDPRouteRule.Name: "This name MUST be unique within a Route if it is set." Of TCPRouteSpec.Rules and its like a cluster
			// takes one.
			name:   "a second rule",
			in:     mustConnectionGateway + mustServices + mustConnectionRoute("TCPRoute", "a", "tcp", `rules: [{name: x, backendRefs: [{name: v1, port: 80}]}, {name: x, backendRefs: [{name: v2, port: 80}]}]`),
			status: []string{"TCPRoute shop/a spec.rules[1]: the first rule gets everything and this one nothing"},
			asks:   []string{"CONNECTION tcp://:5432 => infra/gw/tcp: shop/v1:80"},
		},
		{
			// CommonRouteSpec.ParentRefs: a listener that is not there
			name:   "no such listener",
			in:     mustConnectionGateway + mustServices + mustConnectionRoute("UDPRoute", "a", "nothing", toDNS),
			status: []string{"UDPRoute shop/a on infra/gw/nothing: ResolvedRefs; Accepted=False NoMatchingParent"},
			asks:   []string{"CONNECTION udp://:53 => closed no-route"},
		},
	})
}
