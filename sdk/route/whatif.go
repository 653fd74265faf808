package route

import (
	"fmt"
	"math"
	"slices"

	"github.com/nearside/nearside/sdk/api"
)

// Facts is what a what-if can use of a region beyond what a decision looks at. The zero value
// knows nothing.
type Facts struct {
	// Load is how much the service's usable instances are used, in percent; 0 = not known.
	Load float64
	// Zones counts the service's instances by zone, those that are not among the endpoints too.
	Zones map[api.Zone]api.ZoneCount
}

// Question asks what a loss would do to the callers of one service.
type Question struct {
	View   View
	Policy Policy
	Caller Caller // Memory is left aside: it is asked where it ends, not how it gets there
	Mask   Mask
	Facts  []Facts // parallel to View.Regions; may be nil
	// RTT holds the round-trip times from the caller's region to others, in milliseconds, as far
	// as they are known.
	RTT map[api.Region]int64
}

// Impact is what a loss does to the callers of one service.
type Impact struct {
	// Row is the account of it, but for From.
	Row api.WhatIfService
	// Touched tells that something of the service is lost for these callers.
	Touched bool
	// Demand is the traffic, in the work of instances: what the region where it belongs has when it is
	// whole. 0 = not known.
	Demand float64
}

// WhatIf decides before and after a loss, with [Decide], and compares. It decides without memory: while a spill
// by load or a way back is going on, "before" is not quite what callers do at the moment. It is a pure function, as
// Decide is. Its laws, each a property test: losing nothing changes nothing; a service is down
// after a loss exactly when Decide says so of a view without what is lost; losing more never
// brings one back; no region that the policy forbids gets anything.
//
// A service is down when nothing of what is offered is known to be usable: nothing is offered at all,
// only what panic offers, or only what was known of a region too long ago. A drained region serves.
//
// A region is over when it gets more than it carries. With the loads of both known (of the region, and of
// the one where the traffic belongs) that is more than 100 % of what its instances can take. Else it
// is what a decision goes by: its healthy share times the over-provisioning where the traffic belongs, and elsewhere
// its own instances' number or capacity, measured by what the traffic was before the loss.
func WhatIf(q Question) Impact {
	q.Caller.Memory, q.Caller.Elapsed = Memory{}, 0
	left, touched := q.Mask.Apply(q.View, q.Caller.Region, q.Facts)
	before := Decide(q.View, q.Policy, q.Caller, nil)
	after := before
	if touched {
		after = Decide(left, q.Policy, q.Caller, nil)
	}
	im := Impact{Touched: touched, Row: api.WhatIfService{
		Service: q.View.Key.Service, Namespace: q.View.Key.Namespace,
		Before: q.answer(&before), After: q.answer(&after),
	}}
	w := weighing{q: &q, was: survey(&q.View, &q.Policy, &q.Caller), is: survey(&left, &q.Policy, &q.Caller)}
	w.measure(&before)
	if w.base != nil {
		im.Demand = w.base.total + w.base.more
	}
	im.Row.Regions = w.shares(&before, &after)
	im.judge(&before, &after, left.empty())
	return im
}

// Down tells whether nothing that is known to be usable takes the traffic: callers get nothing, or
// what is left for want of better.
func (d *Decision) Down() bool {
	for i := range d.Tiers {
		if d.Tiers[i].Weight > 0 && d.Tiers[i].Usable > 0 {
			return false
		}
	}
	return true
}

// share is what a region gets by a decision.
func (d *Decision) share(r api.Region) float64 {
	sum := 0.0
	for i := range d.Tiers {
		if d.Tiers[i].Region == r {
			sum += d.Tiers[i].Weight
		}
	}
	return sum
}

// answer is a decision in brief.
func (q *Question) answer(d *Decision) api.WhatIfAnswer {
	a := api.WhatIfAnswer{Reason: d.Reason, Detail: d.Detail, Panic: d.Panic}
	sum, all := 0.0, 0.0
	for i := range d.Tiers {
		t := &d.Tiers[i]
		if t.Weight <= 0 {
			continue
		}
		if t.Region != q.Caller.Region {
			rtt, ok := q.RTT[t.Region]
			if !ok || rtt <= 0 {
				return a
			}
			sum += t.Weight * float64(rtt)
		}
		all += t.Weight
	}
	if all > 0 {
		mean := hundredths(sum / all)
		a.RTTMS = &mean
	}
	return a
}

// empty tells whether no endpoint of any region is known.
func (v *View) empty() bool {
	return !slices.ContainsFunc(v.Regions, func(r RegionView) bool { return len(r.Endpoints) > 0 })
}

