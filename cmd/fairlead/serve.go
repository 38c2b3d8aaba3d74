package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	issue "github.com/fairlead-io/fairlead/internal/acme"
	"github.com/fairlead-io/fairlead/internal/admin"
	"github.com/fairlead-io/fairlead/internal/backend"
	"github.com/fairlead-io/fairlead/internal/cert"
	"github.com/fairlead-io/fairlead/internal/compile"
	"github.com/fairlead-io/fairlead/internal/manifest"
	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/proxy"
	"github.com/fairlead-io/fairlead/internal/route"
	"github.com/fairlead-io/fairlead/internal/telemetry"
)

// serveOptions are the flags of serve.
type serveOptions struct {
	source
	cluster      clusterFlags
	manifests    string
	inProcess    bool // backends are in this process: the demo
	bindAddress  string
	adminAddress string
	logLevel     slog.Level
	metrics      *telemetry.Metrics // nil: the server's own
}

func (o *serveOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	o.source.register(f)
	f.StringVar(&o.bindAddress, "bind-address", o.bindAddress, "bind listeners to this `ADDR`; empty means all addresses")
	f.StringVar(&o.adminAddress, "admin-address", "127.0.0.1:9000", "serve health, metrics and debug pages on this `ADDR`; empty means not at all")
	f.TextVar(&o.logLevel, "log-level", slog.LevelInfo, "log from this `LEVEL` on: debug, info, warn, error")
}

func newServe() *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve [--manifests DIR]",
		Short: "Serve the Ingresses and Gateways of a cluster, or of a folder of Kubernetes YAML",
		Args:  cobra.NoArgs,
		Example: `  fairlead serve --manifests ./k8s --port-map 80:8080,443:8443
  fairlead serve --manifests ./k8s --port-map 80:8080 --backend shop/web:80=127.0.0.1:3000`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			set, err := o.settings()
			if err != nil {
				return err
			}
			if o.manifests == "" {
				return serveCluster(cmd.Context(), o, set, cmd.OutOrStdout(), cmd.ErrOrStderr())
			}
			folder, err := manifest.Open(o.manifests, set.manifest)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), o, set, folder, cmd.OutOrStdout(), cmd.ErrOrStderr(), nil)
		},
	}
	cmd.Flags().StringVar(&o.manifests, "manifests", "", "serve the objects in this `DIR` and its subfolders, instead of those of a cluster")
	o.cluster.register(cmd.Flags())
	o.register(cmd)
	return cmd
}

// reader is where snapshots come from: a folder.
type reader interface {
	Read() (*object.Snapshot, []manifest.Issue)
	Watch(ctx context.Context, changed func()) error
}

// server is the running process: the rooms, joined.
type server struct {
	set      settings
	log      *slog.Logger
	from     reader
	backends *backend.Set
	certs    *cert.Store
	issuer   *issue.Manager // nil: no certificates are ordered
	stapler  *issue.Stapler // nil without issuer
	proxy    *proxy.Proxy
	metrics  *telemetry.Metrics
	own      atomic.Pointer[[]netip.AddrPort] // where this process listens
	ownUDP   atomic.Pointer[[]netip.AddrPort]
	adminAt  net.Addr // nil without an admin address

	generation int
	letGo      *time.Timer      // when the pools of the tables before this one are let go of; nil before follow
	snapshot   *object.Snapshot // the one that is installed
	seen       map[string]bool  // problems that were logged and are still there
	ready      atomic.Bool
	stopping   atomic.Bool
	result     atomic.Pointer[shown]
}

// poolLinger is how long pools outlive the last table that named them.
const poolLinger = 5 * time.Second

// shown is what the admin pages show.
type shown struct {
	snapshot *object.Snapshot
	result   compile.Result
	found    []finding
}

