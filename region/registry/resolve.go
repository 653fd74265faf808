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
	res, _, stamp, err := r.resolve(ctx, q, nil)
	return res, stamp, err
}

// Explain answers as Resolve does, with the record of the decision.
func (r *Registry) Explain(ctx context.Context, q ResolveQuery) (api.Explanation, Stamp, error) {
	var trace api.Trace
	res, caller, stamp, err := r.resolve(ctx, q, &trace)
	if err != nil {
		return api.Explanation{}, Stamp{}, err
	}
	from := string(caller.Region)
	if caller.Zone != "" {
		from += "/" + string(caller.Zone)
	}
	return api.Explanation{Resolution: res, From: from, Trace: trace}, stamp, nil
}

func (r *Registry) resolve(ctx context.Context, q ResolveQuery, trace *api.Trace) (api.Resolution, route.Caller, Stamp, error) {
	key := api.ServiceKey{Namespace: orDefault(q.Namespace), Service: q.Service}
	fail := func(err error) (api.Resolution, route.Caller, Stamp, error) {
		return api.Resolution{}, route.Caller{}, Stamp{}, err
	}
	if err := r.authorize(ctx, VerbRead, key.Namespace, key.Service); err != nil {
		return fail(err)
	}
	if err := checkService(key.Namespace, key.Service); err != nil {
		return fail(err)
	}
	if err := api.CheckZone(string(q.Zone)); err != nil {
		return fail(err)
	}
	snap, source, err := r.fresh(ctx, q.ReadOptions)
	if err != nil {
		return fail(err)
	}
	caller := route.Caller{Region: cmp.Or(q.FromRegion, r.cfg.Region), Zone: q.Zone}
	origins := r.origins()
	if caller.Region != r.cfg.Region && findOrigin(origins, caller.Region) == nil {
		return fail(regionNotFound(caller.Region))
	}
	view, known := r.view(key, snap, r.overlay.Load(), origins)
	if !known {
		return fail(serviceNotFound(key))
	}
	d := route.Decide(view, route.Policy{}, caller, trace)
	res := api.Resolution{
		Service: key.Service, Namespace: key.Namespace, Endpoints: d.Endpoints(q.Limit), Decision: d.Wire(),
		Views: make([]api.Origin, len(view.Regions)),
	}
	for i := range view.Regions {
		res.Views[i] = view.Regions[i].Origin
	}
	return res, caller, r.stamp(snap, source), nil
}

// view gathers what is known of the service: this region first, then every other one,
// whether it has the service or not. known is false when none has.
func (r *Registry) view(key api.ServiceKey, snap *catalog.Snapshot, overlay *liveness.Overlay, origins []api.Origin) (v route.View, known bool) {
	v = route.View{Key: key, Regions: make([]route.RegionView, 0, 1+len(origins))}
	own := route.RegionView{Origin: r.self(snap), Endpoints: r.endpoints(key, snap, overlay)}
	own.Total = len(own.Endpoints)
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
		rv := findView(&v, rep.Origin)
		rv.Endpoints, rv.Total, rv.Passing = rep.Summary.Endpoints, rep.Summary.Total, rep.Summary.Passing
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

// self is the own region as an origin: its own truth is always fresh.
func (r *Registry) self(snap *catalog.Snapshot) api.Origin {
	v := snap.Version()
	return api.Origin{
		Region: v.Region, Epoch: v.Epoch, Revision: v.Revision, State: api.AgeFresh, Complete: true,
		Source: api.SourceMemory, Addresses: r.cfg.Addresses,
	}
}

// endpoints returns this region's endpoints of the service with the last tick's verdict
// applied; shared when that does not concern it.
func (r *Registry) endpoints(key api.ServiceKey, snap *catalog.Snapshot, overlay *liveness.Overlay) []api.Endpoint {
	all := snap.Endpoints(key)
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
