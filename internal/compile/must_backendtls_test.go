package compile

import (
	"strings"
	"testing"
)

// mustPolicy is a BackendTLSPolicy for Service shop/v1; validation is what it demands of the endpoints.
func mustPolicy(name, created, validation string) string {
	return `
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: ` + name + `, namespace: shop, generation: 4, creationTimestamp: "` + created + `"}
spec: {targetRefs: [{group: "", kind: Service, name: v1}], validation: {` + validation + `}}
---`
}

// Each row is a sentence of the Go documentation of BackendTLSPolicy; see TestMust.
func TestMustOfBackendTLSPolicies(t *testing.T) {
	const before, after, system = "2025-01-01T00:00:00Z", "2025-01-02T00:00:00Z", "wellKnownCACertificates: System, hostname: v1.test"
	toV1 := mustGateway + mustRoute("r", toV1) + mustServices
	checkMust(t, []mustRow{
		{
			// BackendTLSPolicySpec.TargetRefs: "When more than one BackendTLSPolicy selects the same target and sectionName, implementations MUST determine precedence using
			// the following criteria, continuing on ties:" "For example, a policy with a creation timestamp of "2021-07-15 01:02:03" MUST be given precedence over a policy
			// with a creation timestamp of "2021-07-15 01:02:04"." "For any BackendTLSPolicy that does not take precedence, the implementation MUST ensure the `Accepted`
			// Condition is set to `status: False`, with Reason `Conflicted`."
			name: "the older", in: toV1 + mustPolicy("a", after, system) + mustPolicy("b", before, system),
			status: []string{"BackendTLSPolicy shop/a for infra/gw: ResolvedRefs; Accepted=False Conflicted", "BackendTLSPolicy shop/b for infra/gw: Accepted ResolvedRefs"},
		},
		{
			// "The policy appearing first in alphabetical order by {namespace}/{name}."
			name: "the first in the alphabet", in: toV1 + mustPolicy("b", before, system) + mustPolicy("a", before, system),
			status: []string{"BackendTLSPolicy shop/a for infra/gw: Accepted ResolvedRefs", "BackendTLSPolicy shop/b for infra/gw: ResolvedRefs; Accepted=False Conflicted"},
		},
		{
			// BackendTLSPolicyValidation.CACertificateRefs: "In all cases, the implementation MUST ensure the `ResolvedRefs` Condition on the BackendTLSPolicy is set to
			// `status: False`, with a Reason and Message that indicate the cause of the error." "Connections using an invalid CACertificateRef MUST fail, and the client
			// MUST receive an HTTP 5xx error response." "If ALL CACertificateRefs are invalid, the implementation MUST also ensure the `Accepted` Condition on the
			// BackendTLSPolicy is set to `status: False`, with a Reason `NoValidCACertificate`."
			name: "no certificate", in: toV1 + mustPolicy("p", before, `caCertificateRefs: [{group: "", kind: ConfigMap, name: nobody}], hostname: v1.test`),
			status: []string{"BackendTLSPolicy shop/p for infra/gw: Accepted=False NoValidCACertificate", "ResolvedRefs=False InvalidCACertificateRef", "nobody"},
			asks:   []string{"GET http://a.example.com/ => 502 backend-connect-failed"},
		},
		{
			// "It refers to an unknown or unsupported kind of resource. In this case, the Reason must be set to `InvalidKind` and the Message of the Condition must explain
			// which kind of resource is unknown or unsupported."
			name: "kind", in: toV1 + mustPolicy("p", before, `caCertificateRefs: [{group: example.com, kind: Odd, name: x}], hostname: v1.test`),
			status: []string{"BackendTLSPolicy shop/p for infra/gw: Accepted=False NoValidCACertificate", "ResolvedRefs=False InvalidKind", "Odd"},
			asks:   []string{"GET http://a.example.com/ => 502 backend-connect-failed"},
		},
		{
			// BackendTLSPolicyValidation.WellKnownCACertificates: "If an implementation does not support the WellKnownCACertificates field, or the supplied value is not
			// recognized, the implementation MUST ensure the `Accepted` Condition on the BackendTLSPolicy is set to `status: False`, with a Reason `Invalid`."
			name: "unknown authorities", in: toV1 + mustPolicy("p", before, "wellKnownCACertificates: example.com/odd, hostname: v1.test"),
			status: []string{"BackendTLSPolicy shop/p for infra/gw: ResolvedRefs; Accepted=False Invalid"},
			asks:   []string{"GET http://a.example.com/ => 502 backend-connect-failed"},
		},
		{
			// SubjectAltName.URI: "It MUST include both a scheme (e.g., "http" or "ftp") and a scheme-specific-part."
			name: "names", in: toV1 + mustPolicy("p", before, system+`, subjectAltNames: [{type: URI, uri: no-scheme}]`),
			status: []string{"BackendTLSPolicy shop/p for infra/gw: ResolvedRefs; Accepted=False Invalid"},
		},
		{
			// BackendTLSPolicyValidation.CACertificateRefs: "If CACertificateRefs is empty or unspecified, the configuration for WellKnownCACertificates MUST be honored
			// instead if supported by the implementation." BackendTLSPolicyValidation.Hostname: "Hostname MUST be used as the SNI to connect to the backend (RFC 6066)."
			// "Hostname MUST be used for authentication and MUST match the certificate served by the matching backend, unless SubjectAltNames is specified." What an
			// endpoint that must verify is asked for and shows is for backend.TestEndpointsAreVerified.
			name: "authorities of the system", in: toV1 + mustPolicy("p", before, system),
			status: []string{"BackendTLSPolicy shop/p for infra/gw: Accepted ResolvedRefs"},
			table:  []string{"pool shop/v1:80  https verify v1.test by=system policy=shop/p"},
		},
		{
			// BackendTLSPolicyValidation.Hostname: "If SubjectAltNames are specified, Hostname can be used for certificate selection but MUST NOT be used for
			// authentication." BackendTLSPolicyValidation.SubjectAltNames: "When specified the certificate served from the backend MUST have at least one Subject Alternate
			// Name matching one of the specified SubjectAltNames." Such names replace the hostname.
			name: "names in place of the hostname", in: toV1 + mustPolicy("p", before, system+`, subjectAltNames: [{type: Hostname, hostname: other.test}, {type: URI, uri: "spiffe://example.com/v1"}]`),
			table: []string{`pool shop/v1:80  https verify v1.test as="dns:other.test,uri:spiffe://example.com/v1" by=system policy=shop/p`},
		},
		{
			// PolicyStatus.Ancestors: "When this policy attaches to a parent, the controller that manages the parent and the ancestors MUST add an entry to this list when
			// the controller first sees the policy and SHOULD update the entry as appropriate when the relevant ancestor is modified." "Note also that implementations MUST
			// ONLY populate ancestor status for the Ancestor resources they are responsible for." Of a Gateway that no request for the Service passes, and of one that is
			// somebody else's, the policy says nothing.
			name: "ancestors", in: toV1 + mustPolicy("p", before, system) + strings.ReplaceAll(mustListeners("{name: http, protocol: HTTP, port: 81}"), "name: gw", "name: idle") +
				strings.ReplaceAll(strings.ReplaceAll(mustGateway, "name: gw", "name: foreign"), "gatewayClassName: fairlead", "gatewayClassName: other") +
				strings.Replace(mustRoute("f", "rules: [{backendRefs: [{name: v1, port: 80}]}]"), "name: gw,", "name: foreign,", 1),
			status: []string{"BackendTLSPolicy shop/p for infra/gw: Accepted ResolvedRefs\n"},
			no:     []string{"BackendTLSPolicy shop/p for infra/idle", "BackendTLSPolicy shop/p for infra/foreign"},
		},
	})
}
