package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nearside/nearside/region/store"
)

// pulse is how often a watch looks whether it has heard of etcd; maxSilence pulses without
// a word end it. On every pulse etcd is asked for the watch's progress and for its head.
// Either its progress comes, or the head is what the watch has seen (etcd tells no progress
// of a watch that was opened at the head and has nothing to tell), or something is wrong:
// the connection, etcd, or the watch itself. A head below what the watch had seen when it
// was asked for is another history's: it ends the watch with ErrCompacted. More pulses than needed: after this process
// was stopped and continued the first one comes before the answers that wait.
const (
	pulse      = time.Second
	maxSilence = 5
	// askAgain is how long a watch that a Barrier waits for gives etcd to answer: there is
	// no answer while a watch catches up, and an old one from a member that lags.
	askAgain = 50 * time.Millisecond
)

// watch is one running Watch. Its fields but seen and wake belong to Watch's goroutine.
type watch struct {
	seen   atomic.Uint64 // everything up to this revision was told
	wanted atomic.Uint64 // the newest Barrier that was ahead of seen; guarded by Store.mu for writing
	wake   chan struct{} // buffered 1: wanted has risen

	apply    func(store.Batch) error
	progress func(uint64)
}

// nudge makes every watch that is behind rev ask etcd for its progress: rev may be the
// epoch's, or another user's of the same etcd, and then no batch will tell of it.
func (s *Store) nudge(rev uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.watches {
		if w.seen.Load() < rev && w.wanted.Load() < rev {
			w.wanted.Store(rev)
			select {
			case w.wake <- struct{}{}:
			default:
			}
		}
	}
}

// Watch implements store.Store. Each call has a gRPC stream of its own, so a slow or a
// cancelled one does not touch the others.
//
// etcd delivers all events of a revision in one response unless the watch asks for
// fragments (server/v3 3.7.3: mvcc eventBatch.add cuts only between revisions, and a synced
// watcher gets a transaction's events in one piece); we never ask, so each response is a
// sequence of whole batches. storetest commits the largest batches there are to hold that.
func (s *Store) Watch(ctx context.Context, from uint64, apply func(store.Batch) error, progress func(revision uint64)) error {
	if s.ctx.Err() != nil {
		return store.ErrClosed
	}
	if from >= math.MaxInt64 {
		return fmt.Errorf("%w: there is no revision %d", store.ErrCompacted, from)
	}
	if err := s.open(ctx); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	w := &watch{wake: make(chan struct{}, 1), apply: apply, progress: progress}
	w.seen.Store(from)
	s.mu.Lock()
	s.watches[w] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.watches, w)
		s.mu.Unlock()
	}()

	wctx, cancel := context.WithCancel(ctx)
	defer context.AfterFunc(s.ctx, cancel)()
	// Without it a watch on a member that lost its cluster hangs silently.
	wctx = clientv3.WithRequireLeader(wctx)

	watcher := clientv3.NewWatcher(s.client)
	var helpers sync.WaitGroup // what this watch started; ends with wctx
	defer func() {
		cancel()
		_ = watcher.Close() // its error is that of the stream, which was told before
		helpers.Wait()
	}()
	// Watch blocks until etcd has answered, so while etcd is away it must not run here.
	opened := make(chan clientv3.WatchChan, 1)
	helpers.Go(func() {
		opened <- watcher.Watch(wctx, root, clientv3.WithPrefix(), clientv3.WithRev(int64(from)+1), clientv3.WithCreatedNotify())
	})
	limit := time.NewTimer(s.cfg.RequestTimeout)
	defer limit.Stop()
	select {
	case ch := <-opened:
		return s.follow(ctx, wctx, w, watcher, ch, &helpers)
	case <-limit.C:
		return fmt.Errorf("%w: etcd at %v did not open a watch within %s", store.ErrUnavailable, s.cfg.Endpoints, s.cfg.RequestTimeout)
	case <-wctx.Done():
		return s.ended(ctx)
	}
}

// follow delivers what comes from ch until something ends it.
func (s *Store) follow(ctx, wctx context.Context, w *watch, watcher clientv3.Watcher, ch clientv3.WatchChan, helpers *sync.WaitGroup) error {
	tick := time.NewTicker(pulse)
	defer tick.Stop()
	again := time.NewTimer(askAgain)
	defer again.Stop()
	type answer struct{ head, seen uint64 } // of the store, 0 for none; of the watch, when it asked
	heads := make(chan answer, 1)
	asking := false // a helper is at work that will send to heads
	silence := 0
	for {
		select {
		case resp, ok := <-ch:
			if !ok {
				return s.ended(ctx)
			}
			silence = 0
			if err := s.take(ctx, w, resp); err != nil {
				return err
			}
		case <-w.wake:
			s.askProgress(wctx, watcher)
			again.Reset(askAgain)
		case <-again.C:
			if w.seen.Load() < w.wanted.Load() {
				s.askProgress(wctx, watcher)
				again.Reset(askAgain)
			}
		case <-tick.C:
			if silence++; silence > maxSilence {
				return fmt.Errorf("%w: the watch on etcd at %v heard nothing for %s", store.ErrUnavailable, s.cfg.Endpoints, maxSilence*pulse)
			}
			s.askProgress(wctx, watcher)
			if !asking {
				asking = true
				seen := w.seen.Load()
				helpers.Go(func() { heads <- answer{s.head(wctx), seen} })
			}
		case a := <-heads:
			asking = false
			switch {
			case a.head == 0:
			case a.head < a.seen:
				// The read was linearizable, so this is no member that lags. etcd would stay silent
				// until it has caught up, and then tell of other writes under revisions already told.
				return wentBack(a.seen, a.head)
			case a.head <= w.seen.Load():
				silence = 0
				w.tell(a.head)
			}
		case <-wctx.Done():
			return s.ended(ctx)
		}
	}
}

