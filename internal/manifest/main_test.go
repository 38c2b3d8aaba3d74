package manifest

import (
	"os"
	"testing"

	"github.com/fairlead-io/fairlead/internal/leak"
)

// ours are the goroutines of this package, and of the watcher it uses.
var ours = []string{"fsnotify", "internal/manifest.("}

// TestMain fails the run if a test leaves a goroutine of ours behind.
func TestMain(m *testing.M) { os.Exit(leak.Run(m, ours...)) }
