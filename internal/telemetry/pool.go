package telemetry

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead-io/fairlead/internal/route"
)

// PoolLabels names a pool and a route that sends requests to it.
type PoolLabels struct {
	RouteNamespace, RouteName string
	Key                       route.PoolKey
}

func (l PoolLabels) clean() PoolLabels {
	return PoolLabels{clean(l.RouteNamespace), clean(l.RouteName), cleanKey(l.Key)}
}

func cleanKey(k route.PoolKey) route.PoolKey {
	k.Namespace, k.Service = clean(k.Namespace), clean(k.Service)
	if k.Kind != "" { // which must not be counted with the Service of its name
		k.Kind, k.Service = "", clean(k.Kind+"/"+k.Service)
	}
	k.Variant = "" // variants are counted together, for they have the same labels
	return k
}

// serviceKey names a Service.
type serviceKey struct{ namespace, name string }

func serviceOf(k route.PoolKey) serviceKey { return serviceKey{k.Namespace, k.Service} }

// PoolMetrics counts what one route sends to one pool. A nil *PoolMetrics counts nothing. Safe for concurrent use.
type PoolMetrics struct {
	m       *Metrics
	labels  PoolLabels
	key     *keyMetrics
	service *serviceMetrics
	counters
}

// Pool returns the metrics of the pool key as the route uses it: the same each time until Keep drops it. It takes a lock; callers keep the result.
func (m *Metrics) Pool(routeNamespace, routeName string, key route.PoolKey) *PoolMetrics {
	if m == nil {
		return nil
	}
	l := PoolLabels{routeNamespace, routeName, key}.clean()
	m.mu.Lock()
	defer m.mu.Unlock()
	k, s := m.keyMetrics(l.Key), m.serviceMetrics(serviceOf(l.Key))
	return m.pools.get(l, func() *PoolMetrics {
		p := &PoolMetrics{m: m, labels: l, key: k, service: s}
		p.create = func(code uint32) prometheus.Counter { return m.backendRequests.WithLabelValues(p.values(code)...) }
		return p
	})
}

// Done counts one response of the backend. ttfb is the time from sending the request to the head of the response.
func (p *PoolMetrics) Done(code int, ttfb time.Duration) {
	if p == nil {
		return
	}
	if c := p.get(foldCode(code)); c != nil {
		c.Inc()
	}
	if o, ok := p.service.duration.get(); ok {
		o.Observe(ttfb.Seconds())
	}
}

// Error counts one request that got no valid response from the backend, and why.
func (p *PoolMetrics) Error(r route.Reason) {
	if p == nil {
		return
	}
	if c := p.key.errors.get(reasonIndex(r)); c != nil {
		c.Inc()
	}
}

// Retried counts n requests that were sent again. n below 1 counts nothing.
func (p *PoolMetrics) Retried(n int) {
	if p == nil || n < 1 {
		return
	}
	p.key.retries.Add(float64(n))
}

// Spilled counts a request that went to an endpoint far away, although the pool prefers near ones.
func (p *PoolMetrics) Spilled() {
	if p != nil {
		p.key.spilled.Inc()
	}
}

func (p *PoolMetrics) values(code uint32) []string {
	l := p.labels
	return []string{l.RouteNamespace, l.RouteName, l.Key.Namespace, l.Key.Service, portText(l.Key), codeText(code)}
}

// drop implements holder.
func (p *PoolMetrics) drop() {
	p.counters.drop(func(code uint32) { p.m.backendRequests.DeleteLabelValues(p.values(code)...) })
}

// Connect counts an attempt to connect to an endpoint of the pool that took d.
func (m *Metrics) Connect(key route.PoolKey, d time.Duration, ok bool) {
	if m == nil {
		return
	}
	k, s := m.backend(key)
	if !ok {
		k.connectError.Inc()
		return
	}
	k.connectOK.Inc()
	if o, ok := s.connect.get(); ok {
		o.Observe(d.Seconds())
	}
}

// Ejected counts an endpoint of the pool that is left out for failing.
func (m *Metrics) Ejected(key route.PoolKey) {
	if m == nil {
		return
	}
	k, _ := m.backend(key)
	k.ejections.Inc()
}

// Endpoints says how many endpoints the pool has, and how many of them are not left out for failing.
func (m *Metrics) Endpoints(key route.PoolKey, total, healthy int) {
	if m == nil {
		return
	}
	k, _ := m.backend(key)
	k.endpoints.Set(float64(total))
	k.healthy.Set(float64(healthy))
}

// Checked counts an active check of an endpoint of the pool.
func (m *Metrics) Checked(key route.PoolKey, ok bool) {
	if m == nil {
		return
	}
	k, _ := m.backend(key)
	check := &k.checkError
	if ok {
		check = &k.checkOK
	}
	if c, ok := check.get(); ok {
		c.Inc()
	}
}

// RetryRefused counts a request that was not sent again because too many were.
func (m *Metrics) RetryRefused(key route.PoolKey) {
	if m == nil {
		return
	}
	k, _ := m.backend(key)
	if c, ok := k.refused.get(); ok {
		c.Inc()
	}
}

// Waiting says how many requests wait in each pool.
func (m *Metrics) Waiting(pools map[route.PoolKey]int) {
	if m == nil {
		return
	}
	sums := make(map[route.PoolKey]int, len(pools))
	for key, n := range pools {
		sums[cleanKey(key)] += n
	}
	for key, n := range sums {
		k, _ := m.backend(key)
		k.waiting.Set(float64(n))
	}
}

