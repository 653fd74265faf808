package registry

import (
	"fmt"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/nearside/nearside/region/liveness/check"
	"github.com/nearside/nearside/sdk/api"
)

// jumped returns t as it would read had the wall clock been moved by d: its monotonic reading
// is the same. Package time offers no way to make one, so this knows how it keeps them.
func jumped(t *testing.T, at time.Time, d time.Duration) time.Time {
	t.Helper()
	const nanoseconds, monotonic = 1<<30 - 1, 1 << 63
	wall := (*uint64)(unsafe.Pointer(&at))
	before := at
	if *wall&monotonic == 0 {
		t.Fatal("the time has no monotonic reading")
	}
	seconds := *wall << 1 >> 31
	*wall = *wall&(nanoseconds|monotonic) | uint64(int64(seconds)+int64(d/time.Second))<<30
	if at.Sub(before) != 0 || at.Unix()-before.Unix() != int64(d/time.Second) {
		t.Fatalf("package time keeps its times in another way now: %s became %s, which is %s later", before, at, at.Sub(before))
	}
	return at
}

var jumps = []time.Duration{time.Hour, -time.Hour, 24 * time.Hour, -24 * time.Hour, 0}

// P2, P4, test 15 and catalogue row 23: the wall clock jumps by an hour and by a day, forward
// and back. Deadlines are of the monotonic clock: nobody is evicted for it, and who is silent
// is still evicted in time. Where a wall clock is read at all is listed in region/DESIGN.md.
// It takes real time: in a bubble of synctest times have no monotonic reading. The long form does
// it for as long as NEARSIDE_SOAK says, and nothing is left behind by a jump.
func TestClockJump(t *testing.T) {
	t.Log("no seed: this test chooses nothing at random")
	soak := soakFor(t, 0)
	routines := 0
	for round, begun := 1, time.Now(); round == 1 || time.Since(begun) < soak; round++ {
		if !t.Run(fmt.Sprintf("round %d", round), jumping) {
			return
		}
		n := runtime.NumGoroutine()
		if round == 1 {
			routines = n
		}
		if n > routines+20 {
			t.Fatalf("P8: %d goroutines after %d rounds, %d after the first", n, round, routines)
		}
	}
}

func jumping(t *testing.T) {
	for _, d := range jumps {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			// A clock that jumps by d after the start, and a start with a clock that is off by
			// -d, leave the same times behind.
			b.start = jumped(t, b.start, -d)
			b.run()
			<-b.Loaded()
			in := reg()
			in.TTL = api.Duration(time.Second)
			for i := range 20 {
				if _, _, err := b.Register(t.Context(), ikey("orders", fmt.Sprintf("i%d", i)), in); err != nil {
					t.Fatal(err)
				}
			}
			begun := time.Now()
			each := time.NewTicker(100 * time.Millisecond)
			defer each.Stop()
			gone := time.Duration(0)
			// On a machine that starves the node it judges nobody meanwhile, and says so.
			for gone == 0 && time.Since(begun) < 2*time.Minute {
				<-each.C
				for i := 1; i < 20; i++ { // i0 is silent
					if _, err := b.Heartbeat(t.Context(), ikey("orders", fmt.Sprintf("i%d", i)), 0); err != nil {
						t.Fatalf("P2: after a jump of %s: %v", d, err)
					}
				}
				if _, _, err := b.Get(t.Context(), ikey("orders", "i0"), ReadOptions{}); err != nil {
					gone = time.Since(begun)
				}
			}
			// Out of answers comes before out of the store, and that before it is counted.
			for begun := time.Now(); b.counts.evictions.Load() == 0 && time.Since(begun) < time.Minute; <-each.C {
			}
			t.Logf("a jump of %s: the silent one left after %s, evicted %d", d, gone.Round(time.Millisecond), b.counts.evictions.Load())
			if gone < time.Second || b.counts.evictions.Load() != 1 {
				t.Errorf("P1, P2: the silent one left after %s, %d were evicted", gone, b.counts.evictions.Load())
			}
			b.health.mu.Lock()
			b.health.lastGood = jumped(t, time.Now(), -d)
			b.health.cause = "gone"
			b.health.mu.Unlock()
			if age := b.health.age(); age < 0 || age > 10*time.Second {
				t.Errorf("after a jump of %s the age is %s", d, age)
			}
		})
	}
}

// The jump in the middle of a check's life: deregister_after is counted by the monotonic
// clock, so it neither comes at once nor a day late.
func TestClockJumpInAChecksLife(t *testing.T) {
	for _, d := range jumps {
		rule := api.Check{
			Name: "live", Role: api.RoleLiveness, Kind: api.CheckHTTP, Interval: api.Duration(time.Second),
			FailuresBeforeCritical: 1, DeregisterAfter: api.Duration(time.Minute),
		}
		begun := time.Now()
		state := check.Resume(check.First(&rule, begun), begun)
		took := time.Duration(0)
		for ; took < 90*time.Second; took += time.Second {
			now := begun.Add(took)
			if took > 5*time.Second {
				now = jumped(t, now, d)
			}
			state.Step(&rule, check.DefaultDamping(), check.Result{Outcome: check.Failure, Code: "500"}, now)
			if state.Expired(&rule, now) {
				break
			}
		}
		if took < 55*time.Second || took > 65*time.Second {
			t.Errorf("after a jump of %s deregister_after of a minute took %s", d, took)
		}
	}
}
