package watch

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// open makes a Cluster of a server without a network.
func open(t testing.TB, a *fakeAPI, change func(*Options)) *Cluster {
	t.Helper()
	opt := Options{Config: a.config()}
	if change != nil {
		change(&opt)
	}
	c, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// start starts a Cluster that is stopped at the end of the test.
func start(t testing.TB, a *fakeAPI, change func(*Options)) *Cluster {
	t.Helper()
	c := open(t, a, change)
	t.Cleanup(c.Close)
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// equal fails the test unless the snapshot holds what the server does.
func equal(t *testing.T, c *Cluster, a *fakeAPI) {
	t.Helper()
	if diff := cmp.Diff(a.all(), text(c.Read())); diff != "" {
		t.Fatalf("the snapshot is not what the server holds (-server +snapshot):\n%s", diff)
	}
}

// advance lets d pass on the clock of a bubble.
func advance(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func inBothModes(t *testing.T, f func(t *testing.T, a *fakeAPI)) {
	for _, streaming := range []bool{true, false} {
		name := map[bool]string{true: "stream", false: "list"}[streaming]
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newFake(t)
				a.streaming = streaming
				f(t, a)
			})
		})
	}
}

func TestFirstPicture(t *testing.T) {
	inBothModes(t, func(t *testing.T, a *fakeAPI) {
		a.put(oneOfEach()...)
		c := open(t, a, nil)
		defer c.Close()
		if c.Read() != nil || c.Synced() {
			t.Fatal("there is a picture before anything was listed")
		}
		if err := c.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		equal(t, c, a)
		snap := c.Read()
		if snap.Taken.IsZero() || !c.Synced() || len(c.Stale()) != 0 || len(c.Held()) != 0 {
			t.Errorf("taken %v, synced %v, stale %v, held %v", snap.Taken, c.Synced(), c.Stale(), c.Held())
		}
	})
}

// A list of more objects than a page has is read whole, and the first picture is not there before the last page of the last kind.
func TestManyPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFake(t)
		a.streaming = false
		for i := range 1203 {
			a.put(service("shop", "s"+strconv.Itoa(i)))
		}
		// The cache of the server, which would answer with everything at once, is not there yet.
		a.fault = func(_ http.ResponseWriter, r *http.Request) bool {
			q := r.URL.Query()
			if q.Get("resourceVersion") == "0" && q.Get("watch") == "" {
				q.Del("resourceVersion")
				r.URL.RawQuery = q.Encode()
			}
			return false
		}
		c := start(t, a, nil)
		defer c.Close()
		equal(t, c, a)
		if n := len(slices.DeleteFunc(a.took(), func(s string) bool { return s != "list services" })); n != 3 {
			t.Errorf("%d requests, want 3 pages", n)
		}
	})
}

func TestChanges(t *testing.T) {
	inBothModes(t, func(t *testing.T, a *fakeAPI) {
		a.put(oneOfEach()...)
		a.put(service("shop", "api"), endpointSlice("shop", "web-0", "web", "10.0.0.9"))
		c := start(t, a, nil)
		defer c.Close()
		first := c.Read()
		before := text(first)

		a.put(endpointSlice("shop", "web-1", "web", "10.0.0.2"))
		synctest.Wait()
		second := c.Read()
		if !first.SameRoutes(second) {
			t.Error("a changed EndpointSlice changed something else")
		}
		web := object.Key{Namespace: "shop", Name: "web"}
		if got := second.EndpointSlices[web]; len(got) != 2 || got[0] != first.EndpointSlices[web][0] || got[1].Endpoints[0].Addresses[0] != "10.0.0.2" {
			t.Errorf("slices of the Service: %v", got)
		}
		a.put(ingress("shop", "web", "b.example"))
		a.remove(service("shop", "api"), endpointSlice("shop", "web-0", ""))
		synctest.Wait()
		equal(t, c, a)
		third := c.Read()
		if third.Services[web] != first.Services[web] || third.Ingresses[web] == first.Ingresses[web] {
			t.Error("an unchanged object is another one, or a changed one is not")
		}
		if diff := cmp.Diff(before, text(first)); diff != "" {
			t.Errorf("a snapshot that was handed out has changed:\n%s", diff)
		}
		if !c.Read().SameRoutes(third) || !sameMap(c.Read().EndpointSlices, third.EndpointSlices) {
			t.Error("two snapshots with nothing between them differ")
		}
	})
}

