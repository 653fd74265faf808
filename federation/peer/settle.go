package peer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nearside/nearside/federation/origin"
	"github.com/nearside/nearside/sdk/api"
)

const (
	// lagLimit is how long a node that stands behind what a reader holds is given to catch
	// up before that counts as lost history: another node of this region may be ahead of it.
	lagLimit = time.Second
	// raiseLimit bounds the raising of the epoch; it fits into the reader's AnswerLimit.
	raiseLimit = 3 * time.Second
	// A new epoch costs every watcher of the region a reset. So each reader region may make us
	// begin raiseBurst of them at once, and then one each raiseEvery; losses of data are rarer.
	raiseBurst = 4
	raiseEvery = time.Minute
	// maxRaisers bounds the reader regions of which that is remembered.
	maxRaisers = 256
)

// allowance is how often the regions may still make us raise the epoch. A region that is not
// in it has its full share.
type allowance struct {
	mu      sync.Mutex
	regions map[api.Region]share
}

type share struct {
	left int
	at   time.Time // when left was right
}

// take takes one from a region's share, and reports whether there was one.
func (a *allowance) take(region api.Region, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for r, s := range a.regions {
		if n := int(now.Sub(s.at) / raiseEvery); s.left+n >= raiseBurst {
			delete(a.regions, r)
		} else if n > 0 {
			a.regions[r] = share{s.left + n, s.at.Add(time.Duration(n) * raiseEvery)}
		}
	}
	s, known := a.regions[region]
	switch {
	case !known && len(a.regions) >= maxRaisers, known && s.left == 0:
		return false
	case !known:
		s = share{raiseBurst, now}
	}
	a.regions[region] = share{s.left - 1, s.at}
	return true
}

// refund gives back what was taken in vain.
func (a *allowance) refund(region api.Region) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s, ok := a.regions[region]; ok {
		a.regions[region] = share{s.left + 1, s.at}
	}
}

