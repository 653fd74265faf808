package simulation

import (
	"fmt"
	"time"

	"github.com/nearside/nearside/federation/origin"
	"github.com/nearside/nearside/federation/relay"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// passage is what a relay passes on of an origin: one lineage of its replica, as mesh has it.
type passage struct {
	link    *link // the relay's own
	view    replica.View
	history relay.History
	ended   bool
}

// look brings the passage up to date; it ends when the relay has its rows from somewhere else.
func (p *passage) look() {
	v := p.link.replica.View()
	if v.Via != p.view.Via || v.Version.IsZero() || !v.Confirmed() || v.Leaving || v.Gone || v.Quarantined > 0 || v.Depth != p.view.Depth || v.Version == p.view.Version && v.Digest != p.view.Digest {
		p.ended = true
		return
	}
	p.history.Note(&p.view, &v)
	p.view = v
}

// Image implements origin.Source.
func (p *passage) Image() origin.Image { return relay.NewPicture(p.view) }

// ChangedSince implements origin.Source.
func (p *passage) ChangedSince(after api.Version) ([]api.ServiceKey, bool) {
	return p.history.Since(after, p.view.Version)
}

// between returns the link of a reader to an origin.
func (w *world) between(reader, origin *region) *link {
	for _, l := range w.links {
		if l.reader == reader && l.origin == origin {
			return l
		}
	}
	return nil
}

// relay opens a stream through a third region, at random; most are refused, as package mesh and
// package peer do it.
func (w *world) relay(l *link, by *region) error {
	if by == l.reader || by == l.origin {
		return nil
	}
	p := &passage{link: w.between(by, l.origin)}
	if err := w.warm(p.link); err != nil {
		return err
	}
	p.view = p.link.replica.View()
	v := &p.view
	now := w.clock(by)
	held := l.replica.Have()
	offer := relay.Offer{By: by.name, Version: v.Version, Age: v.Age(now), Depth: v.Depth + 1, Via: v.Via}
	state := relay.State{
		Self: l.reader.name, Origin: l.origin.name, Held: held, Age: offer.Age + relay.Margin + 1, Down: time.Hour,
	}
	if relay.Lacks(v, false, now) != "" || v.Via == l.reader.name || relay.Choose(state, []relay.Offer{offer}) != by.name {
		return nil
	}
	l.replica.Disconnect()
	l.flight, l.from, l.passage = nil, nil, p
	ask := l.replica.Ask()
	if w.rng.IntN(8) == 0 {
		ask = ask.Plain()
	}
	l.proto = replica.Proto
	door := origin.Door{Region: l.origin.name, Node: "n1", Stream: "x", Relay: by.name, AskAbove: w.rng.IntN(3) - 1}
	l.session = origin.NewBook(l.reader.name).Open(door, ask, l.proto, 0)
	l.replica.ConnectVia(by.name, 0, w.clock(l.reader))
	w.stats.relays++
	return nil
}

// warm lets a link that is not the one everything happens to learn something, so that there is
// something to pass on; sometimes through a relay itself.
func (w *world) warm(l *link) error {
	if l.session == nil {
		if w.rng.IntN(4) == 0 {
			if by := w.between(w.regions[w.rng.IntN(len(w.regions))], l.origin); by != nil && by != l && by.session != nil {
				if err := w.relay(l, by.reader); err != nil {
					return err
				}
			}
		} else {
			w.connect(l)
		}
	}
	for range 1 + w.rng.IntN(3) {
		w.pump(l, 20)
		for len(l.flight) > 0 {
			if err := w.deliver(l, true); err != nil {
				return err
			}
		}
	}
	return nil
}

// source is whom the link's stream tells of; nil when that ended.
func (l *link) source() origin.Source {
	if l.passage == nil {
		return l.from.store
	}
	if l.passage.look(); l.passage.ended {
		return nil
	}
	return l.passage
}

// late is how old the word is that the stream passes on.
func (w *world) late(l *link) int64 {
	if l.passage == nil {
		return 0
	}
	return (l.passage.view.Age(w.clock(l.passage.link.reader)) + time.Millisecond - 1).Milliseconds()
}

// passed checks what must hold of a replica that is fed by a relay: its age is never younger
// than the relay's was, and there are at most MaxDepth relays in between (loops).
func (w *world) passed(l *link, f replica.Frame, eff replica.Effects) error {
	if l.passage == nil || eff.Err != nil {
		return nil
	}
	if f.Depth > replica.MaxDepth || f.Region == l.reader.name {
		return fmt.Errorf("I8: %s takes %s of %s through %d relays", l.reader.name, f.Kind, l.origin.name, f.Depth)
	}
	return nil
}
