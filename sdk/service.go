package nearside

import (
	"maps"
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
	cfg   ServiceConfig
	seed  uint64 // of its subset
	// keyed tells that a call's key may matter to the balancer.
	keyed bool

	answer atomic.Pointer[answer] // nil until something is known
	turn   atomic.Uint64          // of the round robin
	dirty  atomic.Bool            // a breaker moved since the last decision
	recent recent                 // how long answers took

	ready chan struct{} // closed when a registry answered for the service
	tried chan struct{} // closed when the registries to wait for were asked in vain
	old   bool          // the snapshot's word is older than oldSnapshot; set before anybody sees s

	use   use         // see idle.go
	where atomic.Bool // somebody picks among connections of his own

	// distrust is set when the program's own balancer panicked, complained when it was told
	// once that an answer of it is none.
	distrust, complained atomic.Bool

	// settled is set once a caller need not wait any more: ready, or a snapshot stood in.
	settled atomic.Bool
	// failUntil is when the next caller waits again, after one waited in vain; nanoseconds
	// of the client's clock.
	failUntil atomic.Int64

	mu sync.Mutex // taken after the watcher's
	knowledge
	synced    bool
	instances map[route.EndpointRef]*instance
	regions   map[api.Region]*regionHealth
	memory    route.Memory  // of the last decision
	decided   time.Duration // when that was, by the client's clock
	changed   chan struct{} // closed at the next answer
	turned    *turn         // not told yet; see turns.go
}

// knowledge is what a decision is made from, breakers aside. It never changes.
type knowledge struct {
	view   route.View
	home   api.Region
	whole  bool         // what is not in the view is nowhere
	told   *api.Policy  // the home region's
	policy route.Policy // and with the program's own wishes
}

// answer is one decision, prepared for picks. It never changes, but for the turns.
type answer struct {
	knowledge
	decision route.Decision
	id       string // of the decision; see route.DecisionID
	synced   bool
	warm     warm // who starts slowly
	tiers    []tier
	// serving are the tiers that take traffic. The first takes the turns below its bound, the
	// next those from there to its own, and so on; the last takes the rest.
	serving []*tier
	bounds  []uint64
}

type tier struct {
	at     int // its place among the answer's
	region api.Region
	kind   api.TierKind
	slots  []*slot
	whole  []*slot // with the instances outside of the client's subset; nil while nobody needs them
	// For a tier that takes traffic: who shares it, who chooses among them, and that same
	// one if it is the program's own.
	picks  []*slot
	list   []Candidate // of picks
	lots   []uint32    // places among picks, each as often as its weight says
	picker Picker
	guard  *guarded
}

// slot is one endpoint of an answer.
type slot struct {
	endpoint api.Endpoint
	in       *instance
	from     *answer
	tier     int
	warm     float64 // of its weight; below 1 while it starts slowly
	// Among those who share the traffic of a tier: its place there, and the tier.
	place int
	of    *tier
}

func newService(c *Client, w *watcher, key api.ServiceKey) *service {
	cfg := c.cfg.of(key)
	return &service{
		c: c, w: w, keyed: looksAtKeys(cfg.Balancer), seed: c.seed(key), key: key, label: key.String(), cfg: cfg,
		ready: make(chan struct{}), tried: make(chan struct{}), changed: make(chan struct{}),
		instances: map[route.EndpointRef]*instance{}, regions: map[api.Region]*regionHealth{},
	}
}

// show takes over a new view and decides. The watcher calls it, one call at a time.
func (s *service) show(known knowledge, synced bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.knowledge = known
	s.adoptLocked()
	first := synced && !s.synced
	s.synced = s.synced || synced
	if first {
		s.memory = route.Memory{} // what a snapshot said is no traffic to be brought back
	}
	s.decideLocked()
	if first {
		// Only now: whoever sees it settled takes the answer without a further look.
		s.settled.Store(true)
		close(s.ready)
	}
}

// markTried lets callers stop waiting if a snapshot can stand in: one of these days when home
// was asked in vain, an older one only when all were.
func (s *service) markTried(far askedInVain) {
	if far == askedNobody || s.old && far < askedAll {
		return
	}
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
	used := make(map[*regionHealth]bool, len(s.regions))
	for ri := range s.view.Regions {
		r := &s.view.Regions[ri]
		for ei := range r.Endpoints {
			e := &r.Endpoints[ei]
			ref := route.EndpointRef{Region: e.Region, ID: e.ID}
			in := s.instances[ref]
			if in == nil || !in.same(e) {
				in = newInstance(e, s.regionLocked(e.Region), s.c.clock, s.note)
			}
			was := in.usable
			in.usable = e.Status.Usable() && e.Weight > 0
			in.ejection.near = s.c.cfg.Zone != "" && e.Region == s.home && e.Zone == s.c.cfg.Zone
			s.startLocked(in, was)
			next[ref], used[in.region] = in, true
		}
	}
	for ref, in := range s.instances {
		in.gone.Store(next[ref] != in)
	}
	s.instances = next
	maps.DeleteFunc(s.regions, func(_ api.Region, r *regionHealth) bool { return !used[r] })
	s.spareLocked()
}

