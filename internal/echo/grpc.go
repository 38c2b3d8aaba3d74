package echo

import (
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strings"
)

// The status codes of gRPC that serveGRPC gives.
const (
	grpcOK       = "0"
	grpcInternal = "13"
)

// isGRPC says whether r is a gRPC call (and not gRPC-Web).
func isGRPC(r *http.Request) bool {
	rest, ok := strings.CutPrefix(r.Header.Get("Content-Type"), "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// serveGRPC answers a call of any method, unary or streaming, with its own messages, each as soon as it has arrived. It needs no schema.
func serveGRPC(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor < 2 {
		http.Error(w, "gRPC needs HTTP/2", http.StatusHTTPVersionNotSupported)
		return
	}
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	w.WriteHeader(http.StatusOK)
	control := http.NewResponseController(w)
	_ = control.Flush()
	status, message := grpcOK, ""
	for {
		err := copyMessage(w, r.Body)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			status, message = grpcInternal, "message cut short"
			break
		}
		if control.Flush() != nil {
			return
		}
	}
	w.Header().Set(http.TrailerPrefix+"Grpc-Status", status)
	if message != "" {
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", message)
	}
}

// copyMessage copies one length-prefixed message: a flag, four bytes of length, the message. It returns io.EOF if there is none.
func copyMessage(w io.Writer, r io.Reader) error {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	if _, err := w.Write(head[:]); err != nil {
		return err
	}
	_, err := io.CopyN(w, r, int64(binary.BigEndian.Uint32(head[1:])))
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF // the message had begun
	}
	return err
}
