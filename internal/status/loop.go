package status

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/fairlead-io/fairlead/internal/compile"
	"github.com/fairlead-io/fairlead/internal/object"
)

// pauses are the times between tries: the first, which doubles each time, and the longest.
type pauses struct{ first, longest time.Duration }

var (
	onConflict = pauses{10 * time.Millisecond, time.Second}       // somebody else writes the object, too
	onRefusal  = pauses{time.Second, 5 * time.Minute}             // the API server does not take it
	onOutage   = pauses{250 * time.Millisecond, 30 * time.Second} // the API server does not answer
	onRivalry  = pauses{time.Second, 5 * time.Minute}             // somebody changes back what was written
)

// after returns the pause after n tries in a row.
func (p pauses) after(n int) time.Duration {
	if n > 20 {
		return p.longest
	}
	return min(p.longest, p.first<<max(0, n-1))
}

// around is after, less up to a quarter, so that those who wait do not come back all at once.
func (p pauses) around(n int) time.Duration {
	d := p.after(n)
	return d - rand.N(d/4+1) //nolint:gosec // nothing secret depends on it
}

// state is where an item is.
type state int

const (
	idle    state = iota // nothing is to be done
	ready                // it is in a queue
	asleep               // it is due later
	running              // it is being written
)

// item is an object whose status is or was to be written. It belongs to the loop.
type item struct {
	kind *kind
	ref  object.Ref
	seen metav1.Object // as the newest offer has it; want is about this generation of it
	want any
	pass int // of the newest offer that had it

	state  state
	urgent bool      // while ready: it is in the first queue
	due    time.Time // while asleep

	// newer is the object as the API server had it at newerAt, if the offers do not have that yet.
	newer   metav1.Object
	newerAt time.Time
	// wrote is the status that was written last, when that was, and how many times in a row it had been written before.
	wrote any
	last  time.Time
	again int

	conflicts, refusals int
	gone                bool      // the API server does not have it: an offer will say the same, or that it is there again
	notBefore           time.Time // when it may be tried again
}

// newerLasts is how long an informer may lag behind. When it has not seen a version after that, it never will: the API server was set back to a backup.
const newerLasts = time.Minute

// base returns the newest known version of the object.
func (it *item) base(now time.Time) metav1.Object {
	if it.newer == nil {
		return it.seen
	}
	order, err := resourceversion.CompareResourceVersion(it.seen.GetResourceVersion(), it.newer.GetResourceVersion())
	if err == nil && order < 0 && now.Sub(it.newerAt) < newerLasts {
		return it.newer
	}
	it.newer = nil
	return it.seen
}

// see notes what an offer has about the object.
func (it *item) see(seen metav1.Object, want any, pass int) {
	switch {
	case it.seen == nil:
	case it.seen.GetUID() != seen.GetUID(): // deleted, and created again
		it.newer, it.wrote, it.conflicts, it.refusals, it.gone, it.notBefore = nil, nil, 0, 0, false, time.Time{}
	case it.refusals > 0 && (it.seen.GetResourceVersion() != seen.GetResourceVersion() || !sameStatus(it.want, want)):
		it.refusals, it.gone, it.notBefore = 0, false, time.Time{}
	}
	it.seen, it.want, it.pass = seen, want, pass
}

// repeats tells whether the wanted status is the one that was written last, so that somebody else must have changed it.
func (it *item) repeats() bool { return it.wrote != nil && sameStatus(it.wrote, it.want) }

// queue hands out items first in, first out.
type queue struct{ items []*item }

func (q *queue) push(it *item) { q.items = append(q.items, it) }

// pop returns the next item that is still ready, or nil.
func (q *queue) pop() *item {
	for len(q.items) > 0 {
		it := q.items[0]
		q.items[0] = nil
		if q.items = q.items[1:]; it.state == ready {
			return it
		}
	}
	q.items = nil
	return nil
}

// loop decides what is written, and when. It belongs to the goroutine of Run.
type loop struct {
	w      *Writer
	log    *slog.Logger
	offer  *offer
	pass   int // counts the offers
	items  map[object.Ref]*item
	states [running + 1]int // how many items are in each state
	first  queue            // what does not wait for the rest
	rest   queue
	asleep map[*item]struct{}
	news   *announcer

	alarm   *time.Timer
	alarmAt time.Time // zero while it is not set

	scratch change      // see compare
	dated   metav1.Time // see date
	datedAt time.Time

	outages    int       // failures in a row that are not about one object
	quietUntil time.Time // nothing is sent before
	complaints map[complaint]time.Time
	crowded    []compile.Problem // what the status of objects could not hold at the last offer

	results chan result
	wg      sync.WaitGroup
}

