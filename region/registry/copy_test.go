package registry

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/region/store/memstore"
	"github.com/nearside/nearside/sdk/api"
)

// copyKeeper is a Copy in memory.
type copyKeeper struct {
	img   store.Image
	at    time.Time
	err   error
	saves int
}

func (k *copyKeeper) Load() (store.Image, time.Time, error) { return k.img, k.at, k.err }

func (k *copyKeeper) Save(img store.Image, at time.Time) error {
	k.img, k.at = img, at
	k.saves++
	return nil
}

// awayStore answers nothing until it is back.
type awayStore struct {
	store.Store
	back chan struct{}
}

func (s *awayStore) away() error {
	select {
	case <-s.back:
		return nil
	default:
		return store.ErrUnavailable
	}
}

func (s *awayStore) Load(ctx context.Context) (store.Image, error) {
	if err := s.away(); err != nil {
		return store.Image{}, err
	}
	return s.Store.Load(ctx)
}

func (s *awayStore) Commit(ctx context.Context, ops []store.Op) (uint64, error) {
	if err := s.away(); err != nil {
		return 0, err
	}
	return s.Store.Commit(ctx, ops)
}

func (s *awayStore) Barrier(ctx context.Context) (uint64, error) {
	if err := s.away(); err != nil {
		return 0, err
	}
	return s.Store.Barrier(ctx)
}

func (s *awayStore) Epoch(ctx context.Context) (api.Epoch, error) {
	if err := s.away(); err != nil {
		return api.Epoch{}, err
	}
	return s.Store.Epoch(ctx)
}

// written is a store with two instances of web, and the copy that a registry on it left behind.
func written(t *testing.T) (*memstore.Store, *copyKeeper, *markKeeper) {
	t.Helper()
	m, k, marks := newMemstore(t), &copyKeeper{}, &markKeeper{}
	b := newBed(t, func(c *Config) { c.Copy, c.HighWater = k, marks })
	b.store.swap(m)
	b.run()
	<-b.Loaded()
	b.registerMany("web", 2)
	pass(11 * time.Second)
	b.register("web", "late") // in no copy but the one of a clean stop
	pass(2 * time.Second)     // its revision is marked
	kept := &copyKeeper{img: k.img, at: k.at}
	b.stop()
	synctest.Wait()
	return m, kept, marks
}

type markKeeper struct{ v api.Version }

func (m *markKeeper) Load() (api.Version, error) { return m.v, nil }
func (m *markKeeper) Save(v api.Version) error   { m.v = v; return nil }

// restarted is a new registry on the store, which is away, with the copy.
func restarted(t *testing.T, m *memstore.Store, k *copyKeeper, marks *markKeeper, change ...func(*Config)) (*bed, func()) {
	t.Helper()
	away := &awayStore{Store: m, back: make(chan struct{})}
	b := newBed(t, append([]func(*Config){func(c *Config) {
		c.Store, c.Copy = away, k
		if marks != nil {
			c.HighWater = &markKeeper{v: marks.v}
		}
	}}, change...)...)
	b.run()
	return b, func() { close(away.back); b.StoreChanged(); pass(4 * time.Second) }
}

