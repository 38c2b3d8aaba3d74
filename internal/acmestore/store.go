// Package acmestore keeps what internal/acme needs to share between replicas in a cluster: accounts and challenges in Secrets and locks in Leases of Fairlead's
// own namespace, and certificates in the Secrets that objects name.
//
// Nothing is written blindly: a Secret is updated from the version that was read, and a Lease is taken from the holder that was seen to be gone.
package acmestore

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// The marks of what is ours in Fairlead's namespace.
const (
	kindLabel      = "fairlead.io/acme" // state, challenge or lock
	keyAnnotation  = "fairlead.io/acme-key"
	timeAnnotation = "fairlead.io/acme-modified"

	kindState     = "state"
	kindChallenge = "challenge"
	kindLock      = "lock"

	// LockSelector selects the Leases that are locks of this package.
	LockSelector = kindLabel + "=" + kindLock

	valueKey = "value" // in the data of a Secret
	prefix   = "fairlead-acme-"
)

// fieldManager is how the API server knows our writes.
const fieldManager = "fairlead-acme"

// Options are what a Store needs. Kubernetes and Namespace are required; every other zero value works.
type Options struct {
	Kubernetes kubernetes.Interface
	Namespace  string // Fairlead's own
	// Identity is this process's name in locks; empty means the host's name and something random.
	Identity string
	// Lease is how long a lock outlives a holder that is not heard of; 0 means 15 s. Retry is how often whoever waits looks; 0 means 500 ms.
	Lease, Retry time.Duration
	Log          *slog.Logger     // nil: discarded
	Now          func() time.Time // nil: time.Now
}

func (o Options) withDefaults() Options {
	if o.Identity == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "fairlead"
		}
		o.Identity = host + "/" + rand.Text()
	}
	o.Lease, o.Retry = cmp.Or(o.Lease, 15*time.Second), cmp.Or(o.Retry, 500*time.Millisecond)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Store is a certmagic.Storage, with its optional interfaces. Keys are paths; as in a file system, one that has a value is nobody's folder. Safe for concurrent
// use, by any number of processes.
type Store struct {
	opt   Options
	locks locks
}

var (
	_ certmagic.Storage          = (*Store)(nil)
	_ certmagic.TryLocker        = (*Store)(nil)
	_ certmagic.LockLeaseRenewer = (*Store)(nil)
)

// New returns a Store. It asks the API server nothing.
func New(opt Options) *Store {
	opt = opt.withDefaults()
	return &Store{opt: opt, locks: newLocks(opt)}
}

// nameOf is the name of the object for a key. The key itself may have characters that no name has.
func nameOf(key string) string {
	sum := sha256.Sum256([]byte(key))
	return prefix + hex.EncodeToString(sum[:12])
}

func kindOf(key string) string {
	if path.Base(path.Dir(key)) == "challenge_tokens" {
		return kindChallenge
	}
	return kindState
}

// attempts is how often a write is tried that others get in the way of.
const attempts = 20

// Store implements certmagic.Storage.
func (s *Store) Store(ctx context.Context, key string, value []byte) error {
	var err error
	for range attempts {
		if err = s.put(ctx, key, value); !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("store %s: %w", key, err)
	}
	return nil
}

func (s *Store) put(ctx context.Context, key string, value []byte) error {
	secrets := s.opt.Kubernetes.CoreV1().Secrets(s.opt.Namespace)
	have, err := secrets.Get(ctx, nameOf(key), metav1.GetOptions{})
	fresh := apierrors.IsNotFound(err)
	if err != nil && !fresh {
		return err
	}
	if fresh {
		have = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.opt.Namespace, Name: nameOf(key)}, Type: corev1.SecretTypeOpaque}
	}
	have.Labels = map[string]string{kindLabel: kindOf(key)}
	have.Annotations = map[string]string{keyAnnotation: key, timeAnnotation: s.opt.Now().UTC().Format(time.RFC3339Nano)}
	have.Data = map[string][]byte{valueKey: value}
	if fresh {
		_, err = secrets.Create(ctx, have, metav1.CreateOptions{FieldManager: fieldManager})
	} else {
		_, err = secrets.Update(ctx, have, metav1.UpdateOptions{FieldManager: fieldManager})
	}
	return err
}

