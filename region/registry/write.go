package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/region/liveness"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

// begin is the common start of every use case that concerns one instance.
func (r *Registry) begin(ctx context.Context, verb Verb, key *api.InstanceKey) error {
	if key.Namespace == "" {
		key.Namespace = api.DefaultNamespace
	}
	if err := r.authorize(ctx, verb, key.Namespace, key.Service); err != nil {
		return err
	}
	if err := checkService(key.Namespace, key.Service); err != nil {
		return err
	}
	if err := api.CheckInstanceID(string(key.ID)); err != nil {
		return err
	}
	return r.needLoaded()
}

func checkService(ns api.Namespace, service api.ServiceName) error {
	if err := api.CheckNamespace(string(ns)); err != nil {
		return err
	}
	return api.CheckServiceName(string(service))
}

func deletesOf(ops []store.Op) []store.Op {
	var out []store.Op
	for _, op := range ops {
		if op.Delete {
			out = append(out, op)
		}
	}
	return out
}

// commit writes to the store within writeDeadline and notes how that went. Errors are the
// store's own.
func (r *Registry) commit(ctx context.Context, ops []store.Op) (uint64, error) {
	wctx, cancel := context.WithTimeout(ctx, writeDeadline)
	defer cancel()
	revision, err := r.cfg.Store.Commit(wctx, ops)
	if err == nil && len(deletesOf(ops)) < len(ops) {
		r.health.hasSpace(r.log)
	}
	if ctx.Err() == nil { // a caller that hung up says nothing of the store
		r.health.note(err, r.log)
	}
	return revision, err
}

// write commits what decide returns for the newest snapshot, and again when another write
// came between. decide returns no operation when there is nothing to do. After a write the
// head that shows it is returned (a client's next read on this node sees its write); else
// nil.
func (r *Registry) write(ctx context.Context, decide func(*catalog.Snapshot) ([]store.Op, error)) (*head, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, writeDeadline)
	defer cancel()
	for {
		h := r.head.Load()
		ops, err := decide(h.snap)
		if err != nil || len(ops) == 0 {
			return nil, 0, err
		}
		revision, err := r.group.propose(ctx, ops)
		switch {
		case err == nil:
			shown, err := r.waitRevision(ctx, revision)
			if err != nil {
				return nil, 0, r.behind(err)
			}
			return shown, revision, nil
		case errors.Is(err, store.ErrConflict):
			// The store is ahead of this node's memory: decide anew once it has caught up.
			if err := r.waitChange(ctx, h); err != nil {
				return nil, 0, r.behind(err)
			}
		default:
			return nil, 0, r.storeError(err)
		}
	}
}

// behind is the error of a write whose result does not reach this node's memory in time.
func (r *Registry) behind(err error) error {
	var answer *api.Error
	if errors.As(err, &answer) {
		return err
	}
	return &api.Error{
		Code: api.CodeUnavailable, Detail: "this node is behind its store; the write may have happened or not",
		Remedy: "send it again: it is safe to repeat. Or ask another node",
	}
}

// Register stores an instance, or refreshes it: the same content again costs no write and
// is a heartbeat, and so is any other that is acknowledged. created tells that the id was not registered. A lower incarnation
// than the stored one is refused (P9); a higher one starts the instance anew. Once it
// returned without an error, the instance is kept until it deregisters or sends no
// heartbeat for its TTL (P1), and reads on this node show it.
func (r *Registry) Register(ctx context.Context, key api.InstanceKey, reg api.Registration) (inst api.Instance, created bool, err error) {
	if err := r.begin(ctx, VerbRegister, &key); err != nil {
		return api.Instance{}, false, err
	}
	defer r.acting(ctx, key)()
	if reg, err = reg.Normalize(); err != nil {
		return api.Instance{}, false, err
	}
	if err := r.checks.admit(&reg); err != nil {
		return api.Instance{}, false, err
	}
	var next api.Instance
	h, revision, err := r.write(ctx, func(snap *catalog.Snapshot) ([]store.Op, error) {
		cur := snap.Instance(key)
		if cur != nil && reg.Incarnation != 0 && reg.Incarnation < cur.Incarnation {
			return nil, stale(cur)
		}
		next = r.merge(cur, key, reg)
		withChecks(cur, &next, time.Now().UTC().Truncate(time.Millisecond))
		created = cur == nil
		// A sign of life, whatever it says: the store's watch cannot tell a status that the
		// instance reports from one that an operator sets. Refused here means that an
		// eviction is decided, perhaps on its way to the store: only a newer record stops it.
		if cur != nil && r.heard(key) && unchanged(cur, &next) {
			next = *cur
			return nil, nil
		}
		value, err := catalog.EncodeInstance(next)
		if err != nil {
			return nil, err
		}
		return []store.Op{{Key: catalog.InstanceRecordKey(key), Value: value, Guarded: true, If: snap.Guard(key)}}, nil
	})
	if err != nil {
		return api.Instance{}, false, err
	}
	if h == nil {
		r.counts.refreshed.Add(1)
		return next, false, nil
	}
	next.Revision = revision
	r.heard(key) // the TTL runs from the acknowledgement
	if created {
		r.counts.created.Add(1)
	} else {
		r.counts.changed.Add(1)
	}
	r.log.Info("instance registered", "instance", key.String(), "revision", revision, "incarnation", next.Incarnation, "created", created)
	return next, created, nil
}

