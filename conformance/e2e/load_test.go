package e2e_test

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// client sends requests one after the other, on one connection for as long as the server lets it, or on a new one each time. It never tries again, as the client of
// net/http would: what it counts is what a simple client sees.
type client struct {
	address string // host:port
	host    string
	tls     *tls.Config
	path    string // "" is /
	cookie  string // the value of a header, "" for none
	fresh   bool   // a new connection for each request

	conn    net.Conn
	reader  *bufio.Reader
	through string // where the last answer on this connection went through
}

// answer is what came back.
type answer struct {
	status  int
	pod     string // the application's pod
	through string // the address that the application saw: that of a replica of Fairlead, if one was between
	header  http.Header
	reused  bool // on a connection that had carried a request before
}

func (c *client) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

func (c *client) connect(ctx context.Context) error {
	dialer := net.Dialer{Timeout: 10 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", c.address)
	if err != nil {
		return err
	}
	if c.tls != nil {
		secure := tls.Client(conn, c.tls)
		if err := secure.HandshakeContext(ctx); err != nil {
			return errors.Join(err, conn.Close())
		}
		conn = secure
	}
	c.conn, c.reader, c.through = conn, bufio.NewReader(conn), ""
	return nil
}

// do sends one request and reads the whole response. number is what the application writes down when it has received the request; "" is nothing.
func (c *client) do(ctx context.Context, method, path, body, number string) (answer, error) {
	a := answer{reused: c.conn != nil}
	if c.conn == nil {
		if err := c.connect(ctx); err != nil {
			return a, fmt.Errorf("connect: %w", err)
		}
	}
	a.through = c.through
	err := c.exchange(&a, method, path, body, number)
	c.through = a.through
	if err != nil || c.fresh || strings.EqualFold(a.header.Get("Connection"), "close") {
		c.close()
	}
	return a, err
}

func (c *client) exchange(a *answer, method, path, body, number string) error {
	if err := c.conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	cookie := ""
	if c.cookie != "" {
		cookie = "Cookie: " + c.cookie + "\r\n"
	}
	if _, err := fmt.Fprintf(c.conn, "%s %s HTTP/1.1\r\nHost: %s\r\nX-Number: %s\r\n%sContent-Length: %d\r\n\r\n%s", method, path, c.host, number, cookie, len(body), body); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	res, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return fmt.Errorf("read head: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("read body: %w", err)
	}
	a.status, a.header, a.pod = res.StatusCode, res.Header, res.Header.Get("X-Echo-Name")
	var seen struct{ Remote string }
	if json.Unmarshal(text, &seen) == nil { // an answer of Fairlead's own is no JSON
		a.through, _, _ = strings.Cut(seen.Remote, ":")
	}
	if res.Close {
		a.header.Set("Connection", "close")
	}
	return nil
}

// failure is a request that was not answered as it should be.
type failure struct {
	at      time.Time // when it was begun
	method  string
	number  string // what the application writes down of it
	reused  bool
	through string // for a used connection, the address that the application saw before
	status  int    // 0: no response
	text    string
}

// load is many clients that send requests without rest: half of them keep their connections, half of the requests are POST.
type load struct {
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	mu       sync.Mutex
	requests int
	failed   []failure
	begun    time.Time
	seen     func(time.Time, answer) // if not nil, called with each answer
}

// loadOn starts clients that each send a request to host at address every few milliseconds.
func loadOn(t *testing.T, clients int, address, host string, secure *tls.Config, seen func(time.Time, answer)) *load {
	t.Helper()
	return startLoad(t, clients, client{address: address, host: host, tls: secure}, seen)
}

// startLoad is loadOn with clients like the one that is given.
func startLoad(t *testing.T, clients int, like client, seen func(time.Time, answer)) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	l := &load{cancel: cancel, begun: time.Now(), seen: seen}
	for i := range clients {
		c := like
		c.fresh = i%2 == 1
		l.wg.Go(func() { l.run(ctx, &c) })
	}
	t.Cleanup(l.stop)
	return l
}

func (l *load) run(ctx context.Context, c *client) {
	defer c.close()
	body := strings.Repeat("x", 2000)
	for i := 0; ctx.Err() == nil; i++ {
		f := failure{at: time.Now(), method: "GET"}
		text := ""
		if i%2 == 1 {
			f.method, f.number, text = "POST", rand.Text(), body
		}
		a, err := c.do(context.WithoutCancel(ctx), f.method, cmp.Or(c.path, "/"), text, f.number)
		l.note(f, a, err)
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// note counts a request, and keeps it if it failed.
func (l *load) note(f failure, a answer, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests++
	if l.seen != nil && err == nil {
		l.seen(f.at, a)
	}
	if err == nil && a.status == http.StatusOK && a.pod != "" {
		return
	}
	f.reused, f.through, f.status = a.reused, a.through, a.status
	f.text = fmt.Sprintf("status %d %s", a.status, a.header.Get("X-Fairlead-Reason"))
	if err != nil {
		f.text = err.Error()
	}
	l.failed = append(l.failed, f)
}

func (l *load) stop() { l.cancel(); l.wg.Wait() }

// end stops the load and reports what it met as the figure of what happened meanwhile. Not a single request may have failed.
func (l *load) end(t *testing.T, what string) {
	t.Helper()
	l.stop()
	figure(t, "%s: %d requests in %.0f s, %d failed", what, l.requests, time.Since(l.begun).Seconds(), len(l.failed))
	if l.requests < 100 {
		t.Errorf("only %d requests were sent: this says nothing", l.requests)
	}
	for i, f := range l.failed {
		if i == 10 {
			break
		}
		t.Errorf("a %s failed after %.2f s, on a used connection: %v: %s", f.method, f.at.Sub(l.begun).Seconds(), f.reused, f.text)
	}
}

// percentile returns the value that so many of a hundred do not exceed.
func percentile[T cmp.Ordered](values []T, p int) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(len(sorted)-1, len(sorted)*p/100)]
}
