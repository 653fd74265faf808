package registry

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nearside/nearside/region/liveness/owner"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

const (
	// ownerStep is how often the election is looked at.
	ownerStep = 50 * time.Millisecond
	// ownerCommit bounds one commit, or one look at the store, of the election: a store that takes
	// longer is of no use to it.
	ownerCommit = 2500 * time.Millisecond
	// nodeSilence is how long the owner waits for a node's report before it counts as gone.
	nodeSilence = 3 * time.Second
	// maxNodes is how many nodes the owner lists beside itself: far more than a region has, and few
	// enough that the list always fits into a commit, whoever reports.
	maxNodes = 63
	// leaveTime is how long a stopping node takes at most to say so.
	leaveTime = time.Second
)

// ownership is this node's part in who owns liveness. Alone it owns without a record. Lock
// order: Registry.mu or checker.mu, ownership.mu, Registry.ledgerMu, forwarder.mu; ownership.beating before
// all but Registry.mu, with which it is never held.
type ownership struct {
	alone bool
	cfg   owner.Config
	hurry chan struct{} // capacity 1: there is something to renew for

	// hold is until when, on Registry.now, this node may act as the owner.
	hold atomic.Int64
	// claim and members are what the store shows.
	claim   atomic.Pointer[claimRecord]
	members atomic.Pointer[memberList]

	mu      sync.Mutex
	machine *owner.Machine
	changed chan struct{}       // closed when the claim changes, or the node begins to hold
	live    map[string]liveNode // at most maxNodes
	looked  time.Duration       // when live was last looked at
	told    []owner.Node        // what the last beat was to tell of them, whether it was taken or not

	beating sync.Mutex // one beat at a time, so that none tells less than the one before
}

type claimRecord struct {
	owner.Claim
	revision uint64
	mine     bool
}

// memberList is the nodes that live, as the owner has written them. Never changed.
type memberList struct {
	nodes    []owner.Node
	revision uint64 // 0 = there is no such record
}

// liveNode is a node that the owner hears of.
type liveNode struct {
	node  owner.Node
	heard time.Duration
}

func newOwnership(cfg *Config) (*ownership, error) {
	o := &ownership{alone: cfg.Nodes == nil, hurry: make(chan struct{}, 1), changed: make(chan struct{}), live: map[string]liveNode{}}
	self := owner.Node{Name: cfg.Node}
	if len(cfg.Addresses) > 0 {
		self.Address = cfg.Addresses[0]
	}
	if o.alone {
		o.hold.Store(math.MaxInt64)
		o.claim.Store(&claimRecord{Claim: owner.Claim{Node: self}, mine: true})
		o.members.Store(&memberList{nodes: []owner.Node{self}})
		return o, nil
	}
	if err := api.CheckNode(self.Name); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	if self.Address == "" {
		return nil, errors.New("registry: a node among others needs an address")
	}
	var run [8]byte
	if _, err := rand.Read(run[:]); err != nil {
		return nil, fmt.Errorf("registry: a name for this process: %w", err)
	}
	o.cfg = owner.Default(self, hex.EncodeToString(run[:]))
	o.machine = owner.New(o.cfg, mathrand.Int64N)
	o.claim.Store(&claimRecord{})
	o.members.Store(&memberList{})
	return o, nil
}

// holds reports whether this node may act as the owner at now.
func (o *ownership) holds(now time.Duration) bool { return int64(now) < o.hold.Load() }

// next is closed when who owns liveness changes, or this node begins to hold.
func (o *ownership) next() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.changed
}

// tell wakes who waits for a change; o.mu is held.
func (o *ownership) tell() {
	close(o.changed)
	o.changed = make(chan struct{})
}

func (o *ownership) hasten() {
	o.mu.Lock()
	o.machine.Hurry()
	o.mu.Unlock()
	select {
	case o.hurry <- struct{}{}:
	default:
	}
}

