package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/region/store/memstore"
	"github.com/nearside/nearside/sdk/api"
)

// line is a committer at work on a store in memory.
type line struct {
	*committer
	t     *testing.T
	store *memstore.Store
	stop  func()

	mu      sync.Mutex
	commits [][]store.Op  // as they were tried
	gate    chan struct{} // when not nil, every commit waits for one token
	head    api.Version   // what the committer is told is published
}

func newLine(t *testing.T) *line {
	t.Helper()
	l := &line{t: t, store: newMemstore(t)}
	l.committer = newCommitter(l.write, func() api.Version {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.head
	}, func(context.Context, uint64) {})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); l.run(ctx) }()
	l.stop = func() { cancel(); <-done }
	t.Cleanup(l.stop)
	return l
}

func (l *line) write(ctx context.Context, ops []store.Op) (uint64, error) {
	l.mu.Lock()
	l.commits = append(l.commits, ops)
	gate := l.gate
	l.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return 0, store.ErrUnavailable
		}
	}
	return l.store.Commit(ctx, ops)
}

func (l *line) sizes() (out []int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, ops := range l.commits {
		out = append(out, len(ops))
	}
	return out
}

// all proposes each of the lists at the same time and returns the outcomes in their order.
func (l *line) all(lists ...[]store.Op) []outcome {
	out := make([]outcome, len(lists))
	var wg sync.WaitGroup
	for i, ops := range lists {
		wg.Go(func() { out[i].revision, out[i].err = l.propose(l.t.Context(), ops) })
	}
	wg.Wait()
	return out
}

// hold makes commits wait and returns what lets all of them go.
func (l *line) hold() (release func()) {
	gate := make(chan struct{})
	l.mu.Lock()
	l.gate = gate
	l.mu.Unlock()
	return func() {
		l.mu.Lock()
		l.gate = nil
		l.mu.Unlock()
		close(gate)
	}
}

func put(key string, guard uint64) []store.Op {
	return []store.Op{{Key: key, Value: []byte(key), Guarded: true, If: guard}}
}

// One write alone goes at once; those that come while it is under way go together.
func TestWritesGatherWhileOneIsUnderWay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := newLine(t)
		release := l.hold()
		var wg sync.WaitGroup
		revisions := map[uint64]int{}
		var mu sync.Mutex
		for i := range 100 {
			wg.Go(func() {
				rev, err := l.propose(t.Context(), put(fmt.Sprintf("k%d", i), 0))
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				revisions[rev]++
				mu.Unlock()
			})
			if i == 0 {
				synctest.Wait()
				if got := fmt.Sprint(l.sizes()); got != "[1]" {
					t.Fatalf("commits of %s operations", got)
				}
			}
		}
		synctest.Wait()
		release()
		wg.Wait()
		if got := fmt.Sprint(l.sizes()); got != "[1 99]" || revisions[2] != 1 || revisions[3] != 99 {
			t.Errorf("commits of %s operations, writes by revision %v", got, revisions)
		}
	})
}

// P1: nobody's guard fails another's write, and nobody is told another's outcome.
func TestAGuardFailsOnlyItsOwnWrite(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := newLine(t)
		if _, err := l.store.Commit(t.Context(), put("k13", 0)); err != nil { // another node's
			t.Fatal(err)
		}
		release := l.hold()
		wait := make(chan struct{})
		go func() { defer close(wait); _, _ = l.propose(t.Context(), put("first", 0)) }()
		synctest.Wait()
		var lists [][]store.Op
		for i := range 64 {
			lists = append(lists, put(fmt.Sprintf("k%d", i), 0))
		}
		go func() { synctest.Wait(); release() }()
		for i, o := range l.all(lists...) {
			if want := i == 13; errors.Is(o.err, store.ErrConflict) != want || !want && (o.err != nil || o.revision == 0) {
				t.Errorf("k%d: %+v", i, o)
			}
		}
		<-wait
		if n := len(l.sizes()); n > 20 {
			t.Errorf("%d commits to find one of 64", n)
		}
	})
}

// No key occurs twice in one commit; the second write of a key was decided without the
// first and is told so, without asking the store.
func TestTheSecondWriteOfAKeyIsDecidedAnew(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := newLine(t)
		outcomes := l.all(put("k", 0), put("k", 0), put("k", 0))
		won := 0
		for _, o := range outcomes {
			if o.err == nil {
				won++
			} else if !errors.Is(o.err, store.ErrConflict) {
				t.Error(o.err)
			}
		}
		if got := fmt.Sprint(l.sizes()); won != 1 || got != "[1]" {
			t.Errorf("%d succeeded, commits of %s operations", won, got)
		}
		// In a new history revisions begin anew: what was known of the old one is void.
		l.store = newMemstore(t)
		l.mu.Lock()
		l.head = api.Version{Epoch: api.Epoch{Generation: 2}, Revision: 1}
		l.mu.Unlock()
		if _, err := l.propose(t.Context(), put("k", 0)); err != nil {
			t.Errorf("after another history began: %v", err)
		}
	})
}

