package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

// P5: items, synced, then every change of the watched services, each once, in order, with
// the changes of one revision marked to be applied together.
func TestWatchTellsEverythingOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		b.registerMany("orders", 2)
		b.register("users", "u")
		one := b.watch(WatchQuery{Services: []api.ServiceName{"orders", "orders", "nothing"}})
		all := b.watch(WatchQuery{})
		other := b.watch(WatchQuery{Namespace: "shop"})
		if f := one.last(); f.Kind != api.FrameSynced || f.Version != b.Stamp().Version || len(f.Addresses) != 1 || f.Origins != nil {
			t.Errorf("%+v", f)
		}
		for s, want := range map[*stream]string{one: "item i0, item i1, synced", all: "item i0, item i1, item u, synced", other: "synced"} {
			if got := s.next(); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
		b.register("users", "v")
		if _, err := b.SetStatus(t.Context(), ikey("orders", "i0"), api.StatusChange{Status: api.StatusWarning}); err != nil {
			t.Fatal(err)
		}
		if err := b.Deregister(t.Context(), ikey("orders", "i1"), 0); err != nil {
			t.Fatal(err)
		}
		if _, _, err := b.Register(t.Context(), api.InstanceKey{Namespace: "shop", Service: "carts", ID: "c"}, reg()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if f := other.last(); f.Namespace != "shop" || f.Service != "carts" {
			t.Errorf("%+v", f)
		}
		if f := one.last(); f.Namespace != "" || f.Op != api.OpDelete || f.Instance.ID != "i1" || f.Instance.Address == "" {
			t.Errorf("%+v", f)
		}
		for s, want := range map[*stream]string{
			one: "put:status i0, delete:deregister i1", all: "put:register v, put:status i0, delete:deregister i1", other: "put:register c",
		} {
			if got := s.next(); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
		// One commit with several changes.
		var ops []store.Op
		for _, k := range []api.InstanceKey{ikey("orders", "x"), ikey("orders", "y"), ikey("users", "z")} {
			in := b.merge(nil, k, must(reg().Normalize()))
			value, err := catalog.EncodeInstance(in)
			if err != nil {
				t.Fatal(err)
			}
			ops = append(ops, store.Op{Key: catalog.InstanceRecordKey(k), Value: value})
		}
		if _, err := b.store.Commit(t.Context(), ops); err != nil {
			t.Fatal(err)
		}
		for s, want := range map[*stream]string{one: "put:register x+, put:register y", all: "put:register x+, put:register y+, put:register z", other: ""} {
			if got := s.next(); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// P5: a quiet watch proves every five seconds that it lives, with the newest version, also
// when the changes were of other services.
func TestBookmarks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		s := b.watch(WatchQuery{Services: []api.ServiceName{"orders"}})
		s.next()
		b.register("users", "u")
		pass(api.BookmarkInterval)
		if f := s.last(); f.Kind != api.FrameBookmark || f.Version != b.Stamp().Version {
			t.Errorf("%+v at %s", f, b.Stamp().Version)
		}
		pass(3 * api.BookmarkInterval)
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.frames) != 4 {
			t.Errorf("%d frames in four intervals", len(s.frames))
		}
	})
}

// P5: resuming continues without items; a version that cannot be resumed from is told.
func TestResume(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		b.register("orders", "a")
		v := b.Stamp().Version
		b.register("orders", "b")
		b.register("users", "u")
		if err := b.Deregister(t.Context(), ikey("orders", "a"), 0); err != nil {
			t.Fatal(err)
		}
		tests := []struct {
			name string
			from api.Version
			want string
		}{
			{"from before", v, "synced, put:register b, delete:deregister a"},
			{"from now", b.Stamp().Version, "synced"},
			{"another epoch", api.Version{Region: v.Region, Epoch: api.Epoch{Generation: v.Epoch.Generation, Nonce: v.Epoch.Nonce + 1}, Revision: v.Revision}, "reset, item b, synced"},
			{"another region", api.Version{Region: "us-east", Epoch: v.Epoch, Revision: v.Revision}, "reset, item b, synced"},
			{"before history", api.Version{Region: v.Region, Epoch: v.Epoch, Revision: 0}, "reset, item b, synced"},
		}
		for _, tt := range tests {
			s := b.watch(WatchQuery{Services: []api.ServiceName{"orders"}, From: tt.from})
			if got := s.next(); got != tt.want {
				t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
			}
		}
		// P4: a version a little ahead of this node is waited for.
		ahead := b.Stamp().Version
		ahead.Revision++
		s := b.watch(WatchQuery{Services: []api.ServiceName{"orders"}, From: ahead})
		b.register("orders", "c")
		if got := s.next(); got != "synced" {
			t.Errorf("%q", got)
		}
	})
}

