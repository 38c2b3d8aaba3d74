package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// freeBind is a bind whose port is free, for as long as nobody else takes it.
func freeBind(t *testing.T) route.Bind {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return route.Bind{Address: "127.0.0.1", Port: uint16(l.Addr().(*net.TCPAddr).Port)}
}

func TestNewValidates(t *testing.T) {
	if _, err := New(Options{BindAddress: "localhost"}); err == nil || !strings.Contains(err.Error(), `"localhost"`) {
		t.Errorf("got %v", err)
	}
}

func TestBindAddress(t *testing.T) {
	for _, test := range []struct{ address, reach string }{{"", "127.0.0.1"}, {"", "::1"}, {"127.0.0.9", "127.0.0.9"}} {
		t.Run(test.address+" "+test.reach, func(t *testing.T) {
			p, err := New(Options{BindAddress: test.address})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			p.handler = func(route.Bind) http.Handler { return http.HandlerFunc(ok) }
			if err := p.Install(tableOf(map[route.Bind]route.Protocol{{}: route.HTTP})); err != nil {
				t.Fatal(err)
			}
			_, port, _ := net.SplitHostPort(p.Addr(route.Bind{}).String())
			c, err := net.Dial("tcp", net.JoinHostPort(test.reach, port))
			if err != nil {
				if test.reach == "::1" {
					t.Skip("no IPv6 here:", err)
				}
				t.Fatal(err)
			}
			defer c.Close()
			send(t, c, "GET / HTTP/1.1\r\n"+hostLine+"\r\n")
			if _, body := response(t, bufio.NewReader(c)); body != "ok" {
				t.Errorf("got %q", body)
			}
		})
	}
}

// Ports that stay are not touched, ports that come open, and ports that go let their connections finish.
func TestInstallChangesPorts(t *testing.T) {
	release := make(chan struct{})
	f := newFront(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-release
		}
		_, _ = io.WriteString(w, "ok")
	})
	stays, goes := plainBind, route.Bind{Address: "127.0.0.4"}
	f.install(map[route.Bind]route.Protocol{stays: route.HTTP, goes: route.HTTP})
	kept := f.hello()
	address := f.addr(goes)
	idle, busy, fresh := f.dial(goes), f.dial(goes), f.dial(goes)
	send(t, idle, "GET / HTTP/1.1\r\n"+hostLine+"\r\n")
	idleReader := bufio.NewReader(idle)
	response(t, idleReader)
	before := f.requests.Load()
	send(t, busy, "GET /slow HTTP/1.1\r\n"+hostLine+"\r\n")
	waitFor(t, func() bool { return f.requests.Load() > before })

	comes := route.Bind{Address: "127.0.0.5"}
	f.install(map[route.Bind]route.Protocol{stays: route.HTTP, comes: route.HTTP})
	if f.Addr(goes) != nil {
		t.Error("the port that goes has an address")
	}
	if c, err := net.Dial("tcp", address); err == nil {
		_ = c.Close()
		t.Error("the port that goes accepts")
	}
	closed(t, idleReader)
	send(t, fresh, "GET / HTTP/1.1\r\n"+hostLine+"\r\n")
	if res, _ := response(t, bufio.NewReader(fresh)); res.StatusCode != 200 || !res.Close {
		t.Errorf("the connection without a request: %s, close %v", res.Status, res.Close)
	}
	close(release)
	if res, body := response(t, bufio.NewReader(busy)); body != "ok" {
		t.Errorf("the request under way: %s", res.Status)
	}
	send(t, kept, "GET / HTTP/1.1\r\n"+hostLine+"\r\n")
	if res, body := response(t, bufio.NewReader(kept)); body != "ok" || res.Close {
		t.Errorf("the connection to the port that stays: %s, close %v", res.Status, res.Close)
	}
	c := f.dial(comes)
	send(t, c, "GET / HTTP/1.1\r\n"+hostLine+"\r\n")
	if _, body := response(t, bufio.NewReader(c)); body != "ok" {
		t.Error("the port that comes does not serve")
	}
	waitFor(t, func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.retired) == 0 })
}

// HTTP/2 connections of a port that goes get a GOAWAY and finish.
func TestInstallSendsGoAway(t *testing.T) {
	release := make(chan struct{})
	f := newFront(t, Options{}, func(http.ResponseWriter, *http.Request) { <-release })
	c := f.newFramed()
	id, err := c.open(true, getFields...)
	c.must(err)
	waitFor(t, func() bool { return f.requests.Load() == 1 })
	f.install(map[route.Bind]route.Protocol{secureBind: route.HTTPS})
	close(release)
	if got := c.outcome(id); got != "200" {
		t.Errorf("the request under way: %s", got)
	}
	if !c.drained(10 * time.Second) {
		t.Error("the connection is open")
	}
}

