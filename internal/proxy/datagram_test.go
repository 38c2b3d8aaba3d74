package proxy

import (
	"net"
	"runtime"
	"testing"

	"github.com/fairlead-io/fairlead/internal/route"
)

// idleFlows has many clients ask something one after the other, and leaves their flows.
func (r *rig) idleFlows(many int) {
	r.t.Helper()
	for i := range many {
		c := r.flowFrom(net.IPv4(127, 1, byte(i>>8), byte(i)))
		if got := ask(c, "x", patiently); got != "a:x" {
			r.t.Fatalf("got %q", got)
		}
		_ = c.Close()
	}
}

// flowFrom opens a socket of a client at an address of the loopback interface, with another port than the proxy's own: what seems to come from that is dropped.
func (r *rig) flowFrom(ip net.IP) net.Conn {
	r.t.Helper()
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: ip}}
	for {
		c, err := d.Dial("udp", r.addr)
		if err != nil {
			r.t.Fatal(err)
		}
		if c.LocalAddr().(*net.UDPAddr).Port != r.p.Addr(udpBind).(*net.UDPAddr).Port {
			return c
		}
		_ = c.Close()
	}
}

// memory is what the heap and the stacks of goroutines take.
func memory() int64 {
	runtime.GC()
	runtime.GC() // what pools held at the first is let go of at the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// A flow in which nothing is said must not take more than the default of Limits.Flows reckons with.
func TestIdleFlowsAreSmall(t *testing.T) {
	many := 10_000
	if files := maxFiles(); files > 0 && files < uint64(many)+1000 {
		t.Logf("there are only %d file descriptors", files)
		many = int(files / 2)
	}
	p := datagrams("dns")
	r := newFlowRig(t, flowWorld(map[*route.Pool][]string{p: {serveDatagrams(t, "a")}}, all(p)), limited(func(l *Limits) { l.Flows, l.FlowIdle = many, forever }))
	before := memory()
	r.idleFlows(many)
	each := (memory() - before) / int64(many)
	t.Logf("%d flows take %d bytes each", many, each)
	if n := r.p.openFlowCount(); n != many {
		t.Errorf("%d flows are open, want %d", n, many)
	}
	if most := int64(2 * flowBytes); each > most { // the race detector takes as much again
		t.Errorf("each of %d flows takes %d bytes, want at most %d", many, each, most)
	}
}

// Flows that find all buffers in use wait, lose nothing, and can be ended.
func TestAnswersWaitForBuffers(t *testing.T) {
	p := datagrams("dns")
	r := newFlowRig(t, flowWorld(map[*route.Pool][]string{p: {serveDatagrams(t, "a")}}, all(p)))
	answering := r.p.flowPorts[udpBind].answering
	var taken []*datagramBuffer
	for range cap(answering) {
		taken = append(taken, answering.take())
	}
	clients := []net.Conn{r.flow(), r.flow(), r.flow()}
	for _, c := range clients {
		if got := ask(c, "x", briefly); got != "" {
			t.Fatalf("got %q without a buffer", got)
		}
	}
	for _, b := range taken {
		answering.give(b)
	}
	for _, c := range clients {
		if got := ask(c, "y", patiently); got != "a:x" {
			t.Errorf("got %q, want the answer that waited", got)
		}
		if got := ask(c, "", patiently); got != "a:y" {
			t.Errorf("got %q, want the next answer", got)
		}
	}
	r.stop()
	if n := len(answering); n != 0 {
		t.Errorf("%d buffers are still in use", n)
	}
}

// What waits until its flow has a socket is bounded for all flows of a port together.
func TestEarlyDatagramsAreBounded(t *testing.T) {
	port := &flowPort{}
	b := make([]byte, 60_000)
	kept := 0
	for range 20 {
		f := &flow{port: port}
		for range maxEarly + 1 {
			f.send(b)
		}
		if n := len(f.early); n > maxEarly {
			t.Fatalf("a flow keeps %d datagrams", n)
		}
		kept += len(f.early)
	}
	if got, want := kept*len(b), maxEarlyBytes+len(b); got > want || int64(got) != port.early.Load() {
		t.Errorf("%d bytes wait, and %d are counted; want at most %d", got, port.early.Load(), want)
	}
}

func TestDefaultFlows(t *testing.T) {
	most := min(defaultConnections()/2, 16<<10)
	for memory, want := range map[int64]int{1 << 62: most, 512 << 20: min(most, 512<<20/4/flowBytes), 64 << 20: 64 << 20 / 4 / flowBytes, 1: 16} {
		if got := defaultFlows(memory); got != want {
			t.Errorf("with %d bytes there may be %d flows, want %d", memory, got, want)
		}
	}
}

// BenchmarkDatagram is a question and its answer in a flow that is there.
func BenchmarkDatagram(b *testing.B) {
	p := datagrams("dns")
	r := newFlowRig(b, flowWorld(map[*route.Pool][]string{p: {serveDatagrams(b, "a")}}, all(p)))
	c := r.flow()
	text, buf := []byte("hello"), make([]byte, 100)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = c.Write(text)
		if _, err := c.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
}
