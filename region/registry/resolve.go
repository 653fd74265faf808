package registry

import (
	"cmp"
	"context"
	"time"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/region/liveness"
	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/route"
)

func compareIDs(a, b api.InstanceID) int { return cmp.Compare(a, b) }

func ageOf(o *api.Origin) time.Duration { return time.Duration(o.AgeMS) * time.Millisecond }

// Resolve answers where a caller should send its calls, best endpoints first. It answers
// while any region is known to have the service (P3); CodeServiceNotFound means that none
// is.
func (r *Registry) Resolve(ctx context.Context, q ResolveQuery) (api.Resolution, Stamp, error) {
	a, views, stamp, err := r.ResolveShared(ctx, q)
	if err != nil {
		return api.Resolution{}, Stamp{}, err
	}
	res := a.Resolution
	res.Views = views
	return res, stamp, nil
}

// ResolveShared is Resolve for doors that answer many callers alike: what depends on the
// moment, the views, comes apart from the rest, which is shared between calls until
// something about the service or the regions that have it changes.
func (r *Registry) ResolveShared(ctx context.Context, q ResolveQuery) (*Answer, []api.Origin, Stamp, error) {
	s, stamp, err := r.scene(ctx, q)
	if err != nil {
		return nil, nil, Stamp{}, err
	}
	origins := make([]api.Origin, len(s.view.Regions))
	for i := range s.view.Regions {
		origins[i] = s.view.Regions[i].Origin
	}
	key := answerKey{key: s.view.Key, caller: callerKey{s.caller.Region, s.caller.Zone}, limit: q.Limit}
	policy := r.policy(s.view.Key)
	a := r.answers.get(key, &s.view, policy, s.memory)
	if a == nil {
		d := route.Decide(s.view, route.PolicyOf(policy), s.caller, nil)
		a = &Answer{Resolution: api.Resolution{
			Service: key.key.Service, Namespace: key.key.Namespace, Endpoints: d.Endpoints(cmp.Or(q.Limit, api.MaxListLimit)), Decision: d.Wire(),
			Policy: policy, Loads: loadsOf(&s.view),
		}}
		if s.caller.Region == r.cfg.Region {
			a.away = awayFrom(r.cfg.Region, &d)
		}
		r.answers.put(key, &s.view, policy, s.memory, a)
	}
	for _, region := range a.away {
		r.cfg.Replicas.Serving(s.view.Key, region)
	}
	return a, origins, stamp, nil
}

// Explain answers as Resolve does, with the record of the decision.
func (r *Registry) Explain(ctx context.Context, q ResolveQuery) (api.Explanation, Stamp, error) {
	s, stamp, err := r.scene(ctx, q)
	if err != nil {
		return api.Explanation{}, Stamp{}, err
	}
	ex := api.Explanation{From: string(s.caller.Region)}
	if s.caller.Zone != "" {
		ex.From += "/" + string(s.caller.Zone)
	}
	policy := r.policy(s.view.Key)
	d := route.Decide(s.view, route.PolicyOf(policy), s.caller, &ex.Trace)
	ex.Resolution = api.Resolution{
		Service: s.view.Key.Service, Namespace: s.view.Key.Namespace, Endpoints: d.Endpoints(cmp.Or(q.Limit, api.MaxListLimit)), Decision: d.Wire(),
		Views: make([]api.Origin, len(s.view.Regions)), Policy: policy, Loads: loadsOf(&s.view),
	}
	ex.Decision.ID = route.DecisionID(s.view, route.PolicyOf(policy), s.caller)
	for i := range s.view.Regions {
		ex.Views[i] = s.view.Regions[i].Origin
	}
	return ex, stamp, nil
}

// scene is what a decision is made from.
type scene struct {
	view   route.View
	caller route.Caller
	memory *route.Memory // the caller's; nil = none
}

func (r *Registry) scene(ctx context.Context, q ResolveQuery) (scene, Stamp, error) {
	key := api.ServiceKey{Namespace: orDefault(q.Namespace), Service: q.Service}
	if err := r.authorize(ctx, VerbRead, key.Namespace, key.Service); err != nil {
		return scene{}, Stamp{}, err
	}
	if err := checkService(key.Namespace, key.Service); err != nil {
		return scene{}, Stamp{}, err
	}
	if err := api.CheckZone(string(q.Zone)); err != nil {
		return scene{}, Stamp{}, err
	}
	snap, source, err := r.fresh(ctx, q.ReadOptions)
	if err != nil {
		return scene{}, Stamp{}, err
	}
	caller := route.Caller{Region: cmp.Or(q.FromRegion, r.cfg.Region), Zone: q.Zone}
	origins := r.origins()
	if caller.Region != r.cfg.Region && findOrigin(origins, caller.Region) == nil {
		return scene{}, Stamp{}, regionNotFound(caller.Region)
	}
	view, known := r.view(key, snap, r.overlay.Load(), origins)
	if !known {
		return scene{}, Stamp{}, OrNotInCopy(r.stamp(snap, source), serviceNotFound(key))
	}
	s := scene{view: view, caller: caller}
	if caller.Region == r.cfg.Region {
		if s.memory = r.strained().memory(key); s.memory != nil {
			s.caller.Memory = *s.memory
		}
	}
	return s, r.stamp(snap, source), nil
}

