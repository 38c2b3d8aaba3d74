package telemetry

import (
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"

	"github.com/fairlead-io/fairlead/internal/route"
)

// namespace is the prefix of every metric of Fairlead's own.
const namespace = "fairlead"

// Label sets that several metrics share.
var (
	routeLabelNames   = []string{"route_kind", "route_namespace", "route_name"}
	serviceLabelNames = []string{"backend_namespace", "backend_service"}
	poolLabelNames    = []string{"backend_namespace", "backend_service", "backend_port"}
)

// Metrics is every metric of one process, in a registry of its own. Make one with NewMetrics; a nil *Metrics counts nothing. Safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry
	defs     []definition

	requests      *prometheus.CounterVec
	duration      *prometheus.HistogramVec
	requestBytes  *prometheus.CounterVec
	responseBytes *prometheus.CounterVec
	unmatched     *prometheus.CounterVec
	mirrored      *prometheus.CounterVec
	passages      *prometheus.CounterVec
	passageBytes  *prometheus.CounterVec
	answered      *prometheus.CounterVec

	backendRequests    *prometheus.CounterVec
	backendDuration    *prometheus.HistogramVec
	backendConnect     *prometheus.HistogramVec
	backendConnections *prometheus.CounterVec
	backendRetries     *prometheus.CounterVec
	backendSpilled     *prometheus.CounterVec
	backendErrors      *prometheus.CounterVec
	backendEjections   *prometheus.CounterVec
	backendEndpoints   *prometheus.GaugeVec
	backendHealthy     *prometheus.GaugeVec
	backendChecks      *prometheus.CounterVec
	backendRefused     *prometheus.CounterVec
	backendWaiting     *prometheus.GaugeVec

	inFlight         *prometheus.GaugeVec
	connections      *prometheus.GaugeVec
	connectionsTotal *prometheus.CounterVec
	handshakes       *prometheus.CounterVec

	generation      prometheus.Gauge
	lastSuccess     prometheus.Gauge
	buildDuration   prometheus.Histogram
	installDuration prometheus.Histogram
	configObjects   *picture
	configProblems  *picture

	watchEvents   *prometheus.CounterVec
	watchErrors   *prometheus.CounterVec
	watchSynced   prometheus.Gauge
	statusUpdates *prometheus.CounterVec
	statusEvents  *prometheus.CounterVec
	statusWaiting prometheus.Gauge
	serviceWrites *prometheus.CounterVec
	leader        prometheus.Gauge

	certificateNotAfter *picture
	certificateInfo     *picture

	acmeAttempts *prometheus.CounterVec
	acmeOrders   *picture
	acmeNext     *picture
	acmeFailures *picture

	logDropped prometheus.Counter
	logErrors  prometheus.Counter

	before    []func() // called before each scrape
	mu        sync.Mutex
	scrapes   uint64 // started so far
	rules     family[RuleLabels, *RuleMetrics]
	routes    family[routeKey, *routeMetrics]
	pools     family[PoolLabels, *PoolMetrics]
	keys      family[route.PoolKey, *keyMetrics]
	services  family[serviceKey, *serviceMetrics]
	listeners family[string, *ListenerMetrics]
	byName    listenerIndex
}

