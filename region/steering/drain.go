package steering

import (
	"math"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// Drain is the record of a drain as far as its arithmetic needs it. All methods are functions of
// the record and now, of the wall clock.
type Drain struct {
	// The request, normalized: At is set, and Steps is at least 1.
	api.DrainRequest
	// From is the percentage at At, and until then.
	From float64 `json:"from"`
	// End is set when this is the way back: the state it leads to, DrainEnded or DrainAborted.
	// Percent is 0 then.
	End   api.DrainState `json:"end,omitempty"`
	Actor string         `json:"actor,omitempty"`
	Why   string         `json:"why,omitempty"`
}

// steps returns how many of the Steps are done at now.
func (d *Drain) steps(now time.Time) int64 {
	n, elapsed, over := int64(max(d.Steps, 1)), now.Sub(*d.At), d.Over.D()
	switch {
	case elapsed < 0:
		return 0
	case over <= 0 || elapsed >= over:
		return n
	}
	// At most a day times a hundred: far from what an int64 holds.
	return int64(elapsed) * n / int64(over)
}

// past reports whether Until has come.
func (d *Drain) past(now time.Time) bool { return d.Until != nil && !now.Before(*d.Until) }

// Level returns the percentage at now, 0 to 100, to a hundredth: From, and from the begin on in equal
// steps to Percent; 0 once Until has come.
func (d *Drain) Level(now time.Time) float64 {
	if d.past(now) {
		return 0
	}
	switch k, n := d.steps(now), int64(max(d.Steps, 1)); k {
	case 0:
		return d.From
	case n:
		return d.Percent
	default:
		return math.Round((d.From+(d.Percent-d.From)*float64(k)/float64(n))*100) / 100
	}
}

// State returns where the drain stands at now.
func (d *Drain) State(now time.Time) api.DrainState {
	switch {
	case now.Before(*d.At):
		return api.DrainScheduled
	case d.past(now):
		return api.DrainEnded
	case d.steps(now) < int64(max(d.Steps, 1)):
		return api.DrainMoving
	case d.End != "":
		return d.End
	case d.Percent == 0:
		return api.DrainEnded
	}
	return api.DrainHolding
}

// Next returns when Level or State may be another one than at now; zero = never again.
func (d *Drain) Next(now time.Time) time.Time {
	var next time.Time
	switch k, n := d.steps(now), int64(max(d.Steps, 1)); {
	case d.past(now):
		return next
	case now.Before(*d.At):
		next = *d.At
	case k < n:
		// The first moment at which k+1 steps are done.
		next = d.At.Add(time.Duration((int64(d.Over.D())*(k+1) + n - 1) / n))
	}
	if d.Until != nil && (next.IsZero() || d.Until.Before(next)) {
		next = *d.Until
	}
	return next
}

// over reports whether the drain has come to its end at now: nothing is drained, and nothing will be.
func (d *Drain) over(now time.Time) bool {
	s := d.State(now)
	return s == api.DrainEnded || s == api.DrainAborted
}

// asksTheSame reports whether a normalized request, which named a begin if scheduled, asks for
// what the drain does at now already: sending it again must not begin anew.
func (d *Drain) asksTheSame(r *api.DrainRequest, scheduled bool, now time.Time) bool {
	if d.over(now) || d.End != "" || d.Percent != r.Percent || d.Over != r.Over || d.Steps != r.Steps || d.Note != r.Note {
		return false
	}
	if scheduled != now.Before(*d.At) || scheduled && !d.At.Equal(*r.At) {
		return false
	}
	return same(d.Until, r.Until, time.Time.Equal) && same(d.Abort, r.Abort, func(a, b api.DrainAbort) bool { return a == b })
}

func same[T any](a, b *T, equal func(a, b T) bool) bool {
	if a == nil || b == nil {
		return a == b
	}
	return equal(*a, *b)
}
