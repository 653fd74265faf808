package mesh

import (
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/federation/internal/regiontest"
	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/sdk/api"
)

// row returns what is told of a service of another region.
func (r *region) row(p api.Region, service string) *api.Summary {
	r.t.Helper()
	for _, x := range r.mesh.Lookup(regiontest.Key(service)) {
		if x.Origin.Region == p {
			return x.Summary
		}
	}
	r.t.Fatalf("%s knows no %s in %s", r.name, service, p)
	return nil
}

// uses says that callers are sent to a region, each second for a while.
func (r *region) uses(p api.Region, service string, times int) {
	for range times {
		r.mesh.Serving(regiontest.Key(service), p)
		after(time.Second)
	}
}

// P10, P11: while a service is served from another region all of its instances are known, by changes
// as they come; when its federation dies the fail-over set is what is known, at once; and it ends with the use.
func TestDetailOfAServiceServedFromAnotherRegion(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us := newRegion(t, n, "us-east", "eu-west", "ap-south")
		eu := newRegion(t, n, "eu-west", "us-east", "ap-south")
		ap := newRegion(t, n, "ap-south", "us-east", "eu-west")
		eu.source.Set(100, "orders", "payments")
		eu.source.Set(5, "stock")
		us.start()
		defer us.stop()
		ap.start()
		defer ap.stop()
		eu.start()
		us.converged(eu)
		ap.converged(eu)
		if s := us.row("eu-west", "orders"); len(s.Endpoints) != api.MaxFailoverSet || s.Complete {
			t.Fatalf("%d endpoints before any use", len(s.Endpoints))
		}
		us.uses("eu-west", "orders", 1)
		after(10 * time.Second)
		if s := us.row("eu-west", "orders"); s.Complete || us.link("eu-west").Details != 0 {
			t.Fatalf("a single use was enough")
		}
		changed := us.mesh.Changed()
		us.uses("eu-west", "orders", 2)
		select {
		case <-changed:
		default:
			t.Error("nobody was woken")
		}
		s := us.row("eu-west", "orders")
		if len(s.Endpoints) != 100 || !s.Complete || s.Total != 100 || s.Passing != 100 || us.row("eu-west", "orders") != s {
			t.Fatalf("%d endpoints, %+v", len(s.Endpoints), us.link("eu-west"))
		}
		if us.link("eu-west").Details != 1 || us.row("eu-west", "payments").Complete || ap.row("eu-west", "orders").Complete {
			t.Errorf("more than what is used is known: %+v", us.link("eu-west"))
		}
		if s.Endpoints[0].Region != "eu-west" || s.Key() != regiontest.Key("orders") || len(s.Zones) != 2 {
			t.Errorf("%+v", s)
		}
		// Changes come as they do to rows.
		eu.source.Set(120, "orders")
		us.until("120 of orders", func() bool { s := us.row("eu-west", "orders"); return s.Complete && len(s.Endpoints) == 120 })
		// A new epoch is no reason to fall back for longer than the next word takes.
		if err := eu.source.RaiseEpoch(t.Context(), eu.source.Version().Epoch.Generation); err != nil {
			t.Fatal(err)
		}
		us.converged(eu)
		us.until("120 of orders again", func() bool { s := us.row("eu-west", "orders"); return s.Complete && len(s.Endpoints) == 120 })
		// Nothing usable: what may be tried all the same is in the row.
		dead := regiontest.Instances("eu-west", "orders", 60)
		for _, i := range dead {
			i.Status = api.StatusCritical
		}
		eu.source.SetInstances("orders", dead)
		us.until("60 that are critical", func() bool {
			s := us.row("eu-west", "orders")
			return s.Passing == 0 && len(s.Endpoints) == api.MaxFailoverSet
		})
		eu.source.Set(100, "orders")
		us.until("100 of orders", func() bool { return len(us.row("eu-west", "orders").Endpoints) == 100 })
		// Dead: the fail-over set stays, at once.
		changed = us.mesh.Changed()
		eu.stop()
		synctest.Wait()
		if s := us.row("eu-west", "orders"); len(s.Endpoints) != api.MaxFailoverSet || s.Complete || s.Passing != 100 {
			t.Fatalf("%d endpoints, complete %t, of a dead region", len(s.Endpoints), s.Complete)
		}
		select {
		case <-changed:
		default:
			t.Error("nobody was woken when the region died")
		}
		eu.start()
		defer eu.stop()
		us.uses("eu-west", "orders", 10)
		if s := us.row("eu-west", "orders"); len(s.Endpoints) != 100 {
			t.Fatalf("%d endpoints of a region that is back", len(s.Endpoints))
		}
		// Silent: no longer than a peer may be.
		eu.host.stalled.Store(true)
		after(5 * time.Second)
		if s := us.row("eu-west", "orders"); s.Complete {
			t.Fatal("a silent region's detail is still told")
		}
		eu.host.stalled.Store(false)
		us.converged(eu)
		us.uses("eu-west", "orders", 10)
		if !us.row("eu-west", "orders").Complete {
			t.Fatalf("not again: %+v", us.link("eu-west"))
		}
		// Fail-back is complete: a minute later it ends.
		after(55 * time.Second)
		if !us.row("eu-west", "orders").Complete {
			t.Fatal("dropped too early")
		}
		after(6 * time.Second)
		if s := us.row("eu-west", "orders"); s.Complete || us.link("eu-west").Details != 0 {
			t.Fatalf("not dropped: %+v", us.link("eu-west"))
		}
	})
}

