package nearside

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/route"
)

// service is one service that the client was asked for.
type service struct {
	c   *Client
	w   *watcher
	key api.ServiceKey
	// label is the service's name in metrics and spans.
	label string

	answer atomic.Pointer[answer] // nil until something is known
	turn   atomic.Uint64          // of the round robin
	dirty  atomic.Bool            // a breaker moved since the last decision

	ready chan struct{} // closed when a registry answered for the service
	tried chan struct{} // closed when home was asked for it in vain

	// settled is set once a caller need not wait any more: ready, or a snapshot stood in.
	settled atomic.Bool
	// failUntil is when the next caller waits again, after one waited in vain; nanoseconds
	// of the client's clock.
	failUntil atomic.Int64

	mu        sync.Mutex // taken after the watcher's
	view      route.View
	home      api.Region
	synced    bool
	instances map[route.EndpointRef]*instance
	regions   map[api.Region]*regionHealth
	changed   chan struct{} // closed at the next answer
}

// answer is one decision, prepared for picks. It never changes.
type answer struct {
	view     route.View
	decision route.Decision
	home     api.Region
	synced   bool
	tiers    []tier
	schedule []*slot // the order of the round robin over the tiers that take traffic
}

type tier struct {
	region api.Region
	kind   api.TierKind
	slots  []*slot
}

// slot is one endpoint of an answer.
type slot struct {
	endpoint api.Endpoint
	in       *instance
	tier     int
}

func newService(c *Client, w *watcher, key api.ServiceKey) *service {
	return &service{
		c: c, w: w, key: key, label: key.String(),
		ready: make(chan struct{}), tried: make(chan struct{}), changed: make(chan struct{}),
		instances: map[route.EndpointRef]*instance{}, regions: map[api.Region]*regionHealth{},
	}
}

// show takes over a new view and decides. The watcher calls it, one call at a time.
func (s *service) show(v route.View, home api.Region, synced bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.view, s.home = v, home
	s.adoptLocked()
	first := synced && !s.synced
	s.synced = s.synced || synced
	s.decideLocked()
	if first {
		// Only now: whoever sees it settled takes the answer without a further look.
		s.settled.Store(true)
		close(s.ready)
	}
}

// markTried lets callers stop waiting for home if a snapshot can stand in.
func (s *service) markTried() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.tried:
	default:
		close(s.tried)
	}
}

// decideAgain decides anew after a breaker moved.
func (s *service) decideAgain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.answer.Load() != nil {
		s.decideLocked()
	}
}

// adoptLocked keeps one instance per endpoint of the view, and drops the others.
func (s *service) adoptLocked() {
	next := make(map[route.EndpointRef]*instance, len(s.instances))
	for ri := range s.view.Regions {
		r := &s.view.Regions[ri]
		for ei := range r.Endpoints {
			e := &r.Endpoints[ei]
			ref := route.EndpointRef{Region: e.Region, ID: e.ID}
			in := s.instances[ref]
			if in == nil || !in.same(e) {
				in = newInstance(e, s.regionLocked(e.Region), s.c.clock, s.note)
			}
			next[ref] = in
		}
	}
	s.instances = next
}

// regionLocked returns the health of a region; there are few, and they stay.
func (s *service) regionLocked(name api.Region) *regionHealth {
	r := s.regions[name]
	if r == nil {
		r = &regionHealth{hold: breakerMin + rand.N(breakerSpread)}
		s.regions[name] = r
	}
	return r
}

// note tells the keeper that a breaker of the service moved. It never blocks.
func (s *service) note() {
	s.dirty.Store(true)
	select {
	case s.c.notes <- struct{}{}:
	default:
	}
}

func (s *service) decideLocked() {
	s.dirty.Store(false)
	d := route.Decide(s.view, s.c.cfg.Policy, s.callerLocked(), nil)
	a := &answer{view: s.view, decision: d, home: s.home, synced: s.synced, tiers: make([]tier, len(d.Tiers))}
	for i := range d.Tiers {
		t := &d.Tiers[i]
		slots := make([]*slot, len(t.Endpoints))
		for j, e := range t.Endpoints {
			sl := &slot{endpoint: *e, tier: i, in: s.instances[route.EndpointRef{Region: e.Region, ID: e.ID}]}
			sl.endpoint.Tier = i
			slots[j] = sl
		}
		a.tiers[i] = tier{region: t.Region, kind: t.Kind, slots: slots}
	}
	a.schedule = schedule(a.tiers, d)
	s.answer.Store(a)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *service) callerLocked() route.Caller {
	return route.Caller{Region: s.home, Zone: s.c.cfg.Zone, Broken: s.brokenLocked()}
}

// watch returns the current answer and a channel that closes when there is a newer one.
func (s *service) watch() (*answer, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answer.Load(), s.changed
}

// resolution returns the answer in its wire form, with ages as of now.
func (s *service) resolution(a *answer, now time.Time) api.Resolution {
	return api.Resolution{
		Service: s.key.Service, Namespace: s.key.Namespace,
		Endpoints: a.decision.Endpoints(0), Decision: a.decision.Wire(), Views: s.w.origins(now),
	}
}
