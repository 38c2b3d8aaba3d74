package acme

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// Stapler gets OCSP responses for the certificates that were issued here, and keeps them fresh. It asks nobody about other certificates: who may write a Secret
// could name a responder of his own, and have Fairlead make requests for him. Safe for concurrent use.
type Stapler struct {
	client  *http.Client
	roots   *x509.CertPool // nil: those of the system
	now     func() time.Time
	changed func() // is called after there is a response that was not there before
	chains  atomic.Pointer[chains]
	wake    chan struct{}
	asks    chan struct{}  // holds one for each question that is under way
	asking  sync.WaitGroup // those who ask

	mu      sync.Mutex
	staples map[leafHash]staple
	asked   map[string]bool // responders that somebody is asking
}

type (
	leafHash [sha256.Size]byte
	// chains are the certificates that are served, each with those that it was issued with.
	chains map[leafHash][]*x509.Certificate
)

// DialFunc makes a connection, as net.Dialer.DialContext does.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// staple is a response, and when to ask for the next. The zero value is none, to be asked for now.
type staple struct {
	raw   []byte
	until time.Time // when it is no longer good
	next  time.Time
}

// NewStapler returns a Stapler that asks nobody before Run. dial decides which addresses a responder may have: certificates name it. It also connects to the proxy
// that the environment names, if one is. changed is called when responses are new, by one goroutine or another; nil: nobody is told.
func NewStapler(dial DialFunc, changed func()) *Stapler {
	if changed == nil {
		changed = func() {}
	}
	s := &Stapler{
		client: &http.Client{
			Timeout: responderWithin, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				Proxy: http.ProxyFromEnvironment, DialContext: dial, MaxIdleConnsPerHost: asksOfResponder, IdleConnTimeout: responderWithin, MaxResponseHeaderBytes: stapleBytes,
			},
		},
		now: time.Now, changed: changed, wake: make(chan struct{}, 1), asks: make(chan struct{}, asksAtOnce), staples: map[leafHash]staple{}, asked: map[string]bool{},
	}
	s.chains.Store(&chains{})
	return s
}

// Offer says which certificates are served from now on: those of orders.
func (s *Stapler) Offer(orders []route.CertificateOrder) {
	offered := chains{}
	for _, o := range orders {
		if chain := parseChain(o.Chain); len(chain) > 1 && len(chain[0].OCSPServer) > 0 && s.vouchedFor(chain) {
			offered[sha256.Sum256(chain[0].Raw)] = chain
		}
	}
	s.chains.Store(&offered)
	s.poke()
}

// poke has Run look what is due.
func (s *Stapler) poke() {
	select {
	case s.wake <- struct{}{}:
	default: // it is going to
	}
}

// vouchedFor tells whether an authority that the system trusts stands behind a chain. That a Secret is marked as issued here is no proof: who may write Secrets can
// mark his own.
func (s *Stapler) vouchedFor(chain []*x509.Certificate) bool {
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: s.roots, Intermediates: between, CurrentTime: s.now()})
	return err == nil
}

func parseChain(text []byte) (chain []*x509.Certificate) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return chain
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil
		}
		chain = append(chain, cert)
	}
}

// Staple returns the response for a certificate, DER; nil if there is none that is good now.
func (s *Stapler) Staple(leaf []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.staples[sha256.Sum256(leaf)]; s.now().Before(st.until) {
		return st.raw
	}
	return nil
}

// Run keeps the responses fresh until ctx ends.
func (s *Stapler) Run(ctx context.Context) {
	defer s.client.CloseIdleConnections()
	defer s.asking.Wait()
	ticker := time.NewTicker(responderEvery)
	defer ticker.Stop()
	for {
		s.refresh(ctx)
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-ticker.C:
		}
	}
}
