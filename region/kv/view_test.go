package kv

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

func putEvent(ns api.Namespace, key, value string, created uint64) store.Event {
	return store.Event{Record: store.Record{Key: RecordKey(ns, key), Value: encode([]byte(value), created)}}
}

func deleteEvent(ns api.Namespace, key string) store.Event {
	return store.Event{Delete: true, Record: store.Record{Key: RecordKey(ns, key)}}
}

// text is everything that a view shows.
func text(v *View) string {
	var b strings.Builder
	keys, bytes := 0, int64(0)
	for c, part := range v.chunks {
		if len(part) == 0 || len(part) > 2*chunkSize {
			fmt.Fprintf(&b, "part %d has %d entries! ", c, len(part))
		}
		for _, e := range part {
			fmt.Fprintf(&b, "%s=%s@%d/%d ", e.path, e.Value, e.Revision, e.Created)
			keys++
			bytes += int64(len(e.Value))
		}
	}
	if n, m := v.Len(); n != keys || m != bytes {
		fmt.Fprintf(&b, "counts %d keys %d bytes, has %d and %d! ", n, m, keys, bytes)
	}
	for _, p := range slices.Sorted(maps.Keys(v.broken)) {
		fmt.Fprintf(&b, "broken %s@%d ", p, v.broken[p])
	}
	return b.String()
}

// Property: applying any sequence of commits gives what loading the end result gives, old
// views stay as they were, and scans agree with a sorted map.
func TestApplyEqualsLoad(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for round := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, round))
		records := map[string]store.Record{}
		v := &View{}
		var kept []*View
		var keptText []string
		growing := 0.7
		for revision := uint64(2); revision < 3000; revision++ {
			if revision == 1800 {
				growing = 0.2
			}
			key := fmt.Sprintf("k%d/%c", rng.IntN(900), 'a'+rune(rng.IntN(2)))
			ns := api.Namespace([]string{"default", "default-2", "shop"}[rng.IntN(3)])
			ev := deleteEvent(ns, key)
			switch _, exists := records[ev.Record.Key]; {
			case rng.Float64() < growing:
				created := uint64(0)
				if cur := v.Get(ns, key); cur != nil {
					created = cur.Created
				}
				ev = putEvent(ns, key, fmt.Sprint("v", revision), created)
				if rng.IntN(40) == 0 {
					ev.Record.Value = []byte{9, 9}
				}
			case !exists:
				continue
			}
			ev.Record.Revision = revision
			if ev.Delete {
				delete(records, ev.Record.Key)
			} else {
				records[ev.Record.Key] = ev.Record
			}
			if revision%500 == 0 {
				kept, keptText = append(kept, v), append(keptText, text(v))
			}
			v, _, _ = v.Apply(store.Batch{Revision: revision, Events: []store.Event{ev}})
		}
		loaded, _ := Load(slices.SortedFunc(maps.Values(records), func(a, b store.Record) int { return strings.Compare(a.Key, b.Key) }))
		if got, want := text(v), text(loaded); got != want {
			t.Fatalf("round %d: applied\n%.2000s\nloaded\n%.2000s", round, got, want)
		}
		for i, k := range kept {
			if text(k) != keptText[i] {
				t.Fatalf("round %d: an older view changed", round)
			}
		}
		for _, ns := range []api.Namespace{"default", "default-2", "shop", "none"} {
			for _, start := range []string{"", "k1", "k12/", "k12/a", "zz", "k"} {
				for _, after := range []string{"", "k1", "k12/a", "k5", "zz"} {
					checkScan(t, v, ns, start, after)
				}
			}
		}
	}
}

