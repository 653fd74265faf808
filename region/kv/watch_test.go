package kv

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

// stream is a watch whose frames are kept.
type stream struct {
	t      *testing.T
	cancel context.CancelFunc
	end    chan error

	mu     sync.Mutex
	frames []api.Frame
	gate   chan struct{} // when not nil, taking a frame waits for it
}

func (b *bed) watch(q WatchQuery, gate chan struct{}) *stream {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &stream{t: b.t, cancel: cancel, end: make(chan error, 1), gate: gate}
	go func() { s.end <- b.Watch(ctx, q, s.take) }()
	b.t.Cleanup(func() { cancel(); <-s.end; s.end <- nil })
	synctest.Wait()
	return s
}

func (s *stream) take(f api.Frame) error {
	if s.gate != nil {
		<-s.gate
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frames = append(s.frames, f)
	return nil
}

func (s *stream) drain() []api.Frame {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.frames
	s.frames = nil
	return f
}

// next returns the frames since the last call in short form.
func (s *stream) next() string {
	var out []string
	for _, f := range s.drain() {
		switch {
		case f.KV == nil:
			out = append(out, string(f.Kind))
		default:
			what := string(f.Kind)
			if f.Kind == api.FrameChange {
				what = string(f.Op)
			}
			value := "(" + string(f.KV.Value) + ")"
			if f.KV.Value == nil {
				value = ""
			}
			more := ""
			if f.More {
				more = "+"
			}
			out = append(out, what+" "+f.KV.Key+value+more)
		}
	}
	return strings.Join(out, ", ")
}

// P5: items, synced, changes of the prefix in order, bookmarks, resume.
func TestWatchKeys(t *testing.T) {
	withTable(t, Config{}, func(t *testing.T, b *bed) {
		b.mustPut("app/b", "1")
		b.mustPut("app/a", "")
		b.mustPut("other", "1")
		w := b.watch(WatchQuery{Prefix: "app/"}, nil)
		b.want(w.next(), "item app/a(), item app/b(1), synced")
		b.mustPut("app/c", "2")
		b.mustPut("other", "2")
		_, _, _ = b.Put(t.Context(), PutQuery{Namespace: "shop", Key: "app/x", Value: []byte("3")})
		_ = b.delete("app/a")
		b.want(w.next(), "put app/c(2), delete app/a")
		names := b.watch(WatchQuery{Prefix: "app/", KeysOnly: true}, nil)
		b.want(names.next(), "item app/b, item app/c, synced")

		// Registrations of instances wake no watch, but a bookmark tells how far it is.
		if _, _, err := b.registry.Register(t.Context(), api.InstanceKey{Service: "orders", ID: "a"}, api.Registration{Address: "10.0.0.1", Port: 1}); err != nil {
			t.Fatal(err)
		}
		b.want(w.next(), "")
		pass(api.BookmarkInterval)
		frames := w.drain()
		if len(frames) != 1 || frames[0].Kind != api.FrameBookmark || frames[0].Version != b.registry.Snapshot().Version() {
			t.Errorf("%+v, head %s", frames, b.registry.Snapshot().Version())
		}

		from := frames[0].Version
		b.mustPut("app/d", "4")
		b.want(b.watch(WatchQuery{Prefix: "app/", From: from}, nil).next(), "synced, put app/d(4)")
		b.want(b.watch(WatchQuery{Prefix: "app/", From: api.Version{Region: "us-east", Epoch: from.Epoch, Revision: 1}}, nil).next(),
			"reset, item app/b(1), item app/c(2), item app/d(4), synced")
	})
}

func TestWatchIsTornByResets(t *testing.T) {
	withTable(t, Config{}, func(t *testing.T, b *bed) {
		b.mustPut("a", "1")
		w := b.watch(WatchQuery{}, nil)
		b.want(w.next(), "item a(1), synced")
		if err := b.registry.RaiseEpoch(t.Context(), 7); err != nil {
			t.Fatal(err)
		}
		b.want(w.next(), "reset, item a(1), synced")
		b.mustPut("a", "2")
		b.want(w.next(), "put a(2)")
		e, st, err := b.Get(t.Context(), KeyQuery{Key: "a"})
		if err != nil || st.Version.Epoch.Generation != 8 || string(e.Value) != "2" {
			t.Errorf("%+v %+v %v", e, st, err)
		}
		// Nor can one that nobody was ever at.
		ahead := st.Version
		ahead.Revision += 1000
		late := b.watch(WatchQuery{From: ahead}, nil)
		pass(2 * time.Second)
		b.want(late.next(), "reset, item a(2), synced")
		_, st, _ = b.Get(t.Context(), KeyQuery{Key: "a"})
		// A version from before the node's start cannot be resumed from there.
		old := st.Version
		old.Revision = 1
		again := newNode(t, Config{}, b.store)
		b.want(again.watch(WatchQuery{From: old}, nil).next(), "reset, item a(2), synced")
	})
}

// P5, P8: a reader that takes nothing holds up nobody, and is told when it fell off.
func TestSlowWatcherGetsAReset(t *testing.T) {
	withTable(t, Config{}, func(t *testing.T, b *bed) {
		gate := make(chan struct{})
		slow := b.watch(WatchQuery{}, gate)
		gate <- struct{}{} // synced
		big := strings.Repeat("x", api.MaxKVValueBytes)
		for i := range 3 * historyBytes / api.MaxKVValueBytes {
			b.mustPut("a", big[:api.MaxKVValueBytes-1]+fmt.Sprint(i%10))
		}
		close(gate)
		got := slow.drain()
		var kinds []string
		for _, f := range got {
			if f.Kind != api.FrameBookmark {
				kinds = append(kinds, string(f.Kind))
			}
		}
		text := strings.Join(kinds, " ")
		if !strings.HasPrefix(text, "synced change") || !strings.Contains(text, "reset item synced") || len(kinds) > 20 {
			t.Errorf("%d frames: %.300s", len(kinds), text)
		}
	})
}

// Several changes of one commit come together.
func TestWatchKeepsCommitsTogether(t *testing.T) {
	withTable(t, Config{}, func(t *testing.T, b *bed) {
		w := b.watch(WatchQuery{Prefix: "a"}, nil)
		b.want(w.next(), "synced")
		_, err := b.store.Commit(t.Context(), []store.Op{
			{Key: RecordKey("default", "a/2"), Value: encode([]byte("2"), 0)},
			{Key: RecordKey("default", "b"), Value: encode(nil, 0)},
			{Key: RecordKey("default", "a/1"), Value: encode([]byte("1"), 0)},
		})
		if err != nil {
			t.Fatal(err)
		}
		b.want(w.next(), "put a/1(1)+, put a/2(2)")
	})
}

func TestWatchesAreCountedWithTheOthers(t *testing.T) {
	withTable(t, Config{}, func(t *testing.T, b *bed) {
		b.cfg.Registry = full{b.registry}
		b.wantCode(b.Watch(t.Context(), WatchQuery{}, nil), api.CodeTooManyRequests)
	})
}

type full struct{ *registry.Registry }

func (full) OpenWatch() (func(), error) { return nil, api.Errorf(api.CodeTooManyRequests, "full") }

// P5: a watcher that applies frames, is cut off at random and resumes has what a read has.
func TestWatchersConverge(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	withTable(t, Config{}, func(t *testing.T, b *bed) {
		rng := rand.New(rand.NewPCG(seed, 1))
		have := map[string]string{}
		var stale map[string]bool // set between a reset and its synced
		var from api.Version
		var w *stream
		apply := func() {
			for _, f := range w.drain() {
				switch f.Kind {
				case api.FrameReset:
					stale = map[string]bool{}
					for k := range have {
						stale[k] = true
					}
				case api.FrameItem, api.FrameChange:
					delete(stale, f.KV.Key)
					if f.Op == api.OpDelete {
						if _, ok := have[f.KV.Key]; !ok {
							t.Errorf("delete of %s, which was not told", f.KV.Key)
						}
						delete(have, f.KV.Key)
						break
					}
					have[f.KV.Key] = string(f.KV.Value)
				case api.FrameSynced:
					for k := range stale {
						delete(have, k)
					}
					stale = nil
				}
				if f.Kind != api.FrameItem && f.Kind != api.FrameReset && !f.More {
					if f.Version.Revision < from.Revision {
						t.Errorf("revision %d after %d", f.Version.Revision, from.Revision)
					}
					from = f.Version
				}
			}
		}
		w = b.watch(WatchQuery{Prefix: "k"}, nil)
		for i := range 600 {
			key := fmt.Sprint([]string{"k", "j"}[rng.IntN(2)], rng.IntN(20))
			if rng.IntN(3) == 0 {
				_ = b.delete(key)
			} else {
				b.mustPut(key, fmt.Sprint(i))
			}
			if rng.IntN(10) == 0 {
				apply()
				w.cancel()
				w = nil
			}
			if w == nil {
				w = b.watch(WatchQuery{Prefix: "k", From: from}, nil)
			}
		}
		apply()
		l, _, err := b.List(t.Context(), ListQuery{Prefix: "k"})
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{}
		for _, e := range l.Entries {
			want[e.Key] = string(e.Value)
		}
		if fmt.Sprint(have) != fmt.Sprint(want) {
			t.Errorf("watcher has %v\nregion has %v", have, want)
		}
	})
}
