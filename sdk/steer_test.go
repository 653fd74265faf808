package nearside

import (
	"context"
	"math"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/route"
)

// picked returns where so many picks go, as shares by region.
func picked(t *testing.T, c *Client, service string, n int) map[api.Region]float64 {
	t.Helper()
	got := map[api.Region]float64{}
	for range n {
		p, err := c.Pick(t.Context(), service)
		if err != nil {
			t.Fatal(err)
		}
		p.Done(nil)
		got[p.Endpoint.Region] += 1 / float64(n)
	}
	return got
}

func wantShares(t *testing.T, when string, got map[api.Region]float64, want map[api.Region]float64) {
	t.Helper()
	for _, r := range []api.Region{"us", "eu", "ap"} {
		if math.Abs(got[r]-want[r]) > 0.011 {
			t.Errorf("%s: %v, want %v", when, got, want)
			return
		}
	}
}

func (w *world) three() {
	for name, r := range w.regions {
		for _, id := range []string{"a", "b", "c"} {
			r.put("orders", string(name)+id, "h:80", nil)
		}
	}
}

// A drain that arrives moves the traffic at once, step by step and back, and whoever told it:
// home for itself or for another region.
func TestDrainMovesTraffic(t *testing.T) {
	for _, b := range []Balancer{RoundRobin, LeastRequest} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "us", "eu", "ap")
			w.three()
			us := w.regions["us"]
			c := w.client("us", func(cfg *Config) { cfg.Balancer, cfg.Policy.FailbackRamp = b, -1 })
			n := 1000
			if b == LeastRequest {
				n = 20_000
			}
			wantShares(t, "before", picked(t, c, "orders", n), map[api.Region]float64{"us": 1})
			for _, percent := range []float64{10, 50, 99, 100, 30, 0} {
				us.drain("us", percent)
				synctest.Wait()
				left := percent / 100
				wantShares(t, "us drained", picked(t, c, "orders", n), map[api.Region]float64{"us": 1 - left, "eu": left})
			}
			us.drain("eu", 100)
			us.drain("us", 60)
			synctest.Wait()
			wantShares(t, "eu drained too", picked(t, c, "orders", n), map[api.Region]float64{"us": 0.4, "ap": 0.6})
			res, err := c.Resolve(t.Context(), "orders")
			if err != nil || res.Decision.Reason != api.ReasonRegionDrained || res.Decision.Panic {
				t.Errorf("%+v %v", res.Decision, err)
			}
			// Nothing undrained is left: the wish yields.
			us.drain("us", 100)
			us.drain("ap", 100)
			synctest.Wait()
			wantShares(t, "all drained", picked(t, c, "orders", n), map[api.Region]float64{"us": 1})
		})
	}
}

// Traffic goes away at once, and comes back by and by: a 30th of it each second, as the default
// is, and all of it in the end. The policy may say otherwise.
func TestTrafficComesBackByAndBy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		w.three()
		us := w.regions["us"]
		c := w.client("us", nil)
		us.drain("us", 100)
		wantShares(t, "away", picked(t, c, "orders", 1000), map[api.Region]float64{"eu": 1})
		us.drain("us", 0)
		synctest.Wait()
		last := 0.0
		for second := 1; second <= 33; second++ {
			time.Sleep(time.Second)
			got := picked(t, c, "orders", 3000)["us"]
			if got > float64(second+1)/30+0.001 || got < float64(second-1)/30-0.001 && second < 31 || got < last-0.001 {
				t.Errorf("after %d s %.3f are home again, before %.3f", second, got, last)
			}
			last = got
		}
		if last < 0.9999 {
			t.Errorf("in the end %.3f are home", last)
		}
		// Half way back it is drained again, and away at once.
		us.drain("us", 100)
		synctest.Wait()
		us.drain("us", 0)
		time.Sleep(15 * time.Second)
		if got := picked(t, c, "orders", 1000)["us"]; got < 0.4 || got > 0.6 {
			t.Errorf("half way: %.3f", got)
		}
		us.drain("us", 90)
		synctest.Wait()
		wantShares(t, "drained again", picked(t, c, "orders", 1000), map[api.Region]float64{"us": 0.1, "eu": 0.9})
		atOnce := api.Duration(0)
		us.rule("orders", &api.Policy{FailbackRamp: &atOnce})
		us.drain("us", 0)
		synctest.Wait()
		wantShares(t, "at once", picked(t, c, "orders", 1000), map[api.Region]float64{"us": 1})
	})
}

