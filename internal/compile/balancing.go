package compile

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// Annotations of Services that say how their requests are shared out. docs/balancing.md describes them.
const (
	balancingAnnotation      = annotationPrefix + "load-balancing"
	hashKeyAnnotation        = annotationPrefix + "hash-key"
	slowStartAnnotation      = annotationPrefix + "slow-start"
	weightsAnnotation        = annotationPrefix + "endpoint-weights"
	affinityAnnotation       = annotationPrefix + "affinity"
	affinityCookieAnnotation = annotationPrefix + "affinity-cookie"
)

// serviceAnnotations are all annotations that Fairlead reads on a Service, and those that it writes there.
var serviceAnnotations = struct{ reads, writes []string }{
	reads: append(careNames(),
		affinityAnnotation, affinityCookieAnnotation, weightsAnnotation, hashKeyAnnotation, balancingAnnotation, slowStartAnnotation,
	),
	writes: []string{gatewayAnnotation, GenerationAnnotation},
}

// algorithms are the values of fairlead.io/load-balancing: the name, and the names that IPVS has for the same.
var algorithms = []struct {
	name route.Algorithm
	ipvs []string
}{
	{route.RoundRobin, []string{"rr", "wrr"}},
	{route.Random, nil},
	{route.LeastConnections, []string{"lc", "wlc"}},
	{route.ShortestExpectedDelay, []string{"sed"}},
	{route.NeverQueue, []string{"nq"}},
	{route.PowerOfTwoChoices, nil},
	{route.PeakEWMA, nil},
	{route.SourceHash, []string{"sh"}},
	{route.DestinationHash, []string{"dh"}},
	{route.ConsistentHash, nil},
}

// algorithmNames lists the algorithms for people.
func algorithmNames() string {
	names := make([]string, len(algorithms))
	for i, a := range algorithms {
		names[i] = string(a.name)
		if len(a.ipvs) > 0 {
			names[i] += " (" + strings.Join(a.ipvs, ", ") + ")"
		}
	}
	return strings.Join(names, ", ")
}

// ParseAlgorithm returns the algorithm that a name means: one of ours, or that of IPVS for the same.
func ParseAlgorithm(name string) (route.Algorithm, error) {
	for _, a := range algorithms {
		if name == string(a.name) || slices.Contains(a.ipvs, name) {
			return a.name, nil
		}
	}
	return "", fmt.Errorf("%.64q is no algorithm; there are %s", name, algorithmNames())
}

// ParsePolicy makes the policy of Services that say nothing, from the values of the annotations that they could have. Empty values are the defaults.
func ParsePolicy(algorithm, hashKey string, slowStart time.Duration) (p route.Policy, err error) {
	if algorithm != "" {
		if p.Algorithm, err = ParseAlgorithm(algorithm); err != nil {
			return p, fmt.Errorf("balancing.algorithm: %w", err)
		}
	}
	if (p.Algorithm == route.ConsistentHash) != (hashKey != "") {
		return p, fmt.Errorf("balancing.hashKey is of the algorithm %s, which needs one", route.ConsistentHash)
	}
	if hashKey != "" {
		if p.HashKey, err = parseHashKey(hashKey); err != nil {
			return p, fmt.Errorf("balancing.hashKey: %w", err)
		}
	}
	if slowStart < 0 || slowStart > maxSlowStart {
		return p, fmt.Errorf("balancing.slowStart: %v is not between 0s and %v", slowStart, maxSlowStart)
	}
	p.SlowStart = slowStart
	return p, nil
}

// serviceReader reads what a Service says about the balancing of its requests.
type serviceReader struct {
	*compiler
	service *corev1.Service
	ref     object.Ref
	key     route.PoolKey
}

func (c *compiler) reader(key route.PoolKey, service *corev1.Service) *serviceReader {
	return &serviceReader{c, service, object.Ref{Kind: cmp.Or(key.Kind, "Service"), Namespace: service.Namespace, Name: service.Name}, key}
}

