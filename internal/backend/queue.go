package backend

import (
	"cmp"
	deque "container/list"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// defaultQueue is how long a request waits for an endpoint that has room, if nothing else is said.
const defaultQueue = time.Second

var (
	errAllBusy      = errors.New("all endpoints have as many requests as they may")
	errQueueFull    = errors.New("all endpoints have as many requests as they may, and as many wait as may")
	errQueueTimeout = errors.New("no endpoint had room in time")
	errHoldFull     = errors.New("the pool has no endpoints, and as many requests wait for one as may")
)

// maxHeld is how many requests of a pool may wait for it to have an endpoint, where its limit for waiting requests is not set.
const maxHeld = 1000

// queue is the requests that wait until an endpoint of a pool has room for them, or until there is one: first come, first served. The zero value is empty.
type queue struct {
	n       atomic.Int64 // of waiting
	mu      sync.Mutex
	waiting deque.List // of chan struct{}, which are closed when it is their turn
}

// join puts a request in the queue unless there are most already; first puts one that has waited before in front again. leave must be called when it does not
// wait any more and was not called.
func (q *queue) join(most int, first bool) (turn chan struct{}, leave func(), ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !first && q.waiting.Len() >= most {
		return nil, nil, false
	}
	turn = make(chan struct{})
	at := q.waiting.PushBack(turn)
	if first {
		q.waiting.MoveToFront(at)
	}
	q.n.Add(1)
	return turn, func() { q.remove(at) }, true
}

// remove takes a request out of the queue. If it was called in the meantime, another is called in its place.
func (q *queue) remove(at *deque.Element) {
	q.mu.Lock()
	called := at.Value == nil
	if !called {
		q.drop(at)
	}
	q.mu.Unlock()
	if called {
		q.next()
	}
}

func (q *queue) drop(at *deque.Element) {
	q.waiting.Remove(at)
	at.Value = nil
	q.n.Add(-1)
}

// next lets the first one try.
func (q *queue) next() {
	if q.n.Load() == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if first := q.waiting.Front(); first != nil {
		q.callLocked(first)
	}
}

// all lets all of them try that wait now. Who finds no room joins again, and has to wait until all were called.
func (q *queue) all() {
	if q.n.Load() == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for first := q.waiting.Front(); first != nil; first = q.waiting.Front() {
		q.callLocked(first)
	}
}

func (q *queue) callLocked(first *deque.Element) {
	turn := first.Value.(chan struct{})
	q.drop(first)
	close(turn)
}

// room is how many requests, or whole connections, may be under way at the endpoint; 0 is no limit.
func (e *endpoint) room(l *route.Limits, whole bool) int64 {
	most := int64(l.Requests)
	single := whole || e.protocol != route.H2C && e.protocol != route.HTTPS // each connection carries one request
	if single && l.Connections > 0 && (most == 0 || int64(l.Connections) < most) {
		most = int64(l.Connections)
	}
	return most
}

// find acquires an endpoint for the request, which may have to wait for one. The error is nil if there is one, or none to wait for.
func (x *exchange) find() (e *endpoint, trial bool, err *Error) {
	return x.pool.find(x.req.Context(), x.acquire)
}

// find acquires an endpoint with acquire, for which it may have to wait.
func (p *Pool) find(ctx context.Context, acquire func() (e *endpoint, trial, busy bool)) (e *endpoint, trial bool, err *Error) {
	if p.queue.n.Load() == 0 {
		if e, trial, busy := acquire(); e != nil || !p.mustWait(busy) {
			return e, trial, nil
		}
	}
	return p.waitForRoom(ctx, acquire)
}

// mustWait reports whether a request that got no endpoint should wait for one.
func (p *Pool) mustWait(busy bool) bool {
	l := p.list.Load()
	return busy || len(l.all) == 0 && l.care.Hold > 0
}

// waitForRoom waits in the queue of the pool.
func (p *Pool) waitForRoom(ctx context.Context, acquire func() (e *endpoint, trial, busy bool)) (e *endpoint, trial bool, err *Error) {
	l := p.list.Load()
	held := len(l.all) == 0
	most, wait := l.care.Limits.Pending, cmp.Or(l.care.Limits.Queue, defaultQueue)
	if held {
		most, wait = cmp.Or(most, maxHeld), l.care.Hold
	}
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	for again := false; ; again = true {
		turn, leave, ok := p.queue.join(most, again)
		if !ok {
			return nil, false, noRoom(held, most)
		}
		// What became free between the last look and joining the queue has called nobody.
		if e, trial, busy := acquire(); e != nil || !p.mustWait(busy) {
			leave()
			return e, trial, nil
		}
		select {
		case <-turn:
		case <-deadline.C:
			leave()
			return nil, false, waitedInVain(held)
		case <-ctx.Done():
			leave()
			return nil, false, &Error{Reason: reasonOf(ctx), Err: context.Cause(ctx)}
		}
	}
}

func waitedInVain(held bool) *Error {
	if held {
		return &Error{Reason: route.NoEndpoints, Err: errNoEndpoints}
	}
	return &Error{Reason: route.QueueTimeout, Err: errQueueTimeout}
}

// noRoom is why a request may not even wait.
func noRoom(held bool, most int) *Error {
	switch {
	case held:
		return &Error{Reason: route.QueueFull, Err: errHoldFull}
	case most == 0:
		return &Error{Reason: route.EndpointsBusy, Err: errAllBusy}
	}
	return &Error{Reason: route.QueueFull, Err: errQueueFull}
}
