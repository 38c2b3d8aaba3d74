package acmestore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	mathrand "math/rand/v2"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	leases "k8s.io/client-go/kubernetes/typed/coordination/v1"
)

// locks are the locks of one process. Whoever wants one first waits for his turn in the process; so the API server is asked by one of them at a time.
type locks struct {
	opt Options
	api leases.LeaseInterface

	mu    *sync.Mutex
	turns map[string]*turn // of names that somebody holds or waits for
	held  map[string]*held
}

// turn is whose turn it is to have a name.
type turn struct {
	token chan struct{} // holds one token while it is nobody's
	users int
}

// held is a lock that a call of Lock has taken.
type held struct {
	lease *coordinationv1.Lease // as it was last written
	stop  context.CancelFunc    // of its renewal
	ended chan struct{}         // closed when the renewal has ended
	lost  chan struct{}         // closed when the lock is not ours any more
}

func newLocks(opt Options) locks {
	return locks{
		opt: opt, api: opt.Kubernetes.CoordinationV1().Leases(opt.Namespace),
		mu: &sync.Mutex{}, turns: map[string]*turn{}, held: map[string]*held{},
	}
}

// errLost says that a lock is not ours any more.
var errLost = errors.New("the lock was lost")

// Lock implements certmagic.Locker. A holder that died is waited for as long as its lease lasts, and no longer.
func (s *Store) Lock(ctx context.Context, name string) error {
	if err := s.locks.wait(ctx, name); err != nil {
		return fmt.Errorf("lock %s: %w", name, err)
	}
	var seen sighting
	for {
		taken, err := s.locks.attempt(ctx, name, &seen)
		if taken {
			return nil
		}
		if ctx.Err() != nil {
			s.locks.leave(name)
			return fmt.Errorf("lock %s: %w", name, ctx.Err())
		}
		if err != nil {
			s.opt.Log.Debug("a lock could not be asked for; will try again", "lock", name, "error", err)
		}
		pause(ctx, s.opt.Retry/2+mathrand.N(s.opt.Retry/2+1)) //nolint:gosec // spreads load, guards nothing
	}
}

// TryLock implements certmagic.TryLocker.
func (s *Store) TryLock(ctx context.Context, name string) (bool, error) {
	if !s.locks.tryWait(name) {
		return false, nil
	}
	taken, err := s.locks.attempt(ctx, name, &sighting{})
	if !taken {
		s.locks.leave(name)
	}
	return taken, err
}

// Unlock implements certmagic.Locker. A lock that was lost to somebody else needs no release.
func (s *Store) Unlock(ctx context.Context, name string) error {
	s.locks.mu.Lock()
	h := s.locks.held[name]
	delete(s.locks.held, name)
	s.locks.mu.Unlock()
	if h == nil {
		return fmt.Errorf("unlock %s: it is not locked", name)
	}
	defer s.locks.leave(name)
	h.stop()
	<-h.ended
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opt.Lease)
	defer cancel()
	err := s.locks.release(ctx, h.lease)
	if apierrors.IsConflict(err) { // a renewal went through of which nothing was heard, or it is somebody else's by now
		var now *coordinationv1.Lease
		if now, err = s.locks.current(ctx, h.lease); err == nil {
			err = s.locks.release(ctx, now)
		}
	}
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && !errors.Is(err, errLost) {
		return fmt.Errorf("unlock %s: %w", name, err)
	}
	return nil
}

func (l *locks) release(ctx context.Context, lease *coordinationv1.Lease) error {
	return l.api.Delete(ctx, lease.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &lease.UID, ResourceVersion: &lease.ResourceVersion}})
}

