package nearside

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/propagation"

	"github.com/nearside/nearside/sdk/api"
)

// run is one call on its way.
type run struct {
	t       *transport
	s       *service
	req     *http.Request
	body    *body
	name    string
	base    http.RoundTripper
	start   time.Time
	call    call
	tries   int           // attempts made
	counted int           // those that count against MaxAttempts
	free    bool          // the last one's repeat needs nothing of the budget, or has it
	since   time.Duration // nothing was heard of the last one's instance since then
	first   api.Region    // where the first attempt went
	served  api.Region
	kind    kind
	limit   time.Duration // of an attempt; 0 = none
	judged  bool          // its time says something about the instance; see Config.SlowCall
	// begun is told when an attempt is about to be sent, and how to end it; see hedge.go.
	begun func(*run, context.CancelCauseFunc)
}

// attempts tries instances until one answers or nothing more may be tried.
func (r *run) attempts(ctx context.Context, a *answer) (*http.Response, error) {
	var keep *http.Response // a gateway error, in case it stays the best there is
	var lastErr error
	for {
		most := r.t.c.cfg.MaxAttempts
		r.call.last = r.tries > 0 && (r.counted+1 >= most || r.tries+1 >= maxTries)
		sl, l := r.s.choose(a, &r.call)
		if sl == nil {
			break // all were tried
		}
		if keep != nil {
			discard(keep)
			keep = nil
		}
		move := r.call.safe && most > 1 && r.tries+1 < maxTries && len(r.call.tried)+1 < a.endpoints()
		cut := move && r.counted+1 < most
		var resp *http.Response
		var err error
		if after := r.hedgeAfter(cut, l); after > 0 {
			sl, resp, err = r.hedged(ctx, a, sl, l, after)
		} else {
			resp, err = r.attempt(ctx, sl, l, move, cut)
		}
		if r.kind == kindAnswer {
			r.body.finish()
			return resp, nil
		}
		r.failed(a, sl)
		keep, lastErr = resp, r.wrap(sl, err)
		r.call.answered = keep != nil
		if !r.again(ctx) {
			break
		}
		// The failure may have moved a breaker, and the registry may know more by now.
		a = r.s.answer.Load()
	}
	r.body.finish()
	if keep != nil {
		return keep, nil
	}
	return nil, lastErr
}

// failed notes that the attempt at sl gave no answer for the caller.
func (r *run) failed(a *answer, sl *slot) {
	r.call.tried = append(r.call.tried, tried{
		ref: sl.in.ref, kind: a.tiers[sl.tier].kind,
		silent: r.kind == kindTimeout || r.kind == kindSilent || r.kind == kindNoDial,
		poor:   r.kind == kindGateway, since: r.since,
	})
	if r.kind != kindDown && r.kind != kindSilent {
		r.counted++
	}
}

// again decides whether a failed attempt is followed by another, and waits a little
// before it where the instances may be overloaded.
func (r *run) again(ctx context.Context) bool {
	if r.kind == kindGivenUp || ctx.Err() != nil || r.tries >= maxTries || r.counted >= r.t.c.cfg.MaxAttempts {
		return false
	}
	if r.kind.sent() && !r.call.safe {
		return false
	}
	if !r.body.again() {
		return false
	}
	if r.kind.sent() && !r.free && !r.t.c.budget.spend(time.Now()) {
		return false
	}
	if r.kind == kindGateway {
		spread := 5 * time.Millisecond << r.counted
		return sleep(ctx, rand.N(spread))
	}
	return true
}