// serve runs until ctx ends or a signal arrives, then drains. demo, if not nil, is told once the first table serves and may extend the admin pages.
func serve(ctx context.Context, o serveOptions, set settings, from reader, out, errOut io.Writer, demo *demo) error {
	log := newLogger(o, errOut)
	quietStandardLog(log)
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	defer stop()
	from, issuer, err := issuerOf(from, &set.config.ACME, log)
	if err != nil {
		return err
	}
	if issuer != nil {
		defer issuer.Close()
	}
	s, accessLog, err := newServer(o, set, from, issuer, log, out)
	if err != nil {
		return err
	}
	defer func() {
		s.backends.Close()
		if err := accessLog.Close(); err != nil {
			log.Warn("the access log is incomplete", "error", err)
		}
	}()
	adminDone, err := s.admin(o.adminAddress, demo)
	if err != nil {
		return errors.Join(err, s.proxy.Close())
	}
	defer adminDone()

	// What the source says is followed until the last request has ended: backends roll while this process stops, too.
	following, unfollow := context.WithCancel(context.WithoutCancel(ctx))
	defer unfollow()
	if err := s.begin(ctx, following, demo != nil); err != nil {
		return errors.Join(err, s.proxy.Close())
	}
	demo.started(s.result.Load().result)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer unfollow()
	wg.Go(func() { s.follow(following) })
	if s.stapler != nil {
		wg.Go(func() { s.stapler.Run(following) })
	}
	if w, ok := from.(interface{ write(ctx context.Context) }); ok {
		wg.Go(func() { w.write(ctx) }) // whoever stops leaves the lead at once
	}
	<-ctx.Done()
	stop() // from here on a signal is the second one
	return s.drain(log)
}

// begin waits for the first whole picture and installs it. A port that cannot be bound is an error if it is the only one, or if strict.
func (s *server) begin(ctx, following context.Context, strict bool) error {
	if c, ok := s.from.(interface {
		Start(ctx context.Context) error
	}); ok {
		s.proxy.Reserve(reserveWithin, s.mapped()...)
		started := make(chan error, 1)
		go func() { started <- c.Start(following) }()
		select {
		case err := <-started:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return errors.New("stopped before the cluster was read")
		}
	}
	err := s.apply()
	if err != nil && !strict && s.ready.Load() {
		s.log.Error("not everything could be bound; the rest serves", "error", err)
		return nil
	}
	return err
}

// reserveWithin is how long clients may wait for the first table. A cluster is read in a fraction of it, unless something is wrong with its API server.
const reserveWithin = 5 * time.Second

// mapped is the binds that are known before there is a table. A container that has died and is started again is sent clients the whole time, until Kubernetes has
// noticed: they wait for what is being read instead of being refused.
func (s *server) mapped() []route.Bind {
	var out []route.Bind
	for _, port := range s.set.compile.PortMap {
		out = append(out, route.Bind{Port: port})
	}
	return out
}

func newLogger(o serveOptions, w io.Writer) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: o.logLevel}))
}

// quietStandardLog sends what net/http prints by itself, with bytes that a client or a backend chose, to the debug level.
func quietStandardLog(log *slog.Logger) {
	stdlog.SetFlags(0)
	stdlog.SetOutput(slog.NewLogLogger(log.Handler(), slog.LevelDebug).Writer())
}

// newServer makes the rooms and joins them; nothing listens yet.
func newServer(o serveOptions, set settings, from reader, issuer *issue.Manager, log *slog.Logger, out io.Writer) (*server, *telemetry.AccessLog, error) {
	s := &server{set: set, log: log, from: from, issuer: issuer, metrics: o.metrics, seen: map[string]bool{}}
	if s.metrics == nil {
		s.metrics = telemetry.NewMetrics(buildVersion())
	}
	trusted, err := set.config.trustedProxies()
	if err != nil {
		return nil, nil, err
	}
	certOptions := cert.Options{Log: log}
	if issuer != nil {
		outside := func(ctx context.Context, network, address string) (net.Conn, error) {
			return s.backends.DialOutside(ctx, network, address)
		}
		s.stapler = issue.NewStapler(outside, func() { s.certs.Refresh() })
		certOptions.Staple = s.stapler.Staple
	}
	s.certs = cert.New(certOptions)
	sessionKey, err := set.config.sessionKey()
	if err != nil {
		return nil, nil, err
	}
	s.backends = backend.New(backend.Options{SessionKey: sessionKey, AllowLoopback: o.manifests != "" || o.inProcess, OwnAddresses: s.ownAddresses, OwnUDP: func() []netip.AddrPort { return addresses(&s.ownUDP) }, Hooks: s.hooks(), ReplayMemory: set.config.Limits.ReplayMemory})
	s.metrics.BeforeScrape(func() { s.metrics.Waiting(s.backends.Waiting()) })
	accessLog := telemetry.NewAccessLog(out, telemetry.AccessLogOptions{Disabled: set.config.AccessLog.Disabled, RedactQuery: set.config.AccessLog.RedactQuery, Metrics: s.metrics})
	delay, grace := set.config.drain()
	var challenges proxy.Challenger
	if issuer != nil {
		challenges = issuer.Challenges()
		issuer.ReportAttempts(func(name string, err error) { s.metrics.Attempt(name, err == nil) })
		s.metrics.BeforeScrape(s.measureOrders)
	}
	s.proxy, err = proxy.New(proxy.Options{
		BindAddress: o.bindAddress, TrustedProxies: trusted, GetCertificate: s.certs.Get, Challenges: challenges, Backends: s.backends, Metrics: s.metrics,
		AccessLog: accessLog, Log: log, Limits: set.config.limits(), DrainDelay: delay, DrainGrace: grace,
	})
	if err != nil {
		s.backends.Close()
		return nil, nil, errors.Join(err, accessLog.Close())
	}
	return s, accessLog, nil
}

