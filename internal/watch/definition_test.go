package watch

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/gateway-api/pkg/consts"
)

// definition is that of a kind, from a version of the Gateway API; "" is none that says so.
func definition(name, version string) *metav1.PartialObjectMetadata {
	o := &metav1.PartialObjectMetadata{ObjectMeta: meta("", name)}
	if version != "" {
		o.Annotations = map[string]string{consts.BundleVersionAnnotation: version}
	}
	return o
}

// definitions are those of a picture, as text.
func definitions(c *Cluster) string {
	var out []string
	for name, d := range c.Read().Definitions {
		kind, _, _ := strings.Cut(name, ".")
		out = append(out, strings.TrimSpace(kind+" "+d.Version))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// The picture says which version of the Gateway API the definitions are from, from the first picture on, and after an upgrade that changes nothing else.
func TestDefinitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFake(t)
		a.put(oneOfEach()...)
		a.put(definition("gateways.gateway.networking.k8s.io", "v1.5.0"), definition("xbackends.gateway.networking.x-k8s.io", ""), definition("widgets.example.com", "v9"))
		c := start(t, a, nil)
		defer c.Close()
		if got := definitions(c); got != "gateways v1.5.0, xbackends" {
			t.Errorf("the first picture has %q", got)
		}
		before := c.Read()
		advance(2 * time.Minute)
		if !maps.Equal(before.Definitions, c.Read().Definitions) || !before.SameRoutes(c.Read()) {
			t.Error("definitions that did not change are others, and everything is compiled anew")
		}
		a.put(definition("gateways.gateway.networking.k8s.io", "v1.6.3"), definition("httproutes.gateway.networking.k8s.io", "v1.6.3"))
		advance(2 * time.Minute)
		if got := definitions(c); got != "gateways v1.6.3, httproutes v1.6.3, xbackends" {
			t.Errorf("after an upgrade the picture has %q", got)
		}
		if before.SameRoutes(c.Read()) {
			t.Error("nobody is told of the upgrade")
		}

		a.set(func() {
			a.fault = failing("customresourcedefinitions", metav1.StatusReasonServiceUnavailable, http.StatusServiceUnavailable)
		})
		advance(2 * time.Minute)
		if got := definitions(c); got != "gateways v1.6.3, httproutes v1.6.3, xbackends" {
			t.Errorf("while they cannot be read the picture has %q", got)
		}
		a.set(func() {
			a.fault = failing("customresourcedefinitions", metav1.StatusReasonForbidden, http.StatusForbidden)
		})
		advance(2 * time.Minute)
		if got := definitions(c); got != "" {
			t.Errorf("when they must not be read any more the picture has %q", got)
		}
	})
}

// Who may not read the definitions is served all the same, and asks for one of them a minute and not for all.
func TestDefinitionsThatMayNotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFake(t)
		a.put(oneOfEach()...)
		a.put(definition("gateways.gateway.networking.k8s.io", "v1.6.3"))
		a.fault = failing("customresourcedefinitions", metav1.StatusReasonForbidden, http.StatusForbidden)
		c := start(t, a, nil)
		defer c.Close()
		equal(t, c, a)
		if got := c.Read().Definitions; got != nil {
			t.Errorf("the picture has %v", got)
		}
		a.took()
		advance(5 * time.Minute)
		asked := 0
		for _, r := range a.took() {
			if r == "get customresourcedefinitions" {
				asked++
			}
		}
		if asked < 4 || asked > 5 {
			t.Errorf("asked %d times in five minutes", asked)
		}
	})
}

// failing answers what is asked of a kind with an error.
func failing(kind string, reason metav1.StatusReason, code int) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		return parseCall(r).kind == kind && refuse(reason, code)(w, r)
	}
}
