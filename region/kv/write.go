package kv

import (
	"context"
	"fmt"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

// PutQuery writes a key. Value may be changed after the call.
type PutQuery struct {
	Namespace api.Namespace
	Key       string
	Value     []byte
	// CAS, when not nil, is the revision that the key must be at: 0 = there must be no such key.
	CAS *uint64
	// Epoch, when not zero, is the history that CAS is a revision of: in any other one it does
	// not hold, whatever the key is at.
	Epoch api.Epoch
}

// DeleteQuery deletes a key, when CAS is given only at that revision, of the Epoch given.
type DeleteQuery struct {
	Namespace api.Namespace
	Key       string
	CAS       *uint64
	Epoch     api.Epoch
}

// Put writes a key's value; created tells that there was none. With CAS it is refused with
// CodeConflict, which carries the key's present revision, when the key is at another one. Once
// it returned without an error the value is durable, and this node's reads show it. After
// CodeUnavailable it may have happened or not: repeating it is safe without CAS, and with
// CAS the repetition may meet the first one's result as a conflict.
func (t *Table) Put(ctx context.Context, q PutQuery) (out api.KVWritten, created bool, err error) {
	if err := t.begin(ctx, registry.VerbKVWrite, &q.Namespace, q.Key); err != nil {
		return out, false, err
	}
	if len(q.Value) > api.MaxKVValueBytes {
		return out, false, &api.Error{
			Code: api.CodeBodyTooLarge, Detail: fmt.Sprintf("the value has more than %d bytes", api.MaxKVValueBytes),
			Remedy: "keep large things elsewhere, and here where they are",
		}
	}
	if err := t.pace.take(writeCost(q)); err != nil {
		return out, false, err
	}
	var claim claim
	defer t.budget.release(&claim)
	var first uint64 // the created revision; 0 = this write
	revision, err := t.write(ctx, q.Namespace, q.Key, q.CAS, q.Epoch, func(cur *Entry, guard uint64) ([]store.Op, error) {
		first = 0
		keys, bytes := 1, len(q.Value)
		if cur != nil {
			first = cur.Created
			keys, bytes = 0, len(q.Value)-len(cur.Value)
		}
		if err := t.claim(&claim, keys, bytes); err != nil {
			return nil, err
		}
		return []store.Op{{Key: RecordKey(q.Namespace, q.Key), Value: encode(q.Value, first), Guarded: true, If: guard}}, nil
	})
	switch api.CodeOf(err) {
	case "":
	case api.CodeConflict, api.CodeStorageFull:
		t.pace.giveBack(writeCost(q))
		return out, false, err
	default:
		return out, false, err
	}
	t.writes.Add(ctx, 1)
	t.log.Debug("key written", "ns", string(q.Namespace), "key", q.Key, "revision", revision, "bytes", len(q.Value))
	out = api.KVWritten{Key: q.Key, Namespace: q.Namespace, Epoch: t.head.Load().version.Epoch, Revision: revision, Created: first}
	if first == 0 {
		out.Created = revision
	}
	return out, first == 0, nil
}

// Delete removes a key; CodeKeyNotFound when there is none, CodeConflict as for Put.
func (t *Table) Delete(ctx context.Context, q DeleteQuery) (revision uint64, err error) {
	if err := t.begin(ctx, registry.VerbKVWrite, &q.Namespace, q.Key); err != nil {
		return 0, err
	}
	revision, err = t.write(ctx, q.Namespace, q.Key, q.CAS, q.Epoch, func(_ *Entry, guard uint64) ([]store.Op, error) {
		if guard == 0 {
			return nil, notFound(q.Namespace, q.Key)
		}
		return []store.Op{{Delete: true, Key: RecordKey(q.Namespace, q.Key), Guarded: true, If: guard}}, nil
	})
	if err != nil {
		return 0, err
	}
	t.writes.Add(ctx, 1)
	t.log.Debug("key deleted", "ns", string(q.Namespace), "key", q.Key, "revision", revision)
	return revision, nil
}

// write commits what decide returns for the key's present entry (nil = none) and the
// revision to guard it by. A refusal for what the key is at is confirmed with the store
// first: another node may have written it a moment ago, and a "no" must be as true as a "yes".
func (t *Table) write(ctx context.Context, ns api.Namespace, key string, cas *uint64, epoch api.Epoch, decide func(cur *Entry, guard uint64) ([]store.Op, error)) (uint64, error) {
	once := func() ([]store.Op, error) {
		h := t.head.Load()
		cur, guard := h.view.Get(ns, key), h.view.Guard(ns, key)
		if cas != nil {
			at := uint64(0)
			if cur != nil {
				at = cur.Revision
			}
			switch now := h.version.Epoch; {
			case !epoch.IsZero() && epoch != now:
				return nil, otherHistory(ns, key, epoch, now, at)
			case at != *cas:
				return nil, conflict(ns, key, *cas, at)
			}
		}
		return decide(cur, guard)
	}
	revision, err := t.cfg.Registry.Write(ctx, once)
	switch api.CodeOf(err) {
	case api.CodeConflict, api.CodeKeyNotFound:
	default:
		return revision, err
	}
	if _, err := t.cfg.Registry.Fresh(ctx, registry.ReadOptions{Strong: true}); err != nil {
		if api.CodeOf(err) == api.CodeUnavailable {
			return 0, &api.Error{
				Code: api.CodeUnavailable, Detail: "the region's store does not answer, so nobody can tell what the key is at; nothing was written",
				Remedy: "send it again. Reads go on",
			}
		}
		return 0, err
	}
	return t.cfg.Registry.Write(ctx, once)
}

// otherHistory refuses a revision of a history that ended: revisions began anew, so that the
// key may be at the same number by chance.
func otherHistory(ns api.Namespace, key string, epoch, now api.Epoch, at uint64) error {
	return &api.Error{
		Code: api.CodeConflict, Field: "epoch", Revision: &at,
		Detail: fmt.Sprintf("the region's history is %s now, not %s: it was restored or replaced, and key %s may be as it was long ago", now, epoch, name(ns, key)),
		Remedy: "read it again, and write with cas and epoch as they are now",
	}
}

func conflict(ns api.Namespace, key string, cas, at uint64) error {
	e := &api.Error{Code: api.CodeConflict, Field: "cas", Revision: &at}
	switch {
	case cas == 0:
		e.Detail = fmt.Sprintf("key %s exists already, at revision %d", name(ns, key), at)
		e.Remedy = "read it, then write with cas and its revision"
	case at == 0:
		e.Detail = fmt.Sprintf("key %s does not exist (any more); it was to be at revision %d", name(ns, key), cas)
		e.Remedy = "create it with cas=0, if it is wanted still"
	default:
		e.Detail = fmt.Sprintf("key %s is at revision %d, not %d", name(ns, key), at, cas)
		e.Remedy = "read it again, and write with cas and its revision"
	}
	return e
}
