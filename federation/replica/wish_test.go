package replica

import (
	"bytes"
	"testing"
	"time"
)

// What an origin wishes about itself comes with its hellos and heartbeats, is told at once, outlives
// silence and a restart, and a word of the past does not bring back an old wish (P4, P10).
func TestWishOfAnOrigin(t *testing.T) {
	o, r := synced(t, 3)
	say := func(percent float64) Effects {
		f := o.heartbeat()
		f.Drained = percent
		return r.Step(f, start)
	}
	want := func(percent float64) {
		t.Helper()
		v := r.View()
		if v.Drained != percent || v.Origin(start).Drained != percent {
			t.Fatalf("the wish is %g, want %g", v.Drained, percent)
		}
	}
	if eff := say(40); !eff.Changed || !eff.Applied || !eff.Confirmed {
		t.Errorf("%+v", eff)
	}
	want(40)
	if eff := say(40); eff.Changed || eff.Applied {
		t.Errorf("the same again: %+v", eff)
	}
	// A version of the past.
	old := o.heartbeat()
	o.set("s00", 5)
	r.Step(o.delta(r.Have().Revision), start)
	if eff := r.Step(old, start); eff.Changed {
		t.Errorf("%+v", eff)
	}
	want(40)
	// Numbers that nobody may wish.
	say(1e300)
	want(100)
	say(-5)
	want(0)
	say(70)

	r.Disconnect()
	v := r.View()
	if got := v.Origin(start.Add(time.Hour)).Drained; got != 70 {
		t.Errorf("after an hour of silence: %g", got)
	}
	var file bytes.Buffer
	if err := r.Save().Encode(&file); err != nil {
		t.Fatal(err)
	}
	again, err := Restore("us-east", "eu-west", &file, time.Minute, start)
	if err != nil || again.View().Drained != 70 {
		t.Fatalf("after a restart: %+v %v", again, err)
	}
	// A hello that knows of no wish (an older program, too) ends it.
	r = again
	feed(r, o.catchUp(r.Have(), false), start)
	want(0)
}
