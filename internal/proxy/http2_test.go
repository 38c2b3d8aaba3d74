package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// framed is an HTTP/2 client that does what no proper client would.
type framed struct {
	*http2.Framer
	t    *testing.T
	conn net.Conn
	hbuf bytes.Buffer
	henc *hpack.Encoder
	hdec *hpack.Decoder
	next uint32
}

// newFramed makes a connection with prior knowledge, up to the exchange of settings.
func (f *front) newFramed(settings ...http2.Setting) *framed {
	f.t.Helper()
	c := &framed{t: f.t, conn: f.dial(plainBind), next: 1}
	c.henc, c.hdec = hpack.NewEncoder(&c.hbuf), hpack.NewDecoder(4096, nil)
	c.Framer = http2.NewFramer(c.conn, c.conn)
	c.AllowIllegalWrites = true
	send(f.t, c.conn, http2.ClientPreface)
	c.must(c.WriteSettings(settings...))
	for {
		fr, err := c.ReadFrame()
		c.must(err)
		if s, ok := fr.(*http2.SettingsFrame); ok && !s.IsAck() {
			c.must(c.WriteSettingsAck())
			return c
		}
	}
}

func (c *framed) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// open sends the head of a request on a new stream.
func (c *framed) open(end bool, fields ...string) (stream uint32, err error) {
	c.hbuf.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = c.henc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	stream = c.next
	c.next += 2
	return stream, c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.hbuf.Bytes(), EndStream: end, EndHeaders: true})
}

var getFields = []string{":method", "GET", ":scheme", "http", ":authority", "a.test", ":path", "/"}

// get returns the fields of a plain request, with some changed and others added; a value of - leaves a field out.
func get(changes ...string) []string {
	fields := append([]string(nil), getFields...)
next:
	for i := 0; i < len(changes); i += 2 {
		for j := 0; j < len(fields); j += 2 {
			if fields[j] == changes[i] && strings.HasPrefix(changes[i], ":") {
				if fields[j+1] = changes[i+1]; changes[i+1] == "-" {
					fields = append(fields[:j], fields[j+2:]...)
				}
				continue next
			}
		}
		fields = append(fields, changes[i], changes[i+1])
	}
	return fields
}

// outcome is what becomes of a stream: a status, RST_STREAM with its code, or the end of the connection.
func (c *framed) outcome(stream uint32) string {
	for {
		fr, err := c.ReadFrame()
		if err != nil {
			return "closed"
		}
		switch fr := fr.(type) {
		case *http2.RSTStreamFrame:
			if fr.StreamID == stream {
				return "RST " + fr.ErrCode.String()
			}
		case *http2.HeadersFrame:
			fields, err := c.hdec.DecodeFull(fr.HeaderBlockFragment())
			if err != nil || len(fields) == 0 {
				return "bad header"
			}
			if fr.StreamID == stream {
				return fields[0].Value
			}
		}
	}
}

// drained reads until the connection ends and reports whether it did within the time.
func (c *framed) drained(d time.Duration) bool {
	_ = c.conn.SetReadDeadline(time.Now().Add(d))
	_, err := io.Copy(io.Discard, c.conn)
	return !isTimeout(err)
}

// checked is a handler that does what every handler must do first.
func checked(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if status, reason := checkRequest(r); status != 0 {
			w.Header().Set(ReasonHeader, string(reason))
			w.WriteHeader(status)
			return
		}
		next(w, r)
	}
}

