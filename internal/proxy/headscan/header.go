package headscan

// field is a header that the scanner has to understand; values are bits, so that they can be put in a set.
type field uint8

const (
	fieldHost field = 1 << iota
	fieldLength
	fieldCoding
	fieldTrailer
	fieldExpect
)

// fieldOf returns the field with this name, 0 for all others.
func fieldOf(name []byte) field {
	switch len(name) {
	case 4:
		return matches(name, "host", fieldHost)
	case 6:
		return matches(name, "expect", fieldExpect)
	case 7:
		return matches(name, "trailer", fieldTrailer)
	case 14:
		return matches(name, "content-length", fieldLength)
	case 17:
		return matches(name, "transfer-encoding", fieldCoding)
	}
	return 0
}

func matches(name []byte, want string, f field) field {
	if equalFold(name, want) {
		return f
	}
	return 0
}

// keep remembers a piece of an element that goes on in the next call of Scan. The length counts on when the place is full.
func (s *Scanner) keep(p []byte) {
	if s.length < maxPart {
		copy(s.part[s.length:], p)
	}
	s.length += len(p)
}

// whole returns the element whose last piece is p: p itself, unless other pieces were kept before. It may be cut to more than maxPart bytes of which the rest is
// meaningless.
func (s *Scanner) whole(p []byte) (element []byte, fits bool) {
	if s.length == 0 {
		return p, len(p) <= maxPart
	}
	s.keep(p)
	return s.part[:min(s.length, maxPart)], s.length <= maxPart
}

// scanLine reads the first byte of a line.
func (s *Scanner) scanLine(p []byte, i int) (int, *Fault) {
	switch b := p[i]; {
	case b == '\r':
		s.step = stepHeadLF
		return i + 1, nil
	case b == '\n':
		return i, faultBareLF
	case space(b):
		return i, faultFold
	}
	if s.headers++; s.headers > s.limits.Headers {
		return i, faultHeaders
	}
	s.step, s.length = stepName, 0
	return i, nil
}

func (s *Scanner) scanName(p []byte, i int) (int, *Fault) {
	from := i
	for i < len(p) && token[p[i]] {
		i++
	}
	if i == len(p) {
		s.keep(p[from:i])
		return i, nil
	}
	name, _ := s.whole(p[from:i])
	if p[i] != ':' || len(name) == 0 {
		return i, faultName
	}
	s.field, s.length = fieldOf(name), 0
	s.step = stepSpace
	return i + 1, nil
}

func (s *Scanner) scanSpace(p []byte, i int) (int, *Fault) {
	for i < len(p) && space(p[i]) {
		i++
	}
	if i < len(p) {
		s.step = stepValue
	}
	return i, nil
}

func (s *Scanner) scanValue(p []byte, i int) (int, *Fault) {
	from := i
	i = skipText(p, i)
	if i == len(p) {
		if s.field != 0 {
			s.keep(p[from:i])
		}
		return i, nil
	}
	if p[i] == '\n' {
		return i, faultBareLF
	}
	if p[i] != '\r' {
		return i, faultValue
	}
	if s.field != 0 {
		if f := s.header(s.whole(p[from:i])); f != nil {
			return i, f
		}
	}
	s.step = stepLF
	return i + 1, nil
}

// skipText returns the index of the first control character in p from i on that is not a tab.
func skipText(p []byte, i int) int {
	for {
		i += control(p[i:])
		if i == len(p) || p[i] != '\t' {
			return i
		}
		i++
	}
}

// scanLF reads the LF of a line.
func (s *Scanner) scanLF(p []byte, i int) (int, *Fault) {
	if p[i] != '\n' {
		return i, faultBareCR
	}
	if s.step == stepHeadLF {
		return i + 1, s.endHead()
	}
	s.step = stepLine
	return i + 1, nil
}

// header takes the value of a header that matters here. All of them are short: one that does not fit is wrong, whatever it says.
func (s *Scanner) header(v []byte, fits bool) *Fault {
	if !fits {
		return longFault(s.field)
	}
	for len(v) > 0 && space(v[len(v)-1]) {
		v = v[:len(v)-1]
	}
	again := s.seen&s.field != 0
	s.seen |= s.field
	switch s.field {
	case fieldHost:
		return s.hostHeader(v, again)
	case fieldLength:
		return s.lengthHeader(v, again)
	case fieldCoding:
		if again {
			return faultCodingTwice
		}
		if !equalFold(v, "chunked") {
			return faultCoding
		}
	case fieldTrailer:
		if !validTrailers(v) {
			return faultTrailerName
		}
	case fieldExpect:
		if again || !equalFold(v, "100-continue") {
			return faultExpect
		}
	}
	return nil
}

func longFault(f field) *Fault {
	switch f {
	case fieldHost:
		return faultHost
	case fieldLength:
		return faultLength
	case fieldCoding:
		return faultCoding
	case fieldTrailer:
		return faultTrailerName
	}
	return faultExpect
}

func (s *Scanner) hostHeader(v []byte, again bool) *Fault {
	switch {
	case again:
		return faultHostTwice
	case !validHost(v):
		return faultHost
	case s.authority != nil && !sameHost(s.authority, v):
		return faultHostMismatch
	}
	return nil
}

func (s *Scanner) lengthHeader(v []byte, again bool) *Fault {
	if again {
		return faultLengthTwice
	}
	if len(v) == 0 || len(v) > 18 {
		return faultLength
	}
	s.remaining = 0
	for _, b := range v {
		if !digit(b) {
			return faultLength
		}
		s.remaining = s.remaining*10 + uint64(b-'0')
	}
	return nil
}

// validTrailers reports whether none of the announced trailer fields would change the framing of the message.
func validTrailers(v []byte) bool {
	for len(v) > 0 {
		end := 0
		for end < len(v) && v[end] != ',' {
			end++
		}
		name := v[:end]
		v = v[min(end+1, len(v)):]
		for len(name) > 0 && space(name[0]) {
			name = name[1:]
		}
		for len(name) > 0 && space(name[len(name)-1]) {
			name = name[:len(name)-1]
		}
		if equalFold(name, "trailer") || fieldOf(name)&(fieldLength|fieldCoding) != 0 {
			return false
		}
	}
	return true
}

// endHead decides what follows the head.
func (s *Scanner) endHead() *Fault {
	if s.seen&fieldHost == 0 {
		return faultHostMissing
	}
	if s.seen&fieldCoding != 0 {
		if s.seen&fieldLength != 0 {
			return faultCodingLength
		}
		if s.version0 {
			return faultCodingVersion
		}
		s.step = stepChunkSize
		return nil
	}
	if s.seen&fieldLength != 0 && s.remaining > 0 {
		s.step = stepFixed
		return nil
	}
	s.end()
	return nil
}

// end is reached at the end of each message.
func (s *Scanner) end() {
	s.step = stepStart
	s.posted = s.method == methodPOST
}
