package telemetry

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-io/fairlead/internal/route"
)

// fullEntry has every field set.
func fullEntry() *Entry {
	return &Entry{
		Time:      time.Date(2026, 3, 1, 13, 30, 5, 123456789, time.FixedZone("", 3600)),
		RequestID: "0198a3", ClientIP: "203.0.113.9", PeerIP: "10.0.0.1", Method: "GET", Scheme: "https", Host: "shop.example.com",
		Path: "/cart", Query: "id=7&token=s3cret", Proto: "HTTP/2.0", Status: 502, BytesIn: 12, BytesOut: 3456,
		Duration: 1234567 * time.Nanosecond, BackendDuration: time.Millisecond, FirstByte: 500 * time.Microsecond,
		RouteKind: "HTTPRoute", RouteNamespace: "shop", RouteName: "web", Rule: "spec.rules[0].matches[1]", Listener: "infra/gw/https",
		Backend: "shop/web:80", Endpoint: "10.1.2.3:8080", Retries: 1,
		TLSVersion: tls.VersionTLS13, TLSCipher: tls.TLS_AES_128_GCM_SHA256, SNI: "shop.example.com",
		UserAgent: "curl/8", Referer: "https://example.org/?q=private", Reason: route.BackendReset, Detail: "read: connection reset by peer",
	}
}

