package telemetry

import (
	"crypto/tls"
	"maps"
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead-io/fairlead/internal/route"
)

// ListenerMetrics counts the connections and requests of one listening socket, or the unmatched requests of one listener. A nil *ListenerMetrics counts
// nothing. Safe for concurrent use.
type ListenerMetrics struct {
	m          *Metrics
	name       string
	handshakes counters
	unmatched  counters
	sock       lazy[socket]
	flows      lazy[prometheus.Gauge]
}

// socket is the series of a listener that accepts connections.
type socket struct {
	inFlight, open, upgraded, passing prometheus.Gauge
	total                             prometheus.Counter
}

// The values of the label state of connections.
const (
	stateHTTP     = "http"
	stateUpgraded = "upgraded"
	statePassing  = "passing"
	stateFlow     = "flow"
)

// listenerIndex finds the metrics of a listener by name, without a lock.
type listenerIndex struct {
	atomic.Pointer[map[string]*ListenerMetrics]
}

func (i *listenerIndex) set(held map[string]*ListenerMetrics) {
	index := maps.Clone(held)
	i.Store(&index)
}

func (i *listenerIndex) find(name string) *ListenerMetrics {
	if index := i.Load(); index != nil {
		return (*index)[name]
	}
	return nil
}

// Listener returns the metrics of a listener: the same each time until Keep drops it. For connections the name is the bind's text, such as ":8080".
func (m *Metrics) Listener(name string) *ListenerMetrics {
	if m == nil {
		return nil
	}
	name = clean(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	known := len(m.listeners.held)
	l := m.listeners.get(name, func() *ListenerMetrics { return m.newListener(name) })
	if len(m.listeners.held) != known {
		m.byName.set(m.listeners.held)
	}
	return l
}

func (m *Metrics) newListener(name string) *ListenerMetrics {
	l := &ListenerMetrics{m: m, name: name}
	l.handshakes.create = func(key uint32) prometheus.Counter { return m.handshakes.WithLabelValues(l.handshakeValues(key)...) }
	l.unmatched.create = func(reason uint32) prometheus.Counter { return m.unmatched.WithLabelValues(name, reasonText(reason)) }
	l.flows.create = func() prometheus.Gauge { return m.connections.WithLabelValues(name, stateFlow) }
	l.sock.create = func() socket {
		return socket{
			inFlight: m.inFlight.WithLabelValues(name),
			open:     m.connections.WithLabelValues(name, stateHTTP),
			upgraded: m.connections.WithLabelValues(name, stateUpgraded),
			passing:  m.connections.WithLabelValues(name, statePassing),
			total:    m.connectionsTotal.WithLabelValues(name),
		}
	}
	return l
}

// Opened counts a connection that was accepted.
func (l *ListenerMetrics) Opened() {
	if s, ok := l.socket(); ok {
		s.open.Inc()
		s.total.Inc()
	}
}

// Closed counts the end of a connection that Opened counted.
func (l *ListenerMetrics) Closed() {
	if s, ok := l.socket(); ok {
		s.open.Dec()
	}
}

// Upgraded moves delta open connections to the upgraded ones: 1 when one is upgraded, -1 when that is over, before Closed.
func (l *ListenerMetrics) Upgraded(delta int) {
	if s, ok := l.socket(); ok {
		s.open.Sub(float64(delta))
		s.upgraded.Add(float64(delta))
	}
}

// Passing moves delta open connections to those that are passed on as a whole: 1 when one is, -1 when that is over, before Closed.
func (l *ListenerMetrics) Passing(delta int) {
	if s, ok := l.socket(); ok {
		s.open.Sub(float64(delta))
		s.passing.Add(float64(delta))
	}
}

// Flow adds delta to the flows of datagrams.
func (l *ListenerMetrics) Flow(delta int) {
	if l == nil {
		return
	}
	if g, ok := l.flows.get(); ok {
		g.Add(float64(delta))
	}
}

// InFlight adds delta to the number of requests being served.
func (l *ListenerMetrics) InFlight(delta int) {
	if s, ok := l.socket(); ok {
		s.inFlight.Add(float64(delta))
	}
}

// Handshake counts a TLS handshake. version is a tls.VersionTLS constant, 0 if the handshake failed before one was agreed.
func (l *ListenerMetrics) Handshake(version uint16, ok, resumed bool) {
	if l == nil {
		return
	}
	if c := l.handshakes.get(handshakeKey(version, ok, resumed)); c != nil {
		c.Inc()
	}
}

// Unmatched counts a request that no route got, and why.
func (l *ListenerMetrics) Unmatched(r route.Reason) {
	if l == nil {
		return
	}
	if c := l.unmatched.get(reasonIndex(r)); c != nil {
		c.Inc()
	}
}

// Unmatched counts a request on the listener that no route got, and why.
func (m *Metrics) Unmatched(listener string, r route.Reason) {
	if m == nil {
		return
	}
	l := m.byName.find(listener)
	if l == nil {
		l = m.Listener(listener)
	}
	l.Unmatched(r)
}

func (l *ListenerMetrics) socket() (socket, bool) {
	if l == nil {
		return socket{}, false
	}
	return l.sock.get()
}

// handshakeKey packs the labels of a handshake: the version from bit 2, then ok, then resumed.
func handshakeKey(version uint16, ok, resumed bool) uint32 {
	var key uint32
	if version == tls.VersionTLS12 || version == tls.VersionTLS13 {
		key = uint32(version) << 2
	}
	if ok {
		key |= 2
	}
	if resumed {
		key |= 1
	}
	return key
}

func (l *ListenerMetrics) handshakeValues(key uint32) []string {
	version := tlsVersionText(uint16(key >> 2)) // #nosec G115 -- was a uint16
	if version == "" {
		version = "none"
	}
	return []string{l.name, version, resultText(key&2 != 0), strconv.FormatBool(key&1 != 0)}
}

// drop implements holder.
func (l *ListenerMetrics) drop() {
	l.handshakes.drop(func(key uint32) { l.m.handshakes.DeleteLabelValues(l.handshakeValues(key)...) })
	l.unmatched.drop(func(reason uint32) { l.m.unmatched.DeleteLabelValues(l.name, reasonText(reason)) })
	l.flows.drop(func() { l.m.connections.DeleteLabelValues(l.name, stateFlow) })
	l.sock.drop(func() {
		l.m.inFlight.DeleteLabelValues(l.name)
		l.m.connections.DeleteLabelValues(l.name, stateHTTP)
		l.m.connections.DeleteLabelValues(l.name, stateUpgraded)
		l.m.connections.DeleteLabelValues(l.name, statePassing)
		l.m.connectionsTotal.DeleteLabelValues(l.name)
	})
}

// tlsVersionText returns 1.2 or 1.3, and the empty string for any other version: Fairlead speaks no other.
func tlsVersionText(v uint16) string {
	switch v {
	case tls.VersionTLS12:
		return "1.2"
	case tls.VersionTLS13:
		return "1.3"
	}
	return ""
}
