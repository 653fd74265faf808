package registry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/region/liveness"
	"github.com/nearside/nearside/region/liveness/owner"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

const (
	loadTimeout = 30 * time.Second
	backoffMin  = 100 * time.Millisecond
	backoffMax  = 3 * time.Second
)

// Run follows the store and owns the node's loops until ctx ends; it then returns nil. It
// returns an error only when going on is pointless: the store was closed or belongs to
// another region. A store that does not answer is waited for, at the start too. Run may be
// called once.
func (r *Registry) Run(ctx context.Context) error {
	if !r.running.CompareAndSwap(false, true) {
		return errors.New("registry: Run was called twice")
	}
	defer close(r.ended)
	unregister, err := r.observe()
	if err != nil {
		return err
	}
	defer unregister()
	defer r.leave(ctx) // after the loops: what is acknowledged later is another owner's
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.follow(ctx) })
	g.Go(func() error { r.group.run(ctx); return nil })
	g.Go(func() error { r.barrier.run(ctx); return nil })
	g.Go(func() error { return r.tickLoop(ctx) })
	g.Go(func() error { return r.evictLoop(ctx) })
	g.Go(func() error { return r.tidyLoop(ctx) })
	g.Go(func() error { return r.probeLoop(ctx) })
	g.Go(func() error { return r.markLoop(ctx) })
	g.Go(func() error { return r.copyLoop(ctx) })
	g.Go(func() error { return r.checks.run(ctx) })
	g.Go(func() error { return r.ownerLoop(ctx) })
	g.Go(func() error { return r.forwardLoop(ctx) })
	g.Go(func() error { return r.strainLoop(ctx) })
	g.Go(func() error { return r.farLoop(ctx) })
	return g.Wait()
}

// follow keeps the head in step with the store.
func (r *Registry) follow(ctx context.Context) error {
	reload := true
	delay := time.Duration(0)
	for {
		began := time.Now()
		err := r.followOnce(ctx, reload)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil: // a watch that ends without a reason is watched again
		case errors.Is(err, store.ErrEpochRaised): // by this node or another one: the epoch is asked for first
			r.raising.Lock() // a raise of ours is published by whoever made it, with its cause
			reload, delay, r.raised = false, 0, true
			r.raising.Unlock()
		case errors.Is(err, store.ErrWrongRegion), errors.Is(err, store.ErrClosed):
			return fmt.Errorf("follow the store: %w", err)
		case errors.Is(err, store.ErrCompacted):
			r.log.Warn("history has a gap: loading the catalogue again", "cause", err)
			reload = true
		default:
			r.health.failed(err)
			r.log.Warn("the store is away: reads go on from memory", "cause", err, "retry_in", delay.String())
			reload = !r.isLoaded()
		}
		if time.Since(began) > backoffMax {
			delay = 0 // it worked for a while
		}
		if !r.storeWait(ctx, delay) {
			return nil
		}
		// Decorrelated jitter, so that the nodes of a region do not come back in step.
		delay = min(backoffMax, backoffMin+time.Duration(rand.Int64N(int64(2*delay+backoffMin))))
	}
}

// storeWait waits until the store is worth another try; false when ctx ended first.
func (r *Registry) storeWait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.storeWake:
		return true
	case <-ctx.Done():
		return false
	}
}

// sleep returns false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// followOnce loads if it must, then applies commits until the watch breaks.
func (r *Registry) followOnce(ctx context.Context, reload bool) error {
	if !reload {
		// A store that came back may not be the one that left.
		epoch, err := r.storeEpoch(ctx)
		if err != nil {
			return err
		}
		reload = epoch != r.Snapshot().Version().Epoch
	}
	if reload {
		if err := r.load(ctx); err != nil {
			return err
		}
	}
	r.health.worked(r.log)
	r.raised = false
	return r.cfg.Store.Watch(ctx, r.Snapshot().Version().Revision, r.apply, r.progress)
}

func (r *Registry) storeEpoch(ctx context.Context) (api.Epoch, error) {
	ctx, cancel := context.WithTimeout(ctx, writeDeadline)
	defer cancel()
	return r.cfg.Store.Epoch(ctx)
}

// load replaces the head with the store's content. History that would go back (lost data, a
// restored backup) moves to a higher epoch first (P4).
func (r *Registry) load(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	began := time.Now()
	mark := api.Version{}
	if !r.isLoaded() {
		mark = r.mark()
	}
	for {
		img, err := r.cfg.Store.Load(ctx)
		if err != nil {
			return fmt.Errorf("load the catalogue: %w", err)
		}
		v := r.Snapshot().Version()
		was := v
		if c := r.readsFrom(); c != nil {
			// The copy may be behind the mark: the newer of the two is what was there.
			was = api.Version{}
			if mark.Epoch.IsZero() || v.Compare(mark) == api.Newer {
				mark = v
			}
		} else if !v.Epoch.IsZero() {
			mark = v
		}
		if goesBack(mark, img) {
			r.log.Warn("the store's history went back: moving to a new epoch", "had", mark.String(), "store_epoch", img.Epoch.String(), "store_revision", img.Revision)
			if _, err := r.cfg.Store.RaiseEpoch(ctx, mark.Epoch.Generation); err != nil {
				return fmt.Errorf("raise the epoch: %w", err)
			}
			continue
		}
		snap, orphans, broken := catalog.Load(r.cfg.Region, img)
		if !r.adopt(v, snap, img.Records) {
			continue // the epoch was raised meanwhile
		}
		r.tellLoaded(mark, was, snap)
		r.reportBroken(broken)
		if len(orphans) > 0 {
			select {
			case r.orphans <- orphans:
			default: // the next load finds them again
			}
		}
		services, instances := snap.Len()
		r.log.Info("catalogue loaded", "version", snap.Version().String(), "services", services, "instances", instances, "took", time.Since(began).Round(time.Millisecond).String())
		if !r.isLoaded() {
			r.loadedAt.Store(int64(r.now()))
			r.answer() // first: who waited for the store may ask at once
			close(r.loaded)
		}
		return nil
	}
}