// A slice that changes the Service it belongs to leaves the other Service.
func TestSliceMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFake(t)
		a.put(endpointSlice("shop", "x", "web", "10.0.0.1"))
		c := start(t, a, nil)
		defer c.Close()
		a.put(endpointSlice("shop", "x", "api", "10.0.0.1"))
		synctest.Wait()
		equal(t, c, a)
		if got := c.Read().EndpointSlices; len(got) != 1 {
			t.Errorf("a Service without slices is still there: %v", got)
		}
	})
}

// What is not read does not make an object another one, where Fairlead does not have to know the version.
func TestQuietChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFake(t)
		slice := endpointSlice("shop", "x", "web", "10.0.0.1")
		ns := namespace("shop")
		in := ingress("shop", "web", "a.example")
		a.put(slice, ns, in)
		c := start(t, a, nil)
		defer c.Close()
		first := c.Read()
		slice.Annotations = map[string]string{"endpoints.kubernetes.io/last-change-trigger-time": "now"}
		ns.Annotations = map[string]string{"a": "b"}
		a.put(slice, ns)
		synctest.Wait()
		if c.changes != c.seen {
			t.Error("a change that nobody can see was reported")
		}
		in.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: "x"}
		a.put(in)
		synctest.Wait()
		web := object.Key{Namespace: "shop", Name: "web"}
		if got := c.Read().Ingresses[web]; got == first.Ingresses[web] || got.Annotations != nil {
			t.Error("an Ingress with a new version has to be a new object: whoever writes its status needs the version")
		}
	})
}

func TestWatchReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFake(t)
		a.put(oneOfEach()...)
		c := start(t, a, nil)
		defer c.Close()
		c.Read()
		a.put(ingress("shop", "web", "before.example")) // between Read and Watch
		synctest.Wait()

		var running atomic.Int32
		var times []time.Time
		slow := time.Duration(0)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			_ = c.Watch(ctx, func() {
				if running.Add(1) > 1 {
					t.Error("reported twice at a time")
				}
				times = append(times, time.Now())
				c.Read()
				time.Sleep(slow)
				running.Add(-1)
			})
		})
		synctest.Wait()
		if len(times) != 1 {
			t.Fatalf("%d reports of a change before Watch, want 1", len(times))
		}
		advance(time.Second)

		a.put(ingress("shop", "web", "lone.example"))
		changed := time.Now()
		synctest.Wait()
		if len(times) != 2 || !times[1].Equal(changed) {
			t.Fatalf("a lone change was reported at %v, want at once, %v", times[1:], changed)
		}
		advance(time.Second)

		slow = 100 * time.Millisecond
		for i := range 1000 {
			a.put(ingress("shop", "web", strconv.Itoa(i)+".example"))
			synctest.Wait()
			time.Sleep(time.Millisecond)
		}
		advance(time.Second)
		if n := len(times) - 2; n < 9 || n > 12 {
			t.Errorf("%d reports to somebody who takes 100 ms for each, of 1000 changes in a second", n)
		}
		equal(t, c, a)
		cancel()
		wg.Wait()
		if len(c.watchers) != 0 {
			t.Error("who does not watch any more is remembered")
		}
	})
}

func TestPauseBetweenReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFake(t)
		c := start(t, a, nil)
		defer c.Close()
		c.Read()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		n := 0
		go func() { _ = c.Watch(ctx, func() { n++; c.Read() }) }()
		synctest.Wait()
		for i := range 100 {
			a.put(service("shop", strconv.Itoa(i)))
			advance(time.Millisecond)
		}
		if n < 9 || n > 12 {
			t.Errorf("%d reports in 100 ms, want one in 10 ms", n)
		}
		cancel()
		synctest.Wait()
	})
}

