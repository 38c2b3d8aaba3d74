package route

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// String returns address:port, such as ":8080", "127.0.0.2:80" or "[::1]:80", and ":53/udp" for UDP.
func (b Bind) String() string {
	return net.JoinHostPort(b.Address, strconv.Itoa(int(b.Port))) + transportText(b.UDP)
}

// String returns "namespace/service:port", with "Kind/" before it if that is no Service, with "/udp" behind it for UDP, and with "@variant" if there is one.
func (k PoolKey) String() string {
	text := k.Namespace + "/" + k.Service + ":" + strconv.Itoa(int(k.Port)) + transportText(k.UDP)
	if k.Kind != "" {
		text = k.Kind + "/" + text
	}
	if k.Variant != "" {
		text += "@" + k.Variant
	}
	return text
}

func transportText(udp bool) string {
	if udp {
		return "/udp"
	}
	return ""
}

// MarshalText returns the key as String does, so that it is one word in JSON.
func (k PoolKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// String returns "Kind namespace/name field", for people; parts that are empty are left out.
func (s Source) String() string {
	return printable(joinWords(s.Kind, s.object(), s.Field))
}

// object is namespace/name.
func (s Source) object() string {
	if s.Namespace == "" {
		return s.Name
	}
	return s.Namespace + "/" + s.Name
}

// joinWords joins what is not empty with spaces.
func joinWords(words ...string) string {
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), " ")
}

// String returns the kind as it is written in tables: exact, regex or prefix.
func (k PathKind) String() string {
	switch k {
	case Exact:
		return "exact"
	case Regex:
		return "regex"
	default:
		return "prefix"
	}
}

// String returns the kind and the value, such as "prefix /a".
func (m PathMatch) String() string {
	return m.Kind.String() + " " + m.text()
}

// text is the value.
func (m PathMatch) text() string {
	switch {
	case m.Kind == Regex:
		return quoteRaw(m.Value)
	case m.Kind == Prefix && m.Value == "":
		return "/"
	default:
		return word(m.Value, pathMarks)
	}
}

// String returns the match on one line, such as "prefix /v2 GET header:X-Canary=1 query:a=b".
func (m Match) String() string { return joinWords(m.target(), m.rest()) }

// target is what is asked for: the path, or the method of a service.
func (m *Match) target() string {
	if m.GRPC != nil {
		return "grpc " + m.GRPC.String()
	}
	return m.Path.String()
}

// rest is the match without its path; "" if it has nothing else.
func (m *Match) rest() string {
	var words []string
	if m.Method != "" {
		words = append(words, methodText(m.Method))
	}
	for _, h := range m.Headers {
		words = append(words, "header:"+h.String())
	}
	for _, q := range m.Query {
		words = append(words, "query:"+q.String())
	}
	return strings.Join(words, " ")
}

// methodText quotes whatever does not look like a method, so that it cannot be taken for another word of the line.
func methodText(method string) string {
	for i := range len(method) {
		if c := method[i]; (c < 'A' || c > 'Z') && c != '-' {
			return strconv.QuoteToASCII(method)
		}
	}
	return word(method, "")
}

// String returns name=value, or name~expression.
func (m ValueMatch) String() string {
	if m.Regex != nil {
		return word(m.Name, "") + "~" + quoteRaw(m.Value)
	}
	return word(m.Name, "") + "=" + word(m.Value, "=")
}

// String returns the rule on one line, without its source, such as "prefix /v2 GET | rewrite prefix=/ -> shop/web:80 timeout=5s".
func (r *Rule) String() string { return joinWords(r.Match.target(), r.rest()) }

// rest is the rule without its path: the other conditions and what happens to the requests.
func (r *Rule) rest() string {
	last := ""
	if r.Order.Last {
		last = "default"
	}
	return joinWords(r.Match.rest(), last, r.action())
}

// action is what happens to the requests of the rule.
func (r *Rule) action() string {
	var words []string
	redirects := false
	for _, f := range r.Filters {
		_, ok := f.(*Redirect)
		redirects = redirects || ok
		words = append(words, "|", f.String())
	}
	switch {
	case r.Fault != nil:
		words = append(words, "->", r.Fault.String())
	case len(r.Backends) > 0:
		words = append(words, "->", backendsText(r.Backends))
	case !redirects:
		words = append(words, "->", "none")
	}
	if r.Persistence != nil {
		words = append(words, r.Persistence.String())
	}
	return joinWords(append(words, timeoutText("timeout", r.Timeouts.Request), timeoutText("backend-timeout", r.Timeouts.Backend), r.Retry.String())...)
}

func backendsText(backends []WeightedPool) string {
	total := int64(0)
	for _, p := range backends {
		total += int64(p.Weight)
	}
	texts := make([]string, len(backends))
	for i, p := range backends {
		texts[i] = p.target()
		if len(backends) > 1 || p.Weight == 0 {
			texts[i] += " (" + share(int64(p.Weight), total) + ")"
		}
		for _, f := range p.Filters {
			texts[i] += " [" + f.String() + "]"
		}
	}
	return strings.Join(texts, ", ")
}

