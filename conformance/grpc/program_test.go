package grpc

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// program is Fairlead, built once for all tests.
var program string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "fairlead-grpc-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "fairlead")
	cmd := exec.Command("go", "build", "-o", program, "./cmd/fairlead")
	cmd.Dir = "../.."
	if text, err := cmd.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("build Fairlead: %v\n%s", err, text))
	}
	return m.Run()
}

// objects are served: grpc.test by a GRPCRoute for three services, and slow.test by an HTTPRoute with a timeout. %[1]s and %[2]s are a certificate and its key.
const objects = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: shop}
spec:
  gatewayClassName: fairlead
  listeners:
  - {name: http, protocol: HTTP, port: 80}
  - {name: https, protocol: HTTPS, port: 443, tls: {certificateRefs: [{name: cert}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: calls, namespace: shop}
spec:
  parentRefs: [{name: gw}]
  hostnames: [grpc.test]
  rules:
  - matches: [{method: {service: grpc.testing.TestService}}]
    backendRefs: [{name: calls, port: 80}]
  - matches: [{method: {service: grpc.health.v1.Health}}, {method: {service: grpc.reflection.v1.ServerReflection}}]
    backendRefs: [{name: calls, port: 80}]
  - matches: [{method: {service: grpc.testing.ReconnectService}}]
    backendRefs: [{name: nobody, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: slow, namespace: shop}
spec:
  parentRefs: [{name: gw}]
  hostnames: [slow.test]
  rules:
  - timeouts: {request: 300ms}
    backendRefs: [{name: calls, port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: calls, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: nobody, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Secret
metadata: {name: cert, namespace: shop}
type: kubernetes.io/tls
stringData:
  tls.crt: |
%[1]s
  tls.key: |
%[2]s
`

// fairlead is a running program, and the backend behind it.
type fairlead struct {
	*backend
	plain, secure string // addresses
	roots         *x509.CertPool
}

func startFairlead(t *testing.T) *fairlead {
	t.Helper()
	b, address := startBackend(t)
	f := &fairlead{backend: b, plain: freeAddress(t), secure: freeAddress(t), roots: x509.NewCertPool()}
	admin := freeAddress(t)
	dir := t.TempDir()
	cert, key := newCertificate(t)
	f.roots.AppendCertsFromPEM(cert)
	text := fmt.Sprintf(objects, indented(cert), indented(key))
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve", "--manifests", dir, "--bind-address", "127.0.0.1", "--admin-address", admin, "--backend", "shop/calls:80="+address,
		"--port-map", "80:"+portOf(f.plain)+",443:"+portOf(f.secure))
	log := new(lockedBuffer)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log)
		}
	})
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		res, err := http.Get("http://" + admin + "/readyz")
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return f
			}
		}
		if time.Since(begun) > 30*time.Second {
			t.Fatalf("not ready: %v\n%s", err, log)
		}
	}
}

// dial returns a connection on which calls to a host are made.
func (f *fairlead) dial(t *testing.T, host string, secure bool) *grpc.ClientConn {
	t.Helper()
	address, creds := f.plain, insecure.NewCredentials()
	if secure {
		address, creds = f.secure, credentials.NewTLS(&tls.Config{RootCAs: f.roots, ServerName: host})
	}
	c, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(creds), grpc.WithAuthority(host))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// newCertificate is a certificate for the hosts of objects, and its own authority.
func newCertificate(t *testing.T) (cert, key []byte) {
	t.Helper()
	pair, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"grpc.test", "slow.test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, pair.Public(), pair)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(pair)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
}

func indented(text []byte) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(string(text)), "\n", "\n    ")
}

// lockedBuffer is a buffer for several writers.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

var _ io.Writer = (*lockedBuffer)(nil)

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
