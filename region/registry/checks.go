package registry

import (
	"context"
	"fmt"
	"hash/fnv"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/region/liveness/check"
	"github.com/nearside/nearside/region/liveness/check/rounds"
	"github.com/nearside/nearside/region/liveness/owner"
	"github.com/nearside/nearside/sdk/api"
)

const (
	// probesAtOnce is how many checks are under way at most. When all of them time out after
	// the default second, 1,000 a second can be run: 10,000 checks of ten seconds.
	probesAtOnce = 1024
	// firstSpread is over how long the first checks of new instances are spread.
	firstSpread = 300 * time.Millisecond
	// syncPause is the least time between two looks at what changed in the catalogue.
	syncPause = 50 * time.Millisecond
)

// Prober carries out one check. Implemented by *probe.Prober.
type Prober interface {
	// Admit returns an error that says why a check at the address and port would be
	// refused; nil when that is not known beforehand.
	Admit(address string, port int) error
	// Probe returns within t.Timeout, or soon after ctx ends. It is called concurrently.
	Probe(ctx context.Context, t check.Target) check.Result
}

// checker runs the checks of this node's instances and keeps what they found. The
// catalogue has the rules and the last verdicts; here is what happened since.
//
// Three goroutines: follow learns of instances from the published snapshots, rounds.Run
// probes, verdictLoop writes. They share what mu protects. While it is held nothing is called
// but the pure packages, rounds (which has a lock of its own and calls nobody), condemn and unsay:
// ledgerMu and forwarder.mu are taken after mu, never the other way round.
type checker struct {
	reg    *Registry
	prober Prober // nil = this node runs no checks
	rounds *rounds.Rounds[checkID]
	damp   check.Damping
	wake   chan struct{} // capacity 1: a verdict is to be written

	mu       sync.Mutex
	version  api.Version // of the snapshot that was last looked at
	members  *memberList // by which owns decides
	services map[api.ServiceKey]map[api.InstanceID]*patient
	dirty    []*patient // in the order in which they became so
	doubt    *check.Suspicion
	lives    uint64 // numbers patients
	moving   bool   // sync looks at what a change of members brings

	gaps   atomic.Int64 // pauses of this process, counted by the tick
	counts [3]atomic.Int64
}

// patient is one incarnation of an instance that has checks.
type patient struct {
	key    api.InstanceKey
	life   uint64
	in     *api.Instance // as last seen in the catalogue
	rules  []api.Check   // active ones
	states []check.State // of rules
	on     []bool        // being run
	dirty  bool          // a status of states may differ from the record's
	gaps   int64         // checker.gaps when the states were last forgiven
	// lapsed: condemned, or perhaps: by the node whose check it was before.
	lapsed bool
}

// checkID is one check of one patient. life tells it from that of an earlier incarnation.
type checkID struct {
	key  api.InstanceKey
	life uint64
	n    int
}

func newChecker(r *Registry) *checker {
	return &checker{
		reg: r, prober: r.cfg.Prober, rounds: rounds.New[checkID](probesAtOnce), damp: check.DefaultDamping(),
		wake: make(chan struct{}, 1), services: map[api.ServiceKey]map[api.InstanceID]*patient{}, members: &memberList{},
		doubt: check.NewSuspicion(check.DefaultSuspicion()),
	}
}

// owns reports whether this node runs the checks of the instance: the one of the live nodes, as the
// owner of liveness lists them, whose name and the instance's hash highest together. So when
// a node leaves only its checks move. mu is held.
func (c *checker) owns(key api.InstanceKey) bool {
	return c.reg.own.alone || rendezvous(c.members.nodes, key) == c.reg.cfg.Node
}

// rendezvous returns the node that the instance belongs to, "" when there is none.
func rendezvous(nodes []owner.Node, key api.InstanceKey) (best string) {
	text := key.String()
	var most uint64
	for _, n := range nodes {
		h := fnv.New64a()
		h.Write([]byte(n.Name))
		h.Write([]byte{0})
		h.Write([]byte(text))
		// FNV alone leaves names that differ in their last letters in step.
		x := h.Sum64()
		x = (x ^ x>>33) * 0xff51afd7ed558ccd
		x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
		x ^= x >> 33
		if best == "" || x > most {
			best, most = n.Name, x
		}
	}
	return best
}

// admit refuses a registration whose checks cannot be run here.
func (c *checker) admit(reg *api.Registration) error {
	for i := range reg.Checks {
		rule := &reg.Checks[i]
		if !rule.Active() {
			continue
		}
		field := fmt.Sprintf("checks[%d]", i)
		if c.prober == nil {
			return &api.Error{
				Code: api.CodeUnsupported, Field: field + ".kind", Detail: fmt.Sprintf("checks of kind %q are not run by this node", rule.Kind),
				Remedy: `send heartbeats (kind "ttl"), and PUT …/status when the program knows it is unwell`,
			}
		}
		in := api.Instance{Address: reg.Address, Port: reg.Port, Ports: reg.Ports}
		if err := c.prober.Admit(reg.Address, in.PortOf(rule)); err != nil {
			return api.FieldError(field, err.Error(), "register an address that the registry may check, or leave the check out and send heartbeats")
		}
	}
	return nil
}

