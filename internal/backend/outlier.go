package backend

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/fairlead-io/fairlead/internal/route"
)

// How outliers are found: from what each endpoint did last, by whoever answers a request when judgement is due. What counts is as little of the past as says
// something, so that an endpoint that has just turned bad is not excused by what it did before: the slot of time that has begun and the one before it, and earlier
// ones until there are fewAnswers.
const (
	slotTime     = time.Second
	manySlots    = 10 // are remembered
	leastSlots   = 2  // count
	judgePause   = 250 * time.Millisecond
	fewAnswers   = 20                    // of an endpoint: too few to say anything
	sureStreak   = 10                    // bad ones in a row, which chance does not make of an endpoint that fails less than its limit
	slowAtLeast  = 20 * time.Millisecond // longer than the others, however fast they are
	defaultShare = 50                    // percent: of failures, of endpoints left out, of panic
)

// tally counts what an endpoint did, in slots of time. The zero value is ready.
type tally struct {
	slots  [manySlots]slot
	streak atomic.Int32 // failures in a row
}

type slot struct {
	number    atomic.Int64 // of the slot since the beginning, plus 1
	good, bad atomic.Uint32
	took      atomic.Int64 // all the good ones together
}

// of returns the slot of a moment.
func (t *tally) of(now time.Duration) *slot {
	number := int64(now/slotTime) + 1
	s := &t.slots[number%manySlots]
	if old := s.number.Load(); old != number && s.number.CompareAndSwap(old, number) {
		s.good.Store(0)
		s.bad.Store(0)
		s.took.Store(0)
	}
	return s
}

// forget makes the tally zero.
func (t *tally) forget() {
	for i := range t.slots {
		t.slots[i].number.Store(0)
	}
	t.streak.Store(0)
}

// account is what an endpoint did last, as far back as need be.
type account struct {
	good, bad int
	usual     time.Duration // to answer well; 0 if there are too few good answers
}

func (t *tally) sum(now time.Duration) (a account) {
	var good int
	var took time.Duration
	newest := int64(now/slotTime) + 1
	for back := range int64(manySlots) {
		number := newest - back
		failures, times := back < leastSlots || a.all() < fewAnswers, back < leastSlots || good < fewAnswers
		if number <= 0 || !failures && !times {
			break
		}
		s := &t.slots[number%manySlots]
		if s.number.Load() != number {
			continue
		}
		n := int(s.good.Load())
		if failures {
			a.good += n
			a.bad += int(s.bad.Load())
		}
		if times {
			good += n
			took += time.Duration(s.took.Load())
		}
	}
	if good >= fewAnswers {
		a.usual = took / time.Duration(good)
	}
	return a
}

func (a account) all() int { return a.good + a.bad }

// percent is how many answers were bad.
func (a account) percent() int { return 100 * a.bad / max(a.all(), 1) }

// isHalfAsBadAs reports whether a percentage of bad answers is at least twice that of the account. Of an account without answers nobody knows.
func (a account) isHalfAsBadAs(percent int) bool { return a.all() > 0 && 2*a.percent() <= percent }