// What a snapshot said is no traffic that would have to be brought back.
func TestAfterASnapshotHomeServesAtOnce(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		w.regions["eu"].put("orders", "far", "h:80", nil)
		c := w.client("us", func(cfg *Config) { cfg.SnapshotDir = dir })
		wantShares(t, "before", picked(t, c, "orders", 10), map[api.Region]float64{"eu": 1})
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		w.regions["us"].put("orders", "near", "h:80", nil)
		w.net.kill(w.regions["us"].addr, w.regions["eu"].addr)
		c = w.client("us", func(cfg *Config) { cfg.SnapshotDir = dir })
		wantShares(t, "from the snapshot", picked(t, c, "orders", 10), map[api.Region]float64{"eu": 1})
		w.regions["us"].start()
		time.Sleep(5 * time.Second)
		wantShares(t, "home answers", picked(t, c, "orders", 10), map[api.Region]float64{"us": 1})
	})
}

// Few calls in a row are shared out too: no tier gets its whole part at once.
func TestSharesAreEvenAlsoOfFewCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		w.three()
		w.regions["us"].drain("us", 25)
		c := w.client("us", nil)
		for range 50 {
			far, ids := 0, map[api.InstanceID]int{}
			for range 24 {
				p, err := c.Pick(t.Context(), "orders")
				if err != nil {
					t.Fatal(err)
				}
				p.Done(nil)
				ids[p.Endpoint.ID]++
				if p.Endpoint.Region == "eu" {
					far++
				}
			}
			if far < 5 || far > 7 || len(ids) != 6 {
				t.Fatalf("%d of 24 went to the region that should get a quarter: %v", far, ids)
			}
		}
	})
}

// P10: with home's registry dead its drain goes on, and a drain that another region's
// registry tells arrives, also of home itself.
func TestDrainWhileHomeIsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu", "ap")
		w.three()
		w.regions["us"].drain("us", 40)
		c := w.client("us", func(cfg *Config) { cfg.Policy.FailbackRamp = -1 })
		wantShares(t, "before", picked(t, c, "orders", 1000), map[api.Region]float64{"us": 0.6, "eu": 0.4})
		w.net.kill(w.regions["us"].addr)
		time.Sleep(200 * time.Millisecond)
		wantShares(t, "home dead", picked(t, c, "orders", 1000), map[api.Region]float64{"us": 0.6, "eu": 0.4})
		w.regions["eu"].drain("us", 100)
		time.Sleep(4 * time.Second)
		wantShares(t, "eu evacuates us", picked(t, c, "orders", 1000), map[api.Region]float64{"eu": 1})
		w.regions["us"].drain("us", 0)
		w.regions["us"].start()
		time.Sleep(4 * time.Second)
		wantShares(t, "home again", picked(t, c, "orders", 1000), map[api.Region]float64{"us": 1})
	})
}

