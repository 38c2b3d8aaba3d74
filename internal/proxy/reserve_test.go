package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// newReserving makes a Proxy without a table whose answers are 204, and returns two binds whose ports were free.
func newReserving(t *testing.T) (p *Proxy, a, b route.Bind) {
	t.Helper()
	p, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	p.handler = func(route.Bind) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	free := func(address string) route.Bind {
		ln, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		return route.Bind{Address: address, Port: netip.MustParseAddrPort(ln.Addr().String()).Port()}
	}
	return p, free("127.0.0.1"), free("127.0.0.2")
}

func dialBind(b route.Bind) (net.Conn, error) {
	return net.DialTimeout("tcp", net.JoinHostPort(b.Address, strconv.Itoa(int(b.Port))), 10*time.Second)
}

// waitRefused waits until nobody listens on a bind.
func waitRefused(t *testing.T, b route.Bind) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := dialBind(b)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return
		}
		if err == nil {
			_ = c.Close()
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v, want that it is refused", b, err)
		}
	}
}

// Whoever connects while there is no table yet is served by the first one, or let go if it has no such port.
func TestReserve(t *testing.T) {
	p, served, gone := newReserving(t)
	p.Reserve(time.Hour, served, gone, served, route.Bind{Address: "127.0.0.1", Port: served.Port, UDP: true})
	waiting := make([]net.Conn, 2)
	for i, b := range []route.Bind{served, gone} {
		c, err := dialBind(b)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		waiting[i] = c
	}
	if err := p.Install(tableOf(map[route.Bind]route.Protocol{served: route.HTTP})); err != nil {
		t.Fatal(err)
	}
	_ = waiting[0].SetDeadline(time.Now().Add(10 * time.Second))
	res, err := http.ReadResponse(bufio.NewReader(waiting[0]), nil)
	if err != nil || res.StatusCode != http.StatusNoContent {
		t.Errorf("the one that waited for its port got %v, %v", res, err)
	}
	_ = waiting[1].SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadAll(waiting[1]); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the one whose port is not in the table got %v, want a reset", err)
	}
	waitRefused(t, gone)
	p.Reserve(time.Hour, gone)
	waitRefused(t, gone) // there is a table
}

// Nobody waits for longer than was said, and a table that comes after that opens its sockets as always.
func TestReserveWithin(t *testing.T) {
	p, a, _ := newReserving(t)
	p.Reserve(time.Millisecond, a)
	waitRefused(t, a)
	if err := p.Install(tableOf(map[route.Bind]route.Protocol{a: route.HTTP})); err != nil {
		t.Fatal(err)
	}
	c, err := dialBind(a)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

// A reserved socket does not stand in the way of one of the same port on another address.
func TestReservedPortOfAnotherAddress(t *testing.T) {
	p, a, _ := newReserving(t)
	p.Reserve(time.Hour, route.Bind{Port: a.Port})
	if err := p.Install(tableOf(map[route.Bind]route.Protocol{a: route.HTTP})); err != nil {
		t.Fatal(err)
	}
}

// What cannot be opened is left to the table, and what was not used is closed in the end.
func TestReserveInVain(t *testing.T) {
	p, a, b := newReserving(t)
	taken, err := net.Listen("tcp", net.JoinHostPort(a.Address, strconv.Itoa(int(a.Port))))
	if err != nil {
		t.Fatal(err)
	}
	p.Reserve(time.Hour, a, b)
	_ = taken.Close()
	waitRefused(t, a)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	waitRefused(t, b)
}