// isBad reports whether a response says that the endpoint could not do its work.
func isBad(status int) bool {
	switch status {
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// good notes a good answer. took is 0 if it is not known what it took the endpoint.
func (p *Pool) good(e *endpoint, now, took time.Duration) {
	s := e.tally.of(now)
	s.good.Add(1)
	s.took.Add(int64(took))
	if e.tally.streak.Load() != 0 {
		e.tally.streak.Store(0)
	}
	p.judge(now)
}

// bad notes that a request, begun at start, was answered badly or not at all.
func (p *Pool) bad(e *endpoint, start, now time.Duration, err error) {
	e.tally.of(now).bad.Add(1)
	limit := p.list.Load().care.Outlier.Consecutive
	n := int(e.tally.streak.Add(1))
	if limit > 0 && n >= limit {
		e.tally.streak.Store(0)
		p.failed(e, start, faulty, fmt.Errorf("%d bad answers in a row; the last: %w", n, err))
	}
	if n == sureStreak {
		p.judgement.Store(0) // is due
	}
	p.judge(now)
}

// judge looks for outliers among the endpoints, if it is time.
func (p *Pool) judge(now time.Duration) {
	due := p.judgement.Load()
	if int64(now) < due || !p.judgement.CompareAndSwap(due, int64(now+judgePause)) {
		return
	}
	l := p.list.Load()
	limit := failureLimit(l)
	if len(l.all) < 2 || limit < 0 && l.care.Outlier.Latency <= 0 {
		return
	}
	p.judgeAll(l, now, limit)
}

// failureLimit is the percentage of bad answers that makes an outlier; negative is none.
func failureLimit(l *list) int {
	limit := l.care.Outlier.FailurePercent
	if limit == 0 {
		if p := &l.policy; p.Algorithm.Hashes() || p.ClientIP > 0 || p.Persistence.Name != "" {
			return -1
		}
		limit = defaultShare
	}
	return limit
}

func (p *Pool) judgeAll(l *list, now time.Duration, limit int) {
	accounts := make([]account, len(l.all))
	var total account
	var usual []time.Duration
	for i, e := range l.all {
		a := e.tally.sum(now)
		accounts[i] = a
		total.good += a.good
		total.bad += a.bad
		if u := a.usual; u > 0 {
			usual = append(usual, u)
		}
	}
	slices.Sort(usual)
	for i, e := range l.all {
		a := accounts[i]
		others := account{good: total.good - a.good, bad: total.bad - a.bad}
		streak := min(int(e.tally.streak.Load()), a.bad) // of late
		switch {
		case e.leftOut.Load():
		case limit >= 0 && streak >= sureStreak && others.isHalfAsBadAs(100):
			p.failed(e, now, faulty, fmt.Errorf("%d bad answers in a row", streak))
		case limit >= 0 && a.all() >= fewAnswers && a.percent() >= limit && others.isHalfAsBadAs(a.percent()):
			p.failed(e, now, faulty, fmt.Errorf("%d of %d answers were bad", a.bad, a.all()))
		case isSlow(a.usual, usual, l.care.Outlier.Latency):
			p.failed(e, now, slow, fmt.Errorf("it takes %s to answer, others %s", a.usual.Round(time.Millisecond), median(usual).Round(time.Millisecond)))
		}
	}
}

// isSlow reports whether an endpoint usually takes so many times as long as half of the endpoints do.
func isSlow(own time.Duration, all []time.Duration, times int) bool {
	if times <= 0 || own <= 0 || len(all) < 2 {
		return false
	}
	m := median(all)
	return own >= time.Duration(times)*m && own-m >= slowAtLeast
}

// median is the middle of what is sorted; of two, the lower.
func median(sorted []time.Duration) time.Duration { return sorted[(len(sorted)-1)/2] }

// slowLimit is what an endpoint that is left out for being slow must stay under to be used again.
func (p *Pool) slowLimit(now time.Duration) time.Duration {
	l := p.list.Load()
	var usual []time.Duration
	for _, e := range l.in {
		if u := e.tally.sum(now).usual; u > 0 {
			usual = append(usual, u)
		}
	}
	if len(usual) == 0 || l.care.Outlier.Latency <= 0 {
		return never
	}
	slices.Sort(usual)
	return max(time.Duration(l.care.Outlier.Latency)*median(usual), median(usual)+slowAtLeast)
}

// mostOut is how many of n endpoints may be left out for how they answer.
func mostOut(o *route.Outlier, n int) int {
	return n * cmp.Or(o.MaxPercent, defaultShare) / 100
}

// panicLimit is the percentage of endpoints below which those that are left out are used, too; 0 is never.
func panicLimit(o *route.Outlier) int {
	return max(cmp.Or(o.Panic, defaultShare), 0)
}
