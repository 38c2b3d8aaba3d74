package compile

import (
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

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
			checkClients(t, in, l)
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

// checkClients checks that whoever demands certificates of clients may refer to the authorities that they have to come from.
func checkClients(t *testing.T, in *object.Snapshot, l *route.Listener) {
	t.Helper()
	if l.Clients == nil {
		return
	}
	for _, name := range l.Clients.From {
		namespace, name, _ := strings.Cut(name, "/")
		by := l.Clients.Source
		if !allowedSlowly(in, referrer{gatewayGroup, by.Kind, by.Namespace}, configMapReferent(object.Key{Namespace: namespace, Name: name})) {
			t.Errorf("%s trusts ConfigMap %s/%s without a grant", by, namespace, name)
		}
	}
}

func checkRule(t *testing.T, in *object.Snapshot, r *route.Rule) {
	t.Helper()
	if m := r.Match.Path; m.Kind != route.Regex && m.Value != "" {
		if normal, _, err := route.NormalizePath(m.Value); err != nil || normal != m.Value {
			t.Errorf("%s: path %q is not in normal form", r.Source, m.Value)
		}
	}
	if r.Retry != nil && (r.Retry.Attempts < 0 || r.Retry.Backoff < 0) {
		t.Errorf("%s: retries %v", r.Source, r.Retry)
	}
	if r.Persistence != nil && !isToken(r.Persistence.Name) {
		t.Errorf("%s: sessions are kept by %q", r.Source, r.Persistence.Name)
	}
	checkFilters(t, in, r.Source, r.Filters)
	for _, b := range r.Backends {
		if b.Weight < 0 || b.Pool == nil && b.Fault == nil {
			t.Errorf("%s: backend %+v", r.Source, b)
		}
		checkFilters(t, in, r.Source, b.Filters)
		if b.Pool != nil && b.Fault == nil {
			checkPool(t, in, r.Source, b.Pool)
		}
	}
}

// checkFilters checks that filters send nothing where it must not go, and put nothing into a message that would be more than one header.
func checkFilters(t *testing.T, in *object.Snapshot, by route.Source, filters []route.Filter) {
	t.Helper()
	for _, f := range filters {
		switch f := f.(type) {
		case *route.Mirror:
			checkPool(t, in, by, f.Pool)
			if f.Numerator < 0 || f.Denominator <= 0 {
				t.Errorf("%s: mirrors %d of %d", by, f.Numerator, f.Denominator)
			}
		case *route.ExternalAuth:
			if (f.Pool == nil) == (f.Fault == nil) || f.MaxBody < 0 {
				t.Errorf("%s: %+v", by, f)
			}
			if f.Pool != nil {
				checkPool(t, in, by, f.Pool)
			}
		case *route.RequestHeaders:
			checkHeaders(t, by, &f.HeaderChange)
		case *route.ResponseHeaders:
			checkHeaders(t, by, &f.HeaderChange)
		case *route.Redirect:
			checkTarget(t, by, f.Hostname, f.Path)
			if f.Scheme != "" && f.Scheme != "http" && f.Scheme != "https" || f.Status < 301 || f.Status > 308 {
				t.Errorf("%s: redirect %+v", by, f)
			}
		case *route.Rewrite:
			checkTarget(t, by, f.Hostname, f.Path)
		case *route.CORS:
			for _, name := range slices.Concat(f.Methods, f.Headers, f.Expose) {
				if !isToken(name) {
					t.Errorf("%s: CORS allows %q", by, name)
				}
			}
		default:
			t.Errorf("%s: a filter that nobody checks: %T", by, f)
		}
	}
}

func checkHeaders(t *testing.T, by route.Source, c *route.HeaderChange) {
	t.Helper()
	for _, h := range slices.Concat(c.Set, c.Add) {
		if !isToken(h.Name) || !isLine(h.Value) {
			t.Errorf("%s: header %q: %q", by, h.Name, h.Value)
		}
	}
	for _, name := range c.Remove {
		if !isToken(name) {
			t.Errorf("%s: header %q", by, name)
		}
	}
}

// checkTarget checks the host and the path that a request, or its sender, is sent to.
func checkTarget(t *testing.T, by route.Source, host string, path *route.PathChange) {
	t.Helper()
	if !isLine(host) || strings.ContainsAny(host, " /?#@") {
		t.Errorf("%s: host %q", by, host)
	}
	if path == nil {
		return
	}
	for _, p := range []*string{path.Full, path.Prefix} {
		if p != nil && !isLine(*p) {
			t.Errorf("%s: path %q", by, *p)
		}
	}
}

// isLine tells whether a text cannot end the line that it is written to.
func isLine(s string) bool { return !strings.ContainsAny(s, "\r\n\x00") }

// isToken reads RFC 9110, section 5.6.2.
func isToken(s string) bool {
	rest := strings.TrimLeftFunc(s, func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
	return s != "" && rest == ""
}

// checkPool checks that who sends something to a pool may, and that what its endpoints have to prove is said by somebody who may say it, of what they may refer to.
func checkPool(t *testing.T, in *object.Snapshot, by route.Source, pool *route.Pool) {
	t.Helper()
	key := object.Key{Namespace: pool.Key.Namespace, Name: pool.Key.Service}
	to := serviceReferent(key)
	if pool.Key.Kind != "" {
		to = referent{xbackendGroup, xbackendKind, key.Namespace, key.Name}
	}
	if !allowedSlowly(in, referrer{gatewayGroup, by.Kind, by.Namespace}, to) {
		t.Errorf("%s uses %s %s without a grant", by, to.Kind, key)
	}
	demand := pool.TLS
	if demand == nil {
		return
	}
	if demand.Source.Namespace != key.Namespace {
		t.Errorf("%s says who %s has to be", demand.Source, pool.Key)
	}
	for _, from := range demand.From {
		if namespace, _, ok := strings.Cut(from, "/"); ok && namespace != key.Namespace {
			t.Errorf("%s trusts %s, in another namespace", demand.Source, from)
		}
	}
	if pair := demand.Client; pair != nil {
		from := referrer{xbackendGroup, xbackendKind, key.Namespace}
		if pool.Key.Kind == "" {
			namespace, _, _ := strings.Cut(pool.Key.Variant, "/")
			from = referrer{gatewayGroup, "Gateway", namespace}
		}
		if !allowedSlowly(in, from, secretReferent(object.Key{Namespace: pair.Namespace, Name: pair.Name})) {
			t.Errorf("%s presents Secret %s/%s, which a %s of namespace %s may not refer to", pool.Key, pair.Namespace, pair.Name, from.Kind, from.Namespace)
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
	known := generations(in)
	for ref, status := range routeStatuses(s) {
		generation, exists := known[ref]
		if len(status.Parents) == 0 || len(status.Parents) > 32 || !exists {
			t.Errorf("%s: %d parents, exists: %v", ref, len(status.Parents), exists)
		}
		for _, p := range status.Parents {
			check(ref.String(), generation, p.Conditions)
		}
	}
	for key := range s.Ingresses {
		if in.Ingresses[key] == nil {
			t.Errorf("Ingress %s does not exist and has a status", key)
		}
	}
}

// routeStatuses are the statuses of routes of all kinds.
func routeStatuses(s Status) map[object.Ref]gatewayv1.RouteStatus {
	out := map[object.Ref]gatewayv1.RouteStatus{}
	add := func(kind string, key object.Key, status gatewayv1.RouteStatus) {
		out[object.Ref{Kind: kind, Namespace: key.Namespace, Name: key.Name}] = status
	}
	for key, status := range s.HTTPRoutes {
		add("HTTPRoute", key, status.RouteStatus)
	}
	for key, status := range s.GRPCRoutes {
		add("GRPCRoute", key, status.RouteStatus)
	}
	for key, status := range s.TLSRoutes {
		add("TLSRoute", key, status.RouteStatus)
	}
	for key, status := range s.TCPRoutes {
		add("TCPRoute", key, status.RouteStatus)
	}
	for key, status := range s.UDPRoutes {
		add("UDPRoute", key, status.RouteStatus)
	}
	return out
}

// generations are those of the routes of all kinds.
func generations(in *object.Snapshot) map[object.Ref]int64 {
	out := map[object.Ref]int64{}
	addGenerations(out, "HTTPRoute", in.HTTPRoutes)
	addGenerations(out, "GRPCRoute", in.GRPCRoutes)
	addGenerations(out, "TLSRoute", in.TLSRoutes)
	addGenerations(out, "TCPRoute", in.TCPRoutes)
	addGenerations(out, "UDPRoute", in.UDPRoutes)
	return out
}

func addGenerations[O any, P interface {
	*O
	metav1.Object
}](out map[object.Ref]int64, kind string, all map[object.Key]P) {
	for key, o := range all {
		if o != nil {
			out[object.Ref{Kind: kind, Namespace: key.Namespace, Name: key.Name}] = o.GetGeneration()
		}
	}
}
