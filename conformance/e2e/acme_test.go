package e2e_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/conformance/cluster"
)

// Where the certificate authority is, and the hosts that certificates are ordered for.
const (
	authorityHost = "pebble." + space + ".svc.cluster.local"
	authorityDNS  = "10.96.53.53"
	orderedHost   = "ordered.e2e.test"
	listenedHost  = "listened.e2e.test"
)

// authorityPair is the certificate of the authority's own server, which has to be trusted before it can issue any.
var authorityPair = sync.OnceValues(func() (certificate, key string) { return selfSigned(authorityHost) })

// certificates has an authority in the cluster issue certificates for an Ingress and for a Gateway, which live so short that they are renewed while clients make one
// connection after the other.
func (f *field) certificates(t *testing.T) {
	f.startAuthority(t)
	f.upgrade(t, issuerValues(t))
	begun := time.Now()
	apply(t, orderManifest)
	must(t, "", "kubectl", "wait", "-n", space, "gateway/ordered", "--for=condition=Programmed", "--timeout=60s")
	gateway := f.address(t, space, "gateway/ordered", "{.status.addresses[0].value}")
	f.tellDNS(t, listenedHost, gateway)
	roots := f.authorityRoots(t)
	ways := map[string]string{orderedHost: f.ingress + ":443", listenedHost: gateway + ":443"}
	serials, loads := map[string]string{}, map[string]*load{}
	for host, address := range ways {
		secure := &tls.Config{RootCAs: roots, ServerName: host, MinVersion: tls.VersionTLS12}
		eventually(t, 3*time.Minute, func() error { return answersAt(t, address, host, secure) })
		serials[host] = serial(t, address, secure)
		loads[host] = loadOn(t, 4, address, host, secure, nil)
	}
	figure(t, "an Ingress and a Gateway get their first certificates from an authority in the cluster: after %.1f s", time.Since(begun).Seconds())
	for host, address := range ways {
		eventually(t, 3*time.Minute, func() error {
			if now := serial(t, address, &tls.Config{RootCAs: roots, ServerName: host, MinVersion: tls.VersionTLS12}); now == serials[host] {
				return fmt.Errorf("%s still has the certificate %s", host, now)
			}
			return nil
		})
	}
	time.Sleep(3 * time.Second)
	for host, l := range loads {
		l.end(t, "the certificate of "+host+" is renewed")
	}
	f.issued(t)
	must(t, "", "kubectl", "delete", "-n", space, "ingress/ordered", "gateway/ordered", "httproute/ordered", "deployment/pebble")
}

// issued looks at what users see of it: the Secrets are of the type that other programs know, and the Gateway says that it has what it needs.
func (f *field) issued(t *testing.T) {
	t.Helper()
	for what, want := range map[string][2]string{
		"secret/ordered-tls":  {"{.type}", "kubernetes.io/tls"},
		"secret/listened-tls": {"{.type}", "kubernetes.io/tls"},
		"gateway/ordered":     {`{.status.conditions[?(@.type=="fairlead.io/CertificatesIssued")].status}`, "True"},
	} {
		eventually(t, 30*time.Second, func() error {
			if got := must(t, "", "kubectl", "get", "-n", space, what, "-o", "jsonpath="+want[0]); got != want[1] {
				return fmt.Errorf("%s: %s is %q, want %q", what, want[0], got, want[1])
			}
			return nil
		})
	}
}

// upgrade gives the release further values, in YAML.
func (f *field) upgrade(t *testing.T, values string) {
	t.Helper()
	args, err := f.cluster.HelmArgs(*checkout)
	if err != nil {
		t.Fatal(err)
	}
	must(t, values, "helm", append([]string{"upgrade", "-f", "-"}, args...)...)
	f.settled(t)
}

// startAuthority runs Pebble and its DNS in a pod. It takes its time to look at proofs, and refuses one nonce of twenty, as it does unless it is told not to.
func (f *field) startAuthority(t *testing.T) {
	t.Helper()
	certificate, key := authorityPair()
	encode := base64.StdEncoding.EncodeToString
	apply(t, strings.NewReplacer("@CRT@", encode([]byte(certificate)), "@KEY@", encode([]byte(key)), "@ADDRESS@", f.ingress, "@DNS@", authorityDNS,
		"@IMAGE@", cluster.AuthorityImage).Replace(authorityManifest))
	must(t, "", "kubectl", "rollout", "status", "-n", space, "deployment/pebble", "--timeout=60s")
}

