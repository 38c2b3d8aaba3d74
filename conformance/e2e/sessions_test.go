package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/conformance/cluster"
)

const sessionManifest = `apiVersion: v1
kind: Service
metadata: {name: sticky, namespace: e2e, annotations: {fairlead.io/affinity: cookie}}
spec: {selector: {app: app}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: sticky, namespace: e2e}
spec:
  ingressClassName: fairlead
  rules:
  - host: sticky.e2e.test
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: sticky, port: {number: 80}}}}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: session, namespace: e2e}
spec:
  parentRefs: [{name: web, sectionName: http}]
  hostnames: [session.e2e.test]
  rules: [{backendRefs: [{name: app, port: 80}], sessionPersistence: {sessionName: basket, type: Cookie}}]
`

// sessions has clients with a session each send requests while Fairlead is restarted and the application grows: every one of them stays with its pod.
func (f *field) sessions(t *testing.T) {
	apply(t, sessionManifest)
	defer must(t, sessionManifest, "kubectl", "delete", "-f", "-")
	ways := []struct{ what, address, host string }{
		{"cookie affinity of a Service behind an Ingress", f.ingress + ":80", "sticky.e2e.test"},
		{"sessionPersistence of an HTTPRoute", f.gateway + ":80", "session.e2e.test"},
	}
	var all []*visitors
	for _, way := range ways {
		eventually(t, 30*time.Second, func() error { return answersAt(t, way.address, way.host, nil) })
		all = append(all, visit(t, 6, client{address: way.address, host: way.host}))
	}
	must(t, "", "kubectl", "rollout", "restart", "-n", cluster.Namespace, "deployment/"+cluster.Release)
	f.settled(t)
	scale(t, 6)
	time.Sleep(time.Second)
	for i, v := range all {
		v.end(t, ways[i].what)
	}
	scale(t, 3)
}

// visitors are clients with a session each. Half of them keep their connections.
type visitors struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	begun    time.Time
	requests int
	pods     map[string]bool // in which sessions are
	bad      []string        // what went wrong
}

// visit begins so many sessions and goes on with them.
func visit(t *testing.T, n int, like client) *visitors {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	v := &visitors{cancel: cancel, begun: time.Now(), pods: map[string]bool{}}
	for i := range n {
		c := like
		c.fresh = i%2 == 1
		first, err := c.do(t.Context(), "GET", "/", "", "")
		cookie, _, _ := strings.Cut(first.header.Get("Set-Cookie"), ";")
		if err != nil || first.status != http.StatusOK || cookie == "" {
			t.Errorf("the first request to %s: status %d, cookie %q, %v", c.host, first.status, cookie, err)
			continue
		}
		c.cookie = cookie
		v.pods[first.pod] = true
		v.wg.Go(func() { v.run(ctx, &c, first.pod) })
	}
	t.Cleanup(v.stop)
	return v
}

func (v *visitors) run(ctx context.Context, c *client, pod string) {
	defer c.close()
	for ctx.Err() == nil {
		a, err := c.do(context.WithoutCancel(ctx), "GET", "/", "", "")
		v.mu.Lock()
		v.requests++
		switch {
		case err != nil:
			v.bad = append(v.bad, err.Error())
		case a.status != http.StatusOK || a.pod != pod:
			v.bad = append(v.bad, fmt.Sprintf("status %d from %q, the session is in %s", a.status, a.pod, pod))
		}
		v.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (v *visitors) stop() { v.cancel(); v.wg.Wait() }

// end reports how often a session was left, which must be never.
func (v *visitors) end(t *testing.T, what string) {
	t.Helper()
	v.stop()
	figure(t, "Fairlead is restarted and the application grows from 3 pods to 6: %s: %d requests in %.0f s with sessions in %d pods, %d left their pod or failed",
		what, v.requests, time.Since(v.begun).Seconds(), len(v.pods), len(v.bad))
	if v.requests < 100 || len(v.pods) < 2 {
		t.Errorf("%d requests with sessions in %d pods: this says nothing", v.requests, len(v.pods))
	}
	for _, bad := range v.bad[:min(10, len(v.bad))] {
		t.Errorf("%s: %s", what, bad)
	}
}
