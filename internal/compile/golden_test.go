package compile

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-io/fairlead/internal/manifest"
	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

var update = flag.Bool("update", false, "rewrite the golden files with what is compiled now")

// taken is when the pictures in testdata were taken: certificates are valid or expired then.
var taken = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Every directory below testdata is one behaviour, and its name says which. in.yaml is what a user writes; table.txt, status.txt and requests.txt are what
// follows from it; where in.yaml has EndpointSlices, endpoints.txt is who serves the pools. A line of requests.txt is a request and, behind "=>", what answers it. The first lines of in.yaml may hold
//
//	# options: port-map=80:8080,443:8443 gateway-addresses=127.0.1.0/24 redirect-https external-name publish=10.0.0.1
//
// and for a cluster, where infrastructure.txt is what should exist for the Gateways to be reached,
//
//	# options: cluster service-type=ClusterIP publish-service=fairlead/fairlead publish-nodes binds=20000-20001 label=team=edge
func TestGolden(t *testing.T) {
	for _, dir := range goldenDirs(t) {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			in := readFile(t, filepath.Join(dir, "in.yaml"))
			opt := parseOptions(t, in)
			snap := load(t, in)
			res := Compile(snap, opt)
			golden(t, filepath.Join(dir, "table.txt"), tableText(res))
			golden(t, filepath.Join(dir, "status.txt"), statusText(res))
			golden(t, filepath.Join(dir, "infrastructure.txt"), res.Infrastructure.String())
			if len(snap.EndpointSlices) > 0 {
				golden(t, filepath.Join(dir, "endpoints.txt"), endpointsText(snap, opt, res.Table))
			}
			requests := filepath.Join(dir, "requests.txt")
			golden(t, requests, answerAll(t, res.Table, opt, readFile(t, requests)))
		})
	}
}

// The order of documents in files, and of files in a folder, must not matter, nor may it matter how a map happens to be walked.
func TestOrderOfInputDoesNotMatter(t *testing.T) {
	for _, dir := range goldenDirs(t) {
		in := readFile(t, filepath.Join(dir, "in.yaml"))
		opt := parseOptions(t, in)
		docs := strings.Split(in, "\n---\n")
		want := resultText(Compile(load(t, in), opt))
		random := rand.New(rand.NewPCG(1, uint64(len(in))))
		for range 5 {
			random.Shuffle(len(docs), func(i, j int) { docs[i], docs[j] = docs[j], docs[i] })
			if diff := gocmp.Diff(want, resultText(Compile(load(t, strings.Join(docs, "\n---\n")), opt))); diff != "" {
				t.Fatalf("%s: documents in another order compile to something else (-first +shuffled):\n%s", filepath.Base(dir), diff)
			}
		}
	}
}

func goldenDirs(tb testing.TB) []string {
	tb.Helper()
	files, err := filepath.Glob("testdata/*/in.yaml")
	if err != nil || len(files) == 0 {
		tb.Fatalf("no golden directories: %v", err)
	}
	for i, f := range files {
		files[i] = filepath.Dir(f)
	}
	return files
}

func readFile(tb testing.TB, name string) string {
	tb.Helper()
	data, err := os.ReadFile(name)
	if err != nil && !os.IsNotExist(err) {
		tb.Fatal(err)
	}
	return string(data)
}

