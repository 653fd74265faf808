package nearside

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// watches returns how many watches were asked for.
func (r *fakeRegion) watches() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.from)
}

func (c *Client) watched() (services, watchers int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(*c.services.Load()), len(c.watchers)
}

// P8: the first use of a service is one flight, however many ask; services that are asked for
// together are listed together.
func TestFirstUsesShareOneListing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		us := w.regions["us"]
		for i := range 200 {
			us.put(fmt.Sprintf("s%d", i), "a", "a:80", nil)
		}
		c := w.client("us", nil)
		all := func(n int, name func(int) string) {
			t.Helper()
			var group sync.WaitGroup
			for i := range n {
				group.Go(func() {
					if _, err := c.Pick(t.Context(), name(i)); err != nil {
						t.Error(name(i), err)
					}
				})
			}
			group.Wait()
		}
		all(1000, func(int) string { return "s0" })
		if n := us.watches(); n != 1 {
			t.Errorf("1,000 first uses of one service opened %d watches", n)
		}
		all(200, func(i int) string { return fmt.Sprintf("s%d", i) })
		if n := us.watches(); n > 3 {
			t.Errorf("200 services asked for at once opened %d watches", n)
		}
	})
}

// A list that is on its way is not cut off because somebody else asks: where listing takes
// longer than it takes for the next name to come, nobody would ever be answered.
func TestSlowListsComeToTheirEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		us := w.regions["us"]
		us.put("orders", "a", "a:80", nil)
		us.slow = 300 * time.Millisecond
		c := w.client("us", nil)
		var group sync.WaitGroup
		for i := range 150 {
			group.Go(func() {
				if _, err := c.Pick(t.Context(), fmt.Sprintf("nobody-%d", i)); api.CodeOf(err) != api.CodeServiceNotFound {
					t.Errorf("name %d: %v", i, err)
				}
			})
			time.Sleep(20 * time.Millisecond)
		}
		group.Wait()
		if n := us.watches(); n < 9 || n > 12 {
			t.Errorf("%d listings of 300 ms in 3 s", n)
		}
	})
}

// P8: a program that asks for name after name, all of them unknown, gets its answers in time,
// costs its registry a few listings a second, and keeps what it needs; the names are let go.
func TestStormOfUnknownNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		us := w.regions["us"]
		us.put("orders", "a", "a:80", nil)
		c := w.client("us", nil)
		if _, err := c.Pick(t.Context(), "orders"); err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		var slowest atomic.Int64
		for i := range 1000 {
			time.Sleep(10 * time.Millisecond)
			group.Go(func() {
				start := time.Now()
				_, err := c.Pick(t.Context(), fmt.Sprintf("nobody-%d", i))
				if api.CodeOf(err) != api.CodeServiceNotFound {
					t.Errorf("name %d: %v", i, err)
				}
				slowest.Store(max(slowest.Load(), int64(time.Since(start))))
			})
			if i%100 == 0 {
				if n, watchers := c.watched(); n > maxUnknown+202 || watchers > 3 {
					t.Fatalf("%d services in %d streams", n, watchers)
				}
				if p, err := c.Pick(t.Context(), "orders"); err != nil || p.Endpoint.ID != "a" {
					t.Fatal("in the storm:", err)
				}
			}
		}
		group.Wait()
		// 10 s at five a second over a burst of 100, for up to three streams.
		if n := us.watches(); n > 3*160 {
			t.Errorf("1,000 unknown names cost %d listings", n)
		}
		t.Logf("%d listings for 1,000 names, the slowest answer took %s", us.watches(), time.Duration(slowest.Load()))
		if s := time.Duration(slowest.Load()); s > time.Second {
			t.Errorf("an answer took %s", s)
		}
		time.Sleep(3 * time.Minute)
		if n, watchers := c.watched(); n != 1 || watchers != 1 {
			t.Errorf("afterwards %d services in %d streams", n, watchers)
		}
		us.put("orders", "b", "b:80", nil)
		synctest.Wait()
		if got := ids(t, c, "orders"); len(got) != 2 {
			t.Errorf("orders is watched no more: %v", got)
		}
	})
}

// That a service is unknown is remembered: it is answered at once, without the registry; until
// an instance registers.
func TestUnknownIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		us := w.regions["us"]
		c := w.client("us", nil)
		for range 100 {
			if _, err := c.Pick(t.Context(), "nobody"); api.CodeOf(err) != api.CodeServiceNotFound {
				t.Fatal(err)
			}
			start := time.Now()
			if _, err := c.Pick(t.Context(), "nobody"); api.CodeOf(err) != api.CodeServiceNotFound || time.Since(start) > 0 {
				t.Fatal(err, time.Since(start))
			}
			time.Sleep(2 * time.Second)
		}
		if n := us.watches(); n != 1 {
			t.Errorf("%d watches for one unknown name in use", n)
		}
		us.put("nobody", "a", "a:80", nil)
		synctest.Wait()
		if _, err := c.Pick(t.Context(), "nobody"); err != nil {
			t.Error(err)
		}
		// Whoever waits for a service to appear is told, however long that takes.
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		told := make(chan int, 10)
		go func() {
			_ = c.Watch(ctx, "late", func(r api.Resolution) { told <- len(r.Endpoints) })
		}()
		time.Sleep(10 * time.Minute)
		us.put("late", "a", "a:80", nil)
		synctest.Wait()
		if n := len(told); n != 2 || <-told != 0 || <-told != 1 {
			t.Errorf("told %d times", n)
		}
	})
}

