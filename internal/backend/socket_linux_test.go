package backend

import (
	"net"
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

func TestHungUp(t *testing.T) {
	ln := listen(t, "127.0.0.1:0")
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
