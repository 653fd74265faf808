package registry

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// Three nodes that start at once agree on one owner in one term, and each shows the same.
func TestNodesAgreeOnOneOwner(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := startNodes(t, 3)
		o := r.owner()
		for _, n := range r.all {
			info, _, err := n.RegionInfo(t.Context(), "eu-west")
			if err != nil || info.Liveness.Owner != o.name || info.Liveness.Term != 1 || !info.Liveness.Reached || info.Liveness.Since == nil {
				t.Fatalf("node %s: %+v, %v", n.name, info.Liveness, err)
			}
			var nodes []string
			for _, x := range info.Nodes {
				nodes = append(nodes, fmt.Sprintf("%s %v %v", x.Node, x.Owner, x.Self))
				if x.Address != r.node(x.Node).cfg.Addresses[0] {
					t.Errorf("address %s of %s", x.Address, x.Node)
				}
			}
			want := ""
			for _, x := range r.all {
				want += fmt.Sprintf("%s %v %v ", x.name, x == o, x == n)
			}
			if got := strings.Join(nodes, " ") + " "; got != want {
				t.Errorf("node %s shows %q, want %q", n.name, got, want)
			}
			if e := n.kept.of(api.EventLivenessOwner); len(e) != 1 || e[0].Subject != o.name || e[0].Cause.Kind != api.BecauseFirstStart {
				t.Errorf("node %s tells %+v", n.name, e)
			}
		}
	})
}

// A region of one node owns without a record, and writes nothing while idle.
func TestALoneNodeKeepsNoRecords(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		b.register("orders", "a")
		before := b.Stamp().Version.Revision
		for range 20 {
			b.register("orders", "a")
			pass(time.Second)
		}
		if got := b.Stamp().Version.Revision; got != before {
			t.Errorf("%d commits of an idle region", got-before)
		}
		if info, _, err := b.RegionInfo(t.Context(), "eu-west"); err != nil || !info.Liveness.Reached || info.Liveness.Owner != "n1" || len(info.Nodes) != 1 {
			t.Errorf("%+v, %v", info.Liveness, err)
		}
		_, err := b.Report(t.Context(), "n2", api.NodeReport{Address: "http://10.0.0.2:7400"})
		b.wantCode(err, api.CodeUnsupported)
	})
}

// P1, P2, P11: the owner is killed while clients of all nodes keep beating: another one takes
// over, and nobody is lost.
func TestOwnerKilled(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const n = 120
		r := startNodes(t, 3)
		r.register(0, n)
		r.beatFor(20*time.Second, 0, n)
		was := r.owner()
		was.freeze()
		begin := time.Now()
		refused, took := 0, time.Duration(0)
		for time.Since(begin) < time.Minute {
			refused += r.beatOnce(0, n)
			if o := r.owner(); o != nil && took == 0 {
				took = time.Since(begin)
			}
			pass(500 * time.Millisecond)
		}
		o := r.owner()
		t.Logf("the next owner acts %s after the kill at the latest; %d heartbeats were refused at first; %d of %d instances are listed", took, refused, r.instances(), n)
		if o == nil || o == was || took > 6*time.Second || r.instances() != n {
			t.Errorf("took over after %s, %d instances", took, r.instances())
		}
		for _, node := range r.others(was) {
			e := node.kept.of(api.EventLivenessOwner)
			if last := e[len(e)-1]; last.Subject != o.name || last.Cause.Kind != api.BecauseOwnerSilent {
				t.Errorf("node %s tells %+v", node.name, last)
			}
			if info := node.nodeInfos(); len(info) != 2 {
				t.Errorf("node %s shows the dead one still: %+v", node.name, info)
			}
			if e := node.kept.of(api.EventEvict); len(e) != 0 {
				t.Errorf("evicted: %+v", e)
			}
		}
		// The dead are evicted as ever.
		r.beatFor(8*time.Second, 1, n)
		if got := r.instances(); got != n-1 {
			t.Errorf("%d instances after one fell silent", got)
		}
	})
}

