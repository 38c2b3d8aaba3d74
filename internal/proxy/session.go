package proxy

import (
	"net/http"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// keeps returns what keeps clients at an endpoint of one of a rule's backends: what the rule says, or else its pool; nil if nothing does.
func keeps(r *route.Rule, pool *route.Pool) *route.Persistence {
	switch {
	case r.Persistence != nil:
		return r.Persistence
	case pool != nil && pool.Policy.Persistence.Name != "":
		return &pool.Policy.Persistence
	}
	return nil
}

// session returns what the client says of its session; "" if it says nothing. It is read from what the client sent, because filters may remove it.
func (x *exchange) session(p *route.Persistence) string {
	if p == nil {
		return ""
	}
	if p.Header {
		return x.in.Header.Get(p.Name)
	}
	token, _ := route.CookieValue(x.in.Header["Cookie"], p.Name)
	return token
}

// resume returns the backend that holds the client's session; nil if none does, and the weights decide. A backend of weight 0 keeps the sessions that it has, so that
// it can be taken out of service without ending them.
func (x *exchange) resume() *boundBackend {
	if !x.rule.sticky {
		return nil
	}
	for i := range x.rule.backends {
		b := &x.rule.backends[i]
		if b.pool == nil || b.Fault != nil || b.keeps == nil {
			continue
		}
		if token := x.session(b.keeps); token != "" && b.pool.Holds(token, b.keeps) {
			return b
		}
	}
	return nil
}

// tellSession tells the client of its session, if there is something to tell.
func (x *exchange) tellSession(h http.Header) {
	p, a := x.backend.keeps, &x.attempt
	switch {
	case p == nil:
	case p.Header && a.NewSession != "":
		h[p.Name] = []string{a.NewSession}
	case p.Header && a.Session != "": // clients keep what they heard last
		h[p.Name] = []string{a.Session}
	case a.NewSession != "":
		h["Set-Cookie"] = append(h["Set-Cookie"], x.sessionCookie(p, a.NewSession))
	}
}

// sessionCookie is the value of Set-Cookie.
func (x *exchange) sessionCookie(p *route.Persistence, token string) string {
	c := &p.Cookie
	secure := c.Secure == route.Yes || c.Secure != route.No && x.scheme == "https"
	out := http.Cookie{ // #nosec G124 -- whoever owns the Service says so, and the defaults are secure
		Name: p.Name, Value: token, Path: c.PathOrRoot(), Domain: c.Domain, MaxAge: int(c.MaxAge / time.Second), Secure: secure, HttpOnly: !c.Scripts, SameSite: http.SameSiteLaxMode,
	}
	switch c.SameSite {
	case "Strict":
		out.SameSite = http.SameSiteStrictMode
	case "None":
		out.SameSite = http.SameSiteNoneMode
	}
	return out.String()
}
