package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// block is a fenced block of the README.
type block struct{ kind, text string }

func readmeBlocks(t *testing.T) []block {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository(t), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var blocks []block
	for _, m := range regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```").FindAllStringSubmatch(string(text), -1) {
		blocks = append(blocks, block{m[1], m[2]})
	}
	return blocks
}

// TestReadme runs the commands of the README in their order, and compares what they print with the block that follows, where there is one.
func TestReadme(t *testing.T) {
	t.Chdir(t.TempDir())
	demo := startDemo(t)
	ran := 0
	blocks := readmeBlocks(t)
	for i, b := range blocks {
		if b.kind != "sh" {
			continue
		}
		var out string
		for line := range strings.Lines(b.text) {
			out += demo.command(t, strings.TrimSpace(line))
			ran++
		}
		if i+1 < len(blocks) && blocks[i+1].kind == "text" && !strings.Contains(out, blocks[i+1].text) {
			t.Errorf("after\n%s\nthe README shows\n%s\nbut the output is\n%s", b.text, blocks[i+1].text, out)
		}
	}
	if ran < 9 {
		t.Errorf("only %d commands found in the README", ran)
	}
}

// TestDemoPrintsCommandsThatWork runs every curl line that the demo prints.
func TestDemoPrintsCommandsThatWork(t *testing.T) {
	demo := startDemo(t)
	lines := regexp.MustCompile(`(?m)^ +(curl .*?) *(#.*)?$`).FindAllStringSubmatch(demo.out.String(), -1)
	if len(lines) < 8 {
		t.Fatalf("the demo printed %d curl lines:\n%s", len(lines), demo.out)
	}
	for _, l := range lines {
		if _, err := demo.curl(l[1]); err != nil {
			t.Errorf("%s: %v", l[1], err)
		}
	}
}

// TestAKilledEndpointCostsNoRequest is what the demo promises.
func TestAKilledEndpointCostsNoRequest(t *testing.T) {
	demo := startDemo(t)
	if _, err := demo.curl("curl -X POST http://127.0.0.1:9000/demo/endpoints/web-0/kill"); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range 30 {
		a, err := demo.curl("curl http://shop.localhost:8080/")
		if err != nil {
			t.Fatal(err)
		}
		seen[a.header.Get("X-Echo-Name")] = true
	}
	if len(seen) != 2 || seen["web-0"] {
		t.Errorf("got answers from %v, want web-1 and web-2", seen)
	}
	if _, err := demo.curl("curl -X POST http://127.0.0.1:9000/demo/endpoints/nobody/kill"); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("an endpoint that does not exist: got %v, want 404", err)
	}
}

func TestPrintYAMLIsServable(t *testing.T) {
	dir := t.TempDir()
	status, out, _ := runCommand(t, "demo", "--print-yaml")
	if status != 0 {
		t.Fatalf("exit status %d", status)
	}
	writeFile(t, dir, "demo.yaml", out)
	if status, out, errOut := runCommand(t, "lint", dir); status != 0 {
		t.Errorf("lint: exit status %d:\n%s%s", status, out, errOut)
	}
}

// runningDemo is the demo on ports of its own.
type runningDemo struct {
	out   *lockedBuffer
	ports *strings.Replacer // from the ports that the documentation names to those of this run
	back  *strings.Replacer
}

func startDemo(t *testing.T) *runningDemo {
	t.Helper()
	var there, here []string
	for _, p := range []string{"8080", "8443", "9000"} {
		free := fmt.Sprint(freePort(t))
		there, here = append(there, ":"+p, ":"+free), append(here, free, p)
	}
	d := &runningDemo{out: &lockedBuffer{}, ports: strings.NewReplacer(there...), back: strings.NewReplacer(here...)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan int, 1)
	args := []string{"demo", "--port-map", fmt.Sprintf("80:%s,443:%s", here[0], here[2]), "--admin-address", "127.0.0.1:" + here[4]}
	go func() { ended <- runWith(ctx, args, d.out, io.Discard) }()
	t.Cleanup(func() {
		cancel()
		if status := <-ended; status != 0 {
			t.Errorf("the demo ended with status %d", status)
		}
	})
	eventually(t, "demo started", func() error {
		if !strings.Contains(d.out.String(), "Ctrl-C stops") {
			return fmt.Errorf("no instructions yet:\n%s", d.out)
		}
		return nil
	})
	return d
}

// command runs a line of the README and returns what it prints.
func (d *runningDemo) command(t *testing.T, line string) string {
	t.Helper()
	words := strings.Fields(line)
	switch words[0] {
	case "make":
		if out, err := exec.Command("make", "-C", repository(t), "-n", words[1]).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
		if words[1] == "run" { // it runs already
			return d.back.Replace(d.out.String())
		}
	case "mkdir":
		if err := os.Mkdir(words[1], 0o750); err != nil {
			t.Error(err)
		}
	case "curl":
		a, err := d.curl(line)
		if err != nil {
			t.Errorf("%s: %v", line, err)
		}
		return a.body
	case "./bin/fairlead":
		return runLine(t, line)
	default:
		t.Errorf("do not know how to run %q", line)
	}
	return ""
}

var testDir = func() string { dir, _ := os.Getwd(); return dir }()

func repository(t *testing.T) string {
	t.Helper()
	return filepath.Join(testDir, "../..")
}

// runLine runs a fairlead command of the README; > sends its output to a file.
func runLine(t *testing.T, line string) string {
	t.Helper()
	line, file, toFile := strings.Cut(line, " > ")
	args := shellWords(line)[1:]
	var out, errOut bytes.Buffer
	status := runWith(t.Context(), args, &out, &errOut)
	if args[0] == "serve" { // the folder is the reader's own
		if status != 2 || !strings.Contains(errOut.String(), "k8s") {
			t.Errorf("%s: status %d, %s", line, status, &errOut)
		}
		return ""
	}
	if status != 0 {
		t.Errorf("%s: exit status %d\n%s%s", line, status, &out, &errOut)
	}
	if toFile {
		if err := os.WriteFile(file, out.Bytes(), 0o600); err != nil {
			t.Error(err)
		}
		return ""
	}
	return out.String()
}

// shellWords splits a line as a shell does, as far as single quotes go.
func shellWords(line string) (words []string) {
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			words = append(words, part)
			continue
		}
		words = append(words, strings.Fields(part)...)
	}
	return words
}

// curl does what curl does for the options that the documentation uses. It fails for a status from 400 on.
func (d *runningDemo) curl(line string) (answer, error) {
	words := shellWords(d.ports.Replace(line))
	req, err := http.NewRequest(http.MethodGet, words[len(words)-1], nil)
	if err != nil {
		return answer{}, err
	}
	insecure := false
	for i := 1; i < len(words)-1; i++ {
		switch words[i] {
		case "-k":
			insecure = true
		case "-i":
		case "-X":
			i++
			req.Method = words[i]
		case "-H":
			i++
			name, value, _ := strings.Cut(words[i], ": ")
			req.Header.Set(name, value)
		default:
			return answer{}, fmt.Errorf("option %s is not known to this test", words[i])
		}
	}
	tr := &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: insecure, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) { // *.localhost is this machine, with or without DNS
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
		},
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode >= 400 {
		err = fmt.Errorf("%s: %s", res.Status, body)
	}
	return answer{res.StatusCode, res.Header, string(body)}, err
}
