package route

import (
	"math"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// Spill by utilisation. The difficulty is that a load is measured late, and after a part of the
// traffic was spilled: who takes it for that of now corrects the same thing again and again, and
// swings. So a decision remembers the largest and the smallest share that the region had of
// late. The demand, as the load with all of the traffic would be, is at least load / largest
// and at most load / smallest. More is spilled only where the smallest possible demand calls for
// it, and less only where the largest allows it. While a measurement is no older than
// the shares remembered, no move goes too far, and none is ever taken back.
const (
	// spillRate is the most of the traffic, per second, by which a load may raise what is
	// spilled. A region that is lost is another matter: that goes at once.
	spillRate = 0.2
	// leastKept is left to a region whatever its load, so that its load tells when it is over.
	leastKept = 0.05
	// classError is how far below its class a load may be, in percent: a step of five, and two
	// of slack.
	classError = 7.0
	// A load may be as old as four whole spans: heartbeat, sum, class and watch take up to 5 s each.
	pastSpans  = 5
	spanLength = 5 * time.Second
	// loadHeld is how long a spill stays as it is when its cause is not told any more, as while
	// the owner of liveness changes. Of a region that is not heard of itself it stays for as
	// long as that (P10).
	loadHeld = 30 * time.Second
	// maxLoad bounds a load, in percent.
	maxLoad = 1000.0
)

// past is what a decision knows of one region's shares and spill before it.
type past struct {
	region api.Region
	share  float64         // of the traffic, since the last decision
	spans  [pastSpans]span // of the shares before; the first is not over yet
	age    time.Duration   // of the first span
	able   float64         // what was usable at the last decision
	// Where the traffic belongs: the share at which the load would be right, as far as is known,
	// and how far the spill was led there. 1 = nothing is spilled.
	goal, kept float64
	unheard    time.Duration // since the load was known
}

// span is what a share was within, for some time.
type span struct{ least, most float64 }

func (s span) with(x float64) span { return span{min(s.least, x), max(s.most, x)} }

// bounds returns between what the share was when the load was measured.
func (p *past) bounds() (least, most float64) {
	s := span{p.share, p.share}
	for _, x := range p.spans {
		s = span{min(s.least, x.least), max(s.most, x.most)}
	}
	return max(s.least, leastKept), max(s.most, leastKept)
}

// least is that of bounds, and may be nothing.
func (p *past) least() float64 {
	least := p.share
	for _, x := range p.spans {
		least = min(least, x.least)
	}
	return least
}

// pass lets time pass with the share as it is.
func (p *past) pass(d time.Duration) {
	d = min(max(d, 0), pastSpans*spanLength)
	p.spans[0] = p.spans[0].with(p.share)
	for p.age += d; p.age >= spanLength; p.age -= spanLength {
		copy(p.spans[1:], p.spans[:pastSpans-1])
		p.spans[0] = span{p.share, p.share}
	}
}

// resize takes into account that the region can do r times what it could: a share of before
// was, for what it can do now, one of r times as much.
func (p *past) resize(r float64) {
	for i := range p.spans {
		p.spans[i] = span{clamp(p.spans[i].least*r, 0, 10), clamp(p.spans[i].most*r, 0, 10)}
	}
}

func (m *Memory) past(r api.Region) *past {
	for i := range m.loads {
		if m.loads[i].region == r {
			return &m.loads[i]
		}
	}
	return nil
}

// tells reports whether the load that a region tells is one of now: the measurements of one that
// has not been heard of do not follow what is done about them.
func tells(o *api.Origin) bool { return ageShare(o) >= 0.8 }

// heed reads the loads, and what is remembered of them. Where none is known nor was, it returns
// nil.
func (s *scene) heed() (loads []past) {
	memory, matters := &s.caller.Memory, false
	for i := range s.places {
		pl := &s.places[i]
		if load := pl.view.Load; load > 0 && !pl.refused && tells(&pl.view.Origin) {
			pl.load, matters = min(load, maxLoad), true
		}
	}
	for i := range memory.loads {
		p := &memory.loads[i]
		matters = matters || p.unheard <= loadHeld || p.kept < 1
	}
	if !matters {
		return nil
	}
	loads = make([]past, len(s.places)) // of all: who gets a share now may tell a load later
	for i := range s.places {
		pl, p := &s.places[i], &loads[i]
		pl.past = p
		if old := memory.past(pl.region()); old != nil {
			*p = *old
			p.pass(s.caller.Elapsed)
		} else {
			*p = begun(pl, s.base, memory)
		}
		switch {
		case pl.load > 0:
			p.unheard = 0
		case p.unheard > loadHeld:
		case tells(&pl.view.Origin):
			p.unheard += max(s.caller.Elapsed, 0)
		}
		if p.unheard > loadHeld {
			p.goal = 1
		}
		if pl != s.base {
			p.goal, p.kept = 1, 1
		}
	}
	return loads
}

// begun is the past of a region of which nothing is remembered.
func begun(pl, base *place, m *Memory) past {
	p := past{region: pl.region(), goal: 1, kept: 1, able: pl.well + pl.moreWell, unheard: loadHeld + 1}
	switch {
	case len(m.Shares) > 0:
		p.share = m.of(p.region)
	case pl == base && len(m.loads) == 0:
		p.share = 1
	}
	for i := range p.spans {
		p.spans[i] = span{p.share, p.share}
	}
	return p
}

// remember notes in each past what the decision is, for the next one, and reports whether a load
// calls for something that is not reached.
func (s *scene) remember(m *Memory) (moving bool) {
	start, _, stop := s.policy.band()
	for i := range s.places {
		pl := &s.places[i]
		p := pl.past
		p.share, p.able = m.of(p.region), pl.well+pl.moreWell
		if pl != s.base {
			moving = moving || p.share > 0 && pl.load > start
			continue
		}
		if s.loaded && pl.drain < 100 { // as far as it went; less where the others had no room
			p.kept = clamp(p.share/(1-pl.drain/100), 0, 1)
		}
		moving = moving || p.goal < 1 && pl.load < stop || pl.load > start || math.Abs(p.kept-p.goal) > 1e-6
	}
	return moving
}

// keeps is how much of the traffic its load lets the base keep; 1 when nothing is known of it.
func (f *flow) keeps(c *Caller, step float64) float64 {
	p := f.base.past
	if p == nil {
		return 1
	}
	if f.base.load > 0 {
		f.aim(p)
	}
	switch {
	case c.Memory.IsZero():
		p.kept = p.goal
	case p.goal < p.kept:
		p.kept = max(p.goal, p.kept-spillRate*max(c.Elapsed.Seconds(), 0))
	default:
		p.kept = min(p.goal, p.kept+step)
	}
	return p.kept
}

// aim sets the share at which the load of the base would be right.
func (f *flow) aim(p *past) {
	start, aim, stop := f.policy.band()
	load, able := f.base.load, f.base.well+f.base.moreWell
	if p.able > 0 && able > 0 && able != p.able {
		r := able / p.able
		if expected := load / r; r < 1 && expected > start {
			// What is lost is not in the load yet. Until it is, the count of what is left
			// is as good a measure.
			p.goal = min(p.goal, p.share*max(aim/expected, min(1, f.over*r)))
		}
		p.resize(r)
	}
	switch least, most := p.bounds(); {
	case load > start:
		p.goal = min(p.goal, aim*most/load)
	case load < min(stop, aim-classError):
		p.goal = max(p.goal, min(1, aim*least/load))
	}
	p.goal = clamp(p.goal, leastKept, 1)
}

// room is how much of the traffic the load of another region lets it take, left being what is
// still to be taken, or with the base. Below the aim it is what it had and has to spare, and no
// more than would make it as busy as the base. While it would spill itself it becomes less.
func (f *flow) room(pl *place, left float64) float64 {
	p := pl.past
	if p == nil || pl.load <= 0 || f.demand <= 0 {
		return 1
	}
	start, aim, _ := f.policy.band()
	if pl.load > start {
		_, most := p.bounds()
		return min(p.share, most*aim/pl.load)
	}
	had, can := p.least(), pl.might
	room := had + max(0, aim-pl.load)/aim*can/f.demand
	if b := f.base; b.past != nil && b.load > 0 && b.might > 0 && f.based {
		_, most := b.past.bounds()
		demand, times := b.load/most, b.might/max(can, 1e-9)
		room = min(room, (left-pl.load/demand+had*times)/(1+times))
	}
	return max(p.share, room, 0)
}
