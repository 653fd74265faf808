package registry

import (
	"context"
	"maps"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/route"
)

const (
	// strainInterval is how often it is decided anew where a strained service's traffic goes,
	// classesEvery after how many of these the loads are summed up.
	strainInterval = time.Second
	classesEvery   = 5
)

// strain is how much this region's services are used, in classes, and what is remembered of those
// that spill. It never changes.
//
// A region answers for callers that remember nothing, and a load is measured after what they
// were told: who took it for that of the whole traffic would send all of it back as soon as the
// load fell. So each node remembers for all of its callers together, by service, what it
// answered. Another region's callers are answered as ones who remember nothing.
type strain struct {
	classes map[api.ServiceKey]int
	spills  map[api.ServiceKey]*route.Memory
	at      time.Duration
}

// strained returns the strain of the moment.
func (r *Registry) strained() *strain {
	if s := r.strain.Load(); s != nil {
		return s
	}
	return &strain{}
}

// memory returns what is remembered for callers of this region; nil = nothing.
func (s *strain) memory(key api.ServiceKey) *route.Memory { return s.spills[key] }

// strainLoop keeps the strain up to date until ctx ends.
func (r *Registry) strainLoop(ctx context.Context) error {
	t := time.NewTicker(strainInterval)
	defer t.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		if n%classesEvery == 0 {
			r.classify()
		}
		r.spill()
	}
}

// classify sums the loads up.
func (r *Registry) classify() {
	old := r.strained()
	next := make(map[api.ServiceKey]int, len(old.classes))
	for key, percent := range r.Loads() {
		next[key] = api.LoadClass(old.classes[key], percent)
	}
	if !maps.Equal(next, old.classes) {
		r.strain.Store(&strain{classes: next, spills: old.spills, at: old.at})
	}
}

// spill decides anew for the services that spill by their load, or should.
func (r *Registry) spill() {
	old, now := r.strained(), r.now()
	next := &strain{classes: old.classes, at: now}
	add := func(key api.ServiceKey, m route.Memory) {
		if m = m.Loads(); m.Spills() {
			if next.spills == nil {
				next.spills = map[api.ServiceKey]*route.Memory{}
			}
			next.spills[key] = &m
		}
	}
	for key, class := range old.classes {
		if p := route.PolicyOf(r.policy(key)); old.spills[key] == nil && p.Strained(float64(class)) {
			add(key, r.spillOf(key, p, route.Caller{}))
		}
	}
	for key, m := range old.spills {
		add(key, r.spillOf(key, route.PolicyOf(r.policy(key)), route.Caller{Memory: *m, Elapsed: now - old.at}))
	}
	if len(next.spills)+len(old.spills) > 0 {
		r.strain.Store(next)
	}
}

// spillOf decides for a service.
func (r *Registry) spillOf(key api.ServiceKey, p route.Policy, c route.Caller) route.Memory {
	view, known := r.view(key, r.Snapshot(), r.overlay.Load(), r.origins())
	if !known {
		return route.Memory{}
	}
	if c.Region = r.cfg.Region; c.Memory.IsZero() {
		// Until now all of it stayed here: that is remembered, so that the spill begins slowly.
		calm := view
		calm.Regions = append([]route.RegionView(nil), view.Regions...)
		calm.Regions[0].Load = 1
		c.Memory, c.Elapsed = route.Decide(calm, p, c, nil).Memory.Loads(), strainInterval
	}
	return route.Decide(view, p, c, nil).Memory
}

// loadsFor returns the classes of the services that a watch wants.
func (w *watch) loadsFor(s *strain) map[api.ServiceKey]int {
	out := map[api.ServiceKey]int{}
	if w.services == nil {
		for key, class := range s.classes {
			if w.wants(key) {
				out[key] = class
			}
		}
		return out
	}
	for key := range w.services {
		if class := s.classes[key]; class > 0 {
			out[key] = class
		}
	}
	return out
}

// loads returns what a synced or bookmark is to tell of loads, in order: all for a synced, else
// what changed since the last one.
func (w *watch) loads(all bool) (list []api.ServiceLoad) {
	now := w.loadsFor(w.r.strained())
	tell := func(key api.ServiceKey, class int) {
		l := api.ServiceLoad{Service: key.Service, Percent: float64(class)}
		if key.Namespace != api.DefaultNamespace {
			l.Namespace = key.Namespace
		}
		list = append(list, l)
	}
	keys := maps.Clone(now)
	maps.Copy(keys, w.loaded)
	for _, key := range sortedKeys(keys) {
		if class := now[key]; all && class > 0 || !all && class != w.loaded[key] {
			tell(key, class)
		}
	}
	w.loaded = now
	return list
}