// P5: one slow reader waits alone, and learns by a reset that it fell off the history.
func TestSlowReader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		b.mu.Lock()
		b.history = catalog.NewHistory(8, b.head.Load().snap.Version().Revision)
		b.mu.Unlock()
		slow := b.watch(WatchQuery{})
		fast := b.watch(WatchQuery{})
		slow.next()
		fast.next()
		gate := make(chan struct{})
		slow.mu.Lock()
		slow.gate = gate
		slow.mu.Unlock()
		var want []string
		for i := range 20 {
			b.register("orders", fmt.Sprintf("i%02d", i))
			want = append(want, fmt.Sprintf("put:register i%02d", i))
			synctest.Wait()
		}
		if got := fast.next(); got != strings.Join(want, ", ") {
			t.Errorf("fast: %q", got)
		}
		slow.mu.Lock()
		slow.gate = nil
		slow.mu.Unlock()
		close(gate)
		got := slow.next()
		var items []string
		for i := range 20 {
			items = append(items, fmt.Sprintf("item i%02d", i))
		}
		if got != "put:register i00, reset, "+strings.Join(items, ", ")+", synced" {
			t.Errorf("slow: %q", got)
		}
	})
}

// P5, P8: a slow watch holds one page of changes, not a copy of all that it has yet to send;
// what was forgotten meanwhile is announced by a reset.
func TestSlowWatchHoldsLittle(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		from := b.Stamp().Version
		b.registerMany("orders", 2000)
		b.registerMany("users", 10)
		gate := make(chan struct{})
		s := b.watch(WatchQuery{From: from})
		if got := strings.Count(s.next(), "put:register"); got != 2010 {
			t.Errorf("a fast one got %d changes", got)
		}
		slow := &stream{t: t, gate: gate}
		ctx, cancel := context.WithCancel(t.Context())
		end := make(chan error, 1)
		go func() { end <- b.Watch(ctx, WatchQuery{From: from}, slow.take) }()
		few := &stream{t: t}
		go func() {
			end <- b.Watch(ctx, WatchQuery{From: from, Services: []api.ServiceName{"users"}}, few.take)
		}()
		if got := few.next(); !strings.HasPrefix(got, "synced, put:register i0, ") || strings.Count(got, "put") != 10 {
			t.Errorf("a watch of one service got %q", got)
		}
		gate <- struct{}{} // synced
		synctest.Wait()    // it has read its first page and waits with the first change of it
		b.mu.Lock()
		b.history = catalog.NewHistory(8, b.head.Load().snap.Version().Revision)
		b.mu.Unlock()
		close(gate)
		before, after, reset := strings.Cut(slow.next(), ", reset, ")
		if got := strings.Count(before, "put:register"); got == 0 || got > 256 || !reset || strings.Count(after, "item") != 2010 {
			t.Errorf("%d changes, then reset %v with %d items", got, reset, strings.Count(after, "item"))
		}
		cancel()
		<-end
		<-end
	})
}

