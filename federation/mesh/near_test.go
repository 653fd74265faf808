package mesh

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/federation/internal/regiontest"
	"github.com/nearside/nearside/sdk/api"
)

// team is a region of several nodes with one catalogue, and two regions of one node.
type team struct {
	t      *testing.T
	nodes  []*region
	others map[api.Region]*region

	mu   sync.Mutex
	live []string
}

func newTeam(t *testing.T, n *network) *team {
	t.Helper()
	w := &team{t: t, others: map[api.Region]*region{}, live: []string{"n1", "n2", "n3"}}
	peers := []api.Region{"eu-west", "ap-south"}
	catalogue := regiontest.New("us-east")
	var urls []string
	for _, node := range w.live {
		urls = append(urls, "http://us-"+node+":7402")
	}
	for _, p := range peers {
		r := newRegion(t, n, p, "us-east")
		r.peers["us-east"] = urls
		w.others[p] = r
		r.start()
		t.Cleanup(r.stop)
	}
	for _, node := range w.live {
		r := newRegion(t, n, "us-east", peers...)
		r.source, r.node, r.at = catalogue, node, "us-"+node
		r.near = Near{Nodes: w.siblings, Doors: func(_ context.Context, s Sibling) ([]string, error) {
			return []string{"http://us-" + s.Node + ":7402"}, nil
		}}
		w.nodes = append(w.nodes, r)
		r.start()
		t.Cleanup(func() { r.stop() })
	}
	return w
}

func (w *team) siblings() (out []Sibling) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.live {
		out = append(out, Sibling{Node: n, Address: "http://us-" + n + ":7400"})
	}
	return out
}

func (w *team) lives(nodes ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.live = nodes
}

// readers are the nodes of the team that read a region themselves.
func (w *team) readers(of api.Region) (out []string) {
	for _, r := range w.others[of].mesh.Info().Readers {
		out = append(out, r.Node)
	}
	slices.Sort(out)
	return out
}

// settles waits until one node of the team reads a region, and returns it.
func (w *team) settles(of api.Region) string {
	w.t.Helper()
	w.others[of].until("one node of the team reads it", func() bool {
		names := w.readers(of)
		return len(names) == 1
	})
	return w.readers(of)[0]
}

func (w *team) node(name string) *region {
	for _, r := range w.nodes {
		if r.node == name {
			return r
		}
	}
	return nil
}

// watch looks at what some nodes know of a region each 100 ms: nothing may vanish or go back, or be
// older than most.
func (w *team) watch(of api.Region, nodes []*region, most time.Duration) (end func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		held := map[string]api.Version{}
		var worst time.Duration
		for {
			for _, r := range nodes {
				got := r.mesh.Lookup(regiontest.Key("payments"))
				i := slices.IndexFunc(got, func(x api.Replica) bool { return x.Origin.Region == of })
				if i < 0 || got[i].Summary.Passing == 0 {
					w.t.Errorf("%s: the rows of %s are gone", r.node, of)
					return
				}
				o := got[i].Origin
				v := api.Version{Region: of, Epoch: o.Epoch, Revision: o.Revision}
				if was, ok := held[r.node]; ok && v != was && v.Compare(was) != api.Newer {
					w.t.Errorf("%s: %s after %s", r.node, v, was)
				}
				held[r.node] = v
				worst = max(worst, time.Duration(o.AgeMS)*time.Millisecond)
			}
			select {
			case <-stop:
				if w.t.Logf("the oldest that was known of %s: %s", of, worst); worst > most {
					w.t.Errorf("%s is more than %s", worst, most)
				}
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	return func() { close(stop); <-done }
}

// P3, P4, P10, I6: of three nodes one reads each peer, and the others have its rows from that one, as
// fresh; when that one dies, another one takes over, and no row goes or goes back meanwhile.
func TestOneNodeOfARegionReadsAPeer(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		w := newTeam(t, n)
		for name, r := range w.others {
			r.source.Set(3, "payments")
			for _, node := range w.nodes {
				node.has(name, "payments", 3)
			}
		}
		eu := w.others["eu-west"]
		reader := w.settles("eu-west")
		w.settles("ap-south")
		for _, r := range w.nodes {
			r.until("the link shows who reads", func() bool {
				l := r.link("eu-west")
				return l.State == linkConnected && l.Node != "" && (r.node == reader) == (l.Via == "") && (l.Via == "" || l.Via == "us-east" && l.Node == reader)
			})
		}
		all := w.watch("eu-west", w.nodes, 3500*time.Millisecond)
		for i := range 20 {
			eu.source.Set(4+i, "payments")
			for _, node := range w.nodes {
				node.has("eu-west", "payments", 4+i)
			}
			after(time.Second)
		}
		all()
		if got := w.readers("eu-west"); len(got) != 1 || got[0] != reader {
			t.Fatalf("%v read it now, not %s", got, reader)
		}

		// It dies; the owner of liveness notices three seconds later.
		var rest []*region
		var names []string
		for _, r := range w.nodes {
			if r.node != reader {
				rest, names = append(rest, r), append(names, r.node)
			}
		}
		end := w.watch("eu-west", rest, 5*time.Second)
		dead := w.node(reader)
		dead.stop()
		dead.stop = func() {}
		eu.source.Set(40, "payments")
		for _, r := range rest {
			r.has("eu-west", "payments", 40)
		}
		after(3 * time.Second)
		w.lives(names...)
		next := w.settles("eu-west")
		if next == reader {
			t.Fatal("a dead node reads")
		}
		eu.source.Set(41, "payments")
		for _, r := range rest {
			r.has("eu-west", "payments", 41)
		}
		after(10 * time.Second)
		end()
		if got := w.readers("eu-west"); len(got) != 1 {
			t.Fatalf("%v read it", got)
		}
	})
}

