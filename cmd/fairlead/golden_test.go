package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-io/fairlead/internal/compile"
	"github.com/fairlead-io/fairlead/internal/echo"
	"github.com/fairlead-io/fairlead/internal/manifest"
	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

const goldenDir = "../../internal/compile/testdata"

// TestGoldenDirectoriesAreServed sends the requests of every golden directory of the compiler to the real data plane that serves it, and compares what comes back
// with what the compiler's test says about the table. The same directories go through lint and explain.
func TestGoldenDirectoriesAreServed(t *testing.T) {
	dirs, err := os.ReadDir(goldenDir)
	if err != nil || len(dirs) < 60 {
		t.Fatalf("found %d golden directories: %v", len(dirs), err)
	}
	asked := 0
	for _, d := range dirs {
		if d.Name() == "fuzz" || !d.IsDir() { // where the fuzzer keeps what it found, and lists of the compiler's tests
			continue
		}
		g := readGolden(t, d.Name())
		if g.cluster {
			continue // where a cluster binds ports is the cluster's decision; it has no listener here
		}
		t.Run(d.Name(), func(t *testing.T) { asked += g.serve(t) })
	}
	if asked < 150 {
		t.Errorf("only %d requests were sent", asked)
	}
}

// golden is a directory of the compiler's tests.
type golden struct {
	dir      string
	args     []string // as flags
	portMap  map[uint16]uint16
	cluster  bool
	requests []goldenRequest
}

// goldenRequest is a line of requests.txt: a request, the bind address if it matters, and the answer.
type goldenRequest struct {
	method, address, want string
	url                   *url.URL
	header                http.Header
}

