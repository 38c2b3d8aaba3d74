package backend

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
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

// A backend has closed an idle connection, but http.Transport does not know yet: nothing must be written to it.
func TestDeadConnectionIsNotWrittenTo(t *testing.T) {
	var posts atomic.Int32
	b := serve(t, route.HTTP, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			posts.Add(1)
		}
	}), func(s *http.Server) { s.IdleTimeout = time.Millisecond })
	s, p := newPoolOf(t, Options{}, route.HTTP, b.Address)
	makeLate(s)
	e := p.endpoints[b.Address]
	for range 10 {
		e.closeIdle() // or the GET might meet a dead connection
		get(t, p)
		e.mu.Lock()
		for c := range e.conns {
			eventually(t, "the backend has closed the connection", func() bool { return hungUp(c.receiver.raw) })
		}
		e.mu.Unlock()
		if r := do(p, newRequest(t, "POST", "a", "hello")); r.err != nil {
			t.Error(r.err)
		}
	}
	if n := posts.Load(); n != 10 {
		t.Errorf("%d POSTs arrived", n)
	}
}

// What a backend sends beyond its response is nobody's answer, at whatever moment http.Transport gets to see it.
func TestUnaskedBytesAnswerNobody(t *testing.T) {
	const evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
	for name, first := range map[string]string{
		"length":        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello" + evil,
		"chunks":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + evil,
		"trailer":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n" + evil,
		"no body":       "HTTP/1.1 204 No Content\r\n\r\n" + evil,
		"informational": "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello" + evil,
		"large":         "HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n" + strings.Repeat("x", 10_000) + evil,
		"much more":     "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello" + strings.Repeat(evil, 1000),
	} {
		for _, protocol := range []route.Protocol{route.HTTP, route.WSS} {
			t.Run(fmt.Sprint(name, protocol), func(t *testing.T) {
				address := raw(t, func(c net.Conn) {
					if protocol == route.WSS {
						c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{certificate()}})
					}
					if !readHead(c) {
						return
					}
					_, _ = io.WriteString(c, first)
					if readHead(c) {
						t.Error("the connection was used again")
					}
				})
				for _, late := range []bool{false, true} {
					s, p := newPoolOf(t, Options{}, protocol, address)
					if late {
						makeLate(s)
					}
					for range 50 {
						if r := do(p, newRequest(t, "POST", "a", "")); r.err != nil || r.body == "evil" {
							t.Fatalf("got %.50q, %v", r.body, r.err)
						}
					}
				}
			})
		}
	}
}

// A backend that speaks first is not answering anybody.
func TestGreetingAnswersNobody(t *testing.T) {
	address := raw(t, func(c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
		_ = readHead(c)
	})
	s, p := newPoolOf(t, Options{}, route.HTTP, address)
	dial := s.dial
	s.dial = func(ctx context.Context, ep route.Endpoint) (net.Conn, error) {
		c, err := dial(ctx, ep)
		if err == nil {
			raw, _ := c.(*net.TCPConn).SyscallConn()
			eventually(t, "the greeting is there", func() bool { return hungUp(raw) })
		}
		return c, err
	}
	if r := do(p, newRequest(t, "GET", "a", "")); r.err == nil || r.reason() != route.BackendReset {
		t.Errorf("got %q, %v", r.body, r.err)
	}
}

// makeLate makes all new connections of a set hand on late what has come.
func makeLate(s *Set) {
	dial := s.dial
	s.dial = func(ctx context.Context, ep route.Endpoint) (net.Conn, error) {
		c, err := dial(ctx, ep)
		if err != nil {
			return nil, err
		}
		return &lateConn{c.(*net.TCPConn)}, nil
	}
}

type lateConn struct{ *net.TCPConn }

func (c *lateConn) SyscallConn() (syscall.RawConn, error) {
	raw, err := c.TCPConn.SyscallConn()
	return lateRaw{raw}, err
}

type lateRaw struct{ syscall.RawConn }

func (r lateRaw) Read(f func(uintptr) bool) error {
	err := r.RawConn.Read(f)
	time.Sleep(200 * time.Microsecond)
	return err
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