// get returns the Secret of a key; fs.ErrNotExist if there is none.
func (s *Store) get(ctx context.Context, key string) (*corev1.Secret, error) {
	have, err := s.opt.Kubernetes.CoreV1().Secrets(s.opt.Namespace).Get(ctx, nameOf(key), metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, fs.ErrNotExist
	case err != nil:
		return nil, err
	case have.Annotations[keyAnnotation] != key:
		return nil, fs.ErrNotExist // somebody else's
	}
	return have, nil
}

// Load implements certmagic.Storage.
func (s *Store) Load(ctx context.Context, key string) ([]byte, error) {
	have, err := s.get(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", key, err)
	}
	return have.Data[valueKey], nil
}

// Delete implements certmagic.Storage.
func (s *Store) Delete(ctx context.Context, key string) error {
	switch _, err := s.get(ctx, key); {
	case err == nil:
		return s.remove(ctx, key)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("delete %s: %w", key, err)
	}
	below, err := s.below(ctx, key)
	for _, e := range below {
		err = errors.Join(err, s.remove(ctx, e.key))
	}
	return err
}

func (s *Store) remove(ctx context.Context, key string) error {
	err := s.opt.Kubernetes.CoreV1().Secrets(s.opt.Namespace).Delete(ctx, nameOf(key), metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	return nil
}

// Exists implements certmagic.Storage.
func (s *Store) Exists(ctx context.Context, key string) bool {
	if _, err := s.get(ctx, key); err == nil {
		return true
	}
	below, err := s.below(ctx, key)
	return err == nil && len(below) > 0
}

// entry is a key with a value.
type entry struct {
	key      string
	size     int64
	modified time.Time
}

func entryOf(secret *corev1.Secret) entry {
	modified, err := time.Parse(time.RFC3339Nano, secret.Annotations[timeAnnotation])
	if err != nil {
		modified = secret.CreationTimestamp.Time
	}
	return entry{key: secret.Annotations[keyAnnotation], size: int64(len(secret.Data[valueKey])), modified: modified}
}

// below returns what has a value below a folder, sorted by key; "" is the folder of everything.
func (s *Store) below(ctx context.Context, folder string) ([]entry, error) {
	list, err := s.opt.Kubernetes.CoreV1().Secrets(s.opt.Namespace).List(ctx, metav1.ListOptions{LabelSelector: kindLabel + " in (" + kindState + "," + kindChallenge + ")"})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", folder, err)
	}
	var out []entry
	for i := range list.Items {
		e := entryOf(&list.Items[i])
		if folder == "" || strings.HasPrefix(e.key, strings.TrimSuffix(folder, "/")+"/") {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b entry) int { return cmp.Compare(a.key, b.key) })
	return out, nil
}

// List implements certmagic.Storage. As in a file system, folders are listed too.
func (s *Store) List(ctx context.Context, folder string, recursive bool) ([]string, error) {
	below, err := s.below(ctx, folder)
	if err != nil {
		return nil, err
	}
	if len(below) == 0 {
		return nil, fmt.Errorf("list %s: %w", folder, fs.ErrNotExist)
	}
	root := strings.Trim(folder, "/")
	seen := map[string]bool{}
	for _, e := range below {
		parts := strings.Split(strings.TrimPrefix(strings.TrimPrefix(e.key, root), "/"), "/")
		if !recursive {
			parts = parts[:1]
		}
		for i := range parts {
			seen[path.Join(append([]string{root}, parts[:i+1]...)...)] = true
		}
	}
	out := make([]string, 0, len(seen))
	for key := range seen {
		out = append(out, key)
	}
	slices.Sort(out)
	return out, nil
}

// Stat implements certmagic.Storage.
func (s *Store) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	have, err := s.get(ctx, key)
	if err == nil {
		e := entryOf(have)
		return certmagic.KeyInfo{Key: key, Modified: e.modified, Size: e.size, IsTerminal: true}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return certmagic.KeyInfo{}, fmt.Errorf("stat %s: %w", key, err)
	}
	below, err := s.below(ctx, key)
	if err == nil && len(below) == 0 {
		err = fmt.Errorf("stat %s: %w", key, fs.ErrNotExist)
	}
	if err != nil {
		return certmagic.KeyInfo{}, err
	}
	newest := slices.MaxFunc(below, func(a, b entry) int { return a.modified.Compare(b.modified) })
	return certmagic.KeyInfo{Key: key, Modified: newest.modified}, nil
}
