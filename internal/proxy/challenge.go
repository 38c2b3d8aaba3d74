package proxy

import (
	"context"
	"crypto/tls"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/fairlead-io/fairlead/internal/route"
)

// Challenger answers the challenges by which certificate authorities look whether a name is served here. Its methods are called for whatever a client sends,
// concurrently, and before anything else is known about the request; they must be cheap for names that are not to be proved.
type Challenger interface {
	// HTTP returns the answer to a request for a path below /.well-known/acme-challenge/ of a host.
	HTTP(ctx context.Context, host, path string) (answer string, ok bool)
	// Certificate returns the certificate with which a handshake for a name is made by the protocol acme-tls/1, or nil.
	Certificate(ctx context.Context, name string) *tls.Certificate
}

const (
	challengePath     = "/.well-known/acme-challenge/" // RFC 8555, section 8.3
	challengeProtocol = "acme-tls/1"                   // RFC 8737
)

// challenged answers a request that is the challenge of a certificate authority, before routes, redirects and filters have a say.
func (x *exchange) challenged() bool {
	c := x.h.proxy.opt.Challenges
	if c == nil || !strings.HasPrefix(x.request.Path, challengePath) || x.in.Method != http.MethodGet && x.in.Method != http.MethodHead {
		return false
	}
	text, ok := c.HTTP(x.ctx, x.request.Host, x.request.Path)
	if !ok {
		return false
	}
	x.entry.Reason = route.Challenge
	x.settleBody()
	h := x.reply.Header()
	h[ReasonHeader] = []string{string(route.Challenge)}
	h["Content-Type"] = []string{"text/plain; charset=utf-8"}
	h["X-Content-Type-Options"] = []string{"nosniff"}
	h["Cache-Control"] = []string{"no-store"}
	h["Content-Length"] = []string{strconv.Itoa(len(text))}
	x.reply.WriteHeader(http.StatusOK)
	if x.in.Method != http.MethodHead {
		_, _ = x.reply.Write([]byte(text)) // a failure is kept in the reply
	}
	return true
}

// challengeConfig returns the configuration for a handshake that is the challenge of a certificate authority, and nil for any other. protocols are what the client
// offers to speak.
func (n *port) challengeConfig(ctx context.Context, name string, protocols []string) *tls.Config {
	c := n.proxy.opt.Challenges
	if c == nil || !slices.Equal(protocols, []string{challengeProtocol}) {
		return nil
	}
	cert := c.Certificate(ctx, normalName(name))
	if cert == nil {
		return nil
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{challengeProtocol}, Certificates: []tls.Certificate{*cert}, SessionTicketsDisabled: true,
	}
}

// challenged reports whether a connection to a listener that ends TLS for others is the challenge of a certificate authority, so that the handshake is all of it. No
// rule has a say in that: a name is proved before there is a certificate for it, and often before there is a route.
func (c *clientConn) challenged(l *route.Listener, name string) bool {
	p := c.port.proxy
	return l != nil && l.Mode == route.Terminate && p.opt.Challenges != nil && c.port.challengeConfig(p.ctx, name, helloProtocols(c.early)) != nil
}
