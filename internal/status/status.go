// Package status writes what the compiler concluded into the status of the objects it concluded it about, and tells their authors of problems by Events.
//
// It touches what is ours and nothing else. Only what differs is sent, as a patch against the very version of the object that it was made from: entries and
// fields of other controllers never pass through this process, so they stay as they are, even those that no type of ours knows. An object whose status is as it
// should be costs no request.
//
// One loop decides what to write next. A newer Offer takes the place of the one before it, object by object: what is being written is finished, what is still
// to be written is written as the newer one has it.
package status

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/gateway-api/pkg/client/clientset/versioned"

	"github.com/fairlead-io/fairlead/internal/compile"
	"github.com/fairlead-io/fairlead/internal/object"
)

// Options are what a Writer needs. The clients are required; every other zero value works.
//
// The clients' own limits on requests a second (QPS and Burst in rest.Config) hold here too. The defaults of client-go are far too low for many routes.
type Options struct {
	Kubernetes kubernetes.Interface
	Gateway    versioned.Interface

	// GatewayController is the name that entries in the status of routes carry. Empty means compile.GatewayController.
	GatewayController string
	// Workers is how many objects are written at a time; 0 means 16.
	Workers int
	// GatewayPause is the least time between two writes of one Gateway in which only the numbers of what is attached to it changed; 0 means 500 ms.
	GatewayPause time.Duration
	// Timeout limits one request to the API server; 0 means 15 s.
	Timeout time.Duration

	// Events creates an Event (events.k8s.io/v1) for each problem that is an error or a warning.
	Events bool
	// Instance is the name of this process in Events, such as the name of the pod; empty means the host's name.
	Instance string

	// Log gets what an operator should know; nil means that nobody is told.
	Log *slog.Logger
	// Now is the clock that conditions and Events are dated by; nil means time.Now.
	Now   func() time.Time
	Hooks Hooks
}

// Hooks are called as things happen. Each may be nil, must return soon, and must be safe for concurrent use.
type Hooks struct {
	// Written is called after each attempt to write the status of an object.
	Written func(kind string, result Result)
	// Announced is called after each attempt to create an Event.
	Announced func(result Result)
	// Waiting is called with how many objects are still to be written, whenever that may have changed.
	Waiting func(objects int)
}

// Result is how an attempt to write ended.
type Result string

// The results.
const (
	Written  Result = "written"
	Conflict Result = "conflict" // somebody else wrote the object first: it is looked at again
	Gone     Result = "gone"     // the object, or the namespace for an Event, is not there any more
	Refused  Result = "refused"  // the API server does not take it: not permitted, or not valid
	Failed   Result = "failed"   // the API server cannot be reached or is overloaded
	Known    Result = "known"    // the Event exists already
)

func (o Options) withDefaults() Options {
	orDefault(&o.GatewayController, compile.GatewayController)
	orDefault(&o.Workers, 16)
	orDefault(&o.GatewayPause, 500*time.Millisecond)
	orDefault(&o.Timeout, 15*time.Second)
	if o.Instance == "" {
		o.Instance, _ = os.Hostname() // the next line has an answer for an error, too
	}
	orDefault(&o.Instance, "fairlead")
	orDefault(&o.Log, slog.New(slog.DiscardHandler))
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Hooks.Written == nil {
		o.Hooks.Written = func(string, Result) {}
	}
	if o.Hooks.Announced == nil {
		o.Hooks.Announced = func(Result) {}
	}
	if o.Hooks.Waiting == nil {
		o.Hooks.Waiting = func(int) {}
	}
	return o
}

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Writer writes status. Its methods are safe for concurrent use; Run must not run twice at a time.
type Writer struct {
	opt    Options
	kinds  []*kind
	newest atomic.Pointer[offer]
	wake   chan struct{} // holds one token while there is an offer that the loop has not seen
}

// offer is one compiled picture of the cluster. It is complete once everything in it is written, or a newer one took its place.
type offer struct {
	snap     *object.Snapshot
	want     *compile.Status
	problems []compile.Problem
	done     chan struct{}
	once     sync.Once
}

func (o *offer) finish() { o.once.Do(func() { close(o.done) }) }

// New returns a Writer that writes nothing before Run.
func New(opt Options) *Writer {
	w := &Writer{opt: opt.withDefaults(), wake: make(chan struct{}, 1)}
	w.kinds = w.allKinds()
	return w
}

// Offer says what the status of all objects should be: want and problems as they were compiled from snap. It does not wait. Offer every result, not only those
// with a new table, since snap also shows what others did to the status. None of the arguments may be modified afterwards.
//
// Offer only what holds: a table must be installed before its status is offered.
func (w *Writer) Offer(snap *object.Snapshot, want compile.Status, problems []compile.Problem) {
	w.offer(snap, want, problems)
}

// Write is Offer, and waits until all of it is written (Events excepted), a newer offer took its place, or ctx ends. It waits for Run, which must be running.
func (w *Writer) Write(ctx context.Context, snap *object.Snapshot, want compile.Status, problems []compile.Problem) {
	select {
	case <-w.offer(snap, want, problems).done:
	case <-ctx.Done():
	}
}

func (w *Writer) offer(snap *object.Snapshot, want compile.Status, problems []compile.Problem) *offer {
	o := &offer{snap: snap, want: &want, problems: problems, done: make(chan struct{})}
	if old := w.newest.Swap(o); old != nil {
		old.finish()
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
	return o
}

// Run writes what was offered last and what is offered from now on, until ctx ends. It returns when its last request has ended. Only one replica of Fairlead
// may run it at a time: the leader. It may be called again after it returned.
func (w *Writer) Run(ctx context.Context) {
	l := newLoop(w)
	defer l.wg.Wait()
	defer l.alarm.Stop()
	if o := w.newest.Load(); o != nil {
		l.take(o, time.Now())
	}
	for ctx.Err() == nil {
		l.start(ctx, time.Now())
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
			l.take(w.newest.Load(), time.Now())
		case r := <-l.results:
			l.settle(r, time.Now())
		case f := <-l.news.fates:
			l.news.settle(f, time.Now())
		case <-l.alarm.C:
			l.wake(time.Now())
		}
	}
}
