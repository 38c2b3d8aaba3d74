package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/fairlead-io/fairlead/conformance/cluster"
)

// unready has a pod fail its probe while it goes on answering, and sees how long it still gets requests after its EndpointSlice said so.
func (f *field) unready(t *testing.T) {
	var late []time.Duration
	for range count(20) {
		late = append(late, f.unreadyOnce(t))
	}
	figure(t, "an application turns unready, %d times: its last request came at most %d ms after the EndpointSlice changed", len(late), slices.Max(late).Milliseconds())
	if slices.Max(late) > time.Second {
		t.Errorf("want at most 1 s, got %v", late)
	}
}

func (f *field) unreadyOnce(t *testing.T) time.Duration {
	t.Helper()
	pod := pods(t, space, "app=app")[0]
	changed := f.awaitSlice(t, pod.ip, false)
	var mu sync.Mutex
	last := map[string]time.Time{}
	l := loadOn(t, 8, f.ingress+":80", "ingress.e2e.test", nil, func(at time.Time, a answer) {
		mu.Lock()
		defer mu.Unlock()
		last[a.pod] = at
	})
	time.Sleep(500 * time.Millisecond)
	post(t, pod, "/unready")
	at := <-changed
	time.Sleep(2 * time.Second)
	l.stop()
	back := f.awaitSlice(t, pod.ip, true)
	post(t, pod, "/ready")
	<-back
	if len(l.failed) > 0 {
		t.Errorf("requests failed: %v", l.failed[0].text)
	}
	mu.Lock()
	defer mu.Unlock()
	if last[pod.name].IsZero() {
		t.Fatalf("%s got no request at all", pod.name)
	}
	return max(0, last[pod.name].Sub(at)) // replicas may hear of it sooner than this test
}

