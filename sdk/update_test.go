package nearside

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// P1, P9: what Update changes is acknowledged, in the same incarnation and with the status
// that was set; a registry that lost the instance hears the newest.
func TestUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		us := w.regions["us"]
		c := w.client("us", nil)
		given := order("a")
		given.Metadata = map[string]string{"build": "1"}
		r, err := c.Register(t.Context(), given)
		if err != nil {
			t.Fatal(err)
		}
		given.Metadata["build"] = "not ours any more"
		if err := r.SetStatus(t.Context(), api.StatusWarning, "disk nearly full"); err != nil {
			t.Fatal(err)
		}
		before := r.Incarnation()
		if err := r.Update(t.Context(), func(n *Registration) { n.Metadata["colour"] = "green"; n.Weight = 7 }); err != nil {
			t.Fatal(err)
		}
		check := func(when string, weight int) {
			t.Helper()
			in := us.stored("orders", "a")
			if in == nil || in.Weight != weight || in.Metadata["build"] != "1" || in.Metadata["colour"] != "green" ||
				in.Status != api.StatusWarning || in.Incarnation != before {
				t.Errorf("%s: %+v", when, in)
			}
		}
		check("updated", 7)
		us.wipe()
		time.Sleep(5 * time.Second)
		check("after a loss", 7)

		for name, change := range map[string]func(*Registration){
			"service": func(n *Registration) { n.Service = "payments" }, "id": func(n *Registration) { n.ID = "b" },
			"starting": func(n *Registration) { n.Starting = true }, "port": func(n *Registration) { n.Port = -1 },
		} {
			if err := r.Update(t.Context(), change); err == nil {
				t.Errorf("%s: a wrong update was taken", name)
			}
		}
		us.mu.Lock()
		us.refuse = api.Errorf(api.CodeForbidden, "this token may not change orders")
		us.mu.Unlock()
		if err := r.Update(t.Context(), func(n *Registration) { n.Weight = 9 }); api.CodeOf(err) != api.CodeForbidden {
			t.Error(err)
		}
		us.mu.Lock()
		us.refuse = nil
		us.mu.Unlock()
		us.wipe()
		time.Sleep(10 * time.Second)
		check("a refused update is forgotten", 7)

		// While the registry is away the change is kept, and told later.
		w.net.kill(us.addr)
		if err := r.Update(t.Context(), func(n *Registration) { n.Weight = 11 }); err == nil || !r.Pending() {
			t.Error("nobody can have acknowledged it", err)
		}
		us.start()
		time.Sleep(5 * time.Second)
		check("told later", 11)
		if r.Pending() || r.Err() != nil {
			t.Error(r.Err())
		}
	})
}

// Done closes when the registration is over, and Err says whether that was wanted.
func TestDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		us := w.regions["us"]
		c := w.client("us", nil)
		var list []*Registered
		for _, id := range []string{"superseded", "closed", "client-closed"} {
			r, err := c.Register(t.Context(), order(id))
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, r)
		}
		time.Sleep(10 * time.Second)
		over := func(r *Registered) bool {
			select {
			case <-r.Done():
				return true
			default:
				return false
			}
		}
		for _, r := range list {
			if over(r) {
				t.Fatal("over while all is well", r.ID())
			}
		}
		us.put("orders", "superseded", "new:80", func(i *api.Instance) { i.Incarnation = list[0].Incarnation() + 1 })
		if err := list[1].Close(t.Context()); err != nil {
			t.Error(err)
		}
		time.Sleep(5 * time.Second)
		if !over(list[0]) || !errors.Is(list[0].Err(), ErrSuperseded) {
			t.Errorf("row 30: superseded, and not told: %v", list[0].Err())
		}
		if !over(list[1]) || list[1].Err() != nil || over(list[2]) {
			t.Error("closed", list[1].Err())
		}
		if err := list[0].Update(t.Context(), func(*Registration) {}); !errors.Is(err, ErrSuperseded) {
			t.Error(err)
		}
		c.mu.Lock()
		if n := len(c.registered); n != 1 {
			t.Errorf("P8: the client keeps %d registrations, one is left", n)
		}
		c.mu.Unlock()
		_ = c.Close()
		if !over(list[2]) {
			t.Error("closed with its client")
		}
	})
}

