package cert

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"

	"github.com/fairlead-io/fairlead/internal/route"
)

// minRSABits is the smallest RSA key that crypto/tls signs with.
const minRSABits = 1024

// pair is a certificate that can be presented, and the Secret that it is in.
type pair struct {
	*material
	secret string // namespace/name
}

// material is a parsed certificate with its key. The same one is often copied to many namespaces; it is held once.
type material struct {
	cert    tls.Certificate
	keyType string
	rank    int // lower is preferred
}

// secretKey names a Secret.
type secretKey struct{ namespace, name string }

// contentHash identifies a pair by what is in it.
type contentHash [sha256.Size]byte

// parsed remembers pairs from one Install to the next: parsing is by far the dearest part of it. A pair that cannot be used is remembered too (as nil), and
// logged once.
type parsed struct {
	log *slog.Logger

	bySecret, oldBySecret map[secretKey]read
	byHash, oldByHash     map[contentHash]*material
}

// read is what was read from a Secret, and what it is.
type read struct {
	chain, key []byte
	hash       contentHash
	material   *material
}

func newParsed(log *slog.Logger) *parsed { return &parsed{log: log} }

// begin starts an Install: what is not asked for until end is forgotten.
func (p *parsed) begin() {
	p.oldBySecret, p.oldByHash = p.bySecret, p.byHash
	p.bySecret, p.byHash = map[secretKey]read{}, map[contentHash]*material{}
}

func (p *parsed) end() { p.oldBySecret, p.oldByHash = nil, nil }

// read returns what is in a pair, or nil if it cannot be used.
func (p *parsed) read(k route.KeyPair) *material {
	secret := secretKey{k.Namespace, k.Name}
	for _, known := range []map[secretKey]read{p.bySecret, p.oldBySecret} {
		if r, ok := known[secret]; ok && bytes.Equal(r.chain, k.Chain) && bytes.Equal(r.key, k.Key) {
			p.bySecret[secret], p.byHash[r.hash] = r, r.material
			return r.material
		}
	}
	hash := hashOf(k)
	m := p.byContent(hash, k)
	p.bySecret[secret], p.byHash[hash] = read{chain: k.Chain, key: k.Key, hash: hash, material: m}, m
	return m
}

func (p *parsed) byContent(hash contentHash, k route.KeyPair) *material {
	for _, known := range []map[contentHash]*material{p.byHash, p.oldByHash} {
		if m, ok := known[hash]; ok {
			return m
		}
	}
	m, err := parse(k)
	if err != nil {
		p.log.Warn("certificate cannot be used", "secret", k.Namespace+"/"+k.Name, "error", err)
		return nil
	}
	return m
}

func hashOf(k route.KeyPair) contentHash {
	h := sha256.New()
	fmt.Fprintf(h, "%d:", len(k.Chain))
	h.Write(k.Chain)
	h.Write(k.Key)
	return contentHash(h.Sum(nil))
}

// parse reads a pair and refuses what no handshake could be made with.
func parse(k route.KeyPair) (*material, error) {
	c, err := tls.X509KeyPair(k.Chain, k.Key)
	if err != nil {
		return nil, fmt.Errorf("parse certificate: %w", err)
	}
	if c.Leaf == nil {
		if c.Leaf, err = x509.ParseCertificate(c.Certificate[0]); err != nil {
			return nil, fmt.Errorf("parse certificate: %w", err)
		}
	}
	m := &material{cert: c}
	switch pub := c.Leaf.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if pub.Curve == elliptic.P224() {
			return nil, fmt.Errorf("use certificate: TLS has no curve %s: use P-256 or P-384", pub.Params().Name)
		}
		m.keyType, m.rank = "ECDSA", 0
	case ed25519.PublicKey:
		m.keyType, m.rank = "Ed25519", 1
	case *rsa.PublicKey:
		if bits := pub.N.BitLen(); bits < minRSABits {
			return nil, fmt.Errorf("use certificate: RSA key has %d bits: use 2048 or more", bits)
		}
		m.keyType, m.rank = "RSA", 2
	default:
		return nil, fmt.Errorf("use certificate: unknown key type %T: use ECDSA, Ed25519 or RSA", pub)
	}
	return m, nil
}
