package telemetry

import (
	"crypto/tls"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"github.com/fairlead-io/fairlead/internal/route"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var (
	shop    = RuleLabels{Listener: "infra/gw/http", Kind: "HTTPRoute", Namespace: "shop", Name: "web"}
	webPool = route.PoolKey{Namespace: "shop", Service: "web", Port: 80}
)

// exercise makes every metric have at least one series.
func exercise(m *Metrics) {
	m.Installed(time.Millisecond)
	m.Watched("ingresses", "add")
	m.WatchFailed("ingresses")
	m.WatchSynced()
	m.StatusWritten("Ingress", "written")
	m.Announced("known")
	m.StatusWaiting(2)
	m.ServiceWritten("create", "done")
	m.Leading(true)
	m.Rule(shop).Done(200, "GET", "HTTP/2.0", time.Millisecond, 10, 20)
	m.Rule(shop).Answered(route.RouteInvalid)
	p := m.Pool("shop", "web", webPool)
	p.Done(200, time.Millisecond)
	p.Error(route.BackendReset)
	p.Retried(1)
	p.Spilled()
	m.Connect(webPool, time.Millisecond, true)
	m.Connect(webPool, time.Millisecond, false)
	m.Ejected(webPool)
	m.Endpoints(webPool, 3, 2)
	m.Checked(webPool, true)
	m.Checked(webPool, false)
	m.Checked(webPool, false)
	m.RetryRefused(webPool)
	variant := webPool
	variant.Variant = "infra/gw"
	m.Waiting(map[route.PoolKey]int{webPool: 3, variant: 2})
	l := m.Listener(":8080")
	l.Opened()
	l.Handshake(tls.VersionTLS13, true, false)
	l.InFlight(1)
	m.Unmatched(":8080", route.NoRoute)
	m.Mirrored(MirrorSent)
	m.Config(ConfigStatus{
		Generation: 7, Installed: time.Unix(1700000000, 0), Built: time.Millisecond,
		Objects: map[ObjectState]int{{"HTTPRoute", "accepted"}: 3}, Problems: map[string]int{"error": 1},
	})
	m.Certificates([]CertificateStatus{{
		Namespace: "shop", Secret: "tls", Source: "secret", KeyType: "ECDSA", Issuer: "Test CA", NotAfter: time.Unix(1800000000, 0),
	}})
	db := m.Rule(RuleLabels{"infra/gw/db", "TCPRoute", "shop", "db"})
	db.Passed("", 3, 4)
	db.Passed(route.NoBackend, 0, 0)
	m.Attempt("staging", true)
	m.BeforeScrape(func() {
		m.Orders([]OrderStatus{{Namespace: "shop", Secret: "tls", Phase: "failed", Next: time.Unix(1700000060, 0), Failures: 2}})
	})
}

// gather returns all series of Fairlead's own by name and labels, such as fairlead_x_total{a="b"}, with their values. A histogram's value is its count.
func gather(t testing.TB, m *Metrics) map[string]float64 {
	t.Helper()
	families, err := m.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), namespace+"_") {
			continue
		}
		for _, s := range f.GetMetric() {
			out[f.GetName()+labelText(s)] = valueOf(s)
		}
	}
	return out
}

