package manifest

import (
	"context"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Times of Watch. A change is reported when the folder has been quiet for settle, and in a folder that is never quiet after patience at the latest.
const (
	settle   = 10 * time.Millisecond
	patience = 100 * time.Millisecond
	// Without notifications (no folder there to watch, or no watches left) the folder is looked at this often.
	pollBlind  = 100 * time.Millisecond
	retryBlind = 5 * time.Second // until watching is tried again
	// Some file systems notify nobody of changes made elsewhere. A look now and then finds those, at the cost of half a percent of one core.
	pollSafety = 2 * time.Second
	pollShare  = 200
)

// Watch calls changed whenever files of the folder changed, from one goroutine and never twice at once, until ctx ends; it then returns ctx.Err. A burst of
// changes is one call. It may also call when nothing changed in the end, and at the beginning if the folder changed since Read. When it returns, everything
// it started has ended.
//
// The folder may go away and come back, its subfolders too, and any part of its path may be a symbolic link that is exchanged.
func (f *Folder) Watch(ctx context.Context, changed func()) error {
	w := &watch{folder: f, changed: changed, settled: stoppedTimer(), poll: stoppedTimer()}
	defer w.close()
	w.check(true, false)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case event, ok := <-w.events():
			if ok {
				w.event(event)
			}
		case _, ok := <-w.errors():
			if ok { // events were lost
				w.pend(true, true)
			}
		case <-w.settled.C:
			structure, certain := w.structure, w.certain
			w.since, w.structure, w.certain = time.Time{}, false, false
			w.check(structure, certain)
		case <-w.poll.C:
			w.check(true, false)
		}
	}
}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// watch is one run of Watch. Only its goroutine touches it.
type watch struct {
	folder  *Folder
	changed func()

	notify *fsnotify.Watcher
	scope  scope     // what notify watches
	gone   bool      // something of it went away, and what has its name now (perhaps even its inode) is not watched
	blind  time.Time // when not everything could be watched; zero if everything is

	settled   *time.Timer
	poll      *time.Timer
	since     time.Time // of the first event that was not reported yet; zero if none
	structure bool      // among them was one that may have changed which folders there are
	certain   bool      // among them was one of a manifest
}

// scope is what there is to watch.
type scope struct {
	folders map[string]fs.FileInfo // to be watched
	inside  map[string]bool        // those of them that hold manifests
	names   map[string]bool        // what matters in the others: links on the way to the folder, and the folder itself
}

func (w *watch) close() {
	w.settled.Stop()
	w.poll.Stop()
	if w.notify != nil {
		_ = w.notify.Close() // waits for its goroutine
	}
}

func (w *watch) events() <-chan fsnotify.Event {
	if w.notify == nil {
		return nil
	}
	return w.notify.Events
}

func (w *watch) errors() <-chan error {
	if w.notify == nil {
		return nil
	}
	return w.notify.Errors
}

// event takes one notification.
func (w *watch) event(e fsnotify.Event) {
	path := filepath.Clean(e.Name)
	name := filepath.Base(path)
	_, watched := w.scope.folders[path]
	switch {
	case watched && (e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename)):
		w.gone = true
		w.pend(true, false)
	case w.scope.names[path]:
		w.pend(true, false)
	case !w.scope.inside[filepath.Dir(path)] || isHidden(name) && !strings.HasPrefix(name, ".."): // the links of a mounted ConfigMap begin with two dots
	case isManifest(name):
		w.pend(e.Op != fsnotify.Write, true)
	case e.Has(fsnotify.Create) || e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename): // perhaps a folder
		w.pend(true, false)
	}
}

// pend notes that there is something to report soon.
func (w *watch) pend(structure, certain bool) {
	now := time.Now()
	if w.since.IsZero() {
		w.since = now
	}
	w.structure = w.structure || structure
	w.certain = w.certain || certain
	w.settled.Reset(max(0, min(settle, w.since.Add(patience).Sub(now))))
}

// check looks at the folder, brings the watches up to date and reports a change. certain says that there is one; structure, that folders may have come or gone.
func (w *watch) check(structure, certain bool) {
	if structure {
		begun := time.Now()
		list, stale := w.folder.look()
		for range 3 { // what came while the watches were made is not watched yet
			certain = certain || stale
			if !w.sync(list) {
				break
			}
			list, stale = w.folder.look()
		}
		w.poll.Reset(w.interval(time.Since(begun), list.err != nil))
	}
	if certain {
		w.changed()
	}
}

func (w *watch) interval(cost time.Duration, missing bool) time.Duration {
	if missing || !w.blind.IsZero() {
		return max(pollBlind, 10*cost)
	}
	return max(pollSafety, pollShare*cost)
}

// sync watches the folders of list, and reports whether that made a difference. Watches are made anew as a whole: that is rare, and the identity of what is
// watched under a name is never in doubt.
func (w *watch) sync(list listing) bool {
	next := w.folder.scope(list)
	same := !w.gone && maps.EqualFunc(next.folders, w.scope.folders, os.SameFile)
	w.scope, w.gone = next, false
	if same && (w.blind.IsZero() || time.Since(w.blind) < retryBlind) {
		return false
	}
	w.blind = time.Time{}
	notify, err := w.folder.newWatcher()
	if err != nil {
		w.blind = time.Now()
		return !same
	}
	for dir := range next.folders {
		if notify.Add(dir) != nil {
			w.blind = time.Now()
		}
	}
	if w.notify != nil {
		_ = w.notify.Close()
	}
	w.notify = notify
	return true
}

// scope returns what to watch for what is in list.
func (f *Folder) scope(list listing) scope {
	s := scope{folders: map[string]fs.FileInfo{}, inside: map[string]bool{}, names: map[string]bool{}}
	for path := f.dir; path != filepath.Dir(path); path = filepath.Dir(path) {
		info, err := os.Lstat(path)
		if path == f.dir || err != nil || info.Mode()&fs.ModeSymlink != 0 {
			s.names[path] = true
			s.add(filepath.Dir(path), false)
		}
	}
	for _, folder := range list.folders {
		s.add(f.path(folder), true)
	}
	for _, file := range list.files {
		if file.linked {
			if target, err := filepath.EvalSymlinks(f.path(file.path)); err == nil {
				s.add(filepath.Dir(target), true)
			}
		}
	}
	return s
}

func (f *Folder) path(inside string) string { return filepath.Join(f.dir, filepath.FromSlash(inside)) }

func (s *scope) add(dir string, inside bool) {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		s.folders[dir] = info
		s.inside[dir] = s.inside[dir] || inside
	}
}
