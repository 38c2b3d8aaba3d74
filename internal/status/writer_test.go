package status

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairlead-io/fairlead/internal/compile"
	"github.com/fairlead-io/fairlead/internal/object"
)

// rig is a Writer that runs, in a bubble of its own time.
type rig struct {
	*testing.T
	a    *api
	w    *Writer
	stop func() // ends Run and waits for it

	mu      sync.Mutex
	results map[Result]int
	events  map[Result]int
}

func inBubble(t *testing.T, f func(r *rig)) { inBubbleWith(t, Options{}, f) }

func inBubbleWith(t *testing.T, opt Options, f func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{T: t, a: newAPI(t), results: map[Result]int{}, events: map[Result]int{}}
		opt.Kubernetes, opt.Gateway = r.a.clients()
		opt.Hooks = Hooks{
			Written: func(_ string, result Result) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.results[result]++
			},
			Announced: func(result Result) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.events[result]++
			},
		}
		r.w = New(opt)
		r.run()
		defer func() { r.stop() }()
		f(r)
	})
}

func (r *rig) run() {
	ctx, cancel := context.WithCancel(r.Context())
	var wg sync.WaitGroup
	wg.Go(func() { r.w.Run(ctx) })
	r.stop = func() {
		cancel()
		wg.Wait()
	}
}

func (r *rig) saw(result Result) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.results[result]
}

func (r *rig) announced(result Result) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.events[result]
}

// write writes want for what is in the API server now, and fails if that takes longer than it may.
func (r *rig) write(want compile.Status, within time.Duration) {
	r.Helper()
	r.writeOf(r.a.snapshot(), want, within)
}

func (r *rig) writeOf(snap *object.Snapshot, want compile.Status, within time.Duration) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), within)
	defer cancel()
	r.w.Write(ctx, snap, want, nil)
	if ctx.Err() != nil {
		r.Fatalf("not everything is written within %s: %v", within, r.results)
	}
}

func (r *rig) wantCalls(n int) {
	r.Helper()
	if got := r.a.total(); got != n {
		r.Errorf("there were %d requests, want %d", got, n)
	}
}

// routes puts n routes into the API server and returns their wanted status.
func (r *rig) routes(n int) compile.Status {
	want := compile.Status{HTTPRoutes: map[object.Key]gatewayv1.HTTPRouteStatus{}}
	for i := range n {
		ref := r.a.put(routeJSON(fmt.Sprintf("r%04d", i), 1))
		want.HTTPRoutes[ref.Key()] = parentsOf("web Accepted=True Accepted I;ResolvedRefs=True ResolvedRefs I")
	}
	return want
}

var routeR = object.Ref{Kind: "HTTPRoute", Namespace: "shop", Name: "r"}

// wantR is a wanted status for the route r alone.
func wantR(texts ...string) compile.Status {
	return compile.Status{HTTPRoutes: map[object.Key]gatewayv1.HTTPRouteStatus{routeR.Key(): parentsOf(texts...)}}
}

const acceptedR = "web Accepted=True Accepted I"

func TestEverythingIsWrittenOnce(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.a.put(`{"apiVersion":"gateway.networking.k8s.io/v1","kind":"GatewayClass","metadata":{"name":"fairlead"},"spec":{}}`)
		r.a.put(gatewayJSON(`,"status":{"conditions":[` + pending + `]}`))
		r.a.put(`{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"namespace":"shop","name":"i"},"spec":{}}`)
		want := r.routes(20)
		want.GatewayClasses = map[string]gatewayv1.GatewayClassStatus{"fairlead": {
			Conditions: []metav1.Condition{cond("Accepted=True Accepted I", metav1.Time{})}, SupportedFeatures: []gatewayv1.SupportedFeature{{Name: "Gateway"}},
		}}
		want.Gateways = map[object.Key]gatewayv1.GatewayStatus{{Namespace: "infra", Name: "web"}: gatewayStatus(listenerStatus("web", 20, "Accepted=True Accepted II"))}
		want.Ingresses = map[object.Key]networkingv1.IngressStatus{{Namespace: "shop", Name: "i"}: {
			LoadBalancer: networkingv1.IngressLoadBalancerStatus{Ingress: []networkingv1.IngressLoadBalancerIngress{{IP: "192.0.2.1"}}},
		}}
		old := r.a.snapshot()
		r.write(want, time.Second)
		r.wantCalls(23)
		for _, c := range r.a.calls {
			if c.method != http.MethodPatch || !strings.HasSuffix(c.path, "/status") || !strings.Contains(c.body, "resourceVersion") {
				r.Errorf("there was the request %+v", c)
			}
		}
		if got := r.saw(Written); got != 23 {
			r.Errorf("the hook was called %d times, want 23", got)
		}
		r.writeOf(old, want, time.Second) // an informer that lags behind
		r.write(want, time.Second)        // nothing changed
		r.write(want, time.Second)
		time.Sleep(time.Hour) // nothing else comes by itself
		r.wantCalls(23)
		for _, c := range []string{
			r.a.raw(object.Ref{Kind: "Gateway", Namespace: "infra", Name: "web"}), r.a.raw(object.Ref{Kind: "HTTPRoute", Namespace: "shop", Name: "r0007"}),
			r.a.raw(object.Ref{Kind: "GatewayClass", Name: "fairlead"}),
		} {
			if !strings.Contains(c, `"type":"Accepted"`) || strings.Contains(c, "Pending") || strings.Contains(c, `"2026`) {
				r.Errorf("the status is %s", c) // the time is that of the bubble, which is long before 2026
			}
		}
	})
}

