package compile

import (
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/route"
)

// mirror compiles a RequestMirror filter. One whose backend does not exist is left out: the requests are served, and the condition ResolvedRefs says so.
func (f *httpFilters) mirror(spec *gatewayv1.HTTPRequestMirrorFilter) *filterError {
	const field = ".requestMirror"
	out := &route.Mirror{Numerator: 100, Denominator: 100}
	switch {
	case spec.Percent != nil && spec.Fraction != nil:
		return unsupportedFilter(field, "percent and fraction exclude each other")
	case spec.Percent != nil:
		out.Numerator = *spec.Percent
	case spec.Fraction != nil:
		out.Numerator, out.Denominator = spec.Fraction.Numerator, orDefault(spec.Fraction.Denominator, 100)
	}
	if out.Denominator < 1 || out.Numerator < 0 || out.Numerator > out.Denominator {
		return unsupportedFilter(field, "%d of %d requests cannot be mirrored", out.Numerator, out.Denominator)
	}
	out.Pool, _ = f.backend(f.at+field+".backendRef", &spec.BackendRef)
	if out.Pool != nil {
		f.out = append(f.out, out)
	}
	return nil
}
