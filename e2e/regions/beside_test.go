package regions

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// info returns what a process says of its federation.
func info(h *cluster.HTTP) (f api.FederationInfo, err error) {
	status, err := h.Do(http.MethodGet, api.PathFederation, nil, &f)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d", status)
	}
	return f, err
}

// knows waits until a node knows so many usable instances of a service in another region, freshly.
func knows(t *testing.T, h *cluster.HTTP, peer api.Region, service string, n int) {
	t.Helper()
	cluster.Within(t, patience, fmt.Sprintf("%d of %s in %s are known", n, service, peer), func() error {
		r, err := h.Region(peer)
		if err != nil {
			return err
		}
		res, err := h.Resolve(service)
		if err != nil {
			return err
		}
		if r.State != api.AgeFresh || len(res.Endpoints) != n || res.Endpoints[0].Region != peer {
			return fmt.Errorf("%+v, %d endpoints", r, len(res.Endpoints))
		}
		return nil
	})
}

// guard asks nodes for a service of another region again and again: it must always be there, and its
// version must not go back (P3, P4, P10). It prints how old it was at most.
type guard struct {
	t     *testing.T
	stop  chan struct{}
	group sync.WaitGroup
}

func watchOver(t *testing.T, peer api.Region, service string, nodes ...*cluster.HTTP) *guard {
	g := &guard{t: t, stop: make(chan struct{})}
	for i, h := range nodes {
		g.group.Go(func() {
			var last api.Version
			var oldest int64
			answers := 0
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-g.stop:
					t.Logf("node %d: %d answers, the oldest was %d ms old", i, answers, oldest)
					if answers == 0 {
						t.Errorf("node %d answered nothing", i)
					}
					return
				case <-tick.C:
				}
				res, err := h.Resolve(service)
				if err != nil {
					t.Errorf("node %d: %v", i, err)
					return
				}
				if len(res.Endpoints) == 0 || res.Endpoints[0].Region != peer {
					t.Errorf("node %d: %s has %d endpoints", i, service, len(res.Endpoints))
					return
				}
				for _, v := range res.Views {
					if v.Region != peer {
						continue
					}
					at := api.Version{Region: peer, Epoch: v.Epoch, Revision: v.Revision}
					if !last.IsZero() && at != last && at.Compare(last) != api.Newer {
						t.Errorf("node %d: %s after %s", i, at, last)
					}
					last, oldest = at, max(oldest, v.AgeMS)
				}
				answers++
			}
		})
	}
	return g
}

func (g *guard) end() { close(g.stop); g.group.Wait() }

// reads returns nil if a node says that reader reads a peer for its region.
func reads(n *cluster.Node, peer api.Region, reader string) error {
	f, err := info(n.Client())
	if err != nil {
		return err
	}
	l, err := link(f, peer)
	if err != nil {
		return err
	}
	want := n.Region
	if n.Name == reader {
		want = ""
	}
	if l.Via != want || l.Via != "" && l.Node != reader || l.State != "connected" {
		return fmt.Errorf("%s is read by %s, and %s says via %q, node %s, %s", peer, reader, n.Name, l.Via, l.Node, l.State)
	}
	return nil
}

// P3, P4, P10: a region of three nodes costs a peer one stream. When the node that reads dies, another
// one takes over, and its siblings' rows never go, never go back, and grow no older than that takes.
func TestOneStreamPerPeer(t *testing.T) {
	t.Parallel()
	c := cluster.NewRegion(t, us, 3)
	c.Federate(us)
	other := c.AddRegion(eu)
	c.StartAll()
	h := other.Client()
	fill(t, h, "orders", 3, nil)
	reader := func() (string, error) {
		f, err := info(h)
		if err != nil {
			return "", err
		}
		if len(f.Readers) != 1 || f.Readers[0].Region != us {
			return "", fmt.Errorf("%+v", f.Readers)
		}
		return f.Readers[0].Node, nil
	}
	var first string
	cluster.Within(t, patience, "one node of three reads", func() (err error) { first, err = reader(); return err })
	var rest []*cluster.HTTP
	var victim *cluster.Node
	for _, n := range c.Nodes(us) {
		knows(t, n.Client(), eu, "orders", 3)
		cluster.Within(t, patience, "every node says who reads", func() error { return reads(n, eu, first) })
		if n.Name == first {
			victim = n
		} else {
			rest = append(rest, n.Client())
		}
	}
	g := watchOver(t, eu, "orders", rest...)
	victim.Kill()
	killed := time.Now()
	var next string
	cluster.Within(t, patience, "one of the others reads, and all say so", func() (err error) {
		if next, err = reader(); err == nil && next == first {
			err = errors.New("it is the dead one")
		}
		for _, n := range c.Nodes(us) {
			if n != victim && err == nil {
				err = reads(n, eu, next)
			}
		}
		return err
	})
	t.Logf("%s reads alone %s after %s was killed", next, time.Since(killed).Round(time.Millisecond), first)
	fill(t, h, "orders", 5, nil)
	for _, n := range rest {
		knows(t, n, eu, "orders", 5)
	}
	g.end()
	victim.Start()
	knows(t, victim.Client(), eu, "orders", 5)
	cluster.Within(t, patience, "still one reads", func() error { _, err := reader(); return err })
}

