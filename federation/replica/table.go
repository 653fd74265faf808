package replica

import (
	"maps"
	"reflect"
	"slices"
	"sync"

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
	quarantined                int
	// seal is kept from the first use on, in the tables made of this one; nil = nobody needed it.
	seal  *summary.Seal
	bytes int // of the bodies

	sortOnce sync.Once
	sorted   []*api.Summary
}

// shardOf keeps each bucket within one shard, so that replacing a bucket looks at one shard.
func shardOf(k api.ServiceKey) int { return summary.BucketOf(k) % shardCount }

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

// Sums returns the digest of each of n buckets, see summary.FineBuckets.
func (t *Table) Sums(n int) summary.Sums {
	s := summary.NewSums(n)
	for k, e := range t.All {
		s.Add(k, e.Hash)
	}
	return s
}

// Holding returns the hashes of the rows in some buckets.
func (t *Table) Holding(set *summary.BucketSet) *summary.Holding {
	h := &summary.Holding{Set: set}
	for k, e := range t.All {
		if set.Holds(k) {
			h.Rows = append(h.Rows, e.Hash)
		}
	}
	return h
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
		slices.SortFunc(t.sorted, func(a, b *api.Summary) int { return CompareKeys(a.Key(), b.Key()) })
	})
	return t.sorted
}

// sealed returns t with its seal kept in all tables that are made of it.
func (t *Table) sealed() *Table {
	if t.seal != nil {
		return t
	}
	out := newEdit(t).done()
	out.seal = new(summary.Seal)
	for _, e := range t.All {
		out.seal.Add(e.sum)
	}
	return out
}

// Seal returns what an origin signs of these rows.
func (t *Table) Seal() summary.Sum { return t.sealed().seal.Sum() }

// Differ returns the keys whose rows differ between t and old: it looks only at the parts that
// a change has copied.
func (t *Table) Differ(old *Table) (keys []api.ServiceKey) {
	for i := range t.shards {
		a, b := t.shards[i], old.shards[i]
		if reflect.ValueOf(a).UnsafePointer() == reflect.ValueOf(b).UnsafePointer() {
			continue
		}
		for k, e := range a {
			if o := b[k]; o == nil || o.Hash != e.Hash || o.Revision != e.Revision {
				keys = append(keys, k)
			}
		}
		for k := range b {
			if a[k] == nil {
				keys = append(keys, k)
			}
		}
	}
	return keys
}

// edit builds a new table from another one. It must not be used after done.
type edit struct {
	t     *Table
	owned [shardCount]bool
}

func newEdit(base *Table) *edit {
	e := &edit{t: &Table{
		shards: base.shards, count: base.count, digest: base.digest,
		usable: base.usable, passing: base.passing, instances: base.instances, quarantined: base.quarantined, bytes: base.bytes,
	}}
	if base.seal != nil {
		seal := *base.seal
		e.t.seal = &seal
	}
	return e
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
	old := s[k]
	e.uncount(old)
	e.reseal(old, entry)
	s[k] = entry
	e.t.count++
	e.t.bytes += entry.size
	e.t.digest = e.t.digest.Add(entry.Hash)
	if entry.Quarantined != "" {
		e.t.quarantined++
	}
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
	e.reseal(s[k], nil)
	delete(s, k)
}

// reseal counts a row in the seal in place of another one; nil = none. A row that has only another load
// costs nothing: loads are not part of what is signed.
func (e *edit) reseal(old, entry *Entry) {
	switch {
	case e.t.seal == nil, old != nil && entry != nil && old.sum == entry.sum:
		return
	}
	if entry != nil {
		e.t.seal.Add(entry.sum)
	}
	if old != nil {
		e.t.seal.Remove(old.sum)
	}
}

// clear removes all rows of the buckets in set.
func (e *edit) clear(set *summary.BucketSet) {
	if set == nil {
		empty := &Table{}
		if e.t.seal != nil {
			empty.seal = new(summary.Seal)
		}
		*e = *newEdit(empty)
		return
	}
	for i := range e.t.shards {
		affected := false
		for b := i; b < set.Of() && !affected; b += shardCount {
			affected = set.Has(b)
		}
		if !affected {
			continue
		}
		for k := range e.t.shards[i] {
			if set.Holds(k) {
				e.remove(k)
			}
		}
	}
}

// drop removes the rows with these hashes, which are in the buckets of set.
func (e *edit) drop(hashes summary.Hashes, set *summary.BucketSet) {
	if len(hashes) == 0 {
		return
	}
	gone := make(map[summary.Hash]struct{}, len(hashes))
	for _, h := range hashes {
		gone[h] = struct{}{}
	}
	var keys []api.ServiceKey
	for k, entry := range e.t.All {
		if _, ok := gone[entry.Hash]; ok && set.Holds(k) {
			keys = append(keys, k)
		}
	}
	for _, k := range keys {
		e.remove(k)
	}
}

// uncount takes an entry that is about to go, or nil, out of the sums.
func (e *edit) uncount(old *Entry) {
	if old == nil {
		return
	}
	e.t.count--
	e.t.bytes -= old.size
	e.t.digest = e.t.digest.Remove(old.Hash)
	if old.Quarantined != "" {
		e.t.quarantined--
	}
	if old.Summary != nil {
		e.t.passing -= old.Summary.Passing
		e.t.instances -= old.Summary.Total
		if old.Summary.Passing > 0 {
			e.t.usable--
		}
	}
}

func (e *edit) done() *Table { return e.t }
