package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/fairlead-io/fairlead/internal/backend"
	"github.com/fairlead-io/fairlead/internal/route"
	"github.com/fairlead-io/fairlead/internal/telemetry"
)

// mode is how a client speaks with the proxy.
type mode struct {
	name  string
	tls   bool
	http2 bool
}

var modes = []mode{{"h1", false, false}, {"h1s", true, false}, {"h2", true, true}, {"h2c", false, true}}

var h1, h1s, h2, h2c = modes[0], modes[1], modes[2], modes[3]

func eachMode(t *testing.T, f func(*testing.T, mode)) {
	t.Helper()
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) { f(t, m) })
	}
}

func (m mode) scheme() string {
	if m.tls {
		return "https"
	}
	return "http"
}

func (m mode) protocol() route.Protocol { return route.Protocol(m.scheme()) }

func (m mode) protocols() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(!m.http2)
	p.SetHTTP2(m.http2 && m.tls)
	p.SetUnencryptedHTTP2(m.http2 && !m.tls)
	return p
}

// testBind is where the proxies of these tests listen; the port of the socket is chosen by the kernel.
var testBind = route.Bind{Address: "127.0.0.1"}

// rig is a proxy with clients for it. What it counted and logged can be asked for after stop.
type rig struct {
	t        testing.TB
	mode     mode
	p        *Proxy
	addr     string
	set      *backend.Set
	client   *http.Client
	metrics  *telemetry.Metrics
	stop     func()
	logBytes *bytes.Buffer
}

type rigOption func(*Options)

func trusting(prefixes ...string) rigOption {
	return func(o *Options) {
		for _, p := range prefixes {
			o.TrustedProxies = append(o.TrustedProxies, netip.MustParsePrefix(p))
		}
	}
}

func limited(f func(*Limits)) rigOption { return func(o *Options) { f(&o.Limits) } }

// newRig starts a proxy with a table.
func newRig(t testing.TB, m mode, w world, options ...rigOption) *rig {
	t.Helper()
	r := &rig{t: t, mode: m, set: backend.New(backend.Options{AllowLoopback: true}), metrics: telemetry.NewMetrics("test"), logBytes: new(bytes.Buffer)}
	accessLog := telemetry.NewAccessLog(r.logBytes, telemetry.AccessLogOptions{})
	opt := Options{Backends: r.set, Metrics: r.metrics, AccessLog: accessLog, GetCertificate: testCertificate, DrainDelay: -1, DrainGrace: time.Second}
	for _, o := range options {
		o(&opt)
	}
	var err error
	if r.p, err = New(opt); err != nil {
		t.Fatal(err)
	}
	r.p.listen = watchedListen
	r.swap(w)
	r.addr = r.p.Addr(testBind).String()
	r.client = m.client(r.addr)
	r.stop = sync.OnceFunc(func() {
		r.client.CloseIdleConnections()
		if err := r.p.Close(); err != nil {
			t.Error(err)
		}
		if err := accessLog.Close(); err != nil {
			t.Error(err)
		}
		r.set.Close()
	})
	t.Cleanup(r.stop)
	return r
}

// client returns a client that connects to addr, whatever host it asks for, and follows no redirects.
func (m mode) client(addr string) *http.Client {
	tr := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		},
		TLSClientConfig:     &tls.Config{InsecureSkipVerify: true},
		Protocols:           m.protocols(),
		DisableCompression:  true,
		MaxIdleConnsPerHost: 100,
	}
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// request makes a request for a target of the host app.test.
func (r *rig) request(method, target string, body io.Reader) *http.Request {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.mode.scheme()+"://app.test"+target, body)
	if err != nil {
		r.t.Fatal(err)
	}
	return req
}

// answer is a response that was read to its end, or to an error.
type answer struct {
	*http.Response
	body string
	err  error
}

func (r *rig) do(req *http.Request) answer {
	r.t.Helper()
	a := r.try(req)
	if a.StatusCode == 0 {
		r.t.Fatalf("%s %s: %v", req.Method, req.URL, a.err)
	}
	return a
}

