package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/fairlead-io/fairlead/internal/backend"
	"github.com/fairlead-io/fairlead/internal/route"
	"github.com/fairlead-io/fairlead/internal/telemetry"
)

// handler serves the requests that arrive on one bind, whatever table is installed at the time.
type handler struct {
	proxy   *Proxy
	bind    route.Bind
	name    string // of the bind, for metrics
	metrics *telemetry.ListenerMetrics
}

func newHandler(p *Proxy, bind route.Bind) http.Handler {
	name := bind.String()
	return &handler{proxy: p, bind: bind, name: name, metrics: p.opt.Metrics.Listener(name)}
}

// exchange is one request and its response. It is used again for another request after the handler has returned, so that nothing that outlives the handler may
// keep it.
type exchange struct {
	h    *handler
	conn *clientConn // nil if the request came on none (a test's)
	in   *http.Request
	ctx  context.Context // of in
	set  *installed      // the table to the end of the exchange

	started  time.Time
	request  route.Request // what the table is asked
	path     string        // what is forwarded: the path as the client wrote it, unless dot segments were resolved
	trusted  bool          // the peer is a trusted proxy
	client   netip.Addr    // as far as it is known
	scheme   string        // of the URL that the client sees
	listener *route.Listener
	rule     *boundRule
	backend  *boundBackend
	body     *clientBody // nil if the request has none, or is not forwarded
	reply    reply
	response replyBody
	attempt  backend.Attempt
	granted  grant // by authorization servers
	upgrade  bool
	waits    bool      // the client sends its body when it is read, over HTTP/2
	sent     time.Time // to the backend

	backendStatus int
	upgradedIn    int64 // bytes that the client sent through a tunnel
	underscores   int   // headers that were dropped for one
	fault         *route.Source
	timer         *time.Timer // of the rule's timeout
	cancel        context.CancelCauseFunc
	entry         telemetry.Entry
}

var exchanges = sync.Pool{New: func() any { return new(exchange) }}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := exchanges.Get().(*exchange)
	x.begin(h, w, r)
	defer x.end()
	x.serve()
}

func (x *exchange) begin(h *handler, w http.ResponseWriter, r *http.Request) {
	x.h, x.in, x.ctx, x.started = h, r, r.Context(), time.Now()
	x.conn, x.set = connFrom(x.ctx), h.proxy.installed.Load()
	x.reply.ResponseWriter, x.reply.x = w, x
	h.metrics.InFlight(1)
	x.identify()
}

// serve takes the request the way through the table.
func (x *exchange) serve() {
	if status, reason := checkRequest(x.in); status != 0 {
		x.answer(status, reason, "")
		return
	}
	if !x.normalize() || x.challenged() || !x.lookup() || x.answered() {
		return
	}
	if x.preflight(&x.rule.plan) || !x.authorize(x.rule.auths) || x.redirect(&x.rule.plan) || !x.choose() {
		return
	}
	x.forward()
}

// normalize brings host and path into the form in which tables know them. What does not have one is refused.
func (x *exchange) normalize() (ok bool) {
	host, err := route.NormalizeHost(x.in.Host)
	if err != nil {
		x.answer(http.StatusBadRequest, route.BadHost, err.Error())
		return false
	}
	raw := rawPath(x.in)
	path, changed, err := route.NormalizePath(raw)
	if err != nil {
		x.answer(http.StatusBadRequest, route.BadPath, err.Error())
		return false
	}
	x.path = raw
	if changed {
		x.path = path
	}
	x.request = route.Request{Host: host, Path: path, Method: x.in.Method, RawQuery: x.in.URL.RawQuery, Header: x.in.Header}
	return true
}

// rawPath is the path of a request exactly as the client wrote it. It is taken from the request target, because net/url decodes and cleans.
func rawPath(r *http.Request) string {
	target, _, _ := strings.Cut(r.RequestURI, "?")
	if strings.HasPrefix(target, "/") {
		return target
	}
	if _, rest, ok := strings.Cut(target, "://"); ok { // absolute form
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			return rest[i:]
		}
		return "/"
	}
	return target
}

// lookup finds the rule that serves the request.
func (x *exchange) lookup() (ok bool) {
	var port *route.Port
	if x.set != nil {
		port = x.set.table.Port(x.h.bind)
	}
	if port == nil {
		x.answer(http.StatusNotFound, route.NoRoute, "no port of the table is bound here")
		return false
	}
	if x.in.TLS != nil && !x.checkServerName(port) {
		return false
	}
	listener, rule, reason := port.Lookup(&x.request)
	x.listener = listener
	if rule == nil && listener != nil && listener.Mode != route.Requests { // since the connection was made
		x.answer(http.StatusMisdirectedRequest, route.Misdirected, "connections for this host are passed on as a whole")
		return false
	}
	if rule == nil {
		x.answer(http.StatusNotFound, reason, "")
		return false
	}
	if listener.Clients != nil && !x.hasShown(listener.Clients) {
		x.answer(http.StatusMisdirectedRequest, route.Misdirected, "the TLS connection was made without what the listener demands of clients")
		return false
	}
	x.rule = x.set.rules[ruleKey{listener, rule}]
	return true
}

// hasShown tells whether the client's certificate met a demand when the connection was made. The demand may be newer than the connection.
func (x *exchange) hasShown(demand *route.ClientAuth) bool {
	return x.conn != nil && x.conn.shown.Equal(demand)
}

