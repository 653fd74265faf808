package owner_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nearside/nearside/region/liveness/owner"
)

// world is a store and some nodes around it, in simulated time. Commits are applied or lost
// at once, their answers take a while or never come, and what is committed shows late.
type world struct {
	t        *testing.T
	seed     uint64
	rng      *rand.Rand
	now      time.Duration
	away     time.Duration // the store answers nobody before
	revision uint64
	claim    owner.Claim
	claimRev uint64
	beatRev  uint64
	nodes    []*node
	faults   bool

	// begins are the takeovers, in order.
	begins []begin
	acts   int // how often somebody acted as the owner
}

type begin struct {
	at   time.Duration
	run  string
	term uint64
}

type node struct {
	*owner.Machine
	name   string
	lives  int
	paused time.Duration // until
	cut    time.Duration // off the store until
	busy   bool
	queue  []event // answers and news on their way, in order of time
	shown  uint64  // newest revision shown
}

type event struct {
	at time.Duration
	do func(now time.Duration)
}

func (w *world) start(n *node) {
	n.lives++
	self := owner.Node{Name: n.name, Address: "http://" + n.name}
	n.Machine = owner.New(owner.Default(self, fmt.Sprintf("%s/%d", n.name, n.lives)), w.rng.Int64N)
	n.queue, n.busy = nil, false
	n.SeeBeat(w.now, w.beatRev)
	n.SeeClaim(w.now, w.claim, w.claimRev)
	n.shown = w.revision
}

// later puts something that reaches n in a while into its queue. News keep their order.
func (n *node) later(at time.Duration, do func(time.Duration)) {
	if k := len(n.queue); k > 0 {
		at = max(at, n.queue[k-1].at)
	}
	n.queue = append(n.queue, event{at, do})
}

func (w *world) delay() time.Duration { return time.Duration(w.rng.IntN(30)) * ms }

func (w *world) reachable(n *node) bool { return w.now >= w.away && w.now >= n.cut }

// commit tells everyone of a change, some time later.
func (w *world) commit(claim bool) {
	w.revision++
	if claim {
		w.claimRev = w.revision
	} else {
		w.beatRev = w.revision
	}
	c, claimRev, beatRev, revision := w.claim, w.claimRev, w.beatRev, w.revision
	for _, n := range w.nodes {
		m := n.Machine
		n.later(max(w.now+w.delay(), n.cut), func(now time.Duration) {
			if n.Machine == m {
				m.SeeBeat(now, beatRev)
				m.SeeClaim(now, c, claimRev)
				n.shown = revision
			}
		})
	}
}

// perform carries out what n wants.
func (w *world) perform(n *node, a owner.Action) {
	if a.Kind == owner.None {
		return
	}
	n.busy = true
	m, began := n.Machine, w.now
	answer := func(ok bool) {
		at := w.now + w.delay()
		if !ok {
			at += time.Duration(w.rng.IntN(1500)) * ms
		}
		n.later(at, func(now time.Duration) {
			if n.Machine != m {
				return
			}
			n.busy = false
			switch a.Kind {
			case owner.Probe:
				m.Probed(now, ok)
			case owner.Take:
				m.Took(now, ok)
			case owner.Renew:
				m.Renewed(began, a.ClaimIf, ok)
			}
		})
	}
	lost := w.faults && w.rng.IntN(40) == 0
	if !w.reachable(n) || lost && w.rng.IntN(2) == 0 {
		answer(false)
		return
	}
	switch a.Kind {
	case owner.Take:
		if a.ClaimIf != w.claimRev || a.BeatIf != w.beatRev {
			answer(false)
			return
		}
		w.claim = a.Claim
		w.begins = append(w.begins, begin{w.now, a.Claim.Run, a.Claim.Term})
		w.commit(true)
	case owner.Renew:
		if a.ClaimIf != w.claimRev {
			answer(false)
			return
		}
		w.commit(false)
	}
	answer(!lost) // lost: it happened, and nobody learns of it
}

