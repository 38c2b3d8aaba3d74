// Package provision makes the Services exist that the compiler wants for Gateways, and removes those of ours that no Gateway wants any more.
//
// The Services are the only record of which port of which Gateway is bound where, and every replica reads it. So nothing is ever written over a Service that is
// not the very one that the compiler saw: a write is good for one version of it, and when somebody else wrote first, what they wrote is looked at, and the wish
// is dropped if it could be about other binds. The next snapshot brings the next wish.
//
// What is not ours stays as it is: node ports, cluster addresses, the status, other labels, annotations and fields, and every Service without our labels. A
// Service that is as it should be costs no request.
package provision

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/gateway-api/pkg/client/clientset/versioned"

	"github.com/fairlead-io/fairlead/internal/compile"
	"github.com/fairlead-io/fairlead/internal/object"
)

// Options are what a Writer needs. Kubernetes is required; every other zero value works.
type Options struct {
	Kubernetes kubernetes.Interface
	// Gateway, if not nil, is asked before a Service is deleted because its Gateway is gone.
	Gateway versioned.Interface

	// Workers is how many Services are written at a time; 0 means 8.
	Workers int
	// Timeout limits one request to the API server; 0 means 15 s.
	Timeout time.Duration
	// Lag is how long to wait for a snapshot to show what was written before it is looked at again; 0 means 10 s. It is the exception that it takes so long.
	Lag time.Duration
	// Backoff is how long to wait before a write that failed is tried again as it was; 0 means a second. It doubles with every failure, up to a minute.
	Backoff time.Duration

	// Log gets what an operator should know; nil means that nobody is told.
	Log *slog.Logger
	// Now is the clock; nil means time.Now.
	Now   func() time.Time
	Hooks Hooks
}

// Hooks are called as things happen. Each may be nil, must return soon, and must be safe for concurrent use.
type Hooks struct {
	// Tried is called after each attempt to write a Service.
	Tried func(verb Verb, result Result)
}

// Verb is what was tried.
type Verb string

// The verbs.
const (
	Create Verb = "create"
	Patch  Verb = "patch"
	Delete Verb = "delete"
)

// Result is how an attempt to write ended.
type Result string

// The results.
const (
	Done   Result = "done"
	Stale  Result = "stale"  // the cluster is not what the wish was made from: a newer snapshot will say what to do
	Failed Result = "failed" // the API server does not take it, or cannot be reached
)

const maxBackoff = time.Minute

func (o Options) withDefaults() Options {
	orDefault(&o.Workers, 8)
	orDefault(&o.Timeout, 15*time.Second)
	orDefault(&o.Lag, 10*time.Second)
	orDefault(&o.Backoff, time.Second)
	orDefault(&o.Log, slog.New(slog.DiscardHandler))
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Hooks.Tried == nil {
		o.Hooks.Tried = func(Verb, Result) {}
	}
	return o
}

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Writer writes Services. Its methods are safe for concurrent use; only one process in the cluster should let it write at a time.
type Writer struct {
	opt    Options
	newest atomic.Pointer[compile.Infrastructure]
	wake   chan struct{} // holds one token while there is an offer that Run has not seen

	mu       sync.Mutex // held while Apply works; guards what follows
	attempts map[object.Key]attempt
}

// attempt is what was tried last for a Service, and until when it need not be tried again.
type attempt struct {
	seen   string // the version of the Service that the wish was made from; "" if there was none
	body   string // what was sent
	result Result
	times  int // how often in a row with the same result
	until  time.Time
}

// New returns a Writer that writes nothing before Apply or Run.
func New(opt Options) *Writer {
	return &Writer{opt: opt.withDefaults(), wake: make(chan struct{}, 1), attempts: make(map[object.Key]attempt)}
}

// Offer says what should exist, for Run to see to. A newer offer takes the place of the one before. It does not wait. Offer every result: a snapshot also shows
// what others did to the Services. The argument may not be modified afterwards.
func (w *Writer) Offer(want compile.Infrastructure) {
	w.newest.Store(&want)
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Run applies what is offered until ctx ends, and tries again what failed. Only the leader may run it.
func (w *Writer) Run(ctx context.Context) {
	timer := time.NewTimer(0) // what was offered before is still wanted
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-timer.C:
		}
		want := w.newest.Load()
		if want == nil {
			continue
		}
		if err := w.Apply(ctx, *want); err != nil && ctx.Err() == nil {
			w.opt.Log.Warn("Services of Gateways could not be written", "error", err)
		}
		if wait, ok := w.pause(); ok {
			timer.Reset(wait)
		}
	}
}

