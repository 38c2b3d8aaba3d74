// Package suite_test runs the conformance suite of the Gateway API against the Fairlead of a test cluster. It runs inside of the cluster's namespaces, where the
// addresses of Gateways can be reached: see `cluster suite` and conformance/README.md.
package suite_test

import (
	_ "embed"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"
	v1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance"
	confv1 "sigs.k8s.io/gateway-api/conformance/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

// The address that the cluster's load balancer can give, because it is in its pool, and one that it cannot.
const (
	usable   = "10.100.1.200"
	unusable = "192.0.2.1"
)

// TestGatewayAPI takes the flags of the suite itself; this fills in what is always the same.
func TestGatewayAPI(t *testing.T) {
	opts := conformance.DefaultOptions(t)
	if len(opts.ConformanceProfiles) == 0 && opts.RunTest == "" {
		opts.ConformanceProfiles = profiles(t, opts)
	}
	if opts.RunTest == "" {
		opts.SkipTests = append(opts.SkipTests, skipped(t)...)
	}
	opts.UsableNetworkAddresses = addresses(usable)
	opts.UnusableNetworkAddresses = addresses(unusable)
	opts.Implementation = confv1.Implementation{
		Organization: "fairlead-io", Project: "fairlead", URL: "https://github.com/fairlead-io/fairlead", Version: opts.Implementation.Version,
		Contact: []string{"https://github.com/fairlead-io/fairlead/issues"},
	}
	conformance.RunConformanceWithOptions(t, opts)
}

//go:embed skipped.txt
var notYet string

// skipped are the tests that are not run yet, each of which has a reason.
func skipped(t *testing.T) []string {
	t.Helper()
	var names []string
	for line := range strings.Lines(notYet) {
		name, reason, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case name == "" || name == "#":
		case strings.TrimSpace(reason) == "":
			t.Errorf("skipped.txt gives no reason for %s", name)
		default:
			t.Logf("%s is skipped: %s", name, strings.TrimSpace(reason))
			names = append(names, name)
		}
	}
	return names
}

// profileOf says which profile a kind of route belongs to.
var profileOf = map[features.FeatureName]suite.ConformanceProfileName{
	features.SupportHTTPRoute: suite.GatewayHTTPConformanceProfileName, features.SupportGRPCRoute: suite.GatewayGRPCConformanceProfileName,
	features.SupportTLSRoute: suite.GatewayTLSConformanceProfileName, features.SupportTCPRoute: suite.GatewayTCPConformanceProfileName,
	features.SupportUDPRoute: suite.GatewayUDPConformanceProfileName,
}

// profiles are those of the kinds of route that are claimed: in the flags, or by the GatewayClass.
func profiles(t *testing.T, opts suite.ConformanceOptions) []suite.ConformanceProfileName {
	t.Helper()
	claimed := opts.SupportedFeatures
	if len(claimed) == 0 {
		var class v1.GatewayClass
		if err := opts.Client.Get(t.Context(), client.ObjectKey{Name: opts.GatewayClassName}, &class); err != nil {
			t.Fatal(err)
		}
		for _, f := range class.Status.SupportedFeatures {
			claimed = append(claimed, features.FeatureName(f.Name))
		}
	}
	var out []suite.ConformanceProfileName
	for _, f := range claimed {
		if p, ok := profileOf[f]; ok {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

func addresses(ip string) []v1.GatewaySpecAddress {
	kind := v1.IPAddressType
	return []v1.GatewaySpecAddress{{Type: &kind, Value: ip}}
}
