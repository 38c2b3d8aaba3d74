package compile

import (
	"errors"
	"fmt"
	"regexp"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// grpcRoutes compiles every GRPCRoute that names one of our Gateways, as an HTTPRoute whose matches are others: all else is the same, under the same names.
func (c *compiler) grpcRoutes(index parents) {
	eachRoute(c, "GRPCRoute", c.in.GRPCRoutes, func(obj *gatewayv1.GRPCRoute, ref object.Ref) {
		attachments := c.attach(headOf(ref, &obj.Spec.CommonRouteSpec, c.routeHostnames(ref, obj.Spec.Hostnames)), index)
		if len(attachments) == 0 {
			return
		}
		specs := obj.Spec.Rules
		if len(specs) == 0 {
			specs = make([]gatewayv1.GRPCRouteRule, 1)
		}
		rules := make([]gatewayv1.HTTPRouteRule, len(specs))
		for i := range specs {
			rules[i] = grpcAsHTTP(&specs[i])
		}
		r := &httpRoute{compiler: c, routeBody: routeBody{ref: ref}, matches: grpcMatches(specs), filters: grpcFilters}
		set(&c.status.GRPCRoutes, ref.Key(), gatewayv1.GRPCRouteStatus{RouteStatus: r.serve(obj, rules, attachments)})
	})
}

// grpcFilters are the types of filters that a GRPCRoute can have.
var grpcFilters = []gatewayv1.HTTPRouteFilterType{
	gatewayv1.HTTPRouteFilterRequestHeaderModifier, gatewayv1.HTTPRouteFilterResponseHeaderModifier, gatewayv1.HTTPRouteFilterRequestMirror,
	gatewayv1.HTTPRouteFilterExtensionRef,
}

// grpcAsHTTP is a rule without its matches.
func grpcAsHTTP(r *gatewayv1.GRPCRouteRule) gatewayv1.HTTPRouteRule {
	out := gatewayv1.HTTPRouteRule{Name: r.Name, Filters: grpcFiltersAsHTTP(r.Filters), SessionPersistence: r.SessionPersistence}
	for i := range r.BackendRefs {
		b := &r.BackendRefs[i]
		out.BackendRefs = append(out.BackendRefs, gatewayv1.HTTPBackendRef{BackendRef: b.BackendRef, Filters: grpcFiltersAsHTTP(b.Filters)})
	}
	return out
}

func grpcFiltersAsHTTP(in []gatewayv1.GRPCRouteFilter) []gatewayv1.HTTPRouteFilter {
	if in == nil {
		return nil
	}
	out := make([]gatewayv1.HTTPRouteFilter, len(in))
	for i := range in {
		f := &in[i]
		out[i] = gatewayv1.HTTPRouteFilter{
			Type: gatewayv1.HTTPRouteFilterType(f.Type), RequestHeaderModifier: f.RequestHeaderModifier, ResponseHeaderModifier: f.ResponseHeaderModifier,
			RequestMirror: f.RequestMirror, ExtensionRef: f.ExtensionRef,
		}
	}
	return out
}

// grpcMatches are the matches of the rules of a GRPCRoute.
type grpcMatches []gatewayv1.GRPCRouteRule

func (m grpcMatches) count(rule int) int { return len(m[rule].Matches) }

// every matches all gRPC requests.
func (m grpcMatches) every() route.Match { return route.Match{GRPC: &route.GRPCMatch{}} }

func (m grpcMatches) match(rule, j int) (out route.Match, err *fieldError) {
	spec := &m[rule].Matches[j]
	if out.GRPC, err = grpcMethodMatch(spec.Method); err != nil {
		return out, err.below(".method")
	}
	headers := make([]gatewayv1.HTTPHeaderMatch, len(spec.Headers))
	for i := range spec.Headers {
		h := &spec.Headers[i]
		headers[i] = gatewayv1.HTTPHeaderMatch{Name: gatewayv1.HTTPHeaderName(h.Name), Value: h.Value, Type: (*gatewayv1.HeaderMatchType)(h.Type)}
	}
	if out.Headers, err = headerMatches(headers); err != nil {
		return out, err.below(".headers")
	}
	return out, nil
}

func grpcMethodMatch(m *gatewayv1.GRPCMethodMatch) (*route.GRPCMatch, *fieldError) {
	out := &route.GRPCMatch{}
	if m == nil {
		return out, nil
	}
	service, method := orDefault(m.Service, ""), orDefault(m.Method, "")
	if service == "" && method == "" {
		return nil, &fieldError{"", errors.New("neither service nor method is given; at least one is needed")}
	}
	read := exactGRPCName
	switch typ := orDefault(m.Type, gatewayv1.GRPCMethodMatchExact); typ {
	case gatewayv1.GRPCMethodMatchExact:
	case gatewayv1.GRPCMethodMatchRegularExpression:
		read = regexGRPCName
	default:
		return nil, fieldErrorf(".type", "match type %q is none of Exact, RegularExpression", typ)
	}
	var err error
	if out.Service, err = read(service, grpcService); err != nil {
		return nil, &fieldError{".service", err}
	}
	if out.Method, err = read(method, grpcMethod); err != nil {
		return nil, &fieldError{".method", err}
	}
	return out, nil
}

// The names that a service and a method can have, by the rules of the CRD.
var (
	grpcService = regexp.MustCompile(`^\.?[A-Za-z_][A-Za-z_0-9]*(\.[A-Za-z_][A-Za-z_0-9]*)*$`)
	grpcMethod  = regexp.MustCompile(`^[A-Za-z_][A-Za-z_0-9]*$`)
)

// maxGRPCName is the longest name of a service or method, and the longest expression for one.
const maxGRPCName = 1024

func exactGRPCName(name string, valid *regexp.Regexp) (route.GRPCName, error) {
	if len(name) > maxGRPCName {
		return route.GRPCName{}, fmt.Errorf("has %d characters, %d are allowed", len(name), maxGRPCName)
	}
	if name != "" && !valid.MatchString(name) {
		return route.GRPCName{}, fmt.Errorf("%.64q cannot be a name in gRPC: want %s", name, valid)
	}
	return route.GRPCName{Value: name}, nil
}

func regexGRPCName(expr string, _ *regexp.Regexp) (out route.GRPCName, err error) {
	if expr == "" {
		return out, nil
	}
	out.Value = expr
	out.Regex, err = route.CompileRegex(expr)
	return out, err
}