// electionOf returns what a loaded store shows of the election, as events.
func electionOf(records []store.Record) []store.Event {
	found := map[string]store.Record{}
	for _, rec := range records {
		if strings.HasPrefix(rec.Key, owner.Prefix) {
			found[rec.Key] = rec
		}
	}
	var out []store.Event
	for _, key := range []string{owner.BeatKey, owner.ClaimKey, owner.MembersKey} {
		rec, ok := found[key]
		rec.Key = key
		out = append(out, store.Event{Delete: !ok, Record: rec})
	}
	return out
}

// see takes what the store shows of the election; r.mu is held. A revision of 0: the events are a load's;
// first: this process has not loaded before.
func (r *Registry) see(events []store.Event, revision uint64, first bool) {
	o := r.own
	if o.alone {
		if revision == 0 && first {
			r.carryAlone(events)
		}
		return
	}
	if !slices.ContainsFunc(events, func(ev store.Event) bool { return strings.HasPrefix(ev.Record.Key, owner.Prefix) }) {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	now := r.now()
	for i := range events {
		rec := events[i].Record
		if events[i].Delete {
			rec.Value, rec.Revision = nil, 0
		} else {
			rec.Revision = max(rec.Revision, revision)
		}
		switch rec.Key {
		case owner.BeatKey:
			o.machine.SeeBeat(now, rec.Revision)
			if revision == 0 {
				r.carry(now, rec, first)
			}
		case owner.ClaimKey:
			r.seeClaim(now, rec, first)
		case owner.MembersKey:
			m, err := owner.DecodeMembers(rec.Value)
			if err != nil && rec.Revision != 0 {
				r.log.Error("the list of nodes cannot be read; the owner writes it anew", "cause", err)
			}
			o.members.Store(&memberList{nodes: m.Nodes, revision: rec.Revision})
		}
	}
}

// carryAlone is carry at the first load of a node that is alone, whose earlier process wrote the
// window with the deletes.
func (r *Registry) carryAlone(events []store.Event) {
	for i := range events {
		if rec := events[i].Record; rec.Key == owner.BeatKey && !events[i].Delete {
			r.carry(r.now(), rec, true)
			r.windowKept.Store(true)
		}
	}
}

// carry takes over the brake's window as the last beat told it: all of it at the first load, what
// history with a gap did not show at a later one.
func (r *Registry) carry(now time.Duration, rec store.Record, first bool) {
	b, err := owner.DecodeBeat(rec.Value)
	if err != nil {
		return
	}
	r.ledgerMu.Lock()
	defer r.ledgerMu.Unlock()
	switch {
	case first:
		r.ledger.Carry(now, b.Evicted)
	case !r.owning:
		r.ledger.Recount(now, b.Evicted)
	}
}

// seeClaim takes a claim; r.mu and own.mu are held. With its own claim, in step with every commit
// before it, this node becomes the owner.
func (r *Registry) seeClaim(now time.Duration, rec store.Record, first bool) {
	o := r.own
	claim, err := owner.DecodeClaim(rec.Value)
	if err != nil && rec.Revision != 0 {
		r.log.Error("the claim of liveness cannot be read; it is open to all nodes", "cause", err)
	}
	was := o.claim.Load()
	if !o.machine.SeeClaim(now, claim, rec.Revision) {
		return
	}
	next := &claimRecord{Claim: claim, revision: rec.Revision, mine: o.machine.Owner()}
	o.hold.Store(0)
	r.ledgerMu.Lock()
	protected := was.mine && r.ledger.State(now).Active
	switch {
	case next.mine:
		r.ledger.Begin(now, o.cfg.Hold)
	case was.mine:
		r.ledger.Release()
	}
	r.owning, r.claimRev = next.mine, rec.Revision
	r.ledgerMu.Unlock()
	if protected {
		r.Record(api.Event{
			Kind: api.EventProtectionOff, Actor: actorNode, Revision: rec.Revision, Cause: api.EventCause{Kind: api.BecauseOtherOwner},
			Detail: "as far as this node judges; the next owner of liveness decides anew",
		})
	}
	if next.mine || protected {
		r.counts.protected.Store(false)
	}
	if next.mine {
		o.begin(now, was.Node)
		select {
		case o.hurry <- struct{}{}: // it holds with its first beat
		default:
		}
	}
	o.claim.Store(next)
	o.tell()
	if !first && !claim.Released() {
		r.tellOwner(was, next)
	}
}

// begin counts everyone in who was there a moment ago but the former owner; o.mu is held.
func (o *ownership) begin(now time.Duration, former owner.Node) {
	clear(o.live)
	o.looked, o.told = now, nil
	for _, n := range o.members.Load().nodes {
		if n.Name != former.Name && n.Name != o.cfg.Self.Name {
			o.live[n.Name] = liveNode{n, now}
		}
	}
}

// ownerLoop takes part in the election until ctx ends.
func (r *Registry) ownerLoop(ctx context.Context) error {
	o := r.own
	if o.alone {
		return nil
	}
	select {
	case <-r.loaded:
	case <-ctx.Done():
		return nil
	}
	t := time.NewTicker(ownerStep)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		case <-o.hurry:
		}
		if r.beforeStep != nil {
			r.beforeStep()
		}
		now := r.now()
		o.mu.Lock()
		o.lookAround(now)
		action := o.machine.Step(now)
		o.mu.Unlock()
		r.perform(ctx, action)
	}
}