func newLoop(w *Writer) *loop {
	alarm := time.NewTimer(time.Hour)
	alarm.Stop()
	return &loop{
		w: w, log: w.opt.Log, items: map[object.Ref]*item{}, asleep: map[*item]struct{}{}, alarm: alarm, news: newAnnouncer(w),
		complaints: map[complaint]time.Time{}, results: make(chan result, w.opt.Workers),
	}
}

// take makes an offer the one that counts: everything in it is compared with what is known, and what differs is to be written.
func (l *loop) take(o *offer, now time.Time) {
	l.offer = o
	l.pass++
	var crowded []compile.Problem
	for _, k := range l.w.kinds {
		for seen, want := range k.duties(o.snap, o.want) {
			crowded = append(crowded, l.consider(k, seen, want, now)...)
		}
	}
	for _, it := range l.items {
		if it.pass != l.pass && it.state != running {
			l.forget(it)
		}
	}
	l.report(crowded)
	l.news.take(o.snap, slices.Concat(o.problems, crowded), now)
}

// report tells the operator what is new of what the status of objects cannot hold.
func (l *loop) report(crowded []compile.Problem) {
	for _, p := range crowded {
		if !slices.Contains(l.crowded, p) {
			l.log.Warn("there is no room in a status", "object", p.Object.String(), "field", p.Field, "problem", p.Message)
		}
	}
	l.crowded = crowded
}

// forget drops an object that nothing is to be said about any more.
func (l *loop) forget(it *item) {
	l.move(it, idle)
	delete(l.items, it.ref)
}

// consider compares an object with its wanted status and sees to it that the difference is written. It returns what the status cannot hold.
func (l *loop) consider(k *kind, seen metav1.Object, want any, now time.Time) []compile.Problem {
	ref := object.Ref{Kind: k.name, Namespace: seen.GetNamespace(), Name: seen.GetName()}
	it := l.items[ref]
	if it == nil {
		c := l.compare(k, ref, seen, want, now)
		if c.empty() {
			return c.problems
		}
		it = &item{kind: k, ref: ref}
		l.items[ref] = it
	}
	it.see(seen, want, l.pass)
	return l.review(it, now)
}

// compare returns what turns the status of have into want. It is good until the next call.
func (l *loop) compare(k *kind, ref object.Ref, have metav1.Object, want any, now time.Time) *change {
	l.scratch = change{about: ref, now: l.date(now), ops: l.scratch.ops[:0]}
	k.compare(&l.scratch, have, want)
	return &l.scratch
}

// date returns now as conditions have it: by the clock of the options, and in seconds, since objects hold no more. It is one for all that happens at now.
func (l *loop) date(now time.Time) metav1.Time {
	if !l.datedAt.Equal(now) {
		l.datedAt, l.dated = now, metav1.Time{Time: l.w.opt.Now().UTC().Truncate(time.Second)}
	}
	return l.dated
}

// review compares an item with its wanted status, and puts it where it belongs. One that is being written is reviewed when that is over.
func (l *loop) review(it *item, now time.Time) []compile.Problem {
	if it.state == running {
		return nil
	}
	base := it.base(now)
	if base.GetGeneration() != it.seen.GetGeneration() || base.GetUID() != it.seen.GetUID() {
		l.move(it, idle) // the wanted status is about what was; an offer about what is will come
		return nil
	}
	c := l.compare(it.kind, it.ref, base, it.want, now)
	if c.empty() {
		l.move(it, idle)
	} else {
		l.schedule(it, c, now)
	}
	return c.problems
}

