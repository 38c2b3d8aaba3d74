package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

const hostLine = "Host: a.test\r\n"

const chunkedHead = "POST / HTTP/1.1\r\n" + hostLine + "Transfer-Encoding: chunked\r\n\r\n"

// malformed are requests that no proxy should let pass, with the status that answers them. None of them may be followed by another on its connection.
var malformed = []struct {
	name   string
	in     string
	status int
	// body says that the fault is in the body, so that the handler has already been asked.
	body bool
}{
	{"CL.TE", "POST / HTTP/1.1\r\n" + hostLine + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", 400, false},
	{"TE.CL", "POST / HTTP/1.1\r\n" + hostLine + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n1\r\nx\r\n0\r\n\r\n", 400, false},
	{"TE xchunked", "POST / HTTP/1.1\r\n" + hostLine + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501, false},
	{"TE chunked, identity", "POST / HTTP/1.1\r\n" + hostLine + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 501, false},
	{"TE gzip, chunked", "POST / HTTP/1.1\r\n" + hostLine + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, false},
	{"TE twice", "POST / HTTP/1.1\r\n" + hostLine + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 400, false},
	{"TE vertical tab", "POST / HTTP/1.1\r\n" + hostLine + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400, false},
	{"TE quoted", "POST / HTTP/1.1\r\n" + hostLine + "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 501, false},
	{"TE empty", "POST / HTTP/1.1\r\n" + hostLine + "Transfer-Encoding: \r\n\r\n0\r\n\r\n", 501, false},
	{"TE space before colon", "POST / HTTP/1.1\r\n" + hostLine + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400, false},
	{"TE in HTTP/1.0", "POST / HTTP/1.0\r\n" + hostLine + "Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n", 400, false},
	{"TE and CL in HTTP/1.0", "POST / HTTP/1.0\r\n" + hostLine + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, false},
	{"CL twice", "POST / HTTP/1.1\r\n" + hostLine + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nxy", 400, false},
	{"CL list", "POST / HTTP/1.1\r\n" + hostLine + "Content-Length: 1, 2\r\n\r\nxy", 400, false},
	{"CL +3", "POST / HTTP/1.1\r\n" + hostLine + "Content-Length: +3\r\n\r\nabc", 400, false},
	{"CL -0", "POST / HTTP/1.1\r\n" + hostLine + "Content-Length: -0\r\n\r\n", 400, false},
	{"CL 0x3", "POST / HTTP/1.1\r\n" + hostLine + "Content-Length: 0x3\r\n\r\nabc", 400, false},
	{"CL 1_0", "POST / HTTP/1.1\r\n" + hostLine + "Content-Length: 1_0\r\n\r\n0123456789", 400, false},
	{"CL empty", "POST / HTTP/1.1\r\n" + hostLine + "Content-Length: \r\n\r\n", 400, false},
	{"CL overflow", "POST / HTTP/1.1\r\n" + hostLine + "Content-Length: 9999999999999999999\r\n\r\n", 400, false},
	{"CL 2^64+3", "POST / HTTP/1.1\r\n" + hostLine + "Content-Length: 18446744073709551619\r\n\r\nabc", 400, false},

	{"chunk size LF", chunkedHead + "5\nhello\r\n0\r\n\r\n", 400, true},
	{"chunk extension LF", chunkedHead + "5;a\nhello\r\n0\r\n\r\n", 400, true},
	{"chunk data LF", chunkedHead + "5\r\nhello\n0\r\n\r\n", 400, true},
	{"last chunk LF", chunkedHead + "5\r\nhello\r\n0\n\n", 400, true},
	{"CR in a chunk extension", chunkedHead + "5;a\rb\r\nhello\r\n0\r\n\r\n", 400, true},
	{"chunk size 0x5", chunkedHead + "0x5\r\nhello\r\n0\r\n\r\n", 400, true},
	{"chunk size +5", chunkedHead + "+5\r\nhello\r\n0\r\n\r\n", 400, true},
	{"chunk size with leading space", chunkedHead + " 5\r\nhello\r\n0\r\n\r\n", 400, true},
	{"chunk size overflow", chunkedHead + "ffffffffffffffffff\r\nhello\r\n0\r\n\r\n", 400, true},
	{"chunk size negative", chunkedHead + "-5\r\nhello\r\n0\r\n\r\n", 400, true},
	{"more data than the chunk", chunkedHead + "3\r\nhello\r\n0\r\n\r\n", 400, true},
	{"no CRLF after a chunk", chunkedHead + "5\r\nhello0\r\n\r\n", 400, true},
	{"chunk size empty", chunkedHead + "\r\nhello\r\n0\r\n\r\n", 400, true},
	{"chunk extensions of 64 KiB", chunkedHead + "5;" + strings.Repeat("a", 64<<10) + "\r\nhello\r\n0\r\n\r\n", 400, true},
	{"chunks of one byte with 1 KB extensions", chunkedHead + strings.Repeat("1;"+strings.Repeat("a", 1000)+"\r\nx\r\n", 30) + "0\r\n\r\n", 400, true},
	{"trailer with space before colon", chunkedHead + "0\r\nX : y\r\n\r\n", 400, true},
	{"trailer with NUL", chunkedHead + "0\r\nX: \x00\r\n\r\n", 400, true},
	{"trailer without colon", chunkedHead + "0\r\nX\r\n\r\n", 400, true},
	{"Trailer announces Content-Length", "POST / HTTP/1.1\r\n" + hostLine + "Trailer: Content-Length\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, false},

	{"bare LF head", "GET / HTTP/1.1\nHost: a.test\n\n", 400, false},
	{"bare LF hides TE", "POST / HTTP/1.1\r\n" + hostLine + "X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, false},
	{"bare CR in a value", "GET / HTTP/1.1\r\n" + hostLine + "X: a\rb\r\n\r\n", 400, false},
	{"NUL in a value", "GET / HTTP/1.1\r\n" + hostLine + "X: a\x00b\r\n\r\n", 400, false},
	{"DEL in a value", "GET / HTTP/1.1\r\n" + hostLine + "X: a\x7fb\r\n\r\n", 400, false},
	{"fold on the first line", "GET / HTTP/1.1\r\n X: y\r\n" + hostLine + "\r\n", 400, false},
	{"fold", "GET / HTTP/1.1\r\n" + hostLine + "X: a\r\n b\r\n\r\n", 400, false},
	{"name with space", "GET / HTTP/1.1\r\n" + hostLine + "X Y: a\r\n\r\n", 400, false},
	{"name with parentheses", "GET / HTTP/1.1\r\n" + hostLine + "X(): a\r\n\r\n", 400, false},
	{"name empty", "GET / HTTP/1.1\r\n" + hostLine + ": a\r\n\r\n", 400, false},
	{"name UTF-8", "GET / HTTP/1.1\r\n" + hostLine + "\xc3\xa9: a\r\n\r\n", 400, false},
	{"no colon", "GET / HTTP/1.1\r\n" + hostLine + "X\r\n\r\n", 400, false},

	{"Host missing", "GET / HTTP/1.1\r\n\r\n", 400, false},
	{"Host missing in HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", 400, false},
	{"Host twice", "GET / HTTP/1.1\r\n" + hostLine + "Host: b.test\r\n\r\n", 400, false},
	{"Host twice the same", "GET / HTTP/1.1\r\n" + hostLine + hostLine + "\r\n", 400, false},
	{"Host empty", "GET / HTTP/1.1\r\nHost: \r\n\r\n", 400, false},
	{"Host with space", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, false},
	{"Host with slash", "GET / HTTP/1.1\r\nHost: a.test/x\r\n\r\n", 400, false},
	{"Host with user", "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400, false},
	{"Host with hash", "GET / HTTP/1.1\r\nHost: a#b\r\n\r\n", 400, false},
	{"Host with backslash", "GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n", 400, false},
	{"Host a:80@evil", "GET / HTTP/1.1\r\nHost: a:80@evil\r\n\r\n", 400, false},
	{"Host a:abc", "GET / HTTP/1.1\r\nHost: a:abc\r\n\r\n", 400, false},
	{"Host a,b", "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400, false},
	{"Host with escapes", "GET / HTTP/1.1\r\nHost: a%0d%0ab\r\n\r\n", 400, false},
	{"Host with zone", "GET / HTTP/1.1\r\nHost: [fe80::1%25lo]\r\n\r\n", 400, false},
	{"absolute-form against Host", "GET http://b.test/ HTTP/1.1\r\n" + hostLine + "\r\n", 400, false},
	{"absolute-form with user", "GET http://u@a.test/ HTTP/1.1\r\n" + hostLine + "\r\n", 400, false},
	{"absolute-form gopher", "GET gopher://a.test/ HTTP/1.1\r\n" + hostLine + "\r\n", 400, false},

	{"HTTP/0.9", "GET /\r\n", 400, false},
	{"HTTP/1.32", "GET / HTTP/1.32\r\n" + hostLine + "\r\n", 400, false},
	{"HTTP/2.0", "GET / HTTP/2.0\r\n" + hostLine + "\r\n", 505, false},
	{"two spaces", "GET  / HTTP/1.1\r\n" + hostLine + "\r\n", 400, false},
	{"tab", "GET\t/\tHTTP/1.1\r\n" + hostLine + "\r\n", 400, false},
	{"trailing space", "GET / HTTP/1.1 \r\n" + hostLine + "\r\n", 400, false},
	{"leading CRLF", "\r\nGET / HTTP/1.1\r\n" + hostLine + "\r\n", 400, false},
	{"PRI without the rest", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", 400, false},
	{"GET *", "GET * HTTP/1.1\r\n" + hostLine + "\r\n", 400, false},
	{"CONNECT authority", "CONNECT a.test:80 HTTP/1.1\r\n" + hostLine + "\r\nGET / HTTP/1.1\r\n" + hostLine + "\r\n", 405, false},
	{"CONNECT path", "CONNECT / HTTP/1.1\r\n" + hostLine + "\r\n", 405, false},
	{"fragment", "GET /a#b HTTP/1.1\r\n" + hostLine + "\r\n", 400, false},
	{"NUL in the target", "GET /\x00 HTTP/1.1\r\n" + hostLine + "\r\n", 400, false},
	{"backslash in the path", "GET /a\\b HTTP/1.1\r\n" + hostLine + "\r\n", 400, false},
	{"bad escape in the path", "GET /%zz HTTP/1.1\r\n" + hostLine + "\r\n", 400, false},
	{"Expect foo", "POST / HTTP/1.1\r\n" + hostLine + "Expect: foo\r\nContent-Length: 1\r\n\r\nx", 417, false},
	{"head of 100 KB", "GET / HTTP/1.1\r\n" + hostLine + "X: " + strings.Repeat("a", 100_000) + "\r\n\r\n", 431, false},
	{"10,000 headers", "GET / HTTP/1.1\r\n" + hostLine + strings.Repeat("X: y\r\n", 10_000) + "\r\n", 431, false},
	{"target of 100 KB", "GET /" + strings.Repeat("a", 100_000) + " HTTP/1.1\r\n" + hostLine + "\r\n", 414, false},
}

// Each malformed request gets a clean refusal, its connection is closed, and nobody behind the proxy hears of it. What follows it on the connection is never served.
func TestMalformedHTTP1(t *testing.T) {
	const next = "GET /next HTTP/1.1\r\n" + hostLine + "\r\n"
	for _, secure := range []bool{false, true} {
		t.Run(map[bool]string{false: "plain", true: "TLS"}[secure], func(t *testing.T) {
			for _, test := range malformed {
				t.Run(test.name, func(t *testing.T) {
					f := newFront(t, Options{}, echo)
					c := f.dial(plainBind)
					if secure {
						c = tlsOver(t, c, f)
					}
					br := bufio.NewReader(c)
					_, _ = io.WriteString(c, test.in+next) // the connection may be closed before all of it was taken
					res, body := response(t, br)
					if res.StatusCode != test.status {
						t.Errorf("got %s, want %d", res.Status, test.status)
					}
					if !res.Close {
						t.Error("the answer does not say that the connection is closed")
					}
					if !test.body && (res.Header.Get(ReasonHeader) == "" || body != "") {
						t.Errorf("reason %q, body %q", res.Header.Get(ReasonHeader), body)
					}
					closed(t, br)
					if n := f.requests.Load(); n != 0 && !test.body || n > 1 {
						t.Errorf("%d requests reached the handler", n)
					}
				})
			}
		})
	}
}

// tlsOver replaces the connection by one to the port with TLS.
func tlsOver(t *testing.T, c net.Conn, f *front) net.Conn {
	t.Helper()
	_ = c.Close()
	return f.dialTLS("http/1.1")
}

// The same, one byte at a time.
func TestMalformedHTTP1InPieces(t *testing.T) {
	f := newFront(t, Options{}, echo)
	for _, test := range malformed {
		if len(test.in) > 200 {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			before := f.requests.Load()
			c := f.dial(plainBind).(*net.TCPConn)
			_ = c.SetNoDelay(true)
			for i := range len(test.in) {
				if _, err := io.WriteString(c, test.in[i:i+1]); err != nil {
					break
				}
			}
			br := bufio.NewReader(c)
			if res, _ := response(t, br); res.StatusCode != test.status {
				t.Errorf("got %s, want %d", res.Status, test.status)
			}
			closed(t, br)
			if n := f.requests.Load() - before; n != 0 && !test.body || n > 1 {
				t.Errorf("%d requests reached the handler", n)
			}
		})
	}
}

// A request that is in order is answered, whatever its client sends behind it.
func TestGoodRequestBeforeMalformedOne(t *testing.T) {
	release := make(chan struct{})
	f := newFront(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			select {
			case <-release:
			case <-r.Context().Done():
				t.Error("the request was cancelled")
			}
		}
		_, _ = io.WriteString(w, "ok")
	})
	c := f.dial(plainBind)
	br := bufio.NewReader(c)
	send(t, c, "GET /slow HTTP/1.1\r\n"+hostLine+"\r\n")
	waitFor(t, func() bool { return f.requests.Load() == 1 })
	send(t, c, "\x00garbage\r\n\r\n")
	time.Sleep(20 * time.Millisecond) // let the server read it while it is busy
	close(release)
	if res, body := response(t, br); res.StatusCode != 200 || body != "ok" {
		t.Errorf("first answer: %s %q", res.Status, body)
	}
	if res, _ := response(t, br); res.StatusCode != 400 || !res.Close {
		t.Errorf("second answer: %s", res.Status)
	}
	closed(t, br)
}

func TestPipelining(t *testing.T) {
	f := newFront(t, Options{}, echo)
	c := f.dial(plainBind)
	const n = 50
	go func() {
		for i := range n {
			body := strings.Repeat("x", i)
			_, _ = io.WriteString(c, "POST / HTTP/1.1\r\n"+hostLine+"Transfer-Encoding: chunked\r\n\r\n")
			for range body {
				_, _ = io.WriteString(c, "1\r\nx\r\n")
			}
			_, _ = io.WriteString(c, "0\r\n\r\nGET / HTTP/1.1\r\n"+hostLine+"\r\n")
		}
	}()
	br := bufio.NewReader(c)
	for i := range n {
		if res, body := response(t, br); res.StatusCode != 200 || len(body) != i {
			t.Fatalf("answer %d: %s, %d bytes", i, res.Status, len(body))
		}
		if res, body := response(t, br); res.StatusCode != 200 || body != "" {
			t.Fatalf("answer %d to GET: %s, %q", i, res.Status, body)
		}
	}
	if got := f.requests.Load(); got != 2*n {
		t.Errorf("%d requests, want %d", got, 2*n)
	}
}

func TestOptionsStar(t *testing.T) {
	f := newFront(t, Options{}, ok)
	c := f.dial(plainBind)
	send(t, c, "OPTIONS * HTTP/1.1\r\n"+hostLine+"\r\n")
	if res, body := response(t, bufio.NewReader(c)); res.StatusCode != 200 || body != "" || f.requests.Load() != 0 {
		t.Errorf("got %s, %q, %d requests", res.Status, body, f.requests.Load())
	}
}

func TestTLSOnPlainPortIsClosedAtOnce(t *testing.T) {
	f := newFront(t, Options{}, ok)
	c := f.dial(plainBind)
	send(t, c, "\x16\x03\x01\x00\xa0\x01")
	begun := time.Now()
	closed(t, c)
	if d := time.Since(begun); d > 2*time.Second {
		t.Errorf("it took %v", d)
	}
}

func TestPlainHTTPOnTLSPort(t *testing.T) {
	f := newFront(t, Options{}, ok)
	c := f.dial(secureBind)
	send(t, c, "GET / HTTP/1.1\r\n"+hostLine+"\r\n")
	br := bufio.NewReader(c)
	if res, _ := response(t, br); res.StatusCode != 400 || res.Header.Get(ReasonHeader) == "" {
		t.Errorf("got %s", res.Status)
	}
	closed(t, br)
}

// waitFor waits for a condition to become true.
func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	for range 2000 {
		if condition() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("waited in vain")
}
