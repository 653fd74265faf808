package mesh

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// Two regions of one name. A region has one history at a time, and never goes back to an
// earlier one: its epoch is what tells it from another region of its name. That a region shows
// another epoch than we hold proves nothing, it may have lost its data. That the history which
// we hold is told at the same time, by another of its addresses or to another region, does.
// Then we stay with the one that we have; nothing is shown to the other that would make it raise its
// epoch, and an operator is told.

const (
	// doubleLook is how long both must be told before that is proof: nodes of a region that
	// raised its epoch, and other regions that have not noticed its end, need a moment.
	doubleLook = 5 * time.Second
	// doublePause is the time between two looks.
	doublePause = 500 * time.Millisecond
	// doubleHolds is how long an alarm goes on after the other one was met last.
	doubleHolds = time.Minute
)

// errDouble is wrapped by the error of a connection to the other region of a name.
var errDouble = fmt.Errorf("%w: another region has the same name", replica.ErrRefused)

// doubles is what a link knows of another region of its peer's name.
type doubles struct {
	mu   sync.Mutex
	info *api.DuplicateRegion // nil = none is known of
	seen time.Time            // last
	met  map[string]time.Time // since when what is told at a place differs from what we read
}

// met returns an error when another history than we hold is told at an address while ours is
// alive elsewhere. It may take doubleLook.
func (l *link) meet(ctx context.Context, address string, q peer.Query, other api.Epoch) error {
	if q.Have.IsZero() || other == q.Have.Epoch {
		return nil
	}
	for began := time.Now(); ; {
		where := l.alive(ctx, address, q)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case where == "":
			return nil
		case time.Since(began) >= doubleLook:
			l.double(other, address, where)
			return fmt.Errorf("%w: %s tells history %s of %s, while %s, which we hold, is alive at %s", errDouble, address, other, l.peer, q.Have.Epoch, where)
		}
		select {
		case <-time.After(doublePause):
		case <-ctx.Done():
		}
	}
}

// alive returns where the history that we hold is told now, "" if nowhere.
func (l *link) alive(ctx context.Context, but string, q peer.Query) string {
	q.History = true
	for _, a := range l.addresses {
		if a == but {
			continue
		}
		if _, pong, err := l.mesh.client.Ping(ctx, a, q); err == nil && pong.Region == l.peer && pong.Epoch == q.Have.Epoch {
			return a
		}
	}
	now := time.Now()
	for _, p := range l.mesh.all() {
		h := p.heard.Load()
		if p == l || h == nil || now.Sub(h.at) >= wordHolds || !p.state.Load().connected {
			continue
		}
		if s, ok := h.say(l.peer); ok && reads(s) && s.Epoch == q.Have.Epoch {
			return "region " + string(p.peer) + ", which reads it"
		}
	}
	return ""
}

// reads reports whether a region hears another one now: what it says of it is true of this moment.
func reads(s replica.Standing) bool {
	return s.Link == api.LinkUp && s.AgeMS < replica.StaleAfter.Milliseconds()
}

// double raises the alarm, or keeps it up.
func (l *link) double(other api.Epoch, place, ours string) {
	d := &l.doubles
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen = time.Now()
	begins := d.info == nil
	if begins || d.info.Epoch != other || d.info.At != place {
		info := &api.DuplicateRegion{Epoch: other, At: place, Ours: ours, Since: d.seen.Round(0)}
		if !begins {
			info.Since = d.info.Since
		}
		d.info = info
	}
	if begins {
		l.log.Error("two regions have the same name; the one that we read stays, the other is refused", "other_epoch", other, "at", place, "ours", ours)
		l.notice(api.EventDuplicate, api.BecauseTwoHistories, "history %s is told at %s, and another one at %s: another region has its name, or a node of it is cut off from the others", other, place, ours)
	}
}

