package registry

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/sdk/api"
)

// fresh returns the head that a read with these options may use, and its source.
func (r *Registry) fresh(ctx context.Context, o ReadOptions) (*catalog.Snapshot, string, error) {
	if err := r.needLoaded(); err != nil {
		return nil, "", err
	}
	source := api.SourceMemory
	h := r.head.Load()
	if o.Strong {
		if err := r.needStore(); err != nil {
			return nil, "", err
		}
	}
	if o.Strong || o.MinRevision > h.snap.Version().Revision {
		ctx, cancel := context.WithTimeout(ctx, readDeadline)
		defer cancel()
		if o.Strong {
			revision, err := r.cfg.Store.Barrier(ctx)
			if err == nil {
				h, err = r.waitRevision(ctx, revision)
			}
			if err != nil {
				return nil, "", &api.Error{
					Code: api.CodeUnavailable, Detail: "a strong read needs the region's store, which does not answer",
					Remedy: "try again, or read with consistency=eventual",
				}
			}
			source = api.SourceStore
		}
		if o.MinRevision > h.snap.Version().Revision {
			reached, err := r.waitRevision(ctx, o.MinRevision)
			if err != nil {
				return nil, "", &api.Error{
					Code:   api.CodeRevisionNotReached,
					Detail: fmt.Sprintf("revision %d did not arrive in %s; this node is at %d", o.MinRevision, readDeadline, r.Snapshot().Version().Revision),
					Remedy: "try again, or ask the node that gave you the revision",
				}
			}
			h = reached
		}
	}
	return h.snap, source, nil
}

// Stamp says where the node's own catalogue stands.
func (r *Registry) Stamp() Stamp { return r.stamp(r.Snapshot(), api.SourceMemory) }

func (r *Registry) stamp(snap *catalog.Snapshot, source string) Stamp {
	st := Stamp{Version: snap.Version(), Age: r.health.age(), Source: source, Region: r.cfg.Region}
	if c := r.copyOf(snap); c != nil {
		st.Age, st.Source = c.age(), api.SourceSnapshot
	}
	return st
}

// Get returns one instance of this region, and where the catalogue stood that it was read
// from.
func (r *Registry) Get(ctx context.Context, key api.InstanceKey, o ReadOptions) (api.Instance, Stamp, error) {
	if err := r.begin(ctx, VerbRead, &key); err != nil {
		return api.Instance{}, Stamp{}, err
	}
	snap, source, err := r.fresh(ctx, o)
	if err != nil {
		return api.Instance{}, Stamp{}, err
	}
	overlay := r.overlay.Load()
	in := snap.Instance(key)
	if in == nil || overlay.Hidden(key, in.Revision) {
		return api.Instance{}, Stamp{}, OrNotInCopy(r.stamp(snap, source), notFound(key))
	}
	out := *in
	out.Overdue = overlay.Overdue(key, in.Revision)
	r.checks.show(&out)
	return out, r.stamp(snap, source), nil
}

// ListServices returns a page of the services of a namespace that any region has, by name, with
// this region's instances counted by status.
func (r *Registry) ListServices(ctx context.Context, q ServicesQuery) (api.ServiceList, Stamp, error) {
	ns := orDefault(q.Namespace)
	if err := r.authorize(ctx, VerbRead, ns); err != nil {
		return api.ServiceList{}, Stamp{}, err
	}
	if err := api.CheckNamespace(string(ns)); err != nil {
		return api.ServiceList{}, Stamp{}, err
	}
	if q.Cursor != "" && !api.ValidLabel(q.Cursor) {
		return api.ServiceList{}, Stamp{}, wrongCursor()
	}
	snap, source, err := r.fresh(ctx, q.ReadOptions)
	if err != nil {
		return api.ServiceList{}, Stamp{}, err
	}
	regions := map[api.ServiceName][]api.Region{} // that have it, beside this one
	for _, key := range snap.Services() {
		if key.Namespace == ns {
			regions[key.Service] = nil
		}
	}
	for _, o := range r.origins() {
		for _, s := range r.cfg.Replicas.Services(o.Region) {
			if s.Namespace == ns {
				regions[s.Service] = append(regions[s.Service], o.Region)
			}
		}
	}
	names := slices.Sorted(maps.Keys(regions))
	begin, _ := slices.BinarySearch(names, api.ServiceName(q.Cursor))
	if begin < len(names) && names[begin] == api.ServiceName(q.Cursor) {
		begin++
	}
	names = names[begin:]
	out := api.ServiceList{Services: []api.ServiceCount{}}
	limit := api.DefaultServiceLimit
	if q.Limit > 0 {
		limit = listLimit(q.Limit)
	}
	if len(names) > limit {
		names = names[:limit]
		out.Cursor = string(names[limit-1])
	}
	for _, name := range names {
		c := r.count(snap, api.ServiceKey{Namespace: ns, Service: name})
		c.Regions = append(c.Regions, regions[name]...)
		out.Services = append(out.Services, c)
	}
	return out, r.stamp(snap, source), nil
}