// A caller keeps its own deadline, and what nobody waits for is not begun.
func TestACallerLeavesTheQueue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := newLine(t)
		release := l.hold()
		wait := make(chan struct{})
		go func() { defer close(wait); _, _ = l.propose(t.Context(), put("first", 0)) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := l.propose(ctx, put("late", 0))
		if !errors.Is(err, store.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		release()
		<-wait
		synctest.Wait()
		if got := fmt.Sprint(l.sizes()); got != "[1]" {
			t.Errorf("commits of %s operations", got)
		}
		l.hold()
		go func() { synctest.Wait(); l.stop() }()
		for _, o := range l.all(put("x", 0), put("y", 0), put("z", 0)) {
			if o.err == nil {
				t.Error("acknowledged by a committer that ended")
			}
		}
		if _, err := l.propose(t.Context(), put("after", 0)); !errors.Is(err, store.ErrClosed) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// Commits stay within what the store takes, however much waits.
func TestCommitsStayWithinTheStoresBounds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := newLine(t)
		release := l.hold()
		wait := make(chan struct{})
		go func() { defer close(wait); _, _ = l.propose(t.Context(), put("first", 0)) }()
		synctest.Wait()
		var lists [][]store.Op
		for i := range 300 {
			lists = append(lists, put(fmt.Sprintf("small%d", i), 0))
		}
		for i := range 10 {
			lists = append(lists, []store.Op{{Key: fmt.Sprintf("large%d", i), Value: make([]byte, store.MaxBytes/3)}})
		}
		lists = append(lists, []store.Op{{Key: "huge", Value: make([]byte, store.MaxBytes+1)}})
		go func() { synctest.Wait(); release() }()
		for i, o := range l.all(lists...) {
			if last := i == len(lists)-1; last != errors.Is(o.err, store.ErrTooLarge) || !last && o.err != nil {
				t.Errorf("%d: %v", i, o.err)
			}
		}
		<-wait
		if n := len(l.sizes()); n > 8 {
			t.Errorf("%d commits of %v operations", n, l.sizes())
		}
	})
}

// P10: a full store refuses who comes, and takes who leaves, though they asked together.
func TestAFullStoreTakesTheDeletesOfABundle(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := newLine(t)
		revs := l.all(put("a", 0), put("b", 0))
		l.store.SetFull(true)
		leave := func(key string, rev uint64) []store.Op {
			return []store.Op{{Delete: true, Key: key, Guarded: true, If: rev}, {Key: "why/" + key}}
		}
		release := l.hold()
		wait := make(chan struct{})
		go func() { defer close(wait); _, _ = l.propose(t.Context(), put("first", 0)) }()
		synctest.Wait()
		l.mu.Lock()
		l.head.Revision = 9 // all that was written is published
		l.mu.Unlock()
		go func() { synctest.Wait(); release() }()
		got := l.all(leave("a", revs[0].revision), put("c", 0), leave("b", 999))
		<-wait
		if got[0].err != nil || !errors.Is(got[1].err, store.ErrFull) || !errors.Is(got[2].err, store.ErrConflict) {
			t.Errorf("%+v", got)
		}
		if img, err := l.store.Load(t.Context()); err != nil || len(img.Records) != 1 || img.Records[0].Key != "b" {
			t.Errorf("%+v %v", img.Records, err)
		}
	})
}

