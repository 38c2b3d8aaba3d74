package proxy

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

const (
	frameSize    = 16 << 10
	streamWindow = 256 << 10
	connWindow   = 1 << 20

	pingAfter   = 30 * time.Second // without a frame from the client
	pingTimeout = 15 * time.Second
)

// newHTTP2 makes the server for HTTP/2.
//
// It is the one in net/http and not that of golang.org/x/net, which is deprecated and from Go 1.27 on nothing but another way to this one. What net/http is
// lenient about in Go 1.26 (a :path that is a URL, an :authority that contradicts the Host header or holds user information) checkRequest refuses. The server takes
// every connection for one without TLS: what comes over TLS is unwrapped before, so that the frame guard can see it, and its requests get their TLS state
// from serveHTTP.
//
// The frame size is the smallest that is allowed, which bounds what one frame can make the server hold. With a header list of 64 KiB, as announced, the 100 streams
// of a connection can pin some 13 MB, for no longer than their handlers run.
func (n *port) newHTTP2() *http.Server {
	l := &n.proxy.opt.Limits
	only := new(http.Protocols)
	only.SetUnencryptedHTTP2(true)
	return &http.Server{ //nolint:gosec // the deadlines are set here and by socket
		Handler:        http.HandlerFunc(n.serveHTTP),
		Protocols:      only,
		MaxHeaderBytes: unlimited(l.HeaderBytes),
		IdleTimeout:    max(l.IdleTimeout, 0),
		ErrorLog:       newErrorLog(n.proxy.opt.Log, n.name),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c.(*frameConn).client)
		},
		DisableGeneralOptionsHandler: true, // serveHTTP does it
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          unlimited(l.Streams),
			MaxReadFrameSize:              frameSize,
			MaxReceiveBufferPerConnection: connWindow,
			MaxReceiveBufferPerStream:     streamWindow,
			MaxDecoderHeaderTableSize:     4 << 10,
			MaxEncoderHeaderTableSize:     4 << 10,
			SendPingTimeout:               pingAfter,
			PingTimeout:                   pingTimeout,
		},
	}
}

// serveHTTP2 hands the connection to the HTTP/2 server. early is what the client has sent already.
func (c *clientConn) serveHTTP2(conn net.Conn, early []byte) {
	f := &frameConn{Conn: conn, client: c, reader: conn}
	f.in.skip = len(http2.ClientPreface)
	f.guard.begin(c.limits.Resets)
	if c.tls == nil { // which would have buffers of its own: the server reads each frame in two steps
		f.reader = bufio.NewReaderSize(io.MultiReader(bytes.NewReader(early), conn), 4<<10)
	}
	c.armFirst() // up to the end of the preface
	if !c.port.feed2.put(f) {
		c.port.serveLate(f)
	}
}

// serveLate serves a connection for which the HTTP/2 server has closed while it was made, until it ends: its client cannot know yet, and may have sent a request. It gets
// GOAWAY with the first answer, or soon if it asks nothing.
func (n *port) serveLate(c *frameConn) {
	s, f := n.newHTTP2(), newFeed(n.socket.Addr())
	ended := make(chan struct{})
	s.IdleTimeout = lastChance
	s.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			close(ended)
		}
	}
	n.proxy.group.Go(func() { _ = s.Serve(f) })
	f.put(c)
	select {
	case <-ended:
	case <-n.proxy.ctx.Done():
	}
	_ = s.Close()
}

// frameConn is a connection that speaks HTTP/2, as net/http's server sees it. It watches the frames that go by and closes the connection when the client makes
// the server work without asking for anything.
type frameConn struct {
	net.Conn // the client's, or TLS over it
	client   *clientConn
	reader   io.Reader
	in, out  frameParser
	begun    bool // the preface was read
	guard    frameGuard
}

// Read implements net.Conn.
func (c *frameConn) Read(p []byte) (int, error) {
	if c.client.closed.Load() {
		return 0, net.ErrClosed // and what is in the buffer is not served any more
	}
	n, err := c.reader.Read(p)
	if !c.begun && n >= c.in.skip {
		// From now on there is always a frame within this time, because clients answer pings.
		c.client.setMode(modeFrames, 2*(pingAfter+pingTimeout))
		c.begun = true
	}
	if c.in.parse(p[:n], c.guard.received) {
		return n, err
	}
	c.client.port.proxy.opt.Log.Debug("close connection: too many HTTP/2 frames that ask for nothing", "peer", c.client.from, "listener", c.client.port.name)
	c.client.kill()
	return 0, net.ErrClosed
}

