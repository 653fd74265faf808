package route

import (
	"slices"
	"time"
)

// spill shares the traffic out over the places, which are in order and have all something
// to offer. ignoreDrains is for places that are all drained wholly.
func (p *Policy) spill(places []*place, base *place, c *Caller, ignoreDrains bool) outcome {
	f := flow{policy: p, places: places, base: base, over: p.overProvisioning(), keep: func(pl *place) float64 { return 1 - pl.drain/100 }}
	if ignoreDrains {
		f.keep = func(*place) float64 { return 1 }
	}
	f.limits(c)
	f.walk()
	f.age()
	p.warm(places)
	f.ramping = f.hold(&c.Memory, p.step(c.Elapsed))
	settle(places)
	return f.outcome
}

// outcome is what is to be told of a spill.
type outcome struct {
	short   bool // all together cannot carry the traffic
	ramping bool // traffic is held back on its way to nearer regions
	loaded  bool // the load of the base calls for a spill
	scant   bool // others have too little to spare for that
}

// flow is traffic on its way.
type flow struct {
	policy  *Policy
	places  []*place
	base    *place // where it belongs; may be none of places, or nil
	over    float64
	keep    func(*place) float64 // what a drain leaves of what a place could take
	measure measure              // of what each can do
	demand  float64              // what base carries when whole, by measure; 0 = not known
	based   bool                 // base is one of places
	outcome
}

// limits sets what each can take: what it carries by its load or health, and of a spill no more
// than its capacity and load allow. What the others have no room for the base keeps, however
// loaded. Limits that do not add up to the whole even so are raised by what each has: the
// traffic must go somewhere.
func (f *flow) limits(c *Caller) {
	f.measure = measureBy(f.base)
	f.demand = f.measure.whole
	if f.base != nil {
		f.base.might = f.measure.of(f.base.ableWell, true)
	}
	f.based = slices.Contains(f.places, f.base)
	sum, all, left, back := 0.0, 0.0, 1.0, 0.0
	for _, pl := range f.places {
		pl.limit, pl.might = min(1, f.over*pl.health()), f.measure.of(pl.ableWell, pl == f.base)
		switch {
		case pl == f.base:
			if pl.load > 0 {
				pl.limit = 1 // the load knows better
			}
			keeps := f.keeps(c, f.policy.step(c.Elapsed))
			back = max(0, pl.limit-keeps)
			pl.limit -= back
		case f.demand > 0:
			pl.limit = min(pl.limit, pl.might/f.demand)
			if start, _, _ := f.policy.band(); pl.load > 0 && pl.load <= start {
				pl.warmth = pl.limit // its way is kept warm, be it busier than the base
			}
			pl.limit = min(pl.limit, f.room(pl, left))
			left -= f.keep(pl) * pl.limit
		}
		pl.bears = pl.limit
		sum += pl.limit
		all += pl.might
	}
	if f.loaded = back > 1e-9; f.loaded && sum < 1-1e-9 {
		back = min(back, 1-sum)
		f.scant, f.base.limit, sum = true, f.base.limit+back, sum+back
		f.base.bears = f.base.limit
	}
	if f.short = sum < 1-1e-9; f.short {
		for _, pl := range f.places {
			pl.limit += (1 - sum) * portion(pl.might, all, len(f.places))
		}
	}
}

// walk leads the traffic along the places. Each takes what it can; a drained one keeps only
// its part of that, and the rest walks on. What is left at the end was drained: it goes to
// those that are not, by what they have; where all are, to all by what they keep.
func (f *flow) walk() {
	left := 1.0
	for _, pl := range f.places {
		pl.share = f.keep(pl) * min(left, pl.limit)
		left -= pl.share
	}
	if left < 1e-9 {
		return
	}
	for _, by := range [...]func(*place) float64{
		func(pl *place) float64 {
			if pl.drain > 0 {
				return 0
			}
			return pl.might
		},
		func(pl *place) float64 { return f.keep(pl) * pl.might },
		func(*place) float64 { return 1 },
	} {
		all := 0.0
		for _, pl := range f.places {
			all += by(pl)
		}
		if all > 0 {
			for _, pl := range f.places {
				pl.share += left * by(pl) / all
			}
			return
		}
	}
}

