package registry

import (
	"context"
	"fmt"
	"time"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/region/encoded"
	"github.com/nearside/nearside/sdk/api"
)

// Watch sends what the services are, then every change of them in revision order, each
// once, until ctx ends, send fails or the node shuts down; it returns that error. send is
// called from this goroutine only, and only this watch waits for it: one that falls too far
// behind is told so by a reset in its stream (P5).
//
// It starts with a reset if query.From is given and cannot be resumed from; then come all
// instances as items, other regions' knowledge as replicas (query.Far), and synced. Resuming, it
// starts with synced at query.From. The changes of one revision come together: all but
// the last are marked with More. When nothing happens a bookmark comes every query.Bookmark.
//
// A watch tells what is stored. Whether heartbeats are overdue is an observation of one
// node, so it is told by reads and not here; an eviction is a change like any other.
func (r *Registry) Watch(ctx context.Context, q WatchQuery, send func(api.Frame) error) error {
	return r.WatchShared(ctx, q, func(f *api.Frame, _ *encoded.Frame) error { return send(*f) })
}

// WatchShared is Watch for doors. With each frame that many watches are sent alike comes the
// place for what the door makes of it, so that it is made once: form 0 of the last change of a revision
// and of everything else, form 1 of a change that others of its revision follow. The place is nil
// for frames that are of this watch alone. The frame is valid during the call only.
func (r *Registry) WatchShared(ctx context.Context, q WatchQuery, send func(*api.Frame, *encoded.Frame) error) error {
	q.Namespace = orDefault(q.Namespace)
	ns := q.Namespace
	if ns == api.AllNamespaces {
		ns = ""
	}
	if err := r.authorize(ctx, VerbRead, ns, q.Services...); err != nil {
		return err
	}
	w := &watch{r: r, query: q, send: send, bell: newBell()}
	if err := w.check(); err != nil {
		return err
	}
	if err := r.needLoaded(); err != nil {
		return err
	}
	done, err := r.OpenWatch()
	if err != nil {
		return err
	}
	defer done()
	r.mu.Lock()
	r.bells.hang(w.bell, q.Namespace, w.services)
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.bells.take(w.bell, q.Namespace, w.services)
		r.mu.Unlock()
	}()
	if w.far != nil {
		r.farBells.hang(w.far.bell, w.services)
		defer r.farBells.take(w.far.bell, w.services)
	}
	return w.run(ctx)
}

// watch is one stream. It belongs to one goroutine.
type watch struct {
	r        *Registry
	query    WatchQuery
	services map[api.ServiceKey]struct{} // nil = all of the namespace
	send     func(*api.Frame, *encoded.Frame) error
	bell     *bell
	far      *far     // nil without query.Far or a federation
	steered  *steered // nil without query.Far
	// loaded is what was last told of loads.
	loaded map[api.ServiceKey]int

	// at: every change up to here was sent.
	at api.Version
}

func (w *watch) check() error {
	q := &w.query
	if q.Namespace == api.AllNamespaces {
		if len(q.Services) > 0 {
			return api.FieldError("ns", "services are named, but not their namespace", "name one namespace with services, or all of them (*) without")
		}
	} else if err := api.CheckNamespace(string(q.Namespace)); err != nil {
		return err
	}
	if q.Bookmark == 0 {
		q.Bookmark = api.BookmarkInterval
	}
	if q.Bookmark < api.MinBookmarkInterval || q.Bookmark > api.BookmarkInterval {
		return api.FieldError("bookmark", fmt.Sprintf("a bookmark each %s", q.Bookmark), fmt.Sprintf("use %s to %s", api.MinBookmarkInterval, api.BookmarkInterval))
	}
	if len(q.Services) > api.MaxWatchServices {
		return api.FieldError("service", fmt.Sprintf("%d services in one watch", len(q.Services)), fmt.Sprintf("use at most %d", api.MaxWatchServices))
	}
	if len(q.Services) > 0 {
		w.services = make(map[api.ServiceKey]struct{}, len(q.Services))
	}
	for _, s := range q.Services {
		if err := api.CheckServiceName(string(s)); err != nil {
			return err
		}
		w.services[api.ServiceKey{Namespace: q.Namespace, Service: s}] = struct{}{}
	}
	if q.Far {
		w.steered = newSteered(w.r, q.Namespace, w.services)
	}
	if q.Far && w.r.cfg.Replicas != nil {
		w.far = newFar(w.r.cfg.Replicas, w.r.steer, q.Namespace, w.services)
	}
	return nil
}