// regionLocked returns the health of a region, which is kept while it has an endpoint.
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
	s.answerLocked(s.routeLocked())
	s.tellLocked()
}

// tellLocked wakes those who watch.
func (s *service) tellLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// routeLocked decides, and remembers it. The answer has no tiers yet.
func (s *service) routeLocked() *answer {
	s.boundLocked()
	w := s.warmLocked()
	caller := s.callerLocked()
	a := &answer{knowledge: s.knowledge, synced: s.synced, warm: w}
	a.policy = w.ramped(s.policy, &s.view, s.cfg.SlowStart)
	a.decision = a.decide(caller, nil)
	s.memory, s.decided = a.decision.Memory, s.c.clock()
	a.id = route.DecisionID(a.view, a.policy, caller)
	return a
}

// answerLocked completes an answer, and shows it.
func (s *service) answerLocked(a *answer) {
	d := &a.decision
	a.tiers = make([]tier, len(d.Tiers))
	for i := range d.Tiers {
		t := &d.Tiers[i]
		endpoints := subset(t.Endpoints, s.cfg.Subset, s.seed)
		a.tiers[i] = tier{at: i, region: t.Region, kind: t.Kind, slots: s.slotsLocked(a, i, endpoints)}
		if len(endpoints) < len(t.Endpoints) && s.where.Load() {
			a.tiers[i].whole = s.slotsLocked(a, i, t.Endpoints)
		}
	}
	was := s.answer.Load()
	s.serve(a, was)
	s.answer.Store(a)
	s.turnLocked(was, a)
}

func (s *service) slotsLocked(a *answer, tier int, endpoints []*api.Endpoint) []*slot {
	slots := make([]*slot, len(endpoints))
	for i, e := range endpoints {
		ref := route.EndpointRef{Region: e.Region, ID: e.ID}
		slots[i] = &slot{endpoint: *e, from: a, tier: tier, in: s.instances[ref], warm: a.warm.of(ref)}
		slots[i].endpoint.Tier = tier
	}
	return slots
}

// decide is the one decision, with what this client adds to it.
func (a *answer) decide(caller route.Caller, t *api.Trace) route.Decision {
	d := route.Decide(a.view, a.policy, caller, t)
	a.warm.spread(&d)
	return d
}

func (s *service) callerLocked() route.Caller {
	c := route.Caller{
		Region: s.home, Zone: s.c.cfg.Zone, Broken: s.brokenLocked(),
		Memory: s.memory, Elapsed: s.c.clock() - s.decided,
	}
	if a := s.answer.Load(); c.Elapsed > keeperTick && a != nil && !a.decision.Ramping {
		// Nothing was on its way: a ramp that begins now begins now.
		c.Memory, c.Elapsed = c.Memory.After(c.Elapsed-keeperTick), keeperTick
	}
	return c
}

// ramp decides anew while traffic is on its way, or instances start, by and by. It is told when there is
// something new: a load may call for more than is possible for hours, and that instances are a little
// warmer changes no endpoint and no share of a tier.
func (s *service) ramp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.answer.Load()
	switch {
	case last == nil || !last.decision.Ramping && len(last.warm) == 0:
	case s.dirty.Load():
		s.decideLocked()
	default:
		next := s.routeLocked()
		same := sameShares(&last.decision, &next.decision)
		if !same || len(last.warm) > 0 || len(next.warm) > 0 {
			s.answerLocked(next)
		}
		if !same {
			s.tellLocked()
		}
	}
}

// sameShares reports whether two decisions about the same view and breakers are alike to a caller.
func sameShares(a, b *route.Decision) bool {
	if len(a.Tiers) != len(b.Tiers) || a.Detail != b.Detail || a.Ramping != b.Ramping {
		return false
	}
	for i := range a.Tiers {
		if a.Tiers[i].Tier != b.Tiers[i].Tier {
			return false
		}
	}
	return true
}

// watch returns the current answer and a channel that closes when there is a newer one.
func (s *service) watch() (*answer, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answer.Load(), s.changed
}

// resolution returns the answer in its wire form, with ages as of now.
func (s *service) resolution(a *answer, now time.Time) api.Resolution {
	decision := a.decision.Wire()
	decision.ID = a.id
	return api.Resolution{
		Service: s.key.Service, Namespace: s.key.Namespace,
		Endpoints: a.decision.Endpoints(0), Decision: decision, Views: s.w.origins(s.key, now), Policy: a.told,
		Loads: loadsOf(&a.view),
	}
}

// loadsOf returns the loads that a view knows of.
func loadsOf(v *route.View) map[api.Region]int {
	var out map[api.Region]int
	for i := range v.Regions {
		if load := v.Regions[i].Load; load > 0 {
			if out == nil {
				out = map[api.Region]int{}
			}
			out[v.Regions[i].Origin.Region] = int(load)
		}
	}
	return out
}
