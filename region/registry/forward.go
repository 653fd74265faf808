package registry

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/region/liveness"
	"github.com/nearside/nearside/sdk/api"
)

const (
	// ownerPatience is how long a heartbeat waits for an owner that can be reached.
	ownerPatience = 2 * time.Second
	// reportEvery is how often a node reports without anything to forward.
	reportEvery = time.Second
	// reportTimeout bounds one report.
	reportTimeout = time.Second
	// reportRetry is the pause after one that failed, while somebody waits.
	reportRetry = 200 * time.Millisecond
)

// Nodes calls the other nodes of the region. Safe for concurrent use.
type Nodes interface {
	// Report sends node from's report to the node to at the base URL address. It returns when ctx
	// ends; an *api.Error in the error's chain is the node's own answer.
	Report(ctx context.Context, from, to, address string, report api.NodeReport) (api.NodeAnswer, error)
}

// forwarder gathers heartbeats for the owner: one report is under way at a time, and what
// comes meanwhile goes with the next. Safe for concurrent use.
type forwarder struct {
	wake chan struct{} // capacity 1: somebody waits

	mu      sync.Mutex
	waiting []*bundleOfSigns
	checks  map[api.InstanceKey]api.NodeCheck // not told yet; the newest of each instance
	trouble string                            // why the last report failed; "" = it did not

	// Owned by forwardLoop.
	overlayTerm, overlayVersion uint64
	loadsTerm                   uint64 // of an owner that is known to take loads

	remote atomic.Pointer[ownerView]
}

// ownerView is what the owner last told this node.
type ownerView struct {
	term       uint64
	at         time.Duration
	protection api.Protection
}

// bundleOfSigns is heartbeats that came together and are answered together.
type bundleOfSigns struct {
	ctx      context.Context
	items    []api.BatchHeartbeat
	revision uint64         // of the newest record concerned that was seen here
	done     chan signsDone // capacity 1
}

type signsDone struct {
	taken    []taken
	revision uint64 // where the owner's memory stood
}

// taken is what became of one heartbeat: "" = it counts.
type taken struct {
	code        api.Code
	incarnation uint64
	// absent: memory has no such instance, or only an earlier incarnation. It may be behind.
	absent bool
}

// verdict is the error of a heartbeat that was not taken.
func (r *Registry) verdict(t taken, key api.InstanceKey) error {
	switch t.code {
	case "":
		return nil
	case api.CodeStaleIncarnation:
		return staleAs(key, t.incarnation)
	case api.CodeUnavailable:
		return &api.Error{
			Code: api.CodeUnavailable, Detail: fmt.Sprintf("the heartbeat of %s does not count: the node that owns liveness does not know it, and cannot ask the region's store whether another node does", api.Quote(key.String())),
			Remedy: "send it again, to another node of the region if there is one",
		}
	}
	return r.unknown(key)
}

// unknown is the error of a heartbeat of an instance that is not registered, or may have been
// after the copy was made that this node answers from.
func (r *Registry) unknown(key api.InstanceKey) error {
	return cmp.Or(r.needStore(), notFound(key))
}

func newForwarder() *forwarder {
	return &forwarder{wake: make(chan struct{}, 1), checks: map[api.InstanceKey]api.NodeCheck{}}
}

// takeSign takes one heartbeat; r.ledgerMu is held and this node holds liveness.
func (r *Registry) takeSign(snap *catalog.Snapshot, now time.Duration, key api.InstanceKey, incarnation uint64, load api.Load) taken {
	in := snap.Instance(key)
	switch {
	case in == nil, incarnation > in.Incarnation:
		return taken{code: api.CodeInstanceNotFound, absent: true}
	case incarnation != 0 && incarnation < in.Incarnation:
		return taken{code: api.CodeStaleIncarnation, incarnation: in.Incarnation}
	case !r.ledger.Heartbeat(now, key):
		return taken{code: api.CodeInstanceNotFound}
	}
	r.loads.note(now, key, load)
	return taken{}
}

