package acme

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/conformance/program"
)

// folder is a Fairlead that serves a folder of manifests.
type folder struct {
	*program.Process
	dir, storage string
	admin        int
}

// issuerYAML is an issuer of the configuration, with further fields.
func (a *authority) issuerYAML(name string, fields ...string) string {
	all := append([]string{
		"name: " + name, "directory: " + a.directory(), "email: ops@example.com", "acceptTerms: true", "caFile: " + a.roots(), "resolvers: [" + fmt.Sprintf("%q", a.address(a.dns)) + "]",
	}, fields...)
	return "  - {" + strings.Join(all, ", ") + "}\n"
}

func startFolder(t *testing.T, a *authority, acme string, files map[string]string) *folder {
	t.Helper()
	f := &folder{dir: t.TempDir(), storage: filepath.Join(t.TempDir(), "acme"), admin: program.FreePort(t)}
	for name, text := range files {
		f.put(t, name, text)
	}
	config := filepath.Join(t.TempDir(), "config.yaml")
	text := "acme:\n  storage: " + f.storage + "\n  firstRetry: 3s\n" + acme + "drain: {delay: 0s, grace: 1s}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f.Process = program.Start(t, programs.fairlead, nil, "serve", "--manifests", f.dir, "--config", config, "--bind-address", "127.0.0.1",
		"--port-map", fmt.Sprintf("80:%d,443:%d", a.http, a.tls), "--admin-address", a.address(f.admin))
	return f
}

func (f *folder) put(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// ingressYAML is an Ingress that wants certificates for hosts.
func ingressYAML(name, issuer string, hosts ...string) string {
	var rules, tls strings.Builder
	for _, h := range hosts {
		fmt.Fprintf(&rules, "  - host: %q\n    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}\n", h)
		fmt.Fprintf(&tls, "%q,", h)
	}
	return fmt.Sprintf(`apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: %s, namespace: default, annotations: {fairlead.io/acme-issuer: %q, fairlead.io/ssl-redirect: "true"}}
spec:
  ingressClassName: fairlead
  tls: [{hosts: [%s], secretName: %s-tls}]
  rules:
%s`, name, issuer, tls.String(), name, rules.String())
}

func wantServed(t *testing.T, a *authority, host string, within time.Duration) {
	t.Helper()
	program.Eventually(t, within, "a certificate for "+host+" is served", func() error { _, err := served(a.address(a.tls), host, a.root()); return err })
}

func TestHTTP01InAFolder(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, nil)
	f := startFolder(t, a, "  issuers:\n"+a.issuerYAML("pebble", "challenges: [http-01]"), map[string]string{"web.yaml": ingressYAML("web", "pebble", "a.example.com", "b.example.com")})
	wantServed(t, a, "a.example.com", time.Minute)
	wantServed(t, a, "b.example.com", time.Minute)
	err := filepath.WalkDir(f.storage, func(name string, d fs.DirEntry, err error) error {
		if err == nil {
			if info, err := d.Info(); err == nil && info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s has the mode %v: others can read it", name, info.Mode())
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestTLSALPN01InAFolder(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, nil)
	startFolder(t, a, "  issuers:\n"+a.issuerYAML("pebble", "challenges: [tls-alpn-01]"), map[string]string{"web.yaml": ingressYAML("web", "pebble", "a.example.com")})
	wantServed(t, a, "a.example.com", time.Minute)
}
