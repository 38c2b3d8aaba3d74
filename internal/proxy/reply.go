package proxy

import (
	"net/http"
	"sync"
	"time"
)

// reply is the http.ResponseWriter of an exchange. It counts what is sent, gives up on HTTP/2 clients that take nothing (HTTP/1 connections do so themselves), and
// tells clients to go while Fairlead drains.
//
// The goroutine of the exchange owns it, but for informational and ask: they are called from others until settle.
type reply struct {
	http.ResponseWriter
	x *exchange

	status int   // of the final response; 0 before
	bytes  int64 // of its body
	err    error // of the first write that failed
	watch  *writeWatch

	mu        sync.Mutex
	settled   bool // no more 1xx
	continued bool // a 100 was sent
}

// Unwrap is for http.ResponseController.
func (w *reply) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w *reply) WriteHeader(status int) {
	if w.status != 0 {
		return
	}
	w.status = status
	if w.mustClose() {
		w.Header()["Connection"] = closeValue
	}
	w.ResponseWriter.WriteHeader(status)
	if b := w.x.body; b != nil {
		b.setPatient()
	}
}

var closeValue = []string{"close"}

// mustClose reports whether the client should be told to go. So it is when Fairlead drains; and when an HTTP/1 request has not been read to its end: what comes
// next on the connection must not be taken for another request, whatever happens to the rest of this one. On HTTP/2 the server makes GOAWAY of it.
func (w *reply) mustClose() bool {
	b := w.x.body
	return w.x.h.proxy.draining() || b != nil && b.http1 && !b.ended.Load()
}

// Write implements io.Writer.
func (w *reply) Write(p []byte) (int, error) {
	if w.blocks(len(p)) {
		w.watch.begin()
		defer w.watch.end()
	}
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	w.failed(err)
	return n, err
}

// FlushError is for http.ResponseController.
func (w *reply) FlushError() error {
	if w.blocks(maxHeld) {
		w.watch.begin()
		defer w.watch.end()
	}
	err := http.NewResponseController(w.ResponseWriter).Flush()
	w.failed(err)
	return err
}

func (w *reply) failed(err error) {
	if err != nil && w.err == nil {
		w.err = err
	}
}

// maxHeld is how much the HTTP/2 server holds of a response before it begins to send.
const maxHeld = 4 << 10

// blocks reports whether a write of n bytes may have to wait for an HTTP/2 client to take what was sent, and so has to be watched.
func (w *reply) blocks(n int) bool {
	limit := w.x.h.proxy.opt.Limits.WriteTimeout
	if w.x.in.ProtoMajor != 2 || limit <= 0 || w.bytes+int64(n) < maxHeld {
		return false
	}
	if w.watch == nil {
		w.watch = newWriteWatch(w.ResponseWriter, limit)
	}
	return true
}

// leave gives an HTTP/2 client the time of one write to take what the server still holds. It is sent when the handler has returned, out of reach of a watch.
func (w *reply) leave() {
	if limit := w.x.h.proxy.opt.Limits.WriteTimeout; w.bytes > 0 && limit > 0 && w.x.in.ProtoMajor == 2 {
		_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(limit))
	}
}

// stalled reports whether the client took nothing for too long.
func (w *reply) stalled() bool { return w.watch.barked() }

// writeWatch breaks off a stream whose client takes nothing. It is not part of the reply, which is used again.
type writeWatch struct{ watchdog }

func newWriteWatch(w http.ResponseWriter, limit time.Duration) *writeWatch {
	return &writeWatch{watchdog{limit: limit, bark: func() { _ = http.NewResponseController(w).SetWriteDeadline(time.Unix(1, 0)) }}}
}

func (w *writeWatch) barked() bool {
	if w == nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.late
}

// release ends the watch: the response writer is not touched any more.
func (w *writeWatch) release() {
	if w != nil {
		w.stop()
	}
}

// informational sends a 1xx response of the backend on, if it is for this client.
func (w *reply) informational(status int, header http.Header) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.settled || !w.x.in.ProtoAtLeast(1, 1) || status == http.StatusContinue && !w.x.expects() {
		return nil
	}
	h := w.Header()
	for name, values := range header {
		if !framing(name) && !forbiddenHeader(name) {
			h[name] = values
		}
	}
	w.inform(status)
	for name := range header {
		delete(h, name)
	}
	return nil
}

// ask tells a client that waits with its body to send it, unless the backend's 100 did so already. net/http would do it by itself, but not without a race
// between that and the other 1xx responses.
func (w *reply) ask() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.settled {
		w.inform(http.StatusContinue)
	}
}

// inform sends a 1xx response, but 100 only once. What the final response will say about the connection is no part of it. w.mu must be held.
func (w *reply) inform(status int) {
	if status == http.StatusContinue {
		if w.continued {
			return
		}
		w.continued = true
	}
	h := w.Header()
	if c, ok := h["Connection"]; ok {
		delete(h, "Connection")
		defer func() { h["Connection"] = c }()
	}
	w.ResponseWriter.WriteHeader(status)
}

// settle ends the time of 1xx responses: from now on the header belongs to the goroutine of the exchange alone.
func (w *reply) settle() {
	w.mu.Lock()
	w.settled = true
	w.mu.Unlock()
}