func readGolden(t *testing.T, name string) *golden {
	t.Helper()
	g := &golden{dir: filepath.Join(goldenDir, name), portMap: map[uint16]uint16{}}
	in, err := os.ReadFile(filepath.Join(g.dir, "in.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	config := ""
	for line := range strings.Lines(string(in)) {
		words, ok := strings.CutPrefix(line, "# options:")
		if !ok {
			continue
		}
		for word := range strings.FieldsSeq(words) {
			key, value, _ := strings.Cut(word, "=")
			switch key {
			case "port-map":
				if g.portMap, err = parsePortMap("port-map", value); err != nil {
					t.Fatal(err)
				}
			case "gateway-addresses":
				g.args = append(g.args, "--gateway-addresses", value)
			case "redirect-https":
				config += "ingress: {redirectHTTPS: true}\n"
			case "external-name":
				config += "allowExternalName: true\n"
			case "publish":
				config += fmt.Sprintf("publishAddresses: [%s]\n", value)
			case "host-ports": // nobody is in front of the ports here
			case "issuer", "default-issuer": // no request depends on what is on order
			default:
				g.cluster = true
			}
		}
	}
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(config+quickDrain), 0o600); err != nil {
		t.Fatal(err)
	}
	g.args = append(g.args, "--config", file)
	if !g.cluster {
		g.readRequests(t)
	}
	return g
}

var goldenHeader = regexp.MustCompile(` -H '([^:]+): ?([^']*)'`)

func (g *golden) readRequests(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(g.dir, "requests.txt"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		left, want, ok := strings.Cut(strings.TrimSpace(line), " => ")
		if !ok {
			continue
		}
		r := goldenRequest{header: http.Header{}, want: want}
		for _, m := range goldenHeader.FindAllStringSubmatch(left, -1) {
			r.header.Add(m[1], m[2])
		}
		words := strings.Fields(goldenHeader.ReplaceAllString(left, ""))
		r.method = words[0]
		if r.url, err = url.Parse(words[1]); err != nil {
			t.Fatal(err)
		}
		for _, w := range words[2:] {
			r.address = strings.TrimPrefix(w, "@")
		}
		g.requests = append(g.requests, r)
	}
}

// serve serves the directory on free ports, with an echo server behind each pool, and asks it. It returns how many requests were sent.
func (g *golden) serve(t *testing.T) (asked int) {
	o := serveOptions{inProcess: true, bindAddress: "127.0.0.1", adminAddress: fmt.Sprintf("127.0.0.1:%d", freePort(t))}
	for i := 0; i < len(g.args); i += 2 {
		switch g.args[i] {
		case "--config":
			o.configFile = g.args[i+1]
		case "--gateway-addresses":
			o.gatewayAddresses = g.args[i+1]
		}
	}
	set, err := o.settings()
	if err != nil {
		t.Fatal(err)
	}
	set.compile.PortMap = g.portMap
	folder, err := manifest.Open(g.dir, set.manifest)
	if err != nil {
		t.Fatal(err)
	}
	snap, _ := folder.Read()
	before := compile.Compile(snap, set.compile)
	ports := map[uint16]uint16{} // where the golden file says it is bound → where it is bound here
	for _, p := range before.Table.Ports {
		if ports[p.Bind.Port] == 0 {
			ports[p.Bind.Port] = freePort(t)
		}
	}
	set.compile.PortMap = joinPorts(g.portMap, ports)
	servers, foreign := startPools(t, snap, before.Table)
	r := start(t, o, set, &goldenFolder{folder, servers})
	defer func() {
		if err := r.stop(); err != nil {
			t.Errorf("serve ended with %v", err)
		}
	}()
	for _, q := range g.requests {
		if q.send(t, g.portMap, ports, foreign) {
			asked++
		}
	}
	return asked
}

// joinPorts maps what the directory maps, and everything else, to the ports of this run.
func joinPorts(golden, here map[uint16]uint16) map[uint16]uint16 {
	out := map[uint16]uint16{}
	maps.Copy(out, here)
	for from, to := range golden {
		if here[to] != 0 {
			out[from] = here[to]
		}
	}
	return out
}

// goldenFolder is the directory with endpoints that exist, whatever endpoints it has of its own.
type goldenFolder struct {
	*manifest.Folder
	endpoints map[object.Key][]*discoveryv1.EndpointSlice
}

func (f *goldenFolder) Read() (*object.Snapshot, []manifest.Issue) {
	snap, issues := f.Folder.Read()
	changed := *snap
	changed.EndpointSlices = f.endpoints
	return &changed, issues
}

// startPools starts an echo server for each pool, which answers with the pool's name, and returns EndpointSlices for them. foreign are the pools that lie behind a
// DNS name, which nothing here resolves.
func startPools(t *testing.T, snap *object.Snapshot, table *route.Table) (endpoints map[object.Key][]*discoveryv1.EndpointSlice, foreign map[string]bool) {
	t.Helper()
	endpoints, foreign = map[object.Key][]*discoveryv1.EndpointSlice{}, map[string]bool{}
	encrypted := passedThrough(table)
	for _, p := range table.Pools {
		key := object.Key{Namespace: p.Key.Namespace, Name: p.Key.Service}
		if p.Key.Kind != "" {
			foreign[p.Key.String()] = true
			continue
		}
		svc := snap.Services[key]
		if svc.Spec.Type == corev1.ServiceTypeExternalName {
			foreign[p.Key.String()] = true
			continue
		}
		if p.Key.UDP {
			endpoints[key] = append(endpoints[key], sliceFor(p.Key, svc, tellName(t, p.Key.String())))
			continue
		}
		server := echo.New(p.Key.String())
		if p.Protocol == route.HTTPS || p.Protocol == route.WSS || encrypted[p] {
			server.TLS = testTLS(t)
		}
		if err := server.Listen("127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = server.Close() })
		endpoints[key] = append(endpoints[key], sliceFor(p.Key, svc, server.Addr()))
	}
	return endpoints, foreign
}

// sliceFor says that a port of a Service is served at an address.
func sliceFor(pool route.PoolKey, svc *corev1.Service, address string) *discoveryv1.EndpointSlice {
	addr := netip.MustParseAddrPort(address)
	port, name, protocol := int32(addr.Port()), "", corev1.ProtocolTCP
	if pool.UDP {
		protocol = corev1.ProtocolUDP
	}
	for _, sp := range svc.Spec.Ports {
		if sp.Port == pool.Port && sp.Protocol == protocol {
			name = sp.Name
		}
	}
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: pool.Namespace, Name: fmt.Sprint(pool.Service, pool.Port, protocol)}, AddressType: discoveryv1.AddressTypeIPv4,
		Ports:     []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: &protocol}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{addr.Addr().String()}}},
	}
}

