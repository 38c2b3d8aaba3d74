package cluster

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// pauseImage is the image of the process that holds a Pod's namespaces.
const pauseImage = "localhost/pause:1"

// Image is a container image of static binaries: one layer, packed without a container engine.
type Image struct {
	Tags       []string          // names under which Pods find it
	Files      map[string]string // path in the image → file on this machine; all are executable
	Entrypoint []string
	User       string // such as 65532; empty is root
}

// Pack writes the image as an archive that `docker load` and `ctr images import` understand. The same input gives the same bytes.
func (i Image) Pack(file string) error {
	layer, err := i.layer()
	if err != nil {
		return fmt.Errorf("pack %s: %w", i.Tags, err)
	}
	layerSum := digest(layer)
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": i.Entrypoint, "User": i.User, "WorkingDir": "/", "Env": []string{"PATH=/"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + layerSum}},
	})
	if err != nil {
		return fmt.Errorf("pack %s: %w", i.Tags, err)
	}
	configName, layerName := digest(config)+".json", layerSum+"/layer.tar"
	manifest, err := json.Marshal([]map[string]any{{"Config": configName, "RepoTags": i.Tags, "Layers": []string{layerName}}})
	if err != nil {
		return fmt.Errorf("pack %s: %w", i.Tags, err)
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	err = errors.Join(addFile(w, configName, 0o644, config), addFile(w, layerName, 0o644, layer), addFile(w, "manifest.json", 0o644, manifest), w.Close())
	if err != nil {
		return fmt.Errorf("pack %s: %w", i.Tags, err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("pack %s: %w", i.Tags, err)
	}
	return os.WriteFile(file, buf.Bytes(), 0o600)
}

// layer returns the image's file system as a tar archive, with a /tmp that everybody may write to.
func (i Image) layer() ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	made := map[string]bool{}
	if err := w.WriteHeader(&tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}); err != nil {
		return nil, err
	}
	var names []string
	for name := range i.Files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		data, err := os.ReadFile(i.Files[name])
		if err != nil {
			return nil, err
		}
		name = strings.TrimPrefix(name, "/")
		for dir := path.Dir(name); dir != "." && !made[dir]; dir = path.Dir(dir) {
			made[dir] = true
			if err := w.WriteHeader(&tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
				return nil, err
			}
		}
		if err := addFile(w, name, 0o755, data); err != nil {
			return nil, err
		}
	}
	return buf.Bytes(), w.Close()
}

func addFile(w *tar.Writer, name string, mode int64, data []byte) error {
	if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: mode, Size: int64(len(data))}); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
