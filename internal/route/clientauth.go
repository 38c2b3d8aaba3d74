package route

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// ClientAuth says what certificates the clients of a listener must have.
type ClientAuth struct {
	// Authorities are PEM certificates, one of which must have issued the client's, directly or not. Empty: nobody has such a certificate.
	Authorities []byte
	From        []string // where they came from, for people
	// Optional says that clients are asked for a certificate and let in with any, or with none: to judge it is left to the backend.
	Optional bool
	Source   Source // who demands it
}

// Equal tells whether who met a meets o.
func (a *ClientAuth) Equal(o *ClientAuth) bool {
	if a == nil || o == nil || a == o {
		return a == o
	}
	return a.Optional == o.Optional && bytes.Equal(a.Authorities, o.Authorities)
}

// Digest is a short text that two demands share only if they are equal; "" for nil.
func (a *ClientAuth) Digest() string {
	if a == nil {
		return ""
	}
	sum := sha256.Sum256(a.Authorities)
	digest := hex.EncodeToString(sum[:])
	if a.Optional {
		digest += " optional"
	}
	return digest
}

// String returns what the line of a listener says about it; "" for nil.
func (a *ClientAuth) String() string {
	if a == nil {
		return ""
	}
	mode := "verified"
	if a.Optional {
		mode = "asked-for"
	}
	return "client-certificates=" + mode + " by=" + word(strings.Join(a.From, ","), "")
}
