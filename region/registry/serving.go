package registry

import (
	"slices"
	"sync"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/route"
)

// servingInterval is how often at most it is decided for a watched service from where it is served.
const servingInterval = 5 * time.Second

// maxServed bounds what is remembered of that; beyond it everything is decided anew once.
const maxServed = 1 << 17

// awayFrom returns the regions other than home that take traffic by a decision, nil when home takes all.
func awayFrom(home api.Region, d *route.Decision) (out []api.Region) {
	for i := range d.Tiers {
		t := &d.Tiers[i]
		if t.Weight > 0 && t.Region != home && !slices.Contains(out, t.Region) {
			out = append(out, t.Region)
		}
	}
	return out
}

// served tells the federation from where watched services are served. Callers that watch decide for
// themselves; what a caller of this region without a zone would do is taken for what they do.
// The zero value is ready, and safe for concurrent use.
type served struct {
	mu sync.Mutex
	at map[api.ServiceKey]time.Duration // when it was last decided
}

// look decides for those services that have not been looked at of late, by any watch.
func (s *served) look(r *Registry, services map[api.ServiceKey]struct{}) {
	now := r.now()
	var due []api.ServiceKey
	s.mu.Lock()
	if s.at == nil || len(s.at) > maxServed {
		s.at = make(map[api.ServiceKey]time.Duration)
	}
	for k := range services {
		// A little less than the interval: it is looked at by a ticker of that.
		if at, ok := s.at[k]; !ok || now-at >= servingInterval-tickInterval {
			s.at[k] = now
			due = append(due, k)
		}
	}
	s.mu.Unlock()
	if len(due) == 0 {
		return
	}
	snap, overlay, origins := r.Snapshot(), r.overlay.Load(), r.origins()
	caller := route.Caller{Region: r.cfg.Region}
	for _, k := range due {
		view, known := r.view(k, snap, overlay, origins)
		if !known {
			continue
		}
		policy := r.policy(k)
		// With room for one endpoint only: it is not the answer that is wanted.
		at := answerKey{key: k, caller: callerKey{region: caller.Region}, limit: 1}
		memory := r.strained().memory(k)
		a := r.answers.get(at, &view, policy, memory)
		if a == nil {
			if caller.Memory = (route.Memory{}); memory != nil {
				caller.Memory = *memory
			}
			d := route.Decide(view, route.PolicyOf(policy), caller, nil)
			a = &Answer{Resolution: api.Resolution{
				Service: k.Service, Namespace: k.Namespace, Endpoints: d.Endpoints(1), Decision: d.Wire(), Policy: policy, Loads: loadsOf(&view),
			}, away: awayFrom(caller.Region, &d)}
			r.answers.put(at, &view, policy, memory, a)
		}
		for _, region := range a.away {
			r.cfg.Replicas.Serving(k, region)
		}
	}
}
