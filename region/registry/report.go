package registry

import (
	"context"
	"fmt"
	"time"

	"github.com/nearside/nearside/region/liveness"
	"github.com/nearside/nearside/region/liveness/owner"
	"github.com/nearside/nearside/sdk/api"
)

// reportWait is how long the owner waits for the records that a report is about.
const reportWait = 500 * time.Millisecond

// Report takes what another node of the region tells this one, which owns liveness, or
// refuses with CodeConflict (it does not own it) or CodeUnavailable (it cannot tell now). Heartbeats of a report
// that is answered count, but those that the answer refuses.
func (r *Registry) Report(ctx context.Context, node string, rep api.NodeReport) (api.NodeAnswer, error) {
	if err := r.cfg.Authorizer.Authorize(ctx, Access{Verb: VerbNode}); err != nil {
		return api.NodeAnswer{}, err
	}
	if err := api.CheckNode(node); err != nil {
		return api.NodeAnswer{}, err
	}
	if err := rep.Validate(); err != nil {
		return api.NodeAnswer{}, err
	}
	if err := r.needStore(); err != nil {
		return api.NodeAnswer{}, err
	}
	o := r.own
	switch {
	case o.alone:
		return api.NodeAnswer{}, &api.Error{
			Code: api.CodeUnsupported, Detail: "this node is the only one of its region", Remedy: "give every node of the region the same --cluster or --etcd-endpoints",
		}
	case node == o.cfg.Self.Name:
		return api.NodeAnswer{}, &api.Error{
			Code: api.CodeConflict, Detail: fmt.Sprintf("two nodes of the region are called %s", node), Remedy: "give each node its own --node",
		}
	}
	claim := o.claim.Load()
	if !claim.mine || !o.holds(r.now()) || rep.Term != claim.Term {
		return api.NodeAnswer{}, notOwner(claim)
	}
	switch same, ok := o.noteNode(r.now(), owner.Node{Name: node, Address: rep.Address}, rep.Leaving); {
	case !ok:
		return api.NodeAnswer{}, &api.Error{
			Code: api.CodeConflict, Detail: fmt.Sprintf("the owner of liveness hears of %d other nodes, and lists no more", maxNodes), Remedy: "run fewer nodes in one region",
		}
	case !same:
		o.hasten()
	}
	if err := r.seenBy(ctx, &rep); err != nil {
		return api.NodeAnswer{}, err
	}
	results, ok := r.takeSigns(ctx, rep.Heartbeats)
	if !ok {
		return api.NodeAnswer{}, notOwner(claim)
	}
	v := r.Snapshot().Version()
	out := api.NodeAnswer{Term: claim.Term, Epoch: v.Epoch, Revision: v.Revision, Protection: *r.protection(), TakesLoads: true}
	for i, t := range results {
		if t.code != "" {
			out.Refused = append(out.Refused, api.NodeRefusal{Index: i, Code: t.code, Incarnation: t.incarnation})
		}
	}
	if rep.Loads {
		out.Loads = r.serviceLoads()
	}
	r.ledgerMu.Lock()
	defer r.ledgerMu.Unlock()
	for i := range rep.Checks {
		if !r.owning {
			break // the node tells the next owner again
		}
		r.condemnHere(rep.Checks[i].Key(), rep.Checks[i].Revision, rep.Checks[i].Pardon)
	}
	if rep.Overlay != nil && *rep.Overlay != r.overlayVersion {
		out.Overlay = overlayOf(r.overlay.Load(), r.overlayVersion)
	}
	return out, nil
}

func notOwner(c *claimRecord) error {
	if c.mine {
		return &api.Error{Code: api.CodeUnavailable, Detail: "the store has not confirmed for a while that this node owns liveness", Remedy: "send it again"}
	}
	return &api.Error{Code: api.CodeConflict, Detail: "this node does not own liveness", Remedy: "look at the claim again"}
}

// noteNode notes that a node lives, or leaves. same is false when that changes who lives, ok when there
// is no room for one more.
func (o *ownership) noteNode(now time.Duration, n owner.Node, leaving bool) (same, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	old, known := o.live[n.Name]
	if leaving {
		delete(o.live, n.Name)
		return !known, true
	}
	if !known && len(o.live) >= maxNodes {
		return true, false
	}
	o.live[n.Name] = liveNode{n, now}
	return known && old.node == n, true
}

// seenBy waits until this node has seen the records that a report is about.
func (r *Registry) seenBy(ctx context.Context, rep *api.NodeReport) error {
	if len(rep.Heartbeats)+len(rep.Checks) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, reportWait)
	defer cancel()
	for {
		h := r.head.Load()
		v := h.snap.Version()
		if v.Epoch == rep.Epoch && v.Revision >= rep.Revision {
			return nil
		}
		if r.waitChange(ctx, h) != nil {
			return api.Errorf(api.CodeUnavailable, "the owner of liveness is at %s and has not seen revision %d of epoch %s yet", v, rep.Revision, rep.Epoch)
		}
	}
}

func overlayOf(o *liveness.Overlay, version uint64) *api.NodeOverlay {
	out := &api.NodeOverlay{Version: version}
	o.EachHidden(func(k api.InstanceKey, revision uint64) { out.Hidden = append(out.Hidden, api.RefOf(k, revision)) })
	o.EachOverdue(func(k api.InstanceKey, revision uint64) { out.Overdue = append(out.Overdue, api.RefOf(k, revision)) })
	return out
}

// Nodes returns the nodes of the region that its owner of liveness hears of, by name. For a node
// that is alone that is itself.
func (r *Registry) Nodes() []api.NodeInfo { return r.nodeInfos() }

// nodeInfos shows the nodes of the region.
func (r *Registry) nodeInfos() []api.NodeInfo {
	claim := r.own.claim.Load()
	var out []api.NodeInfo
	for _, n := range r.own.members.Load().nodes {
		out = append(out, api.NodeInfo{Node: n.Name, Address: n.Address, Owner: n.Name == claim.Node.Name, Self: n.Name == r.cfg.Node})
	}
	return out
}

// livenessInfo shows who owns liveness.
func (r *Registry) livenessInfo() *api.LivenessInfo {
	c := r.own.claim.Load()
	info := &api.LivenessInfo{Owner: c.Node.Name, Address: c.Node.Address, Term: c.Term, Cause: c.Cause}
	if !c.Since.IsZero() {
		info.Since = &c.Since
	}
	if r.own.alone {
		info.Reached, info.Why = true, "this node is the only one of its region"
		return info
	}
	if info.Why = r.ownerTrouble(); info.Why == "" {
		info.Reached = true
		info.Why = fmt.Sprintf("node %s holds the deadlines of heartbeats and decides evictions", c.Node.Name)
	}
	return info
}

// ownerTrouble returns "", or why heartbeats sent to this node do not count at the moment.
func (r *Registry) ownerTrouble() string {
	c := r.own.claim.Load()
	now := r.now()
	if r.own.holds(now) {
		return ""
	}
	if v := r.forward.remote.Load(); !c.mine && v != nil && v.term == c.Term && now-v.at < nodeSilence {
		return ""
	}
	return r.forward.why(c)
}
