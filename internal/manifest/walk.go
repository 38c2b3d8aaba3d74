package manifest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// found is one manifest of a folder.
type found struct {
	path   string
	info   fs.FileInfo // of the file itself, not of a link to it
	linked bool        // path is a symbolic link
}

// listing is what a walk through the folder finds.
type listing struct {
	files   []found // sorted by path
	folders []string
	issues  []Issue
	unread  []string // folders and files that could not be looked at; what they hold is not known
	err     error    // the folder itself could not be read
}

// walker walks through a folder. Symbolic links to folders are followed after everything else, each real folder once, so that no ring of links can hold it.
type walker struct {
	listing
	fsys  fs.FS
	links []string      // to folders, not followed yet
	infos []fs.FileInfo // of folders, filled when there are links
}

func walk(fsys fs.FS) listing {
	w := &walker{fsys: fsys}
	w.folder(".", 0)
	for len(w.links) > 0 && w.err == nil {
		slices.Sort(w.links)
		link := w.links[0]
		w.links = w.links[1:]
		if w.isNew(link) {
			w.folder(link, strings.Count(link, "/")+1)
		}
	}
	slices.SortFunc(w.files, func(a, b found) int { return strings.Compare(a.path, b.path) })
	return w.listing
}

// isNew reports whether a link leads to a folder that was not read yet.
func (w *walker) isNew(link string) bool {
	info, err := fs.Stat(w.fsys, link)
	if err != nil {
		return false
	}
	for len(w.infos) < len(w.folders) {
		have, err := fs.Stat(w.fsys, w.folders[len(w.infos)])
		if err != nil {
			have = nil
		}
		w.infos = append(w.infos, have)
	}
	return !slices.ContainsFunc(w.infos, func(have fs.FileInfo) bool { return have != nil && os.SameFile(have, info) })
}

func (w *walker) issue(file string, fatal bool, format string, args ...any) {
	w.issues = append(w.issues, Issue{File: file, Message: fmt.Sprintf(format, args...), Fatal: fatal})
}

func (w *walker) folder(dir string, depth int) {
	if depth > maxFolderDepth {
		w.issue(dir, true, "folders are nested deeper than %d", maxFolderDepth)
		return
	}
	entries, err := fs.ReadDir(w.fsys, dir)
	if err != nil {
		w.failed(dir, err)
		return
	}
	w.folders = append(w.folders, dir)
	for _, e := range entries {
		if !isHidden(e.Name()) {
			w.entry(path.Join(dir, e.Name()), e, depth)
		}
	}
}

func (w *walker) failed(dir string, err error) {
	switch {
	case dir == ".":
		w.err = err
		w.issue(dir, true, "cannot read folder: %v", cause(err))
	case !errors.Is(err, fs.ErrNotExist): // it went away between two looks
		w.unread = append(w.unread, dir)
		w.issue(dir, true, "cannot read folder: %v", cause(err))
	}
}

func (w *walker) entry(name string, e fs.DirEntry, depth int) {
	switch mode := e.Type(); {
	case mode.IsDir():
		w.folder(name, depth+1)
	case mode&fs.ModeSymlink != 0:
		w.link(name)
	case isManifest(name):
		info, err := e.Info()
		w.file(name, info, err, false)
	}
}

// link follows a symbolic link.
func (w *walker) link(name string) {
	info, err := fs.Stat(w.fsys, name)
	switch {
	case err != nil && !isManifest(name):
		w.issue(name, false, "cannot follow symbolic link: %v", cause(err))
	case err != nil:
		w.unread = append(w.unread, name)
		w.issue(name, true, "cannot follow symbolic link: %v", cause(err))
	case info.IsDir():
		w.links = append(w.links, name)
	case isManifest(name):
		w.file(name, info, nil, true)
	}
}

func (w *walker) file(name string, info fs.FileInfo, err error, linked bool) {
	switch {
	case errors.Is(err, fs.ErrNotExist): // it went away between two looks
	case err != nil:
		w.unread = append(w.unread, name)
		w.issue(name, true, "cannot read file: %v", cause(err))
	case !info.Mode().IsRegular():
		w.issue(name, true, "not a regular file") // opening a pipe could block for ever
	default:
		w.files = append(w.files, found{path: name, info: info, linked: linked})
	}
}

// isHidden reports whether a file or folder is left out: hidden ones, among them the real folder behind a mounted ConfigMap, version control and the
// temporary files of editors.
func isHidden(name string) bool { return strings.HasPrefix(name, ".") }

func isManifest(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

// cause is an error without the path, which the Issue names already.
func cause(err error) error {
	if pathError, ok := errors.AsType[*fs.PathError](err); ok {
		return pathError.Err
	}
	return err
}
