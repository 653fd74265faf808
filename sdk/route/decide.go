package route

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/nearside/nearside/sdk/api"
)

// class ranks endpoints by how good a reason there is to call them. A lower class is
// exhausted, near to far, before the next one is touched.
type class uint8

const (
	usable    class = iota // passing or warning
	overdue                // as usable, but its heartbeats stopped and the brake holds it
	forgotten              // as usable, but all that is known of its region has expired
	broken                 // the caller's own calls to it keep failing
	unshared               // weight 0: the operator wants no traffic there
	draining
	starting
	critical
	refused // the policy forbids its region: never offered
)

// panicking tells whether offering the class is a last resort.
func (c class) panicking() bool { return c != usable && c != forgotten }

// classify ranks e, of which the caller knows through r.
func classify(r *RegionView, e *api.Endpoint, c Caller) class {
	switch e.Status {
	case api.StatusPassing, api.StatusWarning:
	case api.StatusDraining:
		return draining
	case api.StatusStarting:
		return starting
	default:
		return critical
	}
	if e.Weight <= 0 {
		return unshared
	}
	if _, ok := c.Broken[EndpointRef{Region: e.Region, ID: e.ID}]; ok {
		return broken
	}
	if r.Origin.State == api.AgeExpired && r.Origin.Region != c.Region {
		return forgotten
	}
	if e.Overdue {
		return overdue
	}
	return usable
}

// group is a tier being filled: its sort key is (class, distance).
type group struct {
	class    class
	distance int // 0 zone, 1 region, 2… other regions in order
	tier     Tier
}

// Decide returns the tiers for a caller, nearest first. All traffic goes to the first
// tier. When t is not nil it is filled with the funnel and with what would change the
// answer.
//
// Order: endpoints that are usable come before any that are not; among equals the
// caller's zone, the rest of its region, then other regions by Policy.Order, round-trip
// time and name. A region of which all knowledge expired ranks after everything that may
// still be alive. Age alone below that moves nothing: losing a registry or a link is not
// losing the instances behind it.
func Decide(v View, p Policy, c Caller, t *api.Trace) Decision {
	far := farOrder(v, p, c)
	groups := make([]group, 0, 4)
	counts := census{}
	for ri := range v.Regions {
		r := &v.Regions[ri]
		home := r.Origin.Region == c.Region
		allowed := p.allows(r.Origin.Region, c.Region)
		for ei := range r.Endpoints {
			e := &r.Endpoints[ei]
			k := refused
			if allowed {
				k = classify(r, e, c)
			}
			counts.add(e, k, home)
			if k == refused {
				continue
			}
			d := 1
			switch {
			case !home:
				d = 2 + slices.Index(far, r.Origin.Region)
			case c.Zone != "" && e.Zone == c.Zone:
				d = 0
			}
			g := findGroup(&groups, k, d, r, c)
			g.tier.Endpoints = append(g.tier.Endpoints, e)
		}
	}
	slices.SortFunc(groups, func(a, b group) int {
		return cmp.Or(cmp.Compare(a.class, b.class), cmp.Compare(a.distance, b.distance))
	})
	d := Decision{Tiers: make([]Tier, len(groups))}
	for i := range groups {
		g := &groups[i]
		slices.SortFunc(g.tier.Endpoints, func(a, b *api.Endpoint) int {
			return cmp.Or(statusRank(a.Status)-statusRank(b.Status), cmp.Compare(a.ID, b.ID))
		})
		g.tier.Tier.Tier = i
		if g.class == usable {
			g.tier.Usable = len(g.tier.Endpoints)
		}
		if i == 0 {
			g.tier.Weight = 1
		}
		d.Tiers[i] = g.tier
	}
	if len(groups) > 0 {
		d.Panic = groups[0].class.panicking()
	}
	d.Reason, d.Detail = explain(v, c, groups, counts)
	if t != nil {
		*t = trace(v, p, c, groups, counts)
	}
	return d
}

// findGroup returns the group with the key, adding it when it is new. There are few, so
// a scan beats a map.
func findGroup(groups *[]group, k class, distance int, r *RegionView, c Caller) *group {
	for i := range *groups {
		if g := &(*groups)[i]; g.class == k && g.distance == distance {
			return g
		}
	}
	g := group{class: k, distance: distance}
	g.tier.Region = r.Origin.Region
	g.tier.Total = r.Total
	switch {
	case k.panicking():
		g.tier.Kind = api.TierOverflow
	case distance == 0:
		g.tier.Kind = api.TierZone
	case distance == 1:
		g.tier.Kind = api.TierRegion
	default:
		g.tier.Kind = api.TierFar
	}
	if distance == 0 {
		g.tier.Zone = c.Zone
	}
	*groups = append(*groups, g)
	return &(*groups)[len(*groups)-1]
}

