package cert

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-io/fairlead/internal/route"
)

var https = route.Bind{Port: 8443}

// keys of each type, made once: RSA keys take long.
var (
	rsaKey     = sync.OnceValue(func() crypto.Signer { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	ecdsaKey   = sync.OnceValue(func() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	ed25519Key = sync.OnceValue(func() crypto.Signer { _, k, err := ed25519.GenerateKey(rand.Reader); return must(k, err) })
	serials    atomic.Int64
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// makePair returns a self-signed pair in the Secret ns/name whose common name is ns/name and that covers the host names.
func makePair(key crypto.Signer, ns, name string, hosts ...string) route.KeyPair {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serials.Add(1)),
		Subject:      pkix.Name{CommonName: ns + "/" + name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		DNSNames:     hosts,
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	pkcs8 := must(x509.MarshalPKCS8PrivateKey(key))
	return route.KeyPair{
		Namespace: ns, Name: name,
		Chain: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:   pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
	}
}

// certFor returns a certificate for a host name on the bind https, from a listener, with one pair in a Secret that is named like the host.
func certFor(hostname string) route.Certificate {
	return route.Certificate{Bind: https, Hostname: hostname, Pairs: []route.KeyPair{makePair(ecdsaKey(), "ns", hostname, hostname)}, Source: route.Source{Kind: "Gateway"}}
}

func fromIngress(c route.Certificate) route.Certificate {
	c.Source.Kind = "Ingress"
	c.Pairs[0] = makePair(ecdsaKey(), "ingress", c.Hostname, c.Hostname)
	return c
}

// serve starts a TLS server that takes its certificates from the store. Each connection gets back what it sends.
func serve(t testing.TB, s *Store) (addr string) {
	t.Helper()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return s.Get(https, h) },
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
	return ln.Addr().String()
}

// dial makes a handshake and returns the connection, which the test closes.
func dial(t testing.TB, addr, sni string, conf *tls.Config) *tls.Conn {
	t.Helper()
	c, err := handshake(t.Context(), addr, sni, conf)
	if err != nil {
		t.Fatalf("handshake for %q: %v", sni, err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func handshake(ctx context.Context, addr, sni string, conf *tls.Config) (*tls.Conn, error) {
	if conf == nil {
		conf = &tls.Config{}
	}
	conf = conf.Clone()
	conf.ServerName, conf.InsecureSkipVerify = sni, true
	c, err := (&tls.Dialer{Config: conf}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return c.(*tls.Conn), nil
}

// presented returns the common name of the certificate that a connection was given.
func presented(c *tls.Conn) string {
	return c.ConnectionState().PeerCertificates[0].Subject.CommonName
}

const nobody = "Fairlead fallback: no usable certificate"

func TestWhichCertificate(t *testing.T) {
	all := []route.Certificate{
		certFor("*.example.com"), certFor("a.example.com"), certFor("*.b.example.com"), certFor(""),
		fromIngress(certFor("*.shop.test")), fromIngress(certFor("exact.shop.test")),
	}
	noAny := []route.Certificate{certFor("a.example.com"), certFor("*.example.com"), fromIngress(certFor("*.shop.test"))}
	tests := []struct {
		name string
		list []route.Certificate
		sni  string
		want string
	}{
		{"exact before wildcard", all, "a.example.com", "ns/a.example.com"},
		{"wildcard", all, "x.example.com", "ns/*.example.com"},
		{"longest wildcard", all, "x.b.example.com", "ns/*.b.example.com"},
		{"a listener's wildcard spans labels", all, "x.y.example.com", "ns/*.example.com"},
		{"a listener's longest wildcard spans labels", all, "x.y.b.example.com", "ns/*.b.example.com"},
		{"a wildcard is not its parent", all, "example.com", "ns/"},
		{"a wildcard's own suffix is a name under the next", all, "b.example.com", "ns/*.example.com"},
		{"a suffix is whole labels", all, "notexample.com", "ns/"},
		{"an Ingress's wildcard", all, "x.shop.test", "ingress/*.shop.test"},
		{"an Ingress's wildcard is one label", all, "x.y.shop.test", "ns/"},
		{"exact before an Ingress's wildcard", all, "exact.shop.test", "ingress/exact.shop.test"},
		{"any", all, "other.test", "ns/"},
		{"upper case", all, "A.EXAMPLE.COM", "ns/a.example.com"},
		{"mixed case wildcard", all, "X.Example.com", "ns/*.example.com"},
		{"trailing dot", all, "a.example.com.", "ns/a.example.com"},
		{"trailing dot and wildcard", all, "X.example.com.", "ns/*.example.com"},
		{"no name", all, "", "ns/"},
		{"only a dot", all, ".", "ns/"},
		{"IPv4 address", all, "127.0.0.1", "ns/"},
		{"IPv6 address", all, "2001:db8::1", "ns/"},
		{"IPv6 address in brackets", all, "[2001:db8::1]", "ns/"},
		{"no name and nothing for any", noAny, "", nobody},
		{"address and nothing for any", noAny, "127.0.0.1", nobody},
		{"unknown and nothing for any", noAny, "other.test", nobody},
		{"too long", noAny, strings.Repeat("a", 300) + ".example.com", nobody},
		{"longest name", noAny, strings.Repeat("a.", 120) + "example.com", "ns/*.example.com"},
		{"empty label", noAny, ".example.com", nobody},
		{"nothing at all", nil, "a.example.com", nobody},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := New(Options{})
			s.Install(tt.list)
			c, err := s.Get(https, &tls.ClientHelloInfo{ServerName: tt.sni})
			if err != nil {
				t.Fatal(err)
			}
			if got := c.Leaf.Subject.CommonName; got != tt.want {
				t.Errorf("Get(%q) = %s, want %s", tt.sni, got, tt.want)
			}
		})
	}
}

func TestBindsAreApart(t *testing.T) {
	s := New(Options{})
	one := certFor("a.example.com")
	one.Bind = route.Bind{Address: "127.0.1.1", Port: 8443}
	s.Install([]route.Certificate{one})
	for bind, want := range map[route.Bind]string{one.Bind: "ns/a.example.com", https: nobody, {Address: "127.0.1.1", Port: 443}: nobody} {
		c, err := s.Get(bind, &tls.ClientHelloInfo{ServerName: "a.example.com"})
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Leaf.Subject.CommonName; got != want {
			t.Errorf("Get(%v) = %s, want %s", bind, got, want)
		}
	}
}

func TestStoreBeforeInstall(t *testing.T) {
	s := New(Options{})
	c, err := s.Get(https, &tls.ClientHelloInfo{ServerName: "a"})
	if err != nil || c.Leaf.Subject.CommonName != nobody {
		t.Errorf("Get = %v, %v, want a fallback", c, err)
	}
	if got := s.List(); len(got) != 0 {
		t.Errorf("List() = %v, want nothing", got)
	}
}

func TestHandshakes(t *testing.T) {
	s := New(Options{})
	addr := serve(t, s)
	s.Install([]route.Certificate{certFor("*.example.com"), certFor("a.example.com"), certFor("")})
	for sni, want := range map[string]string{
		"a.example.com": "ns/a.example.com", "A.Example.COM": "ns/a.example.com", "b.example.com": "ns/*.example.com", "other.test": "ns/", "": "ns/",
		"127.0.0.1": "ns/",
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			if got := presented(dial(t, addr, sni, &tls.Config{MinVersion: version, MaxVersion: version})); got != want {
				t.Errorf("server name %q got %s, want %s", sni, got, want)
			}
		}
	}
}

func TestKeyTypeByClient(t *testing.T) {
	ec, r, ed := makePair(ecdsaKey(), "ns", "ecdsa", "a.test"), makePair(rsaKey(), "ns", "rsa", "a.test"), makePair(ed25519Key(), "ns", "ed25519", "a.test")
	other := makePair(rsaKey(), "ns", "rsa-other-name", "b.test")
	onlyRSA := &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}
	onlyECDSA := &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}}
	tests := []struct {
		name   string
		pairs  []route.KeyPair
		client *tls.Config
		want   string
	}{
		{"ECDSA where both work", []route.KeyPair{r, ec}, nil, "ns/ecdsa"},
		{"ECDSA where all work", []route.KeyPair{r, ed, ec}, nil, "ns/ecdsa"},
		{"RSA for a client that knows nothing else", []route.KeyPair{ec, ed, r}, onlyRSA, "ns/rsa"},
		{"ECDSA for a client that knows nothing else", []route.KeyPair{r, ec}, onlyECDSA, "ns/ecdsa"},
		{"the first of one type", []route.KeyPair{r, other}, nil, "ns/rsa"},
		{"the one that covers the name", []route.KeyPair{other, r}, nil, "ns/rsa"},
		{"the usable one where none covers the name", []route.KeyPair{makePair(ecdsaKey(), "ns", "e", "b.test"), other}, onlyRSA, "ns/rsa-other-name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := New(Options{})
			s.Install([]route.Certificate{{Bind: https, Hostname: "a.test", Pairs: tt.pairs}})
			if got := presented(dial(t, serve(t, s), "a.test", tt.client)); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
	t.Run("a client that supports none is told so", func(t *testing.T) {
		s := New(Options{})
		s.Install([]route.Certificate{{Bind: https, Hostname: "a.test", Pairs: []route.KeyPair{r, other}}})
		if _, err := handshake(t.Context(), serve(t, s), "a.test", onlyECDSA); err == nil {
			t.Error("handshake succeeded, want an error")
		}
	})
}

func TestFallback(t *testing.T) {
	broken := certFor("broken.test")
	broken.Pairs[0].Key = []byte("no key")
	long := strings.Repeat("a", 60) + ".test"
	s := New(Options{})
	s.Install([]route.Certificate{
		{Bind: https, Hostname: "missing.test"}, {Bind: https, Hostname: "*.missing.test"}, {Bind: https, Hostname: long}, {Bind: https, Hostname: ""}, broken,
	})
	addr := serve(t, s)
	tests := []struct {
		sni, wantSubject, wantName string
		valid                      bool
	}{
		{"missing.test", nobody + " for missing.test", "missing.test", true},
		{"x.missing.test", nobody + " for *.missing.test", "*.missing.test", true},
		{"broken.test", nobody + " for broken.test", "broken.test", true},
		{long, nobody, long, true},
		{"other.test", nobody, "", false},
	}
	for _, tt := range tests {
		t.Run(tt.sni, func(t *testing.T) {
			leaf := dial(t, addr, tt.sni, nil).ConnectionState().PeerCertificates[0]
			if leaf.Subject.CommonName != tt.wantSubject {
				t.Errorf("subject is %q, want %q", leaf.Subject.CommonName, tt.wantSubject)
			}
			if len(leaf.Subject.CommonName) > 64 {
				t.Errorf("subject %q has more than 64 characters", leaf.Subject.CommonName)
			}
			if got := strings.Join(leaf.DNSNames, " "); got != tt.wantName {
				t.Errorf("names are %q, want %q", got, tt.wantName)
			}
			if err := leaf.VerifyHostname(tt.sni); (err == nil) != tt.valid {
				t.Errorf("VerifyHostname = %v, want ok: %t", err, tt.valid)
			}
			roots := x509.NewCertPool()
			roots.AddCert(leaf)
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots}); err != nil {
				t.Errorf("whoever chose to trust it could not: %v", err)
			}
		})
	}
}

func TestFallbackIsMadeOnce(t *testing.T) {
	now := time.Now()
	s := New(Options{Now: func() time.Time { return now }})
	list := []route.Certificate{{Bind: https, Hostname: "a.test"}}
	s.Install(list)
	get := func(name string) *tls.Certificate { return must(s.Get(https, &tls.ClientHelloInfo{ServerName: name})) }

	const clients = 8
	got := make([]*tls.Certificate, clients)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() { got[i] = get("a.test") })
	}
	wg.Wait()
	for _, c := range got[1:] {
		if c != got[0] {
			t.Fatal("two clients at the same time got different fallbacks")
		}
	}
	s.Install(list)
	if get("a.test") != got[0] {
		t.Error("a new configuration changed the fallback of a host that is still in it")
	}
	unknown := get("x.test")
	if get("y.test") != unknown {
		t.Error("two unknown names got different fallbacks: clients can make any number of them")
	}
	now = now.Add(fallbackValid - fallbackRenew)
	if get("a.test") == got[0] || get("x.test") == unknown {
		t.Error("a fallback that is about to expire was not replaced")
	}
	s.Install(nil)
	s.Install(list)
	if get("a.test") == got[0] {
		t.Error("the fallback of a host that was removed is still held")
	}
}

