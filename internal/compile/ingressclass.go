package compile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// defaultIngressClass is the class that the annotation of old means when there is no IngressClass object of that name.
const defaultIngressClass = "fairlead"

// classAnnotation is how Ingresses named their class before Kubernetes 1.18.
const classAnnotation = "kubernetes.io/ingress.class"

// ingressClasses is what there is to know about classes when Ingresses are sorted into ours and others'.
type ingressClasses struct {
	all        map[string]*networkingv1.IngressClass
	controller string
	byDefault  *networkingv1.IngressClass // for Ingresses that name no class; nil: there is none
}

// ingressClasses looks at every IngressClass.
func (c *compiler) ingressClasses() *ingressClasses {
	k := &ingressClasses{all: c.in.IngressClasses, controller: c.opt.IngressController}
	var defaults []*networkingv1.IngressClass
	for _, name := range slices.Sorted(maps.Keys(k.all)) {
		class := k.all[name]
		if class == nil {
			continue
		}
		if class.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true" {
			defaults = append(defaults, class)
		}
		if k.ours(class) && class.Spec.Parameters != nil {
			c.problems.add(Warning, ingressClassRef(class.Name), "spec.parameters", "InvalidParameters",
				"Fairlead has no parameters of the kind %s and ignores them", class.Spec.Parameters.Kind)
		}
	}
	c.chooseDefault(k, defaults)
	return k
}

// ours tells whether a class is for us to serve.
func (k *ingressClasses) ours(class *networkingv1.IngressClass) bool {
	return class != nil && class.Spec.Controller == k.controller
}

func ingressClassRef(name string) object.Ref { return object.Ref{Kind: "IngressClass", Name: name} }

// chooseDefault decides which class Ingresses get that name none. When several claim to be it, the API server takes the newest, so Fairlead does.
func (c *compiler) chooseDefault(k *ingressClasses, defaults []*networkingv1.IngressClass) {
	if len(defaults) == 0 {
		return
	}
	slices.SortFunc(defaults, func(a, b *networkingv1.IngressClass) int {
		return cmp.Or(b.CreationTimestamp.Compare(a.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	k.byDefault = defaults[0]
	if !slices.ContainsFunc(defaults, k.ours) {
		return
	}
	for _, loser := range defaults[1:] {
		c.problems.add(Warning, ingressClassRef(loser.Name), "metadata.annotations["+networkingv1.AnnotationIsDefaultIngressClass+"]", "SeveralDefaults",
			"IngressClass %s is the default class too, and is the one in use; only one should be marked", k.byDefault.Name)
	}
}

// ourIngresses returns the Ingresses of our classes, oldest first. The others are remembered for those who ask why they are not served.
func (c *compiler) ourIngresses() []*ingress {
	classes := c.ingressClasses()
	var mine []*ingress
	for key, obj := range c.in.Ingresses {
		if obj == nil {
			continue
		}
		g := &ingress{obj: obj, ref: object.Ref{Kind: "Ingress", Namespace: key.Namespace, Name: key.Name}}
		if why, field := c.notOurs(classes, g); why != "" {
			c.rejected = append(c.rejected, route.Rejected{Hostnames: g.wantedHosts(), Why: why, Source: g.source(field)})
			continue
		}
		mine = append(mine, g)
	}
	slices.SortFunc(mine, func(a, b *ingress) int { return cmp.Or(object.Older(a.obj, b.obj), a.ref.Compare(b.ref)) })
	return mine
}

// notOurs says why an Ingress is none of ours, and which field says so; "" when it is. Only what its author can hardly have wanted is a problem: an Ingress of
// another controller's class is not.
func (c *compiler) notOurs(k *ingressClasses, g *ingress) (why, field string) {
	named, old := value(g.obj.Spec.IngressClassName), g.obj.Annotations[classAnnotation]
	switch {
	case named != "":
		if old != "" && old != named && (k.ours(k.all[named]) || k.ours(k.all[old]) || old == defaultIngressClass) {
			c.problems.add(Warning, g.ref, annotationField(classAnnotation), "ClassConflict",
				"the annotation says %q and spec.ingressClassName %q; the field counts, so remove the annotation", old, named)
		}
		return c.notOurClass(k, g, named, "spec.ingressClassName")
	case old != "":
		if k.all[old] == nil && old == defaultIngressClass {
			return "", ""
		}
		return c.notOurClass(k, g, old, annotationField(classAnnotation))
	case k.byDefault == nil:
		c.problems.add(Note, g.ref, "spec.ingressClassName", "NoClass", "the Ingress names no class and there is no default class, so Fairlead does not serve it")
		return "it names no class, and there is no default class", "spec.ingressClassName"
	case !k.ours(k.byDefault):
		return fmt.Sprintf("it names no class, and the default class %s belongs to %s", k.byDefault.Name, k.byDefault.Spec.Controller), "spec.ingressClassName"
	}
	return "", ""
}

func (c *compiler) notOurClass(k *ingressClasses, g *ingress, name, field string) (why, where string) {
	class := k.all[name]
	switch {
	case k.ours(class):
		return "", ""
	case class != nil:
		return fmt.Sprintf("its class %s belongs to %s", name, class.Spec.Controller), field
	}
	c.problems.add(Note, g.ref, field, "ClassNotFound", "IngressClass %q does not exist, so Fairlead does not serve this Ingress", name)
	return fmt.Sprintf("its class %q does not exist", name), field
}

// annotationField is the path of an annotation.
func annotationField(name string) string { return "metadata.annotations[" + name + "]" }
