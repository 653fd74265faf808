package scenarios

import (
	"net/http"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// P1, P2, P10 (failure 20): inside a region of three, what one node sends to another is lost, and what comes
// back is not. Which two are cut changes: from the etcd leader, to it, from the owner of liveness, to it. Writes go
// on with some node all the time, reads with every node, nobody who beats is evicted, and afterwards
// all nodes have the same.
func TestOneWayPartitionInsideARegion(t *testing.T) {
	t.Parallel() // it waits more than it works
	net := cluster.NewNet(t)
	c := net.Region(us, 3)
	c.StartAll()
	nodes := c.Nodes(us)
	const count, ttl = 60, 5 * time.Second
	b := newBeaters(t, nodes, count, ttl)
	load := register(t, c, us, 4)
	load.since(t, time.Now())

	next := func(n *cluster.Node) *cluster.Node {
		for i := range nodes {
			if nodes[i] == n {
				return nodes[(i+1)%len(nodes)]
			}
		}
		panic("not a node of the region")
	}
	hold := cluster.SoakFor(t, 12*time.Second) / 4
	clients := map[*cluster.Node]*http.Client{}
	for _, n := range nodes {
		tr := n.Transport()
		t.Cleanup(tr.CloseIdleConnections)
		clients[n] = &http.Client{Timeout: 5 * time.Second, Transport: tr}
	}
	reads := 0
	var slowest time.Duration
	for _, what := range []string{"from the leader", "to the leader", "from the owner", "to the owner"} {
		var from, to *cluster.Node
		switch what {
		case "from the leader":
			from = c.Leader(us)
			to = next(from)
		case "to the leader":
			to = c.Leader(us)
			from = next(to)
		case "from the owner":
			from = owner(t, "", nodes...)
			to = next(from)
		default:
			to = owner(t, "", nodes...)
			from = next(to)
		}
		net.Cut(from, to)
		cut := time.Now()
		for time.Since(cut) < hold {
			for _, n := range nodes {
				resp, err := clients[n].Get(n.URL() + api.PathInstances("orders") + "?limit=1")
				if err != nil || resp.StatusCode != http.StatusOK {
					t.Fatalf("P10: a read at %s while packets %s to %s are lost: %v %v", n.Name, from.Name, to.Name, resp, err)
				}
				resp.Body.Close()
				reads++
			}
		}
		back := load.since(t, time.Now().Add(-hold/2)).Sub(cut)
		slowest = max(slowest, back)
		net.Heal(from, to)
		owner(t, "", nodes...)
		t.Logf("packets %s (%s to %s) were lost for %s", what, from.Name, to.Name, time.Since(cut).Round(time.Millisecond))
	}
	load.end()
	for _, n := range nodes {
		load.keptBy(t, n)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, who := range b.unknown {
		t.Errorf("P1: told that nobody knows it: %s", who)
	}
	for _, n := range nodes {
		evicted, err := n.Client().Events(api.EventEvict)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range evicted {
			t.Errorf("P2: %s tells an eviction: %s %s %s", n.Name, e.Time, e.Subject, e.Detail)
		}
	}
	t.Logf("%d reads, none failed; %d heartbeats taken, the longest wait of one instance %s; a write after a cut at the latest %s after it",
		reads, b.taken, b.longest.Round(time.Millisecond), slowest.Round(time.Millisecond))
}
