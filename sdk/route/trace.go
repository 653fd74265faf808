package route

import (
	"fmt"

	"github.com/nearside/nearside/sdk/api"
)

// funnel names the steps in the order in which endpoints leave, and the sentence for each
// endpoint that does.
var funnel = []struct {
	step  string
	drops []class
	why   map[class]string
}{
	{"policy", []class{refused}, map[class]string{refused: "its region is not allowed"}},
	{"status", []class{critical, starting, draining}, map[class]string{
		critical: "critical", starting: "still starting", draining: "draining",
	}},
	{"weight", []class{unshared}, map[class]string{unshared: "weight 0"}},
	{"breaker", []class{broken}, map[class]string{broken: "the caller's breaker is open"}},
	{"heartbeat", []class{overdue}, map[class]string{overdue: "heartbeats are overdue"}},
	{"age", []class{forgotten}, map[class]string{forgotten: "nothing was heard of its region for long"}},
}

func trace(v View, p Policy, c Caller, groups []group, n census) api.Trace {
	t := api.Trace{Steps: []api.TraceStep{{Step: "known", In: n.total, Out: n.total}}}
	in := n.total
	for _, f := range funnel {
		if f.step == "age" && len(groups) > 0 && groups[0].class == forgotten {
			continue // it is the best there is
		}
		s := api.TraceStep{Step: f.step, In: in}
		gone := 0
		for _, k := range f.drops {
			gone += n.all[k]
		}
		s.Out = in - gone
		if gone > 0 {
			s.Dropped = drops(v, p, c, f.why)
		}
		in = s.Out
		t.Steps = append(t.Steps, s)
	}
	nearest := 0
	if len(groups) > 0 && !groups[0].class.panicking() {
		nearest = len(groups[0].tier.Endpoints)
	}
	t.Steps = append(t.Steps, api.TraceStep{Step: "nearest tier", In: in, Out: nearest})
	t.WouldChange = wouldChange(groups)
	return t
}

func drops(v View, p Policy, c Caller, why map[class]string) []api.TraceDrop {
	var out []api.TraceDrop
	for ri := range v.Regions {
		r := &v.Regions[ri]
		allowed := p.allows(r.Origin.Region, c.Region)
		for ei := range r.Endpoints {
			e := &r.Endpoints[ei]
			k := refused
			if allowed {
				k = classify(r, e, c)
			}
			if w, ok := why[k]; ok {
				if len(out) == api.MaxTraceDrops {
					return out
				}
				out = append(out, api.TraceDrop{ID: e.ID, Region: e.Region, Why: w})
			}
		}
	}
	return out
}

// wouldChange says what would make another tier the first, for the two next ones.
func wouldChange(groups []group) []string {
	var out []string
	lost := 0
	for i := 0; i+1 < len(groups) && len(out) < 3; i++ {
		lost += len(groups[i].tier.Endpoints)
		out = append(out, fmt.Sprintf("losing the nearest %d moves traffic to %s", lost, groups[i+1].describe()))
	}
	if len(groups) > 0 {
		if len(groups) == 1 {
			out = append(out, "losing all of them leaves nothing to offer")
		}
	}
	return out
}

func (g group) describe() string {
	n := len(g.tier.Endpoints)
	switch g.tier.Kind {
	case api.TierZone:
		return fmt.Sprintf("%d in zone %s", n, g.tier.Zone)
	case api.TierRegion:
		return fmt.Sprintf("%d elsewhere in %s", n, g.tier.Region)
	case api.TierFar:
		return fmt.Sprintf("%d in region %s", n, g.tier.Region)
	}
	return fmt.Sprintf("a last resort: %d in %s that %s", n, g.tier.Region, panicWhy(g.class))
}
