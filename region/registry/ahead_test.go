package registry

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

// P5: a watch from a version that this node does not reach is told so after a second, in
// words, and starts over; it is not left in silence.
func TestAWatchFromTheFutureStartsOver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		b.register("orders", "a")
		pass(2 * refuteWindow)
		b.register("orders", "a")
		ahead := b.Stamp().Version
		ahead.Revision += 10
		s := b.watch(WatchQuery{From: ahead})
		if got := s.next(); got != "" {
			t.Errorf("%q before the node could catch up", got)
		}
		pass(aheadPatience)
		s.mu.Lock()
		reason := s.frames[0].Reason
		s.mu.Unlock()
		if got := s.next(); !strings.HasPrefix(got, "reset, ") || !strings.HasSuffix(got, "synced") || !strings.Contains(reason, "ahead of this node's history") {
			t.Errorf("%q because %q", got, reason)
		}
		if b.Stamp().Version.Epoch != ahead.Epoch {
			t.Error("long after the start, a client's word raised the epoch")
		}
	})
}

// P4, P5: a store that was put back to an older copy while the node was off shows by what
// its clients hold: the epoch changes, so that they start over instead of believing a mix.
// A made-up version can do that once, and right after the start only.
func TestAnOlderCopyOfTheStoreIsANewHistory(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		b.register("orders", "a")
		was := b.Stamp().Version
		held := was
		held.Revision += 3
		old := b.watch(WatchQuery{From: was})
		back := b.watch(WatchQuery{From: held})
		pass(aheadPatience)
		if got := back.next(); got != "reset, item a, synced" {
			t.Errorf("the client that was ahead: %q", got)
		}
		if got := old.next(); got != "synced, reset, item a, synced" {
			t.Errorf("another client: %q", got)
		}
		now := b.Stamp().Version
		if now.Compare(was) != api.Newer || now.Epoch == was.Epoch {
			t.Errorf("at %s, was %s", now, was)
		}
		again := now
		again.Revision += 10
		s := b.watch(WatchQuery{From: again})
		pass(aheadPatience)
		if got := s.next(); got != "reset, item a, synced" || b.Stamp().Version.Epoch != now.Epoch {
			t.Errorf("%q, and the epoch went from %s to %s", got, now.Epoch, b.Stamp().Version.Epoch)
		}
	})
}

// P4: a store that was wiped, or restored from before its last restore, stands at a lower generation than its
// clients. Soon after the start one of them lifts it above what they hold, or they would not believe it for ever. What is
// made up cannot use the numbers up.
func TestALowerGenerationIsLiftedAboveItsClients(t *testing.T) {
	for name, c := range map[string]struct {
		up   uint64
		late bool
		want uint64 // generations above the first
	}{
		"by two":               {up: 2, want: 3},
		"as far as is allowed": {up: refuteJump, want: refuteJump + 1},
		"further":              {up: refuteJump + 1},
		"from the end":         {up: 1<<64 - 2},
		"long after the start": {up: 2, late: true},
	} {
		bubble(t, func(t *testing.T) {
			b := start(t)
			b.register("orders", "a")
			was := b.Stamp().Version
			if c.late {
				pass(2 * refuteWindow)
				b.register("orders", "a")
			}
			held := api.Version{Region: was.Region, Epoch: api.Epoch{Generation: was.Epoch.Generation + c.up, Nonce: 7}, Revision: 900}
			s := b.watch(WatchQuery{From: held})
			pass(aheadPatience)
			if got := s.next(); got != "reset, item a, synced" {
				t.Errorf("%s: %q", name, got)
			}
			if got := b.Stamp().Version.Epoch.Generation; got != was.Epoch.Generation+c.want {
				t.Errorf("%s: generation %d after %d", name, got, was.Epoch.Generation)
			}
		})
	}
}

// memoryMark is a HighWater.
type memoryMark struct {
	v   api.Version
	err error
}

func (m *memoryMark) Load() (api.Version, error) { return m.v, m.err }
func (m *memoryMark) Save(v api.Version) error   { m.v = v; return m.err }

// P4: a store that is behind what the region had reached begins a new epoch at the start.
func TestAStoreBehindItsMarkBeginsANewEpoch(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mark := &memoryMark{}
		b := newBed(t, func(c *Config) { c.HighWater = mark })
		epoch, err := b.store.Epoch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		mark.v = api.Version{Region: "eu-west", Epoch: epoch, Revision: 1000}
		b.run()
		<-b.Loaded()
		if got := b.Stamp().Version; got.Compare(mark.v) != api.Newer {
			t.Errorf("at %s after %s", got, mark.v)
		}
		b.register("orders", "a")
		b.stop()
		<-b.ended
		b.ended <- nil
		if mark.v != b.Stamp().Version {
			t.Errorf("the mark is %s at the end, the head %s", mark.v, b.Stamp().Version)
		}
	})
}

// A mark that cannot be used, or that the store is level with, changes nothing.
func TestAMarkThatProvesNothingChangesNothing(t *testing.T) {
	for name, of := range map[string]func(v api.Version) *memoryMark{
		"none":           func(api.Version) *memoryMark { return &memoryMark{} },
		"unreadable":     func(api.Version) *memoryMark { return &memoryMark{err: errors.New("no disk")} },
		"level":          func(v api.Version) *memoryMark { return &memoryMark{v: v} },
		"another region": func(v api.Version) *memoryMark { v.Region = "us-east"; v.Revision = 99; return &memoryMark{v: v} },
	} {
		bubble(t, func(t *testing.T) {
			var mark memoryMark
			b := newBed(t, func(c *Config) { c.HighWater = &mark })
			img, err := b.store.Load(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			mark = *of(api.Version{Region: "eu-west", Epoch: img.Epoch, Revision: img.Revision})
			b.run()
			<-b.Loaded()
			if got := b.Stamp().Version.Epoch; got != img.Epoch {
				t.Errorf("%s: epoch %s, was %s", name, got, img.Epoch)
			}
		})
	}
}
