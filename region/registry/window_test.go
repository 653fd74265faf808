package registry

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/region/liveness/owner"
	"github.com/nearside/nearside/sdk/api"
)

// again ends the registry as a kill does, and starts another one on what is stored.
func (b *bed) again(change ...func(*Config)) *bed {
	b.t.Helper()
	b.stop()
	<-b.ended
	b.ended <- nil
	next := newBed(b.t, change...)
	next.store.swap(b.store.Store)
	next.run()
	<-next.Loaded()
	return next
}

func (b *bed) count(service string) int {
	b.t.Helper()
	return len(strings.Fields(strings.ReplaceAll(b.listed(service), "unknown", "")))
}

// P2, P7, P11: the brake's window outlives a node that is alone. It began anew with each start, so
// that one restart in a window let twice the share go, and a service's last instance.
func TestTheWindowOutlivesALoneNode(t *testing.T) {
	t.Run("a service's last one", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			b := start(t)
			b.registerMany("others", 20)
			b.register("orders", "a")
			b.register("orders", "b")
			b.beat(9*time.Second, "others", 0, 20)
			if got := b.count("orders"); got != 1 {
				t.Fatalf("%d of two silent instances are left, want the last one", got)
			}
			b = b.again()
			b.beat(20*time.Second, "others", 0, 20)
			if got := b.count("orders"); got != 1 {
				t.Errorf("%d instances are left of a service that lost one in the same window", got)
			}
			b.beat(time.Minute, "others", 0, 20) // and leaves when the window is over
			if got := b.count("orders"); got != 0 {
				t.Errorf("%d instances a window later", got)
			}
		})
	})
	t.Run("the share", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			b := start(t)
			for i := range 20 {
				b.registerMany(fmt.Sprintf("s%d", i), 5)
			}
			before := b.Snapshot().Counts().Total
			beat := func(d time.Duration, from int) {
				for end := time.Now().Add(d); time.Now().Before(end); pass(time.Second) {
					for i := from; i < 100; i++ {
						key := ikey(fmt.Sprintf("s%d", i/5), fmt.Sprintf("i%d", i%5))
						if _, err := b.Heartbeat(t.Context(), key, 0); err != nil {
							t.Fatalf("%s: %v", key, err)
						}
					}
				}
			}
			beat(62*time.Second, 0)
			beat(9*time.Second, 14)
			lost := before - b.Snapshot().Counts().Total
			if lost < 10 {
				t.Fatalf("%d of 14 silent instances left", lost)
			}
			b = b.again()
			beat(12*time.Second, 24)
			if got := before - b.Snapshot().Counts().Total; got > 15 {
				t.Errorf("%d of %d were evicted within one window, %d of them before a restart; at most 15 %% may be", got, before, lost)
			}
		})
	})
}

// The record of the window is written with the deletes alone, and taken back when the window is
// over: an idle region writes nothing, and a start long after finds nothing to hold anybody for.
func TestALoneNodeTakesTheWindowBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		b.registerMany("orders", 10)
		b.beat(9*time.Second, "orders", 1, 10)
		kept := func() bool {
			img, err := b.store.Load(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, rec := range img.Records {
				if rec.Key == owner.BeatKey {
					return true
				}
			}
			return false
		}
		if !kept() {
			t.Fatal("the window is not on record")
		}
		b = b.again()
		b.beat(3*time.Minute, "orders", 1, 10)
		if kept() {
			t.Error("the window is on record still, three minutes later")
		}
		at := b.Stamp().Version.Revision
		b.beat(5*time.Minute, "orders", 1, 10)
		if now := b.Stamp().Version.Revision; now != at {
			t.Errorf("%d commits of an idle region", now-at)
		}
		if p := b.brakeState(); p.Evicted != 0 {
			t.Errorf("%+v", api.Protection(p))
		}
	})
}
