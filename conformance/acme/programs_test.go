package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/conformance/program"
)

// programs are built once for all tests.
var programs struct {
	fairlead, pebble, names string
	certs                   string // Pebble's own, below its module
}

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "fairlead-acme-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	defer theCluster.stop()
	programs.fairlead = must(program.Build(dir, "../..", "./cmd/fairlead"))
	programs.pebble = must(program.Build(dir, ".", "github.com/letsencrypt/pebble/v2/cmd/pebble"))
	programs.names = must(program.Build(dir, ".", "github.com/letsencrypt/pebble/v2/cmd/pebble-challtestsrv"))
	where, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/letsencrypt/pebble/v2").Output()
	if err != nil {
		panic(err)
	}
	programs.certs = filepath.Join(strings.TrimSpace(string(where)), "test", "certs")
	return m.Run()
}

// authority is a running Pebble with its DNS.
type authority struct {
	t             *testing.T
	api, admin    int // ports
	dns, dnsAdmin int
	http, tls     int // where it looks for proofs
	config        map[string]any
	env           []string
	pebble, names *program.Process
	client        *http.Client
	zone          *zone // nil: the DNS says 127.0.0.1 to everything
}

// newAuthority starts an authority. change may change its configuration.
func newAuthority(t *testing.T, change func(*authority)) *authority {
	t.Helper()
	a := &authority{t: t, api: program.FreePort(t), admin: program.FreePort(t), dns: program.FreePort(t), dnsAdmin: program.FreePort(t), http: program.FreePort(t), tls: program.FreePort(t)}
	a.config = map[string]any{
		"listenAddress": a.address(a.api), "managementListenAddress": a.address(a.admin),
		"certificate": filepath.Join(programs.certs, "localhost", "cert.pem"), "privateKey": filepath.Join(programs.certs, "localhost", "key.pem"),
		"httpPort": a.http, "tlsPort": a.tls, "ocspResponderURL": "", "externalAccountBindingRequired": false,
		"domainBlocklist": []string{"refused.example"}, "retryAfter": map[string]int{"authz": 1, "order": 1}, "keyAlgorithm": "ecdsa",
		// An authority with several profiles takes one at random for who names none.
		"profiles": map[string]any{"default": map[string]any{"description": "", "validityPeriod": 7776000}},
	}
	if change != nil {
		change(a)
	}
	if a.zone == nil {
		a.names = program.Start(t, programs.names, nil, "-dnsserver", a.address(a.dns), "-management", a.address(a.dnsAdmin), "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "",
			"-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "")
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(must(os.ReadFile(a.roots())))
	a.client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	a.start()
	return a
}

func (*authority) address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
func (*authority) roots() string           { return filepath.Join(programs.certs, "pebble.minica.pem") }
func (a *authority) directory() string     { return "https://" + a.address(a.api) + "/dir" }

// profile adds a profile whose certificates live for some seconds.
func (a *authority) profile(name string, seconds int) {
	a.config["profiles"].(map[string]any)[name] = map[string]any{"description": "", "validityPeriod": seconds}
}

// start starts Pebble. It has another root each time, and remembers nothing.
func (a *authority) start() {
	a.t.Helper()
	file := filepath.Join(a.t.TempDir(), "pebble.json")
	text := must(json.Marshal(map[string]any{"pebble": a.config}))
	if err := os.WriteFile(file, text, 0o600); err != nil {
		a.t.Fatal(err)
	}
	// Validation sleeps up to 5 s, one nonce of twenty is refused, and authorizations are not used again, unless a test says otherwise.
	env := append([]string{"PEBBLE_VA_NOSLEEP=0", "PEBBLE_WFE_NONCEREJECT=5", "PEBBLE_AUTHZREUSE=0"}, a.env...)
	a.pebble = program.Start(a.t, programs.pebble, env, "-config", file, "-dnsserver", a.address(a.dns))
	program.Eventually(a.t, 20*time.Second, "Pebble serves", func() error { _, err := a.get(a.directory()); return err })
}

func (a *authority) get(url string) ([]byte, error) {
	resp, err := a.client.Get(url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, resp.Status)
	}
	return io.ReadAll(resp.Body)
}

// root is what chains of the authority end in.
func (a *authority) root() *x509.CertPool {
	a.t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(must(a.get("https://" + a.address(a.admin) + "/roots/0")))
	return pool
}

// orders is how many certificates the authority has issued.
func (a *authority) orders() int {
	n := 0
	for line := range strings.Lines(a.pebble.Log.String()) {
		if strings.Contains(line, "Issued certificate serial") {
			n++
		}
	}
	return n
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// balancer spreads the connections to a port over several others in turn, as the load balancer before several replicas does.
type balancer struct {
	mu   sync.Mutex
	to   []string
	turn int
}

func newBalancer(t *testing.T, port int, to ...string) *balancer {
	t.Helper()
	b := &balancer{to: to}
	ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go b.serve(c)
		}
	}()
	return b
}

func (b *balancer) serve(c net.Conn) {
	defer c.Close()
	b.mu.Lock()
	to := b.to
	first := b.turn
	b.turn++
	b.mu.Unlock()
	for i := range to {
		d, err := net.DialTimeout("tcp", to[(first+i)%len(to)], time.Second)
		if err != nil {
			continue
		}
		defer d.Close()
		go func() { _, _ = io.Copy(d, c); _ = d.(*net.TCPConn).CloseWrite() }()
		_, _ = io.Copy(c, d)
		return
	}
}

// served returns the chain that a port presents for a name, checked against roots if there are any.
func served(address, host string, roots *x509.CertPool) ([]*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{ServerName: host, RootCAs: roots, InsecureSkipVerify: roots == nil}}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.(*tls.Conn).ConnectionState().PeerCertificates, nil
}
