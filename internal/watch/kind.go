package watch

import (
	"context"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// kind is one kind of object that is watched.
type kind struct {
	name       string   // the plural, as the API server has it
	namespaces []string // to watch it in; "" for all, or for a kind that lives in none
	role       role
	table      bool // what is compiled into a table depends on it
	shelf      shelf
	open       func(namespace, version string) client
	// gateway are the versions of a kind of the Gateway API, the best first, with their group where it is not the usual one; nil for kinds that every API server has.
	gateway []string
	// without says what does not work when it may not be read; "" for a kind that Fairlead does not serve without.
	without string

	sources []*source
	running *run // nil while it is not watched; belongs to whoever starts and stops it
}

// role is what an object is to the routes, which is what matters when many of them are missing at once.
type role int

const (
	support   role = iota // routes hang on it
	routes                // it is one
	endpoints             // it has the endpoints of a Service
)

// client lists and watches the objects of one kind.
type client struct {
	example runtime.Object // of the type that it gets
	list    func(context.Context, metav1.ListOptions) (runtime.Object, error)
	watch   func(context.Context, metav1.ListOptions) (watch.Interface, error)
}

type generated[L runtime.Object] interface {
	List(context.Context, metav1.ListOptions) (L, error)
	Watch(context.Context, metav1.ListOptions) (watch.Interface, error)
}

// typed makes a client of one of those that are generated for each kind.
func typed[L runtime.Object](example runtime.Object, c generated[L]) client {
	return client{
		example: example,
		list:    func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) { return c.List(ctx, opts) },
		watch:   c.Watch,
	}
}

// selecting returns a client that gets only what a field selector selects.
func (c client) selecting(fields string) client {
	all := c
	c.list = func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
		opts.FieldSelector = fields
		return all.list(ctx, opts)
	}
	c.watch = func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
		opts.FieldSelector = fields
		return all.watch(ctx, opts)
	}
	return c
}

// allKinds makes the kinds that the options ask for.
func (c *Cluster) allKinds() []*kind {
	kinds := c.coreKinds()
	if c.opt.Nodes {
		kinds = append(kinds, c.nodeKind())
	}
	if !c.opt.NoIngress {
		kinds = append(kinds, c.ingressKinds()...)
	}
	if !c.opt.NoGatewayAPI {
		kinds = append(kinds, c.gatewayKinds()...)
	}
	for _, k := range kinds {
		if k.namespaces == nil {
			k.namespaces = orEverywhere(c.opt.Namespaces)
		}
	}
	return kinds
}

var everywhere = []string{""}

func orEverywhere(namespaces []string) []string {
	if len(namespaces) == 0 {
		return everywhere
	}
	return namespaces
}

// withOwn are the namespaces that are served, and Fairlead's own, where the Services of Gateways are. "" means all.
func (o Options) withOwn() []string {
	if len(o.Namespaces) == 0 || o.OwnNamespace == "" {
		return orEverywhere(o.Namespaces)
	}
	return sorted(append(slices.Clip(o.Namespaces), o.OwnNamespace))
}

// slicesIn are the namespaces whose EndpointSlices are read. Where addresses of nodes are shown, those of Fairlead's own pods tell which nodes they are on.
func (o Options) slicesIn() []string {
	if o.Nodes {
		return o.withOwn()
	}
	return orEverywhere(o.Namespaces)
}

// nodeKind watches nodes, of which only addresses are of interest.
func (c *Cluster) nodeKind() *kind {
	return &kind{
		name: "nodes", namespaces: everywhere, table: true,
		shelf:   global(true, func(s *object.Snapshot) *map[string]*corev1.Node { return &s.Nodes }),
		open:    func(string, string) client { return typed(&corev1.Node{}, c.api.kube.CoreV1().Nodes()) },
		without: "statuses do not show the addresses of nodes",
	}
}

func (c *Cluster) coreKinds() []*kind {
	kube := c.api.kube
	c.services = namespaced(false, func(s *object.Snapshot) *map[object.Key]*corev1.Service { return &s.Services })
	return []*kind{
		{
			name: "namespaces", namespaces: everywhere, table: true,
			shelf:   global(true, func(s *object.Snapshot) *map[string]*corev1.Namespace { return &s.Namespaces }),
			open:    func(string, string) client { return typed(&corev1.Namespace{}, kube.CoreV1().Namespaces()) },
			without: "listeners that select namespaces by labels of their own admit no routes",
		},
		{
			name: "services", namespaces: c.opt.withOwn(), table: true,
			shelf: c.services,
			open:  func(ns, _ string) client { return typed(&corev1.Service{}, kube.CoreV1().Services(ns)) },
		},
		{
			name: "endpointslices", role: endpoints, namespaces: c.opt.slicesIn(),
			shelf: &sliceShelf{},
			open: func(ns, _ string) client {
				return typed(&discoveryv1.EndpointSlice{}, kube.DiscoveryV1().EndpointSlices(ns))
			},
		},
		c.secretKind(),
		c.configMapKind(),
	}
}

