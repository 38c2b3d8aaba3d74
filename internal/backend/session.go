package backend

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// A session names its endpoint by a keyed hash of the address. Every replica that has the key can tell which of its endpoints that is, now or after a restart, without
// having heard of the session; who has not cannot find the address out, not even by trying all of them. Where sessions end after a time, the name is followed by the
// moment at which it began and a keyed hash of both.
//
// The key is Options.SessionKey or, without one, the secret of the pool: what the compiler gives is known to whoever may read the Service, and those may read the
// addresses as well. Without either it is made up when the process starts.

// name is how a session calls an endpoint.
type name [16]byte

const (
	sealSize   = 8
	stampedLen = len(name{}) + 4 + sealSize
)

// keys are the keys of a pool, one for each purpose, and the hasher, which has one for its seed.
type keys struct {
	names, seals []byte
	hasher       hasher
}

// newKeys makes the keys. The caller holds p.mu, or nobody has the pool yet.
func (p *Pool) newKeys() *keys {
	root := p.set.opt.SessionKey
	if len(root) == 0 {
		root = []byte(p.secret)
	}
	// Nobody loses a session by a seed that is known, and keys should stay where they are when the process starts again.
	k := &keys{hasher: hasher(binary.BigEndian.Uint64(keyedHash(root, "hash", p.secret, p.key.String())))}
	if len(root) == 0 {
		root = p.set.random
	}
	k.names, k.seals = keyedHash(root, "names", p.secret, p.key.String()), keyedHash(root, "seals", p.secret, p.key.String())
	return k
}

// keyedHash returns the keyed hash of some texts.
func keyedHash(key []byte, texts ...string) []byte {
	h := hmac.New(sha256.New, key)
	for _, text := range texts {
		_, _ = fmt.Fprintf(h, "%d:%s", len(text), text)
	}
	return h.Sum(nil)
}

// nameOf returns the name of an endpoint of the pool.
func (p *Pool) nameOf(e *endpoint) name {
	e.named.Do(func() { copy(e.name[:], keyedHash(p.keys.Load().names, e.address)) })
	return e.name
}

// names returns the endpoints by their names.
func (p *Pool) names(all []*endpoint) map[name]*endpoint {
	out := make(map[name]*endpoint, len(all))
	for _, e := range all {
		out[p.nameOf(e)] = e
	}
	return out
}

// seal is what proves that a session began when it says.
func (p *Pool) seal(stamped []byte) []byte {
	return keyedHash(p.keys.Load().seals, string(stamped))[:sealSize]
}

// token names an endpoint for a client that it has just answered for the first time.
func (p *Pool) token(e *endpoint, s *route.Persistence, now time.Time) string {
	id := p.nameOf(e)
	text := id[:]
	if s.Lifetime > 0 {
		text = binary.BigEndian.AppendUint32(text, uint32(now.Unix())) // #nosec G115 -- until 2106
		text = append(text, p.seal(text)...)
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

// session returns the endpoint that a token names, if it is one of the pool's, whether it may be used now or not; nil if it names none, was tampered with, or its session
// has ended.
func (p *Pool) session(token string, s *route.Persistence, now time.Time) *endpoint {
	var buf [stampedLen]byte
	if base64.RawURLEncoding.DecodedLen(len(token)) > len(buf) {
		return nil
	}
	n, err := base64.RawURLEncoding.Decode(buf[:], []byte(token))
	if err != nil || n != len(name{}) && n != stampedLen {
		return nil
	}
	if s.Lifetime > 0 {
		stamped := buf[:stampedLen-sealSize]
		if n != stampedLen || !hmac.Equal(p.seal(stamped), buf[len(stamped):]) {
			return nil
		}
		began := time.Unix(int64(binary.BigEndian.Uint32(buf[len(name{}):])), 0)
		if age := now.Sub(began); age >= s.Lifetime || age < -time.Minute { // replicas' clocks differ a little
			return nil
		}
	}
	return p.list.Load().names()[name(buf[:len(name{})])]
}

// Holds reports whether a token names an endpoint of the pool that can have the requests of its session. Between several pools of one rule it decides which one is asked.
func (p *Pool) Holds(token string, s *route.Persistence) bool {
	e := p.session(token, s, p.set.opt.Now())
	return e != nil && !e.aside.Load()
}