// slogTo returns a logger that writes to b without times.
func slogTo(b *bytes.Buffer) *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

func TestUnusablePairs(t *testing.T) {
	t.Setenv("GODEBUG", "rsa1024min=0") // to make a key that is too short
	good := makePair(ecdsaKey(), "ns", "good", "a.test")
	otherKey := good
	otherKey.Key = makePair(must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), "ns", "x").Key
	for _, tt := range []struct {
		name string
		pair route.KeyPair
	}{
		{"empty", route.KeyPair{Namespace: "ns", Name: "bad"}},
		{"not PEM", route.KeyPair{Namespace: "ns", Name: "bad", Chain: []byte("x"), Key: []byte("y")}},
		{"key of another certificate", otherKey},
		{"swapped", route.KeyPair{Namespace: "ns", Name: "bad", Chain: good.Key, Key: good.Chain}},
		{"short RSA key", makePair(must(rsa.GenerateKey(rand.Reader, 768)), "ns", "rsa768", "a.test")},
		{"curve that TLS has not", makePair(must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader)), "ns", "p224", "a.test")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			s := New(Options{Log: slogTo(&b)})
			list := []route.Certificate{{Bind: https, Hostname: "a.test", Pairs: []route.KeyPair{tt.pair}}}
			for range 3 {
				s.Install(list)
			}
			if got := must(s.Get(https, &tls.ClientHelloInfo{ServerName: "a.test"})).Leaf.Subject.CommonName; got != nobody+" for a.test" {
				t.Errorf("got %s, want the fallback", got)
			}
			if n := strings.Count(b.String(), "\n"); n != 1 {
				t.Errorf("logged %d times, want once: %s", n, &b)
			}
			if strings.Contains(b.String(), "PRIVATE") {
				t.Errorf("the log has key material: %s", &b)
			}
			list[0].Pairs = []route.KeyPair{tt.pair, good}
			s.Install(list)
			if got := must(s.Get(https, &tls.ClientHelloInfo{ServerName: "a.test"})).Leaf.Subject.CommonName; got != "ns/good" {
				t.Errorf("got %s, want the usable pair beside the broken one", got)
			}
		})
	}
}

