// Package fairlead_test keeps the rules of the house: which room may import which, and what may not be in them. docs/architecture.md gives the reasons.
package fairlead_test

import (
	"bufio"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/fairlead-io/fairlead/"

// rooms says what each package may import of its neighbours, and which third-party modules. "std" is always allowed, minus what forbidden lists.
var rooms = map[string]struct {
	rooms   []string
	modules []string
}{
	"cmd/fairlead": {
		rooms: []string{
			"examples", "internal/acme", "internal/acme/dns01", "internal/acmestore", "internal/admin", "internal/backend", "internal/cert", "internal/compile", "internal/echo", "internal/manifest", "internal/object",
			"internal/provision", "internal/proxy", "internal/route", "internal/status", "internal/telemetry", "internal/watch",
		},
		modules: []string{"k8s.io/client-go", "github.com/mholt/acmez/v3", "github.com/spf13/cobra", "github.com/spf13/pflag", "k8s.io/api", "k8s.io/apimachinery", "sigs.k8s.io/yaml", "sigs.k8s.io/gateway-api"},
	},
	"examples":                {},
	"internal/object":         {modules: []string{"k8s.io/api", "k8s.io/apimachinery", "sigs.k8s.io/gateway-api"}},
	"internal/manifest":       {rooms: []string{"internal/object"}, modules: []string{"k8s.io/api", "k8s.io/apimachinery", "sigs.k8s.io/gateway-api", "sigs.k8s.io/yaml", "sigs.k8s.io/json", "go.yaml.in/yaml/v2", "github.com/fsnotify/fsnotify"}},
	"internal/watch":          {rooms: []string{"internal/object"}, modules: []string{"k8s.io/api", "k8s.io/apimachinery", "k8s.io/client-go", "k8s.io/klog", "sigs.k8s.io/gateway-api"}},
	"internal/status":         {rooms: []string{"internal/compile", "internal/object"}, modules: []string{"k8s.io/api", "k8s.io/apimachinery", "k8s.io/client-go", "sigs.k8s.io/gateway-api"}},
	"internal/provision":      {rooms: []string{"internal/compile", "internal/object"}, modules: []string{"k8s.io/api", "k8s.io/apimachinery", "k8s.io/client-go", "sigs.k8s.io/gateway-api"}},
	"internal/compile":        {rooms: []string{"internal/object", "internal/route"}, modules: []string{"k8s.io/api", "k8s.io/apimachinery", "sigs.k8s.io/gateway-api"}},
	"internal/route":          {},
	"internal/backend":        {rooms: []string{"internal/route"}, modules: []string{"golang.org/x/net", "golang.org/x/sys"}},
	"internal/acme":           {rooms: []string{"internal/route"}, modules: []string{"github.com/caddyserver/certmagic", "github.com/mholt/acmez/v3", "go.uber.org/zap", "golang.org/x/crypto"}},
	"internal/acme/dns01":     {modules: []string{"github.com/libdns/libdns", "github.com/miekg/dns"}},
	"internal/acmestore":      {rooms: []string{"internal/acme", "internal/object"}, modules: []string{"github.com/caddyserver/certmagic", "k8s.io/api", "k8s.io/apimachinery", "k8s.io/client-go"}},
	"internal/cert":           {rooms: []string{"internal/route"}},
	"internal/proxy":          {rooms: []string{"internal/route", "internal/backend", "internal/cert", "internal/telemetry", "internal/proxy/headscan"}, modules: []string{"golang.org/x/net", "golang.org/x/sys"}},
	"internal/proxy/headscan": {rooms: []string{"internal/route"}},
	"internal/telemetry":      {rooms: []string{"internal/route"}, modules: []string{"github.com/prometheus/client_golang", "github.com/prometheus/client_model"}},
	"internal/admin":          {rooms: []string{"internal/route", "internal/telemetry"}, modules: []string{"github.com/prometheus/client_golang"}},
	"internal/echo":           {modules: []string{"golang.org/x/net"}},
	"internal/leak":           {}, // for tests
	"internal/echo/pod":       {rooms: []string{"internal/echo"}},
}

// forbidden names the packages of the standard library that a room must do without, and why.
var forbidden = map[string]map[string]string{
	"internal/compile": {
		"context": "the compiler is a function", "log": "the compiler is a function", "log/slog": "the compiler is a function", "os": "the compiler is a function",
		"net/http": "the compiler is a function", "io": "the compiler is a function", "math/rand/v2": "the compiler is a function", "crypto/rand": "the compiler is a function",
	},
	"internal/route": {
		"context": "the table is a value", "log": "the table is a value", "log/slog": "the table is a value", "os": "the table is a value", "net/http": "other lanes than HTTP look routes up",
	},
	"internal/proxy/headscan": {"net": "bytes in, verdict out", "os": "bytes in, verdict out", "context": "bytes in, verdict out"},
}

// goFile is one parsed source file of the product (tests and nested modules are left out).
type goFile struct {
	room, name string
	set        *token.FileSet
	ast        *ast.File
}

func productFiles(t *testing.T) []goFile {
	t.Helper()
	var files []goFile
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != "." {
			if strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || exists(filepath.Join(name, "go.mod")) {
				return filepath.SkipDir
			}
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		set := token.NewFileSet()
		parsed, err := parser.ParseFile(set, name, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		files = append(files, goFile{room: path.Dir(filepath.ToSlash(name)), name: name, set: set, ast: parsed})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 20 {
		t.Fatalf("found only %d Go files: the walk is broken", len(files))
	}
	return files
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

func TestImportsFollowTheStreet(t *testing.T) {
	for _, f := range productFiles(t) {
		room, ok := rooms[f.room]
		if !ok {
			t.Errorf("%s: package %s is not in the list of rooms: add it with what it may import", f.name, f.room)
			continue
		}
		for _, imp := range f.ast.Imports {
			name := strings.Trim(imp.Path.Value, `"`)
			where := f.set.Position(imp.Pos())
			if why, bad := forbidden[f.room][name]; bad {
				t.Errorf("%s: %s must not import %s: %s", where, f.room, name, why)
			}
			if inside, ok := strings.CutPrefix(name, module); ok {
				if !slices.Contains(room.rooms, inside) {
					t.Errorf("%s: %s must not import %s", where, f.room, inside)
				}
				continue
			}
			first, _, _ := strings.Cut(name, "/")
			if strings.Contains(first, ".") && !slices.ContainsFunc(room.modules, func(m string) bool { return name == m || strings.HasPrefix(name, m+"/") }) {
				t.Errorf("%s: %s must not import %s", where, f.room, name)
			}
		}
	}
}

func TestCompilerAndTableHaveNoClock(t *testing.T) {
	for _, f := range productFiles(t) {
		if f.room != "internal/compile" && f.room != "internal/route" {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains([]string{"Now", "Since", "Until", "After", "Sleep", "NewTimer", "Tick"}, sel.Sel.Name) {
					t.Errorf("%s: time.%s: the same snapshot must give the same bytes", f.set.Position(n.Pos()), sel.Sel.Name)
				}
			}
			return true
		})
	}
}

func TestEveryPackageHasOneDoc(t *testing.T) {
	docs := map[string][]string{}
	for _, f := range productFiles(t) {
		if docs[f.room] == nil {
			docs[f.room] = []string{}
		}
		if f.ast.Doc != nil {
			docs[f.room] = append(docs[f.room], f.name)
		}
	}
	for room, in := range docs {
		if len(in) != 1 {
			t.Errorf("package %s has %d package comments, want 1: %v", room, len(in), in)
		}
	}
}

func TestFunctionsAreSmall(t *testing.T) {
	var lines []int
	longest := map[int]string{}
	for _, f := range productFiles(t) {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
				n := f.set.Position(fn.End()).Line - f.set.Position(fn.Pos()).Line + 1
				lines = append(lines, n)
				longest[n] = fmt.Sprintf("%s %s", f.set.Position(fn.Pos()), fn.Name.Name)
			}
		}
	}
	slices.Sort(lines)
	median, p90, most := lines[len(lines)/2], lines[len(lines)*9/10], lines[len(lines)-1]
	if median > 11 || p90 > 45 || most > 120 {
		t.Errorf("functions have median %d, 90th percentile %d and at most %d lines (%s); want at most 11, 45 and 120", median, p90, most, longest[most])
	}
}

