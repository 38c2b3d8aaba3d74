// Package watch keeps the picture of a live cluster: it lists and watches what Fairlead reads and hands it out as object.Snapshots.
//
// There is one copy of every object, trimmed of what is never read, in maps that are copied before they are changed if somebody may still hold them. So an
// unchanged object is the same pointer from one snapshot to the next, an unchanged kind the same map, and a snapshot costs next to nothing.
//
// What a snapshot holds is never less than what the API server said last: nothing is handed out before every kind was listed once; a watch that fails, for
// whatever reason and however long, leaves the last known objects in place; kinds that come back after an outage come back together; and a list that suddenly
// lacks most of what was there (an empty etcd, a wrong backup) is believed only after a while. See Options.Hold.
//
// The trimmed objects must not be written back whole: that would delete what was trimmed. Write patches.
package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/fairlead-io/fairlead/internal/object"
)

// Options are the operator's choices. Config is required; every other zero value works.
type Options struct {
	// Config says how to reach the API server; see LoadConfig. It is copied.
	Config *rest.Config
	// Namespaces are the namespaces to read; none means all of them. Kinds that live in no namespace are read in any case, as far as that is permitted.
	Namespaces []string
	// OwnNamespace is where Fairlead is. Services are read there even if it is none of Namespaces; of the rest see Nodes.
	OwnNamespace string
	// SecretNamespaces are the namespaces to read Secrets in; none means those of Namespaces.
	SecretNamespaces []string
	// Nodes has nodes read, and EndpointSlices in OwnNamespace.
	Nodes bool
	// NoIngress leaves out Ingress and IngressClass; NoGatewayAPI leaves out the kinds of the Gateway API. What is left out needs no permission.
	NoIngress, NoGatewayAPI bool

	// QPS and Burst limit the requests a second to the API server; 0 means 100 and 200. Watching itself needs hardly any.
	QPS   float32
	Burst int
	// UserAgent is how the API server's audit log knows the requests; empty means fairlead.
	UserAgent string

	// Hold is how long a list that lacks more than half of what was there before is not believed; 0 means a minute, less than 0 that it is believed at once.
	// It concerns lists only, as they are made after a watch has failed or expired, and only where they would cost ten routes or ten endpoints, or what ten
	// routes hang on. An object that is deleted while it is watched is gone at once.
	Hold time.Duration
	// Pause is the least time between two reports of changes; 0 means 10 ms. A change that has no other shortly before it is reported at once.
	Pause time.Duration
	// Discovery is how often to ask which kinds of the Gateway API the cluster knows; 0 means 10 s.
	Discovery time.Duration
	// Refresh is how often to ask again for an object that is read by name; 0 means 30 s. See Want.
	Refresh time.Duration

	// Log gets what an operator should know; nil means that nobody is told.
	Log *slog.Logger
	// Now is the clock that snapshots are dated by; nil means time.Now.
	Now   func() time.Time
	Hooks Hooks
}

// Hooks are called as things happen. Each may be nil, must return at once, and must be safe for concurrent use.
type Hooks struct {
	// Event is called for each object that the API server told of, and for each list.
	Event func(kind string, event Event)
	// Failed is called for each list and each watch that failed.
	Failed func(kind string)
	// Synced is called when everything was listed.
	Synced func()
}

// Event is what the API server told.
type Event string

// The events.
const (
	Add    Event = "add"
	Update Event = "update"
	Delete Event = "delete"
	List   Event = "list"
)

// Names in use when the options give none.
const userAgent = "fairlead"

func (o Options) validate() (Options, error) {
	if o.Config == nil {
		return o, errors.New("watch the cluster: there is no configuration to reach it")
	}
	o.Namespaces = sorted(o.Namespaces)
	if o.SecretNamespaces = sorted(o.SecretNamespaces); o.SecretNamespaces == nil {
		o.SecretNamespaces = o.Namespaces
	}
	for _, list := range [][]string{o.Namespaces, o.SecretNamespaces} {
		if slices.Contains(list, "") {
			return o, errors.New("watch the cluster: a namespace has no name; leave the list empty for all namespaces")
		}
	}
	orDefault(&o.QPS, 100)
	orDefault(&o.Burst, 200)
	orDefault(&o.UserAgent, userAgent)
	orDefault(&o.Hold, time.Minute)
	orDefault(&o.Pause, 10*time.Millisecond)
	orDefault(&o.Discovery, 10*time.Second)
	orDefault(&o.Refresh, 30*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Hooks.Event == nil {
		o.Hooks.Event = func(string, Event) {}
	}
	if o.Hooks.Failed == nil {
		o.Hooks.Failed = func(string) {}
	}
	if o.Hooks.Synced == nil {
		o.Hooks.Synced = func() {}
	}
	return o, nil
}

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func sorted(names []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(names)))
}