// What somebody else asks for must not take the place of what was there first.
func TestFirstUsableCertificateOfANameWins(t *testing.T) {
	first := route.Certificate{Bind: https, Hostname: "a.test", Pairs: []route.KeyPair{makePair(rsaKey(), "one", "tls", "a.test")}}
	second := route.Certificate{Bind: https, Hostname: "a.test", Pairs: []route.KeyPair{makePair(ecdsaKey(), "two", "tls", "a.test")}}
	empty := route.Certificate{Bind: https, Hostname: "a.test"}
	for _, tt := range []struct {
		name string
		list []route.Certificate
		want string
	}{
		{"first", []route.Certificate{first, second}, "one/tls"},
		{"first without pairs", []route.Certificate{empty, second, first}, "two/tls"},
		{"upper case is the same name", []route.Certificate{first, {Bind: https, Hostname: "A.TEST", Pairs: second.Pairs}}, "one/tls"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := New(Options{})
			s.Install(tt.list)
			if got := must(s.Get(https, &tls.ClientHelloInfo{ServerName: "a.test"})).Leaf.Subject.CommonName; got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if n := len(s.List()); n != 1 {
				t.Errorf("List() has %d entries, want 1", n)
			}
		})
	}
}

func TestUnchangedPairsAreNotParsedAgain(t *testing.T) {
	s := New(Options{})
	a := certFor("a.test")
	get := func(name string) *tls.Certificate { return must(s.Get(https, &tls.ClientHelloInfo{ServerName: name})) }
	s.Install([]route.Certificate{a})
	first := get("a.test")

	// The same bytes in a fresh slice, as after reading the Secret again, and in a copy of the Secret.
	again := a
	again.Pairs = []route.KeyPair{{Namespace: "ns", Name: "a.test", Chain: bytes.Clone(a.Pairs[0].Chain), Key: bytes.Clone(a.Pairs[0].Key)}}
	copied := again
	copied.Hostname, copied.Pairs = "b.test", []route.KeyPair{{Namespace: "copy", Name: "tls", Chain: again.Pairs[0].Chain, Key: again.Pairs[0].Key}}
	s.Install([]route.Certificate{again, copied})
	if get("a.test").Leaf != first.Leaf || get("b.test").Leaf != first.Leaf {
		t.Error("an unchanged pair was parsed again")
	}
	if got := s.List()[1].Secret; got != "copy/tls" {
		t.Errorf("the copy is listed as Secret %s, want copy/tls", got)
	}

	changed := again
	changed.Pairs = []route.KeyPair{makePair(ecdsaKey(), "ns", "a.test", "a.test")}
	s.Install([]route.Certificate{changed})
	if get("a.test").Leaf == first.Leaf {
		t.Error("a changed pair was not parsed")
	}
	if len(s.parsed.byHash) != 1 || len(s.parsed.bySecret) != 1 || s.parsed.oldByHash != nil {
		t.Error("pairs that are no longer used are still held")
	}
	s.Install([]route.Certificate{again})
	if got := get("a.test").Leaf; got.SerialNumber.Cmp(first.Leaf.SerialNumber) != 0 {
		t.Errorf("going back gives serial %v, want %v", got.SerialNumber, first.Leaf.SerialNumber)
	}
}