func TestTheClockOfTheOptionsCounts(t *testing.T) {
	inBubbleWith(t, Options{Now: func() time.Time { return now.Add(123 * time.Millisecond) }}, func(r *rig) {
		r.a.put(routeJSON("r", 1))
		r.write(wantR(acceptedR), time.Second)
		if got := r.a.raw(routeR, "parents", 0, "conditions", 0, "lastTransitionTime"); got != `"2026-05-06T07:08:09Z"` {
			r.Errorf("the condition transitioned at %s", got)
		}
	})
}

func TestConflictIsSettledAtOnce(t *testing.T) {
	accepted := jsonCond("Accepted=True Accepted I", before)
	tests := []struct {
		name string
		have []string
		// meanwhile is what the parents are when our patch comes.
		meanwhile []string
	}{
		{"somebody adds an entry", []string{entryOf(theirs, "a", accepted)}, []string{entryOf(theirs, "a", accepted), entryOf("third.example/c", "b", accepted)}},
		{"somebody adds the first entry", nil, []string{entryOf(theirs, "a", accepted)}},
		{
			"somebody removes entries, so that the places in our patch are not there",
			[]string{entryOf(theirs, "a", accepted), entryOf(theirs, "b", accepted), entryOf(ours, "web", jsonCond("Accepted=False Invalid I", before))},
			[]string{entryOf(theirs, "b", accepted)},
		},
		{
			"somebody puts theirs before ours",
			[]string{entryOf(ours, "web", jsonCond("Accepted=False Invalid I", before)), entryOf(theirs, "b", accepted)},
			[]string{entryOf(theirs, "b", accepted), entryOf(ours, "web", jsonCond("Accepted=False Invalid I", before))},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				r.a.put(routeJSON("r", 1, tt.have...))
				r.a.meet(func(q *http.Request, _ []byte) *http.Response {
					if q.Method == http.MethodPatch && r.a.count(http.MethodPatch, "") == 1 {
						r.a.put(routeJSON("r", 1, tt.meanwhile...))
					}
					return nil
				})
				r.write(wantR(acceptedR), time.Second)
				if patches, gets := r.a.count(http.MethodPatch, ""), r.a.count(http.MethodGet, ""); patches != 2 || gets != 1 {
					r.Errorf("%d patches, %d gets; want 2 and 1", patches, gets)
				}
				raw := r.a.raw(routeR)
				for _, e := range tt.meanwhile {
					if !strings.Contains(e, ours) && !strings.Contains(raw, e) {
						r.Errorf("%s is not in %s", e, raw)
					}
				}
				if strings.Count(raw, ours) != 1 || strings.Contains(raw, "Invalid") {
					r.Errorf("the status is %s", raw)
				}
				if r.saw(Conflict) != 1 || r.saw(Written) != 1 {
					r.Errorf("results: %v", r.results)
				}
			})
		})
	}
}

func TestEndlessConflictsAreNotTriedEndlessly(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.a.put(routeJSON("r", 1, entryOf(theirs, "a")))
		r.a.meet(func(q *http.Request, _ []byte) *http.Response {
			if q.Method == http.MethodPatch {
				r.a.edit(routeR, func(map[string]any) {})
			}
			return nil
		})
		r.w.Offer(r.a.snapshot(), wantR(acceptedR), nil)
		time.Sleep(time.Minute)
		if n := r.a.count(http.MethodPatch, ""); n < 50 || n > 180 {
			r.Errorf("there were %d patches in a minute", n)
		}
		r.a.meet(nil)
		time.Sleep(time.Second)
		if !strings.Contains(r.a.raw(routeR), ours) {
			r.Error("the status was not written after the conflicts ended")
		}
	})
}

// Somebody writes an object ten times a second. The status is written nevertheless: each try is made from what was read a moment before.
func TestABusyObjectIsWritten(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.a.put(routeJSON("r", 1, entryOf(theirs, "a")))
		r.a.latency = 30 * time.Millisecond
		var wg sync.WaitGroup
		done := make(chan int)
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(100 * time.Millisecond):
					r.a.edit(routeR, func(map[string]any) {})
				}
			}
		})
		defer wg.Wait()
		defer close(done)
		old := r.a.snapshot()
		time.Sleep(150 * time.Millisecond)
		r.writeOf(old, wantR(acceptedR), 3*time.Second)
		if !strings.Contains(r.a.raw(routeR), ours) {
			r.Errorf("the status is %s", r.a.raw(routeR))
		}
	})
}

func TestStatusOfAnOlderGenerationIsNeverWritten(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.a.put(routeJSON("r", 1))
		old := r.a.snapshot()
		r.a.meet(func(q *http.Request, _ []byte) *http.Response {
			if q.Method == http.MethodPatch && r.a.count(http.MethodPatch, "") == 1 {
				r.a.edit(routeR, func(o map[string]any) { o["metadata"].(map[string]any)["generation"] = 2.0 })
			}
			return nil
		})
		r.writeOf(old, wantR(acceptedR), time.Second)
		r.writeOf(old, wantR(acceptedR), time.Second) // an offer that comes before the informer has seen the change
		if n := r.a.count(http.MethodPatch, ""); n != 1 {
			r.Errorf("%d patches, want the one that met with a conflict", n)
		}
		if got := r.a.raw(routeR); got != "null" {
			r.Errorf("the status is %s", got)
		}
		r.write(wantR("web Accepted=True Accepted II"), time.Second)
		if got := r.a.raw(routeR); !strings.Contains(got, `"observedGeneration":2`) {
			r.Errorf("the status is %s", got)
		}
	})
}

