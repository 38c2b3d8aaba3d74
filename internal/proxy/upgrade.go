package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/fairlead-io/fairlead/internal/route"
)

// websocketToken is the only protocol that clients may switch a connection to. What passes through a connection after that is outside of all that a proxy checks, so
// there is none for protocols that turn it into another way to the backend, as h2c would.
const websocketToken = "websocket"

// partingTime is how long both ends of an upgraded connection may take to close it after they were told that it ends. It is less than Proxy.Close waits.
const partingTime = 3 * goodbyeTime / 4

// errPipeDone says that a response was served as an upgraded connection, to its end.
var errPipeDone = errors.New("upgraded connection is done")

// allowedUpgrade reports whether a request asks for an upgrade that it may get. Where it does not the request goes on without it, as a plain one (RFC 9110,
// section 7.8: a server may ignore Upgrade).
func allowedUpgrade(r *http.Request) bool {
	return r.Method == http.MethodGet && r.ProtoMajor == 1 && r.ProtoMinor == 1 && r.ContentLength == 0 && upgradesTo(r.Header)
}

// upgradesTo reports whether a header asks for an upgrade to WebSocket, or grants it.
func upgradesTo(h http.Header) bool {
	return httpguts.HeaderValuesContainsToken(h["Connection"], "upgrade") && httpguts.HeaderValuesContainsToken(h["Upgrade"], websocketToken)
}

// upgradeHeader makes a header ask for an upgrade to WebSocket, or grant it.
func upgradeHeader(h http.Header) {
	h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{websocketToken}
	// RFC 6455 writes them so, and there are servers and clients that take it at its word.
	for _, suffix := range [...]string{"Accept", "Extensions", "Key", "Protocol", "Version"} {
		if v, ok := h["Sec-Websocket-"+suffix]; ok {
			delete(h, "Sec-Websocket-"+suffix)
			h["Sec-WebSocket-"+suffix] = v
		}
	}
}

// serveUpgraded serves a response that switches protocols, until both ends are done with it. The error is errPipeDone unless the client is still to be answered.
func (x *exchange) serveUpgraded(res *http.Response) error {
	backend, ok := res.Body.(io.ReadWriteCloser)
	if !ok || !x.upgrade || !upgradesTo(res.Header) {
		return &failure{http.StatusBadGateway, route.BackendProtocol, errors.New("check response: it switches to a protocol that was not asked for")}
	}
	client, buffered, err := http.NewResponseController(x.reply.ResponseWriter).Hijack()
	if err != nil {
		return &failure{http.StatusInternalServerError, route.Internal, fmt.Errorf("take over connection: %w", err)}
	}
	p := &pipe{client: client, early: buffered.Reader, backend: backend}
	defer p.kill()
	x.stopTimer()
	res.Body = http.NoBody // httputil.ReverseProxy closes it
	x.reply.status = res.StatusCode
	done := x.h.proxy.trackTunnel(p.goodbye)
	defer done()
	if err := p.writeHead(buffered.Writer, res.Header); err != nil {
		x.blame(&failure{statusClientClosed, route.ClientClosed, fmt.Errorf("write response: %w", err)})
		return errPipeDone
	}
	p.run()
	x.upgradedIn, x.reply.bytes = p.in.Load(), p.out.Load()
	return errPipeDone
}

// pipe passes bytes between a client and a backend that have agreed on a protocol of their own. The client's connection sees to it that it does not stay open when
// nothing passes, and that a client that takes nothing is let go.
type pipe struct {
	client  net.Conn
	early   *bufio.Reader // reads from client; holds what came early
	backend io.ReadWriteCloser
	in, out atomic.Int64 // bytes from the client and to it
	leaving atomic.Bool  // goodbye was said

	mu    sync.Mutex
	over  bool
	timer *time.Timer // kills, after goodbye
}

// writeHead sends the client the head of the response.
func (p *pipe) writeHead(w *bufio.Writer, h http.Header) error {
	for name := range h {
		if framing(name) {
			delete(h, name)
		}
	}
	upgradeHeader(h)
	_, _ = w.WriteString("HTTP/1.1 101 Switching Protocols\r\n") // errors stay in w
	_ = h.Write(w)
	_, _ = w.WriteString("\r\n")
	return w.Flush()
}

// run passes bytes both ways and returns when both are done.
func (p *pipe) run() {
	var wg sync.WaitGroup
	wg.Go(func() {
		defer p.rescue()
		p.pass(p.backend, p.early, &p.in)
	})
	func() {
		defer p.rescue()
		p.pass(p.client, p.backend, &p.out)
	}()
	wg.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	if p.timer != nil {
		p.timer.Stop()
	}
}

// rescue keeps a panic to the connection that it happened in: the other direction then ends, too.
func (p *pipe) rescue() {
	if recover() != nil {
		p.kill()
	}
}

// pass copies from src to dst. The end of src is passed on as the end of dst, while the other direction goes on; an error ends both.
func (p *pipe) pass(dst io.Writer, src io.Reader, count *atomic.Int64) {
	buf := pipeBuffers.Get()
	defer pipeBuffers.Put(buf)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, werr := dst.Write(buf[:n]); werr != nil {
				if !p.leaving.Load() {
					p.kill()
					return
				}
				dst = io.Discard // read on, so that the other end gets to see the end and not a reset
			}
			count.Add(int64(n))
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, io.EOF) || !closeWrite(dst) {
			p.kill()
		}
		return
	}
}

var pipeBuffers buffers

// closeWrite tells the other end that nothing more will come. It reports whether that was possible.
func closeWrite(w io.Writer) bool {
	if w == io.Discard {
		return true
	}
	c, ok := w.(interface{ CloseWrite() error })
	return ok && c.CloseWrite() == nil
}

// kill ends both directions at once.
func (p *pipe) kill() {
	_ = p.client.Close()
	_ = p.backend.Close()
}

// goodbye tells both ends that the connection ends, gives them a moment to agree, and ends it.
func (p *pipe) goodbye() {
	p.leaving.Store(true)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return
	}
	if !closeWrite(p.client) || !closeWrite(p.backend) {
		p.kill()
		return
	}
	p.timer = time.AfterFunc(partingTime, p.kill)
}
