package steering

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func after(d time.Duration) time.Time { return noon.Add(d) }

func drainOf(from, to float64, over time.Duration, steps int) Drain {
	at := noon
	return Drain{From: from, DrainRequest: api.DrainRequest{Percent: to, Over: api.Duration(over), Steps: steps, At: &at}}
}

// The percentage goes in equal steps: nothing before the begin, Percent at its end, 0 after Until.
func TestDrainGoesInEqualSteps(t *testing.T) {
	until := after(time.Hour)
	limited := drainOf(0, 50, 10*time.Minute, 10)
	limited.Until = &until
	undone := drainOf(40, 0, time.Minute, 4)
	undone.End = api.DrainEnded
	given := drainOf(40, 0, 0, 10)
	given.End = api.DrainAborted
	for _, c := range []struct {
		name  string
		d     Drain
		at    time.Duration
		level float64
		state api.DrainState
		next  time.Duration // -1 = never
	}{
		{"before its time what was there stays", drainOf(20, 100, 10*time.Minute, 10), -time.Second, 20, api.DrainScheduled, 0},
		{"the first step is not taken at once", drainOf(0, 100, 10*time.Minute, 10), 0, 0, api.DrainMoving, time.Minute},
		{"one step", drainOf(0, 100, 10*time.Minute, 10), time.Minute, 10, api.DrainMoving, 2 * time.Minute},
		{"between two steps", drainOf(0, 100, 10*time.Minute, 10), 119 * time.Second, 10, api.DrainMoving, 2 * time.Minute},
		{"the last but one", drainOf(0, 100, 10*time.Minute, 10), 10*time.Minute - 1, 90, api.DrainMoving, 10 * time.Minute},
		{"all of it", drainOf(0, 100, 10*time.Minute, 10), 10 * time.Minute, 100, api.DrainHolding, -1},
		{"at once", drainOf(0, 70, 0, 10), 0, 70, api.DrainHolding, -1},
		{"from where it stood, in thirds", drainOf(10, 43, 3*time.Second, 3), time.Second, 21, api.DrainMoving, 2 * time.Second},
		{"to a hundredth", drainOf(0, 100, 3*time.Second, 3), time.Second, 33.33, api.DrainMoving, 2 * time.Second},
		{"downwards", drainOf(100, 20, 4*time.Minute, 4), 2 * time.Minute, 60, api.DrainMoving, 3 * time.Minute},
		{"to nothing is an end", drainOf(100, 0, 4*time.Minute, 4), 4 * time.Minute, 0, api.DrainEnded, -1},
		{"holding until", limited, 59 * time.Minute, 50, api.DrainHolding, time.Hour},
		{"until", limited, time.Hour, 0, api.DrainEnded, -1},
		{"long after", limited, 1000 * time.Hour, 0, api.DrainEnded, -1},
		{"on the way back", undone, 15 * time.Second, 30, api.DrainMoving, 30 * time.Second},
		{"back", undone, time.Minute, 0, api.DrainEnded, -1},
		{"given up", given, 0, 0, api.DrainAborted, -1},
	} {
		now := after(c.at)
		next := time.Duration(-1)
		if n := c.d.Next(now); !n.IsZero() {
			next = n.Sub(noon)
		}
		if c.d.Level(now) != c.level || c.d.State(now) != c.state || next != c.next {
			t.Errorf("%s: %g %s next %s, want %g %s %s", c.name, c.d.Level(now), c.d.State(now), next, c.level, c.state, c.next)
		}
	}
}

