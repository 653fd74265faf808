package kv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/region/store/memstore"
	"github.com/nearside/nearside/sdk/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bed is a table on a real registry on a store in memory.
type bed struct {
	*Table
	t        *testing.T
	registry *registry.Registry
	store    *memstore.Store
}

// withTable runs test in fake time.
func withTable(t *testing.T, cfg Config, test func(t *testing.T, b *bed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m, err := memstore.New("eu-west")
		if err != nil {
			t.Fatal(err)
		}
		b := newNode(t, cfg, m)
		test(t, b)
	})
}

// newNode starts a node on a store; it ends with the test.
func newNode(t *testing.T, cfg Config, m *memstore.Store) *bed {
	t.Helper()
	r, err := registry.New(registry.Config{Region: "eu-west", Store: m})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Registry = r
	table, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	<-r.Loaded()
	return &bed{Table: table, t: t, registry: r, store: m}
}

func (b *bed) put(key, value string, cas ...uint64) (uint64, error) {
	q := PutQuery{Key: key, Value: []byte(value)}
	if len(cas) > 0 {
		q.CAS = &cas[0]
	}
	w, _, err := b.Put(b.t.Context(), q)
	return w.Revision, err
}

func (b *bed) mustPut(key, value string, cas ...uint64) uint64 {
	b.t.Helper()
	revision, err := b.put(key, value, cas...)
	if err != nil {
		b.t.Fatalf("put %s: %v", key, err)
	}
	return revision
}

func (b *bed) delete(key string, cas ...uint64) error {
	q := DeleteQuery{Key: key}
	if len(cas) > 0 {
		q.CAS = &cas[0]
	}
	_, err := b.Delete(b.t.Context(), q)
	return err
}

// get returns "value@revision/created", or the code of the error.
func (b *bed) get(ns api.Namespace, key string, o registry.ReadOptions) string {
	e, _, err := b.Get(b.t.Context(), KeyQuery{Namespace: ns, Key: key, ReadOptions: o})
	if err != nil {
		return string(api.CodeOf(err))
	}
	return fmt.Sprintf("%s@%d/%d", e.Value, e.Revision, e.Created)
}

func (b *bed) want(got, want string) {
	b.t.Helper()
	if got != want {
		b.t.Errorf("got %q, want %q", got, want)
	}
}

func (b *bed) wantCode(err error, code api.Code) {
	b.t.Helper()
	if got := api.CodeOf(err); got != code {
		b.t.Errorf("error %v, want code %q", err, code)
	}
}

// at returns the revision that a refused compare-and-set names.
func at(err error) string {
	var e *api.Error
	if !errors.As(err, &e) || e.Revision == nil {
		return "none"
	}
	return fmt.Sprint(*e.Revision)
}

// P1: what was acknowledged is read, on this node at once; revisions rise; the revision of
// creation stays until the key is deleted.
func TestLifeOfAKey(t *testing.T) {
	withTable(t, Config{}, func(t *testing.T, b *bed) {
		strong := registry.ReadOptions{Strong: true}
		b.want(b.get("", "a/b", strong), "key_not_found")
		first := b.mustPut("a/b", "1")
		b.want(b.get("", "a/b", registry.ReadOptions{}), fmt.Sprintf("1@%d/%d", first, first))
		second := b.mustPut("a/b", "\x00\xff")
		third := b.mustPut("a/b", "")
		if first >= second || second >= third {
			t.Errorf("revisions %d %d %d", first, second, third)
		}
		b.want(b.get("default", "a/b", strong), fmt.Sprintf("@%d/%d", third, first))
		b.want(b.get("shop", "a/b", strong), "key_not_found")
		if err := b.delete("a/b"); err != nil {
			t.Error(err)
		}
		b.wantCode(b.delete("a/b"), api.CodeKeyNotFound)
		again := b.mustPut("a/b", "2")
		b.want(b.get("", "a/b", registry.ReadOptions{MinRevision: again}), fmt.Sprintf("2@%d/%d", again, again))
		b.want(b.get("", "a/b", registry.ReadOptions{MinRevision: again + 100}), "revision_not_reached")
	})
}

