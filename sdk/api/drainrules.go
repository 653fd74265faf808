package api

import (
	"fmt"
	"time"
)

// Bounds and defaults of the drain of a region.
const (
	MaxDrainOver      = 24 * time.Hour
	MaxDrainSteps     = 100
	DefaultDrainSteps = 10
	MaxDrainAhead     = 31 * 24 * time.Hour // from now to At, and from At to Until
	// drainSlack is how far in the past At may be: clocks differ.
	drainSlack = time.Minute
)

// Normalize checks a request at now, of the wall clock, and fills in defaults: Steps, and At as
// the moment at which it begins. It returns an *Error with CodeInvalidField for the first
// field that is wrong. r itself is not changed.
func (r DrainRequest) Normalize(now time.Time) (DrainRequest, error) {
	// Written so that what is no number is refused too.
	if !(r.Percent >= 0 && r.Percent <= 100) {
		return r, FieldError("percent", fmt.Sprintf("percent %s is out of range", number(r.Percent)), "use 0 to 100: how much less of its traffic the region is to get")
	}
	if d := r.Over.D(); d < 0 || d > MaxDrainOver {
		return r, FieldError("over", fmt.Sprintf("over %s is out of range", d), fmt.Sprintf("use 0s (at once) to %s", MaxDrainOver))
	}
	if r.Steps < 0 || r.Steps > MaxDrainSteps {
		return r, FieldError("steps", fmt.Sprintf("steps %d is out of range", r.Steps), fmt.Sprintf("use 1 to %d, or leave it out (%d)", MaxDrainSteps, DefaultDrainSteps))
	}
	if r.Steps == 0 {
		r.Steps = DefaultDrainSteps
	}
	begin := now
	if r.At != nil {
		switch at := *r.At; {
		case at.Before(now.Add(-drainSlack)):
			return r, FieldError("at", fmt.Sprintf("at %s is in the past", stamp(at)), fmt.Sprintf("leave it out to begin now (it is %s here)", stamp(now)))
		case at.After(now.Add(MaxDrainAhead)):
			return r, FieldError("at", fmt.Sprintf("at %s is more than %d days ahead", stamp(at), int(MaxDrainAhead.Hours()/24)), "schedule it later")
		case at.After(now):
			begin = at
		}
	}
	begin = begin.UTC().Truncate(time.Millisecond)
	r.At = &begin
	if r.Until != nil {
		until := r.Until.UTC().Truncate(time.Millisecond)
		r.Until = &until
		switch {
		case !until.After(begin):
			return r, FieldError("until", fmt.Sprintf("until %s is not after its begin, %s", stamp(until), stamp(begin)), "choose a later time, or leave it out and undo it by hand")
		case until.Before(begin.Add(r.Over.D())):
			return r, FieldError("until", fmt.Sprintf("until %s comes before %s percent are reached, at %s", stamp(until), number(r.Percent), stamp(begin.Add(r.Over.D()))), "choose a later until, or a shorter over")
		case until.After(begin.Add(MaxDrainAhead)):
			return r, FieldError("until", fmt.Sprintf("until %s is more than %d days after its begin", stamp(until), int(MaxDrainAhead.Hours()/24)), "choose an earlier time, or leave it out and undo it by hand")
		}
	}
	if a := r.Abort; a != nil {
		switch {
		case !(a.BelowPassing >= 0 && a.BelowPassing <= 100):
			return r, FieldError("abort.below_passing", fmt.Sprintf("abort.below_passing %s is out of range", number(a.BelowPassing)), "use 0 to 100 percent; 0 = not looked at")
		case a.RegionsBelow < 0 || a.RegionsBelow > MaxPolicyRegions:
			return r, FieldError("abort.regions_below", fmt.Sprintf("abort.regions_below %d is out of range", a.RegionsBelow), fmt.Sprintf("use 0 to %d; 0 = not looked at", MaxPolicyRegions))
		case a.BelowPassing == 0 && a.RegionsBelow == 0:
			return r, FieldError("abort", "abort has no condition", "set below_passing or regions_below, or leave it out")
		}
	}
	return r, checkText("note", r.Note, MaxNoteLength)
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }
