package compile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-io/fairlead/internal/object"
)

// Severity says what a Problem does to its object.
type Severity string

// The severities. Lint fails on errors and warnings, and only reports notes.
const (
	Error   Severity = "error"   // something that the object asks for is not served
	Warning Severity = "warning" // it is served, but not as its author will expect
	Note    Severity = "note"    // worth knowing
)

// Problem is one thing that is wrong with one object, in words that let its author mend it: what was found, where, and what would be right.
type Problem struct {
	Object   object.Ref
	Field    string // path in the object, such as spec.rules[0].backendRefs[1].name
	Code     string // stable, CamelCase: the reason of the status condition where there is one
	Severity Severity
	Message  string // one sentence, lower case, no full stop
}

// String returns the problem as one line.
func (p Problem) String() string {
	where := p.Object.String()
	if p.Field != "" {
		where += " " + p.Field
	}
	return fmt.Sprintf("%s: %s: %s (%s)", p.Severity, where, p.Message, p.Code)
}

// list writes names for a sentence: a few of them, and how many more there are.
func list(names []string) string {
	const few = 4
	if len(names) > few {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
	}
	return strings.Join(names, ", ")
}

func compareProblems(a, b Problem) int {
	return cmp.Or(a.Object.Compare(b.Object), compareFields(a.Field, b.Field), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Message, b.Message))
}

// compareFields orders paths of fields as people count: spec.rules[2] comes before spec.rules[10].
func compareFields(a, b string) int {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	return cmp.Or(cmp.Compare(digits(a, i), digits(b, i)), cmp.Compare(a[i:], b[i:]))
}

// digits is how many digits s has from i on, and 0 where no index begins there or goes on.
func digits(s string, i int) int {
	n := 0
	for i+n < len(s) && '0' <= s[i+n] && s[i+n] <= '9' {
		n++
	}
	return n
}

// problems collects Problems; sorted() drops repetitions.
type problems struct{ list []Problem }

func (p *problems) add(sev Severity, ref object.Ref, field, code, format string, args ...any) {
	p.list = append(p.list, Problem{Object: ref, Field: field, Code: code, Severity: sev, Message: fmt.Sprintf(format, args...)})
}

func (p *problems) sorted() []Problem {
	slices.SortFunc(p.list, compareProblems)
	return slices.CompactFunc(p.list, func(a, b Problem) bool { return compareProblems(a, b) == 0 })
}

// guard runs the part of the compilation that belongs to one object. A panic in it would be a fault of ours: it costs that object its place and no other.
func (c *compiler) guard(ref object.Ref, f func()) {
	defer func() {
		if r := recover(); r != nil {
			c.problems.add(Error, ref, "", codeInternal, "internal error, please report it: %v", r)
		}
	}()
	f()
}

// codeInternal is the code of a problem that is a fault of Fairlead's own.
const codeInternal = "InternalError"