// NewMetrics returns the metrics of a process of the given version. Every metric is named in this function and nowhere else.
func NewMetrics(version string) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.defineRequests()
	m.defineBackends()
	m.defineListeners()
	m.defineConfig()
	m.defineCluster()
	m.defineACME()

	m.logDropped = m.counter("access_log_dropped_total", "Access log entries thrown away because the log could not be written fast enough.").WithLabelValues()
	m.logErrors = m.counter("access_log_errors_total", "Writes of the access log that failed.").WithLabelValues()
	m.gauge("build_info", "Always 1; the labels say which Fairlead this is.", "version", "revision", "goversion").
		WithLabelValues(clean(version), clean(revision()), runtime.Version()).Set(1)

	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *Metrics) defineRequests() {
	m.requests = m.counter("requests_total", "Requests answered, by the route that won them.",
		"listener", "route_kind", "route_namespace", "route_name", "code", "method", "protocol")
	m.duration = m.histogram("request_duration_seconds", "Time from the head of a request to the last byte of its response.",
		"listener", "route_kind", "route_namespace", "route_name")
	m.requestBytes = m.counter("request_bytes_total", "Bytes of request bodies read from clients.", routeLabelNames...)
	m.responseBytes = m.counter("response_bytes_total", "Bytes of response bodies written to clients.", routeLabelNames...)
	m.answered = m.counter("answered_requests_total", "Requests of a route that Fairlead answered itself, in place of a backend, by reason code.",
		slices.Concat(routeLabelNames, []string{"reason"})...)
	m.mirrored = m.counter("mirrored_requests_total", "Copies of requests that were made for RequestMirror filters, by what became of them.", "result")
	m.passages = m.counter("passages_total", "Connections and flows of datagrams that a route got as a whole and that have ended; the reason is none when that was as the ends wanted it.",
		"listener", "route_kind", "route_namespace", "route_name", "reason")
	m.passageBytes = m.counter("passage_bytes_total", "Bytes of these, from clients (in) and to them (out).", slices.Concat(routeLabelNames, []string{"direction"})...)
	m.unmatched = m.counter("unmatched_requests_total", "Requests and connections that no route got, by the reason code.", "listener", "reason")
}

func (m *Metrics) defineBackends() {
	m.backendRequests = m.counter("backend_requests_total", "Responses from backends, by the route that sent the request and the Service that answered.",
		"route_namespace", "route_name", "backend_namespace", "backend_service", "backend_port", "code")
	m.backendDuration = m.histogram("backend_duration_seconds", "Time from sending a request to a backend to the head of its response.", serviceLabelNames...)
	m.backendConnect = m.histogram("backend_connect_duration_seconds", "Time that a successful connection to a backend took, TLS included.", serviceLabelNames...)
	m.backendConnections = m.counter("backend_connections_total", "Connections to backends that were attempted.",
		slices.Concat(poolLabelNames, []string{"result"})...)
	m.backendRetries = m.counter("backend_retries_total", "Requests that were sent again, to another endpoint.", poolLabelNames...)
	m.backendSpilled = m.counter("backend_spilled_total", "Requests that went to an endpoint far away, because too few of those that are preferred for being near were left.", poolLabelNames...)
	m.backendErrors = m.counter("backend_errors_total", "Requests for which the backend gave no valid response, by reason code.",
		slices.Concat(poolLabelNames, []string{"reason"})...)
	m.backendEjections = m.counter("backend_ejections_total", "Times that an endpoint was left out because it failed.", poolLabelNames...)
	m.backendEndpoints = m.gauge("backend_endpoints", "Endpoints of the backend.", poolLabelNames...)
	m.backendHealthy = m.gauge("backend_healthy_endpoints", "Endpoints of the backend that are not left out for failing.", poolLabelNames...)
	m.backendChecks = m.counter("backend_checks_total", "Active checks of the endpoints of the backend.", slices.Concat(poolLabelNames, []string{"result"})...)
	m.backendRefused = m.counter("backend_retries_refused_total", "Requests that were not sent again, because the retry budget of the backend was spent.", poolLabelNames...)
	m.backendWaiting = m.gauge("backend_waiting_requests", "Requests that wait until an endpoint of the backend has room for them, or until there is one.", poolLabelNames...)
}

func (m *Metrics) defineListeners() {
	m.inFlight = m.gauge("requests_in_flight", "Requests being served.", "listener")
	m.connections = m.gauge("connections", "Open connections from clients; those that were upgraded (WebSocket and the like) or are passed on as a whole are counted apart, and so are flows of datagrams.", "listener", "state")
	m.connectionsTotal = m.counter("connections_total", "Connections accepted from clients.", "listener")
	m.handshakes = m.counter("tls_handshakes_total", "TLS handshakes with clients.", "listener", "version", "result", "resumed")
}

