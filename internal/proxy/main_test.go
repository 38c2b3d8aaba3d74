package proxy

import (
	"fmt"
	"io"
	"log"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain fails the run if a test leaves a goroutine behind, or if a connection was ever read or written without a deadline.
func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // net/http reports what backends send unasked
	code := m.Run()
	if code == 0 {
		code = check()
	}
	os.Exit(code)
}

func check() int {
	if n := unguarded.Load(); n > 0 {
		fmt.Printf("%d reads or writes without a deadline\n", n)
		return 1
	}
	var left []string
	for range 100 {
		if left = goroutines(); len(left) == 0 {
			return 0
		}
		time.Sleep(50 * time.Millisecond)
	}
	fmt.Printf("%d goroutines were left behind:\n\n%s\n", len(left), strings.Join(left, "\n\n"))
	return 1
}

// goroutines returns the stacks of the goroutines that should not be there.
func goroutines() (left []string) {
	buf := make([]byte, 1<<20)
	stacks := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
	for _, s := range stacks[1:] { // the first is this one
		if strings.Contains(s, "testing.") || strings.Contains(s, "os/signal.") || strings.Contains(s, "runtime/pprof.") {
			continue
		}
		left = append(left, s)
	}
	return left
}
