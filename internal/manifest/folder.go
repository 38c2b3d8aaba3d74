package manifest

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/fsnotify/fsnotify"

	"github.com/fairlead-io/fairlead/internal/object"
)

// Folder is a folder of manifests that is read again when it changes. What is being edited never takes down what was served: the last good version of a
// broken document stays in the snapshot until the document is mended or removed, and so does everything of a file or folder that cannot be read. Only a
// file that is gone, or a document that is gone from a file that is well-formed to its end, takes its objects with it.
//
// Symbolic links are followed as long as they lead to a place inside the folder, as those of a mounted ConfigMap do.
//
// Safe for concurrent use.
type Folder struct {
	dir        string // absolute
	newWatcher func() (*fsnotify.Watcher, error)

	mu     sync.Mutex
	reader *reader
}

// Open returns the Folder at dir, which must be there. It reads nothing yet.
func Open(dir string, opt Options) (*Folder, error) {
	path, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open manifests: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open manifests: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("open manifests: %s is not a folder", dir)
	}
	return &Folder{dir: path, newWatcher: fsnotify.NewWatcher, reader: newReader(opt)}, nil
}

// Read reads what changed since the last call. It never returns nil. Objects that did not change are the same pointers as before. An Issue is returned by
// every call for as long as it lasts.
//
// A file is read again when its size, its modification time or its identity changed, or when these could not show a change because it was too fresh.
func (f *Folder) Read() (*object.Snapshot, []Issue) {
	f.mu.Lock()
	defer f.mu.Unlock()
	root, err := os.OpenRoot(f.dir)
	if err != nil {
		return f.reader.take(nil, noFolder(err))
	}
	defer root.Close()
	return f.reader.read(root.FS())
}

// look lists the folder without reading its files, and reports whether Read would find something new.
func (f *Folder) look() (list listing, stale bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	root, err := os.OpenRoot(f.dir)
	if err != nil {
		list = noFolder(err)
		return list, f.reader.stale(nil, list)
	}
	defer root.Close()
	list = walk(root.FS())
	return list, f.reader.stale(root.FS(), list)
}

// noFolder is the listing of a folder that cannot be opened.
func noFolder(err error) listing {
	w := walker{}
	w.failed(".", err)
	return w.listing
}
