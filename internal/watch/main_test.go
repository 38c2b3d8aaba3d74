package watch

import (
	"os"
	"testing"

	utilruntime "k8s.io/apimachinery/pkg/util/runtime"

	"github.com/fairlead-io/fairlead/internal/leak"
)

// TestMain fails the run if a test leaves a goroutine of this package, or of the libraries that it uses to watch, behind.
func TestMain(m *testing.M) {
	// The second handler sleeps for as long as it is by the clock to the last error, which is decades between a bubble and the next.
	utilruntime.ErrorHandlers = utilruntime.ErrorHandlers[:1]
	os.Exit(leak.Run(m, "internal/watch.(", "k8s.io/client-go/tools", "apimachinery/pkg/watch"))
}