func (m *Metrics) defineConfig() {
	m.generation = m.gauge("config_generation", "Number of the configuration being served; grows by one with each.").WithLabelValues()
	m.lastSuccess = m.gauge("config_last_success_timestamp_seconds", "When the configuration being served was installed.").WithLabelValues()
	buckets := []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5}
	m.buildDuration = m.histogramOf(prometheus.HistogramOpts{
		Name: "config_build_duration_seconds", Help: "Time to compile the configuration.", Buckets: buckets,
	}).WithLabelValues().(prometheus.Histogram)
	m.installDuration = m.histogramOf(prometheus.HistogramOpts{
		Name: "config_install_duration_seconds", Help: "Time from a compiled configuration to when it is served.", Buckets: buckets,
	}).WithLabelValues().(prometheus.Histogram)
	m.configObjects = m.picture("config_objects", "Objects that were read, by kind and by what became of them.", "kind", "state")
	m.configProblems = m.picture("config_problems", "Problems in the objects that were read.", "severity")
	m.certificateNotAfter = m.picture("certificate_not_after_timestamp_seconds", "When the certificate expires.", "cert_namespace", "cert_secret", "source")
	m.certificateInfo = m.picture("certificate_info", "Always 1; the labels describe the certificate.",
		"cert_namespace", "cert_secret", "source", "key_type", "issuer")
}

// definition is one metric as users see it.
type definition struct {
	name, kind, help string
	labels           []string
}

func (m *Metrics) define(kind, name, help string, labels []string) {
	m.defs = append(m.defs, definition{name: namespace + "_" + name, kind: kind, help: help, labels: labels})
}

func (m *Metrics) counter(name, help string, labels ...string) *prometheus.CounterVec {
	m.define("counter", name, help, labels)
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	m.registry.MustRegister(v)
	return v
}

func (m *Metrics) gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	m.define("gauge", name, help, labels)
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, labels)
	m.registry.MustRegister(v)
	return v
}

// histogram defines a histogram of seconds between 5 ms and 10 s.
func (m *Metrics) histogram(name, help string, labels ...string) *prometheus.HistogramVec {
	return m.histogramOf(prometheus.HistogramOpts{Name: name, Help: help, Buckets: prometheus.DefBuckets}, labels...)
}

// histogramOf defines a histogram with the buckets of opt beside native ones, which scrapers that know them get in their place. The number of native
// buckets is bounded: a histogram that would need more loses resolution.
func (m *Metrics) histogramOf(opt prometheus.HistogramOpts, labels ...string) *prometheus.HistogramVec {
	m.define("histogram", opt.Name, opt.Help, labels)
	opt.Namespace = namespace
	opt.NativeHistogramBucketFactor = 1.1
	opt.NativeHistogramMaxBucketNumber = 100
	opt.NativeHistogramMinResetDuration = time.Hour
	v := prometheus.NewHistogramVec(opt, labels)
	m.registry.MustRegister(v)
	return v
}

func (m *Metrics) picture(name, help string, labels ...string) *picture {
	m.define("gauge", name, help, labels)
	p := &picture{desc: prometheus.NewDesc(namespace+"_"+name, help, labels, nil)}
	m.registry.MustRegister(p)
	return p
}

// Gatherer returns what /metrics shows. Each Gather counts as a scrape: series that Keep gave up disappear after they were seen once more.
// The Gatherer of a nil *Metrics gathers nothing.
func (m *Metrics) Gatherer() prometheus.Gatherer {
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		if m == nil {
			return nil, nil
		}
		for _, f := range m.before {
			f()
		}
		n := m.startScrape()
		families, err := m.registry.Gather()
		m.sweep(n)
		return families, err
	})
}

// revision returns the commit that the program was built from, or unknown.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return "unknown"
}
