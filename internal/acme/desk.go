package acme

import (
	"context"
	"io/fs"
	"strings"
	"sync"

	"github.com/caddyserver/certmagic"
)

// desk is a Storage with one certificate on it, while that is renewed. Everything else is in the Storage below. The lock of the certificate is the caller's.
type desk struct {
	certmagic.Storage
	mu    sync.Mutex
	files map[string][]byte
}

func newDesk(below certmagic.Storage, files map[string][]byte) *desk {
	return &desk{Storage: below, files: files}
}

// mine tells whether a key is one of a certificate.
func (*desk) mine(key string) bool { return strings.HasPrefix(key, "certificates/") }

func (d *desk) get(key string) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.files[key]
}

// Load implements certmagic.Storage.
func (d *desk) Load(ctx context.Context, key string) ([]byte, error) {
	if !d.mine(key) {
		return d.Storage.Load(ctx, key)
	}
	if v := d.get(key); v != nil {
		return v, nil
	}
	return nil, fs.ErrNotExist
}

// Store implements certmagic.Storage.
func (d *desk) Store(ctx context.Context, key string, value []byte) error {
	if !d.mine(key) {
		return d.Storage.Store(ctx, key, value)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files[key] = value
	return nil
}

// Delete implements certmagic.Storage.
func (d *desk) Delete(ctx context.Context, key string) error {
	if !d.mine(key) {
		return d.Storage.Delete(ctx, key)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.files, key)
	return nil
}

// Exists implements certmagic.Storage.
func (d *desk) Exists(ctx context.Context, key string) bool {
	if !d.mine(key) {
		return d.Storage.Exists(ctx, key)
	}
	return d.get(key) != nil
}

// Lock implements certmagic.Locker.
func (d *desk) Lock(ctx context.Context, name string) error {
	if strings.HasPrefix(name, issueLock) {
		return nil
	}
	return d.Storage.Lock(ctx, name)
}

// Unlock implements certmagic.Locker.
func (d *desk) Unlock(ctx context.Context, name string) error {
	if strings.HasPrefix(name, issueLock) {
		return nil
	}
	return d.Storage.Unlock(ctx, name)
}
