package registry

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/region/liveness"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

// RemoveService removes the instances that a service has at the call, of whatever
// incarnation, and returns how many. It is an operator's wish: the watchers of this region get
// the cause "planned", and other regions follow at once instead of holding the removal back as
// they do when a region seems to lose much at a time (I7). Removing a service that is not there
// is CodeServiceNotFound. On an error some instances may be gone; the same call again removes
// the others. A program that still runs registers again.
func (r *Registry) RemoveService(ctx context.Context, ns api.Namespace, service api.ServiceName) (api.ServiceRemoved, error) {
	if ns == "" {
		ns = api.DefaultNamespace
	}
	out := api.ServiceRemoved{Namespace: ns, Service: service}
	if err := r.authorize(ctx, VerbOperate, ns, service); err != nil {
		return out, err
	}
	if err := checkService(ns, service); err != nil {
		return out, err
	}
	if err := r.needLoaded(); err != nil {
		return out, err
	}
	key := api.ServiceKey{Namespace: ns, Service: service}
	// What other nodes acknowledged before the call is removed too.
	if _, err := r.confirmed(ctx); err != nil {
		return out, err
	}
	instances, _ := r.Snapshot().Service(key)
	if len(instances) == 0 {
		return out, &api.Error{
			Code: api.CodeServiceNotFound, Detail: fmt.Sprintf("region %s has no instance of %s", r.cfg.Region, key),
			Remedy: "nothing is left to do, unless the name or the namespace is another one",
		}
	}
	ids := make([]api.InstanceID, len(instances))
	for i, in := range instances {
		ids[i] = in.ID
		defer r.acting(ctx, in.Key())()
	}
	slices.SortFunc(ids, func(a, b api.InstanceID) int { return strings.Compare(string(a), string(b)) })
	for part := range slices.Chunk(ids, evictBatch) {
		var members []liveness.Member
		_, revision, err := r.write(ctx, func(snap *catalog.Snapshot) ([]store.Op, error) {
			members = nil
			for _, id := range part {
				if in := snap.Instance(api.InstanceKey{Namespace: ns, Service: service, ID: id}); in != nil {
					members = append(members, member(in))
				}
			}
			if len(members) == 0 {
				return nil, nil
			}
			return departureOps(api.CausePlanned, members)
		})
		if err != nil {
			return out, err
		}
		if len(members) > 0 {
			out.Removed += len(members)
			out.Revision = revision
		}
	}
	r.counts.deregistered.Add(int64(out.Removed))
	r.log.Info("service removed", "service", key.String(), "instances", out.Removed, "revision", out.Revision)
	return out, nil
}

// PlannedSince returns the services that lost instances after the version, all of them because
// an operator said so; none when that is not known any more.
func (r *Registry) PlannedSince(after api.Version) map[api.ServiceKey]struct{} {
	r.mu.RLock()
	defer r.mu.RUnlock()
	v := r.head.Load().snap.Version()
	if after.Region != v.Region || after.Epoch != v.Epoch {
		return nil
	}
	return r.history.PlannedSince(after.Revision)
}
