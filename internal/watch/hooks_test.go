package watch

import (
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// tally counts calls of hooks.
type tally struct {
	mu    sync.Mutex
	calls map[string]int
}

func (y *tally) note(call string) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.calls == nil {
		y.calls = map[string]int{}
	}
	y.calls[call]++
}

// take returns what was counted since the last time.
func (y *tally) take() map[string]int {
	y.mu.Lock()
	defer y.mu.Unlock()
	calls := y.calls
	y.calls = nil
	return calls
}

func (y *tally) hooks() Hooks {
	return Hooks{
		Event:  func(kind string, event Event) { y.note(fmt.Sprint(event, " ", kind)) },
		Failed: func(kind string) { y.note("failed " + kind) },
		Synced: func() { y.note("synced") },
	}
}

// each returns a tally of one call for every kind that is watched.
func each(what string) map[string]int {
	out := map[string]int{}
	for kind := range kindOf {
		if kind != "nodes" {
			out[what+" "+kind] = 1
		}
	}
	return out
}

// Hooks are told of each list and each event of a kind, once, of failures, and once in all that everything was listed.
func TestHooks(t *testing.T) {
	inBothModes(t, func(t *testing.T, a *fakeAPI) {
		a.put(oneOfEach()...)
		var y tally
		c := start(t, a, func(o *Options) { o.Hooks = y.hooks() })
		defer c.Close()
		check := func(what string, want map[string]int) {
			t.Helper()
			if diff := cmp.Diff(want, y.take()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
		}
		want := each("list")
		want["synced"] = 1
		if !a.streaming { // it was asked for a stream of what there is first
			maps.Copy(want, each("failed"))
		}
		check("at the start", want)

		a.put(service("shop", "new"))
		advance(time.Second)
		check("a Service is added", map[string]int{"add services": 1})
		a.put(service("shop", "new"))
		advance(time.Second)
		check("it changes", map[string]int{"update services": 1})
		a.remove(service("shop", "new"))
		advance(time.Second)
		check("it goes", map[string]int{"delete services": 1})

		a.stop(true)
		advance(10 * time.Second)
		failed := y.take()
		for call, times := range each("failed") {
			if failed[call] < times {
				t.Errorf("while the API server was away nothing was said of %s; got %v", call, failed)
			}
			delete(failed, call)
		}
		if len(failed) > 0 {
			t.Errorf("while the API server was away: %v", failed)
		}

		a.stop(false)
		a.expire()
		advance(30 * time.Second)
		back := y.take()
		maps.DeleteFunc(back, func(call string, _ int) bool { return each("failed")[call] > 0 })
		if diff := cmp.Diff(each("list"), back); diff != "" {
			t.Errorf("when it is back with nothing that it remembers (-want +got):\n%s", diff)
		}
	})
}

// Who gives no hooks is told nothing, and who gives some is told of those only.
func TestHooksMayBeMissing(t *testing.T) {
	inBothModes(t, func(t *testing.T, a *fakeAPI) {
		a.put(oneOfEach()...)
		var y tally
		c := start(t, a, func(o *Options) { o.Hooks = Hooks{Synced: y.hooks().Synced} })
		defer c.Close()
		a.stop(true)
		advance(10 * time.Second)
		if diff := cmp.Diff(map[string]int{"synced": 1}, y.take()); diff != "" {
			t.Error(diff)
		}
	})
}
