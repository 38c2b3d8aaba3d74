// Package route is the routing table: which rule serves a request, why, and why the others do not. It knows HTTP and nothing of Kubernetes; the compiler
// builds tables from objects, the proxy looks requests up in them.
//
// A Table is immutable once NewTable has returned it. Everything in it prints as text: see Table.String.
//
// Not everything is HTTP: a listener may pass on whole connections, or datagrams, instead. See Mode and Port.Connection.
//
// The path of a request through a table: the socket it arrived on names a Port; the Host names the Listener of that port with the most specific hostname
// (and no other: listeners are isolated); inside the listener the hosts are tried from the most specific to the least; inside a host the rules are tried in
// the order of precedence and the first that matches wins. If no rule of the listener matches, the port's last-resort listener (Ingress) is asked.
package route

import (
	"regexp"
	"time"
)

// Bind is the address of a listening socket. An empty Address means the address that the proxy binds by default. UDP has ports of its own: one number may be
// bound for TCP and for UDP.
type Bind struct {
	Address string
	Port    uint16
	UDP     bool
}

// Protocol is what is spoken on a socket, to clients (HTTP, HTTPS, TLS, TCP, UDP) or to backends (all but TLS).
type Protocol string

// The protocols. To clients HTTP includes HTTP/2 with prior knowledge (h2c), and HTTPS includes HTTP/2 by ALPN.
const (
	HTTP  Protocol = "http"
	HTTPS Protocol = "https"
	TLS   Protocol = "tls" // from clients: TLS, of which some at least is passed on by connection and not by request
	TCP   Protocol = "tcp" // anything: connections are passed on
	UDP   Protocol = "udp" // anything: datagrams are passed on
	H2C   Protocol = "h2c" // cleartext HTTP/2 with prior knowledge, to a backend
	WS    Protocol = "ws"  // HTTP/1.1 with upgrades, to a backend
	WSS   Protocol = "wss" // HTTP/1.1 over TLS with upgrades, to a backend
)

// Source says where a part of the table came from: an object and the path of a field in it, such as spec.rules[0].matches[1].
type Source struct {
	Kind, Namespace, Name string
	Field                 string
}

// Table is one immutable picture of everything that is served.
type Table struct {
	Ports    []*Port    // by Bind
	Pools    []*Pool    // every pool that a rule names, once, by key
	Rejected []Rejected // routes (or rules) that could not be served here, for Explain

	ports map[Bind]*Port
}

// Rejected is a route that names hosts which a request may ask for, but that did not become part of the table, and why. Explain reports it.
type Rejected struct {
	Hostnames []string // empty: any
	Why       string   // in words: "Gateway infra/gw allows routes from its own namespace only"
	Source    Source
}

// Port is one listening socket.
type Port struct {
	Bind      Bind
	Protocol  Protocol // HTTP, HTTPS, TLS, TCP or UDP
	Listeners []*Listener

	index      names[Listener]
	lastResort *Listener
}

// Mode is what becomes of a connection.
type Mode string

// The modes.
const (
	// Requests reads HTTP requests from the connection, and routes each of them.
	Requests Mode = ""
	// Passthrough passes a TLS connection on as it is, encrypted, to where the server name that it asks for leads.
	Passthrough Mode = "passthrough"
	// Terminate ends TLS, and passes on what was encrypted, to where the server name that it asks for leads.
	Terminate Mode = "terminate"
	// Raw passes on what comes, connections or datagrams, whatever it is.
	Raw Mode = "raw"
)

// Listener is a set of hosts served on a port under one name pattern, usually a listener of a Gateway. Of all listeners of a port, a request belongs to the
// one whose Hostname matches the request's host most specifically; the others never see it (Gateway API: listener isolation).
type Listener struct {
	Name     string // for metrics and logs, such as infra/gw/http; ingress for the Ingress objects of a port
	Hostname string // "" (any), "a.example.com" or "*.example.com" (any number of labels in place of *)
	// Mode is what becomes of the connections that belong to the listener. In all but Requests a Host stands for the server names that connections ask for
	// ("" in Raw), its rules have no matches, and the first of them gets all.
	Mode Mode
	// LastResort marks the listener that holds the Ingress objects of the port: it is asked when the listener that owns the host has no matching rule,
	// or when there is none. At most one for each port; its Hostname is empty.
	LastResort bool
	// OneLabelWildcards says that a host "*.example.com" of this listener matches a.example.com but not a.b.example.com, as Ingress wants it. In Gateway API
	// the star stands for one or more labels.
	OneLabelWildcards bool
	// Port is the port that clients connect to, which redirects keep: the listener's own port, not the port that it is bound to in the pod.
	Port    uint16
	Clients *ClientAuth // HTTPS; nil: nothing is demanded of clients
	Hosts   []*Host
	Source  Source

	index names[Host]
}

// Host is the rules for one host name of a listener.
type Host struct {
	Name  string  // "" (any), "a.example.com" or "*.example.com"; lower case
	Rules []*Rule // in order of precedence after NewTable

	index pathIndex
}

