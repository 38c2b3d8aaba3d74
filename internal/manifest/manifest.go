// Package manifest reads a folder of plain Kubernetes YAML into a Snapshot, as an API server would hold it after `kubectl apply -f`: with the defaults of
// the API, with the namespace default where none is given, and with the mistakes named by file and line. It also watches the folder, and keeps serving the
// last good version of whatever is being edited.
//
// What an API server would refuse (a wrong type, a key that is written twice, a missing name) is an Issue and costs that document only; the other documents
// of the file are not touched by it. The validation rules of the CRDs (patterns, enums, limits) are not applied here: the compiler meets every value anyway
// and says what is wrong with it in the object's status.
package manifest

import (
	"cmp"
	"io/fs"
	"slices"
	"strconv"
	"time"

	"github.com/fairlead-io/fairlead/internal/object"
)

// Limits on what is read. They are far above what people write and low enough that no folder can exhaust the memory.
const (
	maxFileBytes   = 16 << 20  // of one file
	maxTotalBytes  = 256 << 20 // of all files together
	maxDocuments   = 100_000   // of all files together; the items of a list count too
	maxValues      = 1_000_000 // scalars, mappings and lists of one document
	maxDepth       = 100       // mappings and lists inside each other; the deepest field of any kind read here is at 20
	maxFolderDepth = 64
	maxIssues      = 100 // of one document
)

// Options are the operator's choices. The zero value works.
type Options struct {
	// Backends are the endpoints of Services that have no EndpointSlice in the folder; see ParseBackend.
	Backends []Backend
	// Class names the GatewayClass and the IngressClass that are implied in a folder that has none of the kind. Empty means fairlead.
	Class string
	// Now is the clock that Snapshot.Taken is read from. Nil means time.Now.
	Now func() time.Time
}

// Issue is one thing that is wrong with a file or a document.
type Issue struct {
	// File is the path inside the folder, with slashes. For an Issue with a --backend flag it is "--backend" and Line counts the flags from 1.
	File string
	// Line counts from 1; 0 when the whole file is meant.
	Line int
	// Object is the object concerned. It is the zero Ref when that could not be recognised.
	Object object.Ref
	// Message is one sentence, lower case, no full stop: what was found and what would be right.
	Message string
	// Fatal says that what is written there is not used. What it held before may still be served; see Folder.
	Fatal bool
}

// String returns the issue as one line: file:line: message.
func (i Issue) String() string {
	where := i.File
	if i.Line > 0 {
		where += ":" + strconv.Itoa(i.Line)
	}
	if i.Object != (object.Ref{}) {
		where += ": " + i.Object.String()
	}
	return where + ": " + i.Message
}

func compareIssues(a, b Issue) int {
	return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), a.Object.Compare(b.Object), cmp.Compare(a.Message, b.Message))
}

// Load reads all manifests of fsys once: every *.yaml, *.yml and *.json, in subfolders too, except what is hidden. It never returns nil; whatever could not
// be used is missing from the snapshot and named by an Issue. The issues are sorted by place.
//
// Symbolic links are followed as far as fsys follows them, and no folder is read twice.
func Load(fsys fs.FS, opt Options) (*object.Snapshot, []Issue) {
	return newReader(opt).read(fsys)
}

// sortIssues sorts by place and drops repetitions.
func sortIssues(list []Issue) []Issue {
	slices.SortFunc(list, compareIssues)
	return slices.CompactFunc(list, func(a, b Issue) bool { return compareIssues(a, b) == 0 })
}
