package proxy

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Headers of requests that tell a backend where a request came from, or what it was before a proxy changed it, belong to the proxy that the backend trusts. What a
// client says there is removed, in every spelling that some software takes for the same name, unless the client is a trusted proxy itself. Names of users that an
// authenticating proxy passes on (Remote-User and so on) are not among them: which of them counts is between the application and that proxy. The certificate of a client
// is among them, under the names of RFC 9440 and of other proxies: Fairlead passes none on, so that one that a backend gets would be the client's word for itself.

// identityHeader reports whether a header, in canonical form, is one of those. A method override is one: the rule was chosen by the method of the request, so that
// is the one that counts.
func identityHeader(name string) bool {
	switch name {
	case "Cf-Connecting-Ip", "Cf-Connecting-Ipv6", "Cf-Pseudo-Ipv4", "Cf-Visitor", "Client-Cert", "Client-Cert-Chain", "Client-Ip", "Fastly-Client-Ip",
		"Fly-Client-Ip", "Forwarded", "Forwarded-For", "Forwarded-For-Ip", "Front-End-Https", "Real-Ip", "Remote-Addr", "True-Client-Ip",
		"Wl-Proxy-Client-Ip", "X-Appengine-User-Ip", "X-Arr-Clientcert", "X-Azure-Clientip", "X-Azure-Socketip", "X-Client-Dn", "X-Client-Ip",
		"X-Cluster-Client-Ip", "X-Forward-For", "X-Forwarded", "X-Host", "X-Http-Host-Override", "X-Http-Method", "X-Http-Method-Override",
		"X-Method-Override", "X-Original-Forwarded-For", "X-Original-Host", "X-Original-Method", "X-Original-Proto", "X-Original-Uri", "X-Original-Url",
		"X-Originating-Ip", "X-Real-Ip", "X-Remote-Addr", "X-Remote-Ip", "X-Request-Id", "X-Rewrite-Url", "X-Scheme", "X-Ssl-Cert", "X-Url-Scheme":
		return true
	}
	for _, prefix := range [...]string{"X-Forwarded-", "X-Envoy-", "X-Amzn-Mtls-", "X-Client-Cert", "X-Ssl-Client-", "Ssl-Client-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// forbiddenHeader reports whether nobody may send a header to a backend through Fairlead: Fairlead's own, and Proxy, which CGI programs take for a setting of
// their environment (httpoxy, CVE-2016-5385).
func forbiddenHeader(name string) bool {
	return name == "Proxy" || strings.HasPrefix(name, "X-Fairlead-")
}

// spelling says how a header name is written.
type spelling uint8

const (
	plain      spelling = iota // letters, digits and hyphens
	underscore                 // with an underscore: many servers cannot tell it from a hyphen
	odd                        // with other characters that a name may have
)

func spellingOf(name string) spelling {
	s := plain
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-':
		case c == '_':
			return underscore
		default:
			s = odd
		}
	}
	return s
}

// fold writes a name as the servers understand it that take every character but letters and digits for a hyphen.
func fold(name string) string {
	return http.CanonicalHeaderKey(strings.Map(func(r rune) rune {
		if r < 0x80 && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9') {
			return r
		}
		return '-'
	}, name))
}

// scrub removes from the header of a request what its sender may not say, and returns how many names with underscores were among it. Those always go: where they
// mean anything they mean the same as a name with hyphens, and no rule looks at them.
func scrub(h http.Header, trusted bool) (underscores int) {
	for name := range h {
		s := spellingOf(name)
		if s == underscore {
			underscores++
		}
		if s == odd {
			if f := fold(name); forbiddenHeader(f) || identityHeader(f) {
				delete(h, name)
			}
			continue
		}
		if s == underscore || forbiddenHeader(name) || !trusted && identityHeader(name) {
			delete(h, name)
		}
	}
	return underscores
}

// requestHeader writes the header of an outgoing request. httputil.ReverseProxy has removed the hop-by-hop fields already, so that what is set here cannot be
// named in a Connection header and removed again.
func (x *exchange) requestHeader(out *http.Request) {
	h := out.Header
	x.underscores = scrub(h, x.trusted)
	delete(h, "Http2-Settings")
	// One array for the values that differ between requests, in place of one slice for each.
	v := &[3]string{x.entry.PeerIP, x.in.Host, x.entry.RequestID}
	h["X-Request-Id"] = v[2:3:3]
	proto, port := schemeValue(x.connScheme()), x.rule.port
	if !x.trusted {
		h["X-Forwarded-For"], h["X-Forwarded-Host"], h["X-Forwarded-Proto"], h["X-Forwarded-Port"] = v[0:1:1], v[1:2:2], proto, port
		return
	}
	if prior := x.in.Header["X-Forwarded-For"]; len(prior) > 0 {
		v[0] = strings.Join(prior, ", ") + ", " + v[0]
	}
	h["X-Forwarded-For"] = v[0:1:1]
	x.keep(h, "X-Forwarded-Host", v[1:2:2])
	x.keep(h, "X-Forwarded-Proto", proto)
	x.keep(h, "X-Forwarded-Port", port)
	if prior := x.in.Header["Forwarded"]; len(prior) > 0 {
		h["Forwarded"] = slices.Clone(prior)
	}
}