func TestList(t *testing.T) {
	s := New(Options{})
	second := certFor("b.test")
	second.Pairs = append(second.Pairs, makePair(rsaKey(), "ns", "rsa", "b.test", "c.test"))
	other := certFor("a.test")
	other.Bind = route.Bind{Address: "127.0.1.1", Port: 443}
	s.Install([]route.Certificate{other, second, {Bind: https, Hostname: "a.test"}})
	got := s.List()
	for i := range got {
		if got[i].Fallback != got[i].NotAfter.IsZero() {
			t.Errorf("%s expires at %v", got[i].Hostname, got[i].NotAfter)
		}
		got[i].NotAfter = time.Time{}
	}
	want := []Info{
		{Bind: https, Hostname: "a.test", Fallback: true},
		{Bind: https, Hostname: "b.test", Secret: "ns/b.test", DNSNames: []string{"b.test"}, KeyType: "ECDSA", Issuer: "ns/b.test"},
		{Bind: https, Hostname: "b.test", Secret: "ns/rsa", DNSNames: []string{"b.test", "c.test"}, KeyType: "RSA", Issuer: "ns/rsa"},
		{Bind: other.Bind, Hostname: "a.test", Secret: "ns/a.test", DNSNames: []string{"a.test"}, KeyType: "ECDSA", Issuer: "ns/a.test"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("List() differs (-want +got):\n%s", diff)
	}
}

// say sends a word over a connection and expects it back.
func say(c net.Conn, word string) error {
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, word); err != nil {
		return err
	}
	got := make([]byte, len(word))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(got) != word {
		return fmt.Errorf("got %q back, want %q", got, word)
	}
	return nil
}