// P3, P10, P4, P2: a registry that starts while its store is away answers nothing at first, then
// from the copy, labelled with its age; heartbeats go on, writes are refused, nobody is evicted; the store's
// content replaces it.
func TestStartsFromTheCopyWhileTheStoreIsAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m, k, marks := written(t)
		if n := len(k.img.Records); n != 2 {
			t.Fatalf("the copy holds %d records", n)
		}
		pass(time.Hour)
		b, back := restarted(t, m, k, marks)
		pass(time.Second)
		_, _, err := b.ListInstances(t.Context(), InstancesQuery{Service: "web"})
		b.wantCode(err, api.CodeUnavailable)
		pass(3 * time.Second)
		list, st, err := b.ListInstances(t.Context(), InstancesQuery{Service: "web"})
		if err != nil || len(list.Instances) != 2 {
			t.Fatalf("from the copy: %+v, %v", list, err)
		}
		if st.Source != api.SourceSnapshot || st.Age < time.Hour || st.Age > time.Hour+time.Minute {
			t.Errorf("labelled %+v", st)
		}
		info, _, err := b.RegionInfo(t.Context(), "eu-west")
		if err != nil || info.Source != api.SourceSnapshot || info.State != api.AgeExpired || info.AgeMS < time.Hour.Milliseconds() {
			t.Errorf("the region says %+v, %v", info, err)
		}
		ready := b.Readiness()
		if ready.Ready || !strings.HasPrefix(ready.Checks[0].Cause, "read-only, from the copy of ") {
			t.Errorf("%+v", ready)
		}
		if _, err := b.Heartbeat(t.Context(), ikey("web", "i0"), 0); err != nil {
			t.Errorf("heartbeat: %v", err)
		}
		_, err = b.Heartbeat(t.Context(), ikey("web", "late"), 0)
		b.wantCode(err, api.CodeUnavailable) // not 404: it is registered
		_, _, err = b.Get(t.Context(), ikey("web", "late"), ReadOptions{})
		b.wantCode(err, api.CodeUnavailable) // P1: the same for readers
		_, _, err = b.ListInstances(t.Context(), InstancesQuery{Service: "later"})
		b.wantCode(err, api.CodeUnavailable)
		_, _, err = b.Resolve(t.Context(), ResolveQuery{Service: "later"})
		b.wantCode(err, api.CodeUnavailable)
		_, _, err = b.Register(t.Context(), ikey("web", "i0"), reg())
		b.wantCode(err, api.CodeUnavailable)
		b.wantCode(b.Deregister(t.Context(), ikey("web", "i0"), 0), api.CodeUnavailable)
		_, _, err = b.ListInstances(t.Context(), InstancesQuery{Service: "web", ReadOptions: ReadOptions{Strong: true}})
		b.wantCode(err, api.CodeUnavailable)
		fresh := b.watch(WatchQuery{Services: []api.ServiceName{"web"}})
		if got := fresh.next(); got != "item i0, item i1, synced" {
			t.Errorf("a watch from the copy: %s", got)
		}
		seen := b.watch(WatchQuery{Services: []api.ServiceName{"web"}, From: marks.v})
		b.wantCode(<-seen.end, api.CodeUnavailable) // no reset to less than it has seen
		seen.end <- nil
		pass(10 * time.Minute) // far beyond every TTL
		if got := b.listed("web"); got != "i0 i1" {
			t.Errorf("after ten minutes: %s", got)
		}
		if hw := b.cfg.HighWater.(*markKeeper).v; hw != marks.v {
			t.Errorf("the mark fell to %s", hw)
		}
		back()
		if got := b.listed("web"); got != "i0 i1 late" {
			t.Errorf("after the store came back: %s", got)
		}
		_, _, err = b.Get(t.Context(), ikey("web", "never"), ReadOptions{})
		b.wantCode(err, api.CodeInstanceNotFound)
		_, st, _ = b.ListInstances(t.Context(), InstancesQuery{Service: "web"})
		if st.Source != api.SourceMemory || st.Age != 0 || st.Version.Epoch != marks.v.Epoch {
			t.Errorf("labelled %+v", st)
		}
		if got := fresh.next(); !strings.HasPrefix(got, "reset, item i0") || !strings.HasSuffix(got, "synced") || !strings.Contains(got, "late") {
			t.Errorf("the watch went on with %s", got)
		}
		if _, err := b.Heartbeat(t.Context(), ikey("web", "late"), 0); err != nil {
			t.Errorf("everyone has a full ttl: %v", err)
		}
	})
}

