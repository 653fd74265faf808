package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/region/store/memstore"
	"github.com/nearside/nearside/sdk/api"
)

// gate stops whoever passes it while it is shut.
type gate struct {
	mu   sync.Mutex
	shut chan struct{} // nil = open
}

func (g *gate) pass() {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut != nil {
		<-shut
	}
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut == nil {
		g.shut = make(chan struct{})
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut != nil {
		close(g.shut)
		g.shut = nil
	}
}

// nodeStore is one node's way to the region's store. A delete that meets a shut gate arrives
// when it opens, however long ago its sender gave up: as one does that was on its way.
type nodeStore struct {
	*memstore.Store
	process, deletes gate
	news             gate // what the watch tells
	answers          gate // of barriers
	cut              atomic.Bool
	refused          atomic.Int64 // commits with deletes whose guards did not hold
	commits          atomic.Int64
	barriers         atomic.Int64
}

func (s *nodeStore) usable() error {
	s.process.pass()
	if s.cut.Load() {
		return store.ErrUnavailable
	}
	return nil
}

func (s *nodeStore) Commit(ctx context.Context, ops []store.Op) (uint64, error) {
	s.commits.Add(1)
	if err := s.usable(); err != nil {
		return 0, err
	}
	deletes := slices.ContainsFunc(ops, func(op store.Op) bool { return op.Delete })
	if deletes {
		s.deletes.pass()
	}
	revision, err := s.Store.Commit(context.WithoutCancel(ctx), ops)
	if errors.Is(err, store.ErrConflict) && deletes {
		s.refused.Add(1)
	}
	return revision, err
}

func (s *nodeStore) Barrier(ctx context.Context) (uint64, error) {
	s.barriers.Add(1)
	s.answers.pass()
	if err := s.usable(); err != nil {
		return 0, err
	}
	return s.Store.Barrier(ctx)
}

func (s *nodeStore) Watch(ctx context.Context, from uint64, apply func(store.Batch) error, progress func(uint64)) error {
	return s.Store.Watch(ctx, from,
		func(b store.Batch) error {
			s.news.pass()
			if err := s.usable(); err != nil {
				return err
			}
			return apply(b)
		},
		func(revision uint64) {
			s.news.pass()
			if s.usable() == nil {
				progress(revision)
			}
		})
}

// nodeUnderTest is one registry of several on one store.
type nodeUnderTest struct {
	*bed
	name  string
	store *nodeStore
	kept  *keptEvents
	down  bool
}

// keptEvents is an event log that keeps what it is told.
type keptEvents struct {
	Events
	mu   sync.Mutex
	list []api.Event
}

func (k *keptEvents) Record(e api.Event) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.list = append(k.list, e)
}

func (k *keptEvents) of(kind api.EventKind) (out []api.Event) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range k.list {
		if e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}

// nodesUnderTest is a region of several nodes.
type nodesUnderTest struct {
	t     *testing.T
	store *memstore.Store
	all   []*nodeUnderTest

	mu  sync.Mutex
	cut map[[2]string]bool // calls that do not arrive, from and to
}

// caller is how one node calls the others: directly, and through what the test puts between.
type caller struct {
	region *nodesUnderTest
	from   string
}

func (c caller) Report(ctx context.Context, from, node, address string, rep api.NodeReport) (api.NodeAnswer, error) {
	r := c.region
	if from != c.from {
		r.t.Errorf("%s reports as %s", c.from, from)
	}
	r.node(from).store.process.pass()
	to := r.node(node)
	if to.cfg.Addresses[0] != address {
		r.t.Errorf("node %s is called at %s", node, address)
	}
	blocked := func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.cut[[2]string{c.from, node}]
	}
	if blocked() {
		<-ctx.Done()
		return api.NodeAnswer{}, ctx.Err()
	}
	type answer struct {
		api.NodeAnswer
		error
	}
	done := make(chan answer, 1)
	go func() {
		to.store.process.pass()
		a, err := to.Report(ctx, c.from, rep)
		done <- answer{a, err}
	}()
	select {
	case a := <-done:
		if blocked() {
			<-ctx.Done()
			return api.NodeAnswer{}, ctx.Err()
		}
		return a.NodeAnswer, a.error
	case <-ctx.Done():
		return api.NodeAnswer{}, ctx.Err()
	}
}

