package storetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/region/store"
)

func watchReplays(t *testing.T, kit Kit) {
	w := open(t, kit)
	start := w.barrier()
	revs := []uint64{
		w.commit(put("a", "1")),
		w.commit(put("b", "1"), put("c", "1")),
		w.commit(del("a")),
		w.commit(put("a", "2"), del("c")),
		w.commit(put("b", "2")),
	}
	last := revs[len(revs)-1]
	whole := w.follow(start)
	whole.reach(t, last)
	all := whole.all()
	if len(all) != len(revs) {
		t.Fatalf("%d batches, want %d", len(all), len(revs))
	}
	for i, b := range all {
		if b.Revision != revs[i] {
			t.Errorf("batch %d has revision %d, want %d", i, b.Revision, revs[i])
		}
	}
	for i, from := range revs[:len(revs)-1] {
		f := w.follow(from)
		f.reach(t, last)
		if got, want := fmt.Sprint(f.all()), fmt.Sprint(all[i+1:]); got != want {
			t.Errorf("resumed from %d: %s, want %s", from, got, want)
		}
	}
	// From the head: only what is new.
	f := w.follow(last)
	next := w.commit(put("z", "1"))
	f.reach(t, next)
	if n := len(f.all()); n != 1 {
		t.Errorf("a watch from the head got %d batches, want 1", n)
	}
	if got, want := text(replay(nil, all)), text(w.load().Records[:2]); got != want {
		t.Errorf("replayed %q, loaded %q", got, want)
	}
}

