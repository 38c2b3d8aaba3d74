package acme

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/conformance/program"
)

// apiServer is a real etcd and a real API server, without nodes: what Fairlead says to a cluster needs no more. All tests share one; each has its namespaces.
type apiServer struct {
	once    sync.Once
	err     error
	dir     string
	bin     string
	running []*exec.Cmd
	next    atomic.Int32
}

var theCluster apiServer

func (a *apiServer) kubeconfig() string { return filepath.Join(a.dir, "kubeconfig") }

func (a *apiServer) stop() {
	for _, cmd := range a.running {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	_ = os.RemoveAll(a.dir)
}

// begin starts the programs, which are built if they are not there.
func (a *apiServer) begin(t *testing.T) error {
	cmd := exec.Command("go", "run", "-C", "..", "./cmd/cluster", "programs")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("build the cluster's programs: %w", err)
	}
	a.bin = strings.TrimSpace(string(out))
	if a.dir, err = os.MkdirTemp("", "fairlead-acme-cluster-"); err != nil { //nolint:usetesting // it outlives the test that is the first
		return err
	}
	peer, client, secure := program.FreePort(t), program.FreePort(t), program.FreePort(t)
	if err := a.writeFiles(secure); err != nil {
		return err
	}
	url := func(port int) string { return fmt.Sprintf("http://127.0.0.1:%d", port) }
	err = errors.Join(
		a.run("etcd", "--data-dir", filepath.Join(a.dir, "etcd"), "--listen-client-urls", url(client), "--advertise-client-urls", url(client),
			"--listen-peer-urls", url(peer), "--initial-advertise-peer-urls", url(peer), "--initial-cluster", "default="+url(peer), "--unsafe-no-fsync"),
		a.run("kube-apiserver", "--etcd-servers", url(client), "--secure-port", fmt.Sprint(secure), "--bind-address", "127.0.0.1", "--cert-dir", a.dir,
			"--service-cluster-ip-range", "10.96.0.0/16", "--token-auth-file", filepath.Join(a.dir, "tokens.csv"), "--authorization-mode", "RBAC",
			"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", filepath.Join(a.dir, "sa.key"),
			"--service-account-signing-key-file", filepath.Join(a.dir, "sa.key")),
	)
	if err != nil {
		return err
	}
	if err := a.ready(); err != nil {
		return err
	}
	return a.install()
}

func (a *apiServer) writeFiles(port int) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	config := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:%d", insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: test}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, port)
	return errors.Join(
		os.WriteFile(filepath.Join(a.dir, "sa.key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600),
		os.WriteFile(filepath.Join(a.dir, "tokens.csv"), []byte("test,admin,admin,\"system:masters\"\n"), 0o600),
		os.WriteFile(a.kubeconfig(), []byte(config), 0o600),
	)
}

func (a *apiServer) run(name string, args ...string) error {
	cmd := exec.Command(filepath.Join(a.bin, name), args...)
	log, err := os.Create(filepath.Join(a.dir, name+".log"))
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	a.running = append(a.running, cmd)
	return nil
}

func (a *apiServer) ready() error {
	var err error
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		if _, err = a.kubectl("", "get", "--raw", "/readyz"); err == nil {
			return nil
		}
	}
	log, _ := os.ReadFile(filepath.Join(a.dir, "kube-apiserver.log"))
	return fmt.Errorf("the API server is not ready: %w\n%s", err, log[max(0, len(log)-3000):])
}

// install adds what Fairlead's chart and the Gateway API would.
func (a *apiServer) install() error {
	cmd := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api")
	cmd.Dir = "../.."
	dir, err := cmd.Output()
	if err != nil {
		return err
	}
	if _, err := a.kubectl("", "apply", "--server-side", "-f", filepath.Join(strings.TrimSpace(string(dir)), "config/crd/standard")); err != nil {
		return err
	}
	_, err = a.kubectl(`apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: fairlead}
spec: {controller: fairlead.io/ingress-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: fairlead}
spec: {controllerName: fairlead.io/gateway-controller}
`, "apply", "-f", "-")
	return err
}

