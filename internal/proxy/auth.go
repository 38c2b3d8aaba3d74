package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/fairlead-io/fairlead/internal/backend"
	"github.com/fairlead-io/fairlead/internal/route"
)

// Limits of asking an authorization server.
const (
	authTimeout  = 10 * time.Second
	maxAuthReply = 64 << 10 // bytes of its answer that reach a client; more is an error
)

// boundAuth is an ExternalAuth filter, ready to serve.
type boundAuth struct {
	*route.ExternalAuth
	pool roundTripper // nil: it is not installed
}

// grant is what an authorization server wants to be changed about a request that it lets pass, and about its response.
type grant struct{ request, response []headerOp }

// denial is an answer of an authorization server to the client.
type denial struct {
	status int
	header http.Header
	body   []byte
}

// authorize asks the authorization servers of a rule or of a backend, one after the other. All must let the request pass; if one does not, or if it cannot be asked, the
// request is answered.
func (x *exchange) authorize(auths []boundAuth) (ok bool) {
	for i := range auths {
		if !x.authorizeBy(&auths[i]) {
			return false
		}
	}
	return true
}

func (x *exchange) authorizeBy(a *boundAuth) (ok bool) {
	if f := a.Fault; f != nil {
		x.answer(f.Status, f.Reason, f.Why)
		return false
	}
	if a.pool == nil {
		x.answer(http.StatusInternalServerError, route.Internal, "the pool of the authorization server is not installed")
		return false
	}
	body, ok := x.bodyFor(a)
	if !ok {
		return false
	}
	ask := askHTTP
	if a.GRPC {
		ask = askGRPC
	}
	ctx, cancel := context.WithTimeout(x.in.Context(), x.authTime())
	defer cancel()
	g, d, err := ask(ctx, x, a, body)
	switch {
	case err != nil && x.in.Context().Err() != nil:
		x.fail(&failure{statusClientClosed, route.ClientClosed, err})
	case err != nil:
		x.answer(http.StatusServiceUnavailable, route.AuthFailed, err.Error())
	case d != nil:
		x.deny(d)
	default:
		x.granted.request = append(x.granted.request, g.request...)
		x.granted.response = append(x.granted.response, g.response...)
		return true
	}
	return false
}

// authTime is how long an authorization server has to answer.
func (x *exchange) authTime() time.Duration {
	if limit := x.rule.Timeouts.Request; limit > 0 {
		return min(authTimeout, limit-time.Since(x.started))
	}
	return authTimeout
}

// bodyFor reads the body of the request for an authorization server, and puts it back. A body that is too large is refused: what the server did not see must not pass.
func (x *exchange) bodyFor(a *boundAuth) (body []byte, ok bool) {
	if a.MaxBody == 0 {
		return nil, true
	}
	if !x.openBody() {
		return nil, false
	}
	if x.body == nil {
		return nil, true
	}
	body, err := readLimited(x.body, a.MaxBody)
	switch {
	case err != nil:
		x.fail(x.diagnose(err))
		return nil, false
	case len(body) > a.MaxBody:
		x.answer(http.StatusRequestEntityTooLarge, route.BodyTooLarge, fmt.Sprintf("the authorization server takes %d bytes", a.MaxBody))
		return nil, false
	}
	x.body.unread(body)
	return body, true
}

// authHeader is the header of the request as a backend would get it, before any filter.
func (x *exchange) authHeader() http.Header {
	out := &http.Request{Header: x.in.Header.Clone()}
	for _, line := range x.in.Header["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			out.Header.Del(strings.TrimSpace(name))
		}
	}
	for name := range out.Header {
		if framing(name) {
			delete(out.Header, name)
		}
	}
	for _, name := range [...]string{"Proxy-Authenticate", "Proxy-Authorization", "Expect"} {
		delete(out.Header, name)
	}
	x.requestHeader(out)
	change(out.Header, x.granted.request)
	return out.Header
}

