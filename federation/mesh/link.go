package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/federation/relay"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/federation/verdict"
	"github.com/nearside/nearside/sdk/api"
)

const (
	tickInterval = time.Second     // held rows, disk
	pingInterval = 5 * time.Second // measuring the round trip
	firstPings   = 100 * time.Millisecond
	// distancePings are those of which the shortest says how far a peer is: of about a minute.
	distancePings = 12
)

// maxRepairs is how often a reader asks for rows without a pause: once with its digests, once
// with the hashes of its rows, and once for everything.
const maxRepairs = 3

// stallLimit is how long a peer, or who passes its rows on, may answer and say nothing that helps, before its stream is
// given up: another node of its region may be well. Rows of a large region may take some
// seconds to make.
const stallLimit = time.Minute

var (
	errStalled = fmt.Errorf("%w that helps", peer.ErrSilent)
	errGarbled = fmt.Errorf("%w: its rows did not add up %d times in a row", replica.ErrRefused, maxRepairs)
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
	pings     []time.Duration // the last distancePings, oldest first
	anew      bool            // the next measurement replaces rtt: the way may be another one
	repairs   int             // asked for rows so often, and not confirmed since
	away      time.Duration   // how long the peer asked us to stay away
	way       way

	state     atomic.Pointer[linkState]
	relays    relays // to other regions
	siblings  relays // to nodes of our own
	doubles   doubles
	bytes     atomic.Uint64
	frames    atomic.Uint64
	snapshots atomic.Uint64
	unheard   atomic.Uint64 // acks that did not arrive

	canaries    canaries
	canary      *canaryState
	behindSince time.Time // since when a change is announced and not applied; zero = none is
	node        string    // that answered last
	address     string    // at which it did
	farAway     bool      // the node that reads the peer for us answers, and has not heard of it
	resyncFrom  *replica.Table
	told        notices

	// Written by the link, read by the judge and others.
	heard   atomic.Pointer[heard]          // what the peer last said of the regions
	resyncs chan struct{}                  // an operator wants all rows anew; capacity 1
	resync  atomic.Pointer[api.ResyncInfo] // the last one, nil = none
	// Written by the judge.
	verdict     atomic.Pointer[api.RegionVerdict] // nil while the peer is reached
	probes      atomic.Value                      // a verdict.Probes
	probeCounts probeCounts
	label       metric.MeasurementOption // the peer
}

// linkState is what others may see: immutable, replaced as a whole.
type linkState struct {
	view      replica.View
	connected bool
	since     time.Time
	lastError string
	attempts  int
	behind    time.Time // see link.behindSince
	canary    *canaryState
	node      string
	address   string
	via       api.Region // the relay whose stream is open
	farAway   bool       // see link.farAway
}

func newLink(m *Mesh, region api.Region, addresses []string, dir string) *link {
	now := time.Now()
	l := &link{
		mesh: m, peer: region, addresses: addresses, log: m.log.With("peer", region),
		ring: peer.NewRing(addresses), kicks: make(chan struct{}, 1), resyncs: make(chan struct{}, 1), since: now, way: way{trying: now},
	}
	l.probes.Store(verdict.ProbesNone)
	l.label = metric.WithAttributes(attribute.String("peer", string(region)))
	l.disk = newDisk(dir, region, l.log)
	l.replica = l.disk.load(m.cfg.Region, region, now)
	l.publish()
	return l
}

// publish shows the present state to readers.
func (l *link) publish() {
	v := l.replica.View()
	switch {
	case !l.connected || v.Head <= v.Version.Revision:
		l.behindSince = time.Time{}
	case l.behindSince.IsZero():
		l.behindSince = time.Now()
	}
	l.state.Store(&linkState{
		view: v, connected: l.connected, since: l.since, lastError: l.lastError, attempts: l.attempts,
		behind: l.behindSince, canary: l.canary, node: l.node, address: l.address, via: l.way.via, farAway: l.farAway,
	})
	l.showResync(v.Incoming)
	l.relays.note(&v, relay.Lacks(&v, l.mesh.cfg.VerifyOrigin != nil, time.Now()))
	l.siblings.note(&v, relay.LacksNear(&v))
}

