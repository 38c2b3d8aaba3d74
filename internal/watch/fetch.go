package watch

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-io/fairlead/internal/object"
)

const (
	maxWanted    = 500 // objects of a kind that are asked for by name, again and again
	maxAtOnce    = 4   // of them at a time
	answerWithin = 10 * time.Second
	// Of a kind that others wait for a few objects are asked for more often, because nothing else tells when they change.
	fewWanted    = 50
	refreshOfFew = 5 * time.Second
)

// fetcher reads objects by name.
type fetcher interface{ run(context.Context) }

// fetched is what was read by name of a kind that is not watched whole.
type fetched[T metav1.Object] struct {
	c          *Cluster
	kind       *kind
	shelf      *layered[T]
	get        func(context.Context, object.Key) (T, error)
	keep       func(T) bool // nil: every object
	namespaces []string     // that may be read; none: all
	urgent     bool         // see fewWanted
	wake       chan struct{}

	// Guarded by Cluster.mu.
	news    chan struct{} // closed when there are answers
	wanted  []object.Key
	answers map[object.Key]answer[T]
}

// answer is what the API server said of an object, and when.
type answer[T any] struct {
	object T
	found  bool
	at     time.Time
}

func newFetched[T metav1.Object](c *Cluster, k *kind, on *layered[T], get func(context.Context, object.Key) (T, error)) *fetched[T] {
	return &fetched[T]{c: c, kind: k, shelf: on, get: get, wake: make(chan struct{}, 1), news: make(chan struct{}), answers: map[object.Key]answer[T]{}}
}

func (f *fetched[T]) want(keys []object.Key) {
	wanted := slices.Compact(slices.SortedFunc(slices.Values(keys), object.Key.Compare))
	wanted = slices.DeleteFunc(wanted, func(k object.Key) bool { return len(f.namespaces) > 0 && !slices.Contains(f.namespaces, k.Namespace) })
	if over := len(wanted) - maxWanted; over > 0 {
		f.c.log.Debug("too many objects are referred to by name to ask for all of them", "kind", f.kind.name, "left_out", over)
		wanted = wanted[:maxWanted]
	}
	f.c.mu.Lock()
	same := slices.Equal(wanted, f.wanted)
	f.wanted = wanted
	f.c.mu.Unlock()
	if !same {
		f.poke()
	}
}

// poke makes run look at once.
func (f *fetched[T]) poke() {
	select {
	case f.wake <- struct{}{}:
	default: // is going to
	}
}

// missed notes that an object of a kind has gone, which may have been replaced by one that only its name finds.
func (c *Cluster) missed(k *kind) {
	if k == c.secrets.kind {
		c.secrets.poke()
	}
}

// run asks for what is wanted until ctx ends.
func (f *fetched[T]) run(ctx context.Context) {
	timer := time.NewTicker(f.c.opt.Refresh)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.wake:
		case <-timer.C:
		}
		f.store(f.ask(ctx, f.due()))
		timer.Reset(f.interval())
	}
}

// interval is how long an answer is good.
func (f *fetched[T]) interval() time.Duration {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if f.urgent && len(f.wanted) <= fewWanted {
		return min(refreshOfFew, f.c.opt.Refresh)
	}
	return f.c.opt.Refresh
}

// await waits until there is an answer for everything that is wanted, or ctx ends.
func (f *fetched[T]) await(ctx context.Context) {
	for {
		f.c.mu.Lock()
		news := f.news
		missing := slices.ContainsFunc(f.wanted, func(k object.Key) bool { _, asked := f.answers[k]; return !asked && !f.shelf.has(k) })
		f.c.mu.Unlock()
		if !missing {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-news:
		}
	}
}

// due returns the names to ask for: wanted, not there by other means, and not answered lately.
func (f *fetched[T]) due() []object.Key {
	now, good := f.c.opt.Now(), f.interval()
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	var out []object.Key
	for _, key := range f.wanted {
		if a, asked := f.answers[key]; !f.shelf.has(key) && (!asked || now.Sub(a.at) >= good) {
			out = append(out, key)
		}
	}
	return out
}

// ask asks for objects, a few at a time. Of what could not be found out there is no answer.
func (f *fetched[T]) ask(ctx context.Context, keys []object.Key) map[object.Key]answer[T] {
	var (
		mu   sync.Mutex
		wg   sync.WaitGroup
		out  = make(map[object.Key]answer[T], len(keys))
		left = make(chan object.Key)
	)
	for range min(maxAtOnce, len(keys)) {
		wg.Go(func() {
			for key := range left {
				if a, ok := f.one(ctx, key); ok {
					mu.Lock()
					out[key] = a
					mu.Unlock()
				}
			}
		})
	}
	for _, key := range keys {
		left <- key
	}
	close(left)
	wg.Wait()
	return out
}

func (f *fetched[T]) one(ctx context.Context, key object.Key) (a answer[T], ok bool) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	obj, err := f.get(ctx, key)
	a.at = f.c.opt.Now()
	switch {
	case apierrors.IsNotFound(err):
		return a, true
	case err != nil:
		if ctx.Err() == nil {
			f.c.log.Debug("cannot read an object that is referred to", "kind", f.kind.name, "object", key.String(), "error", err)
		}
		return a, false
	}
	if _, err := trim(obj); err != nil {
		return a, false
	}
	a.object, a.found = obj, f.keep == nil || f.keep(obj)
	return a, true
}

// store remembers answers, forgets what is not wanted any more, and shows what is left.
func (f *fetched[T]) store(answers map[object.Key]answer[T]) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	next := make(map[object.Key]answer[T], len(f.wanted))
	show := make(map[object.Key]T)
	for _, key := range f.wanted {
		old, known := f.answers[key]
		a, isNew := answers[key]
		if isNew && known && old.found && a.found && (sameVersion(old.object, a.object) || sameContent(old.object, a.object)) {
			a.object = old.object
		}
		if !isNew {
			a = old
		}
		if isNew || known {
			next[key] = a
		}
		if a.found {
			show[key] = a.object
		}
	}
	f.answers = next
	close(f.news)
	f.news = make(chan struct{})
	same := func(a, b T) bool { return metav1.Object(a) == metav1.Object(b) }
	if maps.EqualFunc(show, f.shelf.beneath, same) {
		return
	}
	f.shelf.lay(show)
	f.c.changed(f.kind)
}