// awaitSlice tells when the endpoint with this address becomes what is waited for.
func (f *field) awaitSlice(t *testing.T, ip string, wantReady bool) <-chan time.Time {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	events, err := f.client.DiscoveryV1().EndpointSlices(space).Watch(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=app"})
	if err != nil {
		t.Fatal(err)
	}
	when := make(chan time.Time, 1)
	go func() {
		defer events.Stop()
		for e := range events.ResultChan() {
			if slice, ok := e.Object.(*discoveryv1.EndpointSlice); ok && e.Type != watch.Deleted && hasEndpoint(slice, ip, wantReady) {
				when <- time.Now()
				return
			}
		}
		close(when)
	}()
	return when
}

func hasEndpoint(slice *discoveryv1.EndpointSlice, ip string, wantReady bool) bool {
	return slices.ContainsFunc(slice.Endpoints, func(e discoveryv1.Endpoint) bool {
		return slices.Contains(e.Addresses, ip) && e.Conditions.Ready != nil && *e.Conditions.Ready == wantReady
	})
}

func post(t *testing.T, pod replica, path string) {
	t.Helper()
	res, err := http.Post("http://"+pod.ip+":8081"+path, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
}

// propagation measures how long it takes from sending a change to the API server until each replica serves it.
func (f *field) propagation(t *testing.T) {
	n := count(200)
	replicas := f.replicas(t)
	bind := must(t, "", "kubectl", "get", "services", "-n", cluster.Namespace, "-l", "gateway.networking.k8s.io/gateway-name=web", "-o", `jsonpath={.items[0].spec.ports[?(@.name=="http")].targetPort}`)
	if bind == "" {
		bind = must(t, "", "kubectl", "get", "services", "-n", cluster.Namespace, "-l", "gateway.networking.k8s.io/gateway-name=web", "-o", `jsonpath={.items[0].spec.ports[?(@.port==80)].targetPort}`)
	}
	var took []time.Duration
	for i := range n {
		version := fmt.Sprint("v", i)
		patch := `{"spec":{"rules":[{"backendRefs":[{"name":"app","port":80}],"filters":[{"type":"ResponseHeaderModifier","responseHeaderModifier":{"set":[{"name":"X-Version","value":"` + version + `"}]}}]}]}}`
		took = append(took, f.served(t, replicas, bind, "route.e2e.test", func(a answer) bool { return a.header.Get("X-Version") == version }, func() error {
			return f.client.RESTClient().Patch(types.MergePatchType).AbsPath("/apis/gateway.networking.k8s.io/v1/namespaces/" + space + "/httproutes/app").Body([]byte(patch)).Do(t.Context()).Error()
		})...)
	}
	report(t, "a change of an HTTPRoute", took)
	took = nil
	for i := range n {
		manifest := strings.TrimPrefix(ingresses("speed", i, i+1), "---\n")
		took = append(took, f.served(t, replicas, "8080", hostOf("speed", i), func(a answer) bool { return a.status == http.StatusOK }, func() error {
			return f.client.RESTClient().Post().AbsPath("/apis/networking.k8s.io/v1/namespaces/"+space+"/ingresses").SetHeader("Content-Type", "application/yaml").Body([]byte(manifest)).Do(t.Context()).Error()
		})...)
	}
	report(t, "a new Ingress", took)
	must(t, "", "kubectl", "delete", "ingress", "-n", space, "-l", "e2e=speed", "--wait=false")
}

func report(t *testing.T, what string, took []time.Duration) {
	t.Helper()
	figure(t, "%s, from the write to the API server until a replica serves it, %d times: p50 %d ms, p99 %d ms, at most %d ms", what, len(took),
		percentile(took, 50).Milliseconds(), percentile(took, 99).Milliseconds(), slices.Max(took).Milliseconds())
	if slices.Max(took) > 5*time.Second {
		t.Errorf("%s took %s", what, slices.Max(took))
	}
}

// served writes, and returns how long each replica took from then on.
func (f *field) served(t *testing.T, replicas []replica, port, host string, is func(answer) bool, write func() error) []time.Duration {
	t.Helper()
	took := make([]time.Duration, len(replicas))
	begun := time.Now()
	var wg sync.WaitGroup
	for i, r := range replicas {
		wg.Go(func() {
			c := &client{address: r.ip + ":" + port, host: host}
			defer c.close()
			for time.Since(begun) < 30*time.Second {
				a, err := c.do(t.Context(), "GET", "/", "", "")
				if err == nil && is(a) {
					took[i] = time.Since(begun)
					return
				}
				time.Sleep(time.Millisecond)
			}
			t.Errorf("%s never served the change", r.name)
		})
	}
	if err := write(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	return took
}

// coldStart has replicas start while many Ingresses are there: from the moment that one says it is ready, it has to serve all of them.
func (f *field) coldStart(t *testing.T) {
	n := count(2000)
	f.create(t, "cold", n)
	defer must(t, "", "kubectl", "delete", "ingress", "-n", space, "-l", "e2e=cold", "--wait=false")
	for range 2 {
		before := f.replicas(t)
		must(t, "", "kubectl", "delete", "pod", "-n", cluster.Namespace, before[0].name, "--wait=false")
		fresh := f.successor(t, before)
		begun := time.Now() // it has just been given an address
		for ready(fresh) != nil {
			if time.Since(begun) > time.Minute {
				t.Fatalf("%s does not become ready", fresh.name)
			}
			time.Sleep(5 * time.Millisecond)
		}
		took := time.Since(begun)
		if bad := f.unserved(t, fresh, n); len(bad) > 0 {
			t.Errorf("ready, and %d of %d Ingresses were not served, such as %s", len(bad), n, bad[0])
		}
		figure(t, "a cold start with %d Ingresses: ready %.1f s after the pod has an address, and all are served from then on", n, took.Seconds())
		f.settled(t)
	}
}

// successor waits for a pod that was not there before.
func (f *field) successor(t *testing.T, before []replica) replica {
	t.Helper()
	var fresh replica
	eventually(t, time.Minute, func() error {
		for _, r := range f.replicas(t) {
			if !slices.ContainsFunc(before, func(b replica) bool { return b.uid == r.uid }) {
				fresh = r
				return nil
			}
		}
		return fmt.Errorf("there is no new pod")
	})
	return fresh
}

// unserved returns what is wrong with each of so many hosts at one replica.
func (f *field) unserved(t *testing.T, r replica, n int) []string {
	t.Helper()
	const clients = 8
	var wg sync.WaitGroup
	var mu sync.Mutex
	var bad []string
	for i := range clients {
		wg.Go(func() {
			c := &client{address: r.ip + ":8080"}
			defer c.close()
			for j := i; j < n; j += clients {
				c.host = hostOf("cold", j)
				if a, err := c.do(t.Context(), "GET", "/", "", ""); err != nil || a.status != http.StatusOK {
					mu.Lock()
					bad = append(bad, fmt.Sprintf("%s: %v status %d", c.host, err, a.status))
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return bad
}