// golden compares a text with a file, or writes it there.
func golden(t *testing.T, file, got string) {
	t.Helper()
	want := readFile(t, file)
	if got == want {
		return
	}
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("%s differs (-want +got):\n%s", filepath.Base(file), gocmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")))
}

func load(tb testing.TB, text string) *object.Snapshot {
	tb.Helper()
	in, issues := manifest.Load(fstest.MapFS{"in.yaml": {Data: []byte(text)}}, manifest.Options{})
	for _, issue := range issues {
		tb.Errorf("%v", issue)
	}
	in.Taken = taken
	loadClusterFacts(tb, in, text)
	return in
}

// loadClusterFacts adds what only a cluster says, and no folder: which addresses its Services have, and its nodes.
func loadClusterFacts(tb testing.TB, in *object.Snapshot, text string) {
	tb.Helper()
	for doc := range strings.SplitSeq(text, "\n---\n") {
		if !strings.Contains(doc, "\nstatus:") {
			continue
		}
		var s corev1.Service
		if err := yaml.Unmarshal([]byte(doc), &s); err != nil {
			tb.Fatal(err)
		}
		if have := in.Services[object.KeyOf(&s)]; have != nil && s.Kind == "Service" {
			have.Status = s.Status
		}
		if s.Kind == "Node" {
			var n corev1.Node
			if err := yaml.Unmarshal([]byte(doc), &n); err != nil {
				tb.Fatal(err)
			}
			set(&in.Nodes, n.Name, &n)
		}
	}
}

func parseOptions(tb testing.TB, yaml string) (opt Options) {
	tb.Helper()
	for line := range strings.Lines(yaml) {
		words, ok := strings.CutPrefix(line, "# options:")
		if !ok {
			continue
		}
		for word := range strings.FieldsSeq(words) {
			name, value, _ := strings.Cut(word, "=")
			if err := setOption(&opt, name, value); err != nil {
				tb.Fatalf("option %s: %v", word, err)
			}
		}
	}
	return opt
}

func setOption(opt *Options, name, value string) (err error) {
	switch name {
	case "port-map":
		opt.PortMap, err = portPairs(value)
	case "gateway-addresses":
		opt.GatewayAddresses, err = netip.ParsePrefix(value)
	case "redirect-https":
		opt.RedirectHTTPS = true
	case "external-name":
		opt.AllowExternalName = true
	case "publish":
		opt.PublishAddresses = strings.Split(value, ",")
	case "publish-service":
		opt.PublishService = keyFrom(value)
	case "publish-nodes":
		opt.PublishNodes = true
	case "host-service":
		opt.HostService = keyFrom(value)
	case "host-ports":
		opt.HostPorts, err = portPairs(value)
	case "issuer": // issuer=NAME, issuer=NAME+dns+multi
		name, what, _ := strings.Cut(value, "+")
		if opt.ACME == nil {
			opt.ACME = &ACMEOptions{}
		}
		set(&opt.ACME.Issuers, name, ACMEIssuer{DNS: strings.Contains(what, "dns"), MultiName: strings.Contains(what, "multi")})
	case "default-issuer":
		opt.ACME.Default = strings.Split(value, ",")
	case "cluster":
		opt.Cluster = &ClusterOptions{Namespace: "fairlead", Selector: map[string]string{"app": "fairlead"}}
	default:
		return setClusterOption(opt.Cluster, name, value)
	}
	return err
}

func keyFrom(s string) (k object.Key) {
	k.Namespace, k.Name, _ = strings.Cut(s, "/")
	return k
}

func portPairs(s string) (map[uint16]uint16, error) {
	out := map[uint16]uint16{}
	for pair := range strings.SplitSeq(s, ",") {
		var from, to uint16
		if _, err := fmt.Sscanf(pair, "%d:%d", &from, &to); err != nil {
			return nil, err
		}
		out[from] = to
	}
	return out, nil
}

func setClusterOption(opt *ClusterOptions, name, value string) (err error) {
	if opt == nil {
		return fmt.Errorf("is unknown, or should come after cluster")
	}
	switch name {
	case "service-type":
		opt.ServiceType = corev1.ServiceType(value)
	case "binds":
		_, err = fmt.Sscanf(value, "%d-%d", &opt.BindFrom, &opt.BindTo)
	case "label":
		k, v, _ := strings.Cut(value, "=")
		set(&opt.Labels, k, v)
	case "annotation":
		k, v, _ := strings.Cut(value, "=")
		set(&opt.Annotations, k, v)
	default:
		return fmt.Errorf("is unknown")
	}
	return err
}

func resultText(r Result) string {
	return tableText(r) + "\n" + statusText(r) + "\n" + r.Infrastructure.String()
}

// tableText is the table, and below it the certificates.
func tableText(r Result) string {
	var b strings.Builder
	b.WriteString(r.Table.String())
	for i, c := range r.Certificates {
		if i == 0 {
			b.WriteString("\n")
		}
		names := []string{"self-signed"}
		if len(c.Pairs) > 0 {
			names = nil
		}
		for _, p := range c.Pairs {
			names = append(names, "Secret "+p.Namespace+"/"+p.Name)
		}
		fmt.Fprintf(&b, "certificate %s %s: %s  # %s\n", c.Bind, cmp.Or(c.Hostname, "*"), strings.Join(names, ", "), c.Source)
	}
	for _, o := range r.Orders {
		b.WriteString(o.String() + "\n")
	}
	return b.String()
}

// endpointsText is who serves each pool of a table.
func endpointsText(in *object.Snapshot, opt Options, table *route.Table) string {
	var b strings.Builder
	keys := make([]route.PoolKey, len(table.Pools))
	for i, p := range table.Pools {
		keys[i] = p.Key
	}
	all := Endpoints(in, opt, keys)
	for _, key := range keys {
		fmt.Fprintf(&b, "pool %s:", key)
		for _, e := range all[key] {
			b.WriteString(" " + endpointText(e))
		}
		b.WriteString("\n")
	}
	return b.String()
}

// statusText is the status of all objects, and below it the problems.
func statusText(r Result) string {
	var b strings.Builder
	b.WriteString(r.Status.String())
	for i, p := range r.Problems {
		if i == 0 && b.Len() > 0 {
			b.WriteString("\n")
		}
		b.WriteString(p.String() + "\n")
	}
	return b.String()
}

// answerAll answers each line of requests.txt anew.
func answerAll(t *testing.T, table *route.Table, opt Options, requests string) string {
	t.Helper()
	var b bytes.Buffer
	for line := range strings.Lines(requests) {
		line, _, _ = strings.Cut(strings.TrimRight(line, "\n"), " => ")
		if line == "" || line[0] == '#' {
			fmt.Fprintln(&b, line)
			continue
		}
		fmt.Fprintf(&b, "%s => %s\n", line, answer(t, table, opt, line))
	}
	return b.String()
}

var requestLine = regexp.MustCompile(`^([A-Z]+) (\S+)((?: @\S+)?)((?: -H '[^']*')*)$`)

// answer says what happens to a request such as
//
//	GET http://a.example.com:8080/path @127.0.1.1 -H 'Name: value'
//
// or to a connection, see passage. With a header Host it goes to that host, and with https its connection was made for the name in the URL all the same. It goes to the port of the URL or, if there is none, to where the well-known port is bound, and to the address behind the @.
func answer(t *testing.T, table *route.Table, opt Options, line string) string {
	t.Helper()
	parts := requestLine.FindStringSubmatch(line)
	if parts == nil {
		t.Fatalf("request %q is not METHOD URL [@address] [-H 'Name: value']", line)
	}
	u, err := url.Parse(parts[2])
	if err != nil {
		t.Fatal(err)
	}
	protocol := route.Protocol(u.Scheme)
	port := opt.bindPort(map[string]uint16{"http": 80, "https": 443, "tls": 443}[u.Scheme])
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			t.Fatal(err)
		}
		port = uint16(n)
	}
	bind := route.Bind{Address: strings.TrimPrefix(parts[3], " @"), Port: port, UDP: protocol == route.UDP}
	if parts[1] == "CONNECTION" {
		return passage(table.Port(bind), bind, protocol, u.Hostname())
	}
	header := http.Header{}
	for _, h := range regexp.MustCompile(`-H '([^:]*): ([^']*)'`).FindAllStringSubmatch(parts[4], -1) {
		header.Add(h[1], h[2])
	}
	req := &route.Request{Method: parts[1], RawQuery: u.RawQuery}
	if req.Host, err = route.NormalizeHost(cmp.Or(header.Get("Host"), u.Host)); err != nil {
		return "400 bad-host"
	}
	if req.Path, _, err = route.NormalizePath(cmp.Or(u.EscapedPath(), "/")); err != nil {
		return "400 bad-path"
	}
	header.Del("Host")
	req.Header = header
	p := table.Port(bind)
	if p == nil || !sharePort(p.Protocol, protocol) {
		return fmt.Sprintf("no %s on %s", protocol, bind)
	}
	if protocol == route.HTTPS {
		if refused := misdirected(p, req, u.Hostname()); refused != "" {
			return refused
		}
	}
	return outcome(p, req)
}

