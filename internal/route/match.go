package route

import (
	"slices"
	"strings"
)

// Request is what a table looks at: the parts of an HTTP request, normalized. It is small and has no pointer to the HTTP library, so that anything can ask.
type Request struct {
	Host     string // as NormalizeHost returns it: lower case, no port, no trailing dot
	Path     string // as NormalizePath returns it
	Method   string
	RawQuery string       // as received, without the question mark
	Header   HeaderValues // nil: no headers
}

// HeaderValues finds the values of a header in the order of their arrival. Names are asked for in canonical form. http.Header is one.
type HeaderValues interface {
	Values(name string) []string
}

// key is the value of a prefix match without its trailing slash, which means nothing there; "" for the prefix "/".
func (m PathMatch) key() string { return strings.TrimSuffix(m.Value, "/") }

// matches reports whether a normalized path meets the condition.
func (m PathMatch) matches(path string) bool {
	switch m.Kind {
	case Exact:
		return path == m.Value
	case Regex:
		return m.Regex != nil && matchRegex(m.Regex, path)
	default:
		rest, ok := strings.CutPrefix(path, m.key())
		return ok && (rest == "" || rest[0] == '/')
	}
}

// matches reports whether a request meets all conditions.
func (m *Match) matches(r *Request) bool {
	if m.GRPC != nil {
		return r.isGRPC() && m.GRPC.matches(r.Path) && m.matchesRest(r)
	}
	return m.Path.matches(r.Path) && m.matchesRest(r)
}

// matchesRest reports whether a request whose path is known to match meets the other conditions too.
func (m *Match) matchesRest(r *Request) bool {
	if m.Method != "" && m.Method != r.Method {
		return false
	}
	for i := range m.Headers {
		if !m.Headers[i].matchesHeader(r) {
			return false
		}
	}
	for i := range m.Query {
		if !m.Query[i].matchesQuery(r.RawQuery) {
			return false
		}
	}
	return true
}

// header returns the values of a header.
func (r *Request) header(name string) []string {
	if r.Header == nil {
		return nil
	}
	return r.Header.Values(name)
}

// matchesHeader reports whether the request has the header with the value that is asked for. A header that is repeated means the list of its values (RFC 9110,
// section 5.3): the condition is met by any single one of them, and by all of them joined with ", " or "," (which an expression is not tried on). The Host
// header, which Go keeps apart from the others, has the normalized host for its value.
func (m *ValueMatch) matchesHeader(r *Request) bool {
	if m.Name == "Host" {
		return m.meets(r.Host)
	}
	values := r.header(m.Name)
	if slices.ContainsFunc(values, m.meets) {
		return true
	}
	return len(values) > 1 && m.Regex == nil && (isJoined(m.Value, values, ", ") || isJoined(m.Value, values, ","))
}

// meets reports whether one value meets the condition.
func (m *ValueMatch) meets(v string) bool {
	if m.Regex != nil {
		return matchRegex(m.Regex, v)
	}
	return v == m.Value
}

// isJoined reports whether s is strings.Join(values, sep), without building it.
func isJoined(s string, values []string, sep string) bool {
	for i, v := range values {
		var ok bool
		if i > 0 {
			if s, ok = strings.CutPrefix(s, sep); !ok {
				return false
			}
		}
		if s, ok = strings.CutPrefix(s, v); !ok {
			return false
		}
	}
	return s == ""
}

// matchesQuery reports whether the first parameter of that name has the value that is asked for.
func (m *ValueMatch) matchesQuery(query string) bool {
	raw, ok := firstQueryValue(query, m.Name)
	if !ok {
		return false
	}
	if m.Regex == nil {
		return formEqual(raw, m.Value)
	}
	v, ok := formDecode(raw)
	return ok && matchRegex(m.Regex, v)
}

// firstQueryValue finds the first parameter of a query whose decoded name is name, and returns its value as it was written. Parameters are divided by "&" only:
// a semicolon is an ordinary character, as in the WHATWG URL standard. A parameter whose name cannot be decoded has no name; one whose value cannot be decoded
// meets no condition, but still hides those of its name that follow, because a backend may take it for the first.
func firstQueryValue(query, name string) (raw string, ok bool) {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		if pair == "" {
			continue
		}
		n, v, _ := strings.Cut(pair, "=")
		if formEqual(n, name) {
			return v, true
		}
	}
	return "", false
}

// formEqual reports whether raw, form-decoded, is want. It decodes as it goes and builds nothing. What cannot be decoded is equal to nothing.
func formEqual(raw, want string) bool {
	for raw != "" {
		if want == "" {
			return false
		}
		c, n, ok := formByte(raw)
		if !ok || c != want[0] {
			return false
		}
		raw, want = raw[n:], want[1:]
	}
	return want == ""
}

// formDecode returns raw form-decoded, and raw itself where there is nothing to decode.
func formDecode(raw string) (string, bool) {
	if !strings.ContainsAny(raw, "%+") {
		return raw, true
	}
	b := make([]byte, 0, len(raw))
	for raw != "" {
		c, n, ok := formByte(raw)
		if !ok {
			return "", false
		}
		b, raw = append(b, c), raw[n:]
	}
	return string(b), true
}

// formByte decodes the first byte of a form-encoded string (application/x-www-form-urlencoded) and says how many bytes it took.
func formByte(s string) (c byte, n int, ok bool) {
	switch s[0] {
	case '+':
		return ' ', 1, true
	case '%':
		c, ok = unescape(s)
		return c, 3, ok
	default:
		return s[0], 1, true
	}
}
