package nearside

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// Times of what a program says of its load.
const (
	loadWithin = 100 * time.Millisecond // for which a heartbeat waits for it
	// loadAgain is after what time a registry is told again that did not know what a load is:
	// its nodes are upgraded one after the other.
	loadAgain = time.Minute
)

// gauge is what a registration knows of its program's load. Only its loop touches it.
type gauge struct {
	said   chan api.Load // of the call that is under way; nil = none is
	broken bool          // it panicked
	mute   time.Duration // until when the registry is not told, by the client's clock
}

// load asks the program for its load. It is "not told" when nobody wants to tell it, or not in time.
func (r *Registered) load(ctx context.Context) api.Load {
	r.mu.Lock()
	f := r.said.Load
	r.mu.Unlock()
	g := &r.gauge
	if f == nil || g.broken || r.c.clock() < g.mute {
		return 0
	}
	select {
	case _, ok := <-g.said: // an answer that came too late, and is old
		if g.said, g.broken = nil, !ok; g.broken {
			return 0
		}
	default:
	}
	if g.said == nil {
		said := make(chan api.Load, 1)
		g.said = said
		go func() {
			defer close(said) // after a panic nothing is in it
			defer r.unloaded()
			if percent := f(); percent >= 0 {
				said <- api.LoadOf(percent)
			} else {
				said <- 0
			}
		}()
	}
	timer := time.NewTimer(loadWithin)
	defer timer.Stop()
	select {
	case l, ok := <-g.said:
		g.said, g.broken = nil, !ok
		return l
	case <-timer.C:
	case <-ctx.Done():
	}
	return 0
}

// unloaded ends a panic of the program's code: its calls should not end with its gauge.
func (r *Registered) unloaded() {
	if p := recover(); p != nil {
		r.c.log().Error("Registration.Load panicked; no load is told until the next Update", "instance", r.key.String(), "panic", p)
	}
}

// beat sends a heartbeat. A registry of an older version refuses one that tells a load: then it
// goes at once without, for no heartbeat may be lost by that.
func (r *Registered) beat(ctx context.Context, hb api.Heartbeat, ack *api.HeartbeatAck) error {
	err := r.send(ctx, http.MethodPut, "/heartbeat", hb, ack)
	var no *api.Error
	if hb.Load.IsZero() || !errors.As(err, &no) || no.Code != api.CodeUnknownField {
		return err
	}
	r.gauge.mute = r.c.clock() + loadAgain
	hb.Load = 0
	return r.send(ctx, http.MethodPut, "/heartbeat", hb, ack)
}