// allows reports whether region r may serve a caller of region home.
func (p Policy) allows(r, home api.Region) bool {
	if p.LocalOnly && r != home {
		return false
	}
	return len(p.Allowed) == 0 || slices.Contains(p.Allowed, r)
}

// farOrder returns the other regions, nearest first.
func farOrder(v View, p Policy, c Caller) []api.Region {
	far := make([]*RegionView, 0, len(v.Regions))
	for i := range v.Regions {
		if v.Regions[i].Origin.Region != c.Region {
			far = append(far, &v.Regions[i])
		}
	}
	slices.SortFunc(far, func(a, b *RegionView) int {
		return cmp.Or(
			cmp.Compare(preference(p, a.Origin.Region), preference(p, b.Origin.Region)),
			cmp.Compare(distanceMS(a.Origin.RTTMS), distanceMS(b.Origin.RTTMS)),
			cmp.Compare(a.Origin.Region, b.Origin.Region))
	})
	names := make([]api.Region, len(far))
	for i, r := range far {
		names[i] = r.Origin.Region
	}
	return names
}

func preference(p Policy, r api.Region) int {
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

func statusRank(s api.Status) int { return slices.Index(api.Statuses, s) }

// census counts endpoints for reasons and traces.
type census struct {
	all, home [refused + 1]int
	total     int
	homeTotal int
}

func (s *census) add(_ *api.Endpoint, k class, home bool) {
	s.all[k]++
	s.total++
	if home {
		s.home[k]++
		s.homeTotal++
	}
}

func explain(v View, c Caller, groups []group, n census) (api.Reason, string) {
	if len(groups) == 0 {
		switch {
		case n.total > 0:
			return api.ReasonNoInstances, fmt.Sprintf("the policy forbids every region that has %s", v.Key)
		case len(v.Regions) > 0:
			return api.ReasonNoInstances, fmt.Sprintf("%s is known, but no instance of it is", v.Key)
		}
		return api.ReasonServiceNotFound, fmt.Sprintf("no region known has %s", v.Key)
	}
	first := groups[0]
	count := len(first.tier.Endpoints)
	where := first.tier.Region
	if first.class.panicking() {
		return api.ReasonPanic, fmt.Sprintf("no usable instance of %s is known anywhere; offering the %d that %s in %s",
			v.Key, count, panicWhy(first.class), where)
	}
	switch first.distance {
	case 0:
		return api.ReasonSameZone, fmt.Sprintf("%d usable in the caller's zone %s", count, c.Zone)
	case 1:
		if c.Zone == "" {
			return api.ReasonSameRegion, fmt.Sprintf("%d usable in the caller's region %s", count, c.Region)
		}
		return api.ReasonSameRegion, fmt.Sprintf("none usable in zone %s, %d usable elsewhere in %s", c.Zone, count, c.Region)
	}
	served := fmt.Sprintf("served from %s, where %d are usable", where, count)
	if first.class == forgotten {
		served += " as far as was known when it was last heard of"
	}
	switch {
	case n.homeTotal == 0:
		return api.ReasonLocalAbsent, fmt.Sprintf("%s has no instance of it; %s", c.Region, served)
	case n.home[refused] == n.homeTotal:
		return api.ReasonLocalAbsent, fmt.Sprintf("the policy forbids %s; %s", c.Region, served)
	case n.home[draining] == n.homeTotal:
		return api.ReasonLocalDraining, fmt.Sprintf("all %d in %s are draining; %s", n.homeTotal, c.Region, served)
	case n.home[broken] > 0:
		return api.ReasonLocalBroken, fmt.Sprintf("the caller's calls to %d of %d in %s keep failing; %s", n.home[broken], n.homeTotal, c.Region, served)
	}
	return api.ReasonLocalUnhealthy, fmt.Sprintf("none of %d in %s is usable; %s", n.homeTotal, c.Region, served)
}

func panicWhy(k class) string {
	switch k {
	case overdue:
		return "stopped sending heartbeats"
	case broken:
		return "keep failing for this caller"
	case unshared:
		return "have weight 0"
	case draining:
		return "are draining"
	case starting:
		return "are starting"
	}
	return "are critical"
}
