package telemetry

import (
	"crypto/tls"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// line is a JSON object being written. Values are cut at limit bytes.
type line struct {
	b     []byte
	limit int
	first bool // nothing was written yet in the innermost object
}

// appendEntry appends e to b as one line.
func (l *AccessLog) appendEntry(b []byte, e *Entry) []byte {
	o := line{b: append(b, '{'), limit: l.opt.MaxValueBytes, first: true}
	o.time("ts", e.Time)
	o.text("request_id", e.RequestID)
	o.text("client_ip", e.ClientIP)
	o.text("peer_ip", e.PeerIP)
	o.text("method", e.Method)
	o.text("scheme", e.Scheme)
	o.text("host", e.Host)
	o.text("path", e.Path)
	if l.opt.RedactQuery {
		o.redacted("query", "", e.Query)
	} else {
		o.text("query", e.Query)
	}
	o.text("proto", e.Proto)
	o.answer(e)
	o.route(e)
	o.tls(e)
	o.text("user_agent", e.UserAgent)
	o.referer(e.Referer, l.opt.RedactQuery)
	o.text("reason", string(e.Reason))
	o.text("detail", e.Detail)
	return append(o.b, '}', '\n')
}

func (o *line) answer(e *Entry) {
	if !e.Passage {
		o.integer("status", int64(e.Status))
	}
	o.integer("bytes_in", e.BytesIn)
	o.integer("bytes_out", e.BytesOut)
	o.milliseconds("duration_ms", e.Duration)
	if e.BackendDuration > 0 {
		o.milliseconds("backend_ms", e.BackendDuration)
	}
	if e.FirstByte > 0 {
		o.milliseconds("ttfb_ms", e.FirstByte)
	}
}

func (o *line) route(e *Entry) {
	if e.RouteKind != "" {
		o.open("route")
		o.text("kind", e.RouteKind)
		o.text("namespace", e.RouteNamespace)
		o.text("name", e.RouteName)
		o.text("rule", e.Rule)
		o.close()
	}
	o.text("listener", e.Listener)
	o.text("backend", e.Backend)
	o.text("endpoint", e.Endpoint)
	if e.Retries > 0 {
		o.integer("retries", int64(e.Retries))
	}
}

func (o *line) tls(e *Entry) {
	if e.TLSVersion == 0 {
		return
	}
	o.open("tls")
	if v := tlsVersionText(e.TLSVersion); v != "" {
		o.text("version", v)
	} else {
		o.hex("version", e.TLSVersion)
	}
	if name, ok := cipherNames[e.TLSCipher]; ok {
		o.text("cipher", name)
	} else if e.TLSCipher != 0 {
		o.hex("cipher", e.TLSCipher)
	}
	o.text("sni", e.SNI)
	o.close()
}

// referer writes the address of the page that led here, whose query may hold secrets of another site.
func (o *line) referer(s string, redact bool) {
	page, query, found := strings.Cut(s, "?")
	if !redact || !found {
		o.text("referer", s)
		return
	}
	o.redacted("referer", page+"?", query)
}

// cipherNames is what tls.CipherSuiteName says, which allocates.
var cipherNames = func() map[uint16]string {
	names := map[uint16]string{}
	for _, list := range [][]*tls.CipherSuite{tls.CipherSuites(), tls.InsecureCipherSuites()} {
		for _, c := range list {
			names[c.ID] = c.Name
		}
	}
	return names
}()

// key begins a member of the object. Keys are constants that need no escaping.
func (o *line) key(k string) {
	if !o.first {
		o.b = append(o.b, ',')
	}
	o.first = false
	o.b = append(o.b, '"')
	o.b = append(o.b, k...)
	o.b = append(o.b, '"', ':')
}

func (o *line) open(k string) {
	o.key(k)
	o.b = append(o.b, '{')
	o.first = true
}

func (o *line) close() {
	o.b = append(o.b, '}')
	o.first = false
}

// text writes a string, and nothing if it is empty.
func (o *line) text(k, v string) {
	if v == "" {
		return
	}
	o.key(k)
	o.b = append(o.b, '"')
	o.b = appendEscaped(o.b, v, o.limit)
	o.b = append(o.b, '"')
}

func (o *line) integer(k string, n int64) {
	o.key(k)
	o.b = strconv.AppendInt(o.b, n, 10)
}

// hex writes a number of the TLS registries that has no name here.
func (o *line) hex(k string, n uint16) {
	o.key(k)
	o.b = append(o.b, '"', '0', 'x', hexDigits[n>>12], hexDigits[n>>8&15], hexDigits[n>>4&15], hexDigits[n&15], '"')
}

// milliseconds writes d with three decimals. A negative d, from a clock that went back, is written as 0.
func (o *line) milliseconds(k string, d time.Duration) {
	o.key(k)
	us := max(d.Microseconds(), 0)
	o.b = strconv.AppendInt(o.b, us/1000, 10)
	o.b = append(o.b, '.', '0'+byte(us/100%10), '0'+byte(us/10%10), '0'+byte(us%10))
}

func (o *line) time(k string, t time.Time) {
	o.key(k)
	o.b = append(o.b, '"')
	o.b = t.UTC().AppendFormat(o.b, time.RFC3339Nano)
	o.b = append(o.b, '"')
}

// redacted writes prefix and then a query with its values hidden: a=***&b=***. A parameter without a value may itself be a secret and is hidden whole.
func (o *line) redacted(k, prefix, query string) {
	if prefix == "" && query == "" {
		return
	}
	o.key(k)
	o.b = append(o.b, '"')
	o.b = appendEscaped(o.b, prefix, o.limit)
	start := len(o.b)
	for query != "" && len(o.b)-start < o.limit {
		var param string
		param, query, _ = strings.Cut(query, "&")
		name, _, found := strings.Cut(param, "=")
		if found {
			o.b = appendEscaped(o.b, name, o.limit)
			o.b = append(o.b, '=')
		}
		if found || param != "" {
			o.b = append(o.b, "***"...)
		}
		if query != "" {
			o.b = append(o.b, '&')
		}
	}
	o.b = append(o.b, '"')
}

const hexDigits = "0123456789abcdef"

// ellipsis ends a value that was cut.
const ellipsis = "…"

// appendEscaped appends s as the inside of a JSON string. A byte that is not UTF-8 becomes U+FFFD. Control characters and those that change the direction or
// the lines of text are escaped, so that nothing a client sends can disturb a terminal or look like another line. What exceeds limit bytes is cut.
func appendEscaped(b []byte, s string, limit int) []byte {
	cut := len(s) > limit
	if cut {
		s = s[:runeStart(s, limit)]
	}
	start := 0
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if !plain[c] {
				b = append(b, s[start:i]...)
				b = appendControl(b, c)
				start = i + 1
			}
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if (r == utf8.RuneError && size == 1) || disturbing(r) {
			b = append(b, s[start:i]...)
			b = appendUnicode(b, r)
			start = i + size
		}
		i += size
	}
	b = append(b, s[start:]...)
	if cut {
		b = append(b, ellipsis...)
	}
	return b
}

// runeStart returns the largest index up to limit at which s can be cut without breaking a character.
func runeStart(s string, limit int) int {
	for i := limit; i > limit-utf8.UTFMax && i > 0; i-- {
		if utf8.RuneStart(s[i]) {
			return i
		}
	}
	return limit
}

// plain marks the ASCII characters that stand for themselves in a JSON string.
var plain = func() (t [utf8.RuneSelf]bool) {
	for c := byte(' '); c < 0x7f; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

func appendControl(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	case '\t':
		return append(b, '\\', 't')
	}
	return append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}

func appendUnicode(b []byte, r rune) []byte {
	return append(b, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
}

// disturbing says whether r is a C1 control character, a line or paragraph separator, or a mark that changes the direction of text.
func disturbing(r rune) bool {
	switch {
	case r >= 0x80 && r <= 0x9f, r == 0x61c, r >= 0x200e && r <= 0x200f, r >= 0x2028 && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0xfeff:
		return true
	}
	return false
}
