package watch

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// A cluster changes at random, and everything that can happen to a watch happens, again and again. In the end the snapshot is what the server holds, and what a
// second Cluster that is started only then has.
func TestWhateverHappens(t *testing.T) {
	seeds := uint64(30)
	if testing.Short() {
		seeds = 5
	}
	for seed := range seeds {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &weather{random: rand.New(rand.NewPCG(seed, 1)), a: newFake(t)}
				w.a.streaming = seed%2 == 0
				w.a.put(oneOfEach()...)
				namespaces := []string(nil)
				if seed%3 == 0 {
					namespaces = []string{"shop", "blog"}
				}
				c := start(t, w.a, func(o *Options) { o.Namespaces = namespaces })
				defer c.Close()
				reported := 0
				done := make(chan struct{})
				go func() { defer close(done); _ = c.Watch(t.Context(), func() { c.Read(); reported++ }) }()
				for range 150 {
					w.happen()
					advance(time.Duration(w.roll(3000)) * time.Millisecond)
					if snap := c.Read(); snap == nil || snap.Namespaces["shop"] == nil {
						t.Fatal("what nobody touched is gone")
					}
				}
				w.calm()
				advance(2 * time.Minute)
				equal(t, c, w.a)
				fresh := start(t, w.a, func(o *Options) { o.Namespaces = namespaces })
				defer fresh.Close()
				if diff := cmp.Diff(text(fresh.Read()), text(c.Read())); diff != "" {
					t.Errorf("not what a fresh start has: %s", diff)
				}
				if reported == 0 || len(c.Stale()) != 0 || len(c.Held()) != 0 {
					t.Errorf("%d reports, stale %v, held %v", reported, c.Stale(), c.Held())
				}
			})
		})
	}
}

// weather is what happens to a cluster.
type weather struct {
	random *rand.Rand
	a      *fakeAPI
	mu     sync.Mutex
}

func (w *weather) object() metav1.Object {
	ns, name := []string{"shop", "blog"}[w.roll(2)], fmt.Sprintf("o%d", w.roll(12))
	switch w.roll(8) {
	case 0:
		return service(ns, name)
	case 1, 2:
		return endpointSlice(ns, name, "s"+strconv.Itoa(w.roll(4)), "10.0.0."+strconv.Itoa(w.roll(9)))
	case 3:
		return secret(ns, name, corev1.SecretTypeTLS)
	case 4:
		return httpRoute(ns, name)
	case 5:
		return &gatewayv1.Gateway{ObjectMeta: meta(ns, name)}
	case 6:
		return &gatewayv1.ReferenceGrant{ObjectMeta: meta(ns, name)}
	}
	return ingress(ns, name, name+".example")
}

func (w *weather) happen() {
	switch n := w.roll(30); {
	case n < 12:
		w.a.put(w.object())
	case n < 20:
		w.a.remove(w.object())
	case n < 22:
		w.a.cut()
	case n < 24:
		w.a.expire()
	case n < 25:
		w.a.stop(true)
	case n < 27:
		w.a.stop(false)
	case n < 28:
		w.calm()
	default:
		w.storm()
	}
}

// storm makes some requests fail in some way.
func (w *weather) storm() {
	kinds := []func(http.ResponseWriter, *http.Request) bool{
		refuse(metav1.StatusReasonForbidden, http.StatusForbidden),
		refuse(metav1.StatusReasonInternalError, http.StatusInternalServerError),
		refuse(metav1.StatusReasonExpired, http.StatusGone),
		refuse(metav1.StatusReasonTooManyRequests, http.StatusTooManyRequests),
		func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true },
		func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) },
		func(rw http.ResponseWriter, r *http.Request) bool {
			w.a.answer(&cutWriter{ResponseWriter: rw, left: w.roll(800)}, r)
			return true
		},
	}
	fault := kinds[w.roll(len(kinds))]
	w.a.set(func() {
		w.a.fault = func(rw http.ResponseWriter, r *http.Request) bool {
			return parseCall(r).verb != "discover" && w.roll(2) == 0 && fault(rw, r)
		}
		w.a.streams++
	})
}

func (w *weather) roll(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.random.IntN(n)
}

func (w *weather) calm() {
	w.a.set(func() { w.a.fault, w.a.down = nil, false })
}

// The order in which objects are made, changed and deleted leaves no trace.
func TestOrderLeavesNoTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var want []string
		for seed := range uint64(5) {
			random := rand.New(rand.NewPCG(seed, 2))
			a := newFake(t)
			c := start(t, a, nil)
			objs := shop(20)
			random.Shuffle(len(objs), func(i, j int) { objs[i], objs[j] = objs[j], objs[i] })
			for _, o := range objs {
				a.put(o)
				if random.IntN(3) == 0 {
					a.remove(o)
					synctest.Wait()
					a.put(o)
				}
			}
			synctest.Wait()
			got := append(lines("ingresses", false, c.Read().Ingresses), snapshotGroups(c.Read())...)
			slices.Sort(got)
			if want == nil {
				want = got
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("seed %d: %s", seed, diff)
			}
			c.Close()
		}
	})
}
