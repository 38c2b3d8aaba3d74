package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/http2"

	"github.com/fairlead-io/fairlead/internal/proxy/headscan"
	"github.com/fairlead-io/fairlead/internal/route"
)

// tlsConfig is the TLS of a port: versions 1.2 and 1.3, forward secrecy and authenticated encryption only.
//
// Each port has a Config of its own, and with it its own ticket keys, which crypto/tls replaces every day and forgets after a week. Within a port a session is
// resumed only under the server name that it was made for, and only while the same is demanded of clients as then: a ticket is no way around what a handshake would
// demand now, or for another listener (RFC 6066, section 3, forbids the latter as well). Both are kept in the ticket, where the client can neither read nor change them.
//
// Connections that are passed on decrypted have a Config beside that for HTTP, which offers no protocols: what the backend speaks is not known.
func (n *port) tlsConfig(protocols ...string) *tls.Config {
	c := &tls.Config{
		MinVersion: tls.VersionTLS12,
		CipherSuites: []uint16{ // of TLS 1.2; those of 1.3 cannot be chosen
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		NextProtos:     protocols,
		GetCertificate: n.certificate,
	}
	bindTickets(c, c, nil)
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if challenge := n.challengeConfig(hello.Context(), hello.ServerName, hello.SupportedProtos); challenge != nil {
			return challenge, nil
		}
		return n.demandingConfig(c, hello), nil
	}
	return c
}

// bindTickets makes tickets of c good for the server name that they were made for and for one demand on clients only. They are sealed with the keys of base.
func bindTickets(c, base *tls.Config, demand *route.ClientAuth) {
	label := func(cs tls.ConnectionState) string {
		return ticketLabel + normalName(cs.ServerName) + " " + demand.Digest()
	}
	c.WrapSession = func(cs tls.ConnectionState, s *tls.SessionState) ([]byte, error) {
		s.Extra = append(s.Extra, []byte(label(cs)))
		return base.EncryptTicket(cs, s)
	}
	c.UnwrapSession = func(identity []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		s, err := base.DecryptTicket(identity, cs)
		if s == nil || err != nil || !madeFor(s, label(cs)) {
			return nil, err
		}
		return s, nil
	}
}

const ticketLabel = "fairlead server name: "

// madeFor reports whether a session was made under a label.
func madeFor(s *tls.SessionState, label string) bool {
	for _, extra := range s.Extra {
		if strings.HasPrefix(string(extra), ticketLabel) {
			return string(extra) == label
		}
	}
	return false
}

// demandingConfig returns the configuration for a handshake with the listener that owns the server name, and notes on the connection what that demands of
// clients. It is nil, which is the configuration base, when that is nothing.
func (n *port) demandingConfig(base *tls.Config, hello *tls.ClientHelloInfo) *tls.Config {
	demand := n.demandOn(normalName(hello.ServerName))
	if demand == nil {
		return nil
	}
	if conn, ok := hello.Conn.(*clientConn); ok {
		conn.shown = demand.ClientAuth
	}
	c := base.Clone()
	c.GetConfigForClient = nil
	c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, demand.authorities
	if demand.Optional {
		c.ClientAuth, c.ClientCAs = tls.RequestClientCert, nil // which names no authorities, so that clients offer whatever they have
	}
	bindTickets(c, base, demand.ClientAuth)
	return c
}

// demandOn returns what the listener that owns a server name demands of clients; nil when that is nothing.
func (n *port) demandOn(name string) *clientDemand {
	in := n.proxy.installed.Load()
	if in == nil || len(in.demands) == 0 {
		return nil
	}
	port := in.table.Port(n.bind)
	if port == nil {
		return nil
	}
	l := port.Listener(name)
	if l == nil || l.Clients == nil {
		return nil
	}
	return in.demands[l.Clients]
}

// clientDemand is a demand on clients, ready for use.
type clientDemand struct {
	*route.ClientAuth
	authorities *x509.CertPool
}

// demandsOf are the demands of all listeners of a table.
func demandsOf(t *route.Table) map[*route.ClientAuth]*clientDemand {
	var out map[*route.ClientAuth]*clientDemand
	for _, p := range t.Ports {
		for _, l := range p.Listeners {
			if l.Clients == nil || out[l.Clients] != nil {
				continue
			}
			d := &clientDemand{l.Clients, x509.NewCertPool()}
			d.authorities.AppendCertsFromPEM(l.Clients.Authorities) // if there is none in it, nobody is let in
			if out == nil {
				out = map[*route.ClientAuth]*clientDemand{}
			}
			out[l.Clients] = d
		}
	}
	return out
}

// normalName is a server name as tables know it.
func normalName(name string) string { return strings.TrimSuffix(strings.ToLower(name), ".") }

func (n *port) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if name := normalName(hello.ServerName); name != hello.ServerName {
		normal := *hello
		normal.ServerName = name
		hello = &normal
	}
	return n.proxy.opt.GetCertificate(n.bind, hello)
}

// serveTLS makes the handshake and goes on with the protocol that was agreed.
func (c *clientConn) serveTLS() {
	t := tls.Server(c, c.port.tls)
	if err := c.handshake(t); err != nil {
		c.handshakeFailed(err)
		return
	}
	s := t.ConnectionState()
	c.tls, c.state, c.name = t, &s, normalName(s.ServerName)
	c.port.metrics.Handshake(s.Version, true, s.DidResume)
	if s.NegotiatedProtocol == challengeProtocol { // the handshake was all that was wanted
		_ = t.Close()
		return
	}
	if s.NegotiatedProtocol == http2.NextProtoTLS {
		c.serveHTTP2(t, nil)
		return
	}
	c.serveHTTP1(t, nil)
}

func (c *clientConn) handshake(t *tls.Conn) error {
	d := c.limits.HandshakeTimeout
	if d > 0 {
		c.armReadAt(clock() + d)
		_ = c.SetWriteDeadline(time.Now().Add(d))
	} else {
		c.setMode(modeFrames, 0)
	}
	err := t.HandshakeContext(context.Background())
	_ = c.SetWriteDeadline(time.Time{})
	c.setMode(modeOwner, 0)
	return err
}

var faultPlain = &headscan.Fault{Status: http.StatusBadRequest, Reason: route.BadRequest, Why: "HTTP without TLS on an HTTPS port"}

// handshakeFailed closes the connection. A client that spoke plain HTTP is told so.
func (c *clientConn) handshakeFailed(err error) {
	var record tls.RecordHeaderError
	if errors.As(err, &record) && record.Conn != nil && looksLikeHTTP(record.RecordHeader) {
		c.port.refused(c, faultPlain)
		_ = c.SetWriteDeadline(time.Now().Add(refusalTime))
		if _, err := c.Write(refusal(faultPlain)); err == nil {
			c.closeWrite()
			c.linger()
		}
	} else {
		c.port.metrics.Handshake(0, false, false)
		if !errors.Is(err, io.EOF) {
			c.port.proxy.opt.Log.Debug("TLS handshake failed", "listener", c.port.name, "peer", c.from, "error", err)
		}
	}
	_ = c.Close()
}

// looksLikeHTTP reports whether what should have been the header of a TLS record is the beginning of a request.
func looksLikeHTTP(header [5]byte) bool {
	method, _, _ := strings.Cut(string(header[:]), " ")
	return headscan.Token(method)
}
