// Package proxy is the data plane: it opens the sockets of a routing table, speaks HTTP/1.1 and HTTP/2 with clients, sends each request to the backend that the
// table names, and lets go of connections without losing a request.
//
// A request loads the table pointer once and keeps that table to its end. A new table never touches a connection that is in use.
package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-io/fairlead/internal/backend"
	"github.com/fairlead-io/fairlead/internal/route"
	"github.com/fairlead-io/fairlead/internal/telemetry"
)

// Options are the operator's choices for the data plane. The zero value is safe on the open internet: each zero field means the default that its comment names.
// A negative duration or count means no limit, where that is allowed.
type Options struct {
	// BindAddress is the address of binds that name none. Empty means all addresses, IPv4 and IPv6.
	BindAddress string
	// TrustedProxies are the peers whose X-Forwarded-* headers are believed. Empty: nobody's are.
	TrustedProxies []netip.Prefix
	// GetCertificate answers a TLS handshake on a bind. Required for HTTPS ports; called concurrently. The ServerName of the hello is lower-case and
	// without a trailing dot.
	GetCertificate func(route.Bind, *tls.ClientHelloInfo) (*tls.Certificate, error)
	Challenges     Challenger           // nil: there are no certificate authorities that would look here
	Backends       *backend.Set         // required
	Metrics        *telemetry.Metrics   // nil: nothing is counted
	AccessLog      *telemetry.AccessLog // nil: nothing is written
	Log            *slog.Logger         // nil: discarded
	Limits         Limits
	// DrainDelay is how long Shutdown goes on accepting while it tells clients to go (Connection: close, GOAWAY). Zero means 10 s, negative none.
	DrainDelay time.Duration
	// DrainGrace is how long requests and upgraded connections may take to finish after that. Zero means 30 s, negative none.
	DrainGrace time.Duration
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.DrainDelay == 0 {
		o.DrainDelay = 10 * time.Second
	}
	if o.DrainGrace == 0 {
		o.DrainGrace = 30 * time.Second
	}
	o.Limits = o.Limits.withDefaults()
	return o
}

func (o *Options) validate() error {
	if o.BindAddress == "" {
		return nil
	}
	if _, err := netip.ParseAddr(o.BindAddress); err != nil {
		return fmt.Errorf("bind address %q is not an IP address", o.BindAddress)
	}
	return nil
}

// Proxy serves the ports of the table that Install was last given. Make one with New. Its methods may be called concurrently.
type Proxy struct {
	opt       Options // defaults filled
	installed atomic.Pointer[installed]
	drain     atomic.Bool
	limiter   *connLimiter
	flows     *connLimiter // of UDP
	locals    locals

	// What tests of the front alone put in the place of the rest of the house.
	handler func(route.Bind) http.Handler
	listen  func(address string) (net.Listener, error)

	group  sync.WaitGroup // of the goroutines of this package, those of requests aside
	ctx    context.Context
	cancel context.CancelFunc // by Close
	gone   chan struct{}      // gets a value when a connection is gone, unless there is one

	mu        sync.Mutex
	ports     map[route.Bind]*port
	flowPorts map[route.Bind]*flowPort
	reserved  map[route.Bind]net.Listener // before the first table: see Reserve
	retired   map[*port]struct{}          // not in the table any more, but still with connections
	wanted    []*route.Port               // of the table, for retries
	retries   bool                        // a goroutine is trying to bind what could not be bound
	stopped   bool                        // by Shutdown or Close: no port is opened any more

	mirrors mirrors

	tunnelMu sync.Mutex
	tunnels  map[*tunnel]struct{}
}

// New makes a Proxy that serves nothing until Install.
func New(opt Options) (*Proxy, error) {
	if err := opt.validate(); err != nil {
		return nil, fmt.Errorf("make proxy: %w", err)
	}
	opt = opt.withDefaults()
	p := &Proxy{
		opt:       opt,
		limiter:   newConnLimiter(&opt.Limits, opt.TrustedProxies),
		flows:     newConnLimiter(&Limits{Connections: opt.Limits.Flows, ConnectionsPerIP: opt.Limits.ConnectionsPerIP}, opt.TrustedProxies),
		listen:    listen,
		flowPorts: map[route.Bind]*flowPort{},
		reserved:  map[route.Bind]net.Listener{},
		gone:      make(chan struct{}, 1),
		ports:     map[route.Bind]*port{},
		retired:   map[*port]struct{}{},
		tunnels:   map[*tunnel]struct{}{},
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.mirrors.ctx, p.mirrors.metrics = p.ctx, opt.Metrics
	p.handler = func(b route.Bind) http.Handler { return newHandler(p, b) }
	return p, nil
}

// errStopped is why nothing can be installed any more.
var errStopped = errors.New("the proxy has been shut down")

// draining reports whether Shutdown has begun: answers then carry Connection: close, which net/http turns into GOAWAY on HTTP/2.
func (p *Proxy) draining() bool { return p.drain.Load() }
