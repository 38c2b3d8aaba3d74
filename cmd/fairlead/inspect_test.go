package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// runCommand runs the command line and returns its exit status and what it wrote.
func runCommand(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	status = runWith(t.Context(), args, &out, &errOut)
	return status, out.String(), errOut.String()
}

const explainFolder = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: infra}
spec: {gatewayClassName: fairlead, listeners: [{name: http, protocol: HTTP, port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: stranger, namespace: shop}
spec: {parentRefs: [{name: gw, namespace: infra}], hostnames: [shop.example.com], rules: [{backendRefs: [{name: web, port: 80}]}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop, namespace: shop}
spec:
  rules:
    - host: shop.example.com
      http:
        paths:
          - {path: /a, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}
          - {path: /ghost, pathType: Prefix, backend: {service: {name: ghost, port: {number: 80}}}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, annotations: {fairlead.io/load-balancing: peak-ewma, fairlead.io/endpoint-weights: "address:127.0.0.1=3"}}
spec: {ports: [{port: 80}]}
`

func TestExplain(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "all.yaml", explainFolder)
	for _, tt := range []struct {
		name string
		args []string
		exit int
		want []string
	}{
		{"served", []string{"--backend", "shop/web:80=127.0.0.1:3000", "http://shop.example.com/a/b"}, 0, []string{
			"Ingress shop/shop spec.rules[0].http.paths[0]", "by peak-ewma: 127.0.0.1:3000 (weight 3)",
		}},
		{"no endpoints", []string{"http://shop.example.com/a"}, 1, []string{"no endpoints: 503 no-endpoints"}},
		{"prefix is by element", []string{"http://shop.example.com/ab"}, 1, []string{"prefix /a is not an element-wise prefix of /ab"}},
		{"a route that is not attached", []string{"http://shop.example.com/ab"}, 1, []string{"Gateway infra/gw allows routes from its own namespace only"}},
		{"a backend that does not exist", []string{"http://shop.example.com/ghost"}, 1, []string{"503 no-backend"}},
		{"another port", []string{"http://shop.example.com:8080/a"}, 1, []string{"nothing listens on port 8080"}},
		{"not a URL", []string{"ftp://shop.example.com/"}, 2, []string{`scheme "ftp" is none of http, https, tls, tcp and udp`}},
		{"a bad path", []string{"http://shop.example.com/%00"}, 2, []string{"path"}},
		{"a bad header", []string{"-H", "nonsense", "http://shop.example.com/"}, 2, []string{`header "nonsense"`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, out, errOut := runCommand(t, append([]string{"explain", "-f", dir}, tt.args...)...)
			if status != tt.exit {
				t.Errorf("exit status %d, want %d", status, tt.exit)
			}
			for _, want := range tt.want {
				if !strings.Contains(out+errOut, want) {
					t.Errorf("output does not contain %q:\n%s%s", want, out, errOut)
				}
			}
		})
	}
}

// connectionFolder has a listener of every protocol that passes connections on, and one that reads requests on the port of the first.
const connectionFolder = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: shop}
spec:
  gatewayClassName: fairlead
  listeners:
  - {name: tls, protocol: TLS, port: 443, hostname: "*.example.com", tls: {mode: Passthrough}}
  - {name: web, protocol: HTTPS, port: 443, hostname: web.example.com, tls: {certificateRefs: [{name: web}]}}
  - {name: tcp, protocol: TCP, port: 5432}
  - {name: udp, protocol: UDP, port: 5432}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: secure, namespace: shop}
spec: {parentRefs: [{name: gw}], hostnames: [db.example.com], rules: [{backendRefs: [{name: db, port: 5432}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: plain, namespace: shop}
spec: {parentRefs: [{name: gw}], rules: [{backendRefs: [{name: db, port: 5432}, {name: ghost, port: 5432}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: UDPRoute
metadata: {name: datagrams, namespace: shop}
spec: {parentRefs: [{name: gw}], rules: [{backendRefs: [{name: dns, port: 53}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {ports: [{port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: dns, namespace: shop}
spec: {ports: [{port: 53, protocol: UDP}]}
`

// connectionQuestions are questions about connectionFolder, and what must be in the answers.
var connectionQuestions = []struct {
	url  string
	exit int
	want []string
}{
	{"tls://db.example.com", 0, []string{"tls connection for db.example.com on :443", "passed on by TLSRoute shop/secure spec.rules[0]", "backend shop/db:5432 with weight 1: 127.0.0.1:3000"}},
	{"tls://DB.example.com.:443", 0, []string{"passed on by TLSRoute shop/secure"}},
	{"tls://other.example.com", 1, []string{"closed no-route: no rule of listener shop/gw/tls", "host other.example.com does not match db.example.com"}},
	{"tls://db.example.org", 1, []string{"closed no-route: no listener is for this name"}},
	{"tls://", 1, []string{"tls connection without a server name on :443", "no listener is for connections without a server name"}},
	{"tls://192.0.2.1", 1, []string{"tls connection without a server name on :443"}},
	{"tls://web.example.com", 0, []string{"its requests are read and routed one by one: listener shop/gw/web"}},
	{"tcp://:5432", 0, []string{"tcp connection on :5432", "passed on by TCPRoute shop/plain", "closed no-backend: Service shop/ghost does not exist (TCPRoute shop/plain spec.rules[0].backendRefs[1])"}},
	{"udp://:5432", 1, []string{"udp datagram on :5432/udp", "passed on by UDPRoute shop/datagrams", "no endpoints: closed no-endpoints"}},
	{"udp://:99", 1, []string{"nothing listens on port 99; answering for the udp listeners"}},
}

func TestExplainConnections(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "all.yaml", connectionFolder)
	for _, tt := range connectionQuestions {
		t.Run(tt.url, func(t *testing.T) {
			status, out, errOut := runCommand(t, "explain", "-f", dir, "--backend", "shop/db:5432=127.0.0.1:3000", tt.url)
			if status != tt.exit {
				t.Errorf("exit status %d, want %d", status, tt.exit)
			}
			for _, want := range tt.want {
				if !strings.Contains(out+errOut, want) {
					t.Errorf("output does not contain %q:\n%s%s", want, out, errOut)
				}
			}
		})
	}
	for question, want := range map[string]string{
		"tcp://db": "which port of tcp is meant", "udp://": "which port of udp is meant", "tcp://:x": "invalid port", "tcp://:0": "not a number from 1 to 65535", "tls://a..b": "server name",
	} {
		if status, _, errOut := runCommand(t, "explain", "-f", dir, question); status != 2 || !strings.Contains(errOut, want) {
			t.Errorf("%s: exit status %d, %s; want 2 and %q", question, status, errOut, want)
		}
	}
}

// What /debug/explain of a running process says is what the command says of its folder.
func TestDebugExplainOfConnections(t *testing.T) {
	dir := t.TempDir()
	s := serveFolder(t, dir, "shop/db:5432=127.0.0.1:3000")
	folder := strings.ReplaceAll(connectionFolder, "port: 443,", fmt.Sprintf("port: %d,", freePort(t)))
	for _, protocol := range []string{"TCP", "UDP"} {
		listener := "protocol: " + protocol + ", port: "
		folder = strings.Replace(folder, listener+"5432", listener+fmt.Sprint(freePort(t)), 1)
	}
	writeFile(t, dir, "all.yaml", folder)
	for _, q := range connectionQuestions {
		if strings.Contains(q.url, ":99") {
			continue
		}
		eventually(t, q.url, func() error {
			asked := "http://" + s.admin + "/debug/explain?url=" + url.QueryEscape(q.url)
			a, err := get(asked, "")
			if err != nil {
				return err
			}
			if a.status != http.StatusOK {
				return fmt.Errorf("got %d %s", a.status, a.body)
			}
			for _, want := range q.want {
				if where := strings.Index(want, " on :"); where >= 0 { // the ports are others here
					want = want[:where]
				}
				if !strings.Contains(a.body, want) {
					return fmt.Errorf("no %q in %s", want, a.body)
				}
			}
			return nil
		})
	}
}

func TestLint(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "all.yaml", explainFolder)
	status, out, _ := runCommand(t, "lint", dir)
	if status != 1 {
		t.Errorf("exit status %d, want 1", status)
	}
	for _, want := range []string{"all.yaml:12: error: ", "Ingress shop/shop spec.rules[0].http.paths[1]", "Gateway infra/gw"} {
		if !strings.Contains(out, want) {
			t.Errorf("output does not contain %q:\n%s", want, out)
		}
	}

	status, out, _ = runCommand(t, "lint", "-o", "json", dir)
	var parsed struct {
		Problems []finding
		Status   []map[string]any
	}
	if err := json.Unmarshal([]byte(out), &parsed); err != nil || status != 1 {
		t.Fatalf("exit status %d, %v:\n%s", status, err, out)
	}
	if len(parsed.Problems) < 2 || len(parsed.Status) < 3 {
		t.Errorf("got %d problems and %d statuses", len(parsed.Problems), len(parsed.Status))
	}
}

func TestLintOfAGoodFolder(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "web.yaml", strings.Replace(tenLines, "%s", "web", 1))
	if status, out, errOut := runCommand(t, "lint", "--backend", "default/web:80=127.0.0.1:3000", dir); status != 0 {
		t.Errorf("exit status %d, want 0:\n%s%s", status, out, errOut)
	}
}

