package acme

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/fairlead-io/fairlead/internal/route"
)

// How OCSP responders are asked.
const (
	stapleEvery  = 10 * time.Minute
	stapleWithin = 15 * time.Second
	stapleBytes  = 64 << 10
)

// Stapler gets OCSP responses for the certificates that were issued here, and keeps them fresh. It asks nobody about other certificates: who may write a Secret
// could name a responder of his own, and have Fairlead make requests for him. Safe for concurrent use.
type Stapler struct {
	client  *http.Client
	roots   *x509.CertPool // nil: those of the system
	now     func() time.Time
	changed func() // is called after there is a response that was not there before
	chains  atomic.Pointer[map[[sha256.Size]byte][]*x509.Certificate]
	wake    chan struct{}

	mu      sync.Mutex
	staples map[[sha256.Size]byte]*staple // by hash of the leaf
}

// staple is a response, and when to ask for the next.
type staple struct {
	raw   []byte
	until time.Time // when it is no longer good
	next  time.Time
}

// NewStapler returns a Stapler that asks nobody before Run. changed is called when a response is new; nil: nobody is told.
func NewStapler(changed func()) *Stapler {
	if changed == nil {
		changed = func() {}
	}
	s := &Stapler{
		client: &http.Client{Timeout: stapleWithin, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		now:    time.Now, changed: changed, wake: make(chan struct{}, 1), staples: map[[sha256.Size]byte]*staple{},
	}
	s.chains.Store(&map[[sha256.Size]byte][]*x509.Certificate{})
	return s
}

// Offer says which certificates are served from now on: those of orders.
func (s *Stapler) Offer(orders []route.CertificateOrder) {
	chains := map[[sha256.Size]byte][]*x509.Certificate{}
	for _, o := range orders {
		if chain := parseChain(o.Chain); len(chain) > 1 && len(chain[0].OCSPServer) > 0 && s.vouchedFor(chain) {
			chains[sha256.Sum256(chain[0].Raw)] = chain
		}
	}
	s.chains.Store(&chains)
	select {
	case s.wake <- struct{}{}:
	default: // Run is going to look
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
	if st := s.staples[sha256.Sum256(leaf)]; st != nil && s.now().Before(st.until) {
		return st.raw
	}
	return nil
}

// Run keeps the responses fresh until ctx ends.
func (s *Stapler) Run(ctx context.Context) {
	ticker := time.NewTicker(stapleEvery)
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

// refresh asks for what is due, and forgets what is not served any more.
func (s *Stapler) refresh(ctx context.Context) {
	chains := *s.chains.Load()
	fresh := false
	for hash, chain := range chains {
		s.mu.Lock()
		st := s.staples[hash]
		s.mu.Unlock()
		if st != nil && s.now().Before(st.next) {
			continue
		}
		next := s.ask(ctx, chain, st)
		s.mu.Lock()
		s.staples[hash] = next
		s.mu.Unlock()
		fresh = fresh || st == nil && next.raw != nil || st != nil && !bytes.Equal(st.raw, next.raw)
	}
	s.mu.Lock()
	for hash := range s.staples {
		if chains[hash] == nil {
			delete(s.staples, hash)
		}
	}
	s.mu.Unlock()
	if fresh {
		s.changed()
	}
}

// ask asks a responder. After a failure the old response stays for as long as it is good.
func (s *Stapler) ask(ctx context.Context, chain []*x509.Certificate, old *staple) *staple {
	r, raw, err := s.fetch(ctx, chain)
	now := s.now()
	if err != nil || r.Status != ocsp.Good {
		out := &staple{next: now.Add(stapleEvery)}
		if old != nil && err != nil && now.Before(old.until) {
			out.raw, out.until = old.raw, old.until
		}
		return out
	}
	return &staple{raw: raw, until: r.NextUpdate.Add(-2 * stapleEvery), next: r.ThisUpdate.Add(r.NextUpdate.Sub(r.ThisUpdate) / 2)}
}

var errOCSP = errors.New("the OCSP response cannot be used")

func (s *Stapler) fetch(ctx context.Context, chain []*x509.Certificate) (*ocsp.Response, []byte, error) {
	question, err := ocsp.CreateRequest(chain[0], chain[1], nil)
	if err != nil {
		return nil, nil, fmt.Errorf("make an OCSP request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, chain[0].OCSPServer[0], bytes.NewReader(question))
	if err != nil {
		return nil, nil, fmt.Errorf("make an OCSP request: %w", err)
	}
	req.Header.Set("Content-Type", "application/ocsp-request")
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, nil, fmt.Errorf("ask an OCSP responder: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, stapleBytes)) //nolint:forbidigo // with a limit
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("ask an OCSP responder: %s: %w", resp.Status, errors.Join(err, errOCSP))
	}
	r, err := ocsp.ParseResponseForCert(raw, chain[0], chain[1])
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errOCSP, err)
	}
	now := s.now()
	if r.ThisUpdate.After(now.Add(time.Hour)) || r.NextUpdate.IsZero() || !r.NextUpdate.After(now) || r.NextUpdate.After(chain[0].NotAfter) {
		return nil, nil, fmt.Errorf("%w: it is for %s to %s", errOCSP, r.ThisUpdate, r.NextUpdate)
	}
	return r, raw, nil
}
