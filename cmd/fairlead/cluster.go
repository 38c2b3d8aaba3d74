package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayclient "sigs.k8s.io/gateway-api/pkg/client/clientset/versioned"

	issue "github.com/fairlead-io/fairlead/internal/acme"
	"github.com/fairlead-io/fairlead/internal/acmestore"
	"github.com/fairlead-io/fairlead/internal/compile"
	"github.com/fairlead-io/fairlead/internal/manifest"
	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/provision"
	"github.com/fairlead-io/fairlead/internal/status"
	"github.com/fairlead-io/fairlead/internal/telemetry"
	"github.com/fairlead-io/fairlead/internal/watch"
)

// clusterFlags are the flags of serve that concern a cluster.
type clusterFlags struct {
	kubeconfig       string
	namespace        string
	podSelector      string
	publishService   string
	publishAddresses []string
	publishNodes     bool
	hostService      string
	hostPorts        string
	watchNamespaces  []string
	secretNamespaces []string
	leaderElection   bool
	serviceType      string
	trafficPolicy    string
	ingressClass     string
	gatewayClass     string
}

func (c *clusterFlags) register(f *pflag.FlagSet) {
	f.StringVar(&c.kubeconfig, "kubeconfig", "", "reach the cluster as this `FILE` says; empty means KUBECONFIG, or the pod's own service account")
	f.StringVar(&c.namespace, "namespace", os.Getenv("POD_NAMESPACE"), "Fairlead's own `NAMESPACE`, for the Lease and the Services of Gateways")
	f.StringVar(&c.podSelector, "pod-selector", "", "the `LABELS` of Fairlead's pods, as k=v,...; the Services of Gateways lead to them")
	f.StringVar(&c.publishService, "publish-service", "", "show the addresses of the Service `NAMESPACE/NAME` in the status of Ingresses")
	f.StringSliceVar(&c.publishAddresses, "publish-address", nil, "show these `ADDRESSES` in the status instead")
	f.BoolVar(&c.publishNodes, "publish-nodes", false, "show the addresses of nodes for Services of type NodePort")
	f.StringVar(&c.hostService, "host-service", "", "show the addresses of the nodes that the endpoints of the Service `NAMESPACE/NAME` are on, if nothing else is to be shown")
	f.StringVar(&c.hostPorts, "host-ports", "", "the ports of nodes that lead to those of listeners, as `PORT:NODEPORT,...`, such as 80:80,443:443")
	f.StringSliceVar(&c.watchNamespaces, "watch-namespaces", nil, "serve the objects of these `NAMESPACES` only")
	f.StringSliceVar(&c.secretNamespaces, "secret-namespaces", nil, "read Secrets in these `NAMESPACES` only")
	f.BoolVar(&c.leaderElection, "leader-election", true, "let one of several replicas write status; without it this one always does")
	f.StringVar(&c.serviceType, "gateway-service-type", string(corev1.ServiceTypeLoadBalancer), "the `TYPE` of the Services of Gateways: LoadBalancer, NodePort or ClusterIP")
	f.StringVar(&c.ingressClass, "ingress-class", "", "serve the IngressClass of this `NAME` only, whether the object can be read or not")
	f.StringVar(&c.gatewayClass, "gateway-class", "", "serve the GatewayClass of this `NAME` only, whether the object can be read or not")
	f.StringVar(&c.trafficPolicy, "gateway-traffic-policy", string(corev1.ServiceExternalTrafficPolicyCluster), "the externalTrafficPolicy of these Services: Cluster or Local")
}

