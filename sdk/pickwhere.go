package nearside

import (
	"context"
	"math/rand/v2"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/route"
)

// Where says which of a service's instances [Client.PickWhere] may choose.
type Where struct {
	// OK reports whether an instance may be chosen now, such as: there is a connection to it.
	// nil = every one. It is asked for a few instances per pick, must neither block nor
	// keep or change the endpoint, and is called from the goroutine that picks.
	OK func(e *api.Endpoint) bool
	// Safe tells that the call may be repeated elsewhere. Such calls are taken as the trial
	// of an instance that failed before; others only if none came for three seconds.
	Safe bool
	// LastResort allows instances that breakers keep calls from, and tiers that are not
	// offered in normal times, rather than none. Leave it out while something better is on
	// its way, such as a connection to the next region.
	LastResort bool
}

// PickWhere is [Client.Pick] for callers who keep connections of their own, and can use only
// the instances they are connected to: the same tiers, shares, turns and breakers, among what
// w allows. Where the instance whose turn it is may not be chosen, another of its tier is,
// at random, and only then the next tier. With w.OK all instances of a tier are looked at, also
// those outside of the client's subset ([Config.Subset]).
//
// It never waits, so that it can run where nothing may block: while no answer is known, it
// returns ErrUnreachable ([Client.Watch] tells the first one). Errors besides: ErrNoneFits
// when there are instances, but none that w allows; and those of Pick.
func (c *Client) PickWhere(ctx context.Context, service string, w Where) (Picked, error) {
	s, err := c.service(service)
	if err != nil {
		return Picked{}, err
	}
	if c.ctx.Err() != nil {
		return Picked{}, ErrClosed
	}
	s.use.note()
	if w.OK != nil && s.cfg.Subset > 0 && !s.where.Swap(true) {
		s.note() // the answer is made anew, with the instances outside of the subset
	}
	a := s.answer.Load()
	if a == nil {
		return Picked{}, ErrUnreachable
	}
	sl, l := s.chooseWhere(ctx, a, &w)
	if sl == nil {
		if len(a.tiers) == 0 {
			return Picked{}, s.nothing(a)
		}
		return Picked{}, ErrNoneFits
	}
	return c.picked(sl, l), nil
}

// drawsWhere is how many instances of the tier whose turn it is are looked at before it is
// searched in order. A search favours what comes after gaps; draws do not.
const drawsWhere = 16

// chooseWhere is choose for the first attempt of a call, among what w allows.
func (s *service) chooseWhere(ctx context.Context, a *answer, w *Where) (*slot, *lease) {
	c := call{ctx: ctx, safe: w.Safe}
	start := int(s.turn.Load() % (1 << 30))
	if sl := s.next(a, &c); sl != nil {
		turn := &a.tiers[sl.tier]
		if !w.allows(sl) {
			if sl, l := turn.along(&c, w.allows); sl != nil {
				return sl, l
			}
		}
		lots := turn.lots
		for n := 0; ; n++ {
			if w.allows(sl) {
				if l := sl.in.admit(&c); l != nil {
					return sl, l
				}
			}
			if n == drawsWhere || len(lots) < 2 {
				break
			}
			if turn.whole != nil && w.OK != nil {
				sl = turn.whole[rand.IntN(len(turn.whole))]
				continue
			}
			sl = turn.picks[lots[rand.Uint64N(uint64(len(lots)))]]
		}
		if sl, l := turn.search(w, &c, start); sl != nil {
			return sl, l
		}
	}
	for _, normal := range [...]bool{true, false} {
		if !normal && !w.LastResort {
			return nil, nil
		}
		for i := range a.tiers {
			t := &a.tiers[i]
			if normal != (a.decision.Panic || t.kind != api.TierOverflow || t.picker != nil) {
				continue
			}
			if sl, l := t.search(w, &c, start); sl != nil {
				return sl, l
			}
		}
	}
	for i := range a.tiers {
		for _, sl := range a.tiers[i].where(w) {
			if w.allows(sl) {
				return sl, sl.in.force()
			}
		}
	}
	return nil, nil
}

// where is what may be chosen from: for those who say whom they can use, all of the tier. The connections
// that they keep are a part that they chose themselves, and may have nobody in common with the subset
// that this client calls.
func (t *tier) where(w *Where) []*slot {
	if w.OK != nil && t.whole != nil {
		return t.whole
	}
	return t.slots
}

// search takes the first instance of the tier from start on that w and its breaker allow.
func (t *tier) search(w *Where, c *call, start int) (*slot, *lease) {
	slots := t.where(w)
	for k := range slots {
		if sl := slots[(start+k)%len(slots)]; w.allows(sl) {
			if l := sl.in.admit(c); l != nil {
				return sl, l
			}
		}
	}
	return nil, nil
}

func (w *Where) allows(sl *slot) bool { return w.OK == nil || w.OK(&sl.endpoint) }

// DialFailed tells that a connection of the caller's own to an instance of the service could
// not be made, apart from any pick: nothing of a call was sent, but as things are none can
// be. As after a failed dial of the client's own transport the breaker opens at once, and
// before anybody is sent there again the client has dialed address ("host:port", what the
// caller dials; "" = the endpoint's main port) with success. It never blocks; an instance
// that the service does not have (any more) is passed over.
func (c *Client) DialFailed(service string, e api.Endpoint, address string) {
	s := (*c.services.Load())[service]
	if s == nil {
		return
	}
	s.mu.Lock()
	in := s.instances[route.EndpointRef{Region: e.Region, ID: e.ID}]
	s.mu.Unlock()
	if in == nil || !in.same(&e) {
		return
	}
	if address != "" {
		in.dialAt.Store(&address)
	}
	in.dialed.Store(true)
	in.lease.Load().report(outcomeDown)
}
