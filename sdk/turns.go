package nearside

import (
	"context"
	"log/slog"
	"slices"

	"github.com/nearside/nearside/sdk/api"
)

// turn is a change of where the calls of a service go. It is found under the locks of the one who decides, and told
// by the keeper, which holds none: what a logger does is not ours.
type turn struct {
	was, is *answer
}

// turnLocked notes that calls go another way by is than by was. Shares that move among the same regions for the same
// reason are none, and neither is the first answer. Of several before the keeper comes the first was counts.
func (s *service) turnLocked(was, is *answer) {
	if was == nil || was.sameWay(is) {
		return
	}
	if s.turned == nil {
		s.turned = &turn{was: was}
	}
	s.turned.is = is
	select {
	case s.c.notes <- struct{}{}:
	default:
	}
}

// sameWay tells whether calls go to the same regions for the same reason.
func (a *answer) sameWay(b *answer) bool {
	return a.decision.Reason == b.decision.Reason && a.decision.Panic == b.decision.Panic && slices.Equal(a.regions(), b.regions())
}

// regions are those that take traffic, near to far.
func (a *answer) regions() (out []api.Region) {
	for i := range a.decision.Tiers {
		if t := &a.decision.Tiers[i]; t.Weight > 0 && !slices.Contains(out, t.Region) {
			out = append(out, t.Region)
		}
	}
	return out
}

// tellTurn tells what turnLocked noted. The keeper calls it.
func (s *service) tellTurn(ctx context.Context) {
	s.mu.Lock()
	t := s.turned
	s.turned = nil
	s.mu.Unlock()
	if t == nil || t.was.sameWay(t.is) {
		return
	}
	d := &t.is.decision
	s.c.tel.turned(ctx, s.label, d.Reason)
	level := slog.LevelInfo
	if d.Panic || len(d.Tiers) == 0 {
		level = slog.LevelWarn
	}
	s.c.log().LogAttrs(ctx, level, "calls go another way",
		slog.String("service", s.label), slog.Any("from", t.was.regions()), slog.Any("to", t.is.regions()),
		slog.String("reason", string(d.Reason)), slog.String("detail", d.Detail), slog.String("decision", t.is.id))
}
