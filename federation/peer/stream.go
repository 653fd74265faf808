package peer

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	mrand "math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nearside/nearside/federation/origin"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// stream serves one reader. Everything but the atomics belongs to the handler's goroutine.
type stream struct {
	server  *Server
	query   Query
	proto   int
	id      string
	book    *book
	relay   Relay // nil: the stream tells of our own region
	session *origin.Session
	out     http.ResponseWriter
	wire    *counting // to out
	zip     *squeezer // to wire; nil when the reader takes plain frames only
	ctl     *http.ResponseController
	began   time.Time

	taken   time.Time     // no later than the picture that is being told
	age     time.Duration // that it had by then
	beat    time.Time     // when the next heartbeat is due
	due     time.Time     // since when one is due that could not be sent yet; zero = none
	pace    pace
	sending bool        // holds one of the places for many rows
	wished  float64     // last told of what this region wishes about itself
	slow    time.Time   // when a frame last took long to be taken
	again   atomic.Bool // the reader asks for all loads again

	state atomic.Pointer[streamState]
	acked atomic.Pointer[acked]
}

// streamState is what others may see of a stream.
type streamState struct {
	revision, bytes, snapshots uint64
	digest                     string
}

// acked is the reader's last word.
type acked struct {
	replica.Ack
	at     time.Time
	canary time.Duration // of the last ack that had one
}

// heard takes the reader's word.
func (st *stream) heard(a replica.Ack, now time.Time) {
	next := &acked{Ack: a, at: now}
	if before := st.acked.Load(); before != nil {
		next.canary = before.canary
	}
	if a.DueMS > 0 && a.HeldMS >= 0 {
		round := now.Sub(st.began) - time.Duration(a.DueMS)*time.Millisecond - time.Duration(a.HeldMS)*time.Millisecond
		if round >= 0 { // a reader may say anything
			next.canary = max(round, 1)
		}
	}
	st.acked.Store(next)
}

func newStream(s *Server, w http.ResponseWriter, q Query, proto int) *stream {
	st := &stream{
		server: s, query: q, proto: proto, id: rand.Text(), out: w, ctl: http.NewResponseController(w), began: time.Now(),
	}
	st.wire = &counting{out: w}
	st.state.Store(&streamState{})
	return st
}

func (st *stream) info() api.ReaderInfo {
	x := st.state.Load()
	i := api.ReaderInfo{
		Region: st.query.Reader, Since: st.began, Revision: x.revision, BytesOut: x.bytes,
		Digest: x.digest, Snapshots: x.snapshots, Node: st.query.Node, Proto: st.proto,
		WordAgeMS: time.Since(st.began).Milliseconds(),
	}
	if st.relay != nil {
		i.Origin = st.query.Origin
	}
	if a := st.acked.Load(); a != nil {
		i.WordAgeMS = time.Since(a.at).Milliseconds()
		i.Applied, i.AgeMS, i.State = a.Revision, a.AgeMS, a.State
		i.CanaryMS = int64((a.canary + time.Millisecond - 1) / time.Millisecond)
	}
	nacks := st.book.Quarantined()
	i.Quarantined = len(nacks)
	for _, n := range nacks[:min(len(nacks), api.MaxQuarantinedShown)] {
		i.QuarantinedRows = append(i.QuarantinedRows, api.QuarantinedRow{Row: n.Key, Reason: n.Reason})
	}
	return i
}

