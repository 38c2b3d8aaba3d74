package manifest

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	sigsjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-io/fairlead/internal/object"
)

// seeds are texts of many shapes: what the other tests use, and what has broken parsers before.
func seeds(f *testing.F) {
	for _, s := range []string{
		"", "---", "...", "{", "{}", "[", "- - -", "? a", "a: &a *a", "&a", "*a", "!!", "%YAML 1.1\n---", "\ufeff", "\xff\xfe", "\r", "---\r---\r", "'", "\"\\x", "|", ">-\n x",
		"a: {b: [c, d", "? {a: b}\n: c", "{a: b}: c", "<<: *x", "<<: {a: b}", "a: &a {b: 1}\nc:\n  <<: [*a, *a]\n  b: 2\n", "0x: 1\n1e400: 2\n", "0: \na: {0}\n0.:", "0: [Null, NULL, ~]", ".nan: .inf", "!!binary x", "!!int x", "!!float 1",
		"{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"x\"},\"data\":{\"k\":\"\\ud83d\"}}{}", "kind: List\napiVersion: v1\nitems: [null, 1, {}]",
		"kind: List\napiVersion: v1\nitems:\n- kind: List\n  apiVersion: v1\n  items:\n  - kind: List\n",
		configMap("x", "v"), configMap("x", "[1"), configMap("good", "mine"), service("s") + "---\n" + configMap("x", "v") + "\n...\n" + configMap("x", "w"),
		"apiVersion: v1\nkind: ConfigMapList\nitems:\n- metadata: {name: a}\n-\n  metadata:\n    name: b\n",
		"apiVersion: v1\nkind: Secret\nmetadata: {name: x}\ndata: {a: YQ==, b: null}\nstringData: {c: d}\ntype: kubernetes.io/tls\n",
		"apiVersion: v1\nkind: Service\nmetadata: {name: x, creationTimestamp: 2026-01-01}\nspec: {ports: [{port: 8e1, targetPort: 1.0}, null, {port: 80, targetPort: web}]}\n",
		"apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec:\n  parentRefs: [{name: g}]\n  rules:\n  - matches: [{path: {value: /a}}]\n    backendRefs: [{name: a, port: 80, weight: 1}]\n    timeouts: {request: 1s}\n",
		"apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g}\nspec:\n  gatewayClassName: c\n  listeners:\n  - {name: h, port: 80, protocol: HTTP}\n",
		"apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: i}\nspec:\n  rules:\n  - host: a.b\n    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: s, port: {number: 80}}}}]}\n",
		"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: e, labels: {kubernetes.io/service-name: s}}\naddressType: IPv4\nendpoints: [{addresses: [127.0.0.1], conditions: {ready: true}}]\nports: [{port: 80}]\n",
	} {
		f.Add([]byte(s))
	}
}

// Nothing that a document says may stop the reading, take long, or touch what another document of its file, or another file, holds.
func FuzzLoad(f *testing.F) {
	seeds(f)
	good := configMap("good", "untouched")
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 64<<10 {
			t.Skip("the limits on size have tests of their own")
		}
		begun := time.Now()
		files := map[string]string{"a.yaml": good + "---\n" + string(text) + "\n---\n" + configMap("last", "untouched"), "b.yaml": string(text), "c.json": string(text), "d.yaml": service("good")}
		snap, issues := Load(folderOf(files), Options{})
		if d := time.Since(begun); d > 10*time.Second {
			t.Errorf("took %v", d)
		}
		goodKey := object.Key{Namespace: "default", Name: "good"}
		if c := snap.ConfigMaps[goodKey]; c == nil || c.Data["k"] != "untouched" {
			t.Errorf("the document before is %v", c)
		}
		if snap.Services[goodKey] == nil {
			t.Error("the other file is missing")
		}
		last := snap.ConfigMaps[object.Key{Namespace: "default", Name: "last"}]
		if last == nil || last.Data["k"] != "untouched" && !mentions(issues, "already declared") {
			t.Errorf("the document behind is %v", last)
		}
		lines := map[string]int{}
		for name, text := range files {
			lines[name] = strings.Count(strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n"), "\n") + 1
		}
		for _, i := range issues {
			if i.Line < 0 || i.Line > lines[i.File] || i.Message == "" {
				t.Errorf("issue %q; the file has %d lines", i, lines[i.File])
			}
		}
		for ref, origin := range snap.Origins {
			if ref.Name == "" || origin == "" {
				t.Errorf("object %v at %q", ref, origin)
			}
		}
		again, issuesAgain := Load(folderOf(files), Options{})
		again.Taken = snap.Taken
		if diff := cmp.Diff(snap, again); diff != "" || !reflect.DeepEqual(issues, issuesAgain) {
			t.Errorf("a second reading differs:\n%s\n%q\n%q", diff, texts(issues), texts(issuesAgain))
		}
	})
}

