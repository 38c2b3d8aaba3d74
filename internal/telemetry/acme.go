package telemetry

import "time"

func (m *Metrics) defineACME() {
	m.acmeAttempts = m.counter("acme_attempts_total", "Attempts to get a certificate, by issuer and by how they ended: issued or failed.", "issuer", "result")
	m.acmeOrders = m.picture("acme_orders", "Certificates on order, by what became of them: pending, issued or failed. The replica that orders them shows them.", "phase")
	m.acmeNext = m.picture("acme_next_attempt_timestamp_seconds", "When the certificate is renewed next, or tried again.", "cert_namespace", "cert_secret")
	m.acmeFailures = m.picture("acme_failures", "Attempts that failed since the last one that did not.", "cert_namespace", "cert_secret")
}

// Attempt counts an attempt to get a certificate from an issuer.
func (m *Metrics) Attempt(issuer string, issued bool) {
	if m == nil {
		return
	}
	result := "failed"
	if issued {
		result = "issued"
	}
	m.acmeAttempts.WithLabelValues(clean(issuer), result).Inc()
}

// OrderStatus is how a certificate on order stands.
type OrderStatus struct {
	Namespace, Secret string
	Phase             string
	Next              time.Time
	Failures          int // in a row
}

// Orders says how all certificates on order stand.
func (m *Metrics) Orders(list []OrderStatus) {
	if m == nil {
		return
	}
	var orders, next, failures sample
	phases := map[string]int{}
	for _, o := range list {
		phases[o.Phase]++
		next.add(float64(o.Next.Unix()), o.Namespace, o.Secret)
		failures.add(float64(o.Failures), o.Namespace, o.Secret)
	}
	for phase, n := range phases {
		orders.add(float64(n), phase)
	}
	m.acmeOrders.show(orders)
	m.acmeNext.show(next)
	m.acmeFailures.show(failures)
}

// BeforeScrape has f called before each scrape, after those that it was given before, to bring up to date what nobody tells of by itself. Call it before the first scrape.
func (m *Metrics) BeforeScrape(f func()) {
	if m != nil {
		m.before = append(m.before, f)
	}
}