// takeSigns takes heartbeats if this node owns liveness; false when it does not, or not any
// more. What it took until then counts. With several nodes "not registered" is said only once
// memory has caught up with the store: another node may have registered the instance a moment ago. All
// who come at the same time share one question to the store; without an answer it is CodeUnavailable.
func (r *Registry) takeSigns(ctx context.Context, items []api.BatchHeartbeat) (out []taken, ok bool) {
	out = make([]taken, len(items))
	if !r.takeOnce(items, out, false) {
		return nil, false
	}
	if r.own.alone || !slices.ContainsFunc(out, func(t taken) bool { return t.absent }) {
		return out, true
	}
	ctx, cancel := context.WithTimeout(ctx, reportWait)
	defer cancel()
	if _, err := r.confirmed(ctx); err != nil {
		for i := range out {
			if out[i].absent {
				out[i].code = api.CodeUnavailable
			}
		}
		return out, true
	}
	return out, r.takeOnce(items, out, true)
}

// takeOnce takes the items, or only those that are absent in out.
func (r *Registry) takeOnce(items []api.BatchHeartbeat, out []taken, absent bool) bool {
	const atOnce = 64 // the ledger's lock is everybody's
	snap := r.Snapshot()
	for i := 0; i < len(items); i += atOnce {
		r.ledgerMu.Lock()
		now := r.now()
		if !r.own.holds(now) {
			r.ledgerMu.Unlock()
			return false
		}
		for k := i; k < min(i+atOnce, len(items)); k++ {
			if !absent || out[k].absent {
				out[k] = r.takeSign(snap, now, keyOf(&items[k]), items[k].Incarnation, items[k].Load)
			}
		}
		r.ledgerMu.Unlock()
	}
	return true
}

func keyOf(b *api.BatchHeartbeat) api.InstanceKey {
	return api.InstanceKey{Namespace: orDefault(b.Namespace), Service: b.Service, ID: b.ID}
}

// signs has heartbeats taken by whoever owns liveness, and returns once they are. revision is
// where the owner's memory stood, 0 when it is this node's.
func (r *Registry) signs(ctx context.Context, items []api.BatchHeartbeat) (out []taken, revision uint64, err error) {
	if out, ok := r.takeSigns(ctx, items); ok {
		return out, 0, nil
	}
	if r.readsFrom() != nil {
		// Who owns liveness is not known, and nobody looks at what would wait here.
		return nil, 0, r.needStore()
	}
	ctx, cancel := context.WithTimeout(ctx, ownerPatience)
	defer cancel()
	b := &bundleOfSigns{ctx: ctx, items: items, done: make(chan signsDone, 1)}
	snap := r.Snapshot()
	for i := range items {
		if in := snap.Instance(keyOf(&items[i])); in != nil {
			b.revision = max(b.revision, in.Revision)
		}
	}
	r.forward.add(b)
	select {
	case d := <-b.done:
		return d.taken, d.revision, nil
	case <-ctx.Done():
	case <-r.ended:
		return nil, 0, &api.Error{Code: api.CodeShuttingDown, Detail: "this node is shutting down", Remedy: "ask another node"}
	}
	return nil, 0, &api.Error{
		Code: api.CodeUnavailable, Detail: "the heartbeat does not count: " + r.forward.why(r.own.claim.Load()),
		Remedy: "send it again, to another node of the region if there is one; nobody is evicted before a node that takes heartbeats has waited a full ttl",
	}
}

func (f *forwarder) add(b *bundleOfSigns) {
	f.mu.Lock()
	f.waiting = append(f.waiting, b)
	f.mu.Unlock()
	f.nudge()
}

func (f *forwarder) nudge() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// why says why there is no owner to be reached.
func (f *forwarder) why(c *claimRecord) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case c.Released():
		return "no node of the region owns liveness at the moment"
	case c.mine:
		return "this node owns liveness, and the store has not confirmed that for a while"
	case f.trouble != "":
		return fmt.Sprintf("node %s, which owns liveness, cannot be reached at %s: %s", c.Node.Name, c.Node.Address, f.trouble)
	}
	return fmt.Sprintf("node %s, which owns liveness, does not answer", c.Node.Name)
}

