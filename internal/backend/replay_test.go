package backend

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/fairlead-io/fairlead/internal/route"
)

func sourceOf(r io.Reader, length int64) *source {
	return newSource(&http.Request{Body: io.NopCloser(r), ContentLength: length}, 0, plenty())
}

// plenty is more memory than any test needs.
func plenty() *reserve {
	m := new(reserve)
	m.left.Store(1 << 30)
	return m
}

func mustOpen(t *testing.T, s *source) io.ReadCloser {
	t.Helper()
	b, err := s.open()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBodyIsReadAgainFromTheBeginning(t *testing.T) {
	for _, size := range []int{0, 1, 4096, maxReplay - 1, maxReplay} {
		for _, read := range []int{0, 1, size / 2, size} {
			want := strings.Repeat("0123456789", size/10+1)[:size]
			s := sourceOf(strings.NewReader(want), -1)
			first := mustOpen(t, s)
			if _, err := io.ReadFull(first, make([]byte, min(read, size))); err != nil {
				t.Fatal(err)
			}
			second := mustOpen(t, s)
			if n, err := first.Read(make([]byte, 1)); n != 0 || !errors.Is(err, errBodyOver) {
				t.Errorf("the first reader goes on: %d, %v", n, err)
			}
			if got, err := io.ReadAll(second); string(got) != want || err != nil {
				t.Errorf("size %d, %d read before: got %d bytes, %v", size, read, len(got), err)
			}
			third := mustOpen(t, s)
			s.sent()
			if got, err := io.ReadAll(third); string(got) != want || err != nil {
				t.Errorf("third time: got %d bytes, %v", len(got), err)
			}
		}
	}
}

func TestLargeBodyIsNotKept(t *testing.T) {
	s := sourceOf(strings.NewReader(strings.Repeat("x", 2*maxReplay)), 2*maxReplay)
	first := mustOpen(t, s)
	if _, err := io.ReadFull(first, make([]byte, maxReplay+1)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.open(); !errors.Is(err, errBodyPassed) || s.replayable() {
		t.Errorf("err = %v", err)
	}
	if rest, err := io.ReadAll(first); len(rest) != maxReplay-1 || err != nil {
		t.Errorf("the first reader gets %d more bytes, %v", len(rest), err)
	}
}

func TestErrorsOfBody(t *testing.T) {
	broken := errors.New("broken")
	tests := []struct {
		name   string
		body   io.Reader
		length int64
		want   error // as read
		fault  error
	}{
		{"whole", strings.NewReader("hello"), 5, nil, nil},
		{"of unknown length", strings.NewReader("hello"), -1, nil, nil},
		{"with the end at once", iotest.DataErrReader(strings.NewReader("hello")), 5, nil, nil},
		{"short", strings.NewReader("hell"), 5, io.ErrUnexpectedEOF, io.ErrUnexpectedEOF},
		{"short with the end at once", iotest.DataErrReader(strings.NewReader("hell")), 5, io.ErrUnexpectedEOF, io.ErrUnexpectedEOF},
		{"long", strings.NewReader("hello!"), 5, nil, errBodyLong},
		{"broken", io.MultiReader(strings.NewReader("he"), iotest.ErrReader(broken)), 5, broken, broken},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := sourceOf(tt.body, tt.length)
			for range 2 { // and as it is read again
				if _, err := io.ReadAll(mustOpen(t, s)); !errors.Is(err, tt.want) {
					t.Errorf("read: %v, want %v", err, tt.want)
				}
				if err := s.fault(); !errors.Is(err, tt.fault) || (err == nil) != (tt.fault == nil) {
					t.Errorf("fault: %v, want %v", err, tt.fault)
				}
			}
		})
	}
}

func TestNoBody(t *testing.T) {
	for _, r := range []*http.Request{{}, {Body: http.NoBody}} {
		s := newSource(r, 0, plenty())
		s.sent()
		s.end()
		if s != nil || !s.replayable() || s.fault() != nil {
			t.Errorf("%+v", s)
		}
	}
}

func TestBodyIsNotReadAfterTheEnd(t *testing.T) {
	s := sourceOf(strings.NewReader("hello"), 5)
	b := mustOpen(t, s)
	s.end()
	if n, err := b.Read(make([]byte, 5)); n != 0 || !errors.Is(err, errBodyOver) || s.fault() != nil {
		t.Errorf("%d, %v, fault %v", n, err, s.fault())
	}
}

// A reader that is in the middle of a Read when the body is opened again must not take anything away from the next.
func TestReadThatComesTooLateLosesNothing(t *testing.T) {
	pr, pw := io.Pipe()
	s := sourceOf(pr, -1)
	first := mustOpen(t, s)
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = first.Read(make([]byte, 3)) })
	_, _ = pw.Write([]byte("ab")) // by now it is reading
	wg.Wait()
	wg.Go(func() { _, _ = first.Read(make([]byte, 3)) })
	eventually(t, "the first reader waits", func() bool {
		if s.reading.TryLock() {
			s.reading.Unlock()
			return false
		}
		return true
	})
	second := mustOpen(t, s)
	wg.Go(func() {
		if got, err := io.ReadAll(second); string(got) != "abcdef" || err != nil {
			t.Errorf("second reader: %q, %v", got, err)
		}
	})
	_, _ = pw.Write([]byte("cdef"))
	_ = pw.Close()
	wg.Wait()
}