// policy returns how the requests for a pool are shared out: as its Service says, and as the operator says where it says nothing.
func (r *serviceReader) policy() route.Policy {
	r.checkNames()
	p := r.opt.Balancing
	r.algorithm(&p)
	r.affinity(&p)
	r.slowStart(&p)
	r.locality(&p)
	if text, ok := r.annotation(weightsAnnotation); ok {
		_, errs := parseWeights(text)
		for _, err := range errs {
			r.invalid(weightsAnnotation, "%v; this part is ignored", err)
		}
	}
	return p
}

// checkNames reports annotations of Fairlead that mean nothing on a Service.
func (r *serviceReader) checkNames() {
	for _, name := range slices.Sorted(maps.Keys(r.service.Annotations)) {
		if strings.HasPrefix(name, annotationPrefix) && !slices.Contains(serviceAnnotations.reads, name) && !slices.Contains(serviceAnnotations.writes, name) {
			r.problems.add(Warning, r.ref, annotationField(name), "UnknownAnnotation", "Fairlead does not know this annotation and ignores it; on a Service it knows %s",
				strings.Join(serviceAnnotations.reads, ", "))
		}
	}
}

func (r *serviceReader) annotation(name string) (text string, ok bool) {
	text, ok = r.service.Annotations[name]
	return strings.TrimSpace(text), ok
}

func (r *serviceReader) invalid(name, format string, args ...any) {
	r.problems.add(Warning, r.ref, annotationField(name), "InvalidAnnotation", format, args...)
}

// algorithm reads the algorithm and the key that it hashes.
func (r *serviceReader) algorithm(p *route.Policy) {
	standard := *p
	if text, ok := r.annotation(balancingAnnotation); ok {
		algorithm, err := ParseAlgorithm(text)
		if err != nil {
			r.invalid(balancingAnnotation, "the value %v; %s is used", err, nameOf(standard.Algorithm))
		} else {
			p.Algorithm, p.HashKey = algorithm, route.HashKey{}
		}
	}
	text, ok := r.annotation(hashKeyAnnotation)
	if p.Algorithm != route.ConsistentHash {
		if ok {
			r.invalid(hashKeyAnnotation, "it is of %s, and the algorithm is %s; it is ignored", route.ConsistentHash, nameOf(p.Algorithm))
		}
		return
	}
	key, err := parseHashKey(text)
	switch {
	case err == nil:
		p.HashKey = key
	case p.HashKey == route.HashKey{} && !ok:
		r.invalid(balancingAnnotation, "%s needs %s, which is header:NAME, cookie:NAME, query:NAME or path; %s is used", route.ConsistentHash, hashKeyAnnotation, nameOf(standard.Algorithm))
		p.Algorithm = standard.Algorithm
	case ok:
		r.invalid(hashKeyAnnotation, "the value %v; %s is used", err, nameOf(standard.Algorithm))
		p.Algorithm, p.HashKey = standard.Algorithm, standard.HashKey
	}
}

func nameOf(a route.Algorithm) route.Algorithm { return cmp.Or(a, route.RoundRobin) }

// parseHashKey reads what a consistent hash is of.
func parseHashKey(text string) (k route.HashKey, err error) {
	kind, name, _ := strings.Cut(text, ":")
	k = route.HashKey{Kind: route.HashKind(kind), Name: name}
	switch k.Kind {
	case route.HashHeader:
		k.Name, err = headerName(name)
	case route.HashCookie:
		if err = checkToken(name); err != nil {
			err = fmt.Errorf("the name of a cookie %w", err)
		}
	case route.HashQuery:
		if name == "" {
			err = errors.New("the name of a parameter is empty")
		}
	case route.HashPath:
		if text != string(route.HashPath) {
			err = errors.New("the path has no name")
		}
	default:
		return route.HashKey{}, fmt.Errorf("%.64q is not header:NAME, cookie:NAME, query:NAME or path", text)
	}
	if err != nil {
		return route.HashKey{}, fmt.Errorf("%.64q is not header:NAME, cookie:NAME, query:NAME or path: %w", text, err)
	}
	return k, nil
}

