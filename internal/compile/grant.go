package compile

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// gatewayGroup is the API group of Gateway, HTTPRoute and ReferenceGrant.
const gatewayGroup = gatewayv1.GroupName

// referrer is who refers to something: objects of one kind in one namespace. Grants do not tell their names apart.
type referrer struct{ Group, Kind, Namespace string }

// referent is what is referred to.
type referent struct{ Group, Kind, Namespace, Name string }

// mayRefer tells whether from may refer to the object to: always within a namespace, and across namespaces when a ReferenceGrant in the namespace of to says
// so. It is the only way to a foreign namespace: who follows a reference asks here first, before it looks whether the object exists, so that nobody learns
// what another namespace contains.
func (c *compiler) mayRefer(from referrer, to referent) bool {
	if from.Namespace == to.Namespace {
		return true
	}
	return slices.ContainsFunc(c.grantsIn(to.Namespace), func(g *gatewayv1.ReferenceGrant) bool {
		return slices.ContainsFunc(g.Spec.From, from.grantedBy) && slices.ContainsFunc(g.Spec.To, to.grantedBy)
	})
}

func (r referrer) grantedBy(f gatewayv1.ReferenceGrantFrom) bool {
	return r == referrer{string(f.Group), string(f.Kind), string(f.Namespace)}
}

func (r referent) grantedBy(t gatewayv1.ReferenceGrantTo) bool {
	return r.Group == string(t.Group) && r.Kind == string(t.Kind) && (t.Name == nil || r.Name == string(*t.Name))
}

// grantsIn returns the ReferenceGrants of a namespace.
func (c *compiler) grantsIn(namespace string) []*gatewayv1.ReferenceGrant {
	if c.grants == nil {
		c.grants = make(map[string][]*gatewayv1.ReferenceGrant)
		for key, g := range c.in.ReferenceGrants {
			if g != nil {
				c.grants[key.Namespace] = append(c.grants[key.Namespace], g)
			}
		}
	}
	return c.grants[namespace]
}

// secretReferent names a Secret.
func secretReferent(k object.Key) referent {
	return referent{Group: corev1.GroupName, Kind: "Secret", Namespace: k.Namespace, Name: k.Name}
}

// serviceReferent names a Service.
func serviceReferent(k object.Key) referent {
	return referent{Group: corev1.GroupName, Kind: "Service", Namespace: k.Namespace, Name: k.Name}
}
