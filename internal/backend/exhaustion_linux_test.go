package backend

import (
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// fewDescriptors is the variable of the environment that has TestRunOutOfDescriptors be the process that runs out, and the address of the backend.
const fewDescriptors = "FAIRLEAD_TEST_FEW_DESCRIPTORS"

// More requests than the process has file descriptors for are refused, nobody is blamed for it, and all is well when they are over. It is tried in a process of its own.
func TestRunOutOfDescriptors(t *testing.T) {
	if address := os.Getenv(fewDescriptors); address != "" {
		runOutOfDescriptors(t, address)
		return
	}
	busy := serve(t, route.HTTP, patient(http.StatusOK, 2*time.Second))
	cmd := exec.Command(os.Args[0], "-test.run=^TestRunOutOfDescriptors$", "-test.v") // #nosec G204 -- this test
	cmd.Env = append(os.Environ(), fewDescriptors+"="+busy.Address)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func runOutOfDescriptors(t *testing.T, address string) {
	const limit, requests = 100, 300
	s, p := newPoolOf(t, Options{}, route.HTTP, address)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
		t.Fatal(err)
	}
	got := crowd(t, p, requests)
	if got[""] == 0 || got[route.Overloaded] == 0 || got[""]+got[route.Overloaded] != requests {
		t.Errorf("got %v", got)
	}
	if st := statusOf(t, s, address); !st.Healthy || st.Failures != 0 || st.InFlight != 0 {
		t.Errorf("status = %+v", st)
	}
	if got := crowd(t, p, 10); got[""] != 10 {
		t.Errorf("afterwards: %v", got)
	}
}