// written returns what a log with these options writes for e.
func written(t testing.TB, opt AccessLogOptions, e *Entry) string {
	t.Helper()
	var b bytes.Buffer
	l := NewAccessLog(&b, opt)
	l.Write(e)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestAccessLogLine(t *testing.T) {
	tests := []struct {
		name string
		opt  AccessLogOptions
		in   *Entry
		want string
	}{
		{"every field", AccessLogOptions{}, fullEntry(), `{"ts":"2026-03-01T12:30:05.123456789Z","request_id":"0198a3","client_ip":"203.0.113.9","peer_ip":"10.0.0.1",` +
			`"method":"GET","scheme":"https","host":"shop.example.com","path":"/cart","query":"id=7&token=s3cret","proto":"HTTP/2.0","status":502,"bytes_in":12,` +
			`"bytes_out":3456,"duration_ms":1.234,"backend_ms":1.000,"ttfb_ms":0.500,` +
			`"route":{"kind":"HTTPRoute","namespace":"shop","name":"web","rule":"spec.rules[0].matches[1]"},"listener":"infra/gw/https","backend":"shop/web:80",` +
			`"endpoint":"10.1.2.3:8080","retries":1,"tls":{"version":"1.3","cipher":"TLS_AES_128_GCM_SHA256","sni":"shop.example.com"},"user_agent":"curl/8",` +
			`"referer":"https://example.org/?q=private","reason":"backend-reset","detail":"read: connection reset by peer"}`},
		{"no field", AccessLogOptions{}, &Entry{}, `{"ts":"0001-01-01T00:00:00Z","status":0,"bytes_in":0,"bytes_out":0,"duration_ms":0.000}`},
		{
			"clock went back",
			AccessLogOptions{},
			&Entry{Duration: -time.Second, BackendDuration: -1, FirstByte: -1},
			`{"ts":"0001-01-01T00:00:00Z","status":0,"bytes_in":0,"bytes_out":0,"duration_ms":0.000}`,
		},
		{
			"TLS that has no name here",
			AccessLogOptions{},
			&Entry{TLSVersion: 0x0301, TLSCipher: 0xabcd},
			`{"ts":"0001-01-01T00:00:00Z","status":0,"bytes_in":0,"bytes_out":0,"duration_ms":0.000,"tls":{"version":"0x0301","cipher":"0xabcd"}}`,
		},
		{"SNI alone is no TLS", AccessLogOptions{}, &Entry{SNI: "x"}, `{"ts":"0001-01-01T00:00:00Z","status":0,"bytes_in":0,"bytes_out":0,"duration_ms":0.000}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want+"\n", written(t, tt.opt, tt.in)); diff != "" {
				t.Errorf("line differs (-want +got):\n%s", diff)
			}
		})
	}
}

// decoded returns the members of the line that a log writes for e.
func decoded(t testing.TB, opt AccessLogOptions, e *Entry) map[string]any {
	t.Helper()
	line := written(t, opt, e)
	if strings.Count(line, "\n") != 1 || !strings.HasSuffix(line, "\n") {
		t.Fatalf("not one line: %q", line)
	}
	for i := range len(line) - 1 {
		if line[i] < ' ' || line[i] == 0x7f {
			t.Fatalf("control character %#x in %q", line[i], line)
		}
	}
	if !utf8.ValidString(line) {
		t.Fatalf("not UTF-8: %q", line)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(line), &got); err != nil {
		t.Fatalf("%v in %q", err, line)
	}
	return got
}

func TestAccessLogRedaction(t *testing.T) {
	tests := []struct{ name, query, want string }{
		{"values", "a=1&b=two", "a=***&b=***"},
		{"no value", "a=&b", "a=***&***"},
		{"more signs", "a=b=c", "a=***"},
		{"empty parameters", "&&a=1&", "&&a=***"},
		{"semicolons do not separate", "a=1;b=2", "a=***"},
		{"names are escaped", "a\"\n=1", "a\"\n=***"},
		{"none", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := decoded(t, AccessLogOptions{RedactQuery: true}, &Entry{Query: tt.query, Referer: "http://other/?" + tt.query})
			query, _ := got["query"].(string)
			if query != tt.want {
				t.Errorf("query is %q, want %q", query, tt.want)
			}
			if referer := "http://other/?" + tt.want; got["referer"] != referer {
				t.Errorf("referer is %q, want %q", got["referer"], referer)
			}
		})
	}
	t.Run("referer without query", func(t *testing.T) {
		if got := decoded(t, AccessLogOptions{RedactQuery: true}, &Entry{Referer: "http://other/a=b"}); got["referer"] != "http://other/a=b" {
			t.Errorf("referer is %q, want it unchanged", got["referer"])
		}
	})
	t.Run("bounded", func(t *testing.T) {
		got := decoded(t, AccessLogOptions{RedactQuery: true}, &Entry{Query: strings.Repeat("a=1&", 100_000)})
		if n := len(got["query"].(string)); n > 3000 {
			t.Errorf("query has %d bytes, want about 2048", n)
		}
	})
}

func TestAccessLogCutsLongValues(t *testing.T) {
	tests := []struct {
		name  string
		limit int
		in    string
		want  string
	}{
		{"fits", 5, "abcde", "abcde"},
		{"too long", 5, "abcdef", "abcde…"},
		{"whole characters", 5, "abcdé!", "abcd…"},
		{"whole long characters", 5, "ab😀😀", "ab…"},
		{"not UTF-8", 5, "\x80\x80\x80\x80\x80\x80", "\ufffd\ufffd\ufffd\ufffd\ufffd…"},
		{"default", 0, strings.Repeat("x", 5000), strings.Repeat("x", 2048) + "…"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := decoded(t, AccessLogOptions{MaxValueBytes: tt.limit}, &Entry{Path: tt.in}); got["path"] != tt.want {
				t.Errorf("path is %q, want %q", got["path"], tt.want)
			}
		})
	}
}

func TestAccessLogEscapesWhatDisturbsTerminals(t *testing.T) {
	for _, in := range []string{"\x1b[2J", "\u009b2J", "a\u2028b", "a\u202eb", "\u2066x\u2069", "\x7f", "\r\n{\"ts\":1}", "\ufeff", "</script>"} {
		line := written(t, AccessLogOptions{}, &Entry{UserAgent: in})
		for _, r := range strings.TrimSuffix(line, "\n") {
			if r < ' ' || r == 0x7f || disturbing(r) {
				t.Errorf("user agent %q: %U is not escaped in %s", in, r, line)
			}
		}
		if got := decoded(t, AccessLogOptions{}, &Entry{UserAgent: in}); got["user_agent"] != in {
			t.Errorf("user agent is %q, want %q", got["user_agent"], in)
		}
	}
}

// toUTF8 replaces each byte that is not UTF-8 by U+FFFD.
func toUTF8(s string) string { return string([]rune(s)) }

// Whatever a client sends, the line is one line of JSON that says it.
func FuzzAccessLogLine(f *testing.F) {
	f.Add("/a", "b=c", "agent", "http://x/?y")
	f.Add("\x00\x1f\"\\\n\r\t", "\xff\xfe\xc0\x80", "\xed\xa0\x80\xf4\x90\x80\x80", "😀\u2028\u2029")
	f.Add(strings.Repeat("é", 3000), strings.Repeat("a&", 3000), "", "?")
	f.Fuzz(func(t *testing.T, path, query, agent, referer string) {
		e := &Entry{Path: path, Query: query, UserAgent: agent, Referer: referer, RouteKind: "HTTPRoute", RouteName: path, TLSVersion: tls.VersionTLS12, SNI: query}
		got := decoded(t, AccessLogOptions{MaxValueBytes: 1 << 20}, e)
		routeOf, _ := got["route"].(map[string]any)
		tlsOf, _ := got["tls"].(map[string]any)
		for _, v := range []struct {
			name string
			got  any
			in   string
		}{
			{"path", got["path"], path},
			{"query", got["query"], query},
			{"user_agent", got["user_agent"], agent},
			{"referer", got["referer"], referer},
			{"route.name", routeOf["name"], path},
			{"tls.sni", tlsOf["sni"], query},
		} {
			if v.in == "" && v.got != nil || v.in != "" && v.got != toUTF8(v.in) {
				t.Errorf("%s is %q, want %q", v.name, v.got, toUTF8(v.in))
			}
		}
		redacted := decoded(t, AccessLogOptions{RedactQuery: true}, e) // must be one valid line as well
		if q, _ := redacted["query"].(string); strings.Count(q, "=") > strings.Count(q, "=***") {
			t.Errorf("redacted query %q shows a value", q)
		}
	})
}

// gate is a writer that can be stopped.
type gate struct {
	mu      sync.Mutex
	b       bytes.Buffer
	writes  int
	open    chan struct{} // a write waits until it is closed; nil does not wait
	entered chan struct{} // gets a value at each write that waits
}

func (g *gate) Write(p []byte) (int, error) {
	if g.open != nil {
		g.entered <- struct{}{}
		<-g.open
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.writes++
	return g.b.Write(p)
}

func (g *gate) text() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.b.String()
}

func TestAccessLogFlushesAfterTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gate
		l := NewAccessLog(&g, AccessLogOptions{})
		time.Sleep(time.Hour) // an idle log does nothing
		l.Write(&Entry{Path: "/1"})
		time.Sleep(60 * time.Millisecond)
		l.Write(&Entry{Path: "/2"})
		synctest.Wait()
		if got := g.text(); got != "" {
			t.Errorf("written before the interval has passed: %s", got)
		}
		time.Sleep(40 * time.Millisecond)
		synctest.Wait()
		if got := g.text(); strings.Count(got, "\n") != 2 || g.writes != 1 {
			t.Errorf("%d writes after the interval, want one of two lines: %s", g.writes, got)
		}
		l.Write(&Entry{Path: "/3"})
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if got := g.text(); !strings.Contains(got, "/3") {
			t.Errorf("Close has not written the rest: %s", got)
		}
	})
}

func TestAccessLogFlushesWhenItFillsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gate
		l := NewAccessLog(&g, AccessLogOptions{})
		line := strings.Repeat("x", 1000)
		for range flushBytes/1000 + 1 {
			l.Write(&Entry{Path: line})
		}
		synctest.Wait() // and no time passes
		if n := strings.Count(g.text(), "\n"); n < flushBytes/1100 {
			t.Errorf("%d lines were written at once, want about %d", n, flushBytes/1000)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestAccessLogDropsWhenTheWriterIsSlow(t *testing.T) {
	m := NewMetrics("")
	g := &gate{open: make(chan struct{}), entered: make(chan struct{}, 100)}
	l := NewAccessLog(g, AccessLogOptions{BufferBytes: 20_000, FlushInterval: time.Millisecond, Metrics: m})
	l.Write(&Entry{Path: "/first"})
	<-g.entered // the writer hangs now
	const n = 1000
	for i := range n {
		l.Write(&Entry{Path: fmt.Sprint("/", i)}) // would hang here if it waited
	}
	close(g.open)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	lines := strings.Count(g.text(), "\n")
	dropped := gather(t, m)["fairlead_access_log_dropped_total{}"]
	if lines < 50 || dropped < 500 || float64(lines)+dropped != n+1 {
		t.Errorf("%d lines written and %v dropped of %d", lines, dropped, n+1)
	}
	l.Write(&Entry{})
	if got := gather(t, m)["fairlead_access_log_dropped_total{}"]; got != dropped+1 {
		t.Errorf("an entry after Close is not counted as dropped")
	}
}

func TestAccessLogCloseDoesNotHang(t *testing.T) {
	g := &gate{open: make(chan struct{}), entered: make(chan struct{}, 100)}
	l := NewAccessLog(g, AccessLogOptions{CloseTimeout: time.Millisecond})
	l.Write(&Entry{})
	if err := l.Close(); !errors.Is(err, ErrLogStuck) {
		t.Errorf("Close() = %v, want ErrLogStuck", err)
	}
	close(g.open)
	<-l.done
	if err := l.Close(); err != nil {
		t.Errorf("second Close() = %v, want nil", err)
	}
}

// flaky fails every other write in the middle of it.
type flaky struct {
	bytes.Buffer
	calls int
}

func (f *flaky) Write(p []byte) (int, error) {
	f.calls++
	if f.calls == 1 {
		f.Buffer.Write(p[:len(p)/2])
		return len(p) / 2, errors.New("no space left on device")
	}
	return f.Buffer.Write(p)
}

func TestAccessLogSurvivesFailingWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMetrics("")
		var f flaky
		l := NewAccessLog(&f, AccessLogOptions{Metrics: m})
		l.Write(&Entry{Path: "/lost"})
		time.Sleep(time.Second)
		l.Write(&Entry{Path: "/whole"})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if n := gather(t, m)["fairlead_access_log_errors_total{}"]; n != 1 {
			t.Errorf("%v failed writes are counted, want 1", n)
		}
		lines := strings.Split(strings.TrimSuffix(f.String(), "\n"), "\n")
		var got map[string]any
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &got); err != nil || got["path"] != "/whole" {
			t.Errorf("the line after a write that was cut short is broken: %q", f.String())
		}
	})
}

func TestAccessLogDisabled(t *testing.T) {
	l := NewAccessLog(io.Discard, AccessLogOptions{Disabled: true})
	l.Write(&Entry{})
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestAccessLogKeepsLinesWholeUnderLoad(t *testing.T) {
	var g gate
	l := NewAccessLog(&g, AccessLogOptions{BufferBytes: 64 << 20})
	var wg sync.WaitGroup
	const writers, each = 4, 2000
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				l.Write(&Entry{RequestID: fmt.Sprint(w, "-", i), Path: strings.Repeat("p", i%300)})
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(g.text()) {
		var e struct {
			ID string `json:"request_id"`
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		seen[e.ID] = true
	}
	if len(seen) != writers*each {
		t.Errorf("%d different entries, want %d", len(seen), writers*each)
	}
}

func TestAccessLogDoesNotAllocate(t *testing.T) {
	l := NewAccessLog(io.Discard, AccessLogOptions{RedactQuery: true})
	defer l.Close()
	e := fullEntry()
	b := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { b = l.appendEntry(b[:0], e) }); n != 0 {
		t.Errorf("appendEntry allocates %v times, want 0", n)
	}
}

func BenchmarkAccessLogWrite(b *testing.B) {
	l := NewAccessLog(io.Discard, AccessLogOptions{})
	defer l.Close()
	e := fullEntry()
	b.ReportAllocs()
	for b.Loop() {
		l.Write(e)
	}
}

func BenchmarkAccessLogWriteParallel(b *testing.B) {
	l := NewAccessLog(io.Discard, AccessLogOptions{})
	defer l.Close()
	e := fullEntry()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l.Write(e)
		}
	})
}

func BenchmarkAppendEntry(b *testing.B) {
	l := &AccessLog{opt: AccessLogOptions{}.withDefaults()}
	e := fullEntry()
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = l.appendEntry(buf[:0], e)
	}
	b.SetBytes(int64(len(buf)))
}
