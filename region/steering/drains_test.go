package steering

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

// An evacuation in steps, its undo, and what is told of it: in answers, in /v1/regions, to the
// peers and in events.
func TestEvacuationInSteps(t *testing.T) {
	with(t, func(t *testing.T, b *bed) {
		d := b.drain("eu-west", api.DrainRequest{Percent: 100, Over: api.Duration(10 * time.Minute), Steps: 4, Note: "power works"})
		if d.State != api.DrainMoving || d.By != "eu-west" || d.Now != 0 || d.Warning != "" || d.Actor != "client 10.0.0.9" {
			t.Errorf("%+v", d)
		}
		again := b.drain("eu-west", api.DrainRequest{Percent: 100, Over: api.Duration(10 * time.Minute), Steps: 4, Note: "power works"})
		if again.Revision != d.Revision {
			t.Errorf("the same request began anew: %+v", again)
		}
		pass(5 * time.Minute)
		synctest.Wait()
		if b.Own() != 50 || b.Drained("us-east") != 0 {
			t.Errorf("%g", b.Own())
		}
		info, _, err := b.r.RegionInfo(t.Context(), "eu-west")
		if err != nil || info.Drained != 50 {
			t.Errorf("%+v %v", info, err)
		}
		res, _, err := b.r.Resolve(t.Context(), registry.ResolveQuery{Service: "orders"})
		if err != nil || res.Views[0].Drained != 50 {
			t.Errorf("%+v %v", res.Views, err)
		}
		pass(5 * time.Minute)
		synctest.Wait()
		if d := b.get("eu-west"); d.State != api.DrainHolding || d.Now != 100 || d.Effective != 100 {
			t.Errorf("%+v", d)
		}
		// Back over a minute, from where it stands.
		if _, _, err := b.UndoDrain(t.Context(), "eu-west", time.Minute); err != nil {
			t.Fatal(err)
		}
		pass(30 * time.Second)
		synctest.Wait()
		if d := b.get("eu-west"); d.State != api.DrainMoving || d.Now != 50 {
			t.Errorf("%+v", d)
		}
		pass(30 * time.Second)
		synctest.Wait()
		if d := b.get("eu-west"); d.State != api.DrainEnded || d.Now != 0 || b.Own() != 0 {
			t.Errorf("%+v", d)
		}
		before := b.get("eu-west")
		if after, _, err := b.UndoDrain(t.Context(), "eu-west", 0); err != nil || after.Revision != before.Revision {
			t.Errorf("an undo of nothing: %+v %v", after, err)
		}
		got := b.log.of(api.EventRegionDrain)
		for i, want := range []string{
			"request: begun: 0 % to 100 % over 10m0s in 4 steps (power works)",
			"schedule: 25 %, on the way from 0 % to 100 %", "schedule: 50 %", "schedule: 75 %", "schedule: 100 % reached",
			"request: undone at 100 % over 1m0s in 10 steps",
		} {
			if i >= len(got) || !strings.Contains(got[i], want) {
				t.Fatalf("event %d of %q, want %q", i, got, want)
			}
		}
		if last := got[len(got)-1]; !strings.Contains(last, "ended") || len(got) != 6+10 {
			t.Errorf("%d events, the last %q", len(got), last)
		}
	})
}

// P10: another region is drained without a word from it; the larger of two wishes counts, and its own
// is not undone here.
func TestDrainOfADeadRegion(t *testing.T) {
	with(t, func(t *testing.T, b *bed) {
		b.peers.set(func() { b.peers.link["us-east"] = "unreachable"; b.peers.origins[0].State = api.AgeExpired })
		if d := b.drain("us-east", api.DrainRequest{Percent: 30}); d.Now != 30 || d.By != "eu-west" || d.Effective != 30 {
			t.Errorf("%+v", d)
		}
		b.peers.set(func() { b.peers.origins[0].Drained = 80 })
		if d := b.get("us-east"); d.Now != 30 || d.Effective != 80 || d.Warning == "" {
			t.Errorf("%+v", d)
		}
		fed, _, err := b.r.Federation(t.Context())
		if err != nil || fed.Links[0].Replica.Drained != 80 {
			t.Errorf("%+v %v", fed, err)
		}
		d, _, err := b.UndoDrain(t.Context(), "us-east", 0)
		if err != nil || d.By != "us-east" || d.Effective != 80 || !strings.Contains(d.Warning, "undone there") {
			t.Errorf("%+v %v", d, err)
		}
		_, _, err = b.GetDrain(t.Context(), "mars", registry.ReadOptions{})
		b.wantCode(err, api.CodeRegionNotFound, "mars")
		if d := b.get("ap-south"); d.State != api.DrainEnded || d.Effective != 0 || d.Revision != 0 {
			t.Errorf("%+v", d)
		}
	})
}

