package nearside

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// Rows 23, 45: a program that did not run for longer than its TTL knows it, by any clock that
// can be believed; a wall clock that is set is no sleep where the time since the boot is known.
func TestSuspensionIsNoticed(t *testing.T) {
	const day = 24 * time.Hour
	for _, tc := range []struct {
		name             string
		mono, boot, wall time.Duration // that passed; boot below 0 = not known
		want, ttl        time.Duration
		quiet            time.Duration // of the registry before that
		suspended        bool
	}{
		{"in time", 5 * time.Second, 5 * time.Second, 5 * time.Second, 5 * time.Second, 15 * time.Second, 0, false},
		{"a busy machine", 6 * time.Second, 6 * time.Second, 6 * time.Second, 5 * time.Second, 15 * time.Second, 0, false},
		{"stopped", 25 * time.Second, 25 * time.Second, 25 * time.Second, 5 * time.Second, 15 * time.Second, 0, true},
		{"stopped, not told since the boot", 25 * time.Second, -1, 25 * time.Second, 5 * time.Second, 15 * time.Second, 0, true},
		{"short TTL", 1500 * time.Millisecond, 1500 * time.Millisecond, 0, 300 * time.Millisecond, time.Second, 0, true},
		{"short TTL, busy", 900 * time.Millisecond, 900 * time.Millisecond, 0, 300 * time.Millisecond, time.Second, 0, false},
		{"the machine slept", 5 * time.Second, time.Hour, time.Hour, 5 * time.Second, 15 * time.Second, 0, true},
		{"it slept, and its clock was set back", 5 * time.Second, time.Hour, -day, 5 * time.Second, 15 * time.Second, 0, true},
		{"it slept, where only the wall clock tells", 5 * time.Second, -1, time.Hour, 5 * time.Second, 15 * time.Second, 0, true},
		{"the wall clock was set forward", 5 * time.Second, 5 * time.Second, day, 5 * time.Second, 15 * time.Second, 0, false},
		{"the wall clock was set back", 5 * time.Second, 5 * time.Second, -day, 5 * time.Second, 15 * time.Second, 0, false},
		{"set back, where only the wall clock tells", 5 * time.Second, -1, -day, 5 * time.Second, 15 * time.Second, 0, false},
		// Beats are 5 s apart; it stops right after one, or right before the next.
		{"stopped for 1.1 ttl after a beat", 16500 * time.Millisecond, 16500 * time.Millisecond, 0, 5 * time.Second, 15 * time.Second, 0, true},
		{"stopped for 1.1 ttl before a beat", 21400 * time.Millisecond, 21400 * time.Millisecond, 0, 5 * time.Second, 15 * time.Second, 0, true},
		{"the machine slept for 1.1 ttl", time.Second, 16500 * time.Millisecond, 16500 * time.Millisecond, 5 * time.Second, 15 * time.Second, 0, true},
		{"the same, where only the wall clock tells", time.Second, -1, 16500 * time.Millisecond, 5 * time.Second, 15 * time.Second, 0, true},
		{"1.1 of the shortest ttl", 1100 * time.Millisecond, 1100 * time.Millisecond, 0, 333 * time.Millisecond, time.Second, 0, true},
		{"stopped for 0.9 ttl after a beat", 13500 * time.Millisecond, 13500 * time.Millisecond, 0, 5 * time.Second, 15 * time.Second, 0, false},
		{"no registry for an hour, and never late", 2 * time.Second, 2 * time.Second, 2 * time.Second, 2 * time.Second, 15 * time.Second, time.Hour, false},
		{"no registry for an hour, on a busy machine", 5 * time.Second, 5 * time.Second, 5 * time.Second, 2 * time.Second, 15 * time.Second, time.Hour, false},
		{"no registry for a minute, with the shortest ttl on a busy machine", 1200 * time.Millisecond, 1200 * time.Millisecond, 0, 300 * time.Millisecond, time.Second, time.Minute, false},
		{"no registry, and stopped for 1.1 ttl", 16500 * time.Millisecond, 16500 * time.Millisecond, 0, 2 * time.Second, 15 * time.Second, time.Hour, true},
	} {
		a := moment{mono: time.Minute, boot: time.Hour, wall: time.Unix(1_800_000_000, 0)}
		b := moment{mono: a.mono + tc.mono, boot: a.boot + tc.boot, wall: a.wall.Add(tc.wall)}
		if tc.boot < 0 {
			a.boot, b.boot = -1, -1
		}
		acked := moment{mono: a.mono - tc.quiet, boot: a.boot - tc.quiet, wall: a.wall.Add(-tc.quiet)}
		if tc.boot < 0 {
			acked.boot = -1
		}
		if got := suspended(acked, a, b, tc.want, tc.ttl); got != tc.suspended {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
	if b := sinceBoot(); b == 0 {
		t.Error("the time since the boot is neither told nor unknown")
	}
}

// clocks lets a test set the clocks of a client. Its methods may be called while it runs.
type clocks struct {
	boot, wall atomic.Int64 // beside the time of the bubble
	noBoot     bool
}

// pass lets time pass in a bubble.
func pass(d time.Duration) { time.Sleep(d) }

func (k *clocks) of(c *Client) {
	c.now = func() moment {
		m := moment{mono: c.clock(), boot: c.clock() + time.Duration(k.boot.Load()), wall: time.Now().Round(0).Add(time.Duration(k.wall.Load()))}
		if k.noBoot {
			m.boot = -1
		}
		return m
	}
}

// asleep lets the machine sleep: the monotonic clock does not see it.
func (k *clocks) asleep(d time.Duration) {
	k.boot.Add(int64(d))
	k.wall.Add(int64(d))
}

// Row 23, P9: the wall clock is set by a day, forward and back: the instance is neither away
// nor anything but as it was for a moment, and stays drained if an operator drained it. Where
// no other clock tells of sleep it becomes a new incarnation at most.
func TestClockJumps(t *testing.T) {
	for name, tc := range map[string]struct {
		noBoot bool
		jump   time.Duration
		again  int // registrations after the jump
	}{
		"forward": {false, 24 * time.Hour, 0}, "back": {false, -24 * time.Hour, 0},
		"forward, unsure": {true, 24 * time.Hour, 1}, "back, unsure": {true, -24 * time.Hour, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "us")
				us := w.regions["us"]
				c := w.client("us", nil)
				k := &clocks{noBoot: tc.noBoot}
				k.of(c)
				r, err := c.Register(t.Context(), order("a"))
				if err != nil {
					t.Fatal(err)
				}
				before := r.Incarnation()
				if !tc.noBoot {
					us.put("orders", "a", "10.0.0.1:80", func(i *api.Instance) { i.Status, i.Incarnation = api.StatusDraining, before })
				}
				was := us.stored("orders", "a").Status
				time.Sleep(10 * time.Second)
				us.mu.Lock()
				us.heard["a"] = nil
				us.mu.Unlock()
				k.wall.Add(int64(tc.jump))
				for range 300 {
					time.Sleep(100 * time.Millisecond)
					if in := us.stored("orders", "a"); in == nil || in.Status != was {
						t.Fatalf("after the jump: %+v", in)
					}
				}
				again := 0
				for _, what := range us.requests("a") {
					if what == "PUT" {
						again++
					}
				}
				if again != tc.again || r.Err() != nil || r.Incarnation() != before+uint64(tc.again) {
					t.Errorf("registered %d times, incarnation %d after %d, %v", again, r.Incarnation(), before, r.Err())
				}
			})
		})
	}
}