// run sends until the reader goes, the server stops, or the source fails. It returns why.
func (st *stream) run(ctx context.Context) error {
	// A server may have deadlines for ordinary requests; this one has its own, per frame.
	_ = st.ctl.SetReadDeadline(time.Time{})
	st.out.Header().Set("Content-Type", StreamType)
	st.out.Header().Set("Cache-Control", "no-store")
	if st.query.Zstd {
		st.out.Header().Set("Content-Encoding", encoding)
		st.zip = newSqueezer(st.wire)
		defer st.zip.free()
	}
	st.out.WriteHeader(http.StatusOK)
	if err := st.ctl.Flush(); err != nil {
		return err
	}
	if st.relay != nil {
		over, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		ctx = over
		go func() {
			select {
			case <-st.relay.Done():
				cancel(errMoved)
			case <-over.Done():
			}
		}()
	}
	st.session = st.book.Open(st.door(), st.query.ask(), st.proto, st.server.term())
	defer st.yield()
	for {
		told, err := st.advance(ctx)
		if err != nil {
			return st.bye(ctx, err)
		}
		if err := st.loads(); err != nil {
			return err
		}
		switch due := !time.Now().Before(st.beat); {
		case due && told && st.proto < 2 && st.wish() == st.wished:
			// A region of several nodes has a revision a second in which nothing changed. To a
			// reader of the first version a delta says so, and is the sign of life too. A later
			// one is told more by a heartbeat than where we stand.
			st.beat = time.Now().Add(HeartbeatInterval)
		case due:
			if err := st.heartbeat(); err != nil {
				return err
			}
		}
		before, _ := st.session.Led()
		wait, cancel := context.WithDeadline(ctx, st.beat)
		// It sleeps through revisions without changes; the next heartbeat tells of those.
		err = st.source().Wait(wait, before)
		due := wait.Err() != nil
		cancel()
		switch {
		case ctx.Err() != nil:
			return st.bye(ctx, ctx.Err())
		case err == nil && before.IsZero(): // the reader is to come back; there is nothing to wait for
			if err := st.idle(ctx); err != nil {
				return st.bye(ctx, err)
			}
		case err == nil:
			if err := st.pace.wait(ctx); err != nil {
				return st.bye(ctx, err)
			}
		case !due:
			return st.bye(ctx, err)
		}
		if st.source().Image().Version() == before && err == nil {
			// A source whose Wait runs ahead of its Image must not make us spin.
			st.pace.sent()
		}
	}
}

