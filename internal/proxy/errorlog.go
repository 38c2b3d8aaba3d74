package proxy

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"sync/atomic"
	"time"
)

// errorLog is where the servers of the standard library complain. It is the clients who decide what they write and how much of it, so that it is worth a debug
// message, and not more than ten a second.
type errorLog struct {
	log  *slog.Logger
	next atomic.Int64 // when the next message may be written
	lost atomic.Int64 // since the last one
}

const errorLogInterval = 100 * time.Millisecond

func newErrorLog(l *slog.Logger, listener string) *log.Logger {
	return log.New(&errorLog{log: l.With("listener", listener)}, "", 0)
}

// Write implements io.Writer.
func (e *errorLog) Write(p []byte) (int, error) {
	if !e.log.Enabled(context.Background(), slog.LevelDebug) {
		return len(p), nil
	}
	now, next := int64(clock()), e.next.Load()
	if now < next || !e.next.CompareAndSwap(next, now+int64(errorLogInterval)) {
		e.lost.Add(1)
		return len(p), nil
	}
	const most = 500
	text := bytes.TrimSpace(p)
	e.log.Debug("http server", "message", string(text[:min(len(text), most)]), "lost", e.lost.Swap(0))
	return len(p), nil
}
