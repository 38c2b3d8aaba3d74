package acme

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/conformance/program"
)

func TestDNS01GetsAWildcard(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, func(a *authority) { a.zone = serveZone(t, a) })
	f := newFleet(t, a, 2, "  issuers:\n"+a.issuerYAML("dns", fmt.Sprintf(`dns: {rfc2136: {server: %q, keyName: fairlead, key: {secret: tsig, key: key}}}`, a.address(a.dns))))
	f.kubectl("", "create", "secret", "generic", "tsig", "-n", f.own, "--from-literal=key=c2VjcmV0")
	f.ingress("web", "dns", "*.example.com", "example.com")
	f.wantServed("any.example.com", 3*time.Minute)
	f.wantServed("example.com", 3*time.Minute)
	program.Eventually(t, time.Minute, "the proofs are taken back", func() error {
		a.zone.mu.Lock()
		defer a.zone.mu.Unlock()
		for name, values := range a.zone.txt {
			if len(values) > 0 {
				return fmt.Errorf("%s still has %v", name, values)
			}
		}
		return nil
	})
	if a.zone.updates < 4 {
		t.Errorf("there were %d updates of the zone, want 4: two proofs made and taken back", a.zone.updates)
	}
}

func TestAnExternalAccountIsBound(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, func(a *authority) {
		a.config["externalAccountBindingRequired"] = true
		a.config["externalAccountMACKeys"] = map[string]string{"kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"}
	})
	f := newFleet(t, a, 1, "  issuers:\n"+a.issuerYAML("eab", "externalAccount: {keyID: kid-1, key: {secret: eab, key: mac}}"))
	f.ingress("web", "eab", "a.example.com")
	f.event("CertificateFailed", "eab") // the Secret does not exist yet
	f.kubectl("", "create", "secret", "generic", "eab", "-n", f.own, "--from-literal=mac=zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W")
	f.wantServed("a.example.com", 3*time.Minute)
	f.event("CertificateIssued", "a.example.com")
}

// event waits for an Event about the application with a reason and a text in its note.
func (f *fleet) event(reason, text string) {
	f.t.Helper()
	program.Eventually(f.t, 2*time.Minute, "an Event "+reason, func() error {
		out := f.kubectl("", "get", "events.events.k8s.io", "-n", f.app, "-o", "json")
		var list struct {
			Items []struct{ Reason, Note string }
		}
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			return err
		}
		for _, e := range list.Items {
			if e.Reason == reason && strings.Contains(e.Note, text) {
				return nil
			}
		}
		return fmt.Errorf("got %+v", list.Items)
	})
}

func TestAGatewayGetsCertificatesAndAConditionThatSaysSo(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, nil)
	f := newFleet(t, a, 2, "  issuers:\n"+a.issuerYAML("pebble", "multiName: true")+"  default: [pebble]\n")
	f.apply(`apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: fairlead
  listeners:
  - {name: http, protocol: HTTP, port: 80}
  - {name: a, protocol: HTTPS, port: 443, hostname: a.example.com, tls: {certificateRefs: [{name: gw-tls}]}}
  - {name: b, protocol: HTTPS, port: 443, hostname: b.example.com, tls: {certificateRefs: [{name: gw-tls}]}}
`)
	f.wantServed("a.example.com", 3*time.Minute)
	f.wantServed("b.example.com", time.Minute)
	if n := a.orders(); n > 2 {
		t.Errorf("the authority issued %d certificates for two names in one certificate", n)
	}
	program.Eventually(t, time.Minute, "the condition is true", func() error {
		got := f.kubectl("", "get", "gateway", "gw", "-n", f.app, "-o", `jsonpath={.status.conditions[?(@.type=="fairlead.io/CertificatesIssued")].status}`)
		if got != "True" {
			return fmt.Errorf("it is %q", got)
		}
		return nil
	})
}

func TestAnOrderThatIsRefusedSaysWhyAndStopsNoOther(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, nil)
	f := newFleet(t, a, 2, "  issuers:\n"+a.issuerYAML("pebble"))
	f.ingress("refused", "pebble", "refused.example")
	f.ingress("web", "pebble", "a.example.com")
	f.wantServed("a.example.com", 3*time.Minute)
	f.event("CertificateFailed", "refused.example")
	f.event("CertificateFailed", "rejectedIdentifier")
}

func TestACADownAndWithAnotherRootKeepsWhatThereIs(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, nil)
	f := newFleet(t, a, 2, "  issuers:\n"+a.issuerYAML("pebble"))
	f.ingress("web", "pebble", "a.example.com")
	f.wantServed("a.example.com", 3*time.Minute)
	old := a.root()
	a.pebble.Kill()
	f.ingress("more", "pebble", "b.example.com")
	f.event("CertificateFailed", "b.example.com")
	if _, err := served(a.address(a.tls), "a.example.com", old); err != nil {
		t.Errorf("the certificate that there was is not served while the authority is down: %v", err)
	}
	a.start() // it has another root, and has forgotten the account
	f.wantServed("b.example.com", 5*time.Minute)
	if _, err := served(a.address(a.tls), "a.example.com", old); err != nil {
		t.Errorf("the certificate of the old root is not served any more: %v", err)
	}
}