// A namespace that nobody asks about any more has no stream.
func TestNamespacesAreLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		us := w.regions["us"]
		us.put("orders", "a", "a:80", nil)
		c := w.client("us", nil)
		if _, err := c.Pick(t.Context(), "orders"); err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			if _, err := c.Pick(t.Context(), fmt.Sprintf("orders.ns%d", i)); api.CodeOf(err) != api.CodeServiceNotFound {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Minute)
		us.mu.Lock()
		streams := len(us.subs)
		us.mu.Unlock()
		if n, watchers := c.watched(); n != 1 || watchers != 1 || streams != 1 {
			t.Errorf("%d services, %d watchers, %d streams", n, watchers, streams)
		}
	})
}

// P3, P8: when 4,096 services are watched, a new one takes the place of those that were not used
// for ten minutes; while all are in use it is refused. What was let go is known when it is asked
// for again and no registry answers.
func TestRoomForNewServices(t *testing.T) {
	const most = 200 // as good as 4,096, which differ by nothing but their number
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		us := w.regions["us"]
		name := func(i int) string { return fmt.Sprintf("s%d", i) }
		for i := range most + 2 {
			us.put(name(i), "a", "a:80", nil)
		}
		c := w.client("us", func(cfg *Config) { cfg.SnapshotDir = dir })
		c.most = most
		use := func(from, to int) {
			t.Helper()
			var group sync.WaitGroup
			for i := from; i < to; i++ {
				group.Go(func() {
					if _, err := c.Pick(t.Context(), name(i)); err != nil {
						t.Error(name(i), err)
					}
				})
			}
			group.Wait()
		}
		use(0, most)
		if _, err := c.Pick(t.Context(), name(most)); !errors.Is(err, ErrTooManyServices) {
			t.Errorf("all are in use: %v", err)
		}
		time.Sleep(knownIdle / 2)
		use(10, most)
		time.Sleep(knownIdle/2 + 5*time.Second)
		use(most, most+1)
		if n, _ := c.watched(); n != most-9 {
			t.Errorf("%d services: the ten that were not used make room", n)
		}
		if (*c.services.Load())[name(3)] != nil || (*c.services.Load())[name(10)] == nil {
			t.Error("the wrong ones went")
		}
		w.killRegistries()
		time.Sleep(time.Minute)
		start := time.Now()
		res, err := c.Resolve(t.Context(), name(3))
		if err != nil || len(res.Endpoints) != 1 || time.Since(start) > 100*time.Millisecond {
			t.Fatalf("P3: let go, and asked for again while no registry answers: %v after %s", err, time.Since(start))
		}
		if v := res.Views[0]; v.Source != api.SourceSnapshot || v.AgeMS < 60_000 || v.AgeMS > 90_000 {
			t.Errorf("its age: %+v", v)
		}
	})
}

// P3: what is not known completely is not said to be nowhere.
func TestAbsenceNeedsCompleteKnowledge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu", "ap")
		us, eu := w.regions["us"], w.regions["eu"]
		us.put("orders", "a", "a:80", nil)
		partly := func(r *fakeRegion, of api.Region, yes bool) {
			r.mu.Lock()
			r.partly = map[api.Region]bool{of: yes}
			r.mu.Unlock()
			f := r.mark(api.FrameBookmark)
			r.mu.Lock()
			defer r.mu.Unlock()
			for s := range r.subs {
				s.frames <- f
			}
		}
		partly(us, "ap", true)
		c := w.client("us", nil)
		want := func(when string, want error) {
			t.Helper()
			start := time.Now()
			for _, f := range []func() error{
				func() error { _, err := c.Pick(t.Context(), "nobody"); return err },
				func() error { _, err := c.Resolve(t.Context(), "nobody"); return err },
				func() error { _, err := c.Explain(t.Context(), "nobody"); return err },
			} {
				err := f()
				if want != nil && !errors.Is(err, want) || want == nil && api.CodeOf(err) != api.CodeServiceNotFound {
					t.Errorf("%s: %v", when, err)
				}
			}
			if took := time.Since(start); took > firstUse {
				t.Errorf("%s: after %s", when, took)
			}
		}
		want("home does not know all of ap", ErrIncomplete)
		if _, err := c.Pick(t.Context(), "orders"); err != nil {
			t.Error("what is known is used", err)
		}
		partly(us, "ap", false)
		synctest.Wait()
		want("now it does", nil)
		partly(eu, "us", true)
		w.net.kill(us.addr)
		time.Sleep(10 * time.Second)
		want("a stranger does not know all of home", ErrIncomplete)
		partly(eu, "us", false)
		synctest.Wait()
		want("it does", nil)
		partly(eu, "us", true)
		synctest.Wait()
		us.start()
		time.Sleep(5 * time.Second)
		want("home again", nil)
	})
}

// A service that is asked for under its other name while there is no room for one more is not the one
// that makes room: whoever got it would ask somebody who is gone, for ever.
func TestRoomIsNotMadeByTheServiceThatIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		for _, name := range []string{"orders", "other"} {
			w.regions["us"].put(name, "a", "a:80", nil)
		}
		c := w.client("us", nil)
		c.most = 2
		for _, name := range []string{"orders", "other"} {
			if _, err := c.Pick(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(knownIdle + 5*time.Second)
		if _, err := c.Pick(t.Context(), "other"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Pick(t.Context(), "orders.default"); err != nil {
			t.Fatal(err)
		}
		if s := (*c.services.Load())["orders.default"]; s == nil || !s.use.hold() {
			t.Error("what was got is let go")
		}
	})
}