// attempt sends the call to one instance. move allows to leave the instance when it is
// condemned for silence, cut also when the attempt's limit is over.
func (r *run) attempt(ctx context.Context, sl *slot, l *lease, move, cut bool) (*http.Response, error) {
	r.tries++
	if r.tries == 1 {
		r.first = sl.endpoint.Region
	}
	r.served = sl.endpoint.Region
	ctx, span := r.span(ctx, sl)
	try, cancel := context.WithCancelCause(ctx)
	out := r.req.Clone(try)
	out.URL.Host = sl.in.hostPort
	if out.Host == "" || strings.EqualFold(out.Host, r.req.URL.Host) {
		out.Host, _, _ = strings.Cut(r.name, ".")
	}
	out.Trailer = r.req.Trailer // the caller fills it while the body is read
	out.Body = r.body.reader()
	r.t.c.tel.propagator.Inject(ctx, propagation.HeaderCarrier(out.Header))

	began := r.t.c.clock()
	r.since = began
	w := r.wait(ctx, sl, l, began, move, cut, cancel)
	over := false
	defer func() { // the base transport panicked: nobody waits any more
		if !over {
			w.stop()
			l.report(outcomeIgnored)
			l.release()
			cancel(nil)
			span.End()
		}
	}()
	if r.begun != nil {
		r.begun(r, cancel)
	}
	resp, err := r.base.RoundTrip(out)
	over = true
	if err == nil {
		resp, err = whole(resp, out.Method)
	}
	now := r.t.c.clock()
	if err == nil {
		sl.in.hear(now)
		if w != nil {
			sl.in.region.took(now - began)
		}
	}
	ended, paid := w.stop(), false
	if w != nil {
		paid, r.since = w.paid, w.since
	}
	if err == nil && (ended || try.Err() != nil) {
		// The answer came in the moment it was given up: its body cannot be read any more.
		_ = resp.Body.Close()
		resp, err = nil, context.Cause(try)
	}
	r.kind = classify(resp, err, try, r.req.Context())
	// A connection that another call had just given up, in the moment this one got it.
	foreign := r.kind == kindBroken && (errors.Is(err, errAttemptTimeout) || errors.Is(err, errSilent) || errors.Is(err, errOvertaken))
	if foreign {
		l.report(outcomeIgnored)
	} else {
		l.report(r.outcome(ctx, w, l, now-began))
	}
	r.t.c.budget.ended(r.kind)
	if p := r.t.c.cfg.Hedge.Percentile; p > 0 && r.judged && (r.kind == kindAnswer || (r.kind == kindOvertaken && r.tries == 1)) {
		r.s.recent.add(now-began, p)
	}
	r.told(sl, now-began, resp, err, !foreign && r.kind != kindGivenUp && r.kind != kindOvertaken)
	// Whoever leaves an instance that was found to be gone adds no load to it.
	r.free = paid || foreign || (l.left() && (r.kind == kindTimeout || r.kind == kindSilent || r.kind == kindBroken))
	if r.kind != kindGivenUp && r.kind != kindOvertaken {
		// Whether a dial without a call tells when it is well again.
		sl.in.dialed.Store(r.t.own && !r.kind.sent() && !distrusted(err))
	}
	r.endSpan(span, resp, err)
	if err != nil {
		l.release()
		cancel(nil)
		return nil, err
	}
	if resp.StatusCode == http.StatusServiceUnavailable {
		if d := retryAfter(resp.Header, time.Now()); d > 0 {
			sl.in.asks(d)
		}
	}
	// The answer is the caller's once its headers are here; the instance is busy and the
	// context needed until its body is read.
	if resp.Body == http.NoBody {
		l.release()
		cancel(nil)
	} else {
		resp.Body = wrapBody(resp.Body, func() { l.release(); cancel(nil) })
	}
	resp.Request = r.req
	told := [...]string{string(sl.endpoint.Region), string(sl.endpoint.ID), strconv.Itoa(r.tries)}
	for i, name := range [...]string{HeaderServedRegion, HeaderServedInstance, HeaderAttempts} {
		resp.Header[name] = told[i : i+1 : i+1]
	}
	return resp, nil
}

// wait lets the attempt wait for its answer, where its time is bounded; see silence.go.
func (r *run) wait(ctx context.Context, sl *slot, l *lease, began time.Duration, move, cut bool, cancel context.CancelCauseFunc) *waiter {
	if r.limit <= 0 {
		return nil
	}
	w := &waiter{
		in: sl.in, lease: l, budget: &r.t.c.budget, began: began, limit: r.limit,
		move: move, cut: cut, cancel: cancel,
	}
	if deadline, ok := ctx.Deadline(); ok {
		if left := time.Until(deadline); left < w.limit {
			w.left, w.cut = max(left, 1), false // it ends by itself before
		}
	}
	w.start()
	return w
}

// outcome is what the breaker learns. A caller whose own deadline passed says something
// about the instance only if the instance had the time of a whole attempt, or was tried after
// it was silent and is silent still.
func (r *run) outcome(ctx context.Context, w *waiter, l *lease, took time.Duration) outcome {
	switch {
	case r.kind == kindGivenUp && ctx.Err() == context.DeadlineExceeded && w != nil:
		if w.unanswered(took) && l.trial || took >= r.limit {
			return outcomeFailed
		}
	case r.kind == kindOvertaken:
		w.unanswered(took)
	case r.kind == kindAnswer && r.judged && r.t.c.cfg.SlowCall > 0 && took >= r.t.c.cfg.SlowCall:
		return outcomeSlow
	}
	return r.kind.outcome()
}

func (r *run) wrap(sl *slot, err error) error {
	if err == nil {
		return nil
	}
	if r.req.Context().Err() == nil {
		switch r.kind {
		case kindTimeout:
			err = fmt.Errorf("%w: %w", errAttemptTimeout, err)
		case kindSilent:
			err = fmt.Errorf("%w: %w", errSilent, err)
		}
	}
	return &CallError{Service: r.s.label, Attempts: r.tries, Instance: sl.endpoint.ID, Region: sl.endpoint.Region, Err: err}
}

// whole gives an answer the headers and body that a base transport may have left out, where
// http.Client puts up with that.
func whole(resp *http.Response, method string) (*http.Response, error) {
	if resp == nil {
		return nil, errors.New("the base transport returned neither an answer nor an error: it must return one of them")
	}
	if resp.Body == nil {
		if resp.ContentLength > 0 && method != http.MethodHead {
			return nil, fmt.Errorf("the base transport returned an answer of %d bytes without a body: it must set Response.Body", resp.ContentLength)
		}
		resp.Body = http.NoBody
	}
	if resp.Header == nil {
		resp.Header = http.Header{}
	}
	return resp, nil
}

// discardTime bounds the wait for the rest of an answer that nobody wants: an instance that
// stalls there costs the call no more than a connection to the next one may.
const discardTime = 20 * time.Millisecond

// discard gives up an answer so that its connection can be used again, if the rest of it is
// short and there.
func discard(resp *http.Response) {
	if resp.Body == http.NoBody {
		return
	}
	closed := make(chan struct{})
	late := time.AfterFunc(discardTime, func() {
		defer close(closed)
		_ = resp.Body.Close()
	})
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10)
	if !late.Stop() {
		<-closed // nothing of a call runs after its RoundTrip
		return
	}
	_ = resp.Body.Close()
}

// endpoints counts the endpoints of all tiers.
func (a *answer) endpoints() int {
	n := 0
	for i := range a.tiers {
		n += len(a.tiers[i].slots)
	}
	return n
}
