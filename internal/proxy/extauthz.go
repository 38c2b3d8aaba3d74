package proxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"

	"github.com/fairlead-io/fairlead/internal/backend"
)

// The gRPC protocol of authorization servers is that of Envoy (envoy.service.auth.v3.Authorization). Its two messages are written and read here field by field, because
// a code generator, its runtime and the definitions of Envoy would be more than all else that this package needs.

const checkMethod = "/envoy.service.auth.v3.Authorization/Check"

// askGRPC calls Check. The request passes if the status in the answer is 0.
func askGRPC(ctx context.Context, x *exchange, a *boundAuth, body []byte) (g grant, d *denial, err error) {
	message := x.checkRequest(a, body)
	frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))) // #nosec G115 -- bounded by the limits on heads and bodies
	frame = append(frame, message...)
	req := &http.Request{
		Method: http.MethodPost, URL: &url.URL{Scheme: "http", Host: a.Pool.Key.Service, Path: checkMethod}, Host: a.Pool.Key.Service + "." + a.Pool.Key.Namespace,
		Header: http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "User-Agent": {"fairlead"}},
		Proto:  "HTTP/2.0", ProtoMajor: 2, ContentLength: int64(len(frame)), Body: io.NopCloser(bytes.NewReader(frame)),
	}
	res, err := a.pool.Do(req.WithContext(ctx), &backend.Attempt{})
	if err != nil {
		return g, nil, fmt.Errorf("ask authorization server: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := readUnary(res)
	if err == nil {
		g, d, err = readCheckResponse(answer)
	}
	if err != nil {
		return grant{}, nil, fmt.Errorf("ask authorization server: %w", err)
	}
	return g, d, nil
}

// readUnary reads the one message of a gRPC response.
func readUnary(res *http.Response) ([]byte, error) {
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answered %d", res.StatusCode)
	}
	data, err := readLimited(res.Body, maxAuthReply)
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	status := res.Trailer.Get("Grpc-Status")
	if status == "" {
		status = res.Header.Get("Grpc-Status")
	}
	switch {
	case len(data) > maxAuthReply:
		return nil, errors.New("the answer is too large")
	case status != "0":
		return nil, fmt.Errorf("grpc-status %.10q", status)
	case len(data) < 5 || data[0] != 0 || binary.BigEndian.Uint32(data[1:5]) != uint32(len(data)-5): // #nosec G115 -- at most maxAuthReply
		return nil, errors.New("the answer is not one message")
	}
	return data[5:], nil
}

// checkRequest is a CheckRequest for the request of the exchange.
func (x *exchange) checkRequest(a *boundAuth, body []byte) []byte {
	var h protoWriter
	h.text(1, x.entry.RequestID)
	h.text(2, x.in.Method)
	have := x.authHeader()
	have["Host"] = []string{x.in.Host}
	for _, name := range sortedNames(have) {
		if len(a.RequestHeaders) > 0 && !slices.Contains(a.RequestHeaders, name) {
			continue
		}
		var pair protoWriter
		pair.text(1, strings.ToLower(name))
		pair.text(2, strings.Join(have[name], ","))
		h.message(3, pair)
	}
	target := x.path
	if x.in.URL.RawQuery != "" {
		target += "?" + x.in.URL.RawQuery
	}
	h.text(4, target)
	h.text(5, x.in.Host)
	h.text(6, x.scheme)
	h.number(9, uint64(x.in.ContentLength)) // #nosec G115 -- -1 is written so
	h.text(10, x.in.Proto)
	switch {
	case len(body) > 0 && utf8.Valid(body):
		h.text(11, string(body))
	case len(body) > 0:
		h.bytes(12, body)
	}
	var socket, address, source, request, attributes, check protoWriter
	socket.text(2, x.entry.ClientIP)
	address.message(1, socket)
	source.message(1, address)
	request.message(2, h)
	attributes.message(1, source)
	attributes.message(4, request)
	check.message(1, attributes)
	return check
}

