package origin_test

import (
	"testing"

	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// I7: what an operator means to remove goes at once, however much it is; everything else that
// goes with it is still held back, as if what was meant had never been there.
func TestPlannedRemovalIsNotHeld(t *testing.T) {
	for name, n := range map[string]int{"by deltas": 40, "by a patch": 8000} {
		t.Run(name, func(t *testing.T) {
			w := newWire(t, n)
			w.heal()
			w.src.Plan(names(n)[:n-5]...)
			if err := w.run(1 << 20); err != nil {
				t.Fatal(err)
			}
			if v := w.replica.View(); v.Held != 0 || v.Table.Len() != 5 || v.Origin(start).State != api.AgeFresh {
				t.Fatalf("%d held, %d shown", v.Held, v.Table.Len())
			}
			w.src.Set(0, names(n)[n-5:]...) // the rest by mistake
			if err := w.run(99); err != nil {
				t.Fatal(err)
			}
			if v := w.replica.View(); v.Held != 5 || v.Table.Len() != 5 {
				t.Fatalf("%d held, %d shown", v.Held, v.Table.Len())
			}
			w.src.Set(3, names(n)[n-5:]...)
			w.src.Plan(names(n)[n-5:]...) // and now it is meant
			if err := w.run(99); err != nil {
				t.Fatal(err)
			}
			if v := w.replica.View(); v.Held != 0 || v.Table.Len() != 0 {
				t.Fatalf("%d held, %d shown", v.Held, v.Table.Len())
			}
		})
	}
}

// I7: a removal in which only some were meant is held for the others.
func TestPlannedDoesNotCoverOthers(t *testing.T) {
	w := newWire(t, 40)
	w.heal()
	w.src.Plan(names(40)[:20]...)
	w.src.Set(0, names(40)[20:30]...) // half of what is left
	if err := w.run(99); err != nil {
		t.Fatal(err)
	}
	if v := w.replica.View(); v.Held != 10 || v.Table.Len() != 20 {
		t.Fatalf("%d held, %d shown", v.Held, v.Table.Len())
	}
}

// I7: a wish counts within the epoch that the reader holds. An origin that lost its data, and
// calls that a plan, is not believed; nor is one that answers digests.
func TestPlannedCountsWithinTheEpochOnly(t *testing.T) {
	w := newWire(t, 40)
	w.heal()
	old := w.replica.Have()
	w.open()
	if err := w.run(9); err != nil {
		t.Fatal(err)
	}
	next := api.Epoch{Generation: old.Epoch.Generation + 1, Nonce: 7}
	var all []string
	for _, n := range names(40) {
		all = append(all, "default/"+n)
	}
	step := func(f replica.Frame) replica.Effects { return w.replica.Step(f, start) }
	step(replica.Frame{Kind: replica.Hello, Proto: 2, Region: "eu-west", Epoch: next, Head: old.Revision + 1, Complete: true})
	eff := step(replica.Frame{
		Kind: replica.Delta, Epoch: next, FromEpoch: old.Epoch, From: old.Revision, To: old.Revision + 1, Deletes: all, Planned: all,
	})
	if eff.Err != nil || eff.Held != 40 {
		t.Fatalf("a delta: %+v", eff)
	}

	w = newWire(t, 40)
	w.heal()
	w.open()
	if err := w.run(9); err != nil {
		t.Fatal(err)
	}
	step(replica.Frame{Kind: replica.Hello, Proto: 2, Region: "eu-west", Epoch: next, Head: old.Revision, Complete: true})
	step(replica.Frame{Kind: replica.SnapshotBegin, Patch: true, Epoch: next, From: old.Revision, To: old.Revision})
	step(replica.Frame{Kind: replica.SnapshotChunk, Epoch: next, Deletes: all, Planned: all})
	if eff := step(replica.Frame{Kind: replica.SnapshotEnd, Epoch: next, To: old.Revision}); eff.Err != nil || eff.Held != 40 {
		t.Fatalf("a patch: %+v", eff)
	}
}
