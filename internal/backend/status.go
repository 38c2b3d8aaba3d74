package backend

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// PoolStatus is how a pool is.
type PoolStatus struct {
	Key       route.PoolKey    `json:"key"`
	Protocol  route.Protocol   `json:"protocol"`
	Algorithm route.Algorithm  `json:"algorithm"`
	Policy    string           `json:"policy,omitempty"`  // as in the text of a table, without the algorithm
	Pending   int              `json:"pending,omitempty"` // requests that wait for an endpoint
	Panic     bool             `json:"panic,omitempty"`   // endpoints that are left out are used all the same, because too few are not
	Retired   bool             `json:"retired,omitempty"` // no table names it any more, but it has requests in flight
	Endpoints []EndpointStatus `json:"endpoints"`
}

// EndpointStatus is how an endpoint is.
type EndpointStatus struct {
	Address     string    `json:"address"`
	Name        string    `json:"name,omitempty"`   // that it was resolved from
	Healthy     bool      `json:"healthy"`          // not left out for failing
	Why         string    `json:"why,omitempty"`    // it is left out
	RetryAt     time.Time `json:"retryAt,omitzero"` // when it may be tried again
	Check       string    `json:"check,omitempty"`  // what the active check says: "passes", or why not
	Weight      int       `json:"weight"`           // beside the others of its pool
	Warmth      int       `json:"warmth,omitempty"` // percent of its share that slow start lets it have
	Zone        string    `json:"zone,omitempty"`
	Far         bool      `json:"far,omitempty"`       // others are preferred for being near
	InFlight    int       `json:"inFlight"`            // requests
	Connections int       `json:"connections"`         // in use or idle
	LatencyMS   float64   `json:"latencyMs,omitempty"` // what it is expected to take to begin a response
	Answers     int       `json:"answers"`             // in the last 1 to 10 s
	Bad         int       `json:"bad"`                 // of them: errors, and requests that it did not answer
	Failures    int       `json:"failures"`            // since it last answered
	Ejections   int       `json:"ejections"`           // how often it was left out, ever
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
	l := p.list.Load()
	all := l.all
	policy := p.policy
	policy.Algorithm = ""
	st := PoolStatus{
		Key: p.key, Protocol: p.protocol, Algorithm: cmp.Or(p.policy.Algorithm, route.RoundRobin), Pending: int(p.queue.n.Load()), Retired: p.retired.Load(),
		Policy: strings.TrimSpace(policy.String() + " " + p.care.String()), Endpoints: make([]EndpointStatus, len(all)),
		Panic: slices.ContainsFunc(l.in, func(e *endpoint) bool { return e.out }),
	}
	for i, e := range all {
		st.Endpoints[i] = e.status()
	}
	slices.SortFunc(st.Endpoints, func(a, b EndpointStatus) int { return cmp.Compare(a.Address, b.Address) })
	return st
}

// status is how the endpoint is. The caller holds pool.mu.
func (e *endpoint) status() EndpointStatus {
	now := e.pool.set.now()
	a := e.tally.sum(now)
	st := EndpointStatus{
		Address:     e.address,
		Name:        e.host,
		Healthy:     !e.out,
		Check:       e.checkText(),
		Weight:      e.weight(),
		Warmth:      int(e.warmth.Load()),
		Zone:        e.info.Zone,
		Far:         e.far.Load(),
		InFlight:    int(e.inFlight.Load()),
		LatencyMS:   math.Round(e.expectedLatency(now)/1e4) / 100,
		Answers:     a.all(),
		Bad:         a.bad,
		Failures:    max(e.fails, e.resets),
		Ejections:   e.ejections,
		LastErrorAt: e.lastAt,
		Terminating: e.info.Terminating,
	}
	e.mu.Lock()
	st.Connections = len(e.conns)
	e.mu.Unlock()
	if e.lastErr != nil {
		st.LastError = e.lastErr.Error()
	}
	switch {
	case e.sick:
		st.Why = "the active check fails"
	case e.ejected:
		st.Why, st.RetryAt = e.why.String(), e.pool.set.epoch.Add(e.retry)
	}
	return st
}

// checkText is what the active check last said; "" if there is none. The caller holds pool.mu.
func (e *endpoint) checkText() string {
	switch {
	case e.pool.care.Check.Kind == "" || !e.checked:
		return ""
	case e.checkErr != nil:
		return e.checkErr.Error()
	}
	return "passes"
}
