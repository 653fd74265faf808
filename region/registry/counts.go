package registry

import (
	"context"

	"github.com/nearside/nearside/sdk/api"
)

// RegionsOf is Regions with the counts of one namespace instead of all.
func (r *Registry) RegionsOf(ctx context.Context, ns api.Namespace) (api.RegionList, Stamp, error) {
	list, stamp, err := r.Regions(ctx)
	if err == nil {
		err = api.CheckNamespace(string(ns))
	}
	if err != nil {
		return api.RegionList{}, Stamp{}, err
	}
	for i := range list.Regions {
		r.narrow(&list.Regions[i], ns)
	}
	return list, stamp, nil
}

// RegionInfoOf is RegionInfo with the counts of one namespace instead of all.
func (r *Registry) RegionInfoOf(ctx context.Context, region api.Region, ns api.Namespace) (api.RegionInfo, Stamp, error) {
	info, stamp, err := r.RegionInfo(ctx, region)
	if err == nil {
		err = api.CheckNamespace(string(ns))
	}
	if err != nil {
		return api.RegionInfo{}, Stamp{}, err
	}
	r.narrow(&info, ns)
	return info, stamp, nil
}

// narrow counts what a region has of one namespace. Protection and checks stay: they are the
// region's.
func (r *Registry) narrow(info *api.RegionInfo, ns api.Namespace) {
	info.Namespace = ns
	info.Services, info.Instances, info.Passing, info.Overdue = 0, 0, 0, 0
	if !info.Self {
		for _, s := range r.cfg.Replicas.Services(info.Region) {
			if s.Namespace == ns {
				info.Services++
				info.Instances += s.Total
				info.Passing += s.Passing
			}
		}
		return
	}
	snap, overlay := r.Snapshot(), r.overlay.Load()
	for _, key := range snap.Services() {
		if key.Namespace != ns {
			continue
		}
		info.Services++
		instances, _ := snap.Service(key)
		for _, in := range instances {
			overdue := overlay.Overdue(in.Key(), in.Revision)
			switch {
			case overlay.Hidden(in.Key(), in.Revision):
				continue
			case overdue:
				info.Overdue++
			case in.Status.Usable():
				info.Passing++
			}
			info.Instances++
		}
	}
}