// backend returns the metrics of a pool and its Service. It takes a lock: it is for what happens to connections, not to requests.
func (m *Metrics) backend(key route.PoolKey) (*keyMetrics, *serviceMetrics) {
	key = cleanKey(key)
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.keyMetrics(key), m.serviceMetrics(serviceOf(key))
}

// keyMetrics is what is counted for a pool, whichever route uses it.
type keyMetrics struct {
	m      *Metrics
	labels [3]string
	errors counters

	retries, spilled, ejections, connectOK, connectError prometheus.Counter
	endpoints, healthy, waiting                          prometheus.Gauge
	checkOK, checkError, refused                         lazy[prometheus.Counter] // for the pools that have such
}

func (m *Metrics) keyMetrics(key route.PoolKey) *keyMetrics {
	return m.keys.get(key, func() *keyMetrics {
		l := [3]string{key.Namespace, key.Service, portText(key)}
		k := &keyMetrics{
			m: m, labels: l,
			retries:      m.backendRetries.WithLabelValues(l[:]...),
			spilled:      m.backendSpilled.WithLabelValues(l[:]...),
			ejections:    m.backendEjections.WithLabelValues(l[:]...),
			connectOK:    m.backendConnections.WithLabelValues(l[0], l[1], l[2], resultText(true)),
			connectError: m.backendConnections.WithLabelValues(l[0], l[1], l[2], resultText(false)),
			endpoints:    m.backendEndpoints.WithLabelValues(l[:]...),
			healthy:      m.backendHealthy.WithLabelValues(l[:]...),
			waiting:      m.backendWaiting.WithLabelValues(l[:]...),
		}
		checks := func(ok bool) func() prometheus.Counter {
			return func() prometheus.Counter { return m.backendChecks.WithLabelValues(l[0], l[1], l[2], resultText(ok)) }
		}
		k.checkOK.create, k.checkError.create = checks(true), checks(false)
		k.refused.create = func() prometheus.Counter { return m.backendRefused.WithLabelValues(l[:]...) }
		k.errors.create = func(reason uint32) prometheus.Counter {
			return m.backendErrors.WithLabelValues(l[0], l[1], l[2], reasonText(reason))
		}
		return k
	})
}

// drop implements holder.
func (k *keyMetrics) drop() {
	l := k.labels
	for _, v := range []interface{ DeleteLabelValues(...string) bool }{
		k.m.backendRetries, k.m.backendSpilled, k.m.backendEjections, k.m.backendEndpoints, k.m.backendHealthy, k.m.backendWaiting,
	} {
		v.DeleteLabelValues(l[:]...)
	}
	k.m.backendConnections.DeleteLabelValues(l[0], l[1], l[2], resultText(true))
	k.m.backendConnections.DeleteLabelValues(l[0], l[1], l[2], resultText(false))
	k.checkOK.drop(func() { k.m.backendChecks.DeleteLabelValues(l[0], l[1], l[2], resultText(true)) })
	k.checkError.drop(func() { k.m.backendChecks.DeleteLabelValues(l[0], l[1], l[2], resultText(false)) })
	k.refused.drop(func() { k.m.backendRefused.DeleteLabelValues(l[:]...) })
	k.errors.drop(func(reason uint32) { k.m.backendErrors.DeleteLabelValues(l[0], l[1], l[2], reasonText(reason)) })
}

// serviceMetrics is the durations of a Service, whichever port.
type serviceMetrics struct {
	m                 *Metrics
	key               serviceKey
	duration, connect lazy[prometheus.Observer]
}

func (m *Metrics) serviceMetrics(key serviceKey) *serviceMetrics {
	return m.services.get(key, func() *serviceMetrics {
		s := &serviceMetrics{m: m, key: key}
		s.duration.create = func() prometheus.Observer { return m.backendDuration.WithLabelValues(key.namespace, key.name) }
		s.connect.create = func() prometheus.Observer { return m.backendConnect.WithLabelValues(key.namespace, key.name) }
		return s
	})
}

// drop implements holder.
func (s *serviceMetrics) drop() {
	s.duration.drop(func() { s.m.backendDuration.DeleteLabelValues(s.key.namespace, s.key.name) })
	s.connect.drop(func() { s.m.backendConnect.DeleteLabelValues(s.key.namespace, s.key.name) })
}

func portText(k route.PoolKey) string {
	if k.UDP {
		return strconv.Itoa(int(k.Port)) + "/udp"
	}
	return strconv.Itoa(int(k.Port))
}

func resultText(ok bool) string {
	if ok {
		return "ok"
	}
	return "error"
}

// reasons is every reason code; a reason is counted by its index here, and any other as "other".
var reasons = [...]route.Reason{
	route.NoRoute, route.NoEndpoints, route.NoBackend, route.RouteInvalid, route.BackendConnectFailed, route.BackendReset, route.BackendProtocol,
	route.BackendTimeout, route.RequestTimeout, route.ClientClosed, route.BadRequest, route.BadBody, route.BadHost, route.BadPath,
	route.HeadersTooLarge, route.TargetTooLong, route.BodyTooLarge, route.MethodNotAllowed, route.Misdirected, route.Overloaded, route.Redirected,
	route.Preflight, route.CORSDenied, route.AuthDenied, route.AuthFailed,
	route.IdleTimeout, route.Stopping,
	route.EndpointsBusy, route.QueueFull, route.QueueTimeout, route.RetryBudget,
	route.Internal,
}

func reasonIndex(r route.Reason) uint32 {
	for i, known := range reasons {
		if known == r {
			return uint32(i) // #nosec G115 -- an index of a short array
		}
	}
	return uint32(len(reasons))
}

func reasonText(i uint32) string {
	if int(i) < len(reasons) {
		return string(reasons[i])
	}
	return "other"
}
