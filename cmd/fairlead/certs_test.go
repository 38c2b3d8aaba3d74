package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/fairlead-io/fairlead/internal/cert"
)

func TestCertsPrintsWhatIsPresentedAndWhatIsOnOrder(t *testing.T) {
	until, next := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	presented := []cert.Info{
		{Hostname: "a.example.com", Secret: "shop/tls", DNSNames: []string{"a.example.com"}, NotAfter: until},
		{Hostname: "b.example.com", Secret: "shop/mine", DNSNames: []string{"b.example.com", "c.example.com"}, NotAfter: until},
		{Hostname: "c.example.com", Secret: "shop/mine", DNSNames: []string{"b.example.com", "c.example.com"}, NotAfter: until},
		{Hostname: "d.example.com", Fallback: true},
	}
	orders := []certOrder{
		{Secret: "shop/tls", Hosts: []string{"a.example.com"}, Issuers: []string{"staging"}, Issuer: "staging", Phase: "issued", Next: next},
		{Secret: "shop/d", Hosts: []string{"d.example.com"}, Issuers: []string{"staging", "other"}, Phase: "failed", Next: next, Err: "staging: no\nother: \x1b[2Jno"},
	}
	var b strings.Builder
	if err := printCerts(&b, presented, orders); err != nil {
		t.Fatal(err)
	}
	want := strings.TrimPrefix(`
SECRET     SOURCE              NAMES                        EXPIRES               NEXT                  PROBLEM
-          self-signed         d.example.com                -                     -                     -
shop/d     acme:staging,other  d.example.com                -                     2026-05-01T00:00:00Z  staging: no; other: `+"�"+`[2Jno
shop/mine  user                b.example.com,c.example.com  2026-06-01T00:00:00Z  -                     -
shop/tls   acme:staging        a.example.com                2026-06-01T00:00:00Z  2026-05-01T00:00:00Z  -
`, "\n")
	if diff := gocmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestACMEConfigIsChecked(t *testing.T) {
	good := "name: a, directory: 'https://ca.example/dir', email: a@b.example, acceptTerms: true"
	for _, test := range []struct{ config, want string }{
		{"issuers: [{" + good + "}]", ""},
		{"issuers: [{" + good + "}]\n  default: [a]", ""},
		{"issuers: [{" + good + "}]\n  default: [b]", `acme.default[0]: there is no issuer "b"`},
		{"issuers: [{" + good + "}, {" + good + "}]", "acme.issuers[1]: there is another issuer a"},
		{"issuers: [{" + strings.Replace(good, "true", "false", 1) + "}]", "acceptTerms"},
		{"issuers: [{" + strings.Replace(good, "https", "http", 1) + "}]", "directory"},
		{"issuers: [{" + strings.Replace(good, "a@b.example", "''", 1) + "}]", "email"},
		{"issuers: [{" + strings.Replace(good, "name: a", "name: A_b", 1) + "}]", "name"},
		{"issuers: [{" + strings.Replace(good, "name: a", "name: none", 1) + "}]", "name"},
		{"issuers: [{" + good + ", keyType: dsa}]", "keyType"},
		{"issuers: [{" + good + ", challenges: [dns-01]}]", "challenges"},
		{"issuers: [{" + good + ", externalAccount: {keyID: k}}]", "externalAccount.key"},
		{"issuers: [{" + good + ", externalAccount: {keyID: k, key: {secret: s}}}]", "externalAccount.key"},
		{"issuers: [{" + good + ", externalAccount: {keyID: k, key: {secret: s, key: k}}}]", ""},
		{"issuers: [{" + good + ", dns: {}}]", "dns: one of"},
		{"issuers: [{" + good + ", dns: {webhook: {url: 'ftp://x'}}}]", "dns.webhook.url"},
		{"issuers: [{" + good + ", dns: {rfc2136: {server: s, keyName: k}}}]", "dns.rfc2136: key"},
		{"issuers: [{" + good + ", dns: {rfc2136: {server: s}}}]", ""},
		{"issuers: [{" + good + ", dns: {acmeDNS: {url: u}}}]", "dns.acmeDNS"},
		{"issuers: [{" + good + ", nothing: 1}]", "nothing"},
	} {
		file := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(file, []byte("acme:\n  "+test.config+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := readConfig(file)
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", test.config, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: got %v, want %q in it", test.config, err, test.want)
		}
	}
}
