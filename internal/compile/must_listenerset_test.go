package compile

import (
	"strings"
	"testing"
)

// mustOpenGateway lets ListenerSets of all namespaces add to its one listener.
var mustOpenGateway = strings.Replace(mustGateway, "  listeners:", "  allowedListeners: {namespaces: {from: All}}\n  listeners:", 1)

// mustSet is a ListenerSet in shop on infra/gw.
func mustSet(name, created, listeners string) string {
	return `
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: ` + name + `, namespace: shop, generation: 2, creationTimestamp: "` + created + `"}
spec: {parentRef: {name: gw, namespace: infra}, listeners: [` + listeners + `]}
---`
}

// Each row is a sentence of the Go documentation of ListenerSet; see TestMust.
func TestMustOfListenerSets(t *testing.T) {
	const before, after, both = "2025-01-01T00:00:00Z", "2025-01-02T00:00:00Z", `{name: one, protocol: HTTP, port: 81}`
	onSet := func(route, set string) string { return mustRouteOn(route, "{kind: ListenerSet, name: "+set+"}", toV1) }
	checkMust(t, []mustRow{
		{
			// ListenerSetStatus.Conditions: "Implementations MUST express ListenerSet conditions using the `ListenerSetConditionType` and `ListenerSetConditionReason`
			// constants so that operators and tools can converge on a common vocabulary to describe ListenerSet state." GatewaySpec.AllowedListeners: "By default, a Gateway
			// will not allow ListenerSets to attach." ListenerSetReasonNotAllowed: "used when the ListenerSet is not allowed to be attached to the Gateway."
			name: "not allowed", in: mustGateway + mustSet("s", before, both) + onSet("r", "s") + mustServices,
			status: []string{"ListenerSet shop/s: Accepted=False NotAllowed", "HTTPRoute shop/r on ListenerSet shop/s: ResolvedRefs; Accepted=False NoMatchingParent"},
			asks:   []string{"GET http://a.example.com:81/ => no http on :81"},
		},
		{
			// ListenerSetSpec.Listeners: "Implementations MUST treat the parent Gateway as having the merged list of all listeners from itself and attached ListenerSets
			// using the following precedence:" "1. "parent" Gateway"
			name: "the Gateway comes first", in: mustOpenGateway + mustSet("s", before, `{name: one, protocol: HTTP, port: 80}`) + onSet("r", "s") + mustServices,
			status: []string{"Gateway infra/gw: Accepted Programmed", "  listener one: ResolvedRefs routes=1 kinds=HTTPRoute,GRPCRoute; Accepted=False HostnameConflict", "Conflicted=True HostnameConflict"},
			asks:   []string{"GET http://a.example.com/ => 404"},
		},
		{
			// "2. ListenerSet ordered by creation time (oldest first)"
			name: "the older ListenerSet comes before", in: mustOpenGateway + mustSet("a", after, both) + mustSet("b", before, both) + onSet("r", "b") + mustServices,
			status: []string{"ListenerSet shop/a: Accepted=False ListenersNotValid", "ListenerSet shop/b: Accepted Programmed"},
			asks:   []string{"GET http://a.example.com:81/ => listenerset/shop/b/one: shop/v1:80"},
		},
		{
			// "3. ListenerSet ordered alphabetically by "{namespace}/{name}"."
			name: "the first in the alphabet", in: mustOpenGateway + mustSet("b", before, both) + mustSet("a", before, both) + onSet("r", "a") + mustServices,
			status: []string{"ListenerSet shop/a: Accepted Programmed", "ListenerSet shop/b: Accepted=False ListenersNotValid"},
			asks:   []string{"GET http://a.example.com:81/ => listenerset/shop/a/one: shop/v1:80"},
		},
		{
			// "If a listener has a conflict, this will be reported in the Status.ListenerEntryStatus setting the `Conflicted` condition to True."
			name: "protocols", in: mustOpenGateway + mustSet("s", before, `{name: one, protocol: HTTPS, port: 80, tls: {certificateRefs: [{name: x}]}}`),
			status: []string{"Conflicted=True ProtocolConflict"},
		},
		{
			// "Implementations SHOULD be cautious about what information from the parent or siblings are reported to avoid accidentally leaking sensitive information"
			name:   "siblings of other namespaces have no names",
			in:     mustOpenGateway + strings.ReplaceAll(mustSet("secret-name", before, both), "namespace: shop", "namespace: secret-namespace") + mustSet("s", after, both),
			status: []string{"HTTP on port 81 is taken by a listener of a ListenerSet in another namespace, which comes first"},
		},
		{
			// ListenerEntry.Name: "Name is not required to be unique across a Gateway and ListenerSets. Routes can attach to a Listener by having a ListenerSet as a
			// parentRef and setting the SectionName"
			name: "the same name", in: mustOpenGateway + mustSet("s", before, `{name: http, protocol: HTTP, port: 81}`) +
				mustRouteOn("r", "{kind: ListenerSet, name: s, sectionName: http}", toV1) + mustServices,
			status: []string{"HTTPRoute shop/r on ListenerSet shop/s/http: Accepted ResolvedRefs"},
			asks:   []string{"GET http://a.example.com:81/ => listenerset/shop/s/http: shop/v1:80", "GET http://a.example.com/ => 404"},
		},
		{
			// ListenerEntry.Hostname: "Implementations MUST apply Hostname matching appropriately for each of the following protocols:" "TLS: The Listener Hostname MUST
			// match the SNI." "HTTP: The Listener Hostname MUST match the Host header of the request." "When both listener and route specify hostnames, there MUST be an
			// intersection between the values for a Route to be accepted."
			name: "hostnames", in: mustOpenGateway + mustSet("s", before, `{name: one, protocol: HTTP, port: 81, hostname: "*.example.com"}`) +
				mustRouteOn("r", "{kind: ListenerSet, name: s}", "hostnames: [a.test], "+toV1) + mustRouteOn("q", "{kind: ListenerSet, name: s}", toV1) + mustServices,
			status: []string{"HTTPRoute shop/r on ListenerSet shop/s: ResolvedRefs; Accepted=False NoMatchingListenerHostname"},
			asks:   []string{"GET http://a.example.com:81/ => listenerset/shop/s/one: shop/v1:80", "GET http://a.test:81/ => 404"},
		},
		{
			// ListenerEntryStatus.SupportedKinds: "This MUST represent the kinds supported by an implementation for that Listener configuration." "If kinds are specified in
			// Spec that are not supported, they MUST NOT appear in this list and an implementation MUST set the "ResolvedRefs" condition to "False" with the
			// "InvalidRouteKinds" reason." "If both valid and invalid Route kinds are specified, the implementation MUST reference the valid Route kinds that have been
			// specified."
			name: "kinds", in: mustOpenGateway + mustSet("s", before, `{name: one, protocol: HTTP, port: 81, allowedRoutes: {kinds: [{kind: HTTPRoute}, {kind: Odd}]}}`),
			status: []string{"  listener one: Accepted Programmed routes=0 kinds=HTTPRoute; ResolvedRefs=False InvalidRouteKinds"},
		},
		{
			// ListenerEntryStatus.AttachedRoutes: "Listener status does not impact successful attachment, i.e. the AttachedRoutes field count MUST be set for Listeners,
			// even if the Accepted condition of an individual Listener is set to "False"." "Routes with any other value for the Accepted condition MUST NOT be included in
			// this count."
			name: "routes of a listener that is not accepted", in: mustOpenGateway + mustSet("s", before, `{name: one, protocol: HTTP, port: 80}, {name: two, protocol: HTTP, port: 81}`) +
				onSet("r", "s") + mustServices,
			status: []string{"  listener one: ResolvedRefs routes=1", "  listener two: Accepted Programmed ResolvedRefs routes=1"},
		},
		{
			// ListenerSetStatus.Conditions and GatewayStatus.AttachedListenerSets: "the total number of ListenerSets that have been successfully attached to this Gateway."
			name: "attached sets", in: mustOpenGateway + mustSet("a", before, both) + mustSet("b", after, both),
			status: []string{"Gateway infra/gw: Accepted Programmed sets=1"},
		},
		{
			// GEP-1713: a Route that names the Gateway attaches to the Gateway's own listeners, not to those of its ListenerSets.
			name: "a route on the Gateway", in: mustOpenGateway + mustSet("s", before, both) + mustRoute("r", toV1) + mustServices,
			asks: []string{"GET http://a.example.com/ => infra/gw/http: shop/v1:80", "GET http://a.example.com:81/ => 404"},
		},
		{
			// ListenerTLSConfig.CertificateRefs, for whoever refers: "If a ReferenceGrant does not allow this reference, the "ResolvedRefs" condition MUST be set to False for
			// this listener with the "RefNotPermitted" reason." A grant for Gateways is none for ListenerSets.
			name: "certificates", in: mustOpenGateway + mustSet("s", before, `{name: one, protocol: HTTPS, port: 443, tls: {certificateRefs: [{name: x, namespace: infra}]}}`) + `
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: g, namespace: infra}
spec: {from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: shop}], to: [{group: "", kind: Secret}]}`,
			status: []string{"ResolvedRefs=False RefNotPermitted"},
		},
		{
			// ListenerEntry.Name: "This name MUST be unique within a ListenerSet." The API server sees to it; of two that get past it the second is refused.
			name: "one name for two listeners", in: mustOpenGateway + mustSet("s", before, `{name: one, protocol: HTTP, port: 81}, {name: one, protocol: HTTP, port: 82}`),
			asks: []string{"GET http://a.example.com:81/ => 404", "GET http://a.example.com:82/ => no http on :82"},
		},
		{
			// ListenerEntry.AllowedRoutes: "Matching precedence MUST be determined in order of the following criteria:" The most specific match, then the oldest route, then
			// the first in the alphabet.
			name: "precedence among routes", in: mustOpenGateway + mustSet("s", before, both) + onSet("b", "s") + mustServices +
				mustRouteOn("c", "{kind: ListenerSet, name: s}", `rules: [{matches: [{path: {value: /c}}], backendRefs: [{name: v2, port: 80}]}]`) +
				mustRouteOn("a", "{kind: ListenerSet, name: s}", toV2),
			asks: []string{"GET http://a.example.com:81/ => listenerset/shop/s/one: shop/v2:80  # HTTPRoute shop/a", "GET http://a.example.com:81/c => listenerset/shop/s/one: shop/v2:80  # HTTPRoute shop/c"},
		},
	})
}
