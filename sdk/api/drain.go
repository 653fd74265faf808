package api

import "time"

// DrainState is where the drain of a region stands.
type DrainState string

// The states of a drain.
const (
	DrainScheduled DrainState = "scheduled" // begins at At
	DrainMoving    DrainState = "moving"    // on the way from From to Percent
	DrainHolding   DrainState = "holding"   // at Percent
	DrainAborted   DrainState = "aborted"   // undone by its own abort rule, see Why; nothing is drained
	DrainEnded     DrainState = "ended"     // undone after Until, or by an operator
)

// DrainRequest is the body of PUT /v1/regions/{region}/drain: callers of the deciding region
// shall send Percent less of their traffic to the named region. About its own region it is an
// evacuation: every other region follows it too. Unknown fields are refused.
type DrainRequest struct {
	Percent float64 `json:"percent"` // 0 to 100; where it ends
	// Over is the time in which Percent is reached, in Steps equal steps; 0 = at once, at most a day.
	Over  Duration `json:"over,omitempty"`
	Steps int      `json:"steps,omitempty"` // 1 to 100; default 10
	// At is when it begins; nil = now. Until is when it is undone by itself; nil = by hand.
	At    *time.Time `json:"at,omitempty"`
	Until *time.Time `json:"until,omitempty"`
	// Abort undoes it by itself while it moves or holds; nil = never.
	Abort *DrainAbort `json:"abort,omitempty"`
	Note  string      `json:"note,omitempty"` // at most 256 bytes
}

// DrainAbort says when a drain gives up.
type DrainAbort struct {
	// BelowPassing: the usable instances in all regions that take the traffic, as a share in
	// percent of those they have, fell below this; 0 = not looked at.
	BelowPassing float64 `json:"below_passing,omitempty"`
	// RegionsBelow: fewer than this many regions that are not drained can be reached; 0 = not looked at.
	RegionsBelow int `json:"regions_below,omitempty"`
}

// RegionDrain is the wish that a region's instances get less traffic, as GET
// /v1/regions/{region}/drain shows it. The decision belongs to By: the region itself, whose
// word the others follow, or another, for its own callers alone. It needs nothing of the
// drained region, so it works when that region is dead.
type RegionDrain struct {
	Region Region `json:"region"`
	By     Region `json:"by"`
	DrainRequest
	From    float64   `json:"from"` // percent at Started, and until then
	Started time.Time `json:"started,omitzero"`
	Actor   string    `json:"actor,omitempty"`
	// Revision of the last change in By.
	Revision uint64 `json:"revision"`
	// Now is the percentage at the time of the answer, 0 to 100, and State where it stands.
	Now   float64    `json:"now"`
	State DrainState `json:"state"`
	Why   string     `json:"why,omitempty"`
	// Effective is what callers of the answering region go by: the larger of Now and of what
	// the drained region was last heard to wish itself.
	Effective float64 `json:"effective"`
	// Warning is set where the drain may not do what is meant: no region would be left, or an
	// undo does not undo the region's own wish.
	Warning string `json:"warning,omitempty"`
}
