package compile

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// selfSigned returns a certificate for a key.
func selfSigned(key crypto.Signer, names ...string) []byte {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: names,
		NotBefore: taken.AddDate(0, -1, 0), NotAfter: taken.AddDate(1, 0, 0),
	}
	return encode("CERTIFICATE", must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)))
}

func encode(typ string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der})
}

// must is for what cannot fail.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

type keys struct {
	rsa, otherRSA *rsa.PrivateKey
	ec, otherEC   *ecdsa.PrivateKey
	ed            ed25519.PrivateKey
}

func makeKeys() keys {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	return keys{
		rsa: must(rsa.GenerateKey(rand.Reader, 2048)), otherRSA: must(rsa.GenerateKey(rand.Reader, 2048)),
		ec:      must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)),
		otherEC: must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)), ed: must(ed, err),
	}
}

// What parsePair accepts the standard library must accept too, for it is what will be served; and what parsePair refuses must be of no use to it.
func TestParsePairAgreesWithTheStandardLibrary(t *testing.T) {
	k := makeKeys()
	pkcs8 := func(key any) []byte { return encode("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key))) }
	pkcs1 := func(key *rsa.PrivateKey) []byte { return encode("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)) }
	sec1 := encode("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(k.ec)))
	damaged := func(change func(*pkcs1Numbers)) []byte {
		n := pkcs1Numbers{0, k.rsa.N, k.rsa.E, k.rsa.D, k.rsa.Primes[0], k.rsa.Primes[1], k.rsa.Precomputed.Dp, k.rsa.Precomputed.Dq, k.rsa.Precomputed.Qinv}
		change(&n)
		return encode("RSA PRIVATE KEY", must(asn1.Marshal(n)))
	}
	parameters := encode("EC PARAMETERS", []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7})
	rsaCert, ecCert, edCert := selfSigned(k.rsa), selfSigned(k.ec), selfSigned(k.ed)
	tests := []struct {
		name       string
		chain, key []byte
		want       string // part of the error; "" when it is a pair
	}{
		{"RSA in PKCS 1", rsaCert, pkcs1(k.rsa), ""},
		{"RSA in PKCS 8", rsaCert, pkcs8(k.rsa), ""},
		{"ECDSA in SEC 1", ecCert, sec1, ""},
		{"ECDSA in SEC 1 behind its parameters", ecCert, append(parameters, sec1...), ""},
		{"ECDSA in PKCS 8", ecCert, pkcs8(k.ec), ""},
		{"Ed25519", edCert, pkcs8(k.ed), ""},
		{"a chain", append(append([]byte("text before\n"), ecCert...), rsaCert...), sec1, ""},
		{"key of another pair, RSA", rsaCert, pkcs1(k.otherRSA), "tls.key is not the private key"},
		{"key of another pair, ECDSA", ecCert, pkcs8(k.otherEC), "tls.key is not the private key"},
		{"key of another type", rsaCert, sec1, "tls.key is not the private key"},
		{"chain in the wrong order", append(append([]byte{}, rsaCert...), ecCert...), sec1, "tls.key is not the private key"},
		{"no certificate", nil, sec1, "tls.crt is missing or empty"},
		{"no key", ecCert, nil, "tls.key is missing or empty"},
		{"key in place of the certificate", sec1, sec1, "tls.crt holds no PEM block of type CERTIFICATE"},
		{"certificate in place of the key", ecCert, ecCert, "tls.key holds no PEM block of a private key"},
		{"garbage in the certificate", encode("CERTIFICATE", []byte("x")), sec1, "tls.crt has a certificate that cannot be parsed"},
		{"garbage in the key", ecCert, encode("PRIVATE KEY", []byte("x")), "tls.key has a private key that cannot be parsed"},
		{"encrypted key", ecCert, encode("ENCRYPTED PRIVATE KEY", []byte("x")), "tls.key has an encrypted private key"},
		{"damaged exponent", rsaCert, damaged(func(n *pkcs1Numbers) { n.D = new(big.Int).Add(n.D, big.NewInt(2)) }), "tls.key has an RSA key that is damaged"},
		{"damaged prime", rsaCert, damaged(func(n *pkcs1Numbers) { n.P = new(big.Int).Add(n.P, big.NewInt(2)) }), "tls.key has an RSA key that is damaged"},
		{"primes of another key", rsaCert, damaged(func(n *pkcs1Numbers) { n.P, n.Q, n.D = k.otherRSA.Primes[0], k.otherRSA.Primes[1], k.otherRSA.D }), "tls.key has an RSA key that is damaged"},
		{"no primes", rsaCert, damaged(func(n *pkcs1Numbers) { n.P, n.Q = big.NewInt(0), big.NewInt(-1) }), "tls.key has an RSA key that is damaged"},
		{"short modulus", rsaCert, damaged(func(n *pkcs1Numbers) { n.N = big.NewInt(3233) }), "tls.key has an RSA key of 12 bits"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := parsePair(test.chain, test.key)
			_, std := tls.X509KeyPair(test.chain, test.key)
			switch {
			case test.want == "" && (err != nil || std != nil):
				t.Errorf("parsePair: %v; tls.X509KeyPair: %v; want neither", err, std)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("parsePair: %v, want %q", err, test.want)
			case test.want != "" && std == nil:
				t.Errorf("parsePair: %v, but tls.X509KeyPair accepts it", err)
			}
		})
	}
}

type pkcs1Numbers struct {
	Version            int
	N                  *big.Int
	E                  int
	D, P, Q, A, B, Inv *big.Int
}

func TestCovers(t *testing.T) {
	k := makeKeys()
	tests := []struct {
		names []string
		host  string
		want  bool
	}{
		{[]string{"a.example.com"}, "", true},
		{[]string{"a.example.com"}, "a.example.com", true},
		{[]string{"A.Example.COM"}, "a.example.com", true},
		{[]string{"b.example.com", "a.example.com"}, "a.example.com", true},
		{[]string{"b.example.com"}, "a.example.com", false},
		{[]string{"*.example.com"}, "a.example.com", true},
		{[]string{"*.example.com"}, "a.b.example.com", false},
		{[]string{"*.example.com"}, "example.com", false},
		{[]string{"*.example.com"}, "*.example.com", true},
		{[]string{"*.Example.com"}, "*.example.com", true},
		{[]string{"a.example.com"}, "*.example.com", true},
		{[]string{"example.com"}, "*.example.com", false},
		{[]string{"*.com"}, "*.example.com", false},
		{[]string{"notexample.com"}, "*.example.com", false},
		{nil, "a.example.com", false},
	}
	for _, test := range tests {
		block, _ := pem.Decode(selfSigned(k.ec, test.names...))
		leaf := must(x509.ParseCertificate(block.Bytes))
		if got := covers(leaf, test.host); got != test.want {
			t.Errorf("covers(%v, %q) = %t, want %t", test.names, test.host, got, test.want)
		}
	}
}

func TestCertificateDates(t *testing.T) {
	leaf := &x509.Certificate{NotBefore: taken, NotAfter: taken.AddDate(0, 3, 0), DNSNames: []string{"a.example.com"}}
	tests := []struct {
		name string
		now  time.Time
		want string
	}{
		{"before", taken.Add(-time.Second), codeCertificateNotYet},
		{"at the beginning", taken, ""},
		{"in the middle", taken.AddDate(0, 1, 0), ""},
		{"two weeks before the end", leaf.NotAfter.Add(-expiresSoon), ""},
		{"less than two weeks before the end", leaf.NotAfter.Add(-expiresSoon + time.Second), codeCertificateExpiring},
		{"at the end", leaf.NotAfter, codeCertificateExpiring},
		{"after the end", leaf.NotAfter.Add(time.Second), codeCertificateExpired},
		{"without a clock", time.Time{}, ""},
	}
	for _, test := range tests {
		c := &compiler{in: &object.Snapshot{Taken: test.now}}
		c.checkCertificate(object.Ref{Kind: "Gateway", Name: "gw"}, "spec", object.Key{Name: "s"}, leaf, "a.example.com")
		got := ""
		for _, p := range c.problems.list {
			got += p.Code
		}
		if got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

// A Secret that many refer to is parsed once.
func TestReadPairRemembers(t *testing.T) {
	k := makeKeys()
	key := object.Key{Namespace: "infra", Name: "tls"}
	secret := &corev1.Secret{Type: corev1.SecretTypeTLS, Data: map[string][]byte{
		corev1.TLSCertKey: selfSigned(k.ec), corev1.TLSPrivateKeyKey: encode("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(k.ec))),
	}}
	c := &compiler{in: &object.Snapshot{Secrets: map[object.Key]*corev1.Secret{key: secret}}}
	_, first, err := c.readPair(key)
	if err != nil {
		t.Fatal(err)
	}
	if _, again, _ := c.readPair(key); again != first {
		t.Error("the Secret was parsed twice")
	}
	if _, _, err := c.readPair(object.Key{Namespace: "infra", Name: "other"}); err == nil || err.Code != codeSecretNotFound {
		t.Errorf("a Secret that does not exist: %v", err)
	}
}

func BenchmarkParsePair(b *testing.B) {
	k := makeKeys()
	chain, key := selfSigned(k.rsa), encode("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(k.rsa))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parsePair(chain, key); err != nil {
			b.Fatal(err)
		}
	}
}
