package check

import (
	"fmt"
	"iter"
	"time"
)

// SuspicionConfig holds the figures of a Suspicion.
type SuspicionConfig struct {
	Share float64 // of the checks that passed and reported in a window
	Least int     // and at least this many
	// Windows in which checks are counted, each on its own. The short one is unbiased while
	// quick checks already failed and slow ones had no turn yet; the long one sees slow ones.
	Short, Long time.Duration
	// HoldFor is how long verdicts are suspended at most. Half of a region that is gone for
	// good must not be shown as well for ever.
	HoldFor time.Duration
}

// DefaultSuspicion returns the figures of the product.
func DefaultSuspicion() SuspicionConfig {
	return SuspicionConfig{Share: 0.5, Least: 5, Short: 5 * time.Second, Long: 30 * time.Second, HoldFor: 15 * time.Minute}
}

// Suspicion notices that most checks which passed began to fail at once. The common cause
// is then more likely this node or its network, so nobody's status is made worse by it.
// It ends when enough of them pass again, or after HoldFor.
type Suspicion struct {
	cfg   SuspicionConfig
	on    bool
	since time.Time
	after time.Time // falls before it were accepted as true
	count count     // of the window that decided, for people
}

// count is a tally of one window.
type count struct {
	fell, passing int
	window        time.Duration
}

// NewSuspicion returns a Suspicion of a node that trusts itself.
func NewSuspicion(cfg SuspicionConfig) *Suspicion { return &Suspicion{cfg: cfg} }

// On reports whether verdicts are suspended, and since when.
func (s *Suspicion) On() (bool, time.Time) { return s.on, s.since }

// Review counts all checks of the node and reports whether the suspicion began or ended.
func (s *Suspicion) Review(now time.Time, all iter.Seq[*State]) (changed bool) {
	short, long := count{window: s.cfg.Short}, count{window: s.cfg.Long}
	// While suspended: who fell since shortly before, against who was seen to pass since.
	held := count{}
	if s.on {
		held.window = now.Sub(s.since)
	}
	for st := range all {
		g := &st.sign
		if g.at.IsZero() {
			continue
		}
		if !g.ok && !g.fell.After(s.after) {
			continue // failed already, or never passed
		}
		if s.on {
			switch {
			case !g.ok && now.Sub(g.fell) <= held.window+s.cfg.Long:
				held.fell++
			case g.ok && now.Sub(g.at) <= held.window:
				held.passing++
			}
			continue
		}
		for _, c := range [...]*count{&short, &long} {
			switch {
			case !g.ok && now.Sub(g.fell) <= c.window:
				c.fell++
			case g.ok && now.Sub(g.at) <= c.window:
				c.passing++
			}
		}
	}
	was := s.on
	switch {
	case s.on && now.Sub(s.since) >= s.cfg.HoldFor:
		s.on, s.after = false, now
		s.count = held
	case s.on:
		s.on, s.count = s.most(held), held
	case s.most(short):
		s.on, s.since, s.count = true, now, short
	default:
		s.count = long
		if s.most(long) {
			s.on, s.since = true, now
		}
	}
	return s.on != was
}

func (s *Suspicion) most(c count) bool {
	return c.fell >= s.cfg.Least && float64(c.fell) >= s.cfg.Share*float64(c.fell+c.passing)
}

// Counts returns the tally of the last Review: checks that passed and fail now, and those
// that pass.
func (s *Suspicion) Counts() (fell, passing int) { return s.count.fell, s.count.passing }

// Why says in one sentence where it stands.
func (s *Suspicion) Why() string {
	c := s.count
	if s.on {
		return fmt.Sprintf("%d of %d checks that passed began to fail at once: the cause is more likely this node or its network, "+
			"so no status is made worse until fewer than %d, or than %.0f %%, fail, or for %s at most",
			c.fell, c.fell+c.passing, s.cfg.Least, 100*s.cfg.Share, s.cfg.HoldFor)
	}
	return fmt.Sprintf("%d checks began to fail in the last %s and %d passed; from %d and %.0f %% on this node would suspect itself",
		c.fell, c.window.Round(100*time.Millisecond), c.passing, s.cfg.Least, 100*s.cfg.Share)
}