// Properties of any drain: the percentage stays between its two ends, goes one way only, changes at
// the moments that Next names and at no other, and ends where it was to end.
func TestDrainProperties(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for round := range 2_000 {
		over := time.Duration(rng.Int64N(int64(api.MaxDrainOver) + 1))
		if rng.IntN(4) == 0 {
			over = time.Duration(rng.IntN(50))
		}
		d := drainOf(float64(rng.IntN(10_001))/100, float64(rng.IntN(10_001))/100, over, 1+rng.IntN(api.MaxDrainSteps))
		low, high := min(d.From, d.Percent), max(d.From, d.Percent)
		last, now := d.Level(after(-1)), after(-1)
		for moves := 0; ; moves++ {
			if moves > api.MaxDrainSteps+2 {
				t.Fatalf("round %d: %+v has more than %d steps", round, d, d.Steps)
			}
			next := d.Next(now)
			if next.IsZero() {
				break
			}
			if !next.After(now) {
				t.Fatalf("round %d: %+v: next %s is not after %s", round, d, next, now)
			}
			between := now.Add(next.Sub(now) / 2)
			if got := d.Level(next.Add(-1)); got != last || d.Level(between) != last {
				t.Fatalf("round %d: %+v changed before %s", round, d, next)
			}
			level := d.Level(next)
			if level < low || level > high || (d.Percent >= d.From) != (level >= last) && level != last {
				t.Fatalf("round %d: %+v: from %g to %g", round, d, last, level)
			}
			last, now = level, next
		}
		if last != d.Percent || d.Level(now.Add(1_000*time.Hour)) != d.Percent {
			t.Fatalf("round %d: %+v ends at %g", round, d, last)
		}
	}
}

// The same request again is no new begin; another one is.
func TestDrainKnowsTheSameRequest(t *testing.T) {
	now := after(time.Minute)
	base := api.DrainRequest{Percent: 50, Over: api.Duration(10 * time.Minute), Note: "x"}
	normal := func(f func(*api.DrainRequest)) *api.DrainRequest {
		r := base
		f(&r)
		r, err := r.Normalize(now)
		if err != nil {
			t.Fatal(err)
		}
		return &r
	}
	d := drainOf(0, 50, 10*time.Minute, 10)
	d.Note = "x"
	if !d.asksTheSame(normal(func(*api.DrainRequest) {}), false, now) {
		t.Error("the same is taken for another")
	}
	for name, f := range map[string]func(*api.DrainRequest){
		"percent": func(r *api.DrainRequest) { r.Percent = 51 },
		"over":    func(r *api.DrainRequest) { r.Over++ },
		"steps":   func(r *api.DrainRequest) { r.Steps = 9 },
		"note":    func(r *api.DrainRequest) { r.Note = "" },
		"until":   func(r *api.DrainRequest) { u := after(time.Hour); r.Until = &u },
		"abort":   func(r *api.DrainRequest) { r.Abort = &api.DrainAbort{RegionsBelow: 1} },
	} {
		if d.asksTheSame(normal(f), false, now) {
			t.Errorf("another %s is taken for the same", name)
		}
	}
	later := after(time.Hour)
	if d.asksTheSame(normal(func(r *api.DrainRequest) { r.At = &later }), true, now) {
		t.Error("a plan is taken for what is under way")
	}
}

func TestAbortRule(t *testing.T) {
	region := func(name api.Region, passing, instances int, drained float64, link string) api.RegionInfo {
		return api.RegionInfo{Origin: api.Origin{Region: name, Drained: drained}, Passing: passing, Instances: instances, Link: link, Self: link == ""}
	}
	all := []api.RegionInfo{region("eu", 0, 10, 50, ""), region("us", 8, 10, 0, "connected"), region("ap", 9, 10, 0, "unreachable")}
	for _, c := range []struct {
		name     string
		rule     abortRule
		overview []api.RegionInfo
		gives    bool
	}{
		{"85 % pass 85", abortRule{BelowPassing: 85}, all, false},
		{"85 % do not pass 86", abortRule{BelowPassing: 86}, all, true},
		{"one is reached", abortRule{RegionsBelow: 1}, all, false},
		{"two are not", abortRule{RegionsBelow: 2}, all, true},
		{"a region that is drained wholly takes nothing", abortRule{RegionsBelow: 1}, []api.RegionInfo{all[0], region("us", 8, 10, 100, "connected")}, true},
		{"nobody is left to take it", abortRule{BelowPassing: 1}, all[:1], true},
		{"no rule", abortRule{}, all[:1], false},
	} {
		if why := c.rule.reason("eu", c.overview); (why != "") != c.gives {
			t.Errorf("%s: %q", c.name, why)
		}
	}
}

