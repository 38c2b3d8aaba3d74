package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Init is the first process of the namespaces. It prepares them, has Supervise start everything, and then reaps whatever is left to it until it is killed. It only
// returns with an error.
func (c *Cluster) Init() error {
	for _, prepare := range []func() error{c.mounts, c.sysctls, c.network} {
		if err := prepare(); err != nil {
			return err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own binary: %w", err)
	}
	child, err := os.StartProcess(self, []string{self, "supervise", "--bin", c.Bin, "--state", c.State}, &os.ProcAttr{Env: os.Environ(), Files: []*os.File{nil, os.Stdout, os.Stderr}})
	if err != nil {
		return fmt.Errorf("start the supervisor: %w", err)
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.ECHILD):
			return errors.New("nothing is left to wait for")
		case err != nil:
			return fmt.Errorf("wait for processes: %w", err)
		case pid == child.Pid && status.ExitStatus() != 0:
			return errors.New("the cluster did not start")
		}
	}
}

// mounts hides the places where a node leaves files on its machine behind empty ones.
func (c *Cluster) mounts() error {
	const recursive = syscall.MS_REC
	for _, flags := range []uintptr{recursive | syscall.MS_PRIVATE, recursive | syscall.MS_SHARED} { // ours alone, and shared among ours
		if err := syscall.Mount("", "/", "", flags, ""); err != nil {
			return fmt.Errorf("make mounts private: %w", err)
		}
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	for _, dir := range []string{"/run", "/var/lib", "/var/log", "/opt"} {
		if strings.HasPrefix(c.State, dir+"/") || strings.HasPrefix(c.Bin, dir+"/") {
			return fmt.Errorf("the cache must not be below %s: set XDG_CACHE_HOME", dir)
		}
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	if err := os.MkdirAll("/run/netns", 0o755); err != nil {
		return fmt.Errorf("make /run/netns: %w", err)
	}
	for target, text := range map[string]string{
		"/etc/resolv.conf": "nameserver " + dnsServiceIP + "\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n",
		"/etc/hosts":       "127.0.0.1 localhost\n" + node1IP + " node1\n" + node2IP + " node2\n",
	} {
		if err := c.cover(target, text); err != nil {
			return err
		}
	}
	return syscall.Sethostname([]byte("node1"))
}

// cover puts a file with other contents over target, for the processes of the namespace.
func (c *Cluster) cover(target, text string) error {
	name := c.run("cover-" + strings.ReplaceAll(strings.Trim(target, "/"), "/", "-"))
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil { // read by Pods of any user
		return fmt.Errorf("cover %s: %w", target, err)
	}
	if err := syscall.Mount(name, target, "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("cover %s: %w", target, err)
	}
	return nil
}

// sysctls covers the settings of the whole machine that a kubelet insists on, with the values that it wants, so that it does not change them.
func (c *Cluster) sysctls() error {
	for name, value := range map[string]string{
		"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
		"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
	} {
		if err := c.cover("/proc/sys/"+name, value+"\n"); err != nil {
			return err
		}
	}
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o600)
}

// network makes the network of the nodes, a bridge on node 1, with node 2 and a client machine in namespaces of their own behind it.
func (c *Cluster) network() error {
	script := `
link set lo up
link add node0 type bridge
link set node0 address 02:00:00:00:00:01
addr add NODE1/24 dev node0
link set node0 up
route add default dev node0
netns add node2
link add n2 type veth peer name eth0 netns node2
link set n2 master node0 up
-n node2 link set lo up
-n node2 addr add NODE2/24 dev eth0
-n node2 link set eth0 up
-n node2 route add default via NODE1
netns add client
link add cl type veth peer name eth0 netns client
link set cl master node0 up
-n client link set lo up
-n client addr add CLIENT/24 dev eth0
-n client link set eth0 up
-n client route add default via NODE1
route add 10.244.1.0/24 via NODE2
-n node2 route add 10.244.0.0/24 via NODE1
`
	script = strings.NewReplacer("NODE1", node1IP, "NODE2", node2IP, "CLIENT", clientIP).Replace(script)
	for line := range strings.Lines(strings.TrimSpace(script)) {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", strings.TrimSpace(line), err, out)
		}
	}
	out, err := exec.Command("nsenter", "--net=/run/netns/node2", "sysctl", "-qw", "net.ipv4.ip_forward=1").CombinedOutput()
	if err != nil {
		return fmt.Errorf("forward on node 2: %w: %s", err, out)
	}
	return nil
}

// removeCgroups removes the groups that the nodes made; they are empty once every process has ended.
func (c *Cluster) removeCgroups() error {
	var errs []error
	for _, root := range []string{"/sys/fs/cgroup/*/", "/sys/fs/cgroup/"} {
		tops, err := filepath.Glob(root + c.cgroupPrefix() + "*")
		errs = append(errs, err)
		for _, top := range tops {
			errs = append(errs, removeCgroup(top))
		}
	}
	return errors.Join(errs...)
}

func removeCgroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeCgroup(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("remove cgroup %s: %w", dir, err)
	}
	return nil
}