// try is do for requests that may get no response at all: its status is 0 then.
func (r *rig) try(req *http.Request) answer {
	r.t.Helper()
	res, err := r.client.Do(req)
	if err != nil {
		return answer{Response: new(http.Response), err: err}
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return answer{res, string(b), err}
}

func (r *rig) get(target string) answer {
	r.t.Helper()
	return r.do(r.request(http.MethodGet, target, nil))
}

// entries stops the rig and returns the lines of its access log.
func (r *rig) entries() (lines []map[string]any) {
	r.t.Helper()
	r.stop()
	s := bufio.NewScanner(r.logBytes)
	for s.Scan() {
		var line map[string]any
		if err := json.Unmarshal(s.Bytes(), &line); err != nil {
			r.t.Fatal(err)
		}
		lines = append(lines, line)
	}
	return lines
}

// counter adds up the series of a counter or gauge whose labels contain these pairs.
func (r *rig) counter(name string, pairs ...string) (sum float64) {
	r.t.Helper()
	families, err := r.metrics.Gatherer().Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, s := range f.GetMetric() {
			if hasLabels(s, pairs) {
				sum += s.GetCounter().GetValue() + s.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func hasLabels(m *dto.Metric, pairs []string) bool {
	for i := 0; i < len(pairs); i += 2 {
		found := false
		for _, l := range m.GetLabel() {
			found = found || l.GetName() == pairs[i] && l.GetValue() == pairs[i+1]
		}
		if !found {
			return false
		}
	}
	return true
}

// world is what a rig serves: rules on one listener, unless ports says it all.
type world struct {
	rules     []*route.Rule
	listeners []*route.Listener
	endpoints map[*route.Pool][]string
}

func (w *world) pools() []*route.Pool {
	var pools []*route.Pool
	for p := range w.endpoints {
		pools = append(pools, p)
	}
	return pools
}

func (w *world) table(m mode) *route.Table {
	listeners := w.listeners
	if listeners == nil {
		listeners = []*route.Listener{{
			Name: "infra/gw/web", Port: 8080, Hosts: []*route.Host{{Rules: w.rules}},
			Source: route.Source{Kind: "Gateway", Namespace: "infra", Name: "gw", Field: "spec.listeners[0]"},
		}}
	}
	return route.NewTable([]*route.Port{{Bind: testBind, Protocol: m.protocol(), Listeners: listeners}}, w.pools(), nil)
}

func (w *world) endpointMap() map[route.PoolKey][]route.Endpoint {
	out := map[route.PoolKey][]route.Endpoint{}
	for p, addresses := range w.endpoints {
		out[p.Key] = nil
		for _, a := range addresses {
			out[p.Key] = append(out[p.Key], route.Endpoint{Address: a})
		}
	}
	return out
}

// service returns a pool with endpoints, for endpoints of a world.
func service(name string, p route.Protocol) *route.Pool {
	return &route.Pool{Key: route.PoolKey{Namespace: "shop", Service: name, Port: 80}, Protocol: p}
}

func source(field string) route.Source {
	return route.Source{Kind: "HTTPRoute", Namespace: "shop", Name: "web", Field: field}
}

// rule returns a rule for a prefix that sends everything to a pool.
func rule(prefix string, p *route.Pool, filters ...route.Filter) *route.Rule {
	r := &route.Rule{Match: route.Match{Path: route.PathMatch{Value: prefix}}, Filters: filters, Source: source("spec.rules[0].matches[0]")}
	if p != nil {
		r.Backends = []route.WeightedPool{{Pool: p, Weight: 1, Source: source("spec.rules[0].backendRefs[0]")}}
	}
	return r
}

// one is a world in which everything goes to one backend.
func one(p *route.Pool, addr string, filters ...route.Filter) world {
	return world{rules: []*route.Rule{rule("/", p, filters...)}, endpoints: map[*route.Pool][]string{p: {addr}}}
}

// serveHTTP starts a backend that speaks HTTP/1.1 and returns its address.
func serveHTTP(t testing.TB, h http.HandlerFunc) string { return serveBackend(t, route.HTTP, h) }

// serveBackend starts a backend that speaks a protocol and returns its address.
func serveBackend(t testing.TB, p route.Protocol, h http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(p != route.H2C)
	protocols.SetUnencryptedHTTP2(p == route.H2C || p == route.HTTP) // gRPC comes that way even where nobody said so
	protocols.SetHTTP2(p == route.HTTPS)
	s := &http.Server{Handler: h, Protocols: protocols, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute}
	serve := s.Serve
	if p == route.HTTPS {
		cert, _ := testCertificate(route.Bind{}, nil)
		s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{*cert}}
		serve = func(l net.Listener) error { return s.ServeTLS(l, "", "") }
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := serve(l); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	t.Cleanup(func() { _ = s.Close(); wg.Wait() })
	return l.Addr().String()
}

// serveRaw starts a backend that speaks whatever f writes to the connection after the head of a request was read.
func serveRaw(t testing.TB, f func(c net.Conn, r *bufio.Reader)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				r := bufio.NewReader(c)
				if err := readHead(r); err == nil {
					f(c, r)
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// readHead reads up to the empty line.
func readHead(r *bufio.Reader) error {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		if strings.TrimSpace(line) == "" {
			return nil
		}
	}
}

// testCertificate is a certificate for every name; the clients of the tests do not look.
func testCertificate(route.Bind, *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return anyCertificate(), nil
}

var anyCertificate = sync.OnceValue(func() *tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"app.test"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

// dial opens a raw connection to the proxy, over TLS where the mode says so.
func (r *rig) dial() net.Conn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	if r.mode.tls {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true, ServerName: "app.test", NextProtos: []string{"http/1.1"}})
	}
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

// sendRaw writes a raw request and returns the response to it and the reader behind it.
func sendRaw(t *testing.T, c net.Conn, raw string) (*http.Response, *bufio.Reader) {
	t.Helper()
	if _, err := io.WriteString(c, raw); err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(c)
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatalf("read response to %.60q: %v", raw, err)
	}
	return res, br
}

// swap serves another world from now on.
func (r *rig) swap(w world) {
	table := w.table(r.mode)
	r.set.Install(table.Pools)
	r.set.Update(w.endpointMap())
	if err := r.p.Install(table); err != nil {
		panic(err)
	}
}