// P3, P6, P10, P11: a federation that is a process of its own is the region's federation for peers and
// for the region's nodes. When it dies nobody forgets, and when the nodes die, the peers see it.
func TestFederationProcess(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, us, eu)
	fed := c.AddFederation(us)
	node, other := c.Node(us), c.Node(eu)
	c.StartAll()
	hus, heu, hfed := node.Client(), other.Client(), fed.Client()
	fill(t, hus, "carts", 2, nil)
	fill(t, heu, "orders", 3, nil)
	knows(t, heu, us, "carts", 2)
	knows(t, hus, eu, "orders", 3)
	f, err := info(hus)
	if err != nil {
		t.Fatal(err)
	}
	l, err := link(f, eu)
	if err != nil || l.Via != us || l.Node != "federation" || l.State != "connected" {
		t.Errorf("%+v, %v", l, err)
	}
	if f, err = info(heu); err != nil || len(f.Readers) != 1 || f.Readers[0].Node != "federation" {
		t.Errorf("%+v, %v", f.Readers, err)
	}

	// The federation dies. The node keeps what it knows, and knows that it grows old; so does the peer.
	g := watchOver(t, eu, "orders", hus)
	fed.Kill()
	aged := func(h *cluster.HTTP, of api.Region, services int) {
		t.Helper()
		cluster.Within(t, patience, "what is known of "+string(of)+" stays, and is stale", func() error {
			r, err := h.Region(of)
			if err == nil && (r.State == api.AgeFresh || r.Services != services) {
				err = fmt.Errorf("%s, %d ms, %d services", r.State, r.AgeMS, r.Services)
			}
			return err
		})
	}
	aged(hus, eu, 1)
	aged(heu, us, 1)
	fed.Start()
	fill(t, heu, "orders", 4, nil)
	knows(t, hus, eu, "orders", 4)
	knows(t, heu, us, "carts", 2)
	g.end()

	// The region's node dies. The federation lives, and does not say that its region does.
	node.Kill()
	aged(heu, us, 1)
	if f, err = info(heu); err != nil {
		t.Fatal(err)
	}
	if l, err = link(f, us); err != nil || l.State != "connected" || l.LastError == "" {
		t.Errorf("the federation answers, and its region does not: %+v, %v", l, err)
	}
	if status, err := hfed.Do(http.MethodGet, api.PathReadyz, nil, nil); err == nil && status != http.StatusServiceUnavailable {
		t.Errorf("the federation without its region: %d, %v", status, err)
	}
	node.Start()
	knows(t, heu, us, "carts", 2)
	knows(t, hus, eu, "orders", 4)

	// It loses its data. What the federation, or only a peer, saw of it outranks the new history: the epoch rises.
	for _, who := range []string{"the federation", "a peer alone"} {
		was, err := heu.Region(us)
		if err != nil {
			t.Fatal(err)
		}
		node.Kill()
		if who == "a peer alone" {
			fed.Kill()
			fed.Launch()
		}
		if err := os.RemoveAll(filepath.Join(node.DataDir, "etcd")); err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{"head", "records"} {
			_ = os.RemoveAll(filepath.Join(node.DataDir, f))
		}
		node.Start()
		fill(t, hus, "carts", 3, nil)
		cluster.Within(t, patience, "the region's new history is the peer's, as "+who+" saw to it", func() error {
			r, err := heu.Region(us)
			if err == nil && (r.Epoch.Generation <= was.Epoch.Generation || r.State != api.AgeFresh || r.Passing != 3) {
				err = fmt.Errorf("%+v, was %s", r.Origin, was.Epoch)
			}
			return err
		})
		fill(t, hus, "carts", 2, nil)
	}
}

// P10, P11: replicas are on disk, and are used after a restart while the peer is away: by the federation's
// process and the node that has them from it, and by a node that is its own federation.
func TestReplicasOutliveARestartWithoutThePeer(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, us, eu)
	fed := c.AddFederation(us)
	node, other := c.Node(us), c.Node(eu)
	c.StartAll()
	hus, heu := node.Client(), other.Client()
	fill(t, hus, "carts", 2, nil)
	fill(t, heu, "orders", 3, nil)
	knows(t, heu, us, "carts", 2)
	knows(t, hus, eu, "orders", 3)
	known := time.Now()
	for _, n := range []*cluster.Node{fed, node, other} { // what is known is on disk
		file := map[bool]api.Region{true: us, false: eu}[n == other]
		cluster.Within(t, patience, "the replica of "+string(file)+" is on disk", func() error { return n.HasReplica(file, known) })
	}
	served := func(h *cluster.HTTP, of api.Region, service string, n int, sources ...string) {
		t.Helper()
		cluster.Within(t, patience, service+" of "+string(of)+" is served, and not as new", func() error {
			res, err := h.Resolve(service)
			if err != nil {
				return err
			}
			for _, v := range res.Views {
				if v.Region != of {
					continue
				}
				if len(res.Endpoints) != n || v.State != api.AgeSuspect && v.State != api.AgeExpired || v.AgeMS <= 0 {
					return fmt.Errorf("%d endpoints, %+v", len(res.Endpoints), v)
				}
				for _, s := range sources {
					if v.Source == s {
						return nil
					}
				}
				return fmt.Errorf("its source is %s", v.Source)
			}
			return fmt.Errorf("no view of %s: %+v", of, res.Views)
		})
	}
	other.Kill()
	fed.Kill()
	node.Kill()
	node.Start() // alone: from its own disk
	served(hus, eu, "orders", 3, api.SourceSnapshot)
	node.Kill()
	if err := node.ForgetReplicas(); err != nil {
		t.Fatal(err)
	}
	fed.Launch() // it is ready when it hears of its region
	node.Start() // without a disk of its own: from the federation's
	served(hus, eu, "orders", 3, api.SourceReplica)

	fed.Kill()
	node.Kill()
	other.Start() // its own federation
	served(heu, us, "carts", 2, api.SourceSnapshot)
}
