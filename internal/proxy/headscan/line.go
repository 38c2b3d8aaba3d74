package headscan

// step is the element of a message that the next byte belongs to.
type step uint8

const (
	stepStart   step = iota // the first byte of a message
	stepBlankLF             // LF of an empty line after a POST
	stepMethod
	stepTarget
	stepVersion
	stepLine   // the first byte of a header line, or of the empty line
	stepName   // of a header
	stepSpace  // between colon and value
	stepValue  // of a header
	stepLF     // after the CR of the request line or a header
	stepHeadLF // after the CR of the empty line

	// From here on the head is complete.

	stepFixed     // body with Content-Length
	stepChunkSize // first digit of a chunk size
	stepChunkMore // further digits
	stepChunkExt
	stepChunkLF     // after the CR of a chunk size line
	stepChunkData   // the data of a chunk
	stepChunkEndCR  // after the data
	stepChunkEndLF  //
	stepTrailerLine // the first byte of a trailer line, or of the empty line
	stepTrailerName
	stepTrailerValue
	stepTrailerLF
	stepEndLF // after the CR of the last line
)

// form is the form of a request target (RFC 9112, section 3.2), and the part of it that was reached.
type form uint8

const (
	formPath      form = iota // origin-form, in the path
	formQuery                 // behind the question mark, where percent signs and backslashes may be anything
	formStar                  // asterisk-form, complete
	formScheme                // absolute-form, up to the colon
	formSlashes               // the two slashes
	formAuthority             // up to the path
)

// The methods that are told apart, as eight bytes with leading zeros.
const (
	methodPOST    = 'P'<<24 | 'O'<<16 | 'S'<<8 | 'T'
	methodPRI     = 'P'<<16 | 'R'<<8 | 'I'
	methodCONNECT = 'C'<<48 | 'O'<<40 | 'N'<<32 | 'N'<<24 | 'E'<<16 | 'C'<<8 | 'T'
	methodOPTIONS = 'O'<<48 | 'P'<<40 | 'T'<<32 | 'I'<<24 | 'O'<<16 | 'N'<<8 | 'S'

	schemeHTTP  = 'h'<<24 | 't'<<16 | 't'<<8 | 'p'
	schemeHTTPS = schemeHTTP<<8 | 's'

	versionPrefix = 'H'<<32 | 'T'<<24 | 'T'<<16 | 'P'<<8 | '/'
	version11     = 'H'<<56 | 'T'<<48 | 'T'<<40 | 'P'<<32 | '/'<<24 | '1'<<16 | '.'<<8 | '1'
	version10     = version11 - 1
)

// start reads the first byte of a message.
func (s *Scanner) start(p []byte, i int) (int, *Fault) {
	if p[i] == '\r' && s.posted {
		s.posted = false
		s.step = stepBlankLF
		return i + 1, nil
	}
	if p[i] == '\r' || p[i] == '\n' {
		return i, faultLeadingCRLF
	}
	if !token[p[i]] {
		return i, faultMethod
	}
	s.method, s.form, s.authority, s.version0, s.headers, s.seen, s.excess = 0, formPath, nil, false, 0, 0, 0
	s.posted = false
	s.count = 0
	s.step = stepMethod
	return i, nil
}

// blankLF reads the end of the empty line that some clients send after the body of a POST (RFC 9112, section 2.2). net/http skips it too.
func (s *Scanner) blankLF(p []byte, i int) (int, *Fault) {
	if p[i] != '\n' {
		return i, faultBareCR
	}
	s.step = stepStart
	return i + 1, nil
}

func (s *Scanner) scanMethod(p []byte, i int) (int, *Fault) {
	from, method := i, s.method
	for i < len(p) && token[p[i]] {
		method = method<<8 | uint64(p[i])
		i++
	}
	s.method = method
	if s.count += i - from; s.count > maxMethod {
		return i, faultMethodLong
	}
	if i == len(p) {
		return i, nil
	}
	if p[i] != ' ' {
		return i, faultMethod
	}
	switch {
	case s.count > 8:
		s.method = 0
	case method == methodCONNECT:
		return i, faultConnect
	case method == methodPRI:
		return i, faultPreface
	}
	s.step, s.count, s.escape, s.word = stepTarget, 0, 0, 0
	return i + 1, nil
}

