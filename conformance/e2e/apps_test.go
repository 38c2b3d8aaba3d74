package e2e_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/conformance/cluster"
)

// scales has an application grow from one pod to ten and shrink again.
func (f *field) scales(t *testing.T) {
	sizes := []int{1, 10}
	f.underLoad(t, fmt.Sprintf("an application is scaled 1→10→1, %d times", count(10)), func() {
		for range count(10) {
			for _, n := range append(sizes, 1) {
				scale(t, n)
			}
		}
	})
	scale(t, 3)
}

// scale waits until there are as many pods as were asked for, and all of them serve.
func scale(t *testing.T, n int) {
	t.Helper()
	must(t, "", "kubectl", "scale", "-n", space, "deployment/app", fmt.Sprintf("--replicas=%d", n))
	must(t, "", "kubectl", "rollout", "status", "-n", space, "deployment/app", "--timeout=120s")
	eventually(t, 2*time.Minute, func() error {
		if have := len(pods(t, space, "app=app")); have != n {
			return fmt.Errorf("there are %d pods, want %d", have, n)
		}
		return nil
	})
}

// drains empties a node, of the application and of Fairlead alike, and lets them come back.
func (f *field) drains(t *testing.T) {
	n := count(10)
	f.underLoad(t, fmt.Sprintf("a node is drained, %d times", n), func() {
		for range n {
			must(t, "", "kubectl", "drain", "node2", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=180s")
			f.settled(t)
			must(t, "", "kubectl", "rollout", "status", "-n", space, "deployment/app", "--timeout=120s")
			must(t, "", "kubectl", "uncordon", "node2")
			must(t, "", "kubectl", "rollout", "restart", "-n", cluster.Namespace, "deployment/"+cluster.Release)
			must(t, "", "kubectl", "rollout", "restart", "-n", space, "deployment/app", "deployment/plain")
			must(t, "", "kubectl", "rollout", "status", "-n", space, "deployment/app", "--timeout=120s")
			f.settled(t)
		}
	})
}

// applicationKilled has pods of the application die without a word.
func (f *field) applicationKilled(t *testing.T) {
	f.inTurn(t, "a pod of the application is killed", max(2, count(20)), func(victim replica) time.Time {
		kill(t, victim, "/app", syscall.SIGKILL)
		dead := time.Now()
		time.Sleep(4 * time.Second)
		return dead
	})
}

// applicationHangs has the process of a pod stop, which goes on taking connections and never answers, until its probe has failed for a while; then it goes on with what
// it has been sent.
func (f *field) applicationHangs(t *testing.T) {
	f.inTurn(t, "a pod of the application hangs", max(2, count(20)), func(victim replica) time.Time {
		out := f.awaitSlice(t, victim.ip, false)
		kill(t, victim, "/app", syscall.SIGSTOP)
		defer kill(t, victim, "/app", syscall.SIGCONT)
		if at := <-out; at.IsZero() {
			t.Errorf("the EndpointSlice never said that %s is not ready", victim.name)
		}
		time.Sleep(4 * time.Second)
		return time.Time{}
	})
}

// inTurn does something to one pod of the application after the other, while clients send requests that take a while: behind a rule with time limits and retries, and behind
// an Ingress that says nothing. No GET may fail, and a POST only where the application had received it. do returns when the pod died, or the zero time if it lives.
func (f *field) inTurn(t *testing.T, what string, times int, do func(replica) time.Time) {
	t.Helper()
	hosts := map[string]string{"Ingress": f.ingress + ":80 ingress.e2e.test", "HTTPRoute with retry": f.gateway + ":80 patient.e2e.test"}
	loads := map[string]*load{}
	for way, where := range hosts {
		address, host, _ := strings.Cut(where, " ")
		loads[way] = startLoad(t, 12, client{address: address, host: host, path: "/delay/100ms"}, nil)
	}
	time.Sleep(time.Second)
	var deaths []time.Time
	received := map[string]bool{}
	for i := range times {
		victim := pods(t, space, "app=app")[i%3]
		deaths = append(deaths, do(victim))
		f.threeReady(t)
		if !deaths[i].IsZero() {
			// A new pod instead of the one that died: Kubernetes waits longer and longer before it starts a container again.
			f.received(t, victim, received)
			must(t, "", "kubectl", "delete", "pod", "-n", space, victim.name)
			f.threeReady(t)
		}
	}
	time.Sleep(time.Second)
	for _, l := range loads {
		l.stop()
	}
	for _, pod := range pods(t, space, "app=app") {
		f.received(t, pod, received)
	}
	for way, l := range loads {
		l.judge(t, fmt.Sprintf("%s, %d times: %s", what, times, way), received, deaths)
	}
}

// threeReady waits until three pods of the application are ready, and no other is left.
func (f *field) threeReady(t *testing.T) {
	t.Helper()
	eventually(t, time.Minute, func() error {
		if n := must(t, "", "kubectl", "get", "-n", space, "deployment/app", "-o", "jsonpath={.status.readyReplicas}"); n != "3" {
			return fmt.Errorf("%s of 3 pods are ready", n)
		}
		if n := len(pods(t, space, "app=app")); n != 3 {
			return fmt.Errorf("there are %d pods, want 3", n)
		}
		return nil
	})
}

// received adds the numbers of all requests that a pod of the application wrote down.
func (f *field) received(t *testing.T, pod replica, to map[string]bool) {
	t.Helper()
	res, err := http.Get("http://" + pod.ip + ":8081/numbers")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(res.Body)
	if err = errors.Join(err, res.Body.Close()); err != nil {
		t.Fatal(err)
	}
	for number := range strings.FieldsSeq(string(text)) {
		to[number] = true
	}
}

// dying is how long a process may take to die, and a proxy to hear of it.
const dying = 100 * time.Millisecond

// judge reports which requests failed, and complains about every GET and about every POST that no application has received. What is sent to a process while it dies its
// machine has received, and nobody writes down; nobody can tell it from the rest.
func (l *load) judge(t *testing.T, what string, received map[string]bool, deaths []time.Time) {
	t.Helper()
	gets, known, dead, unknown := 0, 0, 0, 0
	for _, x := range l.failed {
		switch {
		case x.method == "GET":
			gets++
		case received[x.number]:
			known++
			continue
		case slices.ContainsFunc(deaths, func(at time.Time) bool { return x.at.Sub(at).Abs() < dying }):
			dead++
			continue
		default:
			unknown++
		}
		t.Errorf("%s: a %s failed after %.2f s: %s", what, x.method, x.at.Sub(l.begun).Seconds(), x.text)
	}
	figure(t, "%s: %d requests in %.0f s, failed: %d GETs, %d POSTs that were not received, %d that were, %d that were sent to a process while it died",
		what, l.requests, time.Since(l.begun).Seconds(), gets, unknown, known, dead)
	if l.requests < 100 || len(received) < 50 {
		t.Errorf("only %d requests were sent, and %d received: this says nothing", l.requests, len(received))
	}
}
