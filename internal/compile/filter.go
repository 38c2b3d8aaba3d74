package compile

import (
	"fmt"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/route"
)

// filterError is a filter that cannot be applied. Filters are never skipped: the requests that it would have been applied to are answered with an error.
type filterError struct {
	fieldError
	reason gatewayv1.RouteConditionReason
	// unresolved says that the filter refers to an object that means nothing here.
	unresolved bool
}

func unsupportedFilter(field, format string, args ...any) *filterError {
	return &filterError{fieldError: *fieldErrorf(field, format, args...), reason: gatewayv1.RouteReasonUnsupportedValue}
}

func incompatibleFilter(field, format string, args ...any) *filterError {
	return &filterError{fieldError: *fieldErrorf(field, format, args...), reason: gatewayv1.RouteReasonIncompatibleFilters}
}

// httpFilters compiles the filters of a rule, or of a backend of it.
type httpFilters struct {
	ports    func(uint16) uint16             // of a well-known port, the one that clients have to connect to
	prefixes bool                            // whether a matched prefix can be replaced: the rule has one match, and that is a prefix
	outer    *httpFilters                    // for a backend: the filters of its rule
	types    []gatewayv1.HTTPRouteFilterType // that are allowed; nil is all
	out      []route.Filter
	fault    *route.Fault // answers all requests: an authorization server that would have to let them pass does not exist
	seen     map[gatewayv1.HTTPRouteFilterType]bool
	warn     func(field, code, message string)
	at       string // the filter that is compiled now
	// backend finds the pool that a filter at a field refers to. If there is none it reports that, and says why.
	backend func(field string, ref *gatewayv1.BackendObjectReference) (*route.Pool, string)
}

// list returns the compiled filters.
func (f *httpFilters) list() []route.Filter {
	if f == nil {
		return nil
	}
	return f.out
}

// compile compiles all filters. What is wrong goes to fail, filter by filter.
func (f *httpFilters) compile(specs []gatewayv1.HTTPRouteFilter, fail func(*filterError)) {
	for i := range specs {
		f.at = indexed(".filters", i)
		if err := f.add(&specs[i]); err != nil {
			err.field = f.at + err.field
			fail(err)
		}
	}
}

// has tells whether there is a filter of a type, here or in the rule.
func (f *httpFilters) has(typ gatewayv1.HTTPRouteFilterType) bool {
	return f != nil && (f.seen[typ] || f.outer.has(typ))
}

func (f *httpFilters) add(spec *gatewayv1.HTTPRouteFilter) *filterError {
	if f.types != nil && !slices.Contains(f.types, spec.Type) {
		return unsupportedFilter(".type", "%q is none of the types of filters that this kind of route can have: %s", spec.Type, joinTypes(f.types))
	}
	if f.seen[spec.Type] && spec.Type != gatewayv1.HTTPRouteFilterRequestMirror {
		return incompatibleFilter("", "there is another %s filter already", spec.Type)
	}
	set(&f.seen, spec.Type, true)
	if err := checkUnion(spec); err != nil {
		return err
	}
	switch spec.Type {
	case gatewayv1.HTTPRouteFilterRequestHeaderModifier:
		change, err := f.headers(spec.RequestHeaderModifier, ".requestHeaderModifier")
		f.out = append(f.out, &route.RequestHeaders{HeaderChange: change})
		return err
	case gatewayv1.HTTPRouteFilterResponseHeaderModifier:
		change, err := f.headers(spec.ResponseHeaderModifier, ".responseHeaderModifier")
		f.out = append(f.out, &route.ResponseHeaders{HeaderChange: change})
		return err
	case gatewayv1.HTTPRouteFilterRequestRedirect:
		return f.redirect(spec.RequestRedirect)
	case gatewayv1.HTTPRouteFilterURLRewrite:
		return f.rewrite(spec.URLRewrite)
	case gatewayv1.HTTPRouteFilterCORS:
		return f.cors(spec.CORS)
	case gatewayv1.HTTPRouteFilterExternalAuth:
		return f.externalAuth(spec.ExternalAuth)
	case gatewayv1.HTTPRouteFilterRequestMirror:
		return f.mirror(spec.RequestMirror)
	case gatewayv1.HTTPRouteFilterExtensionRef:
		err := unsupportedFilter(".extensionRef", "Fairlead has no filters of the kind %s (group %q)", spec.ExtensionRef.Kind, spec.ExtensionRef.Group)
		err.unresolved = true
		return err
	}
	return unsupportedFilter(".type", "filters of type %q are not supported", spec.Type)
}

