package route

import (
	"errors"
	"net/url"
	"strings"
	"testing"
)

func TestNormalizePath(t *testing.T) {
	for _, c := range []struct {
		name, in, want string
		changed        bool
	}{
		{"root", "/", "/", false},
		{"plain", "/a/b-c_d.e~f", "/a/b-c_d.e~f", false},
		{"sub-delims", "/a!$&'()*+,;=:@", "/a!$&'()*+,;=:@", false},
		{"slashes are not merged", "//a///b//", "//a///b//", false},
		{"escaped unreserved", "/%41%7a%7E%2d%5F", "/Az~-_", false},
		{"lower case escapes", "/a%2fb%3a", "/a%2Fb%3A", false},
		{"escaped slash and backslash stay", "/a%2F..%5C", "/a%2F..%5C", false},
		{"decoded once", "/%252e%252e/%2541", "/%252e%252e/%2541", false},
		{"escaped percent sign", "/100%25", "/100%25", false},
		{"non-ASCII", "/ü", "/%C3%BC", false},
		{"invalid UTF-8", "/\xff", "/%FF", false},
		{"overlong UTF-8 is not a dot", "/%c0%ae/", "/%C0%AE/", false},
		{"characters that browsers leave alone", "/a[1]|{b}^\"<>`", "/a%5B1%5D%7C%7Bb%7D%5E%22%3C%3E%60", false},
		{"escaped control characters", "/%0a%7f", "/%0A%7F", false},
		{"path parameters are text", "/a;x=1/..;/b", "/a;x=1/..;/b", false},

		// RFC 3986, section 5.2.4 and its examples in 5.4.
		{"dot", "/a/./b", "/a/b", true},
		{"dot dot", "/a/b/../c", "/a/c", true},
		{"dot at the end", "/a/.", "/a/", true},
		{"dot dot at the end", "/a/b/..", "/a/", true},
		{"above the root", "/../../a", "/a", true},
		{"nothing left", "/a/..", "/", true},
		{"only dots", "/..", "/", true},
		{"only a dot", "/.", "/", true},
		{"RFC 3986", "/a/b/c/./../../g", "/a/g", true},
		{"empty elements are elements", "/a//../b", "/a/b", true},
		{"double slash appears", "/a/..//b", "//b", true},
		{"escaped dots", "/a/%2e%2E/b", "/b", true},
		{"half escaped dots", "/a/.%2e/b/%2e", "/b/", true},
		{"three dots", "/a/.../b", "/a/.../b", false},
		{"names with dots", "/.well-known/..a/a../.", "/.well-known/..a/a../", true},
		{"hidden file", "/.git", "/.git", false},
		{"dots and escapes", "/a%2f/../%62%3f", "/b%3F", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, changed, err := NormalizePath(c.in)
			if err != nil || got != c.want || changed != c.changed {
				t.Errorf("NormalizePath(%q) = %q, %v, %v; want %q, %v", c.in, got, changed, err, c.want, c.changed)
			}
		})
	}
}

