package backend

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// checker checks one endpoint of a pool, however many routes lead to it, until it is stopped. It has connections of its own, one for each check: what it finds is whether a
// new client would be served.
type checker struct {
	check  route.Check
	cancel context.CancelFunc
}

// watchOver starts, stops and replaces the checkers of the endpoints of the pool, as its care says. The caller holds p.mu.
func (p *Pool) watchOver(all []*endpoint) {
	want := p.care.Check
	for _, e := range all {
		if e.checker != nil && e.checker.check == want || e.checker == nil && want.Kind == "" || e.gone.Load() {
			continue
		}
		e.stopChecks()
		if want.Kind != "" {
			ctx, cancel := context.WithCancel(context.Background())
			e.checker = &checker{want, cancel}
			c := e.checker
			p.set.checks.Go(func() { c.run(ctx, e) })
		}
	}
}

// stopChecks ends the checks of the endpoint, and forgets what they have found. The caller holds pool.mu.
func (e *endpoint) stopChecks() {
	if e.checker == nil {
		return
	}
	e.checker.cancel()
	e.checker = nil
	e.sick, e.checked, e.checks, e.checkErr = false, false, 0, nil
	e.settle()
}

// run checks the endpoint at its interval, the first time at some moment of the first one: neither endpoints nor replicas should be checked all at once.
func (c *checker) run(ctx context.Context, e *endpoint) {
	for wait := rand.N(c.check.Interval); ; wait = c.check.Interval*9/10 + rand.N(c.check.Interval/5+1) { // #nosec G404 -- spreads checks
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		limited, cancel := context.WithTimeout(ctx, c.check.Timeout)
		err := c.ask(limited, e)
		cancel()
		if ctx.Err() != nil {
			return
		}
		e.pool.examined(e, c, err)
	}
}

// examined notes the outcome of a check.
func (p *Pool) examined(e *endpoint, c *checker, err error) {
	p.mu.Lock()
	recovered, ejected := false, false
	if e.checker == c {
		recovered, ejected = p.diagnosed(e, &c.check, err)
	}
	p.mu.Unlock()
	h := &p.set.opt.Hooks
	if h.Checked != nil {
		h.Checked(p.key, e.address, err)
	}
	if ejected && h.Ejected != nil {
		h.Ejected(p.key, e.address, p.set.opt.Now().Add(c.check.Interval*time.Duration(c.check.Healthy)), err)
	}
	if recovered && h.Recovered != nil {
		h.Recovered(p.key, e.address)
	}
}

func (p *Pool) diagnosed(e *endpoint, c *route.Check, err error) (recovered, ejected bool) {
	e.checked, e.checkErr = true, err
	if err != nil {
		e.lastErr, e.lastAt = err, p.set.opt.Now()
	}
	if (err != nil) == e.sick {
		e.checks = 0
		return false, false
	}
	e.checks++
	if limit := map[bool]int{true: c.Healthy, false: c.Unhealthy}[e.sick]; e.checks < limit {
		return false, false
	}
	was := e.out
	e.sick, e.checks = !e.sick, 0
	e.settle()
	p.rebuild(p.list.Load().all)
	return was && !e.out, e.sick
}

// ask asks the endpoint whether it is well; nil is yes.
func (c *checker) ask(ctx context.Context, e *endpoint) error {
	host, port, err := net.SplitHostPort(e.address)
	if err != nil {
		return fmt.Errorf("active check: %w", err)
	}
	if c.check.Port != 0 {
		port = strconv.Itoa(int(c.check.Port))
	}
	address, asked := net.JoinHostPort(host, port), net.JoinHostPort(cmp.Or(e.host, host), port)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return e.pool.set.dial(ctx, route.Endpoint{Address: address, DNS: e.dns})
	}
	switch c.check.Kind {
	case route.CheckTCP:
		err = askTCP(ctx, dial)
	case route.CheckGRPC:
		err = c.askGRPC(ctx, e, asked, dial)
	default:
		err = c.askHTTP(ctx, e, asked, dial)
	}
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("active check: not finished within %s", c.check.Timeout)
	} else if err != nil {
		return fmt.Errorf("active check: %w", err)
	}
	return nil
}

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

func askTCP(ctx context.Context, dial dialFunc) error {
	conn, err := dial(ctx, "", "")
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	_ = conn.Close()
	return nil
}

