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

// challengeConfig returns the configuration for a handshake that is the challenge of a certificate authority, and nil for any other.
func (n *port) challengeConfig(hello *tls.ClientHelloInfo) *tls.Config {
	c := n.proxy.opt.Challenges
	if c == nil || !slices.Equal(hello.SupportedProtos, []string{challengeProtocol}) {
		return nil
	}
	cert := c.Certificate(hello.Context(), normalName(hello.ServerName))
	if cert == nil {
		return nil
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{challengeProtocol}, Certificates: []tls.Certificate{*cert}, SessionTicketsDisabled: true,
	}
}