// lookAround drops nodes that are silent; o.mu is held. Silence counts only while this node
// runs and may take reports.
func (o *ownership) lookAround(now time.Duration) {
	if !o.machine.Owner() {
		return
	}
	gap := now - o.looked
	o.looked = now
	spare := gap > time.Second || !o.holds(now)
	for name, n := range o.live {
		switch {
		case spare:
			n.heard = now
			o.live[name] = n
		case now-n.heard > nodeSilence:
			delete(o.live, name)
		}
	}
	if !owner.SameNodes(o.nodes(), o.told) {
		o.machine.Hurry() // once: a store that has no space for the list is not asked again before the next beat is due
	}
}

// nodes returns the owner and those it hears of, by name; o.mu is held.
func (o *ownership) nodes() []owner.Node {
	out := make([]owner.Node, 0, 1+len(o.live))
	out = append(out, o.cfg.Self)
	for _, n := range o.live {
		out = append(out, n.node)
	}
	owner.SortNodes(out)
	return out
}

func (r *Registry) perform(ctx context.Context, a owner.Action) {
	o := r.own
	began := r.now()
	switch a.Kind {
	case owner.Probe:
		ok := r.caughtUp(ctx)
		o.mu.Lock()
		o.machine.Probed(r.now(), ok)
		o.mu.Unlock()
	case owner.Take:
		a.Claim.Since = time.Now().UTC().Truncate(time.Millisecond)
		_, err := r.commitSoon(ctx, []store.Op{
			{Key: owner.ClaimKey, Value: a.Claim.Encode(), Guarded: true, If: a.ClaimIf},
			{Key: owner.BeatKey, Check: true, Guarded: true, If: a.BeatIf},
		})
		if err != nil && !errors.Is(err, store.ErrConflict) {
			r.log.Debug("could not claim liveness", "cause", err)
		}
		o.mu.Lock()
		o.machine.Took(r.now(), err == nil)
		o.mu.Unlock()
	case owner.Renew:
		err := r.beat(ctx, a.ClaimIf)
		o.mu.Lock()
		o.machine.Renewed(began, a.ClaimIf, err == nil)
		if until, ok := o.machine.Holds(); ok {
			held := o.holds(r.now())
			o.hold.Store(int64(until))
			if !held {
				o.tell()
			}
		}
		o.mu.Unlock()
	}
}