// loadsOf returns the loads of a view, as far as they are known.
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

// view gathers what is known of the service: this region first, then every other one,
// whether it has the service or not. known is false when none has.
func (r *Registry) view(key api.ServiceKey, snap *catalog.Snapshot, overlay *liveness.Overlay, origins []api.Origin) (v route.View, known bool) {
	return r.viewWith(key, snap, snap.Endpoints(key), overlay, origins)
}

// viewWith is view with the endpoints that snap has of the service.
func (r *Registry) viewWith(key api.ServiceKey, snap *catalog.Snapshot, all []api.Endpoint, overlay *liveness.Overlay, origins []api.Origin) (v route.View, known bool) {
	v = route.View{Key: key, Regions: make([]route.RegionView, 0, 1+len(origins))}
	own := route.RegionView{Origin: r.self(snap), Endpoints: seen(key, snap, all, overlay)}
	own.Total, own.Load = len(own.Endpoints), float64(r.strained().classes[key])
	for i := range own.Endpoints {
		if own.Endpoints[i].Status.Usable() {
			own.Passing++
		}
	}
	v.Regions = append(v.Regions, own)
	stored, _ := snap.Service(key)
	known = len(stored) > 0
	for _, o := range origins {
		v.Regions = append(v.Regions, route.RegionView{Origin: o})
	}
	for _, rep := range r.lookup(key) {
		if rep.Summary == nil || rep.Origin.Region == r.cfg.Region {
			continue
		}
		rep.Origin.Drained = max(rep.Origin.Drained, r.drained(rep.Origin.Region))
		rv := findView(&v, rep.Origin)
		rv.Endpoints, rv.Total, rv.Passing, rv.Draining = rep.Summary.Endpoints, rep.Summary.Total, rep.Summary.Passing, rep.Summary.Draining
		rv.Load = float64(rep.Summary.Load)
		known = true
	}
	return v, known
}

// findView returns the entry of the origin, added when it appeared between two calls.
func findView(v *route.View, o api.Origin) *route.RegionView {
	for i := range v.Regions {
		if v.Regions[i].Origin.Region == o.Region {
			return &v.Regions[i]
		}
	}
	v.Regions = append(v.Regions, route.RegionView{Origin: o})
	return &v.Regions[len(v.Regions)-1]
}

// stateOf grades an age, see api.AgeState.
func stateOf(age time.Duration) api.AgeState {
	switch {
	case age < 5*time.Second:
		return api.AgeFresh
	case age < 30*time.Second:
		return api.AgeStale
	case age < 15*time.Minute:
		return api.AgeSuspect
	}
	return api.AgeExpired
}

// self is the own region as an origin: its own truth is always fresh, unless it is read from the copy on disk.
func (r *Registry) self(snap *catalog.Snapshot) api.Origin {
	v := snap.Version()
	o := api.Origin{
		Region: v.Region, Epoch: v.Epoch, Revision: v.Revision, State: api.AgeFresh, Complete: true,
		Source: api.SourceMemory, Addresses: r.cfg.Addresses, Drained: r.drained(v.Region),
	}
	if c := r.copyOf(snap); c != nil {
		age := c.age()
		o.Source, o.AgeMS, o.State = api.SourceSnapshot, age.Milliseconds(), stateOf(age)
	}
	return o
}

// seen returns this region's endpoints of the service, all, with the last tick's verdict
// applied; shared when that does not concern it.
func seen(key api.ServiceKey, snap *catalog.Snapshot, all []api.Endpoint, overlay *liveness.Overlay) []api.Endpoint {
	if !overlay.Touches(key) {
		return all
	}
	list, _ := snap.Service(key)
	out := make([]api.Endpoint, 0, len(all))
	for i := range all {
		k := list[i].Key()
		if overlay.Hidden(k, list[i].Revision) {
			continue
		}
		e := all[i]
		e.Overdue = overlay.Overdue(k, list[i].Revision)
		out = append(out, e)
	}
	return out
}