func checkScan(t *testing.T, v *View, ns api.Namespace, start, after string) {
	t.Helper()
	var got, want []string
	v.Scan(ns, start, after, func(e *Entry) bool { got = append(got, e.Key()); return true })
	for _, part := range v.chunks {
		for _, e := range part {
			if e.Namespace() == ns && strings.HasPrefix(e.Key(), start) && (after == "" || e.Key() > after) {
				want = append(want, e.Key())
			}
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("scan %s %q after %q: %d keys, want %d: %.200v, want %.200v", ns, start, after, len(got), len(want), got, want)
	}
}

func TestChangesAreLabelled(t *testing.T) {
	v := &View{}
	for _, step := range []struct {
		name string
		b    store.Batch
		want string
	}{
		{"created", store.Batch{Revision: 2, Events: []store.Event{putEvent("default", "a", "1", 0)}}, "put default/a=1@2/2"},
		{"written", store.Batch{Revision: 5, Events: []store.Event{putEvent("default", "a", "", 2)}}, "put default/a=@5/2"},
		{"one commit", store.Batch{Revision: 6, Events: []store.Event{deleteEvent("default", "a"), putEvent("shop", "b/c", "2", 0)}}, "delete default/a=@5/2, put shop/b/c=2@6/6"},
		{"missing", store.Batch{Revision: 7, Events: []store.Event{deleteEvent("default", "a")}}, ""},
		{"of others", store.Batch{Revision: 8, Events: []store.Event{{Record: store.Record{Key: "instances/default/a/b", Value: []byte("{}")}}}}, ""},
		{"unreadable", store.Batch{Revision: 9, Events: []store.Event{{Record: store.Record{Key: "kv/shop/b/c", Value: []byte("x")}}}}, "delete shop/b/c=2@6/6"},
		{"healed", store.Batch{Revision: 10, Events: []store.Event{putEvent("shop", "b/c", "3", 0)}}, "put shop/b/c=3@10/10"},
	} {
		next, changes, broken := v.Apply(step.b)
		var got []string
		for _, c := range changes {
			got = append(got, fmt.Sprintf("%s %s=%s@%d/%d", c.Op, c.Entry.path, c.Entry.Value, c.Entry.Revision, c.Entry.Created))
			if c.Revision != step.b.Revision {
				t.Errorf("%s: change of revision %d", step.name, c.Revision)
			}
		}
		if g := strings.Join(got, ", "); g != step.want || (len(broken) > 0) != (step.name == "unreadable") {
			t.Errorf("%s: %s %v, want %s", step.name, g, broken, step.want)
		}
		if g := next.Guard("shop", "b/c"); step.name == "unreadable" && g != 9 {
			t.Errorf("guard %d of a broken record at 9", g)
		}
		v = next
	}
}

// The catalogue neither reports a key's record as broken nor holds it.
func TestTheCatalogueDoesNotLookAtKeys(t *testing.T) {
	ev := putEvent("default", "instances/default/a", "1", 0)
	ev.Record.Revision = 3
	s, orphans, broken := catalog.Load("eu-west", store.Image{Revision: 3, Records: []store.Record{ev.Record}})
	if len(orphans)+len(broken) > 0 || len(s.Services()) > 0 {
		t.Errorf("%v %v %v", orphans, broken, s.Services())
	}
	if _, changes, broken := s.Apply(store.Batch{Revision: 4, Events: []store.Event{ev}}); len(changes)+len(broken) > 0 {
		t.Errorf("%v %v", changes, broken)
	}
}

// The longest key of the longest namespace fits into the store.
func TestLongestKeyFitsTheStore(t *testing.T) {
	op := store.Op{Key: RecordKey(api.Namespace(strings.Repeat("n", api.MaxLabelLength)), strings.Repeat("k", api.MaxKVKeyLength)), Value: encode(make([]byte, api.MaxKVValueBytes), 1<<63)}
	if err := store.CheckOps([]store.Op{op}); err != nil {
		t.Error(err)
	}
	if _, err := parseRecordKey(op.Key); err != nil {
		t.Error(err)
	}
}

// P1: a backup that is restored numbers its records anew, so that some were created "later"
// than they were written. They are all there.
func TestRecordsOfARestoredBackup(t *testing.T) {
	records := []store.Record{
		{Key: RecordKey("default", "a"), Value: encode([]byte("1"), 5000), Revision: 3},
		{Key: RecordKey("default", "b"), Value: encode([]byte("2"), 2), Revision: 3},
		{Key: RecordKey("default", "c"), Value: encode([]byte("3"), 0), Revision: 4},
	}
	v, broken := Load(records)
	if got, want := text(v), "default/a=1@3/3 default/b=2@3/2 default/c=3@4/4 "; got != want || len(broken) > 0 {
		t.Errorf("%s %v, want %s", got, broken, want)
	}
}

// P5, P8: history stays within its bounds, forgets whole revisions only and gives changes out
// in whole revisions.
func TestHistoryIsBounded(t *testing.T) {
	h := history{floor: 1}
	big := &Entry{path: "default/a", ns: 7, Value: make([]byte, api.MaxKVValueBytes)}
	last := uint64(2000)
	for revision := uint64(2); revision <= last; revision++ {
		put := Change{Revision: revision, Op: api.OpPut, Entry: big}
		h.add([]Change{put, put, {Revision: revision, Op: api.OpDelete, Entry: big}})
		if h.bytes > historyBytes || len(h.changes)%3 != 0 {
			t.Fatalf("%d bytes, %d changes", h.bytes, len(h.changes))
		}
	}
	if h.floor == 1 || h.changes[0].Revision != h.floor+1 {
		t.Errorf("floor %d, first change at %d", h.floor, h.changes[0].Revision)
	}
	if _, _, ok := h.since(h.floor - 1); ok {
		t.Error("what is forgotten is given out")
	}
	seen := 0
	for at := h.floor; ; {
		changes, rest, ok := h.since(at)
		if !ok || len(changes)%3 != 0 || len(changes) > 9 {
			t.Fatalf("%d changes, ok %v", len(changes), ok)
		}
		seen += len(changes)
		if !rest {
			break
		}
		at = changes[len(changes)-1].Revision
	}
	if seen != len(h.changes) {
		t.Errorf("%d changes given out of %d", seen, len(h.changes))
	}
	small := &Entry{path: "default/a", ns: 7}
	for revision := last + 1; revision < last+3*historyChanges; revision++ {
		h.add([]Change{{Revision: revision, Op: api.OpPut, Entry: small}})
	}
	if len(h.changes) != historyChanges || cap(h.changes) > 4*historyChanges {
		t.Errorf("%d changes in %d", len(h.changes), cap(h.changes))
	}
}

// FuzzDecode: any record is an entry that could have been written, or refused.
func FuzzDecode(f *testing.F) {
	f.Add("kv/default/a/b", encode([]byte("x"), 0), uint64(7))
	f.Add("kv/default/a/../b", encode(nil, 3), uint64(2))
	f.Add("kv//", []byte{1, 0x80}, uint64(0))
	f.Fuzz(func(t *testing.T, key string, value []byte, revision uint64) {
		e, err := decode(store.Record{Key: key, Value: value}, revision)
		if err != nil {
			return
		}
		if !api.ValidKVKey(e.Key()) || !api.ValidLabel(string(e.Namespace())) || e.Created > e.Revision || len(e.Value) > api.MaxKVValueBytes {
			t.Errorf("%+v", e)
		}
		again, err := decode(store.Record{Key: RecordKey(e.Namespace(), e.Key()), Value: encode(e.Value, e.Created)}, revision)
		if err != nil || again.path != e.path || !bytes.Equal(again.Value, e.Value) || again.Created != e.Created {
			t.Errorf("%+v is read back as %+v, %v", e, again, err)
		}
	})
}

func BenchmarkApply100kKeys(b *testing.B) {
	records := make([]store.Record, 100_000)
	for i := range records {
		records[i] = store.Record{Key: RecordKey("default", fmt.Sprintf("app/%06d/setting", i)), Value: encode([]byte("value"), 0), Revision: uint64(i) + 2}
	}
	v, _ := Load(records)
	revision := uint64(len(records)) + 2
	b.ReportAllocs()
	for b.Loop() {
		revision++
		v, _, _ = v.Apply(store.Batch{Revision: revision, Events: []store.Event{{Record: records[revision%uint64(len(records))]}}})
	}
}
