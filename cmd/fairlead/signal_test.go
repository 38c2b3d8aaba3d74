package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// asProgram makes the test binary behave as the program, for tests that need a process.
const asProgram = "FAIRLEAD_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(runWith(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// process is fairlead serve as a process of its own.
type process struct {
	cmd         *exec.Cmd
	http, admin string
	out         bytes.Buffer
}

func startProcess(t *testing.T, config string) *process {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, dir, "web.yaml", fmt.Sprintf(tenLines, "web"))
	configFile := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(configFile, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{http: fmt.Sprintf("127.0.0.1:%d", freePort(t)), admin: fmt.Sprintf("127.0.0.1:%d", freePort(t))}
	_, port, _ := net.SplitHostPort(p.http)
	p.cmd = exec.Command(self, "serve", "--manifests", dir, "--config", configFile, "--bind-address", "127.0.0.1", "--port-map", "80:"+port,
		"--admin-address", p.admin, "--backend", "default/web:80="+namedBackend(t, "web"))
	p.cmd.Env = append(os.Environ(), asProgram+"=1")
	p.cmd.Stderr = &p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	eventually(t, "ready", func() error { return wantStatus(get("http://"+p.admin+"/readyz", ""))(http.StatusOK) })
	return p
}

// TestSIGTERMLosesNoRequest stops the process under load. Clients behave as a load balancer does that reacts late: they go on opening connections until they see
// that the process is not ready, and keep connections until they are told to close them.
func TestSIGTERMLosesNoRequest(t *testing.T) {
	p := startProcess(t, "drain: {delay: 1s, grace: 5s}\n")
	var sent, failed atomic.Int64
	var away atomic.Bool // the load balancer has noticed
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			s := &soak{address: p.http}
			ask := s.http1()
			if i == 3 {
				ask = s.http2()
			}
			for !away.Load() {
				sent.Add(1)
				if err := ask([]string{http.MethodGet, http.MethodPost}[sent.Load()%2]); err != nil {
					failed.Add(1)
					t.Error(err)
				}
			}
		})
	}
	eventually(t, "load", func() error {
		if sent.Load() < 200 {
			return errors.New("not enough requests yet")
		}
		return nil
	})
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "not ready", func() error { return wantStatus(get("http://"+p.admin+"/readyz", ""))(http.StatusServiceUnavailable) })
	eventually(t, "clients told to leave", func() error { return toldToLeave(p.http) })
	time.Sleep(300 * time.Millisecond) // how long the load balancer takes to react
	away.Store(true)
	wg.Wait()
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("the process ended with %v, want exit status 0\n%s", err, &p.out)
	}
	t.Logf("%d requests, %d failed", sent.Load(), failed.Load())
}

// toldToLeave complains unless a request on a new connection is answered and told that the connection ends with it.
func toldToLeave(address string) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: x.example.com\r\n\r\n")); err != nil {
		return err
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK || !res.Close {
		return fmt.Errorf("got %s, close %v; want 200 and close", res.Status, res.Close)
	}
	return nil
}

func TestASecondSignalEndsItAtOnce(t *testing.T) {
	p := startProcess(t, "drain: {delay: 1m, grace: 1m}\n")
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "not ready", func() error { return wantStatus(get("http://"+p.admin+"/readyz", ""))(http.StatusServiceUnavailable) })
	begun := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err := p.cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || time.Since(begun) > 10*time.Second {
		t.Errorf("got %v after %v, want exit status 1 at once", err, time.Since(begun))
	}
	if strings.Contains(p.out.String(), "panic") {
		t.Errorf("it panicked:\n%s", &p.out)
	}
}
