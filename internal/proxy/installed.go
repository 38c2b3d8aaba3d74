package proxy

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync/atomic"

	"github.com/fairlead-io/fairlead/internal/backend"
	"github.com/fairlead-io/fairlead/internal/route"
	"github.com/fairlead-io/fairlead/internal/telemetry"
)

// installed is a table with everything resolved that a request would otherwise have to look up by name. It is immutable, but for metrics that are found on first
// use, and replaced as a whole.
type installed struct {
	table *route.Table
	rules map[ruleKey]*boundRule
	// demands are what listeners demand of clients; nil if there are none.
	demands map[*route.ClientAuth]*clientDemand
}

// ruleKey names a rule in a listener. Listeners may share rules; their requests are counted apart.
type ruleKey struct {
	listener *route.Listener
	rule     *route.Rule
}

// boundRule is a rule, ready to serve.
type boundRule struct {
	*route.Rule
	listener *route.Listener
	port     []string // the value of X-Forwarded-Port
	plan     plan     // of the rule's filters; each backend has its own, which begins with these
	mirrors  []boundMirror
	auths    []boundAuth
	backends []boundBackend
	total    uint64 // sum of the weights
	sticky   bool   // a client may have a session with one of several backends
	counts   atomic.Pointer[telemetry.RuleMetrics]
}

// boundBackend is one of the backends of a rule, ready to serve.
type boundBackend struct {
	*route.WeightedPool
	upTo  uint64 // sum of the weights of the backends before this one, and of its own
	pool  roundTripper
	name  string             // of the pool, for the access log
	keeps *route.Persistence // nil: clients may go to another endpoint each time
	plan  plan
	// mirrors and auths are those of the backend's own filters.
	mirrors []boundMirror
	auths   []boundAuth
	counts  atomic.Pointer[telemetry.PoolMetrics]
}

// roundTripper is what the proxy wants of a *backend.Pool.
type roundTripper interface {
	Do(req *http.Request, a *backend.Attempt) (*http.Response, error)
	Holds(token string, p *route.Persistence) bool
}

// newInstalled resolves the pools and filters of a table. The pools must have been given to Options.Backends before; a rule whose pool is missing answers 500.
func (p *Proxy) newInstalled(t *route.Table) *installed {
	b := binder{backends: p.opt.Backends, pools: make(map[*route.Pool]boundPool, len(t.Pools))}
	rules, backends := 0, 0
	eachRule(t, func(_ *route.Listener, r *route.Rule) { rules++; backends += len(r.Backends) })
	b.rules, b.ends = make([]boundRule, rules), make([]boundBackend, backends)
	in := &installed{table: t, rules: make(map[ruleKey]*boundRule, rules), demands: demandsOf(t)}
	eachRule(t, func(l *route.Listener, r *route.Rule) {
		if key := (ruleKey{l, r}); in.rules[key] == nil {
			in.rules[key] = b.rule(l, r)
		}
	})
	return in
}

func eachRule(t *route.Table, visit func(*route.Listener, *route.Rule)) {
	for _, p := range t.Ports {
		for _, l := range p.Listeners {
			for _, h := range l.Hosts {
				for _, r := range h.Rules {
					visit(l, r)
				}
			}
		}
	}
}

// binder makes bound rules, from two slices that were allocated for all of them.
type binder struct {
	backends *backend.Set
	pools    map[*route.Pool]boundPool
	rules    []boundRule
	ends     []boundBackend
	listener *route.Listener // of the last rule
	port     []string        // of that listener
}

type boundPool struct {
	pool roundTripper
	name string
}

func (b *binder) rule(l *route.Listener, r *route.Rule) *boundRule {
	bound := &b.rules[0]
	b.rules = b.rules[1:]
	if b.listener != l {
		b.listener, b.port = l, []string{strconv.Itoa(int(l.Port))}
	}
	bound.Rule, bound.listener, bound.port = r, l, b.port
	bound.plan, bound.mirrors = newPlan(r.Filters, nil), b.mirrors(r.Filters)
	bound.auths = b.auths(r.Filters)
	n := len(r.Backends)
	bound.backends, b.ends = b.ends[:n:n], b.ends[n:]
	for i := range r.Backends {
		bound.total += b.backend(&bound.backends[i], bound, &r.Backends[i])
	}
	return bound
}

// backend fills in end and returns its weight.
func (b *binder) backend(end *boundBackend, rule *boundRule, w *route.WeightedPool) uint64 {
	weight := uint64(max(w.Weight, 0)) // #nosec G115 -- not negative
	end.WeightedPool, end.upTo, end.plan = w, rule.total+weight, rule.plan
	if len(w.Filters) > 0 {
		end.plan, end.mirrors = newPlan(rule.Filters, w.Filters), b.mirrors(w.Filters)
		end.auths = b.auths(w.Filters)
	}
	if w.Pool == nil {
		return weight
	}
	pool := b.pool(w.Pool)
	end.pool, end.name, end.keeps = pool.pool, pool.name, keeps(rule.Rule, w.Pool)
	rule.sticky = rule.sticky || end.keeps != nil && len(rule.backends) > 1
	return weight
}

func (b *binder) mirrors(filters []route.Filter) (out []boundMirror) {
	for _, f := range filters {
		if m, ok := f.(*route.Mirror); ok {
			out = append(out, boundMirror{m, b.pool(m.Pool).pool})
		}
	}
	return out
}

func (b *binder) auths(filters []route.Filter) (out []boundAuth) {
	for _, f := range filters {
		if a, ok := f.(*route.ExternalAuth); ok {
			bound := boundAuth{ExternalAuth: a}
			if a.Pool != nil {
				bound.pool = b.pool(a.Pool).pool
			}
			out = append(out, bound)
		}
	}
	return out
}

func (b *binder) pool(p *route.Pool) boundPool {
	bound, ok := b.pools[p]
	if !ok {
		bound.name = p.Key.String()
		if b.backends != nil {
			if pool := b.backends.Pool(p.Key); pool != nil {
				bound.pool = pool
			}
		}
		b.pools[p] = bound
	}
	return bound
}

// pick chooses a backend at random, in proportion to the weights; nil if none has any.
func (r *boundRule) pick() *boundBackend {
	if r.total == 0 {
		return nil
	}
	if len(r.backends) == 1 {
		return &r.backends[0]
	}
	n := rand.Uint64N(r.total) //nolint:gosec // shares out load, guards nothing
	for i := range r.backends {
		if n < r.backends[i].upTo {
			return &r.backends[i]
		}
	}
	return nil
}

// metrics returns the series of the rule's route on its listener. They are looked up once for each rule, when its first request is done: most of the rules of
// a large table see no request between two tables.
func (r *boundRule) metrics(m *telemetry.Metrics) *telemetry.RuleMetrics {
	if m == nil {
		return nil
	}
	c := r.counts.Load()
	if c == nil {
		s := &r.Source
		c = m.Rule(telemetry.RuleLabels{Listener: r.listener.Name, Kind: s.Kind, Namespace: s.Namespace, Name: s.Name})
		r.counts.Store(c)
	}
	return c
}

// metrics returns the series of the backend in its route.
func (b *boundBackend) metrics(m *telemetry.Metrics, r *boundRule) *telemetry.PoolMetrics {
	if m == nil || b.Pool == nil {
		return nil
	}
	c := b.counts.Load()
	if c == nil {
		c = m.Pool(r.Source.Namespace, r.Source.Name, b.Pool.Key)
		b.counts.Store(c)
	}
	return c
}