// Draining every region is allowed, and said to be what it is.
func TestEveryRegionDrained(t *testing.T) {
	with(t, func(t *testing.T, b *bed) {
		for _, r := range []api.Region{"us-east", "ap-south"} {
			if d := b.drain(r, api.DrainRequest{Percent: 100}); d.Warning != "" {
				t.Errorf("%s: %s", r, d.Warning)
			}
		}
		if d := b.drain("eu-west", api.DrainRequest{Percent: 100, Over: api.Duration(time.Hour)}); !strings.Contains(d.Warning, "every region") {
			t.Errorf("%+v", d)
		}
	})
}

// A plan begins and ends at its times by itself, and can be taken back before.
func TestScheduledDrain(t *testing.T) {
	with(t, func(t *testing.T, b *bed) {
		at, until := time.Now().Add(time.Hour), time.Now().Add(3*time.Hour)
		d := b.drain("us-east", api.DrainRequest{Percent: 100, Over: api.Duration(time.Hour), Steps: 1, At: &at, Until: &until})
		if d.State != api.DrainScheduled || d.Now != 0 {
			t.Errorf("%+v", d)
		}
		pass(90 * time.Minute)
		if d := b.get("us-east"); d.State != api.DrainMoving || d.Now != 0 {
			t.Errorf("%+v", d)
		}
		pass(time.Hour)
		if d := b.get("us-east"); d.State != api.DrainHolding || d.Now != 100 {
			t.Errorf("%+v", d)
		}
		pass(31 * time.Minute)
		synctest.Wait()
		if d := b.get("us-east"); d.State != api.DrainEnded || d.Now != 0 || b.Drained("us-east") != 0 {
			t.Errorf("%+v", d)
		}
		at = time.Now().Add(time.Hour)
		b.drain("us-east", api.DrainRequest{Percent: 100, At: &at})
		if _, _, err := b.UndoDrain(t.Context(), "us-east", time.Hour); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Hour)
		if d := b.get("us-east"); d.State != api.DrainEnded || d.Now != 0 {
			t.Errorf("%+v", d)
		}
	})
}

// A drain whose rule holds for five seconds gives itself up, with the reason; a blink does not count.
func TestDrainGivesUp(t *testing.T) {
	with(t, func(t *testing.T, b *bed) {
		b.drain("eu-west", api.DrainRequest{Percent: 100, Over: api.Duration(10 * time.Minute), Abort: &api.DrainAbort{BelowPassing: 80, RegionsBelow: 1}})
		pass(2 * time.Minute)
		b.peers.set(func() { b.peers.passing["us-east"] = 2 })
		pass(3 * time.Second)
		b.peers.set(func() { b.peers.passing["us-east"] = 10 })
		pass(time.Minute)
		if d := b.get("eu-west"); d.State != api.DrainMoving || d.Now != 30 {
			t.Fatalf("%+v", d)
		}
		b.log.of(api.EventRegionDrain)
		b.peers.set(func() { b.peers.passing["us-east"] = 2 })
		pass(10 * time.Second)
		synctest.Wait()
		d := b.get("eu-west")
		if d.State != api.DrainAborted || d.Now != 0 || b.Own() != 0 || !strings.Contains(d.Why, "12 of 20") {
			t.Errorf("%+v", d)
		}
		if got := b.log.of(api.EventRegionDrain); len(got) != 1 || !strings.Contains(got[0], "abort: given up at 30 %: 12 of 20") {
			t.Errorf("%q", got)
		}
		// It is no longer looked at, and can be begun anew.
		b.peers.set(func() { b.peers.passing["us-east"] = 10 })
		if d := b.drain("eu-west", api.DrainRequest{Percent: 20}); d.Now != 20 || d.State != api.DrainHolding {
			t.Errorf("%+v", d)
		}
	})
}

// P11: a restart goes on where the time is.
func TestDrainSurvivesARestart(t *testing.T) {
	with(t, func(t *testing.T, b *bed) {
		b.drain("eu-west", api.DrainRequest{Percent: 100, Over: api.Duration(10 * time.Minute)})
		if _, err := b.put("orders", api.Policy{LocalOnly: yes()}); err != nil {
			t.Fatal(err)
		}
		b.stop()
		pass(5 * time.Minute)
		next := newBed(t, b.store, b.peers)
		if next.Own() != 50 || next.Policy(api.ServiceKey{Namespace: "default", Service: "orders"}) == nil {
			t.Errorf("%g", next.Own())
		}
		if got := next.log.of(api.EventRegionDrain); len(got) != 0 {
			t.Errorf("told anew: %q", got)
		}
	})
}