// P4: a store that holds less than the copy showed has lost history, and begins a new epoch; also
// without the mark.
func TestStoreBehindTheCopyBeginsANewEpoch(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, k, _ := written(t)
		empty := newMemstore(t)
		b, back := restarted(t, empty, k, nil)
		pass(4 * time.Second)
		was := b.Stamp().Version
		if b.listed("web") != "i0 i1" {
			t.Fatal("the copy is not shown")
		}
		back()
		if now := b.Stamp().Version; now.Compare(was) != api.Newer {
			t.Errorf("from %s to %s", was, now)
		}
		if got := b.listed("web"); got != "unknown" {
			t.Errorf("listed %s", got)
		}
	})
}

// A copy that is damaged, or of a history that the region has left, is passed over.
func TestCopiesThatAreNotShown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m, good, marks := written(t)
		left := *marks
		left.v.Epoch.Generation++
		for name, c := range map[string]struct {
			copy  copyKeeper
			marks *markKeeper
		}{
			"damaged": {copyKeeper{err: errors.New("damaged")}, marks},
			"none":    {copyKeeper{}, marks},
			"history": {copyKeeper{img: good.img, at: good.at}, &left},
		} {
			b, back := restarted(t, m, &c.copy, c.marks)
			pass(5 * time.Second)
			_, _, err := b.ListInstances(t.Context(), InstancesQuery{Service: "web"})
			if api.CodeOf(err) != api.CodeUnavailable {
				t.Errorf("%s: %v", name, err)
			}
			back()
			if got := b.listed("web"); got != "i0 i1 late" {
				t.Errorf("%s: after the store came back: %s", name, got)
			}
		}
	})
}

// P8: the copy is saved when something changed, every ten seconds at most, and at the end.
func TestCopyIsSavedNowAndThen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		k := &copyKeeper{}
		b := start(t, func(c *Config) { c.Copy = k })
		synctest.Wait()
		b.register("web", "i0")
		pass(time.Second)
		first := k.saves
		pass(2 * time.Second)
		if k.saves != first {
			t.Errorf("saved %d times within three seconds", k.saves)
		}
		b.beat(21*time.Second, "web", 0, 1)
		if k.saves != first+1 || len(k.img.Records) != 1 {
			t.Errorf("saved %d times, %d records", k.saves, len(k.img.Records))
		}
		b.beat(6*time.Minute, "web", 0, 1)
		if k.saves != first+2 {
			t.Errorf("saved %d times after six quiet minutes", k.saves)
		}
		b.stop()
		synctest.Wait()
		if k.saves != first+3 {
			t.Errorf("saved %d times after the end", k.saves)
		}
	})
}

// P8, P1: a node among others that answers from its copy does not know who owns liveness. It
// says at once that heartbeats do not count here, and keeps nothing of them.
func TestHeartbeatsAmongNodesBesideACopy(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m, k, marks := written(t)
		b, back := restarted(t, m, k, marks, func(c *Config) { c.Nodes = unreachable{} })
		pass(copyPatience + time.Second)
		begin := time.Now()
		for range 100 {
			_, err := b.Heartbeat(t.Context(), ikey("web", "i0"), 0)
			if api.CodeOf(err) != api.CodeUnavailable {
				t.Fatalf("%v", err)
			}
		}
		if waited := time.Since(begin); waited > 0 {
			t.Errorf("they waited %s", waited)
		}
		if n := len(b.forward.waiting); n != 0 {
			t.Errorf("%d heartbeats are kept", n)
		}
		back()
		pass(5 * time.Second)
		if _, err := b.Heartbeat(t.Context(), ikey("web", "i0"), 0); err != nil {
			t.Error(err)
		}
	})
}

// unreachable is nodes none of which answers.
type unreachable struct{}

func (unreachable) Report(context.Context, string, string, string, api.NodeReport) (api.NodeAnswer, error) {
	return api.NodeAnswer{}, errors.New("no route")
}