// schedule puts an item, to which c is to be done, into a queue, or to sleep until it is due.
func (l *loop) schedule(it *item, c *change, now time.Time) {
	due := it.notBefore
	if it.repeats() {
		due = latest(due, it.last.Add(onRivalry.after(it.again+1)))
	}
	if c.minor() && !it.last.IsZero() {
		due = latest(due, it.last.Add(l.w.opt.GatewayPause))
	}
	urgent := it.kind.first && !c.minor()
	switch {
	case it.state == ready && (it.urgent || !urgent):
	case it.gone && due.After(now):
		l.move(it, idle)
	case it.state != ready && due.After(now):
		l.move(it, asleep)
		it.due = due
		l.wakeBy(due, now)
	default:
		l.move(it, ready)
		it.urgent = urgent
		if urgent {
			l.first.push(it)
		} else {
			l.rest.push(it)
		}
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// move changes the state of an item.
func (l *loop) move(it *item, to state) {
	l.states[it.state]--
	l.states[to]++
	if to == asleep {
		l.asleep[it] = struct{}{}
	} else if it.state == asleep {
		delete(l.asleep, it)
	}
	it.state = to
}

// waiting is how many objects are still to be written.
func (l *loop) waiting() int { return l.states[ready] + l.states[asleep] + l.states[running] }

// wakeBy makes sure that the loop looks at what is due at t.
func (l *loop) wakeBy(t, now time.Time) {
	if l.alarmAt.IsZero() || t.Before(l.alarmAt) {
		l.alarmAt = t
		l.alarm.Reset(max(0, t.Sub(now)))
	}
}

// wake looks at the items that are due.
func (l *loop) wake(now time.Time) {
	l.alarmAt = time.Time{}
	for it := range l.asleep {
		if it.due.After(now) {
			l.wakeBy(it.due, now)
			continue
		}
		l.move(it, idle)
		l.review(it, now)
	}
}

// start lets as many items be written as may be at a time, and says when all is done.
func (l *loop) start(ctx context.Context, now time.Time) {
	for l.states[running] < l.capacity(now) {
		it := l.first.pop()
		if it == nil {
			it = l.rest.pop()
		}
		if it == nil {
			break
		}
		l.run(ctx, it, now)
	}
	if l.outages == 0 {
		l.news.start(ctx, l, now)
	}
	l.w.opt.Hooks.Waiting(l.waiting())
	if l.offer != nil && l.waiting() == 0 {
		l.offer.finish()
	}
}

// capacity is how many items may be written at a time. While the API server does not answer, it is asked by one now and then.
func (l *loop) capacity(now time.Time) int {
	switch {
	case now.Before(l.quietUntil):
		l.wakeBy(l.quietUntil, now)
		return 0
	case l.outages > 0:
		return 1
	}
	return l.w.opt.Workers
}

// run writes an item.
func (l *loop) run(ctx context.Context, it *item, now time.Time) {
	j := job{
		item: it, kind: it.kind, key: it.ref.Key(), base: it.base(now), stale: it.conflicts > 0, want: it.want, change: &change{about: it.ref, now: l.date(now)},
	}
	if it.kind.compare(j.change, j.base, j.want); j.change.empty() {
		l.move(it, idle)
		return
	}
	l.move(it, running)
	l.wg.Go(func() { l.results <- l.w.write(ctx, j) }) // there is room for as many results as there are workers
}

// settle notes how a write ended, and looks at the item again: it may have to be written once more.
func (l *loop) settle(r result, now time.Time) {
	it := r.item
	l.move(it, idle)
	if r.object != nil {
		it.newer, it.newerAt = r.object, now
	}
	l.reached(r, now)
	switch r.result {
	case Written:
		l.written(it, r.want, now)
	case unwanted:
		it.conflicts = 0
	case Conflict:
		it.conflicts++
		it.notBefore = now.Add(onConflict.around(it.conflicts))
	case Refused:
		l.complain(it, r.err, now)
		fallthrough
	case Gone:
		it.gone = r.result == Gone
		it.refusals++
		it.notBefore = now.Add(onRefusal.around(it.refusals))
	}
	if it.pass != l.pass {
		l.forget(it)
		return
	}
	l.review(it, now)
}

// written notes that the status of an item is want now.
func (l *loop) written(it *item, want any, now time.Time) {
	switch {
	case it.wrote == nil || !sameStatus(it.wrote, want) || now.Sub(it.last) > 2*onRivalry.longest:
		it.again = 0
	default:
		if it.again++; it.again == 3 {
			l.log.Warn("somebody keeps changing the status back that Fairlead writes; it is written less and less often", "object", it.ref.String())
		}
	}
	it.wrote, it.last = want, now
	it.conflicts, it.refusals, it.gone, it.notBefore = 0, 0, false, time.Time{}
}

// reached notes whether the API server answered.
func (l *loop) reached(r result, now time.Time) {
	switch {
	case r.result != Failed:
		if l.outages > 0 {
			l.log.Info("status is written again", "objects", l.waiting())
		}
		l.outages, l.quietUntil = 0, time.Time{}
	case now.Before(l.quietUntil): // sent before that was known
	default:
		if l.outages++; l.outages == 1 {
			l.log.Warn("the API server does not take status; trying again", "object", r.item.ref.String(), "error", r.err)
		}
		l.quietUntil = now.Add(onOutage.around(l.outages))
	}
}

// complaint is what the API server has against objects of a kind.
type complaint struct{ kind, reason string }

// complain tells the operator that the API server refuses a status. Of many objects that have the same trouble one a minute is enough.
func (l *loop) complain(it *item, err error, now time.Time) {
	level := slog.LevelDebug
	about := complaint{it.ref.Kind, reason(err)}
	if last, told := l.complaints[about]; !told || now.Sub(last) >= time.Minute {
		l.complaints[about] = now
		level = slog.LevelWarn
	}
	l.log.Log(context.Background(), level, "the API server refuses a status", "object", it.ref.String(), "error", err)
}
