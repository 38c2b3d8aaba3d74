package acme

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/caddyserver/certmagic"
)

// issuerLabel marks the Secrets that are Fairlead's; object.IssuerLabel is the same.
const issuerLabel = "fairlead.io/acme-issuer"

// Folder keeps issued certificates in a folder, each as the manifest of a Secret, for a process that serves no cluster.
type Folder struct{ dir string }

// OpenFolder returns the storage and the publisher of a folder, which nobody else can read. It is made if it is not there.
func OpenFolder(dir string) (certmagic.Storage, *Folder, error) {
	f := &Folder{dir: filepath.Join(dir, "secrets")}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make the ACME storage: %w", err)
	}
	for _, d := range []string{dir, f.dir} {
		info, err := os.Stat(d)
		if err != nil {
			return nil, nil, fmt.Errorf("look at the ACME storage: %w", err)
		}
		if mode := info.Mode().Perm(); mode&0o077 != 0 {
			return nil, nil, fmt.Errorf("the ACME storage %s has the mode %#o, which lets others at its keys: make it 0700", d, mode)
		}
	}
	return &certmagic.FileStorage{Path: filepath.Join(dir, "state")}, f, nil
}

// Dir is where the manifests are.
func (f *Folder) Dir() string { return f.dir }

// manifest is a Secret as Kubernetes writes it.
type manifest struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   metadata          `json:"metadata"`
	Type       string            `json:"type"`
	Data       map[string][]byte `json:"data"`
}

type metadata struct {
	Name      string            `json:"name"`
	Namespace string            `json:"namespace"`
	Labels    map[string]string `json:"labels"`
}

// file is where a Secret is. Names of objects hold nothing that a path would take for something else, but for the folder above.
func (f *Folder) file(s Secret) (string, error) {
	for _, part := range []string{s.Namespace, s.Name} {
		if part == "" || strings.HasPrefix(part, ".") || strings.ContainsAny(part, `/\`) {
			return "", fmt.Errorf("%s is not the name of a Secret", s)
		}
	}
	return filepath.Join(f.dir, s.Namespace, s.Name+".json"), nil
}

// Read implements Publisher.
func (f *Folder) Read(_ context.Context, s Secret) (Issued, error) {
	name, err := f.file(s)
	if err != nil {
		return Issued{}, err
	}
	text, err := os.ReadFile(name) //nolint:gosec // in our folder
	if errors.Is(err, fs.ErrNotExist) {
		return Issued{}, nil
	}
	if err != nil {
		return Issued{}, fmt.Errorf("read Secret: %w", err)
	}
	var m manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return Issued{}, fmt.Errorf("read Secret %s: %w", name, err)
	}
	return Issued{Chain: m.Data["tls.crt"], Key: m.Data["tls.key"], Issuer: m.Metadata.Labels[issuerLabel], Version: string(text)}, nil
}

// Write implements Publisher.
func (f *Folder) Write(ctx context.Context, s Secret, next Issued) error {
	now, err := f.Read(ctx, s)
	if err != nil {
		return err
	}
	if now.Version != next.Version {
		return ErrChanged
	}
	text, err := json.MarshalIndent(manifest{
		APIVersion: "v1", Kind: "Secret", Type: "kubernetes.io/tls", Data: map[string][]byte{"tls.crt": next.Chain, "tls.key": next.Key},
		Metadata: metadata{Name: s.Name, Namespace: s.Namespace, Labels: map[string]string{issuerLabel: next.Issuer}},
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("write Secret: %w", err)
	}
	name, err := f.file(s)
	if err != nil {
		return err
	}
	return replaceFile(name, append(text, '\n'))
}

// replaceFile writes a file that is there whole or not at all.
func replaceFile(name string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return fmt.Errorf("write Secret: %w", err)
	}
	temp, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return fmt.Errorf("write Secret: %w", err)
	}
	_, err = temp.Write(text)
	if err = errors.Join(err, temp.Sync(), temp.Close()); err == nil {
		err = os.Rename(temp.Name(), name)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write Secret: %w", err), os.Remove(temp.Name()))
	}
	return nil
}