// judge says what the effect is, from the decisions and the shares.
func (im *Impact) judge(before, after *Decision, empty bool) {
	r := &im.Row
	over := ""
	for i := range r.Regions {
		s := &r.Regions[i]
		r.Moved += max(0, s.Before-s.After)
		if s.Over && over == "" {
			over = overWhy(s)
		}
	}
	r.Moved = round(r.Moved)
	if x, y := r.Before.RTTMS, r.After.RTTMS; x != nil && y != nil {
		added := hundredths(*y - *x)
		r.AddedRTTMS = &added
	}
	switch {
	case before.Down() && after.Down():
		r.Effect, r.Detail = api.EffectWasDown, "it is down as it is: "+before.Detail
	case after.Down() && empty:
		r.Effect, r.Detail = api.EffectDown, "no instance of it would be left"
	case after.Down():
		r.Effect, r.Detail = api.EffectDown, "nothing that is known to be usable is left: "+after.Detail
	case over != "":
		r.Effect, r.Detail = api.EffectOver, over
	case r.Moved > 0:
		r.Effect, r.Detail = api.EffectMoved, fmt.Sprintf("%s of the calls move; %s", percent(r.Moved), after.Detail)
	default:
		r.Effect, r.Detail = api.EffectNone, "every call goes where it goes today"
	}
}

func overWhy(s *api.WhatIfShare) string {
	if s.LoadAfter > 0 {
		return fmt.Sprintf("%s would be used at %s, after %s", s.Region, percent(s.LoadAfter/100), percent(s.LoadBefore/100))
	}
	return fmt.Sprintf("%s would get %s of the calls: the work of %s %s, and can carry that of %s",
		s.Region, percent(s.After), count(s.Gets), unitWord(s.Unit), count(s.Carries))
}

func unitWord(unit string) string {
	if unit == api.UnitCapacity {
		return "units of capacity"
	}
	return unit
}

// weighing compares what regions get with what they carry.
type weighing struct {
	q       *Question
	was, is []place // before and after the loss
	base    *place  // of was: where the traffic belongs; nil = nowhere
	by      measure
	demand  float64 // what base carries when whole, by measure; 0 = not known
	work    float64 // what base's instances do now for all of this traffic, by their load; 0 = not known
}

// measure finds out how much traffic there is.
func (w *weighing) measure(before *Decision) {
	if w.base = belongs(w.was); w.base == nil {
		return
	}
	w.by = measureBy(w.base)
	w.demand = w.by.whole
	if share := before.share(w.base.region()); share > 0 && !before.Panic {
		w.work = w.load(w.base.region()) / 100 * w.able(w.base) / share
	}
}

// able is how much the usable instances of a region can do, those too that are known by number only.
func (w *weighing) able(pl *place) float64 {
	able := w.by.of(pl.ableWell, pl.region() == w.base.region())
	if !w.by.told {
		able += pl.moreWell
	}
	return able
}

// load is how much a region's instances are used, in percent; 0 = not known.
func (w *weighing) load(r api.Region) float64 {
	for i := range w.q.View.Regions {
		if w.q.View.Regions[i].Origin.Region == r && i < len(w.q.Facts) {
			return clamp(w.q.Facts[i].Load, 0, maxLoad)
		}
	}
	return 0
}

// carries is how much of this traffic a region can take.
func (w *weighing) carries(pl *place) float64 {
	byHealth := min(1, w.q.Policy.overProvisioning()*pl.health()) * w.demand
	if pl.region() == w.base.region() {
		return byHealth
	}
	return min(byHealth, w.able(pl))
}

// shares lists the regions that get calls before or after, near to far.
func (w *weighing) shares(before, after *Decision) []api.WhatIfShare {
	out := []api.WhatIfShare{}
	for i := range w.was {
		name := w.was[i].region()
		s := api.WhatIfShare{Region: name, Before: round(before.share(name)), After: round(after.share(name))}
		if s.Before <= 0 && s.After <= 0 {
			continue
		}
		if w.demand > 0 {
			w.weigh(&s, &w.was[i], after.Down())
		}
		out = append(out, s)
	}
	return out
}

// weigh fills in what the region gets and carries.
func (w *weighing) weigh(s *api.WhatIfShare, was *place, down bool) {
	var is *place
	for i := range w.is {
		if w.is[i].region() == s.Region {
			is = &w.is[i]
		}
	}
	s.Unit = api.UnitInstances
	if w.by.told {
		s.Unit = api.UnitCapacity
	}
	gets, carries := s.After*w.demand, w.carries(is)
	s.Gets, s.Carries = hundredths(gets), hundredths(carries)
	if down || s.After <= 0 {
		return
	}
	if able := w.able(is); w.work > 0 && able > 0 && w.load(s.Region) > 0 {
		s.LoadBefore = hundredths(w.load(s.Region))
		work := s.LoadBefore/100*w.able(was) + (s.After-s.Before)*w.work
		s.LoadAfter = hundredths(max(0, 100*work/able))
		s.Over = s.LoadAfter > 100 && s.LoadAfter > s.LoadBefore+0.01
		return
	}
	const slack = 1e-5 // shares are rounded to millionths
	was0 := s.Before*w.demand > w.carries(was)+slack*w.demand
	s.Over = gets > carries+slack*w.demand && (!was0 || s.After > s.Before+slack || carries < w.carries(was)-slack*w.demand)
}

func hundredths(x float64) float64 { return math.Round(x*100) / 100 }