// secretKind watches the Secrets that hold certificates, and reads others by name.
func (c *Cluster) secretKind() *kind {
	api := c.api.kube.CoreV1()
	shelf := &layered[*corev1.Secret]{plain: namespaced(true, func(s *object.Snapshot) *map[object.Key]*corev1.Secret { return &s.Secrets })}
	k := &kind{
		name: "secrets", namespaces: orEverywhere(c.opt.SecretNamespaces), table: true, shelf: shelf,
		open: func(ns, _ string) client {
			return typed(&corev1.Secret{}, api.Secrets(ns)).selecting("type=" + string(corev1.SecretTypeTLS))
		},
	}
	c.secrets = newFetched(c, k, shelf, func(ctx context.Context, key object.Key) (*corev1.Secret, error) {
		return api.Secrets(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
	})
	c.secrets.namespaces = c.opt.SecretNamespaces
	c.secrets.keep = func(s *corev1.Secret) bool { return s.Type != corev1.SecretTypeTLS } // the watch brings those, and takes them away
	c.named = append(c.named, c.secrets)
	return k
}

// configMapKind reads ConfigMaps by name, and watches none.
func (c *Cluster) configMapKind() *kind {
	api := c.api.kube.CoreV1()
	shelf := &layered[*corev1.ConfigMap]{plain: namespaced(true, func(s *object.Snapshot) *map[object.Key]*corev1.ConfigMap { return &s.ConfigMaps })}
	k := &kind{name: "configmaps", namespaces: []string{}, table: true, shelf: shelf}
	c.configs = newFetched(c, k, shelf, func(ctx context.Context, key object.Key) (*corev1.ConfigMap, error) {
		return api.ConfigMaps(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
	})
	c.configs.namespaces, c.configs.urgent = c.opt.Namespaces, true
	c.named = append(c.named, c.configs)
	return k
}

func (c *Cluster) ingressKinds() []*kind {
	api := c.api.kube.NetworkingV1()
	return []*kind{
		{
			name: "ingressclasses", namespaces: everywhere, table: true,
			shelf:   global(true, func(s *object.Snapshot) *map[string]*networkingv1.IngressClass { return &s.IngressClasses }),
			open:    func(string, string) client { return typed(&networkingv1.IngressClass{}, api.IngressClasses()) },
			without: "Ingresses that belong to Fairlead through an IngressClass are not served",
		},
		{
			name: "ingresses", role: routes, table: true,
			shelf: namespaced(false, func(s *object.Snapshot) *map[object.Key]*networkingv1.Ingress { return &s.Ingresses }),
			open:  func(ns, _ string) client { return typed(&networkingv1.Ingress{}, api.Ingresses(ns)) },
		},
	}
}

func (c *Cluster) gatewayKinds() []*kind {
	api := c.api.gateway.GatewayV1()
	x := c.api.gateway.ExperimentalV1alpha1()
	beta := c.api.gateway.GatewayV1beta1()
	stable := []string{"v1"}
	return []*kind{
		{
			name: "gatewayclasses", namespaces: everywhere, table: true, gateway: stable,
			shelf:   global(false, func(s *object.Snapshot) *map[string]*gatewayv1.GatewayClass { return &s.GatewayClasses }),
			open:    func(string, string) client { return typed(&gatewayv1.GatewayClass{}, api.GatewayClasses()) },
			without: "no Gateway belongs to Fairlead",
		},
		{
			name: "gateways", table: true, gateway: stable,
			shelf: namespaced(false, func(s *object.Snapshot) *map[object.Key]*gatewayv1.Gateway { return &s.Gateways }),
			open:  func(ns, _ string) client { return typed(&gatewayv1.Gateway{}, api.Gateways(ns)) },
		},
		{
			name: "listenersets", table: true, gateway: stable,
			shelf:   namespaced(false, func(s *object.Snapshot) *map[object.Key]*gatewayv1.ListenerSet { return &s.ListenerSets }),
			open:    func(ns, _ string) client { return typed(&gatewayv1.ListenerSet{}, api.ListenerSets(ns)) },
			without: "the listeners of ListenerSets are not served",
		},
		{
			name: "httproutes", role: routes, table: true, gateway: stable,
			shelf: namespaced(false, func(s *object.Snapshot) *map[object.Key]*gatewayv1.HTTPRoute { return &s.HTTPRoutes }),
			open:  func(ns, _ string) client { return typed(&gatewayv1.HTTPRoute{}, api.HTTPRoutes(ns)) },
		},
		{
			name: "backendtlspolicies", table: true, gateway: stable,
			shelf: namespaced(false, func(s *object.Snapshot) *map[object.Key]*gatewayv1.BackendTLSPolicy { return &s.BackendTLSPolicies }),
			// Without them requests would be sent to backends that nobody has verified: there is no serving without.
			open: func(ns, _ string) client { return typed(&gatewayv1.BackendTLSPolicy{}, api.BackendTLSPolicies(ns)) },
		},
		{
			name: "xbackendtrafficpolicies", table: true, gateway: []string{gatewayx.GroupVersion.String()},
			shelf: namespaced(false, func(s *object.Snapshot) *map[object.Key]*gatewayx.XBackendTrafficPolicy {
				return &s.XBackendTrafficPolicies
			}),
			open: func(ns, _ string) client {
				return typed(&gatewayx.XBackendTrafficPolicy{}, x.XBackendTrafficPolicies(ns))
			},
			without: "the retry budgets and sessions of XBackendTrafficPolicies are not kept to",
		},
		{
			name: "xbackends", table: true, gateway: []string{gatewayx.GroupVersion.String()}, without: "routes do not find XBackends",
			shelf: namespaced(false, func(s *object.Snapshot) *map[object.Key]*gatewayx.XBackend { return &s.XBackends }),
			open: func(ns, _ string) client {
				return typed(&gatewayx.XBackend{}, x.XBackends(ns))
			},
		},
		{
			name: "grpcroutes", role: routes, table: true, gateway: stable, without: "GRPCRoutes are not served",
			shelf: namespaced(false, func(s *object.Snapshot) *map[object.Key]*gatewayv1.GRPCRoute { return &s.GRPCRoutes }),
			open:  func(ns, _ string) client { return typed(&gatewayv1.GRPCRoute{}, api.GRPCRoutes(ns)) },
		},
		{
			name: "tlsroutes", role: routes, table: true, gateway: stable, without: "TLSRoutes are not served",
			shelf: namespaced(false, func(s *object.Snapshot) *map[object.Key]*gatewayv1.TLSRoute { return &s.TLSRoutes }),
			open:  func(ns, _ string) client { return typed(&gatewayv1.TLSRoute{}, api.TLSRoutes(ns)) },
		},
		{
			name: "tcproutes", role: routes, table: true, gateway: stable, without: "TCPRoutes are not served",
			shelf: namespaced(false, func(s *object.Snapshot) *map[object.Key]*gatewayv1.TCPRoute { return &s.TCPRoutes }),
			open:  func(ns, _ string) client { return typed(&gatewayv1.TCPRoute{}, api.TCPRoutes(ns)) },
		},
		{
			name: "udproutes", role: routes, table: true, gateway: stable, without: "UDPRoutes are not served",
			shelf: namespaced(false, func(s *object.Snapshot) *map[object.Key]*gatewayv1.UDPRoute { return &s.UDPRoutes }),
			open:  func(ns, _ string) client { return typed(&gatewayv1.UDPRoute{}, api.UDPRoutes(ns)) },
		},
		{
			name: "referencegrants", table: true, gateway: []string{"v1", "v1beta1"},
			shelf: namespaced(true, func(s *object.Snapshot) *map[object.Key]*gatewayv1.ReferenceGrant { return &s.ReferenceGrants }),
			open: func(ns, version string) client {
				if version == "v1beta1" {
					return typed(&gatewayv1beta1.ReferenceGrant{}, beta.ReferenceGrants(ns))
				}
				return typed(&gatewayv1.ReferenceGrant{}, api.ReferenceGrants(ns))
			},
		},
	}
}

// run is the time that a kind is watched in one version.
type run struct {
	version string
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

// await notes that the kind is going to be watched. Cluster.mu is held.
func (k *kind) await() {
	for _, s := range k.sources {
		s.health = health{gap: s.c.opt.Now(), begun: true}
	}
}

// start watches the kind in a version, after await. owner waits for the end.
func (k *kind) start(ctx context.Context, owner *sync.WaitGroup, version string) {
	ctx, cancel := context.WithCancel(ctx)
	r := &run{version: version, cancel: cancel}
	k.running = r
	for _, s := range k.sources {
		r.wg.Add(1)
		owner.Go(func() {
			defer r.wg.Done()
			s.run(ctx, version)
		})
	}
}

// halt ends the watch and waits for its end. The objects stay as they are.
func (k *kind) halt() {
	k.running.cancel()
	k.running.wg.Wait()
	k.running = nil
}