// passedThrough returns the pools that get connections as clients encrypted them.
func passedThrough(t *route.Table) map[*route.Pool]bool {
	out := map[*route.Pool]bool{}
	for _, p := range t.Ports {
		for _, l := range p.Listeners {
			for _, h := range l.Hosts {
				for _, r := range h.Rules {
					for _, b := range r.Backends {
						out[b.Pool] = out[b.Pool] || l.Mode == route.Passthrough
					}
				}
			}
		}
	}
	return out
}

func testTLS(t *testing.T) *tls.Config {
	t.Helper()
	secret, err := selfSigned("test", "test", "backend.example.com", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
}

// send sends a request and compares the answer with the golden one. It returns false for a line that is not about a request that can be sent.
func (q goldenRequest) send(t *testing.T, portMap, ports map[uint16]uint16, foreign map[string]bool) bool {
	t.Helper()
	if strings.HasPrefix(q.want, "no ") {
		return false // nothing listens
	}
	port, err := questionPort(q.url)
	if err != nil {
		t.Fatal(err)
	}
	if m := portMap[port]; m != 0 && q.url.Port() == "" {
		port = m
	}
	if ports[port] == 0 {
		port = portMap[port]
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(ports[port])))
	if q.address != "" {
		address = net.JoinHostPort(q.address, strconv.Itoa(int(ports[port])))
	}
	if q.url.Scheme == "udp" {
		q.sendDatagram(t, address)
		return true
	}
	if passedOn(q.url.Scheme) {
		q.connect(t, address)
		return true
	}
	got, err := q.do(address)
	if err != nil {
		t.Errorf("%s %s: %v", q.method, q.url, err)
		return true
	}
	if complaint := q.compare(got, foreign); complaint != "" {
		t.Errorf("%s %s %v: %s, want %s", q.method, q.url, q.header, complaint, q.want)
	}
	return true
}

// connect opens a connection and, if it should be passed on, asks the echo server at its end.
func (q goldenRequest) connect(t *testing.T, address string) {
	t.Helper()
	if q.url.Scheme == "tls" {
		q.url.Scheme = "https"
		defer func() { q.url.Scheme = "tls" }()
	} else {
		q.url.Scheme = "http"
	}
	host := q.url.Host
	defer func() { q.url.Host = host }()
	if q.url.Hostname() == "" {
		q.url.Host = "127.0.0.1" // which is no name for a handshake
	}
	got, err := q.do(address)
	pools := poolsIn(q.want)
	switch {
	case strings.HasPrefix(q.want, "requests of "):
		if err != nil {
			t.Errorf("CONNECTION %s: %v, want %s", host, err, q.want)
		}
	case strings.Contains(q.want, "closed ") && len(pools) > 0 && err != nil: // some connections are closed, and some are not
	case strings.Contains(q.want, "closed ") && len(pools) == 0:
		if err == nil || strings.Contains(err.Error(), "tls: ") {
			t.Errorf("CONNECTION %s: %v, %v, want the connection to be closed, without an alert", host, got.status, err)
		}
	case err != nil || !slices.Contains(pools, got.header.Get("X-Echo-Name")):
		t.Errorf("CONNECTION %s: got %d from %q, %v, want %s", host, got.status, got.header.Get("X-Echo-Name"), err, q.want)
	}
}

// sendDatagram sends a datagram and compares who answers it.
func (q goldenRequest) sendDatagram(t *testing.T, address string) {
	t.Helper()
	c, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	pools, wait := poolsIn(q.want), 10*time.Second
	if len(pools) == 0 {
		wait = 50 * time.Millisecond
	}
	_ = c.SetDeadline(time.Now().Add(wait))
	_, _ = c.Write([]byte("who?"))
	buf := make([]byte, 1<<10)
	n, _ := c.Read(buf)
	if got := string(buf[:n]); len(pools) == 0 && n > 0 || len(pools) > 0 && !slices.Contains(pools, got) {
		t.Errorf("CONNECTION %s: got %q, want %s", q.url, got, q.want)
	}
}

