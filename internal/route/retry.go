package route

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// Retry says when a request is sent again because of what came of it. A request that reached nobody is sent elsewhere whatever it says.
type Retry struct {
	// Attempts is how often a request is sent again at most. Zero means never.
	Attempts int
	// Codes are the statuses of a response after which the request is sent again, in ascending order. Connections that break before the response, and tries
	// that take too long, need no code.
	Codes []int
	// Backoff is how long to wait before a request is sent again, at least. Zero means the proxy's default.
	Backoff time.Duration
}

// Covers reports whether a response with the status is one to try again after. A nil Retry covers none.
func (r *Retry) Covers(status int) bool {
	if r == nil || r.Attempts == 0 {
		return false
	}
	_, found := slices.BinarySearch(r.Codes, status)
	return found
}

// String returns the policy on one line, such as "retry=2 retry-on=500,503 retry-backoff=100ms"; "retry=none" for one without attempts and "" for nil.
func (r *Retry) String() string {
	switch {
	case r == nil:
		return ""
	case r.Attempts <= 0:
		return "retry=none"
	}
	on := ""
	if len(r.Codes) > 0 {
		codes := make([]string, len(r.Codes))
		for i, c := range r.Codes {
			codes[i] = strconv.Itoa(c)
		}
		on = "retry-on=" + strings.Join(codes, ",")
	}
	return joinWords("retry="+strconv.Itoa(r.Attempts), on, timeoutText("retry-backoff", r.Backoff))
}
