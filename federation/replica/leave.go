package replica

import (
	"time"
)

// ForgetGrace is how long the rows of an origin that said goodbye for good are kept: long
// enough to take the word back, and for callers to move.
const ForgetGrace = 3 * time.Minute

// maxRetryAfter bounds what an origin may make us wait.
const maxRetryAfter = time.Minute

func (r *Replica) goodbye(f Frame, now time.Time) Effects {
	eff := Effects{Goodbye: true, RetryAfter: time.Duration(min(max(f.RetryMS, 0), maxRetryAfter.Milliseconds())) * time.Millisecond}
	// Only the origin that we follow may end itself: a stranger's goodbye ends a stream.
	if f.Reason == ReasonForget && r.via == "" && r.greeted && r.leaves.IsZero() && !r.version.IsZero() {
		r.leaves = now.Add(ForgetGrace)
		eff.Leaving, eff.Changed, eff.Applied = true, true, true
	}
	return eff
}

// forget removes what is known of an origin that said so and did not come back.
func (r *Replica) forget() Effects {
	r.leaves, r.gone = time.Time{}, true
	r.truth, r.visible, r.loads = &Table{}, &Table{}, loads{}
	clear(r.held)
	clear(r.recent)
	r.complete, r.addresses = false, nil
	r.want, r.staged, r.told, r.asked = wantEverything, nil, nil, asked{}
	r.version.Region = r.origin
	return Effects{Changed: true, Applied: true, Gone: true}
}