// Malformed requests end in a reset of their stream, or in a refusal, and never reach what comes behind the checks.
func TestMalformedHTTP2(t *testing.T) {
	var passed atomic.Int64
	f := newFront(t, Options{}, checked(func(w http.ResponseWriter, r *http.Request) {
		passed.Add(1)
		_, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	const protocolError = "RST PROTOCOL_ERROR"
	for _, test := range []struct {
		name   string
		fields []string
		data   string // "-" for none, with END_STREAM on the head
		want   string
	}{
		{"fine", get(), "-", "200"},
		{"fine with host", get("host", "a.test"), "-", "200"},
		{"fine with body", get(":method", "POST", "content-length", "2"), "ab", "200"},
		{"fine with TE trailers", get("te", "trailers"), "-", "200"},
		{"method twice", append([]string{":method", "GET"}, getFields...), "-", protocolError},
		{"unknown pseudo-header", append([]string{":foo", "x"}, getFields...), "-", protocolError},
		{"late pseudo-header", []string{":method", "GET", ":scheme", "http", "x", "y", ":authority", "a.test", ":path", "/"}, "-", protocolError},
		{"no method", get(":method", "-"), "-", protocolError},
		{"no path", get(":path", "-"), "-", protocolError},
		{"no scheme", get(":scheme", "-"), "-", protocolError},
		{"path empty", get(":path", ""), "-", protocolError},
		{"path without slash", get(":path", "x"), "-", protocolError},
		{"path is a URL", get(":path", "http://b.test/q"), "-", "400 or " + protocolError},
		{"path star", get(":path", "*"), "-", "400"},
		{"path with space", get(":path", "/a b"), "-", "400"},
		{"path with fragment", get(":path", "/a#b"), "-", "400"},
		{"path with backslash", get(":path", "/a\\b"), "-", "400"},
		{"path with CRLF", get(":path", "/\r\nX: y"), "-", protocolError},
		{"path with NUL", get(":path", "/\x00"), "-", protocolError},
		{"path of 20 KB", get(":path", "/"+strings.Repeat("a", 20_000)), "-", "414"},
		{"method with space", get(":method", "GET / HTTP/1.1"), "-", "400"},
		{"method with CRLF", get(":method", "GET\r\n"), "-", protocolError},
		{"method of 100 bytes", get(":method", strings.Repeat("A", 100)), "-", "400"},
		{"CONNECT", []string{":method", "CONNECT", ":authority", "a.test:80"}, "-", "405"},
		{"extended CONNECT", get(":method", "CONNECT", ":protocol", "websocket"), "-", protocolError},
		{"TRACE", get(":method", "TRACE"), "-", "405"},
		{"no authority", get(":authority", "-"), "-", "400"},
		{"authority empty", get(":authority", ""), "-", "400"},
		{"authority with slash", get(":authority", "a.test/x"), "-", "400 or " + protocolError},
		{"authority with comma", get(":authority", "a,b"), "-", "400"},
		{"authority with bad port", get(":authority", "a:abc"), "-", "400"},
		{"authority with space", get(":authority", "a test"), "-", "400 or " + protocolError},
		{"authority with user", get(":authority", "u@a.test"), "-", "400 or " + protocolError},
		{"authority against host", get("host", "b.test"), "-", "400 or " + protocolError},
		{"host twice", get("host", "a.test", "host", "a.test"), "-", "400 or " + protocolError},
		{"upper-case name", get("X-Upper", "y"), "-", protocolError},
		{"name with space", get("x y", "z"), "-", protocolError},
		{"value with CRLF", get("x", "a\r\nb: c"), "-", protocolError},
		{"value with NUL", get("x", "a\x00"), "-", protocolError},
		{"transfer-encoding", get("transfer-encoding", "chunked"), "-", "400"},
		{"connection", get("connection", "close"), "-", "400"},
		{"keep-alive", get("keep-alive", "x"), "-", "400"},
		{"proxy-connection", get("proxy-connection", "x"), "-", "400"},
		{"upgrade", get("upgrade", "websocket"), "-", "400"},
		{"te gzip", get("te", "gzip"), "-", "400"},
		{"CL below data", get(":method", "POST", "content-length", "1"), "abc", protocolError},
		{"CL above data", get(":method", "POST", "content-length", "5"), "abc", "400"},
		{"CL without data", get(":method", "POST", "content-length", "5"), "-", "400"},
		{"CL twice", get(":method", "POST", "content-length", "3", "content-length", "4"), "abc", "400"},
		{"CL list", get(":method", "POST", "content-length", "3, 3"), "abc", "400 or " + protocolError},
		{"CL plus", get(":method", "POST", "content-length", "+3"), "abc", "400 or " + protocolError},
		{"200 headers", get(strings.Split(strings.Repeat("x y ", 200), " ")[:400]...), "-", "431"},
		{"5,000 headers", get(strings.Split(strings.Repeat("x y ", 5000), " ")[:10_000]...), "-", "431"},
		{"header of 100 KB", get("x", strings.Repeat("a", 100_000)), "-", "closed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			passed.Store(0)
			c := f.newFramed()
			c.t = t
			if len(test.fields) > 1000 || len(test.fields[len(test.fields)-1]) > 16_000 {
				test.want = c.long(test.want, test.fields)
				return
			}
			id, err := c.open(test.data == "-", test.fields...)
			c.must(err)
			if test.data != "-" {
				c.must(c.WriteData(id, true, []byte(test.data)))
			}
			if got := c.outcome(id); !slices.Contains(strings.Split(test.want, " or "), got) {
				t.Errorf("got %s, want %s", got, test.want)
			}
			if n := passed.Load(); n > 0 && (test.want != "200" && test.data == "-") {
				t.Errorf("%d requests passed", n)
			}
		})
	}
}

// long sends a head that does not fit into one frame.
func (c *framed) long(want string, fields []string) string {
	c.t.Helper()
	c.hbuf.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = c.henc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	block, first := c.hbuf.Bytes(), true
	for first || len(block) > 0 {
		part := block[:min(len(block), frameSize)]
		block = block[len(part):]
		var err error
		if first {
			err = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: part, EndStream: true, EndHeaders: len(block) == 0})
		} else {
			err = c.WriteContinuation(1, len(block) == 0, part)
		}
		c.must(err)
		first = false
	}
	if got := c.outcome(1); got != want {
		c.t.Errorf("got %s, want %s", got, want)
	}
	return want
}

