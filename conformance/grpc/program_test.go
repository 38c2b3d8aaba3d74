package grpc

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/conformance/program"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// binary is Fairlead, built once for all tests.
var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "fairlead-grpc-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	if binary, err = program.Build(dir, "../..", "./cmd/fairlead"); err != nil {
		panic(err)
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
	plain, secure, admin := program.FreePort(t), program.FreePort(t), program.FreePort(t)
	f := &fairlead{backend: b, plain: at(plain), secure: at(secure), roots: x509.NewCertPool()}
	dir := t.TempDir()
	cert, key := newCertificate(t)
	f.roots.AppendCertsFromPEM(cert)
	text := fmt.Sprintf(objects, indented(cert), indented(key))
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	program.Start(t, binary, nil, "serve", "--manifests", dir, "--bind-address", "127.0.0.1", "--admin-address", at(admin), "--backend", "shop/calls:80="+address,
		"--port-map", fmt.Sprintf("80:%d,443:%d", plain, secure))
	program.Eventually(t, 30*time.Second, "Fairlead is ready", func() error {
		res, err := http.Get("http://" + at(admin) + "/readyz")
		if err != nil {
			return err
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return errors.New(res.Status)
		}
		return nil
	})
	return f
}

// at is the address of a port.
func at(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

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
