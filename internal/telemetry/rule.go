package telemetry

import (
	"maps"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead-io/fairlead/internal/route"
)

// RuleLabels names the route that a rule came from and the listener that it is attached to. All rules of a route on a listener share their series.
type RuleLabels struct{ Listener, Kind, Namespace, Name string }

func (l RuleLabels) clean() RuleLabels {
	return RuleLabels{clean(l.Listener), clean(l.Kind), clean(l.Namespace), clean(l.Name)}
}

func (l RuleLabels) route() routeKey { return routeKey{l.Kind, l.Namespace, l.Name} }

// routeKey names a route, whatever it is attached to.
type routeKey struct{ kind, namespace, name string }

// RuleMetrics counts the requests of one route on one listener. A nil *RuleMetrics counts nothing. Safe for concurrent use.
type RuleMetrics struct {
	m        *Metrics
	labels   RuleLabels
	route    *routeMetrics
	requests counters
	passages counters // by reason
	latency  lazy[prometheus.Observer]
}

// Rule returns the metrics of a route on a listener: the same each time until Keep drops it. It takes a lock; callers keep the result.
func (m *Metrics) Rule(l RuleLabels) *RuleMetrics {
	if m == nil {
		return nil
	}
	l = l.clean()
	m.mu.Lock()
	defer m.mu.Unlock()
	rt := m.routeMetrics(l.route())
	return m.rules.get(l, func() *RuleMetrics {
		r := &RuleMetrics{m: m, labels: l, route: rt}
		r.requests.create = r.create
		r.passages.create = func(reason uint32) prometheus.Counter { return m.passages.WithLabelValues(r.passageValues(reason)...) }
		r.latency.create = func() prometheus.Observer { return m.duration.WithLabelValues(l.Listener, l.Kind, l.Namespace, l.Name) }
		return r
	})
}

// Done counts one request that was answered with code after d. in and out are the bytes of its bodies. Methods, protocols and codes that are not among the
// registered ones share a label. It allocates only when it meets a combination of labels for the first time.
func (r *RuleMetrics) Done(code int, method, proto string, d time.Duration, in, out int64) {
	if r == nil {
		return
	}
	if c := r.requests.get(requestKey(code, method, proto)); c != nil {
		c.Inc()
	}
	if o, ok := r.latency.get(); ok {
		o.Observe(d.Seconds())
	}
	r.route.transferred(in, out)
}

// Answered counts one request that Fairlead answered itself, for that reason; Done counts it too. It allocates only when it meets a reason for the first time.
func (r *RuleMetrics) Answered(reason route.Reason) {
	if r == nil || reason == "" {
		return
	}
	if c := r.route.answered.get(reasonIndex(reason)); c != nil {
		c.Inc()
	}
}

// Passed counts one connection, or flow of datagrams, that has ended, for a reason or "" for none, and the bytes that passed. It allocates only when it meets a
// reason for the first time.
func (r *RuleMetrics) Passed(reason route.Reason, in, out int64) {
	if r == nil {
		return
	}
	key := noReason
	if reason != "" {
		key = reasonIndex(reason)
	}
	if c := r.passages.get(key); c != nil {
		c.Inc()
	}
	if t, ok := r.route.passed.get(); ok {
		t.in.Add(float64(max(in, 0)))
		t.out.Add(float64(max(out, 0)))
	}
}

// noReason stands for none among the indexes of reasons.
const noReason = uint32(1 << 16)

func (r *RuleMetrics) passageValues(reason uint32) []string {
	text := "none"
	if reason != noReason {
		text = reasonText(reason)
	}
	return []string{r.labels.Listener, r.labels.Kind, r.labels.Namespace, r.labels.Name, text}
}

func (r *RuleMetrics) create(key uint32) prometheus.Counter {
	return r.m.requests.WithLabelValues(r.values(key)...)
}

func (r *RuleMetrics) values(key uint32) []string {
	return []string{
		r.labels.Listener, r.labels.Kind, r.labels.Namespace, r.labels.Name,
		codeText(key >> 8), methods[key>>4&15], protocols[key&15],
	}
}

// drop implements holder.
func (r *RuleMetrics) drop() {
	r.requests.drop(func(key uint32) { r.m.requests.DeleteLabelValues(r.values(key)...) })
	r.passages.drop(func(reason uint32) { r.m.passages.DeleteLabelValues(r.passageValues(reason)...) })
	r.latency.drop(func() {
		r.m.duration.DeleteLabelValues(r.labels.Listener, r.labels.Kind, r.labels.Namespace, r.labels.Name)
	})
}

// routeMetrics is what a route's listeners share.
type routeMetrics struct {
	m        *Metrics
	key      routeKey
	answered counters // by reason
	passed   lazy[transfer]
	lazy[transfer]
}

type transfer struct{ in, out prometheus.Counter }

func (m *Metrics) routeMetrics(k routeKey) *routeMetrics {
	return m.routes.get(k, func() *routeMetrics {
		r := &routeMetrics{m: m, key: k}
		r.answered.create = func(reason uint32) prometheus.Counter {
			return m.answered.WithLabelValues(k.kind, k.namespace, k.name, reasonText(reason))
		}
		r.passed.create = func() transfer {
			return transfer{
				in:  m.passageBytes.WithLabelValues(k.kind, k.namespace, k.name, "in"),
				out: m.passageBytes.WithLabelValues(k.kind, k.namespace, k.name, "out"),
			}
		}
		r.create = func() transfer {
			return transfer{
				in:  m.requestBytes.WithLabelValues(k.kind, k.namespace, k.name),
				out: m.responseBytes.WithLabelValues(k.kind, k.namespace, k.name),
			}
		}
		return r
	})
}

