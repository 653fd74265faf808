package mesh

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

const (
	tickInterval = time.Second     // held rows, disk
	pingInterval = 5 * time.Second // measuring the round trip
	firstPings   = 100 * time.Millisecond
)

// Link states as the API shows them.
const (
	linkConnected   = "connected"
	linkUnreachable = "unreachable"
)

// link keeps the replica of one peer. Everything but state, kicks and the atomics belongs to
// the goroutine in run.
type link struct {
	mesh      *Mesh
	peer      api.Region
	addresses []string
	log       *slog.Logger
	ring      *peer.Ring
	backoff   peer.Backoff
	replica   *replica.Replica
	disk      *disk
	kicks     chan struct{} // the peer was heard of; capacity 1

	connected bool
	since     time.Time // of the last change of connected
	lastError string
	attempts  int // since the last success
	warned    bool
	rtt       time.Duration

	state     atomic.Pointer[linkState]
	bytes     atomic.Uint64
	frames    atomic.Uint64
	snapshots atomic.Uint64
}

// linkState is what others may see: immutable, replaced as a whole.
type linkState struct {
	view      replica.View
	connected bool
	since     time.Time
	lastError string
	attempts  int
}

func newLink(m *Mesh, region api.Region, addresses []string, dir string) *link {
	now := time.Now()
	l := &link{
		mesh: m, peer: region, addresses: addresses, log: m.log.With("peer", region),
		ring: peer.NewRing(addresses), kicks: make(chan struct{}, 1), since: now,
	}
	l.disk = newDisk(dir, region, l.log)
	l.replica = l.disk.load(m.cfg.Region, region, now)
	l.publish()
	return l
}

// publish shows the present state to readers.
func (l *link) publish() {
	l.state.Store(&linkState{
		view: l.replica.View(), connected: l.connected, since: l.since, lastError: l.lastError, attempts: l.attempts,
	})
}

// run owns the link until ctx ends.
func (l *link) run(ctx context.Context) {
	go l.disk.run() // ended by finish
	tick := time.NewTicker(tickInterval)
	defer tick.Stop()
	for ctx.Err() == nil {
		err := l.session(ctx, tick.C)
		if ctx.Err() != nil {
			break
		}
		l.down(err)
		l.pause(ctx, err, tick.C)
	}
	l.disk.finish(l.replica.Save)
}

// event is one thing that a session's receiver tells the owner.
type event struct {
	opened string // the address that was connected to; a frame follows
	frame  replica.Frame
	rtt    time.Duration
	err    error // the session is over
}

// session connects and follows the peer until the stream ends. It returns why.
func (l *link) session(ctx context.Context, tick <-chan time.Time) error {
	ctx, cancel := context.WithCancel(ctx)
	events := make(chan event)
	query := peer.Query{
		Reader: l.mesh.cfg.Region, Node: l.mesh.cfg.Node, Origin: l.peer,
		Have: l.replica.Have(), Digest: l.state.Load().view.Digest, Full: l.replica.WantsSnapshot(),
	}
	var wg sync.WaitGroup
	wg.Go(func() { l.receive(ctx, &wg, query, events) })
	defer wg.Wait()
	defer cancel()
	first := true
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-tick:
			l.tick(now)
		case ev := <-events:
			switch {
			case ev.err != nil:
				return ev.err
			case ev.rtt > 0:
				l.roundTrip(ev.rtt)
				continue
			case ev.opened != "":
				l.replica.Connect(time.Now())
				continue
			}
			if err := l.step(ev.frame); err != nil {
				l.ring.Skip()
				return err
			}
			if first && ev.frame.Kind == replica.Hello {
				l.up(ev.frame)
				first = false
			}
			l.publish()
		}
	}
}

// receive connects and passes frames on; it ends with an event that carries an error.
func (l *link) receive(ctx context.Context, wg *sync.WaitGroup, q peer.Query, events chan<- event) {
	tell := func(ev event) bool {
		select {
		case events <- ev:
			return true
		case <-ctx.Done():
			return false
		}
	}
	var stream *peer.Stream
	var hello replica.Frame
	address, err := l.ring.Try(ctx, func(ctx context.Context, address string) (err error) {
		stream, err = l.mesh.client.Open(ctx, address, q, func(n int) { l.bytes.Add(uint64(n)) })
		if err != nil {
			return err
		}
		// An address counts as working when it greets, not when it accepts.
		if hello, err = stream.Next(); err != nil {
			stream.Close()
		}
		return err
	})
	if err != nil {
		tell(event{err: err})
		return
	}
	defer stream.Close()
	wg.Go(func() { l.measure(ctx, address, q, tell) })
	if !tell(event{opened: address}) || !tell(event{frame: hello}) {
		return
	}
	for {
		f, err := stream.Next()
		if err != nil {
			tell(event{err: err})
			return
		}
		if !tell(event{frame: f}) {
			return
		}
	}
}

