package scenarios

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/api"
)

// beating keeps n instances of a service alive from outside: each one is registered, then
// sends a heartbeat every third of its TTL, and registers again only when told that it is
// not known (which the test counts).
type beating struct {
	unknown  int
	mu       sync.Mutex
	stop     context.CancelFunc
	finished sync.WaitGroup
}

func keepAlive(t *testing.T, n *cluster.Node, service string, count int, ttl time.Duration) *beating {
	t.Helper()
	return keepAliveAt(t, []*cluster.Node{n}, service, count, ttl)
}

// keepAliveAt is keepAlive at several nodes: each heartbeat goes to the next of them, and to
// the one after it where nobody answers.
func keepAliveAt(t *testing.T, nodes []*cluster.Node, service string, count int, ttl time.Duration) *beating {
	t.Helper()
	clients := make([]*cluster.HTTP, len(nodes))
	for i, n := range nodes {
		clients[i] = n.Client()
	}
	ctx, stop := context.WithCancel(context.Background())
	b := &beating{stop: stop}
	for i := range count {
		clients[0].Register(service, fmt.Sprintf("i-%03d", i), api.Registration{Address: "127.0.0.1", Port: 10000 + i, TTL: api.Duration(ttl)})
	}
	for i := range count {
		path := api.PathInstance(api.ServiceName(service), api.InstanceID(fmt.Sprintf("i-%03d", i))) + "/heartbeat"
		b.finished.Go(func() {
			each := time.NewTicker(ttl / 3)
			defer each.Stop()
			for beat := i; ; beat++ {
				select {
				case <-ctx.Done():
					return
				case <-each.C:
				}
				for try := range clients {
					status, err := clients[(beat+try)%len(clients)].Do(http.MethodPut, path, nil, nil)
					if status == http.StatusNotFound {
						b.mu.Lock()
						b.unknown++
						b.mu.Unlock()
					}
					if err == nil || status == http.StatusNotFound {
						break
					}
				}
			}
		})
	}
	t.Cleanup(b.end)
	return b
}

func (b *beating) end() {
	b.stop()
	b.finished.Wait()
}

func (b *beating) notKnown() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.unknown
}

// P2, P3, test 4 and catalogue row 3: plain etcd leases lose 200 of 200 instances when the
// registry is paused for 8 s (see the baseline in region/store). Ours loses none, at any length
// of the pause, and what an SDK resolves is never empty, in the pause and after it. The long
// form draws lengths of half a TTL to ten.
func TestPauseRegistrySingle(t *testing.T) {
	t.Parallel() // it waits more than it works
	const instances, ttl = 200, 5 * time.Second
	r := rand.New(rand.NewPCG(cluster.Seed(t), 4))
	c := cluster.New(t, us)
	c.StartAll()
	n := c.Node(us)
	b := keepAlive(t, n, "paused", instances, ttl)
	h := n.Client()
	sdk := newCaller(t, n, "paused")
	soak := cluster.SoakFor(t, 0)
	begun := time.Now()
	for round := 0; round < 2 || time.Since(begun) < soak; round++ {
		pause := []time.Duration{8 * time.Second, ttl / 2}[min(round, 1)]
		if round >= 2 {
			pause = ttl/2 + time.Duration(r.Int64N(int64(19*ttl/2)))
		}
		n.Pause()
		pass(pause)
		n.Resume()
		resumed := time.Now()
		worst := instances
		// Watch for more than a TTL after the end: that is when evictions would come.
		for time.Since(resumed) < ttl+2*time.Second {
			l, err := h.Instances("paused")
			if err != nil {
				t.Fatal(err)
			}
			worst = min(worst, len(l.Instances))
			pass(5 * time.Millisecond)
		}
		t.Logf("paused %s: lost %d of %d; %s (what plain etcd leases lose is printed by the baseline in region/store/etcdnode)",
			pause.Round(time.Millisecond), instances-worst, instances, sdk)
		if worst != instances {
			t.Errorf("P2: after a pause of %s only %d of %d instances were listed", pause, worst, instances)
		}
	}
	if u := b.notKnown(); u > 0 {
		t.Errorf("P1: %d heartbeats were told that the instance is unknown", u)
	}
	sdk.end(t)
}

// caller is a program that resolves a service with the SDK, all the time.
type caller struct {
	mu       sync.Mutex
	calls    int
	empty    int
	fewest   int
	slowest  time.Duration
	err      error
	stop     context.CancelFunc
	finished sync.WaitGroup
}

// newCaller starts one that knows the node, and returns once it has resolved the service.
func newCaller(t *testing.T, n *cluster.Node, service string) *caller {
	t.Helper()
	client, err := nearside.New(nearside.Config{Addresses: []string{n.URL()}, Region: n.Region})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Resolve(t.Context(), service); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	c := &caller{stop: stop, fewest: 1 << 30}
	c.finished.Go(func() {
		each := time.NewTicker(5 * time.Millisecond)
		defer each.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-each.C:
			}
			begun := time.Now()
			r, err := client.Resolve(context.Background(), service)
			took := time.Since(begun)
			c.mu.Lock()
			c.calls++
			c.slowest = max(c.slowest, took)
			c.fewest = min(c.fewest, len(r.Endpoints))
			if err != nil || len(r.Endpoints) == 0 {
				c.empty++
				c.err = err
			}
			c.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		stop()
		c.finished.Wait()
		_ = client.Close()
	})
	return c
}

// String is for reports.
func (c *caller) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("an SDK resolved %d times, %d empty, never fewer than %d, slowest %s", c.calls, c.empty, c.fewest, c.slowest.Round(time.Millisecond))
}

// end stops it and fails the test if any answer was empty.
func (c *caller) end(t *testing.T) {
	t.Helper()
	c.stop()
	c.finished.Wait()
	if c.empty > 0 || c.calls == 0 {
		t.Errorf("P3: %d of %d answers of the SDK were empty: %v", c.empty, c.calls, c.err)
	}
}

// P1: an instance whose heartbeats stop disappears from answers soon after its deadline,
// and the others stay.
func TestDeadInstanceDisappears(t *testing.T) {
	t.Parallel() // it waits more than it works
	c := cluster.New(t, us)
	c.StartAll()
	n := c.Node(us)
	keepAlive(t, n, "web", 9, 2*time.Second)
	h := n.Client()
	h.Register("web", "dead", api.Registration{Address: "127.0.0.1", Port: 9, TTL: api.Duration(2 * time.Second)})
	begun := time.Now()
	cluster.Within(t, 10*time.Second, "the dead instance is gone", func() error {
		l, err := h.Instances("web")
		if err != nil {
			return err
		}
		for _, i := range l.Instances {
			if i.ID == "dead" {
				return fmt.Errorf("still listed")
			}
		}
		if len(l.Instances) != 9 {
			t.Fatalf("P2: %d of 9 living instances are listed", len(l.Instances))
		}
		return nil
	})
	took := time.Since(begun)
	t.Logf("gone %s after its registration with a TTL of 2 s", took.Round(time.Millisecond))
	if took < 2*time.Second {
		t.Errorf("P1: gone before its TTL was over")
	}
}