// run owns the link until ctx ends.
func (l *link) run(ctx context.Context) {
	go l.disk.run() // ended by finish
	tick := time.NewTicker(tickInterval)
	defer tick.Stop()
	for ctx.Err() == nil {
		via := l.take(time.Now())
		err := l.session(ctx, via, tick.C)
		if ctx.Err() != nil {
			break
		}
		switch {
		case errors.Is(err, errChange):
			continue
		case errors.Is(err, replica.ErrResync) && l.repairs < maxRepairs:
			l.repairs++ // the peer is well, and will be asked for what we lack
			l.log.Info("comparing rows with the peer", "cause", err)
			continue
		case via == l.self() && len(l.mesh.cfg.Near.Only) > 0 && errors.Is(err, errGoodbye):
			l.pause(ctx, err, tick.C) // it takes the rows from elsewhere now, or ends, which shows
			continue
		case via == l.self() && len(l.mesh.cfg.Near.Only) == 0:
			l.nearLost(err, time.Now())
			continue
		case via != "" && via != l.self():
			l.lost(err, time.Now())
			continue
		}
		if errors.Is(err, replica.ErrResync) {
			l.ring.Skip()
			err = fmt.Errorf("%w: %w", errGarbled, err)
		}
		l.down(err)
		l.pause(ctx, err, tick.C)
	}
	l.disk.finish(l.replica)
}

// event is one thing that a session's receiver tells the owner.
type event struct {
	opened string    // the address that was connected to; a frame follows
	at     time.Time // when it answered
	frame  replica.Frame
	rtt    time.Duration
	err    error // the session is over, unless knocked

	knocked bool // the direct way was tried beside the relay
}

// session connects and follows the peer, or a relay of it, until the stream ends. It returns why.
func (l *link) session(ctx context.Context, via api.Region, tick <-chan time.Time) error {
	ctx, cancel := context.WithCancel(ctx)
	events := make(chan event)
	l.replica.Disconnect()
	l.away = 0 // another one, or another stream, asked for that
	if via != "" && via != l.self() && l.mesh.cfg.VerifyOrigin != nil {
		l.replica.Prove()
	}
	ask := l.replica.Ask()
	query := peer.Query{
		Reader: l.mesh.cfg.Region, Node: l.mesh.cfg.Node, Origin: l.peer,
		Have: ask.Have, Digest: ask.Digest, Term: ask.Term, Sums: ask.Sums, Full: ask.Full,
		Holding: ask.Holding, At: ask.At, Can: ask.Can, Peer: via, Own: l.mesh.cfg.Source.Image().Version().Epoch,
	}
	ring := l.ring
	switch via {
	case "":
	case l.self():
		var err error
		if ring, err = l.nearRing(ctx); err != nil {
			cancel()
			return err
		}
	default:
		ring = peer.NewRing(l.mesh.by(via).addresses)
	}
	var hello replica.Frame
	var wg sync.WaitGroup
	wg.Go(func() { l.receive(ctx, &wg, ring, query, events) })
	acks := make(chan ack, 1)
	wg.Go(func() { l.acknowledge(ctx, query, acks) })
	defer wg.Wait()
	defer cancel()
	first, helped := true, time.Now()
	var at ack // where to acknowledge: no stream, not at all
	var acked uint64
	tell := func() {
		if acked = l.bytes.Load(); at.stream != "" && len(acks) == 0 {
			at.Ack = l.replica.Ack(time.Now())
			acks <- at
		}
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-tick:
			l.tick(now)
			if !first && time.Since(helped) > stallLimit {
				ring.Skip()
				return errStalled
			}
			if l.replica.SetHop(l.hop()); l.changed(via, now) {
				if via != "" && via != l.self() {
					l.log.Info("the rows are no longer taken from another region", "via", via)
					l.way.returned = now
				}
				return errChange
			}
			tell()
		case <-l.resyncs:
			l.beginResync()
			return errAsked
		case ev := <-events:
			switch {
			case ev.knocked:
				l.knocked(ev.err, time.Now())
				continue
			case ev.err != nil:
				if errors.Is(ev.err, replica.ErrMalformed) {
					ring.Skip()
				}
				return ev.err
			case ev.rtt > 0:
				l.roundTrip(ev.rtt)
				continue
			case ev.opened != "":
				l.replica.ConnectVia(via, l.hop(), ev.at)
				if at.address = ev.opened; via == "" {
					l.address = ev.opened
				}
				continue
			}
			if ev.frame.Kind == replica.Hello {
				hello = ev.frame
			}
			if via != "" {
				if err := l.believe(hello, ev.frame); err != nil {
					return err
				}
			}
			eff, err := l.step(ev.frame)
			if err != nil {
				if !errors.Is(err, replica.ErrResync) {
					ring.Skip()
				}
				return err
			}
			// A hello is one more when we wait in line; where there is no other node, that is best.
			if eff.Confirmed || eff.Applied || len(ev.frame.Rows)+len(ev.frame.Deletes) > 0 ||
				first || (via == "" || len(l.mesh.cfg.Near.Only) > 0) && ev.frame.Kind == replica.Hello && len(l.addresses) == 1 {
				helped = time.Now()
			}
			if ev.frame.Kind == replica.Hello {
				at.stream = ev.frame.Stream
			}
			if l.bytes.Load()-acked >= peer.AckBytes {
				tell()
			}
			if via == l.self() {
				if err := l.nearWord(hello, ev.frame, time.Now()); err != nil {
					return err
				}
			}
			if first && ev.frame.Kind == replica.Hello {
				if via == "" {
					l.up(ev.frame)
				}
				first = false
			}
			l.publish()
		}
	}
}

