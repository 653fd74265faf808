package route

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/nearside/nearside/sdk/api"
)

// home returns the caller's own region; an empty place when the view has none.
func (s *scene) home() *place {
	if len(s.places) > 0 && s.places[0].home {
		return &s.places[0]
	}
	return &place{home: true, view: &RegionView{Origin: api.Origin{Region: s.caller.Region}}}
}

// explain returns the reason, and the sentence for people.
func (s *scene) explain() (api.Reason, string) {
	reason, detail := s.why()
	if s.loaded && !s.groups[0].class.panicking() {
		detail += s.overload()
	}
	if s.ramping {
		detail += "; more comes back step by step"
	}
	return reason, detail
}

func (s *scene) why() (api.Reason, string) {
	if len(s.groups) == 0 {
		return s.nothing()
	}
	first := &s.groups[0]
	switch {
	case first.class == drained:
		return api.ReasonRegionDrained, fmt.Sprintf("every region that may serve and has usable instances of %s is drained; all the same %s", s.view.Key, s.served())
	case first.class.panicking():
		return api.ReasonPanic, fmt.Sprintf("no usable instance of %s is known anywhere; offering %s", s.view.Key, s.despite())
	}
	home := s.home()
	switch warm := s.warmed(); {
	case home.share <= 0:
		return s.away(home)
	case home.share >= 1:
		return s.near(home)
	case warm != nil:
		reason, detail := s.near(home)
		return reason, fmt.Sprintf("%s; %s keeps the way to %s warm", detail, percent(warm.share), warm.region())
	case home.drain > 0 && home.limit*home.drain/100 >= 1-home.limit:
		return api.ReasonRegionDrained, fmt.Sprintf("%s is drained %s: it keeps %s, %s", home.region(), percent(home.drain/100), percent(home.share), s.others())
	}
	if s.loaded && home == s.base {
		detail := fmt.Sprintf("%s keeps %s by its load; %s", home.region(), percent(home.share), s.others())
		if home.drain > 0 {
			detail += fmt.Sprintf("; %s is drained %s", home.region(), percent(home.drain/100))
		}
		return api.ReasonSpill, detail
	}
	verb := "carry"
	if s.ramping && home.limit > home.share+1e-6 {
		verb = "get"
	}
	detail := fmt.Sprintf("%s of %s in %s are usable and %s %s; %s", count(home.well+home.moreWell), count(home.total+home.more), home.region(), verb, percent(home.share), s.others())
	if home.drain > 0 {
		detail += fmt.Sprintf("; %s is drained %s", home.region(), percent(home.drain/100))
	}
	if s.short {
		detail += "; there is too little of it everywhere"
	}
	return api.ReasonSpill, detail
}