// take returns waiting bundles that fit into one report. Those whose caller left are gone.
func (f *forwarder) take() (out []*bundleOfSigns) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, rest := 0, f.waiting[:0]
	for _, b := range f.waiting {
		switch {
		case b.ctx.Err() != nil:
		case n+len(b.items) > api.MaxReportHeartbeats && n > 0:
			rest = append(rest, b)
		default:
			n += len(b.items)
			out = append(out, b)
		}
	}
	clear(f.waiting[len(rest):])
	f.waiting = rest
	return out
}

func (f *forwarder) putBack(list []*bundleOfSigns) (waiting bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting = append(list, f.waiting...)
	return len(f.waiting) > 0
}

// condemn tells the owner of liveness that the checks of an instance want it removed, or
// (pardon) no longer do. It returns false when too many wait to be told: then the next result must
// say it again.
func (r *Registry) condemn(key api.InstanceKey, revision uint64, pardon bool) bool {
	r.ledgerMu.Lock()
	defer r.ledgerMu.Unlock()
	if r.owning {
		r.condemnHere(key, revision, pardon)
		return true
	}
	f := r.forward
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, known := f.checks[key]; !known && len(f.checks) >= api.MaxReportChecks {
		return false
	}
	f.checks[key] = api.NodeCheck{RecordRef: api.RefOf(key, revision), Pardon: pardon}
	return true
}

// unsay drops what was not told yet of an instance: its checks are another node's now.
func (f *forwarder) unsay(key api.InstanceKey) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.checks, key)
}

// condemnHere is condemn at the owner; r.ledgerMu is held.
func (r *Registry) condemnHere(key api.InstanceKey, revision uint64, pardon bool) {
	if pardon {
		r.ledger.Pardon(r.now(), key)
	} else {
		r.ledger.Condemn(r.now(), key, revision)
	}
}

// report makes a report without heartbeats.
func (r *Registry) report(claim *claimRecord, leaving bool) api.NodeReport {
	return api.NodeReport{Address: r.own.cfg.Self.Address, Term: claim.Term, Epoch: r.Snapshot().Version().Epoch, Leaving: leaving}
}

// forwardLoop reports to the owner until ctx ends.
func (r *Registry) forwardLoop(ctx context.Context) error {
	if r.own.alone {
		return nil
	}
	select {
	case <-r.loaded:
	case <-ctx.Done():
		return nil
	}
	f := r.forward
	t := time.NewTicker(reportEvery)
	defer t.Stop()
	full := true // a report is due, whether somebody waits or not
	for {
		changed := r.own.next()
		failed, waiting := r.forwardSome(ctx, full)
		full = full && failed
		retry := (<-chan time.Time)(nil)
		wake := f.wake
		switch {
		case failed && waiting:
			retry, wake = time.After(reportRetry), nil
		case failed:
			retry = time.After(2 * reportRetry)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-retry:
		case <-changed:
			full = true
		case <-t.C:
			full = true
		}
	}
}