func labelText(s *dto.Metric) string {
	var pairs []string
	for _, l := range s.GetLabel() {
		pairs = append(pairs, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
	}
	return "{" + strings.Join(pairs, ",") + "}"
}

func valueOf(s *dto.Metric) float64 {
	switch {
	case s.Counter != nil:
		return s.Counter.GetValue()
	case s.Gauge != nil:
		return s.Gauge.GetValue()
	}
	return float64(s.Histogram.GetSampleCount())
}

// named keeps the series of one metric.
func named(series map[string]float64, name string) map[string]float64 {
	out := map[string]float64{}
	for k, v := range series {
		if strings.HasPrefix(k, name+"{") {
			out[strings.TrimPrefix(k, name)] = v
		}
	}
	return out
}

func TestEveryMetricIsListed(t *testing.T) {
	m := NewMetrics("1.2.3")
	exercise(m)
	var b strings.Builder
	var defined []string
	for _, d := range slices.SortedFunc(slices.Values(m.defs), func(a, b definition) int { return strings.Compare(a.name, b.name) }) {
		defined = append(defined, d.name)
		labels := slices.Sorted(slices.Values(d.labels))
		fmt.Fprintf(&b, "%s (%s", d.name, d.kind)
		if len(labels) > 0 {
			fmt.Fprintf(&b, "; %s", strings.Join(labels, ", "))
		}
		fmt.Fprintf(&b, ")\n    %s\n", d.help)
	}
	const golden = "testdata/metrics.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("metrics differ from %s (-want +got), run with -update:\n%s", golden, diff)
	}

	seen := map[string]bool{}
	for k := range gather(t, m) {
		name, _, _ := strings.Cut(k, "{")
		seen[name] = true
	}
	for _, name := range defined {
		if !seen[name] {
			t.Errorf("%s is defined and never has a series", name)
		}
		delete(seen, name)
	}
	for name := range seen {
		t.Errorf("%s has series and is not defined", name)
	}
}

