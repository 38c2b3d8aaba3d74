package route

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func mustRegex(t *testing.T, expr string) ValueMatch {
	t.Helper()
	re, err := CompileRegex(expr)
	if err != nil {
		t.Fatal(err)
	}
	return ValueMatch{Value: expr, Regex: re}
}

func TestMatchesHeader(t *testing.T) {
	for _, c := range []struct {
		name   string
		values []string
		want   string
		match  bool
	}{
		{"equal", []string{"1"}, "1", true},
		{"absent", nil, "1", false},
		{"absent and empty wanted", nil, "", false},
		{"empty", []string{""}, "", true},
		{"values are case-sensitive", []string{"A"}, "a", false},
		{"part of a value", []string{"12"}, "1", false},
		{"one of several", []string{"1", "2"}, "2", true},
		{"joined", []string{"1", "2"}, "1,2", true},
		{"joined with spaces", []string{"1", "2"}, "1, 2", true},
		{"joined in another way", []string{"1", "2", "3"}, "1, 2,3", false},
		{"joined in another order", []string{"1", "2"}, "2,1", false},
		{"joined and more", []string{"1", "2"}, "1,2,3", false},
		{"joined and less", []string{"1", "2", "3"}, "1,2", false},
		{"a list in one line", []string{"1, 2"}, "2", false},
		{"empty ones joined", []string{"", ""}, ",", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := ValueMatch{Name: "X-A", Value: c.want}
			if got := m.matchesHeader(&Request{Header: http.Header{"X-A": c.values}}); got != c.match {
				t.Errorf("%q matches %q: %v", c.values, c.want, got)
			}
		})
	}
	m := ValueMatch{Name: "X-A", Value: "1"}
	if m.matchesHeader(&Request{}) {
		t.Error("a request without headers matches")
	}
}

func TestMatchesRegex(t *testing.T) {
	m := mustRegex(t, "v[0-9]+|x")
	m.Name = "v"
	for value, want := range map[string]bool{"v1": true, "x": true, "v": false, "xv1": false, "v1x": false, "": false} {
		if got := m.matchesHeader(&Request{Header: http.Header{"V": {"no", value}}}); got != want {
			t.Errorf("header %q: %v", value, got)
		}
		if got := m.matchesQuery("v=" + value); got != want {
			t.Errorf("query %q: %v", value, got)
		}
	}
	if !m.matchesQuery("a=b&v=%76%31") {
		t.Error("the value is not decoded for the expression")
	}
	if m.matchesQuery("v=%7") || m.matchesQuery("a=v1") {
		t.Error("a parameter that is malformed or absent matches")
	}
	host := ValueMatch{Name: "Host", Value: "a"}
	if !host.matchesHeader(&Request{Host: "a"}) || host.matchesHeader(&Request{Host: "b", Header: http.Header{"Host": {"a"}}}) {
		t.Error("the Host header is not the request's host")
	}
}

func TestMatchesQuery(t *testing.T) {
	for _, c := range []struct {
		name, query, param, value string
		want                      bool
	}{
		{"equal", "a=1", "a", "1", true},
		{"absent", "", "a", "1", false},
		{"without equals sign", "a", "a", "", true},
		{"empty pairs", "&&a=1&&", "a", "1", true},
		{"the first counts", "a=2&a=1", "a", "1", false},
		{"names are case-sensitive", "A=1", "a", "1", false},
		{"values are case-sensitive", "a=X", "a", "x", false},
		{"plus is a space", "a=x+y", "a", "x y", true},
		{"escapes", "%61=%31", "a", "1", true},
		{"escaped plus", "a=1%2B1", "a", "1+1", true},
		{"decoded once", "a=%2531", "a", "%31", true},
		{"escaped ampersand", "a=1%26b=2", "a", "1&b=2", true},
		{"second equals sign", "a=1=2", "a", "1=2", true},
		{"semicolon is a character", "x=1;a=1", "a", "1", false},
		{"semicolon in a value", "a=1;b=2", "a", "1;b=2", true},
		{"malformed value", "a=%zz", "a", "%zz", false},
		{"a malformed first value hides the second", "a=%zz&a=1", "a", "1", false},
		{"malformed others", "%zz=1&b=%&a=1", "a", "1", true},
		{"prefix of a name", "ab=1", "a", "1", false},
		{"prefix of a value", "a=12", "a", "1", false},
		{"value is a prefix", "a=1", "a", "12", false},
		{"UTF-8", "a=%C3%BC", "a", "ü", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := ValueMatch{Name: c.param, Value: c.value}
			if got := m.matchesQuery(c.query); got != c.want {
				t.Errorf("%q matches %s: %v", c.query, m, got)
			}
		})
	}
}

func FuzzQuery(f *testing.F) {
	for _, s := range [][2]string{
		{"a=1&b=2", "a"}, {"a=%zz&a=1", "a"}, {"%61=+%2B", "a"}, {"&&=x&a", ""}, {"a=1;b=2", "b"}, {"a==&a", "a"}, {"%=1", "%"}, {"a%00=%00", "a\x00"},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, query, name string) {
		if strings.Count(query, "&") > 5000 {
			return
		}
		// net/url drops pairs with semicolons; for us they are characters like any other, as if they were escaped.
		values, err := url.ParseQuery(strings.ReplaceAll(query, ";", "%3B"))
		raw, ok := firstQueryValue(query, name)
		got, decoded := formDecode(raw)
		if ok && formEqual(raw, got) != decoded {
			t.Fatalf("%q: %q is decoded to %q, %v, but formEqual disagrees", query, raw, got, decoded)
		}
		want, wantOK := "", values.Has(name)
		if wantOK {
			want = values[name][0]
		}
		// net/url drops what is malformed, here it hides what follows.
		if err == nil && (ok != wantOK || got != want || ok && !decoded) {
			t.Fatalf("%q: the first %q is %q, %v; want %q, %v", query, name, got, ok, want, wantOK)
		}
		if ok && decoded && !slices.Contains(values[name], got) {
			t.Fatalf("%q: %q is %q, which net/url does not know: %q", query, name, got, values[name])
		}
		if wantOK && !ok {
			t.Fatalf("%q: %q is missing; want %q", query, name, want)
		}
		for _, v := range []string{want, name, "x", ""} {
			m := ValueMatch{Name: name, Value: v}
			if m.matchesQuery(query) != (ok && decoded && got == v) {
				t.Fatalf("%q matches %s: %v, but the value is %q", query, m, m.matchesQuery(query), got)
			}
		}
	})
}

func FuzzHeader(f *testing.F) {
	f.Add("1", "2", "3", "1, 2, 3")
	f.Add("1", "2", "", "1,2,")
	f.Add(",", "", ", ", ",,,, ")
	f.Add("a", "a,", "a", "a,a,,a")
	f.Fuzz(func(t *testing.T, a, b, c, want string) {
		for _, values := range [][]string{{a}, {a, b}, {a, b, c}} {
			m := ValueMatch{Name: "X", Value: want}
			all := append(slices.Clone(values), strings.Join(values, ", "), strings.Join(values, ","))
			if got := m.matchesHeader(&Request{Header: http.Header{"X": values}}); got != slices.Contains(all, want) {
				t.Fatalf("%q matches %q: %v", values, want, got)
			}
		}
	})
}
