package proxy

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/fairlead-io/fairlead/internal/route"
)

// plan is what the filters of a rule, and then those of a backend, do with an exchange. It is made when a table is installed.
type plan struct {
	request, response []headerOp
	redirect          *route.Redirect
	hostname          string            // "" keeps the request's
	path              *route.PathChange // nil keeps the request's
	cors              *corsPlan         // nil: browsers have the backend's word
}

// newPlan strings the filters of a rule and those of one of its backends together. Of two rewrites of the same thing the backend's counts.
func newPlan(rule, backend []route.Filter) (p plan) {
	for _, filters := range [...][]route.Filter{rule, backend} {
		for _, f := range filters {
			p.add(f)
		}
	}
	return p
}

func (p *plan) add(f route.Filter) {
	switch f := f.(type) {
	case *route.RequestHeaders:
		p.request = appendOps(p.request, &f.HeaderChange)
	case *route.ResponseHeaders:
		p.response = appendOps(p.response, &f.HeaderChange)
	case *route.Redirect:
		p.redirect = f
	case *route.CORS:
		p.cors = newCORSPlan(f)
	case *route.Rewrite:
		if f.Hostname != "" {
			p.hostname = f.Hostname
		}
		if f.Path != nil {
			p.path = f.Path
		}
	}
}

// headerOp is one change of a header.
type headerOp struct {
	kind  opKind
	name  string
	value []string // one value; shared by all requests and never written to
}

type opKind uint8

const (
	opRemove opKind = iota
	opSet
	opAdd
)

// appendOps appends the changes in the order that route.HeaderChange promises. Fields that frame a message or belong to one connection cannot be changed: they
// are Fairlead's own. Values that no header may have are left out, so that one bad filter does not fail every request.
func appendOps(ops []headerOp, c *route.HeaderChange) []headerOp {
	add := func(kind opKind, name, value string) {
		name = http.CanonicalHeaderKey(name)
		if !framing(name) && httpguts.ValidHeaderFieldName(name) && httpguts.ValidHeaderFieldValue(value) {
			ops = append(ops, headerOp{kind, name, []string{value}})
		}
	}
	for _, name := range c.Remove {
		add(opRemove, name, "")
	}
	for _, h := range c.Set {
		add(opSet, h.Name, h.Value)
	}
	for _, h := range c.Add {
		add(opAdd, h.Name, h.Value)
	}
	return ops
}

// framing reports whether a header field, in canonical form, says where a message ends or is meant for one connection only (RFC 9110, section 7.6.1).
func framing(name string) bool {
	switch name {
	case "Connection", "Content-Length", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return strings.HasPrefix(name, http.TrailerPrefix)
}

// change applies the operations to a header. Appending to a value never writes to the shared one, whose capacity is its length.
func change(h http.Header, ops []headerOp) {
	for i := range ops {
		switch op := &ops[i]; op.kind {
		case opRemove:
			delete(h, op.name)
		case opSet:
			h[op.name] = op.value
		case opAdd:
			h[op.name] = append(h[op.name], op.value...)
		}
	}
}

// changeRequest applies the operations to an outgoing request. Its Host is no header to net/http, but it is one to whoever wrote the filter.
func changeRequest(out *http.Request, ops []headerOp) {
	change(out.Header, ops)
	host := out.Header["Host"]
	if host == nil {
		return
	}
	delete(out.Header, "Host")
	if _, err := route.NormalizeHost(host[0]); err == nil {
		out.Host = host[0]
	}
}

// redirect answers with the redirect of a plan, if it has one that leads anywhere.
func (x *exchange) redirect(p *plan) (done bool) {
	d := p.redirect
	if d == nil || x.wouldLoop(d) {
		return false
	}
	h := x.reply.Header()
	h.Set("Location", x.location(d))
	change(h, p.response)
	status := d.Status
	if status == 0 {
		status = http.StatusFound
	}
	x.answer(status, route.Redirected, "")
	return true
}

// wouldLoop reports whether a redirect that changes nothing but the scheme would send the client to where it is already: a trusted proxy in front has taken the
// TLS off. The request then goes on to the backend. The port says nothing, because it is that proxy's which the client has come by.
func (x *exchange) wouldLoop(d *route.Redirect) bool {
	return d.Scheme == x.scheme && x.scheme != x.connScheme() && d.Hostname == "" && d.Path == nil && len(x.rule.backends) > 0
}

// location builds the target of a redirect. It is always an absolute URL, so that no path can be taken for the name of another host.
func (x *exchange) location(d *route.Redirect) string {
	scheme, host, path := d.Scheme, d.Hostname, x.path
	if scheme == "" {
		scheme = x.scheme
	}
	if host == "" {
		host = x.request.Host
	}
	if d.Path != nil {
		path = d.Path.Apply(x.rule.Match.Path, path)
	}
	b := make([]byte, 0, len(scheme)+len(host)+len(path)+len(x.in.URL.RawQuery)+len("://:65535?"))
	b = append(b, scheme...)
	b = append(b, "://"...)
	b = append(b, host...)
	if port := x.redirectPort(d, scheme); port != 0 {
		b = strconv.AppendUint(append(b, ':'), uint64(port), 10)
	}
	b = appendSafe(b, path)
	if x.in.URL.RawQuery != "" {
		b = appendSafe(append(b, '?'), x.in.URL.RawQuery)
	}
	return string(b)
}

// redirectPort is the port to be written in the target of a redirect, 0 for none: the filter's own; else, if the filter names a scheme, that scheme's well-known
// port; else the port of the listener, which the client came by, unless a proxy in front says that it came by something else.
func (x *exchange) redirectPort(d *route.Redirect, scheme string) uint16 {
	port := d.Port
	if port == 0 && d.Scheme == "" && x.scheme == x.connScheme() {
		port = x.rule.listener.Port
	}
	if scheme == "http" && port == 80 || scheme == "https" && port == 443 {
		return 0
	}
	return port
}

// appendSafe appends a part of a URL with everything escaped that must not stand in a Location.
func appendSafe(b []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte("\"#<>\\^`{|}", c) >= 0 {
			b = append(b, '%', hex[c>>4], hex[c&15])
			continue
		}
		b = append(b, c)
	}
	return b
}

// setTarget makes an outgoing request ask for what the filters made of the path. Where they did nothing, it goes out byte for byte as it came in, like the query.
func (x *exchange) setTarget(out *http.Request, p *plan) {
	out.URL.RawQuery = x.in.URL.RawQuery
	if p.hostname != "" {
		out.Host = p.hostname
	}
	path := x.path
	if p.path != nil {
		path = p.path.Apply(x.rule.Match.Path, path)
	}
	setPath(out.URL, path, x.request.Path)
}

// setPath makes u ask for an escaped path, byte for byte. Opaque is the only way to have net/url leave characters alone that it would rather see escaped, but
// it takes two slashes at the beginning for a host name. Such a path is written the other way, and if that does not keep it, in its normal form.
func setPath(u *url.URL, path, normal string) {
	if !strings.HasPrefix(path, "//") {
		u.Opaque = path
		return
	}
	for _, raw := range [...]string{path, normal} {
		u.RawPath = raw
		u.Path, _ = url.PathUnescape(raw)
		if u.EscapedPath() == raw {
			return
		}
	}
}