func TestMetricNamesFollowPrometheusRules(t *testing.T) {
	m := NewMetrics("1.2.3")
	exercise(m)
	families, err := m.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	got := map[string]bool{}
	for _, f := range families {
		got[f.GetName()] = true
	}
	for _, name := range []string{"go_goroutines", "process_open_fds", "fairlead_build_info"} {
		if !got[name] {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestValues(t *testing.T) {
	m := NewMetrics("1.2.3")
	exercise(m)
	m.Listener(":8080").Upgraded(1)
	got := gather(t, m)
	for k := range got {
		if strings.HasPrefix(k, "fairlead_build_info") {
			delete(got, k)
		}
	}
	pool := `backend_namespace="shop",backend_port="80",backend_service="web"`
	routes := `route_kind="HTTPRoute",route_name="web",route_namespace="shop"`
	want := map[string]float64{
		`fairlead_requests_total{code="200",listener="infra/gw/http",method="GET",protocol="HTTP/2",` + routes + `}`:              1,
		`fairlead_request_duration_seconds{listener="infra/gw/http",` + routes + `}`:                                              1,
		`fairlead_request_bytes_total{` + routes + `}`:                                                                            10,
		`fairlead_response_bytes_total{` + routes + `}`:                                                                           20,
		`fairlead_unmatched_requests_total{listener=":8080",reason="no-route"}`:                                                   1,
		`fairlead_backend_requests_total{` + pool + `,code="200",route_name="web",route_namespace="shop"}`:                        1,
		`fairlead_backend_duration_seconds{backend_namespace="shop",backend_service="web"}`:                                       1,
		`fairlead_backend_connect_duration_seconds{backend_namespace="shop",backend_service="web"}`:                               1,
		`fairlead_backend_connections_total{` + pool + `,result="ok"}`:                                                            1,
		`fairlead_backend_connections_total{` + pool + `,result="error"}`:                                                         1,
		`fairlead_backend_retries_total{` + pool + `}`:                                                                            1,
		`fairlead_backend_spilled_total{` + pool + `}`:                                                                            1,
		`fairlead_backend_errors_total{` + pool + `,reason="backend-reset"}`:                                                      1,
		`fairlead_backend_ejections_total{` + pool + `}`:                                                                          1,
		`fairlead_backend_endpoints{` + pool + `}`:                                                                                3,
		`fairlead_backend_healthy_endpoints{` + pool + `}`:                                                                        2,
		`fairlead_backend_checks_total{` + pool + `,result="ok"}`:                                                                 1,
		`fairlead_backend_checks_total{` + pool + `,result="error"}`:                                                              2,
		`fairlead_backend_retries_refused_total{` + pool + `}`:                                                                    1,
		`fairlead_backend_waiting_requests{` + pool + `}`:                                                                         5,
		`fairlead_connections{listener=":8080",state="http"}`:                                                                     0,
		`fairlead_connections{listener=":8080",state="upgraded"}`:                                                                 1,
		`fairlead_connections_total{listener=":8080"}`:                                                                            1,
		`fairlead_requests_in_flight{listener=":8080"}`:                                                                           1,
		`fairlead_tls_handshakes_total{listener=":8080",result="ok",resumed="false",version="1.3"}`:                               1,
		`fairlead_config_generation{}`:                                                                                            7,
		`fairlead_config_last_success_timestamp_seconds{}`:                                                                        1700000000,
		`fairlead_config_build_duration_seconds{}`:                                                                                1,
		`fairlead_config_objects{kind="HTTPRoute",state="accepted"}`:                                                              3,
		`fairlead_config_problems{severity="error"}`:                                                                              1,
		`fairlead_certificate_not_after_timestamp_seconds{cert_namespace="shop",cert_secret="tls",source="secret"}`:               1800000000,
		`fairlead_certificate_info{cert_namespace="shop",cert_secret="tls",issuer="Test CA",key_type="ECDSA",source="secret"}`:    1,
		`fairlead_access_log_dropped_total{}`:                                                                                     0,
		`fairlead_answered_requests_total{reason="route-invalid",route_kind="HTTPRoute",route_name="web",route_namespace="shop"}`: 1,
		`fairlead_access_log_errors_total{}`:                                                                                      0,
		`fairlead_config_install_duration_seconds{}`:                                                                              1,
		`fairlead_watch_events_total{event="add",kind="ingresses"}`:                                                               1,
		`fairlead_watch_errors_total{kind="ingresses"}`:                                                                           1,
		`fairlead_watch_synced{}`:                                                                                                 1,
		`fairlead_status_updates_total{kind="Ingress",result="written"}`:                                                          1,
		`fairlead_status_events_total{result="known"}`:                                                                            1,
		`fairlead_status_waiting_objects{}`:                                                                                       2,
		`fairlead_gateway_service_writes_total{result="done",verb="create"}`:                                                      1,
		`fairlead_mirrored_requests_total{result="sent"}`:                                                                         1,
		`fairlead_leader{}`: 1,
		`fairlead_acme_attempts_total{issuer="staging",result="issued"}`:                        1,
		`fairlead_acme_failures{cert_namespace="shop",cert_secret="tls"}`:                       2,
		`fairlead_acme_next_attempt_timestamp_seconds{cert_namespace="shop",cert_secret="tls"}`: 1700000060,
		`fairlead_acme_orders{phase="failed"}`:                                                  1,
	}
	db := `route_kind="TCPRoute",route_name="db",route_namespace="shop"`
	want[`fairlead_connections{listener=":8080",state="passing"}`] = 0
	want[`fairlead_passages_total{listener="infra/gw/db",reason="none",`+db+`}`] = 1
	want[`fairlead_passages_total{listener="infra/gw/db",reason="no-backend",`+db+`}`] = 1
	want[`fairlead_passage_bytes_total{direction="in",`+db+`}`] = 3
	want[`fairlead_passage_bytes_total{direction="out",`+db+`}`] = 4
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("series differ (-want +got):\n%s", diff)
	}
}

func TestLabelsOfRequestsAreFolded(t *testing.T) {
	tests := []struct {
		name               string
		code               int
		method, proto      string
		wantCode, wantMeth string
		wantProto          string
	}{
		{"usual", 200, "GET", "HTTP/1.1", "200", "GET", "HTTP/1.1"},
		{"http2", 404, "POST", "HTTP/2.0", "404", "POST", "HTTP/2"},
		{"http3", 404, "TRACE", "HTTP/3.0", "404", "TRACE", "HTTP/3"},
		{"http1.0", 301, "HEAD", "HTTP/1.0", "301", "HEAD", "HTTP/1.0"},
		{"client left", 499, "PATCH", "HTTP/1.1", "499", "PATCH", "HTTP/1.1"},
		{"unregistered code", 299, "PUT", "HTTP/1.1", "2xx", "PUT", "HTTP/1.1"},
		{"unregistered server error", 520, "DELETE", "HTTP/1.1", "5xx", "DELETE", "HTTP/1.1"},
		{"code out of range", 999, "OPTIONS", "HTTP/1.1", "other", "OPTIONS", "HTTP/1.1"},
		{"no code", 0, "CONNECT", "HTTP/1.1", "other", "CONNECT", "HTTP/1.1"},
		{"negative code", -1, "GET", "HTTP/1.1", "other", "GET", "HTTP/1.1"},
		{"invented method", 200, "BREW", "HTTP/1.1", "200", "OTHER", "HTTP/1.1"},
		{"lower case is another method", 200, "get", "HTTP/1.1", "200", "OTHER", "HTTP/1.1"},
		{"the fold's own name", 200, "OTHER", "OTHER", "200", "OTHER", "OTHER"},
		{"invented protocol", 200, "GET", "SPDY/3", "200", "GET", "OTHER"},
		{"nothing", 200, "", "", "200", "OTHER", "OTHER"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := NewMetrics("")
			m.Rule(shop).Done(tt.code, tt.method, tt.proto, 0, -1, -1)
			want := map[string]float64{fmt.Sprintf(`{code=%q,listener="infra/gw/http",method=%q,protocol=%q,route_kind="HTTPRoute",route_name="web",route_namespace="shop"}`,
				tt.wantCode, tt.wantMeth, tt.wantProto): 1}
			if diff := cmp.Diff(want, named(gather(t, m), "fairlead_requests_total")); diff != "" {
				t.Errorf("series differ (-want +got):\n%s", diff)
			}
		})
	}
}

// No client and no backend can make more series than the product of the fixed sets.
func TestSeriesAreBounded(t *testing.T) {
	m := NewMetrics("")
	r, p := m.Rule(shop), m.Pool("shop", "web", webPool)
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		code := rnd.IntN(1200) - 100
		r.Done(code, string(rune('A'+rnd.IntN(26))), fmt.Sprintf("HTTP/%d.%d", rnd.IntN(9), rnd.IntN(9)), time.Second, 1, 1)
		p.Done(code, time.Second)
		p.Error(route.Reason(fmt.Sprint("reason-", rnd.IntN(1000))))
		m.Unmatched(":80", route.Reason(fmt.Sprint("reason-", rnd.IntN(1000))))
		m.Listener(":80").Handshake(uint16(rnd.IntN(1<<16)), rnd.IntN(2) == 0, rnd.IntN(2) == 0)
	}
	got := gather(t, m)
	for _, tt := range []struct {
		name string
		most int
	}{
		{"fairlead_requests_total", 72 * len(protocols)}, // one method, OTHER
		{"fairlead_backend_requests_total", 72},
		{"fairlead_backend_errors_total", 1},
		{"fairlead_unmatched_requests_total", 1},
		{"fairlead_tls_handshakes_total", 3 * 4},
	} {
		if n := len(named(got, tt.name)); n == 0 || n > tt.most {
			t.Errorf("%s has %d series, want 1 to %d", tt.name, n, tt.most)
		}
	}
}