// current returns a lease of ours as it is now, or errLost if it is not ours any more.
func (l *locks) current(ctx context.Context, ours *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	now, err := l.api.Get(ctx, ours.Name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	if holder := now.Spec.HolderIdentity; holder == nil || *holder != *ours.Spec.HolderIdentity {
		return nil, errLost
	}
	return now, nil
}

// RenewLockLease implements certmagic.LockLeaseRenewer. Locks are renewed by themselves, so it only says whether the lock is still ours.
func (s *Store) RenewLockLease(_ context.Context, name string, _ time.Duration) error {
	select {
	case <-s.Lost(name):
		return fmt.Errorf("renew %s: %w", name, errLost)
	default:
		return nil
	}
}

// Lost returns what is closed when a lock that is held now is not any more; it is closed already if the lock is not held.
func (s *Store) Lost(name string) <-chan struct{} {
	s.locks.mu.Lock()
	defer s.locks.mu.Unlock()
	if h := s.locks.held[name]; h != nil {
		return h.lost
	}
	gone := make(chan struct{})
	close(gone)
	return gone
}

// wait waits for the turn in this process.
func (l *locks) wait(ctx context.Context, name string) error {
	t := l.join(name)
	select {
	case <-t.token:
		return nil
	case <-ctx.Done():
		l.quit(name)
		return ctx.Err()
	}
}

func (l *locks) tryWait(name string) bool {
	t := l.join(name)
	select {
	case <-t.token:
		return true
	default:
		l.quit(name)
		return false
	}
}

func (l *locks) join(name string) *turn {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.turns[name]
	if t == nil {
		t = &turn{token: make(chan struct{}, 1)}
		t.token <- struct{}{}
		l.turns[name] = t
	}
	t.users++
	return t
}

// leave gives the turn to the next.
func (l *locks) leave(name string) {
	l.mu.Lock()
	l.turns[name].token <- struct{}{}
	l.mu.Unlock()
	l.quit(name)
}

func (l *locks) quit(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.turns[name]; t.users == 1 {
		delete(l.turns, name)
	} else {
		t.users--
	}
}

// sighting is what somebody who waits has seen of a lock. A holder is alive as long as it keeps changing its lease: what time the lease says it is, by whoever's
// clock, is of no importance.
type sighting struct {
	version string
	since   time.Time
	lasts   time.Duration
}

// attempt tries to take a lock. It is an error if that could not be found out; not, if somebody else has it.
func (l *locks) attempt(ctx context.Context, name string, seen *sighting) (taken bool, _ error) {
	lease, err := l.api.Get(ctx, nameOf(name), metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		lease, err = l.api.Create(ctx, l.newLease(name), metav1.CreateOptions{FieldManager: fieldManager})
	case err != nil:
		return false, err
	case !seen.expired(lease, l.opt):
		return false, nil
	default:
		next := l.newLease(name)
		next.ResourceVersion, next.UID = lease.ResourceVersion, lease.UID
		*next.Spec.LeaseTransitions = transitions(lease) + 1
		lease, err = l.api.Update(ctx, next, metav1.UpdateOptions{FieldManager: fieldManager})
	}
	if apierrors.IsAlreadyExists(err) || apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return false, nil // somebody was faster
	}
	if err != nil {
		return false, err
	}
	l.hold(name, lease)
	return true, nil
}

// expired notes what a lease looks like, and tells whether it has looked like that for longer than it lasts.
func (s *sighting) expired(lease *coordinationv1.Lease, opt Options) bool {
	now := opt.Now()
	if s.version != lease.ResourceVersion {
		*s = sighting{version: lease.ResourceVersion, since: now, lasts: opt.Lease}
		if d := lease.Spec.LeaseDurationSeconds; d != nil && *d > 0 {
			s.lasts = time.Duration(*d) * time.Second
		}
		return lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == ""
	}
	return now.Sub(s.since) >= s.lasts
}

func transitions(lease *coordinationv1.Lease) int32 {
	if t := lease.Spec.LeaseTransitions; t != nil {
		return *t
	}
	return 0
}

// newLease is a lease for one call of Lock: no two calls have the same holder, in one process or in several.
func (l *locks) newLease(name string) *coordinationv1.Lease {
	holder, now, none := l.opt.Identity+"/"+rand.Text(), metav1.NewMicroTime(l.opt.Now()), int32(0)
	seconds := int32(math.Ceil(l.opt.Lease.Seconds()))
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: l.opt.Namespace, Name: nameOf(name), Labels: map[string]string{kindLabel: kindLock}, Annotations: map[string]string{keyAnnotation: name},
		},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, AcquireTime: &now, RenewTime: &now, LeaseTransitions: &none},
	}
}

// hold keeps a lock that was taken, until Unlock.
func (l *locks) hold(name string, lease *coordinationv1.Lease) {
	ctx, stop := context.WithCancel(context.Background())
	h := &held{lease: lease, stop: stop, ended: make(chan struct{}), lost: make(chan struct{})}
	l.mu.Lock()
	l.held[name] = h
	l.mu.Unlock()
	go func() {
		defer close(h.ended)
		l.renew(ctx, name, h)
	}()
}

// renew renews a lock until ctx ends, or until it is lost. When the API server does not answer, it is given up before others may take it.
func (l *locks) renew(ctx context.Context, name string, h *held) {
	for heard := time.Now(); pause(ctx, l.opt.Lease/3); {
		asked := time.Now()
		lease, err := l.renewOnce(context.WithoutCancel(ctx), h.lease)
		if err == nil {
			h.lease, heard = lease, asked
			continue
		}
		if errors.Is(err, errLost) || apierrors.IsNotFound(err) || time.Since(heard) > l.opt.Lease*3/4 {
			l.opt.Log.Warn("lock lost", "lock", name, "error", err)
			close(h.lost)
			return
		}
	}
}

func (l *locks) renewOnce(ctx context.Context, ours *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, l.opt.Lease/4)
	defer cancel()
	next, now := ours.DeepCopy(), metav1.NewMicroTime(l.opt.Now())
	next.Spec.RenewTime = &now
	lease, err := l.api.Update(ctx, next, metav1.UpdateOptions{FieldManager: fieldManager})
	if apierrors.IsConflict(err) { // an earlier renewal of which nothing was heard
		if next, err = l.current(ctx, ours); err != nil {
			return nil, err
		}
		next.Spec.RenewTime = &now
		lease, err = l.api.Update(ctx, next, metav1.UpdateOptions{FieldManager: fieldManager})
	}
	return lease, err
}

// pause waits for d and reports whether ctx still goes on.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