// pause is how long it is until something should be tried again; false: nothing should.
func (w *Writer) pause() (wait time.Duration, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.opt.Now()
	for _, a := range w.attempts {
		if left := max(a.until.Sub(now), time.Millisecond); !ok || left < wait {
			wait, ok = left, true
		}
	}
	return wait, ok
}

// Apply makes the cluster what want says, as far as it is still what want was compiled from, and returns once everything was tried. Nothing stops the rest: the
// error joins what went wrong with each Service. What failed is not tried again at once, even when asked to: see Options.Backoff. What turns out to be stale is
// no error, unless it stays so.
func (w *Writer) Apply(ctx context.Context, want compile.Infrastructure) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := &pass{Writer: w, places: make(chan struct{}, w.opt.Workers), keep: make(map[object.Key]bool)}
	p.claims = sync.OnceValues(func() (map[bind][]string, error) { return w.listClaims(ctx, want) })
	for i := range want.Services {
		p.wish(ctx, &want.Services[i])
	}
	for _, u := range want.Unwanted {
		p.unwanted(ctx, u, want.Owned)
	}
	p.wg.Wait()
	for key := range w.attempts {
		if !p.keep[key] {
			delete(w.attempts, key)
		}
	}
	return errors.Join(p.errs...)
}

// pass is one call of Apply.
type pass struct {
	*Writer

	claims func() (map[bind][]string, error) // once: which Service of ours leads to which bind at this moment
	places chan struct{}
	wg     sync.WaitGroup
	keep   map[object.Key]bool // attempts that still matter

	results sync.Mutex // guards what follows, and Writer.attempts, while jobs run
	errs    []error
}

// job is one write that may be due.
type job struct {
	key  object.Key
	verb Verb
	seen *corev1.Service
	body string
	do   func(ctx context.Context) (Result, error)
	why  string
}

// start does a job, unless it was tried already and nothing is new since.
func (p *pass) start(ctx context.Context, j job) {
	p.keep[j.key] = true
	p.results.Lock()
	last, tried := p.attempts[j.key]
	p.results.Unlock()
	seen := version(j.seen)
	same := tried && last.seen == seen && (last.result == Done || last.body == j.body)
	if same && p.opt.Now().Before(last.until) {
		return
	}
	p.wg.Go(func() {
		p.places <- struct{}{}
		defer func() { <-p.places }()
		ctx, cancel := context.WithTimeout(ctx, p.opt.Timeout)
		defer cancel()
		result, err := j.do(ctx)
		p.opt.Hooks.Tried(j.verb, result)
		a := attempt{seen: seen, body: j.body, result: result, times: 1}
		if same && last.result == result {
			a.times += last.times
		}
		p.finish(j, a, err)
	})
}

// finish notes how a job ended.
func (p *pass) finish(j job, a attempt, err error) {
	p.results.Lock()
	defer p.results.Unlock()
	wait := p.opt.Lag
	if a.result == Failed {
		wait = min(p.opt.Backoff<<min(a.times-1, 10), maxBackoff)
	}
	a.until = p.opt.Now().Add(wait)
	p.attempts[j.key] = a
	switch {
	case a.result == Stale && a.times > 1 && err == nil:
		p.errs = append(p.errs, &staleError{j.verb, j.key})
	case err != nil:
		p.errs = append(p.errs, err)
	case a.result == Done:
		p.opt.Log.Info("wrote a Service", "verb", j.verb, "service", j.key.String(), "for", j.why)
	}
}

// staleError says that a Service stays different from what is seen of it.
type staleError struct {
	verb Verb
	key  object.Key
}

func (e *staleError) Error() string {
	return string(e.verb) + " Service " + e.key.String() + ": the cluster has another than the one that is seen from here, and that does not change: is its namespace watched?"
}

func version(s *corev1.Service) string {
	if s == nil {
		return ""
	}
	return string(s.UID) + "/" + s.ResourceVersion
}