// measure pings the peer now and then on a connection of its own.
func (l *link) measure(ctx context.Context, address string, q peer.Query, tell func(event) bool) {
	// Several at once in the beginning: a single one may have been held up, and the order
	// of regions follows from it.
	t := time.NewTicker(firstPings)
	defer t.Stop()
	fresh := true
	for n := 1; ; n++ {
		if n == 4 {
			t.Reset(pingInterval)
		}
		if fresh {
			// The first ping pays for the connection and is not counted.
			_, _, err := l.mesh.client.Ping(ctx, address, q)
			fresh = err != nil
		}
		if !fresh {
			rtt, _, err := l.mesh.client.Ping(ctx, address, q)
			fresh = err != nil
			if err == nil && !tell(event{rtt: max(rtt, 1)}) {
				return
			}
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// roundTrip smooths a measurement into the round-trip time. A shorter one counts fully: all
// that can make a ping shorter is that the network is.
func (l *link) roundTrip(d time.Duration) {
	if l.rtt == 0 || d < l.rtt {
		l.rtt = d
	} else {
		l.rtt += (d - l.rtt) / 4
	}
	l.replica.SetRTT(l.rtt)
	l.publish()
}

// step takes one frame. An error ends the session.
func (l *link) step(f replica.Frame) error {
	l.frames.Add(1)
	now := time.Now()
	eff := l.replica.Step(f, now)
	if eff.Snapshot {
		l.snapshots.Add(1)
	}
	if eff.Held > 0 {
		l.log.Warn("the peer lost many services at once; they are kept for a while", "services", eff.Held, "for", replica.HoldFor)
	}
	if eff.Refused == replica.RefusedRow {
		l.log.Warn("a row of the peer is not valid and is not used; its last good form is")
	}
	if eff.Applied {
		l.disk.dirty = true
	}
	if eff.Confirmed {
		l.backoff.Reset()
		l.disk.confirmed = now
	}
	if eff.Changed {
		l.publish() // before those who wait look
		l.mesh.announce()
	}
	switch {
	case eff.Err != nil:
		return eff.Err
	case eff.Goodbye:
		return errGoodbye
	}
	return nil
}

var errGoodbye = errors.New("the peer is stopping")

// tick does what is due about once a second.
func (l *link) tick(now time.Time) {
	if eff := l.replica.Tick(now); eff.Changed {
		l.disk.dirty = l.disk.dirty || eff.Applied
		l.publish()
		l.mesh.announce()
	}
	l.disk.tick(now, l.replica.Save)
}

// up notes that the peer answers.
func (l *link) up(hello replica.Frame) {
	l.connected, l.since, l.lastError, l.attempts, l.warned = true, time.Now(), "", 0, false
	select {
	case <-l.kicks: // old news
	default:
	}
	l.tell(LinkChange{Peer: l.peer, Up: true, Detail: "node " + hello.Node + " answers"})
	l.log.Info("link up", "node", hello.Node, "epoch", hello.Epoch, "revision", hello.Head, "held", l.replica.Have())
}

// down notes that it does not. The first failure is a warning; repeating it would only hide
// other things.
func (l *link) down(err error) {
	if errors.Is(err, replica.ErrMalformed) {
		l.replica.Refuse(replica.RefusedMalformed)
	}
	if l.connected {
		l.connected, l.since = false, time.Now()
	}
	l.attempts++
	l.lastError = err.Error()
	level := slog.LevelDebug
	if !l.warned {
		level, l.warned = slog.LevelWarn, true
		l.tell(LinkChange{Peer: l.peer, Goodbye: errors.Is(err, errGoodbye), Detail: err.Error()})
	}
	l.log.Log(context.Background(), level, "link down; what is known of the region is kept", "error", err, "attempts", l.attempts)
	l.publish()
}

func (l *link) tell(c LinkChange) {
	if l.mesh.cfg.OnLink != nil {
		l.mesh.cfg.OnLink(c)
	}
}

// pause waits before the next attempt. A peer that was heard of is tried at once, unless it
// is one that answers wrongly.
func (l *link) pause(ctx context.Context, err error, tick <-chan time.Time) {
	t := time.NewTimer(l.backoff.Next(err))
	defer t.Stop()
	kicks := l.kicks
	if peer.Offended(err) {
		kicks = nil
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			return
		case <-kicks:
			return
		case now := <-tick:
			l.tick(now)
		}
	}
}

// info describes the link for the API.
func (l *link) info(now time.Time) api.LinkInfo {
	s := l.state.Load()
	v := &s.view
	i := api.LinkInfo{
		Peer: l.peer, Addresses: l.addresses, State: linkUnreachable, Since: s.since, LastError: s.lastError,
		Attempts: s.attempts, BytesIn: l.bytes.Load(), Frames: l.frames.Load(), Snapshots: l.snapshots.Load(),
		Services: v.Rows, Digest: v.Digest.String(), Replica: v.Origin(now),
	}
	i.RTTMS = i.Replica.RTTMS
	if s.connected {
		i.State = linkConnected
		if v.Head > v.Version.Revision {
			i.HeadLag = v.Head - v.Version.Revision
		}
	}
	for _, n := range v.Refused {
		i.Refused += n
	}
	return i
}
