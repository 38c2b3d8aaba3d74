package cert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"sync"
	"sync/atomic"
	"time"
)

// How long a self-signed certificate is valid, and when it is replaced.
const (
	fallbackValid = 365 * 24 * time.Hour
	fallbackRenew = 30 * 24 * time.Hour
)

// fallback is a self-signed certificate for one host name of the configuration, or for none. It is made at the first handshake that needs it. Clients cannot
// cause more of them than there are names.
type fallback struct {
	host string // "" is no name in particular
	now  func() time.Time

	made atomic.Pointer[tls.Certificate]
	mu   sync.Mutex // held while one is being made
}

// get returns the certificate.
func (f *fallback) get() (*tls.Certificate, error) {
	if c := f.made.Load(); c != nil && c.Leaf.NotAfter.Sub(f.now()) > fallbackRenew {
		return c, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	if c := f.made.Load(); c != nil && c.Leaf.NotAfter.Sub(now) > fallbackRenew {
		return c, nil
	}
	c, err := selfSign(f.host, now)
	if err != nil {
		return nil, fmt.Errorf("make fallback certificate: %w", err)
	}
	f.made.Store(c)
	return c, nil
}

// subject returns a common name that tells whoever sees the certificate what is wrong. Common names have 64 characters at most (RFC 5280, ub-common-name).
func subject(host string) string {
	const what = "Fairlead fallback: no usable certificate"
	if host == "" {
		return what
	}
	if s := what + " for " + host; len(s) <= 64 {
		return s
	}
	return what
}

func selfSign(host string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: subject(host)},
		NotBefore:             now.Add(-time.Hour), // for clients whose clock is behind
		NotAfter:              now.Add(fallbackValid),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	if host != "" {
		template.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}