func TestWhatIsGoneIsNoTrouble(t *testing.T) {
	inBubble(t, func(r *rig) {
		want := r.routes(3)
		snap := r.a.snapshot()
		gone := object.Ref{Kind: "HTTPRoute", Namespace: "shop", Name: "r0001"}
		r.a.remove(gone)
		r.writeOf(snap, want, time.Second)
		if r.saw(Gone) != 1 || r.saw(Written) != 2 {
			r.Errorf("results: %v", r.results)
		}
		r.writeOf(snap, want, time.Second)
		r.wantCalls(3)
		r.a.put(routeJSON("r0001", 1)) // another of the same name
		r.write(want, time.Second)
		r.wantCalls(4)
		if !strings.Contains(r.a.raw(gone), ours) {
			r.Error("the new object has no status")
		}
	})
}

func TestWhatIsCreatedAgainIsWrittenAtOnce(t *testing.T) {
	inBubble(t, func(r *rig) {
		for range 5 {
			r.a.put(routeJSON("r", 1))
			r.write(wantR(acceptedR), 10*time.Millisecond)
			if !strings.Contains(r.a.raw(routeR), ours) {
				r.Error("there is no status")
			}
			r.a.remove(routeR)
		}
	})
}

// An API server that was set back to a backup has older versions than are known.
func TestABackupIsBelievedAfterAWhile(t *testing.T) {
	inBubble(t, func(r *rig) {
		for range 10 {
			r.a.put(routeJSON("r", 1))
		}
		r.write(wantR(acceptedR), time.Second)
		r.a.mu.Lock()
		r.a.version = 0
		r.a.mu.Unlock()
		r.a.put(routeJSON("r", 1))
		for range 3 {
			r.write(wantR(acceptedR), time.Second)
			time.Sleep(40 * time.Second)
		}
		if !strings.Contains(r.a.raw(routeR), ours) {
			r.Error("there is no status")
		}
	})
}

func TestAnotherObjectOfTheSameNameIsNotWritten(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.a.put(routeJSON("r", 1, entryOf(theirs, "a")))
		snap := r.a.snapshot()
		r.a.remove(routeR)
		r.a.put(routeJSON("r", 1, entryOf(theirs, "b")))
		r.writeOf(snap, wantR(acceptedR), time.Second)
		if got := r.a.raw(routeR); strings.Contains(got, ours) {
			r.Errorf("the status of the new object is %s", got)
		}
		r.write(wantR("other Accepted=True Accepted I"), time.Second)
		if got := r.a.raw(routeR); !strings.Contains(got, `"name":"other"`) {
			r.Errorf("the status of the new object is %s", got)
		}
	})
}

func TestOutage(t *testing.T) {
	for name, answer := range map[string]func() *http.Response{
		"the API server is not there":         func() *http.Response { return hangUp },
		"the API server has internal trouble": func() *http.Response { return failure(500, metav1.StatusReasonInternalError, "etcd is not there") },
		"the API server is overloaded":        func() *http.Response { return failure(429, metav1.StatusReasonTooManyRequests, "later") },
		"the token has expired":               func() *http.Response { return failure(401, metav1.StatusReasonUnauthorized, "who are you") },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				want := r.routes(300)
				r.a.latency = 5 * time.Millisecond
				r.a.meet(func(*http.Request, []byte) *http.Response { return answer() })
				r.w.Offer(r.a.snapshot(), want, nil)
				time.Sleep(5 * time.Minute)
				if n := r.a.total(); n < 31 || n > 60 {
					r.Errorf("a server that is not there was asked %d times in five minutes", n)
				}
				r.a.meet(nil)
				time.Sleep(31 * time.Second)
				if n := r.saw(Written); n != 300 {
					r.Errorf("%d of 300 were written after the outage", n)
				}
			})
		})
	}
}

func TestASlowAPIServerIsWaitedForOnlySoLong(t *testing.T) {
	inBubbleWith(t, Options{Timeout: 3 * time.Second}, func(r *rig) {
		r.a.put(routeJSON("r", 1))
		r.a.latency = time.Hour
		r.w.Offer(r.a.snapshot(), wantR(acceptedR), nil)
		time.Sleep(3100 * time.Millisecond)
		if r.saw(Failed) != 1 {
			r.Errorf("results: %v", r.results)
		}
		r.a.mu.Lock()
		r.a.latency = time.Second
		r.a.mu.Unlock()
		time.Sleep(5 * time.Second)
		if !strings.Contains(r.a.raw(routeR), ours) {
			r.Error("the status was not written when the API server was fast enough again")
		}
	})
}

