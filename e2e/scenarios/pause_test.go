package scenarios

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
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
	h := n.Client()
	ctx, stop := context.WithCancel(context.Background())
	b := &beating{stop: stop}
	for i := range count {
		h.Register(service, fmt.Sprintf("i-%03d", i), api.Registration{Address: "127.0.0.1", Port: 10000 + i, TTL: api.Duration(ttl)})
	}
	for i := range count {
		path := api.PathInstance(api.ServiceName(service), api.InstanceID(fmt.Sprintf("i-%03d", i))) + "/heartbeat"
		b.finished.Go(func() {
			each := time.NewTicker(ttl / 3)
			defer each.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-each.C:
				}
				if status, _ := h.Do(http.MethodPut, path, nil, nil); status == http.StatusNotFound {
					b.mu.Lock()
					b.unknown++
					b.mu.Unlock()
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

// P2, test 4 of the failure analysis: plain etcd leases lose 200 of 200 instances when the
// registry is paused for 8 s (see the baseline in region/store). Ours loses none, at any
// length of the pause.
func TestPauseRegistrySingle(t *testing.T) {
	const instances, ttl = 200, 5 * time.Second
	c := cluster.New(t, us)
	c.StartAll()
	n := c.Node(us)
	b := keepAlive(t, n, "paused", instances, ttl)
	h := n.Client()
	for _, pause := range []time.Duration{8 * time.Second, 3 * ttl} {
		n.Pause()
		timer := time.NewTimer(pause)
		<-timer.C
		n.Resume()
		resumed := time.Now()
		worst := instances
		// Watch for more than a TTL after the end: that is when evictions would come.
		for time.Since(resumed) < ttl+3*time.Second {
			l, err := h.Instances("paused")
			if err != nil {
				t.Fatal(err)
			}
			worst = min(worst, len(l.Instances))
		}
		t.Logf("paused %s: lost %d of %d (what plain etcd leases lose is printed by the baseline in region/store/etcdnode)", pause, instances-worst, instances)
		if worst != instances {
			t.Errorf("P2: after a pause of %s only %d of %d instances were listed", pause, worst, instances)
		}
	}
	if u := b.notKnown(); u > 0 {
		t.Errorf("P1: %d heartbeats were told that the instance is unknown", u)
	}
}

// P1: an instance whose heartbeats stop disappears from answers soon after its deadline,
// and the others stay.
func TestDeadInstanceDisappears(t *testing.T) {
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