// FuzzRecords: whatever is in the store is a policy or drain that could have been written, or left
// out; nothing panics later.
func FuzzRecords(f *testing.F) {
	d := drainOf(0, 50, time.Minute, 3)
	b, _ := encodeDrain(&d)
	f.Add("drains/eu-west", b)
	p, _ := encodePolicy(&api.PolicyRecord{Policy: api.Policy{Allowed: []api.Region{"eu"}}, Version: 1})
	f.Add("policies/default/*", p)
	f.Add("policies/default/orders", []byte(`{"v":2}`))
	f.Add("drains/x", []byte(`{"v":1,"percent":1e300,"at":"2026-11-22T12:00:00Z"}`))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		v, broken := Load([]store.Record{{Key: key, Value: value, Revision: 7}})
		if n := len(v.policies) + len(v.drains); n > 1 || n == 1 && len(broken) > 0 {
			t.Fatalf("%d records of one, broken %v", n, broken)
		}
		for r, d := range v.drains {
			now := noon
			for range 3 {
				if l := d.Level(now); !(l >= 0 && l <= 100) || !api.ValidLabel(string(r)) {
					t.Fatalf("%s: %g", r, l)
				}
				if now = d.Next(now); now.IsZero() {
					break
				}
			}
		}
		for k := range v.policies {
			if v.Policy(k) == nil {
				t.Fatal("a policy is not in force")
			}
		}
		if Concerns(key) && len(broken) > 0 && v.guard(key) != 7 {
			t.Errorf("a broken record of %q cannot be replaced: guard %d", key, v.guard(key))
		}
	})
}

// A view is the same whether its records were loaded or came one by one.
func TestApplyEqualsLoad(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	text := func(v *View) string {
		b, _ := json.Marshal([]any{v.regions(), v.broken})
		for _, ns := range []api.Namespace{"default", "shop"} {
			for _, p := range v.list(ns) {
				one, _ := json.Marshal([]any{p, v.Policy(api.ServiceKey{Namespace: ns, Service: p.Service})})
				b = append(b, one...)
			}
		}
		for _, r := range v.regions() {
			b = fmt.Appendf(b, "%+v %d", *v.drains[r].At, v.drains[r].revision)
		}
		return string(b)
	}
	records := map[string]store.Record{}
	v, _ := Load(nil)
	for revision := uint64(2); revision < 600; revision++ {
		key := PolicyKey(api.ServiceKey{Namespace: []api.Namespace{"default", "shop"}[rng.IntN(2)], Service: []api.ServiceName{"*", "a", "b"}[rng.IntN(3)]})
		share := float64(rng.IntN(100))
		value, _ := encodePolicy(&api.PolicyRecord{Policy: api.Policy{MinHealthy: &share}, Version: revision})
		if rng.IntN(3) == 0 {
			key = DrainKey([]api.Region{"eu", "us"}[rng.IntN(2)])
			d := drainOf(0, share, time.Minute, 3)
			value, _ = encodeDrain(&d)
		}
		if rng.IntN(10) == 0 {
			value = []byte("?")
		}
		ev := store.Event{Record: store.Record{Key: key, Value: value, Revision: revision}}
		if records[key] = ev.Record; rng.IntN(4) == 0 {
			delete(records, key)
			ev = store.Event{Delete: true, Record: store.Record{Key: key}}
		}
		v, _ = v.Apply(store.Batch{Revision: revision, Events: []store.Event{ev}})
		var list []store.Record
		for _, rec := range records {
			list = append(list, rec)
		}
		loaded, _ := Load(list)
		if got, want := text(v), text(loaded); got != want {
			t.Fatalf("revision %d: applied %s, loaded %s", revision, got, want)
		}
	}
}
