package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/nearside/nearside/region/store"
)

func newStore(t *testing.T, kit Kit) {
	w := open(t, kit)
	img := w.load()
	if len(img.Records) != 0 {
		t.Errorf("records of a new store: %s", text(img.Records))
	}
	if img.Epoch.Generation != 1 || img.Epoch.Nonce == 0 {
		t.Errorf("epoch of a new store is %q, want generation 1 with a nonce", img.Epoch)
	}
	epoch, err := w.s.Epoch(w.ctx)
	if err != nil || epoch != img.Epoch {
		t.Errorf("Epoch: %q, %v; the image says %q", epoch, err, img.Epoch)
	}
	if rev := w.barrier(); rev < img.Revision || rev == 0 {
		t.Errorf("barrier %d, image %d", rev, img.Revision)
	}
	other := open(t, kit)
	if e := other.load().Epoch; e == img.Epoch {
		t.Errorf("two stores have one epoch %q", e)
	}
}

func commitIsLoaded(t *testing.T, kit Kit) {
	w := open(t, kit)
	r1 := w.commit(put("b", "1"), put("a/x", "2"))
	r2 := w.commit(put("a", ""), put("c", "\x00\xff"))
	r3 := w.commit(del("b"), put("c", "4"))
	img := w.load()
	want := fmt.Sprintf("a=@%d a/x=2@%d c=4@%d ", r2, r1, r3)
	if got := text(img.Records); got != want {
		t.Errorf("loaded %q, want %q", got, want)
	}
	if img.Revision < r3 {
		t.Errorf("image of revision %d after commit %d", img.Revision, r3)
	}
	if rev := w.barrier(); rev < r3 {
		t.Errorf("barrier %d after commit %d", rev, r3)
	}
}

func revisionsRise(t *testing.T, kit Kit) {
	w := open(t, kit)
	last := w.barrier()
	for i := range 20 {
		rev := w.commit(put("k", strconv.Itoa(i%2)))
		if rev <= last {
			t.Fatalf("commit %d got revision %d after %d", i, rev, last)
		}
		last = rev
	}
	if rev := w.commit(del("nothing")); rev != last {
		t.Errorf("deleting nothing: revision %d, want %d", rev, last)
	}
	if rev := w.commit(); rev != last {
		t.Errorf("an empty commit: revision %d, want %d", rev, last)
	}
	if rev := w.barrier(); rev != last {
		t.Errorf("barrier %d, want %d", rev, last)
	}
}

func atomicCommit(t *testing.T, kit Kit) {
	w := open(t, kit)
	f := w.follow(w.barrier())
	rev := w.commit(put("a", "1"), put("b", "1"), put("c", "1"))
	if _, err := w.s.Commit(w.ctx, []store.Op{put("a", "2"), guarded(put("b", "2"), rev-1), del("c")}); !errors.Is(err, store.ErrConflict) {
		t.Fatalf("a guard that fails: %v, want a conflict", err)
	}
	want := fmt.Sprintf("a=1@%d b=1@%d c=1@%d ", rev, rev, rev)
	if got := text(w.load().Records); got != want {
		t.Errorf("after a refused commit %q, want %q", got, want)
	}
	last := w.commit(put("c", "3"), del("b"), del("missing"), put("a", "3"))
	f.reach(t, last)
	var got []string
	for _, b := range f.all() {
		for _, e := range b.Events {
			got = append(got, fmt.Sprintf("%d:%s:%v", b.Revision, e.Record.Key, e.Delete))
		}
	}
	wantEvents := fmt.Sprintf("%d:a:false %d:b:false %d:c:false %d:a:false %d:b:true %d:c:false", rev, rev, rev, last, last, last)
	if s := strings.Join(got, " "); s != wantEvents {
		t.Errorf("watched %q, want %q", s, wantEvents)
	}
}

func guards(t *testing.T, kit Kit) {
	w := open(t, kit)
	conflict := func(what string, ops ...store.Op) {
		t.Helper()
		if rev, err := w.s.Commit(w.ctx, ops); !errors.Is(err, store.ErrConflict) {
			t.Errorf("%s: revision %d, %v; want a conflict", what, rev, err)
		}
	}
	r1 := w.commit(guarded(put("a", "1"), 0))
	conflict("creating what exists", guarded(put("a", "2"), 0))
	conflict("changing what never was", guarded(put("b", "1"), r1))
	conflict("deleting what changed", guarded(del("a"), r1-1))
	conflict("deleting what must not exist", guarded(del("a"), 0))
	r2 := w.commit(guarded(put("a", "2"), r1))
	conflict("changing from an old revision", guarded(put("a", "3"), r1))
	w.commit(guarded(del("a"), r2))
	conflict("deleting twice", guarded(del("a"), r2))
	r3 := w.commit(guarded(put("a", "4"), 0), guarded(del("never"), 0))
	if got, want := text(w.load().Records), fmt.Sprintf("a=4@%d ", r3); got != want {
		t.Errorf("loaded %q, want %q", got, want)
	}
}

// P2: who is no longer the owner of a record cannot write beside it.
func checks(t *testing.T, kit Kit) {
	w := open(t, kit)
	r1 := w.commit(put("claim", "a"), put("x", "1"), put("y", "1"))
	f := w.follow(r1)
	if rev := w.commit(check("claim", r1)); rev != r1 {
		t.Errorf("a check alone took revision %d, want %d", rev, r1)
	}
	w.commit(check("none", 0), check("claim", r1))
	r2 := w.commit(check("claim", r1), guarded(del("x"), r1), put("z", "1"))
	r3 := w.commit(put("claim", "b"))
	for what, ops := range map[string][]store.Op{
		"a check alone":          {check("claim", r1)},
		"a check of what is not": {check("none", r1)},
		"a check of what is":     {check("claim", 0)},
		"a delete beside it":     {check("claim", r1), guarded(del("y"), r1)},
		"a put beside it":        {put("z", "2"), check("claim", r1)},
	} {
		if rev, err := w.s.Commit(w.ctx, ops); !errors.Is(err, store.ErrConflict) {
			t.Errorf("%s: revision %d, %v; want a conflict", what, rev, err)
		}
	}
	f.reach(t, r3)
	if got, want := text(w.load().Records), fmt.Sprintf("claim=b@%d y=1@%d z=1@%d ", r3, r1, r2); got != want {
		t.Errorf("loaded %q, want %q", got, want)
	}
	if n := len(f.all()); n != 2 {
		t.Errorf("%d batches watched, want 2", n)
	}
	many := make([]store.Op, 0, store.MaxOps)
	for i := range store.MaxOps - 1 {
		many = append(many, guarded(put("m/"+strconv.Itoa(i), "x"), 0))
	}
	w.commit(append(many, check("claim", r3))...)
}