// Whatever a first list is cut off at, there is no picture before there is a whole one.
func TestFirstListIsCut(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 200 {
		inBothModes(t, func(t *testing.T, a *fakeAPI) {
			a.put(oneOfEach()...)
			cuts := 1 + random.IntN(12)
			var mu sync.Mutex
			a.fault = func(w http.ResponseWriter, r *http.Request) bool {
				mu.Lock()
				cuts--
				cut, after := cuts >= 0 && random.IntN(2) == 0, random.IntN(600)
				mu.Unlock()
				if cut {
					a.answer(&cutWriter{ResponseWriter: w, left: after}, r)
				}
				return cut
			}
			c := open(t, a, nil)
			defer c.Close()
			done := make(chan error)
			go func() { done <- c.Start(t.Context()) }()
			for !c.Synced() {
				if snap := c.Read(); snap != nil && len(text(snap)) != len(a.all()) {
					t.Fatalf("cut %d: a picture of a part: %v", i, text(snap))
				}
				advance(100 * time.Millisecond)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			equal(t, c, a)
		})
	}
}

// cutWriter closes the connection after some bytes of the body.
type cutWriter struct {
	http.ResponseWriter
	left int
}

func (c *cutWriter) Write(p []byte) (int, error) {
	n := min(len(p), c.left)
	c.left -= n
	if _, err := c.ResponseWriter.Write(p[:n]); err != nil || c.left == 0 {
		panic(http.ErrAbortHandler)
	}
	return len(p), nil
}

// Watches that expire every two seconds for ten minutes, while objects change.
func TestExpiry(t *testing.T) {
	inBothModes(t, func(t *testing.T, a *fakeAPI) {
		a.put(oneOfEach()...)
		c := start(t, a, nil)
		defer c.Close()
		for i := range 300 {
			a.put(ingress("shop", "i"+strconv.Itoa(i%20), strconv.Itoa(i)+".example"))
			a.remove(ingress("shop", "i"+strconv.Itoa((i+7)%20), ""))
			a.expire()
			advance(2 * time.Second)
			if !c.Synced() || c.Read().Namespaces["shop"] == nil {
				t.Fatal("what did not change is gone")
			}
		}
		advance(20 * time.Second)
		equal(t, c, a)
		if n := len(a.took()); n > len(oneOfEach())*3*600/5+200 { // three requests a kind, at most every five seconds
			t.Errorf("%d requests in ten minutes", n)
		}
	})
}

// Streams that end without a reason go on where they were, without a list.
func TestStreamsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFake(t)
		a.put(oneOfEach()...)
		c := start(t, a, nil)
		defer c.Close()
		advance(5 * time.Second)
		a.took()
		a.cut()
		a.put(ingress("shop", "new", "b.example"))
		synctest.Wait()
		equal(t, c, a)
		for _, r := range a.took() {
			if strings.HasPrefix(r, "list") {
				t.Errorf("everything was listed again: %s", r)
			}
		}
		if len(c.Stale()) != 0 {
			t.Errorf("stale: %v", c.Stale())
		}
	})
}

// The API server is away for five minutes.
func TestOutage(t *testing.T) {
	inBothModes(t, func(t *testing.T, a *fakeAPI) {
		a.put(oneOfEach()...)
		c := start(t, a, nil)
		defer c.Close()
		before := c.Read()
		went := time.Now()
		a.stop(true)
		advance(10 * time.Second)
		a.put(ingress("shop", "new", "new.example"), service("shop", "new"))
		a.remove(service("shop", "web"))
		for range 29 {
			advance(10 * time.Second)
			if got := c.Read(); !before.SameRoutes(got) || !c.Synced() {
				t.Fatal("the last known objects are gone")
			}
		}
		stale := c.Stale()
		if len(stale) != watchedKinds {
			t.Errorf("stale kinds: %v", stale)
		}
		for kind, since := range stale {
			if d := since.Sub(went); d < 0 || d > time.Second {
				t.Errorf("%s is stale since %v after the end", kind, d)
			}
		}
		a.took()
		a.stop(false)
		back := time.Now()
		for len(c.Stale()) > 0 {
			// The table waits until all of its kinds are back.
			got := c.Read()
			if !before.SameRoutes(got) && !slices.Equal(slices.DeleteFunc(a.all(), isSlice), slices.DeleteFunc(text(got), isSlice)) {
				t.Fatalf("half of the changes: %v", text(got))
			}
			advance(50 * time.Millisecond)
		}
		if d := time.Since(back); d > 15*time.Second {
			t.Errorf("back after %v", d)
		}
		equal(t, c, a)
	})
}