func (w *watch) wants(k api.ServiceKey) bool {
	if w.query.Namespace == api.AllNamespaces {
		return true
	}
	if k.Namespace != w.query.Namespace {
		return false
	}
	if w.services == nil {
		return true
	}
	_, ok := w.services[k]
	return ok
}

func (w *watch) run(ctx context.Context) error {
	if err := w.begin(ctx); err != nil {
		return err
	}
	bookmarks := time.NewTicker(w.query.Bookmark)
	defer bookmarks.Stop()
	var looks <-chan time.Time // when to look from where the services are served
	if w.far != nil && w.services != nil {
		t := time.NewTicker(servingInterval)
		defer t.Stop()
		looks = t.C
	}
	for moved := true; ; {
		if err := w.catchUp(); err != nil {
			return err
		}
		if err := w.farChanges(); err != nil {
			return err
		}
		if moved {
			if err := w.drainChanges(); err != nil {
				return err
			}
		}
		moved = false
		if looks != nil {
			w.r.served.look(w.r, w.services)
		}
		select {
		case <-w.bell.c:
		case <-looks:
		case <-w.far.changed():
			w.far.stale, moved = true, true
		case <-w.steered.changed():
			moved = true
		case <-bookmarks.C:
			if err := w.catchUp(); err != nil { // revisions pass without waking anyone
				return err
			}
			if err := w.mark(api.FrameBookmark); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		case <-w.r.ended:
			return &api.Error{Code: api.CodeShuttingDown, Detail: "this node is shutting down", Remedy: "ask another node"}
		}
	}
}

// begin sends everything up to the first synced.
func (w *watch) begin(ctx context.Context) error {
	from := w.query.From
	if from.IsZero() {
		return w.relist("")
	}
	// Older items than the client has would be time travel (P4): wait for this node first.
	why, err := w.r.meet(ctx, from)
	if err != nil {
		return err
	}
	if why != "" {
		return w.relist(why)
	}
	_, _, why = w.r.since(from, newBell(), func(*catalog.Change) bool { return false })
	if why != "" {
		return w.relist(why)
	}
	w.at = from
	return w.synced()
}

// relist sends a reset, if there is a reason for one, then everything.
func (w *watch) relist(reason string) error {
	w.r.mu.RLock()
	snap := w.r.Snapshot()
	w.bell.blind = true
	w.r.mu.RUnlock()
	w.at = snap.Version()
	if reason != "" {
		if err := w.send(&api.Frame{Kind: api.FrameReset, Version: w.at, Reason: reason}, nil); err != nil {
			return err
		}
	}
	keys := w.keys(snap)
	for _, key := range keys {
		list, _ := snap.Service(key)
		shared := w.r.items.of(w.at, key, len(list))
		for i, in := range list {
			f, place := w.frame(api.FrameItem, key, in), (*encoded.Frame)(nil)
			if shared != nil {
				place = &shared[i]
			}
			if err := w.send(&f, place); err != nil {
				return err
			}
		}
	}
	return w.synced()
}

// keys returns the watched services that have instances, sorted.
func (w *watch) keys(snap *catalog.Snapshot) []api.ServiceKey {
	if w.services != nil {
		return sortedKeys(w.services)
	}
	var keys []api.ServiceKey
	for _, k := range snap.Services() {
		if w.wants(k) {
			keys = append(keys, k)
		}
	}
	return keys
}

func (w *watch) synced() error {
	if w.far != nil {
		w.far.forget()
	}
	if w.steered != nil {
		w.steered.forget()
	}
	if err := w.farChanges(); err != nil {
		return err
	}
	return w.mark(api.FrameSynced)
}