// count counts this region's instances of a service by status.
func (r *Registry) count(snap *catalog.Snapshot, key api.ServiceKey) api.ServiceCount {
	c := api.ServiceCount{Namespace: key.Namespace, Service: key.Service, Statuses: map[api.Status]int{}}
	overlay := r.overlay.Load()
	list, _ := snap.Service(key)
	for _, in := range list {
		k := in.Key()
		if overlay.Hidden(k, in.Revision) {
			continue
		}
		c.Instances++
		c.Statuses[in.Status]++
		switch {
		case overlay.Overdue(k, in.Revision):
			c.Overdue++
		case in.Status == api.StatusPassing:
			c.Passing++
		}
	}
	if c.Instances > 0 {
		c.Regions = append(c.Regions, r.cfg.Region)
	}
	return c
}

// listLimit is how long a page is for what was asked for; 0 = not said.
func listLimit(asked int) int {
	if asked <= 0 {
		return api.DefaultListLimit
	}
	return min(asked, api.MaxListLimit)
}

func wrongCursor() error {
	return &api.Error{
		Code: api.CodeInvalidRequest, Field: "cursor", Detail: "the cursor is not one of ours", Remedy: "use the cursor of the page before, or none",
	}
}

func orDefault(ns api.Namespace) api.Namespace {
	if ns == "" {
		return api.DefaultNamespace
	}
	return ns
}

// origins returns the other regions, none without a federation.
func (r *Registry) origins() []api.Origin {
	if r.cfg.Replicas == nil {
		return nil
	}
	return r.steer(r.cfg.Replicas.Origins())
}

// ListInstances returns a page of the instances of a service: of this region, or of
// another one as its last summary told them. A service that no region knows is
// CodeServiceNotFound; one that only others have is an empty list.
func (r *Registry) ListInstances(ctx context.Context, q InstancesQuery) (api.InstanceList, Stamp, error) {
	key := api.ServiceKey{Namespace: orDefault(q.Namespace), Service: q.Service}
	if err := r.authorize(ctx, VerbRead, key.Namespace, key.Service); err != nil {
		return api.InstanceList{}, Stamp{}, err
	}
	if err := checkService(key.Namespace, key.Service); err != nil {
		return api.InstanceList{}, Stamp{}, err
	}
	if q.Cursor != "" && !api.ValidInstanceID(q.Cursor) {
		return api.InstanceList{}, Stamp{}, wrongCursor()
	}
	far := q.Region != "" && q.Region != r.cfg.Region
	if far && q.ReadOptions != (ReadOptions{}) {
		return api.InstanceList{}, Stamp{}, r.notHere(q.Region, q.ReadOptions)
	}
	done, err := r.useFilter(ctx, &q)
	if err != nil {
		return api.InstanceList{}, Stamp{}, err
	}
	snap, source, err := r.fresh(ctx, q.ReadOptions)
	if err != nil {
		return api.InstanceList{}, Stamp{}, err
	}
	if far {
		list, stamp, err := r.listReplica(key, q, snap)
		return list, stamp, cmp.Or(err, done())
	}
	list, _ := snap.Service(key)
	if len(list) == 0 && len(r.lookup(key)) == 0 {
		return api.InstanceList{}, Stamp{}, OrNotInCopy(r.stamp(snap, source), serviceNotFound(key))
	}
	overlay := r.overlay.Load()
	out := api.InstanceList{Service: key.Service, Namespace: key.Namespace, Region: r.cfg.Region, Complete: true}
	page(&out, q, len(list), func(i int) (api.Instance, bool) {
		in := *list[i]
		k := in.Key()
		in.Overdue = overlay.Overdue(k, in.Revision)
		return in, !overlay.Hidden(k, in.Revision)
	})
	for i := range out.Instances { // of the page alone: no filter looks at what checks last found
		r.checks.show(&out.Instances[i])
	}
	return out, r.stamp(snap, source), done()
}

func (r *Registry) lookup(key api.ServiceKey) []api.Replica {
	if r.cfg.Replicas == nil {
		return nil
	}
	return r.cfg.Replicas.Lookup(key)
}

