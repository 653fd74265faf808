package nearside

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/nearside/nearside/sdk/api"
)

// run is one call on its way.
type run struct {
	t       *transport
	s       *service
	req     *http.Request
	body    *body
	name    string
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
		resp, err := r.attempt(ctx, sl, l, move, move && r.counted+1 < most)
		if r.kind == kindAnswer {
			r.body.finish()
			return resp, nil
		}
		r.call.tried = append(r.call.tried, tried{
			ref: sl.in.ref, kind: a.tiers[sl.tier].kind,
			silent: r.kind == kindTimeout || r.kind == kindSilent, since: r.since,
		})
		if r.kind != kindDown && r.kind != kindSilent {
			r.counted++
		}
		keep, lastErr = resp, r.wrap(sl, err)
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
	address := net.JoinHostPort(sl.endpoint.Address, strconv.Itoa(sl.endpoint.Port))
	ctx, span := r.span(ctx, sl)
	try, cancel := context.WithCancelCause(ctx)
	out := r.req.Clone(try)
	out.URL.Host = address
	if out.Host == "" || strings.EqualFold(out.Host, r.req.URL.Host) {
		out.Host, _, _ = strings.Cut(r.name, ".")
	}
	out.Body = r.body.reader()
	r.t.c.tel.propagator.Inject(ctx, propagation.HeaderCarrier(out.Header))

	began := r.t.c.clock()
	r.since = began
	var w *waiter
	if r.limit > 0 {
		w = &waiter{in: sl.in, lease: l, budget: &r.t.c.budget, began: began, limit: r.limit, move: move, cut: cut, cancel: cancel}
		w.start()
	}
	resp, err := r.t.base.RoundTrip(out)
	now := r.t.c.clock()
	if err == nil {
		sl.in.hear(now)
		if w != nil {
			sl.in.region.took(now - began)
		}
	}
	paid := false
	if w != nil {
		ended := w.stop()
		paid, r.since = w.paid, w.since
		if ended && err == nil {
			// The answer came in the moment it was given up: its body cannot be read any more.
			_ = resp.Body.Close()
			resp, err = nil, context.Cause(try)
		}
	}
	r.kind = classify(resp, err, try, r.req.Context())
	// A connection that another call had just given up, in the moment this one got it.
	foreign := r.kind == kindBroken && (errors.Is(err, errAttemptTimeout) || errors.Is(err, errSilent))
	if foreign {
		l.report(outcomeIgnored)
	} else {
		l.report(r.outcome(ctx, now-began))
	}
	// Whoever leaves an instance that was found to be gone adds no load to it.
	r.free = paid || foreign || (l.left() && (r.kind == kindTimeout || r.kind == kindSilent || r.kind == kindBroken))
	if r.kind != kindGivenUp {
		sl.in.dialed.Store(r.t.own && !r.kind.sent())
	}
	r.endSpan(span, resp, err)
	if err != nil {
		l.release()
		cancel(nil)
		return nil, err
	}
	// The answer is the caller's once its headers are here; the instance is busy and the
	// context needed until its body is read.
	resp.Body = wrapBody(resp.Body, func() { l.release(); cancel(nil) })
	resp.Request = r.req
	resp.Header.Set(HeaderServedRegion, string(sl.endpoint.Region))
	resp.Header.Set(HeaderServedInstance, string(sl.endpoint.ID))
	resp.Header.Set(HeaderAttempts, strconv.Itoa(r.tries))
	return resp, nil
}

// outcome is what the breaker learns. A caller whose own deadline passed says something
// about the instance only if the instance had the time of a whole attempt.
func (r *run) outcome(ctx context.Context, took time.Duration) outcome {
	if r.kind == kindGivenUp && ctx.Err() == context.DeadlineExceeded {
		if r.limit > 0 && took >= r.limit {
			return outcomeFailed
		}
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

func (r *run) span(ctx context.Context, sl *slot) (context.Context, trace.Span) {
	return r.t.c.tel.tracer.Start(ctx, method(r.req)+" "+r.s.label, trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(
			attribute.String("http.request.method", method(r.req)),
			attribute.String("server.address", sl.endpoint.Address),
			attribute.Int("server.port", sl.endpoint.Port),
			attribute.String("nearside.service", r.s.label),
			attribute.String("nearside.region", string(sl.endpoint.Region)),
			attribute.String("nearside.instance", string(sl.endpoint.ID)),
			attribute.Int("nearside.tier", sl.tier),
			attribute.Int("nearside.attempt", r.tries),
		))
}

func (r *run) endSpan(span trace.Span, resp *http.Response, err error) {
	defer span.End()
	if err != nil {
		span.RecordError(err)
		span.SetStatus(codes.Error, r.kind.String())
		return
	}
	span.SetAttributes(attribute.Int("http.response.status_code", resp.StatusCode))
	if resp.StatusCode >= 500 {
		span.SetStatus(codes.Error, resp.Status)
	}
}

func (r *run) count(ctx context.Context, resp *http.Response) {
	outcome, served := "ok", r.served
	switch {
	case resp == nil:
		outcome, served = r.kind.String(), ""
	case resp.StatusCode >= 500:
		outcome = "error"
	}
	failover := resp != nil && r.kind == kindAnswer && served != r.first
	r.t.c.tel.called(ctx, r.s.label, served, outcome, r.tries, failover, time.Since(r.start))
}

func method(req *http.Request) string {
	if req.Method == "" {
		return http.MethodGet
	}
	return req.Method
}

// discard gives up an answer so that its connection can be used again.
func discard(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10)
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
