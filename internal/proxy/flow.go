package proxy

import (
	"container/list"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fairlead-io/fairlead/internal/backend"
	"github.com/fairlead-io/fairlead/internal/route"
)

// flow is what one client says to a port of UDP, and what it is told: all datagrams from one address and port, until there are none for a while. It goes to one
// endpoint, through a socket of its own, so that what comes back is the client's and nobody else's.
type flow struct {
	port   *flowPort
	client netip.AddrPort
	reply  []byte // the control message that makes answers come from where the client sent to; nil: the system chooses
	begun  time.Duration
	pool   route.PoolKey // to which it goes
	chosen *installed    // the table by which it was routed; belongs to whoever receives

	seen     atomic.Int64 // when the last datagram passed: clock()
	answered atomic.Bool
	in, out  atomic.Int64

	mu      sync.Mutex
	x       *crossing           // once the flow is over it belongs to whoever ended it
	to      *backend.Connection // nil until it is there, and where there will be none
	early   [][]byte            // what came before that
	nowhere bool                // nobody takes it: what comes is dropped
	over    bool

	place *list.Element // among the young; held: port.mu
}

// maxEarly is how many datagrams of a flow wait until its socket is there, if those of all flows are not too long for that: maxEarlyBytes.
const maxEarly = 8

// retryFlow is how long a flow that cannot be served is dropped before it is routed anew.
const retryFlow = time.Second

// route finds out where the flow goes, and whether to anywhere. Nobody else knows of the flow yet.
func (f *flow) route(in *installed) (ok bool) {
	f.chosen, f.nowhere = in, true
	if rp := in.port(f.port.bind); rp != nil {
		f.x.find(in, rp)
	}
	if f.x.rule == nil {
		f.x.failed(route.NoRoute, "")
		return false
	}
	if !f.x.choose() {
		return false
	}
	f.nowhere, f.pool = false, f.x.backend.Pool.Key
	return true
}

// stale tells whether the flow should be routed anew: it leads nowhere, its endpoint is gone, or the table does not send it there any more.
func (f *flow) stale(in *installed) bool {
	f.mu.Lock()
	to, nowhere := f.to, f.nowhere
	f.mu.Unlock()
	switch {
	case nowhere:
		return f.chosen != in || clock()-f.begun > retryFlow
	case to != nil && to.Gone():
		return true
	case f.chosen == in:
		return false
	}
	var pools []*route.WeightedPool
	if rp := in.port(f.port.bind); rp != nil {
		if _, rule := rp.Connection(""); rule != nil && rule.Fault == nil {
			for i := range rule.Backends {
				pools = append(pools, &rule.Backends[i])
			}
		}
	}
	f.chosen = in
	return !slices.ContainsFunc(pools, func(b *route.WeightedPool) bool {
		return b.Pool != nil && b.Fault == nil && b.Weight > 0 && b.Pool.Key == f.pool
	})
}

// send passes a datagram on, or keeps it until the flow has a socket.
func (f *flow) send(b []byte) {
	f.in.Add(int64(len(b)))
	f.seen.Store(int64(clock()))
	f.mu.Lock()
	to := f.to
	if to == nil && !f.over && !f.nowhere && len(f.early) < maxEarly && f.port.early.Load() < maxEarlyBytes {
		f.early = append(f.early, slices.Clone(b))
		f.port.early.Add(int64(len(b)))
	}
	f.mu.Unlock()
	if to != nil {
		f.write(to, b)
	}
}

// write sends a datagram to the endpoint. Where it is refused is known a moment after that.
func (f *flow) write(to *backend.Connection, b []byte) {
	if _, err := to.Write(b); errors.Is(err, syscall.ECONNREFUSED) {
		f.refused(to, err)
	}
}

// refused ends the flow: nobody receives what is sent to the endpoint. The client's next datagram finds another.
func (f *flow) refused(to *backend.Connection, err error) {
	to.Refused(err)
	f.port.end(f, route.BackendConnectFailed, fmt.Sprintf("send to %s: %v", to.Endpoint, err))
}

// run makes the socket and passes on what comes back. x is as the flow's was before others knew of it.
func (f *flow) run(x crossing) {
	connected := x.connect()
	f.mu.Lock()
	over, early := f.over, f.early
	f.early = nil
	for _, b := range early {
		f.port.early.Add(-int64(len(b)))
	}
	if !over {
		*f.x, f.to, f.nowhere = x, x.to, !connected
	}
	f.mu.Unlock()
	switch {
	case !connected:
		return // what comes is dropped for a while
	case over:
		_ = x.to.Close()
		return
	}
	to := x.to
	for _, b := range early {
		f.write(to, b)
	}
	f.answer(to)
}

// answer passes on what the endpoint says until the socket is closed.
func (f *flow) answer(to *backend.Connection) {
	r, err := newAnswers(to.Conn, f.port.answering)
	if err != nil {
		f.port.end(f, route.Internal, err.Error())
		return
	}
	for {
		b, err := r.next()
		if err == nil {
			f.tell(to, b)
		}
		r.done()
		switch {
		case err == nil:
		case errors.Is(err, syscall.ECONNREFUSED):
			f.refused(to, err)
			return
		default:
			return // it was closed
		}
	}
}

// tell passes an answer on to the client.
func (f *flow) tell(to *backend.Connection, b []byte) {
	if !f.answered.Swap(true) {
		to.Answered()
	}
	f.out.Add(int64(len(b)))
	f.seen.Store(int64(clock()))
	f.port.tell(f, b)
}

// close ends the flow. It returns false if it has ended already.
func (f *flow) close() (first bool) {
	f.mu.Lock()
	first, f.over = !f.over, true
	to := f.to
	f.mu.Unlock()
	if first && to != nil {
		_ = to.Close()
	}
	return first
}