// longHistory is more than the 1,000 revisions that etcd sends a late watch at a time.
func longHistory(t *testing.T, kit Kit) {
	w := open(t, kit)
	start := w.barrier()
	const writers, each = 8, 320
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for j := range each {
				if _, err := w.s.Commit(w.ctx, []store.Op{put(fmt.Sprintf("%d/%d", i, j%50), strconv.Itoa(j)), put(fmt.Sprintf("%d/last", i), strconv.Itoa(j))}); err != nil {
					t.Errorf("commit: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	img := w.load()
	f := w.follow(start)
	f.reach(t, img.Revision)
	if n := len(f.all()); n != writers*each {
		t.Errorf("%d batches, want %d", n, writers*each)
	}
	if got, want := text(replay(nil, f.all())), text(img.Records); got != want {
		t.Errorf("replayed %.200q, loaded %.200q", got, want)
	}
}

func watchWhileWriting(t *testing.T, kit Kit) {
	w := open(t, kit)
	start := w.load()
	early := []*follower{w.follow(start.Revision), w.follow(start.Revision)}
	const writers, each = 6, 60
	var wg sync.WaitGroup
	var middle *follower
	var from store.Image
	for i := range writers {
		wg.Go(func() {
			for j := range each {
				ops := []store.Op{put(fmt.Sprintf("own/%d", i), strconv.Itoa(j)), put("shared", fmt.Sprintf("%d/%d", i, j))}
				if j%3 == 2 {
					ops = append(ops, del(fmt.Sprintf("own/%d", (i+1)%writers)))
				}
				if _, err := w.s.Commit(w.ctx, ops); err != nil {
					t.Errorf("commit: %v", err)
					return
				}
			}
		})
	}
	// Load and follow in the middle of it all, as a registry does that starts late.
	from = w.load()
	middle = w.follow(from.Revision)
	wg.Wait()
	last := w.commit(put("end", ""))
	for _, f := range append(early, middle) {
		f.reach(t, last)
	}
	if n := len(early[0].all()); n != writers*each+1 {
		t.Errorf("%d batches, want %d", n, writers*each+1)
	}
	if fmt.Sprint(early[0].all()) != fmt.Sprint(early[1].all()) {
		t.Error("two watches saw different sequences")
	}
	want := text(w.load().Records)
	if got := text(replay(start.Records, early[0].all())); got != want {
		t.Errorf("replayed %q, loaded %q", got, want)
	}
	if got := text(replay(from.Records, middle.all())); got != want {
		t.Errorf("loaded in the middle and replayed %q, loaded %q", got, want)
	}
}

// loadWhileWriting needs more records than an implementation brings in one page (etcdstore
// takes 2,000), and writers that change the first and the last in one commit.
func loadWhileWriting(t *testing.T, kit Kit) {
	w := open(t, kit)
	for i := 0; i < 4_400; i += 110 {
		ops := make([]store.Op, 110)
		for j := range ops {
			ops[j] = put(fmt.Sprintf("m/%05d", i+j), "")
		}
		w.commit(ops...)
	}
	w.commit(put("a", "0"), put("z", "0"))
	ctx, stop := context.WithCancel(w.ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 1; ctx.Err() == nil; i++ {
			v := strconv.Itoa(i)
			if _, err := w.s.Commit(ctx, []store.Op{put("a", v), put("z", v)}); err != nil && ctx.Err() == nil {
				t.Errorf("commit: %v", err)
				return
			}
		}
	})
	defer wg.Wait()
	defer stop()
	var last uint64
	for range 15 {
		before := w.barrier()
		img := w.load()
		if n := len(img.Records); n != 4_402 {
			t.Fatalf("%d records, want 4402", n)
		}
		if a, z := img.Records[0], img.Records[len(img.Records)-1]; string(a.Value) != string(z.Value) || a.Revision != z.Revision {
			t.Fatalf("image %d has a=%s@%d and z=%s@%d", img.Revision, a.Value, a.Revision, z.Value, z.Revision)
		}
		if img.Revision < before || img.Revision < last {
			t.Fatalf("image %d after barrier %d and image %d", img.Revision, before, last)
		}
		last = img.Revision
	}
}

func slowWatch(t *testing.T, kit Kit) {
	w := open(t, kit)
	start := w.barrier()
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	slow := make(chan error, 1)
	seen := 0
	go func() {
		slow <- w.s.Watch(w.ctx, start, func(store.Batch) error {
			once.Do(func() { close(entered) })
			<-release
			if seen++; seen == 101 {
				return errDone
			}
			return nil
		}, nil)
	}()
	fast := w.follow(start)
	w.commit(put("first", ""))
	<-entered
	var last uint64
	for i := range 100 {
		last = w.commit(put("k", strconv.Itoa(i)))
	}
	fast.reach(t, last) // while the slow one still stands at its first
	close(release)
	if err := <-slow; !errors.Is(err, errDone) {
		t.Errorf("the slow watch ended with %v after %d of 101 batches", err, seen)
	}
}

var errDone = errors.New("done")

func progressReachesBarrier(t *testing.T, kit Kit) {
	w := open(t, kit)
	f := w.follow(w.barrier())
	at := func(rev uint64) func() bool {
		return func() bool { n := len(f.progress); return n > 0 && f.progress[n-1] >= rev }
	}
	slow := 0
	for i := range 5 {
		last := w.commit(put("k", strconv.Itoa(i)))
		if _, err := w.s.RaiseEpoch(w.ctx, uint64(i)+1); err != nil {
			t.Fatal(err)
		}
		rev := w.barrier()
		if rev <= last {
			t.Fatalf("barrier %d after an epoch that came after commit %d", rev, last)
		}
		begun := time.Now()
		f.until(t, fmt.Sprintf("progress %d", rev), at(rev))
		took := time.Since(begun)
		t.Logf("progress reached barrier %d after %s", rev, took.Round(10*time.Microsecond))
		if took > 500*time.Millisecond {
			slow++
		}
		if n := len(f.all()); n != i+1 {
			t.Errorf("progress %d overtook a batch: %d of %d told", rev, n, i+1)
		}
	}
	if f.mu.Lock(); f.raised != 5 {
		t.Errorf("told of %d of 5 epochs", f.raised)
	}
	f.mu.Unlock()
	// A strong read waits for this; "soon" is far below the pulse of a quiet watch. One may be
	// late on a busy machine, most may not.
	if slow > 2 {
		t.Errorf("progress was slow %d times of 5", slow)
	}
}

func progressBeats(t *testing.T, kit Kit) {
	w := open(t, kit)
	rev := w.commit(put("k", "1"))
	f := w.follow(rev)
	f.until(t, "three beats", func() bool { return len(f.progress) >= 3 })
	if n := len(f.all()); n != 0 {
		t.Errorf("%d batches where nothing happened", n)
	}
}

func compaction(t *testing.T, kit Kit) {
	w := open(t, kit)
	start := w.barrier()
	running := w.follow(start)
	var revs []uint64
	for i := range 20 {
		revs = append(revs, w.commit(put("k", strconv.Itoa(i)), put(fmt.Sprintf("own/%d", i), "")))
	}
	running.reach(t, revs[19])
	kit.Compact(t, w.s, revs[10])
	for _, from := range []uint64{start, revs[0], revs[8]} {
		if err := w.follow(from).end(t); !errors.Is(err, store.ErrCompacted) {
			t.Errorf("watch from %d after compaction at %d: %v, want compacted", from, revs[10], err)
		}
	}
	late := w.follow(revs[11])
	late.reach(t, revs[19])
	if n := len(late.all()); n != 8 {
		t.Errorf("a watch from within the history got %d batches, want 8", n)
	}
	kit.Compact(t, w.s, revs[19])
	if n := len(w.load().Records); n != 21 {
		t.Errorf("%d records after compaction, want 21", n)
	}
	// Who was up to date stays so.
	next := w.commit(put("k", "end"))
	running.reach(t, next)
	late.reach(t, next)
}

func watchAhead(t *testing.T, kit Kit) {
	w := open(t, kit)
	rev := w.commit(put("k", "1"))
	for _, from := range []uint64{rev + 1, rev + 1_000, 1<<63 - 1, ^uint64(0)} {
		if err := w.follow(from).end(t); !errors.Is(err, store.ErrCompacted) {
			t.Errorf("watch from %d with the store at %d: %v, want compacted", from, rev, err)
		}
	}
}

func watchEnds(t *testing.T, kit Kit) {
	w := open(t, kit)
	start := w.barrier()
	w.commit(put("a", "1"))
	w.commit(put("a", "2"))
	calls := 0
	err := w.s.Watch(w.ctx, start, func(store.Batch) error { calls++; return errDone }, nil)
	if !errors.Is(err, errDone) || calls != 1 {
		t.Errorf("apply's error: %v after %d calls, want it after one", err, calls)
	}
	f := w.follow(start)
	f.until(t, "two batches", func() bool { return len(f.batches) == 2 })
	f.cancel()
	if err := f.end(t); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	ctx, cancel := context.WithTimeout(w.ctx, time.Millisecond)
	defer cancel()
	if err := w.s.Watch(ctx, start, func(store.Batch) error { return nil }, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("past its deadline: %v", err)
	}
}

func cancelledCalls(t *testing.T, kit Kit) {
	w := open(t, kit)
	ctx, cancel := context.WithCancel(w.ctx)
	cancel()
	_, load := w.s.Load(ctx)
	_, commit := w.s.Commit(ctx, []store.Op{put("a", "1")})
	_, barrier := w.s.Barrier(ctx)
	_, epoch := w.s.Epoch(ctx)
	_, raise := w.s.RaiseEpoch(ctx, 5)
	for name, err := range map[string]error{"Load": load, "Commit": commit, "Barrier": barrier, "Epoch": epoch, "RaiseEpoch": raise} {
		if !errors.Is(err, context.Canceled) || !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s: %v, want cancelled and unavailable", name, err)
		}
	}
	w.commit(put("b", "1")) // and nothing is broken by it
}

func cancelledWatches(t *testing.T, kit Kit) {
	w := open(t, kit)
	start := w.barrier()
	ctx, stop := context.WithCancel(w.ctx)
	var writers sync.WaitGroup
	// Writes come in portions: a store in memory would otherwise forget start before 200
	// watches have begun on a busy machine.
	const portion = 2000
	allowed := make(chan struct{}, portion)
	allow := func() {
		for len(allowed) < portion {
			allowed <- struct{}{}
		}
	}
	for i := range 2 {
		writers.Go(func() {
			for j := 0; ctx.Err() == nil; j++ {
				select {
				case <-allowed:
				case <-ctx.Done():
					return
				}
				if _, err := w.s.Commit(ctx, []store.Op{put(fmt.Sprintf("w/%d/%d", i, j%20), strings.Repeat("x", 200))}); err != nil && ctx.Err() == nil {
					t.Errorf("commit: %v", err)
					return
				}
			}
		})
	}
	for round := range 3 {
		allow()
		followers := make([]*follower, 200)
		for i := range followers {
			followers[i] = w.follow(start)
		}
		for _, f := range followers {
			f.until(t, "a first batch", func() bool { return len(f.batches) > 0 })
		}
		for _, f := range followers {
			f.cancel()
		}
		for i, f := range followers {
			if err := f.end(t); !errors.Is(err, context.Canceled) {
				t.Errorf("round %d, watch %d ended with %v", round, i, err)
			}
		}
		start = w.barrier()
		f := w.follow(start)
		allow()
		f.until(t, "a batch after the others were cancelled", func() bool { return len(f.batches) > 0 })
		f.cancel()
	}
	stop()
	writers.Wait()
	f := w.follow(w.barrier())
	f.reach(t, w.commit(put("end", "")))
}

func closing(t *testing.T, kit Kit) {
	w := open(t, kit)
	rev := w.commit(put("a", "1"))
	f := w.follow(rev - 1)
	f.reach(t, rev)
	if err := w.s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if err := f.end(t); !errors.Is(err, store.ErrClosed) && !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("the running watch ended with %v", err)
	}
	_, load := w.s.Load(w.ctx)
	_, commit := w.s.Commit(w.ctx, []store.Op{put("a", "2")})
	_, barrier := w.s.Barrier(w.ctx)
	_, epoch := w.s.Epoch(w.ctx)
	watch := w.s.Watch(w.ctx, rev, func(store.Batch) error { return nil }, nil)
	for name, err := range map[string]error{"Load": load, "Commit": commit, "Barrier": barrier, "Epoch": epoch, "Watch": watch} {
		if !errors.Is(err, store.ErrClosed) {
			t.Errorf("%s after close: %v", name, err)
		}
	}
	if err := w.s.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
}

func restart(t *testing.T, kit Kit) {
	if kit.Reopen == nil {
		t.Skip("this store is not kept")
	}
	w := open(t, kit)
	start := w.barrier()
	w.commit(put("a", "1"), put("b", "1"))
	w.commit(del("b"), put("c", "1"))
	if _, err := w.s.RaiseEpoch(w.ctx, 3); err != nil {
		t.Fatal(err)
	}
	last := w.commit(put("a", "2"))
	before := w.load()

	for round := range 2 {
		again := kit.Reopen(t, w.s)
		t.Cleanup(func() { _ = again.Close() })
		w.s = again
		after := w.load()
		if text(after.Records) != text(before.Records) || after.Epoch != before.Epoch || after.Revision < before.Revision {
			t.Fatalf("restart %d: %q epoch %q revision %d, want %q %q %d",
				round, text(after.Records), after.Epoch, after.Revision, text(before.Records), before.Epoch, before.Revision)
		}
		f := w.follow(start)
		f.reach(t, last)
		if n := len(f.all()); n != 3 {
			t.Errorf("restart %d: history has %d batches, want 3", round, n)
		}
	}
	if rev := w.commit(put("d", "1")); rev <= last {
		t.Errorf("revision %d after a restart at %d", rev, last)
	}
}
