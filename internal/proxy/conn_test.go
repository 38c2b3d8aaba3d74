package proxy

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/internal/telemetry"
)

// A malformed body is an error of the body, and not the end of the client: its request goes on, to be answered.
func TestBodyFaultDoesNotCancel(t *testing.T) {
	f := newFront(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		if err == nil {
			t.Error("no error")
		}
		select {
		case <-r.Context().Done():
			t.Error("cancelled")
		case <-time.After(10 * time.Millisecond):
		}
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusBadRequest)
	})
	for _, test := range malformed {
		if !test.body {
			continue
		}
		c := f.dial(plainBind)
		// There is so much behind the fault that the connection cannot be closed without care.
		go func() { _, _ = io.WriteString(c, test.in+strings.Repeat("x", 200_000)) }()
		br := bufio.NewReader(c)
		if res, _ := response(t, br); res.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: got %s", test.name, res.Status)
		}
		if _, err := io.Copy(io.Discard, br); err != nil {
			t.Errorf("%s: the connection ends with %v", test.name, err)
		}
		_ = c.Close()
	}
}

func TestRequestContext(t *testing.T) {
	type seen struct {
		bind  string
		sni   string
		peer  netip.AddrPort
		proto string
	}
	got := make(chan seen, 1)
	f := newFront(t, Options{}, func(_ http.ResponseWriter, r *http.Request) {
		c := connFrom(r.Context())
		got <- seen{c.bind().String(), c.sni(), c.peer(), r.Proto}
		if (r.TLS != nil) != (c.sni() != "") {
			t.Errorf("TLS %v with SNI %q", r.TLS, c.sni())
		}
	})
	for _, test := range []struct {
		name      string
		configure func(*http.Protocols)
		url       string
		want      seen
	}{
		{"h1", func(p *http.Protocols) { p.SetHTTP1(true) }, "http://" + f.addr(plainBind), seen{bind: plainBind.String(), proto: "HTTP/1.1"}},
		{"h2c", func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }, "http://" + f.addr(plainBind), seen{bind: plainBind.String(), proto: "HTTP/2.0"}},
		{"h1 TLS", func(p *http.Protocols) { p.SetHTTP1(true) }, "https://" + f.addr(secureBind), seen{secureBind.String(), "a.test", netip.AddrPort{}, "HTTP/1.1"}},
		{"h2", func(p *http.Protocols) { p.SetHTTP2(true) }, "https://" + f.addr(secureBind), seen{secureBind.String(), "a.test", netip.AddrPort{}, "HTTP/2.0"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			client := f.client(test.configure)
			for range 3 {
				res, err := client.Get(test.url)
				if err != nil {
					t.Fatal(err)
				}
				_ = res.Body.Close()
				s := <-got
				if !s.peer.Addr().IsLoopback() || s.peer.Port() == 0 {
					t.Errorf("peer %v", s.peer)
				}
				if s.peer = (netip.AddrPort{}); s != test.want {
					t.Errorf("got %+v, want %+v", s, test.want)
				}
			}
		})
	}
}

// short are limits that run out within a test.
var short = Limits{
	ReadHeaderTimeout: 200 * time.Millisecond, HandshakeTimeout: 200 * time.Millisecond, IdleTimeout: 300 * time.Millisecond,
	ReadTimeout: 300 * time.Millisecond, WriteTimeout: 300 * time.Millisecond, TunnelIdle: 300 * time.Millisecond,
}