func TestARefusedStatusDoesNotHoldUpTheOthers(t *testing.T) {
	for name, answer := range map[string]*http.Response{
		"forbidden": failure(403, metav1.StatusReasonForbidden, "no"),
		"invalid":   failure(422, metav1.StatusReasonInvalid, "no"),
		"too large": failure(413, metav1.StatusReasonRequestEntityTooLarge, "no"),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				want := r.routes(50)
				r.a.meet(func(q *http.Request, _ []byte) *http.Response {
					if q.Method == http.MethodPatch && strings.Contains(q.URL.Path, "r0000") {
						again := *answer
						again.Body = failure(answer.StatusCode, metav1.StatusReason(map[int]string{403: "Forbidden", 422: "Invalid", 413: "RequestEntityTooLarge"}[answer.StatusCode]), "no").Body
						return &again
					}
					return nil
				})
				snap := r.a.snapshot()
				r.w.Offer(snap, want, nil)
				time.Sleep(time.Minute)
				if n := r.saw(Written); n != 49 {
					r.Errorf("%d of the 49 others were written", n)
				}
				if n := r.a.count(http.MethodPatch, "r0000"); n < 4 || n > 9 {
					r.Errorf("the one was tried %d times in a minute", n)
				}
				time.Sleep(10 * time.Minute)
				r.a.meet(nil)
				// Another status for it is tried at once, the same one is not.
				r.w.Offer(snap, want, nil)
				synctest.Wait()
				if n := r.saw(Written); n != 49 {
					r.Errorf("what was refused was tried again at once")
				}
				other := compile.Status{HTTPRoutes: maps.Clone(want.HTTPRoutes)}
				other.HTTPRoutes[object.Key{Namespace: "shop", Name: "r0000"}] = parentsOf("other Accepted=True Accepted I")
				r.writeOf(snap, other, time.Second)
				if n := r.saw(Written); n != 50 {
					r.Errorf("another status for the one that was refused was not tried at once")
				}
			})
		})
	}
}

func TestANewerOfferTakesThePlaceOfTheOneBefore(t *testing.T) {
	inBubble(t, func(r *rig) {
		first := r.routes(200)
		second := compile.Status{HTTPRoutes: map[object.Key]gatewayv1.HTTPRouteStatus{}}
		for key := range first.HTTPRoutes {
			second.HTTPRoutes[key] = parentsOf("web Accepted=False NoMatchingParent I")
		}
		r.a.latency = time.Second
		snap := r.a.snapshot()
		returned := make(chan time.Time, 1)
		begun := time.Now()
		go func() {
			r.w.Write(r.Context(), snap, first, nil)
			returned <- time.Now()
		}()
		time.Sleep(1500 * time.Millisecond)
		r.writeOf(snap, second, time.Minute)
		if at := (<-returned).Sub(begun); at != 1500*time.Millisecond {
			r.Errorf("the first Write returned after %s, want when it was superseded", at)
		}
		for key := range first.HTTPRoutes {
			if got := r.a.raw(object.Ref{Kind: "HTTPRoute", Namespace: key.Namespace, Name: key.Name}); !strings.Contains(got, "NoMatchingParent") {
				r.Fatalf("%s: the status is %s", key, got)
			}
		}
		if n := r.a.count(http.MethodPatch, ""); n != 200+2*16 {
			r.Errorf("%d patches; want one for each of 200, and one for each of the 32 that were sent before", n)
		}
		if r.a.busiest != 16 || r.saw(Conflict) != 0 {
			r.Errorf("%d requests at a time, %d conflicts", r.a.busiest, r.saw(Conflict))
		}
	})
}

// A thousand routes come within a second, each with a new offer, from informers that lag behind.
func TestManyRoutesMeanFewWritesOfTheirGateway(t *testing.T) {
	inBubble(t, func(r *rig) {
		gateway := r.a.put(gatewayJSON(`,"status":{"conditions":[` + pending + `]}`))
		r.a.latency = 5 * time.Millisecond
		want := compile.Status{HTTPRoutes: map[object.Key]gatewayv1.HTTPRouteStatus{}}
		offer := func() {
			want.Gateways = map[object.Key]gatewayv1.GatewayStatus{
				gateway.Key(): gatewayStatus(listenerStatus("web", int32(len(want.HTTPRoutes)), "Accepted=True Accepted II")),
			}
			r.w.Offer(r.a.snapshot(), compile.Status{HTTPRoutes: maps.Clone(want.HTTPRoutes), Gateways: want.Gateways}, nil)
		}
		offer()
		time.Sleep(time.Minute)
		if n := r.a.total(); n != 1 {
			r.Errorf("%d requests for the Gateway alone", n)
		}
		for i := range 1000 {
			ref := r.a.put(routeJSON(fmt.Sprintf("r%04d", i), 1))
			want.HTTPRoutes[ref.Key()] = parentsOf("web Accepted=True Accepted I")
			if i%25 == 24 {
				offer()
				time.Sleep(25 * time.Millisecond)
			}
		}
		time.Sleep(700 * time.Millisecond)
		if got := r.a.raw(gateway, "listeners", 0, "attachedRoutes"); got != "1000" {
			r.Errorf("%s routes are attached 0.7 s after the last came", got)
		}
		if n := r.a.count(http.MethodPatch, "httproutes"); n != 1000 {
			r.Errorf("%d patches of 1,000 routes", n)
		}
		if n := r.a.count(http.MethodPatch, "gateways"); n > 6 {
			r.Errorf("%d patches of the Gateway", n)
		}
		if n := r.a.count(http.MethodGet, ""); n != 0 {
			r.Errorf("%d gets", n)
		}
	})
}