// backendWork is a handler that stands for a request to a backend: it takes a while and notices when its client gives up.
type backendWork struct {
	started, running, most atomic.Int64
}

func (b *backendWork) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	b.started.Add(1)
	if n := b.running.Add(1); n > b.most.Load() {
		b.most.Store(n)
	}
	abandoned := false
	select {
	case <-r.Context().Done():
		abandoned = true
	case <-time.After(200 * time.Millisecond):
	}
	b.running.Add(-1)
	connFrom(r.Context()).streamDone(abandoned)
}

// Clients that open streams and do not want the answers are cut off before they make much work, however they give them up.
func TestResetFloods(t *testing.T) {
	const floods = 20_000
	for _, test := range []struct {
		name string
		give func(c *framed, id uint32) error
	}{
		{"RST_STREAM", func(c *framed, id uint32) error { return c.WriteRSTStream(id, http2.ErrCodeCancel) }},
		{"WINDOW_UPDATE of 0", func(c *framed, id uint32) error {
			return c.WriteRawFrame(http2.FrameWindowUpdate, 0, id, []byte{0, 0, 0, 0})
		}},
		{"window overflow", func(c *framed, id uint32) error { return c.WriteWindowUpdate(id, 1<<31-1) }},
		{"DATA after END_STREAM", func(c *framed, id uint32) error { return c.WriteData(id, false, []byte("x")) }},
		{"PRIORITY on itself", func(c *framed, id uint32) error {
			return c.WritePriority(id, http2.PriorityParam{StreamDep: id})
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var work backendWork
			f := newFront(t, Options{}, work.ServeHTTP)
			c := f.newFramed()
			over := make(chan bool, 1)
			go func() { over <- c.drained(10 * time.Second) }()
			sent := 0
			for ; sent < floods; sent++ {
				id, err := c.open(true, getFields...)
				if err == nil {
					err = test.give(c, id)
				}
				if err != nil {
					break
				}
			}
			if !<-over {
				t.Error("the connection is open")
			}
			if n := work.started.Load(); n > 200 {
				t.Errorf("%d handlers ran", n)
			}
			t.Logf("%d streams sent, %d handlers, at most %d at once", sent, work.started.Load(), work.most.Load())
			f.hello()
		})
	}
}

