package registry

import (
	"context"
	"errors"
	"time"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/region/liveness"
	"github.com/nearside/nearside/region/liveness/owner"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

const (
	// evictBatch instances leave in one commit, with at most as many departure records and the
	// check of the claim.
	evictBatch = (store.MaxOps - 1) / 2
	evictRetry = time.Second
	// evictRate is how many records are deleted in a second at most: a storm of them must leave the
	// store, and everybody's watches, to others. Readers do not wait for it.
	evictRate = 1000
)

// tickLoop asks the ledger for its verdict every 200 ms. It does nothing that can block: a
// late tick is taken for a pause of the process, and spares everyone.
func (r *Registry) tickLoop(ctx context.Context) error {
	t := time.NewTicker(tickInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		if r.beforeTick != nil {
			r.beforeTick()
		}
		if r.isLoaded() {
			r.tick()
		}
	}
}

func (r *Registry) tick() {
	r.ledgerMu.Lock()
	now := r.now()
	v, judges := liveness.Verdict{}, r.own.holds(now)
	if judges {
		if r.lapsed {
			r.ledger.Grant(now) // heartbeats that came meanwhile were not taken
		}
		v = r.ledger.Tick(now)
		if overlay, changed := r.ledger.Overlay(); changed {
			r.overlay.Store(overlay)
			r.overlayVersion++
		}
	} else {
		v = r.ledger.Follow(now)
	}
	r.lapsed = !judges
	var state liveness.State
	if v.ProtectionChanged || v.SlowChanged {
		state = r.ledger.State(now)
	}
	r.ledgerMu.Unlock()

	r.tellVerdict(v, state)
	if v.Gap > 0 {
		r.checks.paused()
		r.log.Warn("this node did not run for a while: everyone gets a full ttl to send a heartbeat", "gap", v.Gap.Round(time.Millisecond).String())
	}
	if v.ProtectionChanged {
		r.counts.protected.Store(state.Active)
		if state.Active {
			r.log.Warn("protection on: nobody is evicted", "overdue", state.Overdue, "registered", state.Registered, "allowed", state.Allowed, "why", state.Why)
		} else {
			r.log.Info("protection off", "overdue", state.Overdue, "registered", state.Registered)
		}
	}
	if v.SlowChanged {
		r.counts.slow.Store(state.Slow)
		if state.Slow {
			r.log.Warn("this node is starved of processor time: nobody is evicted", "lost_share", state.Lost, "overdue", state.Overdue)
		} else {
			r.log.Info("this node keeps time again")
		}
	}
	if r.counts.slow.Load() {
		r.checks.paused() // what a starved node finds of others is about itself
	}
	for _, e := range v.Evicted {
		if e.Condemned {
			r.log.Warn("instance is removed: its liveness or startup checks failed for deregister_after", "instance", e.Key.String())
			continue
		}
		r.log.Warn("instance is evicted: its heartbeats stopped", "instance", e.Key.String(), "ttl", e.TTL.String(), "overdue", e.Overdue.Round(time.Millisecond).String())
	}
	if len(v.Evicted) > 0 {
		r.counts.evictions.Add(int64(len(v.Evicted)))
		select {
		case r.evictWake <- struct{}{}:
		default:
		}
	}
}

// evictLoop deletes the records of evicted instances. They are hidden from readers
// already; if the store is away they stay so and the deletes are repeated until it is back.
func (r *Registry) evictLoop(ctx context.Context) error {
	loaded := r.loaded
	var over <-chan time.Time // the window that is on record may be over
	var next time.Time        // no commit of deletes begins before
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-loaded:
			loaded = nil
		case <-over:
			r.takeWindowBack(ctx)
		case <-r.evictWake:
			for r.evictSome(ctx, &next) {
				if !sleep(ctx, evictRetry) {
					return nil
				}
			}
		}
		over = nil
		if r.windowKept.Load() {
			over = time.After(r.brake.Window)
		}
	}
}

// takeWindowBack removes the record of the brake's window if that is empty by now, so that a start
// long after does not take it for one of a moment ago. Only a node that is alone has to: the beats of an
// owner among others say it anew.
func (r *Registry) takeWindowBack(ctx context.Context) {
	r.ledgerMu.Lock()
	evicted := r.ledger.Evictions(r.now())
	r.ledgerMu.Unlock()
	if len(evicted) > 0 {
		return
	}
	if _, err := r.commitSoon(ctx, []store.Op{{Delete: true, Key: owner.BeatKey}}); err == nil {
		r.windowKept.Store(false)
	} // else again in a window's time
}

