package route

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// Classes of the bytes of a path, as RFC 3986 has them.
const (
	invalid    = iota // control characters, space, "#", "?", "\": never in a path
	encoded           // must be written as an escape, and is taken as if it were: non-ASCII, quotes, brackets, braces, "|", "^"
	reserved          // stands for itself, and differs from its escape: sub-delims, ":", "@", "/"
	unreserved        // stands for itself, as does its escape: letters, digits, "-", ".", "_", "~"
)

var pathClass = func() (class [256]byte) {
	for c := range class {
		switch {
		case c <= ' ' || c == 0x7f || strings.IndexByte("#?\\%", byte(c)) >= 0:
			class[c] = invalid
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~", byte(c)) >= 0:
			class[c] = unreserved
		case strings.IndexByte("!$&'()*+,;=:@/", byte(c)) >= 0:
			class[c] = reserved
		default:
			class[c] = encoded
		}
	}
	return class
}()

// NormalizePath returns the one form of a path that tables know, so that all spellings of a path are matched alike. raw is the path of a request target or of a
// route, escaped, without the query.
//
// Escapes of unreserved characters are decoded (%41 is A), the others are written in upper case; characters that should have been escaped are. Then dot
// segments are resolved (RFC 3986, section 5.2.4), spelled as escapes too. Nothing else changes: slashes are not merged, and %2F and %5C never become
// separators. It is an error if the path does not begin with a slash or holds %00, an invalid escape, a backslash, a "#", a "?", a space or a control character.
//
// changed reports whether dot segments were resolved: path is then what must be forwarded, because what a backend makes of the original may lie outside of what
// was matched. Otherwise the original may be forwarded as it is. When raw is in normal form already it is returned, and nothing allocated.
func NormalizePath(raw string) (path string, changed bool, err error) {
	normal, dots, err := scanPath(raw)
	if err != nil {
		return "", false, err
	}
	if normal && (!dots || !hasDotSegment(raw)) {
		return raw, false, nil
	}
	b := appendNormal(make([]byte, 0, len(raw)+16), raw)
	if !hasDotSegment(b) {
		return string(b), false, nil
	}
	return string(resolveDots(b)), true, nil
}

// scanPath validates a path. normal says that every character of it is in normal form, dots that an element of it begins with a dot.
func scanPath(raw string) (normal, dots bool, err error) {
	if raw == "" || raw[0] != '/' {
		return false, false, errors.New(`path does not begin with "/"`)
	}
	normal = true
	for i := 0; i < len(raw); i++ {
		switch class := pathClass[raw[i]]; {
		case class >= reserved:
			dots = dots || raw[i] == '.' && raw[i-1] == '/'
		case class == encoded:
			normal = false
		default:
			c, ok := unescape(raw[i:])
			if !ok || c == 0 {
				return false, false, pathError(raw, i)
			}
			normal = normal && pathClass[c] != unreserved && isUpperEscape(raw[i:])
			i += 2
		}
	}
	return normal, dots, nil
}

func pathError(raw string, i int) error {
	switch c := raw[i]; {
	case c == '%' && len(raw) > i+2 && raw[i:i+3] == "%00":
		return fmt.Errorf("path has a NUL (%%00) at byte %d", i)
	case c == '%':
		return fmt.Errorf("path has an invalid escape %q at byte %d; a percent sign is written %%25", raw[i:min(len(raw), i+3)], i)
	default:
		return fmt.Errorf("path has an invalid character %q at byte %d; it is written %%%02X", c, i, c)
	}
}

// unescape decodes the escape that s begins with.
func unescape(s string) (byte, bool) {
	if len(s) < 3 || s[0] != '%' {
		return 0, false
	}
	hi, lo := unhex(s[1]), unhex(s[2])
	return hi<<4 | lo&15, hi < 16 && lo < 16
}

// unhex is the value of a hexadecimal digit, and 255 of anything else.
func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	default:
		return 255
	}
}

func isUpperEscape(s string) bool { return s[1] < 'a' && s[2] < 'a' }

// appendNormal appends raw, which has no invalid bytes or escapes, with its escapes in normal form.
func appendNormal(b []byte, raw string) []byte {
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c == '%' {
			c, _ = unescape(raw[i:])
			i += 2
			if pathClass[c] != unreserved {
				b = appendEscape(b, c)
				continue
			}
		}
		if pathClass[c] < reserved {
			b = appendEscape(b, c)
			continue
		}
		b = append(b, c)
	}
	return b
}

func appendEscape(b []byte, c byte) []byte {
	const hex = "0123456789ABCDEF"
	return append(b, '%', hex[c>>4], hex[c&15])
}

// hasDotSegment reports whether a path has a segment "." or "..".
func hasDotSegment[S ~string | ~[]byte](path S) bool {
	for i := 0; i+1 < len(path); i++ {
		if path[i] != '/' || path[i+1] != '.' {
			continue
		}
		if n := dots(path[i+1:]); n > 0 {
			return true
		}
	}
	return false
}

// dots returns 1 or 2 if the first segment of s is "." or "..", else 0.
func dots[S ~string | ~[]byte](s S) int {
	n := 0
	for n < len(s) && n < 3 && s[n] == '.' {
		n++
	}
	if n < 3 && (n == len(s) || s[n] == '/') {
		return n
	}
	return 0
}

// resolveDots removes the dot segments of a path in place, as RFC 3986 section 5.2.4 does.
func resolveDots(b []byte) []byte {
	out := b[:0]
	for i := 0; i < len(b); {
		segment := b[i+1:] // b[i] is a slash
		n := dots(segment)
		if n == 0 {
			end := bytes.IndexByte(segment, '/')
			if end < 0 {
				end = len(segment)
			}
			out = append(out, b[i:i+1+end]...)
			i += 1 + end
			continue
		}
		if n == 2 {
			out = out[:max(0, bytes.LastIndexByte(out, '/'))]
		}
		i += 1 + n
		if i == len(b) {
			out = append(out, '/') // a dot segment at the end leaves a directory
		}
	}
	return out
}
