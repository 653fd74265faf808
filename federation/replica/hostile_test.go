package replica

import (
	"fmt"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// full returns an origin and a replica of it that holds n rows besides, without the work of
// sending them.
func full(t *testing.T, n, size int) (*origin, *Replica) {
	t.Helper()
	o, r := synced(t, 1)
	e := newEdit(r.truth)
	for i := range n {
		e.put(key(fmt.Sprintf("x%06d", i)), &Entry{Hash: 0, size: size})
	}
	r.truth = e.done()
	r.visible = r.truth
	return o, r
}

// P8: the most rows that an origin may have can still change; one more cannot come.
func TestRowsAreBounded(t *testing.T) {
	o, r := full(t, MaxRows-1, 0)
	o.set("s00", 5)
	if eff := r.Step(o.delta(r.Have().Revision), start); eff.Err != nil || !eff.Applied {
		t.Fatalf("a change of a full replica: %+v", eff)
	}
	o.set("s01", 1)
	if eff := r.Step(o.delta(r.Have().Revision), start); eff.Refused != RefusedLimit || eff.Err == nil {
		t.Fatalf("row %d: %+v", MaxRows+1, eff)
	}
}

// P8: what an origin's rows take together is bounded, however small the steps are in which
// they grow.
func TestBytesAreBoundedOverManyDeltas(t *testing.T) {
	o, r := full(t, 512, 1<<20)
	o.set("s00", 9)
	eff := r.Step(o.delta(r.Have().Revision), start)
	if eff.Refused != RefusedLimit || eff.Err == nil || r.View().Truth.Get(key("s00")).Summary.Passing == 9 {
		t.Fatalf("%+v", eff)
	}
}

// P8: a delta that never ends does not fill the memory.
func TestEndlessDeltaIsRefused(t *testing.T) {
	o, r := synced(t, 3)
	at := r.View()
	f := Frame{Kind: Delta, Epoch: o.epoch, From: at.Version.Revision, To: at.Version.Revision + 1, More: true}
	for i := range MaxFrameRows {
		f.Deletes = append(f.Deletes, fmt.Sprintf("default/nobody-%d", i))
	}
	for n := range 4 * MaxRows / MaxFrameRows {
		eff := r.Step(f, start)
		if eff.Refused == RefusedLimit && eff.Err != nil {
			if v := r.View(); v.Version != at.Version || v.Table != at.Table {
				t.Fatalf("%+v", v)
			}
			return
		}
		if eff.Err != nil {
			t.Fatalf("frame %d: %+v", n, eff)
		}
	}
	t.Fatalf("%d names are remembered", len(r.delta.touched))
}

// Failure 16, honest ages: the first word of a stream is as old as it is. A reader that was
// suspended just after it connected reads words that waited in its socket.
func TestFirstWordIsNotYoungerThanItIs(t *testing.T) {
	o, r := synced(t, 3)
	r.Connect(start)
	if eff := r.Step(o.hello(), start); eff.Err != nil {
		t.Fatal(eff.Err)
	}
	const slept = 10 * time.Minute
	now := start.Add(slept)
	for sent := range 5 { // and after that the origin died
		h := o.heartbeat()
		h.SentMS = int64(sent) * 1000
		if eff := r.Step(h, now); !eff.Confirmed {
			t.Fatalf("%+v", eff)
		}
		v := r.View()
		if age, is := v.Age(now), slept-time.Duration(sent)*time.Second; age < is {
			t.Fatalf("word %d is %s old and shown as %s", sent, is, age)
		}
	}
}

// Honest ages: no number that an origin sends makes what it says young, or breaks the sum.
func TestImpossibleTimesAreRefused(t *testing.T) {
	for _, line := range []string{
		`{"kind":"heartbeat","epoch":"3-0000000000000001","head":1,"digest":"0000000000000000","sent_ms":9223372036854775807}`,
		`{"kind":"heartbeat","epoch":"3-0000000000000001","head":1,"digest":"0000000000000000","sent_ms":9223372036855}`,
		`{"kind":"heartbeat","epoch":"3-0000000000000001","head":1,"digest":"0000000000000000","sent_ms":-1}`,
		`{"kind":"heartbeat","epoch":"3-0000000000000001","head":1,"digest":"0000000000000000","due_ms":-1}`,
		`{"kind":"goodbye","reason":"busy","retry_ms":-1}`,
		`{"kind":"goodbye","reason":"busy","retry_ms":9223372036854775807}`,
	} {
		f, err := Decode([]byte(line))
		if err == nil {
			_, r := synced(t, 1)
			if eff := r.Step(f, start); eff.RetryAfter < 0 || f.Kind != Goodbye {
				t.Errorf("%s is taken: %+v", line, eff)
			}
		}
	}
}

// P4: an origin, or who passes for it, cannot lead a replica to the end of the numbers, from
// where the region could never outrank it.
func TestEpochFarAheadIsRefused(t *testing.T) {
	o, r := synced(t, 3)
	at := r.View()
	for _, generation := range []uint64{1<<64 - 1, o.epoch.Generation + MaxGenerationJump + 1} {
		r.Connect(start)
		f := o.hello()
		f.Epoch = api.Epoch{Generation: generation, Nonce: 1}
		if eff := r.Step(f, start); eff.Refused != RefusedLimit || eff.Err == nil {
			t.Errorf("generation %d: %+v", generation, eff)
		}
		if eff := r.Step(Frame{Kind: SnapshotBegin, Epoch: f.Epoch, To: 1}, start); eff.Err == nil {
			t.Errorf("generation %d: rows without a greeting: %+v", generation, eff)
		}
	}
	if v := r.View(); v.Version != at.Version || v.Table != at.Table {
		t.Fatalf("%+v", v)
	}
	r.Connect(start)
	f := o.hello()
	f.Epoch.Generation += MaxGenerationJump
	if eff := r.Step(f, start); eff.Err != nil {
		t.Fatalf("%+v", eff)
	}
}