// withChecks fills in what a registration with checks begins with, or goes on with: next
// replaces cur (nil when new).
func withChecks(cur, next *api.Instance, now time.Time) {
	if !next.Checked() {
		return
	}
	asked, note := next.Status, ""
	if cur != nil && cur.Incarnation < next.Incarnation {
		cur = nil
	}
	if cur != nil {
		next.Set = cur.Set
		if cur.Status == api.StatusDraining {
			asked, note = api.StatusDraining, cur.StatusNote // also when it had no checks before
		}
	}
	switch {
	case asked == api.StatusPassing:
		next.Set = nil
	case asked == api.StatusDraining, cur == nil:
		next.Set = &api.SetStatus{Status: asked, Note: note}
	}
	next.CheckResults = check.Carry(cur, next.Checks, now)
	next.Status, next.StatusNote = check.Effective(next.Set, next.CheckResults)
	next.StatusSince = now
	if cur != nil && cur.Status == next.Status {
		next.StatusSince = cur.StatusSince
	}
}

// run owns the checker's goroutines until ctx ends.
func (c *checker) run(ctx context.Context) error {
	if c.prober == nil {
		return nil
	}
	unregister, err := c.observe()
	if err != nil {
		return err
	}
	defer unregister()
	var loops sync.WaitGroup
	defer loops.Wait()
	loops.Go(func() { c.rounds.Run(ctx, c.visit) })
	loops.Go(func() { c.verdictLoop(ctx) })
	return c.follow(ctx)
}

// follow keeps the patients in step with the catalogue.
func (c *checker) follow(ctx context.Context) error {
	select {
	case <-c.reg.loaded:
	case <-ctx.Done():
		return nil
	}
	first := true
	for {
		h := c.reg.head.Load()
		c.sync(h.snap, first)
		first = false
		select {
		case <-ctx.Done():
			return nil
		case <-h.changed:
		}
		// What happens within the next moment is looked at together.
		if !sleep(ctx, syncPause) {
			return nil
		}
	}
}

// sync looks at the services that changed. restart says that the instances were known
// before this process was: their checks are spread over a whole interval then.
func (c *checker) sync(snap *catalog.Snapshot, restart bool) {
	c.mu.Lock()
	since := c.version
	c.mu.Unlock()
	keys, known := c.reg.ChangedSince(since)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.version = snap.Version()
	if members := c.reg.own.members.Load(); members.revision != c.members.revision || !owner.SameNodes(members.nodes, c.members.nodes) {
		// Each instance may have another node now. What comes to this one waits its turn, as
		// after a restart: its record says how it is.
		c.moving = c.members.revision != 0
		defer func() { c.moving = false }()
		c.members = members
		known = false
	}
	if !known {
		keys = snap.Services()
		for key := range c.services {
			if list, _ := snap.Service(key); len(list) == 0 {
				keys = append(keys, key)
			}
		}
	}
	for _, key := range keys {
		list, _ := snap.Service(key)
		c.syncService(key, list, restart)
	}
}

func (c *checker) syncService(key api.ServiceKey, list []*api.Instance, restart bool) {
	had := c.services[key]
	for id, p := range had {
		if _, found := slices.BinarySearchFunc(list, id, func(in *api.Instance, id api.InstanceID) int { return compareIDs(in.ID, id) }); !found {
			c.discharge(p)
		}
	}
	for _, in := range list {
		p := had[in.ID]
		switch {
		case p != nil && p.in == in && c.owns(in.Key()):
		case !in.Checked() || !c.owns(in.Key()):
			if p != nil {
				c.discharge(p)
			}
		case p != nil && p.in.Incarnation == in.Incarnation && p.in.RegisteredAt.Equal(in.RegisteredAt) && slices.Equal(p.in.Checks, in.Checks):
			p.in = in
			c.schedule(p, false)
			c.spare(p)
		default:
			c.adopt(p, in, restart)
		}
	}
}

// adopt takes an instance on: a new one, or one that began a new life or got new rules.
func (c *checker) adopt(old *patient, in *api.Instance, restart bool) {
	now := time.Now()
	c.lives++
	p := &patient{key: in.Key(), life: c.lives, in: in, rules: check.Active(in.Checks), gaps: c.gaps.Load()}
	p.states = make([]check.State, len(p.rules))
	p.on = make([]bool, len(p.rules))
	for i := range p.rules {
		last := check.First(&p.rules[i], now)
		for _, r := range in.CheckResults {
			if r.Name == last.Name && r.Role == last.Role {
				last = r
			}
		}
		p.states[i] = check.Resume(last, now)
		if old == nil || old.in.Incarnation != in.Incarnation || !old.in.RegisteredAt.Equal(in.RegisteredAt) {
			continue
		}
		for j := range old.rules {
			if old.rules[j] == p.rules[i] {
				p.states[i] = old.states[j] // this rule did not change
			}
		}
	}
	if old != nil {
		c.discharge(old)
	}
	// Whose checks they were may have condemned it, and can take that back no more.
	p.lapsed = !c.reg.own.alone && (restart || c.moving) && slices.ContainsFunc(p.rules, func(r api.Check) bool { return r.DeregisterAfter > 0 })
	service := p.key.ServiceKey()
	if c.services[service] == nil {
		c.services[service] = map[api.InstanceID]*patient{}
	}
	c.services[service][p.key.ID] = p
	c.soil(p)
	c.schedule(p, restart)
}

