package telemetry

import (
	"strings"

	"github.com/fairlead-io/fairlead/internal/route"
)

// maxRetired bounds the holders that wait for a last scrape, which may never come. Beyond it all of them go at once.
const maxRetired = 4096

// holder owns series and can give them up. After drop, it neither shows nor makes any.
type holder interface{ drop() }

// family is the holders of one kind. Holders that are no longer wanted are retired: they go after one more scrape, so that what they counted last is seen,
// and come back with their counts if they are wanted again before. Guarded by Metrics.mu.
type family[K comparable, V holder] struct {
	held    map[K]V
	retired map[K]uint64 // the number of the last scrape that had started when it was retired
}

// get returns the holder of k, making it if there is none.
func (f *family[K, V]) get(k K, create func() V) V {
	delete(f.retired, k)
	if v, ok := f.held[k]; ok {
		return v
	}
	v := create()
	if f.held == nil {
		f.held, f.retired = map[K]V{}, map[K]uint64{}
	}
	f.held[k] = v
	return v
}

func (f *family[K, V]) keep(want map[K]struct{}, scrape uint64) {
	for k := range f.held {
		if _, ok := want[k]; ok {
			delete(f.retired, k)
			continue
		}
		if _, ok := f.retired[k]; !ok {
			f.retired[k] = scrape
		}
	}
}

// sweep drops what was retired before scrape number n started, which has ended. It says whether there was any.
func (f *family[K, V]) sweep(n uint64) (dropped bool) {
	for k, at := range f.retired {
		if at < n {
			f.held[k].drop()
			delete(f.held, k)
			delete(f.retired, k)
			dropped = true
		}
	}
	return dropped
}

// Keep drops the series of everything that is not named: routes, pools and, if any listener is named, listeners (the names given to Listener and
// Unmatched). The series stay for one more scrape. To be called after the users of a new table asked for their children, and not while they do.
func (m *Metrics) Keep(rules []RuleLabels, pools []PoolLabels, listeners ...string) {
	if m == nil {
		return
	}
	wantRules, wantRoutes := map[RuleLabels]struct{}{}, map[routeKey]struct{}{}
	for _, l := range rules {
		l = l.clean()
		wantRules[l] = struct{}{}
		wantRoutes[l.route()] = struct{}{}
	}
	wantPools, wantKeys, wantServices := map[PoolLabels]struct{}{}, map[route.PoolKey]struct{}{}, map[serviceKey]struct{}{}
	for _, l := range pools {
		l = l.clean()
		wantPools[l] = struct{}{}
		wantKeys[l.Key] = struct{}{}
		wantServices[serviceOf(l.Key)] = struct{}{}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rules.keep(wantRules, m.scrapes)
	m.routes.keep(wantRoutes, m.scrapes)
	m.pools.keep(wantPools, m.scrapes)
	m.keys.keep(wantKeys, m.scrapes)
	m.services.keep(wantServices, m.scrapes)
	if len(listeners) > 0 {
		wantListeners := map[string]struct{}{}
		for _, l := range listeners {
			wantListeners[clean(l)] = struct{}{}
		}
		m.listeners.keep(wantListeners, m.scrapes)
	}
	if m.retired() > maxRetired {
		m.scrapes++
		m.drop(m.scrapes)
	}
}

func (m *Metrics) retired() int {
	return len(m.rules.retired) + len(m.routes.retired) + len(m.pools.retired) + len(m.keys.retired) + len(m.services.retired) + len(m.listeners.retired)
}

// KeepTable drops the series of everything that is not in t, as Keep does.
func (m *Metrics) KeepTable(t *route.Table) {
	if m == nil {
		return
	}
	var rules []RuleLabels
	var pools []PoolLabels
	listeners := []string{""} // never empty: a table without ports keeps no listener
	for _, p := range t.Ports {
		listeners = append(listeners, p.Bind.String())
		for _, l := range p.Listeners {
			listeners = append(listeners, l.Name)
			for _, h := range l.Hosts {
				for _, r := range h.Rules {
					rules = append(rules, ruleLabels(l, r))
					pools = appendPools(pools, r)
				}
			}
		}
	}
	m.Keep(rules, pools, listeners...)
}

func ruleLabels(l *route.Listener, r *route.Rule) RuleLabels {
	return RuleLabels{Listener: l.Name, Kind: r.Source.Kind, Namespace: r.Source.Namespace, Name: r.Source.Name}
}

func appendPools(pools []PoolLabels, r *route.Rule) []PoolLabels {
	for _, b := range r.Backends {
		if b.Pool != nil {
			pools = append(pools, PoolLabels{RouteNamespace: r.Source.Namespace, RouteName: r.Source.Name, Key: b.Pool.Key})
		}
	}
	return pools
}

func (m *Metrics) startScrape() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.scrapes++
	return m.scrapes
}

func (m *Metrics) sweep(scrape uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drop(scrape)
}

// drop drops what was retired before scrape number n. A route is never dropped before the rules that hold it: it is retired with the last of them.
func (m *Metrics) drop(scrape uint64) {
	m.rules.sweep(scrape)
	m.routes.sweep(scrape)
	m.pools.sweep(scrape)
	m.keys.sweep(scrape)
	m.services.sweep(scrape)
	if m.listeners.sweep(scrape) {
		m.byName.set(m.listeners.held)
	}
}

// clean makes s fit for a label value: valid UTF-8 and of bounded length. Names of objects pass unchanged.
func clean(s string) string {
	const limit = 256
	if len(s) > limit {
		s = s[:limit]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
