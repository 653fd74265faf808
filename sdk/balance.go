package nearside

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/route"
)

// serve prepares the tiers that take traffic. before is the answer before, or nil.
func (s *service) serve(a, before *answer) {
	for i := range a.tiers {
		if t := &a.tiers[i]; a.decision.Tiers[i].Weight > 0 {
			if t.share(); len(t.picks) > 0 {
				a.serving = append(a.serving, t)
			}
		}
	}
	sum := 0.0
	for _, t := range a.serving {
		sum += a.decision.Tiers[t.at].Weight
		a.bounds = append(a.bounds, bound(sum))
		turn := &s.turn
		if len(a.serving) > 1 { // each needs turns of its own, or it would skip instances
			turn = new(atomic.Uint64)
			turn.Store(rand.Uint64N(uint64(len(t.picks))))
		}
		s.prepare(t, &a.decision.Tiers[t.at].Tier, turn, before)
	}
}

// share lists who shares the tier's calls: all by weight, those of weight 0 only when all are.
func (t *tier) share() {
	for _, sl := range t.slots {
		if w := sl.endpoint.Weight; w > 0 {
			t.candidate(sl, float64(w)*sl.warm)
		}
	}
	if len(t.picks) == 0 {
		for _, sl := range t.slots {
			t.candidate(sl, sl.warm)
		}
	}
}

func (t *tier) candidate(sl *slot, weight float64) {
	sl.place, sl.of = len(t.picks), t
	t.picks = append(t.picks, sl)
	t.list = append(t.list, Candidate{Endpoint: &sl.endpoint, Weight: weight, in: sl.in})
}

// prepare gives the tier its picker.
func (s *service) prepare(t *tier, told *api.Tier, turn *atomic.Uint64, before *answer) {
	t.lots = schedule(t.list)
	c := Candidates{Service: s.key, Region: t.region, Kind: t.kind, Zone: told.Zone, List: t.list, lots: t.lots}
	b, ok := s.cfg.Balancer.(ours)
	if !ok {
		t.guard = &guarded{s: s, balancer: s.cfg.Balancer, tier: c, fallback: newTurns(c, turn)}
		t.picker = t.guard
		return
	}
	t.picker = b.prepare(c, turn, before.picker(t))
}

// picker returns that of the same tier, or nil.
func (a *answer) picker(t *tier) Picker {
	if a != nil {
		for _, o := range a.serving {
			if o.region == t.region && o.kind == t.kind {
				return o.picker
			}
		}
	}
	return nil
}

// bound is a share of all turns of the tiers.
func bound(share float64) uint64 {
	if share >= 1 {
		return math.MaxUint64
	}
	return uint64(share * (1 << 63) * 2)
}

// golden is 2^64 over the golden ratio: its multiples, wrapped, fall evenly over all turns
// however many there are, so that each tier gets its share of any few calls in a row, and
// never its whole share at once.
const golden = 0x9E3779B97F4A7C15

// tier returns the tier whose turn it is; nil when none takes traffic.
func (s *service) tier(a *answer, c *call) *tier {
	switch len(a.serving) {
	case 0:
		return nil
	case 1:
		return a.serving[0]
	}
	at, ok := uint64(0), false
	if s.keyed {
		at, ok = stickyTier(c)
	}
	if !ok {
		at = s.turn.Add(1) * golden
	}
	for i, b := range a.bounds[:len(a.bounds)-1] {
		if at < b {
			return a.serving[i]
		}
	}
	return a.serving[len(a.serving)-1]
}

// next returns the slot that the balancer chooses for a first attempt.
func (s *service) next(a *answer, c *call) *slot {
	t := s.tier(a, c)
	if t == nil {
		return nil
	}
	return t.picks[t.picker.Pick(PickInfo{Context: c.ctx})]
}

// along returns the first slot that fits and admits the call, in the order in which the call's
// key meets them; nil where there is no such order.
func (t *tier) along(c *call, fits func(*slot) bool) (sl *slot, l *lease) {
	p, ok := t.picker.(*consistent) // by its type: behind an interface the call would be allocated
	if !ok {
		return nil, nil
	}
	p.walk(PickInfo{Context: c.ctx}, func(place int) bool {
		if fits(t.picks[place]) {
			if l = t.picks[place].in.admit(c); l != nil {
				sl = t.picks[place]
			}
		}
		return sl != nil
	})
	return sl, l
}

