package echo

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// wsClient is the client's side of a WebSocket connection.
type wsClient struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

const handshake = "GET /chat?x=1 HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: chat, superchat\r\n\r\n"

// upgrade sends an opening handshake and returns the answer.
func upgrade(t testing.TB, conn net.Conn, head string) (*wsClient, *http.Response) {
	t.Helper()
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, head); err != nil {
		t.Fatal(err)
	}
	c := &wsClient{t, conn, bufio.NewReader(conn)}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c, resp
}

func connect(t testing.TB) (*Server, *wsClient) {
	t.Helper()
	s := start(t, nil)
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	c, resp := upgrade(t, conn, handshake)
	if resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake = %d", resp.StatusCode)
	}
	return s, c
}

// rawFrame returns a masked frame whose first byte is b0.
func rawFrame(b0 byte, payload string) []byte {
	out := []byte{b0}
	switch n := len(payload); {
	case n <= 125:
		out = append(out, 0x80|byte(n))
	case n <= 0xffff:
		out = binary.BigEndian.AppendUint16(append(out, 0x80|126), uint16(n))
	default:
		out = binary.BigEndian.AppendUint64(append(out, 0x80|127), uint64(n))
	}
	mask := [4]byte{1, 2, 3, 0xfe}
	out = append(out, mask[:]...)
	for i := range len(payload) {
		out = append(out, payload[i]^mask[i&3])
	}
	return out
}

func (c *wsClient) send(b []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// receive reads a frame from the server, which must not be masked.
func (c *wsClient) receive() (b0 byte, payload string, err error) {
	var head [2]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return 0, "", err
	}
	if head[1]&0x80 != 0 {
		return 0, "", errors.New("the server masks")
	}
	n := uint64(head[1])
	if size := map[uint64]int{126: 2, 127: 8}[n]; size > 0 {
		var b [8]byte
		if _, err := io.ReadFull(c.r, b[8-size:]); err != nil {
			return 0, "", err
		}
		n = binary.BigEndian.Uint64(b[:])
	}
	got := make([]byte, n)
	_, err = io.ReadFull(c.r, got)
	return head[0], string(got), err
}

func (c *wsClient) expect(b0 byte, payload string) {
	c.t.Helper()
	gotB0, got, err := c.receive()
	if err != nil || gotB0 != b0 || got != payload {
		c.t.Fatalf("got a frame %#x of %d bytes (%.40q), %v, want %#x of %d bytes (%.40q)", gotB0, len(got), got, err, b0, len(payload), payload)
	}
}

// expectEnd wants the connection closed and nothing before it.
func (c *wsClient) expectEnd() {
	c.t.Helper()
	if b0, payload, err := c.receive(); err == nil {
		c.t.Fatalf("got a frame %#x %q, want the end of the connection", b0, payload)
	} else if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
		c.t.Fatal("the connection was not closed")
	}
}

func code(c uint16) string { return string(binary.BigEndian.AppendUint16(nil, c)) }

