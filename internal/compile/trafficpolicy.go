package compile

import (
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

const trafficKind = "XBackendTrafficPolicy"

// trafficPolicies finds out which policy says how often requests for each Service are sent again, and where clients are kept: the oldest.
func (c *compiler) trafficPolicies() {
	for _, obj := range oldest(c.in.XBackendTrafficPolicies) {
		p := c.newPolicy(trafficKind, obj)
		c.guard(p.ref, func() { c.readTrafficPolicy(p, &obj.Spec) })
		for i := range obj.Spec.TargetRefs {
			c.guard(p.ref, func() { c.target(p, &obj.Spec.TargetRefs[i], "", indexed("spec.targetRefs", i)) })
		}
	}
}

// readTrafficPolicy reads what a policy says. Of one that is not valid nothing counts.
func (c *compiler) readTrafficPolicy(p *policy, spec *gatewayx.BackendTrafficPolicySpec) {
	c.checkLimit(p.ref, "spec.targetRefs", len(spec.TargetRefs), 16)
	budget := c.retryBudget(p, spec.RetryConstraint)
	sessions, err := persistenceOf(spec.SessionPersistence, p.ref.String())
	if err != nil {
		c.invalidDemand(&p.demander, "spec.sessionPersistence"+err.field, gatewayv1.PolicyReasonInvalid, "%s", err.Error())
	}
	if p.accepted.ok() {
		p.budget, p.sessions = budget, sessions
	}
}

// retryBudget reads how many requests may be sent again; nil if the policy does not say.
func (c *compiler) retryBudget(p *policy, spec *gatewayx.RetryConstraint) *route.Budget {
	if spec == nil {
		return nil
	}
	b := defaultBudget
	b.Strict = true
	if d := spec.Budget; d != nil {
		const field = "spec.retryConstraint.budget"
		b.Percent = c.policyNumber(p, field+".percent", d.Percent, 0, 100, b.Percent)
		b.Interval = c.policySpan(p, field+".interval", d.Interval, time.Second, b.Interval)
	}
	if r := spec.MinRetryRate; r != nil {
		const field = "spec.retryConstraint.minRetryRate"
		b.Count = c.policyNumber(p, field+".count", r.Count, 1, 1_000_000, b.Count)
		b.CountInterval = c.policySpan(p, field+".interval", r.Interval, time.Millisecond, b.CountInterval)
	}
	return &b
}

func (c *compiler) policyNumber(p *policy, field string, given *int, least, most, standard int) int {
	n := orDefault(given, standard)
	if n < least || n > most {
		c.invalidDemand(&p.demander, field, gatewayv1.PolicyReasonInvalid, "%d is not a number from %d to %d", n, least, most)
	}
	return n
}

func (c *compiler) policySpan(p *policy, field string, given *gatewayv1.Duration, least, standard time.Duration) time.Duration {
	if given == nil {
		return standard
	}
	d, err := time.ParseDuration(string(*given))
	if err != nil || !duration.MatchString(string(*given)) || d < least || d > time.Hour {
		c.invalidDemand(&p.demander, field, gatewayv1.PolicyReasonInvalid, "%.64q is not a duration from %s to %s, such as 10s", *given, least, time.Hour)
	}
	return d
}

// constrain makes a pool do as the policy for its Service says. That comes before annotations, which say the same in Fairlead's own words.
func (r *serviceReader) constrain(p *route.Pool) {
	policy := r.policyFor(trafficKind, object.Key{Namespace: p.Key.Namespace, Name: p.Key.Service}, "")
	if policy == nil {
		return
	}
	if policy.budget != nil {
		p.Care.Budget = *policy.budget
		r.overruled(policy, annotationPrefix+"retry-budget-percent")
	}
	if policy.sessions != nil {
		if p.Policy.Persistence.Name != "" {
			r.overruled(policy, affinityAnnotation)
		}
		p.Policy.Persistence = *policy.sessions
	}
}

// overruled notes an annotation that says what a policy says, too.
func (r *serviceReader) overruled(p *policy, annotation string) {
	if _, ok := r.annotation(annotation); ok {
		r.invalid(annotation, "%s says the same, and is in force", p.ref)
	}
}
