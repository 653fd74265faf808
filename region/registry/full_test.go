package registry

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// P10: on a full store everything goes on that needs no space: who leaves can leave, and
// the dead are evicted. Watchers are told, without the cause that there was no space for.
func TestFullStoreStillLetsInstancesLeave(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		b.registerMany("orders", 20)
		s := b.watch(WatchQuery{})
		s.next()
		b.store.SetFull(true)
		_, _, err := b.Register(t.Context(), ikey("orders", "new"), reg())
		b.wantCode(err, api.CodeStorageFull)
		b.register("orders", "i0") // refreshing needs no space

		if err := b.Deregister(t.Context(), ikey("orders", "i19"), 0); err != nil {
			t.Errorf("deregister: %v", err)
		}
		if got := s.next(); got != "delete:unknown i19" {
			t.Errorf("watch told %q", got)
		}
		b.beat(8*time.Second, "orders", 1, 19)
		if got := s.next(); got != "delete:unknown i0" {
			t.Errorf("watch told %q", got)
		}
		if img, err := b.store.Load(t.Context()); err != nil || len(img.Records) != 18 {
			t.Errorf("%d records, %v", len(img.Records), err)
		}
		if n := b.counts.evictions.Load(); n != 1 {
			t.Errorf("%d evicted", n)
		}
	})
}

// P1: the write that crosses the quota happens and is refused all the same. Repeating it
// is safe, and a deregistration does not say that there was nothing to remove.
func TestTheWriteThatFillsTheStoreIsSafeToRepeat(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		b.store.SetFull(true)
		b.store.LoseAnswers(1)
		_, _, err := b.Register(t.Context(), ikey("orders", "a"), reg())
		b.wantCode(err, api.CodeStorageFull)
		synctest.Wait()
		in, created, err := b.Register(t.Context(), ikey("orders", "a"), reg())
		if err != nil || created || in.Incarnation != 1 {
			t.Errorf("%+v %v %v", in, created, err)
		}
		b.store.LoseAnswers(1)
		if err := b.Deregister(t.Context(), ikey("orders", "a"), 0); err != nil {
			t.Errorf("deregister: %v", err)
		}
		b.wantCode(b.Deregister(t.Context(), ikey("orders", "a"), 0), api.CodeInstanceNotFound)
	})
}

// P10: a full store is told for as long as it is full, also when nobody writes or when
// deletes succeed; it is noticed without a write of anybody's that it has space again, and
// asking leaves nothing behind.
func TestReadinessTellsAFullStoreUntilItHasSpace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		b.registerMany("orders", 2)
		b.store.SetFull(true)
		_, _, err := b.Register(t.Context(), ikey("orders", "new"), reg())
		b.wantCode(err, api.CodeStorageFull)
		told := func() bool { r := b.Readiness(); return !r.Ready && !r.Checks[1].OK && r.Checks[1].Cause != "" }
		if !told() || b.Stamp().Age != 0 {
			t.Errorf("%+v, age %s", b.Readiness(), b.Stamp().Age)
		}
		if err := b.Deregister(t.Context(), ikey("orders", "i1"), 0); err != nil {
			t.Error(err)
		}
		for range 10 {
			b.beat(time.Minute, "orders", 0, 1)
			if !told() {
				t.Fatalf("%+v", b.Readiness())
			}
		}
		b.store.SetFull(false)
		b.beat(spaceInterval+time.Second, "orders", 0, 1)
		if r := b.Readiness(); !r.Ready {
			t.Errorf("%+v", r)
		}
		before := b.Stamp().Version.Revision
		if img, err := b.store.Load(t.Context()); err != nil || len(img.Records) != 1 {
			t.Errorf("%d records, %v", len(img.Records), err)
		}
		b.beat(time.Minute, "orders", 0, 1)
		if now := b.Stamp().Version.Revision; now != before {
			t.Errorf("a store with space is written to: revision %d, was %d", now, before)
		}
	})
}

// P10: only the store's own silence counts against it.
func TestACallerThatHangsUpSaysNothingOfTheStore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if err := b.RaiseEpoch(gone, 5); err == nil {
			t.Error("raised for a caller that is gone")
		}
		if _, _, err := b.Register(gone, ikey("orders", "a"), reg()); err == nil {
			t.Error("registered for a caller that is gone")
		}
		if r := b.Readiness(); !r.Ready || b.Stamp().Age != 0 {
			t.Errorf("%+v, age %s", r, b.Stamp().Age)
		}
		b.store.SetUnavailable(true)
		if err := b.RaiseEpoch(t.Context(), 5); api.CodeOf(err) != api.CodeUnavailable || b.Readiness().Ready {
			t.Errorf("%v, %+v", err, b.Readiness())
		}
	})
}
