package proxy

import (
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/fairlead-io/fairlead/internal/proxy/headscan"
	"github.com/fairlead-io/fairlead/internal/route"
)

// Limits bound what a client or a backend may take. Zero means the default in the comment.
type Limits struct {
	HeaderBytes       int           // request line and headers, 64 KiB
	HeaderCount       int           // 128
	TargetBytes       int           // request target, 16 KiB
	BodyBytes         int64         // unlimited
	ReadHeaderTimeout time.Duration // first byte to last header byte, 10 s
	HandshakeTimeout  time.Duration // TLS, 10 s
	IdleTimeout       time.Duration // keep-alive, 120 s
	ReadTimeout       time.Duration // between two reads of a body, 60 s
	WriteTimeout      time.Duration // without progress when writing to a client, 60 s
	TunnelIdle        time.Duration // upgraded connections without traffic, 1 h
	FlowIdle          time.Duration // flows of datagrams without traffic, 1 min; cannot be without limit
	Flows             int           // in all, 16,384 or a sixth of the file descriptors; of a client as many as connections
	Connections       int           // in all, 50,000 or a third of the file descriptors
	ConnectionsPerIP  int           // 1,024; loopback and trusted proxies are exempt; an IPv6 client counts by its /64
	Streams           int           // concurrent HTTP/2 streams of a connection, 100
	// Resets is how many streams a client may abandon within 30 s on one connection before it is closed, 100; and one more for each ten that it completed.
	Resets int
}

func (l Limits) withDefaults() Limits {
	setDefault(&l.HeaderBytes, 64<<10)
	setDefault(&l.HeaderCount, 128)
	setDefault(&l.TargetBytes, 16<<10)
	setDefault(&l.ReadHeaderTimeout, 10*time.Second)
	setDefault(&l.HandshakeTimeout, 10*time.Second)
	setDefault(&l.IdleTimeout, 2*time.Minute)
	setDefault(&l.ReadTimeout, time.Minute)
	setDefault(&l.WriteTimeout, time.Minute)
	setDefault(&l.TunnelIdle, time.Hour)
	setDefault(&l.FlowIdle, time.Minute)
	if l.FlowIdle < 0 {
		l.FlowIdle = time.Minute // what has no end would never be over
	}
	setDefault(&l.Flows, defaultFlows(debug.SetMemoryLimit(-1)))
	setDefault(&l.Connections, defaultConnections())
	setDefault(&l.ConnectionsPerIP, 1024)
	setDefault(&l.Streams, 100)
	setDefault(&l.Resets, 100)
	return l
}

// defaultFlows is how many flows there may be with a limit on memory (GOMEMLIMIT). Who begins one need not show an address of his own: all of them together take a
// quarter. Each has a port of this machine's to itself, of which there are 28,232 by default, for flows and all else: they are not to take more than about half.
func defaultFlows(memory int64) int {
	return int(max(min(int64(defaultConnections()/2), 16<<10, memory/4/flowBytes), 16))
}

func setDefault[T int | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// head are the limits that apply to the head of a request.
func (l *Limits) head() headscan.Limits {
	return headscan.Limits{HeadBytes: unlimited(l.HeaderBytes), Headers: unlimited(l.HeaderCount), TargetBytes: unlimited(l.TargetBytes)}
}

// unlimited turns a negative limit into one that nothing reaches.
func unlimited(n int) int {
	if n < 0 {
		return 1 << 30
	}
	return n
}

// defaultLimits are for requests that came on no connection of ours.
var defaultLimits = Limits{Connections: -1}.withDefaults()

// checkRequest says whether the head of a request is one that Fairlead serves at all, whatever the version of HTTP it came by. Status 0 means yes.
// What this lets through has a method that is a token, a target that is a path, an http URL or * (for OPTIONS), a valid host, and headers within the limits.
func checkRequest(r *http.Request) (status int, reason route.Reason) {
	switch {
	case r.Method == http.MethodConnect || r.Method == http.MethodTrace:
		return http.StatusMethodNotAllowed, route.MethodNotAllowed
	case len(r.Method) > maxMethod || !headscan.Token(r.Method):
		return http.StatusBadRequest, route.BadRequest
	}
	c := connFrom(r.Context())
	if c != nil && r.ProtoMajor == 1 {
		return 0, "" // the head scanner has seen to everything else
	}
	limits := &defaultLimits
	if c != nil {
		limits = c.limits
	}
	if status, reason = checkTarget(r, limits); status != 0 {
		return status, reason
	}
	// HTTP/2 has its own way to name a host. If there is a Host header as well it must say the same (RFC 9113, section 8.3.1).
	if v := r.Header["Host"]; len(v) > 1 || len(v) == 1 && v[0] != r.Host {
		return http.StatusBadRequest, route.BadHost
	}
	if _, err := route.NormalizeHost(r.Host); err != nil {
		return http.StatusBadRequest, route.BadHost
	}
	return checkHeaders(r, limits)
}

// maxMethod is the length of the longest method that is not a joke.
const maxMethod = 32

func checkTarget(r *http.Request, l *Limits) (status int, reason route.Reason) {
	target := r.RequestURI
	switch {
	case len(target) > unlimited(l.TargetBytes):
		return http.StatusRequestURITooLong, route.TargetTooLong
	case target == "*" && r.Method == http.MethodOptions:
		return 0, ""
	case target == "" || target[0] != '/':
		return http.StatusBadRequest, route.BadPath
	}
	query := false
	for i := range len(target) {
		switch b := target[i]; {
		case b <= ' ' || b == 0x7f || b == '#':
			return http.StatusBadRequest, route.BadPath
		case b == '?':
			query = true
		case b == '\\' && !query:
			return http.StatusBadRequest, route.BadPath
		}
	}
	return 0, ""
}

func checkHeaders(r *http.Request, l *Limits) (status int, reason route.Reason) {
	n := 0
	for _, values := range r.Header {
		n += len(values)
	}
	if n > unlimited(l.HeaderCount) {
		return http.StatusRequestHeaderFieldsTooLarge, route.HeadersTooLarge
	}
	// An HTTP/2 server takes the first of several lengths, and none for one that it cannot read: backends might take another.
	if v := r.Header["Content-Length"]; len(v) > 0 && !validLength(v, r.ContentLength) {
		return http.StatusBadRequest, route.BadRequest
	}
	return 0, ""
}

func validLength(v []string, length int64) bool {
	n, err := strconv.ParseUint(v[0], 10, 63)
	return err == nil && len(v) == 1 && int64(n) == max(length, 0)
}