// P10: an origin that says no, because it is older or the service too large, is asked again each minute.
func TestDetailOfAnOriginThatHasNone(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us, eu := newRegion(t, n, "us-east", "eu-west"), newRegion(t, n, "eu-west", "us-east")
		var asked atomic.Int64
		eu.front = func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == peer.PathDetail {
					asked.Add(1)
					r.URL.Path = "/peer/v1/of-later"
				}
				h.ServeHTTP(w, r)
			})
		}
		eu.source.Set(100, "orders")
		us.start()
		defer us.stop()
		eu.start()
		defer eu.stop()
		us.converged(eu)
		us.uses("eu-west", "orders", 190)
		if s := us.row("eu-west", "orders"); len(s.Endpoints) != api.MaxFailoverSet || s.Complete {
			t.Errorf("%d endpoints", len(s.Endpoints))
		}
		if n := asked.Load(); n != 4 {
			t.Errorf("asked %d times in 190 s", n)
		}
		if n := us.logs.count("does not tell a service whole"); n != 1 {
			t.Errorf("%d warnings", n)
		}
	})
}

// I7: what is held back shows with the row, whatever the detail says.
func TestDetailDoesNotUndoTheGuard(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us, eu := newRegion(t, n, "us-east", "eu-west"), newRegion(t, n, "eu-west", "us-east")
		names := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
		eu.source.Set(100, names...)
		us.start()
		defer us.stop()
		eu.start()
		defer eu.stop()
		us.converged(eu)
		us.uses("eu-west", "a", 4)
		if !us.row("eu-west", "a").Complete {
			t.Fatalf("%+v", us.link("eu-west"))
		}
		eu.source.Set(1, names...)
		us.until("held back", func() bool { return us.link("eu-west").Held > 0 })
		after(time.Second)
		if s := us.row("eu-west", "a"); len(s.Endpoints) != api.MaxFailoverSet {
			t.Fatalf("%d endpoints of a service that is held back", len(s.Endpoints))
		}
	})
}

// P10: a use that repeats itself costs no allocation.
func TestServingAllocatesNothing(t *testing.T) {
	r := newRegion(t, newNetwork(), "us-east", "eu-west")
	m, err := New(Config{Region: r.name, Source: r.source, Peers: r.peers, HTTPClient: r.client})
	if err != nil {
		t.Fatal(err)
	}
	key := regiontest.Key("orders")
	m.Serving(key, "eu-west")
	if n := testing.AllocsPerRun(100, func() { m.Serving(key, "eu-west") }); n > 0 {
		t.Errorf("%g allocations", n)
	}
}