// options returns what the flags mean for the compiler. With host the Gateways share the addresses of the nodes and have no Services.
func (c *clusterFlags) options(opt compile.Options, host bool) (compile.Options, error) {
	opt, err := c.addresses(opt)
	if err != nil || host {
		return opt, err
	}
	if c.namespace == "" {
		return opt, errors.New("--namespace: in a cluster Fairlead must know its own namespace")
	}
	selector, err := labels.ConvertSelectorToLabelsMap(c.podSelector)
	if err != nil || len(selector) == 0 {
		return opt, fmt.Errorf("--pod-selector: %q does not name the labels of Fairlead's pods, such as app=fairlead", c.podSelector)
	}
	switch corev1.ServiceType(c.serviceType) {
	case corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort, corev1.ServiceTypeClusterIP:
	default:
		return opt, fmt.Errorf("--gateway-service-type: %q is not LoadBalancer, NodePort or ClusterIP", c.serviceType)
	}
	switch corev1.ServiceExternalTrafficPolicy(c.trafficPolicy) {
	case corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal:
	default:
		return opt, fmt.Errorf("--gateway-traffic-policy: %q is not Cluster or Local", c.trafficPolicy)
	}
	opt.Cluster = &compile.ClusterOptions{
		Namespace: c.namespace, Selector: selector, ServiceType: corev1.ServiceType(c.serviceType),
		ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicy(c.trafficPolicy),
	}
	return opt, nil
}

// addresses adds what the flags say of the addresses that statuses show.
func (c *clusterFlags) addresses(opt compile.Options) (compile.Options, error) {
	opt.PublishAddresses, opt.Namespace, opt.PublishNodes = append(opt.PublishAddresses, c.publishAddresses...), c.namespace, c.publishNodes
	var err error
	if opt.PublishService, err = serviceKey("publish-service", c.publishService); err != nil {
		return opt, err
	}
	if opt.HostService, err = serviceKey("host-service", c.hostService); err != nil {
		return opt, err
	}
	opt.HostPorts, err = parsePortMap("host-ports", c.hostPorts)
	return opt, err
}

// serviceKey parses the value of a flag that names a Service, or nothing.
func serviceKey(flag, value string) (key object.Key, err error) {
	if value == "" {
		return key, nil
	}
	namespace, name, ok := strings.Cut(value, "/")
	if !ok || namespace == "" || name == "" {
		return key, fmt.Errorf("--%s: %q is not NAMESPACE/NAME", flag, value)
	}
	return object.Key{Namespace: namespace, Name: name}, nil
}

// readsNodes reports whether statuses may have to show addresses of nodes.
func (c *clusterFlags) readsNodes() bool { return c.publishNodes || c.hostService != "" }

// liveCluster is the source of snapshots and the place where conclusions are written.
type liveCluster struct {
	*watch.Cluster
	log       *slog.Logger
	clients   kubernetes.Interface
	gateway   gatewayclient.Interface
	metrics   *telemetry.Metrics
	lead      bool
	namespace string
	compile   compile.Options
	status    *status.Writer
	provision *provision.Writer
	acme      *acmestore.Store // with issuer: what replicas share
	issuer    *issue.Manager   // nil: no certificates are ordered
	issued    chan struct{}    // holds one token while something has become of an order that is not in the status yet
	wg        sync.WaitGroup

	mu       sync.Mutex
	snapshot *object.Snapshot // guarded by mu: what is being served
	result   compile.Result   // guarded by mu: from snapshot

	// The only classes that are served, if not nil. They stand for objects that cannot be read.
	ingressClass *networkingv1.IngressClass
	gatewayClass *gatewayv1.GatewayClass
}