// startNodes starts a region of n nodes and waits until all of them are ready.
func startNodes(t *testing.T, n int, change ...func(*Config)) *nodesUnderTest {
	t.Helper()
	r := &nodesUnderTest{t: t, store: newMemstore(t), cut: map[[2]string]bool{}}
	for i := range n {
		name := fmt.Sprintf("n%d", i+1)
		s := &nodeStore{Store: r.store}
		kept := &keptEvents{}
		node := &nodeUnderTest{name: name, store: s, kept: kept}
		node.bed = newBed(t, append([]func(*Config){func(c *Config) {
			c.Node, c.Store, c.Events, c.Addresses = name, s, kept, []string{fmt.Sprintf("http://10.0.0.%d:7400", i+1)}
			c.Nodes = caller{r, name}
		}}, change...)...)
		node.beforeTick, node.beforeStep = s.process.pass, s.process.pass
		r.all = append(r.all, node)
	}
	for _, node := range r.all {
		node.run()
	}
	// First of the cleanups: a node that is stopped cannot end.
	t.Cleanup(func() {
		for _, node := range r.all {
			node.store.deletes.open()
			node.store.news.open()
			node.store.answers.open()
			node.store.process.open()
		}
	})
	pass(3 * time.Second)
	for _, node := range r.all {
		if got := node.Readiness(); !got.Ready {
			t.Fatalf("node %s after 3 s: %+v", node.name, got.Checks)
		}
	}
	return r
}

func (r *nodesUnderTest) node(name string) *nodeUnderTest {
	for _, n := range r.all {
		if n.name == name {
			return n
		}
	}
	r.t.Fatalf("there is no node %s", name)
	return nil
}

// owner returns the node that may act as the owner, nil when none may; there is one at most.
func (r *nodesUnderTest) owner() (found *nodeUnderTest) {
	r.t.Helper()
	for _, n := range r.all {
		if !n.down && n.own.holds(n.now()) {
			if found != nil {
				r.t.Fatalf("%s and %s both act as the owner", found.name, n.name)
			}
			found = n
		}
	}
	return found
}

// others returns the nodes that are up but this one.
func (r *nodesUnderTest) others(not *nodeUnderTest) (out []*nodeUnderTest) {
	for _, n := range r.all {
		if n != not && !n.down {
			out = append(out, n)
		}
	}
	return out
}

func (r *nodesUnderTest) up() []*nodeUnderTest { return r.others(nil) }

// freeze stops a node between two instructions, as SIGSTOP does; to the others it is as good
// as killed.
func (n *nodeUnderTest) freeze() { n.store.process.close(); n.down = true }
func (n *nodeUnderTest) thaw()   { n.store.process.open(); n.down = false }

// nextOwner waits for an owner other than was and returns how long that took.
func (r *nodesUnderTest) nextOwner(was *nodeUnderTest) (*nodeUnderTest, time.Duration) {
	r.t.Helper()
	begin := time.Now()
	for time.Since(begin) < 30*time.Second {
		if o := r.owner(); o != nil && o != was {
			return o, time.Since(begin)
		}
		pass(50 * time.Millisecond)
	}
	r.t.Fatal("no other owner in 30 s")
	return nil, 0
}

// register registers i[from] to i[to-1] of orders, spread over the nodes.
func (r *nodesUnderTest) register(from, to int) {
	r.t.Helper()
	up := r.up()
	for i := from; i < to; i++ {
		up[i%len(up)].bed.register("orders", fmt.Sprintf("i%d", i))
	}
}

// beatFor sends heartbeats of the instances once a second for d, as clients do: each to its own
// node, and to the next when that says that it cannot. It returns how many of a
// round's heartbeats no node took at first.
func (r *nodesUnderTest) beatFor(d time.Duration, from, to int) (refused int) {
	r.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		begin := time.Now()
		refused += r.beatOnce(from, to)
		pass(max(0, time.Second-time.Since(begin)))
	}
	return refused
}

func (r *nodesUnderTest) beatOnce(from, to int) (refused int) {
	r.t.Helper()
	up := r.up()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for k := range up {
		wg.Go(func() {
			var todo []api.BatchHeartbeat
			for i := from; i < to; i++ {
				if i%len(up) == k {
					todo = append(todo, api.BatchHeartbeat{Service: "orders", ID: api.InstanceID(fmt.Sprintf("i%d", i))})
				}
			}
			for try := 0; len(todo) > 0 && try < len(up); try++ {
				var again []api.BatchHeartbeat
				for i, err := range up[(k+try)%len(up)].Heartbeats(context.Background(), todo) {
					switch api.CodeOf(err) {
					case "":
					case api.CodeUnavailable:
						again = append(again, todo[i])
					default:
						r.t.Errorf("heartbeat of %s: %v", todo[i].ID, err)
					}
				}
				if try == 0 {
					mu.Lock()
					refused += len(again)
					mu.Unlock()
				}
				todo = again
			}
		})
	}
	wg.Wait()
	return refused
}

// instances returns how many instances of orders the nodes that are up list, which must agree.
func (r *nodesUnderTest) instances() (n int) {
	r.t.Helper()
	synctest.Wait()
	for i, node := range r.up() {
		got := len(strings.Fields(strings.ReplaceAll(node.listed("orders"), "unknown", "")))
		if i > 0 && got != n {
			r.t.Errorf("node %s lists %d instances, another one %d", node.name, got, n)
		}
		n = got
	}
	return n
}

func (r *nodesUnderTest) cutCalls(a, b *nodeUnderTest, on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut[[2]string{a.name, b.name}], r.cut[[2]string{b.name, a.name}] = on, on
}