func TestAGatewayIsWrittenPromptly(t *testing.T) {
	inBubble(t, func(r *rig) {
		gateway := r.a.put(gatewayJSON(`,"status":{"conditions":[` + pending + `]}`))
		offer := func(s gatewayv1.GatewayStatus) {
			r.w.Offer(r.a.snapshot(), compile.Status{Gateways: map[object.Key]gatewayv1.GatewayStatus{gateway.Key(): s}}, nil)
			synctest.Wait()
		}
		attached := func(want string) {
			r.Helper()
			if got := r.a.raw(gateway, "listeners", 0, "attachedRoutes"); got != want {
				r.Errorf("attachedRoutes is %s, want %s", got, want)
			}
		}
		offer(gatewayStatus(listenerStatus("web", 0)))
		time.Sleep(time.Second)
		offer(gatewayStatus(listenerStatus("web", 1)))
		attached("1") // alone, at once
		offer(gatewayStatus(listenerStatus("web", 2)))
		time.Sleep(499 * time.Millisecond)
		attached("1") // shortly after another: after a while
		offer(gatewayStatus(listenerStatus("web", 3)))
		time.Sleep(time.Millisecond)
		synctest.Wait()
		attached("3")
		offer(gatewayStatus(listenerStatus("web", 4)))
		attached("3")
		news := gatewayStatus(listenerStatus("web", 5))
		news.Conditions[1] = cond("Programmed=False AddressNotUsable II", metav1.Time{})
		offer(news) // more than a count: at once
		attached("5")
		// Nor is it written twice when the time comes at which the count would have been written.
		offer(gatewayStatus(listenerStatus("web", 6)))
		r.a.latency = time.Second
		n := r.a.total()
		news.Listeners[0].AttachedRoutes = 7
		news.Conditions[1] = cond("Programmed=False NoResources II", metav1.Time{})
		offer(news)
		time.Sleep(3 * time.Second)
		attached("7")
		r.wantCalls(n + 1)
	})
}

// News of a Gateway does not wait for the routes.
func TestAGatewayGoesFirst(t *testing.T) {
	inBubble(t, func(r *rig) {
		want := r.routes(500)
		gateway := r.a.put(gatewayJSON(""))
		want.Gateways = map[object.Key]gatewayv1.GatewayStatus{gateway.Key(): gatewayStatus(listenerStatus("web", 500))}
		r.a.latency = 100 * time.Millisecond
		r.w.Offer(r.a.snapshot(), want, nil)
		time.Sleep(150 * time.Millisecond)
		if !strings.Contains(r.a.raw(gateway), "Programmed") {
			r.Error("the Gateway has no status yet")
		}
	})
}

func TestARivalIsNotFought(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.a.put(routeJSON("r", 1))
		undo := func() {
			r.a.edit(routeR, func(o map[string]any) { delete(o, "status") })
			r.w.Offer(r.a.snapshot(), wantR(acceptedR), nil)
		}
		writes := func() int { return r.saw(Written) }
		for range 3600 {
			synctest.Wait()
			if strings.Contains(r.a.raw(routeR), ours) {
				undo()
			} else {
				r.w.Offer(r.a.snapshot(), wantR(acceptedR), nil)
			}
			time.Sleep(time.Second)
		}
		if n := writes(); n < 8 || n > 22 {
			r.Errorf("the status was written %d times in an hour", n)
		}
		// Something else to say is said at once.
		n := writes()
		r.a.edit(routeR, func(o map[string]any) { o["metadata"].(map[string]any)["generation"] = 2.0 })
		r.write(wantR("web Accepted=True Accepted II"), time.Second)
		if writes() != n+1 {
			r.Error("news was not written")
		}
		// After a long peace the rival is no rival.
		time.Sleep(time.Hour)
		for range 3 {
			r.a.edit(routeR, func(o map[string]any) { delete(o, "status") })
			r.w.Offer(r.a.snapshot(), wantR("web Accepted=True Accepted II"), nil)
			time.Sleep(1100 * time.Millisecond)
		}
		if got := writes() - n - 1; got != 3 {
			r.Errorf("after a long peace, the status was written %d times, want 3", got)
		}
	})
}

func TestWhatIsNotOursAnyMoreIsLeftAlone(t *testing.T) {
	inBubble(t, func(r *rig) {
		gateway := r.a.put(gatewayJSON(""))
		want := compile.Status{Gateways: map[object.Key]gatewayv1.GatewayStatus{gateway.Key(): gatewayStatus()}}
		r.a.latency = time.Second
		r.w.Offer(r.a.snapshot(), want, nil)
		time.Sleep(500 * time.Millisecond)
		r.writeOf(r.a.snapshot(), compile.Status{}, 2*time.Second) // while it is being written
		r.write(compile.Status{}, 2*time.Second)
		r.wantCalls(1)
		r.a.edit(gateway, func(o map[string]any) { delete(o, "status") })
		r.write(compile.Status{}, 2*time.Second)
		r.wantCalls(1)
	})
}

func TestWhatIsNotOursAnyMoreIsNotTriedAgain(t *testing.T) {
	inBubble(t, func(r *rig) {
		gateway := r.a.put(gatewayJSON(""))
		want := compile.Status{Gateways: map[object.Key]gatewayv1.GatewayStatus{gateway.Key(): gatewayStatus()}}
		r.a.latency = time.Second
		r.a.meet(func(*http.Request, []byte) *http.Response { return failure(403, metav1.StatusReasonForbidden, "no") })
		snap := r.a.snapshot()
		r.w.Offer(snap, want, nil)
		time.Sleep(500 * time.Millisecond)
		r.w.Offer(snap, compile.Status{}, nil) // while it is being written
		time.Sleep(time.Minute)
		r.wantCalls(1)
	})
}

