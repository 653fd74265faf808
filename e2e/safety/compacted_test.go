package safety

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// lagging returns a watcher that takes little: what it does not read soon waits in the node.
func lagging(name, base string, seed uint64) *watcher {
	return &watcher{
		name: name, base: base, services: services, rng: rand.New(rand.NewPCG(seed, 9)), stall: make(chan struct{}),
		h: &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if tcp, ok := conn.(*net.TCPConn); ok {
				err = tcp.SetReadBuffer(128 << 10)
			}
			return conn, err
		}}},
	}
}

// churn changes ten instances of each service until the node has moved on by n revisions,
// and returns the ledger of it.
func churn(t *testing.T, w *world, n int) []call {
	t.Helper()
	h := w.n.Client()
	large := strings.Repeat("x", 12<<10) // so that few changes fill what a connection holds
	var acked []call
	for i := range n {
		c := call{kind: register, key: api.InstanceKey{Service: services[i%2], ID: api.InstanceID(fmt.Sprintf("c-%02d", i%20))}, value: fmt.Sprint(i)}
		var in api.Instance
		cluster.Within(t, 15*time.Second, "a registration", func() (err error) {
			c.status, err = h.Do(http.MethodPut, api.PathInstance(c.key.Service, c.key.ID), api.Registration{
				Address: "127.0.0.1", Port: 80, TTL: api.Duration(time.Hour), Metadata: map[string]string{"v": c.value, "x": large},
			}, &in)
			return err
		})
		c.found, c.revision = in.Incarnation, in.Revision
		acked = append(acked, c)
	}
	return acked
}

// P5, test 17 of the failure analysis: a consumer that stops reading, and one that is away
// over a kill -9 of the node, come back after the history was forgotten that they need.
// Each is told by one reset and one whole list; then it knows what a strong list says. Who
// reads all the while is not held up by the others and never reset, the kill included. The long
// form does it again and again, each time with a new region and a new seed.
func TestCompactedWatcher(t *testing.T) {
	soak := cluster.SoakFor(t, 0)
	for round, begun := 1, time.Now(); round == 1 || time.Since(begun) < soak; round++ {
		if !t.Run(fmt.Sprintf("round %d", round), compacted) {
			return
		}
	}
}

func compacted(t *testing.T) {
	w := newWorld(t)
	changes := 1000 // four times the history; 12 MiB to each watcher
	ctx, stop := context.WithCancel(context.Background())
	a := &audience{stop: stop}
	defer a.all.Wait()
	defer stop()
	steady := &watcher{name: "steady", base: w.n.URL(), services: services, rng: rand.New(rand.NewPCG(w.seed, 8)), h: &http.Client{Transport: &http.Transport{}}}
	stalled := lagging("stalled", w.n.URL(), w.seed)
	away := lagging("away", "http://"+w.relay.Addr, w.seed)
	for _, x := range []*watcher{steady, stalled, away} {
		a.watchers = append(a.watchers, x)
		a.all.Go(func() { x.run(ctx) })
	}
	for _, x := range a.watchers {
		cluster.Within(t, 15*time.Second, x.name+" watches", func() error {
			if x.upTo.Load() == 0 {
				return fmt.Errorf("not yet")
			}
			return nil
		})
	}
	w.relay.Cut() // away is away: it looks at its connection only when it is let go
	acked := churn(t, w, changes)
	resynced := map[string]time.Duration{}
	knowsAll := func(x *watcher, last map[api.ServiceName]uint64) {
		t.Helper()
		began := time.Now()
		newest := max(last[services[0]], last[services[1]])
		cluster.Within(t, 25*time.Second, "P5: "+x.name+" is told of all", func() error {
			if at := x.upTo.Load(); at < newest {
				return fmt.Errorf("it is at %d of %d", at, newest)
			}
			return nil
		})
		if resynced[x.name] > 0 {
			return // the first time is the one that counts
		}
		resynced[x.name] = time.Since(began).Round(time.Millisecond)
	}
	last := markers(t, w, 0)
	knowsAll(steady, last)
	close(stalled.stall)
	knowsAll(stalled, last)
	w.n.Kill()
	w.n.Start()
	acked = append(acked, churn(t, w, 20)...)
	last = markers(t, w, 1)
	close(away.stall)
	for _, x := range a.watchers {
		knowsAll(x, last)
	}
	final := listAll(t, w)
	stop()
	a.all.Wait()
	if steady.resets != 0 {
		t.Errorf("P5: who read all the while was reset %d times", steady.resets)
	}
	var segments []segment
	events := 0
	for _, x := range a.watchers {
		segments = append(segments, x.segments...)
		listed := 0
		for _, s := range x.segments {
			events += len(s.events) + len(s.items)
			if s.listed {
				listed++
			}
		}
		for _, line := range x.broken {
			t.Error(line)
		}
		if x != steady && x.resets == 0 {
			t.Errorf("P5: %s came back %d changes later, %d are remembered, and was not reset", x.name, changes, 256)
		}
		if listed > x.resets+1 { // the first list needs no reset
			t.Errorf("P5: %s got %d lists for %d resets", x.name, listed, x.resets)
		}
		t.Logf("%s: %d resets, %d lists, %d streams; resynchronised in %s", x.name, x.resets, listed, x.opened, resynced[x.name])
	}
	for _, s := range services {
		for _, line := range checkWatches(s, segments, acked, final) {
			t.Error(line)
		}
	}
	t.Logf("changes %d of 12 KiB, remembered 256; watch events checked %d", changes, events)
}