func TestEveryReasonHasItsOwnLabel(t *testing.T) {
	for i, r := range reasons {
		if got := reasonText(reasonIndex(r)); got != string(r) || reasonIndex(r) != uint32(i) {
			t.Errorf("reason %s is counted as %s", r, got)
		}
	}
	if got := reasonText(reasonIndex("something else")); got != "other" {
		t.Errorf("an unknown reason is counted as %s, want other", got)
	}
}

// Beside the classic buckets there are native ones, and however widely durations differ there are not many of them.
func TestNativeHistogramsAreBounded(t *testing.T) {
	m := NewMetrics("")
	r := m.Rule(shop)
	for d := time.Nanosecond; d < time.Hour; d += d/20 + 1 {
		r.Done(200, "GET", "HTTP/1.1", d, 0, 0)
	}
	families, err := m.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "fairlead_request_duration_seconds" {
			continue
		}
		h := f.GetMetric()[0].GetHistogram()
		if n := len(h.GetBucket()); n != 11 || h.GetBucket()[0].GetUpperBound() != .005 || h.GetBucket()[10].GetUpperBound() != 10 {
			t.Errorf("%d classic buckets, want 11 from 5 ms to 10 s", n)
		}
		if n := len(h.GetPositiveDelta()); n == 0 || n > 150 {
			t.Errorf("%d native buckets, want about 100", n)
		}
		return
	}
	t.Error("no histogram")
}