func badCommits(t *testing.T, kit Kit) {
	w := open(t, kit)
	before := w.barrier()
	many := make([]store.Op, store.MaxOps+1)
	for i := range many {
		many[i] = put(strconv.Itoa(i), "x")
	}
	for _, tt := range []struct {
		name  string
		ops   []store.Op
		large bool
	}{
		{"too many operations", many, true},
		{"too many bytes", []store.Op{put("a", strings.Repeat("x", store.MaxBytes))}, true},
		{"too many bytes together", []store.Op{put("a", strings.Repeat("x", store.MaxBytes/2)), put("b", strings.Repeat("x", store.MaxBytes/2))}, true},
		{"no key", []store.Op{put("", "x")}, false},
		{"a long key", []store.Op{put(strings.Repeat("k", store.MaxKey+1), "x")}, false},
		{"a key twice", []store.Op{put("a", "1"), put("b", "1"), del("a")}, false},
		{"a guard without Guarded", []store.Op{{Key: "a", If: 7}}, false},
		{"a check without a guard", []store.Op{{Key: "a", Check: true}}, false},
		{"a check that writes", []store.Op{{Key: "a", Check: true, Guarded: true, Value: []byte("x")}}, false},
	} {
		_, err := w.s.Commit(w.ctx, tt.ops)
		if err == nil || errors.Is(err, store.ErrTooLarge) != tt.large || errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if rev, n := w.barrier(), len(w.load().Records); rev != before || n != 0 {
		t.Errorf("refused commits left %d records and moved the revision from %d to %d", n, before, rev)
	}
}

func fullStore(t *testing.T, kit Kit) {
	w := open(t, kit)
	start := w.barrier()
	r1 := w.commit(put("a", "1"), put("b", "1"), put("c", "1"))
	f := w.follow(start)
	kit.Fill(t, w.s)
	for what, ops := range map[string][]store.Op{
		"a put":               {put("d", "1")},
		"a put over a record": {put("a", "2")},
		"a put and a delete":  {put("d", "1"), del("a")},
	} {
		if _, err := w.s.Commit(w.ctx, ops); !errors.Is(err, store.ErrFull) {
			t.Errorf("%s: %v, want full", what, err)
		}
	}
	if _, err := w.s.Commit(w.ctx, []store.Op{guarded(del("a"), r1+7)}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a delete whose guard fails: %v, want a conflict", err)
	}
	r2 := w.commit(guarded(del("a"), r1))
	w.commit(check("c", r1))
	r3 := w.commit(check("c", r1), del("b"), del("missing"))
	f.reach(t, r3)
	if got, want := text(w.load().Records), fmt.Sprintf("c=1@%d ", r1); got != want {
		t.Errorf("loaded %q, want %q", got, want)
	}
	if rev := w.barrier(); r2 <= r1 || r3 <= r2 || rev < r3 {
		t.Errorf("revisions %d, %d, %d, barrier %d", r1, r2, r3, rev)
	}
}

func fullStoreReopens(t *testing.T, kit Kit) {
	if kit.Reopen == nil {
		t.Skip("this store is not kept")
	}
	w := open(t, kit)
	w.commit(put("a", "1"), put("b", "1"))
	kit.Fill(t, w.s)
	before := w.load()
	again := kit.Reopen(t, w.s)
	t.Cleanup(func() { _ = again.Close() })
	w.s = again
	if after := w.load(); text(after.Records) != text(before.Records) || after.Epoch != before.Epoch {
		t.Errorf("opened with %q of epoch %q, want %q of %q", text(after.Records), after.Epoch, text(before.Records), before.Epoch)
	}
	if _, err := w.s.Commit(w.ctx, []store.Op{put("c", "1")}); !errors.Is(err, store.ErrFull) {
		t.Errorf("a put: %v, want full still", err)
	}
	w.commit(del("a"))
}

func largestCommit(t *testing.T, kit Kit) {
	w := open(t, kit)
	start := w.barrier()
	f := w.follow(start)
	ops := make([]store.Op, store.MaxOps)
	for i := range ops {
		key := fmt.Sprintf("%03d/%s", i, strings.Repeat("k", store.MaxKey-4))
		ops[i] = guarded(store.Op{Key: key, Value: bytes.Repeat([]byte{byte(i)}, store.MaxBytes/store.MaxOps-store.MaxKey)}, 0)
	}
	// Three of them, so that a late watch gets more than any one message likes to carry.
	var last uint64
	for range 3 {
		last = w.commit(ops...)
		for i := range ops {
			ops[i].If = last
		}
	}
	f.reach(t, last)
	late := w.follow(start)
	late.reach(t, last)
	for name, f := range map[string]*follower{"running": f, "late": late} {
		batches := f.all()
		if len(batches) != 3 {
			t.Fatalf("the %s watch got %d batches, want 3", name, len(batches))
		}
		for _, b := range batches {
			if len(b.Events) != store.MaxOps {
				t.Errorf("the %s watch got %d events of revision %d, want %d", name, len(b.Events), b.Revision, store.MaxOps)
			}
		}
	}
	if img := w.load(); text(replay(nil, late.all())) != text(img.Records) {
		t.Error("the replay is not what Load says")
	}
}

func compareAndSet(t *testing.T, kit Kit) {
	w := open(t, kit)
	const writers, rounds = 8, 20
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for done := 0; done < rounds; {
				img, err := w.s.Load(w.ctx)
				if err != nil {
					t.Errorf("load: %v", err)
					return
				}
				n, rev := 0, uint64(0)
				if len(img.Records) == 1 {
					n, _ = strconv.Atoi(string(img.Records[0].Value))
					rev = img.Records[0].Revision
				}
				_, err = w.s.Commit(w.ctx, []store.Op{guarded(put("n", strconv.Itoa(n+1)), rev)})
				switch {
				case err == nil:
					done++
				case !errors.Is(err, store.ErrConflict):
					t.Errorf("commit: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got, want := string(w.load().Records[0].Value), strconv.Itoa(writers*rounds); got != want {
		t.Errorf("counted to %s, want %s", got, want)
	}
}

func raiseEpoch(t *testing.T, kit Kit) {
	w := open(t, kit)
	w.commit(put("a", "1"))
	first := w.load()

	same, err := w.s.RaiseEpoch(w.ctx, 0)
	if err != nil || same != first.Epoch {
		t.Fatalf("raising above 0: %q, %v; want the old %q", same, err, first.Epoch)
	}
	if rev := w.barrier(); rev != first.Revision {
		t.Errorf("raising nothing moved the revision from %d to %d", first.Revision, rev)
	}

	const racers = 4
	got := make(chan string, racers)
	for range racers {
		go func() {
			e, err := w.s.RaiseEpoch(w.ctx, 6)
			got <- fmt.Sprint(e, err)
		}()
	}
	answer := <-got
	for range racers - 1 {
		if other := <-got; other != answer {
			t.Errorf("two raised at once: %q and %q", answer, other)
		}
	}
	img := w.load()
	if img.Epoch.Generation != 7 || img.Epoch.Nonce == first.Epoch.Nonce || fmt.Sprint(img.Epoch, nil) != answer {
		t.Errorf("raised above 6 from %q: answer %q, image %q", first.Epoch, answer, img.Epoch)
	}
	if text(img.Records) != text(first.Records) {
		t.Errorf("raising changed records: %q", text(img.Records))
	}
	if _, err := w.s.RaiseEpoch(w.ctx, ^uint64(0)); err == nil {
		t.Error("raising above the highest generation succeeded")
	}
}