// follow applies every change of the folder until ctx ends.
func (s *server) follow(ctx context.Context) {
	changed := make(chan struct{}, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		err := s.from.Watch(ctx, func() {
			select {
			case changed <- struct{}{}:
			default: // a change is waiting already; it will see this one too
			}
		})
		if err != nil && ctx.Err() == nil {
			s.log.Error("watching for changes ended; the last table keeps serving", "error", err)
		}
	})
	defer wg.Wait()
	// A request may still be on its way from the table before this one into a pool that only that table named, so such pools are let go of a little later.
	s.letGo = time.NewTimer(poolLinger)
	defer s.letGo.Stop()
	recheck := time.NewTicker(time.Hour) // certificates expire without anybody changing them
	defer recheck.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-s.letGo.C:
			s.backends.Install(s.result.Load().result.Table.Pools)
			continue
		case <-recheck.C:
			s.snapshot = nil
		}
		if err := s.apply(); err != nil {
			s.log.Error("not everything could be bound; the rest serves", "error", err)
		}
	}
}

// apply takes the newest snapshot down the street. Endpoints go apart from the rest: when nothing else changed, the table is not touched.
func (s *server) apply() error {
	begun := time.Now()
	snap, issues := s.from.Read()
	if prev := s.result.Load(); prev != nil && s.snapshot.SameRoutes(snap) && compile.SameAddresses(s.snapshot, snap, s.set.compile) {
		s.backends.Update(compile.Endpoints(snap, s.set.compile, poolKeys(prev.result.Table.Pools)))
		s.snapshot = snap
		s.tell(prev.result)
		s.publish(slog.LevelDebug, prev.result, findings(snap, prev.result, issues)) // there are many of these
		return nil
	}
	result := compile.Compile(snap, s.set.compile)
	compiled := time.Now()
	pools := result.Table.Pools
	if prev := s.result.Load(); prev != nil {
		// Requests that hold the old table still need its pools until the new one is installed.
		pools = append(slices.Clip(pools), prev.result.Table.Pools...)
	}
	s.backends.Install(pools)
	s.backends.Update(compile.Endpoints(snap, s.set.compile, poolKeys(pools)))
	s.certs.Install(result.Certificates)
	err := s.proxy.Install(result.Table)
	if s.issuer != nil {
		s.issuer.Offer(result.Orders)
		s.stapler.Offer(result.Orders)
	}
	s.metrics.KeepTable(result.Table)
	s.snapshot = snap
	if s.letGo != nil {
		s.letGo.Reset(poolLinger)
	}
	s.generation++
	s.tell(result)
	found := findings(snap, result, issues)
	s.measure(result, found, compiled.Sub(begun), time.Since(compiled))
	s.publish(slog.LevelInfo, result, found)
	if s.listening(result.Table) || err == nil {
		s.ready.Store(true)
	}
	return err
}

// tell lets a source that takes conclusions have them, once they are served.
func (s *server) tell(result compile.Result) {
	if c, ok := s.from.(interface {
		installed(*object.Snapshot, compile.Result)
	}); ok {
		c.installed(s.snapshot, result)
	}
}

