package mesh

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/federation/relay"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

const (
	// knockInterval is how often the direct way is tried while the rows come through a relay.
	knockInterval = time.Second
	// shunFailed is how long a relay is passed over whose stream ended, and shunRefused one that
	// told what it must not.
	shunFailed  = 5 * time.Second
	shunRefused = time.Minute
	// homeAgain is how soon after a return to the direct way another relay means that the
	// return was too early.
	homeAgain = 30 * time.Second
)

// errChange ends a session in favour of another way to the rows.
var errChange = errors.New("there is a better way to the rows")

// errUnanswered is why a link is down whose first attempt still hangs.
var errUnanswered = fmt.Errorf("%w in %s", peer.ErrSilent, relay.Patience)

// way is how a link gets its rows. Owned by the link.
type way struct {
	via      api.Region    // the relay in use; "" = the direct way
	trying   time.Time     // since when the direct way has been tried or used this time
	answers  time.Time     // since when it answers again while a relay is in use; zero = it does not
	home     time.Duration // how long it must
	returned time.Time     // when it was last taken again
	shunned  map[api.Region]time.Time
	near     near
}

// choose returns from whom to take the rows now: our own region means from the node that reads the
// peer for all.
func (l *link) choose(now time.Time) api.Region {
	w, v := &l.way, l.replica.View()
	if s, ok := l.nearby(now); ok {
		w.near.want = s
		return l.self()
	}
	s := relay.State{Self: l.mesh.cfg.Region, Origin: l.peer, Held: v.Version, Age: v.Age(now), Via: w.via, Home: w.home}
	if s.Via == l.self() {
		s.Via = ""
	}
	if !l.connected {
		s.Down = max(min(now.Sub(l.since), now.Sub(w.trying)), 1)
	}
	if !w.answers.IsZero() {
		s.Answers = max(now.Sub(w.answers), 1)
	}
	return relay.Choose(s, l.offers(now))
}

// offers lists what the peers that we hear could pass on.
func (l *link) offers(now time.Time) (out []relay.Offer) {
	held := l.replica.Have().Epoch
	// What we hold is read by somebody: whoever tells another history reads another region.
	alive := false
	for _, p := range l.mesh.all() {
		if p == l || now.Before(l.way.shunned[p.peer]) {
			continue
		}
		h, s := p.heard.Load(), p.state.Load()
		if h == nil || !s.connected || now.Sub(h.at) >= wordHolds {
			continue
		}
		say, ok := h.say(l.peer)
		if !ok {
			continue
		}
		alive = alive || reads(say) && say.Epoch == held
		if say.Relay == 0 {
			continue
		}
		rtt := s.view.RTT
		out = append(out, relay.Offer{
			By: p.peer, Version: api.Version{Region: l.peer, Epoch: say.Epoch, Revision: say.Revision},
			Age: time.Duration(say.AgeMS)*time.Millisecond + now.Sub(h.at) + rtt, Depth: say.Relay, Via: say.Via, RTT: rtt,
		})
	}
	if alive {
		out = slices.DeleteFunc(out, func(o relay.Offer) bool { return o.Version.Epoch != held })
	}
	return out
}

