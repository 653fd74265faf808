package regions

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/services/wan"
)

// P6, P8, P10 and catalogue row 48: links of 300 ms one way and 5 % loss. The regions find
// to each other, changes arrive, how far behind each one is can be seen, and local answers are as
// quick as ever.
func TestSlowLink(t *testing.T) {
	t.Parallel()                                           // it waits more than it works
	const most, oldestSeen = 30 * time.Second, time.Minute // of a link that loses one connection in twenty, on a slow machine
	cluster.Seedless(t)                                    // what the link loses is its own business
	w := newWorld(t, us, eu)
	w.StartAll()
	for i := range 300 {
		fill(t, w.clients[eu], fmt.Sprintf("service-%d", i), 3, nil)
	}
	fill(t, w.clients[us], "orders", 5, nil)
	resolve := func() time.Duration {
		t.Helper()
		began := time.Now()
		if _, err := w.clients[us].Resolvable("orders"); err != nil {
			t.Fatalf("P10: %v", err)
		}
		return time.Since(began)
	}
	var quick, slow []time.Duration
	for range 300 {
		quick = append(quick, resolve())
	}
	w.links.SetAll(func(d *wan.Direction) {
		d.Delay, d.Jitter, d.Loss = api.Duration(300*time.Millisecond), api.Duration(30*time.Millisecond), 0.05
	})
	w.links.Cut(us, eu)
	v := w.watchOver("service-0")

	var worst uint64
	var oldest int64
	var took []time.Duration
	rounds := 0
	soak := cluster.SoakFor(t, 0)
	for begun := time.Now(); rounds < 3 || time.Since(begun) < soak; rounds++ {
		for i := range 20 {
			fill(t, w.clients[eu], fmt.Sprintf("service-%d", (rounds*20+i)%300), 3, func(_ int, r *api.Registration) {
				r.Version = fmt.Sprintf("1.%d", rounds+1)
			})
		}
		began := time.Now()
		cluster.Within(t, patience, "P6: the slow link catches up", func() error {
			slow = append(slow, resolve())
			info, err := w.federation(us)
			if err != nil {
				return err
			}
			l, err := link(info, eu)
			if err != nil {
				return err
			}
			worst, oldest = max(worst, l.HeadLag), max(oldest, l.Replica.AgeMS)
			return w.agree(us, eu)
		})
		took = append(took, time.Since(began))
	}
	var list api.InstanceList
	if _, err := w.clients[us].Do(http.MethodGet, api.PathInstances("service-5")+"?region="+string(eu), nil, &list); err != nil || len(list.Instances) != 3 || list.Instances[0].Version == "" {
		t.Errorf("P6: us-east shows %+v, %v", list.Instances, err)
	}
	v.verdict()
	var l api.LinkInfo
	cluster.Within(t, patience, "round trip and age tell what the link is like", func() error {
		info, err := w.federation(us)
		if err != nil {
			return err
		}
		if l, err = link(info, eu); err == nil && (l.Replica.RTTMS < 600 || l.Replica.AgeMS < 600) {
			err = fmt.Errorf("a round trip of %d ms and an age of %d ms are shown over a link of 300 ms each way", l.Replica.RTTMS, l.Replica.AgeMS)
		}
		return err
	})
	if p := cluster.Percentile(took, 1); p > most {
		t.Errorf("P6: it took %s to catch up with 60 changes, want %s at most", p, most)
	}
	if want := uint64(60*rounds + 300*3 + 100); worst > want {
		t.Errorf("P8: a lag of %d revisions was shown, there were fewer changes than %d", worst, want)
	}
	if time.Duration(oldest)*time.Millisecond > oldestSeen {
		t.Errorf("P6: rows were %d ms old, want %s at most", oldest, oldestSeen)
	}
	asQuick(t, "beside a slow link", quick, slow)
	t.Logf("caught up after 60 changes: p50 %s, p99 %s of %d; at most %d revisions behind, at most %d ms old; round trip %d ms; local resolve p99 %s before, %s meanwhile",
		cluster.Percentile(took, 0.5).Round(time.Millisecond), cluster.Percentile(took, 0.99).Round(time.Millisecond), rounds, worst, oldest, l.RTTMS,
		cluster.Percentile(quick, 0.99).Round(10*time.Microsecond), cluster.Percentile(slow, 0.99).Round(10*time.Microsecond))
}

