package proxy

import (
	"container/list"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
	"github.com/fairlead-io/fairlead/internal/telemetry"
)

// flowPort is a socket of UDP and the flows of its clients.
type flowPort struct {
	proxy   *Proxy
	bind    route.Bind
	name    string
	metrics *telemetry.ListenerMetrics
	socket  *net.UDPConn

	leaving   atomic.Bool   // no new flows
	closed    chan struct{} // when it is
	answering answering
	early     atomic.Int64 // bytes of what waits until its flow has a socket

	mu    sync.Mutex
	flows map[netip.AddrPort]*flow
	// young are the flows whose client has said nothing since it was answered, the oldest first: it may be that whoever sent the first datagram is not the one
	// at the address that it is from. They give way when there are too many.
	young list.List
}

// openFlows opens the socket of a port of UDP.
func (p *Proxy) openFlows(rp *route.Port) (*flowPort, error) {
	at, err := net.ResolveUDPAddr("udp", p.addressOf(rp.Bind))
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", rp.Bind, err)
	}
	c, err := net.ListenUDP("udp", at)
	if err != nil {
		return nil, err
	}
	if at.IP == nil || at.IP.IsUnspecified() {
		receiveDestination(c)
	}
	name := rp.Bind.String()
	return &flowPort{
		proxy: p, bind: rp.Bind, name: name, metrics: p.opt.Metrics.Listener(name), socket: c,
		closed: make(chan struct{}), answering: make(answering, maxAnswering), flows: map[netip.AddrPort]*flow{},
	}, nil
}

// start begins to receive.
func (n *flowPort) start() {
	n.proxy.group.Go(n.receive)
	n.proxy.group.Go(n.sweep)
}

func (n *flowPort) label() string { return n.name }

// receive takes datagrams from the socket until that is closed.
func (n *flowPort) receive() {
	buf, control := make([]byte, maxDatagram), make([]byte, 128)
	for {
		got, more, _, from, err := n.socket.ReadMsgUDPAddrPort(buf, control)
		if err != nil {
			select {
			case <-n.closed:
				return
			case <-time.After(time.Millisecond): // whatever it is may pass
				continue
			}
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if from.Port() == 0 || n.proxy.locals.own(from) {
			n.metrics.Unmatched(route.BadRequest) // an answer to it would come back
			continue
		}
		if f := n.flow(from, control[:more]); f != nil {
			f.send(buf[:got])
		}
	}
}

// flow returns the flow of a client, a new one if need be; nil if there cannot be one.
func (n *flowPort) flow(from netip.AddrPort, control []byte) *flow {
	in := n.proxy.installed.Load()
	n.mu.Lock()
	f := n.flows[from]
	if f != nil && f.place != nil && f.answered.Load() {
		n.young.Remove(f.place)
		f.place = nil
	}
	n.mu.Unlock()
	if f != nil && !f.stale(in) {
		return f
	}
	if f != nil {
		n.end(f, "", "")
	}
	if n.leaving.Load() || !n.admit(from) {
		return nil
	}
	f = n.newFlow(from, control)
	goes := f.route(in)
	x := *f.x
	if !n.add(f) {
		n.proxy.flows.release(from.Addr())
		return nil
	}
	n.metrics.Flow(1)
	if goes {
		n.proxy.group.Go(func() { f.run(x) })
	}
	return f
}

// add adds a flow, unless the port is going.
func (n *flowPort) add(f *flow) (ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.leaving.Load() {
		return false
	}
	n.flows[f.client] = f
	f.place = n.young.PushBack(f)
	return true
}

func (n *flowPort) newFlow(from netip.AddrPort, control []byte) *flow {
	f := &flow{port: n, client: from, reply: answerFrom(control), begun: clock()}
	f.x = &crossing{proxy: n.proxy, metrics: n.metrics, scheme: "udp", from: from, started: time.Now()}
	f.seen.Store(int64(f.begun))
	return f
}

// admit takes a place for a new flow. If there is none, the oldest of those that may be nobody's gives way.
func (n *flowPort) admit(from netip.AddrPort) (ok bool) {
	for range 2 {
		if n.proxy.flows.acquire(from.Addr()) {
			return true
		}
		n.mu.Lock()
		oldest := n.young.Front()
		n.mu.Unlock()
		if oldest == nil {
			break
		}
		n.end(oldest.Value.(*flow), route.Overloaded, "another flow took its place")
	}
	n.metrics.Unmatched(route.Overloaded)
	return false
}

// tell sends an answer to the client of a flow.
func (n *flowPort) tell(f *flow, b []byte) {
	_, _, _ = n.socket.WriteMsgUDPAddrPort(b, f.reply, f.client) // datagrams get lost
}

// end ends a flow and accounts for it.
func (n *flowPort) end(f *flow, reason route.Reason, detail string) {
	if !f.close() {
		return
	}
	n.mu.Lock()
	if n.flows[f.client] == f {
		delete(n.flows, f.client)
	}
	if f.place != nil {
		n.young.Remove(f.place)
		f.place = nil
	}
	n.mu.Unlock()
	n.proxy.flows.release(f.client.Addr())
	n.metrics.Flow(-1)
	if reason != "" && f.x.reason == "" {
		f.x.failed(reason, detail)
	}
	f.x.in, f.x.out = f.in.Load(), f.out.Load()
	f.x.account()
	wake(n.proxy.gone)
}

// How long a flow of a port that is going may be quiet, and how often flows are looked at then.
const (
	leavingQuiet = 2 * time.Second
	leavingStep  = 100 * time.Millisecond
)

// sweep ends flows that are quiet.
func (n *flowPort) sweep() {
	for {
		idle := n.proxy.opt.Limits.FlowIdle
		step := idle / 4
		if n.leaving.Load() {
			idle, step = min(idle, leavingQuiet), leavingStep
		}
		timer := time.NewTimer(max(min(step, time.Second), time.Millisecond))
		select {
		case <-n.closed:
			timer.Stop()
			return
		case <-timer.C:
		}
		for _, f := range n.list() {
			if clock()-time.Duration(f.seen.Load()) >= idle {
				n.end(f, "", "")
			}
		}
	}
}

func (n *flowPort) list() []*flow {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]*flow, 0, len(n.flows))
	for _, f := range n.flows {
		out = append(out, f)
	}
	return out
}

