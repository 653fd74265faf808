package verdict

import "time"

// Bounds of the probes of one region: one connection is tried at a time, and the next not
// sooner than ProbeEvery after it, so that no more than three are tried in 5 s.
const (
	ProbeEvery   = 1700 * time.Millisecond
	ProbeTimeout = 1500 * time.Millisecond
	// SilentAfter is how many probes in a row must have failed for a region's endpoints to
	// count as silent. One that answers ends that at once.
	SilentAfter = 4
	// AnswerHolds is how long one answer speaks for the endpoints.
	AnswerHolds = 15 * time.Second
)

// Tally keeps count of the probes of one region while it is unreachable. The zero value has
// seen none. Not safe for concurrent use.
type Tally struct {
	Tried, Failed int       // since Reset
	row           int       // failures since the last answer
	answered      time.Time // the last answer; zero = none
}

// Reset forgets everything: the region is reached again.
func (t *Tally) Reset() { *t = Tally{} }

// Note takes the outcome of one probe at now.
func (t *Tally) Note(ok bool, now time.Time) {
	t.Tried++
	if ok {
		t.row, t.answered = 0, now
		return
	}
	t.Failed++
	t.row++
}

// Answered returns when an endpoint answered last; zero = never.
func (t *Tally) Answered() time.Time { return t.answered }

// State returns what the probes say at now. An answer outweighs failures around it: some
// endpoints of a living region may be gone.
func (t *Tally) State(now time.Time) Probes {
	switch {
	case t.row >= SilentAfter:
		return ProbesSilent
	case !t.answered.IsZero() && now.Sub(t.answered) < AnswerHolds:
		return ProbesAnswer
	}
	return ProbesNone
}
