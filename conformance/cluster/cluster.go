// Package cluster runs a real Kubernetes on one Linux machine, from programs that it builds from Go modules: etcd, the control plane, two nodes with containerd and
// real Pods, in namespaces of their own. Nothing of it is visible outside of them, and nothing stays when it is gone. Tests are its only users.
//
// It needs root, but neither a container engine nor a registry: images are packed from static binaries.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Addresses inside the cluster's network.
const (
	node1IP         = "10.100.0.1"
	node2IP         = "10.100.0.2"
	clientIP        = "10.100.0.100"
	balancerNetwork = "10.100.1.0/24"
	podNetwork      = "10.244.0.0/16"
	serviceNetwork  = "10.96.0.0/16"
	apiServiceIP    = "10.96.0.1"
	dnsServiceIP    = "10.96.0.10"
)

// Cluster is one cluster on this machine; at most one runs for each State folder. It is not safe for concurrent use.
type Cluster struct {
	Bin   string // the folder that Binaries returned
	State string // where its files and logs are
	Log   io.Writer
}

func (c *Cluster) run(elem ...string) string {
	return filepath.Join(append([]string{c.State, "run"}, elem...)...)
}

func (c *Cluster) logFile(name string) string { return filepath.Join(c.State, "logs", name+".log") }

// Kubeconfig is the file with the administrator's access. It is of use inside the cluster's namespaces only: see Command.
func (c *Cluster) Kubeconfig() string { return c.run("pki", "admin.kubeconfig") }

// Up starts the cluster and waits until both nodes are ready. A cluster that is running already is left as it is.
func (c *Cluster) Up(ctx context.Context) error {
	if _, err := c.initPID(); err == nil {
		_, _ = fmt.Fprintln(c.Log, "the cluster is running already")
		return nil
	}
	if err := errors.Join(os.RemoveAll(c.State), os.MkdirAll(c.run(), 0o755), os.MkdirAll(filepath.Join(c.State, "logs"), 0o755)); err != nil {
		return fmt.Errorf("make the state folder: %w", err)
	}
	if err := c.packImages(); err != nil {
		return err
	}
	if err := c.writePKI(); err != nil {
		return fmt.Errorf("make certificates: %w", err)
	}
	init, err := c.startInit()
	if err != nil {
		return err
	}
	if err := c.waitReady(ctx, init); err != nil {
		return errors.Join(err, c.Down())
	}
	return nil
}

// needs are the programs that a cluster takes from the system, and Debian's packages for them.
var needs = map[string]string{"ip": "iproute2", "nft": "nftables", "iptables": "iptables", "conntrack": "conntrack", "nsenter": "util-linux", "sysctl": "procps"}

// Prepare checks that this machine can run a cluster, and installs what is missing where apt-get can. It says clearly what is missing otherwise.
func Prepare(ctx context.Context, log io.Writer) error {
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		return errors.New("a cluster needs root on Linux: it makes network and mount namespaces")
	}
	packages := map[string]bool{}
	for name, pkg := range needs {
		if _, err := exec.LookPath(name); err != nil {
			packages[pkg] = true
		}
	}
	if _, err := exec.LookPath("gcc"); err != nil { // runc is the one program with C in it
		packages["gcc"], packages["libc6-dev"] = true, true
	}
	if headers, _ := filepath.Glob("/usr/include/seccomp.h"); len(headers) == 0 {
		packages["libseccomp-dev"] = true
	}
	if len(packages) == 0 {
		return nil
	}
	missing := slices.Sorted(maps.Keys(packages))
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("install what these packages of Debian hold: %s", strings.Join(missing, " "))
	}
	_, _ = fmt.Fprintln(log, "installing", strings.Join(missing, " "))
	for _, args := range [][]string{{"update", "-q"}, append([]string{"install", "-y", "-q", "--no-install-recommends"}, missing...)} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}

// packImages packs the images that the cluster itself needs.
func (c *Cluster) packImages() error {
	for name, image := range map[string]Image{
		"pause":   {Tags: []string{pauseImage}, Files: map[string]string{"/pause": filepath.Join(c.Bin, "pause")}, Entrypoint: []string{"/pause"}, User: "65535"},
		"coredns": {Tags: []string{dnsImage}, Files: map[string]string{"/coredns": filepath.Join(c.Bin, "coredns")}, Entrypoint: []string{"/coredns"}, User: "65532"},
	} {
		if err := image.Pack(filepath.Join(c.State, "images", name+".tar")); err != nil {
			return err
		}
	}
	return nil
}

