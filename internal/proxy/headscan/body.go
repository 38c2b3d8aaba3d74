package headscan

const (
	maxChunkDigits = 15       // of a chunk size: 60 bits
	maxChunkLine   = 1 << 10  // bytes of a chunk size with its extensions
	maxTrailers    = 4000     // bytes of all trailers; net/http must hold them in a buffer of 4 KiB
	maxExcess      = 16 << 10 // bytes of overhead beyond 16 for each chunk and twice its data, as in net/http
)

// scanBody reads the body in p from i on, up to its end or the end of p.
func (s *Scanner) scanBody(p []byte, i int) (int, *Fault) {
	for i < len(p) {
		var f *Fault
		if i, f = s.advanceBody(p, i); f != nil || s.step == stepStart {
			return i, f
		}
	}
	return i, nil
}

func (s *Scanner) advanceBody(p []byte, i int) (int, *Fault) {
	switch s.step {
	case stepFixed, stepChunkData:
		return s.skipData(p, i), nil
	case stepChunkSize:
		return s.chunkSize(p, i)
	case stepChunkMore:
		return s.chunkMore(p, i)
	case stepChunkExt:
		return s.chunkExt(p, i)
	case stepChunkLF:
		return s.chunkLF(p, i)
	case stepChunkEndCR:
		return s.expect(p, i, '\r', stepChunkEndLF, faultChunkEnd)
	case stepChunkEndLF:
		return s.expect(p, i, '\n', stepChunkSize, faultChunkEnd)
	case stepEndLF:
		if p[i] != '\n' {
			return i, faultTrailer
		}
		s.end()
		return i + 1, nil
	}
	return s.trailer(p, i)
}

func (s *Scanner) expect(p []byte, i int, want byte, next step, f *Fault) (int, *Fault) {
	if p[i] != want {
		return i, f
	}
	s.step = next
	return i + 1, nil
}

// skipData reads bytes whose number is known.
func (s *Scanner) skipData(p []byte, i int) int {
	n := min(s.remaining, uint64(len(p)-i)) //nolint:gosec // i is at most len(p)
	s.remaining -= n
	if s.remaining == 0 {
		if s.step == stepFixed {
			s.end()
		} else {
			s.step = stepChunkEndCR
		}
	}
	return i + int(n) //nolint:gosec // n is at most len(p)-i
}

// chunkSize reads the first digit of a chunk size.
func (s *Scanner) chunkSize(p []byte, i int) (int, *Fault) {
	d := unhex(p[i])
	if d < 0 {
		return i, faultChunkSize
	}
	s.remaining, s.lineBytes = uint64(d), 1
	s.step = stepChunkMore
	return i + 1, nil
}

func (s *Scanner) chunkMore(p []byte, i int) (int, *Fault) {
	switch b := p[i]; b {
	case '\r':
		s.step = stepChunkLF
	case '\n':
		return i, faultChunkLF
	case ';':
		s.lineBytes++
		s.step = stepChunkExt
	default:
		d := unhex(b)
		if d < 0 {
			return i, faultChunkSize
		}
		if s.lineBytes == maxChunkDigits {
			return i, faultChunkTooLarge
		}
		s.remaining = s.remaining<<4 | uint64(d)
		s.lineBytes++
	}
	return i + 1, nil
}

// chunkExt skips the extensions of a chunk: net/http drops them.
func (s *Scanner) chunkExt(p []byte, i int) (int, *Fault) {
	from := i
	i = skipText(p, i)
	if s.lineBytes += i - from; s.lineBytes > maxChunkLine {
		return i, faultChunkLine
	}
	if i == len(p) {
		return i, nil
	}
	switch p[i] {
	case '\r':
		s.step = stepChunkLF
		return i + 1, nil
	case '\n':
		return i, faultChunkLF
	}
	return i, faultChunkExt
}

// chunkLF reads the LF of a chunk size line.
func (s *Scanner) chunkLF(p []byte, i int) (int, *Fault) {
	if p[i] != '\n' {
		return i, faultChunkCR
	}
	s.excess += int64(s.lineBytes) + 2
	s.excess = max(s.excess-16-2*int64(s.remaining), 0) //nolint:gosec // remaining is below 1<<60
	if s.excess > maxExcess {
		return i, faultChunkExcess
	}
	if s.remaining > 0 {
		s.step = stepChunkData
	} else {
		s.step, s.lineBytes = stepTrailerLine, 0
	}
	return i + 1, nil
}

// trailer reads on in the trailers. Their content is not looked at: what may be forwarded is decided by name, elsewhere.
func (s *Scanner) trailer(p []byte, i int) (int, *Fault) {
	from, step := i, s.step
	var f *Fault
	switch step {
	case stepTrailerLine:
		i, f = s.trailerLine(p, i)
	case stepTrailerName:
		i, f = s.trailerName(p, i)
	case stepTrailerValue:
		if i = skipText(p, i); i < len(p) {
			i, f = s.expect(p, i, '\r', stepTrailerLF, faultTrailer)
		}
	default:
		i, f = s.expect(p, i, '\n', stepTrailerLine, faultTrailer)
	}
	if s.lineBytes += i - from; s.lineBytes > maxTrailers && f == nil {
		s.step = step
		return from, faultTrailerSize
	}
	return i, f
}

func (s *Scanner) trailerLine(p []byte, i int) (int, *Fault) {
	switch b := p[i]; {
	case b == '\r':
		s.step = stepEndLF
	case space(b):
		return i, faultTrailerFold
	case !token[b]:
		return i, faultTrailer
	default:
		s.step = stepTrailerName
	}
	return i + 1, nil
}

func (s *Scanner) trailerName(p []byte, i int) (int, *Fault) {
	for i < len(p) && token[p[i]] {
		i++
	}
	if i == len(p) {
		return i, nil
	}
	return s.expect(p, i, ':', stepTrailerValue, faultTrailer)
}

// Spoil returns bytes that a reader of this body cannot take for anything but a fault, to be passed on in the place of those that were not, after a Fault in a body.
// net/http's server has to find the fault itself: an error of the connection means to it that the client is gone, and it cancels the request.
func (s *Scanner) Spoil() string {
	switch s.step {
	case stepChunkEndCR, stepChunkEndLF:
		return "xx" // where CR LF must be
	case stepTrailerLine:
		return ":\r\n\r\n" // a field without a name
	case stepTrailerName, stepTrailerValue:
		return "\r\n:\r\n\r\n"
	case stepTrailerLF:
		return "\n:\r\n\r\n"
	case stepEndLF:
		return "x\r\n\r\n" // a field without a colon
	}
	return "x\n" // a chunk size that ends in LF without CR
}
