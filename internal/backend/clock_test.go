package backend

import (
	"sync/atomic"
	"time"
)

// clock is a clock that is set by hand.
type clock struct{ ns atomic.Int64 }

func newClock() *clock { return new(clock) }

func (c *clock) now() time.Time      { return time.Unix(1_000_000, c.ns.Load()) }
func (c *clock) add(d time.Duration) { c.ns.Add(int64(d)) }
