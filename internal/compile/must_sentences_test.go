package compile

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// mustSentence is a sentence of the Go documentation of the API with MUST in it.
type mustSentence struct {
	of   string // Type, Type.Field or the name of a constant
	text string
}

func (s mustSentence) String() string { return s.of + ": " + s.text }

// mustSentences reads the sentences from the source of the version in go.mod.
func mustSentences(t *testing.T) []mustSentence {
	t.Helper()
	var found []mustSentence
	for _, pkg := range []string{"sigs.k8s.io/gateway-api/apis/v1", "sigs.k8s.io/gateway-api/apisx/v1alpha1"} {
		dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", pkg).Output()
		if err != nil {
			t.Fatalf("find the source of %s: %v", pkg, err)
		}
		files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "*_types.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no source of %s: %v", pkg, err)
		}
		for _, name := range files {
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			for _, decl := range file.Decls {
				if d, ok := decl.(*ast.GenDecl); ok {
					found = append(found, sentencesOfDecl(d)...)
				}
			}
		}
	}
	return found
}

func sentencesOfDecl(d *ast.GenDecl) []mustSentence {
	var found []mustSentence
	add := func(of string, docs ...*ast.CommentGroup) {
		for _, doc := range docs {
			for _, text := range sentencesWithMust(doc) {
				found = append(found, mustSentence{of, text})
			}
		}
	}
	for _, spec := range d.Specs {
		switch s := spec.(type) {
		case *ast.ValueSpec:
			add(s.Names[0].Name, d.Doc, s.Doc)
		case *ast.TypeSpec:
			add(s.Name.Name, d.Doc, s.Doc)
			if fields, ok := s.Type.(*ast.StructType); ok {
				for _, f := range fields.Fields.List {
					if len(f.Names) > 0 {
						add(s.Name.Name+"."+f.Names[0].Name, f.Doc)
					}
				}
			}
		}
	}
	return found
}

var (
	mustWord    = regexp.MustCompile(`\bMUST\b`)
	marks       = regexp.MustCompile(`(?m)^\s*\+.*$|</?gateway:[^>]*>`)
	paragraphs  = regexp.MustCompile(`\n\s*(?:\n|(?:[-*]|\d+[.)]) )+`)
	sentenceEnd = regexp.MustCompile(`([.?!]["')]?) ([A-Z"(*])`)
)

// sentencesWithMust are the sentences of a comment that have MUST in them. A paragraph ends a sentence, and so does an item of a list.
func sentencesWithMust(doc *ast.CommentGroup) []string {
	var found []string
	if doc == nil {
		return nil
	}
	for _, p := range paragraphs.Split(marks.ReplaceAllString(doc.Text(), ""), -1) {
		p = strings.Join(strings.Fields(p), " ")
		for s := range strings.SplitSeq(sentenceEnd.ReplaceAllString(p, "$1\n$2"), "\n") {
			if mustWord.MatchString(s) {
				found = append(found, s)
			}
		}
	}
	return found
}

// shownSentences are the comments of the rows of mustRow in this package, each as one line.
func shownSentences(t *testing.T) (comments []string) {
	t.Helper()
	files, err := filepath.Glob("must_*test.go")
	if err != nil || len(files) < 5 {
		t.Fatalf("found %d files with rows: %v", len(files), err)
	}
	for _, name := range files {
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			rows, ok := n.(*ast.CompositeLit)
			if !ok || !isRows(rows.Type) {
				return true
			}
			for _, row := range rows.Elts {
				for _, c := range file.Comments {
					if row.Pos() < c.Pos() && c.End() < row.End() {
						comments = append(comments, strings.Join(strings.Fields(c.Text()), " "))
					}
				}
			}
			return false
		})
	}
	return comments
}

// isRows tells whether a type is []mustRow.
func isRows(e ast.Expr) bool {
	list, ok := e.(*ast.ArrayType)
	if !ok {
		return false
	}
	of, ok := list.Elt.(*ast.Ident)
	return ok && of.Name == "mustRow"
}

