package sdktest

import (
	"maps"
	"math"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/route"
)

// loadKept is how long a load of a heartbeat counts at least; a longer ttl makes it twice that.
const loadKept = 30 * time.Second

// told is what an instance says of its load.
type told struct {
	load api.Load
	at   time.Time
}

// SetLoad has the registry know how much the instance is used, in percent, as the heartbeats of a
// program tell it (see nearside.Registration.Load); below 0 = not any more. It counts until the
// next SetLoad, and callers learn it at once.
func (i *Instance) SetLoad(percent int) {
	l := api.Load(0)
	if percent >= 0 {
		l = api.LoadOf(percent)
	}
	i.r.w.mu.Lock()
	rec := i.r.records[i.key]
	if rec != nil {
		rec.told = told{l, time.Now()}
		i.r.weighLocked(i.key.ServiceKey())
	}
	i.r.w.mu.Unlock()
	if rec == nil {
		i.r.w.fail("sdktest: load of %s: it is not registered any more", i.key)
	}
}

// percentLocked returns how much a service is used: the mean of what its usable instances tell,
// weighted by their capacities when all of them have one. known is false when none tells.
func (r *Region) percentLocked(key api.ServiceKey) (percent float64, known bool) {
	now := time.Now()
	var load, capacity, plain, n float64
	for k, rec := range r.records {
		p, ok := rec.told.load.Percent()
		switch {
		case k.ServiceKey() != key, !ok, !rec.in.Status.Usable():
			continue
		case !rec.kept && now.Sub(rec.told.at) > max(loadKept, 2*rec.in.TTL.D()):
			continue
		}
		n++
		plain += float64(p)
		load += float64(p) * float64(rec.in.Capacity)
		capacity += float64(rec.in.Capacity)
		if rec.in.Capacity == 0 {
			capacity = math.NaN() // and stays so: it is above nothing
		}
	}
	switch {
	case n == 0:
		return 0, false
	case capacity > 0:
		return load / capacity, true
	}
	return plain / n, true
}

// classifyLocked brings the class of a service's load up to date, and reports whether it moved.
func (r *Region) classifyLocked(key api.ServiceKey) bool {
	old, class := r.classes[key], 0
	if percent, known := r.percentLocked(key); known {
		class = api.LoadClass(old, percent)
	}
	if class == old {
		return false
	}
	if r.classes[key] = class; class == 0 {
		delete(r.classes, key)
	}
	return true
}

// weighLocked tells everybody of a load, if its class moved. That is no change of the catalogue:
// no revision comes with it.
func (r *Region) weighLocked(key api.ServiceKey) {
	if !r.classifyLocked(key) || r.rows[key] == nil {
		return
	}
	row := *r.rows[key]
	row.Load = r.classes[key]
	rows := maps.Clone(r.rows)
	rows[key] = &row
	r.rows = rows
	r.w.spreadLocked(r)
}

// loadsLocked returns the classes that a watch is to know of.
func (s *watching) loadsLocked() map[api.ServiceKey]int {
	out := map[api.ServiceKey]int{}
	if !s.far {
		return out
	}
	for key, class := range s.r.classes {
		if s.wants(key) {
			out[key] = class
		}
	}
	return out
}

// newLoadsLocked returns what a synced or bookmark tells of loads: all of them, or what changed
// since the last one. Loads that nobody repeats are forgotten here.
func (s *watching) newLoadsLocked(all bool) (list []api.ServiceLoad) {
	for key := range maps.Clone(s.r.classes) {
		s.r.weighLocked(key)
	}
	now := s.loadsLocked()
	keys := maps.Clone(now)
	maps.Copy(keys, s.loads)
	for _, key := range sortedKeys(keys) {
		if class := now[key]; all && class > 0 || !all && class != s.loads[key] {
			l := api.ServiceLoad{Service: key.Service, Percent: float64(class)}
			if key.Namespace != api.DefaultNamespace {
				l.Namespace = key.Namespace
			}
			list = append(list, l)
		}
	}
	s.loads = now
	return list
}

// loadsOf returns the loads that a view knows of, by region.
func loadsOf(v *route.View) map[api.Region]int {
	var out map[api.Region]int
	for i := range v.Regions {
		if load := v.Regions[i].Load; load > 0 {
			if out == nil {
				out = map[api.Region]int{}
			}
			out[v.Regions[i].Origin.Region] = int(load)
		}
	}
	return out
}
