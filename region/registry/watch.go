package registry

import (
	"context"
	"fmt"
	"time"

	"github.com/nearside/nearside/region/catalog"
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
// the last are marked with More. When nothing happens a bookmark comes every five seconds.
//
// A watch tells what is stored. Whether heartbeats are overdue is an observation of one
// node, so it is told by reads and not here; an eviction is a change like any other.
func (r *Registry) Watch(ctx context.Context, q WatchQuery, send func(api.Frame) error) error {
	q.Namespace = orDefault(q.Namespace)
	if err := r.authorize(ctx, VerbRead, q.Namespace, q.Services...); err != nil {
		return err
	}
	w := &watch{r: r, query: q, send: send}
	if err := w.check(); err != nil {
		return err
	}
	if err := r.needLoaded(); err != nil {
		return err
	}
	leave, err := r.enterWatch()
	if err != nil {
		return err
	}
	defer leave()
	return w.run(ctx)
}

// enterWatch takes one of the places for streams.
func (r *Registry) enterWatch() (leave func(), err error) {
	if n := r.watches.Add(1); n > int64(r.cfg.MaxWatches) {
		r.watches.Add(-1)
		return nil, &api.Error{
			Code: api.CodeTooManyRequests, Detail: fmt.Sprintf("this node serves %d watches already", r.cfg.MaxWatches),
			Remedy: "watch several services in one stream, or ask another node",
		}
	}
	return func() { r.watches.Add(-1) }, nil
}

// watch is one stream. It belongs to one goroutine.
type watch struct {
	r        *Registry
	query    WatchQuery
	services map[api.ServiceKey]struct{} // nil = all of the namespace
	send     func(api.Frame) error
	far      *far // nil without query.Far or a federation

	// at: every change up to here was sent.
	at api.Version
}

func (w *watch) check() error {
	q := &w.query
	if err := api.CheckNamespace(string(q.Namespace)); err != nil {
		return err
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
	if q.Far && w.r.cfg.Replicas != nil {
		w.far = newFar(w.r.cfg.Replicas, q.Namespace, w.services)
	}
	return nil
}

func (w *watch) wants(k api.ServiceKey) bool {
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
	bookmarks := time.NewTicker(api.BookmarkInterval)
	defer bookmarks.Stop()
	for {
		h := w.r.head.Load()
		if err := w.catchUp(); err != nil {
			return err
		}
		if err := w.farChanges(); err != nil {
			return err
		}
		select {
		case <-h.changed:
		case <-w.far.changed():
		case <-bookmarks.C:
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
	_, _, why = w.r.since(from, func(*catalog.Change) bool { return false })
	if why != "" {
		return w.relist(why)
	}
	w.at = from
	return w.synced()
}

// relist sends a reset, if there is a reason for one, then everything.
func (w *watch) relist(reason string) error {
	snap := w.r.Snapshot()
	w.at = snap.Version()
	if reason != "" {
		if err := w.send(api.Frame{Kind: api.FrameReset, Version: w.at, Reason: reason}); err != nil {
			return err
		}
	}
	keys := w.keys(snap)
	for _, key := range keys {
		list, _ := snap.Service(key)
		for _, in := range list {
			if err := w.send(w.frame(api.FrameItem, key, in)); err != nil {
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
		if err := w.farChanges(); err != nil {
			return err
		}
	}
	return w.mark(api.FrameSynced)
}

// mark sends a synced or bookmark frame.
func (w *watch) mark(kind api.FrameKind) error {
	f := api.Frame{Kind: kind, Version: w.at, Addresses: w.r.cfg.Addresses}
	if w.far != nil {
		f.Origins = w.far.replicas.Origins()
	}
	return w.send(f)
}

// catchUp sends every change since the last one sent. It holds one page of them at a time:
// a reader that takes hours over it costs no more than that, and is told by a reset when the
// rest was forgotten meanwhile.
func (w *watch) catchUp() error {
	for {
		mine, upTo, why := w.r.since(w.at, func(c *catalog.Change) bool { return w.wants(c.Key()) })
		if why != "" {
			if err := w.relist(why); err != nil {
				return err
			}
			continue
		}
		done := upTo == w.at
		for i := range mine {
			c := &mine[i]
			w.at.Revision = c.Revision
			f := w.frame(api.FrameChange, c.Key(), c.Instance)
			f.Op, f.Cause = c.Op, c.Cause
			f.More = i+1 < len(mine) && mine[i+1].Revision == c.Revision
			if err := w.send(f); err != nil {
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

// farChanges sends what changed in other regions since the last call.
func (w *watch) farChanges() error {
	if w.far == nil {
		return nil
	}
	return w.far.diff(func(f api.Frame) error {
		f.Version = w.at
		return w.send(f)
	})
}

// since returns the next changes after v that are wanted, and the version that they lead
// to; that is v itself when there is nothing after it. The caller owns the slice. why is not
// empty when v cannot be resumed from.
func (r *Registry) since(v api.Version, want func(*catalog.Change) bool) (changes []catalog.Change, upTo api.Version, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	head := r.head.Load().snap.Version()
	switch {
	case v.Region != head.Region:
		return nil, head, fmt.Sprintf("version %s is of another region", api.Quote(v.String()))
	case v.Epoch != head.Epoch:
		return nil, head, fmt.Sprintf("the region's history began anew: its epoch is %s", head.Epoch)
	case v.Revision > head.Revision:
		return nil, head, fmt.Sprintf("revision %d is ahead of this node's history, which is at %d", v.Revision, head.Revision)
	case v.Revision == head.Revision:
		return nil, v, ""
	}
	changes, revision, ok := r.history.Since(v.Revision, want)
	if !ok {
		return nil, head, fmt.Sprintf("the changes after revision %d are no longer remembered", v.Revision)
	}
	upTo = head
	if revision < r.history.Last() {
		upTo.Revision = revision
	}
	return changes, upTo, ""
}
