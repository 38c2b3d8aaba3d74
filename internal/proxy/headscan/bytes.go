package headscan

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// token holds the bytes of methods and header names (RFC 9110, section 5.6.2).
var token = func() (t [256]bool) {
	for b := range t {
		c := byte(b)
		t[b] = letter(c) || digit(c)
	}
	for _, b := range []byte("!#$%&'*+-.^_`|~") {
		t[b] = true
	}
	return t
}()

// plain holds the bytes of a path or query that need no second look.
var plain = func() (t [256]bool) {
	for b := '!'; b < 256; b++ {
		t[b] = true
	}
	for _, b := range []byte{'#', '%', '?', '\\', 0x7f} {
		t[b] = false
	}
	return t
}()

func letter(b byte) bool { return b|0x20 >= 'a' && b|0x20 <= 'z' }

func digit(b byte) bool { return b >= '0' && b <= '9' }

func space(b byte) bool { return b == ' ' || b == '\t' }

// unhex returns the value of a hexadecimal digit, or -1.
func unhex(b byte) int {
	switch {
	case digit(b):
		return int(b - '0')
	case b|0x20 >= 'a' && b|0x20 <= 'f':
		return int(b|0x20-'a') + 10
	}
	return -1
}

// control returns the index of the first control character (below 0x20, or 0x7f) of p, or len(p). It looks at eight bytes at a time, because header values are most
// of what a client sends: in each byte of less and dels the high bit is set if that byte of w is one; bytes above the first such byte may be wrong, which is why
// only the lowest counts.
func control(p []byte) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; len(p)-i >= 8; i += 8 {
		w := binary.LittleEndian.Uint64(p[i:])
		d := w ^ ones*0x7f
		less := (w - ones*0x20) &^ w & highs
		dels := (d - ones) &^ d & highs
		if m := less | dels; m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
	}
	for ; i < len(p); i++ {
		if p[i] < ' ' || p[i] == 0x7f {
			return i
		}
	}
	return i
}

// equalFold reports whether p is the lower-case word, letters of either case.
func equalFold(p []byte, word string) bool {
	if len(p) != len(word) {
		return false
	}
	for i, b := range p {
		if b >= 'A' && b <= 'Z' {
			b |= 0x20
		}
		if b != word[i] {
			return false
		}
	}
	return true
}

// sameHost reports whether two hosts are equal, letters of either case.
func sameHost(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := a[i], b[i]
		if x != y && (x|0x20 != y|0x20 || !letter(x)) {
			return false
		}
	}
	return true
}

// validHost reports whether p is a host name of letters, digits, hyphens and underscores (at most 253 bytes, a final dot aside), an IPv4 address or an IPv6 address
// in brackets, with or without a port. It accepts what route.NormalizeHost accepts.
func validHost(p []byte) bool {
	if len(p) > 0 && p[0] == '[' {
		return validIPv6(p)
	}
	name, port := p, []byte(nil)
	if i := bytes.IndexByte(p, ':'); i >= 0 {
		name, port = p[:i], p[i:]
	}
	if n := len(name); n > 0 && name[n-1] == '.' {
		name = name[:n-1]
	}
	return len(name) <= 253 && validName(name) && validPort(port)
}

// validName reports whether p is labels with dots between them.
func validName(p []byte) bool {
	label := 0
	for _, b := range p {
		switch {
		case letter(b) || digit(b) || b == '-' || b == '_':
			if label++; label > 63 {
				return false
			}
		case b == '.' && label > 0:
			label = 0
		default:
			return false
		}
	}
	return label > 0
}

func validIPv6(p []byte) bool {
	for i, b := range p {
		if b == ']' {
			a, err := netip.ParseAddr(string(p[1:i]))
			return err == nil && a.Is6() && a.Zone() == "" && validPort(p[i+1:])
		}
	}
	return false
}

// validPort reports whether p is empty or a colon and a number from 1 to 65535.
func validPort(p []byte) bool {
	if len(p) == 0 {
		return true
	}
	if len(p) < 2 || len(p) > 6 {
		return false
	}
	n := 0
	for _, b := range p[1:] {
		if !digit(b) {
			return false
		}
		n = n*10 + int(b-'0')
	}
	return n > 0 && n <= 65535
}

// Token reports whether s is a token (RFC 9110, section 5.6.2), as methods and header names must be.
func Token(s string) bool {
	for i := range len(s) {
		if !token[s[i]] {
			return false
		}
	}
	return s != ""
}