// Whoever does not get to the point is let go, whatever part of a connection it is slow in.
func TestSlowClients(t *testing.T) {
	f := newFront(t, Options{Limits: short}, echo)
	for _, test := range []struct {
		name   string
		secure bool
		first  string
		piece  string // sent every 20 ms
		want   int    // status; 0 for none
	}{
		{"nothing", false, "", "", 0},
		{"nothing on a TLS port", true, "", "", 0},
		{"half a hello", true, "\x16\x03\x01\x02\x00\x01\x00", "", 0},
		{"slow hello", true, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "\x00", 0},
		{"half a request line", false, "GET / HT", "", 408},
		{"half a preface", false, "PRI * HTTP/2.0\r\n", "", 0},
		{"slow head", false, "GET / HTTP/1.1\r\n" + hostLine, "X: y\r\n", 408},
		{"half a body", false, "POST / HTTP/1.1\r\n" + hostLine + "Content-Length: 10\r\n\r\nabc", "", 408},
		{"half a chunk", false, chunkedHead + "5\r\nab", "", 408},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bind := plainBind
			if test.secure {
				bind = secureBind
			}
			c := f.dial(bind)
			begun := time.Now()
			send(t, c, test.first)
			if test.piece != "" {
				go func() {
					for range 500 {
						if _, err := io.WriteString(c, test.piece); err != nil {
							return
						}
						time.Sleep(20 * time.Millisecond)
					}
				}()
			}
			br := bufio.NewReader(c)
			if test.want != 0 {
				if res, _ := response(t, br); res.StatusCode != test.want || !res.Close {
					t.Errorf("got %s, want %d", res.Status, test.want)
				}
			}
			_, _ = io.Copy(io.Discard, br)
			if d := time.Since(begun); d < 100*time.Millisecond || d > 5*time.Second {
				t.Errorf("closed after %v", d)
			}
		})
	}
}

// A slow client that makes progress is served.
func TestSlowBodyWithProgress(t *testing.T) {
	f := newFront(t, Options{Limits: Limits{ReadTimeout: time.Second}}, echo)
	c := f.dial(plainBind)
	send(t, c, "POST / HTTP/1.1\r\n"+hostLine+"Content-Length: 30\r\n\r\n")
	for range 30 {
		time.Sleep(50 * time.Millisecond)
		send(t, c, "x")
	}
	if res, body := response(t, bufio.NewReader(c)); res.StatusCode != 200 || len(body) != 30 {
		t.Errorf("got %s, %q", res.Status, body)
	}
}

func TestIdleConnectionIsClosed(t *testing.T) {
	f := newFront(t, Options{Limits: short}, ok)
	c := f.dial(plainBind)
	br := bufio.NewReader(c)
	for range 3 {
		send(t, c, "GET / HTTP/1.1\r\n"+hostLine+"\r\n")
		response(t, br)
		time.Sleep(100 * time.Millisecond)
	}
	begun := time.Now()
	closed(t, br)
	if d := time.Since(begun); d > 2*time.Second {
		t.Errorf("closed after %v", d)
	}
}

// A handler may take longer than any timeout for reading.
func TestSlowHandler(t *testing.T) {
	f := newFront(t, Options{Limits: short}, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(500 * time.Millisecond):
		case <-r.Context().Done():
			t.Error("cancelled")
		}
		_, _ = io.WriteString(w, "ok")
	})
	for _, early := range []string{"", "G", "GET /2 HTTP/1.1\r\n" + hostLine + "\r\n"} {
		c := f.dial(plainBind)
		send(t, c, "POST / HTTP/1.1\r\n"+hostLine+"Content-Length: 1\r\n\r\nx"+early)
		br := bufio.NewReader(c)
		if res, body := response(t, br); res.StatusCode != 200 || body != "ok" {
			t.Errorf("got %s, %q", res.Status, body)
		}
		if early == "G" {
			send(t, c, "ET / HTTP/1.1\r\n"+hostLine+"\r\n")
		}
		if early != "" {
			if res, body := response(t, br); res.StatusCode != 200 || body != "ok" {
				t.Errorf("after %q: got %s, %q", early, res.Status, body)
			}
		}
	}
}

// A client that leaves cancels its request.
func TestClientLeaves(t *testing.T) {
	cancelled := make(chan struct{})
	f := newFront(t, Options{}, func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		close(cancelled)
	})
	c := f.dial(plainBind)
	send(t, c, "GET / HTTP/1.1\r\n"+hostLine+"\r\n")
	waitFor(t, func() bool { return f.requests.Load() == 1 })
	_ = c.Close()
	select {
	case <-cancelled:
	case <-time.After(10 * time.Second):
		t.Fatal("not cancelled")
	}
}

