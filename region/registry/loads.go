package registry

import (
	"maps"
	"math"
	"sync"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

const (
	// loadKept is how long a reported load counts at least; a longer ttl makes it twice that.
	loadKept = 30 * time.Second
	// loadsEvery is how often a node asks the owner of liveness for loads, and loadsOld when it
	// does not trust them any more.
	loadsEvery = 5 * time.Second
	loadsOld   = 3 * loadsEvery
)

// loads are what instances report with their heartbeats of how much they are used. They are held
// in memory by the node that owns liveness, where all heartbeats end up, and by nobody else: a
// report costs no write, and is gone after a while without another one. The other nodes have
// the owner's sums by service. Safe for concurrent use.
type loads struct {
	mu sync.Mutex
	of map[api.InstanceKey]reported

	// Of a node that does not own liveness: what the owner said, and when.
	told  map[api.ServiceKey]float64
	at    time.Duration
	asked time.Duration
	any   bool // asked at all
}

type reported struct {
	percent uint16
	at      time.Duration
}

// note takes a report.
func (l *loads) note(now time.Duration, key api.InstanceKey, load api.Load) {
	percent, told := load.Percent()
	if !told {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of = map[api.InstanceKey]reported{}
	}
	l.of[key] = reported{uint16(percent), now}
}

// drop forgets an instance that left.
func (l *loads) drop(key api.InstanceKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.of, key)
}

// due reports whether the owner is to be asked, and notes that it is.
func (l *loads) due(now time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.any && now-l.asked < loadsEvery {
		return false
	}
	l.asked, l.any = now, true
	l.of = nil // of a time when this node was the owner
	return true
}

// adopt takes what the owner of liveness said.
func (l *loads) adopt(now time.Duration, list []api.ServiceLoad) {
	told := make(map[api.ServiceKey]float64, len(list))
	for i := range list {
		s := &list[i]
		told[api.ServiceKey{Namespace: orDefault(s.Namespace), Service: s.Service}] = s.Percent
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told, l.at = told, now
}

// Loads returns how much the services of this region are used, in percent of what their usable
// instances can take, as far as those report it: the mean of their loads, weighted by their
// capacities when all of them declare one. The map is the caller's.
func (r *Registry) Loads() map[api.ServiceKey]float64 {
	now := r.now()
	l := &r.loads
	out := map[api.ServiceKey]float64{}
	if !r.own.holds(now) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if now-l.at < loadsOld {
			maps.Copy(out, l.told)
		}
		return out
	}
	type sum struct{ load, capacity, plain, n float64 }
	sums := map[api.ServiceKey]*sum{}
	snap := r.Snapshot()
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, x := range l.of {
		in := snap.Instance(key)
		if in == nil || now-x.at > max(loadKept, 2*in.TTL.D()) {
			delete(l.of, key)
			continue
		}
		if !in.Status.Usable() {
			continue
		}
		s := sums[key.ServiceKey()]
		if s == nil {
			s = &sum{}
			sums[key.ServiceKey()] = s
		}
		s.n++
		s.plain += float64(x.percent)
		s.load += float64(x.percent) * float64(in.Capacity)
		s.capacity += float64(in.Capacity)
		if in.Capacity == 0 {
			s.capacity = math.NaN() // and stays so: it is above nothing
		}
	}
	for key, s := range sums {
		if s.capacity > 0 {
			out[key] = s.load / s.capacity
		} else {
			out[key] = s.plain / s.n
		}
	}
	return out
}

// serviceLoads is Loads for another node.
func (r *Registry) serviceLoads() []api.ServiceLoad {
	all := r.Loads()
	out := make([]api.ServiceLoad, 0, len(all))
	for k, v := range all {
		s := api.ServiceLoad{Namespace: k.Namespace, Service: k.Service, Percent: v}
		if s.Namespace == api.DefaultNamespace {
			s.Namespace = ""
		}
		out = append(out, s)
	}
	return out
}
