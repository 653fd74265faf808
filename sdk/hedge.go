package nearside

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Hedge lets a call that waits for its answer for unusually long ask a second instance, and
// takes the answer that comes first ("The Tail at Scale", Dean and Barroso 2013). It shortens
// the longest times where single answers are slow by chance: a collection of garbage, a queue
// at one instance. It does nothing for a service that is slow altogether, nor for instances
// that hang: those are found and left anyway.
//
// Only calls that are safe to repeat are hedged, without a body or with one up to 64 KiB that
// can be read again; never at an instance that is tried after it failed. The second
// instance is one of the same tier, so that no call leaves its zone or region for being slow.
// It is paid from the retry budget, and bounded by MaxShare besides. The attempt that loses
// is cancelled, and says nothing against its instance.
type Hedge struct {
	// After is how long a call waits before it asks a second instance; 0 = it does not,
	// unless Percentile is set. About what 95 of 100 answers take is a good value.
	After time.Duration
	// Percentile, between 0 and 1, follows the service instead: the time in which this share
	// of the last 128 answers came, at least After. 0 = off. Until 32 answers came
	// nothing is hedged.
	Percentile float64
	// MaxShare bounds hedges to this share of calls, over a reserve of ten; default 0.05.
	MaxShare float64
}

func (h Hedge) check() (Hedge, error) {
	switch {
	case h.After < 0:
		return h, fmt.Errorf("nearside: Config.Hedge.After is %s: give a time above 0, or 0 for no hedging", h.After)
	case !(h.Percentile >= 0 && h.Percentile < 1):
		return h, fmt.Errorf("nearside: Config.Hedge.Percentile is %v: give a share between 0 and 1, such as 0.95", h.Percentile)
	case !(h.MaxShare >= 0 && h.MaxShare <= 1):
		return h, fmt.Errorf("nearside: Config.Hedge.MaxShare is %v: give a share between 0 and 1, such as 0.05", h.MaxShare)
	case h.MaxShare == 0:
		h.MaxShare = defaultHedgeShare
	}
	return h, nil
}

const (
	defaultHedgeShare = 0.05
	hedgeReserve      = 10
	recentAnswers     = 128
	recentEnough      = 32
	recentEvery       = 16 // answers between two looks at all of them
)

// errOvertaken is the cause of an attempt that ended because another one of its call was
// quicker: for who measures, a call that was given up.
var errOvertaken = fmt.Errorf("another instance answered first: %w", context.Canceled)

type hedgeKey struct{}

// WithHedge returns a context whose calls through a Transport ask a second instance after d,
// whatever Config.Hedge says; 0 = they do not. They must be safe to repeat all the same.
func WithHedge(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, hedgeKey{}, d)
}

// recent is how long the last answers of a service took.
type recent struct {
	delay atomic.Int64 // the percentile of them; 0 = not known yet

	mu    sync.Mutex
	times [recentAnswers]time.Duration
	n     int
}

func (r *recent) add(d time.Duration, percentile float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.times[r.n%recentAnswers] = d
	if r.n++; r.n < recentEnough || r.n%recentEvery != 0 {
		return
	}
	all := slices.Clone(r.times[:min(r.n, recentAnswers)])
	slices.Sort(all)
	r.delay.Store(int64(max(all[int(percentile*float64(len(all)))], 1)))
}

// quota bounds hedges to a share of the calls.
type quota struct {
	mu     sync.Mutex
	share  float64
	tokens float64
}

func (q *quota) called() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.tokens = min(q.tokens+q.share, hedgeReserve)
}

func (q *quota) spend() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.tokens < 1 {
		return false
	}
	q.tokens--
	return true
}

// hedgeAfter returns after how long the attempt that follows is hedged; 0 = it is not.
// more tells that an attempt may follow it.
func (r *run) hedgeAfter(more bool, l *lease) time.Duration {
	if !more || l.trial || r.tries > 0 || (r.body.first != nil && (r.req.ContentLength <= 0 || r.req.ContentLength > maxQuickBody)) {
		return 0
	}
	if d, ok := r.req.Context().Value(hedgeKey{}).(time.Duration); ok {
		if d > 0 {
			r.t.c.hedges.called()
		}
		return d
	}
	cfg := &r.t.c.cfg.Hedge
	if cfg.After == 0 && cfg.Percentile == 0 {
		return 0
	}
	r.t.c.hedges.called()
	if cfg.Percentile == 0 {
		return cfg.After
	}
	if d := time.Duration(r.s.recent.delay.Load()); d > 0 {
		return max(d, cfg.After)
	}
	return 0
}

// race is a first attempt with a second one that may overtake it. The first runs in the
// caller's goroutine, the second in that of a timer, which is waited for: nothing of a call
// runs after its RoundTrip.
type race struct {
	a     *answer
	first *slot
	after time.Duration
	ctx   context.Context

	timer *time.Timer
	leave context.CancelCauseFunc // ends the first

	mu      sync.Mutex
	over    bool                    // the first ended: no second begins
	started bool                    // the second began
	lost    bool                    // the first answered, or panicked: the second is not wanted any more
	won     bool                    // the second answered before that: the first is not wanted any more
	cancel  context.CancelCauseFunc // ends the second
	ended   chan struct{}           // closed when the second has ended

	// The second attempt's own; the caller's once it ended.
	run   run
	sl    *slot
	resp  *http.Response
	err   error
	panic any
}

