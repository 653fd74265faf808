package route

import (
	"cmp"
	"slices"

	"github.com/nearside/nearside/sdk/api"
)

// place is one region as a decision sees it.
type place struct {
	view  *RegionView
	home  bool
	order int // 0 = the caller's region, or what would be; then the others, nearest first

	refused, down, expired, thin bool
	drain                        float64 // percent
	age                          float64 // multiplier
	load                         float64 // percent; 0 = not known
	past                         *past   // nil = no load is known anywhere, nor was

	// kinds holds the class of each endpoint by itself; counts, of those in the caller's
	// zone and of the others.
	kinds  []class
	counts [2][refused]int
	mass

	// Of the spill, as parts of the traffic: what it can take by itself, and where there is
	// too little everywhere; by its age; what a ramp holds there; and what it gets.
	bears, limit, aged, held, share float64
	warmth                          float64 // what it can take to be kept warm, where its load allows less of a spill
	might                           float64 // what it can do, by the decision's measure
}

// mass is how much a region can do, by the weights of its instances: 1 is one instance of
// the default weight. What is well is usable; total also counts what is lost, but not what is
// wished away.
type mass struct {
	well, total         float64 // of the endpoints
	ableWell, ableTotal amount
	zoneWell, zoneAll   float64 // of the caller's zone
	moreWell, more      float64 // of the instances beyond the endpoints
}

// survey looks at every region once. The result is in order: the caller's own first.
func survey(v *View, p *Policy, c *Caller) []place {
	places := make([]place, len(v.Regions))
	n := 0
	for i := range v.Regions {
		n += len(v.Regions[i].Endpoints)
	}
	kinds := make([]class, n)
	for i := range v.Regions {
		r := &v.Regions[i]
		o := &r.Origin
		pl := &places[i]
		*pl = place{view: r, home: o.Region == c.Region, drain: clamp(o.Drained, 0, 100), age: 1}
		pl.refused = !p.allows(o.Region, c.Region)
		if !pl.home {
			pl.down, pl.expired, pl.age = o.Down, p.expired(o), ageShare(o)
		}
		pl.kinds, kinds = kinds[:len(r.Endpoints)], kinds[len(r.Endpoints):]
		pl.weigh(c)
		pl.thin = p.MinHealthy > 0 && pl.health()*100 < min(p.MinHealthy, 100)
	}
	slices.SortFunc(places, func(a, b place) int {
		if a.home != b.home {
			if a.home {
				return -1
			}
			return 1
		}
		x, y := &a.view.Origin, &b.view.Origin
		return cmp.Or(
			cmp.Compare(p.preference(x.Region), p.preference(y.Region)),
			cmp.Compare(distanceMS(x.RTTMS), distanceMS(y.RTTMS)),
			cmp.Compare(x.Region, y.Region))
	})
	far := 1
	for i := range places {
		if !places[i].home {
			places[i].order = far
			far++
		}
	}
	return places
}

// weigh classifies the region's endpoints and sums up what they can do.
func (p *place) weigh(c *Caller) {
	for i := range p.view.Endpoints {
		e := &p.view.Endpoints[i]
		k := classify(e, c)
		p.kinds[i] = k
		near := p.near(e, c)
		p.counts[near][k]++
		if k == draining || k == starting || k == unshared {
			continue
		}
		w := float64(max(e.Weight, 0)) / api.DefaultWeight
		p.total += w
		p.ableTotal.add(w, e.Capacity)
		if near == 1 {
			p.zoneAll += w
		}
		if k == usable {
			p.well += w
			p.ableWell.add(w, e.Capacity)
			if near == 1 {
				p.zoneWell += w
			}
		}
	}
	if p.view.Total > len(p.view.Endpoints) {
		p.beyond()
	}
}

// beyond counts the instances that are known by number only, each at the default weight. Of
// those that pass their checks as many are taken for usable as of the known ones. Nobody
// can call them yet, so they say how well the region is, and not how much of a spill it
// can take.
func (p *place) beyond() {
	tried := p.count(usable) + p.count(overdue) + p.count(broken)
	good := 1.0
	if tried > 0 {
		good = float64(p.count(usable)) / float64(tried)
	}
	v, passing, bad := p.view, tried+p.count(unshared), p.count(critical)+p.count(starting)
	more := max(0, v.Passing-passing)
	lost := max(0, v.Total-max(v.Draining, p.count(draining))-max(v.Passing, passing)-bad)
	p.moreWell, p.more = good*float64(more), float64(more+lost)
}

// health is how much of the region is well, 0 to 1.
func (p *place) health() float64 {
	if all := p.total + p.more; all > 0 {
		return min((p.well+p.moreWell)/all, 1)
	}
	return 0
}

// near is 1 for an endpoint of the caller's zone, else 0.
func (p *place) near(e *api.Endpoint, c *Caller) int {
	if p.home && c.Zone != "" && e.Zone == c.Zone {
		return 1
	}
	return 0
}

func (p *place) region() api.Region { return p.view.Origin.Region }

// count counts the region's endpoints of a class by themselves.
func (p *place) count(k class) int { return p.counts[0][k] + p.counts[1][k] }

func statusRank(s api.Status) int { return slices.Index(api.Statuses, s) }

// preference is the region's place in Order.
func (p *Policy) preference(r api.Region) int {
	if p.OrderBy == api.OrderRTT {
		return 0
	}
	if i := slices.Index(p.Order, r); i >= 0 {
		return i
	}
	return len(p.Order)
}

// distanceMS puts regions of unknown round-trip time last, and regions within a few
// milliseconds of each other on a par, so that noise does not move traffic.
func distanceMS(rtt int64) int64 {
	if rtt <= 0 {
		return 1 << 40
	}
	return rtt / 10
}