func TestEntriesOfRoutesThatAreNotOursAnyMoreGo(t *testing.T) {
	inBubble(t, func(r *rig) {
		foreign := entryOf(theirs, "a")
		r.a.put(routeJSON("r", 1, entryOf(ours, "a"), foreign))
		r.write(compile.Status{}, time.Second)
		if got := r.a.raw(routeR); got != `{"parents":[`+foreign+`]}` {
			r.Errorf("the status is %s", got)
		}
	})
}

func TestNothingIsWrittenAfterRunEnds(t *testing.T) {
	inBubble(t, func(r *rig) {
		want := r.routes(100)
		r.a.latency = time.Second
		r.w.Offer(r.a.snapshot(), want, nil)
		time.Sleep(1500 * time.Millisecond)
		r.stop()
		n := r.a.total()
		if n != 32 {
			r.Errorf("%d requests", n)
		}
		ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
		defer cancel()
		r.w.Write(ctx, r.a.snapshot(), want, nil) // waits for Run, in vain
		r.wantCalls(n)
		r.run() // the leader again
		r.writeOf(r.a.snapshot(), want, time.Minute)
		for key := range want.HTTPRoutes {
			if got := r.a.raw(object.Ref{Kind: "HTTPRoute", Namespace: key.Namespace, Name: key.Name}); !strings.Contains(got, ours) {
				r.Fatalf("%s: the status is %s", key, got)
			}
		}
		if n := r.a.count(http.MethodPatch, ""); n > 132 {
			r.Errorf("%d patches", n)
		}
	})
}

func TestRunWritesWhatWasOfferedBefore(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.stop()
		r.a.put(routeJSON("r", 1))
		r.w.Offer(r.a.snapshot(), wantR("old Accepted=True Accepted I"), nil)
		r.w.Offer(r.a.snapshot(), wantR(acceptedR), nil)
		r.run()
		synctest.Wait()
		if got := r.a.raw(routeR); !strings.Contains(got, `"name":"web"`) || strings.Contains(got, "old") {
			r.Errorf("the status is %s", got)
		}
		r.wantCalls(1)
	})
}

func TestOffersFromEverywhere(t *testing.T) {
	inBubble(t, func(r *rig) {
		want := r.routes(50)
		snap := r.a.snapshot()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 20 {
					r.w.Write(r.Context(), snap, want, nil)
				}
			})
		}
		wg.Wait()
		r.writeOf(snap, want, time.Second)
		r.wantCalls(50)
	})
}

// eventsOf returns the Events that were created, by their names.
func (r *rig) eventsOf(namespace string) map[string]map[string]any {
	r.a.mu.Lock()
	defer r.a.mu.Unlock()
	out := map[string]map[string]any{}
	for path, o := range r.a.objects {
		if name, ok := strings.CutPrefix(path, "/apis/events.k8s.io/v1/namespaces/"+namespace+"/events/"); ok {
			out[name] = o
		}
	}
	return out
}

func problem(severity compile.Severity, message string) compile.Problem {
	return compile.Problem{Object: routeR, Field: "spec.rules[0]", Code: "BackendNotFound", Severity: severity, Message: message}
}

func TestEvents(t *testing.T) {
	inBubbleWith(t, Options{Events: true, Instance: "fairlead-abc"}, func(r *rig) {
		r.a.put(routeJSON("r", 1))
		uid := string(r.a.object(routeR).GetUID())
		offer := func(problems ...compile.Problem) {
			r.w.Offer(r.a.snapshot(), compile.Status{}, problems)
			synctest.Wait()
		}
		one := problem(compile.Error, "Service shop/x does not exist")
		offer(one, problem(compile.Note, "not worth an Event"), compile.Problem{Object: object.Ref{Kind: "HTTPRoute", Namespace: "shop", Name: "gone"}, Severity: compile.Error})
		for name, e := range r.eventsOf("shop") {
			got := asJSON(map[string]any{"regarding": e["regarding"], "note": e["note"], "reason": e["reason"], "type": e["type"], "c": e["reportingController"], "i": e["reportingInstance"]})
			want := `{"c":"fairlead.io/gateway-controller","i":"fairlead-abc","note":"spec.rules[0]: Service shop/x does not exist","reason":"BackendNotFound","regarding":{` +
				`"apiVersion":"gateway.networking.k8s.io/v1","kind":"HTTPRoute","name":"r","namespace":"shop","uid":"` + uid + `"},"type":"Warning"}`
			if got != want || !strings.HasPrefix(name, "r.") || e["action"] == "" || e["eventTime"] == nil {
				r.Errorf("the Event %s is\n%s\nwant\n%s", name, got, want)
			}
		}
		r.wantCalls(1)
		for range 10 { // it lasts
			offer(one)
		}
		r.wantCalls(1)
		offer() // it goes, and comes again soon
		offer(one)
		r.wantCalls(1)
		offer(one, problem(compile.Error, "Service shop/y does not exist"), problem(compile.Warning, "slow"))
		r.wantCalls(3)
		if n := len(r.eventsOf("shop")); n != 3 {
			r.Errorf("there are %d Events", n)
		}
		for range 12 { // it goes for a long time
			time.Sleep(time.Minute)
			offer()
		}
		offer(one)
		r.wantCalls(4)
		if n := len(r.eventsOf("shop")); n != 3 || r.announced(Known) != 1 {
			r.Errorf("there are %d Events; %v", n, r.events)
		}
		r.stop()
		r.run() // another leader
		synctest.Wait()
		offer(one)
		if n := len(r.eventsOf("shop")); n != 3 || r.announced(Known) != 2 {
			r.Errorf("there are %d Events after a change of the leader; %v", n, r.events)
		}
	})
}