func (w *world) tick() {
	w.now += 10 * ms
	if w.faults {
		switch n := w.nodes[w.rng.IntN(len(w.nodes))]; w.rng.IntN(1500) {
		case 0, 1:
			n.paused = w.now + time.Duration(w.rng.IntN(12000))*ms
		case 2, 3:
			n.cut = w.now + time.Duration(w.rng.IntN(12000))*ms
		case 4:
			w.away = w.now + time.Duration(w.rng.IntN(9000))*ms
		case 5:
			n.paused = w.now + time.Duration(w.rng.IntN(6000))*ms
			w.start(n)
		}
	}
	for _, n := range w.nodes {
		if w.now < n.paused {
			continue
		}
		for len(n.queue) > 0 && n.queue[0].at <= w.now {
			do := n.queue[0].do
			n.queue = n.queue[1:]
			do(w.now)
		}
		if !n.busy && w.now%(50*ms) == 0 {
			w.perform(n, n.Step(w.now))
		}
		if until, ok := n.Holds(); ok && w.now < until {
			w.acts++
			w.check(n)
		}
	}
}

// check is the law: whoever acts as the owner after another took over does so no longer
// than Hold after that, which every new owner adds to the deadlines it begins with (P1, P2).
func (w *world) check(n *node) {
	c, _ := n.Claim()
	for _, b := range w.begins {
		if b.term > c.Term && w.now > b.at+owner.Default(owner.Node{}, "").Hold {
			w.t.Fatalf("seed %d at %s: %s acts in term %d, and %s took term %d at %s", w.seed, w.now, n.name, c.Term, b.run, b.term, b.at)
		}
	}
}

func newWorld(t *testing.T, seed uint64, nodes int) *world {
	w := &world{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 3)), revision: 1}
	for i := range nodes {
		w.nodes = append(w.nodes, &node{name: fmt.Sprintf("n%d", i)})
	}
	for _, n := range w.nodes {
		w.start(n)
	}
	return w
}

func (w *world) run(d time.Duration) {
	for end := w.now + d; w.now < end; {
		w.tick()
	}
}

// owners returns who acts as the owner now.
func (w *world) owners() (names []string) {
	for _, n := range w.nodes {
		if until, ok := n.Holds(); ok && w.now < until {
			names = append(names, n.name)
		}
	}
	return names
}

// Property, P1 and P2: whatever pauses, partitions, restarts and lost answers do, an old
// owner stops acting in time, terms rise by one, and after the faults there is one owner.
func TestElectionLaws(t *testing.T) {
	takeovers, acts := 0, 0
	for seed := range uint64(60) {
		w := newWorld(t, seed, 1+int(seed%5))
		w.faults = true
		w.run(3 * time.Minute)
		w.faults = false
		w.run(25 * time.Second) // the longest fault, and an election
		if o := w.owners(); len(o) != 1 {
			t.Fatalf("seed %d: after the faults %v own", seed, o)
		}
		for i, b := range w.begins {
			if b.term != uint64(i+1) {
				t.Fatalf("seed %d: takeover %d has term %d", seed, i, b.term)
			}
		}
		before := len(w.begins)
		w.run(5 * time.Minute)
		if len(w.begins) != before {
			t.Fatalf("seed %d: ownership changed without a fault", seed)
		}
		takeovers, acts = takeovers+before, acts+w.acts
	}
	t.Logf("seeds 0 to 59: %d takeovers, %d ticks of an acting owner", takeovers, acts)
}

// The owner is killed: how long nobody acts.
func TestTakeoverTime(t *testing.T) {
	worst := time.Duration(0)
	for seed := range uint64(40) {
		w := newWorld(t, seed, 3)
		w.run(10 * time.Second)
		if len(w.owners()) != 1 {
			t.Fatalf("seed %d: no owner after 10 s", seed)
		}
		for _, n := range w.nodes {
			if n.name == w.owners()[0] {
				n.paused = time.Hour
			}
		}
		killed, before := w.now, len(w.begins)
		for len(w.begins) == before && w.now < killed+time.Minute {
			w.tick()
		}
		worst = max(worst, w.now-killed)
	}
	t.Logf("40 seeds: the next owner claims %s after the kill at the latest", worst)
	if worst > 5*time.Second {
		t.Errorf("took %s", worst)
	}
}

// A store that goes away and comes back changes no owner while the owner is well.
func TestStoreOutageChangesNoOwner(t *testing.T) {
	for seed := range uint64(20) {
		w := newWorld(t, seed, 3)
		w.run(10 * time.Second)
		before := len(w.begins)
		w.away = w.now + time.Duration(w.rng.IntN(60_000))*ms
		w.run(90 * time.Second)
		if len(w.begins) != before || len(w.owners()) != 1 {
			t.Errorf("seed %d: %d takeovers, owners %v", seed, len(w.begins)-before, w.owners())
		}
	}
}
