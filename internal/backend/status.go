package backend

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// PoolStatus is how a pool is.
type PoolStatus struct {
	Key       route.PoolKey    `json:"key"`
	Protocol  route.Protocol   `json:"protocol"`
	Retired   bool             `json:"retired,omitempty"` // no table names it any more, but it has requests in flight
	Endpoints []EndpointStatus `json:"endpoints"`
}

// EndpointStatus is how an endpoint is.
type EndpointStatus struct {
	Address     string    `json:"address"`
	Healthy     bool      `json:"healthy"`          // not left out for failing
	Why         string    `json:"why,omitempty"`    // it is left out
	RetryAt     time.Time `json:"retryAt,omitzero"` // when it may be tried again
	InFlight    int       `json:"inFlight"`         // requests
	Connections int       `json:"connections"`      // in use or idle
	Failures    int       `json:"failures"`         // since it last answered
	LastError   string    `json:"lastError,omitempty"`
	LastErrorAt time.Time `json:"lastErrorAt,omitzero"`
	Terminating bool      `json:"terminating,omitempty"`
}

// Status says how all pools are, by key; endpoints by address.
func (s *Set) Status() []PoolStatus {
	s.mu.Lock()
	pools := slices.SortedFunc(maps.Values(s.pools), func(a, b *Pool) int { return a.key.Compare(b.key) })
	s.mu.Unlock()
	out := make([]PoolStatus, len(pools))
	for i, p := range pools {
		out[i] = p.status()
	}
	return out
}

func (p *Pool) status() PoolStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.list.Load().all
	st := PoolStatus{Key: p.key, Protocol: p.protocol, Retired: p.retired.Load(), Endpoints: make([]EndpointStatus, len(all))}
	for i, e := range all {
		st.Endpoints[i] = e.status()
	}
	slices.SortFunc(st.Endpoints, func(a, b EndpointStatus) int { return cmp.Compare(a.Address, b.Address) })
	return st
}

// status is how the endpoint is. The caller holds pool.mu.
func (e *endpoint) status() EndpointStatus {
	st := EndpointStatus{
		Address:     e.address,
		Healthy:     !e.out,
		InFlight:    int(e.inFlight.Load()),
		Failures:    max(e.fails, e.resets),
		LastErrorAt: e.lastAt,
		Terminating: e.info.Terminating,
	}
	e.mu.Lock()
	st.Connections = len(e.conns)
	e.mu.Unlock()
	if e.lastErr != nil {
		st.LastError = e.lastErr.Error()
	}
	if e.out {
		st.Why = e.why.String()
		st.RetryAt = e.pool.set.epoch.Add(e.retry)
	}
	return st
}
