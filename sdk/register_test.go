package nearside

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

func order(id string) Registration {
	return Registration{Service: "orders", ID: id, Address: "10.0.0.1", Port: 80, TTL: 9 * time.Second}
}

// P1: Register returns after the acknowledgement, beats three times a TTL, and Close
// drains before it deregisters.
func TestRegisterBeatsAndCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		us := w.regions["us"]
		c := w.client("us", nil)
		r, err := c.Register(t.Context(), order("a"))
		if err != nil || r.Pending() || us.stored("orders", "a") == nil {
			t.Fatal(err, r)
		}
		time.Sleep(90 * time.Second)
		beats := 0
		for _, what := range us.requests("a") {
			if what == "PUT heartbeat" {
				beats++
			}
		}
		if beats < 27 || beats > 33 {
			t.Errorf("%d beats in 10 TTLs", beats)
		}
		start := time.Now()
		if err := r.Close(t.Context()); err != nil || time.Since(start) < defaultDrainDelay {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		log := us.requests("a")
		tail := slices.DeleteFunc(log[len(log)-3:], func(what string) bool { return what == "PUT heartbeat" })
		if !slices.Equal(tail, []string{"PUT status", "DELETE"}) {
			t.Errorf("at the end: %v", tail)
		}
		if r.Close(t.Context()) != nil || c.Close() != nil {
			t.Error("closing again is no error")
		}
	})
}

// Client.Close takes registrations out, too.
func TestClientCloseDeregisters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		c := w.client("us", nil)
		if _, err := c.Register(t.Context(), order("a")); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil || w.regions["us"].stored("orders", "a") != nil {
			t.Error("still registered", err)
		}
	})
}

// Item 8 of the facts: a registration is taken up again after the registry lost it.
func TestRegistersAgainAfterLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		us := w.regions["us"]
		c := w.client("us", nil)
		r, err := c.Register(t.Context(), order("a"))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.SetStatus(t.Context(), api.StatusWarning, "disk nearly full"); err != nil {
			t.Fatal(err)
		}
		us.wipe()
		time.Sleep(4 * time.Second)
		if in := us.stored("orders", "a"); in == nil || in.Status != api.StatusWarning {
			t.Errorf("after an empty disk: %+v", in)
		}
		// The registry is away for longer than any TTL, and returns empty.
		w.net.kill(us.addr)
		time.Sleep(time.Minute)
		if r.Err() == nil {
			t.Error("Err should say that nobody answers")
		}
		us.wipe()
		us.start()
		time.Sleep(4 * time.Second)
		if in := us.stored("orders", "a"); in == nil || r.Err() != nil || r.Pending() {
			t.Errorf("after an outage: %+v %v", in, r.Err())
		}
	})
}

// A region whose epoch changed hears everything again, even if it knows the instance.
func TestRegistersAgainAfterAnEpochChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		us := w.regions["us"]
		c := w.client("us", nil)
		if _, err := c.Register(t.Context(), order("a")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		us.mu.Lock()
		us.epoch.Generation++
		us.heard["a"] = nil
		us.mu.Unlock()
		time.Sleep(4 * time.Second)
		if log := us.requests("a"); !slices.Contains(log, "PUT") {
			t.Errorf("%v", log)
		}
	})
}

// P9: a newer incarnation stops the older one for good; at the start one takes over what
// an earlier run left, once.
func TestIncarnations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		us := w.regions["us"]
		us.put("orders", "a", "old:80", func(i *api.Instance) { i.Incarnation = newIncarnation(time.Now()) + 1_000_000 })
		stored := us.stored("orders", "a").Incarnation
		c := w.client("us", nil)
		r, err := c.Register(t.Context(), order("a"))
		if err != nil || r.Incarnation() != stored+1 {
			t.Fatalf("%v, incarnation %d over %d", err, r.Incarnation(), stored)
		}
		us.put("orders", "a", "new:80", func(i *api.Instance) { i.Incarnation = stored + 100 })
		time.Sleep(5 * time.Second)
		if !errors.Is(r.Err(), ErrSuperseded) {
			t.Errorf("Err: %v", r.Err())
		}
		before := len(us.requests("a"))
		time.Sleep(time.Minute)
		if n := len(us.requests("a")) - before; n != 0 {
			t.Errorf("%d requests after it was superseded", n)
		}
		if err := r.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if us.stored("orders", "a") == nil {
			t.Error("the old one deregistered the new one")
		}
	})
}

