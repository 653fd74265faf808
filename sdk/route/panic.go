package route

import (
	"slices"

	"github.com/nearside/nearside/sdk/api"
)

// When nothing usable is known, everything is doubtful, and a choice by how doubtful would put
// the traffic of many on the one that is the least so. So all share it, in all regions that can be
// reached, by what they could do and by the age of what is known of them. Left out, as long as
// there is anything else, are those of which it is sure that they do not work: instances that
// have not started yet, and regions that are down.

// rank tells which classes share in a panic: those of the same rank.
func (c class) rank() int {
	rank := 0
	if c >= down {
		rank = 5
	}
	switch c % down {
	case usable, thin: // of a region that is down
	case drained:
		rank++
	case forgotten:
		rank += 2
	case starting:
		rank += 4
	default:
		rank += 3
	}
	return rank
}

// startingLast puts the starting ones after the critical ones: they are no part of a panic that
// has others.
func startingLast(groups []group) {
	order := func(c class) class {
		switch c % down {
		case starting:
			return c + 1
		case critical:
			return c - 1
		}
		return c
	}
	slices.SortStableFunc(groups, func(a, b group) int { return int(order(a.class)) - int(order(b.class)) })
}

// spread shares the traffic out over the groups of the first one's rank.
func (s *scene) spread() {
	startingLast(s.groups)
	rank := s.groups[0].class.rank()
	var members []*place // near to far
	var amounts []amount // parallel to members
	for i := range s.places {
		pl, n, sum := &s.places[i], 0, amount{}
		for j := range s.groups {
			if g := &s.groups[j]; g.place == pl && g.class.rank() == rank {
				sum.join(g.amount())
				n++
			}
		}
		if n > 0 {
			members, amounts = append(members, pl), append(amounts, sum)
		}
	}
	f := flow{policy: s.policy, places: members, keep: func(pl *place) float64 { return 1 - pl.drain/100 }}
	if !slices.ContainsFunc(members, func(pl *place) bool { return pl.drain < 100 }) {
		f.keep = func(*place) float64 { return 1 }
	}
	f.evenly(amounts)
	f.walk()
	settle(members)
	for at, pl := range members {
		s.divide(pl, rank, amounts[at].weight())
	}
}

// evenly sets what each of the places is to take by amounts and age; the first is the measure.
func (f *flow) evenly(amounts []amount) {
	m, all := measureOf(amounts[0], amounts[0].weight(), false), 0.0
	for i, pl := range f.places {
		pl.might = pl.age * m.of(amounts[i], i == 0)
		all += pl.might
	}
	for _, pl := range f.places {
		pl.limit = portion(pl.might, all, len(f.places))
	}
}

// divide gives each of a place's groups of a rank its part of the place's share, by weight.
func (s *scene) divide(pl *place, rank int, all float64) {
	sum, given := 0.0, 0.0
	var last *group
	for i := range s.groups {
		g := &s.groups[i]
		if g.place != pl || g.class.rank() != rank {
			continue
		}
		sum, last = sum+g.amount().weight(), g
		if all > 0 { // rounded sums, so that the parts add up
			part := round(pl.share * sum / all)
			g.tier.Weight, given = round(part-given), part
		}
	}
	last.tier.Weight = round(last.tier.Weight + pl.share - given)
}

// amount is what the group could do. Weight 0 is a wish, which yields to need.
func (g *group) amount() (a amount) {
	for _, e := range g.tier.Endpoints {
		w := float64(max(e.Weight, 0)) / api.DefaultWeight
		if g.class%down == unshared {
			w = 1
		}
		a.add(w, e.Capacity)
	}
	return a
}
