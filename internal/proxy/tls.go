package proxy

import (
	"context"
	"crypto/tls"
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
// resumed only under the server name that it was made for: a ticket is no way around what a handshake for another listener would have demanded (RFC 6066,
// section 3, forbids it as well). The name is kept in the ticket, where the client can neither read nor change it.
func (n *port) tlsConfig() *tls.Config {
	c := &tls.Config{
		MinVersion: tls.VersionTLS12,
		CipherSuites: []uint16{ // of TLS 1.2; those of 1.3 cannot be chosen
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		NextProtos:     []string{http2.NextProtoTLS, "http/1.1"},
		GetCertificate: n.certificate,

		GetConfigForClient: n.challengeConfig,
	}
	c.WrapSession = func(cs tls.ConnectionState, s *tls.SessionState) ([]byte, error) {
		s.Extra = append(s.Extra, []byte(ticketLabel+normalName(cs.ServerName)))
		return c.EncryptTicket(cs, s)
	}
	c.UnwrapSession = func(identity []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		s, err := c.DecryptTicket(identity, cs)
		if s == nil || err != nil || !madeFor(s, normalName(cs.ServerName)) {
			return nil, err
		}
		return s, nil
	}
	return c
}

const ticketLabel = "fairlead server name: "

// madeFor reports whether a session was made for a server name.
func madeFor(s *tls.SessionState, name string) bool {
	for _, extra := range s.Extra {
		if made, ok := strings.CutPrefix(string(extra), ticketLabel); ok {
			return made == name
		}
	}
	return false
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