// A client that paces itself is noticed all the same.
func TestPacedResets(t *testing.T) {
	var work backendWork
	f := newFront(t, Options{}, work.ServeHTTP)
	c := f.newFramed()
	over := make(chan bool, 1)
	go func() { over <- c.drained(15 * time.Second) }()
	for range 2000 {
		id, err := c.open(true, getFields...)
		if err == nil {
			err = c.WriteRSTStream(id, http2.ErrCodeCancel)
		}
		if err != nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if !<-over {
		t.Error("the connection is open")
	}
	if n := work.started.Load(); n > 200 {
		t.Errorf("%d handlers ran", n)
	}
}

// Frames that ask for nothing end the connection, and cost next to nothing before.
func TestFrameFloods(t *testing.T) {
	const floods = 100_000
	for _, test := range []struct {
		name string
		send func(c *framed, i int) error
		open bool // the connection has a stream
	}{
		{"SETTINGS", func(c *framed, _ int) error {
			return c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
		}, false},
		{"PING", func(c *framed, _ int) error { return c.WritePing(false, [8]byte{}) }, false},
		{"PRIORITY", func(c *framed, _ int) error { return c.WritePriority(99, http2.PriorityParam{StreamDep: 3}) }, false},
		{"unknown", func(c *framed, _ int) error { return c.WriteRawFrame(0x77, 0, 0, []byte("x")) }, false},
		{"WINDOW_UPDATE", func(c *framed, _ int) error { return c.WriteWindowUpdate(0, 1) }, false},
		{"empty DATA", func(c *framed, _ int) error { return c.WriteData(1, false, nil) }, true},
		{"empty CONTINUATION", func(c *framed, i int) error {
			if i == 0 {
				return c.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, EndStream: true})
			}
			return c.WriteContinuation(3, false, nil)
		}, true},
		{"CONTINUATION", func(c *framed, i int) error {
			if i == 0 {
				return c.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, EndStream: true})
			}
			return c.WriteContinuation(3, false, bytes.Repeat([]byte{0x00, 1, 'x', 1, 'y'}, 3000))
		}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFront(t, Options{}, func(_ http.ResponseWriter, r *http.Request) {
				if r.ProtoMajor == 2 {
					<-r.Context().Done()
				}
			})
			c := f.newFramed()
			if test.open {
				_, err := c.open(false, getFields...)
				c.must(err)
			}
			over := make(chan bool, 1)
			go func() { over <- c.drained(10 * time.Second) }()
			before := heap()
			sent := 0
			for ; sent < floods && test.send(c, sent) == nil; sent++ {
			}
			if !<-over {
				t.Error("the connection is open")
			}
			if grown := int64(heap()) - int64(before); grown > 4<<20 {
				t.Errorf("the heap grew by %d KiB", grown>>10)
			}
			f.hello()
		})
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Clients that behave are not taken for attackers: large downloads and uploads, many small messages, pings and cancelled requests.
func TestBusyHTTP2Clients(t *testing.T) {
	f := newFront(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/down":
			_, _ = w.Write(make([]byte, 64<<20))
		case "/messages":
			for range 5000 {
				_, _ = io.WriteString(w, "data: x\n\n")
				_ = http.NewResponseController(w).Flush()
			}
		case "/never":
			<-r.Context().Done()
			connFrom(r.Context()).streamDone(true)
			return
		default:
			n, _ := io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, strconv.FormatInt(n, 10))
		}
		connFrom(r.Context()).streamDone(false)
	})
	client := f.client(func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) })
	url := "http://" + f.addr(plainBind)
	fetch := func(method, path string, body io.Reader, want int64) {
		t.Helper()
		req, _ := http.NewRequestWithContext(t.Context(), method, url+path, body)
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if n, err := io.Copy(io.Discard, res.Body); err != nil || n != want {
			t.Fatalf("%s: %d bytes, %v", path, n, err)
		}
	}
	fetch("GET", "/down", nil, 64<<20)
	fetch("POST", "/up", bytes.NewReader(make([]byte, 64<<20)), 8)
	fetch("GET", "/messages", nil, 5000*9)
	before := f.limiterOpen()
	for i := range 2000 {
		fetch("GET", "/", nil, 1)
		if i%20 == 19 { // gives up one in twenty
			req, _ := http.NewRequestWithContext(t.Context(), "GET", url+"/never", nil)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Millisecond)
			_, err := client.Do(req.WithContext(ctx))
			cancel()
			if err == nil {
				t.Fatal("an answer")
			}
		}
	}
	if f.limiterOpen() != before {
		t.Error("the client had to make another connection")
	}
}

