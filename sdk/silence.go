package nearside

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

// Silence: an instance that takes calls and answers none of them, as a stopped process or
// a network that swallows packets does. Waiting for each call's own time-out would cost
// every call under way that time, and the budget of repeats at once. So attempts that wait
// for an answer know of each other: when one has waited for long enough, nothing at all was
// heard of the instance since it began, and two more wait for longer than answers usually
// take, the instance is condemned: its breaker opens, and every safe call that still waits
// there goes elsewhere in that moment. The same holds for a region, over all its instances:
// there six calls are enough for each instance that keeps one waiting.
//
// Long enough is twice the slowest recent answer of the region, at least half of the
// attempt's limit (and silenceMin), and at most the limit while answers keep within it. So a
// service that is slow and works is not called silent for it; and one that became slow is
// given the whole limit in trials, and so comes back.
const (
	silenceMin   = 250 * time.Millisecond
	silenceShare = 2                // of the limit: the least time that is called silence
	silenceMost  = 4                // limits: the longest, where answers take longer than the limit
	usualWindow  = 15 * time.Second // the slowest recent answer is that of one to two of these
)

// errSilent is the cause of an attempt that ended because its instance was condemned.
var errSilent = errors.New("the instance answers no call")

// hearing is what a region's instances have answered, and who still waits. It is part of
// regionHealth.
type hearing struct {
	heard atomic.Int64 // when any instance last answered, in nanoseconds of clock; 0 = never
	// The slowest answer of the window that runs, and of the one before it; the keeper moves on.
	usual, usualBefore atomic.Int64
	usualSince         time.Duration // owned by the keeper

	mu      sync.Mutex
	waiting map[*waiter]struct{}
}

// silence is how long an attempt with this limit waits before nothing heard is silence.
func (h *hearing) silence(limit time.Duration) time.Duration {
	usual := time.Duration(max(h.usual.Load(), h.usualBefore.Load()))
	if usual >= limit { // not bounded by it: answers that nobody could repeat elsewhere
		return min(2*usual, silenceMost*limit)
	}
	return min(limit, max(limit/silenceShare, silenceMin, 2*usual))
}

// forget lets the times of old answers pass.
func (h *hearing) forget(now time.Duration) {
	if now-h.usualSince >= usualWindow {
		h.usualSince = now
		h.usualBefore.Store(h.usual.Swap(0))
	}
}

// hear notes that the instance answered, whatever it was.
func (in *instance) hear(now time.Duration) {
	in.heard.Store(int64(now))
	in.region.heard.Store(int64(now))
	if in.unanswered.Load() != 0 {
		in.unanswered.Store(0)
	}
}