// perTier is how many failures of one call a tier gets before the next tier is tried.
const perTier = 2

// call is what one call has tried so far.
type call struct {
	ctx context.Context // the caller's
	// safe tells that it may be repeated after it was sent.
	safe  bool
	tried []tried
	// trialed tells that it was the trial of a half-open breaker; once is enough.
	trialed bool
	// last tells that this is the last attempt: it leaves the region if it can.
	last bool
	// answered tells that there is an answer for the caller, if a poor one: no instance that
	// asked for a pause is disturbed for a better one.
	answered bool
}

type tried struct {
	ref  route.EndpointRef
	kind api.TierKind
	// silent tells that nothing came, no answer nor a connection, and since when the instance was
	// not heard, by the client's clock; poor that it answered that it, or what is before it, cannot serve.
	silent, poor bool
	since        time.Duration
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

// lively reports whether the instance answered somebody after the call began to fail in its region, and
// none there answered the call that it cannot serve: then it is as good as any, however many failed.
func (c *call) lively(in *instance) bool {
	lively := false
	for _, t := range c.tried {
		if t.ref.Region == in.ref.Region {
			if t.poor {
				return false
			}
			lively = lively || in.heard.Load() > int64(t.since)
		}
	}
	return lively
}

// sweep is one look at the tiers, near to far, for somebody to take the next attempt.
type sweep struct {
	tiers scope
	few   bool // not those with perTier failures of the call, but for the lively
	quiet bool // also where the call met silence
	force bool // whatever breakers say
}

// scope is which tiers a sweep looks at.
type scope uint8

const (
	everything scope = iota
	normal           // all but the last resorts
	working          // those besides whose instances work: drained ones
	unfailed         // normal ones of regions that did not fail the call; for its last attempt only
)

// sweeps are made in this order, until one finds somebody.
var sweeps = [...]sweep{
	{tiers: unfailed},
	{tiers: normal, few: true},
	{tiers: working},
	{tiers: normal, few: true, quiet: true}, // one that hangs says little about its neighbour, two do
	{tiers: everything, force: true},
	{tiers: normal, quiet: true},
	{tiers: everything, quiet: true, force: true},
}

// in reports whether the tier is of the scope. A function behind a pointer would cost every Pick an
// allocation: of the call.
func (a *answer) in(t *tier, i int, sc scope, c *call) bool {
	plain := a.decision.Panic || t.kind != api.TierOverflow || t.picker != nil
	switch sc {
	case normal:
		return plain
	case working:
		return plain || a.decision.Tiers[i].Usable > 0
	case unfailed:
		return c.last && plain && !c.hasRegion(t.region)
	}
	return true
}

// choose takes the endpoint for the next attempt, nil when all were tried. The first goes
// to whom the balancer chooses, the next ones to the neighbours, after two to the next tier, unless
// neighbours answer others meanwhile; one that met silence, to neighbours that were heard
// since, or to the next region, a drained one if need be; the last attempt leaves the regions
// that failed. Breakers are honoured while anything else is left that is not silent.
func (s *service) choose(a *answer, c *call) (*slot, *lease) {
	var turn *slot
	if len(c.tried) == 0 {
		if turn = s.next(a, c); turn != nil {
			if l := turn.in.admit(c); l != nil {
				return turn, l
			}
		}
	}
	// From anywhere on: else the neighbour of one that is passed over would do the work of two.
	start := int(rand.Uint32() >> 2)
	for _, sw := range sweeps {
		if sw.force && turn != nil {
			return turn, turn.in.force()
		}
		for i := range a.tiers {
			t := &a.tiers[i]
			if !a.in(t, i, sw.tiers, c) {
				continue
			}
			enough := sw.few && c.failures(t) >= perTier
			fits := func(sl *slot) bool {
				return !c.has(sl.in) && (sw.quiet || !c.quiet(sl.in)) && (!enough || c.lively(sl.in))
			}
			if sw.force {
				for k := range t.slots {
					if sl := t.slots[(start+k)%len(t.slots)]; fits(sl) && !(c.answered && sl.in.pausing()) {
						return sl, sl.in.force()
					}
				}
				continue
			}
			if sl, l := t.along(c, fits); sl != nil {
				return sl, l
			}
			for k := range t.slots {
				if sl := t.slots[(start+k)%len(t.slots)]; fits(sl) {
					if l := sl.in.admit(c); l != nil {
						return sl, l
					}
				}
			}
		}
	}
	return nil, nil
}