// A token that ended and came back: the registration says so meanwhile, is tried calmly, and
// goes on.
func TestRefusedForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		us := w.regions["us"]
		c := w.client("us", nil)
		r, err := c.Register(t.Context(), order("a"))
		if err != nil {
			t.Fatal(err)
		}
		set := func(e *api.Error, after int) {
			us.mu.Lock()
			defer us.mu.Unlock()
			us.refuse, us.after, us.heard["a"] = e, after, nil
		}
		for name, tc := range map[string]struct {
			refuse      *api.Error
			after       int
			least, most int // requests in a minute
		}{
			"a token that ended":          {api.Errorf(api.CodeUnauthorized, "the token ended"), 0, 8, 26},
			"too busy, later":             {api.Errorf(api.CodeTooManyRequests, "too many"), 20, 2, 4},
			"away, and says for how long": {api.Errorf(api.CodeUnavailable, "restarting"), 15, 2, 5},
		} {
			set(tc.refuse, tc.after)
			time.Sleep(time.Minute)
			if n := len(us.requests("a")); n < tc.least || n > tc.most {
				t.Errorf("%s: %d requests in a minute", name, n)
			}
			if api.CodeOf(r.Err()) != tc.refuse.Code {
				t.Errorf("%s: Err is %v", name, r.Err())
			}
			set(nil, 0)
			time.Sleep(25 * time.Second)
			if r.Err() != nil || us.stored("orders", "a") == nil {
				t.Errorf("%s: afterwards %v", name, r.Err())
			}
		}
	})
}

// Close ends the loop in every state, in time, however often and from wherever it is called.
func TestCloseInEveryState(t *testing.T) {
	type scene struct {
		w  *world
		us *fakeRegion
		r  *Registered
		k  *clocks
	}
	supersede := func(s scene) {
		s.us.put("orders", "a", "new:80", func(i *api.Instance) { i.Incarnation = s.r.Incarnation() + 1000 })
	}
	refuse := func(s scene) {
		s.us.mu.Lock()
		s.us.refuse = api.Errorf(api.CodeForbidden, "no")
		s.us.mu.Unlock()
	}
	for name, tc := range map[string]struct {
		away   bool // while it registers
		then   func(scene)
		failed bool // Close returns an error
		stays  bool // the registry still has an instance
	}{
		"registered":         {},
		"pending":            {away: true, failed: true},
		"lost, not noticed":  {then: func(s scene) { s.us.wipe() }},
		"dead registry":      {then: func(s scene) { s.w.net.kill(s.us.addr) }, failed: true, stays: true},
		"hung registry":      {then: func(s scene) { s.w.net.hang(s.us.addr, true) }, failed: true, stays: true},
		"refused":            {then: func(s scene) { refuse(s); pass(10 * time.Second) }, failed: true, stays: true},
		"draining":           {then: func(s scene) { _ = s.r.SetStatus(context.Background(), api.StatusDraining, "") }},
		"asleep":             {then: func(s scene) { s.k.asleep(time.Hour) }},
		"superseded":         {then: func(s scene) { supersede(s); pass(10 * time.Second) }, stays: true},
		"superseded unaware": {then: func(s scene) { supersede(s) }, stays: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := scene{w: newWorld(t, "us"), k: &clocks{}}
				s.us = s.w.regions["us"]
				if tc.away {
					s.w.net.kill(s.us.addr)
				}
				c := s.w.client("us", nil)
				s.k.of(c)
				var err error
				if s.r, err = c.Register(t.Context(), order("a")); err != nil {
					t.Fatal(err)
				}
				if tc.then != nil {
					tc.then(s)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				start := time.Now()
				var group sync.WaitGroup
				for range 3 {
					group.Go(func() {
						if err := s.r.Close(ctx); (err != nil) != tc.failed {
							t.Errorf("Close: %v", err)
						}
					})
				}
				group.Wait()
				if took := time.Since(start); took > 5*time.Second {
					t.Errorf("it took %s", took)
				}
				<-s.r.Done()
				if got := s.us.stored("orders", "a") != nil; got != tc.stays {
					t.Errorf("registered afterwards: %v", got)
				}
				if err := s.r.SetStatus(t.Context(), api.StatusPassing, ""); err == nil {
					t.Error("a status after the end")
				}
				if err := c.Close(); err != nil {
					t.Error("nothing is left to deregister", err)
				}
			})
		})
	}
}
