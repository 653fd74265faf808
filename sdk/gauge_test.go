package nearside

import (
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// loadsTold returns what heartbeats told since the last look.
func (r *fakeRegion) loadsTold() []api.Load {
	r.mu.Lock()
	defer r.mu.Unlock()
	told := r.told
	r.told = nil
	return told
}

func (r *fakeRegion) setLoadless(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.loadless = on
}

// Every heartbeat tells what the program says at that time; below 0 is nothing, and more than
// can be is the most.
func TestHeartbeatsTellTheLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		us := w.regions["us"]
		c := w.client("us", nil)
		var now atomic.Int64
		reg := order("a")
		reg.Load = func() int { return int(now.Load()) }
		r, err := c.Register(t.Context(), reg)
		if err != nil {
			t.Fatal(err)
		}
		for _, percent := range []int{0, 40, 120, api.MaxLoadPercent + 1, -1} {
			now.Store(int64(percent))
			us.loadsTold()
			time.Sleep(9 * time.Second)
			want := api.Load(0)
			if percent >= 0 {
				want = api.LoadOf(percent)
			}
			told := us.loadsTold()
			if len(told) < 2 || slices.ContainsFunc(told, func(l api.Load) bool { return l != want }) {
				t.Errorf("%d %%: told %v", percent, told)
			}
		}
		if err := r.Update(t.Context(), func(r *Registration) { r.Load = func() int { return 7 } }); err != nil {
			t.Fatal(err)
		}
		us.loadsTold()
		time.Sleep(9 * time.Second)
		if told := us.loadsTold(); len(told) < 2 || told[0] != api.LoadOf(7) {
			t.Errorf("after the update: %v", told)
		}
	})
}

// P1: a program whose load cannot be had stays registered: beats go without when it blocks, or
// panics, and no second call is begun meanwhile.
func TestALoadThatCannotBeHadCostsNoHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		us := w.regions["us"]
		c := w.client("us", nil)
		var calls atomic.Int32
		free := make(chan struct{})
		reg := order("a")
		reg.Load = func() int { calls.Add(1); <-free; return 40 }
		r, err := c.Register(t.Context(), reg)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(9 * time.Second)
		if told := us.loadsTold(); len(told) < 2 || !told[0].IsZero() || calls.Load() != 1 || r.Err() != nil {
			t.Errorf("blocked: %v, %d calls, %v", told, calls.Load(), r.Err())
		}
		close(free)
		time.Sleep(9 * time.Second)
		if told := us.loadsTold(); len(told) < 2 || told[len(told)-1] != api.LoadOf(40) {
			t.Errorf("free again: %v", told)
		}
		// A function that hangs is left behind by the next Update.
		stuck := make(chan struct{})
		defer close(stuck)
		for _, next := range []func() int{func() int { <-stuck; return 1 }, func() int { return 7 }} {
			if err := r.Update(t.Context(), func(r *Registration) { r.Load = next }); err != nil {
				t.Fatal(err)
			}
			time.Sleep(9 * time.Second)
		}
		if told := us.loadsTold(); len(told) < 2 || told[len(told)-1] != api.LoadOf(7) {
			t.Errorf("after one that hangs: %v", told)
		}
		calls.Store(0)
		err = r.Update(t.Context(), func(r *Registration) { r.Load = func() int { calls.Add(1); panic("no gauge") } })
		if err != nil {
			t.Fatal(err)
		}
		us.loadsTold()
		time.Sleep(30 * time.Second)
		if told := us.loadsTold(); len(told) < 8 || !told[0].IsZero() || calls.Load() != 1 || r.Err() != nil {
			t.Errorf("panicked: %v, %d calls, %v", told, calls.Load(), r.Err())
		}
	})
}

// Mixed versions: a registry that does not know loads gets the heartbeat without it in the same
// turn, and is told again a minute later, when it may know.
func TestAnOlderRegistryIsToldNoLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		us := w.regions["us"]
		us.setLoadless(true)
		c := w.client("us", nil)
		reg := order("a")
		reg.Load = func() int { return 40 }
		r, err := c.Register(t.Context(), reg)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		told, asked := us.loadsTold(), 0
		for _, what := range us.requests("a") {
			if what == "PUT heartbeat" {
				asked++
			}
		}
		if len(told) < 8 || !told[0].IsZero() || asked != len(told)+1 || r.Err() != nil {
			t.Errorf("%d heartbeats taken of %d, %v", len(told), asked, r.Err())
		}
		us.setLoadless(false)
		time.Sleep(40 * time.Second)
		if told := us.loadsTold(); told[len(told)-1] != api.LoadOf(40) {
			t.Errorf("upgraded: %v", told)
		}
	})
}