// askHTTP sends the server a request like the client's. It lets the request pass with a 200 and nothing else.
func askHTTP(ctx context.Context, x *exchange, a *boundAuth, body []byte) (g grant, d *denial, err error) {
	have, header := x.authHeader(), http.Header{}
	for _, name := range append([]string{"Authorization"}, a.RequestHeaders...) {
		if v, ok := have[name]; ok {
			header[name] = v
		}
	}
	if _, ok := header["User-Agent"]; !ok {
		header["User-Agent"] = nil // or net/http sends its own
	}
	req := &http.Request{
		Method: x.in.Method, URL: &url.URL{Scheme: "http", Host: x.in.Host, RawQuery: x.in.URL.RawQuery}, Host: x.in.Host, Header: header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, ContentLength: int64(len(body)),
	}
	setPath(req.URL, a.PathPrefix+x.path, a.PathPrefix+x.request.Path)
	if len(body) > 0 {
		req.Body = io.NopCloser(bytes.NewReader(body))
	}
	res, err := a.pool.Do(req.WithContext(ctx), &backend.Attempt{})
	if err != nil {
		return g, nil, fmt.Errorf("ask authorization server: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode == http.StatusOK {
		_, _ = io.CopyN(io.Discard, res.Body, maxAuthReply)
		return grant{request: a.fromAnswer(res.Header)}, nil, nil
	}
	d, err = readDenial(res)
	return g, d, err
}

// fromAnswer is what the header of an answer that lets a request pass makes of the request. What the filter lists is the server's to say: if it does not say it, the
// client does not either.
func (a *boundAuth) fromAnswer(h http.Header) (ops []headerOp) {
	names := a.ResponseHeaders
	for _, name := range names {
		ops = append(ops, headerOp{opRemove, name, nil})
	}
	if len(names) == 0 {
		for name := range h {
			if !aboutAnswer(name) {
				names = append(names, name)
			}
		}
		slices.Sort(names)
	}
	for _, name := range names {
		if v := h[name]; len(v) > 0 && grantable(name) {
			ops = append(ops, headerOp{opSet, name, slices.Clip(v)})
		}
	}
	return ops
}

// grantable reports whether an authorization server may set a header, in canonical form, of a request.
func grantable(name string) bool {
	return name != "Host" && !framing(name) && !forbiddenHeader(name) && httpguts.ValidHeaderFieldName(name)
}

// aboutAnswer reports whether a header tells of the answer that it stands in, and nothing of the client.
func aboutAnswer(name string) bool {
	switch name {
	case "Accept-Ranges", "Age", "Alt-Svc", "Cache-Control", "Date", "Etag", "Expires", "Last-Modified", "Location", "Pragma", "Retry-After", "Server", "Set-Cookie",
		"Strict-Transport-Security", "Vary", "Via", "Www-Authenticate":
		return true
	}
	return strings.HasPrefix(name, "Content-") || strings.HasPrefix(name, "Access-Control-") || identityHeader(name)
}

// readLimited reads all of r, and if that is more than limit bytes, one more than those.
func readLimited(r io.Reader, limit int) ([]byte, error) {
	return io.ReadAll(io.LimitReader(r, int64(limit)+1)) //nolint:forbidigo // with a limit
}

var errAuthReply = errors.New("ask authorization server: the answer is too large")

// readDenial reads an answer that does not let a request pass. The client gets redirects and what it did wrong itself; the server's own failures are not its business.
func readDenial(res *http.Response) (*denial, error) {
	switch s := res.StatusCode; {
	case s >= 500:
		return nil, fmt.Errorf("ask authorization server: it answered %d", s)
	case s < 300:
		return &denial{status: http.StatusForbidden}, nil
	}
	body, err := readLimited(res.Body, maxAuthReply)
	switch {
	case err != nil:
		return nil, fmt.Errorf("ask authorization server: read answer: %w", err)
	case len(body) > maxAuthReply:
		return nil, errAuthReply
	}
	return &denial{res.StatusCode, res.Header, body}, nil
}

// deny gives the client the answer of an authorization server. gRPC clients get a status alone.
func (x *exchange) deny(d *denial) {
	if isGRPC(x.in) || len(d.header) == 0 && len(d.body) == 0 {
		x.answer(d.status, route.AuthDenied, "")
		return
	}
	x.entry.Reason = route.AuthDenied
	x.settleBody()
	h := x.reply.Header()
	for name, values := range d.header {
		if !framing(name) && !forbiddenHeader(name) && name != "Content-Length" {
			h[name] = values
		}
	}
	h[ReasonHeader] = []string{string(route.AuthDenied)}
	x.corsHeader(h, x.cors())
	if h["Content-Type"] == nil {
		h["Content-Type"] = nil // or net/http guesses one
	}
	x.reply.WriteHeader(d.status)
	if x.in.Method != http.MethodHead && len(d.body) > 0 {
		_, _ = x.reply.Write(d.body) // a failure is kept in the reply
	}
}