func TestWhatEventsAreAbout(t *testing.T) {
	meta := metav1.ObjectMeta{Namespace: "shop", Name: "x", UID: "u"}
	class := metav1.ObjectMeta{Name: "x", UID: "u"}
	key := object.KeyOf(&meta)
	s := &object.Snapshot{
		GatewayClasses:          map[string]*gatewayv1.GatewayClass{"x": {ObjectMeta: class}},
		IngressClasses:          map[string]*networkingv1.IngressClass{"x": {ObjectMeta: class}},
		ListenerSets:            map[object.Key]*gatewayv1.ListenerSet{key: {ObjectMeta: meta}},
		BackendTLSPolicies:      map[object.Key]*gatewayv1.BackendTLSPolicy{key: {ObjectMeta: meta}},
		XBackendTrafficPolicies: map[object.Key]*gatewayx.XBackendTrafficPolicy{key: {ObjectMeta: meta}},
		XBackends:               map[object.Key]*gatewayx.XBackend{key: {ObjectMeta: meta}},
		Gateways:                map[object.Key]*gatewayv1.Gateway{key: {ObjectMeta: meta}},
		HTTPRoutes:              map[object.Key]*gatewayv1.HTTPRoute{key: {ObjectMeta: meta}},
		ReferenceGrants:         map[object.Key]*gatewayv1.ReferenceGrant{key: {ObjectMeta: meta}},
		Ingresses:               map[object.Key]*networkingv1.Ingress{key: {ObjectMeta: meta}},
		Services:                map[object.Key]*corev1.Service{key: {ObjectMeta: meta}},
	}
	for kind, version := range map[string]string{
		"GatewayClass": "gateway.networking.k8s.io/v1", "Gateway": "gateway.networking.k8s.io/v1", "HTTPRoute": "gateway.networking.k8s.io/v1",
		"XBackend":              "gateway.networking.x-k8s.io/v1alpha1",
		"XBackendTrafficPolicy": "gateway.networking.x-k8s.io/v1alpha1",
		"BackendTLSPolicy":      "gateway.networking.k8s.io/v1", "ListenerSet": "gateway.networking.k8s.io/v1", "ReferenceGrant": "gateway.networking.k8s.io/v1", "IngressClass": "networking.k8s.io/v1", "Ingress": "networking.k8s.io/v1", "Service": "v1",
	} {
		ref := object.Ref{Kind: kind, Namespace: "shop", Name: "x"}
		if strings.HasSuffix(kind, "Class") {
			ref.Namespace = ""
		}
		want := corev1.ObjectReference{APIVersion: version, Kind: kind, Namespace: ref.Namespace, Name: "x", UID: "u"}
		if got, ok := regarding(s, ref); !ok || got != want {
			t.Errorf("%s: %+v, want %+v", kind, got, want)
		}
		ref.Name = "y"
		if _, ok := regarding(s, ref); ok {
			t.Errorf("%s: there is one that is not there", kind)
		}
	}
	if _, ok := regarding(s, object.Ref{Kind: "Secret", Namespace: "shop", Name: "x"}); ok {
		t.Error("an Event is about a Secret")
	}
}

func TestEventsAreOffByDefault(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.a.put(routeJSON("r", 1))
		r.w.Offer(r.a.snapshot(), compile.Status{}, []compile.Problem{problem(compile.Error, "x")})
		time.Sleep(time.Minute)
		r.wantCalls(0)
	})
}

func TestEventsKeepAPace(t *testing.T) {
	inBubbleWith(t, Options{Events: true}, func(r *rig) {
		r.a.put(routeJSON("r", 1))
		problems := make([]compile.Problem, 200)
		for i := range problems {
			problems[i] = problem(compile.Error, fmt.Sprint(i))
		}
		r.w.Offer(r.a.snapshot(), compile.Status{}, problems)
		synctest.Wait()
		if n := len(r.eventsOf("shop")); n != eventBurst {
			r.Errorf("%d Events at once, want %d", n, eventBurst)
		}
		time.Sleep(5*time.Second + time.Millisecond)
		synctest.Wait()
		if n := len(r.eventsOf("shop")); n != eventBurst+50 {
			r.Errorf("%d Events after five seconds, want %d", n, eventBurst+50)
		}
		r.w.Offer(r.a.snapshot(), compile.Status{}, problems[:110]) // the others are mended before their turn comes
		time.Sleep(time.Minute)
		if n := len(r.eventsOf("shop")); n != 110 {
			r.Errorf("%d Events in the end, want 110", n)
		}
	})
}

