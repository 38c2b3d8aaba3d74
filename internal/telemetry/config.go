package telemetry

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ConfigStatus describes a configuration that was installed.
type ConfigStatus struct {
	Generation int           // grows by one with each
	Installed  time.Time     // when it began to serve
	Built      time.Duration // how long compiling took
	Objects    map[ObjectState]int
	Problems   map[string]int // by severity
}

// ObjectState is a kind of object and what became of the objects: accepted, rejected or orphan (nothing of ours refers to them).
type ObjectState struct{ Kind, State string }

// Config says which configuration is being served.
func (m *Metrics) Config(c ConfigStatus) {
	if m == nil {
		return
	}
	m.generation.Set(float64(c.Generation))
	m.lastSuccess.Set(float64(c.Installed.UnixMilli()) / 1000)
	m.buildDuration.Observe(c.Built.Seconds())
	var objects, problems sample
	for s, n := range c.Objects {
		objects.add(float64(n), s.Kind, s.State)
	}
	for severity, n := range c.Problems {
		problems.add(float64(n), severity)
	}
	m.configObjects.show(objects)
	m.configProblems.show(problems)
}

// CertificateStatus describes a certificate that is being presented to clients.
type CertificateStatus struct {
	Namespace, Secret string
	Source            string // secret
	KeyType           string // ECDSA, RSA or Ed25519
	Issuer            string // common name
	NotAfter          time.Time
}

// Certificates says which certificates are in use, all of them. A Secret that is used several times counts once.
func (m *Metrics) Certificates(list []CertificateStatus) {
	if m == nil {
		return
	}
	var notAfter, info sample
	seen := map[[3]string]bool{}
	for _, c := range list {
		k := [3]string{clean(c.Namespace), clean(c.Secret), clean(c.Source)}
		if seen[k] {
			continue
		}
		seen[k] = true
		notAfter.add(float64(c.NotAfter.Unix()), k[0], k[1], k[2])
		info.add(1, k[0], k[1], k[2], c.KeyType, c.Issuer)
	}
	m.certificateNotAfter.show(notAfter)
	m.certificateInfo.show(info)
}

// picture is a gauge whose series are replaced all at once, so that no scrape ever sees half of them.
type picture struct {
	desc    *prometheus.Desc
	showing atomic.Pointer[[]prometheus.Metric]
}

// sample is the series of a picture: label values and value.
type sample []struct {
	labels []string
	value  float64
}

func (s *sample) add(value float64, labels ...string) {
	for i := range labels {
		labels[i] = clean(labels[i])
	}
	*s = append(*s, struct {
		labels []string
		value  float64
	}{labels, value})
}

func (p *picture) show(s sample) {
	metrics := make([]prometheus.Metric, len(s))
	for i, v := range s {
		metrics[i] = prometheus.MustNewConstMetric(p.desc, prometheus.GaugeValue, v.value, v.labels...)
	}
	p.showing.Store(&metrics)
}

// Describe implements prometheus.Collector.
func (p *picture) Describe(ch chan<- *prometheus.Desc) { ch <- p.desc }

// Collect implements prometheus.Collector.
func (p *picture) Collect(ch chan<- prometheus.Metric) {
	if showing := p.showing.Load(); showing != nil {
		for _, m := range *showing {
			ch <- m
		}
	}
}