func isSlice(s string) bool { return strings.HasPrefix(s, "endpointslices") }

// An API server that is away is not asked all the time.
func TestOutageIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFake(t)
		a.put(oneOfEach()...)
		var asked atomic.Int32
		config := a.config()
		config.Transport = roundTripper(func(r *http.Request) (*http.Response, error) { asked.Add(1); return a.RoundTrip(r) })
		c := start(t, a, func(o *Options) { o.Config = config })
		defer c.Close()
		a.stop(true)
		advance(30 * time.Second)
		asked.Store(0)
		advance(5 * time.Minute)
		if n := int(asked.Load()); n > watchedKinds*5*24 || n < 60 { // each kind is asked for on its own
			t.Errorf("%d requests in five minutes", n)
		}
		closing := time.Now()
		c.Close()
		if d := time.Since(closing); d > time.Second {
			t.Errorf("closing took %v", d)
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Something between us and the API server closes every connection before there is an answer.
func TestConnectionsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFake(t)
		a.put(oneOfEach()...)
		var closing atomic.Bool
		config := a.config()
		config.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
			if closing.Load() {
				return nil, io.EOF
			}
			return a.RoundTrip(r)
		})
		c := start(t, a, func(o *Options) { o.Config = config })
		defer c.Close()
		advance(time.Minute)
		closing.Store(true)
		went := time.Now()
		a.cut()
		for range 30 {
			advance(10 * time.Second)
			for kind, since := range c.Stale() {
				if d := since.Sub(went); d > time.Second {
					t.Fatalf("%s was taken for watched %v after the end", kind, d)
				}
			}
			if n := len(c.Stale()); n != watchedKinds {
				t.Fatalf("%d stale kinds", n)
			}
		}
		closing.Store(false)
		advance(30 * time.Second)
		equal(t, c, a)
		if len(c.Stale()) != 0 {
			t.Errorf("stale: %v", c.Stale())
		}
	})
}

// A watch that goes on for longer than it was asked for, with nothing to hear, is not trusted for ever.
func TestEndlessWatch(t *testing.T) {
	inBothModes(t, func(t *testing.T, a *fakeAPI) {
		c := start(t, a, nil)
		defer c.Close()
		synctest.Wait()
		a.took()
		advance(4 * time.Minute)
		for request := range count(a.took()) {
			if request != "discover " && request != "get customresourcedefinitions" { // those are asked for however quiet it is
				t.Errorf("a quiet watch was not left alone: %s", request)
			}
		}
		advance(6*time.Minute + 2*graceTime) // asked for are five to ten
		asked := a.took()
		for _, k := range c.kinds {
			if n := count(asked)["watch "+k.name]; k.open != nil && n == 0 {
				t.Errorf("%s was not watched anew in ten minutes", k.name)
			}
		}
	})
}

// An API server that accepts requests and never answers.
func TestSilentServer(t *testing.T) {
	inBothModes(t, func(t *testing.T, a *fakeAPI) {
		a.put(oneOfEach()...)
		c := start(t, a, nil)
		defer c.Close()
		before := c.Read()
		a.set(func() {
			a.fault = func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }
			a.streams++
		})
		a.put(ingress("shop", "new", "new.example"))
		advance(10 * time.Minute)
		if !before.SameRoutes(c.Read()) || len(c.Stale()) != watchedKinds {
			t.Errorf("stale: %v", c.Stale())
		}
		a.set(func() { a.fault = nil })
		advance(answerTime + settleTime)
		equal(t, c, a)
		if len(c.Stale()) != 0 {
			t.Errorf("stale: %v", c.Stale())
		}
	})
}

// A stream of what there is that stops in the middle does not stop everything, nor is it tried again and again.
func TestStreamStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFake(t)
		a.put(oneOfEach()...)
		a.fault = func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Query().Get("sendInitialEvents") == "" {
				return false
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusOK)
			<-r.Context().Done()
			return true
		}
		c := start(t, a, nil)
		defer c.Close()
		equal(t, c, a)
		for kind, n := range count(a.took()) {
			if strings.HasPrefix(kind, "watch") && n > 2 {
				t.Errorf("%s: %d times", kind, n)
			}
		}
	})
}

