package compile

import (
	"strings"
	"testing"
)

func TestCleanHostname(t *testing.T) {
	tests := []struct {
		in       string
		wildcard bool
		want     string // "" when it is an error
	}{
		{"a.example.com", false, "a.example.com"},
		{"A.Example.COM", false, "a.example.com"},
		{"localhost", false, "localhost"},
		{"1and1.com", false, "1and1.com"},
		{"xn--bcher-kva.example", false, "xn--bcher-kva.example"},
		{"*.example.com", true, "*.example.com"},
		{"*.com", true, "*.com"},
		{"*.example.com", false, ""},
		{"", true, ""},
		{"*", true, ""},
		{"*.", true, ""},
		{"*.*.com", true, ""},
		{"a.*.com", true, ""},
		{"*a.com", true, ""},
		{".a.com", true, ""},
		{"a.com.", true, ""},
		{"a..com", true, ""},
		{"a_b.com", true, ""},
		{"-a.com", true, ""},
		{"a-.com", true, ""},
		{"a b", true, ""},
		{"a\r\nb", true, ""},
		{"bücher.example", true, ""},
		{"a:80", true, ""},
		{"10.0.0.1", true, ""},
		{"*.10.0.0.1", true, ""},
		{"::1", true, ""},
		{"[::1]", true, ""},
		{strings.Repeat("a", 63) + ".com", true, strings.Repeat("a", 63) + ".com"},
		{strings.Repeat("a", 64) + ".com", true, ""},
		{strings.Repeat("a.", 127) + "a", true, ""},
		{strings.Repeat("a.", 126) + "a", true, strings.Repeat("a.", 126) + "a"},
	}
	for _, test := range tests {
		got, err := cleanHostname(test.in, test.wildcard)
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("cleanHostname(%q, %t) = %q, %v; want %q", test.in, test.wildcard, got, err, test.want)
		}
	}
}

// Two hostnames intersect when there is a name that both stand for. The names tried here are enough to tell for patterns of up to three labels of two letters.
func TestIntersectAgreesWithEveryName(t *testing.T) {
	labels := []string{"a", "b"}
	var names, patterns []string
	for _, x := range labels {
		names = append(names, x)
		for _, y := range labels {
			names = append(names, x+"."+y)
			for _, z := range labels {
				names = append(names, x+"."+y+"."+z, "a."+x+"."+y+"."+z)
			}
		}
	}
	patterns = append(patterns, "")
	for _, n := range names {
		patterns = append(patterns, n)
		if strings.Count(n, ".") < 2 {
			patterns = append(patterns, "*."+n)
		}
	}
	matches := func(pattern, name string) bool {
		base, wild := strings.CutPrefix(pattern, "*.")
		if wild {
			return strings.HasSuffix(name, "."+base)
		}
		return pattern == "" || pattern == name
	}
	for _, p := range patterns {
		for _, q := range patterns {
			want := false
			for _, n := range names {
				want = want || matches(p, n) && matches(q, n)
			}
			if got := intersect(p, q); got != want {
				t.Errorf("intersect(%q, %q) = %t, want %t", p, q, got, want)
			}
		}
	}
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"http": true, "a-b.c": true, "8080": true, strings.Repeat("a", 253): true,
		"": false, "A": false, "a/b": false, "a_b": false, "-a": false, "a-": false, "a..b": false, "a b": false, "a\n": false, strings.Repeat("a", 254): false,
	} {
		if got := validName(name); got != want {
			t.Errorf("validName(%q) = %t, want %t", name, got, want)
		}
	}
}
