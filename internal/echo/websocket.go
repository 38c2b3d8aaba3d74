package echo

import (
	"bufio"
	"crypto/sha1" // #nosec G505 -- RFC 6455 wants it, as a checksum
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits on WebSocket connections.
const (
	maxMessage     = 1 << 20
	webSocketIdle  = time.Hour
	webSocketWrite = 30 * time.Second
)

// The opcodes of RFC 6455, section 5.2.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

// closeCode is a reason to end a WebSocket connection (RFC 6455, section 7.4.1). As an error it is sent to the client.
type closeCode uint16

const (
	closeNormal   closeCode = 1000
	closeProtocol closeCode = 1002
	closeNoStatus closeCode = 1005 // never sent: the close frame had no code
	closeInvalid  closeCode = 1007 // text that is not UTF-8
	closeTooBig   closeCode = 1009
)

func (c closeCode) Error() string { return fmt.Sprintf("websocket closed with code %d", uint16(c)) }

// isWebSocket says whether r asks for an upgrade to WebSocket.
func isWebSocket(r *http.Request) bool {
	return r.ProtoMajor == 1 && hasToken(r.Header["Connection"], "upgrade") && hasToken(r.Header["Upgrade"], "websocket")
}

// hasToken says whether a comma-separated header has a token, in any case.
func hasToken(values []string, token string) bool {
	for _, v := range values {
		for t := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

// checkHandshake returns what is wrong with a client's opening handshake (RFC 6455, section 4.2.1).
func checkHandshake(r *http.Request) error {
	if r.Method != http.MethodGet {
		return fmt.Errorf("websocket handshake: method is %s: want GET", r.Method)
	}
	if v := r.Header.Get("Sec-Websocket-Version"); v != "13" {
		return fmt.Errorf("websocket handshake: Sec-WebSocket-Version is %q: want 13", v)
	}
	if key, err := base64.StdEncoding.DecodeString(r.Header.Get("Sec-Websocket-Key")); err != nil || len(key) != 16 {
		return errors.New("websocket handshake: Sec-WebSocket-Key is not 16 bytes in base64")
	}
	return nil
}

// acceptKey answers a Sec-WebSocket-Key.
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // #nosec G401 -- as RFC 6455 wants it
	return base64.StdEncoding.EncodeToString(sum[:])
}

// serveWebSocket upgrades the connection and sends every message back, until either side closes it.
func (s *Server) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	if err := checkHandshake(r); err != nil {
		w.Header().Set("Sec-Websocket-Version", "13")
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	defer s.tunnel(conn)()
	c := &socket{conn: conn, r: rw.Reader, w: rw.Writer}
	if c.accept(s.name, r) != nil {
		return
	}
	if code, ok := errors.AsType[closeCode](c.echo()); ok {
		_ = c.sendClose(code)
	}
}

// socket is the server's side of a WebSocket connection. It is used by one goroutine.
type socket struct {
	conn net.Conn
	r    *bufio.Reader
	w    *bufio.Writer

	op      byte // of the message whose fragments are being collected; 0 is none
	message []byte
}

// accept sends the answer to the opening handshake, with the first subprotocol that the client offers.
func (c *socket) accept(name string, r *http.Request) error {
	h := http.Header{
		"Upgrade":              {"websocket"},
		"Connection":           {"Upgrade"},
		"Sec-Websocket-Accept": {acceptKey(r.Header.Get("Sec-Websocket-Key"))},
		"X-Echo-Name":          {name},
	}
	if offer, _, _ := strings.Cut(r.Header.Get("Sec-Websocket-Protocol"), ","); strings.TrimSpace(offer) != "" {
		h.Set("Sec-Websocket-Protocol", strings.TrimSpace(offer))
	}
	_ = c.conn.SetDeadline(time.Now().Add(webSocketWrite))
	_, _ = c.w.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	_ = h.Write(c.w)
	_, _ = c.w.WriteString("\r\n")
	return c.w.Flush() // has the first error of the writes before it
}

// echo sends messages back until the connection ends. It returns a closeCode if the client is to be told why.
func (c *socket) echo() error {
	for {
		_ = c.conn.SetReadDeadline(time.Now().Add(webSocketIdle))
		f, err := c.read()
		if err != nil {
			return err
		}
		switch f.op {
		case opPing:
			err = c.send(opPong, f.payload)
		case opPong:
		case opClose:
			return closing(f.payload)
		default:
			err = c.data(f)
		}
		if err != nil {
			return err
		}
	}
}

// data collects the fragments of a message and sends it back when it is complete.
func (c *socket) data(f frame) error {
	if (f.op == opContinuation) == (c.op == 0) {
		return closeProtocol // a fragment of nothing, or a message within another
	}
	if f.op != opContinuation {
		c.op, c.message = f.op, c.message[:0]
	}
	if len(c.message)+len(f.payload) > maxMessage {
		return closeTooBig
	}
	c.message = append(c.message, f.payload...)
	if !f.fin {
		return nil
	}
	op := c.op
	c.op = 0
	if op == opText && !utf8.Valid(c.message) {
		return closeInvalid
	}
	return c.send(op, c.message)
}

// closing returns the code with which to answer a close frame: the client's own, if it is valid.
func closing(payload []byte) closeCode {
	if len(payload) == 0 {
		return closeNoStatus
	}
	if len(payload) == 1 || !utf8.Valid(payload[2:]) {
		return closeProtocol
	}
	code := closeCode(binary.BigEndian.Uint16(payload))
	registered := slices.Contains([]closeCode{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014}, code)
	if !registered && (code < 3000 || code > 4999) {
		return closeProtocol
	}
	return code
}

// frame is one frame from the client, unmasked.
type frame struct {
	fin     bool
	op      byte
	payload []byte
}

// read reads a frame (RFC 6455, section 5.2). It returns a closeCode if the frame is not allowed.
func (c *socket) read() (frame, error) {
	var head [2]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return frame{}, err
	}
	f := frame{fin: head[0]&0x80 != 0, op: head[0] & 0x0f}
	control := f.op >= opClose
	switch {
	case head[0]&0x70 != 0, head[1]&0x80 == 0: // reserved bits; not masked
		return frame{}, closeProtocol
	case f.op > opPong, f.op > opBinary && !control: // no such opcode
		return frame{}, closeProtocol
	case control && (!f.fin || head[1]&0x7f > 125):
		return frame{}, closeProtocol
	}
	n, err := c.length(head[1] & 0x7f)
	if err != nil {
		return frame{}, err
	}
	if n > maxMessage {
		return frame{}, closeTooBig
	}
	var mask [4]byte
	if _, err := io.ReadFull(c.r, mask[:]); err != nil {
		return frame{}, err
	}
	f.payload = make([]byte, n)
	if _, err := io.ReadFull(c.r, f.payload); err != nil {
		return frame{}, err
	}
	for i := range f.payload {
		f.payload[i] ^= mask[i&3]
	}
	return f, nil
}

// length reads the rest of a length that begins with short. The shortest form must be used.
func (c *socket) length(short byte) (uint64, error) {
	var b [8]byte
	switch short {
	case 126:
		if _, err := io.ReadFull(c.r, b[6:]); err != nil {
			return 0, err
		}
		if n := binary.BigEndian.Uint64(b[:]); n > 125 {
			return n, nil
		}
		return 0, closeProtocol
	case 127:
		if _, err := io.ReadFull(c.r, b[:]); err != nil {
			return 0, err
		}
		if n := binary.BigEndian.Uint64(b[:]); n > 0xffff && n>>63 == 0 {
			return n, nil
		}
		return 0, closeProtocol
	}
	return uint64(short), nil
}

// send writes a frame that is a whole message. Servers do not mask.
func (c *socket) send(op byte, payload []byte) error {
	head := []byte{0x80 | op}
	switch n := len(payload); {
	case n <= 125:
		head = append(head, byte(n))
	case n <= 0xffff:
		head = binary.BigEndian.AppendUint16(append(head, 126), uint16(n)) // #nosec G115 -- just compared
	default:
		head = binary.BigEndian.AppendUint64(append(head, 127), uint64(n))
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(webSocketWrite))
	_, _ = c.w.Write(head)
	_, _ = c.w.Write(payload)
	return c.w.Flush() // has the first error of the writes before it
}

func (c *socket) sendClose(code closeCode) error {
	if code == closeNoStatus {
		return c.send(opClose, nil)
	}
	return c.send(opClose, binary.BigEndian.AppendUint16(nil, uint16(code)))
}
