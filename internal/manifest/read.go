package manifest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-io/fairlead/internal/object"
)

type digest = [sha256.Size]byte

// placed is an object and where it was read.
type placed struct {
	ref     object.Ref
	object  metav1.Object
	line    int
	origin  string // file:line
	implied bool   // no file declares it
	kept    bool   // the last good version of what is broken now
}

// part is one document of a file.
type part struct {
	sum digest // of its text
	doc *document
}

// file is the last reading of one file.
type file struct {
	path    string
	info    fs.FileInfo
	unsure  bool // the file was so fresh that it may have changed again without a trace in info
	sum     digest
	bytes   int
	parts   []part
	entries []placed // of the documents
	kept    []placed // last good versions of what is broken now
	issues  []Issue
	failure string // why the file itself could not be read; the rest is from before
}

// reader reads a folder again and again and remembers what it read.
type reader struct {
	opt     Options
	files   map[string]*file
	held    map[object.Ref]placed // what the last snapshot holds
	refused map[refusal]bool
	snap    *object.Snapshot
	walked  []Issue // of the last walk
	missing bool    // the folder itself could not be read
	issues  []Issue // all of the last reading
}

// refusal is an object of a file that was not used because another file declares it too.
type refusal struct {
	file string
	ref  object.Ref
}

func newReader(opt Options) *reader {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Class == "" {
		opt.Class = "fairlead"
	}
	return &reader{opt: opt, files: map[string]*file{}}
}

// read reads what changed and returns the whole picture.
func (r *reader) read(fsys fs.FS) (*object.Snapshot, []Issue) { return r.take(fsys, walk(fsys)) }

// take reads what changed in a folder that was walked through. If that failed, everything stays as it was.
func (r *reader) take(fsys fs.FS, list listing) (*object.Snapshot, []Issue) {
	changed := r.snap == nil
	r.missing = list.err != nil
	if !r.missing {
		changed = r.update(fsys, list) || changed
	}
	if changed || !slices.Equal(list.issues, r.walked) {
		r.walked = list.issues
		r.assemble()
	}
	snap := *r.snap // shares the maps, which nobody changes
	snap.Taken = r.opt.Now()
	return &snap, slices.Clone(r.issues)
}

// update reads the files that changed and reports whether there were any.
func (r *reader) update(fsys fs.FS, list listing) bool {
	files := make(map[string]*file, len(list.files))
	var again []found
	for _, f := range list.files {
		if old := r.files[f.path]; old != nil && !old.unsure && sameFile(old.info, f.info) {
			files[f.path] = old
		} else {
			again = append(again, f)
		}
	}
	for name, old := range r.files { // what could not be looked at is as it was
		if files[name] == nil && slices.ContainsFunc(list.unread, func(dir string) bool { return name == dir || strings.HasPrefix(name, dir+"/") }) {
			files[name] = old
		}
	}
	budget := newBudget(files)
	known := r.known(files)
	changed := false
	for _, f := range again {
		next := r.readFile(fsys, f, known, &budget)
		if next != nil {
			files[f.path] = next
		}
		changed = changed || next != r.files[f.path]
	}
	changed = changed || len(files) != len(r.files)
	r.files = files
	return changed
}

// sameFile reports whether a file is the same and unchanged, as far as its metadata can tell.
func sameFile(a, b fs.FileInfo) bool {
	return a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && os.SameFile(a, b)
}

// known returns the documents of all files that are not in files any more, by their text, so that a document is read once however its file changes.
func (r *reader) known(files map[string]*file) map[digest]*document {
	out := map[digest]*document{}
	for name, old := range r.files {
		if files[name] == nil {
			for _, p := range old.parts {
				out[p.sum] = p.doc
			}
		}
	}
	return out
}

// budget is what may still be read.
type budget struct{ bytes, documents int }

func newBudget(files map[string]*file) budget {
	b := budget{maxTotalBytes, maxDocuments}
	for _, f := range files {
		b.take(f)
	}
	return b
}

func (b *budget) take(f *file) {
	b.bytes -= f.bytes
	b.documents -= f.weight()
}

// weight is what a file counts for under the limit of documents. A list counts for its items, and a broken document for what is to be said about it.
func (f *file) weight() int { return max(len(f.parts), len(f.entries), len(f.issues)/10) }

// readFile reads one file. It returns the old reading if the content is the same, and nil if the file is gone.
func (r *reader) readFile(fsys fs.FS, f found, known map[digest]*document, b *budget) *file {
	old := r.files[f.path]
	text, info, unsure, err := readText(fsys, f.path, min(maxFileBytes, b.bytes))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return unreadable(f, old, err)
	}
	next := &file{path: f.path, info: info, unsure: unsure, bytes: len(text), sum: sha256.Sum256(text)}
	if old != nil && old.sum == next.sum && old.failure == "" {
		old.info, old.unsure = info, unsure
		b.take(old)
		return old
	}
	if len(text) == 0 && old != nil && len(old.entries)+len(old.kept) > 0 {
		next.issues = []Issue{{File: f.path, Message: "file is empty; delete it if that is what you mean", Fatal: true}}
		next.keepAll(old)
		return next
	}
	next.parse(text, known, b.documents)
	b.take(next)
	if old == nil {
		old = r.moved(next)
	}
	r.keep(next, old)
	return next
}

