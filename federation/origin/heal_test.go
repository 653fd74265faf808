package origin_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/nearside/nearside/federation/replica"
)

// scatter changes every nth service, and takes the history away.
func (w *wire) scatter(services, nth, instances int) (changed int) {
	for i := 0; i < services; i += nth {
		w.src.Set(instances, fmt.Sprintf("s%05d", i))
		changed++
	}
	w.restart()
	w.src.Compact()
	return changed
}

// P6: what differs is found row by row, whether rows changed, came or went, and whatever either
// side can do; an origin and a reader without features exchange whole buckets.
func TestHealFindsTheRows(t *testing.T) {
	const n = 2000
	for name, plain := range map[string]bool{"hashes": false, "plain": true} {
		t.Run(name, func(t *testing.T) {
			w := newWire(t, n)
			w.plain = plain
			w.heal()
			w.src.Set(2, "new1", "new2")
			w.src.Set(0, "s00501", "s01501")
			changed := w.scatter(n, 50, 5)
			_, up, rows := w.heal()
			if !plain && rows != changed+2 || rows < changed || up == 0 {
				t.Fatalf("%d rows for %d changes", rows, changed)
			}
			if v := w.replica.View(); v.Rows != n || v.Digest != w.book.Page(w.src).Digest {
				t.Fatal(v.Rows)
			}
		})
	}
}

// What changes between the question and its answer is told too, and a question of another epoch
// or beyond the history is put again.
func TestAnswerMayComeLate(t *testing.T) {
	for name, meanwhile := range map[string]func(w *wire){
		"rows change": func(w *wire) {
			w.src.Set(1, "s00001", "s00050")
			w.src.Set(0, "s00002")
			w.src.Set(1, "late")
		},
		"the history is lost": func(w *wire) { w.src.Set(1, "s00001"); w.restart(); w.src.Compact() },
		"a new epoch":         func(w *wire) { _ = w.src.RaiseEpoch(t.Context(), 7); w.src.Set(1, "s00001") },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWire(t, 2000)
			w.heal()
			w.scatter(2000, 50, 5)
			asked := false
			for range 8 {
				w.open()
				err := w.run(1 << 20)
				if err == nil {
					break
				}
				if !errors.Is(err, replica.ErrResync) {
					t.Fatal(err)
				}
				if w.kinds[replica.Hashes] == 1 && !asked {
					asked = true
					meanwhile(w)
				}
			}
			if v := w.replica.View(); !asked || v.Version != w.src.Version() || v.Digest != w.book.Page(w.src).Digest {
				t.Fatalf("asked %v, at %s of %s", asked, v.Version, w.src.Version())
			}
		})
	}
}

// A heal that is cut off goes on where it ended, row by row.
func TestHealIsResumed(t *testing.T) {
	w := newWire(t, 6000)
	w.heal()
	changed := w.scatter(6000, 3, 5)
	w.rows = 0
	for w.rows == 0 { // digests, hashes, and two chunks of the answer
		w.open()
		if err := w.run(5); err != nil && !errors.Is(err, replica.ErrResync) {
			t.Fatal(err)
		}
	}
	before := w.rows
	if _, _, rows := w.heal(); before == 0 || before+rows != changed {
		t.Fatalf("%d rows before the cut, %d after it, %d changed", before, rows, changed)
	}
}

// A frame that says which rows to drop cannot remove others.
func TestPatchWithALieIsNotShown(t *testing.T) {
	w := newWire(t, 200)
	w.heal()
	before := w.replica.View()
	at := before.Version
	w.open()
	if err := w.run(9); err != nil {
		t.Fatal(err)
	}
	begin := replica.Frame{Kind: replica.SnapshotBegin, Patch: true, Epoch: at.Epoch, To: at.Revision + 1}
	names := func(s string) replica.Effects {
		return w.replica.Step(replica.Frame{Kind: replica.SnapshotChunk, Epoch: at.Epoch, Deletes: []string{s}}, start)
	}
	w.replica.Step(begin, start)
	names("default/s00001")
	eff := w.replica.Step(replica.Frame{Kind: replica.SnapshotEnd, Epoch: at.Epoch, To: at.Revision + 1, Count: 199, Digest: before.Digest}, start)
	if !eff.Resync || w.replica.View().Table != before.Table {
		t.Fatalf("%+v", eff)
	}
	w.replica.Step(begin, start)
	if eff := names("?"); eff.Refused != replica.RefusedMalformed {
		t.Fatalf("%+v", eff)
	}
}