// keeper is a registry.Copy in memory.
type keeper struct {
	img store.Image
	at  time.Time
}

func (k *keeper) Load() (store.Image, time.Time, error) { return k.img, k.at, nil }

func (k *keeper) Save(img store.Image, at time.Time) error {
	k.img, k.at = img, at
	return nil
}

// P10: a node that starts while its store is away goes by what its copy says, and its drains go on; an
// abort rule waits for the store.
func TestDrainGoesOnWithoutTheStore(t *testing.T) {
	with(t, func(t *testing.T, b *bed) {
		b.stop()
		copied := &keeper{}
		keep := func(c *registry.Config) { c.Copy = copied }
		first := newBed(t, b.store, b.peers, keep)
		<-first.r.Loaded()
		first.drain("eu-west", api.DrainRequest{Percent: 100, Over: api.Duration(10 * time.Minute), Abort: &api.DrainAbort{BelowPassing: 90}})
		if _, err := first.put("orders", api.Policy{LocalOnly: yes()}); err != nil {
			t.Fatal(err)
		}
		pass(time.Second) // until it keeps a copy at all
		first.stop()
		b.store.SetUnavailable(true)
		next := newBed(t, b.store, b.peers, keep)
		pass(time.Minute + 5*time.Second)
		if next.Own() != 10 || next.Policy(api.ServiceKey{Namespace: "default", Service: "orders"}) == nil {
			t.Errorf("from the copy: %g", next.Own())
		}
		b.peers.set(func() { b.peers.passing["us-east"] = 0 })
		pass(time.Minute)
		synctest.Wait()
		if next.Own() != 20 {
			t.Errorf("a step later: %g", next.Own())
		}
		_, _, err := next.UndoDrain(t.Context(), "eu-west", 0)
		next.wantCode(err, api.CodeUnavailable)
		b.store.SetUnavailable(false)
		pass(30 * time.Second)
		if d := next.get("eu-west"); d.State != api.DrainAborted || next.Own() != 0 {
			t.Errorf("with the store back: %+v", d)
		}
	})
}

func TestWrongDrains(t *testing.T) {
	with(t, func(t *testing.T, b *bed) {
		now := time.Now()
		past, soon, later := now.Add(-time.Hour), now.Add(time.Minute), now.Add(time.Hour)
		for name, c := range map[string]struct {
			r     api.DrainRequest
			words string
		}{
			"over 100":        {api.DrainRequest{Percent: 100.5}, "percent 100.5"},
			"negative":        {api.DrainRequest{Percent: -1}, "percent -1"},
			"no number":       {api.DrainRequest{Percent: nan()}, "percent NaN"},
			"longer than":     {api.DrainRequest{Percent: 1, Over: api.Duration(25 * time.Hour)}, "over 25h0m0s"},
			"negative time":   {api.DrainRequest{Percent: 1, Over: -1}, "over"},
			"steps":           {api.DrainRequest{Percent: 1, Steps: 101}, "steps 101"},
			"past":            {api.DrainRequest{Percent: 1, At: &past}, "in the past"},
			"until before at": {api.DrainRequest{Percent: 1, At: &later, Until: &soon}, "not after its begin"},
			"until too soon":  {api.DrainRequest{Percent: 1, Over: api.Duration(time.Hour), Until: &soon}, "before 1 percent are reached"},
			"abort without":   {api.DrainRequest{Percent: 1, Abort: &api.DrainAbort{}}, "no condition"},
			"abort range":     {api.DrainRequest{Percent: 1, Abort: &api.DrainAbort{BelowPassing: 101}}, "below_passing 101"},
			"note":            {api.DrainRequest{Percent: 1, Note: strings.Repeat("x", 300)}, "note"},
		} {
			_, _, err := b.PutDrain(t.Context(), "us-east", c.r)
			b.wantCode(err, api.CodeInvalidField, c.words)
			if t.Failed() {
				t.Log(name)
			}
		}
		_, _, err := b.UndoDrain(t.Context(), "us-east", 25*time.Hour)
		b.wantCode(err, api.CodeInvalidField, "over")
		_, _, err = b.PutDrain(t.Context(), "UP", api.DrainRequest{})
		b.wantCode(err, api.CodeInvalidField, "region")
	})
}