// keep sets a field to what a trusted proxy said, and if it said nothing, to value.
func (x *exchange) keep(h http.Header, name string, value []string) {
	if said := x.in.Header[name]; len(said) > 0 {
		value = slices.Clone(said)
	}
	h[name] = value
}

var httpValue, httpsValue = []string{"http"}, []string{"https"}

// schemeValue returns a header value that is shared and must not be written to.
func schemeValue(scheme string) []string {
	if scheme == "https" {
		return httpsValue
	}
	return httpValue
}

// identify finds out whom a request is from.
func (x *exchange) identify() {
	peer := x.peer()
	x.trusted = trusts(x.h.proxy.opt.TrustedProxies, peer)
	client := peer
	x.scheme = x.connScheme()
	if x.trusted {
		client = clientOf(x.h.proxy.opt.TrustedProxies, x.in.Header["X-Forwarded-For"], peer)
		if said := x.in.Header.Get("X-Forwarded-Proto"); said == "http" || said == "https" {
			x.scheme = said
		}
	}
	x.client = client
	e := &x.entry
	if peer.IsValid() {
		e.PeerIP = peer.String()
	}
	e.ClientIP = e.PeerIP
	if client != peer {
		e.ClientIP = client.String()
	}
	e.RequestID = x.requestID()
}

// peer is the address of the other end of the connection, without port and zone; the zero Addr if it is unknown.
func (x *exchange) peer() netip.Addr {
	if x.conn != nil {
		return x.conn.peer().Addr().Unmap().WithZone("")
	}
	from, _ := netip.ParseAddrPort(x.in.RemoteAddr)
	return from.Addr().Unmap().WithZone("")
}

func (x *exchange) connScheme() string {
	if x.in.TLS != nil {
		return "https"
	}
	return "http"
}

func trusts(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// clientOf finds the client in the X-Forwarded-For lines of a trusted peer: from the right, the first address that is not a trusted proxy's. What stands to the left
// of it was written by the client and proves nothing. An entry that is no address ends the search with the last one that was.
func clientOf(trusted []netip.Prefix, lines []string, peer netip.Addr) netip.Addr {
	client := peer
	for _, line := range slices.Backward(lines) {
		for line != "" {
			i := strings.LastIndexByte(line, ',')
			hop, ok := parseHop(line[i+1:])
			if !ok {
				return client
			}
			client = hop
			if !trusts(trusted, hop) {
				return client
			}
			line = line[:max(i, 0)]
		}
	}
	return client
}

// parseHop reads an address with or without a port, as proxies write it.
func parseHop(s string) (netip.Addr, bool) {
	s = strings.TrimSpace(s)
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	if err != nil {
		ap, err := netip.ParseAddrPort(s)
		if err != nil {
			return netip.Addr{}, false
		}
		a = ap.Addr()
	}
	return a.Unmap().WithZone(""), true
}

// maxRequestID is the length that a request id from a trusted proxy may have.
const maxRequestID = 128

// requestID is the one that a trusted proxy gave the request, if it is a token of sane length, or else a new one.
func (x *exchange) requestID() string {
	if x.trusted {
		if id := x.in.Header.Get("X-Request-Id"); id != "" && len(id) <= maxRequestID && httpguts.ValidHeaderFieldName(id) {
			return id
		}
	}
	var id [16]byte
	binary.LittleEndian.PutUint64(id[:8], rand.Uint64()) //nolint:gosec // has to be unique, not secret
	binary.LittleEndian.PutUint64(id[8:], rand.Uint64()) //nolint:gosec // has to be unique, not secret
	var text [32]byte
	hex.Encode(text[:], id[:])
	return string(text[:])
}

// allowedTrailer reports whether a field, in canonical form, may stand in the trailer section of a message that is passed on. What frames or routes a message, or
// makes its receiver keep something, must have been known before the body (RFC 9110, section 6.5.1).
func allowedTrailer(name string) bool {
	switch name {
	case "Clear-Site-Data", "Content-Security-Policy", "Cookie", "Location", "Set-Cookie", "Set-Cookie2", "Strict-Transport-Security", "Upgrade":
		return false
	}
	return !framing(name) && !forbiddenHeader(name) && httpguts.ValidTrailerHeader(name)
}

// allowedRequestTrailer is allowedTrailer for what comes from clients: nothing that a header may not say may be said here.
func allowedRequestTrailer(name string) bool {
	return allowedTrailer(name) && spellingOf(name) == plain && !identityHeader(name)
}

// scrubTrailer removes what must not stand in the trailer section of a response.
func scrubTrailer(t http.Header) {
	for name := range t {
		if !allowedTrailer(name) {
			delete(t, name)
		}
	}
}

// trailer returns the trailer that an outgoing request announces, to be filled in at the end of the body: the allowed names of those that the client announced, if
// it takes trailers itself, as gRPC does. Nil if there are none.
func (x *exchange) trailer() http.Header {
	if len(x.in.Trailer) == 0 || !httpguts.HeaderValuesContainsToken(x.in.Header["Te"], "trailers") {
		return nil
	}
	var t http.Header
	for name := range x.in.Trailer {
		if allowedRequestTrailer(name) {
			if t == nil {
				t = http.Header{}
			}
			t[name] = nil
		}
	}
	return t
}
