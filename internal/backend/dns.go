package backend

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// How long what is known of a name is good for: as long as its answer says, within bounds.
const (
	leastTTL    = 5 * time.Second
	mostTTL     = 5 * time.Minute
	usualTTL    = 30 * time.Second // of an answer that does not say, because it was not from the DNS
	mostWait    = 30 * time.Second // until a name that could not be resolved is asked for again
	lookupTime  = 10 * time.Second // that an answer may take
	maxDenials  = 3                // in a row, that there is such a name, until its addresses are given up
	maxResolved = 64               // addresses of a name
)

// names knows the addresses of the names that DNS endpoints have, and asks for each again when its answer is as old as it may be. A name that cannot be resolved
// keeps the addresses that it had.
type names struct {
	ask     func(ctx context.Context, host string) resolution
	changed func() // called when addresses are others than before, without any lock
	ctx     context.Context
	stop    context.CancelFunc
	owner   sync.WaitGroup // of one goroutine for each name

	mu    sync.Mutex
	known map[string]*known
}

// known is what is known of a name. Held: names.mu.
type known struct {
	stop      context.CancelFunc
	addresses []netip.Addr // sorted; none until the first answer
}

// resolution is what came of asking for a name.
type resolution struct {
	addresses []netip.Addr
	ttl       time.Duration // zero if nobody said
	err       error
}

// newNames makes names without any. changed must not be called before it returns.
func newNames(ask func(context.Context, string) resolution, changed func()) *names {
	n := &names{ask: ask, changed: changed, known: map[string]*known{}}
	n.ctx, n.stop = context.WithCancel(context.Background())
	return n
}

// want makes hosts the names that are kept up to date.
func (n *names) want(hosts map[string]bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for host, k := range n.known {
		if !hosts[host] {
			k.stop()
			delete(n.known, host)
		}
	}
	for host := range hosts {
		if n.known[host] != nil || n.ctx.Err() != nil {
			continue
		}
		ctx, stop := context.WithCancel(n.ctx)
		k := &known{stop: stop}
		n.known[host] = k
		n.owner.Go(func() { n.follow(ctx, host, k) })
	}
}

// follow keeps what is known of a name up to date until it is stopped.
func (n *names) follow(ctx context.Context, host string, k *known) {
	failures := 0
	for {
		got := n.ask(ctx, host)
		if ctx.Err() != nil {
			return
		}
		if got.err == nil {
			failures = 0
		} else {
			failures++
		}
		if n.learn(k, got, failures) {
			n.changed()
		}
		wait := time.NewTimer(spread(got.wait(failures)))
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-wait.C:
		}
	}
}

// learn takes over an answer and reports whether it changed anything. failures is how many there were in a row, this one among them.
func (n *names) learn(k *known, got resolution, failures int) bool {
	if got.err != nil && (failures < maxDenials || !got.denied()) {
		return false // a server that fails says nothing of the addresses that are known
	}
	addresses := slices.Clone(got.addresses)
	slices.SortFunc(addresses, netip.Addr.Compare)
	addresses = slices.Compact(addresses)
	addresses = addresses[:min(len(addresses), maxResolved)]
	n.mu.Lock()
	defer n.mu.Unlock()
	if slices.Equal(addresses, k.addresses) {
		return false
	}
	k.addresses = addresses
	return true
}

// denied reports whether the answer is that there is no such name, or that it has no addresses.
func (a *resolution) denied() bool {
	var e *net.DNSError
	return errors.As(a.err, &e) && e.IsNotFound
}

// wait is when the name is to be asked for again.
func (a *resolution) wait(failures int) time.Duration {
	switch {
	case a.err == nil && a.ttl == 0:
		return usualTTL
	case a.err == nil:
		return min(max(a.ttl, leastTTL), mostTTL)
	case a.denied():
		return min(max(a.ttl, leastTTL), mostWait)
	default:
		return min(leastTTL<<min(failures-1, 8), mostWait)
	}
}

// spread returns a time up to a tenth shorter, so that names and replicas do not all ask at once.
func spread(d time.Duration) time.Duration {
	return d - rand.N(d/10+1) // #nosec G404 -- spreads the load
}

// resolve returns endpoints with an endpoint for each address in place of each that is a name. A name that has not been resolved yet stays one, and is resolved by
// whoever connects to it.
func (n *names) resolve(eps []route.Endpoint) []route.Endpoint {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]route.Endpoint, 0, len(eps))
	for _, ep := range eps {
		host, port, ok := nameIn(ep)
		k := n.known[host]
		if !ok || k == nil || len(k.addresses) == 0 {
			out = append(out, ep)
			continue
		}
		for _, a := range k.addresses {
			ep.Address, ep.Name = net.JoinHostPort(a.String(), port), host
			out = append(out, ep)
		}
	}
	return out
}

// nameIn returns the name that an endpoint is to be resolved from, and its port.
func nameIn(ep route.Endpoint) (host, port string, ok bool) {
	if !ep.DNS {
		return "", "", false
	}
	host, port, err := net.SplitHostPort(ep.Address)
	if err != nil {
		return "", "", false
	}
	_, err = netip.ParseAddr(host)
	return host, port, err != nil
}

// resolveNames makes the names of all endpoints the ones that are kept up to date. The caller holds s.mu.
func (s *Set) resolveNames() {
	hosts := map[string]bool{}
	for _, p := range s.pools {
		for _, ep := range p.given {
			if host, _, ok := nameIn(ep); ok {
				hosts[host] = true
			}
		}
	}
	s.names.want(hosts)
}

// renew brings the endpoints of all pools up to date with what is known of their names.
func (s *Set) renew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	for _, p := range s.pools {
		if p.given != nil {
			p.update(p.given)
		}
	}
}