// A clean stop hands over at once.
func TestOwnerStops(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := startNodes(t, 3)
		r.register(0, 30)
		was := r.owner()
		was.down = true
		was.stop()
		o, took := r.nextOwner(was)
		t.Logf("%s acts %s after %s was told to stop", o.name, took, was.name)
		if took > time.Second {
			t.Errorf("took %s", took)
		}
		pass(time.Second)
		if info := o.nodeInfos(); len(info) != 2 {
			t.Errorf("the stopped one is listed still: %+v", info)
		}
		e := o.kept.of(api.EventLivenessOwner)
		if last := e[len(e)-1]; last.Cause.Kind != api.BecauseOwnerStopped {
			t.Errorf("%+v", last)
		}
		// Another one says goodbye: it leaves the list at once.
		other := r.others(o)[0]
		other.down = true
		other.stop()
		pass(300 * time.Millisecond)
		if info := o.nodeInfos(); len(info) != 1 {
			t.Errorf("after its goodbye %s is listed: %+v", other.name, info)
		}
	})
}

// P1, P2: an owner decides an eviction, its delete is on the way while the process stands
// still, another node takes over and acknowledges the instance's heartbeats. The delete
// arrives then, and must not happen; nor may the woken owner evict on what it remembers.
func TestPausedOwnerEvictsNobody(t *testing.T) {
	for _, on := range []string{"delete under way", "before its next tick"} {
		bubble(t, func(t *testing.T) {
			const n = 60
			r := startNodes(t, 3)
			r.register(0, n)
			r.beatFor(10*time.Second, 0, n)
			was := r.owner()
			if on == "delete under way" {
				was.store.deletes.close()
				r.beatFor(8*time.Second, 1, n) // i0 is silent until its eviction is decided and its delete is sent
				if was.pending() != 1 {
					t.Fatal("no eviction is decided")
				}
			}
			was.freeze()
			o, _ := r.nextOwner(was)
			// i0 is back, and all nodes but the old owner take heartbeats.
			r.beatFor(5*time.Second, 0, n)
			before := r.instances()
			was.store.deletes.open()
			was.thaw()
			synctest.Wait()
			for range 20 {
				r.beatOnce(0, n)
				pass(200 * time.Millisecond)
			}
			if got := r.instances(); got != n || before != n {
				t.Errorf("%s: %d instances before the old owner woke, %d after", on, before, got)
			}
			if on == "delete under way" && was.store.refused.Load() == 0 {
				t.Error("the old owner's delete never reached the store: the test tests nothing")
			}
			if r.owner() != o {
				t.Errorf("%s: ownership changed again", on)
			}
			r.beatFor(time.Minute, 0, n)
			if got := r.instances(); got != n {
				t.Errorf("%s: %d instances a minute later", on, got)
			}
		})
	}
}

// pending is how many evictions this node has decided and not seen done.
func (n *nodeUnderTest) pending() int {
	n.ledgerMu.Lock()
	defer n.ledgerMu.Unlock()
	return len(n.ledger.Pending())
}

// A node that cannot reach the owner says so within two seconds, and names it; clients that try
// another node lose nothing; the others go on.
func TestNodeCutOffFromTheOwner(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const n = 60
		r := startNodes(t, 3)
		r.register(0, n)
		r.beatFor(10*time.Second, 0, n)
		o := r.owner()
		cut := r.others(o)[0]
		r.cutCalls(cut, o, true)
		pass(4 * time.Second)
		begin := time.Now()
		_, err := cut.Heartbeat(t.Context(), ikey("orders", "i0"), 0)
		cut.wantCode(err, api.CodeUnavailable)
		if took := time.Since(begin); took > ownerPatience || err == nil || !strings.Contains(err.Error(), o.name) {
			t.Errorf("after %s: %v", took, err)
		}
		if ready := cut.Readiness(); ready.Ready {
			t.Errorf("%+v", ready)
		}
		if info := o.nodeInfos(); len(info) != 2 {
			t.Errorf("the owner lists %+v", info)
		}
		refused := r.beatFor(30*time.Second, 0, n)
		if got := r.instances(); got != n || refused == 0 {
			t.Errorf("%d of %d instances, %d heartbeats refused", got, n, refused)
		}
		r.cutCalls(cut, o, false)
		pass(2 * time.Second)
		if _, err := cut.Heartbeat(t.Context(), ikey("orders", "i0"), 0); err != nil || !cut.Readiness().Ready || len(o.nodeInfos()) != 3 {
			t.Errorf("after the repair: %v, %+v", err, o.nodeInfos())
		}
		if r.owner() != o {
			t.Error("ownership changed")
		}
	})
}

