package sdktest_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/sdktest"
)

// share returns the part of n picks that goes to a region.
func share(t *testing.T, c *nearside.Client, service string, region api.Region, n int) float64 {
	t.Helper()
	there := 0
	for range n {
		p, err := c.Pick(t.Context(), service)
		if err != nil {
			t.Fatal(err)
		}
		if p.Endpoint.Region == region {
			there++
		}
		p.Done(nil)
	}
	return float64(there) / float64(n)
}

// What programs tell of their load reaches callers, in the region and elsewhere: a part of the
// calls goes where there is something to spare, and comes back when the load is gone, or when
// nobody tells it any more.
func TestProgramsThatAreBusySpill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := sdktest.NewMemoryWorld(t, "eu-west", "us-east")
		eu, us := world.Region("eu-west"), world.Region("us-east")
		us.Register(nearside.Registration{Service: "orders", Address: "10.1.0.1", Port: 80}).SetLoad(20)
		var load atomic.Int64
		load.Store(120)
		var busy []*nearside.Client
		for range 3 {
			c := eu.Client()
			busy = append(busy, c)
			if _, err := c.Register(t.Context(), nearside.Registration{
				Service: "orders", Address: "10.0.0.1", Port: 80, Load: func() int { return int(load.Load()) },
			}); err != nil {
				t.Fatal(err)
			}
		}
		caller := eu.Client()
		if s := share(t, caller, "orders", "us-east", 100); s != 0 {
			t.Fatalf("%.2f are spilled before anything is told", s)
		}
		time.Sleep(20 * time.Second)
		res, err := caller.Resolve(t.Context(), "orders")
		if err != nil || res.Loads["eu-west"] != 120 || res.Loads["us-east"] != 20 || res.Decision.Reason != api.ReasonSpill {
			t.Errorf("%v %v %v", res.Loads, res.Decision.Reason, err)
		}
		// A third as many instances as there are here, with room for 55 % more each.
		if s := share(t, caller, "orders", "us-east", 1000); s < 0.1 || s > 0.3 {
			t.Errorf("%.2f are spilled at 120 %%", s)
		}
		load.Store(10)
		time.Sleep(time.Minute)
		if s := share(t, caller, "orders", "us-east", 100); s != 0 {
			t.Errorf("%.2f are spilled at 10 %%", s)
		}
		load.Store(-1)
		time.Sleep(time.Minute)
		if res, err = caller.Resolve(t.Context(), "orders"); err != nil || res.Loads["eu-west"] != 0 || res.Loads["us-east"] != 20 {
			t.Errorf("nothing is told: %v %v", res.Loads, err)
		}
		for _, c := range busy {
			_ = c.Close()
		}
	})
}

// Serve's instances tell what the test says, and the answers of the registry have it too.
func TestSetLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := sdktest.NewMemoryWorld(t, "eu-west", "us-east")
		eu, us := world.Region("eu-west"), world.Region("us-east")
		near := eu.Register(nearside.Registration{Service: "orders", Address: "10.0.0.1", Port: 80, Capacity: 100})
		big := eu.Register(nearside.Registration{Service: "orders", Address: "10.0.0.2", Port: 80, Capacity: 300})
		caller := us.Client()
		loads := func() int {
			t.Helper()
			synctest.Wait()
			res, err := caller.Resolve(t.Context(), "orders")
			if err != nil {
				t.Fatal(err)
			}
			return res.Loads["eu-west"]
		}
		near.SetLoad(100)
		if l := loads(); l != 100 {
			t.Errorf("only one tells: %d", l)
		}
		big.SetLoad(20)
		if l := loads(); l != 40 {
			t.Errorf("by capacity: %d", l)
		}
		big.SetStatus(api.StatusCritical, "")
		if l := loads(); l != 100 {
			t.Errorf("of usable ones: %d", l)
		}
		near.SetLoad(-1)
		if l := loads(); l != 0 {
			t.Errorf("nobody tells: %d", l)
		}
	})
}