func (a *apiServer) kubectl(stdin string, args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(a.bin, "kubectl"), append([]string{"--kubeconfig", a.kubeconfig()}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// fleet is several Fairleads that serve one namespace, behind a load balancer that the authority comes through.
type fleet struct {
	t        *testing.T
	a        *authority
	own, app string // namespaces
	config   string
	replicas []*replica
	http     *balancer
	tls      *balancer
}

type replica struct {
	*program.Process
	http, tls, admin int
}

// newFleet starts replicas that know the issuers of acme, the YAML of the configuration.
func newFleet(t *testing.T, a *authority, replicas int, acme string) *fleet {
	t.Helper()
	theCluster.once.Do(func() { theCluster.err = theCluster.begin(t) })
	if theCluster.err != nil {
		t.Fatal(theCluster.err)
	}
	n := theCluster.next.Add(1)
	f := &fleet{t: t, a: a, own: fmt.Sprintf("own-%d", n), app: fmt.Sprintf("app-%d", n)}
	for _, ns := range []string{f.own, f.app} {
		f.kubectl("", "create", "namespace", ns)
	}
	f.config = filepath.Join(t.TempDir(), "config.yaml")
	text := "acme:\n  firstRetry: 3s\n" + acme + "drain: {delay: 0s, grace: 1s}\n"
	if err := os.WriteFile(f.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f.http, f.tls = newBalancer(t, a.http), newBalancer(t, a.tls)
	for range replicas {
		f.add()
	}
	return f
}

// add starts another replica.
func (f *fleet) add() {
	f.t.Helper()
	r := &replica{http: program.FreePort(f.t), tls: program.FreePort(f.t), admin: program.FreePort(f.t)}
	r.Process = program.Start(f.t, programs.fairlead, nil, "serve", "--kubeconfig", theCluster.kubeconfig(), "--config", f.config, "--bind-address", "127.0.0.1",
		"--namespace", f.own, "--watch-namespaces", f.app, "--gateway-addresses", "host", "--log-level", "debug",
		"--port-map", fmt.Sprintf("80:%d,443:%d", r.http, r.tls), "--admin-address", f.a.address(r.admin))
	f.replicas = append(f.replicas, r)
	f.balance()
}

// balance lets the load balancer know who is there.
func (f *fleet) balance() {
	var http, tls []string
	for _, r := range f.replicas {
		select {
		case <-r.Done:
		default:
			http, tls = append(http, f.a.address(r.http)), append(tls, f.a.address(r.tls))
		}
	}
	f.http.set(http)
	f.tls.set(tls)
}

func (b *balancer) set(to []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.to = to
}

func (f *fleet) kubectl(stdin string, args ...string) string {
	f.t.Helper()
	out, err := theCluster.kubectl(stdin, args...)
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}

func (f *fleet) apply(yaml string) { f.t.Helper(); f.kubectl(yaml, "apply", "-n", f.app, "-f", "-") }

// ingress makes an Ingress that wants certificates for hosts.
func (f *fleet) ingress(name, issuer string, hosts ...string) {
	f.t.Helper()
	f.apply(strings.ReplaceAll(ingressYAML(name, issuer, hosts...), ", namespace: default", ""))
}

// wantServed waits until every replica presents a certificate of the authority for a host.
func (f *fleet) wantServed(host string, within time.Duration) {
	f.t.Helper()
	for i, r := range f.replicas {
		select {
		case <-r.Done:
			continue
		default:
		}
		program.Eventually(f.t, within, fmt.Sprintf("replica %d presents a certificate for %s", i, host), func() error {
			_, err := served(f.a.address(r.tls), host, f.a.root())
			return err
		})
	}
}

func TestHTTP01IsAnsweredByEveryReplica(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, nil)
	f := newFleet(t, a, 3, "  issuers:\n"+a.issuerYAML("pebble", "challenges: [http-01]"))
	f.ingress("web", "pebble", "a.example.com", "b.example.com")
	f.wantServed("a.example.com", 2*time.Minute)
	f.wantServed("b.example.com", 2*time.Minute)
	if n := a.orders(); n != 2 {
		t.Errorf("the authority issued %d certificates, want 2", n)
	}
}

func TestTLSALPN01IsAnsweredByEveryReplica(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, nil)
	f := newFleet(t, a, 2, "  issuers:\n"+a.issuerYAML("pebble", "challenges: [tls-alpn-01]"))
	f.ingress("web", "pebble", "a.example.com")
	f.wantServed("a.example.com", 2*time.Minute)
}
