package compile

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// maxAncestors is how many Gateways the status of a policy can hold.
const maxAncestors = 16

// policy is an object that says how Services of its namespace are to be spoken to, while it is compiled.
type policy struct {
	demander
	obj metav1.Object

	tls      *route.PoolTLS     // of a BackendTLSPolicy
	budget   *route.Budget      // of an XBackendTrafficPolicy; nil: it says nothing of that
	sessions *route.Persistence // the same

	conflict  verdict             // with an older policy, about one of the targets
	ancestors map[object.Ref]bool // the Gateways with routes that lead to what it is about
}

// policyTarget is a Service, or one port of it, that policies of one kind are about. Those of another kind do not get into their way.
type policyTarget struct {
	kind    string // of the policies
	service object.Key
	port    string // its name; "" for the whole Service
}

// String names the target for people.
func (t policyTarget) String() string {
	if t.port == "" {
		return "Service " + t.service.String()
	}
	return fmt.Sprintf("port %s of Service %s", t.port, t.service)
}

// policies finds out which policies are in force for the Services.
func (c *compiler) policies() {
	c.backendTLSPolicies() // backendtls.go
	c.trafficPolicies()    // trafficpolicy.go
}

// oldest returns the objects of a kind with those first that go before the others.
func oldest[O any, P interface {
	*O
	metav1.Object
}](m map[object.Key]P) []P {
	all := slices.DeleteFunc(object.Sorted(m), func(o P) bool { return o == nil })
	slices.SortFunc(all, func(a, b P) int { return object.Older(a, b) })
	return all
}

func (c *compiler) newPolicy(kind string, obj metav1.Object) *policy {
	p := &policy{obj: obj, demander: demander{ref: object.Ref{Kind: kind, Namespace: obj.GetNamespace(), Name: obj.GetName()}}}
	c.everyPolicy = append(c.everyPolicy, p)
	return p
}

// target puts a policy in force for one of its targets, unless an older one is. port is the name of the Service's port; "" for all.
func (c *compiler) target(p *policy, ref *gatewayv1.LocalPolicyTargetReference, port, field string) {
	if ref.Group != corev1.GroupName || ref.Kind != "Service" {
		c.problems.add(Error, p.ref, field, string(gatewayv1.PolicyReasonTargetNotFound), "a policy cannot be about a %s (group %q); Services are supported", ref.Kind, ref.Group)
		return
	}
	t := policyTarget{p.ref.Kind, object.Key{Namespace: p.ref.Namespace, Name: string(ref.Name)}, port}
	switch service := c.in.Services[t.service]; {
	case service == nil:
		c.problems.add(Warning, p.ref, field, string(gatewayv1.PolicyReasonTargetNotFound), "Service %s does not exist", t.service)
	case port != "" && !slices.ContainsFunc(service.Spec.Ports, func(s corev1.ServicePort) bool { return s.Name == port }):
		c.problems.add(Warning, p.ref, field+".sectionName", string(gatewayv1.PolicyReasonTargetNotFound), "Service %s has no port named %q; it has %s",
			t.service, port, portsOf(service))
	}
	if older := c.inForce[t]; len(older) > 0 && older[0] != p {
		v := verdict{string(gatewayv1.PolicyReasonConflicted), fmt.Sprintf("%s comes first and is about the same, %s", older[0].ref, t)}
		c.problems.add(Error, p.ref, field, v.Reason, "%s", v.Message)
		p.conflict = p.conflict.or(v)
	}
	set(&c.inForce, t, append(c.inForce[t], p))
}

// policyFor returns the policy of a kind that is in force for a port of a Service; nil if there is none. One for the port goes before one for the Service.
func (c *compiler) policyFor(kind string, service object.Key, port string) *policy {
	for _, t := range []policyTarget{{kind, service, port}, {kind, service, ""}} {
		if all := c.inForce[t]; len(all) > 0 {
			return all[0]
		}
	}
	return nil
}

// policyStatus writes the status of the policies, as seen by each Gateway with a route that leads to what the policy is about.
func (c *compiler) policyStatus(gateways []*gateway) {
	if len(c.inForce) == 0 {
		return
	}
	for _, g := range gateways {
		for _, l := range g.listeners {
			for _, o := range l.open {
				for pool := range poolsOf(o.Listener) {
					c.addAncestor(pool, l)
				}
			}
		}
	}
	for _, p := range c.everyPolicy {
		switch {
		case len(p.ancestors) == 0:
		case p.ref.Kind == trafficKind:
			set(&c.status.XBackendTrafficPolicies, p.ref.Key(), c.ancestorStatus(p))
		default:
			set(&c.status.BackendTLSPolicies, p.ref.Key(), c.ancestorStatus(p))
		}
	}
}

// addAncestor notes that a listener's Gateway leads to a pool, for all policies about it that hold there. None does for datagrams.
func (c *compiler) addAncestor(pool *route.Pool, l *listener) {
	if pool.Key.Kind != "" || pool.Key.UDP {
		return // policies are about Services, and what is sent to them in a stream
	}
	service := object.Key{Namespace: pool.Key.Namespace, Name: pool.Key.Service}
	ports := []string{""}
	if name := nameOfPort(c.in.Services[service], pool.Key.Port); name != "" {
		ports = append(ports, name)
	}
	kinds := []string{backendTLSKind, trafficKind}
	if l.mode == route.Passthrough {
		kinds = kinds[1:] // what passes through is encrypted already, for whoever has its certificate
	}
	for _, kind := range kinds {
		for _, port := range ports {
			for _, p := range c.inForce[policyTarget{kind, service, port}] {
				set(&p.ancestors, l.gateway.ref, true)
			}
		}
	}
}

func (c *compiler) ancestorStatus(p *policy) (status gatewayv1.PolicyStatus) {
	gateways := sortedRefs(p.ancestors)
	if len(gateways) > maxAncestors {
		c.problems.add(Warning, p.ref, "status.ancestors", "TooMany", "%d Gateways lead to what the policy is about; the status can hold %d", len(gateways), maxAncestors)
		gateways = gateways[:maxAncestors]
	}
	generation := p.obj.GetGeneration()
	conditions := []metav1.Condition{p.conflict.or(p.accepted).condition("Accepted", "Accepted", generation)}
	if p.ref.Kind == backendTLSKind { // the other kind refers to nothing but its targets
		conditions = append(conditions, p.resolved.condition("ResolvedRefs", "ResolvedRefs", generation))
	}
	for _, ref := range gateways {
		status.Ancestors = append(status.Ancestors, gatewayv1.PolicyAncestorStatus{
			AncestorRef:    ancestorRef(ref),
			ControllerName: gatewayv1.GatewayController(c.opt.GatewayController),
			Conditions:     slices.Clone(conditions),
		})
	}
	return status
}

func sortedRefs(set map[object.Ref]bool) []object.Ref {
	return slices.SortedFunc(maps.Keys(set), object.Ref.Compare)
}

func ancestorRef(ref object.Ref) gatewayv1.ParentReference {
	return gatewayv1.ParentReference{
		Group: new(gatewayv1.Group(gatewayGroup)), Kind: new(gatewayv1.Kind(ref.Kind)),
		Namespace: new(gatewayv1.Namespace(ref.Namespace)), Name: gatewayv1.ObjectName(ref.Name),
	}
}
