package watch

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"k8s.io/klog/v2"
)

// redirectKlog makes what the Kubernetes libraries log part of our log. They have one logger for the whole process: the first one that is given stays.
var redirectKlog = func() func(*slog.Logger) {
	var once sync.Once
	return func(log *slog.Logger) {
		once.Do(func() {
			klog.SetSlogLogger(slog.New(&quietHandler{next: log.Handler(), state: &quietState{now: time.Now}}))
		})
	}
}()

// repeatAfter is how long a message of the libraries is not repeated.
const repeatAfter = time.Minute

// quietHandler passes on what the Kubernetes libraries say: errors as warnings, each at most once a minute, and the rest for debugging. That a watch fails is
// for debugging, too, because Cluster says it better.
type quietHandler struct {
	next  slog.Handler
	state *quietState
}

type quietState struct {
	now func() time.Time

	mu      sync.Mutex
	said    map[string]time.Time
	dropped map[string]int
}

// Enabled leaves it to the next handler, with the level that the record will have.
func (h *quietHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, quieter(level))
}

func quieter(level slog.Level) slog.Level {
	switch {
	case level >= slog.LevelWarn:
		return slog.LevelWarn
	case level < slog.LevelInfo:
		return level + slog.LevelDebug // the details that klog calls V(1) and up
	}
	return slog.LevelDebug
}

// Handle passes a record on, or not.
func (h *quietHandler) Handle(ctx context.Context, r slog.Record) error {
	level := quieter(r.Level)
	if r.Message == "Failed to watch" {
		level = slog.LevelDebug
	}
	if !h.next.Enabled(ctx, level) {
		return nil
	}
	out := slog.NewRecord(r.Time, level, "kubernetes client: "+r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool { out.AddAttrs(a); return true })
	if level >= slog.LevelWarn {
		dropped, ok := h.state.allow(r.Message)
		if !ok {
			return nil
		}
		if dropped > 0 {
			out.AddAttrs(slog.Int("repeated", dropped))
		}
	}
	return h.next.Handle(ctx, out)
}

// allow reports whether a message may be said now, and how often it was not since it was said last.
func (s *quietState) allow(message string) (dropped int, ok bool) {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if last, said := s.said[message]; said && now.Sub(last) < repeatAfter {
		s.dropped[message]++
		return 0, false
	}
	if s.said == nil || len(s.said) > 1000 { // messages are constants, but that is a promise of others
		s.said, s.dropped = map[string]time.Time{}, map[string]int{}
	}
	dropped = s.dropped[message]
	s.said[message] = now
	delete(s.dropped, message)
	return dropped, true
}

// WithAttrs is part of slog.Handler.
func (h *quietHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &quietHandler{next: h.next.WithAttrs(attrs), state: h.state}
}

// WithGroup is part of slog.Handler.
func (h *quietHandler) WithGroup(name string) slog.Handler {
	return &quietHandler{next: h.next.WithGroup(name), state: h.state}
}