// A client that takes nothing is let go; one that takes a little is served, however long it takes.
func TestSlowReaders(t *testing.T) {
	const size = 16 << 20
	done := make(chan error, 1)
	f := newFront(t, Options{Limits: Limits{WriteTimeout: 800 * time.Millisecond}}, func(w http.ResponseWriter, _ *http.Request) {
		_, err := w.Write(make([]byte, size))
		done <- err
	})
	t.Run("stalled", func(t *testing.T) {
		c := f.dial(plainBind)
		send(t, c, "GET / HTTP/1.1\r\n"+hostLine+"\r\n")
		select {
		case err := <-done:
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the handler still waits")
		}
	})
	t.Run("slow", func(t *testing.T) {
		c := f.dial(plainBind)
		send(t, c, "GET / HTTP/1.1\r\n"+hostLine+"\r\n")
		var n int64
		for range 12 {
			time.Sleep(100 * time.Millisecond)
			m, err := io.CopyN(io.Discard, c, 1<<20)
			n += m
			if err != nil {
				t.Fatal(err)
			}
		}
		if m, err := io.CopyN(io.Discard, c, size-n); err != nil {
			t.Fatalf("after %d bytes: %v", n+m, err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// What handlers ask for holds in the body they read, and nowhere else.
func TestHandlerDeadlines(t *testing.T) {
	got := make(chan error, 2)
	f := newFront(t, Options{Limits: Limits{ReadTimeout: 200 * time.Millisecond}}, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		switch r.URL.Path {
		case "/longer":
			_ = rc.SetReadDeadline(time.Now().Add(time.Hour))
		case "/none":
			_ = rc.SetReadDeadline(time.Time{})
		case "/shorter":
			_ = rc.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		case "/past":
			time.AfterFunc(20*time.Millisecond, func() { _ = rc.SetReadDeadline(time.Unix(1, 0)) })
		}
		_, err := io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/past" {
			_ = rc.SetReadDeadline(time.Now().Add(time.Hour)) // and on
			_, err2 := io.Copy(io.Discard, r.Body)
			err = errors.Join(err, err2)
		}
		got <- err
	})
	for _, test := range []struct {
		path  string
		after time.Duration
		want  bool // to time out
	}{
		{"/longer", 600 * time.Millisecond, false},
		{"/none", 600 * time.Millisecond, false},
		{"/shorter", 600 * time.Millisecond, true},
		{"/past", 300 * time.Millisecond, true},
	} {
		t.Run(test.path, func(t *testing.T) {
			c := f.dial(plainBind)
			send(t, c, "POST "+test.path+" HTTP/1.1\r\n"+hostLine+"Content-Length: 2\r\n\r\nx")
			time.Sleep(test.after)
			_, _ = io.WriteString(c, "y")
			if err := <-got; errors.Is(err, os.ErrDeadlineExceeded) != test.want {
				t.Errorf("got %v", err)
			}
		})
	}
}

// An upgraded connection is left alone: nothing is scanned, what the client sent early arrives, and only silence in both directions ends it.
func TestTunnel(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprint("TLS ", secure), func(t *testing.T) {
			ended := make(chan error, 1)
			f := newFront(t, Options{Limits: short}, func(w http.ResponseWriter, _ *http.Request) {
				conn, buf, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
				line, _ := buf.ReadString('\n')
				_, _ = io.WriteString(conn, line)
				for range 10 { // the client is silent, but not the server
					time.Sleep(60 * time.Millisecond)
					_, _ = io.WriteString(conn, ".")
				}
				line, _ = buf.ReadString('\n')
				_, _ = io.WriteString(conn, line)
				_, err = buf.ReadByte()
				ended <- err
			})
			c := f.dial(plainBind)
			if secure {
				c = tlsOver(t, c, f)
			}
			br := bufio.NewReader(c)
			send(t, c, "GET / HTTP/1.1\r\n"+hostLine+"Connection: Upgrade\r\nUpgrade: x\r\n\r\n\x81\x00 early\n")
			res, err := http.ReadResponse(br, nil)
			if err != nil || res.StatusCode != 101 {
				t.Fatal(res, err)
			}
			expect := func(want string) {
				t.Helper()
				got := make([]byte, len(want))
				if _, err := io.ReadFull(br, got); err != nil || string(got) != want {
					t.Fatalf("got %q, %v; want %q", got, err, want)
				}
			}
			expect("\x81\x00 early\n")
			expect("..........")
			send(t, c, "\x00\r\r\n")
			expect("\x00\r\r\n")
			if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the tunnel ended with %v", err)
			}
		})
	}
}