// The example of RFC 6455, section 1.3.
func TestWebSocketHandshake(t *testing.T) {
	s := start(t, &tls.Config{Certificates: []tls.Certificate{selfSigned()}})
	conn, err := tls.Dial("tcp", s.Addr(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	c, resp := upgrade(t, conn, handshake)
	for name, want := range map[string]string{
		"Upgrade": "websocket", "Connection": "Upgrade", "Sec-Websocket-Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "Sec-Websocket-Protocol": "chat", "X-Echo-Name": "web-1",
	} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	c.send(rawFrame(0x81, "over TLS"))
	c.expect(0x81, "over TLS")
}

func TestWebSocketHandshakeRefused(t *testing.T) {
	for _, tt := range []struct{ name, old, new string }{
		{"method", "GET", "POST"},
		{"version", "Version: 13", "Version: 8"},
		{"no key", "Sec-WebSocket-Key", "X-Key"},
		{"short key", "dGhlIHNhbXBsZSBub25jZQ==", "dGhl"},
		{"key that is not base64", "dGhlIHNhbXBsZSBub25jZQ==", "????"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", start(t, nil).Addr())
			if err != nil {
				t.Fatal(err)
			}
			_, resp := upgrade(t, conn, strings.Replace(handshake, tt.old, tt.new, 1))
			if resp.StatusCode != 400 || resp.Header.Get("Sec-Websocket-Version") != "13" {
				t.Errorf("handshake = %d, want 400", resp.StatusCode)
			}
		})
	}
	t.Run("no upgrade asked for", func(t *testing.T) {
		conn, err := net.Dial("tcp", start(t, nil).Addr())
		if err != nil {
			t.Fatal(err)
		}
		_, resp := upgrade(t, conn, strings.Replace(handshake, ", Upgrade", "", 1))
		if resp.StatusCode != 200 {
			t.Errorf("plain request = %d, want 200", resp.StatusCode)
		}
	})
}

func TestWebSocketMessages(t *testing.T) {
	_, c := connect(t)
	for _, size := range []int{0, 1, 125, 126, 65535, 65536, maxMessage} {
		c.send(rawFrame(0x82, strings.Repeat("\xff", size)))
		c.expect(0x82, strings.Repeat("\xff", size))
	}
	c.send(rawFrame(0x81, "grüße"))
	c.expect(0x81, "grüße")

	// Fragments, cut inside a character, with a ping between them.
	c.send(rawFrame(0x01, "gr\xc3"))
	c.send(rawFrame(0x89, "are you there"))
	c.send(rawFrame(0x00, "\xbc"))
	c.send(rawFrame(0x8a, "a pong nobody asked for"))
	c.send(rawFrame(0x80, "ße"))
	c.expect(0x8a, "are you there")
	c.expect(0x81, "grüße")

	c.send(rawFrame(0x88, code(1000)+"bye"))
	c.expect(0x88, code(1000))
	c.expectEnd()
}

func TestWebSocketCloses(t *testing.T) {
	unmasked := []byte{0x81, 1, 'x'}
	for _, tt := range []struct {
		name string
		in   []byte
		want string // payload of the close frame
	}{
		{"no code", rawFrame(0x88, ""), ""},
		{"own code", rawFrame(0x88, code(4321)), code(4321)},
		{"going away", rawFrame(0x88, code(1001)), code(1001)},
		{"half a code", rawFrame(0x88, "\x03"), code(1002)},
		{"code that is never sent", rawFrame(0x88, code(1005)), code(1002)},
		{"code below all", rawFrame(0x88, code(999)), code(1002)},
		{"code above all", rawFrame(0x88, code(5000)), code(1002)},
		{"reason that is not UTF-8", rawFrame(0x88, code(1000)+"\xff"), code(1002)},
		{"not masked", unmasked, code(1002)},
		{"reserved bit", rawFrame(0xc1, "x"), code(1002)},
		{"reserved opcode", rawFrame(0x83, "x"), code(1002)},
		{"reserved control opcode", rawFrame(0x8b, "x"), code(1002)},
		{"continuation of nothing", rawFrame(0x80, "x"), code(1002)},
		{"message within a message", append(rawFrame(0x01, "x"), rawFrame(0x81, "y")...), code(1002)},
		{"fragmented ping", rawFrame(0x09, "x"), code(1002)},
		{"long ping", rawFrame(0x89, strings.Repeat("x", 126)), code(1002)},
		{"length in a longer form than needed", []byte{0x82, 0x80 | 126, 0, 5}, code(1002)},
		{"length in a much longer form than needed", []byte{0x82, 0x80 | 127, 0, 0, 0, 0, 0, 0, 1, 0}, code(1002)},
		{"negative length", []byte{0x82, 0x80 | 127, 0xff, 0, 0, 0, 0, 0, 0, 0}, code(1002)},
		{"text that is not UTF-8", rawFrame(0x81, "\xff"), code(1007)},
		{"text cut inside a character", append(rawFrame(0x01, "\xc3"), rawFrame(0x80, "x")...), code(1007)},
		{"frame too big", rawFrame(0x82, strings.Repeat("x", maxMessage+1))[:14], code(1009)},
		{"fragments too big", append(rawFrame(0x02, strings.Repeat("x", maxMessage)), rawFrame(0x80, "y")...), code(1009)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, c := connect(t)
			c.send(tt.in)
			c.expect(0x88, tt.want)
			c.expectEnd()
		})
	}
}

func TestKillClosesWebSockets(t *testing.T) {
	s, c := connect(t)
	c.send(rawFrame(0x81, "hello"))
	c.expect(0x81, "hello")
	s.Kill()
	c.expectEnd()
	if err := s.Revive(); err != nil {
		t.Fatal(err)
	}
}

func FuzzWebSocketFrames(f *testing.F) {
	f.Add(rawFrame(0x81, "hello"))
	f.Add(append(rawFrame(0x01, "a"), rawFrame(0x80, "b")...))
	f.Add(rawFrame(0x88, code(1000)))
	f.Fuzz(func(t *testing.T, in []byte) {
		client, server := net.Pipe()
		defer client.Close()
		s := &socket{conn: server, r: bufio.NewReader(server), w: bufio.NewWriter(server)}
		done := make(chan error)
		go func() {
			err := s.echo()
			_ = server.Close()
			done <- err
		}()
		go func() {
			_, _ = client.Write(in)
			_ = client.SetReadDeadline(time.Now()) // all was taken: what is still to be read does not matter
		}()
		out, _ := io.ReadAll(client)
		_ = client.Close()
		if err := <-done; err == nil {
			t.Error("echo ended without an error")
		}
		if len(out) > 10*len(in)+16 {
			t.Errorf("%d bytes for %d", len(out), len(in))
		}
	})
}
