// Package cert decides which certificate answers a TLS handshake.
//
// A Store is given all certificates of a configuration at once and swaps them atomically: a handshake sees the old ones or the new ones, connections that are
// open keep what they have. Names for which there is no usable certificate get a self-signed one, so that the connection works and says what is wrong.
package cert

import (
	"cmp"
	"crypto/tls"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// Options are the choices of a Store. The zero value works.
type Options struct {
	// Log gets a warning, once, for each pair that cannot be used. Nil discards it.
	Log *slog.Logger
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
	// Staple returns the OCSP response to present with a certificate, DER, or nil. Nil: none is presented.
	Staple func(leaf []byte) []byte
}

// Store holds the certificates that are presented to clients. Make one with New. Safe for concurrent use.
type Store struct {
	log    *slog.Logger
	now    func() time.Time
	staple func(leaf []byte) []byte // nil: nothing is stapled

	serving atomic.Pointer[serving]
	unknown *fallback // for names that are not configured

	mu     sync.Mutex          // held by Install
	parsed *parsed             // guarded by mu
	latest []route.Certificate // guarded by mu: what was installed last
}

// serving is everything that is presented. It is immutable, except for the fallbacks, which are made when they are first needed.
type serving struct {
	binds     map[route.Bind]*index
	fallbacks map[string]*fallback // by host name
	list      []Info
}

// Info describes one certificate that is being presented.
type Info struct {
	Bind     route.Bind
	Hostname string // as in route.Certificate
	// Fallback says that a self-signed certificate is presented, because there is no usable one. The fields below are empty then.
	Fallback bool
	Secret   string // namespace/name
	DNSNames []string
	NotAfter time.Time
	KeyType  string // ECDSA, Ed25519 or RSA
	Issuer   string // common name
}

// New returns a Store that presents a self-signed certificate to everybody.
func New(opt Options) *Store {
	s := &Store{log: opt.Log, now: opt.Now, staple: opt.Staple}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.parsed = newParsed(s.log)
	s.unknown = &fallback{now: s.now}
	s.serving.Store(&serving{})
	return s
}

// Install replaces everything that is presented. Pairs that did not change are not parsed again. Where several certificates have the same bind and host name,
// the first of the list that has a usable pair wins: the others may belong to somebody else and must not take its place.
func (s *Store) Install(list []route.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.install(list)
}

// Refresh presents what is installed with the OCSP responses that there are now.
func (s *Store) Refresh() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.install(s.latest)
}

// install is Install. s.mu is held.
func (s *Store) install(list []route.Certificate) {
	s.latest = list
	old := s.serving.Load()
	next := &serving{binds: map[route.Bind]*index{}, fallbacks: map[string]*fallback{}}
	s.parsed.begin()
	for _, c := range list {
		c.Hostname = normalize(c.Hostname)
		x := next.binds[c.Bind]
		if x == nil {
			x = newIndex()
			next.binds[c.Bind] = x
		}
		x.add(c, s.pairs(c), s.fallback(c.Hostname, old, next))
	}
	s.parsed.end()
	next.list = next.infos()
	s.serving.Store(next)
}

// pairs returns the usable pairs of c, those that most clients can verify fastest first.
func (s *Store) pairs(c route.Certificate) []pair {
	var usable []pair
	for _, p := range c.Pairs {
		if m := s.parsed.read(p); m != nil {
			usable = append(usable, pair{material: s.stapled(m), secret: p.Namespace + "/" + p.Name})
		}
	}
	slices.SortStableFunc(usable, func(a, b pair) int { return cmp.Compare(a.rank, b.rank) })
	return usable
}

// stapled returns m with its OCSP response, if there is one. m itself stays as it is, since handshakes may be using it.
func (s *Store) stapled(m *material) *material {
	if s.staple == nil {
		return m
	}
	response := s.staple(m.cert.Certificate[0])
	if response == nil {
		return m
	}
	with := *m
	with.cert.OCSPStaple = response
	return &with
}

// fallback returns the fallback of a host name. It outlives an Install, so that clients that accepted it once need not do so again.
func (s *Store) fallback(host string, old, next *serving) *fallback {
	if f := next.fallbacks[host]; f != nil {
		return f
	}
	f := old.fallbacks[host]
	if f == nil {
		f = &fallback{host: host, now: s.now}
	}
	next.fallbacks[host] = f
	return f
}

// Get returns the certificate for a handshake on a bind. The most specific host name that matches the server name wins: exact, then the longest wildcard, then
// any. A client that names no server, or an IP address, gets the certificate for any name. Where nothing matches, a self-signed certificate is presented
// that names no host: guessing would tell whoever asks which hosts are served here. Of several pairs the client gets the first that it supports.
//
// Get takes no lock and does not allocate when it finds a single pair. It returns an error only if no self-signed certificate can be made.
func (s *Store) Get(bind route.Bind, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	x := s.serving.Load().binds[bind]
	if x == nil {
		return s.unknown.get()
	}
	e := x.find(hello.ServerName)
	switch {
	case e == nil:
		return s.unknown.get()
	case len(e.pairs) == 0:
		return e.fallback.get()
	case len(e.pairs) == 1:
		return &e.pairs[0].cert, nil
	}
	return choose(e.pairs, hello), nil
}

// choose returns the first pair that the client supports. A certificate that does not cover the name is still better than one that the client cannot
// use at all, and any is better than none: the client says what is wrong better than an aborted handshake does.
func choose(pairs []pair, hello *tls.ClientHelloInfo) *tls.Certificate {
	for _, p := range pairs {
		if hello.SupportsCertificate(&p.cert) == nil {
			return &p.cert
		}
	}
	anyName := *hello
	anyName.ServerName = ""
	for _, p := range pairs {
		if anyName.SupportsCertificate(&p.cert) == nil {
			return &p.cert
		}
	}
	return &pairs[0].cert
}

// List describes everything that is presented, sorted by bind, host name and Secret. The slice must not be modified.
func (s *Store) List() []Info { return s.serving.Load().list }

func (s *serving) infos() []Info {
	var list []Info
	for bind, x := range s.binds {
		for _, e := range x.entries {
			list = append(list, e.infos(bind)...)
		}
	}
	slices.SortFunc(list, func(a, b Info) int {
		return cmp.Or(cmp.Compare(a.Bind.Address, b.Bind.Address), cmp.Compare(a.Bind.Port, b.Bind.Port), cmp.Compare(a.Hostname, b.Hostname),
			cmp.Compare(a.Secret, b.Secret), cmp.Compare(a.KeyType, b.KeyType), a.NotAfter.Compare(b.NotAfter))
	})
	return list
}

func (e *entry) infos(bind route.Bind) []Info {
	if len(e.pairs) == 0 {
		return []Info{{Bind: bind, Hostname: e.hostname, Fallback: true}}
	}
	list := make([]Info, 0, len(e.pairs))
	for _, p := range e.pairs {
		leaf := p.cert.Leaf
		list = append(list, Info{
			Bind: bind, Hostname: e.hostname, Secret: p.secret, DNSNames: leaf.DNSNames, NotAfter: leaf.NotAfter,
			KeyType: p.keyType, Issuer: leaf.Issuer.CommonName,
		})
	}
	return list
}
