package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// program is a binary that the cluster needs, and how the module that holds it builds it.
type program struct {
	name   string // of the file in the cache
	pkg    string
	cgo    bool
	tags   string
	ldflag string
}

// toolModule is a nested module under conformance/tools: one for each project, because their requirements contradict each other.
type toolModule struct {
	name     string
	programs []program
}

const (
	kubernetesVersion = "v1.36.3"
	kubernetesStamp   = "-X k8s.io/component-base/version.gitVersion=" + kubernetesVersion +
		" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36" +
		" -X k8s.io/client-go/pkg/version.gitVersion=" + kubernetesVersion
)

var toolModules = []toolModule{
	{"etcd", []program{{name: "etcd", pkg: "go.etcd.io/etcd/server/v3"}}},
	{"kubernetes", []program{
		{name: "kube-apiserver", pkg: "k8s.io/kubernetes/cmd/kube-apiserver", ldflag: kubernetesStamp},
		{name: "kube-controller-manager", pkg: "k8s.io/kubernetes/cmd/kube-controller-manager", ldflag: kubernetesStamp},
		{name: "kube-scheduler", pkg: "k8s.io/kubernetes/cmd/kube-scheduler", ldflag: kubernetesStamp},
		{name: "kubectl", pkg: "k8s.io/kubernetes/cmd/kubectl", ldflag: kubernetesStamp},
		{name: "kube-proxy", pkg: "k8s.io/kubernetes/cmd/kube-proxy", ldflag: kubernetesStamp},
		{name: "kubelet", pkg: "k8s.io/kubernetes/cmd/kubelet", ldflag: kubernetesStamp},
	}},
	{"containerd", []program{
		{name: "containerd", pkg: "github.com/containerd/containerd/v2/cmd/containerd"},
		{name: "containerd-shim-runc-v2", pkg: "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"},
		{name: "ctr", pkg: "github.com/containerd/containerd/v2/cmd/ctr"},
	}},
	// runc enters namespaces in C before the Go runtime starts, and filters system calls with libseccomp.
	{"runc", []program{{
		name: "runc", pkg: "github.com/opencontainers/runc", cgo: true, tags: "seccomp netgo osusergo",
		ldflag: "-linkmode external -extldflags -static -X main.version=1.5.2",
	}}},
	{"cni", []program{
		{name: "cni/bridge", pkg: "github.com/containernetworking/plugins/plugins/main/bridge"},
		{name: "cni/loopback", pkg: "github.com/containernetworking/plugins/plugins/main/loopback"},
		{name: "cni/host-local", pkg: "github.com/containernetworking/plugins/plugins/ipam/host-local"},
		{name: "cni/portmap", pkg: "github.com/containernetworking/plugins/plugins/meta/portmap"},
	}},
	{"helm", []program{{name: "helm", pkg: "helm.sh/helm/v4/cmd/helm"}}},
	{"coredns", []program{{name: "coredns", pkg: "github.com/coredns/coredns"}}},
}

// Binaries returns the folder with the cluster's programs, for the versions that the modules under tools name, and builds what is not there yet. The folder is
// outside the repository and named after the versions, so that it is built once for each change of them.
func Binaries(ctx context.Context, tools, cache string, log io.Writer) (string, error) {
	dir, err := BinDir(tools, cache)
	if err != nil {
		return "", err
	}
	for _, m := range toolModules {
		if err := m.build(ctx, filepath.Join(tools, m.name), dir, log); err != nil {
			return "", err
		}
	}
	return dir, buildOwn(ctx, filepath.Dir(tools), dir)
}

// buildOwn builds the programs of this module, every time, since nothing in the folder's name tells their version.
func buildOwn(ctx context.Context, module, dir string) error {
	for _, p := range []program{{name: "pause", pkg: "./cmd/pause"}, {name: "loadbalancer", pkg: "./cmd/loadbalancer"}} {
		if err := p.build(ctx, module, filepath.Join(dir, p.name)); err != nil {
			return err
		}
	}
	return nil
}

// BinDir returns the folder with the cluster's programs, whether they have been built or not.
func BinDir(tools, cache string) (string, error) {
	key, err := versionsKey(tools)
	if err != nil {
		return "", err
	}
	return filepath.Join(cache, "bin-"+key), nil
}

// versionsKey is a hash of everything that decides what the programs are.
func versionsKey(tools string) (string, error) {
	h := sha256.New()
	for _, m := range toolModules {
		for _, name := range []string{"go.mod", "go.sum"} {
			data, err := os.ReadFile(filepath.Join(tools, m.name, name))
			if err != nil {
				return "", fmt.Errorf("read versions: %w", err)
			}
			_, _ = h.Write(data)
		}
		for _, p := range m.programs {
			_, _ = fmt.Fprintln(h, p)
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:12], nil
}

func (m toolModule) build(ctx context.Context, module, dir string, log io.Writer) error {
	missing := slices.DeleteFunc(slices.Clone(m.programs), func(p program) bool { return isFile(filepath.Join(dir, p.name)) })
	for _, p := range missing {
		begun := time.Now()
		_, _ = fmt.Fprintf(log, "building %s ... ", p.name)
		if err := p.build(ctx, module, filepath.Join(dir, p.name)); err != nil {
			_, _ = fmt.Fprintln(log, "failed")
			return err
		}
		_, _ = fmt.Fprintf(log, "%.0f s\n", time.Since(begun).Seconds())
	}
	return nil
}

func (p program) build(ctx context.Context, module, out string) error {
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return fmt.Errorf("build %s: %w", p.name, err)
	}
	unfinished := fmt.Sprintf("%s.%d", out, os.Getpid()) // others may be building the same
	args := []string{"build", "-trimpath", "-ldflags", strings.TrimSpace("-s -w " + p.ldflag), "-o", unfinished}
	if p.tags != "" {
		args = append(args, "-tags", p.tags)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, p.pkg)...)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+map[bool]string{true: "1", false: "0"}[p.cgo], "GOFLAGS=-mod=readonly -buildvcs=false")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s in %s: %w\n%s", p.name, module, err, output)
	}
	return os.Rename(unfinished, out)
}

func isFile(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular()
}

// CacheDir is where everything that outlives a checkout is kept: ${XDG_CACHE_HOME}/fairlead.
func CacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil && errors.Is(err, fs.ErrNotExist) {
		dir, err = "/var/cache", nil
	}
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w", err)
	}
	return filepath.Join(dir, "fairlead"), nil
}

// StateDir is the folder of a cluster's files and logs: that of the cluster which the environment variable CLUSTER names, or of the one without a name. Clusters of
// different names run side by side.
func StateDir() (string, error) {
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	name := os.Getenv("CLUSTER")
	if strings.ContainsRune(name, filepath.Separator) {
		return "", fmt.Errorf("CLUSTER: %q is a name, not a path", name)
	}
	return filepath.Join(cache, strings.TrimSuffix("cluster-"+name, "-")), nil
}
