package replica

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/nearside/nearside/federation/internal/forge"
	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// scratch returns the seal of the bytes of some rows.
func scratch(bodies map[api.ServiceKey][]byte) summary.Sum {
	var s summary.Seal
	for _, b := range bodies {
		s.Add(summary.SumOf(b))
	}
	return s.Sum()
}

// I1, P12: the seal that a table keeps through changes of all kinds is that of the bytes of its rows as the origin
// told them, the quarantined among them, and whatever load they have.
func TestSealOfATableIsThatOfItsRows(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	table, bodies := (&Table{}).sealed(), map[api.ServiceKey][]byte{}
	o := newOrigin(3)
	for step := range 500 {
		e := newEdit(table)
		for range rnd.IntN(5) {
			name := fmt.Sprintf("s%02d", rnd.IntN(40))
			k := key(name)
			switch rnd.IntN(12) {
			case 0, 1:
				e.remove(k)
				delete(bodies, k)
			case 2:
				e.loaded(k, rnd.IntN(20)*5)
			case 3:
				set := summary.NewBucketSet(summary.Buckets)
				set.Add(k)
				e.clear(set)
				for other := range bodies {
					if set.Holds(other) {
						delete(bodies, other)
					}
				}
			case 4:
				if old := e.t.Get(k); old != nil {
					e.drop(summary.Hashes{old.Hash}, nil)
					delete(bodies, k)
				}
			case 5:
				if rnd.IntN(20) == 0 {
					e.clear(nil)
					clear(bodies)
				}
			default:
				o.set(name, rnd.IntN(4))
				row := o.row(k)
				if rnd.IntN(3) == 0 {
					row.Body = bytes.Replace(row.Body, []byte("10.0.0.1"), []byte("no such address"), 1)
				}
				_, entry, err := readRow("eu-west", row)
				if err != nil {
					t.Fatal(err)
				}
				e.put(k, entry)
				bodies[k] = row.Body
			}
		}
		before, old := table.Seal(), table
		if table = e.done(); table.seal == nil || table.Seal() != scratch(bodies) {
			t.Fatalf("step %d: the seal is not that of the rows", step)
		}
		if old.Seal() != before {
			t.Fatalf("step %d: an immutable table changed", step)
		}
		again := *newEdit(table).done()
		if again.seal = nil; again.Seal() != table.Seal() {
			t.Fatalf("step %d: made anew it is another one", step)
		}
	}
}

// signed adds to frames what an origin says of its rows: its seal. The signature itself is the mesh's business.
func (o *origin) signed(frames ...Frame) []Frame {
	bodies := map[api.ServiceKey][]byte{}
	for k := range o.rows {
		bodies[k] = o.row(k).Body
	}
	seal := scratch(bodies)
	for i := range frames {
		if f := &frames[i]; Seals(*f) {
			f.Signed = &Signed{Reader: "us-east", Seal: seal[:], Sig: []byte("signed")}
		}
		if f := &frames[i]; f.Kind == Hello {
			f.Proto = 2
		} else if f.Kind == Heartbeat {
			f.To = f.Head
		} else if f.Kind == SnapshotChunk {
			slices.SortFunc(f.Rows, func(a, b Row) int { return CompareBuckets(rowKey(a), rowKey(b)) })
		}
	}
	return frames
}

// passed makes frames those of a relay.
func passed(frames []Frame) []Frame {
	for i := range frames {
		if f := &frames[i]; f.Kind == Hello {
			f.Relay, f.Depth = "ap-south", 1
		}
	}
	return frames
}

func rowKey(r Row) api.ServiceKey {
	var s api.Summary
	_ = json.Unmarshal(r.Body, &s) // of our own making
	return s.Key()
}

// whole is a snapshot in the order of buckets.
func (o *origin) whole() []Frame {
	all := o.snapshot()
	var rows []Row
	for _, f := range all[1 : len(all)-1] {
		rows = append(rows, f.Rows...)
	}
	slices.SortFunc(rows, func(a, b Row) int { return CompareBuckets(rowKey(a), rowKey(b)) })
	out := []Frame{o.hello(), all[0]}
	for part := range slices.Chunk(rows, 3) {
		out = append(out, Frame{Kind: SnapshotChunk, Epoch: o.epoch, Rows: part})
	}
	return o.signed(append(out, all[len(all)-1], o.heartbeat())...)
}

