package nearside

import (
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/route"
)

// Slow start: an instance that is new gets a part of its calls at first, and more by and by, so
// that caches fill and code is compiled before all of them come. The formula is Envoy's, with
// an aggression of 1:
//
//	weight × max(10 %, time since it is new / Config.SlowStart)
//
// New is an instance that begins to be usable (registered, started, well again, or moved to
// another address) while the client looks on. What is there when the client first knows the
// service is not: a client that starts says nothing about the instances.
//
// Weights alone act within a tier. Where all of a tier is new, the tier itself starts slowly
// (in Envoy it does not): of the caller's zone the rest goes to the rest of the region; and
// to a nearer region traffic comes back no faster than its instances start, which is what a
// policy's fail-back ramp is for.
const slowStartLeast = 0.1

// warmth is how warm an instance is that is new for so long, 0 to 1.
func warmth(since, window time.Duration) float64 {
	if window <= 0 || since >= window {
		return 1
	}
	return max(slowStartLeast, float64(since)/float64(window))
}

// startLocked notes whether the instance begins to be usable.
func (s *service) startLocked(in *instance, was bool) {
	switch {
	case !in.usable, s.cfg.SlowStart <= 0:
		in.starting = false
	case !was && s.synced:
		in.starting, in.since = true, s.c.clock()
	}
}

// warm holds how warm the instances are that are not warm yet, mostly none.
type warm map[route.EndpointRef]float64

func (w warm) of(ref route.EndpointRef) float64 {
	if f, ok := w[ref]; ok {
		return f
	}
	return 1
}

// warmLocked returns who starts slowly, and ends the start of those that did.
func (s *service) warmLocked() warm {
	if s.cfg.SlowStart <= 0 {
		return nil
	}
	var w warm
	now := s.c.clock()
	for ref, in := range s.instances {
		if !in.starting {
			continue
		}
		f := warmth(now-in.since, s.cfg.SlowStart)
		if in.starting = f < 1; in.starting {
			if w == nil {
				w = warm{}
			}
			w[ref] = f
		}
	}
	return w
}

// ramped returns the policy while there are regions of which all usable instances are new:
// nothing comes back to a nearer one faster than in the time of a slow start.
func (w warm) ramped(p route.Policy, v *route.View, window time.Duration) route.Policy {
	for i := range v.Regions {
		usable, fresh := 0, 0
		for j := range v.Regions[i].Endpoints {
			e := &v.Regions[i].Endpoints[j]
			if e.Status.Usable() && e.Weight > 0 {
				usable++
				if w.of(route.EndpointRef{Region: e.Region, ID: e.ID}) < 1 {
					fresh++
				}
			}
		}
		if fresh > 0 && fresh == usable {
			if p.FailbackRamp == 0 {
				p.FailbackRamp = route.DefaultFailbackRamp
			}
			p.FailbackRamp = max(p.FailbackRamp, window)
			return p
		}
	}
	return p
}

// spread gives what the caller's zone cannot take while all of it is new to the rest of the
// region, in a decision: the warmest instance of each says how much of its share a tier takes.
// The region's share stays what it is.
func (w warm) spread(d *route.Decision) {
	if len(w) == 0 {
		return
	}
	for i := range d.Tiers {
		zone := &d.Tiers[i]
		if zone.Kind != api.TierZone || zone.Weight <= 0 {
			continue
		}
		for j := range d.Tiers {
			rest := &d.Tiers[j]
			if rest.Kind != api.TierRegion || rest.Region != zone.Region {
				continue
			}
			if here, there := w.warmest(zone), w.warmest(rest); here < there {
				moved := zone.Weight * (1 - here/there)
				zone.Weight -= moved
				rest.Weight += moved
			}
		}
	}
}

func (w warm) warmest(t *route.Tier) (most float64) {
	for _, e := range t.Endpoints {
		most = max(most, w.of(route.EndpointRef{Region: e.Region, ID: e.ID}))
	}
	return most
}
