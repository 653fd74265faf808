package httpapi

import (
	"context"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/sdk/api"
)

func (d *door) whatIf(ctx context.Context, r *request) (answer, error) {
	q := registry.WhatIfQuery{Namespace: r.onlyNamespace(), Services: r.services(), Losses: r.losses(), Limit: r.limit(), Cursor: r.cursor()}
	var place registry.ResolveQuery
	r.from(&place)
	q.FromRegion, q.FromZone = place.FromRegion, place.Zone
	if r.err != nil {
		return answer{}, r.err
	}
	w, st, err := d.Registry.WhatIf(ctx, q)
	if err != nil {
		return answer{}, err
	}
	w.Lost, w.Callers = some(w.Lost), some(w.Callers)
	w.Regions, w.Services, w.Views = some(w.Regions), some(w.Services), some(w.Views)
	return answer{body: &w, stamp: st}, nil
}

// losses reads ?lose=, ?lose_zone= and ?lose_link=, each any number of times.
func (r *request) losses() (out []api.Loss) {
	for _, s := range r.query.all("lose") {
		if !api.ValidLabel(s) {
			r.bad("lose", s, "name a region; a zone is lose_zone=REGION/ZONE, a link lose_link=REGION~REGION")
			return nil
		}
		out = append(out, api.Loss{Region: api.Region(s)})
	}
	for _, kind := range [...]struct {
		name  string
		parse func(string) (api.Loss, error)
	}{{"lose_zone", api.ParseLostZone}, {"lose_link", api.ParseLostLink}} {
		for _, s := range r.query.all(kind.name) {
			l, err := kind.parse(s)
			r.check(err)
			out = append(out, l)
		}
	}
	return out
}

// services reads ?service=, any number of times.
func (r *request) services() (out []api.ServiceName) {
	for _, s := range r.query.all("service") {
		r.check(api.CheckServiceName(s))
		out = append(out, api.ServiceName(s))
	}
	return out
}