// step takes one frame. An error ends the session.
func (l *link) step(f replica.Frame) (replica.Effects, error) {
	l.frames.Add(1)
	now := time.Now()
	eff := l.replica.Step(f, now)
	if eff.Snapshot {
		l.snapshots.Add(1)
		l.endResync()
	}
	l.quarantined(eff.Quarantined, now)
	if f.Kind == replica.Heartbeat && eff.Err == nil && len(f.Standings) > 0 {
		at := now
		if l.way.via == l.self() {
			at = now.Add(-time.Duration(f.AgeMS) * time.Millisecond) // when a sibling heard it
		}
		l.heard.Store(&heard{standings: replica.PlausibleStandings(f.Standings), at: at})
	}
	if eff.Applied {
		l.disk.dirty = true
	}
	if eff.Canary > 0 {
		l.canary = l.canaries.note(eff.Canary, now)
		l.mesh.canaryMetric.Record(context.Background(), eff.Canary.Seconds(), l.label)
	}
	if eff.Confirmed {
		l.backoff.Reset()
		l.repairs = 0
		l.disk.confirmed = now.Add(-time.Duration(f.AgeMS) * time.Millisecond)
	}
	if eff.Changed {
		l.publish() // before those who wait look
		l.mesh.announce()
	}
	if eff.Leaving {
		l.log.Warn("the peer says that it ends for good; its rows are kept for a while", "for", replica.ForgetGrace)
	}
	l.away = eff.RetryAfter
	if eff.Refused == replica.RefusedForeign && f.Kind == replica.Hello && f.Region == l.mesh.cfg.Region {
		l.mesh.namesake("the peer's address", l.peer)
	}
	switch {
	case eff.Err != nil:
		return eff, eff.Err
	case eff.Goodbye:
		return eff, errGoodbye
	}
	return eff, nil
}

var errGoodbye = errors.New("the peer is stopping")

// tick does what is due about once a second.
func (l *link) tick(now time.Time) {
	if eff := l.replica.Tick(now); eff.Changed {
		if eff.Gone {
			l.log.Warn("the peer ended for good; its rows are removed")
		}
		l.disk.dirty = l.disk.dirty || eff.Applied
		l.publish()
		l.mesh.announce()
	}
	v := &l.state.Load().view
	l.relays.note(v, relay.Lacks(v, l.mesh.cfg.VerifyOrigin != nil, now))
	l.watchState(now)
	l.watchDouble(now)
	l.disk.tick(now, l.replica)
}

// up notes that the peer answers.
func (l *link) up(hello replica.Frame) {
	l.node = hello.Node
	if l.connected {
		return // after a comparison of rows
	}
	l.connected, l.since, l.lastError, l.attempts, l.warned, l.node = true, time.Now(), "", 0, false, hello.Node
	l.anew = true
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
	l.farAway = errors.Is(err, errNearOld)
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
	t := time.NewTimer(max(l.backoff.Next(err), l.away))
	defer t.Stop()
	kicks := l.kicks
	if peer.Offended(err) || l.away > 0 {
		kicks = nil
	}
	l.away = 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			return
		case <-kicks:
			return
		case <-l.resyncs:
			l.beginResync()
			return
		case now := <-tick:
			l.tick(now)
		}
	}
}
