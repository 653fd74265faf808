package sdktest_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/sdktest"
)

// Minutes of failure in a bubble: the region's registry dies, its instances die, callers go to
// the next region, and come home.
func TestAWholeRegionDiesAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewMemoryWorld(t, "eu-west", "us-east", "ap-south")
		eu, us := w.Region("eu-west"), w.Region("us-east")
		home, far := eu.Serve("orders", hello("eu")), us.Serve("orders", hello("us"))
		w.Region("ap-south").Serve("orders", hello("ap"))
		c := eu.Client()
		web := &http.Client{Transport: c.Transport(w.Transport())}
		from := func(want string) {
			t.Helper()
			for range 5 {
				if who, err := call(t, web, "http://orders/"); err != nil || who != want {
					t.Fatalf("served by %q (%v), not %s", who, err, want)
				}
			}
		}
		from("eu")
		eu.Kill()
		time.Sleep(time.Minute)
		from("eu") // P10: the control plane is not the data plane
		home.Kill()
		from("us") // the nearer of the two
		far.Hang()
		from("ap")
		eu.Heal()
		home.Heal()
		far.Heal()
		time.Sleep(2 * time.Minute) // breakers, and the fail-back ramp
		from("eu")
	})
}

// A cut link lets knowledge grow old, and nothing else.
func TestCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewMemoryWorld(t, "eu-west", "us-east")
		eu, us := w.Region("eu-west"), w.Region("us-east")
		us.Serve("orders", hello("us"))
		c := eu.Client()
		resolve := func() api.Resolution {
			t.Helper()
			res, err := c.Resolve(t.Context(), "orders")
			if err != nil {
				t.Fatal(err)
			}
			return res
		}
		view := func(res api.Resolution) api.Origin {
			for _, o := range res.Views {
				if o.Region == "us-east" {
					return o
				}
			}
			return api.Origin{}
		}
		if res := resolve(); res.Decision.Reason != api.ReasonLocalAbsent || view(res).State != api.AgeFresh {
			t.Fatalf("%+v", res)
		}
		w.Cut("us-east", "eu-west")
		us.Serve("orders", hello("us-2")) // nobody here hears of it
		time.Sleep(40 * time.Second)
		if res := resolve(); len(res.Endpoints) != 1 || view(res).State != api.AgeSuspect || view(res).AgeMS < 39_000 {
			t.Fatalf("%+v", res)
		}
		w.Heal("eu-west", "us-east")
		time.Sleep(6 * time.Second)
		if res := resolve(); len(res.Endpoints) != 2 || view(res).State != api.AgeFresh {
			t.Fatalf("%+v", res)
		}
	})
}

// Drains and policies steer callers, a region's drain of itself those of all regions.
func TestSteering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewMemoryWorld(t, "eu-west", "us-east", "ap-south")
		for _, r := range []api.Region{"eu-west", "us-east", "ap-south"} {
			w.Region(r).Serve("orders", hello(string(r)))
		}
		c := w.Region("eu-west").Client()
		serves := func(want api.Region) {
			t.Helper()
			synctest.Wait()
			p, err := c.Pick(t.Context(), "orders")
			if err != nil || p.Endpoint.Region != want {
				t.Fatalf("%s (%v), not %s", p.Endpoint.Region, err, want)
			}
			p.Done(nil)
		}
		serves("eu-west")
		w.Region("eu-west").Drain("eu-west", 100)
		serves("us-east")
		w.Region("us-east").Drain("us-east", 100) // its own word, heard here
		serves("ap-south")
		w.Region("eu-west").SetPolicy("orders", api.Policy{Allowed: []api.Region{"us-east"}})
		serves("us-east")
		w.Region("eu-west").RemovePolicy("orders")
		serves("ap-south")
		w.Region("us-east").Drain("us-east", 0)
		time.Sleep(time.Minute) // the ramp
		serves("us-east")
		w.SetDistance("eu-west", "ap-south", 5*time.Millisecond)
		time.Sleep(time.Minute)
		serves("ap-south")
	})
}

