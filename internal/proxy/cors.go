package proxy

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/fairlead-io/fairlead/internal/route"
)

// The headers of CORS (Fetch standard, section 3.3).
const (
	allowOrigin      = "Access-Control-Allow-Origin"
	allowCredentials = "Access-Control-Allow-Credentials"
	allowMethods     = "Access-Control-Allow-Methods"
	allowHeaders     = "Access-Control-Allow-Headers"
	exposeHeaders    = "Access-Control-Expose-Headers"
	maxAge           = "Access-Control-Max-Age"
	requestMethod    = "Access-Control-Request-Method"
	requestHeaders   = "Access-Control-Request-Headers"
)

// corsPlan is a CORS filter with its lists as values of headers, which are shared by all responses and never written to.
type corsPlan struct {
	*route.CORS
	methods, headers, expose, age []string // nil: not sent
	any                           bool     // the answer is the same for all origins
}

func newCORSPlan(f *route.CORS) *corsPlan {
	c := &corsPlan{CORS: f, age: []string{strconv.Itoa(int(f.MaxAge))}, any: f.Any() && !f.Credentials}
	for _, list := range []struct {
		names []string
		value *[]string
	}{{f.Methods, &c.methods}, {f.Headers, &c.headers}, {f.Expose, &c.expose}} {
		if len(list.names) > 0 {
			*list.value = []string{strings.Join(list.names, ", ")}
		}
	}
	return c
}

// preflight answers the question of a browser whether it may send a request for a page of another origin. It is not the backend's to answer.
func (x *exchange) preflight(p *plan) (done bool) {
	c, asked := p.cors, x.in.Header[requestMethod]
	if c == nil || x.in.Method != http.MethodOptions || len(asked) == 0 || len(x.in.Header["Origin"]) == 0 {
		return false
	}
	if !x.sameOriginAllowed(c) {
		x.answer(http.StatusForbidden, route.CORSDenied, fmt.Sprintf("the origin %.100q is none of those that the rule allows", x.in.Header["Origin"]))
		return true
	}
	x.entry.Reason = route.Preflight
	x.settleBody()
	h := x.reply.Header()
	h[ReasonHeader] = []string{string(route.Preflight)}
	x.corsHeader(h, c)
	h["Vary"] = append(h["Vary"], requestMethod, requestHeaders)
	echoes(h, allowMethods, c.methods, asked)
	echoes(h, allowHeaders, c.headers, x.in.Header[requestHeaders])
	h[maxAge] = c.age
	change(h, p.response)
	x.reply.WriteHeader(http.StatusNoContent)
	return true
}

// echoes sets a header that says what is allowed. Where everything is, it says what was asked for, since "*" means everything without credentials only, and not
// quite even then. What is not a list of tokens is not repeated.
func echoes(h http.Header, name string, allowed, asked []string) {
	if len(allowed) != 1 || allowed[0] != "*" {
		if allowed != nil {
			h[name] = allowed
		}
		return
	}
	if len(asked) != 1 || len(asked[0]) > 4<<10 {
		return
	}
	for token := range strings.SplitSeq(asked[0], ",") {
		if !httpguts.ValidHeaderFieldName(strings.TrimSpace(token)) {
			return
		}
	}
	h[name] = asked
}

// sameOriginAllowed reports whether the request is for a page of an origin that may have the response.
func (x *exchange) sameOriginAllowed(c *corsPlan) bool {
	origin := x.in.Header["Origin"]
	return len(origin) == 1 && c.Allows(origin[0])
}

// corsHeader writes into the header of a response which pages may use it. The filter alone decides that: what the backend says goes.
func (x *exchange) corsHeader(h http.Header, c *corsPlan) {
	if c == nil {
		return
	}
	for _, name := range [...]string{allowOrigin, allowCredentials, allowMethods, allowHeaders, exposeHeaders, maxAge} {
		delete(h, name)
	}
	if !c.any {
		h["Vary"] = append(h["Vary"], "Origin")
	}
	if !x.sameOriginAllowed(c) {
		return
	}
	h[allowOrigin] = x.in.Header["Origin"]
	if c.any {
		h[allowOrigin] = anyValue
	}
	if c.Credentials {
		h[allowCredentials] = trueValue
	}
	if c.expose != nil {
		h[exposeHeaders] = c.expose
	}
}

var anyValue, trueValue = []string{"*"}, []string{"true"}

// cors is the CORS filter that the response of the exchange is subject to; nil if there is none.
func (x *exchange) cors() *corsPlan {
	switch {
	case x.backend != nil:
		return x.backend.plan.cors
	case x.rule != nil:
		return x.rule.plan.cors
	}
	return nil
}
