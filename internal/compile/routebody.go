package compile

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// routeHostnames returns the hostnames of a route in lower case, without those that are none. When none is left, there is none: the route must not become one
// for all hosts.
func (c *compiler) routeHostnames(ref object.Ref, in []gatewayv1.Hostname) []string {
	if len(in) == 0 {
		return anyHostname
	}
	c.checkLimit(ref, "spec.hostnames", len(in), 16)
	out := make([]string, 0, len(in))
	for i, h := range in {
		name, err := cleanHostname(string(h), true)
		if err != nil {
			c.problems.add(Error, ref, indexed("spec.hostnames", i), "InvalidHostname", "the hostname %v; it is ignored", err)
		} else if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// routeBody is what the rules of a route come to, whatever its kind.
type routeBody struct {
	ref      object.Ref
	rules    []*route.Rule
	resolved verdict // the first reference that leads nowhere
	astray   int     // how many references lead nowhere
	flaws    []flaw  // what of the rules cannot be served
	sound    int     // how many rules can be served, at least in part
}

// eachRoute has every route of a kind compiled. They come sorted, so that what they add to lists comes in the same order each time.
func eachRoute[R interface {
	comparable
	metav1.Object
}](c *compiler, kind string, routes map[object.Key]R, compile func(R, object.Ref)) {
	var none R
	for _, obj := range object.Sorted(routes) {
		if obj != none {
			ref := object.Ref{Kind: kind, Namespace: obj.GetNamespace(), Name: obj.GetName()}
			c.guard(ref, func() { compile(obj, ref) })
		}
	}
}

// flaw is a part of a route that cannot be served.
type flaw struct {
	field string
	verdict
}

func (r *routeBody) source(field string) route.Source {
	return route.Source{Kind: r.ref.Kind, Namespace: r.ref.Namespace, Name: r.ref.Name, Field: field}
}

// leadsNowhere notes a reference that does not resolve.
func (r *routeBody) leadsNowhere(v verdict) {
	r.resolved = r.resolved.or(v)
	r.astray++
}

// accepted says whether the content of the route lets it be accepted: when one of its rules can be served.
func (r *routeBody) accepted() verdict {
	if r.sound > 0 {
		return verdict{}
	}
	return verdict{r.flaws[0].Reason, "no rule can be served: " + r.flawText()}
}

// flawText lists the flaws for a status.
func (r *routeBody) flawText() string {
	const few = 3
	texts := make([]string, 0, few+1)
	for _, f := range r.flaws[:min(few, len(r.flaws))] {
		texts = append(texts, f.field+": "+f.Message)
	}
	if n := len(r.flaws) - few; n > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", n))
	}
	return strings.Join(texts, "; ")
}

// place puts the rules into the hosts of the listeners that took the route, and counts the route there. Rules that answer with an error are among them: they
// keep their requests, so that these do not fall to a rule that was not meant for them.
func (r *routeBody) place(attachments []attachment) {
	count := r.accepted().ok()
	var done []*listener
	rules := r.rules
	for _, a := range attachments {
		for _, p := range a.places {
			// Two parentRefs may mean the same listener, one by its Gateway and one by its name.
			if slices.Contains(done, p.listener) {
				continue
			}
			done = append(done, p.listener)
			if count {
				p.listener.attached++
			}
			for _, o := range p.listener.open {
				if rules == nil {
					rules = cloneRules(r.rules)
				}
				o.addRules(p.hostnames, rules)
				rules = nil
			}
		}
	}
}

func (o *openListener) addRules(hostnames []string, rules []*route.Rule) {
	for _, name := range hostnames {
		h := o.host(name)
		h.Rules = append(h.Rules, rules...)
	}
}

// cloneRules gives a further listener rules of its own: the data plane counts the requests of a rule for each listener.
func cloneRules(rules []*route.Rule) []*route.Rule {
	copies := make([]route.Rule, len(rules))
	out := make([]*route.Rule, len(rules))
	for i, r := range rules {
		copies[i] = *r
		out[i] = &copies[i]
	}
	return out
}

// routeStatus returns what each parent says about a route.
func (c *compiler) routeStatus(r *routeBody, generation int64, attachments []attachment) (status gatewayv1.RouteStatus) {
	accepted, resolved := r.accepted(), r.resolved
	c.leadTo(r.ref, attachments)
	if r.astray > 1 {
		resolved.Message += fmt.Sprintf("; and %d more", r.astray-1)
	}
	for _, a := range attachments {
		v := a.accepted.or(accepted)
		conditions := []metav1.Condition{
			v.condition("Accepted", "Accepted", generation),
			resolved.condition("ResolvedRefs", "ResolvedRefs", generation),
		}
		if v.ok() && len(r.flaws) > 0 {
			conditions = append(conditions, metav1.Condition{
				Type: "PartiallyInvalid", Status: metav1.ConditionTrue, Reason: r.flaws[0].Reason, ObservedGeneration: generation,
				Message: "Dropped Rule: " + r.flawText(),
			})
		}
		status.Parents = append(status.Parents, gatewayv1.RouteParentStatus{
			ParentRef: a.parent, ControllerName: gatewayv1.GatewayController(c.opt.GatewayController), Conditions: conditions,
		})
	}
	return status
}
