package watch

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
)

// TestMain fails the run if a test leaves a goroutine of this package, or of the libraries that it uses to watch, behind.
func TestMain(m *testing.M) {
	// The second handler sleeps for as long as it is by the clock to the last error, which is decades between a bubble and the next.
	utilruntime.ErrorHandlers = utilruntime.ErrorHandlers[:1]
	code := m.Run()
	if code == 0 {
		if left := leaked(); left != "" {
			fmt.Fprintln(os.Stderr, "goroutines left behind:\n"+left)
			code = 1
		}
	}
	os.Exit(code)
}

// leaked returns the stacks of goroutines that should have ended. They get a moment to do so.
func leaked() string {
	var left []string
	for range 100 {
		buf := make([]byte, 1<<20)
		left = left[:0]
		for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(stack, "internal/watch.(") || strings.Contains(stack, "k8s.io/client-go/tools") || strings.Contains(stack, "apimachinery/pkg/watch") {
				left = append(left, stack)
			}
		}
		if len(left) == 0 {
			return ""
		}
		time.Sleep(10 * time.Millisecond)
	}
	return strings.Join(left, "\n\n")
}