// close closes the socket and ends all flows.
func (n *flowPort) close() {
	n.leaving.Store(true)
	close(n.closed)
	_ = n.socket.Close()
	for _, f := range n.list() {
		n.end(f, route.Stopping, "the socket is closed")
	}
}

// closeFlows closes the ports of UDP that are to go. p.mu must be held.
func (p *Proxy) closeFlows(goes func(*flowPort) bool) {
	for bind, n := range p.flowPorts {
		if goes(n) {
			delete(p.flowPorts, bind)
			n.close()
		}
	}
	p.noteUDP()
}

// leaveFlows has the ports of UDP take no new flows.
func (p *Proxy) leaveFlows() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.flowPorts {
		n.leaving.Store(true)
	}
}

// openFlowCount is the number of flows.
func (p *Proxy) openFlowCount() int { return int(p.flows.open.Load()) }

// noteUDP notes the ports that are bound for UDP. p.mu must be held.
func (p *Proxy) noteUDP() {
	ports := map[uint16]bool{}
	for _, n := range p.flowPorts {
		if a, ok := n.socket.LocalAddr().(*net.UDPAddr); ok {
			ports[a.AddrPort().Port()] = true
		}
	}
	p.locals.ports.Store(&ports)
}

// locals tells what comes from this process itself, or pretends to. To answer it would be to ask oneself, for ever.
type locals struct {
	ports atomic.Pointer[map[uint16]bool]

	mu    sync.Mutex
	addrs map[netip.Addr]bool
	until time.Duration // when they should be looked up again
}

// own tells whether an address is that of a port of UDP of this process.
func (l *locals) own(a netip.AddrPort) bool {
	ports := l.ports.Load()
	if ports == nil || !(*ports)[a.Port()] {
		return false
	}
	if a.Addr().IsLoopback() {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := clock(); l.addrs == nil || now > l.until {
		l.addrs, l.until = interfaceAddresses(), now+10*time.Second
	}
	return l.addrs[a.Addr().WithZone("")]
}

func interfaceAddresses() map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return out
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				out[ip.Unmap()] = true
			}
		}
	}
	return out
}
