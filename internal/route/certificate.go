package route

// Certificate says which certificates answer TLS handshakes on a bind for the names that match Hostname. Several may exist for a bind; the most specific
// Hostname wins, exact before wildcard before any. The wildcard stands for any number of labels when it comes from a listener and for one label otherwise.
type Certificate struct {
	Bind     Bind
	Hostname string // "", "a.example.com" or "*.example.com"; lower case
	// Pairs are the usable certificates, in the order in which the user named them; several allow for several key types. Empty: a self-signed certificate is
	// presented, because what the user named is missing or broken.
	Pairs  []KeyPair
	Source Source
}

// KeyPair is a certificate chain with its private key, both PEM, and the Secret that they came from. The compiler has checked that they belong together.
type KeyPair struct {
	Namespace, Name string
	Chain, Key      []byte
}
