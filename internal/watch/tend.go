package watch

import (
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

const (
	tendEvery = time.Second
	// refusedFor is how long a kind that Fairlead can do without has to be refused, when the others have been listed already, before it does without: an API
	// server that has just started, and the permissions of a new installation, take a moment. It is longer than a reflector waits between attempts.
	refusedFor = 8 * time.Second
	waitEvery  = 10 * time.Second // before it is said again what is being waited for
	staleEvery = time.Minute      // before it is said again that nothing is heard
)

// tend does what is due by the clock, until c is closed.
func (c *Cluster) tend() {
	ticker := time.NewTicker(tendEvery)
	defer ticker.Stop()
	r := reporter{c: c, begun: c.opt.Now()}
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-ticker.C:
		}
		now := c.opt.Now()
		for _, note := range c.due(now) {
			note()
		}
		r.report(now)
	}
}

// due does what is due and returns what the operator is to be told.
func (c *Cluster) due(now time.Time) (notes []func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.sources {
		if note := s.resolve(now); note != nil {
			notes = append(notes, note)
		}
		if s.refused(now) {
			err := s.health.err
			s.degrade()
			notes = append(notes, func() {
				c.log.Warn("a kind may not be read and is taken for empty", "kind", s.kind.name, "consequence", s.kind.without, "error", err)
			})
		}
	}
	c.settled(now)
	return notes
}

// refused reports whether it is time to do without the source. c.mu is held.
func (s *source) refused(now time.Time) bool {
	rest := s.c.rest
	return !s.synced && s.kind.without != "" && apierrors.IsForbidden(s.health.err) && !rest.IsZero() && now.Sub(rest) >= refusedFor
}

// reporter tells the operator how watching goes, without telling everything twice.
type reporter struct {
	c     *Cluster
	begun time.Time
	told  time.Time // when the operator was told of trouble last; zero if there is none
	since time.Time // when the trouble began
}

func (r *reporter) report(now time.Time) {
	troubled, since, err := r.c.trouble(now)
	switch {
	case !r.c.Synced():
		if now.Sub(laterOf(r.begun, r.told)) >= waitEvery {
			r.told = now
			r.c.log.Warn("waiting for the API server to list what is in the cluster; nothing is served before", "kinds", names(troubled), "since", r.begun, "error", err)
		}
	case len(troubled) == 0:
		if !r.since.IsZero() {
			r.c.log.Info("everything is being watched again", "after", now.Sub(r.since).Round(time.Second).String())
		}
		*r = reporter{c: r.c, begun: r.begun}
	case r.since.IsZero() || now.Sub(r.told) >= staleEvery:
		r.told, r.since = now, since
		r.c.log.Warn("the API server cannot be watched; the last known objects keep serving", "kinds", names(troubled), "since", since, "error", err)
	}
}

func laterOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// trouble returns the kinds that are not watched, or not listed yet, since when, and one of the reasons.
func (c *Cluster) trouble(now time.Time) (kinds map[string]bool, since time.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kinds = map[string]bool{}
	for _, s := range c.sources {
		gap, stale := s.stale(now)
		if !stale && s.synced {
			continue
		}
		kinds[s.kind.name] = true
		if since.IsZero() || stale && gap.Before(since) {
			since = gap
		}
		if err == nil {
			err = s.health.err
		}
	}
	if err == nil {
		err = errSlow
	}
	return kinds, since, err
}
