package route

import (
	"bytes"
	"slices"
	"strings"
)

// PoolTLS says who the endpoints of a pool have to be. Without one, endpoints that speak TLS are not verified.
type PoolTLS struct {
	// ServerName is asked for as SNI. The certificate must be for it, unless Names or URIs say otherwise.
	ServerName string
	// Names and URIs are subject alternative names, of which the certificate must have one. A name "*.example.com" stands for every name below example.com.
	Names, URIs []string
	// Authorities are PEM certificates, one of which must have issued the endpoint's, directly or not. Empty: the authorities that the system trusts.
	Authorities []byte
	From        []string // where they came from, for people
	// Client is presented to endpoints that ask for a certificate; nil: none.
	Client *KeyPair
	// Broken says why no endpoint can be verified, and then no request is sent to one: nobody must get what was meant for somebody in particular. "" if it is
	// all right.
	Broken string
	Source Source // who demands it
}

// Equal tells whether connections that were made under t are as good under o.
func (t *PoolTLS) Equal(o *PoolTLS) bool {
	if t == nil || o == nil || t == o {
		return t == o
	}
	return t.ServerName == o.ServerName && slices.Equal(t.Names, o.Names) && slices.Equal(t.URIs, o.URIs) && bytes.Equal(t.Authorities, o.Authorities) &&
		t.Client.equal(o.Client) && (t.Broken == "") == (o.Broken == "")
}

// equal tells whether two pairs, which may be nil, are the same certificate and key.
func (k *KeyPair) equal(o *KeyPair) bool {
	if k == nil || o == nil || k == o {
		return k == o
	}
	return bytes.Equal(k.Chain, o.Chain) && bytes.Equal(k.Key, o.Key)
}

// String returns what the line of a pool says about it; "" for nil.
func (t *PoolTLS) String() string {
	if t == nil {
		return ""
	}
	words := []string{"verify " + word(t.ServerName, "")}
	if t.Broken != "" {
		words[0] = "refuse " + word(t.ServerName, "")
	}
	var names []string
	for _, n := range t.Names {
		names = append(names, "dns:"+n)
	}
	for _, u := range t.URIs {
		names = append(names, "uri:"+u)
	}
	if len(names) > 0 {
		words = append(words, "as="+word(strings.Join(names, ","), ""))
	}
	if len(t.From) > 0 {
		words = append(words, "by="+word(strings.Join(t.From, ","), ""))
	}
	if t.Client != nil {
		words = append(words, "client="+word(t.Client.Namespace+"/"+t.Client.Name, ""))
	}
	return strings.Join(append(words, t.demander()+word(t.Source.object(), "")), " ")
}

// demander is the word for who demands it: the backend itself, or a policy about it.
func (t *PoolTLS) demander() string {
	if t.Source.Kind == "XBackend" {
		return "backend="
	}
	return "policy="
}
