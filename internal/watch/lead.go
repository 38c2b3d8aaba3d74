package watch

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// LeaseName is the name of the Lease, unless the options give another.
const LeaseName = userAgent

// LeaderOptions say how replicas agree on one of them. Config and Namespace are required; every other zero value works.
type LeaderOptions struct {
	// Config says how to reach the API server; see Cluster.Config. Its limit of requests is not used up by others: a lease has to be renewed in time.
	Config *rest.Config
	// Namespace and Name are those of the Lease. The name is LeaseName if empty.
	Namespace, Name string
	// Identity is this replica's name; empty means the host name, which is the pod's, and something random.
	Identity string
	// Lease is how long the others wait for a leader that is not heard of, Renew how long a leader tries to be heard before it gives up, and Retry how long
	// everybody waits between attempts, the others up to 2.2 times as long. 0 means 12, 8 and 1 seconds: a leader that was killed has a successor after
	// Lease and two attempts at most, which is 17 seconds.
	Lease, Renew, Retry time.Duration
	// Log gets who leads; nil means that nobody is told.
	Log *slog.Logger
}

func (o LeaderOptions) validate() (LeaderOptions, error) {
	if o.Config == nil {
		return o, errors.New("elect a leader: there is no configuration to reach the API server")
	}
	if o.Namespace == "" {
		return o, errors.New("elect a leader: the Lease needs a namespace")
	}
	orDefault(&o.Name, LeaseName)
	orDefault(&o.Lease, 12*time.Second)
	orDefault(&o.Renew, 8*time.Second)
	orDefault(&o.Retry, time.Second)
	if o.Identity == "" {
		host, err := os.Hostname()
		if err != nil {
			return o, fmt.Errorf("elect a leader: %w", err)
		}
		o.Identity = host + "_" + rand.Text()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// Lead calls lead whenever this replica is the leader, with a context that ends when it is not any more, and returns when ctx ends. lead must return soon after
// its context has ended: no other replica leads before, as far as the clocks of both run equally fast and the API server can be reached. If lead returns earlier,
// it leaves the lead to others, and may be called again. When ctx ends, lead returns first and the Lease is released then, so that the next leader need not wait.
//
// The error is one of the options. That the API server cannot be reached is none: it is tried again.
func Lead(ctx context.Context, opt LeaderOptions, lead func(context.Context)) error {
	opt, err := opt.validate()
	if err != nil {
		return err
	}
	redirectKlog(opt.Log)
	config := rest.CopyConfig(opt.Config)
	config.QPS, config.Burst, config.RateLimiter = 0, 0, nil
	config.Timeout = opt.Renew / 2 // one that hangs must not take all the time there is
	client, err := coordinationv1.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("elect a leader: %w", err)
	}
	for first := true; ctx.Err() == nil && (first || pause(ctx, opt.Retry)); first = false {
		if err := term(ctx, opt, client, lead); err != nil {
			return fmt.Errorf("elect a leader: %w", err)
		}
	}
	return nil
}

// term tries to become the leader, leads, and returns when that is over.
func term(ctx context.Context, opt LeaderOptions, client coordinationv1.LeasesGetter, lead func(context.Context)) error {
	elected := make(chan context.Context, 1)
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: opt.Namespace, Name: opt.Name},
		Client:     client,
		LockConfig: resourcelock.ResourceLockConfig{Identity: opt.Identity},
	}
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Name: opt.Name, Lock: lock, LeaseDuration: opt.Lease, RenewDeadline: opt.Renew, RetryPeriod: opt.Retry,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(held context.Context) { elected <- held },
			OnStoppedLeading: func() {},
			OnNewLeader: func(identity string) {
				opt.Log.Info("leader of the replicas", "leader", identity, "self", identity == opt.Identity)
			},
		},
	})
	if err != nil {
		return err
	}
	// The Lease is kept up until lead has returned, which may be later than ctx ends.
	electing, resign := context.WithCancel(context.WithoutCancel(ctx))
	defer resign()
	over := make(chan struct{})
	go func() {
		defer close(over)
		elector.Run(electing)
	}()
	select {
	case <-ctx.Done():
	case <-over:
	case held := <-elected:
		serve(ctx, held, lead)
		opt.Log.Info("not the leader any more", "self", opt.Identity)
	}
	resign()
	<-over
	release(context.WithoutCancel(ctx), opt, lock)
	return nil
}

// release gives the Lease up if it is ours. The elector would do so as well, but before it says that the lead is over.
func release(ctx context.Context, opt LeaderOptions, lock resourcelock.Interface) {
	ctx, cancel := context.WithTimeout(ctx, opt.Renew/2)
	defer cancel()
	var err error
	for range 3 { // the last renewal may have been given up by us and not by the API server, and come between
		if err = tryRelease(ctx, opt, lock); !apierrors.IsConflict(err) {
			break
		}
	}
	if err != nil {
		opt.Log.Debug("cannot release the lease; the next leader waits until it expires", "error", err)
	}
}

func tryRelease(ctx context.Context, opt LeaderOptions, lock resourcelock.Interface) error {
	record, _, err := lock.Get(ctx)
	if err != nil || record.HolderIdentity != opt.Identity {
		return err
	}
	now := metav1.Now()
	return lock.Update(ctx, resourcelock.LeaderElectionRecord{LeaseDurationSeconds: 1, RenewTime: now, AcquireTime: now, LeaderTransitions: record.LeaderTransitions})
}

// serve leads until ctx or held ends.
func serve(ctx, held context.Context, lead func(context.Context)) {
	leading, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(held, cancel)()
	lead(leading)
}
