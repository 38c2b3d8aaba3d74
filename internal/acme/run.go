package acme

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/fairlead-io/fairlead/internal/route"
)

// issueLock is what the names of the locks begin with under which certificates are issued. certmagic has the same.
const issueLock = "issue_cert_"

// How long things may take, and how long a wait is at least after some.
const (
	attemptWithin = 10 * time.Minute
	infoWithin    = time.Minute
	infoEvery     = 6 * time.Hour
	rateLimited   = time.Hour
)

// outcome is what became of one piece of work.
type outcome struct {
	job    *job
	leaf   *x509.Certificate
	issuer string
	err    error

	isInfo bool
	info   acme.RenewalInfo
}

// run is one call of Run.
type run struct {
	*Manager
	ctx      context.Context
	wg       sync.WaitGroup
	outcomes chan outcome
	orders   int       // under way
	infos    int       // under way
	started  time.Time // when the last order was begun
}

// Run gets what was offered and what is offered from now on, and renews it, until ctx ends. It returns when the last of its requests has ended.
func (m *Manager) Run(ctx context.Context) {
	r := &run{Manager: m, ctx: ctx, outcomes: make(chan outcome)}
	defer r.stop()
	r.take()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
			r.take()
		case o := <-r.outcomes:
			r.settle(o)
		case <-timer.C:
		}
		timer.Reset(r.start())
	}
}