// checkServerName refuses requests for a host of another listener than the one that the TLS connection was made for, with its certificate and its demands on
// clients. If another owns the host the client should make a connection for it (421, RFC 9110 section 15.5.20), and if none does there is nothing here for it.
func (x *exchange) checkServerName(port *route.Port) (ok bool) {
	name := x.serverName()
	if name == x.request.Host {
		return true
	}
	made, owner := port.Listener(name), port.Listener(x.request.Host)
	if made == owner {
		return true
	}
	x.listener = owner
	if owner == nil {
		x.answer(http.StatusNotFound, route.NoRoute, "")
		return false
	}
	if owner.LastResort { // owns every host that nobody else does, but serves only some
		if _, rule, _ := port.Lookup(&x.request); rule == nil {
			x.answer(http.StatusNotFound, route.NoRoute, "")
			return false
		}
	}
	x.answer(http.StatusMisdirectedRequest, route.Misdirected, fmt.Sprintf("the TLS connection was made for %q", name))
	return false
}

// serverName is the name that the client asked for in the TLS handshake, as a table knows it.
func (x *exchange) serverName() string {
	if x.conn != nil {
		return x.conn.sni()
	}
	return strings.TrimSuffix(strings.ToLower(x.in.TLS.ServerName), ".")
}

// answered answers requests that the rule has no use for: all of them, if it has a fault; and those with a query that cannot be parsed, if the rule was chosen by
// the query. The backend might then see other parameters than the ones that matched.
func (x *exchange) answered() bool {
	if f := x.rule.Fault; f != nil {
		x.answer(f.Status, f.Reason, f.Why)
		return true
	}
	if len(x.rule.Match.Query) > 0 && !validQuery(x.in.URL.RawQuery) {
		x.answer(http.StatusBadRequest, route.BadRequest, "the rule matches on the query, which is malformed")
		return true
	}
	return false
}

// validQuery reports whether there is one way only to read a query: no semicolons, which some take for ampersands, and no invalid escapes.
func validQuery(q string) bool {
	for i := 0; i < len(q); i++ {
		switch q[i] {
		case ';':
			return false
		case '%':
			if i+2 >= len(q) || !isHex(q[i+1]) || !isHex(q[i+2]) {
				return false
			}
		}
	}
	return true
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// choose picks the backend, and answers in its place if it cannot serve.
func (x *exchange) choose() (ok bool) {
	b := x.resume()
	if b == nil {
		b = x.rule.pick()
	}
	if b == nil {
		x.answer(http.StatusInternalServerError, route.NoBackend, "no backend of the rule has a weight")
		return false
	}
	x.backend = b
	if f := b.Fault; f != nil {
		x.fault = &b.Source
		x.answer(f.Status, f.Reason, f.Why)
		return false
	}
	if b.pool == nil {
		x.fault = &b.Source
		x.answer(http.StatusInternalServerError, route.Internal, "the pool "+b.name+" is not installed")
		return false
	}
	return !x.preflight(&b.plan) && x.authorize(b.auths) && !x.redirect(&b.plan)
}

// end settles what is left of an exchange: the body, the account, and what the exchange panicked with. http.ErrAbortHandler is how one ends whose response cannot be
// completed: net/http then breaks the connection or the stream off, so that the client sees that something is missing.
func (x *exchange) end() {
	abort := false
	if v := recover(); v != nil {
		abort = x.recovered(v)
	}
	abandoned := x.abandoned()
	x.stopTimer()
	if x.cancel != nil {
		x.cancel(nil)
	}
	if !abort && !x.upgrade {
		x.reply.leave()
	}
	x.closeBody(abort)
	x.reply.watch.release()
	x.account()
	x.h.metrics.InFlight(-1)
	if x.conn != nil {
		x.conn.streamDone(abandoned)
	}
	if abort {
		panic(http.ErrAbortHandler) // and leave the exchange to the garbage collector
	}
	*x = exchange{}
	exchanges.Put(x)
}

// abandoned reports whether the client called the exchange off, or made net/http do so by breaking the protocol: the context of a request ends otherwise only
// after its handler.
func (x *exchange) abandoned() bool {
	if x.ctx.Err() == nil {
		return false
	}
	_, late := errors.AsType[*timeoutError](context.Cause(x.ctx))
	return !late
}

// closeBody ends the body. If that is not at its end the client gets the whole response first: it may have to wait for it before it sends the rest.
func (x *exchange) closeBody(abort bool) {
	if x.body == nil {
		return
	}
	if !abort && x.reply.status != 0 && !x.body.ended.Load() && !x.statusOnly() {
		_ = x.reply.FlushError()
	}
	x.body.close()
}

// statusOnly reports whether the response is a status of gRPC without messages. It has to end with its head, in one frame: in a head that something may follow clients look for
// no status.
func (x *exchange) statusOnly() bool {
	return x.in.ProtoMajor == 2 && x.reply.bytes == 0 && isGRPC(x.in)
}

// recovered finds the reason for which an exchange panicked, and reports whether its response has to be broken off.
func (x *exchange) recovered(v any) (abort bool) {
	if v == http.ErrAbortHandler { //nolint:errorlint // not wrapped, by contract
		if x.entry.Reason == "" {
			x.blame(x.diagnose(x.brokenOff()))
		}
		return true
	}
	x.h.proxy.opt.Log.Error("serve request: panic", "panic", v, "request", x.entry.RequestID, "stack", string(debug.Stack()))
	x.entry.Reason, x.entry.Detail = route.Internal, fmt.Sprint(v)
	if x.reply.status != 0 {
		return true
	}
	return x.answerAfterPanic()
}