// A hijacker sets its own deadlines.
func TestTunnelDeadline(t *testing.T) {
	got := make(chan error, 1)
	f := newFront(t, Options{}, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, err = conn.Read(make([]byte, 1))
		got <- err
	})
	c := f.dial(plainBind)
	send(t, c, "GET / HTTP/1.1\r\n"+hostLine+"Connection: Upgrade\r\nUpgrade: x\r\n\r\n")
	if err := <-got; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// The connections of a client that sends an empty line after a POST go on, as with net/http.
func TestEmptyLineAfterPost(t *testing.T) {
	f := newFront(t, Options{Limits: short}, echo)
	c := f.dial(plainBind)
	br := bufio.NewReader(c)
	for range 3 {
		send(t, c, "POST / HTTP/1.1\r\n"+hostLine+"Content-Length: 2\r\n\r\nhi\r\n")
		if res, body := response(t, br); res.StatusCode != 200 || body != "hi" {
			t.Fatalf("got %s %q", res.Status, body)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestConnectionLimits(t *testing.T) {
	t.Run("in all", func(t *testing.T) {
		f := newFront(t, Options{Limits: Limits{Connections: 3}}, ok)
		var open []net.Conn
		for range 3 {
			open = append(open, f.hello())
		}
		refused(t, f)
		_ = open[0].Close()
		waitFor(t, func() bool { return f.limiter.open.Load() < 3 })
		f.hello()
	})
	t.Run("loopback is exempt from the limit for each client", func(t *testing.T) {
		f := newFront(t, Options{Limits: Limits{ConnectionsPerIP: 1}}, ok)
		for range 3 {
			f.hello()
		}
	})
}

// hello makes a request and leaves the connection open.
func (f *front) hello() net.Conn {
	f.t.Helper()
	c := f.dial(plainBind)
	send(f.t, c, "GET / HTTP/1.1\r\n"+hostLine+"\r\n")
	response(f.t, bufio.NewReader(c))
	return c
}

func refused(t *testing.T, f *front) {
	t.Helper()
	c, err := net.Dial("tcp", f.addr(plainBind))
	if err != nil {
		return // that early
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\n"+hostLine+"\r\n")
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %d, %v", n, err)
	}
}

func TestConnLimiter(t *testing.T) {
	addr := netip.MustParseAddr
	limits := Limits{Connections: 10, ConnectionsPerIP: 2}
	c := newConnLimiter(&limits, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")})
	take := func(a string, want bool) {
		t.Helper()
		if got := c.acquire(addr(a)); got != want {
			t.Errorf("%s: got %v, want %v", a, got, want)
		}
	}
	take("192.0.2.1", true)
	take("::ffff:192.0.2.1", true)
	take("192.0.2.1", false)
	take("192.0.2.2", true)
	take("2001:db8::1", true)
	take("2001:db8::2", true)
	take("2001:db8::3", false)
	take("2001:db8:0:1::3", true)
	take("10.1.2.3", true)
	take("10.1.2.3", true)
	take("10.1.2.3", true)
	if c.crowded() {
		t.Error("crowded with 9 of 10")
	}
	take("127.0.0.1", true)
	if !c.crowded() {
		t.Error("not crowded with 10 of 10")
	}
	take("127.0.0.1", false)
	for _, a := range []string{"192.0.2.1", "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::3", "10.1.2.3", "10.1.2.3", "10.1.2.3", "127.0.0.1"} {
		c.release(addr(a))
	}
	if c.open.Load() != 0 {
		t.Errorf("%d are left", c.open.Load())
	}
	for i := range c.shards {
		if n := len(c.shards[i].clients); n > 0 {
			t.Errorf("shard %d remembers %d clients", i, n)
		}
	}
}

func TestResetGuard(t *testing.T) {
	abandon := func(g *resetGuard, most int) (allowed int) {
		for ; allowed < 2000 && !g.done(true, most); allowed++ {
		}
		return allowed
	}
	var g resetGuard
	if n := abandon(&g, 100); n < 100 || n > 105 {
		t.Errorf("a new connection: closed after %d", n)
	}
	g.at -= resetWindow / 2
	if n := abandon(&g, 100); n < 45 || n > 55 {
		t.Errorf("half a window later: closed after another %d", n)
	}
	g.at -= 100 * resetWindow
	if n := abandon(&g, 100); n < 95 || n > 105 {
		t.Errorf("much later: closed after another %d", n)
	}
	g = resetGuard{}
	for range 1000 {
		g.done(false, 100)
	}
	if n := abandon(&g, 100); n < 200 || n > 205 {
		t.Errorf("after 1,000 that were completed: closed after %d", n)
	}
	g = resetGuard{}
	for range 100_000 {
		g.done(false, 100)
	}
	if n := abandon(&g, 100); n < 500 || n > 505 {
		t.Errorf("after 100,000 that were completed: closed after %d", n)
	}
	g = resetGuard{}
	if n := abandon(&g, -1); n != 2000 {
		t.Errorf("without a limit: closed after %d", n)
	}
}

// A refusal carries what the client may know and nothing else.
func TestRefusal(t *testing.T) {
	f := newFront(t, Options{}, ok)
	c := f.dial(plainBind)
	send(t, c, "GET / HTTP/1.1\r\n\r\n")
	raw, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	head, date, _ := strings.Cut(string(raw), "Date: ")
	if _, rest, _ := strings.Cut(date, "\r\n"); head+rest != "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\nX-Fairlead-Reason: bad-host\r\n\r\n" {
		t.Errorf("got %q", raw)
	}
}

// What never reaches a handler is counted and logged all the same.
func TestRefusalIsAccountedFor(t *testing.T) {
	var lines strings.Builder
	log := telemetry.NewAccessLog(&lines, telemetry.AccessLogOptions{})
	metrics := telemetry.NewMetrics("test")
	f := newFront(t, Options{Metrics: metrics, AccessLog: log}, ok)
	c := f.dial(plainBind)
	send(t, c, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n")
	response(t, bufio.NewReader(c))
	f.hello()
	if _, err := f.shake(clientTLS("a.test")); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	var line map[string]any
	if err := json.Unmarshal([]byte(lines.String()), &line); err != nil {
		t.Fatalf("%q: %v", lines.String(), err)
	}
	if line["status"] != 400.0 || line["reason"] != "bad-host" || line["detail"] != "Host is malformed" || line["listener"] != plainBind.String() {
		t.Errorf("logged %v", line)
	}
	got := map[string]float64{}
	families, err := metrics.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name := strings.TrimPrefix(family.GetName(), "fairlead_")
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	plain, secure := plainBind.String(), secureBind.String()
	for name, want := range map[string]float64{
		"unmatched_requests_total " + plain + " bad-host": 1, "connections_total " + plain: 2, "connections_total " + secure: 1,
		"connections " + plain + " http": 0, "connections " + plain + " upgraded": 0, "tls_handshakes_total " + secure + " ok false 1.3": 1,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v (%v), want %v", name, v, ok, want)
		}
	}
	if t.Failed() {
		for name := range got {
			if strings.Contains(name, "127.0.0") {
				t.Log(name)
			}
		}
	}
}

// Idle connections go sooner when there is hardly room for others.
func TestIdleWhenCrowded(t *testing.T) {
	f := newFront(t, Options{Limits: Limits{Connections: 10}}, ok)
	c := f.dial(plainBind)
	br := bufio.NewReader(c)
	for range 9 {
		f.dial(plainBind)
	}
	waitFor(t, f.limiter.crowded)
	begun := time.Now()
	send(t, c, "GET / HTTP/1.1\r\n"+hostLine+"\r\n")
	response(t, br)
	closed(t, br)
	if d := time.Since(begun); d < crowdedIdle/2 || d > 2*crowdedIdle {
		t.Errorf("closed after %v", d)
	}
}

// A panic in a handler ends its connection and nothing else.
func TestPanicInHandler(t *testing.T) {
	var panics atomic.Bool
	f := newFront(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		if panics.Load() {
			panic("oops")
		}
		ok(w, r)
	})
	panics.Store(true)
	c := f.dial(plainBind)
	send(t, c, "GET / HTTP/1.1\r\n"+hostLine+"\r\n")
	closed(t, c)
	panics.Store(false)
	f.hello()
}