// isShown tells whether the comment of a row quotes a sentence and says of what it is.
func isShown(s mustSentence, comments []string) bool {
	name := regexp.MustCompile(`(^|[ ,])` + regexp.QuoteMeta(s.of) + `([ :,]|$)`)
	return slices.ContainsFunc(comments, func(c string) bool { return strings.Contains(c, s.text) && name.MatchString(c) })
}

// elsewhere is what a paragraph of must-elsewhere.txt says: why no row shows some sentences.
type elsewhere struct {
	why       string
	sentences []string
}

// sentencesElsewhere reads must-elsewhere.txt: lines that begin with "- " are sentences, the lines above them say why no row shows them.
func sentencesElsewhere(t *testing.T) (all []elsewhere) {
	t.Helper()
	for p := range strings.SplitSeq(strings.TrimSpace(readFile(t, "testdata/must-elsewhere.txt")), "\n\n") {
		var e elsewhere
		for line := range strings.Lines(p) {
			if sentence, ok := strings.CutPrefix(strings.TrimSpace(line), "- "); ok {
				e.sentences = append(e.sentences, sentence)
				continue
			}
			e.why += strings.TrimSpace(line) + " "
		}
		all = append(all, e)
	}
	return all
}

// Every sentence with MUST of the API's documentation is the comment of a row of TestMust or its like, or testdata/must-elsewhere.txt says why it is not and what
// shows it instead. So a new version of the API shows what is new in it, and what is gone.
func TestEverySentenceWithMustIsShown(t *testing.T) {
	all := mustSentences(t)
	comments := shownSentences(t)
	listed, seen := map[string]bool{}, map[string]bool{}
	for _, e := range sentencesElsewhere(t) {
		if len(e.why) < 40 || len(e.sentences) == 0 {
			t.Errorf("must-elsewhere.txt: %q gives no reason, or for nothing", e.why)
		}
		for _, s := range e.sentences {
			if listed[s] {
				t.Errorf("must-elsewhere.txt has twice: %s", s)
			}
			listed[s] = true
		}
		checkShownBy(t, e.why)
	}
	for _, s := range all {
		name, inRow := s.String(), isShown(s, comments)
		switch {
		case !inRow && !listed[name]:
			t.Errorf("no row shows: %s", name)
		case inRow && listed[name]:
			t.Errorf("a row shows what must-elsewhere.txt lists: %s", name)
		}
		seen[name] = true
	}
	for s := range listed {
		if !seen[s] {
			t.Errorf("must-elsewhere.txt has a sentence that the API does not have: %s", s)
		}
	}
	if len(all) < 250 {
		t.Errorf("found only %d sentences: they are not read as they should be", len(all))
	}
}

// checkShownBy looks for what a reason refers to: tests, as package.TestName, and golden directories, as testdata/name.
func checkShownBy(t *testing.T, why string) {
	t.Helper()
	for _, m := range regexp.MustCompile(`\b([a-z]+(?:/[a-z0-9]+)*)\.(Test\w+)`).FindAllStringSubmatch(why, -1) {
		dir := filepath.Join("..", m[1])
		if strings.HasPrefix(m[1], "cmd/") || strings.HasPrefix(m[1], "conformance/") {
			dir = filepath.Join("../..", m[1])
		}
		if !hasTest(t, dir, m[2]) {
			t.Errorf("must-elsewhere.txt: package %s has no %s", m[1], m[2])
		}
	}
	for _, m := range regexp.MustCompile(`testdata/([a-z0-9-]+)`).FindAllStringSubmatch(why, -1) {
		if readFile(t, filepath.Join("testdata", m[1], "in.yaml")) == "" {
			t.Errorf("must-elsewhere.txt: there is no directory %s", m[1])
		}
	}
}

func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(files, func(f string) bool { return strings.Contains(readFile(t, f), "\nfunc "+name+"(t *testing.T") })
}
