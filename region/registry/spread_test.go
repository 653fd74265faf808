package registry

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nearside/nearside/region/liveness/check"
	"github.com/nearside/nearside/region/liveness/owner"
	"github.com/nearside/nearside/sdk/api"
)

// clinics is a prober for each node, so that it shows who looked.
type clinics map[string]*clinic

func (c clinics) prober(cfg *Config) {
	cfg.Prober = gatedProber{c[cfg.Node], &cfg.Store.(*nodeStore).process}
}

// gatedProber stands still with its node.
type gatedProber struct {
	*clinic
	gate *gate
}

func (p gatedProber) Probe(ctx context.Context, t check.Target) check.Result {
	p.gate.pass()
	r := p.clinic.Probe(ctx, t)
	p.gate.pass()
	return r
}

func newClinics() clinics { return clinics{"n1": newClinic(), "n2": newClinic(), "n3": newClinic()} }

func (c clinics) set(name, code string) {
	for _, one := range c {
		one.set(name, code)
	}
}

// lookers returns which nodes looked at each of n instances while d went by.
func (c clinics) lookers(n int, d time.Duration) map[int][]string {
	before := map[string]int{}
	for node, one := range c {
		for i := range n {
			before[fmt.Sprint(node, i)] = one.times(fmt.Sprintf("%d/ready", 8000+i))
		}
	}
	pass(d)
	out := map[int][]string{}
	for _, node := range []string{"n1", "n2", "n3"} {
		for i := range n {
			if c[node].times(fmt.Sprintf("%d/ready", 8000+i)) > before[fmt.Sprint(node, i)] {
				out[i] = append(out[i], node)
			}
		}
	}
	return out
}

func wantOneLooker(t *testing.T, when string, n int, got map[int][]string, nodes int) {
	t.Helper()
	share := map[string]int{}
	for i := range n {
		if len(got[i]) != 1 {
			t.Errorf("%s: instance %d was looked at by %v", when, i, got[i])
			continue
		}
		share[got[i][0]]++
	}
	t.Logf("%s: %v", when, share)
	if len(share) != nodes {
		t.Errorf("%s: the checks are on %d nodes, want %d", when, len(share), nodes)
	}
}

// Each check is run by one node. When a node dies its checks, and no others, go to the rest
// within some seconds, and back when it returns; statuses stay as they are.
func TestChecksAreSpreadOverNodes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const n = 60
		c := newClinics()
		r := startNodes(t, 3, c.prober)
		every := api.Check{Kind: api.CheckHTTP, Path: "/ready", Interval: api.Duration(time.Second)}
		for i := range n {
			r.all[i%3].admit(fmt.Sprintf("i%d", i), 8000+i, every)
		}
		c.set("8000/ready", "503")
		pass(20 * time.Second)
		before := c.lookers(n, 5*time.Second)
		wantOneLooker(t, "three nodes", n, before, 3)

		dead := r.others(r.owner())[0]
		statuses := func() (n int) { return len(r.owner().kept.of(api.EventStatus)) }
		had := statuses()
		dead.freeze()
		begin := time.Now()
		for len(r.owner().nodeInfos()) == 3 && time.Since(begin) < 20*time.Second {
			pass(100 * time.Millisecond)
		}
		left := time.Since(begin)
		for time.Since(begin) < 15*time.Second && len(c.lookers(n, 1200*time.Millisecond)) < n {
			continue // not everyone is looked at every second yet
		}
		t.Logf("%s is off the list %s after it died, and its checks are run by others %s after", dead.name, left, time.Since(begin))
		if left > 5*time.Second || time.Since(begin) > 10*time.Second {
			t.Error("too late")
		}
		after := c.lookers(n, 5*time.Second)
		wantOneLooker(t, "two nodes", n, after, 2)
		for i := range n {
			if before[i][0] != dead.name && after[i][0] != before[i][0] {
				t.Errorf("the checks of %d moved from %s to %s for nothing", i, before[i][0], after[i][0])
			}
		}
		// It wakes, and believes that everyone is ill.
		c[dead.name].set("all", "timeout")
		dead.thaw()
		pass(500 * time.Millisecond)
		c[dead.name].set("all", "")
		pass(10 * time.Second)
		back := c.lookers(n, 5*time.Second)
		wantOneLooker(t, "three again", n, back, 3)
		for i := range n {
			if back[i][0] != before[i][0] {
				t.Errorf("the checks of %d are at %s, they were at %s", i, back[i][0], before[i][0])
			}
		}
		if got := statuses(); got != had {
			t.Errorf("%d statuses changed by the moves", got-had)
		}
		for _, node := range r.all {
			node.want("i1", "passing")
			if got := node.status("i0"); got == "passing" {
				t.Errorf("i0 at %s: %s", node.name, got)
			}
		}
	})
}