func goesBack(v api.Version, img store.Image) bool {
	if v.Epoch.IsZero() {
		return false
	}
	next := api.Version{Region: v.Region, Epoch: img.Epoch, Revision: img.Revision}
	order := next.Compare(v)
	return order == api.Older || order == api.Conflict
}

// adopt publishes a loaded snapshot unless the head's epoch is no longer was.
func (r *Registry) adopt(was api.Version, snap *catalog.Snapshot, records []store.Record) bool {
	members := make([]liveness.Member, 0, snap.Counts().Total)
	for _, key := range snap.Services() {
		list, _ := snap.Service(key)
		for _, in := range list {
			members = append(members, member(in))
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.head.Load().snap.Version().Epoch != was.Epoch {
		return false
	}
	r.ledgerMu.Lock()
	r.ledger.Load(r.now(), members)
	r.ledgerMu.Unlock()
	if r.copyOf(snap) == nil { // who owned when a copy was made says nothing
		r.see(electionOf(records), 0, !r.isLoaded())
	}
	if old := r.Snapshot().Version(); old != snap.Version() {
		r.history = catalog.NewHistory(r.cfg.History, snap.Version().Revision)
	} // else nothing was missed, and watches that slept over quiet revisions go on
	for _, f := range r.followers {
		f.Load(snap.Version(), records)
	}
	r.stirred.Store(snap.Version().Revision)
	r.publish(snap)
	ring(r.bells.markAll())
	return true
}

func member(in *api.Instance) liveness.Member {
	return liveness.Member{Key: in.Key(), Revision: in.Revision, TTL: in.TTL.D()}
}

// apply takes one commit of the store. The ledger knows of it before any reader does, so
// that a heartbeat sent right after a registration finds its instance.
func (r *Registry) apply(b store.Batch) error {
	r.health.worked(r.log)
	ring(r.applyLocked(b))
	return nil
}

// applyLocked publishes a commit; it returns the watches to wake once the lock is free.
func (r *Registry) applyLocked(b store.Batch) []*bell {
	r.mu.Lock()
	defer r.mu.Unlock()
	cur := r.head.Load().snap
	next, changes, broken := cur.ApplyKnown(b, r.handed.known)
	if next == cur {
		return nil
	}
	r.tellChanges(cur, changes)
	if len(changes) > 0 {
		r.ledgerMu.Lock()
		now := r.now()
		for i := range changes {
			switch c := &changes[i]; c.Op {
			case api.OpDelete:
				if c.Cause == api.CauseEvict {
					r.ledger.Saw(now, c.Instance.Key())
				}
				r.ledger.Delete(c.Instance.Key())
				r.loads.drop(c.Instance.Key())
			default:
				r.ledger.Put(now, member(c.Instance), c.Cause == api.CauseRegister)
			}
		}
		r.ledgerMu.Unlock()
	}
	r.see(b.Events, b.Revision, false)
	if slices.ContainsFunc(b.Events, func(ev store.Event) bool { return !strings.HasPrefix(ev.Record.Key, owner.Prefix) }) {
		r.stirred.Store(b.Revision)
	}
	r.history.Append(b.Revision, changes)
	for _, f := range r.followers {
		f.Apply(b)
	}
	if len(changes) > 0 {
		r.publish(next)
	} else {
		r.publishQuietly(next)
	}
	r.departures.note(r.now(), b, next)
	r.reportBroken(broken)
	return r.bells.mark(changes)
}

// progress notes that nothing happened up to revision, and that the store answers.
func (r *Registry) progress(revision uint64) {
	r.health.worked(r.log)
	r.mu.Lock()
	defer r.mu.Unlock()
	cur := r.head.Load().snap
	if revision <= cur.Version().Revision {
		return
	}
	r.history.Append(revision, nil)
	for _, f := range r.followers {
		f.Progress(revision)
	}
	r.publishQuietly(cur.At(revision))
}

func (r *Registry) reportBroken(broken []catalog.Broken) {
	for _, b := range broken {
		r.log.Error("a record cannot be read and is left out: register the instance again", "key", b.Key, "cause", b.Err)
	}
}

// RaiseEpoch makes the region's epoch higher than above: for the federation, when it
// learns that others hold a history of ours that this one must outrank. Watchers get a
// reset. The region's other nodes learn of it by the store's watch.
func (r *Registry) RaiseEpoch(ctx context.Context, above uint64) error {
	if err := r.needStore(); err != nil {
		return err
	}
	wctx, cancel := context.WithTimeout(ctx, writeDeadline)
	defer cancel()
	r.raising.Lock()
	defer r.raising.Unlock()
	epoch, err := r.cfg.Store.RaiseEpoch(wctx, above)
	if ctx.Err() == nil { // a caller that hung up says nothing of the store
		r.health.note(err, r.log)
	}
	if err != nil {
		return r.storeError(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	snap := r.head.Load().snap
	v := snap.Version()
	if v.Epoch == epoch || v.Epoch.Generation > epoch.Generation {
		return nil
	}
	r.history = catalog.NewHistory(r.cfg.History, v.Revision)
	for _, f := range r.followers {
		f.Raise(epoch)
	}
	r.publish(snap.InEpoch(epoch))
	ring(r.bells.markAll())
	r.tellEpoch(v.Epoch, epoch, api.BecausePeersAhead)
	r.log.Warn("the region's epoch was raised", "from", v.Epoch.String(), "to", epoch.String())
	return nil
}
