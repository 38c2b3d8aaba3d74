package route

import (
	"strings"
	"testing"
)

func TestApplyPrefix(t *testing.T) {
	for _, c := range []struct{ path, match, replacement, want string }{
		// The table at HTTPPathModifier.replacePrefixMatch.
		{"/foo/bar", "/foo", "/xyz", "/xyz/bar"},
		{"/foo/bar", "/foo", "/xyz/", "/xyz/bar"},
		{"/foo/bar", "/foo/", "/xyz", "/xyz/bar"},
		{"/foo/bar", "/foo/", "/xyz/", "/xyz/bar"},
		{"/foo", "/foo", "/xyz", "/xyz"},
		{"/foo/", "/foo", "/xyz", "/xyz/"},
		{"/foo/bar", "/foo", "", "/bar"},
		{"/foo/", "/foo", "", "/"},
		{"/foo", "/foo", "", "/"},
		{"/foo/", "/foo", "/", "/"},
		{"/foo", "/foo", "/", "/"},
		// The conformance test httproute-rewrite-path.
		{"/strip-prefix", "/strip-prefix", "/", "/"},
		{"/strip-prefix/three", "/strip-prefix", "/", "/three"},
		{"/prefix/one/two", "/prefix/one", "/one", "/one/two"},
		// What the table does not say.
		{"/foo", "/foo", "/xyz/", "/xyz/"},
		{"/foo", "/foo/", "/xyz", "/xyz"},
		{"/a/b", "/", "/xyz", "/xyz/a/b"},
		{"/a/b", "", "/xyz", "/xyz/a/b"},
		{"/", "/", "/xyz", "/xyz/"},
		{"/a/b", "/", "/", "/a/b"},
		{"/foo/a%2Fb%C3%BC", "/foo", "/xyz", "/xyz/a%2Fb%C3%BC"},
		{"/foo//bar", "/foo", "/xyz", "/xyz//bar"},
		{"/foo//evil.com", "/foo", "/", "/evil.com"},
		{"/foo//evil.com", "/foo", "", "/evil.com"},
		{"/foo/bar", "/foo", "//evil.com", "/evil.com/bar"},
		{"/foo/bar", "/foo", "///", "/bar"},
		{"/foo/bar", "/foo", `/\evil.com`, "/%5Cevil.com/bar"},
		{"/foo/bar", "/foo", "xyz", "/xyz/bar"},
		{"/foo/bar", "/foo", "/..", "/bar"},
		{"/foo/bar", "/foo", "/a/../../b", "/b/bar"},
		{"/foo/bar", "/foo", "/%2e%2E/b", "/b/bar"},
		{"/foo/bar", "/foo", "/a b?c#d", "/a%20b%3Fc%23d/bar"},
		{"/foo/bar", "/foo", "/100%", "/100%25/bar"},
		{"/foo/41", "/foo", "/%", "/%25/41"},
		{"/foo/bar", "/foo", "/ü", "/%C3%BC/bar"},
		{"/%66oo/%62ar", "/foo", "/xyz", "/xyz/%62ar"}, // the original spelling
	} {
		t.Run(c.path+" "+c.match+" "+c.replacement, func(t *testing.T) {
			f := &PathChange{Prefix: &c.replacement}
			if got := f.Apply(PathMatch{Value: c.match}, c.path); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestApply(t *testing.T) {
	for _, c := range []struct {
		name   string
		change *PathChange
		match  PathMatch
		want   string
	}{
		{"nothing", nil, PathMatch{}, "/foo/bar"},
		{"neither", &PathChange{}, PathMatch{}, "/foo/bar"},
		{"full", &PathChange{Full: new("/one")}, PathMatch{Value: "/foo"}, "/one"},
		{"full and empty", &PathChange{Full: new("")}, PathMatch{Value: "/foo"}, "/"},
		{"full with a trailing slash", &PathChange{Full: new("/one/")}, PathMatch{Value: "/foo"}, "/one/"},
		{"full and another host", &PathChange{Full: new("//evil.com/x")}, PathMatch{}, "/evil.com/x"},
		{"full and dots", &PathChange{Full: new("/a/../b")}, PathMatch{}, "/b"},
		{"prefix of an exact match", &PathChange{Prefix: new("/one")}, PathMatch{Kind: Exact, Value: "/foo/bar"}, "/one"},
		{"prefix of an expression", &PathChange{Prefix: new("/one")}, PathMatch{Kind: Regex, Value: "/foo/.*"}, "/one"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.change.Apply(c.match, "/foo/bar"); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func FuzzApply(f *testing.F) {
	for _, s := range [][3]string{
		{"/foo", "/foo/bar", "/xyz"},
		{"/", "/a", "//b"},
		{"/foo/", "/foo//evil.com", "/"},
		{"/a", "/a/b", "/../.."},
		{"/a", "/a%2e%2e/b", "/%2"},
		{"/a", "/a/41", "/%"},
		{"/a", "/a//./b", ""},
		{"/a", "/a\\b", `/\`},
		{"", "", ""},
		{"/a/b", "/a", "x"},
		{"/a", "/a/..;/b", "/\r\n"},
		{"0", "0", "\x00"},
		{"/a", "/a/%00", "/.\x00."},
	} {
		f.Add(s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, match, path, replacement string) {
		for _, change := range []*PathChange{{Full: &replacement}, {Prefix: &replacement}} {
			got := change.Apply(PathMatch{Value: match}, path)
			if strings.HasPrefix(got, "//") {
				t.Fatalf("%s of %q with the match %q = %q: another host", change, path, match, got)
			}
			normal, changed, err := NormalizePath(got)
			if err != nil || changed {
				t.Fatalf("%s of %q with the match %q = %q: %q, %v, %v", change, path, match, got, normal, changed, err)
			}
			if strings.ContainsFunc(got, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`\?#"<>`, r) }) {
				t.Fatalf("%s of %q with the match %q = %q: invalid characters", change, path, match, got)
			}
		}
		// What the prefix leaves over is what follows it in the path, to the byte.
		m := PathMatch{Value: match}
		if normal, _, err := NormalizePath(path); err == nil && m.matches(normal) && strings.HasPrefix(match, "/") {
			rest := normal[len(m.key()):]
			want := "/xyz" + rest
			if got := (&PathChange{Prefix: new("/xyz")}).Apply(m, normal); got != want {
				t.Fatalf("%q, %q: got %q, want %q", match, normal, got, want)
			}
		}
	})
}