// An XBackend and a Service may have one name, and are counted apart; so are their endpoints.
func TestBackendsOfOneNameAreCountedApart(t *testing.T) {
	m := NewMetrics("")
	external := webPool
	external.Kind = "XBackend"
	m.Pool("shop", "web", webPool).Done(200, time.Second)
	m.Pool("shop", "web", external).Done(200, time.Second)
	m.Endpoints(webPool, 3, 3)
	m.Endpoints(external, 1, 0)
	got := gather(t, m)
	for service, want := range map[string]float64{"web": 3, "XBackend/web": 1} {
		name := fmt.Sprintf(`fairlead_backend_endpoints{backend_namespace="shop",backend_port="80",backend_service=%q}`, service)
		if n := got[name]; n != want {
			t.Errorf("%s is %v, want %v", name, n, want)
		}
	}
}

func TestKeepDropsAfterOneMoreScrape(t *testing.T) {
	m := NewMetrics("")
	other := RuleLabels{"infra/gw/http", "HTTPRoute", "blog", "web"}
	blogPool := route.PoolKey{Namespace: "blog", Service: "web", Port: 80}
	for _, l := range []RuleLabels{shop, other} {
		m.Rule(l).Done(200, "GET", "HTTP/1.1", time.Second, 1, 1)
		m.Rule(l).Answered(route.NoBackend)
		m.Rule(l).Passed("", 1, 1)
	}
	for _, k := range []route.PoolKey{webPool, blogPool} {
		p := m.Pool(k.Namespace, "web", k)
		p.Done(200, time.Second)
		p.Error(route.BackendReset)
		m.Connect(k, time.Second, true)
		m.Endpoints(k, 1, 1)
		m.Checked(k, true)
		m.Checked(k, false)
		m.RetryRefused(k)
		m.Waiting(map[route.PoolKey]int{k: 1})
	}
	for _, name := range []string{":80", ":443"} {
		l := m.Listener(name)
		l.Opened()
		l.Handshake(tls.VersionTLS12, true, true)
		l.Unmatched(route.NoRoute)
	}
	kept := 0
	count := func() (blog, listener int) {
		kept = 0
		for k := range gather(t, m) {
			if strings.Contains(k, `"shop"`) || strings.Contains(k, `":80"`) {
				kept++
			}
			if strings.Contains(k, `"blog"`) {
				blog++
			}
			if strings.Contains(k, `":443"`) {
				listener++
			}
		}
		return blog, listener
	}
	blog, listener := count()
	if blog != 23 || listener != 7 {
		t.Fatalf("%d series of blog and %d of :443 before Keep, want 23 and 7", blog, listener)
	}
	m.Keep([]RuleLabels{shop}, []PoolLabels{{"shop", "web", webPool}}, ":80")
	if b, l := count(); b != blog || l != listener {
		t.Errorf("%d series of blog and %d of :443 in the scrape after Keep, want all, %d and %d", b, l, blog, listener)
	}
	if b, l := count(); b != 0 || l != 0 {
		t.Errorf("%d series of blog and %d of :443 in the second scrape after Keep, want none", b, l)
	}
	if want := blog + listener; kept != want {
		t.Errorf("%d series are left of what was kept, want %d", kept, want)
	}
}