// maxSlowStart bounds how long an endpoint is kept from its full share.
const maxSlowStart = time.Hour

func (r *serviceReader) slowStart(p *route.Policy) {
	text, ok := r.annotation(slowStartAnnotation)
	if ok {
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 || d > maxSlowStart {
			r.invalid(slowStartAnnotation, "the value %.64q is not a duration from 0s to %v; %v is used", text, maxSlowStart, p.SlowStart)
		} else {
			p.SlowStart = d
		}
	}
	if p.SlowStart == 0 || !p.Algorithm.Hashes() {
		return
	}
	if ok {
		r.invalid(slowStartAnnotation, "with %s each endpoint has the requests that are its own from the beginning; it is ignored", p.Algorithm)
	}
	p.SlowStart = 0
}

// The values of fairlead.io/affinity.
const (
	affinityNone     = "none"
	affinityClientIP = "client-ip"
	affinityCookie   = "cookie"
)

// affinity reads whether clients stay at their endpoint. The annotation is about Fairlead and comes before the field, which is about clients inside the cluster, too.
func (r *serviceReader) affinity(p *route.Policy) {
	p.ClientIP, p.Persistence = 0, route.Persistence{}
	kind := affinityNone
	switch a := r.service.Spec.SessionAffinity; a {
	case corev1.ServiceAffinityClientIP:
		kind = affinityClientIP
	case "", corev1.ServiceAffinityNone:
	default:
		r.problems.add(Warning, r.ref, "spec.sessionAffinity", "InvalidValue", "%.64q is neither ClientIP nor None, and is ignored", a)
	}
	if text, ok := r.annotation(affinityAnnotation); ok {
		if text == affinityNone || text == affinityClientIP || text == affinityCookie {
			kind = text
		} else {
			r.invalid(affinityAnnotation, "the value %.64q is none of %s, %s and %s; %s is used", text, affinityNone, affinityClientIP, affinityCookie, kind)
		}
	}
	text, ok := r.annotation(affinityCookieAnnotation)
	switch {
	case kind == affinityCookie:
		p.Persistence = r.cookie(text, ok)
	case ok:
		r.invalid(affinityCookieAnnotation, "it is of %s: %s, and the affinity is %s; it is ignored", affinityAnnotation, affinityCookie, kind)
	}
	if kind == affinityClientIP {
		p.ClientIP = r.affinityTimeout()
		r.placeByAddress(p)
	}
}

// placeByAddress lets the address of a new client decide where it is kept. Any other algorithm would have each replica of Fairlead keep it elsewhere.
func (r *serviceReader) placeByAddress(p *route.Policy) {
	if _, ok := r.annotation(balancingAnnotation); ok && p.Algorithm != route.SourceHash {
		r.invalid(balancingAnnotation, "clients that are kept at an endpoint by their address find it by %s, so that all replicas of Fairlead agree; %s is ignored", route.SourceHash, nameOf(p.Algorithm))
	}
	p.Algorithm, p.HashKey = route.SourceHash, route.HashKey{}
}

// affinityTimeout is for how long a client that sends nothing keeps its endpoint.
func (r *serviceReader) affinityTimeout() time.Duration {
	const least, most = 1, 86400
	seconds := corev1.DefaultClientIPServiceAffinitySeconds
	if c := r.service.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		if t := *c.ClientIP.TimeoutSeconds; t >= least && t <= most {
			seconds = t
		} else {
			r.problems.add(Warning, r.ref, "spec.sessionAffinityConfig.clientIP.timeoutSeconds", "InvalidValue", "%d is not between %d and %d; %d is used", t, least, most, seconds)
		}
	}
	return time.Duration(seconds) * time.Second
}