// Cluster is the picture of one cluster. Its methods are safe for concurrent use.
type Cluster struct {
	opt      Options
	log      *slog.Logger
	api      *clients
	kinds    []*kind
	sources  []*source
	named    []fetcher // what is read by name
	services *plain[object.Key, *corev1.Service]
	secrets  *fetched[*corev1.Secret]
	configs  *fetched[*corev1.ConfigMap]

	ctx   context.Context // of everything that Start starts
	stop  context.CancelFunc
	wg    sync.WaitGroup
	ready chan struct{} // closed once the first picture is whole

	mu         sync.Mutex // guards what follows, the state of the sources, and the shelves
	discovered bool       // it is known which kinds of the Gateway API there are
	// definitions of the kinds of the Gateway API; never modified
	definitions map[string]*object.Definition
	rest        time.Time // when everything was listed that Fairlead cannot do without; zero if it was not
	handed      *object.Snapshot
	settling    time.Time // until when the kinds of the table stay as they were handed out last; zero if they do not
	changes     int       // that could have been seen
	seen        int       // of these, by Read
	watchers    map[chan struct{}]struct{}
}

// Open makes a Cluster that is not watched yet; see Start. It fails only on options that cannot work, and does not ask the API server anything.
func Open(opt Options) (*Cluster, error) {
	opt, err := opt.validate()
	if err != nil {
		return nil, err
	}
	redirectKlog(opt.Log)
	api, err := newClients(opt)
	if err != nil {
		return nil, fmt.Errorf("watch the cluster: %w", err)
	}
	c := &Cluster{opt: opt, log: opt.Log, api: api, ready: make(chan struct{}), watchers: map[chan struct{}]struct{}{}}
	c.ctx, c.stop = context.WithCancel(context.Background())
	c.kinds = c.allKinds()
	for _, k := range c.kinds {
		for _, ns := range k.namespaces {
			s := &source{c: c, kind: k, namespace: ns}
			k.sources = append(k.sources, s)
			c.sources = append(c.sources, s)
		}
	}
	c.discovered = opt.NoGatewayAPI
	return c, nil
}

// Start watches the cluster until ctx ends or Close is called, and returns once everything was listed for the first time. It waits as long as that takes: an
// API server that cannot be reached, or that refuses a kind, is asked again until ctx ends, which is the only error. A kind of the Gateway API that the cluster
// does not know needs no list, nor does one without a namespace that Fairlead is not permitted to read. Call it once.
func (c *Cluster) Start(ctx context.Context) error {
	context.AfterFunc(ctx, c.stop)
	c.startBuiltIn()
	if !c.opt.NoGatewayAPI {
		c.wg.Go(c.discover)
	}
	for _, f := range c.named {
		c.wg.Go(func() { f.run(c.ctx) })
	}
	c.wg.Go(c.tend)
	select {
	case <-c.ready:
		return nil
	case <-c.ctx.Done():
		cause := context.Cause(ctx)
		if cause == nil {
			cause = errors.New("closed")
		}
		return fmt.Errorf("list what is in the cluster: %w", cause)
	}
}

// startBuiltIn watches what every API server has.
func (c *Cluster) startBuiltIn() {
	c.mu.Lock()
	for _, k := range c.kinds {
		if k.gateway == nil {
			k.await()
		}
	}
	c.mu.Unlock()
	for _, k := range c.kinds {
		if k.gateway == nil {
			k.start(c.ctx, &c.wg, "")
		}
	}
}

// Close stops watching and waits until everything that Start has started has ended. The last picture stays readable.
func (c *Cluster) Close() {
	c.stop()
	c.wg.Wait()
}

// Synced reports whether there is a picture: every kind was listed once. It never becomes false again.
func (c *Cluster) Synced() bool {
	select {
	case <-c.ready:
		return true
	default:
		return false
	}
}