func mentions(issues []Issue, what string) bool {
	for _, i := range issues {
		if strings.Contains(i.Message, what) {
			return true
		}
	}
	return false
}

// isBroken reports whether a document cannot be used for what it says, and not for what another says.
func isBroken(issues []Issue) bool {
	for _, i := range issues {
		if i.Fatal && !strings.Contains(i.Message, "already declared") {
			return true
		}
	}
	return false
}

// What is decoded here is what the libraries of the API server decode from the same text: where this package finds nothing fatal, they find nothing either,
// and come to the same object.
func FuzzDecode(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		if bytes.Contains(text, []byte("---")) || bytes.Contains(text, []byte("...")) || len(text) > 64<<10 {
			t.Skip("one document")
		}
		value, repeated, err := parseYAML(text)
		members, ok := value.(map[string]any)
		if err != nil || repeated || !ok {
			return
		}
		asJSON, err := yaml.YAMLToJSONStrict(text)
		if err != nil {
			return // values that JSON does not have
		}
		for _, k := range kinds {
			got, want := k.make(), k.make()
			misfits, ok := decode(members, got, false)
			strict, err := sigsjson.UnmarshalStrict(asJSON, want, sigsjson.DisallowUnknownFields)
			if !ok {
				continue // being stricter is allowed: lists of numbers are no base64
			}
			if err != nil {
				t.Fatalf("%s: nothing fatal was found, but the API server says %v", k.name, err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("%s (-API server +got):\n%s", k.name, diff)
			}
			if len(strict) != len(misfits) && len(misfits) <= maxIssues {
				t.Fatalf("%s: unknown fields: API server %v, got %v", k.name, strict, misfits)
			}
		}
		compareLocated(t, text, value)
	})
}

// compareLocated checks that the pass that finds lines sees the same values as the other.
func compareLocated(t *testing.T, text []byte, value any) {
	l := locate(text, false)
	if l == nil {
		t.Fatal("the text can be parsed, but not located")
	}
	if d := l.allDuplicates(); len(d) > 0 {
		t.Fatalf("duplicates %v were not seen by the parser", d)
	}
	again, err := l.plain(0)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(value, again, cmp.Comparer(func(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) })); diff != "" {
		t.Fatalf("(-parsed +located):\n%s", diff)
	}
}

// After any series of edits, a folder holds what it would hold if it had been opened just now, as long as nothing is broken.
func FuzzFolder(f *testing.F) {
	f.Add([]byte("a0b1c2"))
	f.Add([]byte("a0A9a1b0B5"))
	f.Fuzz(func(t *testing.T, edits []byte) {
		if len(edits) > 40 {
			t.Skip("enough is enough")
		}
		dir := t.TempDir()
		folder := openFolder(t, dir)
		for i := 0; i+1 < len(edits); i += 2 {
			edit(t, dir, edits[i], edits[i+1])
			snap, issues := folder.Read()
			fresh, freshIssues := openFolder(t, dir).Read()
			fresh.Taken = snap.Taken
			if isBroken(freshIssues) || mentions(issues, "is empty") {
				for key, c := range fresh.ConfigMaps {
					if have := snap.ConfigMaps[key]; have == nil {
						t.Fatalf("%v = %v is missing", key, c.Data)
					}
				}
				continue
			}
			if diff := cmp.Diff(fresh, snap); diff != "" {
				t.Fatalf("after edit %d (-fresh +got):\n%s", i/2, diff)
			}
			if diff := cmp.Diff(texts(freshIssues), texts(issues)); diff != "" {
				t.Fatalf("after edit %d: issues (-fresh +got):\n%s", i/2, diff)
			}
		}
	})
}

// edit does one of a few things to one of a few files.
func edit(t *testing.T, dir string, what, how byte) {
	name := filepath.Join(dir, fmt.Sprintf("f%d.yaml", what%4))
	var text strings.Builder
	for bit := range 4 {
		if how&(1<<bit) != 0 {
			text.WriteString("---\n" + configMap(fmt.Sprintf("c%d", bit), fmt.Sprintf("v%d", how>>6)))
		}
	}
	var err error
	switch what / 4 % 5 {
	case 0, 1:
		err = os.WriteFile(name, []byte(text.String()), 0o600)
	case 2:
		err = os.WriteFile(name, []byte(text.String()[:text.Len()*int(how)/256]), 0o600)
	case 3:
		err = os.RemoveAll(name)
	case 4:
		if _, statErr := os.Stat(name); statErr == nil {
			err = os.Rename(name, filepath.Join(dir, fmt.Sprintf("f%d.yaml", how%4)))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}
