package acme

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"github.com/fairlead-io/fairlead/internal/route"
)

// How the shared storage is asked for challenges that this process has not heard of.
const (
	missFor    = 2 * time.Second // a name that has none is not asked for again
	askWithin  = 3 * time.Second
	askAtATime = 4
)

// Challenges answers the challenges of authorities, whichever replica they come to. What a client sends is compared with what is known here; only a name that is
// on order makes the shared storage be asked, once at a time and not again for a while. Safe for concurrent use.
type Challenges struct {
	storage  certmagic.Storage
	prefixes []string // where challenges are in the storage, one for each issuer
	now      func() time.Time
	expected atomic.Pointer[map[string]bool] // the names that are on order
	slots    chan struct{}

	mu      sync.Mutex
	pending map[string]acme.Challenge
	misses  map[string]*miss // of names that are expected
}

// miss is a question for a name that the storage is being asked, or was.
type miss struct {
	done chan struct{}
	at   time.Time // when it was answered; zero while it is not
}

func newChallenges(opt Options) *Challenges {
	c := &Challenges{storage: opt.Storage, now: opt.Now, slots: make(chan struct{}, askAtATime), pending: map[string]acme.Challenge{}, misses: map[string]*miss{}}
	seen := map[string]bool{}
	for _, i := range opt.Issuers {
		key := (&certmagic.ACMEIssuer{CA: i.Directory}).IssuerKey()
		if p := path.Join("acme", certmagic.StorageKeys.Safe(key), challengeFolder); !seen[p] {
			seen[p] = true
			c.prefixes = append(c.prefixes, p)
		}
	}
	c.expected.Store(&map[string]bool{})
	return c
}

// challengeFolder is where certmagic keeps challenges, below the folder of an issuer.
const challengeFolder = "challenge_tokens"

// isChallenge tells whether a key of the storage is that of a challenge.
func isChallenge(key string) bool { return path.Base(path.Dir(key)) == challengeFolder }

// expect says which names are on order.
func (c *Challenges) expect(orders []route.CertificateOrder) {
	names := map[string]bool{}
	for _, o := range orders {
		for _, h := range o.Hosts {
			names[h] = true
		}
	}
	c.expected.Store(&names)
	c.mu.Lock()
	defer c.mu.Unlock()
	for name := range c.misses {
		if !names[name] {
			delete(c.misses, name)
		}
	}
}

// Learn notes what the shared storage has at a key; nil is nothing. Keys of anything but challenges are of no interest.
func (c *Challenges) Learn(key string, value []byte) {
	if !isChallenge(key) {
		return
	}
	var found acme.Challenge
	if value != nil && json.Unmarshal(value, &found) != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if value != nil {
		c.pending[found.Identifier.Value] = found
		return
	}
	for name := range c.pending {
		if certmagic.StorageKeys.Safe(name)+".json" == path.Base(key) {
			delete(c.pending, name)
		}
	}
}

// HTTP returns the answer to a request for a path of a host, if that is where its challenge is, as HTTP-01 has it (RFC 8555, section 8.3).
func (c *Challenges) HTTP(ctx context.Context, host, path string) (answer string, ok bool) {
	token, ok := strings.CutPrefix(path, challengePath)
	if !ok || token == "" {
		return "", false
	}
	found, ok := c.find(ctx, host, func(f acme.Challenge) bool { return f.Type == acme.ChallengeTypeHTTP01 && f.Token == token })
	return found.KeyAuthorization, ok
}

// Certificate returns the certificate that proves a host, as TLS-ALPN-01 has it (RFC 8737). It is nil if the host is not to be proved.
func (c *Challenges) Certificate(ctx context.Context, host string) *tls.Certificate {
	found, ok := c.find(ctx, host, func(f acme.Challenge) bool { return f.Type == acme.ChallengeTypeTLSALPN01 })
	if !ok {
		return nil
	}
	cert, err := acmez.TLSALPN01ChallengeCert(found)
	if err != nil {
		return nil
	}
	return cert
}

// find returns the challenge of a host, if it is one that is asked for.
func (c *Challenges) find(ctx context.Context, host string, wanted func(acme.Challenge) bool) (acme.Challenge, bool) {
	if !(*c.expected.Load())[host] {
		return acme.Challenge{}, false
	}
	c.mu.Lock()
	found := c.pending[host]
	c.mu.Unlock()
	if wanted(found) {
		return found, true
	}
	c.ask(ctx, host)
	c.mu.Lock()
	defer c.mu.Unlock()
	found = c.pending[host]
	return found, wanted(found)
}

// ask asks the storage for the challenge of a host, or waits for somebody else's answer.
func (c *Challenges) ask(ctx context.Context, host string) {
	c.mu.Lock()
	m := c.misses[host]
	mine := m == nil || !m.at.IsZero() && c.now().Sub(m.at) >= missFor
	if mine {
		m = &miss{done: make(chan struct{})}
		c.misses[host] = m
	}
	c.mu.Unlock()
	if !mine {
		select {
		case <-m.done:
		case <-ctx.Done():
		}
		return
	}
	defer func() {
		c.mu.Lock()
		m.at = c.now()
		c.mu.Unlock()
		close(m.done)
	}()
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	default:
		return // so many are being asked for that this one is not worth it
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askWithin)
	defer cancel()
	for _, p := range c.prefixes {
		key := path.Join(p, certmagic.StorageKeys.Safe(host)+".json")
		if value, err := c.storage.Load(ctx, key); err == nil {
			c.Learn(key, value)
			return
		}
	}
}

// challengePath is where HTTP-01 looks; the token follows.
const challengePath = "/.well-known/acme-challenge/"

// tap is the shared storage, from which Challenges learn what goes by.
type tap struct {
	certmagic.Storage
	challenges *Challenges
	spread     time.Duration
}

// Store implements certmagic.Storage.
func (t tap) Store(ctx context.Context, key string, value []byte) error {
	if err := t.Storage.Store(ctx, key, value); err != nil || !isChallenge(key) {
		return err
	}
	t.challenges.Learn(key, value)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(t.spread):
		return nil
	}
}

// Delete implements certmagic.Storage.
func (t tap) Delete(ctx context.Context, key string) error {
	t.challenges.Learn(key, nil)
	return t.Storage.Delete(ctx, key)
}
