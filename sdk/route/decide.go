package route

import (
	"cmp"
	"slices"

	"github.com/nearside/nearside/sdk/api"
)

// group is a tier being filled: its sort key is (class, distance).
type group struct {
	class    class
	distance int // 0 zone, 1 region, 2… other regions in order
	place    *place
	tier     Tier
}

// Decide returns the tiers for a caller, nearest first. When t is not nil it is filled with
// the funnel and with what would change the answer.
//
// Order: endpoints that are usable come before any that are not; among equals the
// caller's zone, the rest of its region, then other regions by Policy.Order, round-trip
// time and name. Traffic is shared out over the usable ones of all regions, see the package
// comment; where none is, over all that remain, see panic.go. A region of which all knowledge
// is too old ranks after everything that may still be alive.
func Decide(v View, p Policy, c Caller, t *api.Trace) Decision {
	places := survey(&v, &p, &c)
	groups := gather(places, &c)
	s := scene{view: &v, policy: &p, caller: &c, places: places, groups: groups, base: belongs(places)}
	loads := s.heed()
	s.share()
	d := Decision{Tiers: make([]Tier, len(groups))}
	for i := range groups {
		groups[i].tier.Tier.Tier = i
		d.Tiers[i] = groups[i].tier
	}
	if len(groups) > 0 {
		d.Panic = groups[0].class.panicking()
		d.Short = s.short || s.scant
		d.Degraded = slices.ContainsFunc(groups, func(g group) bool { return g.tier.Weight > 0 && g.place.expired })
	}
	d.Reason, d.Detail = s.explain()
	d.Memory, d.Ramping = s.memory(), s.ramping
	if loads != nil {
		d.Ramping = s.remember(&d.Memory) || d.Ramping
		d.Memory.loads = loads
	}
	if t != nil {
		*t = s.trace()
	}
	return d
}

// belongs returns the region where the traffic belongs: the first that has the service and
// may serve it. It is the measure of what the others can take.
func belongs(places []place) *place {
	for i := range places {
		if pl := &places[i]; !pl.refused && !pl.down && !pl.expired && pl.total+pl.more > 0 {
			return pl
		}
	}
	return nil
}

// scene is one decision on its way.
type scene struct {
	view   *View
	policy *Policy
	caller *Caller
	places []place
	groups []group
	base   *place // where the traffic belongs; nil = nowhere
	outcome
}

// memory is what the next decision is to know of this one.
func (s *scene) memory() Memory {
	var m Memory
	for i := range s.groups {
		if g := &s.groups[i]; g.tier.Weight > 0 {
			at := slices.IndexFunc(m.Shares, func(x RegionShare) bool { return x.Region == g.tier.Region })
			if at < 0 {
				m.Shares = append(m.Shares, RegionShare{g.tier.Region, g.tier.Weight})
				continue
			}
			m.Shares[at].Share += g.tier.Weight
		}
	}
	return m
}

// gather sorts the endpoints into groups, best first.
func gather(places []place, c *Caller) []group {
	n, most := 0, 0
	for i := range places {
		if pl := &places[i]; !pl.refused {
			n += len(pl.kinds)
			for _, counts := range pl.counts {
				for _, count := range counts {
					if count > 0 {
						most++
					}
				}
			}
		}
	}
	groups := make([]group, 0, most)
	all := make([]*api.Endpoint, n)
	for i := range places {
		pl := &places[i]
		if pl.refused {
			continue
		}
		var at [2][refused]*group
		for near, counts := range pl.counts {
			for k, count := range counts {
				if count > 0 {
					groups = append(groups, newGroup(pl, class(k), near == 1, c, all[:0:count]))
					at[near][k] = &groups[len(groups)-1]
					all = all[count:]
				}
			}
		}
		for ei, k := range pl.kinds {
			e := &pl.view.Endpoints[ei]
			g := at[pl.near(e, c)][k]
			g.tier.Endpoints = append(g.tier.Endpoints, e)
		}
	}
	// Two classes by themselves may be one within their region (see place.within).
	slices.SortStableFunc(groups, func(a, b group) int {
		return cmp.Or(cmp.Compare(a.class, b.class), cmp.Compare(a.distance, b.distance))
	})
	groups = merge(groups)
	for i := range groups {
		// Views are in order mostly: then it is a look, and no sorting.
		if list := groups[i].tier.Endpoints; !slices.IsSortedFunc(list, better) {
			slices.SortFunc(list, better)
		}
	}
	return groups
}

// better orders the endpoints of a tier: passing before warning, then by id.
func better(a, b *api.Endpoint) int {
	if a.Status != b.Status {
		return statusRank(a.Status) - statusRank(b.Status)
	}
	return cmp.Compare(a.ID, b.ID)
}

// merge joins neighbours of the same class and distance.
func merge(groups []group) []group {
	out := groups[:0]
	for _, g := range groups {
		if n := len(out); n > 0 && out[n-1].class == g.class && out[n-1].distance == g.distance {
			to := &out[n-1].tier
			to.Endpoints = append(to.Endpoints, g.tier.Endpoints...)
			continue
		}
		out = append(out, g)
	}
	return out
}

// newGroup returns the group of a region's endpoints of one class by themselves.
func newGroup(pl *place, k class, zone bool, c *Caller, endpoints []*api.Endpoint) group {
	g := group{class: pl.within(k), distance: 1 + pl.order, place: pl}
	g.tier = Tier{Tier: api.Tier{Region: pl.region(), Total: pl.view.Total}, Endpoints: endpoints}
	switch {
	case !pl.home:
		g.tier.Kind = api.TierFar
	case zone:
		g.distance, g.tier.Kind, g.tier.Zone = 0, api.TierZone, c.Zone
	default:
		g.tier.Kind = api.TierRegion
	}
	if g.class.lastResort() {
		g.tier.Kind = api.TierOverflow
	}
	if g.class == usable || g.class == thin || g.class == drained {
		g.tier.Usable = cap(endpoints)
	}
	return g
}

// share gives each group its weight.
func (s *scene) share() {
	if len(s.groups) == 0 {
		return
	}
	first := s.groups[0].class
	if first.panicking() {
		s.spread()
		return
	}
	n := 0
	for n < len(s.groups) && s.groups[n].class == first {
		n++
	}
	members := make([]*place, 0, n)
	for i := range s.groups[:n] {
		if pl := s.groups[i].place; len(members) == 0 || members[len(members)-1] != pl {
			members = append(members, pl)
		}
	}
	s.outcome = s.policy.spill(members, s.base, s.caller, first == drained)
	for i := range s.groups[:n] {
		g := &s.groups[i]
		g.tier.Weight = g.place.share
		if g.place.home {
			zone := g.place.inZone(s.policy.overProvisioning())
			switch {
			case g.distance == 0 && n > 1 && s.groups[1].distance == 1:
				g.tier.Weight = round(g.place.share * zone)
			case g.distance == 1 && i > 0:
				g.tier.Weight = round(g.place.share - s.groups[0].tier.Weight)
			}
		}
	}
}
