package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/internal/manifest"
)

// running is a server under test and where it listens.
type running struct {
	http, https, admin string
	log                *lockedBuffer
	stop               func() error // ends the server and waits for it
}

// lockedBuffer collects output that another goroutine writes.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// freePort returns a port of the loopback address that nobody has now. It is none of those that the kernel gives to connections, or one that is made in the
// meantime could take it.
func freePort(t testing.TB) uint16 {
	t.Helper()
	for range 1000 {
		port := uint16(10000 + rand.IntN(20000))
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		_ = ln.Close()
		return port
	}
	t.Fatal("no port is free")
	return 0
}

// quickDrain is a configuration for tests that do not want to wait at the end.
const quickDrain = "drain: {delay: 0s, grace: 5s}\n"

// serveFolder serves dir on free ports until the test ends, and waits until it is ready.
func serveFolder(t testing.TB, dir string, backends ...string) *running {
	t.Helper()
	return serveWith(t, dir, quickDrain, backends...)
}

func serveWith(t testing.TB, dir, configText string, backends ...string) *running {
	t.Helper()
	return serveFrom(t, dir, configText, func(r reader, _ *running) reader { return r }, backends...)
}

// serveFrom is serveWith, but what is served comes from what wrap makes of the folder.
func serveFrom(t testing.TB, dir, configText string, wrap func(reader, *running) reader, backends ...string) *running {
	t.Helper()
	configFile := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(configFile, []byte(configText), 0o600); err != nil {
		t.Fatal(err)
	}
	plain, secure := freePort(t), freePort(t)
	o := serveOptions{inProcess: true, bindAddress: "127.0.0.1", adminAddress: fmt.Sprintf("127.0.0.1:%d", freePort(t))}
	o.portMap, o.backends, o.configFile = fmt.Sprintf("80:%d,443:%d", plain, secure), backends, configFile
	set, err := o.settings()
	if err != nil {
		t.Fatal(err)
	}
	folder, err := manifest.Open(dir, set.manifest)
	if err != nil {
		t.Fatal(err)
	}
	at := running{http: fmt.Sprintf("127.0.0.1:%d", plain), https: fmt.Sprintf("127.0.0.1:%d", secure)}
	r := start(t, o, set, wrap(folder, &at))
	r.http, r.https = at.http, at.https
	return r
}

// start serves until the test ends, and waits until it is ready.
func start(t testing.TB, o serveOptions, set settings, from reader) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{admin: o.adminAddress, log: &lockedBuffer{}}
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, o, set, from, io.Discard, r.log, nil) }()
	r.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("serve ended with %v", err)
		}
	})
	eventually(t, "ready", func() error {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("serve ended: %v\n%s", err, r.log)
		default:
		}
		return wantStatus(get("http://"+r.admin+"/readyz", ""))(http.StatusOK)
	})
	return r
}

// eventually waits until check has no complaint.
func eventually(t testing.TB, what string, check func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// answer is a response that was read to its end.
type answer struct {
	status int
	header http.Header
	body   string
}

var client = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func get(url, host string) (answer, error) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return answer{}, err
	}
	req.Host = host
	res, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, string(body)}, err
}

func wantStatus(a answer, err error) func(int) error {
	return func(want int) error {
		if err == nil && a.status != want {
			err = fmt.Errorf("got %d %s %q, want %d", a.status, a.header.Get("X-Fairlead-Reason"), a.body, want)
		}
		return err
	}
}

func writeFile(t testing.TB, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// namedBackend starts an HTTP server that answers with its name, and returns its address.
func namedBackend(t testing.TB, name string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) })}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	return ln.Addr().String()
}

const tenLines = `apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
spec:
  defaultBackend:
    service:
      name: %s
      port:
        number: 80
`

func TestTenLinesWork(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "web.yaml", fmt.Sprintf(tenLines, "web"))
	s := serveFolder(t, dir, "default/web:80="+namedBackend(t, "web"))
	a, err := get("http://"+s.http+"/", "anything.example.com")
	if err != nil || a.status != http.StatusOK || a.body != "web" {
		t.Errorf("got %v, %v; want 200 web", a, err)
	}
}

func TestAChangedFileIsLiveWithin300ms(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "web.yaml", fmt.Sprintf(tenLines, "one"))
	s := serveFolder(t, dir, "default/one:80="+namedBackend(t, "one"), "default/two:80="+namedBackend(t, "two"))
	now := "one"
	for range 6 {
		now = map[string]string{"one": "two", "two": "one"}[now]
		writeFile(t, dir, "web.yaml", fmt.Sprintf(tenLines, now))
		before := time.Now()
		eventually(t, "change live", func() error {
			a, err := get("http://"+s.http+"/", "x.example.com")
			if err == nil && a.status != http.StatusOK {
				t.Errorf("got %d while the file changed", a.status)
			}
			if err == nil && a.body != now {
				err = fmt.Errorf("still %s", a.body)
			}
			return err
		})
		if took := time.Since(before); took > 300*time.Millisecond {
			t.Errorf("the change took %v", took)
		}
	}
}

