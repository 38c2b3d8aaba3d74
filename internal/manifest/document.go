package manifest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// document is what one document's text says. It depends on nothing but that text, is never changed, and is shared by all who have the same text.
// Its lines count from 1 inside the text.
type document struct {
	objects []entry
	issues  []Issue
	// lost are the objects that the text holds and that cannot be used; the zero Ref is one that could not be recognised.
	lost []object.Ref
	// torn says that the text could not be parsed, so that it may have held any number of objects.
	torn bool
}

// entry is one object of a document.
type entry struct {
	ref    object.Ref
	object metav1.Object
	line   int
}

// read makes a document of its text.
func (c chunk) read() *document {
	r := &documentReader{text: c.text, isJSON: c.isJSON, doc: &document{}}
	value, err := r.parse()
	if err != nil {
		r.broken(err)
		return r.doc
	}
	r.member(value, nil, "", "")
	return r.doc
}

// documentReader reads one document.
type documentReader struct {
	text   []byte
	isJSON bool
	doc    *document
	lines  *located // made when it is needed first
	looked bool
	items  []int // the first lines of the items of the list that the document is, if they could be seen without a parser
}

// parse returns the plain data of the document. A key that is written twice makes the document unusable, because nobody can tell which was meant.
func (r *documentReader) parse() (any, error) {
	if !r.isJSON {
		value, repeated, err := parseYAML(r.text)
		if err != nil || !repeated {
			return value, err
		}
	}
	l, err := r.located()
	if err != nil {
		return nil, err
	}
	duplicates := l.allDuplicates()
	for _, d := range duplicates {
		r.issue(d.line, object.Ref{}, true, "key %q is written twice in one mapping", d.key)
	}
	if len(duplicates) > 0 {
		return nil, errDuplicates
	}
	return l.plain(0)
}

var errDuplicates = errors.New("duplicate keys")

func (r *documentReader) located() (*located, error) {
	if !r.isJSON {
		if r.lines = locate(r.text, false); r.lines == nil {
			return nil, &syntaxError{message: "a key is written twice in one mapping"}
		}
		return r.lines, nil
	}
	if values := countValues(r.text); values > maxValues {
		return nil, &syntaxError{message: fmt.Sprintf("document holds about %d values; the limit is %d", values, maxValues)}
	}
	l, err := locateJSON(r.text)
	if err != nil && !errors.Is(err, errDeep) {
		return nil, jsonSyntaxError(err, r.text)
	}
	r.lines = l
	return l, err
}

// line returns the line of a path, from 1.
func (r *documentReader) line(path []step) int {
	if r.lines == nil && !r.looked {
		r.lines, r.looked = locate(r.text, r.isJSON), true
	}
	return max(1, cmp.Or(r.lines.find(path), contentLine(r.text)))
}

func (r *documentReader) issue(line int, ref object.Ref, fatal bool, format string, args ...any) {
	switch n := len(r.doc.issues); {
	case n > maxIssues:
		return
	case n == maxIssues:
		format, args = "more is wrong with this document; only the first %d problems are listed", []any{maxIssues}
	}
	r.doc.issues = append(r.doc.issues, Issue{Line: line, Object: ref, Message: fmt.Sprintf(format, args...), Fatal: fatal})
}

// lose reports an object that cannot be used.
func (r *documentReader) lose(path []step, ref object.Ref, format string, args ...any) {
	r.issue(r.line(path), ref, true, format, args...)
	r.doc.lost = append(r.doc.lost, ref)
}

// broken reports a text that cannot be parsed. What it may have held is guessed from its lines.
func (r *documentReader) broken(err error) {
	ref := guess(r.text)
	r.doc.lost = append(r.doc.lost, ref)
	r.doc.torn = true
	if syntax, ok := errors.AsType[*syntaxError](err); ok {
		r.issue(max(1, cmp.Or(syntax.line, contentLine(r.text))), ref, true, "%s", syntax.message)
	}
	for i := range r.doc.issues {
		r.doc.issues[i].Object = ref
	}
}

// member reads one object, or a list of them. version and name are what a list says about its items that say nothing themselves.
func (r *documentReader) member(value any, path []step, version, name string) {
	if value == nil && len(path) == 0 {
		return
	}
	members, ok := value.(map[string]any)
	if !ok {
		r.lose(path, object.Ref{}, "want a Kubernetes object, found %s", describeType(value))
		return
	}
	version, okVersion := textOr(members, "apiVersion", version)
	name, okName := textOr(members, "kind", name)
	if !okVersion || !okName {
		missing := "apiVersion"
		if okVersion {
			missing = "kind"
		}
		r.lose(path, guessFrom(members), "not a Kubernetes object: %s is missing or not a text", missing)
		return
	}
	if item, isList := itemKind(version, name); isList {
		r.list(members["items"], path, version, item)
		return
	}
	r.object(members, path, version, name)
}

