package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// lateBalancer is a client that goes on making connections and requests for a while after it could know better, as load balancers do.
type lateBalancer struct {
	address  string
	secure   string
	failed   atomic.Int64
	done     atomic.Int64
	told     atomic.Int64 // answers that asked to close
	lastFail atomic.Pointer[error]
}

// keepAlive makes requests on connections that it uses again whenever it may, until stop.
func (b *lateBalancer) keepAlive(stop <-chan struct{}, method string) {
	var c net.Conn
	var br *bufio.Reader
	defer func() {
		if c != nil {
			_ = c.Close()
		}
	}()
	for {
		select {
		case <-stop:
			return
		default:
		}
		if c == nil {
			var err error
			if c, err = net.Dial("tcp", b.address); err != nil {
				b.fail(err)
				return
			}
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			br = bufio.NewReader(c)
		}
		keep, err := request(c, br, method)
		if err != nil {
			b.fail(err)
			return
		}
		b.done.Add(1)
		if !keep {
			b.told.Add(1)
			_ = c.Close()
			c = nil
		}
	}
}

func (b *lateBalancer) fail(err error) {
	b.failed.Add(1)
	b.lastFail.Store(&err)
}

func request(c net.Conn, br *bufio.Reader, method string) (keep bool, err error) {
	if _, err := io.WriteString(c, method+" / HTTP/1.1\r\n"+hostLine+"Content-Length: 5\r\n\r\nhello"); err != nil {
		return false, err
	}
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err != nil || string(body) != "hello" || res.StatusCode != 200 {
		return false, errors.Join(err, errors.New(res.Status))
	}
	return !res.Close, nil
}

// draining makes every answer tell its client to go while the proxy drains, as the handler of the path does.
func drainingEcho(f **front) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if (*f).draining() {
			w.Header().Set("Connection", "close")
		}
		echo(w, r)
	}
}

// A load balancer that reacts late, to which new connections come all the time, sees no failed request while the proxy shuts down. Without the delay it would: that
// is what the delay is for.
func TestShutdownUnderLoad(t *testing.T) {
	t.Run("with a delay", func(t *testing.T) {
		b := shutdownUnderLoad(t, time.Second)
		if n := b.failed.Load(); n > 0 {
			t.Errorf("%d failed, the last with %v", n, *b.lastFail.Load())
		}
		if b.told.Load() == 0 {
			t.Error("no answer asked to close")
		}
		t.Logf("%d requests, %d of them asked to close", b.done.Load(), b.told.Load())
	})
	t.Run("without", func(t *testing.T) {
		if b := shutdownUnderLoad(t, -1); b.failed.Load() == 0 {
			t.Error("nothing failed: the load shows nothing")
		}
	})
}

func shutdownUnderLoad(t *testing.T, delay time.Duration) *lateBalancer {
	var f *front
	f = newFront(t, Options{DrainDelay: delay, DrainGrace: 5 * time.Second}, drainingEcho(&f))
	b := &lateBalancer{address: f.addr(plainBind), secure: f.addr(secureBind)}
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for i := range 8 {
		method := []string{"GET", "POST"}[i%2]
		clients.Go(func() { b.keepAlive(stop, method) })
	}
	client := f.client(func(p *http.Protocols) { p.SetHTTP2(true) })
	clients.Go(func() { b.http2(stop, client) })
	waitFor(t, func() bool { return b.done.Load() > 100 })
	result := make(chan error, 1)
	go func() { result <- f.Shutdown(context.Background()) }()
	time.Sleep(300 * time.Millisecond) // the balancer is late
	close(stop)
	clients.Wait()
	client.CloseIdleConnections()
	if err := <-result; err != nil {
		t.Errorf("shutdown: %v", err)
	}
	return b
}

// http2 makes requests with HTTP/2, until stop.
func (b *lateBalancer) http2(stop <-chan struct{}, client *http.Client) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		res, err := client.Get("https://" + b.secure)
		if err != nil {
			b.fail(err)
			return
		}
		_ = res.Body.Close()
		b.done.Add(1)
	}
}

