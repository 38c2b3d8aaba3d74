package acmestore

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-io/fairlead/internal/acme"
	"github.com/fairlead-io/fairlead/internal/object"
)

const namespace = "fairlead"

func newStore(a *api, opt Options) *Store {
	opt.Kubernetes, opt.Namespace = a, namespace
	return New(opt)
}

// families are the keys that certmagic uses, one of each kind.
var families = func() []string {
	keys, ca := certmagic.StorageKeys, "acme-v02.api.letsencrypt.org-directory"
	return []string{
		keys.SiteCert(ca, "a.example.com"), keys.SitePrivateKey(ca, "a.example.com"), keys.SiteMeta(ca, "a.example.com"),
		keys.SiteCert(ca, "*.example.com"), keys.SitePrivateKey(ca, "*.example.com"), keys.SiteMeta(ca, "*.example.com"),
		"acme/" + ca + "/users/ops@example.com/ops.json", "acme/" + ca + "/users/ops@example.com/ops.key",
		"acme/" + ca + "/challenge_tokens/a.example.com.json", "acme/" + ca + "/challenge_tokens/wildcard_.example.com.json",
		"ocsp/a.example.com-5bd3a2e1", "rw_test_8674665223082153551", "last_clean.json",
	}
}()

// both runs a test on the Store and on certmagic's own storage in files, which is what certmagic is written against.
func both(t *testing.T, test func(t *testing.T, s certmagic.Storage)) {
	t.Run("secrets", func(t *testing.T) { test(t, newStore(newAPI(t), Options{})) })
	t.Run("files", func(t *testing.T) { test(t, &certmagic.FileStorage{Path: t.TempDir()}) })
}

func TestEveryFamilyOfKeysRoundTrips(t *testing.T) {
	both(t, func(t *testing.T, s certmagic.Storage) {
		ctx := t.Context()
		for i, key := range families {
			if _, err := s.Load(ctx, key); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Load of %s before Store: got %v, want fs.ErrNotExist", key, err)
			}
			if s.Exists(ctx, key) {
				t.Errorf("%s exists before Store", key)
			}
			for _, value := range [][]byte{bytes.Repeat([]byte{byte(i), 0, 255}, 4000), {byte(i)}} {
				if err := s.Store(ctx, key, value); err != nil {
					t.Fatal(err)
				}
				if got, err := s.Load(ctx, key); err != nil || !bytes.Equal(got, value) {
					t.Errorf("Load of %s: got %d bytes, %v; want the %d that were stored", key, len(got), err, len(value))
				}
				info, err := s.Stat(ctx, key)
				if err != nil || info.Key != key || info.Size != int64(len(value)) || !info.IsTerminal || time.Since(info.Modified).Abs() > time.Minute {
					t.Errorf("Stat of %s: got %+v, %v", key, info, err)
				}
			}
		}
		for i, key := range families { // none has overwritten another
			if got, err := s.Load(ctx, key); err != nil || !bytes.Equal(got, []byte{byte(i)}) {
				t.Errorf("Load of %s after all: got %v, %v", key, got, err)
			}
		}
	})
}

