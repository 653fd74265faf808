package httpapi

import (
	"context"
	"net/http"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/sdk/api"
)

func (d *door) regions(ctx context.Context, r *request) (answer, error) {
	ns := r.onlyNamespace()
	if r.err != nil {
		return answer{}, r.err
	}
	list := d.Registry.Regions
	if ns != "" {
		list = func(ctx context.Context) (api.RegionList, registry.Stamp, error) {
			return d.Registry.RegionsOf(ctx, ns)
		}
	}
	l, st, err := list(ctx)
	if err != nil {
		return answer{}, err
	}
	l.Regions = some(l.Regions)
	return answer{body: &l, stamp: st}, nil
}

func (d *door) regionInfo(ctx context.Context, r *request) (answer, error) {
	name := r.path("region")
	r.check(api.CheckRegion(name))
	ns := r.onlyNamespace()
	if r.err != nil {
		return answer{}, r.err
	}
	one := d.Registry.RegionInfo
	if ns != "" {
		one = func(ctx context.Context, region api.Region) (api.RegionInfo, registry.Stamp, error) {
			return d.Registry.RegionInfoOf(ctx, region, ns)
		}
	}
	info, st, err := one(ctx, api.Region(name))
	if err != nil {
		return answer{}, err
	}
	return answer{body: &info, stamp: st}, nil
}

func (d *door) limits(context.Context, *request) (answer, error) {
	l := d.Registry.Limits()
	if d.KV != nil {
		d.KV.Limits(&l)
	}
	l.WatchesPerClient, l.HeaderBytes = d.crowd.most(), maxHeaderBytes
	return answer{body: &l, stamp: d.Registry.Stamp()}, nil
}

// liveness is the body of GET /livez.
type liveness struct {
	Live   bool       `json:"live"`
	Region api.Region `json:"region"`
	Node   string     `json:"node"`
}

// livez says that the process serves requests, and nothing more: a supervisor that
// restarts a node for a lost store would only make it forget.
func (d *door) livez(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, jsonType, liveness{true, d.Region, d.Node})
}

func (d *door) readyz(w http.ResponseWriter, _ *http.Request) error {
	ready := d.Registry.Readiness()
	ready.Checks = some(ready.Checks)
	status := http.StatusOK
	if !ready.Ready {
		status = http.StatusServiceUnavailable
	}
	return writeJSON(w, status, jsonType, &ready)
}

func (d *door) exportMetrics(w http.ResponseWriter, r *http.Request) error {
	if d.Metrics == nil {
		return &api.Error{Code: api.CodeNotFound, Detail: "this node does not export metrics", Remedy: "switch them on in its configuration"}
	}
	d.Metrics.ServeHTTP(w, r)
	return nil
}
