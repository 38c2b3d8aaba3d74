package proxy

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

var udpBind = route.Bind{Address: "127.0.0.1", UDP: true}

// serveDatagrams starts a backend that answers each datagram with its name and what it got, and returns its address.
func serveDatagrams(t testing.TB, name string) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, maxDatagram)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(append([]byte(name+":"), buf[:n]...), from)
		}
	})
	t.Cleanup(func() { _ = c.Close(); wg.Wait() })
	return c.LocalAddr().String()
}

// datagrams is the pool of a name, of UDP.
func datagrams(name string) *route.Pool {
	return &route.Pool{Key: route.PoolKey{Namespace: "shop", Service: name, Port: 53, UDP: true}, Protocol: route.UDP}
}

// newFlowRig starts a proxy that passes datagrams on.
func newFlowRig(t testing.TB, w world, options ...rigOption) *rig {
	t.Helper()
	r := newRig(t, h1, world{}, options...)
	r.installFlows(w)
	return r
}

func (r *rig) installFlows(w world) {
	r.t.Helper()
	table := route.NewTable([]*route.Port{{Bind: udpBind, Protocol: route.UDP, Listeners: w.listeners}}, w.pools(), nil)
	r.set.Install(table.Pools)
	r.set.Update(w.endpointMap())
	if err := r.p.Install(table); err != nil {
		r.t.Fatal(err)
	}
	r.addr = r.p.Addr(udpBind).String()
}

// flowWorld sends all datagrams to backends.
func flowWorld(endpoints map[*route.Pool][]string, backends ...route.WeightedPool) world {
	r := whole(backends...)
	r.Source.Kind = "UDPRoute"
	return world{listeners: []*route.Listener{at(route.Raw, "", r)}, endpoints: endpoints}
}