func TestKeepTable(t *testing.T) {
	source := func(name string) route.Source {
		return route.Source{Kind: "HTTPRoute", Namespace: "shop", Name: name, Field: "spec.rules[0]"}
	}
	blogPool := route.PoolKey{Namespace: "shop", Service: "blog", Port: 80}
	rules := map[string]*route.Rule{
		"web":   {Source: source("web"), Backends: []route.WeightedPool{{Pool: &route.Pool{Key: webPool}}, {Fault: &route.Fault{}}}},
		"blog":  {Source: source("blog"), Backends: []route.WeightedPool{{Pool: &route.Pool{Key: blogPool}}}},
		"error": {Source: source("error"), Fault: &route.Fault{}},
	}
	table := func(names ...string) *route.Table {
		h := &route.Host{}
		for _, n := range names {
			h.Rules = append(h.Rules, rules[n])
		}
		l := &route.Listener{Name: "infra/gw/http", Hosts: []*route.Host{h}}
		return &route.Table{Ports: []*route.Port{{Bind: route.Bind{Port: 8080}, Listeners: []*route.Listener{l}}}}
	}
	m := NewMetrics("")
	for _, name := range []string{"web", "blog", "error"} {
		m.Rule(RuleLabels{"infra/gw/http", "HTTPRoute", "shop", name}).Done(200, "GET", "HTTP/1.1", 0, 0, 0)
	}
	m.Pool("shop", "web", webPool).Done(200, 0)
	m.Pool("shop", "blog", blogPool).Done(200, 0)
	m.Listener(":8080").Opened()
	m.Listener(":9090").Opened()
	m.Unmatched("infra/gw/http", route.NoRoute)

	for _, tt := range []struct {
		name  string
		table *route.Table
		want  map[string]int // number of series
	}{
		{"all", table("web", "blog", "error"), map[string]int{"requests_total": 3, "backend_requests_total": 2, "connections_total": 1, "unmatched_requests_total": 1}},
		{"one", table("web"), map[string]int{"requests_total": 1, "backend_requests_total": 1, "connections_total": 1, "unmatched_requests_total": 1}},
		{"none", &route.Table{}, map[string]int{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m.KeepTable(tt.table)
			gather(t, m)
			got := gather(t, m)
			for _, name := range []string{"requests_total", "backend_requests_total", "connections_total", "unmatched_requests_total"} {
				if n := len(named(got, namespace+"_"+name)); n != tt.want[name] {
					t.Errorf("%s has %d series, want %d", name, n, tt.want[name])
				}
			}
		})
	}
}

func TestKeepWithoutListenersLeavesThem(t *testing.T) {
	m := NewMetrics("")
	m.Listener(":80").Opened()
	m.Keep(nil, nil)
	gather(t, m)
	if n := len(named(gather(t, m), "fairlead_connections_total")); n != 1 {
		t.Errorf("%d series of connections_total, want 1", n)
	}
}

// Requests that began under an old table finish after its routes are gone. They must not bring the series back.
func TestLateRequestsMakeNoSeries(t *testing.T) {
	m := NewMetrics("")
	r, p, l := m.Rule(shop), m.Pool("shop", "web", webPool), m.Listener(":80")
	r.Done(200, "GET", "HTTP/1.1", time.Second, 1, 1)
	idle := m.Rule(RuleLabels{Kind: "HTTPRoute", Name: "idle"})
	m.Keep(nil, nil, "none")
	gather(t, m)
	r.Done(200, "GET", "HTTP/1.1", time.Second, 1, 1)
	r.Done(404, "GET", "HTTP/1.1", time.Second, 1, 1)
	idle.Done(200, "GET", "HTTP/1.1", time.Second, 1, 1)
	p.Done(200, time.Second)
	p.Error(route.BackendReset)
	p.Retried(1)
	l.Opened()
	l.InFlight(1)
	l.Handshake(tls.VersionTLS13, true, false)
	l.Unmatched(route.NoRoute)
	for k := range gather(t, m) {
		for _, prefix := range []string{"fairlead_request", "fairlead_response", "fairlead_backend", "fairlead_conn", "fairlead_tls", "fairlead_unmatched"} {
			if strings.HasPrefix(k, prefix) {
				t.Errorf("series came back: %s", k)
			}
		}
	}
}

