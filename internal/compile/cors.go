package compile

import (
	"slices"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/route"
)

// cors compiles a CORS filter.
func (f *httpFilters) cors(spec *gatewayv1.HTTPCORSFilter) (err *filterError) {
	const field = ".cors"
	out := &route.CORS{Credentials: orDefault(spec.AllowCredentials, false), MaxAge: spec.MaxAge}
	switch {
	case out.MaxAge < 0:
		return unsupportedFilter(field+".maxAge", "maxAge is %d; it must be at least 1 second", out.MaxAge)
	case out.MaxAge == 0:
		out.MaxAge = 5
	}
	if out.Origins, err = corsOrigins(spec.AllowOrigins, field+".allowOrigins"); err != nil {
		return err
	}
	if out.Methods, err = corsNames(spec.AllowMethods, field+".allowMethods"); err != nil {
		return err
	}
	if out.Headers, err = corsNames(spec.AllowHeaders, field+".allowHeaders"); err != nil {
		return err
	}
	if out.Expose, err = corsNames(spec.ExposeHeaders, field+".exposeHeaders"); err != nil {
		return err
	}
	if len(out.Origins) == 0 {
		f.warn(f.at+field+".allowOrigins", "NoOrigins", "no origin is allowed, so that no page of another origin can use what the rule serves")
	}
	if out.Credentials && slices.Contains(out.Expose, "*") {
		f.warn(f.at+field+".exposeHeaders", "WildcardWithCredentials", `"*" means nothing to browsers where credentials are allowed: name the headers`)
		out.Expose = nil
	}
	f.out = append(f.out, out)
	return nil
}

func corsOrigins(in []gatewayv1.CORSOrigin, field string) ([]route.Origin, *filterError) {
	out := make([]route.Origin, 0, len(in))
	for i, text := range in {
		if text == "*" {
			if len(in) > 1 {
				return nil, unsupportedFilter(indexed(field, i), `"*" cannot stand beside other origins`)
			}
			return []route.Origin{{}}, nil
		}
		o, ok := route.ParseOrigin(string(text))
		if !ok {
			return nil, unsupportedFilter(indexed(field, i), "%.100q is not an origin such as https://a.example.com, https://*.example.com or http://a.example.com:8080", text)
		}
		out = append(out, o)
	}
	return out, nil
}

// corsNames checks a list of methods or names of headers, or "*".
func corsNames[T ~string](in []T, field string) ([]string, *filterError) {
	var out []string
	for i, name := range in {
		if name == "*" && len(in) > 1 {
			return nil, unsupportedFilter(indexed(field, i), `"*" cannot stand beside other names`)
		}
		if err := checkToken(string(name)); err != nil {
			return nil, unsupportedFilter(indexed(field, i), "the name %w", err)
		}
		out = append(out, string(name))
	}
	return out, nil
}

// checkPreflights reports a rule with a CORS filter whose matches all ask for another method than that of preflights, so that these never come to the filter.
func (r *httpRule) checkPreflights(filters *httpFilters) {
	if !filters.has(gatewayv1.HTTPRouteFilterCORS) || len(r.spec.Matches) == 0 {
		return
	}
	for i := range r.spec.Matches {
		if m := r.spec.Matches[i].Method; m == nil || *m == gatewayv1.HTTPMethodOptions {
			return
		}
	}
	r.problems.add(Warning, r.ref, r.field()+".matches", "PreflightNotMatched", "no match is for OPTIONS, the method of preflights, which the CORS filter of the rule should answer")
}
