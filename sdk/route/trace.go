package route

import (
	"fmt"
	"strings"

	"github.com/nearside/nearside/sdk/api"
)

// funnel names the steps in the order in which endpoints leave, the classes that do, and the
// sentence for each. A step that would take the best there is is left out.
var funnel = []struct {
	step string
	why  map[class]string
	rare bool // left out when it does nothing
}{
	{"policy", map[class]string{refused: "its region is not allowed"}, false},
	{"down", nil, true}, // every class of a region that is down
	{"status", map[class]string{critical: "critical", starting: "still starting", draining: "draining"}, false},
	{"weight", map[class]string{unshared: "weight 0"}, false},
	{"breaker", map[class]string{broken: "the caller's breaker is open"}, false},
	{"heartbeat", map[class]string{overdue: "heartbeats are overdue"}, false},
	{"age", map[class]string{forgotten: "nothing was heard of its region for long"}, false},
	{"drain", map[class]string{drained: "its region is drained"}, true},
	{"min healthy", map[class]string{thin: "too few in its region are usable"}, true},
	{"load", nil, true}, // nobody leaves: by its load a region takes less
}

const whyDown = "its region is down"

// trace is the record of the decision.
func (s *scene) trace() api.Trace {
	in := 0
	for i := range s.places {
		in += len(s.places[i].kinds)
	}
	t := api.Trace{Steps: []api.TraceStep{{Step: "known", In: in, Out: in}}}
	best := refused
	if len(s.groups) > 0 {
		best = s.groups[0].class
	}
	for _, f := range funnel {
		why := f.why
		if !best.panicking() {
			if _, is := why[best]; is {
				why = nil // it is the best there is
			}
		}
		step := api.TraceStep{Step: f.step, In: in, Note: s.note(f.step)}
		var gone int
		step.Dropped, gone = s.drops(func(k class) (string, bool) {
			if k >= down {
				return whyDown, f.step == "down"
			}
			w, ok := why[k]
			return w, ok
		})
		step.Out = in - gone
		in = step.Out
		if f.rare && gone == 0 && step.Note == "" {
			continue
		}
		t.Steps = append(t.Steps, step)
	}
	last := api.TraceStep{Step: "nearest tier", In: in}
	var parts []string
	for i := range s.groups {
		if g := &s.groups[i]; g.tier.Weight > 0 {
			if !best.panicking() { // nobody is left who could be offered otherwise
				last.Out += len(g.tier.Endpoints)
			}
			parts = append(parts, percent(g.tier.Weight)+" to "+g.describe())
		}
	}
	if len(parts) > 1 {
		last.Step, last.Note = "shares", strings.Join(parts, ", ")
	}
	t.Steps = append(t.Steps, last)
	t.WouldChange = s.wouldChange()
	return t
}

// drops lists and counts the endpoints that leave.
func (s *scene) drops(leaves func(class) (string, bool)) (out []api.TraceDrop, n int) {
	for i := range s.places {
		pl := &s.places[i]
		for ei, k := range pl.kinds {
			w, ok := leaves(pl.within(k))
			if !ok {
				continue
			}
			if n++; n <= api.MaxTraceDrops {
				e := &pl.view.Endpoints[ei]
				out = append(out, api.TraceDrop{ID: e.ID, Region: e.Region, Why: w})
			}
		}
	}
	return out, n
}

// note says what a step went by.
func (s *scene) note(step string) string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	p := s.policy
	switch step {
	case "policy":
		switch {
		case p.none:
			add("the region's policy and the caller's have no allowed region in common")
		case len(p.Allowed) > 0:
			add("allowed: %s", join(p.Allowed))
		}
		if p.LocalOnly {
			add("local only")
		}
		if len(p.Order) > 0 && p.OrderBy != api.OrderRTT {
			add("order: %s", join(p.Order))
		}
		if p.OverProvisioning > 0 {
			add("over-provisioning %v", p.overProvisioning())
		}
	case "drain":
		for i := range s.places {
			if pl := &s.places[i]; pl.drain > 0 {
				add("%s %s", pl.region(), percent(pl.drain/100))
			}
		}
	case "age":
		for i := range s.places {
			if pl := &s.places[i]; !pl.home && !pl.expired && pl.age < 1 && len(pl.kinds) > 0 {
				add("%s counts for %s of a spill", pl.region(), percent(pl.age))
			}
		}
	case "min healthy":
		if p.MinHealthy > 0 {
			add("at least %s", percent(p.MinHealthy/100))
		}
	case "load":
		for i := range s.places {
			if pl := &s.places[i]; pl.load > 0 {
				add("%s is used to %s", pl.region(), percent(pl.load/100))
			}
		}
		if len(parts) > 0 {
			start, aim, stop := p.band()
			add("above %s a region spills, down to %s; below %s it comes back", percent(start/100), percent(aim/100), percent(stop/100))
		}
	}
	return strings.Join(parts, ", ")
}

