package compile

import (
	"fmt"
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// supportedFeatures are the features of Gateway API that are implemented, by the names of its conformance tests, in alphabetical order as the API wants them.
var supportedFeatures = []gatewayv1.FeatureName{
	"Gateway",
	"GatewayAddressEmpty",
	"GatewayHTTPListenerIsolation",
	"GatewayHTTPSListenerDetectMisdirectedRequests",
	"GatewayPort8080",
	"GatewayStaticAddresses",
	"HTTPRoute",
	"HTTPRoute303RedirectStatusCode",
	"HTTPRoute307RedirectStatusCode",
	"HTTPRoute308RedirectStatusCode",
	"HTTPRouteBackendProtocolH2C",
	"HTTPRouteBackendProtocolWebSocket",
	"HTTPRouteBackendRequestHeaderModification",
	"HTTPRouteBackendTimeout",
	"HTTPRouteDestinationPortMatching",
	"HTTPRouteHostRewrite",
	"HTTPRouteMethodMatching",
	"HTTPRouteNamedRouteRule",
	"HTTPRouteParentRefPort",
	"HTTPRoutePathRedirect",
	"HTTPRoutePathRewrite",
	"HTTPRoutePortRedirect",
	"HTTPRouteQueryParamMatching",
	"HTTPRouteRequestTimeout",
	"HTTPRouteResponseHeaderModification",
	"HTTPRouteSchemeRedirect",
	"ReferenceGrant",
}

// classRef names a GatewayClass.
func classRef(name string) object.Ref { return object.Ref{Kind: "GatewayClass", Name: name} }

// gatewayClasses writes the status of every GatewayClass that names our controller, and returns whether each is accepted.
func (c *compiler) gatewayClasses() map[string]verdict {
	ours := make(map[string]verdict)
	for _, name := range slices.Sorted(maps.Keys(c.in.GatewayClasses)) {
		class := c.in.GatewayClasses[name]
		if class == nil || string(class.Spec.ControllerName) != c.opt.GatewayController {
			continue
		}
		accepted := c.gatewayClassAccepted(class)
		ours[name] = accepted
		set(&c.status.GatewayClasses, name, gatewayv1.GatewayClassStatus{
			Conditions:        []metav1.Condition{accepted.condition("Accepted", "Accepted", class.Generation)},
			SupportedFeatures: c.features(),
		})
	}
	return ours
}

func (c *compiler) gatewayClassAccepted(class *gatewayv1.GatewayClass) verdict {
	ref := class.Spec.ParametersRef
	if ref == nil {
		return verdict{}
	}
	v := verdict{
		Reason:  string(gatewayv1.GatewayClassReasonInvalidParameters),
		Message: fmt.Sprintf("Fairlead has no parameters of the kind %s (group %q) that parametersRef names", ref.Kind, ref.Group),
	}
	c.problems.add(Error, classRef(class.Name), "spec.parametersRef", v.Reason, "%s", v.Message)
	return v
}

func (c *compiler) features() []gatewayv1.SupportedFeature {
	names := slices.Clone(supportedFeatures)
	if c.opt.Cluster != nil {
		names = append(names, "GatewayInfrastructure") // elsewhere there is nothing that labels could be put on
		slices.Sort(names)
	}
	out := make([]gatewayv1.SupportedFeature, len(names))
	for i, name := range names {
		out[i].Name = name
	}
	return out
}