// flow opens a socket of a client.
func (r *rig) flow() net.Conn {
	r.t.Helper()
	c, err := net.Dial("udp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

// ask sends a datagram and returns the answer; "" if there is none.
func ask(c net.Conn, text string, wait time.Duration) string {
	_, _ = c.Write([]byte(text))
	_ = c.SetReadDeadline(time.Now().Add(wait))
	buf := make([]byte, maxDatagram)
	n, _ := c.Read(buf)
	return string(buf[:n])
}

const (
	patiently = 10 * time.Second
	briefly   = 100 * time.Millisecond
)

func TestDatagramsArePassedOn(t *testing.T) {
	p := datagrams("dns")
	r := newFlowRig(t, flowWorld(map[*route.Pool][]string{p: {serveDatagrams(t, "a")}}, all(p)))
	one, two := r.flow(), r.flow()
	big := strings.Repeat("x", 65_505) // what comes back is the longest that IPv4 has room for
	for _, text := range []string{"hello", "", big} {
		for _, c := range []net.Conn{one, two} {
			if got := ask(c, text, patiently); got != "a:"+text {
				t.Fatalf("got %.20q, want %.20q", got, "a:"+text)
			}
		}
	}
	if n := r.counter("fairlead_connections", "state", "flow"); n != 2 {
		t.Errorf("%v flows", n)
	}
	e := r.entries()
	if len(e) != 2 || e[0]["scheme"] != "udp" || e[0]["bytes_in"] != float64(5+len(big)) || e[0]["bytes_out"] != float64(6+5+len(big)) || e[0]["backend"] != "shop/dns:53/udp" {
		t.Errorf("log: %v", e)
	}
	if n := r.counter("fairlead_connections", "state", "flow"); n != 0 {
		t.Errorf("%v flows are left", n)
	}
}

// "Packet drops must respect weight": a flow goes where it went, to a backend or to nowhere.
func TestFlowsAreSharedOutByWeight(t *testing.T) {
	a, b := datagrams("a"), datagrams("b")
	r := newFlowRig(t, flowWorld(map[*route.Pool][]string{a: {serveDatagrams(t, "a")}, b: {serveDatagrams(t, "b")}},
		route.WeightedPool{Pool: a, Weight: 7}, route.WeightedPool{Pool: b, Weight: 3}))
	seen := map[string]int{}
	const many = 400
	for range many {
		c := r.flow()
		first := ask(c, "", patiently)
		seen[first]++
		if again := ask(c, "", patiently); again != first {
			t.Fatalf("a flow went to %q and then to %q", first, again)
		}
		_ = c.Close()
	}
	// Five standard deviations of a binomial distribution are 46.
	if n := seen["a:"]; n < 280-46 || n > 280+46 || seen["a:"]+seen["b:"] != many {
		t.Errorf("got %v", seen)
	}
	none := newFlowRig(t, flowWorld(nil, route.WeightedPool{Weight: 1, Fault: &route.Fault{Reason: route.NoBackend}}))
	c := none.flow()
	for range 3 {
		if got := ask(c, "x", briefly); got != "" {
			t.Errorf("got %q", got)
		}
	}
	if e := none.entries(); len(e) != 1 || e[0]["reason"] != string(route.NoBackend) {
		t.Errorf("log: %v", e)
	}
}

func TestFlowThatIsQuietEnds(t *testing.T) {
	p := datagrams("dns")
	r := newFlowRig(t, flowWorld(map[*route.Pool][]string{p: {serveDatagrams(t, "a")}}, all(p)), limited(func(l *Limits) { l.FlowIdle = briefly }))
	c := r.flow()
	for range 2 {
		if got := ask(c, "x", patiently); got != "a:x" {
			t.Fatalf("got %q", got)
		}
		waitUntil(t, "the flow is over", func() bool { return r.p.openFlowCount() == 0 })
	}
	if e := r.entries(); len(e) != 2 {
		t.Errorf("log: %v", e)
	}
}

// An endpoint that refuses is left for another, and one that is gone too, although the client never stops.
func TestFlowMovesOn(t *testing.T) {
	p := datagrams("dns")
	gone, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = gone.Close()
	w := flowWorld(map[*route.Pool][]string{p: {gone.LocalAddr().String(), serveDatagrams(t, "a")}}, all(p))
	r := newFlowRig(t, w)
	for range 4 { // of which some begin at the endpoint that refuses
		c := r.flow()
		waitUntil(t, "it is answered", func() bool { return ask(c, "x", briefly) == "a:x" })
	}
	c := r.flow()
	waitUntil(t, "it is answered", func() bool { return ask(c, "x", briefly) == "a:x" })
	r.set.Update(map[route.PoolKey][]route.Endpoint{p.Key: {{Address: serveDatagrams(t, "b")}}})
	waitUntil(t, "the other endpoint answers", func() bool { return ask(c, "y", briefly) == "b:y" })
	q := datagrams("other")
	r.installFlows(flowWorld(map[*route.Pool][]string{q: {serveDatagrams(t, "c")}}, all(q)))
	waitUntil(t, "the other pool answers", func() bool { return ask(c, "z", briefly) == "c:z" })
}

// There are only so many flows. Those whose clients have not shown that they are there give way.
func TestFlowsAreLimited(t *testing.T) {
	p := datagrams("dns")
	r := newFlowRig(t, flowWorld(map[*route.Pool][]string{p: {serveDatagrams(t, "a")}}, all(p)), limited(func(l *Limits) { l.Flows = 3 }))
	settled := r.flow()
	for range 2 {
		if got := ask(settled, "x", patiently); got != "a:x" {
			t.Fatalf("got %q", got)
		}
	}
	for range 20 {
		if got := ask(r.flow(), "x", patiently); got != "a:x" {
			t.Fatalf("got %q", got)
		}
		if n := r.p.openFlowCount(); n > 3 {
			t.Fatalf("%d flows", n)
		}
	}
	if n := len(r.p.flowPorts[udpBind].list()); n > 3 {
		t.Errorf("%d flows are known", n)
	}
	from := netip.MustParseAddrPort(settled.LocalAddr().String())
	r.p.flowPorts[udpBind].mu.Lock()
	_, kept := r.p.flowPorts[udpBind].flows[from]
	r.p.flowPorts[udpBind].mu.Unlock()
	if !kept {
		t.Error("the flow of a client that is there gave way")
	}
}

// A datagram that pretends to come from a port of this process would be answered to this process, and that answer be answered, for ever.
func TestDatagramsFromOurselvesAreDropped(t *testing.T) {
	p := datagrams("dns")
	r := newFlowRig(t, flowWorld(map[*route.Pool][]string{p: {serveDatagrams(t, "a")}}, all(p)))
	n := r.p.flowPorts[udpBind]
	self := netip.MustParseAddrPort(r.addr)
	if _, err := n.socket.WriteToUDPAddrPort([]byte("x"), self); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "it is counted", func() bool { return r.counter("fairlead_unmatched_requests_total", "reason", "bad-request") == 1 })
	if r.p.openFlowCount() != 0 {
		t.Error("it has a flow")
	}
}

func TestAnswersComeFromWhereTheClientSent(t *testing.T) {
	p := datagrams("dns")
	w := flowWorld(map[*route.Pool][]string{p: {serveDatagrams(t, "a")}}, all(p))
	r := newRig(t, h1, world{}, func(o *Options) { o.BindAddress = "" })
	anywhere := route.Bind{UDP: true}
	r.set.Install(w.pools())
	r.set.Update(w.endpointMap())
	if err := r.p.Install(route.NewTable([]*route.Port{{Bind: anywhere, Protocol: route.UDP, Listeners: w.listeners}}, w.pools(), nil)); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(r.p.Addr(anywhere).String())
	for _, address := range []string{"127.0.0.1", "127.0.0.7"} {
		r.addr = net.JoinHostPort(address, port) // a connected socket takes no answers from elsewhere
		if got := ask(r.flow(), "x", patiently); got != "a:x" {
			t.Errorf("%s: got %q", address, got)
		}
	}
}

func TestFlowsHaveTheTimeToDrain(t *testing.T) {
	p := datagrams("dns")
	r := newFlowRig(t, flowWorld(map[*route.Pool][]string{p: {serveDatagrams(t, "a")}}, all(p)), func(o *Options) { o.DrainGrace = time.Minute })
	c := r.flow()
	if got := ask(c, "x", patiently); got != "a:x" {
		t.Fatalf("got %q", got)
	}
	down := make(chan error, 1)
	go func() { down <- r.p.Shutdown(context.Background()) }()
	waitUntil(t, "the proxy stops", func() bool { return r.p.flowPorts[udpBind].leaving.Load() })
	if got := ask(c, "y", patiently); got != "a:y" {
		t.Errorf("got %q", got)
	}
	if got := ask(r.flow(), "z", briefly); got != "" {
		t.Errorf("a new flow got %q", got)
	}
	if err := <-down; err != nil {
		t.Error(err)
	}
}
