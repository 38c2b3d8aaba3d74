package compile

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// checkResult checks what must be true of every result.
func checkResult(t *testing.T, in *object.Snapshot, res Result) {
	t.Helper()
	for _, p := range res.Problems {
		if p.Code == codeInternal {
			t.Errorf("internal error: %s", p)
		}
		if p.Message == "" || p.Code == "" || p.Object.Name == "" && p.Object.Kind == "" {
			t.Errorf("a problem says too little: %+v", p)
		}
	}
	for _, p := range res.Table.Ports {
		names := map[string]bool{}
		for _, l := range p.Listeners {
			if names[l.Hostname] && !l.LastResort {
				t.Errorf("two listeners of %s have the hostname %q", p.Bind, l.Hostname)
			}
			names[l.Hostname] = names[l.Hostname] || !l.LastResort
			for _, h := range l.Hosts {
				for _, r := range h.Rules {
					checkRule(t, in, r)
				}
			}
		}
	}
	for _, c := range res.Certificates {
		for _, pair := range c.Pairs {
			from := referrer{gatewayGroup, c.Source.Kind, c.Source.Namespace}
			if !allowedSlowly(in, from, secretReferent(object.Key{Namespace: pair.Namespace, Name: pair.Name})) {
				t.Errorf("%s uses Secret %s/%s without a grant", c.Source, pair.Namespace, pair.Name)
			}
		}
	}
	checkConditions(t, in, res.Status)
	checkInfrastructure(t, in, res)
}

func checkRule(t *testing.T, in *object.Snapshot, r *route.Rule) {
	t.Helper()
	if m := r.Match.Path; m.Kind != route.Regex && m.Value != "" {
		if normal, _, err := route.NormalizePath(m.Value); err != nil || normal != m.Value {
			t.Errorf("%s: path %q is not in normal form", r.Source, m.Value)
		}
	}
	for _, b := range r.Backends {
		if b.Weight < 0 || b.Pool == nil && b.Fault == nil {
			t.Errorf("%s: backend %+v", r.Source, b)
		}
		if b.Pool == nil || b.Fault != nil {
			continue
		}
		from := referrer{gatewayGroup, r.Source.Kind, r.Source.Namespace}
		if !allowedSlowly(in, from, serviceReferent(object.Key{Namespace: b.Pool.Key.Namespace, Name: b.Pool.Key.Service})) {
			t.Errorf("%s uses Service %s without a grant", r.Source, b.Pool.Key)
		}
	}
}

// checkConditions checks that every condition has a reason and the generation of its object, and each type once.
func checkConditions(t *testing.T, in *object.Snapshot, s Status) {
	t.Helper()
	check := func(what string, generation int64, conditions []metav1.Condition) {
		t.Helper()
		seen := map[string]bool{}
		for _, c := range conditions {
			if c.Reason == "" || c.ObservedGeneration != generation || seen[c.Type] || len(c.Message) > 32768 {
				t.Errorf("%s: condition %+v, want generation %d", what, c, generation)
			}
			if c.Status != metav1.ConditionTrue && c.Message == "" && c.Reason != "NoConflicts" {
				t.Errorf("%s: condition %+v has no message", what, c)
			}
			seen[c.Type] = true
		}
		if len(conditions) == 0 || len(conditions) > 8 {
			t.Errorf("%s: %d conditions", what, len(conditions))
		}
	}
	for name, status := range s.GatewayClasses {
		check("GatewayClass "+name, in.GatewayClasses[name].Generation, status.Conditions)
	}
	for key, status := range s.Gateways {
		generation := in.Gateways[key].Generation
		check("Gateway "+key.String(), generation, status.Conditions)
		for _, l := range status.Listeners {
			check("listener "+string(l.Name), generation, l.Conditions)
			if l.SupportedKinds == nil {
				t.Errorf("listener %s: supportedKinds is nil, which is not an empty list", l.Name)
			}
		}
	}
	for key, status := range s.ListenerSets {
		generation := in.ListenerSets[key].Generation
		check("ListenerSet "+key.String(), generation, status.Conditions)
		for _, l := range status.Listeners {
			check("listener "+string(l.Name), generation, l.Conditions)
		}
	}
	for key, status := range s.BackendTLSPolicies {
		if n := len(status.Ancestors); n == 0 || n > 16 {
			t.Errorf("BackendTLSPolicy %s: %d ancestors", key, n)
		}
		for _, a := range status.Ancestors {
			check("BackendTLSPolicy "+key.String(), in.BackendTLSPolicies[key].Generation, a.Conditions)
		}
	}
	for key, status := range s.XBackendTrafficPolicies {
		if n := len(status.Ancestors); n == 0 || n > 16 {
			t.Errorf("XBackendTrafficPolicy %s: %d ancestors", key, n)
		}
		for _, a := range status.Ancestors {
			check("XBackendTrafficPolicy "+key.String(), in.XBackendTrafficPolicies[key].Generation, a.Conditions)
		}
	}
	for key, status := range s.XBackends {
		if n := len(status.Ancestors); n == 0 || n > 32 {
			t.Errorf("XBackend %s: %d ancestors", key, n)
		}
		for _, a := range status.Ancestors {
			check("XBackend "+key.String(), in.XBackends[key].Generation, a.Conditions)
		}
	}
	for key, status := range s.HTTPRoutes {
		if len(status.Parents) > 32 {
			t.Errorf("HTTPRoute %s: %d parents", key, len(status.Parents))
		}
		for _, p := range status.Parents {
			check("HTTPRoute "+key.String(), in.HTTPRoutes[key].Generation, p.Conditions)
		}
	}
}