// The home region's policy comes with the view, before the first pick, and at each change; the
// program's own rule only narrows it. Another region's policy is none of ours.
func TestPolicyIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu", "ap")
		for _, r := range []api.Region{"eu", "ap"} {
			w.regions[r].put("orders", string(r), "h:80", nil)
		}
		us := w.regions["us"]
		us.rule("orders", &api.Policy{Order: []api.Region{"ap"}})
		c := w.client("us", func(cfg *Config) { cfg.Policy.FailbackRamp = -1 })
		own := w.client("us", func(cfg *Config) { cfg.Policy = route.Policy{Allowed: []api.Region{"eu"}} })
		wantShares(t, "ordered", picked(t, c, "orders", 10), map[api.Region]float64{"ap": 1})
		wantShares(t, "the program allows eu", picked(t, own, "orders", 10), map[api.Region]float64{"eu": 1})
		us.rule("orders", &api.Policy{Allowed: []api.Region{"ap", "us"}})
		synctest.Wait()
		wantShares(t, "allowed", picked(t, c, "orders", 10), map[api.Region]float64{"ap": 1})
		if _, err := own.Pick(t.Context(), "orders"); err == nil {
			t.Error("residency: both must allow a region, and none is allowed by both")
		}
		res, err := c.Resolve(t.Context(), "orders")
		if err != nil || res.Policy == nil || len(res.Endpoints) != 1 {
			t.Errorf("%+v %v", res, err)
		}
		// While home is away a stranger tells its own policy, which is for its own callers.
		w.regions["eu"].rule("orders", &api.Policy{Allowed: []api.Region{"eu"}})
		w.net.kill(us.addr)
		time.Sleep(4 * time.Second)
		wantShares(t, "home dead", picked(t, c, "orders", 10), map[api.Region]float64{"ap": 1})
		us.mu.Lock()
		delete(us.policies, "orders")
		us.mu.Unlock()
		us.start()
		time.Sleep(4 * time.Second)
		wantShares(t, "the policy was taken back meanwhile", picked(t, c, "orders", 10), map[api.Region]float64{"eu": 1})
	})
}

// Policies and drains survive in the snapshot: a start without any registry keeps to them.
func TestSnapshotKeepsPoliciesAndDrains(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu", "ap")
		w.three()
		us := w.regions["us"]
		us.drain("us", 100)
		us.rule("orders", &api.Policy{Allowed: []api.Region{"us", "ap"}})
		c := w.client("us", func(cfg *Config) { cfg.SnapshotDir = dir })
		wantShares(t, "before", picked(t, c, "orders", 10), map[api.Region]float64{"ap": 1})
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		w.killRegistries()
		c = w.client("us", func(cfg *Config) { cfg.SnapshotDir = dir })
		wantShares(t, "from the snapshot", picked(t, c, "orders", 10), map[api.Region]float64{"ap": 1})
	})
}

// Where no watch can be held, polls bring drains and policies.
func TestPollsBringDrainsAndPolicies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu", "ap")
		w.three()
		us := w.regions["us"]
		us.noWatch = http.StatusTooManyRequests
		c := w.client("us", nil)
		wantShares(t, "before", picked(t, c, "orders", 10), map[api.Region]float64{"us": 1})
		us.drain("us", 50)
		us.rule("orders", &api.Policy{Allowed: []api.Region{"us", "ap"}})
		time.Sleep(7 * time.Second)
		wantShares(t, "after a poll", picked(t, c, "orders", 1000), map[api.Region]float64{"us": 0.5, "ap": 0.5})
		// What is drained wholly is not in the answers; it is not forgotten for that.
		us.drain("us", 100)
		time.Sleep(7 * time.Second)
		wantShares(t, "drained", picked(t, c, "orders", 10), map[api.Region]float64{"ap": 1})
		s, _ := c.service("orders")
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.view.Regions) != 2 {
			t.Errorf("home is forgotten: %+v", s.view.Regions)
		}
	})
}

// A call that fails in a tier is repeated in the next ones, wherever it began, and no call
// fails while a drain moves.
func TestCallsDuringADrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		w.run("us", "shop", "a")
		w.run("us", "shop", "b")
		far := w.run("eu", "shop", "eu")
		us := w.regions["us"]
		web := w.web(w.client("us", nil))
		ctx, stop := context.WithCancel(t.Context())
		go func() {
			for percent := 0.0; ctx.Err() == nil; percent = math.Mod(percent+10, 110) {
				us.drain("us", percent)
				sleep(ctx, 200*time.Millisecond)
			}
		}()
		check(t, load(t, web, "http://shop/", 50, 5*time.Second))
		far.set(func(p *program) { p.status = http.StatusServiceUnavailable })
		check(t, load(t, web, "http://shop/", 50, 5*time.Second))
		stop()
		synctest.Wait()
	})
}
