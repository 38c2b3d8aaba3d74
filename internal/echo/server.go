// Package echo is a backend that tells what it was sent: the endpoints of the demo, and what the data plane is tested against.
//
// A Server speaks HTTP/1.1, HTTP/2 with and without TLS, WebSocket and gRPC on one port. It answers any request with a JSON description of it (see Answer),
// any WebSocket with its own messages, and any gRPC call with its own messages. The end of the path may ask for something else, so that it works behind any
// prefix:
//
//	/status/503     that status
//	/delay/250ms    the answer after that time (a plain number is seconds), at most a minute
//	/bytes/1000000  that many bytes, at most 1 GiB
//	/stream         server-sent events: five, one each 100 ms; ?n=100&interval=1s changes that
//	/reflect        the body of the request, while it is still arriving
//	/hints          103 Early Hints before the answer
//
// Kill and Revive make a server go away and come back on the same port, as a crashed pod does.
package echo

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Server is an echo backend. It is an http.Handler, and with Listen a server. Make one with New. Safe for concurrent use.
type Server struct {
	// TLS, if set before Listen, makes the server speak TLS. It must have a certificate.
	TLS *tls.Config

	name   string
	served atomic.Int64

	life sync.Mutex // held by Listen and Kill: one at a time

	mu       sync.Mutex
	settled  *sync.Cond // handlers or conns went down
	addr     string     // where Listen bound; "" before
	server   *http.Server
	stopped  chan struct{} // closed when server's accept loop has ended
	handlers int
	conns    int
	tunnels  map[net.Conn]struct{}
}

// New returns a server of that name. The name is in every answer, also as the header X-Echo-Name.
func New(name string) *Server {
	s := &Server{name: name, tunnels: map[net.Conn]struct{}{}}
	s.settled = sync.NewCond(&s.mu)
	return s
}

// Name returns the name given to New.
func (s *Server) Name() string { return s.name }

// Served returns how many requests were received so far.
func (s *Server) Served() int64 { return s.served.Load() }

// errListening is returned by Listen and Revive when the server is listening.
var errListening = errors.New("listen: the server is listening already")

// Listen starts the server on a TCP address such as 127.0.0.1:0, from which Addr then has the port.
func (s *Server) Listen(addr string) error {
	s.life.Lock()
	defer s.life.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server != nil {
		return errListening
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", addr, err)
	}
	s.addr = ln.Addr().String()
	s.server = s.newServer()
	s.stopped = make(chan struct{})
	go s.serve(s.server, ln, s.stopped)
	return nil
}

func (s *Server) newServer() *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           s,
		Protocols:         protocols,
		TLSConfig:         s.TLS.Clone(),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       5 * time.Minute, // longer than a proxy's, so that the proxy is the one to close
		ConnState:         s.connState,
		ErrorLog:          log.New(io.Discard, "", 0),
	}
}

func (s *Server) serve(server *http.Server, ln net.Listener, stopped chan<- struct{}) {
	defer close(stopped)
	if s.TLS != nil {
		_ = server.ServeTLS(ln, "", "") // always an error: the server was closed
		return
	}
	_ = server.Serve(ln)
}

// Addr returns the address that Listen bound, as host:port, also while the server is killed. It is empty before Listen.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// Alive says whether the server is listening.
func (s *Server) Alive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.server != nil
}

// Kill closes the listening socket and every connection without ceremony. It returns when nothing is left. Killing a dead server does nothing.
func (s *Server) Kill() {
	s.life.Lock()
	defer s.life.Unlock()
	s.mu.Lock()
	server, stopped := s.server, s.stopped
	s.server = nil
	s.mu.Unlock()
	if server == nil {
		return
	}
	_ = server.Close()
	<-stopped
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.handlers > 0 || s.conns > 0 {
		for c := range s.tunnels {
			_ = c.Close()
		}
		s.settled.Wait()
	}
}

// Revive listens again on the address that the server had.
func (s *Server) Revive() error {
	addr := s.Addr()
	if addr == "" {
		return errors.New("revive server: it never listened")
	}
	return s.Listen(addr)
}

// Close ends the server. It is Kill, under the name that a deferred call has.
func (s *Server) Close() error {
	s.Kill()
	return nil
}

func (s *Server) connState(_ net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state {
	case http.StateNew:
		s.conns++
	case http.StateClosed, http.StateHijacked:
		s.conns--
		s.settled.Broadcast()
	case http.StateActive, http.StateIdle:
	}
}

// enter counts a running handler; what it returns counts it out.
func (s *Server) enter() (leave func()) {
	s.served.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.handlers--
		s.settled.Broadcast()
	}
}

// tunnel registers a connection that the http.Server no longer knows, so that Kill can close it.
func (s *Server) tunnel(c net.Conn) (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tunnels[c] = struct{}{}
	s.settled.Broadcast() // a Kill that is waiting must see it
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.tunnels, c)
	}
}
