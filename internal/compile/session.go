package compile

import (
	"fmt"
	"slices"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/route"
)

// maxSessionName is the API's bound on the length of a sessionName.
const maxSessionName = 128

// persistenceOf compiles the sessionPersistence of a rule; nil if it has none. owner names the rule: what it does not name itself is named by that.
func persistenceOf(spec *gatewayv1.SessionPersistence, owner string) (*route.Persistence, *fieldError) {
	if spec == nil {
		return nil, nil
	}
	p := &route.Persistence{Name: orDefault(spec.SessionName, "")}
	if p.Name == "" {
		p.Name = sessionName(owner)
	}
	if err := sessionLifetime(p, spec); err != nil {
		return nil, err
	}
	if len(p.Name) > maxSessionName {
		return nil, fieldErrorf(".sessionName", "it has %d characters, %d are allowed", len(p.Name), maxSessionName)
	}
	switch typ := orDefault(spec.Type, gatewayv1.CookieBasedSessionPersistence); typ {
	case gatewayv1.CookieBasedSessionPersistence:
		return p, sessionCookie(p, spec)
	case gatewayv1.HeaderBasedSessionPersistence:
		return p, sessionHeader(p, spec)
	default:
		return nil, fieldErrorf(".type", "type %.64q is neither Cookie nor Header", typ)
	}
}

func sessionLifetime(p *route.Persistence, spec *gatewayv1.SessionPersistence) *fieldError {
	d := spec.AbsoluteTimeout
	if d == nil {
		return nil
	}
	parsed, err := time.ParseDuration(string(*d))
	if err != nil || !duration.MatchString(string(*d)) {
		return fieldErrorf(".absoluteTimeout", "%.64q is not a duration such as 10s, 1m30s or 500ms", *d)
	}
	p.Lifetime = parsed // zero is none, as for the other timeouts of a route
	return nil
}

func sessionCookie(p *route.Persistence, spec *gatewayv1.SessionPersistence) *fieldError {
	if err := checkToken(p.Name); err != nil {
		return fieldErrorf(".sessionName", "the name of a cookie %w", err)
	}
	if spec.CookieConfig != nil {
		switch typ := orDefault(spec.CookieConfig.LifetimeType, gatewayv1.SessionCookieLifetimeType); typ {
		case gatewayv1.SessionCookieLifetimeType:
		case gatewayv1.PermanentCookieLifetimeType:
			if p.Lifetime < time.Second {
				return fieldErrorf(".absoluteTimeout", "a cookie with the lifetimeType Permanent needs an absoluteTimeout of at least 1s")
			}
			p.Cookie.MaxAge = p.Lifetime
		default:
			return fieldErrorf(".cookieConfig.lifetimeType", "lifetimeType %.64q is neither Session nor Permanent", typ)
		}
	}
	if err := checkCookie(p); err != nil {
		return fieldErrorf(".sessionName", "%w", err)
	}
	return nil
}

func sessionHeader(p *route.Persistence, spec *gatewayv1.SessionPersistence) *fieldError {
	if spec.CookieConfig != nil {
		return fieldErrorf(".cookieConfig", "it is of the type Cookie, and the type is Header")
	}
	name, err := headerName(p.Name)
	if err == nil && (slices.Contains(framing, name) || name == "Cookie" || name == "Set-Cookie") {
		err = fmt.Errorf("the header %s has a meaning of its own", name)
	}
	if err != nil {
		return fieldErrorf(".sessionName", "%w", err)
	}
	p.Header, p.Name = true, name
	return nil
}

// persistence compiles the session persistence of the rule. A rule whose sessions cannot be kept as it says answers with an error: requests that went anywhere would
// find that their session is lost.
func (r *httpRule) persistence() *route.Persistence {
	name := fmt.Sprint(r.index)
	if r.spec.Name != nil {
		name = "/" + string(*r.spec.Name)
	}
	p, err := persistenceOf(r.spec.SessionPersistence, r.ref.String()+" "+name)
	if err != nil {
		r.broken(".sessionPersistence"+err.field, gatewayv1.RouteReasonUnsupportedValue, err.Error())
		return nil
	}
	return p
}