func TestCompareAndSet(t *testing.T) {
	withTable(t, Config{}, func(t *testing.T, b *bed) {
		first := b.mustPut("a", "1", 0)
		_, err := b.put("a", "x", 0)
		b.wantCode(err, api.CodeConflict)
		b.want(at(err), fmt.Sprint(first))
		_, err = b.put("a", "x", first+1)
		b.wantCode(err, api.CodeConflict)
		second := b.mustPut("a", "2", first)
		_, err = b.put("a", "x", first)
		b.want(at(err), fmt.Sprint(second))
		err = b.delete("a", first)
		b.wantCode(err, api.CodeConflict)
		b.want(at(err), fmt.Sprint(second))
		if err := b.delete("a", second); err != nil {
			t.Error(err)
		}
		err = b.delete("a", second)
		b.wantCode(err, api.CodeConflict)
		b.want(at(err), "0")
		_, err = b.put("a", "x", second)
		b.want(at(err), "0")
		b.mustPut("a", "3", 0)
	})
}

// P4: with the epoch a compare-and-set is bound to the history that its revision is of. In
// another one it is refused although the key is at that very revision.
func TestCompareAndSetNamesItsHistory(t *testing.T) {
	withTable(t, Config{}, func(t *testing.T, b *bed) {
		put := func(cas uint64, e api.Epoch) (api.KVWritten, error) {
			w, _, err := b.Put(t.Context(), PutQuery{Key: "a", Value: []byte("x"), CAS: &cas, Epoch: e})
			return w, err
		}
		first, err := put(0, b.head.Load().version.Epoch)
		if err != nil || first.Epoch.IsZero() {
			t.Fatalf("%+v %v", first, err)
		}
		second, err := put(first.Revision, first.Epoch)
		if err != nil || second.Epoch != first.Epoch {
			t.Fatalf("%+v %v", second, err)
		}
		if err := b.registry.RaiseEpoch(t.Context(), 7); err != nil {
			t.Fatal(err)
		}
		e, _, err := b.Get(t.Context(), KeyQuery{Key: "a"})
		if err != nil || e.Revision != second.Revision || e.Epoch == second.Epoch || e.Epoch.IsZero() {
			t.Fatalf("%+v %v: this test needs the same revision in another epoch", e, err)
		}
		_, err = put(second.Revision, second.Epoch)
		b.wantCode(err, api.CodeConflict)
		b.want(at(err), fmt.Sprint(second.Revision))
		if !strings.Contains(err.Error(), e.Epoch.String()) {
			t.Errorf("the refusal does not name the present epoch: %v", err)
		}
		_, err = put(0, second.Epoch)
		b.wantCode(err, api.CodeConflict)
		_, err = b.Delete(t.Context(), DeleteQuery{Key: "a", CAS: &second.Revision, Epoch: second.Epoch})
		b.wantCode(err, api.CodeConflict)
		if _, err := put(second.Revision, e.Epoch); err != nil {
			t.Error(err)
		}
		third, err := put(b.head.Load().view.Get("default", "a").Revision, api.Epoch{}) // without one, as ever
		if err != nil || third.Epoch != e.Epoch {
			t.Errorf("%+v %v", third, err)
		}
	})
}