// forwardSome has waiting heartbeats taken, here or by the owner.
func (r *Registry) forwardSome(ctx context.Context, full bool) (failed, waiting bool) {
	f := r.forward
	list := f.take()
	claim := r.own.claim.Load()
	switch {
	case claim.Released():
		return true, f.putBack(list)
	case claim.mine:
		return r.forwardHere(list)
	case len(list) == 0 && !full:
		return false, false
	}
	rep := r.report(claim, false)
	for _, b := range list {
		rep.Heartbeats = append(rep.Heartbeats, b.items...)
		rep.Revision = max(rep.Revision, b.revision)
	}
	rep.Checks = f.toldChecks()
	for i := range rep.Checks {
		rep.Revision = max(rep.Revision, rep.Checks[i].Revision)
	}
	if full {
		version := f.overlayVersion
		if f.overlayTerm != claim.Term {
			version = 0
		}
		rep.Overlay = &version
		rep.Loads = f.loadsTerm == claim.Term && r.loads.due(r.now())
	}
	if f.loadsTerm != claim.Term {
		// An owner of an older version would refuse what it does not know, and the heartbeats with
		// it. This list is the report's own.
		for i := range rep.Heartbeats {
			rep.Heartbeats[i].Load = 0
		}
	}
	rctx, cancel := context.WithTimeout(ctx, reportTimeout)
	answer, err := r.cfg.Nodes.Report(rctx, r.cfg.Node, claim.Node.Name, claim.Node.Address, rep)
	cancel()
	f.note(err)
	if err != nil {
		r.log.Debug("the owner of liveness did not take a report", "owner", claim.Node.Name, "cause", err)
		return true, f.putBack(list)
	}
	f.forget(rep.Checks)
	r.adoptView(claim, answer)
	if answer.TakesLoads {
		f.loadsTerm = claim.Term
	}
	if rep.Loads {
		r.loads.adopt(r.now(), answer.Loads)
	}
	results := make([]taken, len(rep.Heartbeats))
	for _, ref := range answer.Refused {
		if ref.Index >= 0 && ref.Index < len(results) {
			results[ref.Index] = taken{code: ref.Code, incarnation: ref.Incarnation}
		}
	}
	for _, b := range list {
		n := len(b.items)
		b.done <- signsDone{results[:n:n], answer.Revision}
		results = results[n:]
	}
	r.counts.forwarded.Add(int64(len(rep.Heartbeats)))
	return false, false
}

// forwardHere takes what waits while this node is the owner.
func (r *Registry) forwardHere(list []*bundleOfSigns) (failed, waiting bool) {
	f := r.forward
	for i, b := range list {
		out, ok := r.takeSigns(b.ctx, b.items)
		if !ok {
			return true, f.putBack(list[i:])
		}
		b.done <- signsDone{taken: out}
	}
	told := f.toldChecks()
	r.ledgerMu.Lock()
	if r.owning {
		for i := range told {
			r.condemnHere(told[i].Key(), told[i].Revision, told[i].Pardon)
		}
	}
	r.ledgerMu.Unlock()
	f.forget(told)
	return false, false
}

func (f *forwarder) toldChecks() (out []api.NodeCheck) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.checks {
		out = append(out, c)
	}
	return out
}

// forget drops what was told, unless something newer is to be told by now.
func (f *forwarder) forget(told []api.NodeCheck) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range told {
		if key := c.Key(); f.checks[key] == c {
			delete(f.checks, key)
		}
	}
}

func (f *forwarder) note(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trouble = ""
	if err != nil {
		f.trouble = err.Error()
	}
}

// adoptView makes the owner's view this node's: whom readers see as overdue or evicted, and
// the brake.
func (r *Registry) adoptView(claim *claimRecord, a api.NodeAnswer) {
	f := r.forward
	r.ledgerMu.Lock()
	defer r.ledgerMu.Unlock()
	if r.owning || r.claimRev != claim.revision {
		return // of an owner that is none any more
	}
	f.remote.Store(&ownerView{term: claim.Term, at: r.now(), protection: a.Protection})
	r.counts.protected.Store(a.Protection.Active)
	if a.Overlay != nil {
		f.overlayTerm, f.overlayVersion = claim.Term, a.Overlay.Version
		r.overlay.Store(liveness.NewOverlay(marksOf(a.Overlay.Hidden), marksOf(a.Overlay.Overdue)))
	}
}

func marksOf(refs []api.RecordRef) []liveness.Mark {
	out := make([]liveness.Mark, len(refs))
	for i := range refs {
		out[i] = liveness.Mark{Key: refs[i].Key(), Revision: refs[i].Revision}
	}
	return out
}
