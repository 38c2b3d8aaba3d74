package echo

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Answer is the body of an answer: the request as it arrived.
type Answer struct {
	Name   string `json:"name"` // of the server
	Method string `json:"method"`
	Host   string `json:"host"`
	Path   string `json:"path"`            // byte for byte
	Query  string `json:"query,omitempty"` // byte for byte, without the question mark
	Proto  string `json:"proto"`
	Remote string `json:"remote"`
	TLS    *TLS   `json:"tls,omitempty"`

	Headers  http.Header `json:"headers"`
	Trailers http.Header `json:"trailers,omitempty"`

	BodyBytes  int64  `json:"body_bytes"`
	BodySHA256 string `json:"body_sha256,omitempty"` // hex; empty without a body
	BodyError  string `json:"body_error,omitempty"`  // why the body could not be read to its end
}

// TLS describes the connection that a request arrived on.
type TLS struct {
	Version string `json:"version"`
	SNI     string `json:"sni,omitempty"`
	ALPN    string `json:"alpn,omitempty"`
}

// Limits on what the path may ask for.
const (
	maxDelay    = time.Minute
	maxBytes    = 1 << 30
	maxEvents   = 100_000
	maxInterval = 10 * time.Second
)

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer s.enter()()
	w.Header().Set("X-Echo-Name", s.name)
	switch {
	case isGRPC(r):
		serveGRPC(w, r)
		return
	case isWebSocket(r):
		s.serveWebSocket(w, r)
		return
	}
	if err := s.perform(w, r); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}

// perform does what the end of the path asks for. It returns an error, and has written nothing, if it asks for something impossible.
func (s *Server) perform(w http.ResponseWriter, r *http.Request) error {
	verb, arg := command(r.URL.Path)
	switch verb {
	case "status":
		code, err := number(arg, 200, 599)
		if err != nil {
			return fmt.Errorf("read status: %w", err)
		}
		s.answer(w, r, code)
	case "delay":
		d, err := duration(arg, maxDelay)
		if err != nil {
			return fmt.Errorf("read delay: %w", err)
		}
		if sleep(r.Context(), d) {
			s.answer(w, r, http.StatusOK)
		}
	case "bytes":
		n, err := number(arg, 0, maxBytes)
		if err != nil {
			return fmt.Errorf("read number of bytes: %w", err)
		}
		download(w, n)
	case "stream":
		return s.stream(w, r)
	case "reflect":
		reflect(w, r)
	case "hints":
		w.Header().Set("Link", "</style.css>; rel=preload; as=style")
		w.WriteHeader(http.StatusEarlyHints)
		s.answer(w, r, http.StatusOK)
	default:
		s.answer(w, r, http.StatusOK)
	}
	return nil
}

// command returns what the last segments of a path ask for.
func command(path string) (verb, arg string) {
	rest, last := cutLast(path)
	switch last {
	case "stream", "reflect", "hints":
		return last, ""
	}
	_, verb = cutLast(rest)
	switch verb {
	case "status", "delay", "bytes":
		return verb, last
	}
	return "", ""
}

func cutLast(path string) (before, last string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

func number(s string, low, high int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("%q is not a number from %d to %d", s, low, high)
	}
	return n, nil
}

func duration(s string, limit time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if seconds, failed := strconv.ParseFloat(s, 64); failed == nil && seconds >= 0 && seconds <= limit.Seconds() {
		d, err = time.Duration(seconds*float64(time.Second)), nil
	}
	if err != nil || d < 0 || d > limit {
		return 0, fmt.Errorf("%q is not a duration from 0s to %s, such as 250ms", s, limit)
	}
	return d, nil
}

// sleep waits for d and says whether the client is still there.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// answer reads the body and describes the request.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, code int) {
	path, query, _ := strings.Cut(r.RequestURI, "?")
	a := Answer{
		Name: s.name, Method: r.Method, Host: r.Host, Path: path, Query: query, Proto: r.Proto, Remote: r.RemoteAddr,
		Headers: r.Header, TLS: describeTLS(r.TLS),
	}
	if r.Body != nil && r.Body != http.NoBody {
		sum := sha256.New()
		n, err := io.Copy(sum, r.Body)
		if a.BodyBytes = n; n > 0 {
			a.BodySHA256 = hex.EncodeToString(sum.Sum(nil))
		}
		if err != nil {
			a.BodyError = err.Error()
		}
		a.Trailers = r.Trailer
	}
	if code == http.StatusNoContent || code == http.StatusNotModified {
		w.WriteHeader(code)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	b, err := json.Marshal(a)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(b)+1))
	w.WriteHeader(code)
	_, _ = w.Write(append(b, '\n'))
}

func describeTLS(c *tls.ConnectionState) *TLS {
	if c == nil {
		return nil
	}
	return &TLS{Version: tls.VersionName(c.Version), SNI: c.ServerName, ALPN: c.NegotiatedProtocol}
}

// pattern is what downloads consist of.
var pattern = []byte(strings.Repeat("The quick brown fox jumps over the lazy dog, 64 bytes at a time\n", 512))

func download(w http.ResponseWriter, n int) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(n))
	for n > 0 {
		written, err := w.Write(pattern[:min(n, len(pattern))])
		if err != nil {
			return
		}
		n -= written
	}
}

// stream sends server-sent events.
func (s *Server) stream(w http.ResponseWriter, r *http.Request) error {
	n, interval := 5, 100*time.Millisecond
	var err error
	if v := r.URL.Query().Get("n"); v != "" {
		if n, err = number(v, 0, maxEvents); err != nil {
			return fmt.Errorf("read n: %w", err)
		}
	}
	if v := r.URL.Query().Get("interval"); v != "" {
		if interval, err = duration(v, maxInterval); err != nil {
			return fmt.Errorf("read interval: %w", err)
		}
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	control := http.NewResponseController(w)
	for i := range n {
		if i > 0 && !sleep(r.Context(), interval) {
			return nil
		}
		if _, err := fmt.Fprintf(w, "id: %d\ndata: %s %d\n\n", i+1, s.name, i+1); err != nil || control.Flush() != nil {
			return nil //nolint:nilerr // the client has gone
		}
	}
	return nil
}

// reflect sends the body back while it is still arriving.
func reflect(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	_ = control.EnableFullDuplex() // HTTP/2 always is, and says it cannot be asked
	w.Header().Set("Content-Type", "application/octet-stream")
	w.WriteHeader(http.StatusOK)
	_ = control.Flush()
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Body.Read(buf)
		if _, failed := w.Write(buf[:n]); failed != nil || err != nil {
			return
		}
		if control.Flush() != nil {
			return
		}
	}
}
