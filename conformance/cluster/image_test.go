package cluster

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestPackIsReproducibleAndComplete(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, []byte("#!"), 0o600); err != nil {
		t.Fatal(err)
	}
	image := Image{Tags: []string{"localhost/a:1", "localhost/b:1"}, Files: map[string]string{"/usr/bin/program": program, "/x": program}, Entrypoint: []string{"/x"}, User: "65532"}
	var archives [2][]byte
	for i := range archives {
		file := filepath.Join(dir, "images", "a.tar")
		if err := image.Pack(file); err != nil {
			t.Fatal(err)
		}
		archives[i], _ = os.ReadFile(file)
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("the same image was packed differently")
	}
	var names []string
	r := tar.NewReader(bytes.NewReader(archives[0]))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, filepath.Base(h.Name))
	}
	if !slices.Contains(names, "manifest.json") || !slices.Contains(names, "layer.tar") || len(names) != 3 {
		t.Errorf("the archive holds %v", names)
	}
	if err := (Image{Files: map[string]string{"/a": filepath.Join(dir, "nothing")}}).Pack(filepath.Join(dir, "b.tar")); err == nil {
		t.Error("a file that does not exist was packed")
	}
}
