package scenarios

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// beaters are instances that beat by themselves, each at the next node in turn and at another
// one when that does not answer, as the SDK does.
type beaters struct {
	nodes []*cluster.Node
	ttl   time.Duration
	stop  context.CancelFunc
	done  sync.WaitGroup

	mu      sync.Mutex
	taken   int
	unknown []string      // who was told that nobody knows it, and when
	longest time.Duration // between two heartbeats of one instance that were taken
	silent  map[int]bool
}

func newBeaters(t *testing.T, nodes []*cluster.Node, count int, ttl time.Duration) *beaters {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	b := &beaters{nodes: nodes, ttl: ttl, stop: stop, silent: map[int]bool{}}
	for i := range count {
		nodes[i%len(nodes)].Client().Register("orders", b.id(i), api.Registration{Address: "10.0.0.1", Port: 8080 + i, TTL: api.Duration(ttl)})
	}
	// Each instance beats on its own, as instances do: one that waits for a node which does not
	// answer makes no other late. The nodes share their connections.
	clients := make([]*http.Client, len(nodes))
	for i := range nodes {
		clients[i] = &http.Client{Timeout: ttl / 5, Transport: nodes[i].Transport()}
		t.Cleanup(clients[i].CloseIdleConnections)
	}
	for i := range count {
		b.done.Go(func() {
			each := time.NewTicker(ttl / 5)
			defer each.Stop()
			var last time.Time
			for turn := i; ; turn++ {
				b.beat(ctx, clients, i, turn, &last)
				select {
				case <-ctx.Done():
					return
				case <-each.C:
				}
			}
		})
	}
	t.Cleanup(b.end)
	return b
}

func (b *beaters) id(i int) string { return fmt.Sprintf("o%d", i) }

// beat sends one heartbeat, to one node after the other until one takes it.
func (b *beaters) beat(ctx context.Context, clients []*http.Client, i, turn int, last *time.Time) {
	b.mu.Lock()
	silent := b.silent[i]
	b.mu.Unlock()
	for try := 0; try < len(b.nodes) && !silent && ctx.Err() == nil; try++ {
		n := (turn + try) % len(b.nodes)
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, b.nodes[n].URL()+api.PathInstance("orders", api.InstanceID(b.id(i)))+"/heartbeat", nil)
		if err != nil {
			panic(err)
		}
		resp, err := clients[n].Do(req)
		if err != nil {
			continue
		}
		resp.Body.Close()
		now := time.Now()
		b.mu.Lock()
		switch resp.StatusCode {
		case http.StatusOK:
			b.taken++
			if !last.IsZero() {
				b.longest = max(b.longest, now.Sub(*last))
			}
			*last = now
		case http.StatusNotFound:
			b.unknown = append(b.unknown, fmt.Sprintf("%s by %s at %s", b.id(i), b.nodes[n].Name, now.UTC().Format(time.RFC3339Nano)))
		}
		b.mu.Unlock()
		if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusNotFound {
			return
		}
	}
}

func (b *beaters) hush(i int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.silent[i] = true
}

func (b *beaters) end() {
	b.stop()
	b.done.Wait()
}

// owner returns the node that owns liveness as the given nodes agree on it, other than not.
func owner(t *testing.T, not string, nodes ...*cluster.Node) *cluster.Node {
	t.Helper()
	var found *cluster.Node
	cluster.Within(t, 30*time.Second, "the nodes agree on an owner of liveness", func() error {
		name := ""
		for _, n := range nodes {
			info, err := n.Client().Region(us)
			switch {
			case err != nil:
				return err
			case info.Liveness == nil || info.Liveness.Owner == "" || info.Liveness.Owner == not || !info.Liveness.Reached:
				return fmt.Errorf("%s says %+v", n.Name, info.Liveness)
			case name != "" && name != info.Liveness.Owner:
				return fmt.Errorf("%s and %s", name, info.Liveness.Owner)
			}
			name = info.Liveness.Owner
		}
		for _, n := range nodes[0].Siblings() {
			if n.Name == name {
				found = n
			}
		}
		if found == nil {
			return errors.New("it is unknown: " + name)
		}
		return nil
	})
	return found
}