// listReplica lists what the replica of another region holds of the service.
func (r *Registry) listReplica(key api.ServiceKey, q InstancesQuery, snap *catalog.Snapshot) (api.InstanceList, Stamp, error) {
	origin := findOrigin(r.origins(), q.Region)
	if origin == nil {
		return api.InstanceList{}, Stamp{}, regionNotFound(q.Region)
	}
	out := api.InstanceList{Service: key.Service, Namespace: key.Namespace, Region: origin.Region, Instances: []api.Instance{}, Complete: origin.Complete}
	known := false
	if list, _ := snap.Service(key); len(list) > 0 {
		known = true
	}
	for _, rep := range r.lookup(key) {
		known = known || rep.Summary != nil
		if rep.Origin.Region != origin.Region || rep.Summary == nil {
			continue
		}
		s := rep.Summary
		out.Complete = s.Complete
		eps := slices.Clone(s.Endpoints)
		slices.SortFunc(eps, func(a, b api.Endpoint) int { return compareIDs(a.ID, b.ID) })
		page(&out, q, len(eps), func(i int) (api.Instance, bool) { return instanceOf(key, origin.Region, &eps[i], s.Revision), true })
	}
	if !known {
		return api.InstanceList{}, Stamp{}, OrNotInCopy(r.stamp(snap, api.SourceMemory), serviceNotFound(key))
	}
	return out, stampOf(origin), nil
}

// notHere refuses to promise of another region what only its own nodes can: its summary is
// as old as its age says, and this region's revisions do not count there.
func (r *Registry) notHere(region api.Region, o ReadOptions) error {
	e := &api.Error{
		Code: api.CodeUnsupported, Field: "consistency",
		Detail: fmt.Sprintf("this node knows region %s by its summary only, which cannot be read with consistency=strong", region),
	}
	if !o.Strong {
		e.Field, e.Detail = "min_revision", fmt.Sprintf("this node knows region %s by its summary only, and waits for no revision of it", region)
	}
	e.Remedy = fmt.Sprintf("ask a node of region %s, or leave %s out and look at the age", region, e.Field)
	if origin := findOrigin(r.origins(), region); origin == nil {
		return regionNotFound(region)
	} else if len(origin.Addresses) > 0 {
		e.Remedy = fmt.Sprintf("ask a node of region %s, such as %s, or leave %s out and look at the age", region, origin.Addresses[0], e.Field)
	}
	return e
}

func stampOf(o *api.Origin) Stamp {
	return Stamp{Version: o.Version(), Age: ageOf(o), Source: cmp.Or(o.Source, api.SourceReplica), Region: o.Region}
}

// instanceOf shows another region's endpoint as an instance: what a summary does not tell
// stays zero, and is left out of the answer.
func instanceOf(key api.ServiceKey, region api.Region, e *api.Endpoint, revision uint64) api.Instance {
	return api.Instance{
		Namespace: key.Namespace, Service: key.Service, ID: e.ID, Region: region, Zone: e.Zone, Address: e.Address, Port: e.Port,
		Ports: e.Ports, Weight: e.Weight, Capacity: e.Capacity, Version: e.Version, Tags: e.Tags, Metadata: e.Metadata,
		Status: e.Status, Overdue: e.Overdue, Revision: revision,
	}
}

// page fills out with the instances after the cursor that match, in id order. at returns
// the i-th of n instances and whether it may be shown.
func page(out *api.InstanceList, q InstancesQuery, n int, at func(i int) (api.Instance, bool)) {
	limit := listLimit(q.Limit)
	out.Instances = []api.Instance{}
	for i := range n {
		in, ok := at(i)
		if !ok || string(in.ID) <= q.Cursor || !q.matches(&in) {
			continue
		}
		if len(out.Instances) == limit {
			out.Cursor = string(out.Instances[limit-1].ID)
			return
		}
		out.Instances = append(out.Instances, in)
	}
}

func (q *InstancesQuery) matches(in *api.Instance) bool {
	return (len(q.Statuses) == 0 || slices.Contains(q.Statuses, in.Status)) &&
		(q.Zone == "" || in.Zone == q.Zone) &&
		(q.Tag == "" || slices.Contains(in.Tags, q.Tag)) &&
		(q.filter == nil || q.filter(in))
}

func findOrigin(origins []api.Origin, region api.Region) *api.Origin {
	for i := range origins {
		if origins[i].Region == region {
			return &origins[i]
		}
	}
	return nil
}

func serviceNotFound(key api.ServiceKey) error {
	return &api.Error{
		Code: api.CodeServiceNotFound, Detail: fmt.Sprintf("no region known has service %s", api.Quote(key.String())),
		Remedy: "check its name and namespace; it appears with its first registration",
	}
}

func regionNotFound(region api.Region) error {
	return &api.Error{
		Code: api.CodeRegionNotFound, Detail: fmt.Sprintf("region %s is not known here", api.Quote(string(region))),
		Remedy: "GET /v1/regions lists the regions",
	}
}