func TestReplacingKeepsConnections(t *testing.T) {
	s := New(Options{})
	addr := serve(t, s)
	old, next := makePair(ecdsaKey(), "ns", "old", "a.test"), makePair(ecdsaKey(), "ns", "new", "a.test")
	s.Install([]route.Certificate{{Bind: https, Hostname: "a.test", Pairs: []route.KeyPair{old}}})
	open := dial(t, addr, "a.test", nil)
	if err := say(open, "before"); err != nil {
		t.Fatal(err)
	}
	s.Install([]route.Certificate{{Bind: https, Hostname: "a.test", Pairs: []route.KeyPair{next}}})
	if err := say(open, "after"); err != nil {
		t.Errorf("the open connection broke: %v", err)
	}
	if got := presented(dial(t, addr, "a.test", nil)); got != "ns/new" {
		t.Errorf("a new connection got %s, want ns/new", got)
	}
}

// 500 rotations while clients shake hands: every handshake succeeds and gets a certificate of its name, and an open connection lives through all of them.
func TestRotationUnderLoad(t *testing.T) {
	const rotations = 500
	s := New(Options{})
	addr := serve(t, s)
	var pairs [4]route.KeyPair
	for i := range pairs {
		pairs[i] = makePair(ecdsaKey(), "ns", fmt.Sprint("generation-", i), "a.test")
	}
	install := func(i int) {
		s.Install([]route.Certificate{
			{Bind: https, Hostname: "a.test", Pairs: []route.KeyPair{pairs[i%len(pairs)]}},
			{Bind: https, Hostname: fmt.Sprintf("h%d.test", i)},
		})
	}
	install(0)
	open := dial(t, addr, "a.test", nil)

	stop := make(chan struct{})
	var handshakes atomic.Int64
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c, err := handshake(t.Context(), addr, "A.test", nil)
				if err != nil {
					t.Errorf("handshake: %v", err)
					return
				}
				if got := presented(c); !strings.HasPrefix(got, "ns/generation-") {
					t.Errorf("got %s", got)
				}
				_ = c.Close()
				handshakes.Add(1)
			}
		})
	}
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			must(s.Get(https, &tls.ClientHelloInfo{ServerName: fmt.Sprintf("h%d.test", i%rotations)}))
			s.List()
		}
	})
	for i := range rotations {
		install(i)
		if i%50 == 0 {
			if err := say(open, "still here"); err != nil {
				t.Fatalf("after %d rotations: %v", i, err)
			}
		}
	}
	close(stop)
	wg.Wait()
	if handshakes.Load() == 0 {
		t.Error("no handshake was made meanwhile")
	}
	if err := say(open, "to the end"); err != nil {
		t.Error(err)
	}
}

