package origin_test

import (
	"testing"

	"github.com/nearside/nearside/federation/internal/regiontest"
	"github.com/nearside/nearside/federation/origin"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/federation/summary"
)

// tell passes all frames of loads, but those that lose says, and the heartbeat.
func (w *wire) tell(l *summary.Loads, lose func(n int) bool) (frames int) {
	w.t.Helper()
	for {
		f, ok := w.session.Loads(l)
		if !ok {
			break
		}
		frames++
		if lose != nil && lose(frames) {
			continue
		}
		if err := w.take(f); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := w.run(1); err != nil {
		w.t.Fatal(err)
	}
	return frames
}

// P6: load is told apart from the rows: it moves no version and no digest of them, a row that
// changes keeps it, a lost frame is noticed by a digest of its own and told again while the
// stream goes on, and a new stream does not leave anything of the old one behind.
func TestLoadIsToldApart(t *testing.T) {
	const n = 1200
	w := newWire(t, n)
	w.heal()
	before := w.replica.View()
	use := func(percent float64) {
		w.src.Use(percent, names(n)...)
	}
	load := func(name string) int { return w.replica.View().Table.Get(regiontest.Key(name)).Summary.Load }
	var loads *summary.Loads

	use(42)
	loads = loads.Next(w.src.Loads())
	if frames := w.tell(loads, nil); frames != 3 || load("s00007") != 45 {
		t.Fatalf("%d frames, load %d", frames, load("s00007"))
	}
	after := w.replica.View()
	if after.Version != before.Version || after.Digest != before.Digest || w.replica.Ack(start).Loads {
		t.Fatal("load moved the rows' version or digest")
	}
	w.src.Set(2, "s00007")
	if err := w.run(9); err != nil || load("s00007") != 45 {
		t.Fatalf("%v, load %d after a change of the row", err, load("s00007"))
	}
	if frames := w.tell(loads.Next(w.src.Loads()), nil); frames != 0 {
		t.Fatal("what did not change is told")
	}

	use(80)
	w.src.Use(-1, "s00001")
	loads = loads.Next(w.src.Loads())
	w.tell(loads, func(n int) bool { return n == 2 })
	if !w.replica.Ack(start).Loads {
		t.Fatal("a lost frame is not noticed")
	}
	w.session.LoadsAgain()
	w.tell(loads, nil)
	if w.replica.Ack(start).Loads || load("s00001") != 0 || load("s00700") != 80 {
		t.Fatalf("loads %d and %d", load("s00001"), load("s00700"))
	}

	w.open() // to a node that knows no loads
	if err := w.run(9); err != nil {
		t.Fatal(err)
	}
	w.tell(nil, nil)
	if load("s00700") != 0 {
		t.Fatal("the load of another stream is left")
	}
}

// Loads are for readers that have all rows and can use them.
func TestLoadsWaitForRows(t *testing.T) {
	w := newWire(t, 600)
	w.src.Use(50, names(600)...)
	loads := (*summary.Loads)(nil).Next(w.src.Loads())
	w.open()
	for range 5 { // in the middle of the snapshot
		f, ok := w.session.Next(w.src)
		if _, early := w.session.Loads(loads); early {
			t.Fatalf("loads come before %s (%d)", f.Kind, ok)
		}
		if ok == origin.Turn {
			w.session.Admit()
		}
	}
	w = newWire(t, 3)
	w.plain = true
	w.heal()
	w.src.Use(50, names(3)...)
	if frames := w.tell(loads, nil); frames != 0 || w.kinds[replica.LoadKind] != 0 {
		t.Fatal("loads for a reader that cannot use them")
	}
}

// P6: what a snapshot that was cut off left staged bears the loads of its time. They do not come back
// with it after a stream to a node of the first protocol, which tells none.
func TestStagedRowsDoNotKeepLoads(t *testing.T) {
	const n = 1200
	w := newWire(t, n)
	w.heal()
	w.src.Use(140, names(n)...)
	w.tell((*summary.Loads)(nil).Next(w.src.Loads()), nil)
	w.scatter(n, 1, 2)
	w.open()
	for w.rows = 0; w.rows == 0; {
		if w.run(1) != nil { // it asks for what it needs on another stream
			w.open()
		}
	}
	w.proto = 1
	w.open()
	if err := w.run(1); err != nil || w.kinds[replica.Hello] != 1 {
		t.Fatal(w.kinds, err)
	}
	w.proto = replica.Proto
	w.open() // its reader compares only once it knows that it can
	if err := w.run(1); err != nil {
		t.Fatal(err)
	}
	w.heal()
	w.tell(nil, nil)
	for k, e := range w.replica.View().Table.All {
		if e.Summary.Load != 0 || e.Summary.Passing != 2 {
			t.Fatalf("%s is used by %d %%, nobody says so; %d passing of 2", k, e.Summary.Load, e.Summary.Passing)
		}
	}
}
