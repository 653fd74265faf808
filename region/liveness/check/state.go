package check

import (
	"fmt"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// Outcome of one run of a check.
type Outcome int8

// The outcomes.
const (
	Unknown Outcome = iota // could not be carried out: discarded
	Success
	Failure
)

// Result is one run of a check: its outcome and a short code for people. Nothing that the
// instance sent is in it but a status number or word.
type Result struct {
	Outcome Outcome
	Code    string
}

// Damping says when a check counts as flapping. The zero value never does.
type Damping struct {
	// Changes to and from passing within Window are normal; more are flapping.
	Changes int
	Window  time.Duration
	// Hold is how long a flapping check must go without a failure before it passes. It
	// doubles with every relapse, to MaxHold, and is forgotten after a Window (and the hold
	// itself) without one.
	Hold, MaxHold time.Duration
}

// DefaultDamping returns the figures of the product: three outages in ten minutes are one
// too many.
func DefaultDamping() Damping {
	return Damping{Changes: 5, Window: 10 * time.Minute, Hold: 30 * time.Second, MaxHold: 10 * time.Minute}
}

// State is one check of one instance. It is not safe for concurrent use. Times of one
// State come from one clock; with time.Now's monotonic reading no jump of the wall clock
// counts.
type State struct {
	api.CheckResult

	// Equal results in a row; at most one of them is not 0.
	successes, failures int
	mixed               bool // the failures in a row have different codes

	lastFailure time.Time
	changes     []time.Time // to and from passing, oldest first, at most Damping.Changes+1
	relapse     time.Time   // last change from passing
	level       int         // of the hold; 0 = not flapping
	hold        time.Duration

	// criticalSince is when a liveness check became critical, as far as this process can
	// vouch for it; see Amnesty.
	criticalSince time.Time

	sign sign
}

// sign is what Suspicion needs to know of a check: its newest result, whatever thresholds say.
type sign struct {
	at   time.Time // zero = none yet
	ok   bool
	fell time.Time // since when it fails, having passed before; zero = it passes, or never did
}

// First returns the result that a check has before its first run.
func First(c *api.Check, now time.Time) api.CheckResult {
	r := api.CheckResult{Name: c.Name, Role: c.Role, Status: api.StatusStarting, Since: stamp(now), Note: "has not passed yet"}
	if c.Role == api.RoleLiveness {
		r.Status, r.Note = api.StatusPassing, ""
	}
	return r
}

// stamp is a time as records have it.
func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// Resume returns the state of a check of which the last result is known: after a restart,
// or a first one. Its status stands until a threshold of new results says otherwise.
func Resume(last api.CheckResult, now time.Time) State {
	s := State{CheckResult: last}
	s.sign.ok = last.Status == api.StatusPassing || last.Status == api.StatusWarning
	if last.Status == api.StatusCritical {
		s.criticalSince = now
	}
	return s
}

// Step takes a result and reports whether the status changed.
func (s *State) Step(c *api.Check, d Damping, r Result, now time.Time) bool {
	if r.Outcome == Unknown {
		return false
	}
	s.mixed = s.failures > 0 && (s.mixed || r.Code != s.LastCode)
	s.LastCode, s.LastAt = r.Code, stamp(now)
	if r.Outcome == Success {
		s.sign = sign{at: now, ok: true}
		return s.success(c, now)
	}
	if s.sign.ok {
		s.sign.fell = now
	}
	s.sign.at, s.sign.ok = now, false
	return s.failure(c, d, now)
}

func (s *State) success(c *api.Check, now time.Time) bool {
	s.failures = 0
	s.successes++
	switch {
	case s.Status == api.StatusPassing, s.successes < c.SuccessBeforePassing:
		return false
	case s.hold > 0 && now.Sub(s.lastFailure) < s.hold:
		return false // flapping: it must stay well for a while
	}
	s.set(api.StatusPassing, "", now)
	return true
}

func (s *State) failure(c *api.Check, d Damping, now time.Time) bool {
	s.successes = 0
	s.failures++
	s.lastFailure = now
	was := s.Status
	switch {
	case s.failures >= c.FailuresBeforeCritical && was != api.StatusCritical:
		s.criticalSince = now
		s.set(api.StatusCritical, s.why(), now)
	case c.FailuresBeforeWarning > 0 && s.failures >= c.FailuresBeforeWarning && was == api.StatusPassing:
		s.set(api.StatusWarning, s.why(), now)
	default:
		return false
	}
	if was == api.StatusPassing {
		s.damp(d, now)
	}
	if s.hold > 0 {
		s.Note += fmt.Sprintf("; flapping: passes after %s without a failure", s.hold)
	}
	return true
}

// why says what the failures in a row were.
func (s *State) why() string {
	if s.mixed {
		return fmt.Sprintf("%d failures, the last %s", s.failures, s.LastCode)
	}
	return fmt.Sprintf("%d × %s", s.failures, s.LastCode)
}

func (s *State) set(status api.Status, note string, now time.Time) {
	if s.Status == api.StatusPassing || status == api.StatusPassing {
		s.changes = append(s.changes, now)
	}
	if status != api.StatusCritical {
		s.criticalSince = time.Time{}
	}
	s.Status, s.Note, s.Since = status, note, stamp(now)
}

// damp decides, at a change from passing, how long the check must be well to pass again.
func (s *State) damp(d Damping, now time.Time) {
	n := 0
	for n < len(s.changes) && (len(s.changes)-n > d.Changes+1 || now.Sub(s.changes[n]) > d.Window) {
		n++
	}
	s.changes = append(s.changes[:0], s.changes[n:]...)
	calm := now.Sub(s.relapse) > d.Window+s.hold
	s.relapse = now
	switch {
	case d.Changes > 0 && (len(s.changes) > d.Changes || s.level > 0 && !calm):
		s.level++
		s.hold = min(d.MaxHold, d.Hold<<min(s.level-1, 20))
	default:
		s.level, s.hold = 0, 0
	}
}

// Expired reports whether the check has been critical for its DeregisterAfter, as far as
// this process saw it.
func (s *State) Expired(c *api.Check, now time.Time) bool {
	return c.DeregisterAfter > 0 && s.Status == api.StatusCritical && !s.criticalSince.IsZero() &&
		now.Sub(s.criticalSince) >= c.DeregisterAfter.D()
}

// Withdraw takes back what was found since a result that is on record: the check is as it
// was then, and needs a whole threshold of new results for another status. When it last ran
// and how that went is kept.
func (s *State) Withdraw(to api.CheckResult) {
	to.LastCode, to.LastAt = s.LastCode, s.LastAt
	if n := len(s.changes); n > 0 && s.Status != to.Status && (s.Status == api.StatusPassing || to.Status == api.StatusPassing) {
		s.changes = s.changes[:n-1]
	}
	s.CheckResult = to
	s.successes, s.failures = 0, 0
	if s.Status != api.StatusCritical {
		s.criticalSince = time.Time{}
	}
}

// Amnesty starts the time to DeregisterAfter anew: this process did not look, or did not
// trust what it saw.
func (s *State) Amnesty(now time.Time) {
	if !s.criticalSince.IsZero() {
		s.criticalSince = now
	}
}
