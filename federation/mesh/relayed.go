package mesh

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nearside/nearside/federation/origin"
	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/federation/relay"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// relays is what the link passes on to readers of other regions, from the first who asks on.
type relays struct {
	mu  sync.Mutex
	now *relayed // nil = nobody asks
}

// relayed is one link's replica as others read it. It ends when the rows come from somewhere
// else, since their order is then another one: what a region tells depends on its reader.
type relayed struct {
	link *link
	near bool // for nodes of our own
	done chan struct{}

	mu      sync.Mutex
	view    replica.View
	history relay.History
	wake    chan struct{}
	looked  time.Time // when loads were last taken out of the view
	loads   *summary.Loads
}

// relay returns what is passed on of a region to a reader.
func (m *Mesh) relay(from, reader api.Region) (peer.Relay, error) {
	no := func(code api.Code, why, remedy string) (peer.Relay, error) {
		return nil, &api.Error{Code: code, Field: "origin", Detail: fmt.Sprintf("region %s passes nothing on of %s: %s", m.cfg.Region, api.Quote(string(from)), why), Remedy: remedy}
	}
	l := m.by(from)
	if l == nil {
		return no(api.CodeNotFound, "it does not read it", "ask one that does")
	}
	rs, lacks := &l.relays, func(v *replica.View) string { return relay.Lacks(v, m.cfg.VerifyOrigin != nil, time.Now()) }
	if reader == m.cfg.Region {
		rs, lacks = &l.siblings, relay.LacksNear
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	v := l.state.Load().view
	if why := lacks(&v); why != "" {
		return no(api.CodeUnavailable, why, "ask another region, or later")
	}
	if v.Via == reader {
		return no(api.CodeConflict, "it has it from the reader", "ask another region")
	}
	if rs.now == nil {
		rs.now = &relayed{link: l, near: reader == m.cfg.Region, done: make(chan struct{}), wake: make(chan struct{}), view: v}
	}
	return rs.now, nil
}

// note takes the link's newest view.
func (r *relays) note(v *replica.View, lacks string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now != nil && (lacks != "" || !r.now.note(v)) {
		close(r.now.done)
		r.now = nil
	}
}

func (r *relayed) note(v *replica.View) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.view
	if v.Via != r.view.Via || v.Depth != r.view.Depth || v.Version == old.Version && v.Digest != old.Digest {
		return false
	}
	r.history.Note(&old, v)
	r.view = *v
	if v.Version != old.Version {
		close(r.wake)
		r.wake = make(chan struct{})
	}
	return true
}

func (r *relayed) picture() *relay.Picture {
	r.mu.Lock()
	defer r.mu.Unlock()
	return relay.NewPicture(r.view)
}

// Image implements peer.Relay.
func (r *relayed) Image() origin.Image { return r.picture() }

// Age implements peer.Relay. What is known from disk only is not trusted to be young.
func (r *relayed) Age(at time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if age := r.view.Age(at); r.view.Confirmed() {
		return age
	} else {
		return max(age, replica.SuspectAfter)
	}
}

// RTT implements peer.Relay.
func (r *relayed) RTT() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.view.RTT
}

// Standings implements peer.Relay.
func (r *relayed) Standings() []replica.Standing {
	if h := r.link.heard.Load(); h != nil && time.Since(h.at) < wordHolds {
		return h.standings
	}
	return nil
}

// Loads implements peer.Relay.
func (r *relayed) Loads(at time.Time) *summary.Loads {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.looked.IsZero() || at.Sub(r.looked) >= peer.LoadInterval {
		r.loads, r.looked = r.loads.Take(r.view.Table.Loads()), at
	}
	return r.loads
}

// Drained implements peer.Relay.
func (r *relayed) Drained() float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.view.Drained
}

// Done implements peer.Relay.
func (r *relayed) Done() <-chan struct{} { return r.done }

// ChangedSince implements peer.Relay.
func (r *relayed) ChangedSince(after api.Version) ([]api.ServiceKey, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.history.Since(after, r.view.Version)
}

// PlannedSince implements origin.Planner, for nodes of our own: others would not believe it.
func (r *relayed) PlannedSince(after api.Version) map[api.ServiceKey]struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.near {
		return nil
	}
	return r.history.Planned(after)
}

// Wait implements peer.Relay.
func (r *relayed) Wait(ctx context.Context, after api.Version) error {
	for {
		r.mu.Lock()
		at, wake := r.view.Version, r.wake
		r.mu.Unlock()
		if at != after {
			return nil
		}
		select {
		case <-wake:
		case <-r.done:
			<-ctx.Done() // the stream ends with it
			return ctx.Err()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
