package route

import "strings"

// CertificateOrder is a certificate that should be asked for at a certificate authority, and kept up to date for as long as the order exists.
type CertificateOrder struct {
	Namespace, Name string // of the Secret that the certificate goes to, which is nobody else's; each Secret has one order at most
	// Hosts are the names that the certificate is for, lower case; a wildcard is "*." before a name. There is one at least.
	Hosts []string
	// Issuers are the names of those to ask, in order of preference. There is one at least.
	Issuers []string
	// Chain is what the Secret holds now, PEM, and Issuer who gave it. Empty: the Secret holds nothing that can be used.
	Chain  []byte
	Issuer string
	Source Source // the object that wants the certificate, and the field that names the Secret
}

// String returns the order on one line, such as "order Secret shop/tls: a.example, b.example from staging  # Ingress shop/web spec.tls[0]".
func (o CertificateOrder) String() string {
	return printable("order Secret " + o.Namespace + "/" + o.Name + ": " + strings.Join(o.Hosts, ", ") + " from " + strings.Join(o.Issuers, ", then ") +
		"  # " + o.Source.String())
}
