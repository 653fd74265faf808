package nearside

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// node returns another node of a region, which knows what the region knows now and nothing of
// what comes.
func (r *fakeRegion) node(addr string) *fakeRegion {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := &fakeRegion{
		w: r.w, name: r.name, addr: addr, epoch: r.epoch, revision: r.revision, cut: true,
		instances: map[api.ServiceKey]map[api.InstanceID]*api.Instance{}, subs: map[*sub]struct{}{},
		heard: map[api.InstanceID][]string{}, drained: map[api.Region]float64{}, policies: map[api.ServiceName]*api.Policy{},
	}
	for key, list := range r.instances {
		n.instances[key] = maps.Clone(list)
	}
	n.start()
	return n
}

// catchUp makes the node know what the region knows, and ends its streams.
func (n *fakeRegion) catchUp(r *fakeRegion) {
	r.mu.Lock()
	epoch, revision, instances := r.epoch, r.revision, map[api.ServiceKey]map[api.InstanceID]*api.Instance{}
	for key, list := range r.instances {
		instances[key] = maps.Clone(list)
	}
	r.mu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.epoch, n.revision, n.instances = epoch, revision, instances
	for s := range n.subs {
		s.once.Do(func() { close(s.gone) })
	}
}

// witness watches a service and fails the test when a region's version goes back (P4). Its
// seen returns the ids of the latest answer.
func witness(t *testing.T, c *Client, service string) (seen func() []string) {
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	var last []string
	best := map[api.Region]api.Version{}
	var group sync.WaitGroup
	group.Go(func() {
		_ = c.Watch(ctx, service, func(res api.Resolution) {
			mu.Lock()
			defer mu.Unlock()
			last = nil
			for _, e := range res.Endpoints {
				last = append(last, string(e.ID))
			}
			for _, o := range res.Views {
				if v := o.Version(); v.Compare(best[o.Region]) == api.Older {
					t.Errorf("P4: %s went back from %s to %s", o.Region, best[o.Region], v)
				} else {
					best[o.Region] = v
				}
			}
		})
	})
	t.Cleanup(func() { cancel(); group.Wait() })
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(last)
	}
}

// P4 across the nodes of home: one that lags behind what was already seen is not believed, be
// it the only one that answers; once it has caught up it is.
func TestNodeThatLagsBehindIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		us := w.regions["us"]
		us.put("orders", "old", "o:80", nil)
		lag := us.node("us2.registry:7400")
		us.remove("orders", "old")
		us.put("orders", "new", "n:80", nil)
		c := w.client("us", nil) // knows the first node only, so that it is asked first
		seen := witness(t, c, "orders")
		time.Sleep(time.Second)
		c.nodes.learn("us", []string{us.base(), lag.base()}, 0)
		w.net.kill(us.addr)
		for range 100 {
			time.Sleep(100 * time.Millisecond)
			if got := seen(); !slices.Equal(got, []string{"new"}) {
				t.Fatalf("P4: by a node that lags: %v", got)
			}
		}
		if lag.watches() == 0 {
			t.Error("the node was not asked at all")
		}
		us.put("orders", "newer", "m:80", nil)
		lag.catchUp(us)
		time.Sleep(5 * time.Second)
		if got := seen(); !slices.Equal(got, []string{"new", "newer"}) {
			t.Errorf("it has caught up: %v", got)
		}
	})
}

// P4 over a restart of the program: a registry that shows less than the snapshot did, in the
// same history, is not believed until it has caught up; a new history is, however low its
// revision.
func TestSnapshotNewerThanTheRegistry(t *testing.T) {
	for name, tc := range map[string]struct {
		raised bool
		want   []string
	}{"the same epoch": {false, []string{"new"}}, "a raised epoch": {true, []string{"new", "old"}}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "us")
				us := w.regions["us"]
				us.put("orders", "old", "o:80", nil)
				behind := us.node("us2.registry:7400")
				us.remove("orders", "old")
				us.put("orders", "new", "n:80", nil)
				c := w.client("us", func(cfg *Config) { cfg.SnapshotDir = dir })
				if _, err := c.Pick(t.Context(), "orders"); err != nil {
					t.Fatal(err)
				}
				_ = c.Close()
				w.net.kill(us.addr)
				if tc.raised {
					behind.mu.Lock()
					behind.epoch.Generation++
					behind.mu.Unlock()
				}
				c = w.client("us", func(cfg *Config) { cfg.SnapshotDir, cfg.Addresses = dir, []string{behind.base()} })
				seen := witness(t, c, "orders")
				time.Sleep(10 * time.Second)
				if got := seen(); !slices.Equal(got, tc.want) {
					t.Errorf("%v, want %v: what is missing in a new history is held", got, tc.want)
				}
				if p, err := c.Pick(t.Context(), "orders"); err != nil || !tc.raised && p.Endpoint.ID != "new" {
					t.Errorf("%v %v", p.Endpoint.ID, err)
				}
				if tc.raised {
					return
				}
				behind.catchUp(us)
				behind.put("orders", "newer", "m:80", nil)
				time.Sleep(10 * time.Second)
				if got := seen(); !slices.Equal(got, []string{"new", "newer"}) {
					t.Errorf("it has caught up: %v", got)
				}
			})
		})
	}
}

// P4, P7 across regions: home is wiped while another region is asked, and told of by it in
// both histories; nobody goes back to the old one.
func TestWipedHomeSeenFromAbroad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		us := w.regions["us"]
		for range 20 {
			us.put("orders", "a", "a:80", nil)
		}
		c := w.client("us", nil)
		seen := witness(t, c, "orders")
		time.Sleep(time.Second)
		w.net.kill(us.addr)
		time.Sleep(5 * time.Second)
		us.wipe()
		us.put("orders", "b", "b:80", nil)
		time.Sleep(10 * time.Second)
		if got := seen(); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("P7: of a new history, heard abroad: %v", got)
		}
		us.start()
		time.Sleep(time.Minute)
		if got := seen(); !slices.Equal(got, []string{"b"}) {
			t.Errorf("after the hold: %v", got)
		}
	})
}