// discharge forgets an instance.
func (c *checker) discharge(p *patient) {
	for i := range p.rules {
		c.rounds.Drop(p.id(i))
	}
	if p.lapsed {
		c.reg.forward.unsay(p.key)
	}
	service := p.key.ServiceKey()
	if c.services[service][p.key.ID] == p {
		delete(c.services[service], p.key.ID)
		if len(c.services[service]) == 0 {
			delete(c.services, service)
		}
	}
}

func (p *patient) id(i int) checkID { return checkID{p.key, p.life, i} }

// draining reports whether somebody took the instance out of traffic.
func (p *patient) draining() bool { return p.in.Status == api.StatusDraining }

// schedule has the checks run that are due to be, and no other.
func (c *checker) schedule(p *patient, restart bool) {
	// Who registered after this process began is new, whatever the first look says.
	restart = restart && p.in.RegisteredAt.Before(c.reg.start) || c.moving
	for i, due := range check.Due(p.rules, p.states, p.draining()) {
		switch {
		case due == p.on[i]:
			continue
		case !due:
			c.rounds.Drop(p.id(i))
		default:
			every := p.rules[i].Interval.D()
			first := check.Delay(&p.rules[i]) + time.Duration(rand.Int64N(int64(firstSpread)))
			if restart {
				first = time.Duration(rand.Int64N(int64(every)))
			}
			c.rounds.Set(p.id(i), every, first)
			p.states[i].Amnesty(time.Now()) // while it rested nobody looked
		}
		p.on[i] = due
	}
}

// soil notes that a verdict may have to be written.
func (c *checker) soil(p *patient) {
	if !p.dirty {
		p.dirty = true
		c.dirty = append(c.dirty, p)
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// find returns the patient of id, nil when it is gone or was replaced.
func (c *checker) find(id checkID) *patient {
	p := c.services[id.key.ServiceKey()][id.key.ID]
	if p == nil || p.life != id.life {
		return nil
	}
	return p
}

// visit runs one check and takes its result.
func (c *checker) visit(ctx context.Context, id checkID) {
	c.mu.Lock()
	p := c.find(id)
	if p == nil {
		c.mu.Unlock()
		return
	}
	target := check.TargetOf(p.in, &p.rules[id.n])
	c.mu.Unlock()

	gaps := c.gaps.Load()
	r := c.prober.Probe(ctx, target)
	if r.Outcome == check.Failure && c.gaps.Load() != gaps {
		r.Outcome = check.Unknown // this process stood still meanwhile
	}
	c.counts[r.Outcome].Add(1)

	c.mu.Lock()
	p = c.find(id)
	if p == nil || !p.on[id.n] {
		c.mu.Unlock()
		return
	}
	now := time.Now()
	if g := c.gaps.Load(); g != p.gaps {
		p.gaps = g
		p.forgive(now)
	}
	if p.states[id.n].Step(&p.rules[id.n], c.damp, r, now) {
		c.schedule(p, false)
		c.soil(p)
	}
	c.lapse(p, now)
	c.mu.Unlock()
}

// forgive starts every time to deregister_after anew.
func (p *patient) forgive(now time.Time) {
	for i := range p.states {
		p.states[i].Amnesty(now)
	}
}

// lapse tells the ledger when the liveness or startup checks say that the instance is to be removed,
// or no longer. It is repeated with every result: a condemnation may have been lost with a
// new revision of the record.
func (c *checker) lapse(p *patient, now time.Time) {
	doubt, _ := c.doubt.On()
	condemn := false
	for i := range p.states {
		condemn = condemn || !doubt && !p.draining() && p.states[i].Expired(&p.rules[i], now)
	}
	if !condemn && !p.lapsed {
		return
	}
	if c.reg.condemn(p.key, p.in.Revision, !condemn) {
		p.lapsed = condemn
	}
}

// spare takes a condemnation back when the instance drains: its owner is about to end it.
func (c *checker) spare(p *patient) {
	if !p.lapsed || !p.draining() {
		return
	}
	if c.reg.condemn(p.key, p.in.Revision, true) {
		p.lapsed = false
	}
}

// all yields the state of every check; mu is held.
func (c *checker) all() iter.Seq[*check.State] {
	return func(yield func(*check.State) bool) {
		for _, service := range c.services {
			for _, p := range service {
				for i := range p.states {
					if !yield(&p.states[i]) {
						return
					}
				}
			}
		}
	}
}

// paused tells that this process did not run for a while. It is called by the tick, and
// does not wait.
func (c *checker) paused() { c.gaps.Add(1) }