// P4, P5: when history has a gap or begins anew, the stream says so and starts over.
func TestResets(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		b.register("orders", "a")
		s := b.watch(WatchQuery{})
		s.next()

		if err := b.RaiseEpoch(t.Context(), 7); err != nil {
			t.Fatal(err)
		}
		if got := s.next(); got != "reset, item a, synced" {
			t.Errorf("epoch raised: %q", got)
		}

		// The node loses its place in the store's history while others write.
		b.store.mu.Lock()
		inner := b.store.Store
		b.store.mu.Unlock()
		b.store.breakWatch <- fmt.Errorf("test: %w", store.ErrCompacted)
		pass(time.Second)
		b.register("orders", "b")
		pass(time.Second)
		if got := s.next(); got != "put:register b" {
			t.Errorf("reload without a gap: %q", got)
		}

		// The store's data is lost: a new store, with a lower revision and another epoch.
		fresh := newMemstore(t)
		was := b.Stamp().Version
		b.store.swap(fresh)
		b.store.breakWatch <- fmt.Errorf("test: %w", store.ErrUnavailable)
		pass(5 * time.Second)
		now := b.Stamp().Version
		if now.Compare(was) != api.Newer {
			t.Errorf("%s after %s", now, was)
		}
		if got := s.next(); got != "reset, synced" {
			t.Errorf("data lost: %q", got)
		}
		_ = inner.Close()
		_, err := b.Heartbeat(t.Context(), ikey("orders", "a"), 0)
		b.wantCode(err, api.CodeInstanceNotFound)
	})
}

// P5: a watch of all namespaces tells the changes of each, and bookmarks as often as it asks.
func TestWatchOfAllNamespaces(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		b.register("orders", "a")
		s := b.watch(WatchQuery{Namespace: api.AllNamespaces, Bookmark: time.Second})
		if got := s.next(); got != "item a, synced" {
			t.Errorf("%q", got)
		}
		if _, _, err := b.Register(t.Context(), api.InstanceKey{Namespace: "shop", Service: "carts", ID: "c"}, reg()); err != nil {
			t.Fatal(err)
		}
		b.register("orders", "d")
		synctest.Wait()
		if got := s.next(); got != "put:register c, put:register d" {
			t.Errorf("%q", got)
		}
		pass(2500 * time.Millisecond)
		if n := len(s.frames); n != 2 {
			t.Errorf("%d bookmarks in two and a half seconds", n)
		}
		for _, q := range []WatchQuery{
			{Namespace: api.AllNamespaces, Services: []api.ServiceName{"orders"}}, {Namespace: "sh*"}, {Bookmark: time.Minute}, {Bookmark: -1},
		} {
			if err := b.Watch(t.Context(), q, func(api.Frame) error { return nil }); api.CodeOf(err) != api.CodeInvalidField {
				t.Errorf("%+v: %v", q, err)
			}
		}
	})
}

// P4, P12: a federation that runs on its own raises the epoch above what others hold, as often as it
// asks, and only with its grant.
func TestEpochRaisedByRequest(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		was := b.Stamp().Version.Epoch
		raised, _, err := b.RaiseEpochFor(t.Context(), "eu-west", api.EpochRaise{Above: was.Generation + 3})
		if err != nil || raised.Epoch.Generation != was.Generation+4 || raised.Epoch != b.Stamp().Version.Epoch {
			t.Fatalf("%+v, %v", raised, err)
		}
		again, _, err := b.RaiseEpochFor(t.Context(), "eu-west", api.EpochRaise{Above: was.Generation + 3})
		if err != nil || again.Epoch != raised.Epoch {
			t.Errorf("%+v, %v: repeating it changes nothing", again, err)
		}
		for want, raise := range map[api.Code]func() error{
			api.CodeRegionNotFound: func() error {
				_, _, err := b.RaiseEpochFor(t.Context(), "us-east", api.EpochRaise{Above: 9})
				return err
			},
			api.CodeInvalidField: func() error {
				_, _, err := b.RaiseEpochFor(t.Context(), "eu-west", api.EpochRaise{Above: 1 << 40})
				return err
			},
			api.CodeUnauthorized: func() error {
				closed := start(t, func(c *Config) { c.Authorizer = TokenAccess([32]byte{1}) })
				_, _, err := closed.RaiseEpochFor(t.Context(), "eu-west", api.EpochRaise{Above: 9})
				return err
			},
		} {
			if err := raise(); api.CodeOf(err) != want {
				t.Errorf("%v, want %s", err, want)
			}
		}
	})
}

