package backend

import (
	"cmp"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"

	"github.com/fairlead-io/fairlead/internal/route"
)

// hasher makes hashes that are the same in every replica. Its seed is something that clients do not know where there is such a thing, so that they cannot choose keys
// that all meet the same endpoint.
type hasher uint64

// text hashes a text (FNV-1a, and mix to make all bits depend on all of it).
func (h hasher) text(parts ...string) uint64 {
	x := uint64(14695981039346656037) ^ uint64(h)
	for _, s := range parts {
		for i := range len(s) {
			x = (x ^ uint64(s[i])) * 1099511628211
		}
		x = (x ^ 0x1ff) * 1099511628211 // is no byte: keeps "ab", "c" from "a", "bc"
	}
	return mix(x)
}

// address hashes an address.
func (h hasher) address(a netip.Addr) uint64 {
	b := a.As16()
	x := uint64(14695981039346656037) ^ uint64(h)
	for _, c := range b {
		x = (x ^ uint64(c)) * 1099511628211
	}
	return mix(x)
}

// mix turns a number into another in which every bit depends on every bit (the last step of SplitMix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// key returns what a request is picked by: the hash of what the policy says, as it is sent to the endpoint, or a random number where a request has none of it.
func (l *list) key(req *http.Request, client netip.Addr) uint64 {
	switch l.policy.Algorithm {
	case route.SourceHash:
		if client.IsValid() {
			return l.hasher.address(client)
		}
	case route.DestinationHash:
		return l.hasher.text(req.Host, pathOf(req.URL))
	case route.ConsistentHash:
		if s, ok := hashedText(req, l.policy.HashKey); ok {
			return l.hasher.text(s)
		}
	default:
		return 0 // nobody asks
	}
	return rand.Uint64() // #nosec G404 -- shares out load, guards nothing
}

// hashedText returns what a consistent hash is of; false if the request does not have it.
func hashedText(req *http.Request, k route.HashKey) (string, bool) {
	switch k.Kind {
	case route.HashHeader:
		if values := req.Header[k.Name]; len(values) > 0 {
			return values[0], true
		}
		return req.Host, k.Name == "Host"
	case route.HashCookie:
		return route.CookieValue(req.Header["Cookie"], k.Name)
	case route.HashQuery:
		return route.QueryValue(req.URL.RawQuery, k.Name)
	default:
		return pathOf(req.URL), true
	}
}

// pathOf is the path of a URL as it is sent.
func pathOf(u *url.URL) string { return cmp.Or(u.Opaque, u.RawPath, u.Path) }