// Read returns the newest picture, dated now, or nil while not everything was listed once: nothing is not the same as a cluster with nothing in it. It is
// cheap: objects, and maps of kinds in which nothing changed, are those of the snapshot before.
func (c *Cluster) Read() *object.Snapshot {
	if !c.Synced() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	snap := &object.Snapshot{Taken: c.opt.Now(), Definitions: c.definitions}
	for _, k := range c.kinds {
		if k.table && c.handed != nil && !c.settling.IsZero() {
			k.shelf.keep(snap, c.handed)
		} else {
			k.shelf.fill(snap)
		}
	}
	c.handed, c.seen = snap, c.changes
	return snap
}

// Watch calls changed whenever Read would return something that it did not return before, and at once if that is so already. It never calls it twice at a
// time: what changes while changed runs is reported once, after it. It returns nil when ctx ends. Several callers may watch.
func (c *Cluster) Watch(ctx context.Context, changed func()) error {
	wake := make(chan struct{}, 1)
	c.mu.Lock()
	c.watchers[wake] = struct{}{}
	if c.Synced() && c.changes != c.seen {
		wake <- struct{}{}
	}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.watchers, wake)
		c.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
			changed()
		}
		if !pause(ctx, c.opt.Pause) {
			return nil
		}
	}
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

// changed notes that the picture of a kind is another. c.mu is held.
func (c *Cluster) changed(k *kind) {
	if k.table && !c.settling.IsZero() {
		return // nobody can see it; see settled
	}
	c.announce()
}

// announce tells everybody who watches. c.mu is held.
func (c *Cluster) announce() {
	c.changes++
	if !c.Synced() {
		return
	}
	for wake := range c.watchers {
		select {
		case wake <- struct{}{}:
		default: // told already, and has not looked yet
		}
	}
}

// check finds out whether everything was listed. c.mu is held.
func (c *Cluster) check() {
	missing := func(s *source) bool { return !s.synced }
	if c.Synced() || !c.discovered {
		return
	}
	if c.rest.IsZero() && !slices.ContainsFunc(c.sources, func(s *source) bool { return missing(s) && s.kind.without == "" }) {
		c.rest = c.opt.Now()
	}
	if slices.ContainsFunc(c.sources, missing) {
		return
	}
	close(c.ready)
	c.opt.Hooks.Synced()
	c.announce()
}

// Stale returns the kinds that are not being watched, and since when. Their objects are the last known ones. It is empty as long as all is well; a moment of
// changing over from one watch to the next does not count.
func (c *Cluster) Stale() map[string]time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]time.Time{}
	for _, s := range c.sources {
		since, stale := s.stale(c.opt.Now())
		if was, ok := out[s.kind.name]; stale && (!ok || since.Before(was)) {
			out[s.kind.name] = since
		}
	}
	return out
}

// Held returns the kinds of which a list is not believed for now because it lacks most of what was there, and when it will be. See Options.Hold.
func (c *Cluster) Held() map[string]time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]time.Time{}
	for _, s := range c.sources {
		if until := s.doubt.until; s.doubt.items != nil && until.After(out[s.kind.name]) {
			out[s.kind.name] = until
		}
	}
	return out
}

// Want says which Secrets are referred to. Those of the type kubernetes.io/tls are watched in any case; of the others Fairlead asks by name, so that it can
// be told apart whether a Secret is of another type or does not exist. Such a Secret is in the snapshot without its data. What was wanted before and is not any
// more is forgotten. Answers are asked for again every Options.Refresh; of more than 500 names the first are asked for. It does not wait for the answers.
func (c *Cluster) Want(secrets []object.Key) { c.secrets.want(secrets) }

// WantConfigMaps says which ConfigMaps are referred to; no others are read. See Want. A few are asked for again every five seconds.
func (c *Cluster) WantConfigMaps(configMaps []object.Key) { c.configs.want(configMaps) }

// AwaitSecrets waits until it is known of every Secret that is wanted whether it exists, or ctx ends.
func (c *Cluster) AwaitSecrets(ctx context.Context) { c.secrets.await(ctx) }

// AwaitConfigMaps waits until it is known of every ConfigMap that is wanted whether it exists, or ctx ends.
func (c *Cluster) AwaitConfigMaps(ctx context.Context) { c.configs.await(ctx) }

// names returns the keys of a map, sorted, for messages.
func names[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