// Heartbeats that stop make an instance overdue, and on wish remove it; a paused registry
// gives everybody a whole TTL (P2).
func TestHeartbeatsStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := sdktest.NewMemoryWorld(t, "eu-west").Region("eu-west")
		forever := r.Register(nearside.Registration{Service: "orders", ID: "kept", Address: "10.0.0.1", Port: 1, TTL: time.Second})
		cfg := r.Config()
		c, err := nearside.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		reg, err := c.Register(t.Context(), nearside.Registration{Service: "orders", ID: "alive", Address: "10.0.0.2", Port: 1, TTL: 3 * time.Second, DrainDelay: -1})
		if err != nil {
			t.Fatal(err)
		}
		r.EvictOverdue(true)
		time.Sleep(time.Minute)
		if n := len(r.Instances("orders")); n != 2 {
			t.Fatal(n, "instances with heartbeats")
		}
		r.Hang()
		time.Sleep(time.Minute)
		if n := len(r.Instances("orders")); n != 2 {
			t.Fatal(n, "instances while nobody judges")
		}
		r.Heal()
		time.Sleep(3 * time.Second)
		if n := len(r.Instances("orders")); n != 2 {
			t.Fatal(n, "instances within a TTL of the pause")
		}
		time.Sleep(10 * time.Second)
		r.FailWrites(api.CodeUnavailable, time.Second)
		r.EvictOverdue(false)
		time.Sleep(5 * time.Second)
		if list := r.Instances("orders"); len(list) != 2 || !list[0].Overdue || list[1].Overdue || list[1].ID != forever.ID() {
			t.Fatalf("%+v", list)
		}
		r.EvictOverdue(true)
		time.Sleep(time.Second)
		if list := r.Instances("orders"); len(list) != 1 || list[0].ID != forever.ID() {
			t.Fatalf("%+v", list)
		}
		r.FailWrites("", 0)
		time.Sleep(10 * time.Second)
		if n := len(r.Instances("orders")); n != 2 || reg.Err() != nil {
			t.Fatal(n, reg.Err())
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// P4, P5: a watch that wants to go on from what the registry forgot is told so, and nothing
// is lost or doubled over breaks.
func TestForgottenHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := sdktest.NewMemoryWorld(t, "eu-west").Region("eu-west")
		r.Serve("orders", hello("a"))
		c := r.Client()
		count := func(want int) {
			t.Helper()
			res, err := c.Resolve(t.Context(), "orders")
			if err != nil || len(res.Endpoints) != want {
				t.Fatalf("%d endpoints, %v", len(res.Endpoints), err)
			}
		}
		count(1)
		r.Kill()
		b := r.Serve("orders", hello("b"))
		r.Heal()
		time.Sleep(5 * time.Second)
		count(2) // resumed
		r.Kill()
		b.Deregister()
		r.ForgetHistory()
		r.Heal()
		time.Sleep(time.Minute)
		count(1) // after a reset, and the hold of what was missing
	})
}

// Delay keeps answers back, and a program's own server listens on the world's network.
func TestDelayAndListen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewMemoryWorld(t, "eu-west")
		r := w.Region("eu-west")
		srv := &http.Server{Handler: hello("own")}
		l := w.Listen("orders-1.test:8080")
		go func() { _ = srv.Serve(l) }()
		defer func() { _ = srv.Close() }()
		r.Delay(300 * time.Millisecond)
		c := r.Client()
		began := time.Now()
		reg, err := c.Register(t.Context(), nearside.Registration{Service: "orders", Address: "orders-1.test", Port: 8080})
		if took := time.Since(began); err != nil || reg.Pending() || took != 600*time.Millisecond {
			t.Fatal(reg, err, took) // who it is, and the registration: two answers
		}
		r.Delay(0)
		if who, err := call(t, &http.Client{Transport: c.Transport(w.Transport())}, "http://orders/"); err != nil || who != "own" {
			t.Fatal(who, err)
		}
		if err := reg.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}