func TestWatchLimits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, func(c *Config) { c.MaxWatches = 2 })
		s := b.watch(WatchQuery{})
		b.watch(WatchQuery{})
		b.wantCode(b.Watch(t.Context(), WatchQuery{}, nil), api.CodeTooManyRequests)
		s.cancel()
		synctest.Wait()
		b.watch(WatchQuery{})
		many := make([]api.ServiceName, api.MaxWatchServices+1)
		b.wantCode(b.Watch(t.Context(), WatchQuery{Services: many}, nil), api.CodeInvalidField)
		b.wantCode(b.Watch(t.Context(), WatchQuery{Services: []api.ServiceName{"A"}}, nil), api.CodeInvalidField)
		b.wantCode(b.Watch(t.Context(), WatchQuery{Namespace: "A"}, nil), api.CodeInvalidField)
	})
}

// A watch ends with its reader, and with the node.
func TestWatchEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		gone := errors.New("the reader went away")
		if err := b.Watch(t.Context(), WatchQuery{}, func(api.Frame) error { return gone }); !errors.Is(err, gone) {
			t.Errorf("%v", err)
		}
		end := make(chan error, 1)
		go func() { end <- b.Watch(t.Context(), WatchQuery{}, func(api.Frame) error { return nil }) }()
		synctest.Wait()
		b.stop()
		b.wantCode(<-end, api.CodeShuttingDown)
		if n := b.watches.Load(); n != 0 {
			t.Errorf("%d watches are left", n)
		}
	})
}

// Other regions' knowledge comes between items and synced, again when it changes, and
// ends with an empty summary.
func TestWatchFar(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b, f := federated(t)
		b.register("orders", "a")
		f.set("us-east", "orders", 7, "u1")
		f.set("ap-south", "orders", 3, "s1")
		f.set("us-east", "payments", 8, "p1")
		one := b.watch(WatchQuery{Services: []api.ServiceName{"orders"}, Far: true})
		all := b.watch(WatchQuery{Far: true})
		near := b.watch(WatchQuery{Services: []api.ServiceName{"orders"}})
		last := one.last()
		if last.Kind != api.FrameSynced || len(last.Origins) != 2 || last.Origins[1].Addresses == nil {
			t.Errorf("%+v", last)
		}
		for s, want := range map[*stream]string{
			one:  "item a, replica ap-south/orders 3, replica us-east/orders 7, synced",
			all:  "item a, replica ap-south/orders 3, replica us-east/orders 7, replica us-east/payments 8, synced",
			near: "item a, synced",
		} {
			if got := s.next(); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
		f.set("us-east", "payments", 9, "p1", "p2")
		f.set("us-east", "orders", 9, "u1", "u2")
		f.set("ap-south", "orders", 0)
		b.register("orders", "b")
		for s, want := range map[*stream][]string{
			one:  {"put:register b", "replica ap-south/orders gone", "replica us-east/orders 9"},
			all:  {"put:register b", "replica ap-south/orders gone", "replica us-east/orders 9", "replica us-east/payments 9"},
			near: {"put:register b"},
		} {
			got := strings.Split(s.next(), ", ")
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("%q, want %q", got, want)
			}
		}
		pass(api.BookmarkInterval)
		if f := one.last(); f.Kind != api.FrameBookmark || len(f.Origins) != 2 {
			t.Errorf("%+v", f)
		}
		// P5: after a reset everything is told again.
		one.next()
		if err := b.RaiseEpoch(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
		if got := one.next(); got != "reset, item a, item b, replica us-east/orders 9, synced" {
			t.Errorf("%q", got)
		}
	})
}

// P3: what another region has is told again when it changes without a new revision, as when
// the federation stops holding instances of a region that was cut off. What stays the same
// is not repeated.
func TestWatchTellsAFarRowThatChangedUnderItsRevision(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b, f := federated(t)
		f.set("us-east", "orders", 7, "u1", "u2")
		f.set("us-east", "payments", 8, "p1")
		s := b.watch(WatchQuery{Far: true})
		s.next()
		f.set("us-east", "orders", 7, "u1")
		if got := s.next(); got != "replica us-east/orders 7" {
			t.Errorf("told %q", got)
		}
		f.set("ap-south", "users", 1, "a1")
		if got := s.next(); got != "replica ap-south/users 1" {
			t.Errorf("told %q", got)
		}
	})
}
