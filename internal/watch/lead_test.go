package watch

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/client-go/rest"
)

// election is some replicas, and who of them leads.
type election struct {
	t   *testing.T
	ctx context.Context
	a   *fakeAPI
	wg  sync.WaitGroup

	mu      sync.Mutex
	leading map[string]bool
	history []string
}

// replica is one of them. unreachable cuts it off from the server.
type replica struct {
	cancel      context.CancelFunc
	unreachable func(bool)
}

func (e *election) join(name string, linger time.Duration) *replica {
	ctx, cancel := context.WithCancel(e.ctx)
	var mu sync.Mutex
	lost := false
	config := e.a.config()
	config.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		mu.Lock()
		gone := lost
		mu.Unlock()
		if gone {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}
		return e.a.RoundTrip(r)
	})
	e.wg.Go(func() {
		err := Lead(ctx, LeaderOptions{Config: config, Namespace: "fairlead", Identity: name}, func(leading context.Context) {
			e.note(name, true)
			<-leading.Done()
			time.Sleep(linger)
			e.note(name, false)
		})
		if err != nil {
			e.t.Error(err)
		}
	})
	return &replica{cancel: cancel, unreachable: func(b bool) { mu.Lock(); lost = b; mu.Unlock() }}
}

func (e *election) note(name string, leads bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if leads {
		e.leading[name] = true
		e.history = append(e.history, name)
	} else {
		delete(e.leading, name)
	}
	if len(e.leading) > 1 {
		e.t.Errorf("two lead: %v", e.leading)
	}
}

func (e *election) leader() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	for name := range e.leading {
		return name
	}
	return ""
}

func elect(t *testing.T, f func(t *testing.T, e *election)) {
	synctest.Test(t, func(t *testing.T) {
		e := &election{t: t, a: newFake(t), leading: map[string]bool{}}
		defer e.wg.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		e.ctx = ctx
		f(t, e)
	})
}

// A leader that stops hands the lead over within seconds; one that is killed, within 17.
func TestLead(t *testing.T) {
	elect(t, func(t *testing.T, e *election) {
		a := e.join("a", time.Second)
		advance(time.Second)
		b := e.join("b", 0)
		advance(time.Minute)
		if got := e.leader(); got != "a" {
			t.Fatalf("leader %q", got)
		}
		a.cancel()
		advance(4 * time.Second)
		if got := e.leader(); got != "b" {
			t.Fatalf("leader %q four seconds after the first stopped", got)
		}
		c := e.join("c", 0)
		advance(10 * time.Second)
		b.unreachable(true) // as good as killed, for the others
		advance(17 * time.Second)
		if got := e.leader(); got != "c" {
			t.Fatalf("leader %q 17 seconds after the second was lost", got)
		}
		b.unreachable(false)
		advance(time.Minute)
		if got := strings.Join(e.history, " "); got != "a b c" {
			t.Errorf("leaders: %s", got)
		}
		b.cancel()
		c.cancel()
	})
}

// A leader that is cut off stops in time, even if it takes a while to, and never releases what is not its own.
func TestLostLeaderStopsFirst(t *testing.T) {
	elect(t, func(t *testing.T, e *election) {
		a := e.join("a", 2*time.Second)
		advance(time.Second)
		b := e.join("b", 2*time.Second)
		for range 10 {
			a.unreachable(true)
			advance(25 * time.Second)
			if got := e.leader(); got != "b" {
				t.Fatalf("leader %q", got)
			}
			a.unreachable(false)
			advance(10 * time.Second)
			b.unreachable(true)
			advance(25 * time.Second)
			if got := e.leader(); got != "a" {
				t.Fatalf("leader %q", got)
			}
			b.unreachable(false)
			advance(10 * time.Second)
		}
		a.cancel()
		b.cancel()
	})
}

// A leader that is told to stop and takes a minute for it keeps the others waiting.
func TestSlowLeaderKeepsTheLease(t *testing.T) {
	elect(t, func(t *testing.T, e *election) {
		a := e.join("a", time.Minute)
		advance(time.Second)
		b := e.join("b", 0)
		advance(time.Second)
		a.cancel()
		advance(59 * time.Second)
		if got := e.leader(); got != "a" {
			t.Errorf("leader %q", got)
		}
		advance(4 * time.Second)
		if got := e.leader(); got != "b" {
			t.Errorf("leader %q", got)
		}
		b.cancel()
	})
}

// The lead survives an API server that is away for less than the lease lasts, and nobody leads for long without it.
func TestLeadInAnOutage(t *testing.T) {
	elect(t, func(t *testing.T, e *election) {
		a := e.join("a", 0)
		advance(5 * time.Second)
		e.a.stop(true)
		advance(6 * time.Second)
		e.a.stop(false)
		advance(20 * time.Second)
		if len(e.history) != 1 || e.leader() != "a" {
			t.Errorf("leaders: %v", e.history)
		}
		e.a.stop(true)
		advance(time.Minute)
		if got := e.leader(); got != "" {
			t.Errorf("%s leads without a Lease", got)
		}
		e.a.stop(false)
		advance(20 * time.Second)
		if got := e.leader(); got != "a" {
			t.Errorf("leader %q", got)
		}
		a.cancel()
		advance(time.Second)
		path, _ := pathOf(&coordinationv1.Lease{})
		if raw := string(e.a.objects[path][0].raw); !strings.Contains(raw, `"holderIdentity":""`) {
			t.Errorf("the Lease was not released: %s", raw)
		}
	})
}

// Whoever returns while it leads may lead again later.
func TestLeadEndsEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFake(t)
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		done := make(chan error)
		go func() {
			done <- Lead(ctx, LeaderOptions{Config: a.config(), Namespace: "fairlead"}, func(context.Context) { n++ })
		}()
		advance(time.Minute)
		cancel()
		if err := <-done; err != nil || n < 10 || n > 61 {
			t.Errorf("led %d times in a minute, error %v", n, err)
		}
	})
}

func TestLeaderOptions(t *testing.T) {
	for _, opt := range []LeaderOptions{
		{},
		{Config: &rest.Config{}},
		{Config: &rest.Config{Host: "::"}, Namespace: "x"},
		{Config: &rest.Config{}, Namespace: "x", Lease: time.Second},
	} {
		err := Lead(t.Context(), opt, func(context.Context) { t.Error("leads") })
		if err == nil || !strings.HasPrefix(fmt.Sprint(err), "elect a leader: ") {
			t.Errorf("%+v: %v", opt, err)
		}
	}
	opt, err := LeaderOptions{Config: &rest.Config{}, Namespace: "x"}.validate()
	if err != nil || opt.Lease != 12*time.Second || opt.Renew != 8*time.Second || opt.Retry != time.Second || opt.Name != "fairlead" || len(opt.Identity) < 20 {
		t.Errorf("%+v, %v", opt, err)
	}
}