func (r *documentReader) list(value any, path []step, version, item string) {
	items, ok := value.([]any)
	switch {
	case !ok:
		r.lose(path, object.Ref{}, "items: want a list, found %s", describeType(value))
		return
	case len(path) > 8:
		r.lose(path, object.Ref{}, "lists are nested deeper than 4")
		return
	}
	if item == "" {
		version = ""
	}
	if len(path) == 0 {
		r.items = itemLines(r.text, len(items))
	}
	for i, value := range items {
		r.member(value, append(slices.Clip(path), keyStep("items"), indexStep(i)), version, item)
	}
}

func textOr(members map[string]any, key, otherwise string) (string, bool) {
	value, ok := members[key]
	if !ok {
		return otherwise, otherwise != ""
	}
	text, ok := value.(string)
	return text, ok && text != ""
}

// object decodes one object.
func (r *documentReader) object(members map[string]any, path []step, version, name string) {
	members["kind"] = name // the items of a typed list may leave it out
	ref := guessFrom(members)
	k, message, fatal := classify(version, name)
	if k == nil {
		if fatal {
			r.lose(append(path, keyStep("apiVersion")), ref, "%s", message)
		} else if message != "" {
			r.issue(r.line(append(path, keyStep("kind"))), ref, false, "%s", message)
		}
		return
	}
	if ref != (object.Ref{}) {
		ref = k.ref(ref.Key())
	}
	o := k.make()
	delete(members, "status") // what a cluster would drop too: status is written by controllers
	misfits, ok := decode(members, o, name == kindSecret)
	for _, m := range misfits {
		r.issue(r.line(append(slices.Clip(path), m.path...)), ref, m.fatal, "%s: %s", pathText(m.path), m.message)
	}
	if field, message := check(o, k); ok && message != "" {
		r.issue(r.line(append(slices.Clip(path), field...)), ref, true, "%s: %s", pathText(field), message)
		ok = false
	}
	if !ok {
		r.doc.lost = append(r.doc.lost, ref)
		return
	}
	for _, warning := range setDefaults(o, k) {
		r.issue(r.line(path), ref, false, "%s", warning)
	}
	r.doc.objects = append(r.doc.objects, entry{ref: ref, object: o, line: r.entryLine(path)})
}

// entryLine is the line where an object begins, if possible found without another pass over the text.
func (r *documentReader) entryLine(path []step) int {
	switch {
	case len(path) == 0:
		return max(1, contentLine(r.text))
	case len(path) == 2 && r.items != nil:
		return r.items[path[1].index]
	}
	return r.line(path)
}

var itemsLine = regexp.MustCompile(`(?m)^items:[ \t]*(?:#.*)?$`)

// itemLines returns the lines where the n items of a list begin, as far as they can be seen: those with a dash at the indentation of the first one below items.
// Everything inside an item is indented more. It returns nil if that does not give n lines.
func itemLines(text []byte, n int) []int {
	at := itemsLine.FindIndex(text)
	if at == nil {
		return nil
	}
	line := 1 + bytes.Count(text[:at[1]], []byte("\n"))
	var out []int
	indent := -1
	for l := range bytes.Lines(text[min(at[1]+1, len(text)):]) {
		line++
		trimmed := bytes.TrimLeft(l, " ")
		depth := len(l) - len(trimmed)
		switch dash := bytes.HasPrefix(trimmed, []byte("- ")) || bytes.HasPrefix(trimmed, []byte("-\n")); {
		case dash && (indent < 0 || depth == indent):
			indent = depth
			out = append(out, line)
		case depth == 0 && len(out) > 0 && !dash && len(bytes.TrimSpace(trimmed)) > 0 && trimmed[0] != '#':
			return exactly(out, n)
		}
	}
	return exactly(out, n)
}

func exactly(lines []int, n int) []int {
	if len(lines) != n {
		return nil
	}
	return lines
}

// ref names an object of the kind the way the snapshot does.
func (k *kind) ref(key object.Key) object.Ref {
	switch {
	case !k.namespaced:
		key.Namespace = ""
	case key.Namespace == "":
		key.Namespace = metav1.NamespaceDefault
	}
	return object.Ref{Kind: k.name, Namespace: key.Namespace, Name: key.Name}
}
