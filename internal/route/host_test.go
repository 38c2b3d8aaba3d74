package route

import (
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var longLabel, longName = strings.Repeat("a", 63), strings.Repeat("a.", 126) + "a"

func TestNormalizeHost(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"name", "shop.example.com", "shop.example.com"},
		{"one label", "localhost", "localhost"},
		{"upper case", "Shop.EXAMPLE.com", "shop.example.com"},
		{"port", "shop.example.com:8080", "shop.example.com"},
		{"smallest port", "a:1", "a"},
		{"largest port", "a:65535", "a"},
		{"absolute name", "example.com.", "example.com"},
		{"absolute name and port", "example.com.:80", "example.com"},
		{"underscore", "_dmarc.my_host", "_dmarc.my_host"},
		{"hyphens", "xn--bcher-kva.r3---sn.com", "xn--bcher-kva.r3---sn.com"},
		{"IPv4", "127.0.0.1:80", "127.0.0.1"},
		{"IPv6", "[::1]", "[::1]"},
		{"IPv6 and port", "[2001:DB8::1]:443", "[2001:db8::1]"},
		{"IPv4 in IPv6", "[::ffff:1.2.3.4]", "[::ffff:1.2.3.4]"},
		{"longest label", longLabel, longLabel},
		{"longest name", longName, longName},
		{"longest name, absolute, with port", longName + ".:80", longName},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := NormalizeHost(c.in); err != nil || got != c.want {
				t.Errorf("NormalizeHost(%q) = %q, %v; want %q", c.in, got, err, c.want)
			}
		})
	}
}

func TestNormalizeHostErrors(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"empty", "", "empty"},
		{"port only", ":80", "empty"},
		{"dot", ".", "empty"},
		{"empty label", "a..b", "empty label"},
		{"leading dot", ".a", "empty label"},
		{"two dots at the end", "a..", "empty label"},
		{"user", "user@a", `invalid character '@'`},
		{"user and password", "u:p@a", "port must be"},
		{"space", "a b", "invalid character"},
		{"list", "a,b", "invalid character"},
		{"escape", "a%41", "invalid character"},
		{"line break", "a%0d%0a", "invalid character"},
		{"raw line break", "a\r\nb", "invalid character"},
		{"NUL", "a\x00", "invalid character"},
		{"path", "a/b", "invalid character"},
		{"wildcard", "*.a", "invalid character"},
		{"non-ASCII", "bücher", "invalid character"},
		{"empty port", "a:", "port must be"},
		{"port 0", "a:0", "port must be"},
		{"port too large", "a:65536", "port must be"},
		{"port with a sign", "a:+80", "port must be"},
		{"port is no number", "a:abc", "port must be"},
		{"port too long", "a:000080", "port must be"},
		{"two ports", "a:80:80", "port must be"},
		{"IPv6 without brackets", "::1", "port must be"},
		{"IPv6 unclosed", "[::1", "missing ]"},
		{"IPv6 zone", "[fe80::1%25eth0]", "not an IPv6 address"},
		{"IPv6 raw zone", "[fe80::1%eth0]", "not an IPv6 address"},
		{"IPv4 in brackets", "[1.2.3.4]", "not an IPv6 address"},
		{"name in brackets", "[a]", "not an IPv6 address"},
		{"nothing in brackets", "[]", "not an IPv6 address"},
		{"future address", "[v1.a]", "not an IPv6 address"},
		{"IPv6 bad port", "[::1]:x", "port must be"},
		{"IPv6 and a name", "[::1]a", "port must be"},
		{"label too long", longLabel + "a", "label longer than 63 bytes"},
		{"name too long", longName + "a", "longer than 253 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := NormalizeHost(c.in); err == nil || got != "" || !strings.Contains(err.Error(), c.want) {
				t.Errorf("NormalizeHost(%q) = %q, %v; want the error %q", c.in, got, err, c.want)
			}
		})
	}
}

func TestNormalizeHostAllocates(t *testing.T) {
	for _, host := range []string{"shop.example.com:8080", "shop.example.com.", "[2001:db8::1]:443", "127.0.0.1"} {
		if n := testing.AllocsPerRun(100, func() { _, _ = NormalizeHost(host) }); n != 0 {
			t.Errorf("%s: %v allocations", host, n)
		}
	}
}

var strictName = regexp.MustCompile(`\A[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\z`)

// strictHost is the slow twin of NormalizeHost.
func strictHost(s string) (string, bool) {
	host := s
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		port, err := strconv.Atoi(s[i+1:])
		if err != nil || port < 1 || port > 65535 || len(s)-i > 6 || strings.ContainsAny(s[i:], "+-") {
			return "", false
		}
		host = s[:i]
	}
	if strings.HasPrefix(host, "[") {
		if !strings.HasSuffix(host, "]") {
			return "", false
		}
		ip, err := netip.ParseAddr(host[1 : len(host)-1])
		return strings.ToLower(host), err == nil && ip.Is6() && ip.Zone() == "" && net.ParseIP(host[1:len(host)-1]) != nil
	}
	host = strings.TrimSuffix(host, ".")
	return strings.ToLower(host), len(host) <= 253 && strictName.MatchString(host)
}

func FuzzNormalizeHost(f *testing.F) {
	for _, s := range []string{
		"a", "A.b.", "a:80", "[::1]:80", "[::1]", "a:", "", "a..b", "u@a", "[fe80::1%25e]", "1.2.3.4:0", "a,b", "a b", "[::ffff:1.2.3.4]", "a:00080", "\xc3\xbc", "[1.2.3.4]", "a-:1", ".",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := NormalizeHost(s)
		want, ok := strictHost(s)
		if (err == nil) != ok {
			t.Fatalf("NormalizeHost(%q) = %q, %v; the strict one says %q, %v", s, got, err, want, ok)
		}
		if err != nil {
			return
		}
		if got != want {
			t.Fatalf("NormalizeHost(%q) = %q; want %q", s, got, want)
		}
		if again, err := NormalizeHost(got); again != got || err != nil {
			t.Fatalf("NormalizeHost(%q) = %q, %v: not in normal form", got, again, err)
		}
	})
}
