package compile

import (
	"strings"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

func TestParseCare(t *testing.T) {
	care, retry, err := ParseCare(map[string]string{"hold": "10s", "retry-codes": "503", "health-check": "tcp"})
	want := route.Care{Hold: 10 * time.Second, Check: route.Check{Kind: route.CheckTCP, Interval: 10 * time.Second, Timeout: 2 * time.Second, Healthy: 2, Unhealthy: 3}}
	if err != nil || care != want || retry.String() != "retry=2 retry-on=503" {
		t.Errorf("got %v, %v, %v", care, retry, err)
	}
	if care, retry, err := ParseCare(nil); err != nil || care != (route.Care{}) || retry != nil {
		t.Errorf("of nothing: %v, %v, %v", care, retry, err)
	}
	for name, want := range map[string]string{
		"hold":          `health.hold: "x" is not a duration from 1ms to 10m0s, such as 10s`,
		"held":          `health: there is no "held"; there are health-check, `,
		"max-pending":   `health.max-pending: "x" is not a number from 1 to 1000000`,
		"queue-timeout": `health.queue-timeout: "x" is not a duration`,
	} {
		if _, _, err := ParseCare(map[string]string{name: "x"}); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", name, err, want)
		}
	}
	if _, _, err := ParseCare(map[string]string{"max-pending": "10"}); err == nil || !strings.Contains(err.Error(), "nothing waits without") {
		t.Errorf("a contradiction: %v", err)
	}
}
