package acme

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ocsp"
)

// How OCSP responders are asked.
const (
	responderEvery  = 10 * time.Minute
	responderWithin = 15 * time.Second
	asksOfResponder = 4 // at once
	asksAtOnce      = 32
	stapleBytes     = 64 << 10
)

// refresh has each responder asked for what is due, and forgets what is not served any more. It does not wait for the answers: one responder must not hold up another.
func (s *Stapler) refresh(ctx context.Context) {
	served := *s.chains.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	for hash := range s.staples {
		if served[hash] == nil {
			delete(s.staples, hash)
		}
	}
	for responder := range s.due(served) {
		if !s.asked[responder] {
			s.asked[responder] = true
			s.asking.Go(func() { s.askAll(ctx, responder) })
		}
	}
}

// due are the certificates of each responder for which it should be asked. s.mu is held.
func (s *Stapler) due(served chains) map[string][]leafHash {
	out, now := map[string][]leafHash{}, s.now()
	for hash, chain := range served {
		if !now.Before(s.staples[hash].next) {
			responder := responderOf(chain[0])
			out[responder] = append(out[responder], hash)
		}
	}
	return out
}

// responderOf is the host that is asked about a certificate.
func responderOf(leaf *x509.Certificate) string {
	u, err := url.Parse(leaf.OCSPServer[0])
	if err != nil {
		return "" // which nobody can ask
	}
	return u.Host
}

// askAll asks a responder for everything that is due, a few at a time. If it has no answer to any of those, the rest is left for another time.
func (s *Stapler) askAll(ctx context.Context, responder string) {
	served := *s.chains.Load()
	s.mu.Lock()
	due := s.due(served)[responder]
	s.mu.Unlock()
	answers := true
	for some := range slices.Chunk(due, asksOfResponder) {
		if answers {
			answers = s.askSome(ctx, served, some)
		} else {
			s.postpone(some)
		}
	}
	s.mu.Lock()
	delete(s.asked, responder)
	s.mu.Unlock()
	s.poke() // more may have become due
}

// askSome asks for several certificates at once, and tells whether there was an answer to any.
func (s *Stapler) askSome(ctx context.Context, served chains, some []leafHash) bool {
	var group sync.WaitGroup
	var answered, fresh atomic.Bool
	for _, hash := range some {
		group.Go(func() {
			s.asks <- struct{}{}
			defer func() { <-s.asks }()
			old := s.get(hash)
			next, err := s.ask(ctx, served[hash], old)
			s.set(hash, next)
			if err == nil {
				answered.Store(true)
			}
			if !bytes.Equal(old.raw, next.raw) {
				fresh.Store(true)
			}
		})
	}
	group.Wait()
	if fresh.Load() {
		s.changed()
	}
	return answered.Load()
}

// postpone has nobody asked for certificates for a while. What there is stays.
func (s *Stapler) postpone(some []leafHash) {
	for _, hash := range some {
		s.set(hash, s.later(s.get(hash)))
	}
}

func (s *Stapler) get(hash leafHash) staple {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.staples[hash]
}

func (s *Stapler) set(hash leafHash, st staple) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.staples[hash] = st
}

// later is a staple after nobody was asked, or in vain: it stays for as long as it is good.
func (s *Stapler) later(st staple) staple {
	now := s.now()
	if !now.Before(st.until) {
		st = staple{}
	}
	st.next = now.Add(responderEvery)
	return st
}

// ask asks a responder. An error says that there was no answer.
func (s *Stapler) ask(ctx context.Context, chain []*x509.Certificate, old staple) (staple, error) {
	r, raw, err := s.fetch(ctx, chain)
	if err != nil {
		return s.later(old), err
	}
	if r.Status != ocsp.Good {
		return s.later(staple{}), nil
	}
	return staple{raw: raw, until: r.NextUpdate.Add(-2 * responderEvery), next: r.ThisUpdate.Add(r.NextUpdate.Sub(r.ThisUpdate) / 2)}, nil
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
