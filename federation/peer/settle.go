package peer

import (
	"context"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

const (
	// lagLimit is how long a node that stands behind what a reader holds is given to catch
	// up before that counts as lost history: another node of this region may be ahead of it.
	lagLimit = time.Second
	// raiseLimit bounds the raising of the epoch; it fits into the reader's AnswerLimit.
	raiseLimit = 3 * time.Second
	// maxGenerationJump refuses claims that no sequence of accidents could explain, so that a
	// broken peer cannot use up the numbers.
	maxGenerationJump = 1 << 32
)

// settle makes sure that our version may be shown to a reader that holds held: not older,
// and not of another history with the same number. If it would be, history was lost here
// (data wiped or restored), and we are the only ones who can say so: we refute by moving to
// a higher epoch. Without this the reader would have to refuse us for ever (P4), or go back
// in time.
func (s *Server) settle(ctx context.Context, held api.Version) error {
	at := s.cfg.Source.Image().Version()
	if at.IsZero() || at.Epoch.IsZero() {
		return &api.Error{Code: api.CodeUnavailable, Detail: "the catalogue is not loaded yet", Remedy: "try again in a moment"}
	}
	if !refutes(held, at) {
		return nil
	}
	s.settling.Lock()
	defer s.settling.Unlock()
	if s.reaches(ctx, held, lagLimit) {
		return nil
	}
	at = s.cfg.Source.Image().Version()
	if held.Epoch.Generation > at.Epoch.Generation+maxGenerationJump {
		return &api.Error{
			Code: api.CodeConflict, Field: "have", Detail: "the reader claims generation " + api.Quote(held.Epoch.String()) + ", far beyond " + at.Epoch.String(),
			Remedy: "remove the reader's replica of this region",
		}
	}
	s.log.WarnContext(ctx, "a reader holds a newer history of this region than the store does; raising the epoch",
		"held", held, "own", at)
	raising, cancel := context.WithTimeout(ctx, raiseLimit)
	defer cancel()
	err := s.cfg.Source.RaiseEpoch(raising, held.Epoch.Generation)
	if err == nil && s.reaches(raising, held, raiseLimit) {
		return nil
	}
	s.log.WarnContext(ctx, "the epoch could not be raised", "held", held, "own", s.cfg.Source.Image().Version(), "error", err)
	return &api.Error{
		Code: api.CodeUnavailable, Detail: "the store holds an older history than the reader and cannot be moved on now",
		Remedy: "the reader keeps what it has and tries again",
	}
}

// refutes reports whether held cannot follow from a region that stands at own.
func refutes(held, own api.Version) bool {
	if held.IsZero() {
		return false
	}
	o := held.Compare(own)
	return o == api.Newer || o == api.Conflict
}

// reaches waits until our version may be shown to the holder of held.
func (s *Server) reaches(ctx context.Context, held api.Version, limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		at := s.cfg.Source.Image().Version()
		if !refutes(held, at) {
			return true
		}
		if s.cfg.Source.Wait(ctx, at) != nil {
			return !refutes(held, s.cfg.Source.Image().Version())
		}
	}
}
