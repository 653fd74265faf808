package httpapi

import (
	"context"
	"fmt"
	"strings"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/sdk/api"
)

func (d *door) listServices(ctx context.Context, r *request) (answer, error) {
	q := registry.ServicesQuery{Namespace: r.namespace(), Limit: r.limit(), Cursor: r.cursor(), ReadOptions: r.read()}
	if r.err != nil {
		return answer{}, r.err
	}
	l, st, err := d.Registry.ListServices(ctx, q)
	if err != nil {
		return answer{}, err
	}
	l.Services = some(l.Services)
	return answer{body: &l, stamp: st, tagged: true}, nil
}

func (d *door) listInstances(ctx context.Context, r *request) (answer, error) {
	q := registry.InstancesQuery{
		Namespace: r.namespace(), Service: r.service(), Statuses: r.statuses(), Zone: r.zone(), Tag: r.tag(), Filter: r.filter(),
		Region: r.region(), Limit: r.limit(), Cursor: r.cursor(), ReadOptions: r.read(),
	}
	if r.err != nil {
		return answer{}, r.err
	}
	l, st, err := d.Registry.ListInstances(ctx, q)
	if err != nil {
		return answer{}, err
	}
	l.Instances = some(l.Instances)
	return answer{body: &l, stamp: st, tagged: true}, nil
}

func (d *door) resolve(ctx context.Context, r *request) (answer, error) {
	q := r.resolveQuery()
	if r.err != nil {
		return answer{}, r.err
	}
	shared, views, st, err := d.Registry.ResolveShared(ctx, q)
	if err != nil {
		return answer{}, err
	}
	res, err := newResolution(shared, views)
	return answer{body: res, stamp: st}, err
}

func (d *door) explain(ctx context.Context, r *request) (answer, error) {
	q := r.resolveQuery()
	r.from(&q)
	if r.err != nil {
		return answer{}, r.err
	}
	ex, st, err := d.Registry.Explain(ctx, q)
	if err != nil {
		return answer{}, err
	}
	whole(&ex.Resolution)
	ex.Trace.Steps = some(ex.Trace.Steps)
	return answer{body: &ex, stamp: st}, nil
}

func (r *request) resolveQuery() registry.ResolveQuery {
	r.later("policy", "at")
	return registry.ResolveQuery{
		Namespace: r.namespace(), Service: r.service(), Zone: r.zone(), Limit: r.limit(), ReadOptions: r.read(),
	}
}

// from reads ?from=region or ?from=region/zone, the place of the caller, into q.
func (r *request) from(q *registry.ResolveQuery) {
	if !r.query.Has("from") {
		return
	}
	s := r.query.Get("from")
	region, zone, hasZone := strings.Cut(s, "/")
	if !api.ValidLabel(region) || hasZone && !api.ValidLabel(zone) {
		r.bad("from", s, "use REGION or REGION/ZONE")
		return
	}
	if hasZone && q.Zone != "" && q.Zone != api.Zone(zone) {
		r.fail(api.FieldError("zone", fmt.Sprintf("from and zone name two zones, %s and %s", zone, q.Zone), "say it once"))
		return
	}
	q.FromRegion = api.Region(region)
	if hasZone {
		q.Zone = api.Zone(zone)
	}
}

// whole makes the lists of an answer show as [] when they are empty.
func whole(r *api.Resolution) {
	r.Endpoints, r.Views, r.Decision.Tiers = some(r.Endpoints), some(r.Views), some(r.Decision.Tiers)
}

func some[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