// do sends the request of a check over a connection of its own, with the protocol and the verification of the pool, and hands the response to look. http2 asks for HTTP/2 whatever
// the protocol.
func (c *checker) do(e *endpoint, dial dialFunc, req *http.Request, http2 bool, look func(*http.Response) error) error {
	t := &http.Transport{DialContext: dial, DisableKeepAlives: true, DisableCompression: true, Protocols: new(http.Protocols), MaxResponseHeaderBytes: 64 << 10}
	defer t.CloseIdleConnections()
	secure := e.secure()
	t.Protocols.SetHTTP1(!http2 && e.protocol != route.H2C)
	t.Protocols.SetHTTP2(secure && (http2 || e.protocol == route.HTTPS))
	t.Protocols.SetUnencryptedHTTP2(!secure && (http2 || e.protocol == route.H2C))
	if secure {
		if err := e.verify.refusal(); err != nil {
			return err
		}
		t.TLSClientConfig = e.verify.config()
		t.TLSClientConfig.ClientSessionCache = nil
		if t.TLSClientConfig.ServerName == "" {
			t.TLSClientConfig.ServerName = req.URL.Hostname()
		}
		t.TLSClientConfig.MinVersion = tls.VersionTLS12
	}
	res, err := t.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	defer res.Body.Close()
	return look(res)
}

// target is the URL of a check; over TLS its host becomes the server name.
func (c *checker) target(e *endpoint, address, path string) *url.URL {
	scheme, host := "http", address
	if e.secure() {
		scheme, host = "https", cmp.Or(c.check.Host, address)
	}
	u := &url.URL{Scheme: scheme, Host: host, Path: path}
	if parsed, err := url.ParseRequestURI(path); err == nil {
		u.Path, u.RawPath, u.RawQuery = parsed.Path, parsed.RawPath, parsed.RawQuery
	}
	return u
}

func (c *checker) askHTTP(ctx context.Context, e *endpoint, address string, dial dialFunc) error {
	req := (&http.Request{Method: http.MethodGet, URL: c.target(e, address, c.check.Path), Host: cmp.Or(c.check.Host, address), Header: http.Header{"User-Agent": {"fairlead-check"}}}).WithContext(ctx)
	return c.do(e, dial, req, false, func(res *http.Response) error {
		if res.StatusCode < 200 || res.StatusCode > 399 {
			return statusError(res.StatusCode)
		}
		return nil
	})
}

// askGRPC calls grpc.health.v1.Health/Check, whose messages are small enough to be written and read by hand.
func (c *checker) askGRPC(ctx context.Context, e *endpoint, address string, dial dialFunc) error {
	message := []byte{}
	if c.check.Path != "" {
		message = append(binary.AppendUvarint([]byte{1<<3 | 2}, uint64(len(c.check.Path))), c.check.Path...)
	}
	frame := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...) // #nosec G115 -- an annotation
	req := (&http.Request{
		Method: http.MethodPost, URL: c.target(e, address, "/grpc.health.v1.Health/Check"), Host: cmp.Or(c.check.Host, address),
		Header: http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "User-Agent": {"fairlead-check"}},
		Body:   io.NopCloser(bytes.NewReader(frame)), ContentLength: int64(len(frame)),
	}).WithContext(ctx)
	return c.do(e, dial, req, true, func(res *http.Response) error {
		body := make([]byte, 1<<10)
		n, err := io.ReadFull(res.Body, body)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("read answer: %w", err)
		}
		if res.StatusCode != http.StatusOK {
			return statusError(res.StatusCode)
		}
		if code := cmp.Or(res.Trailer.Get("Grpc-Status"), res.Header.Get("Grpc-Status")); code != "0" {
			return fmt.Errorf("it answered with the gRPC status %.8q", code)
		}
		return serving(body[:n])
	})
}

// healthStatus are the values of HealthCheckResponse.ServingStatus.
var healthStatus = []string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"}

// serving reads a HealthCheckResponse: its only field is an enum with the number 1.
func serving(frame []byte) error {
	const serving = 1
	if len(frame) < 5 || frame[0] != 0 {
		return errors.New("the answer is not a gRPC message")
	}
	message, status := frame[5:], uint64(0)
	if len(message) > 0 {
		n := 0
		if status, n = binary.Uvarint(message[1:]); message[0] != 1<<3 || n <= 0 {
			return errors.New("the answer is not a HealthCheckResponse")
		}
	}
	switch {
	case status == serving:
		return nil
	case status < uint64(len(healthStatus)):
		return fmt.Errorf("it answered %s", healthStatus[status])
	}
	return fmt.Errorf("it answered with the status %d", status)
}
