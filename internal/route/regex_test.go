package route

import (
	"regexp"
	"strings"
	"testing"
)

func TestCompileRegex(t *testing.T) {
	for _, c := range []struct {
		name, expr string
		yes, no    []string
	}{
		{"anchored at both ends", "/a", []string{"/a"}, []string{"/ab", "x/a", "/a\n", ""}},
		{"alternatives are anchored together", "/a|/b", []string{"/a", "/b"}, []string{"/ax", "x/b"}},
		{"own anchors", "^/a$", []string{"/a"}, []string{"/ab"}},
		{"multi-line mode does not escape", "(?m)^/a$", []string{"/a"}, []string{"/a\n/b", "x\n/a"}},
		{"case-insensitive", "(?i)/a", []string{"/a", "/A"}, []string{"/b"}},
		{"empty", "", []string{""}, []string{"/"}},
		{"uuid", "/api/v[0-9]+/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(/.*)?", []string{"/api/v1/01234567-89ab-cdef-0123-456789abcdef/x"}, []string{"/api/v1/x"}},
		{"label", "[a-z0-9-]{1,63}", []string{"a", longLabel}, []string{"", longLabel + "a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			re, err := CompileRegex(c.expr)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range c.yes {
				if !re.MatchString(s) {
					t.Errorf("%q does not match %q", c.expr, s)
				}
			}
			for _, s := range c.no {
				if re.MatchString(s) {
					t.Errorf("%q matches %q", c.expr, s)
				}
			}
		})
	}
}

func TestCompileRegexErrors(t *testing.T) {
	for _, c := range []struct{ name, expr, want string }{
		{"unbalanced", "a(", "is not valid (RE2 syntax): error parsing regexp: missing closing )"},
		{"balanced with the anchors only", "a)|(b", "is not valid (RE2 syntax): error parsing regexp: unexpected )"},
		{"back reference", `(a)\1`, "is not valid (RE2 syntax)"},
		{"look-ahead", "(?=a)", "is not valid (RE2 syntax)"},
		{"too long", strings.Repeat("a", 1025), "is 1025 bytes long; at most 1024 are allowed"},
		{"too many repetitions", "a{1001}", "is not valid (RE2 syntax): error parsing regexp: invalid repeat count"},
		{"repetitions of repetitions", "(a{30}){30}", "too costly: it takes a program of 962 steps, and 250 are allowed"},
		{"many repetitions", strings.Repeat("a{900}", 100), "too costly"},
		{"many stars", strings.Repeat(".*a", 300), "too costly"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if re, err := CompileRegex(c.expr); re != nil || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, %v; want the error %q", re, err, c.want)
			}
		})
	}
}

func TestLiteralPrefix(t *testing.T) {
	for expr, want := range map[string]string{
		"/api/.*": "/api/", "/a|/b": "/", "/abc|/abd": "/ab", "(?i)/a": "", ".*": "", "(/a)/b": "/a", "/v[0-9]": "/v", "/a?": "/", "/a{2}": "/", "": "", "^/a": "/a",
	} {
		re, err := CompileRegex(expr)
		if err != nil {
			t.Fatal(err)
		}
		if got := literalPrefix(re); got != want {
			t.Errorf("literalPrefix(%q) = %q, want %q", expr, got, want)
		}
	}
	if got := literalPrefix(regexp.MustCompile("/a")); got != "" {
		t.Errorf("an expression without anchor has the literal %q", got)
	}
	if got := literalPrefix(nil); got != "" {
		t.Errorf("no expression has the literal %q", got)
	}
}

// What the literal prefix says must hold for everything that the expression matches.
func FuzzLiteralPrefix(f *testing.F) {
	f.Add("/api/.*", "/api/x")
	f.Add("(?i)/a|/ab", "/A")
	f.Add("(?i:/)a", "/a")
	f.Add("(?m)^a$", "a")
	f.Add("(a|b)c?", "b")
	f.Add("(?:a{0}b)*", "bb")
	f.Add(`\Qa.b\E`, "a.b")
	f.Add("\xff", "\xff")
	f.Fuzz(func(t *testing.T, expr, s string) {
		re, err := CompileRegex(expr)
		if err != nil {
			return
		}
		if literal := literalPrefix(re); re.MatchString(s) && !strings.HasPrefix(s, literal) {
			t.Fatalf("%q matches %q, which does not begin with %q", expr, s, literal)
		}
	})
}

// What a client sends does not decide how long an expression runs.
func TestRegexDoesNotRunOnLongValues(t *testing.T) {
	re, err := CompileRegex("/.*")
	if err != nil {
		t.Fatal(err)
	}
	m := PathMatch{Kind: Regex, Value: "/.*", Regex: re}
	if longest := "/" + strings.Repeat("a", maxRegexValue-1); !m.matches(longest) || m.matches(longest+"a") {
		t.Error("values of up to 4 KiB are matched, and longer ones are not")
	}
	if got := m.mismatch("/" + strings.Repeat("a", maxRegexValue)); !strings.Contains(got, "longer than 4096 bytes") {
		t.Errorf("the explanation is %q", got)
	}
}

// BenchmarkRegexWorst is the figure behind the limits: an expression at the limit of steps on the longest value.
func BenchmarkRegexWorst(b *testing.B) {
	re, err := CompileRegex("/" + strings.Repeat(".*a", 80))
	if err != nil {
		b.Fatal(err)
	}
	path := "/" + strings.Repeat("a", maxRegexValue-1)
	for b.Loop() {
		re.MatchString(path)
	}
}
