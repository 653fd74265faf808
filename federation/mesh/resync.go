package mesh

import (
	"fmt"
	"time"

	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// errAsked ends a stream because an operator wants all rows anew. It is no fault of the peer.
var errAsked = fmt.Errorf("%w: an operator wants them all anew", replica.ErrResync)

// Resync asks a region for all of its rows again. Nothing is dropped: they replace what is
// held when they are complete and their digest fits. It returns at once; LinkInfo.Resync shows how
// far it is. One that is under way is begun anew. The error is an *api.Error.
func (m *Mesh) Resync(region api.Region) (api.ResyncInfo, error) {
	l, err := m.linkOf(region)
	if err != nil {
		return api.ResyncInfo{}, err
	}
	s := l.state.Load()
	info := api.ResyncInfo{
		Region: region, State: api.ResyncWaiting, Asked: time.Now().UTC().Truncate(time.Millisecond), Expected: s.view.Rows,
	}
	if !s.connected {
		info.Cause = s.lastError
	}
	l.resync.Store(&info)
	select {
	case l.resyncs <- struct{}{}:
	default: // it has not even begun with the last one
	}
	return info, nil
}

// beginResync makes the next stream begin with all rows.
func (l *link) beginResync() {
	l.log.Info("an operator wants all rows of the peer anew; those that are held stay until the others are complete")
	l.resyncFrom = l.replica.View().Truth
	l.repairs = 0 // the stream that follows is no second attempt at a repair
	l.replica.Resync()
}

// showResync keeps the public progress up to date.
func (l *link) showResync(incoming int) {
	was := l.resync.Load()
	if was == nil || was.State == api.ResyncDone || l.resyncFrom == nil {
		return
	}
	next := *was
	next.Received, next.Cause = incoming, ""
	switch {
	case !l.connected:
		next.State, next.Cause = api.ResyncWaiting, l.lastError
	case incoming > 0:
		next.State = api.ResyncReceiving
	}
	// A resync that was asked for meanwhile is not overwritten.
	l.resync.CompareAndSwap(was, &next)
}

// endResync notes that all rows came and were taken.
func (l *link) endResync() {
	was := l.resync.Load()
	if was == nil || l.resyncFrom == nil {
		return
	}
	v := l.replica.View()
	next := *was
	now := time.Now().UTC().Truncate(time.Millisecond)
	next.State, next.Finished, next.Rows, next.Received, next.Cause = api.ResyncDone, &now, v.Rows, v.Rows, ""
	next.Changed = changedRows(l.resyncFrom, v.Truth)
	l.resyncFrom = nil
	l.resync.CompareAndSwap(was, &next)
	l.log.Info("all rows of the peer came anew", "rows", v.Rows, "changed", next.Changed)
}

// changedRows counts the rows that are not the same in both tables.
func changedRows(a, b *replica.Table) int {
	n := 0
	for k, e := range a.All {
		if o := b.Get(k); o == nil || o.Hash != e.Hash {
			n++
		}
	}
	for k := range b.All {
		if a.Get(k) == nil {
			n++
		}
	}
	return n
}