// P1, linearizable per key: with many writers, another node among them, the successful
// writes of every key form one chain without a fork, and what was refused was not written.
func TestGroupedWritesFormOneChainPerKey(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	l := newLine(t)
	var mu sync.Mutex
	chains := map[string]map[uint64]uint64{} // key: revision before → after
	refused := map[string]bool{}
	now := map[string]uint64{}
	var direct atomic.Int64
	attempt := func(rng *rand.Rand, who int, commit func(context.Context, []store.Op) (uint64, error)) {
		for i := range 300 {
			key := fmt.Sprintf("k%d", rng.IntN(12))
			mu.Lock()
			before := now[key]
			mu.Unlock()
			value := fmt.Sprintf("%d-%d", who, i)
			rev, err := commit(context.Background(), []store.Op{{Key: key, Value: []byte(value), Guarded: true, If: before}})
			mu.Lock()
			switch {
			case err == nil:
				if chains[key] == nil {
					chains[key] = map[uint64]uint64{}
				}
				if other, fork := chains[key][before]; fork {
					t.Errorf("%s was changed from revision %d twice: to %d and %d", key, before, other, rev)
				}
				chains[key][before] = rev
				now[key] = max(now[key], rev)
			case errors.Is(err, store.ErrConflict):
				refused[value] = true
			default:
				t.Error(err)
			}
			mu.Unlock()
		}
	}
	var wg sync.WaitGroup
	for n := range 16 {
		wg.Go(func() { attempt(rand.New(rand.NewPCG(seed, uint64(n))), n, l.propose) })
	}
	wg.Go(func() {
		attempt(rand.New(rand.NewPCG(seed, 99)), 99, func(ctx context.Context, ops []store.Op) (uint64, error) {
			direct.Add(1)
			return l.store.Commit(ctx, ops)
		})
	})
	// The head follows the store, as it does through the watch.
	fctx, cancel := context.WithCancel(context.Background())
	followed := make(chan error, 1)
	go func() {
		followed <- l.store.Watch(fctx, 0, func(b store.Batch) error {
			l.mu.Lock()
			l.head.Revision = b.Revision
			l.mu.Unlock()
			for _, ev := range b.Events {
				mu.Lock()
				now[ev.Record.Key] = max(now[ev.Record.Key], b.Revision)
				mu.Unlock()
			}
			return nil
		}, nil)
	}()
	wg.Wait()
	cancel()
	<-followed
	img, err := l.store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	links := 0
	for _, rec := range img.Records {
		at, n := uint64(0), 0
		for next, ok := chains[rec.Key][at]; ok; next, ok = chains[rec.Key][at] {
			at, n = next, n+1
		}
		if links += n; at != rec.Revision || n != len(chains[rec.Key]) || refused[string(rec.Value)] {
			t.Errorf("%s: the chain has %d of %d links and ends at %d, the store is at %d with %q", rec.Key, n, len(chains[rec.Key]), at, rec.Revision, rec.Value)
		}
	}
	t.Logf("%d writes succeeded in %d commits, %d were refused, %d tried beside the committer", links, len(l.sizes()), len(refused), direct.Load())
}

// Who leaves a service at the same time as others leaves in the same commit, and watchers
// are told of each why.
func TestDeparturesOfOneServiceGoTogether(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t)
		commit, gate := b.group.commit, make(chan struct{}, 100)
		b.group.commit = func(ctx context.Context, ops []store.Op) (uint64, error) {
			<-gate
			return commit(ctx, ops)
		}
		b.run()
		<-b.Loaded()
		for range 40 {
			gate <- struct{}{}
		}
		b.registerMany("orders", 40)
		w := b.watch(WatchQuery{})
		w.next()
		before := b.Stamp().Version.Revision
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				if err := b.Deregister(t.Context(), ikey("orders", fmt.Sprintf("i%d", i)), 0); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		close(gate)
		wg.Wait()
		if n := b.Stamp().Version.Revision - before; n > 2 {
			t.Errorf("%d commits for 40 departures", n)
		}
		synctest.Wait()
		told := map[string]int{}
		w.mu.Lock()
		for _, f := range w.frames {
			if f.Kind == api.FrameChange {
				told[string(f.Op)+" "+string(f.Cause)]++
			}
		}
		w.mu.Unlock()
		if !maps.Equal(told, map[string]int{"delete deregister": 40}) {
			t.Errorf("told %v", told)
		}
	})
}

func TestJoinedDeparturesReadAsOne(t *testing.T) {
	enc := func(cause api.Cause, ids ...api.InstanceID) store.Op {
		v, err := catalog.EncodeDeparture(cause, ids)
		if err != nil {
			t.Fatal(err)
		}
		return store.Op{Key: catalog.DepartureRecordKey(api.ServiceKey{Namespace: "default", Service: "orders"}), Value: v}
	}
	got, ok := join(enc(api.CauseEvict, "a", "b"), enc(api.CauseEvict, "c"))
	if want := enc(api.CauseEvict, "a", "b", "c").Value; !ok || string(got) != string(want) {
		t.Errorf("%s, want %s", got, want)
	}
	if _, ok := join(enc(api.CauseEvict, "a"), enc(api.CauseDeregister, "b")); ok {
		t.Error("two causes were put together")
	}
	guarded := enc(api.CauseEvict, "a")
	guarded.Guarded = true
	if _, ok := join(guarded, enc(api.CauseEvict, "b")); ok {
		t.Error("a guarded record was put together with another")
	}
	if _, ok := join(store.Op{Key: "instances/x", Value: got}, store.Op{Key: "instances/x", Value: got}); ok {
		t.Error("two instances were put together")
	}
}