// begin is called by the first attempt when it is about to be sent.
func (x *race) begin(r *run, cancel context.CancelCauseFunc) {
	x.leave = cancel
	x.run = *r
	x.run.begun = x.follow
	x.run.call.tried = append(slices.Clone(r.call.tried), tried{ref: x.first.in.ref})
	x.run.call.trialed = true // not an instance that is to be tried: its answer may be cut short
	x.timer = time.AfterFunc(x.after, x.fire)
}

// follow is called by the second.
func (x *race) follow(_ *run, cancel context.CancelCauseFunc) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.cancel = cancel; x.lost {
		cancel(errOvertaken)
	}
}

// fire makes the second attempt, if there is a neighbour, and the means.
func (x *race) fire() {
	x.mu.Lock()
	if x.over {
		x.mu.Unlock()
		return
	}
	l := x.prepare()
	x.started = l != nil
	x.mu.Unlock()
	if l == nil {
		return
	}
	defer close(x.ended)
	defer func() {
		if x.panic = recover(); x.panic != nil { // the caller's goroutine is to have it
			x.leave(errOvertaken)
		}
	}()
	x.resp, x.err = x.run.attempt(x.ctx, x.sl, l, true, true)
	x.run.body.finish()
	x.mu.Lock()
	x.won = x.run.kind == kindAnswer && !x.lost
	won := x.won
	x.mu.Unlock()
	if won {
		x.leave(errOvertaken)
	}
}

// prepare takes what the second attempt needs; nil if it is not to be.
func (x *race) prepare() *lease {
	b := &body{}
	if x.run.body.first != nil {
		rc, err := x.run.req.GetBody()
		if err != nil {
			return nil
		}
		b.first = rc
	}
	var l *lease
	if x.sl, l = x.neighbour(); l != nil {
		c := x.run.t.c
		if c.hedges.spend() && c.budget.spend(time.Now()) {
			x.run.body = b
			return l
		}
		l.release()
	}
	b.finish()
	return nil
}

// neighbour takes another instance of the first one's tier.
func (x *race) neighbour() (*slot, *lease) {
	slots := x.a.tiers[x.first.tier].slots
	start := rand.IntN(len(slots))
	for k := range slots {
		sl := slots[(start+k)%len(slots)]
		if !x.run.call.has(sl.in) {
			if l := sl.in.admit(&x.run.call); l != nil {
				return sl, l
			}
		}
	}
	return nil, nil
}

// settle is called when the first attempt has ended, with an answer or not. It waits for the
// second one, if there is one, and reports whether there was. Where both answered, won tells
// whose answer it is: the other's may be cancelled and is to be closed.
func (x *race) settle(answered bool) bool {
	x.mu.Lock()
	x.over = true
	if answered && !x.won {
		if x.lost = true; x.cancel != nil {
			x.cancel(errOvertaken)
		}
	}
	started := x.started
	x.mu.Unlock()
	if x.timer != nil { // else the first did not get so far
		x.timer.Stop()
	}
	if !started {
		return false
	}
	<-x.ended
	return true
}

// hedged is attempt, with a second one elsewhere if no answer came after so long. It returns
// whose result it is, and leaves what became of it in r.
func (r *run) hedged(ctx context.Context, a *answer, sl *slot, l *lease, after time.Duration) (*slot, *http.Response, error) {
	x := &race{a: a, first: sl, after: after, ctx: ctx, ended: make(chan struct{})}
	r.begun = x.begin
	settled := false
	defer func() {
		if !settled { // the base transport panicked
			x.settle(true)
			abandon(x.resp)
		}
	}()
	resp, err := r.attempt(ctx, sl, l, true, true)
	r.begun, settled = nil, true
	if !x.settle(r.kind == kindAnswer) {
		return sl, resp, err
	}
	if x.panic != nil {
		abandon(resp)
		abandon(x.resp)
		panic(x.panic)
	}
	r.tries = x.run.tries
	switch {
	case x.won:
		abandon(resp)
		r.took(&x.run)
		return x.sl, x.resp, nil
	case r.kind == kindAnswer:
		abandon(x.resp)
		resp.Header.Set(HeaderAttempts, strconv.Itoa(r.tries))
		return sl, resp, nil
	case resp == nil && x.resp != nil: // a poor answer is better than none
		r.failed(a, sl)
		r.took(&x.run)
		return x.sl, x.resp, nil
	}
	if x.resp != nil {
		discard(x.resp)
	}
	first := *r
	r.took(&x.run)
	r.failed(a, x.sl)
	r.took(&first)
	return sl, resp, err
}

// abandon closes an answer, if there is one, that may be cancelled already.
func abandon(resp *http.Response) {
	if resp != nil {
		_ = resp.Body.Close()
	}
}

// took takes over what became of the other's last attempt.
func (r *run) took(o *run) { r.kind, r.free, r.since, r.served = o.kind, o.free, o.since, o.served }
