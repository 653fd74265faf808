package registry

import (
	"context"
	"fmt"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

const (
	// aheadPatience is how long a client that has seen more than this node is waited for:
	// the node's memory follows its store by milliseconds.
	aheadPatience = time.Second
	// refuteWindow is how long after the start a client's version can prove that the store
	// was replaced by an older copy. Clients come back within seconds of a start; later,
	// nothing but a made-up version is ahead of the store, and whoever may read could start
	// a storm of resets with one.
	refuteWindow = time.Minute
	// refuteJump is how far above the store's generation a client's may be to prove the same. Each
	// loss and each restore takes one, so what is further is made up, and would use the numbers up.
	refuteJump = 1 << 16
)

// HighWater keeps the newest version that the region is known to have reached, apart from
// the store, so that a store put back to an older state is noticed. It is called from one
// goroutine at a time.
type HighWater interface {
	// Load returns the version kept, zero when there is none.
	Load() (api.Version, error)
	// Save keeps v in place of what was kept.
	Save(v api.Version) error
}

// meet is for a client that holds seen. When that is ahead of this node it waits until the
// node is there, aheadPatience at most; why is not empty when it is not. If the store itself
// turns out to be behind soon after the start, then its history went back while the node was
// off, and the epoch is raised (P4): once per start, for the new epoch is younger than any
// older copy. Only full versions are evidence; a bare revision (min_revision) may be of an
// earlier epoch. The federation settles what other regions hold in its own way.
func (r *Registry) meet(ctx context.Context, seen api.Version) (why string, err error) {
	ahead := func(v api.Version) bool {
		if seen.Region != v.Region || seen.Compare(v) != api.Newer {
			return false
		}
		// A later epoch may have been raised by another node a moment ago, or be that of a store
		// that was wiped, or restored from before it.
		return seen.Epoch == v.Epoch || !r.own.alone || r.mayRefute(seen, v)
	}
	if c := r.readsFrom(); c != nil && seen.Region == r.cfg.Region {
		// Nothing proves that the copy is all there was, and starting over with it would be time
		// travel (P4): whoever has seen more keeps that until the store answers.
		if order := c.snap.Version().Compare(seen); order == api.Older || order == api.Conflict {
			return "", r.needStore()
		}
	}
	wctx, cancel := context.WithTimeout(ctx, aheadPatience)
	defer cancel()
	for h := r.head.Load(); ahead(h.snap.Version()); h = r.head.Load() {
		// A node that is alone knows of every epoch that was raised: there is nothing to wait for.
		if !r.own.alone || seen.Epoch == h.snap.Version().Epoch {
			if err := r.waitChange(wctx, h); err == nil {
				continue
			} else if wctx.Err() == nil || ctx.Err() != nil {
				return "", err // the node shuts down, or the client left
			}
		}
		v := r.Snapshot().Version()
		if r.refute(ctx, seen) {
			return fmt.Sprintf("revision %d is ahead of this region's history, which went back: its epoch is now %s", seen.Revision, r.Snapshot().Version().Epoch), nil
		}
		return fmt.Sprintf("revision %d of epoch %s is ahead of this node's history, which is at %d of %s", seen.Revision, seen.Epoch, v.Revision, v.Epoch), ctx.Err()
	}
	return "", nil
}

// mayRefute reports whether a client that has seen that may prove, so soon after the start, that the store went back.
func (r *Registry) mayRefute(seen, own api.Version) bool {
	if r.refuted.Load() || r.now() > time.Duration(r.loadedAt.Load())+refuteWindow {
		return false
	}
	up := seen.Epoch.Generation - own.Epoch.Generation
	return seen.Epoch == own.Epoch || seen.Epoch.Generation > own.Epoch.Generation && up <= refuteJump
}

// refute raises the epoch if seen proves that the store's history went back.
func (r *Registry) refute(ctx context.Context, seen api.Version) bool {
	r.refuting.Lock()
	defer r.refuting.Unlock()
	own := r.Snapshot().Version()
	if !r.mayRefute(seen, own) {
		return false
	}
	bctx, cancel := context.WithTimeout(ctx, aheadPatience)
	defer cancel()
	revision, err := r.cfg.Store.Barrier(bctx)
	if err != nil {
		return false // not known
	}
	if seen.Epoch != own.Epoch {
		if epoch, err := r.cfg.Store.Epoch(bctx); err != nil || epoch.Generation >= seen.Epoch.Generation {
			return false // another node raised it
		}
	} else if revision >= seen.Revision {
		return false // only this node's memory is behind
	}
	r.log.Warn("a client holds a newer version of this region than the store: its history went back", "client", seen.String(), "store_revision", revision)
	if err := r.RaiseEpoch(ctx, seen.Epoch.Generation); err != nil {
		r.log.Warn("the epoch could not be raised", "cause", err)
		return false
	}
	r.refuted.Store(true)
	return true
}

// mark returns the version that the region had reached when this node last ran.
func (r *Registry) mark() api.Version {
	if r.cfg.HighWater == nil {
		return api.Version{}
	}
	v, err := r.cfg.HighWater.Load()
	if err != nil {
		r.log.Warn("the mark of the newest version cannot be read: a store put back to an older state would not be noticed at this start", "cause", err)
		return api.Version{}
	}
	if v.Region != r.cfg.Region {
		return api.Version{}
	}
	return v
}

// markLoop keeps the newest version, once a second while it moves and at the end.
func (r *Registry) markLoop(ctx context.Context) error {
	if r.cfg.HighWater == nil {
		return nil
	}
	t := time.NewTicker(time.Second)
	defer t.Stop()
	var kept api.Version
	failing := false
	for ended := false; !ended; {
		select {
		case <-t.C:
		case <-ctx.Done():
			ended = true
		}
		v := r.Snapshot().Version()
		if !r.isLoaded() {
			continue // what was kept is newer than the copy that is shown
		}
		if v == kept || v.Epoch.IsZero() {
			continue
		}
		err := r.cfg.HighWater.Save(v)
		if err == nil {
			kept = v
		} else if !failing {
			r.log.Warn("the mark of the newest version cannot be written", "cause", err)
		}
		failing = err != nil
	}
	return nil
}