func TestCommandsRefuseWhatTheyDoNotUnderstand(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "config.yml", "ingress: {redirectHTPS: true}\n")
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"serve", "--namespace", ""}, "--namespace"},
		{[]string{"serve", "--namespace", "a", "--pod-selector", "x"}, "--pod-selector"},
		{[]string{"serve", "--namespace", "a", "--pod-selector", "x=y", "--publish-service", "x"}, "--publish-service"},
		{[]string{"serve", "--namespace", "a", "--pod-selector", "x=y", "--gateway-service-type", "x"}, "--gateway-service-type"},
		{[]string{"table", "--port-map", "80:8080,80:8081", dir}, "mapped to both"},
		{[]string{"table", dir + "/nowhere"}, "no such file"},
		{[]string{"table", "--port-map", "80", dir}, "--port-map"},
		{[]string{"table", "--port-map", "80:8080,81:8080", dir}, "both mapped to 8080"},
		{[]string{"table", "--gateway-addresses", "x", dir}, "--gateway-addresses"},
		{[]string{"table", "--backend", "x", dir}, "--backend"},
		{[]string{"table", "--config", dir + "/config.yml", dir}, "redirectHTPS"},
		{[]string{"lint", "-o", "xml", dir}, `"xml" is not text or json`},
		{[]string{"nonsense"}, "nonsense"},
	} {
		status, _, errOut := runCommand(t, tt.args...)
		if status != 2 || !strings.Contains(errOut, tt.want) {
			t.Errorf("%v: exit status %d, %q; want 2 and %q", tt.args, status, errOut, tt.want)
		}
	}
}

func TestPortMap(t *testing.T) {
	got, err := parsePortMap("port-map", "80:8080, 443:8443")
	if diff := cmp.Diff(map[uint16]uint16{80: 8080, 443: 8443}, got); diff != "" || err != nil {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
}