// P10, P2: while the store is away no heartbeat is acknowledged that could not be kept, nobody is
// evicted, and readers see what they saw; when it is back everyone has a full TTL.
func TestStoreAwayOfAllNodes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const n = 30
		r := startNodes(t, 3)
		r.register(0, n)
		r.beatFor(10*time.Second, 0, n)
		o := r.owner()
		r.store.SetUnavailable(true)
		pass(6 * time.Second)
		for _, node := range r.all {
			_, err := node.Heartbeat(t.Context(), ikey("orders", "i0"), 0)
			node.wantCode(err, api.CodeUnavailable)
		}
		pass(40 * time.Second)
		if got := r.instances(); got != n {
			t.Errorf("%d instances while the store is away", got)
		}
		r.store.SetUnavailable(false)
		pass(4 * time.Second) // less than a TTL
		if now := r.owner(); now == nil {
			t.Error("nobody owns")
		} else if now != o {
			t.Logf("another owner after the outage")
		}
		r.beatFor(30*time.Second, 0, n)
		if got := r.instances(); got != n {
			t.Errorf("%d instances after the outage", got)
		}
	})
}

// P10: a store without space renews nothing; heartbeats go on at all nodes, and so do evictions.
func TestFullStoreKeepsItsOwner(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const n = 30
		r := startNodes(t, 3)
		r.register(0, n)
		o := r.owner()
		r.store.SetFull(true)
		if refused := r.beatFor(20*time.Second, 1, n); refused != 0 {
			t.Errorf("%d heartbeats refused", refused)
		}
		if got := r.instances(); got != n-1 || r.owner() != o {
			t.Errorf("%d instances, want %d without the silent one", got, n-1)
		}
		r.store.SetFull(false)
		r.beatFor(10*time.Second, 1, n)
		if r.instances() != n-1 {
			t.Error("after it had space again")
		}
	})
}

// P2: half of the instances of all nodes fall silent: protection, the same on every node, told
// by one.
func TestProtectionWithHeartbeatsOverNodes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const n = 90
		r := startNodes(t, 3)
		r.register(0, n)
		r.beatFor(70*time.Second, 0, n)
		r.beatFor(20*time.Second, 0, n/2)
		told := 0
		for _, node := range r.all {
			p := node.brakeState()
			if !p.Active || p.Registered != n || p.Overdue != n/2 || p.Since == nil || p.Allowed != 13 {
				t.Errorf("node %s: %+v", node.name, p)
			}
			if got := strings.Count(node.listed("orders"), "!"); got != n/2 {
				t.Errorf("node %s marks %d as overdue", node.name, got)
			}
			told += len(node.kept.of(api.EventProtectionOn))
		}
		if told != 1 || r.instances() != n {
			t.Errorf("told %d times, %d instances", told, r.instances())
		}
		// The owner goes: the marks stay until the next one knows better, and nobody is evicted.
		was := r.owner()
		was.freeze()
		pass(time.Second)
		for _, node := range r.up() {
			if got := strings.Count(node.listed("orders"), "!"); got != n/2 {
				t.Errorf("without an owner node %s marks %d as overdue", node.name, got)
			}
		}
		r.nextOwner(was)
		r.beatFor(30*time.Second, 0, n/2)
		for _, node := range r.up() {
			if p := node.brakeState(); !p.Active || p.Overdue != n/2 {
				t.Errorf("under the next owner, node %s: %+v", node.name, p)
			}
		}
		r.beatFor(10*time.Second, 0, n)
		for _, node := range r.up() {
			if p := node.brakeState(); p.Active || strings.Contains(node.listed("orders"), "!") {
				t.Errorf("node %s after all are back: %+v", node.name, p)
			}
		}
		if r.instances() != n {
			t.Errorf("%d instances", r.instances())
		}
	})
}

// P2: the share of a window holds over a change of the owner.
func TestShareHoldsOverOwners(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const n, share = 100, 15
		r := startNodes(t, 3)
		r.register(0, n)
		r.beatFor(70*time.Second, 0, n)
		for r.instances() == n { // the first 15 fall silent and are evicted
			r.beatFor(time.Second, share, n)
		}
		begin := time.Now()
		r.beatFor(time.Second, share, n)
		if got := r.instances(); got != n-share {
			t.Fatalf("%d instances after %d fell silent", got, share)
		}
		was := r.owner()
		was.down = true
		was.stop()
		for time.Since(begin) < 55*time.Second {
			r.beatFor(time.Second, share+10, n) // ten more are silent
			if got := r.instances(); got != n-share {
				t.Fatalf("%d more evicted %s into the window", n-share-got, time.Since(begin))
			}
		}
		r.beatFor(time.Minute, share+10, n)
		if got := r.instances(); got != n-share-10 {
			t.Errorf("%d instances in the next window", got)
		}
	})
}

