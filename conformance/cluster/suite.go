package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// AddSuiteImages builds the images that the manifests of the Gateway API's conformance suite name, from the very modules, and gives them to the nodes. module is the
// folder of the module that requires the suite.
func (c *Cluster) AddSuiteImages(ctx context.Context, module string) error {
	dir, err := moduleDir(ctx, module, "sigs.k8s.io/gateway-api/conformance")
	if err != nil {
		return err
	}
	tags, err := imagesIn(dir)
	if err != nil {
		return err
	}
	echo := filepath.Join(c.State, "echo-basic")
	if err := (program{name: "echo-basic", pkg: "sigs.k8s.io/gateway-api/conformance/echo-basic"}).build(ctx, module, echo); err != nil {
		return err
	}
	images := map[string]Image{
		"echo-basic":    {Tags: matching(tags, "/echo-basic:"), Files: map[string]string{"/echo-basic": echo}, Entrypoint: []string{"/echo-basic"}, User: "65532"},
		"suite-coredns": {Tags: matching(tags, "/coredns:"), Files: map[string]string{"/coredns": filepath.Join(c.Bin, "coredns")}, Entrypoint: []string{"/coredns"}, User: "65532"},
	}
	for name, image := range images {
		if err := c.AddImage(ctx, name, image); err != nil {
			return err
		}
	}
	return nil
}

func matching(tags []string, part string) []string {
	return slices.DeleteFunc(slices.Clone(tags), func(t string) bool { return !strings.Contains(t, part) })
}

var imageLine = regexp.MustCompile(`(?m)^\s*(?:- )?image:\s*"?([^\s"]+)"?\s*$`)

// imagesIn returns the names of images in the manifests of the suite, sorted.
func imagesIn(dir string) ([]string, error) {
	var tags []string
	for _, folder := range []string{"base", "tests"} {
		names, err := filepath.Glob(filepath.Join(dir, folder, "*.yaml"))
		if err != nil {
			return nil, fmt.Errorf("find images: %w", err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				return nil, fmt.Errorf("find images: %w", err)
			}
			for _, m := range imageLine.FindAllStringSubmatch(string(text), -1) {
				tags = append(tags, m[1])
			}
		}
	}
	slices.Sort(tags)
	return slices.Compact(tags), nil
}

// TestProgram compiles the tests of a package into one program and returns its file. They can then run inside of the cluster's namespaces.
func (c *Cluster) TestProgram(ctx context.Context, module, pkg, name string) (string, error) {
	file := filepath.Join(c.State, name+".test")
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", file, pkg)
	cmd.Dir = module
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile %s: %w\n%s", pkg, err, out)
	}
	return file, nil
}

// moduleDir returns the folder of a module that another one requires.
func moduleDir(ctx context.Context, from, module string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", module)
	cmd.Dir = from
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("download %s: %w\n%s", module, err, out)
	}
	cmd = exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module)
	cmd.Dir = from
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("find %s: %w", module, err)
	}
	return strings.TrimSpace(string(out)), nil
}