// moved returns a file with the same content that was read under another name, so that renaming a broken file loses nothing.
func (r *reader) moved(next *file) *file {
	for _, name := range slices.Sorted(maps.Keys(r.files)) {
		if old := r.files[name]; old.sum == next.sum && old.failure == "" {
			return old
		}
	}
	return nil
}

// unreadable keeps what a file held that cannot be read now.
func unreadable(f found, old *file, err error) *file {
	if old != nil && old.failure == err.Error() {
		old.info = f.info
		return old
	}
	next := &file{path: f.path, info: f.info, unsure: true, failure: err.Error()} // unsure: the next reading may go better
	next.issues = []Issue{{File: f.path, Message: err.Error(), Fatal: true}}
	next.keepAll(old)
	return next
}

// stale reports whether a reading would find something new.
func (r *reader) stale(fsys fs.FS, list listing) bool {
	if list.err != nil || r.missing {
		return r.missing != (list.err != nil)
	}
	if len(list.files) != len(r.files) || !slices.Equal(list.issues, r.walked) {
		return true
	}
	return slices.ContainsFunc(list.files, func(f found) bool {
		have := r.files[f.path]
		return have == nil || !sameFile(have.info, f.info) || have.unsure && have.failure == "" && !have.recheck(fsys)
	})
}

// recheck reports whether a file that was read when it was fresh is still the same.
func (f *file) recheck(fsys fs.FS) bool {
	text, info, unsure, err := readText(fsys, f.path, maxFileBytes)
	if err != nil || sha256.Sum256(text) != f.sum {
		return false
	}
	f.info, f.unsure = info, unsure
	return true
}

// readText reads a file of at most limit bytes. unsure says that the file is so fresh that a change after this reading might not show in info.
func readText(fsys fs.FS, name string, limit int) (text []byte, info fs.FileInfo, unsure bool, err error) {
	for range 3 {
		begun := time.Now()
		var torn bool
		text, info, torn, err = readOnce(fsys, name, limit)
		if err != nil {
			return nil, nil, true, err
		}
		if !torn {
			return text, info, begun.Sub(info.ModTime()) < grain(info.ModTime()), nil
		}
	}
	return text, info, true, nil
}

// grain is how long after a change a second one may get the same time. File systems that store whole seconds show it.
func grain(t time.Time) time.Duration {
	if t.Nanosecond() == 0 {
		return 2 * time.Second
	}
	return 50 * time.Millisecond
}

// readOnce reads a file; torn says that it was written to meanwhile.
func readOnce(fsys fs.FS, name string, limit int) (text []byte, info fs.FileInfo, torn bool, err error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, nil, false, fmt.Errorf("cannot read file: %w", cause(err))
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil {
		return nil, nil, false, fmt.Errorf("cannot read file: %w", cause(err))
	}
	var buf bytes.Buffer
	buf.Grow(min(int(before.Size()), limit) + bytes.MinRead)
	n, err := buf.ReadFrom(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, nil, false, fmt.Errorf("cannot read file: %w", cause(err))
	}
	if n > int64(limit) {
		return nil, nil, false, fmt.Errorf("file is too large: at most %d bytes are read of one file and %d of a folder", maxFileBytes, maxTotalBytes)
	}
	after, err := f.Stat()
	if err != nil {
		return nil, nil, false, fmt.Errorf("cannot read file: %w", cause(err))
	}
	return buf.Bytes(), after, !before.ModTime().Equal(after.ModTime()) || before.Size() != after.Size(), nil
}

// unreadDocument stands for text that was not read, so that what it may hold is kept.
var unreadDocument = &document{torn: true, lost: []object.Ref{{}}}

// parse reads the documents of a file's text.
func (f *file) parse(text []byte, known map[digest]*document, limit int) {
	if bytes.HasPrefix(text, []byte{0xfe, 0xff}) || bytes.HasPrefix(text, []byte{0xff, 0xfe}) {
		f.issues = []Issue{{File: f.path, Line: 1, Message: "file is written in UTF-16; save it as UTF-8", Fatal: true}}
		f.parts = []part{{doc: unreadDocument}}
		return
	}
	text = bytes.TrimPrefix(text, []byte{0xef, 0xbb, 0xbf})
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")) // as the parser does; a lone carriage return ends a line too
	text = bytes.ReplaceAll(text, []byte("\r"), []byte("\n"))
	chunks := split(text, strings.EqualFold(path.Ext(f.path), ".json"))
	for _, c := range chunks {
		if f.weight() >= limit {
			f.issues = append(f.issues, Issue{
				File: f.path, Line: c.before + 1, Fatal: true,
				Message: fmt.Sprintf("folder holds more than %d documents; from here on they are not read", maxDocuments),
			})
			f.parts = append(f.parts, part{doc: unreadDocument})
			return
		}
		p := part{sum: sha256.Sum256(c.text)}
		if p.doc = known[p.sum]; p.doc == nil {
			p.doc = c.read()
			known[p.sum] = p.doc
		}
		f.add(p, c.before)
	}
}

// add takes what a document says, with the lines that it has in the file.
func (f *file) add(p part, before int) {
	f.parts = append(f.parts, p)
	for _, e := range p.doc.objects {
		f.entries = append(f.entries, placed{
			ref: e.ref, object: e.object, line: before + e.line, origin: f.path + ":" + strconv.Itoa(before+e.line),
		})
	}
	for _, i := range p.doc.issues {
		i.File = f.path
		i.Line += before
		f.issues = append(f.issues, i)
	}
}
