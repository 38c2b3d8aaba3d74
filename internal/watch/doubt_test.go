package watch

import (
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// shop is a cluster with n Ingresses, each with a Service that has two endpoints.
func shop(n int) []metav1.Object {
	out := []metav1.Object{ingressClass("fairlead"), namespace("shop")}
	for i := range n {
		name := "s" + strconv.Itoa(i)
		out = append(out, service("shop", name), ingress("shop", name, name+".example"), endpointSlice("shop", name, name, "10.0.0.1", "10.0.0.2"))
	}
	return out
}

func everything(string, *stored) bool { return true }

// The API server lists nothing for half a minute. Nothing of what is served is lost, whichever kind is listed first.
func TestEmptyListIsNotBelieved(t *testing.T) {
	inBothModes(t, func(t *testing.T, a *fakeAPI) {
		objs := shop(12)
		a.put(objs...)
		c := start(t, a, nil)
		defer c.Close()
		before := c.Read()
		lost := time.Now()
		a.lose(everything)
		for range 300 {
			advance(100 * time.Millisecond)
			if got := c.Read(); !before.SameRoutes(got) || len(got.EndpointSlices) != 12 {
				t.Fatalf("lost after %v: %d lines", time.Since(lost), len(text(got)))
			}
		}
		if len(c.Held()) < 5 {
			t.Errorf("held: %v", c.Held())
		}
		a.put(objs...)
		a.expire()
		for range 100 {
			advance(100 * time.Millisecond)
			if got := c.Read(); len(got.Ingresses) != 12 || len(got.Services) != 12 || len(got.EndpointSlices) != 12 || len(got.IngressClasses) != 1 {
				t.Fatalf("lost while it came back: %d lines", len(text(got)))
			}
		}
		equal(t, c, a)
		if len(c.Held()) != 0 {
			t.Errorf("held: %v", c.Held())
		}
	})
}

// What was lost and is made again, object by object, is not lost meanwhile either.
func TestLostObjectsComeBackAsEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		objs := shop(12)
		a := newFake(t)
		a.put(objs...)
		c := start(t, a, nil)
		defer c.Close()
		a.lose(everything)
		advance(10 * time.Second)
		for _, o := range objs {
			a.put(o)
			advance(500 * time.Millisecond)
			if got := c.Read(); len(got.Ingresses) != 12 || len(got.Services) != 12 || len(got.IngressClasses) != 1 {
				t.Fatalf("lost while it came back: %d lines", len(text(got)))
			}
		}
		a.remove(objs[len(objs)-2])
		advance(time.Minute)
		equal(t, c, a)
	})
}

// What was lost and is half restored when it is listed again is still not all there is.
func TestHalfRestored(t *testing.T) {
	inBothModes(t, func(t *testing.T, a *fakeAPI) {
		objs := shop(12)
		a.put(objs...)
		c := start(t, a, nil)
		defer c.Close()
		a.lose(everything)
		advance(20 * time.Second)
		a.put(objs[:2+3*8]...)
		a.expire()
		advance(20 * time.Second)
		if s := c.Read(); len(s.Ingresses) != 12 || len(s.Services) != 12 || len(s.EndpointSlices) != 12 {
			t.Errorf("lost: %v", text(s))
		}
		advance(time.Minute)
		equal(t, c, a)
	})
}

// Endpoints of Services that were deleted are no loss.
func TestEndpointsOfNobodyAreNotMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFake(t)
		a.put(shop(20)...)
		c := start(t, a, nil)
		defer c.Close()
		for i := range 20 {
			a.remove(service("shop", "s"+strconv.Itoa(i)))
		}
		synctest.Wait()
		a.lose(func(path string, _ *stored) bool { return strings.HasSuffix(path, "/endpointslices") })
		advance(10 * time.Second)
		equal(t, c, a)
	})
}

