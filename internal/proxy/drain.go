package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// Shutdown lets go of all clients without failing a request, in three steps. For DrainDelay it goes on accepting, while every answer tells its client to go: whoever
// sends clients here has that time to notice. Then the sockets are closed, with what waits in them accepted to the last; idle connections end, and requests and
// upgraded connections have DrainGrace to finish. What is left then is closed. The end of ctx ends all this at once.
//
// The error says how many connections were closed with a request under way; those that were upgraded or passed on do not count, which know no end. Shutdown returns when everything
// that the proxy started has ended.
func (p *Proxy) Shutdown(ctx context.Context) error {
	p.drain.Store(true)
	left := 0
	if p.pause(ctx, p.opt.DrainDelay) {
		p.stop()
		p.leaveFlows()
		p.finish(ctx)
		left = p.count(func(c *clientConn) bool { return !c.tunnel.Load() && !c.passing.Load() })
	}
	var err error
	if left > 0 {
		err = fmt.Errorf("drain: closed %d connections that were in use", left)
	}
	return errors.Join(context.Cause(ctx), err, p.Close())
}

// pause waits, unless ctx or the proxy end before.
func (p *Proxy) pause(ctx context.Context, d time.Duration) (ok bool) {
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-p.ctx.Done():
	}
	return false
}

// finish waits until all connections have ended, for as long as they may take.
func (p *Proxy) finish(ctx context.Context) {
	timer := time.NewTimer(max(p.opt.DrainGrace, 0))
	defer timer.Stop()
	for p.open()+p.openFlowCount() > 0 {
		select {
		case <-p.gone:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		case <-p.ctx.Done():
			return
		}
	}
}

// open is the number of connections.
func (p *Proxy) open() int { return p.count(func(*clientConn) bool { return true }) }

// count returns how many connections are of a kind.
func (p *Proxy) count(kind func(*clientConn) bool) (n int) {
	for _, port := range p.everyPort() {
		port.mu.Lock()
		for c := range port.conns {
			if kind(c) {
				n++
			}
		}
		port.mu.Unlock()
	}
	return n
}

// everyPort returns the ports, with those that were retired.
func (p *Proxy) everyPort() (ports []*port) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.ports {
		ports = append(ports, n)
	}
	for n := range p.retired {
		ports = append(ports, n)
	}
	return ports
}

// stop retires all ports for good. It returns when all sockets are closed.
func (p *Proxy) stop() {
	p.mu.Lock()
	p.stopped = true
	p.closeReserved(func(route.Bind) bool { return true })
	for _, n := range p.ports {
		p.retire(n)
	}
	p.mu.Unlock()
	for _, n := range p.everyPort() {
		<-n.accepted
	}
}

// Close ends everything at once: connections are cut off, whatever they are doing. It returns when everything that the proxy started has ended.
func (p *Proxy) Close() error {
	p.cancel()
	p.stop()
	p.mu.Lock()
	p.closeFlows(func(*flowPort) bool { return true })
	p.mu.Unlock()
	var goodbyes sync.WaitGroup
	p.closeTunnels(&goodbyes)
	for _, n := range p.everyPort() {
		for _, c := range n.list() {
			c.kill()
		}
	}
	err := p.settle()
	for _, n := range p.everyPort() {
		n.closeServers()
	}
	goodbyes.Wait()
	p.group.Wait()
	p.mirrors.close()
	return err
}

// settleTime is how long requests whose connections are gone may take to notice.
const settleTime = 10 * time.Second

// settle waits for the requests whose connections were closed.
func (p *Proxy) settle() error {
	timer := time.NewTimer(settleTime)
	defer timer.Stop()
	for n := p.open(); n > 0; n = p.open() {
		select {
		case <-p.gone:
		case <-timer.C:
			return fmt.Errorf("close proxy: requests on %d connections do not end", n)
		}
	}
	return nil
}

// retire takes a port out of service: it accepts what waits in its socket and nothing after that, and lets go of its connections. The socket is closed when
// n.accepted is. p.mu must be held.
func (p *Proxy) retire(n *port) {
	delete(p.ports, n.bind)
	p.retired[n] = struct{}{}
	n.leaving.Store(true)
	if d, ok := n.socket.(interface{ SetDeadline(t time.Time) error }); !ok || d.SetDeadline(time.Now()) != nil {
		_ = n.socket.Close()
	}
	p.group.Go(n.farewell)
}

// farewell asks all connections of a retired port to end as soon as they are not in use, and waits until they have or the proxy ends.
func (n *port) farewell() {
	<-n.accepted
	for _, c := range n.list() {
		c.goodbye()
	}
	n.proxy.shutdown(n.http2)
	for !n.empty() {
		select {
		case <-n.gone:
		case <-n.proxy.ctx.Done():
			return
		}
	}
	n.closeServers()
	n.proxy.mu.Lock()
	defer n.proxy.mu.Unlock()
	delete(n.proxy.retired, n)
}

// shutdown sends GOAWAY on the HTTP/2 connections of a server, and returns when they have ended or the proxy ends.
func (p *Proxy) shutdown(s *http.Server) {
	if s.Shutdown(p.ctx) != nil {
		_ = s.Close()
	}
}

func (n *port) closeServers() {
	_ = n.http1.Close()
	_ = n.http2.Close()
}

func (n *port) empty() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.conns) == 0
}

// list returns the connections of the port.
func (n *port) list() []*clientConn {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := make([]*clientConn, 0, len(n.conns))
	for c := range n.conns {
		list = append(list, c)
	}
	return list
}

// tunnel is an upgraded connection, or one that is passed on.
type tunnel struct{ close func() }

// trackTunnel registers an upgraded connection for as long as it lives: done must be called when it has ended. When the time to drain is over close is called,
// once and possibly at the same time as done; it should end the connection with a FIN in both directions and return soon.
func (p *Proxy) trackTunnel(close func()) (done func()) {
	t := &tunnel{close: sync.OnceFunc(close)}
	p.tunnelMu.Lock()
	p.tunnels[t] = struct{}{}
	p.tunnelMu.Unlock()
	select {
	case <-p.ctx.Done():
		t.close()
	default:
	}
	return func() {
		p.tunnelMu.Lock()
		defer p.tunnelMu.Unlock()
		delete(p.tunnels, t)
		if len(p.tunnels) == 0 {
			wake(p.gone)
		}
	}
}

// wake puts a value into a channel that has room for one, unless there is one.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// goodbyeTime is how long tunnels may take to end after they were closed, before their connections are cut off.
const goodbyeTime = time.Second

// closeTunnels ends all tunnels and waits for a moment until they have.
func (p *Proxy) closeTunnels(group *sync.WaitGroup) {
	p.tunnelMu.Lock()
	for t := range p.tunnels {
		group.Go(t.close)
	}
	p.tunnelMu.Unlock()
	timer := time.NewTimer(goodbyeTime)
	defer timer.Stop()
	for p.tunnelCount() > 0 {
		select {
		case <-p.gone:
		case <-timer.C:
			return
		}
	}
}

func (p *Proxy) tunnelCount() int {
	p.tunnelMu.Lock()
	defer p.tunnelMu.Unlock()
	return len(p.tunnels)
}