func sortedNames(h http.Header) []string {
	names := make([]string, 0, len(h))
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// protoWriter is a message of protocol buffers while it is written.
type protoWriter []byte

func (w *protoWriter) number(field int, n uint64) {
	if n != 0 {
		*w = binary.AppendUvarint(binary.AppendUvarint(*w, uint64(field)<<3), n) // #nosec G115 -- a small constant
	}
}

func (w *protoWriter) bytes(field int, data []byte) {
	*w = binary.AppendUvarint(*w, uint64(field)<<3|2) // #nosec G115 -- a small constant
	*w = append(binary.AppendUvarint(*w, uint64(len(data))), data...)
}

// text writes a string, which must be UTF-8: a byte that is none becomes an exclamation mark, so that it cannot hide what is around it.
func (w *protoWriter) text(field int, s string) {
	if s != "" {
		w.bytes(field, []byte(strings.ToValidUTF8(s, "!")))
	}
}

func (w *protoWriter) message(field int, m protoWriter) { w.bytes(field, m) }

var errProto = errors.New("the answer is malformed")

// protoField is one field of a message: a number, or bytes.
type protoField struct {
	field  int
	number uint64
	data   []byte
}

// readProto calls visit for each field of a message.
func readProto(m []byte, visit func(protoField) error) error {
	for len(m) > 0 {
		key, n := binary.Uvarint(m)
		if n <= 0 || key>>3 == 0 || key>>3 > 1<<29 {
			return errProto
		}
		m = m[n:]
		f := protoField{field: int(key >> 3)} // #nosec G115 -- at most 29 bits
		switch key & 7 {
		case 0:
			if f.number, n = binary.Uvarint(m); n <= 0 {
				return errProto
			}
			m = m[n:]
		case 1, 5:
			if n = 8; key&7 == 5 {
				n = 4
			}
			if len(m) < n {
				return errProto
			}
			m = m[n:]
			continue // no field that is looked at
		case 2:
			size, n := binary.Uvarint(m)
			if n <= 0 || size > uint64(len(m)-n) {
				return errProto
			}
			f.data = m[n : n+int(size)] // #nosec G115 -- not more than there is
			m = m[n+int(size):]         // #nosec G115 -- the same
		default:
			return errProto
		}
		if err := visit(f); err != nil {
			return err
		}
	}
	return nil
}

// readCheckResponse reads a CheckResponse. An answer that asks for something that is not done here is an error, for the server means it.
func readCheckResponse(m []byte) (g grant, d *denial, err error) {
	code, denied := uint64(0), []byte(nil)
	err = readProto(m, func(f protoField) error {
		switch f.field {
		case 1:
			return readProto(f.data, func(s protoField) error {
				if s.field == 1 {
					code = s.number
				}
				return nil
			})
		case 2:
			denied = f.data
		case 3:
			return g.read(f.data)
		}
		return nil
	})
	switch {
	case err != nil:
		return grant{}, nil, err
	case code == 0 && denied == nil:
		return g, nil, nil
	}
	d = &denial{status: http.StatusForbidden, header: http.Header{}}
	if err := d.read(denied); err != nil {
		return grant{}, nil, err
	}
	return grant{}, d, nil
}

// read reads an OkHttpResponse.
func (g *grant) read(m []byte) error {
	return readProto(m, func(f protoField) error {
		switch f.field {
		case 2:
			return readHeaderOption(f.data, &g.request)
		case 5:
			if name := http.CanonicalHeaderKey(string(f.data)); grantable(name) {
				g.request = append(g.request, headerOp{opRemove, name, nil})
			}
		case 6:
			return readHeaderOption(f.data, &g.response)
		case 7, 8:
			return errors.New("it asks for a change of the query, which is not supported")
		}
		return nil
	})
}

// read reads a DeniedHttpResponse. Its status is 403 unless it says another that is not a success.
func (d *denial) read(m []byte) error {
	var ops []headerOp
	err := readProto(m, func(f protoField) error {
		switch f.field {
		case 1:
			return readProto(f.data, func(s protoField) error {
				if s.field == 1 && s.number >= 300 && s.number <= 599 {
					d.status = int(s.number) // #nosec G115 -- three digits
				}
				return nil
			})
		case 2:
			return readHeaderOption(f.data, &ops)
		case 3:
			d.body = f.data
		}
		return nil
	})
	change(d.header, ops)
	return err
}

// readHeaderOption reads a HeaderValueOption: a header that is set, or added to if it says append.
func readHeaderOption(m []byte, ops *[]headerOp) error {
	op := headerOp{kind: opSet}
	value := ""
	err := readProto(m, func(f protoField) error {
		switch f.field {
		case 1:
			return readProto(f.data, func(p protoField) error {
				switch p.field {
				case 1:
					op.name = http.CanonicalHeaderKey(string(p.data))
				case 2, 3:
					value = string(p.data)
				}
				return nil
			})
		case 2:
			return readProto(f.data, func(b protoField) error {
				if b.field == 1 && b.number != 0 {
					op.kind = opAdd
				}
				return nil
			})
		}
		return nil
	})
	if err != nil {
		return err
	}
	if grantable(op.name) && httpguts.ValidHeaderFieldValue(value) {
		op.value = []string{value}
		*ops = append(*ops, op)
	}
	return nil
}
