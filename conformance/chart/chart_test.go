// Package chart_test tests the Helm chart: what it renders, what that means to Kubernetes, and that values which cannot work are refused with words.
package chart_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/fairlead-io/fairlead/conformance/cluster"
)

var update = flag.Bool("update", false, "write the golden files")

const (
	chartDir   = "../../charts/fairlead"
	release    = "fairlead"
	namespace  = "ch-fairlead"
	gatewayAPI = "gateway.networking.k8s.io/v1/GatewayClass"
)

// unavailable ends a test that the machine cannot run: as skipped, unless CONFORMANCE is set, which promises that everything is there.
func unavailable(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CONFORMANCE") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// binDir returns the folder with the programs of the test cluster.
func binDir(t *testing.T) (bin, state string) {
	t.Helper()
	cache, err := cluster.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	bin, err = cluster.BinDir("../tools", cache)
	if err != nil {
		t.Fatal(err)
	}
	state, err = cluster.StateDir()
	if err != nil {
		t.Fatal(err)
	}
	return bin, state
}

// helmProgram returns the path of helm.
func helmProgram(t *testing.T) string {
	t.Helper()
	bin, _ := binDir(t)
	program := filepath.Join(bin, "helm")
	if _, err := os.Stat(program); err != nil {
		unavailable(t, "helm is not built; make cluster builds it: %v", err)
	}
	return program
}

// helm runs helm away from any cluster and from the configuration of whoever runs the test.
func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	home := t.TempDir()
	cmd := exec.CommandContext(t.Context(), helmProgram(t), args...)
	cmd.Env = append(os.Environ(), "HOME="+home, "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home, "KUBECONFIG="+os.DevNull)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w: %s", err, stderr.String())
	}
	return stdout.String(), nil
}

// render renders the chart for a cluster that knows the Gateway API.
func render(t *testing.T, args ...string) string {
	t.Helper()
	text, err := helm(t, slices.Concat([]string{"template", release, chartDir, "-n", namespace, "--kube-version", "1.36.0", "-a", gatewayAPI}, args)...)
	if err != nil {
		t.Fatalf("helm template %s: %v", args, err)
	}
	return text
}

// scenarios are the values files that come with the chart, by their names.
func scenarios(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(chartDir, "ci", "*-values.yaml"))
	if err != nil || len(files) < 10 {
		t.Fatalf("found %d values files (%v)", len(files), err)
	}
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = strings.TrimSuffix(filepath.Base(f), "-values.yaml")
	}
	return names
}

func valuesFile(scenario string) string {
	return filepath.Join(chartDir, "ci", scenario+"-values.yaml")
}

// document is one object of a rendered chart.
type document struct {
	name   string // kind namespace/name
	text   string
	object runtime.Object // typed, if Kubernetes itself has the type
}

// documents reads a rendered chart as the API server would: an unknown or doubled field is an error.
func documents(t *testing.T, rendered string) []document {
	t.Helper()
	strict := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	reader := yaml.NewDocumentDecoder(io.NopCloser(strings.NewReader(rendered)))
	defer func() { _ = reader.Close() }()
	var out []document
	buf := make([]byte, 1<<20)
	for {
		n, err := reader.Read(buf)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("read a document: %v", err)
		}
		text := strings.TrimSpace(string(buf[:n]))
		var u unstructured.Unstructured
		if err := yaml.UnmarshalStrict([]byte(text), &u.Object); err != nil {
			t.Fatalf("read a document: %v\n%s", err, text)
		}
		if len(u.Object) == 0 {
			continue
		}
		d := document{name: strings.ReplaceAll(u.GetKind()+" "+u.GetNamespace()+"/"+u.GetName(), " /", " "), text: text, object: &u}
		if scheme.Scheme.Recognizes(u.GroupVersionKind()) {
			if d.object, _, err = strict.Decode([]byte(text), nil, nil); err != nil {
				t.Errorf("%s: %v", d.name, err)
			}
		}
		if i := slices.IndexFunc(out, func(o document) bool { return o.name == d.name }); i >= 0 {
			t.Errorf("%s is there twice", d.name)
		}
		out = append(out, d)
	}
}

func TestLint(t *testing.T) {
	for _, name := range scenarios(t) {
		t.Run(name, func(t *testing.T) {
			if out, err := helm(t, "lint", "--strict", chartDir, "-f", valuesFile(name)); err != nil {
				t.Errorf("helm lint: %v\n%s", err, out)
			}
		})
	}
}

// TestRender compares what is rendered with the golden files. That of the defaults is whole; the others have what is different from it.
func TestRender(t *testing.T) {
	standard := documents(t, render(t))
	for _, name := range scenarios(t) {
		t.Run(name, func(t *testing.T) {
			docs := documents(t, render(t, "-f", valuesFile(name)))
			if name == "default" {
				golden(t, name+".yaml", differences(nil, docs))
				return
			}
			golden(t, name+".yaml", differences(standard, docs))
		})
	}
}

func differences(from, to []document) string {
	var b strings.Builder
	find := func(in []document, d document) (document, bool) {
		i := slices.IndexFunc(in, func(o document) bool { return o.name == d.name })
		if i < 0 {
			return document{}, false
		}
		return in[i], true
	}
	for _, d := range from {
		if _, ok := find(to, d); !ok {
			fmt.Fprintf(&b, "# without %s\n", d.name)
		}
	}
	for _, d := range to {
		if same, ok := find(from, d); !ok || same.text != d.text {
			fmt.Fprintf(&b, "---\n%s\n", d.text)
		}
	}
	return b.String()
}

func TestNotes(t *testing.T) {
	for _, name := range scenarios(t) {
		t.Run(name, func(t *testing.T) {
			out, err := helm(t, "install", release, chartDir, "-n", namespace, "--dry-run=client", "-f", valuesFile(name))
			if err != nil {
				t.Fatal(err)
			}
			_, notes, ok := strings.Cut(out, "\nNOTES:\n")
			if !ok {
				t.Fatal("helm install prints no notes")
			}
			golden(t, name+".notes.txt", notes)
		})
	}
}

// golden compares text with a file in testdata, or writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; go test -update writes it", err)
	}
	if got != string(want) {
		t.Errorf("%s is different; go test -update rewrites it\n%s", file, diff(t.Context(), file, got))
	}
}

// diff shows the lines that are different, if the machine has a program for that.
func diff(ctx context.Context, file, got string) string {
	cmd := exec.CommandContext(ctx, "diff", "-u", file, "-")
	cmd.Stdin = strings.NewReader(got)
	out, _ := cmd.Output() // it exits with 1 when there are differences
	if len(out) == 0 {
		return got
	}
	return string(out)
}

func TestGoldenFilesHaveScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*")
	if err != nil {
		t.Fatal(err)
	}
	names := scenarios(t)
	for _, f := range files {
		name := strings.TrimSuffix(strings.TrimSuffix(filepath.Base(f), ".yaml"), ".notes.txt")
		if !slices.Contains(names, name) {
			t.Errorf("%s belongs to no values file", f)
		}
	}
}

func absolute(t *testing.T, name string) string {
	t.Helper()
	name, err := filepath.Abs(name)
	if err != nil {
		t.Fatal(err)
	}
	return name
}