func (f *front) limiterOpen() int64 { return f.limiter.open.Load() }

// A client that opens its window for nothing holds a bounded amount of memory, until its handlers are told to give up.
func TestZeroWindow(t *testing.T) {
	released := make(chan error, 200)
	f := newFront(t, Options{}, func(w http.ResponseWriter, _ *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
		_, err := w.Write(make([]byte, 64<<10))
		released <- err
	})
	before := heap()
	c := f.newFramed(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	go func() { _, _ = io.Copy(io.Discard, c.conn) }()
	fields := get()
	for i := range 120 {
		fields = append(fields, "x-"+strconv.Itoa(i), strings.Repeat("v", 480))
	}
	for range 100 {
		c.openLong(fields)
	}
	waitFor(t, func() bool { return f.requests.Load() >= 90 })
	grown := int64(heap()) - int64(before)
	t.Logf("100 streams with heads of 64 KB and no window hold %d KiB", grown>>10)
	if grown > 32<<20 {
		t.Errorf("that is more than 32 MiB")
	}
	for range 90 {
		select {
		case err := <-released:
			if err == nil {
				t.Fatal("a write went through")
			}
		case <-time.After(10 * time.Second):
			t.Fatal("a handler still waits")
		}
	}
}

// openLong sends a head in as many frames as it takes.
func (c *framed) openLong(fields []string) {
	c.t.Helper()
	c.hbuf.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = c.henc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	id := c.next
	c.next += 2
	block := c.hbuf.Bytes()
	part := block[:min(len(block), frameSize)]
	block = block[len(part):]
	c.must(c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: part, EndStream: true, EndHeaders: len(block) == 0}))
	for len(block) > 0 {
		part = block[:min(len(block), frameSize)]
		block = block[len(part):]
		c.must(c.WriteContinuation(id, len(block) == 0, part))
	}
}

