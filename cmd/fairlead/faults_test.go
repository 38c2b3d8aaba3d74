//go:build faults

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// What TestFaults does to one of four endpoints, and for how long. FAULTS_WINDOW is the time that it is bad; before it everything is well for a third of that, and
// after it the endpoint has recovered, for as long again.
const (
	faultRate    = 200 // requests a second to each proxy
	faultUsual   = 10 * time.Millisecond
	faultSlow    = 100 * time.Millisecond
	faultLate    = 60 * time.Millisecond // what is counted as slow
	faultTimeout = time.Second           // that each proxy was given for an answer
)

// TestFaults shows what clients notice while one of four endpoints is bad, beside HAProxy and nginx in the same run. It needs both, prints a table and fails only if Fairlead
// loses requests that it could have saved.
func TestFaults(t *testing.T) {
	window, err := time.ParseDuration(os.Getenv("FAULTS_WINDOW"))
	if err != nil {
		window = 20 * time.Second
	}
	for _, name := range []string{"nginx", "haproxy"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed: apt-get install nginx haproxy", name)
		}
	}
	fmt.Printf("| fault | retries | proxy | failed | slow | longest failure | back after |\n|---|---|---|---|---|---|---|\n")
	for _, retries := range []bool{false, true} {
		for _, fault := range []string{"resets", "hangs", "500s", "10x slow"} {
			var wg sync.WaitGroup
			results := make([]faultResult, 3)
			for i, proxy := range []string{"Fairlead", "HAProxy", "nginx"} {
				f := newFaulty(t)
				address := f.front(t, proxy, retries)
				wg.Go(func() { results[i] = f.run(address, proxy, fault, window) })
			}
			wg.Wait()
			for _, r := range results {
				fmt.Printf("| %s | %s | %s | %.2f %% | %.1f %% | %s | %s |\n", fault, map[bool]string{true: "on", false: "off"}[retries], r.proxy,
					100*float64(r.failed)/float64(r.during), 100*float64(r.slow)/float64(r.during), r.longest.Round(10*time.Millisecond), r.back.Round(10*time.Millisecond))
			}
			if r := results[0]; retries && fault != "10x slow" && r.failed*200 > r.during {
				t.Errorf("%s: with retries %d of %d requests failed", fault, r.failed, r.during)
			}
		}
	}
}

// faulty is four endpoints, of which the first can turn bad.
type faulty struct {
	endpoints []string
	fault     atomic.Pointer[string]
	healed    atomic.Bool
	first     atomic.Int64 // when the first endpoint has served a request after it was healed, in ns since that
	since     atomic.Int64
}

func newFaulty(t *testing.T) *faulty {
	t.Helper()
	f := &faulty{}
	well := ""
	f.fault.Store(&well)
	for i := range 4 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f.serve(w, r, i == 0) })}
		go func() { _ = srv.Serve(ln) }()
		t.Cleanup(func() { _ = srv.Close() })
		f.endpoints = append(f.endpoints, ln.Addr().String())
	}
	return f
}

func (f *faulty) serve(w http.ResponseWriter, r *http.Request, bad bool) {
	delay := faultUsual
	if bad {
		switch *f.fault.Load() {
		case "resets":
			panic(http.ErrAbortHandler)
		case "hangs":
			<-r.Context().Done()
			return
		case "500s":
			time.Sleep(faultUsual)
			w.WriteHeader(http.StatusInternalServerError)
			return
		case "10x slow":
			delay = faultSlow
		}
		if f.healed.Load() {
			f.first.CompareAndSwap(0, time.Now().UnixNano()-f.since.Load())
		}
	}
	time.Sleep(delay)
	_, _ = io.WriteString(w, "hello\n")
}

// front starts a proxy in front of the endpoints and returns its address.
func (f *faulty) front(t *testing.T, proxy string, retries bool) string {
	t.Helper()
	switch proxy {
	case "HAProxy":
		return f.haproxy(t, retries)
	case "nginx":
		return f.nginx(t, retries)
	}
	policy := "{attempts: 0}"
	if retries {
		policy = "{attempts: 2, codes: [500]}"
	}
	s := &soak{dir: t.TempDir()}
	for _, e := range f.endpoints {
		s.live = append(s.live, &soakBackend{addr: e})
	}
	s.file(t, "services.yaml", strings.Replace(soakServices, "name: web, namespace: soak", `name: web, namespace: soak, annotations: {fairlead.io/eject-latency-factor: "5"}`, 1))
	s.file(t, "routes.yaml", strings.Replace(fmt.Sprintf(soakRoutes, 1), "rules:\n    - ", fmt.Sprintf("rules:\n    - retry: %s\n      timeouts: {backendRequest: %s}\n      ", policy, faultTimeout), 1))
	s.endpoints(t)
	return serveFolder(t, s.dir).http
}

