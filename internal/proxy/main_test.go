package proxy

import (
	"fmt"
	"io"
	"log"
	"os"
	"testing"

	"github.com/fairlead-io/fairlead/internal/leak"
)

// TestMain fails the run if a test leaves a goroutine behind, or if a connection was ever read or written without a deadline.
func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // net/http reports what backends send unasked
	code := leak.Run(m)
	if n := unguarded.Load(); code == 0 && n > 0 {
		fmt.Printf("%d reads or writes without a deadline\n", n)
		code = 1
	}
	os.Exit(code)
}
