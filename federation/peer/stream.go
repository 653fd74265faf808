package peer

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// stream serves one reader. Everything but the atomics belongs to the handler's goroutine.
type stream struct {
	server *Server
	query  Query
	book   *book
	out    http.ResponseWriter
	ctl    *http.ResponseController
	began  time.Time

	told  api.Epoch // of the last hello
	sent  api.Version
	pages page      // at sent
	beat  time.Time // when the next heartbeat is due
	pace  pace

	state atomic.Pointer[streamState]
}

// streamState is what others may see of a stream.
type streamState struct {
	revision, bytes, snapshots uint64
	digest                     string
}

func newStream(s *Server, w http.ResponseWriter, q Query) *stream {
	st := &stream{server: s, query: q, out: w, ctl: http.NewResponseController(w), began: time.Now()}
	st.state.Store(&streamState{})
	return st
}

func (st *stream) info() api.ReaderInfo {
	x := st.state.Load()
	return api.ReaderInfo{
		Region: st.query.Reader, Since: st.began, Revision: x.revision, BytesOut: x.bytes,
		Digest: x.digest, Snapshots: x.snapshots,
	}
}

// run sends until the reader goes, the server stops, or the source fails. It returns why.
func (st *stream) run(ctx context.Context) error {
	// A server may have deadlines for ordinary requests; this one has its own, per frame.
	_ = st.ctl.SetReadDeadline(time.Time{})
	st.out.Header().Set("Content-Type", StreamType)
	st.out.Header().Set("Cache-Control", "no-store")
	st.out.WriteHeader(http.StatusOK)
	if err := st.ctl.Flush(); err != nil {
		return err
	}
	src := st.server.cfg.Source
	if v := src.Image().Version(); !st.query.Full && st.query.Have.Epoch == v.Epoch {
		st.sent = st.query.Have
	}
	for {
		if err := st.advance(ctx); err != nil {
			return st.bye(ctx, err)
		}
		if !time.Now().Before(st.beat) {
			if err := st.heartbeat(); err != nil {
				return err
			}
		}
		before := st.sent
		wait, cancel := context.WithDeadline(ctx, st.beat)
		err := src.Wait(wait, st.sent)
		due := wait.Err() != nil
		cancel()
		switch {
		case ctx.Err() != nil:
			return st.bye(ctx, ctx.Err())
		case err == nil:
			if err := st.pace.wait(ctx); err != nil {
				return st.bye(ctx, err)
			}
		case !due:
			return st.bye(ctx, err)
		}
		if src.Image().Version() == before && err == nil {
			// A source whose Wait runs ahead of its Image must not make us spin.
			st.pace.sent()
		}
	}
}

// advance brings the reader to the newest version.
func (st *stream) advance(ctx context.Context) error {
	if !st.sent.IsZero() {
		var frames []replica.Frame
		var p page
		var ok bool
		st.busy(func() { frames, p, ok = st.book.delta(st.server.cfg.Source, st.sent) })
		if !ok && st.sameRows(p) {
			frames, ok = []replica.Frame{{
				Kind: replica.Delta, Epoch: p.version.Epoch, From: st.sent.Revision, To: p.version.Revision, Digest: p.digest,
			}}, true
		}
		if ok {
			if err := st.greet(p); err != nil {
				return err
			}
			for _, f := range frames {
				if err := st.write(f); err != nil {
					return err
				}
			}
			if len(frames) > 0 {
				st.pace.sent()
			}
			st.at(p)
			return nil
		}
	}
	return st.snapshot(ctx)
}

// sameRows reports whether the reader, which has had nothing from this stream yet, holds
// exactly our rows at an older revision: after our restart the history is gone, but in a
// quiet region nothing has changed.
func (st *stream) sameRows(p page) bool {
	return st.sent == st.query.Have && st.query.Digest == p.digest &&
		st.sent.Epoch == p.version.Epoch && st.sent.Revision < p.version.Revision
}

// greet says hello at the beginning and after a change of epoch.
func (st *stream) greet(p page) error {
	if st.told == p.version.Epoch {
		return nil
	}
	st.told = p.version.Epoch
	return st.hello(p)
}

func (st *stream) hello(p page) error {
	cfg := &st.server.cfg
	return st.write(replica.Frame{
		Kind: replica.Hello, Proto: replica.Proto, Region: cfg.Region, Node: cfg.Node, Complete: true,
		Epoch: p.version.Epoch, Head: p.version.Revision, Digest: p.digest, Addresses: cfg.Addresses,
	})
}

