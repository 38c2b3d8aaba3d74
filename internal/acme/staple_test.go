package acme

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
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
	return issued(t, responder, 2)
}

// issued is issuedWith for a leaf with a serial number.
func issued(t *testing.T, responder string, serial int64) (chain []byte, leaf, ca *x509.Certificate) {
	t.Helper()
	now := time.Now()
	caTemplate := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(90 * day), IsCA: true, BasicConstraintsValid: true}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(90 * day), DNSNames: []string{"a.example.com"}, OCSPServer: []string{responder}}
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

// anywhere lets responders have any address.
var anywhere = new(net.Dialer).DialContext

// refreshAndWait is refresh, and returns when everybody has answered.
func (s *Stapler) refreshAndWait(ctx context.Context) {
	s.refresh(ctx)
	s.asking.Wait()
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
	s := NewStapler(anywhere, func() { told++ })
	s.roots, s.now = x509.NewCertPool(), func() time.Time { return now }
	s.roots.AddCert(ca)
	order := []route.CertificateOrder{{Chain: chain}}
	s.Offer(order)
	s.refreshAndWait(t.Context())
	first := s.Staple(leaf.Raw)
	if first == nil || told != 1 || asked.Load() != 1 {
		t.Fatalf("got a staple of %d bytes, told %d times, asked %d times; want one, once, once", len(first), told, asked.Load())
	}
	s.refreshAndWait(t.Context()) // nothing is due
	if asked.Load() != 1 {
		t.Errorf("the responder was asked %d times for what is fresh", asked.Load())
	}
	down.Store(true)
	now = now.Add(13 * time.Hour) // half its time is over
	s.refreshAndWait(t.Context())
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
	s.staples = map[leafHash]staple{}
	s.refreshAndWait(t.Context())
	if s.Staple(leaf.Raw) != nil {
		t.Error("a response that says revoked was stapled")
	}
	s.Offer(nil)
	s.refreshAndWait(t.Context())
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
	s := NewStapler(anywhere, nil)
	s.roots = x509.NewCertPool()
	s.roots.AddCert(ca)
	s.Offer([]route.CertificateOrder{{Chain: chain}})
	s.refreshAndWait(t.Context())
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
	s := NewStapler(anywhere, nil)
	s.roots = x509.NewCertPool()
	s.Offer([]route.CertificateOrder{{Chain: chain}})
	s.refreshAndWait(t.Context())
	if n := asked.Load(); n != 0 {
		t.Errorf("the responder was asked %d times", n)
	}
}

// good answers questions about certificates of an authority.
func good(t *testing.T, ca *x509.Certificate, r *http.Request) []byte {
	t.Helper()
	body, _ := io.ReadAll(r.Body)
	q, err := ocsp.ParseRequest(body)
	if err != nil {
		t.Error(err)
		return nil
	}
	now := time.Now()
	raw, err := ocsp.CreateResponse(ca, ca, ocsp.Response{Status: ocsp.Good, SerialNumber: q.SerialNumber, ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(day)}, signer)
	if err != nil {
		t.Error(err)
	}
	return raw
}

// newTrusting returns a Stapler that trusts an authority, and sends to told when there is something new.
func newTrusting(told chan<- struct{}, cas ...*x509.Certificate) *Stapler {
	s := NewStapler(anywhere, func() { told <- struct{}{} })
	s.roots = x509.NewCertPool()
	for _, ca := range cas {
		s.roots.AddCert(ca)
	}
	return s
}