// take makes the choice and notes it.
func (l *link) take(now time.Time) api.Region {
	w := &l.way
	via := l.choose(now)
	if via != w.via {
		l.repairs = 0
	}
	if via == l.self() {
		if len(l.mesh.cfg.Near.Only) == 0 && (w.via != via || w.near.use != w.near.want) {
			l.log.Info("another node of this region reads the peer for all", "via", w.near.want.Node)
		}
		w.via, w.near.use, w.near.hop, w.answers = via, w.near.want, 0, time.Time{}
		return via
	}
	if w.via == l.self() {
		l.log.Info("this node reads the peer itself")
		w.via, w.trying = "", now
	}
	switch {
	case via == w.via:
	case via == "":
		l.notice(api.EventRelay, api.BecauseLinkAnswers, "its rows are taken from itself again, no longer from %s", w.via)
		w.via, w.trying, w.answers = "", now, time.Time{}
	default:
		if w.via == "" {
			// The return was too early if it did not hold.
			if !w.returned.IsZero() && now.Sub(w.returned) < homeAgain {
				w.home = min(max(w.home, relay.Home)*2, relay.MaxHome)
			} else {
				w.home = relay.Home
			}
			if !l.connected && !l.warned {
				l.down(errUnanswered)
			}
			w.answers = time.Time{}
		}
		w.via = via
		l.log.Info("the rows are taken from another region, which knows the peer better", "via", via)
		l.notice(api.EventRelay, api.BecauseFresher, "its rows are taken from %s, which knows it better than we do", via)
	}
	return via
}

// lost notes that the relay in use is no good.
func (l *link) lost(err error, now time.Time) {
	w := &l.way
	shun := shunFailed
	if errors.Is(err, replica.ErrRefused) || errors.Is(err, replica.ErrMalformed) {
		shun = shunRefused
		l.log.Warn("what another region passes on of the peer is refused", "via", w.via, "error", err)
		l.notice(api.EventRelayRefused, api.BecauseSignature, "what %s passes on of it is refused: %s", w.via, err)
	} else {
		l.log.Info("the rows are no longer passed on", "via", w.via, "error", err)
	}
	if w.shunned == nil {
		w.shunned = make(map[api.Region]time.Time)
	}
	w.shunned[w.via] = now.Add(shun)
	w.via = ""
	// The direct way has not been tried for long by this; another relay may be taken at once.
	w.trying = now.Add(-relay.Patience)
	l.publish()
}

// knocked takes the outcome of a knock at the direct way.
func (l *link) knocked(err error, now time.Time) {
	w := &l.way
	switch {
	case err != nil:
		w.answers = time.Time{}
		l.attempts++
		l.lastError = err.Error()
		if l.connected {
			l.down(err)
		}
	case w.answers.IsZero():
		w.answers = now
	}
}

// knock tries the direct way while a relay is in use, without taking rows.
func (l *link) knock(ctx context.Context, q peer.Query, tell func(event) bool) {
	q.Peer = ""
	t := time.NewTicker(knockInterval)
	defer t.Stop()
	for {
		_, err := l.ring.Try(ctx, func(ctx context.Context, address string) error {
			_, _, err := l.mesh.client.Ping(ctx, address, q)
			return err
		})
		if ctx.Err() != nil || !tell(event{knocked: true, err: err}) {
			return
		}
		select {
		case <-t.C:
		case <-l.kicks:
		case <-ctx.Done():
			return
		}
	}
}

// hop is the round trip to the relay in use.
func (l *link) hop() time.Duration {
	if l.way.via == l.self() {
		return l.way.near.hop
	}
	if p := l.mesh.by(l.way.via); p != nil {
		return p.state.Load().view.RTT
	}
	return 0
}

// believe returns an error unless a frame that comes through a relay is the origin's own word.
// hello is the last one of the stream.
func (l *link) believe(hello, f replica.Frame) error {
	verify := l.mesh.cfg.VerifyOrigin
	if l.way.via == l.self() || verify == nil || !replica.Seals(f) {
		return nil
	}
	s, ok := replica.State(hello, f)
	if !ok {
		l.replica.Refuse(replica.RefusedSignature)
		return fmt.Errorf("%w (%s): %s is not signed by %s", replica.ErrRefused, replica.RefusedSignature, f.Kind, l.peer)
	}
	if err := verify(l.peer, s.Bytes(), s.Sig, s.Chain); err != nil {
		l.replica.Refuse(replica.RefusedSignature)
		return fmt.Errorf("%w (%s): %s: %w", replica.ErrRefused, replica.RefusedSignature, f.Kind, err)
	}
	return nil
}