// slowFind is what find must do, one comparison after the other.
func slowFind(list []route.Certificate, name string) string {
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	best, found := "", false
	for _, c := range list {
		suffix, wild := strings.CutPrefix(c.Hostname, "*")
		match := c.Hostname == "" || c.Hostname == name
		if wild && len(name) > len(suffix) && strings.HasSuffix(name, suffix) {
			label := strings.TrimSuffix(name, suffix)
			match = c.Source.Kind != "Ingress" || !strings.Contains(label, ".")
		}
		if !match {
			continue
		}
		specific := len(c.Hostname)
		if c.Hostname != "" && !wild {
			specific = 1000
		}
		bestSpecific := len(best)
		if best != "" && !strings.HasPrefix(best, "*") {
			bestSpecific = 1000
		}
		if !found || specific > bestSpecific {
			best, found = c.Hostname, true
		}
	}
	if !found {
		return "none"
	}
	return best
}

func FuzzFind(f *testing.F) {
	hosts := []string{"", "a.example.com", "*.example.com", "*.b.example.com", "b.example.com", "*.com", "x", "*.x"}
	s := New(Options{})
	var list []route.Certificate
	for i, h := range hosts {
		kind := "Gateway"
		if i%2 == 1 {
			kind = "Ingress"
		}
		list = append(list, route.Certificate{Bind: https, Hostname: h, Source: route.Source{Kind: kind}})
	}
	s.Install(list)
	for _, name := range []string{"", "a.example.com", "A.b.Example.com.", "c.b.example.com", "x", "y.x", "z.y.x", "..x", "1.2.3.4", "::1"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		for i := range len(name) {
			if name[i] >= 0x80 {
				return // no server name; strings.ToLower treats it otherwise
			}
		}
		if name == "." || len(name) > maxName {
			return // tested by name
		}
		got := "none"
		if e := s.serving.Load().binds[https].find(name); e != nil {
			got = e.hostname
		}
		if want := slowFind(list, name); got != want {
			t.Errorf("find(%q) = %q, want %q", name, got, want)
		}
	})
}

