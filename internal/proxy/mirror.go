package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-io/fairlead/internal/backend"
	"github.com/fairlead-io/fairlead/internal/route"
	"github.com/fairlead-io/fairlead/internal/telemetry"
)

// Limits of mirroring. What exceeds them is not mirrored: nothing that happens to a copy may be felt by the request that it was made of.
const (
	maxMirrors     = 256      // copies on their way at a time
	maxMirrorBody  = 1 << 20  // bytes of the body of one
	maxMirrorBytes = 64 << 20 // bytes of all bodies that are held
	mirrorTimeout  = 15 * time.Second
)

// mirrors sends copies of requests and throws the answers away. It is bounded in number, memory and time.
type mirrors struct {
	ctx     context.Context
	metrics *telemetry.Metrics

	mu      sync.Mutex
	closed  bool
	running int
	held    int
	group   sync.WaitGroup
}

// hold reserves n bytes of memory for a copy.
func (m *mirrors) hold(n int) (ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held+n > maxMirrorBytes {
		return false
	}
	m.held += n
	return true
}

func (m *mirrors) release(n int) {
	m.mu.Lock()
	m.held -= n
	m.mu.Unlock()
}

// begin counts a copy as on its way. What was begun must be ended.
func (m *mirrors) begin() (ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.running >= maxMirrors {
		return false
	}
	m.running++
	m.group.Add(1)
	return true
}

func (m *mirrors) end() {
	m.mu.Lock()
	m.running--
	m.mu.Unlock()
	m.group.Done()
}

// close waits for what is on its way, whose context has ended, and lets nothing more begin.
func (m *mirrors) close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.group.Wait()
}

// boundMirror is a mirror filter, ready to serve.
type boundMirror struct {
	*route.Mirror
	pool roundTripper // nil: it is not installed
}

// drawn decides whether a request is mirrored.
func (m *boundMirror) drawn() bool {
	return m.pool != nil && rand.Int32N(m.Denominator) < m.Numerator //nolint:gosec // shares out load, guards nothing
}

// mirror makes the copies of a request that its filters ask for. out is what goes to the backend, before the filters changed it. A mirror of the rule gets what the
// filters of the rule make of it: those of the backend are for the backend.
func (x *exchange) mirror(out *http.Request) {
	if x.upgrade || len(x.rule.mirrors) == 0 && len(x.backend.mirrors) == 0 {
		return
	}
	c := &mirroring{mirrors: &x.h.proxy.mirrors, size: x.in.ContentLength}
	for i := range x.rule.mirrors {
		c.add(x, out, &x.rule.mirrors[i], &x.rule.plan)
	}
	for i := range x.backend.mirrors {
		c.add(x, out, &x.backend.mirrors[i], &x.backend.plan)
	}
	switch {
	case len(c.copies) == 0:
	case x.body == nil:
		c.send()
	default:
		x.body.copy = c
	}
}

// mirroring is the copies of one request whose body is still on its way. It belongs to the body.
type mirroring struct {
	mirrors *mirrors
	size    int64 // as announced; -1 if it was not
	copies  []mirrored
	body    bytes.Buffer
	over    bool // sent, or given up
}

type mirrored struct {
	req  *http.Request
	pool roundTripper
}

func (c *mirroring) add(x *exchange, out *http.Request, m *boundMirror, p *plan) {
	if !m.drawn() {
		return
	}
	req := out.WithContext(c.mirrors.ctx)
	req.URL = &url.URL{Scheme: out.URL.Scheme, Host: out.URL.Host}
	req.Host, req.Header, req.Body, req.Trailer = x.in.Host, out.Header.Clone(), nil, nil
	delete(req.Header, "Expect")
	x.setTarget(req, p)
	changeRequest(req, p.request)
	c.copies = append(c.copies, mirrored{req, m.pool})
}

// took is told what was read of the body, and with which error the read ended.
func (c *mirroring) took(p []byte, err error) {
	if c.over {
		return
	}
	if c.body.Len()+len(p) > maxMirrorBody || !c.mirrors.hold(len(p)) {
		c.abandon()
		return
	}
	_, _ = c.body.Write(p)
	switch {
	case errors.Is(err, io.EOF), err == nil && int64(c.body.Len()) == c.size:
		c.send()
	case err != nil:
		c.abandon()
	}
}

// abandon gives the copies up, unless they were sent.
func (c *mirroring) abandon() {
	if c.over {
		return
	}
	c.over = true
	c.mirrors.release(c.body.Len())
	for range c.copies {
		c.mirrors.metrics.Mirrored(telemetry.MirrorDropped)
	}
	c.copies = nil
}

// send sends the copies. Nobody waits for them.
func (c *mirroring) send() {
	c.over = true
	var left atomic.Int64 // that still need the body
	left.Store(int64(len(c.copies)))
	done := func(r telemetry.MirrorResult) {
		c.mirrors.metrics.Mirrored(r)
		if left.Add(-1) == 0 {
			c.mirrors.release(c.body.Len())
		}
	}
	for _, m := range c.copies {
		if !c.mirrors.begin() {
			done(telemetry.MirrorDropped)
			continue
		}
		go func() {
			defer c.mirrors.end()
			done(c.mirrors.send(m, c.body.Bytes()))
		}()
	}
}

func (m *mirrors) send(to mirrored, body []byte) telemetry.MirrorResult {
	ctx, cancel := context.WithTimeout(m.ctx, mirrorTimeout)
	defer cancel()
	req := to.req.WithContext(ctx)
	if req.ContentLength = int64(len(body)); len(body) > 0 {
		req.Body = io.NopCloser(bytes.NewReader(body))
	}
	res, err := to.pool.Do(req, &backend.Attempt{})
	if err != nil {
		return telemetry.MirrorFailed
	}
	_, _ = io.CopyN(io.Discard, res.Body, maxMirrorBody) // so that the connection can be used again
	_ = res.Body.Close()
	return telemetry.MirrorSent
}
