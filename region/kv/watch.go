package kv

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nearside/nearside/region/encoded"
	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/sdk/api"
)

// WatchQuery asks for a stream of changes of the keys that begin with Prefix.
type WatchQuery struct {
	Namespace api.Namespace
	Prefix    string
	KeysOnly  bool        // leave the values out
	From      api.Version // resume after this version; zero = start with items
}

// Watch sends what the keys are, then every change of them in revision order, each once,
// until ctx ends, send fails or the node shuts down; it returns that error. It keeps the
// promises of registry.Watch (P5): items, synced, changes, a bookmark every five seconds, and a
// reset followed by all items when From cannot be resumed from or the reader fell too far
// behind. send is called from this goroutine only, and only this watch waits for it.
func (t *Table) Watch(ctx context.Context, q WatchQuery, send func(api.Frame) error) error {
	return t.WatchShared(ctx, q, func(f *api.Frame, _ *encoded.Frame) error { return send(*f) })
}

// WatchShared is Watch for doors, as registry.WatchShared is.
func (t *Table) WatchShared(ctx context.Context, q WatchQuery, send func(*api.Frame, *encoded.Frame) error) error {
	if err := t.beginPrefix(ctx, &q.Namespace, q.Prefix); err != nil {
		return err
	}
	if _, err := t.cfg.Registry.Fresh(ctx, registry.ReadOptions{}); err != nil {
		return err // not loaded yet
	}
	done, err := t.cfg.Registry.OpenWatch()
	if err != nil {
		return err
	}
	defer done()
	w := &watch{t: t, query: q, start: pathOf(q.Namespace, q.Prefix), send: send}
	return w.run(ctx)
}

// watch is one stream. It belongs to one goroutine.
type watch struct {
	t     *Table
	query WatchQuery
	start string // what the paths of watched keys begin with
	send  func(*api.Frame, *encoded.Frame) error
	at    api.Version // every change up to here was sent
}

func (w *watch) run(ctx context.Context) error {
	if err := w.begin(ctx); err != nil {
		return err
	}
	bookmarks := time.NewTicker(api.BookmarkInterval)
	defer bookmarks.Stop()
	for {
		h := w.t.head.Load()
		if err := w.catchUp(); err != nil {
			return err
		}
		select {
		case <-h.changed:
		case <-bookmarks.C:
			// Revisions pass without waking anyone when no key changes.
			if err := w.catchUp(); err != nil {
				return err
			}
			if err := w.send(&api.Frame{Kind: api.FrameBookmark, Version: w.at}, nil); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		case <-w.t.cfg.Registry.Ended():
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
	why, err := w.t.cfg.Registry.Meet(ctx, from)
	if err != nil {
		return err
	}
	if why == "" {
		_, _, why = w.t.since(from)
	}
	if why != "" {
		return w.relist(why)
	}
	w.at = from
	return w.send(&api.Frame{Kind: api.FrameSynced, Version: w.at}, nil)
}

// relist sends a reset, if there is a reason for one, then everything.
func (w *watch) relist(reason string) error {
	h := w.t.head.Load()
	w.at = h.version
	if reason != "" {
		if err := w.send(&api.Frame{Kind: api.FrameReset, Version: w.at, Reason: reason}, nil); err != nil {
			return err
		}
	}
	var err error
	h.view.Scan(w.query.Namespace, w.query.Prefix, "", func(e *Entry) bool {
		f := w.frame(api.FrameItem, e, !w.query.KeysOnly)
		err = w.send(&f, nil)
		return err == nil
	})
	if err != nil {
		return err
	}
	return w.send(&api.Frame{Kind: api.FrameSynced, Version: w.at}, nil)
}

// catchUp sends every change since the last one sent.
func (w *watch) catchUp() error {
	for {
		changes, upTo, why := w.t.since(w.at)
		if why != "" {
			if err := w.relist(why); err != nil {
				return err
			}
			continue
		}
		mine := changes[:0]
		for _, c := range changes {
			if strings.HasPrefix(c.Entry.path, w.start) {
				mine = append(mine, c)
			}
		}
		for i, c := range mine {
			w.at.Revision = c.Revision
			f := w.frame(api.FrameChange, c.Entry, c.Op == api.OpPut && !w.query.KeysOnly)
			f.Op = c.Op
			f.More = i+1 < len(mine) && mine[i+1].Revision == c.Revision
			if err := w.send(&f, c.place(w.query.KeysOnly)); err != nil {
				return err
			}
		}
		w.at = upTo
		if len(changes) == 0 {
			return nil
		}
	}
}

func (w *watch) frame(kind api.FrameKind, e *Entry, value bool) api.Frame {
	entry := e.Wire(value)
	return api.Frame{Kind: kind, Version: w.at, KV: &entry}
}

// since returns changes after v, none when there are none, and the version that they lead
// to; the caller owns the slice. why is not empty when v cannot be resumed from.
func (t *Table) since(v api.Version) (changes []Change, upTo api.Version, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	head := t.head.Load().version
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
	changes, rest, ok := t.history.since(v.Revision)
	switch {
	case !ok:
		return nil, head, fmt.Sprintf("the changes after revision %d are no longer remembered", v.Revision)
	case rest:
		head.Revision = changes[len(changes)-1].Revision
	}
	return changes, head, ""
}