func TestAReplicaThatIsKilledInTheMiddleOfAnOrderIsReplaced(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, func(a *authority) { a.env = append(a.env, "PEBBLE_VA_SLEEPTIME=8") })
	f := newFleet(t, a, 3, "  issuers:\n"+a.issuerYAML("pebble"))
	f.ingress("web", "pebble", "a.example.com")
	var victim *replica
	program.Eventually(t, 2*time.Minute, "somebody orders", func() error {
		for _, r := range f.replicas {
			if strings.Contains(r.Log.String(), "trying to solve challenge") {
				victim = r
				return nil
			}
		}
		return errors.New("nobody does")
	})
	victim.Kill()
	f.balance()
	begun := time.Now()
	f.wantServed("a.example.com", 3*time.Minute)
	t.Logf("served %.0f s after the holder of the lock was killed", time.Since(begun).Seconds())
}

func TestReplicasThatStartAtOnceOrderEachCertificateOnce(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, nil)
	f := newFleet(t, a, 0, "  issuers:\n"+a.issuerYAML("pebble"))
	hosts := []string{"a.example.com", "b.example.com", "c.example.com"}
	f.ingress("web", "pebble", hosts...)
	for range 3 {
		f.add()
	}
	for _, h := range hosts {
		f.wantServed(h, 3*time.Minute)
	}
	if n := a.orders(); n != len(hosts) {
		t.Errorf("the authority issued %d certificates, want %d", n, len(hosts))
	}
}

func TestManyNamesAtOnce(t *testing.T) {
	many := 200
	if testing.Short() {
		many = 30
	}
	a := newAuthority(t, nil)
	f := newFleet(t, a, 3, "  parallel: 40\n  orders: 200\n  per: 10s\n  issuers:\n"+a.issuerYAML("pebble"))
	var hosts []string
	for i := range many {
		hosts = append(hosts, fmt.Sprintf("h%d.example.com", i))
	}
	begun := time.Now()
	f.ingress("web", "pebble", hosts...)
	for _, h := range hosts {
		f.wantServed(h, 10*time.Minute)
	}
	t.Logf("%d names took %.0f s", many, time.Since(begun).Seconds())
	if n := a.orders(); n != many {
		t.Errorf("the authority issued %d certificates, want %d", n, many)
	}
}

func TestShortLivedCertificatesAreServed(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, func(a *authority) { a.profile("shortlived", 6*24*3600) })
	f := newFleet(t, a, 1, "  issuers:\n"+a.issuerYAML("pebble", "profile: shortlived"))
	f.ingress("web", "pebble", "a.example.com")
	f.wantServed("a.example.com", 3*time.Minute)
	chain, err := served(a.address(a.tls), "a.example.com", a.root())
	if err != nil || chain[0].NotAfter.Sub(chain[0].NotBefore) > 7*24*time.Hour {
		t.Errorf("got a certificate from %s to %s, %v; want one of six days", chain[0].NotBefore, chain[0].NotAfter, err)
	}
}

func TestARenewalFailsNoHandshake(t *testing.T) {
	if testing.Short() {
		t.Skip("takes more than a minute, and make conformance has certificates renewed in a cluster")
	}
	t.Parallel()
	a := newAuthority(t, func(a *authority) { a.profile("moment", 60) })
	f := newFleet(t, a, 2, "  issuers:\n"+a.issuerYAML("pebble", "profile: moment"))
	f.ingress("web", "pebble", "a.example.com")
	f.wantServed("a.example.com", 3*time.Minute)
	roots := a.root()
	var wg sync.WaitGroup
	var made, failed atomic.Int64
	serials := sync.Map{}
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 5 * time.Second}, Config: &tls.Config{ServerName: "a.example.com", RootCAs: roots}}
				c, err := d.DialContext(t.Context(), "tcp", a.address(a.tls))
				made.Add(1)
				if err != nil {
					failed.Add(1)
					t.Logf("handshake: %v", err)
					continue
				}
				serials.Store(c.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String(), true)
				_ = c.Close()
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	different := func() (n int) { serials.Range(func(any, any) bool { n++; return true }); return n }
	program.Eventually(t, 4*time.Minute, "the certificate is renewed twice", func() error {
		if n := different(); n < 3 {
			return fmt.Errorf("%d certificates were seen", n)
		}
		return nil
	})
	close(stop)
	wg.Wait()
	t.Logf("%d handshakes, %d certificates", made.Load(), different())
	if failed.Load() > 0 {
		t.Errorf("%d of %d handshakes failed", failed.Load(), made.Load())
	}
}
