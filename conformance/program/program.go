// Package program builds programs and runs them, for tests of Fairlead as a whole. It is a module of its own, so that the modules of such tests can share it and
// nothing else.
package program

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Build builds a package into a file of a folder. module is the folder of the module that it is built in.
func Build(folder, module, pkg string) (file string, err error) {
	file = filepath.Join(folder, filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-o", file, pkg)
	cmd.Dir = module
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, text)
	}
	return file, nil
}

// Process is a program that a test has started. Its methods may be called concurrently.
type Process struct {
	Log  Record        // what it has printed
	Done chan struct{} // closed when it has ended

	cmd *exec.Cmd
}

// Start starts a program, with env beside the environment of the test. It is killed when the test ends, and what it printed last is shown if that has failed.
func Start(t testing.TB, file string, env []string, args ...string) *Process {
	t.Helper()
	p := &Process{cmd: exec.Command(file, args...), Done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.Log, &p.Log
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.SysProcAttr = dieWithParent()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = p.cmd.Wait(); close(p.Done) }()
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			text := p.Log.String()
			t.Logf("%s:\n%s", filepath.Base(file), text[max(0, len(text)-6000):])
		}
	})
	return p
}

// Kill ends the process without warning, and waits until it has ended.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.Done
}

// Record is a text that grows. The zero value is empty. Safe for concurrent use.
type Record struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write appends to the text.
func (r *Record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(p)
}

// String returns the text so far.
func (r *Record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.String()
}

// FreePort returns a port of 127.0.0.1 that nobody listens on.
func FreePort(t testing.TB) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().(*net.TCPAddr).Port
}

// Eventually waits until what is asked for is so.
func Eventually(t testing.TB, within time.Duration, what string, so func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = so(); err == nil {
			return
		}
	}
	t.Fatalf("%s: not within %s: %v", what, within, err)
}
