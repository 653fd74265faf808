package scenarios

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// registrars register instances one after the other, each with whichever node answers, and
// keep a ledger of what was acknowledged.
type registrars struct {
	mu    sync.Mutex
	acked map[string]time.Time // id -> when its request began
	sent  atomic.Int64
	stop  context.CancelFunc
	done  sync.WaitGroup
}

// register starts n registrars at the nodes of a region. The instances live for an hour without a heartbeat.
func register(t *testing.T, c *cluster.Cluster, r api.Region, n int) *registrars {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	g := &registrars{acked: map[string]time.Time{}, stop: stop}
	t.Cleanup(g.end)
	nodes := c.Nodes(r)
	clients := make([]*cluster.HTTP, len(nodes))
	for i, node := range nodes {
		clients[i] = node.Client()
	}
	for w := range n {
		g.done.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				id := fmt.Sprintf("w%d-%d", w, i)
				begun := time.Now()
				g.sent.Add(1)
				_, err := clients[(w+i)%len(clients)].Do(http.MethodPut, api.PathInstance("orders", api.InstanceID(id)),
					api.Registration{Address: "10.0.0.1", Port: 8080, TTL: api.Duration(time.Hour)}, nil)
				if err == nil {
					g.mu.Lock()
					g.acked[id] = begun
					g.mu.Unlock()
				}
			}
		})
	}
	return g
}

func (g *registrars) end() {
	g.stop()
	g.done.Wait()
}

// since waits for an acknowledgement of a request that began after t, and returns when it came.
func (g *registrars) since(tb testing.TB, t time.Time) time.Time {
	tb.Helper()
	cluster.Within(tb, time.Minute, "writes are back", func() error {
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, begun := range g.acked {
			if begun.After(t) {
				return nil
			}
		}
		return fmt.Errorf("none of %d was acknowledged", g.sent.Load())
	})
	return time.Now()
}

// keptBy fails the test unless a strong read of a node has everything that was acknowledged.
func (g *registrars) keptBy(t *testing.T, n *cluster.Node) {
	t.Helper()
	have := map[string]bool{}
	client := n.Client()
	cluster.Within(t, 30*time.Second, "a strong read at "+n.Name, func() error {
		clear(have)
		cursor := ""
		for {
			var l api.InstanceList
			path := api.PathInstances("orders") + "?consistency=strong&limit=1000"
			if cursor != "" {
				path += "&cursor=" + cursor
			}
			if _, err := client.Do(http.MethodGet, path, nil, &l); err != nil {
				return err
			}
			for _, in := range l.Instances {
				have[string(in.ID)] = true
			}
			if cursor = l.Cursor; cursor == "" {
				return nil
			}
		}
	})
	g.mu.Lock()
	defer g.mu.Unlock()
	lost := 0
	for id := range g.acked {
		if !have[id] {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("%s lost %d of %d acknowledged registrations", n.Name, lost, len(g.acked))
	}
	t.Logf("%s: %d acknowledged, %d lost", n.Name, len(g.acked), lost)
}

// percentile of sorted durations; p from 0 to 1.
func percentile(ds []time.Duration, p float64) time.Duration {
	slices.SortFunc(ds, cmp.Compare)
	return ds[min(len(ds)-1, int(p*float64(len(ds))))]
}

// P1, P2 (failures 8 and 15): the node whose member leads is killed under a load of
// registrations, again and again. Writes are back within 3 s as a rule and within 10 s in each case, nobody
// is evicted for it, and nothing that was acknowledged is lost.
func TestLeaderKill3(t *testing.T) {
	const median, most = 3 * time.Second, 10 * time.Second
	rng := rand.New(rand.NewPCG(cluster.Seed(t), 8))
	soak := cluster.SoakFor(t, 0)
	c := cluster.NewRegion(t, us, 3)
	begun := time.Now()
	c.StartAll()
	t.Logf("three nodes ready after %s", time.Since(begun).Round(time.Millisecond))
	load := register(t, c, us, 8)
	load.since(t, begun)
	const alive, ttl = 60, 10 * time.Second
	live := keepAliveAt(t, c.Nodes(us), "live", alive, ttl)

	var outages []time.Duration
	for round, first := 0, time.Now(); round < 3 || time.Since(first) < soak; round++ {
		leader := c.Leader(us)
		pass(time.Duration(rng.IntN(500)) * time.Millisecond) // not always at the same point of its round
		killed := time.Now()
		leader.Kill()
		back := load.since(t, time.Now())
		outages = append(outages, back.Sub(killed))
		t.Logf("round %d: %s led and was killed; writes were back after %s", round+1, leader.Name, back.Sub(killed).Round(time.Millisecond))
		again := time.Now()
		leader.Start()
		t.Logf("round %d: %s is ready again after %s", round+1, leader.Name, time.Since(again).Round(time.Millisecond))
	}
	load.end()
	for _, n := range c.Nodes(us) {
		load.keptBy(t, n)
	}
	p50, p99 := percentile(outages, 0.5), percentile(outages, 0.99)
	t.Logf("writes were away for p50 %s, p99 %s over %d kills of the leader; %d requests", p50.Round(time.Millisecond), p99.Round(time.Millisecond), len(outages), load.sent.Load())
	if p50 > median {
		t.Errorf("writes were away for %s in the middle of %v, want %s at most", p50, outages, median)
	}
	if worst := percentile(outages, 1); worst > most {
		t.Errorf("writes were away for %s, want %s at most in each case: %v", worst, most, outages)
	}
	for _, n := range c.Nodes(us) { // its log is on disk, and outlives the kills
		evicted, err := n.Client().Events(api.EventEvict)
		if err != nil || len(evicted) > 0 {
			t.Errorf("P2: %s evicted %d: %+v %v", n.Name, len(evicted), evicted, err)
		}
		if l, err := n.Client().Instances("live"); err != nil || len(l.Instances) != alive {
			t.Errorf("P2: %s has %d of %d that beat all the while: %v", n.Name, len(l.Instances), alive, err)
		}
	}
	t.Logf("%d beat all the while; %d heartbeats were told that the instance is unknown", alive, live.notKnown())
	if live.notKnown() > 0 {
		t.Errorf("P2: %d heartbeats were told that the instance is unknown", live.notKnown())
	}
}