// openCluster connects to the cluster; nothing is read before start.
func openCluster(c clusterFlags, opt compile.Options, acme *acmeConfig, metrics *telemetry.Metrics, log *slog.Logger) (*liveCluster, error) {
	config, err := watch.LoadConfig(c.kubeconfig, "")
	if err != nil {
		return nil, err
	}
	cluster, err := watch.Open(watch.Options{
		Config: config, Namespaces: c.watchNamespaces, OwnNamespace: c.namespace, SecretNamespaces: c.secretNamespaces, Nodes: c.readsNodes(), UserAgent: "fairlead/" + buildVersion(), Log: log,
		Hooks: watch.Hooks{
			Event:  func(kind string, event watch.Event) { metrics.Watched(kind, string(event)) },
			Failed: metrics.WatchFailed, Synced: metrics.WatchSynced,
		},
	})
	if err != nil {
		return nil, err
	}
	clients, err := kubernetes.NewForConfig(cluster.Config())
	if err != nil {
		return nil, fmt.Errorf("connect to the cluster: %w", err)
	}
	gateway, err := gatewayclient.NewForConfig(cluster.Config())
	if err != nil {
		return nil, fmt.Errorf("connect to the cluster: %w", err)
	}
	l := &liveCluster{
		Cluster: cluster, log: log, clients: clients, gateway: gateway, metrics: metrics, lead: c.leaderElection, namespace: c.namespace, compile: opt,
		status: status.New(status.Options{Kubernetes: clients, Gateway: gateway, Events: true, Log: log, Hooks: status.Hooks{
			Written:   func(kind string, result status.Result) { metrics.StatusWritten(kind, string(result)) },
			Announced: func(result status.Result) { metrics.Announced(string(result)) },
			Waiting:   metrics.StatusWaiting,
		}}),
		provision: provision.New(provision.Options{Kubernetes: clients, Gateway: gateway, Log: log, Hooks: provision.Hooks{
			Tried: func(verb provision.Verb, result provision.Result) {
				metrics.ServiceWritten(string(verb), string(result))
			},
		}}),
	}
	if len(acme.Issuers) > 0 {
		if err := l.order(acme, clients); err != nil {
			return nil, err
		}
	}
	if c.ingressClass != "" {
		l.ingressClass = &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: c.ingressClass}, Spec: networkingv1.IngressClassSpec{Controller: compile.IngressController}}
	}
	if c.gatewayClass != "" {
		l.gatewayClass = &gatewayv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: c.gatewayClass}, Spec: gatewayv1.GatewayClassSpec{ControllerName: compile.GatewayController}}
	}
	return l, nil
}

// challengeSpread is how long a challenge is known to the API server before the authority may look: by then every replica has heard of it.
const challengeSpread = time.Second

// order makes what gets certificates, with its memory in Fairlead's own namespace.
func (l *liveCluster) order(acme *acmeConfig, clients kubernetes.Interface) error {
	if l.namespace == "" {
		return errors.New("--namespace: to order certificates Fairlead must know its own namespace")
	}
	l.issued = make(chan struct{}, 1)
	l.acme = acmestore.New(acmestore.Options{Kubernetes: clients, Namespace: l.namespace, Log: l.log})
	var err error
	l.issuer, err = acme.manager(issue.Options{
		Storage: l.acme, Publisher: acmestore.Publisher{Kubernetes: clients}, Lost: l.acme.Lost, Spread: challengeSpread, Log: l.log,
		Changed: func(issue.State) { l.changed() },
	}, l.acme.Value)
	return err
}

// How long the start waits for what objects refer to by name. Without its ConfigMaps an object would fail for a moment after each start; for want of Secrets that are not
// of the type kubernetes.io/tls its status would say for a moment that they do not exist.
const (
	configMapsWithin = 5 * time.Second
	secretsWithin    = 500 * time.Millisecond
)

// Start reads the whole cluster for the first time, and follows it from then on.
func (l *liveCluster) Start(ctx context.Context) error {
	if l.issuer != nil {
		l.wg.Go(func() { l.acme.WatchChallenges(ctx, l.issuer.Challenges().Learn) })
	}
	if err := l.Cluster.Start(ctx); err != nil {
		return err
	}
	snap, _ := l.Read()
	result := compile.Compile(snap, l.compile)
	l.Want(result.Secrets)
	l.WantConfigMaps(result.ConfigMaps)
	within(ctx, secretsWithin, l.AwaitSecrets)
	within(ctx, configMapsWithin, l.AwaitConfigMaps)
	return nil
}

