// Package storetest is the one suite that every store.Store must pass. It reads the promises
// of the contract one by one; a test's name is the promise it holds.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

// Region is the region of the stores that a Kit opens.
const Region api.Region = "eu-west"

// Kit says how to make and treat the stores under test.
type Kit struct {
	// Open returns a new, empty store of Region. The suite closes it; what lies below it
	// (a node, a directory) is for t.Cleanup.
	Open func(t *testing.T) store.Store
	// Reopen closes s, stops what lies below it as a crash would, and opens the same data
	// again. nil: the store is not kept.
	Reopen func(t *testing.T, s store.Store) store.Store
	// Compact makes the store forget its history before rev.
	Compact func(t *testing.T, s store.Store, rev uint64)
	// Fill leaves the store without space for puts.
	Fill func(t *testing.T, s store.Store)
}

// patience bounds every wait of the suite: generous, because it is only used up by failures.
const patience = 30 * time.Second

// Run runs the suite.
func Run(t *testing.T, kit Kit) {
	tests := []struct {
		promise string
		test    func(*testing.T, Kit)
	}{
		{"a new store is empty and has a first epoch", newStore},
		{"what is committed is loaded, in key order", commitIsLoaded},
		{"revisions rise and a commit that changes nothing takes none", revisionsRise},
		{"a commit happens whole or not at all (P5)", atomicCommit},
		{"guards hold", guards},
		{"a check guards the writes beside it and writes nothing", checks},
		{"bad commits are refused and write nothing", badCommits},
		{"a full store refuses puts, and goes on with deletes, reads and watches (P10)", fullStore},
		{"a full store opens again with everything (P11)", fullStoreReopens},
		{"the largest commit arrives as one batch (P5)", largestCommit},
		{"one of many concurrent writers wins each round", compareAndSet},
		{"a watch replays history from any revision, each batch once (P5)", watchReplays},
		{"a long history is replayed whole and in order (P5)", longHistory},
		{"all watches see the same sequence while many write (P5)", watchWhileWriting},
		{"an image is of one moment while many write", loadWhileWriting},
		{"a slow watch does not hold up another", slowWatch},
		{"progress reaches a barrier that no batch reaches, and never overtakes a batch", progressReachesBarrier},
		{"progress beats while nothing happens", progressBeats},
		{"compacted history is announced, not skipped (P5)", compaction},
		{"a revision the store has not reached is refused (P4)", watchAhead},
		{"the epoch rises once, to what was asked (P4)", raiseEpoch},
		{"apply's error and the context end a watch", watchEnds},
		{"a cancelled context ends every call", cancelledCalls},
		{"200 watches cancelled while writes flow wedge nothing (P8)", cancelledWatches},
		{"close ends everything", closing},
		{"a restart keeps records, revision, epoch and history (P11)", restart},
	}
	for _, tt := range tests {
		t.Run(strings.ReplaceAll(tt.promise, " ", "_"), func(t *testing.T) { tt.test(t, kit) })
	}
}

// world is one store and what a test needs around it.
type world struct {
	t   *testing.T
	ctx context.Context
	s   store.Store
}

