package scenarios

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// P2, test 14 and catalogue row 26: the registry gets 5 % of a processor while 200 live
// instances send heartbeats and others read, and where that is enough for it, less and less.
// Nobody is evicted, neither then nor when it has its processor back; it says that it is
// slow, in the event log and at /v1/regions/{region}, and that it no longer is.
func TestSlowObserver(t *testing.T) {
	t.Parallel() // it waits more than it works
	// The kernel gives no less than the least share.
	const instances, ttl, least = 200, 3 * time.Second, 0.01
	cluster.Seedless(t)
	g := cluster.NewGroup(t, "cpu")
	c := cluster.New(t, us)
	c.StartAll()
	n := c.Node(us)
	h := n.Client()
	b := keepAlive(t, n, "web", instances, ttl)
	if err := g.Add(n.PID()); err != nil {
		t.Fatal(err)
	}
	share := 0.05
	if err := g.CPU(share); err != nil {
		t.Fatal(err)
	}
	hold := cluster.SoakFor(t, 12*time.Second)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var readers sync.WaitGroup
	var reads, refused atomic.Int64
	for range 64 { // work enough to be starved by
		reader := n.Client()
		readers.Go(func() {
			for ctx.Err() == nil {
				if _, err := reader.Resolvable("web"); err != nil {
					refused.Add(1)
				}
				reads.Add(1)
			}
		})
	}
	// What 5 % of a processor is worth differs from machine to machine: a share that starves one
	// is enough for another, which then rightly does not call itself slow.
	most, slow, starved := 0.0, false, time.Now()
	for watcher, step := n.Client(), starved; time.Since(starved) < hold || !slow; {
		info, err := watcher.Region(us)
		if err == nil {
			most = max(most, info.Protection.Lost)
			slow = slow || info.Protection.Slow
		}
		if !slow && time.Since(step) > hold {
			if share == least {
				t.Fatalf("with %.0f %% of a processor it still does not say that it is slow; at most %.0f %% of its time was lost", 100*share, 100*most)
			}
			share, step = max(least, share/2), time.Now()
			if err := g.CPU(share); err != nil {
				t.Fatal(err)
			}
		}
	}
	stop()
	if err := g.CPU(0); err != nil {
		t.Fatal(err)
	}
	readers.Wait()
	cluster.Within(t, 20*time.Second, "it answers again", func() error { _, err := h.Region(us); return err })
	cluster.Within(t, 30*time.Second, "it keeps time again", func() error {
		info, err := h.Region(us)
		if err == nil && info.Protection.Slow {
			err = fmt.Errorf("%s", info.Protection.Why)
		}
		return err
	})
	pass(ttl + 2*time.Second) // whoever would be evicted for what was is so by then
	evicted, err := n.Metric("nearside_registry_evictions_total")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.0f of %d evicted", evicted, instances)
	events, err := h.Events(api.EventSlowOn, api.EventSlowOff, api.EventEvict, api.EventPause, api.EventProtectionOn)
	if err != nil {
		t.Fatal(err)
	}
	count := map[api.EventKind]int{}
	for _, e := range events {
		count[e.Kind]++
		if e.Kind == api.EventSlowOn && count[e.Kind] == 1 {
			t.Logf("it says: %s", e.Detail)
		}
	}
	t.Logf("%s, %.0f %% of a processor for %s: %.0f of %d evicted, %d heartbeats told unknown, %d reads (%d failed), at most %.0f %% of its time lost, events %v",
		g.Version(), 100*share, time.Since(starved).Round(time.Second), evicted, instances, b.notKnown(), reads.Load(), refused.Load(), 100*most, count)
	if evicted > 0 || b.notKnown() > 0 {
		t.Errorf("P2: a starved registry evicted %.0f of %d live instances", evicted, instances)
	}
	if count[api.EventSlowOn] == 0 || count[api.EventSlowOff] == 0 {
		t.Errorf("it did not say that it was slow: %v", count)
	}
	if l, err := h.Instances("web"); err != nil || len(l.Instances) != instances {
		t.Errorf("P1: %d of %d instances are listed: %v", len(l.Instances), instances, err)
	}
}

