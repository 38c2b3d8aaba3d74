package compile

import (
	"strings"
	"testing"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Every rule of the CRD on paths; the value that is matched is the normal form.
func TestMatchPath(t *testing.T) {
	tests := []struct{ in, want, err string }{
		{"/", "/", ""},
		{"/a/b", "/a/b", ""},
		{"/a/", "/a/", ""},
		{"/a;b=c,d:e@f!$&'()*+~.-_", "/a;b=c,d:e@f!$&'()*+~.-_", ""},
		{"/%41%7e%20", "/A~%20", ""},
		{"/%c3%bc", "/%C3%BC", ""},
		{"/.a/..b/c.", "/.a/..b/c.", ""},
		{"", "", `must begin with "/"`},
		{"a", "", `must begin with "/"`},
		{"*", "", `must begin with "/"`},
		{"//", "", `must not contain "//"`},
		{"/a//b", "", `must not contain "//"`},
		{"/a/./b", "", `must not contain the elements "." and ".."`},
		{"/a/../b", "", `must not contain the elements`},
		{"/a/..", "", `must not contain the elements`},
		{"/.", "", `must not contain the elements`},
		{"/%2F", "", "must not contain an escaped slash"},
		{"/a%2fb", "", "must not contain an escaped slash"},
		{"/a#b", "", `must not contain '#'; it is written %23`},
		{"/a?b", "", `must not contain '?'; it is written %3F`},
		{"/a b", "", `must not contain ' '; it is written %20`},
		{"/a\nb", "", `must not contain '\n'; it is written %0A`},
		{"/a\\b", "", `must not contain '\\'; it is written %5C`},
		{"/ü", "", "must not contain"},
		{"/%", "", "invalid escape"},
		{"/%zz", "", "invalid escape"},
		{"/%00", "", "NUL"},
		{"/" + strings.Repeat("a", 1023), "/" + strings.Repeat("a", 1023), ""},
		{"/" + strings.Repeat("a", 1024), "", "has 1025 characters, 1024 are allowed"},
	}
	for _, test := range tests {
		got, err := matchPath(test.in)
		if got != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("matchPath(%.40q) = %.40q, %v; want %.40q, %s", test.in, got, err, test.want, test.err)
		}
	}
}

// An escaped dot is a dot, and a path of dots alone is none that a request can have.
func TestEscapedDotsAreRefused(t *testing.T) {
	for _, path := range []string{"/%2e", "/a/%2E%2e/b", "/.%2e"} {
		if got, err := matchPath(path); err == nil {
			t.Errorf("matchPath(%q) = %q, want an error", path, got)
		}
	}
}

func TestValues(t *testing.T) {
	long := strings.Repeat("x", 4097)
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"header name":           {second(headerName("X-Canary")), ""},
		"empty header name":     {second(headerName("")), "is empty"},
		"pseudo header":         {second(headerName(":method")), "must not contain ':'"},
		"header name with CRLF": {second(headerName("a\r\nb")), `must not contain '\r'`},
		"long header name":      {second(headerName(long)), "has 4097 characters, 256 are allowed"},
		"header value":          {checkHeaderValue("a, b\tc ü"), ""},
		"empty header value":    {checkHeaderValue(""), "is empty"},
		"long header value":     {checkHeaderValue(long), "has 4097 characters, 4096 are allowed"},
		"DEL":                   {checkHeaderValue("a\x7f"), `must not contain '\x7f'`},
		"LF":                    {checkHeaderValue("a\nb"), `must not contain '\n'`},
	} {
		if (test.err == nil) != (test.want == "") || test.err != nil && !strings.Contains(test.err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, test.err, test.want)
		}
	}
	for name, test := range map[string]struct{ value, typ, want string }{
		"exact":       {"a", "Exact", ""},
		"empty":       {"", "Exact", "the value is empty"},
		"long":        {long, "Exact", "the value has 4097 characters, 4096 are allowed"},
		"bad type":    {"a", "Prefix", `match type "Prefix" is none of Exact, RegularExpression`},
		"bad regex":   {"(", string(gatewayv1.HeaderMatchRegularExpression), "is not valid"},
		"heavy regex": {"(a{100}){100}", string(gatewayv1.HeaderMatchRegularExpression), "is "},
	} {
		_, err := valueMatch("A", test.value, test.typ, maxHeaderValue)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

// second is the error of two results.
func second[T any](_ T, err error) error { return err }