// target is where the requests of a backend go.
func (p *WeightedPool) target() string {
	switch {
	case p.Fault != nil:
		return p.Fault.String()
	case p.Pool != nil:
		return word(p.Pool.Key.String(), "")
	default:
		return "none"
	}
}

// share is a weight as a part of the whole: in percent where that is exact, else as a fraction.
func share(weight, total int64) string {
	switch {
	case total <= 0:
		return "0%"
	case weight*100%total == 0:
		return strconv.FormatInt(weight*100/total, 10) + "%"
	default:
		return strconv.FormatInt(weight, 10) + "/" + strconv.FormatInt(total, 10)
	}
}

// String returns the status and the reason code, such as "500 no-backend"; "closed no-backend" where there is nothing to answer.
func (f *Fault) String() string {
	if f.Status == 0 {
		return "closed " + word(string(f.Reason), "")
	}
	return strconv.Itoa(f.Status) + " " + word(string(f.Reason), "")
}

func timeoutText(name string, d time.Duration) string {
	switch {
	case d == 0:
		return ""
	case d < 0:
		return name + "=none"
	default:
		return name + "=" + d.String()
	}
}

// String returns the changes on one line, such as "remove-request-header X-Old set-request-header X-A=1 X-B=2".
func (f *RequestHeaders) String() string { return f.text("request-header") }

// String returns the changes on one line, such as "add-response-header X-A=1".
func (f *ResponseHeaders) String() string { return f.text("response-header") }

func (c *HeaderChange) text(what string) string {
	var words []string
	if len(c.Remove) > 0 {
		words = append(words, "remove-"+what)
		for _, name := range c.Remove {
			words = append(words, word(name, ""))
		}
	}
	words = appendHeaders(words, "set-"+what, c.Set)
	words = appendHeaders(words, "add-"+what, c.Add)
	if len(words) == 0 {
		return "keep-" + what
	}
	return strings.Join(words, " ")
}

func appendHeaders(words []string, what string, headers []Header) []string {
	if len(headers) == 0 {
		return words
	}
	words = append(words, what)
	for _, h := range headers {
		words = append(words, word(h.Name, "")+"="+word(h.Value, "="))
	}
	return words
}

// String returns the redirect on one line, such as "redirect 301 scheme=https port=8443".
func (f *Redirect) String() string {
	port := ""
	if f.Port != 0 {
		port = "port=" + strconv.Itoa(int(f.Port))
	}
	return joinWords("redirect "+strconv.Itoa(f.Status), setting("scheme", f.Scheme), setting("host", f.Hostname), port, f.Path.String())
}

// String returns the rewrite on one line, such as "rewrite host=a.example.com prefix=/v2".
func (f *Rewrite) String() string {
	return joinWords("rewrite", setting("host", f.Hostname), f.Path.String())
}

// String returns "path=/full" or "prefix=/replacement", or "" if nothing is changed.
func (f *PathChange) String() string {
	switch {
	case f == nil:
		return ""
	case f.Full != nil:
		return "path=" + word(*f.Full, pathMarks)
	case f.Prefix != nil:
		return "prefix=" + word(*f.Prefix, pathMarks)
	default:
		return ""
	}
}

// setting is name=value, and "" for an empty value.
func setting(name, value string) string {
	if value == "" {
		return ""
	}
	return name + "=" + word(value, "=")
}

// pathMarks are the characters that paths hold and that cannot be mistaken in them.
const pathMarks = ",=()'"

// nameText is a host name pattern for people: any is a star.
func nameText(name string) string {
	if name == "" {
		return "*"
	}
	return word(name, "")
}

func namesText(names []string) string {
	if len(names) == 0 {
		return "*"
	}
	texts := make([]string, len(names))
	for i, n := range names {
		texts[i] = nameText(n)
	}
	return strings.Join(texts, ",")
}

// word returns s as it is, if it cannot be mistaken for anything else on a line of a table, and quoted otherwise. also holds characters that are fine here.
func word(s, also string) string {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte("\"'`\\|#,=()[]>", c) >= 0 && strings.IndexByte(also, c) < 0 {
			return strconv.QuoteToASCII(s)
		}
	}
	if s == "" {
		return `""`
	}
	return s
}

// quoteRaw returns s between back quotes, if it can be read back from there, and quoted otherwise.
func quoteRaw(s string) string {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '`' {
			return strconv.QuoteToASCII(s)
		}
	}
	return "`" + s + "`"
}

// printable returns prose as it is, if it fits on one line and shows everything that it holds, and quoted otherwise.
func printable(s string) string {
	for _, r := range s {
		if r == utf8.RuneError || !strconv.IsPrint(r) {
			return strconv.Quote(s)
		}
	}
	return s
}