// P2: an instance whose liveness check failed for its deregister_after leaves, also when
// another node than the owner finds that; a pardon arrives as well.
func TestCondemnedAtAnotherNode(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const n = 30
		c := newClinics()
		r := startNodes(t, 3, c.prober)
		rule := alive
		rule.Interval = api.Duration(2 * time.Second)
		for i := range n {
			r.all[i%3].admit(fmt.Sprintf("i%d", i), 8000+i, rule)
		}
		o := r.owner()
		var ill []int // judged by others than the owner
		for i := range n {
			if rendezvous(o.own.members.Load().nodes, ikey("orders", fmt.Sprintf("i%d", i))) != o.name {
				ill = append(ill, i)
			}
		}
		pass(10 * time.Second)
		c.set(fmt.Sprintf("%d/alive", 8000+ill[0]), "503")
		pass(2 * time.Minute)
		if got := r.instances(); got != n-1 {
			t.Errorf("%d instances, want %d", got, n-1)
		}
		if got := o.kept.of(api.EventEvict); len(got) != 1 || got[0].Subject != fmt.Sprintf("orders/i%d", ill[0]) {
			t.Errorf("%+v", got)
		}
	})
}

// P2: what condemned an instance is taken back although the node that said so is gone: its checks
// are another node's by then, which finds them well.
func TestPardonedByAnotherNode(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const n, ill = 30, 9
		c := newClinics()
		r := startNodes(t, 3, c.prober)
		rule := alive
		rule.Interval = api.Duration(2 * time.Second)
		for i := range n {
			r.all[i%3].admit(fmt.Sprintf("i%d", i), 8000+i, rule)
		}
		pass(10 * time.Second)
		for i := range ill {
			c.set(fmt.Sprintf("%d/alive", 8000+i), "503")
		}
		pass(80 * time.Second)
		o := r.owner()
		held := r.instances() // the first to fail may have left before there were too many
		if p := o.brakeState(); !p.Active || p.Overdue != held-(n-ill) {
			t.Fatalf("not held: %+v", p)
		}
		var gone *nodeUnderTest
		for i := range ill {
			key := ikey("orders", fmt.Sprintf("i%d", i))
			if name := rendezvous(o.own.members.Load().nodes, key); name != o.name && o.Snapshot().Instance(key) != nil {
				gone = r.node(name)
			}
		}
		if gone == nil {
			t.Fatal("all of them are the owner's own")
		}
		gone.freeze()
		for i := range ill {
			c.set(fmt.Sprintf("%d/alive", 8000+i), "")
		}
		pass(2 * time.Minute)
		if got, p := r.instances(), o.brakeState(); got != held || p.Active || p.Overdue != 0 {
			t.Errorf("%d instances, want %d; %+v", got, held, p)
		}
	})
}

func TestRendezvous(t *testing.T) {
	nodes := []owner.Node{{Name: "n1"}, {Name: "n2"}, {Name: "n3"}}
	count := map[string]int{}
	for i := range 3000 {
		key := ikey("orders", fmt.Sprintf("i%d", i))
		best := rendezvous(nodes, key)
		count[best]++
		if best != "n3" && rendezvous(nodes[:2], key) != best {
			t.Fatalf("%s moved although its node stayed", key)
		}
	}
	for name, k := range count {
		if k < 900 || k > 1100 {
			t.Errorf("%s has %d of 3000", name, k)
		}
	}
	if got := rendezvous(nil, ikey("orders", "a")); got != "" {
		t.Errorf("no node: %q", got)
	}
}
