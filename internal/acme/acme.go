// Package acme gets certificates from certificate authorities and keeps them up to date. It is told what is wanted (Offer), and one replica of many does it
// (Run), while all of them answer the authorities' challenges (Challenges).
//
// certmagic is the engine: accounts, orders, challenges, rates. What it does not decide is decided here: when to order and to renew, in which Secret a
// certificate goes, and that no certificate is ordered twice. A Secret is read again and written under a lock of its own, and only over what was read, so
// that it does not matter who believes to be the leader.
package acme

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"github.com/fairlead-io/fairlead/internal/route"
)

// Issuer is a certificate authority, and how to deal with it. Name, Directory and Email are required.
type Issuer struct {
	Name        string
	Directory   string // URL
	Email       string
	AcceptTerms bool // the operator has read and accepts the terms of the authority; required
	// ExternalAccount returns the account that the operator has there already, to which a new one of ours is bound. Nil: the authority does not ask for that.
	ExternalAccount func(ctx context.Context) (*acme.EAB, error)
	Roots           *x509.CertPool // whom the directory's own certificate is believed from; nil: the system's
	Profile         string         // of the certificates, as the authority names it; empty: its default
	KeyType         certmagic.KeyType
	MultiName       bool // for all names of a Secret one certificate
	DNS             *DNS // proves names in the DNS, and by nothing else; nil: over HTTP and TLS
	NoHTTP, NoTLS   bool // do not use HTTP-01, TLS-ALPN-01
	// Resolve looks a name up before a certificate is ordered for it over HTTP or TLS: a name without address costs no order. Nil: no look.
	Resolve func(ctx context.Context, host string) ([]string, error)
}

// DNS is how names are proved by records in the DNS (DNS-01).
type DNS struct {
	Provider  certmagic.DNSProvider
	Resolvers []string      // HOST:PORT, that are asked whether a record can be seen; none means the zone's own servers
	Override  string        // the name that the record is at, if it is the same for all; see ACMEDNS
	Wait      time.Duration // how long a record may take to be seen; 0 means two minutes, less than 0 that nobody looks
}

// Secret names where a certificate goes.
type Secret struct{ Namespace, Name string }

// String returns namespace/name.
func (s Secret) String() string { return s.Namespace + "/" + s.Name }

// Issued is what is in a Secret.
type Issued struct {
	Chain, Key []byte // PEM
	Issuer     string // name
	Version    string // of the Secret; changes with every write
}

// What a Publisher may answer.
var (
	ErrForeign = errors.New("the Secret is not one that Fairlead made")
	ErrChanged = errors.New("somebody else wrote the Secret first")
)

// Publisher keeps issued certificates where every replica finds them.
type Publisher interface {
	// Read returns what is in a Secret now; nothing, without an error, if there is none. ErrForeign if it is somebody else's.
	Read(ctx context.Context, s Secret) (Issued, error)
	// Write puts a certificate into a Secret, in one step, where next.Version was read; an empty one is where there was none. ErrChanged if it is another now.
	Write(ctx context.Context, s Secret, next Issued) error
}

// Options are what a Manager needs. Issuers, Storage and Publisher are required.
type Options struct {
	Issuers   []Issuer
	Storage   certmagic.Storage // accounts, challenges and locks; shared by all replicas
	Publisher Publisher

	Parallel   int           // orders at a time; 0 means 10
	Stagger    time.Duration // least time from one order to the next; 0 means 200 ms
	FirstRetry time.Duration // after the first failure; 0 means a minute. It grows from there.
	// Spread is how long a challenge is known before the authority is told that it can look: other replicas hear of it meanwhile. 0 means not at all.
	Spread time.Duration
	// Lost tells when a lock is held no longer, by its name. Nil: locks are not lost.
	Lost func(lock string) <-chan struct{}

	Log *slog.Logger     // nil: discarded
	Now func() time.Time // nil: time.Now
	// Changed is called after the state of an order is another one; it must return soon, and not ask for States. Nil: nobody is told.
	Changed func(State)
}

func (o Options) withDefaults() Options {
	if o.Parallel == 0 {
		o.Parallel = 10
	}
	if o.Stagger == 0 {
		o.Stagger = 200 * time.Millisecond
	}
	if o.FirstRetry == 0 {
		o.FirstRetry = time.Minute
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Changed == nil {
		o.Changed = func(State) {}
	}
	return o
}

func (o *Options) validate() error {
	if o.Storage == nil || o.Publisher == nil {
		return errors.New("make ACME manager: there is no storage, or nowhere to publish")
	}
	for _, i := range o.Issuers {
		switch {
		case i.Name == "" || i.Directory == "" || i.Email == "":
			return fmt.Errorf("make ACME manager: issuer %q needs a name, a directory and an email address", i.Name)
		case !i.AcceptTerms:
			return fmt.Errorf("make ACME manager: the terms of issuer %q are not accepted", i.Name)
		}
	}
	return nil
}

// Manager gets certificates. Make one with New. Its methods are safe for concurrent use; Run must not run twice at a time.
type Manager struct {
	opt        Options
	issuers    map[string]authority
	challenges *Challenges
	cache      *certmagic.Cache
	hold       net.Listener
	held       sync.WaitGroup

	tried  atomic.Pointer[func(issuer string, err error)]
	newest atomic.Pointer[[]route.CertificateOrder]
	wake   chan struct{} // holds one token while there is an offer that Run has not seen

	mu   sync.Mutex
	jobs map[Secret]*job // guarded by mu; changed by Run alone
}

// New returns a Manager that asks nobody for anything before Run. Close it.
func New(opt Options) (*Manager, error) {
	opt = opt.withDefaults()
	if err := opt.validate(); err != nil {
		return nil, err
	}
	m := &Manager{opt: opt, issuers: map[string]authority{}, wake: make(chan struct{}, 1), jobs: map[Secret]*job{}}
	var err error
	// certmagic opens a socket for its own challenge servers unless it finds the port taken. It does find this one taken, and leaves the answering to us.
	if m.hold, err = (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("make ACME manager: %w", err)
	}
	m.held.Go(m.refuseAll)
	logger := newLogger(opt.Log)
	m.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) {
			return nil, errors.New("certificates are not kept in certmagic's cache")
		},
		Logger: logger,
	})
	m.challenges = newChallenges(opt)
	for _, i := range opt.Issuers {
		m.issuers[i.Name] = newIssuer(i, m.cache, tap{opt.Storage, m.challenges, opt.Spread}, m.hold.Addr(), logger)
	}
	return m, nil
}

// refuseAll lets whoever connects to the socket that is held go at once.
func (m *Manager) refuseAll() {
	for {
		c, err := m.hold.Accept()
		if err != nil {
			return
		}
		_ = c.Close()
	}
}

// Close lets go of what New took. Run must have returned.
func (m *Manager) Close() {
	m.cache.Stop()
	_ = m.hold.Close()
	m.held.Wait()
}

// Challenges answers the challenges of the authorities.
func (m *Manager) Challenges() *Challenges { return m.challenges }

// ReportAttempts has tried called after each attempt to get a certificate from an issuer.
func (m *Manager) ReportAttempts(tried func(issuer string, err error)) { m.tried.Store(&tried) }

// Offer says which certificates are wanted from now on. It does not wait. The orders must not be modified afterwards.
func (m *Manager) Offer(orders []route.CertificateOrder) {
	m.challenges.expect(orders)
	m.newest.Store(&orders)
	select {
	case m.wake <- struct{}{}:
	default: // Run is going to look
	}
}
