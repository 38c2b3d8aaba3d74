package compile

import (
	"maps"
	"slices"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// policies compares what every BackendTLSPolicy is told, by the Gateways that lead to what it is about.
func (p *property) policies() {
	for key, policy := range p.in.BackendTLSPolicies {
		refused, unresolved := p.trust(&policy.Spec.Validation, key.Namespace)
		refused = append(refused, p.conflictOf(policy)...)
		var have []gatewayv1.ParentReference
		for _, a := range p.res.Status.BackendTLSPolicies[key].Ancestors {
			have = append(have, a.AncestorRef)
			p.demands("BackendTLSPolicy "+key.String(), a.Conditions, refused, unresolved)
			p.note("policy", slices.Concat(refused, unresolved), len(refused) == 0, "accepted", sectionOf(policy.Spec.TargetRefs[0]) != "", "of one port")
		}
		p.ancestors("BackendTLSPolicy "+key.String(), have, func(d destination, l *entry, kind string) bool {
			return d.kind == "Service" && kind != "UDPRoute" && !l.passesThrough() && targets(policy, d)
		})
	}
}

// targets tells whether a policy is about what a backendRef leads to: "SectionName is the name of a section within the target resource. When unspecified, this targetRef
// targets the entire resource. Service: Port name".
func targets(policy *gatewayv1.BackendTLSPolicy, d destination) bool {
	return policy.Namespace == d.key.Namespace && slices.ContainsFunc(policy.Spec.TargetRefs, func(t gatewayv1.LocalPolicyTargetReferenceWithSectionName) bool {
		return string(t.Name) == d.key.Name && (sectionOf(t) == "" || d.port != nil && sectionOf(t) == d.port.Name)
	})
}

// xbackends compares what every XBackend is told.
func (p *property) xbackends() {
	for key, x := range p.in.XBackends {
		refused, unresolved := p.trustOf(x)
		var have []gatewayv1.ParentReference
		for _, a := range p.res.Status.XBackends[key].Ancestors {
			have = append(have, a.AncestorRef)
			p.demands("XBackend "+key.String(), a.Conditions, refused, unresolved)
			p.note("XBackend", slices.Concat(refused, unresolved), len(refused) == 0, "accepted")
		}
		p.ancestors("XBackend "+key.String(), have, func(d destination, _ *entry, _ string) bool { return d.kind == "XBackend" && d.key == key })
	}
}

func (p *property) demands(what string, conditions []metav1.Condition, refused, unresolved []string) {
	p.check(what, conditions, "Accepted", len(refused) == 0, refused...)
	p.check(what, conditions, "ResolvedRefs", len(unresolved) == 0, unresolved...)
}

// ancestors compares which Gateways speak of an object that backends are, or have. All of them do at a listener of which a route leads to it, and no others. About those
// whose listener is not accepted, and about references that lead nowhere for another reason than the object, the specification says nothing.
func (p *property) ancestors(what string, have []gatewayv1.ParentReference, isAbout func(d destination, l *entry, kind string) bool) {
	must, may := map[object.Key]bool{}, map[object.Key]bool{}
	for g, entries := range p.entries {
		for _, r := range p.read {
			for _, d := range p.destinations(r.route) {
				for _, l := range entries {
					if r.isAt(l) && d.permitted() && isAbout(d, l, r.route.kind) {
						may[g] = true
						must[g] = must[g] || l.served() && d.reason == ""
					}
				}
			}
		}
	}
	for _, ref := range have {
		key := object.Key{Namespace: string(*ref.Namespace), Name: string(ref.Name)}
		if !may[key] {
			p.Errorf("Gateway %s speaks of %s, to which it does not lead", key, what)
		}
		delete(must, key)
	}
	for key, missing := range must {
		if missing {
			p.Errorf("Gateway %s does not speak of %s, to which it leads", key, what)
		}
	}
}

// destinations are what the backendRefs of a route lead to.
func (p *property) destinations(r *anyRoute) (out []destination) {
	for _, rule := range r.Spec.Rules {
		for i := range rule.BackendRefs {
			out = append(out, p.leadsTo(r, &rule.BackendRefs[i].BackendRef))
		}
	}
	return out
}

// secrecy takes away the objects that nobody may refer to, all at once: no result may tell that they were there.
func (p *property) secrecy() {
	in := *p.in
	in.Secrets = known(p, "Secret", in.Secrets, p.isSecretReferredTo)
	in.Services = known(p, "Service", in.Services, func(key object.Key) bool { return p.isBackend("Service", key) || p.isTarget(key) })
	in.XBackends = known(p, "XBackend", in.XBackends, func(key object.Key) bool { return p.isBackend("XBackend", key) })
	in.ConfigMaps = known(p, "ConfigMap", in.ConfigMaps, p.isAuthority)
	if diff := gocmp.Diff(resultText(p.res), resultText(Compile(&in, graphOptions(p.T)))); diff != "" {
		p.Errorf("without the objects that nobody may refer to, the result is another:\n%s", diff)
	}
}

// known returns a copy of a map without the objects that nobody may refer to.
func known[V any](p *property, kind string, m map[object.Key]V, isKnown func(object.Key) bool) map[object.Key]V {
	m = maps.Clone(m)
	maps.DeleteFunc(m, func(key object.Key, _ V) bool {
		p.note("secrecy", nil, !isKnown(key), kind)
		return !isKnown(key)
	})
	return m
}

// isSecretReferredTo tells whether a Secret is referred to by a listener or an XBackend that may.
func (p *property) isSecretReferredTo(key object.Key) bool {
	for _, x := range p.in.XBackends {
		if named, ok := p.presentedTo(x); ok && named == key && p.mayPresent(x, key) && p.isBackend("XBackend", object.KeyOf(x)) {
			return true
		}
	}
	return slices.ContainsFunc(p.all, func(l *entry) bool {
		return l.spec.TLS != nil && slices.ContainsFunc(l.spec.TLS.CertificateRefs, func(ref gatewayv1.SecretObjectReference) bool {
			return secretOf(l, ref) == key && allowedSlowly(p.in, referrer{gatewayGroup, l.kind, l.owner.Namespace}, referent{corev1.GroupName, "Secret", key.Namespace, key.Name})
		})
	})
}

// isBackend tells whether an object is referred to by a route that may.
func (p *property) isBackend(kind string, key object.Key) bool {
	return slices.ContainsFunc(p.read, func(r routeReading) bool {
		return slices.ContainsFunc(p.destinations(r.route), func(d destination) bool { return d.kind == kind && d.key == key && d.permitted() })
	})
}

// isTarget tells whether a policy is about a Service.
func (p *property) isTarget(service object.Key) bool {
	for key, policy := range p.in.BackendTLSPolicies {
		if key.Namespace == service.Namespace && slices.ContainsFunc(policy.Spec.TargetRefs, func(t gatewayv1.LocalPolicyTargetReferenceWithSectionName) bool {
			return string(t.Name) == service.Name
		}) {
			return true
		}
	}
	return false
}

// isAuthority tells whether a ConfigMap is trusted by an object of its namespace.
func (p *property) isAuthority(m object.Key) bool {
	trusts := func(v *gatewayv1.BackendTLSPolicyValidation) bool {
		return slices.ContainsFunc(v.CACertificateRefs, func(ref gatewayv1.LocalObjectReference) bool {
			return ref.Kind == "ConfigMap" && string(ref.Name) == m.Name
		})
	}
	for key, policy := range p.in.BackendTLSPolicies {
		if key.Namespace == m.Namespace && trusts(&policy.Spec.Validation) {
			return true
		}
	}
	for key, x := range p.in.XBackends {
		if key.Namespace == m.Namespace && x.Spec.TLS != nil && trusts(&x.Spec.TLS.Validation) && p.isBackend("XBackend", key) {
			return true
		}
	}
	return false
}