// caughtUp reports whether the store answers and memory has everything that it had.
func (r *Registry) caughtUp(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, ownerCommit)
	defer cancel()
	revision, err := r.cfg.Store.Barrier(ctx)
	if err == nil {
		_, err = r.waitRevision(ctx, revision)
	}
	return err == nil
}

func (r *Registry) commitSoon(ctx context.Context, ops []store.Op) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, ownerCommit)
	defer cancel()
	return r.commit(ctx, ops)
}

// beat renews the claim of revision claimIf, and tells with it which nodes live and what was
// evicted. A store without space for it still confirms the claim, which is what counts: then
// nobody else can put one either.
func (r *Registry) beat(ctx context.Context, claimIf uint64) error {
	o := r.own
	o.beating.Lock()
	defer o.beating.Unlock()
	r.ledgerMu.Lock()
	evicted := r.ledger.Evictions(r.now())
	r.ledgerMu.Unlock()
	o.mu.Lock()
	nodes, shown := o.nodes(), o.members.Load()
	o.told = nodes
	claim, _ := o.machine.Claim()
	o.mu.Unlock()
	mine := store.Op{Key: owner.ClaimKey, Check: true, Guarded: true, If: claimIf}
	ops := []store.Op{mine, {Key: owner.BeatKey, Value: owner.Beat{Term: claim.Term, Evicted: evicted}.Encode()}}
	if !owner.SameNodes(nodes, shown.nodes) || shown.revision == 0 {
		ops = append(ops, store.Op{Key: owner.MembersKey, Value: owner.Members{Nodes: nodes}.Encode()})
	}
	_, err := r.commitSoon(ctx, ops)
	if errors.Is(err, store.ErrFull) {
		_, err = r.commitSoon(ctx, []store.Op{mine})
	}
	return err
}

// leave is the last act of a node that stops in good order, when its doors and loops are
// closed: an owner gives the claim back, another one says goodbye to the owner.
func (r *Registry) leave(ctx context.Context) {
	o := r.own
	claim := o.claim.Load()
	if o.alone || !r.isLoaded() || claim.Released() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
	defer cancel()
	if !claim.mine {
		_, err := r.cfg.Nodes.Report(ctx, r.cfg.Node, claim.Node.Name, claim.Node.Address, r.report(claim, true))
		if err != nil {
			r.log.Debug("no goodbye to the owner of liveness", "cause", err)
		}
		return
	}
	o.hold.Store(0)
	o.mu.Lock()
	nodes := o.nodes()
	o.mu.Unlock()
	rest := nodes[:0]
	for _, n := range nodes {
		if n.Name != o.cfg.Self.Name {
			rest = append(rest, n)
		}
	}
	_, err := r.commit(ctx, []store.Op{
		{Key: owner.ClaimKey, Value: owner.Claim{Term: claim.Term, Run: claim.Run, Cause: api.BecauseOwnerStopped}.Encode(), Guarded: true, If: claim.revision},
		{Key: owner.MembersKey, Value: owner.Members{Nodes: rest}.Encode()},
	})
	if err != nil {
		r.log.Warn("liveness was not given back; another node takes it over in some seconds", "cause", err)
	}
}

// tellOwner says that another node owns liveness.
func (r *Registry) tellOwner(was, now *claimRecord) {
	detail := fmt.Sprintf("node %s holds the deadlines of heartbeats (term %d); everyone has a full ttl to send one", now.Node.Name, now.Term)
	if was.Node.Name != "" {
		detail += "; it was node " + was.Node.Name
	}
	r.Record(api.Event{
		Kind: api.EventLivenessOwner, Subject: now.Node.Name, Actor: actorNode, Revision: now.revision,
		Cause: api.EventCause{Kind: cmp.Or(now.Cause, api.BecauseUnknown)}, Detail: detail,
	})
	r.log.Info("liveness has another owner", "owner", now.Node.Name, "term", now.Term, "cause", now.Cause, "self", now.mine)
}
