package compile

import (
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/route"
)

// externalAuth compiles an ExternalAuth filter. One whose server does not exist lets nothing pass.
func (f *httpFilters) externalAuth(spec *gatewayv1.HTTPExternalAuthFilter) (err *filterError) {
	const field = ".externalAuth"
	out := &route.ExternalAuth{GRPC: spec.ExternalAuthProtocol == gatewayv1.HTTPRouteExternalAuthGRPCProtocol}
	switch {
	case !out.GRPC && spec.ExternalAuthProtocol != gatewayv1.HTTPRouteExternalAuthHTTPProtocol:
		return unsupportedFilter(field+".protocol", "%q is neither HTTP nor GRPC", spec.ExternalAuthProtocol)
	case out.GRPC && spec.HTTPAuthConfig != nil:
		return unsupportedFilter(field+".http", "protocol GRPC cannot have the field http")
	case !out.GRPC && spec.GRPCAuthConfig != nil:
		return unsupportedFilter(field+".grpc", "protocol HTTP cannot have the field grpc")
	}
	if c := spec.GRPCAuthConfig; c != nil {
		if out.RequestHeaders, err = authHeaders(c.AllowedRequestHeaders, field+".grpc.allowedHeaders"); err != nil {
			return err
		}
	}
	if c := spec.HTTPAuthConfig; c != nil {
		if err = authHTTP(out, c, field+".http"); err != nil {
			return err
		}
	}
	if spec.ForwardBody != nil {
		out.MaxBody = int(spec.ForwardBody.MaxSize)
	}
	var why string
	if out.Pool, why = f.backend(f.at+field+".backendRef", &spec.BackendRef); out.Pool == nil {
		f.fault = &route.Fault{Status: 500, Reason: route.NoBackend, Why: "authorization server: " + why}
		out.Fault = f.fault
	}
	f.out = append(f.out, out)
	return nil
}

func authHTTP(out *route.ExternalAuth, c *gatewayv1.HTTPAuthConfig, field string) (err *filterError) {
	if c.Path != "" {
		path := c.Path
		if path[0] != '/' {
			path = "/" + path
		}
		path, bad := matchPath(path)
		if bad != nil {
			return unsupportedFilter(field+".path", "%w", bad)
		}
		out.PathPrefix = strings.TrimSuffix(path, "/")
	}
	if out.RequestHeaders, err = authHeaders(c.AllowedRequestHeaders, field+".allowedHeaders"); err != nil {
		return err
	}
	out.ResponseHeaders, err = authHeaders(c.AllowedResponseHeaders, field+".allowedResponseHeaders")
	return err
}

// authHeaders checks the names of headers that go to an authorization server, or come from it. What frames a message does neither.
func authHeaders(in []string, field string) ([]string, *filterError) {
	var out []string
	for i, text := range in {
		name, err := headerName(text)
		if err != nil {
			return nil, unsupportedFilter(indexed(field, i), "%w", err)
		}
		if slices.Contains(framing, name) {
			return nil, unsupportedFilter(indexed(field, i), "the header %s belongs to one connection or message and cannot be copied to another", name)
		}
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out, nil
}
