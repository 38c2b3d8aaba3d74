package route

import "strings"

// CookieValue returns the value of a cookie from the lines of a Cookie header; false if there is none of the name. Of several the first counts: the one with the longest
// Path, as browsers send them. It does not allocate.
func CookieValue(lines []string, name string) (string, bool) {
	for _, line := range lines {
		for line != "" {
			pair, rest, _ := strings.Cut(line, ";")
			n, v, ok := strings.Cut(strings.Trim(pair, " \t"), "=")
			if ok && n == name {
				if len(v) > 1 && v[0] == '"' && v[len(v)-1] == '"' {
					v = v[1 : len(v)-1]
				}
				return v, true
			}
			line = rest
		}
	}
	return "", false
}

// QueryValue returns the first value of a query parameter, decoded; false if there is none, or none that can be decoded.
func QueryValue(query, name string) (string, bool) {
	raw, ok := firstQueryValue(query, name)
	if !ok {
		return "", false
	}
	return formDecode(raw)
}
