package nearside

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// kind is what happened to one attempt.
type kind uint8

const (
	kindAnswer    kind = iota // an answer that is the caller's: anything but a gateway error
	kindGateway               // 502, 503, 504: the instance, or what is before it, cannot serve
	kindDown                  // refused or unreachable: nothing was sent, and no time lost
	kindNoDial                // another failed dial, such as a time-out: nothing was sent
	kindBroken                // the connection broke before an answer began
	kindTimeout               // no answer's headers in time
	kindSilent                // not in time either, and the instance was condemned for it
	kindGivenUp               // the caller's context ended
	kindOvertaken             // another attempt of the call was quicker
)

func (k kind) String() string {
	return [...]string{"answer", "gateway_error", "refused", "dial_error", "connection_broken", "timeout", "silent", "cancelled", "overtaken"}[k]
}

// sent reports whether the instance may have seen the call.
func (k kind) sent() bool { return k != kindDown && k != kindNoDial }

// outcome is what the breaker learns.
func (k kind) outcome() outcome {
	switch k {
	case kindAnswer:
		return outcomeOK
	case kindDown, kindNoDial:
		return outcomeDown
	case kindGivenUp, kindOvertaken:
		return outcomeIgnored
	}
	return outcomeFailed
}

// classify says what an attempt's result is. attempt is the attempt's own context, call
// the caller's.
func classify(resp *http.Response, err error, attempt, call context.Context) kind {
	if err == nil {
		switch resp.StatusCode {
		case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return kindGateway
		}
		return kindAnswer
	}
	if call.Err() != nil {
		return kindGivenUp
	}
	switch cause := context.Cause(attempt); {
	case errors.Is(cause, errAttemptTimeout):
		return kindTimeout
	case errors.Is(cause, errSilent):
		return kindSilent
	case errors.Is(cause, errOvertaken):
		return kindOvertaken
	}
	return kindOf(err)
}

// kindOf says what an error of a connection means.
func kindOf(err error) kind {
	if errors.Is(err, context.Canceled) && !errors.Is(err, errOvertaken) { // that one is of another call
		return kindGivenUp
	}
	dial := false
	var op *net.OpError
	if errors.As(err, &op) {
		dial = op.Op == "dial"
	}
	switch {
	case distrusted(err): // at once, and before the call: nobody was silent
		return kindDown
	case errors.Is(err, syscall.ECONNREFUSED), dial && (errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)):
		return kindDown
	case dial:
		return kindNoDial
	}
	var timeout net.Error
	if errors.Is(err, context.DeadlineExceeded) || (errors.As(err, &timeout) && timeout.Timeout()) {
		return kindTimeout
	}
	return kindBroken
}

// distrusted reports whether an instance was left for its certificate.
func distrusted(err error) bool {
	var wrong *tls.CertificateVerificationError
	return errors.As(err, &wrong)
}

// outcomeOf is what an error given to Picked.Done says.
func outcomeOf(err error) outcome {
	switch {
	case err == nil:
		return outcomeOK
	case errors.Is(err, ErrSlow):
		return outcomeSlow
	}
	return kindOf(err).outcome()
}

// errAttemptTimeout is the cause of an attempt that took too long.
var errAttemptTimeout = errors.New("no answer within the attempt's time")

// idempotencyKey is the header by which a POST or PATCH says that it may be repeated.
const idempotencyKey = "Idempotency-Key"

type idempotentKey struct{}

// WithIdempotent returns a context whose calls through a Transport may be repeated whatever
// their method, as those with an Idempotency-Key may: the instances see to it that a call
// which comes twice is done once. Bodies must be readable again all the same
// (Request.GetBody).
func WithIdempotent(ctx context.Context) context.Context {
	return context.WithValue(ctx, idempotentKey{}, true)
}

// repeatable reports whether a call may be sent again after an instance may have seen it:
// its method must be idempotent, or it must carry an idempotency key or be declared safe; and
// its body must be there a second time.
func repeatable(req *http.Request) bool {
	if !replayable(req) {
		return false
	}
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	case http.MethodPost, http.MethodPatch:
		// An empty list is net/http's way to say it without sending the header.
		if v, ok := req.Header[idempotencyKey]; ok && (len(v) == 0 || v[0] != "") {
			return true
		}
	}
	declared, _ := req.Context().Value(idempotentKey{}).(bool)
	return declared
}

// replayable reports whether the body can be sent again.
func replayable(req *http.Request) bool {
	return req.Body == nil || req.Body == http.NoBody || req.GetBody != nil
}

// Bounds of one call and of the retry budget.
const (
	maxTries      = 8 // attempts of one call, those that do not count included
	budgetReserve = 100
	budgetPerSec  = 10
)

// budget bounds repeats, so that they cannot multiply an overload: a share of the calls over a
// reserve, which is for the moment in which much dies at once. A token bucket, full at first. It
// refills with time only while nearly all attempts succeed: as long as more than a tenth of them fail,
// for however long and at whatever rate of calls, repeats are the share and the reserve, once.
type budget struct {
	good atomic.Int32 // how many attempts end well, smoothed, of goodWhole

	mu     sync.Mutex
	share  float64
	tokens float64
	last   time.Time
}

const (
	goodWhole  = 1 << 16
	goodEnough = goodWhole * 9 / 10
	goodOver   = 64 // attempts that are remembered, about
)

func (b *budget) init(share float64) {
	b.share, b.tokens, b.last = share, budgetReserve, time.Now()
	b.good.Store(goodWhole)
}

// called credits one call.
func (b *budget) called(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refillLocked(now)
	b.tokens = min(b.tokens+b.share, budgetReserve)
}

// ended notes how an attempt ended. One that gets lost between two at a time does no harm.
func (b *budget) ended(k kind) {
	old := b.good.Load()
	switch k {
	case kindAnswer:
		if old < goodWhole-goodOver {
			b.good.Store(old + (goodWhole-old)/goodOver)
		}
	case kindGateway, kindBroken, kindTimeout:
		b.good.Store(old - old/goodOver)
	}
}

// spend takes a token for a repeat, if there is one.
func (b *budget) spend(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refillLocked(now)
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

func (b *budget) refillLocked(now time.Time) {
	d := now.Sub(b.last)
	if d <= 0 {
		return
	}
	b.last = now
	if b.good.Load() >= goodEnough {
		b.tokens = min(b.tokens+d.Seconds()*budgetPerSec, budgetReserve)
	}
}
