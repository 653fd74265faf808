package nearside

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/route"
)

// ownBalancer is a program's balancer made of functions.
type ownBalancer struct {
	prepare func(Candidates) Picker
	pick    func(PickInfo) int
	observe func(Outcome)
}

func (b *ownBalancer) Prepare(t Candidates) Picker {
	if b.prepare != nil {
		return b.prepare(t)
	}
	if b.observe != nil {
		return ownObserver{b}
	}
	return ownPicker{b}
}

type ownPicker struct{ b *ownBalancer }

func (p ownPicker) Pick(i PickInfo) int { return p.b.pick(i) }

type ownObserver struct{ b *ownBalancer }

func (p ownObserver) Pick(i PickInfo) int { return p.b.pick(i) }
func (p ownObserver) Observe(o Outcome)   { p.b.observe(o) }

// logged collects what a client logs. It is safe for concurrent use.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

// P3: whatever a program's own balancer does wrong, no call fails for it: all go round robin,
// and the log says once why.
func TestWrongBalancersKillNoCall(t *testing.T) {
	for name, tc := range map[string]struct {
		b   *ownBalancer
		log string
	}{
		"Prepare panics":         {&ownBalancer{prepare: func(Candidates) Picker { panic("oh") }}, "panicked"},
		"Prepare returns nil":    {&ownBalancer{prepare: func(Candidates) Picker { return nil }}, "returned no Picker"},
		"Pick panics":            {&ownBalancer{pick: func(PickInfo) int { panic("oh") }}, "panicked"},
		"Pick is below all":      {&ownBalancer{pick: func(PickInfo) int { return -1 }}, "returned -1"},
		"Pick is above all":      {&ownBalancer{pick: func(PickInfo) int { return 3 }}, "returned 3"},
		"Observe panics":         {&ownBalancer{pick: func(PickInfo) int { return 0 }, observe: func(Outcome) { panic("oh") }}, "panicked"},
		"Pick runs out of bound": {&ownBalancer{pick: func(PickInfo) int { return []int{}[len(t.Name())] }}, "panicked"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "us")
				for _, id := range []string{"a", "b", "c"} {
					w.run("us", "orders", id)
				}
				var log logged
				c := w.client("us", func(cfg *Config) {
					cfg.Balancer, cfg.Logger = tc.b, slog.New(slog.NewTextHandler(&log, nil))
				})
				seen := map[api.InstanceID]int{}
				for range 30 {
					p, err := c.Pick(t.Context(), "orders")
					if err != nil {
						t.Fatal(err)
					}
					p.Done(nil)
					seen[p.Endpoint.ID]++
				}
				for range 3 {
					if _, _, status, err := get(t, w.web(c), "http://orders/"); status != 200 || err != nil {
						t.Fatal(status, err)
					}
				}
				if len(seen) != 3 {
					t.Errorf("not round robin: %v", seen)
				}
				w.run("us", "orders", "d") // the next answer makes no second line
				synctest.Wait()
				for range 8 {
					p, err := c.Pick(t.Context(), "orders")
					if err != nil {
						t.Fatal(err)
					}
					p.Done(nil)
				}
				if n := log.count("level=ERROR"); n != 1 || log.count(tc.log) != 1 {
					t.Errorf("%d lines, want one that says %q:\n%s", n, tc.log, log.b.String())
				}
			})
		})
	}
}

// What panicked with a lock held would hang all calls if it were asked again.
func TestBalancerThatPanickedIsNotAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		w.run("us", "orders", "a")
		var mu sync.Mutex
		b := &ownBalancer{pick: func(PickInfo) int { mu.Lock(); panic("oh") }}
		c := w.client("us", func(cfg *Config) { cfg.Balancer = b })
		for i := range 3 {
			p, err := c.Pick(t.Context(), "orders")
			if err != nil {
				t.Fatal(err)
			}
			p.Done(nil)
			w.run("us", "orders", string(rune('b'+i))) // each answer is prepared anew
			synctest.Wait()
		}
	})
}