// stop ends what is under way and forgets all, since another process leads from now on.
func (r *run) stop() {
	done := make(chan struct{})
	go func() { r.wg.Wait(); close(done) }()
	for {
		select {
		case <-r.outcomes:
			continue
		case <-done:
		}
		break
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.jobs = map[Secret]*job{}
}

// take looks at what was offered last.
func (r *run) take() {
	offered := r.newest.Load()
	if offered == nil {
		return
	}
	now := r.opt.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	gone := maps.Clone(r.jobs)
	for _, order := range *offered {
		s := Secret{order.Namespace, order.Name}
		delete(gone, s)
		j := r.jobs[s]
		if j == nil {
			j = &job{secret: s}
			r.jobs[s] = j
		}
		if j.running != nil && !slices.Equal(order.Hosts, j.order.Hosts) {
			j.running() // what it gets is not wanted any more
		}
		before := j.phase
		j.take(order, now)
		if j.phase != before {
			r.opt.Changed(j.state())
		}
	}
	for s, j := range gone {
		if j.running != nil {
			j.running()
		}
		delete(r.jobs, s)
	}
}

// start begins what is due, and returns how long there is nothing else to begin.
func (r *run) start() time.Duration {
	now := r.opt.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	wait := time.Hour
	by := func(at time.Time) { wait = min(wait, max(at.Sub(now), time.Millisecond)) }
	busy := r.busyHosts()
	for _, j := range slices.SortedFunc(maps.Values(r.jobs), func(a, b *job) int {
		return cmp.Or(a.next.Compare(b.next), cmp.Compare(a.secret.String(), b.secret.String()))
	}) {
		free := r.started.Add(r.opt.Stagger)
		switch {
		case j.running != nil || slices.ContainsFunc(j.order.Hosts, func(h string) bool { return busy[h] }):
		case !j.next.After(now) && r.orders >= r.opt.Parallel: // whatever ends wakes us up
		case !j.next.After(now) && free.After(now):
			by(free)
		case !j.next.After(now):
			r.begin(j, now)
			for _, h := range j.order.Hosts {
				busy[h] = true
			}
		default:
			by(j.next)
			r.startInfo(j, now, by)
		}
	}
	return wait
}

// busyHosts are the names that an authority is just looking at. There is one challenge for a name at a time.
func (r *run) busyHosts() map[string]bool {
	busy := map[string]bool{}
	for _, j := range r.jobs {
		if j.running != nil {
			for _, h := range j.order.Hosts {
				busy[h] = true
			}
		}
	}
	return busy
}

// begin begins an attempt.
func (r *run) begin(j *job, now time.Time) {
	ctx, cancel := context.WithTimeout(r.ctx, attemptWithin)
	j.running, j.lastTry = cancel, now
	r.started = now
	r.orders++
	order, leaf := j.order, j.leaf
	r.wg.Go(func() {
		defer cancel()
		leaf, issuer, err := r.obtain(ctx, order, j.secret, leaf)
		r.outcomes <- outcome{job: j, leaf: leaf, issuer: issuer, err: err}
	})
}

// startInfo asks when a certificate should be renewed, if it is time to.
func (r *run) startInfo(j *job, now time.Time, by func(time.Time)) {
	i := r.issuers[j.issuer]
	if j.phase != Valid || i == nil {
		return
	}
	if j.infoFor == j.leaf && j.infoAt.After(now) {
		by(j.infoAt)
		return
	}
	if r.infos >= r.opt.Parallel {
		return
	}
	ctx, cancel := context.WithTimeout(r.ctx, infoWithin)
	j.running = cancel
	r.infos++
	leaf := j.leaf
	r.wg.Go(func() {
		defer cancel()
		info, err := i.renewalInfo(ctx, leaf)
		r.outcomes <- outcome{job: j, leaf: leaf, isInfo: true, info: info, err: err}
	})
}

// settle notes what became of a piece of work.
func (r *run) settle(o outcome) {
	now := r.opt.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	j := o.job
	j.running = nil
	if o.isInfo {
		r.infos--
		j.learn(o, now)
		return
	}
	r.orders--
	if r.jobs[j.secret] != j || errors.Is(o.err, context.Canceled) {
		return // not wanted any more; what is wanted instead is due
	}
	log := r.opt.Log.With("secret", j.secret.String(), "hosts", j.order.Hosts, "for", j.order.Source.String())
	if o.err != nil {
		j.fail(o.err, r.wait(j, o.err), now)
		log.Warn("no certificate was issued", "error", o.err, "next", j.next, "failures", j.failures)
	} else {
		j.leaf, j.issuer, j.failures, j.err = o.leaf, o.issuer, 0, ""
		j.schedule(now)
		log.Info("certificate issued", "issuer", j.issuer, "notAfter", j.leaf.NotAfter, "renewal", j.next)
	}
	r.opt.Changed(j.state())
}

// learn notes when the authority wants to see a certificate renewed. A time inside a window that stays is kept.
func (j *job) learn(o outcome, now time.Time) {
	if o.leaf != j.leaf {
		return
	}
	j.infoAt = now.Add(infoEvery)
	if o.err == nil {
		if j.infoFor != j.leaf || !j.info.SameWindow(o.info) {
			j.info = o.info
		}
		if at := o.info.RetryAfter; at != nil && at.After(now) && at.Before(j.infoAt) {
			j.infoAt = *at
		}
	} else if j.infoFor != j.leaf {
		j.info = acme.RenewalInfo{}
	}
	j.infoFor = j.leaf
	if j.phase == Valid {
		j.next = j.renewal()
	}
}

// wait is how long to wait after an error.
func (r *run) wait(j *job, err error) time.Duration {
	h := fnv.New32a()
	_, _ = h.Write([]byte(j.secret.String()))
	wait := backoff(r.opt.FirstRetry, j.failures+1, h.Sum32())
	if p, ok := errors.AsType[acme.Problem](err); ok && p.Type == acme.ProblemTypeRateLimited {
		wait = max(wait, rateLimited)
	}
	return wait
}

// obtain gets a certificate for an order, unless somebody else has got it already. have is the one that is to be replaced; nil is none.
func (m *Manager) obtain(ctx context.Context, order route.CertificateOrder, s Secret, have *x509.Certificate) (*x509.Certificate, string, error) {
	lock := issueLock + s.String()
	if err := m.opt.Storage.Lock(ctx, lock); err != nil {
		return nil, "", fmt.Errorf("wait for other replicas: %w", err)
	}
	defer func() {
		if err := m.opt.Storage.Unlock(context.WithoutCancel(ctx), lock); err != nil {
			m.opt.Log.Warn("lock not released; it will expire", "lock", lock, "error", err)
		}
	}()
	ctx, cancel := m.whileLocked(ctx, lock)
	defer cancel()
	old, err := m.opt.Publisher.Read(ctx, s)
	if err != nil {
		return nil, "", fmt.Errorf("read Secret %s: %w", s, err)
	}
	leaf, issuer := usable(order, old.Chain, old.Issuer)
	if leaf != nil && (have == nil || !leaf.Equal(have)) && m.opt.Now().Before(renewAt(leaf, s)) {
		return leaf, issuer, nil
	}
	next, err := m.ask(ctx, order, old)
	if err != nil {
		return nil, "", err
	}
	if leaf, issuer = usable(order, next.Chain, next.Issuer); leaf == nil {
		return nil, "", fmt.Errorf("%s issued a certificate that is not for the names that were asked for", next.Issuer)
	}
	next.Version = old.Version
	if err := m.opt.Publisher.Write(ctx, s, next); err != nil {
		return nil, "", fmt.Errorf("write Secret %s: %w", s, err)
	}
	return leaf, issuer, nil
}

// whileLocked returns a context that ends when a lock is lost.
func (m *Manager) whileLocked(ctx context.Context, lock string) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	if m.opt.Lost != nil {
		lost := m.opt.Lost(lock)
		go func() {
			select {
			case <-lost:
				cancel(errors.New("the lock was lost to another replica"))
			case <-ctx.Done():
			}
		}()
	}
	return ctx, func() { cancel(context.Canceled) }
}

// ask asks the issuers of an order one after the other, and returns the first certificate or everybody's reasons.
func (m *Manager) ask(ctx context.Context, order route.CertificateOrder, old Issued) (Issued, error) {
	var reasons []error
	for _, name := range order.Issuers {
		i := m.issuers[name]
		if i == nil {
			reasons = append(reasons, fmt.Errorf("there is no issuer %s", name))
			continue
		}
		next, err := i.issue(ctx, order.Hosts, old)
		if tried := m.tried.Load(); tried != nil {
			(*tried)(name, err)
		}
		if err == nil {
			return next, nil
		}
		if ctx.Err() != nil {
			return Issued{}, fmt.Errorf("%s: %w", name, cmp.Or(context.Cause(ctx), err))
		}
		reasons = append(reasons, fmt.Errorf("%s: %w", name, err))
	}
	return Issued{}, errors.Join(reasons...)
}

// States describes all orders, sorted by Secret. Only while Run runs there are any.
func (m *Manager) States() []State {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]State, 0, len(m.jobs))
	for _, j := range m.jobs {
		out = append(out, j.state())
	}
	slices.SortFunc(out, func(a, b State) int { return cmp.Compare(a.Secret.String(), b.Secret.String()) })
	return out
}