func (st *stream) snapshot(ctx context.Context) error {
	if err := st.turn(ctx); err != nil {
		return err
	}
	defer func() { <-st.server.snapshots }()
	var p page
	st.busy(func() { p = st.book.page(st.server.cfg.Source) })
	if err := st.greet(p); err != nil {
		return err
	}
	if err := st.write(replica.Frame{Kind: replica.SnapshotBegin, Epoch: p.version.Epoch, To: p.version.Revision}); err != nil {
		return err
	}
	keys := p.image.Services()
	if !slices.IsSortedFunc(keys, compareKeys) {
		keys = slices.SortedFunc(slices.Values(keys), compareKeys)
	}
	chunks := chunker{book: st.book, image: p.image, keys: keys, epoch: p.version.Epoch}
	for {
		var f replica.Frame
		var ok bool
		st.busy(func() { f, ok = chunks.next() })
		if !ok {
			break
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := st.write(f); err != nil {
			return err
		}
	}
	x := *st.state.Load()
	x.snapshots++
	st.state.Store(&x)
	err := st.write(replica.Frame{Kind: replica.SnapshotEnd, Epoch: p.version.Epoch, To: p.version.Revision, Count: p.rows, Digest: p.digest})
	st.pace.sent()
	st.at(p)
	st.beat = time.Time{} // confirm at once what was just sent
	return err
}

// turn waits for a place among those who send a snapshot. Meanwhile a hello shows the
// reader that we live; a heartbeat would make it compare digests that it cannot match yet.
func (st *stream) turn(ctx context.Context) error {
	for {
		select {
		case st.server.snapshots <- struct{}{}:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(HeartbeatInterval):
			var p page
			st.busy(func() { p = st.book.page(st.server.cfg.Source) })
			st.told = p.version.Epoch
			if err := st.hello(p); err != nil {
				return err
			}
		}
	}
}

func (st *stream) at(p page) {
	st.sent, st.pages = p.version, p
	st.pages.image = nil // let an old catalogue go
	x := *st.state.Load()
	x.revision, x.digest = p.version.Revision, p.digest.String()
	st.state.Store(&x)
}

// heartbeat says where we stand. It has the same size in good times and bad.
func (st *stream) heartbeat() error {
	st.beat = time.Now().Add(HeartbeatInterval)
	head := st.server.cfg.Source.Image().Version()
	if head.Epoch != st.sent.Epoch {
		return nil // advance will say it with a hello
	}
	return st.write(replica.Frame{Kind: replica.Heartbeat, Epoch: head.Epoch, Head: head.Revision, Digest: st.pages.digest})
}

// bye tells the reader that we stop on purpose, and returns cause.
func (st *stream) bye(ctx context.Context, cause error) error {
	if st.server.ended.Err() != nil && ctx.Err() != nil {
		_ = st.write(replica.Frame{Kind: replica.Goodbye, Reason: replica.ReasonRestart}) // best effort
	}
	return cause
}

// busy does work that may take seconds in a large region or on a loaded node, and meanwhile
// sends empty lines, so that the reader does not take us for dead: it would come back and
// make us do the work again. work must not write.
func (st *stream) busy(work func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(HeartbeatInterval)
		defer t.Stop()
		for {
			select {
			case <-done:
				return
			case <-t.C:
				_ = st.send([]byte{'\n'}) // the next frame meets the same error
			}
		}
	})
	work()
	close(done)
	wg.Wait()
}

func (st *stream) write(f replica.Frame) error {
	switch f.Kind {
	case replica.Heartbeat, replica.Delta:
		f.SentMS = time.Since(st.began).Milliseconds()
	}
	line, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return st.send(append(line, '\n'))
}

func (st *stream) send(line []byte) error {
	// A reader that does not take a frame in time loses its stream, and resumes by version.
	_ = st.ctl.SetWriteDeadline(time.Now().Add(WriteLimit))
	if _, err := st.out.Write(line); err != nil {
		return err
	}
	if err := st.ctl.Flush(); err != nil {
		return err
	}
	st.book.bytes.Add(uint64(len(line)))
	x := *st.state.Load()
	x.bytes += uint64(len(line))
	st.state.Store(&x)
	return nil
}

func compareKeys(a, b api.ServiceKey) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Service, b.Service))
}

// pace spreads deltas under churn: the first change goes at once, and while changes go on
// the distance between two deltas doubles up to MaxCoalesce. A quiet moment resets it.
type pace struct {
	last time.Time
	gap  time.Duration
}

const minCoalesce = 12 * time.Millisecond

// wait returns when the next delta may be sent.
func (p *pace) wait(ctx context.Context) error {
	left := time.Until(p.last.Add(p.gap))
	if left <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(left)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sent notes that a delta went out.
func (p *pace) sent() {
	now := time.Now()
	if now.Sub(p.last) > 2*MaxCoalesce {
		p.gap = minCoalesce
	} else {
		p.gap = min(max(p.gap*2, minCoalesce), MaxCoalesce)
	}
	p.last = now
}
