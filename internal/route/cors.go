package route

import (
	"slices"
	"strconv"
	"strings"
)

// CORS lets pages of other origins use what the rule serves (Gateway API: CORS). It answers the preflight requests of browsers itself, and its word on the matter
// is the only one: what a backend says about it is removed.
type CORS struct {
	Origins     []Origin
	Credentials bool
	// Methods, Headers and Expose are what is allowed beyond what always is. A single "*" is all.
	Methods, Headers, Expose []string
	MaxAge                   int32 // how long a browser may keep the answer to a preflight, in seconds
}

// Origin is a pattern for origins: scheme, host and port of a page. The zero value matches every origin, also those that are "null".
type Origin struct {
	Scheme string // http or https
	Host   string // lower case; "*" is any, "*.example.com" any number of labels in place of the star
	Port   uint16 // as it is connected to: 80 and 443 where none is written
}

// ParseOrigin reads an origin as browsers write it, or a pattern for origins.
func ParseOrigin(s string) (o Origin, ok bool) {
	scheme, rest, found := strings.Cut(strings.ToLower(s), "://")
	known := map[string]uint16{"http": 80, "https": 443}[scheme]
	if !found || known == 0 {
		return o, false
	}
	o = Origin{Scheme: scheme, Host: rest, Port: known}
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, ']') {
		n, err := strconv.ParseUint(rest[i+1:], 10, 16)
		if err != nil || n == 0 || rest[i+1] == '+' {
			return o, false
		}
		o.Host, o.Port = rest[:i], uint16(n)
	}
	name := strings.TrimPrefix(o.Host, "*.")
	if o.Host == "*" {
		return o, true
	}
	normal, err := NormalizeHost(name)
	return o, err == nil && normal == name
}

// matches reports whether an origin that a browser sent is one of the pattern's.
func (o *Origin) matches(p Origin) bool {
	if *o == (Origin{}) {
		return true
	}
	if o.Scheme != p.Scheme || o.Port != p.Port {
		return false
	}
	return o.Host == "*" || nameMatches(o.Host, p.Host, false)
}

// Any reports whether every origin is allowed.
func (f *CORS) Any() bool { return slices.Contains(f.Origins, Origin{}) }

// Allows reports whether a page of an origin, as it stands in the Origin header, may use what the rule serves. The origin "null", which every sandboxed page can
// have, is not allowed where credentials are.
func (f *CORS) Allows(origin string) bool {
	if origin == "null" {
		return f.Any() && !f.Credentials
	}
	p, ok := ParseOrigin(origin)
	if !ok || strings.HasPrefix(p.Host, "*") {
		return false
	}
	return slices.ContainsFunc(f.Origins, func(o Origin) bool { return o.matches(p) })
}

// String returns "*" or the origin, with the port unless it is the scheme's own.
func (o Origin) String() string {
	switch {
	case o == Origin{}:
		return "*"
	case o.Scheme == "http" && o.Port == 80, o.Scheme == "https" && o.Port == 443:
		return o.Scheme + "://" + o.Host
	}
	return o.Scheme + "://" + o.Host + ":" + strconv.Itoa(int(o.Port))
}

// String returns the filter on one line, such as "cors origins=https://a.example.com methods=GET,PUT credentials max-age=5s".
func (f *CORS) String() string {
	origins := make([]string, len(f.Origins))
	for i, o := range f.Origins {
		origins[i] = o.String()
	}
	credentials := ""
	if f.Credentials {
		credentials = "credentials"
	}
	return joinWords("cors", listSetting("origins", origins), listSetting("methods", f.Methods), listSetting("headers", f.Headers), listSetting("expose", f.Expose),
		credentials, "max-age="+strconv.Itoa(int(f.MaxAge))+"s")
}

// listSetting is name=value,value, and "" for an empty list.
func listSetting(name string, values []string) string {
	if len(values) == 0 {
		return ""
	}
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = word(v, "")
	}
	return name + "=" + strings.Join(texts, ",")
}

func (*CORS) filter() {}