// misdirected says how a request is refused that came on a connection made for another name, if that name belongs to another listener than the request's host;
// "" when it is not.
func misdirected(p *route.Port, req *route.Request, name string) string {
	name, err := route.NormalizeHost(name)
	made, owner := p.Listener(name), p.Listener(req.Host)
	if err != nil || made == owner {
		return ""
	}
	if owner != nil && owner.LastResort {
		if _, r, _ := p.Lookup(req); r == nil {
			owner = nil
		}
	}
	if owner == nil {
		return "404 no-route"
	}
	return "421 misdirected"
}

// passage says what happens to a connection to
//
//	CONNECTION tls://db.example.com, tcp://:5432 or udp://:53
func passage(p *route.Port, bind route.Bind, protocol route.Protocol, name string) string {
	if p == nil || !sharePort(p.Protocol, protocol) {
		return fmt.Sprintf("no %s on %s", protocol, bind)
	}
	l, r := p.Connection(name)
	switch {
	case r != nil && r.Fault != nil:
		return fmt.Sprintf("%s (%s)  # %s", r.Fault, r.Fault.Why, r.Source)
	case r != nil:
		return fmt.Sprintf("%s: %s  # %s", l.Name, backendsOf(r), r.Source)
	case l != nil && l.Mode == route.Requests:
		return "requests of " + l.Name
	}
	return "closed no-route"
}

