package registry

import (
	"context"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/sdk/api"
)

// Regions lists every region known, the own one first.
func (r *Registry) Regions(ctx context.Context) (api.RegionList, Stamp, error) {
	snap, err := r.beginRegion(ctx)
	if err != nil {
		return api.RegionList{}, Stamp{}, err
	}
	out := api.RegionList{Home: r.cfg.Region, Regions: []api.RegionInfo{r.selfInfo(snap)}}
	links := r.links()
	for _, o := range r.origins() {
		out.Regions = append(out.Regions, r.originInfo(o, links))
	}
	return out, r.stamp(snap, api.SourceMemory), nil
}

// RegionInfo returns one region, stamped as what is known of it.
func (r *Registry) RegionInfo(ctx context.Context, region api.Region) (api.RegionInfo, Stamp, error) {
	snap, err := r.beginRegion(ctx)
	if err != nil {
		return api.RegionInfo{}, Stamp{}, err
	}
	if region == r.cfg.Region {
		return r.selfInfo(snap), r.stamp(snap, api.SourceMemory), nil
	}
	o := findOrigin(r.origins(), region)
	if o == nil {
		return api.RegionInfo{}, Stamp{}, regionNotFound(region)
	}
	return r.originInfo(*o, r.links()), stampOf(o), nil
}

// Federation shows the links to other regions and the readers of this one's summaries.
func (r *Registry) Federation(ctx context.Context) (api.FederationInfo, Stamp, error) {
	snap, err := r.beginRegion(ctx)
	if err != nil {
		return api.FederationInfo{}, Stamp{}, err
	}
	out := api.FederationInfo{}
	if r.cfg.Replicas != nil {
		out = r.cfg.Replicas.Info()
		out.Enabled = true
	}
	if out.Links == nil {
		out.Links = []api.LinkInfo{}
	}
	if out.Readers == nil {
		out.Readers = []api.ReaderInfo{}
	}
	for i := range out.Links {
		l := &out.Links[i]
		l.Replica.Drained = max(l.Replica.Drained, r.drained(l.Peer))
	}
	v := snap.Version()
	out.Region, out.Epoch, out.Revision = v.Region, v.Epoch, v.Revision
	return out, r.stamp(snap, api.SourceMemory), nil
}

// beginRegion is the common start of the use cases that concern whole regions.
func (r *Registry) beginRegion(ctx context.Context) (*catalog.Snapshot, error) {
	if err := r.authorize(ctx, VerbRead, ""); err != nil {
		return nil, err
	}
	if err := r.needLoaded(); err != nil {
		return nil, err
	}
	return r.Snapshot(), nil
}

func (r *Registry) selfInfo(snap *catalog.Snapshot) api.RegionInfo {
	services, instances := snap.Len()
	counts := snap.Counts().ByStatus
	info := api.RegionInfo{
		Origin: r.self(snap), Self: true, Services: services, Instances: instances,
		Passing: counts[api.StatusPassing] + counts[api.StatusWarning], Protection: r.protection(), Checks: r.checks.info(),
		Liveness: r.livenessInfo(), Nodes: r.nodeInfos(),
	}
	r.overlay.Load().EachHidden(func(k api.InstanceKey, revision uint64) {
		if in := snap.Instance(k); in != nil && in.Revision == revision {
			info.Instances--
			if in.Status.Usable() {
				info.Passing--
			}
		}
	})
	r.overlay.Load().EachOverdue(func(k api.InstanceKey, revision uint64) {
		if in := snap.Instance(k); in != nil && in.Revision == revision {
			info.Overdue++
			if in.Status.Usable() {
				info.Passing--
			}
		}
	})
	return info
}

func (r *Registry) originInfo(o api.Origin, links map[api.Region]api.LinkInfo) api.RegionInfo {
	l := links[o.Region]
	info := api.RegionInfo{Origin: o, Link: l.State, Verdict: l.Verdict}
	for _, s := range r.cfg.Replicas.Services(o.Region) {
		info.Services++
		info.Instances += s.Total
		info.Passing += s.Passing
	}
	return info
}

func (r *Registry) links() map[api.Region]api.LinkInfo {
	if r.cfg.Replicas == nil {
		return nil
	}
	links := map[api.Region]api.LinkInfo{}
	for _, l := range r.cfg.Replicas.Info().Links {
		links[l.Peer] = l
	}
	return links
}