// merge returns the instance that registering reg over cur (nil when new) gives.
func (r *Registry) merge(cur *api.Instance, key api.InstanceKey, reg api.Registration) api.Instance {
	now := time.Now().UTC().Truncate(time.Millisecond)
	next := api.Instance{
		Namespace: key.Namespace, Service: key.Service, ID: key.ID, Region: r.cfg.Region, Zone: reg.Zone,
		Address: reg.Address, Port: reg.Port, Ports: reg.Ports, Weight: *reg.Weight, Capacity: reg.Capacity,
		Version: reg.Version, Tags: reg.Tags, Metadata: reg.Metadata, TTL: reg.TTL, Checks: reg.Checks,
		Incarnation: max(reg.Incarnation, 1), Status: reg.Status, StatusSince: now, RegisteredAt: now,
	}
	if cur == nil {
		return next
	}
	next.Incarnation = max(reg.Incarnation, cur.Incarnation)
	if next.Incarnation > cur.Incarnation {
		return next // the program started anew: nothing of its old state holds
	}
	next.RegisteredAt = cur.RegisteredAt
	keep := cur.Status == next.Status ||
		// Who drains goes on draining: only a status change or a new incarnation ends that.
		cur.Status == api.StatusDraining ||
		// "starting" is where an instance begins; refreshing it does not send it back there.
		next.Status == api.StatusStarting && cur.Status.Usable()
	if keep {
		next.Status, next.StatusNote, next.StatusSince = cur.Status, cur.StatusNote, cur.StatusSince
	}
	return next
}

func unchanged(cur, next *api.Instance) bool {
	return cur.Incarnation == next.Incarnation && cur.Status == next.Status && catalog.SameContent(cur, next) && catalog.SameSet(cur.Set, next.Set)
}

// heard takes a sign of life; false when the instance must register (again).
func (r *Registry) heard(key api.InstanceKey) bool {
	r.ledgerMu.Lock()
	defer r.ledgerMu.Unlock()
	return r.ledger.Heartbeat(r.now(), key)
}

// Heartbeat prolongs an instance's life by its TTL. It touches memory only. An
// incarnation of 0 is not compared; a lower one than the stored one is refused (P9), and a
// higher one is not registered yet. Once it returned without an error the instance is not
// evicted before a TTL has passed.
func (r *Registry) Heartbeat(ctx context.Context, key api.InstanceKey, incarnation uint64) (api.HeartbeatAck, error) {
	if err := r.begin(ctx, VerbRegister, &key); err != nil {
		return api.HeartbeatAck{}, err
	}
	snap := r.head.Load().snap
	in := snap.Instance(key)
	switch {
	case in == nil, incarnation > in.Incarnation:
		return api.HeartbeatAck{}, notFound(key)
	case incarnation != 0 && incarnation < in.Incarnation:
		return api.HeartbeatAck{}, stale(in)
	case !r.heard(key):
		return api.HeartbeatAck{}, notFound(key)
	}
	r.counts.heartbeats.Add(1)
	return api.HeartbeatAck{ID: in.ID, Status: in.Status, Incarnation: in.Incarnation, TTL: in.TTL, Epoch: snap.Version().Epoch}, nil
}

