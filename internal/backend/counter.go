package backend

import "sync/atomic"

// traffic counts the requests of a pool. The numbers are spread over several cache lines, so that requests seldom wait for each other. The zero value is none.
type traffic struct {
	cells [8]struct {
		begun, ended atomic.Uint64
		_            [48]byte
	}
}

// begin counts a request that is sent to an endpoint. Where is any number that stays the same until end.
func (t *traffic) begin(where uint64) { t.cells[where%uint64(len(t.cells))].begun.Add(1) }

func (t *traffic) end(where uint64) { t.cells[where%uint64(len(t.cells))].ended.Add(1) }

// inFlight is how many requests have begun and not ended. It is exact when nothing begins or ends.
func (t *traffic) inFlight() (n int64) {
	for i := range t.cells {
		c := &t.cells[i]
		ended := c.ended.Load()            // first, or there could be more of these
		n += int64(c.begun.Load() - ended) // #nosec G115 -- a difference
	}
	return n
}

// begun is how many requests there ever were.
func (t *traffic) begun() (n uint64) {
	for i := range t.cells {
		n += t.cells[i].begun.Load()
	}
	return n
}
