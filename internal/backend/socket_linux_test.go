package backend

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-io/fairlead/internal/route"
)

func TestSocketOptions(t *testing.T) {
	b := serve(t, route.HTTP, echo("a"))
	d := newDialer(Options{AllowLoopback: true}.withDefaults())
	c, err := d.dial(t.Context(), route.Endpoint{Address: b.Address})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][3]int{
		"TCP_USER_TIMEOUT": {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 30_000},
		"SO_KEEPALIVE":     {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		"TCP_KEEPIDLE":     {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15},
		"TCP_KEEPINTVL":    {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15},
		"TCP_KEEPCNT":      {unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
		"TCP_NODELAY":      {unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
	} {
		var got int
		if cerr := raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), want[0], want[1]) }); cerr != nil || err != nil {
			t.Fatal(cerr, err)
		}
		if got != want[2] {
			t.Errorf("%s = %d, want %d", name, got, want[2])
		}
	}
}

// A backend has closed an idle connection, but http.Transport does not know yet: what may not be sent twice must not be written to it.
func TestDeadConnectionIsNotWrittenTo(t *testing.T) {
	var posts atomic.Int32
	b := serve(t, route.HTTP, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			posts.Add(1)
		}
	}), func(s *http.Server) { s.IdleTimeout = time.Millisecond })
	s, p := newPoolOf(t, Options{}, route.HTTP, b.Address)
	know := make(chan struct{})
	dial := s.dial
	s.dial = func(ctx context.Context, ep route.Endpoint) (net.Conn, error) {
		c, err := dial(ctx, ep)
		if err != nil {
			return nil, err
		}
		return &lateConn{c.(*net.TCPConn), know}, nil
	}
	e := p.endpoints[b.Address]
	for range 10 {
		e.closeIdle() // or the GET might meet a dead connection, and the transport would never know
		get(t, p)
		e.mu.Lock()
		for c := range e.conns {
			eventually(t, "the backend has closed the connection", func() bool { return hungUp(c.fd) })
		}
		e.mu.Unlock()
		if r := do(p, newRequest(t, "POST", "a", "hello")); r.err != nil {
			t.Error(r.err)
		}
	}
	close(know)
	if n := posts.Load(); n != 10 {
		t.Errorf("%d POSTs arrived", n)
	}
}

// lateConn tells late that the other side has closed it.
type lateConn struct {
	*net.TCPConn
	know chan struct{}
}

func (c *lateConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	if err != nil {
		<-c.know
	}
	return n, err
}

func TestHungUp(t *testing.T) {
	ln := listen(t)
	near, err := net.DialTimeout("tcp", ln.Addr().String(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	raw, err := near.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if hungUp(raw) {
		t.Error("an idle connection counts as closed")
	}
	if _, err := far.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what was sent unasked is seen", func() bool { return hungUp(raw) })
	if _, err := near.Read(make([]byte, 1)); err != nil || hungUp(raw) {
		t.Errorf("after it was read: %v", err)
	}
	_ = far.Close()
	eventually(t, "the end is seen", func() bool { return hungUp(raw) })
}