func TestEventsOutliveAnOutage(t *testing.T) {
	inBubbleWith(t, Options{Events: true}, func(r *rig) {
		r.a.put(routeJSON("r", 1))
		r.a.meet(func(*http.Request, []byte) *http.Response { return hangUp })
		r.w.Offer(r.a.snapshot(), compile.Status{}, []compile.Problem{problem(compile.Error, "x")})
		time.Sleep(time.Minute)
		if n := r.a.total(); n < 3 || n > 10 {
			r.Errorf("%d tries in a minute", n)
		}
		r.a.meet(func(*http.Request, []byte) *http.Response {
			return failure(403, metav1.StatusReasonForbidden, "namespace is terminating")
		})
		time.Sleep(time.Minute)
		n := r.a.total()
		time.Sleep(time.Minute)
		r.wantCalls(n) // refused, and that is that
		if r.announced(Refused) != 1 {
			r.Errorf("results: %v", r.events)
		}
	})
}

// As long as status cannot be written, Events need not be tried.
func TestEventsWaitForTheEndOfAnOutage(t *testing.T) {
	inBubbleWith(t, Options{Events: true}, func(r *rig) {
		r.a.put(routeJSON("r", 1))
		r.a.meet(func(*http.Request, []byte) *http.Response { return hangUp })
		r.w.Offer(r.a.snapshot(), wantR(acceptedR), []compile.Problem{problem(compile.Error, "x")})
		time.Sleep(5 * time.Minute)
		if n := r.a.count(http.MethodPost, ""); n > 2 {
			r.Errorf("%d tries to create an Event during an outage", n)
		}
		r.a.meet(nil)
		time.Sleep(time.Minute)
		if n := len(r.eventsOf("shop")); n != 1 {
			r.Errorf("%d Events after the outage", n)
		}
	})
}

func TestEventsKeepWithinTheLimits(t *testing.T) {
	inBubbleWith(t, Options{Events: true, Instance: strings.Repeat("i", 300)}, func(r *rig) {
		long := strings.Repeat("a", 236) + "." + strings.Repeat("b", 16)
		ref := r.a.put(routeJSON(long, 1))
		class := r.a.put(`{"apiVersion":"gateway.networking.k8s.io/v1","kind":"GatewayClass","metadata":{"name":"fairlead"},"spec":{}}`)
		r.w.Offer(r.a.snapshot(), compile.Status{}, []compile.Problem{
			{Object: ref, Code: strings.Repeat("C", 200), Severity: compile.Error, Message: strings.Repeat("ä", 1000)},
			{Object: class, Code: "InvalidParameters", Severity: compile.Error, Message: "x"},
		})
		synctest.Wait()
		events := r.eventsOf("shop")
		if len(events) != 1 || len(r.eventsOf("default")) != 1 {
			r.Errorf("%d Events, and %d about objects without a namespace", len(events), len(r.eventsOf("default")))
		}
		for name, e := range events {
			note := e["note"].(string)
			if len(name) > 253 || strings.Contains(name, "..") || len(e["reason"].(string)) > 128 || len(e["reportingInstance"].(string)) > 128 ||
				len(note) > 1024 || !strings.HasSuffix(note, "ä") {
				r.Errorf("the Event %s is %s", name, asJSON(e))
			}
		}
	})
}

func TestWhatAStatusCannotHoldIsAnEvent(t *testing.T) {
	inBubbleWith(t, Options{Events: true}, func(r *rig) {
		have := make([]string, 32)
		for i := range have {
			have[i] = entryOf(theirs, fmt.Sprint(i))
		}
		r.a.put(routeJSON("r", 1, have...))
		for range 3 {
			r.write(wantR(acceptedR), time.Second)
		}
		synctest.Wait()
		r.wantCalls(1)
		for _, e := range r.eventsOf("shop") {
			if e["reason"] != "TooManyParents" {
				r.Errorf("the Event is %s", asJSON(e))
			}
		}
	})
}

func TestWaitingIsTold(t *testing.T) {
	var most, last int
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		opt := Options{Hooks: Hooks{Waiting: func(n int) { most, last = max(most, n), n }}}
		opt.Kubernetes, opt.Gateway = a.clients()
		r := &rig{T: t, a: a, w: New(opt)}
		r.run()
		r.write(r.routes(40), time.Second)
		r.stop()
	})
	if most != 40 || last != 0 {
		t.Errorf("at most %d waited, and %d in the end; want 40 and 0", most, last)
	}
}

func BenchmarkNothingToWrite(b *testing.B) {
	snap := &object.Snapshot{HTTPRoutes: map[object.Key]*gatewayv1.HTTPRoute{}}
	want := compile.Status{HTTPRoutes: map[object.Key]gatewayv1.HTTPRouteStatus{}}
	for i := range 5000 {
		status := parentsOf("web Accepted=True Accepted I;ResolvedRefs=True ResolvedRefs I")
		text, err := json.Marshal(status)
		if err != nil {
			b.Fatal(err)
		}
		route := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprint("r", i), Generation: 1}, Status: *decode[gatewayv1.HTTPRouteStatus](string(text))}
		for j := range route.Status.Parents[0].Conditions {
			route.Status.Parents[0].Conditions[j].LastTransitionTime = before
		}
		snap.HTTPRoutes[object.KeyOf(route)], want.HTTPRoutes[object.KeyOf(route)] = route, status
	}
	l := newLoop(unconnected())
	o := &offer{snap: snap, want: &want, done: make(chan struct{})}
	b.ReportAllocs()
	for b.Loop() {
		l.take(o, now.Time)
	}
	if l.waiting() != 0 {
		b.Fatalf("%d objects are to be written", l.waiting())
	}
}
