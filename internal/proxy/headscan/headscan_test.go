package headscan

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-io/fairlead/internal/route"
)

// verdict is what a Scanner says about a stream of bytes.
type verdict struct {
	Messages []int // the bytes of each complete message
	Accepted int   // bytes that may be acted on, in all
	Fault    string
}

// scan gives the input to a Scanner in pieces that end at the cuts.
func scan(s *Scanner, in []byte, cuts ...int) verdict {
	var v verdict
	slices.Sort(cuts)
	message, from := 0, 0
	for _, cut := range append(cuts, len(in)) {
		for piece := in[from:cut]; len(piece) > 0; {
			n, f := s.Scan(piece)
			v.Accepted += n
			message += n
			if f != nil {
				v.Fault = f.Why
				return v
			}
			if s.AtStart() && message > 2 {
				v.Messages = append(v.Messages, message)
				message = 0
			}
			piece = piece[n:]
		}
		from = cut
	}
	return v
}

func everyByte(in []byte) []int {
	cuts := make([]int, len(in))
	for i := range cuts {
		cuts[i] = i
	}
	return cuts
}

const host = "Host: a.test\r\n"

// good are streams of bytes that are accepted whole, with the number of messages in them.
var good = []struct {
	name string
	in   string
	want int
}{
	{"get", "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", 1},
	{"http/1.0", "GET / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n", 1},
	{"port", "GET / HTTP/1.1\r\nHost: a.test:8080\r\n\r\n", 1},
	{"final dot", "GET / HTTP/1.1\r\nHost: a.test.:8080\r\n\r\n", 1},
	{"underscore", "GET / HTTP/1.1\r\nHost: a_b.test\r\n\r\n", 1},
	{"ipv4", "GET / HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\r\n", 1},
	{"ipv6", "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 1},
	{"lower-case names", "GET / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 1\r\n\r\nx", 1},
	{"no space after colon", "GET / HTTP/1.1\r\nHost:a.test\r\n\r\n", 1},
	{"spaces around values", "GET / HTTP/1.1\r\nHost: \t a.test \t\r\nX:  \t\r\n\r\n", 1},
	{"empty value", "GET / HTTP/1.1\r\nHost: a.test\r\nX:\r\n\r\n", 1},
	{"tab and high bytes in a value", "GET / HTTP/1.1\r\nHost: a.test\r\nX: a\tb\xff\xc3\xa9 12345678\r\n\r\n", 1},
	{"escapes", "GET /%41%2f?%zz HTTP/1.1\r\nHost: a.test\r\n\r\n", 1},
	{"odd query", "GET /?a=1;b=\\?%&c=\xc3\xa9 HTTP/1.1\r\nHost: a.test\r\n\r\n", 1},
	{"double slash", "GET //a//b HTTP/1.1\r\nHost: a.test\r\n\r\n", 1},
	{"absolute-form", "GET http://a.test/x?y HTTP/1.1\r\nHost: A.test\r\n\r\n", 1},
	{"absolute-form without path", "GET HTTPS://a.test:1 HTTP/1.1\r\nHost: a.test:1\r\n\r\n", 1},
	{"absolute-form with query only", "GET http://a.test?x HTTP/1.1\r\nHost: a.test\r\n\r\n", 1},
	{"options star", "OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n", 1},
	{"options path", "OPTIONS / HTTP/1.1\r\nHost: a.test\r\n\r\n", 1},
	{"odd method", "M-SEARCH_lo~ng|method!#$%&'*+.^` / HTTP/1.1\r\nHost: a.test\r\n\r\n", 1},
	{"content-length", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello", 1},
	{"content-length with leading zeros", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0005\r\n\r\nhello", 1},
	{"content-length zero", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n", 1},
	{"expect", "POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\nx", 1},
	{"chunked", "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 1},
	{"chunked, upper case", "POST / HTTP/1.1\r\nHost: a.test\r\nTRANSFER-ENCODING: Chunked\r\n\r\nA\r\n0123456789\r\n00\r\n\r\n", 1},
	{"chunk extensions", "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b;c=\"\t d\"\r\nx\r\n0;last\r\n\r\n", 1},
	{"trailers", "POST / HTTP/1.1\r\nHost: a.test\r\nTrailer: X-A , x-b\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-A: 1\r\nx-b:\r\n\r\n", 1},
	{"pipeline", "GET / HTTP/1.1\r\nHost: a.test\r\n\r\nPOST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\n\r\nx" +
		"PUT / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n", 4},
	{"empty line after post", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\n\r\nx\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n", 2},
	{"128 headers", "GET / HTTP/1.1\r\nHost: a.test\r\n" + strings.Repeat("X: y\r\n", 127) + "\r\n", 1},
	{"longest target", "GET /" + strings.Repeat("a", 16<<10-1) + " HTTP/1.1\r\nHost: a.test\r\n\r\n", 1},
	{"longest head", "GET / HTTP/1.1\r\nHost: a.test\r\nX: " + strings.Repeat("a", 64<<10-16-14-5-2) + "\r\n\r\n", 1},
}

func TestGood(t *testing.T) {
	for _, test := range good {
		t.Run(test.name, func(t *testing.T) {
			in := []byte(test.in)
			got := scan(New(Limits{}), in)
			if got.Fault != "" || got.Accepted != len(in) || len(got.Messages) != test.want {
				t.Fatalf("got %+v, want %d messages, %d bytes", got, test.want, len(in))
			}
			if diff := cmp.Diff(got, scan(New(Limits{}), in, everyByte(in)...)); diff != "" {
				t.Errorf("byte by byte the verdict differs (-whole +pieces):\n%s", diff)
			}
			checkOracle(t, in)
		})
	}
}

// malformed are requests that are refused: the fault, and whether it shows in the body only.
var malformed = []struct {
	name string
	in   string
	want *Fault
}{
	// CL.TE, TE.CL and their kin.
	{"CL then TE", "POST / HTTP/1.1\r\n" + host + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n", faultCodingLength},
	{"TE then CL", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n", faultCodingLength},
	{"xchunked", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\n", faultCoding},
	{"chunked, identity", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked, identity\r\n\r\n", faultCoding},
	{"gzip, chunked", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n", faultCoding},
	{"TE twice", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-encoding: chunked\r\n\r\n", faultCodingTwice},
	{"TE quoted", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: \"chunked\"\r\n\r\n", faultCoding},
	{"TE empty", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding:\r\n\r\n", faultCoding},
	{"TE with vertical tab", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: \x0bchunked\r\n\r\n", faultValue},
	{"TE with space before colon", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding : chunked\r\n\r\n", faultName},
	{"TE behind 300 spaces", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked" + strings.Repeat(" ", 300) + "x\r\n\r\n", faultCoding},
	{"TE in HTTP/1.0", "POST / HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n", faultCodingVersion},
	{"CL and TE in HTTP/1.0", "POST / HTTP/1.0\r\n" + host + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", faultCodingLength},
	{"CL twice", "POST / HTTP/1.1\r\n" + host + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", faultLengthTwice},
	{"CL twice the same", "POST / HTTP/1.1\r\n" + host + "Content-Length: 1\r\nContent-Length: 1\r\n\r\n", faultLengthTwice},
	{"CL list", "POST / HTTP/1.1\r\n" + host + "Content-Length: 1, 1\r\n\r\n", faultLength},
	{"CL plus", "POST / HTTP/1.1\r\n" + host + "Content-Length: +3\r\n\r\n", faultLength},
	{"CL minus", "POST / HTTP/1.1\r\n" + host + "Content-Length: -0\r\n\r\n", faultLength},
	{"CL hexadecimal", "POST / HTTP/1.1\r\n" + host + "Content-Length: 0x3\r\n\r\n", faultLength},
	{"CL underscore", "POST / HTTP/1.1\r\n" + host + "Content-Length: 1_0\r\n\r\n", faultLength},
	{"CL empty", "POST / HTTP/1.1\r\n" + host + "Content-Length:\r\n\r\n", faultLength},
	{"CL overflow", "POST / HTTP/1.1\r\n" + host + "Content-Length: 18446744073709551619\r\n\r\n", faultLength},
	{"trailer announces CL", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTrailer: a, Content-Length\r\n\r\n", faultTrailerName},
	{"trailer announces TE", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTrailer: transfer-encoding ,a\r\n\r\n", faultTrailerName},
	{"trailer announces Trailer", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTrailer: Trailer\r\n\r\n", faultTrailerName},
	{"trailer too long", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTrailer: " + strings.Repeat("a,", 200) + "\r\n\r\n", faultTrailerName},

	// Lines.
	{"bare LF everywhere", "GET / HTTP/1.1\nHost: a.test\n\n", faultBareLF},
	{"bare LF in a header", "GET / HTTP/1.1\r\n" + host + "X: y\nTransfer-Encoding: chunked\r\n\r\n", faultBareLF},
	{"bare LF ends the head", "GET / HTTP/1.1\r\n" + host + "\n", faultBareLF},
	{"bare CR in a value", "GET / HTTP/1.1\r\n" + host + "X: a\rb\r\n\r\n", faultBareCR},
	{"bare CR after the version", "GET / HTTP/1.1\rX\r\n" + host + "\r\n", faultBareCR},
	{"bare CR ends the head", "GET / HTTP/1.1\r\n" + host + "\rX", faultBareCR},
	{"NUL in a value", "GET / HTTP/1.1\r\n" + host + "X: a\x00b\r\n\r\n", faultValue},
	{"DEL in a value", "GET / HTTP/1.1\r\n" + host + "X: abcdefgh\x7f\r\n\r\n", faultValue},
	{"fold", "GET / HTTP/1.1\r\n" + host + "X: a\r\n b\r\n\r\n", faultFold},
	{"fold of the first line", "GET / HTTP/1.1\r\n Host: a.test\r\n\r\n", faultFold},
	{"fold with tab", "GET / HTTP/1.1\r\n" + host + "X: a\r\n\tb\r\n\r\n", faultFold},
	{"space before colon", "GET / HTTP/1.1\r\n" + host + "X : a\r\n\r\n", faultName},
	{"no colon", "GET / HTTP/1.1\r\n" + host + "X\r\n\r\n", faultName},
	{"empty name", "GET / HTTP/1.1\r\n" + host + ": a\r\n\r\n", faultName},
	{"name with parentheses", "GET / HTTP/1.1\r\n" + host + "X(a): b\r\n\r\n", faultName},
	{"name with UTF-8", "GET / HTTP/1.1\r\n" + host + "X\xc3\xa9: b\r\n\r\n", faultName},
	{"129 headers", "GET / HTTP/1.1\r\n" + host + strings.Repeat("X: y\r\n", 128) + "\r\n", faultHeaders},
	{"head too large", "GET / HTTP/1.1\r\n" + host + "X: " + strings.Repeat("a", 64<<10-16-14-5-1) + "\r\n\r\n", faultHeadSize},

	// Host.
	{"host missing", "GET / HTTP/1.1\r\n\r\n", faultHostMissing},
	{"host missing in HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", faultHostMissing},
	{"host twice", "GET / HTTP/1.1\r\n" + host + "Host: b.test\r\n\r\n", faultHostTwice},
	{"host twice the same", "GET / HTTP/1.1\r\n" + host + host + "\r\n", faultHostTwice},
	{"host empty", "GET / HTTP/1.1\r\nHost:\r\n\r\n", faultHost},
	{"host with space", "GET / HTTP/1.1\r\nHost: a test\r\n\r\n", faultHost},
	{"host with slash", "GET / HTTP/1.1\r\nHost: a.test/x\r\n\r\n", faultHost},
	{"host with at", "GET / HTTP/1.1\r\nHost: u@a.test\r\n\r\n", faultHost},
	{"host with hash", "GET / HTTP/1.1\r\nHost: a.test#\r\n\r\n", faultHost},
	{"host with backslash", "GET / HTTP/1.1\r\nHost: a\\test\r\n\r\n", faultHost},
	{"host with escape", "GET / HTTP/1.1\r\nHost: a%0d%0ab\r\n\r\n", faultHost},
	{"host with comma", "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", faultHost},
	{"host with port and user", "GET / HTTP/1.1\r\nHost: a.test:80@evil\r\n\r\n", faultHost},
	{"host with port in words", "GET / HTTP/1.1\r\nHost: a:abc\r\n\r\n", faultHost},
	{"host with port 0", "GET / HTTP/1.1\r\nHost: a:0\r\n\r\n", faultHost},
	{"host with port 65536", "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", faultHost},
	{"host with zone", "GET / HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n\r\n", faultHost},
	{"host with empty label", "GET / HTTP/1.1\r\nHost: a..b\r\n\r\n", faultHost},
	{"host too long", "GET / HTTP/1.1\r\nHost: " + strings.Repeat("a.", 130) + "b\r\n\r\n", faultHost},
	{"host far too long", "GET / HTTP/1.1\r\nHost: " + strings.Repeat("a.", 1000) + "b\r\n\r\n", faultHost},

	// The request line.
	{"HTTP/0.9", "GET /\r\n", faultTargetByte},
	{"HTTP/1.32", "GET / HTTP/1.32\r\n" + host + "\r\n", faultVersion},
	{"HTTP/1.2", "GET / HTTP/1.2\r\n" + host + "\r\n", faultVersionNo},
	{"HTTP/2.0", "GET / HTTP/2.0\r\n" + host + "\r\n", faultVersionNo},
	{"lower-case version", "GET / http/1.1\r\n" + host + "\r\n", faultVersion},
	{"two spaces before the target", "GET  / HTTP/1.1\r\n" + host + "\r\n", faultTargetEmpty},
	{"two spaces before the version", "GET /  HTTP/1.1\r\n" + host + "\r\n", faultVersion},
	{"tab", "GET\t/ HTTP/1.1\r\n" + host + "\r\n", faultMethod},
	{"tab before the version", "GET /\tHTTP/1.1\r\n" + host + "\r\n", faultTargetByte},
	{"trailing space", "GET / HTTP/1.1 \r\n" + host + "\r\n", faultVersion},
	{"leading CRLF", "\r\nGET / HTTP/1.1\r\n" + host + "\r\n", faultLeadingCRLF},
	{"leading LF", "\nGET / HTTP/1.1\r\n" + host + "\r\n", faultLeadingCRLF},
	{"leading space", " GET / HTTP/1.1\r\n" + host + "\r\n", faultMethod},
	{"TLS hello", "\x16\x03\x01\x02\x00", faultMethod},
	{"method with parenthesis", "G(T / HTTP/1.1\r\n" + host + "\r\n", faultMethod},
	{"method too long", strings.Repeat("A", 33) + " / HTTP/1.1\r\n" + host + "\r\n", faultMethodLong},
	{"preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", faultPreface},
	{"connect", "CONNECT a.test:443 HTTP/1.1\r\n" + host + "\r\n", faultConnect},
	{"connect path", "CONNECT / HTTP/1.1\r\n" + host + "\r\n", faultConnect},
	{"get star", "GET * HTTP/1.1\r\n" + host + "\r\n", faultStar},
	{"options star and more", "OPTIONS *a HTTP/1.1\r\n" + host + "\r\n", faultTargetForm},
	{"fragment", "GET /a#b HTTP/1.1\r\n" + host + "\r\n", faultFragment},
	{"fragment in the query", "GET /a?b#c HTTP/1.1\r\n" + host + "\r\n", faultFragment},
	{"backslash", "GET /a\\b HTTP/1.1\r\n" + host + "\r\n", faultBackslash},
	{"bad escape", "GET /%zz HTTP/1.1\r\n" + host + "\r\n", faultEscape},
	{"cut escape", "GET /%2 HTTP/1.1\r\n" + host + "\r\n", faultEscape},
	{"NUL in the target", "GET /a\x00b HTTP/1.1\r\n" + host + "\r\n", faultTargetByte},
	{"DEL in the query", "GET /?\x7f HTTP/1.1\r\n" + host + "\r\n", faultTargetByte},
	{"relative target", "GET a/b HTTP/1.1\r\n" + host + "\r\n", faultTargetForm},
	{"query only", "GET ?x HTTP/1.1\r\n" + host + "\r\n", faultTargetForm},
	{"target too long", "GET /" + strings.Repeat("a", 16<<10) + " HTTP/1.1\r\n" + host + "\r\n", faultTarget},
	{"target far too long", "GET /" + strings.Repeat("a", 100_000) + " HTTP/1.1\r\n" + host + "\r\n", faultTarget},
	{"gopher", "GET gopher://a.test/ HTTP/1.1\r\n" + host + "\r\n", faultTargetForm},
	{"file", "GET file:///etc/passwd HTTP/1.1\r\n" + host + "\r\n", faultTargetForm},
	{"scheme only", "GET http: HTTP/1.1\r\n" + host + "\r\n", faultTargetForm},
	{"one slash", "GET http:/a.test HTTP/1.1\r\n" + host + "\r\n", faultTargetForm},
	{"absolute-form with user", "GET http://u:p@a.test/ HTTP/1.1\r\n" + host + "\r\n", faultUserinfo},
	{"absolute-form with another host", "GET http://b.test/ HTTP/1.1\r\n" + host + "\r\n", faultHostMismatch},
	{"absolute-form with another port", "GET http://a.test:81/ HTTP/1.1\r\n" + host + "\r\n", faultHostMismatch},
	{"absolute-form without host", "GET http:///x HTTP/1.1\r\n" + host + "\r\n", faultAuthority},
	{"absolute-form with a long host", "GET http://" + strings.Repeat("a", 300) + "/x HTTP/1.1\r\n" + host + "\r\n", faultAuthority},
	{"absolute-form without Host", "GET http://a.test/x HTTP/1.1\r\n\r\n", faultHostMissing},
	{"expect foo", "POST / HTTP/1.1\r\n" + host + "Expect: foo\r\n\r\n", faultExpect},
	{"second request malformed", "GET / HTTP/1.1\r\n" + host + "\r\nGET / HTTP/1.1\n", faultBareLF},
	{"empty line after get", "GET / HTTP/1.1\r\n" + host + "\r\n\r\nGET / HTTP/1.1\r\n" + host + "\r\n", faultLeadingCRLF},
	{"two empty lines after post", "POST / HTTP/1.1\r\n" + host + "Content-Length: 1\r\n\r\nx\r\n\r\n", faultLeadingCRLF},

	// Chunked bodies.
	{"LF after the size", chunked + "5\nhello\r\n0\r\n\r\n", faultChunkLF},
	{"LF after an extension", chunked + "5;a\nhello\r\n0\r\n\r\n", faultChunkLF},
	{"LF after the data", chunked + "5\r\nhello\n0\r\n\r\n", faultChunkEnd},
	{"LF at the end", chunked + "0\r\n\n", faultTrailer},
	{"LF after the last size", chunked + "0\n\r\n", faultChunkLF},
	{"CR in an extension", chunked + "5;a\rb\r\nhello\r\n0\r\n\r\n", faultChunkCR},
	{"NUL in an extension", chunked + "5;a\x00b\r\nhello\r\n0\r\n\r\n", faultChunkExt},
	{"0x", chunked + "0x5\r\nhello\r\n0\r\n\r\n", faultChunkSize},
	{"plus", chunked + "+5\r\nhello\r\n0\r\n\r\n", faultChunkSize},
	{"negative", chunked + "-1\r\nhello\r\n0\r\n\r\n", faultChunkSize},
	{"leading space in a chunk size", chunked + " 5\r\nhello\r\n0\r\n\r\n", faultChunkSize},
	{"trailing space in a chunk size", chunked + "5 \r\nhello\r\n0\r\n\r\n", faultChunkSize},
	{"chunk size overflow", chunked + "10000000000000005\r\nhello\r\n0\r\n\r\n", faultChunkTooLarge},
	{"more data than the size", chunked + "4\r\nhello\r\n0\r\n\r\n", faultChunkEnd},
	{"CRLF missing after data", chunked + "5\r\nhello0\r\n\r\n", faultChunkEnd},
	{"empty size", chunked + "\r\n0\r\n\r\n", faultChunkSize},
	{"size of extension only", chunked + ";a\r\n0\r\n\r\n", faultChunkSize},
	{"long extension", chunked + "1;" + strings.Repeat("a", 2000) + "\r\nx\r\n0\r\n\r\n", faultChunkLine},
	{"extension flood", chunked + strings.Repeat("1;"+strings.Repeat("a", 1000)+"\r\nx\r\n", 20) + "0\r\n\r\n", faultChunkExcess},
	{"trailer without colon", chunked + "0\r\nX\r\n\r\n", faultTrailer},
	{"trailer with space before colon", chunked + "0\r\nX : a\r\n\r\n", faultTrailer},
	{"trailer with NUL", chunked + "0\r\nX: a\x00\r\n\r\n", faultTrailer},
	{"trailer ends in LF", chunked + "0\r\nX: a\n\r\n", faultTrailer},
	{"trailer ends in CR", chunked + "0\r\nX: a\rb\r\n\r\n", faultTrailer},
	{"trailer folded", chunked + "0\r\nX: a\r\n b\r\n\r\n", faultTrailerFold},
	{"trailers too large", chunked + "0\r\n" + strings.Repeat("X: "+strings.Repeat("a", 100)+"\r\n", 50) + "\r\n", faultTrailerSize},
}

const chunked = "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n"

func TestMalformed(t *testing.T) {
	for _, test := range malformed {
		t.Run(test.name, func(t *testing.T) {
			in := []byte(test.in)
			s := New(Limits{})
			got := scan(s, in)
			if got.Fault != test.want.Why {
				t.Fatalf("got fault %q, want %q", got.Fault, test.want.Why)
			}
			pieces := scan(New(Limits{}), in, everyByte(in)...)
			if pieces.Fault != got.Fault {
				t.Errorf("byte by byte the fault is %q, not %q", pieces.Fault, got.Fault)
			}
			if s.fault.InBody != (s.fault.Reason == route.BadBody) || s.fault.Status < 400 {
				t.Errorf("fault %+v contradicts itself", s.fault)
			}
			if n, f := s.Scan([]byte("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")); n != 0 || f != s.fault {
				t.Errorf("after a fault Scan returned %d, %v", n, f)
			}
		})
	}
}

// A head of which a part is wrong is given to nobody, not even in part, if it comes in one piece.
func TestFaultInHeadHoldsTheHeadBack(t *testing.T) {
	s := New(Limits{})
	n, f := s.Scan([]byte("GET / HTTP/1.1\r\nHost: a.test\r\nX : y\r\n\r\n"))
	if n != 0 || f != faultName {
		t.Errorf("got %d, %v", n, f)
	}
}

// What comes before a fault in a body may be acted on, nothing behind it.
func TestFaultInBodyPassesWhatCameBefore(t *testing.T) {
	s := New(Limits{})
	before := chunked + "5\r\nhello\r\n"
	n, f := s.Scan([]byte(before + "zz\r\n"))
	if n != len(before) || f != faultChunkSize || !f.ClientFault() || f.Error() == "" {
		t.Errorf("got %d, %v; want %d", n, f, len(before))
	}
}

// Where a body is at fault net/http finds a fault too, after what was passed and what Spoil puts in the place of the rest.
func TestSpoil(t *testing.T) {
	tested := 0
	for _, test := range malformed {
		if !test.want.InBody {
			continue
		}
		tested++
		for _, cuts := range [][]int{nil, everyByte([]byte(test.in))} {
			s := New(Limits{})
			passed := test.in[:scan(s, []byte(test.in), cuts...).Accepted] + s.Spoil()
			// There is nothing behind it, and the reader must not wait for more.
			r, err := http.ReadRequest(bufio.NewReader(&exhausted{t, test.name, strings.NewReader(passed)}))
			if err != nil {
				t.Fatalf("%s: head: %v", test.name, err)
			}
			if _, err := io.Copy(io.Discard, r.Body); err == nil {
				t.Errorf("%s: net/http accepts %q", test.name, passed)
			}
		}
	}
	if tested < 20 {
		t.Errorf("only %d bodies", tested)
	}
}

// exhausted complains when somebody reads beyond its end.
type exhausted struct {
	t    *testing.T
	name string
	*strings.Reader
}

func (e *exhausted) Read(p []byte) (int, error) {
	if e.Len() == 0 {
		e.t.Errorf("%s: net/http wants more", e.name)
	}
	return e.Reader.Read(p)
}

func TestLimits(t *testing.T) {
	for _, test := range []struct {
		name   string
		limits Limits
		in     string
		want   string
	}{
		{"headers", Limits{Headers: 1}, "GET / HTTP/1.1\r\nHost: a.test\r\nX: y\r\n\r\n", faultHeaders.Why},
		{"head", Limits{HeadBytes: 33}, "GET / HTTP/1.1\r\nHost: a.test\r\nX: y\r\n\r\n", faultHeadSize.Why},
		{"target", Limits{TargetBytes: 3}, "GET /abc HTTP/1.1\r\nHost: a.test\r\n\r\n", faultTarget.Why},
		{"exact", Limits{HeadBytes: 35, Headers: 1, TargetBytes: 4}, "GET /abc HTTP/1.1\r\nHost: a.test\r\n\r\n", ""},
		{"each message anew", Limits{HeadBytes: 35, Headers: 1, TargetBytes: 4}, strings.Repeat("GET /abc HTTP/1.1\r\nHost: a.test\r\n\r\n", 3), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := scan(New(test.limits), []byte(test.in)); got.Fault != test.want {
				t.Errorf("got %q, want %q", got.Fault, test.want)
			}
		})
	}
	var zero Scanner
	if n, f := zero.Scan([]byte("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")); n != 32 || f != nil {
		t.Errorf("zero Scanner: %d, %v", n, f)
	}
}

func TestStates(t *testing.T) {
	s := New(Limits{})
	feed := func(in string) {
		if _, f := s.Scan([]byte(in)); f != nil {
			t.Fatalf("%q: %v", in, f)
		}
	}
	check := func(start, body, fixed bool) {
		t.Helper()
		if s.AtStart() != start || s.InBody() != body || s.InFixedBody() != fixed {
			t.Errorf("at start %v, in body %v, fixed %v; want %v, %v, %v", s.AtStart(), s.InBody(), s.InFixedBody(), start, body, fixed)
		}
	}
	check(true, false, false)
	feed("GE")
	check(false, false, false)
	feed("T / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\n")
	check(false, true, true)
	feed("ab")
	check(true, false, false)
	feed(chunked)
	check(false, true, false)
	feed("0\r\n\r\n")
	check(true, false, false)
}

func TestHostAgreesWithRoute(t *testing.T) {
	for _, h := range []string{
		"", "a", "a.", ".", "..", "a..b", ".a", "-a", "a-", "_", "a b", "A.B", "1.2.3.4", "[::1]", "[::1", "[::1]x", "[::1]:1", "[::ffff:1.2.3.4]", "[1.2.3.4]",
		"[fe80::1%eth0]", "a:", "a:0", "a:00080", "a:65535", "a:65536", "a:-1", "a:1:2", ":80", "a.:80", "é", "a/b", "a\\b", "[]", "[", "[]:80",
		strings.Repeat("a", 63), strings.Repeat("a", 64), strings.Repeat("a.", 126) + "a", strings.Repeat("a.", 127), strings.Repeat("a.", 127) + "a",
	} {
		_, err := route.NormalizeHost(h)
		if got, want := validHost([]byte(h)), err == nil; got != want {
			t.Errorf("%q: got %v, route says %v (%v)", h, got, want, err)
		}
	}
}

func TestControl(t *testing.T) {
	for length := range 20 {
		for at := range length {
			for _, b := range []byte{0, 1, '\t', '\n', '\r', 0x1f, 0x7f} {
				p := bytes.Repeat([]byte{0x20}, length)
				p[at] = b
				if at+1 < length {
					p[at+1] = 0x21
				}
				if got := control(p); got != at {
					t.Errorf("%q: got %d, want %d", p, got, at)
				}
			}
		}
		for b := 0x20; b < 256; b++ {
			if p := bytes.Repeat([]byte{byte(b)}, length); b != 0x7f && control(p) != length {
				t.Errorf("%q: got %d, want %d", p, control(p), length)
			}
		}
	}
}

// checkOracle reads the messages that a Scanner accepted in full with net/http and compares.
func checkOracle(t *testing.T, in []byte) {
	t.Helper()
	s := New(Limits{})
	for rest := in; len(rest) > 0; {
		n, f := s.Scan(rest)
		if f != nil || !s.AtStart() {
			return
		}
		if n == 2 { // an empty line
			rest = rest[n:]
			continue
		}
		compare(t, rest[:n])
		rest = rest[n:]
	}
}

// compare checks that net/http reads the one message that the Scanner found in the same way. What follows tells where net/http believes that it ends.
func compare(t *testing.T, message []byte) {
	t.Helper()
	br := bufio.NewReader(io.MultiReader(bytes.NewReader(message), strings.NewReader("rest")))
	r, err := http.ReadRequest(br)
	if err != nil {
		t.Fatalf("net/http refuses %q: %v", message, err)
	}
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		t.Fatalf("net/http refuses the body of %q: %v", message, err)
	}
	if rest, _ := br.Peek(10); string(rest) != "rest" {
		t.Fatalf("net/http reads %q to another end: %q is left", message, rest)
	}
	line, _, _ := strings.Cut(string(message), "\r\n")
	if got := r.Method + " " + r.RequestURI + " " + r.Proto; got != line {
		t.Errorf("net/http reads the request line %q as %q", line, got)
	}
	if r.ContentLength >= 0 && r.ContentLength != n {
		t.Errorf("net/http says %d bytes and reads %d", r.ContentLength, n)
	}
	if !validHost([]byte(r.Host)) {
		t.Errorf("net/http reads the host %q", r.Host)
	}
	if len(r.Header) > 128 {
		t.Errorf("net/http reads %d headers", len(r.Header))
	}
}

// FuzzScan checks that what the Scanner accepts is what net/http reads, and that the verdict does not depend on how the bytes arrive.
func FuzzScan(f *testing.F) {
	for _, test := range good {
		f.Add([]byte(test.in), 10, 20)
	}
	for _, test := range malformed {
		f.Add([]byte(test.in), 3, 30)
	}
	f.Fuzz(func(t *testing.T, in []byte, a, b int) {
		whole := scan(New(Limits{}), in)
		if len(in) > 0 {
			pieces := scan(New(Limits{}), in, abs(a)%len(in), abs(b)%len(in))
			if whole.Fault != pieces.Fault || !slices.Equal(whole.Messages, pieces.Messages) {
				t.Errorf("whole: %+v\nin pieces: %+v", whole, pieces)
			}
		}
		checkOracle(t, in)
	})
}

func abs(n int) int { return max(n, -(n + 1)) }

var typical = []byte("GET /api/v1/users?id=12345&sort=name HTTP/1.1\r\nHost: shop.example.com\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n" +
	"Accept-Encoding: gzip, deflate, br, zstd\r\nReferer: https://shop.example.com/catalogue?page=3\r\nConnection: keep-alive\r\n" +
	"Cookie: session=" + strings.Repeat("0123456789abcdef", 24) + "\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\n\r\n")

func BenchmarkScan(b *testing.B) {
	for _, test := range []struct {
		name string
		in   []byte
	}{
		{"head of " + strconv.Itoa(len(typical)), typical},
		{"smallest", []byte("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")},
		{"chunked 32 KiB", []byte(chunked + strings.Repeat("1000\r\n"+strings.Repeat("x", 4096)+"\r\n", 8) + "0\r\n\r\n")},
	} {
		b.Run(test.name, func(b *testing.B) {
			s := New(Limits{})
			b.SetBytes(int64(len(test.in)))
			b.ReportAllocs()
			for b.Loop() {
				if n, f := s.Scan(test.in); n != len(test.in) || f != nil {
					b.Fatal(n, f)
				}
			}
		})
	}
}

// BenchmarkReadRequest is what net/http itself takes to read the same head, for comparison.
func BenchmarkReadRequest(b *testing.B) {
	r := bytes.NewReader(typical)
	br := bufio.NewReader(r)
	b.SetBytes(int64(len(typical)))
	for b.Loop() {
		r.Reset(typical)
		br.Reset(r)
		if _, err := http.ReadRequest(br); err != nil {
			b.Fatal(err)
		}
	}
}