// The owner's answer to each item is the client's, whichever node was asked; and everything by which
// an instance is heard counts at any node.
func TestVerdictsAtEveryNode(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := startNodes(t, 3)
		o := r.owner()
		for _, node := range r.all {
			id := "x-" + node.name
			key := ikey("orders", id)
			registration := reg()
			registration.Incarnation = 5
			if _, created, err := node.Register(t.Context(), key, registration); err != nil || !created {
				t.Fatal(err)
			}
			// At once, at the other nodes, whose memory may be behind.
			for _, other := range r.all {
				if ack, err := other.Heartbeat(t.Context(), key, 5); err != nil || ack.Incarnation != 5 || ack.TTL.D() != 5*time.Second {
					t.Errorf("%s at %s: %+v, %v", id, other.name, ack, err)
				}
				_, err := other.Heartbeat(t.Context(), key, 4)
				other.wantCode(err, api.CodeStaleIncarnation)
				_, err = other.Heartbeat(t.Context(), key, 6)
				other.wantCode(err, api.CodeInstanceNotFound)
				_, err = other.Heartbeat(t.Context(), ikey("orders", "nobody"), 0)
				other.wantCode(err, api.CodeInstanceNotFound)
				errs := other.Heartbeats(t.Context(), []api.BatchHeartbeat{
					{Service: "orders", ID: "nobody"},
					{Service: "orders", ID: api.InstanceID(id)},
					{Service: "-bad", ID: "a"},
					{Service: "orders", ID: api.InstanceID(id), Incarnation: 1},
				})
				for i, want := range []api.Code{api.CodeInstanceNotFound, "", api.CodeInvalidField, api.CodeStaleIncarnation} {
					if got := api.CodeOf(errs[i]); got != want {
						t.Errorf("item %d at %s: %v", i, other.name, errs[i])
					}
				}
			}
		}
		for _, node := range r.all {
			if err := node.Deregister(t.Context(), ikey("orders", "x-"+node.name), 0); err != nil {
				t.Fatal(err)
			}
		}
		// Three ways of being heard, at a node that is not the owner: each keeps its instance.
		node := r.others(o)[0]
		node.bed.register("heard", "refresh")
		node.bed.register("heard", "status")
		node.bed.register("heard", "change")
		for i := range 40 {
			node.bed.register("heard", "refresh")
			if _, err := node.SetStatus(t.Context(), ikey("heard", "status"), api.StatusChange{Status: api.StatusCritical}); err != nil {
				t.Fatal(err)
			}
			node.bed.register("heard", "status") // says no more than that it passes
			change := reg()
			change.Version = fmt.Sprint(i)
			if _, _, err := node.Register(t.Context(), ikey("heard", "change"), change); err != nil {
				t.Fatal(err)
			}
			pass(3 * time.Second)
		}
		for _, n := range r.all {
			if got := n.listed("heard"); got != "change refresh status" {
				t.Errorf("node %s lists %q", n.name, got)
			}
			if got := n.kept.of(api.EventEvict); len(got) != 0 || n.brakeState().Overdue != 0 {
				t.Errorf("node %s tells %d evictions, %+v", n.name, len(got), n.brakeState())
			}
		}
	})
}

