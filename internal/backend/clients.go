package backend

import (
	"net/netip"
	"sync"
	"time"
)

// clients remembers which endpoint the requests of an address go to. A new address goes where its hash says, so that every replica sends it to the same endpoint without
// having heard of it; what is remembered keeps it there when other endpoints come. The zero value is ready.
type clients struct {
	shards [16]struct {
		mu   sync.Mutex
		seen map[netip.Addr]clientPlace
		_    [48]byte
	}
}

// clientPlace is where a client was last, and when.
type clientPlace struct {
	endpoint *endpoint
	at       time.Duration
}

// maxClients bounds how many addresses a shard remembers. Others go where their hash says, and that changes with the endpoints. Whoever has many addresses (of IPv6
// anybody has) can make a pool remember nothing new, but not use up memory.
const maxClients = 4096

// swept is how many entries are looked at, to find some that have timed out, when a shard is full.
const swept = 64

// place returns the endpoint of a client, nil if it has none. It is found there until it has sent nothing for timeout.
func (c *clients) place(a netip.Addr, now, timeout time.Duration) *endpoint {
	s := &c.shards[hasher(0).address(a)%uint64(len(c.shards))]
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.seen[a]
	if !ok {
		return nil
	}
	if now-p.at >= timeout || p.endpoint.gone.Load() {
		delete(s.seen, a)
		return nil
	}
	s.seen[a] = clientPlace{p.endpoint, now}
	return p.endpoint
}

// settle notes that an endpoint has answered a client.
func (c *clients) settle(a netip.Addr, e *endpoint, now, timeout time.Duration) {
	s := &c.shards[hasher(0).address(a)%uint64(len(c.shards))]
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.seen[a]; !ok && len(s.seen) >= maxClients {
		left := swept
		for other, p := range s.seen {
			if now-p.at >= timeout || p.endpoint.gone.Load() {
				delete(s.seen, other)
			}
			if left--; left == 0 {
				break
			}
		}
		if len(s.seen) >= maxClients {
			return
		}
	}
	if s.seen == nil {
		s.seen = map[netip.Addr]clientPlace{}
	}
	s.seen[a] = clientPlace{e, now}
}
