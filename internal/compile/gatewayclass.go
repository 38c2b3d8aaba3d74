package compile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/pkg/consts"

	"github.com/fairlead-io/fairlead/internal/object"
)

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
		conditions := []metav1.Condition{accepted.condition("Accepted", "Accepted", class.Generation)}
		if len(c.in.Definitions) > 0 {
			conditions = append(conditions, c.supportedVersion(class).condition("SupportedVersion", "SupportedVersion", class.Generation))
		}
		set(&c.status.GatewayClasses, name, gatewayv1.GatewayClassStatus{Conditions: conditions, SupportedFeatures: c.features()})
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

// supportedVersion says whether the definitions of the kinds are from the release of the Gateway API that Fairlead is built for, or a patch of it. Those of another
// are served as far as they say the same.
func (c *compiler) supportedVersion(class *gatewayv1.GatewayClass) verdict {
	release := consts.BundleVersion[:strings.LastIndexByte(consts.BundleVersion, '.')+1] // v1.6.
	var others []string
	for _, name := range slices.Sorted(maps.Keys(c.in.Definitions)) {
		if version := c.in.Definitions[name].Version; !strings.HasPrefix(version, release) {
			others = append(others, fmt.Sprintf("%s (%s)", name, cmp.Or(version, "without a version")))
		}
	}
	if len(others) == 0 {
		return verdict{}
	}
	v := verdict{
		Reason: string(gatewayv1.GatewayClassReasonUnsupportedVersion),
		Message: fmt.Sprintf("Fairlead is built for %sx of the Gateway API, and the cluster has definitions of other versions: %s; they are served as far as they are the same",
			release, list(others)),
	}
	c.problems.add(Warning, classRef(class.Name), "spec.controllerName", v.Reason, "%s", v.Message)
	return v
}
