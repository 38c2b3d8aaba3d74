package watch

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

const (
	// answerTime is how long a list may take, and the first answer of a watch. API servers themselves end a list after a minute.
	answerTime = 75 * time.Second
	// graceTime is how much longer than it was asked for a watch may last.
	graceTime = 30 * time.Second
	// gapTime is how long a kind may be without a watch before that is worth talking about.
	gapTime = 2 * time.Second
	// settleTime is how long kinds that are back wait for the others.
	settleTime = 10 * time.Second
)

// errSlow is why a request was given up.
var errSlow = errors.New("the API server does not answer")

// session is how a reflector talks to the API server: with an end to everything that could take for ever, and with an eye on how it goes.
type session struct {
	source *source
	client client
}

func (x *session) listAll(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
	x.source.streamed(nil)
	ctx, cancel := context.WithTimeoutCause(ctx, answerTime, errSlow)
	defer cancel()
	list, err := x.client.list(ctx, opts)
	if err != nil {
		x.source.failed(ctx, err)
	}
	return list, err
}

// watchAll watches. If that is to begin with a stream of all that there is, and such a stream has failed, it fails at once: a reflector tries that again
// without an end or a pause, but falls back to a list, and pauses if that fails too.
func (x *session) watchAll(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
	initial := opts.SendInitialEvents != nil && *opts.SendInitialEvents
	if initial && x.source.streaming() {
		return nil, errors.New("the stream of what there is ended early")
	}
	w, err := x.open(ctx, opts, initial)
	if err != nil {
		x.source.failed(ctx, err)
		if initial && (!apierrors.IsResourceExpired(err) && !apierrors.IsGone(err)) {
			err = errors.New(err.Error()) // not one that the reflector waits for in a way that cannot be ended
		}
		return nil, err
	}
	if !initial {
		x.source.resumed()
	}
	return w, nil
}

// dead is what client-go calls a watch on a connection that was closed before there was an answer.
var dead = reflect.TypeOf(watch.NewEmptyWatch())

func (x *session) open(ctx context.Context, opts metav1.ListOptions, initial bool) (watch.Interface, error) {
	own, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(answerTime, func() { cancel(errSlow) })
	w, err := x.client.watch(own, opts)
	if err == nil && reflect.TypeOf(w) == dead {
		err = errors.New("the connection was closed before an answer")
	}
	if err == nil && own.Err() != nil {
		w.Stop()
		err = own.Err()
	}
	if err != nil {
		timer.Stop()
		if cause := context.Cause(own); errors.Is(cause, errSlow) {
			err = fmt.Errorf("%w within %v", errSlow, answerTime)
		}
		cancel(nil)
		return nil, err
	}
	s := &stream{Interface: w, source: x.source, timer: timer, cancel: cancel}
	if opts.TimeoutSeconds != nil {
		s.limit = time.Duration(*opts.TimeoutSeconds)*time.Second + graceTime
	}
	if initial {
		x.source.streamed(s)
	} else {
		s.extend()
	}
	return s, nil
}

// stream is a watch.
type stream struct {
	watch.Interface
	source *source
	timer  *time.Timer
	cancel context.CancelCauseFunc
	limit  time.Duration
	once   sync.Once
}

// extend lets the stream last as long as it was asked for. The timer may have fired already; then the stream is ending.
func (s *stream) extend() {
	if s.timer.Stop() && s.limit > 0 {
		s.timer.Reset(s.limit)
	}
}

// Stop ends the stream. Reflectors call it more than once, and again when the next stream has ended.
func (s *stream) Stop() {
	s.once.Do(func() {
		s.timer.Stop()
		s.Interface.Stop()
		s.cancel(nil)
		s.source.ended()
	})
}

// health is how watching a source goes.
type health struct {
	gap   time.Time // since when it has not been watched; zero while it is
	begun bool      // nothing was heard yet since watching began
	err   error     // the last one in this gap
	no    bool      // the API server has refused the kind, or did not know it, in this gap
	first *stream   // brings all that there is; nil once it has, or if nothing of the kind was tried since
}

// streamed notes that a stream is going to bring all that there is, or nil that a list is.
func (s *source) streamed(first *stream) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.health.first = first
}

// streaming reports whether such a stream has begun and not brought it.
func (s *source) streaming() bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.health.first != nil
}

// healthy ends the gap. c.mu is held.
func (s *source) healthy() {
	if s.health.first != nil {
		s.health.first.extend()
	}
	s.health = health{}
	s.c.settled(s.c.opt.Now())
}

// resumed notes that a watch goes on where an earlier one, or a list, has ended.
func (s *source) resumed() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.returned()
	s.healthy()
}

// ended notes that a watch has ended.
func (s *source) ended() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	orDefault(&s.health.gap, s.c.opt.Now())
}

// failed notes that the API server did not do what it was asked for.
func (s *source) failed(ctx context.Context, err error) {
	if ctx.Err() != nil && !errors.Is(context.Cause(ctx), errSlow) {
		return // nobody wants it any more
	}
	s.c.opt.Hooks.Failed(s.kind.name)
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	orDefault(&s.health.gap, s.c.opt.Now())
	s.health.err = err
	s.health.no = s.health.no || apierrors.IsForbidden(err) || apierrors.IsNotFound(err)
	s.c.settled(s.c.opt.Now())
}

// stale reports whether the source has been without a watch for longer than it takes to start the next, and since when. c.mu is held.
func (s *source) stale(now time.Time) (time.Time, bool) {
	gap := s.health.gap
	return gap, !gap.IsZero() && !s.degraded && now.Sub(gap) >= gapTime
}

// coming reports whether the source is not being watched but can be expected to be soon: there is no reason known that others do not share. c.mu is held.
func (s *source) coming() bool {
	return !s.health.gap.IsZero() && !s.health.no
}

// returned is called before the first news after a gap are used. If other sources of the table are still to come, the table waits for them, because news of one
// kind may make no sense without those of another: an Ingress that names a new Service. c.mu is held.
func (s *source) returned() {
	now := s.c.opt.Now()
	_, stale := s.stale(now)
	if !s.c.Synced() || !s.kind.table || !s.health.begun && !stale || !s.c.settling.IsZero() {
		return
	}
	for _, other := range s.c.sources {
		if other != s && other.kind.table && other.coming() {
			s.c.settling = now.Add(settleTime)
			return
		}
	}
}

// settled ends the time of waiting, if all are back or have had their time. c.mu is held.
func (c *Cluster) settled(now time.Time) {
	if c.settling.IsZero() {
		return
	}
	if now.Before(c.settling) {
		for _, s := range c.sources {
			if s.kind.table && s.coming() {
				return
			}
		}
	}
	c.settling = time.Time{}
	c.announce()
}