func joinTypes(types []gatewayv1.HTTPRouteFilterType) string {
	names := make([]string, len(types))
	for i, t := range types {
		names[i] = string(t)
	}
	return strings.Join(names, ", ")
}

// checkUnion tells whether a filter has the one field that its type says, and no other.
func checkUnion(f *gatewayv1.HTTPRouteFilter) *filterError {
	members := []struct {
		typ   gatewayv1.HTTPRouteFilterType
		field string
		set   bool
	}{
		{gatewayv1.HTTPRouteFilterRequestHeaderModifier, "requestHeaderModifier", f.RequestHeaderModifier != nil},
		{gatewayv1.HTTPRouteFilterResponseHeaderModifier, "responseHeaderModifier", f.ResponseHeaderModifier != nil},
		{gatewayv1.HTTPRouteFilterRequestRedirect, "requestRedirect", f.RequestRedirect != nil},
		{gatewayv1.HTTPRouteFilterURLRewrite, "urlRewrite", f.URLRewrite != nil},
		{gatewayv1.HTTPRouteFilterRequestMirror, "requestMirror", f.RequestMirror != nil},
		{gatewayv1.HTTPRouteFilterCORS, "cors", f.CORS != nil},
		{gatewayv1.HTTPRouteFilterExternalAuth, "externalAuth", f.ExternalAuth != nil},
		{gatewayv1.HTTPRouteFilterExtensionRef, "extensionRef", f.ExtensionRef != nil},
	}
	for _, m := range members {
		switch {
		case m.typ == f.Type && !m.set:
			return unsupportedFilter("."+m.field, "a filter of type %s needs the field %s", f.Type, m.field)
		case m.typ != f.Type && m.set:
			return unsupportedFilter("."+m.field, "a filter of type %q cannot have the field %s", f.Type, m.field)
		}
	}
	return nil
}