// A counter that many raise by compare-and-set over two nodes loses nothing, and of many
// that create a key one does.
func TestCompareAndSetIsAtomicAcrossNodes(t *testing.T) {
	withTable(t, Config{}, func(t *testing.T, b *bed) {
		nodes := []*bed{b, newNode(t, Config{}, b.store)}
		b.mustPut("n", "0")
		var wg sync.WaitGroup
		var mu sync.Mutex
		created := 0
		const writers, each = 8, 10
		for w := range writers {
			n := nodes[w%2]
			wg.Go(func() {
				if _, err := n.put("new", fmt.Sprint(w), 0); err == nil {
					mu.Lock()
					created++
					mu.Unlock()
				} else if api.CodeOf(err) != api.CodeConflict {
					t.Error(err)
				}
				for done := 0; done < each; {
					e, _, err := n.Get(t.Context(), KeyQuery{Key: "n", ReadOptions: registry.ReadOptions{Strong: true}})
					if err != nil {
						t.Error(err)
						return
					}
					var v int
					_, _ = fmt.Sscan(string(e.Value), &v)
					switch _, err := n.put("n", fmt.Sprint(v+1), e.Revision); api.CodeOf(err) {
					case "":
						done++
					case api.CodeConflict:
					default:
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		e, _, _ := b.Get(t.Context(), KeyQuery{Key: "n", ReadOptions: registry.ReadOptions{Strong: true}})
		if string(e.Value) != fmt.Sprint(writers*each) || created != 1 {
			t.Errorf("counter %s, want %d; created %d times", e.Value, writers*each, created)
		}
	})
}

// lagging is a registry whose followers do not learn of commits while it is held.
type lagging struct {
	*registry.Registry
	mu   sync.Mutex
	held bool
	f    registry.Follower
	late []store.Batch
}

func (l *lagging) Follow(f registry.Follower) error { l.f = f; return l.Registry.Follow(l) }

func (l *lagging) Load(v api.Version, recs []store.Record) { l.f.Load(v, recs) }
func (l *lagging) Progress(revision uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.held {
		l.f.Progress(revision)
	}
}
func (l *lagging) Raise(e api.Epoch) { l.f.Raise(e) }

func (l *lagging) Apply(b store.Batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held {
		l.late = append(l.late, b)
		return
	}
	l.f.Apply(b)
}

func (l *lagging) hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held, l.late = true, nil
}

func (l *lagging) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = false
	for _, b := range l.late {
		l.f.Apply(b)
	}
}

// Fresh lets go what is held when a strong read asks, as a barrier does.
func (l *lagging) Fresh(ctx context.Context, o registry.ReadOptions) (registry.Stamp, error) {
	st, err := l.Registry.Fresh(ctx, o)
	if o.Strong {
		l.release()
	}
	return st, err
}

// A "no" is as true as a "yes": a node that is behind asks the store before it refuses.
func TestARefusalIsConfirmedWithTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := memstore.New("eu-west")
		if err != nil {
			t.Fatal(err)
		}
		other := newNode(t, Config{}, m)
		r, err := registry.New(registry.Config{Region: "eu-west", Store: m})
		if err != nil {
			t.Fatal(err)
		}
		l := &lagging{Registry: r}
		table, err := New(Config{Registry: l})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		defer func() { cancel(); <-ended }()
		<-r.Loaded()
		behind := &bed{Table: table, t: t, registry: r, store: m}

		revision := other.mustPut("a", "1")
		synctest.Wait()
		l.hold()
		revision = other.mustPut("a", "2", revision)
		synctest.Wait()
		behind.mustPut("a", "3", revision)

		l.hold()
		other.mustPut("b", "1")
		synctest.Wait()
		if err := behind.delete("b"); err != nil {
			t.Errorf("delete of a key that this node has not seen: %v", err)
		}
	})
}

func TestLimits(t *testing.T) {
	withTable(t, Config{MaxKeys: 3, MaxBytes: 100}, func(t *testing.T, b *bed) {
		b.mustPut("a", strings.Repeat("x", 60))
		_, err := b.put("b", strings.Repeat("x", 41))
		b.wantCode(err, api.CodeStorageFull)
		b.mustPut("b", strings.Repeat("x", 40))
		_, err = b.put("a", strings.Repeat("x", 61))
		b.wantCode(err, api.CodeStorageFull)
		b.mustPut("a", strings.Repeat("x", 59)) // smaller is always allowed
		b.mustPut("c", "1")
		_, err = b.put("d", "")
		b.wantCode(err, api.CodeStorageFull)
		if err := b.delete("a"); err != nil {
			t.Error(err)
		}
		b.mustPut("d", "")
		_, err = b.put("e", strings.Repeat("x", api.MaxKVValueBytes+1))
		b.wantCode(err, api.CodeBodyTooLarge)
		for _, key := range []string{"", "/a", "a/", "a//b", ".", "a/../b", "a b", "ö", "a%2fb", strings.Repeat("k", 513)} {
			_, err := b.put(key, "")
			b.wantCode(err, api.CodeInvalidField)
		}
		if b.budget.keys != 0 || b.budget.bytes != 0 {
			t.Errorf("claims stay: %d keys, %d bytes", b.budget.keys, b.budget.bytes)
		}
	})
}

