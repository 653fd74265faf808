package origin

import (
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/federation/summary"
)

// loadState is what a stream has told of loads. They are a class of their own: told only to a
// reader that has all rows, never queued (what is to be told is the difference to what was told
// last, worked out when it can be sent), and not part of any version or digest of rows.
type loadState struct {
	told    *summary.Loads
	begun   bool // something was told
	target  *summary.Loads
	pending []summary.Load
	full    bool // pending begins a list of all
}

// Loads returns the next frame that leads the reader to these loads; false when there is
// nothing to tell, or when something else comes first: call it after Next returned Idle.
func (s *Session) Loads(l *summary.Loads) (replica.Frame, bool) {
	st := &s.load
	if s.proto < 2 || !s.ask.Can.Has(replica.CanLoad) || s.parted.Kind != "" || s.led.IsZero() || s.led.Epoch != s.told || s.bulk != nil || len(s.queue) > 0 {
		return replica.Frame{}, false
	}
	if len(st.pending) == 0 {
		if st.begun && l == st.told {
			return replica.Frame{}, false
		}
		// A stream begins with all, even if there are none: the reader may know some of another one.
		st.target, st.full = l, !st.begun
		if st.begun {
			st.pending = l.Since(st.told)
		} else {
			st.pending = l.Since(nil)
		}
		st.begun = true
	}
	n := min(len(st.pending), replica.ChunkRows)
	f := replica.Frame{Kind: replica.LoadKind, Epoch: s.led.Epoch, Full: st.full, Loads: make([]replica.Load, n)}
	for i, x := range st.pending[:n] {
		f.Loads[i] = replica.Load{Key: replica.FormatKey(x.Key), Percent: x.Percent}
	}
	st.pending, st.full = st.pending[n:], false
	if f.More = len(st.pending) > 0; !f.More {
		st.told, st.target, st.pending = st.target, nil, nil
	}
	return f, true
}

// LoadsAgain makes the next Loads tell all: the reader says that its own do not add up.
func (s *Session) LoadsAgain() { s.load = loadState{} }

// loadDigest is that of what was told; nil while it is incomplete, or nothing was.
func (s *Session) loadDigest() *summary.Digest {
	if !s.load.begun || len(s.load.pending) > 0 {
		return nil
	}
	d := s.load.told.Digest()
	return &d
}
