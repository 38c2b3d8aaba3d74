package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// issuer is a certificate authority for tests.
type issuer struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{t: t}
	pair, text, _ := i.issue(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	cert, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	i.cert, i.key, i.pem = cert, pair.PrivateKey.(*ecdsa.PrivateKey), text
	return i
}

// issue returns a certificate, and it and its key as PEM.
func (i *issuer) issue(template *x509.Certificate) (pair tls.Certificate, cert, key string) {
	i.t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		i.t.Fatal(err)
	}
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().AddDate(0, 1, 0)
	parent, signer := template, private
	if i.cert != nil {
		parent, signer = i.cert, i.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, private.Public(), signer)
	if err != nil {
		i.t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		i.t.Fatal(err)
	}
	text := func(typ string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}))
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, text("CERTIFICATE", der), text("PRIVATE KEY", pkcs8)
}

// configMap is a ConfigMap with the issuer's own certificate.
func (i *issuer) configMap(namespace, name string) string {
	return fmt.Sprintf("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: %s}\ndata:\n  ca.crt: |\n%s", name, namespace, indent(i.pem))
}

// secret is a Secret with a certificate that the issuer issued.
func (i *issuer) secret(namespace, name string, template *x509.Certificate) string {
	_, cert, key := i.issue(template)
	return fmt.Sprintf("---\napiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {name: %s, namespace: %s}\nstringData:\n  tls.crt: |\n%s  tls.key: |\n%s",
		name, namespace, indent(cert), indent(key))
}

func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ") + "\n"
}

// tlsService starts a backend that speaks TLS, and returns a Service that leads to it. It answers with the server name that it was asked for and with the names of
// the client.
func tlsService(t *testing.T, name string, config *tls.Config) string {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		names := ""
		if len(r.TLS.PeerCertificates) > 0 {
			names = strings.Join(r.TLS.PeerCertificates[0].DNSNames, ",")
		}
		_, _ = fmt.Fprintf(w, "sni=%s client=%s", r.TLS.ServerName, names)
	}))
	s.TLS, s.EnableHTTP2 = config, true
	s.Config.ErrorLog = discardLog
	s.StartTLS()
	t.Cleanup(s.Close)
	return serviceAt(name, s.Listener.Addr().(*net.TCPAddr).Port)
}

// serviceAt is a Service of the namespace shop, with its port on the loopback address.
func serviceAt(name string, port int) string {
	return fmt.Sprintf(`---
apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: shop}
spec: {ports: [{name: web, port: 443}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[1]s, namespace: shop, labels: {kubernetes.io/service-name: %[1]s}}
addressType: IPv4
ports: [{name: web, port: %[2]d}]
endpoints: [{addresses: [127.0.0.1]}]
`, name, port)
}

const verifiedFolder = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: shop}
spec:
  gatewayClassName: fairlead
  listeners:
  - {name: http, protocol: HTTP, port: 80}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{name: gw}]
  rules:
  - backendRefs: [{name: web, port: 443}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: web, namespace: shop}
spec:
  targetRefs: [{group: "", kind: Service, name: web, sectionName: web}]
  validation: {hostname: pod.example.com, caCertificateRefs: [{group: "", kind: ConfigMap, name: ca}]}
`

// A BackendTLSPolicy is kept to, also when the authorities that it names change while requests are served.
func TestBackendTLSPolicyIsServed(t *testing.T) {
	ours, foreign := newIssuer(t), newIssuer(t)
	pair, _, _ := ours.issue(&x509.Certificate{DNSNames: []string{"pod.example.com"}})
	dir := t.TempDir()
	writeFile(t, dir, "web.yaml", verifiedFolder+tlsService(t, "web", &tls.Config{Certificates: []tls.Certificate{pair}}))
	writeFile(t, dir, "ca.yaml", ours.configMap("shop", "ca"))
	r := serveFolder(t, dir)
	served := func() error {
		a, err := get("http://"+r.http+"/", "client.example.com")
		if err == nil && a.body != "sni=pod.example.com client=" {
			err = fmt.Errorf("got %d %q", a.status, a.body)
		}
		return err
	}
	refused := func(reason string) func() error {
		return func() error {
			a, err := get("http://"+r.http+"/", "client.example.com")
			if err == nil && (a.status != http.StatusBadGateway || a.header.Get("X-Fairlead-Reason") != reason) {
				err = fmt.Errorf("got %d %s %q", a.status, a.header.Get("X-Fairlead-Reason"), a.body)
			}
			return err
		}
	}
	eventually(t, "with the authority of the backend", served)
	writeFile(t, dir, "ca.yaml", foreign.configMap("shop", "ca"))
	eventually(t, "with another authority", refused("backend-connect-failed"))
	writeFile(t, dir, "ca.yaml", "")
	eventually(t, "without an authority", refused("backend-connect-failed"))
	writeFile(t, dir, "ca.yaml", ours.configMap("shop", "ca"))
	eventually(t, "with the authority of the backend again", served)
	status, out, _ := runCommand(t, "explain", "-f", dir, "http://client.example.com/")
	if status != 0 || !strings.Contains(out, "verify pod.example.com") {
		t.Errorf("explain does not say who the endpoints must be: %s", out)
	}
}

var discardLog = log.New(io.Discard, "", 0)
