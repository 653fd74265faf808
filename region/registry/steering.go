package registry

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/route"
)

// Steering is what the region decided about its callers' traffic: a *steering.Table. All methods
// are safe for concurrent use and return at once.
type Steering interface {
	// Policy returns the policy in force for a service, merged with the default; nil = none is
	// set. It is shared, must not be changed, and is the same pointer while it is the same policy.
	Policy(key api.ServiceKey) *api.Policy
	// Policies returns the services of a namespace (api.AllNamespaces = of all) that have a
	// policy of their own, api.PolicyDefault among them.
	Policies(ns api.Namespace) []api.ServiceKey
	// Drained returns how much less of its traffic, in percent, this region decided that a region
	// (itself, too) is to get now.
	Drained(region api.Region) float64
	// Changed is closed at the next change of any of this. Take it before reading.
	Changed() <-chan struct{}
}

// Steer sets who says what the region decided; before Run.
func (r *Registry) Steer(s Steering) error {
	if r.running.Load() {
		return errors.New("registry: Steer comes before Run")
	}
	r.steering = s
	return nil
}

// policy returns what is in force for a service; nil = none is set.
func (r *Registry) policy(key api.ServiceKey) *api.Policy {
	if r.steering == nil {
		return nil
	}
	return r.steering.Policy(key)
}

// drained returns the region's own decision about a region.
func (r *Registry) drained(region api.Region) float64 {
	if r.steering == nil {
		return 0
	}
	return r.steering.Drained(region)
}

// steer makes origins say what callers of this region are to go by: the larger of what each region
// wishes itself and what this one decided. The slice may be shared, so it is copied to be changed.
func (r *Registry) steer(origins []api.Origin) []api.Origin {
	copied := false
	for i := range origins {
		if d := r.drained(origins[i].Region); d > origins[i].Drained {
			if !copied {
				origins, copied = slices.Clone(origins), true
			}
			origins[i].Drained = d
		}
	}
	return origins
}

// ResolveUnder returns what Resolve would decide if p were the policy in force.
func (r *Registry) ResolveUnder(ctx context.Context, q ResolveQuery, p *api.Policy) (api.Decision, error) {
	s, _, err := r.scene(ctx, q)
	if err != nil {
		return api.Decision{}, err
	}
	return route.Decide(s.view, route.PolicyOf(p), s.caller, nil).Wire(), nil
}

// Wishes returns every other region as it was last heard of, with what it wishes about itself in
// Drained; for use cases of followers, which authorize first.
func (r *Registry) Wishes() []api.Origin {
	if r.cfg.Replicas == nil {
		return nil
	}
	return r.cfg.Replicas.Origins()
}

// Overview is Regions for use cases of followers, which authorize first, and for loops.
func (r *Registry) Overview() []api.RegionInfo {
	out := []api.RegionInfo{r.selfInfo(r.Snapshot())}
	links := r.links()
	for _, o := range r.origins() {
		out = append(out, r.originInfo(o, links))
	}
	return out
}

// Judges reports whether of the region's nodes this one does what one alone is to do: it owns
// liveness.
func (r *Registry) Judges() bool { return r.own.claim.Load().mine }

// Region returns the region's name.
func (r *Registry) Region() api.Region { return r.cfg.Region }

// ActorOf returns who asks, as WithActor set it; "" when nobody said.
func ActorOf(ctx context.Context) string {
	actor, _ := ctx.Value(actorKey{}).(string)
	return actor
}

// steered tells one watch the policies of its services, and when drains change.
type steered struct {
	r        *Registry
	ns       api.Namespace
	services map[api.ServiceKey]struct{} // nil = all of the namespace

	wake <-chan struct{}
	told map[api.ServiceKey]*api.Policy
	// drained is what the last synced or bookmark told.
	drained map[api.Region]float64
}

func newSteered(r *Registry, ns api.Namespace, services map[api.ServiceKey]struct{}) *steered {
	return &steered{r: r, ns: ns, services: services, told: map[api.ServiceKey]*api.Policy{}}
}

func (s *steered) forget() {
	clear(s.told)
	s.wake = nil
}

// changed returns the channel that says that diff has work; nil, for ever, without a steered.
func (s *steered) changed() <-chan struct{} {
	if s == nil {
		return nil
	}
	return s.wake
}

// diff tells the policies that changed since the last call.
func (s *steered) diff(tell func(api.Frame) error) error {
	if s.r.steering == nil {
		return nil
	}
	if s.wake != nil {
		select {
		case <-s.wake:
		default:
			return nil
		}
	}
	s.wake = s.r.steering.Changed() // before looking, so that nothing slips between
	look := map[api.ServiceKey]struct{}{}
	if s.services == nil {
		for _, k := range s.r.steering.Policies(s.ns) {
			look[k] = struct{}{}
		}
	} else {
		maps.Copy(look, s.services)
	}
	now := make(map[api.ServiceKey]*api.Policy, len(look))
	for k := range look {
		if p := s.r.steering.Policy(k); p != nil {
			now[k] = p
		}
	}
	for k := range s.told {
		look[k] = struct{}{}
	}
	for _, k := range sortedKeys(look) {
		p, old := now[k], s.told[k]
		if p == old || len(api.Differences(old, p)) == 0 && (p == nil) == (old == nil) {
			continue
		}
		f := api.Frame{Kind: api.FramePolicy, Service: k.Service, Policy: p}
		if k.Namespace != api.DefaultNamespace {
			f.Namespace = k.Namespace
		}
		if err := tell(f); err != nil {
			return err
		}
	}
	s.told = now
	return nil
}

// moved reports whether other drains are in force than were last told.
func (s *steered) moved(origins []api.Origin) bool {
	n := 0
	for i := range origins {
		if origins[i].Drained == 0 {
			continue
		}
		n++
		if s.drained[origins[i].Region] != origins[i].Drained {
			return true
		}
	}
	return n != len(s.drained)
}

// note remembers what is told now.
func (s *steered) note(origins []api.Origin) {
	s.drained = map[api.Region]float64{}
	for i := range origins {
		if origins[i].Drained > 0 {
			s.drained[origins[i].Region] = origins[i].Drained
		}
	}
}