// tellName answers every datagram with a name, and returns the address that it does so at.
func tellName(t *testing.T, name string) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<10)
		for {
			_, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo([]byte(name), from)
		}
	}()
	t.Cleanup(func() { _ = c.Close(); <-done })
	return c.LocalAddr().String()
}

// poolsIn returns the pools that an answer names.
func poolsIn(want string) (pools []string) {
	for _, m := range goldenPool.FindAllStringSubmatch(strings.TrimSpace(strings.SplitN(want, "#", 2)[0]), -1) {
		pools = append(pools, m[1])
	}
	return pools
}

func (q goldenRequest) do(address string) (answer, error) {
	tr := &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{ServerName: q.url.Hostname(), InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, // certificates are not what is tested
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, address)
		},
	}
	if q.isGRPC() {
		tr.Protocols = new(http.Protocols)
		tr.Protocols.SetHTTP2(true)
		tr.Protocols.SetUnencryptedHTTP2(true)
	}
	u := *q.url
	req := &http.Request{Method: q.method, URL: &u, Host: q.url.Host, Header: q.header.Clone()}
	if h := req.Header.Get("Host"); h != "" {
		req.Host = h
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = res.Body.Close() }()
	return answer{status: res.StatusCode, header: res.Header}, nil
}

func (q goldenRequest) isGRPC() bool { return route.IsGRPC(q.header["Content-Type"]) }

// status is what the answer says went wrong, as HTTP has it. gRPC says it in another way, and tells less.
func (q goldenRequest) status(got answer, want string) string {
	if code := got.header.Get("Grpc-Status"); q.isGRPC() && got.status == http.StatusOK && code != "" && code != "0" {
		return want
	}
	return strconv.Itoa(got.status)
}

var (
	goldenStatus = regexp.MustCompile(`^(?:\S+: )?(\d{3}) (\S+)`)
	goldenPool   = regexp.MustCompile(`(?:[1-9]\d*x )?((?:XBackend/)?[a-z0-9.-]+/[a-z0-9.-]+:\d+(?:/udp)?)`)
)

// compare returns what is wrong with an answer, or nothing.
func (q goldenRequest) compare(got answer, foreign map[string]bool) string {
	reason := got.header.Get("X-Fairlead-Reason")
	if m := goldenStatus.FindStringSubmatch(q.want); m != nil {
		switch {
		case q.status(got, m[1]) != m[1]:
			return fmt.Sprintf("got %d %s from %q", got.status, reason, got.header.Get("X-Echo-Name"))
		case strings.Contains(m[2], "://"):
			return compareLocation(got.header.Get("Location"), m[2])
		case reason != m[2]:
			return "got the reason " + reason
		}
		return ""
	}
	pools := poolsIn(q.want)
	if slices.ContainsFunc(pools, func(p string) bool { return foreign[p] }) {
		return "" // its endpoints are addresses that do not exist here
	}
	name := got.header.Get("X-Echo-Name")
	if got.status == http.StatusOK && slices.Contains(pools, name) || strings.Contains(q.want, fmt.Sprintf("x %d %s", got.status, reason)) {
		return ""
	}
	return fmt.Sprintf("got %d %s from %q", got.status, reason, name)
}

// compareLocation compares the target of a redirect, but for the port, which is another one in each run.
func compareLocation(got, want string) string {
	g, gerr := url.Parse(got)
	w, werr := url.Parse(want)
	if gerr != nil || werr != nil {
		return fmt.Sprintf("got Location %q", got)
	}
	g.Host, w.Host = g.Hostname(), w.Hostname()
	if g.String() != w.String() {
		return fmt.Sprintf("got Location %q", got)
	}
	return ""
}
