package nearside

import (
	"context"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"
)

// Times of the keeper.
const (
	keeperTick = time.Second
	probeDial  = 500 * time.Millisecond
	maxProbes  = 16 // dials at once
)

// keep is the client's housekeeping, one goroutine: it decides anew when a breaker moved,
// moves open breakers on, and lets ages and holds pass.
func (c *Client) keep(ctx context.Context) {
	var probes sync.WaitGroup
	defer probes.Wait()
	k := keeper{c: c, ctx: ctx, probes: &probes, slots: make(chan struct{}, maxProbes), probed: make(chan probe, maxProbes)}
	timer := time.NewTimer(keeperTick)
	defer timer.Stop()
	nextTick, judgeAt := time.Now().Add(keeperTick), time.Now().Add(judgeEvery)
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.notes:
		case p := <-k.probed:
			k.result(p, time.Now())
		case <-timer.C:
		}
		now := time.Now()
		if !now.Before(nextTick) {
			nextTick = now.Add(keeperTick)
			for _, w := range c.each() {
				w.tick(now)
			}
			for _, s := range *c.services.Load() {
				s.ramp()
			}
			c.eject(ctx, now, &judgeAt)
			c.idle()
		}
		next := k.breakers(now)
		if next.IsZero() || next.After(nextTick) {
			next = nextTick
		}
		timer.Reset(max(time.Until(next), time.Millisecond))
	}
}

// keeper is the state of keep. Only its goroutine touches it, and the keeper's fields of
// instances.
type keeper struct {
	c      *Client
	ctx    context.Context
	probes *sync.WaitGroup
	slots  chan struct{}
	probed chan probe
}

// probe is the result of a dial.
type probe struct {
	in *instance
	ok bool
}

// breakers looks at every breaker, and returns when it wants to look again; zero = not.
func (k *keeper) breakers(now time.Time) (next time.Time) {
	sooner := func(at time.Time) {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	for _, s := range *k.c.services.Load() {
		for r, g := range s.groups() {
			k.region(r, &g, now)
			r.forget(k.c.clock())
			for _, in := range g.open {
				sooner(k.open(in, &g, r, now))
			}
		}
		if s.dirty.Load() {
			s.decideAgain()
		}
		s.tellTurn(k.ctx)
	}
	return next
}

// group is the instances of one region by the state of their breakers.
type group struct {
	closed, halfOpen int
	// trying is until when the half-open ones are given to be tried; see groups.
	trying time.Duration
	open   []*instance
}

// groups returns the service's instances by region, in the order of their next trial. A
// half-open instance that nobody tries for a while does not keep others from being tried: it
// may be one that calls do not go to, such as a draining one, or there are no calls.
func (s *service) groups() map[*regionHealth]group {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spareLocked()
	now := s.c.clock()
	m := make(map[*regionHealth]group, len(s.regions))
	for _, in := range s.instances {
		g := m[in.region]
		switch gobreaker.State(in.state.Load()) {
		case gobreaker.StateOpen:
			g.open = append(g.open, in)
		case gobreaker.StateHalfOpen:
			if until := max(time.Duration(in.halfOpen.Load())+safeTrials, time.Duration(in.trial.Load())); until > now {
				g.halfOpen++
				g.trying = max(g.trying, until)
			}
		default:
			g.closed++
		}
		m[in.region] = g
	}
	for _, g := range m {
		slices.SortFunc(g.open, func(a, b *instance) int { return a.retryAt.Compare(b.retryAt) })
	}
	return m
}

// region notices that a region went down or came back.
func (k *keeper) region(r *regionHealth, g *group, now time.Time) {
	switch {
	case g.closed == 0:
		r.down = true
	case r.down:
		r.down, r.doublings, r.retryAt = false, 0, time.Time{}
		for _, in := range g.open {
			if !in.retryAt.IsZero() {
				in.retryAt = now // where one answers again, others do
			}
		}
	}
}

// open moves one open breaker on when its time has come, and returns when to look again.
func (k *keeper) open(in *instance, g *group, r *regionHealth, now time.Time) (next time.Time) {
	switch {
	case in.retryAt.IsZero():
		k.c.tel.breakerOpened(k.ctx, in)
		if in.failedTrial.Load() { // leave it alone for longer each time
			in.trials++
			r.retryAt = now.Add(r.hold << r.doublings)
			r.doublings = min(r.doublings+1, maxDoublings)
		} else {
			in.trials = 0
		}
		in.retryAt = now.Add(max(in.pause(), time.Duration(in.asked.Load())-k.c.clock()))
	case in.probing:
		return time.Time{}
	case now.Before(in.retryAt):
	case in.dialed.Load():
		k.probe(in)
		return time.Time{}
	case r.down && g.halfOpen > 0:
		return k.c.born.Add(g.trying) // or before, when its state leaves a note
	case r.down && now.Before(r.retryAt):
		return r.retryAt
	default:
		if k.halfOpen(in); in.retryAt.IsZero() {
			g.halfOpen++
			g.trying = k.c.clock() + safeTrials
		}
	}
	return in.retryAt
}

// pause is how long the breaker stays open this time. The millisecond is for gobreaker's
// own time, which must be over by then.
func (in *instance) pause() time.Duration {
	return in.hold<<min(in.trials, maxDoublings) + time.Millisecond
}

// halfOpen lets gobreaker see that its time is over: it moves when it is looked at, and
// nobody but the keeper looks. Where its time is not over yet, another look follows.
func (k *keeper) halfOpen(in *instance) {
	if in.cb.State() == gobreaker.StateOpen {
		in.retryAt = time.Now().Add(breakerMin / 10)
		return
	}
	in.retryAt = time.Time{}
}

// probe dials the instance: where connecting failed there is no point in letting a call
// find out that it still does.
func (k *keeper) probe(in *instance) {
	select {
	case k.slots <- struct{}{}:
	default:
		in.retryAt = time.Now().Add(probeDial) // all busy
		return
	}
	in.probing = true
	address := net.JoinHostPort(in.address, strconv.Itoa(in.port))
	if at := in.dialAt.Load(); at != nil {
		address = *at
	}
	k.probes.Go(func() {
		defer func() { <-k.slots }()
		ctx, cancel := context.WithTimeout(k.ctx, probeDial)
		defer cancel()
		conn, err := k.c.dial(ctx, "tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		select {
		case k.probed <- probe{in: in, ok: err == nil}:
		case <-k.ctx.Done():
		}
	})
}

func (k *keeper) result(p probe, now time.Time) {
	p.in.probing = false
	if p.ok {
		p.in.dialed.Store(false)
		k.halfOpen(p.in) // the keeper looks at all of them next
		return
	}
	p.in.retryAt = now.Add(p.in.hold/2 + rand.N(p.in.hold)) // no call was spent on it
}
