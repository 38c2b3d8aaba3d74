package backend

import (
	"math/rand/v2"
	"time"
)

// A new endpoint, or one that has recovered, gets a growing part of its share during the slow start of its policy: its caches are cold, its code is not compiled yet.
// The part is kept in the endpoint, where picking reads it, and brought up to date by whoever picks when it is due.
const (
	firstWarmth = 10 // percent, from the beginning: without requests nothing becomes warm
	warmSteps   = 50 // how often it is brought up to date
)

// startWarming begins the slow start of an endpoint, if the policy has one. The caller holds p.mu.
func (p *Pool) startWarming(e *endpoint) {
	if p.policy.SlowStart <= 0 {
		return
	}
	now := p.set.now()
	e.warmFrom = now
	e.warmth.Store(firstWarmth)
	p.warmDue.Store(int64(now + p.policy.SlowStart/warmSteps))
}

// warm brings the warmth of the endpoints up to date, if it is time. due is what p.warmDue was a moment ago.
func (p *Pool) warm(due int64) {
	now := p.set.now()
	if int64(now) < due || !p.mu.TryLock() {
		return
	}
	defer p.mu.Unlock()
	window, next := p.policy.SlowStart, int64(0)
	for _, e := range p.list.Load().all {
		if e.warmth.Load() == 0 {
			continue
		}
		percent := warmthAt(now-e.warmFrom, window)
		e.warmth.Store(percent)
		if percent != 0 {
			next = int64(now + window/warmSteps)
		}
	}
	p.warmDue.Store(next)
}

// warmthAt is the percentage of its share that an endpoint gets some time after its beginning; 0 stands for all.
func warmthAt(age, window time.Duration) uint32 {
	if age >= window {
		return 0
	}
	return max(firstWarmth, uint32(100*age/window)) // #nosec G115 -- a percentage
}

// cold reports whether the endpoint does without a request that it could have had, because of slow start.
func (e *endpoint) cold() bool {
	w := e.warmth.Load()
	return w != 0 && rand.Uint32N(100) >= w // #nosec G404 -- shares out load, guards nothing
}