func (f *faulty) haproxy(t *testing.T, retries bool) string {
	t.Helper()
	policy := "retries 0"
	if retries {
		policy = "retries 2\n  retry-on all-retryable-errors\n  option redispatch 1"
	}
	port := freePort(t)
	config := fmt.Sprintf("global\n  maxconn 4000\ndefaults\n  mode http\n  timeout connect 1s\n  timeout client 30s\n  timeout server %dms\n  timeout queue 1s\n  %s\n"+
		"frontend f\n  bind 127.0.0.1:%d\n  default_backend b\nbackend b\n  balance roundrobin\n  default-server check inter 1s fall 2 rise 2 observe layer7 error-limit 10 on-error mark-down\n",
		faultTimeout.Milliseconds(), policy, port)
	for i, e := range f.endpoints {
		config += fmt.Sprintf("  server s%d %s\n", i, e)
	}
	return startFront(t, port, config, func(file string) *exec.Cmd { return exec.Command("haproxy", "-db", "-f", file) })
}

func (f *faulty) nginx(t *testing.T, retries bool) string {
	t.Helper()
	policy := "proxy_next_upstream off;"
	if retries {
		policy = "proxy_next_upstream error timeout http_500; proxy_next_upstream_tries 3;"
	}
	port := freePort(t)
	dir := t.TempDir()
	servers := ""
	for _, e := range f.endpoints {
		servers += "server " + e + ";"
	}
	config := fmt.Sprintf("daemon off; pid %s/pid; error_log /dev/null; worker_processes 1; events {worker_connections 4000;}\nhttp { access_log off; client_body_temp_path %[1]s; proxy_temp_path %[1]s;"+
		"fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s; upstream b { %s keepalive 64; }\nserver { listen 127.0.0.1:%d; location / { proxy_pass http://b; proxy_http_version 1.1;"+
		"proxy_set_header Connection ''; proxy_read_timeout %dms; proxy_connect_timeout 1s; %s } } }\n", dir, servers, port, faultTimeout.Milliseconds(), policy)
	return startFront(t, port, config, func(file string) *exec.Cmd { return exec.Command("nginx", "-c", file) })
}

// startFront starts a proxy with a configuration and waits until it listens.
func startFront(t *testing.T, port uint16, config string, command func(file string) *exec.Cmd) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := command(file)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Signal(os.Interrupt); _ = cmd.Wait() })
	address := fmt.Sprintf("127.0.0.1:%d", port)
	eventually(t, cmd.Path+" listens", func() error {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
		}
		return err
	})
	return address
}

// faultResult is what clients have noticed. During is the requests that were sent while the endpoint was bad.
type faultResult struct {
	proxy                string
	during, failed, slow int64
	longest, back        time.Duration // from the beginning of the fault to the last failure; from its end to the first request that the endpoint served
}

// run sends requests while the endpoint is well, bad, and well again.
func (f *faulty) run(address, proxy, fault string, window time.Duration) faultResult {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 1000}}
	defer client.CloseIdleConnections()
	r := faultResult{proxy: proxy}
	var during, failed, slow, last atomic.Int64
	var wg sync.WaitGroup
	begin, end := window/3, window/3+window
	start := time.Now()
	tick := time.NewTicker(time.Second / faultRate)
	defer tick.Stop()
	for now := range tick.C {
		at := now.Sub(start)
		switch {
		case at > end+window:
			wg.Wait()
			r.during, r.failed, r.slow, r.longest, r.back = during.Load(), failed.Load(), slow.Load(), time.Duration(last.Load()), time.Duration(f.first.Load())
			return r
		case at > end && !f.healed.Load():
			well := ""
			f.since.Store(now.UnixNano())
			f.fault.Store(&well)
			f.healed.Store(true)
		case at > begin && at <= end && *f.fault.Load() == "":
			f.fault.Store(&fault)
		}
		inside := at > begin && at <= end
		wg.Go(func() {
			sent := time.Now()
			err := askFront(client, address)
			if !inside {
				return
			}
			during.Add(1)
			if err != nil {
				failed.Add(1)
				last.Store(max(last.Load(), int64(time.Since(start)-begin)))
			} else if time.Since(sent) > faultLate {
				slow.Add(1)
			}
		})
	}
	return r
}

func askFront(client *http.Client, address string) error {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		return err
	}
	req.Host = "soak.example.com"
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	return nil
}
