package acme

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"github.com/fairlead-io/fairlead/internal/route"
)

// fakeCA issues certificates at once.
type fakeCA struct {
	name  string
	lasts time.Duration

	mu     sync.Mutex
	asked  []time.Time
	serial int64
	err    error
	takes  time.Duration
	info   func(leaf *x509.Certificate) (acme.RenewalInfo, error)
	inside int
	most   int
}

func (f *fakeCA) issue(ctx context.Context, hosts []string, _ Issued) (Issued, error) {
	f.mu.Lock()
	f.asked = append(f.asked, time.Now())
	f.serial++
	f.inside++
	f.most = max(f.most, f.inside)
	serial, err, takes := f.serial, f.err, f.takes
	f.mu.Unlock()
	defer func() { f.mu.Lock(); f.inside--; f.mu.Unlock() }()
	select {
	case <-ctx.Done():
		return Issued{}, ctx.Err()
	case <-time.After(takes):
	}
	if err != nil {
		return Issued{}, err
	}
	return Issued{Chain: chain(serial, f.lasts, hosts...), Key: []byte("key"), Issuer: f.name}, nil
}

func (f *fakeCA) renewalInfo(_ context.Context, leaf *x509.Certificate) (acme.RenewalInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.info == nil {
		return acme.RenewalInfo{}, errors.New("no ARI here")
	}
	return f.info(leaf)
}

func (f *fakeCA) set(change func(f *fakeCA)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *fakeCA) times() []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]time.Time(nil), f.asked...)
}

var signer = func() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}()

// chain is a certificate for hosts from now on.
func chain(serial int64, lasts time.Duration, hosts ...string) []byte {
	now := time.Now().Truncate(time.Second)
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotBefore: now, NotAfter: now.Add(lasts), DNSNames: hosts}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// memory is a storage and a publisher for several managers.
type memory struct {
	mu      sync.Mutex
	files   map[string][]byte
	secrets map[Secret]Issued
	locks   map[string]chan struct{}
	loads   int
	version int
	foreign map[Secret]bool
}

func newMemory() *memory {
	return &memory{files: map[string][]byte{}, secrets: map[Secret]Issued{}, locks: map[string]chan struct{}{}, foreign: map[Secret]bool{}}
}

func (m *memory) Lock(ctx context.Context, name string) error {
	m.mu.Lock()
	l := m.locks[name]
	if l == nil {
		l = make(chan struct{}, 1)
		m.locks[name] = l
	}
	m.mu.Unlock()
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *memory) Unlock(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	<-m.locks[name]
	return nil
}

func (m *memory) Store(_ context.Context, key string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[key] = value
	return nil
}

func (m *memory) Load(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loads++
	if v, ok := m.files[key]; ok {
		return v, nil
	}
	return nil, fs.ErrNotExist
}

func (m *memory) Delete(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.files, key)
	return nil
}

func (m *memory) Exists(ctx context.Context, key string) bool {
	_, err := m.Load(ctx, key)
	return err == nil
}

func (*memory) List(context.Context, string, bool) ([]string, error) { return nil, fs.ErrNotExist }

func (*memory) Stat(context.Context, string) (certmagic.KeyInfo, error) {
	return certmagic.KeyInfo{}, fs.ErrNotExist
}

func (m *memory) Read(_ context.Context, s Secret) (Issued, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.foreign[s] {
		return Issued{}, ErrForeign
	}
	return m.secrets[s], nil
}

func (m *memory) Write(_ context.Context, s Secret, next Issued) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.foreign[s] || m.secrets[s].Version != next.Version {
		return ErrChanged
	}
	m.version++
	next.Version = time.Duration(m.version).String()
	m.secrets[s] = next
	return nil
}

// order is an order as the compiler makes it, with what the Secret holds.
func (m *memory) order(name string, issuers []string, hosts ...string) route.CertificateOrder {
	m.mu.Lock()
	defer m.mu.Unlock()
	have := m.secrets[Secret{"shop", name}]
	return route.CertificateOrder{Namespace: "shop", Name: name, Hosts: hosts, Issuers: issuers, Chain: have.Chain, Issuer: have.Issuer}
}

// newManager is a Manager without sockets, for tests with a clock of their own. It runs until the test ends.
func newManager(t *testing.T, m *memory, opt Options, authorities ...*fakeCA) *Manager {
	t.Helper()
	opt.Storage, opt.Publisher = m, m
	opt = opt.withDefaults()
	out := &Manager{opt: opt, issuers: map[string]authority{}, challenges: newChallenges(opt), wake: make(chan struct{}, 1), jobs: map[Secret]*job{}}
	for _, a := range authorities {
		out.issuers[a.name] = a
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { out.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return out
}