// evil changes all rows in frames so that their hashes stay.
func evil(t *testing.T, frames []Frame) []Frame {
	t.Helper()
	for i := range frames {
		frames[i].Rows = slices.Clone(frames[i].Rows)
		for j, row := range frames[i].Rows {
			b, ok := forge.Row(row.Body, bytes.ReplaceAll(row.Body, []byte("10.0.0.1"), []byte("10.6.6.6")))
			if !ok {
				t.Fatalf("no forgery of %s", row.Body)
			}
			frames[i].Rows[j].Body = b
		}
	}
	return frames
}

func shows(r *Replica, address string) (n int) {
	for _, e := range r.View().Table.All {
		for _, ep := range e.Summary.Endpoints {
			if ep.Address == address {
				n++
			}
		}
	}
	return n
}

// relay steps through frames of a relay that must prove them.
func relay(r *Replica, frames []Frame) (all []Effects) {
	r.Disconnect()
	r.Prove()
	r.Ask()
	r.ConnectVia("ap-south", time.Millisecond, start)
	for _, f := range frames {
		eff := r.Step(f, start)
		if all = append(all, eff); eff.Err != nil {
			return all
		}
	}
	return all
}

// I1, P12: rows that a relay made up for the digest of the origin are refused, be it all at once or in a change, and
// those that it passes on as they are are taken.
func TestRelayCannotMakeUpRows(t *testing.T) {
	o := newOrigin(3)
	for i := range 7 {
		o.set(fmt.Sprintf("s%02d", i), 2)
	}
	r := New("us-east", "eu-west", start)
	refused := func(what string, all []Effects) {
		t.Helper()
		if eff := last(t, all); eff.Refused != RefusedSignature || !errors.Is(eff.Err, ErrRefused) || shows(r, "10.6.6.6") > 0 {
			t.Fatalf("%s: %+v", what, eff)
		}
	}
	refused("a snapshot", relay(r, passed(evil(t, o.whole()))))
	last(t, relay(r, passed(o.whole()))).mustConfirm(t)
	if shows(r, "10.0.0.1") != 14 {
		t.Fatal("not taken from an honest relay")
	}
	from := r.Have().Revision
	o.set("s03", 1)
	refused("a delta", relay(r, passed(evil(t, o.signed(o.hello(), o.delta(from))))))
	bare := passed(o.signed(o.hello(), o.delta(from)))
	bare[1].Signed.Seal = nil
	refused("a statement without a seal", relay(r, bare))
	last(t, relay(r, passed(o.signed(o.hello(), o.delta(from), o.heartbeat())))).mustConfirm(t)
	if eff := r.Step(Frame{Kind: LoadKind, Epoch: o.epoch, Full: true, Loads: []Load{{Key: FormatKey(key("s03")), Percent: 90}}}, start); eff.Refused != RefusedForeign || r.View().Table.Get(key("s03")).Summary.Load != 0 {
		t.Fatalf("loads of a relay: %+v", eff)
	}
	// The origin itself needs no seal: the connection proves who it is.
	o.set("s04", 3)
	last(t, feed(r, o.catchUp(r.Have(), false), start)).mustConfirm(t)
}

// I7, P12: that a removal was planned is not signed, so a relay's word for it lets nothing go at once.
func TestRelayCannotCallARemovalPlanned(t *testing.T) {
	o := newOrigin(3)
	for i := range 10 {
		o.set(fmt.Sprintf("s%02d", i), 2)
	}
	r := New("us-east", "eu-west", start)
	last(t, relay(r, passed(o.whole()))).mustConfirm(t)
	from := r.Have().Revision
	for i := range 8 {
		o.remove(fmt.Sprintf("s%02d", i))
	}
	frames := passed(o.signed(o.hello(), o.delta(from), o.heartbeat()))
	frames[1].Planned = frames[1].Deletes
	all := relay(r, frames)
	last(t, all).mustConfirm(t)
	if v := r.View(); v.Held != 8 || v.Rows != 2 || all[1].Held != 8 {
		t.Fatalf("held %d, rows %d", v.Held, v.Rows)
	}
}

