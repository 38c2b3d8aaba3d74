package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
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

// configMap is a ConfigMap of the namespace shop with the issuer's own certificate.
func (i *issuer) configMap(name string) string {
	return fmt.Sprintf("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: shop}\ndata:\n  ca.crt: |\n%s", name, indent(i.pem))
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
	writeFile(t, dir, "ca.yaml", ours.configMap("ca"))
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
	writeFile(t, dir, "ca.yaml", foreign.configMap("ca"))
	eventually(t, "with another authority", refused("backend-connect-failed"))
	removeFile(t, dir, "ca.yaml")
	eventually(t, "without an authority", refused("backend-connect-failed"))
	writeFile(t, dir, "ca.yaml", ours.configMap("ca"))
	eventually(t, "with the authority of the backend again", served)
	status, out, _ := runCommand(t, "explain", "-f", dir, "http://client.example.com/")
	if status != 0 || !strings.Contains(out, "verify pod.example.com") {
		t.Errorf("explain does not say who the endpoints must be: %s", out)
	}
}

func removeFile(t testing.TB, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

var discardLog = log.New(io.Discard, "", 0)

// demandingFolder is two Gateways on one port, of which the first demands certificates of clients.
const demandingFolder = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: strict, namespace: shop}
spec:
  gatewayClassName: fairlead
  tls: {frontend: {default: {validation: {mode: MODE, caCertificateRefs: [{group: "", kind: ConfigMap, name: clients}]}}}}
  listeners:
  - {name: https, protocol: HTTPS, port: 443, hostname: strict.example.com, tls: {certificateRefs: [{name: cert}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: open, namespace: shop}
spec:
  gatewayClassName: fairlead
  listeners:
  - {name: https, protocol: HTTPS, port: 443, hostname: open.example.com, tls: {certificateRefs: [{name: cert}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{name: strict}, {name: open}]
  rules:
  - filters: [{type: RequestRedirect, requestRedirect: {hostname: answered.example.com}}]
`

// shaker makes requests over connections of its own.
type shaker struct {
	address string
	config  *tls.Config // without a server name
}

// ask sends a request for a host over a connection that was made for a server name, and returns the status; 0 if the connection could not be made or broke.
func (s *shaker) ask(sni, host string) (status int, resumed bool) {
	c, err := s.dial(sni)
	if err != nil {
		return 0, false
	}
	defer func() { _ = c.Close() }()
	return askOver(c, host), c.ConnectionState().DidResume
}

func (s *shaker) dial(sni string) (*tls.Conn, error) {
	config := s.config.Clone()
	config.ServerName, config.InsecureSkipVerify = sni, true
	return tls.Dial("tcp", s.address, config)
}

func askOver(c *tls.Conn, host string) (status int) {
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0
	}
	_ = res.Body.Close()
	return res.StatusCode
}

func TestClientCertificatesAreDemanded(t *testing.T) {
	ours, foreign := newIssuer(t), newIssuer(t)
	client := &x509.Certificate{DNSNames: []string{"client"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	good, _, _ := ours.issue(client)
	bad, _, _ := foreign.issue(client)
	server, _, _ := ours.issue(&x509.Certificate{DNSNames: []string{"client"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	dir := t.TempDir()
	mode := func(m string) { writeFile(t, dir, "gateways.yaml", strings.ReplaceAll(demandingFolder, "MODE", m)) }
	mode("AllowValidOnly")
	writeFile(t, dir, "cert.yaml", ours.secret("shop", "cert", &x509.Certificate{DNSNames: []string{"*.example.com"}}))
	writeFile(t, dir, "ca.yaml", ours.configMap("clients"))
	r := serveFolder(t, dir)
	with := func(pairs ...tls.Certificate) *shaker { return &shaker{r.https, &tls.Config{Certificates: pairs}} }
	expect := func(what string, s *shaker, sni, host string, want int) {
		t.Helper()
		if got, _ := s.ask(sni, host); got != want {
			t.Errorf("%s: SNI %q, Host %s: %d, want %d", what, sni, host, got, want)
		}
	}
	const strict, open = "strict.example.com", "open.example.com"
	expect("good certificate", with(good), strict, strict, 302)
	expect("no certificate", with(), strict, strict, 0)
	expect("certificate of another authority", with(bad), strict, strict, 0)
	expect("certificate for servers", with(server), strict, strict, 0)
	expect("no certificate, other Gateway", with(), open, open, 302)
	for _, sni := range []string{open, "", "unknown.example.org"} {
		expect("a way around", with(), sni, strict, 421)
		expect("a way around", with(good), sni, strict, 421) // nobody asked for it
	}
	expect("upper case", with(), "Strict.Example.Com", strict, 0)

	// A session that began without a certificate is none with one, and a connection that is open is no way around a new demand.
	session := &shaker{r.https, &tls.Config{ClientSessionCache: tls.NewLRUClientSessionCache(4)}}
	mode("AllowInsecureFallback")
	eventually(t, "clients are let in without", func() error {
		if got, _ := session.ask(strict, strict); got != 302 {
			return fmt.Errorf("got %d", got)
		}
		return nil
	})
	if got, resumed := session.ask(strict, strict); got != 302 || !resumed {
		t.Errorf("the session is not resumed while nothing changes: %d, %t", got, resumed)
	}
	expect("certificate of another authority", with(bad), strict, strict, 302)
	kept, err := session.dial(strict)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = kept.Close() }()
	if got := askOver(kept, strict); got != 302 {
		t.Fatalf("got %d", got)
	}
	mode("AllowValidOnly")
	eventually(t, "a new connection needs a certificate", func() error {
		if got, resumed := session.ask(strict, strict); got != 0 {
			return fmt.Errorf("got %d, resumed %t", got, resumed)
		}
		return nil
	})
	if got := askOver(kept, strict); got != 421 && got != 0 {
		t.Errorf("an old connection is a way around the demand: %d", got)
	}

	// Without an authority nobody is let in, and the neighbours serve on.
	removeFile(t, dir, "ca.yaml")
	eventually(t, "the listener is closed", func() error {
		if got, _ := with(good).ask(strict, strict); got == 302 {
			return fmt.Errorf("got %d", got)
		}
		return nil
	})
	expect("other Gateway", with(), open, open, 302)
	writeFile(t, dir, "ca.yaml", foreign.configMap("clients"))
	eventually(t, "the other authority counts", func() error {
		if got, _ := with(bad).ask(strict, strict); got != 302 {
			return fmt.Errorf("got %d", got)
		}
		return nil
	})
	expect("certificate of the old authority", with(good), strict, strict, 0)
}

// Two Gateways with certificates of their own and one without lead to the same backend, which is told who asks each time.
func TestGatewaysPresentTheirCertificates(t *testing.T) {
	ours := newIssuer(t)
	pair, _, _ := ours.issue(&x509.Certificate{DNSNames: []string{"pod.example.com"}})
	dir := t.TempDir()
	folder := strings.NewReplacer("metadata: {name: gw, ", "metadata: {name: none, ", "[{name: gw}]", "[{name: none}, {name: one}, {name: two}]", "port: 80}", "port: 80, hostname: none.example.com}").Replace(verifiedFolder)
	for _, name := range []string{"one", "two"} {
		folder += fmt.Sprintf(`---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: %[1]s, namespace: shop}
spec:
  gatewayClassName: fairlead
  tls: {backend: {clientCertificateRef: {name: %[1]s}}}
  listeners:
  - {name: http, protocol: HTTP, port: 80, hostname: %[1]s.example.com}
`, name) + ours.secret("shop", name, &x509.Certificate{DNSNames: []string{name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	}
	folder += ours.configMap("ca") + tlsService(t, "web", &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert})
	writeFile(t, dir, "web.yaml", folder)
	r := serveFolder(t, dir)
	for range 3 {
		for host, want := range map[string]string{"none": "", "one": "one", "two": "two"} {
			a, err := get("http://"+r.http+"/", host+".example.com")
			if err != nil || a.body != "sni=pod.example.com client="+want {
				t.Errorf("%s: got %d %q, %v", host, a.status, a.body, err)
			}
		}
	}
}

// A TCPRoute that leads to a verified backend is plain on the client's side and TLS on the other.
func TestConnectionsAreMadeAsPoliciesSay(t *testing.T) {
	ours, foreign := newIssuer(t), newIssuer(t)
	pair, _, _ := ours.issue(&x509.Certificate{DNSNames: []string{"pod.example.com"}})
	dir := t.TempDir()
	folder := strings.NewReplacer("protocol: HTTP, ", "protocol: TCP, ", "kind: HTTPRoute", "kind: TCPRoute").Replace(verifiedFolder)
	writeFile(t, dir, "web.yaml", folder+tlsService(t, "web", &tls.Config{Certificates: []tls.Certificate{pair}}))
	writeFile(t, dir, "ca.yaml", ours.configMap("ca"))
	r := serveFolder(t, dir)
	said := func() string {
		c, err := net.Dial("tcp", r.http)
		if errors.Is(err, syscall.ECONNRESET) {
			return "" // it was reset before Dial had looked
		}
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		text, _ := io.ReadAll(c) // a connection that is reset has said what it has said
		return string(text)
	}
	if got := said(); !strings.Contains(got, "sni=pod.example.com") {
		t.Errorf("the backend said %q", got)
	}
	writeFile(t, dir, "ca.yaml", foreign.configMap("ca"))
	eventually(t, "nothing comes from a backend that is another", func() error {
		if got := said(); got != "" {
			return fmt.Errorf("the backend said %q", got)
		}
		return nil
	})
}