// A request on its way when the sockets close is answered; idle connections end; the proxy is gone when Shutdown returns.
func TestShutdown(t *testing.T) {
	release := make(chan struct{})
	f := newFront(t, Options{DrainDelay: -1, DrainGrace: 10 * time.Second}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-release
		}
		_, _ = io.WriteString(w, "ok")
	})
	idle := f.hello()
	busy := f.dial(plainBind)
	before := f.requests.Load()
	send(t, busy, "GET /slow HTTP/1.1\r\n"+hostLine+"\r\n")
	waitFor(t, func() bool { return f.requests.Load() > before })
	late := f.dial(plainBind) // has not said anything when the sockets close

	result := make(chan error, 1)
	go func() { result <- f.Shutdown(context.Background()) }()
	closed(t, idle)
	send(t, late, "GET / HTTP/1.1\r\n"+hostLine+"\r\n")
	if res, _ := response(t, bufio.NewReader(late)); res.StatusCode != 200 || !res.Close {
		t.Errorf("the late request: %s, close %v", res.Status, res.Close)
	}
	select {
	case err := <-result:
		t.Fatalf("shutdown did not wait: %v", err)
	default:
	}
	close(release)
	if _, body := response(t, bufio.NewReader(busy)); body != "ok" {
		t.Errorf("the request under way: %q", body)
	}
	if err := <-result; err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if err := f.Shutdown(context.Background()); err != nil {
		t.Errorf("shutdown again: %v", err)
	}
}

// The grace has an end, and what is left is said.
func TestShutdownGraceEnds(t *testing.T) {
	f := newFront(t, Options{DrainDelay: -1, DrainGrace: 100 * time.Millisecond}, func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
	})
	c := f.dial(plainBind)
	send(t, c, "GET / HTTP/1.1\r\n"+hostLine+"\r\n")
	waitFor(t, func() bool { return f.requests.Load() == 1 })
	if err := f.Shutdown(context.Background()); err == nil {
		t.Error("no error")
	}
	closed(t, c)
}

// The end of the context, which is the second signal, ends everything at once.
func TestShutdownIsCutShort(t *testing.T) {
	for _, test := range []struct {
		name  string
		delay time.Duration
	}{{"in the delay", time.Hour}, {"in the grace", -1}} {
		t.Run(test.name, func(t *testing.T) {
			f := newFront(t, Options{DrainDelay: test.delay, DrainGrace: time.Hour}, func(_ http.ResponseWriter, r *http.Request) {
				<-r.Context().Done()
			})
			c := f.dial(plainBind)
			send(t, c, "GET / HTTP/1.1\r\n"+hostLine+"\r\n")
			waitFor(t, func() bool { return f.requests.Load() == 1 })
			ctx, cancel := context.WithCancel(context.Background())
			time.AfterFunc(100*time.Millisecond, cancel)
			begun := time.Now()
			if err := f.Shutdown(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			if d := time.Since(begun); d > 5*time.Second {
				t.Errorf("it took %v", d)
			}
			closed(t, c)
		})
	}
}

// Tunnels get the grace, then they are closed in order: their client sees the end and not a reset.
func TestShutdownClosesTunnels(t *testing.T) {
	var f *front
	f = newFront(t, Options{DrainDelay: -1, DrainGrace: time.Second}, func(w http.ResponseWriter, _ *http.Request) {
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		done := f.trackTunnel(func() { _ = conn.(interface{ CloseWrite() error }).CloseWrite() })
		defer done()
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		for {
			line, err := buf.ReadString('\n')
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, line)
		}
	})
	c := f.dial(plainBind)
	br := bufio.NewReader(c)
	send(t, c, "GET / HTTP/1.1\r\n"+hostLine+"Connection: Upgrade\r\nUpgrade: x\r\n\r\n")
	if res, err := http.ReadResponse(br, nil); err != nil || res.StatusCode != 101 {
		t.Fatal(res, err)
	}
	begun := time.Now()
	result := make(chan error, 1)
	go func() { result <- f.Shutdown(context.Background()) }()
	for range 5 {
		send(t, c, "still here\n")
		if line, err := br.ReadString('\n'); err != nil || line != "still here\n" {
			t.Fatalf("in the grace: %q, %v", line, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if n, err := br.ReadByte(); err != io.EOF {
		t.Errorf("got %v, %v; want the end", n, err)
	}
	_ = c.Close()
	if d := time.Since(begun); d < 900*time.Millisecond {
		t.Errorf("the tunnel was closed after %v", d)
	}
	if err := <-result; err != nil {
		t.Errorf("shutdown: %v", err)
	}
}

// A tunnel that begins when everything ends is closed too.
func TestTunnelAfterClose(t *testing.T) {
	f := newFront(t, Options{}, ok)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	told := false
	f.trackTunnel(func() { told = true })()
	if !told {
		t.Error("the tunnel was not closed")
	}
}

func TestCloseCutsOff(t *testing.T) {
	f := newFront(t, Options{}, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	c := f.dial(plainBind)
	send(t, c, "GET / HTTP/1.1\r\n"+hostLine+"\r\n")
	h2 := f.newFramed()
	_, err := h2.open(true, getFields...)
	h2.must(err)
	waitFor(t, func() bool { return f.requests.Load() == 2 })
	for range 2 {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	closed(t, c)
	if f.open() != 0 || f.limiter.open.Load() != 0 {
		t.Errorf("%d connections, %d counted", f.open(), f.limiter.open.Load())
	}
}