func TestFoldersAreListedStattedAndDeleted(t *testing.T) {
	both(t, func(t *testing.T, s certmagic.Storage) {
		ctx := t.Context()
		for _, key := range families {
			if err := s.Store(ctx, key, []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		ca := "certificates/acme-v02.api.letsencrypt.org-directory"
		list := func(folder string, recursive bool) []string {
			got, err := s.List(ctx, folder, recursive)
			if err != nil {
				t.Errorf("List(%q): %v", folder, err)
			}
			slices.Sort(got)
			return got
		}
		if got, want := list(ca, false), []string{ca + "/a.example.com", ca + "/wildcard_.example.com"}; !slices.Equal(got, want) {
			t.Errorf("List not recursive: got %v, want %v", got, want)
		}
		if got := list(ca, true); len(got) != 8 || !slices.Contains(got, ca+"/a.example.com/a.example.com.crt") || !slices.Contains(got, ca+"/a.example.com") {
			t.Errorf("List recursive: got %v, want six files and two folders", got)
		}
		if got := list("", false); !slices.Equal(got, []string{"acme", "certificates", "last_clean.json", "ocsp", "rw_test_8674665223082153551"}) {
			t.Errorf("List of everything: got %v", got)
		}
		if info, err := s.Stat(ctx, ca); err != nil || info.IsTerminal {
			t.Errorf("Stat of a folder: got %+v, %v", info, err)
		}
		if _, err := s.Stat(ctx, "certificates/acme"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Stat of what is the beginning of a name: got %v, want fs.ErrNotExist", err)
		}
		if !s.Exists(ctx, ca) || s.Exists(ctx, "certificates/acme") {
			t.Error("a folder does not exist, or the beginning of a name does")
		}
		if err := s.Delete(ctx, ca+"/a.example.com"); err != nil {
			t.Fatal(err)
		}
		if s.Exists(ctx, ca+"/a.example.com") || !s.Exists(ctx, ca+"/wildcard_.example.com/wildcard_.example.com.key") {
			t.Error("Delete of a folder: it is still there, or another is gone")
		}
		for range 2 { // the second finds nothing, which is no error
			if err := s.Delete(ctx, "ocsp/a.example.com-5bd3a2e1"); err != nil {
				t.Error(err)
			}
		}
		if _, err := s.List(ctx, "ocsp-nothing", true); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("List of nothing: got %v, want fs.ErrNotExist", err)
		}
	})
}

func TestConcurrentStoresOfAKeyAllSucceed(t *testing.T) {
	a := newAPI(t)
	var wg sync.WaitGroup
	for range 8 {
		s := newStore(a, Options{})
		wg.Go(func() {
			if err := s.Store(t.Context(), "acme/ca/users/u/u.json", []byte("x")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestALockHasOneHolderAtATime(t *testing.T) {
	const calls, processes = 10_000, 4
	a := newAPI(t)
	var stores []*Store
	for range processes {
		stores = append(stores, newStore(a, Options{Retry: 50 * time.Millisecond, Lease: time.Minute}))
	}
	var wg sync.WaitGroup
	var inside, most, taken atomic.Int32
	for i := range calls {
		s := stores[i%processes]
		wg.Go(func() {
			if i%10 == 9 { // some do not wait
				if ok, err := s.TryLock(t.Context(), "issue_cert_a.example.com"); err != nil || !ok {
					return
				}
			} else if err := s.Lock(t.Context(), "issue_cert_a.example.com"); err != nil {
				t.Error(err)
				return
			}
			if n := inside.Add(1); n > most.Load() {
				most.Store(n)
			}
			taken.Add(1)
			inside.Add(-1)
			if err := s.Unlock(t.Context(), "issue_cert_a.example.com"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if most.Load() != 1 || taken.Load() < calls*9/10 {
		t.Errorf("%d held the lock at a time, %d of %d calls got it; want 1, and all that waited", most.Load(), taken.Load(), calls)
	}
	left, err := a.CoordinationV1().Leases(namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(left.Items) != 0 {
		t.Errorf("%d leases are left, %v; want none", len(left.Items), err)
	}
	for i, s := range stores {
		if len(s.locks.turns) != 0 || len(s.locks.held) != 0 {
			t.Errorf("process %d remembers %d turns and %d locks; want none", i, len(s.locks.turns), len(s.locks.held))
		}
	}
}

func TestADeadHolderDelaysNobodyLongerThanItsLease(t *testing.T) {
	a := newAPI(t)
	dead, alive := newStore(a, Options{Lease: time.Second}), newStore(a, Options{Lease: time.Second, Retry: 20 * time.Millisecond})
	if err := dead.Lock(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	dead.locks.held["x"].stop() // as SIGKILL does: no more renewals, no release
	begun := time.Now()
	if err := alive.Lock(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took < 900*time.Millisecond {
		t.Errorf("a lock was taken after %s from a holder whose lease lasts a second", took)
	}
	lease := must(a.CoordinationV1().Leases(namespace).Get(t.Context(), nameOf("x"), metav1.GetOptions{}))
	if got := transitions(lease); got != 1 {
		t.Errorf("got %d transitions, want 1", got)
	}
	if err := alive.Unlock(t.Context(), "x"); err != nil {
		t.Error(err)
	}
}

func TestALiveHolderKeepsItsLock(t *testing.T) {
	a := newAPI(t)
	holder, other := newStore(a, Options{Lease: time.Second}), newStore(a, Options{Lease: time.Second, Retry: 20 * time.Millisecond})
	if err := holder.Lock(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if err := other.Lock(ctx, "x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the lock of a live holder was taken, or not waited for: %v", err)
	}
	if err := holder.RenewLockLease(t.Context(), "x", time.Hour); err != nil {
		t.Error(err)
	}
	if err := holder.Unlock(t.Context(), "x"); err != nil {
		t.Error(err)
	}
	if ok, err := other.TryLock(t.Context(), "x"); !ok || err != nil {
		t.Errorf("a released lock was not taken: %v, %v", ok, err)
	}
	if err := other.Unlock(t.Context(), "x"); err != nil {
		t.Error(err)
	}
}

func TestALostLockSaysSo(t *testing.T) {
	a := newAPI(t)
	s := newStore(a, Options{Lease: time.Second})
	if err := s.Lock(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	lost := s.Lost("x")
	a.mu.Lock()
	a.before = func(verb, resource, _ string) error {
		if verb == "update" && resource == "leases" {
			return apierrors.NewServiceUnavailable("away")
		}
		return nil
	}
	a.mu.Unlock()
	select {
	case <-lost:
	case <-time.After(30 * time.Second):
		t.Fatal("a lock that could not be renewed was not given up")
	}
	if err := s.RenewLockLease(t.Context(), "x", time.Hour); err == nil {
		t.Error("a lost lock was renewed")
	}
	if err := s.Unlock(t.Context(), "x"); err != nil {
		t.Error(err)
	}
	if err := s.Unlock(t.Context(), "x"); err == nil {
		t.Error("Unlock of what is not locked: got no error")
	}
}

func TestACertificateIsWrittenOverWhatWasReadOnly(t *testing.T) {
	a, ctx, s := newAPI(t), t.Context(), acme.Secret{Namespace: "shop", Name: "tls"}
	p := Publisher{a}
	if got, err := p.Read(ctx, s); err != nil || got.Version != "" {
		t.Fatalf("Read of nothing: got %+v, %v", got, err)
	}
	first := acme.Issued{Chain: []byte("chain"), Key: []byte("key"), Issuer: "ca"}
	if err := p.Write(ctx, s, first); err != nil {
		t.Fatal(err)
	}
	if err := p.Write(ctx, s, first); !errors.Is(err, acme.ErrChanged) {
		t.Errorf("Write where there was nothing and is something: got %v, want ErrChanged", err)
	}
	have, err := p.Read(ctx, s)
	if err != nil || string(have.Chain) != "chain" || have.Issuer != "ca" {
		t.Fatalf("Read: got %+v, %v", have, err)
	}
	secret := must(a.CoreV1().Secrets("shop").Get(ctx, "tls", metav1.GetOptions{}))
	secret.Annotations = map[string]string{"theirs": "stays"}
	must(a.CoreV1().Secrets("shop").Update(ctx, secret, metav1.UpdateOptions{}))
	if err := p.Write(ctx, s, have); !errors.Is(err, acme.ErrChanged) {
		t.Errorf("Write over another version: got %v, want ErrChanged", err)
	}
	have = must(p.Read(ctx, s))
	have.Chain = []byte("renewed")
	if err := p.Write(ctx, s, have); err != nil {
		t.Error(err)
	}
	secret = must(a.CoreV1().Secrets("shop").Get(ctx, "tls", metav1.GetOptions{}))
	if string(secret.Data["tls.crt"]) != "renewed" || secret.Annotations["theirs"] != "stays" || secret.Labels[object.IssuerLabel] != "ca" {
		t.Errorf("after a renewal the Secret is %+v", secret)
	}
}

func TestAForeignSecretIsNeitherReadNorWritten(t *testing.T) {
	a, ctx, s := newAPI(t), t.Context(), acme.Secret{Namespace: "shop", Name: "tls"}
	theirs := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "tls"}, Type: corev1.SecretTypeTLS, Data: map[string][]byte{"tls.crt": []byte("theirs")}}
	must(a.CoreV1().Secrets("shop").Create(ctx, theirs, metav1.CreateOptions{}))
	p := Publisher{a}
	if _, err := p.Read(ctx, s); !errors.Is(err, acme.ErrForeign) {
		t.Errorf("Read: got %v, want ErrForeign", err)
	}
	if err := p.Write(ctx, s, acme.Issued{Chain: []byte("ours"), Issuer: "ca"}); !errors.Is(err, acme.ErrChanged) {
		t.Errorf("Write: got %v, want ErrChanged", err)
	}
	if got := must(a.CoreV1().Secrets("shop").Get(ctx, "tls", metav1.GetOptions{})); string(got.Data["tls.crt"]) != "theirs" {
		t.Error("somebody else's certificate was overwritten")
	}
}

func TestEveryReplicaLearnsOfChallenges(t *testing.T) {
	a := newAPI(t)
	one, other := newStore(a, Options{}), newStore(a, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	told := make(chan string, 16)
	wg.Go(func() {
		other.WatchChallenges(ctx, func(key string, value []byte) { told <- key + "=" + string(value) })
	})
	next := func(want string) {
		t.Helper()
		select {
		case got := <-told:
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("never heard of %q", want)
		}
	}
	key := families[8]
	if err := one.Store(ctx, key, []byte("first")); err != nil {
		t.Fatal(err)
	}
	next(key + "=first")
	if err := errors.Join(one.Store(ctx, "acme/ca/users/u/u.key", []byte("account")), one.Delete(ctx, key)); err != nil {
		t.Fatal(err)
	}
	next(key + "=") // and nothing of the account before it
}

func TestNamesOfObjectsAreValid(t *testing.T) {
	seen := map[string]bool{}
	for _, key := range append(slices.Clone(families), strings.Repeat("long/", 200)) {
		name := nameOf(key)
		if len(name) > 63 || strings.ToLower(name) != name || seen[name] {
			t.Errorf("%q is the name for %s", name, key)
		}
		seen[name] = true
	}
}
