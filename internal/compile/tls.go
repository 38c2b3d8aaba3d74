package compile

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// The codes of a pairError, and of the problems that checkCertificate reports.
const (
	codeSecretNotFound      = "SecretNotFound"
	codeWrongSecretType     = "WrongSecretType"
	codeInvalidPair         = "InvalidPair"
	codeCertificateExpired  = "CertificateExpired"
	codeCertificateNotYet   = "CertificateNotYetValid"
	codeCertificateExpiring = "CertificateExpiresSoon"
	codeCertificateHost     = "CertificateHostMismatch"
	codeSelfSigned          = "SelfSigned"
)

// expiresSoon is how long before its end a certificate is worth a note. Whatever renews certificates does it long before.
const expiresSoon = 14 * 24 * time.Hour

// pairError says why a Secret is of no use as a certificate.
type pairError struct{ Code, Message string }

// parsedPair is what readPair remembers of a Secret, because several listeners and Ingresses may name the same one.
type parsedPair struct {
	pair route.KeyPair
	leaf *x509.Certificate
	err  *pairError
}

// readPair reads the certificate and key in a Secret of type kubernetes.io/tls. They belong together, or there is an error. It does not ask whether anybody
// may refer to the Secret: see mayRefer. Nor does it judge dates and names: see checkCertificate.
func (c *compiler) readPair(ref object.Key) (route.KeyPair, *x509.Certificate, *pairError) {
	p, ok := c.pairs[ref]
	if !ok {
		p.pair, p.leaf, p.err = parseSecret(ref, c.in.Secrets[ref])
		if c.pairs == nil {
			c.pairs = make(map[object.Key]parsedPair)
		}
		c.pairs[ref] = p
	}
	return p.pair, p.leaf, p.err
}

func parseSecret(ref object.Key, s *corev1.Secret) (pair route.KeyPair, leaf *x509.Certificate, _ *pairError) {
	switch {
	case s == nil:
		return pair, nil, &pairError{codeSecretNotFound, fmt.Sprintf("Secret %s does not exist", ref)}
	case s.Type != corev1.SecretTypeTLS:
		return pair, nil, &pairError{codeWrongSecretType, fmt.Sprintf("Secret %s has the type %q, not %s", ref, s.Type, corev1.SecretTypeTLS)}
	}
	pair = route.KeyPair{
		Namespace: ref.Namespace, Name: ref.Name,
		Chain: s.Data[corev1.TLSCertKey], Key: s.Data[corev1.TLSPrivateKeyKey],
	}
	leaf, err := parsePair(pair.Chain, pair.Key)
	if err != nil {
		return route.KeyPair{}, nil, &pairError{codeInvalidPair, fmt.Sprintf("Secret %s: %v", ref, err)}
	}
	return pair, leaf, nil
}

// parsePair returns the first certificate of a chain, which must be the key's. Beside tls.X509KeyPair it is cheap: an RSA key is checked by arithmetic on what
// it says of itself, not rebuilt, which is most of the time that a cluster with thousands of Secrets would take to compile.
func parsePair(chain, key []byte) (*x509.Certificate, error) {
	leaf, err := parseChain(chain)
	if err != nil {
		return nil, fmt.Errorf("%s %w", corev1.TLSCertKey, err)
	}
	public, err := parseKey(key)
	if err != nil {
		return nil, fmt.Errorf("%s %w", corev1.TLSPrivateKeyKey, err)
	}
	if k, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !k.Equal(public) {
		return nil, fmt.Errorf("%s is not the private key of the first certificate in %s", corev1.TLSPrivateKeyKey, corev1.TLSCertKey)
	}
	return leaf, nil
}

// parseChain checks every certificate of a chain, for all of them are sent to clients, and returns the first.
func parseChain(data []byte) (leaf *x509.Certificate, _ error) {
	if len(data) == 0 {
		return nil, errors.New("is missing or empty")
	}
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("has a certificate that cannot be parsed: %w", err)
		}
		if leaf == nil {
			leaf = cert
		}
	}
	if leaf == nil {
		return nil, errors.New("holds no PEM block of type CERTIFICATE")
	}
	return leaf, nil
}

// parseKey returns the public half of the first private key in data.
func parseKey(data []byte) (crypto.PublicKey, error) {
	if len(data) == 0 {
		return nil, errors.New("is missing or empty")
	}
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return nil, errors.New("holds no PEM block of a private key")
		}
		if block.Type != "PRIVATE KEY" && !strings.HasSuffix(block.Type, " PRIVATE KEY") {
			continue
		}
		if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" {
			return nil, errors.New("has an encrypted private key, which nobody can decrypt here")
		}
		return publicOf(block.Bytes)
	}
}