// A program's balancer knows its candidates and the call, and is asked with no lock held: it
// may use the client itself.
func TestOwnBalancerKnowsItsTier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		for id, weight := range map[string]int{"a": 100, "b": 300, "zero": 0} {
			w.regions["us"].put("orders", id, "h:80", withWeight(weight))
		}
		w.regions["us"].put("users", "u", "h:80", nil)
		var c *Client
		var tiers []Candidates
		b := &ownBalancer{}
		b.prepare = func(t Candidates) Picker {
			tiers = append(tiers, t)
			if t.Service.Service == "orders" {
				for _, f := range []func() error{
					func() error { _, err := c.Resolve(context.Background(), "orders"); return err },
					func() error { _, err := c.Explain(context.Background(), "orders"); return err },
					func() error { return pickDone(c, "orders") },
					func() error { return pickDone(c, "users") },
				} {
					if err := f(); err != nil {
						panic(err)
					}
				}
			}
			return ownPicker{b}
		}
		b.pick = func(i PickInfo) int {
			if key, ok := i.Key(); ok && key == "heavy" {
				return 1
			}
			return 0
		}
		c = w.client("us", func(cfg *Config) { cfg.Balancer = b })
		p, err := c.Pick(t.Context(), "orders")
		if err != nil || p.Endpoint.ID != "a" {
			t.Fatalf("%s: %v", p.Endpoint.ID, err)
		}
		p.Done(nil)
		if p, err = c.Pick(WithKey(t.Context(), "heavy"), "orders"); err != nil || p.Endpoint.ID != "b" {
			t.Errorf("%s: %v", p.Endpoint.ID, err)
		}
		first := tiers[0]
		if first.Service.Service != "orders" || first.Region != "us" || first.Kind != api.TierRegion || len(first.List) != 2 {
			t.Fatalf("%+v", first)
		}
		if first.List[0].Weight != 100 || first.List[1].Weight != 300 || first.List[0].Running() != 0 || first.List[1].Running() != 1 {
			t.Errorf("%+v, %d and %d running", first.List, first.List[0].Running(), first.List[1].Running())
		}
	})
}

func pickDone(c *Client, service string) error {
	p, err := c.Pick(context.Background(), service)
	if err == nil {
		p.Done(nil)
	}
	return err
}

// An observer learns how each attempt at its candidates ended, those repeated without asking
// it too, and how long it took.
func TestObserverLearnsOutcomes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		a, b := w.run("us", "orders", "a"), w.run("us", "orders", "b")
		var got []Outcome
		own := &ownBalancer{pick: func(PickInfo) int { return 0 }, observe: func(o Outcome) { got = append(got, o) }}
		c := w.client("us", func(cfg *Config) { cfg.Balancer = own })
		web := w.web(c)
		a.set(func(p *program) { p.status, p.delay = http.StatusServiceUnavailable, 20*time.Millisecond })
		b.set(func(p *program) { p.delay = 30 * time.Millisecond })
		if _, id, _, err := get(t, web, "http://orders/"); id != "b" || err != nil {
			t.Fatal(id, err)
		}
		p, err := c.Pick(t.Context(), "orders")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(40 * time.Millisecond)
		oops := errors.New("oops")
		p.Done(oops)
		p.Done(oops) // a second one is no news
		want := []Outcome{
			{Index: 0, Took: 20 * time.Millisecond, Status: 503},
			{Index: 1, Took: 30 * time.Millisecond, Status: 200},
			{Index: 0, Took: 40 * time.Millisecond, Err: oops},
		}
		if len(got) != len(want) {
			t.Fatalf("%+v", got)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%d: %+v, want %+v", i, got[i], want[i])
			}
		}
	})
}

// What is set for one service holds for it alone, by whatever name it is called.
func TestServicesAreConfiguredByThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		for _, r := range w.regions {
			for _, service := range []string{"orders", "users"} {
				r.put(service, string(r.name)+"1", "h:80", nil)
				r.put(service, string(r.name)+"2", "h:80", nil)
			}
		}
		last := &ownBalancer{pick: func(PickInfo) int { return 1 }}
		c := w.client("us", func(cfg *Config) {
			cfg.Services = map[string]ServiceConfig{
				"orders.default": {Balancer: last, Policy: route.Policy{Allowed: []api.Region{"eu"}}},
			}
		})
		got := map[string]int{}
		for range 10 {
			for _, name := range []string{"orders", "orders.default", "users"} {
				p, err := c.Pick(t.Context(), name)
				if err != nil {
					t.Fatal(err)
				}
				p.Done(nil)
				got[name+" "+string(p.Endpoint.ID)]++
			}
		}
		want := map[string]int{"orders eu2": 10, "orders.default eu2": 10, "users us1": 5, "users us2": 5}
		for k, n := range want {
			if got[k] != n {
				t.Errorf("%v, want %v", got, want)
				break
			}
		}
	})
}

// A program's balancer may call those that are built in, for a part of its candidates and with
// other weights; nonsense is no reason to panic.
func TestBuiltInBalancersTakeAnyCandidates(t *testing.T) {
	for _, b := range []Balancer{RoundRobin, LeastRequest, PeakEWMA{}, ConsistentHash{}} {
		if i := b.Prepare(Candidates{}).Pick(PickInfo{}); i != -1 {
			t.Errorf("%T: %d of nobody", b, i)
		}
		tier := tierOf(100, 100, 100, 100)
		tier.lots = schedule(tier.List) // as the client gives it
		tier.List = tier.List[:3]
		tier.List[0].Weight, tier.List[1].Weight, tier.List[2].Weight = 3, math.NaN(), -5
		tier.List[0].in = nil // made by hand, as in a test of the program's
		for i, got := range shares(b.Prepare(tier), 3, 5000, nil) {
			if want := []float64{0.6, 0.2, 0.2}[i]; math.Abs(got-want) > 0.05 {
				t.Errorf("%T: candidate %d got %.3f, want %.1f", b, i, got, want)
			}
		}
	}
}