// framing are the headers that belong to a connection or delimit a message. Whoever could set them could make a backend and Fairlead, or Fairlead and a client,
// disagree about where a message ends; and Host has a filter of its own.
var framing = []string{
	"Connection", "Content-Length", "Host", "Http2-Settings", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// headers compiles a change of headers. A header can be changed in one way only; of several values for it in one list the first counts.
func (f *httpFilters) headers(spec *gatewayv1.HTTPHeaderFilter, field string) (out route.HeaderChange, err *filterError) {
	used := make(map[string]string, len(spec.Set)+len(spec.Add)+len(spec.Remove))
	use := func(list, raw string) (name string, first bool, err error) {
		if name, err = headerName(raw); err != nil {
			return "", false, err
		}
		if slices.Contains(framing, name) {
			return "", false, fmt.Errorf("the header %s cannot be changed%s", name, hostHint(name))
		}
		switch used[name] {
		case "":
			used[name] = list
			return name, true, nil
		case list:
			f.warn(f.at+field+"."+list, "DuplicateHeader", fmt.Sprintf("the header %s is in the list more than once; the first counts", name))
			return name, false, nil
		}
		return "", false, fmt.Errorf("the header %s is in %s already; there can be one action for a header only", name, used[name])
	}
	if out.Set, err = changeHeaders(field, "set", spec.Set, use); err != nil {
		return out, err
	}
	if out.Add, err = changeHeaders(field, "add", spec.Add, use); err != nil {
		return out, err
	}
	for i, raw := range spec.Remove {
		name, first, err := use("remove", raw)
		if err != nil {
			return out, unsupportedFilter(indexed(field+".remove", i), "%w", err)
		}
		if first {
			out.Remove = append(out.Remove, name)
		}
	}
	return out, nil
}

func hostHint(name string) string {
	if name == "Host" {
		return "; a URLRewrite filter with a hostname changes it"
	}
	return ", because it frames messages"
}

func changeHeaders(field, list string, in []gatewayv1.HTTPHeader, use func(list, raw string) (string, bool, error)) ([]route.Header, *filterError) {
	var out []route.Header
	for i := range in {
		at := indexed(field+"."+list, i)
		name, first, err := use(list, string(in[i].Name))
		if err != nil {
			return nil, unsupportedFilter(at+".name", "%w", err)
		}
		if !first {
			continue
		}
		if err := checkHeaderValue(in[i].Value); err != nil {
			return nil, unsupportedFilter(at+".value", "the value of the header %s %w", name, err)
		}
		out = append(out, route.Header{Name: name, Value: in[i].Value})
	}
	return out, nil
}

func (f *httpFilters) redirect(spec *gatewayv1.HTTPRequestRedirectFilter) *filterError {
	const field = ".requestRedirect"
	if f.has(gatewayv1.HTTPRouteFilterURLRewrite) {
		return incompatibleFilter(field, "RequestRedirect and URLRewrite exclude each other")
	}
	out := &route.Redirect{Status: orDefault(spec.StatusCode, 302), Scheme: orDefault(spec.Scheme, "")}
	if !slices.Contains([]int{301, 302, 303, 307, 308}, out.Status) {
		return unsupportedFilter(field+".statusCode", "status code %d is none of 301, 302, 303, 307, 308", out.Status)
	}
	if !slices.Contains([]string{"", "http", "https"}, out.Scheme) || spec.Scheme != nil && out.Scheme == "" {
		return unsupportedFilter(field+".scheme", "scheme %q is neither http nor https", out.Scheme)
	}
	var err *filterError
	if out.Hostname, err = preciseHostname(spec.Hostname, field); err != nil {
		return err
	}
	if out.Path, err = f.path(spec.Path, field+".path"); err != nil {
		return err
	}
	switch port := orDefault(spec.Port, 0); {
	case spec.Port == nil:
		out.Port = f.redirectPort(out.Scheme)
	case port < 1 || port > 65535:
		return unsupportedFilter(field+".port", "port %d does not exist; ports are 1 to 65535", port)
	default:
		out.Port = uint16(port)
	}
	if out.Scheme == "" && out.Hostname == "" && out.Path == nil && out.Port == 0 {
		f.warn(f.at+field, "RedirectLoop", "the redirect changes nothing, so that clients are sent to where they come from")
	}
	f.out = append(f.out, out)
	return nil
}

// redirectPort returns the port that a redirect to a scheme has to name because the well-known one leads nowhere here: it is bound elsewhere.
func (f *httpFilters) redirectPort(scheme string) uint16 {
	known := map[string]uint16{"http": 80, "https": 443}[scheme]
	if mapped := f.ports(known); known != 0 && mapped != known {
		return mapped
	}
	return 0
}

func (f *httpFilters) rewrite(spec *gatewayv1.HTTPURLRewriteFilter) *filterError {
	const field = ".urlRewrite"
	switch {
	case f.has(gatewayv1.HTTPRouteFilterRequestRedirect):
		return incompatibleFilter(field, "RequestRedirect and URLRewrite exclude each other")
	case f.outer.has(gatewayv1.HTTPRouteFilterURLRewrite):
		return incompatibleFilter(field, "the rule has a URLRewrite filter already")
	}
	var out route.Rewrite
	var err *filterError
	if out.Hostname, err = preciseHostname(spec.Hostname, field); err != nil {
		return err
	}
	if out.Path, err = f.path(spec.Path, field+".path"); err != nil {
		return err
	}
	f.out = append(f.out, &out)
	return nil
}

func preciseHostname(h *gatewayv1.PreciseHostname, field string) (string, *filterError) {
	if h == nil {
		return "", nil
	}
	name, err := cleanHostname(string(*h), false)
	if err != nil {
		return "", unsupportedFilter(field+".hostname", "the hostname %w", err)
	}
	return name, nil
}

// path compiles the change of a path.
func (f *httpFilters) path(spec *gatewayv1.HTTPPathModifier, field string) (*route.PathChange, *filterError) {
	if spec == nil {
		return nil, nil
	}
	full, prefix := spec.Type == gatewayv1.FullPathHTTPPathModifier, spec.Type == gatewayv1.PrefixMatchHTTPPathModifier
	switch {
	case !full && !prefix:
		return nil, unsupportedFilter(field+".type", "%q is neither ReplaceFullPath nor ReplacePrefixMatch", spec.Type)
	case full != (spec.ReplaceFullPath != nil) || prefix != (spec.ReplacePrefixMatch != nil):
		return nil, unsupportedFilter(field, "type %s needs the field of its name, and no other", spec.Type)
	case prefix && !f.prefixes:
		return nil, incompatibleFilter(field, "ReplacePrefixMatch needs a rule with exactly one match, and that of type PathPrefix")
	case full:
		p, err := newPath(*spec.ReplaceFullPath)
		if err != nil {
			return nil, unsupportedFilter(field+".replaceFullPath", "%w", err)
		}
		return &route.PathChange{Full: &p}, nil
	}
	p, err := newPath(*spec.ReplacePrefixMatch)
	if err != nil {
		return nil, unsupportedFilter(field+".replacePrefixMatch", "%w", err)
	}
	return &route.PathChange{Prefix: &p}, nil
}

// newPath checks a path, or the beginning of one, that a request gets. Empty means "/".
func newPath(path string) (string, error) {
	if path == "" {
		return path, nil
	}
	return matchPath(path)
}
