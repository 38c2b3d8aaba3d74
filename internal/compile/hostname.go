package compile

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// cleanHostname returns a host name in lower case, or says what is wrong with it. Names are those of RFC 1123 and no IP addresses; a wildcard is "*." before a
// name, where it is allowed.
func cleanHostname(name string, wildcard bool) (string, error) {
	name = strings.ToLower(name)
	rest, wild := strings.CutPrefix(name, "*.")
	switch {
	case name == "" || rest == "":
		return "", errors.New("is empty")
	case name == "*":
		return "", errors.New(`is "*"; no hostname at all means any`)
	case wild && !wildcard:
		return "", fmt.Errorf("%q has a wildcard, which is not allowed here", name)
	case len(name) > 253:
		return "", fmt.Errorf("has %d characters, 253 are allowed", len(name))
	}
	if isIP(rest) {
		return "", fmt.Errorf("%q is an IP address, not a name", name)
	}
	for label := range strings.SplitSeq(rest, ".") {
		if !validLabel(label) {
			return "", fmt.Errorf("%q is not a host name: %s", name, labelFault(label))
		}
	}
	return name, nil
}

// isIP tells whether a name is an IP address. It looks at the last byte first, because that is enough for nearly all names.
func isIP(name string) bool {
	if last := name[len(name)-1]; lowerAlphanumeric(last) && last > '9' {
		return false
	}
	_, err := netip.ParseAddr(name)
	return err == nil
}

// validLabel tells whether s is a label of RFC 1123 in lower case.
func validLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !lowerAlphanumeric(c) && c != '-' {
			return false
		}
	}
	return true
}

func lowerAlphanumeric(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

func alphanumeric(c byte) bool { return lowerAlphanumeric(c) || 'A' <= c && c <= 'Z' }

func labelFault(label string) string {
	switch {
	case label == "":
		return "a label is empty"
	case len(label) > 63:
		return fmt.Sprintf("a label has %d characters, 63 are allowed", len(label))
	case strings.Contains(label, "*"):
		return `"*" may only be the whole first label`
	}
	return fmt.Sprintf("the label %q may hold letters, digits and, inside, hyphens", label)
}

// intersect tells whether there is a name that both hostnames stand for. Each is exact, a wildcard, which stands for names with one or more labels in place of
// its star, or empty, which stands for all.
func intersect(a, b string) bool {
	return a == "" || b == "" || a == b || within(a, b) || within(b, a)
}

// within tells whether the wildcard stands for all the names that the hostname name stands for.
func within(wildcard, name string) bool {
	suffix, wild := strings.CutPrefix(wildcard, "*")
	return wild && strings.HasSuffix(name, suffix)
}

// validName tells whether s can be the name of an object or of a section of one: labels in lower case, joined by dots.
func validName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for part := range strings.SplitSeq(s, ".") {
		if len(part) == 0 || !lowerAlphanumeric(part[0]) || !lowerAlphanumeric(part[len(part)-1]) {
			return false
		}
		for i := range len(part) {
			if c := part[i]; !lowerAlphanumeric(c) && c != '-' {
				return false
			}
		}
	}
	return true
}
