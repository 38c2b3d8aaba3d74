package backend

import (
	"math"
	"time"
)

// memory is how long a latency is remembered: after this time it counts for a third.
const memory = 10 * time.Second

// observe notes how long the endpoint took to begin its response. A latency above what is expected is believed at once, one below it little by little: an endpoint
// that becomes slow must not get more before that is known for sure, and one that becomes fast can wait.
func (e *endpoint) observe(now, took time.Duration) {
	have, at := e.latency.Load(), e.latencyAt.Swap(int64(now))
	next := max(float64(took), 1)
	if old := math.Float64frombits(have); old > next {
		w := math.Exp(-float64(max(int64(now)-at, 0)) / float64(memory))
		next = old*w + next*(1-w)
	}
	e.latency.CompareAndSwap(have, math.Float64bits(next)) // of two at the same moment one is enough
}

// expectedLatency is what the endpoint is expected to take, in nanoseconds; 0 if nothing is known. What it took long ago says less and less, so that an endpoint that
// was slow is asked again.
func (e *endpoint) expectedLatency(now time.Duration) float64 {
	latency := math.Float64frombits(e.latency.Load())
	if age := int64(now) - e.latencyAt.Load(); age > int64(memory)/64 {
		latency *= math.Exp(-float64(age) / float64(memory))
	}
	return latency
}

// usualLatency is what the endpoint took when it last answered, whenever that was; 0 if nothing is known.
func (e *endpoint) usualLatency() time.Duration {
	return time.Duration(math.Float64frombits(e.latency.Load()))
}

// delayOf returns the time after which an endpoint among some should answer one more request, counting those that it has in proportion to its weight. One of which nothing is
// known gets one request, and more when it has answered that.
func (s *Set) delayOf(in []*endpoint) func(*endpoint) float64 {
	mean := 0.0
	for _, e := range in {
		mean += float64(e.share.Load()) / float64(len(in))
	}
	return func(e *endpoint) float64 {
		n := busyness(e) * mean
		latency := e.expectedLatency(s.now())
		if latency == 0 && n > 0 {
			return math.MaxFloat64
		}
		return latency * (n + 1)
	}
}