// However the body is read, opened again and read on, the last reader gets all of it.
func FuzzReplay(f *testing.F) {
	f.Add(uint64(1), uint32(10))
	f.Add(uint64(2), uint32(maxReplay))
	f.Add(uint64(3), uint32(3*maxReplay))
	f.Fuzz(func(t *testing.T, seed uint64, size uint32) {
		rng := rand.New(rand.NewPCG(seed, 0))
		want := make([]byte, size%(4*maxReplay))
		for i := range want {
			want[i] = byte(rng.Uint32())
		}
		s := sourceOf(iotest.HalfReader(bytes.NewReader(want)), int64(len(want)))
		var got []byte
		b := mustOpen(t, s)
		for {
			if rng.IntN(5) == 0 {
				if again, err := s.open(); err == nil {
					b, got = again, nil
				} else if len(got) <= maxReplay/2 {
					t.Fatalf("after %d bytes: %v", len(got), err)
				}
			}
			p := make([]byte, 1+rng.IntN(maxReplay/2))
			n, err := b.Read(p)
			got = append(got, p[:n]...)
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Fatal(err)
				}
				break
			}
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("got %d bytes that are not the %d that were sent", len(got), len(want))
		}
	})
}

// What bodies hold is bounded: each by what its pool says, and all together. What one has held is there for the next.
func TestMemoryOfBodies(t *testing.T) {
	const total = 300 << 10
	m := new(reserve)
	m.left.Store(total)
	open := func(size, limit int) *source {
		s := newSource(&http.Request{Body: io.NopCloser(strings.NewReader(strings.Repeat("x", size))), ContentLength: int64(size)}, limit, m)
		if n, err := io.Copy(io.Discard, mustOpen(t, s)); n != int64(size) || err != nil {
			t.Fatalf("read %d bytes, %v", n, err)
		}
		return s
	}
	for _, tt := range []struct {
		size, limit int
		kept        bool
	}{
		{1, 1, true}, {2, 1, false}, {maxReplay, 0, true}, {maxReplay + 1, 0, false}, {200 << 10, 200 << 10, true}, {200<<10 + 1, 200 << 10, false}, {400 << 10, 1 << 20, false},
	} {
		s := open(tt.size, tt.limit)
		if s.replayable() != tt.kept {
			t.Errorf("%d bytes with a limit of %d: kept is %v", tt.size, tt.limit, !tt.kept)
		}
		s.end()
		if left := m.left.Load(); left != total {
			t.Errorf("%d bytes with a limit of %d: %d bytes are left of the memory when it has ended", tt.size, tt.limit, left)
		}
	}
	all := []*source{open(100<<10, 1<<20), open(100<<10, 1<<20), open(100<<10, 1<<20), open(3<<10, 1<<20)}
	for i, want := range []bool{true, true, false, true} {
		if all[i].replayable() != want {
			t.Errorf("body %d of several: kept is %v", i, !want)
		}
	}
	for _, s := range all {
		s.end()
		s.end()
	}
	if left := m.left.Load(); left != total {
		t.Errorf("%d bytes are left in the end", left)
	}
}

// A pool may have longer bodies sent again, and its requests give back what they held, however they end.
func TestReplayLimitOfPool(t *testing.T) {
	for _, tt := range []struct {
		limit int
		words []string
		want  string
	}{
		{0, []string{"503", "200"}, "503"},
		{200 << 10, []string{"503", "200"}, "200"},
		{200 << 10, []string{"503"}, "503"},
		{200 << 10, []string{"reset"}, "backend-reset"},
	} {
		withCare(t, Options{MaxResets: 100}, route.Care{Replay: tt.limit}, []string{"a:1"}, func(t *testing.T, n *network, s *Set, p *Pool) {
			n.set("a:1", &script{words: tt.words})
			before := s.bodies.left.Load()
			r := &reply{Attempt: Attempt{Retry: &route.Retry{Attempts: 1, Codes: []int{503}}}}
			res, err := p.Do(newRequest(t, "PUT", "a", strings.Repeat("x", 150<<10)), &r.Attempt)
			got := ""
			if r.err = err; err == nil {
				got = strconv.Itoa(res.StatusCode)
				_ = res.Body.Close()
			} else {
				got = string(r.reason())
			}
			if got != tt.want {
				t.Errorf("limit %d, %v: got %s, want %s", tt.limit, tt.words, got, tt.want)
			}
			if left := s.bodies.left.Load(); left != before {
				t.Errorf("limit %d, %v: %d bytes of memory are gone", tt.limit, tt.words, before-left)
			}
		})
	}
}