// After the time is up, the API server is believed, and what was deleted or made meanwhile is not forgotten.
func TestEmptyListIsBelievedInTheEnd(t *testing.T) {
	inBothModes(t, func(t *testing.T, a *fakeAPI) {
		a.put(shop(12)...)
		var log logged
		c := start(t, a, func(o *Options) { o.Log = slog.New(&log) })
		defer c.Close()
		a.lose(everything)
		advance(10 * time.Second)
		a.put(ingress("shop", "new", "new.example"), ingress("shop", "s3", "changed.example"), ingress("shop", "s4", "gone.example"))
		advance(time.Second)
		a.remove(ingress("shop", "s4", ""))
		advance(time.Second)
		got := c.Read()
		if n := len(got.Ingresses); n != 12 {
			t.Fatalf("%d Ingresses, want 12, one new and one deleted", n)
		}
		advance(time.Minute + 10*time.Second)
		equal(t, c, a)
		if n := log.count("less than half"); n != len([]string{"services", "endpointslices", "ingresses", "ingressclasses", "namespaces"}) {
			t.Errorf("told %d times that a list is not believed", n)
		}
		if log.count("believed now") == 0 {
			t.Error("not told that the list is believed")
		}
	})
}

func TestWhatIsBelievedAtOnce(t *testing.T) {
	some := func(kind string, keep int) func(string, *stored) bool {
		n := 0
		return func(path string, _ *stored) bool {
			if !strings.HasSuffix(path, kind) {
				return false
			}
			n++
			return n > keep
		}
	}
	tests := []struct {
		name string
		size int
		hold time.Duration
		lose func(string, *stored) bool
		held string // the kind that is not believed; "" for none
	}{
		{"half of the routes", 20, 0, some("/ingresses", 10), ""},
		{"more than half of the routes", 30, 0, some("/ingresses", 14), "ingresses"},
		{"nine routes of fourteen", 14, 0, some("/ingresses", 5), ""},
		{"nine routes of nine", 9, 0, some("/ingresses", 0), ""},
		{"all routes, but it is switched off", 30, -1, some("/ingresses", 0), ""},
		{"the only class of a few routes", 3, 0, some("/ingressclasses", 0), ""},
		{"the only class of many routes", 10, 0, some("/ingressclasses", 0), "ingressclasses"},
		{"most Services", 10, 0, some("/services", 4), "services"},
		{"most endpoints of few routes", 6, 0, some("/endpointslices", 1), "endpointslices"},
		{"half of the endpoints", 10, 0, some("/endpointslices", 5), ""},
		{"endpoints that no Service has", 10, 0, func(path string, _ *stored) bool {
			return strings.HasSuffix(path, "/services") || strings.HasSuffix(path, "/endpointslices")
		}, "services"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newFake(t)
				a.put(shop(test.size)...)
				c := start(t, a, func(o *Options) { o.Hold = test.hold })
				defer c.Close()
				a.lose(test.lose)
				advance(15 * time.Second)
				held := c.Held()
				if test.held == "" {
					if len(held) != 0 {
						t.Errorf("held: %v", held)
					}
					equal(t, c, a)
				} else if _, ok := held[test.held]; !ok {
					t.Errorf("held: %v, want %s", held, test.held)
				}
			})
		})
	}
}

// Whoever deletes all routes while they are watched means it.
func TestDeletedObjectsAreGoneAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		objs := shop(50)
		a := newFake(t)
		a.put(objs...)
		c := start(t, a, nil)
		defer c.Close()
		a.remove(objs...)
		synctest.Wait()
		equal(t, c, a)
	})
}

// A definition that is deleted together with all routes, while the API server was away.
func TestVanishedKindIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFake(t)
		for i := range 12 {
			a.put(httpRoute("shop", strconv.Itoa(i)))
		}
		c := start(t, a, nil)
		defer c.Close()
		a.lose(everything)
		a.set(func() { a.served = nil; a.streams++ })
		advance(40 * time.Second)
		if n := len(c.Read().HTTPRoutes); n != 12 {
			t.Fatalf("%d routes", n)
		}
		advance(time.Minute)
		if n := len(c.Read().HTTPRoutes); n != 0 || len(c.Held()) != 0 || len(c.Stale()) != 0 {
			t.Errorf("%d routes, held %v, stale %v", n, c.Held(), c.Stale())
		}
	})
}
