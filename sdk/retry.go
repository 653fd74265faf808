package nearside

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// kind is what happened to one attempt.
type kind uint8

const (
	kindAnswer  kind = iota // an answer that is the caller's: anything but a gateway error
	kindGateway             // 502, 503, 504: the instance, or what is before it, cannot serve
	kindDown                // refused or unreachable: nothing was sent, and no time lost
	kindNoDial              // another failed dial, such as a time-out: nothing was sent
	kindBroken              // the connection broke before an answer began
	kindTimeout             // no answer's headers in time
	kindSilent              // not in time either, and the instance was condemned for it
	kindGivenUp             // the caller's context ended
)

func (k kind) String() string {
	return [...]string{"answer", "gateway_error", "refused", "dial_error", "connection_broken", "timeout", "silent", "cancelled"}[k]
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
	case kindGivenUp:
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
	}
	return kindOf(err)
}

// kindOf says what an error of a connection means.
func kindOf(err error) kind {
	if errors.Is(err, context.Canceled) {
		return kindGivenUp
	}
	dial := false
	var op *net.OpError
	if errors.As(err, &op) {
		dial = op.Op == "dial"
	}
	switch {
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

// outcomeOf is what an error given to Picked.Done says.
func outcomeOf(err error) outcome {
	if err == nil {
		return outcomeOK
	}
	return kindOf(err).outcome()
}

// errAttemptTimeout is the cause of an attempt that took too long.
var errAttemptTimeout = errors.New("no answer within the attempt's time")

// idempotencyKey is the header by which a POST or PATCH says that it may be repeated.
const idempotencyKey = "Idempotency-Key"

// repeatable reports whether a call may be sent again after an instance may have seen it:
// its method must be idempotent, or it must carry an idempotency key; and its body must
// be there a second time.
func repeatable(req *http.Request) bool {
	if !replayable(req) {
		return false
	}
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	case http.MethodPost, http.MethodPatch:
		return req.Header.Get(idempotencyKey) != ""
	}
	return false
}

// replayable reports whether the body can be sent again.
func replayable(req *http.Request) bool {
	return req.Body == nil || req.Body == http.NoBody || req.GetBody != nil
}

// Bounds of one call and of the retry budget.
const (
	maxTries      = 8 // attempts of one call, those that do not count included
	budgetReserve = 50
	budgetPerSec  = 10
	budgetMost    = 2 * budgetReserve
)

// budget bounds repeats, so that they cannot multiply an overload: a share of the calls,
// over a reserve that refills with time. A token bucket.
type budget struct {
	mu     sync.Mutex
	share  float64
	tokens float64
	last   time.Time
}

func (b *budget) init(share float64) { b.share, b.tokens, b.last = share, budgetReserve, time.Now() }

// called credits one call.
func (b *budget) called(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refillLocked(now)
	b.tokens = min(b.tokens+b.share, budgetMost)
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
	if d := now.Sub(b.last); d > 0 {
		b.last = now
		b.tokens = min(b.tokens+d.Seconds()*budgetPerSec, budgetMost)
	}
}