// Row 45: after the machine slept, the first word to the registry is a registration as a new
// incarnation; also when the program is quicker to say that it is well than the loop is.
func TestAwakeAgainAsANewIncarnation(t *testing.T) {
	for name, wake := range map[string]func(*testing.T, *Registered){
		"by itself": func(*testing.T, *Registered) { pass(5 * time.Second) },
		"the program speaks first": func(t *testing.T, r *Registered) {
			if err := r.SetStatus(t.Context(), api.StatusPassing, "awake"); err != nil {
				t.Error(err)
			}
		},
		"the program updates first": func(t *testing.T, r *Registered) {
			if err := r.Update(t.Context(), func(n *Registration) { n.Weight = 5 }); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "us")
				us := w.regions["us"]
				c := w.client("us", nil)
				k := &clocks{}
				k.of(c)
				r, err := c.Register(t.Context(), order("a"))
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Second)
				us.mu.Lock()
				us.heard["a"] = nil
				us.mu.Unlock()
				before := r.Incarnation()
				k.asleep(time.Hour)
				wake(t, r)
				if log := us.requests("a"); len(log) == 0 || log[0] != "PUT" {
					t.Errorf("after an hour of sleep: %v", log)
				}
				if in := us.stored("orders", "a"); in == nil || in.Incarnation != before+1 || in.Status != api.StatusPassing {
					t.Errorf("incarnation %d, before %d", in.Incarnation, before)
				}
			})
		})
	}
}