// evictSome deletes what is pending, no commit of it before next, and reports whether some of it must be tried again.
// With several nodes every commit depends on the claim under which it was decided: an owner
// that lost it, without knowing yet, evicts nobody.
func (r *Registry) evictSome(ctx context.Context, next *time.Time) (again bool) {
	r.ledgerMu.Lock()
	pending, claimRev := r.ledger.Pending(), r.claimRev
	r.ledgerMu.Unlock()
	if len(pending) > 0 && !r.own.alone {
		// First the count, then the deletes: the next owner may evict no more than what is left of
		// the window, also when it has been running for less.
		if err := r.beat(ctx, claimRev); err != nil {
			return true
		}
	}
	for len(pending) > 0 {
		n := min(evictBatch, len(pending))
		if !sleep(ctx, time.Until(*next)) {
			return true
		}
		*next = time.Now().Add(evictPause(n))
		if !r.evictCommit(ctx, pending[:n], claimRev) {
			again = true
		}
		pending = pending[n:]
	}
	return again
}

// evictPause is the time from the begin of a commit with n deletes to that of the next.
func evictPause(n int) time.Duration { return time.Duration(n) * time.Second / evictRate }

// evictCommit deletes the records if they are still those that the eviction was decided
// on. It returns false when that is not known to have ended.
func (r *Registry) evictCommit(ctx context.Context, members []liveness.Member, claimRev uint64) bool {
	ops, err := departureOps(api.CauseEvict, members)
	if err != nil {
		r.log.Error("evict", "cause", err)
		return false
	}
	if r.own.alone {
		ops = append(ops, r.windowOp())
	} else {
		ops = append(ops, store.Op{Key: owner.ClaimKey, Check: true, Guarded: true, If: claimRev})
	}
	revision, err := r.group.propose(ctx, ops)
	switch {
	case err == nil:
		wctx, cancel := context.WithTimeout(ctx, writeDeadline)
		defer cancel()
		_, err := r.waitRevision(wctx, revision)
		return err == nil
	case errors.Is(err, store.ErrConflict) && len(members) > 1:
		// One of them was registered anew or deregistered; the others must not wait for it. Or the
		// claim is lost: then there is nothing left to do, and memory learns of it soon.
		if r.lost(ctx, claimRev) {
			return false
		}
		done := true
		for i := range members {
			done = r.evictCommit(ctx, members[i:i+1], claimRev) && done
		}
		return done
	case errors.Is(err, store.ErrConflict):
		// The record changed: memory learns of it soon and takes the verdict back. Look again
		// then, in case only memory is behind.
		return false
	}
	if ctx.Err() == nil {
		r.log.Warn("evicted instances stay hidden until the store takes their deletes", "instances", len(members), "cause", err)
	}
	return false
}

// windowOp writes the brake's window, for the next process of a node that is alone. In one commit with
// the deletes, so that a kill leaves none of them uncounted; what is decided and not
// deleted yet is in it.
func (r *Registry) windowOp() store.Op {
	r.windowKept.Store(true)
	r.ledgerMu.Lock()
	defer r.ledgerMu.Unlock()
	return store.Op{Key: owner.BeatKey, Value: owner.Beat{Evicted: r.ledger.Evictions(r.now())}.Encode()}
}

// lost reports whether the claim of this revision is known to be another's by now.
func (r *Registry) lost(ctx context.Context, claimRev uint64) bool {
	if r.own.alone {
		return false
	}
	_, err := r.commitSoon(ctx, []store.Op{{Key: owner.ClaimKey, Check: true, Guarded: true, If: claimRev}})
	return errors.Is(err, store.ErrConflict)
}

// departureOps deletes the members' records, guarded, and says why.
func departureOps(cause api.Cause, members []liveness.Member) ([]store.Op, error) {
	ids := map[api.ServiceKey][]api.InstanceID{}
	ops := make([]store.Op, 0, 2*len(members))
	for _, m := range members {
		ops = append(ops, store.Op{Delete: true, Key: catalog.InstanceRecordKey(m.Key), Guarded: true, If: m.Revision})
		ids[m.Key.ServiceKey()] = append(ids[m.Key.ServiceKey()], m.Key.ID)
	}
	for service, left := range ids {
		value, err := catalog.EncodeDeparture(cause, left)
		if err != nil {
			return nil, err
		}
		ops = append(ops, store.Op{Key: catalog.DepartureRecordKey(service), Value: value})
	}
	return ops, nil
}

// protection returns the brake as people see it: that of the node that owns liveness.
func (r *Registry) protection() *api.Protection {
	if v := r.forward.remote.Load(); v != nil && !r.own.claim.Load().mine {
		p := v.protection
		return &p
	}
	r.ledgerMu.Lock()
	now := r.now()
	s := r.ledger.State(now)
	r.ledgerMu.Unlock()
	p := &api.Protection{
		Active: s.Active, Registered: s.Registered, Overdue: s.Overdue, Evicted: s.Evicted, Allowed: s.Allowed,
		Share: r.brake.Share, Window: api.Duration(r.brake.Window), Grace: api.Duration(s.Grace), GraceLongest: api.Duration(s.LastGrace), Slow: s.Slow, Lost: s.Lost, Why: s.Why,
	}
	if s.Active {
		since := time.Now().Add(s.Since - now).UTC().Round(time.Millisecond) // the two clocks are not read in one instant
		p.Since = &since
	}
	return p
}