// listening notes where this process listens, and reports whether it listens for requests at all.
func (s *server) listening(t *route.Table) bool {
	var own, udp []netip.AddrPort
	for _, p := range t.Ports {
		if p.Bind.UDP {
			udp = appendAddress(udp, s.proxy.Addr(p.Bind))
		} else {
			own = appendAddress(own, s.proxy.Addr(p.Bind))
		}
	}
	bound := len(own)+len(udp) > 0
	s.ownUDP.Store(&udp)
	own = appendAddress(own, s.adminAt)
	s.own.Store(&own)
	return bound
}

func appendAddress(list []netip.AddrPort, a net.Addr) []netip.AddrPort {
	switch a := a.(type) {
	case *net.TCPAddr:
		if a != nil {
			return append(list, a.AddrPort())
		}
	case *net.UDPAddr:
		return append(list, a.AddrPort())
	}
	return list
}

// ownAddresses are never connected to: a backend that is this process would send its requests round in a circle, or to the admin pages.
func (s *server) ownAddresses() []netip.AddrPort {
	return addresses(&s.own)
}

func addresses(list *atomic.Pointer[[]netip.AddrPort]) []netip.AddrPort {
	if own := list.Load(); own != nil {
		return *own
	}
	return nil
}

// publish makes a result visible to the admin pages and logs what is wrong with it, each problem once for as long as it lasts. That it is served is logged at level.
func (s *server) publish(level slog.Level, result compile.Result, found []finding) {
	s.result.Store(&shown{snapshot: s.snapshot, result: result, found: found})
	seen := map[string]bool{}
	for _, f := range found {
		text := f.String()
		if seen[text] = true; !s.seen[text] && f.Severity != string(compile.Note) {
			s.log.Warn("problem in an object", "origin", f.Origin, "where", f.where(), "field", f.Field, "code", f.Code, "problem", f.Message)
		}
	}
	s.seen = seen
	s.log.Log(context.Background(), level, "serving", "generation", s.generation, "ports", len(result.Table.Ports), "pools", len(result.Table.Pools), "problems", len(seen))
}

// drain ends the data plane the way that loses no request; a second signal ends it at once.
func (s *server) drain(log *slog.Logger) error {
	s.stopping.Store(true)
	log.Info("stopping: no longer ready, letting go of clients")
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	if err := s.proxy.Shutdown(ctx); err != nil {
		log.Warn("stopped before everything had finished", "error", err)
		if ctx.Err() != nil {
			return exitError(1)
		}
	}
	return nil
}

// hooks lets the metrics see what happens on the way to the backends.
func (s *server) hooks() backend.Hooks {
	return backend.Hooks{
		Connected: func(key route.PoolKey, _ string, took time.Duration, err error) {
			s.metrics.Connect(key, took, err == nil)
		},
		Ejected: func(key route.PoolKey, endpoint string, until time.Time, err error) {
			s.metrics.Ejected(key)
			s.log.Warn("endpoint left out", "pool", key.String(), "endpoint", endpoint, "until", until, "error", err)
		},
		Recovered: func(key route.PoolKey, endpoint string) {
			s.log.Info("endpoint is back", "pool", key.String(), "endpoint", endpoint)
		},
		Checked:      func(key route.PoolKey, _ string, err error) { s.metrics.Checked(key, err == nil) },
		RetryRefused: s.metrics.RetryRefused,
		Endpoints:    s.metrics.Endpoints,
	}
}

// admin opens the admin address and serves it until the returned function is called.
func (s *server) admin(address string, demo *demo) (func(), error) {
	if address == "" {
		return func() {}, nil
	}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on --admin-address: %w", err)
	}
	s.adminAt = ln.Addr()
	srv := admin.NewServer(admin.New(admin.Options{
		Build:        "fairlead " + buildVersion(),
		Ready:        s.readiness,
		Gatherer:     s.metrics.Gatherer(),
		Table:        func() string { return tableText(s.shows().result) },
		Explain:      s.explain,
		Backends:     func() any { return s.backends.Status() },
		Certificates: func() any { return s.certs.List() },
		Orders:       func() any { return s.orders() },
		Problems:     func() any { return s.shows().found },
		Demo:         demo.control(),
		Log:          s.log,
	}))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("admin server ended", "error", err)
		}
	})
	return func() { _ = srv.Close(); wg.Wait() }, nil
}

func (s *server) readiness() (bool, string) {
	if s.stopping.Load() {
		return false, "stopping"
	}
	if s.ready.Load() {
		return true, "serving"
	}
	return false, "no table is being served"
}