// askProgress may find the stream broken and being opened again; the answer, or the lack of
// one, tells.
func (s *Store) askProgress(wctx context.Context, watcher clientv3.Watcher) {
	actx, cancel := context.WithTimeout(wctx, pulse/2)
	defer cancel()
	_ = watcher.RequestProgress(actx)
}

// head asks for the store's revision; 0 when there is no answer.
func (s *Store) head(wctx context.Context) uint64 {
	rctx, done := s.request(wctx)
	defer done()
	resp, err := s.client.Get(rctx, epochKey, clientv3.WithKeysOnly())
	if err != nil {
		return 0
	}
	return uint64(resp.Header.Revision)
}

// tell passes on that nothing more will come up to rev. It does so also when that is no
// news: that the store answers is.
func (w *watch) tell(rev uint64) {
	rev = max(rev, w.seen.Load())
	w.seen.Store(rev)
	if w.progress != nil {
		w.progress(rev)
	}
}

// take handles one response.
func (s *Store) take(ctx context.Context, w *watch, resp clientv3.WatchResponse) error {
	if err := resp.Err(); err != nil {
		if errors.Is(err, context.Canceled) {
			return s.ended(ctx)
		}
		return s.translate(ctx, err)
	}
	if resp.Created {
		return s.checkAhead(ctx, w.seen.Load(), uint64(resp.Header.Revision))
	}
	if resp.IsProgressNotify() {
		w.tell(uint64(resp.Header.Revision))
		return nil
	}
	for events := resp.Events; len(events) > 0; {
		rev := events[0].Kv.ModRevision
		n := 1
		for n < len(events) && events[n].Kv.ModRevision == rev {
			n++
		}
		// The client opens a broken stream again by itself, from what it last received; that
		// nothing comes twice is promised here, so it is also checked here.
		if uint64(rev) > w.seen.Load() {
			if err := w.tellEvents(uint64(rev), events[:n]); err != nil {
				return err
			}
		}
		events = events[n:]
	}
	return nil
}

// tellEvents passes on what one commit changed. One that changed the epoch's record is ours, and changed
// nothing else, or somebody deleted it together with records: then these are not passed on, for nobody deregistered.
func (w *watch) tellEvents(rev uint64, events []*clientv3.Event) error {
	meta := func(e *clientv3.Event) bool { return !strings.HasPrefix(string(e.Kv.Key), dataRoot) }
	for _, e := range events {
		if string(e.Kv.Key) == epochKey {
			w.tell(rev)
			return store.ErrEpochRaised
		}
	}
	if events = slices.DeleteFunc(events, meta); len(events) == 0 {
		w.tell(rev)
		return nil
	}
	if err := w.apply(batch(rev, events)); err != nil {
		return err
	}
	w.seen.Store(rev)
	return nil
}

func batch(rev uint64, events []*clientv3.Event) store.Batch {
	b := store.Batch{Revision: rev, Events: make([]store.Event, len(events))}
	for i, e := range events {
		b.Events[i].Record = record(e.Kv)
		if e.Type == clientv3.EventTypeDelete {
			b.Events[i].Delete = true
			b.Events[i].Record.Value = nil
		}
	}
	// etcd keeps the order of the operations.
	slices.SortFunc(b.Events, func(x, y store.Event) int { return strings.Compare(x.Record.Key, y.Record.Key) })
	return b
}

// checkAhead refuses a watch from a revision that the store has not reached: it holds an
// older history (a restored backup), and would stay silent until it has caught up. A member
// that merely lags behind its cluster is told apart by a linearizable read.
func (s *Store) checkAhead(ctx context.Context, from, created uint64) error {
	if from <= created {
		return nil
	}
	head, err := s.Barrier(ctx)
	if err != nil {
		return err
	}
	if from > head {
		return wentBack(from, head)
	}
	return nil
}

func wentBack(seen, head uint64) error {
	return fmt.Errorf("%w: the store is at revision %d and was at %d, as if restored from a backup", store.ErrCompacted, head, seen)
}

// ended says why a watch's context or channel has ended.
func (s *Store) ended(ctx context.Context) error {
	switch {
	case s.ctx.Err() != nil:
		return store.ErrClosed
	case ctx.Err() != nil:
		return ctx.Err()
	default:
		return fmt.Errorf("%w: etcd at %v ended the watch", store.ErrUnavailable, s.cfg.Endpoints)
	}
}
