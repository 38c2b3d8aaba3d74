package proxy

import (
	"errors"
	"fmt"
)

// maxHello is how long a ClientHello may be, with the headers of the records that it comes in. Those of browsers have less than 2 KiB, with keys for post-quantum
// algorithms too.
const maxHello = 16 << 10

// errHello says why the beginning of a connection is no ClientHello.
type helloError struct{ what string }

func (e *helloError) Error() string { return "read ClientHello: " + e.what }

func helloErrorf(format string, args ...any) error { return &helloError{fmt.Sprintf(format, args...)} }

// errNoTLS says that the client does not speak TLS at all.
var errNoTLS = errors.New("read ClientHello: this is not TLS")

// parseHello reads the server name in the ClientHello that a connection begins with (RFC 8446, section 4.1.2; RFC 6066, section 3). It is "" when the client names
// none. done is false while there is more to come: b then holds the beginning of something that may become a ClientHello.
//
// It is strict where two readers could take two names from one message: a second server name, or lengths that do not add up, is an error. What it has no use for it
// does not look at, such as the values that clients send to keep servers from depending on what they know (RFC 8701).
func parseHello(b []byte) (name string, done bool, err error) {
	message, err := handshakeMessage(b)
	if err != nil || message == nil {
		return "", false, err
	}
	name, err = helloName(message)
	return name, err == nil, err
}

const (
	recordHeader    = 5
	handshakeHeader = 4
	maxFragment     = 1 << 14
	clientHello     = 1
)

// handshakeMessage returns the body of the ClientHello in b, which may be spread over several records; nil if it is not complete. It allocates only if it is
// spread.
func handshakeMessage(b []byte) (message []byte, err error) {
	for len(b) > 0 {
		switch {
		case b[0] != tlsHandshake || len(b) > 1 && b[1] != 3:
			return nil, errNoTLS
		case len(b) < recordHeader:
			return nil, nil
		}
		length := int(b[3])<<8 | int(b[4])
		if length == 0 || length > maxFragment {
			return nil, helloErrorf("a record of %d bytes", length)
		}
		end := min(len(b), recordHeader+length)
		fragment := b[recordHeader:end:end]
		if message == nil {
			message = fragment
		} else {
			message = append(message, fragment...)
		}
		if whole, err := wholeMessage(message); whole != nil || err != nil {
			return whole, err
		}
		b = b[end:]
	}
	return nil, nil
}

// wholeMessage returns the body of the message that m begins with, nil if that is not complete.
func wholeMessage(m []byte) ([]byte, error) {
	if len(m) > 0 && m[0] != clientHello {
		return nil, helloErrorf("a handshake message of type %d comes first", m[0])
	}
	if len(m) < handshakeHeader {
		return nil, nil
	}
	length := int(m[1])<<16 | int(m[2])<<8 | int(m[3])
	if length > maxHello {
		return nil, helloErrorf("it has %d bytes", length)
	}
	if len(m) < handshakeHeader+length {
		return nil, nil
	}
	return m[handshakeHeader : handshakeHeader+length], nil
}

// helloName returns the server name in the body of a ClientHello.
func helloName(body []byte) (name string, err error) {
	named := false
	ok := eachExtension(body, func(kind int, value []byte) {
		if kind != 0 || err != nil {
			return
		}
		if named {
			name, err = "", helloErrorf("it names the server twice")
			return
		}
		named = true
		name, err = serverName(value)
	})
	if err == nil && !ok {
		err = helloErrorf("lengths in it do not add up")
	}
	if err != nil {
		return "", err
	}
	return name, nil
}

// eachExtension calls f for the extensions in the body of a ClientHello, in turn, up to one that is cut off. It reports whether all lengths add up.
func eachExtension(body []byte, f func(kind int, value []byte)) (ok bool) {
	r := fields{rest: body}
	r.skip(2 + 32)               // version, random
	r.vector(1)                  // session
	r.vector(2)                  // cipher suites
	r.vector(1)                  // compression methods
	if !r.bad && r.rest == nil { // there were no extensions before TLS 1.2, and need not be any now
		return true
	}
	extensions := fields{rest: r.vector(2), bad: r.bad || len(r.rest) > 0}
	for len(extensions.rest) > 0 && !extensions.bad {
		kind, value := extensions.number(2), extensions.vector(2)
		if !extensions.bad {
			f(kind, value)
		}
	}
	return !extensions.bad
}

// extensionALPN is the extension in which a client says what it would speak over TLS (RFC 7301).
const extensionALPN = 16

// helloProtocols returns what a client would speak, in a ClientHello of which parseHello has read all; nil if it does not say, or says so twice.
func helloProtocols(b []byte) (protocols []string) {
	message, _ := handshakeMessage(b)
	seen := false
	eachExtension(message, func(kind int, value []byte) {
		if kind != extensionALPN {
			return
		}
		r := fields{rest: value}
		list := fields{rest: r.vector(2)}
		for len(list.rest) > 0 && !seen {
			protocols = append(protocols, string(list.vector(1)))
		}
		if seen || list.bad || len(r.rest) > 0 {
			protocols = nil
		}
		seen = true
	})
	return protocols
}

// serverName reads the value of the extension server_name.
func serverName(value []byte) (string, error) {
	r := fields{rest: value}
	list := fields{rest: r.vector(2), bad: r.bad || len(r.rest) > 0}
	kind, name := list.number(1), list.vector(2)
	switch {
	case list.bad || len(list.rest) > 0 || kind != 0:
		return "", helloErrorf("its list of server names is not one host name")
	case len(name) == 0 || len(name) > 255:
		return "", helloErrorf("it has a server name of %d bytes", len(name))
	}
	return normalName(string(name)), nil
}

// fields reads what a message consists of. Once something is missing, bad is set and all that follows is empty. rest is nil at the end.
type fields struct {
	rest []byte
	bad  bool
}

func (r *fields) skip(n int) []byte {
	if r.bad || n > len(r.rest) {
		r.rest, r.bad = nil, true
		return nil
	}
	b := r.rest[:n]
	if r.rest = r.rest[n:]; len(r.rest) == 0 {
		r.rest = nil
	}
	return b
}

// number reads a number of n bytes.
func (r *fields) number(n int) (v int) {
	for _, b := range r.skip(n) {
		v = v<<8 | int(b)
	}
	return v
}

// vector reads what a length of n bytes stands before.
func (r *fields) vector(n int) []byte { return r.skip(r.number(n)) }
