package route

import "testing"

func TestCORSOrigins(t *testing.T) {
	parse := func(s string) Origin {
		if s == "*" {
			return Origin{}
		}
		o, ok := ParseOrigin(s)
		if !ok {
			t.Fatalf("%q is not an origin", s)
		}
		return o
	}
	for _, c := range []struct {
		pattern, origin string
		credentials     bool
		want            bool
	}{
		{"https://www.foo.com", "https://www.foo.com", true, true},
		{"https://www.foo.com", "https://www.foo.com:443", true, true}, // "port 443 is assumed for https origins"
		{"https://www.foo.com:443", "https://www.foo.com", true, true},
		{"http://www.foo.com", "http://www.foo.com:80", true, true},
		{"https://www.foo.com", "https://www.foo.com:8443", true, false},
		{"https://www.foo.com:8443", "https://www.foo.com:8443", true, true},
		{"https://www.foo.com", "http://www.foo.com", true, false},
		{"https://www.FOO.com", "https://www.foo.com", true, true},
		{"https://*.bar.com", "https://www.bar.com", true, true},
		{"https://*.bar.com", "https://xpto.www.bar.com", true, true}, // "any number of DNS labels"
		{"https://*.bar.com", "https://bar.com", true, false},
		{"https://*.bar.com", "https://evilbar.com", true, false},
		{"https://*.bar.com", "https://www.bar.com.evil.com", true, false},
		{"https://*.bar.com", "https://*.bar.com", true, false},
		{"https://*", "https://anything.example:443", true, true},
		{"https://*", "http://anything.example", true, false},
		{"*", "https://anything.example:12345", false, true},
		{"*", "https://anything.example", true, true},
		{"*", "null", false, true},
		{"*", "null", true, false},
		{"https://*", "null", false, false},
		{"*", "file://", false, false},
		{"*", "https://user@evil.com", false, false},
		{"*", "https://a.com/path", false, false},
		{"*", "https://a.com:0", false, false},
		{"*", "https://a.com:+80", false, false},
		{"*", "https://", false, false},
		{"*", "", false, false},
		{"http://[::1]:8080", "http://[::1]:8080", false, true},
	} {
		f := &CORS{Origins: []Origin{parse(c.pattern)}, Credentials: c.credentials}
		if got := f.Allows(c.origin); got != c.want {
			t.Errorf("%s allows %q (credentials %v): %v, want %v", f.Origins[0], c.origin, c.credentials, got, c.want)
		}
	}
	for _, bad := range []string{"", "*.com", "ftp://a.com", "https://a.*.com", "https://*a.com", "https://a.com:99999", "https://a b.com", "https:a.com", "https://a.com,b.com"} {
		if o, ok := ParseOrigin(bad); ok {
			t.Errorf("%q is taken for the origin %s", bad, o)
		}
	}
}
