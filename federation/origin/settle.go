package origin

import (
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// Verdict says what an origin does with a reader, see Settle.
type Verdict int

const (
	// Serve: our version may be shown to the reader.
	Serve Verdict = iota
	// Refute: the reader holds what cannot follow from where we stand. If a moment's wait for
	// the other nodes of the region does not explain it, history was lost here, and we are the
	// only ones who can say so: by moving to an epoch above the reader's.
	Refute
	// StandDown: the reader heard of a publisher of our region that replaced us.
	StandDown
	// Implausible: the reader's claim is beyond what a sequence of accidents could explain.
	Implausible
)

// MaxClaim bounds by how much the generation that a reader claims may be beyond our own: above what lies
// between two histories of a region whose first generation is a time in seconds, and so far below
// replica.MaxGenerationJump that a liar can not lead us to where an honest reader would not follow.
const MaxClaim = 1 << 30

// Settle decides whether our version may be shown to a reader that holds held, under heldTerm:
// not when it is older, and not when it is of another history with the same number. Without
// refutation the reader would have to refuse us for ever (P4), or go back in time.
func Settle(held api.Version, heldTerm uint64, own api.Version, term uint64) Verdict {
	if held.IsZero() {
		return Serve
	}
	if held.Epoch == own.Epoch && heldTerm > term {
		return StandDown
	}
	switch held.Compare(own) {
	case api.Older, api.Same:
		return Serve
	}
	if held.Epoch.Generation-own.Epoch.Generation > MaxClaim {
		return Implausible
	}
	return Refute
}

// Negotiate returns the version of the frames for a reader that speaks oldest to newest; 0 when
// there is none.
func Negotiate(oldest, newest int) int {
	if v := min(newest, replica.Proto); v >= max(oldest, replica.MinProto) {
		return v
	}
	return 0
}
