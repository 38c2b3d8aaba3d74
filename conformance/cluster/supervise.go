package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Supervise starts etcd, the control plane and the nodes, in this order, waits for each, and says on standard output how far it is. It runs inside the namespaces.
// What it started goes on when it returns.
func (c *Cluster) Supervise(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	begun := time.Now()
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"etcd", c.startEtcd},
		{"API server", c.startAPIServer},
		{"controllers", c.startControllers},
		{"load balancer", c.startLoadBalancer},
		{"node1", func(ctx context.Context) error { return c.startNode(ctx, node1) }},
		{"node2", func(ctx context.Context) error { return c.startNode(ctx, node2) }},
		{"DNS", c.startDNS},
	} {
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("start %s: %w", step.name, err)
		}
		fmt.Printf("%5.1f s  %s is up\n", time.Since(begun).Seconds(), step.name)
	}
	return os.WriteFile(c.run("ready"), nil, 0o600)
}

// StopPart kills etcd or kube-apiserver, and StartPart starts it again and waits until it answers. Both run inside the namespaces of node 1.
func (c *Cluster) StopPart(name string) error {
	text, err := os.ReadFile(c.run(name + ".pid"))
	if err != nil {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	for err = syscall.Kill(pid, syscall.SIGKILL); err == nil; err = syscall.Kill(pid, 0) {
		time.Sleep(10 * time.Millisecond)
	}
	if !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	return nil
}

// StartPart starts what StopPart stopped.
func (c *Cluster) StartPart(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	switch name {
	case "etcd":
		return c.startEtcd(ctx)
	case "kube-apiserver":
		return c.startAPIServer(ctx)
	}
	return fmt.Errorf("start %q: want etcd or kube-apiserver", name)
}

// component is a process that was started, and where it writes.
type component struct {
	name, log string
	ended     chan struct{}
}

// start starts a program that goes on in the background. prefix, if any, is a command line to put before it.
func (c *Cluster) start(name string, prefix []string, program string, args ...string) (*component, error) {
	p := &component{name: name, log: c.logFile(name), ended: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }()
	line := slices.Concat(prefix, []string{filepath.Join(c.Bin, program)}, args)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = append(os.Environ(), "PATH="+c.Bin+":"+os.Getenv("PATH"))
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if err := os.WriteFile(c.run(name+".pid"), fmt.Append(nil, cmd.Process.Pid), 0o600); err != nil {
		return nil, err
	}
	go func() { _ = cmd.Wait(); close(p.ended) }()
	return p, nil
}

// until waits until check has no complaint, as long as the component lives.
func (p *component) until(ctx context.Context, check func() error) error {
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended; its log is %s:\n%s", p.name, p.log, tail(p.log))
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w; its log is %s:\n%s", p.name, err, p.log, tail(p.log))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// tail returns the last lines of a file.
func tail(name string) string {
	text, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

// plain asks programs of the cluster that need no certificate.
var plain = &http.Client{Timeout: 5 * time.Second}

// httpGet complains unless url answers 200.
func httpGet(client *http.Client, url string) error {
	res, err := client.Get(url)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	return nil
}

func (c *Cluster) startEtcd(ctx context.Context) error {
	p, err := c.start("etcd", nil, "etcd", "--data-dir="+c.run("etcd"), "--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380", "--unsafe-no-fsync", "--log-level=warn")
	if err != nil {
		return err
	}
	return p.until(ctx, func() error { return httpGet(plain, "http://127.0.0.1:2379/health") })
}

// AuditLog is the file in which the API server notes each request of a service account outside of kube-system, one JSON object a line.
func (c *Cluster) AuditLog() string { return c.logFile("audit") }

const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, userGroups: ["system:serviceaccounts:kube-system"]}
- {level: Metadata, userGroups: ["system:serviceaccounts"]}
`

func (c *Cluster) startAPIServer(ctx context.Context) error {
	pki := c.run("pki")
	if err := os.WriteFile(c.run("audit.yaml"), []byte(auditPolicy), 0o600); err != nil {
		return err
	}
	p, err := c.start("kube-apiserver", nil, "kube-apiserver",
		"--etcd-servers=http://127.0.0.1:2379", "--service-cluster-ip-range="+serviceNetwork,
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file="+pki+"/sa.key", "--service-account-signing-key-file="+pki+"/sa.key",
		"--tls-cert-file="+pki+"/apiserver.crt", "--tls-private-key-file="+pki+"/apiserver.key", "--token-auth-file="+pki+"/tokens.csv",
		"--authorization-mode=Node,RBAC", "--advertise-address="+node1IP, "--allow-privileged=true", "--kubelet-preferred-address-types=InternalIP",
		"--audit-policy-file="+c.run("audit.yaml"), "--audit-log-path="+c.AuditLog())
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(pki + "/ca.crt")
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}
	return p.until(ctx, func() error { return httpGet(client, "https://"+node1IP+":6443/readyz") })
}

func (c *Cluster) startControllers(ctx context.Context) error {
	pki := c.run("pki")
	p, err := c.start("kube-controller-manager", nil, "kube-controller-manager",
		"--kubeconfig="+pki+"/controller-manager.kubeconfig", "--leader-elect=false", "--kube-api-qps=500", "--kube-api-burst=1000",
		"--service-account-private-key-file="+pki+"/sa.key", "--root-ca-file="+pki+"/ca.crt", "--use-service-account-credentials=true",
		"--flex-volume-plugin-dir="+c.run("flex"), "--allocate-node-cidrs=true", "--cluster-cidr="+podNetwork, "--service-cluster-ip-range="+serviceNetwork)
	if err != nil {
		return err
	}
	if _, err := c.start("kube-scheduler", nil, "kube-scheduler", "--kubeconfig="+pki+"/scheduler.kubeconfig", "--leader-elect=false", "--kube-api-qps=500", "--kube-api-burst=1000"); err != nil {
		return err
	}
	return p.until(ctx, func() error { return c.kubectl(ctx, "-n", "default", "get", "serviceaccount", "default") })
}

func (c *Cluster) startLoadBalancer(context.Context) error {
	_, err := c.start("loadbalancer", nil, "loadbalancer", "--kubeconfig="+c.Kubeconfig(), "--pool="+balancerNetwork)
	return err
}

// kubectl runs kubectl inside the namespaces, for Supervise.
func (c *Cluster) kubectl(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(c.Bin, "kubectl"), append([]string{"--kubeconfig", c.Kubeconfig()}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}
