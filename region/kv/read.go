package kv

import (
	"context"
	"fmt"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/sdk/api"
)

// KeyQuery asks for one key. An empty Namespace is the default one.
type KeyQuery struct {
	Namespace api.Namespace
	Key       string
	registry.ReadOptions
}

// ListQuery asks for the keys that begin with Prefix; an empty one is all of the namespace.
type ListQuery struct {
	Namespace api.Namespace
	Prefix    string
	KeysOnly  bool   // leave the values out
	Limit     int    // 0 = api.DefaultListLimit; more than api.MaxListLimit is cut to it
	Cursor    string // of the page before
	registry.ReadOptions
}

// fresh returns the head that a read with these options may use.
func (t *Table) fresh(ctx context.Context, o registry.ReadOptions) (*head, registry.Stamp, error) {
	st, err := t.cfg.Registry.Fresh(ctx, o)
	if err != nil {
		return nil, st, err
	}
	h := t.head.Load() // at the stamp's revision or later
	st.Version = h.version
	return h, st, nil
}

// Get returns one key with its value; CodeKeyNotFound when there is none.
func (t *Table) Get(ctx context.Context, q KeyQuery) (api.KVEntry, registry.Stamp, error) {
	if err := t.begin(ctx, registry.VerbKVRead, &q.Namespace, q.Key); err != nil {
		return api.KVEntry{}, registry.Stamp{}, err
	}
	h, st, err := t.fresh(ctx, q.ReadOptions)
	if err != nil {
		return api.KVEntry{}, registry.Stamp{}, err
	}
	e := h.view.Get(q.Namespace, q.Key)
	if e == nil {
		return api.KVEntry{}, registry.Stamp{}, registry.OrNotInCopy(st, notFound(q.Namespace, q.Key))
	}
	out := e.Wire(true)
	out.Epoch = st.Version.Epoch
	return out, st, nil
}

// List returns a page of keys, in order. It is of one moment; the next page is of its own.
// A page ends early when its values have api.MaxKVPageBytes.
func (t *Table) List(ctx context.Context, q ListQuery) (api.KVList, registry.Stamp, error) {
	if err := t.beginPrefix(ctx, &q.Namespace, q.Prefix); err != nil {
		return api.KVList{}, registry.Stamp{}, err
	}
	if q.Cursor != "" && !api.ValidKVKey(q.Cursor) {
		return api.KVList{}, registry.Stamp{}, &api.Error{
			Code: api.CodeInvalidRequest, Field: "cursor", Detail: "the cursor is not one of ours", Remedy: "use the cursor of the page before, or none",
		}
	}
	h, st, err := t.fresh(ctx, q.ReadOptions)
	if err != nil {
		return api.KVList{}, registry.Stamp{}, err
	}
	if q.Limit <= 0 {
		q.Limit = api.DefaultListLimit
	}
	q.Limit = min(q.Limit, api.MaxListLimit)
	out := api.KVList{Namespace: q.Namespace, Prefix: q.Prefix, Entries: []api.KVEntry{}}
	bytes := 0
	h.view.Scan(q.Namespace, q.Prefix, q.Cursor, func(e *Entry) bool {
		if n := len(out.Entries); n > 0 && (n == q.Limit || !q.KeysOnly && bytes+len(e.Value) > api.MaxKVPageBytes) {
			out.Cursor = out.Entries[n-1].Key
			return false
		}
		out.Entries = append(out.Entries, e.Wire(!q.KeysOnly))
		bytes += len(e.Value)
		return true
	})
	return out, st, nil
}

// begin is the common start of every use case that concerns one key.
func (t *Table) begin(ctx context.Context, verb registry.Verb, ns *api.Namespace, key string) error {
	if *ns == "" {
		*ns = api.DefaultNamespace
	}
	if err := t.cfg.Registry.Authorize(ctx, registry.Access{Verb: verb, Namespace: *ns, Key: key}); err != nil {
		return err
	}
	if err := api.CheckNamespace(string(*ns)); err != nil {
		return err
	}
	return api.CheckKVKey(key)
}

// beginPrefix is the same for reads of all keys with a prefix.
func (t *Table) beginPrefix(ctx context.Context, ns *api.Namespace, start string) error {
	if *ns == "" {
		*ns = api.DefaultNamespace
	}
	if err := t.cfg.Registry.Authorize(ctx, registry.Access{Verb: registry.VerbKVRead, Namespace: *ns, Prefix: start}); err != nil {
		return err
	}
	if err := api.CheckNamespace(string(*ns)); err != nil {
		return err
	}
	return api.CheckKVPrefix(start)
}

// name is a key as people see it: with its namespace when that is not the default one.
func name(ns api.Namespace, key string) string {
	if ns == api.DefaultNamespace {
		return api.Quote(key)
	}
	return fmt.Sprintf("%s of namespace %s", api.Quote(key), ns)
}

func notFound(ns api.Namespace, key string) error {
	return &api.Error{
		Code: api.CodeKeyNotFound, Detail: fmt.Sprintf("there is no key %s", name(ns, key)),
		Remedy: "GET /v1/kv/?prefix= lists the keys; check the namespace",
	}
}
