package kv

import (
	"maps"
	"slices"
	"sort"
	"strings"

	"github.com/nearside/nearside/region/encoded"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

// chunkSize is how many entries a part of a view has when it is made. A change copies one
// part and the table of parts: with 100,000 keys 12 KiB together.
const chunkSize = 256

// Entry is one key. It never changes.
type Entry struct {
	path     string // namespace/key
	ns       int    // length of the namespace in path
	Value    []byte // shared: do not change it
	Revision uint64 // of the last write
	Created  uint64 // revision of the first write
}

// Namespace returns the namespace of the entry.
func (e *Entry) Namespace() api.Namespace { return api.Namespace(e.path[:e.ns]) }

// Key returns the key of the entry.
func (e *Entry) Key() string { return e.path[e.ns+1:] }

// Wire returns the entry as told to callers, with or without its value.
func (e *Entry) Wire(value bool) api.KVEntry {
	w := api.KVEntry{Key: e.Key(), Namespace: e.Namespace(), Size: len(e.Value), Revision: e.Revision, Created: e.Created}
	if value {
		w.Value = e.Value
	}
	return w
}

// View is the content at one moment, sorted. It never changes; its methods are safe for
// concurrent use. The zero View is empty.
type View struct {
	chunks [][]*Entry // each has entries; sorted by path within and one after the other
	keys   int
	bytes  int64 // of all values
	// broken holds the revisions of records that could not be read, by path: a guarded write
	// must know them, so that writing the key again heals it.
	broken map[string]uint64
}

// Change is one change of one key.
type Change struct {
	Revision uint64
	Op       api.Op
	Entry    *Entry // after a put; the last known one for a delete
	// encoded is where the change is kept as it is sent, with its value and without.
	encoded *[2]encoded.Frame
}

func (c *Change) place(keysOnly bool) *encoded.Frame {
	switch {
	case c.encoded == nil:
		return nil
	case keysOnly:
		return &c.encoded[1]
	}
	return &c.encoded[0]
}

// Broken is a record that could not be read and was left out.
type Broken struct {
	Key string
	Err error
}

// Load returns the view of a store's records; those of others are passed over.
func Load(records []store.Record) (*View, []Broken) {
	v := &View{}
	var reports []Broken
	var entries []*Entry
	for _, rec := range records {
		if !strings.HasPrefix(rec.Key, prefix) {
			continue
		}
		e, err := decode(rec, rec.Revision)
		if err != nil {
			reports = append(reports, Broken{rec.Key, err})
			v.setBroken(rec)
			continue
		}
		entries = append(entries, e)
		v.bytes += int64(len(e.Value))
	}
	slices.SortFunc(entries, func(a, b *Entry) int { return strings.Compare(a.path, b.path) })
	v.keys = len(entries)
	v.chunks = slices.Collect(slices.Chunk(entries, chunkSize))
	return v, reports
}

// Concerns reports whether a commit changes any key.
func Concerns(b store.Batch) bool {
	return slices.ContainsFunc(b.Events, func(ev store.Event) bool { return strings.HasPrefix(ev.Record.Key, prefix) })
}

// Apply returns the view after b, and what changed, in the order of the commit. v itself
// stays as it is. Records that cannot be read are left out and reported; a key whose
// record became unreadable counts as deleted.
func (v *View) Apply(b store.Batch) (*View, []Change, []Broken) {
	var changes []Change
	var reports []Broken
	next := *v
	next.broken = maps.Clone(v.broken)
	for _, ev := range b.Events {
		if !strings.HasPrefix(ev.Record.Key, prefix) {
			continue
		}
		var e *Entry
		var err error
		if !ev.Delete {
			if e, err = decode(ev.Record, b.Revision); err != nil {
				reports = append(reports, Broken{ev.Record.Key, err})
			}
		}
		path, _ := strings.CutPrefix(ev.Record.Key, prefix)
		delete(next.broken, path)
		switch {
		case e != nil:
			next.put(e)
			changes = append(changes, Change{b.Revision, api.OpPut, e, new([2]encoded.Frame)})
			continue
		case err != nil:
			rec := ev.Record
			rec.Revision = b.Revision
			next.setBroken(rec)
		}
		if old := next.remove(path); old != nil {
			changes = append(changes, Change{b.Revision, api.OpDelete, old, new([2]encoded.Frame)})
		}
	}
	return &next, changes, reports
}

func (v *View) setBroken(rec store.Record) {
	path, err := parseRecordKey(rec.Key)
	if err != nil {
		return // nobody can name it
	}
	if v.broken == nil {
		v.broken = map[string]uint64{}
	}
	v.broken[path] = rec.Revision
}

// Len returns the number of keys, and the bytes of all values together.
func (v *View) Len() (keys int, bytes int64) { return v.keys, v.bytes }

// Get returns a key's entry; nil when there is none.
func (v *View) Get(ns api.Namespace, key string) *Entry {
	c, i, ok := v.find(pathOf(ns, key))
	if !ok {
		return nil
	}
	return v.chunks[c][i]
}

// Guard returns the revision that a guarded write of the key must name: 0 when there is no
// record. Unlike Get it knows records that cannot be read.
func (v *View) Guard(ns api.Namespace, key string) uint64 {
	if e := v.Get(ns, key); e != nil {
		return e.Revision
	}
	return v.broken[pathOf(ns, key)]
}

// Scan calls yield for the keys of a namespace that begin with start and come after the key
// after (empty = from the first), in order, until it returns false.
func (v *View) Scan(ns api.Namespace, start, after string, yield func(*Entry) bool) {
	first := pathOf(ns, start)
	from := first
	if after != "" {
		from = max(from, pathOf(ns, after)+"\x00") // no key has a zero byte: the next path there can be
	}
	c, i, _ := v.find(from)
	for ; c < len(v.chunks); c, i = c+1, 0 {
		for _, e := range v.chunks[c][i:] {
			if !strings.HasPrefix(e.path, first) || !yield(e) {
				return
			}
		}
	}
}

// find returns the place of path: of its entry, or where it would be inserted.
func (v *View) find(path string) (chunk, i int, ok bool) {
	chunk = sort.Search(len(v.chunks), func(n int) bool { return v.chunks[n][0].path > path }) - 1
	if chunk < 0 {
		return 0, 0, false
	}
	i, ok = slices.BinarySearchFunc(v.chunks[chunk], path, func(e *Entry, p string) int { return strings.Compare(e.path, p) })
	return chunk, i, ok
}

// put inserts or replaces an entry. Like remove it may only be called for a view that
// nobody else has; parts that others may have are copied.
func (v *View) put(e *Entry) {
	v.bytes += int64(len(e.Value))
	c, i, ok := v.find(e.path)
	switch {
	case ok:
		v.bytes -= int64(len(v.chunks[c][i].Value))
		part := slices.Clone(v.chunks[c])
		part[i] = e
		v.replace(c, 1, part)
		return
	case len(v.chunks) == 0:
		v.chunks = [][]*Entry{{e}}
	default:
		old := v.chunks[c]
		part := make([]*Entry, 0, len(old)+1)
		part = append(append(append(part, old[:i]...), e), old[i:]...)
		if n := len(part); n > 2*chunkSize {
			v.replace(c, 1, part[:n/2:n/2], part[n/2:])
		} else {
			v.replace(c, 1, part)
		}
	}
	v.keys++
}

// remove deletes an entry and returns it; nil when there is none.
func (v *View) remove(path string) *Entry {
	c, i, ok := v.find(path)
	if !ok {
		return nil
	}
	old := v.chunks[c]
	e := old[i]
	part := make([]*Entry, 0, len(old))
	part = append(append(part, old[:i]...), old[i+1:]...)
	switch {
	case len(part) == 0:
		v.replace(c, 1)
	case c+1 < len(v.chunks) && len(part)+len(v.chunks[c+1]) <= chunkSize:
		v.replace(c, 2, append(part, v.chunks[c+1]...)) // so that small parts do not stay
	default:
		v.replace(c, 1, part)
	}
	v.keys--
	v.bytes -= int64(len(e.Value))
	return e
}

// replace puts parts in the place of n chunks, in a new table.
func (v *View) replace(at, n int, parts ...[]*Entry) {
	v.chunks = slices.Concat(v.chunks[:at], parts, v.chunks[at+n:])
}
