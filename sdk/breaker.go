package nearside

import (
	"errors"
	"maps"
	"math/rand/v2"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/route"
)

// The breaker of an instance.
//
//	closed ──(3 failures in a row, or half of 10 and more in 10 s, a refused dial, or silence)──▶ open
//	open ──(1–3 s, later after failed trials; a dial must succeed if dials failed)──▶ half-open
//	half-open ──(one trial call succeeds)──▶ closed     ──(it fails)──▶ open
//
// A region is judged by its instances, never by calls: the share of them that is open is what
// route.Decide takes off the region's share, and while all are open they are tried one at a
// time, less often each time. The first that answers brings the others back. After six
// failures in a row all over the region each further one opens its instance at once. Silence
// is in silence.go, slow answers are in slow.go, instances that ask for a pause in asked.go.
//
// gobreaker counts and decides; the keeper moves open breakers on, off the path of calls.
// Outcomes are reported when they are known, by Execute with a function that only returns
// the outcome: so no slot inside gobreaker can be held for ever by a caller that never
// reports (its half-open state has no expiry), and a report costs no allocation. The one
// trial at a time is bounded by a deadline here instead.
const (
	tripConsecutive = 3
	tripMinimum     = 10
	breakerWindow   = 10 * time.Second
	breakerBucket   = time.Second
	breakerMin      = time.Second
	breakerSpread   = 2 * time.Second
	// trialLimit frees the trial slot of a caller that never reported.
	trialLimit = 10 * time.Second
	// safeTrials is how long only calls that may be repeated are taken as trials: they
	// cost nobody a failure. After it any call is, so that a caller who only sends unsafe
	// ones comes home too.
	safeTrials = 3 * time.Second
	// maxDoublings bounds how much longer an instance or region whose trials keep failing is
	// left alone: 2^3 times.
	maxDoublings = 3
	// tripRegion is how many failures in a row, of any instance, condemn a region.
	tripRegion = 6
)

// regionHealth is what the instances of a service in one region have in common.
type regionHealth struct {
	failures atomic.Int32 // in a row
	// spare is how many more of its instances may be left alone although they answer: because
	// they are slow, or asked for it. See slow.go.
	spare atomic.Int32
	hearing

	// Owned by the keeper.
	down      bool      // no instance is closed
	retryAt   time.Time // of the next trial while down
	doublings int
	hold      time.Duration
}

var errOutcome = errors.New("the call failed")

func succeed() (struct{}, error) { return struct{}{}, nil }
func fail() (struct{}, error)    { return struct{}{}, errOutcome }

// outcome is what a call says about the instance.
type outcome uint8

const (
	outcomeIgnored outcome = iota // cancelled by the caller: says nothing
	outcomeOK                     // it answered, be it with 4xx or 500
	outcomeFailed
	outcomeDown // nothing listens there: trips at once
	outcomeSlow // it answered, but not within Config.SlowCall
)

// instance is what a client keeps about one endpoint across answers: calls running and
// the breaker. It is dropped with the endpoint, and made anew when its address changes.
type instance struct {
	ref     route.EndpointRef
	address string
	port    int
	ports   map[string]int // of the endpoint as it was first shown; never changed
	// hostPort is both, as URLs have them.
	hostPort string

	inflight atomic.Int64
	speed    speed // for PeakEWMA
	tally    tally // for ejection
	// When it last answered, in nanoseconds of clock (0 = never), and how many attempts
	// were cut since. See silence.go.
	heard      atomic.Int64
	unanswered atomic.Int32

	state    atomic.Int32 // gobreaker.State as OnStateChange told
	lease    atomic.Pointer[lease]
	trial    atomic.Int64 // when the running trial gives up its slot, in nanoseconds of clock; 0 = free
	atOnce   atomic.Bool  // the next failure trips
	halfOpen atomic.Int64 // since when, in nanoseconds of clock
	// failedTrial tells that the breaker is open because a trial failed.
	failedTrial atomic.Bool
	// gone tells that the endpoint left the view: what ends there now says nothing about those
	// that are left.
	gone atomic.Bool

	// Until when it asked to be left alone, in nanoseconds of clock (0 = not), and whether first
	// attempts respect that too. See asked.go.
	asked  atomic.Int64
	passed atomic.Bool
	slow   slowness

	cb     *gobreaker.CircuitBreaker[struct{}]
	region *regionHealth
	clock  func() time.Duration
	hold   time.Duration // how long this instance's breaker stays open at first

	// dialed tells that the last failure was a failed dial of our own: then a successful
	// dial comes before the next trial.
	dialed atomic.Bool
	// dialAt is the address to dial then, when it is not the main one; see DialFailed.
	dialAt atomic.Pointer[string]

	// usable tells that calls go there in normal times; starting, that it is new, since then by
	// clock (see slowstart.go). Guarded by service.mu.
	usable, starting bool
	since            time.Duration
	ejection         ejection // guarded by service.mu too

	// Owned by the keeper.
	retryAt time.Time // zero = not open, as far as the keeper knows
	trials  int       // that failed in a row
	probing bool
}