func count(list []string) map[string]int {
	out := map[string]int{}
	for _, s := range list {
		out[s]++
	}
	return out
}

// Permissions are withdrawn while running, and given back.
func TestRefusedWhileRunning(t *testing.T) {
	inBothModes(t, func(t *testing.T, a *fakeAPI) {
		a.put(oneOfEach()...)
		c := start(t, a, nil)
		defer c.Close()
		before := c.Read()
		a.set(func() {
			a.fault = func(w http.ResponseWriter, r *http.Request) bool {
				return strings.Contains(r.URL.Path, "/ingresses") && refuse(metav1.StatusReasonForbidden, http.StatusForbidden)(w, r)
			}
			a.streams++
		})
		a.put(ingress("shop", "new", "new.example"), service("shop", "new"))
		advance(time.Minute)
		got := c.Read()
		if len(got.Ingresses) != 1 || got.Ingresses[object.Key{Namespace: "shop", Name: "web"}] != before.Ingresses[object.Key{Namespace: "shop", Name: "web"}] || len(got.Services) != 2 {
			t.Errorf("with Ingresses refused: %v", text(got))
		}
		if s := c.Stale(); len(s) != 1 || s["ingresses"].IsZero() {
			t.Errorf("stale: %v", s)
		}
		a.set(func() { a.fault = nil })
		advance(settleTime)
		equal(t, c, a)
	})
}

// A kind that is refused does not keep the others waiting after an outage.
func TestRefusedKindIsNotAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFake(t)
		a.put(oneOfEach()...)
		c := start(t, a, nil)
		defer c.Close()
		a.set(func() {
			a.fault = func(w http.ResponseWriter, r *http.Request) bool {
				return parseCall(r).kind == "ingresses" && refuse(metav1.StatusReasonForbidden, http.StatusForbidden)(w, r)
			}
			a.streams++
		})
		advance(time.Minute)
		a.stop(true)
		advance(time.Second)
		a.stop(false)
		advance(30 * time.Second)
		for name := range 5 {
			a.stop(true)
			advance(5 * time.Second)
			a.put(service("shop", strconv.Itoa(name)))
			a.stop(false)
			for len(c.Stale()) > 1 {
				advance(10 * time.Millisecond)
			}
			if n := len(c.Read().Services); n != 2+name {
				t.Errorf("%d Services when all but the refused kind are back, want %d", n, 2+name)
			}
			advance(time.Minute)
		}
	})
}

// A kind without a namespace may be refused for good; others are waited for.
func TestRefusedFromTheStart(t *testing.T) {
	tests := []struct {
		name   string
		kinds  []string
		synced bool
		lines  int
	}{
		{"namespaces", []string{"namespaces"}, true, len(oneOfEach())},
		{"all without a namespace", []string{"namespaces", "ingressclasses", "gatewayclasses"}, true, len(oneOfEach()) - 2},
		{"services", []string{"services"}, false, 0},
		{"gateways", []string{"gateways"}, false, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newFake(t)
				a.put(oneOfEach()...)
				a.fault = func(w http.ResponseWriter, r *http.Request) bool {
					return slices.Contains(test.kinds, parseCall(r).kind) && refuse(metav1.StatusReasonForbidden, http.StatusForbidden)(w, r)
				}
				c := open(t, a, func(o *Options) { o.Namespaces = []string{"shop"} })
				defer c.Close()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				err := c.Start(ctx)
				if c.Synced() != test.synced || (err == nil) != test.synced {
					t.Fatalf("synced %v, error %v", c.Synced(), err)
				}
				got := text(c.Read())
				if len(got) != test.lines {
					t.Errorf("got %v", got)
				}
				if !test.synced {
					return
				}
				if ns := c.Read().Namespaces["shop"]; ns == nil || ns.Labels[corev1.LabelMetadataName] != "shop" || len(ns.Labels) != 1 {
					t.Errorf("namespace: %v", ns)
				}
				if len(c.Stale()) != 0 {
					t.Errorf("stale: %v", c.Stale())
				}
			})
		})
	}
}

// A permission that comes a moment late, as in a new installation, is waited for.
func TestPermissionComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFake(t)
		a.put(oneOfEach()...)
		a.fault = refuse(metav1.StatusReasonForbidden, http.StatusForbidden)
		time.AfterFunc(3*time.Second, func() { a.set(func() { a.fault = nil }) })
		c := start(t, a, nil)
		defer c.Close()
		equal(t, c, a)
	})
}

func TestGatewayKindsComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFake(t)
		served := a.served
		a.served = nil
		a.put(service("shop", "web"), ingress("shop", "web", "a.example"))
		c := start(t, a, nil)
		defer c.Close()
		equal(t, c, a)
		if len(c.Stale()) != 0 {
			t.Errorf("stale: %v", c.Stale())
		}

		// An older release, in which grants are not stable.
		grant := &gatewayv1beta1.ReferenceGrant{ObjectMeta: meta("shop", "grant"), Spec: gatewayv1.ReferenceGrantSpec{To: []gatewayv1.ReferenceGrantTo{{Kind: "Secret"}}}}
		a.set(func() {
			a.served = map[string][]string{"v1": {"gatewayclasses", "gateways", "httproutes"}, "v1beta1": {"gateways", "referencegrants"}}
		})
		a.put(&gatewayv1.GatewayClass{ObjectMeta: meta("", "fairlead")}, &gatewayv1.Gateway{ObjectMeta: meta("shop", "edge")}, httpRoute("shop", "web"), grant)
		advance(11 * time.Second)
		equal(t, c, a)
		if got := c.Read().ReferenceGrants[object.KeyOf(grant)]; got == nil || got.Spec.To[0].Kind != "Secret" {
			t.Errorf("grant: %v", got)
		}

		// The upgrade.
		a.put(&gatewayv1.ReferenceGrant{ObjectMeta: meta("shop", "grant")})
		a.put(&gatewayx.XBackendTrafficPolicy{ObjectMeta: meta("shop", "web")})
		a.set(func() { a.served = map[string][]string{"v1": served["v1"], xVersion: served[xVersion]}; a.streams++ })
		before := c.Read()
		for range 150 {
			advance(100 * time.Millisecond)
			if len(c.Read().ReferenceGrants) != 1 || len(c.Read().HTTPRoutes) != 1 {
				t.Fatal("an upgrade lost objects")
			}
		}
		if c.Read().HTTPRoutes[object.Key{Namespace: "shop", Name: "web"}] != before.HTTPRoutes[object.Key{Namespace: "shop", Name: "web"}] {
			t.Error("an upgrade of one kind changed another")
		}
		if n := len(c.Read().XBackendTrafficPolicies); n != 1 {
			t.Errorf("%d policies of the experimental channel", n)
		}

		// For a moment the API server does not know the kinds, and then it fails to say.
		a.set(func() { a.served = nil; a.streams++ })
		advance(10 * time.Second)
		if len(c.Read().HTTPRoutes) != 1 {
			t.Fatal("one answer was enough")
		}
		a.set(func() { a.fault = refuse(metav1.StatusReasonServiceUnavailable, http.StatusServiceUnavailable) })
		advance(time.Minute)
		if len(c.Read().HTTPRoutes) != 1 {
			t.Fatal("no answer was taken for one")
		}
		a.set(func() { a.fault = nil })
		advance(time.Minute)
		a.lose(func(path string, _ *stored) bool {
			return strings.HasPrefix(path, gatewayPath) || strings.Contains(path, xVersion)
		})
		if diff := cmp.Diff(a.all(), text(c.Read())); diff != "" || len(c.Stale()) != 0 {
			t.Errorf("kinds that are gone: %s, stale %v", diff, c.Stale())
		}

		// And back.
		a.set(func() { a.served = served })
		a.put(&gatewayv1.Gateway{ObjectMeta: meta("shop", "edge")}, httpRoute("shop", "web"))
		advance(11 * time.Second)
		equal(t, c, a)
	})
}

// Kinds that appear together are seen together.
func TestGatewayKindsAppearTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFake(t)
		served := a.served
		a.served = nil
		c := start(t, a, nil)
		defer c.Close()
		c.Read()
		a.fault = func(_ http.ResponseWriter, r *http.Request) bool {
			if parseCall(r).kind == "httproutes" {
				pause(r.Context(), 3*time.Second)
			}
			return false
		}
		a.put(oneOfEach()...)
		a.set(func() { a.served = served })
		for range 150 {
			advance(100 * time.Millisecond)
			if s := c.Read(); len(s.Gateways) != len(s.HTTPRoutes) {
				t.Fatalf("%d Gateways and %d routes", len(s.Gateways), len(s.HTTPRoutes))
			}
		}
		equal(t, c, a)
	})
}

func TestLeftOutKindsAreNotAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFake(t)
		c := start(t, a, func(o *Options) { o.NoGatewayAPI, o.NoIngress = true, true })
		defer c.Close()
		advance(time.Minute)
		for _, r := range a.took() {
			if strings.Contains(r, "ingress") || strings.Contains(r, "gateway") || strings.Contains(r, "route") || strings.Contains(r, "discover") {
				t.Errorf("asked: %s", r)
			}
		}
	})
}

func TestNamespaces(t *testing.T) {
	inBothModes(t, func(t *testing.T, a *fakeAPI) {
		a.put(oneOfEach()...)
		for _, ns := range []string{"blog", "other", "own"} {
			a.put(namespace(ns), service(ns, "web"), ingress(ns, "web", ns+".example"), endpointSlice(ns, "x", "web", "10.0.0.3"), secret(ns, "cert", corev1.SecretTypeTLS))
		}
		c := start(t, a, func(o *Options) {
			o.Namespaces = []string{"shop", "blog", "shop"}
			o.SecretNamespaces = []string{"blog"}
			o.OwnNamespace = "own"
		})
		defer c.Close()
		want := slices.DeleteFunc(a.all(), func(s string) bool {
			return strings.Contains(s, " other/") || strings.Contains(s, "secrets shop/") || strings.Contains(s, " own/") && !strings.HasPrefix(s, "services ")
		})
		if diff := cmp.Diff(want, text(c.Read())); diff != "" {
			t.Fatal(diff)
		}
		// A list of one namespace leaves the others alone.
		a.expire()
		a.remove(ingress("shop", "web", ""))
		advance(time.Minute)
		if s := c.Read(); len(s.Ingresses) != 1 || len(s.Services) != 3 {
			t.Errorf("got %v", text(s))
		}
	})
}

// Nodes are read only if somebody asks for them, and then with the EndpointSlices of Fairlead's own pods. What a node says of itself every few minutes is no news.
func TestNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFake(t)
		node := &corev1.Node{ObjectMeta: meta("", "a"), Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.1"}}}}
		a.put(node, endpointSlice("own", "x", "admin", "10.0.0.3"), endpointSlice("other", "x", "web", "10.0.0.3"))
		without := start(t, a, func(o *Options) { o.Namespaces, o.OwnNamespace = []string{"shop"}, "own" })
		defer without.Close()
		if s := without.Read(); len(s.Nodes) != 0 || len(s.EndpointSlices) != 0 {
			t.Errorf("without being asked: %v", text(s))
		}
		c := start(t, a, func(o *Options) { o.Namespaces, o.OwnNamespace, o.Nodes = []string{"shop"}, "own", true })
		defer c.Close()
		before := c.Read()
		if diff := cmp.Diff([]string{"endpointslices own/x of admin 10.0.0.3", "nodes /a"}, text(before)); diff != "" {
			t.Fatal(diff)
		}
		node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeMemoryPressure, LastHeartbeatTime: metav1.Now()}}
		a.put(node)
		advance(time.Second)
		if !before.SameRoutes(c.Read()) {
			t.Error("a heartbeat of a node is no news")
		}
		node.Status.Addresses[0].Address = "10.0.0.2"
		a.put(node)
		advance(time.Second)
		if got := c.Read().Nodes["a"].Status.Addresses[0].Address; got != "10.0.0.2" {
			t.Errorf("got the address %s", got)
		}
	})
}

