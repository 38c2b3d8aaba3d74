package backend

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/fairlead-io/fairlead/internal/route"
)

// verification is what endpoints of a pool have to prove, ready for use. It is immutable. Nil: nothing.
type verification struct {
	*route.PoolTLS
	base    *tls.Config
	refused error // no endpoint can prove it
}

func newVerification(t *route.PoolTLS) *verification {
	if t == nil {
		return nil
	}
	v := &verification{PoolTLS: t, base: &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}}
	if len(t.Authorities) > 0 {
		v.base.RootCAs = x509.NewCertPool()
		if !v.base.RootCAs.AppendCertsFromPEM(t.Authorities) {
			v.refused = errors.New("the endpoints cannot be verified: no certificate of an authority can be read")
		}
	}
	if len(t.Names)+len(t.URIs) > 0 {
		// crypto/tls knows one name only.
		v.base.InsecureSkipVerify = true // #nosec G402 -- the next line does it
		v.base.VerifyConnection = v.check
	}
	if t.Client != nil {
		pair, err := tls.X509KeyPair(t.Client.Chain, t.Client.Key)
		if err != nil {
			v.refused = fmt.Errorf("the client certificate %s/%s cannot be used: %w", t.Client.Namespace, t.Client.Name, err)
		}
		// Not Certificates, of which crypto/tls presents none when the endpoint did not name its authority: the endpoint can judge that best.
		v.base.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	if t.Broken != "" {
		v.refused = errors.New("the endpoints cannot be verified: " + t.Broken)
	}
	return v
}

// is tells whether v is what t asks for.
func (v *verification) is(t *route.PoolTLS) bool {
	if v == nil {
		return t == nil
	}
	return v.Equal(t)
}

// refusal says why no endpoint may be connected to.
func (v *verification) refusal() error {
	if v == nil {
		return nil
	}
	return v.refused
}

// config returns the configuration for connections to one endpoint. It is the caller's.
//
// Without a verification the certificate is not looked at. A Service whose port says appProtocol: https tells that its pods speak TLS, but nobody has said which
// name or which authority their certificate should have, and pods usually have one that they made themselves. What it gives is what it gives in all proxies that
// do this: the traffic cannot be read by somebody who only listens. The server name that is asked for is then the host of the request.
func (v *verification) config() *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true} // #nosec G402 -- see above
	if v != nil {
		c = v.base.Clone()
	}
	c.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	return c
}

// check verifies the certificate of a connection, also of one that is resumed, by its alternative names.
func (v *verification) check(s tls.ConnectionState) error {
	leaf := s.PeerCertificates[0]
	opts := x509.VerifyOptions{Roots: v.base.RootCAs, Intermediates: x509.NewCertPool()}
	for _, c := range s.PeerCertificates[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := leaf.Verify(opts); err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: s.PeerCertificates, Err: err}
	}
	if slices.ContainsFunc(v.Names, func(n string) bool { return isFor(leaf, n) }) ||
		slices.ContainsFunc(leaf.URIs, func(u *url.URL) bool { return slices.Contains(v.URIs, u.String()) }) {
		return nil
	}
	return fmt.Errorf("the certificate has none of the names %s", strings.Join(slices.Concat(v.Names, v.URIs), ", "))
}

// isFor tells whether a certificate has a name: one that stands for it, or for a wildcard one below it.
func isFor(leaf *x509.Certificate, name string) bool {
	suffix, wild := strings.CutPrefix(name, "*")
	if !wild {
		return leaf.VerifyHostname(name) == nil
	}
	return slices.ContainsFunc(leaf.DNSNames, func(n string) bool { return strings.HasSuffix(strings.ToLower(n), suffix) })
}
