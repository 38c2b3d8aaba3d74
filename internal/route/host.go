package route

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// maxHost is the longest host name that can exist (RFC 1035, section 2.3.4, as text and without the trailing dot); maxLabel the longest label.
const (
	maxHost  = 253
	maxLabel = 63
)

// NormalizeHost returns the host of a Host header or :authority in the form in which tables know it: lower case, without port and without the trailing dot of
// an absolute name. An IPv6 address keeps its brackets.
//
// It accepts names of letters, digits, hyphens and underscores, in labels of 1 to 63 bytes and 253 bytes in all, and IP addresses, with an optional port from 1
// to 65535. Everything else is an error: an empty host, a user name, spaces, lists, escapes, address zones. It allocates nothing when the host is lower case.
func NormalizeHost(hostport string) (host string, err error) {
	if strings.HasPrefix(hostport, "[") {
		return normalizeIPv6(hostport)
	}
	host, port, hasPort := strings.Cut(hostport, ":")
	if hasPort && !validPort(port) {
		return "", fmt.Errorf("host %.100q: port must be a number from 1 to 65535", hostport)
	}
	host = strings.TrimSuffix(host, ".")
	if host == "" {
		return "", errors.New("host is empty")
	}
	if len(host) > maxHost {
		return "", fmt.Errorf("host %.20q…: longer than %d bytes", host, maxHost)
	}
	upper, err := checkName(host)
	if err != nil {
		return "", err
	}
	if upper {
		host = strings.ToLower(host)
	}
	return host, nil
}

// checkName validates a host name and reports whether it has upper case letters.
func checkName(host string) (upper bool, err error) {
	label := 0
	for i := range len(host) {
		c := host[i]
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
			label++
		case 'A' <= c && c <= 'Z':
			label, upper = label+1, true
		case c == '.':
			if label == 0 {
				return false, fmt.Errorf("host %q: empty label", host)
			}
			label = 0
		default:
			return false, fmt.Errorf("host %q: invalid character %q", host, c)
		}
		if label > maxLabel {
			return false, fmt.Errorf("host %q: label longer than %d bytes", host, maxLabel)
		}
	}
	if label == 0 {
		return false, fmt.Errorf("host %q: empty label", host)
	}
	return upper, nil
}

func normalizeIPv6(hostport string) (string, error) {
	end := strings.IndexByte(hostport, ']')
	if end < 0 {
		return "", fmt.Errorf("host %.100q: missing ]", hostport)
	}
	host, rest := hostport[:end+1], hostport[end+1:]
	if rest != "" && (rest[0] != ':' || !validPort(rest[1:])) {
		return "", fmt.Errorf("host %.100q: port must be a number from 1 to 65535", hostport)
	}
	// A zone means something only on the machine that wrote it (RFC 6874), and 45 bytes hold every address.
	if len(host) > 47 || strings.IndexByte(host, '%') >= 0 {
		return "", fmt.Errorf("host %.100q: not an IPv6 address", hostport)
	}
	if addr, err := netip.ParseAddr(host[1:end]); err != nil || !addr.Is6() {
		return "", fmt.Errorf("host %.100q: not an IPv6 address", hostport)
	}
	return strings.ToLower(host), nil
}

// validPort reports whether s is a port number from 1 to 65535, of one to five digits.
func validPort(s string) bool {
	if len(s) > 5 {
		return false
	}
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}