// P8: many writes at once cannot pass the limit together.
func TestLimitsHoldUnderConcurrency(t *testing.T) {
	withTable(t, Config{MaxKeys: 10, MaxBytes: 1000}, func(t *testing.T, b *bed) {
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() {
				if _, err := b.put(fmt.Sprint("k", i), strings.Repeat("x", 100)); err != nil {
					b.wantCode(err, api.CodeStorageFull)
				}
			})
		}
		wg.Wait()
		keys, bytes := b.head.Load().view.Len()
		if keys > 10 || bytes > 1000 || keys < 5 {
			t.Errorf("%d keys, %d bytes", keys, bytes)
		}
		// What was refused to be on the safe side has room now, and no more than that.
		for i := range 11 - keys {
			_, err := b.put(fmt.Sprint("more", i), strings.Repeat("x", 100))
			if full := i == 10-keys; full != (api.CodeOf(err) == api.CodeStorageFull) {
				t.Errorf("key %d: %v", keys+i+1, err)
			}
		}
	})
}

// P1, P8: whoever writes keys in a loop is slowed down before the store is full of what was
// replaced; deletes are not, and a refused compare-and-set costs nothing.
func TestWritesAreBounded(t *testing.T) {
	withTable(t, Config{WriteBurst: 10_000, WriteRate: 1000}, func(t *testing.T, b *bed) {
		value := strings.Repeat("x", 1000)
		written := 0
		for ; ; written++ {
			if _, err := b.put("a", value); err != nil {
				b.wantCode(err, api.CodeTooManyRequests)
				break
			}
		}
		if written != 6 {
			t.Errorf("%d writes of 1.5 KiB within 10 KB", written)
		}
		pass(2 * time.Second)
		for range 10 {
			_, err := b.put("a", value, 0)
			b.wantCode(err, api.CodeConflict)
		}
		b.mustPut("a", value)
		if err := b.delete("a"); err != nil {
			t.Error(err)
		}
		pass(time.Hour)
		if _ = b.pace.take(0); b.pace.tokens != b.pace.burst {
			t.Errorf("%d tokens after an hour", b.pace.tokens)
		}
	})
}

func TestListPages(t *testing.T) {
	withTable(t, Config{}, func(t *testing.T, b *bed) {
		for i := range 25 {
			b.mustPut(fmt.Sprintf("app/%02d", i), fmt.Sprint(i))
		}
		b.mustPut("apple", "no")
		b.mustPut("zoo", "no")
		read := func(q ListQuery) (keys []string, pages int) {
			for {
				l, st, err := b.List(t.Context(), q)
				if err != nil {
					t.Fatal(err)
				}
				pages++
				for _, e := range l.Entries {
					keys = append(keys, e.Key)
					if (e.Value == nil) != q.KeysOnly || e.Size == 0 {
						t.Errorf("%+v", e)
					}
				}
				if st.Version.Revision < 20 || st.Region != "eu-west" {
					t.Errorf("%+v", st)
				}
				if q.Cursor = l.Cursor; q.Cursor == "" {
					return keys, pages
				}
			}
		}
		keys, pages := read(ListQuery{Prefix: "app/", Limit: 10, KeysOnly: true})
		if len(keys) != 25 || pages != 3 || !slices.IsSorted(keys) {
			t.Errorf("%d pages %v", pages, keys)
		}
		if keys, _ := read(ListQuery{}); len(keys) != 27 {
			t.Errorf("%v", keys)
		}
		if keys, _ := read(ListQuery{Namespace: "shop"}); len(keys) != 0 {
			t.Errorf("%v", keys)
		}
		for i := range 70 {
			b.mustPut(fmt.Sprintf("big/%02d", i), strings.Repeat("x", api.MaxKVValueBytes))
		}
		if keys, pages := read(ListQuery{Prefix: "big/"}); len(keys) != 70 || pages != 2 {
			t.Errorf("%d keys in %d pages", len(keys), pages)
		}
		_, _, err := b.List(t.Context(), ListQuery{Cursor: "../x"})
		b.wantCode(err, api.CodeInvalidRequest)
		_, _, err = b.List(t.Context(), ListQuery{Prefix: "a b"})
		b.wantCode(err, api.CodeInvalidField)
	})
}

