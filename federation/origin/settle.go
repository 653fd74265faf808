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
	if held.Epoch.Generation-own.Epoch.Generation > replica.MaxGenerationJump {
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
