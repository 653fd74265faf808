package mesh

import (
	"fmt"
	"testing"
	"time"

	"github.com/nearside/nearside/federation/internal/regiontest"
	"github.com/nearside/nearside/sdk/api"
)

// load is what a node knows of how much a service is used in a region.
func (r *region) load(p api.Region, service string) int {
	for _, x := range r.mesh.Lookup(regiontest.Key(service)) {
		if x.Origin.Region == p {
			return x.Summary.Load
		}
	}
	return -1
}

// P3: all nodes of a region route by how much the others are used now, not only the one that reads them;
// and where the rows come through another region, which may not say, by no old word of it.
func TestAllNodesKnowTheLoad(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		w := newTeam(t, n)
		eu := w.others["eu-west"]
		eu.source.Set(3, "payments", "orders")
		for i, percent := range []float64{10, 95, 85, 40, -1} {
			eu.source.Use(percent, "payments")
			for _, node := range w.nodes {
				node.until(fmt.Sprintf("%v %% is known", percent), func() bool { return node.load("eu-west", "payments") == max(int(percent), 0) })
			}
			if i == 0 {
				w.settles("eu-west")
			}
		}
		for _, node := range w.nodes {
			if r := node.link("eu-west").Refused; r != 0 {
				t.Errorf("%s refused %d frames", node.node, r)
			}
		}
	})
}

// A region that passes rows on says that it tells no loads: what was known before is not true for ever.
func TestRelayLeavesNoOldLoad(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		w := full(t, n, "us-east", "eu-west", "ap-south")
		us, eu := w.region["us-east"], w.region["eu-west"]
		eu.source.Set(3, "payments")
		eu.source.Use(10, "payments")
		us.until("10 % is known", func() bool { return us.load("eu-west", "payments") == 10 })
		w.cut("us-east", "eu-west")
		us.via("eu-west", "ap-south")
		eu.source.Use(95, "payments")
		us.until("nothing is", func() bool { return us.load("eu-west", "payments") == 0 })
		w.heal("us-east", "eu-west")
		us.until("95 % is", func() bool { return us.load("eu-west", "payments") == 95 })
	})
}

// I7: what an operator removed goes at once at every node of a reader region, and a loss is held at every one.
func TestPlannedRemovalGoesAtAllNodes(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		w := newTeam(t, n)
		eu := w.others["eu-west"]
		names := []string{"payments", "orders", "carts", "users", "mail", "search", "pictures", "stock"}
		eu.source.Set(3, names...)
		for _, node := range w.nodes {
			node.has("eu-west", "stock", 3)
		}
		w.settles("eu-west")
		after(10 * time.Second) // the siblings' streams stand
		eu.source.Plan(names[:5]...)
		began := time.Now()
		for _, node := range w.nodes {
			node.has("eu-west", "payments", 0)
			node.until("nothing is held", func() bool { return node.link("eu-west").Held == 0 && node.link("eu-west").Services == 3 })
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("gone after %s", took)
		}
		// It is registered again and lost: nobody meant that.
		eu.source.Set(3, names[:5]...)
		for _, node := range w.nodes {
			node.has("eu-west", "payments", 3)
		}
		eu.source.Set(0, names[:5]...)
		for _, node := range w.nodes {
			node.until("it is held", func() bool { return node.link("eu-west").Held == 5 })
			if node.passing("eu-west", "payments") != 3 {
				t.Errorf("%s: a loss went", node.node)
			}
		}
	})
}