// AddImage packs an image and gives it to the nodes of the running cluster.
func (c *Cluster) AddImage(ctx context.Context, name string, image Image) error {
	file := filepath.Join(c.State, "images", name+".tar")
	if err := image.Pack(file); err != nil {
		return err
	}
	for _, n := range []node{node1, node2} {
		cmd, err := c.Command(ctx, filepath.Join(c.Bin, "ctr"), "-a", c.run(n.name, "containerd.sock"), "-n", "k8s.io", "images", "import", file)
		if err != nil {
			return err
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("import %s on %s: %w: %s", name, n.name, err, out)
		}
	}
	return nil
}

// FairleadImage is the image that AddFairlead makes.
const FairleadImage = "localhost/fairlead:dev"

// AddFairlead builds Fairlead from a checkout and gives it to the nodes as FairleadImage.
func (c *Cluster) AddFairlead(ctx context.Context, checkout string) error {
	binary := filepath.Join(c.State, "fairlead")
	if err := (program{name: "fairlead", pkg: "./cmd/fairlead", ldflag: "-X main.version=dev"}).build(ctx, checkout, binary); err != nil {
		return err
	}
	return c.AddImage(ctx, "fairlead", Image{
		Tags: []string{FairleadImage}, Files: map[string]string{"/fairlead": binary}, Entrypoint: []string{"/fairlead"}, User: "65532",
	})
}

// startInit starts this very program again as the first process of new namespaces.
func (c *Cluster) startInit() (*os.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own binary: %w", err)
	}
	logFile, err := os.Create(c.logFile("init"))
	if err != nil {
		return nil, fmt.Errorf("start namespaces: %w", err)
	}
	defer func() { _ = logFile.Close() }()
	cmd := exec.Command(self, "init", "--bin", c.Bin, "--state", c.State)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Setsid:     true,
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start namespaces: %w", err)
	}
	if err := os.WriteFile(c.run("init.pid"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("start namespaces: %w", err), cmd.Process.Kill())
	}
	return cmd.Process, nil
}

// waitReady follows the log of the init process, which says how far it is, until it says that everything is ready.
func (c *Cluster) waitReady(ctx context.Context, init *os.Process) error {
	ended := make(chan struct{})
	go func() { _, _ = init.Wait(); close(ended) }()
	shown := 0
	for {
		text, err := os.ReadFile(c.logFile("init"))
		if err != nil {
			return fmt.Errorf("start the cluster: %w", err)
		}
		_, _ = c.Log.Write(text[shown:])
		shown = len(text)
		if isFile(c.run("ready")) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("start the cluster: %w; the logs are in %s", ctx.Err(), filepath.Join(c.State, "logs"))
		case <-ended:
			return fmt.Errorf("start the cluster: it ended; the logs are in %s", filepath.Join(c.State, "logs"))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// initPID returns the process id of a running cluster's first process.
func (c *Cluster) initPID() (int, error) {
	text, err := os.ReadFile(c.run("init.pid"))
	if err != nil {
		return 0, errors.New("the cluster is not running: make cluster starts it")
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		return 0, fmt.Errorf("read init.pid: %w", err)
	}
	// The number may belong to somebody else by now, so ask what it runs.
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !strings.Contains(string(cmdline), c.State) {
		return 0, errors.New("the cluster is not running: make cluster starts it")
	}
	return pid, nil
}

// Down ends the cluster: its first process is killed, which takes every other process, mount and interface of it along. Then its files are removed, but for the logs.
func (c *Cluster) Down() error {
	if pid, err := c.initPID(); err == nil {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return fmt.Errorf("end the cluster: %w", err)
		}
	}
	err := c.removeCgroups()
	for deadline := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(deadline); err = c.removeCgroups() {
		time.Sleep(50 * time.Millisecond) // the last of its processes are on their way out
	}
	entries, listed := os.ReadDir(c.State)
	if errors.Is(listed, fs.ErrNotExist) {
		return err
	}
	err = errors.Join(err, listed)
	for _, e := range entries {
		if e.Name() != "logs" {
			err = errors.Join(err, os.RemoveAll(filepath.Join(c.State, e.Name())))
		}
	}
	return err
}

// Command returns a command that runs inside the cluster's namespaces, on node 1, with KUBECONFIG set and the cluster's programs in the PATH.
func (c *Cluster) Command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	pid, err := c.initPID()
	if err != nil {
		return nil, err
	}
	enter := []string{"-t", strconv.Itoa(pid), "-n", "-m", "-p", "-u", "-i", "--", name}
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig(), "PATH="+c.Bin+":"+os.Getenv("PATH"), "HOME="+c.run())
	return cmd, nil
}