func open(t *testing.T, kit Kit) world {
	t.Helper()
	s := kit.Open(t)
	t.Cleanup(func() { _ = s.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return world{t: t, ctx: ctx, s: s}
}

func put(key, value string) store.Op { return store.Op{Key: key, Value: []byte(value)} }
func del(key string) store.Op        { return store.Op{Key: key, Delete: true} }

func check(key string, rev uint64) store.Op {
	return store.Op{Key: key, Check: true, Guarded: true, If: rev}
}

func guarded(op store.Op, rev uint64) store.Op {
	op.Guarded, op.If = true, rev
	return op
}

func (w world) commit(ops ...store.Op) uint64 {
	w.t.Helper()
	rev, err := w.s.Commit(w.ctx, ops)
	if err != nil {
		w.t.Fatalf("commit: %v", err)
	}
	return rev
}

func (w world) load() store.Image {
	w.t.Helper()
	img, err := w.s.Load(w.ctx)
	if err != nil {
		w.t.Fatalf("load: %v", err)
	}
	return img
}

func (w world) barrier() uint64 {
	w.t.Helper()
	rev, err := w.s.Barrier(w.ctx)
	if err != nil {
		w.t.Fatalf("barrier: %v", err)
	}
	return rev
}

// text is an image's records, or those of a replay, in a form to compare and to print.
func text(records []store.Record) string {
	var b strings.Builder
	for _, r := range records {
		v := string(r.Value)
		if len(v) > 40 {
			v = fmt.Sprintf("%s…(%d)", v[:40], len(v))
		}
		fmt.Fprintf(&b, "%s=%s@%d ", r.Key, v, r.Revision)
	}
	return b.String()
}

// follower is a running Watch and what it has told.
type follower struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when Watch has returned

	mu       sync.Mutex
	err      error // Watch's, once done
	batches  []store.Batch
	progress []uint64
	raised   int           // how often it was told of another epoch
	broken   string        // the first broken promise
	told     chan struct{} // closed and replaced at every news
}

// follow starts a watch that checks order and uniqueness as it goes. It watches on when the epoch was raised.
func (w world) follow(from uint64) *follower {
	ctx, cancel := context.WithCancel(w.ctx)
	f := &follower{cancel: cancel, done: make(chan struct{}), told: make(chan struct{})}
	go func() {
		defer close(f.done)
		last := from
		apply := func(b store.Batch) error {
			f.news(func() {
				switch {
				case b.Revision <= last:
					f.breaks("batch %d after %d", b.Revision, last)
				case len(b.Events) == 0:
					f.breaks("batch %d is empty", b.Revision)
				case !slices.IsSortedFunc(b.Events, func(x, y store.Event) int { return strings.Compare(x.Record.Key, y.Record.Key) }):
					f.breaks("batch %d is not in key order", b.Revision)
				}
				for _, e := range b.Events {
					if e.Record.Revision != b.Revision {
						f.breaks("batch %d has an event of revision %d", b.Revision, e.Record.Revision)
					}
					if e.Delete && e.Record.Value != nil {
						f.breaks("batch %d: the delete of %s has a value", b.Revision, e.Record.Key)
					}
				}
				last = b.Revision
				f.batches = append(f.batches, b)
			})
			return nil
		}
		progress := func(rev uint64) {
			f.news(func() {
				if n := len(f.progress); rev < last || n > 0 && rev < f.progress[n-1] {
					f.breaks("progress fell to %d", rev)
				}
				last = max(last, rev)
				f.progress = append(f.progress, rev)
			})
		}
		err := store.ErrEpochRaised
		for errors.Is(err, store.ErrEpochRaised) {
			err = w.s.Watch(ctx, last, apply, progress)
			f.news(func() {
				if f.err = err; errors.Is(err, store.ErrEpochRaised) {
					f.raised++
				}
			})
		}
	}()
	w.t.Cleanup(func() { cancel(); <-f.done })
	return f
}

func (f *follower) news(note func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	note()
	close(f.told)
	f.told = make(chan struct{})
}

// breaks expects f.mu held.
func (f *follower) breaks(format string, args ...any) {
	if f.broken == "" {
		f.broken = fmt.Sprintf(format, args...)
	}
}

// until waits for what to become true of the follower; what runs with f.mu held.
func (f *follower) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		f.mu.Lock()
		good, broken, told := ok(), f.broken, f.told
		f.mu.Unlock()
		if broken != "" {
			t.Fatalf("watch: %s", broken)
		}
		if good {
			return
		}
		select {
		case <-told:
		case <-f.done:
			f.mu.Lock()
			good, err := ok(), f.err
			f.mu.Unlock()
			if !good {
				t.Fatalf("watch ended (%v) before %s", err, what)
			}
			return
		case <-limit.C:
			t.Fatalf("watch: no %s within %s", what, patience)
		}
	}
}

// reach waits until the batch of revision rev was told.
func (f *follower) reach(t *testing.T, rev uint64) {
	t.Helper()
	f.until(t, fmt.Sprintf("batch %d", rev), func() bool {
		n := len(f.batches)
		return n > 0 && f.batches[n-1].Revision >= rev
	})
}

// end waits for Watch to return and gives its error.
func (f *follower) end(t *testing.T) error {
	t.Helper()
	select {
	case <-f.done:
	case <-time.After(patience):
		t.Fatalf("watch did not end within %s", patience)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken != "" {
		t.Fatalf("watch: %s", f.broken)
	}
	return f.err
}

func (f *follower) all() []store.Batch {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.batches)
}

// replay applies batches to records, both as a reader of the store would.
func replay(records []store.Record, batches []store.Batch) []store.Record {
	m := make(map[string]store.Record, len(records))
	for _, r := range records {
		m[r.Key] = r
	}
	for _, b := range batches {
		for _, e := range b.Events {
			if e.Delete {
				delete(m, e.Record.Key)
			} else {
				m[e.Record.Key] = e.Record
			}
		}
	}
	out := make([]store.Record, 0, len(m))
	for _, r := range m {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b store.Record) int { return strings.Compare(a.Key, b.Key) })
	return out
}
