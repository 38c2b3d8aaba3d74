package route

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// GRPCMatch is a condition on the method that a gRPC request calls, by the two parts of its path, /service/method. Both must be met. The zero value is met by
// every gRPC request. A request that is not gRPC meets none.
type GRPCMatch struct{ Service, Method GRPCName }

// GRPCName is a condition on a name: it equals Value, or matches Regex where that is set (Value is then the expression). The zero value is met by every name.
type GRPCName struct {
	Value string
	Regex *regexp.Regexp // as CompileRegex makes it
}

// IsGRPC reports whether a request with these values of Content-Type speaks gRPC. gRPC-Web is another protocol, which browsers speak over plain HTTP.
func IsGRPC(contentType []string) bool {
	if len(contentType) == 0 {
		return false
	}
	rest, ok := strings.CutPrefix(contentType[0], "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

func (r *Request) isGRPC() bool { return IsGRPC(r.header("Content-Type")) }

// splitGRPC returns the names in the path of a gRPC request. Everything up to the last slash is the service.
func splitGRPC(path string) (service, method string, ok bool) {
	i := strings.LastIndexByte(path, '/')
	if i < 2 || i == len(path)-1 {
		return "", "", false
	}
	return path[1:i], path[i+1:], true
}

// matches reports whether a gRPC request for a path meets the condition.
func (m *GRPCMatch) matches(path string) bool {
	if m.Service.any() && m.Method.any() {
		return true
	}
	service, method, ok := splitGRPC(path)
	return ok && m.Service.meets(service) && m.Method.meets(method)
}

func (n *GRPCName) any() bool { return n.Value == "" && n.Regex == nil }

// exact is the name that is asked for; "" if there are several.
func (n *GRPCName) exact() string {
	if n.Regex != nil {
		return ""
	}
	return n.Value
}

func (n *GRPCName) meets(name string) bool {
	if n.Regex != nil {
		return matchRegex(n.Regex, name)
	}
	return n.Value == "" || n.Value == name
}

// rank orders names before expressions before none. Gateway API counts characters only, but of those that an expression matches nobody can say how many they are.
func (n *GRPCName) rank() int {
	switch {
	case n.any():
		return 2
	case n.Regex != nil:
		return 1
	default:
		return 0
	}
}

// compare orders conditions by precedence: names before expressions before none, and then the longer first.
func (n *GRPCName) compare(o *GRPCName) int {
	return cmp.Or(cmp.Compare(n.rank(), o.rank()), cmp.Compare(len(o.Value), len(n.Value)))
}

// Compare orders matches by precedence (GRPCRouteRule.matches): the service decides, and then the method. Nil comes last: what is for gRPC alone comes before
// what is for all requests.
func (m *GRPCMatch) Compare(o *GRPCMatch) int {
	if m == nil || o == nil {
		return compareBool(m == nil, o == nil)
	}
	return cmp.Or(m.Service.compare(&o.Service), m.Method.compare(&o.Method))
}

// String returns the condition as one word, such as "foo.Bar/Get", "foo.Bar/*" or "*/*".
func (m *GRPCMatch) String() string { return m.Service.text() + "/" + m.Method.text() }

func (n *GRPCName) text() string {
	switch {
	case n.Regex != nil:
		return "~" + quoteRaw(n.Value)
	case n.Value == "":
		return "*"
	default:
		return word(n.Value, "")
	}
}

// mismatch says why a request does not meet the condition; "" if it does.
func (m *GRPCMatch) mismatch(r *Request) string {
	switch {
	case !r.isGRPC():
		return "not a gRPC request, which has Content-Type application/grpc"
	case !m.matches(r.Path):
		return fmt.Sprintf("grpc %s is not %s", m, shorten(word(strings.TrimPrefix(r.Path, "/"), pathMarks)))
	}
	return ""
}

// grpcIndex finds the rules of a host that are for gRPC alone, in the order of precedence: those that name service and method, then those that name the service,
// with an expression for the method and then without, and then the others one by one.
type grpcIndex struct {
	exact   map[string][]*Rule // by path
	service map[string][]*Rule // by service
	rest    []*Rule
}

// add puts a rule into the index. Rules must be added in the order of precedence.
func (x *grpcIndex) add(r *Rule) {
	m := r.Match.GRPC
	service, method := m.Service.exact(), m.Method.exact()
	switch {
	case service != "" && method != "":
		addRule(&x.exact, "/"+service+"/"+method, r)
	case service != "":
		addRule(&x.service, service, r)
	default:
		x.rest = append(x.rest, r)
	}
}

func addRule(m *map[string][]*Rule, key string, r *Rule) {
	if *m == nil {
		*m = map[string][]*Rule{}
	}
	(*m)[key] = append((*m)[key], r)
}

func (x *grpcIndex) lookup(r *Request) *Rule {
	if rule := first(x.exact[r.Path], r); rule != nil {
		return rule
	}
	if service, _, ok := splitGRPC(r.Path); ok {
		if rule := firstMatch(x.service[service], r); rule != nil {
			return rule
		}
	}
	return firstMatch(x.rest, r)
}

// firstMatch returns the first of some rules that a gRPC request meets.
func firstMatch(rules []*Rule, r *Request) *Rule {
	i := slices.IndexFunc(rules, func(rule *Rule) bool { return rule.Match.GRPC.matches(r.Path) && rule.Match.matchesRest(r) })
	if i < 0 {
		return nil
	}
	return rules[i]
}
