package safety

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
)

// world is a region of one node or of several, with a relay in front of each, that forgets
// history quickly.
type world struct {
	t      *testing.T
	seed   uint64
	rng    *rand.Rand
	c      *cluster.Cluster
	nodes  []*cluster.Node
	relays []*cluster.Relay // by node
	n      *cluster.Node    // the first
	relay  *cluster.Relay   // its relay
	stores []int            // processes of members that are paused
	faults map[string]int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldOf(t, cluster.New(t, home))
}

func newWorldOf(t *testing.T, c *cluster.Cluster) *world {
	t.Helper()
	seed := cluster.Seed(t)
	w := &world{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), c: c, nodes: c.Nodes(home), faults: map[string]int{}}
	for _, n := range w.nodes {
		n.Extra = []string{"--test-compact-every", "200ms", "--test-history", "256"}
	}
	c.StartAll()
	for _, n := range w.nodes {
		w.relays = append(w.relays, cluster.NewRelay(t, n.HTTP))
	}
	w.n, w.relay = w.nodes[0], w.relays[0]
	return w
}

// bases returns the base URLs of the nodes, or of the relays in front of them.
func (w *world) bases(relayed bool) []string {
	var out []string
	for i, n := range w.nodes {
		if relayed {
			out = append(out, "http://"+w.relays[i].Addr)
		} else {
			out = append(out, n.URL())
		}
	}
	return out
}

// between returns a random time.
func (w *world) between(from, to time.Duration) time.Duration {
	return from + time.Duration(w.rng.Int64N(int64(to-from)))
}

func (w *world) heal() {
	for i, n := range w.nodes {
		w.relays[i].Heal()
		n.Resume()
	}
	w.thaw()
}

// freeze stops the process that keeps a node's records.
func (w *world) freeze(n *cluster.Node) {
	if pid := n.StorePID(); pid > 0 && syscall.Kill(pid, syscall.SIGSTOP) == nil {
		w.stores = append(w.stores, pid)
	}
}

func (w *world) thaw() {
	for _, pid := range w.stores {
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
	w.stores = nil
}

// victim picks a node: any of them, or the one whose member leads, or the one that owns
// liveness.
func (w *world) victim() (i int, who string) {
	w.t.Helper()
	i = w.rng.IntN(len(w.nodes))
	if len(w.nodes) == 1 {
		return i, ""
	}
	name := ""
	switch w.rng.IntN(3) {
	case 0:
		who, name = " of the leader", w.c.Leader(home).Name
	case 1:
		who, name = " of the owner", w.c.Owner(home).Name
	}
	for j, n := range w.nodes {
		if n.Name == name {
			i = j
		}
	}
	return i, who
}

// harm does one random thing to a node or to the way to it, and takes it back.
func (w *world) harm(longest time.Duration) {
	w.t.Helper()
	ctx := w.t.Context()
	i, who := w.victim()
	n, relay := w.nodes[i], w.relays[i]
	switch p := w.rng.IntN(10); {
	case p < 3:
		w.faults["kill -9"+who]++
		n.Kill()
		pause(ctx, w.between(0, 200*time.Millisecond))
		n.Start()
	case p < 6:
		w.faults["pause"+who]++
		if len(w.nodes) > 1 && w.rng.IntN(3) > 0 { // a node of several: the whole of it, else one half of it
			w.freeze(n)
		}
		n.Pause()
		pause(ctx, w.between(50*time.Millisecond, longest))
		if len(w.nodes) > 1 && w.rng.IntN(2) == 0 { // the node wakes before its store
			n.Resume()
			pause(ctx, w.between(0, 300*time.Millisecond))
		}
		w.thaw()
		n.Resume()
	case p < 9:
		w.faults["blackhole"]++
		relay.Blackhole()
		pause(ctx, w.between(50*time.Millisecond, longest+time.Second))
		if w.rng.IntN(2) == 0 {
			relay.Cut()
		}
		relay.Heal()
	default:
		w.faults["cut"]++
		relay.Cut()
	}
}

// harmFor does random things for d, with calm between.
func (w *world) harmFor(d time.Duration) func() {
	longest := 1500 * time.Millisecond
	if len(w.nodes) > 1 && d > 10*time.Second { // longer than an owner's right
		longest = 8 * time.Second
	}
	return func() {
		for end := time.Now().Add(d); time.Now().Before(end); {
			pause(w.t.Context(), w.between(200*time.Millisecond, 900*time.Millisecond))
			w.harm(longest)
		}
	}
}
