package backend

import (
	"cmp"
	"sync"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// budget limits how many requests of a pool are sent again to a share of all, so that a pool that breaks down is not asked even more than before. What was not
// spent is saved, up to a bound: all requests that an endpoint was serving may be lost at the same moment.
type budget struct {
	mu       sync.Mutex
	terms    route.Budget  // that saved was counted by
	saved    float64       // retries
	requests uint64        // of the pool, when saved was last brought up to date
	at       time.Duration // of that
}

// The budget of pools that have none of their own: RetryPercent of the requests and minRetries a second, with firstSaved at first and maxSaved at most.
const (
	firstSaved = 100
	maxSaved   = 1000
	minRetries = 10
)

// take reports whether another request may be sent again, and counts it if so. requests is how many there were so far, and percent is used if terms are zero.
func (b *budget) take(now time.Duration, requests uint64, percent int, terms route.Budget) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if terms == (route.Budget{}) {
		if percent <= 0 {
			return false
		}
		b.earn(now, requests, percent, minRetries, maxSaved)
	} else {
		rate := float64(terms.Count) / cmp.Or(terms.CountInterval, time.Second).Seconds()
		b.earn(now, requests, terms.Percent, rate, b.bound(now, requests, &terms))
	}
	if b.terms != terms {
		b.terms = terms
		b.saved = min(b.saved, float64(max(terms.Count, 1)))
	}
	if b.saved < 1 {
		return false
	}
	b.saved--
	return true
}

// earn brings what is saved up to date.
func (b *budget) earn(now time.Duration, requests uint64, percent int, rate, most float64) {
	earned := float64(requests-b.requests)*float64(percent)/100 + max(0, (now-b.at).Seconds())*rate
	b.saved, b.requests, b.at = min(b.saved+earned, most), requests, now
}

// bound is what may be saved: what an interval earns, supposing that the requests since the last time came evenly.
func (b *budget) bound(now time.Duration, requests uint64, terms *route.Budget) float64 {
	n, passed := float64(requests-b.requests), now-b.at
	if passed > terms.Interval && terms.Interval > 0 {
		n *= float64(terms.Interval) / float64(passed)
	}
	return max(b.saved, n*float64(terms.Percent)/100+float64(terms.Count))
}