// within calls wait with a context that ends after d.
func within(ctx context.Context, d time.Duration, wait func(context.Context)) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	wait(ctx)
}

// Close ends what Start has started.
func (l *liveCluster) Close() {
	l.Cluster.Close()
	l.wg.Wait()
}

// Read implements reader.
func (l *liveCluster) Read() (*object.Snapshot, []manifest.Issue) {
	snap := l.Cluster.Read()
	if l.ingressClass == nil && l.gatewayClass == nil {
		return snap, nil
	}
	only := *snap
	if c := l.ingressClass; c != nil {
		only.IngressClasses = map[string]*networkingv1.IngressClass{c.Name: cmp.Or(snap.IngressClasses[c.Name], c)}
	}
	if c := l.gatewayClass; c != nil {
		only.GatewayClasses = map[string]*gatewayv1.GatewayClass{c.Name: cmp.Or(snap.GatewayClasses[c.Name], c)}
	}
	return &only, nil
}

// installed is told what is being served from now on. The writers keep the newest, and write it when this process leads.
func (l *liveCluster) installed(snapshot *object.Snapshot, result compile.Result) {
	l.Want(result.Secrets)
	l.WantConfigMaps(result.ConfigMaps)
	l.provision.Offer(result.Infrastructure)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.snapshot, l.result = snapshot, result
	l.offerStatus()
}

// offerStatus offers the newest status, with what became of certificates on order. l.mu is held.
func (l *liveCluster) offerStatus() {
	if l.issuer == nil {
		l.status.Offer(l.snapshot, l.result.Status, l.result.Problems)
		return
	}
	status, problems := l.result.WithIssuance(issuances(l.issuer.States()))
	l.status.Offer(l.snapshot, status, problems)
}

// followIssuer offers the status again when something became of an order, until ctx ends. What happens at the same time is offered together.
func (l *liveCluster) followIssuer(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.issued:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(200 * time.Millisecond):
		}
		l.mu.Lock()
		if l.snapshot != nil {
			l.offerStatus()
		}
		l.mu.Unlock()
	}
}

// changed notes that something became of an order.
func (l *liveCluster) changed() {
	select {
	case l.issued <- struct{}{}:
	default: // is known already
	}
}

// write lets the leader write status and Services until ctx ends. Losing the lead stops the writing and nothing else.
func (l *liveCluster) write(ctx context.Context) {
	if !l.lead {
		l.asLeader(ctx)
		return
	}
	for ctx.Err() == nil {
		if err := watch.Lead(ctx, watch.LeaderOptions{Config: l.Config(), Namespace: l.namespace, Log: l.log}, l.asLeader); err != nil && ctx.Err() == nil {
			l.log.Error("taking part in the election of a leader failed; will try again", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Second):
			}
		}
	}
}

// asLeader writes what was offered and what is offered until the lead ends.
func (l *liveCluster) asLeader(ctx context.Context) {
	l.metrics.Leading(true)
	defer l.metrics.Leading(false)
	var wg sync.WaitGroup
	wg.Go(func() { l.provision.Run(ctx) })
	wg.Go(func() { l.status.Run(ctx) })
	if l.issuer != nil {
		wg.Go(func() { l.issuer.Run(ctx) })
		wg.Go(func() { l.followIssuer(ctx) })
	}
	wg.Wait()
}

// serveCluster serves what a cluster holds until ctx ends or a signal arrives.
func serveCluster(ctx context.Context, o serveOptions, set settings, out, errOut io.Writer) error {
	var err error
	if set.compile, err = o.cluster.options(set.compile, o.gatewayAddresses == hostAddresses); err != nil {
		return err
	}
	log := newLogger(o, errOut)
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	defer stop()
	o.metrics = telemetry.NewMetrics(buildVersion())
	live, err := openCluster(o.cluster, set.compile, &set.config.ACME, o.metrics, log)
	if err != nil {
		return err
	}
	defer live.Close()
	return serve(ctx, o, set, live, out, errOut, nil)
}
