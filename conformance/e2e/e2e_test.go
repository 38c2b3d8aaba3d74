// Package e2e_test shows on a real Kubernetes, with real Pods, that Fairlead does what it says: installed by its chart, it serves, tells so in statuses, and loses no
// request while everything around it rolls. The program runs inside of a test cluster, on a machine that is none of its nodes: see `cluster e2e`.
package e2e_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/fairlead-io/fairlead/conformance/cluster"
)

var (
	bin      = flag.String("bin", "", "the folder of the cluster's programs")
	state    = flag.String("state", "", "the folder of the cluster's files")
	checkout = flag.String("checkout", "", "the folder of the checkout whose chart and image are tested")
	program  = flag.String("program", "", "the program that stops and starts parts of the cluster")
	figures  = flag.String("figures", "", "append what was measured to this file")
	full     = flag.Bool("full", false, "the full counts instead of a tenth")
)

// field is where the steps take place.
type field struct {
	cluster *cluster.Cluster
	rest    *rest.Config
	client  *kubernetes.Clientset

	ingress string // the address of the chart's own Service
	gateway string // the address of the Gateway
	plain   string // the address of a Service of an application, with no Fairlead before it
}

// TestEndToEnd goes through the steps in order, since each begins with what those before it left. -test.run=TestEndToEnd/NAME does one of them, after install.
func TestEndToEnd(t *testing.T) {
	if *state == "" {
		t.Skip("this runs in a test cluster: make conformance")
	}
	f := newField(t)
	for _, step := range []struct {
		name string
		do   func(*field, *testing.T)
	}{
		{"serves what it is told", (*field).serves},
		{"shows its statuses", (*field).statuses},
		{"an unready application gets no requests", (*field).unready},
		{"a change is served", (*field).propagation},
		{"many routes at once", (*field).manyRoutes},
		{"the application rolls", (*field).rolls},
		{"the application is scaled", (*field).scales},
		{"pods of the application are killed", (*field).applicationKilled},
		{"pods of the application hang", (*field).applicationHangs},
		{"a node is drained", (*field).drains},
		{"Fairlead is upgraded and rolls", (*field).restarts},
		{"sessions stay where they are", (*field).sessions},
		{"a replica is killed", (*field).kills},
		{"the API server is away", (*field).withoutAPIServer},
		{"etcd is away", (*field).withoutEtcd},
		{"unrelated Ingresses come and go", (*field).churn},
		{"a cold start with many Ingresses", (*field).coldStart},
		{"certificates are ordered and renewed", (*field).certificates},
		{"ports of nodes lead to it", (*field).nodes},
		{"the rights are those that are used", (*field).rights},
		{"uninstall leaves nothing", (*field).uninstall},
	} {
		t.Run(step.name, func(t *testing.T) {
			begun := time.Now()
			step.do(f, t)
			t.Logf("%.1f s", time.Since(begun).Seconds())
		})
	}
}

func (f *field) String() string {
	return fmt.Sprintf("ingress %s, gateway %s, plain %s", f.ingress, f.gateway, f.plain)
}

// newField installs Fairlead and the applications, if they are not installed yet, and waits until everything has an address.
func newField(t *testing.T) *field {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		t.Fatal(err)
	}
	config.QPS, config.Burst = 1000, 2000
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	f := &field{cluster: &cluster.Cluster{Bin: *bin, State: *state}, rest: config, client: client}
	f.install(t)
	return f
}

// install is `helm install --wait`, and then what an application team brings.
func (f *field) install(t *testing.T) {
	t.Helper()
	begun := time.Now()
	if _, err := try(t.Context(), "", "helm", "status", cluster.Release, "-n", cluster.Namespace); err != nil {
		args, err := f.cluster.HelmArgs(*checkout)
		if err != nil {
			t.Fatal(err)
		}
		must(t, "", "helm", append([]string{"install", "--create-namespace"}, args...)...)
		figure(t, "helm install --wait, 2 replicas: %.1f s", time.Since(begun).Seconds())
		must(t, "", "helm", "test", cluster.Release, "-n", cluster.Namespace)
	}
	apply(t, applications(t))
	for _, d := range []string{"app", "plain"} {
		must(t, "", "kubectl", "rollout", "status", "-n", space, "deployment/"+d, "--timeout=120s")
	}
	f.ingress = f.address(t, cluster.Namespace, "service/"+cluster.Release, "{.status.loadBalancer.ingress[0].ip}")
	f.gateway = f.address(t, space, "gateway/web", "{.status.addresses[0].value}")
	f.plain = f.address(t, space, "service/plain", "{.status.loadBalancer.ingress[0].ip}")
}

func (f *field) address(t *testing.T, ns, what, path string) string {
	t.Helper()
	var got string
	eventually(t, time.Minute, func() error {
		got = must(t, "", "kubectl", "get", "-n", ns, what, "-o", "jsonpath="+path)
		if got == "" {
			return fmt.Errorf("%s has no address", what)
		}
		return nil
	})
	return got
}

// count returns a tenth of what the full run does, at least 1.
func count(all int) int {
	if *full {
		return all
	}
	return max(1, all/10)
}

// figure prints something that was measured, and keeps it.
func figure(t *testing.T, format string, args ...any) {
	t.Helper()
	line := fmt.Sprintf(format, args...)
	t.Log(line)
	if *figures == "" {
		return
	}
	out, err := os.OpenFile(*figures, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(out, "- %s\n", line)
	if err = errors.Join(err, out.Close()); err != nil {
		t.Fatal(err)
	}
}

// eventually asks until there is no complaint.
func eventually(t *testing.T, limit time.Duration, check func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s: %v", limit, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// try runs a program.
func try(ctx context.Context, stdin, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return string(out), nil
}

// must runs a program that has to succeed.
func must(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	out, err := try(t.Context(), stdin, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func apply(t *testing.T, manifests string) {
	t.Helper()
	must(t, manifests, "kubectl", "apply", "--server-side", "--force-conflicts", "-f", "-")
}
