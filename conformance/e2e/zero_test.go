package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/conformance/cluster"
)

// underLoad does something while clients send requests along four ways, of which none may fail.
func (f *field) underLoad(t *testing.T, what string, do func()) {
	t.Helper()
	loads := map[string]*load{
		"Ingress":          loadOn(t, 4, f.ingress+":80", "ingress.e2e.test", nil, nil),
		"Ingress, HTTPS":   loadOn(t, 2, f.ingress+":443", "secure.e2e.test", trust("secure.e2e.test"), nil),
		"HTTPRoute":        loadOn(t, 4, f.gateway+":80", "route.e2e.test", nil, nil),
		"HTTPRoute, HTTPS": loadOn(t, 2, f.gateway+":443", "route.e2e.test", trust("route.e2e.test"), nil),
	}
	time.Sleep(time.Second)
	do()
	time.Sleep(time.Second)
	for _, l := range loads {
		l.stop()
	}
	for _, way := range []string{"Ingress", "Ingress, HTTPS", "HTTPRoute", "HTTPRoute, HTTPS"} {
		loads[way].end(t, what+": "+way)
	}
}

// rolls is an application with three replicas that is updated again and again.
func (f *field) rolls(t *testing.T) {
	n := count(50)
	f.underLoad(t, fmt.Sprintf("%d rolling updates of an application with 3 replicas", n), func() {
		for range n {
			must(t, "", "kubectl", "rollout", "restart", "-n", space, "deployment/app")
			must(t, "", "kubectl", "rollout", "status", "-n", space, "deployment/app", "--timeout=120s")
		}
	})
}

// restarts is Fairlead itself, with two replicas: an upgrade with other values, and a plain restart.
func (f *field) restarts(t *testing.T) {
	args, err := f.cluster.HelmArgs(*checkout)
	if err != nil {
		t.Fatal(err)
	}
	f.underLoad(t, "helm upgrade with another value", func() {
		must(t, "", "helm", append([]string{"upgrade"}, append(args, "--set=podAnnotations.again=yes")...)...)
		f.settled(t)
	})
	n := count(20)
	f.underLoad(t, fmt.Sprintf("%d rolling restarts of Fairlead with 2 replicas", n), func() {
		for range n {
			must(t, "", "kubectl", "rollout", "restart", "-n", cluster.Namespace, "deployment/"+cluster.Release)
			f.settled(t)
		}
	})
}

// settled waits until a rollout of Fairlead is over and the pods that it replaced are gone.
func (f *field) settled(t *testing.T) {
	t.Helper()
	must(t, "", "kubectl", "rollout", "status", "-n", cluster.Namespace, "deployment/"+cluster.Release, "--timeout=180s")
	eventually(t, 2*time.Minute, func() error {
		if pods := f.replicas(t); len(pods) != 2 {
			return fmt.Errorf("there are %d pods, want 2", len(pods))
		}
		return nil
	})
}

// replica is a pod of Fairlead.
type replica struct{ name, uid, ip, node string }

func (f *field) replicas(t *testing.T) []replica {
	t.Helper()
	return pods(t, cluster.Namespace, "app.kubernetes.io/instance="+cluster.Release)
}

func pods(t *testing.T, ns, selector string) []replica {
	t.Helper()
	text := must(t, "", "kubectl", "get", "pods", "-n", ns, "-l", selector, "-o",
		`jsonpath={range .items[*]}{.metadata.name} {.metadata.uid} {.status.podIP} {.spec.nodeName}{"\n"}{end}`)
	var out []replica
	for line := range strings.Lines(text) {
		if words := strings.Fields(line); len(words) == 4 {
			out = append(out, replica{words[0], words[1], words[2], words[3]})
		}
	}
	return out
}

// part stops or starts a part of the control plane.
func (f *field) part(t *testing.T, what, name string) {
	t.Helper()
	must(t, "", "nsenter", "--net=/proc/1/ns/net", "--", *program, what, "--bin="+*bin, "--state="+*state, name)
}

