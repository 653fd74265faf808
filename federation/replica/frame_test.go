package replica

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

// P8, failure 53: no input makes the decoder or the state machine panic, and what was
// refused leaves rows and version as they were.
func FuzzFrame(f *testing.F) {
	o := newOrigin(1)
	o.set("orders", 3)
	o.set("carts", 2)
	for _, fr := range append(o.snapshot(), o.hello(), o.heartbeat(), o.delta(0)) {
		b, _ := json.Marshal(fr)
		f.Add(b)
	}
	f.Add([]byte(`{"kind":"delta","epoch":"1-0000000000000001","from":5,"to":1}`))
	f.Add([]byte(`{"kind":"snapshot_chunk","epoch":"1-0000000000000001","rows":[{"body":{"ns":"../x"}}]}`))
	f.Add([]byte(`[[[[`))
	f.Fuzz(func(t *testing.T, line []byte) {
		fr, err := Decode(line)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("error %v does not wrap ErrMalformed", err)
			}
			return
		}
		now := time.Unix(1e9, 0)
		r := New("us-east", "eu-west", now)
		o := newOrigin(1)
		o.set("orders", 3)
		r.Connect(now)
		for _, x := range append([]Frame{o.hello()}, o.snapshot()...) {
			r.Step(x, now)
		}
		before := r.View()
		eff := r.Step(fr, now)
		after := r.View()
		if eff.Err != nil && (after.Version != before.Version || after.Digest != before.Digest) {
			t.Fatalf("a refused frame changed the replica: %v", eff.Err)
		}
		for _, s := range after.Table.Summaries() {
			for _, e := range s.Endpoints {
				if e.Region != "eu-west" {
					t.Fatalf("an endpoint of region %q got in", e.Region)
				}
			}
		}
	})
}

// Failure 54: fields and kinds of a newer version are no reason to break.
func TestDecodeAcceptsTheUnknown(t *testing.T) {
	f, err := Decode([]byte(`{"kind":"load_brief","cpu":[1,2],"epoch":"1-0000000000000001"}`))
	if err != nil || f.Kind != "load_brief" {
		t.Fatalf("%+v %v", f, err)
	}
	r := New("us-east", "eu-west", time.Unix(1e9, 0))
	if eff := r.Step(f, time.Unix(1e9, 0)); eff.Err != nil || eff.Refused != RefusedUnknown {
		t.Fatalf("%+v", eff)
	}
}

// P8: what no version would send is refused with a reason.
func TestDecodeRefuses(t *testing.T) {
	for name, line := range map[string]string{
		"no JSON":          "hello",
		"no kind":          `{}`,
		"no epoch":         `{"kind":"heartbeat"}`,
		"a bad epoch":      `{"kind":"heartbeat","epoch":"1-2"}`,
		"a delta backward": `{"kind":"delta","epoch":"1-0000000000000001","from":3,"to":3}`,
		"negative count":   `{"kind":"snapshot_end","epoch":"1-0000000000000001","count":-1}`,
		"too many rows":    `{"kind":"delta","epoch":"1-0000000000000001","to":1,"deletes":[` + strings.Repeat(`"a/b",`, MaxFrameRows) + `"a/b"]}`,
		"too long":         `{"kind":"` + strings.Repeat("x", MaxFrameBytes) + `"}`,
	} {
		if _, err := Decode([]byte(line)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A heartbeat has the same size whatever the origin holds (constant work).
func TestHeartbeatIsSmall(t *testing.T) {
	o := newOrigin(1)
	for range 100 {
		o.set("orders", 30)
	}
	b, err := json.Marshal(o.heartbeat())
	if err != nil || len(b) > 160 {
		t.Fatalf("%d bytes: %s", len(b), b)
	}
}
