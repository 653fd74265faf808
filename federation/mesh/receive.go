package mesh

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/federation/replica"
)

// receive connects and passes frames on; it ends with an event that carries an error.
func (l *link) receive(ctx context.Context, wg *sync.WaitGroup, ring *peer.Ring, q peer.Query, events chan<- event) {
	tell := func(ev event) bool {
		select {
		case events <- ev:
			return true
		case <-ctx.Done():
			return false
		}
	}
	if q.Peer != "" && q.Peer != q.Reader {
		wg.Go(func() { l.knock(ctx, q, tell) })
	}
	var stream *peer.Stream
	var hello replica.Frame
	var answered time.Time
	address, err := ring.Try(ctx, func(ctx context.Context, address string) (err error) {
		stream, hello, answered, err = l.open(ctx, address, q)
		return err
	})
	if err != nil {
		tell(event{err: err})
		return
	}
	defer stream.Close()
	if q.Peer == "" || q.Peer == q.Reader {
		wg.Go(func() { l.measure(ctx, address, q, tell) })
	}
	if !tell(event{opened: address, at: answered}) || !tell(event{frame: hello}) {
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

// ack is a word to the origin: what, and where it is wanted.
type ack struct {
	replica.Ack
	address, stream string
}

// acknowledge sends acks on a connection of its own. One that does not arrive is not sent
// again: the next one says more.
func (l *link) acknowledge(ctx context.Context, q peer.Query, acks <-chan ack) {
	for {
		select {
		case a := <-acks:
			if err := l.mesh.client.Ack(ctx, a.address, q, a.stream, a.Ack); err != nil && ctx.Err() == nil {
				l.unheard.Add(1)
				l.log.Debug("the peer does not take our word", "error", err)
			}
		case <-ctx.Done():
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
// that can make a ping shorter is that the network is. So does the first one after the link was down:
// the age is an upper bound only if the round trip is not that of a shorter way that is gone.
//
// How far the peer is, for choosing the nearest region, is the shortest of a minute: what a busy
// machine adds to a ping is no distance.
func (l *link) roundTrip(d time.Duration) {
	if l.way.via == l.self() {
		l.way.near.hop = d // of the nearer one; that to the peer is told
		return
	}
	if l.rtt == 0 || d < l.rtt || l.anew {
		l.rtt, l.anew, l.pings = d, false, nil
	} else {
		l.rtt += (d - l.rtt) / 4
	}
	if l.pings = append(l.pings, d); len(l.pings) > distancePings {
		l.pings = slices.Delete(l.pings, 0, 1)
	}
	l.replica.SetDistance(slices.Min(l.pings))
	l.replica.SetRTT(l.rtt)
	l.publish()
}
