package proxy

import (
	"hash/maphash"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
)

// defaultConnections leaves two of three file descriptors to connections with backends and everything else.
func defaultConnections() int {
	const most = 50_000
	if n := maxFiles(); n > 0 && n/3 < most {
		return max(int(n/3), 1)
	}
	return most
}

// connLimiter counts connections, in all and by client.
type connLimiter struct {
	most, perClient int // negative: no limit
	exempt          []netip.Prefix
	open            atomic.Int64
	seed            maphash.Seed
	shards          [64]connShard
}

type connShard struct {
	mu      sync.Mutex
	clients map[netip.Addr]int
}

func newConnLimiter(l *Limits, exempt []netip.Prefix) *connLimiter {
	c := &connLimiter{most: l.Connections, perClient: l.ConnectionsPerIP, exempt: exempt, seed: maphash.MakeSeed()}
	for i := range c.shards {
		c.shards[i].clients = map[netip.Addr]int{}
	}
	return c
}

// client is whom a connection is counted for: an IPv4 address, or the IPv6 network that is usually given to one customer. Connections from exempt peers are
// counted for nobody.
func (c *connLimiter) client(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if c.perClient < 0 || !a.IsValid() || a.IsLoopback() || slices.ContainsFunc(c.exempt, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return netip.Addr{}
	}
	if a.Is6() {
		p, _ := a.Prefix(64)
		return p.Addr()
	}
	return a
}

// acquire takes a place for a connection from a; it must be given back with release, unless there was none.
func (c *connLimiter) acquire(a netip.Addr) (ok bool) {
	if n := c.open.Add(1); c.most >= 0 && n > int64(c.most) {
		c.open.Add(-1)
		return false
	}
	client := c.client(a)
	if !client.IsValid() {
		return true
	}
	s := c.shard(client)
	s.mu.Lock()
	n := s.clients[client]
	if n < c.perClient {
		s.clients[client] = n + 1
	}
	s.mu.Unlock()
	if n >= c.perClient {
		c.open.Add(-1)
		return false
	}
	return true
}

// release gives back what acquire took.
func (c *connLimiter) release(a netip.Addr) {
	c.open.Add(-1)
	client := c.client(a)
	if !client.IsValid() {
		return
	}
	s := c.shard(client)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clients[client]--; s.clients[client] == 0 {
		delete(s.clients, client)
	}
}

func (c *connLimiter) shard(client netip.Addr) *connShard {
	return &c.shards[maphash.Comparable(c.seed, client)%uint64(len(c.shards))]
}

// crowded reports whether nine of ten places are taken: connections that wait for nothing should then go soon.
func (c *connLimiter) crowded() bool {
	return c.most >= 0 && c.open.Load() > int64(c.most)/10*9
}
