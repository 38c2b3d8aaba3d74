// Package compile turns a Snapshot into what Fairlead serves and says: the routing table, the certificates, the status of every object and the problems in
// them. It is a function: the same snapshot gives the same bytes, and nothing else goes in or comes out. There is no error result, because a bad object never
// stops the others: it becomes a Problem and a status condition.
//
// One file answers one question; see the file names.
package compile

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// Default names of the controllers; see Options.
const (
	GatewayController = "fairlead.io/gateway-controller"
	IngressController = "fairlead.io/ingress-controller"
)

// Options are the operator's choices. The zero value works.
type Options struct {
	// GatewayController and IngressController are the names by which classes choose us. Empty means the defaults.
	GatewayController string
	IngressController string
	// PortMap maps the port of a listener to the port that is bound in its place, such as 80 to 8080. A port that is not in it is bound as it is.
	PortMap map[uint16]uint16
	// GatewayAddresses gives every Gateway an address of its own from this range, in the order of age. The zero value lets all Gateways share the default
	// bind address: listeners of one port are merged, told apart by hostname, and the older Gateway wins a clash.
	GatewayAddresses netip.Prefix
	// HTTPPort and HTTPSPort are where Ingress objects are served, before PortMap. Zero means 80 and 443.
	HTTPPort, HTTPSPort uint16
	// RedirectHTTPS redirects plain requests to HTTPS for every Ingress host that has a TLS block, unless the Ingress says fairlead.io/ssl-redirect: "false".
	RedirectHTTPS bool
	// AllowExternalName allows Services of type ExternalName, and XBackends of external host names, as backends.
	AllowExternalName bool
	// Balancing is how requests are shared out among the endpoints of Services that say nothing about it. Affinity is for Services alone to decide.
	Balancing route.Policy
	// Care is how the endpoints of Services that say nothing are looked after, and Retry when requests to them are sent again; nil is of their own accord only.
	Care  route.Care
	Retry *route.Retry
	// ReplayBytes is how much of a request's body a Service may have kept, to send it again. Zero means DefaultReplayBytes.
	ReplayBytes int
	// Node and Zone are where this process runs, for Services that prefer endpoints near their clients. An empty Zone is that of Node, if the cluster tells it.
	Node, Zone string
	// Namespace is Fairlead's own in a cluster, where the zone of Node is found; empty outside of one.
	Namespace string
	// PublishAddresses are what the status of Gateways (that share an address) and Ingresses shows; IPs or host names.
	PublishAddresses []string
	// PublishService is the Service that leads to the ports of Ingresses. Its addresses are shown if there are no PublishAddresses.
	PublishService object.Key
	// PublishNodes shows the addresses of nodes for Services of type NodePort that have no PublishAddresses.
	PublishNodes bool
	// HostService is a Service that selects Fairlead's pods, if these take ports of their nodes: the addresses of the nodes that they are on are shown, if nothing
	// else is.
	HostService object.Key
	// HostPorts are the ports of nodes that lead to the ports of listeners, by these, such as 80 to 80. Of others it is the port that is bound.
	HostPorts map[uint16]uint16
	// Cluster gives every Gateway an address of its own by means of a Service; see Result.Infrastructure. GatewayAddresses are of no importance then, and
	// PortMap is about Ingresses only. Nil: Gateways are bound in this process, or on the network of the nodes, as their listeners say.
	Cluster *ClusterOptions
	// ACME are the certificate authorities that certificates may be ordered from. Nil: none is ordered.
	ACME *ACMEOptions
}

func (o Options) withDefaults() Options {
	if o.GatewayController == "" {
		o.GatewayController = GatewayController
	}
	if o.IngressController == "" {
		o.IngressController = IngressController
	}
	if o.HTTPPort == 0 {
		o.HTTPPort = 80
	}
	if o.HTTPSPort == 0 {
		o.HTTPSPort = 443
	}
	o.Cluster = o.Cluster.withDefaults()
	return o
}

// bindPort returns the port that is bound for the port p of a listener.
func (o Options) bindPort(p uint16) uint16 {
	if m, ok := o.PortMap[p]; ok {
		return m
	}
	return p
}

// Result is everything that follows from a snapshot. It shares no memory that anybody may modify.
type Result struct {
	Table        *route.Table
	Certificates []route.Certificate
	Orders       []route.CertificateOrder // by namespace and name of the Secret; nothing without Options.ACME
	Status       Status
	Problems     []Problem // sorted
	// Infrastructure is what should exist in the cluster for the Gateways to be reached; nothing without Options.Cluster.
	Infrastructure Infrastructure
	// ConfigMaps are those that objects refer to and that were looked at, whether they exist or not; sorted. No others matter to the result.
	ConfigMaps []object.Key
	// Secrets are those that a key pair was looked for in, whether they exist or not; sorted.
	Secrets []object.Key
}

// compiler holds what one call of Compile reads and what its files write. Each field below is written by one file only, named beside it.
type compiler struct {
	in  *object.Snapshot
	opt Options

	problems    problems                               // problem.go
	grants      map[string][]*gatewayv1.ReferenceGrant // grant.go
	pairs       map[object.Key]parsedPair              // tls.go
	authorities map[object.Key]parsedAuthorities       // authority.go
	everyPolicy []*policy                              // policy.go
	inForce     map[policyTarget][]*policy             // policy.go; the one in force first
	pools       map[route.PoolKey]*route.Pool          // service.go
	xbackends   map[object.Key]*xbackend               // xbackend.go
	referred    map[object.Ref][]*xbackend             // xbackend.go; by route
	noted       map[route.PoolKey]bool                 // unused.go
	tables      map[route.Bind]*route.Port             // port.go
	certs       []route.Certificate                    // listener.go, ingresstls.go
	orders      map[object.Key]*order                  // acme.go
	hostOwners  map[string]string                      // acme.go: host → the namespace whose objects served it first
	defaults    []*gateway                             // gateway.go
	rejected    []route.Rejected                       // attach.go, ingress.go
	status      Status                                 // status.go

	infrastructure Infrastructure    // infrastructure.go
	ourServices    []*corev1.Service // infrastructure.go: made by this installation, by name
}

// Compile turns a snapshot into a Result.
func Compile(in *object.Snapshot, opt Options) Result {
	c := &compiler{
		in:     in,
		opt:    opt.withDefaults(),
		pools:  map[route.PoolKey]*route.Pool{},
		tables: map[route.Bind]*route.Port{},
	}
	c.policies()  // policy.go
	c.gateways()  // gateway.go: classes, listeners, attachment, routes
	c.ingresses() // ingress.go
	return c.result()
}