func join(list []api.Region) string {
	names := make([]string, len(list))
	for i, r := range list {
		names[i] = string(r)
	}
	return strings.Join(names, ", ")
}

// wouldChange says what would make the answer another one, nearest first.
func (s *scene) wouldChange() []string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if n := s.spare(); n > 0 {
		add("losing %d more in %s spills a part of the traffic", n, s.base.region())
	}
	s.loadsWouldChange(add)
	lost := 0
	for i := 0; i+1 < len(s.groups) && i < 3; i++ {
		lost += len(s.groups[i].tier.Endpoints)
		add("losing the nearest %d moves traffic to %s", lost, s.groups[i+1].describe())
	}
	if len(s.groups) == 1 {
		add("losing all of them leaves nothing to offer")
	}
	for i := range s.places {
		pl := &s.places[i]
		n := pl.count(usable)
		switch {
		case n == 0:
		case pl.refused:
			add("allowing %s in the policy adds %d usable", pl.region(), n)
		case pl.down:
			add("%s being up again adds %d usable", pl.region(), n)
		case pl.drain > 0:
			add("ending the drain of %s (%s) gives it its whole part", pl.region(), percent(pl.drain/100))
		case pl.thin:
			add("more than %s usable in %s lets it take its part", percent(s.policy.MinHealthy/100), pl.region())
		}
	}
	return out
}

// loadsWouldChange says which loads would make the answer another one.
func (s *scene) loadsWouldChange(add func(string, ...any)) {
	b := s.base
	if b == nil || b.load <= 0 || b.share <= 0 {
		return
	}
	start, aim, stop := s.policy.band()
	if !s.loaded {
		if s.elsewhere() {
			add("a load of %s above %s spills a part of the traffic; it is %s", b.region(), percent(start/100), percent(b.load/100))
		}
		return
	}
	if b.load >= stop {
		add("a load of %s below %s brings some of it back; it is %s", b.region(), percent(stop/100), percent(b.load/100))
	}
	for i := range s.places {
		if pl := &s.places[i]; s.scant && pl != b && pl.load >= aim && pl.count(usable) > 0 && !pl.refused && !pl.down {
			add("a load of %s below %s lets it take some; it is %s", pl.region(), percent(aim/100), percent(pl.load/100))
		}
	}
}

// elsewhere reports whether there is another region to spill to.
func (s *scene) elsewhere() bool {
	for i := range s.groups {
		if g := &s.groups[i]; g.class == s.groups[0].class && g.place != s.base {
			return true
		}
	}
	return false
}

// spare is how many usable instances the region to which the traffic belongs may lose before
// it spills; 0 when it does already, or when there is nowhere to spill to.
func (s *scene) spare() int {
	b := s.base
	if b == nil || b.share < 1 || !s.elsewhere() {
		return 0
	}
	n := b.count(usable)
	if b.load > 0 { // what each of the others has to do more
		start, _, _ := s.policy.band()
		for lost := 1; lost < n; lost++ {
			if b.load*float64(n) > start*float64(n-lost) {
				return lost
			}
		}
		return 0
	}
	each := b.well / float64(n)
	for lost := 1; lost < n; lost++ {
		if s.policy.overProvisioning()*(b.well+b.moreWell-float64(lost)*each) < b.total+b.more {
			return lost
		}
	}
	return 0
}

func (g *group) describe() string {
	n := len(g.tier.Endpoints)
	switch g.tier.Kind {
	case api.TierZone:
		return fmt.Sprintf("%d in zone %s", n, g.tier.Zone)
	case api.TierRegion:
		return fmt.Sprintf("%d elsewhere in %s", n, g.tier.Region)
	case api.TierFar:
		return fmt.Sprintf("%d in region %s", n, g.tier.Region)
	}
	if g.class == drained {
		return fmt.Sprintf("a last resort: %d in %s, which is drained", n, g.tier.Region)
	}
	return fmt.Sprintf("a last resort: %d in %s that %s", n, g.tier.Region, panicWhy(g.class))
}