func (r *routeMetrics) transferred(in, out int64) {
	if t, ok := r.get(); ok {
		t.in.Add(float64(max(in, 0)))
		t.out.Add(float64(max(out, 0)))
	}
}

// drop implements holder.
func (r *routeMetrics) drop() {
	r.answered.drop(func(reason uint32) {
		r.m.answered.DeleteLabelValues(r.key.kind, r.key.namespace, r.key.name, reasonText(reason))
	})
	r.passed.drop(func() {
		r.m.passageBytes.DeleteLabelValues(r.key.kind, r.key.namespace, r.key.name, "in")
		r.m.passageBytes.DeleteLabelValues(r.key.kind, r.key.namespace, r.key.name, "out")
	})
	r.lazy.drop(func() {
		r.m.requestBytes.DeleteLabelValues(r.key.kind, r.key.namespace, r.key.name)
		r.m.responseBytes.DeleteLabelValues(r.key.kind, r.key.namespace, r.key.name)
	})
}

// counters are the children of one counter that differ by code, method, protocol or reason only, which key packs. They are made when they are first
// needed: most of the combinations never occur. Reading takes no lock.
type counters struct {
	known  atomic.Pointer[map[uint32]prometheus.Counter]
	create func(key uint32) prometheus.Counter // set once, before use

	mu   sync.Mutex
	gone bool
}

// get returns the child of key, or nil if the series were dropped.
func (c *counters) get(key uint32) prometheus.Counter {
	if known := c.known.Load(); known != nil {
		if child, ok := (*known)[key]; ok {
			return child
		}
	}
	return c.add(key)
}

func (c *counters) add(key uint32) prometheus.Counter {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := map[uint32]prometheus.Counter{}
	if known := c.known.Load(); known != nil {
		if child, ok := (*known)[key]; ok {
			return child
		}
		maps.Copy(next, *known)
	}
	if c.gone {
		return nil
	}
	child := c.create(key)
	next[key] = child
	c.known.Store(&next)
	return child
}

// drop calls remove for each child that exists and makes sure that no other comes into being.
func (c *counters) drop(remove func(key uint32)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
	if known := c.known.Load(); known != nil {
		for key := range *known {
			remove(key)
		}
	}
}

// lazy is a child that is made when it is first needed, so that a route without traffic has no series. Reading takes no lock.
type lazy[T any] struct {
	made   atomic.Pointer[T]
	create func() T // set once, before use

	mu   sync.Mutex
	gone bool
}

// get returns the child, and false if the series was dropped before the child was made.
func (l *lazy[T]) get() (T, bool) {
	if v := l.made.Load(); v != nil {
		return *v, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if v := l.made.Load(); v != nil {
		return *v, true
	}
	if l.gone {
		var none T
		return none, false
	}
	v := l.create()
	l.made.Store(&v)
	return v, true
}

// drop calls remove if the child exists and makes sure that it does not come into being.
func (l *lazy[T]) drop(remove func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = true
	if l.made.Load() != nil {
		remove()
	}
}

// methods and protocols are the values of the labels of the same names.
var (
	methods = [...]string{
		http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodOptions, http.MethodConnect, http.MethodTrace, "OTHER",
	}
	protocols = [...]string{"HTTP/1.1", "HTTP/2", "HTTP/3", "HTTP/1.0", "OTHER"}
)

// requestKey packs the labels of a request: the code from bit 8, the method in bits 4 to 7, the protocol in bits 0 to 3.
func requestKey(code int, method, proto string) uint32 {
	return foldCode(code)<<8 | methodIndex(method)<<4 | protocolIndex(proto)
}

func methodIndex(s string) uint32 {
	for i, m := range methods[:len(methods)-1] {
		if m == s {
			return uint32(i) // #nosec G115 -- an index of a short array
		}
	}
	return uint32(len(methods) - 1)
}

func protocolIndex(s string) uint32 {
	switch s {
	case "HTTP/1.1":
		return 0
	case "HTTP/2.0", "HTTP/2":
		return 1
	case "HTTP/3.0", "HTTP/3":
		return 2
	case "HTTP/1.0":
		return 3
	}
	return 4
}

// foldCode maps a status code to itself if it is registered (or 499, the client left), and to its class, 1 to 5, if it is not: a backend must not be able to
// make 900 series. What is no status code becomes 0.
func foldCode(code int) uint32 {
	if code < 100 || code > 599 {
		return 0
	}
	if code == 499 || http.StatusText(code) != "" {
		return uint32(code)
	}
	return uint32(code / 100) // #nosec G115 -- 1 to 5
}

// codeText returns the label value of a folded code: 404, 5xx or other.
func codeText(folded uint32) string {
	switch {
	case folded == 0:
		return "other"
	case folded < 10:
		return strconv.Itoa(int(folded)) + "xx"
	}
	return strconv.Itoa(int(folded))
}
