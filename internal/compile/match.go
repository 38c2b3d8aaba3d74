package compile

import (
	"errors"
	"fmt"
	"net/textproto"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/route"
)

// Limits of the CRDs on values.
const (
	maxPath        = 1024
	maxHeaderName  = 256
	maxHeaderValue = 4096
	maxQueryValue  = 1024
)

// fieldError is what is wrong with one field of a rule.
type fieldError struct {
	field string // below the rule or match; "" is all of it
	err   error
}

func (e *fieldError) Error() string { return e.err.Error() }

func fieldErrorf(field, format string, args ...any) *fieldError {
	return &fieldError{field, fmt.Errorf(format, args...)}
}

// below puts the field of an error below another.
func (e *fieldError) below(field string) *fieldError {
	if e != nil {
		e.field = field + e.field
	}
	return e
}

// httpMatch compiles one match. Nothing in it is taken on trust: an API server checks it, a folder does not.
func httpMatch(m *gatewayv1.HTTPRouteMatch) (out route.Match, err *fieldError) {
	if out.Path, err = httpPathMatch(m.Path); err != nil {
		return out, err.below(".path")
	}
	if out.Headers, err = headerMatches(m.Headers); err != nil {
		return out, err.below(".headers")
	}
	if out.Query, err = queryMatches(m.QueryParams); err != nil {
		return out, err.below(".queryParams")
	}
	if m.Method != nil {
		if out.Method = string(*m.Method); !slices.Contains(httpMethods, *m.Method) {
			return out, fieldErrorf(".method", "method %q is none of %s", *m.Method, methodNames)
		}
	}
	return out, nil
}

var httpMethods = []gatewayv1.HTTPMethod{
	gatewayv1.HTTPMethodGet, gatewayv1.HTTPMethodHead, gatewayv1.HTTPMethodPost, gatewayv1.HTTPMethodPut, gatewayv1.HTTPMethodDelete,
	gatewayv1.HTTPMethodConnect, gatewayv1.HTTPMethodOptions, gatewayv1.HTTPMethodTrace, gatewayv1.HTTPMethodPatch,
}

const methodNames = "GET, HEAD, POST, PUT, DELETE, CONNECT, OPTIONS, TRACE, PATCH"

func httpPathMatch(p *gatewayv1.HTTPPathMatch) (out route.PathMatch, _ *fieldError) {
	value := "/"
	if p != nil && p.Value != nil {
		value = *p.Value
	}
	kind := gatewayv1.PathMatchPathPrefix
	if p != nil && p.Type != nil {
		kind = *p.Type
	}
	var err error
	switch kind {
	case gatewayv1.PathMatchPathPrefix, gatewayv1.PathMatchExact:
		if kind == gatewayv1.PathMatchExact {
			out.Kind = route.Exact
		}
		out.Value, err = matchPath(value)
	case gatewayv1.PathMatchRegularExpression:
		out.Kind, out.Value = route.Regex, value
		out.Regex, err = route.CompileRegex(value)
	default:
		return out, fieldErrorf(".type", "path match type %q is none of Exact, PathPrefix, RegularExpression", kind)
	}
	if err != nil {
		return out, &fieldError{".value", err}
	}
	return out, nil
}

// matchPath checks a path that requests are compared with, by the rules of the CRD, and returns it in normal form.
func matchPath(path string) (string, error) {
	if err := checkPath(path); err != nil {
		return "", fmt.Errorf("path %.64q %w", path, err)
	}
	normal, changed, err := route.NormalizePath(path)
	switch {
	case err != nil:
		return "", fmt.Errorf("%.64q: %w", path, err)
	case changed: // escaped, so that the check above did not see them
		return "", fmt.Errorf("path %.64q %w", path, errDots)
	}
	return normal, nil
}

var errDots = errors.New(`must not contain the elements "." and ".."`)

// checkPath says what is wrong with a path: with what cannot be part of one, and with what a request's path never has when it is compared.
func checkPath(path string) error {
	switch {
	case path == "" || path[0] != '/':
		return errors.New(`must begin with "/"`)
	case len(path) > maxPath:
		return fmt.Errorf("has %d characters, %d are allowed", len(path), maxPath)
	case strings.Contains(path, "//"):
		return errors.New(`must not contain "//"`)
	case strings.Contains(path, "/./") || strings.Contains(path, "/../") || strings.HasSuffix(path, "/.") || strings.HasSuffix(path, "/.."):
		return errDots
	case strings.Contains(path, "%2f") || strings.Contains(path, "%2F"):
		return errors.New("must not contain an escaped slash")
	}
	for i := range len(path) {
		if c := path[i]; c != '%' && !pathByte(c) {
			return fmt.Errorf("must not contain %q; it is written %%%02X", c, c)
		}
	}
	return nil
}