// publicOf returns the public half of a private key in one of the three encodings that are in use: PKCS #1, SEC 1, PKCS #8.
func publicOf(der []byte) (crypto.PublicKey, error) {
	if key, ok := parseRSA(der); ok {
		return checkRSA(key)
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return &key.PublicKey, nil
	}
	var inner pkcs8
	if _, err := asn1.Unmarshal(der, &inner); err == nil && inner.Algorithm.Algorithm.Equal(oidRSA) {
		if key, ok := parseRSA(inner.Key); ok {
			return checkRSA(key)
		}
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("has a private key that cannot be parsed: %w", err)
	}
	switch key := key.(type) {
	case *rsa.PrivateKey:
		return &key.PublicKey, nil
	case *ecdsa.PrivateKey:
		return &key.PublicKey, nil
	case ed25519.PrivateKey:
		return key.Public(), nil
	}
	return nil, fmt.Errorf("has a key of type %T, which cannot sign TLS handshakes", key)
}

// oidRSA is rsaEncryption, RFC 8017 appendix C.
var oidRSA = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}

// pkcs8 is PrivateKeyInfo, RFC 5208 section 5.
type pkcs8 struct {
	Version   int
	Algorithm struct {
		Algorithm  asn1.ObjectIdentifier
		Parameters asn1.RawValue `asn1:"optional"`
	}
	Key []byte
}

// pkcs1 is RSAPrivateKey with two primes, RFC 8017 appendix A.1.2.
type pkcs1 struct {
	Version          int
	N                *big.Int
	E                int
	D, P, Q          *big.Int
	Dp, Dq, Qinverse *big.Int
}

func parseRSA(der []byte) (*pkcs1, bool) {
	key := new(pkcs1)
	rest, err := asn1.Unmarshal(der, key)
	return key, err == nil && len(rest) == 0 && key.Version == 0
}

// errDamaged says that the numbers of an RSA key do not belong together.
var errDamaged = errors.New("has an RSA key that is damaged")

// checkRSA tells whether the numbers of an RSA key belong together, and returns its public half.
func checkRSA(k *pkcs1) (crypto.PublicKey, error) {
	if bits := k.N.BitLen(); bits < 1024 {
		return nil, fmt.Errorf("has an RSA key of %d bits, which is too short; 2048 is usual", bits)
	}
	one := big.NewInt(1)
	for _, p := range []*big.Int{k.P, k.Q} {
		if p.Cmp(one) <= 0 {
			return nil, errDamaged
		}
		p1, r := new(big.Int).Sub(p, one), new(big.Int)
		if r.Mod(r.Mul(k.D, big.NewInt(int64(k.E))), p1); r.Cmp(one) != 0 {
			return nil, errDamaged
		}
	}
	if new(big.Int).Mul(k.P, k.Q).Cmp(k.N) != 0 {
		return nil, errDamaged
	}
	return &rsa.PublicKey{N: k.N, E: k.E}, nil
}

// checkCertificate reports what will keep clients from trusting a certificate that works in itself: its dates, and that it does not cover host, the name that
// it is presented for ("" is any). The problems are those of the object on, at field.
func (c *compiler) checkCertificate(on object.Ref, field string, secret object.Key, leaf *x509.Certificate, host string) {
	now := c.in.Taken
	switch left := leaf.NotAfter.Sub(now); {
	case now.IsZero():
	case left < 0:
		c.problems.add(Error, on, field, codeCertificateExpired, "the certificate in Secret %s expired on %s; clients will refuse it",
			secret, leaf.NotAfter.UTC().Format(time.DateOnly))
	case now.Before(leaf.NotBefore):
		c.problems.add(Error, on, field, codeCertificateNotYet, "the certificate in Secret %s is not valid before %s; clients will refuse it",
			secret, leaf.NotBefore.UTC().Format(time.DateTime))
	case left < expiresSoon:
		c.problems.add(Note, on, field, codeCertificateExpiring, "the certificate in Secret %s expires on %s",
			secret, leaf.NotAfter.UTC().Format(time.DateOnly))
	}
	c.checkCovers(on, field, secret, leaf, host)
}

// checkCovers reports a certificate that is not good for any name that host stands for.
func (c *compiler) checkCovers(on object.Ref, field string, secret object.Key, leaf *x509.Certificate, host string) {
	if covers(leaf, host) {
		return
	}
	names := "no name at all, because only subject alternative names count"
	if len(leaf.DNSNames) > 0 {
		names = list(leaf.DNSNames)
	}
	c.problems.add(Warning, on, field, codeCertificateHost,
		"the certificate in Secret %s is not for %s, for which clients will refuse it; it is for %s", secret, host, names)
}

// covers tells whether a certificate is good for host, and when host is a wildcard for one of the names at least that it stands for.
func covers(leaf *x509.Certificate, host string) bool {
	suffix, wild := strings.CutPrefix(host, "*")
	switch {
	case host == "":
		return true
	case !wild:
		return leaf.VerifyHostname(host) == nil
	}
	for _, name := range leaf.DNSNames {
		if name = strings.ToLower(name); strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}
