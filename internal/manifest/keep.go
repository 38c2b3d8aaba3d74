package manifest

import (
	"slices"

	"github.com/fairlead-io/fairlead/internal/object"
)

const stillServed = "; the last good version is still served"

// keepAll keeps everything that the file held.
func (f *file) keepAll(old *file) {
	if old == nil {
		return
	}
	f.kept = append(slices.Clone(old.entries), old.kept...)
	for i := range f.kept {
		f.kept[i].kept = true
	}
	if len(f.kept) > 0 {
		for i := range f.issues {
			f.issues[i].Message += stillServed
		}
	}
}

// keep keeps the last good version of what is broken in f. A text that cannot be parsed may hold any of the documents that are missing now (a file may not be
// written to its end yet, a separator may be gone): then everything is kept that the file held and that is not in it in another version.
func (r *reader) keep(f, old *file) {
	lost := map[object.Ref]bool{}
	all := false
	for _, p := range f.parts {
		for _, ref := range p.doc.lost {
			lost[ref] = true
		}
		all = all || p.doc.torn
	}
	all = all || lost[object.Ref{}]
	if len(lost) == 0 {
		return
	}
	have := map[object.Ref]bool{}
	for _, e := range f.entries {
		have[e.ref] = true
	}
	keep := func(e placed) {
		if !have[e.ref] {
			have[e.ref], e.kept = true, true
			f.kept = append(f.kept, e)
		}
	}
	if old != nil {
		for _, e := range append(slices.Clone(old.entries), old.kept...) {
			if all || lost[e.ref] {
				keep(e)
			}
		}
	}
	for ref := range lost { // it may have been moved here from another file
		if e, ok := r.held[ref]; ok && !e.implied {
			keep(e)
		}
	}
	slices.SortStableFunc(f.kept, func(a, b placed) int { return a.ref.Compare(b.ref) })
	f.sayKept(have)
}

// sayKept adds to the issues of what is broken that it is still served.
func (f *file) sayKept(have map[object.Ref]bool) {
	if len(f.kept) == 0 {
		return
	}
	for i := range f.issues {
		if issue := &f.issues[i]; issue.Fatal && (issue.Object == (object.Ref{}) || have[issue.Object]) {
			issue.Message += stillServed
		}
	}
}