// watchDouble looks, about once a second, at what other regions read under the peer's name, and
// ends an alarm whose cause is gone.
func (l *link) watchDouble(now time.Time) {
	d := &l.doubles
	v := l.replica.View()
	fresh := l.connected && v.Confirmed() && v.Age(now) < replica.StaleAfter
	for _, p := range l.mesh.all() {
		h := p.heard.Load()
		if p == l || h == nil {
			continue
		}
		s, ok := h.say(l.peer)
		differs := fresh && ok && now.Sub(h.at) < wordHolds && p.state.Load().connected && reads(s) &&
			s.Epoch != (api.Epoch{}) && s.Epoch != v.Version.Epoch
		if d.lasts("region "+string(p.peer), differs, now) >= 2*doubleLook {
			l.double(s.Epoch, "region "+string(p.peer)+", which reads it", l.address)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.info != nil && now.Sub(d.seen) >= doubleHolds {
		d.info = nil
		l.log.Info("no other region of the same name has been met for a while")
		l.notice(api.EventDuplicate, api.BecauseNotMet, "no other region of its name has been met for %s", doubleHolds)
	}
}

// lasts returns how long what is told at a place has differed from what we read.
func (d *doubles) lasts(place string, differs bool, now time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !differs {
		delete(d.met, place)
		return 0
	}
	since, ok := d.met[place]
	if !ok {
		if d.met == nil {
			d.met = make(map[string]time.Time)
		}
		since = now
		d.met[place] = now
	}
	return now.Sub(since)
}

// known returns the alarm; nil = there is none.
func (d *doubles) known() *api.DuplicateRegion {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.info
}

// admit returns an error when a reader that calls itself a region, and is of history own, is not
// the one that we read under that name. One that may be ahead of what we have read is let in.
func (m *Mesh) admit(reader api.Region, own api.Epoch) error {
	l := m.by(reader)
	if l == nil || own.IsZero() {
		return nil
	}
	s, now := l.state.Load(), time.Now()
	v := &s.view
	held := v.Version.Epoch
	differs := s.connected && v.Confirmed() && v.Age(now) < replica.StaleAfter && held != own && own.Generation <= held.Generation
	place := "the reader of that name"
	if lasts := l.doubles.lasts(place, differs, now); !differs {
		return nil
	} else if lasts >= doubleLook {
		l.double(own, place, s.address)
	}
	return &api.Error{
		Code: api.CodeConflict, Field: "reader", Detail: fmt.Sprintf("region %s, as it is read from here, is of history %s, the reader of %s: two regions must not share a name", reader, held, own),
		Remedy: "give one of them another name; a node that is cut off from its region is let in when it is back",
	}
}

// open connects to an address, and reads the first frame. Nothing that we hold makes the origin raise its
// epoch before we know that it is not another region's.
func (l *link) open(ctx context.Context, address string, q peer.Query) (*peer.Stream, replica.Frame, time.Time, error) {
	meter := func(n int) { l.bytes.Add(uint64(n)) }
	direct := q.Peer == ""
	q.Careful = direct && !q.Have.IsZero()
	stream, err := l.mesh.client.Open(ctx, address, q, meter)
	if peer.HistoryDiffers(err) {
		var pong peer.Pong
		look := q
		look.History = true
		if _, pong, err = l.mesh.client.Ping(ctx, address, look); err == nil {
			err = l.meet(ctx, address, q, pong.Epoch)
		}
		if err == nil {
			q.Careful = false
			stream, err = l.mesh.client.Open(ctx, address, q, meter)
		}
	}
	if err != nil {
		return nil, replica.Frame{}, time.Time{}, err
	}
	answered := time.Now()
	defer stream.Expire(stallLimit)()
	// An address counts as working when it greets, not when it accepts.
	hello, err := stream.Next()
	if err == nil && direct && hello.Kind == replica.Hello && hello.Region == l.peer {
		err = l.meet(ctx, address, q, hello.Epoch)
	}
	if err != nil {
		stream.Close()
	}
	return stream, hello, answered, err
}
