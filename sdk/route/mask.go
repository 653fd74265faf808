package route

import (
	"slices"

	"github.com/nearside/nearside/sdk/api"
)

// Mask takes regions, zones and links away from a view: what is left is what callers would
// have after such a loss. The zero Mask takes nothing.
//
// A lost region, and one behind a lost link, has no instance any more: it counts as a region
// that is down does, for which all others share the traffic among themselves. A lost zone takes
// its instances' capacity with it: they count as lost, as critical ones do, until the registry
// lets them go. That is the moment that a region must live through.
type Mask struct {
	Losses []api.Loss
}

// Region reports whether callers of from have nothing of region any more: it is lost, or the link
// between the two is.
func (m Mask) Region(region, from api.Region) bool {
	return slices.ContainsFunc(m.Losses, func(l api.Loss) bool {
		switch {
		case len(l.Link) == 2:
			return l.Link[0] == region && l.Link[1] == from || l.Link[1] == region && l.Link[0] == from
		case l.Zone != "":
			return false
		}
		return l.Region == region
	})
}

// Zone reports whether the zone of a region is lost by itself.
func (m Mask) Zone(region api.Region, zone api.Zone) bool {
	return zone != "" && slices.ContainsFunc(m.Losses, func(l api.Loss) bool { return l.Zone == zone && l.Region == region })
}

// zones reports whether a zone of the region is lost.
func (m Mask) zones(region api.Region) bool {
	return slices.ContainsFunc(m.Losses, func(l api.Loss) bool { return l.Zone != "" && l.Region == region })
}

// Apply returns what is left of v for callers of from. v and its endpoints stay as they are; the
// result shares what was not touched. touched is false when that is all of it. facts, which may
// be nil, are parallel to v.Regions.
func (m Mask) Apply(v View, from api.Region, facts []Facts) (left View, touched bool) {
	left = v
	for i := range v.Regions {
		r := &v.Regions[i]
		name := r.Origin.Region
		gone, zones := m.Region(name, from), m.zones(name)
		if !gone && !zones || len(r.Endpoints) == 0 && r.Total == 0 {
			continue
		}
		var rv RegionView
		if gone {
			rv = RegionView{Origin: r.Origin}
		} else {
			var f Facts
			if i < len(facts) {
				f = facts[i]
			}
			var some bool
			if rv, some = m.thinned(r, f); !some {
				continue
			}
		}
		if !touched {
			left.Regions, touched = slices.Clone(v.Regions), true
		}
		left.Regions[i] = rv
	}
	return left, touched
}

// usables counts the endpoints that are passing or warning.
func usables(list []api.Endpoint) (n int) {
	for i := range list {
		if list[i].Status.Usable() {
			n++
		}
	}
	return n
}

// thinned returns the region without its lost zones; some is false when it has nothing there.
func (m Mask) thinned(r *RegionView, f Facts) (out RegionView, some bool) {
	out = *r
	out.Endpoints = make([]api.Endpoint, 0, len(r.Endpoints))
	passing := 0 // of the lost ones, as far as they are known by name
	for _, e := range r.Endpoints {
		if !m.Zone(r.Origin.Region, e.Zone) {
			out.Endpoints = append(out.Endpoints, e)
			continue
		}
		some = true
		if e.Status.Usable() {
			passing++
		}
		switch e.Status {
		case api.StatusDraining, api.StatusStarting: // were no part of what the region can do
			out.Total--
			if e.Status == api.StatusDraining {
				out.Draining--
			}
		default:
			e.Status, e.Overdue = api.StatusCritical, false
			out.Endpoints = append(out.Endpoints, e)
		}
	}
	told := 0
	for zone, n := range f.Zones {
		if m.Zone(r.Origin.Region, zone) {
			told += n.Passing
			some = some || n.Total > 0
		}
	}
	out.Total, out.Draining, out.Passing = max(out.Total, 0), max(out.Draining, 0), max(out.Passing-max(passing, told), 0)
	// What is left has to do the work of all.
	if was := max(r.Passing, usables(r.Endpoints)); r.Load > 0 && was > 0 {
		out.Load = r.Load * float64(was) / float64(max(was-max(passing, told), 1))
	}
	return out, some
}