// The same with thousands of tiny headers from the compression table: next to nothing on the wire, and refused.
func TestHeaderBomb(t *testing.T) {
	f := newFront(t, Options{}, checked(func(http.ResponseWriter, *http.Request) { t.Error("passed") }))
	c := f.newFramed(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	go func() { _, _ = io.Copy(io.Discard, c.conn) }()
	before := heap()
	fields := get()
	for range 1800 {
		fields = append(fields, "a", "")
	}
	for range 100 {
		c.openLong(fields)
	}
	waitFor(t, func() bool { return f.requests.Load() >= 90 })
	grown := int64(heap()) - int64(before)
	t.Logf("100 streams with 1,800 headers each leave %d KiB", grown>>10)
	if grown > 8<<20 {
		t.Error("that is more than 8 MiB")
	}
}

func TestSettingsOfTheServer(t *testing.T) {
	f := newFront(t, Options{}, ok)
	c := &framed{t: t, conn: f.dial(plainBind)}
	c.Framer = http2.NewFramer(c.conn, c.conn)
	send(t, c.conn, http2.ClientPreface)
	c.must(c.WriteSettings())
	fr, err := c.ReadFrame()
	c.must(err)
	s, isSettings := fr.(*http2.SettingsFrame)
	if !isSettings {
		t.Fatalf("got %v", fr)
	}
	for id, want := range map[http2.SettingID]uint32{
		http2.SettingMaxConcurrentStreams: 100, http2.SettingMaxFrameSize: 16 << 10, http2.SettingInitialWindowSize: 256 << 10,
		http2.SettingMaxHeaderListSize: 64<<10 + 320, http2.SettingHeaderTableSize: 4 << 10,
	} {
		if got, _ := s.Value(id); got != want {
			t.Errorf("%v is %d, want %d", id, got, want)
		}
	}
}

func TestStreamLimit(t *testing.T) {
	release := make(chan struct{})
	f := newFront(t, Options{Limits: Limits{Streams: 5}}, func(http.ResponseWriter, *http.Request) { <-release })
	c := f.newFramed()
	for range 6 {
		_, err := c.open(true, getFields...)
		c.must(err)
	}
	if got := c.outcome(11); !strings.HasPrefix(got, "RST ") {
		t.Errorf("the sixth stream: %s", got)
	}
	close(release)
	if got := c.outcome(1); got != "200" {
		t.Errorf("the first stream: %s", got)
	}
}

// The preface means HTTP/2 at the beginning of a connection without TLS only.
func TestPrefaceElsewhere(t *testing.T) {
	f := newFront(t, Options{}, ok)
	c := f.dialTLS("http/1.1")
	send(t, c, http2.ClientPreface)
	closedWith(t, c, "HTTP/1.1 400 ")
	plain := f.hello()
	send(t, plain, http2.ClientPreface)
	closedWith(t, plain, "HTTP/1.1 400 ")
	if n := f.requests.Load(); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func closedWith(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got, err := io.ReadAll(c)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) || !strings.HasPrefix(string(got), want) {
		t.Errorf("got %q, %v", got, err)
	}
}

// An HTTP/2 connection without requests ends, pings or not.
func TestIdleHTTP2(t *testing.T) {
	f := newFront(t, Options{Limits: short}, ok)
	c := f.newFramed()
	id, err := c.open(true, getFields...)
	c.must(err)
	c.outcome(id)
	go func() {
		for c.WritePing(false, [8]byte{}) == nil {
			time.Sleep(50 * time.Millisecond)
		}
	}()
	if !c.drained(5 * time.Second) {
		t.Error("the connection is open")
	}
}

func TestFrameParser(t *testing.T) {
	var wire bytes.Buffer
	fr := http2.NewFramer(&wire, nil)
	_ = fr.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1})
	_ = fr.WriteData(1, true, []byte("hello"))
	_ = fr.WriteRSTStream(3, http2.ErrCodeCancel)
	_ = fr.WriteSettingsAck()
	_ = fr.WriteData(1, false, nil)
	want := []frame{
		{kind: http2.FrameSettings, size: 6},
		{kind: http2.FrameData, flags: http2.FlagDataEndStream, size: 5},
		{kind: http2.FrameRSTStream, size: 4, error: http2.ErrCodeCancel},
		{kind: http2.FrameSettings, flags: http2.FlagSettingsAck},
		{kind: http2.FrameData},
	}
	for size := 1; size <= wire.Len(); size++ {
		var p frameParser
		var got []frame
		for rest := wire.Bytes(); len(rest) > 0; {
			n := min(size, len(rest))
			p.parse(rest[:n], func(f frame) bool { got = append(got, f); return true })
			rest = rest[n:]
		}
		if len(got) != len(want) {
			t.Fatalf("in pieces of %d: %v", size, got)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("in pieces of %d: frame %d is %+v, want %+v", size, i, got[i], want[i])
			}
		}
	}
}

func TestFrameGuardResets(t *testing.T) {
	for _, test := range []struct{ resets, want int }{{100, 100}, {10, 10}, {0, 1}, {5000, 1000}, {-1, 1000}} {
		var g frameGuard
		g.begin(test.resets)
		g.paid.Store(int64(clock())) // no time passes
		n := 0
		for g.received(frame{kind: http2.FrameRSTStream, size: 4}) {
			n++
		}
		if n < test.want || n > test.want+5 {
			t.Errorf("%d allowed: closed after %d, want %d", test.resets, n, test.want)
		}
	}
}

func BenchmarkFrameGuard(b *testing.B) {
	var wire bytes.Buffer
	fr := http2.NewFramer(&wire, nil)
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: make([]byte, 200), EndHeaders: true, EndStream: true})
	var p frameParser
	var g frameGuard
	g.begin(100)
	b.ReportAllocs()
	for b.Loop() {
		p.parse(wire.Bytes(), g.received)
	}
}