// settle makes sure that our version may be shown to a reader that holds held: not older,
// and not of another history with the same number. If it would be, history was lost here
// (data wiped or restored), and we are the only ones who can say so: we refute by moving to
// a higher epoch. Without this the reader would have to refuse us for ever (P4), or go back
// in time.
func (s *Server) settle(ctx context.Context, reader api.Region, held api.Version, heldTerm uint64, careful bool) error {
	own := func() api.Version { return s.cfg.Source.Image().Version() }
	at := own()
	if at.IsZero() || at.Epoch.IsZero() {
		return &api.Error{Code: api.CodeUnavailable, Detail: "the catalogue is not loaded yet", Remedy: "try again in a moment"}
	}
	verdict := func() origin.Verdict { return origin.Settle(held, heldTerm, own(), s.term()) }
	if verdict() == origin.Serve {
		return nil
	}
	// Another node of this region may only be ahead of us.
	switch s.serves(ctx, verdict, lagLimit) {
	case origin.Serve:
		return nil
	case origin.StandDown:
		s.log.WarnContext(ctx, "a reader heard of a newer publisher of this region; this node does not publish", "held", held, "term", heldTerm, "own_term", s.term())
		return &api.Error{
			Code: api.CodeUnavailable, Field: "term", Detail: fmt.Sprintf("another node of region %s publishes under a newer term", s.cfg.Region),
			Remedy: "ask another node of the region",
		}
	case origin.Implausible:
		return &api.Error{
			Code: api.CodeConflict, Field: "have", Detail: "the reader claims generation " + api.Quote(held.Epoch.String()) + ", far beyond " + own().Epoch.String(),
			Remedy: "remove the reader's replica of this region",
		}
	}
	if careful {
		return &api.Error{
			Code: api.CodeConflict, Field: fieldHistory, Detail: fmt.Sprintf("the reader holds %s of a region %s, which cannot follow from %s here", held, s.cfg.Region, own()),
			Remedy: "if what it holds is of this region, ask again without refute=no, and the epoch is raised; if not, give one of the two regions another name",
		}
	}
	if err := s.lags(ctx, held, verdict); err != nil || verdict() == origin.Serve {
		return err
	}
	// One after the other: the first may settle it for all.
	select {
	case s.settling <- struct{}{}:
		defer func() { <-s.settling }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if verdict() == origin.Serve {
		return nil
	}
	if !s.raises.take(reader, time.Now()) {
		return &api.Error{
			Code: api.CodeUnavailable, Field: "have", Detail: fmt.Sprintf("readers of region %s made this region begin %d epochs within minutes", reader, raiseBurst),
			Remedy: "find out whether two regions share the name " + string(s.cfg.Region) + ", or this one goes on losing its data",
		}
	}
	s.log.WarnContext(ctx, "a reader holds a newer history of this region than the store does; raising the epoch",
		"reader", reader, "held", held, "own", own())
	raising, cancel := context.WithTimeout(ctx, raiseLimit)
	defer cancel()
	err := s.cfg.Source.RaiseEpoch(raising, held.Epoch.Generation)
	if err == nil && s.serves(raising, verdict, raiseLimit) == origin.Serve {
		return nil
	}
	if err != nil {
		s.raises.refund(reader)
	}
	s.log.WarnContext(ctx, "the epoch could not be raised", "held", held, "own", own(), "error", err)
	return &api.Error{
		Code: api.CodeUnavailable, Detail: "the store holds an older history than the reader and cannot be moved on now",
		Remedy: "the reader keeps what it has and tries again",
	}
}

// Barrier is what a Source may be too: it returns the revision at which the region's store stands, newer ones of
// other nodes included, so that a node that lags behind its store is told from a store that lost something.
type Barrier interface {
	Barrier(ctx context.Context) (revision uint64, err error)
}

// lags returns an error when this node only lags behind its store, which has all that the reader holds: a thawed
// process, a watch that hangs. It waits for the node as long as raising would take. nil means that the store
// is behind too, that nobody can tell, or that the node caught up.
func (s *Server) lags(ctx context.Context, held api.Version, verdict func() origin.Verdict) error {
	store, ok := s.cfg.Source.(Barrier)
	if !ok || held.Epoch != s.cfg.Source.Image().Version().Epoch {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, raiseLimit)
	defer cancel()
	ask, stop := context.WithTimeout(ctx, lagLimit) // the raise itself must fit into what its reader waits
	revision, err := store.Barrier(ask)
	stop()
	switch {
	case err == nil && revision < held.Revision:
		return nil
	case err == nil && s.serves(ctx, verdict, raiseLimit) == origin.Serve:
		return nil
	case err != nil:
		s.log.WarnContext(ctx, "a reader is ahead of this node, and the store does not say where it stands", "held", held, "error", err)
	}
	return &api.Error{
		Code: api.CodeUnavailable, Field: "have", Detail: fmt.Sprintf("this node does not have %s yet, and nothing proves that its region lost it", held),
		Remedy: "ask another node of the region, or this one in a moment",
	}
}

// term returns the publisher's term, 0 where the region has none.
func (s *Server) term() uint64 {
	if s.cfg.Term == nil {
		return 0
	}
	return s.cfg.Term()
}

// addresses returns where clients find this region.
func (s *Server) addresses() []string {
	if s.cfg.AddressesNow == nil {
		return s.cfg.Addresses
	}
	return s.cfg.AddressesNow()
}

// serves waits until our version may be shown, and returns the last verdict.
func (s *Server) serves(ctx context.Context, verdict func() origin.Verdict, limit time.Duration) origin.Verdict {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		at := s.cfg.Source.Image().Version()
		if v := verdict(); v == origin.Serve {
			return v
		}
		// Wait sleeps through revisions without changes, and the reader may hold one of those.
		look, done := context.WithTimeout(ctx, 50*time.Millisecond)
		err := s.cfg.Source.Wait(look, at)
		done()
		if err != nil && (ctx.Err() != nil || look.Err() == nil) {
			return verdict()
		}
	}
}

const fieldHistory = "history"

// HistoryDiffers reports whether err is the answer to a careful query that the origin's history
// would have to be raised above what the reader holds.
func HistoryDiffers(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Code == api.CodeConflict && e.Field == fieldHistory
}