// shows returns what the admin pages show; before the first table an empty one.
func (s *server) shows() *shown {
	if in := s.result.Load(); in != nil {
		return in
	}
	return &shown{found: []finding{}, snapshot: &object.Snapshot{}, result: compile.Compile(&object.Snapshot{}, s.set.compile)}
}

// explain answers /debug/explain from the table that is being served.
func (s *server) explain(q admin.Question) (string, error) {
	parsed, err := newQuestion(q.Method, q.URL, q.Header)
	if err != nil {
		return "", err
	}
	var text strings.Builder
	in := s.shows()
	_, err = explain(&text, in.snapshot, s.set.compile, in.result, parsed)
	return text.String(), err
}

// measure tells the metrics what was installed, and has them forget what is gone.
func (s *server) measure(result compile.Result, found []finding, compiled, installed time.Duration) {
	s.metrics.Installed(installed)
	problems := map[string]int{string(compile.Error): 0, string(compile.Warning): 0, string(compile.Note): 0}
	for _, f := range found {
		problems[f.Severity]++
	}
	s.metrics.Config(telemetry.ConfigStatus{Generation: s.generation, Installed: time.Now(), Built: compiled, Objects: objectStates(s.snapshot, result), Problems: problems})
	var certs []telemetry.CertificateStatus
	for _, c := range s.certs.List() {
		if namespace, name, ok := strings.Cut(c.Secret, "/"); ok {
			certs = append(certs, telemetry.CertificateStatus{Namespace: namespace, Secret: name, Source: "secret", KeyType: c.KeyType, Issuer: c.Issuer, NotAfter: c.NotAfter})
		}
	}
	s.metrics.Certificates(certs)
}

func (s *server) measureOrders() {
	states := s.issuer.States()
	list := make([]telemetry.OrderStatus, len(states))
	for i, st := range states {
		list[i] = telemetry.OrderStatus{Namespace: st.Secret.Namespace, Secret: st.Secret.Name, Phase: string(st.Phase), Next: st.Next, Failures: st.Failures}
	}
	s.metrics.Orders(list)
}

// objectStates counts the objects of each kind that are served, rejected, or not ours to serve.
func objectStates(snap *object.Snapshot, result compile.Result) map[telemetry.ObjectState]int {
	out := map[telemetry.ObjectState]int{}
	bad := map[object.Ref]bool{}
	for _, p := range result.Problems {
		bad[p.Object] = bad[p.Object] || p.Severity == compile.Error
	}
	count := func(kind string, key object.Key, ours bool) {
		state := "accepted"
		switch {
		case !ours:
			state = "orphan"
		case bad[object.Ref{Kind: kind, Namespace: key.Namespace, Name: key.Name}]:
			state = "rejected"
		}
		out[telemetry.ObjectState{Kind: kind, State: state}]++
	}
	countKind(count, "Ingress", snap.Ingresses, result.Status.Ingresses)
	countKind(count, "Gateway", snap.Gateways, result.Status.Gateways)
	countKind(count, "ListenerSet", snap.ListenerSets, result.Status.ListenerSets)
	countKind(count, "HTTPRoute", snap.HTTPRoutes, result.Status.HTTPRoutes)
	countKind(count, "GRPCRoute", snap.GRPCRoutes, result.Status.GRPCRoutes)
	countKind(count, "TLSRoute", snap.TLSRoutes, result.Status.TLSRoutes)
	countKind(count, "TCPRoute", snap.TCPRoutes, result.Status.TCPRoutes)
	countKind(count, "UDPRoute", snap.UDPRoutes, result.Status.UDPRoutes)
	countKind(count, "XBackend", snap.XBackends, result.Status.XBackends)
	return out
}

// countKind counts the objects of one kind. Those that have a status are ours to serve.
func countKind[O, S any](count func(kind string, key object.Key, ours bool), kind string, objects map[object.Key]O, statuses map[object.Key]S) {
	for key := range objects {
		_, ours := statuses[key]
		count(kind, key, ours)
	}
}

func poolKeys(pools []*route.Pool) []route.PoolKey {
	keys := make([]route.PoolKey, len(pools))
	for i, p := range pools {
		keys[i] = p.Key
	}
	return keys
}