// I1, P12: what a relay told before it ended the stream in mid-snapshot does not count when the origin is asked
// itself, though its rows have the right hashes.
func TestHalfASnapshotOfARelayIsNotUsed(t *testing.T) {
	o := newOrigin(3)
	for i := range 7 {
		o.set(fmt.Sprintf("s%02d", i), 2)
	}
	r := New("us-east", "eu-west", start)
	frames := passed(evil(t, o.whole()))
	relay(r, frames[:len(frames)-2])
	r.Disconnect()
	if ask := r.Ask(); ask.Sums != nil || !ask.Have.IsZero() {
		t.Fatalf("it counts: %+v", ask)
	}
	last(t, feed(r, o.whole(), start)).mustConfirm(t)
	if shows(r, "10.6.6.6") > 0 || shows(r, "10.0.0.1") != 14 {
		t.Fatal("rows that were made up are shown")
	}
}

// I1, P12: rows that were taken before anything was proved, fit the digest and are not the origin's are noticed by the origin's
// own word, and replaced by asking for all.
func TestRowsTakenOnTrustAreReplaced(t *testing.T) {
	o := newOrigin(3)
	for i := range 7 {
		o.set(fmt.Sprintf("s%02d", i), 2)
	}
	r := New("us-east", "eu-west", start)
	last(t, feed(r, evil(t, o.whole()), start)).mustConfirm(t)
	if shows(r, "10.6.6.6") != 14 {
		t.Fatal("nothing was tried")
	}
	r.Prove()
	eff := last(t, feed(r, o.signed(o.hello(), o.heartbeat()), start))
	if !eff.Resync || eff.Refused != RefusedDigest {
		t.Fatalf("%+v", eff)
	}
	r.Disconnect()
	if ask := r.Ask(); !ask.Full {
		t.Fatalf("%+v", ask)
	}
	last(t, feed(r, o.whole(), start)).mustConfirm(t)
	if shows(r, "10.0.0.1") != 14 {
		t.Fatal("not replaced")
	}
}

// I1: the seal is the same after a restart, also of rows with fields of a newer version.
func TestSealOutlivesARestart(t *testing.T) {
	o := newOrigin(3)
	for i := range 7 {
		o.set(fmt.Sprintf("s%02d", i), 2)
	}
	frames := o.whole()
	for i := range frames {
		for j := range frames[i].Rows {
			row := &frames[i].Rows[j]
			if bytes.Contains(row.Body, []byte("s03")) {
				row.Body = append(bytes.TrimSuffix(row.Body, []byte("}")), `,"x":1}`...)
			}
		}
	}
	table := (&Table{}).sealed()
	e := newEdit(table)
	for _, f := range frames {
		for _, row := range f.Rows {
			k, entry, err := readRow("eu-west", row)
			if err != nil {
				t.Fatal(err)
			}
			e.put(k, entry)
		}
	}
	r := New("us-east", "eu-west", start)
	r.truth, r.version = e.done(), o.version()
	r.visible = r.truth
	var file bytes.Buffer
	if err := r.Save().Encode(&file); err != nil {
		t.Fatal(err)
	}
	again, err := Restore("us-east", "eu-west", &file, time.Minute, start)
	if err != nil || again.truth.Len() != 7 || again.truth.Seal() != r.truth.Seal() {
		t.Fatalf("%v", err)
	}
}

// What it costs to hold 10,000 rows to a seal for the first time.
func BenchmarkSealOfATable(b *testing.B) {
	o := newOrigin(3)
	e := newEdit(&Table{})
	for i := range 10_000 {
		name := fmt.Sprintf("s%05d", i)
		o.set(name, 3)
		k, entry, err := readRow("eu-west", o.row(key(name)))
		if err != nil {
			b.Fatal(err)
		}
		e.put(k, entry)
	}
	t := e.done()
	b.ReportAllocs()
	for b.Loop() {
		t.Seal()
	}
}