// mark sends a synced or bookmark frame.
func (w *watch) mark(kind api.FrameKind) error {
	f := api.Frame{Kind: kind, Version: w.at, Addresses: w.r.cfg.Addresses}
	if w.steered != nil {
		f.Origins, f.Loads = w.origins(), w.loads(kind == api.FrameSynced)
		w.steered.note(f.Origins)
		return w.send(&f, nil)
	}
	return w.send(&f, w.r.items.mark(w.at, kind))
}

// catchUp sends every change since the last one sent. It holds one page of them at a time:
// a reader that takes hours over it costs no more than that, and is told by a reset when the
// rest was forgotten meanwhile.
func (w *watch) catchUp() error {
	for {
		mine, upTo, why := w.r.since(w.at, w.bell, func(c *catalog.Change) bool { return w.wants(c.Key()) })
		if why != "" {
			if err := w.relist(why); err != nil {
				return err
			}
			continue
		}
		done := upTo == w.at
		for i := range mine {
			c := &mine[i]
			if brown == "drop-event" && c.Revision%32 == 0 {
				continue
			}
			w.at.Revision = c.Revision
			f := w.frame(api.FrameChange, c.Key(), c.Instance)
			f.Op, f.Cause = c.Op, c.Cause
			f.More = i+1 < len(mine) && mine[i+1].Revision == c.Revision
			if err := w.send(&f, c.Encoded); err != nil {
				return err
			}
		}
		w.at = upTo
		if done {
			return nil
		}
	}
}

func (w *watch) frame(kind api.FrameKind, key api.ServiceKey, in *api.Instance) api.Frame {
	f := api.Frame{Kind: kind, Version: w.at, Instance: in, Service: key.Service}
	if key.Namespace != api.DefaultNamespace {
		f.Namespace = key.Namespace
	}
	return f
}

// farChanges sends what changed in other regions, and in policies, since the last call.
func (w *watch) farChanges() error {
	tell := func(f api.Frame) error {
		f.Version = w.at
		return w.send(&f, nil)
	}
	if w.steered == nil {
		return nil
	}
	if err := w.steered.diff(tell); err != nil {
		return err
	}
	if w.far == nil {
		return nil
	}
	return w.far.diff(tell)
}

// drainChanges sends a bookmark, which has the origins, when other drains are in force than were
// last told.
func (w *watch) drainChanges() error {
	if w.steered == nil || !w.steered.moved(w.origins()) {
		return nil
	}
	return w.mark(api.FrameBookmark)
}

// origins returns what is known of every other region, and the own one while it is drained.
func (w *watch) origins() []api.Origin {
	origins := w.r.origins()
	if w.r.drained(w.r.cfg.Region) > 0 {
		origins = append([]api.Origin{w.r.self(w.r.Snapshot())}, origins...)
	}
	return origins
}

// since returns the next changes after v that are wanted, and the version that they lead
// to; that is v itself when there is nothing after it. The caller owns the slice. why is not
// empty when v cannot be resumed from.
func (r *Registry) since(v api.Version, b *bell, want func(*catalog.Change) bool) (changes []catalog.Change, upTo api.Version, why string) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	head := r.head.Load().snap.Version()
	switch {
	case v.Region != head.Region:
		return nil, head, fmt.Sprintf("version %s is of another region", api.Quote(v.String()))
	case v.Epoch != head.Epoch:
		return nil, head, fmt.Sprintf("the region's history began anew: its epoch is %s", head.Epoch)
	case v.Revision > head.Revision:
		return nil, head, fmt.Sprintf("revision %d is ahead of this node's history, which is at %d", v.Revision, head.Revision)
	case v.Revision == head.Revision, !b.blind && b.first == 0:
		b.blind, b.first = false, 0
		return nil, head, ""
	}
	from := v.Revision
	if !b.blind {
		from = max(from, b.first-1) // nothing before it
	}
	changes, revision, ok := r.history.Since(from, want)
	if !ok {
		return nil, head, fmt.Sprintf("the changes after revision %d are no longer remembered", v.Revision)
	}
	upTo = head
	b.blind, b.first = revision < r.history.Last(), 0
	if b.blind {
		upTo.Revision = revision
	}
	return changes, upTo, ""
}