func TestNormalizePathErrors(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"empty", "", `does not begin with "/"`},
		{"relative", "a/b", `does not begin with "/"`},
		{"asterisk", "*", `does not begin with "/"`},
		{"absolute", "http://a/b", `does not begin with "/"`},
		{"NUL", "/a%00b", "NUL (%00) at byte 2"},
		{"raw NUL", "/a\x00b", `invalid character '\x00' at byte 2; it is written %00`},
		{"backslash", `/a\..\b`, `invalid character '\\' at byte 2; it is written %5C`},
		{"fragment", "/a#b", "invalid character '#' at byte 2; it is written %23"},
		{"query", "/a?b", "invalid character '?' at byte 2; it is written %3F"},
		{"space", "/a b", "invalid character ' ' at byte 2; it is written %20"},
		{"new line", "/a\r\nb", `invalid character '\r'`},
		{"DEL", "/\x7f", `invalid character '\x7f'`},
		{"no hexadecimal digits", "/%zz", `invalid escape "%zz" at byte 1; a percent sign is written %25`},
		{"one digit", "/%4", `invalid escape "%4" at byte 1`},
		{"no digits", "/a%", `invalid escape "%" at byte 2`},
		{"half a digit", "/%4g", `invalid escape "%4g"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, changed, err := NormalizePath(c.in)
			if err == nil || !strings.Contains(err.Error(), c.want) || got != "" || changed {
				t.Errorf("NormalizePath(%q) = %q, %v, %v; want the error %q", c.in, got, changed, err, c.want)
			}
		})
	}
}

func TestNormalizePathAllocates(t *testing.T) {
	for _, path := range []string{"/", "/a/b/c%2F", "/.well-known/x", strings.Repeat("/a", 1000)} {
		if n := testing.AllocsPerRun(100, func() { _, _, _ = NormalizePath(path) }); n != 0 {
			t.Errorf("%.20s: %v allocations", path, n)
		}
	}
}

// strictNormalize is the slow twin of NormalizePath: one step after the other, each as its specification has it.
func strictNormalize(raw string) (string, bool, error) {
	if !strings.HasPrefix(raw, "/") {
		return "", false, errors.New("relative")
	}
	const unreserved = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~"
	var b strings.Builder
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch {
		case c == '%':
			decoded, err := url.PathUnescape(raw[i:min(i+3, len(raw))])
			if err != nil || decoded == "\x00" {
				return "", false, errors.New("escape")
			}
			i += 2
			if strings.Contains(unreserved, decoded) {
				b.WriteString(decoded)
			} else {
				b.WriteString(strings.ToUpper(raw[i-2 : i+1]))
			}
		case c <= ' ' || c == 0x7f || strings.IndexByte("\\#?", c) >= 0:
			return "", false, errors.New("character")
		case strings.IndexByte(unreserved+"!$&'()*+,;=:@/", c) >= 0:
			b.WriteByte(c)
		default:
			b.WriteString(strings.ToUpper("%" + string("0123456789abcdef"[c>>4]) + string("0123456789abcdef"[c&15])))
		}
	}
	resolved := removeDotSegments(b.String())
	return resolved, resolved != b.String(), nil
}

// removeDotSegments is RFC 3986, section 5.2.4, letter by letter.
func removeDotSegments(in string) string {
	out := ""
	for in != "" {
		switch {
		case strings.HasPrefix(in, "../"): // A
			in = in[3:]
		case strings.HasPrefix(in, "./"):
			in = in[2:]
		case strings.HasPrefix(in, "/./"): // B
			in = in[2:]
		case in == "/.":
			in = "/"
		case strings.HasPrefix(in, "/../"): // C
			in = in[3:]
			out = out[:max(0, strings.LastIndex(out, "/"))]
		case in == "/..":
			in = "/"
			out = out[:max(0, strings.LastIndex(out, "/"))]
		case in == ".", in == "..": // D
			in = ""
		default: // E
			end := strings.Index(in[1:], "/") + 1
			if end == 0 {
				end = len(in)
			}
			out += in[:end]
			in = in[end:]
		}
	}
	return out
}

func FuzzNormalizePath(f *testing.F) {
	for _, s := range []string{
		"/", "/a/../b", "/%2e%2E/a", "/a//..//", "/%00", "/a\\b", "/..;/x", "/%252e", "/ü%c3", "/a%2F%5c", "/./.", "/...", "/%", "a", "", "/#", "/a/.%2e", "/%2", "/ ", "/~%7e",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got, changed, err := NormalizePath(raw)
		want, wantChanged, wantErr := strictNormalize(raw)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("NormalizePath(%q): error %v, want %v", raw, err, wantErr)
		}
		if err != nil {
			return
		}
		if got != want || changed != wantChanged {
			t.Fatalf("NormalizePath(%q) = %q, %v; want %q, %v", raw, got, changed, want, wantChanged)
		}
		for segment := range strings.SplitSeq(got, "/") {
			if segment == "." || segment == ".." {
				t.Fatalf("NormalizePath(%q) = %q: a dot segment is left", raw, got)
			}
		}
		if again, changed, err := NormalizePath(got); again != got || changed || err != nil {
			t.Fatalf("NormalizePath(%q) = %q, %v, %v: not in normal form", got, again, changed, err)
		}
		if !changed && strings.Count(got, "/") != strings.Count(raw, "/") {
			t.Fatalf("NormalizePath(%q) = %q: other slashes, and not reported", raw, got)
		}
		before, _ := url.PathUnescape(raw)
		after, err := url.PathUnescape(got)
		if err != nil || !changed && before != after {
			t.Fatalf("NormalizePath(%q) = %q: means another path", raw, got)
		}
	})
}