// An idle region of several nodes wakes nobody: no frame but bookmarks, no work for the
// federation; bookmarks follow the revision all the same.
func TestBeatsWakeNobody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := startNodes(t, 3)
		r.register(0, 3)
		pass(time.Second)
		node := r.others(r.owner())[0]
		w := node.watch(WatchQuery{})
		w.next()
		at := node.Stamp().Version
		woke := make(chan error, 1)
		go func() { woke <- node.Wait(t.Context(), at) }()
		r.beatFor(4*time.Second, 0, 3)
		if got := node.Stamp().Version.Revision - at.Revision; got < 3 || got > 10 {
			t.Errorf("%d commits in 4 s", got)
		}
		if got := w.next(); got != "" {
			t.Errorf("frames %q", got)
		}
		if got := node.stirred.Load(); got > at.Revision {
			t.Errorf("a beat counts as a change that the copy on disk needs: %d after %s", got, at)
		}
		select {
		case err := <-woke:
			t.Errorf("woken by a beat: %v", err)
		default:
		}
		r.beatFor(3*time.Second, 0, 3)
		if last := w.last(); last.Kind != api.FrameBookmark || last.Version.Revision <= at.Revision+2 {
			t.Errorf("%+v after %s", last, at)
		}
		node.bed.register("orders", "new")
		synctest.Wait()
		if err := <-woke; err != nil {
			t.Error(err)
		}
		if got := w.next(); got != "put:register new" {
			t.Errorf("%q", got)
		}
	})
}

// P8, P1: whoever may report can make up names of nodes. They stay few, so the list of nodes goes on fitting
// into a beat, and the owner goes on being one.
func TestMadeUpNodes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := startNodes(t, 3)
		r.register(0, 9)
		o := r.owner()
		claim := o.own.claim.Load()
		far := "http://" + strings.Repeat("x", 2000)
		refused := 0
		for i := range 2000 {
			_, err := o.Report(t.Context(), fmt.Sprintf("made-up-%d", i), api.NodeReport{Address: far, Term: claim.Term, Epoch: o.Snapshot().Version().Epoch})
			if err != nil {
				if api.CodeOf(err) != api.CodeConflict {
					t.Fatalf("%v", err)
				}
				refused++
			}
		}
		if want := 2000 - maxNodes + 2; refused != want {
			t.Errorf("%d of 2000 refused, want %d", refused, want)
		}
		if n := r.beatFor(8*time.Second, 0, 9); n != 0 || r.owner() != o {
			t.Errorf("%d heartbeats refused; the owner is %v", n, r.owner())
		}
		if got := len(o.own.members.Load().nodes); got != 3 {
			t.Errorf("%d nodes are listed when the made-up ones are silent", got)
		}
	})
}

// P8: a node leaves while the store has no space for the new list of nodes: the owner asks with its beats, and not at
// every step of the election.
func TestListOfNodesWithoutSpace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := startNodes(t, 3)
		o := r.owner()
		r.store.SetFull(true)
		r.others(o)[0].freeze()
		pass(5 * time.Second)
		before := o.store.commits.Load()
		pass(10 * time.Second)
		if n := o.store.commits.Load() - before; n > 30 {
			t.Errorf("%d commits in 10 s", n)
		}
		r.store.SetFull(false)
		pass(3 * time.Second)
		if got := len(o.own.members.Load().nodes); got != 2 {
			t.Errorf("%d nodes are listed", got)
		}
	})
}

// An owner in protection that loses its claim says that it is over for it: its log and its
// metrics would tell of protection for ever.
func TestProtectionEndsWithTheClaim(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const n = 60
		r := startNodes(t, 3)
		r.register(0, n)
		r.beatFor(40*time.Second, 0, n/2)
		was := r.owner()
		if !was.brakeState().Active || !was.counts.protected.Load() {
			t.Fatalf("no protection: %+v", was.brakeState())
		}
		was.freeze()
		next, _ := r.nextOwner(was)
		was.thaw()
		pass(500 * time.Millisecond)
		// Its hold may outlast the other's claim by a moment (the next owner spares everyone for as
		// long). If it wakes to a tick before it hears of the claim, that ends protection: the pause.
		because := []string{api.BecauseOtherOwner, api.BecauseWithinShare}
		if on, off := was.kept.of(api.EventProtectionOn), was.kept.of(api.EventProtectionOff); len(on) != 1 || len(off) != 1 || !slices.Contains(because, off[0].Cause.Kind) {
			t.Errorf("the former owner tells %+v and %+v", on, off)
		}
		r.beatFor(5*time.Second, 0, n)
		for _, node := range r.all {
			if node.counts.protected.Load() || node.brakeState().Active {
				t.Errorf("node %s: metric %v, state %+v", node.name, node.counts.protected.Load(), node.brakeState())
			}
		}
		if got := next.kept.of(api.EventProtectionOff); len(got) != 0 {
			t.Errorf("the next owner tells %+v", got)
		}
	})
}
