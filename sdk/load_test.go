package nearside

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// used says how much a service of the region is used, with the next bookmarks and to the others.
func (r *fakeRegion) used(service api.ServiceName, percent int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.loads == nil {
		r.loads = map[api.ServiceName]int{}
	}
	r.loads[service] = percent
	key := api.ServiceKey{Namespace: api.DefaultNamespace, Service: service}
	sum := r.summaryLocked(key)
	o := r.originLocked()
	for _, other := range r.w.regions {
		if other != r {
			go other.hear(key, o, sum)
		}
	}
}

// P8: what home's registry tells of its load moves a part of the calls, by and by, to whoever has
// something to spare; what it no longer tells leaves the calls where they are, and a registry
// that knows nothing of loads is as ever.
func TestLoadMovesTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu", "ap")
		w.three()
		us, eu := w.regions["us"], w.regions["eu"]
		c := w.client("us", nil)
		home := func() float64 { return picked(t, c, "orders", 1000)["us"] }
		wantShares(t, "nothing is told", picked(t, c, "orders", 1000), map[api.Region]float64{"us": 1})
		eu.used("orders", 60)
		us.used("orders", 150)
		last := 1.0
		for second := range 12 {
			time.Sleep(time.Second)
			synctest.Wait()
			now := home()
			if last-now > 0.2+0.011 {
				t.Errorf("second %d: home had %.2f and has %.2f", second, last, now)
			}
			last = now
		}
		wantShares(t, "home is used to 150 %", picked(t, c, "orders", 1000), map[api.Region]float64{"us": 0.5, "eu": 0.2, "ap": 0.3})
		ex, err := c.Explain(t.Context(), "orders")
		if err != nil || ex.Decision.Reason != api.ReasonSpill || ex.Loads["us"] != 150 || ex.Loads["eu"] != 60 || ex.Loads["ap"] != 0 {
			t.Errorf("%+v %v %v", ex.Decision, ex.Loads, err)
		}
		us.used("orders", 75)
		time.Sleep(time.Minute)
		synctest.Wait()
		if now := home(); math.Abs(now-0.5) > 0.011 {
			t.Errorf("at its aim home keeps %.2f", now)
		}
		us.used("orders", 30)
		last = home()
		for second := range 60 {
			time.Sleep(time.Second)
			synctest.Wait()
			now := home()
			if now-last > 1.0/30+0.011 {
				t.Errorf("second %d: home had %.2f and has %.2f", second, last, now)
			}
			last = now
		}
		wantShares(t, "home is idle", picked(t, c, "orders", 1000), map[api.Region]float64{"us": 1})
	})
}

// A registry that dies while its service spills leaves the calls where they are (P10).
func TestLoadOfASilentRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		w.three()
		us := w.regions["us"]
		c := w.client("us", nil)
		picked(t, c, "orders", 1)
		us.used("orders", 100)
		time.Sleep(15 * time.Second)
		synctest.Wait()
		want := map[api.Region]float64{"us": 0.75, "eu": 0.25}
		wantShares(t, "home is used to 100 %", picked(t, c, "orders", 1000), want)
		us.used("orders", 75)
		time.Sleep(15 * time.Second)
		synctest.Wait()
		w.net.kill(us.addr)
		for range 5 {
			time.Sleep(time.Minute)
			synctest.Wait()
			wantShares(t, "home is silent", picked(t, c, "orders", 1000), want)
		}
	})
}

// Traffic that was away for long, with nothing to decide meanwhile, comes back as slowly as any.
func TestFailbackAfterALongQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu", "ap")
		w.three()
		us := w.regions["us"]
		c := w.client("us", nil)
		us.drain("us", 100)
		wantShares(t, "drained", picked(t, c, "orders", 100), map[api.Region]float64{"eu": 1})
		time.Sleep(10 * time.Minute)
		us.drain("us", 0)
		synctest.Wait()
		for second := 1; second <= 10; second++ {
			if now := picked(t, c, "orders", 1000)["us"]; now > float64(second)/30+0.04 {
				t.Fatalf("second %d: %.2f is back", second, now)
			}
			time.Sleep(time.Second)
			synctest.Wait()
		}
		time.Sleep(30 * time.Second)
		wantShares(t, "back", picked(t, c, "orders", 1000), map[api.Region]float64{"us": 1})
	})
}
