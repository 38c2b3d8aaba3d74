// Package suite_test runs the conformance suite of the Gateway API against the Fairlead of a test cluster. It runs inside of the cluster's namespaces, where the
// addresses of Gateways can be reached: see `cluster suite` and conformance/README.md.
package suite_test

import (
	"testing"

	v1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance"
	confv1 "sigs.k8s.io/gateway-api/conformance/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
)

// The address that the cluster's load balancer can give, because it is in its pool, and one that it cannot.
const (
	usable   = "10.100.1.200"
	unusable = "192.0.2.1"
)

// TestGatewayAPI takes the flags of the suite itself; this fills in what is always the same.
func TestGatewayAPI(t *testing.T) {
	opts := conformance.DefaultOptions(t)
	if len(opts.ConformanceProfiles) == 0 {
		opts.ConformanceProfiles = []suite.ConformanceProfileName{
			suite.GatewayHTTPConformanceProfileName, suite.GatewayGRPCConformanceProfileName, suite.GatewayTLSConformanceProfileName,
			suite.GatewayTCPConformanceProfileName, suite.GatewayUDPConformanceProfileName,
		}
	}
	opts.UsableNetworkAddresses = addresses(usable)
	opts.UnusableNetworkAddresses = addresses(unusable)
	opts.Implementation = confv1.Implementation{
		Organization: "fairlead-io", Project: "fairlead", URL: "https://github.com/fairlead-io/fairlead", Version: opts.Implementation.Version,
		Contact: []string{"https://github.com/fairlead-io/fairlead/issues"},
	}
	conformance.RunConformanceWithOptions(t, opts)
}

func addresses(ip string) []v1.GatewaySpecAddress {
	kind := v1.IPAddressType
	return []v1.GatewaySpecAddress{{Type: &kind, Value: ip}}
}