func TestNoVagueNames(t *testing.T) {
	vague := []string{"util", "utils", "common", "helpers", "types", "misc"}
	words := regexp.MustCompile(`(?i)\b(upstreams?|vhosts?|translator)\b`)
	for _, f := range productFiles(t) {
		if base := strings.TrimSuffix(filepath.Base(f.name), ".go"); slices.Contains(vague, base) || slices.Contains(vague, path.Base(f.room)) {
			t.Errorf("%s: the name says nothing about what is in it", f.name)
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok && words.MatchString(id.Name) {
				t.Errorf("%s: %s: docs/terms.md has a better word", f.set.Position(id.Pos()), id.Name)
			}
			return true
		})
	}
}

func TestModuleFile(t *testing.T) {
	data, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	reasons, err := os.ReadFile("docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	scan := bufio.NewScanner(strings.NewReader(string(data)))
	for scan.Scan() {
		line := strings.TrimSpace(scan.Text())
		if strings.HasPrefix(line, "replace") || strings.HasPrefix(line, "toolchain") {
			t.Errorf("go.mod: %q: what users build must be what we build", line)
		}
		if strings.Contains(line, "// indirect") || !strings.Contains(line, ".") || strings.HasPrefix(line, "module") || strings.HasPrefix(line, "go ") {
			continue
		}
		mod, _, _ := strings.Cut(strings.TrimPrefix(line, "require "), " ")
		if !strings.Contains(string(reasons), "`"+mod+"`") {
			t.Errorf("docs/dependencies.md does not give the reason for %s", mod)
		}
	}
	if !strings.Contains(string(data), "\ngo 1.26.0\n") {
		t.Error("go.mod does not say go 1.26.0")
	}
}

func TestDecisionsAreNumbered(t *testing.T) {
	names, err := filepath.Glob("docs/decisions/*.md")
	if err != nil || len(names) == 0 {
		t.Fatalf("no decisions found: %v", err)
	}
	for i, name := range names {
		if want := fmt.Sprintf("%04d-", i+1); !strings.HasPrefix(filepath.Base(name), want) {
			t.Errorf("%s: want a name that starts with %s", name, want)
		}
	}
}

// TestLinksInDocs follows every relative link of the documentation.
func TestLinksInDocs(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	docs, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	decisions, err := filepath.Glob("docs/decisions/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Concat([]string{"README.md", "CHANGELOG.md"}, docs, decisions) {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, m := range link.FindAllStringSubmatch(string(data), -1) {
			if target := filepath.Join(filepath.Dir(name), m[1]); !exists(target) {
				t.Errorf("%s links to %s, which does not exist", name, m[1])
			}
		}
	}
}
