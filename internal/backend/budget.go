package backend

import (
	"sync"
	"time"
)

// budget limits how many requests of a pool are sent again to a share of all, so that a pool that breaks down is not asked even more than before. What was not
// spent is saved, up to maxSaved: all requests that an endpoint was serving may be lost at the same moment.
type budget struct {
	mu       sync.Mutex
	saved    float64       // retries
	requests uint64        // of the pool, when saved was last brought up to date
	at       time.Duration // of that
}

const (
	firstSaved = 100
	maxSaved   = 1000
	minRetries = 10 // a second, however few requests there are
)

// take reports whether another request may be sent again, and counts it if so. requests is how many there were so far and percent how many of them may be.
func (b *budget) take(now time.Duration, requests uint64, percent int) bool {
	if percent <= 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	earned := float64(requests-b.requests)*float64(percent)/100 + max(0, (now-b.at).Seconds())*minRetries
	b.saved, b.requests, b.at = min(b.saved+earned, maxSaved), requests, now
	if b.saved < 1 {
		return false
	}
	b.saved--
	return true
}
