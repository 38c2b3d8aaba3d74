// Package leak finds goroutines that tests leave behind. Only tests import it.
package leak

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// within is how long goroutines have to end.
const within = 10 * time.Second

// Run runs the tests of a package and returns what to exit with: what the tests say or, if they leave goroutines behind, 1. Which is for Left to say.
func Run(m *testing.M, mine ...string) (code int) {
	code = m.Run()
	if code != 0 {
		return code
	}
	if left := Left(mine...); left != "" {
		fmt.Fprintf(os.Stderr, "goroutines were left behind:\n\n%s\n", left)
		return 1
	}
	return 0
}

// Left returns the stacks of goroutines that do not end: of those in whose stack one of the texts of mine is, or of all but the runtime's own and those of testing
// if there is none.
func Left(mine ...string) string {
	pause, end := time.Millisecond, time.Now().Add(within)
	for {
		left := slices.DeleteFunc(others(), func(stack string) bool {
			return contains(stack, "os/signal.", "runtime.ensureSigM", "runtime/pprof.", "testing.(*", "synctest.testingSynctestTest(") || len(mine) > 0 && !contains(stack, mine...)
		})
		if len(left) == 0 || time.Now().After(end) {
			return strings.Join(left, "\n\n")
		}
		time.Sleep(pause)
		pause = min(2*pause, 250*time.Millisecond)
	}
}

// others are the stacks of all goroutines but this one.
func others() []string {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			return strings.Split(string(buf[:n]), "\n\n")[1:]
		}
		buf = make([]byte, 2*len(buf))
	}
}

func contains(stack string, texts ...string) bool {
	return slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(stack, t) })
}
