package registry

import (
	"context"
	"fmt"

	"github.com/nearside/nearside/sdk/api"
)

// Members is the cluster that keeps a region's records, one member on each of its nodes. All methods
// are safe for concurrent use, return when ctx ends, and return *api.Error where the caller can
// do something about it.
type Members interface {
	// List returns the members by node name, as a quorum of them has it. Which of them
	// answers is found out now.
	List(ctx context.Context) ([]api.Member, error)
	// Add lists a node's member as a learner; it becomes a voter by itself once it has started
	// and caught up. Adding what is listed so already changes nothing. api.CodeConflict:
	// another learner is pending, or node or address are taken.
	Add(ctx context.Context, node, address string) (api.Member, error)
	// Remove strikes a member off; one that leads hands over first. api.CodeConflict: the
	// members that answer would be no quorum without it, unless force. api.CodeNotFound: there
	// is no such member.
	Remove(ctx context.Context, node string, force bool) error
}

// ListMembers returns the members of this region's cluster. Nothing of it comes from the
// catalogue, so it is told also while that is not loaded.
func (r *Registry) ListMembers(ctx context.Context, region api.Region) (api.MemberList, Stamp, error) {
	m, err := r.members(ctx, region)
	if err != nil {
		return api.MemberList{}, Stamp{}, err
	}
	list, err := m.List(ctx)
	if err != nil {
		return api.MemberList{}, Stamp{}, err
	}
	st := r.Stamp()
	st.Source = api.SourceStore
	return api.MemberList{Region: r.cfg.Region, Members: list}, st, nil
}

// AddMember lists a node's member as a learner; created is false when it was listed already.
func (r *Registry) AddMember(ctx context.Context, region api.Region, add api.MemberAdd) (m api.Member, created bool, err error) {
	members, err := r.members(ctx, region)
	if err != nil {
		return m, false, err
	}
	if m, err = members.Add(ctx, add.Node, add.Address); err != nil || m.Started {
		return m, false, err
	}
	r.tellMember(ctx, api.EventMemberAdd, add.Node, "at "+add.Address+", as a learner until it has caught up")
	return m, true, nil
}

// RemoveMember strikes a member off, by its node's name, address or id.
func (r *Registry) RemoveMember(ctx context.Context, region api.Region, node string, force bool) error {
	members, err := r.members(ctx, region)
	if err != nil {
		return err
	}
	if err := members.Remove(ctx, node, force); err != nil {
		return err
	}
	detail := ""
	if force {
		detail = "forced"
	}
	r.tellMember(ctx, api.EventMemberRemove, node, detail)
	return nil
}

// members is the common start of these use cases.
func (r *Registry) members(ctx context.Context, region api.Region) (Members, error) {
	if err := r.authorize(ctx, VerbOperate, ""); err != nil {
		return nil, err
	}
	switch {
	case region != r.cfg.Region:
		return nil, &api.Error{
			Code: api.CodeRegionNotFound, Detail: fmt.Sprintf("this node is of region %s and cannot tell the members of %s", r.cfg.Region, api.Quote(string(region))),
			Remedy: "ask a node of that region",
		}
	case r.cfg.Members == nil:
		return nil, &api.Error{
			Code: api.CodeUnsupported, Detail: "this region's store is not a cluster of its nodes",
			Remedy: "start its node with --cluster to make it one; the members of an external etcd are changed with etcdctl",
		}
	}
	return r.cfg.Members, nil
}

func (r *Registry) tellMember(ctx context.Context, kind api.EventKind, node, detail string) {
	actor, _ := ctx.Value(actorKey{}).(string)
	r.Record(api.Event{Kind: kind, Subject: node, Actor: actor, Detail: detail, Cause: api.EventCause{Kind: api.BecauseRequest}})
}
