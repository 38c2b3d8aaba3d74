package route

import "strings"

// Apply returns the path that a request for path gets, where m is the match of the rule that it won. path is the normalized path, or the original one where
// NormalizePath says that it may be forwarded.
//
// A prefix is replaced by path element, as the table at HTTPPathModifier.replacePrefixMatch in Gateway API has it: slashes at the joint are neither lost nor
// doubled. With a match that is not a prefix, a Prefix replaces the whole path. The result always begins with one single slash, so that it cannot be taken for
// the name of another host, has valid escapes and no dot segments, whatever the replacement holds.
func (f *PathChange) Apply(m PathMatch, path string) string {
	switch {
	case f == nil:
		return path
	case f.Full != nil:
		return cleanPath(*f.Full)
	case f.Prefix != nil:
		return cleanPath(replacePrefix(m, path, *f.Prefix))
	default:
		return path
	}
}

// replacePrefix takes away as many elements as the match has and puts the replacement there. It counts them and does not compare, because the original path may
// spell them differently.
func replacePrefix(m PathMatch, path, replacement string) string {
	rest := ""
	if m.Kind == Prefix {
		rest = skipElements(path, strings.Count(m.key(), "/"))
	}
	if rest == "" {
		return replacement
	}
	return strings.TrimSuffix(replacement, "/") + rest
}

// skipElements returns path without its first n elements: what is left is empty or begins with a slash.
func skipElements(path string, n int) string {
	for ; n >= 0; n-- {
		i := strings.IndexByte(path, '/')
		if i < 0 {
			return ""
		}
		if n == 0 {
			return path[i:]
		}
		path = path[i+1:]
	}
	return ""
}

// cleanPath makes a path of anything.
func cleanPath(path string) string {
	if !isClean(path) {
		b := appendClean(make([]byte, 0, len(path)+16), path)
		path = string(resolveDots(b))
	}
	for strings.HasPrefix(path, "//") {
		path = path[1:]
	}
	return path
}

func isClean(path string) bool {
	if path == "" || path[0] != '/' {
		return false
	}
	for i := 0; i < len(path); i++ {
		if pathClass[path[i]] >= reserved {
			continue
		}
		if c, ok := unescape(path[i:]); !ok || c == '.' || c == 0 {
			return false
		}
		i += 2
	}
	return !hasDotSegment(path)
}

// appendClean appends path with a leading slash and with everything escaped that cannot stand in a path, percent signs that begin no escape among it.
func appendClean(b []byte, path string) []byte {
	if !strings.HasPrefix(path, "/") {
		b = append(b, '/')
	}
	for i := 0; i < len(path); i++ {
		c, ok := unescape(path[i:])
		switch {
		case ok && c == '.':
			b = append(b, '.')
			i += 2
		case ok && c != 0:
			b = append(b, path[i:i+3]...)
			i += 2
		case path[i] == 0: // has no form in which it may appear
		case pathClass[path[i]] < reserved:
			b = appendEscape(b, path[i])
		default:
			b = append(b, path[i])
		}
	}
	return b
}
