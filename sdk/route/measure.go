package route

// amount is how much some instances can do, by what they tell of it.
type amount struct {
	told   float64 // the weights of those that tell their capacity, 1 being the default
	units  float64 // what these tell, each times its weight, in their own unit
	untold float64 // the weights of the others
}

func (a *amount) add(weight float64, capacity int) {
	if capacity > 0 {
		a.told += weight
		a.units += weight * float64(capacity)
		return
	}
	a.untold += weight
}

func (a *amount) join(b amount) {
	a.told, a.units, a.untold = a.told+b.told, a.units+b.units, a.untold+b.untold
}

func (a amount) weight() float64 { return a.told + a.untold }

// measure is what regions are compared by: the region where the traffic belongs, as it is when
// nothing is lost there. Where all of its instances tell a capacity everything is in that unit, and
// who does not tell counts as one of them; else everything is in instances.
//
// What does not tell is never filled in from its neighbours, be it by their mean or otherwise:
// with an instance lost it would change for all others, and losing a small one would raise what
// the region seems to be able to do. And the unit does not depend on who is measured. So each number here only
// falls with an instance lost in the region that is measured, and only rises, for other regions, with
// one lost in the region that is the measure. That is what makes Decide monotone.
type measure struct {
	whole float64 // what the region can do when whole; 0 = there is none
	told  bool    // all of it tells, and whole is in that unit
	each  float64 // units per instance of the region, as far as it tells; 0 = it tells none
}

// measureBy returns the measure by a region, nil being none.
func measureBy(base *place) measure {
	if base == nil {
		return measure{}
	}
	return measureOf(base.ableTotal, base.total+base.more, base.more > 0)
}

// measureOf returns the measure by what a region has; when more of it is known by number only,
// nothing is made of what a few tell.
func measureOf(a amount, weight float64, more bool) measure {
	switch {
	case more || a.units <= 0 || weight <= 0:
		return measure{whole: weight}
	case a.untold <= 0:
		return measure{whole: a.units, told: true, each: a.units / weight}
	}
	return measure{whole: weight, each: a.units / weight}
}

// of returns how much of whole an amount can do; own when it is of the measuring region itself.
// Where that tells of a part only, a capacity lets another region take less than its
// instances' number, and never more; of its own, what speaks for more counts.
func (m measure) of(a amount, own bool) float64 {
	switch {
	case m.told:
		return a.units + a.untold*m.each
	case m.each <= 0:
		return a.weight()
	case own:
		return max(a.weight(), a.units/m.each)
	}
	return a.untold + min(a.told, a.units/m.each)
}