// Deregister removes an instance. An incarnation of 0 is not compared; a lower one than
// the stored one is refused, so that a late goodbye of an older process cannot remove the
// new one (P9). Removing what is not there is CodeInstanceNotFound; what was there and is
// gone by the time of the write is removed.
func (r *Registry) Deregister(ctx context.Context, key api.InstanceKey, incarnation uint64) error {
	if err := r.begin(ctx, VerbRegister, &key); err != nil {
		return err
	}
	defer r.acting(ctx, key)()
	tried := false
	h, revision, err := r.write(ctx, func(snap *catalog.Snapshot) ([]store.Op, error) {
		in := snap.Instance(key)
		switch {
		case in == nil && tried:
			// By this call, when a full store took the first commit and refused it all the same,
			// or by another one at the same time.
			return nil, nil
		case in == nil:
			return nil, alreadyGone(key)
		case incarnation != 0 && incarnation < in.Incarnation:
			return nil, stale(in)
		}
		tried = true
		return departureOps(api.CauseDeregister, []liveness.Member{member(in)})
	})
	if err != nil || h == nil {
		return err
	}
	r.counts.deregistered.Add(1)
	r.log.Info("instance deregistered", "instance", key.String(), "revision", revision)
	return nil
}

// SetStatus changes the status of an instance and keeps it until the next change or a new
// incarnation. It is no sign of life: operators do it too. For an instance with checks the
// worse of it and their verdict counts, and passing leaves the word to them.
func (r *Registry) SetStatus(ctx context.Context, key api.InstanceKey, c api.StatusChange) (api.Instance, error) {
	return r.setStatus(ctx, key, c, "")
}

// setStatus is SetStatus for instances whose status is from, or any when it is empty;
// others stay as they are.
func (r *Registry) setStatus(ctx context.Context, key api.InstanceKey, c api.StatusChange, from api.Status) (api.Instance, error) {
	if err := r.begin(ctx, VerbOperate, &key); err != nil {
		return api.Instance{}, err
	}
	defer r.acting(ctx, key)()
	if err := c.Validate(); err != nil {
		return api.Instance{}, err
	}
	var next api.Instance
	h, revision, err := r.write(ctx, func(snap *catalog.Snapshot) ([]store.Op, error) {
		in := snap.Instance(key)
		switch {
		case in == nil, r.overlay.Load().Hidden(key, in.Revision):
			return nil, notFound(key)
		case c.Incarnation != 0 && c.Incarnation < in.Incarnation:
			return nil, stale(in)
		}
		next = *in
		set, status, note := setByHand(in, c)
		if in.Status == status && in.StatusNote == note && catalog.SameSet(in.Set, set) || from != "" && in.Status != from {
			return nil, nil
		}
		if in.Status != status {
			next.StatusSince = time.Now().UTC().Truncate(time.Millisecond)
		}
		next.Set, next.Status, next.StatusNote = set, status, note
		value, err := catalog.EncodeInstance(next)
		if err != nil {
			return nil, err
		}
		return []store.Op{{Key: catalog.InstanceRecordKey(key), Value: value, Guarded: true, If: in.Revision}}, nil
	})
	if err != nil {
		return api.Instance{}, err
	}
	if h != nil {
		next.Revision = revision
		r.log.Info("instance changed status", "instance", key.String(), "status", string(next.Status), "note", next.StatusNote, "revision", revision)
	}
	return next, nil
}

func notFound(key api.InstanceKey) error {
	return &api.Error{
		Code: api.CodeInstanceNotFound, Detail: fmt.Sprintf("instance %s is not registered", api.Quote(key.String())),
		Remedy: "register it again",
	}
}

// alreadyGone is notFound for somebody who wants the instance gone.
func alreadyGone(key api.InstanceKey) error {
	return &api.Error{
		Code: api.CodeInstanceNotFound, Detail: fmt.Sprintf("instance %s is not registered", api.Quote(key.String())),
		Remedy: "nothing is left to do: it was deregistered or evicted before, or never registered under this id",
	}
}

func stale(in *api.Instance) error {
	return &api.Error{
		Code: api.CodeStaleIncarnation, Detail: fmt.Sprintf("a newer incarnation, %d, of instance %s is registered", in.Incarnation, api.Quote(in.Key().String())),
		Remedy: "stop the older process, or register with a higher incarnation", Incarnation: in.Incarnation,
	}
}