func TestAResponderThatHangsHoldsUpNoOther(t *testing.T) {
	begun, hang := make(chan struct{}, 1), make(chan struct{})
	var slowCA, quickCA *x509.Certificate
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		<-hang
		_, _ = w.Write(good(t, slowCA, r))
	}))
	defer slow.Close()
	quick := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(good(t, quickCA, r)) }))
	defer quick.Close()
	slowChain, slowLeaf, ca := issued(t, slow.URL, 2)
	slowCA = ca
	quickChain, quickLeaf, ca := issued(t, quick.URL, 3)
	quickCA = ca
	laterChain, laterLeaf, laterCA := issued(t, quick.URL, 4)
	told := make(chan struct{}, 10)
	s := newTrusting(told, slowCA, quickCA, laterCA)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); s.Run(ctx) }()
	s.Offer([]route.CertificateOrder{{Chain: slowChain}, {Chain: quickChain}})
	<-begun
	<-told
	if s.Staple(quickLeaf.Raw) == nil || s.Staple(slowLeaf.Raw) != nil {
		t.Error("the responder that answers was held up by the one that hangs")
	}
	quickCA = laterCA
	s.Offer([]route.CertificateOrder{{Chain: slowChain}, {Chain: quickChain}, {Chain: laterChain}})
	<-told
	if s.Staple(laterLeaf.Raw) == nil {
		t.Error("a certificate that came later was held up by a responder that hangs")
	}
	close(hang)
	<-told
	if s.Staple(slowLeaf.Raw) == nil {
		t.Error("what took long was not stapled")
	}
	stop()
	<-ended
}

// A responder gets a few questions at a time, and when it has no answer to any of those it gets no more for a while.
func TestAResponderIsNotOverrun(t *testing.T) {
	const many = 30
	cas := map[int64]*x509.Certificate{}
	var now, most, asked atomic.Int32
	down := atomic.Bool{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer now.Add(-1)
		n := now.Add(1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		asked.Add(1)
		if down.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		body, _ := io.ReadAll(r.Body)
		q, err := ocsp.ParseRequest(body)
		if err != nil {
			t.Error(err)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		_, _ = w.Write(good(t, cas[q.SerialNumber.Int64()], r))
	}))
	defer srv.Close()
	var orders []route.CertificateOrder
	var leaves []*x509.Certificate
	var authorities []*x509.Certificate
	for i := range int64(many) {
		chain, leaf, ca := issued(t, srv.URL, i+2)
		cas[i+2] = ca
		orders, leaves, authorities = append(orders, route.CertificateOrder{Chain: chain}), append(leaves, leaf), append(authorities, ca)
	}
	s := newTrusting(make(chan struct{}, many), authorities...)
	clock := time.Now()
	s.now = func() time.Time { return clock }
	s.Offer(orders)
	down.Store(true)
	s.refreshAndWait(t.Context())
	if n := asked.Load(); n != asksOfResponder {
		t.Errorf("a responder that is down was asked %d times, want %d", n, asksOfResponder)
	}
	s.refreshAndWait(t.Context())
	if n := asked.Load(); n != asksOfResponder {
		t.Error("a responder that is down was asked again at once")
	}
	down.Store(false)
	clock = clock.Add(responderEvery)
	s.refreshAndWait(t.Context())
	for i, leaf := range leaves {
		if s.Staple(leaf.Raw) == nil {
			t.Errorf("certificate %d has no staple", i)
		}
	}
	if n := most.Load(); n > asksOfResponder {
		t.Errorf("%d questions were under way at once, want at most %d", n, asksOfResponder)
	}
}

func TestRespondersHaveAddressesThatAreAllowed(t *testing.T) {
	refused := errors.New("this address is not allowed")
	var asked atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer srv.Close()
	chain, _, ca := issuedWith(t, srv.URL)
	dialed := ""
	s := NewStapler(func(_ context.Context, _, address string) (net.Conn, error) { dialed = address; return nil, refused }, nil)
	s.roots = x509.NewCertPool()
	s.roots.AddCert(ca)
	s.Offer([]route.CertificateOrder{{Chain: chain}})
	s.refreshAndWait(t.Context())
	if want := srv.Listener.Addr().String(); dialed != want || asked.Load() != 0 {
		t.Errorf("dialed %q and asked %d times; want %q and never", dialed, asked.Load(), want)
	}
	if _, _, err := s.fetch(t.Context(), parseChain(chain)); !errors.Is(err, refused) {
		t.Errorf("got %v, want %v", err, refused)
	}
}