// A definite no is an error of Register, and nothing stays behind.
func TestRefusedRegistration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		us := w.regions["us"]
		us.refuse = api.Errorf(api.CodeForbidden, "this token may not register orders")
		c := w.client("us", nil)
		if _, err := c.Register(t.Context(), order("a")); api.CodeOf(err) != api.CodeForbidden {
			t.Error(err)
		}
		bad := order("a")
		bad.Port = 0
		if _, err := c.Register(t.Context(), bad); api.CodeOf(err) != api.CodeInvalidField || !strings.Contains(err.Error(), "port") {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if n := len(us.requests("a")); n != 1 {
			t.Errorf("%d requests", n)
		}
	})
}

// A registry that does not answer is no error: it is asked until it does. Another region
// is never asked to register.
func TestRegisterWhileTheRegistryIsAway(t *testing.T) {
	for name, away := range map[string]func(*world, bool){
		"refused": func(w *world, on bool) {
			if on {
				w.net.kill(w.regions["us"].addr)
			} else {
				w.regions["us"].start()
			}
		},
		"hung": func(w *world, on bool) { w.net.hang(w.regions["us"].addr, on) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "us", "eu")
				away(w, true)
				c := w.client("us", nil)
				start := time.Now()
				r, err := c.Register(t.Context(), order("a"))
				if err != nil || !r.Pending() || time.Since(start) != registerWait {
					t.Fatal(err, time.Since(start))
				}
				time.Sleep(20 * time.Second)
				away(w, false)
				time.Sleep(6 * time.Second)
				if r.Pending() || w.regions["us"].stored("orders", "a") == nil || r.Err() != nil {
					t.Errorf("pending %v, %v", r.Pending(), r.Err())
				}
				if len(w.regions["eu"].requests("a")) != 0 {
					t.Error("another region was asked")
				}
				if err := r.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Cancelling Register leaves nothing behind.
func TestRegisterCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		w.net.kill(w.regions["us"].addr)
		c := w.client("us", nil)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := c.Register(ctx, order("a")); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		w.regions["us"].start()
		time.Sleep(time.Minute)
		if w.regions["us"].stored("orders", "a") != nil {
			t.Error("registered after all")
		}
	})
}

// Close with a dead registry ends with its context.
func TestCloseWithADeadRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		c := w.client("us", nil)
		r, err := c.Register(t.Context(), order("a"))
		if err != nil {
			t.Fatal(err)
		}
		w.net.hang(w.regions["us"].addr, true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := r.Close(ctx); err == nil || time.Since(start) > 3*time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}

// Config says what is wrong with it.
func TestConfigIsChecked(t *testing.T) {
	for _, cfg := range []Config{
		{},
		{Addresses: []string{"10.0.0.1:7400"}},
		{Addresses: []string{"http://user:secret@h:1"}},
		{Addresses: []string{"http://h:1"}, Region: "Bad Region"},
		{Addresses: []string{"http://h:1"}, Zone: "-"},
		{Addresses: []string{"http://h:1"}, SnapshotKey: []byte("secret")},
		{Addresses: []string{"http://h:1"}, SnapshotMaxBytes: 10},
		{Addresses: []string{"http://h:1"}, SnapshotMaxBytes: 1 << 40},
		{Addresses: []string{"http://h:1"}, SnapshotMaxAge: -1},
		{Addresses: []string{"http://h:1"}, Balancer: BuiltIn(7)},
		{Addresses: []string{"http://h:1"}, Services: map[string]ServiceConfig{"Bad Name": {}}},
		{Addresses: []string{"http://h:1"}, Services: map[string]ServiceConfig{"orders": {Subset: 3}}},
		{Addresses: []string{"http://h:1"}, Balancer: PeakEWMA{Decay: -1}},
		{Addresses: []string{"http://h:1"}, Balancer: ConsistentHash{Load: 1}},
		{Addresses: []string{"http://h:1"}, Balancer: (*ConsistentHash)(nil)},
		{Addresses: []string{"http://h:1"}, SlowStart: -1},
		{Addresses: []string{"http://h:1"}, Subset: 7},
		{Addresses: []string{"http://h:1"}, Subset: -1},
		{Addresses: []string{"http://h:1"}, Services: map[string]ServiceConfig{"orders": {Balancer: BuiltIn(7)}}},
		{Addresses: []string{"http://h:1"}, Services: map[string]ServiceConfig{"orders": {}, "orders.default": {}}},
	} {
		c, err := New(cfg)
		if err == nil {
			_ = c.Close()
			t.Errorf("%+v was taken", cfg)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("P12: the error shows a password: %v", err)
		}
	}
	c, err := New(Config{Addresses: []string{"http://h:1/"}, HTTPClient: &http.Client{Timeout: time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