// Rule is one match and what happens to the requests that it wins. A route's rule with several matches becomes several Rules that share their filters and backends.
type Rule struct {
	Match Match
	// Order settles the precedence between rules whose matches are equally specific.
	Order    Order
	Filters  []Filter
	Backends []WeightedPool
	Timeouts Timeouts
	// Persistence, if not nil, keeps clients at their endpoint, whatever the pools' own policies say of that.
	Persistence *Persistence
	// Retry says when a request is sent again. Nil leaves it to the pool.
	Retry *Retry
	// Fault, if not nil, answers every request of this rule: it has nothing valid to send them to. The rule still wins its requests.
	Fault  *Fault
	Source Source
}

// Order is what decides between two rules whose matches are equally specific: the older object first, then namespace and name of the object (from
// Rule.Source), then the place of the rule in the object.
type Order struct {
	Created time.Time // of the object; the zero time counts as oldest
	Rule    int       // index of the rule in the object
	Match   int       // index of the match in the rule
	// Last puts the rule behind all others of its host, whatever it matches: a default backend.
	Last bool
}

// Match is the conditions that a request must meet, all of them. The zero Match is the path prefix "/": it matches every request.
type Match struct {
	Path   PathMatch
	Method string // "" is any
	// GRPC, if not nil, makes this a match for gRPC requests alone, and stands in place of Path and Method. In a host such matches come before all others.
	GRPC    *GRPCMatch
	Headers []ValueMatch
	Query   []ValueMatch
}

// PathKind is the kind of a path match. Exact takes precedence over Regex, and Regex over Prefix.
type PathKind uint8

// The kinds of path match.
const (
	Prefix PathKind = iota // by path element: /a matches /a, /a/ and /a/b but not /ab
	Exact                  // the whole path, and case, and trailing slash
	Regex                  // RE2, anchored at both ends
)

// PathMatch is a condition on the normalized path of a request. Value is as NormalizePath writes it, or the expression of a Regex as its author wrote it.
// The zero value matches every path. A Regex match without Regex matches none.
type PathMatch struct {
	Kind  PathKind
	Value string
	Regex *regexp.Regexp // for Regex only; as CompileRegex makes it
}

// ValueMatch is a condition on a header or a query parameter: its value equals Value, or matches Regex where that is set (Value is then the expression).
// Header names are in canonical form (textproto.CanonicalMIMEHeaderKey); query parameter names are as decoded, and case-sensitive.
//
// Of a repeated header any value may meet the condition, and so may all of them joined by commas; of a repeated query parameter the first value counts.
type ValueMatch struct {
	Name  string
	Value string
	Regex *regexp.Regexp
}

// Timeouts limit a request. A zero value means the proxy's default, a negative value no limit at all.
type Timeouts struct {
	Request time.Duration // from the request's first byte to the response's last, retries included
	Backend time.Duration // each try of a backend, from sending to the response's last byte
}

// Fault is an answer that Fairlead gives itself in place of a backend, and why.
type Fault struct {
	Status int // 0 where there are no requests to answer: the connection is closed, the datagram dropped
	Reason Reason
	Why    string // in words, for Explain and the access log; never sent to a client
}

// WeightedPool is one of the backends of a rule. Requests are shared out in proportion to Weight; weight 0 gets none.
type WeightedPool struct {
	Pool    *Pool // nil when Fault is set
	Weight  int32
	Filters []Filter // applied after the rule's, to the requests that this backend gets
	// Fault, if not nil, answers the requests that fall on this backend: it does not exist, or may not be referenced.
	Fault  *Fault
	Source Source
}

// PoolKey identifies a pool: one port of one Service, of TCP or of UDP, in one variant. What must survive a new table (balancer, health, connections) is kept by this key.
type PoolKey struct {
	// Kind is what kind of object Service names: "" is a Service.
	Kind      string
	Namespace string
	Service   string
	Port      int32 // the Service's port number
	UDP       bool
	// Variant tells pools of the same endpoints apart that are spoken to in different ways: under the name of a Gateway that has a client certificate of its
	// own. "" is the usual one.
	Variant string
}

// Pool is a set of endpoints that serve the same thing, and how to speak to them. The protocol is about requests: connections and datagrams are passed on as they
// are, whatever it says. The endpoints themselves are not part of the table: they change far more often.
type Pool struct {
	Key      PoolKey
	Protocol Protocol
	TLS      *PoolTLS // nil: endpoints are not verified
	Policy   Policy
	Care     Care
	// Retry is for the rules that have none of their own. Nil is none.
	Retry *Retry
	// Secret is something that all replicas know and clients do not, such as the UID of the Service. It is never printed.
	Secret string
	Source Source // the Service, or what is in its place
}

// Endpoint is one member of a pool.
type Endpoint struct {
	// Address is ip:port, or for a DNS endpoint name:port.
	Address string
	// DNS says that Address holds a name (ExternalName, XBackend), which the data plane resolves; each of its addresses must pass the policy for foreign names.
	DNS bool
	// Name is the name that an endpoint was resolved from whose Address is an address and DNS is true. The data plane sets it: servers are asked for it in TLS.
	Name string
	// Terminating says that the endpoint is on its way out and used only because there is no ready one.
	Terminating bool
	// Unready says that the endpoint is not to be used: it is not ready, and not on its way out either. What it has in flight may never be answered. All that are not ready
	// come after all that are.
	Unready    bool
	Zone, Node string
	// Distance is 0 for the endpoints that are preferred for being near, and for all where none are. The others follow in the order of their distance.
	Distance uint8
	// Weight is the endpoint's share of the pool's requests beside the others'. Zero means 1.
	Weight int32
}