// P8, P11, catalogue row 25: the kernel ends the node for want of memory while registrations
// come in. It comes back as after kill -9: nothing acknowledged is lost.
func TestOutOfMemoryKill(t *testing.T) {
	g := cluster.NewGroup(t, "memory")
	c := cluster.New(t, us)
	c.StartAll()
	n := c.Node(us)
	if err := g.Add(n.PID()); err != nil {
		t.Fatal(err)
	}
	seed := cluster.Seed(t)
	r := rand.New(rand.NewPCG(seed, 25))
	// What it has by now was charged to the test's own group: this is what more it may have.
	more := int64(24+r.IntN(16)) << 20
	if err := g.Memory(more); err != nil {
		t.Fatal(err)
	}
	acked := map[api.InstanceID]bool{}
	h := n.Client()
	padding := strings.Repeat("x", 15<<10)
	for i := 0; ; i++ {
		id := api.InstanceID(fmt.Sprintf("i-%05d", i))
		_, err := h.Do(http.MethodPut, api.PathInstance("ledger", id), api.Registration{
			Address: "127.0.0.1", Port: 80, TTL: api.Duration(time.Hour), Metadata: map[string]string{"k": padding},
		}, nil)
		if err != nil {
			t.Logf("registration %d: %v", i, err)
			break
		}
		acked[id] = true
		if i == 20_000 {
			t.Fatal("it never used up its memory")
		}
	}
	cluster.Within(t, 20*time.Second, "the kernel ended it", func() error {
		if kills, err := g.OOMKills(); err != nil || kills == 0 {
			return fmt.Errorf("%d kills, %v", kills, err)
		}
		return nil
	})
	n.Kill() // whatever is left of it
	begun := time.Now()
	n.Start()
	known := map[api.InstanceID]bool{}
	for cursor := ""; ; {
		var l api.InstanceList
		if _, err := h.Do(http.MethodGet, api.PathInstances("ledger")+"?consistency=strong&cursor="+cursor, nil, &l); err != nil {
			t.Fatal(err)
		}
		for _, i := range l.Instances {
			known[i.ID] = true
		}
		if cursor = l.Cursor; cursor == "" {
			break
		}
	}
	lost := 0
	for id := range acked {
		if !known[id] {
			lost++
		}
	}
	t.Logf("seed %d, %s with %d MiB more: %d registrations acknowledged, lost %d; ready %s after the start",
		seed, g.Version(), more>>20, len(acked), lost, time.Since(begun).Round(time.Millisecond))
	if lost > 0 {
		t.Errorf("P1: %d acknowledged registrations are lost", lost)
	}
}

// P8, P10, catalogue row 24: the node runs out of file descriptors. The accept loop survives:
// whoever has a connection is served, writes included; the others are served once there is
// room again.
func TestOutOfFileDescriptors(t *testing.T) {
	const limit, more = 256, 300
	c := cluster.New(t, us)
	c.StartAll()
	n := c.Node(us)
	h := n.Client()
	h.Register("web", "w-1", api.Registration{Address: "127.0.0.1", Port: 80, TTL: api.Duration(time.Hour)})
	limitFDs(t, n.PID(), limit)
	crowd := holdOpen(t, n.HTTP, more)
	cluster.Within(t, 10*time.Second, "its file descriptors are used up", func() error {
		f, err := fdsOf(n.PID())
		if err == nil && f < limit-1 {
			err = fmt.Errorf("%d of %d", f, limit)
		}
		return err
	})
	served, slowest := 0, time.Duration(0)
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); pass(20 * time.Millisecond) {
		begun := time.Now()
		if _, err := h.Resolvable("web"); err != nil {
			t.Fatalf("P10: a client that is connected is not served: %v", err)
		}
		h.Register("web", "w-1", api.Registration{Address: "127.0.0.1", Port: 80, TTL: api.Duration(time.Hour), Metadata: map[string]string{"n": fmt.Sprint(served)}})
		slowest = max(slowest, time.Since(begun))
		served++
	}
	for _, conn := range crowd {
		_ = conn.Close()
	}
	left := time.Now()
	cluster.Within(t, 20*time.Second, "a newcomer is served", func() error { _, err := n.Client().Resolvable("web"); return err })
	recovered := time.Since(left)
	t.Logf("%d connections at a limit of %d descriptors: %d reads and writes of a connected client, slowest pair %s; a newcomer is served %s after the crowd left",
		more, limit, served, slowest.Round(time.Millisecond), recovered.Round(time.Millisecond))
	if r, err := n.Client().Readiness(); err != nil || !r.Ready {
		t.Errorf("not ready afterwards: %+v %v", r, err)
	}
}
