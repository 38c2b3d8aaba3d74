package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// node is a machine of the cluster: a network namespace with a containerd, a kubelet and a kube-proxy.
type node struct {
	name, ip, pods string
	enter          []string // the command line that enters its network namespace
}

var (
	node1 = node{"node1", node1IP, "10.244.0.0/24", nil}
	// ip netns exec would hide the control groups, so nsenter it is.
	node2 = node{"node2", node2IP, "10.244.1.0/24", []string{"nsenter", "--net=/run/netns/node2", "--"}}
)

// cgroup is the node's control group. Its name tells the clusters of one machine apart.
func (c *Cluster) cgroup(n node) string { return "/" + c.cgroupPrefix() + n.name }

func (c *Cluster) cgroupPrefix() string { return "fairlead-" + digest([]byte(c.State))[:8] + "-" }

func (c *Cluster) startNode(ctx context.Context, n node) error {
	if err := makeCgroups(c.cgroup(n)); err != nil {
		return err
	}
	if err := c.writeNodeFiles(n); err != nil {
		return err
	}
	if err := c.startContainerd(ctx, n); err != nil {
		return err
	}
	if err := c.importImages(ctx, n); err != nil {
		return err
	}
	kubelet, err := c.start("kubelet-"+n.name, n.enter, "kubelet", "--config="+c.run(n.name, "kubelet.yaml"), "--kubeconfig="+c.run("pki", n.name+".kubeconfig"),
		"--root-dir="+c.run(n.name, "kubelet"), "--cert-dir="+c.run(n.name, "kubelet", "pki"), "--hostname-override="+n.name, "--node-ip="+n.ip)
	if err != nil {
		return err
	}
	proxy, err := c.start("kube-proxy-"+n.name, n.enter, "kube-proxy", "--config="+c.run(n.name, "proxy.yaml"))
	if err != nil {
		return err
	}
	if err := kubelet.until(ctx, func() error { return c.kubectl(ctx, "wait", "node/"+n.name, "--for=condition=Ready", "--timeout=1s") }); err != nil {
		return err
	}
	return proxy.until(ctx, func() error { return httpGet(plain, "http://"+n.ip+":10256/healthz") })
}

// makeCgroups makes a node's control group, in every hierarchy of version 1, or in the one of version 2.
func makeCgroups(group string) error {
	const root = "/sys/fs/cgroup"
	if _, err := os.Stat(root + "/cgroup.controllers"); err == nil {
		return os.MkdirAll(root+group, 0o755)
	}
	hierarchies, err := os.ReadDir(root)
	if err != nil {
		return fmt.Errorf("make control groups: %w", err)
	}
	for _, h := range hierarchies {
		dir := filepath.Join(root, h.Name(), group)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make control groups: %w", err)
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // empty in a new group, and nothing may run in it then
			value, err := os.ReadFile(filepath.Join(root, h.Name(), file))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err = errors.Join(err, os.WriteFile(filepath.Join(dir, file), value, 0o600)); err != nil {
				return fmt.Errorf("make control groups: %w", err)
			}
		}
	}
	return nil
}

func (c *Cluster) writeNodeFiles(n node) error {
	version := "false"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		version = "true"
	}
	fill := strings.NewReplacer("@BIN@", c.Bin, "@DIR@", c.run(n.name), "@PKI@", c.run("pki"), "@IP@", n.ip, "@NAME@", n.name, "@PODS@", n.pods, "@CGROUP@", c.cgroup(n),
		"@DNS@", dnsServiceIP, "@PODNETWORK@", podNetwork, "@FAILV1@", version)
	for name, text := range map[string]string{
		"net.d/10-bridge.conflist": bridgeConfig, "containerd.toml": containerdConfig, "kubelet.yaml": kubeletConfig, "proxy.yaml": proxyConfig,
		"resolv.conf": "nameserver @DNS@\n",
	} {
		file := c.run(n.name, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return fmt.Errorf("configure %s: %w", n.name, err)
		}
		if err := os.WriteFile(file, []byte(fill.Replace(text)), 0o600); err != nil {
			return fmt.Errorf("configure %s: %w", n.name, err)
		}
	}
	return nil
}

const bridgeConfig = `{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni-@NAME@", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "@DIR@/ipam", "ranges": [[{"subnet": "@PODS@"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
`

// containerdConfig: without CAP_SYS_RESOURCE runc may not lower oom_score_adj, and every sandbox would fail.
const containerdConfig = `version = 3
root = "@DIR@/containerd/root"
state = "@DIR@/containerd/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs", "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing", "io.containerd.nri.v1.nri"]
[grpc]
  address = "@DIR@/containerd.sock"
[ttrpc]
  address = "@DIR@/containerd.ttrpc"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "` + pauseImage + `"
[plugins.'io.containerd.cri.v1.runtime']
  disable_apparmor = true
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["@BIN@/cni"]
  conf_dir = "@DIR@/net.d"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = "@BIN@/runc"
  SystemdCgroup = false
`

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: @FAILV1@
cgroupDriver: cgroupfs
cgroupRoot: @CGROUP@
containerRuntimeEndpoint: unix://@DIR@/containerd.sock
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
address: @IP@
healthzBindAddress: @IP@
failSwapOn: false
clusterDomain: cluster.local
clusterDNS: ["@DNS@"]
resolvConf: @DIR@/resolv.conf
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: "100Mi", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%"}
podLogsDir: @DIR@/podlogs
volumePluginDir: @DIR@/volumeplugins
nodeStatusUpdateFrequency: 5s
syncFrequency: 10s
registerNode: true
`

const proxyConfig = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: @NAME@
clientConnection: {kubeconfig: "@PKI@/proxy.kubeconfig"}
clusterCIDR: @PODNETWORK@
conntrack: {maxPerCore: 0}
bindAddress: @IP@
healthzBindAddress: "@IP@:10256"
metricsBindAddress: "@IP@:10249"
`

func (c *Cluster) startContainerd(ctx context.Context, n node) error {
	p, err := c.start("containerd-"+n.name, n.enter, "containerd", "-c", c.run(n.name, "containerd.toml"))
	if err != nil {
		return err
	}
	return p.until(ctx, func() error { return c.ctr(ctx, n, "version") })
}

// ctr runs containerd's own client.
func (c *Cluster) ctr(ctx context.Context, n node, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(c.Bin, "ctr"), append([]string{"-a", c.run(n.name, "containerd.sock"), "-n", "k8s.io"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ctr %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// importImages gives a node the images that were packed, since there is no registry to pull from.
func (c *Cluster) importImages(ctx context.Context, n node) error {
	archives, err := filepath.Glob(filepath.Join(c.State, "images", "*.tar"))
	if err != nil {
		return fmt.Errorf("find images: %w", err)
	}
	for _, a := range archives {
		if err := c.ctr(ctx, n, "images", "import", a); err != nil {
			return err
		}
	}
	return nil
}