func outcome(p *route.Port, req *route.Request) string {
	l, r, reason := p.Lookup(req)
	if r == nil {
		return fmt.Sprintf("404 %s", reason)
	}
	source := "  # " + r.Source.String()
	if r.Fault != nil {
		return fmt.Sprintf("%s (%s)%s", r.Fault, r.Fault.Why, source)
	}
	for _, f := range r.Filters {
		if redirect, ok := f.(*route.Redirect); ok {
			return fmt.Sprintf("%d %s%s", redirect.Status, location(p, l, r, redirect, req), source)
		}
	}
	if len(r.Backends) == 1 && r.Backends[0].Pool != nil {
		if t := r.Backends[0].Pool.TLS; t != nil && t.Broken != "" {
			return fmt.Sprintf("502 %s (%s)%s", route.BackendConnectFailed, t.Broken, source)
		}
	}
	return l.Name + ": " + backendsOf(r) + source
}

func backendsOf(r *route.Rule) string {
	var out []string
	for _, b := range r.Backends {
		to := "nothing"
		switch {
		case b.Fault != nil:
			to = fmt.Sprintf("%s (%s)", b.Fault, b.Fault.Why)
		case b.Pool != nil:
			to = b.Pool.Key.String()
		}
		if len(r.Backends) > 1 {
			to = fmt.Sprintf("%dx %s", b.Weight, to)
		}
		out = append(out, to)
	}
	return strings.Join(out, ", ")
}

// location is where a redirect sends the client, by the rules of HTTPRequestRedirectFilter.
func location(p *route.Port, l *route.Listener, r *route.Rule, f *route.Redirect, req *route.Request) string {
	known := map[string]uint16{"http": 80, "https": 443}
	scheme := cmp.Or(f.Scheme, string(p.Protocol))
	port := f.Port
	if port == 0 && f.Scheme != "" {
		port = known[scheme]
	}
	if port == 0 {
		port = l.Port
	}
	host := cmp.Or(f.Hostname, req.Host)
	if port != known[scheme] {
		host = net.JoinHostPort(host, strconv.Itoa(int(port)))
	}
	out := scheme + "://" + host + f.Path.Apply(r.Match.Path, req.Path)
	if req.RawQuery != "" {
		out += "?" + req.RawQuery
	}
	return out
}
