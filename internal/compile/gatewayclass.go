package compile

import (
	"fmt"
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

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
