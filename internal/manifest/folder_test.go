package manifest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-io/fairlead/internal/object"
)

// values are the ConfigMaps of a snapshot: name=value of k.
func values(s *object.Snapshot) []string {
	var out []string
	for _, c := range object.Sorted(s.ConfigMaps) {
		out = append(out, c.Name+"="+c.Data["k"])
	}
	return out
}

func openFolder(t testing.TB, dir string) *Folder {
	t.Helper()
	f, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Each step changes the folder; want and issues are what Read returns then.
func TestFolderKeepsTheLastGoodVersion(t *testing.T) {
	const still = "; the last good version is still served"
	doc := configMap
	join := func(docs ...string) string { return strings.Join(docs, "---\n") }
	const broken = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\ndata: {k: [\n"
	type step struct {
		do     string // write FILE, remove FILE, rename FILE TO
		text   string
		want   []string
		issues []string
	}
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"a changed document", []step{
			{"write a.yaml", doc("a", "1"), []string{"a=1"}, nil},
			{"write a.yaml", doc("a", "2"), []string{"a=2"}, nil},
		}},
		{"a removed document", []step{
			{"write a.yaml", join(doc("a", "1"), doc("b", "1")), []string{"a=1", "b=1"}, nil},
			{"write a.yaml", doc("b", "1"), []string{"b=1"}, nil},
		}},
		{"a removed file", []step{
			{"write a.yaml", doc("a", "1"), []string{"a=1"}, nil},
			{"write b.yaml", doc("b", "1"), []string{"a=1", "b=1"}, nil},
			{"remove a.yaml", "", []string{"b=1"}, nil},
		}},
		{"a renamed file", []step{
			{"write a.yaml", doc("a", "1"), []string{"a=1"}, nil},
			{"rename a.yaml b.yaml", "", []string{"a=1"}, nil},
		}},
		{"broken and mended", []step{
			{"write a.yaml", join(doc("a", "1"), doc("b", "1"), doc("c", "1")), []string{"a=1", "b=1", "c=1"}, nil},
			{
				"write a.yaml", join(doc("a", "2"), broken, doc("c", "2")),
				[]string{"a=2", "b=1", "c=2"},
				[]string{"!a.yaml:9: ConfigMap default/b: not valid YAML: did not find expected node content" + still},
			},
			{"write a.yaml", join(doc("a", "2"), doc("b", "3"), doc("c", "2")), []string{"a=2", "b=3", "c=2"}, nil},
		}},
		{"broken from the beginning", []step{
			{"write a.yaml", join(broken, doc("c", "1")), []string{"c=1"}, []string{"!a.yaml:4: ConfigMap default/b: not valid YAML: did not find expected node content"}},
			{"write a.yaml", join(doc("b", "1"), doc("c", "1")), []string{"b=1", "c=1"}, nil},
		}},
		{"a wrong type", []step{
			{"write a.yaml", join(doc("a", "1"), doc("b", "1")), []string{"a=1", "b=1"}, nil},
			{
				"write a.yaml", join(doc("a", "12"), doc("b", "1")), []string{"a=12", "b=1"}, nil,
			},
			{
				"write a.yaml", join(strings.ReplaceAll(doc("a", "0"), "'", ""), doc("b", "2")),
				[]string{"a=12", "b=2"},
				[]string{"!a.yaml:4: ConfigMap default/a: data.k: want a text, found the number 0: put it in quotes" + still},
			},
			{
				// The other document may go all the same: the broken one is known by its name.
				"write a.yaml", strings.ReplaceAll(doc("a", "0"), "'", ""),
				[]string{"a=12"},
				[]string{"!a.yaml:4: ConfigMap default/a: data.k: want a text, found the number 0: put it in quotes" + still},
			},
			{"write a.yaml", "# nothing\n", nil, nil},
		}},
		{"an unknown version", []step{
			{"write a.yaml", doc("a", "1"), []string{"a=1"}, nil},
			{
				"write a.yaml", strings.Replace(doc("a", "2"), "v1", "v2", 1),
				[]string{"a=1"},
				[]string{"!a.yaml:1: ConfigMap default/a: ConfigMap is read from apiVersion v1, not v2" + still},
			},
		}},
		{"a name that is broken off", []step{
			{"write a.yaml", join(doc("a", "1"), doc("b", "1")), []string{"a=1", "b=1"}, nil},
			{
				"write a.yaml", join(doc("a", "2"), strings.Replace(doc("b", "2"), "name: b", "name: [b", 1)),
				[]string{"a=2", "b=1"},
				[]string{"!a.yaml:8: not valid YAML: did not find expected ',' or ']'" + still},
			},
		}},
		{"a document that is no object any more", []step{
			{"write a.yaml", join(doc("a", "1"), doc("b", "1")), []string{"a=1", "b=1"}, nil},
			{
				"write a.yaml", join(doc("a", "2"), "hello\n"),
				[]string{"a=2", "b=1"},
				[]string{"!a.yaml:6: want a Kubernetes object, found a text" + still},
			},
		}},
		{"a lost separator", []step{
			{"write a.yaml", join(doc("a", "1"), doc("b", "1")), []string{"a=1", "b=1"}, nil},
			{
				"write a.yaml", doc("a", "2") + doc("b", "2"),
				[]string{"a=1", "b=1"},
				[]string{
					`!a.yaml:5: ConfigMap default/a: key "apiVersion" is written twice in one mapping` + still, `!a.yaml:6: ConfigMap default/a: key "kind" is written twice in one mapping` + still,
					`!a.yaml:7: ConfigMap default/a: key "metadata" is written twice in one mapping` + still, `!a.yaml:8: ConfigMap default/a: key "data" is written twice in one mapping` + still,
				},
			},
		}},
		{"cut off in the middle", []step{
			{"write a.yaml", join(doc("a", "1"), doc("b", "1"), doc("c", "1")), []string{"a=1", "b=1", "c=1"}, nil},
			{
				"write a.yaml", join(doc("a", "1"), doc("b", "1"))[:len(doc("a", "1"))+4+45],
				[]string{"a=1", "b=1", "c=1"},
				[]string{"!a.yaml:8: not valid YAML: did not find expected ',' or '}'" + still},
			},
			{"write a.yaml", join(doc("a", "1"), doc("b", "1")), []string{"a=1", "b=1"}, nil},
		}},
		{"cut off at the beginning", []step{
			{"write a.yaml", join(doc("a", "1"), doc("b", "1")), []string{"a=1", "b=1"}, nil},
			{"write a.yaml", "", []string{"a=1", "b=1"}, []string{"!a.yaml: file is empty; delete it if that is what you mean" + still}},
			{"write a.yaml", doc("a", "2"), []string{"a=2"}, nil},
		}},
		{"an empty file that was never anything else", []step{{"write a.yaml", "", nil, nil}}},
		{"a broken file that is removed", []step{
			{"write a.yaml", doc("b", "1"), []string{"b=1"}, nil},
			{"write a.yaml", broken, []string{"b=1"}, []string{"!a.yaml:4: ConfigMap default/b: not valid YAML: did not find expected node content" + still}},
			{"remove a.yaml", "", nil, nil},
		}},
		{"a broken file that is renamed", []step{
			{"write a.yaml", doc("b", "1"), []string{"b=1"}, nil},
			{"write a.yaml", "x: [\n", []string{"b=1"}, []string{"!a.yaml:1: not valid YAML: did not find expected node content" + still}},
			{"rename a.yaml b.yaml", "", []string{"b=1"}, []string{"!b.yaml:1: not valid YAML: did not find expected node content" + still}},
		}},
		{"moved to another file and broken at once", []step{
			{"write a.yaml", join(doc("a", "1"), doc("b", "1")), []string{"a=1", "b=1"}, nil},
			{"write b.yaml", broken, []string{"a=1", "b=1"}, []string{"!b.yaml:4: ConfigMap default/b: not valid YAML: did not find expected node content" + still}},
			{"write a.yaml", doc("a", "1"), []string{"a=1", "b=1"}, []string{"!b.yaml:4: ConfigMap default/b: not valid YAML: did not find expected node content" + still}},
			{"write b.yaml", doc("b", "2"), []string{"a=1", "b=2"}, nil},
		}},
		{"moved to another file", []step{
			{"write b.yaml", join(doc("a", "1"), doc("b", "1")), []string{"a=1", "b=1"}, nil},
			{"write a.yaml", doc("a", "2"), []string{"a=2", "b=1"}, []string{"!b.yaml:1: ConfigMap default/a: already declared at a.yaml:1; this one is not used"}},
			{"write b.yaml", doc("b", "1"), []string{"a=2", "b=1"}, nil},
		}},
		{"moved out of a broken file", []step{
			{"write a.yaml", join(doc("a", "1"), doc("b", "1")), []string{"a=1", "b=1"}, nil},
			{"write a.yaml", broken, []string{"a=1", "b=1"}, []string{"!a.yaml:4: ConfigMap default/b: not valid YAML: did not find expected node content" + still}},
			{"write b.yaml", doc("a", "2"), []string{"a=2", "b=1"}, []string{"!a.yaml:4: ConfigMap default/b: not valid YAML: did not find expected node content" + still}},
		}},
		{"a duplicate does not take over from the one that is broken", []step{
			{"write a.yaml", doc("b", "1"), []string{"b=1"}, nil},
			{"write b.yaml", doc("b", "2"), []string{"b=1"}, []string{"!b.yaml:1: ConfigMap default/b: already declared at a.yaml:1; this one is not used"}},
			{"write a.yaml", broken, []string{"b=1"}, []string{
				"!a.yaml:4: ConfigMap default/b: not valid YAML: did not find expected node content" + still,
				"!b.yaml:1: ConfigMap default/b: already declared at a.yaml:1; this one is not used",
			}},
			{"remove a.yaml", "", []string{"b=2"}, nil},
		}},
		{"an item of a list", []step{
			{"write a.yaml", "apiVersion: v1\nkind: ConfigMapList\nitems:\n- {metadata: {name: a}, data: {k: x}}\n- {metadata: {name: b}, data: {k: x}}\n", []string{"a=x", "b=x"}, nil},
			{
				"write a.yaml", "apiVersion: v1\nkind: ConfigMapList\nitems:\n- {metadata: {name: a}, data: {k: 1}}\n- {metadata: {name: b}, data: {k: z}}\n",
				[]string{"a=x", "b=z"},
				[]string{"!a.yaml:4: ConfigMap default/a: data.k: want a text, found the number 1: put it in quotes" + still},
			},
		}},
		{"a file that grows too large", []step{
			{"write a.yaml", doc("a", "1"), []string{"a=1"}, nil},
			{"write a.yaml", strings.Repeat("#", maxFileBytes+1), []string{"a=1"}, []string{"!a.yaml: file is too large: at most 16777216 bytes are read of one file and 268435456 of a folder" + still}},
			{"write a.yaml", doc("a", "1"), []string{"a=1"}, nil},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			f := openFolder(t, dir)
			for i, s := range tt.steps {
				quoted := strings.NewReplacer("k: 12", "k: '12'", "k: 1}", "k: '1'}", "k: 2}", "k: '2'}", "k: 3}", "k: '3'}")
				apply(t, dir, s.do, map[bool]string{true: quoted.Replace(s.text), false: s.text}[!strings.Contains(s.text, "ConfigMapList")])
				snap, issues := f.Read()
				if diff := cmp.Diff(s.want, values(snap)); diff != "" {
					t.Errorf("step %d (%s): ConfigMaps (-want +got):\n%s", i, s.do, diff)
				}
				if diff := cmp.Diff(s.issues, texts(issues)); diff != "" {
					t.Errorf("step %d (%s): issues (-want +got):\n%s", i, s.do, diff)
				}
				again, issuesAgain := f.Read()
				if !again.SameRoutes(snap) || !slices.Equal(issues, issuesAgain) {
					t.Errorf("step %d (%s): a second Read differs: %q, %q", i, s.do, values(again), texts(issuesAgain))
				}
			}
		})
	}
}

func apply(t *testing.T, dir, do, text string) {
	t.Helper()
	words := strings.Fields(do)
	var err error
	switch words[0] {
	case "write":
		write(t, dir, words[1], text)
	case "remove":
		err = os.Remove(filepath.Join(dir, words[1]))
	case "rename":
		err = os.Rename(filepath.Join(dir, words[1]), filepath.Join(dir, words[2]))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestFolderKeepsPointers(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.yaml", configMap("a", "va")+"---\n"+service("s")+"---\n"+configMap("b", "vb"))
	write(t, dir, "b.yaml", configMap("c", "vc"))
	b, err := ParseBackend("default/s:80=127.0.0.1:3000")
	if err != nil {
		t.Fatal(err)
	}
	f, err := Open(dir, Options{Backends: []Backend{b}})
	if err != nil {
		t.Fatal(err)
	}
	first, _ := f.Read()
	a := object.Key{Namespace: "default", Name: "a"}
	for _, tt := range []struct {
		name   string
		change func()
		origin string // of b
	}{
		{"nothing changed", func() {}, "a.yaml:11"},
		{"a touched file", func() {
			now := time.Now().Add(-time.Hour)
			if err := os.Chtimes(filepath.Join(dir, "a.yaml"), now, now); err != nil {
				t.Fatal(err)
			}
		}, "a.yaml:11"},
		{"comments and lines", func() {
			write(t, dir, "a.yaml", "\n\n# c\n"+configMap("a", "va")+"# d\n---\n\n"+service("s")+"---\n"+configMap("b", "vb"))
		}, "a.yaml:16"},
		{"another document", func() {
			write(t, dir, "a.yaml", configMap("a", "changed")+"---\n"+service("s")+"---\n"+configMap("b", "vb"))
		}, "a.yaml:11"},
		{"moved to another file", func() {
			write(t, dir, "b.yaml", configMap("c", "vc")+"---\n"+configMap("b", "vb"))
			write(t, dir, "a.yaml", configMap("a", "va")+"---\n"+service("s"))
		}, "b.yaml:6"},
		{"broken", func() { write(t, dir, "b.yaml", configMap("c", "vc")+"---\n"+configMap("b", "[")) }, "b.yaml:6"},
		{"mended", func() { write(t, dir, "b.yaml", configMap("c", "vc")+"---\n"+configMap("b", "vb")) }, "b.yaml:6"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.change()
			got, _ := f.Read()
			for _, key := range []object.Key{{Namespace: "default", Name: "b"}, {Namespace: "default", Name: "c"}} {
				if got.ConfigMaps[key] != first.ConfigMaps[key] {
					t.Errorf("%v is another pointer", key)
				}
			}
			key := object.Key{Namespace: "default", Name: "s"}
			if got.Services[key] != first.Services[key] || got.EndpointSlices[key][0] != first.EndpointSlices[key][0] {
				t.Error("the Service or its implied slice is another pointer")
			}
			if got.Namespaces["default"] != first.Namespaces["default"] || got.GatewayClasses["fairlead"] != first.GatewayClasses["fairlead"] ||
				got.IngressClasses["fairlead"] != first.IngressClasses["fairlead"] {
				t.Error("an implied object is another pointer")
			}
			if o := got.Origins[object.Ref{Kind: "ConfigMap", Namespace: "default", Name: "b"}]; o != tt.origin {
				t.Errorf("origin = %s, want %s", o, tt.origin)
			}
			if want := tt.name == "another document"; (got.ConfigMaps[a].Data["k"] == "changed") != want {
				t.Errorf("a = %v", got.ConfigMaps[a].Data)
			}
		})
	}
}

// What a flag implies is no last good version of a document.
func TestFolderDoesNotKeepWhatIsImplied(t *testing.T) {
	dir := t.TempDir()
	b, err := ParseBackend("default/s:80=127.0.0.1:3000")
	if err != nil {
		t.Fatal(err)
	}
	f, err := Open(dir, Options{Backends: []Backend{b}})
	if err != nil {
		t.Fatal(err)
	}
	f.Read()
	write(t, dir, "a.yaml", strings.Replace(service("s"), "80", "web", 1))
	snap, issues := f.Read()
	want := []string{`!a.yaml:4: Service default/s: spec.ports[0].port: want a whole number, found the text "web"`}
	if diff := cmp.Diff(want, texts(issues)); diff != "" {
		t.Errorf("issues (-want +got):\n%s", diff)
	}
	if origin := snap.Origins[object.Ref{Kind: "Service", Namespace: "default", Name: "s"}]; origin != "--backend:1" {
		t.Errorf("origin = %s", origin)
	}
}

// What a snapshot holds never changes after it was handed out.
func TestFolderDoesNotTouchOldSnapshots(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.yaml", configMap("a", "va"))
	f := openFolder(t, dir)
	first, _ := f.Read()
	write(t, dir, "a.yaml", configMap("b", "vb"))
	write(t, dir, "c.yaml", configMap("a", "vc"))
	if _, issues := f.Read(); len(issues) > 0 {
		t.Fatalf("issues: %q", texts(issues))
	}
	if diff := cmp.Diff([]string{"a=va"}, values(first)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A file that changes without a trace in its size, its time and its identity is read again while it is fresh.
func TestFolderSeesChangesInTheSameInstant(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	f := openFolder(t, dir)
	at := time.Now().Add(time.Minute) // fresh for as long as this test takes
	for i := range 20 {
		write(t, dir, "a.yaml", configMap("a", fmt.Sprintf("v%02d", i)))
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		snap, _ := f.Read()
		if diff := cmp.Diff([]string{fmt.Sprintf("a=v%02d", i)}, values(snap)); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	}
}

func TestFolderThatGoesAwayIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "m")
	write(t, dir, "a.yaml", configMap("a", "v"))
	f := openFolder(t, dir)
	if _, issues := f.Read(); len(issues) > 0 {
		t.Fatalf("issues: %q", texts(issues))
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		snap, issues := f.Read()
		if diff := cmp.Diff([]string{"a=v"}, values(snap)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"!.: cannot read folder: no such file or directory"}, texts(issues)); diff != "" {
			t.Errorf("issues (-want +got):\n%s", diff)
		}
	}
	write(t, dir, "a.yaml", configMap("b", "v"))
	snap, issues := f.Read()
	if diff := cmp.Diff([]string{"b=v"}, values(snap)); diff != "" || len(issues) > 0 {
		t.Errorf("(-want +got):\n%s\nissues: %q", diff, texts(issues))
	}
}

func TestFolderThatCannotBeReadIsKept(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("nothing is forbidden to root")
	}
	dir := t.TempDir()
	write(t, dir, "s/a.yaml", configMap("a", "v"))
	write(t, dir, "b.yaml", configMap("b", "v"))
	f := openFolder(t, dir)
	f.Read()
	for _, name := range []string{"s", "b.yaml"} {
		if err := os.Chmod(filepath.Join(dir, name), 0); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir, "s"), 0o700) })
	write(t, dir, "c.yaml", configMap("c", "v"))
	if err := os.Chtimes(filepath.Join(dir, "b.yaml"), time.Now(), time.Now()); err != nil {
		t.Fatal(err)
	}
	snap, issues := f.Read()
	if diff := cmp.Diff([]string{"a=v", "b=v", "c=v"}, values(snap)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	want := []string{"!b.yaml: cannot read file: permission denied; the last good version is still served", "!s: cannot read folder: permission denied"}
	if diff := cmp.Diff(want, texts(issues)); diff != "" {
		t.Errorf("issues (-want +got):\n%s", diff)
	}
}