// P4, P6, P10 and catalogue row 50: a region that was away while the others changed comes back with
// what it had. It is the source of its own records only: what the others removed meanwhile does not
// come back with it, and its own were never gone.
func TestRegionReturnsAfterChanges(t *testing.T) {
	t.Parallel() // it waits more than it works
	w := newWorld(t, us, eu, ap)
	w.StartAll()
	for _, r := range w.regions {
		for _, service := range []string{"orders", "users", "old-" + string(r)} {
			fill(t, w.clients[r], service, 4, nil)
		}
	}
	w.awaitAgreement("at the start")
	pass(3 * time.Second) // replicas are on disk
	v := w.watchOver("orders")
	v.down(eu)
	w.Node(eu).Kill()
	for _, r := range []api.Region{us, ap} {
		for i := range 4 {
			service := "old-" + string(r)
			path := api.PathInstance(api.ServiceName(service), api.InstanceID(fmt.Sprintf("%s-%d", service, i)))
			if _, err := w.clients[r].Do(http.MethodDelete, path, nil, nil); err != nil {
				t.Fatal(err)
			}
		}
		fill(t, w.clients[r], "new-"+string(r), 2, nil)
	}
	w.awaitAgreement("of those that are left", us, ap)
	for _, r := range []api.Region{us, ap} {
		if _, err := w.clients[r].Resolvable("old-" + string(eu)); err != nil {
			t.Errorf("P10: %s forgot what only eu-west has: %v", r, err)
		}
	}
	began := time.Now()
	w.Node(eu).Start()
	v.up(eu)
	w.awaitAgreement("after its return")
	t.Logf("all agree %s after the start of the one that was away", time.Since(began).Round(time.Millisecond))
	for _, service := range []string{"orders", "users", "old-" + string(us), "new-" + string(us), "old-" + string(eu)} {
		cluster.Within(t, patience, "the same rows everywhere", func() error { return w.sameRows(service) })
	}
	v.verdict()
}

// P6 and catalogue row 52: two regions of one name refuse each other at the handshake, and say so.
func TestTwoRegionsOfOneName(t *testing.T) {
	t.Parallel() // it waits more than it works
	one, other := cluster.New(t, us), cluster.New(t, us)
	// Each takes the other for eu-west.
	one.Node(us).Extra = []string{"--peer", "eu-west=http://" + other.Node(us).Federation}
	other.Node(us).Extra = []string{"--peer", "eu-west=http://" + one.Node(us).Federation}
	one.StartAll()
	other.StartAll()
	for _, c := range []*cluster.Cluster{one, other} {
		h := c.Node(us).Client()
		fill(t, h, "orders", 3, nil)
		cluster.Within(t, patience, "the link says what is wrong", func() error {
			var info api.FederationInfo
			if _, err := h.Do(http.MethodGet, api.PathFederation, nil, &info); err != nil {
				return err
			}
			l, err := link(info, eu)
			if err != nil {
				return err
			}
			if l.State == "connected" || l.LastError == "" || l.Services > 0 || len(info.Readers) > 0 {
				return fmt.Errorf("%+v, read by %+v", l, info.Readers)
			}
			t.Logf("the link says: %s", l.LastError)
			return nil
		})
		cluster.Within(t, patience, "an event says so", func() error {
			var told api.EventList
			_, err := h.Do(http.MethodGet, api.PathEvents+"?kind="+string(api.EventDuplicate), nil, &told)
			if err == nil && (len(told.Events) == 0 || told.Events[0].Subject != string(us) || told.Events[0].Cause.Kind != api.BecauseOurName) {
				err = fmt.Errorf("%+v", told.Events)
			}
			return err
		})
		var list api.RegionList
		if _, err := h.Do(http.MethodGet, api.PathRegions, nil, &list); err != nil {
			t.Fatal(err)
		}
		for _, r := range list.Regions {
			if !r.Self && r.Services > 0 {
				t.Errorf("P6: %s was merged with its namesake: %+v", us, r)
			}
		}
	}
}
