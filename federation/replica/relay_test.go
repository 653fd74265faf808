package replica

import (
	"errors"
	"testing"
	"time"

	"github.com/nearside/nearside/federation/summary"
)

// relayed makes a frame one of relay ap-south, with a seal of its own rows.
func relayed(f Frame, depth int, seal summary.Sum) Frame {
	if f.Kind == Hello {
		f.Relay, f.Depth = "ap-south", depth
	}
	if Seals(f) {
		f.Signed = &Signed{Reader: "ap-south", Seal: seal[:], Sig: []byte("not looked at here")}
	}
	return f
}

// I1, failure 55: the digest of rows that come through a relay is no proof, since rows can be made up for
// any digest. What the origin signed is.
func TestRelayedRowsAreHeldToTheSeal(t *testing.T) {
	for _, forged := range []bool{false, true} {
		o := newOrigin(1)
		o.set("orders", 3)
		r := New("us-east", "eu-west", start)
		r.Prove()
		r.Ask()
		r.ConnectVia("ap-south", time.Millisecond, start)
		probe := New("us-east", "eu-west", start)
		probe.Connect(start)
		probe.Step(o.hello(), start)
		for _, f := range o.snapshot() {
			probe.Step(f, start)
		}
		seal := probe.View().Truth.Seal()
		if forged { // the digest fits what is told, the seal does not
			seal[0]++
		}
		r.Step(relayed(o.hello(), 1, seal), start)
		var last Effects
		for _, f := range o.snapshot() {
			last = r.Step(relayed(f, 1, seal), start)
		}
		switch {
		case forged && (last.Refused != RefusedSignature || !errors.Is(last.Err, ErrRefused) || r.View().Table.Len() != 0 || !r.Have().IsZero()):
			t.Fatalf("forged rows: %+v", last)
		case !forged && (last.Err != nil || r.View().Table.Len() != 1):
			t.Fatalf("honest rows: %+v", last)
		}
	}
}

// I1, I2, failure 55: through a relay come only rows of the origin, from the relay that was asked, through
// two relays at most; and nobody but the origin ends the origin.
func TestWhoMayRelay(t *testing.T) {
	o := newOrigin(1)
	o.set("orders", 3)
	for name, c := range map[string]struct {
		change func(*Frame)
		want   Refusal
	}{
		"one relay":        {func(f *Frame) { f.Depth = 1 }, ""},
		"two":              {func(f *Frame) { f.Depth = 2 }, ""},
		"three":            {func(f *Frame) { f.Depth = 3 }, RefusedDepth},
		"none":             {func(f *Frame) { f.Depth = 0 }, RefusedDepth},
		"another relay":    {func(f *Frame) { f.Relay = "sa-east" }, RefusedForeign},
		"itself":           {func(f *Frame) { f.Relay, f.Depth = "", 0 }, RefusedForeign},
		"our own rows":     {func(f *Frame) { f.Region = "us-east" }, RefusedForeign},
		"a third's rows":   {func(f *Frame) { f.Region = "sa-east" }, RefusedForeign},
		"an older version": {func(f *Frame) { f.Head = 0 }, RefusedStale},
	} {
		o, r := synced(t, 1)
		_ = o
		r.ConnectVia("ap-south", 0, start)
		f := relayed(o.hello(), 1, summary.Sum{})
		c.change(&f)
		if eff := r.Step(f, start); eff.Refused != c.want {
			t.Errorf("%s: refused for %q, want %q", name, eff.Refused, c.want)
		}
		if eff := r.Step(Frame{Kind: Goodbye, Reason: ReasonForget}, start); eff.Leaving {
			t.Errorf("%s: the relay ends the origin", name)
		}
	}
}

// P3: the age of what comes through a relay is the relay's own age and the way from it, and never
// younger; an older word than we have says nothing new.
func TestRelayedAge(t *testing.T) {
	o, r := synced(t, 1)
	at := start.Add(20 * time.Second)
	r.ConnectVia("ap-south", 40*time.Millisecond, at)
	r.Step(relayed(o.hello(), 1, summary.Sum{}), at)
	beat := o.heartbeat()
	beat.SentMS, beat.AgeMS = 0, 3000
	r.Step(relayed(beat, 1, summary.Sum{}), at)
	v := r.View()
	if age := v.Age(at); age != 3040*time.Millisecond {
		t.Fatalf("age %s", age)
	}
	beat.SentMS, beat.AgeMS = 1000, 9000
	r.Step(relayed(beat, 1, summary.Sum{}), at.Add(time.Second))
	v = r.View()
	if age := v.Age(at.Add(time.Second)); age != 4040*time.Millisecond {
		t.Fatalf("age %s after an older word", age)
	}
}