// idle waits until the next heartbeat is due.
func (st *stream) idle(ctx context.Context) error {
	select {
	case <-time.After(time.Until(st.beat)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// advance brings the reader to the newest version. told: a delta ended with that version, so
// that a heartbeat would say nothing new.
func (st *stream) advance(ctx context.Context) (told bool, err error) {
	st.take()
	for {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		var f replica.Frame
		var state origin.State
		st.session.SetWish(st.wish())
		if st.relay == nil {
			st.session.SetTerm(st.server.term())
			st.session.SetAddresses(st.server.addresses())
		}
		st.busy(func() { f, state = st.session.Next(st.source()) })
		if !st.session.Bulk() && state != origin.Turn {
			st.yield()
		}
		switch state {
		case origin.Idle, origin.Wait:
			st.note()
			return told && state == origin.Idle, nil
		case origin.Turn:
			if err := st.turn(ctx); err != nil {
				return false, err
			}
			st.take()
			continue
		}
		if err := st.write(f); err != nil {
			return false, err
		}
		told = f.Kind == replica.Delta && !f.More
		switch {
		case f.Kind == replica.SnapshotEnd:
			x := *st.state.Load()
			x.snapshots++
			st.state.Store(&x)
			st.beat = time.Time{} // confirm at once what was just sent
		case f.Kind != replica.Delta || f.More:
			continue
		}
		st.pace.sent()
		st.note()
		st.take()
	}
}

// take notes the moment at which the picture is taken that is told next, and how old it is.
func (st *stream) take() {
	st.taken, st.age = time.Now(), 0
	if st.relay != nil {
		st.age = st.relay.Age(st.taken)
	} else if heard := st.server.cfg.Heard; heard != nil {
		st.age = max(st.taken.Sub(heard()), 0)
	}
}

// waiter is a source as streams need it.
type waiter interface {
	origin.Source
	Wait(ctx context.Context, after api.Version) error
}

// source is whom the stream tells of.
func (st *stream) source() waiter {
	if st.relay != nil {
		return st.relay
	}
	return st.server.cfg.Source
}

var errMoved = errors.New("what is passed on comes from somewhere else now")

// turn waits for a place among those who send many rows, unless too many wait already: then
// the reader is to come back. Meanwhile a hello shows it that we live; a heartbeat would make
// it compare digests that it cannot match yet.
func (st *stream) turn(ctx context.Context) error {
	s := st.server
	leave := func() { s.waiting.Add(-1); st.book.queued.Add(-1) }
	line := int64(waitersPerPlace * cap(s.snapshots))
	if all, own := s.waiting.Add(1), st.book.queued.Add(1); all > line || own > max(line/2, waitersPerPlace) {
		leave()
		// Spread, so that they do not come back together.
		_ = st.write(replica.Frame{Kind: replica.Goodbye, Reason: replica.ReasonBusy, RetryMS: int64(1000 + mrand.IntN(4000))})
		return errBusy
	}
	defer leave()
	if err := st.wait(ctx, st.book.places); err != nil {
		return err
	}
	if err := st.wait(ctx, s.snapshots); err != nil {
		<-st.book.places
		return err
	}
	st.sending = true
	st.session.Admit()
	return nil
}

// wait takes a place out of some.
func (st *stream) wait(ctx context.Context, places chan struct{}) error {
	for {
		select {
		case places <- struct{}{}:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(HeartbeatInterval):
			var p origin.Page
			st.busy(func() { p = st.book.Page(st.source()) })
			if err := st.write(st.session.Hello(p)); err != nil {
				return err
			}
		}
	}
}

// waitersPerPlace is how many readers wait in line for each place.
const waitersPerPlace = 4

var errBusy = errors.New("too many readers want many rows")

// yield gives the place back.
func (st *stream) yield() {
	if st.sending {
		st.sending = false
		st.session.Dismiss()
		<-st.server.snapshots
		<-st.book.places
	}
}

// note shows others where the stream stands.
func (st *stream) note() {
	led, digest := st.session.Led()
	x := *st.state.Load()
	x.revision, x.digest = led.Revision, digest.String()
	st.state.Store(&x)
}

// heartbeat says where we stand, if the reader can use it.
func (st *stream) heartbeat() error {
	now := time.Now()
	if st.due.IsZero() {
		if st.due = st.beat; st.due.IsZero() { // wanted at once
			st.due = now
		}
	}
	st.beat = now.Add(HeartbeatInterval)
	f, ok := st.session.Heartbeat()
	if !ok || !st.query.Can.Has(replica.CanAges) && st.age > ageless {
		return st.send([]byte{'\n'}) // it stays due, and tells so when it comes
	}
	if st.proto >= 2 {
		// Changes after the picture was taken have not been sent.
		due := st.due
		if st.taken.Before(due) {
			due = st.taken
		}
		f.DueMS = max(due.Sub(st.began).Milliseconds(), 1)
		f.WireMS = max(now.Sub(st.began).Milliseconds(), f.DueMS)
		switch standings := st.server.cfg.Standings; {
		case st.relay != nil && st.query.Reader == st.server.cfg.Region:
			f.Standings = st.relay.Standings()
			f.RTTMS = int64((st.relay.RTT() + time.Millisecond - 1) / time.Millisecond)
		case standings != nil && st.relay == nil:
			f.Standings = standings()
		}
	}
	st.due = time.Time{}
	return st.write(f)
}

// ageless is how old a picture may be that is told as new to a reader that knows no ages.
const ageless = 2 * time.Second

// bye tells the reader that we stop on purpose, and returns cause.
func (st *stream) bye(ctx context.Context, cause error) error {
	moved := errors.Is(context.Cause(ctx), errMoved)
	if (st.server.ended.Err() != nil || moved) && ctx.Err() != nil {
		reason := replica.ReasonRestart
		if st.server.leaving.Load() && st.relay == nil {
			reason = replica.ReasonForget
		}
		_ = st.write(replica.Frame{Kind: replica.Goodbye, Reason: reason}) // best effort
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

// wish is what the region that is told of wishes about itself.
func (st *stream) wish() float64 {
	if st.relay != nil {
		return st.relay.Drained()
	}
	if st.server.cfg.Drained == nil {
		return 0
	}
	return st.server.cfg.Drained()
}

func (st *stream) write(f replica.Frame) error {
	switch f.Kind {
	case replica.Hello, replica.Heartbeat:
		st.wished = f.Drained
	}
	if f.Kind == replica.Hello {
		f.Echo = st.query.echo
	}
	switch f.Kind {
	case replica.Heartbeat, replica.Delta:
		// The moment that it is true of, not that of its sending: rows may take long to make.
		f.SentMS = max(st.taken.Sub(st.began).Milliseconds(), 0)
		f.AgeMS = (st.age + time.Millisecond - 1).Milliseconds()
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
	before, began := st.wire.n, time.Now()
	if st.zip != nil {
		if err := st.zip.write(line); err != nil {
			return err
		}
	} else if _, err := st.wire.Write(line); err != nil {
		return err
	}
	if err := st.ctl.Flush(); err != nil {
		return err
	}
	if now := time.Now(); now.Sub(began) > slowWrite {
		st.slow = now
	}
	n := uint64(st.wire.n - before) // what went over the wire
	st.book.bytes.Add(n)
	x := *st.state.Load()
	x.bytes += n
	st.state.Store(&x)
	return nil
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