// cookie returns the cookie of the Service's affinity. One that is not given, or cannot be, has a name of its own for each pool.
func (r *serviceReader) cookie(text string, given bool) route.Persistence {
	standard := route.Persistence{Name: sessionName(r.key.String())}
	if !given {
		return standard
	}
	p, err := parseCookie(text)
	if err != nil {
		r.invalid(affinityCookieAnnotation, "%v; it must be like NAME; Path=/; Max-Age=3600; Secure; SameSite=Lax; the cookie %s is used", err, standard.Name)
		return standard
	}
	return p
}

// sessionName is the name of a cookie for something that has not named it: always the same, and different from that of others.
func sessionName(of string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(of))
	return "fairlead-" + fmt.Sprintf("%016x", h.Sum64())[:12]
}

// parseCookie reads a cookie as it is written in Set-Cookie, without a value.
func parseCookie(text string) (p route.Persistence, err error) {
	parts := strings.Split(text, ";")
	p.Name = strings.TrimSpace(parts[0])
	if err := checkToken(p.Name); err != nil {
		return p, fmt.Errorf("the name of the cookie %w", err)
	}
	for _, part := range parts[1:] {
		name, value, given := strings.Cut(strings.TrimSpace(part), "=")
		if err := cookieAttribute(&p.Cookie, strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value), given); err != nil {
			return p, err
		}
	}
	return p, checkCookie(&p)
}

func cookieAttribute(c *route.CookieAttributes, name, value string, given bool) (err error) {
	switch name {
	case "secure", "httponly":
		err = cookieFlag(c, name, value, given)
	case "path":
		c.Path, err = value, checkCookiePath(value)
	case "domain":
		c.Domain, err = cleanHostname(strings.TrimPrefix(value, "."), false)
	case "max-age":
		seconds, bad := strconv.ParseInt(value, 10, 64)
		if c.MaxAge = time.Duration(seconds) * time.Second; bad != nil || seconds <= 0 || seconds > math.MaxInt32 {
			err = fmt.Errorf("the Max-Age %.64q is not a number of seconds above 0", value)
		}
	case "samesite":
		err = sameSite(c, value)
	default:
		err = fmt.Errorf("%.64q is no attribute; those of a cookie are Path, Domain, Max-Age, Secure, HttpOnly and SameSite", name)
	}
	return err
}

// cookieFlag reads an attribute that is there or is not. Those that Fairlead sets by itself can be turned off.
func cookieFlag(c *route.CookieAttributes, name, value string, given bool) error {
	on := !given || value == "true"
	switch {
	case !on && value != "false":
		return fmt.Errorf("the value %.64q of %s is neither true nor false", value, name)
	case name == "httponly":
		c.Scripts = !on
	case on:
		c.Secure = route.Yes
	default:
		c.Secure = route.No
	}
	return nil
}

func checkCookiePath(path string) error {
	if !strings.HasPrefix(path, "/") || strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ';' }) {
		return fmt.Errorf("the Path %.64q does not begin with a slash, or has characters that a Path has not", path)
	}
	return nil
}

func sameSite(c *route.CookieAttributes, value string) error {
	for _, known := range []string{"Strict", "Lax", "None"} {
		if strings.EqualFold(value, known) {
			c.SameSite = known
			return nil
		}
	}
	return fmt.Errorf("the SameSite %.64q is none of Strict, Lax and None", value)
}

// checkCookie refuses what browsers refuse, and makes the cookie Secure where they demand it (RFC 6265bis, section 4.1.3).
func checkCookie(p *route.Persistence) error {
	c := &p.Cookie
	host, secure := strings.HasPrefix(p.Name, "__Host-"), strings.HasPrefix(p.Name, "__Secure-")
	if host && (c.Domain != "" || c.PathOrRoot() != "/") {
		return errors.New("a cookie whose name begins with __Host- can have no Domain, and no Path but /")
	}
	if !host && !secure && c.SameSite != "None" {
		return nil
	}
	if c.Secure == route.No {
		return errors.New("browsers take a cookie whose name begins with __Host- or __Secure-, or with SameSite=None, only if it is Secure")
	}
	c.Secure = route.Yes
	return nil
}