// A link that leads out of the folder is not followed, so that nobody who may write manifests can have other files read.
func TestFolderDoesNotFollowLinksOut(t *testing.T) {
	base := t.TempDir()
	write(t, base, "outside/a.yaml", configMap("a", "v"))
	dir := filepath.Join(base, "m")
	write(t, dir, "b.yaml", configMap("b", "v"))
	for name, target := range map[string]string{"a.yaml": "../outside/a.yaml", "c.yaml": filepath.Join(base, "outside/a.yaml"), "d": "../outside"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	snap, issues := openFolder(t, dir).Read()
	if diff := cmp.Diff([]string{"b=v"}, values(snap)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	want := []string{
		"!a.yaml: cannot follow symbolic link: path escapes from parent", "!c.yaml: cannot follow symbolic link: path escapes from parent",
		"d: cannot follow symbolic link: path escapes from parent",
	}
	if diff := cmp.Diff(want, texts(issues)); diff != "" {
		t.Errorf("issues (-want +got):\n%s", diff)
	}
}

func TestOpenWantsAFolder(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.yaml", "")
	if _, err := Open(filepath.Join(dir, "none"), Options{}); err == nil || !strings.HasPrefix(err.Error(), "open manifests: stat ") {
		t.Errorf("error = %v", err)
	}
	if _, err := Open(filepath.Join(dir, "a.yaml"), Options{}); err == nil || !strings.HasSuffix(err.Error(), "a.yaml is not a folder") {
		t.Errorf("error = %v", err)
	}
}
