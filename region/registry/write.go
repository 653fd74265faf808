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

// commit writes to the store within writeDeadline and notes how that went. Errors are the
// store's own.
func (r *Registry) commit(ctx context.Context, ops []store.Op) (uint64, error) {
	wctx, cancel := context.WithTimeout(ctx, writeDeadline)
	defer cancel()
	revision, err := r.cfg.Store.Commit(wctx, ops)
	if err == nil && store.Puts(ops) {
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
//
// What the store did not decide, a refusal or that nothing is to do, is as old as this node's memory. With
// several nodes it is said only of memory that has everything acknowledged before the call, by any
// node: decide is called again once that is so.
func (r *Registry) write(ctx context.Context, decide func(*catalog.Snapshot) ([]store.Op, error)) (*head, uint64, error) {
	return r.writeFrom(ctx, r.own.alone, decide)
}

// writeFrom is write; fresh tells that decide may be believed at once.
func (r *Registry) writeFrom(ctx context.Context, fresh bool, decide func(*catalog.Snapshot) ([]store.Op, error)) (*head, uint64, error) {
	if err := r.needStore(); err != nil {
		return nil, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, writeDeadline)
	defer cancel()
	for {
		h := r.head.Load()
		ops, err := decide(h.snap)
		if (err == nil && len(ops) == 0 || ofRecord(err)) && !fresh {
			now, err := r.confirmed(ctx)
			if err != nil {
				return nil, 0, err
			}
			if fresh = true; now != h.snap.Version() {
				continue
			}
		}
		if err != nil || len(ops) == 0 {
			return nil, 0, err
		}
		if brown == "ack-early" {
			go func() { _, _ = r.group.propose(context.WithoutCancel(ctx), ops) }()
			return h, h.snap.Version().Revision, nil
		}
		revision, err := r.group.propose(ctx, ops)
		switch {
		case err == nil:
			committed()
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

// ofRecord reports whether a refusal is for what a record is, and so for what memory knows of it.
func ofRecord(err error) bool {
	switch api.CodeOf(err) {
	case api.CodeInstanceNotFound, api.CodeStaleIncarnation, api.CodeConflict:
		return true
	}
	return false
}

// confirmed returns once memory has everything that was acknowledged before the call, and where
// it stood then. Callers that come at the same time share one question to the store.
func (r *Registry) confirmed(ctx context.Context) (api.Version, error) {
	revision, err := r.barrier.wait(ctx)
	if err != nil {
		return api.Version{}, r.storeError(err)
	}
	h, err := r.waitRevision(ctx, revision)
	if err != nil {
		return api.Version{}, r.behind(err)
	}
	return h.snap.Version(), nil
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
	noted, statusOnly := "", false
	defer func() {
		if noted != "" {
			r.handed.drop(noted)
		}
	}()
	h, revision, err := r.write(ctx, func(snap *catalog.Snapshot) ([]store.Op, error) {
		cur := snap.Instance(key)
		if cur != nil && reg.Incarnation != 0 && reg.Incarnation < cur.Incarnation && brown != "skip-fencing" {
			return nil, stale(cur)
		}
		next = r.merge(cur, key, reg)
		withChecks(cur, &next, time.Now().UTC().Truncate(time.Millisecond))
		created = cur == nil
		// A sign of life, whatever it says: the store's watch cannot tell a status that the
		// instance reports from one that an operator sets. Refused here means that an
		// eviction is decided, perhaps on its way to the store: only a newer record stops it.
		same := cur != nil && unchanged(cur, &next)
		if cur != nil {
			counts, err := r.heard(ctx, key, same)
			if err != nil {
				return nil, err
			}
			if counts && same {
				next = *cur
				return nil, nil
			}
		}
		statusOnly = cur != nil && cur.Incarnation == next.Incarnation && catalog.SameContent(cur, &next)
		value, err := catalog.EncodeInstance(next)
		if err != nil {
			return nil, err
		}
		record := catalog.InstanceRecordKey(key)
		if plainly(&next) {
			r.handed.put(record, value, next)
			noted = record
		}
		return []store.Op{{Key: record, Value: value, Guarded: true, If: snap.Guard(key)}}, nil
	})
	if err != nil {
		return api.Instance{}, false, err
	}
	if h == nil {
		r.counts.refreshed.Add(1)
		return next, false, nil
	}
	next.Revision = revision
	// The TTL runs from the acknowledgement. Another node that owns liveness hears a
	// registration by the store's watch, but for one that changes the status alone: it must be told.
	if _, err := r.heard(ctx, key, statusOnly); err != nil {
		return api.Instance{}, false, err
	}
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
	if cur.Status == api.StatusDraining {
		next.BeforeDrain = refreshed(cur.BeforeDrain, next.Status, next.Checked())
	}
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
	return cur.Incarnation == next.Incarnation && cur.Status == next.Status && catalog.SameContent(cur, next) &&
		catalog.SameSet(cur.Set, next.Set) && catalog.SameSet(cur.BeforeDrain, next.BeforeDrain)
}

// heard takes a sign of life; false when the instance must register (again). While another
// node owns liveness it is told only if it must be, and true says nothing otherwise.
func (r *Registry) heard(ctx context.Context, key api.InstanceKey, must bool) (bool, error) {
	r.ledgerMu.Lock()
	if now := r.now(); r.own.holds(now) {
		ok := r.ledger.Heartbeat(now, key)
		r.ledgerMu.Unlock()
		return ok, nil
	}
	r.ledgerMu.Unlock()
	if !must {
		return true, nil
	}
	out, _, err := r.signs(ctx, []api.BatchHeartbeat{{Namespace: key.Namespace, Service: key.Service, ID: key.ID}})
	if err == nil && out[0].code == api.CodeUnavailable {
		err = r.verdict(out[0], key)
	}
	if err != nil {
		return false, err
	}
	return out[0].code == "", nil
}

// Heartbeat prolongs an instance's life by its TTL. It touches memory only: that of the node
// that owns liveness, which is asked if it is another one. An
// incarnation of 0 is not compared; a lower one than the stored one is refused (P9), and a
// higher one is not registered yet. Once it returned without an error the instance is not
// evicted before a TTL has passed.
func (r *Registry) Heartbeat(ctx context.Context, key api.InstanceKey, incarnation uint64) (api.HeartbeatAck, error) {
	return r.Beat(ctx, key, api.Heartbeat{Incarnation: incarnation})
}

// Beat is Heartbeat with all that a heartbeat may say.
func (r *Registry) Beat(ctx context.Context, key api.InstanceKey, hb api.Heartbeat) (api.HeartbeatAck, error) {
	if err := r.begin(ctx, VerbRegister, &key); err != nil {
		return api.HeartbeatAck{}, err
	}
	r.ledgerMu.Lock()
	snap, now := r.Snapshot(), r.now()
	t := taken{absent: true}
	if r.own.holds(now) {
		t = r.takeSign(snap, now, key, hb.Incarnation, hb.Load)
	}
	r.ledgerMu.Unlock()
	switch {
	case t.absent && !r.own.alone:
		var err error
		if snap, err = r.forwardHeartbeat(ctx, key, hb); err != nil {
			return api.HeartbeatAck{}, err
		}
	case t.code != "":
		return api.HeartbeatAck{}, r.verdict(t, key)
	}
	in := snap.Instance(key)
	if in == nil {
		return api.HeartbeatAck{}, r.unknown(key) // it left just now
	}
	r.counts.heartbeats.Add(1)
	return api.HeartbeatAck{ID: in.ID, Status: in.Status, Incarnation: in.Incarnation, TTL: in.TTL, Epoch: snap.Version().Epoch}, nil
}

// forwardHeartbeat has the owner of liveness take a heartbeat, and returns a snapshot that
// has what the owner had.
func (r *Registry) forwardHeartbeat(ctx context.Context, key api.InstanceKey, hb api.Heartbeat) (*catalog.Snapshot, error) {
	out, revision, err := r.signs(ctx, []api.BatchHeartbeat{{Namespace: key.Namespace, Service: key.Service, ID: key.ID, Incarnation: hb.Incarnation, Load: hb.Load}})
	if err == nil {
		err = r.verdict(out[0], key)
	}
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readDeadline)
	defer cancel()
	h, err := r.waitRevision(ctx, revision)
	if err != nil {
		return nil, r.behind(err)
	}
	return h.snap, nil
}

// Heartbeats is Heartbeat for many, with one error for each. One that is refused does not
// hinder the others.
func (r *Registry) Heartbeats(ctx context.Context, items []api.BatchHeartbeat) []error {
	errs := make([]error, len(items))
	good := make([]api.BatchHeartbeat, 0, len(items))
	at := make([]int, 0, len(items))
	for i := range items {
		it := items[i]
		key := keyOf(&it)
		if errs[i] = r.begin(ctx, VerbRegister, &key); errs[i] == nil {
			it.Namespace = key.Namespace
			good, at = append(good, it), append(at, i)
		}
	}
	for len(good) > 0 {
		n := min(len(good), api.MaxBatchItems)
		out, _, err := r.signs(ctx, good[:n])
		for k := range n {
			switch {
			case err != nil:
				errs[at[k]] = err
			case out[k].code == "":
				r.counts.heartbeats.Add(1)
			default:
				errs[at[k]] = r.verdict(out[k], keyOf(&good[k]))
			}
		}
		good, at = good[n:], at[n:]
	}
	return errs
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
		case incarnation != 0 && incarnation < in.Incarnation && brown != "skip-fencing":
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
// worse of it and their verdict counts, and passing leaves the word to them. Draining keeps
// in mind what was set before; see EndDrain.
func (r *Registry) SetStatus(ctx context.Context, key api.InstanceKey, c api.StatusChange) (api.Instance, error) {
	return r.setStatus(ctx, key, c.Incarnation, c.Validate(), func(in *api.Instance) { putByHand(in, c) })
}

// setStatus writes what put makes of an instance's status, if that is another one. invalid
// is what is wrong with the request: told only to those who may ask.
func (r *Registry) setStatus(ctx context.Context, key api.InstanceKey, incarnation uint64, invalid error, put func(*api.Instance)) (api.Instance, error) {
	if err := r.begin(ctx, VerbOperate, &key); err != nil {
		return api.Instance{}, err
	}
	defer r.acting(ctx, key)()
	if invalid != nil {
		return api.Instance{}, invalid
	}
	var next api.Instance
	h, revision, err := r.write(ctx, func(snap *catalog.Snapshot) ([]store.Op, error) {
		in := snap.Instance(key)
		switch {
		case in == nil, r.overlay.Load().Hidden(key, in.Revision):
			return nil, notFound(key)
		case incarnation != 0 && incarnation < in.Incarnation:
			return nil, stale(in)
		}
		next = *in
		put(&next)
		if in.Status == next.Status && in.StatusNote == next.StatusNote && catalog.SameSet(in.Set, next.Set) && catalog.SameSet(in.BeforeDrain, next.BeforeDrain) {
			return nil, nil
		}
		if in.Status != next.Status {
			next.StatusSince = time.Now().UTC().Truncate(time.Millisecond)
		}
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

func stale(in *api.Instance) error { return staleAs(in.Key(), in.Incarnation) }

func staleAs(key api.InstanceKey, incarnation uint64) error {
	return &api.Error{
		Code: api.CodeStaleIncarnation, Detail: fmt.Sprintf("a newer incarnation, %d, of instance %s is registered", incarnation, api.Quote(key.String())),
		Remedy: "stop the older process, or register with a higher incarnation", Incarnation: incarnation,
	}
}
