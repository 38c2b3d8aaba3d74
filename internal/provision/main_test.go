package provision

import (
	"os"
	"testing"

	"github.com/fairlead-io/fairlead/internal/leak"
)

// TestMain fails the run if a test leaves a goroutine of this package behind.
func TestMain(m *testing.M) { os.Exit(leak.Run(m, "internal/provision.")) }