// took notes how long an answer took.
func (h *hearing) took(d time.Duration) {
	for {
		old := h.usual.Load()
		if int64(d) <= old || h.usual.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}

// condemn opens the breaker.
func (in *instance) condemn() {
	in.region.failures.Add(1)
	in.atOnce.Store(true)
	_, _ = in.cb.Execute(fail)
}

// left reports that the instance's breaker opened after the lease was taken.
func (l *lease) left() bool { return l.in.lease.Load() != l && l.in.is(gobreaker.StateOpen) }

// waiter is one attempt that waits for its answer. It looks after itself by a timer: when
// silence would begin, at its limit, and from time to time after it.
type waiter struct {
	in     *instance
	lease  *lease
	budget *budget
	began  time.Duration // of clock
	limit  time.Duration
	left   time.Duration // of the limit, for a caller whose own deadline comes before it; 0 = all
	// move allows to end it when the instance is condemned, cut also for the limit alone.
	move, cut bool
	cancel    context.CancelCauseFunc

	// Guarded by in.region.mu.
	timer  *time.Timer
	due    time.Duration
	graced bool
	over   bool          // answered, or ended
	paid   bool          // the budget has paid for its repeat
	since  time.Duration // nothing was heard of the instance since then
}

// start begins to wait.
func (w *waiter) start() {
	h := w.in.region
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.waiting == nil {
		h.waiting = map[*waiter]struct{}{}
	}
	h.waiting[w] = struct{}{}
	w.since = w.began
	w.due = w.began + min(w.patience(), w.limit)
	w.timer = time.AfterFunc(w.due-w.began, w.look)
	if w.move && w.lease.left() { // condemned since it was chosen
		w.since = min(w.began, time.Duration(w.in.heard.Load()))
		w.endLocked(errSilent)
	}
}

// stop ends the waiting: there is an answer or an error. It reports whether the attempt was
// ended before. Afterwards the waiter belongs to the caller.
func (w *waiter) stop() (ended bool) {
	if w == nil {
		return false
	}
	h := w.in.region
	h.mu.Lock()
	defer h.mu.Unlock()
	ended = w.over
	w.overLocked()
	return ended
}

func (w *waiter) overLocked() {
	w.over = true
	w.timer.Stop()
	delete(w.in.region.waiting, w)
}

func (w *waiter) endLocked(cause error) {
	w.overLocked()
	w.cancel(cause)
}

// patience is how long the attempt waits before silence says something. Trials get the
// whole limit, and so does everybody while it is not known how long answers take.
func (w *waiter) patience() time.Duration {
	if w.lease.trial || w.in.region.heard.Load() == 0 {
		return max(w.limit, w.in.region.silence(w.limit))
	}
	return w.silence()
}

// silence is how long this attempt waits at least. A caller's own deadline may make it less
// than the limit does, but no deadline is so short that it makes quick answers late.
func (w *waiter) silence() time.Duration {
	h := w.in.region
	if w.left == 0 || w.left >= w.limit {
		return h.silence(w.limit)
	}
	return max(h.silence(w.left), min(w.limit, silenceMin))
}

// unanswered notes, for an attempt that its caller ended after so long, that the instance kept
// it waiting for at least half of what silence takes, and was not heard meanwhile. That
// opens no breaker, but counts for those that wait there after it.
func (w *waiter) unanswered(took time.Duration) bool {
	if w == nil || w.in.heard.Load() > int64(w.began) || took < w.silence()/2 {
		return false
	}
	w.in.unanswered.Add(1)
	return true
}

// look is what the timer calls.
func (w *waiter) look() {
	h := w.in.region
	now := w.in.clock()
	h.mu.Lock()
	defer h.mu.Unlock()
	if w.over {
		return
	}
	if late := now - w.due; late > w.limit/4 && !w.graced {
		// This program itself was held up: answers may be here and not read yet.
		w.graced = true
		w.armLocked(now, now+w.limit/4)
		return
	}
	if silent := w.silentLocked(now); len(silent) > 0 {
		for _, in := range silent {
			in.condemn()
		}
		for x := range h.waiting {
			if x.move && x.lease.left() && slices.Contains(silent, x.in) {
				x.since = min(x.since, w.began)
				x.endLocked(errSilent)
			}
		}
	}
	switch age := now - w.began; {
	case w.over:
	case age < w.limit:
		next := w.limit
		if p := w.patience(); p > age {
			next = min(p, w.limit) // answers became slower meanwhile
		}
		w.armLocked(now, w.began+next)
	case w.cut && w.budget.spend(time.Now()):
		// Paid for before it is cut: without a repeat, cutting would turn a slow answer into none.
		w.paid = true
		w.in.unanswered.Add(1)
		w.endLocked(errAttemptTimeout)
	default:
		w.armLocked(now, now+w.limit/2)
	}
}

func (w *waiter) armLocked(now, due time.Duration) {
	w.due = due
	w.timer.Reset(due - now)
}

// silentLocked returns the instances to condemn: the attempt's own, or all of the region
// that keep calls waiting, or none.
func (w *waiter) silentLocked(now time.Duration) []*instance {
	in, h := w.in, w.in.region
	if in.lease.Load() != w.lease || in.is(gobreaker.StateOpen) || now-w.began < w.patience() || in.heard.Load() > int64(w.began) {
		return nil
	}
	if w.lease.trial {
		return []*instance{in}
	}
	mine, all := int(in.unanswered.Load()), int(h.failures.Load())
	var silent []*instance
	for x := range h.waiting {
		if now-x.began < x.patience()/2 || x.lease != x.in.lease.Load() {
			continue
		}
		all++
		if x.in == in {
			mine++
		}
		if !slices.Contains(silent, x.in) {
			silent = append(silent, x.in)
		}
	}
	switch {
	case all >= tripRegion && h.heard.Load() <= int64(w.began):
		return silent
	case mine >= tripConsecutive:
		return []*instance{in}
	}
	return nil
}