func TestRouteThatComesBackKeepsItsCounts(t *testing.T) {
	m := NewMetrics("")
	m.Rule(shop).Done(200, "GET", "HTTP/1.1", time.Second, 1, 1)
	m.Keep(nil, nil)
	m.Rule(shop).Done(200, "GET", "HTTP/1.1", time.Second, 1, 1)
	m.Keep([]RuleLabels{shop}, nil)
	for range 3 {
		for k, v := range named(gather(t, m), "fairlead_requests_total") {
			if v != 2 {
				t.Errorf("%s is %v, want 2", k, v)
			}
		}
	}
	m.Keep(nil, nil)
	gather(t, m)
	m.Rule(shop).Done(200, "GET", "HTTP/1.1", time.Second, 5, 1)
	got := gather(t, m)
	for _, tt := range []struct {
		name string
		want float64
	}{{"fairlead_requests_total", 1}, {"fairlead_request_bytes_total", 5}} {
		series := named(got, tt.name)
		if len(series) != 1 {
			t.Errorf("%s has %d series, want 1", tt.name, len(series))
		}
		for k, v := range series {
			if v != tt.want {
				t.Errorf("%s%s is %v, want %v: a new count after it was dropped", tt.name, k, v, tt.want)
			}
		}
	}
}

// Without a scraper nothing would ever be dropped; the number of what waits is bounded.
func TestRetiredAreBoundedWithoutScrapes(t *testing.T) {
	m := NewMetrics("")
	for i := range 3 * maxRetired {
		m.Rule(RuleLabels{Kind: "HTTPRoute", Name: fmt.Sprint("r", i)}).Done(200, "GET", "HTTP/1.1", 0, 0, 0)
		if i%500 == 0 {
			m.Keep([]RuleLabels{shop}, nil)
		}
		if n := len(m.rules.held); n > maxRetired+501 {
			t.Fatalf("%d routes are held after %d came and went, want at most %d", n, i, maxRetired+501)
		}
	}
}

func TestSharedSeriesOutliveOneOfTheirUsers(t *testing.T) {
	m := NewMetrics("")
	second := shop
	second.Listener = "infra/gw/https"
	for _, l := range []RuleLabels{shop, second} {
		m.Rule(l).Done(200, "GET", "HTTP/1.1", time.Second, 1, 1)
	}
	m.Keep([]RuleLabels{shop}, nil)
	gather(t, m)
	m.Rule(shop).Done(200, "GET", "HTTP/1.1", time.Second, 1, 1)
	want := map[string]float64{`{route_kind="HTTPRoute",route_name="web",route_namespace="shop"}`: 3}
	if diff := cmp.Diff(want, named(gather(t, m), "fairlead_request_bytes_total")); diff != "" {
		t.Errorf("series differ (-want +got):\n%s", diff)
	}
}

// What is retired while a scrape runs may not be in it, and has to wait for the next.
func TestRetiredDuringAScrape(t *testing.T) {
	m := NewMetrics("")
	m.Rule(shop).Done(200, "GET", "HTTP/1.1", time.Second, 1, 1)
	running := m.startScrape()
	m.Keep(nil, nil)
	m.sweep(running)
	for _, want := range []int{1, 0} {
		if n := len(named(gather(t, m), "fairlead_requests_total")); n != want {
			t.Errorf("%d series, want %d", n, want)
		}
	}
}

// A route that is asked for again is in use, even before the next Keep.
func TestAskingForARouteRetainsIt(t *testing.T) {
	m := NewMetrics("")
	m.Rule(shop).Done(200, "GET", "HTTP/1.1", time.Second, 1, 1)
	m.Keep(nil, nil)
	m.Rule(shop)
	for range 3 {
		if n := len(named(gather(t, m), "fairlead_requests_total")); n != 1 {
			t.Errorf("%d series, want 1", n)
		}
	}
}

func TestCertificatesAreReplacedWhole(t *testing.T) {
	m := NewMetrics("")
	a := CertificateStatus{Namespace: "a", Secret: "tls", Source: "secret", NotAfter: time.Unix(1, 0)}
	b := CertificateStatus{Namespace: "b", Secret: "tls", Source: "secret", NotAfter: time.Unix(2, 0), Issuer: "bad \xff issuer" + strings.Repeat("x", 1000)}
	m.Certificates([]CertificateStatus{a, a, b})
	if n := len(named(gather(t, m), "fairlead_certificate_not_after_timestamp_seconds")); n != 2 {
		t.Errorf("%d certificates, want 2", n)
	}
	m.Certificates([]CertificateStatus{b})
	want := map[string]float64{`{cert_namespace="b",cert_secret="tls",source="secret"}`: 2}
	if diff := cmp.Diff(want, named(gather(t, m), "fairlead_certificate_not_after_timestamp_seconds")); diff != "" {
		t.Errorf("series differ (-want +got):\n%s", diff)
	}
}

