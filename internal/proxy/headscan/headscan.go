// Package headscan follows the bytes that a client sends on an HTTP/1 connection and says, before an HTTP server acts on them, whether they are a request that
// can be understood in one way only.
//
// A lenient server hides from its handlers what a proxy must know: that Content-Length and Transfer-Encoding were both there, that lines ended in a bare LF, that
// a header was folded. Each of those is read differently by some server behind the proxy, which is how requests are smuggled. The Scanner refuses them all
// (RFC 9110, RFC 9112 and RFC 3986 wherever they say MUST or SHOULD), and it is never more lenient than net/http: what it accepts, net/http reads to the same
// method, target, host and body.
//
// The package does no input or output. A Scanner allocates only for a request target in absolute form and for an IPv6 host.
package headscan

import (
	"github.com/fairlead-io/fairlead/internal/route"
)

// Limits bound the head of a request. Zero means the default in the comment.
type Limits struct {
	HeadBytes   int // request line and headers, line ends included: 64 KiB
	Headers     int // 128
	TargetBytes int // request target, 16 KiB
}

func (l Limits) withDefaults() Limits {
	if l.HeadBytes == 0 {
		l.HeadBytes = 64 << 10
	}
	if l.Headers == 0 {
		l.Headers = 128
	}
	if l.TargetBytes == 0 {
		l.TargetBytes = 16 << 10
	}
	return l
}

// Fault says what is wrong with a request, and how to answer it. Faults are constants: compare them by pointer, do not change them.
type Fault struct {
	Status int
	Reason route.Reason
	Why    string // in words, for logs
	// InBody says that the head was in order, and may have been acted on already.
	InBody bool
}

// Error makes a Fault an error.
func (f *Fault) Error() string { return f.Why }

// ClientFault reports true: the client sent something wrong, and nobody else is to blame.
func (f *Fault) ClientFault() bool { return true }

// Scanner is the state of one connection: the place in the current message, and what is known of it. The zero value uses the default Limits.
// It must not be used concurrently, nor copied after its first use.
type Scanner struct {
	limits Limits
	step   step // what the next byte belongs to
	fault  *Fault
	size   int // of the head, up to the current call of Scan

	// The current line. What a line needs to remember from an earlier call of Scan is in part.
	count  int    // bytes of the current element: method, target, name
	word   uint64 // the last eight bytes of a short element
	escape uint8  // hexadecimal digits that a percent sign still wants
	field  field  // the header whose value comes
	length int    // bytes in part
	part   [maxPart]byte

	// The current message.
	posted    bool // the message before this one was a POST: one empty line may follow it
	method    uint64
	form      form
	authority []byte // of a target in absolute form
	version0  bool   // HTTP/1.0
	headers   int
	seen      field // the fields that occurred, as a set

	// The body.
	remaining uint64 // bytes of it, or of the current chunk
	lineBytes int    // of the current chunk line or the trailers
	excess    int64  // bytes of chunk lines beyond what the data justifies
}

const (
	maxHost   = 260 // 253 for the name, one for a final dot, six for the port
	maxPart   = maxHost + 4
	maxMethod = 32
)

// New returns a Scanner for a new connection.
func New(l Limits) *Scanner { return &Scanner{limits: l.withDefaults()} }

// AtStart reports whether nothing of the next message was seen yet.
func (s *Scanner) AtStart() bool { return s.step == stepStart }

// InBody reports whether the head of the current message is complete and its body is not.
func (s *Scanner) InBody() bool { return s.step >= stepFixed }

// InFixedBody reports whether the next byte belongs to a body whose length was declared.
func (s *Scanner) InFixedBody() bool { return s.step == stepFixed }

// Scan looks at the next bytes from the client and returns how many of them may be acted on. With a nil Fault these are all of them, or those up to the end of the
// message: the rest must be given to Scan again. With a Fault in the head they are none, with a Fault in a body those before the fault. After a Fault each
// further call returns the same Fault: nothing on this connection can be trusted.
func (s *Scanner) Scan(p []byte) (n int, f *Fault) {
	if s.fault != nil {
		return 0, s.fault
	}
	if s.limits.HeadBytes == 0 {
		s.limits = s.limits.withDefaults()
	}
	i := 0
	if s.step < stepFixed {
		i, f = s.scanHead(p)
		if f != nil {
			s.fault = f
			return 0, f
		}
	}
	if s.step >= stepFixed {
		i, f = s.scanBody(p, i)
		s.fault = f
	}
	return i, f
}

// scanHead reads p up to the end of the head or of p, and returns how far it came.
func (s *Scanner) scanHead(p []byte) (i int, f *Fault) {
	for i < len(p) && s.step < stepFixed {
		if i, f = s.advance(p, i); f != nil {
			break
		}
		if s.step == stepStart { // a message without a body has ended, or an empty line was skipped
			break
		}
	}
	s.size += i
	if f == nil && s.size > s.limits.HeadBytes {
		f = faultHeadSize
	}
	if s.step == stepStart || s.step >= stepFixed {
		s.size = 0
	}
	return i, f
}

// advance reads on from p[i] in the element that s.step names, at least one byte.
func (s *Scanner) advance(p []byte, i int) (int, *Fault) {
	switch s.step {
	case stepStart:
		return s.start(p, i)
	case stepBlankLF:
		return s.blankLF(p, i)
	case stepMethod:
		return s.scanMethod(p, i)
	case stepTarget:
		return s.scanTarget(p, i)
	case stepVersion:
		return s.scanVersion(p, i)
	case stepLine:
		return s.scanLine(p, i)
	case stepName:
		return s.scanName(p, i)
	case stepSpace:
		return s.scanSpace(p, i)
	case stepValue:
		return s.scanValue(p, i)
	}
	return s.scanLF(p, i)
}