// resolving asks for a service all the time, one node after the other, as a program without the SDK
// that knows them all. The function that it returns ends it, and fails the test if there was a time at which none
// of them answered, or one answered with nothing.
func resolving(t *testing.T, nodes []*cluster.Node, service string) (end func()) {
	t.Helper()
	clients := make([]*cluster.HTTP, len(nodes))
	for i, n := range nodes {
		clients[i] = n.Client()
	}
	ctx, stop := context.WithCancel(context.Background())
	asked, elsewhere := 0, 0
	var failed []error
	var done sync.WaitGroup
	done.Go(func() {
		for ctx.Err() == nil {
			var err error
			for try := range clients {
				r, e := clients[(asked+try)%len(clients)].Resolve(service)
				if e == nil && len(r.Endpoints) == 0 {
					e = fmt.Errorf("an empty answer: %+v", r.Decision)
					failed = append(failed, e)
				}
				if err = e; e == nil {
					break
				}
				elsewhere++
			}
			if err != nil {
				failed = append(failed, err)
			}
			asked++
			pass(2 * time.Millisecond)
		}
	})
	t.Cleanup(func() { stop(); done.Wait() })
	return func() {
		stop()
		done.Wait()
		t.Logf("%d resolves while the nodes were restarted in turn, %d of them by the next node; %d failed", asked, elsewhere, len(failed))
		if len(failed) > 0 || asked == 0 {
			t.Errorf("P3: %d of %d resolves failed, the first with %v", len(failed), asked, failed[:min(1, len(failed))])
		}
	}
}

// P1, P2, P3, P9 (failures 3, 8, 15 and 27): instances beat at all three nodes while the one that owns
// liveness is killed, stopped for longer than a TTL, and all are restarted one after the other.
// Nobody who beats is evicted or told that it is unknown, and one that stops beating leaves everywhere.
func TestLivenessOwnerDiesAndNobodyElse(t *testing.T) {
	t.Parallel() // it waits more than it works
	c := cluster.NewRegion(t, us, 3)
	c.StartAll()
	nodes := c.Nodes(us)
	const count, ttl = 120, 4 * time.Second
	b := newBeaters(t, nodes, count, ttl)
	others := func(not *cluster.Node) (out []*cluster.Node) {
		for _, n := range nodes {
			if n != not {
				out = append(out, n)
			}
		}
		return out
	}

	first := owner(t, "", nodes...)
	begun := time.Now()
	first.Kill()
	second := owner(t, first.Name, others(first)...)
	t.Logf("%s owned liveness and was killed; %s owns it after %s", first.Name, second.Name, time.Since(begun).Round(time.Millisecond))
	first.Start()

	begun = time.Now()
	second.Pause()
	third := owner(t, second.Name, others(second)...)
	t.Logf("%s was stopped; %s owns it after %s", second.Name, third.Name, time.Since(begun).Round(time.Millisecond))
	pass(max(0, ttl+3*time.Second-time.Since(begun))) // past everyone's deadline as the stopped one knows it
	second.Resume()
	owner(t, "", nodes...)

	resolved := resolving(t, nodes, "orders")
	for _, n := range nodes {
		if err := n.Stop(); err != nil {
			t.Errorf("%s stopped with %v", n.Name, err)
		}
		n.Start()
	}
	owner(t, "", nodes...)
	resolved()

	b.mu.Lock()
	t.Logf("%d heartbeats taken; the longest wait of one instance for the next that was taken: %s", b.taken, b.longest.Round(time.Millisecond))
	for _, who := range b.unknown {
		t.Errorf("P1: told that nobody knows it: %s", who)
	}
	b.mu.Unlock()
	for _, n := range nodes {
		evicted, err := n.Client().Events(api.EventEvict)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range evicted {
			t.Errorf("P2: %s tells an eviction: %s %s %s", n.Name, e.Time, e.Subject, e.Detail)
		}
		if err := holds(n.Client(), count); err != nil {
			t.Errorf("%s: %v", n.Name, err)
		}
	}

	b.hush(0)
	begun = time.Now()
	for _, n := range nodes {
		cluster.Within(t, 4*ttl, "the one that died is gone at "+n.Name, func() error { return holds(n.Client(), count-1) })
	}
	t.Logf("one that stopped beating was gone from all nodes after %s, with a TTL of %s", time.Since(begun).Round(time.Millisecond), ttl)
}