// The sleep may begin while a request is under way: its answer, however old, is not the end
// of it.
func TestAsleepDuringAHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		us := w.regions["us"]
		c := w.client("us", nil)
		k := &clocks{}
		k.of(c)
		r, err := c.Register(t.Context(), order("a"))
		if err != nil {
			t.Fatal(err)
		}
		before := r.Incarnation()
		var once atomic.Bool
		us.mu.Lock()
		us.before = func(what string) {
			if what == "PUT heartbeat" && once.CompareAndSwap(false, true) {
				k.asleep(time.Hour)
			}
		}
		us.mu.Unlock()
		time.Sleep(4 * time.Second)
		log := us.requests("a")
		if at := slices.Index(log, "PUT heartbeat"); at < 0 || len(log) < at+2 || log[at+1] != "PUT" || r.Incarnation() != before+1 {
			t.Errorf("%v, incarnation %d after %d", log, r.Incarnation(), before)
		}
	})
}

// A sleep of little more than a TTL is one, wherever between two beats it begins, and so is one during a request
// that the registry only tells by having forgotten the instance.
func TestAwakeAfterLittleMoreThanATTL(t *testing.T) {
	for name, begin := range map[string]time.Duration{"after a beat": 10 * time.Millisecond, "later": 2 * time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "us")
				c := w.client("us", nil)
				k := &clocks{}
				k.of(c)
				r, err := c.Register(t.Context(), order("a"))
				if err != nil {
					t.Fatal(err)
				}
				before := r.Incarnation()
				time.Sleep(begin)
				k.asleep(9900 * time.Millisecond)
				time.Sleep(4 * time.Second)
				if in := w.regions["us"].stored("orders", "a"); in.Incarnation != before+1 {
					t.Errorf("incarnation %d after %d", in.Incarnation, before)
				}
			})
		})
	}
	t.Run("during a request", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "us")
			us := w.regions["us"]
			c := w.client("us", nil)
			k := &clocks{}
			k.of(c)
			r, err := c.Register(t.Context(), order("a"))
			if err != nil {
				t.Fatal(err)
			}
			before := r.Incarnation()
			var once atomic.Bool
			us.mu.Lock()
			us.before = func(what string) {
				if what == "PUT heartbeat" && once.CompareAndSwap(false, true) {
					k.asleep(9900 * time.Millisecond)
					us.remove("orders", "a") // it was counted out
				}
			}
			us.mu.Unlock()
			time.Sleep(8 * time.Second)
			if in := us.stored("orders", "a"); in == nil || in.Incarnation != before+1 || r.Incarnation() != before+1 {
				t.Errorf("%+v, incarnation %d after %d", in, r.Incarnation(), before)
			}
		})
	})
}

// P9: while a program slept, another one took its id. It wakes, and the other one stays.
func TestAwakeAgainAndReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		us := w.regions["us"]
		c := w.client("us", nil)
		k := &clocks{}
		k.of(c)
		r, err := c.Register(t.Context(), order("a"))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		k.asleep(time.Hour)
		other := w.client("us", nil)
		successor, err := other.Register(t.Context(), order("a"))
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-r.Done():
		case <-time.After(10 * time.Second):
			t.Fatal("the sleeper did not notice that it was replaced")
		}
		if !errors.Is(r.Err(), ErrSuperseded) || successor.Err() != nil || us.stored("orders", "a").Incarnation != successor.Incarnation() {
			t.Errorf("%v, %v", r.Err(), successor.Err())
		}
	})
}
