package registry

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/region/encoded"
	"github.com/nearside/nearside/sdk/api"
)

// P5: what others change does not wake a watch, and does not make it fall off the history
// however much it is; its own next change comes without a reset.
func TestWatchSleepsThroughTheChangesOfOthers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		b.mu.Lock()
		b.history = catalog.NewHistory(8, b.head.Load().snap.Version().Revision)
		b.mu.Unlock()
		b.register("orders", "a")
		s := b.watch(WatchQuery{Services: []api.ServiceName{"orders"}})
		s.next()
		b.mu.Lock()
		var own *bell
		for one := range b.bells.services[ikey("orders", "").ServiceKey()] {
			own = one
		}
		b.mu.Unlock()
		for i := range 100 {
			b.register("users", fmt.Sprintf("u%d", i))
			b.mu.RLock()
			first, waiting := own.first, len(own.c)
			b.mu.RUnlock()
			if first != 0 || waiting != 0 {
				t.Fatalf("after %d changes of another service: marked at %d, %d rings", i, first, waiting)
			}
		}
		b.register("orders", "b")
		if got := s.next(); got != "put:register b" {
			t.Errorf("%q", got)
		}
		// A revision that only counts, such as that of a beat, wakes nobody and shows in bookmarks.
		v := b.Stamp().Version.Revision
		b.progress(v + 5)
		pass(api.BookmarkInterval)
		if f := s.last(); f.Kind != api.FrameBookmark || f.Version.Revision != v+5 {
			t.Errorf("%+v, want a bookmark at %d", f, v+5)
		}
	})
}

// countingReplicas counts who looks at the other regions.
type countingReplicas struct {
	*fakeReplicas
	looks atomic.Int64
}

func (c *countingReplicas) Origins() []api.Origin {
	c.looks.Add(1)
	return c.fakeReplicas.Origins()
}

// P8: what changes in another region wakes the watches of that service. It woke all of them, each to look at
// all that it watches.
func TestWatchSleepsThroughFarChangesOfOthers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		far := &countingReplicas{fakeReplicas: newReplicas("us-east")}
		b := start(t, func(c *Config) { c.Replicas = far })
		far.set("us-east", "orders", 1, "a")
		var all []*stream
		for range 50 {
			s := b.watch(WatchQuery{Services: []api.ServiceName{"orders"}, Far: true})
			s.next()
			all = append(all, s)
		}
		before := far.looks.Load()
		far.set("us-east", "users", 2, "u")
		synctest.Wait()
		if n := far.looks.Load() - before; n > 3 {
			t.Errorf("a change of another service made %d looks", n)
		}
		far.set("us-east", "orders", 3, "a", "b")
		for i, s := range all {
			if got := s.next(); got != "replica us-east/orders 3" {
				t.Fatalf("watch %d got %q", i, got)
			}
		}
		far.set("us-east", "orders", 4)
		if got := all[0].next(); got != "replica us-east/orders gone" {
			t.Errorf("%q", got)
		}
		for _, s := range all {
			s.cancel()
		}
		synctest.Wait()
		b.farBells.mu.Lock()
		defer b.farBells.mu.Unlock()
		if len(b.farBells.services)+len(b.farBells.all) != 0 {
			t.Errorf("%d bells hang after the last watch", len(b.farBells.services))
		}
	})
}

// P8: a watch that ended leaves nothing behind.
func TestBellsAreTakenDown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		for range 10 {
			b.watch(WatchQuery{}).cancel()
			b.watch(WatchQuery{Services: []api.ServiceName{"orders", "users"}}).cancel()
		}
		synctest.Wait()
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.bells.services)+len(b.bells.namespaces) != 0 {
			t.Errorf("%v, %v", b.bells.services, b.bells.namespaces)
		}
	})
}

// Watches that are sent the same are given the same place for its encoding, whatever else
// they watch; what differs between two is never shared.
func TestWatchesShareTheirFrames(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		b.register("orders", "a")
		b.register("users", "u")
		type sent struct {
			f     api.Frame
			place *encoded.Frame
		}
		open := func(q WatchQuery) *[]sent {
			var list []sent
			ctx, cancel := context.WithCancel(context.Background())
			end := make(chan error)
			go func() {
				end <- b.WatchShared(ctx, q, func(f *api.Frame, e *encoded.Frame) error {
					list = append(list, sent{*f, e})
					return nil
				})
			}()
			t.Cleanup(func() { cancel(); <-end })
			synctest.Wait()
			return &list
		}
		streams := []*[]sent{
			open(WatchQuery{Services: []api.ServiceName{"orders"}}), open(WatchQuery{}),
			open(WatchQuery{Services: []api.ServiceName{"orders", "users"}}), open(WatchQuery{Services: []api.ServiceName{"orders"}}),
		}
		b.register("orders", "b")
		pass(api.BookmarkInterval)
		if err := b.Deregister(t.Context(), ikey("orders", "a"), 0); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		places := map[*encoded.Frame]string{}
		shared := 0
		for _, s := range streams {
			for _, one := range *s {
				if one.place == nil {
					t.Errorf("%s is nobody else's", one.f.Kind)
					continue
				}
				form := 0
				if one.f.More {
					form = 1
				}
				text, err := one.place.Bytes(form, encoded.NewBudget(1<<20), func() ([]byte, error) { return fmt.Appendf(nil, "%+v %+v", one.f, one.f.Instance), nil })
				if want := fmt.Sprintf("%+v %+v", one.f, one.f.Instance); err != nil || string(text) != want {
					t.Errorf("%s was sent for %s", text, want)
				}
				if places[one.place] != "" {
					shared++
				}
				places[one.place] = string(text)
			}
		}
		if shared < 12 {
			t.Errorf("only %d frames were shared", shared)
		}
	})
}