// P10: without the store reads and watches go on and say how old they are; writes and strong
// reads fail in time.
func TestStoreAway(t *testing.T) {
	withTable(t, Config{}, func(t *testing.T, b *bed) {
		revision := b.mustPut("a", "1")
		b.store.SetUnavailable(true)
		pass(10 * time.Second)
		e, st, err := b.Get(t.Context(), KeyQuery{Key: "a"})
		if err != nil || string(e.Value) != "1" || st.Age < 5*time.Second {
			t.Errorf("%+v %+v %v", e, st, err)
		}
		b.want(b.get("", "a", registry.ReadOptions{Strong: true}), "unavailable")
		for _, cas := range [][]uint64{nil, {revision}, {revision + 1}} {
			_, err = b.put("a", "2", cas...)
			b.wantCode(err, api.CodeUnavailable)
		}
		b.wantCode(b.delete("none"), api.CodeUnavailable)
		b.store.SetUnavailable(false)
		pass(10 * time.Second)
		b.mustPut("a", "3", revision)
	})
}

// P11: a node that starts anew shows what the last one showed.
func TestRestartShowsTheSame(t *testing.T) {
	withTable(t, Config{}, func(t *testing.T, b *bed) {
		for i := range 300 {
			b.mustPut(fmt.Sprint("k", i%120), fmt.Sprint(i))
		}
		again := newNode(t, Config{}, b.store)
		if got, want := text(again.head.Load().view), text(b.head.Load().view); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
		b.want(again.head.Load().version.String(), b.head.Load().version.String())
	})
}

// P12: every use case passes the one function, with the key or the prefix.
func TestEveryUseCaseIsAuthorized(t *testing.T) {
	withTable(t, Config{}, func(t *testing.T, b *bed) {
		var asked []registry.Access
		refuse := &refusing{Registry: b.registry, asked: &asked}
		b.cfg.Registry = refuse
		ctx := t.Context()
		_, _, err1 := b.Get(ctx, KeyQuery{Key: "a"})
		_, _, err2 := b.List(ctx, ListQuery{Namespace: "shop", Prefix: "p/"})
		_, _, err3 := b.Put(ctx, PutQuery{Key: "a"})
		_, err4 := b.Delete(ctx, DeleteQuery{Key: "a"})
		err5 := b.Watch(ctx, WatchQuery{Prefix: "p/"}, nil)
		for _, err := range []error{err1, err2, err3, err4, err5} {
			b.wantCode(err, api.CodeForbidden)
		}
		want := []registry.Access{
			{Verb: "kv-read", Namespace: "default", Key: "a"},
			{Verb: "kv-read", Namespace: "shop", Prefix: "p/"},
			{Verb: "kv-write", Namespace: "default", Key: "a"},
			{Verb: "kv-write", Namespace: "default", Key: "a"},
			{Verb: "kv-read", Namespace: "default", Prefix: "p/"},
		}
		if !slices.Equal(asked, want) {
			t.Errorf("asked %+v", asked)
		}
	})
}

type refusing struct {
	*registry.Registry
	asked *[]registry.Access
}

func (r *refusing) Authorize(_ context.Context, a registry.Access) error {
	*r.asked = append(*r.asked, a)
	return api.Errorf(api.CodeForbidden, "not you")
}

// pass lets d go by and waits for what that sets off; inside a bubble only.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
