package acme

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/fairlead-io/fairlead/internal/route"
)

const (
	tokens = "acme/ca.example-dir/challenge_tokens/"
	at     = "/.well-known/acme-challenge/"
)

// newTestChallenges are those of an issuer, with an order for hosts.
func newTestChallenges(mem *memory, hosts ...string) *Challenges {
	c := newChallenges(Options{Storage: mem, Issuers: []Issuer{{Directory: "https://ca.example/dir"}}}.withDefaults())
	c.expect([]route.CertificateOrder{{Hosts: hosts}})
	return c
}

func challenge(kind, host string) []byte {
	const token = "tok"
	text, err := json.Marshal(acme.Challenge{
		Type: kind, Token: token, KeyAuthorization: token + ".thumb", Identifier: acme.Identifier{Type: "dns", Value: host},
	})
	if err != nil {
		panic(err)
	}
	return text
}

func TestAChallengeIsAnsweredByWhoHasHeardOfIt(t *testing.T) {
	mem := newMemory()
	c := newTestChallenges(mem, "a.example.com", "b.example.com")
	c.Learn(tokens+"a.example.com.json", challenge(acme.ChallengeTypeHTTP01, "a.example.com"))
	c.Learn("acme/ca.example-dir/users/ops/ops.key", []byte("a key is no challenge"))
	if got, ok := c.HTTP(t.Context(), "a.example.com", at+"tok"); !ok || got != "tok.thumb" {
		t.Errorf("got %q, %v", got, ok)
	}
	if mem.loads != 0 {
		t.Errorf("the storage was asked %d times for what is known", mem.loads)
	}
	if c.Certificate(t.Context(), "a.example.com") != nil {
		t.Error("an HTTP challenge was answered with a certificate")
	}
	c.Learn(tokens+"b.example.com.json", challenge(acme.ChallengeTypeTLSALPN01, "b.example.com"))
	if cert := c.Certificate(t.Context(), "b.example.com"); cert == nil {
		t.Error("a TLS challenge was not answered")
	}
	c.Learn(tokens+"a.example.com.json", nil)
	if _, ok := c.HTTP(t.Context(), "a.example.com", at+"tok"); ok {
		t.Error("a challenge that is gone was answered")
	}
}

func TestAChallengeOfAnotherReplicaIsFoundInTheStorage(t *testing.T) {
	mem := newMemory()
	c := newTestChallenges(mem, "a.example.com")
	mem.files[tokens+"a.example.com.json"] = challenge(acme.ChallengeTypeHTTP01, "a.example.com")
	if got, ok := c.HTTP(t.Context(), "a.example.com", at+"tok"); !ok || got != "tok.thumb" {
		t.Errorf("got %q, %v", got, ok)
	}
}

func TestBogusChallengesNeverReachTheStorage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newMemory()
		c := newTestChallenges(mem, "a.example.com")
		var wg sync.WaitGroup
		for i := range 1000 {
			wg.Go(func() {
				host := fmt.Sprintf("h%d.example.com", i)
				if _, ok := c.HTTP(t.Context(), host, at+"x"); ok {
					t.Error("answered")
				}
				if c.Certificate(t.Context(), host) != nil {
					t.Error("answered")
				}
			})
		}
		wg.Wait()
		if mem.loads != 0 {
			t.Errorf("names that nobody ordered made the storage be asked %d times", mem.loads)
		}
		for range 1000 { // a name that is on order, at once and then for a minute
			wg.Go(func() { c.HTTP(t.Context(), "a.example.com", at+"x") })
		}
		wg.Wait()
		if mem.loads > 1 {
			t.Errorf("1000 requests at once made the storage be asked %d times, want once", mem.loads)
		}
		for range 600 {
			c.HTTP(t.Context(), "a.example.com", at+"x")
			time.Sleep(100 * time.Millisecond)
		}
		if mem.loads > 31 {
			t.Errorf("600 requests in a minute made the storage be asked %d times, want every two seconds at most", mem.loads)
		}
	})
}

func TestWhatIsNoChallengeIsNotAnswered(t *testing.T) {
	c := newTestChallenges(newMemory(), "a.example.com")
	c.Learn(tokens+"a.example.com.json", challenge(acme.ChallengeTypeHTTP01, "a.example.com"))
	for _, p := range []string{at, at + "tok/", at + "tok2", "/tok", "/.well-known/acme-challenge", at + "../tok"} {
		if got, ok := c.HTTP(t.Context(), "a.example.com", p); ok {
			t.Errorf("%s: answered with %q", p, got)
		}
	}
	if _, ok := c.HTTP(t.Context(), "b.example.com", at+"tok"); ok {
		t.Error("another host's challenge was answered")
	}
}