// lease is one generation of an instance's breaker. Calls keep the lease they began with:
// their outcomes say nothing about a later generation.
type lease struct {
	in    *instance
	trial bool
	done  func(error) // finish, made once so that a Pick allocates nothing
}

func newInstance(e *api.Endpoint, region *regionHealth, clock func() time.Duration, note func()) *instance {
	in := &instance{
		region:  region,
		ref:     route.EndpointRef{Region: e.Region, ID: e.ID},
		address: e.Address, port: e.Port, ports: e.Ports, clock: clock,
		hostPort: net.JoinHostPort(e.Address, strconv.Itoa(e.Port)),
		// Every breaker has its own time, so that neither many clients nor many instances
		// of one client are tried in the same moment.
		hold: breakerMin + rand.N(breakerSpread),
	}
	in.renew(false)
	in.cb = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Name: string(e.Region) + "/" + string(e.ID), MaxRequests: 1,
		Interval: breakerWindow, BucketPeriod: breakerBucket, Timeout: in.hold,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			return in.atOnce.Load() || c.ConsecutiveFailures >= tripConsecutive ||
				(c.Requests >= tripMinimum && c.TotalFailures*2 >= c.Requests)
		},
		// Runs under the breaker's lock: it only stores, and leaves a note.
		OnStateChange: func(_ string, from, to gobreaker.State) {
			if to == gobreaker.StateHalfOpen {
				in.halfOpen.Store(int64(in.clock()))
			}
			in.failedTrial.Store(from == gobreaker.StateHalfOpen && to == gobreaker.StateOpen)
			in.trial.Store(0)
			in.atOnce.Store(false)
			in.renew(to == gobreaker.StateHalfOpen)
			in.state.Store(int32(to))
			note()
		},
	})
	return in
}

func (in *instance) renew(trial bool) {
	l := &lease{in: in, trial: trial}
	l.done = l.finish
	in.lease.Store(l)
}

func (in *instance) is(s gobreaker.State) bool { return in.state.Load() == int32(s) }

// same reports whether in still describes e. The named ports count too: callers may use one of them, and
// what failed at the old one says nothing about the new one.
func (in *instance) same(e *api.Endpoint) bool {
	return in.address == e.Address && in.port == e.Port && maps.Equal(in.ports, e.Ports)
}

// admit takes the instance for a call, unless its breaker keeps the call away.
func (in *instance) admit(c *call) *lease {
	if in.asked.Load() != 0 && in.waits(c) {
		return nil
	}
	l := in.lease.Load()
	switch gobreaker.State(in.state.Load()) {
	case gobreaker.StateOpen:
		return nil
	case gobreaker.StateHalfOpen:
		now := int64(in.clock())
		until := in.trial.Load()
		if until > now || !l.trial || c.trialed || (!c.safe && now-in.halfOpen.Load() < int64(safeTrials)) {
			return nil
		}
		if !in.trial.CompareAndSwap(until, now+int64(trialLimit)) {
			return nil
		}
		c.trialed = true
	}
	in.inflight.Add(1)
	return l
}

// force takes the instance whatever its breaker says.
func (in *instance) force() *lease {
	in.inflight.Add(1)
	return in.lease.Load()
}

// report tells the breaker how a call ended. It is meant to be called once per call; more
// reports than calls count as more calls.
func (l *lease) report(o outcome) {
	in := l.in
	if in.gone.Load() {
		return
	}
	if o == outcomeOK || o == outcomeSlow {
		in.hear(in.clock())
	}
	if in.lease.Load() != l || in.is(gobreaker.StateOpen) {
		return
	}
	switch o {
	case outcomeIgnored:
		if l.trial {
			in.trial.Store(0)
		}
	case outcomeOK, outcomeSlow:
		in.region.failures.Store(0)
		if in.tooSlow(l, o == outcomeSlow) {
			in.atOnce.Store(true)
			_, _ = in.cb.Execute(fail)
			return
		}
		_, _ = in.cb.Execute(succeed)
		if l.trial {
			in.trial.Store(0)
		}
	default:
		if in.region.failures.Add(1) > tripRegion || o == outcomeDown {
			in.atOnce.Store(true)
		}
		_, _ = in.cb.Execute(fail)
	}
}

// release ends the call's share of the instance. A caller that says so twice must not make
// the instance look idler than idle: it would draw calls for ever.
func (l *lease) release() {
	for {
		n := l.in.inflight.Load()
		if n <= 0 || l.in.inflight.CompareAndSwap(n, n-1) {
			return
		}
	}
}

// finish is Picked.Done.
func (l *lease) finish(err error) {
	l.release()
	o := outcomeOf(err)
	if o != outcomeIgnored {
		l.in.tally.add(o == outcomeOK || o == outcomeSlow)
	}
	l.report(o)
}

// broken reports the endpoints that are to be left out.
func (s *service) brokenLocked() map[route.EndpointRef]struct{} {
	var m map[route.EndpointRef]struct{}
	for ref, in := range s.instances {
		if in.is(gobreaker.StateOpen) || in.ejection.until != 0 {
			if m == nil {
				m = map[route.EndpointRef]struct{}{}
			}
			m[ref] = struct{}{}
		}
	}
	return m
}