// despite names what is offered although nothing is usable.
func (s *scene) despite() string {
	var parts []string
	for i := range s.groups {
		if g := &s.groups[i]; g.tier.Weight > 0 {
			part := fmt.Sprintf("the %d that %s in %s", len(g.tier.Endpoints), panicWhy(g.class), g.tier.Region)
			if g.tier.Weight < 1 {
				part += " (" + percent(g.tier.Weight) + ")"
			}
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, ", ")
}

// overload tells of a load that calls for a spill.
func (s *scene) overload() string {
	start, _, stop := s.policy.band()
	b := s.base
	out := fmt.Sprintf("; the load of %s is not told any more", b.region())
	switch {
	case b.load > start:
		out = fmt.Sprintf("; %s is used to %s, and spills above %s", b.region(), percent(b.load/100), percent(start/100))
	case b.load >= stop:
		out = fmt.Sprintf("; with that %s is used to %s, and takes more back below %s", b.region(), percent(b.load/100), percent(stop/100))
	case b.load > 0:
		out = fmt.Sprintf("; %s is used to %s, and takes back what it spilled step by step", b.region(), percent(b.load/100))
	}
	switch {
	case s.scant && s.elsewhere():
		out += "; the others have not enough to spare"
	case s.scant:
		out += "; there is nowhere else to go"
	}
	return out
}

// nothing explains an empty answer.
func (s *scene) nothing() (api.Reason, string) {
	for i := range s.places {
		if len(s.places[i].kinds) > 0 {
			return api.ReasonNoInstances, fmt.Sprintf("the policy forbids every region that has %s", s.view.Key)
		}
	}
	if len(s.view.Regions) > 0 {
		return api.ReasonNoInstances, fmt.Sprintf("%s is known, but no instance of it is", s.view.Key)
	}
	return api.ReasonServiceNotFound, fmt.Sprintf("no region known has %s", s.view.Key)
}

// near explains an answer from the caller's region alone.
func (s *scene) near(home *place) (api.Reason, string) {
	first, zone := &s.groups[0], s.caller.Zone
	n := len(first.tier.Endpoints)
	switch {
	case first.distance == 0 && first.tier.Weight < home.share:
		return api.ReasonSameZone, fmt.Sprintf("%d usable in the caller's zone %s carry %s, the %d elsewhere in %s the rest",
			n, zone, percent(first.tier.Weight), len(s.groups[1].tier.Endpoints), home.region())
	case first.distance == 0:
		return api.ReasonSameZone, fmt.Sprintf("%d usable in the caller's zone %s", n, zone)
	case zone == "":
		return api.ReasonSameRegion, fmt.Sprintf("%d usable in the caller's region %s", n, home.region())
	}
	return api.ReasonSameRegion, fmt.Sprintf("none usable in zone %s, %d usable elsewhere in %s", zone, n, home.region())
}

// away explains an answer without the caller's region.
func (s *scene) away(home *place) (api.Reason, string) {
	served, r, all := s.served(), home.region(), len(home.kinds)
	switch {
	case all == 0:
		return api.ReasonLocalAbsent, fmt.Sprintf("%s has no instance of it; %s", r, served)
	case home.refused:
		return api.ReasonLocalAbsent, fmt.Sprintf("the policy forbids %s; %s", r, served)
	case home.count(draining) == all:
		return api.ReasonLocalDraining, fmt.Sprintf("all %d in %s are draining; %s", all, r, served)
	case home.count(usable) > 0 && home.drain > 0:
		return api.ReasonRegionDrained, fmt.Sprintf("%s is drained, with %d usable; %s", r, home.count(usable), served)
	case home.count(usable) > 0 && !home.thin:
		return api.ReasonSpill, fmt.Sprintf("%d usable again in %s; %s", home.count(usable), r, served)
	case home.count(usable) > 0:
		return api.ReasonLocalUnhealthy, fmt.Sprintf("only %d of %d in %s are usable, fewer than the policy's %s; %s", home.count(usable), all, r, percent(s.policy.MinHealthy/100), served)
	case home.count(broken) > 0:
		return api.ReasonLocalBroken, fmt.Sprintf("the caller's calls to %d of %d in %s keep failing; %s", home.count(broken), all, r, served)
	}
	return api.ReasonLocalUnhealthy, fmt.Sprintf("none of %d in %s is usable; %s", all, r, served)
}

// warmed returns the region that gets a share only to keep the way there warm.
func (s *scene) warmed() *place {
	home := s.home()
	if s.policy.KeepWarm <= 0 || home.drain > 0 || home.limit < 1-1e-9 {
		return nil
	}
	for i := range s.places[1:] {
		if pl := &s.places[1+i]; pl.share > 0 {
			return pl
		}
	}
	return nil
}

// served names the regions that serve.
func (s *scene) served() string {
	first := &s.groups[0]
	out := ""
	for i := range s.places {
		pl := &s.places[i]
		switch {
		case pl.share <= 0:
		case pl.share >= 1:
			out = fmt.Sprintf("served from %s, where %d are usable", pl.region(), pl.count(usable))
		case out == "":
			out = fmt.Sprintf("served from %s (%s)", pl.region(), percent(pl.share))
		default:
			out += fmt.Sprintf(", %s (%s)", pl.region(), percent(pl.share))
		}
	}
	if first.class == forgotten {
		out += " as far as was known when it was last heard of"
	}
	return out
}

// others names what goes elsewhere.
func (s *scene) others() string {
	var parts []string
	for i := range s.places {
		if pl := &s.places[i]; !pl.home && pl.share > 0 {
			parts = append(parts, fmt.Sprintf("%s to %s", percent(pl.share), pl.region()))
		}
	}
	return strings.Join(parts, ", ")
}

// percent writes a share with at most one decimal; what is not nothing is never "0 %".
func percent(share float64) string {
	x := math.Round(share*1000) / 10
	if share > 0 && x == 0 {
		return "under 0.1 %"
	}
	return strconv.FormatFloat(x, 'f', -1, 64) + " %"
}

// count writes a number of instances, which may be a sum of weights.
func count(x float64) string { return strconv.FormatFloat(math.Round(x*10)/10, 'f', -1, 64) }

func panicWhy(k class) string {
	if k >= down {
		return "are in a region that is down"
	}
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
