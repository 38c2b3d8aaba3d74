package route

import (
	"cmp"
	"strconv"
	"time"
)

// Algorithm is how the requests of a pool are shared out among its endpoints. The empty Algorithm is RoundRobin. docs/balancing.md compares them.
type Algorithm string

// The algorithms. Weights of endpoints count in all of them.
const (
	RoundRobin            Algorithm = "round-robin"             // one after the other, each as often as its weight says
	Random                Algorithm = "random"                  // by chance
	LeastConnections      Algorithm = "least-connections"       // the fewest requests in flight
	ShortestExpectedDelay Algorithm = "shortest-expected-delay" // the fewest, were this request there already
	NeverQueue            Algorithm = "never-queue"             // one that is idle, else the shortest expected delay
	PowerOfTwoChoices     Algorithm = "power-of-two-choices"    // of two taken by chance, the one with fewer requests in flight
	PeakEWMA              Algorithm = "peak-ewma"               // of two taken by chance, the one that answers sooner, counting what waits there
	SourceHash            Algorithm = "source-hash"             // the same for each address of a client
	DestinationHash       Algorithm = "destination-hash"        // the same for each host and path
	ConsistentHash        Algorithm = "consistent-hash"         // the same for each value of Policy.HashKey, unless it has far more to do than the others
)

// Hashes reports whether the algorithm sends requests that have something in common to the same endpoint.
func (a Algorithm) Hashes() bool {
	return a == SourceHash || a == DestinationHash || a == ConsistentHash
}

// Policy is how a pool chooses endpoints. The zero Policy is round robin among all. Policies are compared with ==.
type Policy struct {
	Algorithm Algorithm
	HashKey   HashKey // of ConsistentHash
	// SlowStart is how long the share of an endpoint grows that has just become one, or has just recovered. Zero: it gets its full share at once.
	SlowStart time.Duration
	// ClientIP, if not zero, keeps the requests from one address at one endpoint until none has come for this long.
	ClientIP time.Duration
	// Persistence keeps clients at their endpoint for the rules that have none of their own.
	Persistence Persistence
	// Locality says which endpoints are near. It has had its effect in Endpoint.Distance and is here to be seen.
	Locality Locality
}

// HashKind is the part of a request that a HashKey takes.
type HashKind string

// The kinds.
const (
	HashHeader HashKind = "header"
	HashCookie HashKind = "cookie"
	HashQuery  HashKind = "query"
	HashPath   HashKind = "path" // has no name
)

// HashKey is what requests must have in common to meet the same endpoint.
type HashKey struct {
	Kind HashKind
	Name string // of the header (in canonical form), cookie or query parameter
}

// String returns "header:X-User", "cookie:a", "query:a" or "path"; "" for the zero HashKey.
func (k HashKey) String() string {
	if k.Name == "" {
		return string(k.Kind)
	}
	return string(k.Kind) + ":" + k.Name
}

// Persistence keeps a client at the endpoint that answered it first. The endpoint is named in a cookie or a header, so that every replica knows it, in a way that
// tells nobody its address. The zero value, which has no Name, keeps nobody.
type Persistence struct {
	Name   string // of the cookie, or of the header in canonical form
	Header bool   // in a header, which clients must send back by themselves
	// Lifetime is how long a session lasts from its first response, however much it is used. Zero: as long as the endpoint.
	Lifetime time.Duration
	Cookie   CookieAttributes
}

// CookieAttributes are the attributes of a cookie that are not always the same. It always has a Path.
type CookieAttributes struct {
	Path     string // "" is "/"
	Domain   string
	MaxAge   time.Duration // zero: until the browser is closed
	SameSite string        // "Strict", "Lax" or "None"; "" is "Lax"
	// Secure says whether the cookie goes over TLS only. The zero value means that it does if the client came over TLS.
	Secure Tristate
	// Scripts lets scripts read the cookie: it has no HttpOnly.
	Scripts bool
}

// Tristate is yes, no, or what the circumstances suggest: its zero value.
type Tristate int8

// The decided values of a Tristate.
const (
	No  Tristate = -1
	Yes Tristate = 1
)

// Locality says which endpoints a pool prefers. The empty Locality prefers none.
type Locality string

// The preferences.
const (
	SameZone Locality = "zone"
	SameNode Locality = "node"  // then the same zone
	ByHints  Locality = "hints" // as the EndpointSlices say
)

// String returns the policy on one line, such as "consistent-hash hash=header:X-User slow-start=30s session=cookie:a near=zone"; "" for the zero Policy.
func (p Policy) String() string {
	algorithm := string(p.Algorithm)
	if p.Algorithm == RoundRobin {
		algorithm = ""
	}
	return joinWords(
		algorithm,
		setting("hash", p.HashKey.String()),
		durationSetting("slow-start", p.SlowStart),
		durationSetting("client-ip", p.ClientIP),
		p.Persistence.String(),
		setting("near", string(p.Locality)),
	)
}

// String returns the persistence on one line, such as "session=cookie:a lifetime=1h0m0s path=/shop"; "" for none.
func (p Persistence) String() string {
	switch {
	case p.Name == "":
		return ""
	case p.Header:
		return joinWords(setting("session", "header:"+p.Name), durationSetting("lifetime", p.Lifetime))
	}
	c := &p.Cookie
	return joinWords(setting("session", "cookie:"+p.Name), durationSetting("lifetime", p.Lifetime), durationSetting("max-age", c.MaxAge), c.text())
}

func (c *CookieAttributes) text() string {
	path := ""
	if c.Path != "" && c.Path != "/" {
		path = "path=" + word(c.Path, pathMarks)
	}
	sameSite := c.SameSite
	if sameSite == "Lax" {
		sameSite = ""
	}
	scripts, secure := "", ""
	if c.Scripts {
		scripts = "scripts"
	}
	if c.Secure != 0 {
		secure = "secure=" + strconv.FormatBool(c.Secure == Yes)
	}
	return joinWords(path, setting("domain", c.Domain), setting("same-site", sameSite), secure, scripts)
}

func durationSetting(name string, d time.Duration) string {
	if d == 0 {
		return ""
	}
	return name + "=" + d.String()
}

// PathOrRoot returns the path of the cookie.
func (c *CookieAttributes) PathOrRoot() string { return cmp.Or(c.Path, "/") }
