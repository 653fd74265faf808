package nearside

import (
	"context"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// pickedBy returns what share of n picks each instance gets.
func pickedBy(t *testing.T, c *Client, n int) map[api.InstanceID]float64 {
	t.Helper()
	got := map[api.InstanceID]float64{}
	for range n {
		p, err := c.Pick(t.Context(), "orders")
		if err != nil {
			t.Fatal(err)
		}
		p.Done(nil)
		got[p.Endpoint.ID] += 1 / float64(n)
	}
	return got
}

// A new instance gets a tenth of its weight, more each second, and all of it after
// Config.SlowStart; by every balancer that shares by weight. What was there at the start of
// the client is not new, whenever that is.
func TestNewInstancesStartSlowly(t *testing.T) {
	for _, b := range []Balancer{RoundRobin, LeastRequest, PeakEWMA{}} {
		t.Run(fmt.Sprintf("%T %v", b, b), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "us")
				us := w.regions["us"]
				for _, id := range []string{"a", "b", "c"} {
					us.put("orders", id, id+":80", nil)
				}
				us.put("orders", "d", "d:80", func(i *api.Instance) { i.Status = api.StatusStarting })
				c := w.client("us", func(cfg *Config) { cfg.Balancer, cfg.SlowStart = b, time.Minute })
				check := func(when string, id api.InstanceID, of, weight float64) {
					t.Helper()
					want := weight / (of + weight)
					if got := pickedBy(t, c, 8000)[id]; math.Abs(got-want) > 0.02 {
						t.Errorf("%s: %s got %.3f of the calls, want %.3f", when, id, got, want)
					}
				}
				check("at the client's start", "a", 2, 1)
				us.put("orders", "d", "d:80", nil) // passing now
				synctest.Wait()
				check("new", "d", 3, 0.1)
				time.Sleep(30*time.Second + keeperTick)
				check("half a minute later", "d", 3, 0.517)
				time.Sleep(30 * time.Second)
				check("a minute later", "d", 3, 1)
				us.put("orders", "a", "elsewhere:80", nil)
				synctest.Wait()
				check("moved to another address", "a", 3, 0.1)
				us.put("orders", "b", "b:80", func(i *api.Instance) { i.Status = api.StatusCritical })
				synctest.Wait()
				us.put("orders", "b", "b:80", nil)
				time.Sleep(time.Minute + keeperTick)
				check("all is warm", "b", 3, 1)
				if a := answerOf(t, c, "orders"); len(a.warm) > 0 {
					t.Error("the client still decides anew each second")
				}
			})
		})
	}
}

// Who watches the service hears of a new instance once, and not of each second of its start.
func TestSlowStartIsNoNewsToWatchers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		w.regions["us"].put("orders", "a", "a:80", nil)
		c := w.client("us", func(cfg *Config) { cfg.SlowStart = time.Minute })
		pickedBy(t, c, 1)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		told := make(chan int, 1000)
		go func() { _ = c.Watch(ctx, "orders", func(r api.Resolution) { told <- len(r.Endpoints) }) }()
		synctest.Wait()
		w.regions["us"].put("orders", "b", "b:80", nil)
		time.Sleep(2 * time.Minute)
		cancel()
		synctest.Wait()
		if n := len(told); n != 2 {
			t.Errorf("told %d times", n)
		}
	})
}

func answerOf(t *testing.T, c *Client, service string) *answer {
	t.Helper()
	s, err := c.service(service)
	if err != nil {
		t.Fatal(err)
	}
	return s.answer.Load()
}

// Where there is no slow start, new instances get all at once; a service may have its own.
func TestSlowStartIsOffUnlessAskedFor(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"default": func(*Config) {},
		"not for orders": func(cfg *Config) {
			cfg.SlowStart, cfg.Services = time.Minute, map[string]ServiceConfig{"orders": {SlowStart: -1}}
		},
		"only for others": func(cfg *Config) { cfg.Services = map[string]ServiceConfig{"users": {SlowStart: time.Minute}} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "us")
				w.regions["us"].put("orders", "a", "a:80", nil)
				c := w.client("us", change)
				pickedBy(t, c, 2)
				w.regions["us"].put("orders", "b", "b:80", nil)
				synctest.Wait()
				if got := pickedBy(t, c, 100)["b"]; math.Abs(got-0.5) > 0.01 {
					t.Errorf("%.3f", got)
				}
			})
		})
	}
}

// A slow start holds across tiers: the first instance of the caller's zone does not get what
// the zone's share would be, but what an instance that starts slowly gets; the rest of the
// region has the rest.
func TestSlowStartHoldsForANewZone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		us := w.regions["us"]
		for _, id := range []string{"a", "b", "c"} {
			us.put("orders", id, id+":80", func(i *api.Instance) { i.Zone = "z2" })
		}
		w.regions["eu"].put("orders", "far", "far:80", nil)
		c := w.client("us", func(cfg *Config) { cfg.Zone, cfg.SlowStart = "z1", time.Minute })
		if got := pickedBy(t, c, 300); math.Abs(got["a"]-1.0/3) > 0.01 {
			t.Fatal(got)
		}
		us.put("orders", "mine", "mine:80", func(i *api.Instance) { i.Zone = "z1" })
		synctest.Wait()
		for _, step := range []struct {
			after time.Duration
			want  float64
		}{{0, 0.1}, {30*time.Second + keeperTick, 0.517}, {30 * time.Second, 1}} {
			time.Sleep(step.after)
			got := pickedBy(t, c, 5000)
			if math.Abs(got["mine"]-step.want) > 0.015 || got["far"] > 0 || math.Abs(got["a"]-(1-step.want)/3) > 0.01 {
				t.Errorf("%s later: %v, want %v for the new one", step.after, got, step.want)
			}
			ex, err := c.Explain(t.Context(), "orders")
			if err != nil || math.Abs(ex.Decision.Tiers[0].Weight-step.want) > 0.015 {
				t.Errorf("explain says %+v, %v", ex.Decision.Tiers, err)
			}
		}
	})
}

// And for a nearer region: where all of its instances are new, traffic comes back to it in the
// time of a slow start, if that is longer than the policy's ramp.
func TestSlowStartHoldsForARegionThatIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		w.regions["us"].put("users", "u", "u:80", nil) // home answers, and has no orders yet
		for _, id := range []string{"x", "y"} {
			w.regions["eu"].put("orders", id, id+":80", nil)
		}
		c := w.client("us", func(cfg *Config) { cfg.SlowStart, cfg.Policy.FailbackRamp = 2*time.Minute, -1 })
		pickedBy(t, c, 10)
		w.regions["us"].put("orders", "home", "home:80", nil)
		synctest.Wait()
		for second := 0; second <= 121; second += 20 {
			got := pickedBy(t, c, 3000)["home"]
			if want := min(float64(second)/120, 1); math.Abs(got-want) > 0.03 {
				t.Errorf("after %d s: %.3f at home, want %.3f", second, got, want)
			}
			time.Sleep(20 * time.Second)
		}
		if got := pickedBy(t, c, 100)["home"]; got < 0.999 {
			t.Errorf("in the end: %.3f at home", got)
		}
	})
}
