package watch

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// logged is a handler that keeps what it is told.
type logged struct {
	level slog.Level

	mu    sync.Mutex
	lines []string
}

func (l *logged) Enabled(_ context.Context, level slog.Level) bool { return level >= l.level }

func (l *logged) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	l.lines = append(l.lines, line)
	return nil
}

func (l *logged) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l *logged) WithGroup(string) slog.Handler      { return l }

func (l *logged) count(part string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

func TestLibrariesAreQuiet(t *testing.T) {
	now := time.Now()
	var log logged
	log.level = slog.LevelDebug
	h := &quietHandler{next: &log, state: &quietState{now: func() time.Time { return now }}}
	say := slog.New(h.WithAttrs(nil).WithGroup("g"))
	for range 10 {
		say.Error("it broke", "error", errors.New("x"))
		say.Error("Failed to watch")
	}
	say.Info("caches populated")
	if say.Enabled(t.Context(), -4) {
		t.Error("details of details are let through")
	}
	now = now.Add(time.Hour)
	say.Error("it broke")
	want := map[string]int{"WARN kubernetes client: it broke": 2, "repeated=9": 1, "DEBUG kubernetes client: Failed to watch": 10, "DEBUG kubernetes client: caches": 1}
	for part, n := range want {
		if got := log.count(part); got != n {
			t.Errorf("%q: %d times, want %d", part, got, n)
		}
	}
	if n := log.count("ERROR"); n != 0 {
		t.Errorf("%d errors", n)
	}
}

// An outage of an hour is told once a minute, its end once; and an installation that waits says what for.
func TestTroubleIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFake(t)
		a.put(oneOfEach()...)
		a.fault = func(w http.ResponseWriter, r *http.Request) bool {
			return parseCall(r).kind == "services" && refuse(metav1.StatusReasonForbidden, http.StatusForbidden)(w, r)
		}
		var log logged
		c := open(t, a, func(o *Options) { o.Log = slog.New(&log) })
		defer c.Close()
		go func() { _ = c.Start(t.Context()) }()
		advance(35 * time.Second)
		if n := log.count("nothing is served before"); n != 3 || log.count("services") < n || log.count("not now") < n {
			t.Errorf("told %d times what it is waiting for: %v", n, log.lines)
		}
		a.set(func() { a.fault = nil })
		advance(time.Minute)
		a.stop(true)
		advance(time.Hour)
		if n := log.count("the last known objects keep serving"); n < 59 || n > 61 {
			t.Errorf("told %d times in an hour", n)
		}
		a.stop(false)
		advance(time.Minute)
		if n := log.count("watched again"); n != 1 {
			t.Errorf("told %d times that it is over", n)
		}
		if n := log.count("WARN kubernetes client"); n != 0 {
			t.Errorf("the libraries were heard %d times", n)
		}
	})
}