// age divides what goes away from the base anew, so that regions of which the knowledge is
// older take less while others have room. How much goes away is not a matter of age, nor
// what goes to the only region that can take it.
func (f *flow) age() {
	if f.demand <= 0 {
		return
	}
	left := 0.0
	for _, pl := range f.places {
		if pl != f.base {
			left += pl.share
		}
	}
	// Walk again with lower limits. What is over goes back to whom it was taken from.
	lack := 0.0
	for _, pl := range f.places {
		if pl == f.base {
			continue
		}
		take := f.keep(pl) * min(left, pl.limit, pl.age*pl.might/f.demand)
		pl.aged, left = take, left-take
		lack += max(0, pl.share-take)
	}
	for _, pl := range f.places {
		if pl != f.base {
			back := 0.0
			if lack > 0 {
				back = left * max(0, pl.share-pl.aged) / lack
			}
			pl.share = pl.aged + back
		}
	}
}

// step is the part of the traffic that may come back in so much time.
func (p *Policy) step(elapsed time.Duration) float64 {
	ramp := p.FailbackRamp
	if ramp == 0 {
		ramp = DefaultFailbackRamp
	}
	if ramp < 0 {
		return 1
	}
	return clamp(elapsed.Seconds()/ramp.Seconds(), 0, 1)
}

// hold lets traffic come back to nearer places by no more than step since the last decision.
// Away from them it moves at once; and what a farther one had and can not bear any more, or
// is to be drained of, is not held there.
func (f *flow) hold(m *Memory, step float64) (ramping bool) {
	if len(m.Shares) == 0 || step >= 1 {
		return false
	}
	farther := 0.0 // held beyond the place that is looked at
	for _, pl := range f.places {
		pl.held = f.keep(pl) * min(m.of(pl.region()), pl.bears)
		farther += pl.held
	}
	want, got := 0.0, 0.0 // up to and with the place
	for _, pl := range f.places {
		farther -= pl.held
		want += pl.share
		most := max(got, min(want, 1-farther+step))
		ramping = ramping || most < want-1e-6
		pl.share, got = most-got, most
	}
	return ramping
}

// warm sees to it that at least a small share goes past the first place while nothing is
// wrong with the next.
func (p *Policy) warm(places []*place) {
	need := clamp(p.KeepWarm, 0, MaxKeepWarm)/100 - (1 - places[0].share)
	for _, next := range places[1:] {
		if take := min(need, max(next.limit, next.warmth)) * (1 - next.drain/100); take > 0 {
			places[0].share -= take
			next.share += take
			return
		}
	}
}

// settle rounds the shares to millionths that sum to 1, so that they are the same on every
// machine and readable.
func settle(places []*place) {
	most, rest := places[0], 1.0
	for _, pl := range places {
		pl.share = round(pl.share)
		if pl.share > most.share {
			most = pl
		}
	}
	for _, pl := range places {
		if pl != most {
			rest -= pl.share
		}
	}
	most.share = round(rest)
}

func round(x float64) float64 { return float64(int64(clamp(x, 0, 1)*1e6+0.5)) / 1e6 }

func portion(x, of float64, n int) float64 {
	if of > 0 {
		return x / of
	}
	return 1 / float64(n)
}

// inZone is the part of the home region's share that goes to the caller's zone: what the
// zone carries by its health, and at least its part of what is usable.
func (p *place) inZone(over float64) float64 {
	switch {
	case p.zoneWell <= 0:
		return 0
	case p.zoneWell >= p.well-1e-9:
		return 1
	}
	return round(max(min(1, over*p.zoneWell/p.zoneAll), p.zoneWell/p.well))
}