// manyHosts returns a store with n host names, which share a pair: what is measured is finding them.
func manyHosts(n int) *Store {
	pair := makePair(ecdsaKey(), "ns", "tls", "*.example.com")
	list := make([]route.Certificate, 0, n)
	for i := range n {
		h := fmt.Sprintf("host-%d.example.com", i)
		if i%10 == 0 {
			h = fmt.Sprintf("*.wild-%d.example.com", i)
		}
		list = append(list, route.Certificate{Bind: https, Hostname: h, Pairs: []route.KeyPair{pair}, Source: route.Source{Kind: "Gateway"}})
	}
	s := New(Options{})
	s.Install(list)
	return s
}

func TestGetDoesNotAllocate(t *testing.T) {
	s := manyHosts(100)
	for _, sni := range []string{"host-1.example.com", "HOST-1.example.com.", "x.y.wild-10.example.com", "unknown.test", "", "127.0.0.1"} {
		hello := &tls.ClientHelloInfo{ServerName: sni}
		must(s.Get(https, hello))
		if n := testing.AllocsPerRun(100, func() { must(s.Get(https, hello)) }); n != 0 {
			t.Errorf("Get(%q) allocates %v times, want 0", sni, n)
		}
	}
}

func BenchmarkGet10000Hosts(b *testing.B) {
	s := manyHosts(10_000)
	for _, bb := range []struct{ name, sni string }{
		{"exact", "host-5001.example.com"},
		{"upper-case", "HOST-5001.EXAMPLE.COM"},
		{"wildcard", "a.wild-5000.example.com"},
		{"deep-wildcard", "a.b.c.wild-5000.example.com"},
		{"unknown", "unknown.test"},
	} {
		b.Run(bb.name, func(b *testing.B) {
			hello := &tls.ClientHelloInfo{ServerName: bb.sni}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Get(https, hello); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkInstallUnchanged(b *testing.B) {
	list := make([]route.Certificate, 1000)
	for i := range list {
		list[i] = certFor(fmt.Sprintf("host-%d.example.com", i))
	}
	s := New(Options{})
	s.Install(list)
	b.ReportAllocs()
	for b.Loop() {
		s.Install(list)
	}
}

func BenchmarkInstallCold(b *testing.B) {
	list := make([]route.Certificate, 100)
	for i := range list {
		list[i] = certFor(fmt.Sprintf("host-%d.example.com", i))
	}
	b.ReportAllocs()
	for b.Loop() {
		New(Options{}).Install(list)
	}
}