// pathByte tells whether a byte can stand for itself in a path: pchar of RFC 3986, and the slash.
func pathByte(c byte) bool {
	return alphanumeric(c) || strings.IndexByte("-._~!$&'()*+,;=:@/", c) >= 0
}

func headerMatches(in []gatewayv1.HTTPHeaderMatch) ([]route.ValueMatch, *fieldError) {
	if len(in) == 0 {
		return nil, nil
	}
	out := make([]route.ValueMatch, 0, len(in))
	for i := range in {
		h := &in[i]
		name, err := headerName(string(h.Name))
		if err != nil {
			return nil, &fieldError{indexed("", i) + ".name", err}
		}
		// Of several conditions on one header, only the first counts.
		if slices.ContainsFunc(out, func(o route.ValueMatch) bool { return o.Name == name }) {
			continue
		}
		m, ferr := valueMatch(name, h.Value, string(orDefault(h.Type, gatewayv1.HeaderMatchExact)), maxHeaderValue)
		if ferr != nil {
			return nil, ferr.below(indexed("", i))
		}
		out = append(out, m)
	}
	return out, nil
}

func queryMatches(in []gatewayv1.HTTPQueryParamMatch) ([]route.ValueMatch, *fieldError) {
	if len(in) == 0 {
		return nil, nil
	}
	out := make([]route.ValueMatch, 0, len(in))
	for i := range in {
		q := &in[i]
		if err := checkToken(string(q.Name)); err != nil {
			return nil, fieldErrorf(indexed("", i)+".name", "the name of a query parameter %w", err)
		}
		if slices.ContainsFunc(out, func(o route.ValueMatch) bool { return o.Name == string(q.Name) }) {
			continue
		}
		m, err := valueMatch(string(q.Name), q.Value, string(orDefault(q.Type, gatewayv1.QueryParamMatchExact)), maxQueryValue)
		if err != nil {
			return nil, err.below(indexed("", i))
		}
		out = append(out, m)
	}
	return out, nil
}

// valueMatch compiles a condition on a header or a query parameter; the types have the same names for both.
func valueMatch(name, value, typ string, limit int) (route.ValueMatch, *fieldError) {
	m := route.ValueMatch{Name: name, Value: value}
	switch {
	case value == "":
		return m, fieldErrorf(".value", "the value is empty")
	case len(value) > limit:
		return m, fieldErrorf(".value", "the value has %d characters, %d are allowed", len(value), limit)
	case typ == string(gatewayv1.HeaderMatchRegularExpression):
		var err error
		if m.Regex, err = route.CompileRegex(value); err != nil {
			return m, &fieldError{".value", err}
		}
	case typ != string(gatewayv1.HeaderMatchExact):
		return m, fieldErrorf(".type", "match type %q is none of Exact, RegularExpression", typ)
	}
	return m, nil
}

// headerName checks the name of a header and returns it in canonical form.
func headerName(name string) (string, error) {
	if err := checkToken(name); err != nil {
		return "", fmt.Errorf("the name of a header %w", err)
	}
	return textproto.CanonicalMIMEHeaderKey(name), nil
}

// checkToken says what is wrong with a name that has to be a token of RFC 9110.
func checkToken(name string) error {
	switch {
	case name == "":
		return errors.New("is empty")
	case len(name) > maxHeaderName:
		return fmt.Errorf("has %d characters, %d are allowed", len(name), maxHeaderName)
	}
	for i := range len(name) {
		if c := name[i]; !alphanumeric(c) && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return fmt.Errorf("must not contain %q, as %.64q does", c, name)
		}
	}
	return nil
}

// checkHeaderValue says what is wrong with a value that is going to be sent: what would end the header's line, and control characters (RFC 9110, section 5.5).
func checkHeaderValue(value string) error {
	switch {
	case value == "":
		return errors.New("is empty; remove removes a header")
	case len(value) > maxHeaderValue:
		return fmt.Errorf("has %d characters, %d are allowed", len(value), maxHeaderValue)
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return fmt.Errorf("must not contain %q", c)
		}
	}
	return nil
}
