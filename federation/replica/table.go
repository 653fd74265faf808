package replica

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	"github.com/cespare/xxhash/v2"

	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// shardCount divides a table so that a change copies a part of it only: with 100,000 rows
// some 400 instead of all.
const shardCount = 256

// Table is an immutable set of rows. The zero value is empty. Safe for concurrent use.
type Table struct {
	shards [shardCount]map[api.ServiceKey]*Entry
	count  int
	digest summary.Digest
	// usable counts services with a passing instance; passing and instances add up those of
	// all services.
	usable, passing, instances int

	sortOnce sync.Once
	sorted   []*api.Summary
}

func shardOf(k api.ServiceKey) int {
	return int((xxhash.Sum64String(string(k.Service)) + xxhash.Sum64String(string(k.Namespace))*31) % shardCount)
}

// Len returns the number of rows.
func (t *Table) Len() int { return t.count }

// Digest returns the digest of all rows.
func (t *Table) Digest() summary.Digest { return t.digest }

// Passing returns the number of usable instances of all services together.
func (t *Table) Passing() int { return t.passing }

// Get returns a row, or nil.
func (t *Table) Get(k api.ServiceKey) *Entry { return t.shards[shardOf(k)][k] }

// All calls yield for every row, in no order, until it returns false.
func (t *Table) All(yield func(api.ServiceKey, *Entry) bool) {
	for i := range t.shards {
		for k, e := range t.shards[i] {
			if !yield(k, e) {
				return
			}
		}
	}
}

// Summaries returns the usable rows by key. The result is shared: do not change it.
func (t *Table) Summaries() []*api.Summary {
	t.sortOnce.Do(func() {
		t.sorted = make([]*api.Summary, 0, t.count)
		for _, e := range t.All {
			if e.Summary != nil {
				t.sorted = append(t.sorted, e.Summary)
			}
		}
		slices.SortFunc(t.sorted, func(a, b *api.Summary) int { return compareKeys(a.Key(), b.Key()) })
	})
	return t.sorted
}

func compareKeys(a, b api.ServiceKey) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Service, b.Service))
}

// edit builds a new table from another one. It must not be used after done.
type edit struct {
	t     *Table
	owned [shardCount]bool
}

func newEdit(base *Table) *edit {
	return &edit{t: &Table{
		shards: base.shards, count: base.count, digest: base.digest,
		usable: base.usable, passing: base.passing, instances: base.instances,
	}}
}

func (e *edit) shard(k api.ServiceKey) map[api.ServiceKey]*Entry {
	i := shardOf(k)
	if !e.owned[i] {
		if e.t.shards[i] == nil {
			e.t.shards[i] = make(map[api.ServiceKey]*Entry)
		} else {
			e.t.shards[i] = maps.Clone(e.t.shards[i])
		}
		e.owned[i] = true
	}
	return e.t.shards[i]
}

func (e *edit) put(k api.ServiceKey, entry *Entry) {
	s := e.shard(k)
	e.uncount(s[k])
	s[k] = entry
	e.t.count++
	e.t.digest = e.t.digest.Add(entry.Hash)
	if entry.Summary != nil {
		e.t.passing += entry.Summary.Passing
		e.t.instances += entry.Summary.Total
		if entry.Summary.Passing > 0 {
			e.t.usable++
		}
	}
}

func (e *edit) remove(k api.ServiceKey) {
	if e.t.Get(k) == nil {
		return
	}
	s := e.shard(k)
	e.uncount(s[k])
	delete(s, k)
}

// uncount takes an entry that is about to go, or nil, out of the sums.
func (e *edit) uncount(old *Entry) {
	if old == nil {
		return
	}
	e.t.count--
	e.t.digest = e.t.digest.Remove(old.Hash)
	if old.Summary != nil {
		e.t.passing -= old.Summary.Passing
		e.t.instances -= old.Summary.Total
		if old.Summary.Passing > 0 {
			e.t.usable--
		}
	}
}

func (e *edit) done() *Table { return e.t }