// Write implements net.Conn.
func (c *frameConn) Write(p []byte) (int, error) {
	c.out.parse(p, c.guard.sent)
	return c.Conn.Write(p)
}

// frameParser finds the frames in a stream of bytes. It looks at their headers only.
type frameParser struct {
	skip   int // bytes up to the next header
	have   int // bytes of the header so far
	header [9]byte
	code   int // bytes of the error code of an RST_STREAM still to come
	error  uint32
}

// frame is what the guard is told of a frame.
type frame struct {
	kind  http2.FrameType
	flags http2.Flags
	size  int
	error http2.ErrCode // of an RST_STREAM
}

// parse calls visit for each frame and stops when that returns false.
func (f *frameParser) parse(p []byte, visit func(frame) bool) (ok bool) {
	for len(p) > 0 {
		if f.skip > 0 {
			n := min(f.skip, len(p))
			if f.code > 0 && !f.errorCode(p[:n], visit) {
				return false
			}
			f.skip -= n
			p = p[n:]
			continue
		}
		n := copy(f.header[f.have:], p)
		f.have += n
		p = p[n:]
		if f.have == len(f.header) && !f.frame(visit) {
			return false
		}
	}
	return true
}

// frame takes a header that is complete.
func (f *frameParser) frame(visit func(frame) bool) bool {
	f.have = 0
	f.skip = int(f.header[0])<<16 | int(f.header[1])<<8 | int(f.header[2])
	v := frame{kind: http2.FrameType(f.header[3]), flags: http2.Flags(f.header[4]), size: f.skip}
	if v.kind == http2.FrameRSTStream && v.size == 4 {
		f.code, f.error = 4, 0
		return true
	}
	return visit(v)
}

// errorCode takes the payload of an RST_STREAM.
func (f *frameParser) errorCode(p []byte, visit func(frame) bool) bool {
	for _, b := range p {
		f.error = f.error<<8 | uint32(b)
	}
	if f.code -= len(p); f.code > 0 {
		return true
	}
	return visit(frame{kind: http2.FrameRSTStream, size: 4, error: http2.ErrCode(f.error)})
}

// frameGuard keeps an account of a connection: what asks for something or delivers it is income, what only makes work is expense. A client that goes
// bankrupt attacks. Ordinary ones stay rich: a download earns four for each frame and pays two for the WINDOW_UPDATEs that it takes.
type frameGuard struct {
	reset   int64 // what a reset costs
	balance atomic.Int64
	paid    atomic.Int64 // up to when the time that passes was paid for
}

const (
	frameBudget = 1000 // at the beginning, and for the time that passes at most
	frameRate   = 50   // for each second
	frameWealth = 10 * frameBudget

	incomeRequest  = 2
	incomeResponse = 4
	expenseControl = 1
)

// begin gives the client its first budget, which is enough for as many resets as are allowed in a row.
func (g *frameGuard) begin(resets int) {
	g.reset = frameBudget / int64(max(resets, 1))
	if resets < 0 {
		g.reset = expenseControl
	}
	g.reset = max(g.reset, expenseControl)
	g.balance.Store(frameBudget)
}

// received accounts for a frame from the client, and reports whether there may be more.
func (g *frameGuard) received(f frame) bool {
	if g.book(g.income(f)) >= 0 {
		return true
	}
	now := clock()
	passed := now - time.Duration(g.paid.Swap(int64(now)))
	return g.balance.Add(min(int64(passed)*frameRate/int64(time.Second), frameBudget)) >= 0
}

// income is what a frame from the client earns, or costs if it is negative.
func (g *frameGuard) income(f frame) int64 {
	switch f.kind {
	case http2.FrameHeaders:
		return incomeRequest
	case http2.FrameData:
		if f.size > 0 || f.flags.Has(http2.FlagDataEndStream) {
			return 0
		}
	case http2.FrameRSTStream:
		return -g.reset
	}
	return -expenseControl
}

// sent accounts for a frame to the client; what that means for the client shows with its next frame. What the server sends in answer to a control frame earns
// nothing. A reset that the client provoked costs as much as one of its own: see CVE-2025-8671.
func (g *frameGuard) sent(f frame) bool {
	switch f.kind {
	case http2.FrameHeaders, http2.FrameData:
		g.book(incomeResponse)
	case http2.FrameRSTStream:
		if f.error != http2.ErrCodeNo {
			g.book(-g.reset)
		}
	}
	return true
}

// book changes the balance and returns it.
func (g *frameGuard) book(n int64) int64 {
	if b := g.balance.Load(); n >= 0 && b >= frameWealth {
		return b
	}
	return g.balance.Add(n)
}