func TestOptions(t *testing.T) {
	if _, err := Open(Options{}); err == nil || err.Error() != "watch the cluster: there is no configuration to reach it" {
		t.Errorf("without a config: %v", err)
	}
	if _, err := Open(Options{Config: &rest.Config{}, Namespaces: []string{"a", ""}}); err == nil {
		t.Error("a namespace without a name was accepted")
	}
	if _, err := Open(Options{Config: &rest.Config{Host: "::"}}); err == nil {
		t.Error("a host that is none was accepted")
	}
	c, err := Open(Options{Config: &rest.Config{Host: "http://x", Timeout: time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Config(); got.QPS != 100 || got.Burst != 200 || got.UserAgent != "fairlead" || got.Timeout != 0 || got.RateLimiter != nil {
		t.Errorf("config: %+v", got)
	}
	c.Close() // without Start
}

func TestStartEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFake(t)
		a.down = true
		c := open(t, a, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := c.Start(ctx); err == nil || c.Read() != nil || c.Synced() {
			t.Errorf("error %v, synced %v", err, c.Synced())
		}
		c.Close()
	})
}

// A change of any kind is reported at the moment of the watch event if there was no report within Pause before it, and otherwise as soon as Pause is over: nothing else
// is waited for. The clock is a fake one, so that no other work on the machine makes a difference. A watch ends after some minutes, and there is no event until the next has
// begun: what changes meanwhile is not judged.
func TestNoFixedDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFake(t)
		a.put(oneOfEach()...)
		c := start(t, a, nil)
		defer c.Close()
		c.Read()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var reported time.Time
		go func() {
			_ = c.Watch(ctx, func() {
				reported = time.Now()
				c.Read()
			})
		}()
		synctest.Wait()
		pause, unwatched := c.opt.Pause, 0
		for _, o := range oneOfEach() {
			for _, after := range []time.Duration{0, 1, pause / 2, pause - 1, pause, pause + 1, 37 * time.Millisecond, time.Second, time.Hour} {
				a.remove(o)
				advance(time.Minute)
				a.put(o)
				time.Sleep(after)
				synctest.Wait()
				before, watched := reported, allWatched(c)
				a.remove(o)
				changed := time.Now()
				advance(time.Second)
				if want := laterOf(changed, before.Add(pause)); !watched {
					unwatched++
				} else if !reported.Equal(want) {
					t.Errorf("%T: a change %v after a report was reported %v later than it had to be", o, after, reported.Sub(want))
				}
			}
		}
		if unwatched > 10 {
			t.Errorf("%d changes came between two watches", unwatched)
		}
		cancel()
		synctest.Wait()
	})
}

// allWatched reports whether everything is being watched.
func allWatched(c *Cluster) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !slices.ContainsFunc(c.sources, func(s *source) bool { return !s.health.gap.IsZero() })
}

// Over a real connection, where a lone change has to be reported within 20 ms of the watch event. A fixed delay would be in the fastest of them, too; the rest may be
// slower because the machine is busy.
func TestLatency(t *testing.T) {
	a := newFake(t)
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	a.put(oneOfEach()...)
	for i := range 1000 {
		a.put(service("shop", "s"+strconv.Itoa(i)), endpointSlice("shop", "s"+strconv.Itoa(i), "s"+strconv.Itoa(i), "10.0.0.1"))
	}
	c := start(t, a, func(o *Options) { o.Config = &rest.Config{Host: server.URL} })
	c.Read()
	reported := make(chan time.Time)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = c.Watch(ctx, func() {
			c.Read()
			reported <- time.Now()
		})
	})
	var took []time.Duration
	for i := range 50 {
		begun := time.Now()
		a.put(endpointSlice("shop", "s7", "s7", "10.0.1."+strconv.Itoa(i)))
		took = append(took, (<-reported).Sub(begun))
		time.Sleep(12 * time.Millisecond) // longer than the pause: these are lone changes
	}
	slices.Sort(took)
	t.Logf("from the write at the server to the report: median %v, worst %v", took[len(took)/2], took[len(took)-1])
	if took[0] > 20*time.Millisecond {
		t.Errorf("the fastest took %v", took[0])
	}
	cancel()
	wg.Wait()
}

// The same over real connections, which are cut while the server goes on, and refused while it does not.
func TestRealConnections(t *testing.T) {
	a := newFake(t)
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	a.put(oneOfEach()...)
	c := start(t, a, func(o *Options) { o.Config = &rest.Config{Host: server.URL} })
	equal(t, c, a)
	for i := range 3 {
		server.CloseClientConnections()
		a.put(ingress("shop", "i"+strconv.Itoa(i), "x.example"))
		waitFor(t, "the new Ingress", func() bool { return slices.Equal(a.all(), text(c.Read())) })
	}
	c.Close()
}
