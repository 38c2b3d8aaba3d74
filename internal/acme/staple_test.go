package acme

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/fairlead-io/fairlead/internal/route"
)

// issuedWith is a leaf and its authority, with a responder.
func issuedWith(t *testing.T, responder string) (chain []byte, leaf, ca *x509.Certificate) {
	t.Helper()
	now := time.Now()
	caTemplate := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(90 * day), IsCA: true, BasicConstraintsValid: true}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(90 * day), DNSNames: []string{"a.example.com"}, OCSPServer: []string{responder}}
	caDER, err := x509.CreateCertificate(rand.Reader, caTemplate, caTemplate, signer.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	if ca, err = x509.ParseCertificate(caDER); err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, signer.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	if leaf, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	for _, d := range [][]byte{der, caDER} {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: d})...)
	}
	return chain, leaf, ca
}

func TestOCSPResponsesAreStapledWhileTheyAreGood(t *testing.T) {
	var leaf, ca *x509.Certificate
	var asked atomic.Int32
	status := atomic.Int32{}
	down := atomic.Bool{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		body, _ := io.ReadAll(r.Body)
		if _, err := ocsp.ParseRequest(body); err != nil || down.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		now := time.Now()
		raw, err := ocsp.CreateResponse(ca, ca, ocsp.Response{Status: int(status.Load()), SerialNumber: leaf.SerialNumber, ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(day)}, signer)
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(raw)
	}))
	defer srv.Close()
	var chain []byte
	chain, leaf, ca = issuedWith(t, srv.URL)
	now, told := time.Now(), 0
	s := NewStapler(func() { told++ })
	s.roots, s.now = x509.NewCertPool(), func() time.Time { return now }
	s.roots.AddCert(ca)
	order := []route.CertificateOrder{{Chain: chain}}
	s.Offer(order)
	s.refresh(t.Context())
	first := s.Staple(leaf.Raw)
	if first == nil || told != 1 || asked.Load() != 1 {
		t.Fatalf("got a staple of %d bytes, told %d times, asked %d times; want one, once, once", len(first), told, asked.Load())
	}
	s.refresh(t.Context()) // nothing is due
	if asked.Load() != 1 {
		t.Errorf("the responder was asked %d times for what is fresh", asked.Load())
	}
	down.Store(true)
	now = now.Add(13 * time.Hour) // half its time is over
	s.refresh(t.Context())
	if got := s.Staple(leaf.Raw); !bytes.Equal(got, first) || asked.Load() != 2 {
		t.Error("a response that is still good was dropped because the responder is down, or nobody was asked")
	}
	now = now.Add(12 * time.Hour)
	if s.Staple(leaf.Raw) != nil {
		t.Error("a response was stapled that is not good any more")
	}
	down.Store(false)
	now = time.Now()
	status.Store(ocsp.Revoked)
	s.staples = map[[32]byte]*staple{}
	s.refresh(t.Context())
	if s.Staple(leaf.Raw) != nil {
		t.Error("a response that says revoked was stapled")
	}
	s.Offer(nil)
	s.refresh(t.Context())
	if len(s.staples) != 0 {
		t.Error("what is not served any more is remembered")
	}
}

func TestAResponseOfSomebodyElseIsNotStapled(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("not a response"))
	}))
	defer srv.Close()
	chain, leaf, ca := issuedWith(t, srv.URL)
	s := NewStapler(nil)
	s.roots = x509.NewCertPool()
	s.roots.AddCert(ca)
	s.Offer([]route.CertificateOrder{{Chain: chain}})
	s.refresh(t.Context())
	if s.Staple(leaf.Raw) != nil {
		t.Error("something that is no response was stapled")
	}
}

// Who writes a Secret can mark it as issued here and name any responder in a certificate of his own making.
func TestNobodyIsAskedForCertificatesThatNoAuthorityIssued(t *testing.T) {
	var asked atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer srv.Close()
	chain, _, _ := issuedWith(t, srv.URL)
	s := NewStapler(nil)
	s.roots = x509.NewCertPool()
	s.Offer([]route.CertificateOrder{{Chain: chain}})
	s.refresh(t.Context())
	if n := asked.Load(); n != 0 {
		t.Errorf("the responder was asked %d times", n)
	}
}