func TestNilMetricsDoNothing(t *testing.T) {
	var m *Metrics
	exercise(m)
	m.Listener("").Upgraded(1)
	m.Listener("").Closed()
	m.Listener("").Unmatched(route.NoRoute)
	m.Keep(nil, nil)
	m.KeepTable(&route.Table{})
	if families, err := m.Gatherer().Gather(); err != nil || len(families) != 0 {
		t.Errorf("Gather() = %d families, %v, want none", len(families), err)
	}
}

func TestConcurrentUse(t *testing.T) {
	m := NewMetrics("")
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 300 {
				l := shop
				l.Name = fmt.Sprint("r", (i+g)%5)
				m.Rule(l).Done(200+i%7, "GET", "HTTP/1.1", time.Millisecond, 1, 1)
				p := m.Pool("shop", l.Name, webPool)
				p.Done(200, time.Millisecond)
				p.Error(route.BackendTimeout)
				m.Connect(webPool, time.Millisecond, i%2 == 0)
				m.Unmatched(fmt.Sprint(":", i%3), route.NoRoute)
			}
		})
	}
	wg.Go(func() {
		for i := range 50 {
			l := shop
			l.Name = fmt.Sprint("r", i%5)
			m.Keep([]RuleLabels{l}, []PoolLabels{{"shop", l.Name, webPool}}, fmt.Sprint(":", i%3))
			gather(t, m)
		}
	})
	wg.Wait()
	m.Keep(nil, nil, "none")
	gather(t, m)
	for k := range gather(t, m) {
		if strings.Contains(k, "listener=") || strings.Contains(k, "backend_") && strings.Contains(k, "shop") {
			t.Errorf("series is left: %s", k)
		}
	}
}

func TestCountingDoesNotAllocate(t *testing.T) {
	m := NewMetrics("")
	r, p, l := m.Rule(shop), m.Pool("shop", "web", webPool), m.Listener(":80")
	for _, tt := range []struct {
		name string
		do   func()
	}{
		{"Rule.Done", func() { r.Done(200, "GET", "HTTP/1.1", 3*time.Millisecond, 100, 200) }},
		{"Pool.Done", func() { p.Done(200, 3*time.Millisecond) }},
		{"Pool.Error", func() { p.Error(route.BackendReset) }},
		{"Listener.InFlight", func() { l.InFlight(1) }},
		{"Listener.Handshake", func() { l.Handshake(tls.VersionTLS13, true, false) }},
		{"Unmatched", func() { m.Unmatched(":80", route.NoRoute) }},
	} {
		tt.do()
		if n := testing.AllocsPerRun(100, tt.do); n != 0 {
			t.Errorf("%s allocates %v times, want 0", tt.name, n)
		}
	}
}

func BenchmarkRuleDone(b *testing.B) {
	r := NewMetrics("").Rule(shop)
	b.ReportAllocs()
	for b.Loop() {
		r.Done(200, "GET", "HTTP/1.1", 3*time.Millisecond, 100, 2000)
	}
}

func BenchmarkRuleDoneParallel(b *testing.B) {
	r := NewMetrics("").Rule(shop)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r.Done(200, "GET", "HTTP/1.1", 3*time.Millisecond, 100, 2000)
		}
	})
}

func BenchmarkPoolDone(b *testing.B) {
	p := NewMetrics("").Pool("shop", "web", webPool)
	b.ReportAllocs()
	for b.Loop() {
		p.Done(200, 3*time.Millisecond)
	}
}

func BenchmarkGather5000Routes(b *testing.B) {
	m := NewMetrics("")
	for i := range 5000 {
		l := shop
		l.Name = fmt.Sprint("r", i)
		m.Rule(l).Done(200, "GET", "HTTP/1.1", 3*time.Millisecond, 100, 2000)
	}
	for b.Loop() {
		if _, err := m.Gatherer().Gather(); err != nil {
			b.Fatal(err)
		}
	}
}
