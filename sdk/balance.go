package nearside

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/route"
)

// maxTurns bounds the turns of one schedule.
const maxTurns = 4096

// schedule lays out one round of the round robin: every instance of a tier that takes
// traffic gets turns by its weight, spread evenly over the round. With equal weights that
// is simply one turn each.
func schedule(tiers []tier, d route.Decision) []*slot {
	type share struct {
		slot   *slot
		weight float64
	}
	var shares []share
	least := 0.0
	for i := range d.Tiers {
		if d.Tiers[i].Weight <= 0 {
			continue
		}
		sum := 0
		for _, sl := range tiers[i].slots {
			sum += max(sl.endpoint.Weight, 0)
		}
		for _, sl := range tiers[i].slots {
			w := d.Tiers[i].Weight / float64(len(tiers[i].slots)) // all of weight 0: equal
			if sum > 0 {
				w = d.Tiers[i].Weight * float64(max(sl.endpoint.Weight, 0)) / float64(sum)
			}
			if w <= 0 {
				continue // weight 0 beside others: no share
			}
			shares = append(shares, share{sl, w})
			if least == 0 || w < least {
				least = w
			}
		}
	}
	if len(shares) == 0 {
		return nil
	}
	total := 0.0
	for _, s := range shares {
		total += s.weight
	}
	// The smallest weight gets one turn if that fits; four make the steps fine enough
	// where weights are no multiples of each other.
	unit := least
	if !multiples(shares, func(s share) float64 { return s.weight / least }) {
		unit = least / 4
	}
	unit = max(unit, total/maxTurns)
	type turn struct {
		at   float64
		slot *slot
	}
	var turns []turn
	for i, s := range shares {
		n := max(1, int(s.weight/unit+0.5))
		for k := range n {
			// The offset keeps instances of equal weight in their order.
			at := (float64(k) + (float64(i)+0.5)/float64(len(shares))) / float64(n)
			turns = append(turns, turn{at, s.slot})
		}
	}
	slices.SortStableFunc(turns, func(a, b turn) int { return cmp.Compare(a.at, b.at) })
	out := make([]*slot, len(turns))
	for i, t := range turns {
		out[i] = t.slot
	}
	return out
}

func multiples[T any](list []T, ratio func(T) float64) bool {
	for _, v := range list {
		r := ratio(v)
		if n := float64(int(r + 0.5)); r-n > 0.01 || n-r > 0.01 {
			return false
		}
	}
	return true
}

// next returns the slot whose turn it is.
func (s *service) next(a *answer) *slot {
	n := uint64(len(a.schedule))
	switch {
	case n == 0:
		return nil
	case n == 1:
		return a.schedule[0]
	case s.c.cfg.Balancer == LeastRequest:
		x, y := a.schedule[rand.Uint64N(n)], a.schedule[rand.Uint64N(n)]
		if y.in.inflight.Load() < x.in.inflight.Load() {
			return y
		}
		return x
	}
	return a.schedule[s.turn.Add(1)%n]
}

// perTier is how many failures of one call a tier gets before the next tier is tried.
const perTier = 2

// call is what one call has tried so far.
type call struct {
	// safe tells that it may be repeated after it was sent.
	safe  bool
	tried []tried
	// trialed tells that it was the trial of a half-open breaker; once is enough.
	trialed bool
	// last tells that this is the last attempt: it leaves the region if it can.
	last bool
}

type tried struct {
	ref  route.EndpointRef
	kind api.TierKind
	// silent tells that no answer came, and since when the instance was not heard, by the
	// client's clock.
	silent bool
	since  time.Duration
}

func (c *call) has(in *instance) bool {
	return slices.ContainsFunc(c.tried, func(t tried) bool { return t.ref == in.ref })
}

func (c *call) failures(t *tier) int {
	n := 0
	for _, x := range c.tried {
		if x.ref.Region == t.region && x.kind == t.kind {
			n++
		}
	}
	return n
}

func (c *call) hasRegion(r api.Region) bool {
	return slices.ContainsFunc(c.tried, func(t tried) bool { return t.ref.Region == r })
}

// quiet reports that the call met silence in the instance's region, and the instance has not
// been heard since: it may be as silent.
func (c *call) quiet(in *instance) bool {
	return slices.ContainsFunc(c.tried, func(t tried) bool {
		return t.silent && t.ref.Region == in.ref.Region && in.heard.Load() <= int64(t.since)
	})
}

// choose takes the endpoint for the next attempt, nil when all were tried. The first goes
// to whoever's turn it is, the next ones to the neighbours, after two to the next tier; one
// that met silence, to neighbours that were heard since, or to the next region; the last
// attempt leaves the regions that failed. Breakers are honoured while anything
// else is left.
func (s *service) choose(a *answer, c *call) (*slot, *lease) {
	if len(c.tried) == 0 {
		if sl := s.next(a); sl != nil {
			if l := sl.in.admit(c); l != nil {
				return sl, l
			}
		}
	}
	start := int(s.turn.Load() % (1 << 30))
	normal := func(t *tier) bool { return a.decision.Panic || t.kind != api.TierOverflow }
	sweeps := [...]func(t *tier) bool{
		func(t *tier) bool { return c.last && normal(t) && !c.hasRegion(t.region) },
		func(t *tier) bool { return normal(t) && c.failures(t) < perTier },
		normal,
	}
	for n, may := range sweeps {
		for i := range a.tiers {
			t := &a.tiers[i]
			if !may(t) {
				continue
			}
			for k := range t.slots {
				sl := t.slots[(start+k)%len(t.slots)]
				if c.has(sl.in) || (n < len(sweeps)-1 && c.quiet(sl.in)) {
					continue
				}
				if l := sl.in.admit(c); l != nil {
					return sl, l
				}
			}
		}
	}
	for i := range a.tiers { // whatever is left, breakers or not
		for _, sl := range a.tiers[i].slots {
			if !c.has(sl.in) {
				return sl, sl.in.force()
			}
		}
	}
	return nil, nil
}