// A connection that is still being made when its port goes is served.
func TestInstallServesLateConnections(t *testing.T) {
	f := newFront(t, Options{}, ok)
	raw := map[string]net.Conn{"h2": f.dial(secureBind), "http/1.1": f.dial(secureBind)}
	waitFor(t, func() bool { return f.open() == len(raw) })
	f.install(map[route.Bind]route.Protocol{plainBind: route.HTTP})
	waitFor(t, func() bool { // the server is closed
		f.mu.Lock()
		defer f.mu.Unlock()
		for n := range f.retired {
			select {
			case <-n.feed2.done:
				return true
			default:
			}
		}
		return false
	})
	for protocol, c := range raw {
		secure := tls.Client(c, clientTLS("a.test", protocol))
		if err := secure.Handshake(); err != nil {
			t.Fatalf("%s: %v", protocol, err)
		}
		transport := &http.Transport{
			Protocols:      new(http.Protocols),
			DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return secure, nil },
		}
		transport.Protocols.SetHTTP1(protocol != "h2")
		transport.Protocols.SetHTTP2(protocol == "h2")
		res, err := (&http.Client{Transport: transport}).Get("https://a.test/")
		if err != nil {
			t.Fatalf("%s: %v", protocol, err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if string(body) != "ok" {
			t.Errorf("%s: %s", protocol, res.Status)
		}
		transport.CloseIdleConnections()
	}
	waitFor(t, func() bool { return f.open() == 0 })
}

func TestInstallChangesProtocol(t *testing.T) {
	f := newFront(t, Options{}, ok)
	bind := freeBind(t)
	for range 3 {
		f.install(map[route.Bind]route.Protocol{bind: route.HTTP})
		c := f.dial(bind)
		send(t, c, "GET / HTTP/1.1\r\n"+hostLine+"\r\n")
		br := bufio.NewReader(c)
		if _, body := response(t, br); body != "ok" {
			t.Fatal("no HTTP")
		}
		f.install(map[route.Bind]route.Protocol{bind: route.HTTPS})
		closed(t, br)
		c = f.dial(bind)
		send(t, c, "GET / HTTP/1.1\r\n"+hostLine+"\r\n")
		if res, _ := response(t, bufio.NewReader(c)); res.StatusCode != 400 {
			t.Fatal("HTTP on an HTTPS port")
		}
	}
}

// A socket that cannot be opened does not stop the others, and is opened when that becomes possible.
func TestInstallWithBusyPort(t *testing.T) {
	f := newFront(t, Options{}, ok)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bind := route.Bind{Address: "127.0.0.1", Port: uint16(l.Addr().(*net.TCPAddr).Port)}
	other := route.Bind{Address: "127.0.0.6"}
	err = f.Install(tableOf(map[route.Bind]route.Protocol{bind: route.HTTP, plainBind: route.HTTP, other: route.HTTP}))
	if err == nil || !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), bind.String()) {
		t.Errorf("got %v", err)
	}
	f.hello()
	if f.Addr(other) == nil || f.Addr(bind) != nil {
		t.Errorf("addresses: %v, %v", f.Addr(other), f.Addr(bind))
	}
	_ = l.Close()
	waitFor(t, func() bool { return f.Addr(bind) != nil })
	c := f.dial(bind)
	send(t, c, "GET / HTTP/1.1\r\n"+hostLine+"\r\n")
	if _, body := response(t, bufio.NewReader(c)); body != "ok" {
		t.Error("the port does not serve")
	}
	if err := f.Install(tableOf(map[route.Bind]route.Protocol{bind: route.HTTP})); err != nil {
		t.Errorf("the next Install: %v", err)
	}
}

func TestInstallHTTPSWithoutCertificates(t *testing.T) {
	p, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	err = p.Install(tableOf(map[route.Bind]route.Protocol{secureBind: route.HTTPS}))
	if err == nil || !strings.Contains(err.Error(), secureBind.String()) {
		t.Errorf("got %v", err)
	}
}

func TestInstallAfterClose(t *testing.T) {
	f := newFront(t, Options{}, ok)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Install(tableOf(nil)); err == nil {
		t.Error("no error")
	}
	if f.Addr(plainBind) != nil {
		t.Error("a socket is open")
	}
}

// Tables change many times a second under load, with ports that come, go and change their protocol, and no request fails on the port that stays.
func TestInstallUnderLoad(t *testing.T) {
	f := newFront(t, Options{}, ok)
	var stop atomic.Bool
	results := make(chan error, 4)
	address := f.addr(plainBind)
	for range 4 {
		go func() { results <- load(address, &stop) }()
	}
	other := freeBind(t)
	for i := range 60 {
		ports := map[route.Bind]route.Protocol{plainBind: route.HTTP}
		switch i % 3 {
		case 1:
			ports[other] = route.HTTP
		case 2:
			ports[other] = route.HTTPS
		}
		f.install(ports)
	}
	stop.Store(true)
	for range 4 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if f.requests.Load() < 100 {
		t.Errorf("only %d requests were made", f.requests.Load())
	}
}

// load makes requests on one connection until it is told to stop.
func load(address string, stop *atomic.Bool) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	br := bufio.NewReader(c)
	for !stop.Load() {
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\n"+hostLine+"\r\n"); err != nil {
			return err
		}
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		if res.StatusCode != 200 {
			return errors.New(res.Status)
		}
	}
	return nil
}

// A socket that cannot accept for a while goes on when it can.
func TestAcceptErrors(t *testing.T) {
	p, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.handler = func(route.Bind) http.Handler { return http.HandlerFunc(ok) }
	p.listen = func(address string) (net.Listener, error) {
		l, err := listen(address)
		return &flakyListener{Listener: l}, err
	}
	if err := p.Install(tableOf(map[route.Bind]route.Protocol{plainBind: route.HTTP})); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", p.Addr(plainBind).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	send(t, c, "GET / HTTP/1.1\r\n"+hostLine+"\r\n")
	if _, body := response(t, bufio.NewReader(c)); body != "ok" {
		t.Errorf("got %q", body)
	}
}

// flakyListener fails the first few times. It has no deadlines either.
type flakyListener struct {
	net.Listener
	failed atomic.Int32
}

func (l *flakyListener) Accept() (net.Conn, error) {
	if l.failed.Add(1) < 4 {
		return nil, syscall.EMFILE
	}
	return l.Listener.Accept()
}