func (s *Scanner) scanTarget(p []byte, i int) (int, *Fault) {
	from := i
	if s.count == 0 {
		if f := s.targetForm(p[i]); f != nil {
			return i, f
		}
		i++
	}
	var f *Fault
	for i < len(p) && p[i] != ' ' && f == nil {
		f = s.targetByte(p[i])
		i++
		if s.form <= formQuery && f == nil && s.escape == 0 {
			for i < len(p) && plain[p[i]] {
				i++
			}
		}
	}
	if s.count += i - from; s.count > s.limits.TargetBytes {
		return i, faultTarget
	}
	if f != nil || i == len(p) {
		return i, f
	}
	if f = s.targetEnd(); f != nil {
		return i, f
	}
	s.step, s.count, s.word = stepVersion, 0, 0
	return i + 1, nil
}

// targetForm takes the first byte of the target.
func (s *Scanner) targetForm(b byte) *Fault {
	switch {
	case b == '/':
		s.form = formPath
	case b == '*':
		s.form = formStar
	case letter(b):
		s.form, s.word = formScheme, uint64(b|0x20)
	case b == ' ':
		return faultTargetEmpty
	case b <= ' ' || b == 0x7f:
		return faultTargetByte
	default:
		return faultTargetForm
	}
	return nil
}

// targetByte takes a further byte of the target.
func (s *Scanner) targetByte(b byte) *Fault {
	if b < ' ' || b == 0x7f {
		return faultTargetByte
	}
	if b == '#' {
		return faultFragment
	}
	switch s.form {
	case formPath:
		return s.pathByte(b)
	case formQuery:
		return nil
	case formScheme:
		return s.schemeByte(b)
	case formSlashes:
		return s.slashByte(b)
	case formAuthority:
		return s.authorityByte(b)
	}
	return faultTargetForm // more after a star
}

func (s *Scanner) pathByte(b byte) *Fault {
	switch {
	case s.escape > 0:
		if unhex(b) < 0 {
			return faultEscape
		}
		s.escape--
	case b == '%':
		s.escape = 2
	case b == '\\':
		return faultBackslash
	case b == '?':
		s.form = formQuery
	}
	return nil
}

func (s *Scanner) schemeByte(b byte) *Fault {
	switch {
	case letter(b) && s.word < 1<<32:
		s.word = s.word<<8 | uint64(b|0x20)
	case b == ':' && (s.word == schemeHTTP || s.word == schemeHTTPS):
		s.form, s.word = formSlashes, 0
	default:
		return faultTargetForm
	}
	return nil
}

func (s *Scanner) slashByte(b byte) *Fault {
	if b != '/' {
		return faultTargetForm
	}
	if s.word++; s.word == 2 {
		s.form, s.authority = formAuthority, make([]byte, 0, maxHost)
	}
	return nil
}

func (s *Scanner) authorityByte(b byte) *Fault {
	switch {
	case b == '/':
		s.form = formPath
	case b == '?':
		s.form = formQuery
	case b == '@':
		return faultUserinfo
	case len(s.authority) == maxHost:
		return faultAuthority
	default:
		s.authority = append(s.authority, b)
		return nil
	}
	if !validHost(s.authority) {
		return faultAuthority
	}
	return nil
}

// targetEnd checks a target that is complete.
func (s *Scanner) targetEnd() *Fault {
	switch s.form {
	case formScheme, formSlashes:
		return faultTargetForm
	case formAuthority:
		if !validHost(s.authority) {
			return faultAuthority
		}
	case formStar:
		if s.method != methodOPTIONS {
			return faultStar
		}
	}
	if s.escape > 0 {
		return faultEscape
	}
	return nil
}

func (s *Scanner) scanVersion(p []byte, i int) (int, *Fault) {
	for i < len(p) && p[i] != '\r' {
		if p[i] == '\n' {
			return i, faultBareLF
		}
		if s.count == 8 {
			return i, faultVersion
		}
		s.word = s.word<<8 | uint64(p[i])
		s.count++
		i++
	}
	if i == len(p) {
		return i, nil
	}
	switch s.word {
	case version11:
	case version10:
		s.version0 = true
	default:
		return i, s.versionFault()
	}
	s.step = stepLF
	return i + 1, nil
}

// versionFault tells a version that is not served from bytes that are no version.
func (s *Scanner) versionFault() *Fault {
	major, dot, minor := byte(s.word>>16), byte(s.word>>8), byte(s.word) //nolint:gosec // the bytes are what is wanted
	if s.count == 8 && s.word>>24 == versionPrefix && digit(major) && dot == '.' && digit(minor) {
		return faultVersionNo
	}
	return faultVersion
}