func TestABrokenDocumentKeepsItsLastGoodVersion(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "web.yaml", fmt.Sprintf(tenLines, "one"))
	s := serveFolder(t, dir, "default/one:80="+namedBackend(t, "one"))
	writeFile(t, dir, "web.yaml", "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: web\nspec: {{{\n")
	eventually(t, "problem reported", func() error {
		a, err := get("http://"+s.admin+"/debug/problems", "")
		if err == nil && !strings.Contains(a.body, "web.yaml:5") {
			err = fmt.Errorf("problems: %s", a.body)
		}
		return err
	})
	if a, err := get("http://"+s.http+"/", "x.example.com"); err != nil || a.body != "one" {
		t.Errorf("got %v, %v; want the last good version", a, err)
	}
}

func TestOpenConnectionsSurviveAChange(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "web.yaml", fmt.Sprintf(tenLines, "one"))
	s := serveFolder(t, dir, "default/one:80="+namedBackend(t, "one"), "default/two:80="+namedBackend(t, "two"))
	soakClient := (&soak{address: s.http}).http1()
	conns := map[string]bool{}
	tr := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err == nil {
			conns[c.LocalAddr().String()] = true
		}
		return c, err
	}}
	defer tr.CloseIdleConnections()
	last := ""
	for i := 0; last != "two"; i++ {
		if i == 3 {
			writeFile(t, dir, "web.yaml", fmt.Sprintf(tenLines, "two"))
		}
		req, _ := http.NewRequest(http.MethodGet, "http://"+s.http+"/", nil)
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		last = string(body)
	}
	if len(conns) != 1 {
		t.Errorf("the client needed %d connections, want 1", len(conns))
	}
	if err := soakClient(http.MethodGet); err != nil {
		t.Error(err)
	}
}

func TestAdminPages(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "web.yaml", fmt.Sprintf(tenLines, "one"))
	s := serveFolder(t, dir, "default/one:80="+namedBackend(t, "one"))
	if _, err := get("http://"+s.http+"/", "x.example.com"); err != nil {
		t.Fatal(err)
	}
	for page, want := range map[string]string{
		"/healthz": "", "/readyz": "", "/metrics": "fairlead_requests_total", "/debug/table": "# Ingress default/web", "/debug/backends": `"default/one:80"`,
		"/debug/problems": "[",
	} {
		eventually(t, page, func() error {
			a, err := get("http://"+s.admin+page, "")
			if err == nil && (a.status != http.StatusOK || !strings.Contains(a.body, want)) {
				err = fmt.Errorf("got %d %s", a.status, a.body)
			}
			return err
		})
	}
}

// A backend that is Fairlead itself would send a request round and round, or to the admin pages.
func TestABackendThatIsThisProcessIsRefused(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "web.yaml", fmt.Sprintf(tenLines, "web"))
	s := serveFolder(t, dir)
	for _, own := range []string{s.http, s.admin} {
		host, port, err := net.SplitHostPort(own)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, dir, "slice.yaml", fmt.Sprintf("apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web, labels: {kubernetes.io/service-name: web}}\n"+
			"addressType: IPv4\nports: [{port: %s}]\nendpoints: [{addresses: [%s]}]\n---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n", port, host))
		eventually(t, "the endpoint is refused", func() error {
			a, err := get("http://"+s.http+"/metrics", "x.example.com")
			if err == nil && (a.status != http.StatusBadGateway || a.header.Get("X-Fairlead-Reason") != "backend-connect-failed") {
				err = fmt.Errorf("got %d %s %.80s", a.status, a.header.Get("X-Fairlead-Reason"), a.body)
			}
			return err
		})
	}
}

// One listener's port that cannot be bound must not take the others off the air, at the start no less than later.
func TestAPortThatIsTakenCostsNoOther(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	dir := t.TempDir()
	writeFile(t, dir, "web.yaml", fmt.Sprintf(tenLines, "web"))
	writeFile(t, dir, "gw.yaml", fmt.Sprintf("apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: gw}\n"+
		"spec: {gatewayClassName: fairlead, listeners: [{name: http, protocol: HTTP, port: %d}]}\n", taken.Addr().(*net.TCPAddr).Port))
	s := serveFolder(t, dir, "default/web:80="+namedBackend(t, "web"))
	if err := wantStatus(get("http://"+s.http+"/", "x.example.com"))(http.StatusOK); err != nil {
		t.Error(err)
	}
	if !strings.Contains(s.log.String(), "could be bound") {
		t.Errorf("the log does not say what could not be bound:\n%s", s.log)
	}
}

// slowSource is a source that takes its time to be read at first, as a cluster does.
type slowSource struct {
	reader
	first func(context.Context) error // is called meanwhile
}

func (s slowSource) Start(ctx context.Context) error { return s.first(ctx) }

// Clients that connect while a cluster is read for the first time are served as soon as it was: a container that was killed is sent clients before Kubernetes notices.
func TestWhoConnectsBeforeTheFirstTableIsServed(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "web.yaml", fmt.Sprintf(tenLines, "web"))
	got := make(chan error, 1)
	serveFrom(t, dir, quickDrain, func(r reader, at *running) reader {
		return slowSource{r, func(ctx context.Context) error {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", at.http)
			if err != nil {
				return err
			}
			go func() {
				defer func() { _ = c.Close() }()
				_ = c.SetDeadline(time.Now().Add(10 * time.Second))
				_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
				text, readErr := io.ReadAll(c)
				if err = errors.Join(err, readErr); err == nil && !strings.HasPrefix(string(text), "HTTP/1.1 200 ") {
					err = fmt.Errorf("got %q", text)
				}
				got <- err
			}()
			return nil
		}}
	}, "default/web:80="+namedBackend(t, "web"))
	if err := <-got; err != nil {
		t.Error(err)
	}
}
