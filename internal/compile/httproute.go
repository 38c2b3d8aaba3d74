package compile

import (
	"fmt"
	"regexp"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// httpRoutes compiles every HTTPRoute that names one of our Gateways.
func (c *compiler) httpRoutes(index parents) {
	eachRoute(c, "HTTPRoute", c.in.HTTPRoutes, func(obj *gatewayv1.HTTPRoute, ref object.Ref) {
		attachments := c.attach(headOf(ref, &obj.Spec.CommonRouteSpec, c.routeHostnames(ref, obj.Spec.Hostnames)), index)
		if len(attachments) == 0 {
			return
		}
		specs := obj.Spec.Rules
		if len(specs) == 0 {
			specs = make([]gatewayv1.HTTPRouteRule, 1) // which matches everything and has no backends, as the API server would have it
		}
		r := &httpRoute{compiler: c, routeBody: routeBody{ref: ref}, matches: httpMatches(specs)}
		set(&c.status.HTTPRoutes, ref.Key(), gatewayv1.HTTPRouteStatus{RouteStatus: r.serve(obj, specs, attachments)})
	})
}

// httpRoute is an HTTPRoute, or a GRPCRoute seen as one, while it is compiled.
type httpRoute struct {
	*compiler
	routeBody
	created time.Time
	matches ruleMatches
	filters []gatewayv1.HTTPRouteFilterType // that the kind can have; nil is all
}

// ruleMatches are the matches of the rules of a route: what is different between the kinds.
type ruleMatches interface {
	count(rule int) int
	// match compiles one match. Nothing in it is taken on trust: an API server checks it, a folder does not.
	match(rule, j int) (route.Match, *fieldError)
	// every is the match of a rule that has none.
	every() route.Match
}

// httpMatches are the matches of the rules of an HTTPRoute.
type httpMatches []gatewayv1.HTTPRouteRule

func (m httpMatches) count(rule int) int { return len(m[rule].Matches) }

func (m httpMatches) match(rule, j int) (route.Match, *fieldError) {
	return httpMatch(&m[rule].Matches[j])
}

func (m httpMatches) every() route.Match { return route.Match{Path: route.PathMatch{Value: "/"}} }

// serve compiles the rules of a route and puts them where it attaches.
func (r *httpRoute) serve(obj metav1.Object, specs []gatewayv1.HTTPRouteRule, attachments []attachment) gatewayv1.RouteStatus {
	r.created = obj.GetCreationTimestamp().Time
	r.compile(specs)
	r.place(attachments)
	return r.routeStatus(&r.routeBody, obj.GetGeneration(), attachments)
}

// compile compiles the rules.
func (r *httpRoute) compile(specs []gatewayv1.HTTPRouteRule) {
	r.checkLimits(specs)
	var names map[gatewayv1.SectionName]bool
	for i := range specs {
		rule := httpRule{httpRoute: r, spec: &specs[i], index: i}
		rule.compile()
		if name := specs[i].Name; name != nil {
			if names[*name] {
				r.problems.add(Warning, r.ref, rule.field()+".name", "DuplicateName", "another rule is named %q already", *name)
			}
			set(&names, *name, true)
		}
	}
}

func (r *httpRoute) checkLimits(specs []gatewayv1.HTTPRouteRule) {
	matches := 0
	for i := range specs {
		s := &specs[i]
		n := r.matches.count(i)
		matches += n
		if n > 64 || len(s.Filters) > 16 || len(s.BackendRefs) > 16 {
			r.checkLimit(r.ref, ruleField(i)+".matches", n, 64)
			r.checkLimit(r.ref, ruleField(i)+".filters", len(s.Filters), 16)
			r.checkLimit(r.ref, ruleField(i)+".backendRefs", len(s.BackendRefs), 16)
		}
	}
	r.checkLimit(r.ref, "spec.rules", len(specs), 16)
	r.checkLimit(r.ref, "spec.rules[*].matches", matches, 128)
}

// httpRule is a rule of an HTTPRoute while it is compiled.
type httpRule struct {
	*httpRoute
	spec  *gatewayv1.HTTPRouteRule
	index int
	fault *route.Fault // answers all requests of the rule
}

// field is the rule's place in the route.
func (r *httpRule) field() string { return ruleField(r.index) }

// flawed notes that a part of the rule cannot be served.
func (r *httpRule) flawed(field string, reason gatewayv1.RouteConditionReason, message string) {
	field = r.field() + field
	r.problems.add(Error, r.ref, field, string(reason), "%s", message)
	r.flaws = append(r.flaws, flaw{field, verdict{string(reason), message}})
}

// broken notes that the rule as a whole cannot be served: it answers its requests with an error.
func (r *httpRule) broken(field string, reason gatewayv1.RouteConditionReason, message string) {
	r.flawed(field, reason, message)
	if r.fault == nil {
		r.fault = invalid(r.field()+field, message)
	}
}

// invalid answers what cannot be served as it is written.
func invalid(field, message string) *route.Fault {
	return &route.Fault{Status: 500, Reason: route.RouteInvalid, Why: field + ": " + message}
}

func (r *httpRule) compile() {
	filters := r.ownFilters()
	rule := route.Rule{Filters: filters.list(), Timeouts: r.timeouts(), Retry: r.retry(), Persistence: r.persistence()}
	if filters.has(gatewayv1.HTTPRouteFilterRequestRedirect) {
		r.checkRedirectAlone()
	} else {
		rule.Backends = r.backends(filters)
	}
	r.checkPreflights(filters)
	if r.fault != nil {
		rule = route.Rule{Fault: r.fault}
	} else if !filters.has(gatewayv1.HTTPRouteFilterRequestRedirect) {
		rule.Fault = noBackend(rule.Backends)
	}
	if filters != nil && filters.fault != nil && rule.Fault == nil {
		rule.Fault = filters.fault
	}
	if r.addMatches(&rule) > 0 && r.fault == nil && !allInvalid(rule.Backends) {
		r.sound++
	}
}

func (r *httpRule) checkRedirectAlone() {
	if len(r.spec.BackendRefs) > 0 {
		r.problems.add(Warning, r.ref, r.field()+".backendRefs", "RedirectWithBackends", "the redirect answers all requests, so that no backend ever gets one")
	}
}

// noBackend answers the requests of a rule that has nowhere to send them, which is no mistake: its author may be about to add backends.
func noBackend(backends []route.WeightedPool) *route.Fault {
	for _, b := range backends {
		if b.Weight > 0 {
			return nil
		}
	}
	why := "the rule has no backendRefs"
	if len(backends) > 0 {
		why = "all backendRefs of the rule have the weight 0"
	}
	return &route.Fault{Status: 500, Reason: route.NoBackend, Why: why}
}

// allInvalid tells whether the filters of every backend that gets requests are invalid.
func allInvalid(backends []route.WeightedPool) bool {
	some := false
	for _, b := range backends {
		if b.Weight == 0 {
			continue
		}
		if b.Fault == nil || b.Fault.Reason != route.RouteInvalid {
			return false
		}
		some = true
	}
	return some
}

// addMatches adds the rule once for each of its matches, and returns how many are valid. The requests that an invalid match was meant for cannot be told from
// others, so it matches none.
func (r *httpRule) addMatches(rule *route.Rule) int {
	rule.Order = route.Order{Created: r.created, Rule: r.index}
	rule.Source = r.source(r.field())
	n := r.matches.count(r.index)
	if n == 0 {
		rule.Match = r.matches.every()
		r.rules = append(r.rules, new(*rule))
		return 1
	}
	copies := make([]route.Rule, 0, n)
	for j := range n {
		match, err := r.matches.match(r.index, j)
		if err != nil {
			r.flawed(indexed(".matches", j)+err.field, gatewayv1.RouteReasonUnsupportedValue, err.Error()+"; this match matches nothing")
			continue
		}
		rule.Match, rule.Order.Match, rule.Source.Field = match, j, matchField(r.index, j)
		copies = append(copies, *rule)
		r.rules = append(r.rules, &copies[len(copies)-1])
	}
	return len(copies)
}

// ownFilters compiles the rule's own filters.
func (r *httpRule) ownFilters() *httpFilters {
	if len(r.spec.Filters) == 0 {
		return nil
	}
	f := r.newFilters(r.field(), nil)
	f.compile(r.spec.Filters, func(err *filterError) {
		r.broken(err.field, err.reason, err.Error())
		r.resolves(err)
	})
	return f
}

// newFilters makes ready for compiling filters at a field; those of a backend have the rule's as outer.
func (r *httpRule) newFilters(field string, outer *httpFilters) *httpFilters {
	return &httpFilters{
		ports: r.opt.servedPort, prefixes: r.hasOnePrefix(), outer: outer, types: r.filters,
		warn: func(at, code, message string) { r.problems.add(Warning, r.ref, field+at, code, "%s", message) },
		backend: func(at string, ref *gatewayv1.BackendObjectReference) (*route.Pool, string) {
			pool, v, code := r.backendPool(r.ref, ref)
			if !v.ok() {
				r.problems.add(Error, r.ref, field+at, code, "%s", v.Message)
				r.leadsNowhere(v)
			}
			return pool, v.Message
		},
	}
}

// resolves notes a filter that refers to something that means nothing here.
func (r *httpRule) resolves(err *filterError) {
	if err.unresolved {
		r.leadsNowhere(verdict{string(gatewayv1.RouteReasonInvalidKind), err.Error()})
	}
}

// hasOnePrefix tells whether the rule has exactly one match, and that is of a prefix.
func (r *httpRule) hasOnePrefix() bool {
	switch len(r.spec.Matches) {
	case 0:
		return true
	case 1:
		p := r.spec.Matches[0].Path
		return p == nil || orDefault(p.Type, gatewayv1.PathMatchPathPrefix) == gatewayv1.PathMatchPathPrefix
	}
	return false
}

// backends compiles the backends of the rule. One that leads nowhere keeps its share of the requests and answers them with an error.
func (r *httpRule) backends(filters *httpFilters) []route.WeightedPool {
	if len(r.spec.BackendRefs) == 0 {
		return nil
	}
	out := make([]route.WeightedPool, len(r.spec.BackendRefs))
	for j := range r.spec.BackendRefs {
		out[j] = r.backend(&r.spec.BackendRefs[j], j, filters)
	}
	return out
}

func (r *httpRule) backend(ref *gatewayv1.HTTPBackendRef, j int, filters *httpFilters) route.WeightedPool {
	field := backendField(r.index, j)
	out := route.WeightedPool{Weight: orDefault(ref.Weight, 1), Source: r.source(field)}
	if out.Weight < 0 || out.Weight > maxWeight {
		r.broken(indexed(".backendRefs", j)+".weight", gatewayv1.RouteReasonUnsupportedValue,
			fmt.Sprintf("weight %d is not between 0 and %d", out.Weight, maxWeight))
		out.Weight = 0
	}
	pool, v, code := r.backendPool(r.ref, &ref.BackendObjectReference)
	out.Pool = pool
	if !v.ok() {
		r.problems.add(Error, r.ref, field, code, "%s", v.Message)
		r.leadsNowhere(v)
		out.Fault = &route.Fault{Status: 500, Reason: route.NoBackend, Why: v.Message}
	}
	if len(ref.Filters) > 0 {
		r.backendFilters(&out, ref.Filters, j, filters)
	}
	return out
}

// backendFilters compiles the filters of a backend. If one of them is invalid, its requests are not sent to it without.
func (r *httpRule) backendFilters(out *route.WeightedPool, specs []gatewayv1.HTTPRouteFilter, j int, outer *httpFilters) {
	own := r.newFilters(out.Source.Field, outer)
	own.compile(specs, func(err *filterError) {
		at := indexed(".backendRefs", j) + err.field
		r.flawed(at, err.reason, err.Error())
		r.resolves(err)
		out.Fault = invalid(r.field()+at, err.Error())
	})
	if out.Fault == nil {
		out.Fault = own.fault
	}
	if out.Fault == nil {
		out.Filters = own.list()
	} else {
		out.Pool = nil
	}
}

// timeouts compiles the timeouts of the rule: zero in the API is none, which is negative in the table.
func (r *httpRule) timeouts() (out route.Timeouts) {
	t := r.spec.Timeouts
	if t == nil {
		return out
	}
	out.Request = r.timeout(".timeouts.request", t.Request)
	out.Backend = r.timeout(".timeouts.backendRequest", t.BackendRequest)
	if out.Request > 0 && out.Backend > out.Request {
		r.problems.add(Warning, r.ref, r.field()+".timeouts.backendRequest", "TimeoutTooLong",
			"%s is longer than the timeout of the whole request, %s, which ends it before", *t.BackendRequest, *t.Request)
	}
	return out
}

func (r *httpRule) timeout(field string, d *gatewayv1.Duration) time.Duration {
	if d == nil {
		return 0
	}
	parsed, err := time.ParseDuration(string(*d))
	if err != nil || !duration.MatchString(string(*d)) {
		r.broken(field, gatewayv1.RouteReasonUnsupportedValue, fmt.Sprintf("%.64q is not a duration such as 10s, 1m30s or 500ms", *d))
		return 0
	}
	if parsed == 0 {
		return -1
	}
	return parsed
}

// duration is what a duration of Gateway API looks like (GEP-2257).
var duration = regexp.MustCompile(`^([0-9]{1,5}(h|m|s|ms)){1,4}$`)