// P3, P10: a node that reads for all and does not hear the peer is no reason for the others not to;
// when it hears it again, it reads for them again.
func TestReaderThatIsCutOff(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		w := newTeam(t, n)
		eu := w.others["eu-west"]
		eu.source.Set(3, "payments")
		w.others["ap-south"].source.Set(1, "other")
		for _, node := range w.nodes {
			node.has("eu-west", "payments", 3)
		}
		reader := w.settles("eu-west")
		cut, heal := severed(w.node(reader).client, "eu-west")
		// The client has connections already: begin anew with those that can be cut.
		w.node(reader).client.CloseIdleConnections()
		w.node(reader).stop()
		w.node(reader).start()
		w.settles("eu-west")
		var rest []*region
		for _, r := range w.nodes {
			if r.node != reader {
				rest = append(rest, r)
			}
		}
		end := w.watch("eu-west", rest, 9*time.Second)
		cut()
		for i := range 20 {
			eu.source.Set(4+i, "payments")
			after(time.Second)
		}
		for _, r := range rest {
			r.has("eu-west", "payments", 23)
		}
		end()
		heal()
		for _, r := range w.nodes {
			r.has("eu-west", "payments", 23)
		}
		if got := w.settles("eu-west"); got != reader {
			t.Errorf("%s reads, not %s again", got, reader)
		}
	})
}

// P3, P10: nodes that have everything from their region's federation process know what it knows, by way
// of it alone; while it is away they keep that, also over a restart of their own.
func TestNodesOfAFederationProcess(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		eu := newRegion(t, n, "eu-west", "us-east")
		eu.start()
		t.Cleanup(func() { eu.stop() })
		fed := newRegion(t, n, "us-east", "eu-west")
		fed.node = "fed"
		fed.start()
		t.Cleanup(func() { fed.stop() })
		node := newRegion(t, n, "us-east")
		node.node, node.at, node.near = "n1", "us-n1", Near{Only: []string{"http://us-east:7402"}}
		node.start()
		t.Cleanup(func() { node.stop() })

		eu.source.Set(3, "payments")
		node.has("eu-west", "payments", 3)
		node.until("the link is up, by way of the federation", func() bool {
			l := node.link("eu-west")
			return l.State == linkConnected && l.Via == "us-east" && l.Node == "fed" && l.Replica.State == api.AgeFresh && l.Replica.Addresses[0] == "http://eu-west:7400"
		})
		if got := eu.mesh.Info().Readers; len(got) != 1 || got[0].Node != "fed" {
			t.Errorf("%+v read it", got)
		}
		// The peer goes: the node knows as well as the federation how old its word is.
		eu.stop()
		after(20 * time.Second)
		a, b := fed.origin("eu-west"), node.origin("eu-west")
		if node.passing("eu-west", "payments") != 3 || node.link("eu-west").State != linkUnreachable || b.AgeMS < a.AgeMS-50 || b.AgeMS > a.AgeMS+1100 {
			t.Errorf("the federation says %+v, the node %+v", a, node.link("eu-west"))
		}
		eu.start()
		eu.source.Set(4, "payments")
		node.has("eu-west", "payments", 4)

		// The federation goes, and then the node.
		after(15 * time.Second) // so that all is on disk
		fed.stop()
		node.stop()
		node.start()
		if got := node.passing("eu-west", "payments"); got != 4 {
			t.Errorf("%d after a restart without the federation", got)
		}
		if o := node.origin("eu-west"); o.Source != api.SourceSnapshot || o.State != api.AgeSuspect {
			t.Errorf("%+v", o)
		}
		// Both are back, and the peer is away: rows from the federation's disk are not taken for new.
		eu.stop()
		fed.start()
		after(5 * time.Second)
		if o := node.origin("eu-west"); o.State == api.AgeFresh || o.State == api.AgeStale || node.passing("eu-west", "payments") != 4 {
			t.Errorf("%+v", o)
		}
		eu.start()
		eu.source.Set(5, "payments")
		node.has("eu-west", "payments", 5)
		node.until("and fresh", func() bool { return node.origin("eu-west").State == api.AgeFresh })
	})
}

// A mesh is either led by its region's federation process, or reads for itself.
func TestNearIsOneThingOrTheOther(t *testing.T) {
	_, err := New(Config{Region: "us-east", Source: regiontest.New("us-east"), Near: Near{Only: []string{"http://a:1"}}, Peers: map[api.Region][]string{"eu-west": {"http://b:1"}}})
	if err == nil {
		t.Fatal(fmt.Errorf("peers beside a federation process"))
	}
}
