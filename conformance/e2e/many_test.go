package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-io/fairlead/conformance/cluster"
)

const (
	routesPath = "/apis/gateway.networking.k8s.io/v1/namespaces/" + space + "/httproutes"
	// creators is how many HTTPRoutes are created at a time.
	creators = 16
)

// manyRoutes creates HTTPRoutes all at once, and sees when all of them have their status, and how often it was written.
func (f *field) manyRoutes(t *testing.T) {
	n := count(1000)
	offset := f.audit(t, 0, func(auditEvent) {})
	begun := time.Now()
	f.createRoutes(t, n)
	created := time.Since(begun)
	defer func() {
		if err := f.client.RESTClient().Delete().AbsPath(routesPath).Param("labelSelector", "e2e=many").Do(context.WithoutCancel(t.Context())).Error(); err != nil {
			t.Error(err)
		}
	}()
	eventually(t, time.Minute, func() error {
		if have := f.acceptedRoutes(t); have != n {
			return fmt.Errorf("%d of %d HTTPRoutes have the status Accepted", have, n)
		}
		return nil
	})
	took := time.Since(begun)
	time.Sleep(2 * time.Second) // for writes that nobody needs
	writes, others := f.statusWrites(t, offset)
	total := 0
	for name, times := range writes {
		if total += times; times > 1 {
			t.Logf("the status of HTTPRoute %s was written %d times", name, times)
		}
	}
	figure(t, "%d HTTPRoutes, created within %.1f s: all have the status Accepted %.1f s after the last one was created; the API server saw %d writes of their statuses, and %d of others",
		n, created.Seconds(), (took - created).Seconds(), total, others)
	if len(writes) != n || total > n+n/50 {
		t.Errorf("the statuses of %d HTTPRoutes were written %d times, want once each", len(writes), total)
	}
	if took > created+10*time.Second {
		t.Errorf("it took %s", took)
	}
}

// createRoutes creates so many HTTPRoutes, several at a time, through the one client that this program has.
func (f *field) createRoutes(t *testing.T, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for from := range creators {
		wg.Go(func() {
			for i := from; i < n; i += creators {
				body := fmt.Sprintf(`{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "many-%d", "labels": {"e2e": "many"}},
					"spec": {"parentRefs": [{"name": "web", "sectionName": "http"}], "hostnames": ["%s"], "rules": [{"backendRefs": [{"name": "app", "port": 80}]}]}}`, i, hostOf("many", i))
				if err := f.client.RESTClient().Post().AbsPath(routesPath).SetHeader("Content-Type", "application/json").Body([]byte(body)).Do(t.Context()).Error(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// acceptedRoutes counts the HTTPRoutes that say that they are accepted.
func (f *field) acceptedRoutes(t *testing.T) int {
	t.Helper()
	text, err := f.client.RESTClient().Get().AbsPath(routesPath).Param("labelSelector", "e2e=many").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Items []struct {
			Status struct {
				Parents []struct{ Conditions []metav1.Condition }
			}
		}
	}
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	accepted := 0
	for i := range list.Items {
		if parents := list.Items[i].Status.Parents; len(parents) == 1 && slices.ContainsFunc(parents[0].Conditions, func(c metav1.Condition) bool {
			return c.Type == "Accepted" && c.Status == metav1.ConditionTrue
		}) {
			accepted++
		}
	}
	return accepted
}

// statusWrites reads in the audit log how often the statuses of the HTTPRoutes were written, whatever came of it, and how many other statuses were.
func (f *field) statusWrites(t *testing.T, offset int64) (routes map[string]int, others int) {
	t.Helper()
	routes = map[string]int{}
	account := accountOf(cluster.Namespace, cluster.Release)
	f.audit(t, offset, func(e auditEvent) {
		switch {
		case e.User.Username != account || e.ObjectRef.Subresource != "status" || e.Status.Code == http.StatusForbidden:
		case e.ObjectRef.Resource == "httproutes":
			routes[e.ObjectRef.Name]++
		default:
			others++
		}
	})
	maps.DeleteFunc(routes, func(name string, _ int) bool { return len(name) < 5 || name[:5] != "many-" })
	return routes, others
}
