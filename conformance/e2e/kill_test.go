package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/conformance/cluster"
)

// kills has a replica die without a word, the leader and another in turn, and at the same moment a pod of an application behind a plain Service on the same node. What was
// on the replica fails; new connections may fail no longer than those to the plain Service.
//
// How long that is has little to do with either of them: a kubelet looks once a second who has died, and kube-proxy acts some time after it was told. So the two are made
// equal (the application has the probes of the chart, and starts at once), a pair is found dead in the same look of the same kubelet, there are several pairs, and the
// medians are compared. The plain Service's own outages differ from each other by more than what is looked for; how much is measured here, and that is the tolerance.
func (f *field) kills(t *testing.T) {
	var ours, theirs []time.Duration
	for i := range max(3, count(20)) {
		leader := f.leader(t)
		replicas := f.replicas(t)
		victim := replicas[slices.IndexFunc(replicas, func(r replica) bool { return (r.name == leader) == (i%2 == 0) })]
		neighbour := f.neighbour(t, victim)
		a, b := f.killOnce(t, victim, neighbour, victim.name == leader)
		ours, theirs = append(ours, a), append(theirs, b)
		// New pods instead of those that were killed: Kubernetes waits longer and longer before it starts a container again.
		must(t, "", "kubectl", "delete", "pod", "-n", cluster.Namespace, victim.name)
		must(t, "", "kubectl", "delete", "pod", "-n", space, neighbour.name)
		f.settled(t)
		must(t, "", "kubectl", "rollout", "status", "-n", space, "deployment/plain", "--timeout=60s")
	}
	tolerance := max(slices.Max(theirs)-slices.Min(theirs), leastTolerance)
	figure(t, "a replica is killed, %d times: new connections failed for at most %d ms (median %d), those to a plain Service beside it for at most %d ms (median %d); "+
		"the medians may differ by %d ms: what those of the plain Service differ by, and at least %d",
		len(ours), slices.Max(ours).Milliseconds(), percentile(ours, 50).Milliseconds(), slices.Max(theirs).Milliseconds(), percentile(theirs, 50).Milliseconds(),
		tolerance.Milliseconds(), leastTolerance.Milliseconds())
	if percentile(ours, 50) > percentile(theirs, 50)+tolerance {
		t.Errorf("new connections failed for %s, those to a plain Service for %s; the medians differ by more than %s", ours, theirs, tolerance)
	}
}

// leastTolerance is for the case that the few outages of the plain Service happen to be alike. It is the grain of what is measured: a kubelet looks once a second, and
// kube-proxy acts at most once a second, so that a little less or more work at the start (50 ms of processor time for Fairlead, next to nothing for the application) makes
// a step of that size on busy processors.
const leastTolerance = time.Second

// neighbour returns a pod of the plain application on the node of a replica. If chance has put them all on the other node they are placed anew.
func (f *field) neighbour(t *testing.T, victim replica) replica {
	t.Helper()
	for range 5 {
		for _, p := range pods(t, space, "app=plain") {
			if p.node == victim.node {
				return p
			}
		}
		must(t, "", "kubectl", "rollout", "restart", "-n", space, "deployment/plain")
		must(t, "", "kubectl", "rollout", "status", "-n", space, "deployment/plain", "--timeout=60s")
	}
	t.Fatalf("no pod of the plain application gets onto %s", victim.node)
	return replica{}
}

// killOnce returns for how long new connections to Fairlead and to the plain Service failed. Nothing may fail that was on the other replica.
func (f *field) killOnce(t *testing.T, victim, neighbour replica, leads bool) (ours, theirs time.Duration) {
	t.Helper()
	a := loadOn(t, 8, f.ingress+":80", "ingress.e2e.test", nil, nil)
	b := loadOn(t, 8, f.plain+":80", "plain", nil, nil)
	time.Sleep(time.Second)
	begun := time.Now()
	kill(t, victim, "/fairlead", syscall.SIGKILL)
	kill(t, neighbour, "/app", syscall.SIGKILL)
	if leads {
		f.statusResumes(t, begun)
	}
	time.Sleep(8 * time.Second)
	a.stop()
	b.stop()
	lost := 0
	for _, x := range a.failed {
		if x.status != 0 {
			t.Errorf("a request was answered with %s, though an application was there", x.text)
		}
		if x.reused {
			lost++
		}
		if x.reused && x.through != victim.ip {
			t.Errorf("a %s failed on a connection to %s, which nobody killed: %s", x.method, x.through, x.text)
		}
	}
	ours, theirs = a.outage(begun), b.outage(begun)
	t.Logf("killed %s on %s (leader: %v): %d of %d requests failed, %d of them on used connections, new ones for %s; plain Service: %d of %d, for %s",
		victim.name, victim.node, leads, len(a.failed), a.requests, lost, ours, len(b.failed), b.requests, theirs)
	if lost > 4 { // each of the four clients that keep their connections had one
		t.Errorf("%d requests failed on used connections: more than were on the replica", lost)
	}
	return ours, theirs
}

// outage is how long after begun the last new connection failed.
func (l *load) outage(begun time.Time) time.Duration {
	var last time.Duration
	for _, x := range l.failed {
		if !x.reused {
			last = max(last, x.at.Sub(begun))
		}
	}
	return last
}

// statusResumes makes an Ingress and waits until another leader has written its status.
func (f *field) statusResumes(t *testing.T, begun time.Time) {
	t.Helper()
	name := fmt.Sprintf("status-%d", begun.Unix())
	must(t, strings.ReplaceAll(ingresses("status", 0, 1), "status-0,", name+","), "kubectl", "create", "-f", "-")
	defer must(t, "", "kubectl", "delete", "ingress", "-n", space, name, "--wait=false")
	eventually(t, 40*time.Second, func() error {
		if got := must(t, "", "kubectl", "get", "ingress", "-n", space, name, "-o", "jsonpath={.status.loadBalancer.ingress[*].ip}"); got != f.ingress {
			return fmt.Errorf("the status has the address %q", got)
		}
		return nil
	})
	took := time.Since(begun)
	figure(t, "the leader is killed: status is written again after %.1f s", took.Seconds())
	if took > 20*time.Second {
		t.Errorf("status was written again after %s, want 20 s at most", took)
	}
}

// kill sends a signal to the process of a pod that runs this program.
func kill(t *testing.T, pod replica, name string, signal syscall.Signal) {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range names {
		group, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(group, []byte(pod.uid)) {
			continue
		}
		line, err := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
		if err != nil || string(bytes.Split(line, []byte{0})[0]) != name {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, signal); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("no process of %s runs %s", pod.name, name)
}