// ready complains unless a replica says that it is ready.
func ready(r replica) error {
	client := http.Client{Timeout: 2 * time.Second}
	res, err := client.Get("http://" + r.ip + ":9000/readyz")
	if err != nil {
		return err
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("/readyz of %s: %s", r.name, res.Status)
	}
	return nil
}

// withoutAPIServer stops the API server for a while.
func (f *field) withoutAPIServer(t *testing.T) {
	away := time.Duration(count(60)) * time.Second
	f.away(t, "kube-apiserver", "the API server", away)
}

// withoutEtcd stops etcd for a while.
func (f *field) withoutEtcd(t *testing.T) {
	f.away(t, "etcd", "etcd", time.Duration(count(60))*time.Second)
}

func (f *field) away(t *testing.T, part, name string, away time.Duration) {
	t.Helper()
	replicas := f.replicas(t)
	f.underLoad(t, fmt.Sprintf("%s is killed, and started again after %.0f s", name, away.Seconds()), func() {
		f.part(t, "stop-part", part)
		for end := time.Now().Add(away); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
			for _, r := range replicas {
				if err := ready(r); err != nil {
					t.Errorf("while %s was away: %v", name, err)
				}
			}
		}
		f.part(t, "start-part", part)
		f.follows(t, name)
		time.Sleep(10 * time.Second) // controllers that were cut off act on what they missed
	})
}

// follows complains unless a change is served by every replica again.
func (f *field) follows(t *testing.T, after string) {
	t.Helper()
	begun := time.Now()
	eventually(t, time.Minute, func() error {
		_, err := try(t.Context(), ingresses("again", 0, 1), "kubectl", "apply", "--server-side", "-f", "-")
		return err
	})
	defer must(t, "", "kubectl", "delete", "ingress", "-n", space, "-l", "e2e=again", "--wait=false")
	for _, r := range f.replicas(t) {
		eventually(t, time.Minute, func() error { return answersAt(t, r.ip+":8080", hostOf("again", 0), nil) })
	}
	figure(t, "%s is back: a new Ingress is served by both replicas after %.1f s", after, time.Since(begun).Seconds())
}

// churn makes and removes Ingresses that have nothing to do with the application.
func (f *field) churn(t *testing.T) {
	n := count(1000)
	f.underLoad(t, fmt.Sprintf("%d unrelated Ingresses created and deleted", n), func() {
		f.create(t, "churn", n)
		for _, r := range f.replicas(t) {
			eventually(t, time.Minute, func() error { return answersAt(t, r.ip+":8080", hostOf("churn", n-1), nil) })
		}
		must(t, "", "kubectl", "delete", "ingress", "-n", space, "-l", "e2e=churn", "--wait=false")
	})
}

func hostOf(label string, i int) string { return fmt.Sprintf("%s-%d.e2e.test", label, i) }

// ingresses are so many Ingresses to the application, each with a host of its own.
func ingresses(label string, from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, `---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: %[1]s-%[2]d, namespace: e2e, labels: {e2e: %[1]s}}
spec:
  ingressClassName: fairlead
  rules: [{host: %[3]s, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: app, port: {number: 80}}}}]}}]
`, label, i, hostOf(label, i))
	}
	return b.String()
}

// create makes Ingresses, several at a time.
func (f *field) create(t *testing.T, label string, n int) {
	t.Helper()
	const batch = 250
	for from := 0; from < n; from += batch {
		must(t, ingresses(label, from, min(n, from+batch)), "kubectl", "create", "-f", "-")
	}
}

// leader returns the pod that holds the Lease.
func (f *field) leader(t *testing.T) string {
	t.Helper()
	var lease struct {
		Spec struct {
			HolderIdentity string `json:"holderIdentity"`
		} `json:"spec"`
	}
	text := must(t, "", "kubectl", "get", "lease", "-n", cluster.Namespace, "fairlead", "-o", "json")
	if err := json.Unmarshal([]byte(text), &lease); err != nil {
		t.Fatal(err)
	}
	name, _, _ := strings.Cut(lease.Spec.HolderIdentity, "_")
	return name
}