// tellDNS has the authority find a host at an address. It finds all others at that of Ingresses.
func (f *field) tellDNS(t *testing.T, host, address string) {
	t.Helper()
	pod := pods(t, space, "app=pebble")[0]
	res, err := http.Post("http://"+pod.ip+":8055/add-a", "application/json", strings.NewReader(fmt.Sprintf(`{"host": "%s.", "addresses": [%q]}`, host, address)))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatalf("the authority's DNS: %s", res.Status)
	}
}

// authorityRoots asks the authority for what its certificates lead to.
func (f *field) authorityRoots(t *testing.T) *x509.CertPool {
	t.Helper()
	certificate, _ := authorityPair()
	own, issued := x509.NewCertPool(), x509.NewCertPool()
	own.AppendCertsFromPEM([]byte(certificate))
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: own, ServerName: authorityHost, MinVersion: tls.VersionTLS12}}}
	res, err := client.Get("https://" + pods(t, space, "app=pebble")[0].ip + ":15000/roots/0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if !issued.AppendCertsFromPEM(text) {
		t.Fatalf("the authority's root is %q", text)
	}
	return issued
}

// serial returns the serial number of the certificate that is presented.
func serial(t *testing.T, address string, secure *tls.Config) string {
	t.Helper()
	c := &client{address: address, tls: secure}
	defer c.close()
	if err := c.connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c.conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// issuerValues are the chart's values for the authority.
func issuerValues(t *testing.T) string {
	t.Helper()
	certificate, _ := authorityPair()
	return fmt.Sprintf(`config:
  acme:
    firstRetry: 3s
    issuers:
    - name: pebble
      directory: https://%s:14000/dir
      email: ops@e2e.test
      acceptTerms: true
      resolvers: ["%s:53"]
      ca: |
        %s
`, authorityHost, authorityDNS, strings.ReplaceAll(strings.TrimSpace(certificate), "\n", "\n        "))
}

const orderManifest = `apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: ordered, namespace: e2e, annotations: {fairlead.io/acme-issuer: pebble}}
spec:
  ingressClassName: fairlead
  tls: [{hosts: [ordered.e2e.test], secretName: ordered-tls}]
  rules:
  - host: ordered.e2e.test
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: app, port: {number: 80}}}}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: ordered, namespace: e2e, annotations: {fairlead.io/acme-issuer: pebble}}
spec:
  gatewayClassName: fairlead
  listeners:
  - {name: http, port: 80, protocol: HTTP}
  - {name: https, port: 443, protocol: HTTPS, hostname: listened.e2e.test, tls: {certificateRefs: [{name: listened-tls}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: ordered, namespace: e2e}
spec:
  parentRefs: [{name: ordered}]
  hostnames: [listened.e2e.test]
  rules: [{backendRefs: [{name: app, port: 80}]}]
`

const authorityManifest = `apiVersion: v1
kind: Secret
metadata: {name: pebble, namespace: e2e}
type: kubernetes.io/tls
data: {tls.crt: @CRT@, tls.key: @KEY@}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: pebble, namespace: e2e}
data:
  pebble.json: |
    {"pebble": {"listenAddress": ":14000", "managementListenAddress": ":15000", "certificate": "/tls/tls.crt", "privateKey": "/tls/tls.key", "httpPort": 80, "tlsPort": 443,
      "ocspResponderURL": "", "externalAccountBindingRequired": false, "retryAfter": {"authz": 1, "order": 1}, "keyAlgorithm": "ecdsa",
      "profiles": {"brief": {"description": "", "validityPeriod": 120}}}}
---
apiVersion: v1
kind: Service
metadata: {name: pebble, namespace: e2e}
spec:
  clusterIP: @DNS@
  selector: {app: pebble}
  ports: [{name: https, port: 14000}, {name: dns, port: 53, targetPort: 8053, protocol: UDP}, {name: dns-tcp, port: 53, targetPort: 8053, protocol: TCP}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: pebble, namespace: e2e}
spec:
  selector: {matchLabels: {app: pebble}}
  template:
    metadata: {labels: {app: pebble}}
    spec:
      terminationGracePeriodSeconds: 1
      volumes: [{name: tls, secret: {secretName: pebble}}, {name: config, configMap: {name: pebble}}]
      containers:
      - name: pebble
        image: @IMAGE@
        imagePullPolicy: Never
        command: [/pebble, -config, /config/pebble.json, -dnsserver, "127.0.0.1:8053"]
        volumeMounts: [{name: tls, mountPath: /tls}, {name: config, mountPath: /config}]
        readinessProbe: {tcpSocket: {port: 14000}, periodSeconds: 1}
      - name: names
        image: @IMAGE@
        imagePullPolicy: Never
        command: [/names, -dnsserver, ":8053", -management, ":8055", -defaultIPv4, @ADDRESS@, -defaultIPv6, "", -http01, "", -https01, "", -tlsalpn01, "", -doh, ""]
`
